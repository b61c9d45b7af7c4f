//! The rules of nf_tables as the kernel has them, and whether iptables-save(8) prints all of
//! one: it leaves out what it does not know, without a word. `ip saddr 10.0.0.1 udp length 9 drop`
//! is `-s 10.0.0.1/32 -p udp -j DROP` there.
//!
//! A rule is taken for complete only where each of its expressions is one that iptables-nft
//! makes, and has its option in what was printed. That depends neither on which program made
//! the rule nor on the version of iptables.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc;

use crate::engine::Errno;
use crate::model::Family;
use crate::netlink::netfilter::{NF_TABLES, ask_attribute, be_u32, be_u64, request, split, text};
use crate::netlink::{DUMP, INTERRUPTED, Requests, attributes, number_of, push};
use crate::resource::{FirewallTable, words_of_line};

/// `NFT_MSG_NEWRULE` and `NFT_MSG_GETRULE` of linux/netfilter/nf_tables.h.
const NEW_RULE: u16 = NF_TABLES | 6;
const GET_RULE: u16 = NF_TABLES | 7;
/// `NFT_MSG_GETGEN`, and `NFTA_GEN_ID` of what it answers.
const GET_GENERATION: u16 = NF_TABLES | 16;
const GENERATION: u16 = 1;
/// `NFTA_RULE_TABLE`, `_CHAIN`, `_HANDLE`, `_EXPRESSIONS` and `_USERDATA`.
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const HANDLE: u16 = 3;
const EXPRESSIONS: u16 = 4;
const USERDATA: u16 = 7;
/// `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const NAME: u16 = 1;
const DATA: u16 = 2;

/// How often rules are listed that change meanwhile.
const TRIES: usize = 5;

/// The rules of all chains in tables that have names of iptables', in their order.
pub type Rules = BTreeMap<(FirewallTable, String), Vec<KernelRule>>;

/// Reads those of a family: all, those of a table, or those of one of its chains.
///
/// # Errors
/// The kernel's; EAGAIN where they keep changing.
pub fn read(
    family: Family,
    table: Option<FirewallTable>,
    chain: Option<&str>,
) -> Result<Rules, Errno> {
    let mut requests = Requests::open(NETLINK_NETFILTER).map_err(crate::netlink::errno)?;
    let dump = request(GET_RULE, DUMP, number_of(family), |body| {
        for (kind, name) in [(TABLE, table.map(FirewallTable::as_str)), (CHAIN, chain)] {
            if let Some(name) = name {
                push(body, kind, format!("{name}\0").as_bytes());
            }
        }
    });
    // Kernels before 4.7 send all.
    let is_asked = |(of, name): &(FirewallTable, String)| {
        table.is_none_or(|it| it == *of) && chain.is_none_or(|it| it == name)
    };
    for _ in 0..TRIES {
        let mut rules = Rules::new();
        let mut is_interrupted = false;
        let asked = requests.ask(&dump, |message| {
            is_interrupted |= message.flags & INTERRUPTED != 0;
            if message.kind == NEW_RULE
                && let Some((chain, rule)) = rule(message.payload)
                && is_asked(&chain)
            {
                rules.entry(chain).or_default().push(rule);
            }
        });
        match asked {
            // There is no such table.
            Err(Errno(libc::ENOENT)) => {}
            asked => asked?,
        }
        if !is_interrupted {
            return Ok(rules);
        }
    }
    Err(Errno(libc::EAGAIN))
}

/// The number of the last transaction, of any program.
///
/// # Errors
/// The kernel's: those before 3.18 do not number them.
pub fn generation() -> Result<u32, Errno> {
    let number = ask_attribute(&request(GET_GENERATION, 0, 0, |_| ()), GENERATION)?;
    number.and_then(|it| be_u32(&it)).ok_or(Errno(libc::EPROTO))
}

