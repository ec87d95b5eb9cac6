//! Who a client is by its certificate, on the way to the app.

use crate::LinkError;
use crate::wire::{Reader, put_long, put_short};

/// What a TLS client has said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth<'a> {
    /// It was not asked, or its TLS ends at a proxy before us.
    NotAsked,
    /// It was asked and has shown nothing.
    Nobody,
    /// It has shown a certificate, and it is good.
    Shown(ClientCertificate<'a>),
}

/// A client's certificate, as apps want it. All of it is ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientCertificate<'a> {
    /// Whom it is for, as RFC 4514 writes a name.
    pub subject: &'a [u8],
    /// The subject's common name; empty where it has none.
    pub common_name: &'a [u8],
    /// Who has signed it.
    pub issuer: &'a [u8],
    /// Its number, hexadecimal.
    pub serial: &'a [u8],
    /// SHA-256 of it, hexadecimal.
    pub fingerprint: &'a [u8],
    /// Its first moment, as openssl writes it.
    pub not_before: &'a [u8],
    /// Its last moment.
    pub not_after: &'a [u8],
    /// The certificate and those that the client sent behind it, in PEM, one after another.
    pub chain: &'a [u8],
}

/// [`ClientAuth`] on the wire.
const NOT_ASKED: u8 = 0;
const NOBODY: u8 = 1;
const SHOWN: u8 = 2;

pub(crate) fn put_client(out: &mut Vec<u8>, client: &ClientAuth<'_>) {
    let shown = match client {
        ClientAuth::NotAsked => return out.push(NOT_ASKED),
        ClientAuth::Nobody => return out.push(NOBODY),
        ClientAuth::Shown(certificate) => certificate,
    };
    out.push(SHOWN);
    for text in [shown.subject, shown.common_name, shown.issuer, shown.serial, shown.fingerprint] {
        put_short(out, text);
    }
    put_short(out, shown.not_before);
    put_short(out, shown.not_after);
    put_long(out, shown.chain);
}

pub(crate) fn read_client<'a>(reader: &mut Reader<'a>) -> Result<ClientAuth<'a>, LinkError> {
    match reader.u8()? {
        NOT_ASKED => Ok(ClientAuth::NotAsked),
        NOBODY => Ok(ClientAuth::Nobody),
        SHOWN => Ok(ClientAuth::Shown(ClientCertificate {
            subject: reader.short()?,
            common_name: reader.short()?,
            issuer: reader.short()?,
            serial: reader.short()?,
            fingerprint: reader.short()?,
            not_before: reader.short()?,
            not_after: reader.short()?,
            chain: reader.long()?,
        })),
        _ => Err(reader.malformed()),
    }
}
