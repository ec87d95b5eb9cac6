//! One exchange: what the app's `receive` and `send` do, and what happens to it from outside.
//!
//! Lives from its request until its app has returned. It belongs to a stream until its last frame has been sent or the
//! stream is lost; an app that goes on after that is counted and bounded, see [`Hub::must_hold`].
//!
//! Its lock is held while messages are read and written, never while a future is woken. Order of locks: exchange, then stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use py_link::Flags;
use pyo3::exceptions::{PyConnectionResetError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::asgi::http::{After, Http, Stage};
use crate::asgi::hub::Hub;
use crate::asgi::message::Message;
use crate::asgi::outbound::{Data, Lead, Outbound};
use crate::asgi::scope::About;
use crate::asgi::socket::{Arrived, Socket};
use crate::asgi::stream::Stream;

/// An app does not know at once that its client is gone: for this long, and for so many messages, what it sends is dropped
/// without a word. A consumer of Channels that answers the last message of its client must live to see the disconnect, and
/// Django cancels its views itself. After that `send` raises, so that an app that only sends comes to an end.
const DISCONNECT_GRACE: Duration = Duration::from_secs(1);
/// See [`DISCONNECT_GRACE`].
const DROPPED_MESSAGES_MAX: u32 = 32;

/// Futures of `receive()` from which those that nobody waits for are sorted out: an app that gives up waiting every second
/// (a heartbeat) must not pile them up.
const RECEIVERS_KEPT: usize = 4;

/// What a log line takes from the request.
const LOGGED_CHARS_MAX: usize = 1024;

/// What the exchange is.
pub(crate) enum Talk {
    Http(Http),
    Socket(Socket),
}

struct State {
    talk: Talk,
    out: Outbound,
    /// Whose frames these are; `None` when the exchange is over for the gateway.
    stream: Option<Py<Stream>>,
    /// Futures of `receive()`.
    receivers: Vec<Py<PyAny>>,
    /// Since when the client is gone, or the gateway.
    gone: Option<Instant>,
    /// Messages of the app that were dropped since then.
    dropped: u32,
    /// It has been counted as one that goes on after its end.
    lingers: bool,
    /// The app has returned.
    is_done: bool,
    /// Kept alive: a loop knows its tasks only weakly.
    task: Option<Py<PyAny>>,
}

/// See the file's head.
#[pyclass(frozen, module = "quintet._core")]
pub(crate) struct Exchange {
    hub: Arc<Hub>,
    about: About,
    /// Its place among those that run.
    place: usize,
    state: Mutex<State>,
}

/// What has to be done once the lock is let go.
#[must_use]
#[derive(Default)]
struct Chores {
    wake: Vec<Py<PyAny>>,
    /// The socket has not taken everything.
    watch_writing: Option<Py<Stream>>,
    /// The stream is free of this exchange.
    release: Option<(Py<Stream>, u16)>,
    /// The same, for a slot whose exchange went on elsewhere.
    detached_from: Option<Py<Stream>>,
}

impl Exchange {
    pub(crate) fn new(
        hub: Arc<Hub>,
        about: About,
        place: usize,
        talk: Talk,
        stream: Py<Stream>,
        number: u16,
    ) -> Self {
        let out = if number == 0 { Outbound::default() } else { Outbound::on(number) };
        let state = State {
            talk,
            out,
            stream: Some(stream),
            receivers: Vec::new(),
            gone: None,
            dropped: 0,
            lingers: false,
            is_done: false,
            task: None,
        };
        Self { hub, about, place, state: Mutex::new(state) }
    }

    /// For events of the loop, which never come while an app's call is being worked on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For calls of the app, which may come from anywhere: a finalizer that runs while a message is read.
    fn try_lock(&self) -> PyResult<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(PyRuntimeError::new_err("receive() or send() was called inside another call of them"))
            }
        }
    }

    pub(crate) fn keep_task(&self, task: Py<PyAny>) {
        let mut state = self.lock();
        if !state.is_done {
            state.task = Some(task);
        }
    }

    /// `receive()`: a message, or a future to wait for before asking again.
    fn next_for_app(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let mut state = this.try_lock()?;
        let (message, resume) = state.next_message(py)?;
        let credit = state.take_credit();
        let stream = state.stream.as_ref().map(|stream| stream.clone_ref(py));
        let number = state.out.stream();
        drop(state);
        if let Some(stream) = stream {
            let stream = stream.bind(py);
            if resume {
                Stream::resume_later(stream)?;
            }
            if let Some(credit) = credit {
                Stream::send_credit(stream, number, credit)?;
            }
        }
        if let Some(message) = message {
            return Ok(message);
        }
        let future = this.hub.future(py)?.unbind();
        let mut receivers = std::mem::take(&mut this.try_lock()?.receivers);
        if receivers.len() >= RECEIVERS_KEPT {
            receivers.retain(|receiver| !is_done(receiver.bind(py)));
        }
        receivers.push(future.clone_ref(py));
        this.try_lock()?.receivers.append(&mut receivers);
        Ok(future)
    }

    /// `send()`: takes a message of the app. `Some`: a future that is done when the message has gone.
    fn take_message(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        let this = slf.get();
        let message = Message::read(message)?;
        let mut state = this.try_lock()?;
        if let Some(gone) = state.gone {
            return state.drop_message(gone).map(|()| None);
        }
        let hold = this.hub.must_hold();
        let State { talk, out, .. } = &mut *state;
        let after = match talk {
            Talk::Http(http) => http.send(&message, out, hold)?,
            Talk::Socket(socket) => {
                socket.send(&message, out, hold)?;
                After::GoOn
            }
        };
        let mut detached_from = None;
        if after == After::Detach {
            detached_from = state.detach(slf);
        }
        let mut chores = state.progress(py, this);
        chores.detached_from = detached_from;
        let waits = !state.out.is_empty();
        drop(state);
        chores.run(py)?;
        if !waits {
            return Ok(None);
        }
        let future = this.hub.future(py)?.unbind();
        let is_waiting = this.try_lock()?.out.wait(future.clone_ref(py));
        Ok(is_waiting.then_some(future))
    }

    /// The socket can take more.
    pub(crate) fn go_on_sending(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.lock();
        state.out.is_blocked = false;
        let chores = state.progress(py, self);
        drop(state);
        chores.run(py)
    }

    /// The gateway has taken so many bytes.
    pub(crate) fn credit(&self, py: Python<'_>, bytes: u32) -> PyResult<()> {
        let mut state = self.lock();
        state.out.credit(bytes);
        let chores = state.progress(py, self);
        drop(state);
        chores.run(py)
    }

    /// A piece of the request body. True: no more of it for now.
    pub(crate) fn body_arrived(&self, py: Python<'_>, piece: &[u8], flags: Flags) -> PyResult<bool> {
        let mut state = self.lock();
        let Talk::Http(http) = &mut state.talk else { return Ok(false) };
        if flags.is_abort() {
            http.request.break_off();
        } else {
            http.request.arrived(py, piece, flags);
        }
        let is_full = http.request.is_full();
        let wake = std::mem::take(&mut state.receivers);
        drop(state);
        wake_all(py, wake)?;
        Ok(is_full)
    }

    /// A piece of a message of the client. False: the gateway speaks nonsense.
    pub(crate) fn message_arrived(slf: &Bound<'_, Self>, payload: &[u8], flags: Flags) -> PyResult<bool> {
        let py = slf.py();
        let mut state = slf.get().lock();
        let State { talk, out, .. } = &mut *state;
        let Talk::Socket(socket) = talk else { return Ok(false) };
        match socket.arrived(py, payload, flags) {
            Arrived::Well => {}
            // RFC 6455, 7.4.1: 1009, "too big for it to process".
            Arrived::TooLong => socket.close(1009, "the message is too long", out),
            Arrived::Malformed => return Ok(false),
        }
        let credit = state.take_credit();
        let number = state.out.stream();
        let stream = state.stream.as_ref().map(|stream| stream.clone_ref(py));
        let mut chores = state.progress(py, slf.get());
        chores.wake.append(&mut state.receivers);
        drop(state);
        chores.run(py)?;
        if let (Some(stream), Some(credit)) = (stream, credit) {
            Stream::send_credit(stream.bind(py), number, credit)?;
        }
        Ok(true)
    }

    /// The client has gone (or has closed its WebSocket); the exchange still has to be ended.
    pub(crate) fn disconnect(&self, py: Python<'_>, code: u16, reason: &str) -> PyResult<()> {
        let mut state = self.lock();
        state.gone.get_or_insert_with(Instant::now);
        let mut wake = std::mem::take(&mut state.receivers);
        // Nobody takes these: credit for them may never come.
        let was_waiting = !state.out.is_empty();
        wake.extend(state.out.give_up());
        let State { talk, out, .. } = &mut *state;
        match talk {
            Talk::Http(http) => {
                http.request.forget();
                if was_waiting && http.stage() == Stage::Over {
                    // Its last frame was among them.
                    out.push(Lead::Body, Data::Empty, Flags::ABORT);
                }
            }
            Talk::Socket(socket) => {
                if was_waiting && socket.is_over() {
                    socket.close(1006, "", out);
                }
                socket.end_with(code, reason);
            }
        }
        let mut chores = state.progress(py, self);
        drop(state);
        chores.wake.append(&mut wake);
        chores.run(py)
    }

    /// The worker stops: WebSockets are closed for their apps, event streams are told that nobody listens.
    pub(crate) fn shut_down(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.lock();
        let State { talk, out, .. } = &mut *state;
        // RFC 6455, 7.4.1 (and IANA's registry): 1012, "service restart".
        if let Talk::Socket(socket) = talk
            && !socket.is_over()
        {
            socket.close(1012, "", out);
        }
        let chores = state.progress(py, self);
        drop(state);
        chores.run(py)?;
        self.disconnect(py, 1012, "")
    }

    /// Events, which may have no end.
    pub(crate) fn is_event_stream(&self) -> bool {
        matches!(&self.lock().talk, Talk::Http(http) if http.is_event_stream())
    }

    /// The stream is lost: nothing can be sent any more.
    pub(crate) fn lost(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.lock();
        state.gone.get_or_insert_with(Instant::now);
        let mut wake = std::mem::take(&mut state.receivers);
        wake.extend(state.out.give_up());
        state.stream = None;
        match &mut state.talk {
            Talk::Http(http) => http.give_up(),
            Talk::Socket(socket) => {
                socket.end_with(1006, "");
                socket.give_up();
            }
        }
        state.linger(&self.hub);
        drop(state);
        wake_all(py, wake)
    }

    /// No more of the request body can come. An app that waits for some is told that the client is gone.
    pub(crate) fn request_ends(&self, py: Python<'_>) -> PyResult<()> {
        self.body_arrived(py, &[], Flags::ABORT).map(drop)
    }

    fn log(&self, py: Python<'_>, message: &str, error: Option<&Bound<'_, PyAny>>) {
        let shown = |text: &str| -> String { text.chars().take(LOGGED_CHARS_MAX).collect() };
        let id = String::from_utf8_lossy(self.about.id.as_bytes(py)).into_owned();
        let arguments = (
            message,
            shown(&id),
            shown(self.about.method.to_str(py).unwrap_or_default()),
            shown(&self.about.path.bind(py).to_string_lossy()),
            error,
        );
        self.hub.report(py, arguments);
    }
}

