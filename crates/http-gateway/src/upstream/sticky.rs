//! Sticky sessions: the cookie by which a client comes back to its server. Pure.
//!
//! The cookie holds a token of `http-upstream`: it says nothing to who does not have the secret, and nothing is remembered of
//! clients. The servers never see it. One that is out, drained or gone is not waited for: another takes the request, and the
//! cookie names that one from then on.

use std::fmt::Write as _;
use std::time::Duration;

use http_upstream::{Outcome, Secret, Token};
use py_link::Scheme;

use crate::cookie::cookie;
use crate::h1::elements;
use crate::message::Headers;

/// How clients of an upstream are known again.
#[derive(Debug, Clone)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// How long the client keeps it; zero: until its browser ends.
    pub time: Duration,
    /// What tokens are made with.
    pub secret: Secret,
}

impl Sticky {
    /// What the client brought. Of several the first that can be one: which server it is, is seen when one is picked.
    pub(super) fn token(&self, headers: &Headers) -> Option<Token> {
        headers.all("cookie").find_map(|field| Token::parse(cookie(field, self.cookie.as_bytes())?))
    }

    /// Tells a client where it belongs, unless the answer is everybody's or none.
    pub(super) fn tell(&self, token: Token, scheme: Scheme, status: u16, headers: &mut Headers) {
        // Nobody is to be bound to a server that has just failed.
        if Outcome::of_status(status) == Outcome::Failed {
            return;
        }
        match keeping(headers) {
            Keeping::Shared => return,
            Keeping::Own => {}
            // RFC 9111, 7.3: Set-Cookie does not keep a cache from storing an answer, and then all its visitors would be sent to one
            // server.
            Keeping::Unsaid => headers.push(b"Cache-Control", b"private"),
        }
        let mut value = format!("{}={token}; Path=/; HttpOnly; SameSite=Lax", self.cookie);
        if scheme == Scheme::Https {
            value.push_str("; Secure");
        }
        if self.time.as_secs() > 0 {
            // A String takes everything.
            let _ = write!(value, "; Max-Age={}", self.time.as_secs());
        }
        headers.push(b"Set-Cookie", value.as_bytes());
    }
}

/// Whom caches may give an answer to.
#[derive(Debug, PartialEq, Eq)]
enum Keeping {
    /// Everybody, and the server says so: no session begins with what all visitors get.
    Shared,
    /// Its client, or nobody.
    Own,
    /// Whatever a cache makes of it (RFC 9111, 4.2.2).
    Unsaid,
}

/// What the answer says of it (RFC 9111, 5.2.2; RFC 9213 for caches that have a field of their own).
fn keeping(headers: &Headers) -> Keeping {
    let directives = || headers.all("cache-control").flat_map(elements);
    let is = |directive: &[u8], name: &str| directive.eq_ignore_ascii_case(name.as_bytes());
    // `private="…"` with names of fields lets caches keep the rest.
    if directives().any(|directive| is(directive, "private") || is(directive, "no-store")) {
        return Keeping::Own;
    }
    let lasts = |directive: &[u8]| {
        let Some(at) = directive.iter().position(|&byte| byte == b'=') else { return false };
        let (name, value) = directive.split_at(at);
        (is(name, "max-age") || is(name, "s-maxage")) && value.iter().any(|byte| (b'1'..=b'9').contains(byte))
    };
    let shared = directives().any(|directive| is(directive, "public") || lasts(directive));
    let targeted = ["cdn-cache-control", "surrogate-control"];
    if shared || targeted.iter().any(|name| headers.contains(name)) {
        return Keeping::Shared;
    }
    Keeping::Unsaid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky(seconds: u64) -> Sticky {
        let time = Duration::from_secs(seconds);
        Sticky { cookie: "srv".to_owned(), time, secret: Secret::from_bytes(&[1; 32]) }
    }

    fn headers(fields: &str) -> Headers {
        let mut headers = Headers::default();
        for line in fields.split('|').filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            headers.push(name.as_bytes(), value.as_bytes());
        }
        headers
    }

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn told(sticky: &Sticky, scheme: Scheme, status: u16, fields: &str) -> String {
        let mut headers = headers(fields);
        sticky.tell(Token::parse(TOKEN.as_bytes()).unwrap(), scheme, status, &mut headers);
        let fields = headers.iter().map(|(name, value)| [name, b": ", value].concat());
        String::from_utf8(fields.collect::<Vec<_>>().join(&b'|')).unwrap().replace(TOKEN, "T")
    }

    #[test]
    fn the_token_is_found_wherever_it_stands() {
        let brings = |fields: &str| sticky(0).token(&headers(fields)).map(|token| token.to_string() == TOKEN);
        assert_eq!(brings(&format!("Cookie: srv={TOKEN}")), Some(true));
        assert_eq!(brings(&format!("Cookie: a=b; srv={TOKEN}; c=d")), Some(true));
        assert_eq!(brings(&format!("Cookie: a=b|Cookie: srv=nonsense|Cookie: srv={TOKEN}")), Some(true));
        assert_eq!(brings(&format!("Cookie: xsrv={TOKEN}; srv=")), None);
        assert_eq!(brings(&format!("X-Cookie: srv={TOKEN}")), None);
    }

    #[test]
    fn the_cookie_has_the_attributes_of_its_connection() {
        assert_eq!(
            told(&sticky(0), Scheme::Http, 200, "Cache-Control: no-store"),
            "Cache-Control: no-store|Set-Cookie: srv=T; Path=/; HttpOnly; SameSite=Lax"
        );
        assert_eq!(
            told(&sticky(3600), Scheme::Https, 302, "Cache-Control: private"),
            "Cache-Control: private|Set-Cookie: srv=T; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600"
        );
        assert_eq!(told(&sticky(0), Scheme::Http, 503, ""), "", "nobody is bound to a failure");
        assert!(told(&sticky(0), Scheme::Http, 501, "").contains("srv=T"));
    }

    #[test]
    fn what_everybody_gets_binds_nobody() {
        for (fields, expected) in [
            ("", Keeping::Unsaid),
            ("Last-Modified: x", Keeping::Unsaid),
            ("Cache-Control: no-cache", Keeping::Unsaid),
            ("Cache-Control: max-age=0, must-revalidate", Keeping::Unsaid),
            ("Cache-Control: private=\"x-a\"", Keeping::Unsaid),
            ("Cache-Control: no-cache, Private", Keeping::Own),
            ("Cache-Control: max-age=60|cache-control: NO-STORE", Keeping::Own),
            ("Cache-Control: private, max-age=60", Keeping::Own),
            ("Cache-Control: max-age=60", Keeping::Shared),
            ("Cache-Control: no-cache, S-MaxAge=10", Keeping::Shared),
            ("Cache-Control: public", Keeping::Shared),
            ("CDN-Cache-Control: max-age=60", Keeping::Shared),
        ] {
            assert_eq!(keeping(&headers(fields)), expected, "{fields}");
        }
        assert_eq!(told(&sticky(0), Scheme::Http, 200, "Cache-Control: public"), "Cache-Control: public");
        assert!(
            told(&sticky(0), Scheme::Http, 200, "").starts_with("Cache-Control: private|Set-Cookie: srv=T;")
        );
    }
}
