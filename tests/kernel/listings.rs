//! A helper that lists a table again and again, beside one that never listed it before. The
//! changes in between are other ones in each run; `NETGUARD_SEED` repeats a run.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::BuildHasher;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

use netguard::drivers::firewall::protocol::{
    Answer, Ask, Backend, Call, Chain, Reply, Request, read, write,
};

use crate::iptables::alone;
use crate::namespace::run;

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

    /// The chains of the table filter, or why they are not listed.
    fn list(&mut self, chains: Option<&[&str]>) -> Result<Vec<(String, Chain)>, String> {
        let chains = chains.map(|all| all.iter().map(|it| (*it).to_owned()).collect());
        let request = Request {
            family: "ipv4".to_owned(),
            table: "filter".to_owned(),
            ask: Ask::Read(chains, Some(Backend::Nft)),
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

#[test]
fn what_is_known_of_a_table_is_what_would_be_printed_of_it() {
    alone(false);
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
        // Some are none here: no such chain, or no such place.
        run(
            "sh",
            &["-c", &format!("{{ {change}; }} >/dev/null 2>&1; true")],
        );
        let chains = [None, Some(&["FORWARD", "A"][..]), Some(&["OUTPUT"])][step % 3];
        let mut knows_nothing = Helper::start();
        let (known, printed) = (knows.list(chains), knows_nothing.list(chains));
        knows_nothing.end();
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
