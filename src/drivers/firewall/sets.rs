//! The driver of sets of ipset.
//!
//! What it is asked for in one turn of the loop is one request to the helper, waited for on
//! a thread.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use nix::libc;
use tokio::time::Instant;

use super::Verdict;
use super::link::Helper;
use super::protocol::{Call, Fault, SetAsk, SetChange, SetReply};
use super::worker::{Reports, Worker, report};
use crate::clock;
use crate::drivers::Driver;
use crate::drivers::watched::Watched;
use crate::engine::{Event, ValueId};
use crate::kinds::is_remade;
use crate::model::{Monotonic, Selector, Settings, Source, Value, Writer};
use crate::resource::{Attribute, Group, Resource, ResourceKind, SetName, SetType, State};
use crate::waiting::until;

/// The most members of a set that are compared.
const MOST: usize = 65_536;

/// After a reading because a program has ended, none follows for so long; nor for as many
/// times as long as that took.
const INTERVAL: Duration = Duration::from_millis(100);
const SHARE: u32 = 10;

/// The sets of ipset.
#[derive(Debug, Default)]
pub struct Sets {
    /// The thread, once there is something for it.
    worker: Option<Worker<Job, Done>>,
    watched: Watched<SetName>,
    /// The names of sets that are preserved.
    groups: Vec<Arc<Group>>,
    /// The sets that may be made another type, and what each must be.
    named: HashMap<SetName, Arc<State>>,
    /// Whether the names of all sets are being read.
    listing: bool,
    /// The program that has ended since all were read because of one: when that was
    /// detected, and who is suspected.
    ended: Option<(Monotonic, Option<Writer>)>,
    /// When the last such reading began, and when the next may.
    refreshed_at: Option<Instant>,
    refresh_at: Option<Instant>,
}

/// What is to be done.
#[derive(Debug)]
enum Job {
    /// Each with what it must be, where it is named.
    Read(Vec<(ValueId, SetName, Option<Arc<State>>)>),
    /// Find those of these groups, except these.
    Find(Vec<Arc<Group>>, HashSet<SetName>),
    /// With whether it may be made another type.
    Write(ValueId, SetName, State, bool),
}

/// What was done, and whether it was to find sets.
type Done = (Vec<Event>, bool);

impl Sets {
    /// Whether [`events`](Self::events) may have any.
    pub fn is_used(&self) -> bool {
        self.worker.is_some() || !self.groups.is_empty() || !self.watched.is_empty()
    }

    /// A program that changes sets has ended, and is suspected if it was alone.
    pub fn ended(&mut self, writer: Option<Writer>, at: Monotonic) {
        if !self.is_used() {
            return;
        }
        self.ended = Some(match self.ended.take() {
            Some((at, _)) => (at, None),
            None => (at, writer),
        });
    }

    /// Has done what was asked for, and waits for the next reports, each with when it was
    /// detected. Nothing is lost where this is cancelled.
    pub async fn events(&mut self) -> Vec<(Event, Monotonic)> {
        self.begin();
        let ready = self.ended.is_some() && !self.watched.is_reading();
        let due = ready.then(|| self.refresh_at.unwrap_or_else(Instant::now));
        tokio::select! {
            report = report(&mut self.worker) => {
                let now = clock::now();
                let (mut events, is_list) = match report.done(&mut self.watched) {
                    Ok(done) => done,
                    Err(events) => return events.into_iter().map(|it| (it, now)).collect(),
                };
                self.listing &= !is_list;
                events.retain(|it| self.is_awaited(it));
                if let Some(began) = self.refreshed_at.take_if(|_| !self.watched.is_reading()) {
                    let pause = (began.elapsed() * SHARE).max(INTERVAL);
                    self.refresh_at = Some(began + pause);
                }
                events.into_iter().map(|it| (it, now)).collect()
            }
            () = until(due) => self.refresh(),
        }
    }

    /// Hints of all: a program that has ended may have changed any.
    fn refresh(&mut self) -> Vec<(Event, Monotonic)> {
        let Some((at, writer)) = self.ended.take() else {
            return Vec::new();
        };
        let now = Instant::now();
        self.refreshed_at = Some(now);
        self.refresh_at = Some(now + INTERVAL);
        self.examine();
        let hint = |name: &SetName| Event::Hint {
            key: Resource::Set(name.clone()),
            source: Source::Connector,
            writer: writer.clone(),
        };
        self.watched.iter().map(|(_, it)| (hint(it), at)).collect()
    }

