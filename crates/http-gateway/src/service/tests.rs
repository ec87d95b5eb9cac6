//! What takes which way: slots for requests, the long link for what lasts; against workers that are played by the test.

mod flown;

use std::time::Duration;

use py_link::long::{Close, DETACHED_FIRST, encode_fields};
use py_link::{Flags, Kind, Request};
use tokio::time::timeout;

use super::*;
use crate::guard::Guard;
use crate::link::long::{Link, LinkIdentity, LongLimits};
use crate::link::{Slot, SlotIdentity};
use crate::message::{Body, Headers, Method, Version};
use crate::spool::{Aborted, Piece};
use crate::testing::{Worker, head};
use crate::upstream::Secrets;
use crate::websocket::{FromApp, FromClient, MessageType};

const SOON: Duration = Duration::from_secs(10);

struct Site {
    gateway: Arc<Gateway>,
    pools: Arc<Pools>,
    links: Arc<LongLinks>,
}

impl Site {
    fn new(interface: Interface) -> Self {
        Self::with(interface, |_| {})
    }

    fn with(interface: Interface, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.timeouts.app = Duration::from_millis(400);
        config.timeouts.queue = Duration::from_millis(200);
        config.files.enabled = false;
        change(&mut config);
        let config = Arc::new(config);
        let (pools, _) = Pools::new(&config);
        let limits = LongLimits { grace: Duration::from_millis(50), app: config.timeouts.app };
        let (links, _) = LongLinks::new(limits);
        let trusted = Arc::new(TrustedProxies::default());
        let guard = Arc::new(
            Guard::new(&config, Arc::clone(&trusted), config.server.state_dir.clone(), None).unwrap(),
        );
        let upstreams = Upstreams::new(&config, &Secrets::default()).unwrap();
        let (own_pools, own_links) = (Arc::clone(&pools), Arc::clone(&links));
        let gateway = Gateway::new(config, trusted, own_pools, own_links, None, guard, upstreams).unwrap();
        gateway.activate(0, 1, &AppReport { interface, ..AppReport::default() });
        Self { gateway, pools, links }
    }

    fn slot(&self, worker: u32) -> Worker {
        let (ours, theirs) = Worker::pair();
        let slot = Slot::new(ours, SlotIdentity { worker, generation: 1, home: 0 }).expect("slot");
        self.pools.number(0).expect("the default pool").join(slot.beside(&self.links), 1);
        theirs
    }

    fn long(&self, worker: u32, capacity: u16) -> Worker {
        let (ours, theirs) = Worker::pair();
        let identity = LinkIdentity { worker, generation: 1, pool: 0, capacity, concurrency: 2 };
        let queue = self.pools.number(0).expect("the default pool");
        let link = Link::new(ours, identity, queue.metrics()).expect("link");
        self.links.join(&link);
        tokio::spawn(link.run(Arc::clone(&self.links)));
        theirs
    }

    fn get(&self, accept: &str) -> tokio::task::JoinHandle<(Response, Hints)> {
        let gateway = Arc::clone(&self.gateway);
        let head = asking(&[("accept", accept)]);
        tokio::spawn(async move {
            let mut client = Hints::default();
            let response = gateway.call(&CONNECTION, &head, &mut client).await;
            (response, client)
        })
    }

    fn websocket(&self) -> tokio::task::JoinHandle<Answer> {
        let gateway = Arc::clone(&self.gateway);
        let head = asking(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        tokio::spawn(async move { gateway.websocket(&CONNECTION, &head).await })
    }
}

const CONNECTION: Connection = Connection {
    peer: None,
    peer_is_trusted: false,
    local: None,
    tls: true,
    tls_facts: Some(py_link::Tls { version: 0x0304, cipher_suite: 0x1301 }),
    certificate: None,
};

fn asking(fields: &[(&str, &str)]) -> RequestHead {
    let mut headers = Headers::default();
    headers.push(b"host", b"shop");
    for (name, value) in fields {
        headers.push(name.as_bytes(), value.as_bytes());
    }
    RequestHead { method: Method::Get, target: b"/x".to_vec(), version: Version::Http11, headers }
}

/// A client without a body who notes hints.
#[derive(Default)]
struct Hints(Vec<String>);

impl RequestBody for Hints {
    fn length(&self) -> BodyLength {
        BodyLength::None
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(None)
    }

    async fn closed(&mut self) {
        std::future::pending::<()>().await;
    }

