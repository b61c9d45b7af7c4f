//! Trees whose lines are put together from pieces at every place where a reader may look for
//! something: before and behind a dash, a key, a sign and a value, at the bounds of old
//! buffers, in files whose names are no text or sort by the locale.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::generate::{EXISTING, PLAIN, swapped};
use super::random::Random;

const FOLDERS: [&str; 4] = [
    "etc/sysctl.d",
    "run/sysctl.d",
    "usr/local/lib/sysctl.d",
    "usr/lib/sysctl.d",
];
/// Names that the bytes sort otherwise than a locale, that are no UTF-8, or as long as may be.
const FILES: [&[u8]; 24] = [
    b"a.conf",
    b"B.conf",
    b"_.conf",
    b"10-a.conf",
    b"9-a.conf",
    b"010-a.conf",
    b"50-B.conf",
    b"50-a.conf",
    b"50-\xe4.conf",
    b"50-\xc3\xa4.conf",
    b"\xff.conf",
    b"\x80.conf",
    b"99-zz-netguard\xff.conf",
    b"99-sysctl.conf",
    b"99-sysctl.conf\xff",
    b"\xff\xfe.conf",
    b"a.conf\n.conf",
    b"\t.conf",
    b"\x01.conf",
    b"a.Conf",
    b"a.conf.",
    b"99-z*.conf",
    b"?.conf",
    b"$HOME.conf",
];
/// What may stand between any two pieces.
const GAPS: [&str; 16] = [
    "", "", "", "", "", "", " ", "\t", "  ", "\u{b}", "\u{c}", "\r", "\0", "\u{a0}", "\\", "\u{1}",
];
const DASHES: [&str; 14] = [
    "", "", "", "", "", "", "", "-", "-", "- ", "--", "\t-", "-\t-", "\u{2212}",
];
const SIGNS: [&str; 14] = [
    "=", "=", "=", "=", "=", "=", "=", "==", "= =", "+=", ":=", "?=", "=\t", "=-",
];
const COMMENTS: [&str; 12] = [
    "#", ";", "# ", "; ", "#-", ";-", "-#", "-;", " #", "\t;", "\u{b}#", "\0#",
];
const TAILS: [&str; 14] = [
    "", "", "", "", "", "", "", " # on", " ; on", "#", ";", "\t", "\\", " = 2",
];
const ENDS: [&str; 12] = [
    "\n", "\n", "\n", "\n", "\n", "\n", "\r\n", "\n\n", "\n \n", "\n\r\n", "\\\n", "\0\n",
];
const GLOBS: [&str; 24] = [
    "*",
    "*",
    "**",
    "***",
    "*?*",
    "?*",
    "[a-z]*",
    "[!-]*",
    "[^.]*",
    "*[!.]",
    "{*}",
    "{*,?}",
    "{eth0,lxc7,all}",
    "{{eth0,lxc7},br-x}*",
    "eth0{,.100}*",
    "{eth,lxc,cali}?",
    "[a-b]*",
    "[b-a]*",
    "[]-a]*",
    "[!]a]*",
    "[[:alnum:]]*",
    "[[:punct:][:digit:]]*",
    "e\\th*",
    "*\\?",
];
/// Keys of no interface, as patterns and by other ways.
const WHOLE: [&str; 10] = [
    "net/ipv4/ip_forwar{d,x}*",
    "net/ipv4/ip_forward*",
    "net/ipv4/ip_forward/*",
    "net/ipv4/*_forward",
    "net/ipv4/conf/../ip_forward",
    "net/ipv4/conf/al[l]/forwarding",
    "net/ipv[!5]/conf/all/forwarding",
    "net/ipv6/conf/al*/forwarding",
    "net/ipv6/conf/{default,all}/*forwarding",
    "net/*/conf/all/forwarding",
];

/// Files below `root` about the keys that `about` has.
pub fn tree(random: &mut Random, root: &Path, about: &[(&str, &str)], later: [&str; 2]) {
    for _ in 0..1 + random.below(6) {
        let name = OsStr::from_bytes(random.pick(&FILES));
        let file = root.join(random.pick(&FOLDERS)).join(name);
        if file.symlink_metadata().is_ok() {
            continue;
        }
        let other = Path::new("/").join(random.pick(&FOLDERS));
        let other = other.join(OsStr::from_bytes(random.pick(&FILES)));
        match random.below(16) {
            0 => symlink("/dev/null", &file).expect("a link"),
            1 => symlink(other, &file).expect("a link"),
            2 => symlink("../sysctl.conf", &file).expect("a link"),
            3 => fs::create_dir(&file).expect("a folder"),
            _ => fs::write(&file, text(random, about, later)).expect("a file"),
        }
    }
    if random.percent(40) {
        let text = text(random, about, later);
        fs::write(root.join("etc/sysctl.conf"), text).expect("a file");
    }
}

