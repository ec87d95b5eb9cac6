//! The paths, who may walk them, and both kinds of listener.

use std::os::unix::net;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ctl_admin::words::AppReport;
use ctl_config::WorkerPool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::link::{Slot, SlotIdentity};
use crate::message::Version;
use crate::queue::NoSlot;
use crate::queue::priority::Level;
use crate::testing::Worker;

struct Asked {
    admin: Admin,
    ready: Arc<AtomicBool>,
    commands: mpsc::Receiver<Command>,
}

fn admin(token: Option<&str>) -> Asked {
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = Arc::clone(&ready);
    let (asked, commands) = mpsc::channel(1);
    let token = token.map(|token| token.as_bytes().into());
    let mut config = Config::default();
    config.timeouts.queue = Duration::from_millis(50);
    let reports = WorkerPool {
        name: "reports".to_owned(),
        matches: vec!["/reports/*".to_owned()],
        ..WorkerPool::default()
    };
    config.worker_pool = vec![reports];
    let (pools, _) = Pools::new(&config);
    let admin = Admin {
        token,
        ready: Box::new(move || is_ready.load(Relaxed)),
        pools,
        upstreams: Arc::default(),
        asked,
    };
    Asked { admin, ready, commands }
}

fn check(admin: &Admin, method: &str, path: &str, authorization: &str, expected: u16) -> String {
    let mut headers = Headers::default();
    if !authorization.is_empty() {
        headers.push(b"authorization", authorization.as_bytes());
    }
    let response = admin.answer(&RequestHead {
        method: Method::from_bytes(method.as_bytes()),
        target: path.as_bytes().to_vec(),
        version: Version::Http11,
        headers,
    });
    assert_eq!(response.status, expected, "{method} {path} {authorization}");
    let Body::Bytes(body) = response.body else { panic!("no body") };
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn paths_and_methods() {
    let mut asked = admin(None);
    let admin = &asked.admin;
    assert!(check(admin, "GET", "/metrics", "", 200).contains("# TYPE quintet_connections gauge\n"));
    let status: GatewayStatus = serde_json::from_str(&check(admin, "GET", "/status", "", 200)).unwrap();
    assert_eq!(status.slots_busy, 0);
    check(admin, "GET", "/healthz?x", "", 200);
    check(admin, "GET", "/readyz", "", 503);
    asked.ready.store(true, Relaxed);
    check(admin, "GET", "/readyz", "", 200);
    check(admin, "GET", "/", "", 404);
    check(admin, "GET", "/reload", "", 405);
    check(admin, "POST", "/metrics", "", 405);
    check(admin, "PUT", "/stop", "", 405);
    assert!(asked.commands.try_recv().is_err(), "nothing was asked yet");
    check(admin, "POST", "/upstreams/api/drain?server=a", "", 404);
    check(admin, "GET", "/upstreams/api/drain?server=a", "", 405);
    check(admin, "POST", "/reload", "", 202);
    check(admin, "POST", "/stop", "", 503);
    assert_eq!(asked.commands.try_recv(), Ok(Command::Reload { module: None }));
    check(admin, "POST", "/stop", "", 202);
    assert_eq!(asked.commands.try_recv(), Ok(Command::Stop));
}

#[tokio::test]
async fn each_pool_is_counted_by_itself() {
    let admin = admin(None).admin;
    let says = |samples: &[&str]| {
        let text = check(&admin, "GET", "/metrics", "", 200);
        for sample in samples {
            assert!(text.lines().any(|line| line == *sample), "{sample} is not in\n{text}");
        }
    };
    admin.pools.activate(0, 1, &AppReport::default());
    let default = admin.pools.number(0).unwrap();
    let (ours, _worker) = Worker::pair();
    let identity = SlotIdentity { worker: 1, generation: 1, home: 0 };
    default.join(Slot::new(ours, identity).unwrap(), 1);
    let (slot, _) = default.checkout(Level::default).await.unwrap();
    let (refused, ()) = tokio::join!(admin.pools.pool_of(b"/reports/x").checkout(Level::default), async {
        says(&[
            "quintet_slots{pool=\"default\"} 1",
            "quintet_slots{pool=\"reports\"} 0",
            "quintet_slots_busy{pool=\"default\"} 1",
            "quintet_slots_busy{pool=\"reports\"} 0",
            "quintet_queue_depth{pool=\"default\"} 0",
            "quintet_queue_depth{pool=\"reports\"} 1",
            "quintet_queue_wait_seconds_count{pool=\"default\"} 1",
        ]);
        let status = check(&admin, "GET", "/status", "", 200);
        let status: GatewayStatus = serde_json::from_str(&status).unwrap();
        assert_eq!((status.slots, status.slots_busy, status.queue_depth), (1, 1, 1));
    });
    assert_eq!(refused.err(), Some(NoSlot::TimedOut));
    drop(slot);
    says(&[
        "quintet_slots_busy{pool=\"default\"} 0",
        "quintet_queue_depth{pool=\"reports\"} 0",
        "quintet_queue_wait_seconds_count{pool=\"reports\"} 0",
        "quintet_queue_refused_total{pool=\"default\",why=\"timeout\"} 0",
        "quintet_queue_refused_total{pool=\"reports\",why=\"timeout\"} 1",
    ]);
}

#[test]
fn the_token_is_asked_for() {
    let asked = admin(Some("s3cret"));
    for refused in [
        "",
        "s3cret",
        "Bearer",
        "Bearer ",
        "Bearer s3cre",
        "Bearer s3crett",
        "Basic s3cret",
        "Bearer  s3cret",
    ] {
        check(&asked.admin, "GET", "/metrics", refused, 401);
        check(&asked.admin, "POST", "/stop", refused, 401);
    }
    check(&asked.admin, "GET", "/metrics", "Bearer s3cret", 200);
    check(&asked.admin, "GET", "/metrics", "bearer s3cret", 200);
    check(&asked.admin, "GET", "/healthz", "", 200);
    check(&asked.admin, "GET", "/readyz", "", 503);
}

#[tokio::test]
async fn only_loopback_and_only_with_a_token() {
    let start = |address: &str, token| {
        let socket = std::net::TcpListener::bind(address).unwrap();
        serve(socket.into(), admin(token).admin, Arc::new(Config::default()), Drain::channel().1).map(drop)
    };
    assert!(matches!(start("0.0.0.0:0", Some("t")), Err(AdminError::NotLoopback(_))));
    assert!(matches!(start("127.0.0.1:0", None), Err(AdminError::NoToken(_))));
    assert!(start("127.0.0.1:0", Some("t")).is_ok());
}

#[tokio::test]
async fn answers_on_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let socket = net::UnixListener::bind(&path).unwrap();
    let (_sender, drain) = Drain::channel();
    let asked = admin(None);
    tokio::spawn(serve(socket.into(), asked.admin, Arc::new(Config::default()), drain).unwrap());
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.ends_with("\r\n\r\nok\n"), "{told}");
}
