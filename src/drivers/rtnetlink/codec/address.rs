//! Addresses: `struct ifaddrmsg` and its attributes (linux/if_addr.h).

use std::net::IpAddr;

use nix::libc::{
    IFA_ADDRESS as ADDRESS, IFA_BROADCAST as BROADCAST, IFA_CACHEINFO as CACHEINFO,
    IFA_FLAGS as FLAGS, IFA_LABEL as LABEL, IFA_LOCAL as LOCAL,
};

use super::field::{Form, ip, longest, octets, other, until_nul, word};
use super::route::{read_scope, scope_name};
use super::{
    CREATE, DEL_ADDRESS, EXCL, Found, How, NEW_ADDRESS, REPLACE, Request, Unwritable, index_of,
    number, number_of, push_field, push_other,
};
use crate::drivers::rtnetlink::links::Links;
use crate::model::{Family, Value};
use crate::netlink::{attributes, push};
use crate::resource::{Address, Attribute, Name, Prefix, Resource, State};

const HEADER: usize = 8;
/// `IFA_RT_PRIORITY` (from Linux 4.18), `IFA_PROTO` (5.18)
const METRIC: u16 = 9;
const PROTOCOL: u16 = 11;
/// The flags that are configured: `IFA_F_NODAD`, `IFA_F_HOMEADDRESS`,
/// `IFA_F_MANAGETEMPADDR`, `IFA_F_NOPREFIXROUTE`, `IFA_F_MCAUTOJOIN`. The others
/// are what the kernel makes of the address.
const CONFIGURED: u32 = 0x712;
/// `IFA_F_DADFAILED`
const DAD_FAILED: u8 = 0x08;
/// `IFA_F_PERMANENT`: its lifetime does not end.
const PERMANENT: u32 = 0x80;
/// `IFA_F_STABLE_PRIVACY`: the kernel has made it of the interface's secret.
const STABLE_PRIVACY: u32 = 0x800;
/// `IFAPROT_KERNEL_LL`: the kernel has made it for the link.
const OF_LINK: u32 = 3;

pub(super) fn decode(payload: &[u8], links: &Links) -> Option<(Resource, Option<State>)> {
    let header = payload.get(..HEADER)?;
    let family = super::family_of(header[0])?;
    let dev = links.name(word(&header[4..])?)?.clone();
    let mut flags = u32::from(header[2]);
    let (mut address, mut local) = (None, None);
    let (mut found, mut rest) = (Found::default(), Vec::new());
    for (kind, value) in attributes(&payload[HEADER..]) {
        match kind {
            ADDRESS => address = ip(value),
            LOCAL => local = ip(value),
            // The kernel's own choice is the interface's name.
            LABEL if Name::from_bytes(until_nul(value)) != dev => {
                found.put(Attribute::Label, show(Form::Text, value));
            }
            BROADCAST => found.put(Attribute::Broadcast, show(Form::Ip, value)),
            FLAGS => flags = word(value).unwrap_or(flags),
            METRIC => found.put(Attribute::Metric, show(Form::Word, value)),
            PROTOCOL => found.put(Attribute::Protocol, show(Form::Byte, value)),
            LABEL | CACHEINFO => {}
            kind => rest.push((kind, value)),
        }
    }
    let own = local.or(address)?;
    if let Some(peer) = address.filter(|peer| *peer != own) {
        found.put(Attribute::Peer, Value::new(&peer.to_string()));
    }
    if family == Family::Ipv4 {
        found.put(Attribute::Scope, scope_name(header[3]));
    }
    found.flag(Attribute::Dynamic, flags & PERMANENT == 0);
    if flags & CONFIGURED != 0 {
        found.number(Attribute::Flags, flags & CONFIGURED);
    }
    found.put(Attribute::Other, other(&rest));
    let length = header[1];
    let is_reported = found.0.iter().any(|(name, _)| *name == Attribute::Protocol);
    if !is_reported && is_of_link(own, length, flags) {
        found.number(Attribute::Protocol, OF_LINK);
    }
    let address = Prefix {
        address: own,
        length,
    };
    let known = length <= longest(own) && address.family() == family;
    let resource = Resource::Address(Address { dev, address }.into());
    known.then(|| (resource, Some(found.state())))
}

