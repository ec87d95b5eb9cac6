//! ASGI: one event loop, many exchanges. The way of one request, in the order of the files:
//!
//! ```text
//! stream     the life of a stream: connect, hello, frames to exchanges, retire
//! wire       its socket, which never blocks; inbox (of the crate): what was received
//! hub        what all streams share: the loop's methods, counts, bounds
//! scope      a copy of a template dict, filled
//! exchange   what receive and send do; the coroutines that the app gets are in python/quintet/_asgi.py
//! http       http.request, http.response.*; body: the request's body; files: a file as a descriptor
//! socket     websocket.*
//! message    reading the app's messages
//! outbound   what is to be sent as frames, as socket and credit allow
//! ```
//!
//! Everything runs in the thread of the loop, with the GIL, and nothing waits: where an app has to, its task does, on a
//! future of the loop. Each exchange has a task and a context of its own. A complete small answer is one frame and
//! one system call, without any future.

mod body;
mod exchange;
mod files;
mod http;
mod hub;
mod message;
mod outbound;
mod scope;
mod socket;
mod stream;
mod wire;

use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use py_link::long::DETACHED_FIRST;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::asgi::hub::{Hub, Limits};
use crate::worker::Worker;

/// The worker's streams in an event loop.
#[pyclass(frozen, module = "quintet._core")]
pub(crate) struct Asgi {
    hub: Arc<Hub>,
    wake_up_call: UnixStream,
}

#[pymethods]
impl Asgi {
    /// `run(scope, exchange)` calls the app; `report` is the log; `state` is the lifespan's, if the app has one.
    #[new]
    #[pyo3(signature = (worker, event_loop, *, run, report, slots, long_lived_max, message_max, state=None))]
    #[expect(clippy::too_many_arguments, reason = "named in Python")]
    fn new(
        worker: &Bound<'_, Worker>,
        event_loop: &Bound<'_, PyAny>,
        run: Py<PyAny>,
        report: Py<PyAny>,
        slots: u16,
        long_lived_max: u32,
        message_max: u64,
        state: Option<Py<PyDict>>,
    ) -> PyResult<Self> {
        if slots == 0 {
            return Err(PyValueError::new_err("a worker needs at least one slot"));
        }
        let core = Arc::clone(&worker.get().core);
        let wake_up_call = core.wake_up_call()?;
        core.watches(wake_up_call.as_raw_fd());
        let limits = Limits {
            slots,
            // The gateway has no more numbers to give.
            long_lived: u16::try_from(long_lived_max).unwrap_or(u16::MAX).min(DETACHED_FIRST - 1),
            message_bytes: usize::try_from(message_max).unwrap_or(usize::MAX),
        };
        let hub = Arc::new(Hub::new(core, event_loop, run, report, limits, state)?);
        Ok(Self { hub, wake_up_call })
    }

    /// Opens the streams. The future that is given is done when the worker has nothing left to do.
    fn start<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let number = this.wake_up_call.as_raw_fd().into_pyobject(py)?.into_any();
        let woken = slf.getattr(intern!(py, "woken"))?;
        this.hub.call_loop(py, "add_reader", &PyTuple::new(py, [number, woken])?)?;
        this.hub.start(py)?;
        if this.hub.core.is_stopping() {
            this.hub.stop(py)?;
        }
        Ok(this.hub.finished(py))
    }

    /// The loop: the worker is to stop.
    fn woken(&self, py: Python<'_>) -> PyResult<()> {
        // All of it: there is one reason to wake up.
        let mut calls = [0; 64];
        let _read = (&self.wake_up_call).read(&mut calls);
        self.hub.stop(py)
    }
}
