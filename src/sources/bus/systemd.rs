//! systemd's manager: jobs and the units' ActiveState.

use std::collections::HashMap;
use std::convert::Infallible;
use std::num::NonZeroU32;

use tokio::time::Instant;
use zbus::Message;
use zbus::message::{Header, Type};
use zbus::names::OwnedUniqueName;

use crate::dbus::link::{self, Error, Link, NameOwnerChanged};
use crate::dbus::unit::{UnitProperties, unit_of};
use crate::dbus::{Addresses, MANAGER, MANAGER_PATH, PROPERTIES, SYSTEMD, UNIT};
use crate::engine::{Event, UnitChange};
use crate::events::EventSender;
use crate::sources::Up;

/// How many jobs there may be. A boot has some hundred.
const MOST_JOBS: usize = 4096;

/// What the bus is asked to pass on. The manager's own socket needs no rules.
const RULES: [&str; 5] = [
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
     member='NameOwnerChanged',arg0='org.freedesktop.systemd1'",
    "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='JobNew'",
    "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
    "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='Reloading'",
    "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',\
     arg0='org.freedesktop.systemd1.Unit'",
];

/// The jobs that were reported as new and not yet as removed: number and unit.
///
/// Kept from one connection to the next, and across a daemon-reload, which can
/// drop the job of a unit that is no more without a word.
#[derive(Debug, Default)]
pub(super) struct Jobs(HashMap<u32, String>);

/// Reports the manager's signals until the connection ends.
pub(super) async fn listen(
    addresses: &Addresses,
    jobs: &mut Jobs,
    events: &EventSender,
    up: &mut Up<'_>,
) -> Result<Infallible, Error> {
    let link = Link::to_systemd(addresses).await?;
    let mut listener = Listener {
        link,
        listening: false,
        manager: None,
        listing: None,
        jobs,
        events,
        up,
    };
    listener.subscribe().await?;
    loop {
        let deadline = listener.listing.map(|(_, deadline)| deadline);
        let message = listener.link.next(deadline).await?;
        listener.receive(&message).await?;
    }
}

struct Listener<'a, 'u> {
    link: Link,
    /// Whether the first list of jobs is there. Signals before it do not count:
    /// the list has more, and everything is read again.
    listening: bool,
    /// The manager's connection to the bus: the only one whose signals count.
    manager: Option<OwnedUniqueName>,
    /// The list of jobs that was asked for, and until when it must be there.
    listing: Option<(NonZeroU32, Instant)>,
    jobs: &'a mut Jobs,
    events: &'a EventSender,
    up: &'a mut Up<'u>,
}

impl Listener<'_, '_> {
    async fn subscribe(&mut self) -> Result<(), Error> {
        if self.link.is_bus() {
            for rule in RULES {
                self.link.ask_bus("AddMatch", rule).await?;
            }
        }
        self.call("Subscribe").await?;
        self.list_jobs().await
    }

    async fn list_jobs(&mut self) -> Result<(), Error> {
        let serial = self.call("ListJobs").await?;
        self.listing = Some((serial, link::patience()));
        Ok(())
    }

    async fn call(&self, method: &str) -> Result<NonZeroU32, Error> {
        let call = Message::method_call(MANAGER_PATH, method).interface(MANAGER);
        let call = if self.link.is_bus() {
            call.destination(SYSTEMD)
        } else {
            call
        };
        self.link.send(&call.build(&())?).await
    }

    async fn receive(&mut self, message: &Message) -> Result<(), Error> {
        let header = message.header();
        match header.message_type() {
            Type::Error => Err(link::refusal(message)),
            Type::MethodReturn => match self.listing {
                Some((serial, _)) if header.reply_serial() == Some(serial) => {
                    self.listed(message, &header).await
                }
                _ => Ok(()),
            },
            Type::Signal => self.signal(message, &header).await,
            Type::MethodCall => Ok(()),
        }
    }

