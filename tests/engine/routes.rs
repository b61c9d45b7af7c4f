//! What is not a kernel parameter: it can be made, removed, and lack what it needs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use netguard::conntrack::Cleaning;
use netguard::engine::{
    Action, Because, Engine, Errno, Event, Fault, Memory, Phase, Preserved, ReadOutcome, Record,
    Remembered, UnitChange, ValueId, Wait,
};
use netguard::kinds::{NO_ADDRESS, NO_NEXTHOP, Need};
use netguard::model::{
    Attribution, Invariant, KnownBy, Mode, Monotonic, Origin, Process, Selector, Settings, Source,
    Unknown, Writer, WriterId,
};
use netguard::resource::{Desired, Group, Resource, State};
use proptest::prelude::*;

const ROUTE: &str = "route/main/192.168.4.25/32";
const ENETDOWN: Errno = Errno(100);

pub fn resource(text: &str) -> Resource {
    Resource::parse(text).expect(text)
}

fn state(text: &str) -> State {
    State::parse(text).expect(text)
}

pub fn invariant(text: &str, desired: Desired) -> Invariant {
    Invariant::new(
        Selector::Resource(resource(text)),
        desired,
        Origin::default(),
    )
}

/// What must be as this text has it.
fn exactly(text: &str) -> Desired {
    Desired::exactly(&state(text))
}

/// Every route through an interface of a pod is preserved.
fn preserved() -> Invariant {
    let group = Group::parse("route/dev=cali*").expect("a group");
    Invariant {
        selector: Selector::Group(Arc::new(group)),
        ..invariant(ROUTE, Desired::Preserve)
    }
}

/// A process of this unit.
pub fn process(unit: &str) -> Process {
    Process {
        pid: 4711,
        comm: "ip".to_owned(),
        cmdline: "ip route del".to_owned(),
        uid: Some(0),
        login_uid: None,
        cgroup: None,
        unit: Some(unit.to_owned()),
        user_unit: None,
        started: None,
        parents: Vec::new(),
        known_by: KnownBy::Connector,
    }
}

/// An engine, what the kernel has, and which links are up.
pub struct Node {
    pub engine: Engine,
    pub now: Monotonic,
    pub kernel: HashMap<Resource, State>,
    links_up: bool,
    /// Links that are down alone.
    down: HashSet<String>,
    /// Whether the engine has more to do.
    more: bool,
    /// How often something was written that was so already.
    needless: usize,
    /// Whether what is asked for is answered.
    answers: bool,
    /// What is read and not answered until this is cleared.
    pub read_later: Option<Resource>,
    /// What is written and not answered until this is cleared.
    delayed: Option<Resource>,
    waiting: Vec<Event>,
    /// How every write is refused.
    pub refuses: Option<Errno>,
    /// What cannot be read, and why.
    pub unreadable: HashMap<Resource, Errno>,
    /// The unit of whoever writes, where that can be found out.
    pub writer: Option<&'static str>,
    /// Those who may have written, where that cannot.
    pub candidates: Vec<Process>,
    /// What the kernel has once it is asked who wrote.
    pub meanwhile: Vec<(Resource, State)>,
    watched: HashMap<ValueId, Resource>,
    pub writes: Vec<(Resource, State)>,
    pub records: Vec<Record>,
    kept: Preserved,
    /// What the next guard is told of before it begins.
    before_start: Vec<Event>,
    pub cleanings: Vec<Cleaning>,
}

impl Node {
    pub fn new(invariants: Vec<Invariant>) -> Node {
        let mut node = Node::of(Settings {
            invariants,
            ..Settings::default()
        });
        node.engine.log_singly();
        node
    }

    /// One whose records may be sums, and wait.
    pub fn of(settings: Settings) -> Node {
        Node {
            engine: Engine::new(settings),
            now: Monotonic::from_nanos(1_000_000_000),
            kernel: HashMap::new(),
            links_up: true,
            down: HashSet::new(),
            more: false,
            needless: 0,
            answers: true,
            read_later: None,
            delayed: None,
            waiting: Vec::new(),
            unreadable: HashMap::new(),
            refuses: None,
            writer: None,
            candidates: Vec::new(),
            meanwhile: Vec::new(),
            watched: HashMap::new(),
            writes: Vec::new(),
            records: Vec::new(),
            kept: Preserved::default(),
            before_start: Vec::new(),
            cleanings: Vec::new(),
        }
    }

    /// What the next guard must know of preserved resources.
    fn kept(&mut self) -> &Preserved {
        if let Some(kept) = self.engine.take_preserved() {
            self.kept = kept;
        }
        &self.kept
    }

    /// Another guard, after this one was killed and `meanwhile` has happened.
    fn taken_over(mut self, meanwhile: impl FnOnce(&mut Node)) -> Node {
        let mut memory = self.engine.memory(&[], self.now);
        memory.preserved = Arc::new(self.kept().clone());
        meanwhile(&mut self);
        let mut node = Node::new(self.engine.settings().invariants.clone());
        (node.now, node.links_up) = (self.now, self.links_up);
        node.kernel = self.kernel;
        node.engine.remember(memory, node.now);
        for event in std::mem::take(&mut self.before_start) {
            node.event(event);
        }
        node.start();
        node
    }

    /// Reports what exists, as a driver does, and begins.
    pub fn start(&mut self) {
        let interest = self.engine.interest();
        let found = self.kernel.clone().into_iter();
        for (key, state) in found.filter(|(key, state)| interest.is_about(key, state)) {
            self.event(Event::Appeared { key, state });
        }
        self.event(Event::Start);
        while self.engine.deadline().is_some_and(|at| at <= self.now) {
            self.event(Event::Tick);
        }
        self.event(Event::Tick);
        self.event(Event::Tick);
    }

