//! Rules as nft(8) prints them, in the words of iptables(8), as far as both have them.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::resource::{Mac, Prefix, words_of_line};

/// The elements of the sets and maps of a table, by name, as nft prints them.
pub type Elements = BTreeMap<String, String>;

/// What icmp(7) and icmpv6 call the messages that are met here.
const MESSAGES: [(&str, &str, &str); 8] = [
    ("icmp", "echo-request", "8"),
    ("icmp", "echo-reply", "0"),
    ("icmp", "destination-unreachable", "3"),
    ("icmpv6", "echo-request", "128"),
    ("icmpv6", "echo-reply", "129"),
    ("icmpv6", "packet-too-big", "2"),
    ("icmpv6", "nd-neighbor-solicit", "135"),
    ("icmpv6", "nd-neighbor-advert", "136"),
];

/// What ends a rule, and what iptables calls that.
const VERDICTS: [(&str, &str); 3] = [("accept", "ACCEPT"), ("drop", "DROP"), ("return", "RETURN")];

/// An option that iptables does not have: of which protocol the packet is, as `ip` or `ip6`.
pub(super) const FAMILY: &str = "--nfproto";

/// Another: the mark of its connection.
pub(super) const CONNMARK: &str = "--connmark";

/// Another: whether it matches is not known.
const UNKNOWN: &str = "--unknown";

/// What a match begins with.
const MATCHES: [&str; 25] = [
    "ah", "arp", "comp", "ct", "esp", "ether", "exthdr", "fib", "frag", "icmp", "icmpv6",
    "iifgroup", "ip", "ip6", "limit", "meta", "oifgroup", "rt", "sctp", "socket", "tcp", "th",
    "udp", "udplite", "xt",
];

/// What shows that a part of a rule that is not understood does more than match.
const EFFECTS: [&str; 18] = [
    "add", "delete", "dnat", "dup", "flow", "fwd", "map", "notrack", "offload", "queue",
    "redirect", "set", "snat", "synproxy", "target", "tproxy", "update", "vmap",
];

/// How many rules those of a table may stand for.
pub const MOST: usize = 50_000;

/// A rule as rules of iptables: one for each element of the sets that it names, of which no
/// packet meets two. Nothing where it may do what is not understood, or stands for more than
/// `left`, which it reduces.
pub fn words_of_nft(rule: &str, sets: &Elements, left: &mut usize) -> Option<Vec<Vec<String>>> {
    let found = read(rule, sets, *left)?;
    *left = left.checked_sub(found.len())?;
    Some(found)
}

fn read(rule: &str, sets: &Elements, most: usize) -> Option<Vec<Vec<String>>> {
    let words = words_of_line(rule)?;
    let mut words = words.iter().map(String::as_str).peekable();
    let mut found = vec![Vec::new()];
    while let Some(word) = words.peek() {
        match *word {
            "counter" => {
                words.next();
                while words
                    .next_if(|it| ["packets", "bytes"].contains(it))
                    .is_some()
                {
                    words.next();
                }
            }
            "comment" => {
                words.next();
                words.next();
            }
            "log" => {
                words.next();
                skip_options(&mut words);
            }
            _ => {
                let rest: Vec<&str> = words.clone().collect();
                if let Some(target) = target(&rest) {
                    each(&mut found, &target);
                    return Some(found);
                }
                let is_known = match_in(&mut words, sets, &mut found, most)?;
                if !is_known {
                    unknown(&rest, &mut found)?;
                    return Some(found);
                }
                // That of a map is the last.
                if found
                    .iter()
                    .any(|it| it.iter().any(|it| it == "-j" || it == "-g"))
                {
                    return words
                        .next()
                        .is_none_or(|it| it == "comment")
                        .then_some(found);
                }
            }
        }
    }
    Some(found)
}

fn each(all: &mut [Vec<String>], more: &[String]) {
    all.iter_mut().for_each(|it| it.extend_from_slice(more));
}

fn owned<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

