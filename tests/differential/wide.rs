//! Wider trees than `generate`'s and `shapes`': keys of other formats and of the
//! neighbour tables, more names of interfaces, more patterns that are guarded, files as
//! distributions and administrators have them, chains of links.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use netguard::model::{Requirement, Selector, Value};

use super::generate::{EXISTING, Guarded, key_at, swapped};
use super::random::Random;
use super::shapes;

/// Pairs of interfaces of which one appears later.
pub const LATER: [[&str; 2]; 12] = [
    ["veth12345678901", "x"],
    ["0", "9z"],
    ["_", "@"],
    ["$a", "a&b"],
    ["(p)", "a|b"],
    ["\u{65e5}\u{672c}", "\u{f1}a"],
    ["eth0.", "e..0"],
    ["all.x", "default.y"],
    ["sys", "proc"],
    ["{a,b}", "[!]"],
    ["--all", "\\"],
    ["ipv4", "forwarding"],
];
/// The keys of interfaces, as folder and name.
pub const NAMES: [(&str, &str); 30] = [
    ("net/ipv4/conf", "forwarding"),
    ("net/ipv4/conf", "rp_filter"),
    ("net/ipv4/conf", "accept_redirects"),
    ("net/ipv4/conf", "arp_announce"),
    ("net/ipv4/conf", "log_martians"),
    ("net/ipv4/conf", "secure_redirects"),
    ("net/ipv4/conf", "route_localnet"),
    ("net/ipv4/conf", "promote_secondaries"),
    ("net/ipv4/conf", "accept_local"),
    ("net/ipv4/conf", "shared_media"),
    ("net/ipv4/conf", "ignore_routes_with_linkdown"),
    ("net/ipv4/conf", "tag"),
    ("net/ipv4/conf", "accept_source_route"),
    ("net/ipv6/conf", "forwarding"),
    ("net/ipv6/conf", "accept_ra"),
    ("net/ipv6/conf", "disable_ipv6"),
    ("net/ipv6/conf", "ignore_routes_with_linkdown"),
    ("net/ipv6/conf", "proxy_ndp"),
    ("net/ipv6/conf", "autoconf"),
    ("net/ipv6/conf", "use_tempaddr"),
    ("net/ipv6/conf", "max_addresses"),
    ("net/ipv6/conf", "hop_limit"),
    ("net/ipv6/conf", "accept_ra_defrtr"),
    ("net/ipv6/conf", "keep_addr_on_down"),
    ("net/ipv4/neigh", "app_solicit"),
    ("net/ipv4/neigh", "gc_stale_time"),
    ("net/ipv4/neigh", "proxy_qlen"),
    ("net/ipv4/neigh", "base_reachable_time_ms"),
    ("net/ipv6/neigh", "ucast_solicit"),
    ("net/ipv6/neigh", "retrans_time_ms"),
];
/// Other keys, each with two values.
pub const PLAIN: [(&str, [&str; 2]); 21] = [
    ("net/ipv4/ip_forward", ["1", "0"]),
    ("net/ipv4/conf/all/forwarding", ["1", "0"]),
    ("net/ipv4/tcp_syncookies", ["1", "2"]),
    ("net/ipv4/ip_local_reserved_ports", ["80,90-95", "8080"]),
    ("net/ipv4/ip_local_port_range", ["1024 60000", "2000 3000"]),
    (
        "net/ipv4/tcp_rmem",
        ["4096 131072 6291456", "4096 8192 16384"],
    ),
    (
        "net/ipv4/tcp_wmem",
        ["4096 16384 4194304", "4096 8192 16384"],
    ),
    ("net/core/somaxconn", ["4096", "128"]),
    ("net/ipv4/ping_group_range", ["0 2147483647", "1 0"]),
    ("net/ipv4/tcp_keepalive_time", ["600", "7200"]),
    ("net/ipv4/tcp_fin_timeout", ["60", "30"]),
    ("net/ipv4/ip_default_ttl", ["64", "255"]),
    ("net/ipv4/tcp_notsent_lowat", ["4294967295", "131072"]),
    ("net/ipv4/tcp_tw_reuse", ["1", "2"]),
    ("net/ipv4/icmp_echo_ignore_broadcasts", ["1", "0"]),
    ("net/ipv4/ip_nonlocal_bind", ["0", "1"]),
    ("net/ipv4/tcp_max_syn_backlog", ["4096", "128"]),
    ("net/ipv4/tcp_retries2", ["15", "8"]),
    ("net/ipv4/tcp_sack", ["1", "0"]),
    ("net/ipv6/bindv6only", ["0", "1"]),
    ("net/unix/max_dgram_qlen", ["10", "512"]),
];
const FOLDERS: [&str; 4] = [
    "etc/sysctl.d",
    "run/sysctl.d",
    "usr/local/lib/sysctl.d",
    "usr/lib/sysctl.d",
];
const FILES: [&str; 30] = [
    "10-a.conf",
    "10-a.conf",
    "50-b.conf",
    "50-b.conf",
    "99-sysctl.conf",
    "99-sysctl.conf",
    "k8s.conf",
    "99-kubernetes-cri.conf",
    "60-cis.conf",
    "99-zz-netguard.conf",
    "99-zz-netguar.conf",
    "99-zz-netguard.conf.conf",
    "x.conf ",
    " x.conf",
    "-x.conf",
    "%x.conf",
    "x\t.conf",
    "x.conf.rpmsave",
    "x.conf.dpkg-new",
    "README",
    "\u{65e5}.conf",
    "[!1]*.conf",
    "{10,50}-{a,b}.conf",
    "1*.conf",
    "50-b.conf.d",
    "zzzz.conf",
    "99-zz-netguardz.conf",
    "A.conf",
    "a.conf",
    "_.conf",
];
const GUARDED_GLOBS: [&str; 12] = [
    "*",
    "?*",
    "e*",
    "[!e]*",
    "*[0-9]",
    "lxc?",
    "*-*",
    "c*",
    "eth[0-9]*",
    "*[!0-9]",
    "????",
    "[a-l]*",
];
const GLOBS: [&str; 26] = [
    "*",
    "*",
    "?*",
    "e*",
    "[!e]*",
    "*[0-9]",
    "lxc?",
    "*-*",
    "c*",
    "eth[0-9]*",
    "[^a]*",
    "[!ad]*",
    "{all,default}",
    "{eth*,lxc*}",
    "[al]*",
    "*l",
    "d*t",
    "????????????*",
    "\\*",
    "[*]",
    "[[:digit:]]*",
    "*.*",
    "[.]*",
    "*\\.*",
    "*[^[:alnum:]]*",
    "eth0.100*",
];

