//! A request's head as an upstream shall see it: bytes of HTTP/1.1, or what the `h2` crate sends. No I/O, no clock.
//!
//! The framing is ours and one of the two, never both. What belongs to the client's connection stays there, with all that its
//! Connection names (RFC 9110, 7.6.1). Who asks is said in X-Forwarded-* and Forwarded, in their true form: one hop, as
//! `client.rs` found it; whatever the client or a proxy said of it is not passed on beside it.

use http::{HeaderMap, HeaderName, HeaderValue};
use py_link::Scheme;

use super::via::via;
use crate::cookie::without;
use crate::dispatch::Origin;
use crate::extra_fields::wants_trailers;
use crate::h1::encode::field;
use crate::h1::{elements, is_token, is_value};
use crate::message::{Line, Method, RequestHead};

/// The words of Forwarded, but for address and host.
const FORWARDED_BYTES: usize = 40;

/// How the body of a request goes to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sends {
    /// There is none.
    Nothing,
    /// As many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// What belongs to one request to an upstream besides its head.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Who asks.
    pub origin: &'a Origin<'a>,
    /// What the upstream is told as Host.
    pub host: &'a [u8],
    /// The body.
    pub sends: Sends,
    /// The body follows when the upstream has asked for it.
    pub expects_continue: bool,
    /// The key of a WebSocket's handshake; without one this is no handshake.
    pub websocket_key: Option<&'a str>,
    /// Say that the request came through here.
    pub via: bool,
    /// A cookie that is between the client and us.
    pub own_cookie: Option<&'a [u8]>,
}

/// A head that must not be written: it would say something else on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRequest(pub &'static str);

/// The head as bytes.
pub fn encode(head: &RequestHead, terms: &Terms<'_>) -> Result<Vec<u8>, BadRequest> {
    if !is_token(head.method.as_bytes()) || !is_target(&head.target) || !is_value(terms.host) {
        return Err(BadRequest("the request line or Host holds a character it may not"));
    }
    let mut out = Vec::with_capacity(512);
    for part in [head.method.as_bytes(), b" ", &head.target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    field(&mut out, b"Host", terms.host);
    fields(head, terms, &mut out)?;
    if terms.sends == Sends::Chunked {
        field(&mut out, b"Transfer-Encoding", b"chunked");
    }
    if let Some(key) = terms.websocket_key {
        field(&mut out, b"Sec-WebSocket-Key", key.as_bytes());
        field(&mut out, b"Upgrade", b"websocket");
        field(&mut out, b"Connection", b"Upgrade");
    } else if wants_trailers(&head.headers) {
        // RFC 9110, 10.1.4: TE concerns this connection, and Connection must say so.
        field(&mut out, b"TE", b"trailers");
        field(&mut out, b"Connection", b"TE");
    }
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

/// The head for HTTP/2 (RFC 9113, 8.3.1); `scheme` is that of the connection.
pub fn convert(head: &RequestHead, terms: &Terms<'_>, scheme: &str) -> Result<http::Request<()>, BadRequest> {
    const BAD: BadRequest = BadRequest("the request cannot be said in HTTP/2");
    let uri = http::Uri::builder().scheme(scheme).authority(terms.host).path_and_query(&head.target[..]);
    let mut request = http::Request::new(());
    *request.uri_mut() = uri.build().map_err(|_| BAD)?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.method_mut() = http::Method::from_bytes(head.method.as_bytes()).map_err(|_| BAD)?;
    let mut into = Fields { map: request.headers_mut(), is_bad: false };
    fields(head, terms, &mut into)?;
    let Fields { map: into, is_bad } = into;
    if wants_trailers(&head.headers) {
        // RFC 9113, 8.2.2: the one word that TE may have.
        into.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    if is_bad { Err(BAD) } else { Ok(request) }
}

/// Where fields are written to.
trait Write {
    fn put(&mut self, name: &[u8], value: &[u8]);

    /// One of the client's.
    fn pass(&mut self, line: Line<'_>) {
        self.put(line.name, line.value);
    }
}

/// HTTP/1.1.
impl Write for Vec<u8> {
    fn put(&mut self, name: &[u8], value: &[u8]) {
        field(self, name, value);
    }

    fn pass(&mut self, line: Line<'_>) {
        self.extend_from_slice(line.whole);
    }
}

/// HTTP/2.
struct Fields<'a> {
    map: &'a mut HeaderMap,
    is_bad: bool,
}

impl Write for Fields<'_> {
    fn put(&mut self, name: &[u8], value: &[u8]) {
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => drop(self.map.append(name, value)),
            _ => self.is_bad = true,
        }
    }
}

