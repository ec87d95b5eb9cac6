//! What every protocol agrees on: request heads, bodies, responses, and the service between them.
//!
//! A protocol driver (`h1`, `h2`) turns bytes into a [`RequestHead`] and a [`RequestBody`], calls the
//! [`Service`], and writes the [`Response`]. The service knows no protocol, the drivers no policy.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use py_link::Local;

pub use py_link::Version;

use crate::pace::Bandwidth;
use crate::request_body::Payload;
use crate::request_id::RequestId;
use crate::spool::BodyStream;

/// Header fields in order, in one buffer, each as the line of HTTP/1.1 that it is; repeated names stay apart.
///
/// Request names are lower case. Response names keep the app's letters (HTTP/2 lowers them on the way out).
#[derive(Clone, Default)]
pub struct Headers {
    buffer: Vec<u8>,
    fields: Vec<Place>,
    /// The first so many hold nothing that a line may not.
    vouched: usize,
}

/// Where a field lies: `name: value\r\n`.
#[derive(Clone, Copy)]
struct Place {
    name: u32,
    colon: u32,
    end: u32,
}

/// A field as it is written.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    /// With all that belongs to it on the wire, the line's end too.
    pub(crate) whole: &'a [u8],
    /// Name and value have been checked; otherwise they may be anything.
    pub(crate) is_vouched: bool,
}

const COLON: &[u8; 2] = b": ";
const LINE_END: &[u8; 2] = b"\r\n";

impl Headers {
    /// Room for `fields` fields of `bytes` bytes in all.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        let lines = fields * (COLON.len() + LINE_END.len());
        Self { buffer: Vec::with_capacity(bytes + lines), fields: Vec::with_capacity(fields), vouched: 0 }
    }

    /// Appends a field.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.buffer.len() as u32;
        self.buffer.reserve(name.len() + COLON.len() + value.len() + LINE_END.len());
        self.buffer.extend_from_slice(name);
        let colon = self.buffer.len() as u32;
        self.buffer.extend_from_slice(COLON);
        self.buffer.extend_from_slice(value);
        self.buffer.extend_from_slice(LINE_END);
        self.fields.push(Place { name: start, colon, end: self.buffer.len() as u32 });
    }

    /// Appends a field, its name in lower case.
    pub fn push_lower(&mut self, name: &[u8], value: &[u8]) {
        let start = self.buffer.len();
        self.push(name, value);
        if let Some(name) = self.buffer.get_mut(start..start + name.len()) {
            name.make_ascii_lowercase();
        }
    }

    /// All fields so far are known to hold nothing that a line may not.
    pub(crate) fn vouch(&mut self) {
        self.vouched = self.fields.len();
    }

    fn slice(&self, from: u32, to: u32) -> &[u8] {
        self.buffer.get(from as usize..to as usize).unwrap_or_default()
    }

    fn value(&self, Place { colon, end, .. }: Place) -> &[u8] {
        self.slice(colon + COLON.len() as u32, end - LINE_END.len() as u32)
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Place> + 'a {
        let is = |place: &Place| {
            (place.colon - place.name) as usize == name.len()
                && self.slice(place.name, place.colon).eq_ignore_ascii_case(name.as_bytes())
        };
        self.fields.iter().filter(move |place| is(place)).copied()
    }

    fn line(&self, index: usize, place: Place) -> Line<'_> {
        let Place { name, colon, end } = place;
        Line {
            name: self.slice(name, colon),
            value: self.value(place),
            whole: self.slice(name, end),
            is_vouched: index < self.vouched,
        }
    }

    /// All fields as they are written.
    pub(crate) fn lines(&self) -> impl ExactSizeIterator<Item = Line<'_>> {
        self.fields.iter().enumerate().map(|(index, place)| self.line(index, *place))
    }

    /// All fields: name, value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.lines().map(|line| (line.name, line.value))
    }

    /// The values of every field with this name, in order; letter case does not matter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.named(name).map(|place| self.value(place))
    }

    /// The value of the first field with this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.named(name).next().map(|place| self.value(place))
    }

    /// Is there such a field?
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Removes every field whose name `unwanted` accepts.
    pub fn remove(&mut self, unwanted: impl Fn(&[u8]) -> bool) {
        let Self { buffer, fields, vouched } = self;
        let (mut index, mut gone) = (0, 0);
        fields.retain(|place| {
            let keeps = !unwanted(buffer.get(place.name as usize..place.colon as usize).unwrap_or_default());
            gone += usize::from(!keeps && index < *vouched);
            index += 1;
            keeps
        });
        *vouched -= gone;
    }

    /// Sets a field to one value, at the end.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(|n| n.eq_ignore_ascii_case(name.as_bytes()));
        self.push(name.as_bytes(), value);
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// No field?
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v))))
            .finish()
    }
}

