//! Sticky sessions, through real connections.

use std::time::Duration;

use http_upstream::Secret;

use crate::request_body::Payload;
use crate::upstream::fake::*;
use crate::upstream::{Settings, Sticky, TlsFiles, Upstream};

fn of(servers: &[&Fake], with: impl FnOnce(&mut Settings)) -> Upstream {
    let mut settings = settings(servers.iter().map(|fake| fake.server()).collect());
    let secret = Secret::from_bytes(&[3; 32]);
    settings.sticky = Some(Sticky { cookie: "srv".to_owned(), time: Duration::ZERO, secret });
    with(&mut settings);
    Upstream::new(settings, TlsFiles::default()).unwrap()
}

/// A GET that brings a cookie: who answered, and the cookie that was set.
async fn get_with(upstream: &Upstream, cookie: Option<&str>) -> (String, Option<String>) {
    let mut head = head("GET", "/");
    head.headers.push(b"cookie", b"theme=dark");
    if let Some(cookie) = cookie {
        head.headers.push(b"cookie", format!("a=b; {cookie}").as_bytes());
    }
    let answer = ask(upstream, &head, Payload::Empty, &mut nothing()).await.unwrap();
    let set = answer.headers.get("set-cookie").map(|set| {
        let (pair, attributes) = std::str::from_utf8(set).unwrap().split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Secure");
        pair.to_owned()
    });
    (show(Ok(answer)).await, set)
}

fn says(name: &str) -> Vec<Step> {
    answers(&format!("HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 1\r\n\r\n{name}"))
}

#[tokio::test]
async fn a_client_comes_back_to_its_server() {
    let (a, b) = (Fake::start(vec![says("a")]).await, Fake::start(vec![says("b")]).await);
    let upstream = of(&[&a, &b], |_| {});
    let mut cookies = Vec::new();
    for _ in 0..2 {
        let (first, cookie) = get_with(&upstream, None).await;
        let cookie = cookie.expect("a cookie");
        for _ in 0..5 {
            assert_eq!(get_with(&upstream, Some(&cookie)).await, (first.clone(), None), "said once");
        }
        cookies.push(cookie);
    }
    assert_ne!(cookies[0], cookies[1], "the turn decides for those who bring none");
    let another = of(&[&b, &a], |_| {});
    let (name, _) = get_with(&upstream, Some(&cookies[0])).await;
    assert_eq!(get_with(&another, Some(&cookies[0])).await, (name, None), "other gateways know it, too");
    let (_, forged) = get_with(&upstream, Some("srv=00000000000000000000000000000000")).await;
    assert!(forged.is_some_and(|set| cookies.contains(&set)));
    for heard in [a.heard(), b.heard()].concat() {
        assert!(heard.contains("\r\ncookie: a=b\r\n") && !heard.contains("srv="), "{heard}");
    }
}

#[tokio::test]
async fn a_server_that_is_gone_hands_its_clients_on() {
    let (a, b) = (Fake::start(vec![says("a")]).await, Fake::start(vec![says("b")]).await);
    let upstream = of(&[&a, &b], |_| {});
    let (_, cookie) = get_with(&upstream, None).await;
    let old = cookie.unwrap();
    drop(a);
    let (name, new) = get_with(&upstream, Some(&old)).await;
    let new = new.expect("the cookie is set anew");
    assert_eq!((name.as_str(), new != old), ("200 b", true));
    assert_eq!(get_with(&upstream, Some(&new)).await, ("200 b".to_owned(), None));
}

#[tokio::test]
async fn a_server_that_answers_errors_keeps_nobody() {
    let failing = "HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno";
    let (a, b) = (Fake::start(vec![answers(failing)]).await, Fake::start(vec![says("b")]).await);
    let upstream = of(&[&a, &b], |_| {});
    assert_eq!(get_with(&upstream, None).await, ("503 no".to_owned(), None));
    let (name, cookie) = get_with(&upstream, None).await;
    assert_eq!((name.as_str(), cookie.is_some()), ("200 b", true));
}
