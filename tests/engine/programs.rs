//! What is restored by a program, which takes its time: modules and units.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use netguard::engine::{
    Action, Engine, Errno, Event, Failure, Fault, Phase, ReadOutcome, Record, UnitChange, ValueId,
    Wait,
};
use netguard::model::{GuardSettings, Invariant, Mode, Monotonic, Origin, Selector, Settings};
use netguard::resource::{Desired, Resource, State};

const MODULE: &str = "module/br_netfilter";
const KEY: &str = "net.bridge.bridge-nf-call-iptables";
const UNIT: &str = "unit/kubelet.service";

const LOADED: &str = "loaded";
const ACTIVE: &str = "active";
const FAILED: &str = "failed";

/// EIO: the job failed. EDEADLK: another job takes precedence.
const EIO: Errno = Errno(5);
const EDEADLK: Errno = Errno(35);
/// systemd cannot be reached, or the connection has ended.
const ENOTCONN: Errno = Errno(107);
const ECONNRESET: Errno = Errno(104);

fn resource(text: &str) -> Resource {
    Resource::parse(text).expect(text)
}

fn state(text: &str) -> State {
    match text.parse::<u32>() {
        Ok(_) => netguard::model::Value::new(text).into(),
        Err(_) => State::parse(text).expect(text),
    }
}

fn invariant(text: &str, desired: &str) -> Invariant {
    let selector = match resource(text) {
        Resource::Sysctl(key) => Selector::Key(key),
        other => Selector::Resource(other),
    };
    let desired = Desired::exactly(&state(desired));
    Invariant::new(selector, desired, Origin::default())
}

/// An engine, what there is, and what it has asked for and is not answered.
struct Node {
    engine: Engine,
    now: Monotonic,
    there: HashMap<Resource, State>,
    watched: HashMap<ValueId, Resource>,
    waiting: VecDeque<ValueId>,
    /// How systemd cannot be asked.
    unreachable: Option<Errno>,
    /// Whether what is read is answered later.
    is_slow: bool,
    writes: Vec<(Duration, String)>,
    records: Vec<Record>,
}

impl Node {
    fn start(invariants: Vec<Invariant>, there: &[(&str, &str)]) -> Node {
        Node::start_with(invariants, there, false)
    }

    fn start_with(invariants: Vec<Invariant>, there: &[(&str, &str)], is_slow: bool) -> Node {
        let guard = GuardSettings::default();
        let there = there.iter();
        let mut node = Node {
            engine: Engine::new(Settings {
                guard,
                invariants,
                ..Settings::default()
            }),
            now: Monotonic::from_nanos(1_000_000_000),
            there: there.map(|(key, is)| (resource(key), state(is))).collect(),
            watched: HashMap::new(),
            waiting: VecDeque::new(),
            unreachable: None,
            is_slow,
            writes: Vec::new(),
            records: Vec::new(),
        };
        node.engine.log_singly();
        node.event(Event::Start);
        node.tick_until(node.now);
        node
    }

