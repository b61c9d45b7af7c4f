//! `netguard status`: how things stand, as the daemon last wrote it down.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::ArgMatches;
use serde::Serialize;

use super::load::request;
use super::{exit, print};
use crate::clock;
use crate::effects::state::{self, Asked, Contents, Currency, Holder, OutageState};
use crate::effects::words::{Count, Span};

/// Where nobody says how wide it is to be, and the narrowest that is of use.
const WIDTH: usize = 80;
const NARROWEST: usize = 60;
/// The columns beside the first.
const COLUMNS: [(&str, usize); 5] = [
    ("OUTAGES", 8),
    ("NOW", 6),
    ("IN ALL", 12),
    ("LONGEST", 12),
    ("LAST AGO", 12),
];

/// Prints what the state file says.
///
/// # Errors
/// The exit code, where the file cannot be read or makes no sense.
pub fn run(matches: &ArgMatches) -> Result<u8, u8> {
    let root = request(matches).root;
    if matches.get_flag("brief") {
        return Ok(brief(&root));
    }
    let asked = state::ask(&root).map_err(|trouble| {
        print::note(&format!("netguard: {trouble}\n"));
        exit::TROUBLE
    })?;
    let json = matches.get_flag("json");
    let (contents, currency) = match asked {
        Asked::State(contents, currency) => (contents, currency),
        Asked::Unsaved(holder) => {
            let text = format!(
                "{}, but cannot save its state: `journalctl -u netguard` says why\n",
                another(holder.as_ref())
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
            let nothing = "netguard does not run, and has not run since the boot\n\
                 (or was started without systemd, which makes /run/netguard).\n\
                 Start it with `systemctl enable --now netguard`; `netguard check` looks once.\n";
            return Ok(match json {
                true => print::json(&Report::default(), exit::TROUBLE),
                false => print::result(nothing, exit::TROUBLE),
            });
        }
    };
    let code = verdict(&contents, &currency);
    if json {
        let report = Report {
            running: currency.is_running(),
            current: currency == Currency::Current,
            state: Some(&*contents),
        };
        return Ok(print::json(&report, code));
    }
    let text = text(&contents, &currency, clock::realtime_usec(), width());
    Ok(print::result(&text, code))
}

/// Whether the daemon runs, on one line: for a monitor, to which exit code 1 says
/// that it does not.
fn brief(root: &Path) -> u8 {
    match state::running(root) {
        Some(Holder { pid, .. }) => {
            print::result(&format!("netguard runs (pid {pid})\n"), exit::OK)
        }
        None => print::result(
            "netguard does not run: nothing restores drift\n",
            exit::DRIFT,
        ),
    }
}

/// What `--json` prints.
#[derive(Default, Serialize)]
struct Report<'a> {
    /// Whether the guard that wrote the state runs.
    running: bool,
    /// Whether the state is how things stand now.
    current: bool,
    #[serde(flatten)]
    state: Option<&'a Contents>,
}

fn verdict(contents: &Contents, currency: &Currency) -> u8 {
    let severe = contents.degraded.iter().any(|it| it.severe);
    match (currency, contents.values.wrong) {
        (Currency::Current, 0) if !severe => exit::OK,
        (Currency::Current, _) if !severe => exit::DRIFT,
        _ => exit::TROUBLE,
    }
}

/// A guard that saved nothing, by its number where that is known.
fn another(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, name, .. }) => format!("netguard runs ({name}, pid {pid})"),
        None => "netguard runs".to_owned(),
    }
}

/// The terminal's width.
fn width() -> usize {
    let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    width.unwrap_or(WIDTH).max(NARROWEST)
}

/// How things stand at `now` (`CLOCK_REALTIME` in microseconds), for people.
fn text(state: &Contents, currency: &Currency, now: u64, width: usize) -> String {
    let ago = |at: u64| Span(Duration::from_micros(now.saturating_sub(at)));
    let mut text = String::new();
    let _ = match currency {
        Currency::Current => writeln!(
            text,
            "netguard runs for {} (pid {})",
            ago(state.started_usec),
            state.pid
        ),
        Currency::Ended => writeln!(
            text,
            "netguard does not run; this is how things stood {} ago",
            ago(state.at_usec)
        ),
        Currency::Stale => writeln!(
            text,
            "netguard runs (pid {}), but cannot save its state; last known state ({} ago):",
            state.pid,
            ago(state.at_usec)
        ),
        Currency::OfAnother(holder) => writeln!(
            text,
            "{}, but cannot save its state;\nlast known state of the guard before it ({} ago):",
            another(holder.as_ref()),
            ago(state.at_usec)
        ),
    };
    for degraded in &state.degraded {
        print::paragraph(&mut text, "degraded: ", &degraded.reason, Some(width));
    }
    let values = &state.values;
    let _ = writeln!(
        text,
        "holding {} of {} ({} pending, {} wrong), {}",
        values.holding,
        Count(values.watched as u64, "value"),
        values.pending,
        values.wrong,
        Count(values.invariants as u64, "invariant"),
    );
    if values.contended > 0 {
        let _ = writeln!(text, "{} contended", values.contended);
    }
    if values.failed > 0 {
        let _ = writeln!(text, "{} could not be restored", values.failed);
    }
    let _ = write!(text, "{} restored", Count(state.restored, "drift"));
    if let Some(last) = &state.last {
        let _ = write!(text, ", last {} {} ago", last.key, ago(last.at_usec));
    }
    text.push('\n');
    if !state.lost.is_empty() {
        let _ = writeln!(text, "lost: {}", state.lost.join(", "));
    }
    if let Some(episode) = &state.episode {
        let _ = writeln!(
            text,
            "restarting: {} (episode {}): {}, {} restored, {} failed",
            episode.causes.join(", "),
            episode.id,
            Count(episode.drifts, "drift"),
            episode.restored,
            episode.failed
        );
    }
    text.push('\n');
    if state.outages.is_empty() {
        text.push_str("nothing was wrong since the boot\n");
    } else {
        table(&mut text, state, width, ago);
    }
    text
}

