//! A long link against workers that are played by the test.

use std::time::Duration;

use bytes::Bytes;
use py_link::HEADER_BYTES;
use py_link::long::{Close, DETACHED_FIRST, MessageType, PIECE_BYTES_MAX, WINDOW_BYTES, decode_credit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::message::Headers;
use crate::spool::Piece;
use crate::testing::Worker;
use crate::websocket::{AppSession, FromApp, FromClient, session};

mod storm;

/// Long enough on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// For a worker where there is none.
const PATIENCE: Duration = Duration::from_millis(200);

struct Site {
    links: Arc<LongLinks>,
    news: UnboundedReceiver<LongNews>,
}

impl Site {
    fn new() -> Self {
        let (links, news) =
            LongLinks::new(LongLimits { grace: Duration::from_millis(50), app: Duration::from_millis(300) });
        links.activate(&[0, 1, 2], 1, true);
        Self { links, news }
    }

    fn worker(&self, worker: u32, capacity: u16) -> Worker {
        let (ours, theirs) = Worker::pair();
        let identity = LinkIdentity { worker, generation: 1, pool: 0, capacity, concurrency: 40 };
        let link = Link::new(ours, identity, &Arc::default()).expect("link");
        self.links.join(&link);
        tokio::spawn(link.run(Arc::clone(&self.links)));
        theirs
    }

    async fn begin(&self) -> Result<LongStream, NoLink> {
        let request = |out: &mut Vec<u8>| out.extend(py_link::frame(Kind::Request, Flags::NONE, b"GET"));
        self.links.begin(0, PATIENCE, request).await
    }

    /// An accepted WebSocket: the driver's end, and its number.
    async fn websocket(&self, worker: &mut Worker) -> (AppSession, u16) {
        let stream = self.begin().await.expect("a link");
        let number = worker.hears(Kind::Request).await;
        worker.head(number, 101, "", Flags::NONE, b"").await;
        assert!(matches!(next(&stream).await, Ok(Item::Head(head)) if head.status == 101));
        let (ours, from_client, to_client) = session();
        tokio::spawn(bridge(stream, from_client, to_client, SOON));
        (ours, number)
    }

    /// An accepted WebSocket whose client has said more than the app takes, and is gone: its bridge, and its number.
    async fn left_behind(&self, worker: &mut Worker, patience: Duration) -> (JoinHandle<()>, u16) {
        let stream = self.begin().await.expect("a link");
        let number = worker.hears(Kind::Request).await;
        worker.head(number, 101, "", Flags::NONE, b"").await;
        assert!(matches!(next(&stream).await, Ok(Item::Head(_))));
        let (driver, from_client, to_client) = session();
        let bridge = tokio::spawn(bridge(stream, from_client, to_client, patience));
        for _ in 0..=WINDOW_BYTES as usize / PIECE_BYTES_MAX {
            let message = FromClient::Message(MessageType::Binary, vec![0; PIECE_BYTES_MAX].into());
            driver.to_app.send(message).await.expect("open");
        }
        drop(driver);
        let mut taken = 0;
        while taken < WINDOW_BYTES as usize {
            let (_, kind, _, payload) = worker.hear().await.expect("a frame");
            assert_eq!(kind, Kind::MessageToWorker);
            taken += payload.len();
        }
        (bridge, number)
    }
}

async fn next(stream: &LongStream) -> Result<Item, End> {
    timeout(SOON, stream.next()).await.expect("nothing came")
}

/// What is left of a body, and how it ended.
async fn rest(stream: &LongStream) -> String {
    let mut all = String::new();
    loop {
        match next(stream).await {
            Ok(Item::Head(head)) => {
                all = format!("{all}{} {}", head.status, String::from_utf8_lossy(&head.body));
            }
            Ok(Item::Piece(Piece::Bytes(bytes))) => all += &String::from_utf8_lossy(&bytes),
            Ok(other) => all = format!("{all}<{other:?}>"),
            Err(End::Complete(None)) => return all + ".",
            Err(end) => return format!("{all} {end:?}"),
        }
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn an_answer_comes_piece_by_piece_and_ends() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    let stream = site.begin().await.expect("a link");
    let number = worker.hears(Kind::Request).await;
    assert_eq!(number, 1);
    worker.head(number, 403, "text/plain", Flags::NONE, b"").await;
    assert!(matches!(next(&stream).await, Ok(Item::Head(_))));
    for piece in ["one ", "two"] {
        worker.say(number, Kind::ResponseBody, Flags::NONE, piece.as_bytes()).await;
        assert!(matches!(next(&stream).await, Ok(Item::Piece(Piece::Bytes(bytes))) if bytes == piece));
    }
    assert_eq!(site.links.loads(), [(1, 1)]);
    worker.say(number, Kind::ResponseBody, Flags::END, b"").await;
    assert_eq!(rest(&stream).await, ".");
    drop(stream);
    // Nothing is said of a stream that is over, and the next number is taken.
    let _next = site.begin().await.expect("a link");
    assert_eq!(worker.hears(Kind::Request).await, 2);
    assert_eq!(site.links.loads(), [(1, 1)]);
}

#[tokio::test]
async fn a_whole_answer_an_abort_and_trailers_are_told_apart() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    for (flags, expected) in [(Flags::END, "200 all."), (Flags::ABORT, "200 all Aborted")] {
        let stream = site.begin().await.expect("a link");
        let number = worker.hears(Kind::Request).await;
        worker.head(number, 200, "text/plain", flags, b"all").await;
        assert_eq!(rest(&stream).await, expected);
    }
    let stream = site.begin().await.expect("a link");
    let number = worker.hears(Kind::Request).await;
    let mut fields = Vec::new();
    py_link::long::encode_fields(&mut fields, [(&b"x-sum"[..], &b"7"[..])].into_iter());
    worker.head(number, 200, "text/plain", Flags::NONE, b"").await;
    worker.say(number, Kind::Trailers, Flags::END, &fields).await;
    assert!(matches!(next(&stream).await, Ok(Item::Head(_))));
    let end = next(&stream).await.expect_err("the end");
    assert!(matches!(end, End::Complete(Some(fields)) if fields.get("x-sum") == Some(b"7")));
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_own_app_only() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    let slow = site.begin().await.expect("a link");
    let other = site.begin().await.expect("a link");
    let (first, second) = (worker.hears(Kind::Request).await, worker.hears(Kind::Request).await);
    worker.head(first, 403, "text/plain", Flags::NONE, b"").await;
    let piece = vec![b'x'; 32 << 10];
    for _ in 0..WINDOW_BYTES as usize / piece.len() {
        worker.say(first, Kind::ResponseBody, Flags::NONE, &piece).await;
    }
    // All of the window is used up, and the other stream moves.
    worker.head(second, 200, "text/plain", Flags::END, b"quick").await;
    assert_eq!(rest(&other).await, "200 quick.");
    // What is taken comes back as credit.
    let mut credit = 0;
    let mut taken = 0;
    while taken < WINDOW_BYTES as usize {
        if let Ok(Item::Piece(Piece::Bytes(bytes))) = next(&slow).await {
            taken += bytes.len();
        }
    }
    while credit < WINDOW_BYTES {
        let (number, kind, _, payload) = worker.hear().await.expect("credit");
        assert_eq!((number, kind), (first, Kind::CreditToWorker));
        credit += decode_credit(&payload).expect("credit");
    }
    assert_eq!(credit, WINDOW_BYTES);
}

#[tokio::test]
async fn a_worker_that_sends_more_than_it_may_loses_its_link() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    let stream = site.begin().await.expect("a link");
    let number = worker.hears(Kind::Request).await;
    worker.head(number, 403, "text/plain", Flags::NONE, b"").await;
    for _ in 0..5 {
        let piece = frame_on(number, Kind::ResponseBody, Flags::NONE, &vec![0; PIECE_BYTES_MAX]);
        let _the_link_may_end_meanwhile = worker.stream.write_all(&piece).await;
    }
    assert_eq!(worker.hear().await, None);
    assert_eq!(site.links.loads(), []);
    while next(&stream).await.is_ok() {}
    assert!(matches!(next(&stream).await, Err(End::Lost)));
}