/// A request method (RFC 9110, 9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// PATCH
    Patch,
    /// TRACE
    Trace,
    /// Any other token.
    Other(Box<[u8]>),
}

impl Method {
    /// From the bytes on the wire; methods are case-sensitive.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match bytes {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"TRACE" => Self::Trace,
            other => Self::Other(other.into()),
        }
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Get => b"GET",
            Self::Head => b"HEAD",
            Self::Post => b"POST",
            Self::Put => b"PUT",
            Self::Delete => b"DELETE",
            Self::Options => b"OPTIONS",
            Self::Patch => b"PATCH",
            Self::Trace => b"TRACE",
            Self::Other(bytes) => bytes,
        }
    }

    /// May the request be sent twice with the effect of once? (RFC 9110, 9.2.2)
    pub fn is_idempotent(&self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

/// A request before its body. Framing headers have been checked and obeyed by the protocol.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Origin form: path and query as sent (`/a%20b?x=1`), or `*`. An absolute-form target has been reduced
    /// to it and its authority put in place of Host.
    pub target: Vec<u8>,
    /// The client's protocol.
    pub version: Version,
    /// Lower-case names. Over HTTP/2 `:authority` is here as `host`, cookie crumbs are joined.
    pub headers: Headers,
}

impl RequestHead {
    /// The path part of the target, still percent-encoded.
    pub fn path(&self) -> &[u8] {
        self.target.split(|&b| b == b'?').next().unwrap_or_default()
    }
}

/// How much body a request announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// No body.
    None,
    /// Content-Length.
    Known(u64),
    /// Chunked, or HTTP/2 without a length.
    Unknown,
}

/// Why a request body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client closed or reset.
    #[error("the client went away")]
    Gone,
    /// The client broke the framing: 400 and close.
    #[error("the body is malformed")]
    Malformed,
    /// Nothing came for the body timeout: 408 and close.
    #[error("the client was too slow")]
    Timeout,
    /// Over `limits.body_max`, noticed while it came: 413 and close. (The service checks the bound; protocols
    /// never return it.)
    #[error("the body is too large")]
    TooLarge,
}

/// The body of a request as the service pulls it from the protocol.
pub trait RequestBody: Send {
    /// What was announced.
    fn length(&self) -> BodyLength;

    /// The next piece; `None` at the end. Cancel safe. Sends `100 Continue` first where the client waits for it,
    /// and obeys the body timeout between pieces.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, BodyError>> + Send;

    /// Resolves when the client is gone (end of file or reset). Call it after the end of the body, while
    /// waiting for a slot or an answer. Cancel safe; pending for ever where the protocol drops the service instead.
    fn closed(&mut self) -> impl Future<Output = ()> + Send;

    /// All of it, where somebody has read it already.
    fn gathered(&mut self) -> Option<Payload> {
        None
    }

    /// Sends an informational response (103 Early Hints, RFC 8297) before the final one, to clients that understand it (not
    /// HTTP/1.0); what cannot be sent at once is dropped.
    fn inform(&mut self, status: u16, headers: &Headers) -> impl Future<Output = ()> + Send {
        let _ = (status, headers);
        async {}
    }
}

