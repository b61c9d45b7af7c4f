//! What the kernel is known to have, from dumps and notifications in their order. No I/O.
//!
//! The kernel does not report everything: IPv4 routes vanish with their link, their
//! last address or their nexthop object without a word (`fib_table_flush`). What certainly
//! goes with a link that is down is known to be gone, so that thousands of links cost what
//! they carry; what may have gone is suspect until a dump has shown it. A notification that comes while a
//! dump is under way is newer than what the dump says of the same resource.

mod entries;
#[cfg(test)]
mod tests;

use std::fmt;

use super::codec::{self, DEL_LINK, DEL_NEXTHOP, Listing, Message, NEW_LINK, NEW_NEXTHOP};
use super::links::{Link, Links};
use crate::model::Family;
use crate::resource::{Resource, State};
use entries::{Basis, Entries, News};

/// Whether a resource that is in this state is to be kept.
pub type Filter = dyn Fn(&Resource, &State) -> bool;

/// What the kernel is known to have of the listings in use.
pub struct Mirror {
    links: Links,
    filter: Box<Filter>,
    /// Links that the dump under way listed before their masters.
    ports: Vec<Vec<u8>>,
    /// In the order of [`Listing::ALL`]; nothing where a listing is not in use.
    listings: [Option<Entries>; Listing::ALL.len()],
}

impl Mirror {
    /// Of these listings, and of the links that they need. Everything is suspect.
    pub fn new(used: &[Listing], filter: Box<Filter>) -> Mirror {
        let is_used = |listing: Listing| listing == Listing::Links || used.contains(&listing);
        let listings = Listing::ALL.map(|listing| is_used(listing).then(Entries::default));
        Mirror {
            links: Links::default(),
            ports: Vec::new(),
            filter,
            listings,
        }
    }

    /// Of these listings from now on, by this filter. What is known of them stays known,
    /// and is suspect.
    pub fn watch(&mut self, used: &[Listing], filter: Box<Filter>) {
        self.filter = filter;
        for (listing, entries) in Listing::ALL.into_iter().zip(&mut self.listings) {
            match entries {
                _ if listing != Listing::Links && !used.contains(&listing) => *entries = None,
                Some(entries) => entries.suspect(),
                None => *entries = Some(Entries::default()),
            }
        }
    }

    /// The interfaces.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Whether what is known of a listing is so.
    pub fn is_in_sync(&self, listing: Listing) -> bool {
        self.entries(listing).is_some_and(Entries::is_in_sync)
    }

    /// The state of a resource, as far as it is known and kept.
    pub fn state(&self, resource: &Resource) -> Option<State> {
        self.entries(Listing::of(resource)?)?.state(resource)
    }

    /// How many entries the kernel has of a resource: of a rule there may be copies.
    pub fn copies(&self, resource: &Resource) -> usize {
        let entries = Listing::of(resource).and_then(|listing| self.entries(listing));
        entries.map_or(0, |entries| entries.copies(resource))
    }

    /// What is kept of a listing, in order.
    pub fn list(&self, listing: Listing) -> impl Iterator<Item = &Resource> {
        self.entries(listing).into_iter().flat_map(Entries::list)
    }

    /// The next listing that a dump must be made of. None while one is under way that
    /// the others need.
    pub fn next_dump(&self) -> Option<Listing> {
        let mut listings = Listing::ALL.into_iter().zip(&self.listings);
        let next = listings.find_map(|(listing, entries)| match (listing, entries.as_ref()?) {
            (_, entries) if entries.is_suspect() && !entries.is_dumping() => Some(Some(listing)),
            (Listing::Links, entries) if !entries.is_in_sync() => Some(None),
            _ => None,
        });
        next.flatten()
    }

    /// More of a listing is to be kept than was.
    pub fn suspect(&mut self, listing: Listing) {
        if let Some(entries) = self.entries_mut(listing) {
            entries.suspect();
        }
    }

    /// Messages were lost: anything may be otherwise.
    pub fn overrun(&mut self) {
        self.listings
            .iter_mut()
            .flatten()
            .for_each(Entries::suspect);
    }

    /// A notification. Adds what has changed by it, and returns what has changed in a way that
    /// only a dump shows.
    pub fn apply(
        &mut self,
        message: &Message<'_>,
        changed: &mut Vec<Resource>,
    ) -> Option<Resource> {
        if matches!(message.kind, NEW_NEXTHOP | DEL_NEXTHOP) {
            self.suspect_routes(&Basis::Nexthop);
            return None;
        }
        if matches!(message.kind, NEW_LINK | DEL_LINK) {
            self.apply_link(message, changed);
            if codec::lacks_master(message.payload, &self.links)
                && let Some(links) = self.entries_mut(Listing::Links)
            {
                links.suspect();
            }
        }
        let decoded = codec::decode_entry(message.kind, message.payload, &self.links);
        let (resource, state) = decoded?;
        let listing = Listing::of(&resource)?;
        let is_end = codec::is_end(message.kind);
        if let (Resource::Address(address), true) = (&resource, is_end) {
            let (dev, ip) = (address.dev.clone(), address.address);
            self.suspect_routes_of(ip.family(), &Basis::Source(ip.address));
            if ip.family() == Family::Ipv4 {
                self.suspect_routes_of(Family::Ipv4, &Basis::Link(dev));
            }
        }
        let news = match is_end {
            true => News::Ended,
            false => News::There(message.flags),
        };
        let kept = state
            .as_ref()
            .is_some_and(|state| (self.filter)(&resource, state));
        let entries = self.entries_mut(listing)?;
        let is_certain = entries.apply(resource.clone(), state, kept, news, changed);
        (!is_certain).then_some(resource)
    }

