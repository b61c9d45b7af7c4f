//! What is judged of rules of nft and of iptables, beside what the kernel does with packets.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netguard::diagnosis::firewall::{Firewall, Mark, NativeChain, PAYLOAD, Ruleset, Traffic};
use netguard::diagnosis::observed::{Packet, Protocol};
use netguard::drivers::firewall::inspect;
use netguard::model::Family;
use netguard::resource::FirewallTable;

use crate::lab::{Lab, OUTSIDE, POD_LINK, Style};

/// How many rules are tried, and how many of those are to be judged for each packet.
const RULES: usize = 400;
const JUDGED: usize = 3 * RULES / 5;

const SETS: &str = "
    set pods { type ipv4_addr; flags interval; elements = { 10.65.0.0/24, 10.66.0.1 }; }
    set others { type ipv4_addr; elements = { 10.65.0.3, 8.8.8.8 }; }
    set none { type ipv4_addr; }
    set ports { type inet_service; flags interval; elements = { 7, 80-90 }; }
    set pairs { type ipv4_addr . ipv4_addr; elements = { 10.65.0.2 . 8.8.8.8 }; }
    set services { type ipv4_addr . inet_proto . inet_service;
        elements = { 8.8.8.8 . tcp . 7, 8.8.8.8 . udp . 9, 10.65.0.2 . tcp . 7 }; }
    set seen { type ipv4_addr; flags dynamic, timeout; timeout 1h; elements = { 10.65.0.2 }; }";

/// Matches of any packet, of which a rule has some.
const ANY: [&str; 33] = [
    "ip saddr 10.65.0.2",
    "ip saddr 10.65.0.0/16",
    "ip saddr != 10.65.0.0/24",
    "ip saddr { 10.65.0.2, 10.65.0.3 }",
    "ip saddr != { 10.65.0.2, 9.9.9.9 }",
    "ip saddr @pods",
    "ip saddr != @others",
    "ip saddr @none",
    "ip saddr @seen",
    "ip daddr { 8.8.8.0/24, 10.65.0.2 }",
    "ip daddr 8.8.8.1-8.8.8.9",
    "ip saddr . ip daddr @pairs",
    "ip saddr . ip daddr { 8.8.8.8 . 10.65.0.2, 10.65.0.2 . 9.9.9.9 }",
    "iifname \"cali*\"",
    "oifname { \"eth0\", \"eth1\" }",
    "iifname != \"eth0\"",
    "ct state new",
    "ct state { established, related }",
    "ct state established,related",
    "ct state != new",
    "meta mark 0x10",
    "meta mark & 0xf0 == 0x10",
    "meta mark != 0x10",
    "fib daddr type local",
    "ip ttl < 200",
    "ip ttl < 63",
    "ip ttl != 63",
    "ip ttl { 1, 60-64 }",
    "meta length > 2000",
    "meta length <= 40",
    "ip length 40-100",
    "limit rate 1/second",
    "limit rate over 1/second burst 1 packets",
];

/// Those of a protocol, of which it has one at most.
const OF_PROTOCOL: [&str; 15] = [
    "meta l4proto { tcp, udp }",
    "meta l4proto != icmp",
    "tcp dport 7",
    "tcp dport != 80-90",
    "udp dport { 7, 9 }",
    "tcp sport @ports",
    "icmp type echo-request",
    "icmp type { echo-reply, destination-unreachable }",
    "ip daddr . meta l4proto . th dport @services",
    "ip protocol udp",
    "tcp dport > 7",
    "udp dport <= 7",
    "udp length 20",
    "udp length < 20",
    "udp length != 8-100",
];

/// Verdict maps, which a rule ends with: in them HIT stands for a jump.
const MAPS: [&str; 5] = [
    "ct state vmap { established : HIT, related : HIT, invalid : drop }",
    "ip saddr vmap { 10.65.0.2 : HIT, 9.9.9.9 : drop }",
    "iifname vmap { \"eth0\" : HIT }",
    "meta l4proto vmap { icmp : HIT, udp : HIT }",
    "ip daddr . meta l4proto . th dport vmap { 8.8.8.8 . tcp . 7 : HIT }",
];

/// The bit of the mark that a rule sets that is met.
const MET: u32 = 1 << 31;

/// Matches of iptables, of which a rule has some, but none twice.
const OF_IPTABLES: [&str; 26] = [
    "-s 10.65.0.2",
    "-s 10.65.0.0/16",
    "! -s 10.65.0.0/24",
    "-d 8.8.8.0/24",
    "-i cali+",
    "! -i eth0",
    "-o eth0",
    "-m conntrack --ctstate NEW",
    "-m conntrack ! --ctstate NEW",
    "-m conntrack --ctstate RELATED,ESTABLISHED",
    "-m mark --mark 0x10",
    "-m mark ! --mark 0x10/0xf0",
    "-m addrtype --dst-type LOCAL",
    "-m ttl --ttl-eq 63",
    "-m ttl ! --ttl-eq 63",
    "-m ttl --ttl-lt 63",
    "-m ttl --ttl-gt 10",
    "-m length --length 40",
    "-m length --length 0:39",
    "-m length ! --length 90:100",
    "-m limit --limit 1/sec",
    "-m hashlimit --hashlimit-upto 1/sec --hashlimit-burst 1 --hashlimit-name x",
    "-m statistic --mode nth --every 2 --packet 0",
    "-m iprange --src-range 10.65.0.1-10.65.0.9",
    "-m dscp ! --dscp 0",
    "-m comment --comment \"-j DROP\"",
];

