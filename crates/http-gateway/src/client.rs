//! Who the client really is, behind the proxies we trust. No I/O, no clock.
//!
//! `X-Forwarded-*` and `Forwarded` (RFC 7239) are claims. They are heard from trusted peers only; from everybody else
//! they are removed before the app can see them, because Django code reads `HTTP_X_FORWARDED_FOR` and its kin
//! without asking who wrote them (as Traefik and Caddy do).
//!
//! - The client is found by walking from our peer towards the client, as long as the hop is itself trusted: what
//!   stands behind the first untrusted address was written by that address and proves nothing.
//! - Where an `X-Forwarded-` field is present, `Forwarded` is not heard: most proxies write the former and pass the
//!   latter through as the client wrote it. The proxy next to us must remove or overwrite what it does not mean.
//! - Behind the PROXY protocol the peer is the client that the header names; its forwarded headers are its own.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use http_limits::{BadNetwork, Network, NetworkSet};
use py_link::Local;
pub use py_link::Scheme;

use crate::h1::is_host;
use crate::message::{Connection, Headers};

/// The peers whose forwarded headers (and PROXY protocol) are heard: `proxy.trusted`.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    networks: NetworkSet,
    unix: bool,
}

impl TrustedProxies {
    /// Reads `unix`, addresses, and CIDR ranges.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, BadNetwork> {
        let mut unix = false;
        let mut networks = Vec::new();
        for entry in entries.iter().map(AsRef::as_ref) {
            match entry {
                "unix" => unix = true,
                "*" | "all" | "any" => {
                    let hint = "to trust every peer, write \"0.0.0.0/0\" and \"::/0\"".to_owned();
                    return Err(BadNetwork { entry: entry.to_owned(), hint });
                }
                range => networks.push(Network::parse(range)?),
            }
        }
        Ok(Self { networks: NetworkSet::new(networks), unix })
    }

    /// Is this address a trusted proxy's?
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.networks.contains(addr)
    }

    /// Is this peer of a socket trusted? `None`: a unix socket.
    pub fn trusts(&self, peer: Option<SocketAddr>) -> bool {
        peer.map_or(self.unix, |peer| self.contains(peer.ip()))
    }
}

/// A client's address as text, without memory of its own: it is written for every request. Empty: there is none.
#[derive(Clone, Copy)]
pub struct AddressText {
    text: [u8; ADDRESS_BYTES_MAX],
    len: usize,
}

/// The longest address of IPv6 has 39.
const ADDRESS_BYTES_MAX: usize = 40;

impl From<Option<IpAddr>> for AddressText {
    fn from(address: Option<IpAddr>) -> Self {
        let mut text = [0; ADDRESS_BYTES_MAX];
        let mut rest = &mut text[..];
        match address {
            Some(IpAddr::V4(address)) => {
                let mut digits = itoa::Buffer::new();
                for (place, number) in address.octets().into_iter().enumerate() {
                    let dot: &[u8] = if place > 0 { b"." } else { b"" };
                    for part in [dot, digits.format(number).as_bytes()] {
                        // There is room for every address.
                        let _ = rest.write(part);
                    }
                }
            }
            Some(IpAddr::V6(address)) => {
                let _ = write!(rest, "{address}");
            }
            None => {}
        }
        let len = ADDRESS_BYTES_MAX - rest.len();
        Self { text, len }
    }
}

impl std::ops::Deref for AddressText {
    type Target = str;

    fn deref(&self) -> &str {
        self.text.get(..self.len).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

/// A request's client and how it addressed us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The true client: `REMOTE_ADDR`. `None`: a unix socket, and nobody told.
    pub addr: Option<IpAddr>,
    /// `REMOTE_PORT`; 0 when unknown.
    pub port: u16,
    /// How the client's own connection is protected.
    pub scheme: Scheme,
    /// The host with its port as the client wrote them: what the app shall see as Host. Empty when unknown.
    pub host: Cow<'a, [u8]>,
    /// `SERVER_NAME`: the host part of it, or our address.
    pub server_name: Cow<'a, [u8]>,
    /// `SERVER_PORT`: the port the client used.
    pub server_port: u16,
    /// The forwarded headers were heard; otherwise they must be removed, see [`is_for_the_app`].
    pub headers_heard: bool,
}

impl Identity<'_> {
    /// The same, for longer than the request lasts.
    pub fn into_owned(self) -> Identity<'static> {
        Identity {
            addr: self.addr,
            port: self.port,
            scheme: self.scheme,
            host: Cow::Owned(self.host.into_owned()),
            server_name: Cow::Owned(self.server_name.into_owned()),
            server_port: self.server_port,
            headers_heard: self.headers_heard,
        }
    }
}