    fn event(&mut self, event: Event) {
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

    /// Time passes, and slices of longer work are done.
    fn tick_until(&mut self, end: Monotonic) {
        for _ in 0..8 {
            self.event(Event::Tick);
        }
        while let Some(next) = self.engine.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            self.event(Event::Tick);
        }
        self.now = end;
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Watch { id, key, .. } => drop(self.watched.insert(id, key)),
            Action::Read { .. } if self.is_slow => {}
            Action::Read { id } if !self.waiting.contains(&id) => {
                let outcome = match (self.unreachable, self.there.get(&self.watched[&id])) {
                    (Some(errno), _) => ReadOutcome::Refused(errno.into()),
                    (None, Some(state)) => ReadOutcome::State(state.clone()),
                    (None, None) => ReadOutcome::Absent,
                };
                return Some(Event::Read { id, outcome });
            }
            Action::Write { id, value } => {
                let key = &self.watched[&id];
                let at = self.now.since(Monotonic::default());
                self.writes.push((at, format!("{key} {value}")));
                if key.sysctl().is_some() {
                    self.there.insert(key.clone(), value);
                    return Some(Event::Written { id, result: Ok(()) });
                }
                self.waiting.push_back(id);
            }
            Action::Record(record) => self.records.push(*record),
            _ => {}
        }
        None
    }

    /// The first program has ended, and left this behind.
    fn ends(&mut self, result: Result<(), Errno>, is: Option<&str>) {
        let id = self.waiting.pop_front().expect("a program that runs");
        let key = self.watched[&id].clone();
        self.set(&key.to_string(), is);
        let result = result.map_err(Fault::from);
        self.event(Event::Written { id, result });
    }

    fn set(&mut self, key: &str, is: Option<&str>) {
        match is {
            Some(is) => self.there.insert(resource(key), state(is)),
            None => self.there.remove(&resource(key)),
        };
    }

    /// A unit is in this state now, which systemd reports.
    fn unit_is(&mut self, is: &str) {
        self.set(UNIT, Some(is));
        let unit = "kubelet.service".to_owned();
        let state = is.split(' ').next().expect("a state").to_owned();
        let change = UnitChange::ActiveState { state };
        self.event(Event::Unit { unit, change });
    }

    fn phase(&self, text: &str) -> Phase {
        let key = resource(text);
        let watched = self.engine.watched().find(|it| *it.key == key);
        watched.expect(text).state.clone()
    }

    /// What the start is reported to have found: how much matches, and is unreadable.
    fn started(&self) -> Option<(usize, usize)> {
        self.records.iter().find_map(|record| match record {
            Record::Started(tally, ..) => Some((tally.matching, tally.unreadable)),
            _ => None,
        })
    }

    /// What was recorded of drifts.
    fn told(&self) -> Vec<String> {
        let told = self.records.iter().filter_map(|record| {
            let drift = record.drift()?;
            let shown = |it: &Option<State>| it.as_ref().map_or("?".to_owned(), State::to_string);
            let what = match record {
                Record::DriftRestored(_) => "restored".to_owned(),
                Record::DriftObserved(_) => "observed".to_owned(),
                Record::DriftEnded(_) => "ended".to_owned(),
                Record::Contended(_) => "contended".to_owned(),
                Record::RestoreFailed(_, Failure::Refused(fault)) => {
                    format!("failed {}", fault.errno.0)
                }
                Record::RestoreFailed(..) => "failed".to_owned(),
                other => panic!("{other:?}"),
            };
            Some(format!("{what} {} {}", drift.key, shown(&drift.new)))
        });
        told.collect()
    }

    fn writes_of(&self, key: &str) -> usize {
        let is_it = |(_, write): &&(Duration, String)| write.starts_with(key);
        self.writes.iter().filter(is_it).count()
    }
}

fn kubelet() -> Vec<Invariant> {
    vec![invariant(UNIT, ACTIVE)]
}

fn after(node: &Node, seconds: u64) -> Monotonic {
    node.now + Duration::from_secs(seconds)
}

#[test]
fn a_unit_that_failed_is_started_at_once() {
    let mut node = Node::start(kubelet(), &[(UNIT, ACTIVE)]);
    assert_eq!(node.phase(UNIT), Phase::Matching);
    node.unit_is(FAILED);
    assert_eq!(node.writes_of(UNIT), 1);
    // Whatever is heard of it meanwhile.
    node.unit_is("activating job 7");
    node.ends(Ok(()), Some(ACTIVE));
    assert_eq!(node.phase(UNIT), Phase::Matching);
    assert_eq!(node.told(), ["restored unit/kubelet.service failed"]);
    let Some(Record::DriftRestored(drift)) = node.records.last() else {
        panic!("{:?}", node.records);
    };
    assert_eq!(drift.source.as_str(), "systemd");
    assert!(!drift.unknown && drift.at_most.is_none(), "{drift:?}");
}

/// The connection ended before the job did, or before systemd had the call.
#[test]
fn a_start_without_an_answer_is_no_failed_one() {
    let mut node = Node::start(kubelet(), &[(UNIT, ACTIVE)]);
    node.unit_is(FAILED);
    node.unreachable = Some(ENOTCONN);
    node.ends(Err(ECONNRESET), Some(FAILED));
    let later = after(&node, 61);
    node.tick_until(later);
    assert_eq!(node.writes_of(UNIT), 1);
    node.unreachable = None;
    let later = after(&node, 61);
    node.tick_until(later);
    assert_eq!(node.writes_of(UNIT), 2);
    node.ends(Err(ECONNRESET), Some(ACTIVE));
    assert_eq!(node.phase(UNIT), Phase::Matching);
    assert_eq!(node.told(), ["restored unit/kubelet.service failed"]);
}

