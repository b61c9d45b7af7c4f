//! `netguard diagnose`: why packets of a pod do not arrive.

mod history;
mod trace;

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::{args, exit, print};
use crate::config::{self, Loaded, Request, duration};
use crate::diagnose::{Error, Observed, Question, observe, pcap::Capture, shown_link};
use crate::diagnosis::observed::{Link, Network, Observations, Pod, Protocol};
use crate::diagnosis::verdict::{Cause, Level, PROBE, REPLY, Reason, Row};
use crate::diagnosis::{
    Summary, ended_in, enter, is_rejected, judge, left_through, needs_trace, own_link,
    would_translate,
};
use crate::journal::moment::Zone;
use crate::model::{Family, Governing, Invariant, Mode, Selector, Value};
use crate::resource::{Attribute, Desired, Resource, State};
use crate::service::state;
use history::History;

/// Between two readings with `--watch`.
const PAUSE: Duration = Duration::from_secs(1);
/// What to do where a pod is gone that was named by a process.
const RUN_AGAIN: &str = "run it again with the address, interface or process of the new pod";
/// The width of the column with the level.
const LEVEL: usize = 6;
/// What to do next where packets are lost on the node.
const TRACE_IT: &str = "Packets are lost on this node: --trace shows which rules they met last.";
/// The least width of that with the place.
const PLACE: usize = 11;

/// Reads, judges and prints.
///
/// # Errors
/// The exit code, where there is nothing to judge.
pub fn run(request: &Request, options: &args::Diagnose) -> Result<u8, u8> {
    if request.root != Request::default().root {
        print::note("netguard: diagnose reads the running system; it takes no --root\n");
        return Err(exit::USAGE);
    }
    let (protocol, port) = options
        .port
        .map_or((Protocol::Icmp, None), |it| (it.0, Some(it.1)));
    let question = Question {
        pod: options.pod.clone(),
        dest: options.dest.clone(),
        protocol,
        port,
        is_reverse: options.reverse,
        is_probed: !options.no_probe,
        is_traced: options.trace,
        is_captured: options.pcap.is_some(),
        stop: Arc::default(),
    };
    let signal = Arc::new(AtomicUsize::new(0));
    if options.trace {
        // What was added must be removed first.
        for number in [SIGHUP, SIGINT, SIGTERM] {
            let _ = flag::register(number, Arc::clone(&question.stop));
            let to = Arc::clone(&signal);
            let _ = flag::register_usize(number, to, usize::try_from(number).unwrap_or(0));
        }
    }
    let capture = options.pcap.clone().map(Capture::new).transpose();
    let mut capture = capture.map_err(|error| report_error(&Error::Usage(error.to_string())))?;
    // Without a valid configuration nothing is guarded.
    let loaded = config::load(request).ok();
    let mut shown: Option<Vec<Row>> = None;
    // Why nothing could be read since that was shown.
    let mut absent: Option<String> = None;
    if options.watch && stderr().is_terminal() {
        print::note("repeating until it works; press Ctrl-C to stop\n");
    }
    loop {
        let observed = observe(&question);
        if question.stop.load(Ordering::Relaxed) {
            if let Err(error @ Error::Failed(_)) = &observed {
                report_error(error);
            }
            let number = signal.load(Ordering::Relaxed).try_into().unwrap_or(SIGINT);
            let _ = low_level::emulate_default_handler(number);
        }
        let Observed { seen, log } = match observed {
            Ok(observed) => observed,
            // What was asked about was there before.
            Err(error) if shown.is_some() => {
                let error = error.to_string();
                let why = fact(&error);
                if has_ended(&question.pod) || has_ended(&question.dest) {
                    print::note(&format!("netguard: {why}; {RUN_AGAIN}\n"));
                    return Err(exit::TROUBLE);
                }
                let mut page = format!("\n{}\n", now());
                let width = Some(print::width().unwrap_or(print::USUAL_WIDTH));
                let words = format!("{why}; waiting until it is back");
                print::paragraph(&mut page, "", &words, width);
                if absent.as_deref() != Some(why)
                    && let Some(code) = print::page(&page)
                {
                    return Err(code);
                }
                absent = Some(why.to_owned());
                thread::sleep(PAUSE);
                continue;
            }
            Err(error) => return Err(report_error(&error)),
        };
        if let Some(capture) = &mut capture {
            let written = capture.write(&seen, &log);
            written.map_err(|error| report_error(&Error::Failed(error.to_string())))?;
        }
        let rows = judge(&seen);
        let found: Vec<Shown> = rows
            .iter()
            .map(|row| Shown::of(row, &seen, loaded.as_ref()))
            .collect();
        let summary = Summary::of(&rows);
        let code = match summary {
            Summary::Works | Summary::Clear => exit::OK,
            Summary::Cause => exit::DRIFT,
            Summary::Unknown => exit::TROUBLE,
            Summary::Loses | Summary::Unexplained => exit::UNEXPLAINED,
        };
        let notes = notes(&question, &seen);
        // Another user may not see it.
        let is_guarded = !matches!(state::running(Path::new("/")), Ok(None));
        if options.json.json {
            let report = Report::of(&seen, summary, &found, &notes, is_guarded);
            return Ok(print::json(&report, code));
        }
        let mut page = page(&seen, summary, &found, &notes, is_guarded, options.watch);
        if options.watch {
            let again = if shown.is_some() { "\n" } else { "" };
            page = format!("{again}{}\n{page}", now());
        }
        if !options.watch || code == exit::OK {
            return Ok(print::result(&page, code));
        }
        // Counters of a trace grow with each reading.
        let is_back = absent.take().is_some();
        if (is_back || shown.as_ref() != Some(&rows))
            && let Some(code) = print::page(&page)
        {
            return Err(code);
        }
        shown = Some(rows);
        // A signal is noticed with the next reading.
        thread::sleep(PAUSE);
    }
}

