//! The path of packets through every rule, for one flow and for some seconds.
//!
//! A rule that the kernel meets before all others marks the packets (`meta nftrace set 1`, or
//! `-j TRACE` where only legacy tables have rules). nf_tables then reports what each chain
//! does with them in a multicast group, and the legacy tables by the log of their protocol.
//!
//! What is added is named after this process, and removed when [`Tracer`] ends. What a process
//! that was killed has left behind, the next removes ([`remove_stale`]).

pub mod codec;
mod log;
mod marks;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::Socket;

use super::helper::{programs, saved};
use crate::diagnosis::firewall::{Backend, Firewall, Foreign};
use crate::diagnosis::observed::Packet;
use crate::diagnosis::trace::{Rules, rules_of_legacy, rules_of_nft, untraced};
use crate::modules::Modules;
use crate::netlink::netfilter::subscribe;
use crate::netlink::{LONGEST, Received, messages, receive};
use crate::words::plain;
use codec::Event;
use log::Log;
use marks::Marks;
pub use marks::{is_own_table, remove_stale};

/// `NFNLGRP_NFTRACE` of linux/netfilter/nfnetlink.h, since Linux 4.6.
const GROUP: u32 = 9;
/// The bytes of a socket's buffer.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The most events that are kept.
const MOST: usize = 65_536;

/// What is traced.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    /// The packet.
    pub packet: &'a Packet,
    /// The bytes that the payload of each of its probes begins with, where it has one.
    pub token: [u8; 8],
}

/// A trace that is under way.
#[derive(Debug)]
pub struct Tracer {
    /// Before the others: it ends first.
    marks: Marks,
    nft: Option<Socket>,
    log: Option<Log>,
    events: Vec<Event>,
    /// The rules of nf_tables when it began.
    before: Rules,
    /// What is not traced, and why.
    unknown: Vec<String>,
}

impl Tracer {
    /// Begins one, of what these tables do.
    ///
    /// # Errors
    /// Why nothing can be traced.
    pub fn start(flow: &Flow<'_>, firewall: &Firewall) -> Result<Tracer, String> {
        let has = |backend| {
            let mut rulesets = firewall.rulesets.iter();
            rulesets.any(|it| it.backend == backend && !it.chains.is_empty())
        };
        let is_arp = |it: &Foreign| it.hook.as_ref().is_some_and(|it| it.starts_with("arp-"));
        let mut foreign = firewall.foreign.iter();
        let has_nft = has(Backend::Nft) || foreign.any(|it| !is_arp(it));
        let family = flow.packet.family();
        let mut unknown = Vec::new();
        let mut log = None;
        if has(Backend::Legacy) {
            match Log::open(family) {
                Ok(opened) => log = Some(opened),
                Err(why) => unknown.push(format!("legacy tables: {why}")),
            }
        }
        let nft = match has_nft {
            true => Some(listen().map_err(|error| format!("nf_tables: {}", plain(&error)))?),
            false => None,
        };
        if nft.is_none() && log.is_none() {
            let why = unknown.pop();
            return Err(why.unwrap_or_else(|| "there are no rules to trace".to_owned()));
        }
        // What is left to restore is written down before anything is changed.
        let logger = log.as_ref().map(Log::replaced);
        let marks = match has_nft {
            true => Marks::of_nft(flow, logger)?,
            false => Marks::of_legacy(flow, logger, firewall)?,
        };
        if let Some(log) = &mut log
            && let Err(why) = log.bind()
        {
            unknown.push(format!("legacy tables: {why}"));
        }
        Ok(Tracer {
            marks,
            // What is gone later may be without a text.
            before: match nft {
                Some(_) => list().map(|it| rules_of_nft(&it, &firewall.rulesets)),
                None => Ok(Rules::default()),
            }
            .unwrap_or_default(),
            nft,
            log,
            events: Vec::new(),
            unknown,
        })
    }

    /// What can be read of it.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let nft = self.nft.iter().map(AsFd::as_fd);
        nft.chain(self.log.iter().map(|it| it.socket.as_fd()))
    }

    /// Takes in what was reported by now.
    pub fn read(&mut self) {
        let logs = self.log.iter().map(|it| &it.socket);
        for socket in self.nft.iter().chain(logs) {
            let mut bytes = Vec::with_capacity(LONGEST);
            loop {
                match receive(socket, &mut bytes) {
                    Ok(Received::Messages) => {
                        let events = messages(&bytes);
                        let events = events.filter_map(|it| codec::decode(it.kind, it.payload));
                        self.events.extend(events);
                    }
                    Ok(Received::Overrun) => {
                        let lost = "trace messages were lost".to_owned();
                        if !self.unknown.contains(&lost) {
                            self.unknown.push(lost);
                        }
                    }
                    Err(_) => break,
                }
                if self.events.len() > MOST {
                    self.events.truncate(MOST);
                    break;
                }
            }
        }
    }

    /// Ends it: what was reported, what is listed of the rules now, and what is unknown.
    pub fn finish(mut self, firewall: &Firewall) -> (Vec<Event>, Rules, Vec<String>) {
        self.read();
        // The numbers of legacy rules are those with the marking ones.
        let mut unknown = std::mem::take(&mut self.unknown);
        let rules = self.listed(firewall, &mut unknown);
        let rules = rules.unwrap_or_else(|why| {
            unknown.push(format!("the text of the rules: {why}"));
            Rules::default()
        });
        unknown.extend(self.remove().err());
        (std::mem::take(&mut self.events), rules, unknown)
    }

    /// Ends it without a result.
    ///
    /// # Errors
    /// That something is left, and why.
    pub fn stop(mut self) -> Result<(), String> {
        self.remove()
    }

    fn remove(&mut self) -> Result<(), String> {
        self.marks.remove().map_err(|why| {
            format!(
                "the rules that mark packets are left, the next `netguard diagnose` removes them: {why}"
            )
        })
    }

    fn listed(&mut self, firewall: &Firewall, unknown: &mut Vec<String>) -> Result<Rules, String> {
        let mut rules = Rules::default();
        // Where only legacy tables are traced there may be chains that come before.
        if self.nft.is_some() || may_list() {
            let printed = list()?;
            let (family, priority) = (self.marks.family, self.marks.priority());
            unknown.extend(untraced(&printed, family, priority));
            rules.extend(rules_of_nft(&printed, &firewall.rulesets));
            rules.remember(std::mem::take(&mut self.before));
        }
        if self.log.is_some() {
            let all = saved(self.marks.family, &["-c"]).map_err(|fault| fault.text)?;
            let legacy = super::protocol::Backend::Legacy;
            let legacy = all.iter().filter(|it| it.backend == legacy);
            for it in legacy {
                rules.extend(rules_of_legacy(&it.text, marks::is_own_rule));
            }
        }
        Ok(rules)
    }
}

/// Whether nft can list rules here.
fn may_list() -> bool {
    programs::find("nft").is_some() && Modules::here().may_use("nf_tables")
}

/// What nft lists of all tables.
fn list() -> Result<String, String> {
    let nft = programs::find("nft").ok_or("there is no nft")?;
    let ran = programs::run(&nft, &["-a", "list", "ruleset"], "");
    Ok(ran.map_err(|fault| fault.text)?.printed)
}

/// A socket that the kernel sends traces of nf_tables to.
fn listen() -> io::Result<Socket> {
    let socket = subscribe(&[], RECEIVE_BUFFER, None)?;
    socket.add_membership(GROUP)?;
    Ok(socket)
}