fn text(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..random.below(7) {
        text += &line(random, about, later);
        text += random.pick(&ENDS);
    }
    if random.percent(20) {
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        text += random.pick(&["", "", "\0", "\\", "\r", " "]);
    }
    let mut text = text.into_bytes();
    if random.percent(6) {
        let at = random.below(text.len() + 1);
        text.insert(at, random.pick(&[0x80, 0xa0, 0xc3, 0xff]));
    }
    text
}

fn line(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> String {
    let path = key(random, about, later);
    let key = spelled(random, &path);
    let value = value(random, &path);
    match random.below(20) {
        0 => return format!("{}{key}={value}", random.pick(&COMMENTS)),
        // An exclusion, with what may make it none.
        1..4 => {
            let dash = random.pick(&DASHES[7..]);
            return format!("{}{dash}{key}{}", gap(random), gap(random));
        }
        _ => {}
    }
    let (dash, sign) = (random.pick(&DASHES), random.pick(&SIGNS));
    let gaps = [0; 4].map(|_| gap(random));
    let tail = random.pick(&TAILS);
    let line = format!(
        "{}{dash}{key}{}{sign}{}{value}{tail}{}",
        gaps[0], gaps[1], gaps[2], gaps[3]
    );
    // A buffer's end may be anywhere in it.
    match random.below(24) {
        0 => {
            let bound: usize = random.pick(&[255, 256, 1023, 1024, 2047, 2048, 4095, 4096, 8192]);
            let filler = random.pick(&[" ", "\t", "#", "0", "\u{c}"]);
            let at = random.pick(&[0, line.len(), line.find('=').unwrap_or(0)]);
            let count = bound.saturating_sub(random.below(line.len() + 2));
            format!("{}{}{}", &line[..at], filler.repeat(count), &line[at..])
        }
        _ => line,
    }
}

/// Seldom something that is more than a blank.
fn gap(random: &mut Random) -> &'static str {
    match random.percent(90) {
        true => random.pick(&GAPS[..9]),
        false => random.pick(&GAPS),
    }
}

fn value(random: &mut Random, path: &str) -> String {
    let plain = PLAIN.iter().find(|(known, _)| *known == path);
    let v = random.pick(&plain.map_or(["0", "1"], |it| it.1));
    match random.below(36) {
        0 => format!("+{v}"),
        1 => format!("0x{v}"),
        2 => format!("0{v}"),
        3 => format!("\"{v}\""),
        4 => format!("'{v}'"),
        5 => format!("{v} {v}"),
        6 => format!("{v}\t{v}"),
        7 => String::new(),
        8 => format!("{v}\u{b}{v}"),
        9 => format!("{v}\r{v}"),
        10 => format!("{v}\0{v}"),
        11 => format!("-{v}"),
        12 => format!("{v}e0"),
        13 => format!("0o{v}"),
        14 => format!("${{X:-{v}}}"),
        15 => format!("{v},{v}"),
        16 => format!("\u{ff11}{v}"),
        17 => "2".to_owned(),
        18 => "enable".to_owned(),
        _ => v.to_owned(),
    }
}

fn key(random: &mut Random, about: &[(&str, &str)], later: [&str; 2]) -> String {
    match random.below(12) {
        0..2 => return random.pick(&PLAIN).0.to_owned(),
        2 => return random.pick(&WHOLE).to_owned(),
        _ => {}
    }
    let (folder, name) = random.pick(about);
    let target = match random.below(10) {
        0..2 => "all",
        2..4 => "default",
        4..6 => random.pick(&GLOBS),
        6 => random.pick(&later),
        _ => random.pick(&EXISTING),
    };
    format!("{folder}/{target}/{name}")
}

/// Separators of both kinds at any place.
fn spelled(random: &mut Random, path: &str) -> String {
    let dotted = swapped(path);
    match random.below(16) {
        0 => path.replacen("/conf/", ".conf/", 1),
        1 => dotted.replacen(".conf.", "/conf/", 1),
        2 => format!("/{path}"),
        3 => format!("./{path}"),
        4 => format!(".{dotted}"),
        5 => path.replace('/', "."),
        6 => dotted.replace('/', "."),
        7 => path.replacen('/', "//", 1 + random.below(3)),
        8 => path.replacen("conf/", "conf/./", 1),
        9 => path.replacen('/', " /", 1),
        10..13 => path.to_owned(),
        _ => dotted,
    }
}
