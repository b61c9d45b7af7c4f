//! A process in `/proc/PID`.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat};
use nix::sys::signal::kill;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Pid, read};

use crate::clock;
use crate::model::Monotonic;
use crate::process_start::TICK;

/// The longest command line that is kept, in bytes. `/proc` is asked for no
/// more: a longer one costs nothing.
const LONGEST: usize = 1024;
/// `loginuid` of a process that descends from no login: (uid_t) -1.
const NO_LOGIN: u32 = u32::MAX;

/// A process between two execs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub comm: Box<str>,
    /// `cmdline`, with spaces for NULs.
    pub cmdline: Box<str>,
    /// The path in systemd's hierarchy of `cgroup`.
    pub cgroup: Option<Box<str>>,
    /// The effective user id.
    pub uid: u32,
    /// `loginuid`, where it is one.
    pub login_uid: Option<u32>,
}

/// When a process began, and whose child it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// To two hundredths of a second, never too late.
    pub at: Monotonic,
    /// Its parent now.
    pub parent: i32,
    /// Where its stack begins: another place after each exec, where the kernel
    /// chooses addresses at random. 0 or 1 for who may not trace the process.
    pub stack: u64,
}

impl Image {
    /// Examines a process; `None` where it has exited, or may not be examined.
    ///
    /// What is most easily missed comes first. Each file takes ten microseconds
    /// or more, for every program that this host executes: there are no more of
    /// them than a record needs, and the way to them is walked once.
    pub fn read(pid: i32) -> Option<Image> {
        let directory = directory(pid)?;
        let mut buffer = [0; 4096];
        let cmdline = contents(&directory, "cmdline", &mut buffer[..LONGEST])?;
        // A process that is about to end has given its memory back, and with it
        // this. A thread of the kernel has none, and writes no files here.
        if cmdline.is_empty() {
            return None;
        }
        let cmdline = words(cmdline);
        let comm = contents(&directory, "comm", &mut buffer)?;
        let comm = String::from_utf8_lossy(comm).trim_end().into();
        let cgroup = contents(&directory, "cgroup", &mut buffer);
        let cgroup = cgroup.and_then(|text| systemds(str::from_utf8(text).ok()?));
        let cgroup = cgroup.map(Into::into);
        // The directory belongs to the effective user, whatever the process may
        // be dumped by (task_dump_owner in fs/proc/base.c).
        let uid = fstat(&directory).ok()?.st_uid;
        // Absent in a kernel without auditing.
        let login_uid = contents(&directory, "loginuid", &mut buffer);
        let login_uid = login_uid.and_then(|text| str::from_utf8(text).ok()?.trim().parse().ok());
        Some(Image {
            comm,
            cmdline,
            cgroup,
            uid,
            login_uid: login_uid.filter(|uid| *uid != NO_LOGIN),
        })
    }
}

impl Birth {
    /// Examines a process; `None` where it has exited.
    pub fn read(pid: i32) -> Option<Birth> {
        let (parent, start, stack) = birth(&stat(pid)?)?;
        let (monotonic, boottime) = clock::uptime();
        // Whole ticks, so that the same process always began at the same moment:
        // the two clocks are not read at the same time.
        let asleep = (boottime.saturating_sub(monotonic) / TICK + 1) * TICK;
        let start = start.saturating_mul(TICK);
        let at = Monotonic::from_nanos(start.saturating_sub(asleep));
        Some(Birth { at, parent, stack })
    }
}

/// Whether no process has the number `pid`, or only one that has ended and that
/// its parent has not asked about yet.
pub fn has_ended(pid: i32) -> bool {
    let Some(stat) = stat(pid) else {
        return !exists(pid);
    };
    stat.rsplit_once(") ")
        .is_some_and(|(_, fields)| fields.starts_with(['Z', 'X']))
}

/// Whether it has ended, or is about to: it has no memory any more, and may have given
/// its files back.
pub fn is_ending(pid: i32) -> bool {
    let Some(stat) = stat(pid) else {
        return !exists(pid);
    };
    flags(&stat).is_some_and(|flags| flags & EXITING != 0)
}

