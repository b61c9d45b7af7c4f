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

    /// Takes in an `RTM_NEWLINK` and says what is new about it: at most an old
    /// name gone, a new one there, or a change of up and down.
    pub fn new_link(&mut self, message: &LinkMessage) -> Vec<Event> {
        let name = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let Some(name) = name else { return Vec::new() };
        let up = message.header.flags.contains(LinkFlags::Up);
        let link = Link {
            name: name.clone(),
            up,
        };
        match self.0.insert(message.header.index, link.clone()) {
            Some(old) if old == link => Vec::new(),
            Some(old) if old.name == name => vec![Event::LinkChanged { name }],
            Some(old) => vec![
                Event::LinkRemoved { name: old.name },
                Event::LinkAdded { name },
            ],
            None => vec![Event::LinkAdded { name }],
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
        assert_eq!(
            links.new_link(&link(3, "veth0", false)),
            [Event::LinkAdded {
                name: name("veth0")
            }]
        );
        assert_eq!(links.new_link(&link(3, "veth0", false)), []);
        assert_eq!(
            links.new_link(&link(3, "veth0", true)),
            [Event::LinkChanged {
                name: name("veth0")
            }]
        );
        assert_eq!(
            links.new_link(&link(3, "cali1", true)),
            [
                Event::LinkRemoved {
                    name: name("veth0")
                },
                Event::LinkAdded {
                    name: name("cali1")
                }
            ]
        );
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
