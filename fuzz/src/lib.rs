//! What is asserted of every input: the bodies of the fuzz targets.
//!
//! They are plain functions so that two may call them: cargo-fuzz (`fuzz_targets/`), for as long as one likes, and
//! `crates/http-gateway/tests/fuzz_short.rs`, which includes this file and runs them briefly on a stable toolchain.

use bytes::BytesMut;
use http_gateway::client::{TrustedProxies, identify, is_for_the_app};
use http_gateway::h1::chunked::{ChunkedDecoder, Malformed};
use http_gateway::h1::parse::{HeadLimits, HeadParser, Parsed, Refusal};
use http_gateway::message::{BodyLength, Connection, Headers};
use http_gateway::proxy_protocol;
use http_gateway::upstream::body::BodyDecoder;
use http_gateway::upstream::parse::{Answer, AnswerParser, Asked, BadAnswer, Framing};
use http_gateway::websocket::MessageType;
use http_gateway::websocket::close::{Violation, may_be_sent};
use http_gateway::websocket::decode::{Decoder, Event};
use http_gateway::websocket::deflate::Agreed;
use py_link::{Flags, Kind, Request, RequestStart, RequestWriter, ResponseFile, ResponseHead};

/// Small, so that short inputs reach them.
const LIMITS: HeadLimits = HeadLimits { line_bytes_max: 100, fields_bytes_max: 400, fields_max: 12 };

/// The first byte says where the rest is cut in two.
fn cut(data: &[u8]) -> (&[u8], usize) {
    let (&at, rest) = data.split_first().unwrap_or((&0, &[]));
    (rest, usize::from(at).min(rest.len()))
}

fn read_head(parser: &mut HeadParser, input: &[u8]) -> Result<Option<(Parsed, usize)>, Refusal> {
    parser.advance(input, &LIMITS)
}

fn facts(outcome: &Result<Option<(Parsed, usize)>, Refusal>) -> String {
    match outcome {
        Ok(Some((parsed, bytes))) => format!("{parsed:?} {bytes}"),
        other => format!("{:?}", other.as_ref().map(|_| ())),
    }
}

/// A head: cut in two it is read as in one; what is accepted is unambiguous, and reads the same when written again.
pub fn head(data: &[u8]) {
    let (input, at) = cut(data);
    let whole = read_head(&mut HeadParser::new(), input);
    let mut parser = HeadParser::new();
    let in_two = match read_head(&mut parser, &input[..at]) {
        Ok(None) => read_head(&mut parser, input),
        done => done,
    };
    assert_eq!(facts(&whole), facts(&in_two));
    let Ok(Some((parsed, bytes))) = whole else { return };

    assert!(bytes <= input.len());
    let headers = &parsed.head.headers;
    assert!(headers.len() <= LIMITS.fields_max + 1);
    assert!(headers.all("host").count() <= 1);
    assert!(headers.all("content-length").count() <= 1);
    assert!(!headers.contains("transfer-encoding"));
    assert_eq!(headers.contains("content-length"), matches!(parsed.body, BodyLength::Known(_)));
    for (name, value) in headers.iter() {
        assert!(!name.is_empty() && name.iter().all(|&b| b > b' ' && b < 0x7f && b != b':' && b != b'_'));
        assert!(!name.iter().any(u8::is_ascii_uppercase));
        assert!(!value.iter().any(|&b| matches!(b, b'\r' | b'\n' | b'\0')));
    }
    assert!(parsed.head.target.first().is_some_and(|&b| b == b'/' || b == b'*'));
    assert!(parsed.head.target.iter().all(|&b| b > b' ' && b < 0x7f));

    let again = write_head(&parsed);
    let read = read_head(&mut HeadParser::new(), &again);
    let Ok(Some((read, bytes))) = read else { panic!("{read:?} of {:?}", String::from_utf8_lossy(&again)) };
    assert_eq!((format!("{parsed:?}"), again.len()), (format!("{read:?}"), bytes));
}

