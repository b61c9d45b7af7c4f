//! When processes began: with its number that is what a process is known by.

use std::fs;
use std::sync::LazyLock;

/// How many nanoseconds `stat` files count as one: `USER_HZ` is 100 on every architecture of
/// Linux that Rust's standard library runs on but Alpha.
pub const TICK: u64 = 10_000_000;

/// The name and the start (field 22) in the text of a `stat` file.
pub fn name_and_start(stat: &str) -> Option<(String, u64)> {
    let (name, fields) = stat.rsplit_once(") ")?;
    let (_, name) = name.split_once('(')?;
    let start = fields.split(' ').nth(19)?.parse().ok()?;
    Some((name.to_owned(), start))
}

/// When this process began, in ticks since the boot.
pub fn own_start() -> u64 {
    static START: LazyLock<u64> = LazyLock::new(|| of("self").map_or(0, |(_, start)| start));
    *START
}

/// When a process began that has not ended, in ticks since the boot. One that has may be listed
/// until its parent has been told.
pub fn start_of(pid: u32) -> Option<u64> {
    running(pid).map(|(_, start)| start)
}

/// As [`start_of`], with the name of the process.
pub fn running(pid: u32) -> Option<(String, u64)> {
    let stat = stat(&pid.to_string())?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let has_ended = fields.starts_with(['Z', 'X', 'x']);
    name_and_start(&stat).filter(|_| !has_ended)
}

fn stat(pid: &str) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    Some(String::from_utf8_lossy(&stat).into_owned())
}

/// The name and the start of a process.
pub fn of(pid: &str) -> Option<(String, u64)> {
    name_and_start(&stat(pid)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    #[test]
    fn a_name_may_have_anything_in_it() {
        let stat = "812 (a) (b) S 7 1 1 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 4711 0 0";
        assert_eq!(name_and_start(stat), Some(("a) (b".to_owned(), 4711)));
        assert_eq!(start_of(std::process::id()), Some(own_start()));
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_has_ended() {
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(pid), flags).expect("its end");
        assert!(of(&child.id().to_string()).is_some(), "it is listed");
        assert_eq!(start_of(child.id()), None);
        child.wait().expect("its end");
    }
}
