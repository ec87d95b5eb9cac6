//! Stand-ins for the gateway and the workers: this test's own program in another role.
//!
//! They speak the real words over the real sockets, and do so little that what is seen is the supervisor's work.
//! A worker reads how to behave from a file, as a real one reads code: `fine`, `fail`, `crash`, `hang`, `stubborn`.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::exit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ctl_admin::lines::line;
use ctl_admin::words::{AppReport, FromGateway, FromWorker, ToGateway, ToWorker, WorkerStart};
use ctl_supervisor::inherit;

/// Names the role in the environment of a stand-in.
pub(crate) const ROLE: &str = "QUINTET_REHEARSAL_ROLE";
/// The directory with the behaviour files.
pub(crate) const SCRIPT: &str = "QUINTET_REHEARSAL_SCRIPT";

pub(crate) fn script(name: &str) -> String {
    let dir = PathBuf::from(env::var_os(SCRIPT).unwrap());
    fs::read_to_string(dir.join(name)).unwrap_or_default().trim().to_owned()
}

fn control() -> UnixStream {
    let fd = env::var("QUINTET_CONTROL_FD").unwrap().parse().unwrap();
    UnixStream::from(inherit::take(fd).unwrap())
}

fn say<T: serde::Serialize>(mut stream: &UnixStream, message: &T) {
    // The other side may be gone, which ends us elsewhere.
    let _ = stream.write_all(&line(message).unwrap());
}

struct Gateway {
    control: UnixStream,
    /// The links of the workers.
    links: Mutex<HashMap<u32, UnixStream>>,
    /// The generation that serves; 0: nobody is answered.
    generation: AtomicU32,
}

/// Answers each client with the generation that serves, once there is one.
pub(crate) fn gateway() -> ! {
    let control = control();
    let mut lines = BufReader::new(control.try_clone().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let ToGateway::Start(start) = serde_json::from_str(&first).unwrap() else { panic!("{first}") };
    match script("gateway").as_str() {
        "fail" => {
            let text = "the certificate is bad\ndetail: it has expired\nhint: renew it".to_owned();
            say(&control, &FromGateway::Failed { text });
            exit(1);
        }
        "crash" => std::process::abort(),
        _ => {}
    }
    let active = start.active.first().map_or(0, |active| active.generation);
    let gateway = Arc::new(Gateway { control, links: Mutex::default(), generation: AtomicU32::new(active) });
    let link = UnixListener::from(inherit::take(start.link_fd).unwrap());
    let here = Arc::clone(&gateway);
    thread::spawn(move || link.incoming().for_each(|stream| here.link(stream.unwrap())));
    for listener in &start.listeners {
        let fd = inherit::take(listener.fd).unwrap();
        let here = Arc::clone(&gateway);
        let unix = listener.unix;
        thread::spawn(move || here.serve(fd, unix));
    }
    say(&gateway.control, &FromGateway::Ready);
    for line in lines.map_while(Result::ok) {
        gateway.told(serde_json::from_str(&line).unwrap());
    }
    exit(0);
}

impl Gateway {
    fn link(&self, stream: UnixStream) {
        let mut number = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut number).unwrap();
        let worker = number.trim().parse().unwrap();
        self.links.lock().unwrap().insert(worker, stream);
        say(&self.control, &FromGateway::WorkerOnline { worker });
    }

    fn serve(&self, fd: OwnedFd, unix: bool) {
        let answer = |mut stream: Box<dyn Write>| {
            while self.generation.load(Ordering::SeqCst) == 0 {
                thread::sleep(Duration::from_millis(2));
            }
            let _ = write!(stream, "generation {}", self.generation.load(Ordering::SeqCst));
        };
        if unix {
            UnixListener::from(fd).incoming().for_each(|stream| answer(Box::new(stream.unwrap())));
        } else {
            TcpListener::from(fd).incoming().for_each(|stream| answer(Box::new(stream.unwrap())));
        }
    }

    fn told(&self, message: ToGateway) {
        match message {
            ToGateway::Activate(active) => self.generation.store(active.generation, Ordering::SeqCst),
            ToGateway::Retire { workers } => {
                for worker in workers {
                    if let Some(mut link) = self.links.lock().unwrap().remove(&worker) {
                        let _ = link.write_all(b"retire\n");
                    }
                    say(&self.control, &FromGateway::WorkerRetired { worker });
                }
            }
            ToGateway::Status => {
                let slots = self.links.lock().unwrap().len() as u64;
                let status = ctl_admin::words::GatewayStatus { slots, ..Default::default() };
                say(&self.control, &FromGateway::Status(status));
            }
            ToGateway::Bans { number, .. } => {
                let answer = ctl_admin::words::BansAnswer::Done { text: "so it is".to_owned() };
                say(&self.control, &FromGateway::Bans { number, answer });
            }
            ToGateway::Upstream { number, .. } => {
                let (text, drained) = ("so it is".to_owned(), Vec::new());
                let answer = ctl_admin::words::UpstreamAnswer::Done { text, drained };
                say(&self.control, &FromGateway::Upstream { number, answer });
            }
            ToGateway::Sync { number } => say(&self.control, &FromGateway::Synced { number }),
            ToGateway::Drain if script("gateway") == "endless" => {}
            ToGateway::HandOver => {
                say(&self.control, &FromGateway::Moved);
                exit(0);
            }
            ToGateway::Drain => {
                say(&self.control, &FromGateway::Drained);
                exit(0);
            }
            ToGateway::Start(_)
            | ToGateway::ReloadTls
            | ToGateway::Hold { .. }
            | ToGateway::Broken { .. }
            | ToGateway::WorkerEvent { .. } => {}
        }
    }
}

