//! Which of the programs run that write routes, rules and entries for pods: that says why
//! something is missing.

use super::observed::{Agents, Observations, UnitState};
use super::path::{layer_3, node_end};
use super::verdict::{Cause, Reason};
use crate::kinds::Owner;

/// What a program writes, and what is a cause where it is missing.
const WRITTEN: [Reason; 10] = [
    Reason::ProxyArp,
    Reason::BridgePort,
    Reason::Gateway,
    Reason::PodRouteMissing,
    Reason::PodRouteElsewhere,
    Reason::TunnelNeighbour,
    Reason::TunnelFdb,
    Reason::Jump,
    Reason::Masquerade,
    Reason::SetMember,
];

/// The state of a unit that did not start, or ended with an error.
const FAILED: &str = "failed";

/// The program that would write what is missing, where it does not run.
pub fn owner(seen: &Observations, cause: &Cause) -> Option<String> {
    if !WRITTEN.contains(&cause.reason) {
        return None;
    }
    let owner = of(seen, cause)?;
    let processes = seen.agents.processes.as_ref().ok();
    let runs = |program: &&str| processes.is_some_and(|all| all.contains(*program));
    let units = seen.agents.units.iter().flatten();
    let units = units.filter(|it| owner.units.contains(&it.name.as_str()));
    if owner.programs.iter().any(runs) || units.clone().any(|it| stopped(it).is_none()) {
        return None;
    }
    // One that is inactive may be left from before the program ran in a pod.
    let failed = units.clone().find(|it| it.active == FAILED);
    let unit = failed.or_else(|| units.clone().next().filter(|_| processes.is_some()));
    let (name, state) = match unit {
        Some(unit) => (unit.name.clone(), stopped(unit)?),
        None => {
            processes?;
            (owner.programs.join(" or "), "is not running".to_owned())
        }
    };
    Some(format!("{name}, {}, {state}", owner.role))
}

/// The units of such programs that have failed.
pub fn failed(agents: &Agents) -> Vec<String> {
    let units = agents.units.iter().flatten();
    let failed = units.filter(|it| it.active == FAILED);
    let text = |it: &UnitState| Some(format!("{} {}", it.name, stopped(it)?));
    failed.filter_map(text).collect()
}

/// The owner of the names that a cause has, else of the pod's interface on the node, or of its
/// bridge.
fn of(seen: &Observations, cause: &Cause) -> Option<&'static Owner> {
    let mut words = cause.what.split([' ', ',']);
    let pods = seen.pods.iter().flatten();
    let ends = pods.filter_map(|pod| node_end(&seen.node, pod));
    let mut links = ends.flat_map(|end| [end, layer_3(&seen.node, end)]);
    let of_link = || links.find_map(|link| Owner::of_name(link.name.as_str()));
    words.find_map(Owner::of_name).or_else(of_link)
}