#[tokio::test]
async fn a_client_that_leaves_is_told_to_the_worker_who_ends_the_stream() {
    let site = Site::new();
    let mut worker = site.worker(1, 1);
    let stream = site.begin().await.expect("a link");
    let number = worker.hears(Kind::Request).await;
    drop(stream);
    assert_eq!(worker.hears(Kind::Cancel).await, number);
    // Until the worker has ended it there is no room for another.
    assert!(matches!(site.begin().await, Err(NoLink::Full)));
    worker.head(number, 200, "text/plain", Flags::NONE, b"for nobody").await;
    worker.say(number, Kind::ResponseBody, Flags::ABORT, b"").await;
    while site.links.loads() != [(1, 0)] {
        tokio::task::yield_now().await;
    }
    // What crosses the end is ignored.
    worker.say(number, Kind::ResponseBody, Flags::NONE, b"late").await;
    let _next = site.begin().await.expect("room");
    assert_eq!(worker.hears(Kind::Request).await, number + 1);
}

#[tokio::test]
async fn an_app_that_never_ends_does_not_keep_its_worker_for_ever() {
    let mut site = Site::new();
    let mut worker = site.worker(7, 9);
    drop(site.begin().await.expect("a link"));
    worker.hears(Kind::Request).await;
    worker.hears(Kind::Cancel).await;
    site.links.retire(7);
    assert!(!site.links.slots_gone(7));
    let began = Instant::now();
    assert_eq!(worker.hears(Kind::Retire).await, 0);
    assert!(began.elapsed() >= Duration::from_secs(2), "some apps need a moment");
    assert_eq!(timeout(SOON, site.news.recv()).await, Ok(Some(LongNews::Over(7))));
    assert_eq!(site.links.loads(), []);
}

