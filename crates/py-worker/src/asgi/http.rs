//! An HTTP exchange as ASGI tells it: `http.request` and `http.disconnect` in, `http.response.*` out.
//!
//! HTTP & WebSocket ASGI message format 2.5. Wrong messages raise what uvicorn raises, word for word where it says
//! something: people search for these texts. Knows no sockets: what is to be sent goes into [`Outbound`].

use std::os::fd::OwnedFd;

use py_link::{Flags, Kind, ResponseFile, ResponseHeadWriter, long};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::asgi::body::RequestBody;
use crate::asgi::files::{open_path, range_of};
use crate::asgi::message::{FIELD_BYTES, HEAD_BYTES_MAX, Message};
use crate::asgi::outbound::{Data, Lead, Outbound};

/// How far the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The app owes its head.
    Fresh,
    /// The head waits for the first message of the body: until then it can be replaced by an error.
    Head,
    /// The head has been sent.
    Body,
    /// The body is complete, the trailers are not.
    Trailers,
    /// All is said, but the frame that ends the exchange waits until the app is done.
    Held,
    /// The exchange is over.
    Over,
}

/// What the exchange does after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing.
    GoOn,
    /// The answer is an event stream: its head may leave the slot.
    Detach,
}

/// The state of one exchange.
pub(crate) struct Http {
    pub(crate) request: RequestBody,
    stage: Stage,
    head: Option<(Vec<u8>, ResponseHeadWriter)>,
    status: u16,
    /// The request was a HEAD.
    is_head: bool,
    /// Bytes of the body that the app has promised and not sent.
    left: Option<u64>,
    is_event_stream: bool,
    has_trailers: bool,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Http {
    pub(crate) fn new(request: RequestBody, is_head: bool) -> Self {
        Self {
            request,
            stage: Stage::Fresh,
            head: None,
            status: 0,
            is_head,
            left: None,
            is_event_stream: false,
            has_trailers: false,
            trailers: Vec::new(),
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// The answer is `text/event-stream`.
    pub(crate) fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    /// All is said; only the end may be held back.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Held | Stage::Over)
    }

    /// A message of the app. With `hold` the frame that ends the exchange is left to [`Self::end`].
    pub(crate) fn send(
        &mut self,
        message: &Message<'_, '_>,
        out: &mut Outbound,
        hold: bool,
    ) -> PyResult<After> {
        let kind = message.kind.to_str()?;
        match (self.stage, kind) {
            (Stage::Fresh, "http.response.start") => self.start(message),
            (Stage::Fresh | Stage::Head, "http.response.early_hint") => {
                early_hint(message, out)?;
                Ok(After::GoOn)
            }
            (Stage::Fresh, _) => Err(expected("http.response.start", kind)),
            (Stage::Head | Stage::Body, "http.response.body") => {
                self.body(message, out, hold)?;
                Ok(After::GoOn)
            }
            (Stage::Head | Stage::Body, "http.response.pathsend") => {
                let (file, range) = open_path(message)?;
                self.file(file, range, false, out, hold)?;
                Ok(After::GoOn)
            }
            (Stage::Head | Stage::Body, "http.response.zerocopysend") => {
                let (file, range) = range_of(message)?;
                let more = message.flag(intern!(message.kind.py(), "more_body"))?;
                self.file(file, range, more, out, hold)?;
                Ok(After::GoOn)
            }
            (Stage::Head | Stage::Body, _) => Err(expected("http.response.body", kind)),
            (Stage::Trailers, "http.response.trailers") => {
                self.more_trailers(message, out, hold)?;
                Ok(After::GoOn)
            }
            (Stage::Trailers, _) => Err(expected("http.response.trailers", kind)),
            (Stage::Held | Stage::Over, _) => Err(PyRuntimeError::new_err(format!(
                "Unexpected ASGI message '{kind}' sent, after response already completed."
            ))),
        }
    }

    fn start(&mut self, message: &Message<'_, '_>) -> PyResult<After> {
        let py = message.kind.py();
        let status: u16 = message
            .integer(intern!(py, "status"))?
            .ok_or_else(|| PyRuntimeError::new_err("'http.response.start' must have a 'status'"))?;
        // RFC 9110, 15: informational responses come before the final one.
        if !(200..=999).contains(&status) {
            return Err(PyRuntimeError::new_err(format!(
                "the status {status} is none an app can give: final ones have three digits and begin at 200"
            )));
        }
        self.begin(status);
        let mut declared = None;
        let mut is_event_stream = false;
        if let Some((out, head)) = &mut self.head {
            message.headers(|name, value| {
                if name.eq_ignore_ascii_case(b"content-length") {
                    declared = Some(content_length(value, declared.is_some())?);
                } else if name.eq_ignore_ascii_case(b"content-type") {
                    is_event_stream |= is_events(value);
                }
                head.header(out, name, value);
                Ok(())
            })?;
        }
        self.stage = Stage::Head;
        self.left = declared;
        self.is_event_stream = is_event_stream && !self.is_bodyless();
        self.has_trailers = message.flag(intern!(py, "trailers"))?;
        Ok(if self.is_event_stream { After::Detach } else { After::GoOn })
    }

    fn begin(&mut self, status: u16) {
        let mut out = Vec::with_capacity(1024);
        let head = ResponseHeadWriter::start(&mut out, status, b"");
        self.head = Some((out, head));
        self.status = status;
    }

    /// The head of an event stream leaves the slot for this stream of the long link.
    pub(crate) fn detach(&mut self, number: u16, out: &mut Outbound) {
        if let Some((head, writer)) = self.head.take() {
            self.stage = Stage::Body;
            out.push(Lead::Detached(head, writer, number), Data::Empty, Flags::NONE);
        }
    }

    /// The head of an event stream leaves without waiting for the first event, so that the client knows that it listens.
    pub(crate) fn send_head(&mut self, out: &mut Outbound) {
        if let Some((head, writer)) = self.head.take() {
            self.stage = Stage::Body;
            out.push(Lead::Head(head, writer), Data::Empty, Flags::NONE);
        }
    }

    fn body(&mut self, message: &Message<'_, '_>, out: &mut Outbound, hold: bool) -> PyResult<()> {
        let py = message.kind.py();
        let body = message.bytes(intern!(py, "body"))?;
        let more = message.flag(intern!(py, "more_body"))?;
        let len = body.as_ref().map_or(0, |body| body.as_bytes().len());
        self.account(len as u64, more)?;
        let data = match body {
            Some(body) if !self.is_bodyless() => Data::Bytes(body.unbind()),
            _ => Data::Empty,
        };
        if !more && self.is_head && self.left.is_none() && self.stage == Stage::Head && len > 0 {
            // RFC 9110, 8.6: with HEAD what a GET would have had, when it is known.
            if let Some((out, head)) = &mut self.head {
                head.header(out, b"content-length", itoa::Buffer::new().format(len).as_bytes());
            }
        }
        self.emit(data, more, out, hold);
        Ok(())
    }

    /// Counts a piece against the Content-Length.
    fn account(&mut self, len: u64, more: bool) -> PyResult<()> {
        let Some(left) = self.left.as_mut().filter(|_| !self.is_head && !matches!(self.status, 204 | 304))
        else {
            return Ok(());
        };
        match left.checked_sub(len) {
            None => Err(PyRuntimeError::new_err("Response content longer than Content-Length")),
            Some(rest) if rest > 0 && !more => {
                Err(PyRuntimeError::new_err("Response content shorter than Content-Length"))
            }
            Some(rest) => {
                *left = rest;
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        file: OwnedFd,
        range: ResponseFile,
        more: bool,
        out: &mut Outbound,
        hold: bool,
    ) -> PyResult<()> {
        self.account(range.len, more)?;
        if self.is_bodyless() || range.len == 0 {
            self.emit(Data::Empty, more, out, hold);
            return Ok(());
        }
        if let Some((mut head, mut writer)) = self.head.take() {
            if !more && self.left.is_none() && !self.has_trailers {
                writer.header(&mut head, b"content-length", itoa::Buffer::new().format(range.len).as_bytes());
            }
            out.push(Lead::Head(head, writer), Data::Empty, Flags::NONE);
        }
        let last = self.last(more, hold);
        out.push(Lead::File(file, range), Data::Empty, last);
        Ok(())
    }

    /// A piece of the body, and the head before it.
    fn emit(&mut self, data: Data, more: bool, out: &mut Outbound, hold: bool) {
        let last = self.last(more, hold);
        let lead = match self.head.take() {
            Some((head, writer)) => Lead::Head(head, writer),
            None => Lead::Body,
        };
        out.push(lead, data, last);
    }

    /// The flags of a piece, and the stage after it.
    fn last(&mut self, more: bool, hold: bool) -> Flags {
        let (stage, flags) = match (more, self.has_trailers, hold) {
            (true, _, _) => (Stage::Body, Flags::NONE),
            (false, true, _) => (Stage::Trailers, Flags::NONE),
            (false, false, true) => (Stage::Held, Flags::NONE),
            (false, false, false) => (Stage::Over, Flags::END),
        };
        self.stage = stage;
        flags
    }

    fn more_trailers(&mut self, message: &Message<'_, '_>, out: &mut Outbound, hold: bool) -> PyResult<()> {
        let trailers = &mut self.trailers;
        message.headers(|name, value| {
            trailers.push((name.to_vec(), value.to_vec()));
            Ok(())
        })?;
        // They leave in one frame, however many messages they come in.
        let bytes: usize = trailers.iter().map(|(name, value)| name.len() + value.len() + FIELD_BYTES).sum();
        if bytes > HEAD_BYTES_MAX {
            return Err(PyRuntimeError::new_err("the trailers are longer than 256 KiB"));
        }
        if message.flag(intern!(message.kind.py(), "more_trailers"))? {
            return Ok(());
        }
        if hold {
            self.stage = Stage::Held;
        } else {
            self.send_trailers(out);
        }
        Ok(())
    }

    fn send_trailers(&mut self, out: &mut Outbound) {
        let mut payload = Vec::new();
        let fields = self.trailers.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        long::encode_fields(&mut payload, fields);
        self.stage = Stage::Over;
        out.push(Lead::Whole(Kind::Trailers, payload), Data::Empty, Flags::END);
    }

    /// No byte of a body goes out: HEAD, and statuses without content (RFC 9110, 6.4.1).
    fn is_bodyless(&self) -> bool {
        self.is_head || matches!(self.status, 204 | 304)
    }

    /// The app is done: what is missing to end the exchange. An answer that has begun is cut off, one that has not is `page`.
    pub(crate) fn end(&mut self, page: Option<Vec<u8>>, out: &mut Outbound) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Over => {}
            Stage::Held if self.has_trailers => self.send_trailers(out),
            Stage::Held => out.push(Lead::Body, Data::Empty, Flags::END),
            Stage::Body | Stage::Trailers => out.push(Lead::Body, Data::Empty, Flags::ABORT),
            Stage::Fresh | Stage::Head => self.fail(page, out),
        }
    }

    fn fail(&mut self, page: Option<Vec<u8>>, out: &mut Outbound) {
        self.begin(500);
        let Some((mut head, mut writer)) = self.head.take() else { return };
        let (data, flags) = match page {
            Some(page) => {
                writer.header(&mut head, b"content-type", b"text/plain; charset=utf-8");
                let len = page.len();
                writer.header(&mut head, b"content-length", itoa::Buffer::new().format(len).as_bytes());
                let data = if self.is_head { Data::Empty } else { Data::Own(page) };
                (data, Flags::END)
            }
            // Nobody is there to read it.
            None => (Data::Empty, Flags::ABORT),
        };
        out.push(Lead::Head(head, writer), data, flags);
    }

    /// Nothing can be sent any more.
    pub(crate) fn give_up(&mut self) {
        self.stage = Stage::Over;
        self.head = None;
        self.request.forget();
    }
}

fn expected(wanted: &str, kind: &str) -> PyErr {
    PyRuntimeError::new_err(format!("Expected ASGI message '{wanted}', but got '{kind}'."))
}

/// RFC 9110, 8.6.
fn content_length(value: &[u8], is_second: bool) -> PyResult<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let length =
        str::from_utf8(value).ok().filter(|_| digits && !is_second).and_then(|text| text.parse().ok());
    length.ok_or_else(|| {
        let shown = String::from_utf8_lossy(value);
        PyRuntimeError::new_err(format!("{shown:?} is no Content-Length, or a second one"))
    })
}

/// `text/event-stream`, whatever its parameters.
fn is_events(value: &[u8]) -> bool {
    let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// 103, RFC 8297: the links as fields of their own.
fn early_hint(message: &Message<'_, '_>, out: &mut Outbound) -> PyResult<()> {
    let py = message.kind.py();
    let mut payload = Vec::new();
    let links: Vec<Vec<u8>> = match message.get(intern!(py, "links"))? {
        Some(links) => links
            .try_iter()?
            .map(|link| {
                let link = link?;
                let link = link.cast::<pyo3::types::PyBytes>().map_err(PyErr::from)?;
                let bytes = link.as_bytes();
                if !crate::text::is_field_value(bytes) {
                    return Err(PyRuntimeError::new_err("Invalid HTTP header value."));
                }
                Ok(bytes.to_vec())
            })
            .collect::<PyResult<_>>()?,
        None => Vec::new(),
    };
    if links.is_empty() {
        return Ok(());
    }
    long::encode_fields(&mut payload, links.iter().map(|link| (&b"link"[..], link.as_slice())));
    if payload.len() > py_link::PAYLOAD_BYTES_MAX as usize {
        return Err(PyOSError::new_err("the early hints are longer than 1 MiB"));
    }
    out.push(Lead::Whole(Kind::EarlyHints, payload), Data::Empty, Flags::NONE);
    Ok(())
}
