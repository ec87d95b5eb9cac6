//! The gateway's end of a long link: one multiplexed stream of an ASGI worker for exchanges that last.
//!
//! [`LongLinks`] knows all links and chooses one for an exchange; a [`Link`] is one of them; a [`LongStream`] one exchange in the
//! hands of its consumer (a WebSocket's bridge, a response body). The protocol is told in `py_link::long`.
//!
//! # Promises
//! - One task a link reads and sends on what the kernel did not take. It never waits for a consumer: what comes waits in its stream,
//!   bounded by the stream's window. A client that does not read stops its own app only.
//! - Dropping a [`LongStream`] tells the worker (Cancel) and frees what waits; the number is free when the worker has ended the
//!   stream. Apps that take longer than `timeouts.app` for that are named in the log.
//! - When the worker dies every stream ends with [`End::Lost`]. A frame that breaks the protocol counts as its death.
//! - A stream that was detached from a slot may be heard of here before its slot's Detached frame is: its frames wait, bounded
//!   in number, bytes and time, until they are claimed.

mod bridge;
mod choose;
mod consumer;
mod detached;
mod links;
mod out;
mod retire;
mod stream;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ctl_telemetry::metrics::PoolMetrics;
use py_link::long::{DETACHED_FIRST, encode_credit};
use py_link::{Flags, Kind, LinkError, frame_on, set_stream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use super::SlotError;
use super::receive::{FromWorker, Head, ReceiveBuffer};
use super::stream::SlotStream;
pub(crate) use bridge::bridge;
pub(crate) use consumer::LongStream;
pub use detached::Detached;
pub(crate) use detached::NotClaimed;
pub(crate) use links::NoLink;
pub use links::{LongLimits, LongLinks, LongNews};
use out::Out;
use stream::{After, State};
pub(crate) use stream::{End, Item};
use table::Table;

/// The link has ended, or ended before the exchange was heard of: another worker may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkGone;

/// Who is at the other end of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkIdentity {
    /// The supervisor's number of the process.
    pub(crate) worker: u32,
    /// The generation of its code.
    pub(crate) generation: u32,
    /// The pool it belongs to.
    pub(crate) pool: u16,
    /// Exchanges it takes at a time.
    pub(crate) capacity: u16,
    /// Of these, how many may be at work at a time.
    pub(crate) concurrency: u16,
}

/// What a stream's consumer and its link share.
struct Shared {
    number: u16,
    state: Mutex<State>,
    /// Something came, or the end.
    came: Notify,
    /// The worker lets us send again, or the end.
    opened: Notify,
}

