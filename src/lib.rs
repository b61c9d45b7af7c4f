//! netguard keeps the network state of a node as it is configured.
//!
//! # Architecture
//!
//! An arrow points down only.
//!
//! ```text
//!                    main              parse, run, exit code
//!                      |
//!                     cli              one file per verb
//!                      |
//!                   runtime            one loop: events in, step, actions out
//!       /       /      |      \       \
//! sources  writers  drivers  journal  service     the edge: each does one kind of I/O
//!       \       \      |      /       /
//!                    core              PURE: what is guarded, the engine, reporting
//!                      |
//!          config -> model <- conflicts    what files ask for, and what files override
//! ```
//!
//! * [`model`]: keys, values, requirements, invariants;
//!   [`engine`]: decides. Events are hints, reads are truth; and
//!   `reporting`: what is logged, individually or
//!   aggregated. All three are the crate `netguard-core` (src/core), so that
//!   Cargo keeps I/O out of them.
//! * [`conntrack`]: which tracked connections are deleted, and when their table is full.
//! * [`config`]: TOML files become [`model::Settings`], or diagnostics.
//! * [`conflicts`]: finds the files of the node that will override what is guarded.
//! * [`sources`]: netlink, uevents, D-Bus, files, signals. They only produce events.
//! * [`drivers`]: read, write and watch what is guarded.
//! * [`writers`]: which process wrote a value.
//! * [`journal`]: what is logged, and how it is read back.
//! * [`service`]: systemd's notification socket, the status, the saved state.
//! * [`runtime`]: carries events to the engine and its actions to the edge.
//! * [`cli`]: the command line.
//! * [`diagnose`]: reads, by the drivers, what [`diagnosis`] judges a pod's packets by. Only
//!   the command line uses it.
//! * `netguard-lab` (src/lab): a node, a pod and an outside host in network
//!   namespaces, for the demo, the tests and the benchmarks.
//! * [`dbus`], [`events`], `background`, [`modules`], `netlink`, `process_namespaces`, [`root`],
//!   `socket_filter`, `waiting`, `words`: what several of these need, below them all.
//! * [`sys`]: system calls that no library offers safely, with all unsafe code.
//!
//! Sources, writers and drivers do not know each other. A restore waits for
//! nothing but the kernel: the journal and the status have threads of their own.

mod background;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conflicts;
pub mod dbus;
pub mod diagnose;
pub mod drivers;
pub mod events;
pub mod journal;
pub mod modules;
mod netlink;
mod process_namespaces;
pub mod process_start;
pub mod root;
pub mod runtime;
pub mod service;
mod socket_filter;
pub mod sources;
pub mod sys;
mod waiting;
mod words;
pub mod writers;

pub use netguard_core::{bucket, conntrack, diagnosis, engine, kinds, model, resource};
