//! The network script of CentOS 7 and RHEL 7, and its switches in /etc/sysconfig.
//!
//! A restart is its stop, then its start (initscripts, rhel7-branch):
//! * `network stop` runs `sysctl -w net.ipv4.ip_forward=0`, and then
//!   `init.ipv6-global stop post`, which sets forwarding, accept_ra and
//!   accept_redirects of every IPv6 interface to 0;
//! * `network start` runs `init.ipv6-global start pre`, which sets the three by
//!   IPV6FORWARDING and IPV6_AUTOCONF, applies sysctl.d, brings the interfaces
//!   up (`ifup-ipv6` sets the three and autoconf of each) and applies sysctl.d once more.
//!
//! With IPV6_SET_SYSCTLS=no it sets no IPv6 keys.

use super::sysconfig::{self, DECIDE, SCRIPTS, SYSCONFIG};
use crate::conflicts::files::assignments::{Assignment, last, options};
use crate::conflicts::files::tree::{Text, Tree, origin};
use crate::conflicts::setting::{How, Kind, Setting, digit, selector};
use crate::model::{Origin, Value};

/// The first is where CentOS 7 has it, and a link leads there from the second.
const SCRIPT: [&str; 2] = ["/etc/rc.d/init.d/network", "/etc/init.d/network"];
/// What decides which IPv6 keys are set, and to what.
const SWITCHES: [&str; 6] = [
    "IPV6FORWARDING",
    "IPV6_AUTOCONF",
    "IPV6_ROUTER",
    "IPV6_FORCE_ACCEPT_RA",
    "IPV6_PRIVACY",
    "IPV6_SET_SYSCTLS",
];

/// Whether the node has this script.
pub fn is_there(tree: &Tree) -> bool {
    SCRIPT.iter().any(|path| tree.exists(path))
}

/// What a restart sets, from first to last; `None` where the node does not have
/// this script. `sysctl_d` is what systemd-sysctl applies.
pub fn restart(tree: &Tree, sysctl_d: &[Setting]) -> Option<Vec<Setting>> {
    let script = SCRIPT.iter().find_map(|path| tree.read(path))?;
    let place = line_with(&script, "sysctl -w net.ipv4.ip_forward=0")?;
    let key = selector("net.ipv4.ip_forward")?;
    let zero = Setting::new(key, Value::new("0"), place, Kind::NetworkScript);
    let mut applied = vec![zero];
    let sysconfig = tree.read(SYSCONFIG);
    let global = sysconfig.as_ref().map(options).unwrap_or_default();
    if line_with(&script, "init.ipv6-global").is_some()
        && let Some(hook) = tree.read(format!("{SCRIPTS}/init.ipv6-global"))
    {
        let switches = Switches::new(&global, Of::All);
        applied.extend(switches.stopped(&hook));
        applied.extend(switches.started(&hook));
    }
    if let Some(hook) = tree.read(format!("{SCRIPTS}/ifup-ipv6")) {
        for interface in sysconfig::interfaces(tree) {
            if !interface.is_port() && interface.has_ipv6() != Some(false) {
                let of = interface.device().map_or(Of::Unknown, Of::One);
                applied.extend(Switches::new(&interface.all, of).started(&hook));
            }
        }
    }
    if line_with(&script, "apply_sysctl").is_some() {
        applied.extend(sysctl_d.iter().cloned());
    }
    Some(applied)
}

/// The first line of a script that has `text` and is no comment.
fn line_with(script: &Text, text: &str) -> Option<Origin> {
    let has_text = |line: &str| !line.trim_start().starts_with('#') && line.contains(text);
    let (number, _) = script.lines().find(|(_, line)| has_text(line))?;
    Some(origin(script, number))
}

/// Which interfaces a script sets keys of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of<'a> {
    /// Each, `all` and `default`.
    All,
    One(&'a str),
    /// The one that `HWADDR=` selects.
    Unknown,
}

