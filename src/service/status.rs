//! The line that `systemctl status netguard` shows.

use crate::engine::Status;
use crate::model::Monotonic;
use crate::model::text::visible;

use crate::journal::limits;
use crate::journal::message::connections;
use crate::journal::moment::Zone;
use crate::words::{Values, list, value};

/// The status as one line, at `now` on the engine's clock and `realtime`
/// (microseconds since 1970) on the wall's:
///
/// ```text
/// [degraded: WHAT[; WHAT...]; ]
/// 212 of 214 values OK, 2 pending; 3 restored, last net.ipv4.ip_forward Oct  3 12:03; unavailable: fanotify
/// ```
///
/// The line is shown until the next change, perhaps for weeks: so times are absolute,
/// in `zone`. Without anything in brackets it fits in 80 columns as `systemctl status`
/// prints it.
pub fn text(status: &Status, now: Monotonic, realtime: u64, zone: &Zone) -> String {
    let tally = &status.tally;
    if status.starting {
        return "starting".to_owned();
    }
    let mut parts = Vec::from_iter(limits::degraded(&status.limitations));
    parts.push(Values::from(tally).to_string());
    if let Some(usage) = status.conntrack_nearly_full {
        parts.push(format!("conntrack nearly full: {}", connections(usage)));
    }
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
        None => format!("{} restored", tally.restored),
        Some((key, at)) => {
            let ago = u64::try_from(now.since(*at).as_micros()).unwrap_or(u64::MAX);
            let at = zone.minute(realtime.saturating_sub(ago));
            format!("{} restored, last {key} {at}", tally.restored)
        }
    });
    if !status.lost.is_empty() {
        let lost: Vec<_> = status.lost.iter().map(|source| source.as_str()).collect();
        parts.push(format!("unavailable: {}", lost.join(", ")));
    }
    visible(&parts.join("; ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::Usage;
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
        let zone = Zone::for_test();
        let realtime = 1_735_689_599_000_000;
        assert_eq!(
            text(&status, now, realtime, &zone),
            "214 of 214 values OK; 0 restored"
        );

        let reason = "/proc/sys is empty".into();
        status.limitations = vec![Limitation::Blind { reason }];
        assert_eq!(
            text(&status, now, realtime, &zone),
            "degraded: nothing can be guarded; \
             214 of 214 values OK; 0 restored"
        );
        status.limitations.clear();
        status.conntrack_nearly_full = Some(Usage {
            count: 95,
            max: 100,
        });
        assert_eq!(
            text(&status, now, realtime, &zone),
            "214 of 214 values OK; conntrack nearly full: 95 of 100 connections (95 %); 0 restored"
        );
        status.conntrack_nearly_full = None;

        status.tally.matching = 210;
        status.tally.pending = 2;
        status.tally.drifted = 1;
        status.tally.unreadable = 1;
        status.tally.restored = 3;
        let key = SysctlKey::parse("net.ipv4.ip_forward").expect("a key");
        status.last = Some((key.into(), Monotonic::from_nanos(99_000_000_000)));
        status.lost = vec![Source::Fanotify, Source::Systemd];
        status.restarting = vec!["network.service".to_owned()];
        status.contended = 1;
        status.failed = 1;
        assert_eq!(
            text(&status, now, realtime, &zone),
            "210 of 214 values OK, 1 drifted, 2 pending, 1 unreadable; restarting: network.service; \
             1 contended; 1 failed; 3 restored, last net.ipv4.ip_forward Jan  1 00:59; \
             unavailable: fanotify, systemd"
        );
    }
}
