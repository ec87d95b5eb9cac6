//! The sending half of a long link: frames of many streams, in one buffer.
//!
//! Nearly always the kernel takes a frame at once, on the thread of who sends it. What it does not take waits in the
//! buffer for [`Out::drain`]. Data has to be paid for before it is put here ([`Out::room`], in the order of asking), so the
//! buffer is bounded; credits and cancels need no room: there are a few of them for each stream.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::SendFlags;
use tokio::sync::{Notify, Semaphore};

use super::super::stream::SlotStream;
use super::LinkGone;

/// Data that may wait for the worker: a few times what the kernel's buffer of the socket holds.
const WAITING_BYTES_MAX: u32 = 512 << 10;

/// A buffer that grew is given back above this.
const KEPT_BYTES: usize = 64 << 10;

/// See the head of this file.
pub(super) struct Out {
    waiting: Mutex<Waiting>,
    room: Semaphore,
    to_drain: Notify,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    sent: usize,
    /// Room taken by what is in the buffer.
    lent: usize,
    closed: bool,
}

impl Out {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            room: Semaphore::new(WAITING_BYTES_MAX as usize),
            to_drain: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` of data may be put. Cancel safe.
    pub(super) async fn room(&self, bytes: usize) -> Result<Room<'_>, LinkGone> {
        // What is larger than all of the room goes when all of it is free.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(WAITING_BYTES_MAX);
        match self.room.acquire_many(bytes).await {
            Ok(permit) => Ok(Room { permit }),
            Err(_closed) => Err(LinkGone),
        }
    }

    /// Sends frames that `write` appends, or keeps them to be sent.
    pub(super) fn put(&self, socket: &SlotStream, room: Option<Room<'_>>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = self.waiting();
        if waiting.closed {
            return;
        }
        if let Some(Room { permit }) = room {
            waiting.lent += permit.num_permits();
            permit.forget();
        }
        let first = waiting.bytes.is_empty();
        write(&mut waiting.bytes);
        // Whoever finds bytes before his own knows that the drain is at work.
        if first && self.send(&mut waiting, socket).is_err() {
            self.to_drain.notify_one();
        }
    }

    /// Sends what waits, for ever; returns when the socket fails.
    pub(super) async fn drain(&self, socket: &SlotStream) -> io::Error {
        loop {
            let sent = {
                let mut waiting = self.waiting();
                self.send(&mut waiting, socket)
            };
            match sent {
                Ok(()) => self.to_drain.notified().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = socket.writable().await {
                        return error;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// Is all sent?
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().bytes.is_empty()
    }

    fn send(&self, waiting: &mut Waiting, socket: &SlotStream) -> io::Result<()> {
        while let rest @ [_, ..] = waiting.bytes.get(waiting.sent..).unwrap_or_default() {
            let sent = match rustix::net::send(socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(error) => {
                    // A buffer that is never empty must not keep what it has sent.
                    if waiting.sent >= KEPT_BYTES {
                        waiting.bytes.drain(..waiting.sent);
                        waiting.sent = 0;
                    }
                    return Err(error.into());
                }
            };
            waiting.sent += sent;
            let free = sent.min(waiting.lent);
            waiting.lent -= free;
            self.room.add_permits(free);
        }
        self.room.add_permits(std::mem::take(&mut waiting.lent));
        waiting.bytes.clear();
        waiting.sent = 0;
        waiting.bytes.shrink_to(KEPT_BYTES);
        Ok(())
    }

    /// Nothing is sent any more; who waits for room is told.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        *waiting = Waiting { closed: true, ..Waiting::default() };
        drop(waiting);
        self.room.close();
    }
}

/// Room for data, given back on drop.
pub(super) struct Room<'a> {
    permit: tokio::sync::SemaphorePermit<'a>,
}
