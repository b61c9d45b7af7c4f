//! Rules: `struct fib_rule_hdr` and its attributes (linux/fib_rules.h).

use super::field::{Form, number, octets, read_other, word};
use super::{
    CREATE, DEL_RULE, EXCL, Found, NEW_RULE, Request, Unwritable, family_of, number_of, push_field,
};
use crate::model::Family;
use crate::netlink::{attributes, push};
use crate::resource::{Attribute, Prefix, Resource, Rule, State, table_name, table_number};

const HEADER: usize = 12;
/// `FRA_DST`, `FRA_SRC`, `FRA_PRIORITY`, `FRA_FWMARK`, `FRA_TABLE`, `FRA_FWMASK`,
/// `FRA_PAD`, `FRA_PROTOCOL`
const DST: u16 = 1;
const SRC: u16 = 2;
const PRIORITY: u16 = 6;
const FWMARK: u16 = 10;
const TABLE: u16 = 15;
const FWMASK: u16 = 16;
const PAD: u16 = 18;
const PROTOCOL: u16 = 21;
/// `FIB_RULE_INVERT`. The other flags say whether the rule's interface is there.
const INVERT: u32 = 2;
/// `FR_ACT_TO_TBL`, and the words of the other actions.
const TO_TABLE: u8 = 1;
const ACTIONS: [(u8, &str); 5] = [
    (2, "goto"),
    (3, "nop"),
    (6, "blackhole"),
    (7, "unreachable"),
    (8, "prohibit"),
];

/// The attributes with a word each, by number, and what the kernel reports where
/// there is none.
const SELECTORS: [(u16, &str, Form, Option<&[u8]>); 17] = [
    (3, "iif", Form::Text, None),
    (4, "goto", Form::Word, None),
    (11, "realms", Form::Word, Some(&[0; 4])),
    (12, "tun_id", Form::Network(8), Some(&[0; 8])),
    (13, "suppress_ifgroup", Form::Word, Some(&[0xff; 4])),
    (14, "suppress_prefixlength", Form::Word, Some(&[0xff; 4])),
    (17, "oif", Form::Text, None),
    (19, "l3mdev", Form::Byte, Some(&[0])),
    (20, "uidrange", Form::Words, None),
    (22, "ipproto", Form::Byte, Some(&[0])),
    (23, "sport", Form::Ports, None),
    (24, "dport", Form::Ports, None),
    (25, "dscp", Form::Byte, None),
    (26, "flowlabel", Form::Network(4), None),
    (27, "flowlabel_mask", Form::Network(4), None),
    (28, "sport_mask", Form::Half, Some(&[0xff; 2])),
    (29, "dport_mask", Form::Half, Some(&[0xff; 2])),
];

/// The word for attributes that have none here.
const OTHER: &str = "other";

pub(super) fn decode(payload: &[u8]) -> Option<(Resource, Option<State>)> {
    let header = payload.get(..HEADER)?;
    let family = family_of(header[0])?;
    let (mut says, mut found) = (Vec::new(), Found::default());
    let (mut priority, mut table) = (0, u32::from(header[4]));
    // The kernel reports a mask wherever there is one, and a mark that is not 0.
    let (mut mark, mut mask) = (0, 0);
    let mut rest = Vec::new();
    for (kind, value) in attributes(&payload[HEADER..]) {
        match kind {
            DST => says.push(("to", prefix(value, header[1])?)),
            SRC => says.push(("from", prefix(value, header[2])?)),
            PRIORITY => priority = word(value)?,
            TABLE => table = word(value)?,
            FWMARK => mark = word(value)?,
            FWMASK => mask = word(value)?,
            // Rules of before the kernel kept a protocol have none.
            PROTOCOL => match *value.first()? {
                0 => {}
                protocol => found.number(Attribute::Protocol, protocol),
            },
            PAD => {}
            kind => match SELECTORS.iter().find(|it| it.0 == kind) {
                Some((_, _, _, Some(none))) if value == *none => {}
                Some((_, word, form, _)) => says.push((word, form.show(value)?)),
                None => rest.push((kind, value)),
            },
        }
    }
    if mark != 0 || mask != 0 {
        says.push(("fwmark", show_mark(mark, mask)));
    }
    if header[3] != 0 {
        says.push(("tos", header[3].to_string()));
    }
    if word(&header[8..])? & INVERT != 0 {
        says.push(("not", "true".to_owned()));
    }
    match ACTIONS.iter().find(|(action, _)| *action == header[7]) {
        // Its target says it.
        Some((_, "goto")) => {}
        Some((_, action)) => says.push(("type", (*action).to_owned())),
        None if header[7] == TO_TABLE && table != 0 => {
            let name = table_name(table).map(str::to_owned);
            says.push(("table", name.unwrap_or_else(|| table.to_string())));
        }
        None => {}
    }
    if let Some(rest) = super::field::other(&rest) {
        says.push((OTHER, rest.as_str().replace(' ', ",")));
    }
    says.sort();
    let rule = Rule {
        family,
        priority,
        says,
    };
    Some((Resource::Rule(rule.into()), Some(found.state())))
}

