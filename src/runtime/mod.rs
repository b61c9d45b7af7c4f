//! One loop: events in, step, actions out.
//!
//! [`run`] is the daemon's; [`once`] is a single scan, for `check` and `apply`.

mod alarm;
mod daemon;
mod executor;
mod files;
pub mod last_good;

use std::path::PathBuf;

pub use daemon::{Daemon, run};
pub use files::Find;

use crate::clock;
use crate::drivers::sysctl::Sysctls;
use crate::drivers::sysctl::files::ProcSys;
use crate::drivers::sysctl::watch::ProcWatch;
use crate::engine::{Action, Engine, Event, Record};
use crate::model::Settings;
use crate::sources::netlink::Restored;
use executor::Executor;

/// Checks everything once below `root`, keeping no file open, and acts as the settings' modes require.
/// Returns the engine, which has the state of each value, and its records.
pub fn once(settings: Settings, root: PathBuf) -> (Engine, Vec<Record>) {
    let mut engine = Engine::new(settings);
    engine.log_singly();
    let mut executor = Executor::new(
        Sysctls::new(ProcSys::new(root, 0), ProcWatch::none()),
        None,
        Restored::default(),
    );
    let (mut records, mut next) = (Vec::new(), Some(Event::Start));
    while let Some(event) = next.take() {
        let mut ready = false;
        for action in executor.step(&mut engine, event, clock::now()) {
            match action {
                Action::Record(record) => records.push(*record),
                Action::Continue => next = Some(Event::Tick),
                Action::Ready => ready = true,
                _ => {}
            }
        }
        next = next.filter(|_| !ready);
    }
    (engine, records)
}
