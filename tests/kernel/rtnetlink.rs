//! Links, addresses, neighbours, FDB entries, routes and rules on the real kernel:
//! what ip(8) and bridge(8) made is decoded, deleted, and written back from that
//! alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use netguard::drivers::rtnetlink::codec::{self, How, Listing, Request};
use netguard::drivers::rtnetlink::links::Links;
use netguard::model::Family;
use netguard::resource::{Attribute, Resource, State};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use serde_json::Value as Json;

use super::namespace::{add_veth, enter, ip, run, set};

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_ACK`
const ACK: u16 = 4;

/// A message: its type, and what follows its header.
type Message = (u16, Vec<u8>);

/// A plain rtnetlink socket of this thread's namespace.
pub struct Rtnl(Socket);

impl Rtnl {
    pub fn open(listings: u32) -> Rtnl {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
        socket.bind(&SocketAddr::new(0, listings)).expect("a port");
        Rtnl(socket)
    }

    fn receive(&self) -> Vec<Message> {
        let (bytes, _) = self.0.recv_from_full().expect("a message");
        let mut rest = bytes.as_slice();
        let mut messages = Vec::new();
        while let Some(header) = rest.get(..16) {
            let length = u32::from_ne_bytes(header[..4].try_into().expect("four")) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            messages.push((kind, rest[16..length].to_vec()));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
        messages
    }

    fn dump(&self, listing: Listing) -> Vec<Message> {
        self.0.send(&listing.dump().bytes(0, 1), 0).expect("sent");
        let mut all = Vec::new();
        loop {
            let part = self.receive();
            let ended = part.iter().any(|(kind, _)| *kind == DONE);
            all.extend(part.into_iter().filter(|(kind, _)| *kind != DONE));
            if ended {
                return all;
            }
        }
    }

    pub fn request(&self, request: &Request) -> Result<(), Errno> {
        self.0.send(&request.bytes(ACK, 1), 0).expect("sent");
        loop {
            for (kind, payload) in self.receive() {
                if kind == ERROR {
                    let code = i32::from_ne_bytes(payload[..4].try_into().expect("four"));
                    return match code {
                        0 => Ok(()),
                        code => Err(Errno::from_raw(-code)),
                    };
                }
            }
        }
    }

    pub fn links(&self) -> Links {
        let mut links = Links::default();
        for (_, payload) in self.dump(Listing::Links) {
            if let Some((index, link)) = codec::decode_link(&payload) {
                links.insert(index, link);
            }
        }
        links
    }

    /// What there is of a listing.
    pub fn list(&self, listing: Listing) -> BTreeMap<Resource, Vec<State>> {
        let links = self.links();
        let mut all: BTreeMap<Resource, Vec<State>> = BTreeMap::new();
        for (kind, payload) in self.dump(listing) {
            if let Some((resource, Some(state))) = codec::decode(kind, &payload, &links)
                && !is_kernels(&resource, &state)
            {
                all.entry(resource).or_default().push(state);
            }
        }
        all
    }
}

/// Two interfaces, up, with addresses, and the other end of each.
pub fn uplinks() {
    enter();
    for of in ["all", "default"] {
        set(&format!("net/ipv6/conf/{of}/accept_dad"), "0");
    }
    // Its own addresses come when they like.
    set("net/ipv6/conf/default/addr_gen_mode", "1");
    add_veth("eth0", "peer0");
    add_veth("eth1", "peer1");
    for name in ["eth0", "peer0", "eth1", "peer1"] {
        ip(&format!("link set {name} up"));
    }
    ip("addr add 10.39.0.110/24 dev eth0");
    ip("addr add 10.40.0.110/24 dev eth1");
    ip("addr add 2001:db8:1::110/64 dev eth0");
    ip("addr add 2001:db8:2::110/64 dev eth1");
}

/// Whether the kernel made it by itself, perhaps after a while.
pub fn is_kernels(resource: &Resource, state: &State) -> bool {
    let multicast = match resource {
        Resource::Neighbour(it) => it.to.is_multicast(),
        Resource::Fdb(it) => it.lladdr.0[0] & 1 == 1,
        _ => false,
    };
    let protocol = state.get(Attribute::Protocol);
    multicast || protocol.is_some_and(|it| it.as_str() == "2")
}

/// What a program prints in JSON, its lists sorted.
pub fn json(line: &str) -> Vec<String> {
    let words: Vec<_> = line.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.expect("iproute2").stdout;
    let list: Json = match output.is_empty() {
        true => Json::Array(Vec::new()),
        false => serde_json::from_slice(&output).unwrap_or_else(|error| panic!("{line}: {error}")),
    };
    // As `is_kernels`.
    let kernels = ["\"ff02:", "\"224.", "\"33:33:", "\"01:00:5e", "\"kernel\""];
    let list = list.as_array().expect("a list").iter().map(Json::to_string);
    let list = list.map(|text| text.replace("\"tentative\":true,", ""));
    let made = list.filter(|text| !kernels.iter().any(|it| text.contains(it)));
    let mut shown: Vec<_> = made.collect();
    shown.sort();
    shown
}

/// Creates with each of `lines`, deletes, writes back from what was decoded, and
/// compares what `show` prints, and what is decoded.
fn comes_back(listing: Listing, show: &str, lines: &[&str]) -> BTreeMap<Resource, State> {
    let rtnl = Rtnl::open(0);
    let mut made = BTreeMap::new();
    for line in lines {
        let before = rtnl.list(listing);
        let words: Vec<_> = line.split(' ').collect();
        run(words[0], &words[1..]);
        let shown = json(show);
        let after = rtnl.list(listing);
        let new: Vec<_> = after
            .iter()
            .filter(|it| before.get(it.0) != Some(it.1))
            .collect();
        assert_eq!(new.len(), 1, "{line}: {new:#?}");
        let (resource, entries) = new[0];
        let state = codec::combine(entries).expect("it is there");
        assert!(!resource.to_string().contains(' '), "{resource}");

        let links = rtnl.links();
        let delete = codec::delete(resource, &links).expect("a request");
        for _ in before.get(resource).map_or(0, Vec::len)..1 {
            rtnl.request(&delete)
                .unwrap_or_else(|errno| panic!("delete {resource}: {errno}"));
        }
        assert!(
            !rtnl.list(listing).contains_key(resource),
            "{line}: {resource} is still there"
        );
        let requests = codec::write(resource, &state, How::Create, &links).expect("requests");
        for request in requests {
            let result = rtnl.request(&request);
            result.unwrap_or_else(|errno| panic!("{line}: write {resource} {state}: {errno}"));
        }
        assert_eq!(json(show), shown, "{line}: {resource} {state}");
        assert_eq!(rtnl.list(listing), after, "{line}");
        // What is there already is as good as written.
        for request in codec::write(resource, &state, How::Replace, &links).expect("requests") {
            let result = rtnl.request(&request);
            let there = matches!(listing, Listing::Rules(_)) && result == Err(Errno::EEXIST);
            assert!(
                result.is_ok() || there,
                "{line}: replace {resource}: {result:?}"
            );
        }
        assert_eq!(json(show), shown, "{line}: replaced {resource} {state}");
        made.insert(resource.clone(), state);
    }
    made
}

fn names(made: &BTreeMap<Resource, State>) -> Vec<String> {
    made.keys().map(Resource::to_string).collect()
}

#[test]
fn ipv4_routes_come_back_as_they_were() {
    uplinks();
    let made = comes_back(
        Listing::Routes(Family::Ipv4),
        "ip -d -j route show table all",
        &[
            "ip route add default via 10.39.0.1",
            "ip route add default via 10.40.0.1 dev eth1 metric 100",
            "ip route add 192.168.4.25 dev eth0 scope link",
            "ip route add 192.168.5.0/24 via 10.39.0.1 src 10.39.0.110 mtu 1400",
            "ip route add 192.168.6.0/24 via 10.39.0.1 mtu lock 1400 advmss 1360 hoplimit 9 initcwnd 20 rto_min 5ms quickack 1 congctl cubic features ecn",
            "ip route add 192.168.7.0/24 via 10.99.0.1 dev eth0 onlink proto bird",
            "ip route add 192.168.8.0/24 via 10.39.0.1 table 5000 metric 7",
            "ip route add 192.168.8.0/24 via 10.39.0.1 table 100",
            "ip route add 192.168.9.0/24 tos 0x10 via 10.39.0.1",
            "ip route add 192.168.10.0/24 nexthop via 10.39.0.1 weight 3 nexthop via 10.40.0.1 dev eth1 weight 1",
            "ip route add 192.168.11.0/24 nexthop via 10.99.0.1 dev eth0 weight 256 onlink nexthop dev eth1 weight 2",
            "ip route add blackhole 10.128.0.0/9",
            "ip route add unreachable 10.129.0.0/16 metric 4278198272",
            "ip route add prohibit 10.130.0.0/16",
            "ip route add throw 10.131.0.0/16 table 200",
            "ip route add local 192.168.12.0/24 dev lo table local",
            "ip route add broadcast 192.168.13.255 dev eth0 table local",
            "ip route add multicast 239.0.0.0/8 dev eth0 table 201",
            "ip route add 192.168.14.0/24 via inet6 fe80::1 dev eth0",
            "ip route add 192.168.15.0/24 via 10.39.0.1 realms 3/7",
            "ip route add 192.168.16.0/24 nexthop via inet6 fe80::1 dev eth0 nexthop via 10.40.0.1 realm 9",
            "ip route add 10.39.0.1 dev eth0 scope host",
        ],
    );
    let names = names(&made);
    for name in [
        "route/main/0.0.0.0/0",
        "route/main/0.0.0.0/0/metric=100",
        "route/main/192.168.4.25/32",
        "route/5000/192.168.8.0/24/metric=7",
        "route/main/192.168.9.0/24/tos=16",
    ] {
        assert!(names.iter().any(|it| it == name), "{name}: {names:#?}");
    }
    let several = made
        .iter()
        .find(|it| it.0.to_string().contains("192.168.10.0"));
    assert_eq!(
        several
            .and_then(|it| it.1.get(Attribute::Nexthops))
            .map(ToString::to_string)
            .as_deref(),
        Some("via 10.39.0.1 dev eth0 weight 3 nexthop via 10.40.0.1 dev eth1 weight 1"),
    );
}

#[test]
fn ipv6_routes_come_back_as_they_were() {
    uplinks();
    let made = comes_back(
        Listing::Routes(Family::Ipv6),
        "ip -6 -d -j route show table all",
        &[
            "ip -6 route add default via 2001:db8:1::1",
            "ip -6 route add default via fe80::1 dev eth1 metric 2048 pref high",
            "ip -6 route add 2001:db8:10::/48 dev eth0",
            "ip -6 route add 2001:db8:11::/48 via 2001:db8:1::1 src 2001:db8:1::110 mtu 1400 hoplimit 9",
            "ip -6 route add 2001:db8:12::/48 via fe80::2 dev eth0 onlink proto bird table 6000",
            "ip -6 route add 2001:db8:13::/48 nexthop via 2001:db8:1::1 weight 2 nexthop via 2001:db8:2::1 dev eth1",
            "ip -6 route add 2001:db8:14::/48 nexthop via fe80::2 dev eth0 nexthop via fe80::3 dev eth1 weight 7",
            "ip -6 route add blackhole 2001:db8:15::/48",
            "ip -6 route add unreachable 2001:db8:16::/48 metric 4294967295",
            "ip -6 route add prohibit 2001:db8:17::/48",
            "ip -6 route add throw 2001:db8:18::/48 table 200",
            "ip -6 route add local 2001:db8:19::/64 dev lo table local",
            "ip -6 route add 2001:db8:20::1 dev eth0 metric 5",
        ],
    );
    let names = names(&made);
    for name in [
        "route/main/::/0/metric=1024",
        "route/main/::/0/metric=2048",
        "route/6000/2001:db8:12::/48/metric=1024",
    ] {
        assert!(names.iter().any(|it| it == name), "{name}: {names:#?}");
    }
}

#[test]
fn routes_over_nexthop_objects_come_back_as_they_were() {
    uplinks();
    ip("nexthop add id 7 via 10.39.0.1 dev eth0");
    ip("nexthop add id 8 via 10.40.0.1 dev eth1");
    ip("nexthop add id 9 group 7,3/8");
    comes_back(
        Listing::Routes(Family::Ipv4),
        "ip -d -j route show table all",
        &[
            "ip route add 192.168.20.0/24 nhid 7",
            "ip route add 192.168.21.0/24 nhid 9",
        ],
    );
    ip("nexthop add id 17 via 2001:db8:1::1 dev eth0");
    comes_back(
        Listing::Routes(Family::Ipv6),
        "ip -6 -d -j route show table all",
        &["ip -6 route add 2001:db8:21::/48 nhid 17"],
    );
}

#[test]
fn rules_come_back_as_they_were() {
    uplinks();
    let made = comes_back(
        Listing::Rules(Family::Ipv4),
        "ip -d -j rule",
        &[
            "ip rule add from 10.39.0.0/24 table 200 priority 100",
            "ip rule add to 10.39.0.0/24 lookup 5000 priority 101",
            "ip rule add fwmark 1 table 200 priority 102",
            "ip rule add fwmark 0x200/0xf00 table 2004 priority 9",
            "ip rule add fwmark 0/0xffffffff table 2004 priority 119",
            "ip rule add fwmark 0/0xff table 2004 priority 120",
            "ip rule add iif eth0 table 201 priority 103",
            "ip rule add oif eth7 table 202 priority 104",
            "ip rule add tos 0x10 table 203 priority 105",
            "ip rule add not from 10.0.0.0/8 table main suppress_prefixlength 0 priority 106",
            "ip rule add from all blackhole priority 107",
            "ip rule add from 10.1.0.0/16 to 10.2.0.0/16 unreachable priority 108",
            "ip rule add from 10.3.0.0/16 prohibit priority 109",
            "ip rule add from all goto 32766 priority 110",
            "ip rule add nop priority 111",
            "ip rule add uidrange 100-200 table 204 priority 112",
            "ip rule add ipproto tcp sport 80 dport 1000-2000 table 205 priority 113",
            "ip rule add l3mdev priority 114",
            "ip rule add tun_id 77 table 206 priority 115",
            "ip rule add from 10.4.0.0/16 realms 1/2 table 207 priority 116",
            "ip rule add from 10.5.0.0/16 table 208 suppress_ifgroup 3 priority 117 protocol bird",
            "ip rule add table local priority 118",
        ],
    );
    let names = names(&made);
    for name in [
        "rule/ipv4/100/from=10.39.0.0/24/table=200",
        "rule/ipv4/9/fwmark=0x200/0xf00/table=2004",
        "rule/ipv4/119/fwmark=0x0/table=2004",
        "rule/ipv4/106/from=10.0.0.0/8/not=true/suppress_prefixlength=0/table=main",
    ] {
        assert!(names.iter().any(|it| it == name), "{name}: {names:#?}");
    }
    comes_back(
        Listing::Rules(Family::Ipv6),
        "ip -6 -d -j rule",
        &[
            "ip -6 rule add from 2001:db8::/32 table 200 priority 100",
            "ip -6 rule add fwmark 7 iif eth0 to 2001:db8:5::1 lookup 6000 priority 101",
            "ip -6 rule add from all prohibit priority 102",
            "ip -6 rule add fwmark 0/0xffffffff table 200 priority 103",
        ],
    );
}

#[test]
fn addresses_come_back_as_they_were() {
    uplinks();
    let made = comes_back(
        Listing::Addresses,
        "ip -d -j addr show dev eth0",
        &[
            "ip addr add 10.50.0.1/24 dev eth0",
            "ip addr add 10.50.1.1/24 brd + dev eth0 label eth0:1",
            "ip addr add 10.50.2.1 peer 10.50.2.2/32 dev eth0",
            "ip addr add 10.50.3.1/24 dev eth0 scope link noprefixroute",
            "ip addr add 10.50.4.1/24 dev eth0 metric 77",
            "ip addr add 10.50.0.2/24 dev eth0",
            "ip addr add 2001:db8:50::1/64 dev eth0",
            "ip addr add 2001:db8:51::1/64 dev eth0 nodad noprefixroute",
            "ip addr add 2001:db8:52::1 peer 2001:db8:52::2/128 dev eth0",
            "ip addr add 2001:db8:53::1/64 dev eth0 home metric 99",
        ],
    );
    let names = names(&made);
    assert!(
        names.contains(&"address/eth0/10.50.2.1/32".to_owned()),
        "{names:#?}"
    );
    ip("addr add 10.50.5.1/24 dev eth0 valid_lft 3600 preferred_lft 1800");
    let all = Rtnl::open(0).list(Listing::Addresses);
    let dynamic = all
        .iter()
        .find(|it| it.0.to_string().contains("10.50.5.1"))
        .expect("it");
    assert!(
        dynamic.1[0].get(Attribute::Dynamic).is_some(),
        "{dynamic:?}"
    );
}

#[test]
fn neighbours_come_back_as_they_were() {
    uplinks();
    comes_back(
        Listing::Neighbours,
        "ip -d -j neigh",
        &[
            "ip neigh add 169.254.1.1 lladdr 46:2a:0d:29:d1:eb dev eth0",
            "ip neigh add 10.39.0.7 lladdr 46:2a:0d:29:d1:ec dev eth0 nud noarp",
            "ip neigh add 10.39.0.8 lladdr 46:2a:0d:29:d1:ed dev eth0 nud stale",
            "ip neigh add 2001:db8:1::7 lladdr 46:2a:0d:29:d1:ee dev eth0 router",
            "ip neigh add 10.39.0.9 lladdr 46:2a:0d:29:d1:ef dev eth0 protocol bird",
            "ip neigh add 10.39.0.10 lladdr 46:2a:0d:29:d1:f0 dev eth0 extern_learn",
        ],
    );
}

#[test]
fn fdb_entries_come_back_as_they_were() {
    uplinks();
    ip("link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 nolearning");
    ip("link set flannel.1 up");
    ip("link add cni0 type bridge");
    ip("link set cni0 up");
    ip("link set eth1 master cni0");
    let show = "bridge -d -j fdb show";
    // Not every kernel has VLANs in bridges.
    let vlans = Path::new("/sys/class/net/cni0/bridge/vlan_filtering").exists();
    if vlans {
        ip("link set cni0 type bridge vlan_filtering 1");
        run("bridge", &["vlan", "add", "dev", "eth1", "vid", "7"]);
        let line = "bridge fdb add 46:2a:0d:29:d1:ef dev eth1 master vlan 7 static";
        let made = comes_back(Listing::Fdb, show, &[line]);
        assert_eq!(names(&made), ["fdb/eth1/46:2a:0d:29:d1:ef/vlan=7/master"]);
    }
    let made = comes_back(
        Listing::Fdb,
        show,
        &[
            "bridge fdb add 46:2a:0d:29:d1:eb dev flannel.1 dst 10.39.0.7",
            "bridge fdb add 46:2a:0d:29:d1:ec dev flannel.1 dst 10.39.0.8 port 4789 vni 7 via eth0",
            "bridge fdb add 46:2a:0d:29:d1:ed dev flannel.1 dst 10.39.0.9 static",
            "bridge fdb add 46:2a:0d:29:d1:ee dev eth1 master static",
            "bridge fdb add 46:2a:0d:29:d1:f0 dev eth1 master static sticky",
            "bridge fdb add 46:2a:0d:29:d1:f1 dev eth0 self",
            "bridge fdb add 46:2a:0d:29:d1:f2 dev cni0 self",
        ],
    );
    let names = names(&made);
    assert!(
        names.contains(&"fdb/eth1/46:2a:0d:29:d1:ee/master".to_owned()),
        "{names:#?}"
    );
    // Where several nodes get what is for nobody known.
    let rtnl = Rtnl::open(0);
    for node in [7, 8, 9] {
        let line = format!("fdb append 00:00:00:00:00:00 dev flannel.1 dst 10.39.0.{node}");
        run("bridge", &line.split(' ').collect::<Vec<_>>());
    }
    let shown = json("bridge -d -j fdb show");
    let all = rtnl.list(Listing::Fdb);
    let (resource, entries) = all
        .iter()
        .find(|it| it.0.to_string() == "fdb/flannel.1/00:00:00:00:00:00")
        .expect("an entry");
    let state = codec::combine(entries).expect("a state");
    assert_eq!(
        state
            .get(Attribute::Dst)
            .map(ToString::to_string)
            .as_deref(),
        Some("10.39.0.7 dst 10.39.0.8 dst 10.39.0.9"),
    );
    let links = rtnl.links();
    rtnl.request(&codec::delete(resource, &links).expect("a request"))
        .expect("deleted");
    for request in codec::write(resource, &state, How::Create, &links).expect("requests") {
        rtnl.request(&request).expect("written");
    }
    assert_eq!(json("bridge -d -j fdb show"), shown);
}

#[test]
fn links_are_set_as_they_were() {
    uplinks();
    ip("link add cni0 type bridge");
    ip("link set eth1 master cni0 mtu 1400");
    let rtnl = Rtnl::open(0);
    let wanted = rtnl.list(Listing::Links);
    let shown = json("ip -d -j link show dev eth1");
    ip("link set eth1 nomaster down mtu 1500");
    let links = rtnl.links();
    let eth1 = Resource::Link("eth1".into());
    let state = &wanted[&eth1][0];
    assert_eq!(state.to_string(), "up true mtu 1400 master cni0");
    for request in codec::write(&eth1, state, How::Replace, &links).expect("requests") {
        rtnl.request(&request).expect("written");
    }
    assert_eq!(rtnl.list(Listing::Links)[&eth1], wanted[&eth1]);
    assert_eq!(json("ip -d -j link show dev eth1").len(), shown.len());
    assert!(
        codec::delete(&eth1, &links).is_err(),
        "no link is ever deleted"
    );
}