#[tokio::test]
async fn websockets_carry_messages_of_any_length_both_ways() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    let (mut driver, number) = site.websocket(&mut worker).await;
    driver.to_app.send(FromClient::Message(MessageType::Text, text("hello"))).await.expect("open");
    assert_eq!(worker.hear().await, Some((number, Kind::MessageToWorker, Flags::END, b"\x01hello".to_vec())));
    worker.say(number, Kind::MessageToGateway, Flags::END, b"\x02bytes").await;
    let said = timeout(SOON, driver.from_app.recv()).await.expect("in time");
    assert_eq!(said, Some(FromApp::Message(MessageType::Binary, text("bytes"))));
    driver.to_app.send(FromClient::Message(MessageType::Text, Bytes::new())).await.expect("open");
    assert_eq!(worker.hear().await, Some((number, Kind::MessageToWorker, Flags::END, b"\x01".to_vec())));
    // A megabyte up: as fast as the app gives credit.
    let large = Bytes::from(vec![b'l'; 1 << 20]);
    driver.to_app.send(FromClient::Message(MessageType::Binary, large.clone())).await.expect("open");
    let mut got = Vec::new();
    loop {
        let (_, kind, flags, piece) = worker.hear().await.expect("a piece");
        assert_eq!(kind, Kind::MessageToWorker);
        assert!(piece.len() <= PIECE_BYTES_MAX);
        let credit = encode_credit(piece.len() as u32);
        got.extend(piece);
        worker.say(number, Kind::CreditToGateway, Flags::NONE, &credit).await;
        if flags.is_end() {
            break;
        }
    }
    assert_eq!((got[0], &got[1..]), (2, &large[..]));
    // And down.
    for (at, piece) in [&b"\x02"[..], &large[..]].concat().chunks(PIECE_BYTES_MAX).enumerate() {
        let flags = if at == large.len() / PIECE_BYTES_MAX { Flags::END } else { Flags::NONE };
        worker.say(number, Kind::MessageToGateway, flags, piece).await;
    }
    let said = timeout(SOON, driver.from_app.recv()).await.expect("in time");
    assert_eq!(said, Some(FromApp::Message(MessageType::Binary, large)));
}

#[tokio::test]
async fn each_side_can_close_a_websocket() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    let (mut driver, number) = site.websocket(&mut worker).await;
    let close = Close { code: 4001, reason: "enough" }.encode();
    worker.say(number, Kind::CloseToGateway, Flags::NONE, &close).await;
    let said = timeout(SOON, driver.from_app.recv()).await.expect("in time");
    assert_eq!(said, Some(FromApp::Close { code: 4001, reason: "enough".into() }));
    assert_eq!(timeout(SOON, driver.from_app.recv()).await, Ok(None));

    let (driver, number) = site.websocket(&mut worker).await;
    driver.to_app.send(FromClient::Closed { code: 1000, reason: "bye".into() }).await.expect("open");
    let expected = Close { code: 1000, reason: "bye" }.encode();
    assert_eq!(worker.hear().await, Some((number, Kind::CloseToWorker, Flags::NONE, expected)));
    worker.say(number, Kind::ResponseBody, Flags::END, b"").await;

    let (driver, number) = site.websocket(&mut worker).await;
    drop(driver);
    let expected = Close { code: 1006, reason: "" }.encode();
    assert_eq!(worker.hear().await, Some((number, Kind::CloseToWorker, Flags::NONE, expected)));

    let (mut driver, _) = site.websocket(&mut worker).await;
    drop(worker);
    // Without a Close: the driver says 1011.
    assert_eq!(timeout(SOON, driver.from_app.recv()).await, Ok(None));
}

