//! WebSockets: what a server must answer, how bytes go through, and how it ends.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::drain::{Drain, Phase};
use crate::error_page::own_trail;
use crate::h1::Stream;
use crate::upstream::fake::*;
use crate::upstream::{Forward, Handshake, ServerAddress, Settings, TlsFiles, Upstream};
use crate::websocket::driver::{End, Outcome};
use crate::websocket::handshake::accept;
use crate::websocket::tunnel::{Bounds, relay};

const GOOD: &str = "101 Switching Protocols|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Accept: KEY|\
    Sec-WebSocket-Protocol: chat|X-App: yes|";

/// Reads a handshake and answers with `fields`, in which `KEY` stands for what proves that it was understood; then an echo, until
/// it hears `bye`. Returns the handshake.
async fn echo(mut stream: TcpStream, fields: &str) -> String {
    let mut heard = Vec::new();
    assert!(follow(&mut stream, &Step::Head, |bytes| heard.extend(bytes)).await);
    let heard = String::from_utf8(heard).unwrap();
    let key = heard.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let fields = fields.replace("KEY", &accept(key.as_bytes())).replace('|', "\r\n");
    // The first bytes of the conversation come with the answer.
    let greeting = if fields.starts_with("101") { "welcome" } else { "" };
    stream.write_all(format!("HTTP/1.1 {fields}\r\n{greeting}").as_bytes()).await.unwrap();
    let mut bytes = [0; 100];
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        if stream.write_all(&bytes[..read]).await.is_err() || bytes.starts_with(b"bye") {
            break;
        }
    }
    heard
}

async fn server(fields: &'static str) -> (ServerAddress, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { echo(listener.accept().await.unwrap().0, fields).await });
    (ServerAddress::Tcp { host: address.ip().to_string(), port: address.port(), tls: false }, task)
}

async fn shake_hands(place: ServerAddress, with: impl FnOnce(&mut Settings)) -> Result<Handshake, String> {
    let mut settings = settings(vec![place]);
    with(&mut settings);
    let upstream = Upstream::new(settings, TlsFiles::default()).unwrap();
    let mut asks = head("GET", "/ws?room=1");
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
    ] {
        asks.headers.push(name.as_bytes(), value.as_bytes());
    }
    let mut trail = own_trail(std::time::Instant::now(), "id1".into(), None);
    let request = Forward { head: &asks, origin: origin(), body_bytes_max: 0 };
    upstream.websocket(&request, &mut nothing(), &mut trail).await.map_err(|failure| failure.to_string())
}

#[tokio::test]
async fn only_a_server_that_has_understood_is_talked_to() {
    let bad = "the answer is not understood";
    for (fields, expected) in [
        (GOOD, "accepted"),
        ("101 Switching Protocols|Upgrade: websocket|Connection: Upgrade|", bad),
        ("101 Switching Protocols|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Accept: x|", bad),
        ("101 Switching Protocols|Upgrade: websocket|Sec-WebSocket-Accept: KEY|", bad),
        ("101 Switching Protocols|Connection: Upgrade|Sec-WebSocket-Accept: KEY|", bad),
        ("101 Switching Protocols|Upgrade: h2c|Connection: Upgrade|Sec-WebSocket-Accept: KEY|", bad),
        ("403 Forbidden|Content-Length: 0|", "answered 403"),
        ("200 OK|Content-Length: 0|", "answered 200"),
    ] {
        let (place, task) = server(fields).await;
        let seen = match shake_hands(place, |_| {}).await {
            Ok(Handshake::Accepted(..)) => "accepted".to_owned(),
            Ok(Handshake::Answered(response)) => format!("answered {}", response.status),
            Err(failure) => failure,
        };
        assert_eq!(seen, expected, "{fields}");
        let heard = task.await.unwrap();
        assert!(heard.starts_with("GET /ws?room=1 HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("\r\nsec-websocket-protocol: chat\r\n"), "{heard}");
        assert!(!heard.contains("dGhlIHNhbXBsZSBub25jZQ"), "the key is ours: {heard}");
    }
}

/// A client, the conversation, and who may end it.
struct Talk {
    client: UnixStream,
    relay: JoinHandle<Outcome>,
    drain: tokio::sync::watch::Sender<Phase>,
    server: JoinHandle<String>,
}

async fn talk(silence: Duration) -> Talk {
    let (place, server) = server(GOOD).await;
    let Ok(Handshake::Accepted(headers, tunnel)) = shake_hands(place, |it| it.tunnel_timeout = silence).await
    else {
        panic!("it takes part")
    };
    assert_eq!(headers.get("x-app"), Some(&b"yes"[..]));
    let (mut client, ours) = UnixStream::pair().unwrap();
    let (drain, ear) = Drain::channel();
    let bounds = Bounds { write: Duration::from_millis(300), grace: Duration::from_millis(100) };
    let relay = tokio::spawn(async move {
        let mut wire = Stream::new(ours, Vec::new());
        relay(&mut wire, tunnel, bounds, ear).await
    });
    let mut greeting = [0; 7];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"welcome");
    Talk { client, relay, drain, server }
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn bytes_go_both_ways_until_the_server_closes() {
    let mut talk = talk(LONG).await;
    let mut back = [0; 4];
    for _ in 0..3 {
        talk.client.write_all(b"ping").await.unwrap();
        talk.client.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ping");
    }
    talk.client.write_all(b"bye!").await.unwrap();
    talk.client.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"bye!", "what it said last arrives");
    assert_eq!(talk.relay.await.unwrap(), Outcome { end: End::Closed, sent: 7 + 16 });
}

#[tokio::test]
async fn a_client_that_goes_ends_it() {
    let mut talk = talk(LONG).await;
    talk.client.write_all(b"ping").await.unwrap();
    drop(talk.client);
    assert_eq!(talk.relay.await.unwrap().end, End::Gone);
    talk.server.await.unwrap();
}

#[tokio::test]
async fn silence_and_a_drain_end_it() {
    let silent = talk(Duration::from_millis(200)).await;
    assert_eq!(silent.relay.await.unwrap().end, End::Gone);
    silent.server.await.unwrap();
    let drained = talk(LONG).await;
    drained.drain.send_replace(Phase::Draining);
    assert_eq!(drained.relay.await.unwrap().end, End::Gone);
    drained.server.await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_ends_it() {
    let talk = talk(LONG).await;
    let (_reader, mut writer) = talk.client.into_split();
    // The echo fills the way back, and then nothing moves.
    let flood = tokio::spawn(async move { while writer.write_all(&[b'x'; 100]).await.is_ok() {} });
    assert_eq!(talk.relay.await.unwrap().end, End::Gone);
    flood.await.unwrap();
}
