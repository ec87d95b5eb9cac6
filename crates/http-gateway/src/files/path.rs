//! From the path of a URL to a path below a root: decoded once, and refused when it could mean anything else.
//!
//! Pure. What comes out of here still goes through [`super::root`], which does not trust it.

use std::borrow::Cow;

/// Longest path below a root. `PATH_MAX` of Linux is 4096 with its closing NUL; longer ones cannot be opened anyway.
const LENGTH_MAX: usize = 4095;

/// Decodes percent escapes, once (RFC 3986, 2.4).
///
/// `None` for what no honest link to a file holds: malformed escapes, control characters, backslashes, and slashes in
/// escaped form, which another program on the way may have taken for part of a name (RFC 3986, 2.2).
pub(super) fn decode(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    let plain = |b: u8| b != b'%' && b != b'\\' && b >= b' ' && b != 0x7f;
    let Some(start) = raw.iter().position(|&b| !plain(b)) else { return Some(Cow::Borrowed(raw)) };
    let (head, mut rest) = raw.split_at(start);
    let mut decoded = Vec::with_capacity(raw.len());
    decoded.extend_from_slice(head);
    while let [byte, after @ ..] = rest {
        rest = after;
        if plain(*byte) {
            decoded.push(*byte);
            continue;
        }
        let (b'%', [high, low, after @ ..]) = (*byte, after) else { return None };
        rest = after;
        let byte = (hex(*high)? << 4) | hex(*low)?;
        if byte != b'%' && (!plain(byte) || byte == b'/') {
            return None;
        }
        decoded.push(byte);
    }
    Some(Cow::Owned(decoded))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// May this decoded path be looked up below a root? No empty segment (so no directory either), no `.` or `..`, and
/// nothing hidden: a name with a dot in front is for the owner of the files (`.env`, `.git`). `.well-known` is public
/// by its nature (RFC 8615).
pub(super) fn is_servable(path: &[u8]) -> bool {
    path.len() <= LENGTH_MAX
        && path.split(|&b| b == b'/').all(|segment| match segment {
            [] => false,
            [b'.', ..] => segment == b".well-known",
            _ => true,
        })
}

/// Does the file's name hold a content hash as Django's `ManifestStaticFilesStorage` writes it: `app.0123456789ab.css`, or
/// `app.0123456789ab` for a name without extension?
pub(super) fn is_hashed(path: &[u8]) -> bool {
    /// Django takes the first twelve hexadecimal digits of an MD5.
    const DIGITS: usize = 12;
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let mut parts = name.rsplit(|&b| b == b'.');
    let is_hash = |part: Option<&[u8]>| {
        part.is_some_and(|part| {
            part.len() == DIGITS && part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let (last, before) = (parts.next(), parts.next());
    // There must be a name in front of the hash.
    (is_hash(before) && parts.next().is_some()) || (is_hash(last) && before.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decoding() {
        #[track_caller]
        fn check(raw: &str, decoded: Option<&str>) {
            assert_eq!(decode(raw.as_bytes()).as_deref(), decoded.map(str::as_bytes), "{raw}");
        }
        check("/static/a.css", Some("/static/a.css"));
        check("/a%20b", Some("/a b"));
        check("/caf%C3%A9.css", Some("/café.css"));
        check("/100%25", Some("/100%"));
        check("/%2525", Some("/%25"));
        check("/%2e%2E/x", Some("/../x"));
        for refused in [
            "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00b", "/a%0ab", "/%7f", "/%", "/%4", "/%zz", "/a\u{1}",
        ] {
            check(refused, None);
        }
    }

    #[test]
    fn servable() {
        for path in ["a", "a/b.css", ".well-known/x", "a..b", "a/b...c", "...a".trim_start_matches('.')] {
            assert!(is_servable(path.as_bytes()), "{path}");
        }
        for path in [
            "",
            "/a",
            "a//b",
            "a/",
            ".",
            "..",
            "a/../b",
            "a/./b",
            ".env",
            "a/.git/config",
            "...",
            ".well-knownx",
        ] {
            assert!(!is_servable(path.as_bytes()), "{path}");
        }
        assert!(!is_servable(&[b'a'; LENGTH_MAX + 1]));
    }

    #[test]
    fn hashed_names() {
        for name in ["app.0123456789ab.css", "css/app.min.0123456789ab.css", "LICENSE.0123456789ab"] {
            assert!(is_hashed(name.as_bytes()), "{name}");
        }
        for name in [
            "app.css",
            "0123456789ab.css",
            "0123456789ab",
            "app.0123456789AB.css",
            "app.0123456789abc.css",
            "app.0123456789ab.css.map",
        ] {
            assert!(!is_hashed(name.as_bytes()), "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_decoded_has_no_trap_left(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(path) = decode(&raw) {
                prop_assert!(path.iter().all(|&b| b >= b' ' && b != b'\\' && b != 0x7f));
                let slashes = |bytes: &[u8]| bytes.split(|&b| b == b'/').count();
                prop_assert_eq!(slashes(&path), slashes(&raw));
            }
        }
    }
}
