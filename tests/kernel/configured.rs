//! What a configuration says of the network is what the kernel reports once it was
//! written: nothing else would be drift for ever.

use netguard::config::{Request, load};
use netguard::drivers::rtnetlink::codec::{self, How};
use netguard::model::{Invariant, Selector};
use netguard::resource::{Desired, State};

use super::namespace::ip;
use super::rtnetlink::{Rtnl, uplinks};

/// The invariants of this configuration.
fn invariants(toml: &str) -> Vec<Invariant> {
    let thread = std::thread::current().id();
    let name = format!("netguard-configured-{}-{thread:?}.toml", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, toml).expect("a file");
    let request = Request {
        file: Some(file.clone()),
        ..Request::default()
    };
    let loaded = load(&request).unwrap_or_else(|error| panic!("{error}"));
    std::fs::remove_file(&file).expect("the file");
    loaded.settings.invariants
}

/// Writes what is desired of a resource that is as `before`.
fn write(rtnl: &Rtnl, invariant: &Invariant, before: &State) {
    let Selector::Resource(resource) = &invariant.selector else {
        panic!("{} is no resource", invariant.selector);
    };
    let target = invariant.desired.target(before).expect("a target");
    let how = match before.exists() {
        false => How::Create,
        true => How::Replace,
    };
    let requests = codec::write(resource, &target, how, &rtnl.links()).expect("requests");
    for request in requests {
        let written = rtnl.request(&request);
        written.unwrap_or_else(|errno| panic!("{resource} {target}: {errno}"));
    }
}

/// What the kernel has of the resource of an invariant.
fn found(rtnl: &Rtnl, invariant: &Invariant) -> State {
    let Selector::Resource(resource) = &invariant.selector else {
        panic!("{} is no resource", invariant.selector);
    };
    let group = codec::Listing::of(resource).expect("a group");
    let entries = rtnl.list(group).remove(resource).unwrap_or_default();
    codec::combine(&entries).unwrap_or(State::Absent)
}

const TOML: &str = r#"
[[address]]
dev = "eth0"
address = "10.39.0.111/24"
label = "eth0:1"
broadcast = "10.39.0.255"

[[address]]
dev = "eth0"
address = "10.41.0.1/24"
label = "eth0"
scope = 253

[[address]]
dev = "eth0"
address = "10.99.0.1/32"
peer = "10.99.0.2"
metric = 7

[[address]]
dev = "eth0"
address = "2001:DB8:1:0::111/64"

[[neighbour]]
dev = "eth0"
to = "10.39.0.1"
lladdr = "46:2A:0d:29:d1:eb"

[[neighbour]]
dev = "eth0"
to = "2001:db8:1::2"
lladdr = "46:2a:0d:29:d1:ec"

[[fdb]]
dev = "flannel.1"
lladdr = "46:2a:0d:29:d1:ed"
dst = "10.39.0.112"

[[fdb]]
dev = "veth7"
lladdr = "46:2a:0d:29:d1:ee"
master = true

[[route]]
to = "192.168.4.25"
dev = "eth0"

[[route]]
to = "default"
via = "10.39.0.1"

[[route]]
to = "default"
via = "10.39.0.1"
dev = "eth0"
metric = 100
src = "10.39.0.111"
mtu = 1400
protocol = "bird"
scope = "global"

[[route]]
to = "10.50.0.0/16"
table = 5000
tos = 16
via = "172.16.0.1"
dev = "eth1"
onlink = true

[[route]]
to = "10.51.0.0/16"
nexthops = [{ via = "10.39.0.2", dev = "eth0" }, { via = "172.16.0.1", dev = "eth1", weight = 2, onlink = true }]

[[route]]
to = "10.52.0.0/16"
type = "blackhole"

[[route]]
to = "10.53.0.1"
table = "local"
type = "local"
dev = "lo"

[[route]]
to = "default"
via = "fe80::1"
dev = "eth0"

[[route]]
to = "2001:db8:10::/48"
nexthops = [{ via = "2001:db8:1::1", dev = "eth0" }, { via = "2001:db8:2::1", dev = "eth1", weight = 3 }]

[[route]]
to = "2001:db8:11::/48"
type = "unreachable"
metric = 7

[[rule]]
priority = 100
from = "10.39.0.0/24"
table = 200

[[rule]]
priority = 101
family = "ipv6"
fwmark = "0x100/0xf00"
iif = "eth0"
table = "main"
suppress_prefixlength = 0

[[rule]]
priority = 102
to = "10.0.0.1"
from = "0.0.0.0/0"
fwmark = 512
oif = "eth9"
not = true
type = "prohibit"

[[rule]]
priority = 103
from = "default"
ipproto = "tcp"
sport = 80
dport = "1000-2000"
uidrange = "100-100"
tos = 16
table = 0x1388

[[rule]]
priority = 104
goto = 32766
tun_id = 7
fwmark = 0

[[rule]]
priority = 105
suppress_ifgroup = 3
table = 255
"#;

