//! The life of a stream of the link: connect, say hello, pass frames to exchanges, connect again when the gateway died.
//!
//! A slot has at most one exchange at a time, the long link many, told apart by their numbers. The loop calls
//! `readable`, `writable` and `connect_again`; nothing here waits. The lock is held for moments only, never while Python runs.

mod reading;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use py_link::long::{DETACHED_FIRST, PIECE_BYTES_MAX, encode_credit};
use py_link::{Channel, Flags, Hello, Kind, frame_on};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rustix::io::Errno;

use crate::asgi::exchange::Exchange;
use crate::asgi::hub::Hub;
use crate::asgi::outbound::Outbound;
use crate::asgi::wire::Wire;
use crate::inbox::Inbox;
use reading::Ended;

/// The first wait before connecting again; a gateway is started within some ten milliseconds.
const RECONNECT_MIN: Duration = Duration::from_millis(10);
/// The longest: how long a gateway that came back may lack this stream.
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// What the long link reads at once: two of its longest frames. There is one a process.
const LONG_BUFFER_BYTES: usize = 2 * PIECE_BYTES_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not connected; a timer runs.
    Off,
    /// Hello has been said.
    Asked,
    /// In service.
    Serving,
    /// The long link: nothing new comes, what is there goes on.
    Retired,
    /// It is not needed any more.
    Over,
}

struct State {
    phase: Phase,
    wire: Option<Wire>,
    /// Taken out while it is read from.
    inbox: Option<Inbox>,
    wait: Duration,
    is_paused: bool,
    is_watching_writes: bool,
    /// We have asked for no more, and have read all there was.
    is_drained: bool,
    /// Of a slot.
    one: Option<Py<Exchange>>,
    /// Of the long link.
    many: HashMap<u16, Py<Exchange>>,
    /// The number before the next that we give.
    last_number: u16,
    /// Exchanges that wait for the socket, in turn.
    blocked: VecDeque<u16>,
}

/// See the file's head.
#[pyclass(frozen, module = "quintet._core")]
pub(crate) struct Stream {
    hub: Arc<Hub>,
    is_long: bool,
    index: u16,
    state: Mutex<State>,
}

impl Stream {
    fn new(hub: Arc<Hub>, is_long: bool, index: u16) -> Self {
        let state = State {
            phase: Phase::Off,
            wire: None,
            inbox: None,
            wait: RECONNECT_MIN,
            is_paused: false,
            is_watching_writes: false,
            is_drained: false,
            one: None,
            many: HashMap::new(),
            last_number: u16::MAX,
            blocked: VecDeque::new(),
        };
        Self { hub, is_long, index, state: Mutex::new(state) }
    }

    pub(crate) fn slot(hub: Arc<Hub>, index: u16) -> Self {
        Self::new(hub, false, index)
    }