#[tokio::test]
async fn an_app_that_takes_nothing_and_ends_after_its_client_leaves_nothing_behind() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    let (bridge, number) = site.left_behind(&mut worker, SOON * 10).await;
    worker.say(number, Kind::MessageToGateway, Flags::END, b"\x01too much").await;
    // More than the window: nobody listens, and the app does not have to stop for that.
    for _ in 0..2 * WINDOW_BYTES as usize / PIECE_BYTES_MAX {
        worker.say(number, Kind::MessageToGateway, Flags::END, &vec![2; PIECE_BYTES_MAX / 2]).await;
    }
    worker.say(number, Kind::CloseToGateway, Flags::NONE, &Close { code: 1009, reason: "" }.encode()).await;
    timeout(SOON, bridge).await.expect("it ends").expect("it ran");
    assert_eq!(site.links.loads(), [(1, 0)]);
}

#[tokio::test]
async fn an_app_that_takes_nothing_hears_in_the_end_that_its_client_is_gone() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    let (bridge, number) = site.left_behind(&mut worker, Duration::from_millis(50)).await;
    let expected = Close { code: 1006, reason: "" }.encode();
    assert_eq!(worker.hear().await, Some((number, Kind::CloseToWorker, Flags::NONE, expected)));
    timeout(SOON, bridge).await.expect("it ends").expect("it ran");
}

#[tokio::test]
async fn a_refused_handshake_is_a_close_or_an_answer() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    let stream = site.begin().await.expect("a link");
    let number = worker.hears(Kind::Request).await;
    worker.say(number, Kind::CloseToGateway, Flags::NONE, &Close { code: 1000, reason: "" }.encode()).await;
    assert!(matches!(next(&stream).await, Err(End::Close(1000, _))));
    let stream = site.begin().await.expect("a link");
    let number = worker.hears(Kind::Request).await;
    worker.head(number, 401, "text/plain", Flags::END, b"who are you?").await;
    assert_eq!(rest(&stream).await, "401 who are you?.");
}

/// A slot's Detached frame, as the slot gives it.
fn detached(site: &Site, worker: u32, number: u16, body: &'static [u8]) -> Detached {
    let mut headers = Headers::default();
    headers.push(b"content-type", b"text/event-stream");
    let body = Bytes::from_static(body);
    let head = Head { status: 200, reason: Box::default(), headers, body, flags: Flags::NONE, queries: None };
    Detached::new(Arc::clone(&site.links), worker, number, Box::new(head))
}

#[tokio::test]
async fn a_detached_exchange_finds_its_stream_whichever_comes_first() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    let (a, b) = (DETACHED_FIRST, DETACHED_FIRST + 1);
    // The slot first.
    let (head, stream) = detached(&site, 1, a, b"one ").claim().expect("a link");
    assert_eq!((head.status, head.body.len()), (200, 0));
    worker.say(a, Kind::ResponseBody, Flags::END, b"two").await;
    assert_eq!(rest(&stream).await, "one two.");
    // The link first, to its very end.
    worker.say(b, Kind::ResponseBody, Flags::NONE, b"two ").await;
    worker.say(b, Kind::ResponseBody, Flags::END, b"three").await;
    while site.links.loads() != [(1, 1)] {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (_, stream) = detached(&site, 1, b, b"one ").claim().expect("a link");
    assert_eq!(rest(&stream).await, "one two three.");
    assert_eq!(site.links.loads(), [(1, 0)]);
    // Nobody wants it.
    drop(detached(&site, 1, b + 1, b""));
    assert_eq!(worker.hears(Kind::Cancel).await, b + 1);
    worker.say(b + 1, Kind::ResponseBody, Flags::ABORT, b"").await;
    while site.links.loads() != [(1, 0)] {
        tokio::task::yield_now().await;
    }
    assert!(detached(&site, 2, a, b"").claim().is_err(), "there is no such worker");
}

