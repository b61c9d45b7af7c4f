//! What netguard decides. PURE: `std` and serde only; nothing here reads a file, a clock
//! or a socket, and nothing waits.
//!
//! It is a crate of its own so that Cargo holds it to that: what does I/O is
//! not among its dependencies.
//!
//! * [`resource`]: what can be guarded, what is observed of it, what it must be.
//! * [`model`]: keys, values, requirements, invariants, and the table of facts
//!   about sysctls.
//! * [`conntrack`]: which tracked connections are deleted, and when their table is full.
//! * `reporting`: what is logged, in which order, and in how many records.
//! * [`engine`]: an event in, actions out.
//! * [`diagnosis`]: why packets of a pod do not arrive.
//!
//! # Words
//!
//! Each has one meaning, in the code and in what netguard prints.
//!
//! | word | meaning |
//! |---|---|
//! | key | A sysctl, by its name: `net.ipv4.ip_forward`. |
//! | value | What a key contains. |
//! | resource | Anything that can be guarded: a sysctl, a kernel module, a link, an address, a route, a rule, a neighbour, an FDB entry, a rule or the policy of a chain of iptables, a set of ipset, a table of nf_tables, a systemd unit. |
//! | kind | What sort of resource it is. |
//! | group | All resources of a kind that have something in common: `route/dev=cali*`. |
//! | selector | A key, a pattern that matches keys (`net.ipv4.conf.cali*.rp_filter`), a resource or a group. |
//! | requirement | What a value must be: equal to one, one of several, within a range, or anything. |
//! | invariant | A selector and its requirement, from one line of the configuration. |
//! | settings | All invariants and the `[guard]` table: what the engine works from. |
//! | governing invariant | The one invariant that decides about a key: an exact name beats a pattern. |
//! | fact | What is known of a key: its meaning, how values compare, what the kernel sets with it. |
//! | expected | As the requirement says. |
//! | drift | A value that is not as expected, from then until it is again. |
//! | restore | To write the expected value, and read it back. |
//! | pending | It cannot be restored now: it, or what it needs, does not exist, or its owner goes first. |
//! | unreadable | It could not be read, so how it stands is unknown. |
//! | observe | The mode that reports drift and writes nothing. |
//! | contention | Another program keeps writing another value: restores are rate-limited. |
//! | source | What reports events: netlink, fanotify, D-Bus. Losing one costs speed or detail. |
//! | event | What the engine is given: a hint, an answer to an action, or a command. |
//! | hint | An event that says that a value may have changed. It is never believed: the value is read. |
//! | action | The actions that the engine requests. |
//! | effect | Code that performs actions: it writes values, logs, notifies systemd. |
//! | sweep | The periodic read of everything. |
//! | episode | A network restart, from its first job or link event until it settles. Users read "network restart", and of its cause "link changes" where no job is known. |
//! | writer | The process that wrote a value. |
//! | candidate | A process that may have been the writer. It is never reported as a fact. |
//! | record | One thing to log: an event of the journal with its fields. |
//! | sum | A record that stands for many drifts. |
//! | applier | A program that applies configuration files: systemd-sysctl, tuned, networkd. |
//! | conflict | A line of a file that would set a guarded key to another value. |
//! | remedy | What to change so that a conflict is gone. |
//! | leg | The path of a packet over the node, or that of the answer to it. |
//! | cause | Why packets do not arrive: a fact that is to be changed. |
//! | symptom | What is wrong at a place of a leg because of a cause, or without a known one. |
//! | degraded | netguard cannot do a part of its work, and reports which and why. |

#[macro_use]
mod words;

pub mod bucket;
pub mod conntrack;
pub mod diagnosis;
pub mod engine;
mod id;
pub mod kinds;
pub mod model;
mod reporting;
pub mod resource;
mod timers;

#[doc(hidden)]
pub use serde;
