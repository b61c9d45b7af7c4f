//! `netguard status`: the current state, as the daemon last saved it.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::args;
use super::{exit, print};
use crate::clock;
use crate::config::{self, Request};
use crate::journal::errors::first_error;
use crate::journal::message::connections;
use crate::journal::moment::Zone;
use crate::journal::pending;
use crate::service::state::{
    self, Asked, Configuration, Contents, Currency, DriftState, Holder, OutageState, PendingState,
    Why, WhyPending,
};
use crate::words::{self, Count, Drifted, Drifts, Span, must_be, value};

/// The narrowest terminal that the table is made for.
const NARROWEST: usize = 60;
/// The columns beside the first.
const COLUMNS: [(&str, usize); 5] = [
    ("OUTAGES", 8),
    ("ACTIVE", 7),
    ("TOTAL", 12),
    ("LONGEST", 12),
    ("LAST", 16),
];
/// The most drifts that are shown one by one.
const SHOWN: usize = 20;

/// Prints the state file.
///
/// # Errors
/// The exit code, where the file cannot be read or makes no sense.
pub fn run(Request { root, .. }: Request, options: &args::Status) -> Result<u8, u8> {
    if options.brief {
        return Ok(brief(&root));
    }
    let asked = state::ask(&root).map_err(|trouble| {
        print::note(&format!("netguard: {trouble}\n"));
        exit::TROUBLE
    })?;
    let json = options.json.json;
    let (mut contents, currency) = match asked {
        Asked::State(contents, currency) => (contents, currency),
        Asked::Unsaved(holder) => {
            let text = format!(
                "{}, but cannot save its state: see `journalctl -u netguard`\n",
                another(&holder)
            );
            let report = Report {
                running: true,
                ..Report::default()
            };
            return Ok(match json {
                true => print::json(&report, exit::TROUBLE),
                false => print::result(&text, exit::TROUBLE),
            });
        }
        Asked::Nothing => {
            let nothing = "netguard is not running, and has not run since boot\n\
                 (or runs with --no-state, or cannot create /run/netguard).\n\
                 Start it with `systemctl enable --now netguard`; `netguard check` checks once.\n";
            return Ok(match json {
                true => print::json(&Report::default(), exit::TROUBLE),
                false => print::result(nothing, exit::TROUBLE),
            });
        }
    };
    if currency == Currency::Current {
        contents.advance(clock::now());
    }
    let files = match currency.is_running() {
        true => Files::of(&contents.configuration, root),
        false => Files::Unknown,
    };
    let code = verdict(&contents, &currency);
    if json {
        let report = Report {
            running: currency.is_running(),
            current: currency == Currency::Current,
            files_changed: files.changed(),
            files_error: files.error(),
            state: Some(&*contents),
        };
        return Ok(print::json(&report, code));
    }
    let now = clock::realtime_usec();
    let text = text(&contents, &currency, &files, now, print::width());
    Ok(print::result(&text, code))
}

/// Whether the daemon runs, on one line: for a monitor: exit code 1 means
/// that it does not, and 3 that it is not known.
fn brief(root: &Path) -> u8 {
    let (text, code) = match state::running(root) {
        Ok(Some(Holder::Known(it))) => (format!("netguard is running (pid {})", it.pid), exit::OK),
        Ok(Some(Holder::Unknown)) => ("netguard is running".to_owned(), exit::OK),
        Ok(None) => {
            let text = "netguard is not running: drift is not restored";
            (text.to_owned(), exit::DRIFT)
        }
        Err(trouble) => (trouble.to_string(), exit::TROUBLE),
    };
    print::result(&format!("{text}\n"), code)
}

/// What `--json` prints.
#[derive(Default, Serialize)]
struct Report<'a> {
    /// Whether the guard that wrote the state runs.
    running: bool,
    /// Whether the state is current.
    current: bool,
    /// Whether the files ask for something else than what is in force; nothing
    /// where it is unknown.
    files_changed: Option<bool>,
    /// Why the files are rejected, where they are.
    files_error: Option<&'a str>,
    #[serde(flatten)]
    state: Option<&'a Contents>,
}

