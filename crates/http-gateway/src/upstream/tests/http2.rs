//! HTTP/2: the same stories against a server that resets, refuses, leaves and lies in its own way.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::message::{Body, BodyLength};
use crate::request_body::Payload;
use crate::upstream::fake::*;
use crate::upstream::{ServerAddress, Settings, TlsFiles, Upstream};

/// A server that does what the path says.
struct Server {
    place: ServerAddress,
    connections: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, heard) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (counted, told) = (Arc::clone(&connections), Arc::clone(&heard));
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = counted.fetch_add(1, Relaxed);
                tasks.spawn(serve(stream, number, Arc::clone(&told)));
            }
        });
        let place = ServerAddress::Tcp { host: address.ip().to_string(), port: address.port(), tls: false };
        Self { place, connections, heard, task }
    }

    fn upstream_with(&self, with: impl FnOnce(&mut Settings)) -> Upstream {
        let mut settings = settings(vec![self.place.clone()]);
        settings.http2 = true;
        with(&mut settings);
        Upstream::new(settings, TlsFiles::default()).unwrap()
    }

    fn upstream(&self) -> Upstream {
        self.upstream_with(|_| {})
    }

    fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

async fn serve(stream: TcpStream, number: usize, heard: Arc<Mutex<Vec<String>>>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        heard.lock().unwrap().push(format!("{} {} {:?}", parts.method, parts.uri, parts.headers));
        match (path.as_str(), number) {
            // It closes with the request unanswered, the first time.
            ("/dies", 0) => return,
            ("/leaves", 0) => connection.abrupt_shutdown(Reason::NO_ERROR),
            _ => drop(tokio::spawn(answer(path, number, body, respond))),
        }
    }
}