    /// Whether this is the answer to something.
    fn is_awaited(&mut self, event: &Event) -> bool {
        match event {
            Event::Read { id, .. } => self.watched.was_read(*id),
            Event::Written { id, .. } => self.watched.was_written(*id),
            _ => true,
        }
    }

    fn begin(&mut self) {
        let sets = self.watched.begin(|_| false).into_iter();
        let sets: Vec<_> = sets
            .map(|(id, name)| {
                let target = self.named.get(&name).cloned();
                (id, name, target)
            })
            .collect();
        if !sets.is_empty() {
            self.ask(Job::Read(sets));
        }
    }

    fn ask(&mut self, job: Job) {
        self.worker.get_or_insert_with(start).ask(job);
    }
}

impl Driver for Sets {
    fn watch(&mut self, id: ValueId, resource: &Resource, _exact: bool, _news: &mut Vec<Event>) {
        if let Resource::Set(name) = resource {
            self.watched.insert(id, name.clone());
        }
    }

    fn unwatch(&mut self, id: ValueId, _news: &mut Vec<Event>) {
        self.watched.remove(id);
    }

    fn read(&mut self, id: ValueId, news: &mut Vec<Event>) {
        self.watched.ask(id, news);
    }

    fn write(&mut self, id: ValueId, state: &State, _news: &mut Vec<Event>) {
        if let Some(name) = self.watched.write(id) {
            let is_named = self.named.contains_key(&name);
            self.ask(Job::Write(id, name, state.clone(), is_named));
        }
    }

    fn answered(&mut self, id: ValueId) {
        self.watched.was_written(id);
    }

    fn watches(&self, id: ValueId) -> bool {
        self.watched.contains(id)
    }

    fn is_busy(&self) -> bool {
        self.listing || self.watched.is_busy()
    }

    /// Which sets are preserved, and which are named.
    fn learn(&mut self, settings: &Settings) {
        self.groups = settings.groups(ResourceKind::Set);
        let guarded = settings.invariants.iter().filter(|it| !it.is_off());
        let named = guarded.filter_map(|it| match &it.selector {
            Selector::Resource(Resource::Set(name)) => {
                let target = it.target(&State::Absent).unwrap_or(State::Absent);
                Some((name.clone(), Arc::new(target)))
            }
            _ => None,
        });
        self.named = named.collect();
    }

    /// Finds sets that are preserved.
    fn examine(&mut self) {
        if !self.groups.is_empty() && !self.listing {
            self.listing = true;
            let known = self.watched.iter().map(|(_, it)| it.clone()).collect();
            self.ask(Job::Find(self.groups.clone(), known));
        }
    }

    fn tidy(&mut self) {
        self.watched.tidy();
    }
}

/// How ipset lists each member that it lists in another way than it is written.
type Forms = HashMap<String, String>;

/// Has ipset try a set out. No module is loaded for that.
pub fn try_out(set: &SetName, target: &State) -> Verdict {
    let mut helper = Helper::new("ipset", Box::new(|_| ()), Box::new(|_| ()));
    match tried(&mut helper, set, changes(&State::Absent, target)) {
        Ok(_) => Verdict::Valid,
        Err(fault) if fault.errno == libc::EINVAL => Verdict::Invalid(fault.text),
        Err(fault) => Verdict::Unknown(fault.text),
    }
}

/// What `ipset save` prints of a set made like this, in an empty network namespace.
fn tried(helper: &mut Helper, set: &SetName, changes: Vec<SetChange>) -> Result<String, Fault> {
    let ask = SetAsk::TryOut(set.to_string(), changes);
    match helper.ask(&Call::Sets(ask))? {
        SetReply::Saved(mut saved) => match saved.pop() {
            Some(Ok(Some(text))) => Ok(text),
            Some(Err(fault)) => Err(fault),
            _ => Err(Fault::unexpected()),
        },
        _ => Err(Fault::unexpected()),
    }
}

