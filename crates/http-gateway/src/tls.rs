//! The server's TLS identity: certificate and key from PEM files, read again on reload.
//!
//! A handshake takes the configuration of the moment with [`Identity::current`]; established connections keep the one
//! they began with. A reload that fails leaves the old one in service. Keys and their bytes never reach a log.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::server::{ParsedCertificate, ProducesTickets, ServerConfig, ServerSessionMemoryCache};
use rustls::{CertificateError, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// Sessions kept for TLS 1.2 clients that know no tickets; they are rare, everyone else carries a ticket.
const SESSIONS_MAX: usize = 1024;

/// Warn this long before the certificate expires: renewal is usually tried 30 days before, so half of that means that
/// it fails.
const EXPIRY_WARNING: Duration = Duration::from_secs(15 * 24 * 3600);

/// The protocols offered in the handshake (RFC 7301), the better one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate or key cannot be used, told to the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TlsError {
    /// What.
    pub message: String,
    /// Which file, and what is wrong with it.
    pub detail: String,
    /// What to do.
    pub hint: &'static str,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, detail, hint } = self;
        write!(f, "{message}\n  detail: {detail}\n  hint: {hint}")
    }
}

/// What may be wrong with a certificate that can be used all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worry {
    /// Its last day is over.
    Expired,
    /// Its last day is less than 15 days away.
    ExpiresSoon,
    /// Its first day is in the future.
    NotYetValid,
}

impl Worry {
    /// Message and hint.
    fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Expired => ("the certificate has expired", "renew it"),
            Self::ExpiresSoon => ("the certificate expires within 15 days", "see why it was not renewed"),
            Self::NotYetValid => ("the certificate is not valid yet", "is the machine's clock right?"),
        }
    }
}

/// Certificate and key in service.
#[derive(Debug)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    /// Outlives reloads, so that sessions can be resumed across them; rotates its keys by itself.
    tickets: Arc<dyn ProducesTickets>,
    current: RwLock<Arc<ServerConfig>>,
}

impl Identity {
    /// Reads both files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let tickets = ring::Ticketer::new().map_err(|error| TlsError {
            message: "TLS cannot start".into(),
            detail: error.to_string(),
            hint: "the system's random number generator is not available",
        })?;
        let current = RwLock::new(Arc::new(read(certificate, key, &tickets, UnixTime::now())?));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), tickets, current })
    }

    /// Reads both files again. On an error the old certificate stays in service.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = Arc::new(read(&self.certificate, &self.key, &self.tickets, UnixTime::now())?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// What a new handshake uses.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(
    certificate: &Path,
    key: &Path,
    tickets: &Arc<dyn ProducesTickets>,
    now: UnixTime,
) -> Result<ServerConfig, TlsError> {
    let chain = read_chain(certificate)?;
    if let Some(worry) = worry(&chain, now) {
        let (message, hint) = worry.text();
        tracing::warn!(certificate = %certificate.display(), hint, "{message}");
    }
    let key_der = read_key(key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(certificate, key, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| refused(certificate, key, &error))?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.ticketer = Arc::clone(tickets);
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    Ok(config)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let message = || "the TLS certificate cannot be read".to_owned();
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| TlsError {
            message: message(),
            detail: format!("{}: {error}", path.display()),
            hint: "tls.certificate names a PEM file with the server's certificate first, then the rest of its chain",
        });
    match chain {
        Ok(chain) if chain.is_empty() => Err(TlsError {
            message: message(),
            detail: format!("{} holds no certificate", path.display()),
            hint: "a certificate starts with the line -----BEGIN CERTIFICATE-----; did key and certificate change places?",
        }),
        other => other,
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let message = || "the TLS key cannot be read".to_owned();
    let text = std::fs::read(path).map_err(|error| TlsError {
        message: message(),
        detail: format!("{}: {error}", path.display()),
        hint: "tls.key names a PEM file that the user who runs quintet may read",
    })?;
    // PKCS #8 says it in the label, the older formats in a header (RFC 1421, 4.6.1.1).
    let says = |words: &[u8]| memchr::memmem::find(&text, words).is_some();
    if says(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || says(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError {
            message: message(),
            detail: format!("{} is encrypted with a passphrase", path.display()),
            hint: "a server that restarts by itself cannot ask for it: decrypt it with `openssl pkey -in KEY -out KEY.plain` and guard the file by its permissions",
        });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError {
            message: message(),
            detail: format!("{} holds no private key", path.display()),
            hint: "a key starts with -----BEGIN PRIVATE KEY-----, -----BEGIN RSA PRIVATE KEY----- or -----BEGIN EC PRIVATE KEY-----",
        },
        error => TlsError {
            message: message(),
            detail: format!("{}: {error}", path.display()),
            hint: "the file is damaged, or not a PEM file",
        },
    })
}

/// What rustls says of certificate and key together.
fn refused(certificate: &Path, key: &Path, error: &rustls::Error) -> TlsError {
    let (certificate, key) = (certificate.display(), key.display());
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError {
            message: "the TLS key does not belong to the certificate".into(),
            detail: format!("{key} is not the key of the first certificate in {certificate}"),
            hint: "name the files of one issue, and put the server's own certificate first in its file",
        },
        error => TlsError {
            message: "the TLS certificate and key cannot be used".into(),
            detail: format!("{certificate}, {key}: {error}"),
            hint: "RSA keys from 2048 bits, ECDSA (P-256, P-384) and Ed25519 keys are understood",
        },
    }
}

/// Looks at the dates of the first certificate.
///
/// rustls checks dates for clients only; it checks them before it looks for an issuer, so a verification against no
/// trusted issuer at all tells whether the dates are good: it fails either way, but for different reasons.
fn worry(chain: &[CertificateDer<'_>], now: UnixTime) -> Option<Worry> {
    let at = |time: UnixTime| {
        let certificate = ParsedCertificate::try_from(chain.first()?).ok()?;
        let schemes = ring::default_provider().signature_verification_algorithms;
        match rustls::client::verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &RootCertStore::empty(),
            &[],
            time,
            schemes.all,
        ) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Some(Worry::Expired),
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => Some(Worry::NotYetValid),
            _ => None,
        }
    };
    let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + EXPIRY_WARNING);
    at(now).or_else(|| at(later).map(|_| Worry::ExpiresSoon))
}

#[cfg(test)]
mod tests;
