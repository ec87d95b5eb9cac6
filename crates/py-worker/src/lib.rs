//! The app server inside Python: WSGI over the link. The only crate that knows `PyO3`.
//!
//! `python -m quintet.worker` imports the app and starts one Python thread a slot; each calls [`worker::Worker::slot`],
//! which stays in here until the slot is retired. The way of one request, in the order of the files:
//!
//! ```text
//! slot      the life of a stream: connect, hello, requests, retire
//! seat      which thread serves which request
//! link      wait without the GIL for a whole Request frame (poll and recvmsg)
//! environ   a copy of a template dict, filled; input: the body as a file
//! exchange  call the app, iterate what it returns, close() it
//! response  start_response and write()
//! outgoing  head and body as frames (one send when they are small); file: a file as a descriptor
//! ```
//!
//! Promises: no Python code of ours runs on the hot path; the GIL is let go only around system calls that may wait; what
//! an app does wrong ends its exchange, never the worker; `close()` is called whatever happens; each exchange ends
//! with exactly one frame that has END or ABORT, unless the gateway is gone. Buffers are kept and bounded.
//!
//! `unsafe` is allowed here for what `PyO3` has no safe word for, each place with its reason.

mod asgi;
mod control;
mod environ;
mod exchange;
mod file;
mod inbox;
mod input;
mod link;
mod names;
mod outgoing;
mod response;
mod seat;
mod slot;
mod stacks;
mod text;
mod worker;

use pyo3::prelude::*;

/// The compiled half of the `quintet` package; private, see `python/quintet/_core.pyi`.
///
/// Needs the GIL: who holds it may touch the seats of those who wait for it (`seat`).
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use super::asgi::Asgi;
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
