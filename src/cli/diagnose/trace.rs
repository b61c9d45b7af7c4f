//! The path of a packet through the rules, as it is printed.

use serde::Serialize;

use crate::cli::print;
use crate::diagnosis::firewall::Backend;
use crate::diagnosis::observed::Seen;
use crate::diagnosis::trace::{At, Hop, Trace};
use crate::words::Count;

/// The greatest width of the column with the place.
const PLACE: usize = 36;

/// The names of the two ways.
const WAYS: [&str; 2] = ["request", "reply"];

/// Adds it to a page.
pub fn page(text: &mut String, trace: &Seen<Trace>, width: Option<usize>) {
    let trace = match trace {
        Ok(trace) => trace,
        Err(why) => {
            text.push('\n');
            return print::paragraph(text, "", &format!("The trace is unknown: {why}."), width);
        }
    };
    for (name, way) in WAYS.into_iter().zip(&trace.ways) {
        text.push('\n');
        if way.is_empty() {
            let words = match trace.unknown.is_empty() {
                true => format!("The {name} met no rule."),
                false => format!("No rule is known to have met the {name}."),
            };
            text.push_str(&format!("{words}\n"));
            continue;
        }
        let length = trace
            .length
            .map_or_else(String::new, |length| format!(" of {length} bytes"));
        text.push_str(&format!("Rules that the {name}{length} met:\n"));
        let places: Vec<String> = way.iter().map(place).collect();
        let widest = places.iter().map(|it| print::columns(it)).max();
        let column = widest.unwrap_or(0).min(PLACE) + 2;
        for (hop, place) in way.iter().zip(&places) {
            let mut first = String::from("  ");
            print::cell(&mut first, place, column);
            print::paragraph(text, &first, &words(hop), width);
        }
    }
    for why in &trace.unknown {
        text.push('\n');
        print::paragraph(
            text,
            "",
            &format!("The trace is not complete: {why}."),
            width,
        );
    }
}

fn place(hop: &Hop) -> String {
    let backend = match hop.chain.backend {
        Backend::Nft => "",
        Backend::Legacy => "legacy ",
    };
    let place = format!("{backend}{} {}", hop.chain.table, hop.chain.chain);
    match (hop.at, &hop.rule) {
        (At::Rule(_), Some(rule)) if !rule.is_gone => format!("{place} {}", rule.number),
        (At::Rule(number), None) if hop.chain.backend == Backend::Legacy => {
            format!("{place} {number}")
        }
        _ => place,
    }
}

fn words(hop: &Hop) -> String {
    let mut words = match hop.at {
        At::Policy => "policy".to_owned(),
        At::Return => "end of the chain".to_owned(),
        At::Rule(place) => match (&hop.rule, hop.chain.backend) {
            (Some(rule), _) if rule.is_gone => format!("{}: deleted meanwhile", rule.text),
            (Some(rule), _) => rule.text.clone(),
            (None, Backend::Nft) => "a rule that was added and deleted meanwhile".to_owned(),
            (None, Backend::Legacy) => format!("rule {place}, not listed"),
        },
    };
    if !hop.verdict.is_empty() {
        words.push_str(&format!(": {}", hop.verdict));
    }
    if let Some([packets, _]) = hop.rule.as_ref().and_then(|it| it.counted) {
        let packets = Count(usize::try_from(packets).unwrap_or(usize::MAX), "packet");
        words.push_str(&format!(" ({packets} so far)"));
    }
    words
}

/// What `--json` prints of it.
#[derive(Serialize)]
pub struct Report<'a> {
    request: Vec<JsonHop<'a>>,
    reply: Vec<JsonHop<'a>>,
    unknown: Vec<&'a str>,
}

#[derive(Serialize)]
struct JsonHop<'a> {
    backend: Backend,
    table: &'a str,
    chain: &'a str,
    at: &'static str,
    number: Option<usize>,
    rule: Option<&'a str>,
    verdict: Option<&'a str>,
    packets: Option<u64>,
    bytes: Option<u64>,
}

impl<'a> Report<'a> {
    /// Of this trace.
    pub fn of(trace: &'a Seen<Trace>) -> Report<'a> {
        let (ways, unknown) = match trace {
            Ok(trace) => {
                let unknown = trace.unknown.iter().map(String::as_str).collect();
                (trace.ways.each_ref().map(Vec::as_slice), unknown)
            }
            Err(why) => ([&[][..]; 2], vec![why.as_str()]),
        };
        let [request, reply] = ways.map(|way| way.iter().map(JsonHop::of).collect());
        Report {
            request,
            reply,
            unknown,
        }
    }
}

impl<'a> JsonHop<'a> {
    fn of(hop: &'a Hop) -> JsonHop<'a> {
        let rule = hop.rule.as_ref();
        let counted = rule.and_then(|it| it.counted);
        JsonHop {
            backend: hop.chain.backend,
            table: &hop.chain.table,
            chain: &hop.chain.chain,
            at: match hop.at {
                At::Rule(_) => "rule",
                At::Policy => "policy",
                At::Return => "return",
            },
            number: rule.filter(|it| !it.is_gone).map(|it| it.number),
            rule: rule.map(|it| it.text.as_str()),
            verdict: Some(hop.verdict.as_str()).filter(|it| !it.is_empty()),
            packets: counted.map(|it| it[0]),
            bytes: counted.map(|it| it[1]),
        }
    }
}