/// The chain of a rule that a message has, and the rule; nothing where its table is not one of
/// iptables.
pub fn rule(payload: &[u8]) -> Option<((FirewallTable, String), KernelRule)> {
    let (number_of_family, all) = split(payload)?;
    let mut families = [Family::Ipv4, Family::Ipv6].into_iter();
    let family = families.find(|it| number_of(*it) == number_of_family)?;
    let (mut table, mut chain) = (None, None);
    let mut rule = KernelRule {
        handle: 0,
        family,
        expressions: Vec::new(),
        userdata: Vec::new(),
    };
    for (kind, value) in all {
        match kind {
            TABLE => table = FirewallTable::of(text(value)?),
            CHAIN => chain = Some(text(value)?.to_owned()),
            HANDLE => rule.handle = be_u64(value)?,
            EXPRESSIONS => rule.expressions = value.to_vec(),
            USERDATA => rule.userdata = value.to_vec(),
            _ => {}
        }
    }
    Some(((table?, chain?), rule))
}

/// A rule.
#[derive(Debug, Clone)]
pub struct KernelRule {
    /// The number by which nft(8) knows it.
    pub handle: u64,
    family: Family,
    expressions: Vec<u8>,
    /// What its program keeps with it: a comment.
    userdata: Vec<u8>,
}

impl Hash for KernelRule {
    /// With all of it but what it has counted.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.handle, &self.userdata).hash(state);
        for (_, expression) in attributes(&self.expressions) {
            let name = attributes(expression).find(|it| it.0 == NAME);
            if name.is_none_or(|(_, name)| text(name) != Some("counter")) {
                expression.hash(state);
            }
        }
    }
}

impl KernelRule {
    /// Whether a line of iptables-save(8), without `-A CHAIN`, has all of it.
    pub fn is_printed_by(&self, line: &str) -> bool {
        let options = options(self.family, &self.expressions);
        let (Some(options), Some(words)) = (options, words_of_line(line)) else {
            return false;
        };
        let mut printed = Vec::new();
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            // A comment may look like an option.
            let value = match word {
                "--comment" => words.next(),
                _ => words.peek().copied(),
            };
            printed.push((word, value));
        }
        // Each has to be there as often as the kernel has it.
        options.iter().all(|(option, value)| {
            let is_own = |(own, of_own): &(&str, Option<&str>)| {
                let is_same = |value: &str| {
                    let alias = (value, of_own.unwrap_or_default());
                    value == alias.1 || ALIASES.contains(&alias)
                };
                own == option && value.as_deref().is_none_or(is_same)
            };
            let found = printed.iter().position(is_own);
            found.map(|at| printed.swap_remove(at)).is_some()
        })
    }
}

/// What iptables-save(8) calls some matches and targets of the kernel as well.
const ALIASES: [(&str, &str); 2] = [("conntrack", "state"), ("CT", "NOTRACK")];

/// What was loaded into a register, to be compared.
struct Loaded {
    register: u32,
    option: (&'static str, Option<&'static str>),
    /// Of which a comparison takes a part.
    mask: Mask,
    is_masked: bool,
}

impl Loaded {
    fn new(register: u32, option: (&'static str, Option<&'static str>), mask: Mask) -> Loaded {
        Loaded {
            register,
            option,
            mask,
            is_masked: false,
        }
    }

    /// What a module of this name matches.
    fn module(register: u32, name: &'static str) -> Loaded {
        Loaded::new(register, ("-m", Some(name)), Mask::Never)
    }
}

/// Which part of a field is compared.
#[derive(PartialEq)]
enum Mask {
    Never,
    Any,
    /// Always this one, with 0.
    Fixed([u8; 2]),
}

/// The 13 bits of `frag-off` that are not zero in all fragments but the first.
const FRAGMENT: [u8; 2] = [0x1f, 0xff];

/// The comparisons of linux/netfilter/nf_tables.h, `NFT_CMP_*`: equal, or not.
const COMPARISONS: [u32; 2] = [0, 1];

