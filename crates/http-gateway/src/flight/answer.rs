//! An answer that is given more than once.

use bytes::Bytes;

use super::same::may_share;
use crate::message::{AnsweredBy, Body, Headers, RequestHead, Response, Trail};
use crate::spool::{BodyStream, Piece};

/// All of an answer, and who asked for it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    reason: Box<[u8]>,
    headers: Headers,
    body: Box<[Piece]>,
    by: AnsweredBy,
    /// The request that it answers.
    asked: Option<RequestHead>,
}

impl Answer {
    /// What is said before the body. `asked`: what it answers, where others may ask for the same.
    pub(crate) fn new(response: &Response, asked: Option<RequestHead>) -> Self {
        Self {
            status: response.status,
            reason: response.reason.clone(),
            headers: response.headers.clone(),
            body: Box::default(),
            by: response.trail.by,
            asked,
        }
    }

    /// And the body.
    pub(crate) fn with(self, body: Vec<Piece>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The same for a long time: in memory of its own, without who asked. `None`: its body is too long, or a file.
    pub(crate) fn to_keep(&self, body_bytes_max: u64) -> Option<Self> {
        let bytes = self.bytes().filter(|bytes| bytes.len() as u64 <= body_bytes_max)?;
        let body =
            if bytes.is_empty() { Vec::new() } else { vec![Piece::Bytes(Bytes::copy_from_slice(&bytes))] };
        let (reason, mut headers) = (self.reason.clone(), self.headers.clone());
        // The driver says when it is given again (RFC 9110, 6.6.1).
        headers.remove(|name| name.eq_ignore_ascii_case(b"date"));
        Some(Self { status: self.status, reason, headers, body: body.into(), by: self.by, asked: None })
    }

    /// May it be given to who asks for the same with this head?
    pub(crate) fn is_for(&self, other: &RequestHead) -> bool {
        // What the gateway has said itself is nobody's.
        self.by == AnsweredBy::Gateway
            || self.asked.as_ref().is_some_and(|asked| may_share(&self.headers, asked, other))
    }

    /// All of the body, when it is in memory.
    fn bytes(&self) -> Option<Bytes> {
        match &*self.body {
            [] => Some(Bytes::new()),
            [Piece::Bytes(bytes)] => Some(bytes.clone()),
            pieces => {
                let bytes = pieces.iter().map(|piece| match piece {
                    Piece::Bytes(bytes) => Some(&bytes[..]),
                    Piece::File(_) => None,
                });
                Some(Bytes::from(bytes.collect::<Option<Vec<_>>>()?.concat()))
            }
        }
    }

    /// About what it takes of memory.
    pub(crate) fn memory(&self) -> usize {
        let of = |headers: &Headers| {
            headers.iter().map(|(name, value)| name.len() + value.len() + 16).sum::<usize>()
        };
        let body = self.body.iter().map(|piece| match piece {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::File(_) => 0,
        });
        size_of::<Self>() + of(&self.headers) + body.sum::<usize>()
    }

    /// The same answer to another request.
    pub(crate) fn again(&self, trail: &Trail) -> Response {
        let mut trail = trail.clone();
        trail.by = self.by;
        let body = match &*self.body {
            [] => Body::Empty,
            [Piece::Bytes(bytes)] => Body::Bytes(bytes.clone()),
            [Piece::File(file)] => Body::File(file.clone()),
            pieces => Body::Stream(BodyStream::whole(pieces.iter().cloned())),
        };
        let mut headers = self.headers.clone();
        headers.set("X-Request-ID", trail.request_id.as_bytes());
        Response { status: self.status, reason: self.reason.clone(), headers, body, close: false, trail }
    }
}

/// How it is written down: numbers in little endian, each text behind its length.
impl Answer {
    /// Appends it. Its body is one that was kept: in memory.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |bytes: &[u8]| {
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        };
        put(&self.status.to_le_bytes());
        put(&match self.by {
            AnsweredBy::Worker(worker) => worker.to_le_bytes(),
            AnsweredBy::File | AnsweredBy::Upstream | AnsweredBy::Gateway => u32::MAX.to_le_bytes(),
        });
        put(&self.reason);
        put(&self.bytes().unwrap_or_default());
        for (name, value) in self.headers.iter() {
            put(name);
            put(value);
        }
    }

    /// Reads it again. `None`: it is none.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut take = || -> Option<&[u8]> {
            let (len, rest) = bytes.split_first_chunk::<8>()?;
            let (part, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
            bytes = rest;
            Some(part)
        };
        let status = u16::from_le_bytes(take()?.try_into().ok()?);
        let by = match u32::from_le_bytes(take()?.try_into().ok()?) {
            u32::MAX => AnsweredBy::Upstream,
            worker => AnsweredBy::Worker(worker),
        };
        let (reason, body) = (take()?.into(), Bytes::copy_from_slice(take()?));
        let mut headers = Headers::default();
        while let Some(name) = take() {
            headers.push(name, take()?);
        }
        let body = if body.is_empty() { Vec::new() } else { vec![Piece::Bytes(body)] };
        let is_whole = bytes.is_empty() && (200..600).contains(&status);
        is_whole.then(|| Self { status, reason, headers, body: body.into(), by, asked: None })
    }
}
