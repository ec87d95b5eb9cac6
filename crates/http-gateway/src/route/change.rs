//! What a route changes: the path and the header fields on the way to the app, the header fields on the way to the client. Pure.

use std::borrow::Cow;

use ctl_config::Fault;
use ctl_config::client_certificate::names_certificate;
use ctl_config::route::{Change, HeaderEdit, Placeholder, Rewrite, Template};

use super::reading::Reading;
use super::vouched::remove;
use crate::client::is_for_the_app;
use crate::message::{Headers, RequestHead};
use crate::pools::pattern::decode;
use crate::tls::ClientCertificate;

/// What the request says of itself, for placeholders.
#[derive(Debug, Clone, Copy)]
pub(super) struct Says<'a> {
    pub(super) https: bool,
    /// Without port.
    pub(super) host: &'a [u8],
    /// As it goes on, percent-encoded.
    pub(super) target: &'a [u8],
    pub(super) client: &'a str,
    pub(super) request_id: &'a [u8],
    pub(super) certificate: Option<&'a ClientCertificate>,
}

impl<'a> Says<'a> {
    pub(super) fn of(&self, placeholder: Placeholder) -> &'a [u8] {
        let (path, query) = split(self.target);
        match placeholder {
            Placeholder::Scheme if self.https => b"https",
            Placeholder::Scheme => b"http",
            Placeholder::Host => self.host,
            Placeholder::Path if matches!(path, b"" | b"*") => b"/",
            Placeholder::Path => path,
            Placeholder::Query => query,
            Placeholder::Client => self.client.as_bytes(),
            Placeholder::RequestId => self.request_id,
            Placeholder::ClientCert => self.shown(|shown| &shown.field),
            Placeholder::ClientCertSubject => self.shown(|shown| &shown.subject),
            Placeholder::ClientCertIssuer => self.shown(|shown| &shown.issuer),
            Placeholder::ClientCertSerial => self.shown(|shown| &shown.serial),
            Placeholder::ClientCertFingerprint => self.shown(|shown| &shown.fingerprint),
        }
    }
}

impl<'a> Says<'a> {
    fn shown(&self, text: impl FnOnce(&'a ClientCertificate) -> &'a String) -> &'a [u8] {
        self.certificate.map_or(&[], |shown| text(shown).as_bytes())
    }
}

/// The path of a target, and its query with the question mark.
fn split(target: &[u8]) -> (&[u8], &[u8]) {
    target.split_at(memchr::memchr(b'?', target).unwrap_or(target.len()))
}

/// A field that is added, set or removed.
#[derive(Debug)]
struct Edit {
    name: Box<str>,
    change: Change,
    /// It says something of the client's certificate: without one there is nothing to say.
    of_certificate: bool,
}

/// Changes of header fields, in order.
#[derive(Debug, Default)]
pub(super) struct Edits {
    edits: Box<[Edit]>,
    /// Of a request: who gets it may take `x_user` for `x-user`, so what a route sets or removes is so in all spellings.
    of_request: bool,
}

