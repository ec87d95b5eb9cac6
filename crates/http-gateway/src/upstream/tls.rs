//! TLS to upstreams: whom we believe, who we say we are, what the server must be called.
//!
//! The server's certificate is always verified: against the system's authorities, or against those of `tls_ca` alone. There is
//! no switch that turns this off; a private authority is one file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A server's side of the handshake, as we expect it.
pub(super) struct ClientTls {
    connector: TlsConnector,
    /// The same for HTTP/2.
    http2: TlsConnector,
    server_name: ServerName<'static>,
}

/// The files of the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct TlsFiles<'a> {
    /// The authorities that are believed; `None`: the system's.
    pub ca: Option<&'a Path>,
    /// Our certificate with its chain, and its key, for servers that ask who we are.
    pub identity: Option<(&'a Path, &'a Path)>,
}

/// What all servers of an upstream share.
pub(crate) fn client_config(files: TlsFiles<'_>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = files.ca {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| format!("{}: not an authority's certificate: {error}", path.display()))?;
        }
    } else {
        // What cannot be read among the system's is not ours to mend: with none at all we say so.
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err("the system has no certificates of authorities: install the package \
                        ca-certificates, or name a file by tls_ca"
                .to_owned());
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match files.identity {
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key_der = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("{}: no private key can be read: {error}", key.display()))?;
            builder
                .with_client_auth_cert(chain, key_der)
                .map_err(|error| format!("{}, {}: {error}", certificate.display(), key.display()))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match read {
        Ok(chain) if chain.is_empty() => Err(format!("{}: holds no certificate", path.display())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

impl ClientTls {
    /// `server_name` is what the certificate must be for: a name, or an address without brackets.
    pub(super) fn new(config: Arc<ClientConfig>, server_name: &str) -> Result<Self, String> {
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| format!("\"{server_name}\" cannot be the name in a certificate"))?;
        let mut http2 = ClientConfig::clone(&config);
        http2.alpn_protocols = vec![b"h2".to_vec()];
        let http2 = TlsConnector::from(Arc::new(http2));
        Ok(Self { connector: TlsConnector::from(config), http2, server_name })
    }

    /// Shakes hands. The caller bounds the time.
    pub(super) async fn connect(&self, stream: TcpStream, http2: bool) -> io::Result<TlsStream<TcpStream>> {
        let connector = if http2 { &self.http2 } else { &self.connector };
        connector.connect(self.server_name.clone(), stream).await
    }
}
