//! The opening handshake: is this one, is it good, and what is answered (RFC 6455, 4.2; over HTTP/2 RFC 8441). No I/O.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::deflate::Agreed;
use crate::h1::elements;
use crate::message::{BodyLength, Connection, Headers, Method, RequestHead, Response, Service, Version};

/// Proves that the answer is meant for a WebSocket (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The only version there is (RFC 6455, 4.1).
const VERSION: &[u8] = b"13";

/// The key's length before base64 (RFC 6455, 4.1).
const KEY_BYTES: usize = 16;

/// Fields that are the gateway's to set, or have no place in an answer that opens a WebSocket. The app's subprotocol is
/// looked at by itself.
const OURS: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Those of them that an upstream's server decides.
const AGREED: [&str; 2] = ["sec-websocket-extensions", "sec-websocket-protocol"];

/// A good handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// For `Sec-WebSocket-Accept`; HTTP/2 needs none.
    accept: Option<String>,
    /// Compression, when both sides want it.
    pub deflate: Option<Agreed>,
}

/// Why a handshake is not a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// 400; the text is for the client.
    Malformed(&'static str),
    /// 426: another version.
    Version,
}

impl Refused {
    /// The answer, with what it must say besides (RFC 6455, 4.4; RFC 9110, 15.5.22).
    pub(crate) fn answer<S: Service>(self, service: &S, connection: &Connection) -> Response {
        let (status, why) = self.status();
        let mut response = service.refuse(connection, status, why);
        self.add_fields(&mut response.headers);
        response
    }

    /// The status and why.
    fn status(self) -> (u16, &'static str) {
        match self {
            Self::Malformed(why) => (400, why),
            Self::Version => (426, "only version 13 of the WebSocket protocol is spoken here"),
        }
    }

    fn add_fields(self, headers: &mut Headers) {
        if self == Self::Version {
            headers.set("sec-websocket-version", VERSION);
            headers.set("upgrade", b"websocket");
        }
    }
}

/// Does an HTTP/1.1 request ask for a WebSocket? `upgrade`: its Connection says so; without that the Upgrade field means
/// nothing (RFC 9110, 7.8), as it does in HTTP/1.0.
pub fn is_asked(head: &RequestHead, upgrade: bool) -> bool {
    upgrade
        && head.version == Version::Http11
        && head
            .headers
            .all("upgrade")
            .flat_map(elements)
            .any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

impl Handshake {
    /// Checks a handshake over HTTP/1.1 (RFC 6455, 4.2.1).
    pub fn over_h1(head: &RequestHead, body: BodyLength, compress: bool) -> Result<Self, Refused> {
        if head.method != Method::Get {
            return Err(Refused::Malformed("a WebSocket handshake is a GET"));
        }
        if !matches!(body, BodyLength::None | BodyLength::Known(0)) {
            return Err(Refused::Malformed("a WebSocket handshake has no body"));
        }
        check_version(head)?;
        let key = only(head, "sec-websocket-key")
            .filter(|key| STANDARD.decode(key).is_ok_and(|decoded| decoded.len() == KEY_BYTES))
            .ok_or(Refused::Malformed("Sec-WebSocket-Key is missing or malformed"))?;
        Ok(Self { accept: Some(accept(key)), deflate: deflate(head, compress)? })
    }

    /// Checks a handshake over HTTP/2: an extended CONNECT (RFC 8441, 5), which has neither key nor Upgrade.
    pub fn over_h2(head: &RequestHead, compress: bool) -> Result<Self, Refused> {
        check_version(head)?;
        Ok(Self { accept: None, deflate: deflate(head, compress)? })
    }

    /// The fields of the answer that opens a WebSocket of an upstream: the server's but for those of the connection. Subprotocol and
    /// extensions are between it and the client, who speaks with it.
    pub fn tunnel_fields(&self, server: &Headers) -> Headers {
        let mut fields = Headers::default();
        let is_agreed =
            |name: &[u8]| AGREED.iter().any(|agreed| name.eq_ignore_ascii_case(agreed.as_bytes()));
        for (name, value) in server.iter() {
            if is_agreed(name) || !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes())) {
                fields.push(name, value);
            }
        }
        if let Some(accept) = &self.accept {
            fields.push(b"Sec-WebSocket-Accept", accept.as_bytes());
        }
        fields
    }

    /// The fields of the answer that opens the WebSocket: the app's and ours, but for those of the connection.
    ///
    /// The app may choose one of the subprotocols that the client offered; a client must fail the connection on another
    /// (RFC 6455, 4.1), so that one is left out. `dropped` is told of it.
    pub fn fields(&self, app: &Headers, head: &RequestHead, dropped: impl FnOnce(&[u8])) -> Headers {
        let mut fields = Headers::default();
        for (name, value) in app.iter() {
            if !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes())) {
                fields.push(name, value);
            }
        }
        if let Some(chosen) = app.get("sec-websocket-protocol") {
            let mut offered = head.headers.all("sec-websocket-protocol").flat_map(elements);
            if offered.any(|offer| offer == chosen) {
                fields.push(b"Sec-WebSocket-Protocol", chosen);
            } else {
                dropped(chosen);
            }
        }
        if let Some(agreed) = self.deflate {
            fields.push(b"Sec-WebSocket-Extensions", agreed.answer().as_bytes());
        }
        if let Some(accept) = &self.accept {
            fields.push(b"Sec-WebSocket-Accept", accept.as_bytes());
        }
        fields
    }
}

