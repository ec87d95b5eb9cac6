//! The socket of a slot as its reactor watches it: woken by what the worker says, not by what it hears.
//!
//! A unix stream tells its other end "there is room" each time a message is taken out of it, and epoll hands that on to
//! whoever asked for WRITABLE. tokio's own `UnixStream` always asks: every request that a worker received would wake
//! the reactor once for nothing. Frames nearly always fit, so room is asked for only when a send found none.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(super) struct SlotStream(AsyncFd<UnixStream>);

impl SlotStream {
    /// Inside the runtime of the reactor that is to be woken; the stream must not block.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        watch(stream, Interest::READABLE).map(Self)
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Runs `receive` unless it is known that nothing is there; `WouldBlock` from it means that all was taken.
    pub(super) fn try_receive(&self, receive: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.0.try_io(Interest::READABLE, |_| receive())
    }

    /// Waits for room, through a registration that lives only as long.
    pub(super) async fn writable(&self) -> io::Result<()> {
        let room = watch(self.as_fd().try_clone_to_owned()?, Interest::WRITABLE)?;
        room.writable().await.map(|mut guard| guard.retain_ready())
    }
}

impl AsFd for SlotStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// What is watched owns its descriptor, all the time.
#[expect(
    deprecated,
    reason = "sound for owners of a descriptor; its successor is unsafe, which is not allowed here"
)]
fn watch<T: AsFd + std::os::fd::AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}
