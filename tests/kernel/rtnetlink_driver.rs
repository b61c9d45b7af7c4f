//! The rtnetlink driver on the real kernel: what it detects, what it reads and what it
//! writes, also where the kernel reports nothing.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::future::poll_fn;
use std::io::Write as _;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netguard::clock;
use netguard::drivers::Driver;
use netguard::drivers::rtnetlink::codec::{self, How, Listing};
use netguard::drivers::rtnetlink::{Change, ChangedBy, Network, News, Rtnetlink};
use netguard::engine::{Errno, Event, ReadOutcome, ValueId};
use netguard::model::Interest;
use netguard::model::{Family, Monotonic, WriterId};
use netguard::resource::{Attribute, Group, Resource, State};
use netguard::sys::rtnl::Demand;
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use tokio::runtime::{self, Runtime};

use super::namespace::{ip, run};
use super::rtnetlink::{Rtnl, is_kernels, uplinks};

const PATIENCE: Duration = Duration::from_secs(20);
const ROUTES: Listing = Listing::Routes(Family::Ipv4);
const RULES: Listing = Listing::Rules(Family::Ipv4);

/// A moment of this thread, to measure how long it sleeps.
struct Awake {
    asleep: Duration,
    switches: usize,
}

impl Awake {
    fn now() -> Awake {
        Awake {
            asleep: asleep(),
            switches: getrusage(UsageWho::RUSAGE_THREAD)
                .expect("usage")
                .voluntary_context_switches() as usize,
        }
    }

    /// How long it has slept since. One that was never switched off by itself has not: a
    /// hypervisor may have stopped the processor meanwhile.
    fn slept(&self) -> Duration {
        let now = Awake::now();
        match now.switches == self.switches {
            true => Duration::ZERO,
            false => now.asleep.saturating_sub(self.asleep),
        }
    }
}

/// How long this thread has neither run nor been ready to, up to a moment ago.
fn asleep() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let mut ran_and_waited = text.split_whitespace().take(2).map(str::parse::<u64>);
    let sum = ran_and_waited.try_fold(0, |sum, part| part.map(|part| sum + part));
    let now = clock::now().since(Monotonic::default());
    now.saturating_sub(Duration::from_nanos(sum.expect("numbers")))
}

/// A driver, and the loop that it runs on.
struct Driven {
    runtime: Runtime,
    driver: Rtnetlink,
    /// The longest that it kept the loop busy, and that the loop slept in it.
    longest: Duration,
    slept: Duration,
}

impl Driven {
    /// Watches these listings of this thread's namespace; all of them are known.
    fn start(listings: &[Listing]) -> Driven {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let within = runtime.enter();
        let kept = |resource: &Resource, state: &State| !is_kernels(resource, state);
        let driver = Rtnetlink::open(listings, Box::new(kept), Demand::default()).expect("sockets");
        drop(within);
        let (longest, slept) = (Duration::ZERO, Duration::ZERO);
        let mut driven = Driven {
            runtime,
            driver,
            longest,
            slept,
        };
        driven.until(|driver, _| {
            listings
                .iter()
                .all(|listing| driver.list(*listing).is_some())
        });
        driven
    }

    fn next(&mut self) -> News {
        let (driver, longest) = (&mut self.driver, &mut self.longest);
        let slept = &mut self.slept;
        self.runtime.block_on(async {
            let mut news = pin!(driver.news());
            let measured = poll_fn(|context| {
                let (began, busy) = (Awake::now(), clock::of_this_thread());
                let polled = news.as_mut().poll(context);
                *longest = (*longest).max(clock::of_this_thread() - busy);
                *slept = (*slept).max(began.slept());
                polled
            });
            let news = tokio::time::timeout(PATIENCE, measured).await;
            news.expect("nothing happens").expect("a socket")
        })
    }

    /// Takes in news until `is_it`, and returns all of it.
    fn until(&mut self, is_it: impl Fn(&Rtnetlink, &News) -> bool) -> Vec<News> {
        let deadline = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        loop {
            let news = self.next();
            let found = is_it(&self.driver, &news);
            all.push(news);
            if found {
                return all;
            }
            let last = all.iter().rev().take(30).collect::<Vec<_>>();
            assert!(Instant::now() < deadline, "{last:#?}");
        }
    }

    /// Takes in all that has been reported up to now. The answer to a write comes after it.
    fn settle(&mut self) -> Vec<News> {
        let lo = Resource::Link("lo".into());
        let up = state("up true");
        self.driver.write(&lo, Some(&up));
        self.until(|_, news| matches!(news, News::Written { resource, .. } if *resource == lo))
    }

