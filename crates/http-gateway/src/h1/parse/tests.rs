//! Tables of heads; every one is read whole and byte by byte, and both must agree.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { line_bytes_max: 60, fields_bytes_max: 200, fields_max: 5 };

type Outcome = Result<Option<(Parsed, usize)>, Refusal>;

fn whole(input: &[u8]) -> Outcome {
    HeadParser::new().advance(input, &LIMITS)
}

/// Feeds ever longer prefixes that end at `cuts`, and last the whole.
fn in_pieces(input: &[u8], cuts: impl IntoIterator<Item = usize>) -> Outcome {
    let mut parser = HeadParser::new();
    for cut in cuts {
        let seen = parser.advance(&input[..cut.min(input.len())], &LIMITS)?;
        if seen.is_some() {
            return Ok(seen);
        }
    }
    parser.advance(input, &LIMITS)
}

/// `METHOD target version framing [keep] [continue] | name: value | …`
fn show(outcome: &Outcome) -> String {
    match outcome {
        Err(refusal) => format!("{} {}", refusal.status, refusal.why),
        Ok(None) => "more".to_owned(),
        Ok(Some((parsed, _))) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let head = &parsed.head;
            let framing = match parsed.body {
                BodyLength::None => "-".to_owned(),
                BodyLength::Known(length) => length.to_string(),
                BodyLength::Unknown => "chunked".to_owned(),
            };
            let mut shown = format!(
                "{} {} {} {framing}",
                text(head.method.as_bytes()),
                text(&head.target),
                head.version as u8
            );
            if parsed.keep_alive {
                shown.push_str(" keep");
            }
            if parsed.expects_continue {
                shown.push_str(" continue");
            }
            for (name, value) in head.headers.iter() {
                write!(shown, " | {}: {}", text(name), text(value)).unwrap();
            }
            shown
        }
    }
}

/// `|` in the input stands for CRLF. What follows the head is not looked at.
fn check(input: &str, expected: &str) {
    let input = input.replace('|', "\r\n");
    let seen = whole(input.as_bytes());
    assert_eq!(show(&seen), expected, "{input:?}");
    let dribbled = in_pieces(input.as_bytes(), 0..=input.len());
    assert_eq!(show(&dribbled), expected, "{input:?} byte by byte");
    if let (Ok(Some((_, whole))), Ok(Some((_, dribbled)))) = (seen, dribbled) {
        assert_eq!(whole, dribbled);
    }
}

#[test]
fn good_heads() {
    check("GET / HTTP/1.1|Host: a||", "GET / 11 - keep | host: a");
    check("GET / HTTP/1.1|Host: a||GET /next", "GET / 11 - keep | host: a");
    check("|GET / HTTP/1.1|Host: a||", "GET / 11 - keep | host: a");
    check("GET /?q HTTP/1.0||", "GET /?q 10 -");
    check("GET / HTTP/1.0|Connection: Keep-Alive||", "GET / 10 - keep | connection: Keep-Alive");
    check("GET / HTTP/1.1|Host: a|Connection: x, Close||", "GET / 11 - | host: a | connection: x, Close");
    check(
        "GET / HTTP/1.1|Host: a|Connection: close|Connection: keep-alive||",
        "GET / 11 - | host: a | connection: close | connection: keep-alive",
    );
    check("GET / HTTP/1.2|Host:||", "GET / 11 - keep | host: ");
    check(
        "POST / HTTP/1.1|HOST: a|conTENT-Length: 5||hello",
        "POST / 11 5 keep | host: a | content-length: 5",
    );
    check("POST / HTTP/1.1|Host: a|Transfer-Encoding: \tChunked ||", "POST / 11 chunked keep | host: a");
    check(
        "POST / HTTP/1.1|Host: a|Expect: 100-Continue||",
        "POST / 11 - keep continue | host: a | expect: 100-Continue",
    );
    check("POST / HTTP/1.0|Expect: 100-continue||", "POST / 10 - | expect: 100-continue");
    check("GET http://b:1/c?d HTTP/1.1|Host: a||", "GET /c?d 11 - keep | host: b:1");
    check("GET http://b HTTP/1.0||", "GET / 10 - | host: b");
    check("OPTIONS * HTTP/1.1|Host: a||", "OPTIONS * 11 - keep | host: a");
    check("GET / HTTP/1.1|Host: a|X_Forwarded_For: 1|B: \t c d \t||", "GET / 11 - keep | host: a | b: c d");
    check("GET / HTTP/1.1|Host: a|A: 1|a: 2||", "GET / 11 - keep | host: a | a: 1 | a: 2");
}

