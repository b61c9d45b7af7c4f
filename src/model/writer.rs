//! Who wrote a value.

/// The process that wrote a value, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Its process id in the guard's own pid namespace.
    pub pid: i32,
}