/// The present files, compared with the configuration in force.
#[derive(Debug)]
enum Files {
    Same,
    /// Something else.
    Changed,
    /// Something that is refused, and why.
    Refused(String),
    /// Not known: the daemon is not running, or does not report what is in force.
    Unknown,
}

impl Files {
    fn of(in_force: &Configuration, root: PathBuf) -> Self {
        if in_force.digest.is_empty() {
            return Files::Unknown;
        }
        let file = in_force.file.clone();
        match config::load(&Request { root, file }) {
            Ok(loaded) if state::digest(&loaded.settings) == in_force.digest => Files::Same,
            Ok(_) => Files::Changed,
            Err(error) => Files::Refused(first_error(&error.to_string())),
        }
    }

    fn changed(&self) -> Option<bool> {
        match self {
            Files::Same => Some(false),
            Files::Changed | Files::Refused(_) => Some(true),
            Files::Unknown => None,
        }
    }

    fn error(&self) -> Option<&str> {
        match self {
            Files::Refused(reason) => Some(reason),
            _ => None,
        }
    }
}

fn verdict(contents: &Contents, currency: &Currency) -> u8 {
    // Until the first scan is done, it is unknown.
    let severe = contents.starting || contents.degraded.iter().any(|it| it.severe);
    let is_full = contents.conntrack_nearly_full.is_some();
    let severe = severe || contents.values.drifted == 0 && contents.values.unreadable > 0;
    match (currency, contents.values.drifted) {
        (Currency::Current, 0) if !severe && !is_full => exit::OK,
        (Currency::Current, _) if !severe => exit::DRIFT,
        _ => exit::TROUBLE,
    }
}

/// A process that saved nothing, by its number where that is known.
fn another(holder: &Holder) -> String {
    match holder {
        Holder::Known(it) => format!("netguard: running ({}, pid {})", it.name, it.pid),
        Holder::Unknown => "netguard: running".to_owned(),
    }
}

/// The status at `now` (`CLOCK_REALTIME` in microseconds), for people.
fn text(
    state: &Contents,
    currency: &Currency,
    files: &Files,
    now: u64,
    width: Option<usize>,
) -> String {
    let span = |from: u64, to: u64| Span(Duration::from_micros(to.saturating_sub(from)));
    let ago = |at: u64| span(at, now);
    let mut text = String::new();
    head(&mut text, state, currency, &ago);
    for degraded in &state.degraded {
        print::paragraph(&mut text, "degraded: ", &degraded.reason, width);
    }
    configuration(&mut text, state, files, &ago, width);
    values(&mut text, state, width);
    if !state.unavailable.is_empty() {
        let _ = writeln!(
            text,
            "event sources unavailable: {}",
            state.unavailable.join(", ")
        );
    }
    under_way(&mut text, state, width);
    if state.drifts.iter().any(|it| it.why != Why::Pending) {
        // Whether it has gone on since is not known.
        let (heading, until) = match currency {
            Currency::Current => ("Active drift", now),
            _ => ("Drift at that time", state.at_usec),
        };
        let _ = writeln!(text, "\n{heading}:");
        drifts(&mut text, state, &|at| span(at, until), width);
    }
    all_pending(&mut text, state, width);
    restored(&mut text, state, &ago, width);
    if state.outages.is_empty() {
        text.push_str(match state.total.count {
            0 => "Since boot: no drift\n",
            _ => "Since boot: no drift of what is guarded now\n",
        });
    } else {
        text.push_str("Since boot:\n");
        table(&mut text, state, currency, width, ago);
    }
    text
}

