//! What each kind of record says, word for word, and that one regular
//! expression per kind matches it (node-problem-detector sees MESSAGE alone).

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use netguard::conntrack::{Cleaned, Usage};
use netguard::engine::{
    Affected, Drift, Episode, EpisodeId, Errno, Failure, LastGood, Limitation, Outage, Outages,
    Record, Resolution, Several, Tally, Unrestored,
};
use netguard::journal::entry::{Entry, Priority};
use netguard::journal::fields::{self, Kind};
use netguard::journal::message::{self, PATTERN};
use netguard::model::{
    Application, Applier, Attribution, Conflict, KnownBy, Mode, Monotonic, Origin, Parent, Process,
    Reach, Selector, Source, SysctlKey, Unknown, Value,
};
use netguard::resource::{Resource, State};
use netguard::sys::capabilities::{Capability, denial};

/// `CLOCK_REALTIME` when the records were made.
const TIME: u64 = 1_735_689_599_000_031;

const VALUE: &str = r#"([^ ",;()\]+( [^ ",;()\]+)*|"([^"\]|\\.)*")"#;
const SPAN: &str = "([0-9]+ us|[0-9]+[.][0-9] (ms|s)|[0-9]+ min [0-9]+ s|[0-9]+ h [0-9]+ min)";
const SOURCE: &str = "[a-z]+";

/// The grammar as POSIX extended regular expressions.
fn pattern(kind: Kind) -> String {
    let units = format!("{VALUE}(, {VALUE})*( and ({VALUE}|[0-9]+ more))?");
    let sources = format!("{SOURCE}(, {SOURCE})*( and {SOURCE})?");
    let writer = format!(
        r"(written by {VALUE}\[[0-9]+\]( of {VALUE})?( [0-9]+ times?)?|writer unknown: [^,()]+)"
    );
    let deleted = "[0-9]+ connections? without NAT deleted";
    let cleaned = format!(
        "(, ({deleted}( and others not: [^,()]+)?|connections without NAT not deleted: [^,()]+))?"
    );
    let how = format!(
        r"\((detected by {sources}|found at startup)(, drifted for (at most {SPAN}|an unknown time))?(, propagated from [^ ,]+)?(, {writer})?(, during {units})?(, {VALUE}:[0-9]+ will set it again)?{cleaned}(, [0-9]+ times( in total)?( on [0-9]+ keys from [^ ]+ to [^ ]+)?)?\)"
    );
    let usage = r"[0-9]+ of [0-9]+ connections? \([0-9]+ %\)";
    let unit = format!("{VALUE} is {VALUE}(: see journalctl -u {VALUE})?");
    let required = r#"([^",;()\]+|"([^"\]|\\.)*")"#;
    let tally = r"[0-9]+ of [0-9]+ values? OK(, [0-9]+ drifted)?(, [0-9]+ pending)?(, [0-9]+ unreadable)?, [0-9]+ invariants?, [0-9]+ drifts? restored";
    let drifts = "[0-9]+ drifts?(, [0-9]+ restored)?(, [0-9]+ failed)?(, [0-9]+ in observe mode)?(, [0-9]+ pending)?(, [0-9]+ contended)?(, [0-9]+ over without netguard)?";
    let when = "(at|by|for|when) [^,()]+";
    let body = match kind {
        Kind::Started => format!(
            "(degraded: .+; )?{tally}(; [0-9]+ outages? since boot(, [0-9]+ of unknown duration)?, (at least )?{SPAN} total, longest {SPAN})?"
        ),
        Kind::Stopped => {
            format!(
                "{tally}(; [0-9]+ outages? since boot(, [0-9]+ of unknown duration)?, (at least )?{SPAN} total, longest {SPAN})?"
            )
        }
        Kind::Degraded | Kind::Recovered => ".+".to_owned(),
        Kind::ConntrackNearlyFull => {
            format!(r"{usage} \(new connections are dropped at the maximum\)")
        }
        Kind::ConntrackRecovered => format!("{usage} after {SPAN}"),
        Kind::ConfigurationReloaded => tally.to_owned(),
        Kind::DriftRestored | Kind::DriftEnded => {
            format!("[^ ]+ was {VALUE}, is {VALUE}( again)?( after {SPAN})? {how}")
        }
        Kind::ConfigurationApplied => format!(
            r"[^ ]+ was {VALUE}, is {VALUE} \(required by ({VALUE}:[0-9]+|various){cleaned}(, [0-9]+ times( on [0-9]+ keys from [^ ]+ to [^ ]+)?)?\)"
        ),
        Kind::RemovalAccepted => {
            format!("[^ ]+ was {VALUE}, is {VALUE} {how}: not restored, as [a-z ]+")
        }
        Kind::DriftObserved => format!("[^ ]+ is {VALUE}, must be {required} {how}"),
        Kind::RestoreFailed => format!("[^ ]+ is {VALUE}, must be {required} {how}: .+"),
        Kind::Contended => format!("[^ ]+ keeps changing to {VALUE}, must be {required} {how}"),
        Kind::SourceUnavailable => format!("{SOURCE}: .+"),
        Kind::SourceRecovered => format!("{SOURCE} after {SPAN}, full rescan done"),
        Kind::ConfigurationRefused => r".+ \(keeping the previous configuration\)".to_owned(),
        Kind::RestartHandled => format!(
            r"[^:]+(: [A-Z].*)?( took {SPAN})?: {drifts}(, longest {SPAN})?; [0-9]+ of [0-9]+ values? OK(, final check skipped|, checked {SPAN} later)?( \((job {VALUE}|{unit})(, {unit})*\))?"
        ),
        Kind::ConflictFound => format!(
            r"([^ ]+ must be {required}, {VALUE}:[0-9]+ sets [^ ]+ to {VALUE} \(applied {when}(, {when})*( and {when})?\)|[0-9]+ more conflicts? \(netguard conflicts lists them\))"
        ),
        Kind::ConflictResolved => format!(
            "([^ ]+ must be {required}, {VALUE}:[0-9]+ (no longer sets|overrides {VALUE}:[0-9]+, which sets) [^ ]+ to {VALUE}|[^ ]+ need no longer be {required}, {VALUE}:[0-9]+ sets [^ ]+ to {VALUE}|[0-9]+ more conflicts?)"
        ),
        Kind::RecordsDropped => r"[0-9]+ records? \(journal too slow\)".to_owned(),
    };
    format!("{}: {body}", kind.words())
}

/// Asks grep(1) whether `message` matches as a whole.
fn matches(pattern: &str, message: &str) -> bool {
    grep("-qxE", pattern, message)
}

fn grep(options: &str, pattern: &str, message: &str) -> bool {
    let mut grep = Command::new("grep")
        .args([options, "-e", pattern])
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .spawn()
        .expect("grep runs");
    // grep may have its match before it has read everything.
    let _ = writeln!(grep.stdin.take().expect("a pipe"), "{message}");
    match grep.wait().expect("grep ends").code() {
        Some(0) => true,
        Some(1) => false,
        other => panic!("grep: {other:?} for {pattern}"),
    }
}

fn kind_of(entry: &Entry) -> Kind {
    let event = one(entry, fields::NETGUARD_EVENT);
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == event);
    kind.expect("a known kind")
}

fn all<'a>(entry: &'a Entry, name: &str) -> Vec<&'a str> {
    let fields = entry.fields.iter();
    fields
        .filter(|(own, _)| *own == name)
        .map(|(_, value)| value.as_str())
        .collect()
}

fn one<'a>(entry: &'a Entry, name: &str) -> &'a str {
    match all(entry, name).as_slice() {
        [value] => value,
        other => panic!("{name}: {other:?}"),
    }
}

/// Checks that the one pattern matches, and that its groups are what it says.
fn check_pattern(entry: &Entry) {
    let message = &entry.message;
    assert!(grep("-qxE", PATTERN, message), "{message}");
    assert!(grep("-qxP", PATTERN, message), "{message}");
    let part = |group: &str| {
        let script = format!("s\x01^{PATTERN}$\x01\\{group}\x01");
        let sed = Command::new("sed")
            .args(["-E", &script])
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut sed = sed.expect("sed runs");
        let _ = writeln!(sed.stdin.take().expect("a pipe"), "{message}");
        let output = sed.wait_with_output().expect("sed ends");
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim_end()
            .to_owned()
    };
    let kind = kind_of(entry);
    assert_eq!(part("1"), kind.words(), "{message}");
    let drift = [
        Kind::DriftRestored,
        Kind::DriftObserved,
        Kind::DriftEnded,
        Kind::RestoreFailed,
        Kind::Contended,
    ];
    if drift.contains(&kind) {
        assert_eq!(part("3"), one(entry, fields::NETGUARD_KEY), "{message}");
        if let [found] = all(entry, fields::NEWVALUE).as_slice()
            && found.bytes().all(|byte| byte.is_ascii_digit())
        {
            assert_eq!(part("5"), *found, "{message}");
        }
    }
}