fn write_head(parsed: &Parsed) -> Vec<u8> {
    let head = &parsed.head;
    let version = if head.version as u8 == 10 { "1.0" } else { "1.1" };
    let mut out =
        [head.method.as_bytes(), b" ", &head.target, b" HTTP/", version.as_bytes(), b"\r\n"].concat();
    for (name, value) in head.headers.iter() {
        out.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
    }
    if parsed.body == BodyLength::Unknown {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A chunked body: cut in two it is read as in one, and its data is never longer than its wire.
pub fn chunked(data: &[u8]) {
    let (input, at) = cut(data);
    let mut whole = ChunkedDecoder::new();
    let mut out = BytesMut::new();
    let used = whole.decode(input, &mut out);
    assert!(out.len() <= input.len());

    let mut halves = ChunkedDecoder::new();
    let mut out_of_two = BytesMut::new();
    let used_of_two = halves.decode(&input[..at], &mut out_of_two).and_then(|first| {
        let second = halves.decode(&input[at..], &mut out_of_two)?;
        Ok::<_, Malformed>(first + second)
    });
    assert_eq!(used, used_of_two);
    assert_eq!(out, out_of_two);
    if let Ok(used) = used {
        assert_eq!(whole.is_done(), halves.is_done());
        assert!(used == input.len() || whole.is_done());
    }
}

/// What an upstream says: cut in two it is read as in one; a head that is accepted has one framing and nothing that is of the
/// connection only, and reads the same when written again; its body is never longer than its wire.
pub fn answer(data: &[u8]) {
    let (&kind, data) = data.split_first().unwrap_or((&0, &[]));
    let asked = Asked { head_only: kind & 1 == 1, upgrade: kind & 2 == 2 };
    let (input, at) = cut(data);
    let whole = AnswerParser::new().advance(input, asked);
    let mut parser = AnswerParser::new();
    let in_two = match parser.advance(&input[..at], asked) {
        Ok(None) => parser.advance(input, asked),
        done => done,
    };
    assert_eq!(answer_facts(&whole), answer_facts(&in_two));
    let Ok(Some((answer, bytes))) = whole else { return };

    assert!(bytes <= input.len() && (100..=599).contains(&answer.status));
    let headers = &answer.headers;
    assert!(headers.all("content-length").count() <= 1);
    for gone in
        ["transfer-encoding", "connection", "keep-alive", "proxy-connection", "upgrade", "trailer", "te"]
    {
        assert!(!headers.contains(gone));
    }
    for (name, value) in headers.iter() {
        assert!(!name.is_empty() && name.iter().all(|&b| b > b' ' && b < 0x7f && b != b':'));
        assert!(!value.iter().any(|&b| matches!(b, b'\r' | b'\n' | b'\0')));
    }
    if asked.head_only || answer.status < 200 || matches!(answer.status, 204 | 304) {
        assert_eq!(answer.framing, Framing::Nothing);
    } else {
        assert_eq!(headers.contains("content-length"), matches!(answer.framing, Framing::Length(_)));
    }
    assert!(answer.status != 101 || (asked.upgrade && answer.websocket));
    assert!(answer.framing != Framing::UntilClose || !answer.keep_alive);

    let again = write_answer(&answer, asked);
    let read = AnswerParser::new().advance(&again, asked);
    let Ok(Some((read, bytes))) = read else { panic!("{read:?} of {:?}", String::from_utf8_lossy(&again)) };
    assert_eq!((format!("{answer:?}"), again.len()), (format!("{read:?}"), bytes));
    answer_body(answer.framing, input.get(bytes..).unwrap_or_default());
}

fn answer_facts(outcome: &Result<Option<(Answer, usize)>, BadAnswer>) -> String {
    format!("{outcome:?}")
}

fn write_answer(answer: &Answer, asked: Asked) -> Vec<u8> {
    let status = answer.status.to_string();
    let mut out = [b"HTTP/1.1 ", status.as_bytes(), b" ", &answer.reason[..], b"\r\n"].concat();
    for (name, value) in answer.headers.iter() {
        out.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
    }
    if answer.framing == Framing::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if answer.websocket {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
    }
    if !answer.keep_alive && (answer.framing != Framing::UntilClose || asked.head_only) {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn answer_body(framing: Framing, input: &[u8]) {
    let mut decoder = BodyDecoder::new(framing);
    let (mut data, mut used) = (0, 0);
    while used < input.len() && !decoder.is_done() {
        let Ok((piece, bytes)) = decoder.decode(&input[used..]) else { return };
        assert!(bytes > 0 || decoder.is_done());
        data += piece.len();
        used += bytes;
        drop(decoder.finish_chunks());
    }
    assert!(data <= used && used <= input.len());
    match framing {
        Framing::Nothing => assert_eq!(used, 0),
        Framing::Length(length) => assert!(used as u64 <= length),
        Framing::Chunked | Framing::UntilClose => {}
    }
}

/// A PROXY header: what a prefix says, the whole says, too.
pub fn proxy(data: &[u8]) {
    let (input, at) = cut(data);
    let whole = proxy_protocol::parse(input);
    let prefix = proxy_protocol::parse(&input[..at]);
    if prefix != Ok(None) {
        assert_eq!(prefix, whole);
    }
    match whole {
        Ok(Some((_, bytes))) => assert!(bytes <= input.len() && bytes <= proxy_protocol::HEADER_BYTES_MAX),
        Ok(None) => assert!(input.len() < proxy_protocol::HEADER_BYTES_MAX),
        Err(_) => {}
    }
}

/// Forwarded headers, one a line: an untrusted peer is never believed, and from a trusted one whatever comes is
/// survived.
pub fn client(data: &[u8]) {
    let names =
        ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded", "host"];
    let mut headers = Headers::default();
    for line in data.split(|&b| b == b'\n').take(20) {
        let (&which, value) = line.split_first().unwrap_or((&0, &[]));
        headers.push(names[usize::from(which) % names.len()].as_bytes(), value);
    }
    let trusted = TrustedProxies::parse(&["10.0.0.0/8", "unix"]).expect("both are well formed");
    for (peer, is_trusted) in [("10.0.0.1:1", true), ("192.0.2.1:1", false)] {
        let peer = peer.parse().expect("it is an address");
        let connection = Connection {
            peer: Some(peer),
            peer_is_trusted: is_trusted,
            local: None,
            tls: false,
            tls_facts: None,
            certificate: None,
        };
        let identity = identify(&connection, &headers, &trusted);
        assert!(identity.addr.is_some());
        if !is_trusted {
            assert!(identity.addr == Some(peer.ip()) && !identity.headers_heard);
            assert!(
                headers
                    .iter()
                    .all(|(name, _)| name == b"host" || !is_for_the_app(name, identity.headers_heard))
            );
        }
    }
}

/// Frames: whatever comes is survived, lengths are believed only where the bytes are there, and a request reads the
/// same when written again.
pub fn frames(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(frame)) = py_link::decode(rest) {
        assert!(frame.wire_bytes() <= rest.len());
        match frame.header.kind {
            Kind::Request => request(frame.payload),
            Kind::ResponseHead => response(frame.payload),
            Kind::ResponseFile => drop(ResponseFile::decode(frame.payload)),
            _ => {}
        }
        rest = &rest[frame.wire_bytes()..];
    }
    // The payloads alone, so that the header need not be found first.
    request(data);
    response(data);
}

fn response(payload: &[u8]) {
    let Ok(head) = ResponseHead::decode(payload) else { return };
    assert_eq!(head.headers().count(), head.header_count());
    let mut out = Vec::new();
    let fields: Vec<_> = head.headers().collect();
    py_link::encode_response_head(&mut out, head.status, head.reason, fields.into_iter());
    out.extend_from_slice(head.body);
    assert_eq!(out, payload);
}

fn request(payload: &[u8]) {
    let Ok(request) = Request::decode(payload) else { return };
    let start = RequestStart {
        id: request.id,
        method: request.method,
        target: request.target,
        mount: request.mount,
        scheme: request.scheme,
        version: request.version,
        server_name: request.server_name,
        server_port: request.server_port,
        local: request.local.as_ref(),
        remote_addr: request.remote_addr,
        remote_port: request.remote_port,
        exchange: request.exchange,
        tls: request.tls,
        client: request.client,
    };
    let mut out = Vec::new();
    let mut writer = RequestWriter::start(&mut out, &start);
    for (name, value) in request.headers() {
        writer.header(name, value);
    }
    writer.body(request.body);
    let frame = py_link::decode(&out).ok().flatten().expect("what was written is a whole frame");
    assert_eq!((frame.header.kind, frame.header.flags), (Kind::Request, Flags::NONE));
    assert!(payload.starts_with(frame.payload), "a request reads the same when written again");
}

/// Messages above this are refused: small, so that short inputs reach it.
const MESSAGE_BYTES_MAX: u64 = 300;

/// A WebSocket client's frames: cut in two they are read as in one, and what comes of them keeps the rules. The same bytes as an
/// offer of extensions: what is agreed can be offered, and is agreed again.
pub fn websocket(data: &[u8]) {
    let (input, at) = cut(data);
    for deflate in [false, true] {
        let whole = conversation(&[input], deflate);
        let in_two = conversation(&[&input[..at], &input[at..]], deflate);
        assert_eq!(whole.0, in_two.0);
        assert_eq!(whole.1.is_some(), in_two.1.is_some());
        // A compressed message may be wrong in two ways at once; which of them is seen first depends on the pieces.
        assert!(deflate || whole.1 == in_two.1);
        for event in &whole.0 {
            match event {
                Event::Message(kind, bytes) => {
                    assert!(bytes.len() as u64 <= MESSAGE_BYTES_MAX);
                    assert!(*kind == MessageType::Binary || std::str::from_utf8(bytes).is_ok());
                }
                Event::Ping(payload) => assert!(payload.len() <= 125),
                Event::Close(Some((code, _))) => assert!(may_be_sent(*code)),
                Event::Pong | Event::Close(None) => {}
            }
        }
    }
    if let Ok(Some(agreed)) = Agreed::first_of(data) {
        assert_eq!(Agreed::first_of(agreed.answer().as_bytes()), Ok(Some(agreed)));
    }
}

/// What comes of the pieces, until the client closes or breaks a rule.
fn conversation(pieces: &[&[u8]], deflate: bool) -> (Vec<Event>, Option<Violation>) {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX, deflate);
    let mut events = Vec::new();
    for mut piece in pieces.iter().copied() {
        while !piece.is_empty() {
            match decoder.decode(piece) {
                Ok((taken, event)) => {
                    assert!(taken <= piece.len() && (event.is_some() || taken == piece.len()));
                    piece = &piece[taken..];
                    let over = matches!(event, Some(Event::Close(_)));
                    events.extend(event);
                    if over {
                        return (events, None);
                    }
                }
                Err(violation) => return (events, Some(violation)),
            }
        }
    }
    (events, None)
}
