//! Load: every core busy, memory short. It ends with the value that stands for it.

use std::fs;

use super::Outcome;
use super::cores::Cores;
use super::process::{Process, Scheduling};
use crate::options::ROLE;

/// Processes that are there to be in the way.
pub struct Load(#[expect(dead_code, reason = "held so that they run")] Vec<Process>);

impl Load {
    /// Two spinning processes on each core.
    pub fn busy(cores: &Cores) -> Outcome<Load> {
        let program = own_path()?;
        let on = cores.all().iter().chain(cores.all());
        let spin = |core: &usize| {
            let core = core.to_string();
            let arguments = ["-c", &core, &program, ROLE, "spin"];
            Process::start(Scheduling::Normal, "taskset", &arguments, &[])
        };
        on.map(spin).collect::<Outcome<_>>().map(Load)
    }

    /// A process that dirties most of the free memory, at most `most` bytes,
    /// over and over, while the caches are dropped.
    pub fn memory(most: u64) -> Outcome<Load> {
        let bytes = (available()? / 5 * 4).min(most).to_string();
        let arguments = [ROLE, "churn", &bytes];
        let process = Process::start(Scheduling::Normal, own_path()?, &arguments, &[])?;
        Ok(Load(vec![process]))
    }
}

/// Bytes that could be had without swapping.
fn available() -> Outcome<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let line = meminfo
        .lines()
        .find(|line| line.starts_with("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kib.ok_or("/proc/meminfo does not say what is available")? * 1024)
}

/// This program.
pub fn own_path() -> Outcome<String> {
    let path = std::env::current_exe()?;
    Ok(path
        .into_os_string()
        .into_string()
        .map_err(|_| "this program's path is not UTF-8")?)
}
