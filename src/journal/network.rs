//! Why the kernel refuses a link, an address, a neighbour, an FDB entry, a route or a
//! rule, in words, and what to do.

use nix::errno::Errno as Name;

use crate::engine::Errno;
use crate::resource::{Resource, State};
use crate::sys::capabilities::{Capability, denial};
use crate::words::plain_errno;

/// Why such a resource could not be brought into this state; nothing where the resource
/// is of another kind.
pub fn refused(resource: &Resource, target: &State, errno: Errno) -> Option<String> {
    let advice = advice(resource, errno)?;
    let why = match advice.is_empty() {
        true => plain_errno(errno),
        false => advice,
    };
    Some(match target.exists() {
        true => format!("setting it to {target} failed: {why}"),
        false => format!("removing it failed: {why}"),
    })
}

fn advice(resource: &Resource, errno: Errno) -> Option<String> {
    let number = Name::from_raw(errno.0);
    let own = match resource {
        Resource::Link(_) => of_link(number),
        Resource::Address(_) => of_address(number),
        Resource::Neighbour(_) => of_neighbour(number),
        Resource::Fdb(_) => of_fdb(number),
        Resource::Route(_) => of_route(number),
        Resource::Rule(_) => of_rule(number),
        _ => return None,
    };
    Some(own.map(str::to_owned).unwrap_or_else(|| match number {
        Name::EPERM => format!(
            "{}: {}",
            plain_errno(errno),
            denial(&[Capability::NetAdmin])
        ),
        Name::ENODEV => "the interface does not exist".to_owned(),
        Name::ENETDOWN => "the interface is down".to_owned(),
        // IPv6 answers so where it is switched off (ipv6_add_addr, fib6_nh_init).
        Name::EACCES => {
            "IPv6 is disabled on the interface (net.ipv6.conf.*.disable_ipv6)".to_owned()
        }
        Name::EAFNOSUPPORT | Name::EOPNOTSUPP => "this kernel does not support it".to_owned(),
        _ => String::new(),
    }))
}

fn of_link(errno: Name) -> Option<&'static str> {
    Some(match errno {
        Name::EINVAL | Name::ERANGE => {
            "the MTU is not between the smallest and the largest that `ip -d link` shows, or the \
             link cannot belong to this master"
        }
        Name::EBUSY => {
            "the link belongs to something else, or its driver refuses it while it is up"
        }
        Name::EOPNOTSUPP => "the master is neither a bridge nor a bond, or takes no such link",
        _ => return None,
    })
}

fn of_address(errno: Name) -> Option<&'static str> {
    Some(match errno {
        Name::EINVAL => {
            "the kernel takes no such address: the prefix length, the broadcast or the peer \
             address does not fit"
        }
        Name::EADDRNOTAVAIL => "no interface can have this address, such as a multicast address",
        _ => return None,
    })
}

fn of_neighbour(errno: Name) -> Option<&'static str> {
    Some(match errno {
        Name::EINVAL => {
            "the interface has no neighbours (noarp), or its hardware addresses have another length"
        }
        _ => return None,
    })
}

fn of_fdb(errno: Name) -> Option<&'static str> {
    Some(match errno {
        Name::EOPNOTSUPP | Name::EINVAL => {
            "the interface has no such entries: `master = true` needs a bridge port, `dst` a \
             VXLAN interface"
        }
        Name::EAFNOSUPPORT => "the VXLAN interface sends to addresses of the other family",
        _ => return None,
    })
}

fn of_route(errno: Name) -> Option<&'static str> {
    Some(match errno {
        Name::ENETUNREACH | Name::EHOSTUNREACH => {
            "the gateway is not reachable: it needs an interface that is up with a network that \
             the gateway is in, or dev and onlink = true"
        }
        Name::EADDRNOTAVAIL => "src is not an address of this host",
        Name::ENXIO => "there is no nexthop object with this number",
        Name::EINVAL => {
            "the kernel takes no such route: the gateway must be another host's address, an \
             address of the link and not of this host, and the type and scope must fit it \
             (`ip route add` may say more)"
        }
        Name::ENOENT => "there is no such nexthop or table",
        Name::ENOMEM | Name::ENOSPC => "the routing table is full (net.ipv6.route.max_size)",
        _ => return None,
    })
}

fn of_rule(errno: Name) -> Option<&'static str> {
    Some(match errno {
        Name::EINVAL => {
            "the kernel takes no such rule: it needs a table or another action, and goto leads \
             to a later rule"
        }
        Name::EAFNOSUPPORT | Name::EOPNOTSUPP => {
            "this kernel has no such rules (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES)"
        }
        _ => return None,
    })
}