/// The conntrack table that is nearly full, and the network restart in progress.
fn under_way(text: &mut String, state: &Contents, width: Option<usize>) {
    if let Some(usage) = state.conntrack_nearly_full {
        let usage = connections(usage.into());
        let what = format!("{usage}: `netguard explain conntrack` shows who opened them");
        print::paragraph(text, "conntrack nearly full: ", &what, width);
    }
    if let Some(episode) = &state.episode {
        let drifts = Drifts {
            all: episode.drifts,
            restored: episode.restored,
            failed: episode.failed,
            ..Drifts::default()
        };
        let what = format!("{}: {drifts}", episode.causes.join(", "));
        let heading = format!("network restart {}: ", episode.id.0);
        print::paragraph(text, &heading, &what, width);
    }
}

fn all_pending(text: &mut String, state: &Contents, width: Option<usize>) {
    let is_unreadable =
        |it: &&PendingState| matches!(it.why, WhyPending::Unread | WhyPending::Unreadable);
    let (unreadable, pending): (Vec<_>, Vec<_>) = state.pending.iter().partition(is_unreadable);
    for (heading, items) in [("Unreadable", unreadable), ("Pending", pending)] {
        if !items.is_empty() {
            let _ = writeln!(text, "\n{heading}:");
        }
        for item in items {
            one_pending(text, item, width);
        }
    }
}

fn restored(text: &mut String, state: &Contents, ago: &impl Fn(u64) -> Span, width: Option<usize>) {
    let _ = write!(
        text,
        "\nSince netguard started ({} ago): {} restored",
        ago(state.started_usec),
        Count(state.restored, "drift")
    );
    match &state.last {
        Some(last) => {
            let last = format!("last {} {} ago", last.key, ago(last.at_usec));
            text.push_str(",\n");
            print::paragraph(text, "  ", &last, width);
        }
        None => text.push('\n'),
    }
}

fn head(text: &mut String, state: &Contents, currency: &Currency, ago: &impl Fn(u64) -> Span) {
    let version = match state.program_version.as_str() {
        "" => String::new(),
        version => format!(", version {version}"),
    };
    let pid = state.pid;
    let _ = match currency {
        Currency::Current if state.starting => {
            writeln!(text, "netguard: starting (pid {pid}{version})")
        }
        Currency::Current => writeln!(
            text,
            "netguard: running for {} (pid {pid}{version})",
            ago(state.started_usec)
        ),
        Currency::Ended => writeln!(
            text,
            "netguard: not running; last known state ({} ago):",
            ago(state.at_usec)
        ),
        Currency::Stale => writeln!(
            text,
            "netguard: running (pid {pid}), cannot save its state; last known state ({} ago):",
            ago(state.at_usec)
        ),
        Currency::OfAnother(holder) => writeln!(
            text,
            "{}, cannot save its state;\nlast known state of the previous process ({} ago):",
            another(holder),
            ago(state.at_usec)
        ),
    };
}

fn configuration(
    text: &mut String,
    state: &Contents,
    files: &Files,
    ago: &impl Fn(u64) -> Span,
    width: Option<usize>,
) {
    let loaded = state.configuration.loaded_usec;
    let mut facts = vec![Count(state.values.invariants, "invariant").to_string()];
    if state.values.observe_invariants > 0 {
        facts.push(format!(
            "{} in observe mode",
            state.values.observe_invariants
        ));
    }
    if loaded > 0 {
        facts.push(format!("loaded {} ago", ago(loaded)));
    }
    print::paragraph(text, "configuration: ", &facts.join(", "), width);
    match files {
        Files::Changed => print::paragraph(
            text,
            "  not loaded: ",
            "the files have changed since; `systemctl reload netguard` loads them",
            width,
        ),
        // That is why it is degraded.
        Files::Refused(reason) if state.degraded.iter().any(|it| it.reason.ends_with(reason)) => {}
        Files::Refused(reason) => {
            let what = format!("the files are invalid now: {reason}");
            print::paragraph(text, "  not loaded: ", &what, width);
        }
        Files::Same | Files::Unknown => {}
    }
    let same = |reason: &str| matches!(files, Files::Refused(now) if now == reason);
    if let Some(refused) = &state.refused
        && !same(&refused.reason)
    {
        let what = format!("{} ago: {}", ago(refused.at_usec), refused.reason);
        print::paragraph(text, "  refused ", &what, width);
    }
}