const UNGUARDED: &str = "netguard is not running on this node: drift is not restored.";

/// What an error reports, without what to do in the first place.
fn fact(error: &str) -> &str {
    error.split(';').next().unwrap_or(error)
}

/// Whether a pod is named by a process that has ended: it does not come back.
fn has_ended(pod: &str) -> bool {
    let path = match pod.parse::<u32>() {
        Ok(pid) => format!("/proc/{pid}/ns/net"),
        Err(_) => pod.to_owned(),
    };
    path.starts_with("/proc/") && !Path::new(&path).exists()
}

/// What must be known of how this was found out.
fn notes(question: &Question, seen: &Observations) -> Vec<String> {
    let is_unsent = question.is_probed && seen.pods[0].is_none();
    let note = || {
        let from = seen.packet.from;
        format!(
            "no probe can be sent from {from}, which is not on this node; only what was read counts"
        )
    };
    is_unsent.then(note).into_iter().collect()
}

/// Date and time of day.
fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let usec = now.map_or(0, |it| it.as_micros());
    Zone::local().show(u64::try_from(usec).unwrap_or(0), false)
}

fn report_error(error: &Error) -> u8 {
    print::note(&format!("netguard: {error}\n"));
    match error {
        Error::Usage(_) => exit::USAGE,
        Error::Failed(_) | Error::Interrupted => exit::TROUBLE,
    }
}

/// A row with what the configuration and the journal have about its cause.
struct Shown<'a> {
    row: &'a Row,
    /// The entry with which it goes away where that is restored.
    guarded: Option<String>,
    /// How long the daemon leaves that to the owner.
    grace: Option<Duration>,
    /// The entry that would, if it were restored.
    observed: Option<String>,
    /// The line that has it observed, where that is another.
    mode: Option<String>,
    /// The entry that would keep it so; nothing where there is one already.
    keep: &'a [String],
    /// What the daemon's records say of it.
    history: Option<History>,
}

