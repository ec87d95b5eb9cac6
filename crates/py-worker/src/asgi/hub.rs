//! What the streams and exchanges of a worker share: the loop's own methods, the scopes, and the counts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use py_link::{Exchange as Kind, Request};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rustix::fd::OwnedFd;

use crate::asgi::body::RequestBody;
use crate::asgi::exchange::{Exchange, Talk};
use crate::asgi::http::Http;
use crate::asgi::scope::Scopes;
use crate::asgi::socket::Socket;
use crate::asgi::stream::Stream;
use crate::worker::Core;

/// Bounds of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Requests at a time.
    pub(crate) slots: u16,
    /// WebSockets and event streams at a time.
    pub(crate) long_lived: u16,
    /// Longest WebSocket message of a client.
    pub(crate) message_bytes: usize,
}

/// See the file's head.
pub(crate) struct Hub {
    pub(crate) core: Arc<Core>,
    pub(crate) limits: Limits,
    event_loop: Py<PyAny>,
    create_task: Py<PyAny>,
    create_future: Py<PyAny>,
    /// A context that belongs to no exchange.
    context: Py<PyAny>,
    /// Python's coroutine function `run(scope, exchange)`.
    run: Py<PyAny>,
    /// Python's `report(message, request_id, method, path, exception)`: the log.
    report: Py<PyAny>,
    /// Done when the worker has nothing left to do.
    finished: Py<PyAny>,
    scopes: Mutex<Scopes>,
    long: OnceLock<Py<Stream>>,
    slots: OnceLock<Vec<Py<Stream>>>,
    running: Mutex<Running>,
    /// Apps that go on after their exchange is over.
    lingering: AtomicUsize,
    open_slots: AtomicUsize,
    long_is_open: AtomicBool,
}

/// Exchanges whose app has not returned; kept alive here.
#[derive(Default)]
struct Running {
    places: Vec<Option<Py<Exchange>>>,
    free: Vec<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn new(
        core: Arc<Core>,
        event_loop: &Bound<'_, PyAny>,
        run: Py<PyAny>,
        report: Py<PyAny>,
        limits: Limits,
        state: Option<Py<PyDict>>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let context = py.import(intern!(py, "contextvars"))?.call_method0(intern!(py, "copy_context"))?;
        let create_future = event_loop.getattr(intern!(py, "create_future"))?;
        Ok(Self {
            core,
            limits,
            create_task: event_loop.getattr(intern!(py, "create_task"))?.unbind(),
            finished: create_future.call0()?.unbind(),
            create_future: create_future.unbind(),
            event_loop: event_loop.clone().unbind(),
            context: context.unbind(),
            run,
            report,
            scopes: Mutex::new(Scopes::new(py, state)?),
            long: OnceLock::new(),
            slots: OnceLock::new(),
            running: Mutex::new(Running::default()),
            lingering: AtomicUsize::new(0),
            open_slots: AtomicUsize::new(usize::from(limits.slots)),
            long_is_open: AtomicBool::new(true),
        })
    }

    /// Opens all streams.
    pub(crate) fn start(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let slots = (0..self.limits.slots)
            .map(|index| Py::new(py, Stream::slot(Arc::clone(self), index)))
            .collect::<PyResult<Vec<_>>>()?;
        let long = Py::new(py, Stream::long(Arc::clone(self)))?;
        let _once = self.slots.set(slots);
        let _once = self.long.set(long);
        // The long link first: the worker counts as online with its first slot, and WebSockets that find no link of its generation
        // would go to the one before.
        for stream in self.long.get().into_iter().chain(self.slots.get().into_iter().flatten()) {
            Stream::connect_now(stream.bind(py))?;
        }
        Ok(())
    }

    fn streams(&self) -> impl Iterator<Item = &Py<Stream>> {
        self.slots.get().into_iter().flatten().chain(self.long.get())
    }

    /// The worker is to stop: every stream ends when it has nothing to do.
    pub(crate) fn stop(&self, py: Python<'_>) -> PyResult<()> {
        for stream in self.streams() {
            Stream::stop(stream.bind(py))?;
        }
        Ok(())
    }

