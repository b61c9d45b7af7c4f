//! What outlives the daemon: it is kept elsewhere and given to the next one.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::episode::OpenEpisode;
use super::phase::Phase;
use crate::id::ValueId;
use crate::model::{Attribution, Monotonic, Unknown};
use crate::reporting::{BySelector, Drift, Failure, Outage, Unreported};
use crate::resource::{Resource, State};

/// A restart of the network of which the last guard knew this long ago is over,
/// even if it has ended.
const STALE: Duration = Duration::from_secs(60);
/// What the last guard knew this long ago of preserved resources is left to their owners:
/// longer than an update takes, and than Felix takes to make its routes again (90 s).
const RECALLED: Duration = Duration::from_secs(600);
/// The most drifts that are described one by one. There may be thousands, and
/// what is kept is written again ten times a second.
const DESCRIBED: usize = 100;
/// The most invariants whose outages are kept: those that had drifted longest.
const KEPT: usize = 4096;

/// What a guard knows that the next one cannot find out. Its moments are on the
/// clock of this boot, and it is worth nothing after the next.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Memory {
    /// When it was so.
    pub at: Monotonic,
    /// The number of the last network restart; 0 where there was none.
    pub episodes: u64,
    /// The network restart in progress.
    pub episode: Option<OpenEpisode>,
    /// The outages of each invariant, what is not over counted until then.
    pub outages: BySelector,
    /// Those of all invariants, removed ones included.
    pub total: Outage,
    /// The drifts that are not over, of which some may be left out.
    pub drifts: Vec<Remembered>,
    /// What must be restored, or may have to be until the network restart is over.
    pub preserved: Arc<Preserved>,
}

/// The last good states of preserved resources.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Preserved {
    /// Those that are lost first.
    pub entries: Vec<GoodState>,
    /// How many more there are.
    pub left_out: usize,
}

impl Preserved {
    /// Whether a network restart, or what may be the beginning of one, was in progress.
    fn is_of_restart(&self) -> bool {
        self.entries.iter().any(|it| it.lost.is_none())
    }
}

/// What a preserved resource was.
#[derive(Debug, Clone, PartialEq)]
pub struct GoodState {
    pub key: Resource,
    /// What it was.
    pub state: State,
    /// Where it was lost, and must be restored, network restart or not: what was found
    /// in its place.
    pub lost: Option<State>,
}

impl GoodState {
    /// The interfaces that it goes with.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let own = self.key.rules().interface();
        own.into_iter().chain(self.state.interfaces())
    }

    /// How many bytes its states have.
    pub(super) fn length(&self) -> usize {
        self.state.length() + self.lost.as_ref().map_or(0, State::length)
    }
}

/// A drift in progress, for `status`.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveDrift {
    /// What is reported it.
    pub drift: Drift,
    /// When it began or was detected; `None` where it was so at the first scan.
    pub since: Option<Monotonic>,
    /// When it was found.
    pub found_at: Monotonic,
    /// Whether another writer keeps changing it.
    pub contended: bool,
    /// Why it could not be restored.
    pub failure: Option<Failure>,
    /// Whether it is [pending](super::Pending) meanwhile.
    pub is_pending: bool,
    /// When it is tried again, at the latest.
    pub next: Option<Monotonic>,
}

/// A drift in progress, as far as the next netguard must know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Remembered {
    pub key: Resource,
    /// The value it found.
    pub found: State,
    /// When it began.
    pub since: Option<Monotonic>,
    /// When it was found.
    pub found_at: Monotonic,
    pub writer: Option<Attribution>,
    /// Whether it is counted among the outages, and not within its owner's grace period.
    pub counted: bool,
}

