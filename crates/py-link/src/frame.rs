//! The frame header: length, kind, flags, stream.

use crate::LinkError;

/// Bytes of the header before each payload.
pub const HEADER_BYTES: usize = 8;

/// The longest payload. Bodies are cut into frames below it; a request head (bounded by the gateway's
/// header limit) fits with room to spare. It bounds what a confused peer can make us buffer.
pub const PAYLOAD_BYTES_MAX: u32 = 1024 * 1024;

/// What a frame is. Below 64: gateway to worker; from 64: worker to gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A request head, with its body inline, as a descriptor, or announced.
    Request = 1,
    /// A piece of a streamed request body; END on the last.
    RequestBody = 2,
    /// The client is gone: end the exchange early.
    Cancel = 3,
    /// No more requests will come: close the stream.
    Retire = 4,
    /// The answer to a Hello: the slot is in service.
    Welcome = 5,
    /// The answer to a Hello: the payload is the reason, as text. The worker must exit.
    Refuse = 6,
    /// Long link: the worker may send this many more bytes on the stream, see [`crate::long`].
    CreditToWorker = 7,
    /// Long link: a piece of a WebSocket message of the client; END on its last.
    MessageToWorker = 8,
    /// Long link: the client's WebSocket is closed, see [`crate::long::Close`].
    CloseToWorker = 9,
    /// The first frame of a stream, see [`crate::Hello`].
    Hello = 64,
    /// Status line and headers, with the first piece of the body; END when that is all of it.
    ResponseHead = 65,
    /// A piece of the body.
    ResponseBody = 66,
    /// The next piece of the body is a range of the file whose descriptor comes along.
    ResponseFile = 67,
    /// Fields of a 103 answer, before the ResponseHead, see [`crate::long::encode_fields`].
    EarlyHints = 68,
    /// Fields behind the body; with END, in place of a last piece.
    Trailers = 69,
    /// On a slot, in place of ResponseHead: the exchange goes on as a stream of the long link, the slot is free.
    /// See [`crate::long::Detached`].
    Detached = 70,
    /// Long link: the gateway may send this many more bytes on the stream.
    CreditToGateway = 71,
    /// Long link: a piece of a WebSocket message of the app; END on its last.
    MessageToGateway = 72,
    /// Long link: the app closes the WebSocket (or, before its head, refuses it with 403); ends the stream.
    CloseToGateway = 73,
}

impl Kind {
    /// The kind with this number on the wire.
    pub fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Request,
            2 => Self::RequestBody,
            3 => Self::Cancel,
            4 => Self::Retire,
            5 => Self::Welcome,
            6 => Self::Refuse,
            7 => Self::CreditToWorker,
            8 => Self::MessageToWorker,
            9 => Self::CloseToWorker,
            64 => Self::Hello,
            65 => Self::ResponseHead,
            66 => Self::ResponseBody,
            67 => Self::ResponseFile,
            68 => Self::EarlyHints,
            69 => Self::Trailers,
            70 => Self::Detached,
            71 => Self::CreditToGateway,
            72 => Self::MessageToGateway,
            73 => Self::CloseToGateway,
            _ => return None,
        })
    }
}

/// The flags byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// Nothing set.
    pub const NONE: Self = Self(0);
    /// The exchange (or the request body) ends with this frame.
    pub const END: Self = Self(1);
    /// The exchange ends with this frame, and the response is cut short: the client must be able to tell.
    pub const ABORT: Self = Self(2);

    /// Is END set?
    pub fn is_end(self) -> bool {
        self.0 & Self::END.0 != 0
    }

    /// Is ABORT set?
    pub fn is_abort(self) -> bool {
        self.0 & Self::ABORT.0 != 0
    }
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Payload bytes that follow.
    pub len: u32,
    /// What the payload is.
    pub kind: Kind,
    /// END, ABORT.
    pub flags: Flags,
    /// 0 on a slot; which exchange, on a long link.
    pub stream: u16,
}

/// A whole frame inside a receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header.
    pub header: FrameHeader,
    /// The payload.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the buffer this frame took.
    pub fn wire_bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

/// Decodes the first frame of `buffer`. `Ok(None)`: more bytes are needed.
pub fn decode(buffer: &[u8]) -> Result<Option<Frame<'_>>, LinkError> {
    let Some((head, rest)) = buffer.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let [l0, l1, l2, l3, kind, flags, s0, s1] = *head;
    let len = u32::from_le_bytes([l0, l1, l2, l3]);
    if len > PAYLOAD_BYTES_MAX {
        return Err(LinkError::TooLong(len));
    }
    let kind = Kind::from_u8(kind).ok_or(LinkError::UnknownKind(kind))?;
    let header = FrameHeader { len, kind, flags: Flags(flags), stream: u16::from_le_bytes([s0, s1]) };
    Ok(rest.get(..len as usize).map(|payload| Frame { header, payload }))
}

/// The header of a frame on a slot (stream 0) with a payload of `len` bytes.
pub fn encode_header(kind: Kind, flags: Flags, len: u32) -> [u8; HEADER_BYTES] {
    let [l0, l1, l2, l3] = len.to_le_bytes();
    [l0, l1, l2, l3, kind as u8, flags.0, 0, 0]
}

/// Writes the stream into a header that [`encode_header`] made.
pub fn set_stream(header: &mut [u8], stream: u16) {
    if let Some(place) = header.get_mut(6..HEADER_BYTES) {
        place.copy_from_slice(&stream.to_le_bytes());
    }
}

/// A whole frame as bytes; for frames off the hot path.
pub fn frame(kind: Kind, flags: Flags, payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX as usize);
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    out.extend_from_slice(&encode_header(kind, flags, payload.len() as u32));
    out.extend_from_slice(payload);
    out
}

/// The same on a stream of the long link.
pub fn frame_on(stream: u16, kind: Kind, flags: Flags, payload: &[u8]) -> Vec<u8> {
    let mut out = frame(kind, flags, payload);
    set_stream(&mut out, stream);
    out
}
