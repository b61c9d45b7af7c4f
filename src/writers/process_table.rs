//! What is known of processes: who had which number when, and as what program.
//!
//! A *life* is a process between two execs, or from its fork to its first exec.
//! A number that is used again begins another life, so that what a process did
//! is never put down to the next one of its number. Old lives are forgotten as
//! new ones begin; those of processes that still run are kept. What that costs
//! does not depend on how many run.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Included};
use std::rc::Rc;
use std::time::Duration;

use super::image::{self, Birth, Image};
use crate::clock;
use crate::model::{Monotonic, Parent};

/// How many of the newest lives are kept: those of half a second of a host that
/// executes 1,000 programs a second, in about half a megabyte. A record asks a
/// few milliseconds after the write.
const RECENT: usize = 1024;
/// How many older ones are kept, of processes that still run; what is beyond
/// that `/proc` has.
const LASTING: usize = 4096;
/// The kernel puts the new program in place first and reports the exec when it
/// is loaded (begin_new_exec and proc_exec_connector in fs/exec.c): an examination that
/// was over less than this before may have seen the new one already. A machine
/// that stalls may take longer, and a debugger as long as it likes, so it is
/// relied on only for parents, for candidates, and for a process that still runs
/// and was not seen before it wrote ([`KnownBy::Proc`]).
///
/// [`KnownBy::Proc`]: crate::model::KnownBy::Proc
pub const SWITCH: Duration = Duration::from_millis(1);
/// The moment after every other.
const NEVER: Monotonic = Monotonic::from_nanos(u64::MAX);
/// How many parents are recorded.
const DEPTH: usize = 8;

/// Reads a process: [`Image::read`] and [`Birth::read`], or a test's.
pub trait Procfs {
    /// As what it runs.
    fn image(&mut self, pid: i32) -> Option<Image>;
    /// When it began.
    fn birth(&mut self, pid: i32) -> Option<Birth>;
    /// Whether no process has this number, or only one that has ended.
    fn has_ended(&mut self, pid: i32) -> bool;
    /// Whether a process has this number, which is cheaper to ask.
    fn exists(&mut self, pid: i32) -> bool;
}

/// The kernel's `/proc`.
#[derive(Debug)]
pub struct Proc;

impl Procfs for Proc {
    fn image(&mut self, pid: i32) -> Option<Image> {
        Image::read(pid)
    }

    fn birth(&mut self, pid: i32) -> Option<Birth> {
        Birth::read(pid)
    }

    fn has_ended(&mut self, pid: i32) -> bool {
        image::has_ended(pid)
    }

    fn exists(&mut self, pid: i32) -> bool {
        image::exists(pid)
    }
}

/// One life.
#[derive(Debug, Clone)]
pub struct Incarnation {
    /// When it began. It ends where the next of its number begins.
    pub since: Monotonic,
    /// When the process was forked.
    pub born: Monotonic,
    /// Whose child it was then.
    pub parent: i32,
    /// What was seen of it.
    look: Examination,
}

/// An examination of a process. A fork's copy is what its parent is.
#[derive(Debug, Clone)]
struct Examination {
    image: Option<Rc<Image>>,
    /// When it was over.
    at: Monotonic,
    /// Whether there was none: too many programs were executed.
    passed_over: bool,
}

impl Examination {
    /// No examination.
    fn none(at: Monotonic, passed_over: bool) -> Self {
        Examination {
            image: None,
            at,
            passed_over,
        }
    }
}

impl Incarnation {
    /// Its image, if the process was active after `after`. An examination that
    /// ended before then has not seen the next image.
    pub fn image_at(&self, after: Monotonic) -> Option<&Image> {
        let was_over = self.look.at <= after.max(self.since);
        self.look.image.as_deref().filter(|_| was_over)
    }

    /// Whether it was not examined, since too many programs were executed.
    pub fn was_passed_over(&self) -> bool {
        self.look.passed_over
    }
}

