//! The limitations of netguard, in words.

use super::message::{advice, first_error, name};
use super::moment::Zone;
use crate::engine::{Affected, Limitation, LimitationKind};
use crate::words::{Count, line};

/// A limitation on one line: what netguard cannot do, and why.
pub fn text(limitation: &Limitation) -> String {
    match limitation {
        Limitation::Blind { reason } => format!("nothing can be guarded: {}", line(reason)),
        Limitation::Firewall { reason } => {
            format!("a part of the firewall is not guarded: {}", line(reason))
        }
        Limitation::Unwritable { values, errno: why } => format!(
            "{} cannot be restored, opening {} for writing failed: {}{}",
            of(values),
            values.first,
            name(*why),
            advice(*why)
        ),
        Limitation::LastGood(last_good) => format!(
            "running with the last good configuration of {}, because {}",
            moment(last_good.saved),
            first_error(&last_good.diagnostics)
        ),
        Limitation::Undetected { values, reason } => format!(
            "writes to {} are found only by the periodic scan, first {}: {}",
            of(values),
            values.first,
            line(reason)
        ),
        Limitation::Unsaved { reason } => format!("the state is not saved: {}", line(reason)),
    }
}

/// The end of a limitation.
pub fn over(kind: LimitationKind) -> &'static str {
    match kind {
        LimitationKind::Blind => "the kernel's values can be read",
        LimitationKind::Firewall => "all parts of the firewall can be read and restored",
        LimitationKind::Unwritable => "all values can be restored",
        LimitationKind::LastGood => "the current configuration is in force",
        LimitationKind::Undetected => "writes to all values are detected",
        LimitationKind::Unsaved => "the state is saved",
    }
}

/// All of them on one line; nothing where there are none.
pub fn degraded(limitations: &[Limitation]) -> Option<String> {
    let all: Vec<String> = limitations.iter().map(text).collect();
    (!all.is_empty()).then(|| format!("degraded: {}", all.join("; ")))
}

/// `3 of 214 values`.
fn of(values: &Affected) -> String {
    format!("{} of {}", values.count, Count(values.of, "value"))
}

/// A moment by the clock of this machine, `2026-11-28 18:38:38 UTC`.
fn moment(usec: u64) -> String {
    let zone = Zone::local();
    format!("{} {}", zone.show(usec, false), zone.name(usec))
}
