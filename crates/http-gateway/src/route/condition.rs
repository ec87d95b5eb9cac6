//! The conditions of a route, compiled. Pure.

use std::borrow::Cow;

use ctl_config::Fault;
use ctl_config::route::{HeaderCondition, HostCondition, PathCondition};
use regex::Regex;

use super::reading::Reading;
use crate::client::is_for_the_app;
use crate::message::{Headers, Method, RequestHead};
use crate::pools::pattern::Pattern;

/// A request as routes see it.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    method: &'a Method,
    /// Without port, in lower case.
    host: Cow<'a, [u8]>,
    /// Percent-encoded.
    pub(super) path: &'a [u8],
    headers: &'a Headers,
    headers_heard: bool,
}

impl<'a> Asked<'a> {
    /// `host` is the true one, with or without port; `headers_heard`: see [`crate::client::Identity`].
    pub fn new(head: &'a RequestHead, host: &'a [u8], headers_heard: bool) -> Self {
        Self {
            method: &head.method,
            host: plain_host(host),
            path: head.path(),
            headers: &head.headers,
            headers_heard,
        }
    }
}

/// Without its port and the dot of the root, in lower case.
fn plain_host(authority: &[u8]) -> Cow<'_, [u8]> {
    let end = match memchr::memrchr(b':', authority) {
        Some(colon) if !authority.ends_with(b"]") => colon,
        _ => authority.len(),
    };
    let host = authority.get(..end).unwrap_or_default();
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// Why a route does not take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet {
    /// None of its hosts.
    Host,
    /// None of its paths.
    Path,
    /// None of its methods.
    Method,
    /// The header of this number is not as it says.
    Header(usize),
}

#[derive(Debug)]
enum Path {
    Glob(Pattern),
    Regex(Regex),
}

impl Path {
    fn matches(&self, path: &Reading<'_>) -> bool {
        match self {
            Self::Glob(pattern) => pattern.matches(path.bytes()),
            Self::Regex(regex) => regex.is_match(path.text()),
        }
    }
}

/// All conditions of a route.
#[derive(Debug)]
pub(super) struct Conditions {
    hosts: Box<[HostCondition]>,
    paths: Box<[Path]>,
    methods: Box<[Method]>,
    headers: Box<[HeaderCondition]>,
}

impl Conditions {
    pub(super) fn new(route: &ctl_config::Route) -> Result<Self, Fault> {
        let path = |text: &String| {
            Ok(match PathCondition::parse(text)? {
                PathCondition::Glob(pattern) => Path::Glob(Pattern::new(&pattern)),
                PathCondition::Regex(regex) => Path::Regex(regex),
            })
        };
        let mut methods: Vec<_> =
            route.method.iter().map(|method| Method::from_bytes(method.as_bytes())).collect();
        // RFC 9110, 9.3.2: HEAD is GET without the content; who may not do the one may not do the other.
        if methods.contains(&Method::Get) {
            methods.push(Method::Head);
        }
        Ok(Self {
            hosts: route.host.iter().map(|text| HostCondition::parse(text)).collect::<Result<_, _>>()?,
            paths: route.path.iter().map(path).collect::<Result<_, Fault>>()?,
            methods: methods.into(),
            headers: route
                .header
                .iter()
                .map(|text| HeaderCondition::parse(text))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The first condition that does not hold, the cheapest first.
    pub(super) fn unmet(&self, asked: &Asked<'_>, path: &Reading<'_>) -> Option<Unmet> {
        if !self.methods.is_empty() && !self.methods.contains(asked.method) {
            return Some(Unmet::Method);
        }
        if !self.hosts.is_empty() && !self.hosts.iter().any(|host| host.takes(&asked.host)) {
            return Some(Unmet::Host);
        }
        if !self.paths.is_empty() && !self.paths.iter().any(|own| own.matches(path)) {
            return Some(Unmet::Path);
        }
        self.headers.iter().position(|header| !has(asked, header)).map(Unmet::Header)
    }
}

/// A field that the app would not be shown is not there for routes either.
fn has(asked: &Asked<'_>, header: &HeaderCondition) -> bool {
    is_for_the_app(header.name.as_bytes(), asked.headers_heard)
        && asked
            .headers
            .all(&header.name)
            .any(|value| header.value.as_ref().is_none_or(|wanted| value.trim_ascii() == wanted.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_port_and_letter_case() {
        for (authority, host) in [
            ("Example.ORG:8443", "example.org"),
            ("example.org.", "example.org"),
            ("example.org.:80", "example.org"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(&*plain_host(authority.as_bytes()), host.as_bytes(), "{authority}");
        }
    }
}