/// The fields that the catalog's entry of this kind shows.
fn explained_with(kind: Kind) -> Vec<&'static str> {
    let catalog = include_str!("../packaging/catalog/netguard.catalog");
    let head = format!("\n-- {}\n", kind.message_id());
    let (_, entry) = catalog.split_once(&head).expect("an entry for each kind");
    let entry = entry.split("\n-- ").next().unwrap_or(entry);
    entry.split('@').skip(1).step_by(2).collect()
}

/// Checks what every entry has to have and returns its other fields.
fn check(record: &Record, priority: Priority, message: &str) -> Vec<(&'static str, String)> {
    let entry = Entry::of(record, TIME);
    assert_eq!(entry.message, message);
    assert_eq!(entry.priority, priority, "{message}");
    let kind = kind_of(&entry);
    assert!(
        matches(&pattern(kind), message),
        "{message}\n{}",
        pattern(kind)
    );
    check_pattern(&entry);
    for (name, _) in &entry.fields {
        assert!(fields::ALL.contains(name), "{name} is not in the table");
    }
    for name in explained_with(kind) {
        assert!(
            !all(&entry, name).is_empty(),
            "{kind:?} has no {name}, its catalog entry has"
        );
    }
    assert_eq!(one(&entry, "MESSAGE_ID"), kind.message_id());
    assert_eq!(one(&entry, "SYSLOG_IDENTIFIER"), "netguard");
    assert_eq!(one(&entry, "SYSLOG_FACILITY"), "3");
    assert_eq!(one(&entry, "NETGUARD_TIME_USEC"), TIME.to_string());
    entry.fields.into_iter().skip(5).collect()
}

fn expect(fields: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect()
}

fn sysctl() -> Process {
    Process {
        pid: 4711,
        comm: "sysctl".to_owned(),
        cmdline: "sysctl -w net.ipv4.ip_forward=0".to_owned(),
        uid: None,
        login_uid: None,
        cgroup: None,
        unit: None,
        user_unit: None,
        started: None,
        parents: Vec::new(),
        known_by: KnownBy::Proc,
    }
}

/// The fields of [`sysctl`].
const SYSCTL: [(&str, &str); 4] = [
    ("OBJECT_PID", "4711"),
    ("OBJECT_COMM", "sysctl"),
    ("OBJECT_CMDLINE", "sysctl -w net.ipv4.ip_forward=0"),
    ("NETGUARD_WRITER_KNOWN_BY", "proc"),
];

fn drift() -> Drift {
    Drift {
        key: SysctlKey::parse("net.ipv4.ip_forward")
            .expect("a key")
            .into(),
        old: Some(Value::new("1").into()),
        new: Some(Value::new("0").into()),
        ours: Some(Value::new("1").into()),
        required: "1".to_owned(),
        source: Source::Netconf,
        writer: Attribution::Known(Arc::new(sysctl())),
        caused_by: None,
        at: Monotonic::from_nanos(1),
        wrote_after: Some(Duration::from_nanos(25_900)),
        took: Some(Duration::from_nanos(31_400)),
        at_most: None,
        unknown: false,
        episode: None,
        units: Vec::new(),
        count: 1,
        several: None,
        selector: "net.ipv4.ip_forward".into(),
        mode: Mode::Restore,
        reason: None,
        origin: Some(Origin {
            file: Arc::new(PathBuf::from("/etc/netguard/netguard.toml")),
            line: 12,
        }),
        again: None,
        cleaned: None,
    }
}

fn tally() -> Tally {
    Tally {
        invariants: 20,
        values: 214,
        matching: 211,
        pending: 2,
        unreadable: 0,
        drifted: 1,
        restored: 3,
    }
}

#[test]
fn a_restored_drift() {
    let fields = check(
        &Record::DriftRestored(drift()),
        Priority::Notice,
        "drift restored: net.ipv4.ip_forward was 0, is 1 again after 31 us (detected by netconf, \
         written by sysctl[4711])",
    );
    let [pid, comm, cmdline, known_by] = SYSCTL;
    assert_eq!(
        fields,
        expect(&[
            ("SYSCTL", "/proc/sys/net/ipv4/ip_forward"),
            ("NETGUARD_RESOURCE", "net.ipv4.ip_forward"),
            ("NETGUARD_KIND", "sysctl"),
            ("NETGUARD_KEY", "net.ipv4.ip_forward"),
            ("NETGUARD_SELECTOR", "net.ipv4.ip_forward"),
            ("OLDVALUE", "1"),
            ("NEWVALUE", "0"),
            ("OURVALUE", "1"),
            ("NETGUARD_REQUIRED", "1"),
            ("NETGUARD_SOURCE", "netconf"),
            ("NETGUARD_MODE", "restore"),
            ("NETGUARD_ORIGIN", "/etc/netguard/netguard.toml:12"),
            pid,
            comm,
            cmdline,
            known_by,
            ("NETGUARD_WRITE_USEC", "25"),
            ("NETGUARD_RESTORE_USEC", "31"),
            ("NETGUARD_COUNT", "1"),
        ])
    );
}

