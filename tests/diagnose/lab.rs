//! The program on a node of the lab.

use std::fs::{self, Permissions};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

pub use netguard_lab::{
    Host, OUTSIDE, OUTSIDE_V6, POD_LINK, POD_V6, REMOTE, Style, UNTIL_ANSWERED,
};
use serde_json::Value;

use crate::scratch::Scratch;

/// A lab whose node has the program.
pub struct Lab(netguard_lab::Lab);

impl Deref for Lab {
    type Target = netguard_lab::Lab;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Lab {
    /// A node that forwards and translates.
    pub fn new(style: Style) -> Lab {
        Lab(netguard_lab::Lab::new(style))
    }

    /// What the program finds: its exit code, and what it prints as JSON.
    pub fn diagnose(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.netguard(&[arguments, &["--json"]].concat());
        let complaint = String::from_utf8_lossy(&output.stderr);
        let found = serde_json::from_slice(&output.stdout);
        let found = found.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {complaint}"));
        (output.status.code().expect("an exit code"), found)
    }

    /// As [`Lab::diagnose`], of what the pod sends outside.
    pub fn of_pod(&self) -> (i32, Value) {
        self.diagnose(&[self.style.pod(), OUTSIDE])
    }

    /// Runs the program on the node.
    pub fn netguard(&self, arguments: &[&str]) -> Output {
        let mut command: Command = self.node.namespace.command(env!("CARGO_BIN_EXE_netguard"));
        // The configuration of this machine is another node's.
        command.args(["--config", "/dev/null", "diagnose"]);
        command.args(arguments).output().expect("netguard")
    }

    /// What the program prints with the configuration and the journal of a folder: its file
    /// `records`, as journalctl(1) prints it. What a node's journal has is not known.
    pub fn with_journal(&self, folder: &Scratch, arguments: &[&str]) -> String {
        let records = folder.0.join("records");
        folder.write(
            "bin/journalctl",
            format!("#!/bin/sh\nexec cat {}\n", records.display()),
        );
        let program = folder.0.join("bin/journalctl");
        fs::set_permissions(program, Permissions::from_mode(0o755)).expect("a mode");
        let programs = folder.0.join("bin");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
        let mut command = self.node.namespace.command(env!("CARGO_BIN_EXE_netguard"));
        command.arg("--config").arg(folder.0.join("netguard.toml"));
        command.arg("diagnose").args(arguments);
        let output = command.env("PATH", path).env("TZ", "UTC").output();
        String::from_utf8(output.expect("netguard").stdout).expect("UTF-8")
    }
}

/// The causes, first cause first.
pub fn causes(found: &Value) -> Vec<&Value> {
    let rows = found["rows"].as_array().expect("rows");
    rows.iter().filter_map(|row| row.get("cause")).collect()
}
