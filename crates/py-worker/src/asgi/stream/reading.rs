//! Reading a stream: which exchange hears which frame.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use py_link::long::{Close, DETACHED_FIRST, decode_credit};
use py_link::{Frame, Kind, Request};
use pyo3::prelude::*;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::{Phase, RECONNECT_MIN, Stream};
use crate::asgi::exchange::Exchange;
use crate::inbox::Inbox;

/// What reading does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    GoOn,
    /// The app has enough for now.
    Pause,
    /// The frame is for later.
    Later,
    /// The gateway needs this stream no more.
    Retire,
    /// What was received makes no sense.
    Break,
}

/// Why reading has ended for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Empty,
    Paused,
    Retired,
    EndOfFile,
    Lost,
}

impl Stream {
    pub(super) fn begin_reading(&self) -> Option<(Inbox, Arc<OwnedFd>)> {
        let mut state = self.lock();
        let socket = Arc::clone(state.wire.as_ref()?.socket());
        Some((state.inbox.take()?, socket))
    }

    /// Reads what there is, up to one filling of the buffer: other streams have their turn, too.
    pub(super) fn read(slf: &Bound<'_, Self>, inbox: &mut Inbox, socket: &OwnedFd) -> PyResult<Ended> {
        let mut received = false;
        loop {
            let (frame, files) = inbox.front();
            match frame {
                Ok(Some(frame)) => {
                    let bytes = frame.wire_bytes();
                    let flow = Self::handle(slf, &frame, files)?;
                    if flow == Flow::Later {
                        return Ok(Ended::Paused);
                    }
                    inbox.consume(bytes);
                    match flow {
                        Flow::GoOn => {}
                        Flow::Pause | Flow::Later => return Ok(Ended::Paused),
                        Flow::Retire => return Ok(Ended::Retired),
                        Flow::Break => return Ok(Ended::Lost),
                    }
                }
                Ok(None) if received => return Ok(Ended::Empty),
                Ok(None) => match inbox.receive(socket, RecvFlags::DONTWAIT) {
                    Ok(0) => return Ok(Ended::EndOfFile),
                    Ok(_) => received = true,
                    Err(Errno::AGAIN | Errno::INTR) => return Ok(Ended::Empty),
                    Err(_) => return Ok(Ended::Lost),
                },
                Err(_) => return Ok(Ended::Lost),
            }
        }
    }

    pub(super) fn keep(&self, inbox: Inbox) {
        let mut state = self.lock();
        // Unless the stream was closed while it was read.
        if state.wire.is_some() {
            state.inbox = Some(inbox);
        }
    }

    /// What a frame means.
    fn handle(slf: &Bound<'_, Self>, frame: &Frame<'_>, files: &mut VecDeque<OwnedFd>) -> PyResult<Flow> {
        let py = slf.py();
        let this = slf.get();
        let number = frame.header.stream;
        let phase = this.lock().phase;
        match (phase, frame.header.kind) {
            (Phase::Asked, Kind::Welcome) => {
                let mut state = this.lock();
                state.phase = Phase::Serving;
                state.wait = RECONNECT_MIN;
                Ok(Flow::GoOn)
            }
            (Phase::Asked, Kind::Refuse) => {
                this.hub.core.refused(String::from_utf8_lossy(frame.payload).into_owned());
                Ok(Flow::Retire)
            }
            (Phase::Serving | Phase::Retired, Kind::Request) => Self::request(slf, frame, files),
            (Phase::Serving, Kind::Retire) if this.is_long => {
                this.lock().phase = Phase::Retired;
                this.close_if_done(py)?;
                Ok(Flow::GoOn)
            }
            (Phase::Serving, Kind::Retire) => Ok(Flow::Retire),
            (Phase::Serving | Phase::Retired, kind) => {
                // Of an exchange that is over: the app did not read all of the body, or was done before the client went.
                let Some(exchange) = this.find(py, number) else {
                    return Ok(if is_for_exchanges(kind) { Flow::GoOn } else { Flow::Break });
                };
                Self::tell(exchange.bind(py), frame)
            }
            _ => Ok(Flow::Break),
        }
    }

    pub(super) fn find(&self, py: Python<'_>, number: u16) -> Option<Py<Exchange>> {
        let state = self.lock();
        let found = if self.is_long { state.many.get(&number) } else { state.one.as_ref() };
        found.map(|exchange| exchange.clone_ref(py))
    }

    fn request(slf: &Bound<'_, Self>, frame: &Frame<'_>, files: &mut VecDeque<OwnedFd>) -> PyResult<Flow> {
        let this = slf.get();
        let number = frame.header.stream;
        let Ok(request) = Request::decode(frame.payload) else { return Ok(Flow::Break) };
        let is_known = this.find(slf.py(), number).is_some();
        let fits = match request.exchange {
            py_link::Exchange::WebSocket => this.is_long && number != 0 && number < DETACHED_FIRST,
            py_link::Exchange::Http => !this.is_long && number == 0,
        };
        if !fits || (is_known && this.is_long) {
            return Ok(Flow::Break);
        }
        if is_known {
            // One request at a time; it is served when the one before is over.
            return Ok(Flow::Later);
        }
        let file = if matches!(request.body, py_link::Body::File { .. }) { files.pop_front() } else { None };
        this.hub.begin(slf, number, &request, file)?;
        Ok(Flow::GoOn)
    }

    /// An exchange hears a frame that is for it.
    fn tell(exchange: &Bound<'_, Exchange>, frame: &Frame<'_>) -> PyResult<Flow> {
        let py = exchange.py();
        let this = exchange.get();
        let is_full = match frame.header.kind {
            // Not on the long link: what is detached has had all of its request.
            Kind::RequestBody if frame.header.stream == 0 => {
                this.body_arrived(py, frame.payload, frame.header.flags)?
            }
            Kind::Cancel => {
                this.disconnect(py, 1006, "")?;
                false
            }
            Kind::CreditToWorker => {
                let Ok(bytes) = decode_credit(frame.payload) else { return Ok(Flow::Break) };
                this.credit(py, bytes)?;
                false
            }
            Kind::MessageToWorker => {
                if !Exchange::message_arrived(exchange, frame.payload, frame.header.flags)? {
                    return Ok(Flow::Break);
                }
                false
            }
            Kind::CloseToWorker => {
                let Ok(close) = Close::decode(frame.payload) else { return Ok(Flow::Break) };
                this.disconnect(py, close.code, close.reason)?;
                false
            }
            _ => return Ok(Flow::Break),
        };
        Ok(if is_full { Flow::Pause } else { Flow::GoOn })
    }
}

/// Frames that may come late, for an exchange that is over.
fn is_for_exchanges(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::RequestBody | Kind::Cancel | Kind::CreditToWorker | Kind::MessageToWorker | Kind::CloseToWorker
    )
}