#[test]
fn a_restored_drift_with_all_that_can_be_known() {
    let key = "net/ipv4/conf/eth0.100/rp_filter";
    let drift = Drift {
        key: SysctlKey::parse(key).expect("a key").into(),
        old: None,
        source: Source::Fanotify,
        writer: Attribution::Known(Arc::new(Process {
            comm: "a, (b)".to_owned(),
            uid: Some(0),
            login_uid: Some(1000),
            cgroup: Some("/system.slice/network.service".to_owned()),
            unit: Some("network.service".to_owned()),
            user_unit: Some("a.service".to_owned()),
            started: Some(1_735_689_598_000_000),
            parents: vec![
                Parent {
                    pid: 812,
                    comm: "bash".to_owned(),
                },
                Parent {
                    pid: 1,
                    comm: "(sd) x".to_owned(),
                },
            ],
            known_by: KnownBy::Connector,
            ..sysctl()
        })),
        caused_by: Some(
            SysctlKey::parse("net.ipv4.ip_forward")
                .expect("a key")
                .into(),
        ),
        took: Some(Duration::from_micros(1250)),
        episode: Some(EpisodeId(2)),
        units: vec![
            "network.service".to_owned(),
            "systemd-sysctl.service".to_owned(),
        ],
        count: 214,
        reason: Some("pods route".to_owned()),
        selector: "net.ipv4.conf.*.rp_filter".into(),
        ..drift()
    };
    let fields = check(
        &Record::DriftRestored(drift),
        Priority::Notice,
        "drift restored: net.ipv4.conf.eth0/100.rp_filter was 0, is 1 after 1.2 ms (detected by fanotify, \
         propagated from net.ipv4.ip_forward, written by \"a, (b)\"[4711] of network.service, during network.service and systemd-sysctl.service, 214 times)",
    );
    assert_eq!(
        fields,
        expect(&[
            ("SYSCTL", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"),
            ("NETGUARD_RESOURCE", "net.ipv4.conf.eth0/100.rp_filter"),
            ("NETGUARD_KIND", "sysctl"),
            ("NETGUARD_KEY", "net.ipv4.conf.eth0/100.rp_filter"),
            ("NETGUARD_SELECTOR", "net.ipv4.conf.*.rp_filter"),
            ("NEWVALUE", "0"),
            ("OURVALUE", "1"),
            ("NETGUARD_REQUIRED", "1"),
            ("NETGUARD_SOURCE", "fanotify"),
            ("NETGUARD_MODE", "restore"),
            ("NETGUARD_REASON", "pods route"),
            ("NETGUARD_ORIGIN", "/etc/netguard/netguard.toml:12"),
            ("NETGUARD_CAUSE_KEY", "net.ipv4.ip_forward"),
            ("OBJECT_PID", "4711"),
            ("OBJECT_COMM", "a, (b)"),
            ("OBJECT_CMDLINE", "sysctl -w net.ipv4.ip_forward=0"),
            ("OBJECT_UID", "0"),
            ("OBJECT_AUDIT_LOGINUID", "1000"),
            ("OBJECT_SYSTEMD_CGROUP", "/system.slice/network.service"),
            ("OBJECT_SYSTEMD_USER_UNIT", "a.service"),
            ("NETGUARD_WRITER_UNIT", "network.service"),
            ("OBJECT_SYSTEMD_UNIT", "network.service"),
            ("NETGUARD_WRITER_STARTED_USEC", "1735689598000000"),
            ("NETGUARD_WRITER_PARENTS", "bash[812] \"(sd) x\"[1]"),
            ("NETGUARD_WRITER_KNOWN_BY", "connector"),
            ("NETGUARD_WRITE_USEC", "25"),
            ("NETGUARD_RESTORE_USEC", "1250"),
            ("NETGUARD_EPISODE", "2"),
            ("NETGUARD_UNIT", "network.service"),
            ("NETGUARD_UNIT", "systemd-sysctl.service"),
            ("OBJECT_SYSTEMD_UNIT", "systemd-sysctl.service"),
            ("NETGUARD_COUNT", "214"),
        ])
    );
}

#[test]
fn a_drift_that_was_found_late() {
    let drift = Drift {
        source: Source::Sweep,
        at_most: Some(Duration::from_millis(59_200)),
        ..drift()
    };
    let fields = check(
        &Record::DriftRestored(drift),
        Priority::Notice,
        "drift restored: net.ipv4.ip_forward was 0, is 1 again after 31 us (detected by sweep, \
         drifted for at most 59.2 s, written by sysctl[4711])",
    );
    assert!(fields.contains(&("NETGUARD_DRIFT_AT_MOST_USEC", "59200000".to_owned())));
}

/// A flood: 3,000 interfaces lose a value immediately.
fn flood() -> Drift {
    let key = |name: &str| Resource::from(SysctlKey::parse(name).expect("a key"));
    let last = key("net.ipv4.conf.cali2999.rp_filter");
    Drift {
        key: last.clone(),
        selector: "net.ipv4.conf.cali*.rp_filter".into(),
        episode: Some(EpisodeId(2)),
        units: vec!["network.service".to_owned()],
        took: Some(Duration::from_millis(12)),
        count: 3001,
        several: Some(Several {
            keys: 3000,
            first: key("net.ipv4.conf.cali0.rp_filter"),
            last,
            sources: vec![Source::Netconf, Source::Fanotify, Source::Sweep],
            written: None,
        }),
        ..drift()
    }
}

#[test]
fn a_flood_names_who_wrote_most_of_it() {
    let mut drift = flood();
    if let Some(several) = &mut drift.several {
        several.written = Some(2999);
    }
    let fields = check(
        &Record::DriftRestored(drift),
        Priority::Notice,
        "drift restored: net.ipv4.conf.cali*.rp_filter was 0, is 1 again after 12.0 ms \
         (detected by netconf, fanotify and sweep, written by sysctl[4711] 2999 times, \
         during network.service, 3001 times in total on 3000 keys \
         from net.ipv4.conf.cali0.rp_filter to net.ipv4.conf.cali2999.rp_filter)",
    );
    let fields = Vec::from_iter(fields);
    for field in [SYSCTL[0], ("NETGUARD_WRITER_COUNT", "2999")] {
        assert!(
            fields.contains(&(field.0, field.1.to_owned())),
            "{field:?}: {fields:?}"
        );
    }
}

#[test]
fn a_flood_is_reported_in_one_record() {
    let [pid, comm, cmdline, known_by] = SYSCTL;
    let fields = check(
        &Record::DriftRestored(flood()),
        Priority::Notice,
        "drift restored: net.ipv4.conf.cali*.rp_filter was 0, is 1 again after 12.0 ms \
         (detected by netconf, fanotify and sweep, written by sysctl[4711], during network.service, 3001 times on 3000 keys \
         from net.ipv4.conf.cali0.rp_filter to net.ipv4.conf.cali2999.rp_filter)",
    );
    assert_eq!(
        fields,
        expect(&[
            ("NETGUARD_KIND", "sysctl"),
            ("NETGUARD_KEY", "net.ipv4.conf.cali*.rp_filter"),
            ("NETGUARD_SELECTOR", "net.ipv4.conf.cali*.rp_filter"),
            ("NETGUARD_KEYS", "3000"),
            ("NETGUARD_FIRST_KEY", "net.ipv4.conf.cali0.rp_filter"),
            ("NETGUARD_LAST_KEY", "net.ipv4.conf.cali2999.rp_filter"),
            ("OLDVALUE", "1"),
            ("NEWVALUE", "0"),
            ("OURVALUE", "1"),
            ("NETGUARD_REQUIRED", "1"),
            ("NETGUARD_SOURCE", "netconf"),
            ("NETGUARD_SOURCE", "fanotify"),
            ("NETGUARD_SOURCE", "sweep"),
            ("NETGUARD_MODE", "restore"),
            ("NETGUARD_ORIGIN", "/etc/netguard/netguard.toml:12"),
            pid,
            comm,
            cmdline,
            known_by,
            ("NETGUARD_WRITE_USEC", "25"),
            ("NETGUARD_RESTORE_USEC", "12000"),
            ("NETGUARD_EPISODE", "2"),
            ("NETGUARD_UNIT", "network.service"),
            ("OBJECT_SYSTEMD_UNIT", "network.service"),
            ("NETGUARD_COUNT", "3001"),
        ])
    );
}

#[test]
fn what_is_not_the_same_in_all_of_a_flood_is_various() {
    let various = Drift {
        new: None,
        old: None,
        ..flood()
    };
    let fields = check(
        &Record::DriftObserved(various.clone()),
        Priority::Warning,
        "drift observed: net.ipv4.conf.cali*.rp_filter is various, must be 1 \
         (detected by netconf, fanotify and sweep, written by sysctl[4711], during network.service, 3001 times on 3000 keys \
         from net.ipv4.conf.cali0.rp_filter to net.ipv4.conf.cali2999.rp_filter)",
    );
    assert!(!fields.iter().any(|(name, _)| *name == "NEWVALUE"));
    check(
        &Record::RestoreFailed(various, Failure::Refused(Errno(30).into())),
        Priority::Error,
        "restore failed: net.ipv4.conf.cali*.rp_filter is various, must be 1 \
         (detected by netconf, fanotify and sweep, written by sysctl[4711], during network.service, 3001 times on 3000 keys \
         from net.ipv4.conf.cali0.rp_filter to net.ipv4.conf.cali2999.rp_filter): writing 1 failed: \
         /proc/sys is mounted read-only here; run netguard where \
         it is writable",
    );
}

#[test]
fn the_outages_since_the_boot() {
    let outage = |count, wrong, longest| Outage {
        count,
        duration: Duration::from_micros(wrong),
        longest: Duration::from_micros(longest),
        ..Outage::default()
    };
    let outages = Outages {
        total: Outage {
            unknown: 1,
            ..outage(3003, 12_132, 66)
        },
        worst: vec![
            (
                "net.ipv4.conf.cali*.rp_filter".into(),
                Outage {
                    unknown: 1,
                    ..outage(3000, 12_000, 12)
                },
            ),
            ("net.ipv4.ip_forward".into(), outage(3, 132, 66)),
        ],
    };
    for (record, kind) in [
        (
            Record::Started(tally(), outages.clone(), Vec::new()),
            "started",
        ),
        (Record::Stopped(tally(), outages), "stopped"),
    ] {
        let fields = check(
            &record,
            Priority::Info,
            &format!(
                "{kind}: 211 of 214 values OK, 1 drifted, 2 pending, 20 invariants, \
                 3 drifts restored; 3003 outages since boot, \
                 1 of unknown duration, at least 12.1 ms total, longest 66 us"
            ),
        );
        assert_eq!(
            fields[fields.len() - 6..],
            expect(&[
                ("NETGUARD_OUTAGES", "3003"),
                ("NETGUARD_OUTAGES_UNKNOWN", "1"),
                ("NETGUARD_TOTAL_USEC", "12132"),
                ("NETGUARD_LONGEST_USEC", "66"),
                (
                    "NETGUARD_OUTAGE",
                    "net.ipv4.conf.cali*.rp_filter count=3000 total_usec=12000 longest_usec=12 unknown=1"
                ),
                (
                    "NETGUARD_OUTAGE",
                    "net.ipv4.ip_forward count=3 total_usec=132 longest_usec=66"
                ),
            ])
        );
    }
}

#[test]
fn an_unknown_writer_is_reported_with_the_reason() {
    let pid = 4711;
    for (unknown, own_pid, said) in [
        (
            Unknown::NotDetected,
            None,
            "written through another procfs or not by a file write",
        ),
        (
            Unknown::NotReported,
            None,
            "no file write was reported in time",
        ),
        (
            Unknown::Recreated,
            None,
            "the key was recreated by the kernel with its default",
        ),
        (
            Unknown::NotWatching,
            None,
            "fanotify does not detect writes here",
        ),
        (
            Unknown::Outside,
            None,
            "a process outside this pid namespace",
        ),
        (
            Unknown::Port {
                port: 4_026_531_841,
                candidates: Arc::default(),
            },
            None,
            "netlink port 4026531841 whose process is not certain",
        ),
        (
            Unknown::Gone { pid },
            Some("4711"),
            "process 4711 exited before it was examined",
        ),
        (
            Unknown::PassedOver { pid },
            Some("4711"),
            "process 4711 exited unidentified at the exec rate limit",
        ),
        (Unknown::Later { pid }, None, "process 4711 wrote later"),
        (
            Unknown::Examined {
                pid,
                candidate: Arc::new(Process {
                    comm: "a (b), \"c\"\n".to_owned(),
                    ..sysctl()
                }),
            },
            Some("4711"),
            "process 4711 running a ?b?? ?c?? when examined",
        ),
        (
            Unknown::Unclear {
                pid,
                candidates: Arc::default(),
            },
            None,
            "process 4711 called exec or ended during the write",
        ),
        (
            Unknown::Several { pids: [1, 2] },
            None,
            "process 1 or 2 as both wrote at that moment",
        ),
        (Unknown::Various, None, "several writers"),
        (
            Unknown::Unanswered { pid },
            Some("4711"),
            "process 4711 was not identified in time",
        ),
    ] {
        let drift = Drift {
            writer: Attribution::Unknown(unknown),
            ..drift()
        };
        let message = format!(
            "drift restored: net.ipv4.ip_forward was 0, is 1 again after 31 us \
             (detected by netconf, writer unknown: {said})"
        );
        let fields = check(&Record::DriftRestored(drift), Priority::Notice, &message);
        assert!(fields.contains(&("NETGUARD_WRITER_UNKNOWN", said.to_owned())));
        let told = fields.iter().find(|(name, _)| *name == "OBJECT_PID");
        assert_eq!(told.map(|(_, pid)| pid.as_str()), own_pid, "{said}");
    }
}

#[test]
fn of_a_writer_that_is_one_of_two_is_reported_what_both_share() {
    let process = |cmdline: &str, unit: &str, started| Process {
        comm: "sh".to_owned(),
        cmdline: cmdline.to_owned(),
        cgroup: Some(format!("/system.slice/{unit}")),
        unit: Some(unit.to_owned()),
        started: Some(started),
        ..sysctl()
    };
    let network = |cmdline: &str| process(cmdline, "network.service", 1);
    let commands = ["/bin/sh ifup eth0", "sysctl -w a=0"];
    for (second, pid, unit) in [
        (network(commands[1]), Some("4711"), Some("network.service")),
        (process(commands[1], "a.service", 1), Some("4711"), None),
        (process(commands[1], "a.service", 2), None, None),
    ] {
        let candidates = Arc::new([network(commands[0]), second]);
        let writer = Unknown::Unclear {
            pid: 4711,
            candidates,
        };
        let drift = Drift {
            writer: Attribution::Unknown(writer),
            ..drift()
        };
        let fields = check(
            &Record::DriftRestored(drift),
            Priority::Notice,
            "drift restored: net.ipv4.ip_forward was 0, is 1 again after 31 us (detected by netconf, \
             writer unknown: process 4711 called exec or ended during the write)",
        );
        let all = |wanted: &str| {
            let these = fields.iter().filter(|(name, _)| *name == wanted);
            these.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(all("NETGUARD_WRITER_CANDIDATE"), commands);
        assert_eq!(all("OBJECT_PID"), Vec::from_iter(pid));
        assert_eq!(all("NETGUARD_WRITER_UNIT"), Vec::from_iter(unit));
        assert_eq!(all("OBJECT_CMDLINE"), [""; 0]);
    }
}

#[test]
fn of_a_value_that_was_so_at_first_no_writer_is_spoken_of() {
    let drift = Drift {
        old: None,
        source: Source::Start,
        writer: Attribution::Unknown(Unknown::Initial),
        ..drift()
    };
    let fields = check(
        &Record::DriftRestored(drift),
        Priority::Notice,
        "drift restored: net.ipv4.ip_forward was 0, is 1 after 31 us (found at startup)",
    );
    let said = "already set when netguard started".to_owned();
    assert!(fields.contains(&("NETGUARD_WRITER_UNKNOWN", said)));
}

/// Another value than before may be allowed, too.
#[test]
fn what_is_not_as_before_is_not_so_again() {
    let drift = Drift {
        required: "0 or 1".to_owned(),
        new: Some(Value::new("2").into()),
        ours: Some(Value::new("0").into()),
        ..drift()
    };
    check(
        &Record::DriftRestored(drift),
        Priority::Notice,
        "drift restored: net.ipv4.ip_forward was 2, is 0 after 31 us (detected by netconf, \
         written by sysctl[4711])",
    );
}

#[test]
fn an_accepted_removal() {
    let route = |key: &str| Drift {
        key: Resource::parse(key).expect("a resource"),
        old: State::parse("via 192.0.2.1 dev eth0"),
        new: Some(State::Absent),
        ours: None,
        took: None,
        wrote_after: None,
        ..drift()
    };
    let default = "route/main/0.0.0.0/0";
    let during = Drift {
        episode: Some(EpisodeId(7)),
        units: vec!["network.service".to_owned()],
        ..route(default)
    };
    for (drift, how, why) in [
        (route(default), "", "no network restart was in progress"),
        (
            during,
            ", during network.service",
            "the network restart did not remove it",
        ),
    ] {
        check(
            &Record::RemovalAccepted(drift),
            Priority::Info,
            &format!(
                "removal accepted: {default} was via 192.0.2.1 dev eth0, is absent (detected by \
                 netconf, written by sysctl[4711]{how}): not restored, as {why}"
            ),
        );
    }
}

#[test]
fn a_link_that_is_gone() {
    let drift = Drift {
        key: Resource::parse("link/flannel.1").expect("a link"),
        old: State::parse("up true"),
        new: Some(State::Absent),
        ours: None,
        required: "up true".to_owned(),
        source: Source::Rtnetlink,
        writer: Attribution::Unknown(Unknown::Unnamed),
        took: None,
        ..drift()
    };
    check(
        &Record::RestoreFailed(drift, Failure::Vanished),
        Priority::Error,
        "restore failed: link/flannel.1 is absent, must be up true (detected by rtnetlink, writer \
         unknown: its notifications name no process): netguard creates no interface; restart the \
         program that creates it",
    );
}

#[test]
fn an_observed_drift() {
    let drift = Drift {
        mode: Mode::Observe,
        required: "at least 65536".to_owned(),
        new: Some(Value::new("4096\t131072\t6291456\n").into()),
        took: None,
        ..drift()
    };
    let fields = check(
        &Record::DriftEnded(Drift {
            ours: Some(Value::new("65536").into()),
            took: Some(Duration::from_secs(3)),
            ..drift.clone()
        }),
        Priority::Info,
        "drift ended: net.ipv4.ip_forward was 4096 131072 6291456, is 65536 after 3.0 s (detected by netconf, written by sysctl[4711])",
    );
    assert!(fields.contains(&("NETGUARD_DURATION_USEC", "3000000".to_owned())));
    assert!(
        !fields
            .iter()
            .any(|(name, _)| *name == "NETGUARD_RESTORE_USEC")
    );
    let fields = check(
        &Record::DriftObserved(drift),
        Priority::Warning,
        "drift observed: net.ipv4.ip_forward is 4096 131072 6291456, must be at least 65536 (detected by netconf, written by sysctl[4711])",
    );
    assert!(fields.contains(&("NETGUARD_MODE", "observe".to_owned())));
    assert!(fields.contains(&("NETGUARD_REQUIRED", "at least 65536".to_owned())));
    assert!(
        !fields
            .iter()
            .any(|(name, _)| *name == "NETGUARD_RESTORE_USEC")
    );
}

/// The errors of a kind say what the kernel needs for it, and not what it needs for a sysctl.
#[test]
fn a_refused_resource_says_what_the_kernel_needs() {
    let route = "route/main/10.80.0.0/16";
    for (key, target, errno, words) in [
        (route, "via 10.39.0.9", 101, "the gateway is not reachable"),
        (
            route,
            "via 10.39.0.9",
            22,
            "the gateway must be another host's address",
        ),
        (
            route,
            "dev eth0 src 10.0.0.9",
            99,
            "src is not an address of this host",
        ),
        (route, "dev eth0", 1, "operation not permitted"),
        (
            route,
            "absent",
            1,
            "removing it failed: operation not permitted",
        ),
        (
            "address/eth0/2001:db8::1/64",
            "present",
            13,
            "IPv6 is disabled on the interface",
        ),
        (
            "address/eth0/10.0.0.1/24",
            "broadcast 10.0.0.9",
            22,
            "broadcast",
        ),
        (
            "neighbour/wg0/10.0.0.1",
            "lladdr 46:2a:0d:29:d1:eb",
            22,
            "no neighbours",
        ),
        (
            "fdb/eth0/46:2a:0d:29:d1:eb",
            "dst 10.0.0.1",
            95,
            "a VXLAN interface",
        ),
        ("rule/ipv4/100/goto=90", "present", 22, "a later rule"),
        ("link/eth0", "mtu 99999", 22, "`ip -d link` shows"),
        (
            "unit/kubelet.service",
            "active",
            71,
            "(Assert*=); see `systemctl status kubelet",
        ),
        (
            "unit/kubelet.service",
            "active",
            95,
            "does not support units of this type",
        ),
        ("unit/kubelet.service", "active", 13, "run netguard as root"),
        (
            "module/vxlan",
            "loaded",
            5,
            "see `journalctl -u netguard-modprobe-vxlan`",
        ),
        ("module/vxlan", "loaded", 104, "systemd cannot be reached"),
    ] {
        let drift = Drift {
            key: Resource::parse(key).expect(key),
            ours: State::parse(target),
            ..drift()
        };
        let text = message::error(&drift, &Failure::Refused(Errno(errno).into()));
        assert!(text.contains(words), "{key}: {text}");
        assert!(!text.contains("this key"), "{key}: {text}");
    }
}

#[test]
fn a_restored_resource_shows_what_differed() {
    let restored = |was: &str, is: &str| {
        let drift = Drift {
            key: Resource::parse("link/eth0").expect("a link"),
            new: State::parse(was),
            ours: State::parse(is),
            ..drift()
        };
        Entry::of(&Record::DriftRestored(drift), TIME).message
    };
    for (was, is, said) in [
        (
            "up true mtu 1400",
            "up true mtu 1500",
            "link/eth0 was mtu 1400, is mtu 1500 ",
        ),
        (
            "up true",
            "up true mtu 1500",
            "link/eth0 was up true, is up true mtu 1500 ",
        ),
        ("absent", "up true", "link/eth0 was absent, is up true "),
        (
            "no members",
            "members 10.39.0.0/16",
            "link/eth0 was no members, is members 10.39.0.0/16 ",
        ),
    ] {
        let message = restored(was, is);
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn a_failed_restore_says_what_was_tried_and_what_to_do() {
    const READ: i32 = 13; // EACCES
    let denied = format!(
        "reading it failed: permission denied: {}",
        denial(&Capability::OF_KEYS)
    );
    let start = "restore failed: net.ipv4.ip_forward is 0, must be 1 (detected by netconf, written by sysctl[4711]): ";
    for (failure, error) in [
        (
            Failure::Refused(Errno(30).into()),
            "writing 1 failed: /proc/sys is mounted read-only here; \
             run netguard where it is writable",
        ),
        (
            Failure::Refused(Errno(22).into()),
            "writing 1 failed: the kernel does not accept this value for \
             this key; correct the requirement",
        ),
        (Failure::Unreadable(Errno(READ).into()), &denied),
        (
            Failure::Refused(Errno(2).into()),
            "writing 1 failed: the kernel has nothing of this \
             name; correct the value, or load the module that provides it",
        ),
        (
            Failure::Refused(Errno(4095).into()),
            "writing 1 failed: unknown error 4095",
        ),
        (
            Failure::Normalised {
                wrote: Value::new("5").into(),
                reads: Value::new("4").into(),
            },
            "wrote 5, reads 4: the kernel stores another value than was written; require the value \
             that it stores",
        ),
        (
            Failure::Various,
            "for several reasons; see `netguard check`",
        ),
        (
            Failure::Unsuited,
            "the value has another format than the required one, so nothing was written; correct \
             the requirement",
        ),
    ] {
        let record = Record::RestoreFailed(drift(), failure);
        let fields = check(&record, Priority::Error, &format!("{start}{error}"));
        assert_eq!(fields.last(), Some(&("NETGUARD_ERROR", error.to_owned())));
    }
    let unreadable = Drift {
        new: None,
        ours: None,
        writer: Attribution::Unknown(Unknown::Unread),
        ..drift()
    };
    let record = Record::RestoreFailed(unreadable, Failure::Unreadable(Errno(5).into()));
    let fields = check(
        &record,
        Priority::Error,
        "restore failed: net.ipv4.ip_forward is unreadable, must be 1 (detected by netconf): \
         reading it failed: input/output error",
    );
    assert!(!fields.iter().any(|(name, _)| *name == "NEWVALUE"));
}

#[test]
fn units_and_modules() {
    let resource = |text: &str| Resource::parse(text).expect(text);
    let state = |text: &str| State::parse(text).expect(text);
    let of = |key: &str, found: &str, required: &str| Drift {
        key: resource(key),
        old: Some(state(required)),
        new: Some(state(found)),
        ours: Some(state(required)),
        required: required.to_owned(),
        source: Source::Systemd,
        writer: Attribution::Unknown(Unknown::Unreported),
        selector: key.into(),
        ..drift()
    };
    let unit = || of("unit/calico-node.service", "failed", "active");
    let fields = check(
        &Record::DriftRestored(unit()),
        Priority::Notice,
        "drift restored: unit/calico-node.service was failed, is active again after 31 us (detected by \
         systemd, writer unknown: no notification names it)",
    );
    for field in [
        ("NETGUARD_RESOURCE", "unit/calico-node.service"),
        ("OBJECT_SYSTEMD_UNIT", "calico-node.service"),
        ("NETGUARD_KIND", "unit"),
        ("NEWVALUE", "failed"),
    ] {
        let (name, value) = field;
        assert!(fields.contains(&(name, value.to_owned())), "{fields:?}");
    }
    let start = "restore failed: unit/calico-node.service is failed, must be active (detected by systemd, \
         writer unknown: no notification names it): ";
    for (errno, error) in [
        (
            5,
            "it failed to start; see `systemctl status calico-node.service`",
        ),
        (
            132,
            "the unit is masked; to allow its start run `systemctl unmask calico-node.service`",
        ),
        (107, "it was not started: systemd cannot be reached"),
        (95, "this system does not support units of this type"),
    ] {
        let record = Record::RestoreFailed(unit(), Failure::Refused(Errno(errno).into()));
        check(&record, Priority::Error, &format!("{start}{error}"));
    }
    let record = Record::RestoreFailed(
        of("module/br_netfilter", "absent", "loaded"),
        Failure::Refused(Errno(5).into()),
    );
    check(
        &record,
        Priority::Error,
        "restore failed: module/br_netfilter is absent, must be loaded (detected by systemd, writer \
         unknown: no notification names it): modprobe failed; see `journalctl -u \
         netguard-modprobe-br_netfilter`",
    );
    let masked = of("unit/calico-node.service", "inactive load masked", "active");
    check(
        &Record::DriftObserved(masked),
        Priority::Warning,
        "drift observed: unit/calico-node.service is inactive load masked, must be active (detected \
         by systemd, writer unknown: no notification names it)",
    );
}

#[test]
fn a_contended_value() {
    let drift = Drift {
        count: 1000,
        ..drift()
    };
    check(
        &Record::Contended(drift),
        Priority::Warning,
        "contended: net.ipv4.ip_forward keeps changing to 0, must be 1 (detected by netconf, \
         written by sysctl[4711], 1000 times)",
    );
}

#[test]
fn connections_without_nat() {
    let cleaned = |deleted, fault: Option<&str>| Drift {
        cleaned: Some(Cleaned {
            deleted,
            fault: fault.map(str::to_owned),
        }),
        ..drift()
    };
    let begin = "net.ipv4.ip_forward was 0, is 1";
    let fault = "this kernel has no nfnetlink_conntrack";
    for (drift, text) in [
        (cleaned(0, None), String::new()),
        (
            cleaned(1, None),
            ", 1 connection without NAT deleted".to_owned(),
        ),
        (
            cleaned(0, Some(fault)),
            format!(", connections without NAT not deleted: {fault}"),
        ),
        (
            cleaned(12, Some(fault)),
            format!(", 12 connections without NAT deleted and others not: {fault}"),
        ),
    ] {
        let cleaned = drift.cleaned.clone().expect("it was cleaned");
        let fields = check(
            &Record::DriftRestored(drift.clone()),
            Priority::Notice,
            &format!(
                "drift restored: {begin} again after 31 us \
                 (detected by netconf, written by sysctl[4711]{text})"
            ),
        );
        let field = |name| {
            let field = fields.iter().find(|(own, _)| *own == name);
            field.map(|(_, value)| value.clone())
        };
        let deleted = field("NETGUARD_CONNECTIONS_DELETED");
        assert_eq!(deleted, Some(cleaned.deleted.to_string()));
        assert_eq!(field("NETGUARD_CONNECTIONS_ERROR"), cleaned.fault);
        check(
            &Record::ConfigurationApplied(drift),
            Priority::Notice,
            &format!(
                "configuration applied: {begin} \
                 (required by /etc/netguard/netguard.toml:12{text})"
            ),
        );
    }
}

#[test]
fn a_full_table_of_connections() {
    let usage = Usage {
        count: 95,
        max: 100,
    };
    let fields = check(
        &Record::ConntrackNearlyFull(usage),
        Priority::Warning,
        "conntrack nearly full: 95 of 100 connections (95 %) \
         (new connections are dropped at the maximum)",
    );
    let both = [
        ("NETGUARD_CONNTRACK_COUNT", "95"),
        ("NETGUARD_CONNTRACK_MAX", "100"),
    ];
    assert_eq!(fields, expect(&both));
    let fields = check(
        &Record::ConntrackRecovered(usage, Duration::from_secs(60)),
        Priority::Info,
        "conntrack recovered: 95 of 100 connections (95 %) after 1 min 0 s",
    );
    let lasted = [("NETGUARD_DURATION_USEC", "60000000")];
    assert_eq!(fields, expect(&[&both[..], &lasted].concat()));
}

#[test]
fn sources() {
    let fields = check(
        &Record::SourceUnavailable {
            source: Source::Fanotify,
            reason: "EPERM: Operation not permitted".to_owned(),
        },
        Priority::Warning,
        "source unavailable: fanotify: EPERM: Operation not permitted (continuing with the remaining sources)",
    );
    assert_eq!(
        fields,
        expect(&[
            ("NETGUARD_SOURCE", "fanotify"),
            ("NETGUARD_ERROR", "EPERM: Operation not permitted"),
        ])
    );
    let fields = check(
        &Record::SourceRecovered {
            source: Source::Systemd,
            away: Duration::from_millis(3450),
        },
        Priority::Info,
        "source recovered: systemd after 3.4 s, full rescan done",
    );
    assert_eq!(
        fields,
        expect(&[
            ("NETGUARD_SOURCE", "systemd"),
            ("NETGUARD_DURATION_USEC", "3450000"),
        ])
    );
}

#[test]
fn what_limits_the_guard() {
    let key = SysctlKey::parse("net.ipv4.ip_forward").expect("a key");
    let values = || Affected {
        count: 3,
        of: 214,
        first: key.clone().into(),
    };
    let diagnostics = "error: unknown field `sysctls`\n  --> /etc/netguard/netguard.toml:3:1\n";
    let limitations = [
        (
            Limitation::Blind {
                reason: "/proc/sys is empty".into(),
            },
            Priority::Error,
            "nothing can be guarded: /proc/sys is empty",
        ),
        (
            Limitation::Firewall {
                reason: "nft is not installed".into(),
            },
            Priority::Error,
            "a part of the firewall is not guarded: nft is not installed",
        ),
        (
            Limitation::Unwritable {
                values: values(),
                errno: Errno(30),
            },
            Priority::Error,
            "3 of 214 values cannot be restored: opening net.ipv4.ip_forward for writing failed: \
             /proc/sys is mounted read-only here; run netguard \
             where it is writable",
        ),
        (
            Limitation::Undetected {
                values: values(),
                reason: "no descriptor is left; raise LimitNOFILE".into(),
            },
            Priority::Warning,
            "writes to 3 of 214 values are found only by the periodic scan, \
             first net.ipv4.ip_forward: no descriptor is left; raise LimitNOFILE",
        ),
        (
            Limitation::Unsaved {
                reason: "/run/netguard/lock is locked by flock[812]".into(),
            },
            Priority::Warning,
            "the state is not saved: /run/netguard/lock is locked by flock[812]",
        ),
    ];
    for (limitation, priority, said) in &limitations {
        let record = Record::Degraded(limitation.clone());
        let fields = check(&record, *priority, &format!("degraded: {said}"));
        let kind = limitation.kind().as_str();
        assert_eq!(
            fields,
            expect(&[("NETGUARD_LIMITATION", kind), ("NETGUARD_ERROR", said)])
        );
        let over = Record::Recovered(limitation.kind());
        let entry = Entry::of(&over, TIME);
        check(&over, Priority::Info, &entry.message);
    }
    let last_good = Limitation::LastGood(Arc::new(LastGood {
        saved: TIME,
        diagnostics: diagnostics.to_owned(),
    }));
    let entry = Entry::of(&Record::Degraded(last_good.clone()), TIME);
    let begin = "degraded: running with the last good configuration of 20";
    let end = ": /etc/netguard/netguard.toml:3:1: unknown field `sysctls`";
    assert!(entry.message.starts_with(begin), "{}", entry.message);
    assert!(entry.message.ends_with(end), "{}", entry.message);
    assert_eq!(entry.priority, Priority::Error);
    assert_eq!(one(&entry, "NETGUARD_ERROR"), diagnostics.trim_end());

    // A guard that starts so says so first.
    let all = vec![last_good, limitations[4].0.clone()];
    let entry = Entry::of(&Record::Started(tally(), Outages::default(), all), TIME);
    let begin = "started: degraded: running with the last good configuration of 20";
    assert!(entry.message.starts_with(begin), "{}", entry.message);
    let end = "; the state is not saved; 211 of 214 values OK";
    assert!(entry.message.contains(end), "{}", entry.message);
    assert!(!entry.message.contains("because"), "{}", entry.message);
    assert_eq!(entry.priority, Priority::Error);
    assert_eq!(all_of(&entry), ["last-good", "unsaved"]);
}

fn all_of(entry: &Entry) -> Vec<&str> {
    all(entry, "NETGUARD_LIMITATION")
}

#[test]
fn tallies() {
    let said = "211 of 214 values OK, 1 drifted, 2 pending, 20 invariants, 3 drifts restored";
    let told = expect(&[
        ("NETGUARD_INVARIANTS", "20"),
        ("NETGUARD_VALUES", "214"),
        ("NETGUARD_OK", "211"),
        ("NETGUARD_PENDING", "2"),
        ("NETGUARD_DRIFTED", "1"),
        ("NETGUARD_RESTORED", "3"),
    ]);
    for (record, words) in [
        (
            Record::Started(tally(), Outages::default(), Vec::new()),
            "started",
        ),
        (Record::Stopped(tally(), Outages::default()), "stopped"),
        (
            Record::ConfigurationReloaded(tally()),
            "configuration reloaded",
        ),
    ] {
        let fields = check(&record, Priority::Info, &format!("{words}: {said}"));
        assert_eq!(fields, told);
    }
    let one = Tally {
        invariants: 1,
        values: 1,
        matching: 1,
        restored: 1,
        ..Tally::default()
    };
    check(
        &Record::Started(one, Outages::default(), Vec::new()),
        Priority::Info,
        "started: 1 of 1 value OK, 1 invariant, 1 drift restored",
    );
}

#[test]
fn a_refused_configuration() {
    let diagnostics = "\
warning: this key is set twice
  --> /etc/netguard/netguard.toml:2:1

error: unknown field `sysctls`
  --> /etc/netguard/netguard.toml:3:1
   |
 3 | [sysctls]
   |  ^^^^^^^

error: a range is empty
  --> /etc/netguard/netguard.toml:4:1
";
    let fields = check(
        &Record::ConfigurationRefused {
            diagnostics: diagnostics.to_owned(),
        },
        Priority::Error,
        "configuration refused: /etc/netguard/netguard.toml:3:1: unknown field `sysctls`, \
         and 1 more error (keeping the previous configuration)",
    );
    assert_eq!(
        fields,
        expect(&[("NETGUARD_ERROR", diagnostics.trim_end())])
    );
    check(
        &Record::ConfigurationRefused {
            diagnostics: "\nno such file\n".to_owned(),
        },
        Priority::Error,
        "configuration refused: no such file (keeping the previous configuration)",
    );
}

#[test]
fn a_changed_configuration_is_applied() {
    let applied = Drift {
        writer: Attribution::Unknown(Unknown::Unread),
        ..drift()
    };
    let fields = check(
        &Record::ConfigurationApplied(applied),
        Priority::Notice,
        "configuration applied: net.ipv4.ip_forward was 0, is 1 \
         (required by /etc/netguard/netguard.toml:12)",
    );
    let told = |name| fields.iter().any(|(own, _)| *own == name);
    assert!(told("NETGUARD_ORIGIN") && !told("NETGUARD_WRITER_UNKNOWN"));
    // Of several invariants; the catalog's text has a place for the field.
    let of_several = Drift {
        writer: Attribution::Unknown(Unknown::Unread),
        origin: None,
        ..drift()
    };
    let fields = check(
        &Record::ConfigurationApplied(of_several),
        Priority::Notice,
        "configuration applied: net.ipv4.ip_forward was 0, is 1 (required by various)",
    );
    let origin = fields.iter().find(|(own, _)| *own == "NETGUARD_ORIGIN");
    assert_eq!(origin.map(|(_, value)| value.as_str()), Some("various"));
}

#[test]
fn what_was_so_at_the_first_look_was_so_for_an_unknown_time() {
    let unknown = Drift {
        old: None,
        unknown: true,
        source: Source::Start,
        writer: Attribution::Unknown(Unknown::Initial),
        units: Vec::new(),
        ..drift()
    };
    let fields = check(
        &Record::DriftRestored(unknown),
        Priority::Notice,
        "drift restored: net.ipv4.ip_forward was 0, is 1 \
         (found at startup, drifted for an unknown time)",
    );
    assert!(fields.contains(&("NETGUARD_DRIFT_UNKNOWN", "yes".to_owned())));
}

#[test]
fn a_handled_restart() {
    let episode = Episode {
        id: EpisodeId(7),
        causes: vec![
            "network.service".to_owned(),
            "firewalld: Reloaded".to_owned(),
        ],
        units: vec!["network.service".to_owned()],
        result: Some("done".to_owned()),
        inactive: Vec::new(),
        duration: Duration::from_millis(4210),
        drifts: 14,
        restored: 14,
        failed: 0,
        others: Unrestored::default(),
        longest: Some(Duration::from_micros(59)),
        checked_after: Some(Duration::from_secs(2)),
        verified: true,
        tally: tally(),
    };
    let fields = check(
        &Record::RestartHandled(episode.clone()),
        Priority::Notice,
        "restart handled: network.service and firewalld: Reloaded took 4.2 s: 14 drifts, \
         14 restored, longest 59 us; 211 of 214 values OK, checked 2.0 s later (job done)",
    );
    assert_eq!(
        fields,
        expect(&[
            ("NETGUARD_EPISODE", "7"),
            ("NETGUARD_CAUSE", "network.service"),
            ("NETGUARD_CAUSE", "firewalld: Reloaded"),
            ("NETGUARD_UNIT", "network.service"),
            ("OBJECT_SYSTEMD_UNIT", "network.service"),
            ("NETGUARD_JOB_RESULT", "done"),
            ("NETGUARD_DURATION_USEC", "4210000"),
            ("NETGUARD_CHECKED_USEC", "2000000"),
            ("NETGUARD_DRIFTS", "14"),
            ("NETGUARD_RESTORED", "14"),
            ("NETGUARD_FAILED", "0"),
            ("NETGUARD_LONGEST_USEC", "59"),
            ("NETGUARD_VERIFIED", "yes"),
            ("NETGUARD_INVARIANTS", "20"),
            ("NETGUARD_VALUES", "214"),
            ("NETGUARD_OK", "211"),
            ("NETGUARD_PENDING", "2"),
            ("NETGUARD_DRIFTED", "1"),
        ])
    );
    let failed = Episode {
        drifts: 1,
        restored: 0,
        failed: 1,
        longest: None,
        result: None,
        ..episode.clone()
    };
    check(
        &Record::RestartHandled(failed),
        Priority::Warning,
        "restart handled: network.service and firewalld: Reloaded took 4.2 s: 1 drift, \
         1 failed; 211 of 214 values OK, checked 2.0 s later",
    );
    let others = Unrestored {
        observed: 1,
        pending: 2,
        contended: 3,
        over: 4,
    };
    let unrestored = Episode {
        others,
        restored: 4,
        longest: None,
        result: None,
        ..episode.clone()
    };
    check(
        &Record::RestartHandled(unrestored),
        Priority::Notice,
        "restart handled: network.service and firewalld: Reloaded took 4.2 s: 14 drifts, \
         4 restored, 1 in observe mode, 2 pending, 3 contended, 4 over without netguard; \
         211 of 214 values OK, checked 2.0 s later",
    );
    let inactive = |state: &str| vec![("network.service".to_owned(), state.to_owned())];
    let stopped = Episode {
        inactive: inactive("inactive"),
        ..episode.clone()
    };
    check(
        &Record::RestartHandled(stopped),
        Priority::Notice,
        "restart handled: network.service and firewalld: Reloaded took 4.2 s: 14 drifts, \
         14 restored, longest 59 us; 211 of 214 values OK, checked 2.0 s later \
         (job done, network.service is inactive)",
    );
    let not_started = Episode {
        inactive: inactive("failed"),
        result: Some("failed".to_owned()),
        ..episode.clone()
    };
    check(
        &Record::RestartHandled(not_started),
        Priority::Warning,
        "restart handled: network.service and firewalld: Reloaded took 4.2 s: 14 drifts, \
         14 restored, longest 59 us; 211 of 214 values OK, checked 2.0 s later \
         (job failed, network.service is failed: see journalctl -u network.service)",
    );
    let overtaken = Episode {
        checked_after: None,
        verified: false,
        ..episode
    };
    let fields = check(
        &Record::RestartHandled(overtaken),
        Priority::Notice,
        "restart handled: network.service and firewalld: Reloaded took 4.2 s: 14 drifts, \
         14 restored, longest 59 us; 211 of 214 values OK, final check skipped (job done)",
    );
    assert!(fields.contains(&("NETGUARD_VERIFIED", "no".to_owned())));
}

fn conflict() -> Conflict {
    let place = |file: &str, line| Origin {
        file: Arc::new(PathBuf::from(file)),
        line,
    };
    Conflict {
        guarded: Selector::parse("net.ipv4.ip_forward").expect("a key"),
        required: "1".to_owned(),
        origin: place("/etc/netguard/netguard.toml", 12),
        key: Selector::parse("net.ipv4.ip_forward").expect("a key"),
        value: Value::new("0"),
        place: place("/etc/sysctl.d/90-cis.conf", 3),
        reach: Reach::Sets,
        applied: vec![
            Application {
                by: Applier::Boot,
                overridden: None,
            },
            Application {
                by: Applier::Tuned,
                overridden: Some(place("/etc/sysctl.conf", 1)),
            },
            Application {
                by: Applier::NetworkRestart,
                overridden: None,
            },
        ],
    }
}

#[test]
fn a_conflict_that_is_found_and_resolved() {
    let told = expect(&[
        ("SYSCTL", "/proc/sys/net/ipv4/ip_forward"),
        ("NETGUARD_KIND", "sysctl"),
        ("NETGUARD_KEY", "net.ipv4.ip_forward"),
        ("NETGUARD_REQUIRED", "1"),
        ("NETGUARD_ORIGIN", "/etc/netguard/netguard.toml:12"),
        ("NETGUARD_CONFLICT_FILE", "/etc/sysctl.d/90-cis.conf"),
        ("NETGUARD_CONFLICT_LINE", "3"),
        ("NETGUARD_CONFLICT_KEY", "net.ipv4.ip_forward"),
        ("NETGUARD_CONFLICT_VALUE", "0"),
        ("NETGUARD_REACH", "sets"),
        ("NETGUARD_APPLIED", "boot"),
        ("NETGUARD_APPLIED", "network-restart"),
    ]);
    let fields = check(
        &Record::ConflictFound(Box::new(conflict())),
        Priority::Warning,
        "conflict found: net.ipv4.ip_forward must be 1, /etc/sysctl.d/90-cis.conf:3 sets \
         net.ipv4.ip_forward to 0 (applied at boot by systemd-sysctl and at a restart of network.service)",
    );
    assert_eq!(fields, told);
    let mut fields = check(
        &Record::ConflictResolved(
            Box::new(conflict()),
            Resolution::Overridden(Origin {
                file: Arc::new(PathBuf::from("/etc/sysctl.d/99-z.conf")),
                line: 3,
            }),
        ),
        Priority::Info,
        "conflict resolved: net.ipv4.ip_forward must be 1, /etc/sysctl.d/99-z.conf:3 overrides \
         /etc/sysctl.d/90-cis.conf:3, which sets net.ipv4.ip_forward to 0",
    );
    let by = "/etc/sysctl.d/99-z.conf:3".to_owned();
    assert_eq!(fields.pop(), Some(("NETGUARD_OVERRIDDEN_BY", by)));
    check(
        &Record::ConflictResolved(Box::new(conflict()), Resolution::NotRequired),
        Priority::Info,
        "conflict resolved: net.ipv4.ip_forward need no longer be 1, \
         /etc/sysctl.d/90-cis.conf:3 sets net.ipv4.ip_forward to 0",
    );
    check(
        &Record::ConflictResolved(Box::new(conflict()), Resolution::Gone),
        Priority::Info,
        "conflict resolved: net.ipv4.ip_forward must be 1, /etc/sysctl.d/90-cis.conf:3 no longer \
         sets net.ipv4.ip_forward to 0",
    );
    assert_eq!(fields, told);
    let pattern = Conflict {
        guarded: Selector::parse("net.ipv4.conf.cali*.rp_filter").expect("a pattern"),
        ..conflict()
    };
    let entry = Entry::of(&Record::ConflictFound(Box::new(pattern)), TIME);
    assert!(all(&entry, "SYSCTL").is_empty(), "no single file");
}

#[test]
fn many_conflicts() {
    let fields = check(
        &Record::MoreConflictsFound(1),
        Priority::Warning,
        "conflict found: 1 more conflict (netguard conflicts lists them)",
    );
    assert_eq!(fields, expect(&[("NETGUARD_COUNT", "1")]));
    let fields = check(
        &Record::MoreConflictsResolved(30),
        Priority::Info,
        "conflict resolved: 30 more conflicts",
    );
    assert_eq!(fields, expect(&[("NETGUARD_COUNT", "30")]));
}

#[test]
fn a_drift_that_a_file_will_do_again() {
    let drift = Drift {
        again: Some(Origin {
            file: Arc::new(PathBuf::from("/etc/sysctl.d/my file.conf")),
            line: 3,
        }),
        count: 2,
        ..drift()
    };
    let fields = check(
        &Record::DriftRestored(drift),
        Priority::Notice,
        "drift restored: net.ipv4.ip_forward was 0, is 1 again after 31 us (detected by netconf, \
         written by sysctl[4711], \"/etc/sysctl.d/my file.conf\":3 will set it again, 2 times)",
    );
    let place = expect(&[
        ("NETGUARD_CONFLICT_FILE", "/etc/sysctl.d/my file.conf"),
        ("NETGUARD_CONFLICT_LINE", "3"),
    ]);
    assert!(fields.windows(2).any(|it| it == place), "{fields:?}");
}

#[test]
fn dropped_records() {
    let entry = Entry::of_dropped(214, TIME);
    assert_eq!(
        entry.message,
        "records dropped: 214 records (journal too slow)"
    );
    assert_eq!(entry.priority, Priority::Warning);
    assert_eq!(one(&entry, "NETGUARD_COUNT"), "214");
    assert_eq!(kind_of(&entry), Kind::RecordsDropped);
    for count in [1, 214] {
        let message = Entry::of_dropped(count, TIME).message;
        assert!(matches(&pattern(Kind::RecordsDropped), &message));
        assert!(matches(PATTERN, &message));
    }
}

#[test]
fn hostile_text_stays_in_its_place() {
    let evil = "0, is 1 again after 1 us (detected by netconf, written by sysctl[4711])\nPRIORITY=0\n\u{1b}[2J\u{202e}\"\\";
    let drift = Drift {
        new: Some(Value::new(evil).into()),
        ours: Some(Value::new("\\\")").into()),
        required: evil.to_owned(),
        units: vec![evil.to_owned()],
        reason: Some(evil.to_owned()),
        writer: Attribution::Known(Arc::new(Process {
            comm: evil.to_owned(),
            cmdline: evil.to_owned(),
            unit: Some(evil.to_owned()),
            ..sysctl()
        })),
        ..drift()
    };
    let episode = Episode {
        id: EpisodeId(1),
        inactive: vec![(evil.to_owned(), evil.to_owned())],
        causes: vec![evil.to_owned()],
        units: vec![evil.to_owned()],
        result: Some(evil.to_owned()),
        duration: Duration::ZERO,
        drifts: 0,
        restored: 0,
        failed: 0,
        others: Unrestored::default(),
        longest: None,
        checked_after: Some(Duration::from_secs(2)),
        verified: true,
        tally: tally(),
    };
    let evil_conflict = Conflict {
        required: evil.to_owned(),
        value: Value::new(evil),
        place: Origin {
            file: Arc::new(PathBuf::from(evil)),
            line: 3,
        },
        ..conflict()
    };
    for record in [
        Record::DriftRestored(drift.clone()),
        Record::DriftObserved(drift.clone()),
        Record::RestoreFailed(drift.clone(), Failure::Refused(Errno(22).into())),
        Record::Contended(drift),
        Record::SourceUnavailable {
            source: Source::Systemd,
            reason: evil.to_owned(),
        },
        Record::ConfigurationRefused {
            diagnostics: evil.to_owned(),
        },
        Record::RestartHandled(episode),
        Record::ConflictFound(Box::new(evil_conflict.clone())),
        Record::ConflictResolved(Box::new(evil_conflict), Resolution::Gone),
    ] {
        let entry = Entry::of(&record, TIME);
        let message = &entry.message;
        assert!(!message.contains(char::is_control), "{message:?}");
        assert!(!message.contains('\u{202e}'), "{message:?}");
        let grammar = pattern(kind_of(&entry));
        assert!(matches(&grammar, message), "{message}\n{grammar}");
        check_pattern(&entry);
    }
}

#[test]
fn no_entry_is_too_long_for_a_datagram() {
    let long = "x".repeat(1 << 20);
    let drift = Drift {
        old: Some(Value::new(&long).into()),
        new: Some(Value::new(&long).into()),
        ours: Some(Value::new(&long).into()),
        required: long.clone(),
        reason: Some(long.clone()),
        units: vec![long.clone(); 1000],
        ..drift()
    };
    let failure = Failure::Normalised {
        wrote: Value::new(&long).into(),
        reads: Value::new(&long).into(),
    };
    let entry = Entry::of(&Record::RestoreFailed(drift, failure), TIME);
    let fields = entry.fields.iter();
    let size: usize = fields
        .map(|(name, value)| name.len() + value.len() + 10)
        .sum();
    assert!(size < 100_000, "{size}");
    assert!(entry.message.len() < 8_192, "{}", entry.message.len());
}
