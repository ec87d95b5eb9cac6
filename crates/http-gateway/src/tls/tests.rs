//! Self-made certificates, right and wrong.

use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// A directory with `cert.pem` and `key.pem`.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: TempDir::new().unwrap() };
        files.issue(|_| {});
        files
    }

    fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> KeyPair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        std::fs::write(self.certificate(), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(self.key(), key.serialize_pem()).unwrap();
        key
    }

    fn load(&self) -> Result<Identity, TlsError> {
        Identity::load(&self.certificate(), &self.key())
    }

    fn refused(&self) -> String {
        let text = self.load().expect_err("must be refused").to_string();
        text.replace(&self.dir.path().display().to_string(), "DIR")
    }

    fn worry(&self) -> Option<Worry> {
        worry(&read_chain(&self.certificate()).unwrap(), UnixTime::now())
    }
}

#[test]
fn offers_both_protocols_and_tickets() {
    let identity = Files::new().load().unwrap();
    let config = identity.current();
    assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert!(config.ticketer.enabled());
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let files = Files::new();
    std::fs::write(files.key(), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert_eq!(
        files.refused(),
        "the TLS key does not belong to the certificate\n  \
         detail: DIR/key.pem is not the key of the first certificate in DIR/cert.pem\n  \
         hint: name the files of one issue, and put the server's own certificate first in its file"
    );
}

#[test]
fn an_encrypted_key_is_refused_with_the_way_out() {
    let files = Files::new();
    for text in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    ] {
        std::fs::write(files.key(), text).unwrap();
        let refused = files.refused();
        assert!(refused.contains("DIR/key.pem is encrypted with a passphrase"), "{refused}");
        assert!(refused.contains("openssl pkey"), "{refused}");
    }
}

#[test]
fn files_that_are_missing_empty_or_swapped_are_named() {
    let files = Files::new();
    std::fs::rename(files.key(), files.dir.path().join("away")).unwrap();
    assert!(files.refused().contains("DIR/key.pem: No such file"), "{}", files.refused());
    std::fs::write(files.key(), "").unwrap();
    assert!(files.refused().contains("DIR/key.pem holds no private key"), "{}", files.refused());
    std::fs::rename(files.dir.path().join("away"), files.certificate()).unwrap();
    let refused = files.refused();
    assert!(
        refused.contains("DIR/cert.pem holds no certificate") && refused.contains("change places"),
        "{refused}"
    );
}

#[test]
fn a_failed_reload_keeps_the_old_certificate_and_a_good_one_replaces_it() {
    let files = Files::new();
    let identity = files.load().unwrap();
    let first = identity.current();
    std::fs::write(files.certificate(), "nonsense").unwrap();
    assert!(identity.reload().is_err());
    assert!(Arc::ptr_eq(&first, &identity.current()));
    files.issue(|_| {});
    identity.reload().unwrap();
    assert!(!Arc::ptr_eq(&first, &identity.current()));
    assert!(Arc::ptr_eq(&first.ticketer, &identity.current().ticketer), "sessions survive a reload");
}

#[test]
fn the_dates_are_looked_at() {
    let files = Files::new();
    assert_eq!(files.worry(), None);
    files.issue(|params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    assert_eq!(files.worry(), Some(Worry::Expired));
    assert!(files.load().is_ok(), "an expired certificate is better than none");
    files.issue(|params| params.not_before = date_time_ymd(2900, 1, 1));
    assert_eq!(files.worry(), Some(Worry::NotYetValid));
}

#[test]
fn soon_means_fifteen_days() {
    let files = Files::new();
    files.issue(|params| params.not_after = date_time_ymd(2030, 1, 31));
    let chain = read_chain(&files.certificate()).unwrap();
    // 2030-01-31T00:00:00Z
    let end = 1_896_048_000;
    let days = |n: u64| UnixTime::since_unix_epoch(Duration::from_secs(end - n * 24 * 3600));
    assert_eq!(worry(&chain, days(16)), None);
    assert_eq!(worry(&chain, days(14)), Some(Worry::ExpiresSoon));
}

/// PKCS #8 is what rcgen writes; SEC 1 is what `openssl ecparam -genkey` writes.
#[test]
fn an_older_key_format_is_understood() {
    let files = Files::new();
    let key = files.issue(|_| {});
    // SEC 1 (RFC 5915): version, the private scalar, the curve (P-256). It sits inside the PKCS #8 form whole.
    let pkcs8 = key.serialize_der();
    let public = key.der_bytes();
    let at = memchr::memmem::find(&pkcs8, &[0x02, 0x01, 0x01, 0x04, 0x20]).unwrap();
    let scalar = &pkcs8[at + 5..at + 37];
    let mut inner = vec![0x02, 0x01, 0x01, 0x04, 0x20];
    inner.extend_from_slice(scalar);
    inner.extend_from_slice(&[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
    inner.extend_from_slice(&[0xa1, 0x44, 0x03, 0x42, 0x00]);
    inner.extend_from_slice(public);
    let mut sec1 = vec![0x30, inner.len() as u8];
    sec1.extend_from_slice(&inner);
    std::fs::write(files.key(), pem_of("EC PRIVATE KEY", &sec1)).unwrap();
    files.load().unwrap();
}

/// PEM with a small base64 of its own, so that the test needs no other library.
fn pem_of(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits =
                group.iter().fold(0_u32, |bits, &b| bits << 8 | u32::from(b)) << (8 * (3 - group.len()));
            for i in 0..4 {
                let six = (bits >> (18 - 6 * i)) & 63;
                text.push(if i <= group.len() { char::from(ALPHABET[six as usize]) } else { '=' });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
