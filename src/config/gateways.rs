//! Gateways that no link reaches: the kernel refuses such a route.
//!
//! What links reach is what the configuration says of addresses and of routes
//! without a gateway, and the routes of the node below the root that is given. Where
//! nothing is known of a link, nothing is said of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::diagnostic::{Diagnostic, Severity, quoted};
use super::document::is_link_local;
use super::file::Place;
use super::tree::read;
use crate::model::{Invariant, Requirement, Selector, text};
use crate::resource::{Attribute, Desired, Prefix, Resource};

/// A network that a link reaches.
struct Reached {
    dev: String,
    network: Prefix,
}

/// A warning for each route with a gateway that no link reaches.
pub(super) fn check(invariants: &[Invariant], places: &[Place], root: &Path) -> Vec<Diagnostic> {
    let warning = |(index, what): (usize, String)| {
        let mut warning = Diagnostic::at(Severity::Warning, places[index].clone(), what);
        warning
            .note("the kernel refuses a route with such a gateway")
            .help(
                "correct `via` or `dev`, guard an address in its network, or add `onlink = true`",
            );
        warning
    };
    unreachable(invariants, root)
        .into_iter()
        .map(warning)
        .collect()
}

/// The routes with a gateway that no link reaches, by the numbers of their invariants, each
/// with which that is.
pub(super) fn unreachable(invariants: &[Invariant], root: &Path) -> Vec<(usize, String)> {
    let routes: Vec<_> = invariants
        .iter()
        .enumerate()
        .filter_map(|(index, it)| Some((index, route(it)?)))
        .filter(|(_, route)| route.hops.iter().any(|hop| hop.via.is_some()))
        .collect();
    if routes.is_empty() {
        return Vec::new();
    }
    let mut reached: Vec<Reached> = invariants.iter().flat_map(configured).collect();
    reached.extend(node(root));
    let found = |(index, route): &(usize, Route)| {
        let lost = route.hops.iter().find_map(|hop| unreached(hop, &reached))?;
        let dev = lost
            .dev
            .map(|dev| format!(" on {}", quoted(&text::shown(dev))));
        let dev = dev.unwrap_or_default();
        let what = format!("no link reaches the gateway {}{dev}", lost.via);
        Some((*index, what))
    };
    routes.iter().filter_map(found).collect()
}

/// A route that is required to exist.
struct Route {
    to: Prefix,
    hops: Vec<Hop>,
}

#[derive(Default)]
struct Hop {
    via: Option<IpAddr>,
    dev: Option<String>,
    onlink: bool,
}

/// A hop's gateway, where no link reaches it.
struct Lost<'a> {
    via: IpAddr,
    dev: Option<&'a str>,
}

fn unreached<'a>(hop: &'a Hop, reached: &[Reached]) -> Option<Lost<'a>> {
    let via = hop.via?;
    let is_local = matches!(&via, IpAddr::V6(via) if is_link_local(via));
    let of_link = |it: &&Reached| hop.dev.as_ref().is_none_or(|dev| *dev == it.dev);
    let whole = Prefix::whole(via);
    let of_family = |it: &&Reached| it.network.family() == whole.family();
    let mut known = reached.iter().filter(of_link).filter(of_family).peekable();
    let is_known = known.peek().is_some();
    let holds = |it: &Reached| {
        let Prefix { length, .. } = it.network;
        Prefix { length, ..whole }.network() == it.network
    };
    let dev = hop.dev.as_deref();
    (!hop.onlink && !is_local && is_known && !known.any(holds)).then_some(Lost { via, dev })
}

/// What the configuration says that links reach.
fn configured(invariant: &Invariant) -> Vec<Reached> {
    if let Selector::Resource(Resource::Address(address)) = &invariant.selector
        && matches!(invariant.desired, Desired::Attributes(_))
    {
        return vec![Reached {
            dev: address.dev.as_str().to_owned(),
            network: address.address.network(),
        }];
    }
    let Some(Route { to, hops }) = route(invariant) else {
        return Vec::new();
    };
    let direct = hops.into_iter().filter(|hop| hop.via.is_none());
    let reached = |hop: Hop| {
        let dev = hop.dev?;
        Some(Reached { dev, network: to })
    };
    direct.filter_map(reached).collect()
}