#[test]
fn unfinished_heads() {
    for input in
        ["", "|", "G", "GET /", "GET / HTTP/1.1|", "GET / HTTP/1.1|Host: a|", "GET / HTTP/1.1|Host: a|\r"]
    {
        check(input, "more");
    }
}

#[test]
fn request_lines_that_are_refused() {
    let malformed = "400 the request line is malformed";
    check("GET /|", malformed);
    check("GET|", malformed);
    check("GET HTTP/1.1|", malformed);
    check("GET / FTP/1.1|", malformed);
    check("GET / HTTP/111|", malformed);
    check("GET / http/1.1|", malformed);
    check("GET / HTTP/1.1 |", malformed);
    check("GET /\tHTTP/1.1|", malformed);
    check("GET  / HTTP/1.1|", "400 the request target holds a character it may not");
    check("GET /  HTTP/1.1|", "400 the request target holds a character it may not");
    check("GET /a b HTTP/1.1|", "400 the request target holds a character it may not");
    check("GET /\0 HTTP/1.1|", "400 the request target holds a character it may not");
    check("get / HTTP/1.1|", "400 the method is malformed");
    check(" GET / HTTP/1.1|", "400 this is not HTTP");
    check("\x16\x03\x01", "400 this is not HTTP");
    check("||GET / HTTP/1.1|", "400 the request line is malformed");
    check("GET / HTTP/1.1\nHost: a||", "400 a line ends without a carriage return");
    check("\nGET", "400 a line ends without a carriage return");
    check("GET / HTTP/2.0|", "505 only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here");
    check("PRI * HTTP/2.0||SM||", "505 only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here");
    check("CONNECT a:1 HTTP/1.1|", "501 this server is no tunnel");
    check(&format!("{} / HTTP/1.1|", "A".repeat(33)), "501 the method is unknown");
    check(&format!("GET /{} HTTP/1.1|", "a".repeat(60)), "414 the request line is too long");
    check(&format!("GET /{}", "a".repeat(60)), "414 the request line is too long");
}

/// Behind a good request line and Host.
fn check_field(fields: &str, expected: &str) {
    check(&format!("POST / HTTP/1.1|Host: a|{fields}||"), expected);
}

#[test]
fn fields_that_are_refused() {
    check_field(" folded", "400 a header line is folded");
    check_field("A: b|\tfolded", "400 a header line is folded");
    check_field("A : b", "400 a header name holds a character it may not");
    check_field(": b", "400 a header name holds a character it may not");
    check_field("A", "400 a header line has no colon");
    check_field("A: \rb", "400 a header value holds a control character");
    check_field("A: b\nC: d", "400 a line ends without a carriage return");
    check_field("A: \0", "400 a header value holds a control character");
    check_field("Host: a", "400 there is more than one Host");
    check_field("Content-Type: a|Content-Type: b", "400 there is more than one Content-Type");
    check_field("Expect: 200-ok", "417 only 100-continue can be expected");
    check("GET / HTTP/1.1|Host: a/b||", "400 Host is malformed");
    check("GET / HTTP/1.1|A: b||", "400 Host is missing");
    check("GET http://a/ HTTP/1.1||", "400 Host is missing");
    check_field("A:|B:|C:|D:|E:", "431 there are too many headers");
    check_field(&format!("A: {}", "b".repeat(300)), "431 the headers are too large");
    check(&format!("GET / HTTP/1.1|A: {}", "b".repeat(300)), "431 the headers are too large");
}

