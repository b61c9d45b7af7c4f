//! The starts that no orderly end has followed: a guard that crashes over and
//! over waits before it starts, so that it does not fill the journal.
//!
//! systemd has RestartSteps= for that from version 254 on, and logs the line as
//! unknown before. Here it is the same on every system.

use std::path::Path;
use std::time::Duration;

use super::{Trouble, io, open};
use crate::clock;
use crate::model::Monotonic;

const FILE: &str = "starts";
/// So far back starts are counted; a guard that runs for longer has not crashed
/// at its start.
const WINDOW: Duration = Duration::from_secs(60);
/// So many starts in that time wait for nothing.
const AT_ONCE: usize = 5;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Below the unit's TimeoutStartSec=.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// No more are kept, nor read.
const MOST: usize = 20;
const LONGEST: u64 = 1024;

/// How long to wait with `recent` starts in the last minute, and how many there were.
///
/// # Errors
/// Where the starts cannot be read or saved; netguard starts immediately then.
pub fn begun(root: &Path) -> Result<(usize, Duration), Trouble> {
    let folder = open(root)?;
    let failed = |error| io(&folder, FILE, error);
    let text = folder.read(FILE, LONGEST).map_err(failed)?;
    let now = clock::now();
    let mut starts = recent(&text.unwrap_or_default(), now);
    let before = starts.len();
    starts.push(now);
    let lines: String = starts
        .iter()
        .map(|at| format!("{}\n", at.as_nanos()))
        .collect();
    folder
        .replace(FILE, lines.as_bytes(), false)
        .map_err(failed)?;
    Ok((before, wait(before)))
}

/// The guard ends as it should: the next start is the first.
///
/// # Errors
/// Where the starts cannot be removed.
pub fn ended(root: &Path) -> Result<(), Trouble> {
    let folder = open(root)?;
    folder
        .remove(FILE)
        .map_err(|error| io(&folder, FILE, error))
}

/// Those of the last [`WINDOW`], the newest [`MOST`] at most. A line that is no
/// moment before `now` counts for nothing.
fn recent(text: &[u8], now: Monotonic) -> Vec<Monotonic> {
    let text = String::from_utf8_lossy(text);
    let moments = text.lines().filter_map(|line| line.parse().ok());
    let mut starts: Vec<Monotonic> = moments
        .map(Monotonic::from_nanos)
        .filter(|at| *at <= now && now.since(*at) < WINDOW)
        .collect();
    starts.drain(..starts.len().saturating_sub(MOST));
    starts
}

fn wait(recent: usize) -> Duration {
    match recent.checked_sub(AT_ONCE) {
        None => Duration::ZERO,
        Some(more) => LONGEST_WAIT.min(FIRST_WAIT * 2_u32.pow(more.min(10) as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_nanos(seconds * 1_000_000_000)
    }

    /// With 100 ms between two starts, as in the unit, and a guard that crashes
    /// right away.
    #[test]
    fn a_crash_loop_is_slowed_down_and_its_first_restarts_are_not() {
        let mut starts: Vec<Monotonic> = Vec::new();
        let mut now = at(1000);
        while now < at(1000 + 3600) {
            let lines: String = starts
                .iter()
                .map(|at| format!("{}\n", at.as_nanos()))
                .collect();
            let before = recent(lines.as_bytes(), now).len();
            if starts.len() < AT_ONCE {
                assert_eq!(wait(before), Duration::ZERO);
            }
            starts.push(now);
            now = now + wait(before) + Duration::from_millis(100);
        }
        assert!(starts.len() < 800, "{} starts in an hour", starts.len());
    }

    #[test]
    fn only_moments_of_the_last_minute_count() {
        let text = b"939000000000\n941000000000\n1001000000000\nx\n\xff\n-1\n";
        assert_eq!(recent(text, at(1000)), [at(941)]);
    }
}
