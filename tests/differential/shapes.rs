//! More shapes of trees, from another hand than `generate`'s: other spellings of
//! keys and values, names of files that are patterns, folders that are links,
//! what editors and other systems leave in files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::generate::{EXISTING, PLAIN, swapped};
use super::random::Random;

const GLOBS: [&str; 56] = [
    "*",
    "*",
    "*",
    "**",
    "?*",
    "*?",
    "???*",
    "eth?",
    "[a-z]*",
    "[!a-z]*",
    "[^e]*",
    "*[.]*",
    "eth0*",
    "*0",
    "a+*",
    "[[]x]",
    "{eth0,br-x}",
    "{e,l}*",
    "e{th,x}0*",
    "*{0,7}",
    "br[-]x",
    "br-[x-z]",
    "[[:alpha:]]*",
    "[[:lower:]]th0",
    "a\\*b",
    "\\e*",
    "[ae]*",
    "[]a]*",
    "*-*",
    "[",
    "[e",
    "e[]",
    "*\\",
    ".*",
    "al?",
    "{all,default}",
    "{all,default}*",
    "[!l]*",
    "all*",
    "et[h]0",
    "*.*",
    "[a-",
    "?",
    "????",
    "l[!o]*",
    "{*",
    "*}",
    "{}*",
    "{,e}*",
    "[[.e.]]*",
    "[[=l=]]*",
    "[[:nope:]]*",
    "[\\e]*",
    "\\{b}*",
    "{eth0\\,lxc7}*",
    "x?y",
];
const WHOLE: [&str; 16] = [
    "net/ipv4/ip_*",
    "net/*/ip_forward",
    "net/ipv4/ip_{forward,x}*",
    "*/ipv4/ip_forward",
    "net/ipv[4]/ip_forward",
    "net/ipv4/*forward",
    "net/core/somax*",
    "n*t/ipv4/ip_forward",
    "net/ipv4/conf/a*/forwarding",
    "**/ip_forward",
    "net/**/forwarding",
    "net/ipv?/conf/*/forwarding",
    "net/ipv[46]/conf/all/forwarding",
    "net/{ipv4,ipv6}/c*/all/forwarding",
    "net/ipv4/tcp_sync?ookies",
    "net/{ipv4/ip_forward,core/somaxconn}*",
];
const FILES: [&str; 34] = [
    "10-a.conf",
    "10-a.conf",
    "50-x.conf",
    "50-x.conf",
    "99-sysctl.conf",
    "99-z.conf",
    "Z.conf",
    "zz.conf",
    "zzz.conf",
    "~.conf",
    "-.conf",
    "9.conf",
    "10.conf",
    ".conf",
    "..conf",
    "x.conf.conf",
    "x.CONF",
    "x.conf.bak",
    "#x.conf#",
    "99-zz-netguard.conf",
    "{.conf",
    "é.conf",
    "100-a.conf",
    "sp ace.conf",
    "nl\n.conf",
    "*.conf",
    "10-?.conf",
    "[15]0-*.conf",
    "{10-a,50-x}.conf",
    "\\10-a.conf",
    "99-zz-netguard.conf",
    "50-x..conf",
    "[.conf",
    "x.conf.d",
];
const FOLDERS: [&str; 4] = [
    "etc/sysctl.d",
    "run/sysctl.d",
    "usr/local/lib/sysctl.d",
    "usr/lib/sysctl.d",
];
const BLANKS: [&str; 14] = [
    "", "", "", "", " ", "\t", "   ", "\u{b}", "\u{c}", "\u{a0}", "\r", " \t", "\u{3000}", "\u{85}",
];

