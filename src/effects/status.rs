//! The line that `systemctl status netguard` shows.

use crate::engine::Status;
use crate::model::Monotonic;

use super::words::{Count, list, value};

/// The status as one line, at `now` on the engine's clock and `realtime`
/// (microseconds since 1970) on the wall's:
///
/// ```text
/// holding 212 of 214 values (2 pending); 3 drifts restored, last net.ipv4.ip_forward at 2026-10-03 12:03:44Z; lost: fanotify
/// ```
///
/// The line stands until the next change, perhaps for weeks: times are moments
/// with their date (UTC), not ages.
pub fn text(status: &Status, now: Monotonic, realtime: u64) -> String {
    let tally = &status.tally;
    let mut missing = Vec::new();
    if tally.pending > 0 {
        missing.push(format!("{} pending", tally.pending));
    }
    if tally.wrong > 0 {
        missing.push(format!("{} wrong", tally.wrong));
    }
    let mut first = format!(
        "holding {} of {}",
        tally.holding,
        Count(tally.values as u64, "value")
    );
    if !missing.is_empty() {
        first.push_str(&format!(" ({})", missing.join(", ")));
    }
    let mut parts = vec![first];
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
            let at = Utc::at(realtime.saturating_sub(ago) / 1_000_000);
            format!(
                "{} restored, last {key} at {at}",
                Count(tally.restored, "drift")
            )
        }
    });
    if !status.lost.is_empty() {
        let lost: Vec<_> = status.lost.iter().map(|source| source.as_str()).collect();
        parts.push(format!("lost: {}", lost.join(", ")));
    }
    parts.join("; ")
}

/// A moment in UTC, to the second. Not local time: its rules are behind libc
/// calls that read the environment, which this crate (no `unsafe`) cannot make.
struct Utc {
    year: u64,
    month: u64,
    day: u64,
    second: u64,
}

impl Utc {
    /// The moment `seconds` after 1970 began.
    fn at(seconds: u64) -> Utc {
        // Howard Hinnant's civil_from_days: years begin in March, so that the
        // day that comes and goes is their last; 400 of them are an era.
        let days = seconds / 86_400 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        Utc {
            year: year + era * 400 + u64::from(month >= 10),
            month: if month < 10 { month + 3 } else { month - 9 },
            day: day - (153 * month + 2) / 5 + 1,
            second: seconds % 86_400,
        }
    }
}

impl std::fmt::Display for Utc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Utc {
            year,
            month,
            day,
            second,
        } = self;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Tally;
    use crate::model::{Source, SysctlKey};

    #[test]
    fn dates_are_right() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_709_164_800, "2024-02-29 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(Utc::at(seconds).to_string(), date);
        }
    }

    #[test]
    fn the_line_says_what_matters() {
        let mut status = Status {
            tally: Tally {
                invariants: 20,
                values: 214,
                holding: 214,
                ..Tally::default()
            },
            ..Status::default()
        };
        let now = Monotonic::from_nanos(100_000_000_000);
        let realtime = 1_735_689_599_000_000;
        assert_eq!(
            text(&status, now, realtime),
            "holding 214 of 214 values; 0 drifts restored"
        );

        status.tally.holding = 211;
        status.tally.pending = 2;
        status.tally.wrong = 1;
        status.tally.restored = 3;
        let key = SysctlKey::parse("net.ipv4.ip_forward").expect("a key");
        status.last = Some((key, Monotonic::from_nanos(99_000_000_000)));
        status.lost = vec![Source::Fanotify, Source::Systemd];
        status.restarting = vec!["network.service".to_owned()];
        status.contended = 1;
        status.failed = 1;
        assert_eq!(
            text(&status, now, realtime),
            "holding 211 of 214 values (2 pending, 1 wrong); restarting: network.service; \
             1 contended; 1 failed; 3 drifts restored, last net.ipv4.ip_forward at \
             2024-12-31 23:59:58Z; lost: fanotify, systemd"
        );
    }
}
