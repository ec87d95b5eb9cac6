//! A server that does as it is told, for tests: each connection follows a script of steps, and all it hears is kept.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Forward, HashBy, HostRule, ServerAddress, Settings, TlsFiles, Upstream};
use crate::dispatch::Origin;
use crate::error_page::own_trail;
use crate::message::{
    Body, BodyError, BodyLength, Headers, Method, RequestBody, RequestHead, Response, Version,
};
use crate::request_body::Payload;
use crate::spool::{BodyStream, Piece, SpoolLimits};

/// What a connection does, one after another; at the end of its script it is closed.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Reads a head, up to its empty line.
    Head,
    /// Reads so many bytes.
    Read(usize),
    /// Reads until the other side ends.
    End,
    /// Writes.
    Say(Vec<u8>),
    /// Writes a byte at a time, with a pause between two.
    Dribble(&'static str, Duration),
    /// Waits.
    Wait(Duration),
    /// Does nothing more, for ever.
    Stall,
    /// Closes with a reset.
    Reset,
    /// From the beginning.
    Again,
}

pub(super) fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

/// Reads a head and answers with this, for ever.
pub(super) fn answers(text: &str) -> Vec<Step> {
    vec![Step::Head, say(text), Step::Again]
}

/// Longest streamed body.
pub(super) const BODY_BYTES_MAX: u64 = 1000;

pub(super) const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// See the head of this file. Ends when it is dropped.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Steps done, by connection.
    steps: Arc<Mutex<Vec<usize>>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// The first connection follows the first script and so on; those beyond follow the last.
    pub(super) async fn start(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, steps) = (Arc::default(), Arc::default());
        let task = tokio::spawn(accept(listener, scripts, Arc::clone(&heard), Arc::clone(&steps)));
        Self { address, heard, steps, task }
    }

    /// What each connection has heard so far.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// How many connections there were.
    pub(super) fn connections(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// Waits until the connection has done so many steps.
    pub(super) async fn has_done(&self, connection: usize, steps: usize) {
        for _ in 0..500 {
            if self.steps.lock().unwrap().get(connection).is_some_and(|done| *done >= steps) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("connection {connection} has not done {steps} steps: {:?}", self.steps.lock().unwrap());
    }

    /// Has it not come so far?
    pub(super) fn has_not_done(&self, connection: usize, steps: usize) -> bool {
        self.steps.lock().unwrap().get(connection).is_none_or(|done| *done < steps)
    }

    pub(super) fn server(&self) -> ServerAddress {
        ServerAddress::Tcp { host: self.address.ip().to_string(), port: self.address.port(), tls: false }
    }
}

type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

async fn accept(listener: TcpListener, scripts: Vec<Vec<Step>>, heard: Heard, steps: Arc<Mutex<Vec<usize>>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let number = {
            let mut heard = heard.lock().unwrap();
            heard.push(Vec::new());
            steps.lock().unwrap().push(0);
            heard.len() - 1
        };
        let script = scripts.get(number).or(scripts.last()).cloned().unwrap_or_default();
        let (heard, steps) = (Arc::clone(&heard), Arc::clone(&steps));
        connections.spawn(async move {
            let done = |steps: &Mutex<Vec<usize>>| steps.lock().unwrap()[number] += 1;
            let mut stream = stream;
            let mut at = 0;
            while let Some(step) = script.get(at) {
                if matches!(step, Step::Reset) {
                    let socket = socket_of(&stream);
                    rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
                    return done(&steps);
                }
                if !follow(&mut stream, step, |bytes| heard.lock().unwrap()[number].extend(bytes)).await {
                    return;
                }
                done(&steps);
                at = if matches!(step, Step::Again) { 0 } else { at + 1 };
            }
        });
    }
}

fn socket_of(stream: &tokio::net::TcpStream) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(stream)
}

/// `false`: the other side is gone.
pub(super) async fn follow<T: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut T,
    step: &Step,
    mut hear: impl FnMut(Vec<u8>),
) -> bool {
    match step {
        Step::Head => {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if !matches!(stream.read(&mut byte).await, Ok(1)) {
                    return false;
                }
                head.push(byte[0]);
                hear(byte.to_vec());
            }
            true
        }
        Step::Read(bytes) => {
            let mut left = *bytes;
            while left > 0 {
                let mut piece = vec![0; left.min(64 * 1024)];
                match stream.read(&mut piece).await {
                    Ok(read @ 1..) => {
                        left -= read;
                        piece.truncate(read);
                        hear(piece);
                    }
                    _ => return false,
                }
            }
            true
        }
        Step::End => {
            let mut rest = Vec::new();
            let _broken_is_an_end_too = stream.read_to_end(&mut rest).await;
            hear(rest);
            true
        }
        Step::Say(bytes) => stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok(),
        Step::Dribble(text, pause) => {
            for byte in text.bytes() {
                if stream.write_all(&[byte]).await.is_err() {
                    return false;
                }
                tokio::time::sleep(*pause).await;
            }
            true
        }
        Step::Wait(pause) => {
            tokio::time::sleep(*pause).await;
            true
        }
        Step::Stall => std::future::pending().await,
        Step::Reset | Step::Again => true,
    }
}

