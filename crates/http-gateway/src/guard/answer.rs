//! What is said to those who are refused.

use std::time::Duration;

use crate::error_page;
use crate::message::{AnsweredBy, NO_ANSWER, RequestHead, Response, Trail};

/// Why a request goes no further.
#[derive(Debug)]
pub(super) enum Refused {
    /// Beyond a limit.
    Limited {
        name: Box<str>,
        /// The value of `RateLimit-Policy`.
        policy: Box<str>,
        retry_in: Duration,
    },
    /// It would have had to wait, and too many do.
    Crowded(Duration),
    /// Its client is banned.
    Banned,
    /// The same, and is told nothing.
    Dropped,
}

impl Refused {
    /// As a response.
    pub(super) fn response(&self, head: &RequestHead, trail: &Trail) -> Response {
        let mut trail = trail.clone();
        trail.by = AnsweredBy::Gateway;
        let html = error_page::wants_html(head);
        match self {
            Self::Limited { name, policy, retry_in } => {
                let seconds = seconds_up(*retry_in);
                let mut response = too_many(html, seconds, trail);
                // draft-ietf-httpapi-ratelimit-headers-11, 6: with Retry-After both times mean the same moment.
                response.headers.push(b"RateLimit-Policy", policy.as_bytes());
                let limit = format!("\"{name}\";r=0;t={seconds}");
                response.headers.push(b"RateLimit", limit.as_bytes());
                response
            }
            Self::Crowded(turn_in) => too_many(html, seconds_up(*turn_in), trail),
            Self::Banned => {
                let why = "Requests from your address are not answered for the time being.";
                let mut response = error_page::error(403, html, why, trail);
                response.close = true;
                response
            }
            Self::Dropped => {
                let mut response = error_page::error(NO_ANSWER, false, "", trail);
                response.close = true;
                response
            }
        }
    }
}

fn too_many(html: bool, seconds: u64, trail: Trail) -> Response {
    let unit = if seconds == 1 { "second" } else { "seconds" };
    let why = format!("You have sent too many requests. Please try again in {seconds} {unit}.");
    let mut response = error_page::error(429, html, &why, trail);
    // RFC 6585, 4.
    response.headers.push(b"retry-after", itoa::Buffer::new().format(seconds).as_bytes());
    response
}

/// Whole seconds, after which it is true; at least one, since nobody should come again at once.
pub(super) fn seconds_up(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}
