//! Reading and writing the fields of a payload. Strings are a length and bytes.

use crate::LinkError;

/// A cursor over a payload; every read is checked.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// What is being read, for the error.
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8], what: &'static str) -> Self {
        Self { rest: payload, what }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], LinkError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(LinkError::Malformed(self.what))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], LinkError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(LinkError::Malformed(self.what))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, LinkError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, LinkError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, LinkError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, LinkError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A string with a 16 bit length.
    pub(crate) fn short(&mut self) -> Result<&'a [u8], LinkError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A string with a 32 bit length.
    pub(crate) fn long(&mut self) -> Result<&'a [u8], LinkError> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn malformed(&self) -> LinkError {
        LinkError::Malformed(self.what)
    }
}

/// Appends a string with a 16 bit length; what is longer is cut (callers bound it before).
pub(crate) fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes.get(..usize::from(len)).unwrap_or(bytes));
}

/// Appends a string with a 32 bit length.
pub(crate) fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}