impl<'a> Shown<'a> {
    fn of(row: &'a Row, seen: &Observations, loaded: Option<&Loaded>) -> Shown<'a> {
        let about = row.cause.as_ref().and_then(|it| it.about.as_ref());
        let governing = row.cause.as_ref().zip(loaded).and_then(|(cause, loaded)| {
            let governing = governing(cause, seen, loaded)?;
            let resolves = resolves(governing, cause, seen);
            let is_preserved = governing.desired == Desired::Preserve;
            (resolves || is_preserved).then_some((governing, resolves))
        });
        let origin = |mode| {
            let own = governing
                .filter(|(it, resolves)| it.mode == mode && (*resolves || mode == Mode::Observe));
            own.map(|(it, _)| it.origin.to_string())
        };
        let keep = row.cause.as_ref().filter(|_| governing.is_none());
        let mode = governing.zip(loaded).and_then(|((own, _), loaded)| {
            let mut all = loaded.settings.invariants.iter();
            let index = all.position(|it| it == own)?;
            Some(loaded.modes.get(index)?.as_ref()?.origin().to_string())
        });
        Shown {
            row,
            guarded: origin(Mode::Restore),
            grace: governing.and_then(|(it, _)| it.grace),
            observed: origin(Mode::Observe),
            mode,
            keep: keep.map_or(&[], |it| &it.keep),
            history: about.and_then(|about| History::of(about, &seen.node)),
        }
    }
}

/// The invariant about what is to blame.
fn governing<'a>(cause: &Cause, seen: &Observations, loaded: &'a Loaded) -> Option<&'a Invariant> {
    let invariants = &loaded.settings.invariants;
    let about = cause.about.as_ref()?;
    let found = match about {
        // Another rule may do.
        _ if cause.reason == Reason::Masquerade => {
            let translates = |it: &&Invariant| match it.selector.resource() {
                Some(Resource::Iptables(rule)) => !it.is_off() && would_translate(seen, rule),
                _ => false,
            };
            invariants.iter().find(translates)
        }
        Resource::Sysctl(key) => Governing::new(invariants).of(key).map(|it| &invariants[it]),
        about => {
            let selector = Selector::Resource(about.clone());
            let exact = invariants.iter().find(|it| it.selector == selector);
            exact.or_else(|| {
                // Of what is missing it is known where it should be.
                let ends = seen.pods.iter().flatten();
                let ends = ends.filter_map(|pod| shown_link(seen, pod));
                let on = |dev: String| State::with(vec![(Attribute::Dev, Value::new(&dev))]);
                let states: Vec<State> = ends.map(on).collect();
                let mut groups = invariants.iter().rev();
                groups.find(|it| {
                    let group = it.selector.group();
                    !it.is_off() && group.is_some_and(|it| it.is_about(about, &states))
                })
            })
        }
    };
    found.filter(|it| !it.is_off())
}

/// Whether a cause is gone where an invariant about it is restored: one may require just
/// what was found.
fn resolves(invariant: &Invariant, cause: &Cause, seen: &Observations) -> bool {
    let (node, absent) = (&seen.node, State::Absent);
    match (cause.reason, &cause.about) {
        _ if invariant.desired == Desired::Preserve => false,
        (Reason::Rule, _) => invariant.matches(&absent),
        (Reason::Policy, _) => {
            let accepts = (Attribute::Policy, Value::new("ACCEPT"));
            invariant.matches(&State::with(vec![accepts]))
        }
        (_, Some(Resource::Sysctl(key))) => {
            let value = node.sysctls.get(key);
            value.is_some_and(|it| !invariant.holds(it))
        }
        (reason, Some(Resource::Link(name))) => {
            let link = node.link(name.as_str());
            link.is_some_and(|link| is_required(invariant, reason, node, link))
        }
        (_, about) => {
            let mut entries = node.entries.iter();
            let found = entries.find(|(it, _)| Some(it) == about.as_ref());
            let state = found.and_then(|(_, state)| state.as_ref());
            !invariant.matches(state.unwrap_or(&absent))
        }
    }
}

/// Whether an invariant requires of an interface what it lacks.
fn is_required(invariant: &Invariant, reason: Reason, node: &Network, link: &Link) -> bool {
    let master = link.master.and_then(|it| node.link_at(it));
    let (attribute, value) = match reason {
        Reason::LinkDown => (Attribute::Up, link.is_up.to_string()),
        Reason::Mtu => (Attribute::Mtu, link.mtu.to_string()),
        Reason::BridgePort => {
            let name = master.map_or_else(String::new, |it| it.name.to_string());
            (Attribute::Master, name)
        }
        _ => return false,
    };
    let Desired::Attributes(attributes) = &invariant.desired else {
        return false;
    };
    let mut own = attributes.iter().filter(|(name, _)| *name == attribute);
    own.any(|(_, it)| !it.holds(&Value::new(&value)))
}

fn named(seen: &Observations, pod: Option<&Pod>, address: impl std::fmt::Display) -> String {
    let Some(pod) = pod else {
        return address.to_string();
    };
    let link = shown_link(seen, pod)
        .map(|it| format!("{it}, "))
        .unwrap_or_default();
    let pid = pod.pid.map(|it| format!(", pid {it}")).unwrap_or_default();
    format!("{address} ({link}netns {}{pid})", pod.inode)
}

