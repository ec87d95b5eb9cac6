//! Whose a request is: the words `address`, `user`, `header:NAME`, `path` and `route` of `limit.by` and `route.single_flight_by`.

use std::net::IpAddr;

use http_limits::{KeyHasher, Seed};

use crate::cookie::first_cookie;
use crate::message::RequestHead;

/// What a part of a key is, so that an address is never taken for a header of the same bytes.
mod kind {
    pub(super) const ADDRESS: u8 = 1;
    pub(super) const USER: u8 = 2;
    pub(super) const HEADER: u8 = 3;
    pub(super) const PATH: u8 = 4;
    pub(super) const ROUTE: u8 = 5;
}

/// What becomes a key, part by part.
pub(crate) trait Parts {
    /// One more.
    fn part(&mut self, kind: u8, bytes: &[u8]);
}

impl Parts for KeyHasher {
    fn part(&mut self, kind: u8, bytes: &[u8]) {
        Self::part(self, kind, bytes);
    }
}

#[derive(Debug)]
enum By {
    Address,
    User,
    Header(String),
    Path,
    Route,
}

/// Who asks for what.
pub(crate) struct Asks<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) client: Option<IpAddr>,
    pub(crate) session_cookie: &'a [u8],
    /// The label of its route, once that is known.
    pub(crate) route: Option<&'a str>,
}

/// The words of a setting, compiled. Without one everybody is the same.
#[derive(Debug)]
pub(crate) struct Whose(Box<[By]>);

impl Whose {
    /// Of words that have been checked.
    pub(crate) fn new<'a>(words: impl IntoIterator<Item = &'a String>) -> Self {
        let by = |by: &String| match by.as_str() {
            "user" => By::User,
            "path" => By::Path,
            "route" => By::Route,
            other => match other.strip_prefix("header:") {
                Some(name) => By::Header(name.to_ascii_lowercase()),
                // The setting was checked: it is the one that is left.
                None => By::Address,
            },
        };
        Self(words.into_iter().map(by).collect())
    }

    /// Is a request's path looked at?
    pub(crate) fn reads_path(&self) -> bool {
        self.0.iter().any(|by| matches!(by, By::Path))
    }

    /// Is its session looked for?
    pub(crate) fn reads_session(&self) -> bool {
        self.0.iter().any(|by| matches!(by, By::User))
    }

    /// Adds to a key whose the request is; `path` is the decoded one. `None`: nothing tells.
    pub(crate) fn put(&self, key: &mut impl Parts, asks: &Asks<'_>, path: &[u8]) -> Option<()> {
        let Asks { head, client, .. } = asks;
        for by in &self.0 {
            match by {
                By::Address => put_address(key, (*client)?),
                By::User => match user(asks) {
                    Some(user) => key.part(kind::USER, user),
                    None => put_address(key, (*client)?),
                },
                By::Header(name) => {
                    let mut values = head.headers.all(name).peekable();
                    // Who leaves it away must not be free of the limit.
                    if values.peek().is_none() {
                        put_address(key, (*client)?);
                    }
                    values.for_each(|value| key.part(kind::HEADER, value));
                }
                By::Path => key.part(kind::PATH, path),
                By::Route => key.part(kind::ROUTE, asks.route?.as_bytes()),
            }
        }
        Some(())
    }
}

/// What a signed-in user shows.
fn user<'a>(asks: &Asks<'a>) -> Option<&'a [u8]> {
    let headers = &asks.head.headers;
    headers.get("authorization").or_else(|| first_cookie(headers.get("cookie")?, asks.session_cookie))
}

fn put_address(key: &mut impl Parts, addr: IpAddr) {
    match http_limits::client(addr) {
        IpAddr::V4(addr) => key.part(kind::ADDRESS, &addr.octets()),
        IpAddr::V6(addr) => key.part(kind::ADDRESS, &addr.octets()),
    }
}

/// The key of a client alone.
pub(super) fn address_key(seed: Seed, client: IpAddr) -> u64 {
    let mut key = seed.hasher();
    put_address(&mut key, client);
    key.key()
}