/// The options of `log`.
fn skip_options<'a, I: Iterator<Item = &'a str>>(words: &mut Peekable<I>) {
    const OPTIONS: [&str; 6] = [
        "prefix",
        "level",
        "group",
        "snaplen",
        "queue-threshold",
        "flags",
    ];
    while let Some(option) = words.next_if(|it| OPTIONS.contains(it)) {
        let of = words.next();
        if option == "flags" && ["tcp", "ip"].map(Some).contains(&of) {
            words.next();
        }
    }
}

/// What a rule does in the end, where only that is left of it.
fn target(rest: &[&str]) -> Option<Vec<String>> {
    let rest = match rest {
        [rest @ .., "comment", _] => rest,
        rest => rest,
    };
    match rest {
        ["jump", name] => Some(owned(["-j", name])),
        ["goto", name] => Some(owned(["-g", name])),
        // It may say with what, or how.
        ["reject"] | ["reject", "with", ..] => Some(owned(["-j", "REJECT"])),
        ["masquerade", ..] => Some(owned(["-j", "MASQUERADE"])),
        [kind @ ("snat" | "dnat"), how @ ..] => {
            let (target, option) = match *kind {
                "snat" => ("SNAT", "--to-source"),
                _ => ("DNAT", "--to-destination"),
            };
            let mut words = owned(["-j", target]);
            let to = how.iter().skip_while(|it| **it != "to").nth(1);
            let is_one =
                |it: &&&str| it.parse::<IpAddr>().is_ok() || it.parse::<SocketAddr>().is_ok();
            if let Some(to) = to.filter(is_one) {
                words.extend(owned([option, to]));
            }
            Some(words)
        }
        ["redirect", ..] => Some(owned(["-j", "REDIRECT"])),
        ["meta", "mark", "set", mark] => Some(owned(["-j", "MARK", "--set-mark", &number(mark)?])),
        ["meta", "mark", "set", "meta", "mark", "|", mark] => {
            Some(owned(["-j", "MARK", "--or-mark", &number(mark)?]))
        }
        // What these change is asked for by nothing that is known here.
        [
            "tcp" | "ip" | "ip6" | "meta",
            field @ ("option" | "dscp" | "priority"),
            rest @ ..,
        ] if rest.contains(&"set") => Some(owned(["-j", field])),
        ["flow", "add", table] => Some(owned(["-j", table])),
        ["meta", "mark", "set", "ct", "mark"] => Some(owned(["-j", "CONNMARK", "--restore-mark"])),
        ["ct", "mark", "set", "meta", "mark"] | ["ct", "mark", "set", "mark"] => {
            Some(owned(["-j", "CONNMARK", "--save-mark"]))
        }
        ["ct", "mark", "set", mark] => {
            Some(owned(["-j", "CONNMARK", "--set-mark", &number(mark)?]))
        }
        ["ct", "zone", "set", zone] => Some(owned(["-j", "CT", "--zone", &number(zone)?])),
        ["notrack"] => Some(owned(["-j", "CT", "--notrack"])),
        ["ip", "ttl", "set", ttl] => {
            Some(owned(["--nfproto", "ip", "-j", "TTL", "--ttl-set", ttl]))
        }
        ["ip6", "hoplimit", "set", ttl] => {
            Some(owned(["--nfproto", "ip6", "-j", "HL", "--hl-set", ttl]))
        }
        [verdict] => {
            let (_, target) = VERDICTS.iter().find(|it| it.0 == *verdict)?;
            Some(owned(["-j", target]))
        }
        _ => None,
    }
}

/// What is left of a rule, from a match on that is not understood.
fn unknown(rest: &[&str], found: &mut [Vec<String>]) -> Option<()> {
    let is_match = rest.first().is_some_and(|it| MATCHES.contains(it));
    if !is_match || rest.iter().any(|it| EFFECTS.contains(it)) {
        return None;
    }
    // Only packets of its protocol match, whatever else they have.
    let needs = rest.first().and_then(|it| transport(it));
    needs.into_iter().for_each(|it| each(found, &owned(it)));
    each(found, &owned([UNKNOWN, "?"]));
    // Without a verdict it changes nothing.
    each(found, &end(&rest[1..]).unwrap_or_default());
    Some(())
}

