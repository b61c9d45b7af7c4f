//! `netguard check`: checks once and reports drift.

use std::fmt::Display;

use nix::libc;
use nix::unistd::geteuid;
use serde::Serialize;

use super::fold::{Group, groups};
use super::load::{leave_out_running, load_or_running, note_foreign_network, procsys};
use super::{args, conflicts, exit, print};
use crate::clock;
use crate::config::{Diagnostic, Loaded, Request, Severity};
use crate::conflicts::Found;
use crate::conntrack::Usage;
use crate::engine::{Affected, Engine, Failure, Fault, Limitation, LimitationKind, Phase, Watched};
use crate::journal::message::{connections, unreadable};
use crate::journal::moment::Zone;
use crate::journal::{limits, pending};
use crate::model::{Mode, Settings, SysctlKey};
use crate::resource::{Resource, ResourceKind, State};
use crate::runtime;
use crate::service::state::{self, ConntrackState};
use crate::words::{Count, Values, must_be};

/// Looks once and writes nothing.
///
/// # Errors
/// The exit code, where the configuration is invalid or there is nothing to check.
pub fn run(request: &Request, options: &args::Check) -> Result<u8, u8> {
    let (loaded, files_error) = load_or_running(request)?;
    note_foreign_network(request);
    let notes = notes(&loaded, request);
    let settings = loaded.settings;
    let found = options
        .persistent
        .then(|| conflicts::search(request, &settings));
    let mut scan = scan(settings, request)?;
    scan.ignore_observed = options.ignore_observed;
    let limited = scan.limitation();
    let last_good = || state::last_good_in_force(&request.root);
    let last_good = files_error.as_ref().and_then(|_| last_good());
    let of_values = match scan.verdict() {
        exit::OK if limited.is_some() => exit::TROUBLE,
        code => code,
    };
    let degraded = limited.as_ref().map(limits::text);
    let is_limited = degraded.is_some();
    let degraded = degraded.or(last_good);
    let code = match &found {
        Some(found) if of_values == exit::OK => conflicts::verdict(found),
        _ => of_values,
    };
    Ok(if options.json.json {
        let report = Report {
            degraded,
            files_error,
            notes: notes.into_iter().map(|(_, finding)| finding).collect(),
            ..Report::of(&scan, of_values, found.as_ref())
        };
        print::json(&report, code)
    } else if options.brief {
        let rank = |invariant| rank(&scan.engine, invariant);
        let conflict = found
            .as_ref()
            .and_then(|found| conflicts::brief(found, rank));
        let text = match (conflict.filter(|_| of_values == exit::OK), degraded) {
            (Some(conflict), _) => conflict,
            (None, Some(reason)) if is_limited && of_values == exit::TROUBLE => {
                format!("degraded: {reason}\n")
            }
            (None, Some(reason)) if !is_limited => {
                format!("{}; degraded: {reason}\n", brief(&scan).trim_end())
            }
            _ => brief(&scan),
        };
        print::result(&text, code)
    } else {
        let mut text = String::new();
        if let Some(reason) = degraded {
            push(&mut text, "degraded", &reason, print::width());
        }
        text.push_str(&report(&scan, options.all.all, print::width()));
        for (severity, finding) in &notes {
            push(&mut text, severity.as_str(), finding, print::width());
        }
        if let Some(found) = &found {
            text.push('\n');
            text.push_str(&conflicts::report(found, print::width()));
        }
        print::result(&text, code)
    })
}

/// What the kernel makes of the configuration here, besides the values.
pub(super) fn notes(loaded: &Loaded, request: &Request) -> Vec<(Severity, String)> {
    let found = loaded.consequences(&request.root);
    let line = |it: &Diagnostic| (it.severity(), it.one_line());
    found.iter().map(line).collect()
}

/// Every value as it was read once.
pub(super) struct Scan {
    pub engine: Engine,
    /// The modes of the invariants in the configuration, by their indices.
    modes: Vec<Mode>,
    /// Whether drift in mode `observe` counts for nothing.
    ignore_observed: bool,
}

