//! systemd-networkd: networkd.conf(5) and systemd.network(5), where it is enabled.

use super::ini::{Assignment, options, truth};
use super::setting::{Kind, Setting, by_name, selector};
use super::tree::{Text, Tree};
use crate::model::{Origin, Value};

const UNIT: &str = "systemd-networkd.service";
/// Where networkd.conf is, from the one that wins; drop-ins in `networkd.conf.d` beside each.
const MAIN: [&str; 4] = [
    "/etc/systemd/networkd.conf",
    "/run/systemd/networkd.conf",
    "/usr/local/lib/systemd/networkd.conf",
    "/usr/lib/systemd/networkd.conf",
];
const DROP_INS: [&str; 4] = [
    "/etc/systemd/networkd.conf.d",
    "/run/systemd/networkd.conf.d",
    "/usr/local/lib/systemd/networkd.conf.d",
    "/usr/lib/systemd/networkd.conf.d",
];
/// Where .network files are, from the one that wins.
const NETWORKS: [&str; 4] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
];

/// Whether systemd-networkd is started at boot.
pub fn is_enabled(tree: &Tree) -> bool {
    is_wanted(tree, UNIT)
}

/// Whether a target wants `unit`: systemctl(1) makes a link in a folder of it.
pub(super) fn is_wanted(tree: &Tree, unit: &str) -> bool {
    ["/etc/systemd/system", "/usr/lib/systemd/system"]
        .iter()
        .any(|folder| {
            let targets = tree.list(folder, |name| {
                name.ends_with(".target.wants") || name.ends_with(".target.requires")
            });
            targets
                .iter()
                .any(|target| tree.exists(&format!("{folder}/{target}/{unit}")))
        })
}

/// Whether nothing starts `unit`: systemctl(1) masks it by a link to /dev/null.
pub(super) fn is_masked(tree: &Tree, unit: &str) -> bool {
    ["/etc/systemd/system", "/run/systemd/system"]
        .iter()
        .any(|folder| tree.is_null(format!("{folder}/{unit}")))
}

/// What networkd sets, from first to last.
pub fn applied(tree: &Tree) -> Vec<Setting> {
    let mut applied = Vec::new();
    for file in main_files(tree) {
        for option in options(&file).iter().filter(|it| it.section == "Network") {
            let key = match option.name {
                "IPv4Forwarding" => "net.ipv4.ip_forward",
                "IPv6Forwarding" => "net.ipv6.conf.all.forwarding",
                _ => continue,
            };
            applied.extend(set(key, truth(option.value).map(digit), &option.place));
        }
    }
    let networks = networks(tree);
    // The first file that matches an interface has it to itself: it comes last.
    for files in networks.iter().rev() {
        applied.extend(network(files));
    }
    applied
}

/// What networkd does to others' routes and rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// `ManageForeignRoutes` or `ManageForeignRoutingPolicyRules`.
    pub option: &'static str,
    /// Where that is said; it is so by default.
    pub place: Option<Origin>,
}

/// What of others networkd takes away when it starts or configures a link.
pub fn foreign(tree: &Tree) -> Vec<Foreign> {
    let files = main_files(tree);
    let all: Vec<Assignment<'_>> = files.iter().flat_map(options).collect();
    ["ManageForeignRoutes", "ManageForeignRoutingPolicyRules"]
        .into_iter()
        .filter_map(|option| {
            let last = all.iter().rev().find(|it| it.name == option);
            let managed = last.and_then(|it| truth(it.value)).unwrap_or(true);
            managed.then(|| Foreign {
                option,
                place: last.map(|it| it.place.clone()),
            })
        })
        .collect()
}

/// networkd.conf and its drop-ins, from the one that gives way.
fn main_files(tree: &Tree) -> Vec<Text> {
    let main = MAIN.iter().find_map(|path| tree.read(path));
    main.into_iter().chain(by_name(tree, &DROP_INS)).collect()
}

