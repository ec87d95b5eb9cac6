//! A request's way against workers that are played by the test: answers, deaths, silence, slow clients.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use py_link::{
    Body as LinkBody, Flags, Kind, Request, ResponseFile, encode_response_file, encode_response_head, frame,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::error_page::own_trail;
use crate::link::long::LongLimits;
use crate::link::{Slot, SlotIdentity};
use crate::message::{Body, BodyLength, Headers, Method};
use crate::queue::WorkerNews;
use crate::spool::{Aborted, HoldLimits, Piece};
use crate::testing::Worker;

mod uploads;

/// The news of a worker that holds a test's request too long.
fn stuck(worker: u32) -> WorkerNews {
    WorkerNews::Stuck { worker, request_id: "id".to_owned() }
}

impl Worker {
    async fn frame(&mut self) -> Option<(Kind, Flags, Vec<u8>)> {
        self.hear().await.map(|(_, kind, flags, payload)| (kind, flags, payload))
    }

    async fn request(&mut self) -> String {
        let (kind, _, payload) = self.frame().await.expect("a request");
        assert_eq!(kind, Kind::Request);
        let request = Request::decode(&payload).expect("decodes");
        let body = match request.body {
            LinkBody::None => "-".to_owned(),
            LinkBody::Inline(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            LinkBody::File { len } => format!("file of {len}"),
            LinkBody::Stream { len } => format!("stream of {len:?}"),
        };
        let names: Vec<_> = request.headers().map(|(name, _)| String::from_utf8_lossy(name)).collect();
        format!(
            "{} {} [{}] {body}",
            String::from_utf8_lossy(request.method),
            String::from_utf8_lossy(request.target),
            names.join(" ")
        )
    }

    async fn send(&mut self, kind: Kind, flags: Flags, payload: &[u8]) {
        self.say(0, kind, flags, payload).await;
    }

    fn send_file(&mut self, file: &std::fs::File, len: u64) {
        let mut payload = Vec::new();
        encode_response_file(&mut payload, ResponseFile { offset: 0, len });
        let bytes = frame(Kind::ResponseFile, Flags::NONE, &payload);
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let bytes = [std::io::IoSlice::new(&bytes)];
        sendmsg(&self.stream, &bytes, &mut control, SendFlags::empty()).expect("sent");
    }

    async fn answer(&mut self, flags: Flags, body: &[u8]) {
        let headers =
            [(&b"X-App"[..], &b"yes"[..]), (b"Connection", b"close"), (b"X-Quintet-Queries", b"3;1500;2")];
        let mut payload = Vec::new();
        encode_response_head(&mut payload, 200, b"OK", headers.into_iter());
        payload.extend_from_slice(body);
        self.send(Kind::ResponseHead, flags, &payload).await;
    }
}

/// A client whose body is in memory and who stays, or leaves at once.
struct Client {
    pieces: Vec<&'static [u8]>,
    leaves: bool,
    /// Before each piece.
    pause: Duration,
}

impl RequestBody for Client {
    fn length(&self) -> BodyLength {
        BodyLength::Unknown
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        Ok(if self.pieces.is_empty() { None } else { Some(Bytes::from_static(self.pieces.remove(0))) })
    }

    async fn closed(&mut self) {
        if !self.leaves {
            std::future::pending::<()>().await;
        }
    }
}

const STAYS: Client = Client { pieces: Vec::new(), leaves: false, pause: Duration::ZERO };

struct Site {
    dispatcher: Arc<Dispatcher>,
    news: UnboundedReceiver<WorkerNews>,
}

impl Site {
    fn new() -> Self {
        let mut config = ctl_config::Config::default();
        config.queue.depth_max = 2;
        config.timeouts.queue = Duration::from_millis(200);
        config.timeouts.app = Duration::from_millis(400);
        let (pools, news) = Pools::new(&config);
        pools.activate(0, 1, &ctl_admin::words::AppReport::default());
        let spool = SpoolLimits { memory_bytes: 64, disk_bytes: 64, dir: std::env::temp_dir() };
        let hold = HoldLimits { held: Duration::from_millis(300), held_max: Some(1000) };
        let pump = PumpLimits { app: Duration::from_secs(5), hold };
        let (links, _) =
            LongLinks::new(LongLimits { grace: Duration::from_millis(100), app: Duration::from_millis(400) });
        let dispatcher = Dispatcher {
            pools,
            links,
            mount: String::new(),
            asks_clients: false,
            body_bytes_max: 100_000,
            spool,
            pump,
        };
        Self { dispatcher: Arc::new(dispatcher), news }
    }

