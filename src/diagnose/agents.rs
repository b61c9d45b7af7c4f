//! Which of the programs run that write routes and rules for pods.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::dbus::Addresses;
use crate::diagnosis::observed::{Agents, Seen, UnitState};
use crate::drivers::system::inspect;
use crate::journal::moment::Zone;
use crate::kinds::OWNERS;
use crate::process_namespaces::is_in_initial_pid_namespace;
use crate::words::plain;

/// How long systemd is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Their units and processes.
pub fn read() -> Agents {
    Agents {
        units: units(),
        processes: processes(),
    }
}

fn units() -> Seen<Vec<UnitState>> {
    let names: BTreeSet<&str> = OWNERS.iter().flat_map(|it| it.units).copied().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let found = inspect::units(&Addresses::default(), &names, PATIENCE)?;
    let zone = Zone::local();
    let state = |(name, unit): (&str, Option<_>)| {
        let unit: crate::dbus::unit::UnitProperties = unit?;
        let is_there = unit.load_state.as_deref() == Some("loaded");
        let since = unit.inactive_since.filter(|usec| *usec > 0);
        Some(UnitState {
            name: name.to_owned(),
            active: unit.active_state.filter(|_| is_there)?,
            since: since.map(|usec| zone.show(usec, false)),
        })
    };
    Ok(names.into_iter().zip(found).filter_map(state).collect())
}

/// The names of all processes that are one of them.
fn processes() -> Seen<BTreeSet<String>> {
    if !is_in_initial_pid_namespace() {
        return Err("not all processes of the node are visible".to_owned());
    }
    let entries = fs::read_dir("/proc").map_err(|error| plain(&error))?;
    let names = entries.flatten().filter_map(|it| {
        it.file_name().to_str()?.parse::<u32>().ok()?;
        let name = fs::read_to_string(it.path().join("comm")).ok()?;
        Some(name.trim_end().to_owned())
    });
    let is_known = |name: &String| {
        let mut programs = OWNERS.iter().flat_map(|it| it.programs);
        programs.any(|it| it == name)
    };
    Ok(names.filter(is_known).collect())
}