impl Engine {
    /// Takes over what another guard knew, before [`Event::Start`]; from now on
    /// neither a network restart nor a drift in progress is over when the guard
    /// ends, since the next one continues with it.
    ///
    /// [`Event::Start`]: super::Event::Start
    pub fn remember(&mut self, memory: Memory, now: Monotonic) {
        self.kept = true;
        self.episodes = self.episodes.max(memory.episodes);
        // What is still drifted is found by the first scan, and continues its period.
        let closed = |outage: Outage| {
            let began = outage.running.map(|time| memory.at.before(time));
            Outage {
                open: 0,
                since: None,
                running: None,
                last_period: began.map(|began| (began, memory.at)),
                ended: began.unwrap_or(memory.at),
                ..outage
            }
        };
        self.outages_total = closed(memory.total);
        let outages = memory.outages.into_iter();
        self.outages = outages.map(|(name, it)| (name, closed(it))).collect();
        self.forget_other_outages();
        self.remembered_at = memory.at;
        let drifts = memory.drifts.into_iter();
        self.remembered = drifts.map(|it| (it.key.clone(), it)).collect();
        if let Some(mut episode) = memory.episode {
            self.episodes = self.episodes.max(episode.id.0);
            episode.lapsed = now.since(memory.at) > STALE;
            let known_until = if episode.lapsed { memory.at } else { now };
            episode.forget_jobs(known_until);
            self.episode = Some(episode);
            self.await_idle(now);
        } else if now.since(memory.at) <= STALE && memory.preserved.is_of_restart() {
            self.continue_restart(now);
        }
        if now.since(memory.at) <= RECALLED {
            self.recall(&memory.preserved);
        }
        self.status_changed = true;
    }

    /// What the next netguard must know. `open` are the [drifts that are not
    /// over](Self::active_drifts).
    pub fn memory(&self, open: &[ActiveDrift], now: Monotonic) -> Memory {
        Memory {
            at: now,
            episodes: self.episodes,
            episode: self.episode.clone(),
            outages: self.kept_outages(now),
            total: self.outages_total.until(now),
            drifts: open.iter().filter_map(remembered).collect(),
            preserved: Arc::default(),
        }
    }

    /// The drifts that are not over; the rest where they are very many is left out.
    pub fn active_drifts(&self, now: Monotonic) -> impl Iterator<Item = ActiveDrift> {
        let drifting = self.drifting.iter();
        let open = drifting.filter_map(move |id| self.active_drift(*id, now));
        open.take(DESCRIBED)
    }

    /// What is not logged yet, in case this guard is killed.
    pub fn unreported(&self) -> Unreported {
        self.reporting.unreported()
    }

    fn kept_outages(&self, now: Monotonic) -> BySelector {
        let outages = self.outages.iter();
        let mut kept: Vec<_> = outages
            .map(|(name, outage)| (name.clone(), outage.until(now)))
            .collect();
        if kept.len() > KEPT {
            kept.select_nth_unstable_by_key(KEPT, |(_, outage)| Reverse(outage.duration));
            kept.truncate(KEPT);
        }
        kept.into_iter().collect()
    }

    fn active_drift(&self, id: ValueId, now: Monotonic) -> Option<ActiveDrift> {
        let tracked = self.values.get(id)?;
        let open_drift = tracked.open_drift.as_ref()?;
        let failed = tracked.failed.as_ref().filter(|it| it.is_reported);
        let failure = failed.map(|it| it.failure.clone());
        // What it was when it could be read says nothing of now.
        let is_unreadable =
            *tracked.state() == Phase::Failed && matches!(failure, Some(Failure::Unreadable(_)));
        let found = tracked.seen.clone().filter(|_| !is_unreadable);
        let ours = found.as_ref().and_then(|it| self.target(tracked, it));
        let mut drift = self.drift(id, found, ours, now)?;
        if let Some(writer) = &open_drift.writer {
            drift.writer = writer.clone();
            drift.caused_by = open_drift.caused_by.clone();
        } else if open_drift.unknown {
            drift.writer = Attribution::Unknown(Unknown::Initial);
        }
        Some(ActiveDrift {
            drift,
            since: (!open_drift.unknown).then(|| open_drift.since()),
            found_at: open_drift.found,
            contended: *tracked.state() == Phase::Contended,
            failure,
            is_pending: tracked.state().pending().is_some(),
            next: tracked.retry_at,
        })
    }
}

fn remembered(open: &ActiveDrift) -> Option<Remembered> {
    let drift = &open.drift;
    let known = matches!(drift.writer, Attribution::Known(_));
    Some(Remembered {
        key: drift.key.clone(),
        found: drift.new.clone()?,
        since: open.since,
        found_at: open.found_at,
        writer: known.then(|| drift.writer.clone()),
        counted: true,
    })
}
