//! The driver of modules and units beside a manager of the test's own, on a real bus.
//! (The real systemd is used in the system tests.)

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use netguard::drivers::Driver;
use netguard::drivers::system::{System, inspect};
use netguard::engine::{Errno, Event, Fault, ReadOutcome, ValueId};
use netguard::model::{GuardSettings, Invariant, Mode, Origin, Selector, Settings};
use netguard::resource::{Desired, Resource, State};
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream, OwnedVariant, Variant};

use crate::bus::{Bus, path};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const KUBELET: &str = "/org/freedesktop/systemd1/unit/kubelet_2eservice";

const UNIT: ValueId = ValueId::new(0, 0);
const MODULE: ValueId = ValueId::new(1, 0);

/// Long, for a busy machine; it is only waited for where the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What PID 1 answers, said by the test.
struct Manager {
    connection: Connection,
    calls: MessageStream,
}

impl Manager {
    async fn start(bus: &Bus) -> Manager {
        let connection = bus.connect().await;
        let calls = MessageStream::from(&connection);
        connection.request_name(NAME).await.expect("a name");
        Manager { connection, calls }
    }

    /// The next call, which must be this one; whoever connects subscribes first.
    async fn call(&mut self, member: &str) -> Message {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.calls.next());
            let message = next.await.expect(member).expect("a call").expect("a call");
            let header = message.header();
            if header.message_type() != Type::MethodCall {
                continue;
            }
            let name = header.member().map(|name| name.to_string());
            if name.as_deref() == Some("Subscribe") {
                self.reply(&message, &()).await;
                continue;
            }
            assert_eq!(name.as_deref(), Some(member));
            drop(header);
            return message;
        }
    }

    async fn reply<B>(&self, call: &Message, body: &B)
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let header = call.header();
        self.connection.reply(&header, body).await.expect("a reply");
    }

    async fn refuse(&self, call: &Message, error: &str) {
        let (header, name) = (call.header(), format!("{NAME}.{error}"));
        let sent = self.connection.reply_error(&header, name.as_str(), &"no");
        sent.await.expect("a reply");
    }

    /// Answers the question for the unit's state.
    async fn is(&mut self, active: &str, load: &str, job: u32) {
        let call = self.call("GetAll").await;
        assert_eq!(call.header().path().map(|it| it.as_str()), Some(KUBELET));
        let own = if job == 0 { "/" } else { "/job" };
        let properties = HashMap::from([
            ("Id", Variant::from("kubelet.service")),
            ("ActiveState", Variant::from(active)),
            ("LoadState", Variant::from(load)),
            ("Job", Variant::from((job, path(own)))),
        ]);
        self.reply(&call, &properties).await;
    }

    async fn job_removed(&self, job: &str, unit: &str, result: &str) {
        job_removed(&self.connection, job, unit, result).await;
    }
}

async fn job_removed(by: &Connection, job: &str, unit: &str, result: &str) {
    let body = (7_u32, path(job), unit, result);
    by.emit_signal(None::<&str>, PATH, MANAGER, "JobRemoved", &body)
        .await
        .expect("a signal");
}

fn resource(text: &str) -> Resource {
    Resource::parse(text).expect(text)
}

fn active() -> State {
    State::parse("active").expect("a state")
}

fn driver(bus: &Bus) -> System {
    let mut driver = System::new(Path::new("/nonexistent"), bus.addresses());
    let mut none = Vec::new();
    driver.watch(UNIT, &resource("unit/kubelet.service"), true, &mut none);
    driver.watch(MODULE, &resource("module/br_netfilter"), true, &mut none);
    assert!(none.is_empty());
    driver
}

async fn event(driver: &mut System) -> Event {
    let next = tokio::time::timeout(PATIENCE, driver.event());
    next.await.expect("an event in time")
}

fn run(test: impl AsyncFnOnce(Bus)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test(Bus::start()));
}

fn read(outcome: ReadOutcome) -> Event {
    Event::Read { id: UNIT, outcome }
}

fn written(id: ValueId, result: Result<(), Errno>) -> Event {
    Event::Written {
        id,
        result: result.map_err(Fault::from),
    }
}