/// The text of a `stat` file: some 50 numbers. Read at once: `std::fs::read` would take
/// six calls, and this is read at each exec of the node.
fn stat(pid: i32) -> Option<String> {
    let path = format!("/proc/{pid}/stat");
    let mut buffer = [0; 2048];
    let text = contents(AT_FDCWD, &path, &mut buffer)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// `PF_EXITING` of linux/sched.h: set before anything is given back, and from then on.
const EXITING: u32 = 4;

/// The flags of a process (field 9) in the text of a `stat` file.
fn flags(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(6)?.parse().ok()
}

/// Whether a process has the number `pid`, ended or not.
pub fn exists(pid: i32) -> bool {
    // Without a right to signal it the answer is EPERM.
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// The parent (field 4), the start in ticks since boot (field 22) and the stack's
/// beginning (field 28) in the text of a `stat` file. The second field, the name,
/// may have brackets and spaces.
pub fn birth(stat: &str) -> Option<(i32, u64, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(1);
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    let stack = fields.nth(5)?.parse().ok()?;
    Some((parent, start, stack))
}

/// The directory of a process: what is opened below it is of this process and of
/// no later one that has its number.
fn directory(pid: i32) -> Option<OwnedFd> {
    let path = format!("/proc/{pid}");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty()).ok()
}

fn contents<'a>(directory: impl AsFd, name: &str, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).ok()?;
    let length = read(&file, buffer).ok()?;
    Some(&buffer[..length])
}

/// A command line with spaces between the words.
pub fn words(cmdline: &[u8]) -> Box<str> {
    let end = cmdline.iter().rposition(|byte| *byte != 0);
    let cmdline = &cmdline[..end.map_or(0, |last| last + 1)];
    String::from_utf8_lossy(cmdline).replace('\0', " ").into()
}

/// The path in systemd's hierarchy in the text of a `cgroup` file: the named
/// hierarchy of cgroup v1 (el7), else the unified one of v2.
pub fn systemds(text: &str) -> Option<&str> {
    let mut unified = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        match (number, controllers) {
            (_, "name=systemd") if path != "/" => return Some(path),
            ("0", "") => unified = Some(path),
            _ => {}
        }
    }
    unified
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    use super::*;

    #[test]
    fn this_process_is_read() {
        let pid = i32::try_from(std::process::id()).expect("a pid");
        let image = Image::read(pid).expect("it runs");
        assert!(!image.comm.is_empty() && image.comm.len() <= 15);
        let program = std::env::args().next().expect("a program");
        assert!(image.cmdline.starts_with(&program), "{}", image.cmdline);
        assert_eq!(image.uid, nix::unistd::geteuid().as_raw());
        let birth = Birth::read(pid).expect("it runs");
        assert_eq!(birth.parent, nix::unistd::getppid().as_raw());
        assert!(birth.at <= clock::now());
        // One that began after this program's clock did.
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let pid = i32::try_from(child.id()).expect("a pid");
        let birth = Birth::read(pid).expect("it runs");
        for _ in 0..100 {
            // Its stack may just be made.
            let again = Birth::read(pid).map(|again| (again.at, again.parent));
            let first = Some((birth.at, birth.parent));
            assert_eq!(again, first, "it was not born again");
        }
        assert!(!has_ended(pid) && !is_ending(pid));
        child.kill().expect("it runs");
        let ended = Id::Pid(Pid::from_raw(pid));
        let leave = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(ended, leave).expect("its end");
        assert!(has_ended(pid), "nobody has asked about it");
        assert!(is_ending(pid));
        child.wait().expect("its end");
        assert!(has_ended(pid) && is_ending(pid));
        assert_eq!(Image::read(-1), None);
    }

    #[test]
    fn names_may_have_anything_in_them() {
        let stat = "12 (a) R 3 (b)) S 7 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 4711 5 6 7 8 9 99 0";
        assert_eq!(birth(stat), Some((7, 4711, 99)));
        assert_eq!(flags(stat), Some(0));
        assert_eq!(birth("12 (a"), None);
        assert_eq!(&*words(b"sysctl\0-w\0a=b c\0\0"), "sysctl -w a=b c");
        assert_eq!(&*words(b"\0"), "");
    }

    #[test]
    fn systemds_hierarchy_is_found() {
        for (text, path) in [
            (
                "0::/system.slice/a.service\n",
                Some("/system.slice/a.service"),
            ),
            (
                "4:cpu,cpuacct:/x\n1:name=systemd:/user.slice/b.scope\n",
                Some("/user.slice/b.scope"),
            ),
            // Hybrid, and one whose v1 hierarchy is unused.
            (
                "1:name=systemd:/c.service\n0::/c.service\n",
                Some("/c.service"),
            ),
            ("9:name=systemd:/\n0::/d.service\n", Some("/d.service")),
            ("0::/odd:name\n", Some("/odd:name")),
            ("5:memory:/docker/1\n", None),
            ("nonsense", None),
        ] {
            assert_eq!(systemds(text), path, "{text}");
        }
    }
}