/// May the app see this request field (in lower case)? `headers_heard` is from [`Identity`].
///
/// Removed are forwarded headers nobody vouches for, what concerns only the connection (RFC 9110, 7.6.1), and
/// `Proxy`, which CGI-like variables turn into the setting `HTTP_PROXY` (CVE-2016-5385).
pub fn is_for_the_app(name: &[u8], headers_heard: bool) -> bool {
    match name.first() {
        Some(b'f') => headers_heard || name != b"forwarded",
        Some(b'x') => headers_heard || !(name.starts_with(b"x-forwarded-") || name == b"x-real-ip"),
        Some(b'p') => !matches!(name, b"proxy" | b"proxy-connection"),
        Some(b'c') => name != b"connection",
        Some(b'k') => name != b"keep-alive",
        Some(b't') => !matches!(name, b"te" | b"transfer-encoding"),
        Some(b'u') => name != b"upgrade",
        _ => true,
    }
}

/// Finds out who the client of a request is.
pub fn identify<'a>(connection: &Connection, headers: &'a Headers, trusted: &TrustedProxies) -> Identity<'a> {
    // The second question is for the PROXY protocol: there `peer` is whom the trusted proxy named.
    let headers_heard = connection.peer_is_trusted && trusted.trusts(connection.peer);
    let claims = if headers_heard { hear(headers, trusted) } else { Claims::default() };

    let peer = connection.peer.map(|peer| (peer.ip().to_canonical(), peer.port()));
    let (addr, port) = claims.client.or(peer).map_or((None, 0), |(addr, port)| (Some(addr), port));
    let scheme = claims.scheme.unwrap_or(if connection.tls { Scheme::Https } else { Scheme::Http });
    let host = claims.host.or_else(|| headers.get("host").map(Cow::Borrowed)).unwrap_or_default();
    let (name, host_port) = split_host(&host);
    let (server_name, server_port) = if name.is_empty() {
        // HTTP/1.0 without Host: our own address is all there is.
        let (name, port) = match &connection.local {
            Some(Local::Inet(local)) => (local.ip().to_string(), local.port()),
            Some(Local::Unix(_)) | None => ("localhost".to_owned(), default_port(scheme)),
        };
        (Cow::Owned(name.into_bytes()), port)
    } else {
        let name = match &host {
            Cow::Borrowed(host) => Cow::Borrowed(split_host(host).0),
            Cow::Owned(_) => Cow::Owned(name.to_vec()),
        };
        (name, host_port.unwrap_or(default_port(scheme)))
    };
    let server_port = claims.port.unwrap_or(server_port);
    Identity { addr, port, scheme, host, server_name, server_port, headers_heard }
}

fn default_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

/// Host and port of a checked authority; brackets stay.
fn split_host(authority: &[u8]) -> (&[u8], Option<u16>) {
    match memchr::memrchr(b':', authority) {
        Some(colon) if !authority.ends_with(b"]") => {
            let (host, port) = authority.split_at(colon);
            (host, port.get(1..).and_then(parse_port))
        }
        _ => (authority, None),
    }
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    let digit = |port: u16, byte: &u8| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        port.checked_mul(10)?.checked_add(digit)
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, digit) }
}

/// What trusted proxies say; `None` where they say nothing that can be read.
#[derive(Debug, Default)]
struct Claims<'a> {
    client: Option<(IpAddr, u16)>,
    scheme: Option<Scheme>,
    host: Option<Cow<'a, [u8]>>,
    port: Option<u16>,
}

fn hear<'a>(headers: &'a Headers, trusted: &TrustedProxies) -> Claims<'a> {
    if headers.iter().any(|(name, _)| name.starts_with(b"x-forwarded-")) {
        hear_x_forwarded(headers, trusted)
    } else {
        hear_forwarded(headers, trusted).unwrap_or_default()
    }
}

/// Walks from the hop next to us to the first one that is not trusted; returns its place and address. An address
/// that cannot be read ends the walk at the hop before it.
fn walk<T>(
    hops: impl DoubleEndedIterator<Item = T> + ExactSizeIterator,
    address: impl Fn(&T) -> Option<(IpAddr, u16)>,
    trusted: &TrustedProxies,
) -> Option<(usize, (IpAddr, u16))> {
    let mut found = None;
    for (place, hop) in hops.enumerate().rev() {
        let Some(client) = address(&hop) else { break };
        found = Some((place, client));
        if !trusted.contains(client.0) {
            break;
        }
    }
    found
}

