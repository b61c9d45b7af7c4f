//! What a process and its children use: processor time, wake-ups, memory.
//!
//! Processor time comes from the scheduler (`schedstat`, nanoseconds) for
//! threads that live, and from `stat` (cutime, cstime; hundredths of a second,
//! summed by the kernel without rounding) for children that have ended. The
//! switches of children that have ended are counted nowhere: for contenders
//! that start programs the figure is a lower bound.

use std::fs;
use std::ops::Sub;
use std::path::Path;
use std::time::Duration;

use nix::unistd::Pid;

/// `USER_HZ`: what `/proc/PID/stat` counts in, on every architecture of Linux
/// that Rust's standard library runs on but Alpha.
const TICK: Duration = Duration::from_millis(10);

/// Used since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Times that a thread went to sleep, which is as often as it was woken.
    pub voluntary: u64,
    /// Times that a thread was made to wait.
    pub involuntary: u64,
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, before: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.cpu += other.cpu;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }
}

impl Usage {
    /// Of a process and all that descend from it.
    pub fn of_tree(root: Pid) -> Usage {
        let mut sum = Usage::default();
        for pid in tree(root) {
            sum += Usage::of(pid);
        }
        sum
    }

    fn of(pid: Pid) -> Usage {
        let folder = format!("/proc/{pid}");
        let stat = fs::read_to_string(format!("{folder}/stat")).unwrap_or_default();
        // After the name in brackets: state is field 3, cutime 16, cstime 17.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ended: u32 = fields
            .split_whitespace()
            .skip(13)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u32>().ok())
            .sum();
        let mut usage = Usage {
            cpu: TICK * ended,
            ..Usage::default()
        };
        for thread in fs::read_dir(format!("{folder}/task")).into_iter().flatten() {
            let Ok(thread) = thread else { continue };
            usage += Usage::of_thread(&thread.path());
        }
        usage
    }

    fn of_thread(folder: &Path) -> Usage {
        let schedstat = fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
        let ran = schedstat.split(' ').next().and_then(|ns| ns.parse().ok());
        let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
        Usage {
            cpu: Duration::from_nanos(ran.unwrap_or(0)),
            voluntary: field(&status, "voluntary_ctxt_switches:"),
            involuntary: field(&status, "nonvoluntary_ctxt_switches:"),
        }
    }
}

/// Occupied now, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident, shared pages counted in full.
    pub rss: u64,
    /// Resident, shared pages counted in proportion.
    pub pss: u64,
}

impl Memory {
    /// Of a process and all that descend from it.
    pub fn of_tree(root: Pid) -> Memory {
        let mut sum = Memory::default();
        for pid in tree(root) {
            let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            let smaps = smaps.unwrap_or_default();
            sum.rss += field(&smaps, "Rss:") * 1024;
            sum.pss += field(&smaps, "Pss:") * 1024;
        }
        sum
    }

    /// The greater of each.
    pub fn max(self, other: Memory) -> Memory {
        Memory {
            rss: self.rss.max(other.rss),
            pss: self.pss.max(other.pss),
        }
    }
}

/// Whether the process runs or waits for a core, at this moment.
pub fn is_busy(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('R'))
}

/// How often the main thread of a process went to sleep.
pub fn switches(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    field(&status.unwrap_or_default(), "voluntary_ctxt_switches:")
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// A process and all that descend from it. The place holds few processes.
fn tree(root: Pid) -> Vec<Pid> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().unwrap_or_default();
        let parent = parent.split_whitespace().nth(1);
        if let Some(parent) = parent.and_then(|parent| parent.parse().ok()) {
            parents.push((Pid::from_raw(pid), Pid::from_raw(parent)));
        }
    }
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        tree.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}
