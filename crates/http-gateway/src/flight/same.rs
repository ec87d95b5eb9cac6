//! Which requests are the same, and whose answer may be given to whom. Pure.
//!
//! Two requests are the same when nothing differs that an app usually looks at: method, scheme, host, target, body and every header
//! field but those that say who asks, or from where ([`tells_of_client`]). These are compared when the answer is there:
//!
//! | who asks | gets the answer of another when |
//! |---|---|
//! | shows the same Cookie and Authorization, and shows one of them | always: it is the same user |
//! | shows none, as the other did | a shared cache might keep it (RFC 9111, 3): no Set-Cookie, not `private`, not `no-store`, and nothing that `Vary` names differs |
//! | shows something else | the same, and the app has said `public` or `s-maxage` |

use http_limits::KeyHasher;

use crate::client::Identity;
use crate::message::{Headers, RequestHead};

/// What a part of a key is.
mod kind {
    pub(super) const REQUEST: u8 = 16;
    pub(super) const NAME: u8 = 17;
    pub(super) const VALUE: u8 = 18;
    pub(super) const BODY: u8 = 19;
}

/// Adds to a key what is asked for.
pub(crate) fn key(key: &mut KeyHasher, head: &RequestHead, identity: &Identity<'_>, body: u64) {
    key.part(kind::REQUEST, head.method.as_bytes());
    key.part(kind::REQUEST, &[u8::from(identity.scheme == crate::client::Scheme::Https)]);
    key.part(kind::REQUEST, &identity.host);
    key.part(kind::REQUEST, &head.target);
    for (name, value) in head.headers.iter().filter(|(name, _)| !tells_of_client(name)) {
        key.part(kind::NAME, name);
        key.part(kind::VALUE, value);
    }
    key.part(kind::BODY, &body.to_le_bytes());
}

/// Fields that say from where somebody asks and by what, and those of the connection. Names are in lower case. Each by its whole name:
/// what a proxy says of *who* somebody is (X-Forwarded-User, Cf-Access-Jwt-Assertion) is a part of what he asks for.
fn tells_of_client(name: &[u8]) -> bool {
    const SAY_WHO: [&[u8]; 37] = [
        b"authorization",
        b"baggage",
        b"cache-control",
        b"cdn-loop",
        b"cf-connecting-ip",
        b"cf-ray",
        b"cf-visitor",
        b"connection",
        b"content-length",
        b"cookie",
        b"dnt",
        b"expect",
        b"forwarded",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"pragma",
        b"priority",
        b"proxy-connection",
        b"referer",
        b"save-data",
        b"te",
        b"traceparent",
        b"tracestate",
        b"transfer-encoding",
        b"upgrade",
        b"upgrade-insecure-requests",
        b"user-agent",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
        b"x-request-id",
        b"x-amzn-trace-id",
    ];
    name.starts_with(b"sec-") || SAY_WHO.contains(&name)
}

/// May the answer that `first` got be given to `other`, who asked for the same?
pub(crate) fn may_share(answer: &Headers, first: &RequestHead, other: &RequestHead) -> bool {
    let shows = |head: &RequestHead| CREDENTIALS.iter().any(|name| head.headers.contains(name));
    let same = CREDENTIALS.iter().all(|name| equal(first, other, name));
    if same && shows(first) {
        return true;
    }
    let said = |word: &[u8]| directives(answer).any(|directive| directive.eq_ignore_ascii_case(word));
    if answer.contains("set-cookie") || said(b"private") || said(b"no-store") {
        return false;
    }
    (same || said(b"public") || said(b"s-maxage")) && varies_not(answer, first, other)
}

const CREDENTIALS: [&str; 2] = ["cookie", "authorization"];

/// The names of Cache-Control's directives (RFC 9111, 5.2).
fn directives(answer: &Headers) -> impl Iterator<Item = &[u8]> {
    let items = answer.all("cache-control").flat_map(|value| value.split(|byte| *byte == b','));
    items.map(|item| item.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii())
}

/// RFC 9111, 4.1.
fn varies_not(answer: &Headers, first: &RequestHead, other: &RequestHead) -> bool {
    let names = answer.all("vary").flat_map(|value| value.split(|byte| *byte == b','));
    names
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .all(|name| name != b"*" && std::str::from_utf8(name).is_ok_and(|name| equal(first, other, name)))
}

fn equal(first: &RequestHead, other: &RequestHead, name: &str) -> bool {
    first.headers.all(name).eq(other.headers.all(name))
}

#[cfg(test)]
mod tests {
    use http_limits::Seed;

