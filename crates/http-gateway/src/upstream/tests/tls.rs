//! TLS: whom we believe, and who we say we are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::upstream::fake::*;
use crate::upstream::{ServerAddress, TlsFiles, Upstream};

/// An authority, and what it has issued, in files.
struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { dir, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Certificate and key for `name`.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let files =
            (self.dir.path().join(format!("{name}.pem")), self.dir.path().join(format!("{name}.key")));
        std::fs::write(&files.0, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }
}

/// A server that answers one connection after another; `clients` are those who may connect.
async fn serve(files: &(PathBuf, PathBuf), clients: Option<&Path>) -> (u16, JoinHandle<()>) {
    let chain = vec![CertificateDer::from_pem_file(&files.0).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&files.1).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            for step in [Step::Head, say(HELLO), Step::Head, say(HELLO)] {
                if !follow(&mut stream, &step, |_| {}).await {
                    break;
                }
            }
        }
    });
    (port, task)
}

async fn ask_twice(port: u16, name: Option<&str>, files: TlsFiles<'_>) -> String {
    let place = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port, tls: true };
    let mut settings = settings(vec![place]);
    settings.tls_server_name = name.map(str::to_owned);
    let upstream = Upstream::new(settings, files).unwrap();
    let first = get(&upstream).await;
    assert_eq!(first, get(&upstream).await);
    first
}

#[tokio::test]
async fn a_server_is_believed_by_its_authority_and_its_name() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (port, server) = serve(&ours.issue("api.test"), None).await;
    let (ca, other) = (ours.ca(), theirs.ca());
    let believing = |ca| TlsFiles { ca: Some(ca), identity: None };
    assert_eq!(ask_twice(port, Some("api.test"), believing(&ca)).await, "200 hello");
    // Another name, the address that it was reached by, another authority.
    assert_eq!(ask_twice(port, Some("other.test"), believing(&ca)).await, "no server answered");
    assert_eq!(ask_twice(port, None, believing(&ca)).await, "no server answered");
    assert_eq!(ask_twice(port, Some("api.test"), believing(&other)).await, "no server answered");
    server.abort();
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_told() {
    let authority = Authority::new();
    let ca = authority.ca();
    let (port, server) = serve(&authority.issue("api.test"), Some(&ca)).await;
    let (certificate, key) = authority.issue("gateway.test");
    let known = TlsFiles { ca: Some(&ca), identity: Some((&certificate, &key)) };
    assert_eq!(ask_twice(port, Some("api.test"), known).await, "200 hello");
    let unknown = TlsFiles { ca: Some(&ca), identity: None };
    assert_eq!(ask_twice(port, Some("api.test"), unknown).await, "no server answered");
    server.abort();
}

#[test]
fn files_that_cannot_be_used_are_told_at_the_start() {
    let authority = Authority::new();
    let place = ServerAddress::Tcp { host: "a".to_owned(), port: 443, tls: true };
    let with = |files| match Upstream::new(settings(vec![place.clone()]), files) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    };
    let missing = authority.dir.path().join("missing.pem");
    let told = with(TlsFiles { ca: Some(&missing), identity: None });
    assert!(told.contains("missing.pem"), "{told}");
    let (certificate, key) = authority.issue("a.test");
    let (ca, empty) = (authority.ca(), authority.dir.path().join("empty.pem"));
    std::fs::write(&empty, "").unwrap();
    let told = with(TlsFiles { ca: Some(&empty), identity: None });
    assert!(told.contains("empty.pem: holds no certificate"), "{told}");
    let told = with(TlsFiles { ca: Some(&ca), identity: Some((&key, &certificate)) });
    assert!(told.contains("a.test.key"), "{told}");
    let (_, other) = authority.issue("b.test");
    let told = with(TlsFiles { ca: Some(&ca), identity: Some((&certificate, &other)) });
    assert!(told.contains("b.test.key"), "{told}");
}
