//! The entries of the configuration that guard what is to blame.

use std::collections::BTreeSet;

use super::firewall::{Place, Ruleset, Traffic};
use super::observed::Observations;
use super::path::{Leg, node_end};
use super::remedies;
use super::verdict::{Cause, Reason};
use crate::model::text::toml_string;
use crate::resource::{FirewallRule, FirewallTable, Prefix, words_of_line};

/// What the names of pods' interfaces on the node begin with: the rest is another for each pod.
const OF_PODS: [&str; 3] = ["cali", "lxc", "veth"];
/// Those of containers of other programs may begin with this as well.
const SHARED: &str = "veth";

/// Has an entry about a pod guard all pods: the next one gets the name and the address.
pub fn of_all_pods(seen: &Observations, cause: &mut Cause) {
    for pod in seen.pods.iter().flatten() {
        let (own, end) = (Prefix::whole(pod.address), node_end(&seen.node, pod));
        let kind = cause.keep.first().map_or("", String::as_str).to_owned();
        let preserved = |dev: String| vec![kind.clone(), dev, "preserve = true".to_owned()];
        let text = cause.keep.join("\n");
        let is_about_pod = text.contains(&format!("\"{}\"", pod.address));
        match kind.as_str() {
            "[[iptables]]" if cause.reason == Reason::Masquerade => {
                if text.contains(&format!("-s {own} ")) {
                    cause.keep.clear();
                }
                continue;
            }
            "[[neighbour]]" if is_about_pod => {
                let dev = cause.keep.iter().find(|it| it.starts_with("dev = "));
                cause.keep = preserved(dev.cloned().unwrap_or_default());
            }
            _ => {}
        }
        let Some((name, prefix)) = end.and_then(|end| {
            let name = end.name.as_str();
            let prefix = OF_PODS.into_iter().find(|it| name.starts_with(it))?;
            Some((name, prefix))
        }) else {
            continue;
        };
        let pattern = format!("{prefix}*");
        let dev = |name: &str| format!("dev = {}", toml_string(name));
        let is_shared = prefix == SHARED && !text.contains("up = true");
        match kind.as_str() {
            "[[route]]" | "[[neighbour]]" if cause.keep.contains(&dev(name)) => {
                cause.keep = preserved(dev(&pattern));
            }
            "[link]" if is_shared && text.contains(&toml_string(name)) => cause.keep.clear(),
            "[link]" | "[sysctl]" => {
                let key = |name: &str| format!("{} = {{", toml_string(name));
                let part = |name: &str| format!(".{name}.");
                for line in &mut cause.keep {
                    *line = line
                        .replace(&key(name), &key(&pattern))
                        .replace(&part(name), &part(&pattern));
                }
            }
            _ => {}
        }
    }
}

/// Whether a rule of nat POSTROUTING that is not there would translate the source of the packet.
pub fn would_translate(seen: &Observations, rule: &FirewallRule) -> bool {
    let [request, _] = Leg::both(seen);
    let chain = rule.chain.as_str();
    let is_there = (rule.table, chain) == (FirewallTable::Nat, "POSTROUTING");
    let (true, Ok(firewall)) = (
        is_there && rule.family == request.packet.family(),
        &seen.firewall,
    ) else {
        return false;
    };
    let any = Ruleset::default();
    let ruleset = firewall.rulesets.first().unwrap_or(&any);
    let text: Vec<String> = rule.says.iter().map(remedies::word).collect();
    let place = Place {
        command: String::new(),
        table: rule.table,
        chain: chain.to_owned(),
        number: 0,
        rule: text.join(" "),
        handle: None,
    };
    let own = BTreeSet::new();
    let traffic = Traffic {
        oif: request.egress.map(|it| it.name.as_str()),
        ..Traffic::new(&request.packet, false, &own)
    };
    let rules = ruleset.chains.get(&(rule.table, chain.to_owned()));
    let mut rules = rules.iter().flat_map(|it| &it.rules);
    let is_missing = !rules.any(|it| words_of_line(it).as_ref() == Some(&rule.says));
    is_missing && firewall.translates(&ruleset.with(&place, false), &traffic)
}
