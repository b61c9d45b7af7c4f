//! Waiting until a descriptor can be read: tokio asks its caller to vouch that
//! the descriptor stays open meanwhile.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::fanotify::Fanotify;
use nix::sys::inotify::Inotify;
use nix::sys::timerfd::TimerFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A type that owns one descriptor from its making to its drop, and never
/// exchanges it for another. What [`Readiness::new`] relies on.
trait OwnsDescriptor: AsFd {}

impl OwnsDescriptor for netlink_sys::Socket {}
impl OwnsDescriptor for Fanotify {}
impl OwnsDescriptor for Inotify {}
impl OwnsDescriptor for TimerFd {}
impl OwnsDescriptor for UnixStream {}

#[derive(Debug)]
struct Owner<T>(T);

impl<T: OwnsDescriptor> AsRawFd for Owner<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A descriptor's owner, and when there is something to read from it.
#[derive(Debug)]
#[expect(private_bounds, reason = "the list of owners is closed")]
pub struct Readiness<T: OwnsDescriptor>(AsyncFd<Owner<T>>);

#[expect(private_bounds, reason = "the list of owners is closed")]
impl<T: OwnsDescriptor> Readiness<T> {
    /// Registers a descriptor that does not block.
    ///
    /// # Errors
    /// Where epoll refuses it.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn new(owner: T) -> io::Result<Self> {
        // SAFETY: `owner` owns its descriptor and keeps the same one until it
        // is dropped (`OwnsDescriptor`). It is moved into the AsyncFd, which
        // hands out shared references only (`get`), so it lives as long.
        // Only what can be read wakes the loop.
        let registered =
            unsafe { AsyncFd::register_with_interest(Owner(owner), Interest::READABLE) };
        Ok(Readiness(registered?))
    }

    /// The owner.
    pub fn get(&self) -> &T {
        &self.0.get_ref().0
    }

    /// Returns the owner; the descriptor is no longer waited for.
    pub fn release(self) -> T {
        self.0.into_inner().0
    }

    /// Waits until `read` does not answer that it would block, and returns its
    /// answer. Nothing is lost where this is cancelled.
    ///
    /// # Errors
    /// Those of `read`, and of a runtime that is shutting down.
    pub async fn read<R, E: Into<io::Error>>(
        &self,
        mut read: impl FnMut(&T) -> Result<R, E>,
    ) -> io::Result<R> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(result) = guard.try_io(|owner| read(&owner.get_ref().0).map_err(E::into)) {
                return result;
            }
        }
    }
}
