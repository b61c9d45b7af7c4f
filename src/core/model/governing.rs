//! Which invariant governs which key, found without trying every pattern.

use std::collections::{BTreeSet, HashMap};

use super::{InterfaceFolder, Invariant, Pattern, Segment, Selector, SysctlKey};

/// An index over the selectors of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Governing {
    exact: HashMap<SysctlKey, usize>,
    /// The patterns by their last part.
    named: HashMap<Box<str>, Starts>,
    /// Those whose last part is a glob.
    unnamed: Starts,
    /// The patterns about interfaces alone, by their folder.
    interfaces: HashMap<InterfaceFolder, Starts>,
    /// The invariants that leave their keys alone.
    left: Vec<bool>,
}

/// Patterns by the text that they begin with, up to the first wildcard.
#[derive(Debug, Clone, Default)]
struct Starts {
    patterns: HashMap<Box<str>, Vec<(usize, Pattern)>>,
    /// The lengths of these texts.
    lengths: BTreeSet<usize>,
}

impl Starts {
    fn insert(&mut self, index: usize, pattern: &Pattern) {
        let start = start(pattern);
        self.lengths.insert(start.len());
        let alike = self.patterns.entry(start.into()).or_default();
        alike.push((index, pattern.clone()));
    }

    /// The patterns that `path` may match, by its beginning: from groups of one
    /// beginning, each highest precedence first.
    fn of<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a [(usize, Pattern)]> {
        let starts = self.lengths.iter().filter_map(|length| path.get(..*length));
        starts.filter_map(|start| Some(self.patterns.get(start)?.as_slice()))
    }
}

/// The path below `/proc/sys` up to the first wildcard.
fn start(pattern: &Pattern) -> String {
    let mut start = String::new();
    for segment in pattern.segments() {
        match segment {
            Segment::Literal(text) => {
                start.push_str(text);
                start.push('/');
            }
            Segment::Glob(glob) => {
                let plain = glob.find(super::text::WILDCARDS).unwrap_or(glob.len());
                start.push_str(&glob[..plain]);
                break;
            }
        }
    }
    start
}

impl Governing {
    /// Indexes the invariants, which are listed from lowest precedence to
    /// highest.
    pub fn new(invariants: &[Invariant]) -> Self {
        let mut index = Governing::default();
        for (number, invariant) in invariants.iter().enumerate() {
            let is_left = invariant.is_off();
            index.left.push(is_left);
            match &invariant.selector {
                Selector::Key(key) => _ = index.exact.insert(key.clone(), number),
                Selector::Pattern(pattern) => index.insert(number, pattern),
                Selector::Resource(_) | Selector::Group(_) => {}
            }
        }
        index
    }

    fn insert(&mut self, number: usize, pattern: &Pattern) {
        let patterns = match pattern.segments().last() {
            Some(Segment::Literal(name)) => self.named.entry(name.as_str().into()).or_default(),
            Some(Segment::Glob(_)) | None => &mut self.unnamed,
        };
        patterns.insert(number, pattern);
        if let Some(folder) = pattern.interface_folder() {
            let patterns = self.interfaces.entry(folder).or_default();
            patterns.insert(number, pattern);
        }
    }

    /// The index of the invariant that governs `key`: the exact one, else the
    /// last pattern that means it; none where it is one that leaves the key
    /// alone.
    pub fn of(&self, key: &SysctlKey) -> Option<usize> {
        let index = match self.exact.get(key) {
            Some(index) => *index,
            None => {
                let own = self.pattern(key, Pattern::matches);
                let others = key.aliases().map(|it| self.pattern(&it, Pattern::matches));
                others.fold(own, Option::max)?
            }
        };
        (!self.left[index]).then_some(index)
    }

    /// The last pattern that `key` matches.
    fn pattern(
        &self,
        key: &SysctlKey,
        mut matches: impl FnMut(&Pattern, &SysctlKey) -> bool,
    ) -> Option<usize> {
        let named = self.named.get(key.name()).into_iter();
        let groups = named
            .chain([&self.unnamed])
            .flat_map(|it| it.of(key.path()));
        groups
            .filter_map(|group| group.iter().rfind(|(_, pattern)| matches(pattern, key)))
            .map(|(number, _)| *number)
            .max()
    }

    /// The keys that the patterns about interfaces alone have for the interface
    /// of this name in this folder.
    pub fn keys_for_interface(&self, name: &str, folder: InterfaceFolder) -> Vec<SysctlKey> {
        let path = format!("{}/{name}", folder.path());
        let starts = self.interfaces.get(&folder).into_iter();
        let patterns = starts.flat_map(|it| it.of(&path)).flatten();
        let keys = patterns.filter_map(|(_, pattern)| pattern.key_for_interface(name));
        keys.collect()
    }