#[test]
fn the_state_of_a_unit_is_read() {
    run(async |bus| {
        let mut manager = Manager::start(&bus).await;
        let mut driver = driver(&bus);
        let mut none = Vec::new();
        for (active, load, job, expected) in [
            ("active", "loaded", 0, Some("active")),
            ("failed", "loaded", 0, Some("failed")),
            ("activating", "loaded", 7, Some("activating job 7")),
            ("inactive", "masked", 0, Some("inactive load masked")),
            ("inactive", "not-found", 0, None),
        ] {
            driver.read(UNIT, &mut none);
            assert!(driver.is_busy());
            manager.is(active, load, job).await;
            let expected = expected.map_or(ReadOutcome::Absent, |text| {
                ReadOutcome::State(State::parse(text).expect(text))
            });
            assert_eq!(event(&mut driver).await, read(expected));
            assert!(!driver.is_busy());
        }
        // What is asked for while an answer is under way may be newer than that.
        driver.read(UNIT, &mut none);
        driver.read(UNIT, &mut none);
        driver.read(UNIT, &mut none);
        for active in ["deactivating", "inactive"] {
            manager.is(active, "loaded", 0).await;
            let state = State::parse(active).expect(active);
            assert_eq!(event(&mut driver).await, read(ReadOutcome::State(state)));
        }
        assert!(!driver.is_busy());
        assert!(none.is_empty());
    });
}

#[test]
fn a_start_is_answered_when_its_job_has_ended() {
    run(async |bus| {
        let mut manager = Manager::start(&bus).await;
        let stranger = bus.connect().await;
        let mut driver = driver(&bus);
        let mut none = Vec::new();
        for (result, expected) in [
            ("done", Ok(())),
            ("failed", Err(Errno(5))),
            ("dependency", Err(Errno(67))),
            ("canceled", Err(Errno(16))),
        ] {
            driver.write(UNIT, &active(), &mut none);
            let call = manager.call("StartUnit").await;
            let body = call.body();
            let arguments: (&str, &str) = body.deserialize().expect("arguments");
            assert_eq!(arguments, ("kubelet.service", "replace"));
            manager.reply(&call, &path("/job/7")).await;
            // Neither another's word nor another job counts, and what is read now is
            // no answer.
            job_removed(&stranger, "/job/7", "kubelet.service", "timeout").await;
            manager
                .job_removed("/job/8", "kubelet.service", "timeout")
                .await;
            driver.read(UNIT, &mut none);
            assert!(driver.is_writing());
            manager
                .job_removed("/job/7", "kubelet.service", result)
                .await;
            assert_eq!(event(&mut driver).await, written(UNIT, expected));
            assert!(!driver.is_busy());
        }
        for (error, errno) in [
            ("NoSuchUnit", 2),
            ("UnitMasked", 132),
            ("Masked", 132),
            ("LoadFailed", 8),
            ("TransactionIsDestructive", 35),
            ("Odd", 5),
        ] {
            driver.write(UNIT, &active(), &mut none);
            let call = manager.call("StartUnit").await;
            manager.refuse(&call, error).await;
            let expected = written(UNIT, Err(Errno(errno)));
            assert_eq!(event(&mut driver).await, expected, "{error}");
        }
        let selector = Selector::Resource(resource("unit/kubelet.service"));
        let invariant = Invariant {
            selector,
            desired: Desired::exactly(&active()),
            mode: Mode::Restore,
            grace: None,
            module: None,
            restart: true,
            reason: None,
            origin: Origin {
                file: Default::default(),
                line: 1,
            },
        };
        driver.learn(&Settings {
            guard: GuardSettings::default(),
            invariants: vec![invariant],
            ..Settings::default()
        });
        driver.write(UNIT, &active(), &mut none);
        let call = manager.call("RestartUnit").await;
        manager.reply(&call, &path("/job/9")).await;
        manager
            .job_removed("/job/9", "kubelet.service", "done")
            .await;
        assert_eq!(event(&mut driver).await, written(UNIT, Ok(())));
    });
}

#[test]
fn a_module_is_loaded_by_a_service_that_leaves_nothing_behind() {
    type Properties = Vec<(String, OwnedVariant)>;
    const SERVICE: &str = "netguard-modprobe-br_netfilter.service";
    run(async |bus| {
        let mut manager = Manager::start(&bus).await;
        let mut driver = driver(&bus);
        let mut none = Vec::new();
        let loaded = State::parse("loaded").expect("a state");
        for (result, expected) in [("done", Ok(())), ("failed", Err(Errno(5)))] {
            driver.write(MODULE, &loaded, &mut none);
            let reset = manager.call("ResetFailedUnit").await;
            manager.refuse(&reset, "NoSuchUnit").await;
            let call = manager.call("StartTransientUnit").await;
            let body = call.body();
            let (service, mode, properties, others): (
                &str,
                &str,
                Properties,
                Vec<(String, Properties)>,
            ) = body.deserialize().expect("arguments");
            assert_eq!((service, mode), (SERVICE, "replace"));
            assert!(others.is_empty());
            let get = |name: &str| {
                let found = properties.iter().find(|(own, _)| own == name);
                let (_, value) = found.unwrap_or_else(|| panic!("no {name}"));
                value.try_clone().expect("a value")
            };
            assert_eq!(String::try_from(get("Type")).as_deref(), Ok("oneshot"));
            assert_eq!(bool::try_from(get("DefaultDependencies")), Ok(false));
            let command: Vec<(String, Vec<String>, bool)> =
                get("ExecStart").try_into().expect("a command");
            let program = "/sbin/modprobe".to_owned();
            let arguments = ["/sbin/modprobe", "--", "br_netfilter"].map(str::to_owned);
            assert_eq!(command, [(program, arguments.to_vec(), false)]);
            manager.reply(&call, &path("/job/7")).await;
            manager.job_removed("/job/7", SERVICE, result).await;
            if expected.is_err() {
                let reset = manager.call("ResetFailedUnit").await;
                manager.reply(&reset, &()).await;
            }
            assert_eq!(event(&mut driver).await, written(MODULE, expected));
        }
    });
}

