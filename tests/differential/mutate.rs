//! Changes trees at random, without a thought of what their syntax is.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::random::Random;

/// What readers may take for more than a letter.
const TOKENS: [&[u8]; 52] = [
    b".",
    b".",
    b"/",
    b"/",
    b"-",
    b"-",
    b"=",
    b"=",
    b"#",
    b";",
    b"*",
    b"*",
    b"?",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"!",
    b"^",
    b"\\",
    b"\"",
    b"'",
    b" ",
    b"\t",
    b"\r",
    b"\n",
    b"\n",
    b"\0",
    b"\x0b",
    b"\x0c",
    b"\x1f",
    b"\x7f",
    b"\xa0",
    b"\xff",
    b"\xc2\xa0",
    b"\xef\xbb\xbf",
    b":",
    b"+",
    b"~",
    b"%",
    b"0",
    b"1",
    b"2",
    b"9",
    b"x",
    b"_",
    b"..",
    b"//",
    b"./",
    b"[!",
    b"[^",
];

/// Changes some of the files that are applied.
pub fn tree(random: &mut Random) {
    let folders = [
        "/etc/sysctl.d",
        "/run/sysctl.d",
        "/usr/local/lib/sysctl.d",
        "/usr/lib/sysctl.d",
    ];
    let listed = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    let mut files: Vec<PathBuf> = listed.map(|it| it.expect("an entry").path()).collect();
    files.push("/etc/sysctl.conf".into());
    files.retain(|file| file.symlink_metadata().is_ok_and(|it| it.is_file()));
    files.sort();
    // One that another folder leads to may have another name by now.
    for file in files.into_iter().filter(|file| file.exists()) {
        if random.percent(60) {
            let mut text = fs::read(&file).expect("a file");
            for _ in 0..1 + random.below(6) {
                change(random, &mut text);
            }
            fs::write(&file, text).expect("a file");
        }
        if random.percent(8) {
            rename(random, &file);
        }
    }
}

/// Gives a file a name much like its own.
fn rename(random: &mut Random, file: &Path) {
    let mut name = file.file_name().expect("a name").as_bytes().to_vec();
    change(random, &mut name);
    name.retain(|byte| !b"/\0".contains(byte));
    let to = file.with_file_name(OsStr::from_bytes(&name));
    if !name.is_empty() && std::str::from_utf8(&name).is_ok() && to.symlink_metadata().is_err() {
        fs::rename(file, to).expect("a name");
    }
}

fn change(random: &mut Random, text: &mut Vec<u8>) {
    let at = random.below(text.len() + 1);
    let end = text.len().min(at + 1 + random.below(4));
    match random.below(10) {
        0..5 => drop(text.splice(at..at, random.pick(&TOKENS).iter().copied())),
        5 => drop(text.splice(at..end, random.pick(&TOKENS).iter().copied())),
        6 => drop(text.drain(at..end)),
        7 => {
            let copy = text[at..end].to_vec();
            let to = random.below(text.len() + 1);
            text.splice(to..to, copy);
        }
        choice => {
            let mut lines: Vec<Vec<u8>> =
                text.split(|it| *it == b'\n').map(<[u8]>::to_vec).collect();
            let (from, to) = (random.below(lines.len()), random.below(lines.len()));
            match choice {
                8 => lines.swap(from, to),
                _ => lines.insert(to, lines[from].clone()),
            }
            *text = lines.join(&b'\n');
        }
    }
}