/// The process that had a number at some time.
#[derive(Debug)]
pub enum Found {
    /// This life.
    Incarnation(Incarnation),
    /// None that is known, and one does later.
    Later,
    /// One of these, if any are known: another life began in that time.
    Unclear(Vec<Incarnation>),
    /// None that is known.
    Nobody,
}

/// A number, and when the life began.
type Key = (i32, Monotonic);

/// All lives that are known.
#[derive(Debug)]
pub struct ProcessTable<P> {
    processes: BTreeMap<Key, Incarnation>,
    /// The newest, the oldest of them first.
    recent: VecDeque<Key>,
    /// Older ones of processes that were running when they were last checked, the
    /// one that is due for the next check first.
    lasting: VecDeque<Key>,
    /// Since when every fork and exec is reported.
    reported_since: Monotonic,
    /// When the newest of those began that were forgotten.
    forgotten: Monotonic,
    proc: P,
}

impl<P: Procfs> ProcessTable<P> {
    /// None yet.
    pub fn new(proc: P) -> Self {
        ProcessTable {
            processes: BTreeMap::new(),
            recent: VecDeque::new(),
            lasting: VecDeque::new(),
            reported_since: NEVER,
            forgotten: Monotonic::default(),
            proc,
        }
    }

    /// Forgets all: something was missed. Every fork and exec after `reported_since`
    /// will be reported; none is where that is `None`.
    pub fn clear(&mut self, reported_since: Option<Monotonic>) {
        self.processes.clear();
        self.recent.clear();
        self.lasting.clear();
        self.reported_since = reported_since.unwrap_or(NEVER);
    }

    /// Whether every fork and exec after `after` was reported.
    pub fn were_reported_since(&self, after: Monotonic) -> bool {
        self.reported_since <= after
    }

    /// Whether every fork and exec after `after` is known.
    pub fn are_complete_since(&self, after: Monotonic) -> bool {
        self.reported_since.max(self.forgotten) <= after
    }

    /// Examines a process that runs already.
    pub fn add(&mut self, pid: i32) {
        if let Some(birth) = self.proc.birth(pid) {
            let look = self.examine(pid);
            if look.image.is_some() {
                self.insert(pid, birth.at, birth.at, birth.parent, look);
            }
        }
    }

    /// A process began as the copy of another. Where that one is not known, it is
    /// examined, or passed over.
    pub fn fork(&mut self, parent: i32, child: i32, at: Monotonic, looks: bool) {
        let look = match self.latest(parent) {
            // A process does not exec while it forks: what was seen
            // before is what was copied.
            Some(incarnation) if incarnation.look.at <= at => incarnation.look.clone(),
            Some(incarnation) => Examination::none(at, incarnation.was_passed_over()),
            None => {
                // What is read now is what the parent is now; it need not have
                // been that when it forked.
                if looks {
                    self.add(parent);
                }
                Examination::none(at, !looks)
            }
        };
        self.insert(child, at, at, parent, look);
    }

    /// A process executed a program. It is examined, or passed over.
    pub fn exec(&mut self, pid: i32, at: Monotonic, looks: bool) {
        let look = match looks {
            true => self.examine(pid),
            false => Examination::none(at, true),
        };
        let (born, parent) = match self.latest(pid) {
            Some(incarnation) => (incarnation.born, incarnation.parent),
            None => match looks.then(|| self.proc.birth(pid)).flatten() {
                Some(birth) => (birth.at, birth.parent),
                None => (Monotonic::default(), 0),
            },
        };
        self.insert(pid, at, born, parent, look);
    }

