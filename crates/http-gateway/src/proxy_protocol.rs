//! The PROXY protocol, versions 1 and 2: what a proxy says about the client before the client's first byte.
//! No I/O, no clock; the specification is HAProxy's `proxy-protocol.txt`.
//!
//! Only trusted peers are asked for it, and they must send it: a peer that may choose whether it does could be a
//! client that writes its own. Parsing never allocates and looks at [`HEADER_BYTES_MAX`] bytes at most.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is accepted. Version 1 has 107 bytes at most; version 2 could have 65,551, of which
/// addresses and the usual extensions need a few hundred.
pub const HEADER_BYTES_MAX: usize = 4096;

/// What version 2 begins with. No HTTP request does.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// With CRLF; from the specification.
const LINE_BYTES_MAX: usize = 107;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself (a health check), or does not say for whom: the socket's own addresses count.
    Local {
        /// The client's connection to the proxy was encrypted.
        tls: bool,
    },
    /// The proxy speaks for a client.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
        /// The client's connection to the proxy was encrypted (version 2 can tell).
        tls: bool,
    },
}

/// The peer did not send a header, or a broken one: close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The first bytes are of something else.
    #[error("there is no PROXY protocol header")]
    Missing,
    /// It begins well but breaks the specification.
    #[error("the PROXY protocol header is malformed: {0}")]
    Malformed(&'static str),
}

/// Reads the header at the start of `input`: with the number of its bytes, or `None` when more must be read.
pub fn parse(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let begins_with = |start: &[u8]| {
        let common = start.len().min(input.len());
        input.get(..common) == start.get(..common)
    };
    if begins_with(SIGNATURE) {
        return if input.len() > SIGNATURE.len() { binary(input) } else { Ok(None) };
    }
    if begins_with(b"PROXY ") { line(input) } else { Err(ProxyError::Missing) }
}

/// Version 1: one line.
fn line(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let window = input.get(..LINE_BYTES_MAX).unwrap_or(input);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() < LINE_BYTES_MAX {
            Ok(None)
        } else {
            Err(ProxyError::Malformed("the line is too long"))
        };
    };
    let malformed = ProxyError::Malformed("the line is not as the specification says");
    let Some((b'\r', text)) = window.get(..end).and_then(<[u8]>::split_last) else { return Err(malformed) };
    let text = std::str::from_utf8(text).map_err(|_| malformed)?;
    let mut words = text.split(' ');
    let (Some("PROXY"), Some(family)) = (words.next(), words.next()) else { return Err(malformed) };
    // Whatever follows UNKNOWN is to be ignored.
    if family == "UNKNOWN" {
        return Ok(Some((Header::Local { tls: false }, end + 1)));
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address().ok_or(malformed)?, address().ok_or(malformed)?);
    let mut port = || {
        let word = words.next().filter(|word| word.bytes().all(|b| b.is_ascii_digit()))?;
        word.parse::<u16>().ok()
    };
    let (source_port, destination_port) = (port().ok_or(malformed)?, port().ok_or(malformed)?);
    if words.next().is_some() {
        return Err(malformed);
    }
    let source = SocketAddr::new(source, source_port);
    let destination = SocketAddr::new(destination, destination_port);
    Ok(Some((Header::Proxied { source, destination, tls: false }, end + 1)))
}

/// Version 2: signature, version and command, family and transport, length, addresses, extensions.
fn binary(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    /// Signature, command, family, length.
    const FIXED_BYTES: usize = 16;

    let version_command = input.get(12).copied().unwrap_or_default();
    if version_command >> 4 != 2 {
        return Err(ProxyError::Malformed("the version is not 2"));
    }
    let Some(&[_, family, l0, l1]) = input.get(12..FIXED_BYTES) else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if FIXED_BYTES + len > HEADER_BYTES_MAX {
        return Err(ProxyError::Malformed("the header is too long"));
    }
    let Some(payload) = input.get(FIXED_BYTES..FIXED_BYTES + len) else { return Ok(None) };
    let header = match version_command & 15 {
        // LOCAL: whatever follows is to be skipped.
        0 => Header::Local { tls: false },
        1 => proxied(family, payload)?,
        _ => return Err(ProxyError::Malformed("the command is unknown")),
    };
    Ok(Some((header, FIXED_BYTES + len)))
}

