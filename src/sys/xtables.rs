//! The tables of the legacy backends of iptables and arptables, as the kernel has them.

use std::io;
use std::os::fd::AsRawFd;

use nix::libc::{self, c_int, socklen_t};
use socket2::{Domain, Protocol, Socket, Type};

use crate::model::Family;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES` of linux/netfilter_ipv4/ip_tables.h;
/// linux/netfilter_ipv6/ip6_tables.h has the same numbers.
const OF_IP: [c_int; 2] = [64, 65];
/// `ARPT_SO_GET_INFO` and `ARPT_SO_GET_ENTRIES` of linux/netfilter_arp/arp_tables.h.
const OF_ARP: [c_int; 2] = [96, 97];

/// The bytes of a table's name (`XT_TABLE_MAXNAMELEN`).
const NAME: usize = 32;
/// `struct ipt_get_entries` without its entries: the name, their bytes, padding.
const HEADER: usize = NAME + 8;

/// The entries of a table.
#[derive(Debug)]
pub struct Entries {
    /// Where those of each hook begin (`NF_INET_PRE_ROUTING` and so on), in bytes.
    pub hooks: [Option<usize>; 5],
    /// `struct ipt_entry` or `struct ip6t_entry`, one after another.
    pub bytes: Vec<u8>,
}

/// Reads a table, which the kernel makes where it has its module and no such table.
///
/// # Errors
/// The system's; EAGAIN where the table was replaced meanwhile.
pub fn entries(family: Family, table: &str) -> io::Result<Entries> {
    let (domain, level) = match family {
        Family::Ipv4 => (Domain::IPV4, libc::IPPROTO_IP),
        Family::Ipv6 => (Domain::IPV6, libc::IPPROTO_IPV6),
    };
    let (hooks, bytes) = read(domain, level, OF_IP, table)?;
    Ok(Entries {
        hooks: hooks.map(|it| it.map(|(first, _)| first)),
        bytes,
    })
}

/// Which chains of a table of arptables have a rule, or another policy than to accept: those of its
/// hooks in the order of `NF_ARP_IN`, `NF_ARP_OUT` and `NF_ARP_FORWARD`.
///
/// # Errors
/// See [`entries`].
pub fn arp_chains(table: &str) -> io::Result<[bool; 3]> {
    let read: (Chains<3>, _) = read(Domain::IPV4, libc::IPPROTO_IP, OF_ARP, table)?;
    let (chains, bytes) = read;
    let is_used = |(first, policy)| first != policy || !is_accept(&bytes, policy);
    Ok(chains.map(|it| it.is_some_and(is_used)))
}

/// Whether an entry of arptables has the target that accepts all: `struct arpt_standard` with the
/// verdict `-NF_ACCEPT - 1`.
fn is_accept(bytes: &[u8], entry: usize) -> bool {
    /// Where `struct arpt_entry` has the offset of its target, and that its verdict.
    const TARGET: usize = 164;
    const VERDICT: usize = 32;
    let at = |place: usize| bytes.get(place..);
    let target = at(entry + TARGET).and_then(|it| it.first_chunk());
    let verdict = target.and_then(|target| {
        let target = usize::from(u16::from_ne_bytes(*target));
        at(entry + target + VERDICT)?.first_chunk()
    });
    verdict.is_some_and(|it| i32::from_ne_bytes(*it) == -2)
}

/// Where the chain of each hook begins, and its policy, in bytes.
type Chains<const HOOKS: usize> = [Option<(usize, usize)>; HOOKS];

/// Reads a table: where the entries of each hook begin and where its last, the policy, is; and all
/// entries.
fn read<const HOOKS: usize>(
    domain: Domain,
    level: c_int,
    [get_info, get_entries]: [c_int; 2],
    table: &str,
) -> io::Result<(Chains<HOOKS>, Vec<u8>)> {
    let name = table.as_bytes();
    if name.len() >= NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    // `struct ipt_getinfo` or `struct arpt_getinfo`: the name, the valid hooks, the first entry of
    // each hook, its last, the number of entries, their bytes.
    let mut info = vec![0; NAME + 4 * (1 + 2 * HOOKS + 1 + 1)];
    info[..name.len()].copy_from_slice(name);
    get(&socket, level, get_info, &mut info)?;
    let number = |place: usize| {
        let bytes = info[NAME..].as_chunks().0[place];
        u32::from_ne_bytes(bytes)
    };
    let hooks = std::array::from_fn(|hook| {
        let is_valid = number(0) & (1 << hook) != 0;
        is_valid.then(|| (number(1 + hook) as usize, number(1 + HOOKS + hook) as usize))
    });
    let size = number(2 * HOOKS + 2);
    let mut bytes = vec![0; HEADER + size as usize];
    bytes[..name.len()].copy_from_slice(name);
    bytes[NAME..][..4].copy_from_slice(&size.to_ne_bytes());
    get(&socket, level, get_entries, &mut bytes)?;
    bytes.drain(..HEADER);
    Ok((hooks, bytes))
}

/// An option whose value is as long as `value`.
fn get(socket: &Socket, level: c_int, option: c_int, value: &mut [u8]) -> io::Result<()> {
    let invalid = |_| io::ErrorKind::InvalidInput;
    let mut length = socklen_t::try_from(value.len()).map_err(invalid)?;
    // SAFETY: the kernel writes no more than `length` bytes to `value`.
    let result = unsafe {
        let value = value.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), level, option, value, &mut length)
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