#[tokio::test(start_paused = true)]
async fn what_no_slot_tells_of_is_cancelled() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    worker.say(DETACHED_FIRST, Kind::ResponseBody, Flags::NONE, b"lost").await;
    let told = loop {
        // The paused clock moves when all wait, and this waits for a socket.
        tokio::time::sleep(Duration::from_millis(500)).await;
        if let Ok(told) =
            timeout(Duration::from_millis(1), worker.stream.read_buf(&mut worker.received)).await
        {
            break told.expect("bytes");
        }
    };
    assert_eq!(told, HEADER_BYTES);
    assert_eq!(worker.hears(Kind::Cancel).await, DETACHED_FIRST);
}

#[tokio::test]
async fn without_a_worker_an_asgi_app_is_waited_for_and_a_wsgi_app_is_not() {
    let site = Site::new();
    assert!(matches!(site.begin().await, Err(NoLink::Full)), "none in time");
    let (begun, mut worker) = tokio::join!(site.begin(), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        site.worker(1, 9)
    });
    begun.expect("it came");
    worker.hears(Kind::Request).await;
    drop(worker);
    site.links.activate(&[0, 1, 2], 1, false);
    while !site.links.loads().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(site.begin().await, Err(NoLink::Never)));
    // Another pool's worker is asked for, once.
    site.links.activate(&[0, 1, 2], 1, true);
    let mut news = site.news;
    let request = |out: &mut Vec<u8>| out.extend(py_link::frame(Kind::Request, Flags::NONE, b"GET"));
    let begin = || site.links.begin(2, PATIENCE, request);
    let (first, second) = tokio::join!(begin(), begin());
    assert!(first.is_err() && second.is_err());
    assert_eq!((news.try_recv(), news.try_recv().is_err()), (Ok(LongNews::Wanted(2)), true));
    // Nobody waited any more; this is another need.
    assert!(begin().await.is_err());
    assert_eq!(news.try_recv(), Ok(LongNews::Wanted(2)));
}

#[tokio::test]
async fn a_worker_that_reads_nothing_is_not_waited_for_without_end() {
    let site = Site::new();
    let mut worker = site.worker(1, 99);
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(site.websocket(&mut worker).await.0);
    }
    // Each may send a window; together they fill the kernel's buffer and ours.
    for _ in 0..WINDOW_BYTES as usize / PIECE_BYTES_MAX {
        for client in &clients {
            let message = FromClient::Message(MessageType::Binary, vec![0; PIECE_BYTES_MAX - 1].into());
            client.to_app.send(message).await.expect("open");
        }
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = timeout(SOON, site.begin()).await.expect("in time");
    assert!(matches!(begun, Err(NoLink::Full)));
    assert_eq!(site.links.loads(), [(1, 8)], "what was not begun holds no number");
}

#[tokio::test]
async fn what_is_read_behind_the_end_of_a_link_counts_for_nothing() {
    let (ours, _theirs) = Worker::pair();
    let identity = LinkIdentity { worker: 1, generation: 1, pool: 0, capacity: 9, concurrency: 9 };
    let link = Link::new(ours, identity, &Arc::default()).expect("link");
    let frame = || FromWorker::Message(Bytes::from_static(b"late"), Flags::NONE);
    link.end("the worker has opened another");
    assert_eq!(link.receive(DETACHED_FIRST, frame()), Ok(()));
    assert_eq!((link.open(), link.table().len()), (0, 0));
}

#[test]
fn an_app_that_never_notices_that_its_client_is_gone_is_not_at_work_for_ever() {
    let (mut table, now, patience) = (Table::default(), Instant::now(), Duration::from_secs(9));
    let admission = Arc::new(tokio::sync::Semaphore::new(1));
    let admitted = Arc::clone(&admission).try_acquire_owned().expect("room");
    let shared = table.open(admitted).expect("room");
    table.cancelled(shared.number, now);
    for (age, permits, lingering) in [(8, 0, 0), (9, 1, 1), (10, 1, 0)] {
        let overdue = table.overdue(now + Duration::from_secs(age), patience);
        assert_eq!((admission.available_permits(), overdue.lingering), (permits, lingering), "{age}");
    }
    table.over(shared.number);
    assert_eq!(table.len(), 0);
}

