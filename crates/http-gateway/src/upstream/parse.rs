//! Bytes to the heads of an upstream's responses, strictly (RFC 9112). No I/O, no clock.
//!
//! The mirror of `h1/parse.rs`: what two programs could read differently is refused and the connection thrown away, never
//! repaired. Whoever can make an upstream say something doubtful must not be able to choose what the next client is told.

use memchr::memchr;

pub use crate::h1::encode::Framing;
use crate::h1::{Field, elements, is_value, parse_content_length, parse_field};
use crate::message::Headers;

/// Bytes of a status line: real ones have under a hundred.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// Bytes of all header lines. Apps that set many large cookies come to 16 KB; beyond this no browser keeps them.
const FIELDS_BYTES_MAX: usize = 64 * 1024;

/// Header lines.
const FIELDS_MAX: usize = 256;

/// What every response begins with: seen early, a server that speaks something else is not waited for.
const BEGINNING: &[u8] = b"HTTP/1.";

/// A response that cannot be passed on: 502, and the connection is closed. The text is for the log and free of the
/// upstream's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAnswer(pub &'static str);

/// What of the request decides about its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// HEAD: the response has no body, whatever its head says (RFC 9110, 9.3.2).
    pub head_only: bool,
    /// An upgrade was asked for: 101 may come.
    pub upgrade: bool,
}

/// A response before its body.
#[derive(Debug)]
pub struct Answer {
    /// 100 … 599.
    pub status: u16,
    /// The server's reason phrase.
    pub reason: Box<[u8]>,
    /// The fields that are not of the connection only.
    pub headers: Headers,
    /// Of the body.
    pub framing: Framing,
    /// The connection may carry another request behind the body.
    pub keep_alive: bool,
    /// The server switches to WebSocket: `Upgrade: websocket`, and Connection names it.
    pub websocket: bool,
}

impl Answer {
    /// 1xx: another head follows (but for 101).
    pub fn is_informational(&self) -> bool {
        self.status < 200
    }
}

/// Reads one head from a growing buffer.
#[derive(Debug, Default)]
pub struct AnswerParser {
    /// Where the line being read starts.
    line_start: usize,
    /// There is no line feed between `line_start` and here.
    scanned: usize,
    /// Where the header lines start.
    fields_start: usize,
    draft: Option<Draft>,
}

impl AnswerParser {
    /// At the start of a head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on. `input` holds the same bytes as before, and more behind them. Returns the head with the number of its
    /// bytes when it is complete. After an error the parser is spent.
    pub fn advance(&mut self, input: &[u8], asked: Asked) -> Result<Option<(Answer, usize)>, BadAnswer> {
        loop {
            if self.draft.is_none() {
                let both = input.len().min(BEGINNING.len());
                if input.get(..both) != BEGINNING.get(..both) {
                    return Err(BadAnswer("this is no response of HTTP/1"));
                }
            }
            let Some(found) = memchr(b'\n', input.get(self.scanned..).unwrap_or_default()) else {
                self.scanned = input.len();
                self.check_length(input.len())?;
                return Ok(None);
            };
            let end = self.scanned + found;
            self.check_length(end + 1)?;
            let line = input.get(self.line_start..end).unwrap_or_default();
            self.line_start = end + 1;
            self.scanned = end + 1;
            let Some((b'\r', line)) = line.split_last() else {
                return Err(BadAnswer("a line of the response ends without a carriage return"));
            };
            match &mut self.draft {
                None => {
                    self.fields_start = self.line_start;
                    self.draft = Some(Draft::new(line, input.len())?);
                }
                Some(draft) if !line.is_empty() => draft.field(line)?,
                Some(_) => {
                    let answer = self.draft.take().map(|draft| draft.finish(asked)).transpose()?;
                    return Ok(answer.map(|answer| (answer, self.line_start)));
                }
            }
        }
    }

    /// Bounds the line that is being read, which is known up to `end`.
    fn check_length(&self, end: usize) -> Result<(), BadAnswer> {
        let (bytes, bytes_max) = match self.draft {
            Some(_) => (end - self.fields_start, FIELDS_BYTES_MAX),
            None => (end - self.line_start, LINE_BYTES_MAX),
        };
        if bytes > bytes_max { Err(BadAnswer("the head of the response is too large")) } else { Ok(()) }
    }
}

/// The lines read so far.
#[derive(Debug)]
struct Draft {
    status: u16,
    reason: Box<[u8]>,
    modern: bool,
    headers: Headers,
    fields: usize,
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    /// Connection names Upgrade.
    upgrade: bool,
    /// Upgrade names websocket.
    websocket: bool,
    /// What else Connection names.
    named: Vec<Box<[u8]>>,
}

