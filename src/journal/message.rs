//! MESSAGE: a record in words, for people and for programs that match it.
//!
//! The grammar is an interface: monitors of the journal match MESSAGE and often
//! nothing else. Every message is one line that begins with the kind's words
//! and a colon, so that one regular expression per kind matches it:
//!
//! ```text
//! started: [degraded: WHAT[; WHAT...]; ]TALLY[; OUTAGES]
//! stopped: TALLY[; OUTAGES]
//! configuration reloaded: TALLY
//! configuration applied: KEY was VALUE, is VALUE (required by FILE:LINE[, CLEANED][, N times[ on N keys from KEY to KEY]])
//! drift restored: KEY was VALUE, is VALUE[ again][ after SPAN] HOW
//! drift observed: KEY is VALUE, must be VALUE HOW
//! drift ended: KEY was VALUE, is VALUE[ again][ after SPAN] HOW
//! removal accepted: KEY was VALUE, is VALUE HOW: not restored, as REASON
//! restore failed: KEY is VALUE, must be VALUE HOW: ERROR
//! contended: KEY keeps changing to VALUE, must be VALUE HOW
//! source unavailable: SOURCE: REASON (continuing with the remaining sources)
//! source recovered: SOURCE after SPAN, full rescan done
//! degraded: REASON
//! recovered: WHAT
//! conntrack nearly full: CONNECTIONS (new connections are dropped at the maximum)
//! conntrack recovered: CONNECTIONS after SPAN
//! configuration refused: [FILE:LINE:COLUMN: ]REASON[, and N more errors] (keeping the previous configuration)
//! restart handled: CAUSES[ took SPAN]: DRIFTS[, longest SPAN];
//!     N of N values OK[, checked SPAN later|, final check skipped]
//!     [ ([job RESULT][, UNIT is STATE[: see journalctl -u UNIT]]...)]
//! conflict found: KEY must be VALUE, FILE:LINE sets KEY to VALUE (applied WHEN[, WHEN...][ and WHEN])
//! conflict found: N more conflicts (netguard conflicts lists them)
//! conflict resolved: KEY must be VALUE, FILE:LINE no longer sets KEY to VALUE
//! conflict resolved: KEY must be VALUE, FILE:LINE overrides FILE:LINE, which sets KEY to VALUE
//! conflict resolved: KEY need no longer be VALUE, FILE:LINE sets KEY to VALUE
//! conflict resolved: N more conflicts
//! records dropped: N records (journal too slow)
//!
//! TALLY  N of N values OK[, N drifted][, N pending][, N unreadable], N invariants, N drifts restored
//! DRIFTS N drifts[, N restored][, N failed][, N in observe mode][, N pending][, N contended]
//!     [, N over without netguard]
//! OUTAGES N outages since boot[, N of unknown duration], [at least ]SPAN total, longest SPAN
//! HOW    (detected by SOURCES|found at startup[, drifted for at most SPAN|for an unknown time][, propagated from KEY][, WRITER]
//!     [, during UNITS][, FILE:LINE will set it again][, CLEANED]
//!     [, N times[ in total][ on N keys from KEY to KEY]])
//! CLEANED N connections without NAT deleted[ and others not: REASON] | connections without NAT not deleted: REASON
//! CONNECTIONS N of N connections (N %)
//! SOURCES SOURCE[, SOURCE...][ and SOURCE]
//! WRITER written by VALUE[PID][ of VALUE][ N times] | writer unknown: REASON
//! WHEN   at boot by systemd-sysctl | by `sysctl --system` | ... as `netguard conflicts` prints it
//! UNITS  VALUE[, VALUE...][ and VALUE | and N more]
//! VALUE  words with spaces between, or "anything else in quotes"
//! SPAN   31 us | 1.2 ms | 3.4 s | 2 min 5 s | 3 h 12 min
//! ```
//!
//! WRITER is the process's name, its number and its unit, and how many of the
//! drifts of the record it wrote, where that is most and not all. The KEY before it is the
//! key that was written, where the kernel carried that over to the one that the
//! record is about. REASON has no comma and no bracket. There is no WRITER where the
//! value was already set when netguard started, or cannot be read.
//!
//! Where one record reports several keys, KEY is the invariant's selector, or
//! of several invariants what these begin with (`net.ipv4.*`), each SPAN is of
//! the longest drift, and a VALUE or FILE:LINE that is not the same in
//! all is `various`.
//!
//! `again` is there where the value was the same when it had last matched; in the first scan that
//! is not known. Singular forms are used for 1: `1 drift`.

