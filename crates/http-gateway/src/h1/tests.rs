//! Stories of whole connections: a paused clock, an in-memory stream and a service that does as the path says.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ctl_config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Transport, serve};
use crate::drain::{Drain, Phase};
use crate::message::{
    AnsweredBy, Body, BodyError, Connection, Exchange, FileBody, Headers, RequestBody, RequestHead, Response,
    Service, Trail, Version,
};
use crate::spool::{Aborted, SpoolLimits, spool};

impl Transport for DuplexStream {}

/// Bytes that the stream under test takes before it blocks.
const WIRE_BYTES: usize = 64 * 1024;

#[derive(Default)]
struct Fake {
    finished: Mutex<Vec<String>>,
}

fn response(status: u16, body: impl Into<Bytes>) -> Response {
    let trail = Trail {
        started: Instant::now(),
        request_id: Box::default(),
        client: Box::default(),
        by: AnsweredBy::Gateway,
        queue_wait: Duration::ZERO,
    };
    let mut headers = Headers::default();
    // Keeps the expected bytes below free of the clock.
    headers.push(b"date", b"now");
    Response { status, reason: Box::default(), headers, body: Body::Bytes(body.into()), close: false, trail }
}

async fn read_all<B: RequestBody>(body: &mut B) -> Result<Vec<u8>, BodyError> {
    let mut all = Vec::new();
    while let Some(piece) = body.chunk().await? {
        assert!(!piece.is_empty(), "a piece is never empty");
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

impl Service for Fake {
    async fn call<B: RequestBody>(&self, _: &Connection, head: &RequestHead, body: &mut B) -> Response {
        match head.path() {
            b"/echo" => match read_all(body).await {
                Ok(all) => response(200, all),
                Err(error) => {
                    let status = match error {
                        BodyError::Timeout => 408,
                        BodyError::TooLarge => 413,
                        BodyError::Malformed | BodyError::Gone => 400,
                    };
                    Response { close: true, ..response(status, error.to_string()) }
                }
            },
            b"/too-large" => Response { close: true, ..response(413, "too large") },
            b"/ignore" => response(200, "ignored"),
            b"/large" => response(200, vec![b'x'; 300_000]),
            b"/wait" => {
                body.closed().await;
                response(499, "")
            }
            b"/lie" => {
                let mut lie = response(200, "four");
                lie.headers.push(b"Content-Length", b"5");
                lie
            }
            b"/split" => {
                let mut split = response(200, "");
                split.headers.push(b"X", b"a\r\nb: c");
                split
            }
            b"/file" | b"/short-file" => {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&vec![b'f'; 200_000]).unwrap();
                let len = if head.path() == b"/file" { 100_000 } else { 300_000 };
                let body = Body::File(FileBody { file: Arc::new(file), offset: 5, len });
                Response { body, ..response(200, "") }
            }
            b"/stream" | b"/stream-excess" | b"/stream-short" | b"/stream-abort" | b"/stream-endless" => {
                stream(head)
            }
            b"/none" => Response { body: Body::Empty, ..response(204, "") },
            path => response(200, path.to_vec()),
        }
    }

    fn refuse(&self, _: &Connection, status: u16, why: &'static str) -> Response {
        Response { close: true, ..response(status, why) }
    }

    fn finished(&self, exchange: &Exchange<'_>) {
        let path = exchange.head.map_or("?", |head| std::str::from_utf8(&head.target).unwrap());
        let how = if exchange.complete { "" } else { " cut" };
        let line = format!("{path} {} {}{how}", exchange.status, exchange.body_bytes_sent);
        self.finished.lock().unwrap().push(line);
    }
}

/// A response that comes in three pieces with a second between them. `?N` promises N bytes.
fn stream(head: &RequestHead) -> Response {
    let limits = SpoolLimits { memory_bytes: 1 << 20, disk_bytes: 0, dir: std::env::temp_dir() };
    let (mut writer, body) = spool(limits);
    let path = head.path().to_vec();
    // HTTP/1.0 is only tested for how it ends, on a clock that runs.
    let pause = if head.version == Version::Http10 { Duration::ZERO } else { Duration::from_secs(1) };
    tokio::spawn(async move {
        for piece in ["one", "two", "three"] {
            if !writer.push(Bytes::from_static(piece.as_bytes()), || ()).await.unwrap() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
        match &path[..] {
            b"/stream-abort" => writer.end(Err(Aborted)),
            b"/stream-endless" => writer.reader_gone().await,
            _ => writer.end(Ok(())),
        }
    });
    let mut response = Response { body: Body::Stream(body), ..response(200, "") };
    if let Some(promised) = head.target.strip_prefix(head.path()).and_then(|query| query.strip_prefix(b"?")) {
        response.headers.push(b"Content-Length", promised);
    }
    response
}

/// A client with its connection being served.
struct Client {
    wire: DuplexStream,
    served: JoinHandle<()>,
    service: Arc<Fake>,
    drain: watch::Sender<Phase>,
}

impl Client {
    fn new() -> Self {
        Self::with(&b""[..], Config::default())
    }

    fn with(already_read: &[u8], config: Config) -> Self {
        let (wire, transport) = duplex(WIRE_BYTES);
        let (drain, ear) = Drain::channel();
        let service = Arc::new(Fake::default());
        let connection = Connection { peer: None, peer_is_trusted: false, local: None, tls: false };
        let already_read = BytesMut::from(already_read);
        let config = Arc::new(config);
        let served =
            tokio::spawn(serve(transport, already_read, connection, Arc::clone(&service), config, ear));
        Self { wire, served, service, drain }
    }

    async fn send(&mut self, bytes: &str) {
        self.wire.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads until `end` was read.
    async fn read_to(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            let byte = self.wire.read_u8().await;
            let Ok(byte) = byte else { panic!("the end came after {:?}", String::from_utf8_lossy(&seen)) };
            seen.push(byte);
        }
        String::from_utf8(seen).unwrap()
    }

    /// Reads until the connection ends.
    async fn read_rest(&mut self) -> String {
        let mut seen = Vec::new();
        self.wire.read_to_end(&mut seen).await.unwrap();
        String::from_utf8(seen).unwrap().replace("\r\n", "|")
    }

    /// Ends, and returns what the service was told.
    async fn finished(self) -> Vec<String> {
        drop(self.wire);
        self.served.await.unwrap();
        self.service.finished.lock().unwrap().clone()
    }
}

/// Sends bytes, closes the sending side with the last of them answered, and compares all that comes back.
async fn check(sent: &str, expected: &str, finished: &[&str]) {
    let mut client = Client::new();
    client.send(sent).await;
    assert_eq!(client.read_rest().await, expected, "{sent:?}");
    assert_eq!(client.finished().await, finished, "{sent:?}");
}

const CLOSE: &str = "Host: a\r\nConnection: close\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn exchanges_that_close() {
    check(
        &format!("GET /a HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||/a",
        &["/a 200 2"],
    )
    .await;
    check(
        &format!("HEAD /a HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||",
        &["/a 200 0"],
    )
    .await;
    check(
        "GET /a HTTP/1.0\r\n\r\n",
        "HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||/a",
        &["/a 200 2"],
    )
    .await;
    check(
        &format!("GET /none HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 204 No Content|date: now|Connection: close||",
        &["/none 204 0"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn refusals_are_answered_and_close() {
    check(
        "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 400 Bad Request|date: now|Content-Length: 15|Connection: close||Host is missing",
        &["? 400 15"],
    )
    .await;
    check(
        "GET /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nX\r\n",
        "HTTP/1.1 400 Bad Request|date: now|Content-Length: 21|Connection: close||the body is malformed",
        &["/echo 400 21"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy";
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n";
    check(
        &format!("{request}{chunked}GET /b HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 200 OK|date: now|Content-Length: 2||xyHTTP/1.1 200 OK|date: now|Content-Length: 1||z\
         HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||/b",
        &["/echo 200 2", "/echo 200 1", "/b 200 2"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn http_1_0_may_keep_the_connection() {
    check(
        "GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
        "HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: keep-alive||/a\
         HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||/b",
        &["/a 200 2", "/b 200 2"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_app_cannot_break_the_framing() {
    check(
        &format!("GET /lie HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 502 Bad Gateway|date: now|Content-Length: 44|Connection: close||\
         Content-Length is not the length of the body",
        &["/lie 502 44"],
    )
    .await;
    check(
        &format!("GET /split HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 502 Bad Gateway|date: now|Content-Length: 40|Connection: close||\
         a header value holds a control character",
        &["/split 502 40"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_may_dribble_in() {
    let mut client = Client::new();
    for byte in format!("POST /echo HTTP/1.1\r\nContent-Length: 3\r\n{CLOSE}abc").bytes() {
        client.wire.write_u8(byte).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(client.read_rest().await.ends_with("||abc"));
}

#[tokio::test(start_paused = true)]
async fn bytes_read_before_belong_to_the_first_request() {
    let mut client = Client::with(b"GET /a HT", Config::default());
    client.send(&format!("TP/1.1\r\n{CLOSE}")).await;
    assert!(client.read_rest().await.ends_with("||/a"));
}

#[tokio::test(start_paused = true)]
async fn continue_is_sent_when_the_body_is_wanted() {
    let mut client = Client::new();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(client.read_to("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ab").await;
    assert!(client.read_to("ab").await.starts_with("HTTP/1.1 200"));
    // With the body there already nobody waits.
    client
        .send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\ncd")
        .await;
    assert!(client.read_to("cd").await.starts_with("HTTP/1.1 200"));
    // Not wanted: whether the body follows is unknown, so the connection ends.
    client
        .send("POST /ignore HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert!(client.read_rest().await.contains("|Connection: close||ignored"));
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_is_dropped_or_ends_the_connection() {
    let mut client = Client::new();
    client.send("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ").await;
    client.read_to("ignored").await;
    client.send("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n").await;
    assert!(client.read_rest().await.contains("|Connection: close||ignored"));
    assert_eq!(client.finished().await, ["/ignore 200 7", "/ignore 200 7"]);
}

#[tokio::test(start_paused = true)]
async fn a_large_upload_that_is_refused_early_can_read_the_answer() {
    let mut client = Client::new();
    client.send("POST /too-large HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n").await;
    // More than the wire holds: it is taken although nobody wants it.
    for _ in 0..20 {
        client.wire.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    assert!(client.read_rest().await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_answered_an_idle_connection_just_closed() {
    let started = tokio::time::Instant::now();
    let mut client = Client::new();
    client.send("GET / HT").await;
    assert!(client.read_rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(started.elapsed().as_secs(), 15);

    let started = tokio::time::Instant::now();
    assert_eq!(Client::new().read_rest().await, "");
    assert_eq!(started.elapsed().as_secs(), 15);

    let mut client = Client::new();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_to("/a").await;
    let started = tokio::time::Instant::now();
    assert_eq!(client.read_rest().await, "");
    assert_eq!(started.elapsed().as_secs(), 75);
    assert_eq!(client.finished().await, ["/a 200 2"]);
}

#[tokio::test(start_paused = true)]
async fn dribbling_a_head_does_not_stretch_its_deadline() {
    let started = tokio::time::Instant::now();
    let mut client = Client::new();
    for byte in "GET / HTTP/1.1".bytes() {
        client.wire.write_u8(byte).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(client.read_rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(started.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_times_out() {
    let mut client = Client::new();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    client.send("c").await;
    let started = tokio::time::Instant::now();
    assert!(client.read_rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(started.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_given_up() {
    let mut client = Client::new();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    // Progress starts the clock anew.
    let mut some = vec![0; 50_000];
    client.wire.read_exact(&mut some).await.unwrap();
    let started = tokio::time::Instant::now();
    while !client.served.is_finished() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!((29..=33).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    let finished = client.finished().await;
    assert!(
        finished.iter().all(|line| line.starts_with("/large 200 ") && line.ends_with(" cut")),
        "{finished:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_noticed_while_the_app_works() {
    let mut client = Client::new();
    // What it sends ahead does not hide that it left.
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!client.served.is_finished());
    assert_eq!(client.finished().await, ["/wait 499 0 cut"]);
}

#[tokio::test(start_paused = true)]
async fn files() {
    let mut client = Client::new();
    client.send(&format!("GET /file HTTP/1.1\r\n{CLOSE}")).await;
    let seen = client.read_rest().await;
    assert!(seen.contains("Content-Length: 100000|"));
    assert_eq!(seen.bytes().rev().take_while(|&b| b == b'f').count(), 100_000);
    assert_eq!(client.finished().await, ["/file 200 100000"]);

    let mut client = Client::new();
    client.send("GET /short-file HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_rest().await;
    assert_eq!(client.finished().await, ["/short-file 200 199995 cut"]);
}

#[tokio::test(start_paused = true)]
async fn draining_closes_idle_connections_and_tells_active_ones() {
    let mut idle = Client::new();
    idle.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.read_to("/a").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    idle.drain.send_replace(Phase::Draining);
    let started = tokio::time::Instant::now();
    assert_eq!(idle.read_rest().await, "");
    assert!(started.elapsed() < Duration::from_millis(10));

    let mut active = Client::new();
    active.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    active.drain.send_replace(Phase::Draining);
    tokio::time::sleep(Duration::from_secs(1)).await;
    active.send("b").await;
    assert!(active.read_rest().await.ends_with("Connection: close||ab"));

    let mut fresh = Client::new();
    fresh.drain.send_replace(Phase::Draining);
    tokio::time::sleep(Duration::from_millis(500)).await;
    fresh.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(fresh.read_rest().await.ends_with("Connection: close||/a"));
}

#[tokio::test]
async fn a_real_socket_sends_a_file_within_the_kernel() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut wire = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (transport, _) = listener.accept().await.unwrap();
    let (_drain, ear) = Drain::channel();
    let service = Arc::new(Fake::default());
    let connection = Connection { peer: None, peer_is_trusted: false, local: None, tls: false };
    let served = serve(transport, BytesMut::new(), connection, Arc::clone(&service), Arc::default(), ear);
    let served = tokio::spawn(served);
    let mut seen = Vec::new();
    wire.write_all(format!("GET /file HTTP/1.1\r\n{CLOSE}").as_bytes()).await.unwrap();
    wire.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen.iter().rev().take_while(|&&b| b == b'f').count(), 100_000);
    served.await.unwrap();
    assert_eq!(*service.finished.lock().unwrap(), ["/file 200 100000"]);
}

#[tokio::test(start_paused = true)]
async fn streams_arrive_as_they_are_made() {
    let mut client = Client::new();
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let started = tokio::time::Instant::now();
    assert!(client.read_to("3\r\none\r\n").await.contains("\r\nTransfer-Encoding: chunked\r\n"));
    assert_eq!(started.elapsed().as_secs(), 0);
    client.read_to("3\r\ntwo\r\n").await;
    assert_eq!(started.elapsed().as_secs(), 1);
    assert_eq!(client.read_to("0\r\n\r\n").await, "5\r\nthree\r\n0\r\n\r\n");
    // The connection goes on.
    client.send("GET /stream?11 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.read_to("onetwothree").await.contains("Content-Length: 11\r\n\r\n"));
    client.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!(client.read_rest().await, "HTTP/1.1 200 OK|date: now|Connection: close||onetwothree");
    assert_eq!(client.finished().await, ["/stream 200 11", "/stream?11 200 11", "/stream 200 11"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lies_breaks_the_connection() {
    for (path, body, finished) in [
        ("/stream-excess?7", "|Content-Length: 7||onetwot", "/stream-excess?7 200 7"),
        ("/stream-short?12", "|Content-Length: 12||onetwothree", "/stream-short?12 200 11 cut"),
        ("/stream-abort", "|Transfer-Encoding: chunked||3|one|3|two|5|three|", "/stream-abort 200 11 cut"),
    ] {
        let mut client = Client::new();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.read_rest().await, format!("HTTP/1.1 200 OK|date: now{body}"));
        assert_eq!(client.finished().await, [finished]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_a_silent_stream() {
    let mut client = Client::new();
    client.send("GET /stream-endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_to("three\r\n").await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(client.finished().await, ["/stream-endless 200 11 cut"]);
}

#[tokio::test]
async fn a_body_without_a_length_that_breaks_off_ends_in_a_reset() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut wire = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (transport, _) = listener.accept().await.unwrap();
    let (_drain, ear) = Drain::channel();
    let connection = Connection { peer: None, peer_is_trusted: false, local: None, tls: false };
    let service = Arc::<Fake>::default();
    let served = serve(transport, BytesMut::new(), connection, Arc::clone(&service), Arc::default(), ear);
    let served = tokio::spawn(served);
    wire.write_all(b"GET /stream-abort HTTP/1.0\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    let end = wire.read_to_end(&mut seen).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    served.await.unwrap();
    assert_eq!(*service.finished.lock().unwrap(), ["/stream-abort 200 11 cut"]);
}

/// What ten thousand idle connections cost is this, their timer and what the reactor holds for a socket.
#[tokio::test]
async fn an_idle_connection_is_small() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (_drain, ear) = Drain::channel();
    let connection = Connection { peer: None, peer_is_trusted: false, local: None, tls: false };
    let served = serve(transport, BytesMut::new(), connection, Arc::<Fake>::default(), Arc::default(), ear);
    assert!(size_of_val(&served) <= 480, "{} bytes", size_of_val(&served));
}

#[tokio::test]
async fn over_tls_bodies_arrive_whole_and_the_end_is_announced() {
    let files = crate::testing::tls_files();
    let identity = crate::tls::Identity::load(&files.certificate, &files.key).unwrap();
    let (near, far) = duplex(WIRE_BYTES);
    let acceptor = tokio_rustls::TlsAcceptor::from(identity.current());
    let connector = tokio_rustls::TlsConnector::from(files.client(&[]));
    let (client, transport) =
        tokio::join!(connector.connect("localhost".try_into().unwrap(), near), acceptor.accept(far));
    let (mut client, transport) = (client.unwrap(), transport.unwrap());
    let (_drain, ear) = Drain::channel();
    let service = Arc::new(Fake::default());
    let connection = Connection { peer: None, peer_is_trusted: false, local: None, tls: true };
    let served = tokio::spawn(serve(
        transport,
        BytesMut::new(),
        connection,
        Arc::clone(&service),
        Arc::default(),
        ear,
    ));
    client.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client.write_all(format!("GET /file HTTP/1.1\r\n{CLOSE}").as_bytes()).await.unwrap();
    // Without the closing message of TLS this would be an error: the end could have been forged.
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).await.unwrap();
    assert_eq!(memchr::memchr_iter(b'x', &seen).count(), 300_000);
    assert_eq!(seen.iter().rev().take_while(|&&b| b == b'f').count(), 100_000);
    served.await.unwrap();
    assert_eq!(*service.finished.lock().unwrap(), ["/large 200 300000", "/file 200 100000"]);
}
