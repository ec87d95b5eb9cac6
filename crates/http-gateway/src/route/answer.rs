//! Answers that a route gives itself: redirects and fixed texts. Pure.

use bytes::Bytes;
use ctl_config::route::Template;

use super::change::Says;
use crate::error_page;
use crate::message::{Body, Headers, Method, RequestHead, Response, Trail};

/// Where a redirect leads.
pub(super) fn location(template: &Template, says: Says<'_>) -> Vec<u8> {
    one_slash(template.fill(|placeholder| says.of(placeholder)))
}

/// A path that begins with two slashes is a URL of another host to browsers (RFC 3986, 4.2), and a backslash is a slash to them:
/// `/{path}` must lead nowhere else.
pub(crate) fn one_slash(mut location: Vec<u8>) -> Vec<u8> {
    let slashes = location.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
    if slashes > 1 {
        location.drain(1..slashes);
    }
    location
}

/// A redirect.
pub(super) fn redirect(status: u16, location: &[u8], trail: Trail) -> Response {
    let mut headers = Headers::with_capacity(4, 128 + location.len());
    headers.push(b"Location", location);
    headers.push(b"Content-Length", b"0");
    Response { status, reason: Box::default(), headers, body: Body::Empty, close: false, trail }
}

/// To https at the same address. RFC 9110, 15.4.2: after 301 most clients change POST to GET, after 308 none does; but there are
/// old ones that do not know 308, and those only ever ask with GET.
pub(super) fn to_https(head: &RequestHead, location: &[u8], trail: Trail) -> Response {
    let reads = matches!(head.method, Method::Get | Method::Head);
    redirect(if reads { 301 } else { 308 }, location, trail)
}

/// A fixed text, or nothing where the status has no content.
pub(super) fn respond(status: u16, text: &Bytes, html: bool, trail: Trail) -> Response {
    if text.is_empty() && status >= 400 {
        return error_page::error(status, html, "", trail);
    }
    let mut headers = Headers::with_capacity(4, 128);
    let body = if text.is_empty() {
        Body::Empty
    } else {
        headers.push(b"Content-Type", b"text/plain; charset=utf-8");
        Body::Bytes(text.clone())
    };
    Response { status, reason: Box::default(), headers, body, close: false, trail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_no_other_host() {
        #[track_caller]
        fn check(template: &str, target: &str, expected: &str) {
            let says = Says {
                https: false,
                host: b"example.org",
                target: target.as_bytes(),
                client: "",
                request_id: b"",
                certificate: None,
            };
            let location = location(&Template::parse(template).unwrap(), says);
            assert_eq!(String::from_utf8(location).unwrap(), expected);
        }
        check("{path}", "//evil.example/", "/evil.example/");
        check("{path}", "/\\evil.example/", "/evil.example/");
        check("/{path}{query}", "/evil.example?a=1", "/evil.example?a=1");
        check("/\\{path}", "///x", "/x");
        check("https://example.org{path}", "//x", "https://example.org//x");
        check("https://{host}{path}{query}", "*", "https://example.org/");
        check("{scheme}://{host}{path}", "?x", "http://example.org/");
    }
}
