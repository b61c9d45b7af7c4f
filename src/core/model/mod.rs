//! The words of the field as plain types: keys, values, requirements, invariants.
//!
//! Only `std` and serde are used here, and nothing here reads a file, a clock or a socket.
//! Every other room may depend on this one; this one depends on none.

mod conflict;
mod debounce;
mod errno;
pub mod facts;
mod governing;
mod invariant;
mod key;
mod overlap;
mod pattern;
mod requirement;
mod settings;
mod source;
pub mod text;
mod time;
mod value;
mod writer;

pub use conflict::{Application, Applier, Conflict, Reach};
pub use debounce::Debounce;
pub use errno::{Errno, Fault};
pub use governing::Governing;
pub use invariant::{Invariant, Mode, Origin, Selector};
pub use key::{Family, InterfaceFolder, KeyError, SysctlKey, Target, may_be_interface};
pub use overlap::names_apart;
pub use pattern::{Pattern, Segment, is_glob, matches_glob};
pub use requirement::{Requirement, RequirementError};
pub use settings::{ConntrackSettings, GuardSettings, Implied, Interest, Settings, UNIT_TYPES};
pub use source::Source;
pub use time::{Monotonic, microseconds, usec};
pub use value::Value;
pub use writer::{Attribution, KnownBy, Parent, Process, Unknown, Writer, WriterId};

/// In JSON they are what people write.
macro_rules! serialize_as_text {
    ($($name:ident)+) => {
        $(impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        })+
    };
}

serialize_as_text!(Selector SysctlKey Value);