/// Those of a protocol, of which it has one.
const OF_IPTABLES_PROTOCOL: [&str; 11] = [
    "! -p icmp",
    "-p tcp --dport 7",
    "-p tcp ! --dport 80:90",
    "-p tcp --sport 7",
    "-p tcp --syn",
    "-p tcp --tcp-flags SYN,ACK SYN,ACK",
    "-p udp -m multiport --dports 7,9",
    "-p udp -m udp ! --dport 7",
    "-p udp",
    "-p icmp --icmp-type 8",
    "-p icmp ! --icmp-type 0",
];

/// Numbers that are the same each time.
fn random() -> impl FnMut(usize) -> usize {
    let mut seed: u64 = 7;
    move |most| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).expect("31 bits") % most
    }
}

fn rules() -> Vec<String> {
    let mut next = random();
    let mut rule = |index: usize| {
        let mut words: Vec<String> = (0..next(3))
            .map(|_| ANY[next(ANY.len())].to_owned())
            .collect();
        let hit = format!("jump h{index}");
        match next(4) {
            0 => words.push(MAPS[next(MAPS.len())].replace("HIT", &hit)),
            1 => words.push(format!("counter {hit}")),
            _ => words.push(format!("{} {hit}", OF_PROTOCOL[next(OF_PROTOCOL.len())])),
        }
        words.join(" ")
    };
    (0..RULES).map(&mut rule).collect()
}

fn rules_of_iptables() -> Vec<String> {
    let mut next = random();
    let mut rule = |index: usize| {
        let mut words: Vec<&str> = Vec::new();
        // A module has other words behind its name.
        let name = |it: &str| {
            let it = it.trim_start_matches("! ").trim_start_matches("-m ");
            it.split(' ').next().map(str::to_owned)
        };
        for _ in 0..next(3) {
            let more = OF_IPTABLES[next(OF_IPTABLES.len())];
            if words.iter().all(|it| name(it) != name(more)) {
                words.push(more);
            }
        }
        if next(2) == 0 {
            words.push(OF_IPTABLES_PROTOCOL[next(OF_IPTABLES_PROTOCOL.len())]);
        }
        format!("{} -j h{index}", words.join(" "))
    };
    (0..RULES).map(&mut rule).collect()
}

/// How often each of the rules of nft was met.
fn counted(lab: &Lab) -> Vec<u64> {
    let listed = lab.node.try_run("nft list table inet own").stdout;
    let listed = String::from_utf8(listed).expect("UTF-8");
    numbers(|index| {
        let (_, chain) = listed.split_once(&format!("chain h{index} {{"))?;
        let (_, count) = chain.split_once("counter packets ")?;
        count.split(' ').next()
    })
}

/// And of those of iptables.
fn counted_by_iptables(lab: &Lab) -> Vec<u64> {
    let listed = lab.node.try_run("iptables-save -c -t mangle").stdout;
    let listed = String::from_utf8(listed).expect("UTF-8");
    numbers(|index| {
        let (before, _) = listed.split_once(&format!("] -A h{index} "))?;
        let (_, count) = before.rsplit_once('[')?;
        count.split(':').next()
    })
}

fn numbers<'a>(count: impl Fn(usize) -> Option<&'a str>) -> Vec<u64> {
    let number = |index| {
        count(index)
            .and_then(|it| it.parse().ok())
            .expect("a counter")
    };
    (0..RULES).map(number).collect()
}

fn firewall(lab: &Lab) -> Firewall {
    let read = || Ok::<_, netguard_lab::Error>(inspect(Family::Ipv4));
    let firewall = lab.node.namespace.within(read).expect("a thread");
    firewall.expect("a firewall")
}

#[test]
fn what_is_judged_of_random_rules_of_nft_is_what_the_kernel_does() {
    let lab = Lab::new(Style::Routed);
    let rules = rules();
    let chains = rules.iter().enumerate().map(|(index, rule)| {
        format!(
            "chain h{index} {{ counter meta mark set meta mark | {MET:#x}; }}
             chain r{index} {{ meta mark set 0x10; {rule}; }}\n"
        )
    });
    let jumps: Vec<String> = (0..RULES).map(|it| format!("jump r{it};")).collect();
    let (chains, jumps) = (chains.collect::<String>(), jumps.join(" "));
    let own = lab.style.pod();
    lab.node.run(&format!(
        "nft -f - <<'END'
table inet own {{
    {SETS}
    {chains}
    chain each {{ {jumps} }}
    chain forward {{ type filter hook forward priority 0;
        ip saddr {own} ct state new jump each; ip saddr {OUTSIDE} ct state established jump each; }}
}}
END"
    ));
    let firewall = firewall(&lab);
    let is_own = |it: &&NativeChain| it.table == "inet own";
    let native = firewall.foreign.iter().filter_map(|it| it.rules.as_ref());
    let native = native.clone().find(is_own).expect("the table");
    let judged = (&firewall, &*native.ruleset, NativeChain::TABLE);
    compare(&lab, &rules, judged, || counted(&lab));
}