/// Has ipset list each member, which its comment shows.
fn forms(helper: &mut Helper, set: &SetName, target: &State) -> Result<Forms, Fault> {
    let kind = SetType::parse(target.attribute(Attribute::Type).as_str());
    let kind = kind.ok_or_else(Fault::unexpected)?;
    let members = target.attribute(Attribute::Members);
    let mut left: Vec<&str> = members.fields().collect();
    let mut forms = Forms::new();
    // Of several spellings of one member the last one's comment is listed.
    while !left.is_empty() {
        let rest = with_members(target, &left);
        let text = tried(helper, set, commented(changes(&State::Absent, &rest)))?;
        let lines = text.lines().filter_map(|it| it.strip_prefix("add "));
        let listed = lines.filter_map(|it| Member::of(&kind, it.split(' ').skip(1)));
        let listed =
            listed.filter_map(|it| Some((it.comment?.trim_matches('"').parse().ok()?, it.text)));
        let listed: HashMap<usize, String> = listed.collect();
        let before = left.len();
        let mut number = 0..;
        left.retain(|written| {
            let form = number.next().and_then(|it| listed.get(&it));
            if let Some(form) = form.filter(|it| it != written) {
                forms.insert((*written).to_owned(), form.clone());
            }
            form.is_none()
        });
        if left.len() == before {
            return Err(Fault::unexpected());
        }
    }
    Ok(forms)
}

/// These changes, with the number of each member as its comment.
fn commented(mut changes: Vec<SetChange>) -> Vec<SetChange> {
    let mut number = 0..;
    for change in &mut changes {
        match change {
            SetChange::Destroy => {}
            SetChange::Create(_, options) if options.iter().any(|it| it == COMMENT) => {}
            SetChange::Create(_, options) => options.push(COMMENT.to_owned()),
            SetChange::Add(_, options) => {
                let number = number.next().unwrap_or(0);
                options.extend([COMMENT.to_owned(), number.to_string()]);
            }
        }
    }
    changes
}

/// A set as it was listed, with its members as they are written in `target`.
fn as_written(found: State, target: &State, forms: &Forms) -> State {
    let (listed, written) = (
        found.attribute(Attribute::Members),
        target.attribute(Attribute::Members),
    );
    let written: HashSet<&str> = written.fields().collect();
    let mut members: BTreeSet<&str> = listed.fields().collect();
    let there: Vec<_> = forms
        .iter()
        .filter(|(_, form)| members.contains(&form[..]))
        .collect();
    for (written_as, form) in &there {
        members.insert(written_as);
        if !written.contains(&form[..]) {
            members.remove(&form[..]);
        }
    }
    let members: Vec<&str> = members.into_iter().collect();
    with_members(&found, &members)
}

fn with_members(set: &State, members: &[&str]) -> State {
    let kept = |name: Attribute| Some((name, set.get(name)?.clone()));
    let kept = [Attribute::Type, Attribute::Family, Attribute::Options].map(kept);
    let members = (Attribute::Members, Value::new(&members.join(" ")));
    State::with(kept.into_iter().flatten().chain([members]).collect())
}

fn start() -> Worker<Job, Done> {
    Worker::start("ipset", ResourceKind::Set, |jobs, reports, helper| {
        let mut work = Work {
            reports,
            helper,
            forms: HashMap::new(),
        };
        work.run(jobs);
    })
}

struct Work {
    reports: Reports<Done>,
    helper: Helper,
    /// How the members of named sets are listed, and what these must be.
    forms: HashMap<SetName, (Arc<State>, Forms)>,
}