    pub fn event(&mut self, event: Event) {
        self.now = Monotonic::from_nanos(self.now.as_nanos() + 1_000_000);
        let mut actions = self.engine.step(event, self.now);
        while !actions.is_empty() {
            let action = actions.remove(0);
            if let Some(answer) = self.perform(action) {
                let mut follow = self.engine.step(answer, self.now);
                follow.append(&mut actions);
                actions = follow;
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Watch { id, key, .. } => drop(self.watched.insert(id, key)),
            Action::Read { .. } if !self.answers => {}
            Action::Read { id } if self.watched.get(&id) == self.read_later.as_ref() => {}
            // Until the answer to its write.
            Action::Read { id }
                if !self.waiting.is_empty() && self.watched.get(&id) == self.delayed.as_ref() => {}
            Action::Read { id } => {
                let key = &self.watched[&id];
                let outcome = match (self.unreadable.get(key), self.kernel.get(key)) {
                    (Some(errno), _) => ReadOutcome::Refused((*errno).into()),
                    (None, Some(state)) => ReadOutcome::State(state.clone()),
                    (None, None) => ReadOutcome::Absent,
                };
                return Some(Event::Read { id, outcome });
            }
            Action::Write { id, value } => {
                let key = self.watched[&id].clone();
                self.writes.push((key.clone(), value.clone()));
                let is_so = self.kernel.get(&key) == Some(&value);
                self.needless += usize::from(is_so);
                let is_down = value.interfaces().any(|it| self.down.contains(it));
                let down = (is_down || !self.links_up).then_some(ENETDOWN);
                let result = self.refuses.or(down).map_or(Ok(()), Err);
                let is_delayed = self.delayed.as_ref() == Some(&key);
                match value {
                    _ if result.is_err() => {}
                    State::Absent => drop(self.kernel.remove(&key)),
                    value => drop(self.kernel.insert(key, value)),
                }
                let result = result.map_err(Fault::from);
                let written = Event::Written { id, result };
                if is_delayed {
                    self.waiting.push(written);
                    return None;
                }
                return Some(written);
            }
            Action::Identify { question, .. } => {
                self.kernel.extend(self.meanwhile.drain(..));
                let writer = match &self.writer {
                    Some(unit) => Attribution::Known(Arc::new(process(unit))),
                    None => Attribution::Unknown(Unknown::Port {
                        port: 66,
                        candidates: self.candidates.clone().into(),
                    }),
                };
                return Some(Event::Identified { question, writer });
            }
            Action::Record(record) => self.records.push(*record),
            Action::Clean(cleaning) => self.cleanings.push(cleaning),
            Action::Continue => self.more = true,
            _ => {}
        }
        None
    }

    /// Time goes by; what is due on the way is done.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.engine.deadline().filter(|at| *at <= end);
            if !std::mem::take(&mut self.more) {
                let Some(due) = due else { break };
                self.now = self.now.max(due);
            }
            self.event(Event::Tick);
        }
        self.now = self.now.max(end);
    }

    /// What the kernel has.
    pub fn set(&mut self, text: &str, to: Option<&str>) {
        let key = resource(text);
        match to {
            Some(to) => drop(self.kernel.insert(key, state(to))),
            None => drop(self.kernel.remove(&key)),
        }
    }

    /// The route or whatever it is was changed by somebody, who is reported.
    pub fn changed(&mut self, text: &str, to: Option<&str>) {
        let key = resource(text);
        self.set(text, to);
        let writer = Some(Writer {
            id: WriterId::Pid(4711),
            source: Source::Rtnetlink,
            after: self.now,
            detected: self.now,
        });
        let source = Source::Rtnetlink;
        self.event(Event::Hint {
            key,
            source,
            writer,
        });
    }

    pub fn phase(&self, text: &str) -> Phase {
        let key = resource(text);
        let watched = self.engine.watched().find(|it| *it.key == key);
        watched.expect(text).state.clone()
    }

    pub fn restored(&self) -> Vec<String> {
        let restored = self.records.iter().filter_map(|record| match record {
            Record::DriftRestored(drift) => Some(drift),
            _ => None,
        });
        let shown = |it: &Option<State>| it.as_ref().map_or("?".to_owned(), State::to_string);
        restored
            .map(|it| {
                format!(
                    "{}: {} > {} > {}",
                    it.key,
                    shown(&it.old),
                    shown(&it.new),
                    shown(&it.ours)
                )
            })
            .collect()
    }
}

#[test]
fn a_route_that_is_removed_or_changed_is_made_again() {
    let mut node = Node::new(vec![invariant(ROUTE, exactly("dev cali0"))]);
    node.kernel
        .insert(resource(ROUTE), state("dev cali0 scope link"));
    node.start();
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    assert_eq!(node.writes, [], "what matches is not written");
    node.changed(ROUTE, None);
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    node.changed(ROUTE, Some("dev cali1"));
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    assert_eq!(
        node.restored(),
        [
            "route/main/192.168.4.25/32: dev cali0 > absent > dev cali0",
            "route/main/192.168.4.25/32: dev cali0 > dev cali1 > dev cali0",
        ]
    );
}

#[test]
fn a_route_waits_for_its_link_and_is_made_when_that_is_up() {
    let mut node = Node::new(vec![invariant(ROUTE, exactly("dev cali0"))]);
    node.kernel.insert(resource(ROUTE), state("dev cali0"));
    node.start();
    // The kernel says nothing of the routes that a link takes with it.
    node.links_up = false;
    node.kernel.clear();
    let changed = || Event::LinkChanged {
        name: "cali0".to_owned(),
    };
    node.event(changed());
    assert_eq!(
        node.phase(ROUTE),
        Phase::Blocked(Need::Link("cali0".into()))
    );
    assert_eq!(node.writes.len(), 1);
    assert!(node.restored().is_empty());
    let failed = |record: &Record| matches!(record, Record::RestoreFailed(..));
    assert!(!node.records.iter().any(failed), "that is no failure");
    node.links_up = true;
    node.event(changed());
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    let restored = ["route/main/192.168.4.25/32: dev cali0 > absent > dev cali0"];
    assert_eq!(node.restored(), restored);
}

/// A route over what is not there is pending until that comes; one that is refused all the
/// same has failed.
#[test]
fn a_route_waits_for_its_source_and_its_nexthop_object() {
    let came_elsewhere = || Event::LinkChanged {
        name: "lo".to_owned(),
    };
    let made = |number| Event::NexthopAdded { number };
    let address = Need::Address([10, 70, 0, 1].into());
    let of_source = "dev cali0 src 10.70.0.1";
    for (desired, refused, need, vain, event) in [
        (of_source, NO_ADDRESS, Some(address), None, came_elsewhere()),
        (
            "dev cali0 nhid 7",
            NO_NEXTHOP,
            Some(Need::Nexthop(7)),
            Some(made(8)),
            made(7),
        ),
        (of_source, Errno(22), None, None, came_elsewhere()),
    ] {
        let mut node = Node::new(vec![invariant(ROUTE, exactly(desired))]);
        node.refuses = Some(refused);
        node.start();
        let is_pending = need.is_some();
        let phase = need.map_or(Phase::Failed, Phase::Blocked);
        assert_eq!(node.phase(ROUTE), phase);
        let failed = |record: &Record| matches!(record, Record::RestoreFailed(..));
        assert_eq!(node.records.iter().any(failed), !is_pending, "{refused:?}");
        node.refuses = None;
        node.event(vain.unwrap_or(Event::Tick));
        assert_eq!(node.phase(ROUTE), phase, "{refused:?}");
        if is_pending {
            node.event(event);
            assert_eq!(node.phase(ROUTE), Phase::Matching, "{refused:?}");
        }
    }
}

/// That is drift, and is reported unless the address comes soon. Where the link is down, it waits
/// for that.
#[test]
fn a_route_fails_whose_gateway_no_address_of_its_link_reaches() {
    const ENETUNREACH: Errno = Errno(101);
    let failed = |node: &Node| {
        let failed = |record: &&Record| matches!(record, Record::RestoreFailed(..));
        node.records.iter().filter(failed).count()
    };
    let desired = "via 10.0.0.1 dev cali0";
    let link = "link/cali0";
    for comes in [true, false] {
        let mut node = Node::of(Settings {
            invariants: vec![invariant(ROUTE, exactly(desired))],
            ..Settings::default()
        });
        node.kernel.insert(resource(ROUTE), state(desired));
        node.kernel.insert(resource(link), state("up true"));
        node.start();
        node.kernel.remove(&resource(ROUTE));
        node.refuses = Some(ENETUNREACH);
        node.event(link_changed());
        node.event(Event::Tick);
        assert_eq!(node.phase(ROUTE), Phase::Failed);
        assert_eq!(node.engine.tally().drifted, 1);
        assert_eq!(failed(&node), 0);
        node.pass(Duration::from_secs(if comes { 4 } else { 10 }));
        assert_eq!(failed(&node), usize::from(!comes));
        // Its link goes down, and comes back without the address.
        node.set(link, Some("up false"));
        node.event(link_changed());
        let needs = Need::Link("cali0".into());
        assert_eq!(node.phase(ROUTE), Phase::Blocked(needs));
        node.set(link, Some("up true"));
        node.event(link_changed());
        node.pass(Duration::from_millis(10));
        assert_eq!(node.phase(ROUTE), Phase::Failed);
        node.refuses = None;
        node.event(link_changed());
        assert_eq!(node.phase(ROUTE), Phase::Matching);
        node.pass(Duration::from_secs(20));
        // Also when its link was up again.
        assert_eq!(failed(&node), if comes { 0 } else { 2 });
    }
}

