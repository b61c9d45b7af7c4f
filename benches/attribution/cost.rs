//! What knowing every process costs while nobody writes.

use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::guard::Guard;
use crate::{Outcome, say};

/// Programs executed a second.
pub const RATE: u32 = 1000;

/// What the daemon used.
#[derive(Debug)]
pub struct Cost {
    processes: usize,
    rate: f64,
    cpu: f64,
    before: u64,
    after: u64,
}

impl Cost {
    /// A few lines for people.
    pub fn say(&self) {
        say(&format!(
            "\nat {:.0} programs a second, {} processes besides: {:.2} % of one core (bar: 3 %), \
             RSS {} KiB, before {} KiB",
            self.rate,
            self.processes,
            100.0 * self.cpu,
            self.after,
            self.before
        ));
    }
}

/// Processes that sleep; killed when dropped.
struct Sleepers(Vec<Child>);

impl Sleepers {
    fn start(count: usize) -> Outcome<Self> {
        let mut sleepers = Sleepers(Vec::with_capacity(count));
        for _ in 0..count {
            sleepers
                .0
                .push(Command::new("sleep").arg("1000000").spawn()?);
        }
        Ok(sleepers)
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// Executes programs for `span`, beside `processes` that last.
pub fn measure(span: Duration, processes: usize) -> Outcome<Cost> {
    let _sleepers = Sleepers::start(processes)?;
    let guard = Guard::start()?;
    let before = memory(guard.pid())?;
    let (begun, used) = (Instant::now(), processor_time(guard.pid())?);
    let executed = storm(RATE, || begun.elapsed() < span)?;
    let took = begun.elapsed().as_secs_f64();
    let used = processor_time(guard.pid())?.saturating_sub(used);
    Ok(Cost {
        processes,
        rate: f64::from(executed) / took,
        cpu: used.as_secs_f64() / took,
        before,
        after: memory(guard.pid())?,
    })
}

/// Executes `rate` programs a second, as far as this machine can, while `goes_on`
/// says so; how many.
pub fn storm(rate: u32, goes_on: impl Fn() -> bool) -> Outcome<u32> {
    let begun = Instant::now();
    let mut executed = 0;
    while goes_on() {
        // Two at a time: on few cores one after the other is too slow.
        let children = [Command::new("true").spawn(), Command::new("true").spawn()];
        for child in children {
            child?.wait()?;
            executed += 1;
        }
        let due = begun + Duration::from_secs(1) * executed / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(executed)
}

/// Of all threads of a process.
pub fn processor_time(pid: u32) -> Outcome<Duration> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let ran = text.split(' ').next().and_then(|ran| ran.parse().ok());
        sum += Duration::from_nanos(ran.ok_or("schedstat has no numbers")?);
    }
    Ok(sum)
}

/// Resident, in KiB.
fn memory(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(number.ok_or("status has no VmRSS")?)
}
