//! Reads, writes and watches what is guarded; one folder for each way to the kernel.
//!
//! A driver decides nothing, and knows no other driver.

pub mod conntrack;
pub mod firewall;
pub mod rtnetlink;
pub mod sysctl;
pub mod system;
mod watched;
pub mod xfrm;

use crate::engine::{Event, ValueId};
use crate::model::Settings;
use crate::resource::{Resource, State};

/// What the engine's actions on single resources are performed by.
///
/// `news` takes what the engine must be given at once, in order. An answer that is
/// not among them comes later, by the loop's channel.
pub trait Driver {
    /// Watches a resource under this number from now on. `exact` is whether the
    /// configuration spells it out: where not all can be watched, these come first.
    fn watch(&mut self, id: ValueId, resource: &Resource, exact: bool, news: &mut Vec<Event>);

    /// No longer watches what has this number.
    fn unwatch(&mut self, id: ValueId, news: &mut Vec<Event>);

    /// Answers with [`Event::Read`].
    fn read(&mut self, id: ValueId, news: &mut Vec<Event>);

    /// Makes a resource what `state` says, and answers with [`Event::Written`].
    fn write(&mut self, id: ValueId, state: &State, news: &mut Vec<Event>);

    /// The answer to a write has been passed on by others.
    fn answered(&mut self, _id: ValueId) {}

    /// Whether it watches what has this number.
    fn watches(&self, id: ValueId) -> bool;

    /// Whether answers are still to come.
    fn is_busy(&self) -> bool {
        false
    }

    /// Takes what it must know of the settings in force.
    fn learn(&mut self, _settings: &Settings) {}

    /// A full scan begins: opens what is not open, and reads again what notifications may
    /// have missed.
    fn examine(&mut self) {}

    /// Gives back what was kept for resources that are gone.
    fn tidy(&mut self);

    /// Has the threads scheduled as this one that a repair may wait for. Those that wait for
    /// programs are not: these have no real time themselves.
    fn share_real_time(&mut self, _wanted: bool) {}
}
