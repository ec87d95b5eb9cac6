//! A WebSocket as ASGI tells it: `websocket.connect`, `receive`, `disconnect` in; `accept`, `send`, `close` out, and
//! `websocket.http.response.*` to refuse it with an answer of the app's own.
//!
//! Messages arrive in pieces (`py_link::long`, flow control). Credit is returned as the app takes messages; the pieces of a
//! message that is still being put together are credited while none waits, so that what is held is bounded by the
//! window and one message.

use std::collections::VecDeque;

use py_link::long::{Close, MessageType, WINDOW_BYTES};
use py_link::{Flags, Kind, ResponseHeadWriter};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyDict, PyString};

use crate::asgi::body::RequestBody;
use crate::asgi::http::Http;
use crate::asgi::message::Message;
use crate::asgi::outbound::{Data, Lead, Outbound};
use crate::response::NAME_BYTES_MAX;
use crate::text::is_token;

/// Credit is returned in portions of this: a frame for each small message would cost more than the message.
const CREDIT_BYTES_MIN: u32 = WINDOW_BYTES / 4;

/// RFC 6455, 5.5: a control frame has 125 bytes, two of which are the code.
const REASON_BYTES_MAX: usize = 123;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The app has not answered the handshake.
    Connecting,
    /// Accepted.
    Open,
    /// Being refused with an answer.
    Denying,
    /// The app has closed it, or the stream is over.
    Closed,
}

/// How a message of the client was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Well; the app may look.
    Well,
    /// It is longer than `websocket.message_max`: the WebSocket must be closed with 1009.
    TooLong,
    /// The gateway speaks nonsense.
    Malformed,
}

struct Waiting {
    key: MessageType,
    value: Py<PyAny>,
    cost: u32,
}

struct Partial {
    kind: MessageType,
    bytes: Vec<u8>,
}

/// The state of one WebSocket.
pub(crate) struct Socket {
    stage: Stage,
    /// The app knows that somebody wants in.
    connected: bool,
    waiting: VecDeque<Waiting>,
    partial: Option<Partial>,
    /// Bytes of `partial` that no credit was returned for.
    uncredited: u32,
    /// Credit to return.
    owed: u32,
    message_bytes_max: usize,
    /// Why it ended, to be told to the app.
    ended: Option<(u16, String)>,
    denial: Option<Http>,
}

