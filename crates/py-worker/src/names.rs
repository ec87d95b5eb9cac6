//! Names of headers, each with what was made of it once: an object of Python, and whether apps see it.
//!
//! Those that browsers and proxies send are there from the start; others are learned from requests, up to a bound.

use std::collections::HashMap;

/// What browsers and proxies send.
const USUAL: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "dnt",
    "expect",
    "forwarded",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "origin",
    "pragma",
    "priority",
    "proxy",
    "range",
    "referer",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-csrftoken",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-http-method-override",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
];

/// Names learned from requests besides those: enough for any site's own headers, too few for a client that invents
/// names to fill memory.
const LEARNED_MAX: usize = 192;

/// Longer names are not remembered.
const LEARNED_NAME_BYTES_MAX: usize = 64;

struct Known<T> {
    name: Box<[u8]>,
    made: T,
    /// The header that came behind it the last time: clients keep their order, so that this is mostly right and
    /// saves the hashing.
    next: usize,
}

/// See the file's head. `T` is what is made of a name.
pub(crate) struct Names<T> {
    known: Vec<Known<T>>,
    index: HashMap<Box<[u8]>, usize>,
}

/// Where one is in the headers of a request.
#[derive(Default)]
pub(crate) struct Place(usize);

impl<T> Names<T> {
    pub(crate) fn new(make: impl Fn(&[u8]) -> T) -> Self {
        let mut this = Self { known: Vec::new(), index: HashMap::new() };
        for name in USUAL {
            this.learn(name.as_bytes(), make(name.as_bytes()));
        }
        this
    }

    fn learn(&mut self, name: &[u8], made: T) -> usize {
        let at = self.known.len();
        self.known.push(Known { name: name.into(), made, next: 0 });
        self.index.insert(name.into(), at);
        at
    }

    /// What was made of this name, the next one of its request. `None`: it cannot be remembered, and is to be made for this
    /// request alone.
    pub(crate) fn get(
        &mut self,
        place: &mut Place,
        name: &[u8],
        make: impl FnOnce(&[u8]) -> T,
    ) -> Option<&mut T> {
        let guess = self.known.get(place.0).map(|known| known.next).unwrap_or_default();
        let at = match self.known.get(guess) {
            Some(known) if known.name.as_ref() == name => Some(guess),
            _ => self.index.get(name).copied(),
        };
        let at = match at {
            Some(at) => at,
            None if name.len() > LEARNED_NAME_BYTES_MAX || self.known.len() >= USUAL.len() + LEARNED_MAX => {
                return None;
            }
            None => self.learn(name, make(name)),
        };
        if let Some(known) = self.known.get_mut(place.0) {
            known.next = at;
        }
        place.0 = at;
        self.known.get_mut(at).map(|known| &mut known.made)
    }
}
