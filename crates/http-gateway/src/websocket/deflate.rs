//! Compression of messages (RFC 7692): what is negotiated, and the machines behind it. No I/O.
//!
//! Both sides are told not to take their context over from one message to the next (`…_no_context_takeover`; RFC 7692, 7.1.1
//! lets a server say both without being asked). So no connection owns a compressor (300 KiB) or a window (48 KiB): a machine
//! is borrowed from the thread for one message, and ten thousand silent connections hold none.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::close::Violation;
use crate::h1::is_token;

/// Ends every compressed message, and is not sent (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What a compressor can do: zlib has no window of 2^8 bytes.
const WINDOW_BITS_MIN: u8 = 9;
const WINDOW_BITS_MAX: u8 = 15;

/// Below this a message gains a few dozen bytes at best, in a packet that is nearly empty anyway, for some 10 µs.
const COMPRESS_BYTES_MIN: usize = 256;

/// zlib's level: the third makes chat messages 1 to 7 % smaller for up to three times the time, the first 15 to 30 % larger.
const LEVEL: Compression = Compression::new(2);

/// Machines of each kind that a thread keeps for the next message. One is enough while messages come whole; more are in
/// use only while large ones are on their way.
const KEPT_MAX: usize = 4;

/// Output of a machine grows by at least this.
const GROW_BYTES: usize = 1024;

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { deflaters: Vec::new(), inflaters: Vec::new() }) };
}

struct Kept {
    deflaters: Vec<(u8, Compress)>,
    inflaters: Vec<Decompress>,
}

/// What was agreed for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// Our window is at most 2^N bytes.
    window_bits: u8,
    /// The client asked for that, and is to be told.
    window_was_asked: bool,
}

impl Agreed {
    /// The first offer in a `Sec-WebSocket-Extensions` that can be accepted. An error: it is malformed (RFC 6455, 9.1).
    pub fn first_of(offers: &[u8]) -> Result<Option<Self>, &'static str> {
        let mut agreed = None;
        for offer in split_quoted(offers, b',') {
            let mut parts = split_quoted(offer, b';').into_iter();
            let name = parts.next().unwrap_or_default();
            if name.is_empty() && parts.len() == 0 {
                // Lists may have empty elements (RFC 9110, 5.6.1.2).
                continue;
            }
            let parameters: Option<Vec<_>> = parts.map(parameter).collect();
            let (true, Some(parameters)) = (is_token(name), parameters) else {
                return Err("Sec-WebSocket-Extensions is malformed");
            };
            if agreed.is_none() && name.eq_ignore_ascii_case(b"permessage-deflate") {
                agreed = Self::accept(&parameters);
            }
        }
        Ok(agreed)
    }

    /// RFC 7692, 7.1: an offer with a parameter that is unknown, there twice or out of range is declined.
    fn accept(parameters: &[(&[u8], Option<&[u8]>)]) -> Option<Self> {
        let mut agreed = Self { window_bits: WINDOW_BITS_MAX, window_was_asked: false };
        for (i, &(name, value)) in parameters.iter().enumerate() {
            if parameters.iter().take(i).any(|(earlier, _)| *earlier == name) {
                return None;
            }
            match (name, value) {
                // What the client can do for us with its window it need not: we have a whole one while we need it (7.1.2.2).
                (
                    b"server_no_context_takeover" | b"client_no_context_takeover" | b"client_max_window_bits",
                    None,
                ) => {}
                (b"client_max_window_bits", Some(value)) => drop(window_bits(value)?),
                (b"server_max_window_bits", Some(value)) => {
                    let bits = window_bits(value)?;
                    if bits < WINDOW_BITS_MIN {
                        return None;
                    }
                    agreed = Self { window_bits: bits, window_was_asked: true };
                }
                _ => return None,
            }
        }
        Some(agreed)
    }

    /// The answer's `Sec-WebSocket-Extensions`.
    pub fn answer(self) -> String {
        let mut answer =
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
        if self.window_was_asked {
            answer.push_str("; server_max_window_bits=");
            answer.push_str(itoa::Buffer::new().format(self.window_bits));
        }
        answer
    }
}

/// A decimal from 8 to 15 without leading zeros (RFC 7692, 7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// `name`, `name=value` or `name="value"`; a quoted value must be a token, too (RFC 6455, 9.1).
fn parameter(bytes: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let Some(equals) = memchr::memchr(b'=', bytes) else { return is_token(bytes).then_some((bytes, None)) };
    let (name, value) = bytes.split_at(equals);
    let (name, value) = (name.trim_ascii_end(), value.get(1..).unwrap_or_default().trim_ascii_start());
    let value = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    (is_token(name) && is_token(value)).then_some((name, Some(value)))
}

