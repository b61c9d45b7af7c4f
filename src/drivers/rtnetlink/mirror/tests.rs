//! The mirror against a kernel of a few lines, which reports some changes only.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::drivers::rtnetlink::codec::{How, Request};
use crate::netlink::push;
use crate::resource::Name;

const LINKS: u32 = 3;

fn name(index: u32) -> Name {
    format!("eth{index}").as_str().into()
}

/// `RTM_NEWLINK` or `RTM_DELLINK`.
fn link(kind: u16, index: u32, up: bool) -> Vec<u8> {
    let mut body = vec![0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8] = u8::from(up);
    push(&mut body, 3, format!("eth{index}\0").as_bytes());
    packed(kind, 0, &body)
}

fn packed(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).expect("short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind, flags].map(u16::to_ne_bytes).concat());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn notification(request: &Request) -> Vec<u8> {
    let message = request.notification();
    packed(message.kind, message.flags, message.payload)
}

fn resource(text: &str) -> Resource {
    Resource::parse(text).expect(text)
}

fn route(number: u8) -> Resource {
    resource(&format!("route/main/10.0.{number}.0/24"))
}

fn neighbour(number: u8, dev: Name) -> Resource {
    resource(&format!("neighbour/{dev}/10.9.9.{number}"))
}

fn rule(number: u32) -> Resource {
    resource(&format!("rule/ipv4/{number}/table=200"))
}

fn state(text: &str) -> State {
    State::parse(text).expect(text)
}

fn route_state(dev: &Name) -> State {
    state(&format!("type unicast dev {dev} scope link protocol 4"))
}

fn multipath_state() -> State {
    let hops = "nexthops dev eth1 weight 1 nexthop dev eth2 weight 1";
    state(&format!("type unicast {hops} scope link protocol 4"))
}

fn neighbour_state() -> State {
    state("nud permanent")
}

/// What there is, and the notifications that were sent and not yet read.
#[derive(Default)]
struct Kernel {
    links: Links,
    up: BTreeMap<u32, bool>,
    there: BTreeMap<Resource, State>,
    queue: VecDeque<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Route(u8, u32),
    /// Over the first two links.
    Multipath(u8),
    DeleteRoute(u8),
    Neighbour(u8, u32),
    DeleteNeighbour(u8, u32),
    Rule(u32),
    DeleteRule(u32),
    Link(u32, bool),
    DeleteLink(u32),
    /// The loop reads so many notifications.
    Receive(usize),
    /// The next step of a dump.
    Dump,
    Lose,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..6u8, 1..=LINKS).prop_map(|(n, on)| Act::Route(n, on)),
        1 => (0..6u8).prop_map(Act::Multipath),
        2 => (0..6u8).prop_map(Act::DeleteRoute),
        1 => (0..3u8, 1..=LINKS).prop_map(|(n, on)| Act::Neighbour(n, on)),
        1 => (0..3u8, 1..=LINKS).prop_map(|(n, on)| Act::DeleteNeighbour(n, on)),
        1 => (0..3u32).prop_map(Act::Rule),
        1 => (0..3u32).prop_map(Act::DeleteRule),
        3 => (1..=LINKS, any::<bool>()).prop_map(|(n, up)| Act::Link(n, up)),
        1 => (1..=LINKS).prop_map(Act::DeleteLink),
        6 => (0..6usize).prop_map(Act::Receive),
        10 => Just(Act::Dump),
        1 => Just(Act::Lose),
    ];
    prop::collection::vec(act, 0..150)
}

impl Kernel {
    fn put(&mut self, resource: Resource, state: State, how: How) {
        let requests = codec::write(&resource, &state, how, &self.links).expect("requests");
        self.queue.extend(requests.iter().map(notification));
        self.there.insert(resource, state);
    }

    fn delete(&mut self, resource: &Resource) {
        if let Some(state) = self.there.remove(resource) {
            // What ends is reported with its attributes.
            let requests = codec::write(resource, &state, How::Create, &self.links);
            let message = requests.expect("requests")[0].clone();
            let notification = message.notification();
            self.queue
                .push_back(packed(notification.kind + 1, 0, notification.payload));
        }
    }

