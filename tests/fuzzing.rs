//! Each decoder of outside input (fuzz/decoders.rs) with real input, and with what
//! random changes make of it: none panics or takes long.
//!
//! `NETGUARD_SEED` repeats a run, `NETGUARD_MILLISECONDS` says how much processor
//! time each decoder gets. `NETGUARD_SEEDS=DIR` writes the real inputs to `DIR/DECODER/`, for
//! cargo-fuzz to begin with (fuzz/README.md).

#[path = "../fuzz/decoders.rs"]
mod decoders;
#[path = "differential/random.rs"]
mod random;

use std::collections::BTreeSet;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use decoders::{DECODERS, Decoder};
use nix::time::{ClockId, clock_gettime};
use random::Random;

/// The most processor time that an input may take, in a debug build.
const MOST: Duration = Duration::from_millis(500);
/// After this long without an answer a decoder hangs.
const HANGS: Duration = Duration::from_secs(60);
/// The most inputs of a decoder.
const COUNT: usize = 2000;
/// No longer input is made.
const LONGEST: usize = 64 * 1024;

/// What decoders trip over.
const TOKENS: [&[u8]; 32] = [
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"=",
    b".",
    b"/",
    b"..",
    b"../",
    b"*",
    b"?",
    b"[",
    b"]",
    b"[!",
    b"{",
    b"}",
    b"{a,{b,c}}",
    b"\"",
    b"'",
    b"\\",
    b"$",
    b"${a}",
    b"%",
    b"#",
    b"-",
    b"0x",
    b"-1",
    b"18446744073709551616",
    b"\xff\xff\xff\xff",
    b"\xc3\xa9",
    b"\xef\xbf\xbfff",
    b"\xed\xa0\x80",
];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The files below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = listed
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let below = paths.into_iter().flat_map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    });
    below.collect()
}

/// The real inputs of a decoder.
fn seeds(decoder: &Decoder) -> Vec<Vec<u8>> {
    let mut paths = files(&source("fuzz/seeds").join(decoder.name));
    if !decoder.like.is_empty() {
        let found = ["tests", "config"]
            .into_iter()
            .flat_map(|it| files(&source(it)));
        paths.extend(found.filter(|path| {
            let path = path.strip_prefix(source("")).expect("a path below");
            let path = path.to_str().expect("a name in UTF-8");
            !path.contains("/expected.") && decoder.like.iter().any(|part| path.contains(part))
        }));
    }
    let mut seeds: Vec<_> = paths
        .iter()
        .filter_map(|path| fs::read(path).ok())
        .collect();
    seeds.retain(|seed| seed.len() <= LONGEST);
    seeds
}

/// An input like `seeds`, and unlike them.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let one_of = |random: &mut Random| &seeds[random.below(seeds.len())];
    let mut input = one_of(random).clone();
    while random.percent(70) {
        let at = random.below(input.len() + 1);
        let end = (at + 1 + random.below(16)).min(input.len());
        match random.below(8) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 if at < end => input[at] ^= 1 << random.below(8),
            3 if at < end => input[at] = u8::try_from(random.below(256)).unwrap_or(0),
            4 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece.repeat(1 + random.below(200)));
            }
            5 => {
                let other = one_of(random);
                let from = random.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            6 => drop(input.splice(at..end, random.pick(&TOKENS).iter().copied())),
            _ => drop(input.splice(at..at, random.pick(&TOKENS).iter().copied())),
        }
        input.truncate(LONGEST);
    }
    input
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("a clock")
        .into()
}

/// Feeds a decoder for as long as there is `time`, on a thread of its own that may
/// hang or panic.
fn feed(
    decoder: &'static Decoder,
    inputs: impl Iterator<Item = Vec<u8>>,
    time: Duration,
) -> Result<(), String> {
    let (ask, asked) = sync_channel::<Vec<u8>>(0);
    let (answer, answered) = sync_channel(0);
    std::thread::spawn(move || {
        for input in asked {
            let before = processor_time();
            decoder.run(&input);
            let took = processor_time().saturating_sub(before);
            answer.send(took).expect("the test waits");
        }
    });
    let mut spent = Duration::ZERO;
    for input in inputs {
        ask.send(input.clone()).expect("the decoder waits");
        let wrong = match answered.recv_timeout(HANGS) {
            Ok(took) if took <= MOST => {
                spent += took;
                if spent > time {
                    break;
                }
                continue;
            }
            Ok(took) => format!("takes {took:?}"),
            Err(RecvTimeoutError::Timeout) => "hangs".to_owned(),
            Err(RecvTimeoutError::Disconnected) => "panics".to_owned(),
        };
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(decoder.name);
        fs::write(&kept, &input).expect("a file");
        return Err(format!("{wrong} on {}", kept.display()));
    }
    Ok(())
}

fn chosen(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

struct Folder;

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(decoders::folder());
    }
}

#[test]
fn no_input_makes_a_decoder_panic_or_hang() {
    let _folder = Folder;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = chosen("NETGUARD_SEED").unwrap_or(now.expect("a time").as_secs() as usize);
    let time = Duration::from_millis(chosen("NETGUARD_MILLISECONDS").unwrap_or(200) as u64);
    for decoder in DECODERS {
        let seeds = seeds(decoder);
        assert!(!seeds.is_empty(), "{}: no real input", decoder.name);
        if let Some(folder) = std::env::var_os("NETGUARD_SEEDS") {
            let folder = PathBuf::from(folder).join(decoder.name);
            fs::create_dir_all(&folder).expect("a folder");
            for (i, seed) in seeds.iter().enumerate() {
                fs::write(folder.join(format!("seed-{i}")), seed).expect("a file");
            }
        }
        let mut random = Random(seed as u64);
        let changed = iter::repeat_with(|| mutated(&seeds, &mut random)).take(COUNT);
        let fed = feed(decoder, seeds.iter().cloned().chain(changed), time);
        fed.unwrap_or_else(|wrong| panic!("{}, NETGUARD_SEED={seed}: {wrong}", decoder.name));
    }
}

#[test]
fn each_decoder_is_a_fuzz_target() {
    let manifest = fs::read_to_string(source("fuzz/Cargo.toml")).expect("a manifest");
    let names = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let names: BTreeSet<_> = names.filter(|name| *name != "netguard-fuzz").collect();
    assert_eq!(names, DECODERS.iter().map(|it| it.name).collect());
}
