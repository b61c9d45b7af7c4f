//! `netguard config`: the effective invariants, each with the file and line it
//! comes from.

use std::fmt::Write as _;

use super::load::load;
use super::table::{self, GAP, push_line};
use super::{args, exit, print};
use crate::config::{Effective, Loaded, Request, show_duration};
use crate::model::text::visible;
use crate::model::{GuardSettings, Invariant, Mode};
use crate::resource::{Desired, ResourceKind};

/// Prints the effective configuration.
///
/// # Errors
/// The exit code, where the configuration is refused.
pub fn run(request: &Request, options: &args::Json) -> Result<u8, u8> {
    let loaded = load(request)?;
    Ok(if options.json {
        print::json(&Effective::of(&loaded), exit::OK)
    } else {
        let mut text = table(&loaded.settings.invariants, print::width());
        push_others(&mut text, &loaded, print::width());
        print::result(&text, exit::OK)
    })
}

/// What is in force beside the invariants: the profiles, and the tables of single settings
/// as the configuration has them.
fn push_others(text: &mut String, loaded: &Loaded, width: Option<usize>) {
    let list = |all: &mut dyn Iterator<Item = String>| {
        let all: Vec<String> = all.map(|it| format!("\"{it}\"")).collect();
        format!("[{}]", all.join(", "))
    };
    let guard = &loaded.settings.guard;
    let units = GuardSettings::DEFAULT_UNITS.into_iter().map(str::to_owned);
    let units = units.chain(guard.units.iter().cloned());
    let units: String = units.map(|it| format!("    \"{it}\",\n")).collect();
    let guard = format!(
        "mode = \"{}\"\nsweep = \"{}\"\nsettle = \"{}\"\nburst = {}\nrate = {}\nrealtime = {}\n\
         units = [\n{units}]",
        guard.mode.as_str(),
        show_duration(guard.sweep),
        show_duration(guard.settle),
        guard.burst,
        guard.rate,
        guard.realtime,
    );
    let conntrack = &loaded.settings.conntrack;
    let full = match conntrack.full {
        Some(percent) => format!("\"{percent}%\""),
        None => "\"off\"".to_owned(),
    };
    let clean = list(&mut conntrack.clean.iter().map(ToString::to_string));
    let profiles = match loaded.profiles.is_empty() {
        true => "none".to_owned(),
        false => loaded.profiles.join(", "),
    };
    text.push('\n');
    print::paragraph(text, "profiles: ", &profiles, width);
    let _ = write!(
        text,
        "\n[guard]\n{guard}\n\n[conntrack]\nclean = {clean}\nfull = {full}\n"
    );
}

/// The word for what is done about drift, `off` included: of a module and a unit that is
/// not to write a value.
fn mode(invariant: &Invariant) -> String {
    let deed = match (invariant.selector.kind(), invariant.mode) {
        _ if invariant.is_off() => return "off".to_owned(),
        (_, Mode::Observe) => Mode::Observe.as_str(),
        (ResourceKind::Module, _) => "load",
        (ResourceKind::Unit, _) if invariant.restart => "restart",
        (ResourceKind::Unit, _) => "start",
        (_, Mode::Restore) => Mode::Restore.as_str(),
    };
    match invariant.grace {
        Some(grace) => format!("{deed} after {}", show_duration(grace)),
        None => deed.to_owned(),
    }
}

/// What is required, for people; an empty value can be seen.
fn required(desired: &Desired) -> String {
    match desired.to_string() {
        empty if empty.is_empty() => "\"\"".to_owned(),
        required => required,
    }
}

const HEADS: [&str; 5] = ["KEY", "REQUIRED", "MODE", "FROM", "REASON"];

