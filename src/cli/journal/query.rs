//! What is asked of the journal, and the same question put to an entry.

use super::Entry;
use crate::cli::args::About;
use crate::effects::entry::IDENTIFIER;
use crate::effects::fields::{self, Kind};
use crate::model::{Selector, UNIT_TYPES};

/// Which records are wanted. The default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// None older, in journalctl's words (systemd.time(7)).
    pub since: Option<String>,
    /// None newer, in journalctl's words.
    pub until: Option<String>,
    /// Of this key, or of all keys that match.
    pub key: Option<Selector>,
    /// While a job of this unit ran, or written by a process of it.
    pub unit: Option<String>,
    /// Of the network restart with this number, the latest where several boots
    /// had one.
    pub episode: Option<u64>,
    /// Of one of these kinds; of any where none is named.
    pub events: Vec<Kind>,
    /// This many, the newest.
    pub last: Option<usize>,
    /// And those to come. journalctl counts `last` then, before keys are looked
    /// at.
    pub follow: bool,
}

/// The user whose entries count.
const ROOT: &str = "0";

impl Query {
    /// That for all records about this.
    pub(crate) fn about(About { key, unit }: About) -> Query {
        Query {
            key,
            unit,
            ..Query::default()
        }
    }

    /// The name of a unit as systemctl takes it: `network` is `network.service`.
    pub fn unit_name(text: &str) -> String {
        let named = text
            .rsplit_once('.')
            .is_some_and(|(_, kind)| UNIT_TYPES.contains(&kind));
        if named {
            text.to_owned()
        } else {
            format!("{text}.service")
        }
    }

    /// Whether it is answered from the end of the journal on.
    pub(super) fn is_newest_first(&self) -> bool {
        !self.follow && (self.last.is_some() || self.episode.is_some())
    }

    /// The question as journalctl(1)'s matches. It has an index of each field,
    /// so what can be asked this way costs nothing; [`Query::wants`] asks the
    /// rest: a record of several keys is about one that it does not name.
    pub(super) fn matches(&self) -> Vec<String> {
        let mut matches = vec![
            format!("{}={IDENTIFIER}", fields::SYSLOG_IDENTIFIER),
            format!("_UID={ROOT}"),
        ];
        if let Some(unit) = &self.unit {
            matches.push(format!("{}={unit}", fields::OBJECT_SYSTEMD_UNIT));
        }
        if let Some(episode) = self.episode {
            matches.push(format!("{}={episode}", fields::NETGUARD_EPISODE));
        }
        // journalctl takes several of one field as alternatives.
        let event = |kind: &Kind| format!("{}={}", fields::NETGUARD_EVENT, kind.event());
        matches.extend(self.events.iter().map(event));
        matches
    }

    /// Whether `entry` is a record of the guard that is asked for.
    pub(super) fn wants(&self, entry: &Entry) -> bool {
        // What the guard itself printed (`run --log json`) has no user.
        let of_guard = entry.field(fields::SYSLOG_IDENTIFIER) == Some(IDENTIFIER)
            && entry.field("_UID").is_none_or(|uid| uid == ROOT)
            && entry.event().is_some();
        let is_asked = |kind| self.events.contains(&kind);
        of_guard
            && (self.events.is_empty() || entry.kind().is_some_and(is_asked))
            && self
                .key
                .as_ref()
                .is_none_or(|asked| entry.selector().is_some_and(|own| overlap(asked, &own)))
            && self.unit.as_ref().is_none_or(|unit| {
                let units = entry.all(fields::OBJECT_SYSTEMD_UNIT);
                units.contains(unit) || entry.units().contains(unit)
            })
            && self
                .episode
                .is_none_or(|episode| entry.episode() == Some(episode))
    }
}

/// Whether what is asked for and what a record is about have a key in common. Of
/// two patterns nobody can say without the keys: only the same is.
fn overlap(asked: &Selector, own: &Selector) -> bool {
    match (asked, own) {
        (asked, Selector::Key(key)) => {
            asked.matches(key) || key.aliases().any(|key| asked.matches(&key))
        }
        (Selector::Key(key), own) => own.matches(key),
        (asked, own) => asked == own,
    }
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    fn entry(fields: &str) -> Entry {
        let text = format!(
            r#"{{"SYSLOG_IDENTIFIER":"netguard","_UID":"0","NETGUARD_EVENT":"drift-restored",{fields}}}"#
        );
        json::entry(text.as_bytes()).expect("an entry")
    }

    fn of_key(text: &str) -> Query {
        Query {
            key: Some(Selector::parse(text).expect("a key")),
            ..Query::default()
        }
    }

    #[test]
    fn only_root_speaks_for_the_guard() {
        let all = Query::default();
        assert!(all.wants(&entry(r#""NETGUARD_KEY":"vm.swappiness""#)));
        for (uid, name, event, wanted) in [
            (r#""0""#, "netguard", "stopped", true),
            (r#""1000""#, "netguard", "stopped", false),
            (r#"["0","1000"]"#, "netguard", "stopped", true),
            (r#""0""#, "netguardx", "stopped", false),
            (r#""0""#, "netguard", "", false),
        ] {
            let text = format!(
                r#"{{"SYSLOG_IDENTIFIER":"{name}","_UID":{uid},"NETGUARD_EVENT":"{event}"}}"#
            );
            let entry = json::entry(text.as_bytes()).expect("an entry");
            assert_eq!(all.wants(&entry), wanted, "{text}");
        }
    }

    #[test]
    fn a_key_is_asked_for_as_people_spell_it() {
        let vlan = entry(r#""NETGUARD_KEY":"net.ipv4.conf.eth0/100.rp_filter""#);
        let forward = entry(r#""NETGUARD_KEY":"net.ipv4.ip_forward""#);
        for (text, of_vlan, of_forward) in [
            ("net/ipv4/conf/eth0.100/rp_filter", true, false),
            ("net.ipv4.conf.eth0/100.rp_filter", true, false),
            ("net.ipv4.conf.eth*.rp_filter", true, false),
            ("net/ipv4/conf/*/rp_filter", true, false),
            ("net.ipv4.ip_forward", false, true),
            ("net.ipv4.conf.all.forwarding", false, true),
            ("net.ipv4.conf.*.forwarding", false, true),
            ("net.ipv4.*", false, true),
        ] {
            let query = of_key(text);
            assert_eq!(query.wants(&vlan), of_vlan, "{text}");
            assert_eq!(query.wants(&forward), of_forward, "{text}");
        }
        assert!(!of_key("net.*").wants(&entry(r#""NETGUARD_SOURCE":"fanotify""#)));
    }

    #[test]
    fn a_record_of_several_keys_is_about_each() {
        let several = entry(r#""NETGUARD_KEY":"net.ipv4.conf.cali*.rp_filter""#);
        for (text, wanted) in [
            ("net.ipv4.conf.cali7.rp_filter", true),
            ("net.ipv4.conf.cali*.rp_filter", true),
            ("net.ipv4.conf.eth0.rp_filter", false),
        ] {
            assert_eq!(of_key(text).wants(&several), wanted, "{text}");
        }
    }

    #[test]
    fn a_unit_is_one_of_several() {
        let units = r#"["network.service","session-3.scope"]"#;
        let entry = entry(&format!(r#""OBJECT_SYSTEMD_UNIT":{units}"#));
        for (text, wanted) in [
            ("network", true),
            ("network.service", true),
            ("session-3.scope", true),
            ("net", false),
        ] {
            let query = Query {
                unit: Some(Query::unit_name(text)),
                ..Query::default()
            };
            assert_eq!(query.wants(&entry), wanted, "{text}");
        }
    }
}
