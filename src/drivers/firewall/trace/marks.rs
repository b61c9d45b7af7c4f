//! The rules that mark the packets of a flow, so that the kernel traces them.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::process;
use std::time::Duration;

use super::Flow;
use super::log::Logger;
use crate::clock;
use crate::diagnosis::firewall::{Backend, Firewall};
use crate::diagnosis::observed::{Packet, Protocol};
use crate::drivers::firewall::helper::programs;
use crate::drivers::firewall::protocol::Fault;
use crate::model::Family;
use crate::modules::Modules;
use crate::process_start::{own_start, start_of};
use crate::resource::{FirewallTable, TableFamily, words_of_line};

/// What the names of all that is added begin with.
const NAME: &str = "netguard-trace";
/// How long after its begin a trace is over for certain: nothing takes minutes.
const LONGEST: Duration = Duration::from_secs(600);
/// Before the table raw of iptables, which is at -300.
const PRIORITY: i32 = -350;
/// That of the table raw (linux/netfilter_ipv4.h).
const RAW: i32 = -300;
/// Where legacy rules mark: what comes in, and what the node itself answers.
const CHAINS: [&str; 2] = ["PREROUTING", "OUTPUT"];
/// The commands of legacy tables.
const COMMANDS: [(Family, [&str; 2]); 2] = [
    (Family::Ipv4, ["iptables-legacy", "iptables"]),
    (Family::Ipv6, ["ip6tables-legacy", "ip6tables"]),
];

/// Rules that were added, and are removed with this.
#[derive(Debug)]
pub struct Marks {
    pub family: Family,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A table of nf_tables.
    Table(String),
    /// Rules of a legacy table, each as the words after `-A`.
    Rules(String, Vec<Vec<String>>),
}

/// Whether a table of nf_tables is one of those, by its name or `FAMILY NAME`.
pub fn is_own_table(name: &str) -> bool {
    let name = name.rsplit(' ').next().unwrap_or_default();
    name.strip_prefix(NAME)
        .is_some_and(|it| it.starts_with('-'))
}

/// Whether a legacy rule is one of those.
pub fn is_own_rule(rule: &str) -> bool {
    rule.contains(&format!("\"{NAME} "))
}

/// What is written on them: whose they are, and which logger was replaced.
#[derive(Debug, PartialEq, Eq)]
struct Label {
    pid: u32,
    /// The inode of the PID namespace that the number is of.
    space: u64,
    /// When that process began, in ticks since the boot: its number may be given again.
    start: u64,
    /// When the trace is over for certain, in seconds since the boot.
    deadline: u64,
    logger: Option<Logger>,
}

/// `netguard-trace 4711 4026531836 88123 1481 2 nf_log_ipv4`
impl Label {
    fn new(logger: Option<&Logger>) -> Label {
        Label {
            pid: process::id(),
            space: own_space(),
            start: own_start(),
            deadline: since_boot() + LONGEST.as_secs(),
            logger: logger.cloned(),
        }
    }

    fn text(&self) -> String {
        let Label {
            pid,
            space,
            start,
            deadline,
            logger,
        } = self;
        let mut text = format!("{NAME} {pid} {space} {start} {deadline}");
        if let Some(Logger { number, name }) = logger {
            text.push_str(&format!(" {number} {name}"));
        }
        text
    }

    fn parse(text: &str) -> Option<Label> {
        let mut words = text.strip_prefix(NAME)?.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let space = words.next()?.parse().ok()?;
        let start = words.next()?.parse().ok()?;
        let deadline = words.next()?.parse().ok()?;
        let logger = words.next().zip(words.next()).and_then(|(number, name)| {
            let (number, name) = (number.parse().ok()?, name.to_owned());
            Some(Logger { number, name })
        });
        Some(Label {
            pid,
            space,
            start,
            deadline,
            logger,
        })
    }

    /// Whether that process has ended. Of one in another PID namespace that is not known until
    /// the trace must be over.
    fn is_stale(&self) -> bool {
        let has_ended = || self.space == own_space() && start_of(self.pid) != Some(self.start);
        since_boot() > self.deadline || has_ended()
    }
}

/// All PID namespaces have the same boot.
fn since_boot() -> u64 {
    Duration::from_nanos(clock::uptime().1).as_secs()
}

fn own_space() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |it| it.ino())
}

impl Marks {
    /// A table of its own.
    pub fn of_nft(flow: &Flow<'_>, logger: Option<&Logger>) -> Result<Marks, String> {
        let family = flow.packet.family();
        let table = format!(
            "{} {NAME}-{}",
            TableFamily::from(family).as_str(),
            process::id()
        );
        let rules: Vec<String> = matches_of_nft(flow)
            .iter()
            .map(|it| {
                let label = Label::new(logger).text();
                format!("{it} meta nftrace set 1 comment \"{label}\"; ")
            })
            .collect();
        let rules = rules.concat();
        let chain = |hook: &str| {
            format!("chain {hook} {{ type filter hook {hook} priority {PRIORITY}; {rules}}}\n")
        };
        let input = format!(
            "table {table} {{\n{}{}}}\n",
            chain("prerouting"),
            chain("output")
        );
        let marks = Marks {
            family,
            kind: Kind::Table(table),
        };
        nft(&["-f", "-"], &input)?;
        Ok(marks)
    }

