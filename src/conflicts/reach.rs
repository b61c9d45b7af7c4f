//! How a key that a file sets comes to a key that is guarded, as the kernel has it.

use std::collections::BTreeSet;

use crate::model::facts::{self, All, Effect, Fact};
use crate::model::{
    Family, Governing, InterfaceFolder, Pattern, Reach, Segment, Selector, SysctlKey, Value,
};
use crate::resource::Desired;

/// How a line that sets `key` comes to the keys that the invariant with this
/// index guards, where it does.
pub fn reach(
    key: &Selector,
    guarded: &Selector,
    governing: &Governing,
    index: usize,
) -> Option<Reach> {
    if key.meets(guarded) {
        // One key has one invariant, however many patterns mean it.
        let governs = key.key().is_none_or(|key| governing.of(key) == Some(index));
        return governs.then_some(Reach::Sets);
    }
    let Selector::Key(key) = key else {
        return None;
    };
    if facts::effect_on(key, guarded) == Some(Effect::Same) {
        return Some(Reach::Propagated);
    }
    let guarded = &alike(guarded, key)?;
    let guarded = Parts::of(guarded)?;
    // A new interface begins with `default`, in IPv4 and IPv6, for conf and neigh.
    let own = Parts::of_key(key)?;
    let inherits = own.target == "default"
        && !matches!(guarded.target, "all" | "default")
        && (own.family, own.folder, own.name) == (guarded.family, guarded.folder, guarded.name);
    inherits.then_some(Reach::Inherited)
}

/// How the kernel combines `conf.all` with an interface's own value, where a
/// line that sets `key` to `value` makes the guarded keys of an interface count
/// for another value than is required.
pub fn overruled(
    key: &Selector,
    value: &Value,
    guarded: &Selector,
    required: &Desired,
) -> Option<All> {
    let Selector::Key(key) = key else {
        return None;
    };
    let own = Parts::of_key(key)?;
    let guarded = &alike(guarded, key)?;
    let guarded = Parts::of(guarded)?;
    let is_all = own.target == "all"
        && !matches!(guarded.target, "all" | "default")
        && (own.family, own.folder, own.name) == (guarded.family, guarded.folder, guarded.name);
    let combined = Fact::of_key(key).filter(|_| is_all)?.all;
    let [all] = value.integers()?[..] else {
        return None;
    };
    let [own] = required.restore_to(&Value::new("0"))?.integers()?[..] else {
        return None;
    };
    let effective = combined.effective(all, own)?;
    (!required.holds(&Value::from(effective))).then_some(combined)
}

/// What is guarded of the keys that are like this one but for the interface: patterns may
/// mean several families and names.
pub fn alike(guarded: &Selector, key: &SysctlKey) -> Option<Selector> {
    match guarded {
        Selector::Pattern(pattern) => {
            pattern.within(key.interface_folder()?, key.interface_key()?.2)
        }
        other => Some(other.clone()),
    }
}

/// A pattern as one for each name in a folder of interfaces, or a key of one interface:
/// what a new interface begins with, and what the kernel sets with `all`, goes by those.
/// Of names that are not spelled out those of the table and of `known`.
pub fn plain(pattern: &Pattern, known: &BTreeSet<SysctlKey>) -> Vec<Selector> {
    if pattern.interface_folder().is_some() {
        return vec![Selector::Pattern(pattern.clone())];
    }
    let mut plain = Vec::new();
    for folder in InterfaceFolder::ALL {
        let of_files = known
            .iter()
            .filter(|it| it.interface_folder() == Some(folder));
        let of_files = of_files.filter_map(SysctlKey::interface_key);
        let of_table = facts::names(folder).map(|name| -> &str { name });
        let names: BTreeSet<&str> = of_files.map(|it| it.2).chain(of_table).collect();
        plain.extend(names.iter().filter_map(|name| pattern.within(folder, name)));
    }
    match plain.is_empty() {
        true => vec![Selector::Pattern(pattern.clone())],
        false => plain,
    }
}

/// The parts of `net/FAMILY/{conf,neigh}/TARGET/NAME`, of a key or a pattern;
/// the target may be a glob.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The address family.
    pub family: Family,
    /// `conf` or `neigh`.
    pub folder: &'a str,
    /// `all`, `default`, an interface or a glob of interfaces.
    pub target: &'a str,
    pub name: &'a str,
}

impl<'a> Parts<'a> {
    /// The parts of a selector of that form.
    pub fn of(selector: &'a Selector) -> Option<Self> {
        match selector {
            Selector::Key(key) => Parts::of_key(key),
            Selector::Pattern(pattern) => match pattern.segments() {
                [
                    Segment::Literal(net),
                    Segment::Literal(family),
                    Segment::Literal(folder),
                    target,
                    Segment::Literal(name),
                ] => Parts::new([net, family, folder, target.as_str(), name]),
                _ => None,
            },
            Selector::Resource(_) | Selector::Group(_) => None,
        }
    }

    fn of_key(key: &'a SysctlKey) -> Option<Self> {
        let mut segments = key.segments();
        let mut next = || segments.next();
        let parts = [next()?, next()?, next()?, next()?, next()?];
        match next() {
            None => Parts::new(parts),
            Some(_) => None,
        }
    }

    fn new([net, family, folder, target, name]: [&'a str; 5]) -> Option<Self> {
        let family = match family {
            "ipv4" => Family::Ipv4,
            "ipv6" => Family::Ipv6,
            _ => return None,
        };
        (net == "net" && matches!(folder, "conf" | "neigh")).then_some(Parts {
            family,
            folder,
            target,
            name,
        })
    }
}
