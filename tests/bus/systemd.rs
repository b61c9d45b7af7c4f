//! systemd's manager on a bus: the way that is left where its own socket is not
//! to be had. (The real systemd is used in the system tests.)

use netguard::engine::{Event, UnitChange};
use netguard::model::Source;
use netguard::sources::bus::systemd_at;
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream};

use futures_util::StreamExt;

use crate::bus::{Bus, path};
use crate::listening::{Events, with_source};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

type Job = (
    u32,
    &'static str,
    &'static str,
    &'static str,
    zbus::OwnedObjectPath,
    zbus::OwnedObjectPath,
);

/// What PID 1 answers, said by the test.
pub struct Manager {
    connection: Connection,
    calls: MessageStream,
}

impl Manager {
    pub async fn start(bus: &Bus) -> Manager {
        let connection = bus.connect().await;
        let calls = MessageStream::from(&connection);
        connection.request_name(NAME).await.expect("a name");
        Manager { connection, calls }
    }

    async fn call(&mut self, member: &str) -> Message {
        loop {
            let message = self.calls.next().await.expect("a call").expect("a call");
            let header = message.header();
            if header.message_type() != Type::MethodCall {
                continue;
            }
            assert_eq!(header.member().map(|name| name.as_str()), Some(member));
            assert_eq!(header.path().map(|path| path.as_str()), Some(PATH));
            assert_eq!(header.interface().map(|name| name.as_str()), Some(MANAGER));
            drop(header);
            return message;
        }
    }

    async fn list(&mut self, jobs: &[(u32, &'static str)]) {
        let call = self.call("ListJobs").await;
        let none = || zbus::OwnedObjectPath::from(path("/"));
        let jobs: Vec<Job> = jobs
            .iter()
            .map(|(job, unit)| (*job, *unit, "start", "running", none(), none()))
            .collect();
        self.connection
            .reply(&call.header(), &jobs)
            .await
            .expect("a reply");
    }

    pub async fn answer(&mut self, jobs: &[(u32, &'static str)]) {
        let call = self.call("Subscribe").await;
        self.connection
            .reply(&call.header(), &())
            .await
            .expect("a reply");
        self.list(jobs).await;
    }

    async fn signal<B>(&self, member: &str, body: &B)
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.connection
            .emit_signal(None::<&str>, PATH, MANAGER, member, body)
            .await
            .expect("a signal");
    }

    pub async fn job_new(&self, job: u32, unit: &str) {
        self.signal("JobNew", &(job, path("/job"), unit)).await;
    }

    async fn job_removed(&self, job: u32, unit: &str, result: &str) {
        self.signal("JobRemoved", &(job, path("/job"), unit, result))
            .await;
    }
}

async fn unit(events: &mut Events) -> (String, UnitChange) {
    match events.next().await {
        Event::Unit { unit, change } => (unit, change),
        other => panic!("{other:?} is no news of a unit"),
    }
}

fn new(unit: &str, job: u32) -> (String, UnitChange) {
    (unit.to_owned(), UnitChange::JobNew { job })
}

fn removed(unit: &str, job: u32, result: &str) -> (String, UnitChange) {
    let result = result.to_owned();
    (unit.to_owned(), UnitChange::JobRemoved { job, result })
}

#[test]
fn jobs_are_reported_once_and_none_stays_for_ever() {
    let bus = Bus::start();
    let addresses = bus.addresses();
    with_source(
        |events| async move { systemd_at(events, &addresses).await },
        async |mut events| {
            // Nobody is there to be subscribed to yet.
            events.lost(&[Source::Systemd]).await;

            let mut manager = Manager::start(&bus).await;
            manager.answer(&[(1, "network.service")]).await;
            events.back(&[Source::Systemd]).await;
            assert_eq!(unit(&mut events).await, new("network.service", 1));

            // A job that was listed, another that was not.
            manager.job_new(1, "network.service").await;
            manager.job_new(2, "firewalld.service").await;
            assert_eq!(unit(&mut events).await, new("firewalld.service", 2));
            manager.job_removed(1, "network.service", "done").await;
            assert_eq!(
                unit(&mut events).await,
                removed("network.service", 1, "done")
            );

            // A reload drops job 2 without a word, and job 3 comes to light.
            manager.signal("Reloading", &true).await;
            manager.signal("Reloading", &false).await;
            manager.list(&[(3, "tuned.service")]).await;
            assert_eq!(
                unit(&mut events).await,
                removed("firewalld.service", 2, "unknown")
            );
            assert_eq!(unit(&mut events).await, new("tuned.service", 3));

            // systemd re-executes: job 3 ends in the gap.
            manager
                .connection
                .release_name(NAME)
                .await
                .expect("a release");
            let why = events.lost(&[Source::Systemd]).await;
            assert_eq!(why, "systemd moved to another connection");
            let mut manager = Manager::start(&bus).await;
            manager.answer(&[(4, "network.service")]).await;
            events.back(&[Source::Systemd]).await;
            assert_eq!(
                unit(&mut events).await,
                removed("tuned.service", 3, "unknown")
            );
            assert_eq!(unit(&mut events).await, new("network.service", 4));
        },
    );
}