/// What a rule does in the end, whatever it matches.
pub(super) fn end(words: &[impl AsRef<str>]) -> Option<Vec<String>> {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    (0..words.len()).find_map(|at| target(&words[at..]))
}

/// What is compared: an option, how its value is read, and of what the packet has to be.
struct Field {
    needs: Option<[&'static str; 2]>,
    option: &'static str,
    decode: fn(&str) -> Option<String>,
}

/// A comparison, with a value or with those of a set: whether it is understood. The words of it
/// are added to each of the rules. Nothing where it is half a rule.
fn match_in<'a, I: Iterator<Item = &'a str> + Clone>(
    words: &mut Peekable<I>,
    sets: &Elements,
    found: &mut Vec<Vec<String>>,
    most: usize,
) -> Option<bool> {
    for whole in [flags, way_back] {
        let mut ahead = words.clone();
        if let Some(rule) = whole(&mut ahead) {
            *words = ahead;
            each(found, &rule);
            return Some(true);
        }
    }
    let mut fields = Vec::new();
    loop {
        let Some(field) = field(words) else {
            return Some(false);
        };
        fields.push(field);
        if words.next_if_eq(&".").is_none() {
            break;
        }
    }
    let mut needs: Vec<_> = fields.iter().filter_map(|it| it.needs).collect();
    needs.dedup();
    needs.into_iter().for_each(|it| each(found, &owned(it)));
    let mask = match fields[..] {
        [
            Field {
                option: "--mark" | CONNMARK,
                ..
            },
        ] => words.next_if_eq(&"&").map(|_| words.next()),
        _ => None,
    };
    let is_map = words.next_if_eq(&"vmap").is_some();
    let is_inverted = words.next_if_eq(&"!=").is_some();
    words.next_if_eq(&"==");
    let elements = match words.next()? {
        "{" => words
            .by_ref()
            .take_while(|it| *it != "}")
            .collect::<Vec<_>>()
            .join(" "),
        name if name.starts_with('@') => match sets.get(&name[1..]) {
            Some(elements) => elements.clone(),
            None => return Some(false),
        },
        operator if ["<", ">", "<=", ">=", "lt", "gt", "le", "ge"].contains(&operator) => {
            let range = match (&fields[..], words.next()) {
                ([field], Some(value)) => range(field, operator, value),
                _ => None,
            };
            match range {
                Some(range) => range,
                None => return Some(false),
            }
        }
        operator if ["&", "|", "^", "/"].contains(&operator) => return Some(false),
        first => {
            let mut value = vec![first];
            for _ in 1..fields.len() {
                value.extend([words.next()?, words.next()?]);
            }
            let is_read = value
                .iter()
                .step_by(2)
                .zip(&fields)
                .all(|(value, field)| (field.decode)(value).is_some());
            if !is_read {
                return Some(false);
            }
            value.join(" ")
        }
    };
    // `established,related` is one value: those of a set have a blank behind the comma.
    let elements = elements.split(", ").filter(|it| !it.trim().is_empty());
    let mut rules = Vec::new();
    for element in elements {
        let (key, verdict) = match element.split_once(" : ") {
            Some((key, verdict)) => (key, Some(verdict)),
            None => (element, None),
        };
        if verdict.is_some() != is_map {
            return Some(false);
        }
        let values: Vec<&str> = key.split(" . ").collect();
        let mut rule = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            let value = values.get(index).filter(|_| values.len() == fields.len());
            // What follows is a timeout, or the like.
            let value = value.and_then(|it| (field.decode)(it.split_whitespace().next()?));
            let Some(mut value) = value else {
                rule.extend(owned([UNKNOWN, "?"]));
                continue;
            };
            if let Some(mask) = mask {
                value = format!("{value}/{}", mask?);
            }
            if is_inverted {
                rule.push("!".to_owned());
            }
            rule.extend([field.option.to_owned(), value]);
        }
        if let Some(verdict) = verdict {
            let verdict: Vec<&str> = verdict.split_whitespace().collect();
            rule.extend(target(&verdict)?);
        }
        rules.push(rule);
    }
    match is_inverted {
        // Not one of several fields is not the same as none of them.
        true if fields.len() > 1 => return Some(false),
        true => each(found, &rules.concat()),
        false => {
            let product = |of: &Vec<String>| {
                let of = of.clone();
                rules
                    .iter()
                    .map(move |rule| [of.clone(), rule.clone()].concat())
                    .collect::<Vec<_>>()
            };
            if found.len().saturating_mul(rules.len()) > most {
                return None;
            }
            *found = found.iter().flat_map(product).collect();
        }
    }
    Some(true)
}

