//! One file of the configuration: parsed, checked by itself, with the place of
//! everything in it. No file is opened here.

mod address;
mod conntrack;
mod duplicates;
mod entry;
mod expected;
mod fdb;
mod guard;
mod interface;
mod ipset;
mod iptables;
mod link;
mod neighbour;
mod network;
mod nftables;
mod route;
mod rule;
mod selector;
mod syntax;
mod sysctl;
mod sysctl_conf;
mod system;
mod values;

use std::borrow::Cow;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Findings, all_of, quoted};
use super::file::{ConfigFile, Span};
use super::suggest::nearest;
use super::tables::Tables;
pub(super) use conntrack::Conntrack;
pub(super) use entry::{Entry, EntryMode};
pub(super) use guard::Guard;
pub(super) use route::is_link_local;
pub(super) use selector::split_interface;
use syntax::Trust;
use values::in_order;

/// What a file may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The main file, a drop-in or a file named on the command line: everything.
    Main,
    /// A profile: `[sysctl]` and a description.
    Profile,
}

/// A file of the configuration.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) file: Arc<ConfigFile>,
    /// The profiles it names, where it has that key.
    pub(super) profiles: Option<Vec<Named>>,
    pub(super) guard: Guard,
    pub(super) conntrack: Conntrack,
    pub(super) entries: Vec<Entry>,
}

/// A name and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) span: Span,
}

type Key<'i> = Spanned<toml::de::DeString<'i>>;
type Item<'i> = Spanned<DeValue<'i>>;

/// Reads a file's text; its diagnostics are in the order of its lines.
pub(super) fn parse(
    file: &Arc<ConfigFile>,
    kind: Kind,
    tables: &Arc<Tables>,
) -> (Document, Vec<Diagnostic>) {
    let mut document = Document {
        file: Arc::clone(file),
        profiles: None,
        guard: Guard::default(),
        conntrack: Conntrack::default(),
        entries: Vec::new(),
    };
    let mut findings = Findings::new(file, tables);
    if sysctl_conf::report(file.text(), &mut findings) {
        return (document, findings.diagnostics);
    }
    let mut trust = Trust::default();
    let mut text = Cow::Borrowed(file.text());
    let syntax = loop {
        let (table, errors) = DeTable::parse_recoverable(&text);
        let blank = syntax::report(&errors, table.get_ref(), &mut trust, &mut findings);
        let Some(line) = blank else {
            let syntax = findings.diagnostics.len();
            top_level(table.get_ref(), kind, &mut document, &mut findings);
            break syntax;
        };
        drop(table);
        blank_line(text.to_mut(), file, line);
    };
    duplicates::check(&document.entries, &mut findings);

    let mut diagnostics = findings.diagnostics;
    let understood = |offset| trust.holds(file.line_index(offset));
    let mut at = 0;
    diagnostics.retain(|diagnostic| {
        at += 1;
        at <= syntax || understood(diagnostic.offset())
    });
    if let Some(profiles) = &mut document.profiles {
        profiles.retain(|named| understood(named.span.start));
    }
    diagnostics.sort_by_key(Diagnostic::offset);
    (document, diagnostics)
}

/// Takes a line out of the text, and leaves everything else in its place.
fn blank_line(text: &mut String, file: &ConfigFile, index: usize) {
    let start = file.line_start(index);
    let length = file.line(index).len();
    text.replace_range(start..start + length, &" ".repeat(length));
}

