//! What is known of a drift: why its value is checked, since when it is so, and what failed.

use std::time::Duration;

use crate::model::{Attribution, Monotonic, Source, Writer};
use crate::reporting::{EpisodeId, Failure};
use crate::resource::{Resource, State};

/// Why a value is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub source: Source,
    /// The writer, where the source knows it.
    pub writer: Option<Writer>,
    /// When it was detected.
    pub at: Monotonic,
    /// Whether a writer was detected since this was last asked: what reads back
    /// otherwise may then be due to another writer rather than the kernel.
    pub writer_detected: bool,
    /// Whether the write itself went undetected, so that the value may have been
    /// drifted for longer.
    pub late: bool,
}

impl Cause {
    /// What `source` has reported at `at`.
    pub fn new(source: Source, writer: Option<Writer>, at: Monotonic) -> Self {
        Cause {
            source,
            writer,
            at,
            writer_detected: matches!(source, Source::Netconf | Source::Fanotify),
            late: !source.detects_writes(),
        }
    }

    /// What `source` reports of a change itself.
    pub fn hint(source: Source, writer: Option<Writer>, at: Monotonic) -> Self {
        Cause {
            writer_detected: true,
            // What is read again after notifications were lost.
            late: source == Source::Sweep,
            ..Cause::new(source, writer, at)
        }
    }

    /// What a full scan finds, which `source` asked for.
    pub fn found(source: Source, at: Monotonic) -> Self {
        Cause {
            late: true,
            ..Cause::new(source, None, at)
        }
    }
}

/// A drift that is not over.
#[derive(Debug, Clone)]
pub struct OpenDrift {
    /// When it was detected.
    pub detected: Monotonic,
    pub source: Source,
    /// When the value was read: the write was over by then.
    pub found: Monotonic,
    /// What was read.
    pub seen: Option<State>,
    /// When the value was last read as expected, where the write went undetected.
    pub good_at: Option<Monotonic>,
    /// Whether it is unknown when it began: it was so at the first scan.
    pub unknown: bool,
    /// Whether the configuration has changed and not the value: until it is
    /// seen that the value cannot be brought in line this is no outage.
    pub required: bool,
    /// The network restart that it belongs to.
    pub episode: Option<EpisodeId>,
    /// When the kernel answered the last write.
    pub written: Option<Monotonic>,
    /// Whether it is counted among the outages.
    pub counted: bool,
    /// The writer, once it is known.
    pub writer: Option<Attribution>,
    /// The key that was written, where the kernel carried the change over.
    pub caused_by: Option<Resource>,
}

impl OpenDrift {
    /// Since when the value has drifted, as far as that is known; earlier rather
    /// than later.
    pub fn since(&self) -> Monotonic {
        self.good_at.unwrap_or(self.detected)
    }
}

/// A restore that failed.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub failure: Failure,
    /// On what value.
    pub found: Option<State>,
    /// How long to wait before the next try.
    pub wait: Duration,
    /// Whether there is a record of it.
    pub is_reported: bool,
}
