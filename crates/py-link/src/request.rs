//! A request on its way to a worker.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use crate::LinkError;
use crate::certificate::{ClientAuth, put_client, read_client};
use crate::frame::{Flags, HEADER_BYTES, Kind, encode_header};
use crate::wire::{Reader, put_long, put_short};

/// `wsgi.url_scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scheme {
    /// Clear text.
    Http = 0,
    /// TLS, at us or at a trusted proxy before us.
    Https = 1,
}

/// `SERVER_PROTOCOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Version {
    /// HTTP/1.0
    Http10 = 10,
    /// HTTP/1.1
    Http11 = 11,
    /// HTTP/2
    Http2 = 20,
    /// HTTP/3
    Http3 = 30,
}

/// What the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exchange {
    /// A response; only on a slot.
    Http = 0,
    /// A WebSocket (RFC 6455, RFC 8441); only on a long link.
    WebSocket = 1,
}

/// The TLS of the client's connection, where it ends at the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tls {
    /// As on the wire: 0x0303 is TLS 1.2, 0x0304 is TLS 1.3.
    pub version: u16,
    /// The cipher suite's number (IANA).
    pub cipher_suite: u16,
}

/// Where a client's connection came in: the address we listen on, as the connection has it. The Host field is the client's
/// word for it, this is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local<'a> {
    /// Over TCP.
    Inet(SocketAddr),
    /// The path of a unix socket.
    Unix(Cow<'a, [u8]>),
}

/// Where the request body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// There is none.
    None,
    /// All of it, here.
    Inline(&'a [u8]),
    /// In the file whose descriptor came with the frame, from offset 0.
    File {
        /// Bytes of the body.
        len: u64,
    },
    /// In `RequestBody` frames that follow.
    Stream {
        /// Bytes, when the client said how many.
        len: Option<u64>,
    },
}

/// A request as it lies in the payload; borrows from it.
#[derive(Clone)]
pub struct Request<'a> {
    /// The request id, made or kept by the gateway; visible ASCII.
    pub id: &'a [u8],
    /// The method, as sent.
    pub method: &'a [u8],
    /// The target in origin form, as sent: path and query, still percent-encoded. `*` for OPTIONS.
    pub target: &'a [u8],
    /// Where the app is mounted (`SCRIPT_NAME`), not percent-encoded; usually empty.
    pub mount: &'a [u8],
    /// True scheme, after trusted proxies were heard.
    pub scheme: Scheme,
    /// Protocol of the client's connection.
    pub version: Version,
    /// `SERVER_NAME`: host part of the true host.
    pub server_name: &'a [u8],
    /// `SERVER_PORT`.
    pub server_port: u16,
    /// Where the connection came in; `None`: nobody knows.
    pub local: Option<Local<'a>>,
    /// `REMOTE_ADDR`: the true address of the client as text; empty for a unix socket.
    pub remote_addr: &'a [u8],
    /// `REMOTE_PORT`; 0 when unknown.
    pub remote_port: u16,
    /// What the client wants.
    pub exchange: Exchange,
    /// `None`: clear text, or TLS that ends at a proxy before us.
    pub tls: Option<Tls>,
    /// Who the client is by its certificate.
    pub client: ClientAuth<'a>,
    headers: Reader<'a>,
    header_count: u16,
    /// Where the body is.
    pub body: Body<'a>,
}

impl<'a> Request<'a> {
    /// Decodes the payload of a [`Kind::Request`] frame.
    pub fn decode(payload: &'a [u8]) -> Result<Self, LinkError> {
        let mut reader = Reader::new(payload, "request");
        let id = reader.short()?;
        let method = reader.short()?;
        let target = reader.long()?;
        let mount = reader.short()?;
        let scheme = match reader.u8()? {
            0 => Scheme::Http,
            1 => Scheme::Https,
            _ => return Err(reader.malformed()),
        };
        let version = match reader.u8()? {
            10 => Version::Http10,
            11 => Version::Http11,
            20 => Version::Http2,
            30 => Version::Http3,
            _ => return Err(reader.malformed()),
        };
        let server_name = reader.short()?;
        let server_port = reader.u16()?;
        let local = read_local(&mut reader)?;
        let remote_addr = reader.short()?;
        let remote_port = reader.u16()?;
        let exchange = match reader.u8()? {
            0 => Exchange::Http,
            1 => Exchange::WebSocket,
            _ => return Err(reader.malformed()),
        };
        let (version_of_tls, cipher_suite) = (reader.u16()?, reader.u16()?);
        if version_of_tls == 0 && cipher_suite != 0 {
            return Err(reader.malformed());
        }
        let tls = (version_of_tls != 0).then_some(Tls { version: version_of_tls, cipher_suite });
        let client = read_client(&mut reader)?;
        let header_count = reader.u16()?;
        let headers = reader.clone();
        for _ in 0..header_count {
            reader.short()?;
            reader.long()?;
        }
        let body = match reader.u8()? {
            0 => Body::None,
            1 => Body::Inline(reader.rest()),
            2 => Body::File { len: reader.u64()? },
            3 => Body::Stream { len: Some(reader.u64()?).filter(|&len| len != u64::MAX) },
            _ => return Err(reader.malformed()),
        };
        Ok(Self {
            id,
            method,
            target,
            mount,
            scheme,
            version,
            server_name,
            server_port,
            local,
            remote_addr,
            remote_port,
            exchange,
            tls,
            client,
            headers,
            header_count,
            body,
        })
    }

