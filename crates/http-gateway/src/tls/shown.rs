//! A client's certificate, read once a connection into what apps and routes want of it. Pure.
//!
//! Names are written as RFC 4514 has it, and as openssl does with `-nameopt RFC2253`, so that they are what nginx and Apache say: the
//! last part first, in ASCII.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, X509Certificate, X509Name};
use x509_parser::time::ASN1Time;

/// A certificate longer than this is refused. Those of people and machines have one or two KiB; what is in it travels to the app with
/// each request, written as text, within the room that frames have beyond the request's own fields.
const CERTIFICATE_BYTES_MAX: usize = 6 * 1024;

/// All that the client has sent, in PEM. Above it the ones behind the first are left out: its authorities are known here.
const CHAIN_BYTES_MAX: usize = 16 * 1024;

/// Characters of a line of PEM (RFC 7468, 2).
const PEM_LINE: usize = 64;

/// What parts of names are called (RFC 4514, 3, and what openssl calls the others).
const ATTRIBUTES: [(&str, &str); 15] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Who a client is by its certificate, which has been verified. All texts are ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub(crate) subject: String,
    pub(crate) common_name: String,
    pub(crate) issuer: String,
    pub(crate) serial: String,
    pub(crate) fingerprint: String,
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    /// In PEM, its own first.
    pub(crate) chain: String,
    /// As the header field Client-Cert has it (RFC 9440, 2.1).
    pub(crate) field: String,
    /// Seconds since 1970.
    ends: i64,
}

