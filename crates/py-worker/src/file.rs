//! `wsgi.file_wrapper`: a file as a response body.
//!
//! When what is read is a plain file of the system, its descriptor goes to the gateway, which sends it without Python;
//! anything else is read in blocks. Plain means that `filelike.read` is the method of an unadorned `io.BufferedReader`,
//! `io.BufferedRandom` or `io.FileIO`: a `GzipFile` or a storage that decrypts also have a `fileno()`, but what they read
//! is not what lies in the file.
#![allow(unsafe_code)]

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

/// Blocks of what lies in memory anyway (`io.BytesIO`), whatever the app asks for.
const MEMORY_BLOCK_BYTES: usize = 256 * 1024;

/// A range of a plain file.
pub(crate) struct Plain {
    pub(crate) file: OwnedFd,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// See the file's head.
#[pyclass(frozen, module = "quintet._core")]
pub(crate) struct FileWrapper {
    #[pyo3(get)]
    filelike: Py<PyAny>,
    block_bytes: usize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, block_size=8192))]
    fn new(filelike: Bound<'_, PyAny>, block_size: usize) -> PyResult<Self> {
        let in_memory = is_one_of(&filelike, &["BytesIO"])?;
        let block_bytes = if in_memory { MEMORY_BLOCK_BYTES } else { block_size.max(1) };
        Ok(Self { filelike: filelike.unbind(), block_bytes })
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let block = self.filelike.bind(py).call_method1(intern!(py, "read"), (self.block_bytes,))?;
        if block.is_truthy()? { Ok(block) } else { Err(PyStopIteration::new_err(())) }
    }

    /// Closes the file, when it can be closed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(close) = self.filelike.bind(py).getattr_opt(intern!(py, "close"))? {
            close.call0()?;
        }
        Ok(())
    }
}

impl FileWrapper {
    /// The descriptor and the range from the current position to the end, if this is a plain file.
    pub(crate) fn plain(&self, py: Python<'_>) -> Option<Plain> {
        // Whatever fails here shows again when the file is read.
        self.find_plain(py).ok().flatten()
    }

    fn find_plain(&self, py: Python<'_>) -> PyResult<Option<Plain>> {
        let read = self.filelike.bind(py).getattr(intern!(py, "read"))?;
        let Some(owner) = read.getattr_opt(intern!(py, "__self__"))? else { return Ok(None) };
        if !is_one_of(&owner, &["BufferedReader", "BufferedRandom", "FileIO"])? {
            return Ok(None);
        }
        // A buffered reader over something other than a file of the system: zipfile's members and the like.
        if let Some(raw) = owner.getattr_opt(intern!(py, "raw"))?
            && !is_one_of(&raw, &["FileIO"])?
        {
            return Ok(None);
        }
        let number: i32 = owner.call_method0(intern!(py, "fileno"))?.extract()?;
        let offset: u64 = owner.call_method0(intern!(py, "tell"))?.extract()?;
        if number < 0 {
            return Ok(None);
        }
        // SAFETY: the descriptor was just named by an open file object that `owner` keeps alive, and it is duplicated
        // before anything else can run in this thread; -1 is excluded above.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let Ok(file) = rustix::io::fcntl_dupfd_cloexec(file, 0) else { return Ok(None) };
        let Ok(facts) = rustix::fs::fstat(file.as_fd()) else { return Ok(None) };
        if !rustix::fs::FileType::from_raw_mode(facts.st_mode).is_file() {
            return Ok(None);
        }
        let size = u64::try_from(facts.st_size).unwrap_or_default();
        Ok(Some(Plain { file, offset, len: size.saturating_sub(offset) }))
    }
}

/// Is `object` of exactly one of these types of `io`?
fn is_one_of(object: &Bound<'_, PyAny>, names: &[&str]) -> PyResult<bool> {
    static IO: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    let io = IO.get_or_try_init(py, || py.import("io").map(|io| io.into_any().unbind()))?.bind(py);
    for name in names {
        if object.get_type().is(&io.getattr(*name)?.cast_into::<PyType>()?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The error for an item of a response that is no bytes.
pub(crate) fn as_bytes<'a, 'py>(item: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    item.cast::<PyBytes>().map_err(|_| {
        let found = item.get_type();
        let hint =
            if found.is(item.py().get_type::<pyo3::types::PyString>()) { "; encode text first" } else { "" };
        pyo3::exceptions::PyTypeError::new_err(format!(
            "the app must give bytes for a response body, not {}{hint} (PEP 3333)",
            found.name().map_or_else(|_| "something else".to_owned(), |name| name.to_string())
        ))
    })
}
