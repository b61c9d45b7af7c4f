//! The path MTU of a connected socket for IPv6, which nix has for IPv4 only.

use nix::{getsockopt_impl, libc, sockopt_impl};

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