/// Who is at the other end of a connection, before forwarded headers are heard. By default somebody on a unix socket, without TLS.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// The peer: from the socket, or from a trusted PROXY protocol header. `None` for a unix socket.
    pub peer: Option<SocketAddr>,
    /// The socket's own peer was trusted and is a unix socket or a proxy: its forwarded headers may be heard.
    pub peer_is_trusted: bool,
    /// Our address, as the connection has it, or as a trusted PROXY protocol header has told.
    pub local: Option<Local<'static>>,
    /// TLS ends here (or the PROXY header said so).
    pub tls: bool,
    /// What was negotiated, when TLS ends here.
    pub tls_facts: Option<py_link::Tls>,
    /// Who the client is by its certificate, when TLS ends here and it has shown one.
    pub certificate: Option<Arc<crate::tls::ClientCertificate>>,
}

/// A range of a file as a body.
#[derive(Debug, Clone)]
pub struct FileBody {
    /// The file; read with offsets only, so it can be shared.
    pub file: Arc<File>,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// The body of a response.
#[derive(Debug)]
pub enum Body {
    /// No bytes.
    Empty,
    /// All of it in memory.
    Bytes(Bytes),
    /// A range of a file; `sendfile` where the transport can.
    File(FileBody),
    /// Comes from a worker as it is made; see [`BodyStream`].
    Stream(BodyStream),
}

impl Body {
    /// Bytes, when known before it is sent.
    pub fn known_len(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(file) => Some(file.len),
            Self::Stream(_) => None,
        }
    }
}

/// The status of a response that is not sent: the driver closes the connection (of HTTP/2: resets the stream) without a word.
/// nginx's number for it, so that it is known in logs. Only where the gateway itself answers: see [`Response::is_silence`].
pub const NO_ANSWER: u16 = 444;

/// A response on its way to a protocol driver.
///
/// `headers` hold no hop-by-hop fields (Connection, Transfer-Encoding, …): the driver frames the body. A
/// `content-length` in them is the app's word and is kept (the driver checks the body against it and breaks the
/// connection when it lies). Where it is missing the driver adds it if [`Body::known_len`] is known. `date` and
/// `server` are added by the driver when missing.
#[derive(Debug)]
pub struct Response {
    /// 200 … 599.
    pub status: u16,
    /// The app's reason phrase; empty: the standard one.
    pub reason: Box<[u8]>,
    /// See above.
    pub headers: Headers,
    /// The body. For HEAD the service may leave it as for GET: the driver does not send it, and drops it.
    pub body: Body,
    /// Close the connection after this response (errors of framing, 408, 413, drain).
    pub close: bool,
    /// For the access log.
    pub trail: Trail,
}

impl Response {
    /// Nothing is to be sent. (An app may answer 444 if it likes; that is sent.)
    pub fn is_silence(&self) -> bool {
        self.status == NO_ANSWER && self.trail.by == AnsweredBy::Gateway
    }
}

/// What happened to a request on its way, for the access log and metrics.
#[derive(Debug, Clone)]
pub struct Trail {
    /// When the head was complete.
    pub started: Instant,
    /// The request id; empty when none was made yet.
    pub request_id: RequestId,
    /// The true client address; `None`: a unix socket.
    pub client: Option<IpAddr>,
    /// Who answered.
    pub by: AnsweredBy,
    /// Time in the queue.
    pub queue_wait: Duration,
    /// `quintet dev`: what the worker told of its database.
    pub queries: Option<Queries>,
    /// A worker or another server may have begun to work on it.
    pub begun: bool,
    /// A WebSocket or an event stream: how long it took says nothing of how fast the app is.
    pub lasts: bool,
    /// The route that took it.
    pub route: Option<Arc<Taken>>,
}

/// The route that took a request: its name, and what it says of how answers are sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Its name, or its number.
    pub name: Box<str>,
    /// Whether answers are compressed, where that is not as elsewhere.
    pub compress: Option<bool>,
    /// How fast they are sent, where that is not as elsewhere.
    pub bandwidth: Option<Bandwidth>,
}

