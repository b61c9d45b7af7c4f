//! Reported writers: each drift once, in order, and no name without
//! a detected write.

use std::time::Duration;

use netguard::engine::{Drift, Event, Record};
use netguard::model::{Attribution, Source, Unknown, Writer, WriterId};

use crate::world::{Kernel, World, key, process, settings, writer};

const IP_FORWARD: &str = "net.ipv4.ip_forward";
/// As long as a drift waits for its write to be detected.
const DETECTION: Duration = Duration::from_millis(20);

/// A world with fanotify whose questions the test answers.
fn listening(invariants: &[(&str, &str)], kernel: Kernel) -> World {
    let mut world = World::new(settings(invariants), kernel);
    world.event(Event::SourceRecovered {
        source: Source::Fanotify,
    });
    world.event(Event::Start);
    world.questions = Some(Vec::new());
    world
}

fn forwarding() -> World {
    listening(&[(IP_FORWARD, "1")], Kernel::new(&["eth0"]))
}

fn writers(world: &World) -> Vec<Attribution> {
    world.restored().iter().map(|d| d.writer.clone()).collect()
}

fn unknown(reason: Unknown) -> Attribution {
    Attribution::Unknown(reason)
}

#[test]
fn what_netconf_reported_first_waits_for_its_writer_and_is_restored_meanwhile() {
    let mut world = forwarding();
    let before = world.now;
    world.foreign(IP_FORWARD, "0");
    assert_eq!(world.kernel.get(IP_FORWARD), Some("1"));
    assert!(world.restored().is_empty(), "told without its writer");
    let restored_by = world.now;
    world.pass(Duration::from_micros(50));
    world.touched(IP_FORWARD, 4711);
    world.answer(|question| {
        assert!(question.by >= before && question.by <= restored_by);
        process(question.pid)
    });
    assert_eq!(writers(&world), [process(4711)]);
    assert_eq!(world.restored()[0].source, Source::Netconf);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.restored().len(), 1, "told once");
}

