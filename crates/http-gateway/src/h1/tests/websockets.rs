//! WebSockets over HTTP/1.1: handshakes, and conversations on a paused clock.

use super::*;
use crate::testing::{LARGE_BYTES, client_frame};

const ASK: &str = "HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A frame as it came: its first byte and its payload.
type Got = (u8, Vec<u8>);

impl Client {
    /// A client whose WebSocket is open; `fields` go into its handshake.
    async fn on(path: &str, fields: &str, config: Config) -> Self {
        let mut client = Self::with(b"", config);
        client.send(&format!("GET {path} {ASK}{fields}\r\n")).await;
        let head = client.read_to("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        client
    }

    async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.wire.write_all(&client_frame(first, payload)).await.unwrap();
    }

    async fn got(&mut self) -> Got {
        let first = self.wire.read_u8().await.unwrap();
        let len = match self.wire.read_u8().await.unwrap() {
            126 => u64::from(self.wire.read_u16().await.unwrap()),
            127 => self.wire.read_u64().await.unwrap(),
            len => u64::from(len),
        };
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        self.wire.read_exact(&mut payload).await.unwrap();
        (first, payload)
    }

    /// The close frame that comes next: its code and reason; and nothing may follow.
    async fn closed(&mut self) -> (u16, String) {
        let (first, payload) = self.got().await;
        assert_eq!(first, CLOSE, "{payload:?}");
        let mut rest = Vec::new();
        self.wire.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        match payload.split_first_chunk::<2>() {
            Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap()),
            None => (0, String::new()),
        }
    }

    /// What the app was told.
    fn heard(&self) -> Vec<String> {
        self.service.heard.lock().unwrap().clone()
    }

    /// Waits until the app was told so many things.
    async fn app_hears(&self, things: usize) -> Vec<String> {
        while self.heard().len() < things {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.heard()
    }
}

fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

#[tokio::test(start_paused = true)]
async fn the_handshake_of_the_standard() {
    let mut client = Client::with(b"", Config::default());
    let fields = "Sec-WebSocket-Protocol: soap, chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    client.send(&format!("GET /ws/chat {ASK}{fields}\r\n")).await;
    let head = client.read_to("\r\n\r\n").await;
    let (start, rest) = head.split_once("Date: ").unwrap();
    assert_eq!(
        start.replace("\r\n", "|"),
        "HTTP/1.1 101 Switching Protocols|Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Protocol: chat|\
         Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover|\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=|"
    );
    assert_eq!(rest.matches("\r\n").count(), 2);
    client.frame(CLOSE, b"").await;
    assert_eq!(client.closed().await, (0, String::new()));
    assert_eq!(client.app_hears(1).await, ["closed 1005 "]);
    assert_eq!(client.finished().await, ["/ws/chat 101 2"]);
}

#[tokio::test(start_paused = true)]
async fn messages_go_both_ways() {
    let mut client = Client::on("/ws/echo", "", Config::default()).await;
    client.frame(TEXT, "adi\u{f3}s".as_bytes()).await;
    assert_eq!(client.got().await, (TEXT, "adi\u{f3}s".into()));
    client.frame(0x02, b"one ").await;
    client.frame(PING, b"between").await;
    client.frame(0x80, b"two").await;
    assert_eq!(client.got().await, (PONG, b"between".to_vec()));
    assert_eq!(client.got().await, (BINARY, b"one two".to_vec()));
    client.frame(CLOSE, &close_payload(4321, "done")).await;
    assert_eq!(client.closed().await, (4321, String::new()));
    assert_eq!(client.app_hears(3).await, ["Text of 6", "Binary of 7", "closed 4321 done"]);
    assert_eq!(client.finished().await, ["/ws/echo 101 30"]);
}

