//! Moves an answer from its slot into its spool, so that the slot is free as soon as the worker is done.

use std::time::Duration;

use bytes::Bytes;
use ctl_telemetry::metrics::{APP_TIMEOUT_TOTAL, WORKER_LOST_TOTAL};
use py_link::Flags;
use tokio::time::{error::Elapsed, timeout};
use tracing::warn;

use super::hold::{Hold, HoldLimits};
use super::{Aborted, Writer};
use crate::link::{Received, SlotError};
use crate::queue::CheckedOut;
use crate::request_id::RequestId;
use crate::upload::Coming;

/// Bounds of an answer that streams.
#[derive(Debug, Clone, Copy)]
pub struct PumpLimits {
    /// The longest silence of the app between two pieces.
    pub app: Duration,
    /// Slow clients.
    pub hold: HoldLimits,
}

enum Ended {
    Complete,
    /// The worker gave up, or we did: the client must be able to tell.
    Short,
    /// The stream to the worker is of no use any more.
    Broken,
    ClientGone,
}

/// Runs until the worker has said everything or the client is gone; then gives the slot back. `coming` is what the app still reads
/// of its request.
pub(crate) async fn pump(
    mut checkout: CheckedOut,
    mut writer: Writer,
    coming: Option<Coming>,
    limits: PumpLimits,
    request_id: RequestId,
) {
    match forward(&mut checkout, &mut writer, coming, limits, &request_id).await {
        Ended::Complete => {
            checkout.slot().break_off_body();
            // First the slot, then the client's end: whoever saw the whole answer finds the slot free.
            drop(checkout);
            writer.end(Ok(()));
        }
        Ended::Short => writer.end(Err(Aborted)),
        Ended::Broken => {
            WORKER_LOST_TOTAL.inc();
            warn!(
                request_id = &*request_id,
                worker = checkout.worker(),
                "worker died in the middle of a response"
            );
            checkout.lose();
            writer.end(Err(Aborted));
        }
        // Dropping the guard cancels the exchange and lets the worker finish.
        Ended::ClientGone => {}
    }
}

/// What moved.
enum Moved {
    Received(Result<Result<Option<Received>, SlotError>, Elapsed>),
    /// From the client.
    Uploaded(Result<Option<Bytes>, ()>),
    ClientGone,
}

async fn next(
    checkout: &mut CheckedOut,
    writer: &Writer,
    coming: &mut Option<Coming>,
    patience: Duration,
    request_id: &str,
) -> Moved {
    let slot = checkout.slot();
    // A piece at a time: that is the back pressure. While the app may be waiting for its client it has all the time it
    // needs; the client's time is measured where the body comes from.
    let clients_turn = coming.is_some() && !slot.is_sending();
    let receiving = async {
        if clients_turn {
            Ok(slot.receive_and_send().await)
        } else {
            timeout(patience, slot.receive_and_send()).await
        }
    };
    let uploading = async {
        match coming {
            Some(coming) if clients_turn => coming.next(request_id).await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        received = receiving => Moved::Received(received),
        uploaded = uploading => Moved::Uploaded(uploaded),
        () = writer.reader_gone() => Moved::ClientGone,
    }
}

async fn forward(
    checkout: &mut CheckedOut,
    writer: &mut Writer,
    mut coming: Option<Coming>,
    limits: PumpLimits,
    request_id: &str,
) -> Ended {
    loop {
        let received = match next(checkout, writer, &mut coming, limits.app, request_id).await {
            Moved::ClientGone => return Ended::ClientGone,
            Moved::Received(received) => received,
            Moved::Uploaded(Ok(Some(piece))) => {
                checkout.slot().queue_body(&piece, Flags::NONE);
                continue;
            }
            Moved::Uploaded(ended) => {
                coming = None;
                checkout.slot().queue_body(&[], if ended.is_ok() { Flags::END } else { Flags::ABORT });
                continue;
            }
        };
        let (flags, alive) = match received {
            Err(_) => {
                APP_TIMEOUT_TOTAL.inc();
                warn!(
                    request_id,
                    worker = checkout.worker(),
                    "app made no progress within `timeouts.app`: response cut"
                );
                checkout.report_stuck();
                return Ended::Short;
            }
            Ok(Err(SlotError::Gone { .. })) => return Ended::Broken,
            Ok(Err(error)) => {
                warn!(request_id, worker = checkout.worker(), "{error}");
                return Ended::Broken;
            }
            Ok(Ok(Some(Received::Head(head)))) => {
                warn!(request_id, status = head.status, "a second response head: response cut");
                return Ended::Broken;
            }
            // All is sent; or hints, which are of no use behind the head.
            Ok(Ok(None | Some(Received::Hints(_)))) => continue,
            Ok(Ok(Some(Received::Detached(_)))) => {
                warn!(request_id, "a response that was detached behind its head: response cut");
                return Ended::Broken;
            }
            Ok(Ok(Some(Received::Trailers(fields, flags)))) => {
                writer.trailers(fields);
                (flags, true)
            }
            Ok(Ok(Some(Received::File(file, flags)))) => (flags, writer.push_file(file)),
            Ok(Ok(Some(Received::Body(bytes, flags)))) => match push(writer, bytes, limits, request_id).await
            {
                Some(alive) => (flags, alive),
                None => return Ended::Short,
            },
        };
        if flags.is_abort() {
            return Ended::Short;
        }
        if flags.is_end() {
            return Ended::Complete;
        }
        if !alive {
            return Ended::ClientGone;
        }
    }
}

/// Adds a piece; `None`: the client was too slow for too long, or too many are, or the disk is full.
async fn push(
    writer: &mut Writer,
    bytes: bytes::Bytes,
    limits: PumpLimits,
    request_id: &str,
) -> Option<bool> {
    let hold = Hold::default();
    let pushing = writer.push(bytes, || hold.begin());
    tokio::pin!(pushing);
    // The common case ends here without a timer.
    let first = tokio::select! {
        biased;
        pushed = &mut pushing => Some(pushed),
        () = std::future::ready(()) => None,
    };
    let pushed = match first {
        Some(pushed) => pushed,
        None if hold.is_one_too_many(&limits.hold) => {
            warn!(
                request_id,
                "too many slots are held by slow clients (`buffers.streaming_max`): response cut"
            );
            return None;
        }
        None => {
            let Ok(pushed) = tokio::time::timeout(limits.hold.held, pushing).await else {
                warn!(request_id, "a slow client held a slot for `buffers.streaming_timeout`: response cut");
                return None;
            };
            pushed
        }
    };
    pushed.map_err(|error| warn!(request_id, "could not spool a response: {error}")).ok()
}
