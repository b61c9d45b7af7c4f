//! Signals: what an administrator or systemd asks of the process itself.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{Receiver, channel};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Load the configuration again (SIGHUP).
    Reload,
    /// End (SIGTERM, SIGINT).
    Terminate,
}

/// The signals of the process, from [`signals`] until this is dropped. After
/// that they are ignored.
#[derive(Debug)]
pub struct Signals {
    reload: Receiver<()>,
    terminate: Receiver<()>,
}

/// Takes SIGHUP, SIGTERM and SIGINT over. None is lost from here on.
///
/// # Errors
/// Where no descriptor is left or the kernel refuses the handlers.
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub fn signals() -> io::Result<Signals> {
    Ok(Signals {
        reload: rings(Bell::new(&[SIGHUP])?),
        terminate: rings(Bell::new(&[SIGTERM, SIGINT])?),
    })
}

impl Signals {
    /// The next signal, or the one that came since the last call. Several of
    /// one kind are one; termination comes first. Nothing is lost where
    /// this is cancelled.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.reload.recv() => Signal::Reload,
        }
    }
}

/// Whether a bell has rung. The loop asks in each of its rounds, which costs ten times as
/// much of a socket.
fn rings(bell: Bell) -> Receiver<()> {
    let (sender, receiver) = channel(1);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                // Where it has rung already, that is enough.
                () = bell.rung() => drop(sender.try_send(())),
                () = sender.closed() => return,
            }
        }
    });
    receiver
}

/// A socket pair that the handlers of some signals write to.
#[derive(Debug)]
struct Bell {
    reader: UnixStream,
    handlers: Vec<SigId>,
}

impl Bell {
    fn new(signals: &[i32]) -> io::Result<Self> {
        let (reader, writer) = StdUnixStream::pair()?;
        reader.set_nonblocking(true)?;
        let mut bell = Bell {
            reader: UnixStream::from_std(reader)?,
            handlers: Vec::with_capacity(signals.len()),
        };
        for signal in signals {
            let handler = pipe::register(*signal, writer.try_clone()?)?;
            bell.handlers.push(handler);
        }
        Ok(bell)
    }

    /// Waits for a signal, and takes all that have come.
    async fn rung(&self) {
        let mut rung = false;
        let mut bytes = [0; 64];
        loop {
            match self.reader.try_read(&mut bytes) {
                // The handlers keep the other end as long as this one exists.
                Ok(0) => break,
                Ok(_) => rung = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if rung {
                        return;
                    }
                    if self.reader.readable().await.is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if !rung {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            unregister(handler);
        }
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::low_level::raise;

    use super::*;

    /// One test, since signals belong to the whole process.
    #[tokio::test]
    async fn signals_are_reported_once_and_the_end_first() {
        let mut signals = signals().expect("handlers");
        for signal in [SIGHUP, SIGHUP, SIGTERM, SIGHUP, SIGINT] {
            raise(signal).expect("a signal");
        }
        assert_eq!(signals.next().await, Signal::Terminate);
        assert_eq!(signals.next().await, Signal::Reload);
        tokio::select! {
            biased;
            signal = signals.next() => panic!("{signal:?} was reported twice"),
            () = tokio::task::yield_now() => {}
        }
        for _ in 0..10_000 {
            raise(SIGHUP).expect("a signal");
        }
        assert_eq!(signals.next().await, Signal::Reload);
        raise(SIGINT).expect("a signal");
        assert_eq!(signals.next().await, Signal::Terminate);
    }
}