/// The invariants by key. For people at a terminal of `width` columns a reason
/// that has no room moves to a line of its own, then the place; a key or a requirement
/// that is too wide for its column then leaves the line. Nothing is ever left out.
fn table(invariants: &[Invariant], width: Option<usize>) -> String {
    let mut rows: Vec<[String; 5]> = invariants
        .iter()
        .map(|it| {
            [
                it.selector.to_string(),
                required(&it.desired),
                mode(it),
                it.origin.to_string(),
                it.reason.clone().unwrap_or_default(),
            ]
            .map(|cell| visible(&cell).into_owned())
        })
        .collect();
    rows.sort();
    rows.insert(0, HEADS.map(str::to_owned));
    let widest = |i: usize, most: usize| {
        let cells = rows.iter().map(|row| row[i].as_str());
        table::width(HEADS[i], cells, most)
    };
    let mut widths = [0, 1, 2, 3].map(|i| widest(i, usize::MAX));
    let line_end = width;
    let width = width.unwrap_or(usize::MAX - GAP) + GAP;
    let mut columns = 4;
    if widths.iter().sum::<usize>() > width {
        columns = 3;
        let room = width.saturating_sub(widths[2]);
        if widths[0] + widths[1] > room {
            // A third is enough for most requirements.
            widths[1] = widest(1, (room / 3).saturating_sub(GAP));
            widths[0] = widest(0, room.saturating_sub(widths[1] + GAP));
        }
    }
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let fits = |i: usize| print::columns(&row[i]) + GAP <= widths[i];
        let on_line = match columns {
            4 if width == usize::MAX => 5,
            4 if print::columns(&row[4]) + widths.iter().sum::<usize>() + GAP <= width => 5,
            columns if i == 0 || fits(0) && fits(1) => columns,
            _ => 1,
        };
        if on_line == 1 {
            print::hanging(&mut text, "", &row[0], line_end);
        } else {
            let cells = row[..on_line].iter().map(String::as_str);
            let widths = widths.iter().copied().chain([1]);
            push_line(&mut text, cells.zip(widths));
        }
        if i == 0 {
            continue;
        }
        let mut below = &row[on_line..];
        if on_line == 1 {
            let what = format!("{} ({})", row[1], row[2]);
            print::paragraph(&mut text, "    ", &what, line_end);
            below = &row[3..];
        }
        for cell in below.iter().filter(|cell| !cell.is_empty()) {
            print::paragraph(&mut text, "    ", cell, line_end);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::model::{Origin, Selector, Value};
    use crate::resource::{Resource, State};

    fn invariant(key: &str, reason: &str) -> Invariant {
        let selector = Selector::parse(key).expect("a key");
        let origin = Origin {
            file: Arc::new(PathBuf::from("/etc/netguard/netguard.toml")),
            line: 3,
        };
        Invariant {
            reason: Some(reason.to_owned()),
            ..Invariant::new(selector, Desired::equal(Value::new("1")), origin)
        }
    }

    /// One long key or requirement does not take the columns of all the others.
    #[test]
    fn a_row_that_is_too_wide_stands_for_itself() {
        let mut wide = invariant("net.ipv4.tcp_sack", "");
        let resource =
            Resource::parse("rule/ipv6/101/dport=80-90/iif=eth0/ipproto=6/not=true/table=200");
        wide.selector = Selector::Resource(resource.expect("a rule"));
        let mut hops = invariant("net.ipv4.tcp_ecn", "two ways");
        let two =
            "nexthops via 10.39.0.2 dev eth0 weight 1 nexthop via 10.39.0.3 dev eth1 weight 2";
        hops.desired = Desired::exactly(&State::parse(two).expect("a state"));
        let mut rule = invariant("net.ipv4.ip_forward", "");
        let resource = Resource::parse(
            "iptables/ipv4/nat/POSTROUTING/-s~192.168.0.0/16~!~-d~192.168.0.0/16~-j~MASQUERADE",
        );
        rule.selector = Selector::Resource(resource.expect("a rule of iptables"));
        rule.desired = Desired::equal(Value::new("last"));
        let rows = [wide, hops, rule, invariant("net.ipv4.ip_forward", "")];
        assert_eq!(
            table(&rows, Some(80)),
            "\
KEY                  REQUIRED  MODE
iptables/ipv4/nat/POSTROUTING/-s~192.168.0.0/16~!~-d~192.168.0.0/16~-j~
  MASQUERADE
    last (restore)
    /etc/netguard/netguard.toml:3
net.ipv4.ip_forward  1         restore
    /etc/netguard/netguard.toml:3
net.ipv4.tcp_ecn
    nexthops via 10.39.0.2 dev eth0 weight 1 nexthop via 10.39.0.3 dev eth1
    weight 2 (restore)
    /etc/netguard/netguard.toml:3
    two ways
rule/ipv6/101/dport=80-90/iif=eth0/ipproto=6/not=true/table=200
    1 (restore)
    /etc/netguard/netguard.toml:3
"
        );
    }

    #[test]
    fn the_table_fits_the_terminal_and_loses_nothing_in_a_pipe() {
        let rows = [invariant(
            "net.ipv4.ip_forward",
            "pods are routed through the node",
        )];
        let piped = table(&rows, None);
        assert_eq!(piped.lines().count(), 2);
        assert!(piped.contains("netguard.toml:3  pods are routed"));
        for width in 36..140 {
            let shown = table(&rows, Some(width));
            let widest = shown.lines().map(str::len).max();
            assert!(widest <= Some(width), "{width}\n{shown}");
            for part in [
                "ip_forward",
                "netguard.toml:3",
                "pods are routed",
                "restore",
            ] {
                assert!(shown.contains(part), "{width}\n{shown}");
            }
        }
        assert_eq!(table(&rows, Some(140)), piped);
    }
}
