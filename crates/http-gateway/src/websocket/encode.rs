//! Our messages and control frames to bytes. No I/O, no clock.

use bytes::{Bytes, BytesMut};

use super::MessageType;
use super::close;
use super::deflate::{Agreed, Deflater};
use super::frame::{CONTROL_BYTES_MAX, HEAD_BYTES_MAX, Opcode, put_head};

/// A longer message is sent in fragments of this size, so that a pong or a close frame need not wait for all of it.
pub const FRAGMENT_BYTES: usize = 64 << 10;

/// A message on its way to the client, frame after frame.
#[derive(Debug)]
pub struct Outgoing {
    /// Of the next frame.
    opcode: Opcode,
    /// Not yet in a frame.
    rest: Bytes,
    compressed: bool,
    /// `rest` has still to go through it.
    deflater: Option<Deflater>,
}

impl Outgoing {
    /// Compressed, where that was agreed and is worth it.
    pub fn new(kind: MessageType, bytes: Bytes, agreed: Option<Agreed>) -> Self {
        let opcode = match kind {
            MessageType::Text => Opcode::Text,
            MessageType::Binary => Opcode::Binary,
        };
        let plain = Self { opcode, rest: bytes, compressed: false, deflater: None };
        let Some(mut deflater) = Deflater::for_message(agreed, plain.rest.len()) else { return plain };
        if plain.rest.len() > FRAGMENT_BYTES {
            return Self { compressed: true, deflater: Some(deflater), ..plain };
        }
        let packed = deflater.compress(&plain.rest, true);
        // RFC 7692, 6.1: where nothing is gained a message goes as it is.
        if packed.len() < plain.rest.len() {
            Self { compressed: true, rest: packed.into(), ..plain }
        } else {
            plain
        }
    }

    /// Appends the next frame to `out`. `false`: it was the last.
    #[must_use]
    pub fn put_frame(&mut self, out: &mut BytesMut) -> bool {
        let (piece, last) = self.next_piece();
        // RFC 7692, 6: only the first frame says that the message is compressed.
        let says_compressed = self.compressed && self.opcode != Opcode::Continuation;
        out.reserve(HEAD_BYTES_MAX + piece.len());
        put_head(out, self.opcode, last, says_compressed, piece.len());
        out.extend_from_slice(&piece);
        self.opcode = Opcode::Continuation;
        !last
    }

    /// The payload of the next frame, and whether it is the last.
    fn next_piece(&mut self) -> (Bytes, bool) {
        loop {
            let piece = self.rest.split_to(FRAGMENT_BYTES.min(self.rest.len()));
            let last = self.rest.is_empty();
            let Some(deflater) = &mut self.deflater else { return (piece, last) };
            let packed = deflater.compress(&piece, last);
            // The machine may keep all it was given for later.
            if last || !packed.is_empty() {
                return (packed.into(), last);
            }
        }
    }
}

/// Appends a close frame; 1005 stands for one without a code.
pub fn put_close(out: &mut BytesMut, code: u16, reason: &str) {
    put_control(out, Opcode::Close, &close::payload(code, reason));
}

/// Appends a ping. It needs no payload: any sign of life answers it.
pub fn put_ping(out: &mut BytesMut) {
    put_control(out, Opcode::Ping, &[]);
}

/// Appends a pong with the ping's payload.
pub fn put_pong(out: &mut BytesMut, payload: &[u8]) {
    put_control(out, Opcode::Pong, payload);
}

fn put_control(out: &mut BytesMut, opcode: Opcode, payload: &[u8]) {
    let payload = payload.get(..CONTROL_BYTES_MAX.min(payload.len())).unwrap_or_default();
    put_head(out, opcode, true, false, payload.len());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