use std::fmt::Write as _;

use super::errors::{first_error, why};
use super::fields::Kind;
use super::{limits, network, programs};
use crate::conntrack::Usage;
use crate::engine::{
    Drift, Episode, Errno, Failure, Fault, Outages, Record, Resolution, Several, Tally,
};
use crate::model::{Attribution, Conflict, Origin, Source, Unknown, Value};
use crate::resource::{Attribute, Resource, State};
use crate::words::{Count, Drifts, Span, Values, line, list, must_be, state, value};

/// The one regular expression that every MESSAGE matches from its first to its
/// last character, in POSIX's, Perl's and Go's syntax alike. Its groups are 1 the
/// kind's words, and of a drift 3 the key and 5 the value found; 7 is what follows.
pub const PATTERN: &str =
    r#"([a-z ]+): (([^ ]+) (was|is|keeps changing to) ("([^"\\]|\\.)*"|[^",]+), )?(.+)"#;

/// What `record` is about.
pub(super) fn kind(record: &Record) -> Kind {
    match record {
        Record::Started(..) => Kind::Started,
        Record::Stopped(..) => Kind::Stopped,
        Record::DriftRestored(_) => Kind::DriftRestored,
        Record::ConfigurationApplied(_) => Kind::ConfigurationApplied,
        Record::DriftObserved(_) => Kind::DriftObserved,
        Record::DriftEnded(_) => Kind::DriftEnded,
        Record::RemovalAccepted(_) => Kind::RemovalAccepted,
        Record::RestoreFailed(..) => Kind::RestoreFailed,
        Record::Contended(_) => Kind::Contended,
        Record::SourceUnavailable { .. } => Kind::SourceUnavailable,
        Record::SourceRecovered { .. } => Kind::SourceRecovered,
        Record::Degraded(_) => Kind::Degraded,
        Record::Recovered(_) => Kind::Recovered,
        Record::ConntrackNearlyFull(_) => Kind::ConntrackNearlyFull,
        Record::ConntrackRecovered(..) => Kind::ConntrackRecovered,
        Record::ConfigurationReloaded(_) => Kind::ConfigurationReloaded,
        Record::ConfigurationRefused { .. } => Kind::ConfigurationRefused,
        Record::RestartHandled(_) => Kind::RestartHandled,
        Record::ConflictFound(_) | Record::MoreConflictsFound(_) => Kind::ConflictFound,
        Record::ConflictResolved(..) | Record::MoreConflictsResolved(_) => Kind::ConflictResolved,
    }
}

/// The MESSAGE of `record`: one line.
pub(super) fn message(record: &Record) -> String {
    let body = match record {
        Record::Started(tally, outages, limitations) => {
            let degraded = limits::degraded(limitations).map(|text| format!("{text}; "));
            let degraded = degraded.unwrap_or_default();
            format!("{degraded}{}{}", tally_text(tally), outages_text(outages))
        }
        Record::Stopped(tally, outages) => {
            format!("{}{}", tally_text(tally), outages_text(outages))
        }
        Record::Degraded(limitation) => limits::text(limitation),
        Record::Recovered(kind) => limits::over(*kind).to_owned(),
        Record::ConfigurationReloaded(tally) => tally_text(tally),
        Record::DriftRestored(drift) | Record::DriftEnded(drift) => restored(drift),
        Record::ConfigurationApplied(drift) => applied(drift),
        Record::DriftObserved(drift) => {
            format!(
                "{} is {} {}",
                key(drift),
                found_and_expected(drift),
                how(drift)
            )
        }
        Record::RemovalAccepted(drift) => format!(
            "{} {}: not restored, as {}",
            was_and_is(drift, drift.old.as_ref(), drift.new.as_ref()),
            how(drift),
            why_accepted(drift)
        ),
        Record::RestoreFailed(drift, failure) => format!(
            "{} is {} {}: {}",
            key(drift),
            found_and_expected(drift),
            how(drift),
            line(&error(drift, failure))
        ),
        Record::Contended(drift) => format!(
            "{} keeps changing to {} {}",
            key(drift),
            found_and_expected(drift),
            how(drift)
        ),
        Record::SourceUnavailable { source, reason } => format!(
            "{source}: {} (continuing with the remaining sources)",
            line(reason)
        ),
        Record::SourceRecovered { source, away } => {
            format!("{source} after {}, full rescan done", Span(*away))
        }
        Record::ConntrackNearlyFull(usage) => format!(
            "{} (new connections are dropped at the maximum)",
            connections(*usage)
        ),
        Record::ConntrackRecovered(usage, lasted) => {
            format!("{} after {}", connections(*usage), Span(*lasted))
        }
        Record::ConfigurationRefused { diagnostics } => {
            format!(
                "{} (keeping the previous configuration)",
                first_error(diagnostics)
            )
        }
        Record::RestartHandled(episode) => restart(episode),
        Record::ConflictFound(conflict) => found(conflict),
        Record::ConflictResolved(conflict, why) => resolved(conflict, why),
        Record::MoreConflictsFound(count) => format!(
            "{} (netguard conflicts lists them)",
            Count(*count, "more conflict")
        ),
        Record::MoreConflictsResolved(count) => Count(*count, "more conflict").to_string(),
    };
    format!("{}: {body}", kind(record).words())
}