    /// What a link that changed takes with it.
    fn apply_link(&mut self, message: &Message<'_>, changed: &mut Vec<Resource>) {
        let Some((index, link)) = codec::decode_link(message.payload) else {
            return;
        };
        let now = (message.kind == NEW_LINK).then_some(link);
        let before = self.note_link(index, now.clone());
        let Some(Link { name, .. }) = before else {
            if now.is_none() {
                // A dump was read after it had gone. Its routes were reported before its
                // end, over an interface that was unknown by then.
                self.routes().for_each(Entries::suspect);
            }
            return;
        };
        match now {
            None => {
                self.suspect_routes(&Basis::Link(name.clone()));
                let of_link = [Listing::Addresses, Listing::Neighbours, Listing::Fdb];
                for listing in of_link {
                    if let Some(entries) = self.entries_mut(listing) {
                        entries.forget_link(&name, changed);
                    }
                }
            }
            // All that is identified by the name is something else now.
            Some(link) if link.name != name => {
                if let Some(links) = self.entries_mut(Listing::Links) {
                    links.forget(&Resource::Link(name), changed);
                }
                self.overrun();
            }
            // A dump may have shown that before, and a route have been reported since.
            Some(link) if !link.up => {
                self.routes().for_each(|it| it.link_down(&name, changed));
            }
            Some(_) => {}
        }
    }

    fn note_link(&mut self, index: u32, link: Option<Link>) -> Option<Link> {
        match link {
            Some(link) => self.links.insert(index, link),
            None => self.links.remove(index),
        }
    }

    fn routes(&mut self) -> impl Iterator<Item = &mut Entries> {
        let listings = Listing::ALL.into_iter().zip(&mut self.listings);
        let routes = listings.filter(|(listing, _)| matches!(listing, Listing::Routes(_)));
        routes.filter_map(|(_, entries)| entries.as_mut())
    }

    fn suspect_routes(&mut self, basis: &Basis) {
        self.routes().for_each(|it| it.suspect_dependents(basis));
    }

    fn suspect_routes_of(&mut self, family: Family, basis: &Basis) {
        if let Some(routes) = self.entries_mut(Listing::Routes(family)) {
            routes.suspect_dependents(basis);
        }
    }

    /// A dump of a listing begins: what was reported before is older.
    pub fn begin(&mut self, listing: Listing) {
        if listing == Listing::Links {
            self.links.begin();
            self.ports.clear();
        }
        if let Some(entries) = self.entries_mut(listing) {
            entries.begin();
        }
    }

    /// A message of the dump. Adds what it says otherwise than was known.
    pub fn part(&mut self, listing: Listing, message: &Message<'_>, changed: &mut Vec<Resource>) {
        if listing == Listing::Links
            && let Some((index, link)) = codec::decode_link(message.payload)
        {
            self.links.list(index, link);
            if codec::lacks_master(message.payload, &self.links) {
                return self.ports.push(message.payload.to_vec());
            }
        }
        self.listed(listing, message.kind, message.payload, changed);
    }

    fn listed(&mut self, listing: Listing, kind: u16, payload: &[u8], changed: &mut Vec<Resource>) {
        let decoded = codec::decode(kind, payload, &self.links);
        let Some((resource, Some(state))) = decoded else {
            return;
        };
        if (self.filter)(&resource, &state)
            && let Some(entries) = self.entries_mut(listing)
        {
            entries.part(resource, state, changed);
        }
    }

    /// The dump is over. One that was interrupted is to be repeated.
    pub fn end(&mut self, listing: Listing, is_whole: bool, changed: &mut Vec<Resource>) {
        if listing == Listing::Links {
            for port in std::mem::take(&mut self.ports) {
                self.listed(listing, NEW_LINK, &port, changed);
            }
        }
        if listing == Listing::Links && is_whole {
            self.links.end();
        }
        if let Some(entries) = self.entries_mut(listing) {
            entries.end(is_whole);
        }
    }

    /// Forgets what a dump that is over did not list, of as many resources. Adds those.
    /// Whether it was all: the listing is in sync then, unless it is suspect again.
    pub fn settle(
        &mut self,
        listing: Listing,
        at_most: usize,
        changed: &mut Vec<Resource>,
    ) -> bool {
        let entries = self.entries_mut(listing);
        entries.is_none_or(|entries| entries.settle(at_most, changed))
    }

    /// Gives back what was kept for what is gone.
    pub fn tidy(&mut self) {
        self.links.tidy();
    }

    fn entries(&self, listing: Listing) -> Option<&Entries> {
        self.listings[place(listing)].as_ref()
    }

    fn entries_mut(&mut self, listing: Listing) -> Option<&mut Entries> {
        self.listings[place(listing)].as_mut()
    }
}

fn place(listing: Listing) -> usize {
    let found = Listing::ALL.iter().position(|own| *own == listing);
    found.unwrap_or_default()
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("listings", &self.listings)
            .finish_non_exhaustive()
    }
}
