//! Active health checks against real connections: who is asked how, and what becomes of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::upstream::check::Checks;
use crate::upstream::fake::*;
use crate::upstream::server::Wanted;
use crate::upstream::{ServerAddress, Settings, TlsFiles, Upstream};

const SOON: Duration = Duration::from_millis(20);

/// A server that answers `hello`, and checks with the status that the test wants; 0: not at all.
struct Patient {
    port: u16,
    status: Arc<AtomicU16>,
    checked: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Patient {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let status = Arc::new(AtomicU16::new(status));
        let (checked, asked) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let shared = (Arc::clone(&status), Arc::clone(&checked), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (status, checked, asked) = shared.clone();
                connections.spawn(async move {
                    let mut heard = Vec::new();
                    while follow(&mut stream, &Step::Head, |bytes| heard.extend(bytes)).await {
                        let head = String::from_utf8(std::mem::take(&mut heard)).unwrap();
                        if !head.starts_with("GET /up?a=b HTTP/1.1\r\nHost: up.test\r\n") {
                            asked.fetch_add(1, Relaxed);
                            stream.write_all(HELLO.as_bytes()).await.unwrap();
                            continue;
                        }
                        checked.fetch_add(1, Relaxed);
                        match status.load(Relaxed) {
                            0 => std::future::pending().await,
                            status => {
                                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok");
                                stream.write_all(answer.as_bytes()).await.unwrap();
                            }
                        }
                    }
                });
            }
        });
        Self { port, status, checked, asked, task }
    }

    fn server(&self) -> ServerAddress {
        ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: self.port, tls: false }
    }
}

fn checks() -> Checks {
    Checks {
        path: "/up?a=b".to_owned(),
        host: Some("up.test".to_owned()),
        http2: false,
        statuses: vec![200..=399],
        interval: SOON,
        timeout: Duration::from_secs(5),
    }
}

/// An upstream whose servers are checked as long as the second is there.
fn watched(servers: Vec<ServerAddress>, with: impl FnOnce(&mut Settings)) -> (Upstream, JoinSet) {
    let mut settings = settings(servers);
    settings.checks = Some(checks());
    (settings.balance.health_rise, settings.balance.health_fall) = (2, 2);
    settings.balance.slow_start = Duration::ZERO;
    with(&mut settings);
    let upstream = Upstream::new(settings, TlsFiles::default()).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(upstream.watch(&Arc::new(Semaphore::new(1))).unwrap().run());
    (upstream, tasks)
}

type JoinSet = tokio::task::JoinSet<()>;

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// Requests that come to the first of two, of ten.
async fn share(upstream: &Upstream, of: &Patient) -> usize {
    let before = of.asked.load(Relaxed);
    for _ in 0..10 {
        assert_eq!(get(upstream).await, "200 hello");
    }
    of.asked.load(Relaxed) - before
}

fn ups(upstream: &Upstream) -> Vec<bool> {
    let group = upstream.group();
    group.servers().iter().map(|(id, _)| group.is_up(*id).unwrap()).collect()
}

#[tokio::test]
async fn a_server_that_is_not_well_gets_nothing_until_it_is() {
    let (sick, well) = (Patient::start(200).await, Patient::start(202).await);
    let (upstream, tasks) = watched(vec![sick.server(), well.server()], |_| {});
    until("both are checked", || sick.checked.load(Relaxed) > 0 && well.checked.load(Relaxed) > 0).await;
    assert_eq!(share(&upstream, &sick).await, 5);
    for status in [503, 404] {
        sick.status.store(status, Relaxed);
        until("it is down", || ups(&upstream) == [false, true]).await;
        assert_eq!(share(&upstream, &sick).await, 0, "{status}");
        sick.status.store(301, Relaxed);
        until("it is up", || ups(&upstream) == [true, true]).await;
        assert_eq!(share(&upstream, &sick).await, 5);
    }
    let metrics = upstream.metrics();
    assert!(
        metrics.health_failures.get() >= 4 && metrics.health_checks.get() > metrics.health_failures.get()
    );
    assert_eq!(metrics.failures.get(), 0, "no request failed");
    drop(tasks);
    tokio::time::sleep(5 * SOON).await;
    let before = sick.checked.load(Relaxed);
    tokio::time::sleep(10 * SOON).await;
    assert_eq!(sick.checked.load(Relaxed), before, "nobody asks any more");
}

#[tokio::test]
async fn one_who_is_silent_or_away_is_not_well_and_the_last_one_serves_all_the_same() {
    let silent = Patient::start(0).await;
    let away = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port, tls: false }
    };
    let (upstream, _tasks) = watched(vec![silent.server(), away], |it| {
        it.checks.as_mut().unwrap().timeout = SOON;
    });
    until("both are down", || ups(&upstream) == [false, false]).await;
    assert_eq!(get(&upstream).await, "200 hello", "rather than nobody");
    assert!(silent.checked.load(Relaxed) > 0);
}

#[tokio::test]
async fn checks_take_no_place_of_requests() {
    let patient = Patient::start(200).await;
    let (upstream, _tasks) = watched(vec![patient.server()], |it| it.connections_max = 1);
    until("it is checked", || patient.checked.load(Relaxed) > 2).await;
    let (_, server) = upstream.group().servers().swap_remove(0);
    let _the_only_one = server.lease(Wanted::Any, tokio::time::Instant::now()).await.unwrap();
    let before = patient.checked.load(Relaxed);
    until("it is checked meanwhile", || patient.checked.load(Relaxed) > before + 2).await;
    assert_eq!(ups(&upstream), [true]);
}

/// Over HTTP/2 a server says in its own way that it is busy, or leaves in the middle.
#[tokio::test]
async fn over_http2_as_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let status = Arc::new(AtomicU16::new(200));
    let told = Arc::clone(&status);
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().to_string(), "http://up.test/up?a=b");
                match told.load(Relaxed) {
                    0 => respond.send_reset(h2::Reason::REFUSED_STREAM),
                    1 => break,
                    status => {
                        let answer = http::Response::builder().status(status).body(()).unwrap();
                        let mut body = respond.send_response(answer, false).unwrap();
                        body.send_data(bytes::Bytes::from_static(b"ok"), true).unwrap();
                    }
                }
            }
        }
    });
    let place = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port, tls: false };
    let (upstream, _tasks) = watched(vec![place], |it| it.checks.as_mut().unwrap().http2 = true);
    for bad in [500, 0, 1] {
        until("it is up", || upstream.metrics().health_checks.get() > 0 && ups(&upstream) == [true]).await;
        status.store(bad, Relaxed);
        until("it is down", || ups(&upstream) == [false]).await;
        status.store(200, Relaxed);
    }
    server.abort();
}
