//! What to do about a conflict: one line to change, or a file to write.

use std::path::Path;

use super::setting::Kind;
use super::{networkd, tuned, ufw};
use crate::model::{Conflict, Reach, Selector, Value};

/// The drop-in that has the last word in sysctl.d(5).
pub const DROP_IN: &str = "/etc/sysctl.d/99-zz-netguard.conf";

/// What to do about `conflict`, whose line is in a file of this kind, so that
/// the guarded keys become `wanted`.
pub fn remedy(conflict: &Conflict, kind: &Kind, wanted: Option<&Value>, patterns: bool) -> String {
    let Some(wanted) = wanted else {
        return format!("change {} to what is required", conflict.place);
    };
    let file = conflict.place.file.display();
    match kind {
        Kind::Sysctl => sysctl(conflict, wanted, patterns),
        Kind::NetworkScript => match &conflict.key {
            Selector::Key(key) => format!(
                "write `{key} = {wanted}` to {DROP_IN}: the script applies it when it starts again"
            ),
            Selector::Pattern(_) => {
                "write `IPV6_SET_SYSCTLS=no` to /etc/sysconfig/network".to_owned()
            }
        },
        Kind::Sysconfig => format!("write `IPV6_SET_SYSCTLS=no` to {file}"),
        Kind::Tuned(fix) => tuned::remedy(conflict, fix, wanted),
        Kind::Ufw => ufw::remedy(conflict, wanted),
        Kind::Networkd(fix) => networkd::remedy(conflict, fix, wanted),
    }
}

fn sysctl(conflict: &Conflict, wanted: &Value, patterns: bool) -> String {
    let file = &conflict.place.file;
    let is_later = file.file_name() > Path::new(DROP_IN).file_name();
    let own = file.starts_with("/etc") || is_later;
    let key = match (conflict.reach, &conflict.key, &conflict.guarded) {
        // What new interfaces inherit is not to be changed for a few of them.
        (Reach::Inherited, _, guarded @ Selector::Pattern(_)) if patterns => guarded,
        (Reach::Inherited, _, guarded @ Selector::Key(_)) => guarded,
        (Reach::Inherited, key, Selector::Pattern(_)) => {
            return format!(
                "write `{key} = {wanted}` to {DROP_IN}; this systemd knows no patterns, so that goes for every new interface"
            );
        }
        (Reach::Sets, Selector::Pattern(_), guarded) => guarded,
        (_, key, _) => {
            if own {
                let place = &conflict.place;
                return format!("change {place} to `{key} = {wanted}`");
            }
            key
        }
    };
    format!("write `{key} = {wanted}` to {DROP_IN}")
}