    fn worker(&self, number: u32) -> Worker {
        let (ours, theirs) = Worker::pair();
        let identity = SlotIdentity { worker: number, generation: 1, home: 0 };
        let queue = self.dispatcher.pools.number(0).expect("the default pool");
        queue.join(Slot::new(ours, identity).expect("slot"), 1);
        theirs
    }

    /// Sends a request in a task of its own; the answer as text.
    fn send(&self, method: &[u8], payload: Payload, mut client: Client) -> tokio::task::JoinHandle<Answer> {
        let dispatcher = Arc::clone(&self.dispatcher);
        let mut headers = Headers::default();
        for (name, value) in
            [("host", "shop"), ("te", "trailers"), ("proxy", "evil"), ("x-forwarded-for", "6.6.6.6")]
        {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        let head = RequestHead {
            method: Method::from_bytes(method),
            target: b"/x?y=1".to_vec(),
            version: crate::message::Version::Http11,
            headers,
        };
        tokio::spawn(async move {
            let origin = Origin {
                request_id: "id",
                remote_addr: "127.0.0.1",
                remote_port: 1,
                scheme: Scheme::Http,
                host: b"shop",
                server_name: b"shop",
                server_port: 80,
                local: None,
                tls: None,
                certificate: None,
                headers_heard: false,
                about: None,
            };
            let request = Ready { head: &head, origin, payload: &payload, terms: Terms::default() };
            let mut trail = own_trail(Instant::now(), "id".into(), None);
            let mut answer = dispatcher.dispatch(&request, &mut client, &mut trail).await;
            // As a protocol's driver does.
            if let Ok(Response { body: Body::Stream(stream), .. }) = &mut answer
                && let Some(mut upload) = stream.take_upload()
            {
                tokio::spawn(async move { upload.forward(&mut client).await });
            }
            answer
        })
    }
}

type Answer = Result<Response, Failure>;

async fn text(answer: Answer) -> String {
    match answer {
        Err(failure) => format!("{failure:?}"),
        Ok(response) => {
            let names: Vec<_> = response.headers.iter().map(|(n, _)| String::from_utf8_lossy(n)).collect();
            let start = format!("{} [{}]", response.status, names.join(" "));
            match response.body {
                Body::Empty => format!("{start} -"),
                Body::Bytes(bytes) => format!("{start} {}", String::from_utf8_lossy(&bytes)),
                Body::File(_) => format!("{start} file"),
                Body::Stream(mut stream) => {
                    let mut all = start + " ~";
                    loop {
                        match stream.next().await {
                            Some(Ok(Piece::Bytes(bytes))) => all += &String::from_utf8_lossy(&bytes),
                            Some(Ok(Piece::File(_))) => all += "<file>",
                            Some(Err(Aborted)) => return all + "!",
                            None => return all,
                        }
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_request_goes_out_and_its_answer_comes_back() {
    let site = Site::new();
    let mut worker = site.worker(1);
    for _ in 0..3 {
        let answer = site.send(b"POST", Payload::Memory(b"hello".to_vec()), STAYS);
        assert_eq!(worker.request().await, "POST /x?y=1 [host te content-length] hello");
        worker.answer(Flags::END, b"body").await;
        let answer = answer.await.expect("ran");
        let queries = answer.as_ref().ok().and_then(|answer| answer.trail.queries);
        assert_eq!(queries.map(|queries| (queries.count, queries.repeated)), Some((3, 2)));
        assert_eq!(text(answer).await, "200 [X-App] body");
    }
}

#[tokio::test]
async fn a_large_body_goes_along_as_a_file() {
    let site = Site::new();
    let mut worker = site.worker(1);
    let file = crate::spool::unlinked_file(&std::env::temp_dir()).expect("file");
    let answer = site.send(b"PUT", Payload::File(Arc::new(file), 7), STAYS);
    assert_eq!(worker.request().await, "PUT /x?y=1 [host te content-length] file of 7");
    worker.answer(Flags::END, b"").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] -");
}

#[tokio::test]
async fn a_streamed_answer_frees_its_slot_before_the_client_has_read_it() {
    let site = Site::new();
    let mut worker = site.worker(1);
    let first = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    worker.answer(Flags::NONE, b"one ").await;
    let first = first.await.expect("ran");
    worker.send(Kind::ResponseBody, Flags::END, b"two").await;
    // The first client has read nothing, and the second gets the slot.
    let second = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    worker.answer(Flags::END, b"second").await;
    assert_eq!(text(second.await.expect("ran")).await, "200 [X-App] second");
    assert_eq!(text(first).await, "200 [X-App] ~one two");
}

#[tokio::test]
async fn what_comes_behind_a_descriptor_is_heard_at_once() {
    let site = Site::new();
    let mut worker = site.worker(1);
    let answer = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    // All of it lies there before the gateway looks.
    worker.answer(Flags::NONE, b"before ").await;
    worker.send_file(&std::fs::File::open("/dev/null").expect("there"), 1);
    worker.send(Kind::ResponseBody, Flags::END, b" behind").await;
    let answer = answer.await.expect("ran");
    let seen = tokio::time::timeout(Duration::from_secs(2), text(answer)).await;
    assert_eq!(seen.as_deref(), Ok("200 [X-App] ~before <file> behind"));
}

#[tokio::test]
async fn death_costs_one_safe_retry_or_a_502() {
    let site = Site::new();
    let (mut first, mut second, mut third) = (site.worker(1), site.worker(2), site.worker(3));
    // Whichever is asked dies; the next answers.
    let answer = site.send(b"GET", Payload::Empty, STAYS);
    third.request().await;
    drop(third);
    second.request().await;
    second.answer(Flags::END, b"from the second").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] from the second");
    // A poison request kills two workers at most.
    let answer = site.send(b"GET", Payload::Empty, STAYS);
    second.request().await;
    drop(second);
    first.request().await;
    drop(first);
    assert_eq!(text(answer.await.expect("ran")).await, "WorkerLost");
}

#[tokio::test]
async fn what_is_not_idempotent_is_not_sent_twice() {
    let site = Site::new();
    let (mut first, mut second) = (site.worker(1), site.worker(2));
    let answer = site.send(b"POST", Payload::Memory(b"order".to_vec()), STAYS);
    second.request().await;
    drop(second);
    assert_eq!(text(answer.await.expect("ran")).await, "WorkerLost");
    // Dead before it read anything: the next takes it, whatever the method.
    let dead = site.worker(3);
    drop(dead);
    let answer = site.send(b"POST", Payload::Memory(b"order".to_vec()), STAYS);
    first.request().await;
    first.answer(Flags::END, b"once").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] once");
}

#[tokio::test]
async fn a_request_that_a_dying_worker_never_read_is_sent_to_the_next_whatever_its_method() {
    let site = Site::new();
    // Three slots whose worker is about to die, and one that lives.
    let mut living = site.worker(1);
    let dying = [site.worker(2), site.worker(3), site.worker(4)];
    let answer = site.send(b"POST", Payload::Memory(b"order".to_vec()), STAYS);
    for worker in dying.into_iter().rev() {
        // It is there, and nobody reads it.
        worker.stream.readable().await.expect("a request");
        drop(worker);
    }
    living.request().await;
    living.answer(Flags::END, b"once").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] once");
}

#[tokio::test]
async fn death_in_the_middle_of_an_answer_can_be_told_from_its_end() {
    let site = Site::new();
    let mut worker = site.worker(1);
    let answer = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    worker.answer(Flags::NONE, b"half").await;
    drop(worker);
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] ~half!");
}

#[tokio::test]
async fn a_silent_app_is_a_504_and_its_worker_is_reported() {
    let mut site = Site::new();
    let mut worker = site.worker(1);
    assert_eq!(site.news.recv().await, Some(WorkerNews::Online(1)));
    let answer = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    assert_eq!(text(answer.await.expect("ran")).await, "TimedOut");
    assert_eq!(site.news.recv().await, Some(stuck(1)));
    // The exchange is cancelled; when the app comes to its end after all, the slot is of use again.
    assert_eq!(worker.frame().await.map(|frame| frame.0), Some(Kind::Cancel));
    worker.answer(Flags::END, b"too late").await;
    let answer = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    worker.answer(Flags::END, b"in time").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] in time");
}

#[tokio::test]
async fn nobody_waits_for_ever_and_the_line_is_bounded() {
    let site = Site::new();
    let waiting: Vec<_> = (0..2).map(|_| site.send(b"GET", Payload::Empty, STAYS)).collect();
    tokio::task::yield_now().await;
    let third = site.send(b"GET", Payload::Empty, STAYS);
    assert_eq!(text(third.await.expect("ran")).await, "NoSlot(Full)");
    for answer in waiting {
        assert_eq!(text(answer.await.expect("ran")).await, "NoSlot(TimedOut)");
    }
    assert_eq!(site.dispatcher.pools.pool_of(b"/").measure().queue_depth.get(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_its_place_or_its_exchange() {
    let site = Site::new();
    let gone = Client { pieces: Vec::new(), leaves: true, pause: Duration::ZERO };
    assert_eq!(text(site.send(b"GET", Payload::Empty, gone).await.expect("ran")).await, "ClientGone");
    assert_eq!(site.dispatcher.pools.pool_of(b"/").measure().queue_depth.get(), 0);
    let mut worker = site.worker(1);
    let gone = Client { pieces: Vec::new(), leaves: true, pause: Duration::ZERO };
    assert_eq!(text(site.send(b"GET", Payload::Empty, gone).await.expect("ran")).await, "ClientGone");
    worker.request().await;
    assert_eq!(worker.frame().await.map(|frame| frame.0), Some(Kind::Cancel));
    worker.answer(Flags::END, b"for nobody").await;
    let answer = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    worker.answer(Flags::END, b"for somebody").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] for somebody");
}

#[tokio::test]
async fn an_app_that_hangs_on_for_nobody_is_reported() {
    let mut site = Site::new();
    let mut worker = site.worker(1);
    assert_eq!(site.news.recv().await, Some(WorkerNews::Online(1)));
    let gone = Client { pieces: Vec::new(), leaves: true, pause: Duration::ZERO };
    assert_eq!(text(site.send(b"GET", Payload::Empty, gone).await.expect("ran")).await, "ClientGone");
    worker.request().await;
    let news = tokio::time::timeout(Duration::from_secs(5), site.news.recv()).await.expect("in time");
    assert_eq!(news, Some(stuck(1)));
    // Its replacement breaks the stream, or it comes to its end after all.
    assert_eq!(worker.frame().await.map(|frame| frame.0), Some(Kind::Cancel));
    worker.answer(Flags::END, b"for nobody").await;
    let answer = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    worker.answer(Flags::END, b"for somebody").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] for somebody");
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_a_slot_for_a_bounded_time() {
    let site = Site::new();
    let mut worker = site.worker(1);
    let answer = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    worker.answer(Flags::NONE, b"").await;
    let answer = answer.await.expect("ran");
    // 64 bytes in memory, 64 on disk, and one piece in the pump's hands.
    for _ in 0..4 {
        worker.send(Kind::ResponseBody, Flags::NONE, &[b'x'; 60]).await;
    }
    assert_eq!(worker.frame().await.map(|frame| frame.0), Some(Kind::Cancel), "after `held`");
    worker.send(Kind::ResponseBody, Flags::END, b"").await;
    let text = text(answer).await;
    assert!(text.ends_with('!'), "cut short, and it shows: {text}");
    let next = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    worker.answer(Flags::END, b"free").await;
    assert_eq!(self::text(next.await.expect("ran")).await, "200 [X-App] free");
}

#[tokio::test]
async fn a_retiring_worker_is_told_after_its_exchange() {
    let mut site = Site::new();
    let mut worker = site.worker(1);
    assert_eq!(site.news.recv().await, Some(WorkerNews::Online(1)));
    let answer = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    site.dispatcher.pools.retire(1);
    worker.answer(Flags::END, b"last").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] last");
    assert_eq!(worker.frame().await.map(|frame| frame.0), Some(Kind::Retire));
    assert_eq!(worker.frame().await, None, "and the stream is closed");
    assert_eq!(site.news.recv().await, Some(WorkerNews::Retired(1)));
}
