//! What `quintet.worker` holds in its hands: one object for the process.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use py_link::Hello;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::{self, Told};
use crate::link::Link;
use crate::seat::Seats;
use crate::slot::Slot;
use crate::stacks::{self, Stacks};

/// What the slots share.
pub(crate) struct Core {
    pub(crate) path: PathBuf,
    /// The hello of each slot, but for its number.
    pub(crate) hello: Hello,
    pub(crate) seats: Seats,
    pub(crate) stacks: Arc<Stacks>,
    links: Mutex<Vec<Option<Arc<Link>>>>,
    /// ASGI: the sockets that an event loop watches, for the child of a fork to let go.
    watched: Mutex<BTreeSet<i32>>,
    /// ASGI: a byte written here wakes the event loop when the worker is to stop.
    waker: OnceLock<UnixStream>,
    stopping: AtomicBool,
    asleep: Mutex<()>,
    wake: Condvar,
    forked: AtomicBool,
    refusal: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// No new requests: idle slots wake up and end, busy ones end after their exchange.
    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(lock(&self.asleep));
        self.wake.notify_all();
        if let Some(mut waker) = self.waker.get() {
            // Full: it has been woken and has not looked yet.
            let _already_awake = waker.write(b"!");
        }
        // A slot says that it is idle before it looks whether to stop, so that one of both sees the other.
        for link in lock(&self.links).iter().flatten().filter(|link| !link.is_busy()) {
            link.stop_receiving();
        }
    }

    /// Waits, unless the worker stops.
    pub(crate) fn sleep(&self, time: Duration) {
        let guard = lock(&self.asleep);
        let _woken = self.wake.wait_timeout_while(guard, time, |()| !self.is_stopping());
    }

    /// Has something arrived on any stream that has not been read? One system call, which does not wait.
    fn somebody_waits(&self) -> bool {
        let links = lock(&self.links);
        let mut fds: Vec<PollFd<'_>> = links
            .iter()
            .flatten()
            .map(|link| PollFd::from_borrowed_fd(link.socket(), PollFlags::IN))
            .collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(1..))
    }

    pub(crate) fn remember_link(&self, slot: u16, link: &Arc<Link>) {
        if let Some(place) = lock(&self.links).get_mut(usize::from(slot)) {
            *place = Some(Arc::clone(link));
        }
        if self.is_stopping() {
            link.stop_receiving();
        }
    }

    pub(crate) fn forget_link(&self, slot: u16) {
        if let Some(place) = lock(&self.links).get_mut(usize::from(slot)) {
            *place = None;
        }
    }

    /// The stream from which an event loop hears that the worker is to stop; there is one a process.
    pub(crate) fn wake_up_call(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let _once = self.waker.set(ours);
        Ok(theirs)
    }

    /// An event loop watches this socket from now on.
    pub(crate) fn watches(&self, socket: i32) {
        lock(&self.watched).insert(socket);
    }

    /// It does no more.
    pub(crate) fn forgets(&self, socket: i32) {
        lock(&self.watched).remove(&socket);
    }

    pub(crate) fn refused(&self, reason: String) {
        *lock(&self.refusal) = Some(reason);
        self.stop();
    }

    /// A view has forked and its child came back here: it is no worker.
    pub(crate) fn leave_if_forked(&self) {
        if self.forked.load(Ordering::Relaxed) {
            control::leave(0);
        }
    }
}

/// The worker process: its control socket and its slots.
#[pyclass(frozen, module = "quintet._core")]
pub(crate) struct Worker {
    pub(crate) core: Arc<Core>,
    control: Arc<UnixStream>,
}

#[pymethods]
impl Worker {
    /// Takes over the control socket, and from now on leaves with the supervisor.
    #[new]
    #[pyo3(signature = (*, control_fd, link, token, worker, generation, slots, pool=0))]
    fn new(
        control_fd: i32,
        link: PathBuf,
        token: String,
        worker: u32,
        generation: u32,
        slots: u16,
        pool: u16,
    ) -> PyResult<Self> {
        if slots == 0 {
            return Err(PyValueError::new_err("a worker needs at least one thread"));
        }
        let control = Arc::new(control::open(control_fd)?);
        let hello = Hello {
            version: py_link::VERSION.to_owned(),
            worker,
            generation,
            channel: py_link::Channel::Slot,
            pool,
            slot: 0,
            slots,
            pid: std::process::id(),
            token,
        };
        let core = Arc::new(Core {
            path: link,
            hello,
            seats: Seats::new(slots),
            stacks: Arc::new(Stacks::new(worker, slots)),
            links: Mutex::new(vec![None; usize::from(slots)]),
            watched: Mutex::new(BTreeSet::new()),
            waker: OnceLock::new(),
            stopping: AtomicBool::new(false),
            asleep: Mutex::new(()),
            wake: Condvar::new(),
            forked: AtomicBool::new(false),
            refusal: Mutex::new(None),
        });
        let watched = Arc::clone(&core);
        let answers = Arc::clone(&control);
        control::watch(Arc::clone(&control), move |told| match told {
            Told::Exit => watched.stop(),
            Told::DumpStacks { request_id } => watched.stacks.dump(request_id, &answers),
        })?;
        Ok(Self { core, control })
    }

    /// Sends one line to the supervisor.
    fn tell(&self, py: Python<'_>, line: &str) -> io::Result<()> {
        py.detach(|| control::tell(&self.control, line))
    }

    /// Serves the app on one slot, in the calling thread, until the slot is retired or the worker stops.
    /// `after` is called after each exchange.
    #[pyo3(signature = (index, app, report, after=None))]
    fn slot<'py>(
        &self,
        py: Python<'py>,
        index: u16,
        app: &Bound<'py, PyAny>,
        report: &Bound<'py, PyAny>,
        after: Option<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        Slot::new(&self.core, index, app, report, after)?.run(py)
    }

    /// Has a request arrived that no thread has begun with?
    fn somebody_waits(&self) -> bool {
        self.core.somebody_waits()
    }

    /// Is this signal nobody's?
    #[staticmethod]
    fn signal_is_free(number: i32) -> bool {
        stacks::is_free(number)
    }

    /// From now on the supervisor's wish for stacks is granted: by `report(request_id, ident)`, or while Python hangs by
    /// `signal` (its number, the descriptor that faulthandler writes to).
    fn watch_stacks(&self, report: Py<PyAny>, signal: Option<(i32, i32)>, log_json: bool) -> PyResult<()> {
        self.core.stacks.arm(report, signal, log_json)
    }

    /// Finish what is in flight, take nothing new.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.core.stop());
    }

    /// Why the gateway refused this worker, if it did.
    #[getter]
    fn refusal(&self) -> Option<String> {
        lock(&self.core.refusal).clone()
    }

    /// In the child of a fork: this is no worker any more. Gives the numbers of its sockets, which the child must put
    /// to something else: while it holds them, nobody would see the parent die.
    fn forked(&self) -> Vec<i32> {
        self.core.forked.store(true, Ordering::Relaxed);
        let mut numbers = vec![control::number(&self.control)];
        // Another thread of the parent may have held the lock when it forked; it is not here to let it go.
        if let Ok(links) = self.core.links.try_lock() {
            numbers.extend(links.iter().flatten().map(|link| link.socket().as_raw_fd()));
        }
        if let Ok(watched) = self.core.watched.try_lock() {
            numbers.extend(watched.iter());
        }
        numbers.extend(self.core.waker.get().map(std::os::fd::AsRawFd::as_raw_fd));
        numbers
    }
}
