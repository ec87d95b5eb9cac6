//! Stories of whole connections: a paused clock, an in-memory stream and a service that does as the path says.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ctl_config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Transport, serve};
use crate::drain::{Drain, Phase};
use crate::message::{
    Body, BodyError, Connection, Exchange, FileBody, Headers, RequestBody, RequestHead, Response, Service,
    Version,
};
use crate::spool::{Aborted, SpoolLimits, spool};
use crate::testing::{self, Heard};
use crate::websocket::Answer;

mod endings;
mod exchanges;
mod sockets;
mod websockets;

impl Transport for DuplexStream {}

/// Bytes that the stream under test takes before it blocks.
const WIRE_BYTES: usize = 64 * 1024;

#[derive(Default)]
struct Fake {
    finished: Mutex<Vec<String>>,
    /// By the apps of WebSockets.
    heard: Heard,
}

fn response(status: u16, body: impl Into<Bytes>) -> Response {
    let mut headers = Headers::default();
    // Keeps the expected bytes below free of the clock.
    headers.push(b"date", b"now");
    Response { headers, ..testing::response(status, Body::Bytes(body.into())) }
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
            b"/relay" => Response { body: testing::relay(), ..response(200, "") },
            b"/hints" => {
                body.inform(103, &testing::extra()).await;
                body.inform(103, &testing::extra()).await;
                Response { body: testing::with_trailers(), ..response(200, "") }
            }
            b"/none" => Response { body: Body::Empty, ..response(204, "") },
            path => response(200, path.to_vec()),
        }
    }

    async fn websocket(&self, _: &Connection, head: &RequestHead) -> Answer {
        match testing::websocket(head, &self.heard).await {
            Answer::Refused(refused) => Answer::Refused(response(refused.status, "no")),
            opened => opened,
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
        let connection = Connection::default();
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