#[test]
fn a_route_that_names_no_link_is_restored_as_soon_as_its_gateway_is_reached() {
    let desired = "via 10.0.0.1";
    let mut node = Node::new(vec![invariant(ROUTE, exactly(desired))]);
    node.refuses = Some(Errno(101));
    node.start();
    node.pass(Duration::from_secs(30));
    assert_eq!(node.phase(ROUTE), Phase::Failed);
    node.refuses = None;
    node.event(link_changed());
    assert_eq!(node.phase(ROUTE), Phase::Matching);
}

/// Only the program that made it can make it again.
#[test]
fn a_guarded_link_that_vanishes_is_reported_once_it_does_not_come_back() {
    let link = "link/cali0";
    let removed = || Event::LinkRemoved {
        name: "cali0".to_owned(),
    };
    let added = || Event::LinkAdded {
        name: "cali0".to_owned(),
    };
    let told = |node: &Node| -> Vec<&'static str> {
        let words = node.records.iter().filter_map(|record| match record {
            Record::RestoreFailed(..) => Some("vanished"),
            Record::DriftEnded(_) => Some("back"),
            Record::RestartHandled(_) => Some("restart"),
            _ => None,
        });
        words.collect()
    };
    for (is_restart, comes) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut node = Node::new(vec![invariant(link, exactly("up true"))]);
        node.set(link, Some("up true"));
        node.start();
        if is_restart {
            node.event(job(UnitChange::JobNew { job: 7 }));
        }
        node.set(link, None);
        node.event(removed());
        let later = if is_restart { 2000 } else { 100 };
        node.pass(Duration::from_millis(later));
        assert!(told(&node).is_empty());
        if comes {
            node.set(link, Some("up true"));
            node.event(added());
        }
        if is_restart {
            let result = "done".to_owned();
            node.event(job(UnitChange::JobRemoved { job: 7, result }));
        }
        node.pass(Duration::from_secs(10));
        let vanished = (!comes).then_some("vanished");
        let restart = is_restart.then_some("restart");
        let expected: Vec<_> = vanished.into_iter().chain(restart).collect();
        assert_eq!(told(&node), expected, "{is_restart} {comes}");
        if !comes {
            assert_eq!(node.phase(link), Phase::Pending);
            node.set(link, Some("up true"));
            node.event(added());
            node.pass(Duration::from_secs(1));
            assert_eq!(told(&node).last(), Some(&"back"));
            assert_eq!(node.phase(link), Phase::Matching);
        }
    }
}

#[test]
fn a_link_is_guarded_after_a_reload_and_its_removal() {
    let link = "link/cali0";
    let settings = || Settings {
        invariants: vec![invariant(link, exactly("up true"))],
        ..Settings::default()
    };
    let mut node = Node::of(settings());
    node.set(link, Some("up true"));
    node.start();
    node.event(Event::Reload(settings().into()));
    node.set(link, None);
    let name = || "cali0".to_owned();
    node.event(Event::LinkRemoved { name: name() });
    node.pass(Duration::from_secs(10));
    assert_eq!(node.phase(link), Phase::Pending);
    node.set(link, Some("up false"));
    node.event(Event::LinkAdded { name: name() });
    assert_eq!(node.kernel[&resource(link)], state("up true"));
}

/// The link's own restore is answered later than the link is reported to be up.
#[test]
fn what_a_link_must_have_follows_its_restore_at_once() {
    let (link, neighbour) = ("link/cali0", "neighbour/cali0/10.0.0.9");
    let (up, entry) = ("up true", "lladdr 46:2a:0d:29:d1:eb nud permanent");
    let mut node = Node::new(vec![
        invariant(link, exactly(up)),
        invariant(neighbour, exactly(entry)),
    ]);
    node.kernel.insert(resource(link), state(up));
    node.kernel.insert(resource(neighbour), state(entry));
    node.start();
    node.pass(Duration::from_secs(1));
    node.delayed = Some(resource(link));
    node.kernel.remove(&resource(neighbour));
    node.changed(link, Some("up false"));
    node.event(link_changed());
    assert_eq!(node.writes.len(), 1);
    let begun = node.now;
    for event in std::mem::take(&mut node.waiting) {
        node.event(event);
    }
    while std::mem::take(&mut node.more) {
        node.event(Event::Tick);
    }
    assert!(node.kernel.contains_key(&resource(neighbour)));
    assert!(node.now.since(begun) < Duration::from_millis(100));
}

/// The link is up again before the kernel's refusal has come.
#[test]
fn a_route_does_not_wait_for_a_link_that_is_up_already() {
    let mut node = node_with_a_pod();
    node.pass(Duration::from_secs(1));
    node.delayed = Some(resource(ROUTE));
    node.links_up = false;
    node.kernel.clear();
    node.event(link_changed());
    node.links_up = true;
    node.event(link_changed());
    node.delayed = None;
    for event in std::mem::take(&mut node.waiting) {
        node.event(event);
    }
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    assert_eq!(node.writes.len(), 2);
}

#[test]
fn what_is_only_observed_waits_for_its_link_too() {
    let only = invariant(ROUTE, exactly("dev cali0"));
    let mode = Mode::Observe;
    let mut node = Node::new(vec![Invariant { mode, ..only }]);
    let link = "link/cali0";
    node.kernel.insert(resource(link), state("up true"));
    node.kernel.insert(resource(ROUTE), state("dev cali0"));
    node.start();
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    node.kernel.remove(&resource(ROUTE));
    for down in [None, Some("up false")] {
        node.changed(link, down);
        node.event(link_changed());
        assert_eq!(
            node.phase(ROUTE),
            Phase::Blocked(Need::Link("cali0".into()))
        );
        assert!(node.records.iter().all(|it| it.drift().is_none()));
        let pending = node.engine.pending();
        assert_eq!(pending.len(), 1, "{pending:?}");
        assert_eq!(
            pending[0].because,
            Because::Needs(Need::Link("cali0".into()))
        );
        assert_eq!(node.engine.tally().pending, 1);
    }
    node.changed(link, Some("up true"));
    node.event(link_changed());
    assert!(matches!(node.phase(ROUTE), Phase::Drifted { .. }));
    assert!(node.engine.pending().is_empty());
}

