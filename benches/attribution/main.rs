//! How often the writer is named, and what that costs: `cargo bench --bench
//! attribution`, as root.
//!
//! The process connector speaks only in the initial namespaces, so this runs
//! there: it adds an interface of its own, guards two keys of that, and removes
//! it at the end. No other setting of the host is touched.
//!
//! Tables of iptables are changed in a network namespace of their own; the connector
//! reports from there as well.
//!
//! * [`guard`]: the daemon as its unit runs it, and its records.
//! * [`writers`]: short-lived writers, and the ground truth that they keep.
//! * [`firewall`]: writers that each delete a rule of iptables.
//! * [`cost`]: what the daemon uses while a host executes 1,000 programs a second.

mod cost;
mod firewall;
mod guard;
mod writers;

use std::error::Error;
use std::io::{self, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use netguard::drivers::firewall::protocol::Backend;
use writers::Besides;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The interface whose keys are written.
const INTERFACE: &str = "ngbench0";

const HELP: &str = "\
Counts how many short-lived writers are named, and measures what that costs.

cargo bench --bench attribution [-- OPTIONS]      (as root, in the initial namespaces)

  --tries N      writers: idle, busy and in a storm each (1000); of each backend of
                 iptables 300 at most
  --seconds N    how long the cost is measured (20)
  --processes N  long-lived processes beside that (1500)";

struct Options {
    tries: usize,
    span: Duration,
    processes: usize,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("attribution: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let Some(options) = options(std::env::args().skip(1))? else {
        say(HELP);
        return Ok(());
    };
    let _interface = Interface::add()?;
    say(&format!(
        "{:<36}{:>8}{:>8}{:>9}{:>8}",
        "writers", "named", "wrong", "unknown", "bar"
    ));
    let idle = writers::measure(options.tries, Besides::Nothing)?;
    idle.say("sysctl -w, idle", "99 %");
    let busy = writers::measure(options.tries, Besides::Spin(2))?;
    busy.say("sysctl -w, every core busy", "95 %");
    let storm = writers::measure(options.tries, Besides::Execute(cost::RATE))?;
    storm.say("sysctl -w, 1,000 programs a second", "-");
    for (condition, backend) in [
        ("iptables -D, nft", Backend::Nft),
        ("iptables -D, legacy", Backend::Legacy),
    ] {
        let count = firewall::measure(options.tries.min(300), backend)?;
        count.say(condition, "99 %");
    }
    let cost = cost::measure(options.span, options.processes)?;
    cost.say();
    Ok(())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Outcome<Option<Options>> {
    let mut options = Options {
        tries: 1000,
        span: Duration::from_secs(20),
        processes: 1500,
    };
    while let Some(argument) = arguments.next() {
        let mut number = || -> Outcome<u64> {
            let value = arguments.next();
            Ok(value.ok_or(format!("{argument} wants a value"))?.parse()?)
        };
        match argument.as_str() {
            // What `cargo bench` adds.
            "--bench" => {}
            "--help" | "-h" => return Ok(None),
            "--tries" => options.tries = usize::try_from(number()?)?,
            "--processes" => options.processes = usize::try_from(number()?)?,
            "--seconds" => options.span = Duration::from_secs(number()?),
            other => return Err(format!("{other}: see --help").into()),
        }
    }
    Ok(Some(options))
}

/// A line for people.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// The interface, until this is dropped.
struct Interface;

impl Interface {
    fn add() -> Outcome<Self> {
        ip(&["tuntap", "add", "dev", INTERFACE, "mode", "tap"])?;
        Ok(Interface)
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", INTERFACE]);
    }
}

fn ip(arguments: &[&str]) -> Outcome<()> {
    let status = Command::new("ip").args(arguments).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("ip {}: {status}; this needs root", arguments.join(" ")).into())
    }
}
