//! Network namespaces without names: nothing of them stays behind.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::{process, thread};

use nix::sched::{CloneFlags, unshare};

/// A network namespace, alive as long as this (or someone inside it).
pub struct Namespace(File);

impl Namespace {
    /// A new one with nothing in it but a loopback interface that is down.
    pub fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            File::open("/proc/thread-self/ns/net").expect("this thread's network namespace")
        });
        Namespace(made.join().expect("a network namespace"))
    }

    /// That of a process.
    pub fn of(pid: u32) -> Self {
        Namespace(File::open(format!("/proc/{pid}/ns/net")).expect("a network namespace"))
    }

    /// A path to it, for as long as this lives, that `ip` and `nsenter` take.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// A command in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path()))
            .args(["--", program]);
        command
    }

    /// Runs `ip` in it with a line of arguments.
    pub fn ip(&self, line: &str) {
        let mut ip = self.command("ip");
        let output = ip
            .args(line.split_whitespace())
            .output()
            .expect("ip and nsenter");
        assert!(output.status.success(), "ip {line}: {output:?}");
    }
}