    /// Header fields in the client's order: lower-case name, value. Repeated names stay apart.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut reader = self.headers.clone();
        // `decode` has walked all of them, so no read fails here.
        (0..self.header_count).map_while(move |_| Some((reader.short().ok()?, reader.long().ok()?)))
    }
}

/// Writes one request frame into a buffer, field by field in wire order; the last call is [`Self::body`].
///
/// The head must stay below [`crate::PAYLOAD_BYTES_MAX`] with the inline body; the gateway's header
/// limits see to that.
pub struct RequestWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    count_at: usize,
    count: u16,
}

/// The fields before the headers, for [`RequestWriter::start`].
pub struct RequestStart<'a> {
    /// See [`Request::id`].
    pub id: &'a [u8],
    /// See [`Request::method`].
    pub method: &'a [u8],
    /// See [`Request::target`].
    pub target: &'a [u8],
    /// See [`Request::mount`].
    pub mount: &'a [u8],
    /// See [`Request::scheme`].
    pub scheme: Scheme,
    /// See [`Request::version`].
    pub version: Version,
    /// See [`Request::server_name`].
    pub server_name: &'a [u8],
    /// See [`Request::server_port`].
    pub server_port: u16,
    /// See [`Request::local`].
    pub local: Option<&'a Local<'a>>,
    /// See [`Request::remote_addr`].
    pub remote_addr: &'a [u8],
    /// See [`Request::remote_port`].
    pub remote_port: u16,
    /// See [`Request::exchange`].
    pub exchange: Exchange,
    /// See [`Request::tls`].
    pub tls: Option<Tls>,
    /// See [`Request::client`].
    pub client: ClientAuth<'a>,
}

impl<'a> RequestWriter<'a> {
    /// Appends the header of the frame and the first fields to `out`.
    pub fn start(out: &'a mut Vec<u8>, head: &RequestStart<'_>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        put_short(out, head.id);
        put_short(out, head.method);
        put_long(out, head.target);
        put_short(out, head.mount);
        out.push(head.scheme as u8);
        out.push(head.version as u8);
        put_short(out, head.server_name);
        out.extend_from_slice(&head.server_port.to_le_bytes());
        put_local(out, head.local);
        put_short(out, head.remote_addr);
        out.extend_from_slice(&head.remote_port.to_le_bytes());
        out.push(head.exchange as u8);
        let tls = head.tls.unwrap_or(Tls { version: 0, cipher_suite: 0 });
        out.extend_from_slice(&tls.version.to_le_bytes());
        out.extend_from_slice(&tls.cipher_suite.to_le_bytes());
        put_client(out, &head.client);
        let count_at = out.len();
        out.extend_from_slice(&[0; 2]);
        Self { out, start, count_at, count: 0 }
    }

    /// Appends a header; `name` in lower case.
    pub fn header(&mut self, name: &[u8], value: &[u8]) {
        put_short(self.out, name);
        put_long(self.out, value);
        self.count = self.count.saturating_add(1);
    }

    /// Appends the body and completes the frame. With [`Body::File`] the caller sends the descriptor along.
    pub fn body(self, body: Body<'_>) {
        let out = self.out;
        match body {
            Body::None => out.push(0),
            Body::Inline(bytes) => {
                out.push(1);
                out.extend_from_slice(bytes);
            }
            Body::File { len } => {
                out.push(2);
                out.extend_from_slice(&len.to_le_bytes());
            }
            Body::Stream { len } => {
                out.push(3);
                out.extend_from_slice(&len.unwrap_or(u64::MAX).to_le_bytes());
            }
        }
        let payload_bytes = (out.len() - self.start - HEADER_BYTES) as u32;
        let header = encode_header(Kind::Request, Flags::NONE, payload_bytes);
        if let Some(slot) = out.get_mut(self.start..self.start + HEADER_BYTES) {
            slot.copy_from_slice(&header);
        }
        if let Some(slot) = out.get_mut(self.count_at..self.count_at + 2) {
            slot.copy_from_slice(&self.count.to_le_bytes());
        }
    }
}

/// The kinds of [`Local`] on the wire: the version of the Internet protocol; 1 for a path.
const LOCAL_UNKNOWN: u8 = 0;
const LOCAL_UNIX: u8 = 1;
const LOCAL_V4: u8 = 4;
const LOCAL_V6: u8 = 6;

/// As bytes, not as text: whoever reads it has mostly seen the same before, and need not make it anew.
fn put_local(out: &mut Vec<u8>, local: Option<&Local<'_>>) {
    match local {
        None => out.push(LOCAL_UNKNOWN),
        Some(Local::Unix(path)) => {
            out.push(LOCAL_UNIX);
            put_short(out, path);
        }
        Some(Local::Inet(address)) => {
            match address.ip() {
                IpAddr::V4(ip) => {
                    out.push(LOCAL_V4);
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(LOCAL_V6);
                    out.extend_from_slice(&ip.octets());
                }
            }
            out.extend_from_slice(&address.port().to_le_bytes());
        }
    }
}

fn read_local<'a>(reader: &mut Reader<'a>) -> Result<Option<Local<'a>>, LinkError> {
    let ip: IpAddr = match reader.u8()? {
        LOCAL_UNKNOWN => return Ok(None),
        LOCAL_UNIX => return Ok(Some(Local::Unix(Cow::Borrowed(reader.short()?)))),
        LOCAL_V4 => reader.array::<4>()?.into(),
        LOCAL_V6 => reader.array::<16>()?.into(),
        _ => return Err(reader.malformed()),
    };
    Ok(Some(Local::Inet(SocketAddr::new(ip, reader.u16()?))))
}
