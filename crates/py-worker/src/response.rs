//! `start_response` and the `write` it gives: PEP 3333, "The `start_response()` Callable".
//!
//! Both are objects of one exchange; when the app has not kept them, the slot uses them again for the next.
#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyBrokenPipeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt as _;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::file::as_bytes;
use crate::link::Link;
use crate::outgoing::{Outgoing, Stage};
use crate::text::{is_field_value, is_token, with_latin1};

/// Names of headers and reason phrases: the link has 16 bits for their length, and nobody needs more than this.
pub(crate) const NAME_BYTES_MAX: usize = 1024;

/// What both objects and the slot share.
pub(crate) struct Shared {
    pub(crate) link: Arc<Link>,
    outgoing: Mutex<Outgoing>,
}

impl Shared {
    pub(crate) fn outgoing(&self, py: Python<'_>) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The callable an app gets as its second argument.
#[pyclass(frozen, module = "quintet._core")]
pub(crate) struct StartResponse {
    shared: Arc<Shared>,
    write: Py<Write>,
}

/// The imperative way out, for apps that need it.
#[pyclass(frozen, module = "quintet._core")]
pub(crate) struct Write {
    shared: Arc<Shared>,
}

impl StartResponse {
    pub(crate) fn new(py: Python<'_>, link: Arc<Link>) -> PyResult<Py<Self>> {
        let shared = Arc::new(Shared { link, outgoing: Mutex::new(Outgoing::new()) });
        let write = Py::new(py, Write { shared: Arc::clone(&shared) })?;
        Py::new(py, Self { shared, write })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Do its frames go to this stream?
    pub(crate) fn is_for(&self, link: &Arc<Link>) -> bool {
        Arc::ptr_eq(&self.shared.link, link)
    }

    /// Does nobody but us know `start` and its `write`?
    pub(crate) fn is_ours_alone(_py: Python<'_>, start: &Py<Self>) -> bool {
        // SAFETY: both pointers are those of live objects that `start` keeps, and the GIL is held (`_py`).
        unsafe {
            pyo3::ffi::Py_REFCNT(start.as_ptr()) == 1 && pyo3::ffi::Py_REFCNT(start.get().write.as_ptr()) == 1
        }
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info=None, /))]
    fn __call__(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Write>> {
        // Before anything is locked: making a list of something else may run the app's code.
        let headers = match headers.cast_exact::<PyList>() {
            Ok(list) => list.clone(),
            Err(_) => headers
                .try_iter()
                .and_then(Iterator::collect::<PyResult<Vec<_>>>)
                .and_then(|pairs| PyList::new(py, pairs))
                .map_err(|_| PyTypeError::new_err("the headers must be a list of (name, value) tuples"))?,
        };
        let mut outgoing = self.shared.outgoing(py);
        match (outgoing.stage(), exc_info) {
            (Stage::Fresh, _) | (Stage::Set, Some(_)) => {}
            (Stage::Set | Stage::Sent | Stage::Complete, None) => {
                return Err(PyRuntimeError::new_err(
                    "start_response was called a second time without exc_info (PEP 3333)",
                ));
            }
            (Stage::Sent | Stage::Complete, Some(exc_info)) => {
                drop(outgoing);
                return Err(raised(exc_info)?);
            }
            (Stage::Over, _) => {
                return Err(PyRuntimeError::new_err(
                    "start_response was called after the request it belongs to had ended",
                ));
            }
        }
        set_head(&mut outgoing, status, &headers)?;
        Ok(self.write.clone_ref(py))
    }
}

#[pymethods]
impl Write {
    #[pyo3(signature = (data, /))]
    fn __call__(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = as_bytes(data)?.as_bytes();
        let mut outgoing = self.shared.outgoing(py);
        if matches!(outgoing.stage(), Stage::Complete | Stage::Over) {
            return Err(PyRuntimeError::new_err(
                "write() was called after the request it belongs to had ended",
            ));
        }
        if !outgoing.is_bodyless() && outgoing.left().is_some_and(|left| left < data.len() as u64) {
            return Err(PyValueError::new_err("write() was given more bytes than the Content-Length says"));
        }
        if data.is_empty() {
            return Ok(());
        }
        let sent = outgoing.transmit(py, &self.shared.link, data);
        if sent.is_err() || self.shared.link.poll_gone(py) {
            return Err(PyBrokenPipeError::new_err("the client went away"));
        }
        Ok(())
    }
}

/// The exception inside an `exc_info` triple, with its traceback.
fn raised(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let py = exc_info.py();
    let triple = exc_info.cast::<PyTuple>().map_err(|_| PyTypeError::new_err("exc_info is no tuple"))?;
    let (value, traceback) = (triple.get_item(1)?, triple.get_item(2)?);
    let value = if traceback.is_none() {
        value
    } else {
        value.call_method1(intern!(py, "with_traceback"), (traceback,))?
    };
    Ok(PyErr::from_value(value))
}

fn set_head(outgoing: &mut Outgoing, status: &Bound<'_, PyAny>, headers: &Bound<'_, PyList>) -> PyResult<()> {
    let status = status.cast::<PyString>().map_err(|_| PyTypeError::new_err("the status must be a str"))?;
    with_latin1(status, "the status", |status| {
        let (code, reason) = parse_status(status)?;
        outgoing.begin_head(code, reason);
        Ok(())
    })?;
    let mut declared = None;
    for pair in headers.iter() {
        set_header(outgoing, &pair, &mut declared)?;
    }
    outgoing.commit_head(declared);
    Ok(())
}

/// `200 OK` in its parts.
fn parse_status(status: &[u8]) -> PyResult<(u16, &[u8])> {
    let wrong =
        |why: &str| PyValueError::new_err(format!("the status {:?} {why}", String::from_utf8_lossy(status)));
    let (code, reason) = match status {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] => {
            let digit = |byte: &u8| u16::from(byte - b'0');
            (digit(a) * 100 + digit(b) * 10 + digit(c), rest)
        }
        _ => return Err(wrong("does not begin with three digits")),
    };
    // RFC 9110, 15.2: informational responses come before the final one, for which start_response has no way.
    if code < 200 {
        return Err(wrong("is none an app can give: final ones begin at 200"));
    }
    let reason = match reason {
        [] => reason,
        [b' ', reason @ ..] => reason,
        _ => return Err(wrong("has no space behind its three digits")),
    };
    // RFC 9112, 4: reason-phrase = HTAB, SP, visible and obs-text. The link takes 16 bits of length.
    if !is_field_value(reason) || reason.len() > NAME_BYTES_MAX {
        return Err(wrong("has control characters or is too long"));
    }
    Ok((code, reason))
}

fn set_header(outgoing: &mut Outgoing, pair: &Bound<'_, PyAny>, declared: &mut Option<u64>) -> PyResult<()> {
    let wrong = || PyTypeError::new_err("a header must be a tuple of two str: (name, value)");
    let pair = pair.cast::<PyTuple>().map_err(|_| wrong())?;
    if pair.len() != 2 {
        return Err(wrong());
    }
    let (name, value) = (pair.get_borrowed_item(0)?, pair.get_borrowed_item(1)?);
    let (name, value) =
        (name.cast::<PyString>().map_err(|_| wrong())?, value.cast::<PyString>().map_err(|_| wrong())?);
    with_latin1(&name, "a header's name", |name| {
        with_latin1(&value, "a header's value", |value| {
            check_header(name, value, declared)?;
            // What belongs to the connection is the server's business. PEP 3333 forbids it to apps, but views that set
            // `Connection: keep-alive` on an event stream are common and work elsewhere: it is dropped, as gunicorn does.
            if is_hop_by_hop(name) || outgoing.header(name, value) {
                Ok(())
            } else {
                Err(PyValueError::new_err("the response has more headers than fit (256 KiB, 65,535 fields)"))
            }
        })
    })
}

fn check_header(name: &[u8], value: &[u8], declared: &mut Option<u64>) -> PyResult<()> {
    let shown = String::from_utf8_lossy;
    if name.len() > NAME_BYTES_MAX || !is_token(name) {
        return Err(PyValueError::new_err(format!("{:?} is no name for a header", shown(name))));
    }
    if !is_field_value(value) {
        return Err(PyValueError::new_err(format!(
            "the value of header {} has control characters: {:?}",
            shown(name),
            shown(value)
        )));
    }
    if name.len() == 14 && name.eq_ignore_ascii_case(b"content-length") {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        if length.is_none() || declared.is_some() {
            return Err(PyValueError::new_err(format!(
                "{:?} is no Content-Length, or a second one",
                shown(value)
            )));
        }
        *declared = length;
    }
    Ok(())
}

/// RFC 2616, 13.5.1, which PEP 3333 refers to; the first byte decides for most names.
pub(crate) fn is_hop_by_hop(name: &[u8]) -> bool {
    match name.first().map(u8::to_ascii_lowercase) {
        Some(b'c') => name.eq_ignore_ascii_case(b"connection"),
        Some(b'k') => name.eq_ignore_ascii_case(b"keep-alive"),
        Some(b'p') => {
            name.eq_ignore_ascii_case(b"proxy-authenticate")
                || name.eq_ignore_ascii_case(b"proxy-authorization")
        }
        Some(b't') => {
            name.eq_ignore_ascii_case(b"te")
                || name.eq_ignore_ascii_case(b"trailers")
                || name.eq_ignore_ascii_case(b"transfer-encoding")
        }
        Some(b'u') => name.eq_ignore_ascii_case(b"upgrade"),
        _ => false,
    }
}
