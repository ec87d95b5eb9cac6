//! Bytes to request heads, strictly (RFC 9112). No I/O, no clock.
//!
//! A head is read line by line as it comes; what was looked at is not looked at again, so a client that sends one
//! byte at a time costs no more than its bytes. Whatever two programs could read differently is refused, and the
//! connection closed after it: both lengths at once, a length twice, a lone line feed or carriage return, folded
//! lines, a space before the colon, a missing Host, control characters.

use memchr::memchr;

use super::field::{Field, elements, parse_field};
use super::target::{is_host, parse_method, parse_target};
use crate::message::{BodyLength, Headers, RequestHead, Version};

/// Why a request is refused: for the log and for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 414, 417, 431, 501 or 505.
    pub status: u16,
    /// Free of the client's bytes.
    pub why: &'static str,
}

impl Refusal {
    /// 400
    pub(crate) const fn bad(why: &'static str) -> Self {
        Self { status: 400, why }
    }
}

/// Bounds of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of the request line: 414 above.
    pub line_bytes_max: usize,
    /// Bytes of all header lines: 431 above.
    pub fields_bytes_max: usize,
    /// Header lines: 431 above.
    pub fields_max: usize,
}

impl HeadLimits {
    /// A head becomes one frame to a worker and must fit with the gateway's own fields and an inline body.
    const HEAD_BYTES_MAX: u64 = 256 * 1024;

    /// From the configuration, and never above what a frame to a worker can hold.
    pub fn new(limits: &ctl_config::Limits) -> Self {
        let bound = |bytes: u64| bytes.min(Self::HEAD_BYTES_MAX) as usize;
        Self {
            line_bytes_max: bound(limits.line_max),
            fields_bytes_max: bound(limits.headers_max),
            fields_max: limits.header_count_max.min(u32::from(u16::MAX)) as usize,
        }
    }
}

/// A complete head and what it says of the connection.
#[derive(Debug)]
pub struct Parsed {
    /// The head, checked. Transfer-Encoding is gone from it.
    pub head: RequestHead,
    /// How the body is framed: `Unknown` is chunked.
    pub body: BodyLength,
    /// The client will send another request (RFC 9112, 9.3).
    pub keep_alive: bool,
    /// `Expect: 100-continue`
    pub expects_continue: bool,
    /// Connection names Upgrade: that field is meant for us.
    pub upgrade: bool,
}

/// Reads one head from a growing buffer.
#[derive(Debug, Default)]
pub struct HeadParser {
    /// Where the line being read starts.
    line_start: usize,
    /// There is no line feed between `line_start` and here.
    scanned: usize,
    /// Where the header lines start.
    fields_start: usize,
    /// An empty line before the request line was skipped.
    skipped: bool,
    draft: Option<Draft>,
}

/// The lines read so far.
#[derive(Debug)]
struct Draft {
    head: RequestHead,
    /// The target was absolute: its authority is Host already.
    has_authority: bool,
    fields: usize,
    host: bool,
    content_type: bool,
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    upgrade: bool,
}

impl HeadParser {
    /// At the start of a head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on. `input` holds the same bytes as before, and more behind them. Returns the head with the number of
    /// its bytes when it is complete. After a refusal the parser is spent.
    pub fn advance(&mut self, input: &[u8], limits: &HeadLimits) -> Result<Option<(Parsed, usize)>, Refusal> {
        loop {
            if self.draft.is_none() {
                self.check_first_byte(input)?;
            }
            let Some(found) = memchr(b'\n', input.get(self.scanned..).unwrap_or_default()) else {
                self.scanned = input.len();
                self.check_length(input.len(), limits)?;
                return Ok(None);
            };
            let end = self.scanned + found;
            self.check_length(end + 1, limits)?;
            let line = input.get(self.line_start..end).unwrap_or_default();
            self.line_start = end + 1;
            self.scanned = end + 1;
            let Some((b'\r', line)) = line.split_last() else {
                return Err(Refusal::bad("a line ends without a carriage return"));
            };
            match &mut self.draft {
                // RFC 9112, 2.2: one empty line before the request line is skipped.
                None if line.is_empty() && !self.skipped => self.skipped = true,
                None => {
                    self.fields_start = self.line_start;
                    self.draft = Some(Draft::new(line, input.len())?);
                }
                Some(draft) if !line.is_empty() => draft.field(line, limits)?,
                Some(_) => {
                    let parsed = self.draft.take().map(Draft::finish).transpose()?;
                    return Ok(parsed.map(|parsed| (parsed, self.line_start)));
                }
            }
        }
    }