    fn read(&mut self, resource: &Resource) -> Option<State> {
        if let Some(state) = self.driver.read(resource) {
            return state;
        }
        let is = |news: &News| matches!(news, News::Read { resource: of, .. } if of == resource);
        match self.until(|_, news| is(news)).pop() {
            Some(News::Read { state, .. }) => state,
            _ => None,
        }
    }

    fn write(&mut self, resource: &Resource, state: Option<&State>) -> Result<(), Errno> {
        let began = Awake::now();
        self.driver.write(resource, state);
        self.slept = self.slept.max(began.slept());
        let is = |news: &News| matches!(news, News::Written { resource: of, .. } if of == resource);
        match self.until(|_, news| is(news)).pop() {
            Some(News::Written { result, .. }) => result,
            _ => unreachable!(),
        }
    }

    fn all(&mut self, listings: &[Listing]) -> BTreeMap<Resource, Option<State>> {
        let listed = listings
            .iter()
            .flat_map(|listing| self.driver.list(*listing).expect("in sync"));
        let listed: Vec<_> = listed.collect();
        let state = |it: Resource| (it.clone(), self.driver.read(&it).expect("in sync"));
        listed.into_iter().map(state).collect()
    }
}

fn resource(text: &str) -> Resource {
    Resource::parse(text).expect(text)
}

fn route(to: &str) -> Resource {
    resource(&format!("route/main/{to}"))
}

fn rule(priority: u32) -> Resource {
    resource(&format!("rule/ipv4/{priority}/table=200"))
}

fn state(text: &str) -> State {
    State::parse(text).expect(text)
}

/// Has ip(8) do each line.
fn batch(lines: &str) {
    let mut command = Command::new("ip");
    let command = command.args(["-batch", "-"]).stdin(Stdio::piped());
    let mut child = command.spawn().expect("iproute2");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(lines.as_bytes()).expect("it reads");
    drop(input);
    assert!(child.wait().expect("it ends").success());
}

fn changes<'a>(news: &'a [News], of: &Resource) -> Vec<&'a News> {
    let is = |news: &&News| matches!(news, News::Changed(resource, _) if resource == of);
    news.iter().filter(is).collect()
}

#[test]
fn what_is_reported_is_what_is_listed() {
    uplinks();
    let mut driven = Driven::start(&Listing::ALL);
    for line in [
        "link add cni0 type bridge",
        "link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 nolearning",
        "link set eth1 master cni0 mtu 1400",
        "link set cni0 up",
        "addr add 10.50.1.1/24 brd + dev eth0 label eth0:1",
        "addr add 10.50.2.1 peer 10.50.2.2/32 dev eth0",
        "route add default via 10.39.0.1",
        "route add 192.168.5.0/24 via 10.39.0.1 src 10.39.0.110 mtu lock 1400",
        "route append 192.168.5.0/24 via 10.39.0.2",
        "route add 192.168.6.0/24 table 5000 nexthop via 10.39.0.1 weight 3 nexthop via 10.39.0.2",
        "route change 192.168.6.0/24 via 10.39.0.3 table 5000",
        "route add 192.168.7.0/24 via 10.39.0.3",
        "route del 192.168.7.0/24",
        "-6 route add 2001:db8:13::/48 nexthop via 2001:db8:1::1 nexthop via 2001:db8:1::2 weight 2",
        "-6 route append 2001:db8:13::/48 via 2001:db8:1::3",
        "-6 route del 2001:db8:13::/48 via 2001:db8:1::2",
        "-6 route add 2001:db8:14::/48 via 2001:db8:1::1",
        "-6 route append 2001:db8:14::/48 via 2001:db8:1::2",
        "-6 route add blackhole 2001:db8:15::/48",
        "rule add from 10.39.0.0/24 table 200 priority 100",
        "rule add fwmark 1/7 table 201 priority 101",
        "rule del priority 101",
        "-6 rule add from 2001:db8::/32 table 200 priority 100",
        "neigh add 169.254.1.1 lladdr 46:2a:0d:29:d1:eb dev eth0",
        "neigh add 169.254.1.2 lladdr 46:2a:0d:29:d1:eb dev eth0",
        "neigh replace 169.254.1.2 lladdr 46:2a:0d:29:d1:ec dev eth0 nud stale",
        "neigh add 169.254.1.3 lladdr 46:2a:0d:29:d1:eb dev eth0",
        "neigh del 169.254.1.3 dev eth0",
    ] {
        ip(line);
    }
    for line in [
        "fdb add 46:2a:0d:29:d1:eb dev flannel.1 dst 10.39.0.7",
        "fdb replace 46:2a:0d:29:d1:eb dev flannel.1 dst 10.39.0.8",
        "fdb append 00:00:00:00:00:00 dev flannel.1 dst 10.39.0.7",
        "fdb append 00:00:00:00:00:00 dev flannel.1 dst 10.39.0.8",
        "fdb append 00:00:00:00:00:00 dev flannel.1 dst 10.39.0.9",
        "fdb del 00:00:00:00:00:00 dev flannel.1 dst 10.39.0.8",
        "fdb add 46:2a:0d:29:d1:ee dev eth1 master static",
        "fdb add 46:2a:0d:29:d1:ef dev eth1 master static",
        "fdb del 46:2a:0d:29:d1:ef dev eth1 master",
    ] {
        run("bridge", &line.split(' ').collect::<Vec<_>>());
    }
    driven.settle();
    while Listing::ALL
        .iter()
        .any(|listing| driven.driver.list(*listing).is_none())
    {
        driven.next();
    }
    let told = driven.all(&Listing::ALL);
    let listed = Driven::start(&Listing::ALL).all(&Listing::ALL);
    assert_eq!(told, listed);
    assert!(told.len() > 20, "{told:#?}");
}

