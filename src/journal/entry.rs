//! A record as the journal takes it: a priority, a message and fields.

use super::fields::{self, Kind};
use super::limits;
use super::message;
use crate::conntrack::Usage;
use crate::engine::{
    Drift, Episode, Failure, Limitation, LimitationKind, Outages, Record, Resolution, Tally,
    microseconds,
};
use crate::model::text::visible;
use crate::model::{Attribution, Conflict, Origin, Process, Selector};
use crate::resource::Resource;
use crate::words::{clip, value};

/// `SYSLOG_IDENTIFIER` of all records.
pub const IDENTIFIER: &str = "netguard";
/// syslog(3)'s number of the facility `daemon`.
const FACILITY: &str = "3";

/// The longest value of a field, in bytes. A datagram that does not fit the
/// socket's buffer (212,992 bytes by default) must be sent as a sealed memfd, and
/// el7's kernel cannot seal one: an entry must never be that long.
pub(super) const LONGEST: usize = 8 * 1024;
/// The most values of one repeated field, for the same reason, and the longest
/// one: systemd's limit of a unit's name.
const MOST: usize = 16;
const LONGEST_REPEATED: usize = 255;

/// How much an entry matters: syslog(3)'s levels, those that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Drift that netguard cannot restore.
    Error = 3,
    /// Something needs attention.
    Warning = 4,
    /// The guard did its work.
    Notice = 5,
    /// For completeness.
    Info = 6,
}

impl Priority {
    pub fn of(number: u8) -> Option<Priority> {
        let all = [
            Priority::Error,
            Priority::Warning,
            Priority::Notice,
            Priority::Info,
        ];
        all.into_iter().find(|it| it.number() == number)
    }

    /// The number as the journal has it.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// Whether values are drifted after a restart, or the network is not there.
fn needs_attention(episode: &Episode) -> bool {
    let is_failed = |(_, state): &(String, String)| state == "failed";
    episode.failed > 0 || episode.inactive.iter().any(is_failed)
}

/// A record as the journal takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub priority: Priority,
    /// MESSAGE: one line.
    pub message: String,
    /// The other fields ([`fields::ALL`]) in the order sent. A name may stand
    /// in it more than once.
    pub fields: Vec<(&'static str, String)>,
}

impl Entry {
    /// The entry of `record`, made at `time` (microseconds since 1970).
    pub fn of(record: &Record, time: u64) -> Entry {
        let mut entry = Entry::new(
            message::kind(record),
            priority(record),
            message::message(record),
            time,
        );
        match record {
            Record::Started(tally, outages, limitations) => {
                entry.life(tally, outages);
                for limitation in limitations {
                    entry.push(fields::NETGUARD_LIMITATION, limitation.kind().as_str());
                }
            }
            Record::Stopped(tally, outages) => entry.life(tally, outages),
            Record::Degraded(limitation) => {
                entry.push(fields::NETGUARD_LIMITATION, limitation.kind().as_str());
                match limitation {
                    Limitation::LastGood(it) => {
                        entry.push(fields::NETGUARD_ERROR, it.diagnostics.trim_end());
                    }
                    other => entry.push(fields::NETGUARD_ERROR, limits::text(other)),
                }
            }
            Record::Recovered(kind) => entry.push(fields::NETGUARD_LIMITATION, kind.as_str()),
            Record::ConfigurationReloaded(tally) => {
                entry.tally(tally);
                entry.push(fields::NETGUARD_RESTORED, tally.restored);
            }
            Record::DriftRestored(drift)
            | Record::DriftObserved(drift)
            | Record::RemovalAccepted(drift)
            | Record::Contended(drift) => entry.drift(drift),
            Record::DriftEnded(drift) => {
                // It lasted as long, and no restore took that; who ended it is not asked.
                entry.cause(drift);
                entry.course(&Drift {
                    took: None,
                    ..drift.clone()
                });
                let lasted = drift.took.map(microseconds);
                entry.push_some(fields::NETGUARD_DURATION_USEC, lasted);
            }
            Record::ConfigurationApplied(drift) => entry.applied(drift),
            Record::RestoreFailed(drift, failure) => entry.failure(drift, failure),
            Record::SourceUnavailable { source, reason } => {
                entry.push(fields::NETGUARD_SOURCE, source);
                entry.push(fields::NETGUARD_ERROR, reason);
            }
            Record::SourceRecovered { source, away } => {
                entry.push(fields::NETGUARD_SOURCE, source);
                entry.push(fields::NETGUARD_DURATION_USEC, microseconds(*away));
            }
            Record::ConntrackNearlyFull(usage) => entry.conntrack(*usage),
            Record::ConntrackRecovered(usage, lasted) => {
                entry.conntrack(*usage);
                entry.push(fields::NETGUARD_DURATION_USEC, microseconds(*lasted));
            }
            Record::ConfigurationRefused { diagnostics } => {
                entry.push(fields::NETGUARD_ERROR, diagnostics.trim_end());
            }
            Record::RestartHandled(episode) => entry.episode(episode),
            Record::ConflictFound(conflict) => entry.conflict(conflict),
            Record::ConflictResolved(conflict, why) => {
                entry.conflict(conflict);
                if let Resolution::Overridden(by) = why {
                    entry.push(fields::NETGUARD_OVERRIDDEN_BY, by);
                }
            }
            Record::MoreConflictsFound(count) | Record::MoreConflictsResolved(count) => {
                entry.push(fields::NETGUARD_COUNT, count);
            }
        }
        entry
    }

