//! Random trees of sysctl.d(5), as odd as anybody may write them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use netguard::model::{Requirement, Selector, SysctlKey, Value};

use super::random::Random;

/// Interfaces that exist throughout.
pub const EXISTING: [&str; 6] = ["eth0", "lxc7", "cali1", "eth0.100", "br-x", "x=y"];
/// Pairs of which one appears later.
pub const LATER: [[&str; 2]; 17] = [
    ["eth1", "cali2"],
    ["lxc9", "eth0.7"],
    ["cali9", "tun0"],
    ["cali9", "eth0.100.2"],
    ["-dash", "a;b"],
    ["[x]", "a*b"],
    ["{b}", "c,d"],
    ["é", "..x"],
    ["wg?", "!n"],
    ["b\\s", "all-x"],
    ["all0", "a+b"],
    ["#h", ";s"],
    ["it's", "q\"q"],
    ["net", "conf"],
    ["...", "~t"],
    ["=", "-"],
    ["x\\x41", "lxc.7"],
];
/// The keys of interfaces, as folder and name; a namespace has none of
/// `neigh.default`.
pub const NAMES: [(&str, &str); 10] = [
    ("net/ipv4/conf", "forwarding"),
    ("net/ipv4/conf", "rp_filter"),
    ("net/ipv4/conf", "arp_ignore"),
    ("net/ipv4/conf", "proxy_arp"),
    ("net/ipv4/conf", "send_redirects"),
    ("net/ipv4/conf", "accept_redirects"),
    ("net/ipv6/conf", "forwarding"),
    ("net/ipv6/conf", "accept_ra"),
    ("net/ipv6/conf", "accept_redirects"),
    ("net/ipv6/conf", "disable_ipv6"),
];
/// Other keys, each with two values.
pub const PLAIN: [(&str, [&str; 2]); 7] = [
    ("net/ipv4/ip_forward", ["1", "0"]),
    ("net/ipv4/conf/all/forwarding", ["1", "0"]),
    ("net/ipv4/tcp_syncookies", ["1", "2"]),
    ("net/ipv4/ip_local_reserved_ports", ["80,90-95", "8080"]),
    ("net/ipv4/ip_local_port_range", ["1024 60000", "2000 3000"]),
    (
        "net/ipv4/tcp_rmem",
        ["4096 131072 6291456", "4096 8192 16384"],
    ),
    ("net/core/somaxconn", ["4096", "128"]),
];
const FOLDERS: [&str; 4] = [
    "etc/sysctl.d",
    "run/sysctl.d",
    "usr/local/lib/sysctl.d",
    "usr/lib/sysctl.d",
];
const FILES: [&str; 16] = [
    "00-first.conf",
    "10-a.conf",
    "10-a.conf",
    "20-b.conf",
    "50-default.conf",
    "50-default.conf",
    "60-c.conf",
    "99-sysctl.conf",
    "99-zz.conf",
    "99-zzz.conf",
    "zz-last.conf",
    ".hidden.conf",
    "none.config",
    "b.conf~",
    "A b.conf",
    "ü.conf",
];

/// What is guarded, and what it must be.
pub type Guarded = Vec<(Selector, Requirement)>;

/// The key at a path that the kernel has.
pub fn key_at(path: &str) -> SysctlKey {
    let parts: Vec<&str> = path.split('/').collect();
    SysctlKey::from_segments(&parts).expect(path)
}

