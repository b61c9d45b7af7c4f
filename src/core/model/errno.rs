//! What the kernel, or a program, refuses with.

use std::sync::Arc;

/// An error number of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The number of the error.
    pub errno: Errno,
    /// What the program printed that was to do it, where one was.
    pub why: Option<Arc<str>>,
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault { errno, why: None }
    }
}