    /// The process with the number `pid` that wrote a value that had drifted by `by`, in a call
    /// that was not over by `after`.
    pub fn find(&self, pid: i32, after: Monotonic, by: Monotonic) -> Found {
        let first = (pid, Monotonic::default());
        match self.processes.range(first..=(pid, by)).next_back() {
            Some((_, incarnation))
                if self
                    .end(pid, incarnation.since)
                    .is_some_and(|end| end <= after) =>
            {
                Found::Later
            }
            Some((_, incarnation)) if incarnation.since <= after => {
                Found::Incarnation(incarnation.clone())
            }
            // A process cannot have written before it began.
            Some((_, incarnation))
                if incarnation.since == incarnation.born
                    && !self.has_earlier(pid, incarnation.since) =>
            {
                Found::Incarnation(incarnation.clone())
            }
            Some(_) => Found::Unclear(self.between(pid, after, by)),
            None if self.latest(pid).is_some() => Found::Later,
            None => Found::Nobody,
        }
    }

    /// Those who had the number `pid` at some time between `after` and `by`, as
    /// far as they are known.
    fn between(&self, pid: i32, after: Monotonic, by: Monotonic) -> Vec<Incarnation> {
        let first = (pid, Monotonic::default());
        let processes = self
            .processes
            .range(first..=(pid, by))
            .map(|(_, incarnation)| incarnation);
        let processes = processes.filter(|incarnation| {
            self.end(pid, incarnation.since)
                .is_none_or(|end| end > after)
        });
        let processes: Vec<Incarnation> = processes.cloned().collect();
        // Before the first there may have been others, which are forgotten.
        let reaches = |incarnation: &Incarnation| {
            incarnation.since <= after || incarnation.since == incarnation.born
        };
        let all_seen = processes
            .iter()
            .all(|incarnation| self.image(pid, incarnation).is_some());
        if processes.first().is_some_and(reaches) && all_seen {
            processes
        } else {
            Vec::new()
        }
    }