/// What a number is compared with, as a range of numbers.
fn range(field: &Field, operator: &str, value: &str) -> Option<String> {
    let most: u32 = match field.option {
        "--sport" | "--dport" => u16::MAX.into(),
        "--ttl-eq" => u8::MAX.into(),
        "--length" | "--udp-length" => u32::MAX,
        _ => return None,
    };
    let value: u32 = value.parse().ok()?;
    let (first, last) = match operator {
        "<" | "lt" => (0, value.checked_sub(1)?),
        "<=" | "le" => (0, value),
        ">" | "gt" => (value.checked_add(1)?, most),
        _ => (value, most),
    };
    (first <= most).then(|| format!("{first}-{last}"))
}

/// `tcp flags syn / fin,syn,rst,ack`, as iptables has it: the mask, and those that are set.
fn flags<'a, I: Iterator<Item = &'a str> + Clone>(words: &mut Peekable<I>) -> Option<Vec<String>> {
    words.next_if_eq(&"tcp")?;
    words.next_if_eq(&"flags")?;
    let is_inverted = words.next_if_eq(&"!=").is_some();
    // None of them is set then.
    let is_none = words.next_if_eq(&"!").is_some();
    let set = words.next()?;
    let mask = words.next_if_eq(&"/").map(|_| words.next());
    let (mask, set) = match mask {
        Some(mask) => (mask?, set),
        None if is_none => (set, "none"),
        // One of them is set, which iptables has for a single flag only.
        None if !is_inverted && !set.contains(',') => (set, set),
        None => return None,
    };
    let is_plain = |it: &str| it.chars().all(|c| c.is_ascii_lowercase() || c == ',');
    if ![mask, set].into_iter().all(is_plain) {
        return None;
    }
    let mut found = owned(["-p", "tcp"]);
    found.extend(is_inverted.then(|| "!".to_owned()));
    found.extend(owned(["--tcp-flags"]));
    found.extend([mask, set].map(str::to_ascii_uppercase));
    Some(found)
}

/// `fib saddr . mark . iif oif missing`, as iptables has it.
fn way_back<'a, I: Iterator<Item = &'a str> + Clone>(
    words: &mut Peekable<I>,
) -> Option<Vec<String>> {
    words.next_if_eq(&"fib")?;
    words.next_if_eq(&"saddr")?;
    let (mut found, mut is_loose) = (owned(["-m", "rpfilter"]), true);
    while words.next_if_eq(&".").is_some() {
        match words.next()? {
            "mark" => found.push("--validmark".to_owned()),
            "iif" => is_loose = false,
            _ => return None,
        }
    }
    words.next_if_eq(&"oif")?;
    let is_inverted = words.next_if_eq(&"!=").is_some();
    let is_missing = match words.next()? {
        "missing" | "0" => !is_inverted,
        "exists" => is_inverted,
        _ => return None,
    };
    found.extend(is_loose.then(|| "--loose".to_owned()));
    found.extend(is_missing.then(|| "--invert".to_owned()));
    Some(found)
}

