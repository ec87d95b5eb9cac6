//! Where to listen: `HOST:PORT`, `unix:PATH`, `fd:N`, `systemd`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::raw::{Fault, Input, Raw};
use crate::value::{Kind, Value};

/// The port when an address names none.
pub const DEFAULT_PORT: u16 = 8000;

/// `sun_path` has 108 bytes on Linux, 104 on macOS, one of them for the closing zero.
const UNIX_PATH_BYTES_MAX: usize = 103;

const HOW: &str = "127.0.0.1:8000, [::1]:8000, :8000 (every interface), unix:/run/site.sock, fd:3 or systemd";

/// An address to listen on, already understood.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BindAddress {
    /// An IP address or a name that the system resolves; port 0 lets the system choose.
    Tcp {
        /// `127.0.0.1`, `::1` (without brackets), `localhost`.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
    /// A listening socket that we have inherited under this number.
    Fd(u16),
    /// Every socket that systemd passes (`LISTEN_FDS`).
    Systemd,
}

impl BindAddress {
    /// Only this machine can reach it. Sockets whose address is not known yet count as reachable.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            Self::Unix(_) => true,
            Self::Fd(_) | Self::Systemd => false,
        }
    }

    fn parse(text: &str, base: &Path) -> Result<Self, Fault> {
        let bad = |why: &str| Fault::new(format!("\"{text}\" is not an address: {why}")).hint(HOW);
        if let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") {
            let address = rest.trim_end_matches('/');
            let tls = if scheme == "https" { "; TLS comes from tls.certificate and tls.key" } else { "" };
            return Err(bad("it is a URL").hint(format!("write {address}{tls}")));
        }
        if text == "systemd" {
            return Ok(Self::Systemd);
        }
        if let Some(number) = text.strip_prefix("fd:") {
            let number: u16 =
                number.parse().map_err(|_| bad("after fd: comes the number of a descriptor"))?;
            return if number < 3 {
                Err(bad("0, 1 and 2 are input and output"))
            } else {
                Ok(Self::Fd(number))
            };
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::parse_unix(text, path, base);
        }
        let (host, port) = split_port(text).map_err(bad)?;
        let host = match host {
            "" | "*" => "0.0.0.0",
            host => host,
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    fn parse_unix(text: &str, path: &str, base: &Path) -> Result<Self, Fault> {
        if path.is_empty() {
            return Err(
                Fault::new(format!("\"{text}\" is not an address: after unix: comes a path")).hint(HOW)
            );
        }
        let path: PathBuf = base.join(path.strip_prefix("//").unwrap_or(path)).components().collect();
        let bytes = path.as_os_str().len();
        if bytes > UNIX_PATH_BYTES_MAX {
            return Err(Fault::new(format!(
                "the path of this socket has {bytes} bytes; the system allows {UNIX_PATH_BYTES_MAX}"
            ))
            .hint("choose a shorter directory, for example below /run"));
        }
        Ok(Self::Unix(path))
    }
}

/// `host:port`, `[v6]:port`, `host`, `:port` or `port` alone (which stays on this machine).
fn split_port(text: &str) -> Result<(&str, u16), &'static str> {
    const PORT: &str = "a port is a number from 0 to 65535";
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("the ] is missing")?;
        host.parse::<Ipv6Addr>().map_err(|_| "between [ and ] stands an IPv6 address")?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| PORT)?,
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err("after ] comes : and the port"),
        };
        return Ok((host, port));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err("an IPv6 address stands between [ and ]");
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(("127.0.0.1", text.parse().map_err(|_| PORT)?));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| PORT)?),
        None if text.is_empty() => return Err("it is empty"),
        None => (text, DEFAULT_PORT),
    };
    if host.contains('/') {
        return Err("a path is written unix:PATH");
    }
    // The characters of host names and IPv4 addresses (RFC 952 and 1123), and the underscore that containers use.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if host != "*" && !host.bytes().all(plain) {
        return Err("the host has a character that no host has");
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && !host.is_empty()
        && host.parse::<IpAddr>().is_err()
    {
        return Err("an IPv4 address has four numbers from 0 to 255");
    }
    Ok((host, port))
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Fd(number) => write!(f, "fd:{number}"),
            Self::Systemd => f.write_str("systemd"),
        }
    }
}

impl std::str::FromStr for BindAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, Path::new("")).map_err(|fault| fault.message)
    }
}

impl TryFrom<String> for BindAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<BindAddress> for String {
    fn from(address: BindAddress) -> Self {
        address.to_string()
    }
}

