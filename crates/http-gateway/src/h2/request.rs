//! A request head as the app sees it: pseudo headers become method, target and `host`; as strict as over HTTP/1.
//!
//! The `h2` crate has refused already: upper-case names, connection headers, unknown or late pseudo headers, lengths that
//! contradict the body (RFC 9113, 8.1.1, 8.2, 8.3).

use h2::ext::Protocol;
use http::header::{self, HeaderMap};
use http::request::Parts;

use crate::h1::parse::{HeadLimits, Refusal};
use crate::h1::{is_ambiguous_name, is_host, parse_method, parse_target};
use crate::message::{Headers, Method, RequestHead, Version};

/// Does the client want to speak another protocol in the stream? (RFC 8441, 4: the `h2` crate sees to it that nothing but CONNECT
/// does.)
pub(super) fn is_extended_connect(parts: &Parts) -> bool {
    parts.extensions.get::<Protocol>().is_some()
}

/// The head, and whether the client waits for `100 Continue`. A handshake of a WebSocket is a GET, as over HTTP/1.
pub(super) fn convert(parts: &Parts, limits: &HeadLimits) -> Result<(RequestHead, bool), Refusal> {
    let method = match parts.extensions.get::<Protocol>() {
        None => parse_method(parts.method.as_str().as_bytes())?,
        Some(protocol) if protocol.as_str().eq_ignore_ascii_case("websocket") => Method::Get,
        // RFC 9220, 3, says so for HTTP/3, and RFC 8441 nothing.
        Some(_) => return Err(Refusal { status: 501, why: "no :protocol but websocket is spoken here" }),
    };
    let target = parts.uri.path_and_query().map_or(&b""[..], |target| target.as_str().as_bytes());
    if method.as_bytes().len() + target.len() > limits.line_bytes_max {
        return Err(Refusal { status: 414, why: "the request target is too long" });
    }
    // Only an HTTP/1 target may have the absolute form (RFC 9113, 8.3.1).
    if !target.starts_with(b"/") && target != b"*" {
        return Err(Refusal::bad("the request target is malformed"));
    }
    let target = parse_target(target, &method)?.origin.to_vec();
    let host = host(parts)?;
    let (headers, expects_continue) = fields(&parts.headers, host, limits)?;
    Ok((RequestHead { method, target, version: Version::Http2, headers }, expects_continue))
}

/// RFC 9113, 8.3.1: `:authority` stands for Host; where both are given they must agree.
fn host(parts: &Parts) -> Result<&[u8], Refusal> {
    let mut hosts = parts.headers.get_all(header::HOST).iter().map(http::HeaderValue::as_bytes);
    let (host, second) = (hosts.next(), hosts.next());
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = match (authority, host, second) {
        (_, _, Some(_)) => return Err(Refusal::bad("there are two Host headers")),
        (Some(authority), Some(host), _) if !authority.eq_ignore_ascii_case(host) => {
            return Err(Refusal::bad(":authority and Host do not agree"));
        }
        (Some(host), _, _) | (None, Some(host), _) => host,
        (None, None, None) => return Err(Refusal::bad("there is no :authority")),
    };
    if is_host(host) { Ok(host) } else { Err(Refusal::bad("the host is malformed")) }
}

fn fields(map: &HeaderMap, host: &[u8], limits: &HeadLimits) -> Result<(Headers, bool), Refusal> {
    let bytes: usize = map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes + host.len() > limits.fields_bytes_max {
        return Err(Refusal { status: 431, why: "the request headers are too large" });
    }
    if map.len() > limits.fields_max {
        return Err(Refusal { status: 431, why: "there are too many request headers" });
    }
    // As over HTTP/1: which of two would count is anybody's guess (RFC 9110, 8.3 and 8.6).
    for (singleton, why) in [
        (header::CONTENT_LENGTH, "Content-Length is there twice"),
        (header::CONTENT_TYPE, "there is more than one Content-Type"),
    ] {
        if map.get_all(singleton).iter().nth(1).is_some() {
            return Err(Refusal::bad(why));
        }
    }
    let mut headers = Headers::with_capacity(map.len() + 1, bytes + host.len() + 4);
    headers.push(b"host", host);
    let mut expects_continue = false;
    for (name, value) in map {
        let value = value.as_bytes();
        // RFC 9113, 8.2.1. (Control characters have been refused already.)
        if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value {
            return Err(Refusal::bad("a header value begins or ends with a space"));
        }
        match *name {
            header::HOST | header::COOKIE => {}
            header::EXPECT if !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Refusal { status: 417, why: "the expectation is unknown" });
            }
            header::EXPECT => expects_continue = true,
            _ if is_ambiguous_name(name.as_str().as_bytes()) => {}
            _ => headers.push(name.as_str().as_bytes(), value),
        }
    }
    join_cookies(map, &mut headers);
    Ok((headers, expects_continue))
}

