//! What networkd sets of an interface that a .network file is for, by its version
//! (networkd-sysctl.c), and the options that decide it.

use super::file::{Assignment, Network};
use crate::model::{Family, Origin};

/// A value that networkd sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub value: String,
    /// Where that is said, or the file that implies it.
    pub place: Origin,
    /// The option that decides it; none where no option does.
    pub option: Option<&'static str>,
    /// Whether the value may be another one, and why.
    pub unknown: Option<&'static str>,
}

/// How an option spells a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Boolean,
    Number(i64, i64),
    ReversePath,
    Privacy,
}

/// An option that sets a key of the interface, by its versions.
struct Plain {
    since: u32,
    option: &'static str,
    family: Family,
    key: &'static str,
    spelling: Spelling,
}

const PLAIN: [Plain; 12] = [
    plain(
        256,
        "IPv4Forwarding",
        Family::Ipv4,
        "forwarding",
        Spelling::Boolean,
    ),
    plain(
        256,
        "IPv6Forwarding",
        Family::Ipv6,
        "forwarding",
        Spelling::Boolean,
    ),
    plain(
        221,
        "IPv4ProxyARP",
        Family::Ipv4,
        "proxy_arp",
        Spelling::Boolean,
    ),
    plain(
        256,
        "IPv4ProxyARPPrivateVLAN",
        Family::Ipv4,
        "proxy_arp_pvlan",
        Spelling::Boolean,
    ),
    plain(
        249,
        "IPv4RouteLocalnet",
        Family::Ipv4,
        "route_localnet",
        Spelling::Boolean,
    ),
    plain(
        246,
        "IPv4AcceptLocal",
        Family::Ipv4,
        "accept_local",
        Spelling::Boolean,
    ),
    plain(
        255,
        "IPv4ReversePathFilter",
        Family::Ipv4,
        "rp_filter",
        Spelling::ReversePath,
    ),
    plain(
        222,
        "IPv6PrivacyExtensions",
        Family::Ipv6,
        "use_tempaddr",
        Spelling::Privacy,
    ),
    plain(
        234,
        "IPv6ProxyNDP",
        Family::Ipv6,
        "proxy_ndp",
        Spelling::Boolean,
    ),
    plain(
        219,
        "IPv6DuplicateAddressDetection",
        Family::Ipv6,
        "dad_transmits",
        Spelling::Number(0, 2_147_483_647),
    ),
    plain(
        222,
        "IPv6HopLimit",
        Family::Ipv6,
        "hop_limit",
        Spelling::Number(1, 255),
    ),
    plain(
        239,
        "IPv6MTUBytes",
        Family::Ipv6,
        "mtu",
        Spelling::Number(1280, 2_147_483_647),
    ),
];

const fn plain(
    since: u32,
    option: &'static str,
    family: Family,
    key: &'static str,
    spelling: Spelling,
) -> Plain {
    Plain {
        since,
        option,
        family,
        key,
        spelling,
    }
}

/// The older name of an option.
fn older_name(option: &str) -> Option<&'static str> {
    match option {
        "IPv4ProxyARP" => Some("ProxyARP"),
        _ => None,
    }
}

/// What networkd of this version sets `key` of an interface to that `network` is
/// for; `main` are the options of networkd.conf.
pub fn row(
    network: &Network,
    main: &[Assignment],
    version: u32,
    family: Family,
    key: &str,
) -> Option<Row> {
    let plain = PLAIN
        .iter()
        .find(|it| (it.family, it.key) == (family, key) && version >= it.since);
    if let Some(plain) = plain {
        match said(network, plain) {
            Said::Nothing => {}
            Said::Kernel => return None,
            Said::Value(row) => return Some(row),
        }
    }
    let option = plain.map(|it| it.option);
    let implied = |value: &str| Row {
        value: value.to_owned(),
        place: network.place.clone(),
        option,
        unknown: None,
    };
    match (family, key) {
        // networkd takes router advertisements in itself or nobody does: the
        // kernel gets 0 either way (systemd.network(5)).
        (Family::Ipv6, "accept_ra") if version >= 231 => {
            let said = network.last("Network", "IPv6AcceptRA");
            let mut row = implied("0");
            row.place = said.map_or(row.place, |it| it.place.clone());
            Some(row)
        }
        (Family::Ipv4, "promote_secondaries") if version >= 234 => Some(implied("1")),
        (Family::Ipv6, "proxy_ndp") if version >= 234 => {
            let addresses = network.last("Network", "IPv6ProxyNDPAddress");
            Some(implied(if addresses.is_some() { "1" } else { "0" }))
        }
        (Family::Ipv6, "use_tempaddr") if version >= 222 => {
            let global = main
                .iter()
                .rev()
                .find(|it| it.name == "IPv6PrivacyExtensions");
            match global.filter(|_| version >= 254) {
                Some(global) => match read(&global.value, Spelling::Privacy)?.as_str() {
                    "kernel" => None,
                    value => Some(Row {
                        place: global.place.clone(),
                        ..implied(value)
                    }),
                },
                None => Some(implied("0")),
            }
        }
        (_, "forwarding") if version >= 256 => forwarding(network, main, family, implied("1")),
        (Family::Ipv6, "disable_ipv6") if version >= 231 => {
            Some(disable_ipv6(network, implied("0")))
        }
        _ => None,
    }
}

/// What an option says.
enum Said {
    Nothing,
    /// The key is left to the kernel.
    Kernel,
    Value(Row),
}