impl Socket {
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        Self {
            stage: Stage::Connecting,
            connected: false,
            waiting: VecDeque::new(),
            partial: None,
            uncredited: 0,
            owed: 0,
            message_bytes_max,
            ended: None,
            denial: None,
        }
    }

    /// The app has said all it can.
    pub(crate) fn is_over(&self) -> bool {
        match &self.denial {
            Some(denial) => denial.is_complete(),
            None => self.stage == Stage::Closed,
        }
    }

    /// A piece of a message.
    pub(crate) fn arrived(&mut self, py: Python<'_>, payload: &[u8], flags: Flags) -> Arrived {
        if self.stage != Stage::Open || self.ended.is_some() {
            // It crossed the end, or the refusal.
            return Arrived::Well;
        }
        let mut piece = payload;
        let mut partial = if let Some(partial) = self.partial.take() {
            partial
        } else {
            let Some((&kind, rest)) = payload.split_first() else { return Arrived::Malformed };
            let Some(kind) = MessageType::from_u8(kind) else { return Arrived::Malformed };
            piece = rest;
            Partial { kind, bytes: Vec::new() }
        };
        self.uncredited += payload.len() as u32;
        if partial.bytes.len() + piece.len() > self.message_bytes_max {
            return Arrived::TooLong;
        }
        if !flags.is_end() {
            partial.bytes.extend_from_slice(piece);
            self.partial = Some(partial);
            self.credit_partial();
            return Arrived::Well;
        }
        let whole = if partial.bytes.is_empty() {
            piece
        } else {
            partial.bytes.extend_from_slice(piece);
            &partial.bytes
        };
        let value = match partial.kind {
            MessageType::Binary => PyBytes::new(py, whole).into_any().unbind(),
            // Checked by the gateway.
            MessageType::Text => match str::from_utf8(whole) {
                Ok(text) => PyString::new(py, text).into_any().unbind(),
                Err(_) => return Arrived::Malformed,
            },
        };
        let cost = std::mem::take(&mut self.uncredited);
        self.waiting.push_back(Waiting { key: partial.kind, value, cost });
        Arrived::Well
    }

    fn credit_partial(&mut self) {
        if self.waiting.is_empty() {
            self.owed += std::mem::take(&mut self.uncredited);
        }
    }

    /// Credit that is due now.
    pub(crate) fn take_credit(&mut self) -> Option<u32> {
        (self.owed >= CREDIT_BYTES_MIN && self.ended.is_none()).then(|| std::mem::take(&mut self.owed))
    }

    /// Nothing more will come from the client.
    pub(crate) fn end_with(&mut self, code: u16, reason: &str) {
        if self.ended.is_none() {
            self.ended = Some((code, reason.to_owned()));
        }
    }

    /// The app closes it (or we for it).
    pub(crate) fn close(&mut self, code: u16, reason: &str, out: &mut Outbound) {
        self.stage = Stage::Closed;
        self.waiting.clear();
        self.partial = None;
        self.end_with(code, reason);
        out.push(Lead::Whole(Kind::CloseToGateway, Close { code, reason }.encode()), Data::Empty, Flags::END);
    }

    /// The next message for the app.
    pub(crate) fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let message = PyDict::new(py);
        let kind = intern!(py, "type");
        if !self.connected {
            self.connected = true;
            message.set_item(kind, intern!(py, "websocket.connect"))?;
            return Ok(Some(message));
        }
        if let Some(waiting) = self.waiting.pop_front() {
            self.owed += waiting.cost;
            if self.partial.is_some() {
                self.credit_partial();
            }
            message.set_item(kind, intern!(py, "websocket.receive"))?;
            // Only the one that is meant: apps ask with `in`, and with defaults for what is absent.
            let key = match waiting.key {
                MessageType::Text => intern!(py, "text"),
                MessageType::Binary => intern!(py, "bytes"),
            };
            message.set_item(key, waiting.value)?;
            return Ok(Some(message));
        }
        if let Some((code, reason)) = &self.ended {
            message.set_item(kind, intern!(py, "websocket.disconnect"))?;
            message.set_item(intern!(py, "code"), code)?;
            message.set_item(intern!(py, "reason"), reason)?;
            return Ok(Some(message));
        }
        if self.denial.as_ref().is_some_and(Http::is_complete) {
            // "websocket.http.response": it never was one.
            message.set_item(kind, intern!(py, "websocket.disconnect"))?;
            message.set_item(intern!(py, "code"), 1006)?;
            message.set_item(intern!(py, "reason"), "")?;
            return Ok(Some(message));
        }
        Ok(None)
    }

    /// A message of the app.
    pub(crate) fn send(&mut self, message: &Message<'_, '_>, out: &mut Outbound, hold: bool) -> PyResult<()> {
        let kind = message.kind.to_str()?;
        match (self.stage, kind) {
            (Stage::Connecting, "websocket.accept") => self.accept(message, out),
            (Stage::Connecting | Stage::Open, "websocket.close") => {
                let py = message.kind.py();
                let code: u16 = message.integer(intern!(py, "code"))?.unwrap_or(1000);
                // RFC 6455, 7.4: what may stand in a close frame.
                if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                    return Err(PyRuntimeError::new_err(format!(
                        "{code} is no code to close a WebSocket with"
                    )));
                }
                let reason = message.text(intern!(py, "reason"))?;
                let reason = reason.as_ref().map_or(Ok(""), |reason| reason.to_str())?;
                self.close(code, shorten(reason), out);
                Ok(())
            }
            (Stage::Connecting, "websocket.http.response.start") => {
                let mut denial = Http::new(RequestBody::none(), false);
                denial.send(&message.denial(), out, hold)?;
                self.denial = Some(denial);
                self.stage = Stage::Denying;
                Ok(())
            }
            (Stage::Connecting, _) => Err(PyRuntimeError::new_err(format!(
                "Expected ASGI message 'websocket.accept', 'websocket.close', or \
                 'websocket.http.response.start' but got '{kind}'."
            ))),
            (Stage::Open, "websocket.send") => send(message, out),
            (Stage::Open, _) => Err(PyRuntimeError::new_err(format!(
                "Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'."
            ))),
            (Stage::Denying, "websocket.http.response.body") if !self.is_over() => {
                if let Some(denial) = &mut self.denial {
                    denial.send(&message.denial(), out, hold)?;
                }
                Ok(())
            }
            (Stage::Denying, _) if !self.is_over() => Err(PyRuntimeError::new_err(format!(
                "Expected ASGI message 'websocket.http.response.body' but got '{kind}'."
            ))),
            (Stage::Denying | Stage::Closed, _) => Err(PyRuntimeError::new_err(format!(
                "Unexpected ASGI message '{kind}', after sending 'websocket.close' or response already completed."
            ))),
        }
    }

    fn accept(&mut self, message: &Message<'_, '_>, out: &mut Outbound) -> PyResult<()> {
        let mut head = Vec::with_capacity(256);
        let mut writer = ResponseHeadWriter::start(&mut head, 101, b"");
        message.headers(|name, value| {
            if name.eq_ignore_ascii_case(b"sec-websocket-protocol") {
                return Err(PyRuntimeError::new_err(
                    "give the subprotocol as 'subprotocol' of 'websocket.accept', not as a header",
                ));
            }
            writer.header(&mut head, name, value);
            Ok(())
        })?;
        if let Some(subprotocol) = message.text(intern!(message.kind.py(), "subprotocol"))? {
            let subprotocol = subprotocol.to_str()?;
            if subprotocol.len() > NAME_BYTES_MAX || !is_token(subprotocol.as_bytes()) {
                return Err(PyRuntimeError::new_err(format!("{subprotocol:?} is no name for a subprotocol")));
            }
            writer.header(&mut head, b"sec-websocket-protocol", subprotocol.as_bytes());
        }
        self.stage = Stage::Open;
        out.push(Lead::Head(head, writer), Data::Empty, Flags::NONE);
        Ok(())
    }

    /// What the log says when the app has just returned.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        match self.stage {
            Stage::Connecting if self.ended.is_none() => {
                Some("ASGI callable returned without sending handshake.")
            }
            Stage::Denying if !self.is_over() => Some("ASGI callable returned without completing response."),
            _ => None,
        }
    }

    /// The app is done: ends what it has not ended.
    pub(crate) fn end(&mut self, has_raised: bool, page: Vec<u8>, out: &mut Outbound) {
        match self.stage {
            Stage::Closed => {}
            Stage::Denying => {
                self.stage = Stage::Closed;
                if let Some(denial) = &mut self.denial {
                    denial.end(Some(page), out);
                }
            }
            Stage::Connecting if self.ended.is_none() => {
                self.stage = Stage::Closed;
                Http::new(RequestBody::none(), false).end(Some(page), out);
            }
            // RFC 6455, 7.4.1: 1011, "an unexpected condition".
            Stage::Connecting | Stage::Open => self.close(if has_raised { 1011 } else { 1000 }, "", out),
        }
    }

    /// Nothing can be sent any more.
    pub(crate) fn give_up(&mut self) {
        self.stage = Stage::Closed;
        self.denial = None;
    }
}

fn send(message: &Message<'_, '_>, out: &mut Outbound) -> PyResult<()> {
    let py = message.kind.py();
    if let Some(text) = message.text(intern!(py, "text"))? {
        // Encoded now, so that a lone surrogate is the app's error here and not ours later.
        let _utf8 = text.to_str()?;
        out.push(Lead::Message(MessageType::Text as u8), Data::Text(text.unbind()), Flags::END);
        return Ok(());
    }
    let Some(bytes) = message.bytes(intern!(py, "bytes"))? else {
        return Err(PyRuntimeError::new_err("'websocket.send' must have 'text' or 'bytes'"));
    };
    out.push(Lead::Message(MessageType::Binary as u8), Data::Bytes(bytes.unbind()), Flags::END);
    Ok(())
}

/// The longest beginning that fits into a close frame.
fn shorten(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default()
}
