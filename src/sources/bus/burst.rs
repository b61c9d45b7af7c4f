//! Many of a kind, told as one.

use std::time::Duration;

use tokio::time::Instant;

/// Gathers what comes in bursts until it has been quiet for a while, and in any
/// case not longer than a set time.
#[derive(Debug)]
pub(super) struct Burst<T> {
    quiet: Duration,
    longest: Duration,
    gathered: Option<Gathered<T>>,
}

/// What a burst amounts to.
#[derive(Debug)]
struct Gathered<T> {
    first: Instant,
    last: Instant,
    count: usize,
    latest: T,
}

impl<T> Burst<T> {
    pub(super) fn new(quiet: Duration, longest: Duration) -> Self {
        Burst {
            quiet,
            longest,
            gathered: None,
        }
    }

    /// Adds one that comes at `now`.
    pub(super) fn add(&mut self, latest: T, now: Instant) {
        let (first, count) = match &self.gathered {
            Some(gathered) => (gathered.first, gathered.count + 1),
            None => (now, 1),
        };
        self.gathered = Some(Gathered {
            first,
            last: now,
            count,
            latest,
        });
    }

    /// When the burst is to be told, if there is one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.gathered
            .as_ref()
            .map(|gathered| (gathered.last + self.quiet).min(gathered.first + self.longest))
    }

    /// How many came, and the last of them.
    pub(super) fn take(&mut self) -> Option<(usize, T)> {
        self.gathered
            .take()
            .map(|gathered| (gathered.count, gathered.latest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_ends_when_it_is_quiet_or_has_lasted() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut burst = Burst::new(ms(100), ms(250));
        assert_eq!(burst.due(), None);
        burst.add('a', start);
        assert_eq!(burst.due(), Some(start + ms(100)));
        burst.add('b', start + ms(90));
        assert_eq!(burst.due(), Some(start + ms(190)));
        burst.add('c', start + ms(180));
        assert_eq!(burst.due(), Some(start + ms(250)));
        assert_eq!(burst.take(), Some((3, 'c')));
        assert_eq!(burst.due(), None);
        assert_eq!(burst.take(), None);
    }
}
