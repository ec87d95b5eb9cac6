//! One exchange on a long link, in the hands of its consumer: a WebSocket's bridge, a response body, or who waits for its head.

use std::sync::Arc;

use py_link::long::{MessageType, encode_credit};
use py_link::{Flags, HEADER_BYTES, Kind, encode_header, set_stream};

use super::{End, Item, Link, LinkGone, Shared};

/// See the head of this file.
pub(crate) struct LongStream {
    link: Arc<Link>,
    pub(super) shared: Arc<Shared>,
    /// The worker has heard of it.
    pub(super) begun: bool,
    /// The worker knows that the client is gone.
    told: bool,
}

impl std::fmt::Debug for LongStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LongStream({} of worker {})", self.shared.number, self.link.identity.worker)
    }
}

impl LongStream {
    pub(super) fn new(link: &Arc<Link>, shared: Arc<Shared>) -> Self {
        Self { link: Arc::clone(link), shared, begun: false, told: false }
    }

    /// From here on it is there rather than at work. Its client takes the rest as slowly as it likes, and must not keep others from their turn by that.
    pub(crate) fn settle(&self) {
        self.link.table().settle(&self.shared);
    }

    /// The worker's number.
    pub(crate) fn worker(&self) -> u32 {
        self.link.identity.worker
    }

    /// What came next, if it is here; the end behind the last. `None`: nothing yet.
    pub(crate) fn try_next(&self) -> Option<Result<Item, End>> {
        let (item, credit) = {
            let mut state = self.shared.state();
            match state.take() {
                Some(taken) => taken,
                None => return state.end().cloned().map(Err),
            }
        };
        if let Some(bytes) = credit {
            self.link.control(self.shared.number, Kind::CreditToWorker, &encode_credit(bytes));
        }
        Some(Ok(item))
    }

    /// Resolves when there is something to be taken, and now and then without. Cancel safe.
    pub(crate) async fn came(&self) {
        self.shared.came.notified().await;
    }

    /// What comes next. Cancel safe.
    pub(crate) async fn next(&self) -> Result<Item, End> {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.came().await;
        }
    }

    /// Sends a message of the client, as fast as the app takes it. Not cancel safe: a message that is not sent whole
    /// must be followed by the end of the stream.
    pub(crate) async fn send_message(&self, kind: MessageType, message: &[u8]) -> Result<(), LinkGone> {
        let mut rest = message;
        // The first piece begins with the type (`py_link::long::MessageType`).
        let mut lead: &[u8] = &[kind as u8];
        loop {
            let granted = self.granted(lead.len() + rest.len()).await?;
            let (piece, later) = rest.split_at_checked(granted - lead.len()).unwrap_or((rest, &[]));
            let room = self.link.out.room(HEADER_BYTES + granted).await?;
            let flags = if later.is_empty() { Flags::END } else { Flags::NONE };
            self.link.out.put(&self.link.socket, Some(room), |out| {
                let mut header = encode_header(Kind::MessageToWorker, flags, granted as u32);
                set_stream(&mut header, self.shared.number);
                out.extend_from_slice(&header);
                out.extend_from_slice(lead);
                out.extend_from_slice(piece);
            });
            if later.is_empty() {
                return Ok(());
            }
            (rest, lead) = (later, &[]);
        }
    }

    /// Waits until the worker takes some of `wanted` bytes (at least one).
    async fn granted(&self, wanted: usize) -> Result<usize, LinkGone> {
        loop {
            {
                let mut state = self.shared.state();
                if state.has_ended() {
                    return Err(LinkGone);
                }
                let granted = state.to_worker.take(wanted);
                if granted > 0 {
                    return Ok(granted);
                }
            }
            self.shared.opened.notified().await;
        }
    }

    /// Tells the app that its client has closed.
    pub(crate) fn send_close(&mut self, code: u16, reason: &str) {
        if !self.told && !self.shared.state().is_over() {
            self.link.close(self.shared.number, code, reason);
        }
        self.told = true;
    }
}

impl Drop for LongStream {
    fn drop(&mut self) {
        let number = self.shared.number;
        if !self.begun {
            self.link.forget(number);
            return;
        }
        let (over, ended, credit) = {
            let mut state = self.shared.state();
            let ended = state.has_ended();
            (state.is_over(), ended, state.let_go())
        };
        if over {
            return;
        }
        if let Some(bytes) = credit {
            self.link.control(number, Kind::CreditToWorker, &encode_credit(bytes));
        }
        // Who ended it has told the worker already.
        if !self.told && !ended {
            self.link.cancel(number);
        }
    }
}
