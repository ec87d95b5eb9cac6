//! `http.response.pathsend` and `http.response.zerocopysend`: a file as a descriptor, which the gateway sends.
#![allow(unsafe_code)]

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use py_link::ResponseFile;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::asgi::message::Message;

/// The file of a pathsend message, whole.
pub(crate) fn open_path(message: &Message<'_, '_>) -> PyResult<(OwnedFd, ResponseFile)> {
    let path: PathBuf = match message.get(intern!(message.kind.py(), "path"))? {
        Some(path) => path.extract()?,
        None => return Err(PyRuntimeError::new_err("'http.response.pathsend' must have a 'path'")),
    };
    // "The path must be absolute": a relative one would depend on where the server was started.
    if !path.is_absolute() {
        return Err(PyRuntimeError::new_err("the 'path' of 'http.response.pathsend' must be absolute"));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let failed =
        |errno: Errno| PyOSError::new_err((errno.raw_os_error(), "the file cannot be opened", path.clone()));
    let file = rustix::fs::open(&path, flags, Mode::empty()).map_err(failed)?;
    let len = size_of(&file).map_err(failed)?;
    Ok((file, ResponseFile { offset: 0, len }))
}

/// The descriptor of a zerocopysend message, and which part of it.
pub(crate) fn range_of(message: &Message<'_, '_>) -> PyResult<(OwnedFd, ResponseFile)> {
    let py = message.kind.py();
    let wrong = || {
        PyRuntimeError::new_err(
            "'http.response.zerocopysend' must have a 'file': a descriptor, or an open file",
        )
    };
    let given = message.get(intern!(py, "file"))?.ok_or_else(wrong)?;
    let number: i32 = match given.extract() {
        Ok(number) => number,
        Err(_) => given.call_method0(intern!(py, "fileno"))?.extract()?,
    };
    if number < 0 {
        return Err(wrong());
    }
    // SAFETY: the app says that this is an open descriptor. It is duplicated before anything else can run in this thread;
    // a number that is not open makes the call fail. -1 is excluded above.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let failed = |errno: Errno| PyOSError::new_err((errno.raw_os_error(), "the file cannot be sent"));
    let file = rustix::io::fcntl_dupfd_cloexec(file, 0).map_err(failed)?;
    let size = size_of(&file).map_err(failed)?;
    let offset: u64 = match message.integer(intern!(py, "offset"))? {
        Some(offset) => offset,
        // "If omitted, from the current position."
        None => rustix::fs::tell(&file).map_err(failed)?,
    };
    let behind = size.saturating_sub(offset);
    let len = message.integer::<u64>(intern!(py, "count"))?.map_or(behind, |count| count.min(behind));
    if message.get(intern!(py, "offset"))?.is_none() {
        // As sendfile(2) without an offset: the next message without one goes on behind this.
        let _only_for_the_next = rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(offset + len));
    }
    Ok((file, ResponseFile { offset, len }))
}

fn size_of(file: &OwnedFd) -> Result<u64, Errno> {
    let facts = rustix::fs::fstat(file.as_fd())?;
    // The gateway sends ranges of files; a pipe or a device has none.
    if !FileType::from_raw_mode(facts.st_mode).is_file() {
        return Err(Errno::INVAL);
    }
    Ok(u64::try_from(facts.st_size).unwrap_or_default())
}