fn hear_x_forwarded<'a>(headers: &'a Headers, trusted: &TrustedProxies) -> Claims<'a> {
    let list = |name: &'static str| -> Vec<&'a [u8]> {
        headers.all(name).flat_map(|value| value.split(|&b| b == b',')).map(<[u8]>::trim_ascii).collect()
    };
    let hops = list("x-forwarded-for");
    let found = walk(hops.iter(), |hop| parse_node(hop), trusted);
    // Lists that grow hop by hop belong together; otherwise the word of the proxy next to us counts, which is the
    // last. (Most proxies send one value, and both are the same.)
    let pick = |name: &'static str| -> Option<&'a [u8]> {
        let values = list(name);
        match found {
            Some((place, _)) if values.len() == hops.len() => values.get(place).copied(),
            _ => values.last().copied(),
        }
    };
    Claims {
        client: found.map(|(_, client)| client),
        scheme: pick("x-forwarded-proto").and_then(parse_scheme),
        host: pick("x-forwarded-host").filter(|host| !host.is_empty() && is_host(host)).map(Cow::Borrowed),
        port: pick("x-forwarded-port").and_then(parse_port).filter(|&port| port != 0),
    }
}

fn parse_scheme(value: &[u8]) -> Option<Scheme> {
    if value.eq_ignore_ascii_case(b"https") {
        Some(Scheme::Https)
    } else {
        value.eq_ignore_ascii_case(b"http").then_some(Scheme::Http)
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. Not `unknown`, not `_hidden`.
fn parse_node(node: &[u8]) -> Option<(IpAddr, u16)> {
    let text = std::str::from_utf8(node).ok()?;
    let plain = text.parse::<IpAddr>().ok().map(|addr| (addr, 0));
    let bracketed =
        || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(|addr| (IpAddr::V6(addr), 0));
    let with_port = || text.parse::<SocketAddr>().ok().map(|addr| (addr.ip(), addr.port()));
    let (addr, port) = plain.or_else(bracketed).or_else(with_port)?;
    Some((addr.to_canonical(), port))
}

/// An element of `Forwarded`: what one proxy says.
#[derive(Debug, Default)]
struct Hop<'a> {
    client: Option<(IpAddr, u16)>,
    scheme: Option<Scheme>,
    host: Option<Cow<'a, [u8]>>,
}

/// RFC 7239. A field that breaks the grammar is not heard at all: how its parts belong together is unknown.
fn hear_forwarded<'a>(headers: &'a Headers, trusted: &TrustedProxies) -> Option<Claims<'a>> {
    let mut hops = Vec::new();
    for value in headers.all("forwarded") {
        for element in split_unquoted(value, b',')? {
            hops.push(parse_hop(element)?);
        }
    }
    let (place, client) = walk(hops.iter(), |hop| hop.client, trusted)?;
    let hop = hops.swap_remove(place);
    Some(Claims { client: Some(client), scheme: hop.scheme, host: hop.host, port: None })
}

fn parse_hop(element: &[u8]) -> Option<Hop<'_>> {
    let mut hop = Hop::default();
    for pair in split_unquoted(element, b';')? {
        let pair = pair.trim_ascii();
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_at(memchr::memchr(b'=', pair)?);
        let value = unquote(value.get(1..).unwrap_or_default())?;
        match &*name.to_ascii_lowercase() {
            b"for" if hop.client.is_none() => hop.client = parse_node(&value),
            b"proto" => hop.scheme = parse_scheme(&value),
            b"host" => hop.host = Some(value).filter(|host| !host.is_empty() && is_host(host)),
            _ => {}
        }
    }
    Some(hop)
}

/// Splits outside of quoted strings (RFC 9110, 5.6.4). `None`: a quote is not closed.
fn split_unquoted(value: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = value
        .split(|&byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => return !quoted && byte == separator,
            }
            false
        })
        .collect();
    (!quoted).then_some(parts)
}

/// A token, or the text of a quoted string.
fn unquote(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(rest) = value.strip_prefix(b"\"") else {
        return (!value.contains(&b'"')).then_some(Cow::Borrowed(value));
    };
    let inner = rest.strip_suffix(b"\"")?;
    if !inner.contains(&b'\\') {
        return (!inner.contains(&b'"')).then_some(Cow::Borrowed(inner));
    }
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        text.push(if byte == b'\\' { *bytes.next()? } else { byte });
    }
    Some(Cow::Owned(text))
}

#[cfg(test)]
mod tests;
