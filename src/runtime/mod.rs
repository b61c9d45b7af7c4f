//! One loop: events in, step, actions out.
//!
//! [`run`] is the daemon's; [`once`] is a single scan, for `check` and `apply`.

mod alarm;
mod daemon;
mod executor;
mod files;
pub mod last_good;

use std::path::PathBuf;
use std::time::Duration;

pub use daemon::{Daemon, Load, run};
pub use files::Find;

use crate::clock;
use crate::drivers::sysctl::Sysctls;
use crate::drivers::sysctl::files::ProcSys;
use crate::drivers::sysctl::watch::ProcWatch;
use crate::engine::{Action, Engine, Event, Memory, Record};
use crate::model::{Monotonic, Settings};
use crate::sources::netlink::Restored;
use executor::{Detected, Executor};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// How long a single check waits for the kernel to list what there is, and systemd to
/// answer.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How long it waits for a unit to start: as long as systemd does by default
/// (`DefaultTimeoutStartSec=`).
const LONGEST_START: Duration = Duration::from_secs(90);

/// Checks everything once below `root`, keeping no file open, and acts as the settings' modes require.
/// Returns the engine, which has the state of each value, and its records. `known` is
/// what a running guard knows.
pub fn once(settings: Settings, root: PathBuf, known: Memory) -> (Engine, Vec<Record>) {
    let mut engine = Engine::new(settings);
    engine.remember(known, clock::now());
    engine.log_singly();
    let mut executor = Executor::new(
        Sysctls::new(ProcSys::new(root, 0), ProcWatch::none()),
        None,
        Restored::default(),
    );
    // Only what the network is about waits for answers.
    let is_waited_for = !engine.interest().is_empty();
    let runtime = is_waited_for.then(|| Builder::new_current_thread().enable_all().build());
    let runtime = runtime.and_then(Result::ok);
    let _entered = runtime.as_ref().map(Runtime::enter);
    if runtime.is_some() {
        executor.configure(&engine);
    }
    let mut records = Vec::new();
    let mut step = |executor: &mut Executor, engine: &mut Engine, event, at| {
        let mut more = false;
        for action in executor.step(engine, event, at) {
            match action {
                Action::Record(record) => records.push(*record),
                Action::Continue => more = true,
                _ => {}
            }
        }
        more
    };
    let is_in_sync = |executor: &Executor| executor.is_in_sync();
    for (event, at) in wait(runtime.as_ref(), &mut executor, is_in_sync) {
        step(&mut executor, &mut engine, event, at);
    }
    let mut next = Some(Event::Start);
    while let Some(event) = next.take() {
        let more = step(&mut executor, &mut engine, event, clock::now());
        next = more.then_some(Event::Tick);
        loop {
            let answers = wait(runtime.as_ref(), &mut executor, |it| !it.is_busy());
            if answers.is_empty() {
                break;
            }
            for (event, at) in answers {
                next = next.or(step(&mut executor, &mut engine, event, at).then_some(Event::Tick));
            }
        }
    }
    (engine, records)
}

/// What the drivers report until `is_over`, or for two seconds.
fn wait(
    runtime: Option<&Runtime>,
    executor: &mut Executor,
    is_over: impl Fn(&Executor) -> bool,
) -> Vec<(Event, Monotonic)> {
    let mut events = Vec::new();
    let Some(runtime) = runtime.filter(|_| !is_over(executor)) else {
        return events;
    };
    let longest = match executor.is_waiting_for_programs() {
        true => LONGEST_START,
        false => LONGEST_WAIT,
    };
    let all = async {
        while !is_over(executor) {
            match executor.detected().await {
                Detected::Event(event, at) => events.push((event, at)),
                Detected::Events(all) => events.extend(all),
                Detected::Writes(_) | Detected::State => {}
            }
        }
    };
    // What is not known by then is reported as unknown.
    let _ = runtime.block_on(async { timeout(longest, all).await });
    events
}
