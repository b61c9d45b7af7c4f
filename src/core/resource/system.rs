//! The identities of kernel modules and systemd units. Each has a valid name.

use std::fmt;
use std::sync::Arc;

use crate::model::UNIT_TYPES;

/// A kernel module, by the name that the kernel shows: with `_` where modprobe(8) also
/// takes `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Module(Arc<str>);

impl Module {
    /// The longest name (`MODULE_NAME_LEN` without its NUL).
    pub const LONGEST: usize = 55;

    /// Reads a name, in either spelling.
    pub fn parse(name: &str) -> Option<Module> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let is_name = (1..=Self::LONGEST).contains(&name.len()) && name.bytes().all(is_plain);
        is_name.then(|| Module(name.replace('-', "_").into()))
    }

    /// The module in a line of `modules.dep` or `modules.builtin`:
    /// `kernel/net/ipv4/tcp_bbr.ko.xz: what it needs`.
    pub fn listed(line: &str) -> Option<Module> {
        let path = line.split(':').next()?;
        let (name, _) = path.rsplit('/').next()?.split_once(".ko")?;
        Module::parse(name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A unit of systemd's, by its full name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit(Arc<str>);

impl Unit {
    /// The longest name (`UNIT_NAME_MAX` without its NUL).
    pub const LONGEST: usize = 255;

    /// Whether a name may have this character.
    pub fn takes(c: char) -> bool {
        c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)
    }

    /// Reads a full name, such as `kubelet.service`.
    pub fn parse(name: &str) -> Option<Unit> {
        let (stem, kind) = name.rsplit_once('.')?;
        let is_name = !stem.is_empty() && UNIT_TYPES.contains(&kind);
        (is_name && name.len() <= Self::LONGEST && name.chars().all(Unit::takes))
            .then(|| Unit(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What sort of unit it is: `service`.
    pub fn unit_type(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or_default()
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_strictly() {
        for (name, module) in [
            ("br_netfilter", Some("br_netfilter")),
            ("br-netfilter", Some("br_netfilter")),
            ("8021q", Some("8021q")),
            ("-r", Some("_r")),
            ("", None),
            ("br netfilter", None),
            ("../br_netfilter", None),
            ("br_netfilter.ko", None),
            ("br_netfilter;reboot", None),
            (&"x".repeat(56), None),
        ] {
            let read = Module::parse(name);
            assert_eq!(read.as_ref().map(Module::as_str), module, "{name}");
        }
        for (name, is_unit) in [
            ("calico-node.service", true),
            ("getty@tty1.service", true),
            (r"dev-disk-by\x2did.mount", true),
            ("calico-node", false),
            (".service", false),
            ("calico-node.servce", false),
            ("kube*.service", false),
            ("a/b.service", false),
            ("a b.service", false),
        ] {
            assert_eq!(Unit::parse(name).is_some(), is_unit, "{name}");
        }
    }
}
