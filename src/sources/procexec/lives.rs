//! What is known of processes: who had which number when, and as what program.
//!
//! A *life* is a process between two execs, or from its fork to its first exec.
//! A number that is used again begins another life, so that what a process did
//! is never put down to the next one of its number. Old lives are forgotten as
//! new ones begin; those of processes that still run are kept.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::image::{Birth, Image};
use crate::clock;
use crate::model::{Monotonic, Parent};

/// How many lives are kept: those of half a second of a host that executes
/// 1,000 programs a second, in about half a megabyte. A record asks a few
/// milliseconds after the write.
const MOST: usize = 1024;
/// The kernel puts the new program in place first and tells of the exec when it
/// is loaded (begin_new_exec and proc_exec_connector in fs/exec.c): a look that
/// was over less than this before may have seen the new one already.
pub const SWITCH: Duration = Duration::from_millis(1);
/// How many parents are told.
const DEPTH: usize = 8;

/// Reads a process: [`Image::read`] and [`Birth::read`], or a test's.
pub trait Procfs {
    /// As what it runs.
    fn image(&mut self, pid: i32) -> Option<Image>;
    /// When it began.
    fn birth(&mut self, pid: i32) -> Option<Birth>;
    /// Whether a process has this number.
    fn runs(&mut self, pid: i32) -> bool;
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

    fn runs(&mut self, pid: i32) -> bool {
        // Without a right to signal it the answer is EPERM.
        kill(Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
    }
}

/// One life.
#[derive(Debug, Clone)]
pub struct Life {
    /// When it began. It ends where the next of its number begins.
    pub since: Monotonic,
    /// When the process was forked.
    pub born: Monotonic,
    /// Whose child it was then.
    pub parent: i32,
    /// What was seen of it.
    look: Rc<Look>,
}

/// A look at a process. A fork's copy is what its parent is.
#[derive(Debug)]
struct Look {
    /// At which process.
    pid: i32,
    image: Option<Image>,
    /// When it was over.
    at: Monotonic,
    /// Whether the process had become another one before it was over.
    late: Cell<bool>,
    /// Whether there was none: too many programs were executed.
    passed_over: bool,
}

impl Look {
    /// No look at this process, which began then.
    fn none(pid: i32, at: Monotonic, passed_over: bool) -> Rc<Self> {
        Rc::new(Look {
            pid,
            image: None,
            at,
            late: Cell::new(false),
            passed_over,
        })
    }
}

impl Life {
    /// As what program it runs, where that is certain.
    pub fn image(&self) -> Option<&Image> {
        self.look.image.as_ref().filter(|_| !self.look.late.get())
    }

    /// Whether nobody looked, since too many programs were executed.
    pub fn was_passed_over(&self) -> bool {
        self.look.passed_over
    }
}

/// Who had a number at some time.
#[derive(Debug)]
pub enum Found {
    /// This life.
    Life(Life),
    /// Nobody that is known, and somebody does later.
    Later,
    /// One of several: another life began in that time.
    Unclear,
    /// Nobody that is known.
    Nobody,
}

/// All lives that are known.
#[derive(Debug)]
pub struct Lives<P> {
    lives: BTreeMap<(i32, Monotonic), Life>,
    /// Their keys, the oldest first.
    order: VecDeque<(i32, Monotonic)>,
    proc: P,
}

impl<P: Procfs> Lives<P> {
    /// None yet.
    pub fn new(proc: P) -> Self {
        Lives {
            lives: BTreeMap::new(),
            order: VecDeque::new(),
            proc,
        }
    }

    /// Forgets all: something was missed.
    pub fn clear(&mut self) {
        self.lives.clear();
        self.order.clear();
    }

    /// Takes a look at a process that runs already.
    pub fn add(&mut self, pid: i32) {
        if let Some(birth) = self.proc.birth(pid) {
            let look = self.look(pid);
            if look.image.is_some() {
                self.insert(pid, birth.at, birth.at, birth.parent, look);
            }
        }
    }

    /// A process began as the copy of another. Where that one is not known, it is
    /// looked at, or passed over.
    pub fn fork(&mut self, parent: i32, child: i32, at: Monotonic, looks: bool) {
        self.ends(child, at);
        let look = match self.latest(parent) {
            Some(life) => Rc::clone(&life.look),
            None => {
                // What is read now is what the parent is now; it need not have
                // been that when it forked.
                if looks {
                    self.add(parent);
                }
                Look::none(child, at, !looks)
            }
        };
        self.insert(child, at, at, parent, look);
    }

