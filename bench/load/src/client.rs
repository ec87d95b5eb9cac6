//! The connections: each thread takes the next request that is due, sends it, reads the whole answer.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::report::Findings;
use crate::schedule::{self, Arrival};

/// An answer that takes longer counts as a failure: far above any view of the scenarios (500 ms), below a minute's run.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// After the last request was due, the backlog may take this long: an overloaded server must not run for ever.
const GRACE: Duration = Duration::from_secs(2);
/// Enough for a thread that only reads and writes; a thousand connections fit in 128 MB of address space.
const STACK_BYTES: usize = 128 << 10;

struct Plan {
    options: Options,
    /// Empty in a closed loop.
    arrivals: Vec<Arrival>,
    open: bool,
    next: AtomicU64,
}

/// Runs the load and prints the findings.
pub fn run(options: &Options, open: bool) -> Result<(), String> {
    let length = options.warmup + options.duration;
    let arrivals = if open {
        schedule::poisson(options.rate, length, options.slow_share, options.seed)
    } else {
        Vec::new()
    };
    let plan = Arc::new(Plan { options: options.clone(), arrivals, open, next: AtomicU64::new(0) });
    let ready = Arc::new(Barrier::new(options.connections + 1));
    let go = Arc::new(Barrier::new(options.connections + 1));
    let start = Arc::new(std::sync::OnceLock::new());
    let mut threads = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        let (plan, ready, go, start) =
            (Arc::clone(&plan), Arc::clone(&ready), Arc::clone(&go), Arc::clone(&start));
        let body = move || {
            let mut connection = Connection::new(&plan.options.address);
            let connected = connection.open();
            ready.wait();
            go.wait();
            let start =
                *start.get().expect("the main thread sets the start before it passes the second barrier");
            connected.map(|()| {
                if plan.open {
                    open_loop(&plan, connection, start)
                } else {
                    closed_loop(&plan, connection, start)
                }
            })
        };
        threads.push(
            thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(body)
                .map_err(|e| format!("no thread: {e}"))?,
        );
    }
    ready.wait();
    let began = Instant::now();
    let _ = start.set(began);
    go.wait();
    let mut findings = Findings::default();
    for thread in threads {
        match thread.join() {
            Ok(Ok(found)) => findings.merge(found),
            Ok(Err(error)) => return Err(format!("cannot connect to {}: {error}", options.address)),
            Err(_) => return Err("a connection's thread ended early".into()),
        }
    }
    findings.print(began.elapsed());
    Ok(())
}

fn open_loop(plan: &Plan, mut connection: Connection, start: Instant) -> Findings {
    let mut found = Findings::default();
    let fast = request(&plan.options, &plan.options.path);
    let slow = request(&plan.options, plan.options.slow_path.as_deref().unwrap_or(&plan.options.path));
    let give_up = plan.options.warmup + plan.options.duration + GRACE;
    loop {
        let index = plan.next.fetch_add(1, Ordering::Relaxed);
        let Some(arrival) = plan.arrivals.get(index as usize) else { return found };
        let recorded = arrival.due >= plan.options.warmup;
        let now = start.elapsed();
        if now > give_up {
            found.errors.unsent += 1;
            continue;
        }
        if let Some(wait) = arrival.due.checked_sub(now) {
            thread::sleep(wait);
            let late = start.elapsed().saturating_sub(arrival.due);
            found.lateness.push(microseconds(late));
        }
        let outcome = connection.exchange(if arrival.slow { &slow } else { &fast });
        let latency = microseconds(start.elapsed().saturating_sub(arrival.due));
        note(&mut found, outcome, recorded.then_some((latency, arrival.slow)));
    }
}

fn closed_loop(plan: &Plan, mut connection: Connection, start: Instant) -> Findings {
    let mut found = Findings::default();
    let bytes = request(&plan.options, &plan.options.path);
    let end = plan.options.warmup + plan.options.duration;
    loop {
        let sent = start.elapsed();
        if sent >= end || plan.next.fetch_add(1, Ordering::Relaxed) >= plan.options.requests_max {
            return found;
        }
        let outcome = connection.exchange(&bytes);
        let latency = microseconds(start.elapsed().saturating_sub(sent));
        note(&mut found, outcome, (sent >= plan.options.warmup).then_some((latency, false)));
    }
}