    /// The entry about `count` dropped records, made at `time`.
    pub fn of_dropped(count: u64, time: u64) -> Entry {
        let mut entry = Entry::new(
            Kind::RecordsDropped,
            Priority::Warning,
            message::records_dropped(count),
            time,
        );
        entry.push(fields::NETGUARD_COUNT, count);
        entry
    }

    fn new(kind: Kind, priority: Priority, message: String, time: u64) -> Entry {
        let mut entry = Entry {
            priority,
            // Its parts were escaped where they were put together. What
            // reaches a terminal is made sure of.
            message: visible(&message).into_owned(),
            fields: Vec::with_capacity(32),
        };
        entry.push(fields::MESSAGE_ID, kind.message_id());
        entry.push(fields::SYSLOG_IDENTIFIER, IDENTIFIER);
        entry.push(fields::SYSLOG_FACILITY, FACILITY);
        entry.push(fields::NETGUARD_EVENT, kind.as_str());
        entry.push(fields::NETGUARD_TIME_USEC, time);
        entry
    }

    fn drift(&mut self, drift: &Drift) {
        self.cause(drift);
        self.writer(drift);
        self.course(drift);
    }

    /// What has drifted, and how that was detected.
    fn cause(&mut self, drift: &Drift) {
        self.found(drift);
        for source in message::sources(drift) {
            self.push(fields::NETGUARD_SOURCE, source);
        }
        self.invariant(drift);
        self.push_some(fields::NETGUARD_CAUSE_KEY, drift.caused_by.as_ref());
    }

    /// How long it took, and during what.
    fn course(&mut self, drift: &Drift) {
        for (name, span) in [
            (fields::NETGUARD_WRITE_USEC, drift.wrote_after),
            (fields::NETGUARD_RESTORE_USEC, drift.took),
            (fields::NETGUARD_DRIFT_AT_MOST_USEC, drift.at_most),
        ] {
            self.push_some(name, span.map(microseconds));
        }
        let unknown = drift.unknown.then_some("yes");
        self.push_some(fields::NETGUARD_DRIFT_UNKNOWN, unknown);
        self.push_some(fields::NETGUARD_EPISODE, drift.episode.map(|id| id.0));
        self.units(&drift.units);
        if let Some(again) = &drift.again {
            self.conflict_place(again);
        }
        self.cleaned(drift);
        self.push(fields::NETGUARD_COUNT, drift.count);
    }