/// The value of a field that must be there once.
fn only<'a>(head: &'a RequestHead, name: &'a str) -> Option<&'a [u8]> {
    let mut values = head.headers.all(name);
    values.next().filter(|_| values.next().is_none())
}

fn check_version(head: &RequestHead) -> Result<(), Refused> {
    match only(head, "sec-websocket-version") {
        Some(VERSION) => Ok(()),
        Some(other) if !other.is_empty() && other.len() <= 3 && other.iter().all(u8::is_ascii_digit) => {
            Err(Refused::Version)
        }
        _ => Err(Refused::Malformed("Sec-WebSocket-Version is missing or malformed")),
    }
}

fn deflate(head: &RequestHead, compress: bool) -> Result<Option<Agreed>, Refused> {
    // Several fields are one list (RFC 6455, 9.1).
    let offers = head.headers.all("sec-websocket-extensions").collect::<Vec<_>>().join(&b',');
    let agreed = Agreed::first_of(&offers).map_err(Refused::Malformed)?;
    Ok(agreed.filter(|_| compress))
}

/// RFC 6455, 4.2.2, 5.4. SHA-1 guards nothing here: it shows that the server has understood.
pub(crate) fn accept(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "Host: a|Upgrade: websocket|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|Sec-WebSocket-Version: 13";

    fn head(method: &str, fields: &str) -> RequestHead {
        let mut headers = Headers::default();
        for field in fields.split('|').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once(": ").unwrap();
            headers.push_lower(name.as_bytes(), value.as_bytes());
        }
        let method = Method::from_bytes(method.as_bytes());
        RequestHead { method, target: b"/".to_vec(), version: Version::Http11, headers }
    }

    fn show(headers: &Headers) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        headers.iter().map(|(n, v)| format!("{}: {}", text(n), text(v))).collect::<Vec<_>>().join(" | ")
    }

    fn check(method: &str, fields: &str, body: BodyLength, expected: &str) {
        let seen = match Handshake::over_h1(&head(method, fields), body, true) {
            Ok(handshake) => show(&handshake.fields(&Headers::default(), &head("GET", ""), |_| ())),
            Err(refused) => format!("{:?}", refused.status()),
        };
        assert!(seen.contains(expected), "{fields}: {seen}");
    }

    #[test]
    fn what_asks_for_a_websocket() {
        let asks = |fields: &str| is_asked(&head("GET", fields), true);
        assert!(
            asks("Upgrade: websocket")
                && asks("Upgrade: h2c, WebSocket")
                && asks("Upgrade: x|Upgrade: websocket")
        );
        assert!(!asks("") && !asks("Upgrade: h2c") && !asks("Upgrade: websocket2"));
        assert!(!is_asked(&head("GET", "Upgrade: websocket"), false));
        let old = RequestHead { version: Version::Http10, ..head("GET", "Upgrade: websocket") };
        assert!(!is_asked(&old, true));
    }

    #[test]
    fn good_handshakes() {
        // The example of RFC 6455, 1.3.
        check("GET", GOOD, BodyLength::None, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        check("GET", GOOD, BodyLength::Known(0), "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let offer =
            format!("{GOOD}|Sec-WebSocket-Extensions: foo|Sec-WebSocket-Extensions: permessage-deflate");
        check("GET", &offer, BodyLength::None, "Sec-WebSocket-Extensions: permessage-deflate; server_no");
        assert_eq!(Handshake::over_h1(&head("GET", &offer), BodyLength::None, false).unwrap().deflate, None);
        let h2 = Handshake::over_h2(&head("GET", "Sec-WebSocket-Version: 13"), true).unwrap();
        assert_eq!(show(&h2.fields(&Headers::default(), &head("GET", ""), |_| ())), "");
    }

    #[test]
    fn bad_handshakes() {
        check("POST", GOOD, BodyLength::None, "(400, \"a WebSocket handshake is a GET\")");
        check("GET", GOOD, BodyLength::Known(1), "(400, \"a WebSocket handshake has no body\")");
        check("GET", GOOD, BodyLength::Unknown, "(400, \"a WebSocket handshake has no body\")");
        let version = |value: &str| GOOD.replace("Version: 13", value);
        for other in ["Version: 8", "Version: 0", "Version: 14", "Version: 255"] {
            check("GET", &version(other), BodyLength::None, "(426,");
        }
        for bad in [
            "Version: ",
            "Version: x",
            "Version: 1313",
            "Version: 13, 8",
            "Version: 13|Sec-WebSocket-Version: 13",
            "X: y",
        ] {
            check("GET", &version(bad), BodyLength::None, "(400, \"Sec-WebSocket-Version");
        }
        let key = |value: &str| GOOD.replace("Key: dGhlIHNhbXBsZSBub25jZQ==", value);
        for bad in [
            "Key: ",
            "Key: short",
            "Key: dGhlIHNhbXBsZSBub25jZQ",
            "Key: dGhlIHNhbXBsZSBub25jZQAA",
            "Key: ?GhlIHNhbXBsZSBub25jZQ==",
            "X: y",
            "Key: dGhlIHNhbXBsZSBub25jZQ==|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ] {
            check("GET", &key(bad), BodyLength::None, "(400, \"Sec-WebSocket-Key");
        }
        let offer = format!("{GOOD}|Sec-WebSocket-Extensions: a b");
        check("GET", &offer, BodyLength::None, "(400, \"Sec-WebSocket-Extensions is malformed\")");
        let mut said = Headers::default();
        Refused::Version.add_fields(&mut said);
        Refused::Malformed("x").add_fields(&mut said);
        assert_eq!(show(&said), "sec-websocket-version: 13 | upgrade: websocket");
    }

    #[test]
    fn an_upstreams_server_agrees_with_the_client_by_itself() {
        let handshake = Handshake::over_h1(&head("GET", GOOD), BodyLength::None, true).unwrap();
        let server = head(
            "GET",
            "Sec-WebSocket-Protocol: chat|Sec-WebSocket-Extensions: permessage-deflate|Set-Cookie: a|Connection: x|\
             Sec-WebSocket-Accept: theirs",
        );
        assert_eq!(
            show(&handshake.tunnel_fields(&server.headers)),
            "sec-websocket-protocol: chat | sec-websocket-extensions: permessage-deflate | set-cookie: a | \
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn the_answers_fields_are_the_apps_but_for_ours() {
        let handshake = Handshake { accept: None, deflate: None };
        let asked = head("GET", "Sec-WebSocket-Protocol: chat, superchat|Sec-WebSocket-Protocol: third");
        let app = head(
            "GET",
            "Set-Cookie: a|Set-Cookie: b|Connection: x|Upgrade: y|Content-Length: 3|Sec-WebSocket-Accept: z",
        );
        assert_eq!(
            show(&handshake.fields(&app.headers, &asked, |_| panic!("none"))),
            "set-cookie: a | set-cookie: b"
        );
        for offered in ["chat", "superchat", "third"] {
            let app = head("GET", &format!("Sec-WebSocket-Protocol: {offered}"));
            let seen = show(&handshake.fields(&app.headers, &asked, |_| panic!("it was offered")));
            assert_eq!(seen, format!("Sec-WebSocket-Protocol: {offered}"));
        }
        for other in ["Chat", "chat, superchat", "", "fourth"] {
            let app = head("GET", &format!("Sec-WebSocket-Protocol: {other}"));
            let mut told = None;
            assert_eq!(show(&handshake.fields(&app.headers, &asked, |it| told = Some(it.to_vec()))), "");
            assert_eq!(told.as_deref(), Some(other.as_bytes()));
        }
    }
}
