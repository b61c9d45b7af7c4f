//! `netguard explain`: what a key means, its desired value and why, its
//! current value, what would change it and what did.

mod asked;
mod conntrack;
mod current;
mod kinds;
mod page;

use std::path::Path;

use super::conflicts::{push_hint, push_line, push_lines};
use super::fold::groups;
use super::history::line;
use super::load::{load_or_nothing, note_foreign_network};
use super::{args, exit, print};
use crate::config::{Request, is_accepted, selector_meant};
use crate::conflicts::{Found, find};
use crate::journal::moment::Zone;
use crate::journal::read::{self as journal, Named, Place, Query};
use crate::model::facts::{Access, Fact, Obsolete};
use crate::model::{
    Governing, Invariant, Mode, Origin, Selector, Settings, SysctlKey, Target, Value, text,
};
use crate::resource::{Resource, State};
use crate::words::must_be;
use asked::{asked, whole};
use current::{Seen, is_readable, probe, seen};
use page::{Page, label_cell};

/// Of how many groups of a pattern's keys the values are shown.
const SHOWN: usize = 8;
/// How many records are shown.
const DRIFTS: usize = 5;

/// Explains one key, or the keys of a pattern.
///
/// # Errors
/// The exit code, where that is no key, is unknown, or the configuration
/// is refused.
pub fn run(request: &Request, options: &args::Explain) -> Result<u8, u8> {
    let text = options.key.as_str();
    let settings = load_or_nothing(request)?;
    note_foreign_network(request);
    if conntrack::is_meant(text) {
        let page = Page::new(options.all.all);
        return Ok(conntrack::run(&settings.conntrack, request, page));
    }
    let asked = asked(text, &settings, request)?;
    let mut subject = Subject::of(asked, &settings, request)?;
    let root = &request.root;
    if subject.is_unknown(root)
        && matches!(subject.asked, Selector::Key(_))
        && let Some(whole) = whole(text, &settings, request)?
    {
        subject = Subject::of(whole, &settings, request)?;
    }
    if let Some(folder) = subject.folder(root) {
        print::note(&format!(
            "netguard: `{folder}` is a directory; for its keys use `netguard explain '{folder}.*'`\n"
        ));
        return Err(exit::USAGE);
    }
    if subject.is_unknown(root) {
        print::note(&subject.unknown(root));
        return Err(exit::USAGE);
    }
    let mut page = Page::new(options.all.all);
    subject.fill(&mut page, request);
    subject.add_files(&mut page, request);
    subject.add_drifts(&mut page, request);
    Ok(print::result(&page.text, exit::OK))
}

/// What is explained.
struct Subject<'a> {
    asked: Selector,
    fact: Option<&'static Fact>,
    /// The invariants that have to do with it; of a key the one that governs it.
    invariants: Vec<&'a Invariant>,
    /// An entry with mode off.
    off: Option<&'a Origin>,
    settings: &'a Settings,
    /// The keys that the kernel has now, and how each stands.
    values: Vec<Seen>,
}

/// The verdict on a key's value.
#[derive(PartialEq, Eq)]
enum Verdict {
    Unguarded,
    Holds,
    /// And what is required.
    Drifted(String),
    Unreadable(String),
}