/// Files below `root` about the keys that `about` has.
pub fn tree(random: &mut Random, root: &Path, about: &[(&str, &str)], later: [&str; 2]) {
    let mut folders = vec![FOLDERS[0], FOLDERS[3]];
    for folder in &FOLDERS[1..3] {
        let path = root.join(folder);
        match random.below(30) {
            0 => drop(fs::remove_dir(&path)),
            1 => {
                fs::remove_dir(&path).expect("an empty folder");
                symlink("/etc/sysctl.d", &path).expect("a link");
            }
            2 => {
                fs::remove_dir(&path).expect("an empty folder");
                fs::write(&path, "net.ipv4.ip_forward = 0\n").expect("a file");
            }
            _ => folders.push(folder),
        }
    }
    let mut known: Vec<String> = Vec::new();
    for _ in 0..1 + random.below(6) {
        let path = format!("{}/{}", random.pick(&folders), random.pick(&FILES));
        let file = root.join(&path);
        if file.symlink_metadata().is_ok() {
            continue;
        }
        fs::write(&file, text(random, about, later)).expect("a file");
        let target = known.last().cloned();
        match (random.below(50), target) {
            (0, _) => {
                fs::remove_file(&file).expect("a file");
                fs::create_dir(&file).expect("a folder");
            }
            (1, _) => relink(&file, "/nonexistent"),
            (2, _) => relink(&file, "/dev/null"),
            (3, _) => relink(&file, "../../dev/null"),
            (4, _) => fs::write(&file, "").expect("a file"),
            (5, _) => relink(&file, "/etc/sysctl.conf"),
            (6, _) => relink(&file, "../sysctl.conf"),
            (7, _) => {
                let own = file.file_name().expect("a name").to_owned();
                fs::remove_file(&file).expect("a file");
                symlink(own, &file).expect("a link");
            }
            (8 | 9, Some(target)) => relink(&file, &format!("/{target}")),
            (10, _) => {
                let to = format!("/etc/text-{}", known.len());
                fs::rename(&file, root.join(&to[1..]))
                    .or_else(|_| {
                        fs::copy(&file, root.join(&to[1..])).and_then(|_| fs::remove_file(&file))
                    })
                    .expect("a file");
                symlink(to, &file).expect("a link");
            }
            (11, _) => {
                fs::remove_file(&file).expect("a file");
                drop(UnixListener::bind(&file));
            }
            (12, _) => fs::set_permissions(&file, fs::Permissions::from_mode(0o0)).expect("a mode"),
            _ => known.push(path),
        }
    }
    let conf = root.join("etc/sysctl.conf");
    match random.below(60) {
        0 => fs::create_dir(&conf).expect("a folder"),
        1 => symlink("/dev/null", &conf).expect("a link"),
        2 => symlink("sysctl.d/10-a.conf", &conf).expect("a link"),
        3 => symlink("/nope", &conf).expect("a link"),
        4..24 => fs::write(&conf, text(random, about, later)).expect("a file"),
        _ => {}
    }
}

fn relink(file: &Path, target: &str) {
    fs::remove_file(file).expect("a file");
    symlink(target, file).expect("a link");
}

