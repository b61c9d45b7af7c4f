//! How long a value or a resource stays drifted: `cargo bench --bench latency`, as root.
//!
//! netguard is measured side by side with what a user would otherwise run and
//! with the floor, a bare program that does nothing else, in one run; what
//! counts are the ratios. Everything happens in namespaces of its own (network,
//! processes, mounts) that end with the program, and no setting of the host
//! changes.
//!
//! * [`harness`]: the place, the instrument, what processes cost.
//! * [`floor`]: the bare program, and the other parts that children play.
//! * [`contenders`]: who is measured, and how each is started.
//! * [`subject`]: what is taken away.
//! * [`conditions`]: under which circumstances.
//! * [`statistics`], [`report`]: figures, bars, table, JSON, SVG.
//!
//! `cargo bench --bench latency -- --help` lists the options.

mod conditions;
mod contenders;
mod firewall;
mod floor;
mod harness;
mod options;
mod report;
mod statistics;
mod subject;

use std::process::ExitCode;

use harness::Outcome;
use options::{Invocation, Options};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            report::say(&format!("latency: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<ExitCode> {
    match options::parse(std::env::args().skip(1))? {
        Invocation::Help => report::say(options::HELP),
        Invocation::Enter => return harness::place::enter(),
        Invocation::Role(role) => floor::play(&role)?,
        Invocation::Measure(options) => measure(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures what is asked for. Runs as process 1 of the place.
fn measure(options: &Options) -> Outcome<()> {
    let bench = harness::Bench::prepare(options)?;
    let results = conditions::measure(&bench, options)?;
    report::write(&results, options)
}