/// Cuts at `separator` where it is not within quotes; spaces around the parts are not part of them.
fn split_quoted(bytes: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut quoted = false;
    bytes
        .split(|&b| {
            quoted ^= b == b'"';
            b == separator && !quoted
        })
        .map(<[u8]>::trim_ascii)
        .collect()
}

/// A machine that compresses one message.
pub(super) struct Deflater {
    /// There until it is dropped.
    machine: Option<Compress>,
    window_bits: u8,
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deflater")
    }
}

impl Deflater {
    /// For a message of so many bytes, where that is worth it.
    pub(super) fn for_message(agreed: Option<Agreed>, bytes: usize) -> Option<Self> {
        let Agreed { window_bits, .. } = agreed.filter(|_| bytes >= COMPRESS_BYTES_MIN)?;
        let kept = KEPT.with_borrow_mut(|kept| {
            let at = kept.deflaters.iter().position(|(bits, _)| *bits == window_bits)?;
            Some(kept.deflaters.swap_remove(at).1)
        });
        let machine = kept.unwrap_or_else(|| Compress::new_with_window_bits(LEVEL, false, window_bits));
        Some(Self { machine: Some(machine), window_bits })
    }

    /// Compresses a part of the message; the last one ends it. Returns what is ready to be sent.
    pub(super) fn compress(&mut self, mut input: &[u8], last: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(input.len() / 2 + GROW_BYTES);
        let Some(machine) = &mut self.machine else { return out };
        let flush = if last { FlushCompress::Sync } else { FlushCompress::None };
        loop {
            let before = machine.total_in();
            // The only errors are of misuse.
            let status = machine.compress_vec(input, &mut out, flush);
            input = input.get((machine.total_in() - before) as usize..).unwrap_or_default();
            if status.is_err() || out.len() < out.capacity() {
                break;
            }
            out.reserve(GROW_BYTES + input.len() / 2);
        }
        if last && out.ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        }
        out
    }
}

impl Drop for Deflater {
    fn drop(&mut self) {
        let (Some(mut machine), bits) = (self.machine.take(), self.window_bits) else { return };
        // Fails while the thread ends.
        let _ended = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.deflaters.len() < KEPT_MAX {
                machine.reset();
                kept.deflaters.push((bits, machine));
            }
        });
    }
}

/// A machine that inflates one message as it comes.
pub(super) struct Inflater {
    /// There until it is dropped.
    machine: Option<Decompress>,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inflater")
    }
}

impl Inflater {
    pub(super) fn new() -> Self {
        let kept = KEPT.with_borrow_mut(|kept| kept.inflaters.pop());
        Self { machine: Some(kept.unwrap_or_else(|| Decompress::new(false))) }
    }

    /// Inflates a part of the message behind `out`, which may grow to `bytes_max`: what would be larger is noticed before it is
    /// there.
    pub(super) fn inflate(
        &mut self,
        mut input: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), Violation> {
        const BAD: Violation = Violation::protocol("a compressed message is malformed");
        let Some(machine) = &mut self.machine else { return Err(BAD) };
        loop {
            if out.len() == out.capacity() {
                out.reserve(GROW_BYTES);
            }
            let before = machine.total_in();
            let status = machine.decompress_vec(input, out, FlushDecompress::Sync).map_err(|_| BAD)?;
            let taken = (machine.total_in() - before) as usize;
            input = input.get(taken..).unwrap_or_default();
            if out.len() > bytes_max {
                return Err(Violation::TOO_BIG);
            }
            let ended = status == Status::StreamEnd;
            if ended {
                // RFC 7692, 7.2.3.4: a block may say that it is the last, and another follows.
                machine.reset(false);
            }
            let has_room = out.len() < out.capacity();
            if input.is_empty() && (ended || has_room) {
                return Ok(());
            }
            if taken == 0 && has_room {
                return Err(BAD);
            }
        }
    }

    /// The message is complete.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), Violation> {
        self.inflate(&TAIL, out, bytes_max)
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        let Some(mut machine) = self.machine.take() else { return };
        let _ended = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.inflaters.len() < KEPT_MAX {
                machine.reset(false);
                kept.inflaters.push(machine);
            }
        });
    }
}

#[cfg(test)]
mod tests;
