//! What is said to who asks for what cannot be: `application/problem+json` for programs (RFC 9457), a page for people.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::error_page;
use crate::message::{AnsweredBy, Body, Headers, RequestHead, Response, Trail};

/// Where problems of Idempotency-Keys are explained when the site has no page of its own.
const DRAFT: &str = "https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header-07";

/// When somebody asks whose other request is being worked on: nobody knows how long it will take, and this is a person's pace.
const SOON: Duration = Duration::from_secs(1);

/// Why a request goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Another request of the same user is under way.
    UnderWay,
    /// And so many wait already.
    LineFull,
    /// It has waited too long for its turn.
    LineSlow,
    /// A later request of the same user has taken its place.
    Superseded,
    /// There is no key.
    KeyMissing,
    /// It is none, or there are two.
    KeyMalformed,
    /// Its request is being worked on.
    KeyOutstanding,
    /// It belongs to another request.
    KeyDiffers,
    /// It was used, and the answer was too large to be kept.
    KeySpent,
    /// It was used, and nobody knows what came of it.
    KeyDoubtful,
    /// There is no room for another.
    KeysFull,
}

impl Problem {
    fn status(self) -> u16 {
        match self {
            Self::KeyMissing | Self::KeyMalformed => 400,
            Self::UnderWay | Self::Superseded | Self::KeyOutstanding | Self::KeySpent | Self::KeyDoubtful => {
                409
            }
            Self::KeyDiffers => 422,
            Self::LineFull => 429,
            Self::LineSlow | Self::KeysFull => 503,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::UnderWay => "Another request of yours is being worked on",
            Self::LineFull => "Too many requests of yours are waiting",
            Self::LineSlow => "Your other requests have taken too long",
            Self::Superseded => "A later request of yours has taken the place of this one",
            Self::KeyMissing => "Idempotency-Key is missing",
            Self::KeyMalformed => "Idempotency-Key is malformed",
            Self::KeyOutstanding => "A request is outstanding for this Idempotency-Key",
            Self::KeyDiffers => "Idempotency-Key is already used",
            Self::KeySpent => "The request with this Idempotency-Key has been answered",
            Self::KeyDoubtful => "The request with this Idempotency-Key was broken off",
            Self::KeysFull => "No further Idempotency-Keys can be taken now",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::UnderWay => "Please wait for its answer.",
            Self::LineFull | Self::LineSlow => "Please try again in a moment.",
            Self::Superseded => "Its answer is the one that counts.",
            Self::KeyMissing => "This operation is done once for each key, and needs one.",
            Self::KeyMalformed => {
                "It is one string of 1 to 255 letters, as \"8e03978e-40d5-43dd-bc93-6894a57f9324\"."
            }
            Self::KeyOutstanding => {
                "The request is being worked on. Send it again in a moment to get its answer."
            }
            Self::KeyDiffers => "It was sent with another request. Use a new key for each operation.",
            Self::KeySpent => "It has been done and is not done again. Its answer was too large to be kept.",
            Self::KeyDoubtful => {
                "Whether it took effect is not known, so it is not done again. Find out before you send it with a new key."
            }
            Self::KeysFull => "Nothing has been done. Please try again later.",
        }
    }

    fn retry_after(self) -> Option<Duration> {
        match self {
            Self::UnderWay | Self::LineFull | Self::LineSlow | Self::KeyOutstanding => Some(SOON),
            Self::KeysFull => Some(Duration::from_secs(60)),
            _ => None,
        }
    }

    fn is_of_keys(self) -> bool {
        !matches!(self, Self::UnderWay | Self::LineFull | Self::LineSlow | Self::Superseded)
    }
}

/// Answers with problems.
#[derive(Debug)]
pub(crate) struct Problems {
    help: Box<str>,
}

impl Problems {
    /// `help`: the site's own page on Idempotency-Keys.
    pub(crate) fn new(help: Option<&str>) -> Self {
        Self { help: help.unwrap_or(DRAFT).into() }
    }

    /// As a response.
    pub(crate) fn response(&self, problem: Problem, head: &RequestHead, trail: &Trail) -> Response {
        let mut trail = trail.clone();
        trail.by = AnsweredBy::Gateway;
        let mut response = if error_page::wants_html(head) {
            let why = format!("{}. {}", problem.title(), problem.detail());
            error_page::error(problem.status(), true, &why, trail)
        } else {
            self.json(problem, trail)
        };
        if problem.is_of_keys() {
            let link = format!("<{}>; rel=\"describedby\"; type=\"text/html\"", self.help);
            response.headers.push(b"Link", link.as_bytes());
        }
        if let Some(retry_after) = problem.retry_after() {
            let mut digits = itoa::Buffer::new();
            response.headers.push(b"Retry-After", digits.format(retry_after.as_secs()).as_bytes());
        }
        response
    }

    fn json(&self, problem: Problem, trail: Trail) -> Response {
        let mut object = json!({
            "title": problem.title(),
            "status": problem.status(),
            "detail": problem.detail(),
        });
        if problem.is_of_keys() {
            object["type"] = (*self.help).into();
        }
        if !trail.request_id.is_empty() {
            object["request_id"] = (*trail.request_id).into();
        }
        let mut headers = Headers::with_capacity(6, 256);
        headers.push(b"Content-Type", b"application/problem+json");
        headers.push(b"Cache-Control", b"no-store");
        headers.push(b"X-Request-ID", trail.request_id.as_bytes());
        let body = Body::Bytes(Bytes::from(format!("{object}\n")));
        Response { status: problem.status(), reason: Box::default(), headers, body, close: false, trail }
    }
}
