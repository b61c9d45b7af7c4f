//! Programs that are run and waited for, each for a limited time.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::super::protocol::{Fault, LONGEST};

/// Where programs are looked for.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// How long a program may run.
const DEADLINE: Duration = Duration::from_secs(10);

/// The most that is kept of what a program reports on standard error.
const COMPLAINT: u64 = 4096;

/// How often a program is asked for its end that has closed its output.
const INTERVAL: Duration = Duration::from_millis(1);

/// What a program has printed, and its exit code.
#[derive(Debug)]
pub struct Ran {
    /// The number that its process had.
    pub pid: u32,
    /// Its exit code; none where a signal has killed it.
    pub code: Option<i32>,
    /// Standard output.
    pub printed: String,
    /// The first line of standard error that is no warning.
    pub complaint: String,
}

/// The program of this name, in one of the folders of the system.
pub fn find(name: &str) -> Option<PathBuf> {
    let mut paths = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    paths.find(|path| path.exists())
}

/// Runs a program with this on standard input.
///
/// # Errors
/// Where it could not be started, was not over in time, or printed too much.
pub fn run(program: &Path, arguments: &[&str], input: &str) -> Result<Ran, Fault> {
    let failed = |errno, text: &str| Fault::new(errno, format!("{}: {text}", program.display()));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", FOLDERS.join(":"))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            failed(errno, &error.to_string())
        })?;
    let deadline = Instant::now() + DEADLINE;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (done, printed) = channel();
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            // It may end without reading all of it, and says why.
            stdin.map(|mut it| it.write_all(input.as_bytes()))
        });
        let complaint = scope.spawn(|| text(stderr, COMPLAINT));
        scope.spawn(move || done.send(text(stdout, LONGEST.into())));
        let printed = printed.recv_timeout(DEADLINE).ok();
        let code = wait(&mut child, deadline);
        (printed, code, complaint.join().unwrap_or_default())
    });
    let (Some(printed), Some(code), complaint) = result else {
        return Err(failed(libc::ETIME, "killed, as it did not end in 10 s"));
    };
    if printed.len() >= LONGEST as usize {
        return Err(failed(libc::EFBIG, "it printed too much"));
    }
    let is_warning = |line: &&str| line.trim().is_empty() || line.starts_with('#');
    let first = complaint.lines().find(|line| !is_warning(line));
    Ok(Ran {
        pid: child.id(),
        code,
        printed,
        complaint: first.unwrap_or_default().to_owned(),
    })
}

/// The exit code of a program, which is killed with all that it has started where it is
/// not over in time.
fn wait(child: &mut Child, deadline: Instant) -> Option<Option<i32>> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.code()),
            Ok(None) if Instant::now() < deadline => thread::sleep(INTERVAL),
            _ => break,
        }
    }
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    // It may have ended just now.
    let _ = group.map(|group| killpg(group, Signal::SIGKILL));
    let _ = child.wait();
    None
}

fn text(from: Option<impl Read>, longest: u64) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        // What was read until an error is what there is.
        let _ = from.by_ref().take(longest).read_to_end(&mut bytes);
        // A program that is still writing must not be killed by a closed pipe.
        let _ = std::io::copy(&mut from, &mut std::io::sink());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