/// The field at the beginning of a comparison.
fn field<'a, I: Iterator<Item = &'a str> + Clone>(words: &mut Peekable<I>) -> Option<Field> {
    let of = |needs, option, decode| {
        Some(Field {
            needs,
            option,
            decode,
        })
    };
    let any = |option, decode| of(None, option, decode);
    match words.next()? {
        word @ ("ip" | "ip6") => {
            let own = Some([FAMILY, if word == "ip" { "ip" } else { "ip6" }]);
            match words.next()? {
                "saddr" => of(own, "-s", address),
                "daddr" => of(own, "-d", address),
                "protocol" | "nexthdr" => of(own, "-p", plain),
                "ttl" | "hoplimit" => of(own, "--ttl-eq", numbers),
                "length" if word == "ip" => of(own, "--length", numbers),
                _ => None,
            }
        }
        "arp" => {
            let own = Some([FAMILY, "arp"]);
            match words.next()? {
                "operation" => of(own, "--arp-op", plain),
                "htype" => of(own, "--arp-htype", plain),
                "ptype" => of(own, "--arp-ptype", plain),
                "hlen" => of(own, "--arp-hlen", plain),
                "plen" => of(own, "--arp-plen", plain),
                word @ ("saddr" | "daddr") => {
                    words.next_if_eq(&"ip")?;
                    match word {
                        "saddr" => of(own, "--arp-src", address),
                        _ => of(own, "--arp-dst", address),
                    }
                }
                _ => None,
            }
        }
        "ether" => match words.next()? {
            "type" => any(FAMILY, family),
            "saddr" => any("--mac-source", mac),
            _ => None,
        },
        "iifname" | "iif" => any("-i", interface),
        "oifname" | "oif" => any("-o", interface),
        "meta" => match words.next()? {
            "l4proto" => any("-p", plain),
            "protocol" | "nfproto" => any(FAMILY, family),
            "mark" => any("--mark", number),
            "length" => any("--length", numbers),
            "skuid" => any("--skuid", program),
            "skgid" => any("--skgid", program),
            _ => None,
        },
        word @ ("tcp" | "udp" | "th") => {
            let option = match words.next()? {
                "sport" => "--sport",
                "dport" => "--dport",
                "length" if word == "udp" => return of(transport(word), "--udp-length", numbers),
                _ => return None,
            };
            of(transport(word), option, ports)
        }
        word @ ("icmp" | "icmpv6") => {
            words.next_if_eq(&"type")?;
            let decode = match word {
                "icmp" => |it: &str| Some(message("icmp", it)),
                _ => |it: &str| Some(message("icmpv6", it)),
            };
            of(transport(word), "--icmp-type", decode)
        }
        "ct" => match words.next()? {
            "state" => any("--ctstate", states),
            "status" => any("--ctstate", status),
            "mark" => any(CONNMARK, number),
            _ => None,
        },
        "fib" => {
            let option = match words.next()? {
                "saddr" => "--src-type",
                "daddr" => "--dst-type",
                _ => return None,
            };
            words.next_if_eq(&"type")?;
            any(option, kind)
        }
        "numgen" => {
            words.next()?;
            words.next_if_eq(&"mod")?;
            match words.next()? {
                "1" => any("--probability", |_| Some("1".to_owned())),
                _ => any(UNKNOWN, plain),
            }
        }
        _ => None,
    }
}

/// What a packet has to be of for a match that begins with this word.
fn transport(word: &str) -> Option<[&'static str; 2]> {
    const ALL: [&str; 6] = ["tcp", "udp", "icmp", "icmpv6", "sctp", "udplite"];
    let own = ALL.into_iter().find(|it| *it == word)?;
    Some(["-p", own])
}

/// `10.0.0.1-10.0.0.9`, which iptables has for a match of its own only.
pub(super) fn address_range(text: &str) -> Option<RangeInclusive<IpAddr>> {
    let (first, last) = text.split_once('-')?;
    Some(first.parse().ok()?..=last.parse().ok()?)
}