#[test]
fn the_writer_of_a_route_is_named_by_the_port_that_asked() {
    uplinks();
    let mut driven = Driven::start(&[ROUTES]);
    let lost = route("192.168.5.0/24");
    let kept = state("via 10.39.0.1 dev eth0");
    assert_eq!(driven.write(&lost, Some(&kept)), Ok(()));
    let known = driven.read(&lost).expect("it is there");
    let mut command = Command::new("ip");
    let mut child = command
        .args(["route", "del", "192.168.5.0/24"])
        .spawn()
        .expect("ip");
    let pid = child.id();
    assert!(child.wait().expect("it ends").success());
    let news = driven.settle();
    let told = changes(&news, &lost);
    let [News::Changed(_, Change { by, .. })] = told[..] else {
        panic!("{news:#?}")
    };
    assert_eq!(*by, ChangedBy::Process(WriterId::Port(pid)));
    assert_eq!(driven.driver.read(&lost), Some(None));
    assert_eq!(driven.write(&lost, Some(&known)), Ok(()));
    assert_eq!(
        driven.driver.read(&lost),
        Some(Some(known.clone())),
        "read back at once"
    );
    // Somebody else was faster, and the guard does not know yet.
    ip("route del 192.168.5.0/24");
    driven.settle();
    ip("route add 192.168.5.0/24 via 10.39.0.9");
    assert_eq!(driven.write(&lost, Some(&known)), Err(Errno(libc::EEXIST)));
    let other = driven.read(&lost).expect("another's");
    assert_eq!(
        other
            .get(Attribute::Via)
            .map(ToString::to_string)
            .as_deref(),
        Some("10.39.0.9")
    );
    let nowhere = state("dev eth7");
    assert_eq!(
        driven.write(&lost, Some(&nowhere)),
        Err(Errno(libc::ENODEV))
    );
    assert_eq!(driven.write(&lost, None), Ok(()));
    assert_eq!(driven.driver.read(&lost), Some(None));
}

