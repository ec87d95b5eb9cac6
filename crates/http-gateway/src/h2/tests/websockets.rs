//! WebSockets in streams (RFC 8441).

use std::sync::Mutex;

use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};

use super::*;
use crate::message::{Exchange, RequestBody, RequestHead, Response};
use crate::testing::{Heard, client_frame, websocket};
use crate::websocket::Answer;

#[derive(Default)]
struct Sockets {
    heard: Heard,
    finished: Mutex<Vec<String>>,
}

impl Service for Sockets {
    async fn call<B: RequestBody>(
        &self,
        connection: &Connection,
        head: &RequestHead,
        body: &mut B,
    ) -> Response {
        Answers.call(connection, head, body).await
    }

    async fn websocket(&self, _: &Connection, head: &RequestHead) -> Answer {
        websocket(head, &self.heard).await
    }

    fn refuse(&self, connection: &Connection, status: u16, why: &'static str) -> Response {
        Answers.refuse(connection, status, why)
    }

    fn finished(&self, exchange: &Exchange<'_>) {
        let how = if exchange.complete { "" } else { " cut" };
        let path = exchange.head.map_or("?".into(), |head| String::from_utf8_lossy(head.path()));
        let line = format!("{path} {} {}{how}", exchange.status, exchange.body_bytes_sent);
        self.finished.lock().unwrap().push(line);
    }
}

/// A connection with its client's sending half; the test keeps the rest alive.
struct Setup {
    send: SendRequest<Bytes>,
    service: Arc<Sockets>,
    phase: watch::Sender<Phase>,
    served: JoinHandle<()>,
}

