//! A response on its way back.

use crate::LinkError;
use crate::frame::{Flags, HEADER_BYTES, Kind, encode_header};
use crate::wire::{Reader, put_long, put_short};

/// The payload of a [`crate::Kind::ResponseHead`] frame; borrows from it.
#[derive(Clone)]
pub struct ResponseHead<'a> {
    /// 100 to 999; the app's word.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: &'a [u8],
    headers: Reader<'a>,
    header_count: u16,
    /// The first piece of the body, maybe empty.
    pub body: &'a [u8],
}

impl<'a> ResponseHead<'a> {
    /// Decodes the payload.
    pub fn decode(payload: &'a [u8]) -> Result<Self, LinkError> {
        let mut reader = Reader::new(payload, "response head");
        let status = reader.u16()?;
        if !(100..=999).contains(&status) {
            return Err(reader.malformed());
        }
        let reason = reader.short()?;
        let header_count = reader.u16()?;
        let headers = reader.clone();
        for _ in 0..header_count {
            reader.short()?;
            reader.long()?;
        }
        Ok(Self { status, reason, headers, header_count, body: reader.rest() })
    }

    /// How many header fields there are.
    pub fn header_count(&self) -> usize {
        usize::from(self.header_count)
    }

    /// Header fields in the app's order and letter case; checked by the worker to hold no control characters,
    /// and by the gateway again.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut reader = self.headers.clone();
        (0..self.header_count).map_while(move |_| Some((reader.short().ok()?, reader.long().ok()?)))
    }
}

/// Appends the payload of a [`crate::Kind::ResponseHead`] frame, without its header and without body bytes:
/// the caller appends (or sends behind it) the first piece of the body and counts it into the frame's length.
pub fn encode_response_head<'h>(
    out: &mut Vec<u8>,
    status: u16,
    reason: &[u8],
    headers: impl ExactSizeIterator<Item = (&'h [u8], &'h [u8])>,
) {
    out.extend_from_slice(&status.to_le_bytes());
    put_short(out, reason);
    out.extend_from_slice(&u16::try_from(headers.len()).unwrap_or(u16::MAX).to_le_bytes());
    for (name, value) in headers.take(usize::from(u16::MAX)) {
        put_short(out, name);
        put_long(out, value);
    }
}

/// Writes the payload of a [`crate::Kind::ResponseHead`] frame field by field, behind a space for the frame's
/// header, so that head and first piece of the body leave in one buffer.
///
/// It keeps positions, not the buffer: the worker fills the head while the app calls, and completes it later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeadWriter {
    start: usize,
    count_at: usize,
    count: u16,
}

impl ResponseHeadWriter {
    /// Appends the space for the frame's header, the status and the reason.
    pub fn start(out: &mut Vec<u8>, status: u16, reason: &[u8]) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        out.extend_from_slice(&status.to_le_bytes());
        put_short(out, reason);
        let count_at = out.len();
        out.extend_from_slice(&[0; 2]);
        Self { start, count_at, count: 0 }
    }

    /// Appends a header; the bytes must be checked before. `out` is the buffer given to [`Self::start`].
    pub fn header(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        put_short(out, name);
        put_long(out, value);
        self.count = self.count.saturating_add(1);
    }

    /// How many headers there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Completes the frame: `out` ends with `body_bytes_behind` fewer bytes of the body than the frame has (the
    /// caller sends those right behind).
    pub fn finish(self, out: &mut [u8], body_bytes_behind: usize, flags: Flags) {
        let payload_bytes = out.len() - self.start - HEADER_BYTES + body_bytes_behind;
        let header = encode_header(Kind::ResponseHead, flags, payload_bytes as u32);
        if let Some(space) = out.get_mut(self.start..self.start + HEADER_BYTES) {
            space.copy_from_slice(&header);
        }
        if let Some(space) = out.get_mut(self.count_at..self.count_at + 2) {
            space.copy_from_slice(&self.count.to_le_bytes());
        }
    }
}

/// The payload of a [`crate::Kind::ResponseFile`] frame: a range of the file that comes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseFile {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl ResponseFile {
    /// Decodes the payload.
    pub fn decode(payload: &[u8]) -> Result<Self, LinkError> {
        let mut reader = Reader::new(payload, "response file");
        let (offset, len) = (reader.u64()?, reader.u64()?);
        if offset.checked_add(len).is_none() || !reader.clone().rest().is_empty() {
            return Err(reader.malformed());
        }
        Ok(Self { offset, len })
    }
}

/// Appends the payload of a [`crate::Kind::ResponseFile`] frame.
pub fn encode_response_file(out: &mut Vec<u8>, file: ResponseFile) {
    out.extend_from_slice(&file.offset.to_le_bytes());
    out.extend_from_slice(&file.len.to_le_bytes());
}