/// What iptables-save(8) must print of the expressions in a list, of a rule of this family, in
/// pairs: an option, and its value where that counts. Nothing where one of them is none that
/// iptables makes.
fn options(family: Family, list: &[u8]) -> Option<Vec<(&'static str, Option<String>)>> {
    let mut options = Vec::new();
    let mut loaded: Option<Loaded> = None;
    let mut has_target = false;
    for (_, expression) in attributes(list) {
        let of = |kind| attributes(expression).find(|it| it.0 == kind);
        let name = text(of(NAME)?.1)?;
        let data = of(DATA).map_or(&[][..], |it| it.1);
        let value = |kind| attributes(data).find(|it| it.0 == kind).map(|it| it.1);
        let number = |kind| value(kind).and_then(be_u32);
        // What is loaded is compared next.
        if matches!(name, "bitwise" | "cmp" | "range") != loaded.is_some() {
            return None;
        }
        match name {
            "counter" => {}
            // NFTA_MATCH_NAME, NFTA_TARGET_NAME
            "match" => options.push(("-m", Some(text(value(1)?)?.to_owned()))),
            "target" | "immediate" | "log" if std::mem::replace(&mut has_target, true) => {
                return None;
            }
            "target" => options.push(("-j", Some(text(value(1)?)?.to_owned()))),
            "log" => options.push(("-j", Some("NFLOG".to_owned()))),
            "immediate" => options.push(verdict(number(1)?, value(2)?)?),
            // NFTA_LIMIT_TYPE: packets, and NFTA_LIMIT_FLAGS: up to the limit.
            "limit" if [4, 5].iter().all(|it| number(*it).unwrap_or(0) == 0) => {
                options.push(("-m", Some("limit".to_owned())));
            }
            // Registers are written otherwise too: NFTA_PAYLOAD_DREG, NFTA_META_DREG.
            "payload" => loaded = Some(payload(family, number(1)?, [2, 3, 4].map(number))?),
            "meta" => loaded = Some(meta(number(1)?, number(2)?)?),
            "bitwise" => {
                let loaded = loaded.as_mut()?;
                let [source, target] = [1, 2].map(number);
                let is_own = source == Some(loaded.register) && target == source;
                // NFTA_BITWISE_OP: a mask.
                let is_mask = number(6).unwrap_or(0) == 0 && !loaded.is_masked;
                let nothing = value_of(value(5)?)?.iter().all(|it| *it == 0);
                let mask = value_of(value(4)?)?;
                let is_fit = match loaded.mask {
                    Mask::Never => false,
                    Mask::Any => true,
                    Mask::Fixed(own) => mask == own,
                };
                if !(is_own && is_mask && nothing && is_fit) {
                    return None;
                }
                loaded.is_masked = true;
            }
            "cmp" => {
                let Loaded {
                    register,
                    option,
                    mask,
                    is_masked,
                } = loaded.take()?;
                let is_fixed = matches!(mask, Mask::Fixed(_));
                let is_nothing = value_of(value(3)?)?.iter().all(|it| *it == 0);
                let is_fit = !is_fixed || is_masked && is_nothing;
                if number(1) != Some(register) || !COMPARISONS.contains(&number(2)?) || !is_fit {
                    return None;
                }
                options.push((option.0, option.1.map(str::to_owned)));
            }
            "range" => {
                let loaded = loaded.take()?;
                let is_port = ["--sport", "--dport"].contains(&loaded.option.0);
                if number(1) != Some(loaded.register) || !is_port {
                    return None;
                }
                options.push((loaded.option.0, None));
            }
            _ => return None,
        }
    }
    loaded.is_none().then_some(options)
}

/// `NFTA_DATA_VALUE`
fn value_of(data: &[u8]) -> Option<&[u8]> {
    Some(attributes(data).find(|it| it.0 == 1)?.1)
}

