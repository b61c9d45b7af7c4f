//! What networkd sets of an interface that a .network file is for, by its version
//! (networkd-sysctl.c), and the options that decide it.

use std::net::Ipv6Addr;

use super::file::{Assignment, BLANKS, Network};
use crate::conflicts::setting::{digit, truth};
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
    /// With the least that is a number at all.
    Number(i64),
    Size,
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
        Spelling::Number(0),
    ),
    plain(
        222,
        "IPv6HopLimit",
        Family::Ipv6,
        "hop_limit",
        Spelling::Number(0),
    ),
    plain(239, "IPv6MTUBytes", Family::Ipv6, "mtu", Spelling::Size),
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
        match said(network, plain, version) {
            Said::Nothing => {}
            Said::Kernel => return None,
            Said::Value(row) => return Some(row),
        }
    }
    let implied = |value: &str| Row {
        value: value.to_owned(),
        place: network.place.clone(),
        option: plain.map(|it| it.option),
        unknown: None,
    };
    match (family, key) {
        // networkd takes router advertisements in itself or nobody does: the
        // kernel gets 0 either way (systemd.network(5)).
        (Family::Ipv6, "accept_ra") if version >= 231 => {
            let said = network.all("Network", "IPv6AcceptRA").last();
            let mut row = implied("0");
            row.place = said.map_or(row.place, |it| it.place.clone());
            Some(row)
        }
        (Family::Ipv4, "promote_secondaries") if version >= 234 => Some(implied("1")),
        (Family::Ipv6, "proxy_ndp") if version >= 234 => {
            Some(implied(digit(has_proxy_addresses(network))))
        }
        (Family::Ipv6, "use_tempaddr") if version >= 254 => privacy(main, implied("0")),
        (Family::Ipv6, "use_tempaddr") if version >= 222 => Some(implied("0")),
        (_, "forwarding") if version >= 256 => forwarding(network, main, family, implied("1")),
        (Family::Ipv6, "disable_ipv6") if version >= 231 => {
            let uses = has_link_local(network);
            let unknown = (!uses).then_some("it depends on whether networkd needs IPv6 there");
            Some(Row {
                unknown,
                ..implied("0")
            })
        }
        (Family::Ipv6, "addr_gen_mode") if version >= 231 => {
            Some(addr_gen_mode(network, version, implied("0")))
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
fn said(network: &Network, plain: &Plain, version: u32) -> Said {
    let older = older_name(plain.option);
    let is_it = |it: &&Assignment| {
        it.section == "Network" && (it.name == plain.option || Some(it.name.as_str()) == older)
    };
    let mut said = Said::Nothing;
    for option in network.options.iter().filter(is_it) {
        match read(&option.value, plain.spelling) {
            // An empty one takes back those before it.
            None if option.value.is_empty()
                && plain.spelling == Spelling::Boolean
                && version >= EMPTY =>
            {
                said = Said::Nothing;
            }
            None => {}
            Some(value) if value == "kernel" => said = Said::Kernel,
            Some(value) if value == "unset" => said = Said::Nothing,
            Some(value) => {
                let unknown = "it depends on the interface's own MTU";
                said = Said::Value(Row {
                    value,
                    place: option.place.clone(),
                    option: Some(plain.option),
                    unknown: (plain.spelling == Spelling::Size).then_some(unknown),
                });
            }
        }
    }
    said
}

/// The first version in which an empty boolean takes back those before it.
const EMPTY: u32 = 247;

/// What a boolean of networkd.conf says.
fn global<'a>(main: &'a [Assignment], name: &str) -> Option<(bool, &'a Origin)> {
    let is_it = |it: &&Assignment| it.section == "Network" && it.name == name;
    let mut said = None;
    for option in main.iter().filter(is_it) {
        match truth(&option.value) {
            Some(on) => said = Some((on, &option.place)),
            None if option.value.is_empty() => said = None,
            None => {}
        }
    }
    said
}

/// What `IPv6PrivacyExtensions=` in networkd.conf says of files that say nothing.
fn privacy(main: &[Assignment], no: Row) -> Option<Row> {
    let is_it = |it: &&Assignment| it.section == "Network" && it.name == "IPv6PrivacyExtensions";
    let valid = |it: &'_ Assignment| Some((read(&it.value, Spelling::Privacy)?, it.place.clone()));
    match main.iter().filter(is_it).filter_map(valid).next_back() {
        Some((value, _)) if value == "kernel" => None,
        Some((value, place)) => Some(Row { value, place, ..no }),
        None => Some(no),
    }
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

/// The option by which networkd before 256 turns forwarding on for all.
pub const FORWARD: &str = "IPForward";

/// Where networkd before 256 is configured to turn forwarding on for all.
pub fn turns_on(network: &Network, version: u32, family: Family) -> Option<&Origin> {
    forwards(network, family).or_else(|| implies_forwarding(network, version, family))
}

/// Where `IPForward` itself says so.
fn forwards(network: &Network, family: Family) -> Option<&Origin> {
    let read = |text: &str| match text {
        "kernel" => Some(false),
        "both" => None,
        _ => of_family(text, family, true),
    };
    let forward = network.valid("Network", FORWARD, read);
    forward.filter(|(on, _)| *on).map(|(_, place)| place)
}

/// The option that turns forwarding on besides its own.
fn implies_forwarding(network: &Network, version: u32, family: Family) -> Option<&Origin> {
    let read = |text: &str| {
        // Nothing is `no`, and `yes` the old name of `ipv4`, the only one before 248.
        let old = family == Family::Ipv4;
        let none = text.is_empty().then_some(false);
        if version < 248 {
            return truth(text).map(|on| on && old);
        }
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
fn of_family(text: &str, family: Family, yes: bool) -> Option<bool> {
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
    let (on, place) = global(main, forwarding_option(family))?;
    Some((digit(on), place))
}

/// The option for forwarding since 256.
pub fn forwarding_option(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4Forwarding",
        Family::Ipv6 => "IPv6Forwarding",
    }
}

/// Whether there are addresses that are answered for.
fn has_proxy_addresses(network: &Network) -> bool {
    let mut has = false;
    for option in network.all("Network", "IPv6ProxyNDPAddress") {
        let address: Option<Ipv6Addr> = option.value.parse().ok();
        has = (has || address.is_some_and(|it| !it.is_unspecified())) && !option.value.is_empty();
    }
    has
}

/// Whether an interface certainly gets an IPv6 link-local address.
fn has_link_local(network: &Network) -> bool {
    let local = network.valid("Network", "LinkLocalAddressing", |text| match text {
        "ipv6" | "fallback" => Some(true),
        "ipv4" | "fallback-ipv4" | "ipv4-fallback" => Some(false),
        _ => truth(text),
    });
    let given = |name| network.all("Network", name).any(|it| !it.value.is_empty());
    let may_be_port = |names: &[&'static str]| names.iter().any(|name| given(name));
    let mode = gen_mode(network);
    !may_be_port(&["Bond"])
        && mode.is_none_or(|(mode, _)| mode != NO_ADDRESS)
        && match local {
            Some((on, _)) => on,
            // A port of a bridge has none, nor has the base of some MACVLANs.
            None => !may_be_port(&["Bridge", "KeepMaster", "MACVLAN", "MACVTAP"]),
        }
}

/// The mode in which the kernel makes no link-local address.
const NO_ADDRESS: &str = "1";

/// How link-local addresses are made, where that is said.
fn gen_mode(network: &Network) -> Option<(&'static str, &Origin)> {
    network.valid("Network", "IPv6LinkLocalAddressGenerationMode", |text| {
        Some(match text {
            "eui64" => "0",
            "none" => NO_ADDRESS,
            "stable-privacy" => "2",
            "random" => "3",
            _ => return None,
        })
    })
}

/// How the kernel makes link-local addresses of an interface.
fn addr_gen_mode(network: &Network, version: u32, default: Row) -> Row {
    let said = gen_mode(network).filter(|_| version >= 246);
    let secret = network.all("Network", "IPv6StableSecretAddress");
    let unsure = !has_link_local(network) || (said.is_none() && secret.count() > 0);
    let (value, place) = said.unwrap_or(("0", &default.place));
    Row {
        value: value.to_owned(),
        place: place.clone(),
        unknown: unsure.then_some("it depends on the kind of the interface"),
        ..default
    }
}

/// The kernel's value for one of an option.
fn read(text: &str, spelling: Spelling) -> Option<String> {
    match spelling {
        Spelling::Boolean => truth(text).map(|on| digit(on).to_owned()),
        Spelling::Number(least) => {
            let number = integer(text)?;
            let is_set = number >= least;
            Some(if is_set {
                number.to_string()
            } else {
                "unset".to_owned()
            })
        }
        // With a unit it is as much a size; what it comes to is not known anyway.
        Spelling::Size => {
            let is_size = text.starts_with(|c: char| c.is_ascii_digit());
            let is_small = text.parse().is_ok_and(|it: u32| it < 1280);
            (is_size && !is_small).then(|| text.to_owned())
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

/// An integer of 32 bits, as C reads it in base 0; `0b` and `0o` are systemd's.
fn integer(text: &str) -> Option<i64> {
    let text = text.trim_start_matches(BLANKS);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let in_base = |prefixes: [&str; 2], base| {
        let mut found = prefixes.iter().filter_map(|it| digits.strip_prefix(it));
        found.next().map(|rest| (rest, base))
    };
    let is_signed = digits.len() < text.len();
    let own = in_base(["0b", "0B"], 2).or_else(|| in_base(["0o", "0O"], 8));
    let (digits, base) = own
        .filter(|_| !is_signed)
        .or_else(|| in_base(["0x", "0X"], 16))
        .or_else(|| {
            digits
                .strip_prefix('0')
                .filter(|it| !it.is_empty())
                .map(|it| (it, 8))
        })
        .unwrap_or((digits, 10));
    let is_plain = digits.chars().all(|c| c.is_ascii_alphanumeric());
    let number = i64::from_str_radix(digits, base)
        .ok()
        .filter(|_| is_plain)?;
    let number = if negative { -number } else { number };
    i32::try_from(number).ok().map(i64::from)
}

/// What `IPForward` may be so that it does not turn on this family: the other one
/// may stay as it is.
pub fn forward_off(network: &Network, family: Family) -> Vec<&'static str> {
    let (other, word) = match family {
        Family::Ipv4 => (Family::Ipv6, "ipv6"),
        Family::Ipv6 => (Family::Ipv4, "ipv4"),
    };
    let keeps = forwards(network, other).is_some();
    keeps.then_some(word).into_iter().chain(["no"]).collect()
}

/// How `option` spells a value, where it can.
pub fn spell(option: &str, value: &str) -> Option<String> {
    let plain = PLAIN.iter().find(|it| it.option == option)?;
    let word = match (plain.spelling, value) {
        (Spelling::Number(_) | Spelling::Size, _) => value,
        (Spelling::Boolean | Spelling::ReversePath | Spelling::Privacy, "0") => "no",
        (Spelling::Boolean, "1") | (Spelling::Privacy, "2") => "yes",
        (Spelling::ReversePath, "1") => "strict",
        (Spelling::ReversePath, "2") => "loose",
        (Spelling::Privacy, "1") => "prefer-public",
        _ => return None,
    };
    (read(word, plain.spelling).as_deref() == Some(value)).then(|| word.to_owned())
}
