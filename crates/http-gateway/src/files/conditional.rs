//! Preconditions: which of them decides, and how (RFC 9110, 13). Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::message::{Headers, Method, RequestHead};

/// What a representation is recognised by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validators<'a> {
    /// A strong entity tag, with its quotes.
    pub(super) etag: &'a [u8],
    /// Last-Modified in whole seconds, as it was sent; `None` where the file's date says nothing.
    pub(super) modified: Option<SystemTime>,
}

/// What the preconditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer; with the range asked for, or without regard to it.
    Answer { range: bool },
    /// 304
    NotModified,
    /// 412
    Failed,
}

/// Does a request hold any field that this module or a range would have to look at? Most do not.
pub(super) fn is_plain(headers: &Headers) -> bool {
    !headers.iter().any(|(name, _)| name.starts_with(b"if-") || name == b"range")
}

/// RFC 9110, 13.2.2, step by step.
pub(super) fn evaluate(head: &RequestHead, validators: Validators<'_>) -> Verdict {
    let headers = &head.headers;
    // Steps 1 and 2: for If-Match the strong comparison (13.1.1).
    if headers.contains("if-match") {
        if !headers.all("if-match").any(|value| matches_any(value, validators.etag, Comparison::Strong)) {
            return Verdict::Failed;
        }
    } else if let Some(since) = date(headers, "if-unmodified-since")
        && validators.modified.is_some_and(|modified| modified > since)
    {
        return Verdict::Failed;
    }
    // Steps 3 and 4: for If-None-Match the weak comparison (13.1.2); If-Modified-Since is for GET and HEAD (13.1.3).
    let reads = matches!(head.method, Method::Get | Method::Head);
    if headers.contains("if-none-match") {
        if headers.all("if-none-match").any(|value| matches_any(value, validators.etag, Comparison::Weak)) {
            return if reads { Verdict::NotModified } else { Verdict::Failed };
        }
    } else if reads
        && let Some(since) = date(headers, "if-modified-since")
        && validators.modified.is_some_and(|modified| modified <= since)
    {
        return Verdict::NotModified;
    }
    // Step 5.
    Verdict::Answer { range: head.method == Method::Get && range_applies(headers, validators) }
}

/// From this age on a date is a strong validator: RFC 9110, 8.8.2.2 wants it a second older than the answer at least; we take
/// a minute, as the clocks of file servers differ.
const SETTLED: Duration = Duration::from_secs(60);

/// RFC 9110, 13.1.5: a range is sent only of the very representation that the client has a part of.
fn range_applies(headers: &Headers, validators: Validators<'_>) -> bool {
    let Some(value) = headers.get("if-range").map(<[u8]>::trim_ascii) else { return true };
    if value.ends_with(b"\"") {
        // A weak tag never matches here: the comparison is strong.
        return value == validators.etag;
    }
    // A date has to be the very Last-Modified.
    let (Some(modified), Some(date)) = (validators.modified, parse_date(value)) else { return false };
    modified == date && SystemTime::now().duration_since(modified).is_ok_and(|age| age >= SETTLED)
}

/// RFC 9110, 13.1.3 and 13.1.4: a value that is no valid date, or one of several, is ignored.
fn date(headers: &Headers, name: &str) -> Option<SystemTime> {
    let mut values = headers.all(name);
    let first = values.next()?;
    if values.next().is_some() { None } else { parse_date(first) }
}

fn parse_date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value.trim_ascii()).ok()?).ok()
}

