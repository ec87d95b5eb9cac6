//! Bodies that go from a server to a client of HTTP/1.1, over sockets: straight while the client keeps up, and what happens when it
//! does not, or when one of them breaks off.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::drain::Drain;
use crate::error_page::{error, own_trail};
use crate::h1;
use crate::message::{Connection, Exchange, RequestBody, RequestHead, Response, Service};
use crate::request_body::Payload;
use crate::upstream::fake::*;
use crate::upstream::{Forward, Upstream};

/// More than the kernel's buffers take between two sockets.
const MUCH: usize = 16 << 20;

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Passes everything on.
struct Front {
    upstream: Upstream,
    finished: Mutex<Vec<String>>,
}

impl Service for Front {
    async fn call<B: RequestBody>(&self, _: &Connection, head: &RequestHead, body: &mut B) -> Response {
        let mut trail = own_trail(std::time::Instant::now(), "id1".into(), None);
        let request = Forward { head, origin: origin(), body_bytes_max: BODY_BYTES_MAX };
        let answered = self.upstream.forward(&request, Payload::Empty, body, &mut trail).await;
        answered.unwrap_or_else(|failure| {
            panic!("no answer: {failure}");
        })
    }

    fn refuse(&self, _: &Connection, status: u16, why: &'static str) -> Response {
        error(status, false, why, own_trail(std::time::Instant::now(), "".into(), None))
    }

    fn finished(&self, exchange: &Exchange<'_>) {
        let word = if exchange.complete { "whole" } else { "cut" };
        self.finished.lock().unwrap().push(format!("{word} {}", exchange.body_bytes_sent));
    }
}

impl Front {
    fn new(upstream: Upstream) -> Arc<Self> {
        Arc::new(Self { upstream, finished: Mutex::default() })
    }

    /// A client's connection to it.
    async fn client(self: &Arc<Self>) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (transport, _) = listener.accept().await.unwrap();
        let service = Arc::clone(self);
        tokio::spawn(async move {
            let (_drain, ear) = Drain::channel();
            let connection = Connection::default();
            h1::serve(transport, BytesMut::new(), connection, service, Arc::default(), ear).await;
        });
        client
    }

    async fn has_finished(&self, expected: &[&str]) {
        for _ in 0..500 {
            if *self.finished.lock().unwrap() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.finished.lock().unwrap());
    }
}

/// Bytes of which each piece looks different.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 251 * 7 + at) as u8).collect()
}

fn of_length(body: &[u8]) -> Step {
    Step::Say(
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat(),
    )
}

/// Reads a head and so many bytes behind it.
async fn answer(client: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let mut body = vec![0; bytes];
    client.read_exact(&mut body).await.unwrap();
    body
}

#[tokio::test]
async fn a_quick_client_gets_every_byte_and_the_connection_is_kept() {
    let sizes = [MUCH, 70_000, 100_000, 65_537, 200_000];
    let mut script = Vec::new();
    for bytes in sizes {
        script.extend([Step::Head, of_length(&pattern(bytes))]);
    }
    let fake = Fake::start(vec![script]).await;
    let front = Front::new(upstream(&fake));
    let mut client = front.client().await;
    for bytes in sizes {
        client.write_all(ASK).await.unwrap();
        assert!(answer(&mut client, bytes).await == pattern(bytes), "{bytes} bytes arrive as they were");
    }
    assert_eq!(fake.connections(), 1);
    front.has_finished(&sizes.map(|bytes| format!("whole {bytes}")).each_ref().map(String::as_str)).await;
}

#[tokio::test]
async fn a_slow_client_holds_no_connection() {
    let script = vec![Step::Head, of_length(&pattern(MUCH)), Step::Again];
    let fake = Fake::start(vec![script]).await;
    let front = Front::new(upstream_with(&fake, |it| it.spool.disk_bytes = 1 << 30));
    let mut idle = front.client().await;
    idle.write_all(ASK).await.unwrap();
    // It has not taken a byte, and the server is done.
    fake.has_done(0, 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut other = front.client().await;
    other.write_all(ASK).await.unwrap();
    assert!(answer(&mut other, MUCH).await == pattern(MUCH));
    assert_eq!(fake.connections(), 1, "the connection was free already");
    assert!(answer(&mut idle, MUCH).await == pattern(MUCH), "nothing is lost on the way into the spool");
}

#[tokio::test]
async fn chunks_come_one_by_one() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let script = vec![
        Step::Head,
        say(&format!("{head}2\r\nab\r\n")),
        Step::Wait(Duration::from_millis(100)),
        say("3\r\ncde"),
        Step::Wait(Duration::from_millis(100)),
        say("\r\n0\r\nX: y\r\n\r\n"),
        Step::Again,
    ];
    let fake = Fake::start(vec![script]).await;
    let front = Front::new(upstream(&fake));
    let mut client = front.client().await;
    for _ in 0..2 {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
            .await
            .unwrap();
        let expected = b"2\r\nab\r\n3\r\ncde\r\n0\r\nX: y\r\n\r\n";
        assert_eq!(
            String::from_utf8_lossy(&answer(&mut client, expected.len()).await),
            String::from_utf8_lossy(expected)
        );
    }
    assert_eq!(fake.connections(), 1);
}

/// What a client of a server with this script has got when its connection ends.
async fn cut(said: Vec<Step>) -> (usize, Arc<Front>) {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n";
    let script = [vec![Step::Head, say(&format!("{head}{}", "x".repeat(100_000)))], said].concat();
    let fake = Fake::start(vec![script]).await;
    let front = Front::new(upstream_with(&fake, |it| it.idle_timeout = Duration::from_millis(300)));
    let mut client = front.client().await;
    client.write_all(ASK).await.unwrap();
    let mut got = answer(&mut client, 1).await;
    let _reset = client.read_to_end(&mut got).await;
    (got.len(), front)
}

#[tokio::test]
async fn who_breaks_off_does_not_look_whole() {
    for said in [vec![], vec![Step::Reset], vec![Step::Stall]] {
        let (got, front) = cut(said.clone()).await;
        assert!(got <= 100_000, "{said:?}: {got}");
        let finished = front.finished.lock().unwrap().clone();
        assert!(finished.len() == 1 && finished[0].starts_with("cut"), "{said:?}: {finished:?}");
        let servers = front.upstream.group().status(std::time::Instant::now());
        assert_eq!(servers[0].failures, 1, "{said:?}: that counts against the server");
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_server() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n";
    let script = vec![Step::Head, say(&format!("{head}{}", "x".repeat(100_000))), Step::End];
    let fake = Fake::start(vec![script]).await;
    let front = Front::new(upstream(&fake));
    let mut client = front.client().await;
    client.write_all(ASK).await.unwrap();
    answer(&mut client, 100_000).await;
    drop(client);
    fake.has_done(0, 3).await;
    front.has_finished(&["cut 100000"]).await;
}