/// RFC 9113, 8.2.3: crumbs are joined before they meet anything that is not HTTP/2.
fn join_cookies(map: &HeaderMap, headers: &mut Headers) {
    let mut crumbs = map.get_all(header::COOKIE).iter().map(http::HeaderValue::as_bytes);
    let Some(first) = crumbs.next() else { return };
    let Some(second) = crumbs.next() else {
        headers.push(b"cookie", first);
        return;
    };
    let mut joined = [first, b"; ", second].concat();
    for crumb in crumbs {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb);
    }
    headers.push(b"cookie", &joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { line_bytes_max: 40, fields_bytes_max: 200, fields_max: 6 };

    fn check(method: &str, uri: &str, fields: &[(&str, &str)], expected: &str) {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let seen = match convert(&parts, &LIMITS) {
            Ok((head, _)) => {
                let fields: Vec<String> = head
                    .headers
                    .iter()
                    .map(|(name, value)| format!("{}: {}", text(name), text(value)))
                    .collect();
                format!("{} {} | {}", text(head.method.as_bytes()), text(&head.target), fields.join(" | "))
            }
            Err(refusal) => format!("{}: {}", refusal.status, refusal.why),
        };
        assert_eq!(seen, expected);
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn heads_as_the_app_sees_them() {
        check("GET", "https://a.b:8/c?d", &[("accept", "x")], "GET /c?d | host: a.b:8 | accept: x");
        check("GET", "/c", &[("host", "a")], "GET /c | host: a");
        check("GET", "https://A/", &[("host", "a")], "GET / | host: A");
        check(
            "GET",
            "https://a/",
            &[("cookie", "x=1"), ("accept", "y"), ("cookie", "z=2"), ("cookie", "q=3")],
            "GET / | host: a | accept: y | cookie: x=1; z=2; q=3",
        );
        check("GET", "https://a/", &[("x_forwarded_for", "1")], "GET / | host: a");
        check("POST", "https://a/", &[("expect", "100-Continue")], "POST / | host: a");
        check("OPTIONS", "*", &[("host", "a")], "OPTIONS * | host: a");
    }

    #[test]
    fn a_websockets_handshake_is_a_get() {
        let parts = |protocol: &'static str| {
            let request = http::Request::builder().method("CONNECT").uri("https://a/ws?x");
            let request = request.extension(Protocol::from_static(protocol)).body(()).unwrap();
            request.into_parts().0
        };
        let (head, _) = convert(&parts("websocket"), &LIMITS).unwrap();
        assert_eq!((head.method, head.target), (Method::Get, b"/ws?x".to_vec()));
        assert!(is_extended_connect(&parts("websocket")));
        assert_eq!(convert(&parts("connect-udp"), &LIMITS).map(|_| ()).unwrap_err().status, 501);
    }

    #[test]
    fn heads_that_are_refused() {
        check("GET", "/", &[], "400: there is no :authority");
        check("GET", "https://a/", &[("host", "b")], "400: :authority and Host do not agree");
        check("GET", "/", &[("host", "a"), ("host", "a")], "400: there are two Host headers");
        check("GET", "https://u@a/", &[], "400: the host is malformed");
        check("GET", "*", &[("host", "a")], "400: the request target is malformed");
        check("get", "https://a/", &[], "400: the method is malformed");
        check("CONNECT", "https://a/", &[], "501: this server is no tunnel");
        check("GET", "https://a/", &[("a", " b")], "400: a header value begins or ends with a space");
        let two = [("content-length", "1"), ("content-length", "2")];
        check("POST", "https://a/", &two, "400: Content-Length is there twice");
        let two = [("content-type", "a/b"), ("content-type", "c/d")];
        check("POST", "https://a/", &two, "400: there is more than one Content-Type");
        check("POST", "https://a/", &[("expect", "tea")], "417: the expectation is unknown");
        check("GET", &format!("https://a/{}", "x".repeat(40)), &[], "414: the request target is too long");
        check("GET", "https://a/", &[("a", &"x".repeat(200))], "431: the request headers are too large");
        check("GET", "https://a/", &[("a", "b"); 7], "431: there are too many request headers");
    }
}