    /// A changed requirement for a value, without a writer.
    fn applied(&mut self, drift: &Drift) {
        self.found(drift);
        self.invariant(drift);
        self.cleaned(drift);
        self.push(fields::NETGUARD_COUNT, drift.count);
    }

    fn cleaned(&mut self, drift: &Drift) {
        if let Some(cleaned) = &drift.cleaned {
            self.push(fields::NETGUARD_CONNECTIONS_DELETED, cleaned.deleted);
            let fault = cleaned.fault.as_ref();
            self.push_some(fields::NETGUARD_CONNECTIONS_ERROR, fault);
        }
    }

    fn conntrack(&mut self, usage: Usage) {
        self.push(fields::NETGUARD_CONNTRACK_COUNT, usage.count);
        self.push(fields::NETGUARD_CONNTRACK_MAX, usage.max);
    }

    /// Which values, what they were and what they must be.
    fn found(&mut self, drift: &Drift) {
        let several = message::several_keys(drift);
        if several.is_none() {
            if let Some(key) = drift.key.sysctl() {
                self.push(fields::SYSCTL, key.shown_path());
            }
            self.push(fields::NETGUARD_RESOURCE, &drift.key);
            // So that `journalctl -u UNIT` shows it too.
            if let Resource::Unit(unit) = &drift.key {
                self.push(fields::OBJECT_SYSTEMD_UNIT, unit);
            }
        }
        self.push(fields::NETGUARD_KIND, drift.key.kind().as_str());
        self.push(fields::NETGUARD_KEY, message::key(drift));
        self.push(fields::NETGUARD_SELECTOR, &drift.selector);
        if let Some(several) = several {
            self.push(fields::NETGUARD_KEYS, several.keys);
            self.push(fields::NETGUARD_FIRST_KEY, &several.first);
            self.push(fields::NETGUARD_LAST_KEY, &several.last);
        }
        self.push_some(fields::OLDVALUE, drift.old.as_ref());
        self.push_some(fields::NEWVALUE, drift.new.as_ref());
        self.push_some(fields::OURVALUE, drift.ours.as_ref());
        self.push(fields::NETGUARD_REQUIRED, &drift.required);
    }

    fn invariant(&mut self, drift: &Drift) {
        self.push(fields::NETGUARD_MODE, drift.mode.as_str());
        self.push_some(fields::NETGUARD_REASON, drift.reason.as_ref());
        // Every record has it: the catalog's texts name it.
        let various = || "various".to_owned();
        let origin = drift
            .origin
            .as_ref()
            .map_or_else(various, Origin::to_string);
        self.push(fields::NETGUARD_ORIGIN, origin);
    }

    fn writer(&mut self, drift: &Drift) {
        match &drift.writer {
            Attribution::Known(process) => {
                self.process(process);
                let several = drift.several.as_ref();
                self.push_some(
                    fields::NETGUARD_WRITER_COUNT,
                    several.and_then(|several| several.written),
                );
            }
            Attribution::Unknown(reason) => {
                self.push_some(fields::OBJECT_PID, reason.pid());
                self.candidates(reason.candidates());
                self.push(fields::NETGUARD_WRITER_UNKNOWN, reason);
            }
        }
    }

    fn candidates(&mut self, candidates: &[Process]) {
        // Of a single one it is not known that it was so when it wrote.
        if let Some((first, others)) = candidates.split_first()
            && !others.is_empty()
            && others.iter().all(|other| other.has_surroundings_of(first))
        {
            self.surroundings(first);
        }
        for candidate in candidates.iter().take(MOST) {
            let command = clip(&candidate.cmdline, LONGEST_REPEATED);
            self.push(fields::NETGUARD_WRITER_CANDIDATE, command);
        }
    }

