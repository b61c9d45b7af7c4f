//! What every measurement needs: the place, the cores, the instrument, the
//! processes and what they cost.

pub mod cores;
pub mod flow;
pub mod interfaces;
pub mod load;
pub mod manager;
pub mod place;
pub mod process;
pub mod stopwatch;
pub mod usage;

use std::error::Error;

use cores::Cores;
use manager::Manager;

use crate::options::Options;

/// A result, or why the benchmark cannot continue.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What lasts through all conditions.
pub struct Bench {
    /// Who runs where.
    pub cores: Cores,
    /// The stand-in for systemd and journald.
    pub manager: Manager,
}

impl Bench {
    /// Prepares the place that this process is in.
    pub fn prepare(options: &Options) -> Outcome<Bench> {
        place::furnish(options.previous.as_deref())?;
        let cores = Cores::divide()?;
        let manager = Manager::start(&cores)?;
        cores.join_node()?;
        Ok(Bench { cores, manager })
    }
}