/// Reads every value once, in all modes.
///
/// # Errors
/// The exit code, where there is no `/proc/sys` to check.
pub(super) fn scan(mut settings: Settings, request: &Request) -> Result<Scan, u8> {
    let below = [ResourceKind::Sysctl, ResourceKind::Module];
    leave_out_running(&mut settings, request, &below);
    let modes = settings.invariants.iter().map(|it| it.mode).collect();
    let known = state::known(&request.root);
    for invariant in &mut settings.invariants {
        invariant.mode = Mode::Observe;
        if known.is_none() {
            // Without a guard nothing is restored when the grace period ends.
            invariant.grace = None;
        }
    }
    let known = known.unwrap_or_default();
    let (engine, _) = runtime::once(settings, procsys(request)?, known);
    Ok(Scan {
        engine,
        modes,
        ignore_observed: false,
    })
}

impl Scan {
    /// The configured mode of a value.
    pub fn mode(&self, watched: &Watched<'_>) -> Mode {
        self.modes[watched.invariant]
    }

    pub fn summary(&self) -> String {
        summary(&self.engine, |watched| self.mode(watched))
    }

    /// The counts without drift that counts for nothing.
    fn counts(&self) -> Values {
        let mut values = counts(&self.engine, |watched| self.mode(watched));
        if self.ignore_observed {
            values.drifted.count -= values.drifted.observed;
            values.drifted.observed = 0;
        }
        values
    }

    /// The values that count as drifted, with their modes.
    fn drifted(&self) -> impl Iterator<Item = (Mode, Watched<'_>)> {
        self.engine
            .watched()
            .filter(|watched| Standing::of(watched) == Standing::Drifted)
            .map(|watched| (self.mode(&watched), watched))
            .filter(|(mode, _)| !(self.ignore_observed && *mode == Mode::Observe))
    }

    /// The exit code for the state of the values.
    pub fn verdict(&self) -> u8 {
        let unreadable = |it: Watched<'_>| Standing::of(&it) == Standing::Unreadable;
        let is_unknown = self.engine.watched().any(unreadable) || for_root(&self.engine).is_some();
        let is_full = self.conntrack_nearly_full().is_some();
        if self.drifted().next().is_some() || is_full && !self.ignore_observed {
            exit::DRIFT
        } else if is_unknown {
            exit::TROUBLE
        } else {
            exit::OK
        }
    }

    /// How full the kernel's conntrack table is, where it is nearly full: that is only observed.
    fn conntrack_nearly_full(&self) -> Option<Usage> {
        self.engine.status().conntrack_nearly_full
    }

    /// What a guard could not do here: what is read is not the kernel's, or root
    /// cannot write what must be restored. Without root this is not expected.
    fn limitation(&self) -> Option<Limitation> {
        let limitations = self.engine.status().limitations;
        let first = limitations.iter().find(|it| !is_for_root(it.kind()));
        if let Some(first) = first {
            return Some(first.clone());
        }
        let is_restored =
            |watched: &Watched<'_>| self.mode(watched) == Mode::Restore && geteuid().is_root();
        let mut unwritable = self.engine.watched().filter_map(|watched| {
            Some((
                watched.unwritable.filter(|_| is_restored(&watched))?,
                watched,
            ))
        });
        let (errno, first) = unwritable.next()?;
        let values = Affected {
            count: 1 + unwritable.count(),
            of: self.engine.tally().values,
            first: first.key.clone(),
        };
        Some(Limitation::Unwritable { values, errno })
    }
}

/// Why what only root can read is unreadable.
const RUN_AS_ROOT: &str = "run as root";

/// Whether it is only about what another user than root may do.
pub(super) fn is_for_root(limitation: LimitationKind) -> bool {
    limitation == LimitationKind::Firewall && !geteuid().is_root()
}

/// Whether it could not be read as that takes root.
pub(super) fn needs_root(key: &Resource, fault: &Fault) -> bool {
    let is_of_firewall = key.kind().firewall_part().is_some();
    let is_denied = matches!(fault.errno.0, libc::EPERM | libc::EACCES);
    !geteuid().is_root() && (is_of_firewall || is_denied)
}

/// Whether this value is unreadable as [that takes root](needs_root).
pub(super) fn is_only_for_root(watched: &Watched<'_>) -> bool {
    matches!(watched.failure, Some(Failure::Unreadable(fault)) if needs_root(watched.key, fault))
}

/// What only root can read, in one line; nothing where that is nothing.
pub(super) fn for_root(engine: &Engine) -> Option<String> {
    let count = engine.watched().filter(is_only_for_root).count();
    let limitations = engine.status().limitations;
    let what = match count {
        0 if limitations.iter().any(|it| is_for_root(it.kind())) => {
            "a part of the firewall".to_owned()
        }
        0 => return None,
        count => Count(count, "value").to_string(),
    };
    Some(format!("{what}: {RUN_AS_ROOT}"))
}

