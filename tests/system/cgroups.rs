//! Control groups of the container's own.
//!
//! Where systemd runs on this machine, systemd-nspawn has it make a scope.
//! Elsewhere the container would live in the root group, where its units would
//! be groups of this machine, and those of two containers the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PREFIX: &str = "netguard-test-";

/// A group in each hierarchy that systemd uses, removed when dropped.
pub struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    /// Makes them, and removes those that killed tests left behind.
    pub fn new() -> Self {
        if Path::new("/run/systemd/system").is_dir() {
            return Cgroups(Vec::new());
        }
        let mut groups = Vec::new();
        // cgroup v1 with and without the hybrid hierarchy, v2.
        for hierarchy in ["systemd", "unified", ""] {
            let hierarchy = Path::new("/sys/fs/cgroup").join(hierarchy);
            if !hierarchy.join("cgroup.procs").is_file() {
                continue;
            }
            remove_leftovers(&hierarchy);
            let group = hierarchy.join(format!("{PREFIX}{}", process::id()));
            fs::create_dir_all(&group).expect("a control group");
            groups.push(group);
        }
        Cgroups(groups)
    }

    /// Whether this machine's systemd takes care of them.
    pub fn managed(&self) -> bool {
        self.0.is_empty()
    }

    /// The words before a command that make it run in them.
    pub fn entering(&self) -> Vec<String> {
        let mut script = String::new();
        for group in &self.0 {
            script += &format!("echo $$ >{}/cgroup.procs; ", group.display());
        }
        script += "exec \"$@\"";
        ["sh", "-ec", &script, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for group in &self.0 {
            remove(group);
        }
    }
}

/// Ends and removes the containers of tests that have ended.
fn remove_leftovers(hierarchy: &Path) {
    for group in children(hierarchy) {
        let name = group.file_name().and_then(|name| name.to_str());
        let Some(pid) = name.and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            end(&group);
            remove(&group);
        }
    }
}

/// Kills what runs in a group and those in it.
fn end(group: &Path) {
    children(group).iter().for_each(|child| end(child));
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| line.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Removes a group and those in it, as far as nothing runs in them.
fn remove(group: &Path) {
    children(group).iter().for_each(|child| remove(child));
    let _ = fs::remove_dir(group);
}

fn children(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
