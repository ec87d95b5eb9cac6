//! How a path reads, to whom. Pure.
//!
//! Django takes the decoded path as it is: `//admin/` and `/x/../admin/` are other paths to it than `/admin/`. Most servers that a
//! route may pass requests on to, and other frameworks, do not: they merge slashes, follow `..`, cut what stands behind a `;`, or
//! leave `%2F` alone. A rule for `/admin/*` must hold for all of them. So a path that is not plain is compared with the routes in
//! each of these readings, and refused where they lead to different routes: nothing is repaired, and nothing is guessed.

use std::borrow::Cow;
use std::cell::OnceCell;

use crate::pools::pattern::decode;

/// A path as somebody may read it.
pub(super) struct Reading<'a> {
    bytes: Cow<'a, [u8]>,
    /// For regular expressions. What is no UTF-8 is replaced, as in the path that an ASGI app sees.
    text: OnceCell<String>,
}

impl<'a> Reading<'a> {
    fn new(bytes: Cow<'a, [u8]>) -> Self {
        Self { bytes, text: OnceCell::new() }
    }

    /// As the app reads it: decoded once.
    pub(super) fn of(path: &'a [u8]) -> Self {
        Self::new(decode(rooted(path)))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn text(&self) -> &str {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text,
            Err(_) => self.text.get_or_init(|| String::from_utf8_lossy(&self.bytes).into_owned()),
        }
    }
}

/// RFC 9112, 3.2.1: an empty path is the root's. `OPTIONS *` has none, and comes to the app as one for the root.
fn rooted(path: &[u8]) -> &[u8] {
    if matches!(path, b"" | b"*") { b"/" } else { path }
}

/// The other readings of a path, if there are any; `as_app` is the app's. Few: what a client sends does not multiply them.
pub(super) fn others(path: &[u8], as_app: &Reading<'_>) -> Vec<Reading<'static>> {
    let path = rooted(path);
    let kept = has_escaped_separator(path).then(|| decode_but_separators(path));
    if kept.is_none() && is_plain(as_app.bytes()) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for base in std::iter::once(as_app.bytes()).chain(kept.as_deref()) {
        for parameters in [Parameters::Kept, Parameters::Cut] {
            for slashes in [Slashes::Kept, Slashes::Merged] {
                found.push(normal(base, parameters, slashes));
            }
        }
    }
    found.extend(kept);
    found.sort();
    found.dedup();
    found.retain(|reading| reading != as_app.bytes());
    found.into_iter().map(|bytes| Reading::new(Cow::Owned(bytes))).collect()
}

/// No other program can see more in it than is there.
fn is_plain(decoded: &[u8]) -> bool {
    let odd = |pair: &[u8]| matches!(pair, b"//" | b"/.");
    !decoded.windows(2).any(odd) && memchr::memchr2(b';', b'\\', decoded).is_none()
}

/// `%2F` or `%5C`.
fn has_escaped_separator(path: &[u8]) -> bool {
    memchr::memchr_iter(b'%', path).any(|at| is_separator(path.get(at + 1..at + 3)))
}

fn is_separator(digits: Option<&[u8]>) -> bool {
    matches!(digits, Some([b'2', b'f' | b'F'] | [b'5', b'c' | b'C']))
}

/// As servers read it that take an escaped slash for a letter of a name.
fn decode_but_separators(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut from = 0;
    for at in memchr::memchr_iter(b'%', path).filter(|at| is_separator(path.get(at + 1..at + 3))) {
        decoded.extend_from_slice(&decode(path.get(from..at).unwrap_or_default()));
        decoded.extend_from_slice(path.get(at..at + 3).unwrap_or_default());
        from = at + 3;
    }
    decoded.extend_from_slice(&decode(path.get(from..).unwrap_or_default()));
    decoded
}

/// What stands behind a `;` in a segment (RFC 3986, 3.3): a part of the name, or not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameters {
    Kept,
    Cut,
}

