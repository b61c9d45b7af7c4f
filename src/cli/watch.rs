//! `netguard watch`: the records as they come.

use std::io::{self, IsTerminal, stderr, stdout};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::history::{line, report_error};
use super::{args, exit, print};
use crate::config::Request;
use crate::journal::moment::Zone;
use crate::journal::read::{self as journal, Error, Place, Query, Stopper};

/// How many of those that were there before are shown, as `journalctl -f` and
/// `tail -f` do: they show the current state.
const BEFORE: usize = 10;

/// Prints each record as it comes, until interrupted or its output is closed.
///
/// # Errors
/// The exit code, where the journal cannot be read.
pub fn run(request: &Request, options: args::Watch) -> Result<u8, u8> {
    let query = Query {
        last: Some(BEFORE),
        follow: true,
        ..options.about.into()
    };
    let place = Place::of(&request.root);
    match (journal::obstacle(&request.root), &place) {
        (Some(error @ Error::Forbidden), _) => return Err(report_error(&error)),
        (Some(Error::NoJournal(folders)), Place::System) => print::note(&format!(
            "netguard: there is no journal in {folders} yet; waiting for one\n"
        )),
        _ => {}
    }
    let entries = journal::read(&place, query).map_err(|error| report_error(&error))?;
    if let Some(stopper) = entries.stopper() {
        end_with(stopper).map_err(|error| {
            print::note(&format!("netguard: {error}\n"));
            exit::TROUBLE
        })?;
    }
    if stderr().is_terminal() {
        print::note("waiting for netguard records; press Ctrl-C to stop\n");
    }
    let zone = Zone::local();
    for entry in entries {
        let end = match entry {
            Ok(entry) if options.json.json => print::json_line(&entry.to_json()),
            Ok(entry) => print::line(&line(&entry, &zone)),
            Err(error) if error.is_passing() => {
                report_error(&error);
                continue;
            }
            Err(error) => return Err(report_error(&error)),
        };
        if let Some(end) = end {
            return Ok(end);
        }
    }
    Ok(exit::OK)
}

/// Ends the reading at SIGINT or SIGTERM, and when standard output is closed
/// any more: without a record, no write would fail.
fn end_with(stopper: Stopper) -> io::Result<()> {
    let (bell, ringer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, ringer.try_clone()?)?;
    }
    thread::Builder::new()
        .name("end".to_owned())
        .spawn(move || {
            let stdout = stdout();
            let mut ends = [
                PollFd::new(bell.as_fd(), PollFlags::POLLIN),
                // Errors and hangup are always reported by poll.
                PollFd::new(stdout.as_fd(), PollFlags::empty()),
            ];
            while poll(&mut ends, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
            stopper.stop();
        })?;
    Ok(())
}