fn page(
    seen: &Observations,
    summary: Summary,
    found: &[Shown<'_>],
    notes: &[String],
    is_guarded: bool,
    is_watched: bool,
) -> String {
    let [from, to] = seen.pods.each_ref().map(Option::as_ref);
    let packet = &seen.packet;
    let mut text = String::new();
    let [from, to] = [(from, packet.from), (to, packet.to)].map(|(pod, ip)| named(seen, pod, ip));
    let width = print::width().unwrap_or(print::USUAL_WIDTH);
    let one_line = format!("{from} -> {to}");
    match print::columns(&one_line) <= width {
        true => text.push_str(&format!("{one_line}\n")),
        false => text.push_str(&format!("{from}\n  -> {to}\n")),
    }
    let width = Some(width);
    text.push('\n');
    let places = found.iter().map(|it| print::columns(&it.row.place));
    let place = places.max().unwrap_or(0).max(PLACE) + 2;
    let item = |text: &mut String, level: &str, label: &str, words: &str| {
        let mut first = String::from("  ");
        print::cell(&mut first, level, LEVEL);
        print::cell(&mut first, label, place);
        print::paragraph(text, &first, words, width);
    };
    for note in notes {
        item(&mut text, "note", PROBE, note);
    }
    for Shown {
        row,
        guarded,
        grace,
        observed,
        mode,
        keep,
        history,
    } in found
    {
        let level = match row.level {
            Level::Ok => "ok",
            Level::Loss => "LOSS",
            Level::Failed => "FAIL",
            Level::Unknown => "?",
            Level::Note => "note",
        };
        // The same place may be passed on both ways.
        let is_named = row.level == Level::Ok || row.place == REPLY;
        let direction = match row.is_reply && !is_named {
            true => "reply: ",
            false => "",
        };
        item(
            &mut text,
            level,
            &row.place,
            &format!("{direction}{}", row.words),
        );
        let Some(cause) = &row.cause else {
            continue;
        };
        let what = match cause.what == row.words {
            true => cause.why.clone(),
            false => format!("{}; {}", cause.what, cause.why),
        };
        item(&mut text, "", "cause", &what);
        match history {
            Some(History {
                since: Some(since), ..
            }) => item(&mut text, "", "since", &since.to_string()),
            Some(history) => item(&mut text, "", "history", &history.line),
            None => {}
        }
        if let Some(owner) = &cause.owner {
            item(&mut text, "", "owner", owner);
        }
        match guarded {
            Some(origin) => {
                let grace = grace.map_or_else(String::new, |it| {
                    let grace = duration::show(it);
                    format!("; the daemon leaves it to its owner for {grace}")
                });
                let words = format!("netguard apply ({origin} requires it{grace})");
                item(&mut text, "", "fix", &words);
            }
            None => {
                item(&mut text, "", "fix", &cause.fix);
                if let Some(origin) = observed {
                    let mode = mode
                        .as_ref()
                        .map_or_else(String::new, |it| format!(": {it}"));
                    let words = format!("{origin} is in observe mode{mode}");
                    item(&mut text, "", "keep", &words);
                }
                for (index, line) in keep.iter().enumerate() {
                    // It is copied as it is.
                    let mut first = String::from("  ");
                    print::cell(&mut first, "", LEVEL);
                    print::cell(&mut first, if index == 0 { "keep" } else { "" }, place);
                    text.push_str(&format!("{first}{line}\n"));
                }
            }
        }
    }
    if let Some(trace) = &seen.trace {
        trace::page(&mut text, trace, width);
    }
    text.push('\n');
    if !is_guarded {
        print::paragraph(&mut text, "", UNGUARDED, width);
    }
    let end = match summary {
        Summary::Works if is_rejected(seen) => "The path works, but the destination refuses it.",
        // Probes open connections, and send no data.
        Summary::Works
            if seen.packet.protocol == Protocol::Tcp
                && found.iter().any(|it| {
                    let is_open = [Level::Unknown, Level::Note].contains(&it.row.level);
                    is_open && it.row.place == "firewall"
                }) =>
        {
            "A connection was opened; whether data passes is not known."
        }
        // Those are of programs of root.
        Summary::Works
            if found
                .iter()
                .any(|it| it.row.level == Level::Note && it.row.place == "firewall") =>
        {
            "The probes were answered; whether packets of all programs are is not known."
        }
        Summary::Works => "It works.",
        Summary::Loses => "It works, but loses packets, and the cause was not found.",
        Summary::Clear => "No cause found: nothing that was read blocks the packet.",
        Summary::Cause if is_watched => "Fix the first cause.",
        Summary::Cause => "Fix the first cause, then run this again.",
        Summary::Unknown => "No cause found, but not everything is known (?).",
        Summary::Unexplained => "It does not work, and the cause was not found.",
    };
    print::paragraph(&mut text, "", end, width);
    if let Some(next) = next(seen, summary) {
        print::paragraph(&mut text, "", &next, width);
    }
    text
}

/// What to do next where no cause was found.
fn next(seen: &Observations, summary: Summary) -> Option<String> {
    if needs_trace(seen, summary) {
        return Some(TRACE_IT.to_owned());
    }
    if let Some((pod, is_reply)) = ended_in(seen, summary) {
        let list = match seen.packet.family() {
            Family::Ipv4 => "iptables-save",
            Family::Ipv6 => "ip6tables-save",
        };
        let list = format!("{} {list}", enter(pod));
        let (address, protocol) = (pod.address, seen.packet.protocol);
        return Some(match (is_reply, protocol) {
            (true, _) => {
                let link = own_link(pod).map_or("its interface", |it| it.name.as_str());
                format!(
                    "The reply reached {link} of the pod {address}, and the pod dropped it: check \
                     its firewall ({list})."
                )
            }
            (false, Protocol::Udp) => format!(
                "The request reached the destination pod {address}, which did not reply: check its \
                 program and its firewall ({list})."
            ),
            (false, Protocol::Icmp | Protocol::Tcp) => format!(
                "The request reached the destination pod {address}, which did not reply: check its \
                 firewall ({list})."
            ),
        });
    }
    let dev = left_through(seen, summary)?;
    Some(format!(
        "The request left the node through {dev} and no reply came back: check the destination, \
         its firewall and its route back."
    ))
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    from: String,
    to: String,
    protocol: Protocol,
    port: Option<u16>,
    verdict: &'static str,
    rows: Vec<JsonRow<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Whether the daemon runs.
    daemon_running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<trace::Report<'a>>,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    place: &'a str,
    reply: bool,
    level: Level,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<JsonCause<'a>>,
}

#[derive(Serialize)]
struct JsonCause<'a> {
    reason: &'static str,
    text: &'a str,
    effect: &'a str,
    resource: Option<&'a Resource>,
    owner: Option<&'a str>,
    fix: &'a str,
    keep: String,
    guarded_by: Option<&'a str>,
    /// The entry that would restore it, if it did not only observe it.
    observed_by: Option<&'a str>,
    /// The line of `[guard]` by which it does, if it has no mode of its own.
    observed_mode: Option<&'a str>,
    /// The newest record of it.
    history: Option<&'a str>,
    /// When what was found was detected, in microseconds since 1970, and who it was.
    since_usec: Option<u64>,
    by: Option<&'a str>,
}