/// A request's database queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queries {
    /// How many.
    pub count: u32,
    /// How long they took together.
    pub time: Duration,
    /// How often the most frequent one was made, whatever its parameters.
    pub repeated: u32,
}

impl Queries {
    /// From the value of [`ctl_admin::words::QUERIES_FIELD`].
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(value).ok()?.split(';').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let (count, micros) = (next()?, next()?);
        let repeated = next().unwrap_or_default();
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Some(Self { count: small(count), time: Duration::from_micros(micros), repeated: small(repeated) })
    }
}

/// Who answered a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The app, in this worker.
    Worker(u32),
    /// A static or media file.
    File,
    /// A server of an upstream.
    Upstream,
    /// The gateway itself: errors, health.
    Gateway,
}

impl AnsweredBy {
    /// The label in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Worker(_) => "app",
            Self::File => "file",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        }
    }
}

/// What a protocol driver tells the service when a response has been sent, or has failed to be.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The connection.
    pub connection: &'a Connection,
    /// The request; `None` when it could not be parsed.
    pub head: Option<&'a RequestHead>,
    /// Status sent.
    pub status: u16,
    /// Body bytes sent.
    pub body_bytes_sent: u64,
    /// All of the response was handed to the kernel.
    pub complete: bool,
    /// From the response.
    pub trail: &'a Trail,
}

/// The way of one request between the protocol and the worker.
pub trait Service: Send + Sync + 'static {
    /// Before anything is read: is a connection from this peer to be turned away?
    fn turns_away(&self, peer: SocketAddr) -> Option<crate::guard::Turned> {
        let _ = peer;
        None
    }

    /// Answers a request. Never fails: errors are responses. Dropping the future gives everything back.
    fn call<B: RequestBody>(
        &self,
        connection: &Connection,
        head: &RequestHead,
        body: &mut B,
    ) -> impl Future<Output = Response> + Send;

    /// Answers a WebSocket handshake that the protocol has found good. Once it is over the driver calls
    /// [`Service::finished`], with status 101.
    fn websocket(
        &self,
        connection: &Connection,
        head: &RequestHead,
    ) -> impl Future<Output = crate::websocket::Answer> + Send {
        let _ = head;
        async { crate::websocket::Answer::Refused(self.refuse(connection, 400, "no WebSockets here")) }
    }

    /// The answer for a request that the protocol itself refuses (400, 408, 414, 431, 505, 501): `why` is for the log and,
    /// being free of the client's bytes, for the client.
    fn refuse(&self, connection: &Connection, status: u16, why: &'static str) -> Response;

    /// Called once for each response, after its last byte.
    fn finished(&self, exchange: &Exchange<'_>);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(headers: &Headers) -> String {
        let word = |line: Line<'_>| {
            assert_eq!(line.whole, [line.name, b": ", line.value, b"\r\n"].concat());
            format!(
                "{}{}",
                String::from_utf8_lossy(line.whole).trim_end(),
                if line.is_vouched { "" } else { "?" }
            )
        };
        headers.lines().map(word).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn fields_are_lines_and_only_those_that_were_checked_are_vouched_for() {
        let mut headers = Headers::with_capacity(2, 4);
        headers.push(b"A", b"1");
        headers.push_lower(b"B-C", b"X");
        headers.push(b"D", b"");
        headers.vouch();
        headers.push(b"E", b"2");
        assert_eq!(show(&headers), "A: 1 | b-c: X | D: | E: 2?");
        headers.remove(|name| name == b"A" || name == b"E");
        assert_eq!(show(&headers), "b-c: X | D:");
        headers.set("D", b"y");
        headers.push(b"F", b"z");
        assert_eq!(show(&headers), "b-c: X | D: y? | F: z?");
        assert_eq!((headers.len(), headers.get("B-C"), headers.contains("a")), (3, Some(&b"X"[..]), false));
    }
}