/// What decides which IPv6 keys a script sets, and to what.
struct Switches<'a> {
    all: &'a [Assignment],
    of: Of<'a>,
    /// The first of them whose value is not known.
    computed: Option<&'a Assignment>,
}

impl<'a> Switches<'a> {
    fn new(all: &'a [Assignment], of: Of<'a>) -> Self {
        let names = SWITCHES.iter().chain(&DECIDE);
        let computed = names
            .filter_map(|it| last(all, it))
            .find(|it| it.is_computed);
        Switches { all, of, computed }
    }

    /// The line that sets a switch to exactly this value.
    fn line(&self, name: &str, value: &str) -> Option<&'a Assignment> {
        last(self.all, name).filter(|it| it.value == value)
    }

    /// What the line of a script that writes `text` to a key sets, because of the switch `by`.
    fn set(
        &self,
        script: &Text,
        (name, text): (&str, &str),
        value: &str,
        by: Option<&Assignment>,
    ) -> Option<Setting> {
        let line = line_with(script, &format!(".{name}={text}"))?;
        let is_off = self.line("IPV6_SET_SYSCTLS", "no");
        if is_off.is_some_and(|it| !it.is_computed) {
            return None;
        }
        let interface = match self.of {
            Of::One(device) => device.replacen('.', "/", 1),
            Of::All | Of::Unknown => "*".to_owned(),
        };
        let key = selector(&format!("net.ipv6.conf.{interface}.{name}"))?;
        let (place, kind) = match self.computed.or(by) {
            Some(by) => (by.place.clone(), Kind::Sysconfig),
            None => (line, Kind::NetworkScript),
        };
        let setting = Setting::new(key, Value::new(value), place, kind);
        Some(match (self.computed, self.of) {
            (Some(_), _) => Setting {
                value: None,
                how: How::Unknown("it is computed when the script runs"),
                ..setting
            },
            (None, Of::Unknown) => Setting {
                how: How::Unknown("its interface is the one with HWADDR="),
                ..setting
            },
            (None, _) => setting,
        })
    }

    /// What `init.ipv6-global` sets at the stop.
    fn stopped(&self, script: &Text) -> Vec<Setting> {
        let names = ["forwarding", "accept_ra", "accept_redirects"].into_iter();
        let set = names.filter_map(|name| self.set(script, (name, "0"), "0", None));
        set.collect()
    }

    /// What `init.ipv6-global` or `ifup-ipv6` sets at the start.
    fn started(&self, script: &Text) -> Vec<Setting> {
        let of_one = |name, value| self.line(name, value).filter(|_| self.of != Of::All);
        let own = last(self.all, "IPV6FORWARDING");
        let forwards = self.line("IPV6FORWARDING", "yes").is_some();
        let router = of_one("IPV6_ROUTER", "no").filter(|_| forwards);
        let autoconf = match forwards {
            true => of_one("IPV6_AUTOCONF", "yes"),
            false => self.line("IPV6_AUTOCONF", "no"),
        };
        let auto = forwards == autoconf.is_some();
        let forced = of_one("IPV6_FORCE_ACCEPT_RA", "yes").filter(|_| !forwards && !auto);
        let accept_ra = match forwards && auto {
            true => "2",
            false => digit(auto || forced.is_some()),
        };
        let private = last(self.all, "IPV6_PRIVACY").filter(|_| self.of != Of::All);
        let private = private.filter(|it| it.is_computed || it.value == "rfc3041");
        let (forwards, by) = (digit(forwards && router.is_none()), autoconf.or(own));
        let set = [
            Some(("forwarding", "$ipv6_", forwards, router.or(own))),
            Some(("accept_ra", "$ipv6_", accept_ra, forced.or(by))),
            Some(("accept_redirects", "$ipv6_", digit(auto), by)),
            Some(("autoconf", "$ipv6_", digit(auto), by)),
            private.map(|_| ("use_tempaddr", "2", "2", private)),
        ];
        let set = set.into_iter().flatten();
        set.filter_map(|(name, text, value, by)| self.set(script, (name, text), value, by))
            .collect()
    }
}
