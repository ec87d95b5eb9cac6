//! For the tests of several rooms: a service that answers by itself, and certificates.

mod worker;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ctl_config::Config;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::sync::mpsc;

pub(crate) use worker::{Worker, head};

use crate::error_page::own_trail;
use crate::message::{
    Body, Connection, Exchange, FileBody, Headers, RequestBody, RequestHead, Response, Service,
};
use crate::spool::{Aborted, HoldLimits, SpoolLimits, spool};
use crate::tls::{Identity, TlsError};
use crate::upload::{Rest, Waits, upload};
use crate::websocket::frame::{Opcode, put_head, unmask};
use crate::websocket::{self, Answer, FromApp, FromClient, MessageType};

/// Answers by path: `/slow` after 300 ms, `/never`, `/echo` with the request's body, `/large` with 1 MiB, `/lie` with a
/// length that is wrong, `/file` with 100,000 bytes of one, `/stream` in three pieces, `/broken` in one and then no more, `/peer` with who the client is, anything else with `hello`.
pub(crate) struct Answers;

/// The size of `/large`.
pub(crate) const LARGE_BYTES: usize = 1 << 20;

/// The size of `/file`.
pub(crate) const FILE_BYTES: usize = 100_000;

/// Pieces that come one after another.
fn streamed(pieces: &'static [&'static str], end: Result<(), Aborted>) -> Body {
    let limits = SpoolLimits { memory_bytes: 1 << 20, disk_bytes: 0, dir: std::env::temp_dir() };
    let (mut writer, reader) = spool(limits);
    tokio::spawn(async move {
        for piece in pieces {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(writer.push(Bytes::from_static(piece.as_bytes()), || {}).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        writer.end(end);
    });
    Body::Stream(reader)
}

/// Fields of which two may stand in a 103, and one behind a body.
pub(crate) fn extra() -> Headers {
    let mut fields = Headers::default();
    for (name, value) in [("Link", "</a.css>; rel=preload"), ("Content-Type", "x/y"), ("Content-Length", "7")]
    {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

/// A body of one piece with [`extra`] behind it.
pub(crate) fn with_trailers() -> Body {
    let limits = SpoolLimits { memory_bytes: 1 << 20, disk_bytes: 0, dir: std::env::temp_dir() };
    let (mut writer, reader) = spool(limits);
    writer.start(Bytes::from_static(b"body"));
    writer.trailers(extra());
    writer.end(Ok(()));
    Body::Stream(reader)
}

/// An app that answers each piece of its request's body as it comes, in capitals.
pub(crate) fn relay() -> Body {
    let limits = SpoolLimits { memory_bytes: 1 << 20, disk_bytes: 0, dir: std::env::temp_dir() };
    let (mut writer, mut reader) = spool(limits);
    let hold = HoldLimits { held: Duration::from_secs(60), held_max: None };
    let (upload, mut coming) = upload(Rest { left: 1000, waits: Waits::new(hold) });
    reader.attach(upload);
    tokio::spawn(async move {
        let end = loop {
            match coming.next("test").await {
                Ok(Some(piece)) => {
                    let _the_client_may_be_gone = writer.push(piece.to_ascii_uppercase().into(), || {}).await;
                }
                Ok(None) => break Ok(()),
                Err(()) => break Err(Aborted),
            }
        };
        writer.end(end);
    });
    Body::Stream(reader)
}

pub(crate) fn response(status: u16, body: Body) -> Response {
    let trail = own_trail(Instant::now(), "test".into(), None);
    Response { status, reason: Box::default(), headers: Headers::default(), body, close: false, trail }
}

impl Service for Answers {
    async fn call<B: RequestBody>(
        &self,
        connection: &Connection,
        head: &RequestHead,
        body: &mut B,
    ) -> Response {
        match head.path() {
            b"/slow" => tokio::time::sleep(Duration::from_millis(300)).await,
            b"/never" => std::future::pending().await,
            b"/large" => return response(200, Body::Bytes(Bytes::from(vec![b'x'; LARGE_BYTES]))),
            b"/peer" => {
                let trusted = if connection.peer_is_trusted { "trusted" } else { "untrusted" };
                let peer = connection.peer.map_or("unix".to_owned(), |peer| peer.to_string());
                let local = match &connection.local {
                    Some(py_link::Local::Inet(local)) => local.to_string(),
                    Some(py_link::Local::Unix(path)) => String::from_utf8_lossy(path).into_owned(),
                    None => "unknown".to_owned(),
                };
                return response(200, Body::Bytes(format!("{peer} {local} {trusted} hello").into()));
            }
            b"/file" => {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&vec![b'f'; 2 + FILE_BYTES]).unwrap();
                let body = FileBody { file: Arc::new(file), offset: 1, len: FILE_BYTES as u64 };
                return response(200, Body::File(body));
            }
            b"/relay" => return response(200, relay()),
            b"/hints" => {
                body.inform(103, &extra()).await;
                return response(200, with_trailers());
            }
            b"/tls" => {
                let facts = connection.tls_facts.map_or_else(String::new, |tls| {
                    format!("{:#06x} {:#06x} ", tls.version, tls.cipher_suite)
                });
                return response(200, Body::Bytes(format!("{facts}hello").into()));
            }
            b"/stream" => return response(200, streamed(&["one ", "two ", "three"], Ok(()))),
            b"/broken" => return response(200, streamed(&["one "], Err(Aborted))),
            b"/lie" => {
                let mut lie = response(200, Body::Bytes(Bytes::from_static(b"hello")));
                lie.headers.push(b"content-length", b"6");
                return lie;
            }
            b"/echo" => {
                let mut all = Vec::new();
                return loop {
                    match body.chunk().await {
                        Ok(Some(piece)) => all.extend_from_slice(&piece),
                        Ok(None) => break response(200, Body::Bytes(all.into())),
                        Err(_) => break response(408, Body::Empty),
                    }
                };
            }
            b"/head" => {
                let text: Vec<String> = head
                    .headers
                    .iter()
                    .map(|(name, value)| {
                        format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
                    })
                    .collect();
                return response(200, Body::Bytes(text.concat().into()));
            }
            _ => {}
        }
        response(200, Body::Bytes(Bytes::from_static(b"hello")))
    }

    fn refuse(&self, _: &Connection, status: u16, why: &'static str) -> Response {
        response(status, Body::Bytes(Bytes::from_static(why.as_bytes())))
    }

    fn finished(&self, _: &Exchange<'_>) {}
}

/// What the apps of WebSockets were told, in order.
pub(crate) type Heard = Arc<Mutex<Vec<String>>>;

/// An app for a WebSocket, by path: `/ws/echo`; `/ws/chat` speaks the subprotocol `chat`; `/ws/bye` closes with 4001 after a message;
/// `/ws/dies` goes away after one; `/ws/slow` takes one every 30 s; `/ws/deaf` takes none; `/ws/large` sends [`LARGE_BYTES`] for each;
/// `/ws/many` a hundred; `/ws/badly` closes with 1006; `/ws/split` has a bad header; `/ws/never` does not answer; `/ws/page` knows no WebSockets; anything else is
/// refused with 403.
pub(crate) async fn websocket(head: &RequestHead, heard: &Heard) -> Answer {
    let (session, from_client, to_client) = websocket::session();
    let path = head.path().to_vec();
    let mut headers = Headers::default();
    match &path[..] {
        b"/ws/never" => std::future::pending().await,
        b"/ws/chat" => headers.push(b"Sec-WebSocket-Protocol", b"chat"),
        b"/ws/split" => headers.push(b"X", b"a\r\nb: c"),
        b"/ws/echo" => headers.push(b"X-App", b"echo"),
        b"/ws/bye" | b"/ws/dies" | b"/ws/slow" | b"/ws/deaf" | b"/ws/large" | b"/ws/many" | b"/ws/badly" => {}
        b"/ws/page" => {
            return Answer::Refused(response(200, Body::Bytes(Bytes::from_static(b"<!doctype html>"))));
        }
        _ => return Answer::Refused(response(403, Body::Bytes(Bytes::from_static(b"no")))),
    }
    tokio::spawn(websocket_app(path, from_client, to_client, Arc::clone(heard)));
    Answer::Accepted { headers, session, trail: response(101, Body::Empty).trail }
}

async fn websocket_app(
    path: Vec<u8>,
    mut from_client: mpsc::Receiver<FromClient>,
    to_client: mpsc::Sender<FromApp>,
    heard: Heard,
) {
    if path == b"/ws/deaf" {
        to_client.closed().await;
    }
    loop {
        if path == b"/ws/slow" {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        let (kind, bytes) = match from_client.recv().await {
            Some(FromClient::Message(kind, bytes)) => (kind, bytes),
            Some(FromClient::Closed { code, reason }) => {
                heard.lock().unwrap().push(format!("closed {code} {reason}"));
                break;
            }
            None => {
                heard.lock().unwrap().push("dropped".to_owned());
                break;
            }
        };
        heard.lock().unwrap().push(format!("{kind:?} of {}", bytes.len()));
        let close = |code| vec![FromApp::Close { code, reason: "bye".to_owned() }];
        let said = match &path[..] {
            b"/ws/dies" => break,
            b"/ws/slow" => Vec::new(),
            b"/ws/bye" => close(4001),
            b"/ws/badly" => close(1006),
            b"/ws/large" => vec![FromApp::Message(MessageType::Binary, vec![b'x'; LARGE_BYTES].into())],
            b"/ws/many" => vec![FromApp::Message(kind, bytes); 100],
            _ => vec![FromApp::Message(kind, bytes)],
        };
        for said in said {
            if to_client.send(said).await.is_err() {
                break;
            }
        }
    }
}

/// A frame as a client sends it; `first` is its first byte.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0xa5, 0x00, 0xff, 0x3c];
    let mut out = Vec::new();
    put_head(&mut out, Opcode::Text, true, false, payload.len());
    out[0] = first;
    out[1] |= 0x80;
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], mask, 0);
    out
}

/// A certificate for `localhost` in files.
pub(crate) struct TlsFiles {
    _dir: TempDir,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

pub(crate) fn tls_files() -> TlsFiles {
    let dir = TempDir::new().unwrap();
    let files =
        TlsFiles { certificate: dir.path().join("cert.pem"), key: dir.path().join("key.pem"), _dir: dir };
    files.renew();
    files
}

impl TlsFiles {
    /// Another certificate and key in the same files.
    pub(crate) fn renew(&self) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&self.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&self.key, key.serialize_pem()).unwrap();
    }

    /// What serves with them.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        self.serving(|_| {}).unwrap()
    }

    /// The same with a configuration that says more.
    pub(crate) fn serving(&self, change: impl FnOnce(&mut Config)) -> Result<Arc<Identity>, TlsError> {
        let mut config = Config::default();
        config.tls.certificate = Some(self.certificate.clone());
        config.tls.key = Some(self.key.clone());
        change(&mut config);
        Ok(Arc::new(Identity::load(&Arc::new(config))?.unwrap()))
    }

    /// A client that trusts the certificate.
    pub(crate) fn client(&self, alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}