    /// Bounds the line that is being read, which is known up to `end`.
    fn check_length(&self, end: usize, limits: &HeadLimits) -> Result<(), Refusal> {
        /// Carriage return and line feed.
        const LINE_END_BYTES: usize = 2;

        if self.draft.is_some() {
            let bytes = end - self.fields_start;
            return if bytes > limits.fields_bytes_max { Err(FIELDS_TOO_LARGE) } else { Ok(()) };
        }
        let bytes = end - self.line_start;
        if bytes > limits.line_bytes_max + LINE_END_BYTES { Err(LINE_TOO_LONG) } else { Ok(()) }
    }

    /// Sees early that this is no HTTP: TLS on a plain port, say, would never end its line.
    fn check_first_byte(&self, input: &[u8]) -> Result<(), Refusal> {
        match input.get(self.line_start) {
            Some(byte) if !matches!(byte, b'\r' | b'\n') && !super::field::is_token(&[*byte]) => {
                Err(Refusal::bad("this is not HTTP"))
            }
            _ => Ok(()),
        }
    }
}

const LINE_TOO_LONG: Refusal = Refusal { status: 414, why: "the request line is too long" };
const FIELDS_TOO_LARGE: Refusal = Refusal { status: 431, why: "the headers are too large" };
const TOO_MANY_FIELDS: Refusal = Refusal { status: 431, why: "there are too many headers" };

impl Draft {
    /// Reads the request line (RFC 9112, 3): exactly one space between its parts.
    fn new(line: &[u8], input_bytes: usize) -> Result<Self, Refusal> {
        let (rest, version) = parse_version(line)?;
        let space = memchr(b' ', rest).ok_or(Refusal::bad("the request line is malformed"))?;
        let (method, target) = rest.split_at(space);
        let method = parse_method(method)?;
        let target = parse_target(target.get(1..).unwrap_or_default(), &method)?;
        // Most requests have fewer fields; all fit in the bytes that are there already, when the head came whole.
        let mut headers = Headers::with_capacity(16, input_bytes - line.len());
        if let Some(authority) = target.authority {
            headers.push(b"host", authority);
        }
        let origin = if target.origin.is_empty() { b"/" } else { target.origin };
        Ok(Self {
            head: RequestHead { method, target: origin.to_vec(), version, headers },
            has_authority: target.authority.is_some(),
            fields: 0,
            host: false,
            content_type: false,
            content_length: None,
            chunked: false,
            close: false,
            keep_alive: false,
            expects_continue: false,
            upgrade: false,
        })
    }

    /// Reads a header line.
    fn field(&mut self, line: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > limits.fields_max {
            return Err(TOO_MANY_FIELDS);
        }
        let field = parse_field(line)?;
        if field.ambiguous {
            return Ok(());
        }
        if self.is_for_the_app(&field)? {
            self.head.headers.push_lower(field.name, field.value);
        }
        Ok(())
    }