/// A few requirements about the keys that `about` has.
pub fn guarded(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> Guarded {
    let mut guarded: Guarded = Vec::new();
    let mut add = |random: &mut Random, key: Selector, value: &str| {
        if !guarded.iter().any(|(known, _)| *known == key) {
            let requirement = requirement(random, &key.to_string(), value);
            guarded.push((key, requirement));
        }
    };
    let exact = |path: &str| Selector::Key(key_at(path));
    for (folder, name) in about {
        let wanted = random.pick(&["0", "1"]);
        if random.percent(30) {
            let glob = random.pick(&["*", "lxc*", "cali*", "eth*", "eth?", "[cl]*"]);
            add(
                random,
                Selector::parse(&format!("{folder}/{glob}/{name}")).expect(glob),
                wanted,
            );
        }
        for interface in EXISTING.iter().chain(&later).chain(&["all", "default"]) {
            if random.percent(70) {
                let value = if random.percent(90) { wanted } else { "1" };
                let key = format!("{folder}/{interface}/{name}");
                match key.as_str() {
                    "net/ipv4/conf/all/forwarding" => {
                        add(random, exact("net/ipv4/ip_forward"), value)
                    }
                    _ => add(random, exact(&key), value),
                }
            }
        }
    }
    for (key, values) in PLAIN.iter().filter(|(key, _)| !key.contains("/all/")) {
        if random.percent(40) {
            let value = random.pick(values);
            add(random, exact(key), value);
        }
    }
    guarded
}

/// One that this value meets.
fn requirement(random: &mut Random, key: &str, value: &str) -> Requirement {
    let may_be_two = ["rp_filter", "arp_ignore", "accept_ra"]
        .iter()
        .any(|it| key.ends_with(it));
    let end = value.parse().ok().map(|number| vec![number]);
    // A list has no least value.
    let end = end.filter(|_| !key.ends_with("ports"));
    match (random.below(30), end) {
        (0, Some(_)) if may_be_two => Requirement::OneOf(vec![Value::new(value), Value::new("2")]),
        (1, min @ Some(_)) => Requirement::Range { min, max: None },
        (2, max @ Some(_)) => Requirement::Range { min: None, max },
        _ => Requirement::Equal(Value::new(value)),
    }
}

/// The guard's configuration.
pub fn configuration(guarded: &Guarded) -> String {
    let mut text = "[sysctl]\n".to_owned();
    for (key, requirement) in guarded {
        let requirement = match requirement {
            Requirement::Equal(value) => format!("\"{value}\""),
            Requirement::OneOf(values) => {
                let values = values.iter().map(|it| format!("\"{it}\""));
                format!("[{}]", values.collect::<Vec<_>>().join(", "))
            }
            Requirement::Includes(_) => unreachable!("only sets have it"),
            Requirement::Range { min: Some(min), .. } => format!("{{ min = {} }}", min[0]),
            Requirement::Range { max, .. } => {
                format!("{{ max = {} }}", max.as_ref().expect("an end")[0])
            }
        };
        text += &format!("{:?} = {requirement}\n", key.to_string());
    }
    text
}

/// Files below `root` about the keys that `about` has.
pub fn tree(random: &mut Random, root: &Path, about: &[(&str, &str)], later: [&str; 2]) {
    let mut known: Vec<String> = Vec::new();
    for _ in 0..1 + random.below(5) {
        let path = format!("{}/{}", random.pick(&FOLDERS), random.pick(&FILES));
        let file = root.join(&path);
        if file.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(40) {
            0 => fs::create_dir(&file).expect("a folder"),
            1 => symlink("nowhere", &file).expect("a link"),
            2 | 3 => symlink("/dev/null", &file).expect("a link"),
            4 => fs::write(&file, random.pick(&["", " \t\n\n", "\u{feff}"])).expect("a file"),
            5 | 6 => symlink("../sysctl.conf", &file).expect("a link"),
            7 if !known.is_empty() => {
                let target = &known[random.below(known.len())];
                symlink(format!("/{target}"), &file).expect("a link");
            }
            _ => {
                fs::write(&file, text(random, about, later)).expect("a file");
                known.push(path);
            }
        }
    }
    if random.percent(30) {
        fs::write(root.join("etc/sysctl.conf"), text(random, about, later)).expect("a file");
    }
}

fn text(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> String {
    let mut text = String::new();
    if random.percent(3) {
        text.push('\u{feff}');
    }
    let end = random.pick(&["\n", "\n", "\n", "\n", "\r\n"]);
    for _ in 0..random.below(6) {
        if random.percent(10) {
            let path = key(random, about, later);
            let key = spelled(random, &path);
            text += &match random.below(9) {
                0 => format!("# {key} = 0"),
                1 => format!("  ; {key} = 0"),
                2 => format!("#{key}=1"),
                3 => key.clone(),
                4 => "= 1".to_owned(),
                5 => "-".to_owned(),
                6 => format!("# {}", "x".repeat(5000)),
                7 => format!("{key} = 1 {}", "#".repeat(random.pick(&[3000, 4090, 5000]))),
                _ => "[sysctl]".to_owned(),
            };
        } else {
            text += &line(random, about, later);
        }
        text += match random.below(60) {
            0 => "\r",
            1 => "\0",
            2 => "\n\0",
            3 => "\\\n",
            _ => end,
        };
    }
    if random.percent(15) {
        text.truncate(text.trim_end().len());
    }
    text
}

fn line(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> String {
    let key = key(random, about, later);
    let plain = PLAIN.iter().find(|(known, _)| *known == key);
    let value = match plain {
        Some((_, values)) if random.percent(70) => random.pick(values),
        _ if random.percent(70) => random.pick(&["0", "1", "1", "0", "2"]),
        _ => random.pick(&[
            "0x1",
            "01",
            "00",
            "1 # on",
            "0 # off",
            "1# on",
            "",
            "\"1\"",
            "0;",
            "= 0",
            "+1",
            "-1",
            "1 1",
            "0 1",
            "yes",
            "99999999999",
            "1\t0",
            "0\u{b}",
            "1\u{c}",
            "\u{b}0",
            "0x",
            "é",
            "1\u{a0}",
            "1,0",
            "90,80",
            "1-1",
            "3000 2000",
            "'0'",
            "0 = 1",
            "0  ",
            "1\\",
        ]),
    };
    let key = spelled(random, &key);
    if random.percent(8) {
        let dash = random.pick(&["-", "-", "- ", "  -", "--"]);
        return format!("{dash}{key}{}", random.pick(&["", "", " ", "\t"]));
    }
    let dash = random.pick(&["", "", "", "", "", "", "", "-", "- ", "--"]);
    let before = random.pick(&["", "", "", "", " ", "\t", "\u{c}"]);
    let sign = random.pick(&[
        " = ", "=", " = ", "\t=\t", "= ", " =", "   =   ", "=\u{b}", "\u{b}=",
    ]);
    format!(
        "{before}{dash}{key}{sign}{value}{}",
        random.pick(&["", "", "", " ", "\t", "\u{c}"])
    )
}

fn key(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> String {
    if random.percent(30) {
        return match random.below(8) {
            0 => random
                .pick(&[
                    "net/ipv4/ip_*",
                    "net/*/ip_forward",
                    "net/ipv4/tcp_*s",
                    "net/*/somax*",
                    "net/ipv4/ip_forwar[d]",
                    "net/ipv4/{ip_forward,x}",
                    "net/core/*",
                    "no/such",
                    "net",
                    "kernel/none",
                ])
                .to_owned(),
            _ => random.pick(&PLAIN).0.to_owned(),
        };
    }
    let (folder, name) = random.pick(about);
    let interface = match random.below(10) {
        0 | 1 => "all",
        2 => "default",
        3 | 4 => random.pick(&[
            "*",
            "*",
            "*",
            "lxc*",
            "cali*",
            "eth*",
            "?th0",
            "[el]*",
            "[!e]*",
            "*[0-9]",
            "**",
            "eth[0-9]",
            "eth0.*",
            "[^c]*",
            "[]e]*",
            "cali[",
            "eth0*",
            "*a*",
            "{eth0,lxc7}",
            "[[:lower:]]*",
            "[[:alpha:]]th0",
            "\\e*",
            "*\\",
            "lo",
            "d*",
        ]),
        5 | 6 => random.pick(&later),
        _ => random.pick(&EXISTING),
    };
    let folder = match random.below(25) {
        0 => folder.replace("ipv4", "ipv[46]").replace("ipv6", "*"),
        1 => folder.replace("conf", "c*"),
        _ => folder.to_owned(),
    };
    let name = match random.below(25) {
        0 if !folder.contains("ipv6") => format!("{}*", &name[..4]),
        1 => format!("*{}", &name[2..]),
        _ => name.to_owned(),
    };
    format!("{folder}/{interface}/{name}")
}

/// A path with dots for slashes, and the other way round.
pub fn swapped(path: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    path.chars().map(swap).collect()
}

/// A path as somebody may write it.
fn spelled(random: &mut Random, path: &str) -> String {
    let dotted = swapped(path);
    match random.below(42) {
        40 => format!("/{dotted}"),
        41 => format!("{path}/."),
        0 => format!("/{path}"),
        1 => format!("/proc/sys/{path}"),
        2 => path.replacen('/', "//", 1),
        3 => path.replace("ipv4/", "ipv4/./"),
        4 => path.replace("ipv4/", "ipv4/../ipv4/"),
        5 => format!("{path}/"),
        6 => format!(".{dotted}"),
        7 => dotted.replacen('.', "..", 1),
        // An interface with a dot, spelled wrongly.
        8 => path.replace('/', "."),
        9 => dotted.to_uppercase(),
        10 => dotted.replacen('.', " .", 1),
        11 => format!("\"{dotted}\""),
        12 => format!("//{path}"),
        13..=22 => path.to_owned(),
        _ => dotted,
    }
}
