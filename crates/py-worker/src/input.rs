//! `wsgi.input`: the request body as a file to read, wherever it is.
//!
//! In the frame (`Inline`), in an unlinked file whose descriptor came along, or in frames that still arrive. At most one
//! piece is held in memory besides what the app asked for. After the exchange it is detached: an app that has kept it
//! gets an error, never bytes of another request.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyConnectionResetError, PyOSError, PyStopIteration, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt as _;
use pyo3::types::{PyBytes, PyList};
use rustix::io::Errno;

use crate::link::Link;

/// How much of a file is read ahead for lines.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// The input of every request without a body. It has no state, so that one serves all.
#[pyclass(frozen, module = "quintet._core")]
pub(crate) struct EmptyInput;

#[pymethods]
impl EmptyInput {
    #[staticmethod]
    #[pyo3(signature = (_size=None, /))]
    fn read(py: Python<'_>, _size: Option<isize>) -> Bound<'_, PyBytes> {
        PyBytes::new(py, b"")
    }

    #[staticmethod]
    #[pyo3(signature = (_size=None, /))]
    fn readline(py: Python<'_>, _size: Option<isize>) -> Bound<'_, PyBytes> {
        PyBytes::new(py, b"")
    }

    #[staticmethod]
    #[pyo3(signature = (_hint=None, /))]
    fn readlines(py: Python<'_>, _hint: Option<isize>) -> Bound<'_, PyList> {
        PyList::empty(py)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[expect(clippy::unused_self, reason = "the protocol of iterators calls it on an object")]
    fn __next__(&self) -> PyResult<Py<PyAny>> {
        Err(PyStopIteration::new_err(()))
    }
}

/// Where more bytes come from.
enum Source {
    /// All of it was read.
    End,
    File {
        file: OwnedFd,
        offset: u64,
        len: u64,
    },
    Stream {
        link: Arc<Link>,
        left: Option<u64>,
    },
    /// It was announced as a file and came without.
    Lost,
    /// The client went away in the middle of it, or the gateway took the answer for a refusal of the rest.
    BrokenOff,
    /// The exchange is over.
    Detached,
}

struct State {
    /// Received and not yet read: `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    source: Source,
}

/// See the file's head.
#[pyclass(frozen, module = "quintet._core")]
pub(crate) struct Input {
    state: Mutex<State>,
}

impl Input {
    fn new(buffer: Vec<u8>, source: Source) -> Self {
        Self { state: Mutex::new(State { buffer, start: 0, source }) }
    }

    pub(crate) fn inline(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec(), Source::End)
    }

    pub(crate) fn file(file: OwnedFd, len: u64) -> Self {
        Self::new(Vec::new(), Source::File { file, offset: 0, len })
    }

    /// A body that did not arrive.
    pub(crate) fn lost() -> Self {
        Self::new(Vec::new(), Source::Lost)
    }

    pub(crate) fn stream(link: Arc<Link>, len: Option<u64>) -> Self {
        Self::new(Vec::new(), Source::Stream { link, left: len })
    }

    /// The exchange is over.
    pub(crate) fn detach(&self, py: Python<'_>) {
        let mut state = self.lock(py);
        state.source = Source::Detached;
        state.buffer = Vec::new();
        state.start = 0;
    }

    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    fn line<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let most = limit(size);
        let mut state = self.lock(py);
        let mut searched = 0;
        loop {
            let waiting = state.waiting();
            let window = waiting.get(searched..waiting.len().min(most)).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', window) {
                return Ok(state.take(py, searched + at + 1));
            }
            searched += window.len();
            if searched == most || !state.fill(py, READ_AHEAD_BYTES)? {
                return Ok(state.take(py, searched));
            }
        }
    }
}

/// `size` of `read` and `readline`: none or negative means all.
fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

#[pymethods]
impl Input {
    /// Up to `size` bytes; fewer only at the end of the body.
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let most = limit(size);
        let mut state = self.lock(py);
        state.check_attached()?;
        if let Some(bytes) = state.read_file_directly(py, most)? {
            return Ok(bytes);
        }
        while state.waiting().len() < most {
            let missing = most - state.waiting().len();
            if !state.fill(py, missing)? {
                break;
            }
        }
        let count = state.waiting().len().min(most);
        Ok(state.take(py, count))
    }

    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.lock(py).check_attached()?;
        self.line(py, size)
    }

    /// Lines until their bytes reach `hint`; all without one.
    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        self.lock(py).check_attached()?;
        // As io.IOBase.readlines: no hint, zero or less is no limit.
        let enough = limit(hint.filter(|&hint| hint > 0));
        let lines = PyList::empty(py);
        let mut bytes = 0;
        while bytes < enough {
            let line = self.line(py, None)?;
            if line.as_bytes().is_empty() {
                break;
            }
            bytes += line.as_bytes().len();
            lines.append(line)?;
        }
        Ok(lines)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let line = self.readline(py, None)?;
        if line.as_bytes().is_empty() { Err(PyStopIteration::new_err(())) } else { Ok(line) }
    }
}