#[pymethods]
impl Exchange {
    /// The next message for the app; or a future of the loop to wait for before asking again.
    fn receive(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::next_for_app(slf)
    }

    /// As the gateway names it.
    #[getter]
    fn request_id(&self, py: Python<'_>) -> Py<PyBytes> {
        self.about.id.clone_ref(py)
    }

    /// Takes a message of the app. What is given is `None`, or a future to wait for: it has not all gone yet.
    #[pyo3(signature = (message, /))]
    fn send(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        Self::take_message(slf, message)
    }

    /// The app has returned, or raised.
    #[pyo3(signature = (error, /))]
    fn end(slf: &Bound<'_, Self>, error: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.hub.leave_if_forked();
        let complaint = this.try_lock()?.complaint(error.is_some());
        if let Some(complaint) = complaint {
            // Before the answer: who asks about a request id finds it in the log.
            this.log(py, complaint, error);
        }
        let mut state = this.try_lock()?;
        state.is_done = true;
        state.task = None;
        let is_gone = state.gone.is_some();
        let State { talk, out, .. } = &mut *state;
        match talk {
            Talk::Http(http) if http.stage() == Stage::Over => {}
            Talk::Http(http) => {
                let page = (!is_gone).then(|| this.page(py));
                http.end(page, out);
            }
            Talk::Socket(socket) => socket.end(error.is_some(), this.page(py), out),
        }
        let lingered = std::mem::replace(&mut state.lingers, false);
        let chores = state.progress(py, this);
        drop(state);
        this.hub.app_is_done(py, this.place, lingered)?;
        chores.run(py)
    }
}

