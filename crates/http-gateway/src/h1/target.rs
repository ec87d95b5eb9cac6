//! Request targets (RFC 9112, 3.2) and the Host field.

use super::field::is_token;
use super::parse::Refusal;
use crate::message::Method;

/// A request target in the form that the app sees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// Path and query, or `*`. Empty: the root path (of an absolute target that has none).
    pub(crate) origin: &'a [u8],
    /// From an absolute-form target: it overrules Host.
    pub(crate) authority: Option<&'a [u8]>,
}

/// Visible ASCII only: what is outside of it must come percent-encoded (RFC 3986, 2). A fragment is never sent
/// (RFC 9110, 4.2.5). Without an early exit the compiler makes vector instructions of it.
fn has_only_target_bytes(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |bad, &b| bad | u8::from(b <= 0x20 || b >= 0x7f || b == b'#')) == 0
}

/// Reads a method (RFC 9110, 9). Lower-case letters are refused, as nginx and gunicorn do: no method has them, and
/// an app that compares in one case with a proxy that compares in the other is a hole.
pub(crate) fn parse_method(bytes: &[u8]) -> Result<Method, Refusal> {
    /// Longer than every registered method (the longest has 17 letters).
    const METHOD_BYTES_MAX: usize = 32;

    let method = Method::from_bytes(bytes);
    if let Method::Other(_) = method {
        if !is_token(bytes) || bytes.iter().any(u8::is_ascii_lowercase) {
            return Err(Refusal::bad("the method is malformed"));
        }
        if bytes.len() > METHOD_BYTES_MAX {
            return Err(Refusal { status: 501, why: "the method is unknown" });
        }
        // RFC 9110, 9.3.6: tunnels are for proxies that the client chose.
        if bytes == b"CONNECT" {
            return Err(Refusal { status: 501, why: "this server is no tunnel" });
        }
    }
    Ok(method)
}

/// Reads a target in origin, absolute or asterisk form.
pub(crate) fn parse_target<'a>(bytes: &'a [u8], method: &Method) -> Result<Target<'a>, Refusal> {
    if !has_only_target_bytes(bytes) {
        return Err(Refusal::bad("the request target holds a character it may not"));
    }
    match bytes {
        [b'/', ..] => Ok(Target { origin: bytes, authority: None }),
        // RFC 9112, 3.2.4: only a server-wide OPTIONS.
        b"*" if *method == Method::Options => Ok(Target { origin: bytes, authority: None }),
        _ => parse_absolute(bytes, method),
    }
}

/// RFC 9112, 3.2.2: a server must accept the absolute form, although only proxies are sent it.
fn parse_absolute<'a>(bytes: &'a [u8], method: &Method) -> Result<Target<'a>, Refusal> {
    let bad = Refusal::bad("the request target is malformed");
    let rest = [&b"http://"[..], b"https://"]
        .into_iter()
        .find_map(|scheme| {
            let (head, rest) = bytes.split_at_checked(scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then_some(rest)
        })
        .ok_or(bad)?;
    let end = rest.iter().position(|&b| b == b'/' || b == b'?').unwrap_or(rest.len());
    let (authority, mut origin) = rest.split_at(end);
    // RFC 9110, 4.2.1: an empty host is invalid; 4.2.4: userinfo is to be treated as an error (`@` is no host byte).
    if authority.is_empty() || !is_host(authority) {
        return Err(bad);
    }
    match origin {
        [] if *method == Method::Options => origin = b"*",
        // A query behind an empty path would need a path put before it; nobody sends that.
        [b'?', ..] => return Err(bad),
        _ => {}
    }
    Ok(Target { origin, authority: Some(authority) })
}

/// Is this `uri-host [ ":" port ]` (RFC 9110, 7.2)? Empty is: a target without authority has an empty Host.
pub(crate) fn is_host(bytes: &[u8]) -> bool {
    let (host, port) = match bytes {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let (address, port) = rest.split_at(end);
            let is_address = !address.is_empty()
                && address.iter().all(|&b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.' | b'v' | b'-'));
            if !is_address {
                return false;
            }
            (&b""[..], port.get(1..).unwrap_or_default())
        }
        _ => bytes.split_at(memchr::memchr(b':', bytes).unwrap_or(bytes.len())),
    };
    let host_ok = host.iter().all(|&b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b));
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_ok && port_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in
            ["", "a", "a.b:80", "a:", "0.0.0.0=5000", "[::1]", "[::1]:8000", "[fe80::1.2.3.4]", "a_b", "%41"]
        {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b", "a/b", "u@a", "a:b", "a:1:2", "[", "[]", "[::1", "[::1]x", "[::1]:x", "a:123456", "é",
            "a\\b",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    fn check(method: &[u8], target: &str, expected: Option<(&str, Option<&str>)>) {
        let method = Method::from_bytes(method);
        let seen = parse_target(target.as_bytes(), &method).ok().map(|t| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            (text(t.origin), t.authority.map(text))
        });
        assert_eq!(seen, expected.map(|(o, a)| (o.to_owned(), a.map(str::to_owned))), "{target}");
    }

    #[test]
    fn targets() {
        check(b"GET", "/", Some(("/", None)));
        check(b"GET", "///a%20b?\"x\"=|{}", Some(("///a%20b?\"x\"=|{}", None)));
        check(b"OPTIONS", "*", Some(("*", None)));
        check(b"GET", "http://a:80/b?c", Some(("/b?c", Some("a:80"))));
        check(b"GET", "HTTPS://[::1]/", Some(("/", Some("[::1]"))));
        check(b"GET", "http://a", Some(("", Some("a"))));
        check(b"OPTIONS", "http://a", Some(("*", Some("a"))));
        for bad in [
            "",
            "*",
            "a",
            "a/b",
            "a:443",
            "ftp://a/",
            "http:///",
            "http://u@a/",
            "http://a?b",
            "/a#b",
            "/é",
            "/a b",
            "/\0",
        ] {
            check(b"GET", bad, None);
        }
    }

    #[test]
    fn methods() {
        for good in ["GET", "PROPFIND", "M-SEARCH", "-X"] {
            assert_eq!(
                parse_method(good.as_bytes()).map(|m| m.as_bytes().to_vec()),
                Ok(good.as_bytes().to_vec())
            );
        }
        for bad in ["", "get", "GE:T", "G\0T", "GETß", "CONNECT"] {
            assert!(parse_method(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