/// A second guard, or a check while the first runs, knows since when the owner is waited for.
#[test]
fn what_is_only_observed_has_a_grace_period_too() {
    let grace = Some(Duration::from_millis(500));
    let only = invariant(ROUTE, exactly("dev cali0"));
    let mode = Mode::Observe;
    let of_pod = Invariant {
        grace,
        mode,
        ..only
    };
    let drift = |node: &Node| Remembered {
        key: resource(ROUTE),
        found: State::Absent,
        since: Some(node.now),
        found_at: node.now,
        writer: None,
        counted: false,
    };
    for (millis, is_pending) in [(0, true), (400, true), (600, false)] {
        let mut node = Node::new(vec![of_pod.clone()]);
        let drifts = vec![drift(&node)];
        let memory = Memory {
            drifts,
            ..Memory::default()
        };
        node.kernel.insert(resource("link/cali0"), state("up true"));
        node.now = node.now + Duration::from_millis(millis);
        node.engine.remember(memory, node.now);
        node.start();
        let phase = node.phase(ROUTE);
        assert_eq!(phase == Phase::Waiting(Wait::Grace), is_pending, "{millis}");
        assert_eq!(node.engine.tally().drifted, usize::from(!is_pending));
        node.pass(Duration::from_millis(600));
        assert!(matches!(node.phase(ROUTE), Phase::Drifted { .. }));
    }
}

#[test]
fn what_must_be_absent_is_removed() {
    let rule = "rule/ipv4/100/from=10.39.0.0/24/table=200";
    let mut node = Node::new(vec![invariant(rule, Desired::Absent)]);
    node.start();
    assert_eq!(node.phase(rule), Phase::Matching);
    node.changed(rule, Some("type unicast"));
    assert_eq!(node.writes, [(resource(rule), State::Absent)]);
    assert_eq!(node.phase(rule), Phase::Matching);
    let restored = format!("{rule}: absent > type unicast > absent");
    assert_eq!(node.restored(), [restored]);
}

/// A node with a pod's route that is preserved.
fn node_with_a_pod() -> Node {
    let mut node = Node::new(vec![preserved()]);
    node.kernel.insert(resource(ROUTE), state("dev cali0"));
    node.start();
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    node
}

fn link_changed() -> Event {
    Event::LinkChanged {
        name: "cali0".to_owned(),
    }
}

fn job(change: UnitChange) -> Event {
    Event::Unit {
        unit: "network.service".to_owned(),
        change,
    }
}

#[test]
fn what_goes_with_a_link_comes_back_with_it() {
    let mut node = node_with_a_pod();
    node.links_up = false;
    node.kernel.clear();
    node.event(link_changed());
    assert_eq!(
        node.phase(ROUTE),
        Phase::Blocked(Need::Link("cali0".into()))
    );
    node.links_up = true;
    node.event(link_changed());
    let restored = ["route/main/192.168.4.25/32: dev cali0 > absent > dev cali0"];
    assert_eq!(node.restored(), restored);
}

/// And not since the last scan: the link is reported to have changed.
#[test]
fn what_goes_with_a_link_is_missing_since_that_went() {
    let mut node = node_with_a_pod();
    node.pass(Duration::from_secs(30));
    node.links_up = false;
    node.kernel.clear();
    node.event(link_changed());
    node.pass(Duration::from_secs(5));
    node.links_up = true;
    node.event(link_changed());
    let Some(Record::DriftRestored(drift)) = node.records.last() else {
        panic!("{:?}", node.records);
    };
    assert_eq!(drift.at_most, None);
    assert_eq!(drift.took.map(|it| it.as_secs()), Some(5));
}

#[test]
fn what_a_process_removes_or_changes_is_its_right() {
    let mut node = node_with_a_pod();
    node.writer = Some("kubelet.service");
    node.changed(ROUTE, Some("dev cali1"));
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    node.changed(ROUTE, None);
    assert_eq!(node.engine.watched().count(), 0);
    let accepted = node.records.iter().filter_map(|record| match record {
        Record::RemovalAccepted(drift) => Some(drift),
        _ => None,
    });
    let [drift] = accepted.collect::<Vec<_>>()[..] else {
        panic!("{:?}", node.records);
    };
    assert_eq!(
        (&drift.key, &drift.old),
        (&resource(ROUTE), &Some(state("dev cali1")))
    );
    assert!(matches!(&drift.writer, Attribution::Known(it) if it.pid == 4711));
    node.event(link_changed());
    assert_eq!(node.writes, []);
    assert!(node.restored().is_empty());
}

#[test]
fn during_a_network_restart_it_matters_who_removes_it() {
    for (writer, restores) in [
        (Some("network.service"), true),
        (Some("kubelet.service"), false),
        (None, true),
    ] {
        let mut node = node_with_a_pod();
        node.event(job(UnitChange::JobNew { job: 7 }));
        node.writer = writer;
        node.changed(ROUTE, None);
        let restored = node.restored().len();
        assert_eq!(restored, usize::from(restores), "{writer:?}");
        let is_accepted = |it: &&Record| matches!(it, Record::RemovalAccepted(_));
        let accepted = node.records.iter().filter(is_accepted).count();
        assert_eq!(accepted, usize::from(!restores), "{writer:?}");
        assert_eq!(node.kernel.contains_key(&resource(ROUTE)), restores);
    }
}

/// The owner removes what was just made again: that is reported before the answer to the write,
/// and the answer is when it is read.
#[test]
fn what_its_owner_removes_right_after_the_restore_stays_removed() {
    let mut node = node_with_a_pod();
    node.event(job(UnitChange::JobNew { job: 7 }));
    node.delayed = Some(resource(ROUTE));
    node.writer = Some("network.service");
    node.changed(ROUTE, None);
    assert!(node.kernel.contains_key(&resource(ROUTE)));
    node.writer = Some("kubelet.service");
    node.changed(ROUTE, None);
    for answer in std::mem::take(&mut node.waiting) {
        node.event(answer);
    }
    node.event(link_changed());
    assert_eq!(node.writes.len(), 1);
    assert_eq!(node.engine.watched().count(), 0);
    let [
        Record::Started(..),
        Record::DriftRestored(_),
        Record::RemovalAccepted(_),
    ] = node.records[..]
    else {
        panic!("{:?}", node.records);
    };
}

/// Its owner makes it otherwise before it can be restored.
#[test]
fn what_its_owner_makes_anew_while_it_is_lost_is_accepted() {
    let mut node = node_with_a_pod();
    node.event(job(UnitChange::JobNew { job: 7 }));
    node.links_up = false;
    node.writer = Some("network.service");
    node.changed(ROUTE, None);
    node.links_up = true;
    node.writer = Some("kubelet.service");
    node.changed(ROUTE, Some("mtu 1300 dev cali0"));
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    let Some(Record::DriftEnded(drift)) = node.records.last() else {
        panic!("{:?}", node.records);
    };
    let was_and_is = [&drift.new, &drift.ours].map(|it| it.clone().expect("a state"));
    assert_eq!(was_and_is, [State::Absent, state("mtu 1300 dev cali0")]);
}

