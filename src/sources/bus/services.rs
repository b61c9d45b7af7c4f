//! NetworkManager and firewalld on the system bus.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;
use zbus::Message;
use zbus::message::{Header, Type};
use zbus::names::OwnedUniqueName;

use crate::dbus::link::{self, Error, Link, NameOwnerChanged};
use crate::engine::{Announcement, Event};
use crate::events::EventSender;
use crate::model::{Debounce, Source};
use crate::sources::Up;
use crate::waiting::until;

/// How long NetworkManager must announce nothing more about devices before what it
/// announced is reported: veth pairs that a network plugin makes follow each other
/// within a few milliseconds. Netlink has reported the links long before.
pub const IDLE: Duration = Duration::from_millis(100);

/// How long news of devices is delayed at most, however much follows: an
/// announcement makes the guard read everything, which once a second is cheap.
pub const LONGEST_DELAY: Duration = Duration::from_secs(1);

const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
const DEVICE: &str = "org.freedesktop.NetworkManager.Device";
const FIREWALLD: &str = "org.fedoraproject.FirewallD1";

/// The match rules. A rule by the sender's name is valid also
/// while the name has no owner, and starts no service.
const RULES: [&str; 7] = [
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
     member='NameOwnerChanged',arg0='org.freedesktop.NetworkManager'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
     member='NameOwnerChanged',arg0='org.fedoraproject.FirewallD1'",
    "type='signal',sender='org.freedesktop.NetworkManager',\
     interface='org.freedesktop.NetworkManager',member='StateChanged'",
    "type='signal',sender='org.freedesktop.NetworkManager',\
     interface='org.freedesktop.NetworkManager',member='DeviceAdded'",
    "type='signal',sender='org.freedesktop.NetworkManager',\
     interface='org.freedesktop.NetworkManager',member='DeviceRemoved'",
    "type='signal',sender='org.freedesktop.NetworkManager',\
     interface='org.freedesktop.NetworkManager.Device',member='StateChanged'",
    "type='signal',sender='org.fedoraproject.FirewallD1',\
     interface='org.fedoraproject.FirewallD1',member='Reloaded'",
];

/// Reports what the two announce until the connection ends.
pub(super) async fn listen(
    address: &str,
    events: &EventSender,
    up: &mut Up<'_>,
) -> Result<Infallible, Error> {
    let mut listener = Listener {
        link: Link::to_bus(address).await?,
        services: [
            Service::new(NETWORK_MANAGER, Source::NetworkManager),
            Service::new(FIREWALLD, Source::Firewalld),
        ],
        deadline: None,
        devices: None,
        debounce: Debounce::new(IDLE, LONGEST_DELAY),
        events,
        up,
    };
    listener.subscribe().await?;
    loop {
        // An overdue burst comes first, or a flood could delay it forever.
        tokio::select! {
            biased;
            () = until(listener.debounce.due()) => listener.report_devices().await,
            message = listener.link.next(listener.deadline) => {
                listener.receive(message?).await?;
            }
        }
    }
}

/// One of the two, present or not.
struct Service {
    name: &'static str,
    source: Source,
    /// The connection that has the name: the only one whose signals count, for
    /// anyone on the bus may send a signal to anyone.
    owner: Option<OwnedUniqueName>,
    /// The question who has the name, while it is open.
    asked: Option<NonZeroU32>,
}

impl Service {
    fn new(name: &'static str, source: Source) -> Self {
        Service {
            name,
            source,
            owner: None,
            asked: None,
        }
    }
}

struct Listener<'a, 'u> {
    link: Link,
    services: [Service; 2],
    /// The deadline for the bus to return the owners of the names.
    deadline: Option<Instant>,
    /// The news of devices that wait to be reported: how many, and the last one in full.
    devices: Option<(usize, Message)>,
    debounce: Debounce<Instant>,
    events: &'a EventSender,
    up: &'a mut Up<'u>,
}

impl Listener<'_, '_> {
    async fn subscribe(&mut self) -> Result<(), Error> {
        for rule in RULES {
            self.link.ask_bus("AddMatch", rule).await?;
        }
        for service in &mut self.services {
            service.asked = Some(self.link.ask_bus("GetNameOwner", service.name).await?);
        }
        self.deadline = Some(link::patience());
        Ok(())
    }

    async fn receive(&mut self, message: Message) -> Result<(), Error> {
        match message.message_type() {
            Type::MethodReturn | Type::Error => self.answer(&message).await,
            Type::Signal if NameOwnerChanged::is(&message) => self.owner_changed(&message).await,
            Type::Signal => {
                self.signal(message).await;
                Ok(())
            }
            Type::MethodCall => Ok(()),
        }
    }