fn values(text: &mut String, state: &Contents, width: Option<usize>) {
    let values = &state.values;
    if state.starting {
        let known = Count(values.watched, "value");
        let _ = writeln!(
            text,
            "the first full scan is in progress ({known} known so far)"
        );
        return;
    }
    if values.watched == 0 && state.degraded.iter().any(|it| it.severe) {
        text.push_str("no value is known\n");
        return;
    }
    let counts = words::Values {
        all: values.watched,
        ok: values.ok,
        drifted: Drifted {
            count: values.drifted,
            observed: values.observed,
            contended: values.contended,
            failed: values.failed,
        },
        pending: values.pending,
        unreadable: values.unreadable,
    };
    print::hanging(text, "", &counts.to_string(), width);
}

/// Active drift: equal ones of an invariant together.
fn drifts(text: &mut String, state: &Contents, ago: &impl Fn(u64) -> Span, width: Option<usize>) {
    let mut groups: Vec<(&DriftState, usize)> = Vec::new();
    for drift in state.drifts.iter().filter(|it| it.why != Why::Pending) {
        let alike = |(first, _): &&mut (&DriftState, usize)| {
            (&first.selector, &first.value, first.why, &first.error)
                == (&drift.selector, &drift.value, drift.why, &drift.error)
        };
        match groups.iter_mut().find(alike) {
            Some((_, count)) => *count += 1,
            None => groups.push((drift, 1)),
        }
    }
    for (drift, count) in groups.iter().take(SHOWN) {
        one_drift(text, drift, count - 1, ago, width);
    }
    let shown: usize = groups.iter().take(SHOWN).map(|(_, count)| count).sum();
    let more = state.drifts.len() - shown + state.drifts_left_out;
    if more > 0 {
        let _ = writeln!(text, "and {more} more: `netguard check` lists them");
    }
}

fn one_drift(
    text: &mut String,
    drift: &DriftState,
    others: usize,
    ago: &impl Fn(u64) -> Span,
    width: Option<usize>,
) {
    let found = drift.value.as_deref().map(words::state);
    let found = found.as_deref().unwrap_or("unreadable");
    let mut what = format!("{} is {found}, {}", drift.key, must_be(&drift.required));
    let _ = match drift.since_usec {
        Some(since) => write!(what, ", for {}", ago(since)),
        None => write!(what, ", for at least {}", ago(drift.found_usec)),
    };
    if others > 0 {
        let others = Count(others, "other key");
        let _ = write!(what, "; and {others} of {}", drift.selector);
    }
    print::hanging(text, "", &what, width);
    let why = match (drift.why, &drift.error) {
        (Why::Observed, _) => "observe mode".to_owned(),
        (Why::Contended, _) => "contended: something keeps writing it".to_owned(),
        (Why::Failed, Some(error)) => format!("could not be restored: {error}"),
        (Why::Failed, None) => "could not be restored".to_owned(),
        (Why::Restoring | Why::Pending, _) => "being restored".to_owned(),
    };
    let writer = match (&drift.writer, &drift.writer_unknown) {
        (Some(writer), _) => {
            let unit = writer.unit.as_deref().map(value);
            let unit = unit.map(|unit| format!(" of {unit}")).unwrap_or_default();
            format!("{}[{}]{unit}", value(&writer.comm), writer.pid)
        }
        (None, Some(why)) => format!("unknown: {why}"),
        (None, None) => "unknown".to_owned(),
    };
    let mut lines = vec![("why", why), ("writer", writer)];
    if let Some(again) = &drift.again {
        lines.push(("again", format!("{again} will set it again")));
    }
    lines.push(("next", drift.next_step.clone()));
    for (name, what) in lines {
        print::paragraph(text, &format!("  {:<8}", format!("{name}:")), &what, width);
    }
}

