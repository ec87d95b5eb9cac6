//! `forward_auth`: what is asked, and what an answer means. Pure; who asks is `service/forward_auth.rs`.

use std::time::Duration;

use ctl_config::Fault;

use super::vouched::remove;
use crate::client::is_for_the_app;
use crate::message::{Headers, Method, RequestHead, Version};

/// How long an answer may take, where the route does not say it: longer than a decision takes, shorter than a visitor waits.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What an answer may put onto a request, all names and values together. Servers take heads of some KiB, and a name with its
/// groups has some hundred bytes.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// Who is asked.
#[derive(Debug)]
pub enum Whom {
    /// The app: the workers of this pool, or of the one whose `match` takes the path.
    App(Option<u16>),
    /// The servers of this upstream.
    Upstream(Box<str>),
}

/// A route's question.
#[derive(Debug)]
pub struct ForwardAuth {
    /// Who is asked.
    pub whom: Whom,
    /// How long it may take.
    pub timeout: Duration,
    target: Box<[u8]>,
    /// In lower case.
    copied: Box<[Box<str>]>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The request passes.
    Passes,
    /// The answer is the client's.
    Refuses,
    /// Neither: the client gets this status, and nobody passes.
    Fails(u16),
}

/// What an answer puts onto a request is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl ForwardAuth {
    pub(super) fn new(own: &ctl_config::Route, config: &ctl_config::Config) -> Result<Option<Self>, Fault> {
        let Some(text) = &own.forward_auth else { return Ok(None) };
        let parsed = ctl_config::route::ForwardAuth::parse(text)?;
        let whom = match parsed.whom {
            None => Whom::App(None),
            Some(name) if config.upstream.iter().any(|upstream| upstream.name == name) => {
                Whom::Upstream(name.into())
            }
            // The configuration has been checked: there is such a pool.
            Some(name) => Whom::App(config.pool_number(&name)),
        };
        let copied = own.forward_auth_headers.iter().map(|name| name.to_ascii_lowercase().into());
        Ok(Some(Self {
            whom,
            timeout: own.forward_auth_timeout.unwrap_or(TIMEOUT),
            target: parsed.target.into_bytes().into(),
            copied: copied.collect(),
        }))
    }

    /// The question about a request: a GET without body, and without what belongs to the body and to the connection. What it
    /// is about (method, URI) is told beside it, by who sends it. What nobody vouches for is not in it.
    pub fn question(&self, head: &RequestHead, headers_heard: bool) -> RequestHead {
        let mut headers = Headers::with_capacity(head.headers.len() + 2, 1024);
        for (name, value) in head.headers.iter() {
            if is_for_the_app(name, headers_heard) && !is_about_the_body(name) {
                headers.push(name, value);
            }
        }
        RequestHead { method: Method::Get, target: self.target.to_vec(), version: Version::Http11, headers }
    }

    /// The path and query that are asked for.
    pub fn target(&self) -> &[u8] {
        &self.target
    }

    /// What an answer has put onto a request.
    pub fn said<'a>(&'a self, head: &'a RequestHead) -> impl Iterator<Item = &'a [u8]> {
        self.copied.iter().flat_map(|name| head.headers.all(name))
    }

    /// What an answer of this status means.
    pub fn meaning(status: u16) -> Meaning {
        match status {
            200..=299 => Meaning::Passes,
            // 300, 304 and 305 lead nowhere.
            301 | 302 | 303 | 307 | 308 | 401 | 403 => Meaning::Refuses,
            503 | 504 => Meaning::Fails(status),
            _ => Meaning::Fails(502),
        }
    }

    /// The request as it goes on: with what the answer says, and never with what the client says of it.
    pub fn admit(&self, head: &RequestHead, answer: &Headers) -> Result<Option<Box<RequestHead>>, TooLong> {
        if self.copied.is_empty() {
            return Ok(None);
        }
        let mut head = Box::new(head.clone());
        let mut room = COPIED_BYTES_MAX;
        for name in &self.copied {
            remove(&mut head.headers, name);
            for value in answer.all(name) {
                room = room.checked_sub(name.len() + value.len()).ok_or(TooLong)?;
                head.headers.push(name.as_bytes(), value);
            }
        }
        Ok(Some(head))
    }
}

/// Cookies of an answer that lets pass, for the client: those that its page does not set itself.
pub fn add_cookies(cookies: &Headers, headers: &mut Headers) {
    let name =
        |cookie: &[u8]| cookie.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii().to_vec();
    let own: Vec<_> = headers.all("set-cookie").map(name).collect();
    for (field, cookie) in cookies.iter() {
        if !own.contains(&name(cookie)) {
            headers.push(field, cookie);
        }
    }
}

