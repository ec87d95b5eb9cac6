//! The conditions of a route as written: which hosts, paths, methods and header fields it takes. Pure.

use regex::{Regex, RegexBuilder};

use crate::pool::check_pattern;
use crate::raw::Fault;

/// In front of a path that is a regular expression, as in nginx.
const REGEX_MARK: char = '~';

/// A compiled regular expression may take this much memory. An ordinary one takes some KiB; counted repetitions of large
/// classes (`\w{100}`) are what grows.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A path condition.
#[derive(Debug, Clone)]
pub enum PathCondition {
    /// In which `*` stands for any text: [`crate::pool::pattern_matches`].
    Glob(String),
    /// Found anywhere in the path unless it is anchored.
    Regex(Regex),
}

impl PathCondition {
    /// `/api/*`, or `~^/v[0-9]+/`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if let Some(pattern) = text.strip_prefix(REGEX_MARK) {
            return path_regex(pattern).map(Self::Regex);
        }
        if text.starts_with('^') {
            return Err(Fault::new(format!("\"{text}\" is not a pattern for paths of this site"))
                .hint(format!("a regular expression begins with {REGEX_MARK}: \"{REGEX_MARK}{text}\"")));
        }
        check_pattern(text)?;
        // Such a path reads differently to different programs, and is refused before it is compared (see the gateway).
        if ["//", "/./", "/../"].iter().any(|odd| text.contains(odd)) {
            return Err(Fault::new(format!("\"{text}\" would never match"))
                .hint("without empty segments, . and ..: /a/b/*"));
        }
        Ok(Self::Glob(text.to_owned()))
    }
}

/// A regular expression for paths, whose matching takes time linear in the path. `.` is any character, also the end of a line:
/// otherwise `/admin/%0A` would not be of the form `^/admin/.*$`.
pub(super) fn path_regex(pattern: &str) -> Result<Regex, Fault> {
    let built = RegexBuilder::new(pattern).dot_matches_new_line(true).size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|error| {
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Fault::new(format!("\"{pattern}\" is not a regular expression: {why}"))
            .hint("the syntax is that of the regex crate: no look-around, no references back to a group")
    })
}

/// A host condition: without port, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostCondition {
    /// This host.
    Exact(String),
    /// Hosts that end in this, which begins with a dot: `*.example.org`.
    Below(String),
}

impl HostCondition {
    /// `example.org`, `*.example.org`, `[::1]`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fault = || Fault::new(format!("\"{text}\" is not a host"));
        let lower = text.to_ascii_lowercase();
        if lower.contains("//") {
            return Err(fault().hint("the name alone, without http:// and path"));
        }
        if !text.is_ascii() {
            return Err(fault().hint("as it travels: letters beyond ASCII are written xn--…"));
        }
        if let Some(address) = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return match address.parse::<std::net::Ipv6Addr>() {
                Ok(_) => Ok(Self::Exact(lower)),
                Err(_) => Err(fault().hint("an IPv6 address stands in brackets: [::1]")),
            };
        }
        if lower.contains(':') {
            return Err(fault().hint("without its port: a route holds for all ports"));
        }
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if !name.split('.').all(label) {
            return Err(fault().hint("for example example.org, or *.example.org for all below it"));
        }
        Ok(if name.len() == lower.len() { Self::Exact(lower) } else { Self::Below(format!(".{name}")) })
    }

    /// Whether a host, without port and in lower case, is meant.
    pub fn takes(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(only) => host == only.as_bytes(),
            // Something must stand before the dot.
            Self::Below(end) => host.len() > end.len() && host.ends_with(end.as_bytes()),
        }
    }
}

/// A condition on a header field of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCondition {
    /// In lower case.
    pub name: String,
    /// `None`: any value.
    pub value: Option<String>,
}

impl HeaderCondition {
    /// `X-Beta`, or `X-Beta=1`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let fault = Fault::new(format!("\"{text}\" is not a condition on a header"));
        if !is_field_name(name) {
            return Err(fault.hint("for example X-Beta=1, or X-Beta for any value"));
        }
        if name.eq_ignore_ascii_case("host") {
            return Err(fault.hint("hosts have a key of their own: host = \"…\""));
        }
        if value.is_some_and(|value| value.trim() != value || value.chars().any(char::is_control)) {
            return Err(fault.hint("without space around the value"));
        }
        Ok(Self { name: name.to_ascii_lowercase(), value: value.map(str::to_owned) })
    }
}

/// A token (RFC 9110, 5.6.2).
pub(super) fn is_field_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(token)
}

/// Methods are case-sensitive (RFC 9110, 9.1) and written in capitals by everybody.
pub(super) fn check_method(text: &str) -> Result<(), Fault> {
    let fault = || Fault::new(format!("\"{text}\" is not a method"));
    if !is_field_name(text) {
        return Err(fault().hint("for example GET"));
    }
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(fault().hint(format!("in capitals: {}", text.to_ascii_uppercase())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let takes = |pattern: &str, host: &str| HostCondition::parse(pattern).unwrap().takes(host.as_bytes());
        assert!(takes("Example.org", "example.org") && !takes("example.org", "www.example.org"));
        assert!(takes("*.example.org", "www.example.org") && takes("*.example.org", "a.b.example.org"));
        assert!(!takes("*.example.org", "example.org") && !takes("*.example.org", ".example.org"));
        assert!(!takes("*.example.org", "badexample.org") && takes("[::1]", "[::1]"));
        for bad in ["", "*", "a..b", "https://a", "a:80", "a/b", "ä.de", "*.*.de", "a b", "::1", "[x]", ".a"]
        {
            assert!(HostCondition::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers() {
        let parse = |text| HeaderCondition::parse(text).ok().map(|header| (header.name, header.value));
        assert_eq!(parse("X-Beta"), Some(("x-beta".into(), None)));
        assert_eq!(parse("X-Beta=a=b"), Some(("x-beta".into(), Some("a=b".into()))));
        assert_eq!(parse("X-Beta="), Some(("x-beta".into(), Some(String::new()))));
        for bad in ["", "=1", "X Beta=1", "X-Beta = 1", "Host=a", "X: 1", "X=\n"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn paths() {
        let finds = |pattern: &str, path: &str| match PathCondition::parse(pattern) {
            Ok(PathCondition::Regex(regex)) => regex.is_match(path),
            other => panic!("{other:?}"),
        };
        assert!(finds("~^/v[0-9]+/", "/v12/x") && !finds("~^/v[0-9]+/", "/a/v1/"));
        assert!(finds("~^/admin/.*$", "/admin/\n"), "the end of a line is a character like any other");
        assert!(matches!(PathCondition::parse("/api/*"), Ok(PathCondition::Glob(_))));
        for bad in ["", "api/*", "^/api", "~(", "~(?=a)", "/a//b", "/a/../b", "/a?b", "~\\w{5000}"] {
            assert!(PathCondition::parse(bad).is_err(), "{bad}");
        }
    }
}