    pub(crate) fn long(hub: Arc<Hub>) -> Self {
        Self::new(hub, true, 0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, or tries again later.
    pub(crate) fn connect_now(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if this.lock().phase != Phase::Off {
            return Ok(());
        }
        if this.hub.core.is_stopping() {
            return this.over(py);
        }
        // Apps of exchanges that were lost with a gateway still run: no new ones besides them.
        let wire = if this.hub.must_hold() { Err(Errno::AGAIN) } else { Wire::connect(&this.hub.core.path) };
        let Ok(mut wire) = wire else { return Self::connect_later(slf) };
        let slots = if this.is_long { this.hub.limits.long_lived } else { this.hub.limits.slots };
        let channel = if this.is_long { Channel::Long } else { Channel::Slot };
        let hello = Hello { slot: this.index, slots, channel, ..this.hub.core.hello.clone() };
        // A struct of strings and numbers always has a JSON form.
        let hello = serde_json::to_vec(&hello).unwrap_or_default();
        if wire.send(&frame_on(0, Kind::Hello, Flags::NONE, &hello), &[], None).is_err() {
            return Self::connect_later(slf);
        }
        let number = wire.socket().as_raw_fd();
        this.hub.core.watches(number);
        {
            let mut state = this.lock();
            state.phase = Phase::Asked;
            state.wire = Some(wire);
            state.inbox =
                Some(if this.is_long { Inbox::with_buffer(LONG_BUFFER_BYTES) } else { Inbox::new() });
            (state.is_paused, state.is_drained) = (false, false);
        }
        Self::watch_reading(slf, number)?;
        Self::watch_writing(slf)
    }

    fn connect_later(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let wait = {
            let mut state = this.lock();
            let wait = state.wait;
            state.wait = RECONNECT_MAX.min(wait * 2);
            wait
        };
        let py = slf.py();
        let again = slf.getattr(intern!(py, "connect_again"))?;
        let seconds = wait.as_secs_f64().into_pyobject(py)?.into_any();
        this.hub.call_loop(py, "call_later", &PyTuple::new(py, [seconds, again])?)
    }

    fn watch_reading(slf: &Bound<'_, Self>, number: i32) -> PyResult<()> {
        let py = slf.py();
        let number = number.into_pyobject(py)?.into_any();
        let readable = slf.getattr(intern!(py, "readable"))?;
        slf.get().hub.call_loop(py, "add_reader", &PyTuple::new(py, [number, readable])?)
    }

    /// Has the loop tell when the socket takes more, if something waits for that.
    pub(crate) fn watch_writing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let number = {
            let mut state = slf.get().lock();
            let Some(wire) = state.wire.as_ref().filter(|wire| !wire.is_clear()) else { return Ok(()) };
            let number = wire.socket().as_raw_fd();
            if std::mem::replace(&mut state.is_watching_writes, true) {
                return Ok(());
            }
            number
        };
        let number = number.into_pyobject(py)?.into_any();
        let writable = slf.getattr(intern!(py, "writable"))?;
        slf.get().hub.call_loop(py, "add_writer", &PyTuple::new(py, [number, writable])?)
    }

    fn unwatch(&self, py: Python<'_>, method: &str, number: i32) -> PyResult<()> {
        let number = number.into_pyobject(py)?.into_any();
        self.hub.call_loop(py, method, &PyTuple::new(py, [number])?)
    }

    /// Nothing waits to be sent.
    pub(crate) fn is_clear(&self) -> bool {
        self.lock().wire.as_ref().is_some_and(Wire::is_clear)
    }

    /// Sends what an exchange has to say, as far as that goes. Gives the futures to wake, and whether the socket must be
    /// watched.
    pub(crate) fn pump(&self, py: Python<'_>, out: &mut Outbound) -> (Vec<Py<PyAny>>, bool) {
        let mut state = self.lock();
        let State { wire, blocked, is_watching_writes, .. } = &mut *state;
        let Some(wire) = wire else { return (out.give_up(), false) };
        let pumped = out.pump(py, wire);
        if pumped.socket_full && !out.is_blocked {
            out.is_blocked = true;
            blocked.push_back(out.stream());
        }
        (pumped.wake, !wire.is_clear() && !*is_watching_writes)
    }

    /// Tells the gateway that it may send more on a stream of the long link.
    pub(crate) fn send_credit(slf: &Bound<'_, Self>, number: u16, bytes: u32) -> PyResult<()> {
        {
            let mut state = slf.get().lock();
            let Some(wire) = &mut state.wire else { return Ok(()) };
            let frame = frame_on(number, Kind::CreditToGateway, Flags::NONE, &encode_credit(bytes));
            // A loss shows where the stream is read.
            let _gone = wire.send(&frame, &[], None);
        }
        Self::watch_writing(slf)
    }

    /// An exchange begins here.
    pub(crate) fn attach(&self, number: u16, exchange: Py<Exchange>) {
        let mut state = self.lock();
        if self.is_long {
            state.many.insert(number, exchange);
        } else {
            state.one = Some(exchange);
        }
    }

    /// A number of our own on the long link, for an exchange that leaves its slot.
    ///
    /// How many there may be is the gateway's to say: it refuses one too many when it hears of it. Here there is room for those it has
    /// not heard of yet, one for each slot: none of them shall keep its slot for want of a number.
    pub(crate) fn reserve(&self, exchange: &Bound<'_, Exchange>) -> Option<u16> {
        let mut state = self.lock();
        let room = usize::from(self.hub.limits.long_lived) + usize::from(self.hub.limits.slots);
        // Numbers of our own are as many as those below the first of them: one is always free.
        let room = room.min(usize::from(DETACHED_FIRST) - 1);
        if state.phase != Phase::Serving || state.many.len() >= room {
            return None;
        }
        // In turn, so that a frame that crossed the end of a stream does not meet the next one with its number.
        loop {
            state.last_number = state.last_number.checked_add(1).unwrap_or(DETACHED_FIRST);
            let number = state.last_number;
            if let Entry::Vacant(free) = state.many.entry(number) {
                free.insert(exchange.clone().unbind());
                return Some(number);
            }
        }
    }

    /// An exchange has ended, as the gateway sees it.
    pub(crate) fn exchange_over(slf: &Bound<'_, Self>, number: u16) -> PyResult<()> {
        let this = slf.get();
        let (exchange, resume) = {
            let mut state = this.lock();
            let exchange = if this.is_long { state.many.remove(&number) } else { state.one.take() };
            if !this.is_long
                && this.hub.core.is_stopping()
                && let Some(wire) = &state.wire
            {
                wire.stop_receiving();
            }
            (exchange, state.is_paused)
        };
        drop(exchange);
        if resume {
            // What is left of the request body is read and dropped.
            Self::resume_later(slf)?;
        }
        this.close_if_done(slf.py())
    }

    /// The app can take more of the request body.
    pub(crate) fn resume_later(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if !this.lock().is_paused {
            return Ok(());
        }
        let resume = slf.getattr(intern!(py, "resume"))?;
        this.hub.call_loop(py, "call_soon", &PyTuple::new(py, [resume])?)
    }

    /// The worker stops.
    pub(crate) fn stop(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (phase, one, exchanges) = {
            let state = this.lock();
            if !this.is_long
                && state.one.is_none()
                && let Some(wire) = &state.wire
            {
                // What the gateway has sent is still served; what it sends from now on fails on its side.
                wire.stop_receiving();
            }
            let many: Vec<_> = state.many.values().map(|exchange| exchange.clone_ref(py)).collect();
            (state.phase, state.one.as_ref().map(|exchange| exchange.clone_ref(py)), many)
        };
        // An event stream that found no room on the long link has no end of its own either.
        if let Some(exchange) = one.filter(|exchange| exchange.get().is_event_stream()) {
            exchange.get().disconnect(py, 1012, "")?;
        }
        match phase {
            // The timer that runs ends it.
            Phase::Over | Phase::Off => {}
            _ if this.is_long => {
                this.lock().phase = Phase::Retired;
                for exchange in exchanges {
                    exchange.get().shut_down(py)?;
                }
            }
            _ => {}
        }
        this.close_if_done(py)
    }

    /// The long link, when all slots have been retired: without a gateway that could retire it, too, it ends by itself.
    pub(crate) fn slots_are_over(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let phase = this.lock().phase;
        match phase {
            Phase::Off => this.over(py),
            Phase::Asked => Self::close(slf, true),
            _ => Ok(()),
        }
    }

    /// Closes a stream that has been told to end and has nothing to do any more.
    fn close_if_done(&self, py: Python<'_>) -> PyResult<()> {
        let is_done = {
            let state = self.lock();
            let is_idle = state.one.is_none() && state.many.is_empty();
            let is_clear = state.wire.as_ref().is_some_and(Wire::is_clear);
            is_idle && is_clear && (state.is_drained || state.phase == Phase::Retired)
        };
        if is_done { self.end(py) } else { Ok(()) }
    }

    /// Closes the socket and forgets it.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.let_go(py)?;
        self.over(py)
    }