#[tokio::test(start_paused = true)]
async fn what_came_with_the_handshake_belongs_to_the_websocket() {
    let mut client = Client::with(b"", Config::default());
    let mut sent = format!("GET /ws/echo {ASK}\r\n").into_bytes();
    sent.extend(client_frame(TEXT, b"early"));
    sent.extend(&client_frame(TEXT, b"cut")[..3]);
    client.wire.write_all(&sent).await.unwrap();
    client.read_to("\r\n\r\n").await;
    assert_eq!(client.got().await, (TEXT, b"early".to_vec()));
    client.wire.write_all(&client_frame(TEXT, b"cut")[3..]).await.unwrap();
    assert_eq!(client.got().await, (TEXT, b"cut".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn refusals_keep_the_connection_and_bad_handshakes_do_not() {
    let refused = "HTTP/1.1 403 Forbidden|date: now|Content-Length: 2||no";
    let ask = ASK.replace("Host", "X: y\r\nHost");
    check(
        &format!("GET /ws/no {ask}\r\nGET /a HTTP/1.1\r\n{CLOSE_REQUEST}"),
        &format!("{refused}HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||/a"),
        &["/ws/no 403 2", "/a 200 2"],
    )
    .await;
    let why = "Sec-WebSocket-Key is missing or malformed";
    let answer =
        format!("HTTP/1.1 400 Bad Request|date: now|Content-Length: {}|Connection: close||{why}", why.len());
    check(&format!("GET /ws/echo {}\r\n", ASK.replace("Key", "Keys")), &answer, &["/ws/echo 400 41"]).await;
    let why = "only version 13 of the WebSocket protocol is spoken here";
    let answer = format!(
        "HTTP/1.1 426 Upgrade Required|date: now|sec-websocket-version: 13|upgrade: websocket|\
         Content-Length: {}|Connection: close, upgrade||{why}",
        why.len()
    );
    check(&format!("GET /ws/echo {}\r\n", ASK.replace(": 13", ": 8")), &answer, &["/ws/echo 426 56"]).await;
    // A header that would split the answer.
    let mut client = Client::new();
    client.send(&format!("GET /ws/split {ASK}\r\n")).await;
    assert!(client.read_rest().await.starts_with("HTTP/1.1 502 Bad Gateway|"));
    assert_eq!(client.app_hears(1).await, ["dropped"]);
}

const CLOSE_REQUEST: &str = "Host: a\r\nConnection: close\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn what_only_looks_like_a_handshake_is_a_request() {
    for ask in [
        ASK.replace("keep-alive, Upgrade", "close"),
        ASK.replace("HTTP/1.1", "HTTP/1.0"),
        ASK.replace("keep-alive, Upgrade", "close, upgrade").replace("websocket", "h2c"),
    ] {
        let mut client = Client::new();
        client.send(&format!("GET /ws/echo {ask}\r\n")).await;
        let all = client.read_rest().await;
        assert!(all.starts_with("HTTP/1.1 200 OK|") && all.ends_with("/ws/echo"), "{all}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_during_the_handshake_ends_it() {
    let mut client = Client::new();
    client.send(&format!("GET /ws/never {ASK}\r\n")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.finished().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn broken_rules_end_it_with_their_code() {
    let config = || {
        let mut config = Config::default();
        config.websocket.message_max = 1000;
        config
    };
    for (sent, code, why) in [
        (client_frame(0xc1, b"x"), 1002, "a reserved bit is set"),
        (client_frame(TEXT, b"\xff"), 1007, "the text is not UTF-8"),
        (client_frame(BINARY, &[0; 1001]), 1009, "the message is too large"),
        (b"\x81\x05hello".to_vec(), 1002, "a client must mask its frames"),
        (
            client_frame(CLOSE, &close_payload(1005, "")),
            1002,
            "a close frame has a code that must not be sent",
        ),
    ] {
        let mut client = Client::on("/ws/echo", "", config()).await;
        // More than is read: our close frame must not be lost to a reset.
        client.wire.write_all(&[&sent[..], &[0; 3000]].concat()).await.unwrap();
        assert_eq!(client.closed().await, (code, why.to_owned()));
        assert_eq!(client.app_hears(1).await, [format!("closed {code} {why}")]);
        let sent = 4 + why.len();
        assert_eq!(client.finished().await, [format!("/ws/echo 101 {sent} cut")]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_app_closes() {
    let mut client = Client::on("/ws/bye", "", Config::default()).await;
    client.frame(TEXT, b"x").await;
    assert_eq!(client.got().await, (CLOSE, close_payload(4001, "bye")));
    // What is still on its way is not for anybody, but for the close frame.
    client.frame(TEXT, b"late").await;
    client.frame(PING, b"late").await;
    client.frame(CLOSE, &close_payload(4001, "")).await;
    assert_eq!(client.read_rest().await, "");
    assert_eq!(client.app_hears(2).await, ["Text of 1", "closed 4001 "]);
    assert_eq!(client.finished().await, ["/ws/bye 101 7"]);

    let started = tokio::time::Instant::now();
    let mut client = Client::on("/ws/bye", "", Config::default()).await;
    client.frame(TEXT, b"x").await;
    assert_eq!(client.closed().await, (4001, "bye".to_owned()));
    assert_eq!(started.elapsed().as_secs(), 5, "a client that does not answer is waited for, but not long");
    assert_eq!(client.app_hears(2).await, ["Text of 1", "closed 1006 "]);

    let mut client = Client::on("/ws/badly", "", Config::default()).await;
    client.frame(TEXT, b"x").await;
    assert_eq!(client.closed().await.0, 1011);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_is_1011() {
    let mut client = Client::on("/ws/dies", "", Config::default()).await;
    client.frame(TEXT, b"x").await;
    assert_eq!(client.got().await, (CLOSE, close_payload(1011, "the app went away")));
    client.frame(CLOSE, &close_payload(1011, "")).await;
    assert_eq!(client.finished().await, ["/ws/dies 101 21"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_is_1006() {
    let mut client = Client::on("/ws/echo", "", Config::default()).await;
    client.wire.write_all(&client_frame(TEXT, b"half")[..5]).await.unwrap();
    let heard = Arc::clone(&client.service.heard);
    assert_eq!(client.finished().await, ["/ws/echo 101 0 cut"]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(*heard.lock().unwrap(), ["closed 1006 "]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_given_up() {
    let started = tokio::time::Instant::now();
    let mut client = Client::on("/ws/echo", "", Config::default()).await;
    assert_eq!(client.got().await, (PING, Vec::new()));
    assert_eq!(started.elapsed().as_secs(), 20);
    client.frame(PONG, b"").await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    client.frame(PING, b"alive").await;
    assert_eq!(client.got().await, (PONG, b"alive".to_vec()));
    assert_eq!(client.got().await, (PING, Vec::new()));
    assert_eq!(started.elapsed().as_secs(), 20 + 15 + 20);
    assert_eq!(client.closed().await, (1011, "a ping was not answered".to_owned()));
    assert_eq!(started.elapsed().as_secs(), 20 + 15 + 20 + 20);
    assert_eq!(client.app_hears(1).await, ["closed 1006 a ping was not answered"]);

    let mut config = Config::default();
    config.websocket.ping_interval = Duration::ZERO;
    let mut client = Client::on("/ws/echo", "", config).await;
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    client.frame(TEXT, b"here").await;
    assert_eq!(client.got().await, (TEXT, b"here".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_client_on_a_slow_line_is_given_time_until_the_ping_reaches_it() {
    let mut client = Client::on("/ws/large", "", Config::default()).await;
    client.frame(TEXT, b"x").await;
    let started = tokio::time::Instant::now();
    let (mut bytes, mut pings) = (0, 0);
    while bytes < LARGE_BYTES || pings == 0 {
        tokio::time::sleep(Duration::from_secs(15)).await;
        match client.got().await {
            (PING, _) => {
                pings += 1;
                client.frame(PONG, b"").await;
            }
            (_, payload) => bytes += payload.len(),
        }
    }
    assert!(started.elapsed().as_secs() > 60, "{:?}", started.elapsed());
    // From then on it must be answered as ever.
    assert_eq!(client.got().await, (PING, Vec::new()));
    assert_eq!(client.closed().await, (1011, "a ping was not answered".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_slow_app_holds_its_client_up_and_no_ping_kills_it() {
    let mut client = Client::on("/ws/slow", "", Config::default()).await;
    let large = vec![b'x'; 60_000];
    let started = tokio::time::Instant::now();
    for _ in 0..10 {
        client.frame(BINARY, &large).await;
    }
    // The app took some, four wait in the session, one with the driver, and one in the stream.
    assert!(started.elapsed().as_secs() >= 90, "{:?}", started.elapsed());
    client.frame(CLOSE, b"").await;
    // It never answered a ping: there was none while it was not listened to.
    assert_eq!(client.closed().await, (0, String::new()));
    let heard = client.app_hears(11).await;
    assert_eq!(heard.last().unwrap(), "closed 1005 ");
    assert_eq!(heard.iter().filter(|line| *line == "Binary of 60000").count(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_never_listens_does_not_keep_its_client() {
    let mut client = Client::on("/ws/deaf", "", Config::default()).await;
    for _ in 0..4 {
        client.frame(TEXT, b"unheard").await;
    }
    client.frame(CLOSE, b"").await;
    assert_eq!(client.closed().await, (0, String::new()));
    assert_eq!(client.finished().await, ["/ws/deaf 101 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut() {
    let mut client = Client::on("/ws/large", "", Config::default()).await;
    client.frame(TEXT, b"x").await;
    let heard = Arc::clone(&client.service.heard);
    let started = tokio::time::Instant::now();
    while heard.lock().unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(started.elapsed().as_secs(), 30);
    assert_eq!(*heard.lock().unwrap(), ["Text of 1", "closed 1006 "]);
    assert_eq!(client.finished().await, [format!("/ws/large 101 {WIRE_BYTES} cut")]);
}

#[tokio::test(start_paused = true)]
async fn a_large_message_comes_in_fragments_with_a_pong_between() {
    let mut client = Client::on("/ws/large", "", Config::default()).await;
    client.frame(TEXT, b"x").await;
    let (first, mut all) = client.got().await;
    assert_eq!((first, all.len()), (0x02, 64 << 10));
    client.frame(PING, b"now").await;
    let mut pongs = 0;
    loop {
        let (first, payload) = client.got().await;
        match first {
            PONG => pongs += 1,
            _ => all.extend(payload),
        }
        if first == 0x80 {
            break;
        }
    }
    assert_eq!((pongs, all.len()), (1, LARGE_BYTES));
}

#[tokio::test(start_paused = true)]
async fn many_small_messages_are_written_together() {
    let mut client = Client::on("/ws/many", "", Config::default()).await;
    client.frame(TEXT, b"x").await;
    for _ in 0..100 {
        assert_eq!(client.got().await, (TEXT, b"x".to_vec()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_is_answered_once_it_is_read() {
    let client = Client::on("/ws/echo", "", Config::default()).await;
    let (mut from, mut to) = tokio::io::split(client.wire);
    // Far more than fits: a client that does not read its pongs.
    let flood = tokio::spawn(async move {
        for i in 0..50_000_u32 {
            to.write_all(&client_frame(PING, &[i.to_be_bytes(); 30].concat())).await.unwrap();
        }
        to.write_all(&client_frame(CLOSE, b"")).await.unwrap();
        to
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut all = Vec::new();
    from.read_to_end(&mut all).await.unwrap();
    let mut to = flood.await.unwrap();
    to.shutdown().await.unwrap();
    assert!(all.ends_with(b"\x88\x00"));
    assert!(all.len() < 50_000 * 122, "only the last of many is answered: {}", all.len());
}

#[tokio::test(start_paused = true)]
async fn compressed_messages_go_both_ways() {
    let mut client =
        Client::on("/ws/echo", "Sec-WebSocket-Extensions: permessage-deflate\r\n", Config::default()).await;
    client.frame(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00").await;
    assert_eq!(client.got().await, (TEXT, b"Hello".to_vec()));
    client.frame(TEXT, &[b'x'; 5000]).await;
    let (first, packed) = client.got().await;
    assert!(first == 0xc1 && packed.len() < 100, "{first:x} {}", packed.len());
    let mut config = Config::default();
    config.websocket.compress = false;
    let mut client = Client::on("/ws/echo", "Sec-WebSocket-Extensions: permessage-deflate\r\n", config).await;
    client.frame(0xc1, b"x").await;
    assert_eq!(client.closed().await.0, 1002);
}

#[tokio::test(start_paused = true)]
async fn a_drain_says_1001_after_the_grace() {
    let mut client = Client::on("/ws/echo", "", Config::default()).await;
    client.drain.send_replace(Phase::Leaving);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let started = tokio::time::Instant::now();
    client.drain.send_replace(Phase::Draining);
    client.frame(TEXT, b"still here").await;
    assert_eq!(client.got().await, (TEXT, b"still here".to_vec()));
    assert_eq!(client.got().await, (CLOSE, close_payload(1001, "the server goes away")));
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(client.app_hears(2).await, ["Text of 10", "closed 1001 "], "the app hears it at once");
    client.frame(CLOSE, &close_payload(1001, "")).await;
    assert_eq!(client.read_rest().await, "");
    assert_eq!(client.finished().await, ["/ws/echo 101 36"]);

    // A client that does not read is not waited for.
    let mut client = Client::on("/ws/large", "", Config::default()).await;
    client.frame(TEXT, b"x").await;
    client.app_hears(1).await;
    let started = tokio::time::Instant::now();
    client.drain.send_replace(Phase::Draining);
    assert_eq!(client.app_hears(2).await[1], "closed 1001 ");
    (&mut client.served).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 5, "its output has stood still for longer than we wait");

    // A grace that is longer than the process has.
    let mut config = Config::default();
    config.workers.long_lived_grace = Duration::from_secs(3600);
    let mut client = Client::on("/ws/echo", "", config).await;
    let started = tokio::time::Instant::now();
    client.drain.send_replace(Phase::Draining);
    assert_eq!(client.closed().await.0, 1001);
    assert_eq!(started.elapsed().as_secs(), 15 + 5);
}

/// What ten thousand silent WebSockets cost is this, the two queues to the app and the handshake's head.
#[tokio::test]
async fn a_silent_conversation_is_small() {
    let (mut stream, _wire) = {
        let (wire, transport) = duplex(16);
        (super::super::stream::Stream::new(transport, Vec::new()), wire)
    };
    let (session, _from_client, _to_client) = crate::websocket::session();
    let (_drain, ear) = Drain::channel();
    let terms = crate::websocket::driver::Terms::new(&Config::default(), None);
    let talk = crate::websocket::driver::converse(&mut stream, session, terms, ear);
    assert!(size_of_val(&talk) <= 1800, "{} bytes", size_of_val(&talk));
}