/// Files one outcome: the kind of failure, or the latency under its class.
fn note(found: &mut Findings, outcome: Result<u16, Failure>, sample: Option<(u32, bool)>) {
    let failed = match outcome {
        Ok(200) => {
            found.answered += 1;
            if let Some((latency, slow)) = sample {
                if slow { found.slow.push(latency) } else { found.fast.push(latency) }
            }
            return;
        }
        Ok(status) => {
            found.answered += 1;
            found.errors.status += 1;
            format!("status {status}")
        }
        Err(Failure::Connect(error)) => {
            found.errors.connect += 1;
            format!("connect: {error}")
        }
        Err(Failure::Broken(what)) => {
            found.errors.broken += 1;
            format!("broken: {what}")
        }
        Err(Failure::Timeout) => {
            found.errors.timeout += 1;
            "timeout".into()
        }
    };
    if found.examples.len() < 3 {
        found.examples.push(failed);
    }
}

fn request(options: &Options, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", options.address).into_bytes()
}

fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Why a request got no answer.
enum Failure {
    Connect(std::io::Error),
    Broken(String),
    Timeout,
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// A keep-alive connection that is opened again after the server closed it or a failure.
struct Connection {
    address: String,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None, buffer: vec![0; 64 << 10] }
    }

    fn open(&mut self) -> std::io::Result<()> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Sends one request and reads its answer; returns the status.
    fn exchange(&mut self, request: &[u8]) -> Result<u16, Failure> {
        if self.stream.is_none() {
            self.open().map_err(Failure::Connect)?;
        }
        let outcome = self.converse(request);
        match outcome {
            Ok((status, true)) => Ok(status),
            Ok((status, false)) => {
                self.stream = None;
                Ok(status)
            }
            Err(failure) => {
                self.stream = None;
                Err(failure)
            }
        }
    }

    /// The status, and whether the connection may be used again.
    fn converse(&mut self, request: &[u8]) -> Result<(u16, bool), Failure> {
        let Some(stream) = self.stream.as_mut() else { return Err(Failure::Broken("not open".into())) };
        stream.write_all(request)?;
        let mut filled = 0;
        let head = loop {
            let count = stream.read(&mut self.buffer[filled..])?;
            if count == 0 {
                return Err(Failure::Broken(format!("closed after {filled} bytes")));
            }
            filled += count;
            if let Some(end) = find(&self.buffer[..filled], b"\r\n\r\n") {
                break Head::parse(&self.buffer[..end + 4])?;
            }
            if filled == self.buffer.len() {
                return Err(Failure::Broken("a head of more than 64 kB".into()));
            }
        };
        let body = filled - head.length;
        match head.body {
            Body::Length(length) => skip(stream, &mut self.buffer, length.saturating_sub(body as u64))?,
            Body::Chunked => {
                let mut tail = self.buffer[filled.saturating_sub(5).max(head.length)..filled].to_vec();
                while !tail.ends_with(b"0\r\n\r\n") {
                    let count = stream.read(&mut self.buffer)?;
                    if count == 0 {
                        return Err(Failure::Broken("closed inside a chunked body".into()));
                    }
                    tail.extend_from_slice(&self.buffer[count.saturating_sub(5)..count]);
                    tail.drain(..tail.len().saturating_sub(5));
                }
            }
            Body::UntilClose => while stream.read(&mut self.buffer)? > 0 {},
        }
        Ok((head.status, head.keep_alive))
    }
}

fn skip(stream: &mut TcpStream, buffer: &mut [u8], mut left: u64) -> Result<(), Failure> {
    while left > 0 {
        let most = left.min(buffer.len() as u64) as usize;
        let count = stream.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(Failure::Broken(format!("closed with {left} bytes missing")));
        }
        left -= count as u64;
    }
    Ok(())
}

enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

struct Head {
    status: u16,
    length: usize,
    body: Body,
    keep_alive: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let status = text
            .get(9..12)
            .filter(|_| text.starts_with("http/1."))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| Failure::Broken("no status line".into()))?;
        let mut head = Self {
            status,
            length: bytes.len(),
            body: Body::UntilClose,
            keep_alive: text.starts_with("http/1.1"),
        };
        for line in text.split("\r\n").skip(1) {
            let Some((name, value)) = line.split_once(':') else { continue };
            match (name, value.trim()) {
                ("content-length", length) => {
                    let length = length.parse().map_err(|_| Failure::Broken("a bad length".into()))?;
                    head.body = Body::Length(length);
                }
                ("transfer-encoding", coding) if coding.ends_with("chunked") => head.body = Body::Chunked,
                ("connection", options) if options.contains("close") => head.keep_alive = false,
                _ => {}
            }
        }
        if matches!(head.body, Body::UntilClose) {
            head.keep_alive = false;
        }
        Ok(head)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
