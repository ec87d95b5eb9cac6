//! A client's bytes to whole messages and control frames, strictly (RFC 6455, 5; RFC 7692, 6). No I/O, no clock.
//!
//! Bytes are taken as they come, in pieces of any size. What breaks a rule is refused at the first byte that shows it: text that is
//! not UTF-8 in the middle of its message, a message that is too large when its length is announced, a compressed one while it
//! is inflated.

use bytes::Bytes;

use super::MessageType;
use super::close::{self, Violation};
use super::deflate::Inflater;
use super::frame::{self, CONTROL_BYTES_MAX, HEAD_BYTES_MAX, Head, Opcode};

/// Memory for a message's frame is taken at once up to this; for a longer one as it comes, so that an announcement alone costs
/// nothing.
const RESERVE_BYTES_MAX: usize = 16 << 10;

/// Compressed bytes are unmasked in pieces of this size on their way into the inflater.
const INFLATE_BYTES: usize = 4096;

/// A compressed message may be larger on the wire than inflated, when it cannot be compressed or was flushed after every
/// word, but not without a bound: twice the limit, and this.
const INCOMPRESSIBLE_BYTES: u64 = 64 << 10;

/// What a client has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole message; text is UTF-8.
    Message(MessageType, Bytes),
    /// To be answered with the same payload.
    Ping(Bytes),
    /// The client is there.
    Pong,
    /// A close frame: its code and reason, if it has them. Nothing may follow.
    Close(Option<(u16, String)>),
}

/// Reads a connection's frames.
#[derive(Debug)]
pub struct Decoder {
    message_bytes_max: usize,
    deflate: bool,
    /// The bytes of a head that has not come whole.
    partial: [u8; HEAD_BYTES_MAX],
    partial_len: usize,
    frame: Option<Frame>,
    message: Option<Message>,
    /// The payload of a control frame as it comes.
    control: Vec<u8>,
}

/// A frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    head: Head,
    /// Payload bytes read.
    read: u64,
}

/// A message being put together.
#[derive(Debug)]
struct Message {
    kind: MessageType,
    bytes: Vec<u8>,
    /// Bytes that are known to be UTF-8.
    checked: usize,
    inflater: Option<Inflater>,
    /// Payload bytes announced so far.
    announced: u64,
}

impl Decoder {
    /// For a connection with or without permessage-deflate.
    pub fn new(message_bytes_max: u64, deflate: bool) -> Self {
        Self {
            message_bytes_max: usize::try_from(message_bytes_max).unwrap_or(usize::MAX / 4),
            deflate,
            partial: [0; HEAD_BYTES_MAX],
            partial_len: 0,
            frame: None,
            message: None,
            control: Vec::new(),
        }
    }