/// The tables of which there may be several, each with its reader.
type Reader = fn(&DeTable<'_>, Span, &mut Findings) -> Vec<Entry>;
const NETWORK: [(&str, Reader); 8] = [
    ("address", |it, at, findings| {
        Vec::from_iter(address::entry(it, at, findings))
    }),
    ("route", |it, at, findings| {
        Vec::from_iter(route::entry(it, at, findings))
    }),
    ("rule", |it, at, findings| {
        Vec::from_iter(rule::entry(it, at, findings))
    }),
    ("neighbour", |it, at, findings| {
        Vec::from_iter(neighbour::entry(it, at, findings))
    }),
    ("fdb", |it, at, findings| {
        Vec::from_iter(fdb::entry(it, at, findings))
    }),
    ("ipset", |it, at, findings| {
        Vec::from_iter(ipset::entry(it, at, findings))
    }),
    ("iptables", iptables::entries),
    ("nftables", |it, at, findings| {
        Vec::from_iter(nftables::entry(it, at, findings))
    }),
];

/// The tables with an entry for each name, each with its reader.
type NamesReader = fn(&DeTable<'_>, &mut Findings) -> Vec<Entry>;
const BY_NAME: [(&str, NamesReader); 4] = [
    ("sysctl", sysctl::entries),
    ("module", system::modules),
    ("link", link::entries),
    ("unit", system::units),
];

const MAIN: [&str; 16] = [
    "profiles",
    "guard",
    "conntrack",
    "sysctl",
    "module",
    "link",
    "address",
    "route",
    "rule",
    "neighbour",
    "fdb",
    "ipset",
    "iptables",
    "nftables",
    "unit",
    "description",
];
/// A profile activates no others, and leaves the guard's own settings to the node.
const PROFILE: &[&str] = MAIN.split_at(3).1;

fn top_level(table: &DeTable<'_>, kind: Kind, document: &mut Document, findings: &mut Findings) {
    for (key, value) in in_order(table) {
        let field = key.get_ref().as_ref();
        if let Some((name, entries)) = NETWORK.iter().find(|(name, _)| *name == field) {
            for (table, at) in values::tables(value, name, findings) {
                document.entries.extend(entries(table, at, findings));
            }
            continue;
        }
        if let Some((name, entries)) = BY_NAME.iter().find(|(name, _)| *name == field) {
            if let Some(table) = values::table(value, name, findings) {
                document.entries.extend(entries(table, findings));
            }
            continue;
        }
        match (field, kind) {
            ("description", _) => {
                values::string(value, "`description`", findings);
            }
            ("profiles", Kind::Main) => document.profiles = profiles(value, findings),
            ("guard", Kind::Main) => {
                if let Some(table) = values::table(value, "guard", findings) {
                    document.guard = guard::guard(table, findings);
                }
            }
            ("conntrack", Kind::Main) => {
                if let Some(table) = values::table(value, "conntrack", findings) {
                    document.conntrack = conntrack::conntrack(table, findings);
                }
            }
            (field @ ("profiles" | "guard" | "conntrack"), Kind::Profile) => {
                findings
                    .error(key.span(), format!("a profile cannot contain {}", quoted(field)))
                    .help("a profile contains what is guarded and `description`; everything else belongs in netguard.toml");
            }
            (field, _) => unknown_top_level(field, key, value, kind, findings),
        }
    }
}

fn unknown_top_level(
    field: &str,
    key: &Key<'_>,
    value: &Item<'_>,
    kind: Kind,
    findings: &mut Findings,
) {
    let known: &[&str] = match kind {
        Kind::Main => &MAIN,
        Kind::Profile => PROFILE,
    };
    // A key of the kernel that stands outside its table, quoted or not.
    let kernel = selector::looks_like_key(field, value);
    let error = findings.error(key.span(), format!("unknown field {}", quoted(field)));
    if let Some(near) = nearest(field, known) {
        error.suggest(Some(near));
    } else if guard::FIELDS.contains(&field) {
        error.help(format!("{} belongs under `[guard]`", quoted(field)));
    } else if kernel {
        error.help("kernel keys belong under `[sysctl]`, in quotes");
    } else {
        error.help(format!("the fields here are {}", all_of(known)));
    }
}

fn profiles(value: &Item<'_>, findings: &mut Findings) -> Option<Vec<Named>> {
    let names = values::strings(value, "`profiles`", "[\"kubernetes\"]", findings)?;
    let mut profiles = Vec::new();
    for named in names {
        if is_profile_name(&named.name) {
            profiles.push(named);
            continue;
        }
        let error = findings.error(
            named.span,
            format!("{} is not a valid profile name", quoted(&named.name)),
        );
        let stem = named.name.rsplit('/').next().unwrap_or_default();
        let stem = stem.strip_suffix(".toml").unwrap_or(stem).to_lowercase();
        error.note("a profile's name has only a-z, 0-9 and `-`; it is not a path");
        if is_profile_name(&stem) {
            error.suggest(Some(stem));
        }
    }
    Some(profiles)
}

fn is_profile_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Reports a field that a table does not have.
fn unknown_field(key: &Key<'_>, table: &str, known: &[&str], findings: &mut Findings) {
    let field = key.get_ref().as_ref();
    let error = findings.error(key.span(), format!("unknown field {}", quoted(field)));
    if let Some(near) = nearest(field, known) {
        error.suggest(Some(near));
    } else if MAIN.contains(&field) {
        error.help(format!(
            "{} belongs at the top of the file, above the first `[table]`",
            quoted(field)
        ));
    } else {
        error.help(format!("{table} has {}", all_of(known)));
    }
}

/// A value's type with its article.
fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
pub(super) mod properties;
