//! Clients with and without certificates, over TLS 1.2 and 1.3.

use rcgen::{
    BasicConstraints, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod,
};
use rcgen::{KeyUsagePurpose, RevokedCertParams, SerialNumber};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use ctl_config::ClientVerify;

use super::*;

/// Signs certificates of clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Key and certificate of a client.
type Who = (PrivateKeyDer<'static>, Vec<CertificateDer<'static>>);

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str, number: u64, change: impl FnOnce(&mut CertificateParams)) -> Who {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(number));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (der, vec![certificate.der().clone()])
    }

    fn revokes(&self, numbers: &[u64]) -> String {
        let revoked = |number: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A server whose clients this authority vouches for.
struct Server {
    files: Files,
    authority: Authority,
    config: Config,
}

impl Server {
    fn new(verify: ClientVerify) -> Self {
        let (files, authority) = (files_for(&["a.example"]), Authority::new("ours"));
        let mut config = Config::default();
        config.tls.certificate = Some(files.certificate());
        config.tls.key = Some(files.key());
        config.tls.client_verify = verify;
        config.tls.client_ca = Some(files.dir.path().join("clients.pem"));
        let server = Self { files, authority, config };
        server.believe(&[&server.authority]);
        server
    }

    fn believe(&self, authorities: &[&Authority]) {
        let pem: String = authorities.iter().map(|authority| authority.pem.as_str()).collect();
        std::fs::write(self.files.dir.path().join("clients.pem"), pem).unwrap();
    }

    fn revoke(&mut self, numbers: &[u64]) {
        let path = self.files.dir.path().join("revoked.pem");
        std::fs::write(&path, self.authority.revokes(numbers)).unwrap();
        self.config.tls.client_crl = Some(path);
    }

    fn load(&self) -> Identity {
        Identity::load(&Arc::new(self.config.clone())).unwrap().unwrap()
    }

    fn client(&self, who: Option<&Who>, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let own = client(&[&self.files], &[version]);
        let Some((key, chain)) = who else { return own };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(super::chain(&self.files.certificate()).unwrap().remove(0)).unwrap();
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(&[version]);
        let builder = builder.unwrap().with_root_certificates(roots);
        Arc::new(builder.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap())
    }
}

/// The common name that the server sees, and whether the session was resumed; or why there is none.
fn seen(identity: &Identity, client: &Arc<ClientConfig>) -> String {
    meet(identity, client).unwrap_or_else(|why| why)
}

fn meet(identity: &Identity, client: &Arc<ClientConfig>) -> Result<String, String> {
    let mut server = ServerConnection::new(identity.current()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), "a.example".try_into().unwrap()).unwrap();
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
        served.map_err(|error| error.to_string())?;
        client.process_new_packets().map_err(|error| error.to_string())?;
    }
    let shown = super::super::client(&server)?;
    let name = shown.map_or_else(String::new, |shown| shown.common_name.clone());
    Ok(format!("{name}: {:?}", server.handshake_kind().unwrap()))
}

fn full(name: &str) -> String {
    format!("{name}: Full")
}

fn resumed(name: &str) -> String {
    format!("{name}: Resumed")
}

#[test]
fn who_is_believed() {
    for version in rustls::ALL_VERSIONS {
        let (optional, required) = (Server::new(ClientVerify::Optional), Server::new(ClientVerify::Require));
        for server in [&optional, &required] {
            let identity = server.load();
            let anna = server.authority.issue("anna", 1, |_| {});
            assert_eq!(seen(&identity, &server.client(Some(&anna), version)), full("anna"));
            let stranger = Authority::new("another").issue("anna", 1, |_| {});
            let expired =
                server.authority.issue("old", 2, |params| params.not_after = date_time_ymd(2020, 1, 1));
            let machine = server.authority.issue("server", 3, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            });
            for (who, why) in
                [(stranger, "UnknownIssuer"), (expired, "xpired"), (machine, "client authentication")]
            {
                let refused = seen(&identity, &server.client(Some(&who), version));
                assert!(refused.contains(why), "{refused}");
            }
        }
        assert_eq!(seen(&optional.load(), &optional.client(None, version)), full(""));
        let refused = seen(&required.load(), &required.client(None, version));
        assert!(refused.contains("no certificates"), "{refused}");
    }
}

#[test]
fn a_resumed_session_is_that_of_the_same_client() {
    for version in rustls::ALL_VERSIONS {
        let server = Server::new(ClientVerify::Optional);
        let identity = server.load();
        let anna = server.authority.issue("anna", 1, |_| {});
        let (known, nobody) = (server.client(Some(&anna), version), server.client(None, version));
        assert_eq!(seen(&identity, &known), full("anna"));
        assert_eq!(seen(&identity, &known), resumed("anna"));
        assert_eq!(seen(&identity, &nobody), full(""));
        assert_eq!(seen(&identity, &nobody), resumed(""));
        identity.reload().unwrap();
        assert_eq!(seen(&identity, &known), resumed("anna"));
    }
}

#[test]
fn nobody_resumes_who_would_not_be_believed_any_more() {
    for version in rustls::ALL_VERSIONS {
        let mut server = Server::new(ClientVerify::Require);
        server.revoke(&[]);
        let identity = server.load();
        let (anna, bert) =
            (server.authority.issue("anna", 1, |_| {}), server.authority.issue("bert", 2, |_| {}));
        let (anna, bert) = (server.client(Some(&anna), version), server.client(Some(&bert), version));
        assert_eq!((seen(&identity, &anna), seen(&identity, &bert)), (full("anna"), full("bert")));
        assert_eq!(seen(&identity, &anna), resumed("anna"));

        server.revoke(&[1]);
        identity.reload().unwrap();
        let refused = seen(&identity, &anna);
        assert!(refused.contains("Revoked"), "{refused}");
        assert_eq!(seen(&identity, &bert), full("bert"));
        assert_eq!(seen(&identity, &bert), resumed("bert"));

        let other = Authority::new("another");
        std::fs::write(server.config.tls.client_crl.as_ref().unwrap(), other.revokes(&[])).unwrap();
        server.believe(&[&other]);
        identity.reload().unwrap();
        assert!(seen(&identity, &bert).contains("UnknownIssuer"));
    }
}

#[test]
fn files_that_are_no_good_are_named_and_change_nothing() {
    let mut server = Server::new(ClientVerify::Require);
    server.revoke(&[]);
    let identity = server.load();
    let before = identity.current();
    let dir = server.files.dir.path().display().to_string();
    let refused = |file: &str, text: &str| {
        let path = server.files.dir.path().join(file);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        let error = identity.reload().unwrap_err();
        std::fs::write(&path, good).unwrap();
        (error.key, error.detail.replace(&dir, "DIR"))
    };
    assert_eq!(refused("clients.pem", ""), ("client_ca", "DIR/clients.pem holds no certificate".into()));
    assert_eq!(refused("revoked.pem", ""), ("client_crl", "DIR/revoked.pem holds no list".into()));
    let (key, _) = refused("revoked.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    assert_eq!(key, "client_ca", "it is read, and then it cannot be used");
    assert!(Arc::ptr_eq(&before, &identity.current()));
}