impl Exchange {
    /// The body of a 500, as the workers of WSGI have it.
    fn page(&self, py: Python<'_>) -> Vec<u8> {
        let id = String::from_utf8_lossy(self.about.id.as_bytes(py)).into_owned();
        format!("Internal Server Error\n\nRequest id: {id}\n").into_bytes()
    }
}

impl State {
    /// The next message for the app, and whether the stream may be read on after it.
    fn next_message(&mut self, py: Python<'_>) -> PyResult<(Option<Py<PyAny>>, bool)> {
        match &mut self.talk {
            Talk::Http(http) => {
                if self.gone.is_some() || http.is_complete() || http.request.is_broken() {
                    let message = PyDict::new(py);
                    message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
                    return Ok((Some(message.into_any().unbind()), false));
                }
                if http.request.is_over() {
                    return Ok((None, false));
                }
                let was_full = http.request.is_full();
                let Some((piece, more)) = http.request.next(py)? else { return Ok((None, false)) };
                let resume = was_full && !http.request.is_full();
                let message = PyDict::new(py);
                message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
                message.set_item(intern!(py, "body"), piece)?;
                message.set_item(intern!(py, "more_body"), more)?;
                Ok((Some(message.into_any().unbind()), resume))
            }
            Talk::Socket(socket) => {
                let message = socket.next(py)?;
                Ok((message.map(|message| message.into_any().unbind()), false))
            }
        }
    }

