//! What netguard decides. PURE: `std` and serde only; nothing here reads a file, a clock
//! or a socket, and nothing waits.
//!
//! It is a crate of its own so that Cargo holds it to that: what does I/O is
//! not among its dependencies.
//!
//! * [`model`]: keys, values, requirements, invariants, and the table of facts
//!   about sysctls.
//! * [`reporting`]: what is logged, in which order, and in how many records.
//! * [`engine`]: an event in, actions out.

#[macro_use]
mod words;

mod bucket;
pub mod engine;
mod id;
pub mod model;
pub mod reporting;
mod timers;

#[doc(hidden)]
pub use serde;
