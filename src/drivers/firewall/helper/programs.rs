//! Programs that are run and waited for, each for a limited time.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::super::protocol::{Fault, LONGEST};
use crate::words::plain;

/// Where programs are looked for.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// How long a program may run.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// The most that is kept of what a program reports on standard error.
const COMPLAINT: usize = 4096;

/// Whom this process runs programs for: they are killed when that has closed the connection.
/// Not set where it runs them for itself.
pub(super) static CLIENT: OnceLock<UnixStream> = OnceLock::new();

/// The end of the client's connection, to be waited for.
fn end_of_client() -> Option<PollFd<'static>> {
    let client = CLIENT.get()?;
    Some(PollFd::new(client.as_fd(), PollFlags::empty()))
}

/// Whether the client has closed its connection.
fn is_without_client() -> bool {
    let Some(end) = end_of_client() else {
        return false;
    };
    let mut end = [end];
    poll(&mut end, PollTimeout::ZERO).is_ok() && end[0].any() == Some(true)
}

/// The number of what shows that a program does not run at all.
pub(super) const NOT_RUN: i32 = libc::ELIBACC;

/// Whether this shows only that a program does not run, or does not end by itself.
pub(super) fn has_not_run(fault: &Fault) -> bool {
    [NOT_RUN, libc::EIO, libc::ETIME].contains(&fault.errno)
}

/// How often a program is looked at whose end is waited for.
pub(super) const INTERVAL: Duration = Duration::from_millis(1);

/// What a program has printed, and its exit code.
#[derive(Debug)]
pub struct Ran {
    /// The number that its process had.
    pub pid: u32,
    /// Its exit code; none where a signal has killed it.
    pub code: Option<i32>,
    /// Standard output.
    pub printed: String,
    /// Why it failed, where it did: the first complaint on standard error, or how it ended.
    pub complaint: String,
    /// The lines before it.
    pub warnings: String,
}

impl Ran {
    /// What it printed, where it has not failed.
    ///
    /// # Errors
    /// As [`fault`](Self::fault).
    pub fn done(self, errno: impl FnOnce(&str) -> i32) -> Result<String, Fault> {
        match self.code {
            Some(0) => Ok(self.printed),
            _ => Err(self.fault(errno)),
        }
    }

    /// Why it failed, with the number that `errno` gives the complaint of one that was not
    /// killed.
    pub fn fault(&self, errno: impl FnOnce(&str) -> i32) -> Fault {
        let complaint = self.complaint.as_str();
        let errno = self.code.map_or(libc::EIO, |_| errno(complaint));
        Fault::new(errno, complaint)
    }
}

/// The program of this name, in one of the folders of the system.
pub fn find(name: &str) -> Option<PathBuf> {
    let mut paths = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    paths.find(|path| path.exists())
}

/// A program that is given commands, and complains, by pipes.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", FOLDERS.join(":"))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a program with this on standard input.
///
/// # Errors
/// Where it could not be started, was not over in time, or printed too much.
pub fn run(program: &Path, arguments: &[&str], input: &str) -> Result<Ran, Fault> {
    run_when(program, arguments, input, |_| ())
}

/// As [`run`], with a process that is given its input when `wait_for`, which gets its number,
/// returns: it has started by then.
///
/// # Errors
/// As there.
pub(super) fn run_when(
    program: &Path,
    arguments: &[&str],
    input: &str,
    wait_for: impl FnOnce(u32),
) -> Result<Ran, Fault> {
    let failed = |errno, text: &str| Fault::new(errno, format!("{}: {text}", program.display()));
    let mut child = command(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(NOT_RUN, &plain(&error)))?;
    wait_for(child.id());
    let deadline = Instant::now() + DEADLINE;
    let talked = talk(&mut child, input.as_bytes(), deadline);
    let status = match talked {
        Ok(_) => wait(&mut child, deadline),
        Err(_) => wait(&mut child, Instant::now()),
    };
    let (printed, complaint) = talked.map_err(|errno| failed(errno as i32, errno.desc()))?;
    let Some(status) = status else {
        return Err(failed(libc::ETIME, "killed, as it did not end in 10 s"));
    };
    if printed.len() >= LONGEST as usize {
        return Err(failed(libc::EFBIG, "it printed too much"));
    }
    let warnings: Vec<&str> = complaint.lines().take_while(is_warning).collect();
    let first = first(&complaint).filter(|_| status.code().is_some());
    Ok(Ran {
        pid: child.id(),
        code: status.code(),
        printed,
        complaint: first.unwrap_or_else(|| failed(0, &format!("ended with {status}")).text),
        warnings: warnings.join("\n"),
    })
}

/// What is printed on standard error, in part, by programs that go on: by iptables-restore 1.4.21,
/// which does not know the lock of the tables, and by an ipset that is older than the kernel.
const WARNINGS: [&str; 2] = [
    "unrecognized option '--wait",
    "Kernel support protocol versions",
];

/// Whether a line on standard error is none that a program fails for.
fn is_warning(line: &&str) -> bool {
    let is_known = WARNINGS.iter().any(|it| line.contains(it));
    line.trim().is_empty() || line.starts_with('#') || is_known
}

