//! A helper that lists a table again and again, beside one that never listed it before. The
//! changes in between are other ones in each run; `NETGUARD_SEED` repeats a run.

use std::collections::hash_map::RandomState;
use std::env;
use std::fs;
use std::hash::BuildHasher;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

use netguard::drivers::firewall::protocol::{
    Answer, Ask, Backend, Call, Chain, Reply, Request, read, write,
};

use crate::iptables::alone;
use crate::namespace::run;

/// Chains by name.
type Listed = Vec<(String, Chain)>;

struct Table {
    backend: Backend,
    family: &'static str,
    name: &'static str,
}

const NFT: Table = Table {
    backend: Backend::Nft,
    family: "ipv4",
    name: "filter",
};

struct Helper {
    child: Child,
    stream: UnixStream,
}

impl Helper {
    fn start() -> Helper {
        let (stream, other) = UnixStream::pair().expect("a connection");
        let child = Command::new(env!("CARGO_BIN_EXE_netguard"))
            .arg("firewall-helper")
            .stdin(OwnedFd::from(other))
            .spawn()
            .expect("a helper");
        Helper { child, stream }
    }

    /// The chains of a table, or why they are not listed.
    fn list(&mut self, table: &Table, chains: Option<&[&str]>) -> Result<Listed, String> {
        let chains = chains.map(|all| all.iter().map(|it| (*it).to_owned()).collect());
        let request = Request {
            family: table.family.to_owned(),
            table: table.name.to_owned(),
            ask: Ask::Read(chains, Some(table.backend)),
        };
        write(&mut self.stream, &Call::Table(request)).expect("a request");
        let answer = read::<Answer>(&mut self.stream).expect("an answer");
        match answer.map(|it| it.and_then(|it| it.reply)) {
            Some(Ok(Reply::Chains(mut all))) => {
                let table = all.pop().expect("a table");
                Ok(table.chains.into_iter().collect())
            }
            Some(Err(fault)) => Err(fault.text),
            other => panic!("{other:?}"),
        }
    }

    /// How much the programs have used that it has run: page faults.
    fn programs(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("a helper");
        // Behind the name in brackets: state is field 3, cminflt 11.
        let fields = stat.rsplit(')').next().expect("fields");
        let field = fields.split_whitespace().nth(8).expect("cminflt");
        field.parse().expect("a number")
    }

    fn end(mut self) {
        drop(self.stream);
        self.child.wait().expect("its end");
    }
}

/// One of these: `n` differs for each step.
fn change(n: u64, step: usize) -> String {
    let chain = ["INPUT", "FORWARD", "A", "B", "C"][(n % 5) as usize];
    let place = n / 5 % 4 + 1;
    let rule = [
        "-s 10.0.0.1 -j ACCEPT",
        "-p tcp --dport 80 -m comment --comment 'a b' -j DROP",
        "-m limit --limit 5/sec -j RETURN",
        "-m set --match-set s1 src -j DROP",
        "-m set --match-set s2 src -j DROP",
        "-j B",
        "-m statistic --mode nth --every 3 -j ACCEPT",
    ][(n / 20 % 7) as usize];
    match n / 140 % 24 {
        0..=6 => format!("iptables -A {chain} {rule}"),
        7..=9 => format!("iptables -I {chain} {place} {rule}"),
        10 | 11 => format!("iptables -D {chain} {place}"),
        12 => format!("iptables -R {chain} {place} {rule}"),
        13 => format!("iptables -F {chain}"),
        14 => format!("iptables -P {chain} DROP"),
        15 => "iptables -N C || iptables -X C".to_owned(),
        16 => format!("nft add rule ip filter {chain} ip saddr 10.0.0.9 udp length {step} drop"),
        17 => format!("nft insert rule ip filter {chain} ip daddr 10.0.0.9 counter accept"),
        18 => "iptables -F; iptables -X".to_owned(),
        19 => "nft delete table ip filter".to_owned(),
        // The same numbers again, with sets whose numbers are exchanged.
        20 => "nft flush ruleset; ipset destroy s1; ipset destroy s2; ipset create s2 hash:ip; \
               ipset create s1 hash:ip"
            .to_owned(),
        21 => "ipset swap s1 s2".to_owned(),
        22 => "nft add chain ip filter other '{ type filter hook input priority 5; }'".to_owned(),
        _ => "nft delete chain ip filter other".to_owned(),
    }
}

/// Numbers that are others in each run, and what repeats them.
fn numbers() -> (u64, impl Iterator<Item = u64>) {
    let chosen = env::var("NETGUARD_SEED")
        .ok()
        .and_then(|it| it.parse().ok());
    let seed: u64 = chosen.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000);
    let numbers = (seed..).map(|it| {
        // splitmix64
        let it = it.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let it = (it ^ it >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it ^ it >> 31
    });
    (seed, numbers)
}

/// Runs a line that may do nothing here: there is no such chain, or no such place.
fn try_to(line: &str) {
    let line = format!("{{ {line}; }} >/dev/null 2>&1; true");
    run("sh", &["-c", &line]);
}