/// The MESSAGE of `count` dropped records.
pub(super) fn records_dropped(count: u64) -> String {
    format!(
        "{}: {} (journal too slow)",
        Kind::RecordsDropped.words(),
        Count(count, "record")
    )
}

fn tally_text(tally: &Tally) -> String {
    format!(
        "{}, {}, {} restored",
        Values::from(tally),
        Count(tally.invariants, "invariant"),
        Count(tally.restored, "drift"),
    )
}

/// How often and for how long values had drifted, where any had.
fn outages_text(outages: &Outages) -> String {
    let all = &outages.total;
    if all.count == 0 {
        return String::new();
    }
    // Outages of unknown duration count from their detection.
    let (unknown, least) = match all.unknown {
        0 => (String::new(), ""),
        count => (format!(", {count} of unknown duration"), "at least "),
    };
    format!(
        "; {} since boot{unknown}, {least}{} total, longest {}",
        Count(all.count, "outage"),
        Span(all.duration),
        Span(all.longest)
    )
}

/// The name of a drift: its key; of several, what selects their keys.
pub(super) fn key(drift: &Drift) -> String {
    match several_keys(drift) {
        Some(_) => drift.selector.to_string(),
        None => drift.key.to_string(),
    }
}

/// What several keys have in common, where there are several.
pub(super) fn several_keys(drift: &Drift) -> Option<&Several> {
    drift.several.as_ref().filter(|several| several.keys > 1)
}

/// Why a removal is not undone.
fn why_accepted(drift: &Drift) -> &'static str {
    let is_flushed_by_others = !drift.key.rules().owners().is_empty();
    match drift.episode {
        _ if is_flushed_by_others => "its owner may remove it",
        Some(_) => "the network restart did not remove it",
        None => "no network restart was in progress",
    }
}

/// Whether it is what it was before: another value may be allowed, too.
fn is_as_before(drift: &Drift) -> bool {
    match (&drift.old, &drift.ours) {
        (Some(State::Attributes(old)), Some(State::Attributes(ours))) => {
            let is_same = |(name, value): &(Attribute, Value)| {
                old.iter().all(|it| it.0 != *name || it.1 == *value)
            };
            ours.iter().all(is_same)
        }
        (Some(old), Some(ours)) => old == ours,
        _ => false,
    }
}

fn restored(drift: &Drift) -> String {
    let again = if is_as_before(drift) { " again" } else { "" };
    let after = drift
        .took
        .filter(|_| !drift.unknown)
        .map_or_else(String::new, |took| format!(" after {}", Span(took)));
    format!("{}{again}{after} {}", found_and_restored(drift), how(drift))
}

/// What was found and what there is in its place.
fn found_and_restored(drift: &Drift) -> String {
    was_and_is(drift, drift.new.as_ref(), drift.ours.as_ref())
}

/// What it was and what it is: of several attributes, those that differ.
fn was_and_is(drift: &Drift, was: Option<&State>, is: Option<&State>) -> String {
    let (was, is) = match (was, is) {
        (Some(was), Some(is)) => {
            let [was, is] = was.differences(is);
            (state(&was.text()), state(&is.text()))
        }
        (was, is) => (shown(drift, was), shown(drift, is)),
    };
    format!("{} was {was}, is {is}", key(drift))
}

fn applied(drift: &Drift) -> String {
    format!(
        "{} (required by {}{}{})",
        found_and_restored(drift),
        drift.origin.as_ref().map_or("various".to_owned(), place),
        cleaned(drift),
        times(drift)
    )
}