fn address(text: &str) -> Option<String> {
    let is_range = address_range(text).is_some();
    let is_known = is_range || text.parse::<IpAddr>().is_ok() || Prefix::parse(text).is_some();
    is_known.then(|| text.to_owned())
}

/// A name or a number.
fn plain(text: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.chars().all(is_plain).then(|| text.to_owned())
}

fn number(text: &str) -> Option<String> {
    text.starts_with(|it: char| it.is_ascii_digit())
        .then(|| text.to_owned())
}

/// A number, or a range.
fn numbers(text: &str) -> Option<String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let [first, last]: [Option<u32>; 2] = [first, last].map(|it| it.parse().ok());
    Some(format!("{}:{}", first?, last?))
}

fn family(text: &str) -> Option<String> {
    let name = match text {
        "ipv4" => "ip",
        "ipv6" => "ip6",
        "ip" | "ip6" | "arp" => text,
        "0x0800" => "ip",
        "0x86dd" => "ip6",
        "0x0806" => "arp",
        _ => return None,
    };
    Some(name.to_owned())
}

fn interface(text: &str) -> Option<String> {
    let text = match text.strip_suffix('*') {
        Some(begin) => format!("{begin}+"),
        None => text.to_owned(),
    };
    (!text.starts_with(['{', '$'])).then_some(text)
}

fn ports(text: &str) -> Option<String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let [first, last]: [Option<u16>; 2] = [first, last].map(|it| it.parse().ok());
    Some(format!("{}:{}", first?, last?))
}

/// The number of a message. Those of others are not met here.
fn message(protocol: &str, name: &str) -> String {
    let own = MESSAGES.iter().find(|it| (it.0, it.1) == (protocol, name));
    own.map_or(name, |it| it.2).to_owned()
}

fn states(text: &str) -> Option<String> {
    const KNOWN: [&str; 5] = ["invalid", "new", "established", "related", "untracked"];
    let is_known = text.split(',').all(|it| KNOWN.contains(&it));
    is_known.then(|| text.to_ascii_uppercase())
}

fn status(text: &str) -> Option<String> {
    ["dnat", "snat"]
        .contains(&text)
        .then(|| text.to_ascii_uppercase())
}

/// A user or a group.
fn program(text: &str) -> Option<String> {
    Some(text.trim_matches('"').to_owned())
}

/// The type of an address.
fn kind(text: &str) -> Option<String> {
    Some(text.to_ascii_uppercase())
}

