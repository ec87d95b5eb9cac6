//! A response on its way out: the head as it is set, then frames.
//!
//! Knows the rules of HTTP about lengths and bodies and how bytes become frames; who calls it is `response` (the app
//! calls us) and `exchange` (we iterate what the app gave).

use std::io::IoSlice;

use py_link::{Flags, Kind, ResponseFile, ResponseHeadWriter, encode_header, encode_response_file};
use pyo3::Python;
use rustix::fd::AsFd as _;

use crate::file::Plain;
use crate::link::{Gone, Link};

/// Bodies are cut into pieces of at most this: large enough that system calls do not matter, small enough that a client
/// that went away is noticed soon and the gateway's buffers stay small.
const PIECE_BYTES_MAX: usize = 256 * 1024;

/// Up to here the first piece is copied behind the head and leaves with it in one plain `send`; above, two slices
/// are cheaper than the copy.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// What the head's buffer keeps between requests.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// `start_response` was not called.
    Fresh,
    /// A head is set and can still be replaced.
    Set,
    /// The head has been sent.
    Sent,
    /// The whole body, too; the frame that ends the exchange is held back.
    Complete,
    /// The last frame has been sent, or never will be.
    Over,
}

/// What a response was cut to or found to be, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As announced.
    Whole,
    /// Fewer bytes than its Content-Length.
    Short,
}

