//! Other programs that are changing nf_tables.
//!
//! A transaction of iptables-nft(8) that another comes before is begun anew, and may fail then
//! (1.8.9: `ebtables-restore` of a reload of firewalld, with "RULE_DELETE failed"). There is
//! no lock against that. So a commit is made when those that run have ended, before the next
//! one has read anything.

use std::cmp::Reverse;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::programs::INTERVAL;
use crate::clock;
use crate::events::Program;
use crate::process_namespaces::NetworkNamespace;
use crate::process_start::{self, TICK};

/// How long they are waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// One that has run for longer, as `nft monitor`, changes nothing, or will for long.
const LONGEST: Duration = Duration::from_secs(1);

/// Waits for the end of those in this network namespace, but for this process.
pub(super) fn wait(but: u32) {
    let deadline = Instant::now() + PATIENCE;
    let mut running = running();
    running.retain(|(pid, _)| *pid != but);
    while !running.is_empty() && Instant::now() < deadline {
        // The end of a process that is not one's own is an event on Linux 5.3 and later only.
        thread::sleep(INTERVAL);
        running.retain(|(pid, start)| process_start::start_of(*pid) == Some(*start));
    }
}

/// Those that have begun lately, with when that was.
fn running() -> Vec<(u32, u64)> {
    let Ok(own) = NetworkNamespace::own() else {
        return Vec::new();
    };
    let is_here =
        |pid: u32| NetworkNamespace::of_process(pid.cast_signed()).is_ok_and(|it| it == own);
    let running = new_processes(process_start::running);
    let running =
        running.filter(|(pid, name, _)| Program::makes_transactions(name) && is_here(*pid));
    running.map(|(pid, _, start)| (pid, start)).collect()
}

/// The processes that have begun lately, the last first, with their names and when that was.
/// `examine` gives that of one which runs, and is not asked for thousands that are older.
fn new_processes(
    examine: impl Fn(u32) -> Option<(String, u64)>,
) -> impl Iterator<Item = (u32, String, u64)> {
    let since_boot = clock::uptime().1;
    let is_new = move |start: u64| {
        let age = since_boot.saturating_sub(start.saturating_mul(TICK));
        Duration::from_nanos(age) < LONGEST
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|it| it.file_name().to_str()?.parse().ok());
    let pids = last_first(pids.collect(), last().unwrap_or(u32::MAX));
    let processes = pids.into_iter().filter_map(move |pid| {
        let (name, start) = examine(pid)?;
        Some((pid, name, start))
    });
    processes.take_while(move |(.., start)| is_new(*start))
}

/// The number that a process was given last.
fn last() -> Option<u32> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    load.split_whitespace().last()?.parse().ok()
}

/// The numbers of processes in the order in which they were given, the last first: after the
/// highest possible one the kernel begins at the lowest again.
fn last_first(mut pids: Vec<u32>, last: u32) -> Vec<u32> {
    pids.sort_unstable_by_key(|pid| (*pid > last, Reverse(*pid)));
    pids
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::{Child, Command};

    use super::super::programs::find;
    use super::*;

    /// A program that has this name while it runs.
    fn start(folder: &Path, name: &str, seconds: &str) -> Child {
        let program = folder.join(name);
        // A copy is busy while another test starts a process.
        symlink(find("sleep").expect("sleep"), &program).expect("a program");
        let child = Command::new(program).arg(seconds).spawn();
        child.expect("a process")
    }

    #[test]
    fn of_a_thousand_processes_only_new_ones_are_read() {
        let sleep = || Command::new("sleep").arg("60").spawn().expect("a process");
        let mut others: Vec<Child> = (0..1000).map(|_| sleep()).collect();
        let old: Vec<u32> = others.iter().map(Child::id).collect();
        // As if all of these were old.
        let asked = Cell::new(0);
        let examine = |pid| {
            asked.set(asked.get() + 1);
            let (name, _) = process_start::running(pid)?;
            Some((name, if old.contains(&pid) { 0 } else { u64::MAX }))
        };
        let mut new = sleep();
        let found: Vec<u32> = new_processes(examine).map(|(pid, ..)| pid).collect();
        for other in others.iter_mut().chain([&mut new]) {
            other.kill().expect("a process");
            other.wait().expect("its end");
        }
        assert!(found.contains(&new.id()));
        assert!(asked.get() < 500, "{}", asked.get());
    }

    #[test]
    fn numbers_that_were_given_again_are_the_last() {
        assert_eq!(
            last_first(vec![1, 300, 301, 4000, 4001], 301),
            [301, 300, 1, 4001, 4000]
        );
    }

    #[test]
    fn the_end_of_a_program_that_changes_tables_is_waited_for_but_not_for_long() {
        let name = format!("netguard-others-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder");
        let mut other = start(&folder, "iptables-nft-restore", "0.05");
        wait(0);
        let ended = other.try_wait().expect("a process");
        assert!(ended.is_some(), "it still runs");

        let mut other = start(&folder, "ebtables-restore", "60");
        wait(other.id());
        wait(0);
        let ended = other.try_wait().expect("a process");
        other.kill().expect("a process");
        other.wait().expect("its end");
        fs::remove_dir_all(folder).expect("a folder");
        assert_eq!(ended, None);
    }
}
