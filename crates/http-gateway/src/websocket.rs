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
//! | `tunnel.rs` | a conversation with an upstream, passed through as bytes |
//! | `boundary.rs`, `farewell.rs` | where its frames end (pure), and how it is ended between two of them |
//! | `driver.rs`, `driver/` | a conversation: both directions, pings, closing, drain; over whatever carries its bytes |

mod boundary;
pub mod close;
pub mod decode;
pub mod deflate;
pub(crate) mod driver;
pub mod encode;
mod farewell;
pub mod frame;
pub mod handshake;
pub mod tunnel;

use bytes::Bytes;
use ctl_config::Config;
use ctl_telemetry::events::SUBPROTOCOL_DROPPED;
pub use py_link::long::MessageType;
use tokio::sync::mpsc;

use crate::drain::Drain;
use crate::message::{Headers, RequestHead, Response, Trail};
use deflate::Agreed;
use driver::{Outcome, Terms, Wire, converse};
use handshake::Handshake;
use tunnel::{Bounds, Tunnel, relay};

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
    /// 101 (200 over HTTP/2), and the conversation is passed through as bytes.
    Tunnel {
        /// The server's fields, those of the handshake among them: what was agreed is between it and the client.
        headers: Headers,
        /// The server.
        tunnel: Tunnel,
        /// For the access log.
        trail: Trail,
    },
    /// Any other answer, as for a request.
    Refused(Response),
}

/// Tells of a subprotocol that the app chose and its client had not offered.
fn subprotocol_dropped(chosen: &[u8], trail: &Trail) {
    let chosen = String::from_utf8_lossy(chosen);
    SUBPROTOCOL_DROPPED.happened(format_args!("request {}: {chosen}", &*trail.request_id));
}

/// Who is at the other end of an opened WebSocket.
#[derive(Debug)]
pub(crate) enum Far {
    /// The app, in whole messages.
    App(AppSession, Option<Agreed>),
    /// An upstream's server.
    Tunnel(Tunnel),
}

impl Answer {
    /// The fields of the answer that opens the WebSocket, and who is there then; or the answer that opens none.
    pub(crate) fn open(
        self,
        handshake: &Handshake,
        head: &RequestHead,
    ) -> Result<(Headers, Far, Trail), Box<Response>> {
        match self {
            Self::Accepted { headers, session, trail } => {
                let dropped = |chosen: &[u8]| subprotocol_dropped(chosen, &trail);
                let fields = handshake.fields(&headers, head, dropped);
                Ok((fields, Far::App(session, handshake.deflate), trail))
            }
            Self::Tunnel { headers, tunnel, trail } => {
                Ok((handshake.tunnel_fields(&headers), Far::Tunnel(tunnel), trail))
            }
            Self::Refused(response) => Err(Box::new(response)),
        }
    }
}

impl Far {
    /// Talks until it is over. The answer to the handshake has been sent.
    pub(crate) async fn talk<W: Wire>(self, wire: &mut W, config: &Config, drain: Drain) -> Outcome {
        match self {
            Self::App(session, deflate) => converse(wire, session, Terms::new(config, deflate), drain).await,
            // Apart, so that those with the app need no room for it.
            Self::Tunnel(tunnel) => Box::pin(relay(wire, tunnel, Bounds::new(config), drain)).await,
        }
    }
}

/// Makes both ends of a session: the driver's, and what the link keeps.
pub fn session() -> (AppSession, mpsc::Receiver<FromClient>, mpsc::Sender<FromApp>) {
    let (to_app, from_driver) = mpsc::channel(WAITING_MAX);
    let (to_driver, from_app) = mpsc::channel(WAITING_MAX);
    (AppSession { to_app, from_app }, from_driver, to_driver)
}