/// One a slot, reused.
pub(crate) struct Outgoing {
    stage: Stage,
    /// The frame of the head, without its header until it is sent.
    out: Vec<u8>,
    head: Option<ResponseHeadWriter>,
    status: u16,
    /// The app's Content-Length, or ours.
    declared: Option<u64>,
    /// The request was a HEAD.
    is_head: bool,
    produced: u64,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Over,
            out: Vec::with_capacity(4096),
            head: None,
            status: 0,
            declared: None,
            is_head: false,
            produced: 0,
        }
    }

    /// For the next exchange.
    pub(crate) fn reset(&mut self, is_head: bool) {
        self.out.clear();
        if self.out.capacity() > KEPT_BYTES_MAX {
            self.out.shrink_to(KEPT_BYTES_MAX);
        }
        self.stage = Stage::Fresh;
        self.head = None;
        self.declared = None;
        self.is_head = is_head;
        self.produced = 0;
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Nothing will be sent any more.
    pub(crate) fn give_up(&mut self) {
        self.stage = Stage::Over;
    }

    /// Begins a head; replaces one that was set before.
    pub(crate) fn begin_head(&mut self, status: u16, reason: &[u8]) {
        self.out.clear();
        self.stage = Stage::Fresh;
        self.status = status;
        self.declared = None;
        self.head = Some(ResponseHeadWriter::start(&mut self.out, status, reason));
    }

    /// Appends a header, already checked. False: there is no room for it.
    pub(crate) fn header(&mut self, name: &[u8], value: &[u8]) -> bool {
        let Some(head) = &mut self.head else { return false };
        // Half a frame for the head: the gateway's own limits are far below.
        if self.out.len() + name.len() + value.len() > PIECE_BYTES_MAX || head.count() == u16::MAX {
            return false;
        }
        head.header(&mut self.out, name, value);
        true
    }

    /// The head is complete and may be sent with the first byte of the body.
    pub(crate) fn commit_head(&mut self, declared: Option<u64>) {
        self.declared = declared;
        self.stage = Stage::Set;
    }

    /// No byte of a body goes out: HEAD, and statuses without content (RFC 9110, 6.4.1).
    pub(crate) fn is_bodyless(&self) -> bool {
        self.is_head || matches!(self.status, 204 | 304)
    }

    /// Bytes the app may still send.
    pub(crate) fn left(&self) -> Option<u64> {
        self.declared.map(|declared| declared.saturating_sub(self.produced))
    }

    /// The whole body is known to have `total` bytes: says so, unless the app did or must not.
    pub(crate) fn know_total(&mut self, total: u64) {
        // RFC 9110, 8.6: none with 204; with HEAD and 304 only what a GET would have given, and an empty body
        // there may just as well mean that the app knows it is not sent.
        let unknowable = matches!(self.status, 204 | 304) || (self.is_head && total == 0);
        if self.stage != Stage::Set || self.declared.is_some() || unknowable {
            return;
        }
        if self.header(b"Content-Length", itoa::Buffer::new().format(total).as_bytes()) {
            self.declared = Some(total);
        }
    }

    /// Sends a piece of the body, and the head before it; more will follow.
    pub(crate) fn transmit(&mut self, py: Python<'_>, link: &Link, data: &[u8]) -> Result<(), Gone> {
        let data = self.cut(data);
        self.frames(py, link, data, Flags::NONE)
    }

    /// Sends the last piece, which may be empty. With `hold_end` the frame that ends the exchange is left to
    /// [`Self::end`].
    pub(crate) fn finish(
        &mut self,
        py: Python<'_>,
        link: &Link,
        data: &[u8],
        hold_end: bool,
    ) -> Result<Ended, Gone> {
        let data = self.cut(data);
        let short = !self.is_bodyless() && self.left().is_some_and(|left| left > data.len() as u64);
        let (flags, ended) = if short { (Flags::ABORT, Ended::Short) } else { (Flags::END, Ended::Whole) };
        if hold_end && !short {
            self.frames(py, link, data, Flags::NONE)?;
            self.stage = Stage::Complete;
        } else {
            self.frames(py, link, data, flags)?;
            self.stage = Stage::Over;
        }
        Ok(ended)
    }

    /// The last frame, if it has not been sent: END after the whole body, ABORT after less.
    pub(crate) fn end(&mut self, py: Python<'_>, link: &Link) -> Result<(), Gone> {
        let flags = match self.stage {
            Stage::Complete => Flags::END,
            Stage::Sent => Flags::ABORT,
            Stage::Fresh | Stage::Set | Stage::Over => return Ok(()),
        };
        self.stage = Stage::Over;
        link.send(py, &mut [IoSlice::new(&encode_header(Kind::ResponseBody, flags, 0))], None)
    }

    /// Sends a file as the rest of the body, and ends the exchange.
    pub(crate) fn finish_file(&mut self, py: Python<'_>, link: &Link, plain: &Plain) -> Result<Ended, Gone> {
        self.know_total(plain.len);
        let len = self.left().map_or(plain.len, |left| left.min(plain.len));
        if len == 0 || self.is_bodyless() {
            return self.finish(py, link, &[], false);
        }
        self.frames(py, link, &[], Flags::NONE)?;
        let short = self.left().is_some_and(|left| left > len);
        let (flags, ended) = if short { (Flags::ABORT, Ended::Short) } else { (Flags::END, Ended::Whole) };
        let mut payload = Vec::with_capacity(16);
        encode_response_file(&mut payload, ResponseFile { offset: plain.offset, len });
        let header = encode_header(Kind::ResponseFile, flags, payload.len() as u32);
        self.produced += len;
        self.stage = Stage::Over;
        let mut slices = [IoSlice::new(&header), IoSlice::new(&payload)];
        link.send(py, &mut slices, Some(plain.file.as_fd()))?;
        Ok(ended)
    }

    /// What of `data` is sent: nothing for a bodyless response, nothing beyond the announced length (PEP 3333,
    /// "Handling the Content-Length Header").
    fn cut<'d>(&self, data: &'d [u8]) -> &'d [u8] {
        if self.is_bodyless() {
            return &[];
        }
        match self.left().and_then(|left| usize::try_from(left).ok()) {
            Some(left) => data.get(..left).unwrap_or(data),
            None => data,
        }
    }

    fn frames(&mut self, py: Python<'_>, link: &Link, data: &[u8], last: Flags) -> Result<(), Gone> {
        self.produced += data.len() as u64;
        let mut rest = data;
        if let Some(head) = self.head.take() {
            let (first, behind) = rest.split_at(rest.len().min(PIECE_BYTES_MAX));
            rest = behind;
            let flags = if rest.is_empty() { last } else { Flags::NONE };
            self.stage = Stage::Sent;
            if first.len() <= COPY_BYTES_MAX {
                self.out.extend_from_slice(first);
                head.finish(&mut self.out, 0, flags);
                link.send(py, &mut [IoSlice::new(&self.out)], None)?;
            } else {
                head.finish(&mut self.out, first.len(), flags);
                link.send(py, &mut [IoSlice::new(&self.out), IoSlice::new(first)], None)?;
            }
            if rest.is_empty() {
                return Ok(());
            }
        }
        loop {
            let (piece, behind) = rest.split_at(rest.len().min(PIECE_BYTES_MAX));
            rest = behind;
            let flags = if rest.is_empty() { last } else { Flags::NONE };
            let header = encode_header(Kind::ResponseBody, flags, piece.len() as u32);
            if !piece.is_empty() || flags != Flags::NONE {
                link.send(py, &mut [IoSlice::new(&header), IoSlice::new(piece)], None)?;
            }
            if rest.is_empty() {
                return Ok(());
            }
            if link.poll_gone(py) {
                return Err(Gone);
            }
        }
    }
}