    fn process(&mut self, process: &Process) {
        self.push(fields::OBJECT_PID, process.pid);
        self.push(fields::OBJECT_COMM, &process.comm);
        self.push(fields::OBJECT_CMDLINE, &process.cmdline);
        self.surroundings(process);
        self.push_some(fields::NETGUARD_WRITER_STARTED_USEC, process.started);
        let parents = process.parents.iter();
        let parents = parents.map(|parent| format!("{}[{}]", value(&parent.comm), parent.pid));
        let parents: Vec<_> = parents.collect();
        if !parents.is_empty() {
            self.push(fields::NETGUARD_WRITER_PARENTS, parents.join(" "));
        }
        self.push(fields::NETGUARD_WRITER_KNOWN_BY, process.known_by);
    }

    fn surroundings(&mut self, process: &Process) {
        self.push_some(fields::OBJECT_UID, process.uid);
        self.push_some(fields::OBJECT_AUDIT_LOGINUID, process.login_uid);
        self.push_some(fields::OBJECT_SYSTEMD_CGROUP, process.cgroup.as_ref());
        self.push_some(fields::OBJECT_SYSTEMD_USER_UNIT, process.user_unit.as_ref());
        if let Some(unit) = &process.unit {
            let unit = clip(unit, LONGEST_REPEATED);
            self.push(fields::NETGUARD_WRITER_UNIT, unit);
            self.push(fields::OBJECT_SYSTEMD_UNIT, unit);
        }
    }

    fn failure(&mut self, drift: &Drift, failure: &Failure) {
        self.drift(drift);
        self.push(fields::NETGUARD_ERROR, message::error(drift, failure));
    }

    fn conflict(&mut self, conflict: &Conflict) {
        if let Selector::Key(key) = &conflict.guarded {
            self.push(fields::SYSCTL, key.shown_path());
        }
        if let Selector::Resource(resource) = &conflict.guarded {
            self.push(fields::NETGUARD_RESOURCE, resource);
        }
        self.push(fields::NETGUARD_KIND, conflict.guarded.kind().as_str());
        self.push(fields::NETGUARD_KEY, &conflict.guarded);
        self.push(fields::NETGUARD_REQUIRED, &conflict.required);
        self.push(fields::NETGUARD_ORIGIN, &conflict.origin);
        self.conflict_place(&conflict.place);
        self.push(fields::NETGUARD_CONFLICT_KEY, &conflict.key);
        self.push(fields::NETGUARD_CONFLICT_VALUE, &conflict.value);
        self.push(fields::NETGUARD_REACH, conflict.reach.as_str());
        for by in conflict.effective() {
            self.push(fields::NETGUARD_APPLIED, by.as_str());
        }
    }

    fn conflict_place(&mut self, place: &Origin) {
        self.push(fields::NETGUARD_CONFLICT_FILE, place.file.display());
        self.push(fields::NETGUARD_CONFLICT_LINE, place.line);
    }

    fn episode(&mut self, episode: &Episode) {
        self.push(fields::NETGUARD_EPISODE, episode.id.0);
        for cause in episode.causes.iter().take(MOST) {
            self.push(fields::NETGUARD_CAUSE, clip(cause, LONGEST_REPEATED));
        }
        self.units(&episode.units);
        self.push_some(fields::NETGUARD_JOB_RESULT, episode.result.as_ref());
        self.push(
            fields::NETGUARD_DURATION_USEC,
            microseconds(episode.duration),
        );
        let checked = episode.checked_after.map(microseconds);
        self.push_some(fields::NETGUARD_CHECKED_USEC, checked);
        self.push(fields::NETGUARD_DRIFTS, episode.drifts);
        self.push(fields::NETGUARD_RESTORED, episode.restored);
        self.push(fields::NETGUARD_FAILED, episode.failed);
        self.push_some(
            fields::NETGUARD_LONGEST_USEC,
            episode.longest.map(microseconds),
        );
        let verified = if episode.verified { "yes" } else { "no" };
        self.push(fields::NETGUARD_VERIFIED, verified);
        self.tally(&episode.tally);
    }