/// What is said of a verdict: in the register of those, with the number of linux/netfilter.h
/// and `NFT_RETURN` and so on.
fn verdict(register: u32, data: &[u8]) -> Option<(&'static str, Option<String>)> {
    // NFTA_DATA_VERDICT, NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN
    let verdict = attributes(data).find(|it| it.0 == 2)?.1;
    let of = |kind| attributes(verdict).find(|it| it.0 == kind);
    let chain = || Some(text(of(2)?.1)?.to_owned());
    let (option, target) = match be_u32(of(1)?.1)?.cast_signed() {
        0 => ("-j", "DROP".to_owned()),
        1 => ("-j", "ACCEPT".to_owned()),
        -3 => ("-j", chain()?),
        -4 => ("-g", chain()?),
        -5 => ("-j", "RETURN".to_owned()),
        _ => return None,
    };
    (register == 0).then_some((option, Some(target)))
}

/// A part of the packet: of which header, from where on, how long.
fn payload(family: Family, register: u32, place: [Option<u32>; 3]) -> Option<Loaded> {
    use Family::{Ipv4, Ipv6};
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    let (option, mask) = match (family, place.map(|it| it.unwrap_or(u32::MAX))) {
        (Ipv4, [NETWORK, 12, 1..=4]) | (Ipv6, [NETWORK, 8, 1..=16]) => ("-s", Mask::Any),
        (Ipv4, [NETWORK, 16, 1..=4]) | (Ipv6, [NETWORK, 24, 1..=16]) => ("-d", Mask::Any),
        (Ipv4, [NETWORK, 9, 1]) => ("-p", Mask::Never),
        (Ipv4, [NETWORK, 6, 2]) => ("-f", Mask::Fixed(FRAGMENT)),
        // Later versions may make these, which 1.8 prints and makes otherwise.
        (Ipv4, [NETWORK, 8, 1]) => return Some(Loaded::module(register, "ttl")),
        (Ipv6, [NETWORK, 7, 1]) => return Some(Loaded::module(register, "hl")),
        (_, [TRANSPORT, 0, 2]) => ("--sport", Mask::Never),
        (_, [TRANSPORT, 2, 2]) => ("--dport", Mask::Never),
        (_, [TRANSPORT, 13, 1]) => ("--tcp-flags", Mask::Any),
        _ => return None,
    };
    Some(Loaded::new(register, (option, None), mask))
}