    /// A route over several goes with the last that is up, or with one that is deleted.
    fn flush(&mut self, dev: &Name, is_deleted: bool) {
        let (links, up) = (&self.links, &self.up);
        let is_up = |name: &str| {
            let index = links.index(&name.into());
            index.is_some_and(|index| up.get(&index) == Some(&true))
        };
        let is = |it: &Resource, state: &State| {
            let of_link = state.interfaces().any(|name| name == dev.as_str());
            matches!(it, Resource::Route(_))
                && of_link
                && (is_deleted || !state.interfaces().any(is_up))
        };
        self.there.retain(|resource, state| !is(resource, state));
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Route(n, on) if self.up.get(&on) == Some(&true) => {
                let (resource, state) = (route(n), route_state(&name(on)));
                self.put(resource, state, How::Replace);
            }
            Act::Multipath(n) if [1, 2].iter().all(|on| self.up.get(on) == Some(&true)) => {
                self.put(route(n), multipath_state(), How::Replace);
            }
            Act::DeleteRoute(n) => self.delete(&route(n)),
            Act::Neighbour(n, on) if self.up.contains_key(&on) => {
                self.put(neighbour(n, name(on)), neighbour_state(), How::Replace);
            }
            Act::DeleteNeighbour(n, on) => self.delete(&neighbour(n, name(on))),
            Act::Rule(n) if !self.there.contains_key(&rule(n)) => {
                self.put(rule(n), State::with(Vec::new()), How::Create);
            }
            Act::DeleteRule(n) => self.delete(&rule(n)),
            Act::Link(index, up) => {
                let (name, was) = (name(index), self.up.insert(index, up));
                self.links.insert(
                    index,
                    Link {
                        name: name.clone(),
                        up,
                    },
                );
                self.queue.push_back(link(NEW_LINK, index, up));
                if was == Some(true) && !up {
                    self.flush(&name, false);
                }
            }
            Act::DeleteLink(index) if self.up.remove(&index).is_some() => {
                self.flush(&name(index), true);
                // Without a word, too.
                let of =
                    |it: &Resource| matches!(it, Resource::Neighbour(n) if n.dev == name(index));
                self.there.retain(|resource, _| !of(resource));
                self.queue.push_back(link(DEL_LINK, index, false));
                self.links.remove(index);
            }
            _ => {}
        }
    }

    /// What a dump lists after `last`, and the last of that.
    fn part(&self, listing: Listing, last: Option<&Resource>) -> Vec<(Resource, Vec<u8>)> {
        let links = self
            .up
            .iter()
            .map(|(index, up)| (Resource::Link(name(*index)), link(NEW_LINK, *index, *up)));
        let others = self.there.iter().map(|(resource, state)| {
            let requests = codec::write(resource, state, How::Create, &self.links);
            (
                resource.clone(),
                notification(&requests.expect("requests")[0]),
            )
        });
        let of = links
            .chain(others)
            .filter(|it| Listing::of(&it.0) == Some(listing));
        of.filter(|it| last.is_none_or(|last| it.0 > *last))
            .take(2)
            .collect()
    }
}

/// A mirror, and the dump that is under way.
struct Guard {
    mirror: Mirror,
    dump: Option<(Listing, Option<Resource>)>,
    changed: Vec<Resource>,
    /// What was reported to have changed, as it was then.
    reported: BTreeMap<Resource, Option<State>>,
}

impl Guard {
    fn receive(&mut self, kernel: &mut Kernel, at_most: usize) {
        for _ in 0..at_most {
            let Some(bytes) = kernel.queue.pop_front() else {
                break;
            };
            for message in codec::messages(&bytes) {
                self.mirror.apply(&message, &mut self.changed);
            }
        }
        self.report();
    }