    /// A future of the loop.
    pub(crate) fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.create_future.bind(py).call0()
    }

    /// The future that is done when the worker has nothing left to do.
    pub(crate) fn finished<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.finished.bind(py).clone()
    }

    /// Calls a method of the loop outside the context of the exchange that runs now: what the loop calls later must not
    /// see its variables.
    pub(crate) fn call_loop(
        &self,
        py: Python<'_>,
        method: &str,
        arguments: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        let method = self.event_loop.bind(py).getattr(method)?;
        let context = self.context.bind(py).call_method0(intern!(py, "copy"))?;
        let mut all = vec![method];
        all.extend(arguments.iter());
        context.call_method1(intern!(py, "run"), PyTuple::new(py, all)?)?;
        Ok(())
    }

    /// A request has come on a stream: its app is started.
    pub(crate) fn begin(
        self: &Arc<Self>,
        stream: &Bound<'_, Stream>,
        number: u16,
        request: &Request<'_>,
        file: Option<OwnedFd>,
    ) -> PyResult<()> {
        let py = stream.py();
        let (scope, about) = lock(&self.scopes).build(py, request)?;
        let talk = match request.exchange {
            Kind::Http => {
                Talk::Http(Http::new(RequestBody::new(py, request.body, file), request.method == b"HEAD"))
            }
            Kind::WebSocket => Talk::Socket(Socket::new(self.limits.message_bytes)),
        };
        let place = {
            let mut running = lock(&self.running);
            running.free.pop().unwrap_or_else(|| {
                running.places.push(None);
                running.places.len() - 1
            })
        };
        let exchange = Exchange::new(Arc::clone(self), about, place, talk, stream.clone().unbind(), number);
        let exchange = Bound::new(py, exchange)?;
        if let Some(free) = lock(&self.running).places.get_mut(place) {
            *free = Some(exchange.clone().unbind());
        }
        stream.get().attach(number, exchange.clone().unbind());
        let coroutine = self.run.bind(py).call1((scope, &exchange))?;
        let task = self.create_task.bind(py).call1((coroutine,))?;
        exchange.get().keep_task(task.unbind());
        Ok(())
    }

    /// A place on the long link for an exchange that leaves its slot.
    pub(crate) fn reserve_long(&self, exchange: &Bound<'_, Exchange>) -> Option<(Py<Stream>, u16)> {
        let long = self.long.get()?;
        let number = long.get().reserve(exchange)?;
        Some((long.clone_ref(exchange.py()), number))
    }

    /// Apps that go on after their answers are as many as there are slots: from now on the end of an exchange waits for
    /// its app, so that no more than twice `slots` run at a time.
    pub(crate) fn must_hold(&self) -> bool {
        self.lingering.load(Ordering::Relaxed) >= usize::from(self.limits.slots)
    }

    /// An exchange is over and its app is not.
    pub(crate) fn lingers(&self) {
        self.lingering.fetch_add(1, Ordering::Relaxed);
    }

    /// An app has returned.
    pub(crate) fn app_is_done(&self, py: Python<'_>, place: usize, lingered: bool) -> PyResult<()> {
        if lingered {
            self.lingering.fetch_sub(1, Ordering::Relaxed);
        }
        let exchange = {
            let mut running = lock(&self.running);
            running.free.push(place);
            running.places.get_mut(place).and_then(Option::take)
        };
        drop(exchange);
        self.check_finished(py)
    }

    /// A stream is over for good.
    pub(crate) fn stream_is_over(&self, py: Python<'_>, is_long: bool) -> PyResult<()> {
        if is_long {
            self.long_is_open.store(false, Ordering::Relaxed);
        } else if self.open_slots.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(long) = self.long.get()
        {
            Stream::slots_are_over(long.bind(py))?;
        }
        self.check_finished(py)
    }

    /// No slot is left.
    pub(crate) fn slots_are_closed(&self) -> bool {
        self.open_slots.load(Ordering::Relaxed) == 0
    }

    fn check_finished(&self, py: Python<'_>) -> PyResult<()> {
        let is_open =
            self.open_slots.load(Ordering::Relaxed) > 0 || self.long_is_open.load(Ordering::Relaxed);
        let is_running = {
            let running = lock(&self.running);
            running.free.len() < running.places.len()
        };
        let finished = self.finished.bind(py);
        if !is_open && !is_running && !finished.call_method0(intern!(py, "done"))?.is_truthy()? {
            finished.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
        Ok(())
    }

    /// A view has forked and its child came back here: it is no worker.
    pub(crate) fn leave_if_forked(&self) {
        self.core.leave_if_forked();
    }

    /// Writes a log entry about an exchange.
    pub(crate) fn report(
        &self,
        py: Python<'_>,
        arguments: (&str, String, String, String, Option<&Bound<'_, PyAny>>),
    ) {
        let report = self.report.bind(py);
        if let Err(error) = report.call1(arguments) {
            error.write_unraisable(py, Some(report));
        }
    }
}
