//! Self-made certificates, right and wrong.

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, date_time_ymd};
use rustls::{ClientConfig, ClientConnection, Error, HandshakeKind, ServerConnection};
use tempfile::TempDir;

use super::read::{Worry, chain, look};
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
        let mut config = Config::default();
        config.tls.certificate = Some(self.certificate());
        config.tls.key = Some(self.key());
        Ok(Identity::load(&Arc::new(config))?.unwrap())
    }

    fn refused(&self) -> String {
        let text = self.load().expect_err("must be refused").to_string();
        text.replace(&self.dir.path().display().to_string(), "DIR")
    }

    fn worry(&self) -> Option<Worry> {
        look(&chain(&self.certificate()).unwrap(), UnixTime::now()).worry
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

/// What a client that asks for `name` sees: the first name of the certificate, and whether the session was resumed.
fn hello(
    identity: &Identity,
    client: &Arc<ClientConfig>,
    name: &'static str,
) -> Result<(Vec<u8>, HandshakeKind), Error> {
    let mut server = ServerConnection::new(identity.current())?;
    let mut client = ClientConnection::new(Arc::clone(client), name.try_into().unwrap())?;
    // Tickets follow the handshake: a few turns more than it takes.
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut &wire[..]).unwrap();
        let served = server.process_new_packets();
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut &wire[..]).unwrap();
        // The alert says less than the server's own error.
        served?;
        client.process_new_packets()?;
    }
    Ok((client.peer_certificates().unwrap()[0].to_vec(), client.handshake_kind().unwrap()))
}

/// A client that trusts these files' certificates.
fn client(trusted: &[&Files], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for files in trusted {
        roots.add(chain(&files.certificate()).unwrap().remove(0)).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(versions);
    Arc::new(builder.unwrap().with_root_certificates(roots).with_no_client_auth())
}

fn files_for(names: &[&str]) -> Files {
    let files = Files::new();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    files.issue(|params| *params = CertificateParams::new(names).unwrap());
    files
}

fn serving(all: &[&Files], change: impl FnOnce(&mut Config)) -> Result<Identity, TlsError> {
    let table =
        |files: &&Files| ctl_config::Certificate { certificate: files.certificate(), key: files.key() };
    let mut config = Config { certificate: all.iter().map(table).collect(), ..Config::default() };
    change(&mut config);
    Ok(Identity::load(&Arc::new(config))?.unwrap())
}

#[test]
fn each_name_gets_its_certificate_also_after_a_reload() {
    let (first, second) = (files_for(&["a.example"]), files_for(&["*.b.example"]));
    let identity = serving(&[&first, &second], |_| {}).unwrap();
    let is_shown = |files: &Files, name| {
        let shown = hello(&identity, &client(&[files], rustls::ALL_VERSIONS), name).unwrap().0;
        assert_eq!(shown, chain(&files.certificate()).unwrap()[0].to_vec(), "{name}");
    };
    is_shown(&first, "a.example");
    is_shown(&second, "x.b.example");
    // One that is no good: nothing changes, also not the good one beside it.
    let before = identity.current();
    second.issue(|params| *params = CertificateParams::new(vec!["c.example".to_owned()]).unwrap());
    std::fs::write(first.key(), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = identity.reload().unwrap_err();
    assert_eq!(
        (error.index, error.message.as_str()),
        (Some(0), "the TLS key does not belong to the certificate")
    );
    assert!(Arc::ptr_eq(&before, &identity.current()));
    first.issue(|params| *params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap());
    identity.reload().unwrap();
    is_shown(&first, "a.example");
    is_shown(&second, "c.example");
}

#[test]
fn a_name_of_nobody_gets_the_first_certificate_or_none() {
    let (first, second) = (files_for(&["a.example", "z.example"]), files_for(&["b.example"]));
    let z = client(&[&first], rustls::ALL_VERSIONS);
    let identity = serving(&[&second, &first], |_| {}).unwrap();
    assert!(hello(&identity, &z, "z.example").is_ok());
    let nobody = hello(&identity, &client(&[&second], rustls::ALL_VERSIONS), "c.example").unwrap_err();
    assert!(
        nobody.to_string().contains("only valid for DnsName(\"b.example\")"),
        "it was shown, and is not for that name: {nobody}"
    );
    let identity = serving(&[&second, &first], |config| config.tls.strict_sni = true).unwrap();
    assert!(hello(&identity, &z, "z.example").is_ok());
    let refused = hello(&identity, &client(&[&second], rustls::ALL_VERSIONS), "c.example").unwrap_err();
    assert!(refused.to_string().contains("no server certificate"), "{refused}");
}

#[test]
fn the_oldest_version_is_a_matter_of_configuration() {
    let files = files_for(&["a.example"]);
    let identity = |oldest| serving(&[&files], |config| config.tls.min_version = oldest).unwrap();
    let old = client(&[&files], &[&rustls::version::TLS12]);
    let new = client(&[&files], &[&TLS13]);
    let both = identity(TlsVersion::V1_2);
    assert!(hello(&both, &old, "a.example").is_ok() && hello(&both, &new, "a.example").is_ok());
    let modern = identity(TlsVersion::V1_3);
    assert!(hello(&modern, &new, "a.example").is_ok());
    let refused = hello(&modern, &old, "a.example").unwrap_err();
    assert!(matches!(refused, Error::PeerIncompatible(_)), "{refused}");
}

#[test]
fn sessions_are_resumed_across_a_reload_and_never_under_another_name() {
    let files = files_for(&["a.example", "b.example"]);
    let identity = serving(&[&files], |_| {}).unwrap();
    for version in rustls::ALL_VERSIONS {
        let client = client(&[&files], &[version]);
        let kind = |name| hello(&identity, &client, name).unwrap().1;
        assert_eq!(kind("a.example"), HandshakeKind::Full, "{version:?}");
        assert_eq!(kind("a.example"), HandshakeKind::Resumed, "{version:?}");
        identity.reload().unwrap();
        assert_eq!(kind("a.example"), HandshakeKind::Resumed, "{version:?}");
        assert_eq!(kind("b.example"), HandshakeKind::Full, "{version:?}");
    }
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
    let chain = chain(&files.certificate()).unwrap();
    // 2030-01-31T00:00:00Z
    let end = 1_896_048_000;
    let days = |n: u64| UnixTime::since_unix_epoch(Duration::from_secs(end - n * 24 * 3600));
    assert_eq!(look(&chain, days(16)).worry, None);
    assert_eq!(look(&chain, days(14)).worry, Some(Worry::ExpiresSoon));
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

mod clients;
