//! What the kernel makes of a row of writes: a small model of the keys that
//! matter here, with nothing of the real kernel behind it.

use std::collections::HashMap;

use crate::conflicts::setting::{How, Setting};
use crate::model::facts::{self, Effect, Format, Written};
use crate::model::{Reach, Selector, SysctlKey, Value};

/// Keys with their values, and who set them.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    slots: HashMap<SysctlKey, Slot>,
    /// The keys whose change sets others, with those.
    effects: HashMap<SysctlKey, Vec<(SysctlKey, Effect)>>,
}

/// A key.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// Its value, where it is known.
    pub value: Option<Value>,
    /// Who set it, from first to last.
    pub touches: Vec<Touch>,
}

/// One time that a key was set.
#[derive(Debug, Clone)]
pub struct Touch {
    /// The number of the setting.
    pub setting: usize,
    /// How it came to the key.
    pub reach: Reach,
    /// What the setting gave its own key.
    pub set: Value,
    /// What this key has since; `None` where that cannot be known.
    pub value: Option<Value>,
}

impl Kernel {
    /// These keys, with their values where those are known.
    pub fn new(keys: impl IntoIterator<Item = (SysctlKey, Option<Value>)>) -> Self {
        let slot = |value| Slot {
            value,
            touches: Vec::new(),
        };
        let slots: HashMap<_, _> = keys
            .into_iter()
            .map(|(key, value)| (key, slot(value)))
            .collect();
        let mut effects: HashMap<_, Vec<_>> = HashMap::new();
        for source in slots.keys().filter(|key| facts::resets_others(key)) {
            let reached = slots
                .keys()
                .filter_map(|key| Some((key.clone(), facts::effect(source, key)?)));
            effects.insert(source.clone(), reached.collect());
        }
        Kernel { slots, effects }
    }

    /// The key as it is now.
    pub fn slot(&self, key: &SysctlKey) -> Option<&Slot> {
        self.slots.get(key)
    }

    /// Does what a setting does to a key, and to what the kernel sets with it.
    pub fn apply(&mut self, key: &SysctlKey, setting: &Setting, number: usize, skips_equal: bool) {
        let Some(slot) = self.slots.get(key) else {
            return;
        };
        let current = slot.value.clone();
        let current = current.as_ref();
        let Some(text) = &setting.value else {
            if let How::Unknown(_) = setting.how {
                self.forget(key, &Value::new("?"), number);
            }
            return;
        };
        // The number that a limit is compared with; no row of numbers has one.
        let compared = current.map(|it| it.integers().filter(|it| it.len() == 1));
        let limit = text.as_str().trim_start_matches('+').replace('_', "");
        let limit: Option<i128> = limit.parse().ok();
        let is_set = match (setting.how, compared) {
            (How::Sets, _) => Some(true),
            (How::Unknown(_), None) => None,
            (How::Unknown(_), Some(_)) => match facts::write(key, text.as_str(), current) {
                Written::Refused => Some(false),
                Written::Taken(value) if Some(&value) == current => {
                    if passes_on_equal(key) {
                        self.spread(key, Some(&value), text, number, false);
                    }
                    Some(false)
                }
                Written::Taken(_) | Written::Unknown => None,
            },
            (How::Raises, Some(current)) => Some(limit > current.map(|it| it[0])),
            (How::Lowers, Some(current)) => Some(current.map(|it| it[0]) > limit),
            (How::Raises | How::Lowers, None) => None,
        };
        match is_set {
            Some(true) => self.write(key, text, number, skips_equal),
            Some(false) => {}
            None => self.forget(key, text, number),
        }
    }