/// What a helper lists that never listed anything before.
fn printed(table: &Table, chains: Option<&[&str]>) -> Result<Listed, String> {
    let mut knows_nothing = Helper::start();
    let printed = knows_nothing.list(table, chains);
    knows_nothing.end();
    printed
}

#[test]
fn what_is_known_of_a_table_is_what_would_be_printed_of_it() {
    alone(false);
    let (seed, numbers) = numbers();
    run(
        "sh",
        &[
            "-c",
            "ipset create s1 hash:ip; ipset create s2 hash:ip; iptables -N A; iptables -N B",
        ],
    );
    let mut knows = Helper::start();
    let (mut listed, mut refused) = (0, 0);
    for (step, n) in numbers.take(150).enumerate() {
        let change = change(n, step);
        try_to(&change);
        let chains = [None, Some(&["FORWARD", "A"][..]), Some(&["OUTPUT"])][step % 3];
        let (known, printed) = (knows.list(&NFT, chains), printed(&NFT, chains));
        // Versions before 1.8.9 list no chain where nft has made a rule in another.
        if printed.is_ok() || known.is_err() {
            assert_eq!(known, printed, "seed {seed}, step {step}: {change}");
        }
        let counted = if known.is_ok() {
            &mut listed
        } else {
            &mut refused
        };
        *counted += 1;
    }
    knows.end();
    assert!(
        listed > 20 && refused < 130,
        "{listed} listed, {refused} refused"
    );
}

/// Tables of the legacy backend: each with how it is changed, and an address and the name of its
/// family.
const LEGACY: [(Table, &str, &str, &str); 2] = [
    (
        legacy("ipv4"),
        "iptables-legacy -t mangle",
        "10.0.0.1",
        "inet",
    ),
    (
        legacy("ipv6"),
        "ip6tables-legacy -t mangle",
        "fd00::1",
        "inet6",
    ),
];

const fn legacy(family: &'static str) -> Table {
    Table {
        backend: Backend::Legacy,
        family,
        name: "mangle",
    }
}

/// Matches and targets, many of which the kernel keeps a state of its own with.
const RULES: [&str; 30] = [
    "-j ACCEPT",
    "-s ADDRESS -i eth0 -p tcp --dport 80 -m comment --comment 'a b' -j DROP",
    "! -s ADDRESS -o eth+ -p udp --sport 1:5 -j RETURN",
    "-m limit --limit 5/sec -j RETURN",
    "-m limit --limit 6/sec",
    "-m statistic --mode nth --every 3 --packet 0 -j ACCEPT",
    "-m statistic --mode random --probability 0.5 -j ACCEPT",
    "-m hashlimit --hashlimit-upto 5/sec --hashlimit-name h1 --hashlimit-mode srcip -j DROP",
    "-m hashlimit --hashlimit-upto 5/sec --hashlimit-name h2 --hashlimit-mode srcip -j DROP",
    "-m recent --name r1 --set",
    "-m recent --name r2 --rcheck --seconds 5 -j DROP",
    "-m quota --quota 1000 -j ACCEPT",
    "-m quota --quota 1001 -j ACCEPT",
    "-m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT",
    "-m connlimit --connlimit-above 3 -j DROP",
    "-m string --string ab --algo bm -j DROP",
    "-m bpf --bytecode '1,6 0 0 1' -j DROP",
    "-m connbytes --connbytes 5 --connbytes-dir both --connbytes-mode packets -j DROP",
    "-m mark --mark 1 -j B",
    "-m mark --mark 1 -g B",
    "-j C",
    "-j LOG --log-prefix 'a b '",
    "-j MARK --set-mark 1",
    "-j MARK --set-mark 2",
    "-p tcp --syn -j TCPMSS --set-mss 100",
    "-j TEE --gateway ADDRESS",
    "-j NFLOG --nflog-prefix x --nflog-group 3",
    "-m set --match-set s1 src -j DROP",
    "-m set --match-set s2 src -j DROP",
    "-j SET --add-set s1 src",
];

/// Makes sets and chains in a namespace of their own, and a helper that knows of nothing.
fn furnish(iptables: &str, address: &str, family: &str) -> Helper {
    alone(false);
    let line = format!(
        "ip link set lo up; ip address add {address} dev lo nodad; \
         for set in s1 s2; do ipset create $set hash:ip family {family}; done; \
         {iptables} -N A; {iptables} -N B; {iptables} -A OUTPUT -j A"
    );
    run("sh", &["-c", &line]);
    Helper::start()
}

