//! Tables of nf_tables that no other program can remove: nft makes each with the flag `owner`, and
//! a process of its holds it for as long as it runs.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::protocol::Fault;
use super::programs::{DEADLINE, command};
use crate::resource::{NftTable, TableContents};
use crate::words::plain;

/// A command that nft complains of, so that all before it are known to be done.
const MARK: &str = "netguard-is-done";

/// The most that is kept of what nft complains of.
const COMPLAINT: usize = 4096;

/// A table of a helper that was killed goes with its nft, soon.
const PREDECESSOR: (Duration, u32) = (Duration::from_millis(20), 50);

/// The processes of nft, each with the table that it holds.
#[derive(Debug, Default)]
pub struct Pins(HashMap<NftTable, Session>);

impl Pins {
    /// Makes a table, or replaces what is in it. Returns the process that holds it.
    ///
    /// # Errors
    /// What nft complains of: ENOTUNIQ where another program has a table with this name,
    /// EOPNOTSUPP where nft or the kernel has no tables with an owner.
    pub fn pin(
        &mut self,
        nft: &Path,
        table: &NftTable,
        contents: &TableContents,
    ) -> Result<u32, Fault> {
        let name = table.spelled();
        let (own, all) = (one_line(&contents.of_table()), one_line(&contents.text()));
        let made = format!(
            "create table {name} {{ flags owner; {own}}}; table {name} {{ flags owner; {all}}}"
        );
        if let Some(session) = self.0.get_mut(table) {
            session.run(&format!("delete table {name}; {made}"))?;
            return Ok(session.child.id());
        }
        let mut session = Session::start(nft)?;
        let (pause, tries) = PREDECESSOR;
        for _ in 1..tries {
            match session.run(&made) {
                Err(fault) if fault.errno == libc::ENOTUNIQ => thread::sleep(pause),
                result => {
                    result?;
                    let pid = session.child.id();
                    self.0.insert(table.clone(), session);
                    return Ok(pid);
                }
            }
        }
        let text = format!("there is another table {name}, which is left alone");
        Err(Fault::new(libc::ENOTUNIQ, text))
    }

    /// Lets all go but these.
    pub fn keep(&mut self, tables: &[NftTable]) {
        self.0.retain(|table, _| tables.contains(table));
    }

    /// What shows the end of each process.
    pub fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.values().map(|it| it.complaints.as_fd())
    }
}

/// nft(8) that takes one command after another. Its tables go when it ends.
#[derive(Debug)]
struct Session {
    child: Child,
    complaints: ChildStderr,
}

impl Session {
    fn start(nft: &Path) -> Result<Session, Fault> {
        let failed = |error: &std::io::Error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            Fault::new(errno, format!("{}: {}", nft.display(), plain(error)))
        };
        let mut child = command(nft)
            .arg("-i")
            // It would keep a history there.
            .env("HOME", "/dev/null")
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| failed(&error))?;
        let complaints = child.stderr.take().ok_or_else(Fault::unexpected)?;
        let set = fcntl(&complaints, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        set.map_err(|errno| failed(&errno.into()))?;
        Ok(Session { child, complaints })
    }

    /// Runs a line of commands: one transaction.
    fn run(&mut self, line: &str) -> Result<(), Fault> {
        let stdin = self.child.stdin.as_mut().ok_or_else(Fault::unexpected)?;
        let lines = format!("{line}\n{MARK}\n");
        let written = stdin.write_all(lines.as_bytes());
        let complaint = written.and_then(|()| self.complaint());
        let complaint = complaint.map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            Fault::new(errno, format!("nft -i: {}", plain(&error)))
        })?;
        let Some(first) = complaint.lines().find(|it| it.contains("Error")) else {
            return Ok(());
        };
        let errno = match first {
            it if it.ends_with("File exists") => libc::ENOTUNIQ,
            it if it.contains("not supported") || it.contains("owner") => libc::EOPNOTSUPP,
            _ => libc::EINVAL,
        };
        Err(Fault::new(errno, first.to_owned()))
    }

    /// What it complains of besides the mark.
    fn complaint(&mut self) -> std::io::Result<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut text = String::new();
        loop {
            if let Some((before, _)) = text.split_once(MARK) {
                // Its complaint of the mark is on the line before that.
                let before = before.trim_end_matches('\n');
                let end = before.rfind('\n').map_or(0, |at| at + 1);
                return Ok(before[..end].chars().take(COMPLAINT).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(std::io::Error::from_raw_os_error(libc::ETIME));
            }
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            poll(
                &mut [PollFd::new(self.complaints.as_fd(), PollFlags::POLLIN)],
                left,
            )?;
            let mut bytes = [0; COMPLAINT];
            match self.complaints.read(&mut bytes) {
                Ok(0) => return Err(std::io::ErrorKind::BrokenPipe.into()),
                Ok(length) => text.push_str(&String::from_utf8_lossy(&bytes[..length])),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that nft(8) lists as one, as it reads commands by lines.
fn one_line(text: &str) -> String {
    let end = |line: &str| if line.ends_with('{') { " " } else { "; " };
    let lines = text.lines();
    lines.map(|line| format!("{line}{}", end(line))).collect()
}
