//! The link: frames between the gateway and a worker, over one unix stream a slot.
//!
//! Every frame is an eight byte header and a payload of a stated length:
//!
//! ```text
//! 0      4      5       6        8
//! | len  | kind | flags | stream | payload (len bytes) …
//!   u32    u8     u8      u16      all integers little endian
//! ```
//!
//! `stream` is 0 on a slot (one request at a time) and the exchange's number on the multiplexed link of
//! long-lived exchanges (see [`long`]). A frame may come with one file descriptor (`SCM_RIGHTS`): the payload
//! says so (see [`Body::File`] and [`Kind::ResponseFile`]), the driver carries it.
//!
//! One exchange on a slot:
//!
//! ```text
//! worker → Hello            gateway → Welcome | Refuse
//! gateway → Request [RequestBody …]          (RequestBody only after Body::Stream)
//! worker → ResponseHead [ResponseBody | ResponseFile …] until a frame has END or ABORT
//!        (EarlyHints may come before the head, Trailers with END after the body; Detached ends the slot's part, see [`long`])
//! gateway → Cancel          (at any time during an exchange: the client is gone; the worker still ends it)
//! gateway → Retire          (between exchanges: finish, close the stream)
//! ```
//!
//! Invariants: no I/O and no clock; decoding untrusted bytes never panics and never allocates more
//! than the frame that holds them; every length has a limit that both sides check.

mod certificate;
mod frame;
mod hello;
pub mod long;
mod request;
mod response;
mod wire;

pub use certificate::{ClientAuth, ClientCertificate};
pub use frame::{
    Flags, Frame, FrameHeader, HEADER_BYTES, Kind, PAYLOAD_BYTES_MAX, decode, encode_header, frame, frame_on,
    set_stream,
};
pub use hello::{Channel, Hello};
pub use request::{Body, Exchange, Local, Request, RequestStart, RequestWriter, Scheme, Tls, Version};
pub use response::{
    ResponseFile, ResponseHead, ResponseHeadWriter, encode_response_file, encode_response_head,
};

/// The version both sides must share: binary and extension are built from the same source.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is wrong with received bytes. After one of these the stream cannot be trusted: close it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The length field is above [`PAYLOAD_BYTES_MAX`].
    #[error("frame of {0} bytes is over the limit of {PAYLOAD_BYTES_MAX}")]
    TooLong(u32),
    /// The kind is none we know.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The payload ends before the fields it promises, or holds a value out of range.
    #[error("malformed {0}")]
    Malformed(&'static str),
}