/// Whether the kernel has found it at another host.
pub fn is_duplicate(payload: &[u8]) -> bool {
    payload.get(2).is_some_and(|flags| flags & DAD_FAILED != 0)
}

/// Whether it is as the kernel makes them for a link. Kernels before 5.18 do not say
/// whether they did.
fn is_of_link(ip: IpAddr, length: u8, flags: u32) -> bool {
    let IpAddr::V6(ip) = ip else {
        return false;
    };
    let octets = ip.octets();
    let is_local = length == 64 && octets.starts_with(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
    // Of a hardware address of six bytes (RFC 4291, appendix A).
    let is_of_hardware = octets[11..13] == [0xff, 0xfe];
    is_local && (is_of_hardware || flags & STABLE_PRIVACY != 0)
}

fn show(form: Form, value: &[u8]) -> Option<Value> {
    form.show(value).map(|text| Value::new(&text))
}

pub(super) fn write(
    address: &Address,
    state: &State,
    how: How,
    links: &Links,
) -> Result<Request, Unwritable> {
    let flags: u32 = number(state, Attribute::Flags)?.unwrap_or(0);
    let scope = match state.get(Attribute::Scope) {
        Some(scope) => read_scope(scope.as_str()).ok_or(Unwritable::Value(Attribute::Scope))?,
        None => 0,
    };
    let [low, ..] = flags.to_le_bytes();
    let mut body = header(address, low, scope, links)?;
    match state.get(Attribute::Peer) {
        Some(_) => push_field(&mut body, state, Attribute::Peer, ADDRESS, Form::Ip)?,
        None => push(&mut body, ADDRESS, &octets(address.address.address)),
    }
    push_field(&mut body, state, Attribute::Broadcast, BROADCAST, Form::Ip)?;
    push_field(&mut body, state, Attribute::Label, LABEL, Form::Text)?;
    push_field(&mut body, state, Attribute::Metric, METRIC, Form::Word)?;
    push_field(&mut body, state, Attribute::Protocol, PROTOCOL, Form::Byte)?;
    if flags > 0xff {
        push(&mut body, FLAGS, &flags.to_ne_bytes());
    }
    push_other(&mut body, state)?;
    let flags = match how {
        How::Create => CREATE | EXCL,
        How::Replace => CREATE | REPLACE,
    };
    Ok(Request::new(NEW_ADDRESS, flags, body))
}

pub(super) fn delete(address: &Address, links: &Links) -> Result<Request, Unwritable> {
    let body = header(address, 0, 0, links)?;
    Ok(Request::new(DEL_ADDRESS, 0, body))
}

fn header(address: &Address, flags: u8, scope: u8, links: &Links) -> Result<Vec<u8>, Unwritable> {
    let Prefix {
        address: ip,
        length,
    } = address.address;
    let family = number_of(address.address.family());
    let mut body = vec![family, length, flags, scope];
    body.extend(index_of(&address.dev, links)?.to_ne_bytes());
    push(&mut body, LOCAL, &octets(ip));
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_links_are_known_without_their_protocol() {
        for (text, flags, expected) in [
            ("fe80::ecee:eeff:feee:eeee", 0, true),
            ("fe80::1", 0, false),
            ("fe80::1234:5678:9abc:def0", STABLE_PRIVACY, true),
            ("2001:db8::ecee:eeff:feee:eeee", STABLE_PRIVACY, false),
            ("10.39.0.110", 0, false),
        ] {
            let ip = text.parse().expect(text);
            assert_eq!(is_of_link(ip, 64, flags), expected, "{text}");
        }
    }
}
