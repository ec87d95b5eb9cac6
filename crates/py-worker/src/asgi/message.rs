//! Reading the messages that apps send: what keys they have, and what may stand in them.

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyMemoryView, PyString, PyTuple};

use crate::response::{NAME_BYTES_MAX, is_hop_by_hop};
use crate::text::{is_field_value, is_token};

/// Room for a head: a quarter of a frame. The gateway's own limits are far below.
pub(crate) const HEAD_BYTES_MAX: usize = 256 * 1024;
/// What a field takes in a frame besides its bytes: two lengths.
pub(crate) const FIELD_BYTES: usize = 6;

/// A message of the app.
pub(crate) struct Message<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    /// Its type.
    pub(crate) kind: Bound<'py, PyString>,
}

impl<'a, 'py> Message<'a, 'py> {
    /// Checks that it is a dict with a type.
    pub(crate) fn read(message: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let py = message.py();
        let dict = message.cast::<PyDict>().map_err(|_| {
            PyTypeError::new_err(format!("an ASGI message must be a dict, not {}", type_name(message)))
        })?;
        let kind = dict
            .get_item(intern!(py, "type"))?
            .ok_or_else(|| PyTypeError::new_err("an ASGI message must have a 'type'"))?;
        let kind = kind.cast_into::<PyString>().map_err(|error| {
            PyTypeError::new_err(format!(
                "the type of an ASGI message must be a str, not {}",
                type_name(&error.into_inner())
            ))
        })?;
        Ok(Self { dict, kind })
    }

    /// A message of the denial extension, as the message of a response that it is.
    pub(crate) fn denial(&self) -> Self {
        let kind = match self.kind.to_str() {
            Ok("websocket.http.response.start") => intern!(self.kind.py(), "http.response.start").clone(),
            Ok("websocket.http.response.body") => intern!(self.kind.py(), "http.response.body").clone(),
            _ => self.kind.clone(),
        };
        Self { dict: self.dict, kind }
    }

    pub(crate) fn get(&self, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.dict.get_item(key)?.filter(|value| !value.is_none()))
    }

    pub(crate) fn flag(&self, key: &Bound<'py, PyString>) -> PyResult<bool> {
        self.get(key)?.map_or(Ok(false), |value| value.is_truthy())
    }

    /// Bytes; none when the key is missing.
    pub(crate) fn bytes(&self, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(value) = self.get(key)? else { return Ok(None) };
        match value.cast_into::<PyBytes>() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => as_bytes(&error.into_inner(), key).map(Some),
        }
    }

    pub(crate) fn text(&self, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyString>>> {
        let Some(value) = self.get(key)? else { return Ok(None) };
        value.cast_into::<PyString>().map(Some).map_err(|error| wrong(key, "a str", &error.into_inner()))
    }

    pub(crate) fn integer<T: FromPyObjectOwned<'py>>(
        &self,
        key: &Bound<'py, PyString>,
    ) -> PyResult<Option<T>> {
        let Some(value) = self.get(key)? else { return Ok(None) };
        value.extract().map(Some).map_err(|_| wrong(key, "an int in range", &value))
    }

    /// Hands each header to `take`: checked name and value.
    pub(crate) fn headers(&self, mut take: impl FnMut(&[u8], &[u8]) -> PyResult<()>) -> PyResult<()> {
        let Some(headers) = self.get(intern!(self.kind.py(), "headers"))? else { return Ok(()) };
        let mut total = 0;
        for pair in headers.try_iter()? {
            let pair = pair?;
            let (name, value) = match pair.cast::<PyTuple>() {
                Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, pair.get_item(1)?),
                _ => pair.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>().or_else(|_| two(&pair))?,
            };
            let name = header_bytes(&name)?;
            let value = header_bytes(&value)?;
            let (name, value) = (name.as_bytes(), value.as_bytes());
            // The texts are uvicorn's, which people search for.
            if name.len() > NAME_BYTES_MAX || !is_token(name) {
                return Err(PyRuntimeError::new_err("Invalid HTTP header name."));
            }
            if !is_field_value(value) {
                return Err(PyRuntimeError::new_err("Invalid HTTP header value."));
            }
            total += name.len() + value.len() + FIELD_BYTES;
            if total > HEAD_BYTES_MAX {
                return Err(PyRuntimeError::new_err("the headers are longer than 256 KiB"));
            }
            // What belongs to the connection is the server's business.
            if !is_hop_by_hop(name) {
                take(name, value)?;
            }
        }
        Ok(())
    }
}

/// A pair that is a list.
fn two<'py>(pair: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let items: Vec<Bound<'py, PyAny>> = pair.try_iter()?.collect::<PyResult<_>>()?;
    match <[_; 2]>::try_from(items) {
        Ok([name, value]) => Ok((name, value)),
        Err(_) => Err(PyTypeError::new_err("a header must be a pair of two bytes: [name, value]")),
    }
}

fn header_bytes<'py>(part: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    part.cast::<PyBytes>().cloned().map_err(|_| {
        PyTypeError::new_err(format!("a header must be a pair of two bytes, not of {}", type_name(part)))
    })
}

/// Other objects of bytes, copied.
fn as_bytes<'py>(value: &Bound<'py, PyAny>, key: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(array) = value.cast::<PyByteArray>() {
        return Ok(PyBytes::new(value.py(), &array.to_vec()));
    }
    if let Ok(view) = value.cast::<PyMemoryView>() {
        let bytes = view.call_method0(intern!(value.py(), "tobytes"))?;
        return bytes.cast_into::<PyBytes>().map_err(Into::into);
    }
    Err(wrong(key, "bytes", value))
}

fn wrong(key: &Bound<'_, PyString>, wanted: &str, found: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("{key:?} of an ASGI message must be {wanted}, not {}", type_name(found)))
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string())
}
