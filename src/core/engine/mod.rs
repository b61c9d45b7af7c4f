//! Decides. PURE: an event in, actions out.
//!
//! [`Engine::step`] is the whole interface. Nothing here reads a file, a clock
//! or a socket, and nothing waits: time comes with the events, values with the
//! answers to [`Action::Read`]. So the same engine runs in the daemon, in
//! `check` and `apply`, and in tests with simulated time.
//!
//! The rules it keeps:
//! * Events are hints, reads are truth: it decides on a value just read, and
//!   reads back what it wrote.
//! * It writes only a difference, and in the kernel's order (`kinds`).
//! * A drift is never given up; what it costs is bounded (`setbacks`).
//! * A flood is logged in sums, and every drift in exactly one record
//!   (`reporting`).
//! * Long work is cut into slices (`backlog`), between which restores go first.

mod action;
mod backlog;
mod conflicts;
mod conntrack;
mod discovery;
mod drift;
mod episode;
mod event;
mod health;
mod limits;
mod memory;
mod outages;
mod pending;
mod phase;
mod preserve;
mod reload;
mod removed_links;
mod reports;
mod resource;
mod restarts;
mod restore;
mod retry;
mod scan;
mod selection;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Interest, Monotonic, Settings, Source};
use crate::resource::{Module, Resource, State, Unit};

pub use crate::id::ValueId;
pub use crate::model::{Errno, Fault, microseconds};
pub use crate::reporting::{
    Affected, BySelector, Drift, Episode, EpisodeId, Failure, LastGood, Limitation, LimitationKind,
    Outage, Outages, Record, Refusal, Resolution, Several, Status, Tally, Unreported, Unrestored,
};
pub use action::Action;
pub use episode::OpenEpisode;
pub use event::{Announcement, Event, ReadOutcome, UnitChange};
pub use memory::{ActiveDrift, GoodState, Memory, Preserved, Remembered};
pub use pending::Pending;
pub use phase::{Because, Phase, Wait};
pub use selection::Selection;

use crate::reporting::Reporting;
use crate::timers::Timers;
use backlog::{Backlog, SLICE};
use conflicts::Conflicts;
use conntrack::Conntrack;
use drift::Cause;
use health::Health;
use limits::Limits;
use preserve::{About, GoodStates};
use reload::Replaced;
use removed_links::RemovedLinks;
use values::Values;

/// After so many values were dropped, their memory is released
/// once none was dropped for [`IDLE`].
const MANY_GONE: usize = 1024;
const IDLE: Duration = Duration::from_millis(300);