#[test]
fn a_unit_whose_state_is_unknown_has_not_drifted() {
    for errno in [ENOTCONN, ECONNRESET] {
        let mut node = Node::start(kubelet(), &[(UNIT, ACTIVE)]);
        node.unreachable = Some(errno);
        let later = after(&node, 61);
        node.tick_until(later);
        assert_eq!(node.phase(UNIT), Phase::Unreadable);
        let tally = node.engine.tally();
        assert_eq!((tally.drifted, tally.pending, tally.unreadable), (0, 0, 1));
        let failures: Vec<_> = node
            .engine
            .pending()
            .into_iter()
            .map(|it| it.failure)
            .collect();
        assert_eq!(failures, [Some(Failure::Unreadable(errno.into()))]);
        assert_eq!(node.engine.active_drifts(node.now).count(), 0);
        node.unreachable = None;
        let later = after(&node, 61);
        node.tick_until(later);
        assert_eq!(node.phase(UNIT), Phase::Matching);
        assert!(node.told().is_empty(), "{:?}", node.told());
    }
}

/// As where a program hangs that lists the firewall.
#[test]
fn what_takes_long_to_read_is_unknown_until_it_is_read_and_not_asked_for_again() {
    let fault = Fault::from(Errno(115));
    let mut node = Node::start(kubelet(), &[(UNIT, ACTIVE)]);
    let id = *node.watched.keys().next().expect("a unit");
    let awaited = |node: &mut Node| {
        let outcome = ReadOutcome::Awaited(fault.clone());
        node.event(Event::Read { id, outcome });
    };
    awaited(&mut node);
    assert_eq!(node.phase(UNIT), Phase::Unreadable);
    let pending = node.engine.pending();
    let failure = pending.first().and_then(|it| it.failure.clone());
    assert_eq!(failure, Some(Failure::Unreadable(fault.clone())));
    let later = after(&node, 20);
    node.tick_until(later);
    assert_eq!(node.phase(UNIT), Phase::Unreadable);
    let outcome = ReadOutcome::State(state(ACTIVE));
    node.event(Event::Read { id, outcome });
    assert_eq!(node.phase(UNIT), Phase::Matching);
    assert!(node.told().is_empty(), "{:?}", node.told());

    // A drift stays one.
    node.unit_is(FAILED);
    let phase = node.phase(UNIT);
    awaited(&mut node);
    assert_eq!(node.phase(UNIT), phase);
}

/// The connection ended before the job did.
#[test]
fn a_start_whose_end_was_not_reported_shows_in_the_state() {
    let mut node = Node::start(kubelet(), &[(UNIT, ACTIVE)]);
    node.unit_is(FAILED);
    node.ends(Err(ECONNRESET), Some("activating job 7"));
    let sweep = after(&node, 61);
    node.tick_until(sweep);
    assert_eq!(node.writes_of(UNIT), 1);
    assert!(node.told().is_empty(), "{:?}", node.told());
    node.set(UNIT, Some(ACTIVE));
    let sweep = after(&node, 61);
    node.tick_until(sweep);
    assert_eq!(node.told(), ["restored unit/kubelet.service failed"]);
}

#[test]
fn a_job_of_somebody_else_is_no_drift_and_is_waited_for() {
    let mut node = Node::start(kubelet(), &[(UNIT, ACTIVE)]);
    for is in [
        "deactivating job 7",
        "inactive job 7",
        "activating job 7",
        "activating",
    ] {
        node.unit_is(is);
        assert_eq!(node.phase(UNIT), Phase::Waiting(Wait::Owner), "{is}");
        let sweep = after(&node, 61);
        node.tick_until(sweep);
        assert_eq!(node.phase(UNIT), Phase::Waiting(Wait::Owner), "{is}");
    }
    node.unit_is(ACTIVE);
    assert_eq!(node.phase(UNIT), Phase::Matching);
    // One that ends badly is one.
    node.unit_is("activating job 8");
    node.unit_is(FAILED);
    assert_eq!(node.writes_of(UNIT), 1);
    assert!(node.told().is_empty(), "{:?}", node.told());
}

