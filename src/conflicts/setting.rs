//! One line that sets keys, and the syntax of sysctl.d(5).

use std::sync::Arc;

use super::tree::{Text, Tree};
use super::{networkd, tuned};
use crate::model::{Origin, Selector, Value};

/// What kind of file a line is in: what is to be done about it depends on that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// sysctl.d(5) or sysctl.conf(5).
    Sysctl,
    /// The network script, or what it calls.
    NetworkScript,
    /// A switch of the network script in `/etc/sysconfig`.
    Sysconfig,
    /// A profile of tuned.
    Tuned(tuned::Fix),
    /// ufw's own.
    Ufw,
    /// networkd.conf(5) or systemd.network(5).
    Networkd(networkd::Fix),
}

/// A line that sets keys.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The keys.
    pub key: Selector,
    /// To what; `None` where the line only takes the key out of patterns
    /// (`-KEY` in sysctl.d(5)).
    pub value: Option<Value>,
    /// The line.
    pub place: Origin,
    /// The kind of its file.
    pub kind: Kind,
}

/// The settings of a file in the syntax of sysctl.d(5), which is procps's too:
/// `KEY = VALUE`, `-KEY = VALUE` (no matter if it fails), `-KEY`; a line that
/// begins with `#` or `;` is a comment. A line that is nothing of this is one
/// that its readers pass over as well.
pub fn settings(file: &Text) -> Vec<Setting> {
    file.lines()
        .filter_map(|(number, line)| {
            let (key, value) = assignment(line)?;
            Some(Setting {
                key,
                value,
                place: origin(file, number),
                kind: Kind::Sysctl,
            })
        })
        .collect()
}

/// The place of a line, by the file that a person has to change.
pub fn origin(file: &Text, line: u32) -> Origin {
    Origin {
        file: Arc::clone(&file.real),
        line,
    }
}

fn assignment(line: &str) -> Option<(Selector, Option<Value>)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    match line.split_once('=') {
        Some((key, value)) => {
            let key = key.trim_end();
            let key = key.strip_prefix('-').unwrap_or(key);
            Some((selector(key)?, Some(Value::new(value))))
        }
        None => Some((selector(line.strip_prefix('-')?)?, None)),
    }
}

/// The keys that a file names, one below `/proc/sys`.
pub fn selector(key: &str) -> Option<Selector> {
    // Who applies the file knows no escapes.
    let key = key.trim().replace('\\', "\\x5c");
    Selector::parse(key.trim_start_matches('/')).ok()
}

/// The files of several folders whose names end in `.conf`, sorted by name; of
/// two with one name, that of the first folder.
pub fn by_name(tree: &Tree, folders: &[&str]) -> Vec<Text> {
    let mut files = std::collections::BTreeMap::new();
    for folder in folders {
        let is_conf = |name: &str| name.ends_with(".conf") && !name.starts_with('.');
        for name in tree.list(folder, is_conf) {
            let path = format!("{folder}/{name}");
            files.entry(name).or_insert(path);
        }
    }
    files
        .into_values()
        .filter_map(|path| tree.read(path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_sysctl_d_says() {
        for (line, expected) in [
            ("net.ipv4.ip_forward = 0", Some("net.ipv4.ip_forward 0")),
            ("net/ipv4/ip_forward=0", Some("net.ipv4.ip_forward 0")),
            ("/net/ipv4/ip_forward=0", Some("net.ipv4.ip_forward 0")),
            (
                "  -net.ipv4.ip_forward\t=\t0 ",
                Some("net.ipv4.ip_forward 0"),
            ),
            (
                "net.ipv4.conf.all.forwarding=0",
                Some("net.ipv4.ip_forward 0"),
            ),
            (
                "net.ipv4.conf.eth0/100.rp_filter=1",
                Some("net.ipv4.conf.eth0/100.rp_filter 1"),
            ),
            (
                "net/ipv4/conf/eth0.100/rp_filter=1",
                Some("net.ipv4.conf.eth0/100.rp_filter 1"),
            ),
            (
                "net.ipv4.conf.*.rp_filter = 2",
                Some("net.ipv4.conf.*.rp_filter 2"),
            ),
            (
                "-net.ipv4.conf.all.rp_filter",
                Some("net.ipv4.conf.all.rp_filter -"),
            ),
            (
                "kernel.core_pattern = |/x %p =",
                Some("kernel.core_pattern |/x %p ="),
            ),
            ("net.ipv4.ip_forward", None),
            ("# net.ipv4.ip_forward = 0", None),
            ("; net.ipv4.ip_forward = 0", None),
            ("../../etc/passwd = 0", None),
            ("= 0", None),
            ("", None),
        ] {
            let read = assignment(line).map(|(key, value)| {
                format!(
                    "{key} {}",
                    value.map_or("-".to_owned(), |it| it.to_string())
                )
            });
            assert_eq!(read.as_deref(), expected, "{line}");
        }
    }
}
