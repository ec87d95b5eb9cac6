//! Reactors on loopback sockets, seen from clients.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use super::*;
use crate::drain::Phase;
use crate::testing::{Answers, tls_files};

/// Reactors and how to steer them.
struct Running {
    reactors: Reactors,
    address: Option<SocketAddr>,
    gate: watch::Sender<bool>,
    phase: watch::Sender<Phase>,
}

fn start(change: impl FnOnce(&mut Config), tls: Option<Arc<Identity>>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut running = start_on(listener.into(), change, tls);
    running.address = Some(address);
    running
}

fn start_on(socket: OwnedFd, change: impl FnOnce(&mut Config), tls: Option<Arc<Identity>>) -> Running {
    let mut config = Config::default();
    config.server.reactors = Some(2);
    change(&mut config);
    let (gate, open) = watch::channel(true);
    let (phase, drain) = Drain::channel();
    let is_tls = tls.is_some();
    let trusted = config.proxy.trusted.clone();
    let edge = Edge {
        service: Arc::new(Answers),
        config: Arc::new(config),
        tls,
        trusted: Arc::new(TrustedProxies::parse(&trusted).unwrap()),
        gate: open,
        drain,
    };
    let listening = Listening { socket, name: "test".to_owned(), tls: is_tls };
    let reactors = run_reactors(vec![listening], edge).unwrap();
    Running { reactors, address: None, gate, phase }
}

impl Running {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address.unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn drained(&self, timeout: Duration) -> bool {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(self.reactors.drained(timeout))
    }
}

fn get(stream: &mut (impl std::io::Read + std::io::Write), path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    read_response(stream)
}

/// Reads until the body of `Answers` is complete or the connection ends.
fn read_response(stream: &mut impl std::io::Read) -> String {
    let mut got = Vec::new();
    let mut piece = [0; 4096];
    while !got.ends_with(b"hello") {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(n) => got.extend_from_slice(&piece[..n]),
        }
    }
    String::from_utf8(got).unwrap()
}

