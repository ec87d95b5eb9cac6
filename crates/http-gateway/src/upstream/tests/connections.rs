//! Connections: reuse, staleness, bounds; and which server gets a request.

use std::time::Duration;

use crate::request_body::Payload;
use crate::upstream::fake::*;
use crate::upstream::{ServerAddress, TlsFiles, Upstream};

fn body(text: &str) -> Payload {
    Payload::Memory(text.as_bytes().to_vec())
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let fake = Fake::start(vec![answers(HELLO)]).await;
    let upstream = upstream(&fake);
    for _ in 0..3 {
        assert_eq!(get(&upstream).await, "200 hello");
    }
    assert_eq!(fake.connections(), 1);
    let heard = &fake.heard()[0];
    assert_eq!(heard.matches("GET / HTTP/1.1\r\nHost: site.test\r\n").count(), 3, "{heard}");
    assert!(heard.contains("X-Forwarded-For: 192.0.2.9\r\n") && heard.contains("X-Request-ID: id1\r\n"));
}

#[tokio::test]
async fn an_answer_that_ends_the_connection_does() {
    for last in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let fake = Fake::start(vec![answers(last)]).await;
        let upstream = upstream(&fake);
        assert_eq!(get(&upstream).await, "200 hello");
        assert_eq!(get(&upstream).await, "200 hello");
        assert_eq!(fake.connections(), 2, "{last}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_not_used() {
    let fake = Fake::start(vec![vec![Step::Head, say(HELLO)], answers(HELLO)]).await;
    let upstream = upstream(&fake);
    assert_eq!(get(&upstream).await, "200 hello");
    fake.has_done(0, 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let post = ask(&upstream, &head("POST", "/"), body("x"), &mut nothing()).await;
    assert_eq!(show(post).await, "200 hello");
    assert_eq!(fake.connections(), 2);
}

/// It closes when the next request has come: what a server does whose patience ends at the same moment.
fn closes_on_the_second() -> Vec<Step> {
    vec![Step::Head, say(HELLO), Step::Head]
}

#[tokio::test]
async fn a_kept_connection_that_dies_costs_nothing_where_twice_is_as_good_as_once() {
    let fake = Fake::start(vec![closes_on_the_second(), answers(HELLO)]).await;
    let upstream = upstream(&fake);
    assert_eq!(get(&upstream).await, "200 hello");
    assert_eq!(get(&upstream).await, "200 hello");
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let fake = Fake::start(vec![closes_on_the_second(), answers(HELLO)]).await;
    let upstream = upstream(&fake);
    assert_eq!(get(&upstream).await, "200 hello");
    let post = ask(&upstream, &head("POST", "/"), body("x"), &mut nothing()).await;
    assert_eq!(show(post).await, "no server answered");
    assert_eq!(fake.heard().concat().matches("POST").count(), 1);
}

#[tokio::test]
async fn a_request_that_must_not_be_sent_twice_takes_no_old_connection() {
    let fake = Fake::start(vec![answers(HELLO)]).await;
    let upstream = upstream(&fake);
    assert_eq!(get(&upstream).await, "200 hello");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let post = ask(&upstream, &head("POST", "/"), body("x"), &mut nothing()).await;
    assert_eq!(show(post).await, "200 hello");
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn idle_connections_end_when_their_time_is_over() {
    let script = vec![Step::Head, say(HELLO), Step::End];
    let fake = Fake::start(vec![script]).await;
    let upstream = upstream_with(&fake, |it| it.keep_alive = Duration::from_millis(100));
    assert_eq!(get(&upstream).await, "200 hello");
    upstream.sweep();
    tokio::time::sleep(Duration::from_millis(150)).await;
    upstream.sweep();
    // The server sees the end.
    fake.has_done(0, 3).await;
    assert_eq!(get(&upstream).await, "200 hello");
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn connections_are_bounded_and_who_waits_is_served() {
    let slow = vec![Step::Head, Step::Wait(Duration::from_millis(150)), say(HELLO), Step::Again];
    let fake = Fake::start(vec![slow]).await;
    let upstream = upstream_with(&fake, |it| it.connections_max = 2);
    let all = futures_util::future::join_all((0..4).map(|_| get(&upstream))).await;
    assert_eq!(all, ["200 hello"; 4]);
    assert_eq!(fake.connections(), 2);

    let stalls = Fake::start(vec![vec![Step::Stall]]).await;
    let upstream = upstream_with(&stalls, |it| {
        it.connections_max = 1;
        it.connect_timeout = Duration::from_millis(100);
        it.response_timeout = Duration::from_secs(1);
    });
    let (first, second, third) = tokio::join!(get(&upstream), get(&upstream), get(&upstream));
    assert_eq!([first, second, third].map(|it| it.contains("in use")), [false, true, true]);
}

#[tokio::test]
async fn a_client_that_goes_takes_its_connection_along() {
    let fake = Fake::start(vec![vec![Step::Head, Step::End]]).await;
    let upstream = upstream(&fake);
    let gone = tokio::time::timeout(Duration::from_millis(100), get(&upstream)).await;
    assert!(gone.is_err());
    fake.has_done(0, 2).await;
}

#[tokio::test]
async fn another_server_is_asked_where_that_is_safe() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port, tls: false }
    };
    let dies = Fake::start(vec![vec![Step::Head]]).await;
    let cuts = Fake::start(vec![vec![Step::Head, say("HTTP/1.1 2")]]).await;
    let good = Fake::start(vec![answers(HELLO)]).await;
    for bad in [&nobody, &dies.server(), &cuts.server()] {
        for method in ["GET", "POST"] {
            let both = settings(vec![bad.clone(), good.server()]);
            let upstream = Upstream::new(both, TlsFiles::default()).unwrap();
            let got = show(ask(&upstream, &head(method, "/"), body("x"), &mut nothing()).await).await;
            // A server that was not reached has done nothing; one that has heard a POST may have.
            let expected = if method == "GET" || *bad == nobody { "200 hello" } else { "no server answered" };
            assert_eq!(got, expected, "{method} {bad:?}");
        }
    }
    let upstream = Upstream::new(settings(vec![nobody]), TlsFiles::default()).unwrap();
    assert_eq!(get(&upstream).await, "no server answered");
}

#[tokio::test]
async fn requests_take_turns_and_a_server_that_fails_rests() {
    let one = Fake::start(vec![answers(HELLO)]).await;
    let two = Fake::start(vec![answers(HELLO)]).await;
    let upstream = Upstream::new(settings(vec![one.server(), two.server()]), TlsFiles::default()).unwrap();
    for _ in 0..6 {
        assert_eq!(get(&upstream).await, "200 hello");
    }
    let asked = |fake: &Fake| fake.heard().concat().matches("GET").count();
    assert_eq!((asked(&one), asked(&two)), (3, 3));

    let dies = Fake::start(vec![vec![Step::Head]]).await;
    let upstream = Upstream::new(settings(vec![dies.server(), two.server()]), TlsFiles::default()).unwrap();
    for _ in 0..20 {
        assert_eq!(get(&upstream).await, "200 hello");
    }
    assert_eq!(dies.connections(), 3, "then it rests");
}

#[tokio::test]
async fn a_unix_socket_is_a_place_too() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        for step in [Step::Head, say(HELLO)] {
            assert!(follow(&mut stream, &step, |bytes| heard.extend(bytes)).await);
        }
        String::from_utf8(heard).unwrap()
    });
    let upstream = Upstream::new(settings(vec![ServerAddress::Unix(path)]), TlsFiles::default()).unwrap();
    assert_eq!(get(&upstream).await, "200 hello");
    assert!(server.await.unwrap().contains("\r\nHost: site.test\r\n"));
}

#[tokio::test]
async fn host_is_what_the_configuration_says() {
    use crate::upstream::HostRule;
    let port = |fake: &Fake| fake.address.port();
    let fake = Fake::start(vec![answers(HELLO)]).await;
    for (rule, expected) in [
        (HostRule::Client, "site.test".to_owned()),
        (HostRule::Server, format!("127.0.0.1:{}", port(&fake))),
        (HostRule::Name("inner.test".to_owned()), "inner.test".to_owned()),
    ] {
        let before = fake.heard().concat().len();
        let upstream = upstream_with(&fake, |it| it.host = rule);
        assert_eq!(get(&upstream).await, "200 hello");
        let heard = fake.heard().concat();
        assert!(heard[before..].contains(&format!("\r\nHost: {expected}\r\n")), "{heard}");
    }
}