    /// A process executed a program. It is looked at, or passed over.
    pub fn exec(&mut self, pid: i32, at: Monotonic, looks: bool) {
        self.ends(pid, at);
        let look = match looks {
            true => self.look(pid),
            false => Look::none(pid, at, true),
        };
        let (born, parent) = match self.latest(pid) {
            Some(life) => (life.born, life.parent),
            None => match looks.then(|| self.proc.birth(pid)).flatten() {
                Some(birth) => (birth.at, birth.parent),
                None => (Monotonic::default(), 0),
            },
        };
        self.insert(pid, at, born, parent, look);
    }

    /// Who had the number `pid` in the time from `after` until `by`.
    pub fn find(&self, pid: i32, after: Monotonic, by: Monotonic) -> Found {
        let first = (pid, Monotonic::default());
        match self.lives.range(first..=(pid, by)).next_back() {
            Some((_, life)) if life.since <= after => Found::Life(life.clone()),
            // A process cannot have written before it began.
            Some((_, life)) if life.since == life.born && !self.has_earlier(pid, life.since) => {
                Found::Life(life.clone())
            }
            Some(_) => Found::Unclear,
            None if self.latest(pid).is_some() => Found::Later,
            None => Found::Nobody,
        }
    }

    /// Whether this is the last life of its number.
    pub fn is_last(&self, pid: i32, life: &Life) -> bool {
        self.latest(pid)
            .is_some_and(|last| last.since == life.since)
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
            let Some((_, life)) = self.lives.range(first..=(pid, born)).next_back() else {
                break;
            };
            let Some(image) = life.image() else {
                break;
            };
            let comm = image.comm.to_string();
            parents.push(Parent { pid, comm });
            (pid, born) = (life.parent, life.born);
        }
        parents
    }

    fn latest(&self, pid: i32) -> Option<&Life> {
        let all = (pid, Monotonic::default())..=(pid, Monotonic::from_nanos(u64::MAX));
        self.lives.range(all).next_back().map(|(_, life)| life)
    }

    fn has_earlier(&self, pid: i32, since: Monotonic) -> bool {
        let all = (pid, Monotonic::default())..(pid, since);
        self.lives.range(all).next().is_some()
    }

    /// The life that has this number ends. A look at it that was not over by
    /// then may have seen what came after; a copy's end says nothing of a look
    /// at its parent.
    fn ends(&self, pid: i32, at: Monotonic) {
        if let Some(life) = self.latest(pid)
            && life.look.pid == pid
            && life.look.at + SWITCH >= at
        {
            life.look.late.set(true);
        }
    }

    fn look(&mut self, pid: i32) -> Rc<Look> {
        let image = self.proc.image(pid);
        Rc::new(Look {
            pid,
            image,
            at: clock::now(),
            late: Cell::new(false),
            passed_over: false,
        })
    }

    fn insert(&mut self, pid: i32, since: Monotonic, born: Monotonic, parent: i32, look: Rc<Look>) {
        let life = Life {
            since,
            born,
            parent,
            look,
        };
        if self.lives.insert((pid, since), life).is_none() {
            self.order.push_back((pid, since));
        }
        self.forget();
    }

