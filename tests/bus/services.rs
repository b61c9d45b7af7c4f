//! NetworkManager and firewalld: their names, their signals, their floods.

use netguard::model::Source;
use netguard::sources::bus::{IDLE, LONGEST_DELAY, network_services_at};
use zbus::Connection;

use crate::bus::{Bus, path};
use crate::listening::with_source;

const BOTH: [Source; 2] = [Source::NetworkManager, Source::Firewalld];
const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
const FIREWALLD: &str = "org.fedoraproject.FirewallD1";

/// What NetworkManager and firewalld do, said by the test.
struct Speaker(Connection);

impl Speaker {
    async fn emit<B>(&self, object: &str, interface: &str, member: &str, body: &B)
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.0
            .emit_signal(None::<&str>, object, interface, member, body)
            .await
            .expect("a signal");
    }

    async fn state(&self, state: u32) {
        let object = "/org/freedesktop/NetworkManager";
        self.emit(object, NETWORK_MANAGER, "StateChanged", &state)
            .await;
    }

    async fn device_added(&self, number: u32) {
        let device = format!("/org/freedesktop/NetworkManager/Devices/{number}");
        let object = "/org/freedesktop/NetworkManager";
        self.emit(object, NETWORK_MANAGER, "DeviceAdded", &path(&device))
            .await;
    }

    async fn reloaded(&self) {
        let object = "/org/fedoraproject/FirewallD1";
        self.emit(object, FIREWALLD, "Reloaded", &()).await;
    }

    /// The connection to the bus that is none of `known`.
    async fn whoever_is_neither(&self, known: &[&Speaker]) -> String {
        let bus = "org.freedesktop.DBus";
        let reply = self
            .0
            .call_method(
                Some(bus),
                "/org/freedesktop/DBus",
                Some(bus),
                "ListNames",
                &(),
            )
            .await
            .expect("names");
        let names: Vec<String> = reply.body().deserialize().expect("names");
        let is_known = |name: &String| {
            known.iter().any(|speaker| {
                speaker
                    .0
                    .unique_name()
                    .is_some_and(|own| own.as_str() == name)
            })
        };
        names
            .into_iter()
            .find(|name| name.starts_with(':') && !is_known(name))
            .expect("another connection")
    }
}

async fn own(speaker: &Speaker, name: &str) {
    speaker.0.request_name(name).await.expect("a name");
}

#[test]
fn names_and_signals_are_announced() {
    let bus = Bus::start();
    let addresses = bus.addresses();
    with_source(
        |events| async move { network_services_at(events, &addresses).await },
        async |mut events| {
            events.back(&BOTH).await;

            let manager = Speaker(bus.connect().await);
            own(&manager, NETWORK_MANAGER).await;
            assert_eq!(
                events.announced().await,
                (Source::NetworkManager, "started".to_owned())
            );
            manager.state(70).await;
            assert_eq!(
                events.announced().await,
                (Source::NetworkManager, "state 70".to_owned())
            );
            manager.device_added(12).await;
            assert_eq!(
                events.announced().await,
                (Source::NetworkManager, "device 12 added".to_owned())
            );
            manager
                .emit(
                    "/org/freedesktop/NetworkManager/Devices/12",
                    "org.freedesktop.NetworkManager.Device",
                    "StateChanged",
                    &(100_u32, 90_u32, 0_u32),
                )
                .await;
            assert_eq!(
                events.announced().await,
                (Source::NetworkManager, "device 12 state 100".to_owned())
            );

            let firewall = Speaker(bus.connect().await);
            own(&firewall, FIREWALLD).await;
            assert_eq!(
                events.announced().await,
                (Source::Firewalld, "started".to_owned())
            );
            firewall.reloaded().await;
            assert_eq!(
                events.announced().await,
                (Source::Firewalld, "reloaded".to_owned())
            );

            manager
                .0
                .release_name(NETWORK_MANAGER)
                .await
                .expect("a release");
            assert_eq!(
                events.announced().await,
                (Source::NetworkManager, "stopped".to_owned())
            );
            firewall.0.close().await.expect("an end");
            assert_eq!(
                events.announced().await,
                (Source::Firewalld, "stopped".to_owned())
            );
        },
    );
}