impl Work {
    fn run(&mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let is_list = matches!(job, Job::Find(..));
            let events = match job {
                Job::Read(sets) => {
                    let names: Vec<_> = sets.iter().map(|(_, name, _)| name.clone()).collect();
                    let read = self.read(&names).into_iter().zip(sets);
                    let event = |(read, (id, name, target)): (Result<State, Fault>, _)| {
                        let read = read.map(|it| self.as_written(&name, target, it));
                        let outcome = self.helper.outcome(read);
                        Event::Read { id, outcome }
                    };
                    read.map(event).collect()
                }
                Job::Find(groups, known) => self.find(&groups, &known).unwrap_or_else(|fault| {
                    self.helper.log(&fault);
                    Vec::new()
                }),
                Job::Write(id, set, state, is_named) => {
                    let written = self.write(&set, &state, is_named);
                    let result = written.map_err(|fault| self.helper.log(&fault));
                    vec![Event::Written { id, result }]
                }
            };
            self.reports.send((events, is_list));
        }
    }

    fn ask(&mut self, ask: SetAsk) -> Result<SetReply, Fault> {
        self.helper.ask(&Call::Sets(ask))
    }

    fn read(&mut self, sets: &[SetName]) -> Vec<Result<State, Fault>> {
        read(sets, false, |ask| self.ask(ask))
    }

    /// A set that was read, with its members as they are written.
    fn as_written(&mut self, set: &SetName, target: Option<Arc<State>>, found: State) -> State {
        let Some(target) = target.filter(|_| found.exists()) else {
            return found;
        };
        let (listed, written) = (
            found.attribute(Attribute::Members),
            target.attribute(Attribute::Members),
        );
        let listed: HashSet<&str> = listed.fields().collect();
        if written.fields().all(|it| listed.contains(it)) {
            return found;
        }
        let known = self.forms.get(set).filter(|it| it.0 == target);
        if known.is_none() {
            match forms(&mut self.helper, set, &target) {
                Ok(forms) => drop(self.forms.insert(set.clone(), (target.clone(), forms))),
                Err(fault) => drop(self.helper.log(&fault)),
            }
        }
        match self.forms.get(set).filter(|it| it.0 == target) {
            Some((_, forms)) => as_written(found, &target, forms),
            None => found,
        }
    }

    /// The sets of these groups that are not known.
    fn find(
        &mut self,
        groups: &[Arc<Group>],
        known: &HashSet<SetName>,
    ) -> Result<Vec<Event>, Fault> {
        let SetReply::Names(names) = self.ask(SetAsk::List)? else {
            return Err(Fault::unexpected());
        };
        let is_meant = |name: &SetName| {
            let set = Resource::Set(name.clone());
            groups.iter().any(|it| it.may_match(&set)) && !known.contains(name)
        };
        let names = names.iter().filter_map(|it| SetName::parse(it));
        let names: Vec<SetName> = names.filter(is_meant).collect();
        let mut found = Vec::new();
        for (name, read) in names.iter().zip(self.read(&names)) {
            let state = read.unwrap_or_else(|fault| {
                self.helper.log(&fault);
                // One that cannot be preserved must show, too.
                State::with(Vec::new())
            });
            let key = Resource::Set(name.clone());
            found.extend(state.exists().then_some(Event::Appeared { key, state }));
        }
        Ok(found)
    }

    /// All of it in one commit, by what there is now.
    fn write(&mut self, set: &SetName, target: &State, is_named: bool) -> Result<(), Fault> {
        let mut found = self.read(std::slice::from_ref(set));
        let found = found.pop().unwrap_or_else(|| Err(Fault::unexpected()))?;
        let changes = changes(&found, target);
        if changes.contains(&SetChange::Destroy) && !is_named {
            let text = format!("there is another set with the name {set}");
            return Err(Fault::new(libc::ENOTUNIQ, text));
        }
        if changes.is_empty() {
            return Ok(());
        }
        match self.ask(SetAsk::Commit(set.to_string(), changes))? {
            SetReply::Done => Ok(()),
            _ => Err(Fault::unexpected()),
        }
    }
}

/// What an option of a set may be changed in without making it another.
const INTERNAL: [&str; 3] = ["hashsize", "bucketsize", "initval"];

/// The option of a set whose members have comments, and of these.
const COMMENT: &str = "comment";

/// The option of a member that makes it an exception.
const NOMATCH: &str = "nomatch";

/// A member as `ipset save` printed it.
struct Member<'a> {
    text: String,
    expires: bool,
    /// The first word of its comment.
    comment: Option<&'a str>,
}

