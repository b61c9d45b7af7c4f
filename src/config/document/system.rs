//! The `[module]` and `[unit]` tables. Of each name one state can be required: the short
//! form spells it out, the long form implies it.

use toml::de::{DeTable, DeValue};

use super::super::diagnostic::{Findings, quoted};
use super::super::file::Span;
use super::entry::{Entry, EntryMode, Fields};
use super::network::{equal, word};
use super::values::in_order;
use super::{Item, Key, guard, type_of};
use crate::model::{Selector, UNIT_TYPES};
use crate::resource::{Attribute, Desired, Module, Resource, Unit};

const MODULE: [&str; 5] = ["state", "load", "mode", "reason", "grace"];
const UNIT: [&str; 5] = ["state", "restore", "mode", "reason", "grace"];

/// The one state of a module.
const LOADED: &str = "loaded";

/// Types of units that systemd cannot start.
const NOT_STARTED: [&str; 2] = ["device", "scope"];

/// Reads the table `[module]`.
pub(super) fn modules(table: &DeTable<'_>, findings: &mut Findings) -> Vec<Entry> {
    let entries = in_order(table).into_iter();
    entries
        .filter_map(|(key, value)| module(key, value, findings))
        .collect()
}

/// Reads the table `[unit]`.
pub(super) fn units(table: &DeTable<'_>, findings: &mut Findings) -> Vec<Entry> {
    let entries = in_order(table).into_iter();
    entries
        .filter_map(|(key, value)| unit(key, value, findings))
        .collect()
}

fn module(key: &Key<'_>, value: &Item<'_>, findings: &mut Findings) -> Option<Entry> {
    let at = Span::from(key.span());
    let name = module_name(key.get_ref(), at, findings);
    let short = DeTable::new();
    let table = long_form(value, &short, LOADED, findings)?;
    let fields = Fields::of(table, at, "a module", &MODULE, findings);
    let load = fields.value("load", findings, guard::yes_or_no);
    let load = load.unwrap_or(false);
    let resource = name.clone().map(Resource::Module);
    let mut entry = entry(&fields, resource, LOADED, findings)?;
    if !load && entry.mode != Some(EntryMode::Off) {
        if entry.mode == Some(EntryMode::Restore) {
            let mode = fields
                .get("mode")
                .map_or(value.span(), |(key, _)| key.span());
            findings
                .error(mode, "a module is loaded only with `load = true`")
                .help("add `load = true`, or remove `mode`: it is then reported");
            return None;
        }
        entry.mode = Some(EntryMode::Observe);
        entry.module = name.map(|it| it.as_str().to_owned());
    }
    Some(entry)
}

fn unit(key: &Key<'_>, value: &Item<'_>, findings: &mut Findings) -> Option<Entry> {
    let at = Span::from(key.span());
    if report_unquoted(key, value, findings) {
        return None;
    }
    let name = unit_name(key.get_ref(), at, findings);
    let short = DeTable::new();
    let table = long_form(value, &short, "active", findings)?;
    let fields = Fields::of(table, at, "a unit", &UNIT, findings);
    let restore = fields.value("restore", findings, |value, field, findings| {
        word(value, field, &["start", "restart"], findings)
    });
    let mut entry = entry(&fields, name.map(Resource::Unit), "active", findings)?;
    entry.restart = restore.as_deref() == Some("restart");
    Some(entry)
}

/// The table of the long form; `short` where the value is just the state.
fn long_form<'t, 'i>(
    value: &'t Item<'i>,
    short: &'t DeTable<'i>,
    state: &str,
    findings: &mut Findings,
) -> Option<&'t DeTable<'i>> {
    if let DeValue::Table(table) = value.get_ref() {
        return Some(table);
    }
    read_state(value, state, findings)?;
    Some(short)
}

fn entry(
    fields: &Fields<'_, '_>,
    resource: Option<Resource>,
    state: &str,
    findings: &mut Findings,
) -> Option<Entry> {
    fields.value("state", findings, |value, _, findings| {
        read_state(value, state, findings)
    });
    let common = fields.common(findings);
    let desired = Desired::with(Vec::from_iter(equal(Attribute::State, Some(state))));
    let selector = resource.map(Selector::Resource);
    fields.entry(common, selector, desired, findings)
}

/// The one state that can be required.
fn read_state(value: &Item<'_>, state: &str, findings: &mut Findings) -> Option<()> {
    let found = value.get_ref().as_str();
    if found == Some(state) {
        return Some(());
    }
    let found = match found {
        Some(text) => quoted(text),
        None => type_of(value.get_ref()).to_owned(),
    };
    findings
        .error(
            value.span(),
            format!("the state is `\"{state}\"`, not {found}"),
        )
        .help(format!(
            "write {}; to leave it alone use `mode = \"off\"`",
            match state {
                LOADED => "`{ load = true }`, or `\"loaded\"` to only report".to_owned(),
                state => format!("`\"{state}\"`"),
            }
        ));
    None
}

/// The name of a module as the kernel shows it: modprobe(8) takes `-` for `_`.
pub(super) fn module_name(text: &str, at: Span, findings: &mut Findings) -> Option<Module> {
    let module = Module::parse(text);
    if module.is_none() {
        let stem = text.rsplit('/').next();
        let stem = stem.and_then(|name| name.split('.').next());
        findings
            .error(at, format!("{} is not a valid module name", quoted(text)))
            .suggest(stem.filter(|stem| Module::parse(stem).is_some()));
    }
    module
}

fn unit_name(text: &str, at: Span, findings: &mut Findings) -> Option<Unit> {
    let fault = guard::unit_fault(text);
    let unit = Unit::parse(text).filter(|_| fault.is_none());
    let (message, help) = match (fault, &unit) {
        (Some(fault), _) => fault,
        (None, Some(unit)) if NOT_STARTED.contains(&unit.unit_type()) => (
            "cannot be started".to_owned(),
            format!("systemd starts no {} units", unit.unit_type()),
        ),
        (None, Some(unit)) if unit.as_str().contains("@.") => (
            "is a template".to_owned(),
            format!("name an instance, such as `{}`", text.replace("@.", "@1.")),
        ),
        _ => return unit,
    };
    findings
        .error(at, format!("{} {message}", quoted(text)))
        .help(help);
    None
}

/// Reports a name that was written without quotes: TOML takes what follows its dot for
/// a table within a table.
fn report_unquoted(key: &Key<'_>, value: &Item<'_>, findings: &mut Findings) -> bool {
    let DeValue::Table(table) = value.get_ref() else {
        return false;
    };
    let types = table.keys().map(|it| it.get_ref().as_ref());
    let types: Vec<&str> = types.filter(|it| UNIT_TYPES.contains(it)).collect();
    for unit_type in &types {
        let name = format!("\"{}.{unit_type}\"", key.get_ref());
        findings
            .error(key.span(), "the name must be quoted")
            .help(format!("write {}", quoted(&name)));
    }
    !types.is_empty()
}