#[test]
fn routes_that_vanish_without_a_word_are_missed() {
    uplinks();
    ip("nexthop add id 7 via 10.40.0.1 dev eth1");
    for line in [
        "route add 192.168.5.0/24 via 10.39.0.1",
        "route add 192.168.6.0/24 via 10.39.0.1 table 200",
        "route add 192.168.7.0/24 via 10.40.0.1",
        "route add 192.168.8.0/24 nhid 7",
        "-6 route add 2001:db8:13::/48 via 2001:db8:1::1",
    ] {
        ip(line);
    }
    let listings = [
        ROUTES,
        Listing::Routes(Family::Ipv6),
        Listing::Neighbours,
        Listing::Addresses,
    ];
    let mut driven = Driven::start(&listings);
    let before = driven.all(&listings);
    let over = |dev: &str| -> Vec<Resource> {
        let on = |state: &Option<State>| {
            let dev_of = state.as_ref().and_then(|it| it.get(Attribute::Dev));
            dev_of.is_some_and(|it| it.as_str() == dev)
        };
        before
            .iter()
            .filter(|it| on(it.1))
            .map(|it| it.0.clone())
            .collect()
    };
    let (over_eth0, over_eth1) = (over("eth0"), over("eth1"));
    assert_eq!((over_eth0.len(), over_eth1.len()), (3, 2), "{before:#?}");

    ip("link set eth0 down");
    let mut news = driven.until(|driver, _| {
        let gone = |it: &Resource| driver.read_now(it) == Some(None);
        over_eth0.iter().all(gone)
    });
    news.extend(driven.settle());
    assert!(
        over_eth0.iter().all(|it| !changes(&news, it).is_empty()),
        "{news:#?}"
    );
    ip("link set eth0 up");
    for resource in &over_eth0 {
        if matches!(resource, Resource::Route(it) if it.to.family() == Family::Ipv4) {
            assert_eq!(driven.write(resource, before[resource].as_ref()), Ok(()));
            assert_eq!(driven.read(resource), before[resource]);
        }
    }

    // The object takes its route along.
    ip("nexthop del id 7");
    let of_object = route("192.168.8.0/24");
    driven.until(|driver, _| driver.read_now(&of_object) == Some(None));
    // And the last address of a link all of its routes.
    ip("addr del 10.40.0.110/24 dev eth1");
    let last = route("192.168.7.0/24");
    driven.until(|driver, _| driver.read_now(&last) == Some(None));

    ip("link del eth0");
    let left = |it: &Resource| it.to_string().contains("/eth0/");
    driven.until(|driver, _| {
        let lists = listings.iter().map(|listing| driver.list(*listing));
        lists
            .into_iter()
            .all(|list| list.is_some_and(|list| !list.iter().any(left)))
    });
}

/// However much is still to be read when a dump does not list it any more.
#[test]
fn who_removed_a_route_is_known_though_a_dump_is_faster() {
    uplinks();
    ip("route add 192.168.5.0/24 via 10.39.0.1");
    let mut driven = Driven::start(&[ROUTES]);
    let other = "172.16.0.1 dev eth0";
    let lines = format!("route add {other}\nroute del {other}\n").repeat(2_000);
    driven.driver.recheck(ROUTES);
    batch(&(lines + "route del 192.168.5.0/24"));
    let lost = route("192.168.5.0/24");
    let is_of_lost = |news: &News| matches!(news, News::Changed(it, _) if *it == lost);
    let news = driven.until(|_, news| is_of_lost(news));
    let Some(News::Changed(_, change)) = news.last() else {
        panic!("{news:#?}")
    };
    assert!(
        matches!(change.by, ChangedBy::Process(WriterId::Port(_))),
        "{change:?}"
    );
}

#[test]
fn a_flood_is_recovered_from_and_keeps_nothing_waiting() {
    const COUNT: usize = 60_000;
    uplinks();
    let mut driven = Driven::start(&[ROUTES]);
    let mut lines = String::new();
    for i in 0..COUNT {
        let _ = writeln!(lines, "route add 172.16.{}.{} dev eth0", i / 250, i % 250);
    }
    // The loop receives nothing of it.
    batch(&lines);
    let news = driven.until(|driver, news| {
        let is_whole = |list: Vec<Resource>| list.len() == COUNT;
        matches!(news, News::InSync(_)) && driver.list(ROUTES).is_some_and(is_whole)
    });
    assert!(news.contains(&News::Overrun), "a larger flood is needed");
    assert!(!changes(&news, &route("172.16.239.249/32")).is_empty());

    // All vanish immediately, and are written back.
    driven.longest = Duration::ZERO;
    ip("link set eth0 down");
    driven.until(|driver, news| {
        let is_empty = |list: Vec<Resource>| list.is_empty();
        matches!(news, News::InSync(_)) && driver.list(ROUTES).is_some_and(is_empty)
    });
    ip("link set eth0 up");
    let bar = if cfg!(debug_assertions) { 20 } else { 1 };
    let longest = driven.longest;
    assert!(longest < Duration::from_millis(bar), "{longest:?}");
}

#[test]
fn a_write_that_waits_for_the_lock_does_not_hold_up_the_loop() {
    uplinks();
    let mut lines = String::new();
    for i in 0..200 {
        let _ = writeln!(lines, "link add v{i} group 7 type veth peer name w{i}");
    }
    batch(&lines);
    let mut driven = Driven::start(&[ROUTES]);
    let to_eth0 = state("dev eth0");
    ip("link set v0 up");
    driven.settle();
    driven.slept = Duration::ZERO;
    // The lock is held until all of them are gone.
    let mut command = Command::new("ip");
    let mut child = command
        .args(["link", "del", "group", "7"])
        .spawn()
        .expect("ip");
    let mut slowest = Duration::ZERO;
    for i in 0.. {
        let began = Instant::now();
        let resource = route(&format!("172.16.{}.{}", i / 250, i % 250));
        assert_eq!(driven.write(&resource, Some(&to_eth0)), Ok(()));
        slowest = slowest.max(began.elapsed());
        if child.try_wait().expect("a child").is_some() {
            break;
        }
    }
    assert!(
        slowest > Duration::from_millis(10),
        "it had nothing to wait for: {slowest:?}"
    );
    assert!(
        driven.slept < Duration::from_millis(50),
        "{:?}",
        driven.slept
    );
}

