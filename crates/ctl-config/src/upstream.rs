//! `[[upstream]]`: other servers that answer for some routes. The table of keys, and what holds between them.

pub mod health;

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use crate::choice::choice;
use crate::define::record;
use crate::load::Loaded;
use crate::problem::{Place, Problem};
use crate::raw::Fault;
use crate::tables::{self, Record as _, Required, Rules, holds_for_all};

/// Each has connections, a state for each server, and a series of each metric.
const UPSTREAMS_MAX: usize = 256;

/// A choice looks at each of them.
const SERVERS_MAX: usize = 256;

/// RFC 1035, 2.3.4.
const HOST_BYTES_MAX: usize = 253;

/// `sun_path` has 108 bytes on Linux, 104 on macOS, one of them for the closing zero.
const UNIX_PATH_BYTES_MAX: usize = 103;

/// `host`: what the client said.
pub const HOST_OF_CLIENT: &str = "client";

/// `host`: what the server is called.
pub const HOST_OF_SERVER: &str = "server";

const HOW: &str =
    "\"10.0.0.1:8000\", \"[fd00::1]:8000\", \"https://api.example.org\" or \"unix:/run/app.sock\"";

/// It goes along with each request.
const COOKIE_BYTES_MAX: usize = 64;

/// More is a different kind of machine, and hardly a server beside it.
const WEIGHT_MAX: u32 = 1000;

choice! {
    /// What servers are spoken to in.
    Protocol {
        /// HTTP/1.1.
        Http1 = "http/1.1",
        /// HTTP/2: by agreement over TLS, and else without being asked.
        Http2 = "h2",
    }
}

choice! {
    /// Which server gets a request.
    Policy {
        /// The better of two drawn at random, by how long it took of late, what it has to do, and how often it failed.
        PeakEwma = "peak_ewma",
        /// The one with the fewest requests.
        LeastLoaded = "least_loaded",
        /// One after the other.
        RoundRobin = "round_robin",
        /// By `hash_by`, always the same one, unless it has a quarter more to do than its share.
        Hash = "hash",
    }
}