impl Value for BindAddress {
    const KIND: Kind = Kind::Address;

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        match input.raw {
            Raw::Word(text) | Raw::Text(text) => Self::parse(text.trim(), input.base),
            Raw::Integer(port) => Self::parse(&port.to_string(), input.base),
            other => Err(Fault::new(format!("{} is not an address", other.describe())).hint(HOW)),
        }
    }

    fn json(&self) -> Json {
        self.to_string().into()
    }
}

/// An address, a range (`10.0.0.0/8`) or `unix`, as `proxy.trusted` lists them.
pub(crate) fn check_network(text: &str) -> Result<(), Fault> {
    let hint = "10.1.2.3, 10.0.0.0/8, fd00::/8, or unix for every peer of a unix socket";
    let bad = |why: &str| Fault::new(format!("\"{text}\" is not an address or range: {why}")).hint(hint);
    if text == "unix" {
        return Ok(());
    }
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| bad("the address cannot be read"))?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    match bits.map(str::parse::<u8>) {
        None => Ok(()),
        Some(Ok(bits)) if bits <= bits_max => Ok(()),
        Some(_) => Err(bad(&format!("after / comes a number from 0 to {bits_max}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, want: &str) {
        let got = match BindAddress::parse(text, Path::new("/srv/shop")) {
            Ok(address) => address.to_string(),
            Err(fault) => format!("! {}", fault.message),
        };
        assert_eq!(got, want, "{text:?}");
    }

    #[test]
    fn every_form() {
        check("127.0.0.1:8000", "127.0.0.1:8000");
        check("[::1]:80", "[::1]:80");
        check("[::]", "[::]:8000");
        check(":8000", "0.0.0.0:8000");
        check("*:80", "0.0.0.0:80");
        check("9000", "127.0.0.1:9000");
        check("0.0.0.0", "0.0.0.0:8000");
        check("localhost:0", "localhost:0");
        check("unix:/run/shop.sock", "unix:/run/shop.sock");
        check("unix:///run/shop.sock", "unix:/run/shop.sock");
        check("unix:run/shop.sock", "unix:/srv/shop/run/shop.sock");
        check("fd:3", "fd:3");
        check("systemd", "systemd");
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("", "! \"\" is not an address: it is empty");
        check("::1", "! \"::1\" is not an address: an IPv6 address stands between [ and ]");
        check("[::1", "! \"[::1\" is not an address: the ] is missing");
        check("host:port", "! \"host:port\" is not an address: a port is a number from 0 to 65535");
        check("host:70000", "! \"host:70000\" is not an address: a port is a number from 0 to 65535");
        check("/run/x.sock", "! \"/run/x.sock\" is not an address: a path is written unix:PATH");
        check("fd:1", "! \"fd:1\" is not an address: 0, 1 and 2 are input and output");
        check(
            "300.1.1.1:80",
            "! \"300.1.1.1:80\" is not an address: an IPv4 address has four numbers from 0 to 255",
        );
        check("http://localhost:8000/", "! \"http://localhost:8000/\" is not an address: it is a URL");
        check("a b:80", "! \"a b:80\" is not an address: the host has a character that no host has");
    }

    #[test]
    fn socket_paths_are_short_enough() {
        let path = format!("unix:/{}", "d".repeat(UNIX_PATH_BYTES_MAX));
        assert!(BindAddress::parse(&path, Path::new("/")).is_err());
    }

    #[test]
    fn local_ones_are_told_from_public_ones() {
        for (text, local) in
            [("127.0.0.1:1", true), ("[::1]:1", true), (":1", false), ("unix:/x", true), ("fd:3", false)]
        {
            let address: BindAddress = text.parse().unwrap();
            assert_eq!(address.is_local(), local, "{text}");
        }
    }

    #[test]
    fn networks() {
        for (text, right) in [
            ("10.0.0.0/8", true),
            ("::1", true),
            ("unix", true),
            ("10.0.0.0/33", false),
            ("proxy", false),
            ("10/8", false),
        ] {
            assert_eq!(check_network(text).is_ok(), right, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(text in "\\PC{0,40}") {
            if let Ok(address) = text.parse::<BindAddress>() {
                prop_assert_eq!(address.to_string().parse::<BindAddress>(), Ok(address));
            }
        }

        #[test]
        fn near_misses_do_not_panic(text in "[\\[\\]:a-z0-9./*]{0,24}") {
            if let Ok(address) = text.parse::<BindAddress>() {
                prop_assert_eq!(address.to_string().parse::<BindAddress>(), Ok(address));
            }
        }
    }
}
