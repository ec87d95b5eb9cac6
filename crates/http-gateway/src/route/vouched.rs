//! Header fields that quintet itself vouches for: what `forward_auth` says of a user, what routes say of a client's certificate. Who believes them must never be told by a
//! client, on whichever route and in whichever spelling. Pure.

use ctl_config::Config;
use ctl_config::client_certificate::names_certificate;
use ctl_config::route::HeaderEdit;

use crate::message::{Headers, RequestHead};

/// Names of header fields, in lower case, sorted.
#[derive(Debug, Default)]
pub(super) struct Vouched(Box<[Box<str>]>);

impl Vouched {
    /// Those of a configuration.
    pub(super) fn new(config: &Config) -> Self {
        let from_answers = config.route.iter().flat_map(|route| route.forward_auth_headers.iter().cloned());
        let edits = config.route.iter().flat_map(|route| &route.request_headers);
        let of_certificates = edits
            .filter(|edit| names_certificate(edit))
            .filter_map(|edit| Some(HeaderEdit::parse(edit).ok()?.name));
        Self::of(from_answers.chain(of_certificates))
    }

    /// What carries a client's own credentials is not among them: other routes need it.
    fn of(names: impl Iterator<Item = String>) -> Self {
        let mut names: Vec<Box<str>> = names.map(|name| name.to_ascii_lowercase().into()).collect();
        names.retain(|name| !is_credential(name));
        names.sort_unstable();
        names.dedup();
        Self(names.into())
    }

    /// The request without them; `None`: it has none.
    pub(super) fn without(&self, head: &RequestHead) -> Option<Box<RequestHead>> {
        let claimed = |name: &[u8]| self.0.iter().any(|own| same_variable(own.as_bytes(), name));
        if self.0.is_empty() || !head.headers.iter().any(|(name, _)| claimed(name)) {
            return None;
        }
        let mut head = Box::new(head.clone());
        head.headers.remove(claimed);
        Some(head)
    }
}

/// A field that clients are to send themselves.
fn is_credential(name: &str) -> bool {
    matches!(name, "authorization" | "cookie")
}

/// Removes a field in all its spellings.
pub(super) fn remove(headers: &mut Headers, name: &str) {
    headers.remove(|other| same_variable(name.as_bytes(), other));
}

/// Would two names be one variable to programs that make variables of them? In CGI, WSGI and their like a dash becomes an underscore,
/// and in some of them other signs do, too.
pub(super) fn same_variable(a: &[u8], b: &[u8]) -> bool {
    let same = |(a, b): (&u8, &u8)| {
        a.eq_ignore_ascii_case(b) || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric())
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Method, Version};

    fn left(names: &[&str], fields: &[&str]) -> String {
        let mut headers = Headers::default();
        for name in fields {
            headers.push(name.as_bytes(), b"1");
        }
        let head =
            RequestHead { method: Method::Get, target: b"/".to_vec(), version: Version::Http11, headers };
        let vouched = Vouched::of(names.iter().map(|&name| name.to_owned()));
        let head = vouched.without(&head).map_or(head, |without| *without);
        let names: Vec<_> = head.headers.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
        names.join(" ")
    }

    #[test]
    fn no_spelling_of_a_name_gets_through() {
        assert_eq!(left(&["X-User"], &["x-user", "a", "x_user", "x-user", "x.user", "X-USER"]), "a");
        assert_eq!(left(&["X-User"], &["x-users", "xuser", "x-use", "y-user"]), "x-users xuser x-use y-user");
        assert_eq!(
            left(&["Authorization", "Cookie", "X-A"], &["authorization", "cookie", "x-a"]),
            "authorization cookie"
        );
        assert_eq!(left(&[], &["x-user"]), "x-user");
    }
}