/// As `ip rule flush` and `ip rule add` do: the kernel refuses the rule with another protocol.
#[test]
fn a_rule_that_a_network_restart_makes_again_is_not_contested() {
    const RULE: &str = "rule/ipv4/32766/table=main";
    let selector = Selector::Group(Arc::new(Group::parse("rule/").expect("a group")));
    let mut node = Node::new(vec![Invariant {
        selector,
        ..preserved()
    }]);
    node.kernel.insert(resource(RULE), state("protocol kernel"));
    node.start();
    node.event(job(UnitChange::JobNew { job: 7 }));
    node.writer = Some("network.service");
    node.refuses = Some(Errno(17));
    node.changed(RULE, Some("present"));
    assert_eq!(node.phase(RULE), Phase::Matching);
    assert_eq!(node.records.len(), 1, "{:?}", node.records);
}

/// And what the network restart removes once more is made once more.
#[test]
fn what_is_removed_again_right_after_the_restore_is_made_again() {
    let mut node = node_with_a_pod();
    node.event(job(UnitChange::JobNew { job: 7 }));
    node.delayed = Some(resource(ROUTE));
    node.writer = Some("network.service");
    for _ in 0..2 {
        node.changed(ROUTE, None);
    }
    node.delayed = None;
    for answer in std::mem::take(&mut node.waiting) {
        node.event(answer);
    }
    assert_eq!(node.writes.len(), 2);
    assert_eq!(node.phase(ROUTE), Phase::Matching);
}

/// Link events alone show that the network restarts, not whose work it is: a process that
/// nothing is known of may be anyone.
#[test]
fn where_no_job_is_known_only_a_program_of_the_network_is_overridden() {
    for (writer, to, restores) in [
        (Some("NetworkManager.service"), None, true),
        (Some("kubelet.service"), None, false),
        (None, None, false),
        (None, Some("mtu 1300 dev cali0"), false),
    ] {
        let mut node = node_with_a_pod();
        for _ in 0..5 {
            let name = "cali3".to_owned();
            node.event(Event::LinkChanged { name });
        }
        assert!(node.engine.is_restarting());
        node.writer = writer;
        node.changed(ROUTE, to);
        assert_eq!(
            node.restored().len(),
            usize::from(restores),
            "{writer:?} {to:?}"
        );
    }
}

/// A container's program uses a new socket for each request: whose it was may not be
/// certain, but that it is no part of the restart is.
#[test]
fn who_may_have_removed_it_decides_where_nobody_is_certain() {
    for (units, restores) in [
        (&["kubelet.service"][..], false),
        (&["kubelet.service", "network.service"], true),
    ] {
        let mut node = node_with_a_pod();
        node.event(job(UnitChange::JobNew { job: 7 }));
        node.candidates = units.iter().map(|unit| process(unit)).collect();
        node.changed(ROUTE, None);
        assert_eq!(node.restored().len(), usize::from(restores), "{units:?}");
    }
}

#[test]
fn nothing_of_a_link_that_is_removed_comes_back() {
    let mut node = node_with_a_pod();
    node.event(job(UnitChange::JobNew { job: 7 }));
    node.links_up = false;
    node.kernel.clear();
    let name = || "cali0".to_owned();
    node.event(Event::LinkRemoved { name: name() });
    node.links_up = true;
    node.event(Event::LinkAdded { name: name() });
    node.event(link_changed());
    assert!(node.kernel.is_empty());
    assert_eq!(node.engine.watched().count(), 0);
}

#[test]
fn the_owner_goes_first() {
    let grace = Some(Duration::from_millis(500));
    let of_pod = invariant(ROUTE, exactly("dev cali0"));
    let mut node = Node::new(vec![Invariant { grace, ..of_pod }]);
    node.kernel.insert(resource(ROUTE), state("dev cali0"));
    node.start();
    node.changed(ROUTE, None);
    assert_eq!(node.phase(ROUTE), Phase::Waiting(Wait::Grace));
    // It makes it itself.
    node.changed(ROUTE, Some("dev cali0"));
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    node.changed(ROUTE, None);
    let due = node.engine.deadline().expect("a deadline");
    assert!(due > node.now + Duration::from_millis(400));
    node.now = due;
    node.event(Event::Tick);
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    assert_eq!(node.writes.len(), 1);
    assert_eq!(node.restored().len(), 1);
}

#[test]
fn what_appears_is_preserved_too() {
    let mut node = Node::new(vec![preserved()]);
    node.start();
    let other = "route/main/10.0.0.0/8";
    node.kernel.insert(resource(ROUTE), state("dev cali0"));
    node.kernel.insert(resource(other), state("dev eth0"));
    for (key, state) in node.kernel.clone() {
        node.event(Event::Appeared { key, state });
    }
    let watched: Vec<_> = node.engine.watched().map(|it| it.key.to_string()).collect();
    assert_eq!(watched, [ROUTE]);
}

/// Where the owner goes first, what it makes counts, and what it does not is made.
#[test]
fn an_owner_may_make_what_is_preserved_otherwise() {
    let grace = Some(Duration::from_secs(30));
    let mut node = Node::new(vec![Invariant {
        grace,
        ..preserved()
    }]);
    node.kernel.insert(resource(ROUTE), state("dev cali0"));
    node.start();
    node.writer = Some("network.service");
    for (made, restored) in [(Some("dev cali1"), 0), (Some("dev cali0"), 0), (None, 1)] {
        node.event(job(UnitChange::JobNew { job: 7 }));
        node.changed(ROUTE, None);
        assert_eq!(node.phase(ROUTE), Phase::Waiting(Wait::Grace));
        if made.is_some() {
            node.changed(ROUTE, made);
            assert_eq!(node.phase(ROUTE), Phase::Matching);
        }
        node.event(job(UnitChange::JobRemoved {
            job: 7,
            result: "done".to_owned(),
        }));
        node.pass(Duration::from_secs(60));
        assert_eq!(node.phase(ROUTE), Phase::Matching, "{made:?}");
        assert_eq!(node.restored().len(), restored, "{made:?}");
        let handled = node.records.iter().rev().find_map(|record| match record {
            Record::RestartHandled(handled) => Some(handled),
            _ => None,
        });
        let handled = handled.expect("its end is reported");
        let counted = (handled.restored, handled.verified);
        assert_eq!(counted, (restored as u64, true), "{made:?}");
        if let Some(made) = made {
            assert_eq!(node.kernel[&resource(ROUTE)], state(made));
        }
    }
    assert_eq!(node.kernel[&resource(ROUTE)], state("dev cali0"));
}

#[test]
fn what_is_left_alone_is_not_preserved() {
    let off = invariant(ROUTE, Desired::Anything);
    let mut node = Node::new(vec![preserved(), off]);
    node.kernel.insert(resource(ROUTE), state("dev cali0"));
    node.start();
    assert_eq!(node.engine.watched().count(), 0);
}

#[test]
fn what_is_changed_so_that_its_group_does_not_mean_it_is_let_go() {
    let mut node = node_with_a_pod();
    node.changed(ROUTE, Some("dev eth0"));
    assert_eq!(node.engine.watched().count(), 0);
    // It is not the guard's any more, whatever becomes of it.
    node.changed(ROUTE, None);
    node.event(link_changed());
    assert_eq!(node.writes, []);
    // In a network restart it is put right.
    for (writer, restores) in [("network.service", true), ("kubelet.service", false)] {
        let mut node = node_with_a_pod();
        node.event(job(UnitChange::JobNew { job: 7 }));
        node.writer = Some(writer);
        node.changed(ROUTE, Some("dev eth0"));
        assert_eq!(node.restored().len(), usize::from(restores), "{writer}");
        assert_eq!(node.engine.watched().count(), usize::from(restores));
    }
}

