//! Which interface has which index: NETCONF names interfaces by number.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::message::Link;
use crate::engine::Event;

/// Interfaces of which the guard itself has written a setting since the kernel
/// last sent a message about them: that message is outdated.
#[derive(Debug, Clone, Default)]
pub struct Restored(Rc<RefCell<HashSet<String>>>);

impl Restored {
    /// A setting of this interface was written.
    pub fn add(&self, interface: &str) {
        let mut names = self.0.borrow_mut();
        if !names.contains(interface) {
            names.insert(interface.to_owned());
        }
    }

    fn take(&self, interface: &str) -> bool {
        self.0.borrow_mut().remove(interface)
    }
}

/// The interfaces as the messages so far have them.
#[derive(Debug, Default)]
pub struct Links {
    by_index: HashMap<u32, Link>,
    restored: Restored,
}

impl Links {
    /// None yet.
    pub fn new(restored: Restored) -> Self {
        Links {
            by_index: HashMap::new(),
            restored,
        }
    }

    /// The name of the interface with this index.
    pub fn name(&self, index: u32) -> Option<&str> {
        self.by_index.get(&index).map(|link| link.name.as_str())
    }

    /// Takes in an `RTM_NEWLINK` and returns what has changed, if anything has:
    /// the interface itself, its name, whether it is up, or its settings.
    pub fn new_link(&mut self, link: Link) -> Option<Event> {
        let name = link.name.clone();
        let restored = self.restored.take(&name);
        match self.by_index.get_mut(&link.index) {
            None => {
                self.by_index.insert(link.index, link);
                Some(Event::LinkAdded { name })
            }
            Some(known) if *known == link && !restored => None,
            Some(known) => {
                let (mtu, up) = (link.mtu, link.up);
                let old = std::mem::replace(known, link);
                Some(if old.name != name {
                    let old = old.name;
                    Event::LinkRenamed { old, new: name }
                } else if old.mtu == mtu && old.up != up {
                    Event::LinkChanged { name }
                } else {
                    Event::LinkReset { name }
                })
            }
        }
    }

    /// Takes in an `RTM_DELLINK`.
    pub fn del_link(&mut self, index: u32) -> Option<Event> {
        let link = self.by_index.remove(&index)?;
        self.restored.take(&link.name);
        // Thousands come and go together.
        if self.by_index.len() < self.by_index.capacity() / 8 {
            self.by_index.shrink_to_fit();
        }
        Some(Event::LinkRemoved { name: link.name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool) -> Link {
        let name = name.to_owned();
        Link {
            index,
            name,
            up,
            mtu: 1500,
            settings: 0,
        }
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
        let reset = || {
            let name = "cali1".to_owned();
            Some(Event::LinkReset { name })
        };
        let mut other = link(3, "cali1", true);
        other.mtu = 1200;
        assert_eq!(links.new_link(other.clone()), reset());
        other.settings = 1;
        assert_eq!(links.new_link(other.clone()), reset());
        assert_eq!(links.new_link(other.clone()), None);
        // Restored by the guard, and changed again.
        links.restored.add("cali1");
        assert_eq!(links.new_link(other.clone()), reset());
        assert_eq!(links.new_link(other), None);
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