    /// As what program this life of `pid` ran, unless what was seen may be what
    /// came after it.
    pub fn image<'a>(&self, pid: i32, incarnation: &'a Incarnation) -> Option<&'a Image> {
        let in_time = |end| incarnation.look.at + SWITCH < end;
        let in_time = self.end(pid, incarnation.since).is_none_or(in_time);
        let image = incarnation.look.image.as_deref();
        incarnation
            .image_at(incarnation.since)
            .or(image.filter(|_| in_time))
    }

    /// Whether this is the last life of its number.
    pub fn is_last(&self, pid: i32, incarnation: &Incarnation) -> bool {
        self.latest(pid)
            .is_some_and(|last| last.since == incarnation.since)
    }

    /// The parent of a process that had this parent and was forked then, that
    /// one's parent, and so on.
    pub fn parents(&mut self, parent: i32, born: Monotonic) -> Vec<Parent> {
        let mut parents = Vec::new();
        let (mut pid, mut born) = (parent, born);
        while pid > 0 && parents.len() < DEPTH {
            if self.latest(pid).is_none() {
                self.add(pid);
            }
            let first = (pid, Monotonic::default());
            let Some((_, incarnation)) = self.processes.range(first..=(pid, born)).next_back()
            else {
                break;
            };
            let Some(image) = incarnation.image_at(born).or(self.image(pid, incarnation)) else {
                break;
            };
            let comm = image.comm.to_string();
            parents.push(Parent { pid, comm });
            (pid, born) = (incarnation.parent, incarnation.born);
        }
        parents
    }

    /// The last life of this number that is known.
    pub fn latest(&self, pid: i32) -> Option<&Incarnation> {
        let all = (pid, Monotonic::default())..=(pid, NEVER);
        self.processes
            .range(all)
            .next_back()
            .map(|(_, incarnation)| incarnation)
    }

    fn has_earlier(&self, pid: i32, since: Monotonic) -> bool {
        let all = (pid, Monotonic::default())..(pid, since);
        self.processes.range(all).next().is_some()
    }

    /// When the life of this number that began then ended and the next began, if
    /// one did.
    fn end(&self, pid: i32, since: Monotonic) -> Option<Monotonic> {
        let last = (pid, NEVER);
        let later = (Excluded((pid, since)), Included(last));
        self.processes.range(later).next().map(|((_, at), _)| *at)
    }

    fn examine(&mut self, pid: i32) -> Examination {
        let image = self.proc.image(pid).map(Rc::new);
        Examination {
            image,
            at: clock::now(),
            passed_over: false,
        }
    }

    fn insert(
        &mut self,
        pid: i32,
        since: Monotonic,
        born: Monotonic,
        parent: i32,
        look: Examination,
    ) {
        let incarnation = Incarnation {
            since,
            born,
            parent,
            look,
        };
        if self.processes.insert((pid, since), incarnation).is_none() {
            self.recent.push_back((pid, since));
        }
        self.forget();
    }

    /// Forgets the oldest life where there are too many, unless its process
    /// still runs, and checks one of those that were kept for that.
    fn forget(&mut self) {
        if self.recent.len() > RECENT
            && let Some(key) = self.recent.pop_front()
        {
            self.keep_or_remove(key);
        }
        if let Some(key) = self.lasting.pop_front() {
            self.keep_or_remove(key);
        }
    }

    fn keep_or_remove(&mut self, key: Key) {
        let (pid, since) = key;
        let is_last = self
            .latest(pid)
            .is_some_and(|incarnation| incarnation.since == since);
        if is_last && self.lasting.len() < LASTING && self.proc.exists(pid) {
            self.lasting.push_back(key);
        } else {
            self.remove(key);
        }
    }

    /// Removes a life and those of its number before it.
    fn remove(&mut self, (pid, since): Key) {
        let first = (pid, Monotonic::default());
        while let Some((key, _)) = self.processes.range(first..=(pid, since)).next_back() {
            let key = *key;
            self.processes.remove(&key);
            self.forgotten = self.forgotten.max(key.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Processes of a test, by their number.
    #[derive(Default)]
    struct Fake(HashMap<i32, (Image, Birth)>);

    impl Fake {
        fn runs(&mut self, pid: i32, program: &str, parent: i32) {
            let image = Image {
                comm: program.into(),
                cmdline: program.into(),
                cgroup: None,
                uid: 0,
                login_uid: None,
            };
            let at = Monotonic::default();
            let stack = 0;
            self.0.insert(pid, (image, Birth { at, parent, stack }));
        }
    }

    impl Procfs for Fake {
        fn image(&mut self, pid: i32) -> Option<Image> {
            self.0.get(&pid).map(|(image, _)| image.clone())
        }

        fn birth(&mut self, pid: i32) -> Option<Birth> {
            self.0.get(&pid).map(|(_, birth)| *birth)
        }

        fn has_ended(&mut self, pid: i32) -> bool {
            !self.exists(pid)
        }

        fn exists(&mut self, pid: i32) -> bool {
            self.0.contains_key(&pid)
        }
    }

    fn processes() -> ProcessTable<Fake> {
        let mut processes = ProcessTable::new(Fake::default());
        processes.proc.runs(1, "init", 0);
        processes.add(1);
        processes
    }

    /// A moment in the future: an examination that starts now is over by then.
    fn at(second: u64) -> Monotonic {
        clock::now() + std::time::Duration::from_secs(second)
    }

    /// The program behind `pid` at a moment, or why there is none.
    fn program(
        processes: &ProcessTable<Fake>,
        pid: i32,
        after: Monotonic,
        by: Monotonic,
    ) -> String {
        match processes.find(pid, after, by) {
            Found::Incarnation(incarnation) => {
                let image = incarnation.image_at(after);
                image.map_or("unseen".to_owned(), |image| image.comm.to_string())
            }
            Found::Unclear(processes) => {
                let since = |incarnation: &Incarnation| {
                    incarnation.look.image.as_ref().map(|i| i.comm.to_string())
                };
                let names: Option<Vec<_>> = processes.iter().map(since).collect();
                format!("one of {}", names.expect("seen").join(", "))
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_copy_is_what_its_parent_is_until_it_executes_something() {
        let mut processes = processes();
        let (forked, executed) = (clock::now(), clock::now());
        processes.fork(1, 7, forked, true);
        processes.proc.runs(7, "sysctl", 1);
        processes.exec(7, executed, true);
        let (long_ago, later) = (Monotonic::default(), at(9));
        assert_eq!(program(&processes, 7, forked, forked), "init");
        let seen = clock::now();
        assert_eq!(program(&processes, 7, seen, later), "sysctl");
        assert_eq!(
            program(&processes, 7, executed, later),
            "unseen",
            "not by then"
        );
        assert_eq!(
            program(&processes, 7, long_ago, later),
            "one of init, sysctl"
        );
        assert_eq!(program(&processes, 7, forked, later), "one of init, sysctl");
        // It was detected late, or its call took long.
        assert_eq!(program(&processes, 7, seen, forked), "Later");
        assert_eq!(program(&processes, 7, later, seen), "sysctl");
        assert_eq!(program(&processes, 7, long_ago, long_ago), "Later");
        assert_eq!(program(&processes, 8, long_ago, later), "Nobody");
        assert_eq!(program(&processes, 1, later, later), "init");
        assert_eq!(
            processes.parents(1, forked),
            [Parent {
                pid: 1,
                comm: "init".to_owned()
            }]
        );
    }

    #[test]
    fn a_copy_cannot_have_written_before_it_was_made() {
        let mut processes = processes();
        let forked = clock::now();
        processes.fork(1, 7, forked, true);
        assert_eq!(program(&processes, 7, Monotonic::default(), at(1)), "init");
        // Unless its number was another's before.
        let again = at(1);
        processes.fork(1, 7, again, true);
        let long_ago = Monotonic::default();
        assert_eq!(program(&processes, 7, long_ago, at(2)), "one of init, init");
        assert_eq!(program(&processes, 7, forked, forked), "init");
    }

    #[test]
    fn a_look_that_came_too_late_is_none() {
        let mut processes = processes();
        let (first, second) = (clock::now(), clock::now());
        // By the time of the examination it runs the second program already.
        processes.fork(1, 7, first, true);
        processes.proc.runs(7, "second", 1);
        processes.exec(7, first, true);
        processes.fork(7, 8, first, true);
        processes.exec(7, second, true);
        let seen = clock::now();
        assert_eq!(program(&processes, 7, first, first), "unseen");
        assert_eq!(program(&processes, 7, seen, seen), "second");
        assert_eq!(
            program(&processes, 7, first, seen),
            "one of ",
            "not all were seen"
        );
        assert_eq!(
            program(&processes, 8, seen, seen),
            "unseen",
            "nor what it copied"
        );
        assert_eq!(
            program(&processes, 1, seen, seen),
            "init",
            "it is still itself"
        );
    }

    #[test]
    fn a_copy_of_who_was_seen_later_is_not_known() {
        let mut processes = processes();
        let (executed, forked) = (clock::now(), clock::now());
        processes.proc.runs(7, "sh", 1);
        processes.exec(7, executed, true);
        processes.fork(7, 8, forked, true);
        // And a copy of the copy.
        processes.fork(8, 9, at(1), true);
        // The parent may have executed something else between fork and examination.
        assert_eq!(program(&processes, 8, at(2), at(2)), "unseen");
        assert_eq!(program(&processes, 9, at(2), at(2)), "unseen");
        assert_eq!(program(&processes, 7, at(2), at(2)), "sh");
    }

    #[test]
    fn who_was_before_what_is_known_may_have_written_too() {
        let mut processes = processes();
        processes.proc.runs(7, "sh", 1);
        processes.exec(7, clock::now(), true);
        // It was another program before that, which is forgotten.
        let found = processes.find(7, Monotonic::default(), at(1));
        assert!(matches!(found, Found::Unclear(processes) if processes.is_empty()));
    }

    #[test]
    fn who_was_passed_over_is_not_taken_for_what_it_was_before() {
        let mut processes = processes();
        let (first, second) = (clock::now(), at(1));
        processes.proc.runs(7, "sysctl", 1);
        processes.fork(1, 7, first, false);
        processes.exec(7, first, false);
        // Its copy, and that of one that is not known.
        processes.fork(7, 8, first, true);
        processes.fork(9, 10, first, false);
        for pid in [7, 8, 10] {
            assert_eq!(program(&processes, pid, first, first), "unseen");
            let found = processes.find(pid, first, first);
            assert!(
                matches!(found, Found::Incarnation(incarnation) if incarnation.was_passed_over())
            );
        }
        processes.exec(7, second, true);
        assert_eq!(program(&processes, 7, at(2), at(2)), "sysctl");
    }

    /// Lives of `count` processes that run, and then of `ended` short-lived ones.
    fn busy(count: i32, ended: i32) -> ProcessTable<Fake> {
        let mut processes = processes();
        for pid in 10..10 + count {
            processes.proc.runs(pid, "kept", 1);
            processes.add(pid);
        }
        for pid in (10 + count..).take(usize::try_from(ended).expect("a number")) {
            processes.fork(1, pid, clock::now(), true);
            processes.exec(pid, clock::now(), true);
        }
        processes
    }

    #[test]
    fn old_lives_go_and_those_that_last_stay() {
        let most = RECENT + LASTING;
        let running = 2 * i32::try_from(RECENT).expect("a number");
        let ended = 5 * i32::try_from(most).expect("a number");
        let processes = busy(running, ended);
        assert!(processes.processes.len() <= most && processes.recent.len() <= RECENT);
        for pid in [1, 10, 10 + running / 2, 9 + running] {
            let program = program(&processes, pid, at(1), at(1));
            assert!(["init", "kept"].contains(&program.as_str()), "{program}");
        }
        assert_eq!(program(&processes, 10 + running, at(1), at(1)), "Nobody");
    }

    #[test]
    fn too_many_that_last_are_not_kept() {
        let most = RECENT + LASTING;
        let processes = busy(2 * i32::try_from(most).expect("a number"), 0);
        assert!(
            processes.processes.len() <= most,
            "{}",
            processes.processes.len()
        );
        assert!(processes.lasting.len() <= LASTING);
    }

    #[test]
    fn what_is_forgotten_is_known_to_be_missing() {
        let mut processes = processes();
        assert!(!processes.are_complete_since(at(1)), "nothing is told yet");
        let subscribed = clock::now();
        processes.clear(Some(subscribed));
        assert!(processes.are_complete_since(subscribed));
        processes.exec(7, at(1), true);
        for pid in 10..10 + i32::try_from(RECENT).expect("a number") {
            assert!(processes.are_complete_since(subscribed));
            processes.exec(pid, at(2), true);
        }
        assert!(!processes.are_complete_since(subscribed));
        assert!(processes.are_complete_since(at(2)));
        processes.clear(None);
        assert!(!processes.are_complete_since(at(9)));
    }

    #[test]
    fn who_has_ended_is_forgotten_with_all_that_it_was() {
        let mut processes = processes();
        processes.proc.runs(7, "sh", 1);
        processes.exec(7, at(1), true);
        for pid in 10..12 + i32::try_from(RECENT).expect("a number") {
            processes.exec(pid, at(2), true);
        }
        assert!(
            processes.lasting.iter().any(|(pid, _)| *pid == 7),
            "it runs"
        );
        processes.proc.runs(7, "sysctl", 1);
        processes.exec(7, at(3), true);
        processes.proc.0.remove(&7);
        for pid in 10..12 + i32::try_from(RECENT).expect("a number") {
            processes.exec(pid, at(4), true);
        }
        assert_eq!(program(&processes, 7, at(1), at(2)), "Nobody");
    }
}
