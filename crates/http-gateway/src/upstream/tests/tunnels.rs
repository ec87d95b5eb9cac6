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
    let bounds = Bounds {
        write: Duration::from_millis(300),
        grace: Duration::from_millis(100),
        close: Duration::from_millis(300),
    };
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

/// A frame of a client, whose mask is of zeros, or of a server.
fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let (second, mask): (u8, &[u8]) = if masked { (0x80, &[0; 4]) } else { (0, &[]) };
    [&[first, second | payload.len() as u8], mask, payload].concat()
}

/// A server that has taken part; both ends of the conversation, and who may end it.
async fn talk_frames() -> (UnixStream, TcpStream, JoinHandle<Outcome>, tokio::sync::watch::Sender<Phase>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let place = ServerAddress::Tcp { host: address.ip().to_string(), port: address.port(), tls: false };
    let server = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut heard = Vec::new();
        assert!(follow(&mut stream, &Step::Head, |bytes| heard.extend(bytes)).await);
        let heard = String::from_utf8(heard).unwrap();
        let key = heard.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let fields = GOOD.replace("KEY", &accept(key.as_bytes())).replace('|', "\r\n");
        stream.write_all(format!("HTTP/1.1 {fields}\r\n").as_bytes()).await.unwrap();
        stream
    });
    let Ok(Handshake::Accepted(_, tunnel)) = shake_hands(place, |it| it.tunnel_timeout = LONG).await else {
        panic!("it takes part")
    };
    let (client, ours) = UnixStream::pair().unwrap();
    let (drain, ear) = Drain::channel();
    let bounds = Bounds { write: LONG, grace: Duration::from_millis(100), close: LONG };
    let relay = tokio::spawn(async move {
        let mut wire = Stream::new(ours, Vec::new());
        relay(&mut wire, tunnel, bounds, ear).await
    });
    (client, server.await.unwrap(), relay, drain)
}

#[tokio::test]
async fn both_sides_are_told_between_two_frames() {
    for (phase, code) in [(Phase::Draining, 1001_u16), (Phase::Moved, 1012)] {
        let (mut client, mut server, relay, drain) = talk_frames().await;
        // The server has begun a message, and half of its second frame has come.
        let whole = [frame(0x01, false, b"be"), frame(0x00, false, b"gun, "), frame(0x80, false, b"ended")];
        let whole = whole.concat();
        server.write_all(&whole[..6]).await.unwrap();
        let mut came = vec![0; 6];
        client.read_exact(&mut came).await.unwrap();
        drain.send_replace(phase);
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.write_all(&whole[6..]).await.unwrap();
        let close = [&code.to_be_bytes()[..], b"the proxy goes away"].concat();
        let told = [&whole[6..11], &frame(0x88, false, &close)[..]].concat();
        let mut came = vec![0; told.len()];
        client.read_exact(&mut came).await.unwrap();
        assert_eq!(came, told, "the frame is whole, then comes the close, and what follows goes nowhere");
        let mut heard = [0; 27];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard[..2], [0x88, 0x95]);
        let unmasked: Vec<u8> =
            heard[6..].iter().zip(heard[2..6].iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(unmasked, close);
        client.write_all(&frame(0x81, true, b"late")).await.unwrap();
        client.write_all(&frame(0x88, true, &code.to_be_bytes())).await.unwrap();
        server.write_all(&frame(0x88, false, &code.to_be_bytes())).await.unwrap();
        assert_eq!(relay.await.unwrap().end, End::Closed);
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "nothing follows a close frame: {rest:?}");
    }
}

#[tokio::test]
async fn who_has_closed_is_told_nothing_more() {
    let (mut client, mut server, relay, drain) = talk_frames().await;
    client.write_all(&frame(0x88, true, &1000_u16.to_be_bytes())).await.unwrap();
    let mut heard = [0; 8];
    server.read_exact(&mut heard).await.unwrap();
    drain.send_replace(Phase::Draining);
    let mut told = vec![0; 23];
    client.read_exact(&mut told).await.unwrap();
    assert_eq!(told[..4], [0x88, 21, 0x03, 0xe9]);
    drop(server);
    assert_eq!(relay.await.unwrap().end, End::Closed);
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
