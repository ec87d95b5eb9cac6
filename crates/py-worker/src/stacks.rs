//! What the threads of this process do, for the log, when a request is beyond its time limit.
//!
//! Mostly Python can say it itself (`quintet._stacks`: with source lines and asyncio's tasks). When a call into C keeps the
//! GIL it cannot; then `faulthandler` does, whose dump needs neither the GIL nor memory. It runs in a signal's handler, and
//! the signal goes to our own thread alone: no system call of the app is interrupted, and the dump is complete when the
//! call that raises it returns. A process that still runs no Python a second later is told to the supervisor, which kills it.
//!
//! The dump reads the frames of threads that may be running, as faulthandler's own watchdog does. It may be wrong about
//! one that changes them at this moment; the worker is about to be replaced in any case.
#![allow(unsafe_code)]

mod dump;
mod entry;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::control;
use entry::Entry;

/// For the GIL, before Python counts as hanging in C: twenty of its switching intervals.
const GIL_PATIENCE: Duration = Duration::from_millis(100);

/// For the GIL, before the supervisor is told that nothing works here any more. Long for an honest call into C that keeps
/// it (sorting millions, a regular expression that ends), short for those who wait in this worker.
const HUNG_AFTER: Duration = Duration::from_secs(1);

/// A dump of 100 threads of 100 frames, which is faulthandler's own bound, is smaller.
const DUMP_BYTES_MAX: usize = 2 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which thread serves which request.
#[derive(Default)]
struct Serving {
    /// `threading.get_ident()` of the slot's thread; 0 before its first request.
    ident: u64,
    /// Empty between requests. Kept, so that a request costs no memory.
    request_id: Vec<u8>,
}

/// How the dump is made.
struct Armed {
    /// Python's `report(request_id, ident)`, which writes the entry; `ident` is that of the request's thread, or 0.
    report: Py<PyAny>,
    /// What `faulthandler` writes when the signal comes, and where to; `None`: the app needs the signal itself.
    signal: Option<Signal>,
    /// `threading.get_ident()` of the main thread.
    main: u64,
}

struct Signal {
    number: i32,
    file: OwnedFd,
    /// The handler as faulthandler has set it. Another one there means that the app has taken the signal since.
    handler: usize,
}

/// One for the process.
pub(crate) struct Stacks {
    worker: u32,
    serving: Vec<Mutex<Serving>>,
    armed: Mutex<Option<Arc<Armed>>>,
    as_json: AtomicBool,
    /// A dump is being made; one at a time.
    busy: AtomicBool,
}

/// Who writes the entry: decided once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Python has not had the GIL yet.
    Asked,
    /// Python writes it.
    Python,
    /// Python was too slow: we have written it from faulthandler's dump.
    Dumped,
    /// Python did get the GIL, too late to write anything.
    Late,
}

impl Stacks {
    pub(crate) fn new(worker: u32, slots: u16) -> Self {
        Self {
            worker,
            serving: (0..slots).map(|_| Mutex::default()).collect(),
            armed: Mutex::new(None),
            as_json: AtomicBool::new(false),
            busy: AtomicBool::new(false),
        }
    }

    /// The calling thread, of this slot, begins with a request.
    pub(crate) fn begins(&self, slot: u16, request_id: &[u8]) {
        if let Some(serving) = self.serving.get(usize::from(slot)) {
            let mut serving = lock(serving);
            serving.ident = this_thread();
            serving.request_id.clear();
            serving.request_id.extend_from_slice(request_id);
        }
    }

    /// It is done with it.
    pub(crate) fn ends(&self, slot: u16) {
        if let Some(serving) = self.serving.get(usize::from(slot)) {
            lock(serving).request_id.clear();
        }
    }

