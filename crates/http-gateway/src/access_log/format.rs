//! A line of the access log, as text or JSON. Whatever the client sent is escaped: a line stays a line, and what a terminal shows
//! is what was sent. No clock: how long it took is an argument.

use std::io::Write as _;
use std::time::Duration;

use crate::message::{AnsweredBy, Exchange, Version};

/// `Sun, 06 Nov 1994 08:49:37 GMT`, as it stands in `Date`.
type Date = [u8; 29];

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The combined format that log readers know, then our own: request id, seconds in all, seconds in the queue, who
/// answered, and `cut` where the response did not go out whole.
pub(super) fn text(line: &mut Vec<u8>, exchange: &Exchange<'_>, took: Duration, date: &Date) {
    let header = |name| exchange.head.and_then(|head| head.headers.get(name));
    match exchange.trail.client {
        Some(client) => drop(write!(line, "{client}")),
        None => line.push(b'-'),
    }
    line.extend_from_slice(b" - - [");
    let [_, _, _, _, _, d1, d2, _, m1, m2, m3, _, y1, y2, y3, y4, _, time @ .., _, _, _, _] = date;
    line.extend_from_slice(&[*d1, *d2, b'/', *m1, *m2, *m3, b'/', *y1, *y2, *y3, *y4, b':']);
    line.extend_from_slice(time);
    line.extend_from_slice(b" +0000] \"");
    match exchange.head {
        Some(head) => {
            escape_text(line, head.method.as_bytes());
            line.push(b' ');
            escape_text(line, &head.target);
            line.push(b' ');
            line.extend_from_slice(protocol(head.version));
        }
        None => line.push(b'-'),
    }
    line.extend_from_slice(b"\" ");
    number(line, u64::from(exchange.status));
    line.push(b' ');
    number(line, exchange.body_bytes_sent);
    for name in ["referer", "user-agent"] {
        line.extend_from_slice(b" \"");
        or_dash(line, header(name).unwrap_or_default());
        line.push(b'"');
    }
    line.push(b' ');
    or_dash(line, exchange.trail.request_id.as_bytes());
    for duration in [took, exchange.trail.queue_wait] {
        line.push(b' ');
        seconds(line, duration);
    }
    line.push(b' ');
    line.extend_from_slice(exchange.trail.by.label().as_bytes());
    line.extend_from_slice(if exchange.complete { b"\n" } else { b" cut\n" });
}

/// One object; fields without a value are left out.
pub(super) fn json(line: &mut Vec<u8>, exchange: &Exchange<'_>, took: Duration, date: &Date) {
    let header = |name| exchange.head.and_then(|head| head.headers.get(name));
    let [
        _,
        _,
        _,
        _,
        _,
        d1,
        d2,
        _,
        month @ ..,
        _,
        y1,
        y2,
        y3,
        y4,
        _,
        h1,
        h2,
        _,
        n1,
        n2,
        _,
        s1,
        s2,
        _,
        _,
        _,
        _,
    ] = date;
    let month = MONTHS.iter().position(|name| *name == month).map_or(0, |at| at as u8 + 1);
    let (m1, m2) = (b'0' + month / 10, b'0' + month % 10);
    line.extend_from_slice(b"{\"time\":\"");
    line.extend_from_slice(&[*y1, *y2, *y3, *y4, b'-', m1, m2, b'-', *d1, *d2, b'T']);
    line.extend_from_slice(&[*h1, *h2, b':', *n1, *n2, b':', *s1, *s2, b'Z', b'"']);
    if let Some(client) = exchange.trail.client {
        string(line, "client", client.to_string().as_bytes());
    }
    if let Some(head) = exchange.head {
        string(line, "method", head.method.as_bytes());
        string(line, "host", header("host").unwrap_or_default());
        string(line, "target", &head.target);
        string(line, "protocol", protocol(head.version));
    }
    line.extend_from_slice(b",\"status\":");
    number(line, u64::from(exchange.status));
    line.extend_from_slice(b",\"body_bytes\":");
    number(line, exchange.body_bytes_sent);
    line.extend_from_slice(b",\"seconds\":");
    seconds(line, took);
    line.extend_from_slice(b",\"queue_seconds\":");
    seconds(line, exchange.trail.queue_wait);
    string(line, "by", exchange.trail.by.label().as_bytes());
    if let AnsweredBy::Worker(worker) = exchange.trail.by {
        line.extend_from_slice(b",\"worker\":");
        number(line, u64::from(worker));
    }
    if let Some(route) = &exchange.trail.route {
        string(line, "route", route.name.as_bytes());
    }
    string(line, "request_id", exchange.trail.request_id.as_bytes());
    string(line, "referer", header("referer").unwrap_or_default());
    string(line, "user_agent", header("user-agent").unwrap_or_default());
    line.extend_from_slice(b",\"complete\":");
    line.extend_from_slice(if exchange.complete { b"true}\n" } else { b"false}\n" });
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"HTTP/1.0",
        Version::Http11 => b"HTTP/1.1",
        Version::Http2 => b"HTTP/2.0",
        Version::Http3 => b"HTTP/3.0",
    }
}

fn number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// With microseconds, without floating point: `12.000345`.
fn seconds(line: &mut Vec<u8>, duration: Duration) {
    number(line, duration.as_secs());
    line.push(b'.');
    let mut digits = *b"000000";
    let mut rest = duration.subsec_micros();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    line.extend_from_slice(&digits);
}

fn or_dash(line: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        line.push(b'-');
    } else {
        escape_text(line, bytes);
    }
}

/// As nginx does: everything but visible ASCII and space as `\xHH`, and so the quote and the backslash.
pub(super) fn escape_text(line: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                let hex = |half: u8| if half < 10 { b'0' + half } else { b'A' + half - 10 };
                line.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]);
            }
            plain => line.push(plain),
        }
    }
}

/// `,"name":"value"`; bytes that are no UTF-8 become U+FFFD.
fn string(line: &mut Vec<u8>, name: &str, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":\"");
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            escape_json(line, character);
        }
        if !chunk.invalid().is_empty() {
            line.extend_from_slice(b"\\ufffd");
        }
    }
    line.push(b'"');
}

/// RFC 8259, 7; the C1 controls and U+2028/2029 too, which some readers take for the end of a line.
fn escape_json(line: &mut Vec<u8>, character: char) {
    match character {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(b"\\\\"),
        '\0'..' ' | '\x7f'..'\u{a0}' | '\u{2028}' | '\u{2029}' => {
            let code = u32::from(character);
            line.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                let half = (code >> shift & 15) as u8;
                line.push(if half < 10 { b'0' + half } else { b'a' + half - 10 });
            }
        }
        plain => line.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}
