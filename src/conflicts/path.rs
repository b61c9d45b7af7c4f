//! Paths below `/proc/sys` as lines spell them, and the keys that they lead to.

use std::borrow::Cow;

use super::files::glob::{braces, glob, is_pattern, letter, unescaped};
use crate::model::{Selector, SysctlKey};

/// Whether systemd-sysctl takes a pattern for a key of an interface that udev names.
/// Up to the interface it compares part by part, where braces stand for
/// themselves; what is left it looks for below the interface.
pub fn finds_new(pattern: &str, key: &SysctlKey) -> bool {
    const NAMED: usize = 4;
    let parts: Vec<&str> = pattern.split('/').collect();
    let names: Vec<&str> = key.segments().collect();
    if parts.len() != names.len() || parts.len() <= NAMED {
        return false;
    }
    let is_part = |(part, name): (&&str, &&str)| {
        let is_glob = is_pattern(part) && !part.ends_with('\\');
        part == name || (is_glob && matches(part, name))
    };
    let whole = [&names[..NAMED], &parts[NAMED..]].concat().join("/");
    let is_found = |path: &String| selector(path).is_some_and(|it| it.matches(key));
    parts[..NAMED].iter().zip(&names).all(is_part)
        && (whole == key.path()
            || (is_pattern(&whole)
                && (is_found(&whole) || braces(&whole).is_some_and(|it| it.iter().any(is_found)))))
}

/// Whether a path has the prefix that udev runs systemd-sysctl with for the interface of
/// a key, part by part as it is written.
pub fn has_prefix(path: &str, key: &SysctlKey) -> bool {
    let parts = path.split('/').filter(|it| !it.is_empty());
    !path.starts_with('/') && parts.zip(key.segments()).take(4).all(|(a, b)| a == b)
}

/// Whether a part of a pattern matches a name as fnmatch(3) has it.
fn matches(part: &str, name: &str) -> bool {
    let pattern = Selector::parse(&format!("net/ipv4/conf/{}/tag", glob(part)));
    let key = SysctlKey::from_segments(&["net", "ipv4", "conf", name, "tag"]);
    pattern.is_ok_and(|pattern| key.is_ok_and(|key| pattern.matches(&key)))
}

/// Whether systemd-sysctl may end at this path: an assertion of 252 fails where a
/// part of a pattern is longer than a file name.
pub fn is_too_long(path: &str) -> bool {
    const NAME_MAX: usize = 255;
    is_pattern(path) && path.split('/').any(|part| part.len() > NAME_MAX)
}

/// The path at which glob(3) finds a file that a pattern matches: all of it stays
/// as it is written but for the wildcards. `None` where it does not find it,
/// whose name begins with a dot.
pub fn found_as(pattern: &str, file: &SysctlKey) -> Option<String> {
    let names: Vec<&str> = file.segments().collect();
    let mut found: Vec<Cow<'_, str>> = Vec::new();
    // How far below /proc/sys.
    let mut depth: isize = 0;
    let mut parts = pattern.trim_end_matches('/').split('/').peekable();
    while let Some(part) = parts.next() {
        let name = usize::try_from(depth).ok().and_then(|at| names.get(at));
        let plain = unescaped(part);
        match (plain.as_str(), name) {
            ("" | ".", _) => found.push(plain.into()),
            ("..", _) => {
                depth -= 1;
                found.push(plain.into());
            }
            (_, name) if is_pattern(part) => {
                let name = name?;
                let hides =
                    name.starts_with('.') && !part.trim_start_matches('\\').starts_with('.');
                // A folder that is left again may be any other.
                if hides && parts.peek() != Some(&"..") {
                    return None;
                }
                depth += 1;
                found.push((*name).into());
            }
            _ => {
                depth += 1;
                found.push(plain.into());
            }
        }
    }
    Some(found.join("/"))
}

