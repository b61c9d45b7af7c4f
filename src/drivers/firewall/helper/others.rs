//! Other programs that are changing nf_tables.
//!
//! A transaction of iptables-nft(8) that another comes before is begun anew, and may fail then
//! (1.8.9: `ebtables-restore` of a reload of firewalld, with "RULE_DELETE failed"). There is
//! no lock against that. So a commit is made when those that run have ended, before the next
//! one has read anything.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::programs::INTERVAL;
use crate::clock;
use crate::process_namespaces::NetworkNamespace;
use crate::process_start::{self, TICK};

/// How long they are waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// One that has run for longer, as `nft monitor`, changes nothing, or will for long.
const LONGEST: Duration = Duration::from_secs(1);

/// The first letters of their names.
const NAMES: [&str; 4] = ["iptables", "ip6tables", "ebtables", "xtables-nft"];

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
    let (Ok(own), Ok(processes)) = (NetworkNamespace::own(), fs::read_dir("/proc")) else {
        return Vec::new();
    };
    let since_boot = clock::uptime().1;
    let names = processes.filter_map(|it| it.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse::<u32>().ok());
    let is_one = |pid: &u32| {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name = String::from_utf8_lossy(&name);
        name == "nft\n" || NAMES.iter().any(|it| name.starts_with(it))
    };
    let begun = |pid: u32| Some((pid, process_start::start_of(pid)?));
    let is_new = |(_, start): &(u32, u64)| {
        let age = since_boot.saturating_sub(start.saturating_mul(TICK));
        Duration::from_nanos(age) < LONGEST
    };
    let is_here = |(pid, _): &(u32, u64)| {
        NetworkNamespace::of_process(pid.cast_signed()).is_ok_and(|it| it == own)
    };
    let running = pids.filter(is_one).filter_map(begun);
    running.filter(is_new).filter(is_here).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Child, Command};

    use super::super::programs::find;
    use super::*;

    /// A program that has this name while it runs.
    fn start(folder: &Path, name: &str, seconds: &str) -> Child {
        let program = folder.join(name);
        fs::copy(find("sleep").expect("sleep"), &program).expect("a program");
        let child = Command::new(program).arg(seconds).spawn();
        child.expect("a process")
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
