//! The body of an answer on the straight way to its client: read when the client has taken what was read before.
//!
//! That needs no task and no spool, and what is written has just been read. When the client does not take a piece at once the
//! rest goes the way of all bodies (`pump.rs`), so that the connection is free as soon as the server is done.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use ctl_telemetry::metrics::UpstreamMetrics;
use tracing::warn;

use super::exchange::{Clock, Moved, poll_moved};
use super::parse::BadAnswer;
use super::pump::{Body, Bounds, SILENT, Short, blame, pump};
use crate::message::Headers;
use crate::request_id::RequestId;
use crate::spool::{Aborted, BodyStream, SpoolLimits, spool};

/// See the head of this file.
pub(crate) struct Flow {
    /// Has come already.
    pub(super) first: Bytes,
    /// `None`: all of it has been read, and the connection is free.
    pub(super) body: Option<Body>,
    pub(super) bounds: Bounds,
    /// For when the client is slow.
    pub(super) spool: SpoolLimits,
    pub(super) request_id: RequestId,
    pub(super) metrics: Arc<UpstreamMetrics>,
    pub(super) trailers: Option<Headers>,
}

impl Flow {
    /// The next piece; `None` at the end. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Aborted>> {
        let read =
            if self.first.is_empty() { self.read().await } else { Ok(std::mem::take(&mut self.first)) };
        match read {
            Ok(piece) => {
                // At once: the connection shall not wait for the client to take the last piece.
                if let Some(body) = self.body.take_if(|body| body.decoder.is_done()) {
                    self.trailers = body.finish();
                }
                (!piece.is_empty()).then_some(Ok(piece))
            }
            Err(why) => {
                let mut body = self.body.take();
                blame(body.as_mut().and_then(|body| body.lease.pick.as_mut()));
                let server = body.as_ref().map_or("", |body| body.lease.server().name.as_str());
                if let Some(why) = Short::Server(why).why(&self.metrics) {
                    warn!(request_id = &*self.request_id, server, "a response of an upstream was cut: {why}");
                }
                Some(Err(Aborted))
            }
        }
    }

    /// Empty at the end.
    async fn read(&mut self) -> Result<Bytes, BadAnswer> {
        let Some(body) = &mut self.body else { return Ok(Bytes::new()) };
        let mut clock = Clock::default();
        loop {
            let piece = body.take_buffered()?;
            if !piece.is_empty() || body.decoder.is_done() {
                return Ok(piece);
            }
            if body.lease.stream().buffered().is_empty() && body.decoder.at_once() > 0 {
                return body.read_on(&self.bounds).await;
            }
            // Between chunks: bytes that carry no data do not restart the clock.
            let (stream, out) = (body.lease.stream(), &mut body.out);
            let idle = Some(self.bounds.idle);
            match poll_fn(|context| poll_moved(context, stream, out, &mut clock, idle)).await {
                Moved::Read | Moved::Sent | Moved::Refused => {}
                Moved::Ended(how) => body.ended(how)?,
                Moved::Still => return Err(SILENT),
            }
        }
    }

    /// Is there anything that a slow client would keep from its connection?
    pub(crate) fn is_reading(&self) -> bool {
        self.body.is_some()
    }

    /// The fields behind the body, after its end.
    pub(crate) fn take_trailers(&mut self) -> Option<Headers> {
        self.trailers.take()
    }

    /// From now on the client's pace is its own.
    pub(crate) fn spooled(self) -> BodyStream {
        let Self { first, body, bounds, spool: limits, request_id, metrics, trailers } = self;
        let (mut writer, stream) = spool(limits);
        writer.start(first);
        if let Some(body) = body {
            drop(tokio::spawn(pump(body, writer, None, bounds, request_id, metrics)));
            return stream;
        }
        if let Some(trailers) = trailers {
            writer.trailers(trailers);
        }
        writer.end(Ok(()));
        stream
    }
}
