//! What the kernel makes of a text that is written to a key, against what the
//! table of facts says: random texts for keys of each format.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use netguard::model::facts::{self, Written};
use netguard::model::{SysctlKey, Value};

use crate::namespace::{add_tap, enter};

/// Keys of each format that a network namespace has for itself, and a value to
/// begin with.
const KEYS: [(&str, &str); 22] = [
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.conf.t0.medium_id", "7"),
    ("net.ipv4.conf.t0.rp_filter", "1"),
    ("net.ipv6.conf.t0.forwarding", "0"),
    ("net.ipv6.conf.t0.accept_ra", "1"),
    ("net.ipv6.conf.t0.stable_secret", "2001:db8::1"),
    ("net.ipv4.ip_default_ttl", "64"),
    ("net.ipv4.tcp_syncookies", "1"),
    ("net.ipv4.tcp_tw_reuse", "2"),
    ("net.ipv4.icmp_echo_ignore_all", "0"),
    ("net.ipv4.tcp_notsent_lowat", "4294967295"),
    ("net.core.somaxconn", "4096"),
    ("net.ipv4.tcp_rmem", "1 2 3"),
    ("net.ipv4.ip_local_port_range", "30000 40000"),
    ("net.ipv4.ping_group_range", "1 0"),
    ("net.ipv4.ip_local_reserved_ports", "7"),
    ("net.ipv4.tcp_fin_timeout", "60"),
    ("net.ipv4.tcp_min_snd_mss", "48"),
    ("net.ipv4.neigh.t0.retrans_time_ms", "1000"),
    ("net.ipv4.neigh.t0.proxy_delay", "80"),
    ("net.ipv4.neigh.t0.proxy_qlen", "64"),
    ("net.netfilter.nf_conntrack_tcp_loose", "1"),
];

const NUMBERS: [&str; 27] = [
    "0",
    "1",
    "1",
    "2",
    "3",
    "80",
    "81",
    "90",
    "255",
    "256",
    "1024",
    "60000",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "0x1",
    "0X1f",
    "0x",
    "010",
    "08",
    "00000000000000000001",
    "000000000000000000001",
    "1e3",
];
const SIGNS: [&str; 4] = ["", "-", "+", "--"];
const BETWEEN: [&str; 14] = [
    " ", " ", "\t", "\n", "\r\n", ",", ",", "-", " # ", "#", ";", "\"", "\u{b}", "\0",
];
/// Texts for each key.
const TEXTS: usize = 400;

/// A linear congruential generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        if self.roll(4) == 0 {
            text.push_str(self.pick(&BETWEEN));
        }
        for i in 0..=self.roll(4) {
            if i > 0 {
                text.push_str(self.pick(&BETWEEN));
            }
            if self.roll(4) == 0 {
                text.push_str(self.pick(&SIGNS));
            }
            text.push_str(self.pick(&NUMBERS));
        }
        if self.roll(4) == 0 {
            text.push_str(self.pick(&BETWEEN));
        }
        if self.roll(2) == 0 {
            text.push('\n');
        }
        text
    }
}

/// Writes in one write(2); whether the kernel calls that an error is nothing
/// that counts: some handlers do not say.
fn write(file: &Path, text: &str) {
    let mut file = OpenOptions::new().write(true).open(file).expect("a key");
    let _ = file.write(text.as_bytes());
}

fn read(file: &Path) -> Value {
    Value::new(&fs::read_to_string(file).expect("a key that can be read"))
}

fn seed() -> u64 {
    match std::env::var("NETGUARD_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.expect("a clock after 1970").subsec_nanos().into()
        }
    }
}

/// What differs between the table and the kernel for this text.
fn difference(key: &SysctlKey, file: &Path, base: &str, text: &str) -> Option<String> {
    write(file, base);
    let before = read(file);
    write(file, text);
    let after = read(file);
    let format = facts::Fact::of_key(key).expect("a known key").format;
    let predicted = facts::write(key, text, Some(&before));
    let agrees = match &predicted {
        Written::Taken(value) => format.same(value, &after),
        Written::Refused => after == before,
        Written::Unknown => true,
    };
    (!agrees).then(|| format!("{key}: {text:?} made {before:?} {after:?}, not {predicted:?}"))
}

