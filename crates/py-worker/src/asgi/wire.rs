//! A stream to the gateway that never blocks: what the socket does not take at once waits here. Knows no Python.
//!
//! What waits is bounded by who writes: they send a frame only while nothing waits ([`Wire::is_clear`]), but for the small
//! ones that carry no body (credit, the end of an exchange).

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::link::Gone;

/// What the outbox keeps when it is empty.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// See the file's head.
pub(crate) struct Wire {
    socket: Arc<OwnedFd>,
    /// Not sent yet: `outbox[start..]`.
    outbox: Vec<u8>,
    start: usize,
    /// Descriptors, each with the place in the outbox of the frame it goes with.
    files: VecDeque<(usize, OwnedFd)>,
    broken: bool,
}

impl Wire {
    /// Connects. Fails at once with `AGAIN` when the gateway's backlog is full.
    pub(crate) fn connect(path: &Path) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self {
            socket: Arc::new(socket),
            outbox: Vec::new(),
            start: 0,
            files: VecDeque::new(),
            broken: false,
        })
    }

    /// The socket, to read from and to watch.
    pub(crate) fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// Nothing waits.
    pub(crate) fn is_clear(&self) -> bool {
        self.start == self.outbox.len()
    }

    /// Nothing more can be sent.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// What the gateway has sent already is still read, then the stream ends.
    pub(crate) fn stop_receiving(&self) {
        let _already_closed = rustix::net::shutdown(&self.socket, Shutdown::Read);
    }

    /// Sends a whole frame, given in two parts, with `file` beside it; what does not go at once waits.
    pub(crate) fn send(&mut self, head: &[u8], data: &[u8], mut file: Option<OwnedFd>) -> Result<(), Gone> {
        if self.broken {
            return Err(Gone);
        }
        let mut sent = 0;
        if self.is_clear() {
            let pieces = [IoSlice::new(head), IoSlice::new(data)];
            let pieces = if data.is_empty() { pieces.get(..1).unwrap_or(&pieces) } else { &pieces };
            match send_once(&self.socket, pieces, file.as_ref().map(|file| file.as_fd())) {
                Ok(count) => {
                    sent = count;
                    file = None;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Err(self.break_off()),
            }
        }
        if sent == head.len() + data.len() {
            return Ok(());
        }
        if let Some(file) = file {
            self.files.push_back((self.outbox.len(), file));
        }
        self.outbox.extend_from_slice(head.get(sent..).unwrap_or_default());
        self.outbox.extend_from_slice(data.get(sent.saturating_sub(head.len())..).unwrap_or_default());
        Ok(())
    }

    /// Sends what waits, as far as that goes.
    pub(crate) fn flush(&mut self) -> Result<(), Gone> {
        while !self.is_clear() && !self.broken {
            // A descriptor leaves with the first byte of its frame, never with bytes before it.
            let with_file = self.files.front().is_some_and(|(at, _)| *at == self.start);
            let next = self.files.get(usize::from(with_file)).map_or(self.outbox.len(), |(at, _)| *at);
            let piece = [IoSlice::new(self.outbox.get(self.start..next).unwrap_or_default())];
            let file = self.files.front().filter(|_| with_file).map(|(_, file)| file.as_fd());
            match send_once(&self.socket, &piece, file) {
                Ok(count) => {
                    self.start += count;
                    if with_file {
                        self.files.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(self.break_off()),
            }
        }
        if self.is_clear() {
            self.outbox.clear();
            self.outbox.shrink_to(KEPT_BYTES_MAX);
            self.start = 0;
        }
        if self.broken { Err(Gone) } else { Ok(()) }
    }

    fn break_off(&mut self) -> Gone {
        self.broken = true;
        self.outbox = Vec::new();
        self.start = 0;
        self.files.clear();
        Gone
    }
}

fn send_once(socket: &OwnedFd, pieces: &[IoSlice<'_>], file: Option<BorrowedFd<'_>>) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    if let ([piece], None) = (pieces, file) {
        return rustix::net::send(socket, piece, flags);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let files = file.as_slice();
    if !files.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(files));
    }
    rustix::net::sendmsg(socket, pieces, &mut beside, flags)
}
