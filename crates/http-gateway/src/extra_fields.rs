//! Fields that stand before a response (103 Early Hints, RFC 8297) or behind its body (trailers): which of the app's may. Pure.

use crate::message::Headers;

/// May a 103 carry it? A client may act on it before there is a response, so what describes that response's body or ends
/// the connection has no place there.
pub(crate) fn is_hint(name: &[u8]) -> bool {
    !is_framing(name)
}

/// May it stand behind a body? RFC 9110, 6.5.1: nothing that is needed to frame, route, authenticate or read the message, and
/// nothing that a client must know before the body.
pub(crate) fn is_trailer(name: &[u8]) -> bool {
    const FORBIDDEN: &[&str] = &[
        "age",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "date",
        "expires",
        "host",
        "location",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "retry-after",
        "set-cookie",
        "vary",
        "warning",
        "www-authenticate",
    ];
    !is_framing(name) && !FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden.as_bytes()))
}

fn is_framing(name: &[u8]) -> bool {
    const FRAMING: &[&str] = &[
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing.as_bytes()))
}

/// Has the client said that it wants trailers (RFC 9110, 10.1.4)?
pub(crate) fn wants_trailers(request: &Headers) -> bool {
    request.all("te").any(|te| {
        te.split(|&b| b == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_stand_where() {
        for (name, hint, trailer) in [
            ("Link", true, true),
            ("Server-Timing", true, true),
            ("grpc-status", true, true),
            ("Content-Type", true, false),
            ("Set-Cookie", true, false),
            ("Content-Length", false, false),
            ("transfer-encoding", false, false),
            ("Trailer", false, false),
        ] {
            assert_eq!((is_hint(name.as_bytes()), is_trailer(name.as_bytes())), (hint, trailer), "{name}");
        }
    }

    #[test]
    fn who_wants_trailers() {
        for (te, wants) in [("trailers", true), ("gzip;q=0.5, Trailers", true), ("gzip", false), ("", false)]
        {
            let mut headers = Headers::default();
            headers.push(b"te", te.as_bytes());
            assert_eq!(wants_trailers(&headers), wants, "{te}");
        }
    }
}