fn head_of(fields: &[(&'static str, &str)]) -> Response<()> {
    let mut response = Response::new(());
    for (name, value) in fields {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    response
}

async fn answer(path: String, number: usize, mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    let hello = || Bytes::from_static(b"hello");
    match path.as_str() {
        "/refused" if number == 0 => respond.send_reset(Reason::REFUSED_STREAM),
        "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
        "/never" => std::future::pending().await,
        "/hints" => {
            let mut hint = head_of(&[("link", "</a.css>")]);
            *hint.status_mut() = http::StatusCode::EARLY_HINTS;
            respond.send_informational(hint).unwrap();
            let mut send = respond.send_response(head_of(&[]), false).unwrap();
            send.send_data(hello(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("server-timing", "db".parse().unwrap());
            send.send_trailers(trailers).unwrap();
        }
        "/early" => {
            let mut response = head_of(&[("content-length", "3")]);
            *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
            let mut send = respond.send_response(response, false).unwrap();
            send.send_data(Bytes::from_static(b"no!"), true).unwrap();
            // Dropping `body` resets with NO_ERROR, once the answer is out.
        }
        "/short" | "/cut" => {
            let mut send = respond.send_response(head_of(&[("content-length", "10")]), false).unwrap();
            send.send_data(hello(), path == "/short").unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            send.send_reset(Reason::INTERNAL_ERROR);
        }
        "/two-lengths" => {
            let response = head_of(&[("content-length", "5"), ("content-length", "6")]);
            let _the_crate_may_refuse = respond.send_response(response, true);
        }
        "/head" => drop(respond.send_response(head_of(&[("content-length", "12345")]), true)),
        "/echo" => {
            let mut send = respond.send_response(head_of(&[]), false).unwrap();
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                send.send_data(piece, false).unwrap();
            }
            let _the_client_may_be_gone = send.send_data(Bytes::new(), true);
        }
        _ => {
            let mut send = respond.send_response(head_of(&[("content-length", "5")]), false).unwrap();
            send.send_data(hello(), true).unwrap();
        }
    }
}

async fn fetch(upstream: &Upstream, method: &str, path: &str, payload: Payload) -> String {
    show(ask(upstream, &head(method, path), payload, &mut nothing()).await).await
}

async fn get_path(upstream: &Upstream, path: &str) -> String {
    fetch(upstream, "GET", path, Payload::Empty).await
}

#[tokio::test]
async fn requests_share_a_connection() {
    let server = Server::start().await;
    let upstream = server.upstream();
    let all = futures_util::future::join_all((0..5).map(|_| get_path(&upstream, "/a?b"))).await;
    assert_eq!(all, ["200 hello"; 5]);
    assert_eq!(server.connections(), 1);
    let heard = server.heard.lock().unwrap()[0].clone();
    assert!(heard.starts_with("GET http://site.test/a?b"), "{heard}");
    assert!(heard.contains(r#""x-forwarded-for": "192.0.2.9""#) && !heard.contains("\"host\""), "{heard}");
}

#[tokio::test]
async fn bodies_go_both_ways() {
    let server = Server::start().await;
    let upstream = server.upstream();
    for size in [1, 70_000, 3_000_000] {
        let got = fetch(&upstream, "POST", "/echo", Payload::Memory(vec![b'x'; size])).await;
        let expected = if size > 100 { format!("200 {size} bytes") } else { "200 x".to_owned() };
        assert_eq!(got, expected);
    }
    for (length, len) in [(BodyLength::Known(6), Some(6)), (BodyLength::Unknown, None)] {
        let (sender, mut body) = pieces(length);
        sender.send(Ok(Bytes::from_static(b"abc"))).unwrap();
        let got = ask(&upstream, &head("POST", "/echo"), Payload::Stream(len), &mut body).await.unwrap();
        // The answer begins before the request has ended.
        let Body::Stream(mut stream) = got.body else { panic!("it is not over") };
        let mut rest = stream.take_upload().expect("the server reads on");
        let client = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            sender.send(Ok(Bytes::from_static(b"def"))).unwrap();
            drop(sender);
        };
        let ((all, cut), (), ()) = tokio::join!(read(&mut stream), rest.forward(&mut body), client);
        assert_eq!((String::from_utf8(all).unwrap(), cut), ("abcdef".to_owned(), false));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_stands_before_and_behind_an_answer() {
    let server = Server::start().await;
    let upstream = server.upstream();
    let mut body = nothing();
    let got = ask(&upstream, &head("GET", "/hints"), Payload::Empty, &mut body).await.unwrap();
    assert_eq!(body.hints, ["103 link: </a.css>"]);
    let Body::Stream(mut stream) = got.body else { panic!("only streams have trailers") };
    assert_eq!(read(&mut stream).await, (b"hello".to_vec(), false));
    assert_eq!(stream.take_trailers().unwrap().get("server-timing"), Some(&b"db"[..]));
    assert_eq!(fetch(&upstream, "HEAD", "/head", Payload::Empty).await, "200 ");
}

#[tokio::test]
async fn servers_that_reset_refuse_or_leave() {
    for (path, get, post) in [
        // Nothing was done: another connection is tried.
        ("/refused", "200 hello", "200 hello"),
        // Nobody knows what was done. (Who leaves says up to which request; it was one of them.)
        ("/leaves", "200 hello", "no server answered"),
        ("/dies", "200 hello", "no server answered"),
        ("/reset", "no server answered", "no server answered"),
    ] {
        for (method, expected) in [("GET", get), ("POST", post)] {
            let server = Server::start().await;
            let upstream = server.upstream();
            assert_eq!(get_path(&upstream, "/first").await, "200 hello");
            assert_eq!(fetch(&upstream, method, path, Payload::Empty).await, expected, "{method} {path}");
            assert_eq!(get_path(&upstream, "/last").await, "200 hello", "behind {method} {path}");
        }
    }
}

#[tokio::test]
async fn what_came_too_late_for_a_server_that_leaves_goes_to_a_new_connection() {
    // Preface, settings, window and the beginning of the request.
    let hears = Step::Read(100);
    let frames = |frames: &[&[u8]]| Step::Say(frames.concat());
    let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // RFC 9113, 6.8: no stream was or will be looked at.
    let goes: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // HEADERS that end stream 1: `:status: 200` is entry 8 of HPACK's table.
    let answers: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
    let leaves = vec![hears.clone(), frames(&[settings, goes]), Step::End];
    let stays = vec![hears, frames(&[settings, answers]), Step::End];
    let fake = Fake::start(vec![leaves, stays]).await;
    let upstream = upstream_with(&fake, |it| it.http2 = true);
    assert_eq!(fetch(&upstream, "POST", "/", Payload::Memory(vec![b'x'; 10])).await, "200 ");
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn answers_that_break_off_or_lie() {
    let server = Server::start().await;
    let upstream = server.upstream();
    assert_eq!(get_path(&upstream, "/cut").await, "200 hello!");
    let short = get_path(&upstream, "/short").await;
    assert!(short == "200 hello!" || short == "the answer is not understood", "{short}");
    let lengths = get_path(&upstream, "/two-lengths").await;
    assert!(!lengths.starts_with("200"), "{lengths}");
    assert_eq!(get_path(&upstream, "/").await, "200 hello", "its neighbours have nothing of it");
}

#[tokio::test]
async fn a_silent_server_is_given_up_and_its_connection_left() {
    let server = Server::start().await;
    let upstream = server.upstream_with(|it| it.response_timeout = Duration::from_millis(300));
    assert_eq!(get_path(&upstream, "/never").await, "no answer in time");
    assert_eq!(get_path(&upstream, "/").await, "200 hello");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn an_early_answer_is_heard() {
    let server = Server::start().await;
    let upstream = server.upstream();
    let much = Payload::Memory(vec![b'x'; 16 << 20]);
    assert_eq!(fetch(&upstream, "POST", "/early", much).await, "413 no!");
    assert_eq!(get_path(&upstream, "/").await, "200 hello");
    assert_eq!(server.connections(), 1, "a stream ends alone");
}

#[tokio::test]
async fn connections_that_nobody_uses_are_left() {
    let server = Server::start().await;
    let upstream = server.upstream_with(|it| it.keep_alive = Duration::from_millis(100));
    assert_eq!(get_path(&upstream, "/").await, "200 hello");
    upstream.sweep();
    assert_eq!(get_path(&upstream, "/").await, "200 hello");
    assert_eq!(server.connections(), 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    upstream.sweep();
    for _ in 0..100 {
        if upstream.metrics().connections_open.get() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it is open still");
}

#[tokio::test]
async fn a_server_of_http1_is_told_from_one_of_http2() {
    let fake = Fake::start(vec![vec![Step::Head, say(HELLO), Step::End]]).await;
    let upstream = upstream_with(&fake, |it| {
        it.http2 = true;
        it.connect_timeout = Duration::from_millis(500);
    });
    let got = get(&upstream).await;
    assert!(got.contains("no server answered"), "{got}");
}
