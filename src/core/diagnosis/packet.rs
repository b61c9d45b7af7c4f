//! What is sent.

use std::net::IpAddr;

use crate::conntrack::Connection;
use crate::model::Family;
use crate::resource::Prefix;

/// What was read, or why it is unknown.
pub type Seen<T> = Result<T, String>;

words! {
    /// A protocol that can be asked about.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Protocol {
        /// Echo request and echo reply.
        Icmp = "icmp",
        /// A connection's first segment, and the answer to it.
        Tcp = "tcp",
        /// A datagram.
        Udp = "udp",
    }
}

impl Protocol {
    /// Its number in a family's packets.
    pub fn number(self, family: Family) -> u8 {
        match (self, family) {
            (Protocol::Icmp, Family::Ipv4) => 1,
            (Protocol::Icmp, Family::Ipv6) => 58,
            (Protocol::Tcp, _) => 6,
            (Protocol::Udp, _) => 17,
        }
    }
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The source.
    pub from: IpAddr,
    /// The destination.
    pub to: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination's port; of an answer it is the source's.
    pub port: Option<u16>,
    /// Whether it is an answer.
    pub is_answer: bool,
}

impl Packet {
    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Prefix::whole(self.to).family()
    }

    /// It with another destination, and port.
    pub fn redirected(&self, to: Option<(IpAddr, Option<u16>)>) -> Packet {
        let (to, port) = to.unwrap_or((self.to, None));
        Packet {
            to,
            port: self.port.map(|own| port.unwrap_or(own)),
            ..self.clone()
        }
    }

    /// The answer to it.
    pub fn reversed(&self) -> Packet {
        Packet {
            from: self.to,
            to: self.from,
            is_answer: !self.is_answer,
            ..self.clone()
        }
    }

    /// The ports of its source and its destination, as far as they are known.
    pub fn ports(&self) -> [Option<u16>; 2] {
        match self.is_answer {
            true => [self.port, None],
            false => [None, self.port],
        }
    }

    /// Whether a connection was opened by such packets.
    pub fn opens(&self, connection: &Connection) -> bool {
        let own = &connection.original;
        let port = own.ports.map(|(_, to)| to);
        (own.source, own.destination) == (self.from, self.to)
            && own.protocol == self.protocol.number(self.family())
            && self.port.is_none_or(|own| port == Some(own))
    }
}
