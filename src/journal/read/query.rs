//! What is asked of the journal, and the same question put to an entry.

use super::Entry;
use crate::journal::entry::IDENTIFIER;
use crate::journal::fields::{self, Kind};
use crate::model::{KeyError, Selector, UNIT_TYPES};
use crate::resource::{Group, Partial, ResourceKind};

/// Which records are requested. The default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// None older, in journalctl's words (systemd.time(7)).
    pub since: Option<String>,
    /// None newer, in journalctl's words.
    pub until: Option<String>,
    /// Of these keys; of all where none is named.
    pub key: Option<Named>,
    /// Of resources of this kind; of all where none is named.
    pub kind: Option<ResourceKind>,
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

/// Keys as people name them: a key or a pattern, with dots or slashes, a path of a
/// file in /proc/sys, or the end of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// In their words.
    pub text: String,
    /// What may be meant, each of these.
    selectors: Vec<Selector>,
    /// What else may be meant, of another kind than sysctl.
    partial: Option<Partial>,
}

impl Named {
    /// What `text` names.
    ///
    /// # Errors
    /// Where that is no key.
    pub fn parse(text: &str) -> Result<Named, KeyError> {
        let text = text.strip_prefix("/proc/sys/").unwrap_or(text);
        if let Some(group) = Group::parse(text) {
            return Ok(Named::from(&Selector::Group(group.into())));
        }
        if let Some(partial) = Partial::parse(text) {
            return Ok(Named {
                text: text.to_owned(),
                selectors: Vec::new(),
                partial: Some(partial),
            });
        }
        let mut selectors = match Selector::parse(text) {
            Ok(selector) => vec![selector],
            Err(KeyError::NoDirectory) => Vec::new(),
            Err(error) => return Err(error),
        };
        if !matches!(selectors[..], [Selector::Pattern(_)]) {
            selectors.extend(Named::ending(text));
        }
        let text = text.to_owned();
        Ok(Named {
            text,
            selectors,
            partial: None,
        })
    }

    /// The keys that end like this.
    pub fn ending(text: &str) -> impl Iterator<Item = Selector> {
        /// No key has more parts before its end.
        const DEEPEST: usize = 4;
        let patterns = (1..=DEEPEST).map(move |depth| format!("{}{text}", "*.".repeat(depth)));
        patterns.map_while(|it| Selector::parse(&it).ok())
    }

    /// Whether some key is meant by both.
    pub fn meets(&self, own: &Selector) -> bool {
        let overlap = |asked: &Selector| match (asked, own) {
            (asked, Selector::Key(key)) => {
                asked.matches(key) || key.aliases().any(|key| asked.matches(&key))
            }
            (asked, own) => asked.meets(own),
        };
        let partial = |asked: &Partial| match own {
            Selector::Resource(own) => asked.matches(own),
            Selector::Group(own) => asked.group().meets(own),
            _ => false,
        };
        self.selectors.iter().any(overlap) || self.partial.as_ref().is_some_and(partial)
    }

    /// Whether a record is about what is meant. Whether a route is one of a group shows
    /// in the invariant, or in what it was or must be.
    fn is_of(&self, entry: &Entry) -> bool {
        let Some(own) = entry.selector() else {
            return false;
        };
        let group = self.selectors.iter().find_map(Selector::group);
        match (group, &own) {
            (Some(group), Selector::Resource(resource)) => {
                let governs = |it: &str| it == group.to_string();
                entry.field(fields::NETGUARD_SELECTOR).is_some_and(governs)
                    || group.is_about(resource, &entry.states())
            }
            _ => self.meets(&own),
        }
    }
}

impl From<&Selector> for Named {
    fn from(selector: &Selector) -> Named {
        Named {
            text: selector.to_string(),
            selectors: vec![selector.clone()],
            partial: None,
        }
    }
}

/// The user whose entries count.
const ROOT: &str = "0";

