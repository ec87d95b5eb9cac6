//! The request that is asked about: from the command line to what the gateway would see of it.

use std::borrow::Cow;
use std::time::Instant;

use clap::ArgMatches;
use http_gateway::client::{Identity, Scheme};
use http_gateway::error_page::own_trail;
use http_gateway::message::{Headers, Method, RequestHead};
use http_gateway::route::{Asked, Comes};
use serde_json::{Value as Json, json};

use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// A request as it is asked about.
pub(super) struct Question {
    head: RequestHead,
    scheme: Scheme,
    host: String,
}

impl Question {
    /// `None`: no URL was given.
    pub(super) fn from_matches(matches: &ArgMatches) -> Result<Option<Self>> {
        let headers: Vec<_> =
            matches.get_many::<String>("header").into_iter().flatten().map(String::as_str).collect();
        let method = matches.get_one::<String>("method").map(String::as_str);
        match matches.get_one::<String>("url") {
            Some(url) => Self::new(url, method.unwrap_or("GET"), &headers).map(Some),
            None if method.is_some() || !headers.is_empty() => {
                Err(Failure::new(Exit::Usage, "which URL? --method and --header say more about one")
                    .hint("quintet routes https://example.org/cart/ --method POST"))
            }
            None => Ok(None),
        }
    }

    pub(super) fn new(url: &str, method: &str, fields: &[&str]) -> Result<Self> {
        let (scheme, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (Scheme::Https, Some(rest)),
            (_, Some(rest)) => (Scheme::Http, Some(rest)),
            _ => (Scheme::Http, None),
        };
        let (host, target) = match rest {
            Some(rest) => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
            None if url.starts_with('/') => ("", url),
            None => {
                return Err(Failure::new(Exit::Usage, format!("\"{url}\" is neither a URL nor a path"))
                    .hint("for example https://example.org/cart/ or /cart/"));
            }
        };
        // Browsers keep what stands behind # to themselves, and escape what may not travel.
        let target = target.split('#').next().unwrap_or_default();
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let mut headers = Headers::default();
        if !host.is_empty() {
            headers.push(b"host", host.as_bytes());
        }
        for field in fields {
            let (name, value) = field.split_once(':').ok_or_else(|| {
                Failure::new(Exit::Usage, format!("--header \"{field}\": the value is missing"))
                    .hint("write --header \"Name: value\"")
            })?;
            headers.push_lower(name.trim().as_bytes(), value.trim().as_bytes());
        }
        let head = RequestHead {
            method: Method::from_bytes(method.to_ascii_uppercase().as_bytes()),
            target: escaped(&target),
            version: http_gateway::message::Version::Http11,
            headers,
        };
        Ok(Self { head, scheme, host: host.to_owned() })
    }

    /// As the routes see it. Forwarded headers count: who asks here speaks for a trusted proxy.
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked::new(&self.head, self.host.as_bytes(), true)
    }

    /// Lets a route say what it makes of it.
    pub(super) fn follow<T>(&self, ask: impl FnOnce(Comes<'_>) -> T) -> T {
        let name = match self.host.rfind(':').filter(|_| !self.host.ends_with(']')) {
            Some(colon) => &self.host[..colon],
            None => &self.host,
        };
        let identity = Identity {
            addr: None,
            port: 0,
            scheme: self.scheme,
            host: Cow::Borrowed(self.host.as_bytes()),
            server_name: Cow::Borrowed(name.as_bytes()),
            server_port: 0,
            headers_heard: true,
        };
        let trail = own_trail(Instant::now(), "id".into(), None);
        ask(Comes {
            head: &self.head,
            identity: &identity,
            certificate: None,
            client: "",
            trail: &trail,
            html: false,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn method(&self) -> String {
        String::from_utf8_lossy(self.head.method.as_bytes()).into_owned()
    }

    /// As it is compared.
    pub(super) fn path(&self) -> String {
        String::from_utf8_lossy(&decoded(self.head.path())).into_owned()
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        let target = String::from_utf8_lossy(&self.head.target);
        let host = if self.host.is_empty() { String::new() } else { format!("{scheme}://{}", self.host) };
        format!("{} {host}{target}", self.method())
    }

    pub(super) fn json(&self) -> Json {
        json!({ "method": self.method(), "host": self.host, "target": String::from_utf8_lossy(&self.head.target), "path": self.path() })
    }
}

/// Percent escapes decoded once.
pub(super) fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    http_gateway::route::decode(path)
}

/// What may not travel as it is, percent-encoded.
fn escaped(target: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(target.len());
    for byte in target.bytes() {
        if byte.is_ascii_graphic() {
            bytes.push(byte);
        } else {
            bytes.extend(format!("%{byte:02X}").bytes());
        }
    }
    bytes
}