    /// Rules of the table raw.
    pub fn of_legacy(
        flow: &Flow<'_>,
        logger: Option<&Logger>,
        firewall: &Firewall,
    ) -> Result<Marks, String> {
        let mut rulesets = firewall.rulesets.iter();
        let legacy = rulesets.find(|it| it.backend == Backend::Legacy);
        let legacy = legacy.ok_or("there are no legacy tables")?;
        let has_raw = legacy
            .chains
            .keys()
            .any(|(table, _)| *table == FirewallTable::Raw);
        // A table that was made cannot be removed.
        if !has_raw {
            return Err("legacy tables: the kernel has no table raw here yet".to_owned());
        }
        let label = Label::new(logger).text();
        let mut marks = Marks {
            family: flow.packet.family(),
            kind: Kind::Rules(legacy.command.clone(), Vec::new()),
        };
        for chain in CHAINS {
            for matches in matches_of_legacy(flow) {
                let mut rule = vec![chain.to_owned()];
                rule.extend(matches.split(' ').map(str::to_owned));
                rule.extend(
                    ["-m", "comment", "--comment", &label, "-j", "TRACE"].map(str::to_owned),
                );
                marks.add(rule)?;
            }
        }
        Ok(marks)
    }

    /// Where packets are marked.
    pub fn priority(&self) -> i32 {
        match self.kind {
            Kind::Table(_) => PRIORITY,
            Kind::Rules(..) => RAW,
        }
    }

    fn add(&mut self, rule: Vec<String>) -> Result<(), String> {
        if let Kind::Rules(command, rules) = &mut self.kind {
            // First: iptables may be ended after the kernel has taken the rule.
            rules.push(rule.clone());
            iptables(command, "-I", &rule)?;
        }
        Ok(())
    }

