//! Which clients are believed: the authorities whose certificates they may show, and what was revoked.

use std::path::Path;
use std::sync::Arc;

use ctl_config::{ClientVerify, Config};
use ring::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;

use super::read::{TlsError, chain, provider};

/// The verifier, and by what the files that it was made of are known again.
pub(super) struct Clients {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) digest: [u8; 32],
}

/// `None`: clients are not asked.
pub(super) fn clients(config: &Config) -> Result<Option<Clients>, TlsError> {
    let tls = &config.tls;
    let Some(path) = tls.client_ca.as_deref().filter(|_| tls.client_verify != ClientVerify::Off) else {
        return Ok(None);
    };
    let mut digest = Context::new(&SHA256);
    let mut roots = RootCertStore::empty();
    for certificate in chain(path).map_err(|error| of_authority(&error))? {
        digest.update(&certificate);
        roots.add(certificate).map_err(|error| unusable(path, &error.to_string()))?;
    }
    let mut lists = Vec::new();
    if let Some(path) = tls.client_crl.as_deref() {
        lists = revoked(path)?;
        for list in &lists {
            digest.update(list);
        }
    }
    let roots = Arc::new(roots);
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(roots, Arc::new(provider())).with_crls(lists);
    if tls.client_verify == ClientVerify::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|error| unusable(path, &error.to_string()))?;
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    Ok(Some(Clients { verifier, digest: bytes }))
}

fn of_authority(error: &TlsError) -> TlsError {
    TlsError {
        message: "the authorities of clients cannot be read".into(),
        detail: error.detail.clone(),
        hint: "tls.client_ca is a PEM file with the certificates of the authorities that sign those of clients",
        index: None,
        key: "client_ca",
    }
}

fn unusable(path: &Path, why: &str) -> TlsError {
    TlsError {
        message: "the authorities of clients cannot be used".into(),
        detail: format!("{}: {why}", path.display()),
        hint: "each certificate in it must be an authority's",
        index: None,
        key: "client_ca",
    }
}

fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let error = |detail: String| TlsError {
        message: "the list of revoked certificates cannot be read".into(),
        detail,
        hint: "tls.client_crl is a PEM file: its lists start with -----BEGIN X509 CRL-----",
        index: None,
        key: "client_crl",
    };
    let lists: Result<Vec<_>, _> =
        CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect);
    match lists {
        Ok(lists) if lists.is_empty() => Err(error(format!("{} holds no list", path.display()))),
        Ok(lists) => Ok(lists),
        Err(why) => Err(error(format!("{}: {why}", path.display()))),
    }
}
