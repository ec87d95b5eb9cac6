//! Heads of responses: what is understood, and what is refused.

use proptest::prelude::*;

use super::*;

const GET: Asked = Asked { head_only: false, upgrade: false };
const HEAD: Asked = Asked { head_only: true, upgrade: false };
const UPGRADE: Asked = Asked { head_only: false, upgrade: true };

/// Lines are separated by `|` here.
fn wire(head: &str) -> Vec<u8> {
    format!("{head}||").replace('|', "\r\n").into_bytes()
}

fn show(answer: &Answer) -> String {
    let fields: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)))
        .collect();
    let keep = if answer.keep_alive { "keep" } else { "close" };
    format!("{} {:?} {keep} [{}]", answer.status, answer.framing, fields.join(" "))
}

fn parse(input: &[u8], asked: Asked) -> Result<Option<(String, usize)>, BadAnswer> {
    let parsed = AnswerParser::new().advance(input, asked)?;
    Ok(parsed.map(|(answer, bytes)| (show(&answer), bytes)))
}

/// Byte by byte: the same as whole.
fn dribble(input: &[u8], asked: Asked) -> Result<Option<(String, usize)>, BadAnswer> {
    let mut parser = AnswerParser::new();
    for end in 0..=input.len() {
        if let Some((answer, bytes)) = parser.advance(&input[..end], asked)? {
            return Ok(Some((show(&answer), bytes)));
        }
    }
    Ok(None)
}

fn check(head: &str, asked: Asked, expected: &str) {
    let input = wire(head);
    let seen = parse(&input, asked);
    assert_eq!(seen, dribble(&input, asked), "{head}");
    match seen {
        Ok(Some((text, bytes))) => {
            assert_eq!(text, expected, "{head}");
            assert_eq!(bytes, input.len(), "{head}");
        }
        other => panic!("{head}: {other:?}"),
    }
}

fn refused(head: &str, asked: Asked, why: &str) {
    let input = wire(head);
    let seen = parse(&input, asked);
    assert_eq!(seen, dribble(&input, asked), "{head}");
    let error = seen.expect_err(head);
    assert!(error.0.contains(why), "{head}: {error}");
}

#[test]
fn bodies_are_framed_as_the_standard_says() {
    check("HTTP/1.1 200 OK|Content-Length: 5", GET, "200 Length(5) keep [Content-Length=5]");
    check("HTTP/1.1 200 OK|Transfer-Encoding: Chunked|A: b", GET, "200 Chunked keep [A=b]");
    check("HTTP/1.1 200 OK", GET, "200 UntilClose close []");
    check("HTTP/1.0 200 OK|Content-Length: 5", GET, "200 Length(5) close [Content-Length=5]");
    check(
        "HTTP/1.0 200 OK|Content-Length: 5|Connection: keep-alive",
        GET,
        "200 Length(5) keep [Content-Length=5]",
    );
    check(
        "HTTP/1.1 200 OK|Content-Length: 5|Connection: Close",
        GET,
        "200 Length(5) close [Content-Length=5]",
    );
    check("HTTP/1.1 200 OK|Content-Length: 5", HEAD, "200 Nothing keep [Content-Length=5]");
    check("HTTP/1.1 200 OK|Transfer-Encoding: chunked", HEAD, "200 Nothing keep []");
    check("HTTP/1.1 200 OK", HEAD, "200 Nothing keep []");
    check("HTTP/1.1 304 Not Modified|Content-Length: 9", GET, "304 Nothing keep [Content-Length=9]");
    check("HTTP/1.1 204 No Content", GET, "204 Nothing keep []");
    check("HTTP/1.1 204 No Content|Content-Length: 0", GET, "204 Nothing keep [Content-Length=0]");
    check("HTTP/1.1 103 Early Hints|Link: </a>", GET, "103 Nothing keep [Link=</a>]");
    check("HTTP/1.7 200 OK|Content-Length: 0", GET, "200 Length(0) keep [Content-Length=0]");
}

#[test]
fn status_lines() {
    check("HTTP/1.1 404 ", GET, "404 UntilClose close []");
    check("HTTP/1.1 404", GET, "404 UntilClose close []");
    check("HTTP/1.1 599 a b  c\t", GET, "599 UntilClose close []");
    for bad in [
        "",
        "hello",
        "HTTP/2.0 200 OK",
        "HTTP/1 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.x 200 OK",
        "http/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200 O\u{1}K",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1 999 OK",
    ] {
        refused(bad, GET, "");
    }
}

