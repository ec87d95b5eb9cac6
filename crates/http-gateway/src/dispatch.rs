//! One request's way through a worker: slot, exchange, retry.
//!
//! A worker that dies before it has answered costs its client one safe retry (idempotent, nothing sent yet) or a
//! 502, never a hang; so a poison request kills two workers at most. A slot that turns out to be dead before it has
//! read anything costs nothing: the next is taken.

mod exchange;
mod long;
mod streamed;
mod terms;

use std::sync::Arc;

pub use long::Handshake;
pub use terms::Terms;

use ctl_telemetry::metrics::{APP_TIMEOUT_TOTAL, RETRIES_TOTAL, WORKER_LOST_TOTAL};
use py_link::{ClientAuth, Exchange, RequestStart, RequestWriter, Scheme};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::client::is_for_the_app;
use crate::extra_fields::wants_trailers;
use crate::link::long::LongLinks;
use crate::link::{Received, RequestBodySource, SlotError};
use crate::message::{BodyError, Headers, RequestBody, RequestHead, Response, Trail};
use crate::pools::Pools;
use crate::queue::{CheckedOut, NoSlot};
use crate::request_body::Payload;
use crate::spool::{PumpLimits, SpoolLimits};
use crate::tls::ClientCertificate;

/// Slots found dead in a row before we believe that something is wrong: a whole host's workers may have been killed
/// at once, and their slots are told apart from living ones only by trying.
const DEAD_SLOTS_MAX: u32 = 64;

/// Early hints of one answer that are passed on; they tell a client what to load next, and more than a few are a loop.
const HINTS_MAX: u8 = 16;

/// Who asks, as the app shall see it.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Request id.
    pub request_id: &'a str,
    /// True address of the client; empty for a unix socket.
    pub remote_addr: &'a str,
    /// Its port, 0 when unknown.
    pub remote_port: u16,
    /// True scheme.
    pub scheme: Scheme,
    /// True host with its port, as the app shall see it; empty when unknown.
    pub host: &'a [u8],
    /// The host part of it.
    pub server_name: &'a [u8],
    /// True port.
    pub server_port: u16,
    /// Where the connection came in.
    pub local: Option<&'a py_link::Local<'a>>,
    /// The TLS that ends at us.
    pub tls: Option<py_link::Tls>,
    /// Who the client is by its certificate.
    pub certificate: Option<&'a ClientCertificate>,
    /// Forwarded headers come from a trusted proxy; otherwise the app does not see them.
    pub headers_heard: bool,
    /// This is a question about another request, which is told beside it.
    pub about: Option<&'a RequestHead>,
}

/// A request that is ready for a worker.
pub struct Ready<'a> {
    /// The head.
    pub head: &'a RequestHead,
    /// Who asks.
    pub origin: Origin<'a>,
    /// The body.
    pub payload: &'a Payload,
    /// What its route says.
    pub terms: Terms<'a>,
}

/// Why a request has no answer of the app's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No slot.
    #[error("no slot")]
    NoSlot(NoSlot),
    /// The client is gone; nobody is left to answer.
    #[error("the client went away")]
    ClientGone,
    /// A streamed request body failed.
    #[error("request body: {0}")]
    Body(BodyError),
    /// 502.
    #[error("the worker died")]
    WorkerLost,
    /// 504.
    #[error("the app took too long")]
    TimedOut,
}

/// Sends requests to workers.
pub struct Dispatcher {
    /// The slots.
    pub pools: Arc<Pools>,
    /// The long links.
    pub links: Arc<LongLinks>,
    /// `SCRIPT_NAME`.
    pub mount: String,
    /// TLS clients are asked for certificates.
    pub asks_clients: bool,
    /// Longest streamed request body; the others were bounded when they were read.
    pub body_bytes_max: u64,
    /// For answers in more than one piece.
    pub spool: SpoolLimits,
    /// For answers in more than one piece.
    pub pump: PumpLimits,
}

/// How one attempt failed.
enum Lost {
    /// Before the worker can have read a byte.
    Untouched,
    /// Somewhere in its work.
    Amidst,
    Final(Failure),
}