/// The outages of each invariant, the worst first. Where a selector is too long
/// for its column, the figures stand below it.
fn table(text: &mut String, state: &Contents, width: usize, ago: impl Fn(u64) -> Span) {
    let figures: usize = COLUMNS.iter().map(|(_, width)| width).sum();
    let longest = state.outages.keys().map(String::len).max().unwrap_or(0);
    let first = longest.max("INVARIANT".len()).min(width - figures);
    let _ = write!(text, "{:first$}", "INVARIANT");
    for (name, width) in COLUMNS {
        let _ = write!(text, "{name:>width$}");
    }
    text.push('\n');
    let mut rows: Vec<(&String, &OutageState)> = state.outages.iter().collect();
    rows.sort_by_key(|(_, outage)| Reverse(outage.wrong_usec));
    for (selector, outage) in rows {
        if selector.len() > first {
            let _ = writeln!(text, "{selector}");
            let _ = write!(text, "{:first$}", "");
        } else {
            let _ = write!(text, "{selector:first$}");
        }
        let cells = [
            outage.count.to_string(),
            outage.open.to_string(),
            Span(Duration::from_micros(outage.wrong_usec)).to_string(),
            Span(Duration::from_micros(outage.longest_usec)).to_string(),
            ago(outage.last_usec).to_string(),
        ];
        for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
            let _ = write!(text, "{cell:>width$}");
        }
        text.push('\n');
    }
    if state.outages.values().any(|outage| outage.open > 0) {
        text.push_str("what is wrong now adds to the times when it is over\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::state::Degraded;
    use crate::engine::{Memory, Outage, Status, Tally};
    use crate::model::{Source, SysctlKey};

    const NOW: u64 = 1_735_689_599_000_000;

    fn contents() -> Contents {
        let key = SysctlKey::parse("net.ipv4.ip_forward").expect("a key");
        let status = Status {
            tally: Tally {
                invariants: 20,
                values: 214,
                holding: 211,
                pending: 2,
                wrong: 1,
                restored: 3,
            },
            last: Some((key, clock::now())),
            lost: vec![Source::Fanotify],
            failed: 1,
            ..Status::default()
        };
        let outage = Outage {
            count: 3,
            open: 1,
            wrong: Duration::from_millis(59_200),
            longest: Duration::from_micros(66),
            last: clock::now(),
        };
        let mut memory = Memory::default();
        for selector in [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.a-rather-long-name*.accept_source_route",
        ] {
            memory.outages.insert(selector.into(), outage);
        }
        let mut contents = Contents::of(&status, &memory, NOW - 3_600_000_000);
        contents.at_usec = NOW;
        for outage in contents.outages.values_mut() {
            outage.last_usec = NOW - 125_000_000;
        }
        if let Some(last) = &mut contents.last {
            last.at_usec = NOW - 125_000_000;
        }
        contents.pid = 4711;
        contents
    }

    #[test]
    fn it_fits_80_columns() {
        assert_eq!(
            text(&contents(), &Currency::Current, NOW, 80),
            "\
netguard runs for 1 h 0 min (pid 4711)
holding 211 of 214 values (2 pending, 1 wrong), 20 invariants
1 could not be restored
3 drifts restored, last net.ipv4.ip_forward 2 min 5 s ago
lost: fanotify

INVARIANT                      OUTAGES   NOW      IN ALL     LONGEST    LAST AGO
net.ipv4.conf.a-rather-long-name*.accept_source_route
                                     3     1      59.2 s       66 us   2 min 5 s
net.ipv4.ip_forward                  3     1      59.2 s       66 us   2 min 5 s
what is wrong now adds to the times when it is over
"
        );
        let wide = text(&contents(), &Currency::Current, NOW, 120);
        let row = wide.lines().find(|line| line.contains("long-name"));
        assert!(row.expect("a row").ends_with("5 s"), "{wide}");
    }

    #[test]
    fn the_exit_code_says_whether_it_guards_and_all_hold() {
        let mut state = contents();
        assert_eq!(verdict(&state, &Currency::Current), exit::DRIFT);
        assert_eq!(verdict(&state, &Currency::Ended), exit::TROUBLE);
        state.values.wrong = 0;
        assert_eq!(verdict(&state, &Currency::Current), exit::OK);
        for old in [Currency::Stale, Currency::OfAnother(None)] {
            assert_eq!(verdict(&state, &old), exit::TROUBLE);
            let said = text(&state, &old, NOW, 80);
            assert!(said.contains("last known state"), "{said}");
        }
        state.degraded = vec![Degraded {
            kind: "blind".to_owned(),
            severe: true,
            reason: "nothing can be guarded: /proc/sys is empty".to_owned(),
        }];
        assert_eq!(verdict(&state, &Currency::Current), exit::TROUBLE);
        let said = text(&state, &Currency::Current, NOW, 80);
        assert!(
            said.contains("\ndegraded: nothing can be guarded"),
            "{said}"
        );
        state.degraded.clear();
        state.outages.clear();
        let said = text(&state, &Currency::Ended, NOW, 80);
        assert!(said.starts_with("netguard does not run"), "{said}");
        assert!(
            said.ends_with("nothing was wrong since the boot\n"),
            "{said}"
        );
        assert!(said.lines().all(|line| line.len() <= 80), "{said}");
    }
}
