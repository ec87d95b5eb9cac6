//! The app server inside Python: WSGI over the link. The only crate that knows `PyO3`.
//!
//! `python -m quintet.worker` imports the app and starts one Python thread a slot; each calls [`worker::Worker::slot`],
//! which stays in here until the slot is retired. The way of one request, in the order of the files:
//!
//! ```text
//! link      recv without the GIL, a whole Request frame            (one system call)
//! environ   copy of a template dict, filled; wsgi.input
//! exchange  call the app, iterate what it returns, close() it
//! response  start_response, write(), the head and the body as frames (one system call when it is small)
//! ```
//!
//! Promises: no Python code of ours runs on the hot path; the GIL is let go only around system calls that may wait; what
//! an app does wrong ends its exchange, never the worker; `close()` is called whatever happens; every frame of one
//! exchange is followed by exactly one with END or ABORT unless the gateway is gone. Buffers are kept and bounded.
//!
//! `unsafe` is allowed here for what `PyO3` has no safe word for, each place with its reason.

mod control;
mod environ;
mod exchange;
mod file;
mod input;
mod link;
mod outgoing;
mod response;
mod seat;
mod slot;
mod text;
mod worker;

use pyo3::prelude::*;

/// The compiled half of the `quintet` package; private, see `python/quintet/_core.pyi`.
///
/// Needs the GIL: who holds it may touch the seats of those who wait for it (`seat`).
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use super::file::FileWrapper;
    #[pymodule_export]
    use super::worker::Worker;
    use super::{Bound, PyModule, PyModuleMethods as _, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", py_link::VERSION)
    }
}
