//! Which certificate a client gets: that for the name it asks for (RFC 6066, 3), else the first.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::read::Pair;

/// All certificates by their names.
#[derive(Debug)]
pub(super) struct Names {
    /// The first is for whoever asks for no name of ours.
    keys: Vec<Arc<CertifiedKey>>,
    /// Of each name the certificates that have it, in the order of the configuration: RSA and ECDSA may have the same.
    exact: HashMap<String, Vec<usize>>,
    /// The same for `*.example.org`, under `example.org`.
    wildcard: HashMap<String, Vec<usize>>,
    /// Nobody gets a certificate who does not ask for one of its names.
    strict: bool,
}

impl Names {
    pub(super) fn new(pairs: Vec<Pair>, strict: bool) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        let mut keys = Vec::new();
        for (at, Pair { key, names }) in pairs.into_iter().enumerate() {
            for name in names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut wildcard, rest.to_owned()),
                    None => (&mut exact, name),
                };
                map.entry(name).or_insert_with(Vec::new).push(at);
            }
            keys.push(Arc::new(key));
        }
        Self { keys, exact, wildcard, strict }
    }

    /// The certificates for `name`, which is in small letters. `None`: nobody has it.
    fn have(&self, name: &str) -> Option<&[usize]> {
        // An exact name wins. RFC 9525, 6.3: a star stands for one label, the leftmost, and whole.
        let parent = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(parent).map(Vec::as_slice)
    }

    /// The certificate for who asks for `name`, if it can sign as the client wants; else the first that has the name.
    fn choose(
        &self,
        name: Option<&str>,
        can_sign: impl Fn(&CertifiedKey) -> bool,
    ) -> Option<Arc<CertifiedKey>> {
        let Some(have) = name.and_then(|name| self.have(name)) else {
            return self.keys.first().filter(|_| !self.strict).cloned();
        };
        let mut keys = have.iter().filter_map(|at| self.keys.get(*at));
        let first = keys.clone().next();
        keys.find(|key| can_sign(key)).or(first).cloned()
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in small letters and without a dot at its end.
        self.choose(hello.server_name(), |key| key.key.choose_scheme(hello.signature_schemes()).is_some())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
    use rustls::SignatureAlgorithm as Algorithm;

    use super::super::read::provider;
    use super::*;

    fn pair(names: &[&str], kind: &'static SignatureAlgorithm) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate_for(kind).unwrap();
        let certificate = CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
        let der = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = CertifiedKey::from_der(vec![certificate.der().clone()], der, &provider()).unwrap();
        Pair { key, names }
    }

    #[track_caller]
    fn check(names: &Names, asked: Option<&str>, expected: Option<usize>) {
        let chosen = names.choose(asked, |_| true);
        let at = chosen.map(|key| names.keys.iter().position(|own| Arc::ptr_eq(own, &key)).unwrap());
        assert_eq!(at, expected, "{asked:?}");
    }

    #[test]
    fn a_name_finds_its_certificate() {
        let p256 = &PKCS_ECDSA_P256_SHA256;
        let pairs = || {
            vec![
                pair(&["a.example", "www.a.example"], p256),
                pair(&["*.b.example", "b.example"], p256),
                pair(&["shop.b.example"], p256),
            ]
        };
        let names = Names::new(pairs(), false);
        for (asked, expected) in [
            ("www.a.example", 0),
            ("b.example", 1),
            ("x.b.example", 1),
            ("shop.b.example", 2),
            // Not a label, not two.
            ("x.y.b.example", 0),
            ("nobody.example", 0),
            ("example", 0),
        ] {
            check(&names, Some(asked), Some(expected));
        }
        check(&names, None, Some(0));
        let strict = Names::new(pairs(), true);
        check(&strict, Some("shop.b.example"), Some(2));
        check(&strict, Some("a.example"), Some(0));
        check(&strict, Some("nobody.example"), None);
        check(&strict, None, None);
    }

    #[test]
    fn of_two_for_one_name_the_client_gets_the_one_it_can_check() {
        let names = Names::new(
            vec![pair(&["a.example"], &PKCS_ED25519), pair(&["a.example"], &PKCS_ECDSA_P256_SHA256)],
            false,
        );
        let chosen = |algorithm: Algorithm| {
            let key = names.choose(Some("a.example"), |key| key.key.algorithm() == algorithm).unwrap();
            key.key.algorithm()
        };
        assert_eq!(chosen(Algorithm::ED25519), Algorithm::ED25519);
        assert_eq!(chosen(Algorithm::ECDSA), Algorithm::ECDSA);
        assert_eq!(chosen(Algorithm::RSA), Algorithm::ED25519);
    }
}