#[test]
fn what_is_judged_of_random_rules_of_iptables_is_what_the_kernel_does() {
    let lab = Lab::new(Style::Routed);
    let rules = rules_of_iptables();
    let of_each = |text: &dyn Fn(usize) -> String| (0..RULES).map(text).collect::<String>();
    let names = of_each(&|it| format!(":r{it} -\n:h{it} -\n"));
    let jumps = of_each(&|it| format!("-A each -j r{it}\n"));
    let chains = of_each(&|it| {
        format!(
            "-A r{it} -j MARK --set-mark 0x10\n-A r{it} {}\n-A h{it} -j MARK --or-mark {MET:#x}\n",
            rules[it]
        )
    });
    let own = lab.style.pod();
    lab.node.run(&format!(
        "iptables-restore <<'END'
*mangle
:each -
{names}-A FORWARD -s {own} -m conntrack --ctstate NEW -j each
-A FORWARD -s {OUTSIDE} -m conntrack --ctstate ESTABLISHED -j each
{jumps}{chains}COMMIT
END"
    ));
    let firewall = firewall(&lab);
    let has_own = |it: &&Ruleset| {
        let key = (FirewallTable::Mangle, "each".to_owned());
        it.chains.contains_key(&key)
    };
    let ruleset = firewall.rulesets.iter().find(has_own).expect("the table");
    let judged = (&firewall, ruleset, FirewallTable::Mangle);
    compare(&lab, &rules, judged, || counted_by_iptables(&lab));
}

/// Sends packets, and compares what is expected of them with what the rules have counted.
fn compare(
    lab: &Lab,
    rules: &[String],
    (firewall, ruleset, table): (&Firewall, &Ruleset, FirewallTable),
    counted: impl Fn() -> Vec<u64>,
) {
    let own = lab.style.pod();
    let payload = [0; PAYLOAD as usize];
    let to: SocketAddr = format!("{OUTSIDE}:7").parse().expect("an address");
    // One packet goes, and where there is an answer one comes.
    let icmp = || assert!(lab.pings(&format!("-c 1 -W 20 -s {PAYLOAD}")));
    let tcp = || _ = TcpStream::connect_timeout(&to, Duration::from_secs(20));
    let udp = || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.send_to(&payload, to).expect("it is sent");
    };
    for (protocol, port, is_answered) in [
        (Protocol::Icmp, None, true),
        (Protocol::Tcp, Some(7), true),
        (Protocol::Udp, Some(7), false),
    ] {
        let before = counted();
        let send = || {
            match protocol {
                Protocol::Icmp => icmp(),
                Protocol::Tcp => tcp(),
                Protocol::Udp => udp(),
            }
            Ok::<_, netguard_lab::Error>(())
        };
        match protocol {
            Protocol::Icmp => icmp(),
            _ => lab.pod.namespace.within(send).expect("a thread"),
        }
        let after = counted();
        let packet = Packet {
            from: own.parse().expect("an address"),
            to: to.ip(),
            protocol,
            port,
            is_answer: false,
        };
        let mut judged = 0;
        for (index, rule) in rules.iter().enumerate() {
            let met = |is_reply| {
                let nobody = BTreeSet::new();
                let packet = if is_reply {
                    packet.reversed()
                } else {
                    packet.clone()
                };
                let (iif, oif) = match is_reply {
                    true => ("eth0", POD_LINK),
                    false => (POD_LINK, "eth0"),
                };
                let mut traffic = Traffic {
                    iif: Some(iif),
                    oif: Some(oif),
                    ..Traffic::new(&packet, is_reply, &nobody)
                };
                // Either is forwarded once.
                traffic.state.ttl = Some(63);
                let chain = format!("r{index}");
                let outcome = firewall.outcome(ruleset, table, &chain, &traffic);
                let Mark { value, known } = outcome.state.mark;
                let is_judged = outcome.unsure.is_empty() && known & MET != 0;
                is_judged.then_some(u64::from(value & MET != 0))
            };
            let expected = match is_answered {
                true => met(false).zip(met(true)).map(|(one, other)| one + other),
                false => met(false),
            };
            let found = after[index] - before[index];
            if let Some(expected) = expected {
                judged += 1;
                assert_eq!(found, expected, "{protocol:?}: {rule}");
            }
        }
        assert!(judged >= JUDGED, "{protocol:?}: {judged} of {RULES}");
    }
}