/// Empty segments: segments like others, or nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slashes {
    Kept,
    Merged,
}

/// Without dot segments (RFC 3986, 5.2.4); a backslash is a slash, as to Windows.
fn normal(path: &[u8], parameters: Parameters, slashes: Slashes) -> Vec<u8> {
    let is_slash = |b: &u8| matches!(b, b'/' | b'\\');
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut directory = false;
    for segment in path.split(is_slash).skip(1) {
        let segment = match parameters {
            Parameters::Kept => segment,
            Parameters::Cut => segment.split(|&b| b == b';').next().unwrap_or_default(),
        };
        directory = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"." => {}
            b".." => drop(segments.pop()),
            b"" if slashes == Slashes::Merged => {}
            _ => segments.push(segment),
        }
    }
    // The last segment of `/a/` is an empty one; where it is kept it is there already.
    let ends = directory && (segments.last().is_none_or(|last| !last.is_empty()));
    let mut normal = Vec::with_capacity(path.len());
    for segment in segments {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if ends || normal.is_empty() {
        normal.push(b'/');
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(path: &str, as_app: &str, expected: &[&str]) {
        let reading = Reading::of(path.as_bytes());
        assert_eq!(reading.text(), as_app, "{path}");
        let others = others(path.as_bytes(), &reading);
        let others: Vec<_> = others.iter().map(Reading::text).collect();
        assert_eq!(others, expected, "{path}");
    }

    #[test]
    fn plain_paths_have_one_reading() {
        check("/", "/", &[]);
        check("/admin/", "/admin/", &[]);
        check("/%61dmin/a%20b", "/admin/a b", &[]);
        check("/a.b/c..d", "/a.b/c..d", &[]);
        check("", "/", &[]);
        check("*", "/", &[]);
    }

    #[test]
    fn others_have_several() {
        check("//admin/", "//admin/", &["/admin/"]);
        check("/x/../admin/", "/x/../admin/", &["/admin/"]);
        check("/x/%2e%2E/admin", "/x/../admin", &["/admin"]);
        check("/./admin/.", "/./admin/.", &["/admin/"]);
        check("/admin%2Fx", "/admin/x", &["/admin%2Fx"]);
        check("/x%2f..%2fadmin", "/x/../admin", &["/admin", "/x%2f..%2fadmin"]);
        check("/x\\..\\admin", "/x\\..\\admin", &["/admin"]);
        check("/x%5cadmin", "/x\\admin", &["/x%5cadmin", "/x/admin"]);
        check("/admin;a=b/x", "/admin;a=b/x", &["/admin/x"]);
        check("/x/..;/admin", "/x/..;/admin", &["/admin"]);
        check("/a//../b", "/a//../b", &["/a/b", "/b"]);
        check("/../../admin", "/../../admin", &["/admin"]);
        check("/..", "/..", &["/"]);
        check("/.well-known/x", "/.well-known/x", &[]);
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        assert_eq!(Reading::of(b"/admin/%ff").text(), "/admin/\u{fffd}");
        assert_eq!(Reading::of(b"/admin/%ff").bytes(), b"/admin/\xff");
    }

    proptest! {
        /// Few, absolute, and none of them holds what the others were made to take away.
        #[test]
        fn readings_are_few_and_normal(path in "/([a./;\\\\%25fFcC]|%2f|%2e|%5C){0,16}") {
            let reading = Reading::of(path.as_bytes());
            let others = others(path.as_bytes(), &reading);
            prop_assert!(others.len() <= 9, "{}", others.len());
            for other in &others {
                prop_assert!(other.bytes().starts_with(b"/"));
            }
            let normal = normal(reading.bytes(), Parameters::Cut, Slashes::Merged);
            let text = String::from_utf8_lossy(&normal);
            prop_assert!(!text.contains("//") && !text.split('/').any(|part| part == ".."), "{}", text);
        }
    }
}
