//! When the loop last slept.
//!
//! A loop that sleeps has heard everything there was to hear. What it hears
//! when it wakes was done since; so the time of a write, which fanotify does
//! not tell, lies between the loop's waking and the moment at which the value
//! was found wrong, and with it the program that the writer was at that time.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::gettid;

use crate::clock;
use crate::model::Monotonic;

/// How many wakings are remembered: a record asks a few of them later.
const MOST: usize = 32;
/// What falling asleep and waking take besides waiting for a processor: the
/// system call, an interrupt to another processor, the switch.
const WAKING: Duration = Duration::from_micros(50);

/// When the loop woke, as it notes it.
#[derive(Debug, Clone, Default)]
pub struct Naps(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// `/proc/PID/task/TID/schedstat` of the loop's thread.
    waits: Option<File>,
    /// When the loop last went to sleep, and how long the thread had waited for
    /// a processor until then.
    went: Monotonic,
    waited: Duration,
    /// When it ran again, and a moment before which it still slept.
    woken: VecDeque<(Monotonic, Monotonic)>,
}

impl Naps {
    /// Of this thread.
    pub fn of_this_thread() -> Self {
        let waits = File::open(format!("/proc/self/task/{}/schedstat", gettid())).ok();
        Naps(Arc::new(Mutex::new(State {
            waits,
            ..State::default()
        })))
    }

    /// The loop is about to sleep.
    pub fn sleeps(&self) {
        self.with(|state| {
            state.correct();
            state.waited = state.wait_so_far();
            state.went = clock::now();
        });
    }

    /// The loop runs again.
    pub fn wakes(&self) {
        let now = clock::now();
        self.with(|state| {
            if state.woken.len() == MOST {
                state.woken.pop_front();
            }
            state.woken.push_back((now, now));
        });
    }

    /// A moment at which the loop slept, the last before `by`: it had heard all
    /// that was done before.
    pub fn last_before(&self, by: Monotonic) -> Monotonic {
        self.with(|state| {
            state.correct();
            let woken = state.woken.iter().rev().find(|(ran, _)| *ran <= by);
            woken.map_or(Monotonic::default(), |(_, slept)| *slept)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // Only the loop's thread comes here: there is nothing to wait for.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Works out when the loop slept before it last woke.
    ///
    /// Before it ran again the thread has waited for a processor: for as long,
    /// at most, as it has waited since it went to sleep. Where nothing is left
    /// of the time since then, something may have been waiting to be heard, and
    /// it did not sleep at all.
    fn correct(&mut self) {
        let Some((ran, slept)) = self.woken.back().copied() else {
            return;
        };
        if ran != slept {
            return;
        }
        let waited = self.wait_so_far().saturating_sub(self.waited) + WAKING;
        let waited = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        let mut slept = Monotonic::from_nanos(ran.as_nanos().saturating_sub(waited));
        if slept <= self.went {
            let before = self.woken.iter().rev().nth(1);
            slept = before.map_or(Monotonic::default(), |(_, slept)| *slept);
        }
        if let Some((_, last)) = self.woken.back_mut() {
            *last = slept;
        }
    }

    /// The second number of schedstat, in nanoseconds.
    fn wait_so_far(&self) -> Duration {
        let mut text = [0; 64];
        let read = self.waits.as_ref().map(|file| file.read_at(&mut text, 0));
        let Some(Ok(length)) = read else {
            return Duration::ZERO;
        };
        let text = str::from_utf8(&text[..length]).unwrap_or_default();
        let waited = text
            .split(' ')
            .nth(1)
            .and_then(|number| number.parse().ok());
        Duration::from_nanos(waited.unwrap_or(0))
    }
}
