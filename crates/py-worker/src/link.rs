//! The stream of one slot: a connected unix socket, what was received and not yet used, and whether anyone listens.
//!
//! Blocking on purpose: a slot of WSGI is a thread. Knows frames, no Python objects; where it has to wait inside a Python call it
//! is handed the interpreter to let it go.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use py_link::Kind;
use pyo3::Python;
use pyo3::sync::MutexExt as _;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::inbox::{BUFFER_BYTES, Inbox};

/// Up to here a send is first tried without letting the GIL go: copying so much into the socket takes less time than
/// getting the GIL back from another thread may.
const SEND_ATTACHED_BYTES_MAX: usize = 64 * 1024;

/// The gateway is gone, or speaks nonsense: this stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// What a slot hears while it is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A request lies in the inbox: read it with [`Inbox::request`].
    Request,
    /// No more will come.
    Retire,
    /// The stream ended without a word.
    Closed,
}

/// See the file's head.
pub(crate) struct Link {
    /// The number of the slot.
    slot: u16,
    socket: OwnedFd,
    inbox: Mutex<Inbox>,
    /// An exchange is going on.
    busy: AtomicBool,
    broken: AtomicBool,
    /// The client of the exchange is gone.
    cancelled: AtomicBool,
}

impl Link {
    /// Connects. Fails at once with `AGAIN` when the gateway's backlog is full.
    pub(crate) fn connect(path: &Path, slot: u16) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        let inbox = Inbox::new();
        Ok(Self {
            slot,
            socket,
            inbox: Mutex::new(inbox),
            busy: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
        })
    }

    /// The number of the slot this is the stream of.
    pub(crate) fn slot(&self) -> u16 {
        self.slot
    }

    /// The socket itself, for the child of a fork to let go.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Wakes the thread that waits for a request; what has been received already is still read.
    pub(crate) fn stop_receiving(&self) {
        let _already_closed = rustix::net::shutdown(&self.socket, Shutdown::Read);
    }

    /// Ends the stream now, whoever still knows it (a `start_response` that an app has kept).
    pub(crate) fn close(&self) {
        self.break_off();
        let _already_closed = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// The exchange is over.
    pub(crate) fn set_idle(&self) {
        self.busy.store(false, Ordering::SeqCst);
    }

    /// Of no use any more: what was received makes no sense.
    pub(crate) fn abandon(&self) {
        self.break_off();
    }

    /// Nothing more can be sent.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn break_off(&self) -> Gone {
        self.broken.store(true, Ordering::Relaxed);
        Gone
    }

    /// The inbox, from a thread that holds the GIL.
    pub(crate) fn inbox(&self, py: Python<'_>) -> MutexGuard<'_, Inbox> {
        self.inbox.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next request. Call it without the GIL.
    pub(crate) fn wait_request(&self) -> Heard {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        self.hear(&mut inbox, |inbox| inbox.wait_and_receive(&self.socket)).unwrap_or(Heard::Closed)
    }

    /// Has a request arrived meanwhile? Anything else is left for [`Self::wait_request`] to find.
    pub(crate) fn try_request(&self, py: Python<'_>) -> bool {
        let mut inbox = self.inbox(py);
        self.hear(&mut inbox, |inbox| inbox.receive(&self.socket, RecvFlags::DONTWAIT)) == Ok(Heard::Request)
    }

    fn hear(
        &self,
        inbox: &mut Inbox,
        receive: impl Fn(&mut Inbox) -> Result<usize, Errno>,
    ) -> Result<Heard, Errno> {
        self.cancelled.store(false, Ordering::Relaxed);
        loop {
            match inbox.frame().map(|found| found.map(|frame| (frame.header.kind, frame.wire_bytes()))) {
                Ok(Some((Kind::Request, _))) => {
                    self.busy.store(true, Ordering::SeqCst);
                    return Ok(Heard::Request);
                }
                Ok(Some((Kind::Retire, _))) => return Ok(Heard::Retire),
                // Left over from the exchange before: the app did not read all of the body, or was done before the
                // client went away.
                Ok(Some((Kind::RequestBody | Kind::Cancel, bytes))) => inbox.consume(bytes),
                Ok(None) => match receive(inbox) {
                    Ok(0) => return Ok(Heard::Closed),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                },
                Ok(Some(_)) | Err(_) => {
                    self.break_off();
                    return Ok(Heard::Closed);
                }
            }
        }
    }

    /// The hand-shake's answer: the payload of the first frame and its kind.
    pub(crate) fn wait_answer(&self) -> Result<(Kind, Vec<u8>), Gone> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match inbox.frame() {
                Ok(Some(frame)) => {
                    let answer = (frame.header.kind, frame.payload.to_vec());
                    let bytes = frame.wire_bytes();
                    inbox.consume(bytes);
                    return Ok(answer);
                }
                Ok(None) => match inbox.receive(&self.socket, RecvFlags::empty()) {
                    Ok(0) => return Err(Gone),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return Err(Gone),
                },
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Waits for the next piece of the request body and hands it to `take` with its END flag. Holds the inbox, not
    /// the GIL, while it waits.
    pub(crate) fn body_piece(&self, py: Python<'_>, take: impl FnOnce(&[u8], bool)) -> Result<(), Gone> {
        let mut inbox = self.inbox(py);
        loop {
            match inbox.frame() {
                Ok(Some(frame)) if frame.header.kind == Kind::RequestBody => {
                    let flags = frame.header.flags;
                    take(frame.payload, flags.is_end());
                    let bytes = frame.wire_bytes();
                    inbox.consume(bytes);
                    // After an ABORT no more comes, and none must be waited for.
                    return if flags.is_abort() { Err(Gone) } else { Ok(()) };
                }
                Ok(Some(frame)) if frame.header.kind == Kind::Cancel => {
                    let bytes = frame.wire_bytes();
                    inbox.consume(bytes);
                    self.cancelled.store(true, Ordering::Relaxed);
                    return Err(Gone);
                }
                Ok(None) if !self.is_cancelled() => {
                    let inbox = &mut *inbox;
                    match py.detach(|| inbox.receive(&self.socket, RecvFlags::empty())) {
                        Ok(0) => return Err(self.break_off()),
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(_) => return Err(self.break_off()),
                    }
                }
                Ok(None) => return Err(Gone),
                Ok(Some(_)) | Err(_) => return Err(self.break_off()),
            }
        }
    }

    /// The client of the exchange is gone.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Is the client gone, or the gateway? Looks without waiting.
    pub(crate) fn poll_gone(&self, py: Python<'_>) -> bool {
        if self.is_cancelled() || self.is_broken() {
            return true;
        }
        let mut inbox = self.inbox(py);
        // A streamed request body may lie in front; more of it than one frame is not taken in here.
        if inbox.received().len() < BUFFER_BYTES {
            match inbox.receive(&self.socket, RecvFlags::DONTWAIT) {
                Ok(0) => {
                    self.break_off();
                    return true;
                }
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    self.break_off();
                    return true;
                }
            }
        }
        let cancelled = inbox.holds_cancel();
        self.cancelled.store(cancelled, Ordering::Relaxed);
        cancelled
    }

    /// Sends all of `pieces` as one message, with `file` beside them.
    pub(crate) fn send(
        &self,
        py: Python<'_>,
        pieces: &mut [IoSlice<'_>],
        file: Option<BorrowedFd<'_>>,
    ) -> Result<(), Gone> {
        if self.is_broken() {
            return Err(Gone);
        }
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut sent = 0;
        if bytes <= SEND_ATTACHED_BYTES_MAX {
            match self.send_once(pieces, file, SendFlags::DONTWAIT) {
                Ok(count) if count == bytes => return Ok(()),
                Ok(count) => sent = count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Err(self.break_off()),
            }
        }
        let file = file.filter(|_| sent == 0);
        let mut rest = pieces;
        IoSlice::advance_slices(&mut rest, sent);
        py.detach(|| self.send_waiting(rest, file)).map_err(|_| self.break_off())
    }

    fn send_waiting(
        &self,
        mut rest: &mut [IoSlice<'_>],
        mut file: Option<BorrowedFd<'_>>,
    ) -> Result<(), Errno> {
        while !rest.is_empty() {
            match self.send_once(rest, file, SendFlags::empty()) {
                Ok(count) => {
                    file = None;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn send_once(
        &self,
        pieces: &[IoSlice<'_>],
        file: Option<BorrowedFd<'_>>,
        flags: SendFlags,
    ) -> Result<usize, Errno> {
        let flags = flags | SendFlags::NOSIGNAL;
        if let ([piece], None) = (pieces, file) {
            return rustix::net::send(&self.socket, piece, flags);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let files = file.as_slice();
        if !files.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(files));
        }
        rustix::net::sendmsg(&self.socket, pieces, &mut beside, flags)
    }
}
