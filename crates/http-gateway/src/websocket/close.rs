//! Why a WebSocket ends: the codes of close frames, and what a client may not do. No I/O.

use std::borrow::Cow;

/// RFC 6455, 7.4.1: the server goes away, and nobody takes its place.
pub const GOING_AWAY: u16 = 1001;
/// The other side broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// Never sent: the close frame had no code.
pub const NO_CODE: u16 = 1005;
/// Never sent: there was no close frame.
pub const ABNORMAL: u16 = 1006;
/// A text message is not UTF-8.
pub const NOT_UTF8: u16 = 1007;
/// A message is larger than we take.
pub const TOO_BIG: u16 = 1009;
/// From the registry that the standard opened (7.4.2): the client may come again at once.
pub const SERVICE_RESTART: u16 = 1012;
/// The server cannot go on.
pub const INTERNAL_ERROR: u16 = 1011;

/// A control frame's payload is at most 125 bytes (RFC 6455, 5.5); the code takes two.
pub const REASON_BYTES_MAX: usize = 123;

/// The client broke the rules: the connection is failed with this code (RFC 6455, 7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// Goes into the close frame.
    pub code: u16,
    /// Free of the client's bytes; goes into the close frame, too.
    pub why: &'static str,
}

impl Violation {
    pub(super) const fn protocol(why: &'static str) -> Self {
        Self { code: PROTOCOL_ERROR, why }
    }

    pub(super) const NOT_UTF8: Self = Self { code: NOT_UTF8, why: "the text is not UTF-8" };
    pub(super) const TOO_BIG: Self = Self { code: TOO_BIG, why: "the message is too large" };
}

/// May a close frame carry this code? (RFC 6455, 7.4.1 and 7.4.2, and the registry that it opened: 1012 to 1014.)
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// What a client's close frame says. `None`: it says nothing.
pub(super) fn parse(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::protocol("a close frame has half a code")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !may_be_sent(code) {
        return Err(Violation::protocol("a close frame has a code that must not be sent"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::NOT_UTF8)?;
    Ok(Some((code, reason)))
}

/// The payload of a close frame. 1005 makes an empty one; a reason that is too long is cut between two characters.
pub(super) fn payload(code: u16, reason: &str) -> Cow<'static, [u8]> {
    if code == NO_CODE {
        return Cow::Borrowed(&[]);
    }
    let fits = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find_map(|end| reason.get(..end));
    let reason = fits.unwrap_or_default();
    Cow::Owned([&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 4000, 4999] {
            assert!(may_be_sent(code), "{code}");
        }
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!may_be_sent(code), "{code}");
        }
    }

    #[test]
    fn close_frames_are_read() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"\x03"), Err(Violation::protocol("a close frame has half a code")));
        assert_eq!(parse(b"\x03\xe8"), Ok(Some((1000, ""))));
        assert_eq!(parse("\u{3}\0".as_bytes()).map_err(|v| v.code), Err(1002));
        assert_eq!(parse(b"\x0f\xa0adi\xc3\xb3s"), Ok(Some((4000, "adi\u{f3}s"))));
        assert_eq!(parse(b"\x0f\xa0\xff").map_err(|v| v.code), Err(1007));
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(&*payload(NO_CODE, "x"), b"");
        assert_eq!(&*payload(1000, "bye"), b"\x03\xe8bye");
        let long = "\u{f3}".repeat(100);
        let cut = payload(1000, &long);
        assert_eq!(cut.len(), 2 + 122);
        assert_eq!(parse(&cut), Ok(Some((1000, &*"\u{f3}".repeat(61)))));
    }
}
