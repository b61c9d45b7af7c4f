//! D-Bus, as sources and drivers use it: where the buses are, one connection, and the
//! names and properties of systemd's units.

pub mod link;
pub mod private;
pub mod unit;

use std::env;
use std::path::{Path, PathBuf};

/// systemd's manager on a bus.
pub const SYSTEMD: &str = "org.freedesktop.systemd1";
/// Its object.
pub const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
/// Its interface.
pub const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// The interface of every unit.
pub const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// The standard interface of properties.
pub const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Where the buses are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The socket of systemd's manager itself. It needs no dbus-daemon and
    /// lets root alone in.
    pub manager: PathBuf,
    /// The system bus, as the D-Bus specification writes addresses.
    pub system_bus: String,
}

impl Addresses {
    /// Where they are on the node below this root.
    pub fn below(root: &Path) -> Addresses {
        if root == Path::new("/") {
            return Addresses::default();
        }
        let bus = root.join("run/dbus/system_bus_socket");
        Addresses {
            manager: root.join("run/systemd/private"),
            system_bus: format!("unix:path={}", bus.display()),
        }
    }
}

impl Default for Addresses {
    /// systemd's socket and `$DBUS_SYSTEM_BUS_ADDRESS`, or where the system bus is
    /// without it.
    fn default() -> Self {
        Addresses {
            manager: PathBuf::from("/run/systemd/private"),
            system_bus: env::var("DBUS_SYSTEM_BUS_ADDRESS")
                .unwrap_or_else(|_| "unix:path=/run/dbus/system_bus_socket".to_owned()),
        }
    }
}