fn text(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> Vec<u8> {
    let mut text = String::new();
    if random.percent(4) {
        text += random.pick(&["\u{feff}", "\0", "\u{b}", "\u{feff}\u{feff}"]);
    }
    let end = random.pick(&["\n", "\n", "\n", "\n", "\r\n", "\n\r", "\r", "\n\n"]);
    for _ in 0..random.below(7) {
        text += &line(random, about, later);
        text += match random.below(40) {
            0 => random.pick(&[
                "\0", "\r", "\u{b}", "\u{c}", "\\\n", "\u{85}", "\u{2028}", " \n", "\n\0", "\0\n",
                ";",
            ]),
            _ => end,
        };
    }
    if random.percent(15) {
        text.truncate(text.trim_end().len());
    }
    match random.below(50) {
        0 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        1 => text
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
            .collect(),
        2 => [b"\xfe", text.as_bytes()].concat(),
        _ => text.into_bytes(),
    }
}

fn line(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> String {
    let path = key(random, about, later);
    let value = value(random, &path);
    let key = spelled(random, &path);
    let blank = |random: &mut Random| match random.percent(92) {
        true => random.pick(&BLANKS[..8]),
        false => random.pick(&BLANKS),
    };
    match random.below(100) {
        0..8 => {
            let sign = random.pick(&[
                "#", "; ", " #", "\t;", "#-", "//", "\u{b}#", "\u{c};", "- ;", "-;", "!", "-#",
            ]);
            format!("{sign}{key} = {value}")
        }
        8..18 => {
            let dash = random.pick(&[
                "-", "-", "-", "- ", "--", " -", "-\t", "-\u{b}", "---", "- - ",
            ]);
            let after = random.pick(&[
                "", "", "", " ", "\t", "\u{b}", "\r", " #c", "=", " = ", ":", "\0",
            ]);
            format!("{dash}{key}{after}")
        }
        18..23 => {
            let odd = [
                key.clone(),
                format!("{key} {value}"),
                format!("{key}:{value}"),
                format!("={key}={value}"),
                format!("-={value}"),
                "=".to_owned(),
                "--".to_owned(),
                "[net]".to_owned(),
                format!("sysctl -w {key}={value}"),
                format!("{key} := {value}"),
                format!("{key}=={value}"),
                format!("{key} =\\\n{value}"),
                format!("-{key}\\\n = {value}"),
                format!("{key}={value}{}", " ".repeat(1100)),
                format!("{}{key}={value}", " ".repeat(1500)),
                format!("{key}{}={value}", " ".repeat(4200)),
                format!("#{}", "y".repeat(8200)),
                format!("{}{key}={value}", "x".repeat(4096)),
                format!("# {} = {value}", "z".repeat(4094)),
                format!("{key} = {value} {}", "# ".repeat(2100)),
                format!("{key} = {value},{}", "x".repeat(5000)),
                format!("-{key}\n{key} = {value}"),
            ];
            odd[random.below(odd.len())].clone()
        }
        _ => {
            let dash = random.pick(&[
                "", "", "", "", "", "", "", "", "-", "-", "- ", "--", "-\t", "-\u{b}",
            ]);
            let (a, b, c, d) = (blank(random), blank(random), blank(random), blank(random));
            format!("{a}{dash}{key}{b}={c}{value}{d}")
        }
    }
}

fn value(random: &mut Random, path: &str) -> String {
    let plain = PLAIN.iter().find(|(known, _)| *known == path);
    let v = match plain {
        Some((_, values)) => random.pick(values),
        None => random.pick(&["0", "1", "1", "0", "2"]),
    };
    if random.percent(65) {
        return v.to_owned();
    }
    let odd = [
        format!("0x{v}"),
        format!("0{v}"),
        format!("{v}#c"),
        format!("{v} # c"),
        format!("{v};"),
        format!("\"{v}\""),
        format!("'{v}'"),
        format!("{v}\\"),
        format!("{v},"),
        format!("{v} {v}"),
        format!("{v}\t1"),
        format!("-{v}"),
        format!("+{v}"),
        format!("{v}\u{b}"),
        format!("\u{c}{v}"),
        format!("{v}\u{a0}"),
        format!("\u{a0}{v}"),
        String::new(),
        format!("={v}"),
        format!("{v}="),
        format!("{v} = {v}"),
        "4294967296".into(),
        "2147483648".into(),
        "-1".into(),
        "18446744073709551616".into(),
        format!("{v}.0"),
        format!("{v}k"),
        "true".into(),
        "on".into(),
        format!("{}{v}", "0".repeat(29)),
        format!("0X{v}"),
        format!("{v}\r"),
        format!("{v}\0{v}"),
        format!("{v}\\n"),
        format!("{v}-{v}"),
        format!("\\{v}"),
        format!("{v}\u{1a}"),
        "3".into(),
        "08".into(),
        "0b1".into(),
        "--1".into(),
        "- 1".into(),
        format!("{v}{}", " x".repeat(2000)),
        format!("{}{v}", "0".repeat(1100)),
        "\u{b}\u{b}1".into(),
        "1\u{c}0".into(),
    ];
    odd[random.below(odd.len())].clone()
}

fn key(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> String {
    match random.below(100) {
        0..22 => return random.pick(&PLAIN).0.to_owned(),
        22..28 => return random.pick(&WHOLE).to_owned(),
        _ => {}
    }
    let (folder, name) = random.pick(about);
    let target = match random.below(12) {
        0..2 => "all",
        2..4 => "default",
        4..7 => random.pick(&EXISTING),
        7..9 => random.pick(&later),
        9..11 => random.pick(&GLOBS),
        _ => random.pick(&[
            "lo",
            "nope",
            "ALL",
            " all",
            "eth0 ",
            "all/.",
            "./all",
            "eth0/../all",
        ]),
    };
    let name = match random.below(60) {
        0 if !folder.contains("ipv6") => format!("{}*", &name[..5]),
        1 => format!("*{}", &name[2..]),
        2 => format!("[{}]{}", &name[..1], &name[1..]),
        3 => format!("{{{name},zz}}"),
        4 => name.to_uppercase(),
        5 => format!("{}?", &name[..name.len() - 1]),
        _ => name.to_owned(),
    };
    let folder = match random.below(60) {
        0 => folder.replace("ipv4", "ipv?"),
        1 => folder.replace("net/", "*/"),
        2 => folder.replace("conf", "[c-n]*"),
        _ => folder.to_owned(),
    };
    format!("{folder}/{target}/{name}")
}

/// A path as somebody may write it.
pub fn spelled(random: &mut Random, p: &str) -> String {
    let d = swapped(p);
    let odd = [
        format!("/{p}"),
        format!("//{p}"),
        format!("/proc/sys/{p}"),
        format!("proc/sys/{p}"),
        format!("//proc//sys//{p}"),
        format!("proc.sys.{d}"),
        format!(".{d}"),
        format!("{p}/"),
        format!("{d}."),
        p.replace('/', "//"),
        d.replace('.', ".."),
        format!("./{p}"),
        format!("../sys/{p}"),
        p.replacen("net/", "net/../net/", 1),
        format!("\"{p}\""),
        p.replace('/', "."),
        p.replacen('/', ".", 1),
        d.replacen('.', "/", 1),
        p.replace('/', " /"),
        format!("\u{a0}{p}"),
        p.replace('/', "\\/"),
        format!("sys/{p}"),
        format!("..{d}"),
        format!("/./{p}"),
        format!("{p}/."),
        format!("{p}//"),
        format!("/..//proc/sys/{p}"),
        p.replace('/', "/./"),
        format!("/proc/sys.{d}"),
        format!("{p}/.."),
        p.replace('e', "\\e"),
        format!("/{d}"),
        format!("{d}/"),
        p.replacen("conf/", "conf/*/../", 1),
    ];
    match random.below(100) {
        0..28 => odd[random.below(odd.len())].clone(),
        28..60 => p.to_owned(),
        _ => d,
    }
}
