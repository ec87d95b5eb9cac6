//! The long link: one multiplexed stream a worker for exchanges that last (WebSockets, event streams).
//!
//! An ASGI worker opens it beside its slots (`Hello.channel`). Each exchange has a number of its own in the frames'
//! `stream` field, so that thousands of them need one descriptor and none of them eats a slot of requests.
//!
//! ```text
//! WebSocket      gateway → Request (exchange: WebSocket)            worker → ResponseHead 101 (accepted; its headers go to the client)
//!                gateway ↔ worker: Message… , each with END on its last piece; Credit both ways
//!                gateway → Close (the client closed, or the gateway did, 1012 or 1001 when the worker goes)  worker → Close (the app closed); either way the worker's END/Close ends the stream
//!                worker → Close before the head: 403;  worker → ResponseHead other than 101 [ResponseBody…] END: that answer (websocket.http.response)
//! event stream   on a slot: worker → Detached(stream, head); the exchange goes on under that number on the long link
//!                worker → [ResponseBody | ResponseFile…] [Trailers] until END or ABORT
//! gone           gateway → Cancel (the client is gone); the worker still ends the stream with END, ABORT or Close
//! ```
//!
//! **Numbers.** The gateway opens 1 to 32767, the worker (by Detached) 32768 to 65535, each in turn, skipping what is in use. A number is free
//! when the worker has ended the stream; frames for a number that is not in use are ignored (they crossed its end).
//!
//! **Flow control.** Each direction of each stream begins with [`WINDOW_BYTES`] of credit. Payload bytes of ResponseBody, the body inside
//! a ResponseHead or Detached, and Message frames use it up (a ResponseFile's and the heads' own bytes do not); the receiver returns it by Credit frames as it hands bytes on. So a
//! client that does not read stops its own app only, and what a stream can make its peer hold is bounded by the window. While a
//! message is put together its pieces are credited at once: the bound is then `websocket.message_max`.

use crate::LinkError;
use crate::wire::{Reader, put_long, put_short};

/// Credit of each direction of a stream at its start.
pub const WINDOW_BYTES: u32 = 256 << 10;

/// The longest piece of a body or message in one frame of a long link: one stream must not keep the others waiting for long.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// The longest WebSocket message of an app: it is put together at the gateway before it goes to the client. (Those of clients are
/// bounded by `websocket.message_max`.)
pub const APP_MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The first number that workers give.
pub const DETACHED_FIRST: u16 = 1 << 15;

/// The first byte of the first piece of a message: what it is. Later pieces are all payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageType {
    /// UTF-8, checked by whoever sends the frame.
    Text = 1,
    /// Bytes.
    Binary = 2,
}

impl MessageType {
    /// From the wire.
    pub fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            _ => None,
        }
    }
}

/// The payload of a Credit frame: bytes that the other side may send besides those it may already.
pub fn encode_credit(bytes: u32) -> [u8; 4] {
    bytes.to_le_bytes()
}

/// Decodes the payload of a Credit frame.
pub fn decode_credit(payload: &[u8]) -> Result<u32, LinkError> {
    let mut reader = Reader::new(payload, "credit");
    reader.u32()
}

/// The payload of a Close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    /// RFC 6455, 7.4; 1005 when the client's close frame had no code, 1006 when its connection broke.
    pub code: u16,
    /// UTF-8, at most 123 bytes; may be empty.
    pub reason: &'a str,
}

impl<'a> Close<'a> {
    /// Decodes the payload.
    pub fn decode(payload: &'a [u8]) -> Result<Self, LinkError> {
        let mut reader = Reader::new(payload, "close");
        let code = reader.u16()?;
        let reason = std::str::from_utf8(reader.rest()).map_err(|_| LinkError::Malformed("close"))?;
        Ok(Self { code, reason })
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + self.reason.len());
        out.extend_from_slice(&self.code.to_le_bytes());
        out.extend_from_slice(self.reason.as_bytes());
        out
    }
}

/// The payload of EarlyHints and Trailers: fields.
pub fn encode_fields<'h>(out: &mut Vec<u8>, fields: impl ExactSizeIterator<Item = (&'h [u8], &'h [u8])>) {
    out.extend_from_slice(&u16::try_from(fields.len()).unwrap_or(u16::MAX).to_le_bytes());
    for (name, value) in fields.take(usize::from(u16::MAX)) {
        put_short(out, name);
        put_long(out, value);
    }
}

/// A field: name and value.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// Decodes the payload of EarlyHints and Trailers.
pub fn decode_fields(payload: &[u8]) -> Result<Vec<Field<'_>>, LinkError> {
    let mut reader = Reader::new(payload, "fields");
    let count = reader.u16()?;
    let mut fields = Vec::with_capacity(usize::from(count).min(64));
    for _ in 0..count {
        fields.push((reader.short()?, reader.long()?));
    }
    Ok(fields)
}

/// The payload of a Detached frame: a stream number of the worker's, then the payload of a ResponseHead.
pub fn split_detached(payload: &[u8]) -> Result<(u16, &[u8]), LinkError> {
    let mut reader = Reader::new(payload, "detached");
    let stream = reader.u16()?;
    if stream < DETACHED_FIRST {
        return Err(LinkError::Malformed("detached"));
    }
    Ok((stream, reader.rest()))
}

/// Credit of one direction of a stream, at the sender. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    left: u32,
}

impl Default for Window {
    fn default() -> Self {
        Self { left: WINDOW_BYTES }
    }
}

impl Window {
    /// Bytes that may be sent now, of `wanted`.
    pub fn take(&mut self, wanted: usize) -> usize {
        let taken = wanted.min(self.left as usize).min(PIECE_BYTES_MAX);
        self.left -= taken as u32;
        taken
    }

    /// Bytes that may be sent now.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// The receiver has handed bytes on.
    pub fn credit(&mut self, bytes: u32) {
        self.left = self.left.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_never_lends_what_it_has_not() {
        let mut window = Window::default();
        let mut sent = 0;
        while window.left() > 0 {
            sent += window.take(usize::MAX);
        }
        assert_eq!((sent, window.take(1)), (WINDOW_BYTES as usize, 0));
        window.credit(3);
        assert_eq!(window.take(10), 3);
    }

    #[test]
    fn fields_and_closes_come_back() {
        let fields: [(&[u8], &[u8]); 2] = [(b"link", b"</a.css>; rel=preload"), (b"x", b"")];
        let mut out = Vec::new();
        encode_fields(&mut out, fields.into_iter());
        assert_eq!(decode_fields(&out), Ok(fields.to_vec()));
        for cut in 0..out.len() {
            assert!(decode_fields(out.get(..cut).unwrap_or_default()).is_err(), "{cut}");
        }
        let close = Close { code: 4001, reason: "adi\u{f3}s" };
        assert_eq!(Close::decode(&close.encode()), Ok(close));
        assert!(Close::decode(&[1]).is_err());
        assert!(Close::decode(&[1, 1, 0xff]).is_err());
        assert_eq!(split_detached(&[0, 0x80, 7]), Ok((DETACHED_FIRST, &[7_u8][..])));
        assert!(split_detached(&[1, 0, 7]).is_err());
    }
}
