//! The head of a response as bytes, and how its body is framed. No I/O, no clock.

use super::field::{is_token, is_value};
use super::parse::parse_content_length;
use crate::extra_fields::{is_hint, is_trailer};
use crate::message::{Body, Headers, Line, Response, Version};

/// What of the request decides about the framing of its response.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// HEAD: the response has no body, whatever its head says.
    pub head_only: bool,
    /// The client's version.
    pub version: Version,
    /// The client wants to keep the connection and so do we.
    pub keep_alive: bool,
}

/// How the body goes over the wire (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Nothing,
    /// Exactly as many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Ends with the connection: to an HTTP/1.0 client, or from a server that told no length.
    UntilClose,
}

/// The app's response cannot be sent as it is; the text is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadResponse(pub &'static str);

/// Appends the head of `response` to `out`. Returns the framing, and whether the connection may be kept.
///
/// Always says HTTP/1.1, our own version (RFC 9110, 2.5). On an error `out` is as it was.
pub fn encode_head(
    out: &mut Vec<u8>,
    response: &Response,
    asked: Asked,
    date: &[u8],
) -> Result<(Framing, bool), BadResponse> {
    let start = out.len();
    let encoded = encode(out, response, asked, date);
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

fn encode(
    out: &mut Vec<u8>,
    response: &Response,
    asked: Asked,
    date: &[u8],
) -> Result<(Framing, bool), BadResponse> {
    status_line(out, response)?;
    let seen = fields(out, &response.headers, response.status)?;
    if !seen.date {
        field(out, b"Date", date);
    }
    // RFC 9110, 15.3.5 and 15.4.5: these never have a body.
    let bodiless = matches!(response.status, 204 | 304);
    let framing = if bodiless || asked.head_only {
        Framing::Nothing
    } else {
        match (seen.content_length, response.body.known_len()) {
            (Some(said), Some(real)) if said != real => {
                return Err(BadResponse("Content-Length is not the length of the body"));
            }
            (Some(length), _) | (None, Some(length)) => Framing::Length(length),
            (None, None) if asked.version == Version::Http10 => Framing::UntilClose,
            (None, None) => Framing::Chunked,
        }
    };
    let adds_length = match framing {
        Framing::Length(length) => Some(length),
        // RFC 9110, 9.3.2: HEAD shows what GET would have, where that is known. An empty body of a HEAD means that the
        // app did not make one.
        Framing::Nothing if !bodiless && !matches!(response.body, Body::Empty) => response.body.known_len(),
        _ => None,
    };
    if let (Some(length), None) = (adds_length, seen.content_length) {
        field(out, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    if framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    let keep_alive = asked.keep_alive && framing != Framing::UntilClose;
    match (keep_alive, asked.version, seen.upgrade) {
        // RFC 9110, 7.8: an Upgrade (of a 426, say) is of this connection only.
        (false, _, true) => out.extend_from_slice(b"Connection: close, upgrade\r\n"),
        (false, _, false) => out.extend_from_slice(b"Connection: close\r\n"),
        // RFC 9112, 9.3: a 1.0 client must be told that it may go on.
        (true, Version::Http10, _) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, _, true) => out.extend_from_slice(b"Connection: upgrade\r\n"),
        (true, _, false) => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok((framing, keep_alive))
}

/// Appends the head of the 101 that opens a WebSocket. `fields` are all but those of the connection and the date. On an error
/// `out` is as it was.
pub(super) fn encode_switching(out: &mut Vec<u8>, headers: &Headers, date: &[u8]) -> Result<(), BadResponse> {
    let start = out.len();
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    );
    match fields(out, headers, 101) {
        Ok(seen) => {
            if !seen.date {
                field(out, b"Date", date);
            }
            out.extend_from_slice(b"\r\n");
            Ok(())
        }
        Err(bad) => {
            out.truncate(start);
            Err(bad)
        }
    }
}

fn status_line(out: &mut Vec<u8>, response: &Response) -> Result<(), BadResponse> {
    if response.status == 200 && response.reason.is_empty() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return Ok(());
    }
    // 1xx is never a final response (RFC 9110, 15.2).
    if !(200..=599).contains(&response.status) {
        return Err(BadResponse("the status is not within 200 and 599"));
    }
    if !is_value(&response.reason) {
        return Err(BadResponse("the reason phrase holds a control character"));
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(response.status).as_bytes());
    out.push(b' ');
    if response.reason.is_empty() {
        let standard = http::StatusCode::from_u16(response.status).ok().and_then(|s| s.canonical_reason());
        out.extend_from_slice(standard.unwrap_or_default().as_bytes());
    } else {
        out.extend_from_slice(&response.reason);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Fields among the app's that decide about ours.
#[derive(Default)]
struct Seen {
    date: bool,
    upgrade: bool,
    content_length: Option<u64>,
}

/// Appends the app's fields. A name or value that would split the response is refused.
fn fields(out: &mut Vec<u8>, headers: &Headers, status: u16) -> Result<Seen, BadResponse> {
    let mut seen = Seen::default();
    for Line { name, value, whole, is_vouched } in headers.lines() {
        if !is_vouched && !is_token(name) {
            return Err(BadResponse("a header name holds a character it may not"));
        }
        if !is_vouched && !is_value(value) {
            return Err(BadResponse("a header value holds a control character"));
        }
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"date") => seen.date = true,
            7 if is(b"upgrade") => seen.upgrade = true,
            14 if is(b"content-length") => {
                let length = parse_content_length(super::field::trim(value));
                if length.is_none() || seen.content_length.is_some() {
                    return Err(BadResponse("Content-Length is malformed or there twice"));
                }
                seen.content_length = length;
                // RFC 9110, 8.6: must not be there.
                if status == 204 {
                    continue;
                }
            }
            // Framing is ours (RFC 9110, 7.6.1).
            10 if is(b"connection") || is(b"keep-alive") => continue,
            17 if is(b"transfer-encoding") => continue,
            _ => {}
        }
        out.extend_from_slice(whole);
    }
    Ok(seen)
}

/// Appends a header field.
pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line before a chunk of `len` bytes. `len` must not be zero: that would end the body.
pub(super) fn chunk_head(out: &mut Vec<u8>, len: u64) {
    let mut digits = [0u8; 16];
    let mut at = digits.len();
    let mut rest = len;
    while rest > 0 && at > 0 {
        at -= 1;
        if let (Some(slot), Some(&digit)) =
            (digits.get_mut(at), b"0123456789abcdef".get((rest & 15) as usize))
        {
            *slot = digit;
        }
        rest >>= 4;
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// Appends what follows the last chunk: the end of the body, and of the app's trailers those that may be there.
pub(super) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&Headers>) {
    out.extend_from_slice(b"0\r\n");
    extra_fields(out, trailers, is_trailer);
    out.extend_from_slice(b"\r\n");
}

/// Appends an informational response (RFC 9110, 15.2).
pub(super) fn informational(out: &mut Vec<u8>, status: u16, headers: &Headers) {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    extra_fields(out, Some(headers), is_hint);
    out.extend_from_slice(b"\r\n");
}

/// Appends the fields that `may` be there; what would split the response is left out.
fn extra_fields(out: &mut Vec<u8>, headers: Option<&Headers>, may: fn(&[u8]) -> bool) {
    for (name, value) in headers.into_iter().flat_map(Headers::iter) {
        if may(name) && is_token(name) && is_value(value) {
            field(out, name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn response(status: u16, fields: &[(&str, &str)], body: Body) -> Response {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        Response { headers, ..crate::testing::response(status, body) }
    }

    const GET: Asked = Asked { head_only: false, version: Version::Http11, keep_alive: true };

    fn check(response: &Response, asked: Asked, head: &str, framing: Framing) {
        let mut out = Vec::new();
        let (seen, _) = encode_head(&mut out, response, asked, b"now").unwrap();
        assert_eq!(String::from_utf8(out).unwrap().replace("\r\n", "|"), head);
        assert_eq!(seen, framing);
    }

    fn hello() -> Body {
        Body::Bytes(Bytes::from_static(b"hello"))
    }

    #[test]
    fn heads() {
        let r = response(200, &[("X-A", "b")], hello());
        check(&r, GET, "HTTP/1.1 200 OK|X-A: b|Date: now|Content-Length: 5||", Framing::Length(5));
        check(
            &r,
            Asked { head_only: true, ..GET },
            "HTTP/1.1 200 OK|X-A: b|Date: now|Content-Length: 5||",
            Framing::Nothing,
        );
        check(
            &r,
            Asked { version: Version::Http10, ..GET },
            "HTTP/1.1 200 OK|X-A: b|Date: now|Content-Length: 5|Connection: keep-alive||",
            Framing::Length(5),
        );
        check(
            &r,
            Asked { keep_alive: false, ..GET },
            "HTTP/1.1 200 OK|X-A: b|Date: now|Content-Length: 5|Connection: close||",
            Framing::Length(5),
        );
        let r = response(204, &[("Content-Length", "0")], Body::Empty);
        check(&r, GET, "HTTP/1.1 204 No Content|Date: now||", Framing::Nothing);
        let r = response(304, &[("Content-Length", "7"), ("Date", "then")], Body::Empty);
        check(&r, GET, "HTTP/1.1 304 Not Modified|Content-Length: 7|Date: then||", Framing::Nothing);
        let r = response(
            404,
            &[("Connection", "x"), ("transfer-encoding", "x"), ("Keep-Alive", "x")],
            Body::Empty,
        );
        check(&r, GET, "HTTP/1.1 404 Not Found|Date: now|Content-Length: 0||", Framing::Length(0));
        let r = response(426, &[("Upgrade", "websocket")], Body::Empty);
        let head =
            "HTTP/1.1 426 Upgrade Required|Upgrade: websocket|Date: now|Content-Length: 0|Connection: ";
        check(&r, GET, &format!("{head}upgrade||"), Framing::Length(0));
        let closes = Asked { keep_alive: false, ..GET };
        check(&r, closes, &format!("{head}close, upgrade||"), Framing::Length(0));
        let r = response(599, &[("Content-Length", "9")], Body::Empty);
        check(
            &r,
            Asked { head_only: true, ..GET },
            "HTTP/1.1 599 |Content-Length: 9|Date: now||",
            Framing::Nothing,
        );
    }

    #[test]
    fn responses_that_cannot_be_sent() {
        for (status, fields, body) in [
            (200, &[("a", "b\r\nc: d")][..], hello()),
            (200, &[("a\r\n", "b")], hello()),
            (200, &[("", "b")], hello()),
            (200, &[("Content-Length", "6")], hello()),
            (200, &[("Content-Length", "x")], hello()),
            (200, &[("Content-Length", "5"), ("content-length", "5")], hello()),
            (100, &[], Body::Empty),
            (600, &[], Body::Empty),
        ] {
            let mut out = b"before".to_vec();
            let r = response(status, fields, body);
            assert!(encode_head(&mut out, &r, GET, b"now").is_err(), "{r:?}");
            assert_eq!(out, b"before");
        }
    }

    #[test]
    fn chunk_heads() {
        for len in [1, 9, 10, 15, 16, 255, 4096, u64::MAX] {
            let mut out = Vec::new();
            chunk_head(&mut out, len);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{len:x}\r\n"));
        }
    }
}
