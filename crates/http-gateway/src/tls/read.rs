//! Reading certificates and keys from PEM files, and what people are told of those that are no good.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use ctl_config::CertificateFiles;
use rustls::InconsistentKeys;
use rustls::crypto::{CryptoProvider, ring};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;

/// Warn this long before the certificate expires: renewal is usually tried 30 days before, so half of that means that
/// it fails.
const EXPIRY_WARNING: Duration = Duration::from_secs(15 * 24 * 3600);

/// Why a certificate or key cannot be used, told to the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TlsError {
    /// What.
    pub message: String,
    /// Which file, and what is wrong with it.
    pub detail: String,
    /// What to do.
    pub hint: &'static str,
    /// Which `[[certificate]]` names the files; `None`: `[tls]`.
    pub index: Option<usize>,
    /// The key there.
    pub key: &'static str,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, detail, hint, .. } = self;
        write!(f, "{message}\n  detail: {detail}\n  hint: {hint}")
    }
}

/// What may be wrong with a certificate that can be used all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worry {
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

/// A certificate with its key, and whom it is for.
pub(super) struct Pair {
    pub(super) key: CertifiedKey,
    /// The DNS names it is valid for, as they stand there: in small letters, `*.` in front of wildcards.
    pub(super) names: Vec<String>,
}

/// Reads both files and sees whether they belong together. Dates that are no good are told in the log.
pub(super) fn pair(files: CertificateFiles<'_>, now: UnixTime) -> Result<Pair, TlsError> {
    let CertificateFiles { certificate, key, index } = files;
    let of = |error: TlsError| TlsError { index, ..error };
    let chain = chain(certificate).map_err(of)?;
    let seen = look(&chain, now);
    if let Some(worry) = seen.worry {
        let (message, hint) = worry.text();
        let certificate = certificate.display();
        tracing::warn!(%certificate, from = seen.from, until = seen.until, hint, "{message}");
    }
    let der = private_key(key).map_err(of)?;
    let key = CertifiedKey::from_der(chain, der, &provider())
        .map_err(|error| of(refused(certificate, key, &error)))?;
    Ok(Pair { key, names: seen.names })
}

/// The cryptography that is used everywhere.
pub(super) fn provider() -> CryptoProvider {
    ring::default_provider()
}

pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let message = || "the TLS certificate cannot be read".to_owned();
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| TlsError {
            message: message(),
            detail: format!("{}: {error}", path.display()),
            hint: "it is a PEM file with the server's certificate first, then the rest of its chain",
            index: None,
            key: "certificate",
        });
    match chain {
        Ok(chain) if chain.is_empty() => Err(TlsError {
            message: message(),
            detail: format!("{} holds no certificate", path.display()),
            hint: "a certificate starts with the line -----BEGIN CERTIFICATE-----; did key and certificate change places?",
            index: None,
            key: "certificate",
        }),
        other => other,
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let message = || "the TLS key cannot be read".to_owned();
    let text = std::fs::read(path).map_err(|error| TlsError {
        message: message(),
        detail: format!("{}: {error}", path.display()),
        hint: "\"key\" names a PEM file that the user who runs quintet may read",
        index: None,
        key: "certificate",
    })?;
    // PKCS #8 says it in the label, the older formats in a header (RFC 1421, 4.6.1.1).
    let says = |words: &[u8]| memchr::memmem::find(&text, words).is_some();
    if says(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || says(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError {
            message: message(),
            detail: format!("{} is encrypted with a passphrase", path.display()),
            hint: "a server that restarts by itself cannot ask for it: decrypt it with `openssl pkey -in KEY -out KEY.plain` and guard the file by its permissions",
            index: None,
            key: "certificate",
        });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError {
            message: message(),
            detail: format!("{} holds no private key", path.display()),
            hint: "a key starts with -----BEGIN PRIVATE KEY-----, -----BEGIN RSA PRIVATE KEY----- or -----BEGIN EC PRIVATE KEY-----",
            index: None,
key: "certificate",
        },
        error => TlsError {
            message: message(),
            detail: format!("{}: {error}", path.display()),
            hint: "the file is damaged, or not a PEM file",
            index: None,
key: "certificate",
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
            index: None,
            key: "certificate",
        },
        error => TlsError {
            message: "the TLS certificate and key cannot be used".into(),
            detail: format!("{certificate}, {key}: {error}"),
            hint: "RSA keys from 2048 bits, ECDSA (P-256, P-384) and Ed25519 keys are understood",
            index: None,
            key: "certificate",
        },
    }
}

/// What a certificate says of itself.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) worry: Option<Worry>,
    from: String,
    until: String,
    names: Vec<String>,
}

/// Looks at the dates and names of the first certificate. One that cannot be understood says nothing; rustls refuses it.
pub(super) fn look(chain: &[CertificateDer<'_>], now: UnixTime) -> Seen {
    let Some(Ok((_, certificate))) = chain.first().map(|der| X509Certificate::from_der(der)) else {
        return Seen::default();
    };
    let validity = certificate.validity();
    // Beyond the year 292 billion it is all the same.
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let soon = now.saturating_add_unsigned(EXPIRY_WARNING.as_secs());
    let worry = match validity.not_after.timestamp() {
        end if end < now => Some(Worry::Expired),
        _ if validity.not_before.timestamp() > now => Some(Worry::NotYetValid),
        end if end < soon => Some(Worry::ExpiresSoon),
        _ => None,
    };
    let text = |time: ASN1Time| time.to_rfc2822().unwrap_or_else(|_| time.to_string());
    Seen {
        worry,
        from: text(validity.not_before),
        until: text(validity.not_after),
        names: names(&certificate),
    }
}

/// RFC 9525, 6.1: names are looked for among the subject alternative names only, never in the common name.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}
