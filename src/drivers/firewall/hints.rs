//! What was detected about tables of iptables, and who has changed what was read then.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::own::OwnProcesses;
use super::protocol::Backend;
use crate::model::{Monotonic, Source, Writer, WriterId};

/// Something that happened to the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hint {
    pub source: Source,
    pub backend: Backend,
    /// The process, where it is known.
    pub pid: Option<i32>,
    /// Whether it may have changed something, rather than being about to.
    pub is_done: bool,
    /// A time before it was done.
    pub after: Monotonic,
    /// A moment right before it was detected.
    pub detected: Monotonic,
}

impl Hint {
    /// Whether another hint may be about the same change and name its process: an audit record
    /// does not before kernel 5.8, and that of a process that has ended is of no use.
    pub fn is_anonymous(&self) -> bool {
        self.source == Source::Audit && self.pid.is_none()
    }

    fn is_own(&self, own: &OwnProcesses) -> bool {
        self.pid.is_some_and(|pid| own.contains(pid))
    }
}

/// The hints about what others than netguard have done. An anonymous one is about netguard's
/// own change, where there was one.
pub(super) fn foreign<'a>(
    hints: impl Iterator<Item = &'a Hint> + Clone,
    own: &OwnProcesses,
) -> Vec<&'a Hint> {
    let mut with_own = Backend::ALL.to_vec();
    with_own.retain(|backend| {
        let mut of_backend = hints.clone().filter(|it| it.backend == *backend);
        of_backend.any(|it| it.is_own(own))
    });
    let is_foreign = |it: &&Hint| {
        let may_be_own = it.is_anonymous() && with_own.contains(&it.backend);
        !it.is_own(own) && !may_be_own
    };
    hints.filter(is_foreign).collect()
}

/// Where and when a change was detected that these are about, and by whom it was made where
/// that is certain: no other program has been at work there.
pub(super) fn cause(hints: &[&Hint]) -> Option<(Source, Option<Writer>, Monotonic)> {
    let first = hints.iter().find(|it| it.is_done)?;
    let mut naming = hints.iter().filter(|it| !it.is_anonymous());
    let by = naming.clone().find(|it| it.is_done);
    let by = by.or_else(|| naming.clone().next());
    let is_alone = naming.all(|it| Some(it.pid) == by.map(|by| by.pid));
    let writer = by.filter(|_| is_alone).and_then(|by| {
        Some(Writer {
            id: WriterId::Pid(by.pid?),
            source: by.source,
            after: by.after,
            detected: by.detected.max(first.detected),
        })
    });
    Some((first.source, writer, first.detected))
}

/// Who was last detected to be at work, the latest first, and when.
#[derive(Debug, Default)]
pub(super) struct AtWork(VecDeque<(Option<i32>, Instant)>);

impl AtWork {
    pub fn add(&mut self, hint: &Hint, most: usize) {
        if !hint.is_anonymous() {
            self.0.retain(|(pid, _)| *pid != hint.pid);
            self.0.truncate(most - 1);
            self.0.push_front((hint.pid, Instant::now()));
        }
    }

    /// When anybody else than netguard was: its own processes are known only when they have
    /// ended.
    pub fn others(&self, own: &OwnProcesses) -> Option<Instant> {
        let is_own = |pid: &Option<i32>| pid.is_some_and(|pid| own.contains(pid));
        let other = self.0.iter().find(|(pid, _)| !is_own(pid));
        other.map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: i32 = 11;

    fn hint(source: Source, pid: Option<i32>, is_done: bool, at: u64) -> Hint {
        Hint {
            source,
            backend: Backend::Legacy,
            pid,
            is_done,
            after: Monotonic::from_nanos(at - 1),
            detected: Monotonic::from_nanos(at),
        }
    }

    #[test]
    fn a_record_without_a_process_is_about_what_another_hint_names() {
        let own = OwnProcesses::default();
        own.add(OWN.unsigned_abs());
        let (lock, audit) = (Source::XtablesLock, Source::Audit);
        let opened = hint(lock, Some(7), false, 1);
        let record = hint(audit, None, true, 2);
        let closed = hint(lock, Some(7), true, 3);
        let other = hint(lock, Some(8), true, 4);
        let unknown = hint(Source::Connector, None, true, 4);
        let by_own = hint(lock, Some(OWN), true, 3);
        let nft = Hint {
            backend: Backend::Nft,
            ..by_own
        };
        for (hints, expected) in [
            (&[opened, record, closed][..], Some(Some(7))),
            (&[opened, record], Some(Some(7))),
            (&[record], Some(None)),
            (&[record, nft], Some(None)),
            (&[opened, record, closed, other], Some(None)),
            (&[opened, closed, unknown], Some(None)),
            (&[record, by_own], None),
            (&[by_own, record, closed], Some(Some(7))),
            (&[opened], None),
        ] {
            let mut hints = hints.to_vec();
            // Which of the queues was read first does not matter.
            for _ in 0..hints.len() {
                hints.rotate_left(1);
                let cause = cause(&foreign(hints.iter(), &own));
                let pid = cause.map(|(_, writer, _)| writer?.pid());
                assert_eq!(pid, expected, "{hints:?}");
            }
        }
    }

    #[test]
    fn nobody_else_is_at_work_where_only_netguard_is() {
        let (own, mut at_work) = (OwnProcesses::default(), AtWork::default());
        at_work.add(&hint(Source::XtablesLock, Some(OWN), true, 1), 8);
        at_work.add(&hint(Source::Audit, None, true, 2), 8);
        assert!(at_work.others(&own).is_some(), "who it is shows at its end");
        own.add(OWN.unsigned_abs());
        assert_eq!(at_work.others(&own), None);
        at_work.add(&hint(Source::Connector, None, true, 3), 8);
        assert!(at_work.others(&own).is_some(), "one of several");
    }
}
