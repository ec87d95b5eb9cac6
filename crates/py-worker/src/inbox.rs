//! What was received on a stream of the link and not yet used: bytes, and the descriptors that came with them.
//!
//! Hands out whole frames. Holds at most one frame and a buffer; grows for the long ones and shrinks again.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use py_link::{Frame, HEADER_BYTES, Kind, LinkError};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// What the receive buffer has at rest: a request head of usual size with a small body, in one system call.
pub(crate) const BUFFER_BYTES: usize = 32 * 1024;

/// Descriptors that may wait for their frames. A frame carries one, and frames are taken as they come; what is over the
/// bound is closed, and the body that misses it cannot be read.
const FILES_MAX: usize = 4;

/// Received bytes in `buffer[start..end]`, and the descriptors that came with them.
pub(crate) struct Inbox {
    /// What the buffer has at rest.
    rest_bytes: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    files: VecDeque<OwnedFd>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self::with_buffer(BUFFER_BYTES)
    }

    pub(crate) fn with_buffer(rest_bytes: usize) -> Self {
        Self { rest_bytes, buffer: vec![0; rest_bytes], start: 0, end: 0, files: VecDeque::new() }
    }

    pub(crate) fn received(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn frame(&self) -> Result<Option<Frame<'_>>, LinkError> {
        py_link::decode(self.received())
    }

    /// The first frame, and the descriptors that wait.
    pub(crate) fn front(&mut self) -> (Result<Option<Frame<'_>>, LinkError>, &mut VecDeque<OwnedFd>) {
        let received = self.buffer.get(self.start..self.end).unwrap_or_default();
        (py_link::decode(received), &mut self.files)
    }

    /// The payload of the request that `Link::wait_request` has found.
    pub(crate) fn request(&self) -> &[u8] {
        self.frame().ok().flatten().map(|frame| frame.payload).unwrap_or_default()
    }

    /// The descriptor that came along.
    pub(crate) fn take_file(&mut self) -> Option<OwnedFd> {
        self.files.pop_front()
    }

    /// The first frame has been used.
    pub(crate) fn consume_frame(&mut self) {
        if let Ok(Some(frame)) = self.frame() {
            let bytes = frame.wire_bytes();
            self.consume(bytes);
        }
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start = self.end.min(self.start + bytes);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > self.rest_bytes {
                self.buffer.truncate(self.rest_bytes);
                self.buffer.shrink_to_fit();
            }
        }
    }

    /// Room for the rest of the frame that has begun, or for any.
    fn make_room(&mut self) {
        let wanted = match self.received().first_chunk::<4>() {
            Some(len) => HEADER_BYTES + (u32::from_le_bytes(*len).min(py_link::PAYLOAD_BYTES_MAX)) as usize,
            None => HEADER_BYTES,
        };
        let free = self.buffer.len() - self.end;
        if self.start > 0 && (free == 0 || self.start + wanted > self.buffer.len()) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        } else if self.end == self.buffer.len() {
            // Whole frames fill it all (a body nobody reads yet): room to see what is behind them.
            self.buffer.resize(self.end + BUFFER_BYTES, 0);
        }
    }

    /// Sleeps in poll(2), not in recvmsg(2): a reader that sleeps in there is also woken when the gateway takes our last
    /// answer out of the socket ("there is room"), for nothing, and it is the gateway that pays for the wake-up.
    pub(crate) fn wait_and_receive(&mut self, socket: &OwnedFd) -> Result<usize, Errno> {
        rustix::event::poll(&mut [PollFd::new(socket, PollFlags::IN)], None)?;
        self.receive(socket, RecvFlags::empty())
    }

    pub(crate) fn receive(&mut self, socket: &OwnedFd, flags: RecvFlags) -> Result<usize, Errno> {
        self.make_room();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(room)], &mut beside, flags)?.bytes;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                let room = FILES_MAX.saturating_sub(self.files.len());
                self.files.extend(files.take(room));
            }
        }
        self.end += received;
        Ok(received)
    }

    /// Is there a Cancel behind what has not been read yet?
    pub(crate) fn holds_cancel(&self) -> bool {
        let mut rest = self.received();
        while let Ok(Some(frame)) = py_link::decode(rest) {
            if frame.header.kind == Kind::Cancel {
                return true;
            }
            rest = rest.get(frame.wire_bytes()..).unwrap_or_default();
        }
        false
    }
}
