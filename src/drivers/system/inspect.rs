//! The state of units, read once, for callers that do not watch them.

use std::collections::HashMap;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::timeout;
use zbus::Message;
use zbus::message::Type;

use crate::dbus::link::{Error, Link};
use crate::dbus::unit::{UnitProperties, path_of};
use crate::dbus::{Addresses, PROPERTIES, SYSTEMD, UNIT};
use crate::words::plain;

/// The properties of these units, in this order; nothing for one that systemd does not answer for.
///
/// # Errors
/// Why systemd could not be asked in time.
pub fn units(
    addresses: &Addresses,
    names: &[&str],
    patience: Duration,
) -> Result<Vec<Option<UnitProperties>>, String> {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| plain(&error))?;
    runtime
        .block_on(async { timeout(patience, ask(addresses, names)).await })
        .map_err(|_| format!("systemd did not answer within {patience:?}"))?
        .map_err(|error| error.to_string())
}

async fn ask(addresses: &Addresses, names: &[&str]) -> Result<Vec<Option<UnitProperties>>, Error> {
    let mut link = Link::to_systemd(addresses).await?;
    let mut calls = HashMap::new();
    for (index, name) in names.iter().enumerate() {
        let path = path_of(name);
        let call = Message::method_call(path.as_str(), "GetAll").interface(PROPERTIES);
        let call = match link.is_bus() {
            true => call.destination(SYSTEMD),
            false => call,
        };
        calls.insert(link.send(&call.build(&UNIT)?).await?, index);
    }
    let mut found: Vec<Option<UnitProperties>> = names.iter().map(|_| None).collect();
    while !calls.is_empty() {
        let message = link.next(None).await?;
        let header = message.header();
        let call = header.reply_serial().and_then(|it| calls.remove(&it));
        if let (Some(index), Type::MethodReturn) = (call, header.message_type()) {
            found[index] = Some(message.body().deserialize()?);
        }
    }
    Ok(found)
}