/// The addresses and extensions of a PROXY command.
fn proxied(family: u8, payload: &[u8]) -> Result<Header, ProxyError> {
    let truncated = ProxyError::Malformed("the addresses are cut short");
    Ok(match family {
        // TCP over IPv4: source, destination, ports.
        0x11 => {
            let (source, rest) = payload.split_first_chunk::<4>().ok_or(truncated)?;
            let (destination, rest) = rest.split_first_chunk::<4>().ok_or(truncated)?;
            let (&[s0, s1, d0, d1], rest) = rest.split_first_chunk().ok_or(truncated)?;
            let source = SocketAddr::from((*source, u16::from_be_bytes([s0, s1])));
            let destination = SocketAddr::from((*destination, u16::from_be_bytes([d0, d1])));
            Header::Proxied { source, destination, tls: is_tls(rest)? }
        }
        // TCP over IPv6.
        0x21 => {
            let (source, rest) = payload.split_first_chunk::<16>().ok_or(truncated)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(truncated)?;
            let (&[s0, s1, d0, d1], rest) = rest.split_first_chunk().ok_or(truncated)?;
            let source = SocketAddr::from((*source, u16::from_be_bytes([s0, s1])));
            let destination = SocketAddr::from((*destination, u16::from_be_bytes([d0, d1])));
            Header::Proxied { source, destination, tls: is_tls(rest)? }
        }
        // A unix stream: two paths of 108 bytes, which say nothing about a client's address.
        0x31 => {
            let (_, rest) = payload.split_first_chunk::<216>().ok_or(truncated)?;
            Header::Local { tls: is_tls(rest)? }
        }
        // UNSPEC: the proxy does not know; what follows is to be skipped.
        0x00 => Header::Local { tls: false },
        _ => return Err(ProxyError::Malformed("the address family is unknown")),
    })
}

