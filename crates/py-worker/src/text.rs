//! Strings between bytes and Python: latin-1, as PEP 3333 has it ("native strings").
#![allow(unsafe_code)]

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{PyResult, ffi};

/// A Python string of the same code points as `bytes`.
pub(crate) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: pointer and length are those of a live slice (at most `isize::MAX`, as every slice); the function gives
    // a new reference to a str, or null with an exception set, which is what `from_owned_ptr_or_err` takes.
    unsafe {
        let made =
            ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), bytes.len().cast_signed(), std::ptr::null());
        Ok(Bound::from_owned_ptr_or_err(py, made)?.cast_into_unchecked())
    }
}

/// Hands the latin-1 bytes of `text` to `take`; `what` names it in the error.
pub(crate) fn with_latin1<R>(
    text: &Bound<'_, PyString>,
    what: &'static str,
    take: impl FnOnce(&[u8]) -> PyResult<R>,
) -> PyResult<R> {
    let utf8 = text.to_str()?;
    if utf8.is_ascii() {
        return take(utf8.as_bytes());
    }
    let bytes: Result<Vec<u8>, _> = utf8.chars().map(|c| u8::try_from(u32::from(c))).collect();
    match bytes {
        Ok(bytes) => take(&bytes),
        Err(_) => Err(PyValueError::new_err(format!(
            "{what} has characters that are not latin-1 (PEP 3333, \"A Note on String Types\"): {utf8:?}"
        ))),
    }
}

/// What may stand where in a header, one look-up a byte.
static CLASSES: [u8; 256] = classes();
const TOKEN: u8 = 1;
const VALUE: u8 = 2;

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        // RFC 9110, 5.5: field-content is HTAB, SP, visible and obs-text.
        if byte == 0x09 || (byte >= 0x20 && byte != 0x7f) {
            classes[byte] |= VALUE;
        }
        byte += 1;
    }
    // RFC 9110, 5.6.2: tchar.
    let token = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut at = 0;
    while at < token.len() {
        classes[token[at] as usize] |= TOKEN;
        at += 1;
    }
    classes
}

fn all_of(bytes: &[u8], class: u8) -> bool {
    // An index by a byte is always within 256 entries.
    bytes.iter().all(|&byte| CLASSES.get(usize::from(byte)).is_some_and(|found| found & class != 0))
}

/// A token (RFC 9110, 5.6.2)?
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all_of(bytes, TOKEN)
}

/// No control character but the tab (RFC 9110, 5.5)?
pub(crate) fn is_field_value(bytes: &[u8]) -> bool {
    all_of(bytes, VALUE)
}

/// Appends `encoded` with its percent escapes decoded; what is no escape stays as it is.
pub(crate) fn percent_decode(encoded: &[u8], out: &mut Vec<u8>) {
    let mut rest = encoded;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        let digits = match behind {
            [high, low, ..] if byte == b'%' => {
                char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16))
            }
            _ => None,
        };
        match digits {
            Some((high, low)) => {
                // Two hexadecimal digits: below 256.
                out.push((high * 16 + low) as u8);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => out.push(byte),
        }
    }
}

/// The certificates of a chain in PEM, one by one.
pub(crate) fn certificates(chain: &[u8]) -> impl Iterator<Item = &[u8]> {
    const END: &[u8] = b"-----END CERTIFICATE-----\n";
    let mut rest = chain;
    std::iter::from_fn(move || {
        let (one, behind) = rest.split_at_checked(memchr::memmem::find(rest, END)? + END.len())?;
        rest = behind;
        Some(one)
    })
}
