//! The limitations of netguard, in words.

use super::errors::{first_error, why};
use super::moment::Zone;
use crate::engine::{Affected, Limitation, LimitationKind};
use crate::words::{Count, line};

/// A limitation on one line: what netguard cannot do, and why.
pub fn text(limitation: &Limitation) -> String {
    let what = what(limitation);
    match limitation {
        Limitation::Blind { reason }
        | Limitation::Firewall { reason }
        | Limitation::Unsaved { reason } => format!("{what}: {}", line(reason)),
        Limitation::Unwritable { values, errno } => format!(
            "{what}: opening {} for writing failed: {}",
            values.first,
            why(*errno)
        ),
        Limitation::LastGood(last_good) => {
            format!("{what}: {}", first_error(&last_good.diagnostics))
        }
        Limitation::Undetected { values, reason } => {
            format!("{what}, first {}: {}", values.first, line(reason))
        }
    }
}

/// What netguard cannot do, without the reason.
fn what(limitation: &Limitation) -> String {
    match limitation {
        Limitation::Blind { .. } => "nothing can be guarded".to_owned(),
        Limitation::Firewall { .. } => "a part of the firewall is not guarded".to_owned(),
        Limitation::Unwritable { values, .. } => format!("{} cannot be restored", of(values)),
        Limitation::LastGood(last_good) => format!(
            "running with the last good configuration of {}",
            moment(last_good.saved)
        ),
        Limitation::Undetected { values, .. } => format!(
            "writes to {} are found only by the periodic scan",
            of(values)
        ),
        Limitation::Unsaved { .. } => "the state is not saved".to_owned(),
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

/// All of them on one line, without the reasons, which have records of their own; nothing
/// where there are none.
pub fn degraded(limitations: &[Limitation]) -> Option<String> {
    let all: Vec<String> = limitations.iter().map(what).collect();
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
