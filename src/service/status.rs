//! The line that `systemctl status netguard` shows.

use jiff::Timestamp;

use crate::engine::Status;
use crate::model::Monotonic;
use crate::model::text::visible;

use crate::journal::limits;
use crate::words::{Count, list, value};

/// The status as one line, at `now` on the engine's clock and `realtime`
/// (microseconds since 1970) on the wall's:
///
/// ```text
/// [degraded: REASON[; REASON...]; ]
/// 212 of 214 values OK (2 pending); 3 drifts restored, last net.ipv4.ip_forward at 2026-10-03 12:03:44Z; unavailable: fanotify
/// ```
///
/// The line is shown until the next change, perhaps for weeks: so times are absolute,
/// with their date (UTC).
pub fn text(status: &Status, now: Monotonic, realtime: u64) -> String {
    let tally = &status.tally;
    if status.starting {
        return "starting".to_owned();
    }
    let mut missing = Vec::new();
    if tally.pending > 0 {
        missing.push(format!("{} pending", tally.pending));
    }
    if tally.drifted > 0 {
        missing.push(format!("{} drifted", tally.drifted));
    }
    let mut first = format!("{} of {} OK", tally.matching, Count(tally.values, "value"));
    if !missing.is_empty() {
        first.push_str(&format!(" ({})", missing.join(", ")));
    }
    let mut parts = Vec::from_iter(limits::degraded(&status.limitations));
    parts.push(first);
    if !status.restarting.is_empty() {
        parts.push(format!("restarting: {}", list(&status.restarting, value)));
    }
    if status.contended > 0 {
        parts.push(format!("{} contended", status.contended));
    }
    if status.failed > 0 {
        parts.push(format!("{} failed", status.failed));
    }
    parts.push(match &status.last {
        None => format!("{} restored", Count(tally.restored, "drift")),
        Some((key, at)) => {
            let ago = u64::try_from(now.since(*at).as_micros()).unwrap_or(u64::MAX);
            let at = utc(realtime.saturating_sub(ago) / 1_000_000);
            format!(
                "{} restored, last {key} at {at}",
                Count(tally.restored, "drift")
            )
        }
    });
    if !status.lost.is_empty() {
        let lost: Vec<_> = status.lost.iter().map(|source| source.as_str()).collect();
        parts.push(format!("unavailable: {}", lost.join(", ")));
    }
    visible(&parts.join("; ")).into_owned()
}

/// The moment `seconds` after 1970 began, in UTC.
fn utc(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok();
    let moment = moment.and_then(|it| Timestamp::from_second(it).ok());
    let moment = moment.unwrap_or(Timestamp::UNIX_EPOCH);
    moment.strftime("%F %TZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Limitation, Tally};
    use crate::model::{Source, SysctlKey};

    #[test]
    fn the_line_says_what_matters() {
        let mut status = Status {
            tally: Tally {
                invariants: 20,
                values: 214,
                matching: 214,
                ..Tally::default()
            },
            ..Status::default()
        };
        let now = Monotonic::from_nanos(100_000_000_000);
        let realtime = 1_735_689_599_000_000;
        assert_eq!(
            text(&status, now, realtime),
            "214 of 214 values OK; 0 drifts restored"
        );

        let reason = "/proc/sys is empty".into();
        status.limitations = vec![Limitation::Blind { reason }];
        assert_eq!(
            text(&status, now, realtime),
            "degraded: nothing can be guarded: /proc/sys is empty; \
             214 of 214 values OK; 0 drifts restored"
        );
        status.limitations.clear();

        status.tally.matching = 211;
        status.tally.pending = 2;
        status.tally.drifted = 1;
        status.tally.restored = 3;
        let key = SysctlKey::parse("net.ipv4.ip_forward").expect("a key");
        status.last = Some((key.into(), Monotonic::from_nanos(99_000_000_000)));
        status.lost = vec![Source::Fanotify, Source::Systemd];
        status.restarting = vec!["network.service".to_owned()];
        status.contended = 1;
        status.failed = 1;
        assert_eq!(
            text(&status, now, realtime),
            "211 of 214 values OK (2 pending, 1 drifted); restarting: network.service; \
             1 contended; 1 failed; 3 drifts restored, last net.ipv4.ip_forward at \
             2024-12-31 23:59:58Z; unavailable: fanotify, systemd"
        );
    }
}