impl ClientCertificate {
    /// From what the client has shown. `None`: it cannot be understood, or is too long.
    pub(crate) fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let own = chain.first().filter(|own| own.len() <= CERTIFICATE_BYTES_MAX)?;
        let (_, certificate) = X509Certificate::from_der(own).ok()?;
        let mut text = String::new();
        for der in chain {
            let next = pem(der);
            if text.len() + next.len() > CHAIN_BYTES_MAX {
                break;
            }
            text.push_str(&next);
        }
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next().map(value).unwrap_or_default();
        let serial = certificate.raw_serial();
        let serial = if let [0, rest @ ..] = serial
            && !rest.is_empty()
        {
            rest
        } else {
            serial
        };
        let validity = certificate.validity();
        Some(Self {
            subject: name(subject),
            common_name,
            issuer: name(certificate.issuer()),
            serial: hex(serial).to_ascii_uppercase(),
            fingerprint: hex(digest(&SHA256, own).as_ref()),
            not_before: time(validity.not_before),
            not_after: time(validity.not_after),
            chain: text,
            field: format!(":{}:", STANDARD.encode(own)),
            ends: validity.not_after.timestamp(),
        })
    }

    /// Is its last moment over? That of a resumed session may be: it was verified when the session began.
    pub(crate) fn has_expired(&self, now: UnixTime) -> bool {
        i64::try_from(now.as_secs()).is_ok_and(|now| self.ends < now)
    }

    /// For the app.
    pub(crate) fn for_app(&self) -> py_link::ClientCertificate<'_> {
        py_link::ClientCertificate {
            subject: self.subject.as_bytes(),
            common_name: self.common_name.as_bytes(),
            issuer: self.issuer.as_bytes(),
            serial: self.serial.as_bytes(),
            fingerprint: self.fingerprint.as_bytes(),
            not_before: self.not_before.as_bytes(),
            not_after: self.not_after.as_bytes(),
            chain: self.chain.as_bytes(),
        }
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: any place is between two characters.
        let (line, behind) = rest.split_at(rest.len().min(PEM_LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = behind;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `Jan  2 03:04:05 2026 GMT`, as openssl writes it.
fn time(time: ASN1Time) -> String {
    let at = time.to_datetime();
    let month = MONTHS.get(usize::from(u8::from(at.month())).wrapping_sub(1)).copied().unwrap_or_default();
    let (hour, minute, second) = at.to_hms();
    format!("{month} {:2} {hour:02}:{minute:02}:{second:02} {} GMT", at.day(), at.year())
}

/// RFC 4514, 2.1: the last part first; parts with several values have a `+` between them.
fn name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<_> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    match ATTRIBUTES.iter().find(|(known, _)| *known == oid) {
        Some((_, short)) if attribute.as_str().is_ok() => format!("{short}={}", value(attribute)),
        // RFC 4514, 2.4: what has no text is written as its bytes.
        _ => format!("{oid}=#{}", encoded(attribute)),
    }
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> String {
    attribute.as_str().map_or_else(|_| format!("#{}", encoded(attribute)), escaped)
}

/// The value in DER, hexadecimal.
fn encoded(attribute: &AttributeTypeAndValue<'_>) -> String {
    let (tag, bytes) = (attribute.attr_value().tag().0, attribute.as_slice());
    let mut der = vec![u8::try_from(tag).unwrap_or(u8::MAX)];
    // X.690, 8.1.3: short, or the number of the bytes of the length and these.
    match bytes.len() {
        short @ 0..=0x7f => der.push(short as u8),
        long => {
            let length: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
            der.push(0x80 | length.len() as u8);
            der.extend(length);
        }
    }
    der.extend_from_slice(bytes);
    hex(&der)
}

/// RFC 4514, 2.4, and each byte that is not ASCII or not to be seen as `\C3`: header fields and environs take no others.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => out.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    fn issue(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn what_apps_are_told() {
        let der = issue(|params| {
            params.distinguished_name.push(DnType::CountryName, "DE");
            params.distinguished_name.push(DnType::OrganizationName, "Café, Söhne + Co");
            params.distinguished_name.push(DnType::CommonName, "anna");
            params.serial_number = Some(SerialNumber::from(vec![0x00, 0xab, 0x01]));
            params.not_before = date_time_ymd(2026, 1, 2);
            params.not_after = date_time_ymd(2030, 12, 31);
        });
        let shown = ClientCertificate::new(&[der.clone(), der.clone()]).unwrap();
        assert_eq!(shown.subject, "CN=anna,O=Caf\\C3\\A9\\, S\\C3\\B6hne \\+ Co,C=DE");
        assert_eq!((shown.issuer.as_str(), shown.common_name.as_str()), (shown.subject.as_str(), "anna"));
        assert_eq!(shown.serial, "AB01");
        assert_eq!(shown.fingerprint, hex(digest(&SHA256, &der).as_ref()));
        assert_eq!(shown.not_before, "Jan  2 00:00:00 2026 GMT");
        assert_eq!(shown.not_after, "Dec 31 00:00:00 2030 GMT");
        assert_eq!(shown.chain.matches("-----BEGIN CERTIFICATE-----\n").count(), 2);
        assert!(shown.chain.lines().all(|line| line.len() <= PEM_LINE));
        assert_eq!(STANDARD.decode(shown.field.trim_matches(':')).unwrap(), der.to_vec());
        // 2030-12-31T00:00:00Z
        let end = 1_924_905_600;
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        assert!(!shown.has_expired(at(end)) && shown.has_expired(at(end + 1)));
    }

    #[test]
    fn what_is_too_long_or_nonsense() {
        let long = issue(|params| params.distinguished_name.push(DnType::CommonName, "x".repeat(7000)));
        assert_eq!(ClientCertificate::new(&[long]), None);
        assert_eq!(ClientCertificate::new(&[CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])]), None);
        assert_eq!(ClientCertificate::new(&[]), None);
        let short = issue(|params| params.distinguished_name.push(DnType::CommonName, "anna"));
        let medium = issue(|params| params.distinguished_name.push(DnType::CommonName, "x".repeat(3000)));
        let shown = ClientCertificate::new(&[short, medium.clone(), medium]).unwrap();
        assert_eq!(shown.chain.matches("BEGIN").count(), 2, "as many as there is room for");
    }

    #[test]
    fn signs_that_mean_something_are_escaped() {
        for (text, written) in [
            ("", ""),
            ("a b", "a b"),
            (" a ", "\\ a\\ "),
            ("#a#", "\\#a#"),
            ("a=b", "a=b"),
            ("\"<>;,+\\", "\\\"\\<\\>\\;\\,\\+\\\\"),
            ("a\r\nb\0", "a\\0D\\0Ab\\00"),
            ("ü", "\\C3\\BC"),
        ] {
            assert_eq!(escaped(text), written, "{text}");
        }
    }
}
