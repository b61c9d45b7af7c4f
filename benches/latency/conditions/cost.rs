//! What doing nothing costs.

use std::thread;
use std::time::{Duration, Instant};

use super::{Idle, Results};
use crate::contenders::Contender;
use crate::harness::place::in_network;
use crate::harness::{Bench, Outcome, interfaces};
use crate::options::Options;
use crate::subject;

/// Before the measurement begins: sources that are not there are tried again ever more
/// rarely, and that has thinned out by then.
const SETTLE: Duration = Duration::from_secs(40);

/// Starts every contender in a network of its own and checks all of them at
/// the same time: none has anything to do.
pub fn measure(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    let mut processes = Vec::new();
    for contender in Contender::ALL {
        if contender.missing().is_none() {
            let process = in_network(|| {
                interfaces::add(1)?;
                contender.start(bench, contender.scheduling(), &subject::IP_FORWARD)
            })?;
            processes.push((contender, process));
        }
    }
    thread::sleep(if options.quick { SETTLE / 3 } else { SETTLE });
    let looks = processes
        .iter()
        .map(|(_, process)| (Instant::now(), process.usage()));
    let before: Vec<_> = looks.collect();
    thread::sleep(options.idle);
    for ((contender, process), (began, before)) in processes.iter().zip(before) {
        let usage = process.usage() - before;
        results.idle.push(Idle {
            contender: *contender,
            span: began.elapsed(),
            usage,
            memory: process.memory(),
        });
    }
    Ok(())
}
