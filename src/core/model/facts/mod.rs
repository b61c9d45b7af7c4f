//! What is known of sysctls: the one table that the restore order, `conflicts`,
//! `explain` and the checks of the configuration read.
//!
//! From the kernel's documentation (Documentation/networking/ip-sysctl,
//! Documentation/admin-guide/sysctl) and its code: net/ipv4/devinet.c,
//! net/ipv6/addrconf.c, net/core/neighbour.c, include/linux/inetdevice.h,
//! kernel/sysctl.c. A test in tests/kernel compares it with the running kernel.

mod format;
mod order;
mod table;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use format::{Format, INT, UINT, ULONG, Written, integer};
pub use order::{
    Effect, Rank, causes, effect, effect_on, flickers, governor, rank, resets, resets_others,
    takes_rtnl, twin,
};
use table::FACTS;

use super::{Errno, InterfaceFolder, Pattern, Segment, Selector, SysctlKey, Target, Value};

/// What is known of the keys of one or several names in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// The folder below `/proc/sys`; `*` stands for `all`, `default` or an interface.
    pub folder: &'static str,
    /// The names in it; `*` stands for any.
    pub names: &'static [&'static str],
    /// What they are for, in a sentence or two; may be empty.
    pub means: &'static str,
    /// What the kernel does that surprises; may be empty.
    pub kernel: &'static str,
    /// The module that they come with.
    pub module: Option<&'static str>,
    /// What the kernel has of the things that they name.
    pub offered: Option<Offered>,
    /// How values are parsed and compared.
    pub format: Format,
    /// The least and the most that the documentation gives a meaning; the kernel
    /// may take others.
    pub documented: Option<(i128, i128)>,
    /// What `all` is to an interface.
    pub all: All,
    /// What a change of `default` is to the interfaces that exist.
    pub default: Default,
    /// The keys that a change of this one sets too.
    pub sets: &'static [(&'static str, Effect)],
    /// The keys that must be on as well, or this one is on to no effect.
    pub needs: Option<&'static str>,
    /// The other path that shows the same value.
    pub alias: Option<&'static str>,
    /// The name in the same folder that shows the same value in another unit.
    pub twin: Option<(&'static str, Effect)>,
    /// Whether it can be read and written.
    pub access: Access,
    /// Why it has no effect, or no longer exists.
    pub obsolete: Option<Obsolete>,
    /// Whether the kernel may show, for a moment, a value that is not in force.
    pub flickers: bool,
    /// What reading it fails with until it is set.
    pub unset: Option<Errno>,
}

/// Where it stands what names the kernel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    /// The path of the key that lists those that it has now.
    pub by: &'static str,
    /// The modules that bring others: this and the name.
    pub module: &'static str,
}

/// What the value of `conf.all` is to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum All {
    /// There is no `all`, or it is a setting of its own.
    Apart,
    /// The greater of the two counts (`IN_DEV_MAXCONF`).
    Greater,
    /// The lesser of the two counts.
    Lesser,
    /// On where either is on (`IN_DEV_ORCONF`).
    Either,
    /// On where both are on (`IN_DEV_ANDCONF`).
    Both,
    /// `Both` where the interface forwards, else `Either` (`IN_DEV_RX_REDIRECTS`).
    Redirects,
    /// A write of `all` is a write of every interface.
    Copied,
    /// Nothing: only the interface's own value counts.
    Nothing,
}

impl All {
    /// The value that counts for an interface, where that follows from `all` and
    /// its own alone.
    pub fn effective(self, all: i128, own: i128) -> Option<i128> {
        Some(match self {
            All::Greater => all.max(own),
            All::Lesser => all.min(own),
            All::Either => i128::from(all != 0 || own != 0),
            All::Both => i128::from(all != 0 && own != 0),
            All::Nothing => own,
            All::Apart | All::Redirects | All::Copied => return None,
        })
    }

    /// How the kernel combines them.
    pub fn words(self) -> Option<&'static str> {
        Some(match self {
            All::Greater => "the kernel uses the greater of `all` and the interface's own value",
            All::Lesser => "the kernel uses the lesser of `all` and the interface's own value",
            All::Either => "it is on if either `all` or the interface has it on",
            All::Both => "it is on only if both `all` and the interface have it on",
            All::Redirects => {
                "on an interface that forwards it is on only if both `all` and the interface have it on, on others if either has"
            }
            All::Copied => "a write of `all` sets every interface",
            All::Nothing => "`all` has no effect: the kernel uses only the interface's own value",
            All::Apart => return None,
        })
    }
}

/// What a change of `conf.default` is to the interfaces that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// There is no `default`.
    Apart,
    /// Nothing: new interfaces begin with it.
    New,
    /// It is also copied to the interfaces that were never set themselves.
    Copied,
}

