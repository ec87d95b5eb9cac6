//! From a request to a WebSocket: the handshake's answer, and the conversation on what was a connection of requests.

use std::task::{Context, Poll};

use bytes::BytesMut;

use super::body::AHEAD_BYTES_MAX;
use super::connection::{Kept, Next, Shared, respond};
use super::date;
use super::encode::encode_switching;
use super::parse::Parsed;
use super::stream::Stream;
use super::transport::Transport;
use crate::message::{Exchange, Headers, RequestHead, Service, Trail};
use crate::websocket::Far;
use crate::websocket::driver::{End, Gone, Wire};
use crate::websocket::handshake::Handshake;

/// A WebSocket whose 101 has been sent. What the client has sent since is its first frames.
pub(super) struct Open {
    far: Far,
    head: RequestHead,
    trail: Trail,
}

/// Answers a request that asks for a WebSocket. `None`: it was refused, and the connection is ready for the next request.
pub(super) async fn answer<T: Transport, S: Service>(
    stream: &mut Stream<T>,
    shared: &Shared<S>,
    parsed: Parsed,
) -> Option<Next> {
    let compress = shared.config.websocket.compress;
    let handshake = match Handshake::over_h1(&parsed.head, parsed.body, compress) {
        Ok(handshake) => handshake,
        Err(refused) => {
            let response = refused.answer(&*shared.service, &shared.connection);
            respond(stream, shared, Some((&parsed, false)), response).await;
            return Some(Next::Linger);
        }
    };
    let answer = tokio::select! {
        biased;
        answer = shared.service.websocket(&shared.connection, &parsed.head) => answer,
        () = stream.closed(AHEAD_BYTES_MAX) => return Some(Next::Close),
    };
    match answer.open(&handshake, &parsed.head) {
        Ok((fields, far, trail)) => Some(open(stream, shared, parsed, &fields, far, trail).await),
        Err(response) => match respond(stream, shared, Some((&parsed, parsed.keep_alive)), *response).await {
            Kept::Yes => None,
            Kept::Broken => Some(Next::Broken),
            Kept::No if stream.buffered().is_empty() => Some(Next::Close),
            Kept::No => Some(Next::Linger),
        },
    }
}

/// Sends the 101.
async fn open<T: Transport, S: Service>(
    stream: &mut Stream<T>,
    shared: &Shared<S>,
    parsed: Parsed,
    fields: &Headers,
    far: Far,
    trail: Trail,
) -> Next {
    if let Err(bad) = encode_switching(&mut stream.output, fields, &date::now()) {
        let mut response = shared.service.refuse(&shared.connection, 502, bad.0);
        response.trail = trail;
        respond(stream, shared, Some((&parsed, false)), response).await;
        return Next::Linger;
    }
    let open = Open { far, head: parsed.head, trail };
    if stream.write(&[], shared.config.timeouts.write, &mut 0).await.is_err() {
        tell(shared, &open.head, &open.trail, 0, false);
        return Next::Broken;
    }
    Next::WebSocket(Box::new(open))
}

impl Open {
    /// Talks until it is over. The state of the exchange that led here is gone by now: a silent WebSocket holds little.
    pub(super) async fn converse<T: Transport, S: Service>(
        self,
        stream: &mut Stream<T>,
        shared: &Shared<S>,
    ) -> Next {
        let Self { far, head, trail } = self;
        let outcome = far.talk(stream, &shared.config, shared.drain.clone()).await;
        tell(shared, &head, &trail, outcome.sent, outcome.end == End::Closed);
        match outcome.end {
            // RFC 6455, 7.1.1: the server closes first.
            End::Closed => Next::Close,
            End::Failed => Next::Linger,
            End::Gone => Next::Broken,
        }
    }
}

fn tell<S: Service>(shared: &Shared<S>, head: &RequestHead, trail: &Trail, sent: u64, complete: bool) {
    shared.service.finished(&Exchange {
        connection: &shared.connection,
        head: Some(head),
        status: 101,
        body_bytes_sent: sent,
        complete,
        trail,
    });
}

impl<T: Transport> Wire for Stream<T> {
    fn buffered(&self) -> &[u8] {
        self.buffered()
    }

    fn consume(&mut self, bytes: usize) {
        self.consume(bytes);
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_fill(context).map_err(|_| Gone)
    }

    fn poll_send(&mut self, context: &mut Context<'_>, out: &mut BytesMut) -> Poll<Result<(), Gone>> {
        self.poll_send(context, out).map_err(|_| Gone)
    }

    fn release(&mut self) {
        self.release();
    }
}