/// A scan has asked for it and was not answered yet, or new settings come before the
/// answer.
#[test]
fn what_the_kernel_removes_during_a_scan_is_not_taken_for_removed_by_a_process() {
    for is_reloaded_first in [true, false] {
        let mut node = node_with_a_pod();
        node.answers = false;
        let settings = node.engine.settings().clone();
        let reload = Event::Reload(settings.into());
        let removed = Event::Hint {
            key: resource(ROUTE),
            source: Source::Rtnetlink,
            writer: None,
        };
        let events = match is_reloaded_first {
            true => [reload, removed],
            false => [removed, reload],
        };
        for event in events {
            node.event(event);
            for _ in 0..10 {
                node.event(Event::Tick);
            }
        }
        node.answers = true;
        node.kernel.clear();
        let ids: Vec<_> = node.watched.keys().copied().collect();
        for id in ids {
            let outcome = ReadOutcome::Absent;
            node.event(Event::Read { id, outcome });
        }
        assert_eq!(node.restored().len(), 1, "{is_reloaded_first}");
    }
}

/// What the driver has detected comes with the answer, whatever that was asked for.
#[test]
fn what_a_check_finds_first_was_removed_by_the_kernel_all_the_same() {
    for (is_detected, restored) in [(true, 1), (false, 0)] {
        let mut node = node_with_a_pod();
        node.answers = false;
        node.kernel.clear();
        let source = Source::Systemd;
        node.event(Event::Gap { source });
        for _ in 0..10 {
            node.event(Event::Tick);
        }
        node.answers = true;
        let ids: Vec<_> = node.watched.keys().copied().collect();
        for id in ids {
            if is_detected {
                let (source, writer) = (Source::Rtnetlink, None);
                node.event(Event::Detected { id, source, writer });
            }
            let outcome = ReadOutcome::Absent;
            node.event(Event::Read { id, outcome });
        }
        assert_eq!(node.restored().len(), restored, "{is_detected}");
    }
}

#[test]
fn a_route_follows_a_link_that_is_renamed() {
    let mut node = node_with_a_pod();
    let key = resource(ROUTE);
    node.kernel.insert(key.clone(), state("dev cali9"));
    node.event(Event::Hint {
        key,
        source: Source::Rtnetlink,
        writer: None,
    });
    let (old, new) = ("cali0".to_owned(), "cali9".to_owned());
    node.event(Event::LinkRenamed { old, new });
    node.pass(Duration::from_secs(5));
    node.kernel.clear();
    node.event(Event::LinkChanged {
        name: "cali9".to_owned(),
    });
    assert_eq!(node.kernel[&resource(ROUTE)], state("dev cali9"));
    assert_eq!(node.writes.len(), 1);
}

#[test]
fn a_route_follows_a_link_that_is_renamed_while_it_is_down() {
    for (new, is_meant) in [("cali9", true), ("eth9", false)] {
        let mut node = node_with_a_pod();
        node.links_up = false;
        node.kernel.clear();
        node.event(link_changed());
        let (old, new) = ("cali0".to_owned(), new.to_owned());
        node.event(Event::LinkRenamed {
            old,
            new: new.clone(),
        });
        node.pass(Duration::from_secs(5));
        let kept = node.kept().entries.iter().map(|it| it.state.clone());
        let expected: Vec<_> = is_meant.then(|| state("dev cali9")).into_iter().collect();
        assert_eq!(kept.collect::<Vec<_>>(), expected, "{new}");
        node.links_up = true;
        node.event(Event::LinkChanged { name: new });
        assert_eq!(node.kernel.get(&resource(ROUTE)), expected.first());
    }
}

#[test]
fn a_preserved_route_that_cannot_be_restored_is_reported_with_what_was_written() {
    let mut node = node_with_a_pod();
    node.refuses = Some(Errno(22));
    node.kernel.clear();
    node.event(link_changed());
    let failed = node.records.iter().find_map(|record| match record {
        Record::RestoreFailed(drift, _) => Some(drift.clone()),
        _ => None,
    });
    let failed = failed.expect("a failure");
    assert_eq!(failed.ours, Some(state("dev cali0")));
    let open: Vec<_> = node.engine.active_drifts(node.now).collect();
    assert_eq!(open[0].drift.ours, Some(state("dev cali0")));
}

#[test]
fn what_has_drifted_as_links_began_to_change_is_part_of_the_restart() {
    let mut node = node_with_a_pod();
    node.links_up = false;
    node.kernel.clear();
    for _ in 0..5 {
        node.event(link_changed());
    }
    node.links_up = true;
    node.event(link_changed());
    node.pass(Duration::from_secs(60));
    let restarts = node.records.iter().filter_map(|record| match record {
        Record::RestartHandled(episode) => Some((episode.drifts, episode.restored)),
        _ => None,
    });
    assert!(restarts.eq([(1, 1)]));
}

#[test]
fn what_goes_in_a_network_restart_comes_back_though_the_guard_was_killed() {
    let other = "route/main/192.168.4.26/32";
    let restart = Some(job(UnitChange::JobNew { job: 7 }));
    for (begins, lives, seconds, restored) in [
        (&restart, 0, 1, 1),
        (&restart, 0, 61, 0),
        (&None, 0, 1, 0),
        // One such change may be the first of many, which this guard does not see.
        (&Some(link_changed()), 0, 1, 1),
        (&Some(link_changed()), 1, 1, 1),
        (&Some(link_changed()), 0, 61, 0),
        (&Some(link_changed()), 2, 1, 0),
    ] {
        let mut node = node_with_a_pod();
        node.kernel.insert(resource(other), state("dev cali1"));
        node.event(Event::Appeared {
            key: resource(other),
            state: state("dev cali1"),
        });
        node.kept();
        let case = format!("{begins:?} {lives} {seconds}");
        begins.iter().cloned().for_each(|it| node.event(it));
        node.pass(Duration::from_secs(lives));
        let node = node.taken_over(|node| {
            node.kernel.remove(&resource(ROUTE));
            node.now = node.now + Duration::from_secs(seconds);
        });
        assert_eq!(node.restored().len(), restored, "{case}");
        assert_eq!(node.kernel.len(), 1 + restored, "{case}");
        // Killed once more.
        let mut node = node.taken_over(|node| node.kernel.clear());
        let known = 2 * restored;
        assert_eq!(node.kernel.len(), known, "{case}");
        assert_eq!(node.kept().entries.len(), known, "{case}");
    }
}

