//! To a connection that may be used: the address, the socket, TLS, the greeting with its password.
//!
//! What a server says about a greeting is told by its first word only: servers repeat commands that they do not know, and the password
//! is a part of this one.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ctl_config::{Redis as Settings, RedisAddress, RedisHost};
use http_redis::{Value, decode, encode};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::link::ANSWER_BYTES_MAX;
use crate::upstream::{Socket, TlsFiles, client_config};

/// An address is a line.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// Where Redis is, without its secrets: as configured, or the node of a cluster that it sent us to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    shown: String,
    moved: Option<(String, u16)>,
}

impl Place {
    /// `MOVED 3999 127.0.0.1:6381`: another node of the cluster answers for our keys.
    pub(super) fn moved(refusal: &str) -> Option<Self> {
        let place = refusal.strip_prefix("MOVED ")?.split(' ').nth(1)?;
        let (host, port) = place.rsplit_once(':')?;
        let port = port.parse().ok()?;
        // An empty host: the same one, at another port.
        Some(Self { shown: place.to_owned(), moved: Some((host.to_owned(), port)) })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

enum Source {
    Url(Box<RedisAddress>),
    File(PathBuf),
}

/// Makes connections.
pub(super) struct Connector {
    source: Source,
    tls_ca: Option<PathBuf>,
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
    timeout: Duration,
}

impl Connector {
    /// `None`: no address is named. The error is for the operator.
    pub(super) fn new(settings: &Settings) -> Result<Option<Self>, String> {
        let source = match (&settings.url, &settings.url_file) {
            (Some(url), _) => {
                let address = url.address().map_err(|fault| format!("redis.url: {}", fault.message))?;
                Source::Url(Box::new(address))
            }
            (None, Some(file)) => Source::File(file.clone()),
            (None, None) => return Ok(None),
        };
        let connector = Self {
            source,
            tls_ca: settings.tls_ca.clone(),
            tls: OnceLock::new(),
            timeout: settings.connect_timeout,
        };
        // What cannot work is told at once; the file is read again for each connection.
        let address = connector.address()?;
        if let RedisHost::Tcp { tls: true, .. } = address.host {
            connector.tls()?;
        }
        Ok(Some(connector))
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.timeout
    }

    /// As configured.
    pub(super) fn place(&self) -> Place {
        let shown = match &self.source {
            Source::Url(address) => address.to_string(),
            Source::File(file) => file.display().to_string(),
        };
        Place { shown, moved: None }
    }

    fn address(&self) -> Result<RedisAddress, String> {
        match &self.source {
            Source::Url(address) => Ok(RedisAddress::clone(address)),
            Source::File(path) => {
                let mut text = String::new();
                let read =
                    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
                read.map_err(|error| format!("redis.url_file: {}: {error}", path.display()))?;
                RedisAddress::parse(&text)
                    .map_err(|fault| format!("redis.url_file: {}: {}", path.display(), fault.message))
            }
        }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let made = self.tls.get_or_init(|| {
            let mut config = ClientConfig::clone(&*client_config(TlsFiles {
                ca: self.tls_ca.as_deref(),
                identity: None,
            })?);
            // No name is registered for this protocol.
            config.alpn_protocols.clear();
            Ok(Arc::new(config))
        });
        made.clone().map_err(|why| format!("redis.tls_ca: {why}"))
    }

    /// A connection on which commands are heard, within `redis.connect_timeout`, and where it leads. The error is for the operator.
    pub(super) async fn connect(&self, place: &Place) -> Result<(Socket, Place), String> {
        let made = tokio::time::timeout(self.timeout, self.connected(place)).await;
        made.unwrap_or_else(|_| Err("it could not be reached in time".to_owned()))
    }

    async fn connected(&self, place: &Place) -> Result<(Socket, Place), String> {
        let mut address = match &self.source {
            Source::Url(address) => RedisAddress::clone(address),
            Source::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                let text = text.map_err(|error| format!("redis.url_file cannot be read: {error}"))?;
                RedisAddress::parse(&text).map_err(|fault| format!("redis.url_file: {}", fault.message))?
            }
        };
        if let (Some((moved, moved_port)), RedisHost::Tcp { host, port, .. }) =
            (&place.moved, &mut address.host)
        {
            if !moved.is_empty() {
                host.clone_from(moved);
            }
            *port = *moved_port;
        }
        let mut socket = self.socket(&address).await?;
        greet(&mut socket, &address).await?;
        Ok((socket, Place { shown: address.to_string(), moved: place.moved.clone() }))
    }

    async fn socket(&self, address: &RedisAddress) -> Result<Socket, String> {
        let refused = |error: io::Error| format!("it could not be reached: {error}");
        match &address.host {
            RedisHost::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix).map_err(refused),
            RedisHost::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?;
                stream.set_nodelay(true).map_err(refused)?;
                if !*tls {
                    return Ok(Socket::Tcp(stream));
                }
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| "its name cannot be that in a certificate".to_owned())?;
                let stream = TlsConnector::from(self.tls()?).connect(name, stream).await;
                stream.map(|stream| Socket::Tls(Box::new(stream))).map_err(|error| format!("TLS: {error}"))
            }
        }
    }
}

