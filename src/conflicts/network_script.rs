//! The network script of CentOS 7 and RHEL 7, and its switches in /etc/sysconfig.
//!
//! A restart is its stop, then its start (initscripts, rhel7-branch):
//! * `network stop` runs `sysctl -w net.ipv4.ip_forward=0`, and then
//!   `init.ipv6-global stop post`, which sets forwarding, accept_ra and
//!   accept_redirects of every IPv6 interface to 0;
//! * `network start` runs `init.ipv6-global start pre`, which sets the three by
//!   IPV6FORWARDING and IPV6_AUTOCONF, applies sysctl.d, brings the interfaces
//!   up (`ifup-ipv6` sets the three of each) and applies sysctl.d once more.
//!
//! IPV6_SET_SYSCTLS=no keeps its hands off the IPv6 keys.

use super::ini::{Assignment, options};
use super::setting::{How, Kind, Setting, selector};
use super::tree::{Text, Tree, origin};
use crate::model::{Origin, Value};

/// The first is where CentOS 7 has it, and a link leads there from the second.
const SCRIPT: [&str; 2] = ["/etc/rc.d/init.d/network", "/etc/init.d/network"];
pub(super) const SCRIPTS: &str = "/etc/sysconfig/network-scripts";
pub(super) const SYSCONFIG: &str = "/etc/sysconfig/network";
/// What the script sets of each IPv6 interface, in this order.
const SWITCHED: [&str; 3] = ["forwarding", "accept_ra", "accept_redirects"];

/// Whether the node has this script.
pub(super) fn is_there(tree: &Tree) -> bool {
    SCRIPT.iter().any(|path| tree.exists(path))
}

/// What a restart sets, from first to last; `None` where the node does not have
/// this script. `sysctl_d` is what systemd-sysctl applies.
pub fn restart(tree: &Tree, sysctl_d: &[Setting]) -> Option<Vec<Setting>> {
    let script = SCRIPT.iter().find_map(|path| tree.read(path))?;
    let zero = line_with(&script, &["sysctl -w net.ipv4.ip_forward=0"])?;
    let mut applied = Vec::new();
    applied.extend(set(
        "net.ipv4.ip_forward",
        Some("0"),
        zero,
        Kind::NetworkScript,
    ));
    let sysconfig = tree.read(SYSCONFIG);
    let global = sysconfig.as_ref().map(Switches::of).unwrap_or_default();
    if line_with(&script, &["init.ipv6-global"]).is_some()
        && let Some(hook) = tree.read(format!("{SCRIPTS}/init.ipv6-global"))
    {
        applied.extend(global.hook(&hook));
    }
    for name in tree.list(SCRIPTS, is_interface) {
        if let Some(file) = tree.read(format!("{SCRIPTS}/{name}")) {
            applied.extend(interface(&file, &name, &global));
        }
    }
    if line_with(&script, &["apply_sysctl"]).is_some() {
        applied.extend(sysctl_d.iter().cloned());
    }
    Some(applied)
}

/// Whether the script takes `name` for the file of an interface: no aliases, no ranges, no
/// copies of editors and package managers.
pub(super) fn is_interface(name: &str) -> bool {
    name.strip_prefix("ifcfg-").is_some_and(|interface| {
        interface != "lo"
            && ![":", "-range"].iter().any(|it| interface.contains(it))
            && !is_left_out(name)
    })
}

/// Whether it is a copy of an editor or a package manager.
pub(super) fn is_left_out(name: &str) -> bool {
    let ends = [".rpmsave", ".rpmorig", ".rpmnew", ".bak", ".old", "~"];
    ends.iter().any(|end| name.ends_with(end))
}

/// The first line of a script that has one of `texts` and is no comment.
fn line_with(script: &Text, texts: &[&str]) -> Option<Origin> {
    let wanted = |line: &str| {
        !line.trim_start().starts_with('#') && texts.iter().any(|text| line.contains(text))
    };
    let (number, _) = script.lines().find(|(_, line)| wanted(line))?;
    Some(origin(script, number))
}

/// Why it is not known what a switch is.
const COMPUTED: &str = "it is computed when the script runs";

/// Sets a value, which is not known where a switch is computed.
fn set(key: &str, value: Option<&str>, place: Origin, kind: Kind) -> Option<Setting> {
    let setting = Setting::new(selector(key)?, Value::default(), place, kind);
    Some(Setting {
        value: value.map(Value::new),
        how: value.map_or(How::Unknown(COMPUTED), |_| How::Sets),
        ..setting
    })
}