#[test]
fn framing_that_is_refused() {
    let length = "400 Content-Length is malformed or sent twice";
    for bad in ["-1", "+1", "", "0_1", "1 1", "5, 5", "0x5", "5;", "99999999999999999999", "５"] {
        check_field(&format!("Content-Length: {bad}"), length);
    }
    check_field("Content-Length: 5|Content-Length: 5", length);
    check_field(
        "Content-Length: 5|Transfer-Encoding: chunked",
        "400 both Content-Length and Transfer-Encoding are there",
    );
    check_field(
        "Transfer-Encoding: chunked|Transfer-Encoding: chunked",
        "400 there is more than one Transfer-Encoding",
    );
    check("POST / HTTP/1.0|Transfer-Encoding: chunked||", "400 HTTP/1.0 has no Transfer-Encoding");
    let malformed = "400 Transfer-Encoding is malformed";
    for bad in ["chunked, chunked", "chunked, gzip", "gzip, chunked, identity", "\"chunked\"", "x y, chunked"]
    {
        check_field(&format!("Transfer-Encoding: {bad}"), malformed);
    }
    let unknown = "501 no Transfer-Encoding but chunked is spoken here";
    for unspoken in ["gzip, chunked", "identity", "gzip", "xchunked", ""] {
        check_field(&format!("Transfer-Encoding: {unspoken}"), unknown);
    }
}

#[test]
fn ambiguous_names_do_not_frame() {
    check_field("Content_Length: 5|Transfer_Encoding: chunked", "POST / 11 - keep | host: a");
}

proptest! {
    #[test]
    fn any_split_is_read_like_the_whole(
        input in "(GET|POST) /[a-z ]{0,3} HTTP/1\\.[01]\r?\n(Host: a\r\n)?((A|Content-Length|Transfer-Encoding|B_c) ?: ?(5|chunked|\r|x)\r\n){0,3}\r\n",
        mut cuts in prop::collection::vec(0usize..120, 0..6),
    ) {
        cuts.sort_unstable();
        prop_assert_eq!(show(&in_pieces(input.as_bytes(), cuts)), show(&whole(input.as_bytes())));
    }

    #[test]
    fn any_bytes_are_survived_and_bounded(
        input in prop::collection::vec(prop::sample::select(b"GET /HTP1.\r\n:ab \t\0\xff".to_vec()), 0..400),
    ) {
        let seen = whole(&input);
        if let Ok(Some((parsed, bytes))) = &seen {
            prop_assert!(*bytes <= input.len());
            prop_assert!(parsed.head.headers.len() <= LIMITS.fields_max);
        }
        // Nothing is waited for beyond the limits.
        if input.len() > LIMITS.line_bytes_max + LIMITS.fields_bytes_max + 4 {
            prop_assert!(!matches!(seen, Ok(None)));
        }
        prop_assert_eq!(show(&in_pieces(&input, 0..=input.len())), show(&seen));
    }

    #[test]
    fn what_was_sent_is_what_is_seen(
        path in "/[!-\"$-~]{0,20}",
        fields in prop::collection::vec(("[!#-'*+.^`|~0-9a-z-]{1,9}", "([!-~]([ -~\t]{0,9}[!-~])?)?"), 0..4),
    ) {
        let special = ["host", "connection", "expect"];
        prop_assume!(fields.iter().all(|(name, _)| !special.contains(&name.as_str())));
        let mut wire = format!("GET {path} HTTP/1.1\r\nHost: a\r\n");
        let mut expected = format!("GET {path} 11 - keep | host: a");
        for (name, value) in &fields {
            write!(wire, "{name}: {value}\r\n").unwrap();
            write!(expected, " | {name}: {value}").unwrap();
        }
        wire.push_str("\r\n");
        prop_assert_eq!(show(&whole(wire.as_bytes())), expected);
    }
}