    fn take_credit(&mut self) -> Option<u32> {
        match &mut self.talk {
            // Its request body came on a slot.
            Talk::Http(_) => None,
            Talk::Socket(socket) => socket.take_credit(),
        }
    }

    /// `send` after the client has gone.
    fn drop_message(&mut self, gone: Instant) -> PyResult<()> {
        self.dropped += 1;
        if self.dropped <= DROPPED_MESSAGES_MAX && gone.elapsed() < DISCONNECT_GRACE {
            return Ok(());
        }
        // "HTTP & WebSocket", 2.4: an OSError.
        Err(PyConnectionResetError::new_err("the client is gone"))
    }

    /// Sends what can be sent; when all is said and has gone, the stream is free.
    fn progress(&mut self, py: Python<'_>, exchange: &Exchange) -> Chores {
        let mut chores = Chores::default();
        let Some(stream) = &self.stream else {
            chores.wake = self.out.give_up();
            return chores;
        };
        let (pumped, watch) = stream.get().pump(py, &mut self.out);
        chores.wake = pumped;
        if watch {
            chores.watch_writing = Some(stream.clone_ref(py));
        }
        let is_over = match &self.talk {
            Talk::Http(http) => http.stage() == Stage::Over,
            Talk::Socket(socket) => socket.is_over(),
        };
        if is_over && self.out.is_empty() {
            chores.release = self.stream.take().map(|stream| (stream, self.out.stream()));
            chores.wake.append(&mut self.receivers);
            self.linger(&exchange.hub);
        }
        chores
    }

    fn linger(&mut self, hub: &Hub) {
        if !self.is_done && !self.lingers {
            self.lingers = true;
            hub.lingers();
        }
    }

    /// An event stream begins: it leaves its slot, if the long link takes it. The slot it was on.
    fn detach(&mut self, exchange: &Bound<'_, Exchange>) -> Option<Py<Stream>> {
        let py = exchange.py();
        let State { talk: Talk::Http(http), out, stream, .. } = self else { return None };
        let on_slot = out.stream() == 0 && out.is_empty() && !http.request.is_coming();
        let number = match stream.as_ref() {
            Some(slot) if on_slot && slot.get().is_clear() => exchange.get().hub.reserve_long(exchange),
            _ => None,
        };
        let Some((long, number)) = number else {
            http.send_head(out);
            return None;
        };
        http.detach(number, out);
        let slot = stream.replace(long);
        if let Some(slot) = &slot {
            // The socket is clear: it goes, or waits in the outbox.
            let _nobody_waits = slot.get().pump(py, out);
        }
        out.move_to(number);
        slot
    }

    /// What the log says of an app that has just returned or raised.
    fn complaint(&self, has_raised: bool) -> Option<&'static str> {
        // Nobody is there to miss the response; what the app raised is most likely just that.
        if self.gone.is_some() {
            return None;
        }
        if has_raised {
            return Some("the app raised an exception");
        }
        match &self.talk {
            Talk::Http(http) => match http.stage() {
                Stage::Fresh => Some("ASGI callable returned without starting response."),
                Stage::Head | Stage::Body | Stage::Trailers => {
                    Some("ASGI callable returned without completing response.")
                }
                Stage::Held | Stage::Over => None,
            },
            Talk::Socket(socket) => socket.complaint(),
        }
    }
}

impl Chores {
    fn run(self, py: Python<'_>) -> PyResult<()> {
        if let Some(stream) = &self.watch_writing {
            Stream::watch_writing(stream.bind(py))?;
        }
        if let Some(slot) = &self.detached_from {
            Stream::watch_writing(slot.bind(py))?;
            Stream::exchange_over(slot.bind(py), 0)?;
        }
        if let Some((stream, number)) = &self.release {
            Stream::exchange_over(stream.bind(py), *number)?;
        }
        wake_all(py, self.wake)
    }
}

/// Is nobody waiting for this future any more? (An error of `done()` is none of a future.)
fn is_done(future: &Bound<'_, PyAny>) -> bool {
    future.call_method0(intern!(future.py(), "done")).and_then(|done| done.is_truthy()).unwrap_or(true)
}

/// Wakes tasks; those that were cancelled meanwhile need it no more.
fn wake_all(py: Python<'_>, futures: Vec<Py<PyAny>>) -> PyResult<()> {
    for future in futures {
        let future = future.bind(py);
        if !is_done(future) {
            future.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
    }
    Ok(())
}