/// How a unit is that does not run.
fn stopped(unit: &UnitState) -> Option<String> {
    let state = match (unit.active.as_str(), &unit.since) {
        (FAILED, Some(since)) => format!("failed at {since}"),
        (FAILED, None) => "has failed".to_owned(),
        ("inactive", Some(since)) => format!("has been inactive since {since}"),
        ("inactive", None) => "is inactive".to_owned(),
        _ => return None,
    };
    Some(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::judge::tests::nothing;
    use crate::diagnosis::observed::{Answer, Link, Network, Pod};
    use crate::resource::Name;

    fn unit(name: &str, active: &str) -> UnitState {
        UnitState {
            name: name.to_owned(),
            active: active.to_owned(),
            since: Some("13:22:04".to_owned()),
        }
    }

    /// Who is named for a cause, by units and processes that were seen.
    fn named(
        mut seen: Observations,
        cause: (Reason, &str),
        units: Result<&[(&str, &str)], ()>,
        processes: Result<&[&str], ()>,
    ) -> Option<String> {
        let unknown = |()| "unknown".to_owned();
        let states = |all: &[(&str, &str)]| all.iter().map(|it| unit(it.0, it.1)).collect();
        let names = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect();
        seen.agents = Agents {
            units: units.map(states).map_err(unknown),
            processes: processes.map(names).map_err(unknown),
        };
        owner(&seen, &Cause::new(cause.0, cause.1, ""))
    }

    #[test]
    fn who_would_write_it_and_does_not_run_is_named() {
        let calico = (
            Reason::PodRouteMissing,
            "the route to 10.65.0.2/32 dev cali1 is missing",
        );
        let tunnel = (
            Reason::TunnelFdb,
            "flannel.1 has no destination for 02:00:00:00:00:01, which is 10.244.1.0",
        );
        let service = (Reason::Jump, "nothing calls KUBE-SERVICES");
        let calico_failed =
            "calico-node.service, which sets up routes and rules for pods, failed at 13:22:04";
        let calico_inactive = "calico-node.service, which sets up routes and rules for pods, has \
                               been inactive since 13:22:04";
        let calico_gone =
            "calico-node or calico-felix, which sets up routes and rules for pods, is not running";
        let k3s_gone = "k3s.service, which sets up routes to other nodes, has been inactive since \
                        13:22:04";
        let proxy = "kube-proxy.service, which sets up rules for Services, failed at 13:22:04";
        let node = |active| [("calico-node.service", active)];
        let kubelet = &[("kubelet.service", "failed")][..];
        let leftover = &[("kube-proxy.service", "failed")][..];
        for (cause, units, processes, expected) in [
            (
                calico,
                Ok(&node("failed")[..]),
                Err(()),
                Some(calico_failed),
            ),
            (calico, Ok(&node("active")), Ok(&[][..]), None),
            (
                calico,
                Ok(&node("inactive")),
                Ok(&[]),
                Some(calico_inactive),
            ),
            // It runs in a pod.
            (calico, Ok(&node("inactive")), Ok(&["calico-node"]), None),
            (calico, Ok(&node("failed")), Ok(&["calico-node"]), None),
            (calico, Ok(&node("inactive")), Err(()), None),
            (calico, Ok(kubelet), Err(()), None),
            (calico, Ok(kubelet), Ok(&["kubelet"]), Some(calico_gone)),
            (calico, Err(()), Ok(&["calico-node"]), None),
            (calico, Err(()), Err(()), None),
            // k3s has flannel and kube-proxy in its own process.
            (
                tunnel,
                Ok(&[("k3s.service", "active")]),
                Ok(&["k3s-server"]),
                None,
            ),
            (tunnel, Ok(&[]), Ok(&["k3s-agent"]), None),
            (
                tunnel,
                Ok(&[("k3s.service", "inactive")]),
                Ok(&[]),
                Some(k3s_gone),
            ),
            (service, Ok(leftover), Ok(&["k3s-server"]), None),
            (service, Ok(leftover), Ok(&["kubelet"]), Some(proxy)),
        ] {
            let found = named(nothing(), cause, units, processes);
            assert_eq!(
                found.as_deref(),
                expected,
                "{cause:?} {units:?} {processes:?}"
            );
        }
    }

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link {
            kind: kind.to_owned(),
            ..Link::new(index, Name::from(name))
        }
    }

    #[test]
    fn an_interface_that_no_packet_passes_names_nobody() {
        let cause = (
            Reason::Masquerade,
            "no rule of nat POSTROUTING translates 10.65.0.2",
        );
        let own = Link {
            peer: Some(5),
            ..link(2, "eth0", "veth")
        };
        let end = Link {
            peer: Some(2),
            master: Some(3),
            ..link(5, "veth1", "veth")
        };
        for (bridge, expected) in [
            ("cni0", None),
            (
                "docker0",
                Some("dockerd, which sets up the network of containers, is not running"),
            ),
        ] {
            let mut seen = nothing();
            let other = if bridge == "cni0" { "docker0" } else { "br1" };
            let links = [link(3, bridge, "bridge"), link(4, other, "bridge")];
            seen.node.links = [&links[..], std::slice::from_ref(&end)].concat();
            seen.pods[0] = Some(Pod {
                address: seen.packet.from,
                inode: 1,
                space: None,
                pid: None,
                file: String::new(),
                network: Network {
                    links: vec![own.clone()],
                    ..Network::default()
                },
                answer: Answer::Unknown("not asked".to_owned()),
                others: Vec::new(),
                rivals: Vec::new(),
                ttl: None,
                firewall: Ok(crate::diagnosis::firewall::Firewall::default()),
                mark: crate::diagnosis::Marked::default(),
            });
            let found = named(seen, cause, Ok(&[]), Ok(&[]));
            assert_eq!(found.as_deref(), expected, "{bridge}");
        }
    }
}