impl<'a> Member<'a> {
    /// The member in these words.
    fn of(kind: &SetType, mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let member = words.next().filter(|it| is_plain(it))?;
        let mut text = kind.member(member).unwrap_or_else(|| member.to_owned());
        let (mut expires, mut comment) = (false, None);
        while let Some(word) = words.next() {
            match word {
                NOMATCH => text = format!("{text},{NOMATCH}"),
                "timeout" => expires = words.next() != Some("0"),
                // It comes after these, and may have any words.
                COMMENT => {
                    comment = words.next();
                    break;
                }
                _ => {}
            }
        }
        Some(Member {
            text,
            expires,
            comment,
        })
    }
}

/// The states of sets; whether with members that expire.
pub fn read(
    names: &[SetName],
    with_expiring: bool,
    ask: impl FnOnce(SetAsk) -> Result<SetReply, Fault>,
) -> Vec<Result<State, Fault>> {
    let asked = names.iter().map(SetName::to_string).collect();
    let saved = match ask(SetAsk::Read(asked)) {
        Ok(SetReply::Saved(saved)) if saved.len() == names.len() => saved,
        Ok(_) => vec![Err(Fault::unexpected()); names.len()],
        Err(fault) => vec![Err(fault); names.len()],
    };
    let state = |(saved, name): (Result<Option<String>, Fault>, &SetName)| match saved? {
        Some(text) => listed(name, &text, with_expiring),
        None => Ok(State::Absent),
    };
    saved.into_iter().zip(names).map(state).collect()
}

/// A set as `ipset save` printed it, without counters; whether with members that expire.
///
/// # Errors
/// Where it has too many members, or is not understood.
pub fn listed(name: &SetName, text: &str, with_expiring: bool) -> Result<State, Fault> {
    let not_understood = || Fault::new(libc::EPROTO, "ipset printed something else");
    let mut lines = text.lines().map(|line| line.split(' '));
    let mut create = lines.next().ok_or_else(not_understood)?;
    if create.next() != Some("create") || create.next() != Some(name.as_str()) {
        return Err(not_understood());
    }
    let kind = create.next().and_then(SetType::parse);
    let kind = kind.ok_or_else(not_understood)?;
    let (mut family, mut options) = (None, Vec::new());
    while let Some(word) = create.next() {
        match word {
            "family" => family = create.next(),
            word if INTERNAL.contains(&word) => drop(create.next()),
            word => options.push(word),
        }
    }
    let mut members = BTreeSet::new();
    for mut line in lines {
        if line.next() != Some("add") || line.next() != Some(name.as_str()) {
            return Err(not_understood());
        }
        let member = Member::of(&kind, line).ok_or_else(not_understood)?;
        if with_expiring || !member.expires {
            members.insert(member.text);
        }
        if members.len() > MOST {
            let text = format!("the set {name} has more than {MOST} members");
            return Err(Fault::new(libc::EFBIG, text));
        }
    }
    let members: Vec<String> = members.into_iter().collect();
    let family = family.map(|it| (Attribute::Family, Value::new(it)));
    let mut attributes = vec![
        (Attribute::Type, Value::new(kind.as_str())),
        (Attribute::Options, Value::new(&options.join(" "))),
        (Attribute::Members, Value::new(&members.join(" "))),
    ];
    attributes.extend(family);
    Ok(State::with(attributes))
}

/// Whether a state keeps this as one word.
fn is_plain(member: &str) -> bool {
    !member.is_empty() && member.bytes().all(|it| it.is_ascii_graphic())
}

