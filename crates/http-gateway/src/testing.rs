//! For the tests of several rooms: a service that answers by itself, and certificates.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;

use crate::message::{
    AnsweredBy, Body, Connection, Exchange, FileBody, Headers, RequestBody, RequestHead, Response, Service,
    Trail,
};
use crate::spool::{Aborted, SpoolLimits, spool};

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

pub(crate) fn response(status: u16, body: Body) -> Response {
    let trail = Trail {
        started: Instant::now(),
        request_id: "test".into(),
        client: None,
        by: AnsweredBy::Gateway,
        queue_wait: Duration::ZERO,
    };
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
                let text =
                    |address: Option<std::net::SocketAddr>| address.map_or("unix".into(), |a| a.to_string());
                let trusted = if connection.peer_is_trusted { "trusted" } else { "untrusted" };
                let (peer, local) = (text(connection.peer), text(connection.local));
                return response(200, Body::Bytes(format!("{peer} {local} {trusted} hello").into()));
            }
            b"/file" => {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&vec![b'f'; 2 + FILE_BYTES]).unwrap();
                let body = FileBody { file: Arc::new(file), offset: 1, len: FILE_BYTES as u64 };
                return response(200, Body::File(body));
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
