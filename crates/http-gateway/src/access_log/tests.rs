//! Lines as they are written, and what happens when nobody takes them.

use std::sync::mpsc;
use std::time::Instant;

use ctl_telemetry::metrics::ACCESS_LOG_DROPPED_TOTAL;
use proptest::prelude::*;

use super::*;
use crate::message::{AnsweredBy, Connection, Headers, Method, RequestHead, Trail, Version};

const DATE: [u8; 29] = *b"Sun, 06 Nov 1994 08:49:37 GMT";

fn with_exchange(head: Option<&RequestHead>, complete: bool, look: impl FnOnce(&Exchange<'_>)) {
    let connection = Connection::default();
    let trail = Trail {
        started: Instant::now(),
        request_id: "r1".into(),
        client: "192.0.2.7".parse().ok(),
        by: AnsweredBy::Worker(3),
        queue_wait: Duration::from_micros(1_002_003),
        begun: false,
        queries: None,
        lasts: false,
        route: None,
    };
    look(&Exchange {
        connection: &connection,
        head,
        status: 200,
        body_bytes_sent: 5,
        complete,
        trail: &trail,
    });
}

fn head(target: &[u8], agent: &[u8]) -> RequestHead {
    let mut headers = Headers::default();
    headers.push(b"host", b"a.test");
    headers.push(b"user-agent", agent);
    RequestHead { method: Method::Get, target: target.to_vec(), version: Version::Http11, headers }
}

/// What the tests say that an exchange took.
const TOOK: Duration = Duration::from_micros(12_000_345);

type Formatter = fn(&mut Vec<u8>, &Exchange<'_>, Duration, &[u8; 29]);

fn line(format: Formatter, head: Option<&RequestHead>, complete: bool) -> String {
    let mut line = Vec::new();
    with_exchange(head, complete, |exchange| format(&mut line, exchange, TOOK, &DATE));
    String::from_utf8(line).unwrap()
}

#[test]
fn text_lines() {
    assert_eq!(
        line(format::text, Some(&head(b"/a?b", b"curl/8")), true),
        "192.0.2.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b HTTP/1.1\" 200 5 \"-\" \"curl/8\" r1 12.000345 1.002003 app\n"
    );
    assert_eq!(
        line(format::text, None, false),
        "192.0.2.7 - - [06/Nov/1994:08:49:37 +0000] \"-\" 200 5 \"-\" \"-\" r1 12.000345 1.002003 app cut\n"
    );
}

#[test]
fn text_lines_stay_lines() {
    let line = line(format::text, Some(&head(b"/", b"a\"b\\c\n\x1b[2J\xe2\x80\xa8\x7f")), true);
    assert!(line.contains(r#""a\x22b\x5Cc\x0A\x1B[2J\xE2\x80\xA8\x7F""#), "{line}");
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn json_lines() {
    assert_eq!(
        line(format::json, Some(&head(b"/a?b", b"curl/8")), true),
        "{\"time\":\"1994-11-06T08:49:37Z\",\"client\":\"192.0.2.7\",\"method\":\"GET\",\"host\":\"a.test\",\
         \"target\":\"/a?b\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"body_bytes\":5,\"seconds\":12.000345,\
         \"queue_seconds\":1.002003,\"by\":\"app\",\"worker\":3,\"request_id\":\"r1\",\"user_agent\":\"curl/8\",\
         \"complete\":true}\n"
    );
}

#[test]
fn json_lines_are_json_whatever_was_sent() {
    for agent in [&b"a\"b\\c\n\x1b\x00"[..], b"\xff\xfe ok", "\u{2028}\u{85}é😀".as_bytes()] {
        let line = line(format::json, Some(&head(b"/", agent)), true);
        assert!(line.bytes().filter(|&b| b < 0x20).eq([b'\n']), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["user_agent"], *String::from_utf8_lossy(agent));
    }
}

proptest! {
    #[test]
    fn whatever_is_sent_a_line_is_one_line(target: Vec<u8>, agent: Vec<u8>) {
        let head = head(&target, &agent);
        let text = line(format::text, Some(&head), true);
        prop_assert!(text.ends_with(" app\n") && text.bytes().filter(|b| !(b' '..=b'~').contains(b)).eq([b'\n']));
        let json = line(format::json, Some(&head), true);
        prop_assert!(json.bytes().filter(|&b| b < b' ').eq([b'\n']));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let sent = String::from_utf8_lossy(&agent).into_owned();
        prop_assert_eq!(value["user_agent"].as_str().unwrap_or_default(), sent);
    }
}

/// Hands every write to the test.
struct Sent(mpsc::Sender<Vec<u8>>);

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn many_lines_are_few_writes_and_none_is_lost_at_the_end() {
    let (sender, written) = mpsc::channel();
    let log = AccessLog::open(Format::Text, Sent(sender)).unwrap().unwrap();
    for _ in 0..1000 {
        with_exchange(None, true, |exchange| log.record(exchange));
    }
    drop(log);
    let writes: Vec<Vec<u8>> = written.iter().collect();
    assert!(writes.len() < 20, "{} writes", writes.len());
    assert_eq!(memchr::memchr_iter(b'\n', &writes.concat()).count(), 1000);
}

/// Takes nothing until it is told to.
struct Stuck(mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _told_or_gone = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_is_stuck_costs_lines_and_no_time() {
    let (go_on, stuck) = mpsc::channel();
    let log = AccessLog::open(Format::Text, Stuck(stuck)).unwrap().unwrap();
    let before = ACCESS_LOG_DROPPED_TOTAL.get();
    let line = [b'x'; 1024];
    for _ in 0..3 * WAITING_BYTES_MAX / line.len() {
        log.append(&line);
    }
    assert!(ACCESS_LOG_DROPPED_TOTAL.get() > before);
    drop(go_on);
}

#[test]
fn off_is_off() {
    assert!(AccessLog::open(Format::Off, io::sink()).unwrap().is_none());
}

#[test]
fn lines_for_developers() {
    let dev = |repeated, target: &[u8], complete| {
        let mut line = Vec::new();
        with_exchange(Some(&head(target, b"curl/8")), complete, |exchange| {
            let mut trail = exchange.trail.clone();
            trail.queries =
                Some(crate::message::Queries { count: 22, time: Duration::from_micros(8_200), repeated });
            dev::line(&mut line, &Exchange { trail: &trail, ..*exchange }, TOOK, dev::Colours::default());
        });
        String::from_utf8(line).unwrap()
    };
    assert_eq!(
        dev(21, b"/products/?page=2", true),
        "GET  /products/?page=2                            200    12 s   22 queries  8.2 ms       5 B  ×21 the same query\n"
    );
    assert_eq!(
        dev(2, b"/a\x1b[31m\n", false),
        "GET  /a\\x1B[31m\\x0A                               200    12 s   22 queries  8.2 ms       5 B  cut\n"
    );
}

#[test]
fn what_workers_tell_of_queries() {
    use crate::message::Queries;
    let queries =
        |count, micros, repeated| Some(Queries { count, time: Duration::from_micros(micros), repeated });
    for (value, means) in [
        ("3;1500;2", queries(3, 1_500, 2)),
        ("3;1500", queries(3, 1_500, 0)),
        ("99999999999;1;1", queries(u32::MAX, 1, 1)),
        ("", None),
        ("3", None),
        ("-1;2;3", None),
        ("a;b;c", None),
    ] {
        assert_eq!(Queries::parse(value.as_bytes()), means, "{value}");
    }
}