async fn setup(change: impl FnOnce(&mut Config)) -> Setup {
    let (ours, theirs) = duplex(1 << 16);
    let mut config = Config::default();
    change(&mut config);
    let (phase, drain) = Drain::channel();
    let connection = Connection::default();
    let service = Arc::<Sockets>::default();
    let serving = serve(ours, BytesMut::new(), connection, Arc::clone(&service), Arc::new(config), drain);
    let served = tokio::spawn(serving);
    let (mut send, client) = client::handshake(theirs).await.unwrap();
    tokio::spawn(client);
    // The client may ask when our settings have come (RFC 8441, 3).
    while !send.is_extended_connect_protocol_enabled() {
        send = send.ready().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Setup { send, service, phase, served }
}

/// A client's side of an open stream.
struct Socket {
    up: SendStream<Bytes>,
    down: RecvStream,
    read: BytesMut,
}

impl Setup {
    async fn ask(
        &self,
        path: &str,
        fields: &[(&str, &str)],
    ) -> (http::Response<RecvStream>, SendStream<Bytes>) {
        let mut send = self.send.clone().ready().await.unwrap();
        let mut request = http::Request::builder().method("CONNECT").uri(format!("https://a.test{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.extension(Protocol::from_static("websocket")).body(()).unwrap();
        let (response, up) = send.send_request(request, false).unwrap();
        (timeout(SOON, response).await.expect("no answer").unwrap(), up)
    }

    async fn open(&self, path: &str) -> Socket {
        let (response, up) = self.ask(path, &[("sec-websocket-version", "13")]).await;
        assert_eq!(response.status(), 200);
        Socket { up, down: response.into_body(), read: BytesMut::new() }
    }

    async fn app_hears(&self, things: usize) -> Vec<String> {
        let heard = || self.service.heard.lock().unwrap().clone();
        let hearing = async {
            while heard().len() < things {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, hearing).await.expect("the app hears nothing");
        heard()
    }

    async fn finished(&self) -> Vec<String> {
        let finished = || self.service.finished.lock().unwrap().clone();
        let finishing = async {
            while finished().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, finishing).await.expect("nothing is finished");
        finished()
    }
}

impl Socket {
    fn frame(&mut self, first: u8, payload: &[u8]) {
        self.up.send_data(client_frame(first, payload).into(), false).unwrap();
    }

    /// The next bytes, so many.
    async fn got(&mut self, bytes: usize) -> Bytes {
        while self.read.len() < bytes {
            let piece =
                timeout(SOON, self.down.data()).await.expect("nothing comes").expect("the end").unwrap();
            self.down.flow_control().release_capacity(piece.len()).unwrap();
            self.read.extend_from_slice(&piece);
        }
        self.read.split_to(bytes).freeze()
    }

    async fn at_end(&mut self) -> bool {
        let rest = async {
            while let Some(piece) = self.down.data().await {
                self.read.extend_from_slice(&piece.unwrap());
            }
        };
        timeout(SOON, rest).await.expect("no end");
        self.read.is_empty()
    }
}

#[tokio::test]
async fn a_conversation_in_a_stream() {
    let setup = setup(|_| {}).await;
    let fields = [
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "x, chat"),
        ("sec-websocket-extensions", "permessage-deflate"),
    ];
    let (response, up) = setup.ask("/ws/chat", &fields).await;
    assert_eq!(response.status(), 200);
    let head = response.headers();
    assert_eq!(head["sec-websocket-protocol"], "chat");
    assert!(head["sec-websocket-extensions"].to_str().unwrap().starts_with("permessage-deflate; "));
    assert!(head.contains_key("date") && !head.contains_key("content-length"));
    assert!(!head.contains_key("sec-websocket-accept") && !head.contains_key("upgrade"));

    let mut socket = Socket { up, down: response.into_body(), read: BytesMut::new() };
    socket.frame(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    assert_eq!(socket.got(7).await, &b"\x81\x05Hello"[..]);
    socket.frame(0x89, b"ping");
    assert_eq!(socket.got(6).await, &b"\x8a\x04ping"[..]);
    // Requests go on beside it.
    assert_eq!(ask(&setup.send, request("GET", "/"), b"").await.unwrap().0, 200);
    socket.frame(0x88, b"\x0f\xa0bye");
    assert_eq!(socket.got(4).await, &b"\x88\x02\x0f\xa0"[..]);
    assert!(socket.at_end().await);
    socket.up.send_data(Bytes::new(), true).unwrap();
    assert_eq!(setup.app_hears(2).await, ["Text of 5", "closed 4000 bye"]);
    let finished = setup.finished().await;
    assert_eq!(finished[finished.len() - 1], "/ws/chat 101 17");
}

#[tokio::test]
async fn large_messages_pass_the_windows_both_ways() {
    let setup = setup(|config| config.websocket.message_max = 4 << 20).await;
    let mut socket = setup.open("/ws/echo").await;
    let large = vec![b'l'; 3 << 20];
    // More than the stream's window: it opens as frames are understood.
    socket.frame(0x82, &large);
    let mut all = Vec::new();
    while all.len() < large.len() {
        let head = socket.got(2).await;
        let long = match head[1] {
            126 => u64::from(u16::from_be_bytes(socket.got(2).await[..].try_into().unwrap())),
            127 => u64::from_be_bytes(socket.got(8).await[..].try_into().unwrap()),
            short => u64::from(short),
        };
        all.extend_from_slice(&socket.got(usize::try_from(long).unwrap()).await);
    }
    assert!(all == large);
}

#[tokio::test]
async fn handshakes_that_are_refused() {
    let setup = setup(|_| {}).await;
    for (path, version, status) in [
        ("/ws/no", "13", 403),
        ("/ws/page", "13", 501),
        ("/ws/echo", "12", 426),
        ("/ws/echo", "x", 400),
        ("/ws/split", "13", 502),
    ] {
        let (response, _up) = setup.ask(path, &[("sec-websocket-version", version)]).await;
        assert_eq!(response.status(), status, "{path}");
    }
    // The same in plain words is only a request.
    assert_eq!(ask(&setup.send, request("GET", "/ws/echo"), b"").await.unwrap().0, 200);
    assert_eq!(ask(&setup.send, request("CONNECT", "/"), b"").await.unwrap().0, 501);
}

#[tokio::test]
async fn a_reset_is_1006() {
    let setup = setup(|_| {}).await;
    let mut socket = setup.open("/ws/echo").await;
    socket.up.send_reset(Reason::CANCEL);
    assert_eq!(setup.app_hears(1).await, ["closed 1006 "]);
    assert_eq!(setup.finished().await, ["/ws/echo 101 0 cut"]);
    // The end of the stream without a close frame is no other.
    let mut socket = setup.open("/ws/echo").await;
    socket.up.send_data(Bytes::new(), true).unwrap();
    assert_eq!(setup.app_hears(2).await[1], "closed 1006 ");
}

#[tokio::test]
async fn broken_rules_and_dead_workers_end_the_stream_only() {
    let setup = setup(|_| {}).await;
    let mut socket = setup.open("/ws/echo").await;
    socket.frame(0x81, b"\xff");
    assert_eq!(&socket.got(4).await[2..], 1007_u16.to_be_bytes());
    let mut socket = setup.open("/ws/dies").await;
    socket.frame(0x81, b"x");
    assert_eq!(&socket.got(4).await[2..], 1011_u16.to_be_bytes());
    assert_eq!(ask(&setup.send, request("GET", "/"), b"").await.unwrap().0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_its_stream_is_cut() {
    let setup = setup(|_| {}).await;
    let mut socket = setup.open("/ws/large").await;
    socket.frame(0x81, b"x");
    let started = Instant::now();
    while setup.service.finished.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(started.elapsed().as_secs(), 30);
    assert_eq!(setup.service.heard.lock().unwrap().as_slice(), ["Text of 1", "closed 1006 "]);
}

#[tokio::test]
async fn when_the_connection_goes_the_app_hears_of_it() {
    let setup = setup(|_| {}).await;
    let _socket = setup.open("/ws/echo").await;
    setup.served.abort();
    assert_eq!(setup.app_hears(1).await, ["dropped"]);
    assert_eq!(setup.finished().await, ["/ws/echo 101 0 cut"]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_it_and_the_connection_ends() {
    let setup = setup(|_| {}).await;
    let mut socket = setup.open("/ws/echo").await;
    let started = Instant::now();
    setup.phase.send_replace(Phase::Draining);
    assert_eq!(
        &timeout(SOON * 4, socket.down.data()).await.unwrap().unwrap().unwrap()[2..4],
        1001_u16.to_be_bytes()
    );
    assert_eq!(started.elapsed().as_secs(), 5);
    socket.frame(0x88, b"\x03\xe9");
    assert!(socket.at_end().await);
    socket.up.send_data(Bytes::new(), true).unwrap();
    drop(socket);
    timeout(SOON, setup.served).await.expect("the connection stays").unwrap();
}