fn mac(text: &str) -> Option<String> {
    Mac::parse(text).map(|it| it.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_put_in_other_words_or_are_unknown() {
        let sets = [
            ("pods", "10.65.0.0/24, 10.66.0.1 timeout 1h expires 59m"),
            ("none", ""),
            ("ways", "10.65.0.2 : drop, 10.65.0.3 : jump own"),
            ("services", "10.96.0.1 . tcp . 443 : goto own"),
        ];
        let sets = sets
            .map(|(name, all)| (name.to_owned(), all.to_owned()))
            .into();
        for (rule, expected) in [
            ("ct state invalid drop", &["--ctstate INVALID -j DROP"][..]),
            (
                "iifname \"cali*\" ip saddr != 10.65.0.0/16 counter packets 3 bytes 252 drop",
                &["-i cali+ --nfproto ip ! -s 10.65.0.0/16 -j DROP"],
            ),
            (
                "tcp dport 80-90 counter accept comment \"drop\"",
                &["-p tcp --dport 80:90 -j ACCEPT"],
            ),
            ("comment \"drop\" accept", &["-j ACCEPT"]),
            ("udp sport 53 jump own", &["-p udp --sport 53:53 -j own"]),
            (
                "icmp type echo-request drop",
                &["-p icmp --icmp-type 8 -j DROP"],
            ),
            ("reject with icmp type host-prohibited", &["-j REJECT"]),
            (
                "log prefix \"a \" flags tcp sequence,options drop",
                &["-j DROP"],
            ),
            (
                "ip saddr { 10.0.0.1, 10.0.0.2 } drop",
                &[
                    "--nfproto ip -s 10.0.0.1 -j DROP",
                    "--nfproto ip -s 10.0.0.2 -j DROP",
                ],
            ),
            (
                "ip saddr != { 10.0.0.1, 10.0.0.2 } drop",
                &["--nfproto ip ! -s 10.0.0.1 ! -s 10.0.0.2 -j DROP"],
            ),
            (
                "ip saddr @pods drop",
                &[
                    "--nfproto ip -s 10.65.0.0/24 -j DROP",
                    "--nfproto ip -s 10.66.0.1 -j DROP",
                ],
            ),
            ("ip saddr @none drop", &[]),
            (
                "ip saddr @other drop",
                &["--nfproto ip --unknown ? -j DROP"],
            ),
            (
                "ip saddr vmap @ways",
                &[
                    "--nfproto ip -s 10.65.0.2 -j DROP",
                    "--nfproto ip -s 10.65.0.3 -j own",
                ],
            ),
            (
                "ip daddr . meta l4proto . th dport vmap @services",
                &["--nfproto ip -d 10.96.0.1 -p tcp --dport 443:443 -g own"],
            ),
            (
                "ip saddr . ip daddr 10.0.0.1 . 10.0.0.2 drop",
                &["--nfproto ip -s 10.0.0.1 -d 10.0.0.2 -j DROP"],
            ),
            (
                "ct state vmap { invalid : drop, established : accept }",
                &[
                    "--ctstate INVALID -j DROP",
                    "--ctstate ESTABLISHED -j ACCEPT",
                ],
            ),
            (
                "ct state established,related accept",
                &["--ctstate ESTABLISHED,RELATED -j ACCEPT"],
            ),
            (
                "iifname { \"a\", \"b*\" } drop",
                &["-i a -j DROP", "-i b+ -j DROP"],
            ),
            ("fib daddr type local drop", &["--dst-type LOCAL -j DROP"]),
            (
                "ip saddr > 10.0.0.1 drop",
                &["--nfproto ip --unknown ? -j DROP"],
            ),
            (
                "ip saddr 10.0.0.1-10.0.0.9 drop",
                &["--nfproto ip -s 10.0.0.1-10.0.0.9 -j DROP"],
            ),
            ("ct state != new drop", &["! --ctstate NEW -j DROP"]),
            ("tcp sequence 1 drop", &["-p tcp --unknown ? -j DROP"]),
            (
                "meta nfproto ipv6 fib saddr . mark . iif oif missing drop",
                &["--nfproto ip6 -m rpfilter --validmark --invert -j DROP"],
            ),
            (
                "fib saddr oif exists accept",
                &["-m rpfilter --loose -j ACCEPT"],
            ),
            (
                "numgen random mod 2 vmap { 0 : goto a, 1 : goto b }",
                &["--unknown 0 -g a", "--unknown 1 -g b"],
            ),
            ("ip ttl 1 counter", &["--nfproto ip --ttl-eq 1:1"]),
            ("ip ttl < 5 drop", &["--nfproto ip --ttl-eq 0:4 -j DROP"]),
            (
                "ip6 hoplimit gt 5 drop",
                &["--nfproto ip6 --ttl-eq 6:255 -j DROP"],
            ),
            (
                "ip6 hoplimit > 255 drop",
                &["--nfproto ip6 --unknown ? -j DROP"],
            ),
            (
                "udp length >= 28 drop",
                &["-p udp --udp-length 28:4294967295 -j DROP"],
            ),
            ("tcp dport <= 1024 drop", &["-p tcp --dport 0:1024 -j DROP"]),
            (
                "meta length 1200-65535 drop",
                &["--length 1200:65535 -j DROP"],
            ),
            (
                "tcp flags != syn / fin,syn,rst,ack drop",
                &["-p tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP"],
            ),
            (
                "tcp flags syn drop",
                &["-p tcp --tcp-flags SYN SYN -j DROP"],
            ),
            (
                "tcp flags ! syn,rst drop",
                &["-p tcp --tcp-flags SYN,RST NONE -j DROP"],
            ),
            ("tcp flags syn,rst drop", &["-p tcp --unknown ? -j DROP"]),
            (
                "ip saddr 10.0.0.1 limit rate over 1/second burst 5 packets jump own",
                &["--nfproto ip -s 10.0.0.1 --unknown ? -j own"],
            ),
            ("meta mark set 1", &["-j MARK --set-mark 1"]),
            (
                "meta mark & 0x0000ff00 == 0x00001000 drop",
                &["--mark 0x00001000/0x0000ff00 -j DROP"],
            ),
            (
                "meta mark != 0x00001000 drop",
                &["! --mark 0x00001000 -j DROP"],
            ),
            (
                "oifname \"eth0\" counter masquerade",
                &["-o eth0 -j MASQUERADE"],
            ),
            (
                "dnat to 10.0.0.1:80",
                &["-j DNAT --to-destination 10.0.0.1:80"],
            ),
            (
                "ip daddr 10.96.0.1 dnat ip to 10.0.0.1 random,persistent",
                &["--nfproto ip -d 10.96.0.1 -j DNAT --to-destination 10.0.0.1"],
            ),
            ("dnat to 10.0.0.1-10.0.0.9", &["-j DNAT"]),
            (
                "tcp dport 80 redirect to :8080",
                &["-p tcp --dport 80:80 -j REDIRECT"],
            ),
            ("meta nfproto ipv6 drop", &["--nfproto ip6 -j DROP"]),
            ("ether type ip6 drop", &["--nfproto ip6 -j DROP"]),
            (
                "meta protocol { ip, arp } drop",
                &["--nfproto ip -j DROP", "--nfproto arp -j DROP"],
            ),
            (
                "arp htype 1 arp hlen 6 arp operation request arp saddr ip != 10.0.0.1 drop",
                &["--nfproto arp --arp-htype 1 --nfproto arp --arp-hlen 6 \
                   --nfproto arp --arp-op request --nfproto arp ! --arp-src 10.0.0.1 -j DROP"],
            ),
            ("notrack", &["-j CT --notrack"]),
            (
                "tcp flags syn / syn,rst tcp option maxseg size set rt mtu",
                &["-p tcp --tcp-flags SYN,RST SYN -j option"],
            ),
            (
                "ip protocol tcp flow add @fast",
                &["--nfproto ip -p tcp -j @fast"],
            ),
            ("ip dscp set af11", &["-j dscp"]),
            ("meta mark set ct mark", &["-j CONNMARK --restore-mark"]),
            (
                "iifname \"a\" ip ttl set 1",
                &["-i a --nfproto ip -j TTL --ttl-set 1"],
            ),
            ("ip6 hoplimit set 64", &["--nfproto ip6 -j HL --hl-set 64"]),
            ("meta skuid 1000 drop", &["--skuid 1000 -j DROP"]),
            (
                "meta skuid != { 0, 1000-1005 } drop",
                &["! --skuid 0 ! --skuid 1000-1005 -j DROP"],
            ),
            ("", &[""]),
        ] {
            let found = words_of_nft(rule, &sets, &mut MOST.clone()).expect(rule);
            let found: Vec<String> = found.iter().map(|it| it.join(" ")).collect();
            assert_eq!(found, expected, "{rule}");
        }
        for rule in [
            "meta mark set 1 drop",
            "meta mark set meta mark ^ 0x4000 masquerade",
            "ip id < 5 dnat to 10.0.0.1",
            "add @own { ip saddr } drop",
            "ip daddr vmap { 10.0.0.1 : drop, 10.0.0.2",
            "queue to 1",
            "notrack drop",
        ] {
            assert_eq!(words_of_nft(rule, &sets, &mut MOST.clone()), None, "{rule}");
        }
    }
}
