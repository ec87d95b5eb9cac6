//! Texts with placeholders, as in `https://example.org{path}{query}`: what a request says of itself. Pure.

use crate::problem::nearest;
use crate::raw::Fault;

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// `http` or `https`.
    Scheme,
    /// The host that was asked for, without port.
    Host,
    /// The path, as it goes on, percent-encoded.
    Path,
    /// The query with its question mark; nothing where there is none.
    Query,
    /// The client's address.
    Client,
    /// The request id.
    RequestId,
    /// The client's certificate, as the field Client-Cert has it (RFC 9440).
    ClientCert,
    /// Whom it is for.
    ClientCertSubject,
    /// Who has signed it.
    ClientCertIssuer,
    /// Its number, hexadecimal.
    ClientCertSerial,
    /// SHA-256 of it, hexadecimal.
    ClientCertFingerprint,
}

impl Placeholder {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Scheme, "scheme"),
        (Self::Host, "host"),
        (Self::Path, "path"),
        (Self::Query, "query"),
        (Self::Client, "client"),
        (Self::RequestId, "request_id"),
        (Self::ClientCert, "client_cert"),
        (Self::ClientCertSubject, "client_cert_subject"),
        (Self::ClientCertIssuer, "client_cert_issuer"),
        (Self::ClientCertSerial, "client_cert_serial"),
        (Self::ClientCertFingerprint, "client_cert_fingerprint"),
    ];

    /// Does it say something of the client's certificate?
    pub fn is_of_certificate(self) -> bool {
        matches!(
            self,
            Self::ClientCert
                | Self::ClientCertSubject
                | Self::ClientCertIssuer
                | Self::ClientCertSerial
                | Self::ClientCertFingerprint
        )
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, word)| *word == name).map(|(placeholder, _)| placeholder)
    }
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(String),
    /// What the request says.
    Of(Placeholder),
}

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// `{{` and `}}` are the braces themselves.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, behind) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = behind.strip_prefix("{{").or_else(|| behind.strip_prefix("}}")) {
                plain.push_str(&behind[..1]);
                rest = after;
                continue;
            }
            let (name, after) =
                behind.strip_prefix('{').and_then(|inner| inner.split_once('}')).ok_or_else(|| {
                    Fault::new(format!("\"{text}\" has a brace that stands alone"))
                        .hint("a brace itself is written twice: {{ or }}")
                })?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Of(Placeholder::named(name).ok_or_else(|| unknown(name))?));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self { pieces })
    }

    /// In order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Puts it together.
    pub fn fill<'a>(&self, of: impl Fn(Placeholder) -> &'a [u8]) -> Vec<u8> {
        let bytes = self.pieces.iter().flat_map(|piece| match piece {
            Piece::Text(text) => text.as_bytes(),
            Piece::Of(placeholder) => of(*placeholder),
        });
        bytes.copied().collect()
    }
}

fn unknown(name: &str) -> Fault {
    let names = Placeholder::ALL.map(|(_, name)| name);
    let fault = Fault::new(format!("there is no placeholder {{{name}}}"));
    match nearest(name, names) {
        Some(near) => fault.hint(format!("did you mean {{{near}}}?")),
        None => fault.hint(format!("{{{}}}; a brace itself is written twice", names.join("}, {"))),
    }
}

/// A redirect's target: a whole URL or a path of this site, whose host nobody but its author can choose.
///
/// Only `{host}` may stand in the place of the host, and nothing may follow that could prolong it: `https://example.org{path}` is
/// right because a path begins with a slash.
pub(super) fn check_redirect(text: &str) -> Result<(), Fault> {
    let template = Template::parse(text)?;
    let fault = || Fault::new(format!("\"{text}\" is not where a redirect can lead"));
    let usable = |piece: &Piece| match piece {
        Piece::Text(text) => text.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b)),
        Piece::Of(placeholder) => matches!(
            placeholder,
            Placeholder::Scheme | Placeholder::Host | Placeholder::Path | Placeholder::Query
        ),
    };
    if !template.pieces.iter().all(usable) {
        return Err(fault().hint("a URL without spaces, with {scheme}, {host}, {path} and {query}"));
    }
    let whole = |rest: &[Piece], text: &str| match text.find(['/', '?', '#']) {
        Some(end) => is_authority(&text[..end]),
        None => {
            is_authority(text)
                && matches!(rest.first(), None | Some(Piece::Of(Placeholder::Path | Placeholder::Query)))
        }
    };
    let behind_scheme = |rest: &[Piece], text: &str| match (text, rest) {
        ("", [Piece::Of(Placeholder::Host), Piece::Text(text), ..]) => {
            text.starts_with(['/', '?', '#'])
                || is_port(text.split(['/', '?', '#']).next().unwrap_or_default())
        }
        ("", [Piece::Of(Placeholder::Host), rest @ ..]) => {
            matches!(rest.first(), None | Some(Piece::Of(Placeholder::Path | Placeholder::Query)))
        }
        _ => whole(rest, text),
    };
    let good = match template.pieces.as_slice() {
        [Piece::Of(Placeholder::Path), ..] => true,
        [Piece::Of(Placeholder::Scheme), Piece::Text(text), rest @ ..] => {
            text.strip_prefix("://").is_some_and(|text| behind_scheme(rest, text))
        }
        [Piece::Text(text), rest @ ..] => {
            let url = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            match url {
                Some(text) => behind_scheme(rest, text),
                None => text.starts_with('/') && !text.starts_with("//"),
            }
        }
        _ => false,
    };
    if good {
        return Ok(());
    }
    Err(fault().hint("for example https://example.org{path}{query}, or /new{query} for this site"))
}

/// `example.org`, `example.org:8443`, `[::1]`.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rfind(':').filter(|_| !text.ends_with(']')) {
        Some(colon) => text.split_at(colon),
        None => (text, ""),
    };
    let name = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
    !host.is_empty() && host.bytes().all(name) && (port.is_empty() || is_port(port))
}

/// `:8443`, of which nothing is missing.
fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling() {
        let fill = |text: &str| {
            let template = Template::parse(text).unwrap();
            let filled = template.fill(|placeholder| match placeholder {
                Placeholder::Path => b"/a%20b",
                Placeholder::Query => b"?x=1",
                Placeholder::Host => b"example.org",
                _ => b"?",
            });
            String::from_utf8(filled).unwrap()
        };
        assert_eq!(fill("https://{host}{path}{query}"), "https://example.org/a%20b?x=1");
        assert_eq!(fill("{{\"a\": 1}}"), "{\"a\": 1}");
        assert_eq!(fill(""), "");
        for bad in ["{", "}", "{path", "path}", "{pth}", "{}", "{{path}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nobody_else_chooses_the_host_of_a_redirect() {
        for good in [
            "https://example.org",
            "https://example.org{path}{query}",
            "https://example.org:8443{path}",
            "{scheme}://www.example.org/new{path}",
            "https://{host}{path}{query}",
            "https://{host}:8443{path}",
            "https://[::1]:80/",
            "https://example.org?from={path}",
            "/new",
            "/new{path}{query}",
            "{path}{query}",
        ] {
            assert_eq!(check_redirect(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "example.org",
            "//example.org",
            "https://",
            "https://{path}",
            "https://example.org{host}",
            "https://{host}.evil.example{path}",
            "https://www.{host}",
            "https://example.org:{path}",
            "https://a@b{path}",
            "{host}/x",
            "{query}",
            "javascript:alert(1)",
            "/a b",
            "/{client}",
            "https://{host}:{path}",
        ] {
            assert!(check_redirect(bad).is_err(), "{bad}");
        }
    }
}
