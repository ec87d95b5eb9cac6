//! What compression changes in the fields of a response. Pure.

use super::judge::has_member;
use crate::encoding::Coding;
use crate::message::{AnsweredBy, Headers, RequestHead, Response};

/// The length that the app has announced. An error: nobody can tell what it is, and the driver will refuse it.
pub(super) fn announced(headers: &Headers) -> Result<Option<u64>, Unclear> {
    let mut said = headers.all("content-length").map(<[u8]>::trim_ascii);
    match (said.next(), said.next()) {
        (None, _) => Ok(None),
        (Some(digits), None) if digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).map(Some).ok_or(Unclear)
        }
        _ => Err(Unclear),
    }
}

/// Content-Length is malformed, or there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unclear;

/// The fields of a body that has been, or will be, compressed.
pub(super) fn packed(headers: &mut Headers, coding: Coding) {
    let weak = headers.get("etag").and_then(weakened);
    headers.remove(|name| {
        // The driver says the new length where it is known. Ranges are of the content as it was (RFC 9110, 14.3).
        name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"accept-ranges")
    });
    headers.push(b"Content-Encoding", coding.token().as_bytes());
    if let Some(weak) = weak {
        headers.set("ETag", &weak);
    }
}

/// Caches must keep the variants apart.
pub(super) fn varies(headers: &mut Headers) {
    let is_known = |value: &[u8]| has_member(value, b"accept-encoding") || has_member(value, b"*");
    if headers.all("vary").any(is_known) {
        return;
    }
    let mut vary: Vec<u8> = Vec::new();
    for value in headers.all("vary").filter(|value| !value.trim_ascii().is_empty()) {
        vary.extend_from_slice(value.trim_ascii());
        vary.extend_from_slice(b", ");
    }
    vary.extend_from_slice(b"Accept-Encoding");
    headers.set("Vary", &vary);
}

/// A 304 for a client that holds what was compressed: with the tag and the Vary of its 200 (RFC 9110, 15.4.5). With the app's strong
/// tag a cache would find nothing to refresh (RFC 9111, 4.3.4).
pub(super) fn not_modified(request: &RequestHead, response: &mut Response) {
    if response.status != 304 || !matches!(response.trail.by, AnsweredBy::Worker(_) | AnsweredBy::Upstream) {
        return;
    }
    let Some(weak) = response.headers.get("etag").and_then(weakened) else { return };
    let strong = weak.get(WEAK.len()..).unwrap_or_default();
    let holds = |tag: &[u8]| request.headers.all("if-none-match").any(|held| has_member(held, tag));
    if holds(&weak) && !holds(strong) {
        response.headers.set("ETag", &weak);
        varies(&mut response.headers);
    }
}

const WEAK: &[u8] = b"W/";

/// RFC 9110, 8.8.1: a strong tag would promise the same bytes, and these are others. `None`: it is none, or weak already.
fn weakened(tag: &[u8]) -> Option<Vec<u8>> {
    let tag = tag.trim_ascii();
    tag.starts_with(b"\"").then(|| [WEAK, tag].concat())
}
