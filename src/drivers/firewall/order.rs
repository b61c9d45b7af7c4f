//! The order of the rules of a table.

use std::collections::HashMap;
use std::sync::Arc;

use super::protocol::{Backend, Form, Forms};
use super::{Rule, TableId};
use crate::resource::FirewallRule;

/// The place of each rule in the configuration, by its chain and how it is listed there; that
/// of one that must be the last comes after all.
pub(super) struct Order<'a>(HashMap<(&'a str, Backend), HashMap<&'a str, usize>>);

impl<'a> Order<'a> {
    /// That of these rules, as far as they are of a table.
    pub fn of(
        rules: &'a [Rule],
        forms: &'a HashMap<Arc<FirewallRule>, Forms>,
        table: TableId,
    ) -> Order<'a> {
        let mut all: HashMap<_, HashMap<_, usize>> = HashMap::new();
        let of_table = rules.iter().enumerate();
        let of_table = of_table.filter(|(_, it)| (it.rule.family, it.rule.table) == table);
        for (at, it) in of_table {
            let at = match it.position.as_deref() {
                None => at,
                Some("last") => usize::MAX,
                Some(_) => continue,
            };
            for (backend, form) in forms.get(&it.rule).into_iter().flatten() {
                if let Form::Listed(text) = form {
                    let chain = all.entry((it.rule.chain.as_str(), *backend)).or_default();
                    let last = chain.entry(text.as_str()).or_default();
                    *last = at.max(*last);
                }
            }
        }
        Order(all)
    }

    /// Where the rule with this place in the configuration goes, which may stand anywhere in
    /// its chain: before those that the configuration has after it, and those that must be the
    /// last.
    pub fn place(&self, at: usize, chain: &str, backend: Backend, rules: &[String]) -> usize {
        let Some(known) = self.0.get(&(chain, backend)) else {
            return rules.len();
        };
        let comes_after = |it: &String| known.get(it.as_str()).is_some_and(|it| *it > at);
        rules.iter().position(comes_after).unwrap_or(rules.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, Origin};
    use crate::resource::{ChainName, FirewallTable};

    fn rule(chain: &str, says: &str, position: Option<&str>) -> Rule {
        let rule = FirewallRule {
            family: Family::Ipv4,
            table: FirewallTable::Filter,
            chain: ChainName::parse(chain).expect("a chain"),
            says: says.split(' ').map(str::to_owned).collect(),
        };
        Rule {
            rule: Arc::new(rule),
            is_absent: false,
            position: position.map(str::to_owned),
            is_restored: true,
            origin: Origin {
                file: Arc::default(),
                line: 1,
            },
        }
    }

    #[test]
    fn a_rule_goes_before_those_that_are_configured_after_it() {
        let rules = [
            rule("FORWARD", "first", Some("first")),
            rule("FORWARD", "last", Some("last")),
            rule("FORWARD", "a", None),
            rule("FORWARD", "b", None),
            rule("INPUT", "c", None),
            rule("FORWARD", "c", None),
        ];
        let listed = |it: &Rule| vec![(Backend::Nft, Form::Listed(it.rule.says.join(" ")))];
        let forms = rules.iter().map(|it| (Arc::clone(&it.rule), listed(it)));
        let forms = forms.collect();
        let order = Order::of(&rules, &forms, (Family::Ipv4, FirewallTable::Filter));
        for (found, expected) in [
            ("", 0),
            ("c", 0),
            ("a c", 1),
            ("first a other c last", 3),
            ("first a other last", 3),
            ("first a other", 3),
            ("last a c", 0),
        ] {
            let found: Vec<String> = found.split_whitespace().map(str::to_owned).collect();
            let place = |backend| order.place(3, "FORWARD", backend, &found);
            assert_eq!(place(Backend::Nft), expected, "{found:?}");
            assert_eq!(place(Backend::Legacy), found.len(), "{found:?}");
        }
    }
}
