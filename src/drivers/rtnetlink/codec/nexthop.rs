//! Next hops of routes, and the destinations of a VXLAN entry: what a resource may
//! have several of.

use std::fmt::Write as _;
use std::net::IpAddr;

use nix::libc::{
    NDA_DST as DST, NDA_IFINDEX as IFINDEX, NDA_PORT as PORT, NDA_VNI as VNI,
    RTA_GATEWAY as GATEWAY, RTA_VIA as VIA,
};

use super::field::{ip, number, octets, other, read_other, word};
use super::{Found, Unwritable, index_of, is_true, number_of};
use crate::drivers::rtnetlink::links::Links;
use crate::model::{Family, Value};
use crate::netlink::{attributes, pad, push};
use crate::resource::{Attribute, Name, Prefix, State};

/// The length of `struct rtnexthop`.
const HEADER: usize = 8;
/// `RTNH_F_ONLINK`
pub(super) const ONLINK: u8 = 4;
/// The word between two next hops, and between two destinations.
const NEXTHOP: &str = "nexthop";
const TO: &str = "dst";

/// A next hop of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hop {
    pub via: Option<IpAddr>,
    pub dev: Option<Name>,
    pub onlink: bool,
    /// One less than what people write.
    weight: u8,
    /// Attributes that have no name here.
    other: Vec<(u16, Vec<u8>)>,
}

impl Hop {
    /// As attributes of a route with this next hop only.
    pub fn found(&self, found: &mut Found) {
        let via = self.via.map(|it| Value::new(&it.to_string()));
        found.put(Attribute::Via, via);
        let dev = self.dev.as_ref().map(|it| Value::new(it.as_str()));
        found.put(Attribute::Dev, dev);
        found.flag(Attribute::Onlink, self.onlink);
    }

    /// Adds its attributes, with that of its interface where it has a number.
    pub fn push(
        &self,
        body: &mut Vec<u8>,
        family: Family,
        oif: Option<u16>,
        links: &Links,
    ) -> Result<(), Unwritable> {
        if let (Some(kind), Some(dev)) = (oif, &self.dev) {
            push(body, kind, &index_of(dev, links)?.to_ne_bytes());
        }
        if let Some(via) = self.via {
            let gateway = Prefix {
                address: via,
                length: 0,
            };
            match gateway.family() {
                own if own == family => push(body, GATEWAY, &octets(via)),
                other => {
                    let of = u16::from(number_of(other)).to_ne_bytes();
                    push(body, VIA, &[of.as_slice(), &octets(via)].concat());
                }
            }
        }
        for (kind, value) in &self.other {
            push(body, *kind, value);
        }
        Ok(())
    }

    fn show(&self, text: &mut String) {
        if let Some(via) = self.via {
            let _ = write!(text, " via {via}");
        }
        if let Some(dev) = &self.dev {
            let _ = write!(text, " dev {}", dev.as_str());
        }
        let _ = write!(text, " weight {}", u16::from(self.weight) + 1);
        text.push_str(if self.onlink { " onlink" } else { "" });
        let list: Vec<_> = self
            .other
            .iter()
            .map(|it| (it.0, it.1.as_slice()))
            .collect();
        for field in other(&list).iter().flat_map(Value::fields) {
            let _ = write!(text, " other {field}");
        }
    }

    fn read(words: &[&str]) -> Option<Hop> {
        let mut hop = Hop::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "via" => hop.via = Some(words.next()?.parse().ok()?),
                "dev" => hop.dev = Some(Name::from(*words.next()?)),
                "weight" => {
                    hop.weight = number::<u16>(words.next()?)?
                        .checked_sub(1)?
                        .try_into()
                        .ok()?
                }
                "onlink" => hop.onlink = true,
                "other" => hop.other.push(read_other(words.next()?)?),
                _ => return None,
            }
        }
        Some(hop)
    }
}

/// Next hops as text.
pub(super) fn show_hops(hops: &[Hop]) -> Value {
    let mut text = String::new();
    for (i, hop) in hops.iter().enumerate() {
        text.push_str(if i == 0 { "" } else { " nexthop" });
        hop.show(&mut text);
    }
    Value::new(&text)
}

/// The next hops that a route's state has; always one where it is not several.
pub(super) fn hops(state: &State) -> Result<Vec<Hop>, Unwritable> {
    let Some(several) = state.get(Attribute::Nexthops) else {
        let via = state.get(Attribute::Via).map(|it| it.as_str().parse());
        return Ok(vec![Hop {
            via: via
                .transpose()
                .map_err(|_| Unwritable::Value(Attribute::Via))?,
            dev: state.get(Attribute::Dev).map(|it| Name::from(it.as_str())),
            onlink: is_true(state, Attribute::Onlink),
            ..Hop::default()
        }]);
    };
    let words: Vec<_> = several.fields().collect();
    let hops = words.split(|word| *word == NEXTHOP).map(Hop::read);
    let hops: Option<Vec<_>> = hops.collect();
    hops.ok_or(Unwritable::Value(Attribute::Nexthops))
}

/// `RTA_MULTIPATH`: a `struct rtnexthop` and its attributes, each.
pub(super) fn read_hops(mut bytes: &[u8], links: &Links) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    while bytes.len() >= HEADER {
        let length = usize::from(super::field::half(bytes)?);
        let own = bytes.get(..length).filter(|it| it.len() >= HEADER)?;
        let mut hop = Hop {
            dev: links.name(word(&own[4..])?).cloned(),
            onlink: own[2] & ONLINK != 0,
            weight: own[3],
            ..Hop::default()
        };
        for (kind, value) in attributes(&own[HEADER..]) {
            match kind {
                GATEWAY => hop.via = ip(value),
                VIA => hop.via = value.get(2..).and_then(ip),
                kind => hop.other.push((kind, value.to_vec())),
            }
        }
        hops.push(hop);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(hops)
}

