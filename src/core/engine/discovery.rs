//! What there is to watch: interfaces that come and go, and their keys.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use super::drift::Cause;
use super::selection::Discovery;
use super::values::{FOLLOWED, place};
use super::{Engine, Timer, ValueId};
use crate::kinds::Absence;
use crate::model::{InterfaceFolder, Mode, Monotonic, Source, SysctlKey};
use crate::reporting::{Drift, Failure, Record};
use crate::resource::{Resource, State};

/// Of another name or MTU the kernel reports first, and moves or creates the files
/// second (rtnetlink's notifier runs before inetdev's and addrconf's): this much
/// later they are there.
const FILES: Duration = Duration::from_millis(50);

impl Engine {
    fn look_at_interface(&mut self, name: &str, at: Monotonic) {
        let mut ids = self.values.of_interface(name);
        ids.sort_by_cached_key(|id| self.values.get(*id).map(|t| place(&t.key)));
        for id in ids {
            let absence = self.values.get(id).map(|it| it.key.rules().absence());
            let cause = Cause {
                // What goes with a link went now; its parameters were written at some time.
                late: absence != Some(Absence::Drift),
                ..Cause::new(Source::Rtnetlink, None, at)
            };
            self.look(id, cause);
        }
    }

    /// Another interface has the name of one that is gone.
    fn forget_removed(&mut self, name: &str) {
        if self.removed_links.remove(name) {
            let ids = self.values.of_interface(name);
            self.forget(&ids);
        }
    }

    pub(super) fn link_renamed(&mut self, old: String, new: String, at: Monotonic) {
        let now = self.now;
        self.forget_removed(&new);
        self.follow_link(&old, &new, now);
        self.link_removed(old, now);
        self.link_added(&new, at);
        self.look_again_at(new, now);
    }

    pub(super) fn link_changed(&mut self, name: &str, at: Monotonic) {
        self.look_at_interface(name, at);
        // Their addresses may be any interface's.
        let lack_addresses = std::mem::take(&mut self.lack_addresses);
        for id in &lack_addresses {
            // What failed is tried again now.
            self.clear_retry(*id);
        }
        self.look_at(lack_addresses, at);
        self.link_moved(self.now);
    }

    /// Checks what may have what it lacks.
    pub(super) fn look_at(&mut self, ids: BTreeSet<ValueId>, at: Monotonic) {
        for id in ids {
            self.look(id, Cause::new(Source::Rtnetlink, None, at));
        }
    }

    /// The keys of a new interface are known without listing anything, unless
    /// a pattern has wildcards in other places too.
    pub(super) fn link_added(&mut self, name: &str, at: Monotonic) {
        self.forget_removed(name);
        for folder in InterfaceFolder::ALL {
            self.discover_interface(name, folder);
        }
        self.look_at_interface(name, at);
        let is_other = |discovery: &Discovery| matches!(discovery, Discovery::Matches(_));
        if self.selection.discoveries().iter().any(is_other) {
            self.check(Source::Rtnetlink);
        }
    }

    /// The interface's files may not be there yet.
    pub(super) fn look_again_at(&mut self, name: String, now: Monotonic) {
        self.timers.set(Timer::LinksAgain, now + FILES);
        self.links_again.push_back((now + FILES, name));
    }

    /// Forgets what these values of an interface were: the next one of its name
    /// is another one.
    pub(super) fn forget(&mut self, ids: &[ValueId]) {
        for id in ids {
            let tracked = self.values.get_mut(*id);
            if let Some(tracked) = tracked.filter(|it| it.key.rules().goes_with_links()) {
                tracked.forget();
                self.good_states.remove(*id);
                self.reporting.forget(&tracked.key);
            }
        }
    }

    /// Its drifts are over; the interface's other values are dropped later.
    pub(super) fn link_removed(&mut self, name: String, now: Monotonic) {
        self.good_states.forget_link(&name);
        let ids = self.values.of_interface(&name);
        if let Some(at) = self.removed_links.add(name, now) {
            self.timers.set(Timer::RemovedLinks, at);
        }
        for id in ids {
            if self
                .values
                .get(id)
                .is_some_and(|it| it.open_drift.is_some())
            {
                self.look(id, Cause::new(Source::Rtnetlink, None, now));
            }
        }
    }