/// Whether a key can be read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Both.
    ReadWrite,
    /// Only read.
    ReadOnly,
    /// Only written: a write triggers something, there is no value to keep.
    WriteOnly,
}

/// Why a key does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obsolete {
    /// Kernels from this version on do not have it.
    Removed(&'static str),
    /// It still exists and has no effect from this version on.
    NoEffect(&'static str),
}

/// The module that a key comes with.
pub fn module(key: &SysctlKey) -> Option<&'static str> {
    Fact::of_key(key)?.module
}

impl Fact {
    /// The fact about keys that this selector means, where one row covers them.
    pub fn of(selector: &Selector) -> Option<&'static Fact> {
        match selector {
            Selector::Key(key) => Fact::of_key(key),
            // A glob that means several names is in no row but `*`.
            other => Fact::of_path(&other.segments().join("/")),
        }
    }

    /// The fact about this key.
    pub fn of_key(key: &SysctlKey) -> Option<&'static Fact> {
        key.fact()
    }

    /// The row of a key with this path: one of its name, else one for the folder.
    pub(super) fn of_path(path: &str) -> Option<&'static Fact> {
        static ROWS: LazyLock<HashMap<&'static str, Vec<&'static Fact>>> = LazyLock::new(|| {
            let mut rows: HashMap<_, Vec<_>> = HashMap::new();
            for fact in FACTS {
                for name in fact.names {
                    rows.entry(*name).or_default().push(fact);
                }
            }
            rows
        });
        let (folder, name) = path.rsplit_once('/')?;
        let inside = |fact: &&&Fact| match fact.folder.split_once('*') {
            None => fact.folder == folder,
            Some((before, after)) => {
                let rest = folder.strip_prefix(before);
                let one = rest.and_then(|rest| rest.strip_suffix(after));
                one.is_some_and(|one| !one.contains('/'))
            }
        };
        let of_name = |name: &str| ROWS.get(name)?.iter().find(inside).copied();
        of_name(name).or_else(|| of_name("*"))
    }

    /// Whether `key`, which this is about, is written and does something.
    pub fn has_effect(&self, key: &SysctlKey) -> bool {
        self.access == Access::ReadWrite && self.obsolete.is_none() && !self.is_vain_all(key)
    }

    /// Whether `key` is one of `all` of which only an interface's own value counts.
    pub fn is_vain_all(&self, key: &SysctlKey) -> bool {
        self.all == All::Nothing && matches!(key.interface_key(), Some((_, Target::All, _)))
    }

    /// The path of the key of this name below `/proc/sys`.
    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// Whether its folder may be among those that these parts mean.
    fn is_in(&self, folders: &[Segment]) -> bool {
        let mut own = self.folder.split('/');
        let inside = |part: &Segment| own.next().is_some_and(|it| it == "*" || part.matches(it));
        folders.iter().all(inside) && own.next().is_none()
    }

    /// Whether this is a row for all keys of a folder without one of their own.
    pub fn is_general(&self) -> bool {
        self.names.contains(&"*")
    }
}

/// The format of the keys that a selector means.
pub fn format(selector: &Selector) -> Format {
    Fact::of(selector).map_or(Format::Unknown, |fact| fact.format)
}

/// What the kernel makes of `text` written to `key`, which has the value
/// `before` where that is known. A text that [`Written::Unknown`] is the answer
/// to may set anything.
pub fn write(key: &SysctlKey, text: &str, before: Option<&Value>) -> Written {
    let fact = Fact::of_key(key);
    if fact.is_some_and(|it| it.access == Access::ReadOnly) {
        return Written::Refused;
    }
    let format = fact.map_or(Format::Unknown, |it| it.format);
    let written = match format {
        // Those of interfaces are numbers, if not all within the same bounds.
        Format::Unknown if key.interface_key().is_some() => Format::INTEGER.write(text, before),
        other => return other.write(text, before),
    };
    format::bounded(written, before)
}

/// Whether this key was never set, where reading it fails like this.
pub fn is_unset(key: &SysctlKey, errno: Errno) -> bool {
    Fact::of_key(key).is_some_and(|fact| fact.unset == Some(errno))
}

/// Whether the table names this key, and not only its folder.
pub fn is_listed(key: &SysctlKey) -> bool {
    Fact::of_key(key).is_some_and(|fact| !fact.is_general())
}

/// Whether a pattern may match a key that the table names.
pub fn knows(pattern: &Pattern) -> bool {
    let Some((name, folders)) = pattern.segments().split_last() else {
        return false;
    };
    let named = |fact: &&Fact| {
        let mut names = fact.names.iter();
        names.any(|it| *it != "*" && name.matches(it))
    };
    FACTS.iter().filter(named).any(|fact| fact.is_in(folders))
}

