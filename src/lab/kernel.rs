//! The kernel's parameters of the calling thread's network namespace.

use std::io;

use sysctl::{Ctl, Sysctl, SysctlError};

/// Sets a parameter, given as its path below `/proc/sys` or with dots.
pub(crate) fn set(name: &str, value: &str) -> io::Result<()> {
    let set = Ctl::new(name).and_then(|ctl| ctl.set_value_string(value));
    set.map(drop).map_err(|error| match error {
        SysctlError::IoError(error) => error,
        SysctlError::NotFound(_) => io::ErrorKind::NotFound.into(),
        other => io::Error::other(other),
    })
}
