//! Requests that the app answers: their bodies, and what their clients are told when it does not.

use tracing::error;

use super::{
    Answer, Asks, BodyError, BodyLength, Failure, Gateway, GatherError, GatherLimits, Handshake, NoSlot,
    Payload, Ready, RequestBody, RequestHead, Response, Terms, Trail, body_status, broken, error_for,
    from_file, gather, origin,
};
use crate::client::AddressText;

impl Gateway {
    /// To the app and back.
    pub(super) async fn ask_app<B: RequestBody>(
        &self,
        asks: Asks<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Response {
        let Asks { head, terms, .. } = asks;
        if body.length() != BodyLength::None && self.dispatcher.refuses(head, &terms, trail.client) {
            let mut response = self.failed(Failure::NoSlot(NoSlot::Overloaded), head, trail);
            response.close = true;
            return response;
        }
        let payload = match self.payload(head, &terms, body).await {
            Ok(payload) => payload,
            Err(error) => return Self::body_failed(&error, head, trail),
        };
        let request_id = trail.request_id.clone();
        let client = AddressText::from(trail.client);
        let origin = origin(asks, &request_id, &client);
        let request = Ready { head, origin, payload: &payload, terms };
        let broken_off = matches!(payload, Payload::Stream(_));
        let answered = tokio::select! {
            biased;
            why = self.broken(asks) => return broken::page(&why, head, trail),
            answered = self.dispatcher.dispatch(&request, body, trail) => answered,
        };
        let mut response = match answered {
            Ok(response) => response,
            Err(failure) => {
                let mut response = self.failed(failure, head, trail);
                response.close |= broken_off;
                return response;
            }
        };
        if let Some(files) = self.files()
            && let Some(file) = files.accel(head, &request_id, response.status, &mut response.headers).await
        {
            response = from_file(file, response.trail);
        }
        if !response.headers.contains("x-request-id") {
            response.headers.push(b"X-Request-ID", request_id.as_bytes());
        }
        response
    }

    /// Asks the app for a WebSocket. `None`: it knows none.
    pub(super) async fn open(&self, asks: Asks<'_>, trail: &mut Trail) -> Option<Answer> {
        let Asks { head, terms, .. } = asks;
        let request_id = trail.request_id.clone();
        let client = AddressText::from(trail.client);
        let origin = origin(asks, &request_id, &client);
        let request = Ready { head, origin, payload: &Payload::Empty, terms };
        let answered = tokio::select! {
            biased;
            why = self.broken(asks) => return Some(Answer::Refused(broken::page(&why, head, trail))),
            answered = self.dispatcher.websocket(&request, trail) => answered,
        };
        Some(match answered? {
            Ok(Handshake::Accepted(Response { headers, trail, .. }, session)) => {
                Answer::Accepted { headers, session, trail }
            }
            Ok(Handshake::Answered(response)) => Answer::Refused(response),
            Ok(Handshake::Refused) => Answer::Refused(error_for(head, 403, trail)),
            Err(failure) => Answer::Refused(self.failed(failure, head, trail)),
        })
    }

    async fn payload<B: RequestBody>(
        &self,
        head: &RequestHead,
        terms: &Terms<'_>,
        body: &mut B,
    ) -> Result<Payload, GatherError> {
        if let Some(payload) = body.gathered() {
            return Ok(payload);
        }
        let length = body.length();
        let body_bytes_max = terms.body_bytes_max.unwrap_or(self.config.limits.body_max);
        let streamed = |prefix: &String| !prefix.is_empty() && head.path().starts_with(prefix.as_bytes());
        if length != BodyLength::None && self.config.buffers.request_stream.iter().any(streamed) {
            let len = if let BodyLength::Known(len) = length { Some(len) } else { None };
            if len.is_some_and(|len| len > body_bytes_max) {
                return Err(BodyError::TooLarge.into());
            }
            return Ok(Payload::Stream(len));
        }
        let limits = GatherLimits {
            body_bytes_max,
            memory_bytes: self.config.buffers.request_memory,
            dir: &self.spool_dir,
        };
        gather(body, limits).await
    }

    pub(super) fn body_failed(error: &GatherError, head: &RequestHead, trail: &Trail) -> Response {
        let status = match error {
            GatherError::Client(error) => body_status(*error),
            GatherError::Disk { .. } => {
                error!(request_id = &*trail.request_id, "{error}");
                500
            }
        };
        let mut response = error_for(head, status, trail);
        response.close = true;
        response
    }

    fn failed(&self, failure: Failure, head: &RequestHead, trail: &Trail) -> Response {
        let status = match failure {
            Failure::NoSlot(_) => 503,
            Failure::ClientGone => 499,
            Failure::Body(error) => body_status(error),
            Failure::WorkerLost => 502,
            Failure::TimedOut => 504,
        };
        let mut response = error_for(head, status, trail);
        if let Failure::NoSlot(_) = failure {
            let seconds = self.config.queue.retry_after.as_secs().max(1);
            response.headers.push(b"retry-after", itoa::Buffer::new().format(seconds).as_bytes());
        }
        response.close = matches!(failure, Failure::ClientGone | Failure::Body(_));
        response
    }
}
