//! ufw: the sysctls that it sets when the firewall starts, after sysctl.d.

use crate::conflicts::files::assignments;
use crate::conflicts::files::tree::Tree;
use crate::conflicts::files::units::is_masked;
use crate::conflicts::setting::{Kind, Setting, assigned, selector};
use crate::model::{Conflict, Value};

const CONF: &str = "/etc/ufw/ufw.conf";
const DEFAULTS: &str = "/etc/default/ufw";

/// What ufw sets, from first to last; nothing where it is not enabled. It has
/// `sysctl -p` read the file that IPT_SYSCTL names.
pub fn applied(tree: &Tree) -> Vec<Setting> {
    let said = |file: &str, name: &str| {
        let file = tree.read(file)?;
        let options = assignments::options(&file);
        let last = options.iter().rev().find(|it| it.name == name);
        last.map(|it| it.value.to_owned())
    };
    let enabled = said(CONF, "ENABLED").is_some_and(|it| matches!(&*it, "yes" | "YES"));
    if !enabled || is_masked(tree, "ufw.service") {
        return Vec::new();
    }
    let path = said(DEFAULTS, "IPT_SYSCTL").filter(|it| !it.is_empty());
    let Some(file) = path.and_then(|path| tree.read(path)) else {
        return Vec::new();
    };
    let settings = assigned(&file).filter_map(|(place, key, value)| {
        Some(Setting::new(
            selector(key)?,
            Value::new(value),
            place,
            Kind::Ufw,
        ))
    });
    settings.collect()
}

/// What to do about a line: it is the administrator's own file.
pub fn remedy(conflict: &Conflict, wanted: &Value) -> String {
    let Conflict { key, place, .. } = conflict;
    format!("change {place} to `{key}={wanted}`")
}