    fn over(&self, py: Python<'_>) -> PyResult<()> {
        if std::mem::replace(&mut self.lock().phase, Phase::Over) == Phase::Over {
            return Ok(());
        }
        self.hub.stream_is_over(py, self.is_long)
    }

    fn let_go(&self, py: Python<'_>) -> PyResult<()> {
        let (wire, one, many, watched) = {
            let mut state = self.lock();
            state.phase = if state.phase == Phase::Over { Phase::Over } else { Phase::Off };
            state.inbox = None;
            state.blocked.clear();
            let watched = std::mem::replace(&mut state.is_watching_writes, false);
            (state.wire.take(), state.one.take(), std::mem::take(&mut state.many), watched)
        };
        if let Some(wire) = &wire {
            let number = wire.socket().as_raw_fd();
            self.unwatch(py, "remove_reader", number)?;
            if watched {
                self.unwatch(py, "remove_writer", number)?;
            }
            self.hub.core.forgets(number);
        }
        drop(wire);
        for exchange in one.iter().chain(many.values()) {
            exchange.get().lost(py)?;
        }
        Ok(())
    }

    /// The gateway is gone, or has said that this stream is not needed any more.
    fn close(slf: &Bound<'_, Self>, is_over: bool) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.let_go(py)?;
        // A long link whose slots are gone is met again by nobody.
        let is_alone = this.is_long && this.hub.slots_are_closed();
        if is_over || is_alone || this.hub.core.is_stopping() {
            return this.over(py);
        }
        Self::connect_later(slf)
    }

