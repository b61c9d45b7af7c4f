//! What the kernel makes of a row of writes: a small model of the keys that
//! matter here, with nothing of the real kernel behind it.

use std::collections::HashMap;

use crate::model::facts::{self, Effect, Written};
use crate::model::{Reach, SysctlKey, Value};

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

    /// Writes a text to a key, and to what the kernel sets with it.
    pub fn write(&mut self, key: &SysctlKey, text: &Value, setting: usize, skips_equal: bool) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let before = slot.value.clone();
        if !slot.write(key, text, setting, skips_equal) {
            return;
        }
        let value = slot.value.clone();
        // IPv4 passes on a change alone, IPv6 every write (net/ipv4/devinet.c,
        // net/ipv6/addrconf.c).
        if key.path().starts_with("net/ipv4/") && before == value {
            return;
        }
        let set = value.clone().unwrap_or_else(|| text.clone());
        for (other, effect) in self.effects.get(key).into_iter().flatten() {
            let value = value.as_ref().map(|value| match effect {
                Effect::Same => value.clone(),
                Effect::Opposite => Value::from(i128::from(*value == Value::new("0"))),
            });
            if let Some(slot) = self.slots.get_mut(other) {
                slot.set(Touch {
                    setting,
                    reach: Reach::Propagated,
                    set: set.clone(),
                    value,
                });
            }
        }
    }
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
        let value = match facts::write(key, text.as_str(), self.value.as_ref()) {
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

    fn set(&mut self, touch: Touch) {
        self.value = touch.value.clone();
        self.touches.push(touch);
    }
}
