//! A drifted value in the state file and `status --json`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clocks::Clocks;
use crate::engine::{ActiveDrift, Remembered};
use crate::journal::message;
use crate::model::{Attribution, Mode, Process, Value};
use crate::resource::{Resource, State};
use crate::words::clip;

/// The longest text of a drift that is kept, in bytes: a value may have pages.
const LONGEST: usize = 512;

/// A drifted value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftState {
    pub key: String,
    /// The invariant's selector.
    pub selector: String,
    /// Where the invariant is written, `FILE:LINE`.
    pub origin: String,
    /// What it is; nothing where it cannot be read.
    pub value: Option<String>,
    pub required: String,
    /// Since when; `None` where it was found by the first scan.
    pub since_usec: Option<u64>,
    pub found_usec: u64,
    /// The source that detected it.
    pub source: String,
    /// Why it is not restored.
    pub why: Why,
    /// What was tried and what to do, where a restore failed.
    pub error: Option<String>,
    /// When the next restore is tried, at the latest.
    pub retry_usec: Option<u64>,
    pub writer: Option<Process>,
    /// Why the writer is unknown.
    pub writer_unknown: Option<String>,
    /// The key that was written, where the kernel carried the change over.
    pub caused_by: Option<String>,
    /// The line of a file that will do it again, `FILE:LINE`.
    pub again: Option<String>,
    /// The network restart it happened in.
    pub episode: Option<u64>,
    /// What happens next, or what must be done.
    pub next_step: String,
}

/// Why a value that has drifted is not restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The mode is `observe`.
    Observed,
    /// Another writer keeps changing it.
    Contended,
    /// The kernel would not have it.
    Failed,
    /// It is just being restored.
    Restoring,
    /// It is pending: see [`Contents::pending`](super::Contents::pending).
    Pending,
}

impl DriftState {
    pub(super) fn of(open: &ActiveDrift, clocks: &Clocks) -> Self {
        let drift = &open.drift;
        let why = match (&open.failure, drift.mode) {
            _ if open.is_pending => Why::Pending,
            _ if open.contended => Why::Contended,
            (Some(_), _) => Why::Failed,
            (None, Mode::Observe) => Why::Observed,
            (None, Mode::Restore) => Why::Restoring,
        };
        let failure = open.failure.as_ref().filter(|_| why == Why::Failed);
        let error = failure.map(|failure| message::error(drift, failure));
        let (writer, writer_unknown) = match &drift.writer {
            Attribution::Known(process) => (Some(Process::clone(process)), None),
            Attribution::Unknown(why) => (None, Some(why.to_string())),
        };
        let origin = drift.origin.as_ref().map(ToString::to_string);
        let origin = origin.unwrap_or_default();
        DriftState {
            key: drift.key.to_string(),
            selector: drift.selector.to_string(),
            value: drift.new.as_ref().map(|value| cut(&value.text())),
            required: cut(&drift.required),
            since_usec: open.since.map(|at| clocks.realtime(at)),
            found_usec: clocks.realtime(open.found_at),
            source: drift.source.to_string(),
            why,
            error,
            retry_usec: open.next.map(|at| clocks.realtime(at)),
            writer,
            writer_unknown,
            caused_by: drift.caused_by.as_ref().map(ToString::to_string),
            again: drift.again.as_ref().map(ToString::to_string),
            episode: drift.episode.map(|id| id.0),
            next_step: next_step(why, &drift.key, &origin),
            origin,
        }
    }

    /// What the next netguard must know of it.
    pub(super) fn remembered(self, clocks: &Clocks) -> Option<Remembered> {
        let process = |writer| Attribution::Known(Arc::new(writer));
        let key = Resource::parse(&self.key)?;
        Some(Remembered {
            found: found(&key, &self.value?)?,
            key,
            since: self.since_usec.map(|at| clocks.monotonic(at)),
            found_at: clocks.monotonic(self.found_usec),
            writer: self.writer.map(process),
            counted: true,
        })
    }
}

/// The state that a resource was found in, as the file has it.
pub(super) fn found(key: &Resource, text: &str) -> Option<State> {
    match key.sysctl() {
        Some(_) => Some(Value::new(text).into()),
        None => State::parse(text),
    }
}

/// The text, shortened where it is very long.
pub(super) fn cut(text: &str) -> String {
    clip(text, LONGEST).to_owned()
}

fn next_step(why: Why, key: &Resource, origin: &str) -> String {
    match (why, key) {
        (Why::Observed, Resource::Module(name)) => format!(
            "load it with `modprobe {name}`; netguard does that with `load = true` at {origin}"
        ),
        (Why::Observed, _) => format!(
            "nothing is written in observe mode, which the entry ({origin}) or [guard] sets"
        ),
        (Why::Contended, _) => {
            "restored again and again at the configured rate; stop what keeps writing it".to_owned()
        }
        (Why::Failed, _) => {
            "retried with increasing delays and at each change of the value".to_owned()
        }
        (Why::Restoring, _) => "being restored".to_owned(),
        (Why::Pending, _) => "restored once what it waits for is there".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_about_an_observed_drift_is_what_the_configuration_accepts() {
        let of = |key: &str| {
            let key = Resource::parse(key).expect("a resource");
            next_step(Why::Observed, &key, "netguard.toml:7")
        };
        // A module has no `mode`.
        assert_eq!(
            of("module/br_netfilter"),
            "load it with `modprobe br_netfilter`; netguard does that with `load = true` at netguard.toml:7"
        );
        // [guard] may have set the mode, and the entry may be one of a profile.
        assert_eq!(
            of("net.ipv4.ip_forward"),
            "nothing is written in observe mode, which the entry (netguard.toml:7) or [guard] sets"
        );
    }
}
