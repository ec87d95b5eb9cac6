//! Via (RFC 9110, 7.6.3): what servers are told of the way of a request, and how a way that leads back to itself is noticed. Pure.

use py_link::Version;

use crate::h1::elements;
use crate::message::Headers;

/// What this program is called there. The same everywhere: it tells nobody which machine it was, and two sites that send requests to
/// each other count together.
const NAME: &[u8] = b"quintet";

/// An edge, a region, a host: nobody puts more of them behind each other. A request that has come through so many goes in a circle.
const HOPS_MAX: usize = 8;

/// The field's value for a request that came in this version.
pub(super) fn via(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"1.0 quintet",
        Version::Http11 => b"1.1 quintet",
        Version::Http2 => b"2.0 quintet",
        Version::Http3 => b"3.0 quintet",
    }
}

/// Has the request come through so many of us that it will go on for ever?
pub(super) fn goes_in_a_circle(headers: &Headers) -> bool {
    let hops = headers.all("via").flat_map(elements).filter(|hop| is_ours(hop));
    hops.take(HOPS_MAX).count() == HOPS_MAX
}

/// `1.1 quintet`, with a comment behind it or without.
fn is_ours(hop: &[u8]) -> bool {
    hop.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).nth(1) == Some(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles() {
        let goes = |fields: &[String]| {
            let mut headers = Headers::default();
            for field in fields {
                headers.push(b"via", field.as_bytes());
            }
            goes_in_a_circle(&headers)
        };
        let hops = |count: usize| vec!["1.1 quintet"; count].join(", ");
        assert!(!goes(&[]));
        assert!(!goes(&[hops(7)]));
        assert!(goes(&[hops(8)]));
        assert!(goes(&[hops(4), "1.0 fred".to_owned(), hops(3), "2.0  quintet (edge)".to_owned()]));
        assert!(!goes(&[hops(7), "1.1 quintet.example.org, quintet, 1.1 varnish (quintet)".to_owned()]));
    }
}
