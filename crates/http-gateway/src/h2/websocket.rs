//! A stream that carries a WebSocket (RFC 8441): the handshake's answer, and what the conversation's frames travel in.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use tokio::time::timeout;

use super::exchange::{Exchanges, Outcome, Told, WINDOW_BYTES};
use super::response::{self, BadResponse};
use crate::message::{RequestHead, Response, Service};
use crate::websocket::driver::{End, Gone, Wire};
use crate::websocket::handshake::Handshake;

/// After the last frame the client has this long to end its side, too: resetting a stream may cost it what it has not read.
const LINGER: Duration = Duration::from_secs(2);

impl<S: Service> Exchanges<'_, S> {
    /// From the handshake's head to the end of the stream.
    pub(super) async fn websocket(
        &self,
        head: RequestHead,
        incoming: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) {
        let handshake = match Handshake::over_h2(&head, self.config.websocket.compress) {
            Ok(handshake) => handshake,
            Err(refused) => {
                let response = refused.answer(self.service, &self.connection);
                return self.answer(respond, Some(&head), false, response).await;
            }
        };
        let answer = tokio::select! {
            biased;
            answer = self.service.websocket(&self.connection, &head) => answer,
            _reason = poll_fn(|cx| respond.poll_reset(cx)) => return,
        };
        let (fields, far, trail) = match answer.open(&handshake, &head) {
            Ok(opened) => opened,
            // Over HTTP/1 the client waits for 101 alone. Here any 2xx opens a tunnel (RFC 9110, 9.3.6), so what an app without
            // WebSockets answers to a GET must not get there; RFC 9220, 3, names the status.
            Err(response) if response.status < 300 => {
                let refusal = self.service.refuse(&self.connection, 501, "there is no WebSocket here");
                let refusal = Response { trail: response.trail, ..refusal };
                return self.answer(respond, Some(&head), false, refusal).await;
            }
            Err(response) => return self.answer(respond, Some(&head), false, *response).await,
        };
        let opening = match response::accepted(&fields, &crate::h1::date::now()) {
            Ok(opening) => opening,
            Err(BadResponse(why)) => {
                let refusal = self.service.refuse(&self.connection, 502, why);
                return self.answer(respond, Some(&head), false, Response { trail, ..refusal }).await;
            }
        };
        let response = Outcome { status: 101, trail, sent: 0, complete: false };
        let mut told = Told { exchanges: self, request: Some(&head), response };
        // Fails when the client is gone or has reset the stream.
        let Ok(send) = respond.send_response(opening, false) else { return };
        let mut wire = StreamWire { incoming, chunk: Bytes::new(), send };
        let outcome = far.talk(&mut wire, self.config, self.drain.clone()).await;
        told.response.sent = outcome.sent;
        told.response.complete = outcome.end == End::Closed;
        drop(told);
        wire.end(outcome.end).await;
    }
}

/// Both directions of a stream.
struct StreamWire {
    incoming: RecvStream,
    /// Read and not consumed.
    chunk: Bytes,
    send: SendStream<Bytes>,
}

impl StreamWire {
    /// RFC 8441, 5: END_STREAM is the end of the connection, a reset its loss.
    async fn end(mut self, end: End) {
        if end == End::Gone {
            self.send.send_reset(Reason::CANCEL);
            return;
        }
        if self.send.send_data(Bytes::new(), true).is_err() {
            return;
        }
        let rest = async {
            while let Some(Ok(bytes)) = self.incoming.data().await {
                let _fails_when_reset = self.incoming.flow_control().release_capacity(bytes.len());
            }
        };
        // Who still sends is told by a reset when `incoming` is dropped.
        let _elapsed = timeout(LINGER, rest).await;
    }
}

impl Wire for StreamWire {
    fn buffered(&self) -> &[u8] {
        &self.chunk
    }

    fn consume(&mut self, bytes: usize) {
        self.chunk.advance(bytes);
        // The window opens again as frames are understood; while the app takes nothing, nothing is.
        let _fails_when_reset = self.incoming.flow_control().release_capacity(bytes);
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        loop {
            match ready!(self.incoming.poll_data(context)) {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => {
                    self.chunk = bytes;
                    return Poll::Ready(Ok(()));
                }
                Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
            }
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>, out: &mut BytesMut) -> Poll<Result<(), Gone>> {
        while !out.is_empty() {
            self.send.reserve_capacity(out.len().min(WINDOW_BYTES));
            let mut room = self.send.capacity();
            if room == 0 {
                room = match ready!(self.send.poll_capacity(context)) {
                    Some(Ok(room)) => room,
                    Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
                };
            }
            let piece = out.split_to(room.min(out.len())).freeze();
            if !piece.is_empty() && self.send.send_data(piece, false).is_err() {
                return Poll::Ready(Err(Gone));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn release(&mut self) {
        self.chunk = Bytes::new();
    }
}
