//! Changes of header fields: `Name: value` sets, `+Name: value` adds, `-Name` removes. Pure.

use super::condition::is_field_name;
use super::template::{Piece, Template};
use crate::raw::Fault;

/// Fields that belong to a connection or to the framing of a message (RFC 9110, 7.6.1): whoever writes the message writes them.
pub(super) const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A change of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderEdit {
    /// With the letters of its author.
    pub name: String,
    /// What is done.
    pub change: Change,
}

/// What is done to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// One more, besides those that are there.
    Add(Template),
    /// This one, instead of those that are there.
    Set(Template),
    /// None.
    Remove,
}

impl HeaderEdit {
    /// See the module.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fault = || Fault::new(format!("\"{text}\" is not a change of a header"));
        let form = "\"Name: value\" sets, \"+Name: value\" adds, \"-Name\" removes";
        let (name, change) = if let Some(name) = text.strip_prefix('-') {
            (name.trim(), Change::Remove)
        } else {
            let (added, rest) = text.strip_prefix('+').map_or((false, text), |rest| (true, rest));
            let (name, value) = rest.split_once(':').ok_or_else(|| fault().hint(form))?;
            let value = Template::parse(value.trim())?;
            (name.trim(), if added { Change::Add(value) } else { Change::Set(value) })
        };
        if !is_field_name(name) {
            return Err(fault().hint(form));
        }
        if let Change::Add(value) | Change::Set(value) = &change {
            let usable = |piece: &Piece| match piece {
                Piece::Text(text) => text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t')),
                Piece::Of(_) => true,
            };
            if !value.pieces().iter().all(usable) {
                return Err(fault().hint("a value is one line of ASCII"));
            }
        }
        let lower = name.to_ascii_lowercase();
        if FRAMING.contains(&lower.as_str()) || lower.starts_with("sec-websocket-") {
            return Err(
                fault().hint(format!("{name} belongs to the connection; quintet writes it as it must be"))
            );
        }
        Ok(Self { name: name.to_owned(), change })
    }
}

/// A change of what the app is sent.
pub(super) fn check_request_edit(text: &str) -> Result<(), Fault> {
    let edit = HeaderEdit::parse(text)?;
    let fault = || Fault::new(format!("\"{text}\" would not reach the app"));
    match edit.name.to_ascii_lowercase().as_str() {
        "host" => Err(fault().hint("the app sees the host that was asked for")),
        "x-request-id" => Err(fault().hint("the app sees the id that is in the log")),
        "proxy" => Err(fault().hint("as HTTP_PROXY it would be a setting of HTTP clients")),
        // Two names that differ in `-` and `_` are one variable of the environ; so the worker does not take the latter.
        name if name.contains('_') && edit.change != Change::Remove => {
            Err(fault().hint(format!("with dashes: {}", edit.name.replace('_', "-"))))
        }
        _ => Ok(()),
    }
}

/// A change of what the client is sent.
pub(super) fn check_response_edit(text: &str) -> Result<(), Fault> {
    let edit = HeaderEdit::parse(text)?;
    let own = ["date", "server"].iter().any(|name| edit.name.eq_ignore_ascii_case(name));
    if own && !matches!(edit.change, Change::Set(_)) {
        return Err(Fault::new(format!(
            "\"{text}\" does nothing: quintet writes this field where it is missing"
        ))
        .hint(format!("set it: \"{}: …\"", edit.name)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let parse = |text| HeaderEdit::parse(text).ok().map(|edit| (edit.name, edit.change));
        let value = |text| Template::parse(text).unwrap();
        assert_eq!(parse("X-A: b: c"), Some(("X-A".into(), Change::Set(value("b: c")))));
        assert_eq!(parse("+Vary: Accept"), Some(("Vary".into(), Change::Add(value("Accept")))));
        assert_eq!(parse("-Server"), Some(("Server".into(), Change::Remove)));
        assert_eq!(parse("X-Client:{client}"), Some(("X-Client".into(), Change::Set(value("{client}")))));
        for bad in [
            "",
            "X-A",
            ": b",
            "X A: b",
            "-",
            "+X-A",
            "X-A: {a}",
            "X-A: é",
            "X-A: a\nb: c",
            "Connection: close",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_would_do_nothing() {
        for bad in ["Host: a", "-X-Request-ID", "Proxy: a", "X_A: b", "Transfer-Encoding: chunked"] {
            assert!(check_request_edit(bad).is_err(), "{bad}");
        }
        for bad in ["-Date", "+Server: a", "-Content-Length", "Upgrade: h2c", "-Sec-WebSocket-Accept"] {
            assert!(check_response_edit(bad).is_err(), "{bad}");
        }
        for good in ["Server: a", "-X-Request-ID", "+Set-Cookie: a=b"] {
            assert_eq!(check_response_edit(good), Ok(()), "{good}");
        }
    }
}
