//! Sysctls: the files of `/proc/sys`.
//!
//! * [`files`]: read, write, list.
//! * [`patience`]: writes that wait for a lock of the kernel.
//! * [`watch`]: detects writes by others.

pub mod files;
pub mod network;
pub mod patience;
mod walk;
pub mod watch;