/// Who has the name already is known from the start, and nobody else counts,
/// also where the signal is sent to the guard alone, past the match rules.
#[test]
fn only_who_has_the_name_is_believed() {
    let bus = Bus::start();
    let addresses = bus.addresses();
    let (begin, begun) = tokio::sync::oneshot::channel();
    with_source(
        |events| async move {
            begun.await.expect("the test's word");
            network_services_at(events, &addresses).await;
        },
        async |mut events| {
            let manager = Speaker(bus.connect().await);
            let stranger = Speaker(bus.connect().await);
            own(&manager, NETWORK_MANAGER).await;
            begin.send(()).expect("a source");
            events.back(&BOTH).await;

            let guard = stranger.whoever_is_neither(&[&manager, &stranger]).await;
            for member in ["StateChanged", "DeviceAdded"] {
                stranger
                    .0
                    .emit_signal(
                        Some(guard.as_str()),
                        "/org/freedesktop/NetworkManager",
                        NETWORK_MANAGER,
                        member,
                        &20_u32,
                    )
                    .await
                    .expect("a signal");
            }
            stranger.state(20).await;
            // Once this is answered, the bus has passed all that on.
            own(&stranger, "org.example.Barrier").await;
            manager.state(70).await;
            assert_eq!(
                events.announced().await,
                (Source::NetworkManager, "state 70".to_owned())
            );
        },
    );
}

#[test]
fn a_killed_bus_is_a_loss_and_a_new_one_is_found() {
    let mut bus = Bus::start();
    let addresses = bus.addresses();
    with_source(
        |events| async move { network_services_at(events, &addresses).await },
        async |mut events| {
            events.back(&BOTH).await;
            for _ in 0..3 {
                bus.kill();
                assert_eq!(events.lost(&BOTH).await, "the connection ended");
                bus.restart();
                events.back(&BOTH).await;
                let manager = Speaker(bus.connect().await);
                own(&manager, NETWORK_MANAGER).await;
                let (_, what) = events.announced().await;
                assert_eq!(what, "started");
                manager.state(70).await;
                let (_, what) = events.announced().await;
                assert_eq!(what, "state 70");
            }
        },
    );
}

#[test]
fn without_a_bus_the_loss_is_reported_once() {
    let mut bus = Bus::start();
    let addresses = bus.addresses();
    bus.kill();
    with_source(
        |events| async move { network_services_at(events, &addresses).await },
        async |mut events| {
            let why = events.lost(&BOTH).await;
            assert!(why.starts_with("cannot connect to unix:path="), "{why}");
            bus.restart();
            events.back(&BOTH).await;
        },
    );
}

/// A pod's veth is a device to NetworkManager: a node that starts its pods sends
/// floods. They must neither flood the guard nor hold firewalld's reload back,
/// after which rules and sysctls may both have been set again.
#[test]
fn a_flood_of_devices_is_reported_as_one_and_holds_nothing_back() {
    const DEVICES: u32 = 2000;
    let bus = Bus::start();
    let addresses = bus.addresses();
    with_source(
        |events| async move { network_services_at(events, &addresses).await },
        async |mut events| {
            events.back(&BOTH).await;
            let manager = Speaker(bus.connect().await);
            own(&manager, NETWORK_MANAGER).await;
            assert_eq!(events.announced().await.1, "started");
            let firewall = Speaker(bus.connect().await);
            own(&firewall, FIREWALLD).await;
            assert_eq!(events.announced().await.1, "started");

            let begin = netguard::clock::now();
            for number in 0..DEVICES {
                manager.device_added(number).await;
                if number == DEVICES / 2 {
                    firewall.reloaded().await;
                }
            }
            let sent = netguard::clock::now();

            let (mut devices, mut records, mut reloaded) = (0, 0, None);
            let last = loop {
                let timed = events.next_timed().await;
                let netguard::engine::Event::Announced { source, what } = timed.event else {
                    panic!("{:?} is no announcement", timed.event);
                };
                let what = what.to_string();
                if source == Source::Firewalld {
                    assert_eq!(what, "reloaded");
                    reloaded = Some((timed.at, devices));
                    continue;
                }
                records += 1;
                devices += match what.split_once(" changes of devices, last: ") {
                    Some((count, _)) => count.parse::<u32>().expect("a count"),
                    None => 1,
                };
                if devices == DEVICES {
                    assert!(what.ends_with("device 1999 added"), "{what}");
                    break timed.at;
                }
            };
            let (reloaded, before) = reloaded.expect("firewalld's reload");
            assert!(before < DEVICES, "the reload waited for the flood");
            let spread = sent.since(begin);
            assert!(
                records <= 2 + spread.as_millis() / IDLE.as_millis(),
                "{records} announcements of a flood of {spread:?}"
            );
            // Half a second for a busy machine.
            let limit = LONGEST_DELAY + std::time::Duration::from_millis(500);
            let late = last.since(sent);
            assert!(late < limit, "the last device was told {late:?} late");
            let late = reloaded.since(sent);
            assert!(
                late < IDLE,
                "the reload was reported {late:?} after the flood"
            );
        },
    );
}