impl State {
    fn check_attached(&self) -> PyResult<()> {
        match self.source {
            Source::Detached => {
                Err(PyValueError::new_err("wsgi.input was read after the request it belongs to had ended"))
            }
            Source::Lost => Err(cannot_read(Errno::MFILE)),
            Source::BrokenOff => Err(broken_off()),
            _ => Ok(()),
        }
    }

    fn waiting(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn take<'py>(&mut self, py: Python<'py>, count: usize) -> Bound<'py, PyBytes> {
        let bytes = PyBytes::new(py, self.waiting().get(..count).unwrap_or_default());
        self.start += count;
        if self.start >= self.buffer.len() {
            self.start = 0;
            self.buffer.clear();
        }
        bytes
    }

    /// A large piece of a file goes straight into the bytes object.
    fn read_file_directly<'py>(
        &mut self,
        py: Python<'py>,
        most: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let nothing_waits = self.waiting().is_empty();
        let Source::File { file, offset, len } = &mut self.source else { return Ok(None) };
        if !nothing_waits {
            return Ok(None);
        }
        let count = usize::try_from(*len - *offset).unwrap_or(usize::MAX).min(most);
        let bytes = PyBytes::new_with(py, count, |space| {
            py.detach(|| read_exactly(file, *offset, space)).map_err(cannot_read)
        })?;
        *offset += count as u64;
        Ok(Some(bytes))
    }

    /// Appends at least a byte, unless the body has ended. `wanted` is a hint.
    fn fill(&mut self, py: Python<'_>, wanted: usize) -> PyResult<bool> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let Self { buffer, source, .. } = self;
        match source {
            Source::End => Ok(false),
            Source::Lost | Source::BrokenOff | Source::Detached => {
                self.check_attached()?;
                Ok(false)
            }
            Source::File { file, offset, len } => {
                let count = usize::try_from(*len - *offset).unwrap_or(usize::MAX).min(READ_AHEAD_BYTES);
                let before = buffer.len();
                buffer.resize(before + count, 0);
                let space = buffer.get_mut(before..).unwrap_or_default();
                py.detach(|| read_exactly(file, *offset, space)).map_err(cannot_read)?;
                *offset += count as u64;
                Ok(count > 0)
            }
            Source::Stream { link, left } => {
                if *left == Some(0) {
                    *source = Source::End;
                    return Ok(false);
                }
                let before = buffer.len();
                buffer.reserve(wanted.min(READ_AHEAD_BYTES));
                let mut ended = false;
                while buffer.len() == before && !ended {
                    let received = link.body_piece(py, |piece, end| {
                        buffer.extend_from_slice(piece);
                        ended = end;
                    });
                    if received.is_err() {
                        *source = Source::BrokenOff;
                        return Err(broken_off());
                    }
                }
                let got = buffer.len() - before;
                let short = left.is_some_and(|left| ended && (got as u64) < left);
                *left = left.map(|left| left.saturating_sub(got as u64));
                if ended {
                    *source = Source::End;
                }
                if short {
                    return Err(PyConnectionResetError::new_err(
                        "the request body is shorter than its Content-Length",
                    ));
                }
                Ok(got > 0)
            }
        }
    }
}

fn broken_off() -> PyErr {
    PyConnectionResetError::new_err("the client went away before its request body was complete")
}

fn cannot_read(errno: Errno) -> PyErr {
    PyOSError::new_err((errno.raw_os_error(), "the spooled request body could not be read"))
}

pub(crate) fn read_exactly(file: &OwnedFd, mut offset: u64, mut space: &mut [u8]) -> Result<(), Errno> {
    while !space.is_empty() {
        match rustix::io::pread(file, &mut *space, offset) {
            // The gateway said how long the file is.
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                offset += count as u64;
                space = space.get_mut(count..).unwrap_or_default();
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