    /// Removes them.
    ///
    /// # Errors
    /// Why it could not. What is left the next run removes.
    pub fn remove(&mut self) -> Result<(), String> {
        match &mut self.kind {
            Kind::Table(table) => match std::mem::take(table) {
                table if table.is_empty() => Ok(()),
                table => nft(&delete(&table), "").map(drop),
            },
            Kind::Rules(command, rules) => {
                let rules = std::mem::take(rules);
                rules.iter().try_for_each(|it| iptables(command, "-D", it))
            }
        }
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

fn delete(table: &str) -> Vec<&str> {
    ["delete", "table"]
        .into_iter()
        .chain(table.split(' '))
        .collect()
}

/// Removes what processes have left behind in this network namespace that were killed.
pub fn remove_stale() {
    if programs::find("nft").is_some() && Modules::here().may_use("nf_tables") {
        for line in nft(&["list", "tables"], "").unwrap_or_default().lines() {
            let Some(table) = line.strip_prefix("table ") else {
                continue;
            };
            let name = table.split(' ').nth(1).unwrap_or_default();
            if is_own_table(name)
                && let Some(label) = label_of(table).filter(Label::is_stale)
                && nft(&delete(table), "").is_ok()
            {
                label.logger.inspect(Logger::restore);
            }
        }
    }
    for (family, commands) in COMMANDS {
        let list = match family {
            Family::Ipv4 => "/proc/self/net/ip_tables_names",
            Family::Ipv6 => "/proc/self/net/ip6_tables_names",
        };
        let names = fs::read_to_string(list).unwrap_or_default();
        if !names.lines().any(|it| it == FirewallTable::Raw.as_str()) {
            continue;
        }
        let command = commands.into_iter().find(|it| programs::find(it).is_some());
        if let Some(command) = command {
            remove_stale_rules(command);
        }
    }
}

fn remove_stale_rules(command: &str) {
    let Some(program) = programs::find(command) else {
        return;
    };
    let Ok(ran) = programs::run(&program, &["-t", "raw", "-S"], "") else {
        return;
    };
    for line in ran.printed.lines().filter(|it| it.contains(NAME)) {
        let Some(words) = line.strip_prefix("-A ").and_then(words_of_line) else {
            continue;
        };
        let label = words.iter().find_map(|it| Label::parse(it));
        if let Some(label) = label.filter(Label::is_stale)
            && iptables(command, "-D", &words).is_ok()
        {
            label.logger.inspect(Logger::restore);
        }
    }
}

/// What is written on the rules of a table.
fn label_of(table: &str) -> Option<Label> {
    let words: Vec<&str> = ["list", "table"]
        .into_iter()
        .chain(table.split(' '))
        .collect();
    let text = nft(&words, "").ok()?;
    let (_, rest) = text.split_once("comment \"")?;
    Label::parse(rest.split('"').next()?)
}

fn nft(arguments: &[&str], input: &str) -> Result<String, String> {
    let nft = programs::find("nft").ok_or("there is no nft")?;
    done(programs::run(&nft, arguments, input))
}

fn iptables(command: &str, what: &str, rule: &[String]) -> Result<(), String> {
    let program = programs::find(command).ok_or_else(|| format!("there is no {command}"))?;
    // Seconds: kube-proxy keeps the lock for some on a large node.
    let mut arguments = vec!["--wait=10", "-t", "raw", what];
    arguments.extend(rule.iter().map(String::as_str));
    done(programs::run(&program, &arguments, "")).map(drop)
}

fn done(ran: Result<programs::Ran, Fault>) -> Result<String, String> {
    let printed = ran.and_then(|it| it.done(|_| nix::libc::EIO));
    printed.map_err(|fault| fault.text)
}

/// What the probes of a flow match, and the answers to them: translation may change addresses
/// and ports, but no payload.
fn matches_of_nft(flow: &Flow<'_>) -> Vec<String> {
    let Packet {
        from,
        to,
        protocol,
        port,
        ..
    } = flow.packet;
    let ip = TableFamily::from(flow.packet.family()).as_str();
    let token = format!("@th,64,64 {:#018x}", u64::from_be_bytes(flow.token));
    let port = port.unwrap_or(0);
    let ways = [
        format!("{ip} saddr {from} {ip} daddr {to}"),
        format!("{ip} saddr {to}"),
    ];
    match (protocol, to) {
        (Protocol::Icmp, IpAddr::V4(_)) => {
            vec![format!("icmp type {{ echo-request, echo-reply }} {token}")]
        }
        (Protocol::Icmp, IpAddr::V6(_)) => {
            vec![format!(
                "icmpv6 type {{ echo-request, echo-reply }} {token}"
            )]
        }
        (Protocol::Udp, to) => {
            let [out, back] = ways;
            // The error has the header of IP and that of the datagram in it.
            let error = match to {
                IpAddr::V4(_) => format!("icmp type destination-unreachable @th,240,16 {port}"),
                IpAddr::V6(_) => format!("icmpv6 type destination-unreachable @th,400,16 {port}"),
            };
            vec![
                format!("{out} udp dport {port} {token}"),
                format!("{back} udp sport {port}"),
                format!("{back} {error}"),
            ]
        }
        (Protocol::Tcp, _) => {
            let [out, back] = ways;
            vec![
                format!("{out} tcp dport {port} tcp flags & (syn | ack) == syn"),
                format!("{back} tcp sport {port} tcp flags & (syn | rst) != 0"),
            ]
        }
    }
}

/// As [`matches_of_nft`]; others of the same two hosts match too.
fn matches_of_legacy(flow: &Flow<'_>) -> Vec<String> {
    let Packet {
        from,
        to,
        protocol,
        port,
        ..
    } = flow.packet;
    let port = port.unwrap_or(0);
    let (icmp, option, echo, unreachable) = match to {
        IpAddr::V4(_) => ("icmp", "--icmp-type", ["8", "0"], "3"),
        IpAddr::V6(_) => ("icmpv6", "--icmpv6-type", ["128", "129"], "1"),
    };
    match protocol {
        Protocol::Icmp => vec![
            format!("-s {from} -d {to} -p {icmp} -m {icmp} {option} {}", echo[0]),
            format!("-s {to} -p {icmp} -m {icmp} {option} {}", echo[1]),
        ],
        Protocol::Udp => vec![
            format!("-s {from} -d {to} -p udp -m udp --dport {port}"),
            format!("-s {to} -p udp -m udp --sport {port}"),
            format!("-s {to} -p {icmp} -m {icmp} {option} {unreachable}"),
        ],
        Protocol::Tcp => vec![
            format!("-s {from} -d {to} -p tcp -m tcp --dport {port} --tcp-flags SYN,ACK SYN"),
            format!("-s {to} -p tcp -m tcp --sport {port} --tcp-flags SYN,RST SYN"),
            format!("-s {to} -p tcp -m tcp --sport {port} --tcp-flags RST RST"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_shows_whose_it_is_and_what_was_replaced() {
        let logger = Logger {
            number: 2,
            name: "nf_log_ipv4".to_owned(),
        };
        for logger in [None, Some(&logger)] {
            let label = Label::new(logger);
            assert!(!label.is_stale());
            assert_eq!(Label::parse(&label.text()), Some(label));
        }
        let other = Label {
            start: own_start() + 1,
            ..Label::new(None)
        };
        assert!(other.is_stale(), "another process has had the number");
        let elsewhere = Label {
            space: own_space() + 1,
            ..other
        };
        assert!(!elsewhere.is_stale(), "it may run");
        let over = Label {
            deadline: since_boot().saturating_sub(1),
            ..elsewhere
        };
        assert!(over.is_stale(), "none takes so long");
        assert_eq!(Label::parse("netguard-trace"), None);
        assert!(is_own_table("netguard-trace-4711") && !is_own_table("netguard"));
    }
}