/// Each .network file with its drop-ins, in the order in which they are tried.
fn networks(tree: &Tree) -> Vec<Vec<Text>> {
    let mut names: Vec<String> = NETWORKS
        .iter()
        .flat_map(|folder| tree.list(folder, |name| name.ends_with(".network")))
        .collect();
    names.sort_unstable();
    names.dedup();
    let files = |name: String| {
        let mut paths = NETWORKS.iter().map(|folder| format!("{folder}/{name}"));
        let path = paths.find(|path| tree.exists(path))?;
        let folders = NETWORKS.map(|folder| format!("{folder}/{name}.d"));
        let drop_ins = by_name(tree, &folders.each_ref().map(String::as_str));
        let main = tree.read(path)?;
        // An empty one masks.
        (!main.text.is_empty()).then(|| std::iter::once(main).chain(drop_ins).collect())
    };
    names.into_iter().filter_map(files).collect()
}

/// What one .network file sets of the interfaces that it matches by name.
fn network(files: &[Text]) -> Vec<Setting> {
    let options: Vec<Assignment<'_>> = files.iter().flat_map(options).collect();
    let matched: Vec<_> = options.iter().filter(|it| it.section == "Match").collect();
    let names: Vec<&str> = match matched.as_slice() {
        // A file that matches by nothing is for every interface.
        [] => vec!["*"],
        some => some
            .iter()
            .filter(|it| it.name == "Name")
            .flat_map(|it| it.value.split_whitespace())
            .filter(|name| !name.starts_with('!'))
            .collect(),
    };
    let mut applied = Vec::new();
    for option in options.iter().filter(|it| it.section == "Network") {
        if option.name == "IPForward" {
            applied.extend(ip_forward(option));
        }
        let Some((family, key, value)) = per_interface(option) else {
            continue;
        };
        for name in &names {
            let name = name.replace('.', "/");
            let key = format!("net.{family}.conf.{name}.{key}");
            applied.extend(set(&key, Some(value), &option.place));
        }
    }
    applied
}

/// The family, the key and the value that an option sets of an interface.
fn per_interface(option: &Assignment<'_>) -> Option<(&'static str, &'static str, &'static str)> {
    let (family, key) = match option.name {
        "IPv4Forwarding" => ("ipv4", "forwarding"),
        "IPv4ProxyARP" => ("ipv4", "proxy_arp"),
        "IPv4RouteLocalnet" => ("ipv4", "route_localnet"),
        "IPv4AcceptLocal" => ("ipv4", "accept_local"),
        "IPv4ReversePathFilter" => ("ipv4", "rp_filter"),
        "IPv6Forwarding" => ("ipv6", "forwarding"),
        "IPv6ProxyNDP" => ("ipv6", "proxy_ndp"),
        "IPv6AcceptRA" => ("ipv6", "accept_ra"),
        _ => return None,
    };
    let value = match option.name {
        // networkd takes router advertisements in itself or nobody does: the
        // kernel is told 0 either way (systemd.network(5)).
        "IPv6AcceptRA" => "0",
        "IPv4ReversePathFilter" => match option.value {
            "no" => "0",
            "strict" => "1",
            "loose" => "2",
            other => digit(truth(other)?),
        },
        _ => digit(truth(option.value)?),
    };
    Some((family, key, value))
}

/// `IPForward=`, of versions before 256, turns forwarding on for all and never off.
fn ip_forward(option: &Assignment<'_>) -> Vec<Setting> {
    let yes = truth(option.value) == Some(true);
    let (v4, v6) = (yes || option.value == "ipv4", yes || option.value == "ipv6");
    let on = |on: bool, key| on.then(|| set(key, Some("1"), &option.place)).flatten();
    [
        on(v4, "net.ipv4.ip_forward"),
        on(v6, "net.ipv6.conf.all.forwarding"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn digit(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}

fn set(key: &str, value: Option<&str>, place: &Origin) -> Option<Setting> {
    Some(Setting {
        key: selector(key)?,
        value: Some(Value::new(value?)),
        place: place.clone(),
        kind: Kind::Networkd,
    })
}
