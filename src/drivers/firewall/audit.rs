//! The kernel's audit records of the legacy tables, where auditing is on: what changes them
//! without the lock.

use std::io;

use netlink_sys::protocols::NETLINK_AUDIT;

use nix::libc;

use super::subscription::Subscription;
use crate::netlink::{messages, subscribe};
use crate::process_namespaces::NetworkNamespace;
use crate::socket_filter::{ACCEPT, REFUSE, Step, equals, half, load_half};
use crate::sys::capabilities::{Capability, has};

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
pub(super) fn open() -> io::Result<Subscription> {
    let socket = subscribe(NETLINK_AUDIT, &[GROUP], RECEIVE_BUFFER, Some(&RECORDS))?;
    Subscription::new(socket, replaced)
}

/// Whether this is why nothing is missed, or what the unit does without: there is no auditing
/// in the kernel, or in this container, or systemd is too old to give the capability.
pub(super) fn is_optional(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => true,
        _ => error.kind() == io::ErrorKind::PermissionDenied && !has(Capability::AuditRead),
    }
}

/// The process of a record, as far as it is known; nothing where it has changed the tables of
/// another network namespace, which a record does not name.
pub(super) fn of_this_network(pid: Option<i32>) -> Option<Option<i32>> {
    let Some(pid) = pid else {
        return Some(None);
    };
    match (NetworkNamespace::of_process(pid), NetworkNamespace::own()) {
        (Ok(its), Ok(own)) if its != own => None,
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Some(None),
        _ => Some(Some(pid)),
    }
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
    use std::fs;
    use std::process::Command;
    use std::time::Duration;

    use tokio::time::timeout;

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
            let records = open().expect("CAP_AUDIT_READ");
            let lock = format!("netguard-audit-{}.lock", std::process::id());
            let lock = std::env::temp_dir().join(lock);
            let mut writer = Command::new("unshare")
                .args(["--net", "sh", "-c", lines])
                .env("XTABLES_LOCKFILE", &lock)
                .spawn()
                .expect("unshare");
            let ended = writer.wait().expect("its end");
            fs::remove_file(lock).expect("the lock");
            assert!(ended.success());
            let id = writer.id().cast_signed();
            // Another program's may come before.
            let reported =
                async { while records.next().await.expect("a record").end != Some(Some(id)) {} };
            let reported = timeout(Duration::from_secs(5), reported).await;
            reported.expect("a record: is auditing on (auditctl -e 1)?");
        });
    }

    mod as_root {
        use std::io::Read;
        use std::process::Stdio;

        use super::*;

        #[test]
        fn what_is_done_in_another_network_namespace_is_none_of_this() {
            let own = std::process::id().cast_signed();
            assert_eq!(of_this_network(None), Some(None));
            assert_eq!(of_this_network(Some(own)), Some(Some(own)));
            let mut other = Command::new("unshare")
                .args(["--net", "sh", "-c", "echo; exec cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("unshare");
            let output = other.stdout.as_mut().expect("a pipe");
            output.read_exact(&mut [0]).expect("root");
            let pid = other.id().cast_signed();
            assert_eq!(of_this_network(Some(pid)), None);
            drop(other.stdin.take());
            other.wait().expect("its end");
            assert_eq!(of_this_network(Some(pid)), Some(None), "it has ended");
        }
    }
}