#[test]
fn what_is_of_the_connection_stays_here() {
    check(
        "HTTP/1.1 200 OK|Connection: X-Hop, keep-alive|x-hop: 1|Keep-Alive: timeout=5|Proxy-Connection: x|\
         Upgrade: h2c|Trailer: a|TE: b|Content-Length: 0|X-Kept: 1",
        GET,
        "200 Length(0) keep [Content-Length=0 X-Kept=1]",
    );
    // Naming the length there must not leave a body without one.
    check(
        "HTTP/1.1 200 OK|Connection: content-length|Content-Length: 4",
        GET,
        "200 Length(4) keep [Content-Length=4]",
    );
    check(
        "HTTP/1.1 200 OK|Set_Cookie: a|Content-Length: 0",
        GET,
        "200 Length(0) keep [Set_Cookie=a Content-Length=0]",
    );
}

#[test]
fn doubtful_framing_is_refused() {
    refused("HTTP/1.1 200 OK|Content-Length: 5|Transfer-Encoding: chunked", GET, "both");
    refused("HTTP/1.1 200 OK|Transfer-Encoding: chunked|Content-Length: 5", HEAD, "both");
    refused("HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 6", GET, "twice");
    refused("HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 5", GET, "twice");
    refused("HTTP/1.0 200 OK|Transfer-Encoding: chunked", GET, "HTTP/1.0");
    refused("HTTP/1.1 200 OK|Transfer-Encoding: chunked|Transfer-Encoding: chunked", GET, "more than one");
    for value in [
        "",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "identity",
        "chunked;q=1",
        "xchunked",
        "\u{b}chunked",
    ] {
        refused(&format!("HTTP/1.1 200 OK|Transfer-Encoding: {value}"), GET, "");
    }
    for value in ["", "+5", "-5", "5, 5", "5 5", "0x5", "5;", "99999999999999999999", "five"] {
        refused(&format!("HTTP/1.1 200 OK|Content-Length: {value}"), GET, "");
    }
    for status in ["204 No Content", "103 Early Hints", "100 Continue"] {
        refused(&format!("HTTP/1.1 {status}|Content-Length: 5"), GET, "announces one");
        refused(&format!("HTTP/1.1 {status}|Transfer-Encoding: chunked"), GET, "announces one");
    }
}

#[test]
fn doubtful_lines_are_refused() {
    refused("HTTP/1.1 200 OK| folded: a", GET, "folded");
    refused("HTTP/1.1 200 OK|A: b|\tc", GET, "folded");
    refused("HTTP/1.1 200 OK|A : b", GET, "name");
    refused("HTTP/1.1 200 OK|A", GET, "colon");
    refused("HTTP/1.1 200 OK|: a", GET, "name");
    refused("HTTP/1.1 200 OK|A: b\rc", GET, "control");
    refused("HTTP/1.1 200 OK|A: b\0", GET, "control");
    for bare in ["HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK\r\nA: b\n\r\n", "HTTP/1.1 200 OK\r\n\n"] {
        let error = parse(bare.as_bytes(), GET).expect_err(bare);
        assert!(error.0.contains("carriage return"), "{error}");
    }
}

#[test]
fn a_switch_of_protocols_must_have_been_asked_for() {
    let good = "HTTP/1.1 101 Switching Protocols|Upgrade: WebSocket|Connection: keep-alive, upgrade";
    check(good, UPGRADE, "101 Nothing keep []");
    refused(good, GET, "101");
    refused("HTTP/1.1 101 Switching Protocols|Upgrade: websocket", UPGRADE, "101");
    refused("HTTP/1.1 101 Switching Protocols|Connection: upgrade", UPGRADE, "101");
    refused("HTTP/1.1 101 Switching Protocols|Upgrade: h2c|Connection: upgrade", UPGRADE, "101");
}

#[test]
fn heads_are_bounded() {
    let endless = format!("HTTP/1.1 200 {}", "a".repeat(LINE_BYTES_MAX));
    assert!(parse(endless.as_bytes(), GET).is_err());
    let large = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(FIELDS_BYTES_MAX));
    assert!(parse(large.as_bytes(), GET).is_err());
    let many = format!("HTTP/1.1 200 OK{}", "|A: b".repeat(FIELDS_MAX + 1));
    refused(&many, GET, "too many");
    check(&format!("HTTP/1.1 204 OK{}", "|Connection: x".repeat(FIELDS_MAX)), GET, "204 Nothing keep []");
    // Nobody waits for the end of a line that cannot be one.
    assert!(parse(b"SSH-2.0", GET).is_err() && parse(b"\x15\x03\x01", GET).is_err());
}

proptest! {
    #[test]
    fn never_panics_and_pieces_agree(
        lines in prop::collection::vec(prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n", "HTTP/1.0 204 \r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n",
            "Connection: close, x\r\n", "X: y\r\n", "\r\n", "\n", "\r", " ", ":", "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n",
        ]), 0..9),
        head_only: bool,
        upgrade: bool,
    ) {
        let input = lines.concat().into_bytes();
        let asked = Asked { head_only, upgrade };
        prop_assert_eq!(parse(&input, asked), dribble(&input, asked));
    }
}
