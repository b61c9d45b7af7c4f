//! The `[conntrack]` table.

use toml::de::{DeTable, DeValue};

use super::super::diagnostic::{Findings, quoted};
use super::network::{network, warn_of_no_length};
use super::values::{in_order, string};
use super::{Item, type_of, unknown_field};
use crate::resource::Prefix;

/// The [conntrack] table of one file; what is absent is `None`.
#[derive(Debug, Default)]
pub(in super::super) struct Conntrack {
    pub(in super::super) clean: Option<Vec<Prefix>>,
    /// Nothing inside where the table is never reported as full.
    pub(in super::super) full: Option<Option<u8>>,
}

const FIELDS: [&str; 2] = ["clean", "full"];

pub(super) fn conntrack(table: &DeTable<'_>, findings: &mut Findings) -> Conntrack {
    let mut conntrack = Conntrack::default();
    for (key, value) in in_order(table) {
        match key.get_ref().as_ref() {
            "clean" => conntrack.clean = networks(value, findings),
            "full" => conntrack.full = full(value, findings),
            _ => unknown_field(key, "`[conntrack]`", &FIELDS, findings),
        }
    }
    conntrack
}

fn networks(value: &Item<'_>, findings: &mut Findings) -> Option<Vec<Prefix>> {
    let DeValue::Array(items) = value.get_ref() else {
        let found = type_of(value.get_ref());
        let error = findings.error(
            value.span(),
            format!("`clean` is an array of networks, not {found}"),
        );
        match value.get_ref().as_str() {
            Some(text) => error.help(format!("write {}", quoted(&format!("[\"{text}\"]")))),
            None => error.help("write `[\"192.168.0.0/16\"]`"),
        };
        return None;
    };
    let mut networks = Vec::new();
    for item in items {
        if string(item, "each of `clean`", findings).is_none() {
            continue;
        }
        match network(item, "clean", findings) {
            Some(all) if all.length == 0 => {
                findings
                    .error(item.span(), format!("`{all}` has every address in it"))
                    .help(
                        "name the networks of the pods: a connection within them is not \
                         deleted, and so none would be",
                    );
            }
            Some(network) => {
                warn_of_no_length(item, network, "192.168.0.0/16", findings);
                networks.push(network);
            }
            None => {}
        }
    }
    Some(networks)
}

fn full(value: &Item<'_>, findings: &mut Findings) -> Option<Option<u8>> {
    let percent = match value.get_ref().as_str() {
        Some("off") => return Some(None),
        Some(text) => text.strip_suffix('%').map(str::trim_end),
        None => None,
    };
    let is_number = |it: &&str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit());
    let number = percent.filter(is_number).and_then(|it| it.parse().ok());
    if let Some(percent @ 1..=100) = number {
        return Some(Some(percent));
    }
    let error = match value.get_ref() {
        DeValue::String(_) => findings.error(value.span(), "invalid share `full`"),
        other => findings.error(
            value.span(),
            format!("`full` is a share in quotes, not {}", type_of(other)),
        ),
    };
    error.help("write `\"90%\"`, from 1 to 100, or `\"off\"`");
    None
}