    fn tally(&mut self, tally: &Tally) {
        self.push(fields::NETGUARD_INVARIANTS, tally.invariants);
        self.push(fields::NETGUARD_VALUES, tally.values);
        self.push(fields::NETGUARD_OK, tally.matching);
        self.push(fields::NETGUARD_PENDING, tally.pending);
        self.push(fields::NETGUARD_DRIFTED, tally.drifted);
        let unreadable = Some(tally.unreadable).filter(|it| *it > 0);
        self.push_some(fields::NETGUARD_UNREADABLE, unreadable);
    }

    fn life(&mut self, tally: &Tally, outages: &Outages) {
        self.tally(tally);
        self.push(fields::NETGUARD_RESTORED, tally.restored);
        self.outages(outages);
    }

    fn outages(&mut self, outages: &Outages) {
        let all = &outages.total;
        if all.count == 0 {
            return;
        }
        self.push(fields::NETGUARD_OUTAGES, all.count);
        let unknown = (all.unknown > 0).then_some(all.unknown);
        self.push_some(fields::NETGUARD_OUTAGES_UNKNOWN, unknown);
        self.push(fields::NETGUARD_TOTAL_USEC, microseconds(all.duration));
        self.push(fields::NETGUARD_LONGEST_USEC, microseconds(all.longest));
        for (selector, outage) in outages.worst.iter().take(MOST) {
            let mut text = format!(
                "{selector} count={} total_usec={} longest_usec={}",
                outage.count,
                microseconds(outage.duration),
                microseconds(outage.longest)
            );
            if outage.unknown > 0 {
                text.push_str(&format!(" unknown={}", outage.unknown));
            }
            self.push(fields::NETGUARD_OUTAGE, text);
        }
    }

    fn units(&mut self, units: &[String]) {
        for unit in units.iter().take(MOST) {
            let unit = clip(unit, LONGEST_REPEATED);
            self.push(fields::NETGUARD_UNIT, unit);
            let field = (fields::OBJECT_SYSTEMD_UNIT, unit.to_owned());
            // The writer's own may be one of them.
            if !self.fields.contains(&field) {
                self.fields.push(field);
            }
        }
    }

    fn push(&mut self, name: &'static str, value: impl ToString) {
        let mut value = value.to_string();
        value.truncate(clip(&value, LONGEST).len());
        self.fields.push((name, value));
    }

    fn push_some(&mut self, name: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.push(name, value);
        }
    }
}

fn priority(record: &Record) -> Priority {
    match record {
        Record::Degraded(limitation) => limited(limitation),
        Record::Started(_, _, limitations) => {
            let worst = limitations.iter().map(limited).min();
            worst.unwrap_or(Priority::Info)
        }
        Record::Stopped(..)
        | Record::Recovered(_)
        | Record::DriftEnded(_)
        | Record::RemovalAccepted(_)
        | Record::SourceRecovered { .. }
        | Record::ConntrackRecovered(..)
        | Record::ConflictResolved(..)
        | Record::MoreConflictsResolved(_)
        | Record::ConfigurationReloaded(_) => Priority::Info,
        Record::DriftRestored(_) | Record::ConfigurationApplied(_) => Priority::Notice,
        Record::RestartHandled(episode) if !needs_attention(episode) => Priority::Notice,
        Record::RestartHandled(_)
        | Record::DriftObserved(_)
        | Record::ConflictFound(_)
        | Record::MoreConflictsFound(_)
        | Record::Contended(_)
        | Record::ConntrackNearlyFull(_)
        | Record::SourceUnavailable { .. } => Priority::Warning,
        Record::RestoreFailed(..) | Record::ConfigurationRefused { .. } => Priority::Error,
    }
}

fn limited(limitation: &Limitation) -> Priority {
    let kind = limitation.kind();
    match kind.is_severe() || kind == LimitationKind::LastGood {
        true => Priority::Error,
        false => Priority::Warning,
    }
}