impl<'a> Report<'a> {
    fn of(
        seen: &'a Observations,
        summary: Summary,
        found: &'a [Shown<'a>],
        notes: &'a [String],
        daemon_running: bool,
    ) -> Report<'a> {
        let packet = &seen.packet;
        let verdict = match summary {
            Summary::Works => "works",
            Summary::Loses => "loses",
            Summary::Clear => "ok",
            Summary::Cause => "cause",
            Summary::Unknown => "unknown",
            Summary::Unexplained => "unexplained",
        };
        let since = |shown: &'a Shown<'a>| shown.history.as_ref()?.since.as_ref();
        let row = |shown: &'a Shown<'a>| JsonRow {
            place: &shown.row.place,
            reply: shown.row.is_reply,
            level: shown.row.level,
            text: &shown.row.words,
            cause: shown.row.cause.as_ref().map(|cause: &Cause| JsonCause {
                reason: cause.reason.as_str(),
                text: &cause.what,
                effect: &cause.why,
                resource: cause.about.as_ref(),
                owner: cause.owner.as_deref(),
                fix: &cause.fix,
                keep: shown.keep.join("\n"),
                guarded_by: shown.guarded.as_deref(),
                observed_by: shown.observed.as_deref(),
                observed_mode: shown.observed.as_ref().and(shown.mode.as_deref()),
                history: shown.history.as_ref().map(|it| it.line.as_str()),
                since_usec: since(shown).map(|it| it.usec),
                by: since(shown)
                    .map(|it| it.by.as_str())
                    .filter(|it| !it.is_empty()),
            }),
        };
        Report {
            from: packet.from.to_string(),
            to: packet.to.to_string(),
            protocol: packet.protocol,
            port: packet.port,
            verdict,
            rows: found.iter().map(row).collect(),
            notes,
            next: next(seen, summary),
            daemon_running,
            trace: seen.trace.as_ref().map(trace::Report::of),
        }
    }
}