/// How full the conntrack table is.
pub fn connections(usage: Usage) -> String {
    format!(
        "{} of {} ({} %)",
        usage.count,
        Count(usage.max, "connection"),
        usage.percent()
    )
}

/// What has come of the connections that were made without NAT, after a comma, where there is
/// something to report.
pub fn cleaned(drift: &Drift) -> String {
    let cleaned = drift.cleaned.as_ref();
    let text = cleaned.and_then(|it| deleted_connections(it.deleted, it.fault.as_deref()));
    text.map_or_else(String::new, |text| format!(", {text}"))
}

/// How many connections without NAT were deleted, and why there may be more.
pub fn deleted_connections(deleted: u64, fault: Option<&str>) -> Option<String> {
    let some = Count(deleted, "connection");
    match (deleted, fault.map(line)) {
        (0, None) => None,
        (0, Some(why)) => Some(format!("connections without NAT not deleted: {why}")),
        (_, None) => Some(format!("{some} without NAT deleted")),
        (_, Some(why)) => Some(format!("{some} without NAT deleted and others not: {why}")),
    }
}

fn found_and_expected(drift: &Drift) -> String {
    format!(
        "{}, {}",
        shown(drift, drift.new.as_ref()),
        must_be(&required(&drift.required))
    )
}

/// A value; `unreadable` where it could not be read, `various` where it is not the
/// same in all of them.
fn shown(drift: &Drift, found: Option<&State>) -> String {
    match (found, &drift.several) {
        (Some(found), _) => state(&found.text()),
        (None, Some(_)) => "various".to_owned(),
        (None, None) => "unreadable".to_owned(),
    }
}

/// A requirement: words of ours around values of the configuration.
fn required(text: &str) -> String {
    if text
        .bytes()
        .all(|b| (b.is_ascii_graphic() || b == b' ') && !b"\",;()\\".contains(&b))
    {
        line(text)
    } else {
        state(text)
    }
}

/// The circumstances of a drift, in brackets.
fn how(drift: &Drift) -> String {
    let detected = match sources(drift).collect::<Vec<_>>()[..] {
        [Source::Start] => "found at startup".to_owned(),
        ref sources => {
            let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
            format!("detected by {}", list(&sources, line))
        }
    };
    let mut how = format!("({detected}");
    if drift.unknown {
        how.push_str(", drifted for an unknown time");
    } else if let Some(at_most) = drift.at_most {
        let _ = write!(how, ", drifted for at most {}", Span(at_most));
    }
    if let Some(key) = &drift.caused_by {
        let _ = write!(how, ", propagated from {key}");
    }
    match &drift.writer {
        Attribution::Known(process) => {
            let name = value(&process.comm);
            let _ = write!(how, ", written by {name}[{}]", process.pid);
            if let Some(unit) = &process.unit {
                let _ = write!(how, " of {}", value(unit));
            }
            if let Some(written) = written_by_most(drift) {
                let _ = write!(how, " {}", Count(written, "time"));
            }
        }
        Attribution::Unknown(Unknown::Initial | Unknown::Unread) => {}
        Attribution::Unknown(reason) => {
            let _ = write!(how, ", writer unknown: {reason}");
        }
    }
    if !drift.units.is_empty() {
        let _ = write!(how, ", during {}", list(&drift.units, value));
    }
    if let Some(again) = &drift.again {
        let _ = write!(how, ", {} will set it again", place(again));
    }
    how.push_str(&cleaned(drift));
    how.push_str(&times(drift));
    how.push(')');
    how
}

/// How many of several drifts have the writer, where not all have.
fn written_by_most(drift: &Drift) -> Option<u64> {
    drift.several.as_ref()?.written
}

/// How many drifts the record stands for, where they are several.
fn times(drift: &Drift) -> String {
    let mut times = String::new();
    if drift.count > 1 {
        let _ = write!(times, ", {} times", drift.count);
    }
    if written_by_most(drift).is_some() {
        times.push_str(" in total");
    }
    if let Some(several) = several_keys(drift) {
        let Several {
            keys, first, last, ..
        } = several;
        let _ = write!(times, " on {keys} keys from {first} to {last}");
    }
    times
}

/// The sources that detected it, each once.
pub(super) fn sources(drift: &Drift) -> impl Iterator<Item = &Source> {
    match &drift.several {
        Some(several) => several.sources.iter(),
        None => std::slice::from_ref(&drift.source).iter(),
    }
}