impl Draft {
    /// Reads the status line (RFC 9112, 4).
    fn new(line: &[u8], input_bytes: usize) -> Result<Self, BadAnswer> {
        const MALFORMED: BadAnswer = BadAnswer("the status line is malformed");
        let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor, b' ', rest @ ..] = line else {
            return Err(MALFORMED);
        };
        let (digits, rest) = rest.split_first_chunk::<3>().ok_or(MALFORMED)?;
        if !minor.is_ascii_digit() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(MALFORMED);
        }
        let status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        if !(100..=599).contains(&status) {
            return Err(BadAnswer("the status is not within 100 and 599"));
        }
        // The space before an empty reason is a duty of the sender, but one that changes nothing when it is missing.
        let reason = match rest {
            [] => rest,
            [b' ', reason @ ..] if is_value(reason) => reason,
            _ => return Err(MALFORMED),
        };
        Ok(Self {
            status,
            // What is said to an empty one as well.
            reason: if (status, reason) == (200, b"OK") { Box::default() } else { reason.into() },
            // RFC 9110, 2.5: a minor version we do not know is the highest one we know.
            modern: *minor != b'0',
            headers: Headers::with_capacity(16, input_bytes.saturating_sub(line.len())),
            fields: 0,
            content_length: None,
            chunked: false,
            close: false,
            keep_alive: false,
            upgrade: false,
            websocket: false,
            named: Vec::new(),
        })
    }

    /// Reads a header line.
    fn field(&mut self, line: &[u8]) -> Result<(), BadAnswer> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(BadAnswer("the response has too many headers"));
        }
        let field = parse_field(line).map_err(|refusal| BadAnswer(refusal.why))?;
        if self.is_end_to_end(&field)? {
            self.headers.push(field.name, field.value);
        }
        Ok(())
    }

    /// Obeys the fields that concern this connection. `false`: nobody else sees it (RFC 9110, 7.6.1).
    fn is_end_to_end(&mut self, field: &Field<'_>) -> Result<bool, BadAnswer> {
        let is = |name: &[u8]| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            2 if is(b"te") => return Ok(false),
            7 if is(b"trailer") => return Ok(false),
            7 if is(b"upgrade") => {
                self.websocket |= elements(field.value).any(|it| it.eq_ignore_ascii_case(b"websocket"));
                return Ok(false);
            }
            10 if is(b"connection") => {
                self.connection(field.value);
                return Ok(false);
            }
            10 if is(b"keep-alive") => return Ok(false),
            14 if is(b"content-length") => {
                let length = parse_content_length(field.value);
                if length.is_none() || self.content_length.is_some() {
                    return Err(BadAnswer("Content-Length is malformed or there twice"));
                }
                self.content_length = length;
            }
            16 if is(b"proxy-connection") => return Ok(false),
            17 if is(b"transfer-encoding") => {
                if std::mem::replace(&mut self.chunked, true) {
                    return Err(BadAnswer("there is more than one Transfer-Encoding"));
                }
                // We have not asked for any other (RFC 9110, 10.1.4).
                if !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadAnswer("Transfer-Encoding is not chunked alone"));
                }
                return Ok(false);
            }
            _ => {}
        }
        Ok(true)
    }

    fn connection(&mut self, value: &[u8]) {
        for option in elements(value) {
            let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
            if is(b"close") {
                self.close = true;
            } else if is(b"keep-alive") {
                self.keep_alive = true;
            } else if is(b"upgrade") {
                self.upgrade = true;
            } else if !is(b"content-length") {
                self.named.push(option.into());
            }
        }
    }

    /// The empty line: decides on framing (RFC 9112, 6.3).
    fn finish(self, asked: Asked) -> Result<Answer, BadAnswer> {
        let Self { status, reason, modern, mut headers, content_length, chunked, named, .. } = self;
        match (chunked, content_length) {
            // RFC 9112, 6.3: might be response splitting.
            (true, Some(_)) => {
                return Err(BadAnswer("both Content-Length and Transfer-Encoding are there"));
            }
            (true, None) if !modern => return Err(BadAnswer("HTTP/1.0 has no Transfer-Encoding")),
            _ => {}
        }
        let bodiless = status < 200 || status == 204;
        // RFC 9110, 8.6 and RFC 9112, 6.1: neither may be there. Some servers write a zero, which is true at least.
        if bodiless && (chunked || content_length.is_some_and(|length| length > 0)) {
            return Err(BadAnswer("a response that has no body announces one"));
        }
        let websocket = self.upgrade && self.websocket;
        if status == 101 && !(asked.upgrade && websocket) {
            return Err(BadAnswer("101 to a request that asked for no such thing"));
        }
        let framing = match (chunked, content_length) {
            _ if bodiless || status == 304 || asked.head_only => Framing::Nothing,
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilClose,
        };
        if !named.is_empty() {
            headers.remove(|name| named.iter().any(|other| other.eq_ignore_ascii_case(name)));
        }
        headers.vouch();
        let keep_alive = framing != Framing::UntilClose && !self.close && (modern || self.keep_alive);
        Ok(Answer { status, reason, headers, framing, keep_alive, websocket })
    }
}

#[cfg(test)]
mod tests;
