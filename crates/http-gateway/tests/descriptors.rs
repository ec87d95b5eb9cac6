//! A process of its own, because it takes its file descriptors away: the accept loop must tell clients and recover.
#![allow(clippy::unwrap_used, reason = "tests say by a panic what is wrong")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ctl_config::Config;
use ctl_telemetry::metrics::ACCEPT_ERRORS_TOTAL;
use http_gateway::client::TrustedProxies;
use http_gateway::drain::Drain;
use http_gateway::error_page::own_trail;
use http_gateway::listen::{Edge, Listening, run_reactors};
use http_gateway::message::{
    Body, Connection, Exchange, Headers, RequestBody, RequestHead, Response, Service,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;

struct Hello;

fn hello(status: u16) -> Response {
    let trail = own_trail(Instant::now(), "".into(), None);
    let body = Body::Bytes(Bytes::from_static(b"hello"));
    Response { status, reason: Box::default(), headers: Headers::default(), body, close: false, trail }
}

impl Service for Hello {
    async fn call<B: RequestBody>(&self, _: &Connection, _: &RequestHead, _: &mut B) -> Response {
        hello(200)
    }

    fn refuse(&self, _: &Connection, status: u16, _: &'static str) -> Response {
        hello(status)
    }

    fn finished(&self, _: &Exchange<'_>) {}
}

/// The status line of what comes, waited for at most `patience`; empty when nothing does.
fn status_line(stream: &mut TcpStream, patience: Duration) -> String {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut got = [0; 1024];
    let n = stream.read(&mut got).unwrap_or(0);
    String::from_utf8_lossy(&got[..n]).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn without_descriptors_clients_are_told_and_those_who_wait_are_served_later() {
    const CLIENTS: usize = 24;
    const FREE: usize = 6;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (gate, open) = watch::channel(false);
    let (_phase, drain) = Drain::channel();
    let mut config = Config::default();
    config.server.reactors = Some(1);
    let edge = Edge {
        service: Arc::new(Hello),
        config: Arc::new(config),
        tls: None,
        trusted: Arc::new(TrustedProxies::default()),
        gate: open,
        drain,
    };
    let listening = Listening { socket: listener.into(), name: "test".to_owned(), tls: false };
    let reactors = run_reactors(vec![listening], edge).unwrap();
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    for client in &mut clients {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    }

    // The lowest number that is free now is the first that an accept would get.
    let next = std::fs::File::open("/dev/null").unwrap();
    let lowest = std::os::fd::AsRawFd::as_raw_fd(&next) as u64;
    drop(next);
    let limit = Rlimit { current: Some(lowest + FREE as u64), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    gate.send_replace(true);

    // Some are served, some are told; nobody hangs, although at no time more than a few could be accepted.
    let (mut served, mut told) = (0, 0);
    for mut client in clients {
        let line = status_line(&mut client, Duration::from_secs(20));
        match line.as_str() {
            "HTTP/1.1 200 OK" => served += 1,
            "HTTP/1.1 503 Service Unavailable" => told += 1,
            other => panic!("{other:?} after {served} served and {told} told"),
        }
        // The client's end goes here, and with it the server's descriptor.
    }
    assert!(served >= FREE, "{served} served, {told} told");
    assert!(told > 0 && ACCEPT_ERRORS_TOTAL.get() > 0, "{served} served, {told} told");
    reactors.stop();
}
