//! From the head of an answer to a response: what has come already goes along, for the rest there is a task.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::warn;

use super::attempt::{Heard, Way};
use super::body::BodyDecoder;
use super::flow::Flow;
use super::group::{Failure, Upstream};
use super::h2;
use super::parse::{Answer, BadAnswer, Framing};
use super::pump::{self, Body as Coming, pump};
use super::server::Lasting;
use crate::message::{AnsweredBy, Body, Response, Trail};
use crate::spool::{BodyStream, spool};
use crate::upload::{self, Waits, upload};

/// A body of a known length up to this is waited for with its head, for a moment: most servers write both one right after the
/// other, and an answer that is complete needs no task and no spool.
const AT_ONCE_BYTES_MAX: u64 = 64 * 1024;

/// That moment. Nobody notices it.
const AT_ONCE_WAIT: Duration = Duration::from_millis(2);

/// The body of an answer that is on its way.
enum Rest {
    One(Coming),
    Two(h2::Body),
}

impl Rest {
    fn is_whole(&self) -> bool {
        match self {
            Self::One(body) => body.decoder.is_done() && body.trailers.is_none(),
            Self::Two(body) => body.is_whole(),
        }
    }

    fn is_clients(&self) -> bool {
        match self {
            Self::One(body) => body.out.is_clients(),
            Self::Two(body) => body.is_clients(),
        }
    }

    /// Its connection is free for others.
    fn finish(self) {
        if let Self::One(body) = self {
            body.finish();
        }
    }
}

impl Upstream {
    /// From the head of an answer to a response.
    pub(super) async fn answer(&self, heard: Heard, trail: &mut Trail) -> Result<Response, Failure> {
        let Heard { answer, mut way } = heard;
        let server = Arc::clone(way.server());
        let bad = |why: BadAnswer| {
            let (request_id, upstream, server) = (&*trail.request_id, &self.settings.name, &server.name);
            warn!(request_id, upstream, server, "{why}: the client was told so");
            Failure::Bad
        };
        let Answer { status, reason, headers, framing, keep_alive, .. } = answer;
        let is_event_stream = headers.get("content-type").is_some_and(|kind| {
            kind.len() >= EVENTS.len() && kind.iter().zip(EVENTS).all(|(a, b)| a.eq_ignore_ascii_case(b))
        });
        if is_event_stream {
            way.lasts(Lasting::new(&self.metrics));
        }
        let at_once = match framing {
            Framing::Length(length) => length <= AT_ONCE_BYTES_MAX,
            Framing::Chunked => !is_event_stream,
            Framing::Nothing | Framing::UntilClose => false,
        };
        let (coming, first) = match way {
            Way::One(lease, out) => {
                let decoder = BodyDecoder::new(framing);
                let mut body = Coming { lease, decoder, out, keep_alive, trailers: None };
                let first = first(&mut body, at_once).await;
                let first = first.inspect_err(|_| pump::blame(body.lease.pick.as_mut())).map_err(bad)?;
                (Rest::One(body), first)
            }
            Way::Two(lease, recv, sending) => {
                let mut body = h2::Body::new(lease, recv, sending, framing);
                let until = Instant::now() + if at_once { AT_ONCE_WAIT } else { Duration::ZERO };
                let first = body.first(until, AT_ONCE_BYTES_MAX as usize).await;
                let first = first.inspect_err(|_| body.blame()).map_err(bad)?;
                (Rest::Two(body), first)
            }
        };
        let body = if coming.is_whole() {
            coming.finish();
            if first.is_empty() { Body::Empty } else { Body::Bytes(first) }
        } else {
            self.stream(coming, first, is_event_stream, trail)
        };
        trail.by = AnsweredBy::Upstream;
        trail.lasts = is_event_stream;
        Ok(Response { status, reason, headers, body, close: false, trail: trail.clone() })
    }

    fn stream(&self, coming: Rest, first: Bytes, is_event_stream: bool, trail: &Trail) -> Body {
        // Silence is what most of them consist of.
        let idle = if is_event_stream { self.settings.tunnel_timeout } else { self.settings.idle_timeout };
        let bounds = pump::Bounds { idle, held: self.settings.held };
        let metrics = Arc::clone(&self.metrics);
        let request_id = trail.request_id.clone();
        let coming = match coming {
            Rest::One(body) if body.out.is_done() => {
                let spool = self.settings.spool.clone();
                let body = Some(body);
                let flow = Flow { first, body, bounds, spool, request_id, metrics, trailers: None };
                return Body::Stream(BodyStream::straight(flow));
            }
            coming => coming,
        };
        let (mut writer, mut stream) = spool(self.settings.spool.clone());
        writer.start(first);
        let rest = coming.is_clients().then(|| {
            // How long it may be is seen to where it is sent.
            let rest = upload::Rest { left: u64::MAX, waits: Waits::unbounded() };
            let (upload, rest) = upload(rest);
            stream.attach(upload);
            rest
        });
        match coming {
            Rest::One(body) => drop(tokio::spawn(pump(body, writer, rest, bounds, request_id, metrics))),
            Rest::Two(body) => drop(tokio::spawn(h2::pump(body, writer, rest, bounds, request_id, metrics))),
        }
        Body::Stream(stream)
    }
}

/// The media type of server-sent events.
const EVENTS: &[u8] = b"text/event-stream";

/// What of a body is here, or comes `at_once`.
async fn first(coming: &mut Coming, at_once: bool) -> Result<Bytes, BadAnswer> {
    let mut first = coming.take_buffered()?;
    if !at_once || coming.decoder.is_done() {
        return Ok(first);
    }
    let until = Instant::now() + AT_ONCE_WAIT;
    while !coming.decoder.is_done() && (first.len() as u64) < AT_ONCE_BYTES_MAX {
        let left = until.saturating_duration_since(Instant::now());
        if !coming.out.is_done() || left.is_zero() || !coming.fill(left).await? {
            break;
        }
        let more = coming.take_buffered()?;
        first = if first.is_empty() { more } else { [first, more].concat().into() };
    }
    Ok(first)
}