#[test]
fn a_copy_of_a_rule_that_was_written_twice_is_deleted() {
    uplinks();
    let mut driven = Driven::start(&[RULES]);
    let (ours, theirs) = (rule(100), rule(101));
    let links = Rtnl::open(0).links();
    let add = |resource: &Resource| {
        // As a kernel takes it that does not check: without NLM_F_EXCL.
        let how = codec::write(resource, &State::with(Vec::new()), How::Create, &links);
        Rtnl::open(0)
            .request(&how.expect("requests")[0].clone().unchecked())
            .expect("a copy");
    };
    add(&theirs);
    add(&theirs);
    let rules = || {
        let output = Command::new("ip").args(["rule"]).output().expect("ip");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    driven.driver.write(&ours, Some(&State::with(Vec::new())));
    while !rules().contains("100:") {
        std::thread::yield_now();
    }
    add(&ours);
    driven.until(|driver, _| driver.copies(&ours) == 2);
    // By the thread, which nobody waits for.
    let deadline = Instant::now() + PATIENCE;
    while driven.driver.copies(&ours) > 1 {
        assert!(Instant::now() < deadline, "{}", rules());
        driven.settle();
    }
    assert_eq!(rules().matches("100:").count(), 1, "{}", rules());
    assert_eq!(rules().matches("101:").count(), 2, "{}", rules());
}

/// The next event.
async fn next(network: &mut Network) -> Event {
    loop {
        if let Some((event, _)) = network.event().await {
            return event;
        }
    }
}

#[test]
fn the_engine_is_given_what_it_watches_and_what_it_preserves() {
    uplinks();
    ip("link add cali0 type veth peer name pod0");
    ip("link set cali0 up");
    ip("link set pod0 up");
    ip("route add 192.168.4.25 dev cali0");
    ip("route add 192.168.5.0/24 dev eth0");
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let mut network = Network::new(Demand::default());
        let named = route("192.168.9.0/24");
        let group = Group::parse("route/dev=cali*").expect("a group");
        network.set_interest(Interest {
            named: HashSet::from([named.clone()]),
            groups: vec![Arc::new(group)],
        });
        let id = ValueId::new(0, 0);
        let mut news = Vec::new();
        network.watch(id, &named, true, &mut news);
        network.read(id, &mut news);
        assert_eq!(news, [], "nothing is known yet");

        // What a group has appears, and no more.
        let absent = Event::Read {
            id,
            outcome: ReadOutcome::Absent,
        };
        let first = [next(&mut network).await, next(&mut network).await];
        assert!(first.contains(&absent), "{first:?}");
        let appeared = first.into_iter().find_map(|event| match event {
            Event::Appeared { key, state } => Some((key, state)),
            _ => None,
        });
        let (pod, kept) = appeared.expect("a route over cali0");
        assert_eq!(pod, route("192.168.4.25/32"));
        while !network.is_in_sync() {
            assert_eq!(network.event().await, None);
        }

        let of_pod = ValueId::new(1, 0);
        network.watch(of_pod, &pod, false, &mut news);
        let mut command = Command::new("ip");
        let child = command.args(["route", "del", "192.168.4.25"]).spawn();
        let mut child = child.expect("ip");
        let Event::Hint { key, writer, .. } = next(&mut network).await else {
            panic!("it was deleted");
        };
        assert_eq!(key, pod);
        let id = writer.map(|it| it.id);
        assert_eq!(id, Some(WriterId::Port(child.id())));
        child.wait().expect("it ends");
        network.write(of_pod, &kept, &mut news);
        network.read(of_pod, &mut news);
        assert_eq!(news, [], "it is read when it is written");
        let written = Event::Written {
            id: of_pod,
            result: Ok(()),
        };
        assert_eq!(next(&mut network).await, written);
        network.read(of_pod, &mut news);
        let read = match news.pop() {
            Some(read) => read,
            // It is still being listed.
            None => next(&mut network).await,
        };
        let outcome = ReadOutcome::State(kept);
        let expected = Event::Read {
            id: of_pod,
            outcome,
        };
        assert_eq!(read, expected);
    });
}