#[test]
fn what_was_lost_comes_back_though_the_guard_was_killed() {
    let mut node = node_with_a_pod();
    assert_eq!(node.kept().entries, []);
    node.links_up = false;
    node.kernel.clear();
    node.event(link_changed());
    let mut node = node.taken_over(|_| ());
    assert_eq!(
        node.phase(ROUTE),
        Phase::Blocked(Need::Link("cali0".into()))
    );
    assert_eq!(node.kept().entries.len(), 1);
    assert_eq!(node.kept().entries[0].lost, Some(State::Absent));
    let mut node = node.taken_over(|node| node.links_up = true);
    assert_eq!(node.phase(ROUTE), Phase::Matching);
    assert_eq!(node.restored().len(), 1);
    assert_eq!(node.kept().entries, []);
    // Nor does anything of an interface that goes before the next one begins.
    node.links_up = false;
    node.kernel.clear();
    node.event(link_changed());
    let node = node.taken_over(|node| {
        node.links_up = true;
        let name = "cali0".to_owned();
        node.before_start.push(Event::LinkRemoved { name });
    });
    assert!(node.kernel.is_empty());
}

/// Whatever took its place while no guard ran was put there by its owner, and after a
/// while an owner has made what it needs.
#[test]
fn what_was_lost_is_restored_only_where_it_is_still_missing_and_for_a_while() {
    for (found, minutes, expected) in [
        (Some("dev cali1"), 1, Some("dev cali1")),
        (None, 9, Some("dev cali0")),
        (None, 11, None),
    ] {
        let mut node = node_with_a_pod();
        node.links_up = false;
        node.kernel.clear();
        node.event(link_changed());
        let mut node = node.taken_over(|node| {
            node.links_up = true;
            let found = found.map(|it| (resource(ROUTE), state(it)));
            node.kernel.extend(found);
            node.now = node.now + Duration::from_secs(60 * minutes);
        });
        let case = format!("{found:?} {minutes}");
        let kept = node.kernel.get(&resource(ROUTE)).cloned();
        assert_eq!(kept, expected.map(state), "{case}");
        assert_eq!(node.kept().entries, [], "{case}");
        // What was found is good now: it comes back where its link goes.
        if let Some(found) = found {
            node.kernel.clear();
            node.event(Event::LinkChanged {
                name: "cali1".to_owned(),
            });
            assert_eq!(node.kernel[&resource(ROUTE)], state(found));
        }
    }
}

/// What no settings are about any more is forgotten, and the next guard knows nothing of it.
#[test]
fn what_was_recalled_and_not_taken_up_is_kept_no_longer() {
    let mut killed = node_with_a_pod();
    killed.links_up = false;
    killed.kernel.clear();
    killed.event(link_changed());
    let mut memory = killed.engine.memory(&[], killed.now);
    memory.preserved = Arc::new(killed.kept().clone());
    let mut node = Node::new(Vec::new());
    node.engine.remember(memory, killed.now);
    assert_eq!(node.kept().entries.len(), 1);
    node.start();
    assert_eq!(node.kept().entries, []);
}

/// The kernel reports more of it than the entry names.
#[test]
fn a_drift_goes_on_though_the_guard_was_killed() {
    let mut node = Node::new(vec![invariant(ROUTE, exactly("dev cali0"))]);
    let drifted = state("type unicast dev cali1 scope link");
    node.kernel.insert(resource(ROUTE), state("dev cali0"));
    node.start();
    node.refuses = Some(Errno(22));
    node.changed(ROUTE, Some(&drifted.to_string()));
    let since = |node: &Node| {
        let open: Vec<_> = node.engine.active_drifts(node.now).collect();
        (open.len(), open[0].since)
    };
    let began = since(&node);
    node.pass(Duration::from_secs(5));
    let open: Vec<_> = node.engine.active_drifts(node.now).collect();
    let memory = node.engine.memory(&open, node.now);
    let mut next = Node::new(node.engine.settings().invariants.clone());
    (next.now, next.kernel, next.refuses) = (node.now, node.kernel, node.refuses);
    next.engine.remember(memory, next.now);
    next.start();
    assert_eq!(since(&next), began);
}

#[test]
fn what_is_kept_for_the_next_guard_has_a_bound() {
    let mut node = Node::new(vec![preserved()]);
    let many = 20_000;
    for number in 0..many {
        let key = format!("route/main/10.{}.{}.0/24", number / 256, number % 256);
        node.kernel.insert(resource(&key), state("dev cali0"));
    }
    node.start();
    while node.engine.watched().count() < many {
        node.event(Event::Tick);
    }
    node.event(job(UnitChange::JobNew { job: 7 }));
    node.links_up = false;
    let lost = resource("route/main/10.77.0.0/24");
    node.kernel.remove(&lost);
    node.event(Event::Hint {
        key: lost.clone(),
        source: Source::Rtnetlink,
        writer: None,
    });
    let kept = node.engine.take_preserved().expect("a change");
    assert_eq!((kept.entries.len(), kept.left_out), (16_384, many - 16_384));
    assert_eq!(kept.entries[0].key, lost);
    assert_eq!(node.engine.take_preserved(), None);
}

/// A set has up to 65,536 members.
#[test]
fn what_is_kept_of_large_sets_has_a_bound() {
    let group = Group::parse("set/name=cali40*").expect("a group");
    let selector = Selector::Group(Arc::new(group));
    let mut node = Node::new(vec![Invariant {
        selector,
        ..preserved()
    }]);
    let members = "10.100.100.100/32 ".repeat(60_000);
    let large = format!("type hash:net members {}", members.trim_end());
    for number in 0..10 {
        let key = resource(&format!("set/cali40-{number}"));
        node.kernel.insert(key, state(&large));
    }
    let small = resource("set/cali40-small");
    node.kernel.insert(small.clone(), state("type hash:net"));
    node.start();
    for (key, state) in node.kernel.clone() {
        node.event(Event::Appeared { key, state });
    }
    node.event(job(UnitChange::JobNew { job: 7 }));
    let kept = node.engine.take_preserved().expect("a change");
    assert_eq!((kept.entries.len(), kept.left_out), (8, 3));
    assert!(kept.entries.iter().any(|it| it.key == small));
}

/// What may happen to a node, to any of [`NAMED`] or [`OF_PODS`].
#[derive(Debug, Clone)]
enum Happening {
    /// Somebody changes it, or removes it; whether that is reported.
    Change(usize, Option<usize>, bool),
    LinkDown(usize),
    LinkUp(usize),
    LinkDeleted(usize),
    Job(bool),
    Reload,
    Gap,
    Pass(u64),
}

const NAMED: [(&str, &str); 4] = [
    ("address/eth0/10.39.0.110/24", "scope global"),
    (
        "neighbour/cali0/10.0.0.9",
        "lladdr 46:2a:0d:29:d1:eb nud permanent",
    ),
    ("route/main/10.1.0.0/16", "via 10.39.0.1 dev eth0"),
    ("rule/ipv4/100/from=10.0.0.0/8/table=200", "present"),
];
/// Routes over the links of pods, which are preserved.
const OF_PODS: [&str; 3] = [
    "route/main/192.168.4.0/32",
    "route/main/192.168.4.1/32",
    "route/200/192.168.4.2/32",
];
const OTHERWISE: [&str; 2] = ["mtu 1400 dev eth0", "mtu 1300 dev cali1"];

