//! Errors, by the failed operation.

use std::fmt;
use std::io;

/// What was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Becoming root of a user namespace.
    UserNamespace,
    /// Mapping the user into it.
    IdMap,
    /// Making or entering a network namespace.
    NetworkNamespace,
    /// Making a veth pair.
    Veth,
    /// Setting up an interface, an address or a route, as named.
    Rtnetlink(&'static str),
    /// Writing this file below `/proc/sys`.
    Sysctl(String),
    /// Opening a UDP socket.
    Socket,
    /// Starting a thread.
    Thread,
    /// Starting this program again as a child, in this role.
    Child(&'static str),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::UserNamespace => f.write_str("making a user namespace"),
            Step::IdMap => f.write_str("mapping the user into a user namespace"),
            Step::NetworkNamespace => f.write_str("making a network namespace"),
            Step::Veth => f.write_str("making a veth pair"),
            Step::Rtnetlink(what) => f.write_str(what),
            Step::Sysctl(path) => write!(f, "writing {path}"),
            Step::Socket => f.write_str("opening a UDP socket"),
            Step::Thread => f.write_str("starting a thread"),
            Step::Child(role) => write!(f, "starting {role}"),
        }
    }
}

/// A step that this machine refused.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed: {error}")]
pub struct Error {
    /// What was tried.
    pub step: Step,
    /// Why it failed.
    #[source]
    pub error: io::Error,
}

impl Error {
    /// `step` failed with `error`.
    pub fn new(step: Step, error: impl Into<io::Error>) -> Self {
        Error {
            step,
            error: error.into(),
        }
    }

    /// For `map_err`: `step` failed with the error that is given.
    pub(crate) fn at<E: Into<io::Error>>(step: Step) -> impl Fn(E) -> Self {
        move |error| Error::new(step.clone(), error)
    }
}