    /// Called by the main thread, once faulthandler writes to `file` when `number` comes. Without a signal only Python can tell.
    pub(crate) fn arm(&self, report: Py<PyAny>, signal: Option<(i32, i32)>, as_json: bool) -> PyResult<()> {
        let signal = signal.map(|(number, file)| {
            // SAFETY: borrowed for one call, which fails when the number is not open.
            let file = rustix::io::fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(file) }, 3)?;
            let handler = handler_of(number).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            Ok::<_, io::Error>(Signal { number, file, handler })
        });
        let signal = signal.transpose()?;
        self.as_json.store(as_json, Ordering::Relaxed);
        *lock(&self.armed) = Some(Arc::new(Armed { report, signal, main: this_thread() }));
        Ok(())
    }

    /// From any thread, without the GIL: the entry is on its way when this returns. While one is being made, or before
    /// [`Self::arm`], nothing happens.
    pub(crate) fn dump(self: &Arc<Self>, request_id: String, control: &Arc<UnixStream>) {
        let Some(armed) = lock(&self.armed).clone() else { return };
        if self.busy.swap(true, Ordering::SeqCst) {
            return;
        }
        let (stacks, control) = (Arc::clone(self), Arc::clone(control));
        let made = std::thread::Builder::new().name("quintet-stacks".to_owned()).spawn(move || {
            if stacks.make(&armed, &request_id) == Phase::Dumped {
                // The supervisor is gone: so are we, in a moment.
                let _gone = control::tell(&control, r#"{"type":"hung"}"#);
            }
            stacks.busy.store(false, Ordering::SeqCst);
        });
        if made.is_err() {
            self.busy.store(false, Ordering::SeqCst);
        }
    }

    /// How it ended: `Dumped` means that Python did not run all the while.
    fn make(&self, armed: &Arc<Armed>, request_id: &str) -> Phase {
        let state = Arc::new((Mutex::new(Phase::Asked), Condvar::new()));
        let owner = self.owner(request_id);
        let asked = Arc::clone(&state);
        let (theirs, id) = (Arc::clone(armed), request_id.to_owned());
        // A thread for itself: it may never get the GIL.
        let made = std::thread::Builder::new().name("quintet-stacks-py".to_owned()).spawn(move || {
            // `None`: the interpreter is at its end, and says nothing more.
            let _ended = Python::try_attach(|py| {
                let writes = {
                    let mut phase = lock(&asked.0);
                    *phase = if *phase == Phase::Asked { Phase::Python } else { Phase::Late };
                    *phase == Phase::Python
                };
                asked.1.notify_all();
                if writes && let Err(error) = theirs.report.call1(py, (id, owner)) {
                    error.write_unraisable(py, None);
                }
            });
        });
        let since = Instant::now();
        if made.is_ok() && wait(&state, Phase::Asked, GIL_PATIENCE) != Phase::Asked {
            return Phase::Python;
        }
        {
            let mut phase = lock(&state.0);
            if *phase != Phase::Asked {
                return *phase;
            }
            *phase = Phase::Dumped;
        }
        self.write_dump(armed, request_id, owner);
        if made.is_err() {
            // Nobody was there to try for the GIL.
            return Phase::Late;
        }
        wait(&state, Phase::Dumped, HUNG_AFTER.saturating_sub(since.elapsed()))
    }

    /// The thread that serves the request; 0 when it is none of ours.
    fn owner(&self, request_id: &str) -> u64 {
        if request_id.is_empty() {
            return 0;
        }
        let mut serving = self.serving.iter().map(|serving| lock(serving));
        serving.find(|serving| serving.request_id == request_id.as_bytes()).map_or(0, |serving| serving.ident)
    }

    /// The name of a thread, as far as it can be known without Python.
    fn name(&self, armed: &Armed, ident: u64) -> String {
        let slot = self.serving.iter().position(|serving| lock(serving).ident == ident);
        match slot {
            _ if ident == armed.main => "MainThread".to_owned(),
            Some(slot) => format!("quintet-slot-{slot}"),
            None => format!("{ident:#x}"),
        }
    }

    fn write_dump(&self, armed: &Armed, request_id: &str, owner: u64) {
        let (text, problem) = match armed.signal.as_ref().map(raise) {
            Some(Ok(text)) => (dump::readable(&text, owner, |ident| self.name(armed, ident)), String::new()),
            Some(Err(error)) => (String::new(), error.to_string()),
            None => (String::new(), "the app uses the signal that would make them".to_owned()),
        };
        let entry = Entry { request_id, worker: self.worker, stacks: &text, problem: &problem };
        entry.write(self.as_json.load(Ordering::Relaxed));
    }
}

fn wait(state: &(Mutex<Phase>, Condvar), before: Phase, patience: Duration) -> Phase {
    let waited = state.1.wait_timeout_while(lock(&state.0), patience, |phase| *phase == before);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}

/// `threading.get_ident()` of the calling thread.
fn this_thread() -> u64 {
    // SAFETY: has no precondition.
    let ident = unsafe { libc::pthread_self() };
    ident as u64
}

/// The address of a signal's handler; `None` when there is no such signal.
pub(crate) fn handler_of(number: i32) -> Option<usize> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks; the place is ours and large enough. Zero bytes are a valid sigaction, should it fail.
    let (asked, action) = unsafe {
        let asked = libc::sigaction(number, std::ptr::null(), action.as_mut_ptr());
        (asked, action.assume_init())
    };
    (asked == 0).then_some(action.sa_sigaction)
}

/// Has nobody a handler for this signal?
pub(crate) fn is_free(number: i32) -> bool {
    handler_of(number) == Some(libc::SIG_DFL)
}

/// Lets faulthandler write its dump, and reads it.
fn raise(signal: &Signal) -> io::Result<Vec<u8>> {
    if handler_of(signal.number) != Some(signal.handler) {
        return Err(io::Error::other("the app has taken the signal that would make them"));
    }
    rustix::fs::ftruncate(&signal.file, 0)?;
    // faulthandler's descriptor is a duplicate of this one: they share the position.
    rustix::fs::seek(&signal.file, rustix::fs::SeekFrom::Start(0))?;
    // SAFETY: the set is initialised by sigemptyset before it is used, and all of it is of this thread alone. A signal
    // that is sent to the calling thread and not blocked is handled before pthread_kill returns (POSIX, pthread_kill);
    // the handler is faulthandler's, which is made to run at any moment (just compared).
    let sent = unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal.number);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::pthread_kill(libc::pthread_self(), signal.number)
    };
    if sent != 0 {
        return Err(io::Error::from_raw_os_error(sent));
    }
    let mut text = vec![0; DUMP_BYTES_MAX];
    let mut filled = 0;
    while filled < text.len() {
        match rustix::io::pread(&signal.file, &mut text[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    text.truncate(filled);
    Ok(text)
}
