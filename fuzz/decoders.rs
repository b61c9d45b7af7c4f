//! The decoders of outside input, each as a function of bytes: what cargo-fuzz
//! (fuzz/target.rs) and each test run (tests/fuzzing.rs) feed.
//!
//! A decoder must neither panic nor take long, whatever it is given. What is read
//! from files is read from files here too, in a folder in memory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use netguard::config::{self, Request};
use netguard::conflicts;
use netguard::dbus::{private, unit};
use netguard::diagnose::log::{Log, Place};
use netguard::diagnosis::firewall::{Firewall, Ruleset, Traffic};
use netguard::diagnosis::observed::{Packet, Protocol, Site};
use netguard::diagnosis::trace::{rules_of_legacy, rules_of_nft};
use netguard::drivers::conntrack::codec as conntrack;
use netguard::drivers::firewall;
use netguard::drivers::firewall::helper::{legacy, sizes};
use netguard::drivers::rtnetlink::codec::{self, How};
use netguard::drivers::rtnetlink::links::{Link, Links};
use netguard::drivers::xfrm;
use netguard::journal::read as journal;
use netguard::model::{Family, Segment, Selector, Settings, SysctlKey, Value, facts};
use netguard::modules;
use netguard::process_start;
use netguard::resource::{
    BUILT_IN, Backend, ChainName, Chains, FirewallChains, FirewallTable, Group, Module, NftTable,
    Resource, SetName, TableContents, as_line, words_of_line,
};
use netguard::runtime::last_good::LastGoods;
use netguard::service::state;
use netguard::sources::{netlink, uevent};
use netguard::sys::xtables::Entries;
use netguard::writers as procexec;

/// A decoder.
pub struct Decoder {
    /// Its name, which is also the name of the cargo-fuzz target.
    pub name: &'static str,
    /// Files in the tree that have what it reads: parts of their paths.
    pub like: &'static [&'static str],
    run: Run,
}

