//! One exchange: the app is called, what it returns goes out, `close()` is called. PEP 3333, "Specification Details".
//!
//! When the last byte is known the frame that carries it ends the exchange, and what the app still does after it (the
//! rest of a generator, `close()`) happens while the client has its answer. A slot whose app takes long there holds the
//! end back instead, so that the gateway gives it no request that would have to wait: see [`AFTER_WORK_MAX`].

use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyTuple, PyType};

use crate::file::{FileWrapper, as_bytes};
use crate::link::Gone;
use crate::outgoing::{Ended, Stage};
use crate::response::{Shared, StartResponse};

/// What an app may do after its response without the slot counting as occupied. A system call to say "free now"
/// costs about a hundredth of it, so that the figure is not critical.
pub(crate) const AFTER_WORK_MAX: Duration = Duration::from_millis(1);

/// Pieces of a response that lies in memory are joined into frames of about this size.
const JOINED_BYTES: usize = 64 * 1024;

/// What a log line and the body of a 500 take from the environ.
const LOGGED_CHARS_MAX: usize = 1024;

/// What one exchange needs.
pub(crate) struct Turn<'a, 'py> {
    pub(crate) app: &'a Bound<'py, PyAny>,
    /// Python's `report(message, request_id, method, path, exception)`: the log.
    pub(crate) report: &'a Bound<'py, PyAny>,
    pub(crate) environ: &'a Bound<'py, PyDict>,
    pub(crate) start: &'a Py<StartResponse>,
    /// The frame that ends the exchange waits until the app is done.
    pub(crate) hold_end: bool,
}

/// Why a body ended early.
enum Fault {
    App(PyErr),
    Gone,
}

impl From<PyErr> for Fault {
    fn from(error: PyErr) -> Self {
        Self::App(error)
    }
}

impl From<Gone> for Fault {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Turn<'_, '_> {
    /// The whole exchange. Tells how long the app went on after its response.
    pub(crate) fn run(&self, py: Python<'_>) -> Duration {
        let returned = match self.app.call1((self.environ, self.start)) {
            Ok(returned) => returned,
            Err(error) => {
                self.fail(py, &error);
                return Duration::ZERO;
            }
        };
        let sent = self.send_body(py, &returned);
        let answered = Instant::now();
        let rest = match sent {
            Ok(Some(rest)) => self.run_out(py, rest),
            Ok(None) | Err(Fault::Gone) => Ok(()),
            Err(Fault::App(error)) => Err(error),
        };
        if let Err(error) = rest {
            self.fail(py, &error);
        }
        if let Err(error) = close(&returned) {
            self.log(py, "close() of a response failed", Some(&error));
        }
        let shared = self.shared();
        // Gone by now: the slot notices on its next read.
        let _gone = shared.outgoing(py).end(py, &shared.link);
        answered.elapsed()
    }

    fn shared(&self) -> &Shared {
        self.start.get().shared()
    }