fn happening() -> impl Strategy<Value = Happening> {
    let any_of = 0..NAMED.len() + OF_PODS.len();
    let to = prop::option::of(0..OTHERWISE.len());
    prop_oneof![
        8 => (any_of, to, any::<bool>()).prop_map(|(which, to, told)| Happening::Change(which, to, told)),
        3 => (0..OF_PODS.len()).prop_map(Happening::LinkDown),
        3 => (0..OF_PODS.len()).prop_map(Happening::LinkUp),
        1 => (0..OF_PODS.len()).prop_map(Happening::LinkDeleted),
        2 => any::<bool>().prop_map(Happening::Job),
        1 => Just(Happening::Reload),
        1 => Just(Happening::Gap),
        4 => (0u64..3_000).prop_map(Happening::Pass),
    ]
}

fn everything() -> Vec<Invariant> {
    let named = NAMED.map(|(key, desired)| invariant(key, exactly(desired)));
    named.into_iter().chain([preserved()]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No drift outlives a scan, nothing is written that matches, nothing is deleted, and
    /// nothing comes back that its owner has removed, or whose link was deleted.
    #[test]
    fn nothing_is_lost_and_nothing_comes_back(happenings in prop::collection::vec(happening(), 0..60)) {
        let mut node = Node::new(everything());
        node.writer = Some("kubelet.service");
        for (key, state_of) in NAMED {
            node.kernel.insert(resource(key), state(state_of));
        }
        // What each pod's route is by its owner's will, and whether its link is up.
        let mut owned: Vec<Option<String>> = Vec::new();
        let mut up = [true; OF_PODS.len()];
        for (number, key) in OF_PODS.iter().enumerate() {
            let own = format!("dev cali{number}");
            node.kernel.insert(resource(key), state(&own));
            owned.push(Some(own));
        }
        node.start();
        for happening in happenings {
            match happening {
                // An unreported removal of what is preserved cannot be told from a loss.
                Happening::Change(which, to, told) if which < NAMED.len() => {
                    let key = resource(NAMED[which].0);
                    let to = to.map(|it| state(OTHERWISE[it]));
                    match (&to, told) {
                        (_, true) => node.changed(NAMED[which].0, to.map(|it| it.to_string()).as_deref()),
                        (Some(to), false) => drop(node.kernel.insert(key, to.clone())),
                        (None, false) => drop(node.kernel.remove(&key)),
                    }
                }
                Happening::Change(which, to, _) => {
                    let number = which - NAMED.len();
                    let to = to.map(|it| format!("mtu {} dev cali{number}", 1300 + it));
                    // Without its link nobody makes it.
                    if up[number] {
                        let key = resource(OF_PODS[number]);
                        let is_known = node.engine.watches(&key);
                        node.changed(OF_PODS[number], to.as_deref());
                        if let (false, Some(to)) = (is_known, &to) {
                            node.event(Event::Appeared { key, state: state(to) });
                        }
                        owned[number] = to;
                    }
                }
                Happening::LinkDown(number) => {
                    up[number] = false;
                    node.down.insert(format!("cali{number}"));
                    node.kernel.remove(&resource(OF_PODS[number]));
                    node.event(Event::LinkChanged { name: format!("cali{number}") });
                }
                Happening::LinkUp(number) => {
                    up[number] = true;
                    node.down.remove(&format!("cali{number}"));
                    node.event(Event::LinkChanged { name: format!("cali{number}") });
                }
                Happening::LinkDeleted(number) => {
                    owned[number] = None;
                    up[number] = true;
                    let name = || format!("cali{number}");
                    node.down.insert(name());
                    node.kernel.remove(&resource(OF_PODS[number]));
                    node.event(Event::LinkRemoved { name: name() });
                    node.down.remove(&name());
                    node.event(Event::LinkAdded { name: name() });
                }
                Happening::Job(begins) => node.event(job(match begins {
                    true => UnitChange::JobNew { job: 7 },
                    false => UnitChange::JobRemoved { job: 7, result: "done".to_owned() },
                })),
                Happening::Reload => {
                    let settings = node.engine.settings().clone();
                    node.event(Event::Reload(settings.into()));
                }
                Happening::Gap => node.event(Event::Gap { source: Source::Rtnetlink }),
                Happening::Pass(milliseconds) => node.pass(Duration::from_millis(milliseconds)),
            }
        }
        for number in 0..OF_PODS.len() {
            node.down.remove(&format!("cali{number}"));
            node.event(Event::LinkChanged { name: format!("cali{number}") });
        }
        node.pass(Duration::from_secs(130));
        for (key, wanted) in NAMED {
            let found = node.kernel.get(&resource(key)).cloned().unwrap_or(State::Absent);
            prop_assert!(exactly(wanted).matches(&found), "{key} is {found}: {:?}", node.writes);
        }
        for (key, wanted) in OF_PODS.iter().zip(&owned) {
            let found = node.kernel.get(&resource(key)).map(State::to_string);
            prop_assert_eq!(&found, wanted, "{}", key);
        }
        for (key, wrote) in &node.writes {
            prop_assert!(wrote.exists(), "{key} was deleted");
        }
        prop_assert_eq!(node.needless, 0);
        prop_assert_eq!(node.engine.tally().drifted, 0);
    }
}

/// The kernel reports no change of a set: it is found by a scan.
#[test]
fn a_set_is_what_it_was_before_a_restart_and_what_came_into_it_since_stays() {
    const SET: &str = "set/cali40all-ipam-pools";
    const BEFORE: &str = "type hash:net family inet options maxelem 65536 members 10.1.0.0/16";
    let group = Group::parse("set/name=cali40*").expect("a group");
    let sets = Invariant {
        selector: Selector::Group(Arc::new(group)),
        ..invariant(SET, Desired::Preserve)
    };
    let mut node = Node::new(vec![sets]);
    node.kernel.insert(resource(SET), state(BEFORE));
    node.start();
    // Its owner adds a member and removes another.
    let good = BEFORE.replace("10.1", "10.2");
    node.kernel.insert(resource(SET), state(&good));
    node.pass(Duration::from_secs(90));
    assert_eq!(node.restored(), [""; 0]);

    for (found, restored) in [
        ("absent", good.as_str()),
        (
            "type hash:net family inet options maxelem 65536 members 10.9.0.0/16",
            "type hash:net family inet members 10.2.0.0/16 10.9.0.0/16",
        ),
    ] {
        node.writes.clear();
        node.event(job(UnitChange::JobNew { job: 7 }));
        match found {
            "absent" => drop(node.kernel.remove(&resource(SET))),
            found => drop(node.kernel.insert(resource(SET), state(found))),
        }
        node.event(job(UnitChange::JobRemoved {
            job: 7,
            result: "done".to_owned(),
        }));
        node.pass(Duration::from_secs(90));
        assert_eq!(node.writes, [(resource(SET), state(restored))], "{found}");
    }

    // What is beside its members stays, and a restart is no reason to remove it.
    let more = "type hash:net family inet members 10.2.0.0/16 10.3.0.0/16 10.9.0.0/16";
    node.event(job(UnitChange::JobNew { job: 8 }));
    node.kernel.insert(resource(SET), state(more));
    node.event(job(UnitChange::JobRemoved {
        job: 8,
        result: "done".to_owned(),
    }));
    node.pass(Duration::from_secs(90));
    assert_eq!(node.kernel[&resource(SET)], state(more));
    node.kernel.remove(&resource(SET));
    node.pass(Duration::from_secs(90));
    assert_eq!(node.engine.watched().count(), 0, "its owner removed it");
}