/// The engine's state: what is expected, what is known, what is in progress.
#[derive(Debug, Default)]
pub struct Engine {
    /// The time of the latest event.
    now: Monotonic,
    selection: Box<Selection>,
    /// The settings before these, while some values are still under them.
    replaced: Option<Replaced>,
    /// The settings before a reload, until all was checked since.
    before: Option<Box<Selection>>,
    values: Values,
    backlog: Backlog,
    timers: Timers<Timer>,
    reporting: Reporting,
    sweep_at: Option<Monotonic>,
    /// When the next slice of the sweep under way is due.
    slice_at: Option<Monotonic>,
    /// Whether [`Action::Continue`] was asked for since the last tick.
    goes_on: bool,
    health: Health,
    limits: Limits,
    conflicts: Conflicts,
    conntrack: Conntrack,
    /// The last known ActiveState of each watched unit.
    units: HashMap<String, String>,
    episode: Option<OpenEpisode>,
    /// When the last check of the episode is due.
    settle_at: Option<Monotonic>,
    /// The number of the check after which the episode may be over, and how
    /// many drifts it had when that began.
    last_check: Option<(u64, u64)>,
    /// The number of the last episode.
    episodes: u64,
    /// When interfaces last changed, where systemd is not detected.
    links_moved: Vec<Monotonic>,
    /// The last drifts that were restored, where that does not report restarts either: when
    /// each was detected, and how long it took.
    just_restored: VecDeque<(Monotonic, Duration)>,
    /// Whether another guard continues with what this one knows.
    kept: bool,
    outages: BySelector,
    /// Those of all invariants, also of those that are no longer in force.
    outages_total: Outage,
    /// The values that have drifted.
    open: BTreeSet<ValueId>,
    /// The values whose outage is counted and not over.
    drifting: BTreeSet<ValueId>,
    /// What an earlier netguard knew at that moment to have drifted, until everything
    /// was checked once.
    remembered: HashMap<Resource, Remembered>,
    remembered_at: Monotonic,
    /// The last configuration that was refused since one was taken.
    refused: Option<Refusal>,
    restored: u64,
    last_restored: Option<(Resource, Monotonic)>,
    /// What is reported when the check with this number is complete.
    report: Option<(u64, Report)>,
    /// What is reported when everything was read: a program that must be asked answers
    /// after the check.
    unanswered: Option<Report>,
    /// Whether everything was checked once.
    looked: bool,
    /// How many values were dropped since memory was last released, and how
    /// many there were when [`Timer::Tidy`] was set.
    gone: usize,
    gone_before: Option<usize>,
    removed_links: RemovedLinks,
    /// Links that the configuration names and that are gone, with what is not reported yet.
    vanished: BTreeMap<ValueId, Option<Drift>>,
    /// Values that wait for another's restore, by that.
    behind: HashMap<ValueId, BTreeSet<ValueId>>,
    /// Values that wait for an address.
    lack_addresses: BTreeSet<ValueId>,
    /// Those that wait for a nexthop object, by its number.
    lack_nexthops: HashMap<u32, BTreeSet<ValueId>>,
    /// Interfaces that are checked again, and when.
    links_again: VecDeque<(Monotonic, String)>,
    /// Whether the status may be another than the one last reported.
    status_changed: bool,
    memory_changed: bool,
    status: Option<Status>,
    /// The preserved resources whose last good state is known.
    good_states: GoodStates,
    /// Preserved resources of which it is asked who changed them, and to what, by the question.
    deciding: HashMap<u64, (ValueId, About, State)>,
    questions: u64,
    out: Vec<Action>,
}

/// Something that becomes due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A source that was never there has been waited for.
    Awaited,
    /// Interfaces whose files were not there yet are checked again.
    LinksAgain,
    /// It has been idle after a network restart.
    Settle,
    /// A value that is contended or failed is checked again.
    Retry(ValueId),
    /// Removed interfaces are checked.
    RemovedLinks,
    /// Many values were dropped: their memory is released.
    Tidy,
    /// What a program must be asked for was waited for long enough.
    Unanswered,
    /// Connections that lack NAT are deleted.
    Clean,
}

#[derive(Debug, Clone, Copy)]
enum Report {
    Started,
    Reloaded,
}

/// One watched value, as `check` and `apply` show it.
#[derive(Debug, Clone)]
pub struct Watched<'a> {
    /// Its name.
    pub key: &'a Resource,
    /// The index of its invariant in the settings.
    pub invariant: usize,
    /// How it stands.
    pub state: &'a Phase,
    /// What it was when last read.
    pub seen: Option<&'a State>,
    /// Why it could not be read or restored.
    pub failure: Option<&'a Failure>,
    /// Why its file cannot be opened for writing.
    pub unwritable: Option<Errno>,
    /// When its owner's grace period ends, where that runs.
    pub grace_ends: Option<Monotonic>,
}

impl Engine {
    /// An engine that has checked nothing yet; [`Event::Start`] starts the first scan.
    pub fn new(settings: Settings) -> Self {
        let mut engine = Engine {
            selection: Box::from(settings),
            status_changed: true,
            ..Engine::default()
        };
        engine.add_exact_keys(0..engine.selection.settings.invariants.len());
        engine
    }

    /// Takes in what happened or was detected `at` some time and says what is to be
    /// done about it, which is never earlier than what was taken in before.
    ///
    /// The actions must be performed in order. Where one has an answer, the
    /// answer is given to `step` immediately, and what `step` then returns goes
    /// before the actions that are left: a value is restored and verified
    /// before the next is checked.
    pub fn step(&mut self, event: Event, at: Monotonic) -> Vec<Action> {
        // What was detected may have waited while other things were done.
        let now = self.now.max(at);
        self.now = now;
        self.reporting.set_now(now, self.episode.is_some());
        self.take_in(event, at);
        if self.gone >= MANY_GONE && self.gone_before.is_none() {
            self.await_tidy(now);
        }
        self.await_slice(now);
        std::mem::take(&mut self.out)
    }