/// New settings may drop a unit, and bring it back before an answer has come.
#[test]
fn an_answer_is_for_what_was_asked_and_not_for_another_of_its_name() {
    const AGAIN: ValueId = ValueId::new(0, 1);
    run(async |bus| {
        let mut manager = Manager::start(&bus).await;
        let mut driver = driver(&bus);
        let mut none = Vec::new();
        driver.write(UNIT, &active(), &mut none);
        let start = manager.call("StartUnit").await;
        driver.unwatch(UNIT, &mut none);
        driver.watch(AGAIN, &resource("unit/kubelet.service"), true, &mut none);
        driver.read(AGAIN, &mut none);
        let call = manager.call("GetAll").await;
        manager.reply(&start, &path("/job/7")).await;
        manager
            .job_removed("/job/7", "kubelet.service", "failed")
            .await;
        manager.refuse(&call, "NoSuchUnit").await;
        let outcome = ReadOutcome::Refused(Errno(2).into());
        let expected = Event::Read { id: AGAIN, outcome };
        assert_eq!(event(&mut driver).await, expected);
    });
}

#[test]
fn what_a_lost_connection_leaves_open_is_read() {
    run(async |mut bus| {
        let mut manager = Manager::start(&bus).await;
        let mut driver = driver(&bus);
        let mut none = Vec::new();
        driver.write(UNIT, &active(), &mut none);
        let call = manager.call("StartUnit").await;
        manager.reply(&call, &path("/job/7")).await;
        // A question right behind, so that the answer before it has arrived.
        driver.read(UNIT, &mut none);
        bus.kill();
        // Whether it has started is not known, and will be read.
        let unanswered = written(UNIT, Err(Errno(104)));
        assert_eq!(event(&mut driver).await, unanswered);
        driver.read(UNIT, &mut none);
        let refused = |errno| read(ReadOutcome::Refused(Errno(errno).into()));
        assert_eq!(event(&mut driver).await, refused(107));
        bus.restart();
        let mut manager = Manager::start(&bus).await;
        driver.read(UNIT, &mut none);
        let call = manager.call("GetAll").await;
        drop(call);
        // systemd has executed itself anew: what was not answered is asked once more.
        manager
            .connection
            .release_name(NAME)
            .await
            .expect("a release");
        manager.connection.request_name(NAME).await.expect("a name");
        manager.is("active", "loaded", 0).await;
        let expected = read(ReadOutcome::State(active()));
        assert_eq!(event(&mut driver).await, expected);
    });
}

#[test]
fn units_are_read_once() {
    run(async |bus| {
        let mut manager = Manager::start(&bus).await;
        let addresses = bus.addresses();
        let names = ["kubelet.service", "calico-node.service"];
        let asked =
            tokio::task::spawn_blocking(move || inspect::units(&addresses, &names, PATIENCE));
        let call = manager.call("GetAll").await;
        assert_eq!(call.header().path().map(|it| it.as_str()), Some(KUBELET));
        let properties = HashMap::from([
            ("ActiveState", Variant::from("failed")),
            ("LoadState", Variant::from("loaded")),
            (
                "InactiveEnterTimestamp",
                Variant::from(1_764_000_000_000_000_u64),
            ),
        ]);
        manager.reply(&call, &properties).await;
        let call = manager.call("GetAll").await;
        manager.refuse(&call, "NoSuchUnit").await;
        let found = asked.await.expect("no panic").expect("an answer");
        let [Some(kubelet), None] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(kubelet.active_state.as_deref(), Some("failed"));
        assert_eq!(kubelet.inactive_since, Some(1_764_000_000_000_000));
        // One that does not answer is not waited for.
        let addresses = bus.addresses();
        let soon = Duration::from_millis(50);
        let asked = tokio::task::spawn_blocking(move || inspect::units(&addresses, &names, soon));
        let complaint = asked.await.expect("no panic").expect_err("no answer");
        assert_eq!(complaint, "systemd did not answer within 50ms");
    });
}
