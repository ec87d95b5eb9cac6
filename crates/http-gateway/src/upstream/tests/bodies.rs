//! Bodies both ways: whole, streamed, early, slow, with what stands before and behind them.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::message::{Body, BodyError, BodyLength};
use crate::request_body::Payload;
use crate::upstream::fake::*;

/// More than the kernel's buffers take between two sockets.
const MUCH: usize = 16 << 20;

fn file_of(bytes: usize) -> Payload {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![b'f'; bytes]).unwrap();
    Payload::File(Arc::new(file), bytes as u64)
}

#[tokio::test]
async fn request_bodies_arrive_whole() {
    for (payload, bytes) in [
        (Payload::Memory(vec![b'm'; 10]), 10),
        (Payload::Memory(vec![b'm'; 100_000]), 100_000),
        (file_of(300_000), 300_000),
    ] {
        let fake = Fake::start(vec![vec![Step::Head, Step::Read(bytes), say(HELLO), Step::Again]]).await;
        let upstream = upstream(&fake);
        for round in 1..=2 {
            let payload = match &payload {
                Payload::Memory(bytes) => Payload::Memory(bytes.clone()),
                Payload::File(file, len) => Payload::File(Arc::clone(file), *len),
                _ => Payload::Empty,
            };
            let got = ask(&upstream, &head("PUT", "/"), payload, &mut nothing()).await;
            assert_eq!(show(got).await, "200 hello", "{bytes} round {round}");
        }
        let heard = &fake.heard()[0];
        assert_eq!(heard.matches(&format!("Content-Length: {bytes}\r\n")).count(), 2);
        assert_eq!(heard.matches(['m', 'f']).count() / 2 / bytes, 1, "{bytes}");
        assert_eq!(fake.connections(), 1);
    }
}