/// Whatever the interval of full scans is.
#[test]
fn a_change_whose_end_is_not_reported_is_read() {
    let mut node = Node::start(kubelet(), &[(UNIT, ACTIVE)]);
    node.unit_is("deactivating job 7");
    node.set(UNIT, Some(ACTIVE));
    let later = after(&node, 11);
    node.tick_until(later);
    assert_eq!(node.phase(UNIT), Phase::Matching);
}

#[test]
fn a_start_that_fails_is_reported_once_and_tried_ever_more_rarely() {
    let mut node = Node::start(kubelet(), &[(UNIT, ACTIVE)]);
    node.unit_is(FAILED);
    let begun = node.now;
    while node.now < begun + Duration::from_secs(300) {
        while !node.waiting.is_empty() {
            node.unit_is("activating job 7");
            node.ends(Err(EIO), Some(FAILED));
            node.unit_is(FAILED);
        }
        let next = after(&node, 1);
        node.tick_until(next);
    }
    assert_eq!(node.told(), ["failed 5 unit/kubelet.service failed"]);
    // After 2, 4, 8, 16 and 32 s, then with each sweep.
    let writes = node.writes_of(UNIT);
    assert!((8..=11).contains(&writes), "{writes}: {:?}", node.writes);
    let within = |seconds| {
        let end = (begun + Duration::from_secs(seconds)).since(Monotonic::default());
        node.writes.iter().filter(|(at, _)| *at < end).count()
    };
    assert!(within(10) <= 4, "systemd's own limit is 5 in 10 s");
}

#[test]
fn a_unit_that_crashes_again_and_again_is_started_at_a_bounded_rate() {
    let mut node = Node::start(kubelet(), &[(UNIT, ACTIVE)]);
    let begun = node.now;
    while node.now < begun + Duration::from_secs(60) {
        node.unit_is(FAILED);
        while !node.waiting.is_empty() {
            node.ends(Ok(()), Some(ACTIVE));
        }
        let next = node.now + Duration::from_millis(100);
        node.tick_until(next);
    }
    let writes = node.writes_of(UNIT);
    assert!((25..=35).contains(&writes), "{writes}");
    let contended = "contended unit/kubelet.service failed".to_owned();
    assert!(node.told().contains(&contended), "{:?}", node.told());
}

#[test]
fn what_a_shutdown_refuses_is_no_failure() {
    let mut node = Node::start(kubelet(), &[(UNIT, ACTIVE)]);
    node.unit_is("inactive");
    node.ends(Err(EDEADLK), Some("inactive"));
    assert_eq!(node.phase(UNIT), Phase::Waiting(Wait::Owner));
    assert!(node.told().is_empty(), "{:?}", node.told());
    // The shutdown was cancelled.
    let later = after(&node, 3);
    node.tick_until(later);
    assert_eq!(node.writes_of(UNIT), 2);
    node.ends(Ok(()), Some(ACTIVE));
    assert_eq!(node.told(), ["restored unit/kubelet.service inactive"]);
}

#[test]
fn a_unit_that_is_not_there_or_masked_is_reported() {
    for (there, errno) in [(None, 2), (Some("inactive load masked"), 132)] {
        let mut node = Node::start(kubelet(), &[]);
        if let Some(there) = there {
            node = Node::start(kubelet(), &[(UNIT, there)]);
        }
        node.ends(Err(Errno(errno)), there);
        let is = there.unwrap_or("absent");
        let expected = format!("failed {errno} unit/kubelet.service {is}");
        assert_eq!(node.told(), [expected]);
        // It is installed, or unmasked and started.
        node.unit_is(ACTIVE);
        assert_eq!(node.phase(UNIT), Phase::Matching);
    }
}

#[test]
fn a_service_that_ends_is_not_started_again_and_again() {
    let mut node = Node::start(kubelet(), &[(UNIT, "inactive")]);
    node.ends(Ok(()), Some("inactive"));
    assert_eq!(node.phase(UNIT), Phase::Failed);
    assert_eq!(node.told(), ["failed unit/kubelet.service inactive"]);
    assert_eq!(node.writes_of(UNIT), 1);
}