impl<'a> Subject<'a> {
    fn of(asked: Selector, settings: &'a Settings, request: &Request) -> Result<Self, u8> {
        // What another root has of most other kinds is not known.
        let values = match is_readable(&asked, request) {
            true => seen(&asked, settings, request)?,
            false => Vec::new(),
        };
        let invariants: Vec<&Invariant> = match &asked {
            Selector::Key(key) => {
                let governing = Governing::new(&settings.invariants);
                governing
                    .of(key)
                    .map(|i| &settings.invariants[i])
                    .into_iter()
                    .collect()
            }
            _ => {
                let meets = |it: &&Invariant| !it.is_off() && it.selector.meets(&asked);
                let named = settings.invariants.iter().find(|it| it.selector == asked);
                let patterns = settings.invariants.iter().filter(meets);
                match (&asked, named) {
                    (Selector::Resource(_), Some(named)) => vec![named],
                    (Selector::Resource(resource), None) => {
                        let state = values.first().and_then(|it| it.state.as_ref());
                        let state = state.filter(|it| it.exists());
                        patterns
                            .filter(|it| {
                                let group = it.selector.group();
                                group.is_some_and(|it| {
                                    state.is_none_or(|state| it.matches(resource, state))
                                })
                            })
                            .collect()
                    }
                    _ => patterns.collect(),
                }
            }
        };
        let invariants: Vec<_> = invariants.into_iter().filter(|it| !it.is_off()).collect();
        let off = settings
            .invariants
            .iter()
            .rfind(|it| it.is_off() && it.selector.meets(&asked));
        Ok(Subject {
            fact: Fact::of(&asked),
            invariants,
            off: off.map(|it| &it.origin),
            settings,
            values,
            asked,
        })
    }

    /// Whether it is unknown to this kernel, the configuration and netguard.
    fn is_unknown(&self, root: &Path) -> bool {
        self.asked.is_sysctl()
            && self.values.is_empty()
            && self.invariants.is_empty()
            && self.off.is_none()
            && (self.fact.is_none() || self.suggestion(root).is_some())
    }

    /// What was probably meant.
    fn suggestion(&self, root: &Path) -> Option<Selector> {
        selector_meant(&self.asked.to_string(), root)
    }

    /// The key that was asked for, where that is a directory.
    fn folder(&self, root: &Path) -> Option<&SysctlKey> {
        let Selector::Key(key) = &self.asked else {
            return None;
        };
        let path = root.join("proc/sys").join(key.path());
        let found = path.symlink_metadata().is_ok_and(|it| it.is_dir());
        found.then_some(key)
    }

    /// The invariants of the same setting of interfaces, of a key of `all` or
    /// `default`.
    fn of_interfaces(&self) -> Vec<&Invariant> {
        let Selector::Key(key) = &self.asked else {
            return Vec::new();
        };
        let same = match key.interface_key() {
            Some((family, Target::All | Target::Default, name)) => {
                format!("net.{}.conf.*.{name}", family.as_str())
            }
            _ => return Vec::new(),
        };
        let Ok(same) = Selector::parse(&same) else {
            return Vec::new();
        };
        let meets = |it: &&Invariant| {
            !it.is_off() && it.selector.meets(&same) && !it.selector.meets(&self.asked)
        };
        self.settings.invariants.iter().filter(meets).collect()
    }

    fn unknown(&self, root: &Path) -> String {
        let asked = &self.asked;
        let (what, nor) = match asked {
            Selector::Key(_) => (
                "this kernel has no key",
                "the configuration does not name it",
            ),
            _ => {
                let nor = "no configured pattern matches it";
                ("no key of this kernel matches", nor)
            }
        };
        match self.suggestion(root) {
            Some(meant) => format!("netguard: {what} `{asked}`; did you mean `{meant}`?\n"),
            None => format!("netguard: {what} `{asked}`, and {nor}\n"),
        }
    }

    fn fill(&self, page: &mut Page, request: &Request) {
        page.text.push_str(&format!("{}\n", self.asked));
        if !self.asked.is_sysctl() {
            let about = kinds::about(self.asked.kind());
            page.item("means", about.means);
            if !about.kernel.is_empty() {
                page.item("kernel", about.kernel);
            }
            self.add_expected(page);
            self.add_states(page);
            return;
        }
        if let Some(fact) = self.fact {
            if !fact.means.is_empty() {
                page.item("means", fact.means);
            }
            if !fact.kernel.is_empty() {
                page.item("kernel", fact.kernel);
            }
            if let Some(words) = fact.all.words() {
                page.item("kernel", &sentence(words));
            }
        }
        if let Selector::Key(key) = &self.asked {
            let others: Vec<String> = key.aliases().map(|key| key.to_string()).collect();
            if !others.is_empty() {
                page.item("alias", &others.join(", "));
            }
        }
        self.add_limits(page);
        self.add_expected(page);
        self.add_current(page);
        self.add_needed(page, request);
    }