    /// Makes a key's value unknown, which `text` may be written to.
    fn forget(&mut self, key: &SysctlKey, text: &Value, setting: usize) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.forget(text, setting);
            self.spread(key, None, text, setting, true);
        }
    }

    /// Writes a text to a key, and to what the kernel sets with it.
    fn write(&mut self, key: &SysctlKey, text: &Value, setting: usize, skips_equal: bool) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let before = slot.value.clone();
        if !slot.write(key, text, setting, skips_equal) {
            return;
        }
        let value = slot.value.clone();
        let passes_on_equal = passes_on_equal(key);
        if passes_on_equal || before != value {
            let is_certain = passes_on_equal || before.is_some();
            self.spread(key, value.as_ref(), text, setting, is_certain);
        }
    }

    /// Makes the values of keys unknown that nobody has set yet.
    pub fn forget_start<'k>(&mut self, keys: impl IntoIterator<Item = &'k SysctlKey>) {
        for key in keys {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.value = None;
            }
        }
    }

    /// Sets what the kernel sets with a key that has this value now; perhaps, where
    /// it is not certain that this is a change.
    fn spread(
        &mut self,
        key: &SysctlKey,
        value: Option<&Value>,
        text: &Value,
        setting: usize,
        is_certain: bool,
    ) {
        let set = value.unwrap_or(text).clone();
        for (other, effect) in self.effects.get(key).into_iter().flatten() {
            let value = value.and_then(|value| effect.of(value));
            if let Some(slot) = self.slots.get_mut(other) {
                let is_known = is_certain || slot.value == value || effect.is_of_unit();
                slot.set(Touch {
                    setting,
                    reach: Reach::Propagated,
                    set: set.clone(),
                    value: value.filter(|_| is_known),
                });
            }
        }
    }
}

/// Whether other keys are set with this one though its value stays: IPv4 passes on a change
/// alone, IPv6 every write (net/ipv4/devinet.c, net/ipv6/addrconf.c).
fn passes_on_equal(key: &SysctlKey) -> bool {
    !key.path().starts_with("net/ipv4/")
}

impl Slot {
    /// A key of a new interface, which begins with what `default` is.
    pub fn inherited(default: &Slot) -> Self {
        let mut slot = default.clone();
        for touch in &mut slot.touches {
            touch.reach = Reach::Inherited;
        }
        slot
    }

    /// Writes a text to it alone; whether it was taken.
    pub fn write(
        &mut self,
        key: &SysctlKey,
        text: &Value,
        setting: usize,
        skips_equal: bool,
    ) -> bool {
        if skips_equal
            && self
                .value
                .as_ref()
                .is_some_and(|it| it.as_str() == text.as_str())
        {
            self.set(Touch {
                setting,
                reach: Reach::Sets,
                set: text.clone(),
                value: self.value.clone(),
            });
            return false;
        }
        // Where neither the format of a key nor its value is known, only a number is certain.
        let is_plain = self.value.is_some() || facts::integer(text.as_str()).is_some();
        let is_open = facts::format(&Selector::Key(key.clone())) == Format::Unknown && !is_plain;
        let value = match facts::write(key, text.as_str(), self.value.as_ref()) {
            Written::Taken(_) if is_open => None,
            Written::Taken(value) => Some(value),
            Written::Refused => return false,
            Written::Unknown => None,
        };
        let set = value.clone().unwrap_or_else(|| text.clone());
        self.set(Touch {
            setting,
            reach: Reach::Sets,
            set,
            value,
        });
        true
    }

    /// Sets what it gets where a text is written to `source`, which it follows.
    pub fn follow(&mut self, source: &SysctlKey, key: &SysctlKey, text: &Value, setting: usize) {
        let (set, value) = match facts::write(source, text.as_str(), None) {
            Written::Refused => return,
            Written::Unknown => (text.clone(), None),
            Written::Taken(value) => {
                let effect = facts::effect(source, key);
                let made = effect.and_then(|it| it.of(&value));
                (value, made)
            }
        };
        self.set(Touch {
            setting,
            reach: Reach::Propagated,
            set,
            value,
        });
    }

    /// Makes its value unknown, which `text` may be written to.
    pub fn forget(&mut self, text: &Value, setting: usize) {
        self.set(Touch {
            setting,
            reach: Reach::Sets,
            set: text.clone(),
            value: None,
        });
    }

    fn set(&mut self, touch: Touch) {
        self.value = touch.value.clone();
        self.touches.push(touch);
    }
}
