//! Who runs where.
//!
//! The instrument spins while it measures. It has the last core; the node, that
//! is contenders and load, has the others, as if the machine had one core less.
//! Else a guard might be woken on the core that the instrument keeps busy,
//! which on a real node the writer has left by then. The instrument has real
//! time, so that it is never its own delay that it measures.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

use super::Outcome;
use super::process;
use crate::report;

/// The division of the machine's cores.
pub struct Cores {
    node: CpuSet,
    instrument: CpuSet,
    all: Vec<usize>,
    /// Whether the kernel grants real time.
    pub real_time: bool,
}

impl Cores {
    /// Divides the cores that this process may use.
    pub fn divide() -> Outcome<Cores> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let all: Vec<usize> = (0..CpuSet::count())
            .filter(|core| allowed.is_set(*core).unwrap_or(false))
            .collect();
        let set = |cores: &[usize]| -> nix::Result<CpuSet> {
            let mut set = CpuSet::new();
            cores.iter().try_for_each(|core| set.set(*core))?;
            Ok(set)
        };
        let (node, instrument) = match all.split_last() {
            Some((last, rest)) if !rest.is_empty() => (set(rest)?, set(&[*last])?),
            _ => {
                report::warn("there is one core only: the instrument is in the contenders' way");
                (allowed, allowed)
            }
        };
        let real_time = process::quietly("chrt", &["--fifo", "10", "true"]).is_ok();
        if !real_time {
            report::warn(
                "real time is not granted: the instrument may be delayed, and the rows with real time are left out",
            );
        }
        Ok(Cores {
            node,
            instrument,
            all,
            real_time,
        })
    }

    /// How many cores there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The numbers of all cores.
    pub fn all(&self) -> &[usize] {
        &self.all
    }

    /// Moves the calling thread, and what it starts from now on, to the node's cores.
    pub fn join_node(&self) -> Outcome<()> {
        Ok(sched_setaffinity(Pid::from_raw(0), &self.node)?)
    }

    /// Moves the calling thread to the instrument's core.
    pub fn join_instrument(&self) -> Outcome<()> {
        Ok(sched_setaffinity(Pid::from_raw(0), &self.instrument)?)
    }

    /// Makes the calling thread the instrument: its core, and real time.
    pub fn become_instrument(&self) -> Outcome<()> {
        self.join_instrument()?;
        if self.real_time {
            let thread = gettid().to_string();
            process::quietly("chrt", &["--fifo", "--pid", "50", &thread])?;
        }
        Ok(())
    }
}