impl Dispatcher {
    /// The app's answer. `trail` comes back inside it with the queue wait and the worker filled in.
    pub async fn dispatch<B: RequestBody>(
        &self,
        request: &Ready<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Result<Response, Failure> {
        let Ready { head, terms, .. } = request;
        let queue = self.queue(head, terms);
        let level = || self.level(head, terms, request.origin.remote_addr);
        let mut dead = 0;
        let mut retried = false;
        loop {
            let (mut checkout, waited) = tokio::select! {
                biased;
                slot = queue.checkout_within(level, terms.patience) => slot.map_err(Failure::NoSlot)?,
                () = body.closed(), if !matches!(request.payload, Payload::Stream(_)) => {
                    return Err(Failure::ClientGone);
                }
            };
            trail.queue_wait += waited;
            checkout.is_for(&trail.request_id, terms.app_timeout);
            if let Some(place) = terms.flight {
                checkout.hold(place);
            }
            let outcome = match request.payload {
                Payload::Stream(len) => self.streamed(&mut checkout, request, *len, body).await,
                _ => self.attempt(&mut checkout, request, body).await.map(|received| (received, None)),
            };
            trail.begun |= !matches!(outcome, Err(Lost::Untouched));
            let worker = checkout.worker();
            match outcome {
                Ok((received, rest)) => return self.answer(checkout, received, rest, trail),
                Err(Lost::Final(failure)) => return Err(failure),
                Err(Lost::Untouched) if dead < DEAD_SLOTS_MAX => {
                    checkout.lose();
                    dead += 1;
                }
                Err(Lost::Untouched | Lost::Amidst) => {
                    checkout.lose();
                    WORKER_LOST_TOTAL.inc();
                    let replayable =
                        request.head.method.is_idempotent() && !matches!(request.payload, Payload::Stream(_));
                    let request_id = request.origin.request_id;
                    if retried || !replayable {
                        warn!(request_id, worker, "worker died while it worked on a request: answered 502");
                        return Err(Failure::WorkerLost);
                    }
                    warn!(
                        request_id,
                        worker, "worker died while it worked on a request: trying another worker"
                    );
                    RETRIES_TOTAL.inc();
                    retried = true;
                }
            }
        }
    }

    /// Sends a request whose body is complete and waits for the first frame of the answer.
    async fn attempt<B: RequestBody>(
        &self,
        checkout: &mut CheckedOut,
        request: &Ready<'_>,
        body: &mut B,
    ) -> Result<Received, Lost> {
        let deadline = Instant::now() + checkout.app_timeout();
        let slot = checkout.slot();
        let sending = {
            let (source, frame_body) = match request.payload {
                Payload::Empty | Payload::Stream(_) => (RequestBodySource::InFrame, py_link::Body::None),
                Payload::Memory(bytes) => (RequestBodySource::InFrame, py_link::Body::Inline(bytes)),
                Payload::File(file, len) => {
                    (RequestBodySource::File(file), py_link::Body::File { len: *len })
                }
            };
            slot.send_request(source, move |out| self.write(out, request, Exchange::Http, frame_body))
        };
        let sent = tokio::select! {
            biased;
            sent = timeout_at(deadline, sending) => sent,
            // Dropping the checked-out slot cancels the exchange.
            () = body.closed() => return Err(Lost::Final(Failure::ClientGone)),
        };
        match sent {
            Ok(sent) => sent.map_err(|error| Self::lost(&error, request))?,
            Err(_) => return Err(Self::timed_out(checkout, request)),
        }
        Self::first(checkout, request, body, deadline).await
    }

    /// Waits for the first frame of an answer to a request that is sent, and passes hints on before it.
    async fn first<B: RequestBody>(
        checkout: &mut CheckedOut,
        request: &Ready<'_>,
        body: &mut B,
        deadline: Instant,
    ) -> Result<Received, Lost> {
        let mut hints = Hints::default();
        loop {
            let received = tokio::select! {
                biased;
                received = timeout_at(deadline, checkout.slot().receive()) => received,
                // Dropping the checked-out slot cancels the exchange.
                () = body.closed() => return Err(Lost::Final(Failure::ClientGone)),
            };
            match received {
                Ok(Ok(Received::Hints(fields))) => hints.pass(&fields, body).await,
                Ok(received) => return received.map_err(|error| Self::lost(&error, request)),
                Err(_) => return Err(Self::timed_out(checkout, request)),
            }
        }
    }

    fn timed_out(checkout: &CheckedOut, request: &Ready<'_>) -> Lost {
        APP_TIMEOUT_TOTAL.inc();
        warn!(
            request_id = request.origin.request_id,
            worker = checkout.worker(),
            "app did not answer within {} s (`timeouts.app`): answered 504, worker will be replaced",
            checkout.app_timeout().as_secs_f32()
        );
        checkout.report_stuck();
        Lost::Final(Failure::TimedOut)
    }

    fn lost(error: &SlotError, request: &Ready<'_>) -> Lost {
        match error {
            SlotError::Gone { untouched: true } => Lost::Untouched,
            SlotError::Gone { untouched: false } => Lost::Amidst,
            SlotError::Io(_) | SlotError::Protocol(_) => {
                warn!(request_id = request.origin.request_id, "{error}");
                Lost::Amidst
            }
        }
    }

    /// Appends the request frame.
    fn write(&self, out: &mut Vec<u8>, request: &Ready<'_>, exchange: Exchange, body: py_link::Body<'_>) {
        let (head, origin) = (request.head, &request.origin);
        let client = match origin.certificate {
            Some(certificate) => ClientAuth::Shown(certificate.for_app()),
            None if self.asks_clients && origin.tls.is_some() => ClientAuth::Nobody,
            None => ClientAuth::NotAsked,
        };
        let mut writer = RequestWriter::start(
            out,
            &RequestStart {
                id: origin.request_id.as_bytes(),
                method: head.method.as_bytes(),
                target: &head.target,
                mount: self.mount(request).as_bytes(),
                scheme: origin.scheme,
                version: head.version,
                server_name: origin.server_name,
                server_port: origin.server_port,
                local: origin.local,
                remote_addr: origin.remote_addr.as_bytes(),
                remote_port: origin.remote_port,
                exchange,
                tls: origin.tls,
                client,
            },
        );
        if !origin.host.is_empty() {
            writer.header(b"host", origin.host);
        }
        for (name, value) in head.headers.iter() {
            if !is_settled(name) && is_for_the_app(name, origin.headers_heard) {
                writer.header(name, value);
            }
        }
        if let Some(about) = origin.about {
            writer.header(b"x-forwarded-method", about.method.as_bytes());
            writer.header(b"x-forwarded-uri", &about.target);
        }
        if wants_trailers(&head.headers) {
            // The rest of TE is between us and the client.
            writer.header(b"te", b"trailers");
        }
        // A body that came in chunks has a length now.
        if !head.headers.contains("content-length") {
            let len = match body {
                py_link::Body::Inline(bytes) => Some(bytes.len() as u64),
                py_link::Body::File { len } => Some(len),
                py_link::Body::None | py_link::Body::Stream { .. } => None,
            };
            if let Some(len) = len {
                writer.header(b"content-length", itoa::Buffer::new().format(len).as_bytes());
            }
        }
        writer.body(body);
    }
}

/// Early hints of one answer (RFC 8297) on their way to the client.
#[derive(Default)]
struct Hints(u8);

impl Hints {
    async fn pass<B: RequestBody>(&mut self, fields: &Headers, body: &mut B) {
        if self.0 < HINTS_MAX {
            self.0 += 1;
            body.inform(103, fields).await;
        }
    }
}

/// What has been dealt with here: the host and the request id go along in their true form, the expectation is met.
fn is_settled(name: &[u8]) -> bool {
    matches!(name, b"host" | b"expect" | b"x-request-id" | b"http2-settings")
}

#[cfg(test)]
mod tests;
