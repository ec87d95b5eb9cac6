//! A response on its way back.

use crate::LinkError;
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
