//! Rewrites of paths: `REGEX => REPLACEMENT`. Pure.
//!
//! The expression meets the path as the app would see it (decoded), and what it has caught is encoded again where it is put: a `?`
//! or `&` in a captured text stays a letter of it and never becomes one of the URL's own.

use regex::{Captures, Regex};

use super::condition::path_regex;
use crate::raw::Fault;

/// What stands between the expression and its replacement.
const ARROW: &str = " => ";

/// A rewrite of a path.
#[derive(Debug, Clone)]
pub struct Rewrite {
    pattern: Regex,
    path: Vec<Part>,
    /// Behind the question mark of the replacement, if it has one.
    query: Option<Vec<Part>>,
}

/// A piece of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

impl Rewrite {
    /// `^/old/(.*)$ => /new/$1`; `${name}` is a named group, `$$` a dollar.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fault = || Fault::new(format!("\"{text}\" is not a rewrite"));
        let (pattern, replacement) = text
            .split_once(ARROW)
            .ok_or_else(|| fault().hint("REGEX => REPLACEMENT, for example ^/old/(.*)$ => /new/$1"))?;
        let pattern = path_regex(pattern.trim())?;
        let (path, query) = match replacement.trim().split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (replacement.trim(), None),
        };
        if !path.starts_with('/') || path.starts_with("//") {
            return Err(fault().hint("the replacement is a path of this site, which begins with a slash"));
        }
        if query.is_some_and(|query| !query.bytes().all(|b| b.is_ascii_graphic() && b != b'#')) {
            return Err(fault().hint("the query of a replacement stands as it travels: a space is %20"));
        }
        Ok(Self {
            path: parts(path, &pattern)?,
            query: query.map(|query| parts(query, &pattern)).transpose()?,
            pattern,
        })
    }

    /// The new target of a request, percent-encoded; `None`: the expression is not found in its path. The query that was there
    /// comes behind that of the replacement.
    pub fn apply(&self, path: &str, query: &[u8]) -> Option<Vec<u8>> {
        let found = self.pattern.captures(path)?;
        let mut target = Vec::with_capacity(path.len() + query.len() + 16);
        push(&self.path, &found, &mut target, encode_path, encode_path);
        if let Some(own) = &self.query {
            target.push(b'?');
            push(own, &found, &mut target, |text, out| out.extend_from_slice(text), encode_value);
        }
        if !query.is_empty() {
            target.push(if self.query.is_some() { b'&' } else { b'?' });
            target.extend_from_slice(query);
        }
        Some(target)
    }
}

fn push(
    parts: &[Part],
    found: &Captures<'_>,
    out: &mut Vec<u8>,
    text: impl Fn(&[u8], &mut Vec<u8>),
    group: impl Fn(&[u8], &mut Vec<u8>),
) {
    for part in parts {
        match part {
            Part::Text(plain) => text(plain.as_bytes(), out),
            Part::Group(number) => {
                group(found.get(*number).map_or("", |group| group.as_str()).as_bytes(), out);
            }
        }
    }
}

/// What may stand in a path as it is (RFC 3986, 3.3): unreserved, sub-delims, `:`, `@`, and the slashes between segments.
pub fn encode_path(text: &[u8], out: &mut Vec<u8>) {
    encode(text, b"-._~!$&'()*+,;=:@/", out);
}

/// In a query, so that no form reader takes it for more than a value.
fn encode_value(text: &[u8], out: &mut Vec<u8>) {
    encode(text, b"-._~", out);
}

fn encode(text: &[u8], plain: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(byte);
        } else {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

/// Text and references to groups, each of which the expression has.
fn parts(text: &str, pattern: &Regex) -> Result<Vec<Part>, Fault> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('$') {
        plain.push_str(before);
        if let Some(after) = behind.strip_prefix('$') {
            plain.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match behind.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => behind.split_at(behind.bytes().take_while(u8::is_ascii_digit).count()),
        };
        let number = match name.parse::<usize>() {
            Ok(number) => Some(number).filter(|number| *number < pattern.captures_len()),
            Err(_) => pattern.capture_names().position(|group| group == Some(name)),
        };
        let number = number.ok_or_else(|| {
            Fault::new(format!("the expression has no group ${name}"))
                .hint("$1 is the first pair of parentheses, ${name} that of (?<name>…), $$ a dollar")
        })?;
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(Part::Group(number));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(rewrite: &str, path: &str, query: &str, target: Option<&str>) {
        let rewritten = Rewrite::parse(rewrite).unwrap().apply(path, query.as_bytes());
        assert_eq!(
            rewritten.map(|target| String::from_utf8(target).unwrap()).as_deref(),
            target,
            "{rewrite} {path}"
        );
    }

    #[test]
    fn rewrites() {
        check("^/old/(.*)$ => /new/$1", "/old/a b", "x=1", Some("/new/a%20b?x=1"));
        check("^/old/(.*)$ => /new/$1", "/other", "", None);
        check("^/item/(?<id>[0-9]+)$ => /item?id=${id}", "/item/7", "y=2", Some("/item?id=7&y=2"));
        check("^/a$ => /b?", "/a", "x", Some("/b?&x"));
        check("^/(.)(.*)$ => /$2$$1${1}0", "/ab", "", Some("/b$1a0"));
        check("x => /café", "/x", "", Some("/caf%C3%A9"));
    }

    #[test]
    fn what_is_caught_stays_what_it_is() {
        check(
            "^/search/(.*)$ => /find?q=$1",
            "/search/a&admin=1#x?y",
            "",
            Some("/find?q=a%26admin%3D1%23x%3Fy"),
        );
        check("^/d/(.*)$ => /e/$1", "/d/a?b#c\n", "", Some("/e/a%3Fb%23c%0A"));
    }

    #[test]
    fn what_is_no_rewrite() {
        for bad in [
            "",
            "/a",
            "/a =>",
            "( => /b",
            "/a => b",
            "/a => //b",
            "/a => /$1",
            "/a => /${x}",
            "/a => /$",
            "/a => /b?c d",
        ] {
            assert!(Rewrite::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_target_is_one_and_holds_no_odd_byte(path in "/\\PC{0,20}", query in "[a-z=&%0-9]{0,8}") {
            let rewrite = Rewrite::parse("^/(.*)$ => /new/$1?all=$1").unwrap();
            let target = rewrite.apply(&path, query.as_bytes()).unwrap();
            prop_assert!(target.starts_with(b"/new/") && target.iter().all(u8::is_ascii_graphic));
            prop_assert_eq!(target.split(|&b| b == b'?').count(), 2);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}( => )?[/$a-z0-9{}?]{0,12}") {
            let _ = Rewrite::parse(&text);
        }
    }
}
