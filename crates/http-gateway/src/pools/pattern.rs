//! Path patterns of `[[worker_pool]]` and `queue.priority`, compiled: `*` stands for any text, also an empty one.
//!
//! Means what `ctl_config::pool::pattern_matches` means (a property test compares them), on bytes: a decoded path need not be
//! UTF-8.

use std::borrow::Cow;

use memchr::memmem::Finder;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    /// No star: that path only.
    Exact(Box<[u8]>),
    /// What stands before, between and behind the stars.
    Stars { head: Box<[u8]>, middle: Vec<Finder<'static>>, tail: Box<[u8]> },
}

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Self {
        let Some((head, rest)) = pattern.split_once('*') else {
            return Self::Exact(pattern.as_bytes().into());
        };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        let middle = middle.split('*').filter(|piece| !piece.is_empty());
        Self::Stars {
            head: head.as_bytes().into(),
            middle: middle.map(|piece| Finder::new(piece.as_bytes()).into_owned()).collect(),
            tail: tail.as_bytes().into(),
        }
    }

    /// Does it match a decoded path? The earliest place of each piece is right, since pieces are plain text: linear time.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(only) => **only == *path,
            Self::Stars { head, middle, tail } => {
                let Some(mut path) = path.strip_prefix(&**head) else { return false };
                for piece in middle {
                    let Some(at) = piece.find(path) else { return false };
                    path = path.get(at + piece.needle().len()..).unwrap_or_default();
                }
                path.ends_with(tail)
            }
        }
    }
}

/// The path as the app sees it: percent escapes decoded once, what is no escape left as it is, `.` and `..` left alone. Just so
/// the worker makes `PATH_INFO`; another reading here would let a client choose a pool that is not the view's.
pub fn decode(path: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'%', path) else { return Cow::Borrowed(path) };
    let (plain, mut rest) = path.split_at(first);
    let mut decoded = Vec::with_capacity(path.len());
    decoded.extend_from_slice(plain);
    while let [byte, behind @ ..] = rest {
        let digit = |at: usize| behind.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        if *byte == b'%'
            && let (Some(high), Some(low)) = (digit(0), digit(1))
        {
            // Two hexadecimal digits: below 256.
            decoded.push((high * 16 + low) as u8);
            rest = behind.get(2..).unwrap_or_default();
        } else {
            decoded.push(*byte);
            rest = behind;
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        #[track_caller]
        fn check(pattern: &str, path: &str, matches: bool) {
            assert_eq!(Pattern::new(pattern).matches(path.as_bytes()), matches, "{pattern} {path}");
        }
        check("/export", "/export", true);
        check("/export", "/export/", false);
        check("/reports/*", "/reports/", true);
        check("/reports/*", "/reports/a/b", true);
        check("/reports/*", "/reports", false);
        check("/reports/*", "/x/../reports/a", false);
        check("/shops/*/export", "/shops/7/export", true);
        check("/shops/*/export", "/shops/export", false);
        check("/shops/*/a/*/export", "/shops/1/a/2/a/3/export", true);
        check("/a*a", "/a", false);
        check("/*", "/", true);
    }

    #[test]
    fn paths_are_decoded_once_and_not_otherwise_changed() {
        #[track_caller]
        fn check(path: &str, decoded: &str) {
            assert_eq!(decode(path.as_bytes()), decoded.as_bytes(), "{path}");
        }
        check("/reports/x", "/reports/x");
        check("/%72eports/%78", "/reports/x");
        check("/%2572eports/", "/%72eports/");
        check("/x/%2e%2e/reports/", "/x/../reports/");
        check("/a%2Freports", "/a/reports");
        check("/%/%4/%zz%", "/%/%4/%zz%");
    }

    fn piece() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!['a', 'b', '/', '*']), 0..10)
            .prop_map(|letters| letters.into_iter().collect())
    }

    proptest! {
        #[test]
        fn means_what_the_configuration_means(pattern in piece(), path in "[ab/]{0,12}") {
            let matches = Pattern::new(&pattern).matches(path.as_bytes());
            prop_assert_eq!(matches, ctl_config::pool::pattern_matches(&pattern, &path), "{} {}", pattern, path);
        }

        #[test]
        fn decoding_never_grows_and_undoes_encoding(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(decode(&raw).len() <= raw.len());
            let encoded = raw.iter().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
            let decoded = decode(encoded.as_bytes());
            prop_assert_eq!(&*decoded, &raw[..]);
        }
    }
}