    /// Obeys the fields that concern this connection. `false`: the app does not see it.
    fn is_for_the_app(&mut self, field: &Field<'_>) -> Result<bool, Refusal> {
        let is = |name: &[u8]| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            4 if is(b"host") => {
                // RFC 9112, 3.2: more than one, or an invalid one, must be refused.
                if std::mem::replace(&mut self.host, true) {
                    return Err(Refusal::bad("there is more than one Host"));
                }
                if !is_host(field.value) {
                    return Err(Refusal::bad("Host is malformed"));
                }
                // RFC 9112, 3.2.2: an absolute target's authority replaces it.
                return Ok(!self.has_authority);
            }
            6 if is(b"expect") && self.head.version == Version::Http11 => {
                if !field.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal { status: 417, why: "only 100-continue can be expected" });
                }
                self.expects_continue = true;
            }
            10 if is(b"connection") => {
                for option in elements(field.value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            // A singleton (RFC 9110, 8.3): which of two would count is anybody's guess.
            12 if is(b"content-type") && std::mem::replace(&mut self.content_type, true) => {
                return Err(Refusal::bad("there is more than one Content-Type"));
            }
            14 if is(b"content-length") => {
                let length = parse_content_length(field.value);
                if length.is_none() || self.content_length.is_some() {
                    return Err(Refusal::bad("Content-Length is malformed or sent twice"));
                }
                self.content_length = length;
            }
            17 if is(b"transfer-encoding") => {
                if std::mem::replace(&mut self.chunked, true) {
                    return Err(Refusal::bad("there is more than one Transfer-Encoding"));
                }
                check_transfer_encoding(field.value)?;
                return Ok(false);
            }
            _ => {}
        }
        Ok(true)
    }

    /// The empty line: decides on framing (RFC 9112, 6.3).
    fn finish(mut self) -> Result<Parsed, Refusal> {
        self.head.headers.vouch();
        let modern = self.head.version == Version::Http11;
        // RFC 9112, 3.2: a 1.1 request without Host must be refused, whatever its target.
        if modern && !self.host {
            return Err(Refusal::bad("Host is missing"));
        }
        let body = match (self.chunked, self.content_length) {
            // RFC 9112, 6.1: may be an attempt to smuggle a request.
            (true, Some(_)) => {
                return Err(Refusal::bad("both Content-Length and Transfer-Encoding are there"));
            }
            (true, None) if !modern => return Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => BodyLength::Unknown,
            (false, Some(length)) => BodyLength::Known(length),
            (false, None) => BodyLength::None,
        };
        let keep_alive = !self.close && (modern || self.keep_alive);
        let Self { head, expects_continue, upgrade, .. } = self;
        Ok(Parsed { head, body, keep_alive, expects_continue, upgrade })
    }
}

/// Cuts the version and the space before it from a request line.
fn parse_version(line: &[u8]) -> Result<(&[u8], Version), Refusal> {
    let malformed = Refusal::bad("the request line is malformed");
    let (rest, version) = line.split_last_chunk::<8>().ok_or(malformed)?;
    let [rest @ .., b' '] = rest else { return Err(malformed) };
    match version {
        b"HTTP/1.1" => Ok((rest, Version::Http11)),
        b"HTTP/1.0" => Ok((rest, Version::Http10)),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            // RFC 9110, 2.5: a minor version we do not know is the highest one we know.
            if *major == b'1' {
                Ok((rest, Version::Http11))
            } else {
                Err(Refusal { status: 505, why: "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here" })
            }
        }
        _ => Err(malformed),
    }
}

/// Digits and nothing else (RFC 9110, 8.6): no sign, no list, no underscore.
pub(crate) fn parse_content_length(value: &[u8]) -> Option<u64> {
    /// u64 holds every number of 19 digits.
    const DIGITS_MAX: usize = 19;
    if value.is_empty() || value.len() > DIGITS_MAX {
        return None;
    }
    value.iter().try_fold(0u64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0')))
}

/// `chunked` alone. We decode no other coding of a transfer: 501 for those that exist (RFC 9112, 6.1), 400 where
/// chunked is not the last and only one (6.3).
fn check_transfer_encoding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let chunked = elements(value).filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
    let last = elements(value).last().unwrap_or_default();
    if chunked > 1
        || (chunked == 1 && !last.eq_ignore_ascii_case(b"chunked"))
        || !elements(value).all(super::field::is_token)
    {
        return Err(Refusal::bad("Transfer-Encoding is malformed"));
    }
    Err(Refusal { status: 501, why: "no Transfer-Encoding but chunked is spoken here" })
}

#[cfg(test)]
mod tests;
