//! Short-lived writers: each a `sysctl -w` that is gone before anybody looks.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::guard::{Guard, field};
use crate::{INTERFACE, Outcome, say};

/// One key that NETCONF tells of, and one of which only fanotify does.
const NAMES: [&str; 2] = ["rp_filter", "route_localnet"];
/// The longest time until a value is right again.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the writers were told.
#[derive(Debug, Default)]
pub struct Count {
    named: usize,
    wrong: usize,
    /// By the reason.
    unknown: BTreeMap<String, usize>,
}

impl Count {
    /// One line of the table, and the reasons below it.
    pub fn say(&self, condition: &str, bar: &str) {
        let unknown: usize = self.unknown.values().sum();
        let all = self.named + self.wrong + unknown;
        let share = 100.0 * self.named as f64 / all as f64;
        say(&format!(
            "{condition:<34}{share:>7.1}%{:>8}{unknown:>9}{bar:>8}",
            self.wrong
        ));
        for (reason, count) in &self.unknown {
            say(&format!("    {count} times: {reason}"));
        }
    }
}

/// Processes that spin until they are dropped.
struct Load(Vec<Child>);

impl Load {
    fn start(each_core: usize) -> Outcome<Self> {
        let cores = thread::available_parallelism()?.get();
        let spin = |_| {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
        };
        Ok(Load(
            (0..cores * each_core).map(spin).collect::<Result<_, _>>()?,
        ))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Lets `tries` writers write, one after the other, and reads who was told.
pub fn measure(tries: usize, load: Option<usize>) -> Outcome<Count> {
    let guard = Guard::start()?;
    let _load = load.map(Load::start).transpose()?;
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
    let mut count = Count::default();
    for (pid, cmdline) in truth {
        let record = loop {
            let record = guard.next()?;
            if field(&record, "NETGUARD_EVENT") == "drift-restored" {
                break record;
            }
        };
        let told = |name| field(&record, name);
        // sysctl cuts its own argument at the `=`: who looks late sees a space.
        let words = |text: &str| text.replace('=', " ");
        match told("NETGUARD_WRITER_UNKNOWN") {
            "" if told("OBJECT_PID") == pid && words(told("OBJECT_CMDLINE")) == words(&cmdline) => {
                count.named += 1;
            }
            "" => {
                count.wrong += 1;
                say(&format!(
                    "    {cmdline} [{pid}] told as: {}",
                    told("MESSAGE")
                ));
            }
            reason => {
                let reason = reason.replace(&pid, "N");
                *count.unknown.entry(reason).or_default() += 1;
            }
        }
    }
    Ok(count)
}