    /// How many patterns are about the interfaces in this folder.
    pub fn patterns_in(&self, folder: InterfaceFolder) -> usize {
        let of = |starts: &Starts| starts.patterns.values().map(Vec::len).sum();
        self.interfaces.get(&folder).map_or(0, of)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Origin, Value};
    use crate::resource::Desired;

    fn invariants<S: AsRef<str>>(selectors: impl IntoIterator<Item = S>) -> Vec<Invariant> {
        let invariant = |(line, selector): (u32, S)| {
            let selector = Selector::parse(selector.as_ref()).expect("a selector");
            let file = Arc::new(PathBuf::from("netguard.toml"));
            let desired = Desired::equal(Value::new("1"));
            Invariant::new(selector, desired, Origin { file, line })
        };
        (1..).zip(selectors).map(invariant).collect()
    }

    fn key(text: &str) -> SysctlKey {
        SysctlKey::parse(text).expect("a key").canonical()
    }

    #[test]
    fn few_patterns_are_tried_for_a_key() {
        // As many interfaces and patterns as a large node has, of one name.
        let of_group = |group| format!("net.ipv4.conf.pod{group:03}x*.rp_filter");
        let of_name = |name| format!("net.ipv4.conf.*.setting{name}");
        let patterns = (0..200).map(of_group).chain((0..200).map(of_name));
        let index = Governing::new(&invariants(patterns));
        let mut tried = 0;
        for interface in 0..5000 {
            let group = interface % 200;
            let name = format!("pod{group:03}x{interface}");
            let key = SysctlKey::conf(crate::model::Family::Ipv4, &name, "rp_filter");
            let found = index.pattern(&key, |pattern, key| {
                tried += 1;
                pattern.matches(key)
            });
            assert_eq!(found, Some(group), "{key}");
            if interface % 500 == 0 {
                let keys = index.keys_for_interface(&name, InterfaceFolder::Ipv4Conf);
                assert_eq!(keys.len(), 201);
            }
        }
        assert_eq!(tried, 5000);
        assert_eq!(index.patterns_in(InterfaceFolder::Ipv4Conf), 400);
        assert_eq!(index.patterns_in(InterfaceFolder::Ipv6Conf), 0);
    }

    #[test]
    fn an_exact_key_beats_a_pattern_and_a_later_pattern_an_earlier() {
        let mut invariants = invariants([
            "net.ipv4.conf.eth0.rp_filter",
            "net.ipv4.conf.cali*.rp_filter",
            "net.ipv4.conf.*.rp_filter",
            "net.ipv4.conf.*.forwarding",
            "net.ipv4.conf.lo.rp_filter",
        ]);
        invariants[4].desired = Desired::Anything;
        let index = Governing::new(&invariants);
        for (text, expected) in [
            ("net.ipv4.conf.eth0.rp_filter", Some(0)),
            ("net.ipv4.conf.cali1.rp_filter", Some(2)),
            ("net.ipv4.conf.lo.rp_filter", None),
            // The pattern means the key by its other name.
            ("net.ipv4.ip_forward", Some(3)),
            ("kernel.panic", None),
        ] {
            assert_eq!(index.of(&key(text)), expected, "{text}");
        }
    }

    proptest! {
        /// The index answers as trying every selector does.
        #[test]
        fn the_answer_is_that_of_trying_all(
            parts in prop::collection::vec((
                prop::sample::select(vec!["net", "n*"]),
                prop::sample::select(vec!["ipv4", "ipv?", "ipv6"]),
                prop::sample::select(vec!["conf", "*"]),
                prop::sample::select(vec!["*", "all", "a*", "ab", "a[bé]*", "?b*", "é*", "éb"]),
                prop::sample::select(vec!["forwarding", "f*", "*", "x"]),
            ), 1..8),
        ) {
            let selectors: BTreeSet<String> = parts
                .iter()
                .map(|(a, b, c, d, e)| [*a, *b, *c, *d, *e].join("."))
                .collect();
            let invariants = invariants(&selectors);
            let index = Governing::new(&invariants);
            for interface in ["all", "a", "ab", "abc", "aé", "é", "éb", "b"] {
                for name in ["forwarding", "x", "f"] {
                    let key = key(&format!("net.ipv4.conf.{interface}.{name}"));
                    let exact = |it: &Invariant| it.selector == Selector::Key(key.clone());
                    let exact = invariants.iter().rposition(exact);
                    let tried = invariants.iter().rposition(|it| it.selector.means(&key));
                    prop_assert_eq!(index.of(&key), exact.or(tried), "{}", key);
                }
            }
        }
    }
}
