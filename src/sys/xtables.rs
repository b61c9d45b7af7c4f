//! The tables of the legacy backend of iptables, as the kernel has them.

use std::io;
use std::os::fd::AsRawFd;

use nix::libc::{self, c_int, socklen_t};
use socket2::{Domain, Protocol, Socket, Type};

use crate::model::Family;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES` of linux/netfilter_ipv4/ip_tables.h;
/// linux/netfilter_ipv6/ip6_tables.h has the same numbers.
const GET_INFO: c_int = 64;
const GET_ENTRIES: c_int = 65;

/// The bytes of a table's name (`XT_TABLE_MAXNAMELEN`).
const NAME: usize = 32;
/// `struct ipt_getinfo`: the name, the valid hooks, the first entry of each hook, its last,
/// the number of entries, their bytes.
const INFO: usize = NAME + 4 * (1 + 5 + 5 + 1 + 1);
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
    let name = table.as_bytes();
    if name.len() >= NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    let mut info = [0; INFO];
    info[..name.len()].copy_from_slice(name);
    get(&socket, level, GET_INFO, &mut info)?;
    let number = |place: usize| {
        let bytes = info[NAME..].as_chunks().0[place];
        u32::from_ne_bytes(bytes)
    };
    let hooks = std::array::from_fn(|hook| {
        let is_valid = number(0) & (1 << hook) != 0;
        is_valid.then(|| number(1 + hook) as usize)
    });
    let size = number(12);
    let mut bytes = vec![0; HEADER + size as usize];
    bytes[..name.len()].copy_from_slice(name);
    bytes[NAME..][..4].copy_from_slice(&size.to_ne_bytes());
    get(&socket, level, GET_ENTRIES, &mut bytes)?;
    bytes.drain(..HEADER);
    Ok(Entries { hooks, bytes })
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