/// What belongs to the packet, by its number `NFT_META_*`.
fn meta(register: u32, key: u32) -> Option<Loaded> {
    let (option, mask) = match key {
        3 => ("--mark", Mask::Any),
        6 => ("-i", Mask::Never),
        7 => ("-o", Mask::Never),
        16 => ("-p", Mask::Never),
        19 => return Some(Loaded::module(register, "pkttype")),
        _ => return None,
    };
    Some(Loaded::new(register, (option, None), mask))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::nest;

    type Expression<'a> = (&'a str, &'a [(u16, Value<'a>)]);

    /// The value of an attribute.
    enum Value<'a> {
        Text(&'a str),
        Number(u32),
        /// `NFTA_DATA_VALUE`
        Data(&'a [u8]),
        /// `NFTA_DATA_VERDICT`
        Verdict(i32),
    }
    use Value::{Data, Number, Text, Verdict};

    fn payload_of(expressions: &[Expression<'_>]) -> Vec<u8> {
        let mut list = vec![number_of(Family::Ipv4), 0, 0, 0];
        push(&mut list, TABLE, b"filter\0");
        push(&mut list, CHAIN, b"FORWARD\0");
        nest(&mut list, EXPRESSIONS, |list| {
            for (name, values) in expressions {
                nest(list, 1, |list| {
                    push(list, NAME, name.as_bytes());
                    nest(list, DATA, |list| {
                        for (kind, value) in *values {
                            match value {
                                Text(text) => push(list, *kind, text.as_bytes()),
                                Number(number) => push(list, *kind, &number.to_be_bytes()),
                                Data(bytes) => nest(list, *kind, |list| push(list, 1, bytes)),
                                Verdict(code) => nest(list, *kind, |list| {
                                    nest(list, 2, |list| push(list, 1, &code.to_be_bytes()));
                                }),
                            }
                        }
                    });
                });
            }
        });
        list
    }

    const DROP: Expression<'_> = ("immediate", &[(1, Number(0)), (2, Verdict(0))]);
    /// The source, and the time to live.
    const SOURCE: Expression<'_> = (
        "payload",
        &[
            (1, Number(1)),
            (2, Number(1)),
            (3, Number(12)),
            (4, Number(4)),
        ],
    );
    const TTL: Expression<'_> = (
        "payload",
        &[
            (1, Number(1)),
            (2, Number(1)),
            (3, Number(8)),
            (4, Number(1)),
        ],
    );
    const STATE: Expression<'_> = ("match", &[(1, Text("conntrack"))]);

    const fn compared(how: &'static [(u16, Value<'static>)]) -> Expression<'static> {
        ("cmp", how)
    }

    const EQUAL: Expression<'_> =
        compared(&[(1, Number(1)), (2, Number(0)), (3, Data(&[10, 0, 0, 1]))]);
    const GREATER: Expression<'_> =
        compared(&[(1, Number(1)), (2, Number(5)), (3, Data(&[10, 0, 0, 1]))]);

    #[test]
    fn a_rule_is_complete_where_all_of_it_is_printed() {
        for (expressions, printed, expected) in [
            (&[DROP][..], "-j DROP", true),
            (&[DROP], "-j ACCEPT", false),
            (&[DROP], "-m comment --comment \"-j DROP\"", false),
            (&[SOURCE, EQUAL, DROP], "-s 10.0.0.1/32 -j DROP", true),
            (&[SOURCE, EQUAL, DROP], "-j DROP", false),
            (&[SOURCE, GREATER, DROP], "-s 10.0.0.1/32 -j DROP", false),
            // Only the last is printed.
            (
                &[SOURCE, EQUAL, SOURCE, EQUAL, DROP],
                "-s 10.0.0.1/32 -j DROP",
                false,
            ),
            (
                &[SOURCE, EQUAL, EQUAL, DROP],
                "-s 10.0.0.1/32 -j DROP",
                false,
            ),
            (&[SOURCE, DROP], "-s 10.0.0.1/32 -j DROP", false),
            (&[TTL, EQUAL, DROP], "-j DROP", false),
            (&[TTL, EQUAL, DROP], "-m ttl --ttl-eq 1 -j DROP", true),
            (&[("ct", &[]), DROP], "-j DROP", false),
            (&[STATE, DROP], "-m conntrack --ctstate NEW -j DROP", true),
            (&[STATE, DROP], "-m state --state NEW -j DROP", true),
            (&[STATE, STATE, DROP], "-m state --state NEW -j DROP", false),
            (&[("log", &[]), DROP], "-j DROP", false),
            (&[("reject", &[])], "", false),
        ] {
            let (chain, rule) = rule(&payload_of(expressions)).expect("a rule");
            assert_eq!(chain, (FirewallTable::Filter, "FORWARD".to_owned()));
            assert_eq!(rule.is_printed_by(printed), expected, "{printed}: {rule:?}");
        }
    }

    #[test]
    fn nothing_is_made_of_half_a_rule() {
        let whole = payload_of(&[SOURCE, EQUAL, STATE, DROP]);
        for length in 0..whole.len() {
            if let Some((_, rule)) = rule(&whole[..length]) {
                let printed = "-s 10.0.0.1/32 -m state --state NEW -j DROP";
                assert!(!rule.is_printed_by(printed) || rule.expressions.is_empty());
            }
        }
    }
}