    fn take_in(&mut self, event: Event, at: Monotonic) {
        let now = self.now;
        match event {
            Event::Start => {
                self.find_recalled(now);
                let number = self.check(Source::Start);
                self.report = Some((number, Report::Started));
            }
            Event::Hint {
                key,
                source,
                writer,
            } => {
                if let Some(id) = self.values.id(&key) {
                    let cause = Cause::hint(source, writer, at);
                    self.changed(id, &cause);
                    self.look(id, cause);
                }
            }
            Event::Touched { id, source, writer } => {
                if let (Some(tracked), Some(writer)) = (self.values.get(id), &writer) {
                    self.reporting.write_detected(&tracked.key, writer, at);
                }
                self.look(id, Cause::new(source, writer, at));
            }
            Event::Detected { id, source, writer } => {
                self.changed(id, &Cause::hint(source, writer, at));
            }
            Event::LinkAdded { name } => self.link_added(&name, at),
            Event::LinkRenamed { old, new } => self.link_renamed(old, new, at),
            Event::LinkReset { name } => {
                self.link_added(&name, at);
                self.look_again_at(name, now);
            }
            Event::LinkChanged { name } => self.link_changed(&name, at),
            Event::NexthopAdded { number } => {
                let lack_it = self.lack_nexthops.remove(&number);
                self.look_at(lack_it.unwrap_or_default(), at);
            }
            Event::LinkRemoved { name } => self.link_removed(name, now),
            Event::ModuleAdded { name } | Event::ModuleRemoved { name } => {
                let module = Module::parse(&name).map(Resource::Module);
                self.reported(module, Source::Uevent, at);
                self.check(Source::Uevent);
            }
            Event::Unit { unit, change } => {
                self.reported(Unit::parse(&unit).map(Resource::Unit), Source::Systemd, at);
                self.unit(unit, change, now);
            }
            Event::Announced { source, what } => self.announced(source, &what, now),
            Event::Gap { source } => {
                self.check(source);
            }
            Event::SourceUnavailable { source, reason } => {
                self.source_unavailable(source, reason, now)
            }
            Event::SourceRecovered { source } => self.source_recovered(source, now),
            Event::Reload(selection) => {
                self.refused = None;
                self.reload(selection);
                self.configured();
            }
            Event::ReloadRefused { diagnostics } => self.reload_refused(diagnostics),
            Event::FilesChanged => self.find_conflicts(),
            Event::FilesUnwatched => self.conflicts.undetected = true,
            Event::FilesWatched => self.conflicts.undetected = false,
            Event::ConflictsFound(found) => self.conflicts_found(found),
            Event::Recreated { id } => {
                if let Some(tracked) = self.values.get_mut(id) {
                    tracked.recreated = tracked.good_at.is_some();
                }
            }
            Event::Read { id, outcome } => {
                self.bring_over(id, now);
                self.read(id, outcome, now);
                self.report_if_read(now);
                self.release_behind(id);
            }
            Event::Written { id, result } => {
                self.bring_over(id, now);
                self.written(id, result, now);
                self.release_behind(id);
            }
            Event::Discovered { keys, more } => {
                self.backlog.discovered(scan::NAMES, more);
                self.discovered(keys);
            }
            Event::Interfaces {
                folder,
                names,
                more,
            } => {
                self.backlog.discovered(names.len(), more);
                for name in names {
                    self.discover_interface(&name, folder);
                }
            }
            Event::Accessed { id, refused } => self.access(id, refused),
            Event::Detection { id, undetected } => self.detection(id, undetected),
            Event::Examined { blind } => self.examined(blind),
            Event::Firewall { part, fault } => self.firewall(part, fault),
            Event::ConnectionsCounted(usage) => self.connections_counted(usage, now),
            Event::Cleaned(cleaned) => self.cleaned(&cleaned, now),
            Event::Saving { unsaved } => self.saving(unsaved),
            Event::LastGood(last_good) => self.last_good(*last_good),
            Event::Identified { question, writer } => {
                if !self.decided(question, &writer) {
                    self.report(|it| it.identified(question, writer));
                }
            }
            Event::Appeared { key, state } => self.appeared(key, &state),
            Event::Tick => {
                self.goes_on = false;
                self.tick(now);
            }
            Event::Stop => self.stop(now),
        }
    }

