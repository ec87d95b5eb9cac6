//! Connections in memory, spoken to by the `h2` crate's client and, where it is too polite, by raw frames.

use std::time::Duration;

use h2::client::{self, SendRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::drain::Phase;
use crate::testing::{Answers, FILE_BYTES, LARGE_BYTES};

mod floods;
mod websockets;

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(5);

/// What the client's connection ends with.
type Client = JoinHandle<Result<(), h2::Error>>;

struct Server {
    phase: watch::Sender<Phase>,
    over: JoinHandle<()>,
}

fn serve_on(stream: DuplexStream, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config::default();
    change(&mut config);
    let (phase, drain) = Drain::channel();
    let connection = Connection::default();
    let over = tokio::spawn(async move {
        serve(stream, BytesMut::new(), connection, Arc::new(Answers), Arc::new(config), drain).await;
    });
    Server { phase, over }
}

impl Server {
    async fn ends(self) {
        timeout(SOON, self.over).await.expect("the connection stays").unwrap();
    }
}

async fn connect(change: impl FnOnce(&mut Config)) -> (SendRequest<Bytes>, Server, Client) {
    let (ours, theirs) = duplex(1 << 16);
    let server = serve_on(ours, change);
    let (send, connection) = client::handshake(theirs).await.unwrap();
    (send, server, tokio::spawn(connection))
}

fn request(method: &str, path: &str) -> http::Request<()> {
    http::Request::builder().method(method).uri(format!("https://a.test{path}")).body(()).unwrap()
}

type Got = (u16, http::HeaderMap, Result<Vec<u8>, h2::Error>);

/// Sends a request with a body; its response whole.
async fn ask(send: &SendRequest<Bytes>, request: http::Request<()>, body: &[u8]) -> Result<Got, h2::Error> {
    let mut send = send.clone().ready().await?;
    let (response, mut up) = send.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        up.send_data(Bytes::copy_from_slice(body), true)?;
    }
    let (head, mut down) = timeout(SOON, response).await.expect("no answer")?.into_parts();
    let mut all = Vec::new();
    let body = loop {
        match timeout(SOON, down.data()).await.expect("the body stops") {
            Some(Ok(piece)) => {
                down.flow_control().release_capacity(piece.len()).unwrap();
                all.extend_from_slice(&piece);
            }
            Some(Err(error)) => break Err(error),
            None => break Ok(all),
        }
    };
    Ok((head.status.as_u16(), head.headers, body))
}

#[tokio::test]
async fn answers_many_streams_on_one_connection() {
    let (send, _server, _client) = connect(|_| {}).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let send = send.clone();
        asked.spawn(async move { ask(&send, request("GET", "/"), b"").await.unwrap() });
    }
    while let Some(got) = asked.join_next().await {
        let (status, headers, body) = got.unwrap();
        assert_eq!((status, body.unwrap().as_slice()), (200, &b"hello"[..]));
        assert_eq!(headers["content-length"], "5");
        assert!(headers.contains_key("date"));
    }
}

#[tokio::test]
async fn a_slow_stream_holds_up_no_other() {
    let (send, _server, _client) = connect(|_| {}).await;
    let slow = tokio::spawn({
        let send = send.clone();
        async move { ask(&send, request("GET", "/slow"), b"").await.unwrap().0 }
    });
    tokio::task::yield_now().await;
    assert_eq!(ask(&send, request("GET", "/"), b"").await.unwrap().0, 200);
    assert!(!slow.is_finished());
    assert_eq!(slow.await.unwrap(), 200);
}

#[tokio::test]
async fn bodies_larger_than_the_windows_go_both_ways() {
    let (send, _server, _client) = connect(|_| {}).await;
    let (status, headers, body) = ask(&send, request("GET", "/large"), b"").await.unwrap();
    assert_eq!((status, body.unwrap().len()), (200, LARGE_BYTES));
    assert_eq!(headers["content-length"], LARGE_BYTES.to_string());
    let up = vec![b'u'; 3 << 20];
    let (status, _, body) = ask(&send, request("POST", "/echo"), &up).await.unwrap();
    assert_eq!(status, 200);
    assert!(body.unwrap() == up);
}