/// What is said in either protocol, in order.
fn fields(head: &RequestHead, terms: &Terms<'_>, out: &mut impl Write) -> Result<(), BadRequest> {
    let named: Vec<&[u8]> = head.headers.all("connection").flat_map(elements).collect();
    for line in head.headers.lines() {
        let Line { name, value, is_vouched, .. } = line;
        if is_ours(name) || (terms.websocket_key.is_none() && name.starts_with(b"sec-websocket-")) {
            continue;
        }
        if named.iter().any(|option| option.eq_ignore_ascii_case(name)) {
            continue;
        }
        if !(is_vouched || is_token(name) && is_value(value)) {
            return Err(BadRequest("a header holds a character it may not"));
        }
        match terms.own_cookie {
            Some(own) if name == b"cookie" => {
                if let Some(others) = without(value, own) {
                    out.put(name, &others);
                }
            }
            _ => out.pass(line),
        }
    }
    if terms.via {
        out.put(b"Via", via(head.version));
    }
    forwarded(out, terms.origin);
    out.put(b"X-Request-ID", terms.origin.request_id.as_bytes());
    match terms.sends {
        // RFC 9110, 8.6: where a body is usual its absence is said.
        Sends::Nothing if matches!(head.method, Method::Post | Method::Put | Method::Patch) => {
            out.put(b"Content-Length", b"0");
        }
        Sends::Nothing | Sends::Chunked => {}
        Sends::Length(length) => out.put(b"Content-Length", itoa::Buffer::new().format(length).as_bytes()),
    }
    if terms.expects_continue {
        out.put(b"Expect", b"100-continue");
    }
    Ok(())
}

/// No space and no control character: nothing that could end the request line early. (The protocols check more.)
fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.iter().all(|&byte| byte > b' ' && byte != 0x7f)
}

/// Fields that are written here in their true form, or concern only the client's connection. Names are in lower case.
fn is_ours(name: &[u8]) -> bool {
    match name.first() {
        Some(b'c') => matches!(name, b"connection" | b"content-length"),
        Some(b'e') => name == b"expect",
        Some(b'f') => name == b"forwarded",
        Some(b'h') => matches!(name, b"host" | b"http2-settings"),
        Some(b'k') => name == b"keep-alive",
        // `Proxy` becomes the variable HTTP_PROXY behind CGI-like servers (CVE-2016-5385).
        Some(b'p') => matches!(name, b"proxy" | b"proxy-connection" | b"proxy-authorization"),
        Some(b's') => name == b"sec-websocket-key",
        Some(b't') => matches!(name, b"te" | b"trailer" | b"transfer-encoding"),
        Some(b'u') => name == b"upgrade",
        Some(b'x') => name.starts_with(b"x-forwarded-") || matches!(name, b"x-real-ip" | b"x-request-id"),
        _ => false,
    }
}

