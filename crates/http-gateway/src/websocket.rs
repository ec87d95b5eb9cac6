//! WebSockets (RFC 6455; over HTTP/2 RFC 8441): what the protocol drivers and the service agree on.
//!
//! A driver (`h1`, `h2`) checks the client's handshake, asks [`crate::message::Service::websocket`], and writes the answer; once
//! accepted it speaks the WebSocket protocol with the client and passes whole messages through an [`AppSession`].
//! The service knows no frames, the drivers no workers.
//!
//! | file | what happens there |
//! |---|---|
//! | `handshake.rs` | is this a handshake, is it a good one, and what is answered (pure) |
//! | `frame.rs`, `close.rs` | frame heads, masks, close codes (pure) |
//! | `decode.rs`, `encode.rs` | frames to whole messages and back (pure) |
//! | `deflate.rs` | permessage-deflate: what is agreed, and the machines (pure) |
//! | `driver.rs`, `driver/` | a conversation: both directions, pings, closing, drain; over whatever carries its bytes |

pub mod close;
pub mod decode;
pub mod deflate;
pub(crate) mod driver;
pub mod encode;
pub mod frame;
pub mod handshake;

use bytes::Bytes;
use ctl_telemetry::events::SUBPROTOCOL_DROPPED;
pub use py_link::long::MessageType;
use tokio::sync::mpsc;

use crate::message::{Headers, Response, Trail};

/// Messages that wait in each direction of a session. Small: what waits longer waits in the client's or the app's own buffers.
pub const WAITING_MAX: usize = 4;

/// From the client to its app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient {
    /// A whole message; text has been checked to be UTF-8.
    Message(MessageType, Bytes),
    /// The client has closed, or its connection broke (1006); nothing follows.
    Closed {
        /// RFC 6455, 7.4.
        code: u16,
        /// May be empty.
        reason: String,
    },
}

/// From the app to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromApp {
    /// A whole message.
    Message(MessageType, Bytes),
    /// Close the WebSocket; nothing follows.
    Close {
        /// RFC 6455, 7.4.
        code: u16,
        /// At most 123 bytes; may be empty.
        reason: String,
    },
}

/// The app's end of an accepted WebSocket, in the driver's hands.
///
/// `from_app` ending without a [`FromApp::Close`] means that the worker died: 1011. Dropping the session tells the app that
/// the client is gone (1006).
#[derive(Debug)]
pub struct AppSession {
    /// To the app.
    pub to_app: mpsc::Sender<FromClient>,
    /// From the app.
    pub from_app: mpsc::Receiver<FromApp>,
}

/// What the app says to a handshake.
#[derive(Debug)]
pub enum Answer {
    /// 101 (200 over HTTP/2).
    Accepted {
        /// The app's fields, `sec-websocket-protocol` among them; no others of the handshake.
        headers: Headers,
        /// The app.
        session: AppSession,
        /// For the access log.
        trail: Trail,
    },
    /// Any other answer, as for a request.
    Refused(Response),
}

/// Tells of a subprotocol that the app chose and its client had not offered.
pub(crate) fn subprotocol_dropped(chosen: &[u8], trail: &Trail) {
    let chosen = String::from_utf8_lossy(chosen);
    SUBPROTOCOL_DROPPED.happened(format_args!("request {}: {chosen}", &*trail.request_id));
}

/// Makes both ends of a session: the driver's, and what the link keeps.
pub fn session() -> (AppSession, mpsc::Receiver<FromClient>, mpsc::Sender<FromApp>) {
    let (to_app, from_driver) = mpsc::channel(WAITING_MAX);
    let (to_driver, from_app) = mpsc::channel(WAITING_MAX);
    (AppSession { to_app, from_app }, from_driver, to_driver)
}