fn one_pending(text: &mut String, pending: &PendingState, width: Option<usize>) {
    let because = pending::text(&pending.because, pending.until_usec, &Zone::local());
    let module = pending.module.as_ref().filter(|_| pending.value.is_none());
    let module = module.map(|it| format!("; load module {it}"));
    let others = match pending.others {
        0 => String::new(),
        others => format!(
            "; and {} of {}",
            Count(others, "other key"),
            pending.selector
        ),
    };
    let is = match &pending.value {
        Some(found) => format!(
            " is {}, {}",
            words::state(found),
            must_be(&pending.required)
        ),
        None => String::new(),
    };
    let what = format!(
        "{}{is}: {because}{}{others}",
        pending.key,
        module.unwrap_or_default()
    );
    print::hanging(text, "", &what, width);
}

/// The outages of each invariant, the worst first. Where a selector is too long
/// for its column, the figures stand below it.
fn table(
    text: &mut String,
    state: &Contents,
    currency: &Currency,
    width: Option<usize>,
    ago: impl Fn(u64) -> Span,
) {
    let figures: usize = COLUMNS.iter().map(|(_, width)| width).sum();
    let longest = state.outages.keys().map(|it| it.chars().count()).max();
    let first = longest.unwrap_or(0).max("INVARIANT".len());
    let first = width.map_or(first, |width| first.min(width.max(NARROWEST) - figures));
    let _ = write!(text, "{:first$}", "INVARIANT");
    for (name, width) in COLUMNS {
        let _ = write!(text, "{name:>width$}");
    }
    text.push('\n');
    let mut rows: Vec<(&String, &OutageState)> = state.outages.iter().collect();
    rows.sort_by_key(|(_, outage)| Reverse(outage.total_usec));
    for (selector, outage) in rows {
        if selector.chars().count() > first {
            print::paragraph(text, "", selector, width);
            let _ = write!(text, "{:first$}", "");
        } else {
            let _ = write!(text, "{selector:first$}");
        }
        let last = match outage.open {
            0 => format!("{} ago", ago(outage.last_usec)),
            _ if *currency == Currency::Current => "now".to_owned(),
            // Whether it goes on is not known.
            _ => format!("{} ago", ago(state.at_usec)),
        };
        let cells = [
            outage.count.to_string(),
            outage.open.to_string(),
            time(outage, outage.total_usec),
            time(outage, outage.longest_usec),
            last,
        ];
        for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
            let cell = format!("  {cell}");
            let _ = write!(text, "{cell:>width$}");
        }
        text.push('\n');
    }
    if state.outages.values().any(|outage| outage.unknown > 0) {
        text.push_str(
            "unknown, >: had drifted before the first check, so the real time is longer\n",
        );
    }
}