#[tokio::test]
async fn files_and_streams_go_out_as_they_come() {
    let (send, _server, _client) = connect(|_| {}).await;
    let (status, headers, body) = ask(&send, request("GET", "/file"), b"").await.unwrap();
    assert_eq!((status, body.unwrap()), (200, vec![b'f'; FILE_BYTES]));
    assert_eq!(headers["content-length"], FILE_BYTES.to_string());
    let (status, headers, body) = ask(&send, request("GET", "/stream"), b"").await.unwrap();
    assert_eq!((status, body.unwrap().as_slice()), (200, &b"one two three"[..]));
    assert!(!headers.contains_key("content-length"));
    let (status, _, body) = ask(&send, request("HEAD", "/stream"), b"").await.unwrap();
    assert_eq!((status, body.unwrap().len()), (200, 0));
}

#[tokio::test]
async fn a_stream_that_breaks_off_does_not_end_like_a_whole_one() {
    let (send, _server, _client) = connect(|_| {}).await;
    let (status, _, body) = ask(&send, request("GET", "/broken"), b"").await.unwrap();
    assert_eq!((status, body.unwrap_err().reason()), (200, Some(h2::Reason::INTERNAL_ERROR)));
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_and_trailers_are_ignored() {
    let (send, _server, _client) = connect(|_| {}).await;
    let mut waits = request("POST", "/echo");
    waits.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut response, mut up) = send.ready().await.unwrap().send_request(waits, false).unwrap();
    let told = timeout(SOON, poll_fn(|cx| response.poll_informational(cx))).await.expect("no 100");
    assert_eq!(told.unwrap().unwrap().status(), 100);
    up.send_data(Bytes::from_static(b"body"), false).unwrap();
    up.send_trailers(http::HeaderMap::from_iter([("x".parse().unwrap(), "y".parse().unwrap())])).unwrap();
    let mut down = timeout(SOON, response).await.unwrap().unwrap().into_body();
    assert_eq!(&down.data().await.unwrap().unwrap()[..], b"body");
}

#[tokio::test]
async fn hints_come_first_and_trailers_last() {
    let (send, _server, _client) = connect(|_| {}).await;
    let mut send = send.ready().await.unwrap();
    let (mut response, _) = send.send_request(request("GET", "/hints"), true).unwrap();
    let hint = timeout(SOON, poll_fn(|cx| response.poll_informational(cx))).await.expect("no 103");
    let hint = hint.unwrap().unwrap();
    assert_eq!((hint.status().as_u16(), hint.headers().len()), (103, 2));
    assert_eq!(hint.headers()["link"], "</a.css>; rel=preload");
    let mut down = timeout(SOON, response).await.unwrap().unwrap().into_body();
    assert_eq!(&down.data().await.unwrap().unwrap()[..], b"body");
    assert!(down.data().await.is_none());
    let trailers = down.trailers().await.unwrap().expect("trailers");
    assert_eq!(
        (trailers.len(), &trailers["link"]),
        (1, &http::HeaderValue::from_static("</a.css>; rel=preload"))
    );
}

#[tokio::test]
async fn an_answer_can_go_out_while_its_request_comes_in() {
    let (send, _server, _client) = connect(|_| {}).await;
    let mut send = send.ready().await.unwrap();
    let (response, mut up) = send.send_request(request("POST", "/relay"), false).unwrap();
    let mut down = timeout(SOON, response).await.expect("no head").unwrap().into_body();
    for piece in ["one", "two"] {
        up.send_data(Bytes::from_static(piece.as_bytes()), false).unwrap();
        let answered = timeout(SOON, down.data()).await.expect("no piece").unwrap().unwrap();
        assert_eq!(answered, piece.to_uppercase());
    }
    up.send_data(Bytes::new(), true).unwrap();
    // An empty frame is the end.
    assert_eq!(timeout(SOON, down.data()).await.expect("no end").unwrap().unwrap(), "");
    assert!(down.is_end_stream());
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let (send, _server, _client) = connect(|_| {}).await;
    let (status, headers, body) = ask(&send, request("HEAD", "/"), b"").await.unwrap();
    assert_eq!((status, body.unwrap().len()), (200, 0));
    assert_eq!(headers["content-length"], "5");
}