/// Walks the extensions (type, length, value) for the one that tells of TLS.
fn is_tls(mut extensions: &[u8]) -> Result<bool, ProxyError> {
    /// `PP2_TYPE_SSL`; its first byte is a bit field, of which the lowest means TLS (`PP2_CLIENT_SSL`).
    const SSL: u8 = 0x20;

    let truncated = ProxyError::Malformed("an extension is cut short");
    let mut tls = false;
    while !extensions.is_empty() {
        let (&[kind, l0, l1], rest) = extensions.split_first_chunk().ok_or(truncated)?;
        let (value, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1]))).ok_or(truncated)?;
        if kind == SSL {
            // Client bits and the result of the verification are always there.
            let (&[client, ..], _) = value.split_first_chunk::<5>().ok_or(truncated)?;
            tls = client & 1 != 0;
        }
        extensions = rest;
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Whole and in every prefix: a prefix is never an error when the whole is none, and never complete.
    fn check(input: &[u8], expected: Header) {
        let mut longer = input.to_vec();
        longer.extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(parse(&longer), Ok(Some((expected, input.len()))));
        for len in 0..input.len() {
            assert_eq!(parse(&input[..len]), Ok(None), "{:?}", &input[..len]);
        }
    }

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend_from_slice(&[command, family]);
        out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    const V4: [u8; 12] = [192, 168, 1, 10, 192, 168, 1, 1, 0x30, 0x39, 1, 0xbb];

    fn v4(tls: bool) -> Header {
        Header::Proxied {
            source: address("192.168.1.10:12345"),
            destination: address("192.168.1.1:443"),
            tls,
        }
    }

    #[test]
    fn lines() {
        let (source, destination) = (address("192.168.0.1:56324"), address("192.168.0.11:443"));
        check(
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            Header::Proxied { source, destination, tls: false },
        );
        let (source, destination) = (address("[2001:db8::1]:65535"), address("[::1]:0"));
        check(b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", Header::Proxied { source, destination, tls: false });
        check(b"PROXY UNKNOWN\r\n", Header::Local { tls: false });
        check(b"PROXY UNKNOWN ffff:f...f:ffff whatever 1 2 3\r\n", Header::Local { tls: false });
    }

    #[test]
    fn bad_lines() {
        for bad in [
            "PROXY TCP4 192.168.0.1 192.16...\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 65iii 100000\r\n",
            "PROXY TCP4 not-an-ip 192.168.0.11 56324 443\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "PROXY \r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        ] {
            assert!(matches!(parse(bad.as_bytes()), Err(ProxyError::Malformed(_))), "{bad}");
        }
        assert!(parse(format!("PROXY UNKNOWN {}", "x".repeat(100)).as_bytes()).is_err());
        for other in ["GET / HTTP/1.1\r\n", "PROXX", "\r\nGET", "proxy "] {
            assert_eq!(parse(other.as_bytes()), Err(ProxyError::Missing), "{other}");
        }
    }

    #[test]
    fn binary_headers() {
        check(&v2(0x21, 0x11, &V4), v4(false));
        let ssl = [&V4[..], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
        check(&v2(0x21, 0x11, &ssl), v4(true));
        let others = [&V4[..], &[0x01, 0, 2, b'h', b'2', 0x20, 0, 5, 0, 0, 0, 0, 0]].concat();
        check(&v2(0x21, 0x11, &others), v4(false));
        let mut v6 = [0; 36];
        (v6[0], v6[15], v6[31], v6[33], v6[35]) = (0x20, 1, 2, 80, 90);
        let (source, destination) = (address("[2000::1]:80"), address("[::2]:90"));
        check(&v2(0x21, 0x21, &v6), Header::Proxied { source, destination, tls: false });
        check(&v2(0x20, 0x00, b"anything"), Header::Local { tls: false });
        check(&v2(0x21, 0x00, b"anything"), Header::Local { tls: false });
        check(&v2(0x21, 0x31, &[0; 216]), Header::Local { tls: false });
    }

    #[test]
    fn bad_binary_headers() {
        for (command, family, payload) in [
            (0x11, 0x11, &V4[..]),
            (0x22, 0x11, &V4),
            (0x21, 0x12, &V4),
            (0x21, 0x41, &V4),
            (0x21, 0x11, &V4[..11]),
            (0x21, 0x21, &V4),
            (0x21, 0x31, &[0; 215]),
            (0x21, 0x11, &[&V4[..], &[0x20, 0]].concat()),
            (0x21, 0x11, &[&V4[..], &[0x20, 0, 5, 1]].concat()),
            (0x21, 0x11, &[&V4[..], &[0x20, 0, 1, 1]].concat()),
            (0x20, 0x00, &[0; HEADER_BYTES_MAX]),
        ] {
            let seen = parse(&v2(command, family, payload));
            assert!(matches!(seen, Err(ProxyError::Malformed(_))), "{command:x} {family:x} {payload:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_never_reads_beyond(command: u8, family: u8, payload in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            let whole = v2(command, family, &payload);
            let seen = parse(&whole);
            if let Ok(Some((_, bytes))) = seen {
                prop_assert_eq!(bytes, whole.len());
            }
            // What a prefix says, the whole says too.
            let prefix = parse(&whole[..cut.min(whole.len())]);
            if prefix != Ok(None) {
                prop_assert_eq!(prefix, seen);
            }
        }

        #[test]
        fn lines_never_panic(text in "PROXY (TCP4|TCP6|UNKNOWN)?[ 0-9a-f.:]{0,120}(\r\n)?") {
            if let Ok(Some((_, bytes))) = parse(text.as_bytes()) {
                prop_assert!(bytes <= LINE_BYTES_MAX);
            }
        }
    }
}
