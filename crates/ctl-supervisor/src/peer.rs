//! A conversation in lines over a unix socket that never blocks us.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use ctl_admin::lines::{LineError, LineReader, line};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a peer may leave unread: a few of the longest messages. Beyond it, it is not reading at all.
const OUT_BYTES_MAX: usize = 4 << 20;

/// Read at a time; fairness between the peers, since each is read once a turn.
const READ_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Peer {
    stream: UnixStream,
    lines: LineReader,
    out: Vec<u8>,
    /// Descriptors to send, each with the byte of `out` at this place.
    descriptors: VecDeque<(usize, OwnedFd)>,
    /// Nothing more comes: end of file, an error, or a fault of the peer.
    ended: bool,
    /// Nothing more can be sent. What it said before can still be read.
    deaf: bool,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            lines: LineReader::default(),
            out: Vec::new(),
            descriptors: VecDeque::new(),
            ended: false,
            deaf: false,
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn wants_write(&self) -> bool {
        !self.out.is_empty() && !self.ended && !self.deaf
    }

    /// Reads once and gives out the messages that are whole. A line that is not understood is passed over with a
    /// warning; one that is too long ends the conversation.
    pub(crate) fn read<T: DeserializeOwned>(&mut self, who: &str) -> Vec<T> {
        let mut messages = Vec::new();
        let mut bytes = [0; READ_BYTES];
        if self.ended {
            return messages;
        }
        match self.stream.read(&mut bytes) {
            Ok(0) => self.ended = true,
            Ok(count) => self.lines.push(&bytes[..count]),
            Err(error) if is_later(&error) => return messages,
            Err(_) => self.ended = true,
        }
        loop {
            match self.lines.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return messages,
                Err(error @ LineError::NotUnderstood(_)) => {
                    tracing::warn!(%error, "a message of {who} was not understood");
                }
                Err(error @ LineError::TooLong) => {
                    tracing::warn!(%error, "the conversation with {who} is ended");
                    self.ended = true;
                    return messages;
                }
            }
        }
    }

    /// Everything that is there to be read, from a peer that is gone: at most what its socket can hold.
    pub(crate) fn read_rest<T: DeserializeOwned>(&mut self, who: &str) -> Vec<T> {
        /// A unix socket holds some 200 KiB; this is a bound, not an estimate.
        const TURNS_MAX: usize = 256;
        let mut messages = Vec::new();
        for _ in 0..TURNS_MAX {
            let before = messages.len();
            messages.extend(self.read(who));
            if self.ended || (messages.len() == before && !self.readable_now()) {
                break;
            }
        }
        messages
    }

    fn readable_now(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(&self.stream, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1..))
    }

    /// Queues a message and sends what can be sent.
    pub(crate) fn send<T: Serialize>(&mut self, message: &T, who: &str) {
        match line(message) {
            Ok(line) if self.out.len() + line.len() <= OUT_BYTES_MAX => self.out.extend_from_slice(&line),
            Ok(_) => {
                tracing::warn!("{who} does not read what it is told");
                self.ended = true;
            }
            Err(error) => tracing::error!(%error, "a message for {who} cannot be written"),
        }
        self.flush();
    }

    /// The same, with a descriptor for the peer.
    pub(crate) fn send_with<T: Serialize>(&mut self, message: &T, descriptor: OwnedFd, who: &str) {
        self.descriptors.push_back((self.out.len(), descriptor));
        self.send(message, who);
    }

    pub(crate) fn flush(&mut self) {
        while !self.out.is_empty() && !self.deaf {
            match self.write_some() {
                Ok(count) => {
                    drop(self.out.drain(..count));
                    self.descriptors.retain(|(at, _)| *at >= count);
                    self.descriptors.iter_mut().for_each(|(at, _)| *at -= count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_later(&error) => return,
                Err(_) => self.deaf = true,
            }
        }
    }

    /// Up to the next byte that has a descriptor, or from it up to the next but one: the kernel hands over one at a time.
    fn write_some(&mut self) -> io::Result<usize> {
        let first = self.descriptors.front().filter(|(at, _)| *at == 0);
        let next = self.descriptors.iter().map(|(at, _)| *at).find(|at| *at > 0).unwrap_or(self.out.len());
        let Some((_, descriptor)) = first else { return self.stream.write(&self.out[..next]) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let rights = [descriptor.as_fd()];
        beside.push(SendAncillaryMessage::ScmRights(&rights));
        let bytes = [IoSlice::new(&self.out[..next])];
        Ok(sendmsg(&self.stream, &bytes, &mut beside, SendFlags::NOSIGNAL)?)
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    /// Up to so many bytes, and the descriptors that came with them.
    fn receive(stream: &UnixStream, most: usize) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut bytes = vec![0; most];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let count = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::empty())
            .unwrap()
            .bytes;
        bytes.truncate(count);
        let mut fds = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        (bytes, fds)
    }

    #[test]
    fn descriptors_arrive_with_their_messages_however_full_the_socket_is() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut peer = Peer::new(ours).unwrap();
        // What the socket does not hold waits in `out`, with descriptors at several places.
        let filler = "x".repeat(50_000);
        let mut written = Vec::new();
        for number in 0..12_u8 {
            peer.send(&filler, "a test");
            let (read, write) = rustix::pipe::pipe().unwrap();
            rustix::io::write(&write, &[number]).unwrap();
            peer.send_with(&format!("order {number}"), read, "a test");
            written.push(write);
        }
        assert!(peer.wants_write(), "it was too little to fill the socket");
        let (mut lines, mut numbers, mut fds) = (Vec::new(), Vec::new(), Vec::new());
        while numbers.len() < 12 {
            peer.flush();
            let (bytes, came) = receive(&theirs, 7_000);
            lines.extend(bytes);
            fds.extend(came);
            // An order is whole only behind its descriptor.
            let orders = String::from_utf8_lossy(&lines).matches("order ").count();
            assert!(orders <= fds.len(), "{orders} orders, {} descriptors", fds.len());
            for fd in &fds[numbers.len()..] {
                let mut byte = [0];
                rustix::io::read(fd, &mut byte).unwrap();
                numbers.push(byte[0]);
            }
        }
        assert_eq!(numbers, (0..12).collect::<Vec<u8>>());
        peer.flush();
        assert!(!peer.wants_write());
    }
}