    /// Takes the reply to a call. An error means that the name has no owner, or
    /// that the bus refused to pass signals on.
    async fn answer(&mut self, message: &Message) -> Result<(), Error> {
        let serial = message.header().reply_serial();
        let asked = self
            .services
            .iter_mut()
            .find(|service| service.asked.is_some() && service.asked == serial);
        let Some(service) = asked else {
            return match message.message_type() {
                Type::Error => Err(link::refusal(message)),
                _ => Ok(()),
            };
        };
        service.asked = None;
        service.owner = match message.message_type() {
            Type::Error => None,
            _ => Some(message.body().deserialize()?),
        };
        if self.services.iter().all(|service| service.asked.is_none()) {
            self.deadline = None;
            self.up.listening().await;
        }
        Ok(())
    }

    async fn owner_changed(&mut self, message: &Message) -> Result<(), Error> {
        let body = message.body();
        let change = NameOwnerChanged::read(&body)?;
        let Some(service) = self
            .services
            .iter_mut()
            .find(|service| service.name == change.name)
        else {
            return Ok(());
        };
        let what = match (&change.old, &change.new) {
            (_, None) => Announcement::Stopped,
            (None, Some(_)) => Announcement::Started,
            (Some(_), Some(_)) => Announcement::Restarted,
        };
        service.owner = change.new.map(|owner| owner.to_owned().into());
        let source = service.source;
        if source == Source::NetworkManager {
            // What it announced about devices is read again now.
            self.take_devices();
        }
        self.announce(source, what).await;
        Ok(())
    }

    async fn signal(&mut self, message: Message) {
        let header = message.header();
        let (Some(interface), Some(member)) = (header.interface(), header.member()) else {
            return;
        };
        let Some(source) = self.speaker(&header) else {
            return;
        };
        match (source, interface.as_str(), member.as_str()) {
            (Source::NetworkManager, NETWORK_MANAGER, "StateChanged") => {
                let what = match message.body().deserialize::<u32>() {
                    Ok(state) => format!("state {state}"),
                    Err(_) => "state changed".to_owned(),
                };
                self.announce(source, Announcement::Changed(what)).await;
            }
            (Source::NetworkManager, NETWORK_MANAGER, "DeviceAdded" | "DeviceRemoved")
            | (Source::NetworkManager, DEVICE, "StateChanged") => {
                drop(header);
                let before = self.devices.take().map_or(0, |(count, _)| count);
                self.devices = Some((before + 1, message));
                self.debounce.add(Instant::now());
            }
            (Source::Firewalld, FIREWALLD, "Reloaded") => {
                self.announce(source, Announcement::Reloaded).await;
            }
            _ => {}
        }
    }

    /// Which of the two sent this, if one of them did.
    fn speaker(&self, header: &Header<'_>) -> Option<Source> {
        let sender = header.sender()?;
        self.services
            .iter()
            .find(|service| service.owner.as_deref() == Some(sender))
            .map(|service| service.source)
    }

    fn take_devices(&mut self) -> Option<(usize, Message)> {
        self.debounce.clear();
        self.devices.take()
    }

    async fn report_devices(&mut self) {
        if let Some((count, latest)) = self.take_devices() {
            let news = Announcement::Changed(device_news(count, &latest));
            self.announce(Source::NetworkManager, news).await;
        }
    }

    async fn announce(&self, source: Source, what: Announcement) {
        self.events.send(Event::Announced { source, what }).await;
    }
}

/// What `count` signals about devices, the last of which is `latest`, come to.
fn device_news(count: usize, latest: &Message) -> String {
    let header = latest.header();
    let body = latest.body();
    let path = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let device = match body.deserialize::<zbus::ObjectPath<'_>>() {
        Ok(device) => path(&device),
        Err(_) => header.path().map(|device| path(device)).unwrap_or_default(),
    };
    let latest = match header.member().map(|member| member.as_str()) {
        Some("DeviceAdded") => format!("device {device} added"),
        Some("DeviceRemoved") => format!("device {device} removed"),
        _ => match body.deserialize::<(u32, u32, u32)>() {
            Ok((state, ..)) => format!("device {device} state {state}"),
            Err(_) => format!("device {device} changed"),
        },
    };
    if count == 1 {
        latest
    } else {
        format!("{count} changes of devices, last: {latest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_rules() {
        for rule in RULES {
            assert!(zbus::MatchRule::try_from(rule).is_ok(), "{rule}");
        }
    }

    #[test]
    fn news_of_devices_are_few_words() {
        let path = "/org/freedesktop/NetworkManager";
        let device = "/org/freedesktop/NetworkManager/Devices/12";
        let added = Message::signal(path, NETWORK_MANAGER, "DeviceAdded")
            .build(&zbus::ObjectPath::try_from(device).expect("a path"))
            .expect("a message");
        assert_eq!(device_news(1, &added), "device 12 added");
        assert_eq!(
            device_news(2000, &added),
            "2000 changes of devices, last: device 12 added"
        );
        let changed = Message::signal(device, DEVICE, "StateChanged")
            .build(&(100_u32, 90_u32, 0_u32))
            .expect("a message");
        assert_eq!(device_news(1, &changed), "device 12 state 100");
        let odd = Message::signal(device, DEVICE, "StateChanged")
            .build(&"what")
            .expect("a message");
        assert_eq!(device_news(1, &odd), "device 12 changed");
    }
}