    /// Takes the list of the jobs in progress.
    async fn listed(&mut self, message: &Message, header: &Header<'_>) -> Result<(), Error> {
        type Job<'a> = (
            u32,
            &'a str,
            &'a str,
            &'a str,
            zbus::ObjectPath<'a>,
            zbus::ObjectPath<'a>,
        );
        self.listing = None;
        self.manager = header.sender().map(|sender| sender.to_owned().into());
        let first = !self.listening;
        if first {
            self.listening = true;
            self.up.listening().await;
        }
        let body = message.body();
        let running: Vec<Job<'_>> = body.deserialize()?;
        if running.len() > MOST_JOBS {
            return Err(Error::Jobs(MOST_JOBS));
        }
        let running: HashMap<u32, String> = running
            .into_iter()
            .map(|(job, unit, ..)| (job, unit.to_owned()))
            .collect();
        let before = std::mem::replace(&mut self.jobs.0, running.clone());
        for (job, unit) in &before {
            if !running.contains_key(job) {
                let result = "unknown".to_owned();
                self.report(unit.clone(), UnitChange::JobRemoved { job: *job, result })
                    .await;
            }
        }
        for (job, unit) in running {
            if first || !before.contains_key(&job) {
                self.report(unit, UnitChange::JobNew { job }).await;
            }
        }
        Ok(())
    }

    async fn signal(&mut self, message: &Message, header: &Header<'_>) -> Result<(), Error> {
        let (Some(interface), Some(member)) = (header.interface(), header.member()) else {
            return Ok(());
        };
        if self.link.is_bus() {
            if NameOwnerChanged::is(message) {
                return self.manager_moved(message);
            }
            if header.sender() != self.manager.as_deref() {
                return Ok(());
            }
        }
        if !self.listening {
            return Ok(());
        }
        match (interface.as_str(), member.as_str()) {
            (MANAGER, "JobNew") => self.job_new(message).await,
            (MANAGER, "JobRemoved") => self.job_removed(message).await,
            (MANAGER, "Reloading") => {
                let reloading: bool = message.body().deserialize()?;
                if reloading {
                    Ok(())
                } else {
                    self.list_jobs().await
                }
            }
            (PROPERTIES, "PropertiesChanged") => self.properties_changed(message, header).await,
            _ => Ok(()),
        }
    }

    /// After daemon-reexec the manager has a new connection to the bus, and may
    /// have dropped the subscriptions.
    fn manager_moved(&self, message: &Message) -> Result<(), Error> {
        let body = message.body();
        let change = NameOwnerChanged::read(&body)?;
        if change.name == SYSTEMD {
            Err(Error::Moved("systemd"))
        } else {
            Ok(())
        }
    }

    async fn job_new(&mut self, message: &Message) -> Result<(), Error> {
        let body = message.body();
        let (job, _, unit): (u32, zbus::ObjectPath<'_>, &str) = body.deserialize()?;
        if self.jobs.0.len() >= MOST_JOBS {
            return Err(Error::Jobs(MOST_JOBS));
        }
        // The signal of a job can come after the list that had it.
        if self.jobs.0.insert(job, unit.to_owned()).is_none() {
            self.report(unit.to_owned(), UnitChange::JobNew { job })
                .await;
        }
        Ok(())
    }

    async fn job_removed(&mut self, message: &Message) -> Result<(), Error> {
        let body = message.body();
        let (job, _, unit, result): (u32, zbus::ObjectPath<'_>, &str, &str) = body.deserialize()?;
        self.jobs.0.remove(&job);
        let result = result.to_owned();
        self.report(unit.to_owned(), UnitChange::JobRemoved { job, result })
            .await;
        Ok(())
    }

    async fn properties_changed(
        &mut self,
        message: &Message,
        header: &Header<'_>,
    ) -> Result<(), Error> {
        let body = message.body();
        // Each change is reported per interface; those of Service, Mount and so on
        // are long and irrelevant here.
        let interface: &str = body.deserialize_ignore_signature()?;
        if interface != UNIT {
            return Ok(());
        }
        let Some(unit) = header.path().and_then(|path| unit_of(path)) else {
            return Ok(());
        };
        let (_, properties, _): (&str, UnitProperties, Vec<&str>) = body.deserialize()?;
        if let Some(state) = properties.active_state {
            self.report(unit, UnitChange::ActiveState { state }).await;
        }
        Ok(())
    }

    async fn report(&self, unit: String, change: UnitChange) {
        self.events.send(Event::Unit { unit, change }).await;
    }
}
