//! Packets lost from a flow through the node.

use std::thread;
use std::time::Duration;

use super::{Packets, Results};
use crate::contenders::Contender;
use crate::harness::flow::Flow;
use crate::harness::place::in_network;
use crate::harness::{Bench, Outcome};
use crate::options::Options;
use crate::report;
use crate::subject;

/// Incidents of a fast contender, and of one that takes a second for each.
const FAST: usize = 200;
const SLOW: usize = 10;

/// Has incidents under each contender.
pub fn measure(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    in_network(|| {
        let flow = Flow::wire()?;
        for contender in Contender::ALL {
            if contender.missing().is_some() || contender == Contender::Tuned {
                continue;
            }
            report::progress(&format!("packets: {}", contender.name()));
            let process = contender.start(bench, contender.scheduling(), &subject::IP_FORWARD)?;
            thread::sleep(Duration::from_millis(500));
            let incidents = match contender.is_slow() {
                true => options.scaled(SLOW).max(3),
                false => options.scaled(FAST).max(20),
            };
            // At first slow ones are not ready.
            flow.measure(&bench.cores, 1, contender.cycle(), Duration::from_secs(5))?;
            let budget = Duration::from_secs(30);
            let phase = contender.cycle().max(Duration::from_millis(5));
            let losses = flow.measure(&bench.cores, incidents, phase, budget)?;
            results.packets.push(Packets {
                contender,
                lost: losses.lost,
                missed: losses.missed,
            });
            process.stop();
        }
        Ok(())
    })
}
