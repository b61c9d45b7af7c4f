//! The daemon as a service: what systemd, `netguard status` and the next daemon
//! are logged, and what is saved for that.

pub(crate) mod folder;
pub mod notify;
pub mod state;
pub mod status;