/// Short enough that a test does not take long, long enough for a machine with other things to do.
pub(super) fn settings(servers: Vec<ServerAddress>) -> Settings {
    Settings {
        name: "test".to_owned(),
        servers: servers.into_iter().map(|address| (address, 1)).collect(),
        hash_by: HashBy::Address,
        sticky: None,
        http2: false,
        host: HostRule::Client,
        via: true,
        tls_server_name: None,
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        tunnel_timeout: Duration::from_secs(5),
        keep_alive: Duration::from_secs(5),
        connections_max: 8,
        buffer: true,
        resolve_interval: Duration::from_secs(5),
        balance: http_upstream::Terms {
            policy: http_upstream::Policy::RoundRobin,
            concurrency_max: 16,
            eject_after: 3,
            eject_time: Duration::from_secs(60),
            ..http_upstream::Terms::default()
        },
        checks: None,
        spool: SpoolLimits { memory_bytes: 1 << 20, disk_bytes: 0, dir: std::env::temp_dir() },
        held: Duration::from_secs(60),
    }
}

/// An upstream of one server, with other settings.
pub(super) fn upstream_with(fake: &Fake, with: impl FnOnce(&mut Settings)) -> Upstream {
    let mut settings = settings(vec![fake.server()]);
    with(&mut settings);
    Upstream::new(settings, TlsFiles::default()).unwrap()
}

pub(super) fn upstream(fake: &Fake) -> Upstream {
    upstream_with(fake, |_| {})
}

/// A client's body in pieces that come when the test says so.
pub(super) struct Pieces {
    length: BodyLength,
    coming: mpsc::UnboundedReceiver<Result<Bytes, BodyError>>,
    pub(super) hints: Vec<String>,
}

/// The client's end of it: dropping it ends the body.
pub(super) type Sender = mpsc::UnboundedSender<Result<Bytes, BodyError>>;

pub(super) fn pieces(length: BodyLength) -> (Sender, Pieces) {
    let (sender, coming) = mpsc::unbounded_channel();
    (sender, Pieces { length, coming, hints: Vec::new() })
}

/// No body, and a client that stays.
pub(super) fn nothing() -> Pieces {
    pieces(BodyLength::None).1
}

impl RequestBody for Pieces {
    fn length(&self) -> BodyLength {
        self.length
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.coming.recv().await.transpose()
    }

    async fn closed(&mut self) {
        std::future::pending::<()>().await;
    }

    async fn inform(&mut self, status: u16, headers: &Headers) {
        let fields = headers.iter().map(|(n, v)| [n, b": ", v].concat()).collect::<Vec<_>>().join(&b' ');
        self.hints.push(format!("{status} {}", String::from_utf8_lossy(&fields)));
    }
}

pub(super) fn head(method: &str, target: &str) -> RequestHead {
    RequestHead {
        method: Method::from_bytes(method.as_bytes()),
        target: target.as_bytes().to_vec(),
        version: Version::Http11,
        headers: Headers::default(),
    }
}

pub(super) fn origin() -> Origin<'static> {
    Origin {
        request_id: "id1",
        remote_addr: "192.0.2.9",
        remote_port: 7,
        scheme: py_link::Scheme::Https,
        host: b"site.test",
        server_name: b"site.test",
        server_port: 443,
        local: None,
        tls: None,
        certificate: None,
        headers_heard: false,
        about: None,
    }
}

/// The answer to a request, or the words of its failure.
pub(super) async fn ask<B: RequestBody>(
    upstream: &Upstream,
    head: &RequestHead,
    payload: Payload,
    body: &mut B,
) -> Result<Response, String> {
    let mut trail = own_trail(std::time::Instant::now(), "id1".into(), None);
    let request = Forward { head, origin: origin(), body_bytes_max: BODY_BYTES_MAX };
    upstream.forward(&request, payload, body, &mut trail).await.map_err(|failure| failure.to_string())
}

/// A response whose client has been found to take nothing now.
pub(super) fn slow(mut response: Result<Response, String>) -> Result<Response, String> {
    if let Ok(Response { body: Body::Stream(stream), .. }) = &mut response {
        stream.settle();
    }
    response
}

/// A response in one line: status and body; `!` behind it: cut short.
pub(super) async fn show(response: Result<Response, String>) -> String {
    let response = match response {
        Ok(response) => response,
        Err(failure) => return failure,
    };
    let status = response.status;
    let (bytes, cut) = match response.body {
        Body::Empty => (Vec::new(), false),
        Body::Bytes(bytes) => (bytes.to_vec(), false),
        Body::Stream(mut stream) => read(&mut stream).await,
        Body::File(_) => panic!("no upstream answers with a file"),
    };
    let text =
        if bytes.len() > 100 { format!("{} bytes", bytes.len()) } else { String::from_utf8(bytes).unwrap() };
    format!("{status} {text}{}", if cut { "!" } else { "" })
}

/// All that comes, and whether it was cut short.
pub(super) async fn read(stream: &mut BodyStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(Piece::Bytes(bytes)) => all.extend_from_slice(&bytes),
            Ok(Piece::File(part)) => {
                use std::os::unix::fs::FileExt as _;
                let mut bytes = vec![0; part.len as usize];
                part.file.read_exact_at(&mut bytes, part.offset).unwrap();
                all.extend_from_slice(&bytes);
            }
            Err(_) => return (all, true),
        }
    }
    (all, false)
}

/// A GET in one line.
pub(super) async fn get(upstream: &Upstream) -> String {
    show(ask(upstream, &head("GET", "/"), Payload::Empty, &mut nothing()).await).await
}
