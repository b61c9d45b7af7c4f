//! Rules that are one to iptables, in two spellings.

use std::collections::HashMap;

use super::Rule;
use super::protocol::{Form, Forms};

/// For each rule the number of another that iptables lists like it, and that asks for the
/// opposite: both cannot be met.
pub(super) fn contradicted(rules: &[(&Rule, &Forms)]) -> Vec<Option<usize>> {
    let mut alike: HashMap<_, Vec<usize>> = HashMap::new();
    for (number, (it, forms)) in rules.iter().enumerate() {
        for (backend, form) in forms.iter() {
            if let Form::Listed(text) = form {
                let rule = &it.rule;
                let chain = (rule.family, rule.table, &rule.chain);
                alike
                    .entry((chain, backend, text))
                    .or_default()
                    .push(number);
            }
        }
    }
    let mut found = vec![None; rules.len()];
    for numbers in alike.into_values() {
        for number in &numbers {
            let own = rules[*number].0;
            let mut others = numbers.iter().filter(|it| own.contradicts(rules[**it].0));
            if let Some(other) = others.next() {
                found[*number] = Some(*other);
            }
        }
    }
    found
}

impl Rule {
    fn contradicts(&self, other: &Rule) -> bool {
        let places = (&self.position, &other.position);
        self.is_absent != other.is_absent
            || matches!(places, (Some(own), Some(others)) if own != others)
    }
}