/// The exit code for the state of the values.
pub(super) fn verdict(engine: &Engine) -> u8 {
    let mut code = exit::OK;
    for watched in engine.watched() {
        match Standing::of(&watched) {
            Standing::Drifted => return exit::DRIFT,
            Standing::Unreadable => code = exit::TROUBLE,
            Standing::Ok | Standing::Pending => {}
        }
    }
    code
}

/// The state of a value in a single scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standing {
    Ok,
    Pending,
    Drifted,
    Unreadable,
}

impl Standing {
    pub(super) fn of(watched: &Watched<'_>) -> Self {
        match watched.state {
            Phase::Matching => Standing::Ok,
            Phase::Pending | Phase::Waiting(_) | Phase::Blocked(_) => Standing::Pending,
            Phase::Unread | Phase::Unreadable => Standing::Unreadable,
            Phase::Drifted { .. } | Phase::Restoring(_) | Phase::Contended => Standing::Drifted,
            Phase::Failed => match watched.failure {
                Some(Failure::Unreadable(_)) => Standing::Unreadable,
                _ => Standing::Drifted,
            },
        }
    }
}

/// Why a value is pending, where it is.
pub(super) fn because(watched: &Watched<'_>) -> Option<String> {
    let because = watched.state.pending();
    let because = because.filter(|_| Standing::of(watched) == Standing::Pending)?;
    let until = watched.grace_ends.map(clock::realtime_usec_of);
    Some(pending::text(
        &because.text(watched.key),
        until,
        &Zone::local(),
    ))
}

pub(super) fn why_unreadable(watched: &Watched<'_>) -> Option<String> {
    match watched.failure {
        _ if is_only_for_root(watched) => Some(RUN_AS_ROOT.to_owned()),
        Some(Failure::Unreadable(fault)) => Some(unreadable(watched.key, fault)),
        None if *watched.state == Phase::Unread => {
            Some("it was not read, as there was no answer in time".to_owned())
        }
        _ => None,
    }
}

/// Of what kind a paragraph is; those that matter most come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Drifted,
    Unreadable(String),
    Observed,
    /// And why.
    Pending(String),
}

impl Kind {
    fn of(scan: &Scan, watched: &Watched<'_>) -> Option<Self> {
        match (Standing::of(watched), scan.mode(watched)) {
            (Standing::Ok, _) => None,
            (Standing::Drifted, Mode::Restore) => Some(Kind::Drifted),
            (Standing::Drifted, Mode::Observe) => Some(Kind::Observed),
            (Standing::Pending, _) => Some(Kind::Pending(because(watched)?)),
            (Standing::Unreadable, _) => Some(Kind::Unreadable(
                why_unreadable(watched).unwrap_or_default(),
            )),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Kind::Drifted => "drift",
            Kind::Unreadable(_) => "unreadable",
            Kind::Observed => "observed",
            Kind::Pending(_) => "pending",
        }
    }
}

/// Appends a paragraph, after a word that says of what kind it is.
fn push(text: &mut String, word: &str, words: &str, width: Option<usize>) {
    print::paragraph(text, &format!("{word:<10} "), words, width);
}