/// A file's date as HTTP can say it: whole seconds, and not from the future (RFC 9110, 8.8.2.1).
pub(super) fn whole_seconds(modified: SystemTime, now: SystemTime) -> SystemTime {
    let since_epoch = modified.min(now).duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Is our (strong) tag in this list, or the list `*`? RFC 9110, 8.8.3.2. A list that is broken somewhere counts up to there.
fn matches_any(list: &[u8], etag: &[u8], comparison: Comparison) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    while !rest.is_empty() {
        let (weak, tag) = match rest.strip_prefix(b"W/") {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        let Some(end) = tag.strip_prefix(b"\"").and_then(|inner| memchr::memchr(b'"', inner)) else {
            return false;
        };
        // Two more than the opaque part: the quotes.
        let (tag, after) = tag.split_at(end + 2);
        if tag == etag && !(weak && comparison == Comparison::Strong) {
            return true;
        }
        rest = after.trim_ascii_start();
        while let Some(next) = rest.strip_prefix(b",") {
            rest = next.trim_ascii_start();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use py_link::Version;

    const ETAG: &[u8] = b"\"v1\"";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn head(method: &str, fields: &str) -> RequestHead {
        let mut headers = Headers::default();
        for field in fields.split('|').filter(|field| !field.trim().is_empty()) {
            let (name, value) = field.trim().split_once(": ").unwrap();
            let value = value.replace("MODIFIED", MODIFIED).replace("BEFORE", BEFORE).replace("AFTER", AFTER);
            headers.push_lower(name.as_bytes(), value.as_bytes());
        }
        let method = Method::from_bytes(method.as_bytes());
        RequestHead { method, target: b"/".to_vec(), version: Version::Http11, headers }
    }

    #[track_caller]
    fn check(method: &str, fields: &str, expected: &str) {
        let validators = Validators { etag: ETAG, modified: parse_date(MODIFIED.as_bytes()) };
        let got = match evaluate(&head(method, fields), validators) {
            Verdict::Answer { range: true } => "answer",
            Verdict::Answer { range: false } => "whole",
            Verdict::NotModified => "304",
            Verdict::Failed => "412",
        };
        assert_eq!(got, expected, "{method} {fields}");
    }

    #[test]
    fn if_match() {
        check("GET", "", "answer");
        check("GET", "If-Match: \"v1\"", "answer");
        check("GET", "If-Match: \"v0\", \"v1\"", "answer");
        check("GET", "If-Match: \"v0\" | If-Match: \"v1\"", "answer");
        check("GET", "If-Match: *", "answer");
        check("GET", "If-Match: \"v0\"", "412");
        check("GET", "If-Match: W/\"v1\"", "412");
        check("GET", "If-Match: v1", "412");
    }

    #[test]
    fn if_unmodified_since() {
        check("GET", "If-Unmodified-Since: AFTER", "answer");
        check("GET", "If-Unmodified-Since: MODIFIED", "answer");
        check("GET", "If-Unmodified-Since: BEFORE", "412");
        check("GET", "If-Unmodified-Since: yesterday", "answer");
        check("GET", "If-Match: \"v1\" | If-Unmodified-Since: BEFORE", "answer");
    }

    #[test]
    fn if_none_match() {
        check("GET", "If-None-Match: \"v1\"", "304");
        check("HEAD", "If-None-Match: W/\"v1\"", "304");
        check("GET", "If-None-Match: *", "304");
        check("GET", "If-None-Match: \"a,b\" , , W/\"v1\"", "304");
        check("GET", "If-None-Match: \"v0\"", "answer");
        check("GET", "If-None-Match: \"v1", "answer");
        check("POST", "If-None-Match: \"v1\"", "412");
        check("GET", "If-None-Match: \"v0\" | If-Modified-Since: AFTER", "answer");
        check("GET", "If-Match: \"v0\" | If-None-Match: \"v1\"", "412");
    }

    #[test]
    fn if_modified_since() {
        check("GET", "If-Modified-Since: MODIFIED", "304");
        check("GET", "If-Modified-Since: AFTER", "304");
        check("GET", "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", "304");
        check("GET", "If-Modified-Since: Sun Nov  6 08:49:37 1994", "304");
        check("GET", "If-Modified-Since: BEFORE", "answer");
        check("GET", "If-Modified-Since: 1994", "answer");
        check("POST", "If-Modified-Since: MODIFIED", "whole");
    }

    #[test]
    fn if_range() {
        check("GET", "If-Range: \"v1\"", "answer");
        check("GET", "If-Range: \"v0\"", "whole");
        check("GET", "If-Range: W/\"v1\"", "whole");
        check("GET", "If-Range: MODIFIED", "answer");
        check("GET", "If-Range: AFTER", "whole");
        check("GET", "If-Range: BEFORE", "whole");
        check("GET", "If-Range: nonsense", "whole");
        check("HEAD", "If-Range: \"v1\"", "whole");
    }

    #[test]
    fn a_date_that_says_nothing_decides_nothing() {
        let validators = Validators { etag: ETAG, modified: None };
        for field in ["If-Modified-Since: AFTER", "If-Unmodified-Since: BEFORE"] {
            assert_eq!(evaluate(&head("GET", field), validators), Verdict::Answer { range: true });
        }
        assert_eq!(
            evaluate(&head("GET", "If-Range: MODIFIED"), validators),
            Verdict::Answer { range: false }
        );
    }

    proptest! {
        #[test]
        fn lists_of_tags_never_panic(list in prop::collection::vec(any::<u8>(), 0..48)) {
            let strong = matches_any(&list, ETAG, Comparison::Strong);
            let weak = matches_any(&list, ETAG, Comparison::Weak);
            prop_assert!(weak || !strong);
        }
    }
}
