//! A network namespace, read as a whole and once: for who does not watch it.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsRawFd;

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;

use super::codec::traffic_control::{ask_filters, ask_qdiscs, decode_qdisc, is_filter};
use super::codec::{self, Listing, Message};
use super::links::{Link, Links};
use crate::diagnosis::observed::{self, Answer, Network, Packet};
use crate::engine::Errno;
use crate::netlink::{INTERRUPTED, Request, Requests};
use crate::resource::{Name, Resource};
use crate::sys::bpf;

/// How often a dump is made again during which something changed.
const TRIES: usize = 5;

/// A socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Inspector {
    requests: Requests,
    links: Links,
}

impl Inspector {
    /// Opens it.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> std::io::Result<Inspector> {
        Ok(Inspector {
            requests: Requests::open(NETLINK_ROUTE)?,
            links: Links::default(),
        })
    }

    /// The interfaces. What else is read needs them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&mut self) -> Result<Vec<observed::Link>, Errno> {
        let links = self.dump(&Listing::Links.dump(), |it| {
            Vec::from_iter(codec::inspect_link(it.payload))
        });
        let mut links: Vec<observed::Link> = links?;
        self.find_programs(&mut links);
        self.links = Links::default();
        for it in &links {
            let (name, up) = (it.name.clone(), it.is_up);
            self.links.insert(it.index, Link { name, up });
        }
        Ok(links)
    }

    /// Finds filters, and programs of BPF. A kernel that does not list them has none.
    fn find_programs(&mut self, links: &mut [observed::Link]) {
        let places = self.dump(&ask_qdiscs(), |it| decode_qdisc(it.kind, it.payload));
        for place in places.unwrap_or_default() {
            let filters = self.dump(&ask_filters(&place), |it| {
                Vec::from_iter(is_filter(it.kind).then_some(()))
            });
            let own = links.iter_mut().find(|it| it.index == place.index);
            if let (Some(link), false) = (own, filters.unwrap_or_default().is_empty()) {
                link.programs.push(place.name);
            }
        }
        for link in links {
            link.programs.extend(bpf::places(link.index));
        }
    }

    /// All of these kinds.
    ///
    /// # Errors
    /// The kernel's.
    pub fn network(&mut self, listings: &[Listing]) -> Result<Network, Errno> {
        let mut network = Network {
            links: self.links()?,
            ..Network::default()
        };
        let known = self.links.clone();
        for listing in listings {
            let is_address = *listing == Listing::Addresses;
            let decode = |it: &Message<'_>| {
                let entry = codec::decode(it.kind, it.payload, &known)?;
                Some((entry, is_address && codec::is_duplicate(it.payload)))
            };
            let dump = listing.dump();
            for (entry, is_duplicate) in self.dump(&dump, |it| Vec::from_iter(decode(it)))? {
                if let (Resource::Address(it), true) = (&entry.0, is_duplicate) {
                    let duplicate = (it.dev.clone(), it.address.address);
                    network.duplicates.push(duplicate);
                }
                network.entries.push(entry);
            }
        }
        Ok(network)
    }

    /// Where the kernel would send a packet with this mark that comes in through an
    /// interface, or one of its own.
    pub fn way(&mut self, packet: &Packet, iif: Option<&Name>, mark: u32) -> Answer {
        let index = match iif.map(|name| self.links.index(name)) {
            Some(None) => return Answer::Unknown("the interface is gone".to_owned()),
            index => index.flatten(),
        };
        self.answer(&codec::ask_way(packet, index, mark))
    }

    /// As [`Inspector::way`], for one of its own of which it chooses the source.
    pub fn chosen_way(&mut self, packet: &Packet, mark: u32) -> Answer {
        self.answer(&codec::ask_chosen_way(packet, mark))
    }

    fn answer(&mut self, question: &Request) -> Answer {
        let (links, mut way) = (&self.links, None);
        let asked = self.requests.ask(question, |it| {
            way = codec::decode_way(it.kind, it.payload, links);
        });
        match (asked, way) {
            (Err(errno), _) => Answer::Refused(errno),
            (Ok(()), Some(way)) => Answer::Way(way),
            (Ok(()), None) => Answer::Unknown("the kernel answered something else".to_owned()),
        }
    }

    /// The number that this namespace has given to another, if it has.
    pub fn space(&mut self, file: &File) -> Option<i32> {
        let mut number = None;
        let asked = self
            .requests
            .ask(&codec::ask_space(file.as_raw_fd()), |it| {
                number = codec::decode_space(it.payload);
            });
        asked.ok().and(number)
    }

    fn dump<T>(
        &mut self,
        dump: &Request,
        decode: impl Fn(&Message<'_>) -> Vec<T>,
    ) -> Result<Vec<T>, Errno> {
        let mut found = Vec::new();
        for _ in 0..TRIES {
            found.clear();
            let (mut is_whole, mut routes) = (true, HashSet::new());
            let asked = self.requests.ask(dump, |it| {
                is_whole &= it.flags & INTERRUPTED == 0;
                // Where one changes meanwhile, the kernel lists all of IPv6 from the first on again.
                if !codec::is_ipv6_route(it) || routes.insert(it.payload.to_vec()) {
                    found.extend(decode(it));
                }
            });
            match asked {
                // A kernel without IPv6 lists none of it.
                Err(Errno(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => return Ok(found),
                Err(errno) => return Err(errno),
                Ok(()) if is_whole => break,
                Ok(()) => {}
            }
        }
        Ok(found)
    }
}