    pub(super) fn check_removed_links(&mut self, now: Monotonic) {
        match self.removed_links.take(now) {
            Ok(names) => {
                for name in names {
                    let ids = self.values.of_interface(&name);
                    self.vanished(&name, now);
                    self.forget(&ids);
                    self.backlog.add_gone(ids);
                }
                // A network restart may make it again.
                if self.episode.is_none() {
                    self.record_vanished();
                }
            }
            Err(at) => self.timers.set(Timer::RemovedLinks, at),
        }
    }

    /// A link is gone that may be one that the configuration names.
    fn vanished(&mut self, name: &str, now: Monotonic) {
        let id = self.values.id(&Resource::Link(name.into()));
        let tracked = id.and_then(|id| self.values.get(id));
        let Some(tracked) = tracked.filter(|it| it.exact && it.good.is_some()) else {
            return;
        };
        let id = tracked.id;
        let drift = self.drift(id, Some(State::Absent), None, now);
        let drift = drift.map(|it| Drift {
            source: Source::Rtnetlink,
            ..it
        });
        self.vanished.insert(id, drift);
    }

    /// Reports the links that are gone. They are pending until their owner makes them again.
    pub(super) fn record_vanished(&mut self) {
        let unreported = self.vanished.iter_mut();
        let unreported: Vec<_> = unreported
            .filter_map(|(id, drift)| Some((*id, drift.take()?)))
            .collect();
        for (id, drift) in unreported {
            let record = match drift.mode {
                Mode::Observe => Record::DriftObserved(drift),
                Mode::Restore => Record::RestoreFailed(drift, Failure::Vanished),
            };
            self.record_drift(id, record);
        }
    }

    /// A link exists that may have been gone.
    pub(super) fn reappeared(&mut self, id: ValueId, value: &State, now: Monotonic) {
        let was_reported = self.vanished.remove(&id).is_some_and(|it| it.is_none());
        if was_reported
            && let Some(drift) = self.drift(id, Some(State::Absent), Some(value.clone()), now)
        {
            self.record_drift(id, Record::DriftEnded(drift));
        }
    }

    /// Takes the keys that an interface should have in a folder into the watched set.
    pub(super) fn discover_interface(&mut self, name: &str, folder: InterfaceFolder) {
        if !self.values.is_complete(name, folder) {
            let keys = self.selection.keys_for_interface(name, folder);
            self.discovered(keys);
            self.values.set_complete(name, folder);
        }
    }

    pub(super) fn discovered(&mut self, keys: Vec<SysctlKey>) {
        for key in keys {
            let key = Resource::Sysctl(key.canonical());
            if let Some(invariant) = self.selection.governing(&key) {
                self.follow_causes_of(&key, invariant);
                let id = self.values.add(key, invariant, false);
                self.take_recalled(id);
                self.bring_over(id, self.now);
                self.status_changed = true;
            }
        }
    }

    /// What changes `key` besides a write of its own is followed, whether it is
    /// guarded or not: the kernel may report its change alone. So are the links and sets that
    /// it needs, where no write shows that one is missing.
    pub(super) fn follow_causes_of(&mut self, key: &Resource, invariant: usize) {
        let causes = self.selection.causes_of(key).into_iter();
        for cause in causes.chain(self.selection.needed(invariant)) {
            self.bring_over_followed(&cause);
            self.values.add(cause, FOLLOWED, false);
        }
    }

    /// Takes the keys into the watched set that these invariants spell out.
    pub(super) fn add_exact_keys(&mut self, invariants: Range<usize>) {
        for invariant in invariants {
            let Some(key) = self.selection.exact_key(invariant) else {
                continue;
            };
            let known = self.values.id(&key).and_then(|id| self.values.get(id));
            // What was kept before a reload is brought over with the others.
            let id = match known {
                Some(it) if it.guarded || self.is_stale(it) => it.id,
                _ => {
                    self.follow_causes_of(&key, invariant);
                    self.values.add(key, invariant, true)
                }
            };
            if let Some(dev) = self.selection.dev(invariant) {
                self.values.bind(id, dev);
            }
        }
        self.status_changed = true;
    }
}