    use super::*;
    use crate::client::{TrustedProxies, identify};
    use crate::message::{Connection, Method, Version};

    fn fields(text: &str) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in text.split('|').filter_map(|field| field.split_once(':')) {
            headers.push_lower(name.trim().as_bytes(), value.trim().as_bytes());
        }
        headers
    }

    fn asking(target: &str, text: &str) -> RequestHead {
        let method = Method::Get;
        RequestHead { method, target: target.into(), version: Version::Http11, headers: fields(text) }
    }

    #[test]
    fn the_same_request_has_the_same_key() {
        let key = |head: &RequestHead, body| {
            let mut hasher = Seed::from_bytes([7; 16]).hasher();
            let identity = identify(&Connection::default(), &head.headers, &TrustedProxies::default());
            super::key(&mut hasher, head, &identity, body);
            hasher.key()
        };
        let one = key(&asking("/a?x=1", "Host: shop | Accept: text/html"), 0);
        let same = |text: &str| assert_eq!(key(&asking("/a?x=1", text), 0), one, "{text}");
        same("Host: shop | Accept: text/html | User-Agent: x | X-Request-Id: 7 | Traceparent: 1-2");
        same("Host: shop | Cookie: sessionid=1 | Accept: text/html | Sec-Fetch-Mode: navigate");
        same(
            "Host: shop | Accept: text/html | X-Forwarded-For: 192.0.2.1 | X-Forwarded-Proto: https | Cf-Ray: 1",
        );
        let other = |target: &str, text: &str, body: u64| {
            assert_ne!(key(&asking(target, text), body), one, "{target} {text} {body}");
        };
        other("/a?x=2", "Host: shop | Accept: text/html", 0);
        other("/a?x=1", "Host: shop | Accept: application/json", 0);
        other("/a?x=1", "Host: other | Accept: text/html", 0);
        other("/a?x=1", "Host: shop | Accept: text/html | Range: bytes=0-1", 0);
        other("/a?x=1", "Host: shop | Accept: text/html | X-Api-Key: 1", 0);
        other("/a?x=1", "Host: shop | Accept: text/html", 1);
        // Whom a proxy before us knows, by whichever name it calls him.
        other("/a?x=1", "Host: shop | Accept: text/html | X-Forwarded-User: ada", 0);
        other("/a?x=1", "Host: shop | Accept: text/html | X-Forwarded-Email: ada@example.org", 0);
        other("/a?x=1", "Host: shop | Accept: text/html | X-Forwarded-Client-Cert: Hash=1", 0);
        other("/a?x=1", "Host: shop | Accept: text/html | Cf-Access-Jwt-Assertion: 1", 0);
    }

    #[test]
    fn nobody_gets_what_is_anothers() {
        #[track_caller]
        fn check(answer: &str, first: &str, other: &str, expected: bool) {
            let (first, other) = (asking("/", first), asking("/", other));
            assert_eq!(may_share(&fields(answer), &first, &other), expected, "{answer}");
            assert_eq!(may_share(&fields(answer), &other, &first), expected, "the other way round: {answer}");
        }
        let ada = "Cookie: sessionid=ada";
        for answer in
            ["", "Set-Cookie: a=b", "Cache-Control: private", "Vary: Cookie", "Cache-Control: no-store"]
        {
            check(answer, ada, ada, true);
            check(answer, "Authorization: Basic x", "Authorization: Basic x", true);
            check(answer, ada, "Cookie: sessionid=bob", false);
            check(answer, ada, "", false);
            check(answer, ada, "Cookie: sessionid=ada | Authorization: Basic x", false);
            check(answer, "Authorization: Basic x", "Authorization: Basic y", false);
        }
        // Nobody shows anything: strangers.
        check("", "", "", true);
        check("Vary: Cookie", "", "", true);
        check("Set-Cookie: csrftoken=1", "", "", false);
        check("Cache-Control: max-age=0, Private", "", "", false);
        check("Cache-Control: no-store", "", "", false);
        check("Vary: *", "", "", false);
        check("Vary: Accept-Encoding, User-Agent", "User-Agent: a", "User-Agent: b", false);
        check("Vary: Accept-Encoding", "User-Agent: a", "User-Agent: b", true);
        // The app says that it is for all.
        check("Cache-Control: public, max-age=60", ada, "Cookie: sessionid=bob", true);
        check("Cache-Control: s-maxage=5", ada, "", true);
        check("Cache-Control: public | Vary: Cookie", ada, "", false);
        check("Cache-Control: public | Set-Cookie: a=b", ada, "", false);
    }
}