#[test]
fn given_up_streams_do_not_count_as_unclaimed() {
    let mut table = Table::default();
    let now = Instant::now();
    for number in 0..10_000 {
        let number = DETACHED_FIRST + number;
        table.expect(number, now).expect("room");
        table.cancelled(number, now);
        table.over(number);
    }
    assert_eq!(table.len(), 0);
}

#[tokio::test]
async fn a_retiring_worker_keeps_what_lasts_for_the_grace_then_goes() {
    let mut site = Site::new();
    let mut worker = site.worker(1, 9);
    let (mut driver, socket) = site.websocket(&mut worker).await;
    let (_, events) = detached(&site, 1, DETACHED_FIRST, b"data: 1\n\n").claim().expect("a link");
    let download = site.begin().await.expect("a link");
    let long = worker.hears(Kind::Request).await;
    worker.head(long, 403, "application/zip", Flags::NONE, b"PK").await;
    let early = site.begin().await.expect("a link");
    worker.hears(Kind::Request).await;
    assert!(matches!(next(&download).await, Ok(Item::Head(_))));

    site.links.retire(1);
    assert!(matches!(site.begin().await, Err(NoLink::Full)), "no new ones");
    let said = timeout(SOON, driver.from_app.recv()).await.expect("in time");
    assert_eq!(said, Some(FromApp::Close { code: 1012, reason: "service restart".into() }));
    assert_eq!(rest(&events).await, "data: 1\n\n.");
    assert!(matches!(next(&early).await, Err(End::Lost)), "another worker may be asked");
    let mut told = Vec::new();
    for _ in 0..3 {
        let (number, kind, _, payload) = worker.hear().await.expect("a frame");
        told.push((number, kind, payload));
    }
    told.sort_unstable_by_key(|(number, ..)| *number);
    let close = py_link::long::Close { code: 1012, reason: "service restart" }.encode();
    let cancelled = |number| (number, Kind::Cancel, Vec::new());
    assert_eq!(told, [(socket, Kind::CloseToWorker, close), cancelled(long + 1), cancelled(DETACHED_FIRST)]);
    for (number, ..) in told {
        worker.say(number, Kind::ResponseBody, Flags::ABORT, b"").await;
    }
    // A body that is no event stream must not look whole before it is.
    assert!(!site.links.slots_gone(1), "it is not over");
    worker.say(long, Kind::ResponseBody, Flags::END, b"!").await;
    assert_eq!(rest(&download).await, "PK!.");
    assert_eq!(worker.hears(Kind::Retire).await, 0);
    assert_eq!(worker.hear().await, None);
    assert_eq!(timeout(SOON, site.news.recv()).await, Ok(Some(LongNews::Over(1))));
    assert!(site.links.slots_gone(1));
}

#[tokio::test]
async fn a_link_waits_for_the_slots_of_its_worker() {
    let mut site = Site::new();
    let mut worker = site.worker(1, 9);
    site.links.retire(1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    // A slot was still at work, and detaches: its client is asked to come back.
    let (_, stream) = detached(&site, 1, DETACHED_FIRST, b"data: 1\n\n").claim().expect("a link");
    assert_eq!(rest(&stream).await, "data: 1\n\n.");
    assert_eq!(worker.hears(Kind::Cancel).await, DETACHED_FIRST);
    worker.say(DETACHED_FIRST, Kind::ResponseBody, Flags::ABORT, b"").await;
    assert!(!site.links.slots_gone(1));
    assert_eq!(worker.hears(Kind::Retire).await, 0);
    assert_eq!(timeout(SOON, site.news.recv()).await, Ok(Some(LongNews::Over(1))));
}

#[tokio::test]
async fn when_the_process_ends_websockets_are_told_to_go() {
    let site = Site::new();
    let mut worker = site.worker(1, 9);
    let (mut driver, _) = site.websocket(&mut worker).await;
    site.links.dismiss_all(1001);
    let said = timeout(SOON, driver.from_app.recv()).await.expect("in time");
    assert_eq!(said, Some(FromApp::Close { code: 1001, reason: "going away".into() }));
    assert!(matches!(site.begin().await, Err(NoLink::Full)));
}