    /// When the next [`Event::Tick`] is due, if one is.
    pub fn deadline(&self) -> Option<Monotonic> {
        [
            self.timers.first(),
            self.sweep_at,
            self.slice_at,
            self.reporting.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The status, where it is another than when this was last asked.
    pub fn take_status(&mut self) -> Option<Status> {
        if !std::mem::take(&mut self.status_changed) {
            return None;
        }
        self.memory_changed = true;
        let status = self.status();
        if self.status.as_ref() == Some(&status) {
            return None;
        }
        self.status = Some(status.clone());
        Some(status)
    }

    /// Whether what the next netguard must know may have changed since this was
    /// last asked; to be asked after [`Engine::take_status`].
    pub fn take_memory_changed(&mut self) -> bool {
        std::mem::take(&mut self.memory_changed)
    }

    /// The current state.
    pub fn status(&self) -> Status {
        Status {
            tally: self.tally(),
            last: self.last_restored.clone(),
            lost: self.health.lost(),
            restarting: match &self.episode {
                Some(episode) if episode.is_running() => episode.units.clone(),
                _ => Vec::new(),
            },
            contended: self.values.contended(),
            failed: self.values.failed(),
            sweep: self.settings().guard.sweep,
            limitations: self.limits.now(),
            observed: self.values.observed(),
            observe: self.selection.observing(),
            starting: !self.looked,
            refused: self.refused.clone(),
            conntrack_nearly_full: self.conntrack.full(),
        }
    }

    /// Whether a network restart is under way.
    pub fn is_restarting(&self) -> bool {
        self.episode.is_some()
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.selection.settings
    }

    /// The same, to be shared with another thread.
    pub fn shared_settings(&self) -> Arc<Settings> {
        Arc::clone(&self.selection.settings)
    }

    /// What the settings are about beside kernel parameters.
    pub fn interest(&self) -> Interest {
        self.selection.interest()
    }

    /// How many keys the configuration spells out.
    pub fn exact_keys(&self) -> usize {
        self.selection.exact_keys()
    }

    /// Whether `key` is that of a value that is kept.
    pub fn watches(&self, key: &Resource) -> bool {
        let id = self.values.id(key);
        id.is_some_and(|id| self.values.get(id).is_some_and(|it| it.guarded))
    }

    /// What has this number, if it is still watched.
    pub fn resource(&self, id: ValueId) -> Option<&Resource> {
        self.values.get(id).map(|tracked| &tracked.key)
    }

    /// Every watched value, in the order of restores.
    pub fn watched(&self) -> impl Iterator<Item = Watched<'_>> {
        let kept = self.values.in_order().filter(|(_, it)| it.guarded);
        kept.filter_map(|(id, tracked)| {
            let invariant = match self.is_stale(tracked) {
                true => self.governing(tracked)?,
                false => tracked.invariant,
            };
            Some(Watched {
                key: &tracked.key,
                invariant,
                state: tracked.state(),
                seen: tracked.seen.as_ref(),
                failure: tracked.failed.as_deref().map(|failed| &failed.failure),
                unwritable: self.limits.unwritable(id),
                grace_ends: tracked.grace_ends(),
            })
        })
    }

    /// What must be written in place of what was read of this; nothing where that is not known.
    pub fn target_of(&self, key: &Resource) -> Option<State> {
        let tracked = self.values.get(self.values.id(key)?)?;
        self.target(tracked, tracked.seen.as_ref()?)
    }

    /// Counts invariants and values.
    pub fn tally(&self) -> Tally {
        self.values.tally(self.selection.len(), self.restored)
    }

    /// Checks one value: opens its files if they are not open yet, and reads it.
    fn look(&mut self, id: ValueId, cause: Cause) {
        self.bring_over(id, self.now);
        let Some(tracked) = self.values.get_mut(id) else {
            return;
        };
        match &mut tracked.cause {
            Some(known) => {
                // A later hint may know the writer of what is being checked.
                if known.writer.is_none() {
                    known.writer = cause.writer;
                }
                known.writer_detected |= cause.writer_detected;
                // What a scan asks for, and is not answered yet, is reported now.
                if known.late && !cause.late && known.source != cause.source {
                    (known.source, known.at, known.late) = (cause.source, cause.at, cause.late);
                }
            }
            none => *none = Some(cause),
        }
        tracked.hinted();
        if !tracked.watched {
            tracked.watched = true;
            let (key, exact) = (tracked.key.clone(), tracked.exact);
            self.out.push(Action::Watch { id, key, exact });
        }
        self.out.push(Action::Read { id });
    }

    /// A source has reported a change.
    fn changed(&mut self, id: ValueId, cause: &Cause) {
        if cause.source == Source::Rtnetlink
            && let Some(tracked) = self.values.get_mut(id)
        {
            tracked.changed(cause.clone());
        }
    }

    /// A source has reported a change itself; it knows of no writer.
    fn reported(&mut self, key: Option<Resource>, source: Source, at: Monotonic) {
        if let Some(id) = key.and_then(|key| self.values.id(&key)) {
            let late = false;
            self.look(
                id,
                Cause {
                    late,
                    ..Cause::new(source, None, at)
                },
            );
        }
    }

    /// Takes a value out of care.
    fn let_go(&mut self, id: ValueId, now: Monotonic) {
        self.clear_retry(id);
        self.limits.forget(id);
        self.vanished.remove(&id);
        self.good_states.remove(id);
        self.backlog
            .release(self.behind.remove(&id).unwrap_or_default());
        self.record_gone(id);
        self.end_drift(id, now);
        self.gone += 1;
        if let Some(tracked) = self.values.remove(id)
            && tracked.watched
        {
            self.out.push(Action::Unwatch { id });
        }
        self.status_changed = true;
    }

    fn await_tidy(&mut self, now: Monotonic) {
        self.gone_before = Some(self.gone);
        self.timers.set(Timer::Tidy, now + IDLE);
    }

    /// Gives back what was kept for values that are gone, if none goes any more.
    fn tidy(&mut self, now: Monotonic) {
        if self.gone_before != Some(self.gone) {
            self.await_tidy(now);
            return;
        }
        self.gone = 0;
        self.gone_before = None;
        self.values.tidy();
        self.reporting.tidy();
        self.out.push(Action::Tidy);
    }

    fn tick(&mut self, now: Monotonic) {
        self.tick_reporting();
        // What is left is still due, and the next tick's.
        for _ in 0..SLICE {
            let Some(timer) = self.timers.pop(now) else {
                break;
            };
            match timer {
                Timer::Awaited => self.waited(now),
                Timer::LinksAgain => {
                    while self.links_again.front().is_some_and(|(at, _)| *at <= now)
                        && let Some((_, name)) = self.links_again.pop_front()
                    {
                        self.link_added(&name, now);
                    }
                }
                Timer::Settle => self.settle(now),
                Timer::RemovedLinks => self.check_removed_links(now),
                Timer::Tidy => self.tidy(now),
                Timer::Unanswered => self.report_found(now),
                Timer::Clean => self.clean(now),
                Timer::Retry(id) => self.retry(id, now),
            }
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep_at = None;
            self.check(Source::Sweep);
        }
        // One that is not due is left for its own tick.
        if self.slice_at.is_none_or(|at| at <= now) {
            self.slice_at = None;
            self.next_slice(now);
        }
    }

    fn stop(&mut self, now: Monotonic) {
        // Log what waits for a writer, then the sums.
        self.report(Reporting::finish);
        // The next guard continues with the restart and the drifts in progress; without one,
        // this is its end.
        if !self.kept {
            self.close_episode(now, false);
        }
        let tally = self.tally();
        let outages = self.worst_outages(now);
        self.record(Record::Stopped(tally, outages));
        self.status_changed = true;
        self.out.push(Action::Exit);
    }
}