/// What is not as expected, a paragraph for each key or, of many of one
/// invariant, for all, and the counts.
fn report(scan: &Scan, all: bool, width: Option<usize>) -> String {
    let mut text = String::new();
    let items = scan.engine.watched().filter_map(|watched| {
        let kind = Kind::of(scan, &watched)?;
        if matches!(kind, Kind::Unreadable(_)) && is_only_for_root(&watched) {
            return None;
        }
        let value = match (watched.seen, &kind) {
            (Some(seen), _) => shown(&scan.engine, &watched, seen),
            (None, Kind::Pending(_)) => String::new(),
            (None, _) => "?".to_owned(),
        };
        Some((watched.invariant, kind, watched.key, value))
    });
    let mut groups = groups(items, all);
    groups.sort_by(|a, b| a.kind.cmp(&b.kind));
    for group in &groups {
        let invariant = &scan.engine.settings().invariants[group.invariant];
        let required = must_be(&invariant.desired);
        let reason = invariant.reason.as_ref();
        let reason = reason.map_or_else(String::new, |it| format!(": {it}"));
        let place = format!("{}{reason}", invariant.origin);
        let word = group.kind.word();
        let module = invariant.module.as_ref();
        let module = module.map(|it| format!("; load module {it}"));
        let what = |name: &dyn Display, values: &str| match &group.kind {
            Kind::Drifted | Kind::Observed => {
                let module = module.as_deref().filter(|_| values == "absent");
                let module = module.unwrap_or_default();
                format!("{name} is {values}, {required}{module}")
            }
            Kind::Pending(why) if values.is_empty() => {
                let module = module.as_deref().unwrap_or_default();
                format!("{name}: {why}{module}")
            }
            Kind::Pending(why) => format!("{name} is {values}, {required}: {why}"),
            Kind::Unreadable(why) => format!("{name}: {why}"),
        };
        if group.is_folded() {
            let what = what(&invariant.selector, &group.values());
            push(&mut text, word, &what, width);
            push(&mut text, "", &group.range(), width);
            push(&mut text, "", &place, width);
            continue;
        }
        for (key, value) in &group.items {
            let what = what(key, value);
            push(&mut text, word, &what, width);
            push(&mut text, "", &place, width);
        }
    }
    if let Some(what) = for_root(&scan.engine) {
        push(&mut text, "unreadable", &what, width);
    }
    if let Some(usage) = scan.conntrack_nearly_full() {
        let full = format!("conntrack nearly full: {}", connections(usage));
        push(&mut text, "observed", &full, width);
    }
    print::paragraph(&mut text, "", &scan.summary(), width);
    text
}

/// What is seen of a value, of what is required.
fn shown(engine: &Engine, watched: &Watched<'_>, seen: &State) -> String {
    let desired = &engine.settings().invariants[watched.invariant].desired;
    desired.part_of(seen.clone()).text().into_owned()
}

/// How many invariants `--brief` names.
const NAMED: usize = 10;

/// One line, for who keeps no more than its beginning: how many drifted, and
/// which, what is restored before what is only observed and forwarding before
/// all else; else the counts.
fn brief(scan: &Scan) -> String {
    let items = scan.drifted().map(|(mode, watched)| {
        let seen = watched.seen;
        let value = seen.map_or_else(|| "?".into(), |it| shown(&scan.engine, &watched, it));
        let kind = (mode == Mode::Observe, !forwards(watched.key));
        (watched.invariant, kind, watched.key, value)
    });
    let mut groups = groups(items, false);
    groups.sort_by_key(|group| group.kind);
    let full = scan
        .conntrack_nearly_full()
        .filter(|_| !scan.ignore_observed);
    let full = full.map(|usage| format!("conntrack nearly full: {}", connections(usage)));
    let drifted = (!groups.is_empty()).then(|| {
        let named = named(&groups, |group| in_brief(scan, group));
        format!("{}: {named}", scan.counts().drifted)
    });
    let unreadable = || unreadable_in_brief(scan).filter(|_| groups.is_empty());
    let all: Vec<String> = drifted
        .into_iter()
        .chain(full)
        .chain(unreadable())
        .collect();
    match all.is_empty() {
        true => format!("{}\n", scan.counts()),
        false => format!("{}\n", all.join("; ")),
    }
}

/// The first groups, and how many more there are.
fn named<'a, K>(groups: &[Group<'a, K>], name: impl Fn(&Group<'a, K>) -> String) -> String {
    let named: Vec<String> = groups.iter().take(NAMED).map(name).collect();
    let more = match groups.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; {} more", Count(more, "invariant")),
    };
    format!("{}{more}", named.join("; "))
}

/// Which values cannot be read, and why; `None` where all can.
fn unreadable_in_brief(scan: &Scan) -> Option<String> {
    let unreadable = |it: &Watched<'_>| Standing::of(it) == Standing::Unreadable;
    let items = scan.engine.watched().filter(unreadable).map(|watched| {
        let why = why_unreadable(&watched).unwrap_or_default();
        (watched.invariant, why, watched.key, String::new())
    });
    if let Some(what) = for_root(&scan.engine) {
        return Some(format!("unreadable: {what}"));
    }
    let groups = groups(items, false);
    let count: usize = groups.iter().map(|it| it.items.len()).sum();
    let name = |group: &Group<'_, String>| {
        let selector = &scan.engine.settings().invariants[group.invariant].selector;
        let why = &group.kind;
        if group.is_folded() {
            return format!("{selector}: {why}");
        }
        let each = group.items.iter().map(|(key, _)| format!("{key}: {why}"));
        each.collect::<Vec<_>>().join("; ")
    };
    (count > 0).then(|| format!("{count} unreadable: {}", named(&groups, name)))
}

