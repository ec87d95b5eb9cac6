//! The life of a slot: connect, say hello, serve one request after the other, connect again when the gateway died.
//!
//! Runs in a Python thread of its own and holds the GIL except where it waits. Ends when the gateway retires it, when the
//! worker stops, or when the gateway refuses it. Which stream a thread looks after may change while it waits for the
//! GIL: see `seat`.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use py_link::{Body, Flags, Hello, Kind, Request};
use pyo3::intern;
use pyo3::prelude::*;
use rustix::fd::OwnedFd;

use crate::environ::Builder;
use crate::exchange::{AFTER_WORK_MAX, Turn};
use crate::input::Input;
use crate::link::{Heard, Link};
use crate::response::StartResponse;
use crate::seat::Next;
use crate::worker::Core;

/// The first wait before connecting again; a gateway is started within some ten milliseconds.
const RECONNECT_MIN: Duration = Duration::from_millis(10);
/// The longest: how long a gateway that came back may lack this slot.
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// Why there is no stream.
enum NoLink {
    /// Nobody there; try again.
    Gone,
    /// The gateway does not want this worker, and says why.
    Refused(String),
}

/// See the file's head.
pub(crate) struct Slot<'a, 'py> {
    core: &'a Core,
    index: u16,
    app: &'a Bound<'py, PyAny>,
    report: &'a Bound<'py, PyAny>,
    /// Called between two exchanges.
    after: Option<Bound<'py, PyAny>>,
    environ: Builder,
    /// Of the exchange before on each stream, to use again.
    starts: Vec<Option<Py<StartResponse>>>,
    /// The app went on for long after its last response.
    was_slow: bool,
    /// And after the one before: no accident of scheduling.
    hold_end: bool,
}

impl<'a, 'py> Slot<'a, 'py> {
    pub(crate) fn new(
        core: &'a Core,
        index: u16,
        app: &'a Bound<'py, PyAny>,
        report: &'a Bound<'py, PyAny>,
        after: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let environ = Builder::new(app.py(), core.hello.slots > 1)?;
        let starts = (0..core.hello.slots).map(|_| None).collect();
        Ok(Self { core, index, app, report, after, environ, starts, was_slow: false, hold_end: false })
    }

    /// Until it is retired, stopped or refused.
    pub(crate) fn run(&mut self, py: Python<'py>) -> PyResult<()> {
        let mut wait = RECONNECT_MIN;
        let mut number = self.index;
        while !self.core.is_stopping() {
            match self.connect(py, number) {
                Ok(link) => {
                    wait = RECONNECT_MIN;
                    let ended;
                    (number, ended) = self.serve(py, link)?;
                    if ended == Heard::Retire {
                        break;
                    }
                }
                Err(NoLink::Refused(reason)) => {
                    self.core.refused(reason);
                    break;
                }
                Err(NoLink::Gone) => {}
            }
            py.detach(|| self.core.sleep(wait));
            wait = RECONNECT_MAX.min(wait * 2);
        }
        self.core.forget_link(number);
        Ok(())
    }

    fn connect(&self, py: Python<'py>, number: u16) -> Result<Arc<Link>, NoLink> {
        let link = py.detach(|| Link::connect(&self.core.path, number)).map_err(|_| NoLink::Gone)?;
        let link = Arc::new(link);
        self.core.remember_link(number, &link);
        let hello = Hello { slot: number, ..self.core.hello.clone() };
        // A struct of strings and numbers always has a JSON form.
        let hello = serde_json::to_vec(&hello).unwrap_or_default();
        let hello = py_link::frame(Kind::Hello, Flags::NONE, &hello);
        link.send(py, &mut [IoSlice::new(&hello)], None).map_err(|_| NoLink::Gone)?;
        match py.detach(|| link.wait_answer()) {
            Ok((Kind::Welcome, _)) => Ok(link),
            Ok((Kind::Refuse, reason)) => Err(NoLink::Refused(String::from_utf8_lossy(&reason).into_owned())),
            Ok(_) | Err(_) => Err(NoLink::Gone),
        }
    }

    /// Serves until the stream it looks after is over; which one that was by then, and how.
    fn serve(&mut self, py: Python<'py>, mut link: Arc<Link>) -> PyResult<(u16, Heard)> {
        loop {
            link.set_idle();
            if self.core.is_stopping() {
                // What the gateway has sent is still served; what it sends from now on fails on its side.
                link.stop_receiving();
            }
            link = match self.core.seats.next(py, self.index, link) {
                Next::Serve(link) => link,
                Next::Again(idle) => {
                    link = idle;
                    continue;
                }
                Next::Over(over, heard) => {
                    over.close();
                    return Ok((over.slot(), heard));
                }
            };
            self.exchange(py, &link)?;
            self.core.leave_if_forked();
            if let Some(Err(error)) = self.after.as_ref().map(PyAnyMethods::call0) {
                // A finalizer of the app, most likely; Python reports those so, too.
                error.write_unraisable(py, None);
            }
            if link.is_broken() {
                link.close();
                return Ok((link.slot(), Heard::Closed));
            }
        }
    }

    /// One request. Fails only when memory runs out before the app is called.
    fn exchange(&mut self, py: Python<'py>, link: &Arc<Link>) -> PyResult<()> {
        let place = usize::from(link.slot());
        let start = match self.starts.get_mut(place).and_then(Option::take) {
            Some(start) if start.get().is_for(link) && StartResponse::is_ours_alone(py, &start) => start,
            _ => StartResponse::new(py, Arc::clone(link))?,
        };
        let (environ, input, is_head) = {
            let mut inbox = link.inbox(py);
            let file = inbox.take_file();
            let Ok(request) = Request::decode(inbox.request()) else {
                // The gateway and we do not understand each other: this stream is of no use.
                link.abandon();
                return Ok(());
            };
            let environ = self.environ.build(py, &request)?;
            self.core.stacks.begins(self.index, request.id);
            let input = input(py, link, &request, file)?;
            let is_head = request.method == b"HEAD";
            inbox.consume_frame();
            (environ, input, is_head)
        };
        if let Some(input) = &input {
            environ.set_item(intern!(py, "wsgi.input"), input)?;
        }
        start.get().shared().outgoing(py).reset(is_head);
        let turn = Turn {
            app: self.app,
            report: self.report,
            environ: &environ,
            start: &start,
            hold_end: self.hold_end,
        };
        let after_work = turn.run(py);
        let slow = after_work > AFTER_WORK_MAX;
        self.hold_end = slow && self.was_slow;
        self.was_slow = slow;
        if let Some(input) = &input {
            input.get().detach(py);
        }
        start.get().shared().outgoing(py).give_up();
        self.core.stacks.ends(self.index);
        if let Some(kept) = self.starts.get_mut(place) {
            *kept = Some(start);
        }
        Ok(())
    }
}

/// `wsgi.input` for a request that has a body.
fn input<'py>(
    py: Python<'py>,
    link: &Arc<Link>,
    request: &Request<'_>,
    file: Option<OwnedFd>,
) -> PyResult<Option<Bound<'py, Input>>> {
    let input = match (request.body, file) {
        (Body::None, _) => return Ok(None),
        (Body::Inline(bytes), _) => Input::inline(bytes),
        (Body::File { len }, Some(file)) => Input::file(file, len),
        // The descriptor was lost on the way (out of descriptors): the app must see an error, not an empty body.
        (Body::File { .. }, None) => Input::lost(),
        (Body::Stream { len }, _) => Input::stream(Arc::clone(link), len),
    };
    Bound::new(py, input).map(Some)
}
