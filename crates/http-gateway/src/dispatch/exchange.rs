//! From the first frame of an answer to a [`Response`].

use std::sync::Arc;

use ctl_telemetry::metrics::WORKER_LOST_TOTAL;
use py_link::Flags;
use tracing::warn;

use super::long::lasting;
use super::{Dispatcher, Failure};
use crate::link::long::NotClaimed;
use crate::link::{Head, Received};
use crate::message::{AnsweredBy, Body, Response, Trail};
use crate::queue::{CheckedOut, NoSlot};
use crate::spool::{self, Aborted, PumpLimits, pump};
use crate::upload::{Rest, upload};

impl Dispatcher {
    /// Complete answers free their slot at once (what is left of a request's body is broken off then); for the others a task of its own empties the slot into a spool.
    pub(super) fn answer(
        &self,
        checkout: CheckedOut,
        received: Received,
        rest: Option<Rest>,
        trail: &mut Trail,
    ) -> Result<Response, Failure> {
        let worker = checkout.worker();
        let request_id = trail.request_id.clone();
        let head = match received {
            // The worker has not detached it: it would keep its slot for as long as its client likes.
            Received::Head(head)
                if head.is_event_stream() && !head.flags.is_end() && self.links.is_full(worker) =>
            {
                checkout.metrics().long_lived_refused.inc();
                return Err(Failure::NoSlot(NoSlot::Full));
            }
            Received::Head(head) => head,
            Received::Detached(detached) => {
                let metrics = Arc::clone(checkout.metrics());
                // Its part of the exchange is over.
                drop(checkout);
                match detached.claim() {
                    Ok((head, stream)) => return Ok(lasting(*head, stream, trail)),
                    Err(NotClaimed::Full) => {
                        metrics.long_lived_refused.inc();
                        return Err(Failure::NoSlot(NoSlot::Full));
                    }
                    Err(NotClaimed::Gone) => {}
                }
                WORKER_LOST_TOTAL.inc();
                warn!(
                    request_id = &*request_id,
                    worker, "an answer moved to a long link that has ended: answered 502"
                );
                return Err(Failure::WorkerLost);
            }
            _ => {
                warn!(
                    request_id = &*request_id,
                    worker, "an answer that does not start with its head: answered 502"
                );
                checkout.lose();
                return Err(Failure::WorkerLost);
            }
        };
        trail.by = AnsweredBy::Worker(worker);
        trail.lasts = head.is_event_stream();
        let Head { status, reason, headers, body, flags, queries } = *head;
        trail.queries = queries;
        let body = if flags.is_end() {
            drop(checkout);
            if body.is_empty() { Body::Empty } else { Body::Bytes(body) }
        } else {
            Body::Stream(self.stream(checkout, body, flags, rest, trail))
        };
        Ok(Response { status, reason, headers, body, close: false, trail: trail.clone() })
    }

    fn stream(
        &self,
        checkout: CheckedOut,
        first: bytes::Bytes,
        flags: Flags,
        rest: Option<Rest>,
        trail: &Trail,
    ) -> spool::BodyStream {
        let (mut writer, mut stream) = spool::spool(self.spool.clone());
        writer.start(first);
        if flags.is_abort() {
            drop(checkout);
            writer.end(Err(Aborted));
        } else {
            let limits = PumpLimits { app: checkout.app_timeout(), ..self.pump };
            let coming = rest.map(|rest| {
                let (upload, coming) = upload(rest);
                stream.attach(upload);
                coming
            });
            tokio::spawn(pump(checkout, writer, coming, limits, trail.request_id.clone()));
        }
        stream
    }
}