/// Two values of a key of an interface.
fn values(name: &str) -> [&'static str; 2] {
    match name {
        "hop_limit" | "max_addresses" => ["64", "16"],
        "gc_stale_time" => ["60", "120"],
        "base_reachable_time_ms" | "retrans_time_ms" => ["1000", "30000"],
        "app_solicit" | "ucast_solicit" | "proxy_qlen" => ["3", "64"],
        _ => ["0", "1"],
    }
}

/// What a key of an interface has where nothing is required of it.
pub fn usual(path: &str) -> &'static str {
    values(path.rsplit('/').next().unwrap_or_default())[1]
}

/// A few requirements about the keys that `about` has.
pub fn guarded(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> Guarded {
    let mut guarded: Guarded = Vec::new();
    let mut add = |key: Selector, requirement: Requirement| {
        if !guarded.iter().any(|(known, _)| *known == key) {
            guarded.push((key, requirement));
        }
    };
    for (folder, name) in about {
        let wanted = random.pick(&values(name));
        // A namespace has no `neigh.default`, which new interfaces begin with.
        let is_neigh = folder.ends_with("neigh");
        if !is_neigh && random.percent(50) {
            let glob = random.pick(&GUARDED_GLOBS);
            let (folder, name) = spread(random, about, folder, name);
            let selector = Selector::parse(&format!("{folder}/{glob}/{name}")).expect(glob);
            add(selector, requirement(random, &name, wanted));
        }
        let others = [later[0], later[1], "all", "default"];
        let others = others.iter().filter(|_| !is_neigh);
        for interface in EXISTING.iter().chain(others) {
            if random.percent(45) {
                let value = if random.percent(90) {
                    wanted
                } else {
                    random.pick(&values(name))
                };
                let path = match (*interface, *folder, *name) {
                    ("all", "net/ipv4/conf", "forwarding") => "net/ipv4/ip_forward".to_owned(),
                    _ => format!("{folder}/{interface}/{name}"),
                };
                add(
                    Selector::Key(key_at(&path)),
                    requirement(random, name, value),
                );
            }
        }
    }
    for (key, values) in PLAIN.iter().filter(|(key, _)| !key.contains("/all/")) {
        if random.percent(25) {
            let value = Requirement::Equal(Value::new(random.pick(values)));
            add(Selector::Key(key_at(key)), value);
        }
    }
    guarded
}

/// A folder and a name with wildcards, which mean no other name, but the other family's.
fn spread(
    random: &mut Random,
    about: &[(&str, &str)],
    folder: &str,
    name: &str,
) -> (String, String) {
    let is_one = about.iter().filter(|(_, other)| *other == name).count() == 1;
    let folder = match random.below(8) {
        0 if is_one => folder.replace(['4', '6'], "?"),
        1 if is_one => folder.replace(['4', '6'], "[46]"),
        2 => folder.replace("ipv", "ip[v]"),
        _ => folder.to_owned(),
    };
    let name = match random.below(8) {
        0 => format!("{}?", &name[..name.len() - 1]),
        1 => format!("[{}]{}", &name[..1], &name[1..]),
        _ => name.to_owned(),
    };
    (folder, name)
}

/// The same key of the other family.
pub fn other_family(
    (folder, name): (&'static str, &'static str),
) -> Option<(&'static str, &'static str)> {
    let other = match folder {
        "net/ipv4/conf" => "net/ipv6/conf",
        "net/ipv6/conf" => "net/ipv4/conf",
        _ => return None,
    };
    let exists = Path::new("/proc/sys")
        .join(other)
        .join("all")
        .join(name)
        .exists();
    exists.then_some((other, name))
}

/// One that this value meets.
fn requirement(random: &mut Random, name: &str, value: &str) -> Requirement {
    let number: i128 = value.parse().expect("a number");
    // The kernel refuses 0, which is where a test begins.
    let is_any = !name.contains("op_limi");
    match random.below(20) {
        _ if !is_any => Requirement::Equal(Value::new(value)),
        0 => Requirement::OneOf(values(name).map(Value::new).to_vec()),
        1 => Requirement::Range {
            min: Some(vec![number]),
            max: None,
        },
        2 => Requirement::Range {
            min: None,
            max: Some(vec![number]),
        },
        _ => Requirement::Equal(Value::new(value)),
    }
}

/// Files below `root` about the keys that `about` has.
pub fn tree(random: &mut Random, root: &Path, about: &[(&str, &str)], later: [&str; 2]) {
    fs::create_dir_all(root.join("etc/other")).expect("a folder");
    match random.below(25) {
        0 => instead(&root.join(FOLDERS[1]), "../usr/lib/sysctl.d"),
        1 => instead(&root.join(FOLDERS[1]), "../etc/./other"),
        2 => instead(&root.join(FOLDERS[2]), "../../../etc/../etc/sysctl.d/"),
        3 => instead(&root.join(FOLDERS[2]), "sysctl.d"),
        4 => instead(&root.join(FOLDERS[0]), "other"),
        5 => fs::remove_dir(root.join(FOLDERS[0])).expect("an empty folder"),
        6 => instead(&root.join(FOLDERS[0]), "nowhere"),
        _ => {}
    }
    for number in 0..1 + random.below(5) {
        let name = random.pick(&FILES);
        let file = root.join(random.pick(&FOLDERS)).join(name);
        if file.symlink_metadata().is_ok() || fs::write(&file, "").is_err() {
            continue;
        }
        let text = text(random, about, later);
        match random.below(12) {
            0 => chain(random, root, &file, number, &text),
            1 => {
                let target = random.pick(&FILES);
                relink(&file, target);
            }
            2 => {
                let other = root.join(random.pick(&FOLDERS)).join(random.pick(&FILES));
                fs::write(&file, text).expect("a file");
                drop(fs::hard_link(&file, other));
            }
            _ => fs::write(&file, text).expect("a file"),
        }
    }
    let conf = root.join("etc/sysctl.conf");
    match random.below(12) {
        0 => symlink("sysctl.d/99-sysctl.conf", &conf).expect("a link"),
        1 => {
            let text = text(random, about, later);
            chain(random, root, &conf, 9, &text);
        }
        2..6 => fs::write(&conf, text(random, about, later)).expect("a file"),
        _ => {}
    }
    if random.percent(20) {
        let link = root.join("etc/sysctl.d/99-sysctl.conf");
        drop(symlink("../sysctl.conf", link));
    }
}

/// A link for an empty folder.
fn instead(folder: &Path, target: &str) {
    fs::remove_dir(folder).expect("an empty folder");
    symlink(target, folder).expect("a link");
}

fn relink(file: &Path, target: &str) {
    drop(fs::remove_file(file));
    symlink(target, file).expect("a link");
}

/// A file at the end of several links.
fn chain(random: &mut Random, root: &Path, file: &Path, number: usize, text: &str) {
    let other = format!("/etc/other/link{number}");
    relink(file, &other);
    let other = root.join(&other[1..]);
    match random.below(7) {
        0 => relink(&other, "/dev/null"),
        1 => relink(&other, "../../dev/../dev/null"),
        2 => relink(&other, "../other/nowhere"),
        3 => relink(&other, "/etc/sysctl.conf"),
        4 => fs::write(&other, "").expect("a file"),
        5 => {
            relink(&other, "./text");
            fs::write(root.join("etc/other/text"), text).expect("a file");
        }
        _ => fs::write(&other, text).expect("a file"),
    }
}

/// What files of distributions begin with.
const HEADS: [&str; 6] = [
    "#\n# /etc/sysctl.conf - Configuration file for setting system variables\n# See /etc/sysctl.d/ for additional system variables.\n#\n\n",
    "# sysctl settings are defined through files in\n# /usr/lib/sysctl.d/, /run/sysctl.d/, and /etc/sysctl.d/.\n",
    "###################################################################\n# Functions previously found in netbase\n#\n\n# Uncomment the next line to enable packet forwarding for IPv4\n#net.ipv4.ip_forward=1\n",
    "; managed by a tool\n\n",
    "\n\n\n",
    "\u{feff}# exported\r\n",
];

fn text(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> String {
    let mut text = String::new();
    if random.percent(25) {
        text += random.pick(&HEADS);
    }
    let end = random.pick(&["\n", "\n", "\n", "\n", "\n", "\r\n"]);
    for _ in 0..random.below(8) {
        text += &line(random, about, later);
        text += end;
        if random.percent(10) {
            text += random.pick(&[
                "\n",
                "#\n",
                " \n",
                "# x = y\n",
                ";\n",
                "\t# off\n",
                "\\\n",
                "=\n",
            ]);
        }
    }
    if random.percent(15) {
        text.truncate(text.trim_end().len());
    }
    text
}

fn line(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> String {
    let path = key(random, about, later);
    let value = value(random, &path);
    let key = match random.percent(35) {
        true => shapes::spelled(random, &path),
        false => {
            let dotted = swapped(&path);
            match random.below(3) {
                0 => path,
                _ => dotted,
            }
        }
    };
    match random.below(30) {
        0..2 => format!("-{key}"),
        2 => format!("- {key} = {value}"),
        3 => format!("-{key}={value}"),
        4 => format!("#{key} = {value}"),
        5 => format!("{key} {value}"),
        6 => format!("{key}\t\t=\t\t{value}\t"),
        7 => format!("{key} = {value}  # as required"),
        8 => format!("{key} = {value} ; as required"),
        9 => format!("{key} =\\\n    {value}"),
        10..20 => format!("{key}={value}"),
        _ => format!("{key} = {value}"),
    }
}

fn value(random: &mut Random, path: &str) -> String {
    let plain = PLAIN.iter().find(|(known, _)| *known == path);
    let name = path.rsplit('/').next().unwrap_or_default();
    let v = random.pick(&plain.map_or_else(|| values(name), |it| it.1));
    if random.percent(70) {
        return v.to_owned();
    }
    let odd = [
        v.replace(' ', "\t"),
        v.replace(' ', "  "),
        v.replace(' ', ","),
        v.replace(' ', "-"),
        format!("{v} {v}"),
        format!("\"{v}\""),
        format!("{v}s"),
        format!("{v}ms"),
        format!("{v} {v} {v} {v}"),
        format!("  {v}"),
        format!("{v};"),
        format!("{v},"),
        format!("{v}\u{b}"),
        format!("0x{v}"),
        format!("0{v}"),
        format!("+{v}"),
        format!("-{v}"),
        format!("{v}/"),
        format!("${{{v}}}"),
        format!("${v}"),
        v.to_uppercase(),
        v.split(' ').next().unwrap_or_default().to_owned(),
        v.split(' ').rev().collect::<Vec<_>>().join(" "),
        "-1".to_owned(),
        "2".to_owned(),
        "256".to_owned(),
        "65536".to_owned(),
        "4294967296".to_owned(),
        "reno".to_owned(),
        "no".to_owned(),
        String::new(),
        "0".to_owned(),
    ];
    odd[random.below(odd.len())].clone()
}

fn key(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> String {
    if random.percent(30) {
        return random.pick(&PLAIN).0.to_owned();
    }
    let (folder, name) = random.pick(about);
    let target = match random.below(11) {
        0..2 => "all",
        2..4 => "default",
        4..6 => random.pick(&GLOBS),
        6..8 => random.pick(&later),
        8 => random.pick(&["lo", "nope", "eth0/100", "ALL", "veth123456789012345"]),
        _ => random.pick(&EXISTING),
    };
    let name = match random.below(30) {
        0 => format!("{}*", &name[..name.len() - 1]),
        1 => format!("*{}", &name[1..]),
        _ => name.to_owned(),
    };
    let folder = match random.below(40) {
        0 => folder.replace("ipv4", "ipv*"),
        1 => folder.replace("conf", "*"),
        2 => folder.replace("neigh", "{neigh,conf}"),
        _ => folder.to_owned(),
    };
    format!("{folder}/{target}/{name}")
}
