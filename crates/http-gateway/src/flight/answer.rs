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
        let (reason, headers) = (self.reason.clone(), self.headers.clone());
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