#[test]
fn the_kernel_reads_texts_as_the_table_says() {
    enter();
    add_tap("t0");
    let seed = seed();
    let _ = writeln!(
        std::io::stdout(),
        "seed {seed} (set NETGUARD_SEED to repeat)"
    );
    let mut dice = Dice(seed);
    let mut differences = Vec::new();
    let mut tried = 0;
    for (name, base) in KEYS {
        let key = SysctlKey::parse(name).expect(name);
        let file: PathBuf = key.file(Path::new("/proc/sys"));
        if !file.exists() {
            continue;
        }
        for _ in 0..TEXTS {
            tried += 1;
            differences.extend(difference(&key, &file, base, &dice.text()));
        }
    }
    assert!(tried > KEYS.len() / 2 * TEXTS, "only {tried} texts tried");
    assert!(
        differences.is_empty(),
        "seed {seed}: {} of {tried}\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// `default` and `all` reach existing interfaces as the table says.
#[test]
fn the_kernel_carries_values_as_the_table_says() {
    enter();
    add_tap("t0");
    let mut differences = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let folder = format!("/proc/sys/net/{family}/conf/t0");
        for entry in fs::read_dir(&folder).expect("the keys of an interface") {
            let name = entry.expect("an entry").file_name();
            let name = name.to_str().expect("a name");
            let own =
                SysctlKey::from_segments(&["net", family, "conf", "t0", name]).expect("a key");
            for target in ["all", "default"] {
                let source = own.with_target(target).expect("a key");
                differences.extend(carried(&source, &own));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// One time, by two names in two units.
#[test]
fn the_kernel_shows_a_time_in_two_units_as_the_table_says() {
    enter();
    add_tap("t0");
    let file = |key: &SysctlKey| key.file(Path::new("/proc/sys"));
    for (name, value, other) in [
        ("ipv4.neigh.t0.retrans_time", "70", "0"),
        ("ipv4.neigh.t0.retrans_time_ms", "3000", "0"),
        ("ipv4.neigh.t0.base_reachable_time", "7", "1"),
        ("ipv4.neigh.t0.base_reachable_time_ms", "3000", "1"),
        ("ipv6.neigh.t0.retrans_time", "7", "0"),
        ("ipv6.neigh.t0.retrans_time_ms", "3000", "0"),
        ("ipv6.neigh.t0.base_reachable_time", "7", "1"),
        ("ipv6.neigh.t0.base_reachable_time_ms", "3000", "1"),
    ] {
        let key = SysctlKey::parse(&format!("net.{name}")).expect(name);
        let twin = facts::twin(&key).expect(name);
        write(&file(&twin), other);
        let before = read(&file(&twin));
        write(&file(&key), value);
        let shown = read(&file(&twin));
        assert_ne!(shown, before, "{name}");
        let effect = facts::effect(&key, &twin).expect(name);
        if let Some(expected) = effect.of(&Value::new(value)) {
            assert_eq!(shown, expected, "{name}");
        }
    }
}

fn carried(source: &SysctlKey, own: &SysctlKey) -> Option<String> {
    let file = |key: &SysctlKey| key.file(Path::new("/proc/sys"));
    let flipped = |value: &Value| match value.as_str() {
        "0" => Some("1"),
        "1" => Some("0"),
        _ => None,
    };
    if fs::metadata(file(source)).ok()?.permissions().readonly() {
        return None;
    }
    // Keys of other kinds have no row that could be wrong.
    let before = Value::new(&fs::read_to_string(file(own)).ok()?);
    let old = Value::new(&fs::read_to_string(file(source)).ok()?);
    let other = flipped(&before)?;
    if old.as_str() == other {
        write(&file(source), before.as_str());
    }
    write(&file(source), other);
    let was_set = read(&file(source)).as_str() == other;
    let changed = read(&file(own)) != before;
    write(&file(source), old.as_str());
    let predicted = facts::resets(&source.clone().canonical(), own);
    (was_set && changed != predicted)
        .then(|| format!("{source}: changed {own}: {changed}, the table says {predicted}"))
}