/// Two interfaces with a bridge's port and a VXLAN beside them.
fn node() {
    uplinks();
    ip("link add cni0 type bridge");
    ip("link add veth7 type veth peer name peer7");
    ip("link set veth7 master cni0 up");
    ip("link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 nolearning");
    ip("link set flannel.1 up");
}

#[test]
fn what_is_written_as_configured_is_as_configured() {
    node();
    let rtnl = Rtnl::open(0);
    let mut all = invariants(TOML);
    assert_eq!(all.len(), 24);
    // As the guard: what others need comes first.
    all.sort_by_key(|it| match &it.selector {
        Selector::Resource(resource) => Some(resource.kind()),
        _ => None,
    });
    for invariant in &all {
        let selector = &invariant.selector;
        assert_eq!(found(&rtnl, invariant), State::Absent, "{selector}");
        assert!(!invariant.matches(&State::Absent), "{selector}");
        write(&rtnl, invariant, &State::Absent);
        let state = found(&rtnl, invariant);
        assert!(
            invariant.matches(&state),
            "{selector}: {} desired, {state} found",
            invariant.desired
        );
    }
}

/// Writes what exists and differs from what these entries require.
fn assert_brought_in_line(toml: &str) {
    let rtnl = Rtnl::open(0);
    for invariant in invariants(toml) {
        let before = found(&rtnl, &invariant);
        assert!(before.exists() && !invariant.matches(&before), "{before}");
        write(&rtnl, &invariant, &before);
        let after = found(&rtnl, &invariant);
        assert!(invariant.matches(&after), "{after}");
    }
}

#[test]
fn links_become_as_configured() {
    node();
    ip("link set eth1 down");
    let toml = r#"
[link]
eth0 = { up = true, mtu = { min = 1200, max = 1400 } }
eth1 = { up = true, mtu = 1450 }
peer7 = { master = "cni0" }
"#;
    assert_brought_in_line(toml);
}

#[test]
fn a_changed_route_or_neighbour_is_replaced() {
    node();
    ip("route add 10.60.0.0/16 dev eth1 mtu 1300");
    ip("neigh add 10.39.0.1 lladdr 46:2a:0d:29:d1:01 dev eth0 nud stale");
    let toml = r#"
[[route]]
to = "10.60.0.0/16"
via = "10.39.0.1"

[[neighbour]]
dev = "eth0"
to = "10.39.0.1"
lladdr = "46:2a:0d:29:d1:eb"
"#;
    assert_brought_in_line(toml);
}

#[test]
fn what_is_preserved_is_what_programs_made() {
    node();
    for line in [
        "route add 192.168.4.25 dev eth1",
        "route add 192.168.5.0/24 nexthop via 10.39.0.1 nexthop via 10.40.0.1",
        "route add 192.168.6.0/24 via 10.39.0.1 table 200",
        "-6 route add default via fe80::1 dev eth0",
        "rule add from 10.39.0.0/24 table 2004 priority 9",
        "neigh add 169.254.1.1 lladdr 46:2a:0d:29:d1:eb dev eth1",
        "neigh add 169.254.1.2 lladdr 46:2a:0d:29:d1:ec dev eth1 nud stale",
        "addr add 10.70.0.1/24 dev eth1 valid_lft 3600 preferred_lft 3600",
    ] {
        ip(line);
    }
    let rtnl = Rtnl::open(0);
    for (table, expected) in [
        (
            "[[route]]\ndev = \"eth1\"",
            "route/main/192.168.4.25/32 route/main/192.168.5.0/24",
        ),
        (
            "[[route]]\ndev = \"eth*\"\nfamily = \"ipv6\"",
            "route/main/::/0/metric=1024",
        ),
        ("[[route]]\ntable = 200", "route/200/192.168.6.0/24"),
        (
            "[[route]]\nto = \"default\"\nfamily = \"ipv6\"",
            "route/main/::/0/metric=1024",
        ),
        (
            "[[rule]]\ntable = 2004",
            "rule/ipv4/9/from=10.39.0.0/24/table=2004",
        ),
        (
            "[[neighbour]]\ndev = \"eth[1-9]\"",
            "neighbour/eth1/169.254.1.1",
        ),
        (
            "[[address]]\ndev = \"eth1\"",
            "address/eth1/10.40.0.110/24 address/eth1/2001:db8:2::110/64",
        ),
    ] {
        let all = invariants(&format!("{table}\npreserve = true\n"));
        assert_eq!(all[0].desired, Desired::Preserve);
        let Selector::Group(group) = &all[0].selector else {
            panic!("{} is no group", all[0].selector);
        };
        let mut met: Vec<String> = Vec::new();
        for dump in codec::Listing::ALL {
            let listed = rtnl.list(dump).into_iter();
            let listed = listed.filter_map(|it| Some((it.0, codec::combine(&it.1)?)));
            met.extend(
                listed
                    .filter(|(resource, state)| group.matches(resource, state))
                    .map(|(resource, _)| resource.to_string()),
            );
        }
        assert_eq!(met.join(" "), expected, "{table}");
    }
}