record! {
    /// Other servers that answer for some routes: `upstream = "NAME"` in a `[[route]]` sends its requests there. The servers of one
    /// upstream are alike; `policy` says which of them gets a request, and another one gets it when that one cannot be
    /// reached.
    [[upstream]] Upstream {
        /// Its name in routes, metrics and logs: letters, digits, `-` and `_`.
        name: String = String::new(), otherwise("must be set"), example("\"api\""), checked(check_name);
        /// Where its servers are: `HOST:PORT`, `http://HOST`, `https://HOST`, or `unix:/PATH`; behind it `weight=2` for
        /// one that does twice as much as the others. Names are resolved again as `resolve_interval` says.
        servers: Vec<String> = Vec::new(),
            otherwise("must be set"), example("[\"10.0.0.1:8000\", \"10.0.0.2:8000\"]"), checked(check_server);
        /// Which server gets a request.
        policy: Policy = Policy::PeakEwma;
        /// With `policy = "hash"`, what requests are told apart by: `address` of the client, `path`, or `header:NAME`. Those
        /// without that header go where `peak_ewma` would send them.
        hash_by: Option<String> = None,
            otherwise("`address`"), checked(check_hash_by);
        /// A client comes back to the server that answered it first, by a signed cookie of this name; `policy` decides for those who
        /// bring none. When its server is out, drained or gone, another one takes the client on. The servers do not see the
        /// cookie.
        sticky_cookie: Option<String> = None,
            otherwise("clients belong to no server"), example("\"shop_server\""), checked(check_cookie);
        /// How long clients keep that cookie, from the answer that set it. 0: until the browser ends.
        sticky_time: Duration = Duration::ZERO,
            between("0s", "365d", "browsers keep no cookie for much longer");
        /// File with the secret that the cookie is signed with, at least 16 letters (`openssl rand -hex 32`): for several gateways in
        /// front of the same servers.
        sticky_secret_file: Option<PathBuf> = None,
            otherwise("a secret of its own, kept in `server.state_dir`");
        /// What the servers are told as Host: `client` for what the client said, `server` for what the server is called in
        /// `servers`, or any other name.
        host: String = HOST_OF_CLIENT.to_owned(), example("\"server\""), checked(check_host);
        /// Tell the servers with `Via` that a request came through here, as RFC 9110 wants it, and answer 508 when one has come through
        /// eight of us: it goes in a circle. Off for servers that answer differently then: nginx does not compress
        /// (`gzip_proxied`).
        via: bool = true;
        /// What the servers are spoken to in. Over `h2` all requests of a reactor share one connection; `connections_max` counts
        /// requests then. WebSockets are asked for in HTTP/1.1 either way.
        protocol: Protocol = Protocol::Http1;
        /// File with the certificates of the authorities that https servers are to be believed by, and no others.
        tls_ca: Option<PathBuf> = None, otherwise("those that the system believes"), example("\"/etc/quintet/ca.pem\"");
        /// Our certificate with its chain, for servers that ask for one.
        tls_certificate: Option<PathBuf> = None, otherwise("none is shown");
        /// The key of `tls_certificate`.
        tls_key: Option<PathBuf> = None, otherwise("must be set with `tls_certificate`");
        /// The name that the certificates of https servers must be for.
        tls_server_name: Option<String> = None,
            otherwise("the host in `servers`"), example("\"api.example.org\""), checked(check_host_name);
        /// Connections to each server at one time, WebSockets included. As many requests again may wait for one; more are
        /// answered 503.
        connections_max: u32 = 256,
            between("1", "65535", "a host has no more ports towards one address");
        /// How long a connection is kept for the next request. Shorter than the servers keep theirs.
        keep_alive: Duration = Duration::from_secs(30),
            between("0s", "1h", "an idle connection takes memory on both sides");
        /// How long connecting may take, TLS and the wait for a free connection included; then the next server is tried.
        connect_timeout: Duration = Duration::from_secs(5),
            between("10ms", "5m", "clients give up earlier than that");
        /// How long a server may take to begin its answer; 504 after it.
        response_timeout: Duration = Duration::from_secs(60),
            between("100ms", "1d", "a request that hangs must be noticed");
        /// The longest silence of a server within a body, of its answer or of the request that it takes.
        idle_timeout: Duration = Duration::from_secs(60),
            between("100ms", "1d", "a body that hangs must be noticed");
        /// The longest silence of a WebSocket, both sides, or of an event stream.
        tunnel_timeout: Duration = Duration::from_secs(3600),
            between("1s", "7d", "a connection whose other end is gone without a word must be noticed");
        /// Request bodies are read whole before a server is asked, and answers that come faster than their client takes them
        /// wait here: slow clients hold no connection. Off: bodies go through as they come, and a server waits for the
        /// client; for large uploads and downloads.
        buffer: bool = true;
        /// How long what is known of the addresses of a name is good. What was known stays in use when nothing new is learned.
        resolve_interval: Duration = Duration::from_secs(30),
            between("1s", "1d", "each question takes a thread that may block");
        /// Failures in a row (not reached, no answer, one that broke off or was not understood, 5xx) after which a server gets a
        /// rest, while others have none. Of those that can be reached, half at most rest at a time.
        eject_after: u32 = 5, between("1", "1000", "a server that always fails must be noticed");
        /// How long that rest is. The first request after it decides whether there is another one, twice as long, up to five
        /// minutes (or this, where it is longer).
        eject_time: Duration = Duration::from_secs(10), between("100ms", "1h", "it may be long since it has recovered");
        /// How long a server that comes back gets less than its share, so that caches fill.
        slow_start: Duration = Duration::from_secs(10),
            between("0s", "1h", "the others carry its share meanwhile");
        /// A path by which each server says whether it is well, asked for over `protocol` from a connection of its own. A server that
        /// is not gets no requests, unless no other is left.
        health_path: Option<String> = None,
            otherwise("servers are judged by what they answer to requests"), example("\"/readyz\""),
            checked(health::check_path);
        /// Time between two checks of a server, a tenth more or less. While one says otherwise than those before it, the next ones
        /// come after a second, where that is sooner.
        health_interval: Duration = Duration::from_secs(5),
            between("100ms", "1h", "checks must be next to nothing for the server");
        /// How long a check may take, connecting included.
        health_timeout: Duration = Duration::from_secs(3),
            between("10ms", "1m", "a server that takes so long for it is not well");
        /// Good checks in a row that bring a server back.
        health_rise: u32 = 2, between("1", "1000", "a server that is well must be believed some time");
        /// Bad checks in a row that take it out. The very first check of a server is believed at once.
        health_fall: u32 = 3, between("1", "1000", "a server that is not well must be noticed");
        /// Answers that say that a server is well: a status, or a range of them.
        health_status: Vec<String> = Vec::new(),
            otherwise("`200-399`"), example("[\"200\", \"204\"]"), checked(health::check_status);
        /// What checks say as Host.
        health_host: Option<String> = None,
            otherwise("as `host`; where that is the client's, what the server is called in `servers`"),
            example("\"shop.example.org\""), checked(health::check_host);
        /// How many requests may be sent again when a connection breaks, in percent of all, and ten a second besides. Those
        /// that never reached a server do not count.
        retry_budget: u32 = 20, between("0", "100", "more would multiply the load on servers that fail");
    }
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// A name or an address (without brackets), a port.
    Tcp {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// https.
        tls: bool,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl ServerAddress {
    /// From an item of `servers`, with its weight.
    pub fn weighted(text: &str) -> Result<(Self, u32), Fault> {
        let Some((address, weight)) = text.split_once(' ') else { return Ok((Self::parse(text)?, 1)) };
        let weight = weight.trim_start().strip_prefix("weight=").and_then(|weight| weight.parse().ok());
        match weight {
            Some(weight @ 1..=WEIGHT_MAX) => Ok((Self::parse(address)?, weight)),
            _ => Err(Fault::new(format!("\"{text}\" is not a server: behind it stands its weight"))
                .hint(format!("\"10.0.0.1:8000 weight=2\", from 1 to {WEIGHT_MAX}"))),
        }
    }

    /// From an item of `servers`, without a weight.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let bad = |why: &str| Fault::new(format!("\"{text}\" is not a server: {why}")).hint(HOW);
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = path.starts_with('/') && path.len() <= UNIX_PATH_BYTES_MAX;
            if !fits || path.contains(char::is_control) {
                return Err(bad("after unix: comes an absolute path, of at most 103 bytes"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let (usual, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(80), rest),
            Some(("https", rest)) => (Some(443), rest),
            Some(_) => return Err(bad("it is http:// or https://")),
            None => (None, text),
        };
        let rest = if usual.is_some() { rest.strip_suffix('/').unwrap_or(rest) } else { rest };
        if rest.contains(['/', '?', '#']) {
            return Err(
                bad("a server has no path").hint("strip_prefix and rewrite of the route change paths")
            );
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| bad("the ] is missing"))?;
                host.parse::<Ipv6Addr>().map_err(|_| bad("between [ and ] stands an IPv6 address"))?;
                let port = match port.strip_prefix(':') {
                    None if !port.is_empty() => return Err(bad("after ] comes : and the port")),
                    port => port,
                };
                (host, port)
            }
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        if !is_host_name(host) && host.parse::<Ipv6Addr>().is_err() {
            return Err(bad("there is no host"));
        }
        let port = match (port, usual) {
            (Some(port), _) => port.parse().ok().filter(|&port| port > 0),
            (None, usual) => usual,
        };
        let port = port.ok_or_else(|| bad("a port is a number from 1 to 65535"))?;
        Ok(Self::Tcp { host: host.to_owned(), port, tls: usual == Some(443) })
    }

    fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }
}

impl Rules for Upstream {
    const COUNT_MAX: (usize, &'static str) =
        (UPSTREAMS_MAX, "each has connections and metrics of its own; one may have several servers");
    const REQUIRED: &'static [Required] = &[
        Required { key: "name", question: "how do routes call it?", example: "\"api\"" },
        Required { key: "servers", question: "where are they?", example: "\"https://api.example.org\"" },
    ];

