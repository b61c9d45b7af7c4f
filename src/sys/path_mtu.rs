//! Options of sockets about the path MTU that nix does not have.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// The longest packet that the kernel takes the path for (ipv6(7)).
    ///
    /// The kernel writes an `int`, as is said here.
    Ipv6Mtu,
    GetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    libc::c_int
);

sockopt_impl!(
    /// Whether packets may be fragmented (ip(7)).
    ///
    /// The kernel reads an `int`, as is said here.
    MtuDiscover,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);

sockopt_impl!(
    /// Whether packets may be fragmented (ipv6(7)).
    ///
    /// The kernel reads an `int`, as is said here.
    Ipv6MtuDiscover,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int
);

/// Whether packets have DF set, whatever the namespace's default is (ip(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// They have, and none is longer than the kernel takes the path for.
    Do,
    /// They have, however long they are.
    Probe,
    /// They have where the kernel sets it for TCP: not where a router has reported a path MTU
    /// below the least that the kernel uses.
    Want,
}

/// Chooses that for the packets of a socket.
///
/// # Errors
/// The system's.
pub fn discover(socket: &impl AsFd, is_ipv4: bool, how: Discovery) -> io::Result<()> {
    let value = match (is_ipv4, how) {
        (true, Discovery::Do) => libc::IP_PMTUDISC_DO,
        (true, Discovery::Probe) => libc::IP_PMTUDISC_PROBE,
        (true, Discovery::Want) => libc::IP_PMTUDISC_WANT,
        (false, Discovery::Do) => libc::IPV6_PMTUDISC_DO,
        (false, Discovery::Probe) => libc::IPV6_PMTUDISC_PROBE,
        (false, Discovery::Want) => libc::IPV6_PMTUDISC_WANT,
    };
    match is_ipv4 {
        true => setsockopt(socket, MtuDiscover, &value),
        false => setsockopt(socket, Ipv6MtuDiscover, &value),
    }?;
    Ok(())
}
