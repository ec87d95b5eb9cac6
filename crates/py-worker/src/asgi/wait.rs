//! What `receive()` and `send()` give: awaitables that are done at once when nothing has to be waited for.
//!
//! To Python they are coroutines (`collections.abc.Coroutine`), so that apps may also make tasks of them. Nothing happens
//! before they are awaited. When something has to be waited for, a future of the loop is what the task sees.
#![allow(unsafe_code)]

use std::task::Poll;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use crate::asgi::exchange::Exchange;

/// How far it is.
enum Step {
    /// Of `receive()`.
    Receive,
    /// Of `send()`, with its message.
    Send(Py<PyAny>),
    /// The message has been taken; this many must have gone.
    Sent(u64),
    /// It has given its result.
    Over,
}

/// See the file's head.
#[pyclass(module = "quintet._core")]
pub(crate) struct Wait {
    exchange: Py<Exchange>,
    step: Step,
}

impl Wait {
    pub(crate) fn of_receive(exchange: Py<Exchange>) -> Self {
        Self { exchange, step: Step::Receive }
    }

    pub(crate) fn of_send(exchange: Py<Exchange>, message: Py<PyAny>) -> Self {
        Self { exchange, step: Step::Send(message) }
    }

    /// The result, or the future that the task has to wait for.
    fn step(&mut self, py: Python<'_>) -> PyResult<Poll<Py<PyAny>>> {
        let exchange = self.exchange.bind(py);
        let polled = match std::mem::replace(&mut self.step, Step::Over) {
            Step::Receive => {
                let polled = Exchange::poll_receive(exchange)?;
                if polled.is_pending() {
                    self.step = Step::Receive;
                }
                polled
            }
            Step::Send(message) => match Exchange::send_message(exchange, message.bind(py))? {
                None => Poll::Ready(py.None()),
                Some(ticket) => {
                    self.step = Step::Sent(ticket);
                    Poll::Pending
                }
            },
            Step::Sent(ticket) => {
                if exchange.get().has_sent(ticket) {
                    Poll::Ready(py.None())
                } else {
                    self.step = Step::Sent(ticket);
                    Poll::Pending
                }
            }
            Step::Over => return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        };
        Ok(polled)
    }

    /// The future that the task waits for.
    fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let exchange = self.exchange.bind(py);
        let future = match self.step {
            Step::Sent(ticket) => Exchange::sending(exchange, ticket)?,
            _ => Exchange::receiving(exchange)?,
        };
        // What `Future.__await__` does before it hands itself to the task.
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        Ok(future)
    }
}

#[pymethods]
impl Wait {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.step(py)? {
            Poll::Pending => self.future(py).map(Some),
            Poll::Ready(value) => {
                // SAFETY: the GIL is held (`py`), both are live objects, and no exception is set here. It is set by hand
                // because that costs a tenth of a `PyErr`: PyO3 gives null for `None`, and null with a StopIteration set
                // is how an iterator ends with a value.
                unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
                Ok(None)
            }
        }
    }

    #[pyo3(signature = (_value, /))]
    fn send<'py>(&mut self, py: Python<'py>, _value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.step(py)? {
            Poll::Pending => self.future(py),
            Poll::Ready(value) => Err(PyStopIteration::new_err((value,))),
        }
    }

    #[pyo3(signature = (kind, value=None, traceback=None, /))]
    fn throw(
        &mut self,
        kind: &Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.step = Step::Over;
        let py = kind.py();
        let mut raised = match value {
            Some(value) if value.is_instance_of::<pyo3::exceptions::PyBaseException>() => value,
            Some(value) => kind.call1((value,))?,
            None if kind.is_instance_of::<pyo3::exceptions::PyBaseException>() => kind.clone(),
            None => kind.call0()?,
        };
        if let Some(traceback) = traceback {
            raised = raised.call_method1(intern!(py, "with_traceback"), (traceback,))?;
        }
        Err(PyErr::from_value(raised))
    }

    fn close(&mut self) {
        self.step = Step::Over;
    }
}
