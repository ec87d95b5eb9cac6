//! Is a response to be compressed, and how? Pure.

use ctl_config::settings::Compression;

use super::head::announced;
use super::media_type::is_compressible;
use crate::encoding::{Accepted, Coding, CodingSet};
use crate::message::{AnsweredBy, Body, Headers, Method, RequestHead, Response, Version};
use crate::pools::pattern::{Pattern, decode};

/// What is to be done with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is none of our business.
    Leave,
    /// It would be compressed for another client, which caches have to know.
    AsItIs,
    /// Compress it so.
    Pack(Coding),
}

/// What the configuration says.
pub(super) struct Rules {
    /// What holds where a route does not say it.
    enabled: bool,
    types: Box<[Box<str>]>,
    exclude: Box<[Pattern]>,
    body_min: u64,
}

impl Rules {
    pub(super) fn new(config: &Compression) -> Self {
        Self {
            enabled: config.enabled,
            types: config.types.iter().map(|name| name.as_str().into()).collect(),
            exclude: config.exclude.iter().map(|pattern| Pattern::new(pattern)).collect(),
            body_min: config.body_min,
        }
    }

    pub(super) fn judge(&self, request: &RequestHead, response: &Response) -> Verdict {
        if !self.would_pack(request, response) {
            return Verdict::Leave;
        }
        // A stream of unknown length ends with the connection for HTTP/1.0; with its Content-Length the connection can be kept.
        let keeps_its_length = request.version == Version::Http10 && !matches!(response.body, Body::Bytes(_));
        if keeps_its_length || could_be_overheard(&request.headers) {
            return Verdict::AsItIs;
        }
        let accepted = Accepted::parse(request.headers.all("accept-encoding"));
        match accepted.choose_by(Coding::BY_COST, CodingSet::ALL) {
            Coding::Identity => Verdict::AsItIs,
            coding => Verdict::Pack(coding),
        }
    }

    /// Everything that does not depend on what this client accepts.
    fn would_pack(&self, request: &RequestHead, response: &Response) -> bool {
        // Files see to it themselves, and what the gateway says is short.
        matches!(response.trail.by, AnsweredBy::Worker(_) | AnsweredBy::Upstream)
            // 204, 205 and 304 have no content, 206 has ranges of what the app knows (RFC 9110, 15.3.7).
            && !matches!(response.status, 0..=199 | 204 | 205 | 206 | 304)
            && self.is_long_enough(request, response)
            && self.is_wanted(response)
            && self.may_be_changed(&response.headers)
            && !self.excludes(request)
    }

    /// What its route says, if it says something.
    pub(super) fn is_wanted(&self, response: &Response) -> bool {
        response.trail.route.as_ref().and_then(|route| route.compress).unwrap_or(self.enabled)
    }

    fn is_long_enough(&self, request: &RequestHead, response: &Response) -> bool {
        let Ok(announced) = announced(&response.headers) else { return false };
        let length = match &response.body {
            Body::Bytes(bytes) => {
                let real = bytes.len() as u64;
                // One that lies is for the driver to refuse.
                if announced.is_some_and(|announced| announced != real) {
                    return false;
                }
                Some(real)
            }
            Body::Stream(_) => announced,
            // What GET would have; nothing is said of it where the app makes it piece by piece.
            Body::Empty if request.method == Method::Head => announced,
            Body::Empty | Body::File(_) => return false,
        };
        length.is_none_or(|length| length >= self.body_min)
    }

    fn may_be_changed(&self, headers: &Headers) -> bool {
        let mut compressible = false;
        for (name, value) in headers.iter() {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            match name.len() {
                12 if is(b"content-type") => compressible = is_compressible(value, &self.types),
                // Also `identity`, with which an app keeps others from compressing.
                16 if is(b"content-encoding") => return false,
                // RFC 9111, 5.2.2.6.
                13 if is(b"cache-control") && has_member(value, b"no-transform") => return false,
                13 if is(b"content-range") => return false,
                // They are made of the content as it is coded (RFC 9530, 2 and 3; RFC 1864).
                14 if is(b"content-digest") => return false,
                11 if is(b"content-md5") || is(b"repr-digest") => return false,
                6 if is(b"digest") => return false,
                _ => {}
            }
        }
        compressible
    }

    fn excludes(&self, request: &RequestHead) -> bool {
        !self.exclude.is_empty() && {
            let path = decode(request.path());
            self.exclude.iter().any(|pattern| pattern.matches(&path))
        }
    }
}

/// Is there this member in a list?
pub(super) fn has_member(list: &[u8], member: &[u8]) -> bool {
    list.split(|&b| b == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(member))
}

/// BREACH: who makes a visitor's browser ask for pages over and over, and sees how long the answers are, can find out a secret in
/// them letter by letter if they repeat what he chooses. Browsers tell that a request comes from another site (W3C Fetch Metadata);
/// one that shows who the visitor is besides is answered without compression.
fn could_be_overheard(request: &Headers) -> bool {
    let from_elsewhere = |site: &[u8]| site.trim_ascii().eq_ignore_ascii_case(b"cross-site");
    request.get("sec-fetch-site").is_some_and(from_elsewhere)
        && (request.contains("cookie") || request.contains("authorization"))
}