    /// What there is of a resource that is no sysctl.
    fn add_states(&self, page: &mut Page) {
        let governing = |resource: &Resource| {
            let named = |it: &&&Invariant| it.selector == Selector::Resource(resource.clone());
            self.invariants.iter().find(named)
        };
        for seen in &self.values {
            if let Some(error) = &seen.error {
                page.item("current", &format!("unreadable: {error}"));
            }
            let Some(state) = &seen.state else {
                continue;
            };
            let verdict = match (governing(&seen.key), &seen.pending) {
                (Some(invariant), _) if invariant.matches(state) => ", OK".to_owned(),
                (Some(invariant), Some(why)) => {
                    format!(" (pending: {why}; expected {})", invariant.desired)
                }
                (Some(invariant), None) => format!(" (drifted, expected {})", invariant.desired),
                (None, _) => String::new(),
            };
            let name = match &self.asked {
                Selector::Resource(_) => String::new(),
                _ => format!("{} is ", seen.key),
            };
            page.item("current", &format!("{name}{state}{verdict}"));
        }
    }

    /// What cannot be done with the key, or has no effect.
    fn add_limits(&self, page: &mut Page) {
        let Some(fact) = self.fact else {
            return;
        };
        match fact.access {
            Access::ReadWrite => {}
            Access::ReadOnly => page.item("limits", "read-only: it cannot be restored"),
            Access::WriteOnly => {
                page.item("limits", "write-only: it has no value to restore");
            }
        }
        match fact.obsolete {
            None => {}
            Some(Obsolete::Removed(version)) => {
                page.item("limits", &format!("removed in Linux {version}"));
            }
            Some(Obsolete::NoEffect(version)) => {
                page.item("limits", &format!("has no effect since Linux {version}"));
            }
        }
    }

    /// The interfaces whose own switch is off, where that decides beside the key: not while
    /// it is off itself, as theirs are then too.
    fn add_needed(&self, page: &mut Page, request: &Request) {
        let is_off = |seen: &Seen| seen.value.as_ref().is_some_and(|it| it.as_str() == "0");
        let Some(needed) = self.fact.and_then(|fact| fact.needs) else {
            return;
        };
        if self.values.iter().any(is_off) {
            return;
        }
        let off = Selector::parse(needed)
            .ok()
            .and_then(|needed| seen(&needed, self.settings, request).ok())
            .unwrap_or_default()
            .into_iter()
            .filter(is_off)
            .filter(|seen| !matches!(seen.key.rules().interface(), Some("lo")))
            .filter(
                |seen| !matches!(&self.asked, Selector::Key(key) if seen.key.sysctl() == Some(key)),
            );
        let off: Vec<SysctlKey> = off.filter_map(|seen| seen.key.sysctl().cloned()).collect();
        for key in off.iter().take(SHOWN) {
            let what = match key.interface() {
                Some(name) => format!("packets from {} are not forwarded", text::shown(name)),
                None => "new interfaces inherit it".to_owned(),
            };
            page.item("but", &format!("{key} is 0: {what}"));
        }
        if let Some(more @ 1..) = off.len().checked_sub(SHOWN) {
            page.item("", &format!("and {more} more interfaces"));
        }
    }

    /// Whether it is unknown if a group means the resource: its interface is no part of its
    /// name, and it does not exist now.
    fn is_conditional(&self, selector: &Selector) -> bool {
        let exists = |it: &Seen| it.state.as_ref().is_some_and(State::exists);
        match (&self.asked, selector.group()) {
            (Selector::Resource(asked), Some(group)) => {
                group.dev.is_some() && asked.dev().is_none() && !self.values.iter().any(exists)
            }
            _ => false,
        }
    }