impl Shared {
    fn new(number: u16, state: State) -> Arc<Self> {
        Arc::new(Self { number, state: Mutex::new(state), came: Notify::new(), opened: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.came.notify_one();
        self.opened.notify_one();
    }
}

/// One worker's long link.
pub(crate) struct Link {
    identity: LinkIdentity,
    metrics: Arc<PoolMetrics>,
    socket: SlotStream,
    out: Out,
    table: Mutex<Table>,
    /// Handshakes that are not answered yet: work, where an open WebSocket or event stream is presence. Their number is bounded as
    /// that of requests is.
    admission: Arc<Semaphore>,
    /// Streams in the table, for choosing without a lock.
    open: AtomicUsize,
    /// No new exchanges.
    retiring: AtomicBool,
    /// The worker's slots are gone: nothing can be detached any more.
    slots_gone: AtomicBool,
    /// When it ended its worker had been retired, and the slots were gone: nothing of the worker is left.
    was_last: AtomicBool,
    /// The grace of its streams is over, and their WebSockets are closed with this code; 0 before.
    dismissed: AtomicU16,
    /// Streams that somebody has to look after: unclaimed or cancelled ones.
    to_watch: Notify,
    /// Something about its retirement has changed.
    to_retire: Notify,
}

impl Link {
    /// A link over a stream whose hello was heard, and what is counted of its pool. Call it inside the runtime of its home reactor; nothing moves before
    /// [`Self::run`].
    pub(crate) fn new(
        stream: UnixStream,
        identity: LinkIdentity,
        metrics: &Arc<PoolMetrics>,
    ) -> io::Result<Arc<Self>> {
        stream.set_nonblocking(true)?;
        Ok(Arc::new(Self {
            identity,
            metrics: Arc::clone(metrics),
            socket: SlotStream::new(stream)?,
            out: Out::new(),
            table: Mutex::default(),
            admission: Arc::new(Semaphore::new(usize::from(identity.concurrency))),
            open: AtomicUsize::new(0),
            retiring: AtomicBool::new(false),
            slots_gone: AtomicBool::new(false),
            was_last: AtomicBool::new(false),
            dismissed: AtomicU16::new(0),
            to_watch: Notify::new(),
            to_retire: Notify::new(),
        }))
    }

    /// Tells the worker that its link is in service.
    pub(crate) fn welcome(&self) {
        self.control(0, Kind::Welcome, &[]);
    }

    /// Who is at the other end.
    pub(crate) fn identity(&self) -> &LinkIdentity {
        &self.identity
    }

    /// Exchanges it holds.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, table: &Table) {
        let before = self.open.swap(table.len(), Relaxed);
        self.metrics.long_lived.add(table.len() as i64 - before as i64);
    }

    /// Begins the handshake of a WebSocket; `write` appends its Request frame. `None`: there is no room, or the link has ended.
    async fn begin(
        self: &Arc<Self>,
        admitted: OwnedSemaphorePermit,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<LongStream> {
        let shared = {
            let mut table = self.table();
            let full = table.len() >= usize::from(self.identity.capacity);
            if full || table.is_closed() || self.is_retiring() || self.dismissed.load(Relaxed) != 0 {
                return None;
            }
            let shared = table.open(admitted)?;
            self.count(&table);
            shared
        };
        let mut stream = LongStream::new(self, shared);
        let mut request = Vec::with_capacity(1024);
        write(&mut request);
        set_stream(&mut request, stream.shared.number);
        let room = self.out.room(request.len()).await.ok()?;
        stream.begun = true;
        self.out.put(&self.socket, Some(room), |out| out.extend_from_slice(&request));
        Some(stream)
    }

    /// Does it hold as many exchanges as it may?
    fn is_full(&self) -> bool {
        self.open() >= usize::from(self.identity.capacity)
    }

    /// The consumer of a stream that a slot's Detached frame has told of.
    fn claim(self: &Arc<Self>, number: u16, head: &Head) -> Result<LongStream, NotClaimed> {
        let (claimed, too_many) = {
            let mut table = self.table();
            if table.is_closed() {
                return Err(NotClaimed::Gone);
            }
            let claimed = table.claim(number);
            self.count(&table);
            (claimed, table.len() > usize::from(self.identity.capacity))
        };
        let shared = match claimed {
            Ok(shared) => shared,
            Err(error) => {
                self.end(&error.to_string());
                return Err(NotClaimed::Gone);
            }
        };
        let claimed = shared.state().claim(head);
        let mut stream = LongStream::new(self, shared);
        stream.begun = true;
        if let Err(error) = claimed {
            self.end(&error.to_string());
            return Err(NotClaimed::Gone);
        }
        if stream.shared.state().is_over() {
            self.forget(number);
        } else if too_many {
            // Dropping it tells the worker.
            return Err(NotClaimed::Full);
        } else if self.dismissed.load(Relaxed) != 0 {
            self.dismiss(&stream.shared);
        }
        Ok(stream)
    }

    /// Reads, and sends what was not sent at once, until the worker closes or breaks the protocol.
    async fn serve(&self) {
        let mut buffer = ReceiveBuffer::default();
        let reading = async {
            loop {
                match buffer.next(&self.socket).await {
                    Ok((number, frame)) => {
                        if let Err(error) = self.receive(number, frame) {
                            return SlotError::Protocol(error);
                        }
                    }
                    Err(error) => return error,
                }
            }
        };
        let error = tokio::select! {
            error = reading => error,
            error = self.out.drain(&self.socket) => SlotError::Io(error),
        };
        match error {
            SlotError::Gone { .. } => self.end(""),
            error => self.end(&error.to_string()),
        }
    }

    fn receive(&self, number: u16, frame: FromWorker) -> Result<(), LinkError> {
        let found = {
            let mut table = self.table();
            match table.get(number) {
                Some(shared) => shared,
                // Somebody else has ended the link, and this was read before.
                None if table.is_closed() => return Ok(()),
                // It crossed the end of its stream.
                None if number < DETACHED_FIRST || matches!(frame, FromWorker::Credit(_)) => return Ok(()),
                // Its Detached frame is still on its way through a slot.
                None => {
                    let shared = table.expect(number, Instant::now())?;
                    self.count(&table);
                    self.to_watch.notify_one();
                    shared
                }
            }
        };
        let After { credit, over, cancel, opened } = found.state().receive(frame)?;
        if over {
            self.forget_if_claimed(number);
        } else {
            if let Some(bytes) = credit {
                self.control(number, Kind::CreditToWorker, &encode_credit(bytes));
            }
            if cancel {
                warn!(
                    worker = self.identity.worker,
                    "a long-lived exchange was cut: the app sent a message above 16 MiB, or too many files at once"
                );
                self.cancel(number);
            }
        }
        if opened {
            found.opened.notify_one();
        } else {
            found.came.notify_one();
        }
        Ok(())
    }

    /// Sends a frame that needs no room.
    fn control(&self, number: u16, kind: Kind, payload: &[u8]) {
        self.out.put(&self.socket, None, |out| {
            out.extend_from_slice(&frame_on(number, kind, Flags::NONE, payload));
        });
    }

    /// Tells the worker that nobody listens, and sees to it that it ends the stream.
    fn cancel(&self, number: u16) {
        self.control(number, Kind::Cancel, &[]);
        self.abandoned(number);
    }

    /// The worker has been told that the client is gone.
    fn abandoned(&self, number: u16) {
        self.table().cancelled(number, Instant::now());
        self.to_watch.notify_one();
        self.to_retire.notify_one();
    }

    /// Tells the worker that a WebSocket is closed, and sees to it that it ends the stream.
    fn close(&self, number: u16, code: u16, reason: &str) {
        let close = py_link::long::Close { code, reason }.encode();
        self.control(number, Kind::CloseToWorker, &close);
        self.table().cancelled(number, Instant::now());
        self.to_watch.notify_one();
    }

    /// The worker has ended the stream: its number is free.
    fn forget(&self, number: u16) {
        let mut table = self.table();
        table.remove(number);
        self.forgotten(&table);
    }

    fn forget_if_claimed(&self, number: u16) {
        let mut table = self.table();
        table.over(number);
        self.forgotten(&table);
    }

    fn forgotten(&self, table: &Table) {
        self.count(table);
        self.to_retire.notify_one();
    }

    /// The link is gone: so are its streams. `why` is empty when the worker just went.
    fn end(&self, why: &str) {
        let lost = {
            let mut table = self.table();
            if table.is_closed() {
                return;
            }
            let lost = table.close();
            self.was_last.store(self.is_retiring() && self.slots_gone.load(Relaxed), Relaxed);
            self.count(&table);
            lost
        };
        if !why.is_empty() {
            warn!(
                worker = self.identity.worker,
                streams = lost.len(),
                "the long link of a worker is ended: {why}"
            );
        }
        self.out.close();
        self.admission.close();
        // Consumers may hold the socket for a while; the worker is to see its end now.
        let _gone_already = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        for shared in lost {
            shared.state().lose();
            shared.wake();
        }
        self.to_retire.notify_one();
    }
}