    fn step(&mut self, kernel: &Kernel) -> bool {
        let Some((listing, last)) = self.dump.take() else {
            self.dump = self.mirror.next_dump().map(|listing| (listing, None));
            if let Some((listing, _)) = self.dump {
                self.mirror.begin(listing);
            }
            return self.dump.is_some();
        };
        let part = kernel.part(listing, last.as_ref());
        for (_, bytes) in &part {
            for message in codec::messages(bytes) {
                self.mirror.part(listing, &message, &mut self.changed);
            }
        }
        match part.last() {
            Some((last, _)) => self.dump = Some((listing, Some(last.clone()))),
            None => {
                self.mirror.end(listing, true, &mut self.changed);
                while !self.mirror.settle(listing, 2, &mut self.changed) {}
            }
        }
        self.report();
        true
    }

    fn report(&mut self) {
        for resource in self.changed.drain(..) {
            let state = self.mirror.state(&resource);
            self.reported.insert(resource, state);
        }
    }
}

proptest! {
    #[test]
    fn the_mirror_has_what_the_kernel_has(acts in acts()) {
        let routes = Listing::Routes(Family::Ipv4);
        let used = [routes, Listing::Neighbours, Listing::Rules(Family::Ipv4)];
        let mirror = Mirror::new(&used, Box::new(|_, _| true));
        let (dump, changed, reported) = (None, Vec::new(), BTreeMap::new());
        let mut guard = Guard { mirror, dump, changed, reported };
        let mut kernel = Kernel::default();
        for act in acts {
            match act {
                Act::Receive(at_most) => guard.receive(&mut kernel, at_most),
                Act::Dump => drop(guard.step(&kernel)),
                Act::Lose => {
                    kernel.queue.clear();
                    guard.mirror.overrun();
                }
                act => kernel.act(act),
            }
        }
        guard.receive(&mut kernel, usize::MAX);
        while guard.step(&kernel) {}
        for listing in used {
            prop_assert!(guard.mirror.is_in_sync(listing), "{listing:?}");
            let there = kernel.there.iter().filter(|it| Listing::of(it.0) == Some(listing));
            let there: BTreeMap<_, _> = there.map(|it| (it.0.clone(), it.1.clone())).collect();
            let list = guard.mirror.list(listing);
            let known = list.map(|it| (it.clone(), guard.mirror.state(it).expect("a state")));
            prop_assert_eq!(known.collect::<BTreeMap<_, _>>(), there);
        }
        // Whoever follows what is reported knows it too.
        for (resource, state) in guard.reported {
            prop_assert_eq!(state, guard.mirror.state(&resource), "{}", resource);
        }
        for resource in kernel.there.keys() {
            prop_assert_eq!(guard.mirror.copies(resource), 1);
        }
    }
}

/// Thousands of links go down one after the other.
#[test]
fn a_link_that_goes_down_has_no_other_routes_read_again() {
    for is_dumping in [false, true] {
        let routes = Listing::Routes(Family::Ipv4);
        let mirror = Mirror::new(&[routes], Box::new(|_, _| true));
        let (dump, changed, reported) = (None, Vec::new(), BTreeMap::new());
        let mut guard = Guard {
            mirror,
            dump,
            changed,
            reported,
        };
        let mut kernel = Kernel::default();
        for index in [1, 2] {
            kernel.act(Act::Link(index, true));
        }
        for (number, over) in [(0, 1), (1, 1), (2, 2)] {
            kernel.act(Act::Route(number, over));
        }
        guard.receive(&mut kernel, usize::MAX);
        while guard.step(&kernel) {}
        if is_dumping {
            guard.mirror.suspect(routes);
            guard.step(&kernel);
        }
        let stale = kernel.part(routes, None);
        kernel.act(Act::Link(1, false));
        guard.receive(&mut kernel, usize::MAX);
        for (_, bytes) in stale.iter().filter(|_| is_dumping) {
            for message in codec::messages(bytes) {
                guard.mirror.part(routes, &message, &mut guard.changed);
            }
        }
        if is_dumping {
            while guard.dump.is_some() {
                guard.step(&kernel);
            }
        }
        assert_eq!(guard.mirror.next_dump(), None);
        assert!(guard.mirror.is_in_sync(routes));
        let left: Vec<_> = guard.mirror.list(routes).cloned().collect();
        assert_eq!(left, [route(2)]);
        assert_eq!(guard.reported[&route(0)], None);
    }
}