#[test]
fn serves_http1_with_keep_alive_over_tcp_and_unix_sockets() {
    let running = start(|_| {}, None);
    let mut stream = running.connect();
    for _ in 0..3 {
        assert!(get(&mut stream, "/").starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert_eq!(running.reactors.connections(), 1);

    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let running = start_on(listener.into(), |_| {}, None);
    let mut stream = UnixStream::connect(dir.path().join("s")).unwrap();
    assert!(get(&mut stream, "/").starts_with("HTTP/1.1 200 OK\r\n"));
    running.reactors.stop();
}

#[test]
fn a_disk_that_hangs_does_not_hold_up_the_end() {
    let running = start(|_| {}, None);
    let (reached, waits) = std::sync::mpsc::channel();
    let (_end, hangs) = std::sync::mpsc::channel::<()>();
    drop(running.reactors.handles()[0].spawn_blocking(move || {
        reached.send(()).unwrap();
        let _hung = hangs.recv_timeout(Duration::from_secs(20));
    }));
    waits.recv().unwrap();
    let since = Instant::now();
    running.reactors.stop();
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_method_that_begins_like_the_preface_is_http1() {
    let running = start(|_| {}, None);
    let mut stream = running.connect();
    for piece in ["P", "R", "I / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(read_response(&mut stream).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn the_accepted_socket_does_not_delay() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (socket, _) = place(Listening { socket: listener.into(), name: String::new(), tls: false }).unwrap();
    let listener = TcpListener::from(socket);
    let _client = TcpStream::connect(address).unwrap();
    listener.set_nonblocking(false).unwrap();
    assert!(listener.accept().unwrap().0.nodelay().unwrap());
}

#[test]
fn nothing_is_accepted_before_the_gate_opens() {
    let running = start(|_| {}, None);
    running.gate.send_replace(false);
    std::thread::sleep(Duration::from_millis(50));
    let mut early = running.connect();
    early.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(running.reactors.connections(), 0);
    running.gate.send_replace(true);
    assert!(read_response(&mut early).starts_with("HTTP/1.1 200 OK\r\n"), "it waited, and is served");
}

#[test]
fn one_connection_too_many_is_told_so() {
    let running = start(|config| config.limits.connections_max = 2, None);
    let (mut first, mut second) = (running.connect(), running.connect());
    get(&mut first, "/");
    get(&mut second, "/");
    let mut third = running.connect();
    let mut told = String::new();
    third.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{told}");
    assert!(told.contains("Retry-After: 1\r\n"), "{told}");
    drop(first);
    let until = Instant::now() + Duration::from_secs(5);
    while running.reactors.connections() == 2 {
        assert!(Instant::now() < until, "the closed connection is still counted");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(get(&mut running.connect(), "/").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_client_that_sends_nothing_is_not_kept() {
    let running = start(|config| config.timeouts.header = Duration::from_millis(100), None);
    let mut silent = running.connect();
    assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0);
    running.phase.send_replace(Phase::Draining);
    assert!(running.drained(Duration::from_secs(5)));
}

#[test]
fn draining_ends_idle_connections_and_accepts_no_more() {
    let running = start(|_| {}, None);
    let mut idle = running.connect();
    get(&mut idle, "/");
    let mut busy = running.connect();
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    running.phase.send_replace(Phase::Draining);
    assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0, "closed in order");
    let last = read_response(&mut busy);
    assert!(last.starts_with("HTTP/1.1 200 OK\r\n") && last.contains("Connection: close\r\n"), "{last}");
    assert!(running.drained(Duration::from_secs(5)));
    // The listening socket lives on in the test's hands only if somebody else holds it: here nobody does.
    std::thread::sleep(Duration::from_millis(50));
    assert!(TcpStream::connect(running.address.unwrap()).is_err());
}

#[test]
fn a_connection_that_does_not_end_is_reported_and_cut() {
    let running = start(|_| {}, None);
    let mut busy = running.connect();
    busy.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    running.phase.send_replace(Phase::Draining);
    assert!(!running.drained(Duration::from_millis(100)));
    running.reactors.stop();
    assert_eq!(busy.read(&mut [0; 16]).unwrap_or(0), 0);
}

#[test]
fn tls_offers_both_protocols_and_resumes_sessions() {
    let files = tls_files();
    let identity = files.identity();
    let running = start(|_| {}, Some(identity));
    let config = files.client(&[b"http/1.1"]);
    let kinds: Vec<_> = (0..2)
        .map(|_| {
            let name = "localhost".try_into().unwrap();
            let mut session = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
            let mut socket = running.connect();
            let mut stream = rustls::Stream::new(&mut session, &mut socket);
            let facts = get(&mut stream, "/tls");
            // TLS 1.3 (RFC 8446, 4.2.1), and one of its suites (B.4).
            assert!(
                facts.starts_with("HTTP/1.1 200 OK\r\n") && facts.contains("\r\n\r\n0x0304 0x130"),
                "{facts}"
            );
            session.handshake_kind().unwrap()
        })
        .collect();
    assert_eq!(kinds, [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]);
}

#[test]
fn a_new_certificate_is_shown_to_new_connections() {
    let files = tls_files();
    let identity = files.identity();
    let running = start(|_| {}, Some(Arc::clone(&identity)));
    let shown = |config: Arc<rustls::ClientConfig>| {
        let name = "localhost".try_into().unwrap();
        let mut session = rustls::ClientConnection::new(config, name).unwrap();
        let mut socket = running.connect();
        get(&mut rustls::Stream::new(&mut session, &mut socket), "/");
        session.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown(files.client(&[]));
    files.renew();
    identity.reload().unwrap();
    assert_ne!(first, shown(files.client(&[])));
}

#[test]
fn a_handshake_that_does_not_come_is_not_waited_for_and_http_is_told_so() {
    let files = tls_files();
    let identity = files.identity();
    let running = start(|config| config.timeouts.tls_handshake = Duration::from_millis(100), Some(identity));
    let mut silent = running.connect();
    silent.write_all(&[22, 3, 1]).unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0);
    let mut clear = running.connect();
    clear.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let told = String::from_utf8(read_response_bytes(&mut clear)).unwrap();
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("https://"), "{told}");
}

fn read_response_bytes(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    let _ends_with_a_reset = stream.read_to_end(&mut got);
    got
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let behind_proxy = |config: &mut Config| {
        config.proxy.protocol = true;
        config.proxy.trusted = vec!["127.0.0.1".to_owned()];
        config.timeouts.header = Duration::from_millis(300);
    };
    let running = start(behind_proxy, None);
    let mut stream = running.connect();
    // In pieces, and with the request in the same breath as the end of the header.
    for piece in ["PROXY TCP4 192.0.2.7 198.51", ".100.1 4711 443\r\nGET /peer HTTP/1.1\r\nHost: a\r\n\r\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    let told = read_response(&mut stream);
    assert!(told.ends_with("192.0.2.7:4711 198.51.100.1:443 untrusted hello"), "{told}");

    for bad in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PROXY nonsense\r\n", "PROXY TCP4 192.0.2.7"] {
        let mut stream = running.connect();
        stream.write_all(bad.as_bytes()).unwrap();
        assert_eq!(read_response_bytes(&mut stream), b"", "{bad}");
    }

    let mut half = running.connect();
    half.write_all(b"PROXY TCP4 192.0.2.7").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_response_bytes(&mut half), b"");
}

#[test]
fn nobody_else_may_speak_the_proxy_protocol() {
    let running = start(|config| config.proxy.protocol = true, None);
    let mut stream = running.connect();
    stream.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n\r\n").unwrap();
    assert!(read_response(&mut stream).starts_with("HTTP/1.1 400 "));
}
