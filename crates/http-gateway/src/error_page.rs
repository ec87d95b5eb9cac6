//! Answers that the gateway makes itself: errors and health. Plain, small, free of the client's bytes and of secrets.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;

use crate::message::{AnsweredBy, Body, Headers, RequestHead, Response, Trail};
use crate::request_id::RequestId;

/// What a person reads under the title. Empty for a status that needs no more words.
fn advice(status: u16) -> &'static str {
    match status {
        408 => "The request did not arrive in time.",
        413 => "The request body is larger than this site accepts.",
        414 => "The address is longer than this site accepts.",
        431 => "The request headers are larger than this site accepts.",
        500 => "The application failed. The request id below finds the reason in the log.",
        502 => "The application stopped while it worked on this request.",
        503 => "The site is busy. Please try again in a moment.",
        504 => "The application took too long to answer.",
        _ => "",
    }
}

/// The standard's name of a status that we answer ourselves.
pub fn title(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Error",
    }
}

/// Does the client read pages, as browsers say in Accept? (Media types know no letter case: RFC 9110, 8.3.1.)
pub fn wants_html(head: &RequestHead) -> bool {
    const HTML: &[u8] = b"text/html";
    head.headers
        .get("accept")
        .is_some_and(|accept| accept.windows(HTML.len()).any(|window| window.eq_ignore_ascii_case(HTML)))
}

/// An error as a page for people (`html`) or as one line of text for programs.
pub fn error(status: u16, html: bool, why: &str, trail: Trail) -> Response {
    let (title, advice) = (title(status), if why.is_empty() { advice(status) } else { why });
    let id = &*trail.request_id;
    let text = if html {
        let footer =
            if id.is_empty() { String::new() } else { format!("<p><small>Request {id}</small></p>\n") };
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n<title>{status} {title}</title>\n\
             <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;\
             color-scheme:light dark}}small{{opacity:.7}}</style>\n\
             <h1>{status} {title}</h1>\n<p>{advice}</p>\n{footer}</html>\n"
        )
    } else {
        let gap = if advice.is_empty() { "" } else { ": " };
        let id = if id.is_empty() { String::new() } else { format!(" (request {id})") };
        format!("{status} {title}{gap}{advice}{id}\n")
    };
    let mut headers = Headers::with_capacity(6, 256);
    let kind: &[u8] = if html { b"text/html; charset=utf-8" } else { b"text/plain; charset=utf-8" };
    headers.push(b"content-type", kind);
    headers.push(b"cache-control", b"no-store");
    if !trail.request_id.is_empty() {
        headers.push(b"X-Request-ID", trail.request_id.as_bytes());
    }
    Response {
        status,
        reason: Box::default(),
        headers,
        body: Body::Bytes(Bytes::from(text)),
        close: false,
        trail,
    }
}

/// A short plain answer, for health checks.
pub fn plain(status: u16, text: &'static str, trail: Trail) -> Response {
    let mut headers = Headers::with_capacity(4, 128);
    headers.push(b"content-type", b"text/plain; charset=utf-8");
    headers.push(b"cache-control", b"no-store");
    let body = Body::Bytes(Bytes::from_static(text.as_bytes()));
    Response { status, reason: Box::default(), headers, body, close: false, trail }
}

/// The trail of a request that nobody but us has seen.
pub fn own_trail(started: Instant, request_id: RequestId, client: Option<IpAddr>) -> Trail {
    Trail {
        started,
        request_id,
        client,
        by: AnsweredBy::Gateway,
        queue_wait: std::time::Duration::ZERO,
        queries: None,
        begun: false,
        lasts: false,
        route: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(status: u16, html: bool, why: &str, id: &str) -> String {
        let response = error(status, html, why, own_trail(Instant::now(), id.into(), None));
        assert_eq!(response.status, status);
        let Body::Bytes(body) = response.body else { panic!("an error page is bytes") };
        String::from_utf8(body.to_vec()).expect("text")
    }

    #[test]
    fn pages_say_what_why_and_which_request() {
        assert_eq!(
            page(503, false, "", "ab12"),
            "503 Service Unavailable: The site is busy. Please try again in a moment. (request ab12)\n"
        );
        assert_eq!(page(400, false, "two Host headers", ""), "400 Bad Request: two Host headers\n");
        let html = page(502, true, "", "ab12");
        assert!(html.contains("<h1>502 Bad Gateway</h1>") && html.contains("Request ab12"), "{html}");
    }
}