/// A duration of an invariant's outages, which is longer by an unknown time
/// much where one had begun before netguard started.
fn time(outage: &OutageState, usec: u64) -> String {
    let span = Span(Duration::from_micros(usec));
    match outage.unknown {
        0 => span.to_string(),
        unknown if unknown == outage.count && outage.open == 0 => "unknown".to_owned(),
        _ => format!(">{span}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Memory, Outage, Status, Tally};
    use crate::model::{KnownBy, Process, Source, SysctlKey};
    use crate::service::state::{Degraded, RefusedState, Snapshot};

    const NOW: u64 = 1_735_689_599_000_000;

    fn contents() -> Contents {
        let key = SysctlKey::parse("net.ipv4.ip_forward").expect("a key");
        let status = Status {
            tally: Tally {
                invariants: 20,
                values: 214,
                matching: 211,
                pending: 2,
                unreadable: 0,
                drifted: 1,
                restored: 3,
            },
            last: Some((key.into(), clock::now())),
            lost: vec![Source::Fanotify],
            failed: 1,
            observe: 2,
            ..Status::default()
        };
        let outage = Outage {
            count: 3,
            duration: Duration::from_millis(59_200),
            longest: Duration::from_micros(66),
            last: clock::now(),
            ..Outage::default()
        };
        let mut memory = Memory::default();
        for selector in [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.a-rather-long-name*.accept_source_route",
        ] {
            memory.outages.insert(selector.into(), outage);
        }
        let news = Snapshot {
            status,
            memory,
            ..Snapshot::default()
        };
        let mut contents = Contents::of(&news, NOW - 3_600_000_000);
        contents.at_usec = NOW;
        contents.program_version = "1.2.3".to_owned();
        contents.configuration.loaded_usec = NOW - 60_000_000;
        contents.drifts_left_out = 0;
        contents.refused = Some(RefusedState {
            at_usec: NOW - 5_000_000,
            reason: "/etc/netguard/netguard.toml:3:1: unknown field `sysctls`".to_owned(),
        });
        contents.drifts = vec![
            drift("net.ipv4.ip_forward"),
            drift("net.ipv4.conf.eth0.rp_filter"),
        ];
        contents.drifts[1].since_usec = None;
        contents.drifts[1].error = Some("writing 1 failed: read-only file system".to_owned());
        contents.drifts[1].why = Why::Failed;
        contents.drifts[1].writer = None;
        if let Some(forward) = contents.outages.get_mut("net.ipv4.ip_forward") {
            (forward.open, forward.unknown, forward.open_usec) = (1, 1, Some(9));
        }
        for outage in contents.outages.values_mut() {
            outage.last_usec = NOW - 125_000_000;
        }
        if let Some(last) = &mut contents.last {
            last.at_usec = NOW - 125_000_000;
        }
        contents.pid = 4711;
        contents
    }

    fn drift(key: &str) -> DriftState {
        DriftState {
            key: key.to_owned(),
            selector: key.to_owned(),
            origin: "/etc/netguard/netguard.toml:2".to_owned(),
            value: Some("0".to_owned()),
            required: "1".to_owned(),
            since_usec: Some(NOW - 125_000_000),
            found_usec: NOW - 125_000_000,
            source: "netconf".to_owned(),
            why: Why::Observed,
            error: None,
            retry_usec: None,
            writer: Some(Process {
                pid: 812,
                comm: "sysctl".to_owned(),
                cmdline: "sysctl -w net.ipv4.ip_forward=0".to_owned(),
                uid: Some(0),
                login_uid: None,
                cgroup: None,
                unit: Some("network.service".to_owned()),
                user_unit: None,
                started: None,
                parents: Vec::new(),
                known_by: KnownBy::Connector,
            }),
            writer_unknown: None,
            caused_by: None,
            again: Some("/etc/sysctl.conf:4".to_owned()),
            episode: None,
            next_step: "what to do".to_owned(),
        }
    }

    #[test]
    fn it_fits_80_columns() {
        let said = |width| {
            let (state, files) = (contents(), Files::Changed);
            text(&state, &Currency::Current, &files, NOW, width)
        };
        assert_eq!(
            said(Some(80)),
            "\
netguard: running for 1 h 0 min (pid 4711, version 1.2.3)
configuration: 20 invariants, 2 in observe mode, loaded 1 min 0 s ago
  not loaded: the files have changed since; `systemctl reload netguard` loads
              them
  refused 5.0 s ago: /etc/netguard/netguard.toml:3:1: unknown field `sysctls`
211 of 214 values OK, 1 drifted (1 could not be restored), 2 pending
event sources unavailable: fanotify

Active drift:
net.ipv4.ip_forward is 0, must be 1, for 2 min 5 s
  why:    observe mode
  writer: sysctl[812] of network.service
  again:  /etc/sysctl.conf:4 will set it again
  next:   what to do
net.ipv4.conf.eth0.rp_filter is 0, must be 1, for at least 2 min 5 s
  why:    could not be restored: writing 1 failed: read-only file system
  writer: unknown
  again:  /etc/sysctl.conf:4 will set it again
  next:   what to do

Since netguard started (1 h 0 min ago): 3 drifts restored,
  last net.ipv4.ip_forward 2 min 5 s ago
Since boot:
INVARIANT                 OUTAGES ACTIVE       TOTAL     LONGEST            LAST
net.ipv4.conf.a-rather-long-name*.accept_source_route
                                3      0      59.2 s       66 us   2 min 5 s ago
net.ipv4.ip_forward             3      1     >59.2 s      >66 us             now
unknown, >: had drifted before the first check, so the real time is longer
"
        );
        let wide = said(None);
        let row = wide.lines().find(|line| line.contains("long-name"));
        assert!(row.expect("a row").ends_with("5 s ago"), "{wide}");
    }

    #[test]
    fn the_exit_code_covers_the_daemon_and_all_values() {
        let mut state = contents();
        state.starting = true;
        assert_eq!(verdict(&state, &Currency::Current), exit::TROUBLE);
        state.starting = false;
        assert_eq!(verdict(&state, &Currency::Current), exit::DRIFT);
        assert_eq!(verdict(&state, &Currency::Ended), exit::TROUBLE);
        state.values.drifted = 0;
        assert_eq!(verdict(&state, &Currency::Current), exit::OK);
        for old in [Currency::Stale, Currency::OfAnother(Holder::Unknown)] {
            assert_eq!(verdict(&state, &old), exit::TROUBLE);
            let said = text(&state, &old, &Files::Unknown, NOW, Some(80));
            assert!(said.contains("last known state"), "{said}");
            // Whether it has gone on since is not known.
            state.drifts = vec![drift("net.ipv4.ip_forward")];
            let later = text(&state, &old, &Files::Unknown, NOW + 60_000_000, Some(80));
            let line = "net.ipv4.ip_forward is 0, must be 1, for 2 min 5 s\n";
            assert!(later.contains(line), "{later}");
            assert!(later.contains("(1 min 0 s ago)"), "{later}");
        }
        state.degraded = vec![Degraded {
            kind: "blind".to_owned(),
            severe: true,
            reason: "nothing can be guarded: /proc/sys is empty".to_owned(),
        }];
        assert_eq!(verdict(&state, &Currency::Current), exit::TROUBLE);
        let said = text(&state, &Currency::Current, &Files::Same, NOW, Some(80));
        assert!(
            said.contains("\ndegraded: nothing can be guarded"),
            "{said}"
        );
        (state.values.pending, state.values.unreadable) = (1, 1);
        state.degraded.clear();
        let severe = verdict(&state, &Currency::Current);
        assert_eq!(severe, exit::TROUBLE, "what is unreadable may have drifted");
        let said = text(&state, &Currency::Current, &Files::Same, NOW, Some(80));
        let counts = "211 of 214 values OK, 1 pending, 1 unreadable\n";
        assert!(said.contains(counts), "{said}");
        state.values.watched = 0;
        state.degraded = vec![Degraded {
            kind: "firewall".to_owned(),
            severe: true,
            reason: "nft was killed".to_owned(),
        }];
        let said = text(&state, &Currency::Current, &Files::Same, NOW, Some(80));
        assert!(said.contains("\nno value is known\n"), "{said}");
        state.degraded.clear();
        state.outages.clear();
        let said = text(&state, &Currency::Ended, &Files::Unknown, NOW, Some(80));
        assert!(said.starts_with("netguard: not running"), "{said}");
        assert!(said.ends_with("Since boot: no drift\n"), "{said}");
        assert!(said.lines().all(|line| line.len() <= 80), "{said}");
    }
}
