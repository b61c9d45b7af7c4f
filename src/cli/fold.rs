//! What is the same for many keys of one invariant, in a few lines.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::resource::Resource;
use crate::words::Count;

/// How many keys of one group are shown one by one.
const SINGLY: usize = 3;
/// How many different values of a group are shown.
const VALUES: usize = 3;

/// Keys of one invariant in the same state.
#[derive(Debug)]
pub struct Group<'a, K> {
    /// The index of the invariant.
    pub invariant: usize,
    /// Their state.
    pub kind: K,
    /// The keys, each with its value; never empty.
    pub items: Vec<(&'a Resource, String)>,
}

/// Groups the items of the same invariant, in the order of the first;
/// `all` keeps each key apart.
pub fn groups<'a, K: PartialEq>(
    items: impl Iterator<Item = (usize, K, &'a Resource, String)>,
    all: bool,
) -> Vec<Group<'a, K>> {
    let mut groups: Vec<Group<'a, K>> = Vec::new();
    let mut of_invariant: HashMap<usize, Vec<usize>> = HashMap::new();
    for (invariant, kind, key, value) in items {
        let own = of_invariant.entry(invariant).or_default();
        let known = own.iter().find(|index| groups[**index].kind == kind);
        match known {
            Some(index) if !all => groups[*index].items.push((key, value)),
            _ => {
                // One is enough to know where all are kept apart.
                if own.is_empty() || !all {
                    own.push(groups.len());
                }
                groups.push(Group {
                    invariant,
                    kind,
                    items: vec![(key, value)],
                });
            }
        }
    }
    groups
}

impl<K> Group<'_, K> {
    /// Whether they are too many to be shown one by one.
    pub fn is_folded(&self) -> bool {
        self.items.len() > SINGLY
    }

    /// `0 on 2990 keys, 2 on 10 keys`: the values, the most frequent first;
    /// nothing where they have none.
    pub fn values(&self) -> String {
        if self.items.iter().all(|(_, value)| value.is_empty()) {
            return String::new();
        }
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for (_, value) in &self.items {
            *counts.entry(value).or_default() += 1;
        }
        let mut counts: Vec<(&str, u64)> = counts.into_iter().collect();
        counts.sort_by_key(|(value, count)| (Reverse(*count), *value));
        let mut left = self.items.len() as u64;
        let mut shown: Vec<String> = Vec::new();
        for (value, count) in counts.iter().take(VALUES) {
            shown.push(format!("{value} on {}", Count(*count, "key")));
            left -= count;
        }
        if left > 0 {
            shown.push(format!("other values on {}", Count(left, "key")));
        }
        shown.join(", ")
    }

    /// Which keys they are and how to see each; how many, where no value shows it.
    pub fn range(&self) -> String {
        let keys = || self.items.iter().map(|(key, _)| *key);
        let count = match self.values().is_empty() {
            true => format!("{}, ", Count(self.items.len(), "key")),
            false => String::new(),
        };
        match (keys().min(), keys().max()) {
            (Some(first), Some(last)) => {
                format!("{count}{first} to {last}; --all shows each")
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SysctlKey;

    fn keys(count: usize) -> Vec<Resource> {
        let name = |i| format!("net.ipv4.conf.cali{i:04}.rp_filter");
        let key = |i| SysctlKey::parse(&name(i)).expect("a key").into();
        (0..count).map(key).collect()
    }

    #[test]
    fn many_keys_are_one_group_and_few_are_shown() {
        let keys = keys(3000);
        let item = |(i, key)| {
            (
                i % 2,
                "drift",
                key,
                ["0", "2"][usize::from(i > 2989)].to_owned(),
            )
        };
        let folded = groups(keys.iter().enumerate().map(item), false);
        assert_eq!(folded.len(), 2);
        assert!(folded[0].is_folded());
        assert_eq!(folded[0].values(), "0 on 1495 keys, 2 on 5 keys");
        let range = "net.ipv4.conf.cali0000.rp_filter to net.ipv4.conf.cali2998.rp_filter; \
             --all shows each";
        assert_eq!(folded[0].range(), range);
        let all = groups(keys.iter().enumerate().map(item), true);
        assert_eq!(all.len(), 3000);
        assert!(!all[0].is_folded());
    }

    #[test]
    fn of_many_values_few_are_shown() {
        let keys = keys(3000);
        let item = |(i, key): (usize, _)| (0, (), key, i.min(2900).to_string());
        let folded = groups(keys.iter().enumerate().map(item), false);
        let values = folded[0].values();
        let expected = "2900 on 100 keys, 0 on 1 key, 1 on 1 key, other values on 2898 keys";
        assert_eq!(values, expected);
    }
}
