//! A response head as HTTP/2 has it.

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue};

use crate::extra_fields::is_hint;
use crate::message::{Body, Headers, Response};

/// The response cannot be sent as it is; the text is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadResponse(pub(super) &'static str);

/// What follows the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// Nothing: the head ends the stream.
    Nothing,
    /// The body; of this length if one was announced.
    Body(Option<u64>),
}

/// The head, and what follows it. `head_only`: the request was HEAD.
pub(super) fn convert(
    response: &Response,
    head_only: bool,
    date: &[u8],
) -> Result<(http::Response<()>, Follows), BadResponse> {
    let status = match response.status {
        200..=599 => http::StatusCode::from_u16(response.status).ok(),
        // 1xx is never a final response (RFC 9110, 15.2).
        _ => None,
    };
    let mut head = http::Response::new(());
    *head.status_mut() = status.ok_or(BadResponse("the status is not within 200 and 599"))?;
    let headers = head.headers_mut();
    fields(&response.headers, headers)?;
    add_date(headers, date)?;
    // RFC 9110, 15.3.5 and 15.4.5: these never have a body; 8.6: 204 must not announce one.
    let bodiless = matches!(response.status, 204 | 304);
    let announced = announced(headers)?;
    if response.status == 204 {
        headers.remove(CONTENT_LENGTH);
    }
    let known = response.body.known_len();
    if bodiless || head_only {
        // RFC 9110, 9.3.2: HEAD shows what GET would have, where that is known.
        if let (false, None, Some(length)) =
            (bodiless || matches!(response.body, Body::Empty), announced, known)
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        return Ok((head, Follows::Nothing));
    }
    match (announced, known) {
        (Some(said), Some(real)) if said != real => {
            return Err(BadResponse("Content-Length is not the length of the body"));
        }
        (None, Some(length)) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        _ => {}
    }
    let follows = if known == Some(0) { Follows::Nothing } else { Follows::Body(announced.or(known)) };
    Ok((head, follows))
}

/// The head that opens a WebSocket (RFC 8441, 5: 200, where HTTP/1 has 101).
pub(super) fn accepted(headers: &Headers, date: &[u8]) -> Result<http::Response<()>, BadResponse> {
    let mut head = http::Response::new(());
    fields(headers, head.headers_mut())?;
    add_date(head.headers_mut(), date)?;
    Ok(head)
}

fn add_date(headers: &mut HeaderMap, date: &[u8]) -> Result<(), BadResponse> {
    if !headers.contains_key(DATE) {
        let date = HeaderValue::from_bytes(date).map_err(|_| BadResponse("the date is malformed"))?;
        headers.insert(DATE, date);
    }
    Ok(())
}

/// Copies the app's fields; all values share one buffer.
fn fields(from: &Headers, headers: &mut HeaderMap) -> Result<(), BadResponse> {
    let bytes = from.iter().map(|(_, value)| value.len()).sum();
    let mut values = BytesMut::with_capacity(bytes);
    headers.try_reserve(from.len() + 2).map_err(|_| BadResponse("there are too many headers"))?;
    for (name, value) in from.iter() {
        // Lower case from here on.
        let Ok(name) = HeaderName::from_bytes(name) else {
            return Err(BadResponse("a header name holds a character it may not"));
        };
        if is_of_the_connection(name.as_str()) {
            continue;
        }
        values.extend_from_slice(value);
        let Ok(value) = HeaderValue::from_maybe_shared(values.split().freeze()) else {
            return Err(BadResponse("a header value holds a control character"));
        };
        headers.try_append(name, value).map_err(|_| BadResponse("there are too many headers"))?;
    }
    Ok(())
}

/// The head of an informational response; `None` where the status is none.
pub(super) fn informational(status: u16, headers: &Headers) -> Option<http::Response<()>> {
    let mut head = http::Response::new(());
    *head.status_mut() =
        http::StatusCode::from_u16(status).ok().filter(http::StatusCode::is_informational)?;
    *head.headers_mut() = extra_fields(headers, is_hint);
    Some(head)
}

/// The fields that `may` be there; what HTTP/2 cannot carry is left out.
pub(super) fn extra_fields(headers: &Headers, may: fn(&[u8]) -> bool) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| may(name)) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            // More than 32768 fields do not fit.
            let _ = map.try_append(name, value);
        }
    }
    map
}

/// RFC 9113, 8.2.2: none of these may appear.
fn is_of_the_connection(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade")
}

fn announced(headers: &HeaderMap) -> Result<Option<u64>, BadResponse> {
    let bad = BadResponse("Content-Length is malformed or there twice");
    let mut said = headers.get_all(CONTENT_LENGTH).iter();
    match (said.next(), said.next()) {
        (None, _) => Ok(None),
        (Some(value), None) if value.as_bytes().iter().all(u8::is_ascii_digit) => {
            value.to_str().ok().and_then(|digits| digits.parse().ok()).map(Some).ok_or(bad)
        }
        _ => Err(bad),
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

    fn check(response: &Response, head_only: bool, expected: &str, follows: Follows) {
        let (head, seen) = convert(response, head_only, b"now").unwrap();
        let fields: Vec<String> = head
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        assert_eq!(format!("{} {}", head.status().as_u16(), fields.join(" | ")), expected);
        assert_eq!(seen, follows);
    }

    fn hello() -> Body {
        Body::Bytes(Bytes::from_static(b"hello"))
    }

    #[test]
    fn heads() {
        let r = response(200, &[("X-A", "b"), ("Connection", "x"), ("Transfer-Encoding", "x")], hello());
        check(&r, false, "200 x-a: b | date: now | content-length: 5", Follows::Body(Some(5)));
        check(&r, true, "200 x-a: b | date: now | content-length: 5", Follows::Nothing);
        let r = response(200, &[("Set-Cookie", "a"), ("set-cookie", "b"), ("Date", "then")], Body::Empty);
        check(
            &r,
            false,
            "200 set-cookie: a | set-cookie: b | date: then | content-length: 0",
            Follows::Nothing,
        );
        check(&r, true, "200 set-cookie: a | set-cookie: b | date: then", Follows::Nothing);
        check(
            &response(204, &[("Content-Length", "0")], Body::Empty),
            false,
            "204 date: now",
            Follows::Nothing,
        );
        let r = response(304, &[("Content-Length", "7")], Body::Empty);
        check(&r, false, "304 content-length: 7 | date: now", Follows::Nothing);
    }

    #[test]
    fn responses_that_cannot_be_sent() {
        for (status, fields, body) in [
            (200, &[("a", "b\r\nc: d")][..], hello()),
            (200, &[("a b", "c")], hello()),
            (200, &[("Content-Length", "6")], hello()),
            (200, &[("Content-Length", "+5")], hello()),
            (200, &[("Content-Length", "5"), ("content-length", "5")], hello()),
            (100, &[], Body::Empty),
        ] {
            let r = response(status, fields, body);
            assert!(convert(&r, false, b"now").is_err(), "{r:?}");
        }
    }
}