    fn together(loaded: &Loaded, problems: &mut Vec<Problem>) {
        let upstreams = &loaded.config.upstream;
        for (index, upstream) in upstreams.iter().enumerate() {
            let place = |key: &str| loaded.place_in(Self::TABLE, index, key);
            alone(upstream, place, problems);
            let earlier = &upstreams[..index];
            if !upstream.name.is_empty() && earlier.iter().any(|other| other.name == upstream.name) {
                let problem =
                    Problem::new(format!("upstream.name: there are two upstreams \"{}\"", upstream.name))
                        .hint("give one of them another name, or make them one with all servers");
                problems.push(problem.at(place("name")));
            }
            let cookie = upstream.sticky_cookie.as_ref();
            if let Some(cookie) = cookie
                && let Some(other) = earlier.iter().find(|other| other.sticky_cookie.as_ref() == Some(cookie))
            {
                let message =
                    format!("upstream.sticky_cookie: \"{cookie}\" is that of \"{}\", too", other.name);
                let problem = Problem::new(message)
                    .hint("give each a cookie of its own: one would overwrite the other");
                problems.push(problem.at(place("sticky_cookie")));
            }
        }
    }

    fn wanted(name: &str) -> Option<String> {
        let near = match name {
            "server" | "url" | "urls" | "address" | "addresses" | "backend" | "backends" => "servers",
            "ca" | "ca_file" => "tls_ca",
            "sni" | "server_name" => "tls_server_name",
            "timeout" | "read_timeout" => "response_timeout\" or \"idle_timeout",
            "balance" | "lb_policy" | "algorithm" => "policy",
            "retries" | "retry_percent" => "retry_budget",
            "max_fails" => "eject_after",
            "fail_timeout" => "eject_time",
            "health" | "health_check" | "healthcheck" | "health_uri" | "check" => "health_path",
            "rise" | "passes" | "health_passes" => "health_rise",
            "fall" | "fails" | "health_fails" => "health_fall",
            "interval" | "inter" => "health_interval",
            "cookie" | "session" | "affinity" => "sticky_cookie",
            "secret" | "secret_file" => "sticky_secret_file",
            _ => return holds_for_all(name, &["timeouts", "limits", "buffers"], "upstreams"),
        };
        Some(format!("did you mean \"{near}\"?"))
    }
}

/// The rules between the keys of one upstream.
fn alone(upstream: &Upstream, place: impl Fn(&str) -> Option<Place>, problems: &mut Vec<Problem>) {
    let mut wrong = |key: &str, message: String, hint: String| {
        problems.push(Problem::new(message).hint(hint).at(place(key)));
    };
    let servers = &upstream.servers;
    if servers.is_empty() {
        let message = "upstream.servers: the list is empty, so nobody would answer".to_owned();
        wrong("servers", message, format!("for example {HOW}"));
    }
    if servers.len() > SERVERS_MAX {
        let message = format!("upstream.servers: {} are too many", servers.len());
        wrong("servers", message, format!("at most {SERVERS_MAX}"));
    }
    let address = |server: &String| ServerAddress::weighted(server).ok().map(|(address, _)| address);
    let parsed: Vec<_> = servers.iter().filter_map(address).collect();
    for (index, server) in parsed.iter().enumerate() {
        if parsed[..index].contains(server) {
            let message = format!("upstream.servers: \"{}\" is there twice", servers[index]);
            wrong("servers", message, "each server once".to_owned());
        }
    }
    if upstream.policy != Policy::Hash && upstream.hash_by.is_some() {
        let message = format!("upstream.hash_by: the policy is {}", upstream.policy.word());
        wrong("hash_by", message, "it holds for policy = \"hash\"".to_owned());
    }
    if upstream.sticky_cookie.is_none() {
        let time = (!upstream.sticky_time.is_zero()).then_some("sticky_time");
        let file = upstream.sticky_secret_file.as_ref().map(|_| "sticky_secret_file");
        for key in time.into_iter().chain(file) {
            let message = format!("upstream.{key}: there is no cookie");
            wrong(key, message, "sticky_cookie gives it a name".to_owned());
        }
    }
    health::together(upstream, &mut wrong);
    let pair = [("tls_certificate", &upstream.tls_certificate), ("tls_key", &upstream.tls_key)];
    if let [(there, Some(_)), (missing, None)] | [(missing, None), (there, Some(_))] = pair {
        wrong(there, format!("upstream.{there}: {missing} is missing"), "they go together".to_owned());
    }
    if !parsed.is_empty() && !parsed.iter().any(ServerAddress::is_tls) {
        let names = upstream.tls_server_name.as_ref().map(|_| "tls_server_name");
        let files = [("tls_ca", &upstream.tls_ca), ("tls_certificate", &upstream.tls_certificate)];
        for key in files.into_iter().filter_map(|(key, path)| path.as_ref().map(|_| key)).chain(names) {
            let message = format!("upstream.{key}: none of the servers speaks TLS");
            wrong(key, message, "write https:// before those that do".to_owned());
        }
    }
}

fn check_name(text: &str) -> Result<(), Fault> {
    tables::check_name(text, "an upstream", "api")
}

fn check_server(text: &str) -> Result<(), Fault> {
    ServerAddress::weighted(text).map(drop)
}

fn check_hash_by(text: &str) -> Result<(), Fault> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_name = |name: &str| !name.is_empty() && name.len() <= HOST_BYTES_MAX && name.bytes().all(letter);
    match text {
        "address" | "path" => Ok(()),
        _ if text.strip_prefix("header:").is_some_and(is_name) => Ok(()),
        _ => Err(Fault::new(format!("\"{text}\" is nothing to tell requests apart by"))
            .hint("address, path, or header:NAME as header:X-Tenant")),
    }
}