    fn add_expected(&self, page: &mut Page) {
        let shown = if page.all { usize::MAX } else { SHOWN };
        for invariant in self.invariants.iter().take(shown) {
            let required = invariant.desired.to_string();
            let required = shown_value(&required);
            let by = match &invariant.selector {
                selector if *selector == self.asked => String::new(),
                selector if self.is_conditional(selector) => {
                    format!(" by {selector} if it leads through such an interface")
                }
                selector => format!(" by {selector}"),
            };
            let mode = match invariant.mode {
                Mode::Restore => "",
                Mode::Observe => ", observe mode",
            };
            let reason = match &invariant.reason {
                Some(reason) => format!(": {reason}"),
                None => String::new(),
            };
            let origin = &invariant.origin;
            page.item(
                "expected",
                &format!("{required}{by}{mode} ({origin}){reason}"),
            );
        }
        if let Some(more @ 1..) = self.invariants.len().checked_sub(shown) {
            page.item("", &format!("and {more} more entries; --all shows each"));
        }
        if !self.invariants.is_empty() {
            return;
        }
        let line = self.line().map(|line| format!("`{line}` under [sysctl]"));
        page.item(
            "expected",
            &match (self.off, line) {
                (Some(origin), _) => format!("not managed: mode is off ({origin})"),
                (None, Some(line)) => {
                    format!("not guarded; to keep it as it is, add {line} in /etc/netguard/netguard.toml")
                }
                (None, None) => "not guarded".to_owned(),
            },
        );
        for invariant in self.of_interfaces() {
            let (selector, origin) = (&invariant.selector, &invariant.origin);
            let what = format!("{selector} {} ({origin})", must_be(&invariant.desired));
            page.item("but", &what);
        }
    }

    /// The line that would keep the key as it is; `None` where it has no value
    /// now, guarding it would have no effect, or the configuration would not be right with it.
    fn line(&self) -> Option<String> {
        let Selector::Key(key) = &self.asked else {
            return None;
        };
        if self.fact.is_some_and(|fact| !fact.has_effect(key)) {
            return None;
        }
        let value = self.values.iter().find_map(|seen| seen.value.as_ref())?;
        let line = format!("\"{key}\" = {}", toml_value(value.as_str()));
        is_accepted(&format!("[sysctl]\n{line}\n")).then_some(line)
    }

    fn add_current(&self, page: &mut Page) {
        if self.values.is_empty() {
            return page.item("current", &self.absent());
        }
        let index = Governing::new(&self.settings.invariants);
        let items = self.values.iter().map(|seen| {
            let governing = seen.key.sysctl().and_then(|key| index.of(key));
            let (verdict, value) = self.verdict(seen, governing);
            let value = value.map(|it| shown_value(it.as_str()).to_owned());
            let invariant = governing.unwrap_or(usize::MAX);
            (invariant, verdict, &seen.key, value.unwrap_or_default())
        });
        let groups = groups(items, page.all);
        for group in groups
            .iter()
            .take(if page.all { usize::MAX } else { SHOWN })
        {
            let shown = |value: &str| match &group.kind {
                Verdict::Unguarded => value.to_owned(),
                Verdict::Holds => format!("{value}, OK"),
                Verdict::Drifted(required) => {
                    format!("{value} (drifted, expected {required})")
                }
                Verdict::Unreadable(why) => format!("unreadable: {why}"),
            };
            if group.is_folded() {
                let by = self.settings.invariants.get(group.invariant);
                let by = by.map_or(&self.asked, |it| &it.selector);
                page.item("current", &format!("{by} is {}", shown(&group.values())));
                page.item("", &group.range());
                continue;
            }
            for (key, value) in &group.items {
                match &self.asked {
                    Selector::Key(_) => page.item("current", &shown(value)),
                    _ => page.item("current", &format!("{key} is {}", shown(value))),
                }
            }
        }
        let left = groups.iter().skip(SHOWN).map(|group| group.items.len());
        match left.sum::<usize>() {
            more @ 1.. if !page.all => {
                page.item("", &format!("and {more} more keys; --all shows each"));
            }
            _ => {}
        }
    }

