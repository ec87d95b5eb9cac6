//! The receiving half of a slot: bytes and descriptors in, whole frames out.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use ctl_admin::words::QUERIES_FIELD;
use py_link::long::{self, Close};
use py_link::{Flags, FrameHeader, HEADER_BYTES, Kind, LinkError, ResponseFile, ResponseHead};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::SlotError;
use super::long::Detached;
use super::stream::SlotStream;
use crate::message::{FileBody, Headers, Queries};

/// A slot's buffer while nothing large passes; most answers of Django fit.
const BUFFER_BYTES: usize = 16 << 10;
/// A body piece from this size on is handed over with its buffer instead of being copied out.
const HANDOVER_BYTES: usize = 16 << 10;
/// Descriptors that may wait for their frame: one frame carries one.
const DESCRIPTORS_MAX: usize = 4;

/// Status line, headers and the first piece of the body.
#[derive(Debug)]
pub struct Head {
    /// The app's status.
    pub status: u16,
    /// The app's reason phrase.
    pub reason: Box<[u8]>,
    /// Without hop-by-hop fields.
    pub headers: Headers,
    /// The first piece.
    pub body: Bytes,
    /// END, ABORT.
    pub flags: Flags,
    /// `quintet dev`; see [`QUERIES_FIELD`].
    pub queries: Option<Queries>,
}

impl Head {
    /// `text/event-stream` (HTML, 9.2)?
    pub(crate) fn is_event_stream(&self) -> bool {
        const EVENTS: &[u8] = b"text/event-stream";
        let kind = self.headers.get("content-type").unwrap_or_default();
        kind.get(..EVENTS.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
    }
}

/// What a worker says about an exchange.
#[derive(Debug)]
pub enum Received {
    /// The first frame of an answer.
    Head(Box<Head>),
    /// A piece of the body.
    Body(Bytes, Flags),
    /// A piece of the body that is in a file.
    File(FileBody, Flags),
    /// Fields of a 103 answer, before the head.
    Hints(Headers),
    /// Fields behind the body.
    Trailers(Headers, Flags),
    /// In place of the head: the slot is free, the exchange goes on as a stream of the long link.
    Detached(Detached),
}

impl Received {
    /// END, ABORT.
    pub fn flags(&self) -> Flags {
        match self {
            Self::Head(head) => head.flags,
            Self::Body(_, flags) | Self::File(_, flags) | Self::Trailers(_, flags) => *flags,
            Self::Hints(_) | Self::Detached(_) => Flags::NONE,
        }
    }
}

/// A frame of a worker, on a slot or on the long link.
#[derive(Debug)]
pub(super) enum FromWorker {
    /// On either.
    Answer(Received),
    /// On a slot only: see [`Received::Detached`].
    Detached(u16, Box<Head>),
    /// Long link only: we may send this many more bytes.
    Credit(u32),
    /// Long link only: a piece of a message.
    Message(Bytes, Flags),
    /// Long link only: the app closes its WebSocket.
    Close(u16, String),
}

/// Bytes received and not yet taken, at `filled`; the buffer is always initialised in full.
pub(super) struct ReceiveBuffer {
    buffer: Vec<u8>,
    filled: Range<usize>,
    descriptors: VecDeque<OwnedFd>,
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES], filled: 0..0, descriptors: VecDeque::new() }
    }
}