    /// End of file: ours, when we asked for no more, or the gateway's.
    fn end_of_file(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (is_ours, exchange, number) = {
            let mut state = this.lock();
            let number = state.wire.as_ref().map(|wire| wire.socket().as_raw_fd());
            state.is_drained = !this.is_long && this.hub.core.is_stopping();
            (state.is_drained, state.one.as_ref().map(|exchange| exchange.clone_ref(py)), number)
        };
        let (true, Some(exchange), Some(number)) = (is_ours, exchange, number) else {
            return Self::close(slf, false);
        };
        // The exchange that runs is finished; of its request nothing more can come.
        this.unwatch(py, "remove_reader", number)?;
        exchange.get().request_ends(py)
    }
}

#[pymethods]
impl Stream {
    /// The loop: there is something to read.
    fn readable(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let Some((mut inbox, socket)) = this.begin_reading() else { return Ok(()) };
        let ended = Self::read(slf, &mut inbox, &socket);
        this.keep(inbox);
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // Out of memory, most likely. What was being read cannot be read again.
                Self::close(slf, false)?;
                return Err(error);
            }
        };
        match ended {
            Ended::Empty => Ok(()),
            Ended::Paused => {
                this.lock().is_paused = true;
                this.unwatch(slf.py(), "remove_reader", socket.as_raw_fd())
            }
            Ended::Retired => Self::close(slf, true),
            Ended::EndOfFile => Self::end_of_file(slf),
            Ended::Lost => Self::close(slf, false),
        }
    }

    /// The loop: the socket takes more.
    fn writable(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        loop {
            let (next, clear) = {
                let mut state = this.lock();
                let Some(wire) = &mut state.wire else { return Ok(()) };
                // A loss shows where the stream is read.
                let _gone = wire.flush();
                let clear = wire.is_clear();
                let next = if clear { state.blocked.pop_front() } else { None };
                (next, clear)
            };
            let Some(next) = next else {
                if clear {
                    let number = {
                        let mut state = this.lock();
                        state.is_watching_writes = false;
                        state.wire.as_ref().map(|wire| wire.socket().as_raw_fd())
                    };
                    if let Some(number) = number {
                        this.unwatch(py, "remove_writer", number)?;
                    }
                    this.close_if_done(py)?;
                }
                return Ok(());
            };
            if let Some(exchange) = this.find(py, next) {
                exchange.get().go_on_sending(py)?;
            }
        }
    }

    /// The loop: it is time to connect.
    fn connect_again(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::connect_now(slf)
    }

    /// The loop: reading may go on.
    fn resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        let number = {
            let mut state = slf.get().lock();
            let Some(number) = state.wire.as_ref().map(|wire| wire.socket().as_raw_fd()) else {
                return Ok(());
            };
            if !std::mem::replace(&mut state.is_paused, false) {
                return Ok(());
            }
            number
        };
        Self::watch_reading(slf, number)?;
        // Whole frames may lie in the inbox, of which the loop knows nothing.
        Self::readable(slf)
    }
}
