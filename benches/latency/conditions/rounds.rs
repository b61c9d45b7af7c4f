//! Contenders taking turns.

use std::thread;
use std::time::Duration;

use super::Series;
use crate::contenders::Contender;
use crate::harness::process::Scheduling;
use crate::harness::stopwatch::{self, Plan};
use crate::harness::usage::{Memory, Usage};
use crate::harness::{Bench, Outcome, stopwatch::Tries};
use crate::options::Options;
use crate::report;
use crate::subject::Subject;

/// The rounds that tries are spread over, so that whatever else the machine
/// does meets all contenders alike.
const ROUNDS: usize = 10;
/// How long a slow contender's turn may take.
const TURN: Duration = Duration::from_secs(5);
/// How long a contender gets from its start to its first try: netguard searches the
/// node's files meanwhile.
const SETTLE: Duration = Duration::from_secs(1);
/// Tries until it is taken to listen.
const WARM_UP: usize = 5;

/// What takes part.
#[derive(Debug, Clone, Copy)]
pub struct Entrant {
    /// Who.
    pub contender: Contender,
    /// How the scheduler treats it.
    pub scheduling: Scheduling,
}

impl Entrant {
    /// As it is installed.
    pub fn of(contender: Contender) -> Entrant {
        Entrant {
            contender,
            scheduling: contender.scheduling(),
        }
    }
}

/// A race under one condition.
pub struct Race<'a> {
    /// What is taken away and restored.
    pub subject: &'a Subject,
    /// The condition, as the report names it.
    pub condition: &'a str,
    /// Who takes part.
    pub entrants: Vec<Entrant>,
    /// Tries of each fast contender.
    pub tries: usize,
    /// What the pause between two tries is at least drawn from.
    pub phase: Duration,
}

impl Race<'_> {
    /// Lets them take turns in the calling thread's network namespace. Each turn
    /// is a new start: so its luck with addresses and caches is averaged too,
    /// and no other contender runs meanwhile.
    pub fn run(&self, bench: &Bench, options: &Options) -> Outcome<Vec<Series>> {
        let entrants = self.entrants.iter().filter(|entrant| {
            let contender = entrant.contender;
            let wanted = options.contenders.is_empty()
                || options
                    .contenders
                    .iter()
                    .any(|name| name == contender.name());
            wanted && contender.missing().is_none() && contender.restores(self.subject)
        });
        let mut series: Vec<Series> = entrants
            .map(|entrant| Series {
                condition: self.condition.to_owned(),
                contender: entrant.contender,
                scheduling: entrant.scheduling,
                tries: Tries::default(),
                usage: Usage::default(),
                memory: Memory::default(),
            })
            .collect();
        let rounds = if options.quick { 2 } else { ROUNDS };
        for round in 1..=rounds {
            for series in &mut series {
                report::progress(&format!(
                    "{}: round {round} of {rounds}: {}",
                    self.condition,
                    series.contender.name()
                ));
                self.turn(bench, series, self.tries.div_ceil(rounds))?;
            }
        }
        Ok(series)
    }

    fn turn(&self, bench: &Bench, series: &mut Series, tries: usize) -> Outcome<()> {
        let process = series
            .contender
            .start(bench, series.scheduling, self.subject)?;
        thread::sleep(SETTLE);
        let plan = |tries| Plan {
            subject: self.subject,
            tries,
            phase: self.phase.max(series.contender.cycle()),
            budget: TURN,
            gate: None,
        };
        if series.contender == Contender::Tuned {
            // It starts within seconds, and would write then.
            thread::sleep(TURN);
        } else {
            for _ in 0..WARM_UP {
                let tries = stopwatch::measure(&bench.cores, &plan(1))?;
                if tries.missed == 0 {
                    break;
                }
            }
        }
        let before = process.usage();
        let plan = Plan {
            // The second-scale ones get time, not tries; the others get both.
            budget: match series.contender.is_slow() {
                true => TURN,
                false => TURN * 4,
            },
            ..plan(tries)
        };
        let tries = stopwatch::measure(&bench.cores, &plan)?;
        series.usage += process.usage() - before;
        series.memory = series.memory.max(process.memory());
        series.tries.extend(tries);
        process.stop();
        Ok(())
    }
}