#[test]
fn without_a_word_of_a_write_the_reason_is_reported() {
    let mut world = forwarding();
    world.foreign(IP_FORWARD, "0");
    world.pass(DETECTION);
    assert_eq!(writers(&world), [unknown(Unknown::NotReported)]);
    // What is found later had its write detected by then.
    let mut world = forwarding();
    let _ = world.foreign_unheard(IP_FORWARD, "0");
    world.pass(Duration::from_secs(61));
    assert_eq!(writers(&world), [unknown(Unknown::NotDetected)]);
    let mut world = forwarding();
    world.foreign(IP_FORWARD, "0");
    let id = WriterId::Outside;
    world.touched_by(IP_FORWARD, Writer { id, ..writer(1) });
    assert_eq!(writers(&world), [unknown(Unknown::Outside)]);
    let mut world = World::started(settings(&[(IP_FORWARD, "1")]), Kernel::new(&[]));
    world.foreign(IP_FORWARD, "0");
    assert_eq!(writers(&world), [unknown(Unknown::NotWatching)]);
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for_for_ever() {
    let mut world = forwarding();
    world.foreign_by(IP_FORWARD, "0", 4711);
    assert!(world.restored().is_empty());
    world.pass(Duration::from_millis(250));
    let pid = 4711;
    assert_eq!(writers(&world), [unknown(Unknown::Unanswered { pid })]);
    // It comes all the same, and changes nothing.
    world.answer(|_| process(4711));
    assert_eq!(world.restored().len(), 1);
}

#[test]
fn the_order_of_what_happened_is_the_order_of_what_is_reported() {
    let mut world = listening(
        &[(IP_FORWARD, "1"), ("net.ipv4.conf.eth0.rp_filter", "0")],
        Kernel::new(&["eth0"]),
    );
    world.foreign_by(IP_FORWARD, "0", 1);
    world.foreign_by("net.ipv4.conf.eth0.rp_filter", "1", 2);
    world.event(Event::SourceUnavailable {
        source: Source::Uevent,
        reason: "a test".to_owned(),
    });
    let answered = world.questions.as_mut().expect("questions").remove(1);
    world.event(Event::Identified {
        question: answered.number,
        writer: process(2),
    });
    assert!(world.restored().is_empty());
    world.answer(|_| process(1));
    assert_eq!(writers(&world), [process(1), process(2)]);
    assert!(matches!(
        world.records.last(),
        Some(Record::SourceUnavailable { .. })
    ));
}

#[test]
fn a_writer_that_began_later_wrote_the_next_drift() {
    let mut world = forwarding();
    // By a writer that fanotify does not report, and by one that it does.
    world.foreign(IP_FORWARD, "0");
    world.pass(Duration::from_millis(2));
    world.foreign(IP_FORWARD, "0");
    world.touched(IP_FORWARD, 7);
    world.answer(|question| unknown(Unknown::Later { pid: question.pid }));
    world.answer(|question| process(question.pid));
    world.pass(DETECTION);
    assert_eq!(writers(&world), [unknown(Unknown::NotReported), process(7)]);
}

#[test]
fn of_two_who_wrote_immediately_neither_is_named() {
    let mut world = forwarding();
    // 1 writes what is there already, 2 changes it, and both wait in the queue.
    world.foreign_by(IP_FORWARD, "0", 1);
    world.touched(IP_FORWARD, 2);
    assert_eq!(
        writers(&world),
        [unknown(Unknown::Several { pids: [1, 2] })]
    );
}

#[test]
fn one_who_writes_twice_may_be_detected_once() {
    let mut world = forwarding();
    world.foreign(IP_FORWARD, "0");
    world.foreign(IP_FORWARD, "0");
    world.touched(IP_FORWARD, 5);
    world.answer(|_| process(5));
    world.pass(DETECTION);
    world.answer(|question| process(question.pid));
    assert_eq!(writers(&world), [process(5), process(5)]);
}

#[test]
fn what_the_kernel_carries_over_is_the_act_of_who_wrote() {
    let mut kernel = Kernel::new(&["eth0", "eth1"]);
    kernel.set("net.ipv4.conf.eth1.forwarding", "0");
    kernel.set("net.ipv4.conf.all.accept_redirects", "1");
    let (eth1, redirects) = (
        "net.ipv4.conf.eth1.forwarding",
        "net.ipv4.conf.all.accept_redirects",
    );
    let mut world = listening(&[(IP_FORWARD, "1"), (eth1, "0"), (redirects, "1")], kernel);
    // Restoring ip_forward sets eth1's forwarding and resets accept_redirects.
    world.foreign(IP_FORWARD, "0");
    world.touched(IP_FORWARD, 9);
    world.answer(|_| process(9));
    world.pass(DETECTION * 3);
    let told: Vec<_> = world.restored();
    assert_eq!(told.len(), 3, "{told:#?}");
    for drift in told {
        assert_eq!(drift.writer, process(9), "{}", drift.key);
        let cause = (drift.key != key(IP_FORWARD).into()).then(|| key(IP_FORWARD).into());
        assert_eq!(drift.caused_by, cause, "{}", drift.key);
    }
    // Who writes the interface's own file has written it.
    world.foreign(eth1, "1");
    world.touched(eth1, 10);
    world.answer(|_| process(10));
    let last = *world.restored().last().expect("a drift");
    assert_eq!((&last.writer, &last.caused_by), (&process(10), &None));
}

#[test]
fn at_the_end_everything_is_reported_before_it() {
    let mut world = forwarding();
    world.foreign(IP_FORWARD, "0");
    world.foreign_by(IP_FORWARD, "0", 3);
    world.event(Event::Stop);
    assert_eq!(world.restored().len(), 2);
    assert!(matches!(world.records.last(), Some(Record::Stopped(..))));
}

#[test]
fn a_flood_that_the_kernel_carries_over_is_the_act_of_who_wrote() {
    let names: Vec<String> = (0..100).map(|n| format!("cali{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut kernel = Kernel::new(&names);
    for name in &names {
        kernel.set(&format!("net.ipv4.conf.{name}.forwarding"), "0");
    }
    let pattern = "net.ipv4.conf.cali*.forwarding";
    let mut world = listening(&[(IP_FORWARD, "1"), (pattern, "0")], kernel);
    // Restoring ip_forward sets the forwarding of all.
    world.foreign_by(IP_FORWARD, "0", 9);
    world.answer(|_| process(9));
    world.pass(Duration::from_secs(2));
    let of_pattern = |drift: &&Drift| &*drift.selector == pattern;
    let told: Vec<_> = world.restored().into_iter().filter(of_pattern).collect();
    assert_eq!(told.iter().map(|drift| drift.count).sum::<u64>(), 100);
    assert!(told.len() <= 2, "{told:#?}");
    for drift in told {
        assert_eq!(drift.writer, process(9));
        assert_eq!(drift.caused_by, Some(key(IP_FORWARD).into()));
    }
}

#[test]
fn a_write_that_takes_long_is_waited_for_as_long() {
    let mut world = forwarding();
    // Thousands of interfaces: the writer needs as long as the guard.
    world.kernel.slow = Duration::from_millis(10);
    world.foreign(IP_FORWARD, "0");
    world.pass(Duration::from_millis(60));
    assert!(world.restored().is_empty(), "told without its writer");
    world.touched(IP_FORWARD, 4711);
    world.answer(|question| process(question.pid));
    assert_eq!(writers(&world), [process(4711)]);
}

#[test]
fn a_question_that_nobody_answers_ends_before_a_write_that_takes_long_is_given_up() {
    let mut world = forwarding();
    world.kernel.slow = Duration::from_millis(200);
    world.foreign(IP_FORWARD, "0");
    world.touched(IP_FORWARD, 4711);
    world.pass(Duration::from_millis(300));
    let pid = 4711;
    assert_eq!(writers(&world), [unknown(Unknown::Unanswered { pid })]);
}