    /// Reads on; returns how many bytes were taken, and what they made. Without an event all of `input` was taken. After a
    /// violation, or a close frame, the decoder is spent.
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, Option<Event>), Violation> {
        let mut taken = 0;
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            let Some(frame) = &mut self.frame else {
                let (bytes, head) = self.head(rest)?;
                taken += bytes;
                let Some(head) = head else { return Ok((taken, None)) };
                self.begin(head)?;
                continue;
            };
            let left = usize::try_from(frame.head.len - frame.read).unwrap_or(usize::MAX);
            let piece = rest.get(..left.min(rest.len())).unwrap_or_default();
            let (head, offset) = (frame.head, frame.read);
            frame.read += piece.len() as u64;
            taken += piece.len();
            self.payload(head, offset, piece)?;
            if piece.len() < left {
                return Ok((taken, None));
            }
            self.frame = None;
            if let Some(event) = self.complete(head)? {
                return Ok((taken, Some(event)));
            }
        }
    }

    /// Puts a head together; returns the bytes taken.
    fn head(&mut self, rest: &[u8]) -> Result<(usize, Option<Head>), Violation> {
        if self.partial_len == 0
            && let Some((head, bytes)) = frame::parse(rest, self.deflate)?
        {
            return Ok((bytes, Some(head)));
        }
        let had = self.partial_len;
        let room = self.partial.get_mut(had..).unwrap_or_default();
        let more = room.len().min(rest.len());
        for (to, from) in room.iter_mut().zip(rest) {
            *to = *from;
        }
        let known = self.partial.get(..had + more).unwrap_or_default();
        let Some((head, bytes)) = frame::parse(known, self.deflate)? else {
            self.partial_len = had + more;
            return Ok((more, None));
        };
        self.partial_len = 0;
        Ok((bytes - had, Some(head)))
    }

    /// A frame begins: does it fit what came before, and the limit?
    fn begin(&mut self, head: Head) -> Result<(), Violation> {
        let kind = match head.opcode {
            Opcode::Text => Some(MessageType::Text),
            Opcode::Binary => Some(MessageType::Binary),
            _ => None,
        };
        match (&self.message, kind) {
            // RFC 6455, 5.4: the frames of one message are not interleaved with those of another.
            (Some(_), Some(_)) => return Err(Violation::protocol("a message begins within another")),
            (None, None) if head.opcode == Opcode::Continuation => {
                return Err(Violation::protocol("a continuation without a message"));
            }
            (None, Some(kind)) => {
                let inflater = head.compressed.then(Inflater::new);
                self.message = Some(Message { kind, bytes: Vec::new(), checked: 0, inflater, announced: 0 });
            }
            _ => {}
        }
        if let Some(message) = self.message.as_mut().filter(|_| !head.opcode.is_control()) {
            message.begin(head.len, self.message_bytes_max)?;
        }
        self.frame = Some(Frame { head, read: 0 });
        Ok(())
    }

    /// More payload.
    fn payload(&mut self, head: Head, offset: u64, piece: &[u8]) -> Result<(), Violation> {
        if head.opcode.is_control() {
            // Bounded by the head's check: see `frame::parse`.
            debug_assert!(self.control.len() + piece.len() <= CONTROL_BYTES_MAX, "a control frame is short");
            append_unmasked(&mut self.control, piece, head.mask, offset);
            return Ok(());
        }
        let Some(message) = &mut self.message else { return Ok(()) };
        message.payload(head, offset, piece, self.message_bytes_max)
    }

    /// A frame is complete.
    fn complete(&mut self, head: Head) -> Result<Option<Event>, Violation> {
        Ok(match head.opcode {
            Opcode::Ping => Some(Event::Ping(std::mem::take(&mut self.control).into())),
            Opcode::Pong => {
                self.control = Vec::new();
                Some(Event::Pong)
            }
            Opcode::Close => {
                let payload = std::mem::take(&mut self.control);
                let said = close::parse(&payload)?;
                Some(Event::Close(said.map(|(code, reason)| (code, reason.to_owned()))))
            }
            _ if !head.fin => None,
            _ => match self.message.take() {
                Some(message) => Some(message.finish(self.message_bytes_max)?),
                None => None,
            },
        })
    }
}

impl Message {
    /// A frame of `len` bytes is announced.
    fn begin(&mut self, len: u64, bytes_max: usize) -> Result<(), Violation> {
        self.announced = self.announced.saturating_add(len);
        let bytes_max = bytes_max as u64;
        let announced_max =
            if self.inflater.is_some() { 2 * bytes_max + INCOMPRESSIBLE_BYTES } else { bytes_max };
        if self.announced > announced_max {
            return Err(Violation::TOO_BIG);
        }
        if self.inflater.is_none() {
            self.bytes.reserve(usize::try_from(len).unwrap_or(usize::MAX).min(RESERVE_BYTES_MAX));
        }
        Ok(())
    }

    fn payload(&mut self, head: Head, offset: u64, piece: &[u8], bytes_max: usize) -> Result<(), Violation> {
        let Some(inflater) = &mut self.inflater else {
            append_unmasked(&mut self.bytes, piece, head.mask, offset);
            return self.check_text();
        };
        let mut clear = [0; INFLATE_BYTES];
        let mut offset = offset;
        for piece in piece.chunks(INFLATE_BYTES) {
            let clear = clear.get_mut(..piece.len()).unwrap_or_default();
            clear.copy_from_slice(piece);
            frame::unmask(clear, head.mask, offset);
            offset += piece.len() as u64;
            inflater.inflate(clear, &mut self.bytes, bytes_max)?;
        }
        self.check_text()
    }

    /// RFC 6455, 8.1: text that is not UTF-8 fails the connection, and there is no need to wait for its end.
    fn check_text(&mut self) -> Result<(), Violation> {
        if self.kind == MessageType::Binary {
            return Ok(());
        }
        let fresh = self.bytes.get(self.checked..).unwrap_or_default();
        match std::str::from_utf8(fresh) {
            Ok(_) => self.checked = self.bytes.len(),
            // A character that may yet be completed.
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Violation::NOT_UTF8),
        }
        Ok(())
    }

    fn finish(mut self, bytes_max: usize) -> Result<Event, Violation> {
        if let Some(inflater) = &mut self.inflater {
            inflater.finish(&mut self.bytes, bytes_max)?;
            self.check_text()?;
        }
        if self.kind == MessageType::Text && self.checked < self.bytes.len() {
            return Err(Violation::NOT_UTF8);
        }
        Ok(Event::Message(self.kind, self.bytes.into()))
    }
}

fn append_unmasked(to: &mut Vec<u8>, piece: &[u8], mask: [u8; 4], offset: u64) {
    let start = to.len();
    to.extend_from_slice(piece);
    frame::unmask(to.get_mut(start..).unwrap_or_default(), mask, offset);
}

#[cfg(test)]
mod tests;
