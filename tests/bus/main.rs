//! The sources that speak D-Bus, on a real dbus-daemon, and module uevents of
//! the real kernel. Needs root, for the uevents alone.

mod bus;
mod daemon;
mod hostile;
mod listening;
mod services;
mod systemd;
mod uevent;
mod units;
