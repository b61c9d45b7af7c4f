//! Connections that the kernel tracks: which are deleted once NAT is restored, and when their
//! table is full.
//!
//! The kernel decides about NAT at the first packet of a connection and never again. What was
//! sent while a rule of the table nat was missing leaves an entry without NAT, which each
//! further packet refreshes: a flow that never pauses (DNS over one socket, a SYN that is sent
//! again, a ping) stays broken after the rule is back.

use std::net::IpAddr;

use crate::model::Family;
use crate::resource::Prefix;

/// How packets are addressed in one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go to.
    pub destination: IpAddr,
    /// The number of the protocol, 6 for TCP.
    pub protocol: u8,
    /// The ports, where the protocol has them.
    pub ports: Option<(u16, u16)>,
}

impl Direction {
    /// The direction of the answers, where nothing is translated.
    pub fn reversed(self) -> Direction {
        Direction {
            source: self.destination,
            destination: self.source,
            ports: self
                .ports
                .map(|(source, destination)| (destination, source)),
            ..self
        }
    }
}

/// An entry of the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// How it was opened.
    pub original: Direction,
    /// How answers to that arrive.
    pub reply: Direction,
    /// Whether there was an answer (`IPS_SEEN_REPLY`).
    pub is_answered: bool,
    /// Whether NAT applies to it (`IPS_SRC_NAT`, `IPS_DST_NAT`).
    pub is_translated: bool,
    /// Whether it belongs to another connection (`IPS_EXPECTED`), whose helper decides about
    /// its NAT.
    pub is_expected: bool,
    /// Whether it is in another zone than 0, each of which may have rules of its own.
    pub is_in_zone: bool,
}

/// Which connections are deleted after NAT was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaning {
    /// Those that were opened from these networks.
    pub networks: Vec<Prefix>,
}

impl Cleaning {
    /// Whether it is about connections of this family.
    pub fn concerns(&self, family: Family) -> bool {
        self.networks.iter().any(|it| it.family() == family)
    }

    /// Whether a connection is deleted: it was opened from one of the networks to the outside
    /// of all of them, NAT applies to neither end of it, and nobody has answered.
    ///
    /// One that was answered works without NAT, and another source address in the middle of
    /// it would break it. Within the networks masquerading does not apply.
    pub fn deletes(&self, it: &Connection) -> bool {
        !it.is_translated
            && it.reply == it.original.reversed()
            && !it.is_answered
            && !it.is_expected
            && !it.is_in_zone
            && self.has(it.original.source)
            && !self.has(it.original.destination)
    }

    fn has(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|it| it.contains(address))
    }
}

/// What has come of a [`Cleaning`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// How many connections were deleted.
    pub deleted: u64,
    /// Why there may be more, for people.
    pub fault: Option<String>,
}

impl Cleaned {
    /// Adds what has come of another.
    pub fn add(&mut self, other: &Cleaned) {
        self.deleted += other.deleted;
        if self.fault.is_none() {
            self.fault.clone_from(&other.fault);
        }
    }
}

/// How full the kernel's table is (`nf_conntrack_count`, `nf_conntrack_max`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// How many entries there are.
    pub count: u64,
    /// How many there may be. The kernel drops the first packet of each further connection.
    /// 0 is without a limit.
    pub max: u64,
}

impl Usage {
    /// How full it is, in percent, rounded down.
    pub fn percent(self) -> u64 {
        match self.max {
            0 => 0,
            max => self.count.saturating_mul(100) / max,
        }
    }

    /// Whether more than `limit` percent are in use.
    pub fn exceeds(self, limit: u8) -> bool {
        self.is_above(u64::from(limit) * 10)
    }

    /// Whether the use has dropped so far below `limit` percent that this is over: to nine
    /// tenths of it.
    pub fn is_well_below(self, limit: u8) -> bool {
        !self.is_above(u64::from(limit) * 9)
    }

    fn is_above(self, per_mille: u64) -> bool {
        self.max > 0 && self.count.saturating_mul(1000) > self.max.saturating_mul(per_mille)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "192.168.4.25";
    const OUTSIDE: &str = "203.0.113.9";

    fn connection(source: &str, destination: &str) -> Connection {
        let original = Direction {
            source: source.parse().expect(source),
            destination: destination.parse().expect(destination),
            protocol: 17,
            ports: Some((40_000, 53)),
        };
        Connection {
            original,
            reply: original.reversed(),
            is_answered: false,
            is_translated: false,
            is_expected: false,
            is_in_zone: false,
        }
    }

    fn cleaning() -> Cleaning {
        let networks = ["192.168.0.0/16", "fd00:10::/64"].map(|it| Prefix::parse(it).expect(it));
        Cleaning {
            networks: networks.into(),
        }
    }

    #[test]
    fn what_lacks_nat_is_deleted_and_nothing_else() {
        let stale = connection(POD, OUTSIDE);
        let of_v6 = connection("fd00:10::2", "2001:db8::1");
        for it in [stale, of_v6] {
            assert!(cleaning().deletes(&it), "{it:?}");
        }
        let node = "10.39.0.110".parse().expect("an address");
        let masqueraded = Direction {
            destination: node,
            ..stale.reply
        };
        let other_port = Direction {
            ports: Some((53, 61_000)),
            ..stale.reply
        };
        for kept in [
            connection("10.39.0.110", OUTSIDE),
            connection(OUTSIDE, POD),
            connection(POD, "192.168.7.1"),
            connection("fd00:11::2", "2001:db8::1"),
            Connection {
                is_translated: true,
                ..stale
            },
            Connection {
                reply: masqueraded,
                ..stale
            },
            Connection {
                reply: other_port,
                ..stale
            },
            Connection {
                is_answered: true,
                ..stale
            },
            Connection {
                is_expected: true,
                ..stale
            },
            Connection {
                is_in_zone: true,
                ..stale
            },
        ] {
            assert!(!cleaning().deletes(&kept), "{kept:?}");
        }
    }

    #[test]
    fn full_and_over_are_apart() {
        let usage = |count| Usage { count, max: 1000 };
        assert!(!usage(900).exceeds(90));
        assert!(usage(901).exceeds(90));
        assert!(!usage(811).is_well_below(90));
        assert!(usage(810).is_well_below(90));
        assert_eq!(usage(919).percent(), 91);
        let unlimited = Usage {
            count: u64::MAX,
            max: 0,
        };
        assert!(!unlimited.exceeds(1) && unlimited.is_well_below(1));
        assert_eq!(unlimited.percent(), 0);
    }
}