fn route(invariant: &Invariant) -> Option<Route> {
    let (Selector::Resource(Resource::Route(route)), Desired::Attributes(attributes)) =
        (&invariant.selector, &invariant.desired)
    else {
        return None;
    };
    let mut hop = Hop::default();
    let mut hops = Vec::new();
    for (name, requirement) in attributes {
        let Requirement::Equal(value) = requirement else {
            continue;
        };
        match name {
            Attribute::Via => hop.via = value.as_str().parse().ok(),
            Attribute::Dev => hop.dev = Some(value.as_str().to_owned()),
            Attribute::Onlink => hop.onlink = true,
            Attribute::Nexthops => hops = read_hops(value.fields()),
            _ => {}
        }
    }
    if hops.is_empty() {
        hops.push(hop);
    }
    let to = route.to;
    Some(Route { to, hops })
}

/// As [`Attribute::Nexthops`] has them.
fn read_hops<'a>(mut words: impl Iterator<Item = &'a str>) -> Vec<Hop> {
    let mut hops = vec![Hop::default()];
    while let (Some(word), Some(hop)) = (words.next(), hops.last_mut()) {
        match word {
            "nexthop" => hops.push(Hop::default()),
            "onlink" => hop.onlink = true,
            "via" => hop.via = words.next().and_then(|it| it.parse().ok()),
            "dev" => hop.dev = words.next().map(str::to_owned),
            _ => _ = words.next(),
        }
    }
    hops
}

/// The networks that the links of the node below `root` reach now.
fn node(root: &Path) -> Vec<Reached> {
    let table = |path: &str| {
        let table = read(root, Path::new(path)).unwrap_or_default();
        text::from_bytes(&table)
    };
    let (ipv4, ipv6) = (table("/proc/net/route"), table("/proc/net/ipv6_route"));
    let ipv4 = ipv4.lines().filter_map(|line| ipv4_route(&columns(line)));
    let ipv6 = ipv6.lines().filter_map(|line| ipv6_route(&columns(line)));
    ipv4.chain(ipv6).collect()
}

fn columns(line: &str) -> Vec<&str> {
    // The name of an interface holds no white space.
    line.split([' ', '\t'])
        .filter(|it| !it.is_empty())
        .collect()
}

/// A line of /proc/net/route: addresses are numbers of the machine, in network order.
fn ipv4_route(columns: &[&str]) -> Option<Reached> {
    let [dev, to, via, _, _, _, _, mask, ..] = columns else {
        return None;
    };
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    if number(via)? != 0 {
        return None;
    }
    let address = Ipv4Addr::from(number(to)?.to_ne_bytes());
    let length = u8::try_from(number(mask)?.count_ones()).ok()?;
    Some(Reached {
        dev: (*dev).to_owned(),
        network: Prefix {
            address: address.into(),
            length,
        },
    })
}

/// A line of /proc/net/ipv6_route.
fn ipv6_route(columns: &[&str]) -> Option<Reached> {
    /// `RTF_REJECT` of linux/route.h.
    const REJECT: u32 = 0x200;
    let [to, length, _, _, via, _, _, _, flags, dev] = columns else {
        return None;
    };
    let number = |text: &str| u128::from_str_radix(text, 16).ok();
    let flags = u32::from_str_radix(flags, 16).ok()?;
    if number(via)? != 0 || flags & REJECT != 0 {
        return None;
    }
    Some(Reached {
        dev: (*dev).to_owned(),
        network: Prefix {
            address: Ipv6Addr::from(number(to)?).into(),
            length: u8::from_str_radix(length, 16).ok()?,
        },
    })
}
