//! Interfaces by the hundred: veth pairs `caliN` and `peerN`, made by `ip`.

use std::fmt::Write as _;
use std::fs;

use super::Outcome;
use super::place::FOLDER;
use super::process::{Process, Scheduling, quietly};

/// The group that all of them are in: a group is deleted at one go.
const GROUP: &str = "7";

/// Runs `ip`.
pub fn ip(arguments: &[&str]) -> Outcome<()> {
    quietly("ip", arguments)
}

/// Adds so many interfaces, in pairs, at least one pair.
pub fn add(interfaces: usize) -> Outcome<()> {
    ip(&["-batch", &additions(interfaces)?])
}

/// Adds so many interfaces and deletes them again, `times` over, in a process
/// of its own.
pub fn storm(interfaces: usize, times: usize) -> Outcome<Process> {
    let file = additions(interfaces)?;
    let script = format!(
        "for i in $(seq {times}); do ip -batch {file} && ip link delete group {GROUP} || exit 1; done"
    );
    Process::start(Scheduling::Normal, "sh", &["-c", &script], &[])
}

/// A batch file for `ip`.
fn additions(interfaces: usize) -> Outcome<String> {
    let mut batch = String::new();
    for pair in 0..interfaces.div_ceil(2) {
        writeln!(
            batch,
            "link add cali{pair} group {GROUP} type veth peer name peer{pair} group {GROUP}"
        )?;
    }
    let file = format!("{FOLDER}/interfaces-{interfaces}");
    fs::write(&file, batch)?;
    Ok(file)
}