/// Whether a pattern is about a folder that the table has.
pub fn knows_folder(pattern: &Pattern) -> bool {
    let Some((_, folders)) = pattern.segments().split_last() else {
        return false;
    };
    FACTS.iter().any(|fact| fact.is_in(folders))
}

/// The names in a folder of interfaces that the table has.
pub fn names_in(folder: InterfaceFolder) -> impl Iterator<Item = &'static str> {
    let inside = move |fact: &&Fact| {
        let rest = fact.folder.strip_prefix(folder.path());
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    let names = FACTS.iter().filter(inside).flat_map(|fact| fact.names);
    names.copied().filter(|name| *name != "*")
}

/// The whole key, in dots, of a name that was written without its folder.
pub fn whole_key(name: &str) -> Option<String> {
    let is_meant = |fact: &&Fact| {
        fact.names.contains(&name) && fact.access == Access::ReadWrite && fact.obsolete.is_none()
    };
    let fact = FACTS.iter().find(is_meant)?;
    Some(fact.path(name).replace('*', "all").replace('/', "."))
}

/// The names in a folder of interfaces that are known.
pub fn names(folder: InterfaceFolder) -> impl Iterator<Item = &'static str> {
    let is_in = move |it: &&Fact| it.folder.strip_suffix("/*") == Some(folder.path());
    let names = FACTS.iter().filter(is_in).flat_map(|it| it.names).copied();
    names.filter(|it| *it != "*")
}

/// What the kernel shows under two paths; the first is the one people know.
pub(super) fn aliases() -> &'static [(String, &'static str)] {
    static ALIASES: LazyLock<Vec<(String, &'static str)>> = LazyLock::new(|| {
        FACTS
            .iter()
            .filter_map(|fact| Some((fact.path(fact.names[0]), fact.alias?)))
            .collect()
    });
    &ALIASES
}

/// What `key` is among the keys of interfaces: `all`, `default`, an interface.
fn target(key: &SysctlKey) -> Option<Target<'_>> {
    key.interface_key().map(|(_, target, _)| target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Option<(&'static str, &'static [&'static str])> {
        let selector = Selector::parse(text).expect(text);
        Fact::of(&selector).map(|fact| (fact.folder, fact.names))
    }

    #[test]
    fn a_row_of_the_name_comes_before_one_of_the_folder() {
        for (key, expected) in [
            (
                "net.ipv4.ip_forward",
                Some(("net/ipv4", &["ip_forward"][..])),
            ),
            (
                "net.ipv4.conf.all.forwarding",
                Some(("net/ipv4", &["ip_forward"])),
            ),
            (
                "net.ipv4.conf.cali*.rp_filter",
                Some(("net/ipv4/conf/*", &["rp_filter"])),
            ),
            (
                "net.ipv4.conf.eth0/1.igmpv9",
                Some(("net/ipv4/conf/*", &["*"])),
            ),
            (
                "net.ipv6.conf.all.forwarding",
                Some(("net/ipv6/conf/all", &["forwarding"])),
            ),
            (
                "net.ipv6.conf.eth0.forwarding",
                Some(("net/ipv6/conf/*", &["forwarding"])),
            ),
            ("net.ipv4.conf.all", None),
            ("fs.nothing", None),
            ("net.*.conf.all.rp_filter", None),
        ] {
            assert_eq!(row(key), expected, "{key}");
        }
    }

    #[test]
    fn every_row_can_be_found_and_says_sentences() {
        for fact in FACTS {
            for name in fact.names {
                let path = fact.path(name).replace('*', "x");
                assert_eq!(Fact::of_path(&path), Some(fact), "{path}");
            }
            for text in [fact.means, fact.kernel] {
                assert!(text.is_empty() || text.ends_with('.'), "{text}");
            }
        }
    }

    #[test]
    fn what_is_documented_is_taken() {
        for fact in FACTS {
            let Some((low, high)) = fact.documented else {
                continue;
            };
            for n in [low, high] {
                let written = fact.format.write(&n.to_string(), None);
                assert_eq!(written, Written::Taken(Value::from(n)), "{:?}", fact.names);
            }
        }
    }

    #[test]
    fn all_and_the_interface_make_one_value() {
        for (all, expected) in [
            (All::Greater, Some(2)),
            (All::Lesser, Some(0)),
            (All::Either, Some(1)),
            (All::Both, Some(0)),
            (All::Nothing, Some(0)),
            (All::Redirects, None),
        ] {
            assert_eq!(all.effective(2, 0), expected, "{all:?}");
        }
    }

    #[test]
    fn a_name_alone_has_a_whole_key() {
        for (name, expected) in [
            ("ip_forward", Some("net.ipv4.ip_forward")),
            ("rp_filter", Some("net.ipv4.conf.all.rp_filter")),
            ("nothing", None),
        ] {
            assert_eq!(whole_key(name).as_deref(), expected);
        }
    }
}
