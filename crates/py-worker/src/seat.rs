//! Threads that pass requests to each other instead of the GIL.
//!
//! A thread whose request has arrived must wait for the GIL while a sibling runs. Handing the GIL over costs two changes
//! of context and a handful of system calls, for each request when all slots are busy. So a thread that has ended an
//! exchange, and still holds the GIL, takes the request of one that waits for it: both exchange their streams, and the
//! one that waits gets an idle stream to look after. When the thread that runs has to wait itself (a database, a
//! disk), the GIL goes to the next as ever, so that no request waits longer than it would have.
//!
//! Invariants: each stream belongs to one seat; a seat is changed by its own thread, or while it is parked by the
//! thread that holds the GIL. See docs/decisions/0003-environ-and-frames.md.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::Python;

use crate::link::{Heard, Link};

/// What others may know of a thread.
#[derive(Default)]
pub(crate) struct Seat {
    /// The stream this thread looks after.
    link: Mutex<Option<Arc<Link>>>,
    /// It waits for the GIL and touches nothing of this until it has it.
    parked: AtomicBool,
    /// A request has been received on the stream.
    heard: AtomicBool,
}

impl Seat {
    fn link(&self) -> Option<Arc<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, link: &Arc<Link>) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(link));
    }
}

/// All threads of the process, one seat a slot.
pub(crate) struct Seats(Vec<Seat>);

/// What a thread does next.
pub(crate) enum Next {
    /// Serve the request that lies in the inbox of this stream.
    Serve(Arc<Link>),
    /// Nothing here any more: look again.
    Again(Arc<Link>),
    /// The stream is over, with or without a Retire.
    Over(Arc<Link>, Heard),
}

impl Seats {
    pub(crate) fn new(count: u16) -> Self {
        Self((0..count).map(|_| Seat::default()).collect())
    }

    /// Waits for the next request of thread `at`, which looks after `link`; takes one that waits for the GIL first.
    pub(crate) fn next(&self, py: Python<'_>, at: u16, link: Arc<Link>) -> Next {
        let at = usize::from(at);
        // One a slot, made together with them.
        let Some(seat) = self.0.get(at) else { return Next::Over(link, Heard::Closed) };
        if let Some(found) = self.take_over(py, at, &link) {
            return Next::Serve(found);
        }
        seat.set(&link);
        let heard = py.detach(|| {
            let heard = link.wait_request();
            seat.heard.store(heard == Heard::Request, Ordering::SeqCst);
            seat.parked.store(true, Ordering::SeqCst);
            heard
        });
        // With the GIL, so that nobody else is at this seat now.
        seat.parked.store(false, Ordering::SeqCst);
        let link = seat.link().unwrap_or(link);
        match heard {
            Heard::Request if seat.heard.swap(false, Ordering::SeqCst) => Next::Serve(link),
            Heard::Request => Next::Again(link),
            Heard::Retire | Heard::Closed => Next::Over(link, heard),
        }
    }

    /// The stream of a parked thread that has a request, in exchange for `link`; or `link` itself, if it has one and
    /// others wait for the GIL. Called with the GIL, by a thread between two exchanges.
    fn take_over(&self, py: Python<'_>, at: usize, link: &Arc<Link>) -> Option<Arc<Link>> {
        // In turn, beginning behind oneself: none is passed over for ever.
        let others = self.0.iter().cycle().skip(at + 1).take(self.0.len() - 1);
        let mut somebody_waits = false;
        for seat in others.filter(|seat| seat.parked.load(Ordering::SeqCst)) {
            somebody_waits = true;
            let Some(theirs) = seat.link() else { continue };
            if seat.heard.swap(false, Ordering::SeqCst) || theirs.try_request(py) {
                seat.set(link);
                return Some(theirs);
            }
        }
        (somebody_waits && link.try_request(py)).then(|| Arc::clone(link))
    }
}