/// A token (RFC 6265, 4.1.1), and not the name of a cookie that the app needs itself.
fn check_cookie(text: &str) -> Result<(), Fault> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > COOKIE_BYTES_MAX || !text.bytes().all(letter) {
        return Err(Fault::new(format!("\"{text}\" is no name for a cookie"))
            .hint("letters, digits, - and _, for example shop_server"));
    }
    if ["sessionid", "csrftoken", "messages"].contains(&text) {
        return Err(Fault::new(format!(
            "\"{text}\" is a cookie of Django's, and the servers would not see it"
        ))
        .hint("give it a name of its own, for example shop_server"));
    }
    Ok(())
}

/// Letters, digits and what names of hosts hold besides.
fn is_host_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= HOST_BYTES_MAX && text.bytes().all(plain)
}

fn check_host_name(text: &str) -> Result<(), Fault> {
    if is_host_name(text) || text.parse::<Ipv6Addr>().is_ok() {
        return Ok(());
    }
    Err(Fault::new(format!("\"{text}\" is not the name of a host")).hint("for example api.example.org"))
}

fn check_host(text: &str) -> Result<(), Fault> {
    let (host, port) = text.split_once(':').unwrap_or((text, "80"));
    if is_host_name(host) && port.parse::<u16>().is_ok() {
        return Ok(());
    }
    Err(Fault::new(format!("\"{text}\" cannot be told as Host"))
        .hint("client, server, or a name such as api.example.org"))
}

#[cfg(test)]
mod tests;