/// The cookies that an answer sets.
pub fn cookies(answer: &Headers) -> Headers {
    let mut cookies = Headers::default();
    for value in answer.all("set-cookie") {
        cookies.push(b"Set-Cookie", value);
    }
    cookies
}

/// Fields of a request (in lower case) that say something of its body, of a part of its answer, or of what it wants to become: nothing
/// that a question has. A condition or a range would turn a yes into 304 or 206.
fn is_about_the_body(name: &[u8]) -> bool {
    match name.first() {
        Some(b'c') => name.starts_with(b"content-"),
        Some(b'e') => name == b"expect",
        Some(b'h') => name == b"http2-settings",
        Some(b'i') => name.starts_with(b"if-"),
        Some(b'r') => name == b"range",
        Some(b's') => name.starts_with(b"sec-websocket-"),
        Some(b't') => name == b"trailer",
        // What a proxy before us says of them is not what we ask about.
        Some(b'x') => matches!(name, b"x-forwarded-method" | b"x-forwarded-uri"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        RequestHead {
            method: Method::Post,
            target: b"/orders?x=1".to_vec(),
            version: Version::Http2,
            headers,
        }
    }

    fn auth(copied: &[&str]) -> ForwardAuth {
        let own = ctl_config::Route {
            forward_auth: Some("/check?level=2".into()),
            forward_auth_headers: copied.iter().map(|&name| name.to_owned()).collect(),
            ..ctl_config::Route::default()
        };
        ForwardAuth::new(&own, &ctl_config::Config::default()).unwrap().unwrap()
    }

    fn shown(headers: &Headers) -> Vec<String> {
        let text = |(name, value): (&[u8], &[u8])| {
            format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        };
        headers.iter().map(text).collect()
    }

    #[test]
    fn the_question_is_a_get_with_the_clients_credentials() {
        let head = head(&[
            ("host", "shop"),
            ("cookie", "a=b"),
            ("authorization", "Bearer x"),
            ("content-length", "5"),
            ("content-type", "text/plain"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("if-none-match", "\"x\""),
            ("range", "bytes=0-1"),
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-key", "k"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-uri", "/harmless"),
        ]);
        let question = auth(&[]).question(&head, false);
        assert_eq!((question.method, question.target), (Method::Get, b"/check?level=2".to_vec()));
        assert_eq!(shown(&question.headers), ["host: shop", "cookie: a=b", "authorization: Bearer x"]);
        let heard = auth(&[]).question(&head, true);
        assert_eq!(shown(&heard.headers).len(), 4, "of a trusted proxy the true client stays known");
    }

    #[test]
    fn what_the_answer_says_goes_on_and_what_the_client_says_does_not() {
        let head = head(&[("x-user", "root"), ("x_user", "root"), ("x-groups", "staff"), ("a", "b")]);
        let answer =
            self::head(&[("X-User", "anna"), ("x-roles", "one"), ("X-Roles", "two"), ("X-Other", "no")]);
        let admitted =
            auth(&["X-User", "X-Groups", "X-Roles"]).admit(&head, &answer.headers).unwrap().unwrap();
        assert_eq!(shown(&admitted.headers), ["a: b", "x-user: anna", "x-roles: one", "x-roles: two"]);
        assert!(matches!(auth(&[]).admit(&head, &answer.headers), Ok(None)));
        let long = self::head(&[("X-User", &"x".repeat(COPIED_BYTES_MAX))]);
        assert!(matches!(auth(&["X-User"]).admit(&head, &long.headers), Err(TooLong)));
    }

    #[test]
    fn only_a_yes_lets_pass() {
        for status in 100..=599 {
            let meaning = ForwardAuth::meaning(status);
            assert_eq!(meaning == Meaning::Passes, (200..300).contains(&status), "{status}");
        }
        assert_eq!(ForwardAuth::meaning(302), Meaning::Refuses);
        assert_eq!(ForwardAuth::meaning(304), Meaning::Fails(502));
        assert_eq!(ForwardAuth::meaning(404), Meaning::Fails(502));
        assert_eq!(ForwardAuth::meaning(503), Meaning::Fails(503));
    }

    #[test]
    fn the_pages_own_cookies_win() {
        let auth =
            head(&[("Set-Cookie", "session=new; Path=/"), ("set-cookie", "seen=1"), ("x-user", "anna")]);
        let mut page = head(&[("set-cookie", "session=page")]).headers;
        add_cookies(&cookies(&auth.headers), &mut page);
        assert_eq!(shown(&page), ["set-cookie: session=page", "Set-Cookie: seen=1"]);
    }
}