fn in_brief<K>(scan: &Scan, group: &Group<'_, K>) -> String {
    let invariant = &scan.engine.settings().invariants[group.invariant];
    let required = must_be(&invariant.desired);
    if group.is_folded() {
        let (selector, values) = (&invariant.selector, group.values());
        return format!("{selector} is {values}, {required}");
    }
    let each = |(key, value): &(&Resource, String)| format!("{key} is {value}, {required}");
    group.items.iter().map(each).collect::<Vec<_>>().join("; ")
}

/// Whether the key decides if packets are forwarded at all.
fn forwards(key: &Resource) -> bool {
    let name = key.sysctl().map(SysctlKey::name);
    matches!(name, Some("ip_forward" | "forwarding"))
}

/// The place of an invariant in the order of restores, which is that of how far
/// a value reaches: the most important first.
fn rank(engine: &Engine, invariant: usize) -> usize {
    let found = engine
        .watched()
        .position(|watched| watched.invariant == invariant);
    // A pattern that nothing matches now.
    found.unwrap_or(usize::MAX)
}

/// The counts, with the `mode` of each value.
pub(super) fn summary(engine: &Engine, mode: impl Fn(&Watched<'_>) -> Mode) -> String {
    let none_known = engine.watched().next().is_none();
    let limitations = &engine.status().limitations;
    if none_known && limitations.iter().any(|it| it.kind().is_severe()) {
        return "no value is known".to_owned();
    }
    counts(engine, mode).to_string()
}

fn counts(engine: &Engine, mode: impl Fn(&Watched<'_>) -> Mode) -> Values {
    let mut values = Values::default();
    for watched in engine.watched() {
        values.all += 1;
        match Standing::of(&watched) {
            Standing::Ok => values.ok += 1,
            Standing::Pending => values.pending += 1,
            Standing::Unreadable => values.unreadable += 1,
            Standing::Drifted => {
                let observed = mode(&watched) == Mode::Observe;
                values.drifted.count += 1;
                values.drifted.observed += usize::from(observed);
            }
        }
    }
    values
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether no value drifted, all could be read and the conntrack table is not full.
    ok: bool,
    /// Why a guard could not do its work here.
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<String>,
    /// Errors of the files, where the values are compared with what the
    /// running guard has in force instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    files_error: Option<String>,
    values: Vec<Row>,
    /// How full the kernel's conntrack table is, where it is nearly full.
    #[serde(skip_serializing_if = "Option::is_none")]
    conntrack_nearly_full: Option<ConntrackState>,
    /// What is worth knowing besides: what has no effect, what is not forwarded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// What `conflicts --json` prints, with `--persistent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent: Option<conflicts::Report<'a>>,
}

#[derive(Serialize)]
struct Row {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    state: Standing,
    value: Option<String>,
    required: String,
    /// The configured mode: `restore` or `observe`.
    mode: &'static str,
    /// Why the value could not be read.
    error: Option<String>,
    /// Why it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<String>,
    module: Option<String>,
    reason: Option<String>,
    file: String,
    line: u32,
}

impl<'a> Report<'a> {
    fn of(scan: &Scan, code: u8, found: Option<&'a Found>) -> Self {
        let engine = &scan.engine;
        let row = |watched: Watched<'_>| {
            let invariant = &engine.settings().invariants[watched.invariant];
            let state = Standing::of(&watched);
            Row {
                key: watched.key.to_string(),
                path: watched.key.sysctl().map(SysctlKey::shown_path),
                state,
                value: watched.seen.map(ToString::to_string),
                required: invariant.desired.to_string(),
                mode: scan.mode(&watched).as_str(),
                error: why_unreadable(&watched),
                pending: because(&watched),
                module: invariant.module.clone(),
                reason: invariant.reason.clone(),
                file: invariant.origin.file.display().to_string(),
                line: invariant.origin.line,
            }
        };
        Report {
            ok: code == exit::OK,
            degraded: None,
            files_error: None,
            notes: Vec::new(),
            values: engine.watched().map(row).collect(),
            conntrack_nearly_full: scan.conntrack_nearly_full().map(ConntrackState::from),
            persistent: found.map(conflicts::Report::of),
        }
    }
}
