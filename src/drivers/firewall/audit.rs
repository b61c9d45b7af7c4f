//! The kernel's audit records of the legacy tables, where auditing is on: what changes them
//! without the lock.

use std::io;

use netlink_sys::protocols::NETLINK_AUDIT;

use super::changes::Changes;
use crate::netlink::{messages, subscribe};
use crate::socket_filter::{ACCEPT, REFUSE, Step, equals, half, load_half};

/// `AUDIT_NLGRP_READLOG` of linux/audit.h, since 3.16. Without auditing nothing is sent.
const GROUP: u32 = 1;
/// `AUDIT_NETFILTER_CFG` of linux/audit.h.
const NETFILTER_CFG: u16 = 1325;
/// The bytes of the socket's buffer.
const RECEIVE_BUFFER: usize = 1 << 18;

/// Lets through nothing of what else is audited.
static RECORDS: [Step; 4] = [
    load_half(4),
    equals(half(NETFILTER_CFG), 0, 1),
    ACCEPT,
    REFUSE,
];

/// Has what is done to the legacy tables reported.
///
/// # Errors
/// Without CAP_AUDIT_READ, or in a kernel without auditing.
pub(super) fn open() -> io::Result<Changes> {
    let socket = subscribe(NETLINK_AUDIT, GROUP, RECEIVE_BUFFER, Some(&RECORDS))?;
    Changes::new(socket, replaced)
}

/// The process that has replaced a legacy table of IPv4 or IPv6, where the kernel says that
/// (since 5.8); nothing where the datagram is about something else.
pub fn replaced(bytes: &[u8]) -> Option<Option<i32>> {
    let record = messages(bytes).find(|it| it.kind == NETFILTER_CFG)?;
    let text = str::from_utf8(record.payload).ok()?;
    let field = |name: &str| {
        let mut fields = text.split(' ').filter_map(|it| it.split_once('='));
        fields.find_map(|(key, value)| (key == name).then_some(value))
    };
    let is_iptables = matches!(field("family"), Some("2" | "10"));
    let is_replaced = matches!(field("op"), None | Some("xt_replace"));
    let pid = field("pid").and_then(|pid| pid.parse().ok());
    (is_iptables && is_replaced).then_some(pid.filter(|pid| *pid > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Request;
    use crate::socket_filter;

    #[test]
    fn a_replaced_table_names_its_process() {
        let message =
            |kind: u16, text: &str| Request::new(kind, 0, text.as_bytes().to_vec()).bytes(0, 0);
        let record = |text: &str| {
            let text = format!("audit(1796028000.123:42): {text}");
            message(NETFILTER_CFG, &text)
        };
        let of_6_18 = record(
            "table=nat:7 family=2 entries=9 op=xt_replace pid=4711 subj=unconfined \
             comm=\"iptables\"",
        );
        let of_3_16 = record("table=nat family=10 entries=9");
        assert_eq!(replaced(&of_6_18), Some(Some(4711)));
        assert_eq!(replaced(&of_3_16), Some(None));
        for other in [
            "table=nat:7 family=2 entries=9 op=nft_register_rule pid=4711 comm=\"nft\"",
            "table=filter family=2 entries=4 op=xt_register pid=1 comm=\"modprobe\"",
            "table=broute family=7 entries=1 op=xt_replace pid=4711 comm=\"ebtables\"",
        ] {
            assert_eq!(replaced(&record(other)), None, "{other}");
        }
        let call = message(1300, "audit(1796028000.123:42): family=2 pid=4711");
        assert_eq!(replaced(&call), None);
        assert_eq!(replaced(&of_6_18[..15]), None);
        let accepted = socket_filter::accepted(&RECORDS, &[&of_6_18, &call]);
        assert_eq!(accepted, [&of_6_18[..]]);
    }

    #[test]
    #[ignore = "needs auditing (auditctl -e 1), which is that of the whole host"]
    fn what_is_done_without_the_lock_is_reported() {
        let lines = "iptables-legacy -w -A INPUT -j ACCEPT && exec iptables-legacy -w -F";
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let changes = open().expect("CAP_AUDIT_READ");
            let mut writer = std::process::Command::new("unshare")
                .args(["--net", "sh", "-c", lines])
                .env("XTABLES_LOCKFILE", "/tmp/netguard-test.lock")
                .spawn()
                .expect("unshare");
            assert!(writer.wait().expect("its end").success());
            let id = writer.id().try_into().expect("a number");
            // Another program's may come before.
            while changes.next().await.expect("a record").end != Some(Some(id)) {}
        });
    }
}
