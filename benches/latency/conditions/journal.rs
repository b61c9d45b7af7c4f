//! The journal stalled: nobody reads its socket.

use std::thread;
use std::time::{Duration, Instant};

use super::{Results, Series, Stalled};
use crate::contenders::Contender;
use crate::harness::place::in_network;
use crate::harness::stopwatch::{self, Plan};
use crate::harness::{Bench, Outcome, interfaces};
use crate::options::Options;
use crate::subject;

/// How long the records may take once the socket is read again.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Drifts with the journal read, then as many with the journal stalled.
pub fn measure(bench: &Bench, options: &Options, results: &mut Results) -> Outcome<()> {
    let drifts = options.scaled(1000);
    let span = Duration::from_secs(if options.quick { 3 } else { 30 });
    let contender = Contender::Netguard;
    let scheduling = contender.scheduling();
    let plan = Plan {
        subject: &subject::IP_FORWARD,
        tries: drifts,
        // On average the drifts fill the span.
        phase: span * 2 / u32::try_from(drifts)?,
        budget: span * 2,
        gate: None,
    };
    in_network(|| {
        interfaces::add(1)?;
        let guard = contender.start(bench, scheduling, &subject::IP_FORWARD)?;
        thread::sleep(Duration::from_millis(500));
        let mut race = |condition: &str| -> Outcome<usize> {
            let before = guard.usage();
            let tries = stopwatch::measure(&bench.cores, &plan)?;
            let count = tries.latencies.len();
            results.series.push(Series {
                condition: condition.to_owned(),
                contender,
                scheduling,
                tries,
                usage: guard.usage() - before,
                memory: guard.memory(),
            });
            Ok(count)
        };
        race("journal-read")?;
        thread::sleep(Duration::from_secs(1));
        let before = bench.manager.told();
        bench.manager.stall_journal(true);
        let began = Instant::now();
        let raced = race("journal-stalled");
        thread::sleep(span.saturating_sub(began.elapsed()));
        bench.manager.stall_journal(false);
        let restored = raced?;
        let stalled_for = began.elapsed();
        let began = Instant::now();
        let counts = || {
            let now = bench.manager.told();
            (now.restored - before.restored, now.dropped - before.dropped)
        };
        while counts().0 + counts().1 < restored as u64 && began.elapsed() < CATCH_UP {
            thread::sleep(Duration::from_millis(50));
        }
        let (told, dropped) = counts();
        results.journal = Some(Stalled {
            span: stalled_for,
            drifts: restored,
            told,
            dropped,
        });
        guard.stop();
        Ok(())
    })
}