/// The path that a key names: if the first separator is a dot, dots and slashes
/// stand for each other.
pub fn swapped(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key[at..].starts_with('.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// Whether a path goes up from the folder of an interface.
pub fn leaves_interface(path: &str, patterns: bool) -> bool {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|it| !matches!(*it, "" | "."))
        .collect();
    let leaves = |it: &[&str]| {
        matches!(it, [folder, name, ".."]
            if has_interfaces(folder)
                && !(patterns && is_pattern(name))
                && !matches!(*name, "all" | "default" | ".."))
    };
    parts.windows(3).any(leaves)
}

/// Whether the folders in one of this name may be those of interfaces.
fn has_interfaces(folder: &str) -> bool {
    matches!(folder, "conf" | "neigh") || is_pattern(folder)
}

/// Without needless slashes and parts.
pub fn simplified(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

/// The keys that a line names, spelled so.
pub fn named(key: &str) -> Option<Selector> {
    selector(&swapped(key))
}

/// The keys of a path that a reader keeps that knows patterns.
pub fn selector(path: &str) -> Option<Selector> {
    keys(path, is_pattern(path))
}

/// The keys of a path that a reader keeps.
pub fn keys(path: &str, is_pattern: bool) -> Option<Selector> {
    // glob(3) takes a backslash for an escape, open(2) for a letter. No folder
    // has a dot, and a name without a folder is no key.
    let unescaped = path.replace("\\/", "/");
    let named = unescaped.trim_end_matches('/');
    let path = match is_pattern {
        // With a slash behind a wildcard it finds folders alone.
        true if named != unescaped && is_pattern_part(named) => return None,
        true => resolved(named)?,
        false => resolved(path)?,
    };
    let (first, _) = path.split_once('/')?;
    if first.contains('.') {
        return None;
    }
    let parts: Vec<String> = path
        .split('/')
        .map(|part| match is_pattern {
            true => glob(part),
            false => part.chars().map(letter).collect(),
        })
        .collect();
    Selector::parse(&parts.join("/")).ok()
}

/// Whether the last part of a path has wildcards.
fn is_pattern_part(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(is_pattern)
}

/// Whether there may be such a folder; those of interfaces have any name.
fn may_be_folder(parts: &[&str]) -> bool {
    const KNOWN: [&str; 12] = [
        "proc", "sys", "net", "ipv4", "ipv6", "core", "conf", "neigh", "kernel", "vm", "fs", "dev",
    ];
    match parts {
        [.., folder, name] if has_interfaces(folder) => !name.contains(is_space),
        [.., name] => KNOWN.contains(name) || is_pattern(name),
        [] => true,
    }
}

/// The path of the files that the kernel finds for it below `/proc/sys`.
fn resolved(path: &str) -> Option<String> {
    // No key is a folder.
    if ["", ".", ".."].contains(&path.rsplit('/').next()?) {
        return None;
    }
    let mut parts = vec!["proc", "sys"];
    for part in path.split('/') {
        match part {
            "" | "." => {}
            // A folder that does not exist has no way up.
            ".." if !may_be_folder(&parts) => return None,
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    match parts.as_slice() {
        ["proc", "sys", rest @ ..] if !rest.is_empty() => Some(rest.join("/")),
        _ => None,
    }
}

/// isspace(3).
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_files_at_the_path_they_are_written_with() {
        let key = |path: &str| {
            let parts: Vec<&str> = path.split('/').collect();
            SysctlKey::from_segments(&parts).expect(path)
        };
        let (eth0, hidden) = (key("net/conf/eth0/x"), key("net/conf/.h/x"));
        for (pattern, file, expected) in [
            ("net/conf/*/x", &eth0, Some("net/conf/eth0/x")),
            ("/net//conf/*/./x", &eth0, Some("/net//conf/eth0/./x")),
            (
                "net/../net/c*/\\e*/x/",
                &eth0,
                Some("net/../net/conf/eth0/x"),
            ),
            ("net/con\\f/*/x", &eth0, Some("net/conf/eth0/x")),
            ("net\\/.\\/conf\\/*/x", &eth0, Some("net/./conf/eth0/x")),
            ("net/conf/*/x", &hidden, None),
            ("net/conf/[.]*/x", &hidden, None),
            ("net/conf/.*/x", &hidden, Some("net/conf/.h/x")),
            ("net/conf/*/../.h/x", &hidden, Some("net/conf/.h/../.h/x")),
            ("net/x/*/../y", &key("net/y"), None),
        ] {
            assert_eq!(found_as(pattern, file).as_deref(), expected, "{pattern}");
        }
    }

    /// As path_glob_can_match() of systemd 252 compares them.
    #[test]
    fn a_new_interface_is_found_part_by_part() {
        for (path, name, expected) in [
            ("net/ipv4/conf/*/tag", "eth0", true),
            ("net/ipv4/conf/\\e*/tag", "eth0", true),
            ("n\\et/ipv4/conf/*/tag", "eth0", false),
            ("net/ipv4/conf/*\\/tag", "eth0", false),
            ("net/ipv4/conf/{e,l}*/tag", "eth0", false),
            ("net/ipv4/conf/{e,l}*/tag", "{e,l}x", true),
            ("net/ipv4/c*/x\\x41/tag", "x\\x41", true),
            ("net/ipv4/c*/x\\x41/tag", "xx41", false),
            ("net/ipv4/conf/\\[x]/tag", "[x]", true),
            ("net/ipv4/conf/*/{tag,x}", "eth0", false),
            ("net/ipv4/conf/*/{tag,x}*", "eth0", true),
        ] {
            let key = SysctlKey::from_segments(&["net", "ipv4", "conf", name, "tag"]);
            let key = key.expect(name);
            assert_eq!(finds_new(path, &key), expected, "{path} {name}");
        }
    }

    #[test]
    fn a_path_has_the_keys_that_the_kernel_finds() {
        for (path, expected) in [
            ("net/ipv4/ip_forwar[d]/", None),
            (
                "net/ipv4/conf/*/forwarding/",
                Some("net.ipv4.conf.*.forwarding"),
            ),
            ("net/ipv4/conf/[[.e.]]*/tag", Some("net.ipv4.conf.[e]*.tag")),
            (
                "net/ipv4/conf/[[:nope:]]*/tag",
                Some("net.ipv4.conf.[z-a]*.tag"),
            ),
            (
                "net/ipv4/conf/[![:nope:]]*/tag",
                Some("net.ipv4.conf.[z-a]*.tag"),
            ),
            (
                "net/ipv4/conf/[[:nope:\\]]*/tag",
                Some("net.ipv4.conf.*.tag"),
            ),
            ("net/ipv4/conf/\\{b}*/tag", Some("net.ipv4.conf.{b}*.tag")),
            (
                "net/ipv4/conf/[\u{b}e]*/tag",
                Some("net.ipv4.conf.[\\x0be]*.tag"),
            ),
            ("net/../net/ipv4/ip_forward", Some("net.ipv4.ip_forward")),
            ("#net/../net/ipv4/ip_forward", None),
            ("net/ipv4/c*/eth0/../all/tag", Some("net.ipv4.c*.all.tag")),
        ] {
            let shown = selector(path).map(|it| it.to_string());
            assert_eq!(shown.as_deref(), expected, "{path}");
        }
    }
}