impl Query {
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
    /// so what can be asked this way costs nothing; [`Query::selects`] asks the
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
        let event = |kind: &Kind| format!("{}={}", fields::NETGUARD_EVENT, kind.as_str());
        matches.extend(self.events.iter().map(event));
        matches
    }

    /// Whether `entry` is a record of the guard that is asked for.
    pub(super) fn selects(&self, entry: &Entry) -> bool {
        // What the guard itself printed (`run --log json`) has no user.
        let of_guard = entry.field(fields::SYSLOG_IDENTIFIER) == Some(IDENTIFIER)
            && entry.field("_UID").is_none_or(|uid| uid == ROOT)
            && entry.event().is_some();
        let is_asked = |kind| self.events.contains(&kind);
        of_guard
            && (self.events.is_empty() || entry.kind().is_some_and(is_asked))
            && self.key.as_ref().is_none_or(|asked| asked.is_of(entry))
            && self
                .kind
                .is_none_or(|kind| entry.resource_kind() == Some(kind))
            && self.unit.as_ref().is_none_or(|unit| {
                let units = entry.all(fields::OBJECT_SYSTEMD_UNIT);
                units.contains(unit) || entry.units().contains(unit)
            })
            && self
                .episode
                .is_none_or(|episode| entry.episode() == Some(episode))
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
            key: Some(Named::parse(text).expect("a key")),
            ..Query::default()
        }
    }

    #[test]
    fn only_root_speaks_for_the_guard() {
        let all = Query::default();
        assert!(all.selects(&entry(r#""NETGUARD_KEY":"vm.swappiness""#)));
        for (uid, name, event, expected) in [
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
            assert_eq!(all.selects(&entry), expected, "{text}");
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
            ("ip_forward", false, true),
            ("/proc/sys/net/ipv4/ip_forward", false, true),
            ("net/ipv4/ip_forward", false, true),
            ("all.forwarding", false, true),
            ("rp_filter", true, false),
            ("eth0/100.rp_filter", true, false),
        ] {
            let query = of_key(text);
            assert_eq!(query.selects(&vlan), of_vlan, "{text}");
            assert_eq!(query.selects(&forward), of_forward, "{text}");
        }
        assert!(!of_key("net.*").selects(&entry(r#""NETGUARD_SOURCE":"fanotify""#)));
    }

    #[test]
    fn records_of_earlier_versions_are_about_sysctls() {
        let of_kind = |kind| Query {
            kind: Some(kind),
            ..Query::default()
        };
        let route = r#""NETGUARD_KIND":"route","NETGUARD_KEY":"route/main/10.0.0.0/8""#;
        let old = r#""NETGUARD_KEY":"net.ipv4.ip_forward""#;
        for (fields, kind, expected) in [
            (route, ResourceKind::Route, true),
            (route, ResourceKind::Sysctl, false),
            (old, ResourceKind::Sysctl, true),
            (old, ResourceKind::Route, false),
            (
                r#""NETGUARD_SOURCE":"fanotify""#,
                ResourceKind::Sysctl,
                false,
            ),
        ] {
            let selects = of_kind(kind).selects(&entry(fields));
            assert_eq!(selects, expected, "{fields} {kind:?}");
        }
    }

    #[test]
    fn a_record_of_several_keys_is_about_each() {
        let several = entry(r#""NETGUARD_KEY":"net.ipv4.conf.cali*.rp_filter""#);
        for (text, expected) in [
            ("net.ipv4.conf.cali7.rp_filter", true),
            ("net.ipv4.conf.cali*.rp_filter", true),
            ("net.ipv4.conf.*.rp_filter", true),
            ("rp_filter", true),
            ("cali7.rp_filter", true),
            ("forwarding", false),
            ("net.ipv4.conf.eth0.rp_filter", false),
        ] {
            assert_eq!(of_key(text).selects(&several), expected, "{text}");
        }
    }

    #[test]
    fn other_resources_are_asked_for_by_a_part_of_their_name_or_their_group() {
        let route = r#""NETGUARD_KIND":"route","NETGUARD_KEY":"route/main/10.0.0.0/8/metric=100","#;
        let governed = format!(r#"{route}"NETGUARD_SELECTOR":"route/dev=eth*""#);
        let named = format!(r#"{route}"OLDVALUE":"via 10.39.0.1 dev eth1","NEWVALUE":"absent""#);
        let several = r#""NETGUARD_KIND":"link","NETGUARD_KEY":"link/dev=cali*""#;
        for (text, of_governed, of_named, of_several) in [
            ("route/main/10.0.0.0/8", true, true, false),
            ("route/main/10.0.0.0/8/metric=100", true, true, false),
            ("route/main/10.0.0.0/8/metric=1", false, false, false),
            ("route/main", true, true, false),
            ("route", true, true, false),
            ("route/*", true, true, false),
            ("route/dev=eth*", true, true, false),
            ("route/dev=eth1", false, true, false),
            ("route/dev=cali*", false, false, false),
            ("route/dev=eth*/table=200", false, false, false),
            ("link/cali7", false, false, true),
            ("link/cali*", false, false, true),
            ("link/eth0", false, false, false),
            ("link", false, false, true),
        ] {
            for (fields, expected) in [
                (governed.as_str(), of_governed),
                (&named, of_named),
                (several, of_several),
            ] {
                let selects = of_key(text).selects(&entry(fields));
                assert_eq!(selects, expected, "{text}: {fields}");
            }
        }
    }

    #[test]
    fn a_unit_is_one_of_several() {
        let units = r#"["network.service","session-3.scope"]"#;
        let entry = entry(&format!(r#""OBJECT_SYSTEMD_UNIT":{units}"#));
        for (text, expected) in [
            ("network", true),
            ("network.service", true),
            ("session-3.scope", true),
            ("net", false),
        ] {
            let query = Query {
                unit: Some(Query::unit_name(text)),
                ..Query::default()
            };
            assert_eq!(query.selects(&entry), expected, "{text}");
        }
    }
}
