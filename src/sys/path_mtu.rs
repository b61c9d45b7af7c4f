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

/// Has all packets of a socket sent whole, with DF set, whatever the namespace's default is;
/// also those that are longer than the kernel takes the path for, where that is forced.
///
/// # Errors
/// The system's.
pub fn forbid_fragments(socket: &impl AsFd, is_ipv4: bool, is_forced: bool) -> io::Result<()> {
    match (is_ipv4, is_forced) {
        (true, false) => setsockopt(socket, MtuDiscover, &libc::IP_PMTUDISC_DO),
        (true, true) => setsockopt(socket, MtuDiscover, &libc::IP_PMTUDISC_PROBE),
        (false, false) => setsockopt(socket, Ipv6MtuDiscover, &libc::IPV6_PMTUDISC_DO),
        (false, true) => setsockopt(socket, Ipv6MtuDiscover, &libc::IPV6_PMTUDISC_PROBE),
    }?;
    Ok(())
}