    async fn inform(&mut self, status: u16, headers: &Headers) {
        let link = headers.get("link").unwrap_or_default();
        self.0.push(format!("{status} {}", String::from_utf8_lossy(link)));
    }
}

/// Status, body and trailers.
async fn text(response: Response) -> String {
    let status = response.status;
    match response.body {
        Body::Empty => format!("{status} -"),
        Body::Bytes(bytes) => format!("{status} {}", String::from_utf8_lossy(&bytes)),
        Body::File(_) => format!("{status} file"),
        Body::Stream(mut stream) => {
            let mut all = format!("{status} ~");
            loop {
                match timeout(SOON, stream.next()).await.expect("nothing came") {
                    Some(Ok(Piece::Bytes(bytes))) => all += &String::from_utf8_lossy(&bytes),
                    Some(Ok(Piece::File(_))) => all += "<file>",
                    Some(Err(Aborted)) => return all + "!",
                    None => return stream.take_trailers().map_or(all.clone(), |t| format!("{all} {t:?}")),
                }
            }
        }
    }
}

fn hint() -> Vec<u8> {
    let mut hint = Vec::new();
    encode_fields(&mut hint, [(&b"link"[..], &b"</a.css>"[..])].into_iter());
    hint
}

#[tokio::test]
async fn who_asks_for_events_waits_for_a_slot_like_anybody_else() {
    let site = Site::new(Interface::Asgi);
    let (mut slot, _long) = (site.slot(1), site.long(1, 9));
    let answer = site.get("text/html, Text/Event-Stream;q=0.9");
    let (number, kind, _, payload) = slot.hear().await.expect("a request");
    assert_eq!((number, kind), (0, Kind::Request));
    let request = Request::decode(&payload).expect("decodes");
    assert_eq!((request.exchange, request.tls), (py_link::Exchange::Http, CONNECTION.tls_facts));
    assert_eq!((request.id.len(), request.target), (32, &b"/x"[..]));
    // Saying so spares nobody the queue.
    assert_eq!(site.get("text/event-stream").await.expect("ran").0.status, 503);
    slot.head(0, 200, "text/plain", Flags::END, b"quick").await;
    let (response, _) = answer.await.expect("ran");
    assert!(response.headers.contains("x-request-id"));
    assert_eq!(text(response).await, "200 quick");
}

#[tokio::test]
async fn an_answer_that_lasts_leaves_its_slot() {
    let site = Site::new(Interface::Asgi);
    let (mut slot, mut long) = (site.slot(1), site.long(1, 9));
    let lasting = site.get("*/*");
    slot.hears(Kind::Request).await;
    let mut detached = DETACHED_FIRST.to_le_bytes().to_vec();
    detached.extend(head(200, "text/event-stream", b"data: 1\n\n"));
    slot.say(0, Kind::EarlyHints, Flags::NONE, &hint()).await;
    slot.say(0, Kind::Detached, Flags::NONE, &detached).await;
    let (lasting, client) = lasting.await.expect("ran");
    assert_eq!(client.0, ["103 </a.css>"]);
    assert_eq!((lasting.trail.by, lasting.trail.lasts), (AnsweredBy::Worker(1), true));
    // The only slot serves the next request while the events go on.
    let next = site.get("*/*");
    slot.hears(Kind::Request).await;
    slot.head(0, 200, "text/plain", Flags::END, b"next").await;
    assert_eq!(text(next.await.expect("ran").0).await, "200 next");
    long.say(DETACHED_FIRST, Kind::ResponseBody, Flags::NONE, b"data: 2\n\n").await;
    let mut trailers = Vec::new();
    encode_fields(&mut trailers, [(&b"x-sum"[..], &b"7"[..])].into_iter());
    long.say(DETACHED_FIRST, Kind::Trailers, Flags::END, &trailers).await;
    assert_eq!(text(lasting).await, "200 ~data: 1\n\ndata: 2\n\n {\"x-sum\": \"7\"}");
    // Without a long link there is no rest.
    drop(long);
    while !site.links.loads().is_empty() {
        tokio::task::yield_now().await;
    }
    let lost = site.get("*/*");
    slot.hears(Kind::Request).await;
    slot.say(0, Kind::Detached, Flags::NONE, &detached).await;
    assert_eq!(lost.await.expect("ran").0.status, 502);
}

#[tokio::test]
async fn trailers_and_hints_pass_on_a_slot() {
    let site = Site::new(Interface::Wsgi);
    let mut slot = site.slot(1);
    let answer = site.get("*/*");
    slot.hears(Kind::Request).await;
    // One loop of an app is enough of them.
    for _ in 0..20 {
        slot.say(0, Kind::EarlyHints, Flags::NONE, &hint()).await;
    }
    slot.head(0, 200, "text/plain", Flags::NONE, b"").await;
    slot.say(0, Kind::ResponseBody, Flags::NONE, b"body").await;
    slot.say(0, Kind::Trailers, Flags::END, &hint()).await;
    let (response, client) = answer.await.expect("ran");
    assert_eq!(client.0.len(), 16);
    assert_eq!(text(response).await, "200 ~body {\"link\": \"</a.css>\"}");
}

/// What is answered to a handshake that is not accepted.
async fn refused(answer: tokio::task::JoinHandle<Answer>) -> Response {
    match answer.await {
        Ok(Answer::Refused(response)) => response,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_worker_that_dies_before_its_head_is_replaced_once() {
    let site = Site::new(Interface::Asgi);
    let (mut first, mut second) = (site.long(1, 9), site.long(2, 9));
    let answer = site.websocket();
    first.hears(Kind::Request).await;
    drop(first);
    second.hears(Kind::Request).await;
    second.head(1, 401, "text/plain", Flags::NONE, b"who").await;
    let response = refused(answer).await;
    drop(second);
    assert_eq!(text(response).await, "401 ~who!", "cut short, and it shows");
    let (mut first, mut second) = (site.long(3, 9), site.long(4, 9));
    let answer = site.websocket();
    first.hears(Kind::Request).await;
    drop(first);
    second.hears(Kind::Request).await;
    drop(second);
    assert_eq!(refused(answer).await.status, 502);
}

#[tokio::test]
async fn silence_is_a_504_and_the_app_is_told() {
    let site = Site::new(Interface::Asgi);
    let mut long = site.long(1, 9);
    let answer = site.websocket();
    long.hears(Kind::Request).await;
    assert_eq!(refused(answer).await.status, 504);
    long.hears(Kind::Cancel).await;
}

#[tokio::test]
async fn one_too_many_is_a_503_that_says_when_to_come_back() {
    let site = Site::new(Interface::Asgi);
    let (mut slot, mut long) = (site.slot(1), site.long(1, 1));
    let _first = site.websocket();
    long.hears(Kind::Request).await;
    let second = refused(site.websocket()).await;
    assert_eq!(second.status, 503);
    assert!(second.headers.contains("retry-after"));
    // An event stream that leaves its slot has no place either …
    let events = site.get("*/*");
    slot.hears(Kind::Request).await;
    let mut detached = DETACHED_FIRST.to_le_bytes().to_vec();
    detached.extend(head(200, "text/event-stream", b"data: 1\n\n"));
    slot.say(0, Kind::Detached, Flags::NONE, &detached).await;
    let (events, _) = events.await.expect("ran");
    assert_eq!(events.status, 503);
    assert!(events.headers.contains("retry-after"));
    assert_eq!(long.hears(Kind::Cancel).await, DETACHED_FIRST);
    long.say(DETACHED_FIRST, Kind::ResponseBody, Flags::ABORT, b"").await;
    // … and one that finds no room there must not keep its slot instead.
    let events = site.get("*/*");
    slot.hears(Kind::Request).await;
    slot.head(0, 200, "text/event-stream", Flags::NONE, b"data: 1\n\n").await;
    assert_eq!(events.await.expect("ran").0.status, 503);
    slot.hears(Kind::Cancel).await;
    slot.say(0, Kind::ResponseBody, Flags::ABORT, b"").await;
    let next = site.get("*/*");
    slot.hears(Kind::Request).await;
    slot.head(0, 200, "text/plain", Flags::END, b"next").await;
    assert_eq!(text(next.await.expect("ran").0).await, "200 next");
    let [(_, counted)] = site.pools.metrics()[..] else { panic!("one pool") };
    assert_eq!(counted.long_lived_refused.get(), 3);
}

#[tokio::test]
async fn handshakes_are_work_until_they_are_answered() {
    let site = Site::new(Interface::Asgi);
    let mut long = site.long(1, 99);
    // Two may be at work.
    let answers: Vec<_> = (0..5).map(|_| site.websocket()).collect();
    for number in 1..=2 {
        assert_eq!(long.hears(Kind::Request).await, number);
    }
    assert!(timeout(Duration::from_millis(50), long.hear()).await.is_err(), "the others wait");
    // An answer whose client takes its time is no work any more, and an open WebSocket is none.
    for (number, status) in (1..=5).zip([401, 101, 101, 101, 101]) {
        long.head(number, status, "text/plain", Flags::NONE, b"").await;
        if number <= 3 {
            assert_eq!(long.hears(Kind::Request).await, number + 2);
        }
    }
    let mut open = Vec::new();
    for answer in answers {
        open.push(timeout(SOON, answer).await.expect("in time").expect("ran"));
    }
    let accepted = open.iter().filter(|answer| matches!(answer, Answer::Accepted { .. })).count();
    assert_eq!((accepted, open.len()), (4, 5));
}

#[tokio::test]
async fn a_client_that_goes_leaves_its_handshake_at_work_until_the_app_has_noticed() {
    let site = Site::new(Interface::Asgi);
    let mut long = site.long(1, 99);
    for number in 1..=2 {
        let answer = site.websocket();
        assert_eq!(long.hears(Kind::Request).await, number);
        answer.abort();
        assert_eq!(long.hears(Kind::Cancel).await, number);
    }
    assert_eq!(refused(site.websocket()).await.status, 503, "two are at work");
    long.say(1, Kind::ResponseBody, Flags::ABORT, b"").await;
    let answer = site.websocket();
    let number = long.hears(Kind::Request).await;
    long.head(number, 401, "text/plain", Flags::END, b"who?").await;
    assert_eq!(refused(answer).await.status, 401);
}

#[tokio::test]
async fn websockets_are_accepted_refused_or_answered_by_the_app() {
    let site = Site::new(Interface::Asgi);
    let mut long = site.long(1, 9);
    let answer = site.websocket();
    let (number, _, _, payload) = long.hear().await.expect("a request");
    let request = Request::decode(&payload).expect("decodes");
    assert_eq!(request.exchange, py_link::Exchange::WebSocket);
    long.head(number, 101, "", Flags::NONE, b"").await;
    let Ok(Answer::Accepted { mut session, trail, .. }) = answer.await else { panic!("not accepted") };
    assert_eq!(trail.by, AnsweredBy::Worker(1));
    session
        .to_app
        .send(FromClient::Message(MessageType::Text, Bytes::from_static(b"ping")))
        .await
        .expect("open");
    assert_eq!(long.hear().await.expect("a message").3, b"\x01ping");
    long.say(number, Kind::MessageToGateway, Flags::END, b"\x01pong").await;
    let said = timeout(SOON, session.from_app.recv()).await.expect("in time");
    assert_eq!(said, Some(FromApp::Message(MessageType::Text, Bytes::from_static(b"pong"))));

    let answer = site.websocket();
    let number = long.hears(Kind::Request).await;
    long.say(number, Kind::CloseToGateway, Flags::NONE, &Close { code: 1000, reason: "" }.encode()).await;
    assert!(matches!(answer.await, Ok(Answer::Refused(refused)) if refused.status == 403));

    let answer = site.websocket();
    let number = long.hears(Kind::Request).await;
    long.head(number, 401, "text/plain", Flags::END, b"who?").await;
    assert!(matches!(answer.await, Ok(Answer::Refused(refused)) if refused.status == 401));
}

#[tokio::test]
async fn a_wsgi_app_sees_a_get() {
    let site = Site::new(Interface::Wsgi);
    let mut slot = site.slot(1);
    for websocket in [true, false] {
        let websocket = websocket.then(|| site.websocket());
        let events = websocket.is_none().then(|| site.get("text/event-stream"));
        let (_, kind, _, payload) = slot.hear().await.expect("a request");
        let request = Request::decode(&payload).expect("decodes");
        assert_eq!(
            (kind, request.method, request.exchange),
            (Kind::Request, &b"GET"[..], py_link::Exchange::Http)
        );
        slot.head(0, 200, "text/plain", Flags::END, b"no WebSockets here").await;
        let response = match (websocket, events) {
            (Some(answer), _) => match answer.await {
                Ok(Answer::Refused(response)) => response,
                other => panic!("{other:?}"),
            },
            (None, Some(answer)) => answer.await.expect("ran").0,
            (None, None) => panic!("one of them"),
        };
        assert_eq!(text(response).await, "200 no WebSockets here");
    }
}