fn prefix(value: &[u8], length: u8) -> Option<String> {
    let address = super::field::ip(value)?;
    Some(super::field::network(address, length)?.to_string())
}

fn show_mark(mark: u32, mask: u32) -> String {
    match mask {
        u32::MAX => format!("{mark:#x}"),
        mask => format!("{mark:#x}/{mask:#x}"),
    }
}

pub(super) fn write(rule: &Rule, state: &State) -> Result<Request, Unwritable> {
    let mut body = body(rule).ok_or(Unwritable::Identity)?;
    push_field(&mut body, state, Attribute::Protocol, PROTOCOL, Form::Byte)?;
    Ok(Request::new(NEW_RULE, CREATE | EXCL, body))
}

pub(super) fn delete(rule: &Rule) -> Result<Request, Unwritable> {
    let body = body(rule).ok_or(Unwritable::Identity)?;
    Ok(Request::new(DEL_RULE, 0, body))
}

fn body(rule: &Rule) -> Option<Vec<u8>> {
    let mut body = vec![0; HEADER];
    body[0] = number_of(rule.family);
    body[7] = TO_TABLE;
    push(&mut body, PRIORITY, &rule.priority.to_ne_bytes());
    for (word, value) in &rule.says {
        say(&mut body, rule.family, word, value)?;
    }
    Some(body)
}

fn say(body: &mut Vec<u8>, family: Family, name: &str, value: &str) -> Option<()> {
    match name {
        "from" => body[2] = push_prefix(body, family, SRC, value)?,
        "to" => body[1] = push_prefix(body, family, DST, value)?,
        "tos" => body[3] = number(value)?,
        "not" => body[8..HEADER].copy_from_slice(&INVERT.to_ne_bytes()),
        "type" => body[7] = ACTIONS.iter().find(|it| it.1 == value)?.0,
        "table" => {
            let table = table_number(value)?;
            body[4] = u8::try_from(table).unwrap_or(0);
            push(body, TABLE, &table.to_ne_bytes());
        }
        "fwmark" => {
            let (mark, mask) = value.split_once('/').unwrap_or((value, "0xffffffff"));
            push(body, FWMARK, &number::<u32>(mark)?.to_ne_bytes());
            push(body, FWMASK, &number::<u32>(mask)?.to_ne_bytes());
        }
        OTHER => {
            for field in value.split(',') {
                let (kind, bytes) = read_other(field)?;
                push(body, kind, &bytes);
            }
        }
        name => {
            let (kind, _, form, _) = SELECTORS.iter().find(|it| it.1 == name)?;
            push(body, *kind, &form.read(value)?);
            if name == "goto" {
                body[7] = ACTIONS[0].0;
            }
        }
    }
    Some(())
}

/// Adds a prefix and returns its length.
fn push_prefix(body: &mut Vec<u8>, family: Family, kind: u16, value: &str) -> Option<u8> {
    let prefix = Prefix::parse(value).filter(|it| it.family() == family)?;
    push(body, kind, &octets(prefix.address));
    Some(prefix.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_what_was_configured_and_no_more() {
        for (mark, mask, text) in [(1, u32::MAX, "0x1"), (0x100, 0xf00, "0x100/0xf00")] {
            assert_eq!(show_mark(mark, mask), text);
        }
        let says = vec![
            ("from", "10.39.0.0/24".to_owned()),
            ("fwmark", "0x100/0xf00".to_owned()),
            ("sport", "80-90".to_owned()),
            ("table", "200".to_owned()),
        ];
        let family = Family::Ipv4;
        let rule = Rule {
            family,
            priority: 100,
            says,
        };
        let request = write(&rule, &State::with(Vec::new())).expect("a request");
        let (read, state) = decode(request.notification().payload).expect("a rule");
        assert_eq!(
            read.to_string(),
            "rule/ipv4/100/from=10.39.0.0/24/fwmark=0x100/0xf00/sport=80-90/table=200"
        );
        assert_eq!(state.expect("it is there").get(Attribute::Protocol), None);
        // As the kernel shows it where none was given.
        let mut body = request.notification().payload.to_vec();
        push(&mut body, PROTOCOL, &[0]);
        let (_, state) = decode(&body).expect("a rule");
        assert_eq!(state.expect("it is there").to_string(), "present");
    }
}