/// Who asks, both ways of saying it: X-Forwarded-* for those who know no better, Forwarded as RFC 7239 has it.
fn forwarded(out: &mut impl Write, origin: &Origin<'_>) {
    let scheme: &[u8] = match origin.scheme {
        Scheme::Http => b"http",
        Scheme::Https => b"https",
    };
    let addr = origin.remote_addr.as_bytes();
    let mut value = Vec::with_capacity(FORWARDED_BYTES + addr.len() + origin.host.len());
    value.extend_from_slice(b"for=");
    if addr.is_empty() {
        value.extend_from_slice(b"unknown");
    } else {
        out.put(b"X-Forwarded-For", addr);
        // RFC 7239, 6: brackets and quotes around an address of IPv6.
        let (before, behind): (&[u8], &[u8]) =
            if addr.contains(&b':') { (b"\"[", b"]\"") } else { (b"", b"") };
        for part in [before, addr, behind] {
            value.extend_from_slice(part);
        }
    }
    value.extend_from_slice(b";proto=");
    value.extend_from_slice(scheme);
    out.put(b"X-Forwarded-Proto", scheme);
    if let Some(about) = origin.about {
        out.put(b"X-Forwarded-Method", about.method.as_bytes());
        out.put(b"X-Forwarded-Uri", &about.target);
    }
    if !origin.host.is_empty() && is_value(origin.host) {
        out.put(b"X-Forwarded-Host", origin.host);
        value.extend_from_slice(b";host=\"");
        value.extend(origin.host.iter().filter(|&&byte| byte != b'"' && byte != b'\\'));
        value.push(b'"');
    }
    out.put(b"Forwarded", &value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Headers, Version};

    fn head(method: &str, target: &str, fields: &str) -> RequestHead {
        let mut headers = Headers::default();
        for line in fields.split('|').filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            headers.push_lower(name.as_bytes(), value.as_bytes());
        }
        let method = Method::from_bytes(method.as_bytes());
        RequestHead { method, target: target.as_bytes().to_vec(), version: Version::Http11, headers }
    }

    fn origin<'a>(addr: &'a str, host: &'a str) -> Origin<'a> {
        Origin {
            request_id: "id1",
            remote_addr: addr,
            remote_port: 7,
            scheme: Scheme::Https,
            host: host.as_bytes(),
            server_name: b"a",
            server_port: 443,
            local: None,
            tls: None,
            certificate: None,
            headers_heard: true,
            about: None,
        }
    }

    fn terms<'a>(origin: &'a Origin<'a>) -> Terms<'a> {
        Terms {
            origin,
            host: b"a.test:8443",
            sends: Sends::Nothing,
            expects_continue: false,
            websocket_key: None,
            via: false,
            own_cookie: None,
        }
    }

    fn show(head: &RequestHead, sends: Sends, websocket_key: Option<&str>) -> String {
        let origin = origin("192.0.2.9", "a.test:8443");
        let terms = Terms { sends, websocket_key, own_cookie: Some(b"srv"), ..terms(&origin) };
        String::from_utf8(encode(head, &terms).unwrap()).unwrap().replace("\r\n", "|")
    }

    const WHO: &str = "X-Forwarded-For: 192.0.2.9|X-Forwarded-Proto: https|X-Forwarded-Host: a.test:8443|\
        Forwarded: for=192.0.2.9;proto=https;host=\"a.test:8443\"|X-Request-ID: id1|";

    #[test]
    fn the_head_says_who_asks_and_how_long_the_body_is() {
        let get = head("GET", "/a?b", "Host: spoofed|Accept: x");
        assert_eq!(
            show(&get, Sends::Nothing, None),
            format!("GET /a?b HTTP/1.1|Host: a.test:8443|accept: x|{WHO}|")
        );
        let post = head("POST", "/", "Content-Length: 9");
        assert_eq!(
            show(&post, Sends::Length(5), None),
            format!("POST / HTTP/1.1|Host: a.test:8443|{WHO}Content-Length: 5||")
        );
        assert_eq!(
            show(&post, Sends::Chunked, None),
            format!("POST / HTTP/1.1|Host: a.test:8443|{WHO}Transfer-Encoding: chunked||")
        );
        assert!(show(&post, Sends::Nothing, None).ends_with("Content-Length: 0||"));
    }

    #[test]
    fn what_is_of_the_clients_connection_stays_there() {
        let lies = head(
            "GET",
            "/",
            "Connection: x-hop, Close, TE, x-forwarded-for, host|X-Hop: 1|TE: trailers;q=1, trailers|Keep-Alive: 5|\
             Proxy-Connection: a|Proxy: evil|Upgrade: h2c|HTTP2-Settings: a|Trailer: a|Transfer-Encoding: chunked|\
             Content-Length: 7|Expect: 100-continue|X-Forwarded-For: 6.6.6.6|X-Forwarded-Prefix: /evil|\
             Forwarded: for=6.6.6.6|X-Real-IP: 6.6.6.6|X-Request-ID: theirs|Sec-WebSocket-Key: k|Sec-WebSocket-Version: 13|\
             Cookie: a=b",
        );
        assert_eq!(
            show(&lies, Sends::Nothing, None),
            format!("GET / HTTP/1.1|Host: a.test:8443|cookie: a=b|{WHO}TE: trailers|Connection: TE||")
        );
    }

    #[test]
    fn a_cookie_of_ours_is_not_told() {
        let all = head("GET", "/", "Cookie: a=b; srv=1; c=d|Cookie: srv=2|Cookie: e=f");
        assert_eq!(
            show(&all, Sends::Nothing, None),
            format!("GET / HTTP/1.1|Host: a.test:8443|cookie: a=b; c=d|cookie: e=f|{WHO}|")
        );
    }

    #[test]
    fn the_way_grows_by_one() {
        let origin = origin("192.0.2.9", "a.test:8443");
        let mut came = head("GET", "/", "Via: 1.0 fred");
        let via = |head: &RequestHead| {
            let said =
                String::from_utf8(encode(head, &Terms { via: true, ..terms(&origin) }).unwrap()).unwrap();
            let lines = said.split("\r\n").filter(|line| line.to_ascii_lowercase().starts_with("via"));
            lines.collect::<Vec<_>>().join("|")
        };
        assert_eq!(via(&came), "via: 1.0 fred|Via: 1.1 quintet");
        came.version = Version::Http2;
        assert_eq!(via(&came), "via: 1.0 fred|Via: 2.0 quintet");
    }

    #[test]
    fn a_handshake_has_a_key_of_ours_and_the_clients_offers() {
        let ask = head(
            "GET",
            "/ws",
            "Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Key: theirs|Sec-WebSocket-Version: 13|\
             Sec-WebSocket-Protocol: chat|Sec-WebSocket-Extensions: permessage-deflate|Origin: https://a.test",
        );
        assert_eq!(
            show(&ask, Sends::Nothing, Some("ours")),
            format!(
                "GET /ws HTTP/1.1|Host: a.test:8443|sec-websocket-version: 13|sec-websocket-protocol: chat|\
                 sec-websocket-extensions: permessage-deflate|origin: https://a.test|{WHO}Sec-WebSocket-Key: ours|\
                 Upgrade: websocket|Connection: Upgrade||"
            )
        );
    }

    fn show_h2(head: &RequestHead, sends: Sends) -> String {
        let origin = origin("192.0.2.9", "a.test:8443");
        let terms = Terms { sends, ..terms(&origin) };
        let request = convert(head, &terms, "https").unwrap();
        let fields: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        format!("{} {} | {}", request.method(), request.uri(), fields.join(" | "))
    }

    #[test]
    fn http2_says_the_same_in_its_own_way() {
        let who = "x-forwarded-for: 192.0.2.9 | x-forwarded-proto: https | x-forwarded-host: a.test:8443 | \
            forwarded: for=192.0.2.9;proto=https;host=\"a.test:8443\" | x-request-id: id1";
        let post =
            head("POST", "/a%20b?c", "Host: x|Connection: x-hop|X-Hop: 1|TE: trailers|Cookie: a=b|Expect: y");
        assert_eq!(
            show_h2(&post, Sends::Length(5)),
            format!(
                "POST https://a.test:8443/a%20b?c | cookie: a=b | {who} | content-length: 5 | te: trailers"
            )
        );
        let chunked = show_h2(&post, Sends::Chunked);
        assert!(!chunked.contains("content-length") && !chunked.contains("transfer-encoding"), "{chunked}");
        assert!(
            show_h2(&head("OPTIONS", "*", ""), Sends::Nothing).starts_with("OPTIONS https://a.test:8443*")
        );
    }

    #[test]
    fn addresses_are_written_as_the_standard_says() {
        let say = |addr: &str, host: &str| {
            let mut out = Vec::new();
            forwarded(&mut out, &origin(addr, host));
            String::from_utf8(out).unwrap().replace("\r\n", "|")
        };
        assert_eq!(
            say("2001:db8::1", "a"),
            "X-Forwarded-For: 2001:db8::1|X-Forwarded-Proto: https|X-Forwarded-Host: a|\
             Forwarded: for=\"[2001:db8::1]\";proto=https;host=\"a\"|"
        );
        assert_eq!(say("", ""), "X-Forwarded-Proto: https|Forwarded: for=unknown;proto=https|");
    }

    #[test]
    fn nothing_that_would_split_a_head_is_written() {
        let terms_origin = origin("", "");
        let terms = |host: &'static [u8]| Terms { host, ..terms(&terms_origin) };
        for bad in ["/a b", "/a\r\nX: y", "", "/\u{7f}"] {
            assert!(encode(&head("GET", bad, ""), &terms(b"a")).is_err(), "{bad:?}");
        }
        assert!(encode(&head("GE T", "/", ""), &terms(b"a")).is_err());
        assert!(encode(&head("GET", "/", ""), &terms(b"a\r\nb: c")).is_err());
        let mut evil = head("GET", "/", "");
        evil.headers.push(b"x", b"a\nb");
        assert!(encode(&evil, &terms(b"a")).is_err());
    }
}