impl Edits {
    pub(super) fn new(texts: &[String], of_request: bool) -> Result<Self, Fault> {
        let edit = |text: &String| {
            let HeaderEdit { name, change } = HeaderEdit::parse(text)?;
            let name = if of_request { name.to_ascii_lowercase() } else { name };
            Ok(Edit { name: name.into(), change, of_certificate: names_certificate(text) })
        };
        Ok(Self { edits: texts.iter().map(edit).collect::<Result<_, Fault>>()?, of_request })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    pub(super) fn apply(&self, headers: &mut Headers, says: Says<'_>) {
        let fill = |template: &Template| template.fill(|placeholder| says.of(placeholder));
        for Edit { name, change, of_certificate } in &self.edits {
            if self.of_request && !matches!(change, Change::Add(_)) {
                remove(headers, name);
            }
            match change {
                Change::Add(_) if *of_certificate && says.certificate.is_none() => {}
                Change::Set(_) if *of_certificate && says.certificate.is_none() => remove(headers, name),
                Change::Add(value) => headers.push(name.as_bytes(), &fill(value)),
                Change::Set(value) => headers.set(name, &fill(value)),
                Change::Remove => headers.remove(|own| own.eq_ignore_ascii_case(name.as_bytes())),
            }
        }
    }
}

/// What a route changes of a request.
#[derive(Debug, Default)]
pub(super) struct RequestChange {
    pub(super) strip_prefix: Option<Box<str>>,
    pub(super) rewrite: Option<Rewrite>,
    pub(super) headers: Edits,
}

impl RequestChange {
    /// The request as it goes on. The second value: forwarded headers that nobody vouches for are not in it, and those that are
    /// there may be heard.
    pub(super) fn apply<'a>(
        &self,
        head: &'a RequestHead,
        headers_heard: bool,
        says: Says<'_>,
    ) -> (Cow<'a, RequestHead>, bool) {
        let mut head = Cow::Borrowed(head);
        if let Some(target) = self.target(&head.target) {
            head.to_mut().target = target;
        }
        if self.headers.is_empty() {
            return (head, headers_heard);
        }
        let changed = head.to_mut();
        if !headers_heard {
            // What concerns the connection stays: it is dealt with where the request is written.
            changed.headers.remove(|name| is_for_the_app(name, true) && !is_for_the_app(name, false));
        }
        let target = changed.target.clone();
        self.headers.apply(&mut changed.headers, Says { target: &target, ..says });
        (head, true)
    }

    /// The new target, if there is one.
    fn target(&self, target: &[u8]) -> Option<Vec<u8>> {
        let stripped = self.strip_prefix.as_deref().and_then(|prefix| strip(target, prefix.as_bytes()));
        let Some(rewrite) = &self.rewrite else { return stripped };
        let (path, query) = split(stripped.as_deref().unwrap_or(target));
        let rewritten = rewrite.apply(Reading::of(path).text(), query.get(1..).unwrap_or_default());
        rewritten.or(stripped)
    }
}

/// Takes a prefix from the beginning of a target's path, whichever of its letters are escaped; what follows must be a slash or
/// nothing. `None`: it does not begin so.
pub(super) fn strip(target: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
    let (path, query) = split(target);
    let mut rest = path;
    for expected in prefix {
        let (letter, behind) = first(rest)?;
        if letter != *expected {
            return None;
        }
        rest = behind;
    }
    let below = match first(rest) {
        None => &[],
        // The slash may have been an escaped one; it begins a path now.
        Some((b'/', below)) => below,
        Some(_) => return None,
    };
    Some([b"/", below, query].concat())
}