#[tokio::test]
async fn refusals_answer_the_stream_and_keep_the_connection() {
    let (send, _server, _client) = connect(|config| config.limits.headers_max = 2000).await;
    let long = format!("/{}", "x".repeat(9000));
    assert_eq!(ask(&send, request("GET", &long), b"").await.unwrap().0, 414);
    let mut large = request("GET", "/");
    large.headers_mut().insert("a", "x".repeat(2000).parse().unwrap());
    assert_eq!(ask(&send, large, b"").await.unwrap().0, 431);
    let mut other = request("GET", "/");
    other.headers_mut().insert("host", "b.test".parse().unwrap());
    assert_eq!(ask(&send, other, b"").await.unwrap().0, 400);
    assert_eq!(ask(&send, request("GET", "/"), b"").await.unwrap().0, 200);
}

#[tokio::test]
async fn a_response_that_contradicts_itself_is_not_sent() {
    let (send, _server, _client) = connect(|_| {}).await;
    assert_eq!(ask(&send, request("GET", "/lie"), b"").await.unwrap().0, 502);
}

#[tokio::test]
async fn a_request_body_that_stops_is_answered_408() {
    let (send, _server, _client) = connect(|config| config.timeouts.body = Duration::from_millis(50)).await;
    let mut send = send.ready().await.unwrap();
    let (response, mut up) = send.send_request(request("POST", "/echo"), false).unwrap();
    up.send_data(Bytes::from_static(b"some"), false).unwrap();
    assert_eq!(timeout(SOON, response).await.unwrap().unwrap().status(), 408);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let (send, _server, _client) = connect(|config| config.timeouts.write = Duration::from_millis(50)).await;
    let mut send = send.ready().await.unwrap();
    let (response, _up) = send.send_request(request("GET", "/large"), true).unwrap();
    let mut down = response.await.unwrap().into_body();
    // Nothing is released: the window of 64 KiB fills and stays full.
    let error = loop {
        match timeout(SOON, down.data()).await.expect("not cut off") {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("a megabyte went through a closed window"),
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_a_goaway() {
    let (send, server, client) =
        connect(|config| config.timeouts.keep_alive = Duration::from_millis(50)).await;
    assert_eq!(ask(&send, request("GET", "/"), b"").await.unwrap().0, 200);
    server.ends().await;
    drop(send);
    timeout(SOON, client).await.unwrap().unwrap().expect("the end is in order");
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight() {
    let (send, server, client) = connect(|_| {}).await;
    let slow = tokio::spawn({
        let send = send.clone();
        async move { ask(&send, request("GET", "/slow"), b"").await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.phase.send_replace(Phase::Draining);
    assert_eq!(slow.await.unwrap().unwrap().0, 200);
    server.ends().await;
    timeout(SOON, client).await.unwrap().unwrap().expect("the end is in order");
}

#[tokio::test]
async fn when_the_client_goes_its_exchanges_go() {
    let (send, server, client) = connect(|_| {}).await;
    let mut send = send.ready().await.unwrap();
    let (_response, _up) = send.send_request(request("GET", "/never"), true).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.abort();
    server.ends().await;
}

#[tokio::test]
async fn cookie_crumbs_and_authority_reach_the_app_as_http1_has_them() {
    let (send, _server, _client) = connect(|_| {}).await;
    let mut crumbs = request("GET", "/head");
    crumbs.headers_mut().append("cookie", "a=1".parse().unwrap());
    crumbs.headers_mut().append("cookie", "b=2".parse().unwrap());
    let (_, _, body) = ask(&send, crumbs, b"").await.unwrap();
    assert_eq!(String::from_utf8(body.unwrap()).unwrap(), "host: a.test\ncookie: a=1; b=2\n");
}

/// A frame: length, type, flags, stream (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET http://a/` from the static table, the authority literal (RFC 7541, A and 6.2.2).
const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x01, 0x01, b'a'];

async fn raw(change: impl FnOnce(&mut Config)) -> (DuplexStream, Server) {
    let (ours, mut theirs) = duplex(1 << 20);
    let server = serve_on(ours, change);
    theirs.write_all(PREFACE).await.unwrap();
    theirs.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    (theirs, server)
}

/// The kinds, streams and payloads of all frames until the connection ends.
async fn frames(mut theirs: DuplexStream) -> Vec<(u8, u32, Vec<u8>)> {
    let mut bytes = Vec::new();
    timeout(SOON, theirs.read_to_end(&mut bytes)).await.expect("the connection stays").unwrap();
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 9 {
        let len = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let stream = u32::from_be_bytes([rest[5], rest[6], rest[7], rest[8]]);
        frames.push((rest[3], stream, rest[9..9 + len].to_vec()));
        rest = &rest[9 + len..];
    }
    frames
}

#[tokio::test]
async fn goaway_comes_in_two_steps() {
    let (mut theirs, server) = raw(|_| {}).await;
    theirs.write_all(&frame(1, 5, 1, &GET)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.phase.send_replace(Phase::Draining);
    tokio::time::sleep(Duration::from_millis(20)).await;
    // A request that crossed the first GOAWAY is answered; the round trip ends with our acknowledgement of the PING, whose
    // payload the crate chose.
    theirs.write_all(&frame(1, 5, 3, &GET)).await.unwrap();
    theirs.write_all(&frame(6, 1, 0, &[0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54])).await.unwrap();
    let frames = frames(theirs).await;
    let goaways: Vec<u32> = frames
        .iter()
        .filter(|(kind, ..)| *kind == 7)
        .map(|(_, _, payload)| u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]))
        .collect();
    assert_eq!(goaways, [0x7fff_ffff, 3], "{frames:?}");
    let answered: Vec<u32> =
        frames.iter().filter(|(kind, ..)| *kind == 1).map(|(_, stream, _)| *stream).collect();
    assert_eq!(answered, [1, 3]);
    server.ends().await;
}

#[tokio::test]
async fn a_client_that_ignores_the_goaway_is_not_waited_for() {
    let (theirs, server) = raw(|config| config.timeouts.keep_alive = Duration::from_millis(200)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.phase.send_replace(Phase::Draining);
    server.ends().await;
    drop(theirs);
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let (mut theirs, server) = raw(|_| {}).await;
    let mut flood = Vec::new();
    for stream in (1..2001).step_by(2) {
        flood.extend(frame(1, 5, stream, &GET));
        flood.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    let _the_server_may_close_meanwhile = theirs.write_all(&flood).await;
    let frames = frames(theirs).await;
    let (_, _, payload) = frames.iter().find(|(kind, ..)| *kind == 7).expect("no GOAWAY");
    assert_eq!(payload[4..8], 11_u32.to_be_bytes(), "ENHANCE_YOUR_CALM");
    server.ends().await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused() {
    let (mut theirs, server) = raw(|config| {
        config.limits.h2_streams_max = 2;
        config.timeouts.keep_alive = Duration::from_millis(100);
    })
    .await;
    // "/slow", so that the first two are still open.
    let slow = [0x82, 0x86, 0x04, 0x05, b'/', b's', b'l', b'o', b'w', 0x01, 0x01, b'a'];
    for stream in [1, 3, 5] {
        theirs.write_all(&frame(1, 5, stream, &slow)).await.unwrap();
    }
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    drop(server.phase);
    for (kind, stream, payload) in frames(theirs).await {
        match kind {
            1 => answered.push(stream),
            // REFUSED_STREAM: safe to try again (RFC 9113, 8.7).
            3 if payload == 7_u32.to_be_bytes() => refused.push(stream),
            _ => {}
        }
    }
    answered.sort_unstable();
    assert_eq!((answered, refused), (vec![1, 3], vec![5]));
}

#[tokio::test]
async fn bytes_that_are_no_http2_end_the_connection() {
    let (ours, mut theirs) = duplex(1 << 16);
    let server = serve_on(ours, |_| {});
    theirs.write_all(PREFACE).await.unwrap();
    theirs.write_all(&[0xff; 64]).await.unwrap();
    server.ends().await;
}

#[test]
fn the_preface_is_told_apart() {
    assert_eq!(begins_with_preface(b""), None);
    assert_eq!(begins_with_preface(b"PRI"), None);
    assert_eq!(begins_with_preface(b"PRINT / HTTP/1.1\r\n"), Some(false));
    assert_eq!(begins_with_preface(b"GET / HTTP/1.1\r\n"), Some(false));
    assert_eq!(begins_with_preface(PREFACE), Some(true));
    assert_eq!(begins_with_preface(&[PREFACE, b"more"].concat()), Some(true));
}