#[test]
fn whatever_changes_in_a_legacy_chain_is_listed() {
    for (table, iptables, address, family) in LEGACY {
        let mut knows = furnish(iptables, address, family);
        let asked = Some(&["OUTPUT", "A"][..]);
        let mut before = knows.list(&table, asked);
        let mut alike = 0;
        let rules = RULES.iter().map(|it| it.replace("ADDRESS", address));
        let added = rules.flat_map(|it| [format!("-A A {it}"), format!("-I A {it}")]);
        let others = [
            "-A A -j ACCEPT",
            "-A A -j DROP",
            "-R A 1 -j DROP",
            "-R A 1 -j RETURN",
            "-R A 1 -j B",
            "-R A 1 -j C",
            "-R A 1 -g C",
            "-R A 1 -g B",
            "-R A 1",
            "-D A 2",
            "-P OUTPUT DROP",
            "-P OUTPUT ACCEPT",
            "-A A -j B",
            "-E B D",
            "-N B",
            "-F A",
        ];
        // A chain with a rule about a set is printed each time.
        let lines = others.map(str::to_owned).into_iter().chain(added);
        for line in lines {
            try_to(&format!("{iptables} {line}"));
            let known = knows.list(&table, asked);
            assert_eq!(known, printed(&table, asked), "{line}");
            alike += u32::from(known == before);
            before = known;
            // Packets are counted, and other chains change.
            try_to(&format!("ping -c 1 -W 0.05 {address}"));
            try_to(&format!("{iptables} -I B -j ACCEPT; {iptables} -N C"));
            assert_eq!(knows.list(&table, asked), before, "{line}");
        }
        // Another set gets the number of the one that the rule named.
        for sets in ["s1 s2", "s2 s1"] {
            let first = &sets[..2];
            try_to(&format!(
                "{iptables} -F; ipset destroy; \
                 for set in {sets}; do ipset create $set hash:ip family {family}; done; \
                 {iptables} -A A -m set --match-set {first} src"
            ));
            let known = knows.list(&table, asked);
            assert!(format!("{known:?}").contains(first), "{known:?}");
            assert_eq!(known, printed(&table, asked));
        }
        assert!(alike < 9, "{alike} changed nothing");
        knows.end();
    }
}

#[test]
fn a_legacy_chain_that_is_as_it_was_is_listed_without_a_program() {
    for (table, iptables, address, family) in LEGACY {
        let mut knows = furnish(iptables, address, family);
        for rule in [
            "-m limit --limit 5/sec -j ACCEPT",
            "-j MARK --set-mark 1",
            "-m comment --comment 'a b'",
        ] {
            run("sh", &["-c", &format!("{iptables} -A OUTPUT {rule}")]);
        }
        let asked = Some(&["OUTPUT"][..]);
        let before = knows.list(&table, asked);
        let ran = knows.programs();
        for other in [
            // Where the chain A is in the table changes too.
            format!("{iptables} -N 0; {iptables} -A 0 -j ACCEPT; {iptables} -I PREROUTING -j A"),
            format!("{iptables} -A A -j ACCEPT"),
            format!("ping -c 1 -W 0.05 {address}"),
            format!("{iptables} -F 0; {iptables} -X 0; {iptables} -P INPUT DROP"),
        ] {
            try_to(&other);
            assert_eq!(knows.list(&table, asked), before, "{other}");
            assert_eq!(knows.programs(), ran, "{other}");
        }
        try_to(&format!("{iptables} -A OUTPUT -j ACCEPT"));
        assert_ne!(knows.list(&table, asked), before);
        assert!(knows.programs() > ran);
        knows.end();
    }
}

#[test]
fn what_is_known_of_a_legacy_table_is_what_would_be_printed_of_it() {
    let (seed, mut numbers) = numbers();
    for (table, iptables, address, family) in LEGACY {
        let mut knows = furnish(iptables, address, family);
        let mut known_steps = 0;
        for (step, n) in numbers.by_ref().take(60).enumerate() {
            let chain = ["OUTPUT", "FORWARD", "A", "B", "C"][(n % 5) as usize];
            let place = n / 5 % 4 + 1;
            let rule = RULES[(n / 20 % RULES.len() as u64) as usize];
            let rule = rule.replace("ADDRESS", address);
            let change = match n / 600 % 16 {
                0..=5 => format!("-A {chain} {rule}"),
                6..=8 => format!("-I {chain} {place} {rule}"),
                9 => format!("-D {chain} {place}"),
                10 => format!("-R {chain} {place} {rule}"),
                11 => format!("-F {chain}"),
                12 => "-P OUTPUT DROP".to_owned(),
                13 => format!("-N C || {iptables} -X C"),
                14 => format!("-F; {iptables} -X; {iptables} -N A"),
                _ => "-S; ipset swap s1 s2".to_owned(),
            };
            try_to(&format!("{iptables} {change}"));
            let most = &["OUTPUT", "FORWARD", "A", "B"][..];
            let chains = Some([most, &["FORWARD", "A"], &["OUTPUT"]][step / 2 % 3]);
            let ran = knows.programs();
            let known = knows.list(&table, chains);
            known_steps += u32::from(knows.programs() == ran);
            assert_eq!(
                known,
                printed(&table, chains),
                "seed {seed}, step {step}: {change}"
            );
        }
        assert!(known_steps > 10, "{known_steps} known");
        knows.end();
    }
}
