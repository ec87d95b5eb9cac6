//! A conversation: whole messages between a client's frames and the app, over whatever carries the bytes ([`Wire`]).
//!
//! `driver/conversation.rs` runs it; here is what it needs and what comes of it.

mod conversation;

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use ctl_config::Config;

use super::AppSession;
use super::deflate::Agreed;
use crate::drain::Drain;
use conversation::Conversation;

/// The client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// What carries the bytes: a connection of HTTP/1.1, a stream of HTTP/2.
pub(crate) trait Wire: Send {
    /// What was read and not consumed.
    fn buffered(&self) -> &[u8];

    /// Marks the first `bytes` of [`Self::buffered`] as done.
    fn consume(&mut self, bytes: usize);

    /// Reads more; called when nothing is buffered.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// Sends `out`, which is shortened by what was taken. Ready when all of it has been handed on.
    fn poll_send(&mut self, context: &mut Context<'_>, out: &mut BytesMut) -> Poll<Result<(), Gone>>;

    /// Nothing moves: gives back what empty buffers hold.
    fn release(&mut self) {}
}

/// What holds for a conversation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    message_bytes_max: u64,
    deflate: Option<Agreed>,
    /// `None`: never.
    ping_interval: Option<Duration>,
    ping_timeout: Duration,
    write_timeout: Duration,
    /// From the beginning of a drain to our close frame.
    grace: Duration,
    /// How long an app may take to hear that its client is gone.
    app_timeout: Duration,
}

impl Terms {
    /// From the configuration, and what was agreed in the handshake.
    pub(crate) fn new(config: &Config, deflate: Option<Agreed>) -> Self {
        let websocket = &config.websocket;
        Self {
            message_bytes_max: websocket.message_max,
            deflate,
            ping_interval: Some(websocket.ping_interval).filter(|interval| !interval.is_zero()),
            ping_timeout: websocket.ping_timeout,
            write_timeout: config.timeouts.write,
            // Clients are told before the process is cut.
            grace: config.workers.long_lived_grace.min(config.server.drain_timeout / 2),
            app_timeout: config.timeouts.app,
        }
    }
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides have said so.
    Closed,
    /// We have said so; the client may still be sending.
    Failed,
    /// The client is gone, or does not read.
    Gone,
}

/// What is left of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) end: End,
    /// Bytes of frames that were sent.
    pub(crate) sent: u64,
}

/// Talks until it is over. The answer to the handshake has been sent.
pub(crate) async fn converse<W: Wire>(wire: &mut W, app: AppSession, terms: Terms, drain: Drain) -> Outcome {
    let mut conversation = Conversation::new(wire, app, terms);
    let end = conversation.run(drain).await;
    let sent = conversation.sent();
    conversation.say_farewell();
    Outcome { end, sent }
}
