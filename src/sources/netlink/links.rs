//! Which interface has which index: NETCONF names interfaces by number.

use std::collections::HashMap;

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use crate::engine::Event;

/// The interfaces as the messages so far have them.
#[derive(Debug, Default)]
pub struct Links(HashMap<u32, Link>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    name: String,
    up: bool,
}

impl Links {
    /// The name of the interface with this index.
    pub fn name(&self, index: u32) -> Option<&str> {
        self.0.get(&index).map(|link| link.name.as_str())
    }

    /// Takes in an `RTM_NEWLINK` and says what is new about it, if anything is:
    /// the interface itself, its name, or whether it is up.
    pub fn new_link(&mut self, message: &LinkMessage) -> Option<Event> {
        let name = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let name = name?;
        let up = message.header.flags.contains(LinkFlags::Up);
        let link = Link {
            name: name.clone(),
            up,
        };
        match self.0.insert(message.header.index, link.clone()) {
            None => Some(Event::LinkAdded { name }),
            Some(old) if old == link => None,
            Some(old) if old.name == name => Some(Event::LinkChanged { name }),
            Some(Link { name: old, .. }) => Some(Event::LinkRenamed { old, new: name }),
        }
    }

    /// Takes in an `RTM_DELLINK`.
    pub fn del_link(&mut self, message: &LinkMessage) -> Option<Event> {
        let link = self.0.remove(&message.header.index)?;
        Some(Event::LinkRemoved { name: link.name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if up {
            message.header.flags = LinkFlags::Up;
        }
        message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        message
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
        assert_eq!(links.new_link(&link(3, "veth0", false)), Some(added));
        assert_eq!(links.new_link(&link(3, "veth0", false)), None);
        assert_eq!(links.new_link(&link(3, "veth0", true)), Some(changed));
        assert_eq!(links.new_link(&link(3, "cali1", true)), Some(renamed));
        assert_eq!(links.name(3), Some("cali1"));
        assert_eq!(
            links.del_link(&link(3, "cali1", true)),
            Some(Event::LinkRemoved {
                name: name("cali1")
            })
        );
        assert_eq!(links.del_link(&link(3, "cali1", true)), None);
    }
}