    /// Forgets the oldest lives where there are too many. Where most belong to
    /// processes that still run, some of those go too: `/proc` has them.
    fn forget(&mut self) {
        const PASSED_OVER: usize = 4;
        let mut passed_over = 0;
        while self.order.len() > MOST {
            let Some(key) = self.order.pop_front() else {
                break;
            };
            let last = self.latest(key.0).is_some_and(|life| life.since == key.1);
            if last && passed_over < PASSED_OVER && self.proc.runs(key.0) {
                passed_over += 1;
                self.order.push_back(key);
            } else {
                self.lives.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Processes as a test says they are, by their number.
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
            self.0.insert(pid, (image, Birth { at, parent }));
        }
    }

    impl Procfs for Fake {
        fn image(&mut self, pid: i32) -> Option<Image> {
            self.0.get(&pid).map(|(image, _)| image.clone())
        }

        fn birth(&mut self, pid: i32) -> Option<Birth> {
            self.0.get(&pid).map(|(_, birth)| *birth)
        }

        fn runs(&mut self, pid: i32) -> bool {
            self.0.contains_key(&pid)
        }
    }

    fn lives() -> Lives<Fake> {
        let mut lives = Lives::new(Fake::default());
        lives.proc.runs(1, "init", 0);
        lives.add(1);
        lives
    }

    /// A moment in the future: a look that is taken now is over by then.
    fn at(second: u64) -> Monotonic {
        clock::now() + std::time::Duration::from_secs(second)
    }

    /// The program behind `pid` at a moment, or why there is none.
    fn program(lives: &Lives<Fake>, pid: i32, after: Monotonic, by: Monotonic) -> String {
        match lives.find(pid, after, by) {
            Found::Life(life) => {
                let image = life.image();
                image.map_or("unseen".to_owned(), |image| image.comm.to_string())
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_copy_is_what_its_parent_is_until_it_executes_something() {
        let mut lives = lives();
        let (forked, executed) = (clock::now(), clock::now());
        lives.fork(1, 7, forked, true);
        lives.proc.runs(7, "sysctl", 1);
        lives.exec(7, executed, true);
        let (long_ago, later) = (Monotonic::default(), at(9));
        assert_eq!(program(&lives, 7, forked, forked), "init");
        assert_eq!(program(&lives, 7, executed, later), "sysctl");
        assert_eq!(program(&lives, 7, long_ago, later), "Unclear");
        assert_eq!(program(&lives, 7, long_ago, long_ago), "Later");
        assert_eq!(program(&lives, 8, long_ago, later), "Nobody");
        assert_eq!(program(&lives, 1, later, later), "init");
        assert_eq!(
            lives.parents(1, forked),
            [Parent {
                pid: 1,
                comm: "init".to_owned()
            }]
        );
    }

    #[test]
    fn a_copy_cannot_have_written_before_it_was_made() {
        let mut lives = lives();
        let forked = clock::now();
        lives.fork(1, 7, forked, true);
        assert_eq!(program(&lives, 7, Monotonic::default(), at(1)), "init");
        // Unless its number was another's before.
        let again = at(1);
        lives.fork(1, 7, again, true);
        assert_eq!(program(&lives, 7, Monotonic::default(), at(2)), "Unclear");
        assert_eq!(program(&lives, 7, forked, forked), "init");
    }

    #[test]
    fn a_look_that_came_too_late_is_none() {
        let mut lives = lives();
        let (first, second) = (clock::now(), clock::now());
        // By the time of the look it runs the second program already.
        lives.fork(1, 7, first, true);
        lives.proc.runs(7, "second", 1);
        lives.exec(7, first, true);
        lives.fork(7, 8, first, true);
        lives.exec(7, second, true);
        assert_eq!(program(&lives, 7, first, first), "unseen");
        assert_eq!(program(&lives, 7, second, second), "second");
        assert_eq!(
            program(&lives, 8, first, second),
            "unseen",
            "nor what it copied"
        );
        assert_eq!(
            program(&lives, 1, second, second),
            "init",
            "it is still itself"
        );
    }

    #[test]
    fn who_was_passed_over_is_not_taken_for_what_it_was_before() {
        let mut lives = lives();
        let (first, second) = (clock::now(), at(1));
        lives.proc.runs(7, "sysctl", 1);
        lives.fork(1, 7, first, false);
        lives.exec(7, first, false);
        // Its copy, and that of one that is not known.
        lives.fork(7, 8, first, true);
        lives.fork(9, 10, first, false);
        for pid in [7, 8, 10] {
            assert_eq!(program(&lives, pid, first, first), "unseen");
            let found = lives.find(pid, first, first);
            assert!(matches!(found, Found::Life(life) if life.was_passed_over()));
        }
        lives.exec(7, second, true);
        assert_eq!(program(&lives, 7, second, at(2)), "sysctl");
    }

    #[test]
    fn old_lives_go_and_those_that_last_stay() {
        let mut lives = lives();
        for pid in 10..10 + 3 * i32::try_from(MOST).expect("a number") {
            lives.fork(1, pid, clock::now(), true);
            lives.exec(pid, clock::now(), true);
        }
        assert!(lives.lives.len() <= MOST && lives.order.len() <= MOST);
        assert_eq!(program(&lives, 1, at(1), at(1)), "init");
        assert_eq!(program(&lives, 10, at(1), at(1)), "Nobody");
    }
}