/// The first letter of an encoded path, decoded, and what is behind it.
fn first(path: &[u8]) -> Option<(u8, &[u8])> {
    if let Some(escape @ [b'%', ..]) = path.get(..3)
        && let [letter] = *decode(escape)
    {
        return Some((letter, path.get(3..)?));
    }
    path.split_first().map(|(letter, rest)| (*letter, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Method, Version};
    use proptest::prelude::*;

    #[track_caller]
    fn check(target: &str, prefix: &str, expected: Option<&str>) {
        let stripped = strip(target.as_bytes(), prefix.as_bytes());
        assert_eq!(stripped.as_deref(), expected.map(str::as_bytes), "{target}");
    }

    #[test]
    fn prefixes() {
        check("/api/x?y=/api", "/api", Some("/x?y=/api"));
        check("/api", "/api", Some("/"));
        check("/api?x", "/api", Some("/?x"));
        check("/%61pi/%41", "/api", Some("/%41"));
        check("/api%2Fx", "/api", Some("/x"));
        check("/api//x", "/api", Some("//x"));
        check("/a%20b/x", "/a b", Some("/x"));
        check("/apis", "/api", None);
        check("/ap", "/api", None);
        check("/ap%6", "/api", None);
        check("*", "/api", None);
        check("", "/api", None);
    }

    proptest! {
        /// What the app sees is what it would have seen, without the prefix.
        #[test]
        fn stripping_means_the_same_before_and_after_decoding(path in "/(%61|a)pi([/a%2F5]|%2[fF]|%zz){0,6}") {
            let decoded = decode(path.as_bytes()).into_owned();
            let below = decoded.strip_prefix(b"/api").filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
            let stripped = strip(path.as_bytes(), b"/api");
            prop_assert_eq!(stripped.is_some(), below.is_some());
            if let (Some(stripped), Some(below)) = (stripped, below) {
                let seen = decode(&stripped).into_owned();
                prop_assert_eq!(seen, if below.is_empty() { b"/".to_vec() } else { below.to_vec() });
            }
        }
    }

    const SAYS: Says<'_> = Says {
        https: true,
        host: b"example.org",
        target: b"/?",
        client: "192.0.2.1",
        request_id: b"id",
        certificate: None,
    };

    fn head(target: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        RequestHead { method: Method::Get, target: target.into(), version: Version::Http11, headers }
    }

    fn change(edits: &[&str]) -> RequestChange {
        let edits: Vec<_> = edits.iter().map(|&edit| edit.to_owned()).collect();
        RequestChange { headers: Edits::new(&edits, true).unwrap(), ..RequestChange::default() }
    }

    fn shown(headers: &Headers) -> Vec<String> {
        let text = |(name, value): (&[u8], &[u8])| {
            format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        };
        headers.iter().map(text).collect()
    }

    #[test]
    fn fields_are_added_set_and_removed_in_order() {
        let head = head("/a?b", &[("cookie", "x"), ("x-a", "1"), ("x-a", "2"), ("te", "trailers")]);
        let change = change(&["X-A: {client}", "+X-A: {path}{query}", "-Cookie", "X-B: {scheme}"]);
        let (changed, heard) = change.apply(&head, false, SAYS);
        assert_eq!(shown(&changed.headers), ["te: trailers", "x-a: 192.0.2.1", "x-a: /a?b", "x-b: https"]);
        assert!(heard, "what is left may be heard");
    }

    #[test]
    fn what_is_set_or_removed_is_so_in_all_spellings() {
        let head = head("/", &[("x_user", "root"), ("x-user", "root"), ("x_old", "1"), ("x_more", "1")]);
        let (changed, _) = change(&["X-User: anna", "-X-Old", "+X-More: 2"]).apply(&head, false, SAYS);
        assert_eq!(shown(&changed.headers), ["x_more: 1", "x-user: anna", "x-more: 2"]);
    }

    #[test]
    fn without_a_certificate_nothing_is_said_of_one() {
        let head = head("/", &[("client-cert", ":bGll:"), ("client_cert", ":bGll:"), ("x-who", "root")]);
        let change = change(&[
            "Client-Cert: {client_cert}",
            "X-Who: is {client_cert_subject}",
            "+X-Number: {client_cert_serial}",
        ]);
        let (changed, _) = change.apply(&head, false, SAYS);
        assert_eq!(shown(&changed.headers), Vec::<String>::new());
    }

    #[test]
    fn a_client_does_not_come_to_be_heard_by_an_edit() {
        let head = head(
            "/",
            &[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6"), ("x-real-ip", "6.6.6.6")],
        );
        let (changed, _) = change(&["X-Forwarded-Prefix: /a"]).apply(&head, false, SAYS);
        assert_eq!(shown(&changed.headers), ["x-forwarded-prefix: /a"]);
        let (changed, _) = change(&["X-Forwarded-Prefix: /a"]).apply(&head, true, SAYS);
        assert_eq!(changed.headers.len(), 4, "of a trusted proxy they stay");
    }

    #[test]
    fn a_rewrite_sees_the_stripped_path_and_keeps_it_where_it_is_not_found() {
        let change = RequestChange {
            strip_prefix: Some("/api".into()),
            rewrite: Some(Rewrite::parse("^/v1/(.*)$ => /$1").unwrap()),
            ..RequestChange::default()
        };
        let target = |target: &str| {
            let target = change.target(target.as_bytes()).unwrap_or_default();
            String::from_utf8(target).unwrap()
        };
        assert_eq!(target("/api/v1/%61?x=1"), "/a?x=1");
        assert_eq!(target("/api/v2/a?x=1"), "/v2/a?x=1");
        assert_eq!(target("/v1/a"), "/a");
        assert_eq!(target("/other"), "");
    }
}