impl ReceiveBuffer {
    /// The next frame, and its stream. Cancel safe.
    pub(super) async fn next(&mut self, stream: &SlotStream) -> Result<(u16, FromWorker), SlotError> {
        loop {
            if let Some(header) = self.peek()? {
                return Ok((header.stream, self.take(header)?));
            }
            stream.readable().await?;
            let mut received = None;
            let outcome = stream.try_receive(|| {
                let descriptors = self.descriptors.len();
                let bytes = self.receive(stream)?;
                received = Some(bytes);
                // All there was has been read. To say so here clears the readiness: polling is edge-triggered, the
                // next byte wakes us anew, and the next exchange saves a system call that would find nothing.
                // (Behind a descriptor a read ends early, and more may lie there.)
                if self.filled.end < self.buffer.len() && self.descriptors.len() == descriptors {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            match (received, outcome) {
                (Some(0), _) => return Err(SlotError::Gone { untouched: false }),
                // unix(7): the worker's end was closed with something in it that was not read.
                (None, Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(SlotError::Gone { untouched: true });
                }
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(SlotError::Io(error));
                }
                _ => {}
            }
        }
    }

    /// Between exchanges: a buffer that grew is given back.
    pub(super) fn shrink(&mut self) {
        if self.filled.is_empty() {
            self.filled = 0..0;
            if self.buffer.len() != BUFFER_BYTES {
                self.buffer = vec![0; BUFFER_BYTES];
            }
        }
    }

    /// The header of the first frame when all of the frame is here; otherwise makes room for it.
    fn peek(&mut self) -> Result<Option<FrameHeader>, LinkError> {
        let filled = self.buffer.get(self.filled.clone()).unwrap_or_default();
        if let Some(frame) = py_link::decode(filled)? {
            return Ok(Some(frame.header));
        }
        let wanted = match filled.first_chunk::<4>() {
            Some(len) => HEADER_BYTES + u32::from_le_bytes(*len) as usize,
            None => HEADER_BYTES,
        };
        if self.filled.is_empty() {
            self.filled = 0..0;
        }
        if self.filled.start + wanted > self.buffer.len() {
            self.make_room(wanted);
        }
        Ok(None)
    }

    /// Moves what is here to the front of a buffer that holds `wanted` bytes.
    fn make_room(&mut self, wanted: usize) {
        let len = self.filled.len();
        if wanted > self.buffer.len() {
            let mut larger = vec![0; wanted.max(BUFFER_BYTES)];
            if let (Some(to), Some(from)) = (larger.get_mut(..len), self.buffer.get(self.filled.clone())) {
                to.copy_from_slice(from);
            }
            self.buffer = larger;
        } else {
            self.buffer.copy_within(self.filled.clone(), 0);
        }
        self.filled = 0..len;
    }

    fn receive(&mut self, stream: &SlotStream) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let free = self.buffer.get_mut(self.filled.end..).unwrap_or_default();
        let message = recvmsg(stream, &mut [IoSliceMut::new(free)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                // What is over the bound is closed; the frame that misses it is then malformed.
                let room = DESCRIPTORS_MAX.saturating_sub(self.descriptors.len());
                self.descriptors.extend(descriptors.take(room));
            }
        }
        self.filled.end += message.bytes;
        Ok(message.bytes)
    }

    /// Takes the first frame, which is complete, out of the buffer.
    fn take(&mut self, header: FrameHeader) -> Result<FromWorker, LinkError> {
        let start = self.filled.start + HEADER_BYTES;
        let payload = start..start + header.len as usize;
        let bytes = self.buffer.get(payload.clone()).unwrap_or_default();
        let flags = header.flags;
        let answer = match header.kind {
            Kind::ResponseHead => Received::Head(self.take_head(payload, flags)?),
            Kind::Detached => {
                let (stream, head) = long::split_detached(bytes)?;
                let head = payload.end - head.len()..payload.end;
                return Ok(FromWorker::Detached(stream, self.take_head(head, flags)?));
            }
            Kind::ResponseBody => Received::Body(self.hand_over(payload), flags),
            Kind::ResponseFile => {
                let range = ResponseFile::decode(bytes)?;
                let file = self.descriptors.pop_front().ok_or(LinkError::Malformed("response file"))?;
                self.filled.start = payload.end;
                let body =
                    FileBody { file: Arc::new(File::from(file)), offset: range.offset, len: range.len };
                Received::File(body, flags)
            }
            Kind::EarlyHints | Kind::Trailers => {
                let fields = keep_end_to_end(long::decode_fields(bytes)?.into_iter())?;
                self.filled.start = payload.end;
                match header.kind {
                    Kind::EarlyHints => Received::Hints(fields),
                    _ => Received::Trailers(fields, flags),
                }
            }
            Kind::CreditToGateway => {
                let credit = long::decode_credit(bytes)?;
                self.filled.start = payload.end;
                return Ok(FromWorker::Credit(credit));
            }
            Kind::MessageToGateway => return Ok(FromWorker::Message(self.hand_over(payload), flags)),
            Kind::CloseToGateway => {
                let Close { code, reason } = Close::decode(bytes)?;
                let close = FromWorker::Close(code, reason.to_owned());
                self.filled.start = payload.end;
                return Ok(close);
            }
            _ => return Err(LinkError::Malformed("direction of a frame")),
        };
        Ok(FromWorker::Answer(answer))
    }

    /// Takes the head at the end of the first frame.
    fn take_head(&mut self, payload: Range<usize>, flags: Flags) -> Result<Box<Head>, LinkError> {
        let head = ResponseHead::decode(self.buffer.get(payload.clone()).unwrap_or_default())?;
        let (status, reason) = (head.status, Box::from(head.reason));
        let mut headers = Headers::with_capacity(head.header_count() + 4, 512);
        let queries = keep_end_to_end_in(&mut headers, head.headers())?;
        let body = payload.end - head.body.len()..payload.end;
        Ok(Box::new(Head { status, reason, headers, body: self.hand_over(body), flags, queries }))
    }

    /// The bytes at the end of the first frame, as a body piece: small ones are copied, large ones leave with the buffer.
    fn hand_over(&mut self, piece: Range<usize>) -> Bytes {
        let after = piece.end..self.filled.end;
        self.filled.start = piece.end;
        if piece.len() < HANDOVER_BYTES {
            return Bytes::copy_from_slice(self.buffer.get(piece).unwrap_or_default());
        }
        let mut fresh = vec![0; BUFFER_BYTES.max(after.len())];
        if let (Some(to), Some(from)) = (fresh.get_mut(..after.len()), self.buffer.get(after.clone())) {
            to.copy_from_slice(from);
        }
        self.filled = 0..after.len();
        Bytes::from(std::mem::replace(&mut self.buffer, fresh)).slice(piece)
    }
}

/// The fields of hints and trailers, see [`keep_end_to_end_in`].
fn keep_end_to_end<'a>(fields: impl Iterator<Item = long::Field<'a>>) -> Result<Headers, LinkError> {
    let mut headers = Headers::default();
    keep_end_to_end_in(&mut headers, fields)?;
    Ok(headers)
}