/// `FILE:LINE`
fn place(origin: &Origin) -> String {
    let file = value(&origin.file.to_string_lossy());
    format!("{file}:{}", origin.line)
}

fn found(conflict: &Conflict) -> String {
    let applied: Vec<String> = conflict.effective().map(|by| by.to_string()).collect();
    format!(
        "{} {}, {} sets {} to {} (applied {})",
        conflict.guarded,
        must_be(&required(&conflict.required)),
        place(&conflict.place),
        conflict.key,
        state(conflict.value.as_str()),
        list(&applied, str::to_owned)
    )
}

fn resolved(conflict: &Conflict, why: &Resolution) -> String {
    let (guarded, required) = (&conflict.guarded, required(&conflict.required));
    let must_be = must_be(&required);
    let key = &conflict.key;
    let (line, value) = (place(&conflict.place), state(conflict.value.as_str()));
    match why {
        Resolution::Gone => {
            format!("{guarded} {must_be}, {line} no longer sets {key} to {value}")
        }
        Resolution::Overridden(by) => {
            let by = place(by);
            format!("{guarded} {must_be}, {by} overrides {line}, which sets {key} to {value}")
        }
        Resolution::NotRequired => {
            format!("{guarded} need no longer be {required}, {line} sets {key} to {value}")
        }
    }
}

fn restart(episode: &Episode) -> String {
    let took = match episode.duration.is_zero() {
        true => String::new(),
        false => format!(" took {}", Span(episode.duration)),
    };
    let mut text = format!(
        "{}{took}: {}",
        list(&episode.causes, line),
        Drifts::of(episode)
    );
    if let Some(longest) = episode.longest {
        let _ = write!(text, ", longest {}", Span(longest));
    }
    let _ = write!(
        text,
        "; {} of {} OK",
        episode.tally.matching,
        Count(episode.tally.values, "value")
    );
    if !episode.verified {
        text.push_str(", final check skipped");
    } else if let Some(later) = episode.checked_after {
        let _ = write!(text, ", checked {} later", Span(later));
    }
    let job = episode.result.iter().map(|it| format!("job {}", value(it)));
    let units = episode.inactive.iter().map(|(unit, state)| {
        let see = match state.as_str() {
            "failed" => format!(": see journalctl -u {}", value(unit)),
            _ => String::new(),
        };
        format!("{} is {}{see}", value(unit), value(state))
    });
    let after: Vec<String> = job.chain(units).collect();
    if !after.is_empty() {
        let _ = write!(text, " ({})", after.join(", "));
    }
    text
}

/// Why a value could not be restored: what was tried, the kernel's answer and
/// what to do.
pub fn error(drift: &Drift, failure: &Failure) -> String {
    match failure {
        Failure::Unreadable(fault) => unreadable(&drift.key, fault),
        Failure::Refused(fault) => refused(drift, fault),
        Failure::Normalised { wrote, reads } => programs::without_effect(&drift.key, reads)
            .unwrap_or_else(|| {
                format!(
                    "wrote {}, reads {}: the kernel stores another value than was written; \
                     require the value that it stores",
                    state(&wrote.text()),
                    state(&reads.text())
                )
            }),
        Failure::Unsuited => "the value has another format than the required one, \
             so nothing was written; correct the requirement"
            .to_owned(),
        Failure::Vanished => {
            "netguard creates no interface; restart the program that creates it".to_owned()
        }
        Failure::Various => "for several reasons; see `netguard check`".to_owned(),
    }
}

fn refused(drift: &Drift, fault: &Fault) -> String {
    let errno = fault.errno;
    refused_of_its_kind(&drift.key, drift.ours.as_ref(), fault).unwrap_or_else(|| {
        let wrote = shown(drift, drift.ours.as_ref());
        format!("writing {wrote} failed: {}", why(errno))
    })
}

/// Why a resource that is no sysctl could not be brought into this state, and what to do.
pub fn refused_of_its_kind(key: &Resource, ours: Option<&State>, fault: &Fault) -> Option<String> {
    let of_network = || network::refused(key, ours?, fault.errno);
    programs::refused(key, fault).or_else(of_network)
}

/// Why a resource could not be read, and what to do.
pub fn unreadable(key: &Resource, fault: &Fault) -> String {
    let errno = fault.errno;
    programs::unreadable(key, fault).unwrap_or_else(|| format!("reading it failed: {}", why(errno)))
}

/// Why a value could not be written, and what to do.
pub fn unwritable(errno: Errno) -> String {
    format!("opening it for writing failed: {}", why(errno))
}
