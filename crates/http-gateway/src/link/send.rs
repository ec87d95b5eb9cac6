//! The sending half of a slot: frames queue in a buffer, a descriptor goes with the first byte of its frame.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;

use py_link::{Flags, Kind, encode_header};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::SlotError;
use super::stream::SlotStream;

/// A buffer that grew for a large request is given back above this.
const KEPT_BYTES: usize = 64 << 10;

/// Where the body of a request is, as far as sending goes.
#[derive(Debug, Clone, Copy)]
pub enum RequestBodySource<'a> {
    /// In the request frame, or there is none.
    InFrame,
    /// In this file, whose descriptor goes along.
    File(&'a Arc<File>),
    /// In frames that follow.
    Stream,
}

/// Frames on their way out.
#[derive(Default)]
pub(super) struct SendBuffer {
    bytes: Vec<u8>,
    sent: usize,
    /// Goes with the next byte sent. Only a request frame has one, and it is always the first in the buffer.
    descriptor: Option<Arc<File>>,
    /// Bytes of the request were accepted by the kernel.
    touched: bool,
}

impl SendBuffer {
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Queues a request. The buffer is empty before: nothing is sent between exchanges.
    pub(super) fn request(&mut self, body: RequestBodySource<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        self.touched = false;
        if let RequestBodySource::File(file) = body {
            self.descriptor = Some(Arc::clone(file));
        }
        write(&mut self.bytes);
    }

    /// Queues any other frame.
    pub(super) fn frame(&mut self, kind: Kind, flags: Flags, payload: &[u8]) {
        self.bytes.extend_from_slice(&encode_header(kind, flags, payload.len() as u32));
        self.bytes.extend_from_slice(payload);
    }

    /// Sends all that is queued.
    pub(super) async fn flush(&mut self, stream: &SlotStream) -> Result<(), SlotError> {
        while !self.is_empty() {
            // Nearly always there is room, and this does not sleep.
            match self.send_once(stream) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
                Err(error) => return Err(self.error(error)),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        self.bytes.shrink_to(KEPT_BYTES);
        Ok(())
    }

    /// Sends what the kernel takes now. Errors are left for the next call that may wait.
    pub(super) fn try_flush(&mut self, stream: &SlotStream) {
        while !self.is_empty() {
            if self.send_once(stream).is_err() {
                return;
            }
        }
    }

    fn send_once(&mut self, stream: &SlotStream) -> io::Result<()> {
        let rest = self.bytes.get(self.sent..).unwrap_or_default();
        let sent = match &self.descriptor {
            None => rustix::net::send(stream, rest, SendFlags::NOSIGNAL),
            Some(file) => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let descriptors = [file.as_fd()];
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
                sendmsg(stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL)
            }
        }?;
        self.descriptor = None;
        self.touched = true;
        self.sent += sent;
        Ok(())
    }

    fn error(&self, error: io::Error) -> SlotError {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => {
                SlotError::Gone { untouched: !self.touched }
            }
            _ => SlotError::Io(error),
        }
    }
}