/// The fields without those that belong to one connection (RFC 9110, 7.6.1), and without [`QUERIES_FIELD`], which is for us
/// alone. A worker that sends control characters is
/// broken: they would let an app's input split our response.
fn keep_end_to_end_in<'a>(
    headers: &mut Headers,
    fields: impl Iterator<Item = long::Field<'a>>,
) -> Result<Option<Queries>, LinkError> {
    let mut queries = None;
    for (name, value) in fields {
        let bad = |&b: &u8| b == b'\r' || b == b'\n' || b == 0;
        if name.is_empty() || name.iter().any(|b| bad(b) || *b == b':' || *b == b' ') || value.iter().any(bad)
        {
            return Err(LinkError::Malformed("response header"));
        }
        if name.len() == QUERIES_FIELD.len() && name.eq_ignore_ascii_case(QUERIES_FIELD.as_bytes()) {
            queries = Queries::parse(value);
        } else if !is_hop_by_hop(name) {
            headers.push(name, value);
        }
    }
    Ok(queries)
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    // Told apart by length first: this runs for every header of every response.
    let known: &[&[u8]] = match name.len() {
        2 => &[b"te"],
        7 => &[b"upgrade", b"trailer"],
        10 => &[b"connection", b"keep-alive"],
        16 => &[b"proxy-connection"],
        17 => &[b"transfer-encoding"],
        _ => return false,
    };
    known.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}
