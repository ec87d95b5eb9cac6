//! A name with several addresses: each is a server; they come and go.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::upstream::fake::*;
use crate::upstream::resolve::Spot;
use crate::upstream::{ServerAddress, TlsFiles, Upstream};

/// Servers on one port of several addresses of the loopback, as far as there are; each answers which it is.
async fn hosts() -> (u16, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let mut port = 0;
    for host in [1, 2, 3] {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), port)).await.unwrap();
        port = listener.local_addr().unwrap().port();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{host}");
                    while follow(&mut stream, &Step::Head, |_| {}).await {
                        follow(&mut stream, &say(&answer), |_| {}).await;
                    }
                });
            }
        });
    }
    (port, tasks)
}

fn spots(port: u16, hosts: &[u8]) -> Vec<Spot> {
    let address = |host: &u8| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, *host)), port);
    hosts.iter().map(|host| -> Spot { Box::new([address(host)]) }).collect()
}

fn upstream_of(port: u16) -> Upstream {
    // RFC 6761, 6.4: the resolver knows nothing of it.
    let server = ServerAddress::Tcp { host: "app.invalid".to_owned(), port, tls: false };
    let mut settings = settings(vec![server]);
    settings.balance.slow_start = std::time::Duration::ZERO;
    Upstream::new(settings, TlsFiles::default()).unwrap()
}

/// Who answers, of so many requests.
async fn who(upstream: &Upstream, requests: usize) -> String {
    let mut answers = Vec::new();
    for _ in 0..requests {
        answers.push(get(upstream).await.trim_start_matches("200 ").to_owned());
    }
    answers.sort_unstable();
    answers.concat()
}

#[tokio::test]
async fn each_address_is_a_server_and_they_come_and_go() {
    let (port, _hosts) = hosts().await;
    let upstream = upstream_of(port);
    upstream.members.pretend(&spots(port, &[1, 2]));
    assert_eq!(who(&upstream, 4).await, "1122", "found out with the first request");
    upstream.members.pretend(&spots(port, &[2, 3]));
    let (_, gone) = upstream.group().servers().swap_remove(0);
    let lease = gone.lease(crate::upstream::server::Wanted::Any, tokio::time::Instant::now()).await.unwrap();
    upstream.members.refresh(upstream.group(), "test").await;
    assert_eq!(who(&upstream, 4).await, "2233");
    let status = upstream.group().status(std::time::Instant::now());
    let mut rows: Vec<_> = status.iter().map(|it| (it.name.as_str(), it.requests)).collect();
    rows.sort_unstable();
    let name = |host: u8| format!("http://app.invalid:{port} 127.0.0.{host}");
    assert_eq!(rows, [(name(2).as_str(), 4), (name(3).as_str(), 2)], "who stays keeps its record");
    assert_eq!(upstream.metrics().connections_open.get(), 3, "of who is gone, the one in use");
    lease.give_back();
    assert_eq!(upstream.metrics().connections_open.get(), 2, "and nothing is kept of it");
    // Nobody is taken away by an answer that is an error.
    let before = upstream.metrics().resolve_failures.get();
    upstream.members.forget_when();
    upstream.members.refresh(upstream.group(), "test").await;
    assert_eq!(upstream.metrics().resolve_failures.get(), before + 1);
    assert_eq!(who(&upstream, 4).await, "2233");
}

#[tokio::test]
async fn a_name_that_is_not_known_is_a_server_that_is_away() {
    let upstream = upstream_of(80);
    assert_eq!(get(&upstream).await, "no server answered");
    assert_eq!(get(&upstream).await, "no server answered");
    let metrics = upstream.metrics();
    assert_eq!((metrics.resolve_failures.get(), metrics.failures.get()), (1, 2), "asked for once");
}
