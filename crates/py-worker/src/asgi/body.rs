//! The body of a request on its way to `receive()`: in the frame, in a file, or in frames that still arrive.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use py_link::{Body, Flags};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::io::Errno;

use crate::input::read_exactly;

/// A file is read in pieces of this.
const PIECE_BYTES: usize = 64 * 1024;

/// So much of a streamed body may wait for the app; then the gateway is kept waiting.
const WAITING_BYTES_MAX: usize = 64 * 1024;

enum Source {
    /// No more comes.
    End,
    /// In an unlinked file.
    File { file: OwnedFd, offset: u64, len: u64 },
    /// In frames.
    Stream,
    /// The client has broken it off, or the gateway has: the app has answered, and needs no more of it.
    Broken,
    /// It was announced as a file and came without (out of descriptors): the app must see an error, not an empty body.
    Lost,
}

/// See the file's head.
pub(crate) struct RequestBody {
    waiting: VecDeque<Py<PyBytes>>,
    waiting_bytes: usize,
    source: Source,
    /// The app has been given the last piece.
    is_over: bool,
}

impl RequestBody {
    pub(crate) fn new(py: Python<'_>, body: Body<'_>, file: Option<OwnedFd>) -> Self {
        let mut waiting = VecDeque::new();
        let source = match (body, file) {
            (Body::None, _) => Source::End,
            (Body::Inline(bytes), _) => {
                waiting.push_back(PyBytes::new(py, bytes).unbind());
                Source::End
            }
            (Body::File { len }, Some(file)) => Source::File { file, offset: 0, len },
            (Body::File { .. }, None) => Source::Lost,
            (Body::Stream { .. }, _) => Source::Stream,
        };
        Self { waiting, waiting_bytes: 0, source, is_over: false }
    }

    /// A request without one.
    pub(crate) fn none() -> Self {
        Self { waiting: VecDeque::new(), waiting_bytes: 0, source: Source::End, is_over: false }
    }

    /// The app has all of it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Frames of it may still come.
    pub(crate) fn is_coming(&self) -> bool {
        matches!(self.source, Source::Stream)
    }

    /// Enough waits: no more frames now.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting_bytes >= WAITING_BYTES_MAX
    }

    /// A frame of it has come.
    pub(crate) fn arrived(&mut self, py: Python<'_>, piece: &[u8], flags: Flags) {
        if !self.is_coming() {
            return;
        }
        if !piece.is_empty() {
            self.waiting.push_back(PyBytes::new(py, piece).unbind());
            self.waiting_bytes += piece.len();
        }
        if flags.is_end() {
            self.source = Source::End;
        }
    }

    /// No more will come, and it is not complete.
    pub(crate) fn break_off(&mut self) {
        if self.is_coming() {
            self.source = Source::Broken;
        }
    }

    /// It ends here, before its end. What has come is still given.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.source, Source::Broken) && self.waiting.is_empty()
    }

    /// Nobody will ask for the rest.
    pub(crate) fn forget(&mut self) {
        self.source = Source::End;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.is_over = true;
    }

    /// The next piece, and whether more will come; `None`: it has to be waited for. Not to be called after the last.
    pub(crate) fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyBytes>, bool)>> {
        if let Some(piece) = self.waiting.pop_front() {
            let piece = piece.into_bound(py);
            self.waiting_bytes = self.waiting_bytes.saturating_sub(piece.as_bytes().len());
            self.is_over = self.waiting.is_empty() && matches!(self.source, Source::End);
            return Ok(Some((piece, !self.is_over)));
        }
        match &mut self.source {
            Source::End => {
                self.is_over = true;
                Ok(Some((PyBytes::new(py, b""), false)))
            }
            Source::Stream | Source::Broken => Ok(None),
            Source::Lost => Err(cannot_read(Errno::MFILE)),
            Source::File { file, offset, len } => {
                let count = usize::try_from(*len - *offset).unwrap_or(usize::MAX).min(PIECE_BYTES);
                // It has just been written: the system has it in memory.
                let piece = PyBytes::new_with(py, count, |space| {
                    read_exactly(file, *offset, space).map_err(cannot_read)
                })?;
                *offset += count as u64;
                self.is_over = offset == len;
                Ok(Some((piece, !self.is_over)))
            }
        }
    }
}

fn cannot_read(errno: Errno) -> PyErr {
    PyOSError::new_err((errno.raw_os_error(), "the spooled request body could not be read"))
}