    fn verdict<'s>(
        &self,
        seen: &'s Seen,
        governing: Option<usize>,
    ) -> (Verdict, Option<&'s Value>) {
        let governing = governing.map(|i| &self.settings.invariants[i]);
        match (&seen.error, &seen.value, governing) {
            (Some(why), ..) => (Verdict::Unreadable(why.clone()), None),
            (None, Some(value), Some(invariant)) if invariant.holds(value) => {
                (Verdict::Holds, Some(value))
            }
            (None, value, Some(invariant)) => {
                let required = invariant.desired.to_string();
                (Verdict::Drifted(required), value.as_ref())
            }
            (None, value, None) => (Verdict::Unguarded, value.as_ref()),
        }
    }

    /// Why there is no such key now.
    fn absent(&self) -> String {
        let configured = self.invariants.iter().find_map(|it| it.module.as_deref());
        let module = configured.or(self.fact.and_then(|it| it.module));
        let interface = self.asked.key().and_then(SysctlKey::interface);
        match (module, interface) {
            (Some(module), _) => format!("not present: requires module {module}"),
            (None, Some(name)) => {
                let name = text::shown(name);
                format!("not present: requires interface {name}")
            }
            (None, None) => "not present".to_owned(),
        }
    }

    /// What the files of the node will do to it.
    fn add_files(&self, page: &mut Page, request: &Request) {
        if !self.asked.is_sysctl() {
            return;
        }
        let root = &request.root;
        let found = match &self.asked {
            Selector::Pattern(_) | Selector::Resource(_) | Selector::Group(_) => {
                let mut found = find(root, self.settings);
                let asked = &self.asked;
                found.lines.retain(|it| it.conflict.guarded.meets(asked));
                found.hints.clear();
                found
            }
            Selector::Key(_) => match self.as_invariant() {
                Some(invariant) => find(root, &self.settings.with(vec![invariant])),
                None => Found::default(),
            },
        };
        if found.lines.is_empty() && found.hints.is_empty() {
            page.item("files", "no conflicting settings");
            return;
        }
        page.item(
            "files",
            if self.invariants.is_empty() {
                "these would change it:"
            } else {
                "conflicting settings:"
            },
        );
        let width = page.width.map(|it| it.saturating_sub(label_cell("").len()));
        let mut files = String::new();
        match &self.asked {
            Selector::Key(_) => {
                for line in &found.lines {
                    push_line(&mut files, line, width);
                }
            }
            _ => push_lines(&mut files, &found.lines, width),
        }
        for hint in &found.hints {
            push_hint(&mut files, hint, width);
        }
        page.below(&files);
    }

    /// The records of it in the journal, newest last.
    fn add_drifts(&self, page: &mut Page, request: &Request) {
        let query = Query {
            key: Some(Named::from(&self.asked)),
            last: Some(DRIFTS),
            ..Query::default()
        };
        let zone = Zone::local();
        let mut any = false;
        let entries = match journal::read(&Place::of(&request.root), query) {
            Ok(entries) => entries,
            Err(error) => return page.item("history", &format!("unreadable: {error}")),
        };
        for entry in entries {
            match entry {
                Ok(entry) => page.item("history", &line(&entry, &zone)),
                Err(error) if error.is_passing() => continue,
                Err(error) => page.item("history", &format!("unreadable: {error}")),
            }
            any = true;
        }
        if !any {
            page.item("history", "the journal has no record of it");
        }
    }

    /// The key with its desired value; if it has none, with its current value.
    fn as_invariant(&self) -> Option<Invariant> {
        let mut invariant = match self.invariants.first() {
            Some(invariant) => (*invariant).clone(),
            None => probe(&self.asked, self.values.first()?.value.clone()?),
        };
        invariant.selector = self.asked.clone();
        Some(invariant)
    }
}

/// A value for people; an empty one can be seen.
fn shown_value(value: &str) -> &str {
    match value {
        "" => "\"\"",
        value => value,
    }
}

/// Words as a sentence among others.
fn sentence(words: &str) -> String {
    let (first, rest) = words.split_at(words.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}.", first.to_uppercase())
}

/// A value as the configuration has it.
fn toml_value(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(_) => value.to_owned(),
        Err(_) => format!("{value:?}"),
    }
}
