//! netguard keeps a node's network sysctls as they are configured.
//!
//! # Architecture
//!
//! An arrow points down only.
//!
//! ```text
//!            main          parse, run, exit code
//!              |
//!             cli          one file per verb
//!              |
//!           runtime        one loop: events in, step, actions out
//!          /   |   \
//!   sources    |   effects   what is heard | what is done
//!          \   |   /
//!           engine         PURE: event in, actions out; no clock, no file, no runtime
//!              |
//!          reporting       PURE: drifts in, records out
//!              |
//!  config -> model <- conflicts    the words of the field as plain types; what
//!                                  files ask for, and what files will undo
//! ```
//!
//! * [`model`]: keys, values, requirements, invariants;
//!   [`engine`]: decides. Events are hints, reads are truth; and
//!   `reporting`: what is logged, individually or
//!   aggregated. All three are the crate `netguard-core` (src/core), so that
//!   Cargo keeps I/O out of them.
//! * [`config`]: TOML files become [`model::Settings`], or diagnostics.
//! * [`conflicts`]: finds the files of the node that will undo what is guarded.
//! * [`sources`]: netlink, fanotify, uevents, D-Bus, signals. They only produce events.
//! * [`effects`]: `/proc/sys`, the journal, systemd's notification socket. They
//!   only perform actions.
//! * [`runtime`]: carries events to the engine and actions to the effects.
//! * [`cli`]: the command line.
//! * `netguard-lab` (src/lab): a node, a pod and an outside host in network
//!   namespaces, for the demo, the tests and the benchmarks.
//! * `background`: threads that effects, sources and runtime use; one that the
//!   kernel refuses is tried again.
//! * [`root`]: files below a folder that stands for `/`.
//! * [`sys`]: system calls that no library offers safely, with all unsafe code.
//!
//! Sources and effects do not know each other. A restore waits for nothing but
//! the kernel: the journal and the status have threads of their own.

mod background;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conflicts;
pub mod effects;
pub mod root;
pub mod runtime;
pub mod sources;
pub mod sys;

pub use netguard_core::{engine, model};
