//! Which interface has which index: NETCONF names interfaces by number.

use std::collections::HashMap;

use super::message::Link;
use crate::engine::Event;

/// The interfaces as the messages so far have them.
#[derive(Debug, Default)]
pub struct Links(HashMap<u32, Link>);

impl Links {
    /// The name of the interface with this index.
    pub fn name(&self, index: u32) -> Option<&str> {
        self.0.get(&index).map(|link| link.name.as_str())
    }

    /// Takes in an `RTM_NEWLINK` and says what is new about it, if anything is:
    /// the interface itself, its name, or whether it is up.
    pub fn new_link(&mut self, link: Link) -> Option<Event> {
        let name = link.name.clone();
        match self.0.get_mut(&link.index) {
            None => {
                self.0.insert(link.index, link);
                Some(Event::LinkAdded { name })
            }
            Some(known) if *known == link => None,
            Some(known) => {
                let old = std::mem::replace(known, link).name;
                Some(if old == name {
                    Event::LinkChanged { name }
                } else {
                    Event::LinkRenamed { old, new: name }
                })
            }
        }
    }

    /// Takes in an `RTM_DELLINK`.
    pub fn del_link(&mut self, index: u32) -> Option<Event> {
        let link = self.0.remove(&index)?;
        // Thousands come and go together.
        if self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to_fit();
        }
        Some(Event::LinkRemoved { name: link.name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool) -> Link {
        let name = name.to_owned();
        Link { index, name, up }
    }

    #[test]
    fn a_link_comes_changes_is_renamed_and_goes() {
        let mut links = Links::default();
        let name = |name: &str| name.to_owned();
        let added = Event::LinkAdded {
            name: name("veth0"),
        };
        let changed = Event::LinkChanged {
            name: name("veth0"),
        };
        let renamed = Event::LinkRenamed {
            old: name("veth0"),
            new: name("cali1"),
        };
        assert_eq!(links.new_link(link(3, "veth0", false)), Some(added));
        assert_eq!(links.new_link(link(3, "veth0", false)), None);
        assert_eq!(links.new_link(link(3, "veth0", true)), Some(changed));
        assert_eq!(links.new_link(link(3, "cali1", true)), Some(renamed));
        assert_eq!(links.name(3), Some("cali1"));
        assert_eq!(
            links.del_link(3),
            Some(Event::LinkRemoved {
                name: name("cali1")
            })
        );
        assert_eq!(links.del_link(3), None);
    }
}