/// The last that may assign a variable: the shell keeps that.
fn last<'a>(all: &'a [Assignment], name: &str) -> Option<&'a Assignment> {
    all.iter()
        .rev()
        .find(|it| it.name == name || it.is_of_any())
}

/// The switches of one file.
#[derive(Debug, Clone, Default)]
struct Switches {
    forwarding: Option<Assignment>,
    autoconf: Option<Assignment>,
    set_sysctls: Option<Assignment>,
}

impl Switches {
    fn of(file: &Text) -> Self {
        let options = options(file);
        let last = |name: &str| last(&options, name).cloned();
        Switches {
            forwarding: last("IPV6FORWARDING"),
            autoconf: last("IPV6_AUTOCONF"),
            set_sysctls: last("IPV6_SET_SYSCTLS"),
        }
    }

    /// Whether the IPv6 keys are left alone, where that is known: the scripts ask for
    /// exactly `no`.
    fn hands_off(&self) -> Option<bool> {
        match &self.set_sysctls {
            Some(line) => (!line.is_computed).then_some(line.value == "no"),
            None => Some(false),
        }
    }

    /// The values of [`SWITCHED`], and the line that makes them so.
    fn values(&self) -> ([Option<&'static str>; 3], Option<&Origin>) {
        let (values, line) = match (&self.forwarding, &self.autoconf) {
            (line @ Some(it), _) if it.is_computed => ([None; 3], line),
            (line @ Some(it), _) if it.value == "yes" => (["1", "0", "0"].map(Some), line),
            (_, line @ Some(it)) if it.is_computed => ([Some("0"), None, None], line),
            (_, line @ Some(it)) if it.value == "no" => (["0"; 3].map(Some), line),
            (line, _) => (["0", "1", "1"].map(Some), line),
        };
        (values, line.as_ref().map(|it| &it.place))
    }

    /// What `init.ipv6-global` sets at the stop and at the start.
    fn hook(&self, hook: &Text) -> Vec<Setting> {
        let hands_off = self.hands_off();
        if hands_off == Some(true) {
            return Vec::new();
        }
        let known = |value| hands_off.and(value);
        let mut applied = Vec::new();
        for name in SWITCHED {
            let key = format!("net.ipv6.conf.*.{name}");
            let stop = line_with(hook, &[&format!(".{name}=0")]);
            let zero = known(Some("0"));
            applied.extend(stop.and_then(|place| set(&key, zero, place, Kind::NetworkScript)));
        }
        let (values, switch) = self.values();
        for (name, value) in SWITCHED.into_iter().zip(values) {
            let key = format!("net.ipv6.conf.*.{name}");
            let variable = format!(".{name}=$ipv6_global_");
            let Some(line) = line_with(hook, &[&variable]) else {
                continue;
            };
            applied.extend(match switch {
                Some(switch) => set(&key, known(value), switch.clone(), Kind::Sysconfig),
                None => set(&key, known(value), line, Kind::NetworkScript),
            });
        }
        applied
    }
}

/// What `ifup-ipv6` sets of the interface of an ifcfg file that speaks of IPv6.
fn interface(file: &Text, name: &str, global: &Switches) -> Vec<Setting> {
    let all = options(file);
    let own = Switches::of(file);
    let hands_off = match own.set_sysctls {
        Some(_) => own.hands_off(),
        None => global.hands_off(),
    };
    let init = last(&all, "IPV6INIT").filter(|it| it.value == "yes" || it.is_computed);
    let Some(init) = init.filter(|_| hands_off != Some(true)) else {
        return Vec::new();
    };
    let device = last(&all, "DEVICE");
    let computed = [Some(init), device];
    let is_known = hands_off.is_some() && !computed.iter().flatten().any(|it| it.is_computed);
    let device = match device {
        Some(device) if device.is_computed => "*",
        Some(device) => device.value.as_str(),
        None => name.trim_start_matches("ifcfg-"),
    };
    // ifcfg files are read after the global one: what they leave out is its.
    let switches = Switches {
        forwarding: own.forwarding.or_else(|| global.forwarding.clone()),
        autoconf: own.autoconf.or_else(|| global.autoconf.clone()),
        set_sysctls: None,
    };
    let (values, switch) = switches.values();
    let place = switch.unwrap_or(&init.place);
    let device = device.replace('.', "/");
    SWITCHED
        .into_iter()
        .zip(values)
        .filter_map(|(name, value)| {
            let key = format!("net.ipv6.conf.{device}.{name}");
            set(
                &key,
                value.filter(|_| is_known),
                place.clone(),
                Kind::Sysconfig,
            )
        })
        .collect()
}