pub(crate) fn worker() -> ! {
    let control = control();
    let start: WorkerStart = serde_json::from_str(&env::var("QUINTET_WORKER").unwrap()).unwrap();
    let behaviour = script("worker");
    match behaviour.as_str() {
        "fail" => {
            let message = "shop.wsgi cannot be imported".to_owned();
            let traceback = "Traceback (most recent call last):\nImportError: no cello\n".to_owned();
            say(&control, &FromWorker::Failed { message, traceback, hint: "pip install cello".to_owned() });
            exit(1);
        }
        "crash" => std::process::abort(),
        "hang" => thread::sleep(Duration::from_secs(600)),
        _ => {}
    }
    if behaviour == "stubborn" {
        // Takes no notice of SIGTERM.
        let (_, write) = UnixStream::pair().unwrap();
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, write).unwrap();
    }
    let helper = script("helper");
    if !helper.is_empty() && start.worker == 1 {
        // What an app may do on import.
        assert!(std::process::Command::new("/bin/sh").args(["-c", &helper]).status().unwrap().success());
    }
    let app =
        AppReport { app: "shop.wsgi:application".into(), python: "3.12.1".into(), ..AppReport::default() };
    say(&control, &FromWorker::Ready { app: Box::new(app) });
    let stubborn = behaviour == "stubborn";
    thread::spawn(move || link(&start, stubborn));
    for line in BufReader::new(&control).lines().map_while(Result::ok) {
        let said = serde_json::from_str(&line).unwrap();
        if matches!(said, ToWorker::Exit) && !stubborn {
            exit(0);
        }
    }
    // End of file: the supervisor is gone.
    exit(0);
}

/// Stays connected to whichever gateway there is, until it is told to retire.
fn link(start: &WorkerStart, stubborn: bool) {
    loop {
        if let Ok(mut stream) = UnixStream::connect(&start.link)
            && writeln!(stream, "{}", start.worker).is_ok()
        {
            let mut told = String::new();
            let _ = stream.read_to_string(&mut told);
            if told == "retire\n" && !stubborn {
                exit(0);
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}
