//! Requests that are passed on to an upstream: their bodies, and what their clients are told when nobody answers.

use super::{
    Answer, Asks, BodyError, BodyLength, Gateway, GatherError, NoBody, Payload, RequestBody, RequestHead,
    Response, Trail, body_status, error_for, error_saying, origin,
};
use crate::client::AddressText;
use crate::request_body::{GatherLimits, gather};
use crate::upstream::{Failure, Forward, Handshake, Upstream};

impl Gateway {
    /// To the upstream of this name and back.
    pub(super) async fn pass_on<B: RequestBody>(
        &self,
        name: &str,
        asks: Asks<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Response {
        // The configuration has been checked.
        let Some(upstream) = self.upstreams.named(name) else { return error_for(asks.head, 502, trail) };
        let body_bytes_max = asks.terms.body_bytes_max.unwrap_or(self.config.limits.body_max);
        let payload = match self.content(upstream, body_bytes_max, body).await {
            Ok(payload) => payload,
            Err(error) => return Self::body_failed(&error, asks.head, trail),
        };
        let streamed = matches!(payload, Payload::Stream(_));
        let (request_id, client) = (trail.request_id.clone(), client(trail));
        let origin = origin(asks, &request_id, &client);
        let request = Forward { head: asks.head, origin, body_bytes_max };
        match upstream.forward(&request, payload, body, trail).await {
            Ok(mut response) => {
                trail.begun = true;
                if !response.headers.contains("x-request-id") {
                    response.headers.push(b"X-Request-ID", request_id.as_bytes());
                }
                response
            }
            Err(failure) => {
                trail.begun |= failure.has_begun();
                let mut response = self.not_passed(&failure, asks.head, trail);
                response.close |= streamed;
                response
            }
        }
    }

    /// A WebSocket to the upstream of this name.
    pub(super) async fn pass_through(&self, name: &str, asks: Asks<'_>, trail: &mut Trail) -> Answer {
        let Some(upstream) = self.upstreams.named(name) else {
            return Answer::Refused(error_for(asks.head, 502, trail));
        };
        let (request_id, client) = (trail.request_id.clone(), client(trail));
        let origin = origin(asks, &request_id, &client);
        let request = Forward { head: asks.head, origin, body_bytes_max: 0 };
        match upstream.websocket(&request, &mut NoBody, trail).await {
            Ok(Handshake::Accepted(headers, tunnel)) => {
                Answer::Tunnel { headers, tunnel, trail: trail.clone() }
            }
            Ok(Handshake::Answered(response)) => Answer::Refused(*response),
            Err(failure) => Answer::Refused(self.not_passed(&failure, asks.head, trail)),
        }
    }

    /// The body: whole, unless the upstream is to have it as it comes.
    async fn content<B: RequestBody>(
        &self,
        upstream: &Upstream,
        body_bytes_max: u64,
        body: &mut B,
    ) -> Result<Payload, GatherError> {
        if let Some(payload) = body.gathered() {
            return Ok(payload);
        }
        let length = body.length();
        if upstream.buffers() || length == BodyLength::None {
            let memory_bytes = self.config.buffers.request_memory;
            let limits = GatherLimits { body_bytes_max, memory_bytes, dir: &self.spool_dir };
            return gather(body, limits).await;
        }
        let len = if let BodyLength::Known(len) = length { Some(len) } else { None };
        if len.is_some_and(|len| len > body_bytes_max) {
            return Err(BodyError::TooLarge.into());
        }
        Ok(Payload::Stream(len))
    }

    /// What the client is told.
    fn not_passed(&self, failure: &Failure, head: &RequestHead, trail: &Trail) -> Response {
        let (status, why) = match failure {
            Failure::Busy => (503, ""),
            Failure::NotReached | Failure::Lost | Failure::Bad => {
                (502, "The server behind this page did not answer.")
            }
            Failure::TimedOut => (504, "The server behind this page took too long to answer."),
            Failure::Body(error) => (body_status(*error), ""),
            Failure::Circle => (508, "The servers behind this page send requests to each other in a circle."),
            Failure::ClientGone => (499, ""),
            Failure::Refused(why) => (400, *why),
            Failure::Ours => (500, ""),
        };
        let mut response = error_saying(head, status, why, trail);
        if status == 503 {
            let seconds = self.config.queue.retry_after.as_secs().max(1);
            response.headers.push(b"retry-after", itoa::Buffer::new().format(seconds).as_bytes());
        }
        response.close = matches!(failure, Failure::ClientGone | Failure::Body(_));
        response
    }
}

fn client(trail: &Trail) -> AddressText {
    trail.client.into()
}