    /// Sends the body. Gives back an iterator that may have code to run behind its last item.
    fn send_body<'py>(
        &self,
        py: Python<'py>,
        returned: &Bound<'py, PyAny>,
    ) -> Result<Option<Bound<'py, PyIterator>>, Fault> {
        if let Ok(wrapper) = returned.cast_exact::<FileWrapper>()
            && let Some(plain) = wrapper.get().plain(py)
        {
            let shared = self.shared();
            self.check_started(py)?;
            let ended = shared.outgoing(py).finish_file(py, &shared.link, &plain)?;
            self.note(py, ended);
            return Ok(None);
        }
        let mut items = returned.try_iter()?;
        if is_in_memory(&items)? {
            self.send_memory(py, &mut items)?;
            return Ok(None);
        }
        self.send_stream(py, items)
    }

    /// Items of a list or tuple: all there is, there already.
    fn send_memory<'py>(&self, py: Python<'py>, items: &mut Bound<'py, PyIterator>) -> Result<(), Fault> {
        let Some(first) = next_bytes(items)? else { return self.finish(py, &[], Some(0)) };
        let Some(second) = next_bytes(items)? else {
            let only = first.as_bytes();
            return self.finish(py, only, Some(only.len() as u64));
        };
        let mut pieces = vec![first, second];
        while let Some(piece) = next_bytes(items)? {
            pieces.push(piece);
        }
        let total: usize = pieces.iter().map(|piece| piece.as_bytes().len()).sum();
        let shared = self.shared();
        self.check_started(py)?;
        shared.outgoing(py).know_total(total as u64);
        let mut joined = Vec::with_capacity(total.min(JOINED_BYTES));
        for piece in pieces {
            let piece = piece.as_bytes();
            if joined.len() + piece.len() > JOINED_BYTES {
                self.transmit(py, &joined)?;
                joined.clear();
            }
            if piece.len() > JOINED_BYTES {
                self.transmit(py, piece)?;
            } else {
                joined.extend_from_slice(piece);
            }
        }
        self.finish(py, &joined, None)
    }

    /// Items that come one by one: each is sent before the next is asked for.
    fn send_stream<'py>(
        &self,
        py: Python<'py>,
        mut items: Bound<'py, PyIterator>,
    ) -> Result<Option<Bound<'py, PyIterator>>, Fault> {
        let shared = self.shared();
        while let Some(piece) = next_bytes(&mut items)? {
            let piece = piece.as_bytes();
            // PEP 3333: the head waits for the first byte, since the app may still replace it.
            if piece.is_empty() {
                continue;
            }
            self.check_started(py)?;
            let (bodyless, left) = {
                let outgoing = shared.outgoing(py);
                (outgoing.is_bodyless(), outgoing.left())
            };
            if bodyless {
                // The rest would be made for nobody.
                self.finish(py, &[], None)?;
                return Ok(None);
            }
            if left.is_some_and(|left| left <= piece.len() as u64) {
                self.finish(py, piece, None)?;
                return Ok(Some(items));
            }
            self.transmit(py, piece)?;
            if shared.link.poll_gone(py) {
                return Err(Fault::Gone);
            }
        }
        self.finish(py, &[], Some(0))?;
        Ok(None)
    }

    fn transmit(&self, py: Python<'_>, data: &[u8]) -> Result<(), Fault> {
        let shared = self.shared();
        Ok(shared.outgoing(py).transmit(py, &shared.link, data)?)
    }

    /// Sends the last piece. `total`: the length of the whole body, if nothing was sent before and it is known.
    fn finish(&self, py: Python<'_>, data: &[u8], total: Option<u64>) -> Result<(), Fault> {
        self.check_started(py)?;
        let shared = self.shared();
        let ended = {
            let mut outgoing = shared.outgoing(py);
            if let Some(total) = total {
                outgoing.know_total(total);
            }
            outgoing.finish(py, &shared.link, data, self.hold_end)?
        };
        self.note(py, ended);
        Ok(())
    }

    fn check_started(&self, py: Python<'_>) -> PyResult<()> {
        match self.shared().outgoing(py).stage() {
            Stage::Fresh => Err(PyRuntimeError::new_err(
                "the app gave a response without calling start_response (PEP 3333)",
            )),
            _ => Ok(()),
        }
    }

    /// Lets a generator run to its end: code behind its last `yield`.
    fn run_out<'py>(&self, py: Python<'py>, mut items: Bound<'py, PyIterator>) -> PyResult<()> {
        while let Some(piece) = next_bytes(&mut items)? {
            if !piece.as_bytes().is_empty() {
                self.log(py, "the app gave more bytes than its Content-Length; they were dropped", None);
                return Ok(());
            }
        }
        Ok(())
    }

    fn note(&self, py: Python<'_>, ended: Ended) {
        if ended == Ended::Short {
            self.log(py, "the app gave fewer bytes than its Content-Length; the response was cut off", None);
        }
    }

    /// The app has raised. Any exception ends its request only, `SystemExit` too: a view must not be able to take the
    /// requests of other threads with it.
    fn fail(&self, py: Python<'_>, error: &PyErr) {
        let shared = self.shared();
        // Nobody is there to miss the response; what the app raised is most likely just that.
        if !shared.link.is_broken() && !shared.link.is_cancelled() {
            // Before the answer: who asks about a request id finds it in the log.
            self.log(py, "the app raised an exception", Some(error));
        }
        let mut outgoing = shared.outgoing(py);
        let _gone = match outgoing.stage() {
            Stage::Fresh | Stage::Set => {
                let id = self.variable("HTTP_X_REQUEST_ID");
                let body = format!("Internal Server Error\n\nRequest id: {id}\n");
                outgoing.begin_head(500, b"Internal Server Error");
                outgoing.header(b"Content-Type", b"text/plain; charset=utf-8");
                outgoing.commit_head(None);
                outgoing.know_total(body.len() as u64);
                outgoing.finish(py, &shared.link, body.as_bytes(), false).map(|_| ())
            }
            Stage::Sent | Stage::Complete => outgoing.end(py, &shared.link),
            Stage::Over => Ok(()),
        };
    }

    fn variable(&self, key: &str) -> String {
        let value = self.environ.get_item(key).ok().flatten();
        value.map(|value| value.to_string()).unwrap_or_default().chars().take(LOGGED_CHARS_MAX).collect()
    }

    fn log(&self, py: Python<'_>, message: &str, error: Option<&PyErr>) {
        // With its traceback, which Python before 3.12 keeps beside the exception.
        let exception = error.map(|error| error.clone_ref(py).into_value(py));
        let arguments = (
            message,
            self.variable("HTTP_X_REQUEST_ID"),
            self.variable("REQUEST_METHOD"),
            self.variable("PATH_INFO"),
            exception,
        );
        if let Err(error) = self.report.call1(arguments) {
            error.write_unraisable(py, Some(self.report));
        }
    }
}

fn next_bytes<'py>(items: &mut Bound<'py, PyIterator>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    match items.next() {
        Some(item) => {
            let item = item?;
            as_bytes(&item)?;
            Ok(Some(item.cast_into::<PyBytes>()?))
        }
        None => Ok(None),
    }
}

/// Is this the iterator of a list or a tuple? Asking it for the next item runs no code of the app.
fn is_in_memory(items: &Bound<'_, PyIterator>) -> PyResult<bool> {
    static TYPES: PyOnceLock<[Py<PyType>; 2]> = PyOnceLock::new();
    let py = items.py();
    let types = TYPES.get_or_try_init(py, || {
        let list = PyList::empty(py).try_iter()?.get_type().unbind();
        let tuple = PyTuple::empty(py).try_iter()?.get_type().unbind();
        PyResult::Ok([list, tuple])
    })?;
    let found = items.get_type();
    Ok(types.iter().any(|one| found.is(one)))
}

/// PEP 3333: `close()` must be called whatever happened, when there is one.
fn close(returned: &Bound<'_, PyAny>) -> PyResult<()> {
    if returned.is_exact_instance_of::<PyList>() || returned.is_exact_instance_of::<PyTuple>() {
        return Ok(());
    }
    if let Some(close) = returned.getattr_opt(intern!(returned.py(), "close"))? {
        close.call0()?;
    }
    Ok(())
}