/// The value of `RTA_MULTIPATH`.
pub(super) fn push_hops(
    body: &mut Vec<u8>,
    hops: &[Hop],
    family: Family,
    links: &Links,
) -> Result<(), Unwritable> {
    for hop in hops {
        let begin = body.len();
        let index = hop.dev.as_ref().map_or(Ok(0), |dev| index_of(dev, links))?;
        body.extend([0, 0, if hop.onlink { ONLINK } else { 0 }, hop.weight]);
        body.extend(index.to_ne_bytes());
        hop.push(body, family, None, links)?;
        let length = u16::try_from(body.len() - begin);
        let length = length.map_err(|_| Unwritable::Value(Attribute::Nexthops))?;
        body[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
        pad(body);
    }
    Ok(())
}

/// Where a VXLAN entry sends to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Destination {
    pub to: Option<IpAddr>,
    pub port: Option<u16>,
    pub vni: Option<u32>,
    pub via: Option<Name>,
}

impl Destination {
    /// As text, where it is one.
    pub fn value(&self) -> Option<Value> {
        let mut text = self.to?.to_string();
        if let Some(port) = self.port {
            let _ = write!(text, " port {port}");
        }
        if let Some(vni) = self.vni {
            let _ = write!(text, " vni {vni}");
        }
        if let Some(via) = &self.via {
            let _ = write!(text, " via {}", via.as_str());
        }
        Some(Value::new(&text))
    }

    fn read(words: &[&str]) -> Option<Destination> {
        let mut words = words.iter();
        let to = Some(words.next()?.parse().ok()?);
        let mut destination = Destination {
            to,
            ..Destination::default()
        };
        while let Some(word) = words.next() {
            match *word {
                "port" => destination.port = Some(number(words.next()?)?),
                "vni" => destination.vni = Some(number(words.next()?)?),
                "via" => destination.via = Some(Name::from(*words.next()?)),
                _ => return None,
            }
        }
        Some(destination)
    }

    pub fn push(&self, body: &mut Vec<u8>, links: &Links) -> Result<(), Unwritable> {
        if let Some(to) = self.to {
            push(body, DST, &octets(to));
        }
        if let Some(port) = self.port {
            push(body, PORT, &port.to_be_bytes());
        }
        if let Some(vni) = self.vni {
            push(body, VNI, &vni.to_ne_bytes());
        }
        if let Some(via) = &self.via {
            push(body, IFINDEX, &index_of(via, links)?.to_ne_bytes());
        }
        Ok(())
    }
}

/// The destinations that the state of an FDB entry has; one without any where it
/// has none.
pub(super) fn destinations(state: &State) -> Result<Vec<Destination>, Unwritable> {
    let Some(value) = state.get(Attribute::Dst) else {
        return Ok(vec![Destination::default()]);
    };
    let words: Vec<_> = value.fields().collect();
    let read = words.split(|word| *word == TO).map(Destination::read);
    let read: Option<Vec<_>> = read.collect();
    read.ok_or(Unwritable::Value(Attribute::Dst))
}

/// The state of a resource that the kernel has several entries of: those of a VXLAN
/// entry have a destination each, those of an IPv6 route of old kernels a next hop.
/// Of others only the first counts.
pub fn combine(entries: &[State]) -> Option<State> {
    let (first, more) = entries.split_first()?;
    if more.is_empty() {
        return Some(first.clone());
    }
    let (name, joined) = if first.get(Attribute::Dst).is_some() {
        let all = entries.iter().filter_map(|it| it.get(Attribute::Dst));
        let all: Vec<_> = all.map(Value::as_str).collect();
        (Attribute::Dst, Value::new(&all.join(" dst ")))
    } else if is_ipv6_hop(first) && more.iter().all(is_ipv6_hop) {
        let all: Vec<_> = entries
            .iter()
            .flat_map(|it| hops(it).ok())
            .flatten()
            .collect();
        (Attribute::Nexthops, show_hops(&all))
    } else {
        return Some(first.clone());
    };
    let State::Attributes(attributes) = first else {
        return Some(first.clone());
    };
    let hop = [
        Attribute::Via,
        Attribute::Dev,
        Attribute::Onlink,
        Attribute::Nexthops,
        name,
    ];
    let kept = attributes
        .iter()
        .filter(|(own, _)| !hop.contains(own))
        .cloned();
    Some(State::with(kept.chain([(name, joined)]).collect()))
}

fn is_ipv6_hop(state: &State) -> bool {
    let hops = hops(state).unwrap_or_default();
    !hops.is_empty()
        && hops
            .iter()
            .all(|it| it.via.is_some_and(|via| via.is_ipv6()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(attributes: &[(Attribute, &str)]) -> State {
        let attributes = attributes
            .iter()
            .map(|(name, value)| (*name, Value::new(value)));
        State::with(attributes.collect())
    }

    #[test]
    fn siblings_that_an_old_kernel_lists_one_by_one_are_one_route() {
        let hop = |via| {
            let of = [
                (Attribute::Type, "unicast"),
                (Attribute::Via, via),
                (Attribute::Dev, "eth0"),
            ];
            state(&of)
        };
        let several = "via fe80::1 dev eth0 weight 1 nexthop via fe80::2 dev eth0 weight 1";
        let whole = state(&[(Attribute::Type, "unicast"), (Attribute::Nexthops, several)]);
        assert_eq!(combine(&[hop("fe80::1"), hop("fe80::2")]), Some(whole));
        assert_eq!(
            combine(&[hop("10.0.0.1"), hop("10.0.0.2")]),
            Some(hop("10.0.0.1"))
        );
        assert_eq!(combine(&[]), None);
    }
}