/// The changes that make a set what it must be: what is there beside that stays.
fn changes(found: &State, target: &State) -> Vec<SetChange> {
    let text = |state: &State, name| state.attribute(name).as_str().to_owned();
    if !target.exists() {
        return Vec::from_iter(found.exists().then_some(SetChange::Destroy));
    }
    let mut changes = Vec::new();
    let is_made = is_remade(found, target) || !found.exists();
    if is_made {
        changes.extend(found.exists().then_some(SetChange::Destroy));
        let family = target.get(Attribute::Family);
        let family = family.map(|it| format!("family {it}")).unwrap_or_default();
        let options = format!("{family} {}", text(target, Attribute::Options));
        let options = options.split_whitespace().map(str::to_owned).collect();
        changes.push(SetChange::Create(text(target, Attribute::Type), options));
    }
    let options = text(if is_made { target } else { found }, Attribute::Options);
    let expires = options.split(' ').any(|it| it == "timeout");
    let known = match is_made {
        true => Value::default(),
        false => found.attribute(Attribute::Members),
    };
    let known: HashSet<&str> = known.fields().collect();
    let members = target.attribute(Attribute::Members);
    for member in members.fields().filter(|it| !known.contains(it)) {
        let (member, nomatch) = match member.strip_suffix(",nomatch") {
            Some(member) => (member, Some(NOMATCH)),
            None => (member, None),
        };
        let never = ["timeout", "0"].into_iter().filter(|_| expires);
        let options = never.chain(nomatch).map(str::to_owned).collect();
        changes.push(SetChange::Add(member.to_owned(), options));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, i32> {
        let name = SetName::parse("a").expect("a name");
        let state = listed(&name, text, false).map_err(|fault| fault.errno)?;
        assert_eq!(
            State::parse(&state.to_string()).map(|it| it.to_string()),
            Some(state.to_string())
        );
        Ok(state.to_string())
    }

    #[test]
    fn a_set_is_read_without_what_changes_by_itself() {
        for (text, expected) in [
            (
                "create a hash:net family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x74b1a272\n\
                 add a 10.1.0.0/16\nadd a 10.0.0.0/8 nomatch\nadd a 1.2.3.4\n",
                "type hash:net family inet options maxelem 65536 members 1.2.3.4 10.0.0.0/8,nomatch 10.1.0.0/16",
            ),
            (
                "create a hash:ip,port family inet hashsize 1024 maxelem 65536 timeout 30 counters comment\n\
                 add a 1.2.3.4,tcp:80 timeout 29 packets 0 bytes 0 comment \"x nomatch\"\n\
                 add a 1.2.3.4,udp:53 timeout 0 packets 7 bytes 0 comment \"x timeout 7\"\n",
                "type hash:ip,port family inet options maxelem 65536 timeout 30 counters comment members 1.2.3.4,udp:53",
            ),
            (
                "create a list:set size 8\nadd a b\n",
                "type list:set options size 8 members b",
            ),
            ("create a list:set size 8\n", "type list:set options size 8"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected));
        }
        let text = [
            "",
            "create b list:set size 8\n",
            "create a b\n",
            "create a list:set\nadd b c\n",
        ];
        for text in text {
            assert_eq!(read(text), Err(libc::EPROTO), "{text}");
        }
        let mut many = "create a hash:net\n".to_owned();
        for i in 0..=MOST {
            many += &format!("add a 10.{}.{}.{}\n", i >> 16, i >> 8 & 255, i & 255);
        }
        assert_eq!(read(&many), Err(libc::EFBIG));
    }

    #[test]
    fn what_is_there_beside_stays() {
        let add = |member: &str, options: &[&str]| {
            let options = options.iter().map(|it| (*it).to_owned());
            SetChange::Add(member.to_owned(), options.collect())
        };
        let create = |kind: &str, options: &[&str]| {
            let options = options.iter().map(|it| (*it).to_owned());
            SetChange::Create(kind.to_owned(), options.collect())
        };
        for (found, target, expected) in [
            (
                "type hash:net family inet members 10.1.0.0/16",
                "type hash:net family inet members 10.0.0.0/8,nomatch 10.1.0.0/16",
                vec![add("10.0.0.0/8", &["nomatch"])],
            ),
            (
                "type hash:net family inet options timeout 30 members 10.1.0.0/16",
                "type hash:net members 10.2.0.0/16",
                vec![add("10.2.0.0/16", &["timeout", "0"])],
            ),
            (
                "absent",
                "type hash:net family inet members 10.2.0.0/16",
                vec![
                    create("hash:net", &["family", "inet"]),
                    add("10.2.0.0/16", &[]),
                ],
            ),
            (
                "type hash:ip,port family inet members 10.1.0.0,tcp:80",
                "type hash:net family inet members 10.1.0.0",
                vec![
                    SetChange::Destroy,
                    create("hash:net", &["family", "inet"]),
                    add("10.1.0.0", &[]),
                ],
            ),
            ("type hash:net", "absent", vec![SetChange::Destroy]),
            ("absent", "absent", vec![]),
        ] {
            let [found, target] = [found, target].map(|it| State::parse(it).expect(it));
            assert_eq!(changes(&found, &target), expected, "{found}");
        }
    }
}