/// What an option says; its last valid value counts.
fn said(network: &Network, plain: &Plain) -> Said {
    let older = older_name(plain.option);
    let is_it = |it: &&Assignment| {
        it.section == "Network" && (it.name == plain.option || Some(it.name.as_str()) == older)
    };
    let mut said = Said::Nothing;
    for option in network.options.iter().filter(is_it) {
        match read(&option.value, plain.spelling) {
            None if option.value.is_empty() && plain.spelling == Spelling::Boolean => {
                said = Said::Nothing;
            }
            None => {}
            Some(value) if value == "kernel" => said = Said::Kernel,
            Some(value) => {
                let unknown = "it depends on the interface's own MTU";
                said = Said::Value(Row {
                    value,
                    place: option.place.clone(),
                    option: Some(plain.option),
                    unknown: (plain.key == "mtu").then_some(unknown),
                });
            }
        }
    }
    said
}

/// Forwarding where no option of the file says it.
fn forwarding(network: &Network, main: &[Assignment], family: Family, on: Row) -> Option<Row> {
    if let Some(place) = implies_forwarding(network, 256, family) {
        return Some(Row {
            place: place.clone(),
            ..on
        });
    }
    let (value, place) = global_forwarding(main, family)?;
    let value = value.to_owned();
    Some(Row {
        value,
        place: place.clone(),
        ..on
    })
}

/// The option that turns forwarding on besides its own.
pub fn implies_forwarding(network: &Network, version: u32, family: Family) -> Option<&Origin> {
    let read = |text: &str| {
        // Nothing is `no`, and `yes` the old name of `ipv4`.
        let old = family == Family::Ipv4;
        let none = text.is_empty().then_some(false);
        none.or_else(|| of_family(text, family, old))
    };
    let masquerade = network.valid("Network", "IPMasquerade", read);
    let masquerade = masquerade.filter(|(on, _)| *on).map(|(_, place)| place);
    let sends = network.valid("Network", "IPv6SendRA", truth);
    let implies = family == Family::Ipv6 && version >= 256;
    let sends = sends.filter(|(on, _)| *on && implies);
    masquerade.or(sends.map(|(_, place)| place))
}

/// Whether a list of address families (`ipv4`, `both`, `no`) has this one; `yes`
/// says whether a plain `yes` has.
pub fn of_family(text: &str, family: Family, yes: bool) -> Option<bool> {
    match (text, truth(text)) {
        ("both", _) => Some(true),
        ("ipv4", _) => Some(family == Family::Ipv4),
        ("ipv6", _) => Some(family == Family::Ipv6),
        (_, Some(on)) => Some(on && yes),
        _ => None,
    }
}

/// What networkd.conf says of forwarding.
pub fn global_forwarding(main: &[Assignment], family: Family) -> Option<(&'static str, &Origin)> {
    let option = match family {
        Family::Ipv4 => "IPv4Forwarding",
        Family::Ipv6 => "IPv6Forwarding",
    };
    let said = |it: &&Assignment| it.section == "Network" && it.name == option;
    let last = main.iter().rev().find(said)?;
    Some((digit(truth(&last.value)?), &last.place))
}

/// networkd turns IPv6 on where an interface has something to do with it.
fn disable_ipv6(network: &Network, on: Row) -> Row {
    let local = network.valid("Network", "LinkLocalAddressing", |text| match text {
        "ipv6" => Some(true),
        "ipv4" | "fallback" | "ipv4-fallback" => Some(false),
        _ => truth(text),
    });
    let by_default = ["Bridge", "Bond", "KeepMaster"]
        .iter()
        .all(|option| network.last("Network", option).is_none());
    let uses = match local {
        Some((on, _)) => on,
        None => by_default,
    };
    let unknown = (!uses).then_some("it depends on whether networkd needs IPv6 there");
    Row { unknown, ..on }
}

/// The kernel's value for one of an option.
fn read(text: &str, spelling: Spelling) -> Option<String> {
    let boolean = || truth(text).map(|on| digit(on).to_owned());
    match spelling {
        Spelling::Boolean => boolean(),
        Spelling::Number(least, most) => {
            let number: i64 = text.parse().ok()?;
            (least..=most).contains(&number).then(|| number.to_string())
        }
        Spelling::ReversePath => Some(match text {
            "no" => "0".to_owned(),
            "strict" => "1".to_owned(),
            "loose" => "2".to_owned(),
            _ => return None,
        }),
        Spelling::Privacy => Some(match (text, truth(text)) {
            ("kernel", _) => "kernel".to_owned(),
            ("prefer-public", _) => "1".to_owned(),
            (_, Some(true)) => "2".to_owned(),
            (_, Some(false)) => "0".to_owned(),
            _ => return None,
        }),
    }
}

/// How `option` spells a value, where it can.
pub fn spell(option: &str, value: &str) -> Option<String> {
    let plain = PLAIN.iter().find(|it| it.option == option)?;
    let word = match (plain.spelling, value) {
        (Spelling::Number(..), _) => value,
        (Spelling::Boolean | Spelling::ReversePath | Spelling::Privacy, "0") => "no",
        (Spelling::Boolean, "1") | (Spelling::Privacy, "2") => "yes",
        (Spelling::ReversePath, "1") => "strict",
        (Spelling::ReversePath, "2") => "loose",
        (Spelling::Privacy, "1") => "prefer-public",
        _ => return None,
    };
    (read(word, plain.spelling).as_deref() == Some(value)).then(|| word.to_owned())
}

/// systemd's booleans.
pub fn truth(value: &str) -> Option<bool> {
    super::super::ini::truth(value)
}

/// A boolean as the kernel has it.
pub fn digit(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}
