//! How long a sysctl had drifted, by the kernel's own clock.
//!
//! The kernel's tracer stamps two system calls: the entry of the `write` with
//! which the writer sets the drifted value, and the exit of the `pwrite64` with
//! which netguard sets the right one. Between the two lies all the time in
//! which the value had drifted, and a little more on both sides.
//!
//! Nothing else runs. A process that read the value without a pause would take
//! one of two cores from the writer and the guard, and would be preempted by
//! the guard just when it should see the repair: with one, 200 us were
//! measured where the tracer says 100.

use std::fs;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::root::Root;

/// An instance of the tracer, removed when dropped.
pub struct Stopwatch {
    /// Where its file system is mounted, for this thread alone.
    tracing: PathBuf,
    instance: PathBuf,
}

impl Stopwatch {
    /// Starts it, for the program `writer` and the process `guard`.
    pub fn start(root: &Root, writer: &str, guard: u32) -> Self {
        let writer = writer.rsplit('/').next().expect("a name");
        let tracing = root.scratch_file("tracing");
        fs::create_dir_all(&tracing).expect("a folder to mount on");
        mount(
            Some("tracefs"),
            &tracing,
            Some("tracefs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("tracefs, which latency is measured with");
        let instance = tracing.join(format!("instances/netguard-test-{}", process::id()));
        fs::create_dir(&instance).expect("an instance of the tracer");
        let stopwatch = Stopwatch { tracing, instance };
        // One clock for all processors.
        stopwatch.set("trace_clock", "mono");
        for (event, filter) in [
            ("sys_enter_write", format!("COMM == \"{writer}\"")),
            ("sys_exit_pwrite64", one_of_threads(guard)),
        ] {
            let event = format!("events/syscalls/{event}");
            stopwatch.set(&format!("{event}/filter"), &filter);
            stopwatch.set(&format!("{event}/enable"), "1");
        }
        stopwatch
    }

    /// The time from each write to the repair after it, in order.
    pub fn stop(self) -> Vec<Duration> {
        self.set("tracing_on", "0");
        let trace = fs::read_to_string(self.instance.join("trace")).expect("a trace");
        repairs(&trace)
    }

    fn set(&self, file: &str, value: &str) {
        let file = self.instance.join(file);
        fs::write(&file, value)
            .unwrap_or_else(|error| panic!("{} = {value}: {error}", file.display()));
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        // What is left ends with the machine.
        let _ = fs::remove_dir(&self.instance);
        let _ = umount2(&self.tracing, MntFlags::MNT_DETACH);
    }
}

/// The tracer's filter for all threads of a process: what waits for the kernel's
/// lock is written by one of its own.
fn one_of_threads(process: u32) -> String {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    let names = threads.map(|thread| thread.expect("a thread").file_name());
    let filters = names.map(|name| format!("common_pid == {}", name.display()));
    filters.collect::<Vec<_>>().join(" || ")
}

/// Reads lines such as
///
/// ```text
/// zero-81-2332  [000] .....  5289.776542: sys_write(fd: 3, buf: 55dd85751e60, count: 2)
/// netguard-2261 [001] .....  5289.776675: sys_pwrite64 -> 0x1
/// ```
///
/// While someone else holds the lock of all network settings, the kernel
/// restarts such a write again and again, which shows as entries of the same
/// process, and exits with another result than the one byte written.
fn repairs(trace: &str) -> Vec<Duration> {
    let mut repairs = Vec::new();
    let mut written = None;
    for line in trace.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (process, at) = (fields[0], microseconds(fields[3]));
        if fields[4].starts_with("sys_write(") {
            let before = written.replace((process, at));
            let again = before.is_none_or(|(writer, _)| writer == process);
            assert!(again, "the write before was not repaired: {line}");
        } else if fields[4..] == ["sys_pwrite64", "->", "0x1"]
            && let Some((_, written)) = written.take()
        {
            repairs.push(Duration::from_micros(at - written));
        }
    }
    repairs
}

/// A stamp such as `5289.776542:`.
fn microseconds(stamp: &str) -> u64 {
    let digits: String = stamp.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("seconds with six decimals")
}