/// The first complaint on standard error. iptables-nft-restore puts what the kernel refused on
/// the line after its own name.
fn first(complaints: &str) -> Option<String> {
    let mut lines = complaints.lines().filter(|line| !is_warning(line));
    let first = lines.next()?.trim_end();
    let rest = lines.next().filter(|_| first.ends_with(':'));
    Some(rest.map_or_else(|| first.to_owned(), |rest| format!("{first} {rest}")))
}

/// How a program has ended, which is killed with all that it has started where it is
/// not over in time.
fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline && !is_without_client() => {
                thread::sleep(INTERVAL);
            }
            _ => break,
        }
    }
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    // It may have ended just now.
    let _ = group.map(|group| killpg(group, Signal::SIGKILL));
    let _ = child.wait();
    None
}

/// Gives a program its input and takes what it prints, until it has closed its output or has
/// no time left. One thread does all of it: the kernel may refuse more.
fn talk(child: &mut Child, input: &[u8], deadline: Instant) -> nix::Result<(String, String)> {
    let mut input = Input {
        to: child.stdin.take(),
        rest: input,
    };
    let mut printed = Output::of(child.stdout.take(), LONGEST as usize);
    let mut complaint = Output::of(child.stderr.take(), COMPLAINT);
    let ends = [
        input.to.as_ref().map(AsFd::as_fd),
        printed.from.as_ref().map(AsFd::as_fd),
        complaint.from.as_ref().map(AsFd::as_fd),
    ];
    for end in ends.into_iter().flatten() {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    while printed.from.is_some() || complaint.from.is_some() {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if left == PollTimeout::ZERO || is_without_client() {
            break;
        }
        let mut polled = Vec::from_iter(end_of_client());
        polled.extend(
            input
                .to
                .iter()
                .map(|it| PollFd::new(it.as_fd(), PollFlags::POLLOUT)),
        );
        polled.extend(
            printed
                .from
                .iter()
                .map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)),
        );
        polled.extend(
            complaint
                .from
                .iter()
                .map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut polled, left) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        input.give();
        printed.take();
        complaint.take();
    }
    Ok((printed.text(), complaint.text()))
}

/// What a program has not read yet.
struct Input<'a> {
    to: Option<ChildStdin>,
    rest: &'a [u8],
}

impl Input<'_> {
    /// Writes as much as there is room for. A program may end without reading all of it, and
    /// says why.
    fn give(&mut self) {
        let written = match &mut self.to {
            Some(to) => to.write(self.rest),
            None => return,
        };
        match written {
            Ok(count) => self.rest = &self.rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.rest = &[],
        }
        if self.rest.is_empty() {
            self.to = None;
        }
    }
}

/// What a program has printed.
struct Output<T> {
    /// Nothing once it is closed.
    from: Option<T>,
    bytes: Vec<u8>,
    longest: usize,
}

impl<T: Read> Output<T> {
    fn of(from: Option<T>, longest: usize) -> Output<T> {
        let bytes = Vec::new();
        Output {
            from,
            bytes,
            longest,
        }
    }

    /// Takes what there is. What is too much is dropped: a program that is still writing must
    /// not be killed by a closed pipe.
    fn take(&mut self) {
        let mut buffer = [0; 64 << 10];
        let read = self.from.as_mut().map(|it| it.read(&mut buffer));
        match read {
            Some(Ok(count)) if count > 0 => {
                let room = self.longest - self.bytes.len();
                self.bytes.extend(&buffer[..count.min(room)]);
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => self.from = None,
        }
    }

    fn text(self) -> String {
        String::from_utf8(self.bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_reads_all_and_what_it_prints_is_known() {
        let input = "0123456789abcde\n".repeat(1 << 16);
        let shell = find("sh").expect("a shell");
        let run = |script| run(&shell, &["-c", script], &input).expect("a program");
        let ran = run("cat; echo '# a warning' >&2; echo why >&2; exit 3");
        assert_eq!((ran.code, ran.complaint.as_str()), (Some(3), "why"));
        assert_eq!(ran.printed, input);
        let ran = run("echo 'program: ' >&2; echo why >&2; echo help >&2; exit 4");
        assert_eq!(ran.complaint, "program: why");
        let ran = run("echo \"program: unrecognized option '--wait=1'\" >&2; echo why >&2; exit 2");
        assert_eq!(ran.complaint, "why");
        let ran = run(
            "echo 'ipset v6.29: Kernel support protocol versions 6-7 while userspace \
             supports protocol versions 6-6' >&2; echo why >&2; exit 1",
        );
        assert_eq!(ran.complaint, "why");
        // One that reads nothing, and prints more than is kept.
        let ran = run("seq 10000 >&2; kill $$");
        assert_eq!(ran.code, None);
        let why = ran.fault(|_| 0).text;
        assert!(
            why.ends_with("sh: ended with signal: 15 (SIGTERM)"),
            "{why}"
        );
        let why = run("exit 3").fault(|_| 0).text;
        assert!(why.ends_with("sh: ended with exit status: 3"), "{why}");
    }
}