enum Run {
    Bytes(fn(&[u8])),
    /// A file of a node at this path, read by `conflicts`.
    File(&'static str),
}

impl Decoder {
    /// Decodes `input`.
    pub fn run(&self, input: &[u8]) {
        match self.run {
            Run::Bytes(run) => run(input),
            Run::File(path) => conflicts(path, input),
        }
    }
}

const fn bytes(name: &'static str, like: &'static [&'static str], run: fn(&[u8])) -> Decoder {
    let run = Run::Bytes(run);
    Decoder { name, like, run }
}

const fn file(name: &'static str, like: &'static [&'static str], path: &'static str) -> Decoder {
    let run = Run::File(path);
    Decoder { name, like, run }
}

/// All of them.
pub const DECODERS: &[Decoder] = &[
    bytes("netlink", &[], netlink),
    bytes("rtnetlink", &[], rtnetlink),
    bytes("conntrack", &[], |input| {
        if let Some((kind, payload)) = input.split_first_chunk()
            && let Some(entry) = conntrack::decode(u16::from_ne_bytes(*kind), payload)
        {
            let _ = conntrack::delete(&entry);
        }
    }),
    bytes("xfrm", &[], |input| {
        let _ = xfrm::policy(input);
        let _ = xfrm::state(input);
    }),
    bytes("connector", &[], |input| {
        procexec::connector::decode(input);
    }),
    bytes("uevent", &[], |input| {
        uevent::module(input);
    }),
    bytes("iptables", &[], iptables),
    bytes("ipset", &[], ipset),
    bytes("nftables", &[], nftables),
    bytes("probe", &[], probe),
    bytes("modules", &["/proc/modules", "/modules.builtin"], modules),
    bytes("dbus", &[], dbus),
    bytes("process", &[], process),
    bytes(
        "config",
        &["tests/config/cases/", "config/profiles/"],
        config,
    ),
    bytes("journal", &["tests/history/"], journal),
    bytes("state", &[], state),
    bytes("preserved", &[], preserved),
    bytes("last-good", &[], last_good),
    bytes("value", &[], value),
    bytes("selector", &[], selector),
    bytes("resource", &[], resource),
    file(
        "sysctl-d",
        &["/sysctl.d/", "/sysctl.conf"],
        "etc/sysctl.d/50-node.conf",
    ),
    file("ufw", &["/ufw/"], "etc/ufw/sysctl.conf"),
    file(
        "network",
        &[".network"],
        "etc/systemd/network/10-eth0.network",
    ),
    file(
        "networkd-conf",
        &["/networkd.conf"],
        "etc/systemd/networkd.conf",
    ),
    file(
        "tuned-profile",
        &["/tuned.conf"],
        "etc/tuned/node/tuned.conf",
    ),
    file(
        "tuned-main",
        &["/tuned-main.conf"],
        "etc/tuned/tuned-main.conf",
    ),
    file(
        "tuned-active",
        &["/active_profile"],
        "etc/tuned/active_profile",
    ),
    file(
        "network-manager",
        &["/NetworkManager/"],
        "etc/NetworkManager/conf.d/10-node.conf",
    ),
    file("sysconfig", &["/sysconfig/"], "etc/sysconfig/network"),
    file(
        "ifcfg",
        &["/ifcfg-"],
        "etc/sysconfig/network-scripts/ifcfg-eth0",
    ),
    file(
        "interfaces",
        &["/network/interfaces"],
        "etc/network/interfaces",
    ),
    file("wireguard", &["/wireguard/"], "etc/wireguard/wg0.conf"),
    file(
        "shell",
        &["/rc.local", "/if-up.d/", "/dispatcher.d/"],
        "etc/rc.local",
    ),
    file(
        "unit",
        &[".service", "/tune.conf"],
        "etc/systemd/system/node.service",
    ),
];

/// The message type in two bytes, then what follows the netlink header.
fn netlink(input: &[u8]) {
    let Some((kind, payload)) = input.split_first_chunk() else {
        return;
    };
    if let netlink::message::Message::Netconf(netconf) =
        netlink::message::Message::decode(u16::from_ne_bytes(*kind), payload)
    {
        assert!(netconf.names().count() < 10);
        netconf.is_of_all_settings();
    }
}

/// The message type in two bytes, then what follows the netlink header. What is
/// decoded can be written.
fn rtnetlink(input: &[u8]) {
    let Some((kind, payload)) = input.split_first_chunk() else {
        return;
    };
    let mut links = Links::default();
    for index in 1..8 {
        let name = format!("eth{index}").as_str().into();
        links.insert(index, Link { name, up: true });
    }
    if let Some((index, link)) = codec::decode_link(payload) {
        links.insert(index, link);
    }
    let kind = u16::from_ne_bytes(*kind);
    let _ = codec::inspect_link(payload);
    for place in codec::traffic_control::decode_qdisc(36, payload) {
        let _ = codec::traffic_control::ask_filters(&place);
    }
    let _ = codec::decode_space(payload);
    let _ = codec::decode_way(kind, payload, &links);
    let decoded = codec::decode(kind, payload, &links);
    let Some((resource, Some(state))) = decoded else {
        return;
    };
    assert!(
        !resource.to_string().contains(char::is_whitespace),
        "{resource:?}"
    );
    let _ = codec::write(&resource, &state, How::Create, &links);
    let _ = codec::delete(&resource, &links);
    codec::combine(&[state.clone(), state]);
}

/// What programs of iptables and nft print, the frames of their helper, and what ends a
/// transaction of nf_tables, or traces a packet.
fn iptables(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let chains = ["INPUT", "FORWARD", "cali-FORWARD"].map(ChainName::parse);
    let chains: Vec<ChainName> = chains.into_iter().flatten().collect();
    assert!(firewall::helper::listed(&text, Some(&chains)).len() <= chains.len());
    let mut table = Chains::default();
    let all = firewall::helper::listed(&text, None);
    let is_read = all.iter().all(|(name, chain)| {
        let lines = chain.rules.iter().map(String::as_str);
        table.add(Backend::Nft, name, lines).is_ok()
    });
    let name = Segment::parse("c*").expect("a pattern");
    let of = FirewallChains {
        family: Family::Ipv4,
        table: FirewallTable::Filter,
        name,
    };
    let state = table.state(&of);
    let known = Chains::of(&state);
    assert!(!is_read || table.missing(&of, &known).is_empty());
    let _ = Chains::default().missing(&of, &known);
    follow(&text);
    for line in text.lines() {
        if let Some(words) = words_of_line(line) {
            assert_eq!(words_of_line(&as_line(&words)), Some(words));
        }
    }
    let _ = firewall::protocol::read::<firewall::protocol::Request>(&mut &*input);
    let _ = firewall::protocol::read::<firewall::protocol::Answer>(&mut &*input);
    let _ = firewall::nft_events::end(input);
    let _ = firewall::audit::replaced(input);
    if let Some((kind, payload)) = input.split_first_chunk() {
        let _ = firewall::trace::codec::decode(u16::from_ne_bytes(*kind), payload);
    }
    let _ = firewall::kernel_chains::chain(input);
    for family in [Family::Ipv4, Family::Ipv6] {
        let hooks = std::array::from_fn(|hook| input.get(hook).copied().map(usize::from));
        let bytes = input.to_vec();
        let entries = Entries { hooks, bytes };
        let asked = BUILT_IN.map(|it| ChainName::parse(it).expect("a chain"));
        let _ = sizes::of_entries(family, &entries);
        let _ = legacy::snapshot_of(family, FirewallTable::Nat, &entries, &asked);
    }
}

/// What `ipset save` prints of a set, and the frames about sets.
fn ipset(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Some(name) = SetName::parse("pods") {
        let _ = firewall::sets::listed(&name, &text, false);
    }
    let _ = firewall::protocol::read::<firewall::protocol::SetAsk>(&mut &*input);
    let _ = firewall::protocol::read::<firewall::protocol::SetAnswer>(&mut &*input);
}

/// What nft prints of a table, what is made of it, and the messages of its transactions.
fn nftables(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let table = NftTable::parse("inet x").expect("a table");
    if let Ok((contents, _)) = TableContents::listed(&table, &text) {
        assert_eq!(TableContents::of(&contents.state()), contents);
        // It stays within its table.
        assert!(TableContents::parse(&contents.text()).is_ok());
        let _ = contents.devices();
        let _ = contents.of_table();
        assert!(TableContents::parse(&contents.on(|name| name == "eth0").text()).is_ok());
    }
    let _ = firewall::protocol::read::<firewall::protocol::NftAsk>(&mut &*input);
    let _ = firewall::protocol::read::<firewall::protocol::NftAnswer>(&mut &*input);
    let _ = firewall::nftables::transactions::touched_tables(input).count();
    if let Some((_, rule)) = firewall::kernel_rules::rule(input) {
        let _ = rule.is_printed_by("-j DROP");
    }
}

/// Rules that a packet is followed through.
fn follow(text: &str) {
    let (chains, _) = firewall::chains(text);
    let ruleset = Ruleset {
        chains,
        ..Ruleset::default()
    };
    rules_of_legacy(text, |_| false);
    rules_of_nft(text, std::slice::from_ref(&ruleset));
    let packet = Packet {
        from: [10, 65, 0, 2].into(),
        to: [8, 8, 8, 8].into(),
        protocol: Protocol::Tcp,
        port: Some(443),
        is_answer: false,
    };
    let (all, own) = (Firewall::default(), BTreeSet::new());
    let traffic = Traffic::new(&packet, false, &own);
    for table in FirewallTable::ALL {
        for chain in table.built_in() {
            let _ = all.outcome(&ruleset, table, chain, &traffic);
        }
        let _ = ruleset.uncalled(table);
    }
    let _ = all.translators(&ruleset, &traffic).count();
}

/// Packets that a packet socket sees, and a raw socket.
fn probe(input: &[u8]) {
    let Some((token, bytes)) = input.split_first_chunk() else {
        return;
    };
    for protocol in Protocol::ALL {
        let packet = Packet {
            from: [10, 65, 0, 2].into(),
            to: [8, 8, 8, 8].into(),
            protocol,
            port: Some(443),
            is_answer: false,
        };
        let mut log = Log::default();
        for part in [bytes, bytes.get(28..).unwrap_or(&[])] {
            let place = Place {
                site: Site::Node,
                index: 1,
                is_out: false,
                is_strange: false,
                at: Duration::ZERO,
                length: part.len(),
            };
            log.take(place, part, &packet, *token);
            log.receive(part, &packet, *token);
        }
        assert!(log.sightings(&packet, *token).len() <= 2);
        let answered = log.answered(&packet, *token);
        assert!(log.rejected(&packet, *token) <= answered && answered <= 2);
    }
}

/// `/proc/modules`, and the lists of a kernel's modules.
fn modules(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for module in text.lines().filter_map(Module::listed).take(8) {
        assert!(!module.as_str().is_empty());
        modules::listed_state(&text, &module);
    }
    if let Some(module) = text.split(' ').next().and_then(Module::parse) {
        modules::listed_state(&text, &module);
    }
}

/// What systemd or a bus sends: messages, and object paths in them.
fn dbus(input: &[u8]) {
    let mut message = input.to_vec();
    private::message_length(&message);
    private::name_sender(&mut message);
    assert_eq!(message.len(), input.len());
    if let Ok(path) = str::from_utf8(input) {
        unit::unit_of(path);
    }
}

/// `/proc/PID` of a process that chooses its name and arguments.
fn process(input: &[u8]) {
    procexec::image::words(input);
    let text = String::from_utf8_lossy(input);
    procexec::image::birth(&text);
    if let Some(cgroup) = procexec::image::systemds(&text) {
        procexec::unit::units(cgroup);
    }
    state::lock::holder_in(&text, "00:1a:4711");
    process_start::name_and_start(&text);
}

/// A configuration, and what is said of it.
fn config(input: &[u8]) {
    let file = put("config/netguard.toml", input);
    let request = Request {
        root: node().to_owned(),
        file: Some(file),
    };
    match config::load(&request) {
        Ok(loaded) => {
            loaded.unmatched(node());
            loaded.consequences(node());
            for warning in &loaded.warnings {
                let _ = warning.to_string();
            }
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
}

/// Saved journal entries, one a line.
fn journal(input: &[u8]) {
    let saved = journal::Place::Saved(put("records.json", input));
    let query = journal::Query::default();
    let Ok(entries) = journal::read(&saved, query) else {
        return;
    };
    for entry in entries {
        match entry {
            Ok(entry) => {
                entry.to_json();
                entry.body();
                entry.selector();
                entry.writer();
            }
            Err(error) => {
                let _ = error.to_string();
            }
        }
    }
}

/// The state that an earlier daemon left.
fn state(input: &[u8]) {
    put("state/run/netguard/state.json", input);
    let root = folder().join("state");
    if let Ok(state::Asked::State(mut contents, _)) = state::ask(&root) {
        contents.advance(netguard::clock::now());
    }
    if let Ok((mut place, memory)) = state::Place::take(&root) {
        let _ = place.take_unreported();
        drop(memory);
    }
}

/// What an earlier daemon knew of preserved resources.
fn preserved(input: &[u8]) {
    let network = std::fs::metadata("/proc/self/ns/net");
    let network = network.map_or(0, |it| std::os::unix::fs::MetadataExt::ino(&it));
    let own = format!("\"network\":{network}");
    let text = String::from_utf8_lossy(input).replace("\"network\":null", &own);
    put("preserved/run/netguard/preserved.json", text.as_bytes());
    if let Ok((_, memory)) = state::Place::take(&folder().join("preserved")) {
        for entry in &memory.preserved.entries {
            let _ = (entry.key.to_string(), entry.state.to_string());
        }
    }
}

/// The last good configuration.
fn last_good(input: &[u8]) {
    put("state/var/lib/netguard/last-good.json", input);
    let root = folder().join("state");
    let file = None;
    if let Some(last_goods) = LastGoods::new(&Request { root, file }) {
        last_goods.read();
    }
}

/// A key on the first line, then what it is and what is written to it.
fn value(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (Ok(key), before, written) = (SysctlKey::parse(line()), Value::new(line()), line()) else {
        return;
    };
    facts::write(&key, written, Some(&before));
    let format = facts::format(&Selector::Key(key));
    format.same(&before, &Value::new(written));
    format.kept(&before);
    facts::integer(written);
}

/// Two keys or patterns, and what they have in common.
fn selector(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (one, other) = text
        .split_once('\n')
        .unwrap_or((&text, "net.ipv4.conf.*.*"));
    let (Ok(one), Ok(other)) = (Selector::parse(one), Selector::parse(other)) else {
        return;
    };
    assert_eq!(Selector::parse(&one.to_string()).as_ref(), Ok(&one));
    one.meets(&other);
    assert!(!one.covers(&other) || one.meets(&other) || !other.meets(&other));
    if let Selector::Key(key) = &other {
        one.matches(key);
    }
}

/// A resource of another kind, or a group of them.
fn resource(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Some(group) = Group::parse(&text) {
        assert_eq!(Group::parse(&group.to_string()), Some(group));
    }
    if let Some(resource) = Resource::parse(&text) {
        assert_eq!(Resource::parse(&resource.to_string()), Some(resource));
    }
}

fn conflicts(path: &str, input: &[u8]) {
    put(&format!("node/{path}"), input);
    conflicts::find(node(), settings());
}

/// What is guarded while files are searched for conflicts.
fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let file = put("guarded.toml", GUARDED.as_bytes());
        let root = folder().to_owned();
        let request = Request {
            root,
            file: Some(file),
        };
        config::load(&request).expect("a configuration").settings
    })
}

const GUARDED: &str = r#"
[sysctl]
"net.ipv4.ip_forward" = 1
"net.ipv4.conf.*.rp_filter" = [0, 2]
"net.ipv4.conf.cali*.forwarding" = 1
"net.ipv6.conf.eth0.accept_ra" = 2
"net.ipv6.conf.all.disable_ipv6" = 0
"net.ipv4.tcp_rmem" = { min = [4096, 65536, 4194304] }
"net.bridge.bridge-nf-call-iptables" = 1
"#;

/// A node on which everything that applies files is enabled.
fn node() -> &'static Path {
    static NODE: OnceLock<PathBuf> = OnceLock::new();
    NODE.get_or_init(|| {
        for (path, text) in NODE_FILES {
            put(&format!("node/{path}"), text.as_bytes());
        }
        folder().join("node")
    })
}

const NODE_FILES: &[(&str, &str)] = &[
    ("usr/lib/systemd/systemd-sysctl", ""),
    ("usr/lib/systemd/libsystemd-shared-252.so", ""),
    ("usr/lib64/libprocps.so.7.1.0", ""),
    (
        "usr/lib/sysctl.d/50-default.conf",
        "net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.all.rp_filter\n",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/NetworkManager.service",
        "",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/tuned.service",
        "",
    ),
    ("etc/tuned/active_profile", "node\n"),
    ("etc/ufw/ufw.conf", "ENABLED=yes\n"),
    ("etc/default/ufw", "IPT_SYSCTL=/etc/ufw/sysctl.conf\n"),
    (
        "etc/rc.d/init.d/network",
        "sysctl -w net.ipv4.ip_forward=0\napply_sysctl\n",
    ),
    (
        "etc/sysconfig/network-scripts/init.ipv6-global",
        "sysctl -e -w net.ipv6.conf.all.forwarding=0\n",
    ),
    ("proc/sys/net/ipv4/ip_forward", "1\n"),
    ("proc/sys/net/ipv4/conf/eth0/rp_filter", "1\n"),
    ("proc/sys/net/ipv4/conf/cali0/rp_filter", "1\n"),
    ("proc/sys/net/ipv6/conf/eth0/accept_ra", "1\n"),
];

/// Writes a file of the folder, and gives its path.
fn put(name: &str, contents: &[u8]) -> PathBuf {
    let path = folder().join(name);
    if fs::write(&path, contents).is_err() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, contents).expect("a file");
    }
    path
}

/// This process's folder, in memory.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        parent.join(format!("netguard-fuzz-{}", std::process::id()))
    })
}
