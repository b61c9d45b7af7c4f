//! Short-lived writers: each a `sysctl -w` that is gone before anybody looks.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cost::storm;
use crate::guard::{Guard, field};
use crate::{INTERFACE, Outcome, say};

/// One key that NETCONF reports, and one of which only fanotify does.
const NAMES: [&str; 2] = ["rp_filter", "route_localnet"];
/// The longest time until a value is right again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the writers were attributed.
#[derive(Debug, Default)]
pub struct Count {
    named: usize,
    wrong: usize,
    /// By the reason.
    unknown: BTreeMap<String, usize>,
}

impl Count {
    /// What a record says of a writer, of which this is the truth.
    pub fn add(&mut self, record: &Value, pid: &str, cmdline: &str) {
        let told = |name| field(record, name);
        // sysctl cuts its own argument at the `=`: who looks late sees a space.
        let words = |text: &str| text.replace('=', " ");
        match told("NETGUARD_WRITER_UNKNOWN") {
            "" if told("OBJECT_PID") == pid && words(told("OBJECT_CMDLINE")) == words(cmdline) => {
                self.named += 1;
            }
            "" => {
                self.wrong += 1;
                say(&format!(
                    "    {cmdline} [{pid}] told as: {}",
                    told("MESSAGE")
                ));
            }
            reason => {
                let reason = reason.replace(pid, "N");
                *self.unknown.entry(reason).or_default() += 1;
            }
        }
    }

    /// One line of the table, and the reasons below it.
    pub fn say(&self, condition: &str, bar: &str) {
        let unknown: usize = self.unknown.values().sum();
        let all = self.named + self.wrong + unknown;
        let share = 100.0 * self.named as f64 / all as f64;
        say(&format!(
            "{condition:<36}{share:>7.1}%{:>8}{unknown:>9}{bar:>8}",
            self.wrong
        ));
        for (reason, count) in &self.unknown {
            say(&format!("    {count} times: {reason}"));
        }
    }
}

/// What the machine does besides.
#[derive(Debug, Clone, Copy)]
pub enum Besides {
    /// Nothing.
    Nothing,
    /// So many processes for each core that spin.
    Spin(usize),
    /// So many programs a second that are executed.
    Execute(u32),
}

/// That, until it is dropped.
enum Load {
    Nothing,
    Spin(Vec<Child>),
    Execute(Arc<AtomicBool>, Option<JoinHandle<()>>),
}

impl Load {
    fn start(besides: Besides) -> Outcome<Self> {
        match besides {
            Besides::Nothing => Ok(Load::Nothing),
            Besides::Spin(each_core) => Self::spin(each_core),
            Besides::Execute(rate) => Ok(Self::execute(rate)),
        }
    }

    fn spin(each_core: usize) -> Outcome<Self> {
        let cores = thread::available_parallelism()?.get();
        let spin = |_| {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
        };
        Ok(Load::Spin(
            (0..cores * each_core).map(spin).collect::<Result<_, _>>()?,
        ))
    }

    fn execute(rate: u32) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&goes_on);
        let thread = thread::spawn(move || {
            if let Err(error) = storm(rate, || still.load(Ordering::Relaxed)) {
                say(&format!("the load broke off: {error}"));
            }
        });
        // Until what a burst may take is used up.
        thread::sleep(Duration::from_secs(3));
        Load::Execute(goes_on, Some(thread))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        match self {
            Load::Nothing => {}
            Load::Spin(children) => {
                for child in children {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
            Load::Execute(goes_on, thread) => {
                goes_on.store(false, Ordering::Relaxed);
                let _ = thread.take().map(JoinHandle::join);
            }
        }
    }
}

/// How many writers write to one guard: many more at once would be reported in sums,
/// to spare the journal.
const ROUND: usize = 100;

/// Lets `tries` writers write, one after the other, and reads the reported writers.
pub fn measure(tries: usize, besides: Besides) -> Outcome<Count> {
    let mut count = Count::default();
    for begun in (0..tries).step_by(ROUND) {
        round(ROUND.min(tries - begun), besides, &mut count)?;
    }
    Ok(count)
}

fn round(tries: usize, besides: Besides, count: &mut Count) -> Outcome<()> {
    let guard = Guard::start()?;
    let _load = Load::start(besides)?;
    let mut truth = Vec::with_capacity(tries);
    for number in 0..tries {
        let name = NAMES[number % NAMES.len()];
        let argument = format!("net.ipv4.conf.{INTERFACE}.{name}=0");
        let mut writer = Command::new("sysctl")
            .args(["-q", "-w", &argument])
            .stdout(Stdio::null())
            .spawn()?;
        let pid = writer.id();
        writer.wait()?;
        let file = format!("/proc/sys/net/ipv4/conf/{INTERFACE}/{name}");
        let begun = Instant::now();
        while fs::read_to_string(&file)?.trim() != "1" {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{file} was not restored").into());
            }
            thread::yield_now();
        }
        truth.push((pid.to_string(), format!("sysctl -q -w {argument}")));
    }
    for (pid, cmdline) in truth {
        count.add(&restored(&guard)?, &pid, &cmdline);
    }
    Ok(())
}

/// The next record of a restore.
pub fn restored(guard: &Guard) -> Outcome<Value> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let record = guard.next()?;
        if field(&record, "NETGUARD_EVENT") == "drift-restored" {
            return Ok(record);
        }
    }
    Err("no restore is reported".into())
}
