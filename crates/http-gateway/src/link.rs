//! The gateway's end of the link: slots, each a unix stream to one place in a worker, and the long links of ASGI workers.
//!
//! [`Slot`] moves frames and descriptors and knows whether an exchange is open; what a request or an answer means
//! is the business of [`crate::dispatch`]. [`long`] does the same for exchanges that last. [`accept`] takes workers'
//! streams in after their hand-shake.
//!
//! # Cancel safety
//! Every method may be dropped at any await: what was received stays in the buffer, what is half sent is sent on
//! by the next call or by [`Slot::end_exchange`].

pub mod accept;
pub mod long;
mod receive;
mod send;
mod stream;

use std::io;
use std::sync::Arc;

use py_link::{Flags, Kind, LinkError, frame};
use rustix::net::SendFlags;

use crate::queue::Homed;
use long::{Detached, LongLinks};
use receive::{FromWorker, ReceiveBuffer};
pub use receive::{Head, Received};
pub use send::RequestBodySource;
use send::SendBuffer;
use stream::SlotStream;

/// What can go wrong between us and a worker. Each of these ends the slot.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The worker closed or died. `untouched`: before it can have read any of the request.
    #[error("the worker went away")]
    Gone {
        /// Safe to send the request to another worker, whatever its method.
        untouched: bool,
    },
    /// The system said no.
    #[error("link: {0}")]
    Io(#[from] io::Error),
    /// The worker broke the protocol.
    #[error("link: {0}")]
    Protocol(#[from] LinkError),
}

/// Which worker a slot belongs to.
#[derive(Debug, Clone, Copy)]
pub struct SlotIdentity {
    /// The supervisor's number of the process.
    pub worker: u32,
    /// The generation of its code.
    pub generation: u32,
    /// The reactor that polls the stream.
    pub home: usize,
}

/// One place for one request in one worker.
pub struct Slot {
    stream: SlotStream,
    identity: SlotIdentity,
    received: ReceiveBuffer,
    sending: SendBuffer,
    /// Where exchanges go that leave the slot.
    links: Option<Arc<LongLinks>>,
    /// The worker still owes the end of a response.
    response_open: bool,
    /// We still owe the end of a streamed request body.
    request_open: bool,
    /// All we have sent in this exchange is one request frame, and nothing has come back: what the worker has not read is that.
    only_asked: bool,
}

impl Homed for Slot {
    fn home(&self) -> usize {
        self.identity.home
    }
}

impl Slot {
    /// A slot over a stream whose hand-shake is done. Call it inside the runtime of its home reactor.
    pub fn new(stream: std::os::unix::net::UnixStream, identity: SlotIdentity) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: SlotStream::new(stream)?,
            identity,
            received: ReceiveBuffer::default(),
            sending: SendBuffer::default(),
            links: None,
            response_open: false,
            request_open: false,
            only_asked: false,
        })
    }

    /// The same, of a worker that may have a long link.
    #[must_use]
    pub fn beside(mut self, links: &Arc<LongLinks>) -> Self {
        self.links = Some(Arc::clone(links));
        self
    }

    /// The worker's number.
    pub fn worker(&self) -> u32 {
        self.identity.worker
    }

    /// The generation of the worker's code.
    pub fn generation(&self) -> u32 {
        self.identity.generation
    }

    /// Nothing is owed by either side: the slot can take a request.
    pub fn is_between_exchanges(&self) -> bool {
        !self.response_open && !self.request_open && self.sending.is_empty()
    }

    /// Sends a request frame that `write` appends; its body may be a file that goes along.
    pub async fn send_request(
        &mut self,
        body: RequestBodySource<'_>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SlotError> {
        debug_assert!(self.is_between_exchanges());
        self.response_open = true;
        self.request_open = matches!(body, RequestBodySource::Stream);
        self.only_asked = !self.request_open;
        self.sending.request(body, write);
        self.sending.flush(&self.stream).await
    }

    /// The next piece of the worker's answer.
    pub async fn receive(&mut self) -> Result<Received, SlotError> {
        let received = self.received.next(&self.stream).await.map_err(|error| match error {
            SlotError::Gone { untouched } => SlotError::Gone { untouched: untouched && self.only_asked },
            error => error,
        })?;
        self.only_asked = false;
        self.noted(received)
    }

    /// Queues a piece of a streamed request body; END with the last, ABORT when the client broke it off. Call
    /// [`Self::progress`] until it says that all is sent before queueing the next: that is the back pressure.
    pub fn queue_body(&mut self, piece: &[u8], flags: Flags) {
        let mut chunks = piece.chunks(BODY_FRAME_BYTES).peekable();
        if chunks.peek().is_none() {
            self.sending.frame(Kind::RequestBody, flags, &[]);
        }
        while let Some(chunk) = chunks.next() {
            let flags = if chunks.peek().is_none() { flags } else { Flags::NONE };
            self.sending.frame(Kind::RequestBody, flags, chunk);
        }
        if flags.is_end() || flags.is_abort() {
            self.request_open = false;
        }
    }

    /// Sends what is queued, or receives what the worker says meanwhile, whichever can be done first: so two sides
    /// with full buffers never wait for each other. `None`: all is sent.
    pub async fn progress(&mut self) -> Result<Option<Received>, SlotError> {
        let Self { stream, sending, received, .. } = self;
        let received = tokio::select! {
            biased;
            sent = sending.flush(stream) => { sent?; return Ok(None) }
            // A body is being sent: what was not read may be a part of that.
            received = received.next(stream) => received.map_err(|error| match error {
                SlotError::Gone { .. } => SlotError::Gone { untouched: false },
                error => error,
            })?,
        };
        self.noted(received).map(Some)
    }

    /// Does the worker wait for more of a streamed request body?
    pub fn owes_body(&self) -> bool {
        self.request_open
    }

    /// Is something queued that is not sent yet?
    pub fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// What the worker says next; meanwhile sends what is queued. `None`: all is sent.
    pub async fn receive_and_send(&mut self) -> Result<Option<Received>, SlotError> {
        if self.is_sending() { self.progress().await } else { self.receive().await.map(Some) }
    }

    /// No more of a streamed request body will come. Sent as far as that goes without waiting; the end of the exchange sends
    /// the rest.
    pub fn break_off_body(&mut self) {
        if self.request_open {
            self.queue_body(&[], Flags::ABORT);
            self.sending.try_flush(&self.stream);
        }
    }

    /// What a frame means here, and whether the exchange is over with it.
    fn noted(&mut self, (_, frame): (u16, FromWorker)) -> Result<Received, SlotError> {
        let received = match frame {
            FromWorker::Answer(received) => received,
            FromWorker::Detached(_, head) if head.flags != Flags::NONE => {
                return Err(LinkError::Malformed("detached").into());
            }
            FromWorker::Detached(stream, head) => {
                let links = self.links.as_ref().ok_or(LinkError::Malformed("detached"))?;
                Received::Detached(Detached::new(Arc::clone(links), self.identity.worker, stream, head))
            }
            FromWorker::Credit(_) | FromWorker::Message(..) | FromWorker::Close(..) => {
                return Err(LinkError::Malformed("frame on a slot").into());
            }
        };
        let flags = received.flags();
        if flags.is_end() || flags.is_abort() || matches!(received, Received::Detached(_)) {
            self.response_open = false;
            self.received.shrink();
        }
        Ok(received)
    }

    /// Tells the worker that the client is gone.
    pub async fn cancel(&mut self) -> Result<(), SlotError> {
        self.sending.frame(Kind::Cancel, Flags::NONE, &[]);
        self.sending.flush(&self.stream).await
    }

    /// Ends an open exchange whose client is gone: cancels, lets the worker finish, discards what it says.
    pub async fn end_exchange(&mut self) -> Result<(), SlotError> {
        if self.request_open {
            self.sending.frame(Kind::RequestBody, Flags::ABORT, &[]);
            self.request_open = false;
        }
        if self.response_open {
            self.sending.frame(Kind::Cancel, Flags::NONE, &[]);
        }
        while !self.is_between_exchanges() {
            if self.sending.is_empty() {
                self.receive().await?;
            } else {
                // Read while we send: the worker may be waiting for us to take what it says.
                self.progress().await?;
            }
        }
        Ok(())
    }

    /// Tells the worker that no more requests come on this stream, and closes our end when it has heard.
    pub fn retire(self) {
        // Between exchanges the socket's buffer is empty, so eight bytes always fit; if the worker is dead already
        // there is nobody to tell.
        let _ = rustix::net::send(&self.stream, &frame(Kind::Retire, Flags::NONE, &[]), SendFlags::NOSIGNAL);
    }
}

/// Bytes of a request body in one frame: a quarter of the frame limit, so that reading and writing overlap.
const BODY_FRAME_BYTES: usize = 256 << 10;
