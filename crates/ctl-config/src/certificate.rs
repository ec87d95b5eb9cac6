//! `[[certificate]]`: TLS certificates for more names. The table of keys, what holds between them, and how they and `[tls]` are one list.

use std::path::{Path, PathBuf};

use crate::choice::choice;
use crate::define::record;
use crate::load::Loaded;
use crate::problem::Problem;
use crate::settings::Config;
use crate::tables::{Record as _, Required, Rules, holds_for_all};

/// They are all read at each reload, and parsed twice then: a thousand take less than a second.
const CERTIFICATES_MAX: usize = 1000;

choice! {
    /// Versions of TLS. Older ones are never spoken.
    TlsVersion {
        /// TLS 1.2 (RFC 5246) with forward secrecy and AEAD ciphers only, and TLS 1.3.
        V1_2 = "1.2",
        /// TLS 1.3 (RFC 8446) only.
        V1_3 = "1.3",
    }
}

record! {
    /// A certificate for names that the one of `[tls]` does not cover. The table may be there several times: a client gets the
    /// certificate whose names (its subject alternative names, also wildcards) have the name it asks for. Without
    /// `tls.certificate` the first of them is for everybody else. See docs/guides/tls.md.
    [[certificate]] Certificate {
        /// PEM file with the certificate and its chain.
        certificate: PathBuf = PathBuf::new(),
            otherwise("must be set"), example("\"/etc/letsencrypt/live/blog/fullchain.pem\"");
        /// PEM file with the private key of the certificate.
        key: PathBuf = PathBuf::new(),
            otherwise("must be set"), example("\"/etc/letsencrypt/live/blog/privkey.pem\"");
    }
}

impl Rules for Certificate {
    const COUNT_MAX: (usize, &'static str) =
        (CERTIFICATES_MAX, "all are read again at each reload; one certificate may have many names");
    const REQUIRED: &'static [Required] = &[
        Required { key: "certificate", question: "which file?", example: "\"fullchain.pem\"" },
        Required { key: "key", question: "which file?", example: "\"privkey.pem\"" },
    ];

    fn together(loaded: &Loaded, problems: &mut Vec<Problem>) {
        let certificates = &loaded.config.certificate;
        let first = loaded.config.tls.certificate.as_ref();
        for (index, Self { certificate, .. }) in certificates.iter().enumerate() {
            let mut earlier = certificates[..index].iter().map(|other| &other.certificate).chain(first);
            if !certificate.as_os_str().is_empty() && earlier.any(|other| other == certificate) {
                let problem = Problem::new(format!(
                    "certificate.certificate: {} is there twice",
                    certificate.display()
                ))
                .hint("name each certificate once: it is used for all names that it holds");
                problems.push(problem.at(loaded.place_in(Self::TABLE, index, "certificate")));
            }
        }
    }

    fn wanted(name: &str) -> Option<String> {
        match name {
            "name" | "names" | "domain" | "domains" | "host" | "hosts" | "sni" => {
                Some("the names come from the certificate itself".to_owned())
            }
            _ => holds_for_all(name, &["tls"], "certificates"),
        }
    }
}

/// Certificate and key as the configuration names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateFiles<'a> {
    /// PEM, the chain.
    pub certificate: &'a Path,
    /// PEM.
    pub key: &'a Path,
    /// Which `[[certificate]]` it is; `None`: that of `[tls]`.
    pub index: Option<usize>,
}

impl Config {
    /// Every certificate, that for clients who ask for no name, or one that is nobody's, first. Empty: no TLS.
    pub fn certificates(&self) -> Vec<CertificateFiles<'_>> {
        let own = self.tls.certificate.as_deref().zip(self.tls.key.as_deref());
        let own = own.map(|(certificate, key)| CertificateFiles { certificate, key, index: None });
        let more = self.certificate.iter().enumerate().map(|(index, Certificate { certificate, key })| {
            CertificateFiles { certificate, key, index: Some(index) }
        });
        own.into_iter().chain(more).collect()
    }

    /// Whether the TCP addresses speak TLS.
    pub fn speaks_tls(&self) -> bool {
        self.tls.certificate.is_some() || !self.certificate.is_empty()
    }
}

impl Loaded {
    /// The problem of the files of one of [`Config::certificates`] or of a key of `[tls]`, told where it is named.
    pub fn problem_of_certificate(
        &self,
        index: Option<usize>,
        key: &str,
        message: String,
        detail: String,
        hint: &str,
    ) -> Problem {
        let place = match index {
            Some(index) => self.place_in(Certificate::TABLE, index, key),
            None => self.place(&format!("tls.{key}")),
        };
        Problem::new(message).detail(detail).hint(hint).at(place)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{loaded, wrong};

    #[test]
    fn the_one_of_the_section_comes_first() {
        let text = "[[certificate]]\ncertificate = \"b.pem\"\nkey = \"b.key\"\n\
                    [tls]\ncertificate = \"a.pem\"\nkey = \"a.key\"\nmin_version = \"1.3\"\n";
        let loaded = loaded(text);
        let files: Vec<_> = loaded.config.certificates();
        let names: Vec<_> =
            files.iter().map(|files| (files.certificate.to_str().unwrap(), files.index)).collect();
        assert_eq!(names, [("/srv/shop/a.pem", None), ("/srv/shop/b.pem", Some(0))]);
        assert!(loaded.config.speaks_tls());
        let problem = loaded.problem_of_certificate(Some(0), "certificate", "no".into(), "why".into(), "so");
        assert_eq!(problem.location().unwrap(), "quintet.toml:2:15");
    }

    #[test]
    fn what_is_wrong_is_explained() {
        let text = "[tls]\nstrict_sni = true\nmin_version = \"1.1\"\n\
                    [[certificate]]\ncertificate = \"a.pem\"\nkey = \"a.key\"\nnames = [\"a\"]\nmin_version = \"1.3\"\n\
                    [[certificate]]\ncertificate = \"a.pem\"\n";
        let problems = wrong(text);
        insta::assert_snapshot!(problems);
        let twice = "[[certificate]]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n".repeat(2);
        let problems = wrong(&twice);
        insta::assert_snapshot!(problems);
        let problems = wrong("[tls]\nstrict_sni = true\n");
        insta::assert_snapshot!(problems);
    }
}
