//! The programs of a node that write routes, rules and entries for pods: which of them runs says
//! why something is missing.

use super::observed::{Agents, Observations, UnitState};
use super::path::node_end;
use super::verdict::{Cause, Reason};

/// A program.
#[derive(Debug)]
pub struct Agent {
    /// Its unit, where it is none of a pod's.
    pub unit: &'static str,
    /// Its process.
    pub process: &'static str,
    /// How the names begin of the interfaces, chains and sets that are its own.
    names: &'static [&'static str],
}

const fn agent(unit: &'static str, process: &'static str, names: &'static [&'static str]) -> Agent {
    Agent {
        unit,
        process,
        names,
    }
}

/// Those that are known.
pub static AGENTS: [Agent; 9] = [
    agent(
        "calico-node.service",
        "calico-node",
        &["cali", "vxlan.calico", "tunl0"],
    ),
    agent("flanneld.service", "flanneld", &["flannel", "FLANNEL"]),
    agent(
        "cilium.service",
        "cilium-agent",
        &["cilium", "CILIUM", "lxc"],
    ),
    agent(
        "kube-router.service",
        "kube-router",
        &["kube-bridge", "KUBE-ROUTER"],
    ),
    agent("kube-proxy.service", "kube-proxy", &["KUBE-"]),
    agent("docker.service", "dockerd", &["docker", "DOCKER"]),
    agent("firewalld.service", "firewalld", &["FWD", "IN_", "FILTERS"]),
    // They have nothing of their own, but set up all pods.
    agent("kubelet.service", "kubelet", &[]),
    agent("containerd.service", "containerd", &[]),
];

const ROLE: &str = "which sets up routes and rules for pods";

/// What a program writes, and what is a cause where it is missing.
const WRITTEN: [Reason; 11] = [
    Reason::ProxyArp,
    Reason::BridgePort,
    Reason::Gateway,
    Reason::PodRouteMissing,
    Reason::PodRouteElsewhere,
    Reason::TunnelNeighbour,
    Reason::TunnelFdb,
    Reason::Jump,
    Reason::Policy,
    Reason::Masquerade,
    Reason::SetMember,
];

/// The program that would write what is missing, where it does not run.
pub fn owner(seen: &Observations, cause: &Cause) -> Option<String> {
    if !WRITTEN.contains(&cause.reason) {
        return None;
    }
    let agent = of(seen, cause)?;
    let unit = seen
        .agents
        .units
        .iter()
        .flatten()
        .find(|it| it.name == agent.unit);
    match unit {
        Some(unit) => stopped(unit).map(|state| format!("{}, {ROLE}, {state}", agent.unit)),
        None => is_missing(&seen.agents, agent)
            .then(|| format!("{}, {ROLE}, is not running", agent.process)),
    }
}

/// The units of such programs that have failed.
pub fn failed(agents: &Agents) -> Vec<String> {
    let units = agents
        .units
        .iter()
        .flatten()
        .filter(|it| it.active == "failed");
    let text = |it: &UnitState| Some(format!("{} {}", it.name, stopped(it)?));
    units.filter_map(text).collect()
}

/// The program whose names a cause has, else whose interface the pod is behind.
fn of(seen: &Observations, cause: &Cause) -> Option<&'static Agent> {
    let is_of = |agent: &&Agent, word: &str| agent.names.iter().any(|it| word.starts_with(it));
    let mut words = cause.what.split([' ', ',']);
    let named = words.find_map(|word| AGENTS.iter().find(|it| is_of(it, word)));
    let pods = seen.pods.iter().flatten();
    let mut links = pods
        .filter_map(|pod| node_end(&seen.node, pod))
        .chain(&seen.node.links);
    named.or_else(|| links.find_map(|link| AGENTS.iter().find(|it| is_of(it, link.name.as_str()))))
}

/// How a unit is that does not run.
fn stopped(unit: &UnitState) -> Option<String> {
    if !["failed", "inactive"].contains(&unit.active.as_str()) {
        return None;
    }
    Some(match &unit.since {
        Some(since) => format!("is {} since {since}", unit.active),
        None => format!("is {}", unit.active),
    })
}

/// Whether all processes were seen, and this program was not among them.
fn is_missing(agents: &Agents, agent: &Agent) -> bool {
    let processes = agents.processes.as_ref();
    processes.is_ok_and(|it| !it.contains(agent.process))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::checks::tests::nothing;

    fn unit(name: &str, active: &str) -> UnitState {
        UnitState {
            name: name.to_owned(),
            active: active.to_owned(),
            since: Some("13:22:04".to_owned()),
        }
    }

    #[test]
    fn who_would_write_it_and_does_not_run_is_named() {
        let route = Cause::new(
            Reason::PodRouteMissing,
            "the route to 10.65.0.2/32 dev cali1 is missing",
            "",
        );
        let failed = "calico-node.service, which sets up routes and rules for pods, is failed since 13:22:04";
        let gone = "calico-node, which sets up routes and rules for pods, is not running";
        for (units, processes, expected) in [
            (
                Ok(vec![unit("calico-node.service", "failed")]),
                Err(()),
                Some(failed),
            ),
            (
                Ok(vec![unit("calico-node.service", "active")]),
                Ok(&[][..]),
                None,
            ),
            (Ok(vec![unit("kubelet.service", "failed")]), Err(()), None),
            (
                Ok(vec![unit("kubelet.service", "failed")]),
                Ok(&["kubelet"]),
                Some(gone),
            ),
            (Err(()), Ok(&["calico-node"]), None),
            (Err(()), Err(()), None),
        ] {
            let unknown = |()| "unknown".to_owned();
            let mut seen = nothing();
            let names = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect();
            seen.agents = Agents {
                units: units.map_err(unknown),
                processes: processes.map(names).map_err(unknown),
            };
            assert_eq!(owner(&seen, &route).as_deref(), expected);
        }
    }
}
