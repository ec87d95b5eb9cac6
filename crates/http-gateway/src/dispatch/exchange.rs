//! From the first frame of an answer to a [`Response`].

use std::sync::Arc;

use ctl_telemetry::metrics::WORKER_LOST_TOTAL;
use py_link::Flags;
use tracing::warn;

use super::long::{answer, lasting, whole};
use super::{Dispatcher, Failure};
use crate::link::Received;
use crate::link::long::NotClaimed;
use crate::message::{Body, Response, Trail};
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
        let mut head = match received {
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
        let (first, flags) = (std::mem::take(&mut head.body), head.flags);
        let body = if flags.is_end() {
            drop(checkout);
            whole(first)
        } else {
            Body::Stream(self.stream(checkout, first, flags, rest, trail))
        };
        Ok(answer(*head, body, worker, trail))
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
        writer.holds_a_slot();
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
