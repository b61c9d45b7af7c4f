//! What the account waits for, in one queue: signals, and lines from children.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use netguard_lab::{Error, Step};
use nix::libc::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// Which child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The network script.
    Script,
    /// netguard itself.
    Guard,
}

/// Something happened.
#[derive(Debug)]
pub enum News {
    /// A line of output.
    Line(Part, String),
    /// No more lines will come: the child has ended.
    End(Part),
    /// The demo was asked to end, by this signal.
    Signal(i32),
}

/// The queue.
pub struct Newsroom {
    sender: Sender<News>,
    receiver: Receiver<News>,
}

impl Newsroom {
    /// A queue that receives signals from now on.
    pub fn open() -> Result<Newsroom, Error> {
        let (sender, receiver) = channel();
        let signals = sender.clone();
        catch_signals(signals).map_err(|error| Error::new(Step::Thread, error))?;
        Ok(Newsroom { sender, receiver })
    }

    /// Sends every line of `pipe`.
    pub fn follow(&self, part: Part, pipe: impl Read + Send + 'static) -> Result<(), Error> {
        let sender = self.sender.clone();
        thread::Builder::new()
            .spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let _ = sender.send(News::Line(part, line));
                }
                let _ = sender.send(News::End(part));
            })
            .map(drop)
            .map_err(|error| Error::new(Step::Thread, error))
    }

    /// The next news, or nothing where none comes until then.
    pub fn next(&self, until: Instant) -> Option<News> {
        let left = until.saturating_duration_since(Instant::now());
        match self.receiver.recv_timeout(left) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is held"),
        }
    }
}

fn catch_signals(news: Sender<News>) -> io::Result<()> {
    let (mut woken, wake) = UnixStream::pair()?;
    let which = Arc::new(AtomicUsize::new(0));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // Actions run in the order of registration: first which, then wake.
        let number = usize::try_from(signal).map_err(io::Error::other)?;
        flag::register_usize(signal, Arc::clone(&which), number)?;
        low_level::pipe::register(signal, wake.try_clone()?)?;
    }
    thread::Builder::new()
        .spawn(move || {
            while woken.read_exact(&mut [0]).is_ok() {
                let signal = i32::try_from(which.load(Ordering::Relaxed)).unwrap_or(SIGTERM);
                if news.send(News::Signal(signal)).is_err() {
                    return;
                }
            }
        })
        .map(drop)
}
