//! The instrument: takes something away, and spins until it is there again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use super::cores::Cores;
use crate::subject::Subject;

/// What is zeroed.
pub const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// After this long a try counts as never restored.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// For so long the instrument spins; then it looks every [`STEP`]: what takes
/// longer needs no microseconds, and the kernel stops who spins in real time
/// for too long.
const SPIN: Duration = Duration::from_millis(20);
const STEP: Duration = Duration::from_micros(100);

/// What to measure.
pub struct Plan<'a> {
    /// What is taken away.
    pub subject: &'a Subject,
    /// How many tries.
    pub tries: usize,
    /// Between two tries is a pause of at random up to this: as long as the
    /// guard's own cycle, so that every phase of it is met alike.
    pub phase: Duration,
    /// No try begins after this long.
    pub budget: Duration,
    /// When not to begin a try: waited for after the pause.
    pub gate: Option<&'a (dyn Fn() -> bool + Sync)>,
}

/// What was measured.
#[derive(Debug, Clone, Default)]
pub struct Tries {
    /// From when it was taken away to when it was found to be back.
    pub latencies: Vec<Duration>,
    /// Tries never restored.
    pub missed: usize,
}

impl Tries {
    /// Adds the tries of another round.
    pub fn extend(&mut self, other: Tries) {
        self.latencies.extend(other.latencies);
        self.missed += other.missed;
    }
}

/// Measures on a thread of its own, in the caller's network namespace.
pub fn measure(cores: &Cores, plan: &Plan<'_>) -> Outcome<Tries> {
    thread::scope(|scope| {
        let instrument = scope.spawn(|| {
            cores.become_instrument()?;
            run(&mut *plan.subject.instrument()?, plan)
        });
        instrument
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run(instrument: &mut dyn Instrument, plan: &Plan<'_>) -> Outcome<Tries> {
    let began = Instant::now();
    let mut random = Random::new();
    let mut tries = Tries::default();
    while tries.latencies.len() + tries.missed < plan.tries && began.elapsed() < plan.budget {
        thread::sleep(random.up_to(plan.phase));
        if let Some(open) = plan.gate {
            while !open() && began.elapsed() < plan.budget {
                thread::sleep(Duration::from_micros(200));
            }
        }
        match instrument.try_once()? {
            Some(latency) => tries.latencies.push(latency),
            None => tries.missed += 1,
        }
    }
    Ok(tries)
}

/// What takes something away and sees it come back.
pub trait Instrument {
    /// Does so once; `None` where it never came back, and was then restored.
    fn try_once(&mut self) -> Outcome<Option<Duration>>;
}

/// The value, by two descriptors held open.
pub struct Value {
    write: File,
    read: File,
}

impl Value {
    /// Opens the value of the calling thread's network namespace, and sets it.
    pub fn open() -> Outcome<Value> {
        let value = Value {
            write: OpenOptions::new().write(true).open(IP_FORWARD)?,
            read: File::open(IP_FORWARD)?,
        };
        value.set()?;
        Ok(value)
    }

    /// Whether it is 1.
    pub fn is_set(&self) -> Outcome<bool> {
        let mut value = [0];
        self.read.read_at(&mut value, 0)?;
        Ok(value == *b"1")
    }

    /// Writes 0.
    pub fn clear(&self) -> Outcome<()> {
        Ok(self.write.write_all_at(b"0", 0)?)
    }

    /// Writes 1.
    pub fn set(&self) -> Outcome<()> {
        Ok(self.write.write_all_at(b"1", 0)?)
    }
}

impl Instrument for Value {
    fn try_once(&mut self) -> Outcome<Option<Duration>> {
        if !self.is_set()? {
            self.set()?;
        }
        let began = Instant::now();
        self.clear()?;
        loop {
            let set = self.is_set()?;
            let elapsed = began.elapsed();
            if set {
                return Ok(Some(elapsed));
            }
            if elapsed > PATIENCE {
                self.set()?;
                return Ok(None);
            }
            if elapsed > SPIN {
                thread::sleep(STEP);
            }
        }
    }
}

/// Random numbers (xorshift), good enough for a phase.
pub struct Random(u64);

impl Random {
    /// Seeded from the clock.
    pub fn new() -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = now.map_or(1, |now| now.subsec_nanos());
        Random(u64::from(nanos) << 20 | 1)
    }

    /// Up to `most`, evenly.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        most.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}