#[test]
fn the_owner_goes_first_and_observe_starts_nothing() {
    let grace = Some(Duration::from_secs(10));
    let own = Invariant {
        grace,
        ..invariant(UNIT, ACTIVE)
    };
    let mut node = Node::start(vec![own], &[(UNIT, ACTIVE)]);
    node.unit_is(FAILED);
    let later = after(&node, 9);
    node.tick_until(later);
    assert_eq!(node.writes_of(UNIT), 0);
    node.unit_is("activating job 7");
    let later = after(&node, 9);
    node.tick_until(later);
    node.unit_is(ACTIVE);
    assert_eq!(node.phase(UNIT), Phase::Matching);
    node.unit_is(FAILED);
    let later = after(&node, 11);
    node.tick_until(later);
    assert_eq!(node.writes_of(UNIT), 1);

    let observed = Invariant {
        mode: Mode::Observe,
        ..invariant(UNIT, ACTIVE)
    };
    let mut node = Node::start(vec![observed], &[(UNIT, ACTIVE)]);
    for is in ["deactivating job 7", "inactive", "inactive"] {
        node.unit_is(is);
    }
    assert_eq!(node.told(), ["observed unit/kubelet.service inactive"]);
    assert_eq!(node.writes_of(UNIT), 0);
}

#[test]
fn a_start_is_reported_with_what_the_programs_answer_and_not_much_later() {
    let mut node = Node::start_with(kubelet(), &[(UNIT, ACTIVE)], true);
    assert_eq!(node.started(), None);
    let id = *node.watched.keys().next().expect("it is watched");
    let outcome = ReadOutcome::State(state(ACTIVE));
    node.event(Event::Read { id, outcome });
    assert_eq!(node.started(), Some((1, 0)));

    let mut node = Node::start_with(kubelet(), &[(UNIT, ACTIVE)], true);
    let later = after(&node, 3);
    node.tick_until(later);
    assert_eq!(node.started(), Some((0, 1)));
}

#[test]
fn a_module_is_loaded_before_its_keys_are_restored_and_units_started() {
    let all = vec![
        invariant(UNIT, ACTIVE),
        invariant(KEY, "1"),
        invariant(MODULE, LOADED),
    ];
    let mut node = Node::start(all, &[(UNIT, "inactive")]);
    let order: Vec<&str> = node.writes.iter().map(|(_, it)| it.as_str()).collect();
    assert_eq!(
        order,
        ["module/br_netfilter loaded", "unit/kubelet.service active"]
    );
    assert_eq!(node.phase(KEY), Phase::Pending);
    // Its keys begin with the kernel's defaults.
    node.set(KEY, Some("0"));
    node.ends(Ok(()), Some(LOADED));
    assert_eq!(node.phase(MODULE), Phase::Matching);
    // No uevent is needed.
    let now = node.now;
    node.tick_until(now);
    assert_eq!(node.there[&resource(KEY)], state("1"));
    node.ends(Ok(()), Some(ACTIVE));

    // It is removed, and its keys with it.
    node.set(MODULE, None);
    node.set(KEY, None);
    let name = "br_netfilter".to_owned();
    node.event(Event::ModuleRemoved { name: name.clone() });
    node.tick_until(now);
    assert_eq!(node.phase(KEY), Phase::Pending);
    node.set(KEY, Some("0"));
    node.set(MODULE, Some("loading"));
    node.event(Event::ModuleAdded { name });
    node.ends(Ok(()), Some(LOADED));
    node.tick_until(now);
    assert_eq!(node.there[&resource(KEY)], state("1"));
    let restored = [
        "restored module/br_netfilter absent",
        "restored net.bridge.bridge-nf-call-iptables 0",
        "restored unit/kubelet.service inactive",
        "restored module/br_netfilter absent",
        "restored net.bridge.bridge-nf-call-iptables 0",
    ];
    let mut told = node.told();
    told.sort();
    let mut expected = restored.map(str::to_owned);
    expected.sort();
    assert_eq!(told, expected);
}