#[tokio::test]
async fn streamed_bodies_are_framed_as_the_client_did() {
    for (length, len, wire) in [
        (BodyLength::Known(6), Some(6), "Content-Length: 6\r\n\r\nabcdef"),
        (BodyLength::Unknown, None, "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n"),
    ] {
        let bytes = wire.split("\r\n\r\n").skip(1).collect::<Vec<_>>().join("\r\n\r\n").len();
        let fake = Fake::start(vec![vec![Step::Head, Step::Read(bytes), say(HELLO), Step::Stall]]).await;
        let upstream = upstream(&fake);
        let (sender, mut body) = pieces(length);
        sender.send(Ok(Bytes::from_static(b"abcd"))).unwrap();
        let client = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            sender.send(Ok(Bytes::from_static(b"ef"))).unwrap();
            drop(sender);
        };
        let post = head("POST", "/");
        let (got, ()) = tokio::join!(ask(&upstream, &post, Payload::Stream(len), &mut body), client);
        assert_eq!(show(got).await, "200 hello");
        assert!(fake.heard()[0].ends_with(wire), "{}", fake.heard()[0]);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole() {
    for (length, len) in [(BodyLength::Known(6), Some(6)), (BodyLength::Unknown, None)] {
        for said in [Some(BodyError::Gone), None] {
            let fake = Fake::start(vec![vec![Step::Head, Step::End]]).await;
            let upstream = upstream(&fake);
            let (sender, mut body) = pieces(length);
            sender.send(Ok(Bytes::from_static(b"abc"))).unwrap();
            match (said, len) {
                (Some(error), _) => sender.send(Err(error)).unwrap(),
                // Chunks may end anywhere.
                (None, None) => continue,
                (None, Some(_)) => {}
            }
            drop(sender);
            let got = ask(&upstream, &head("POST", "/"), Payload::Stream(len), &mut body).await;
            assert!(show(got).await.starts_with("request body: "));
            fake.has_done(0, 2).await;
            assert!(!fake.heard()[0].contains("\r\n0\r\n\r\n"), "{}", fake.heard()[0]);
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_request_is_over_is_heard() {
    let refuses = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!";
    // It reads no more and closes: the rest of the body cannot be sent.
    for last in [Step::Reset, Step::Stall, Step::Wait(Duration::from_millis(1))] {
        for payload in [Payload::Memory(vec![b'm'; MUCH]), file_of(MUCH)] {
            let script = vec![
                Step::Head,
                Step::Read(1000),
                say(refuses),
                Step::Wait(Duration::from_millis(20)),
                last.clone(),
            ];
            let fake = Fake::start(vec![script, answers(HELLO)]).await;
            let upstream = upstream(&fake);
            let got = ask(&upstream, &head("POST", "/"), payload, &mut nothing()).await;
            assert_eq!(show(got).await, "413 no!", "{last:?}");
            assert_eq!(get(&upstream).await, "200 hello");
            assert_eq!(fake.connections(), 2, "a connection in the middle of a body serves nobody");
        }
    }
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_given_up() {
    let fake = Fake::start(vec![vec![Step::Head, Step::Stall]]).await;
    let upstream = upstream_with(&fake, |it| it.idle_timeout = Duration::from_millis(200));
    let got = ask(&upstream, &head("POST", "/"), Payload::Memory(vec![b'm'; MUCH]), &mut nothing()).await;
    assert_eq!(show(got).await, "no answer in time");
}

#[tokio::test]
async fn both_ways_at_once() {
    let script = vec![
        Step::Head,
        say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Step::Read(8),
        say("3\r\nABC\r\n"),
        Step::Read(8),
        say("3\r\nDEF\r\n"),
        Step::Read(5),
        say("0\r\n\r\n"),
        Step::Again,
    ];
    let fake = Fake::start(vec![script]).await;
    let upstream = upstream(&fake);
    for _ in 0..2 {
        let (sender, mut body) = pieces(BodyLength::Unknown);
        sender.send(Ok(Bytes::from_static(b"abc"))).unwrap();
        let got = ask(&upstream, &head("POST", "/"), Payload::Stream(None), &mut body).await.unwrap();
        let Body::Stream(mut stream) = got.body else { panic!("it is not over") };
        // The protocol's driver does this.
        let mut rest = stream.take_upload().expect("the server reads on");
        let client = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            sender.send(Ok(Bytes::from_static(b"def"))).unwrap();
            drop(sender);
        };
        let ((all, cut), (), ()) = tokio::join!(read(&mut stream), rest.forward(&mut body), client);
        assert_eq!((String::from_utf8(all).unwrap(), cut), ("ABCDEF".to_owned(), false));
    }
    assert_eq!(fake.connections(), 1, "all was said and heard");
}

#[tokio::test]
async fn an_upload_that_breaks_off_while_the_answer_runs_ends_the_connection() {
    let script = vec![Step::Head, say("HTTP/1.1 200 OK\r\n\r\nhello"), Step::End];
    let fake = Fake::start(vec![script]).await;
    let upstream = upstream(&fake);
    let (sender, mut body) = pieces(BodyLength::Known(10));
    let got = ask(&upstream, &head("POST", "/"), Payload::Stream(Some(10)), &mut body).await.unwrap();
    let Body::Stream(mut stream) = got.body else { panic!("it is not over") };
    drop(stream.take_upload());
    drop(sender);
    drop(stream);
    fake.has_done(0, 3).await;
}

#[tokio::test]
async fn a_body_waits_for_the_servers_word_where_the_client_does() {
    let mut post = head("POST", "/");
    post.headers.push(b"expect", b"100-continue");
    // It wants the body; it refuses it; it knows nothing of such words.
    for (script, expected) in [
        (vec![Step::Head, say("HTTP/1.1 100 Continue\r\n\r\n"), Step::Read(3), say(HELLO)], "200 hello"),
        (
            vec![Step::Head, say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"), Step::End],
            "401 no",
        ),
        (vec![Step::Head, Step::Read(3), say(HELLO)], "200 hello"),
    ] {
        let fake = Fake::start(vec![script]).await;
        let upstream = upstream(&fake);
        let (sender, mut body) = pieces(BodyLength::Known(3));
        sender.send(Ok(Bytes::from_static(b"abc"))).unwrap();
        drop(sender);
        let got = ask(&upstream, &post, Payload::Stream(Some(3)), &mut body).await;
        assert_eq!(show(got).await, expected);
        let heard = fake.heard()[0].clone();
        assert!(heard.contains("Expect: 100-continue\r\n"), "{heard}");
        assert_eq!(heard.ends_with("abc"), expected == "200 hello", "{heard}");
    }
}

#[tokio::test]
async fn what_stands_before_and_behind_an_answer() {
    let chunked = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
        HTTP/1.1 102 Processing\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nServer-Timing: db\r\n\r\n";
    let fake = Fake::start(vec![answers(chunked)]).await;
    let upstream = upstream(&fake);
    for _ in 0..2 {
        let mut body = nothing();
        let got = ask(&upstream, &head("GET", "/"), Payload::Empty, &mut body).await.unwrap();
        assert_eq!(body.hints, ["103 Link: </a.css>"]);
        let Body::Stream(mut stream) = got.body else { panic!("only streams have trailers") };
        assert_eq!(read(&mut stream).await, (b"hello".to_vec(), false));
        assert_eq!(stream.take_trailers().unwrap().get("server-timing"), Some(&b"db"[..]));
    }
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_alone() {
    for (method, answer, status) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n", 200),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 12345\r\n\r\n", 304),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
    ] {
        let fake = Fake::start(vec![answers(answer)]).await;
        let upstream = upstream(&fake);
        for _ in 0..2 {
            let got = ask(&upstream, &head(method, "/"), Payload::Empty, &mut nothing()).await;
            assert_eq!(show(got).await, format!("{status} "), "{answer}");
        }
        assert_eq!(fake.connections(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_slow_client_does_not_hold_the_connection() {
    let large = vec![b'x'; MUCH];
    let head_of = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
    let script = vec![Step::Head, say(&head_of), Step::Say(large), Step::Again];
    let fake = Fake::start(vec![script]).await;
    let upstream = upstream_with(&fake, |it| it.spool.disk_bytes = 1 << 30);
    let got = slow(ask(&upstream, &head("GET", "/"), Payload::Empty, &mut nothing()).await);
    // The client has not taken a byte.
    fake.has_done(0, 3).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = ask(&upstream, &head("GET", "/"), Payload::Empty, &mut nothing()).await;
    assert_eq!(fake.connections(), 1, "the connection is free already");
    for response in [got, second] {
        assert_eq!(show(response).await, format!("200 {MUCH} bytes"));
    }
}

#[tokio::test]
async fn without_room_the_server_waits_for_the_client() {
    let head_of = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {MUCH}\r\n\r\n");
    let script = vec![Step::Head, say(&head_of), Step::Say(vec![b'x'; MUCH])];
    let fake = Fake::start(vec![script]).await;
    let upstream = upstream_with(&fake, |it| {
        it.spool.memory_bytes = 64 << 10;
        it.held = Duration::from_millis(400);
    });
    let got = slow(ask(&upstream, &head("GET", "/"), Payload::Empty, &mut nothing()).await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(fake.has_not_done(0, 3), "it cannot have been taken anywhere");
    assert_eq!(show(got).await, format!("200 {MUCH} bytes"));
    // One that takes nothing at all is cut off.
    let got = slow(ask(&upstream, &head("GET", "/"), Payload::Empty, &mut nothing()).await);
    tokio::time::sleep(Duration::from_millis(800)).await;
    let shown = show(got).await;
    assert!(shown.ends_with('!'), "{shown}");
}

#[tokio::test]
async fn a_client_that_goes_amidst_the_answer_is_noticed() {
    let script = vec![Step::Head, say("HTTP/1.1 200 OK\r\n\r\nhello"), Step::End];
    let fake = Fake::start(vec![script]).await;
    let upstream = upstream(&fake);
    let got = ask(&upstream, &head("GET", "/"), Payload::Empty, &mut nothing()).await.unwrap();
    drop(got);
    fake.has_done(0, 3).await;
}