/// RESP3, password, database.
async fn greet(socket: &mut Socket, address: &RedisAddress) -> Result<(), String> {
    let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
    if let Some(password) = &address.password {
        hello.extend([b"AUTH", address.user.as_deref().unwrap_or("default").as_bytes(), password.as_bytes()]);
    }
    // For CLIENT LIST.
    hello.extend([&b"SETNAME"[..], b"quintet"]);
    ask(socket, &hello).await.map_err(|why| format!("it refused the greeting: {why}"))?;
    if address.database != 0 {
        let database = address.database.to_string();
        let selected = ask(socket, &[b"SELECT", database.as_bytes()]).await;
        selected.map_err(|why| format!("it refused database {database}: {why}"))?;
    }
    Ok(())
}

/// One command on a connection that has no other. The caller bounds the time.
async fn ask(socket: &mut Socket, words: &[&[u8]]) -> Result<(), String> {
    let mut bytes = Vec::new();
    encode(&mut bytes, words);
    let written = socket.write_all(&bytes).await;
    written.map_err(|error| error.to_string())?;
    socket.flush().await.map_err(|error| error.to_string())?;
    bytes.clear();
    loop {
        match decode(&bytes, ANSWER_BYTES_MAX) {
            Ok(Some((Value::Error(why), _))) => return Err(first_word(&why)),
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(malformed) => return Err(malformed.to_string()),
        }
        match socket.read_buf(&mut bytes).await {
            Ok(0) => return Err("the connection was closed".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// `WRONGPASS`, `NOAUTH`, `ERR`: what is behind it may repeat what we said.
fn first_word(why: &str) -> String {
    let word = why.split(' ').next().unwrap_or_default();
    let known = word.len() <= 20 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    match word {
        "WRONGPASS" => "WRONGPASS, user or password is not right".to_owned(),
        "NOAUTH" => "NOAUTH, it wants a password".to_owned(),
        "NOPROTO" | "ERR" => format!("{word}, is it older than Redis 6?"),
        word if known => word.to_owned(),
        _ => "an error".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_greeting_is_answered_repeats_no_password() {
        #[track_caller]
        fn check(said: &str, shown: &str) {
            assert_eq!(first_word(said), shown);
        }
        check("WRONGPASS invalid username-password pair", "WRONGPASS, user or password is not right");
        check(
            "ERR unknown command 'HELLO', with args beginning with: 'pa55'",
            "ERR, is it older than Redis 6?",
        );
        check("LOADING Redis is loading the dataset in memory", "LOADING");
        check("pa55 is what you said", "an error");
        check("", "");
    }

    #[test]
    fn another_node_of_a_cluster() {
        let moved = |text| Place::moved(text).and_then(|place| place.moved);
        assert_eq!(moved("MOVED 3999 10.0.0.7:6381"), Some(("10.0.0.7".to_owned(), 6381)));
        assert_eq!(moved("MOVED 3999 :6381"), Some((String::new(), 6381)));
        for text in ["MOVED", "MOVED 3999", "MOVED 3999 host", "MOVED 3999 host:x", "ASK 3999 host:1", "ERR"]
        {
            assert_eq!(moved(text), None, "{text}");
        }
    }
}
