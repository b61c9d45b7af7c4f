//! A node with 5,000 interfaces and 20,000 values.

use super::{Results, Scale};
use crate::contenders::{Contender, configuration, start_netguard, unit_scheduling};
use crate::harness::place::in_network;
use crate::harness::{Bench, Outcome, interfaces};
use crate::options::Options;

const INTERFACES: usize = 5000;

/// Starts netguard there, a few times; the median counts.
pub fn measure(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    let mut scales = in_network(|| {
        interfaces::add(INTERFACES)?;
        let (text, values) = configuration::four_per_interface("60s", INTERFACES);
        let file = configuration::write("scale", &text)?;
        let mut scales = Vec::new();
        for _ in 0..if options.quick { 3 } else { 7 } {
            let started = start_netguard(bench, Contender::Netguard, unit_scheduling(), &file)?;
            let (guard, ready) = started;
            let memory = guard.memory();
            guard.stop();
            scales.push(Scale {
                values,
                ready,
                memory,
            });
        }
        Ok(scales)
    })?;
    scales.sort_by_key(|scale| scale.ready);
    results.scale = scales.get(scales.len() / 2).copied();
    Ok(())
}
