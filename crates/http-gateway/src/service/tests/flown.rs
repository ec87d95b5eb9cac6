//! What becomes of requests that are sent twice.

use ctl_config::Route as Setting;
use ctl_config::route::Idempotency;
use py_link::Body as Sent;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// A site with one route for all.
fn site(single_flight: &str, change: impl FnOnce(&mut Config, &mut Setting)) -> Site {
    Site::with(Interface::Wsgi, |config| {
        let mut route = Setting { app: Some("default".to_owned()), ..Setting::default() };
        if !single_flight.is_empty() {
            route.single_flight = Some(single_flight.to_owned());
        }
        config.timeouts.queue = Duration::from_secs(5);
        config.timeouts.app = Duration::from_secs(5);
        change(config, &mut route);
        config.route.push(route);
    })
}

fn keyed(single_flight: &str) -> Site {
    site(single_flight, |config, route| {
        route.idempotency = Some(Idempotency::Required);
        config.idempotency.answer_max = 10;
    })
}

/// A client that has sent its body, and may leave.
struct Client {
    body: Option<Bytes>,
    gone: oneshot::Receiver<()>,
}

impl RequestBody for Client {
    fn length(&self) -> BodyLength {
        self.body.as_ref().map_or(BodyLength::None, |body| BodyLength::Known(body.len() as u64))
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(self.body.take())
    }

    async fn closed(&mut self) {
        if (&mut self.gone).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A request under way.
struct Sending {
    answer: JoinHandle<Response>,
    leave: oneshot::Sender<()>,
}

impl Sending {
    async fn text(self) -> String {
        text(self.response().await).await
    }

    async fn response(self) -> Response {
        timeout(SOON, self.answer).await.expect("no answer").expect("ran")
    }

    async fn leaves(self) {
        self.leave.send(()).expect("it asks");
        assert_eq!(timeout(SOON, self.answer).await.expect("no answer").expect("ran").status, 499);
    }
}

impl Site {
    /// `fields` as `Name: value | Name: value`.
    fn send(&self, method: Method, target: &str, fields: &str, body: &'static str) -> Sending {
        let gateway = Arc::clone(&self.gateway);
        let pairs = fields.split('|').filter_map(|field| field.split_once(':'));
        let pairs: Vec<_> = pairs.map(|(name, value)| (name.trim(), value.trim())).collect();
        let head = RequestHead { method, target: target.into(), ..asking(&pairs) };
        let (leave, gone) = oneshot::channel();
        let body = (!body.is_empty()).then(|| Bytes::from_static(body.as_bytes()));
        let answer =
            tokio::spawn(async move { gateway.call(&CONNECTION, &head, &mut Client { body, gone }).await });
        Sending { answer, leave }
    }

    fn gets(&self, fields: &str) -> Sending {
        self.send(Method::Get, "/x", fields, "")
    }

    fn posts(&self, key: &str, body: &'static str) -> Sending {
        self.send(Method::Post, "/pay", &format!("cookie: sessionid=ada | idempotency-key: {key}"), body)
    }

    /// Until so many fly, and so many wait.
    async fn until(&self, flights: usize, waiting: usize) {
        let there = async {
            while self.gateway.flights.len() != (flights, waiting) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, there).await.unwrap_or_else(|_| panic!("{:?}", self.gateway.flights.len()));
    }
}

impl Worker {
    /// The next request: its body.
    async fn asked(&mut self) -> String {
        let (_, kind, _, payload) = self.hear().await.expect("a request");
        assert_eq!(kind, Kind::Request);
        match Request::decode(&payload).expect("decodes").body {
            Sent::Inline(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Sent::None => String::new(),
            other => panic!("{other:?}"),
        }
    }

    async fn answers(&mut self, text: &str) {
        self.head(0, 200, "text/plain", Flags::END, text.as_bytes()).await;
    }

    /// A request comes, and gets this.
    async fn serves(&mut self, text: &str) {
        self.asked().await;
        self.answers(text).await;
    }

    /// Nothing is asked of it.
    async fn is_left_alone(&mut self) {
        let waits = timeout(Duration::from_millis(30), self.hear()).await;
        assert!(waits.is_err(), "{waits:?}");
    }
}

const ADA: &str = "cookie: sessionid=ada";

#[tokio::test]
async fn equal_requests_share_one_answer() {
    let site = site("join", |_, _| {});
    let (mut slot, mut other) = (site.slot(1), site.slot(2));
    let first = site.gets(ADA);
    site.until(1, 0).await;
    let more: Vec<_> = (0..49).map(|_| site.gets(ADA)).collect();
    site.until(1, 49).await;
    let bob = site.gets("cookie: sessionid=bob");
    site.until(2, 49).await;
    let asked = slot.hear().await.expect("a request").3;
    other.asked().await;
    // Whichever slot the first has got.
    let is_adas = asked.windows(3).any(|part| part == b"ada");
    let (mut ada, mut bobs) = if is_adas { (slot, other) } else { (other, slot) };
    ada.answers("for ada").await;
    for answer in more {
        assert_eq!(answer.text().await, "200 for ada");
    }
    assert_eq!(first.text().await, "200 for ada");
    bobs.answers("for bob").await;
    assert_eq!(bob.text().await, "200 for bob");
    site.until(0, 0).await;
}

#[tokio::test]
async fn whose_answer_it_is_not_goes_by_himself() {
    let site = site("join", |_, route| route.single_flight_by = vec!["anyone".to_owned()]);
    let mut slot = site.slot(1);
    let (first, second) = (site.gets(ADA), site.gets("cookie: sessionid=bob"));
    site.until(1, 1).await;
    slot.serves("one").await;
    slot.serves("the other").await;
    let mut texts = [first.text().await, second.text().await];
    texts.sort();
    assert_eq!(texts, ["200 one", "200 the other"]);
    // Who shows nothing may be anybody.
    let (first, second) = (site.gets(""), site.gets("user-agent: x"));
    site.until(1, 1).await;
    slot.serves("for all").await;
    assert_eq!(
        (first.text().await, second.text().await),
        ("200 for all".to_owned(), "200 for all".to_owned())
    );
}

#[tokio::test]
async fn posts_join_with_equal_bodies_only() {
    let site = site("join", |_, _| {});
    let mut slot = site.slot(1);
    let post = |body| site.send(Method::Post, "/x", ADA, body);
    let (one, same, other) = (post("a=1"), post("a=1"), post("a=2"));
    site.until(2, 1).await;
    for _ in 0..2 {
        let asked = slot.asked().await;
        slot.answers(&asked).await;
    }
    assert_eq!(one.text().await, "200 a=1");
    assert_eq!(same.text().await, "200 a=1");
    assert_eq!(other.text().await, "200 a=2");
}

#[tokio::test]
async fn the_first_may_leave_as_long_as_another_waits() {
    let site = site("join", |_, _| {});
    let mut slot = site.slot(1);
    let first = site.gets(ADA);
    site.until(1, 0).await;
    let second = site.gets(ADA);
    site.until(1, 1).await;
    slot.asked().await;
    first.leaves().await;
    slot.answers("still").await;
    assert_eq!(second.text().await, "200 still");
    // When all have left the app is told.
    let only = site.gets(ADA);
    slot.asked().await;
    only.leaves().await;
    slot.hears(Kind::Cancel).await;
    slot.answers("too late").await;
    site.until(0, 0).await;
    // So it is when the protocol drops them.
    let (first, second) = (site.gets(ADA), site.gets(ADA));
    site.until(1, 1).await;
    slot.asked().await;
    first.answer.abort();
    second.answer.abort();
    slot.hears(Kind::Cancel).await;
    slot.answers("nobody reads it").await;
    site.until(0, 0).await;
}

#[tokio::test]
async fn a_streamed_answer_is_shared_when_it_is_complete() {
    let site = site("join", |_, _| {});
    let mut slot = site.slot(1);
    let (first, second) = (site.gets(ADA), site.gets(ADA));
    site.until(1, 1).await;
    slot.asked().await;
    slot.head(0, 200, "text/plain", Flags::NONE, b"one ").await;
    slot.say(0, Kind::ResponseBody, Flags::NONE, b"two ").await;
    slot.say(0, Kind::ResponseBody, Flags::END, b"three").await;
    let mut texts = [first.text().await, second.text().await];
    texts.sort();
    assert_eq!(texts, ["200 ~one two three", "200 ~one two three"]);
    site.until(0, 0).await;
}

#[tokio::test]
async fn a_worker_that_dies_of_it_is_told_to_all() {
    let site = site("join", |_, _| {});
    let mut slot = site.slot(1);
    let post = || site.send(Method::Post, "/x", ADA, "a=1");
    let (one, other) = (post(), post());
    site.until(1, 1).await;
    slot.asked().await;
    drop(slot);
    assert_eq!((one.response().await.status, other.response().await.status), (502, 502));
    site.until(0, 0).await;
    // In the middle of a stream.
    let mut slot = site.slot(2);
    let (one, other) = (post(), post());
    site.until(1, 1).await;
    slot.asked().await;
    slot.head(0, 200, "text/plain", Flags::NONE, b"one ").await;
    drop(slot);
    let mut texts = [one.text().await, other.text().await];
    texts.sort();
    assert_eq!(texts[0], "200 ~one !");
    assert!(texts[1].starts_with("502 "), "{texts:?}");
    site.until(0, 0).await;
}

#[tokio::test]
async fn a_queue_goes_one_by_one() {
    let site = site("queue(1)", |_, _| {});
    let (mut slot, mut idle) = (site.slot(1), site.slot(2));
    let first = site.gets(ADA);
    site.until(1, 0).await;
    let second = site.send(Method::Post, "/y", ADA, "body");
    site.until(1, 1).await;
    let third = site.gets(ADA).response().await;
    assert_eq!((third.status, third.headers.get("retry-after")), (429, Some(&b"1"[..])));
    if timeout(Duration::from_millis(30), slot.hear()).await.is_err() {
        std::mem::swap(&mut slot, &mut idle);
        slot.asked().await;
    }
    idle.is_left_alone().await;
    // The flight is over with the worker's last word, however slowly its client reads.
    slot.head(0, 200, "text/plain", Flags::NONE, b"one ").await;
    let reading = first.response().await;
    idle.is_left_alone().await;
    slot.say(0, Kind::ResponseBody, Flags::END, b"two").await;
    let served = async {
        tokio::select! {
            body = slot.asked() => (body, &mut slot),
            body = idle.asked() => (body, &mut idle),
        }
    };
    let (body, worker) = timeout(SOON, served).await.expect("it is its turn");
    assert_eq!(body, "body");
    assert_eq!(site.gateway.flights.crowd(), 0, "nobody waits any more");
    worker.answers("second").await;
    assert_eq!(second.text().await, "200 second");
    assert_eq!(text(reading).await, "200 ~one two");
    site.until(0, 0).await;
}

#[tokio::test]
async fn a_turn_has_its_time_and_may_be_given_up() {
    let site = site("queue(5)", |_, route| route.queue_timeout = Some(Duration::from_millis(50)));
    let mut slot = site.slot(1);
    let first = site.gets(ADA);
    site.until(1, 0).await;
    let slow = site.gets(ADA).response().await;
    assert_eq!((slow.status, slow.headers.contains("retry-after")), (503, true));
    let leaving = site.gets(ADA);
    site.until(1, 1).await;
    leaving.leaves().await;
    site.until(1, 0).await;
    slot.serves("first").await;
    assert_eq!(first.text().await, "200 first");
    site.until(0, 0).await;
}

#[tokio::test]
async fn one_is_refused_until_the_worker_is_done() {
    let site = site("reject", |_, _| {});
    let mut slot = site.slot(1);
    let first = site.gets(ADA);
    slot.asked().await;
    let refused = site.gets(ADA).response().await;
    assert_eq!((refused.status, refused.headers.get("retry-after")), (409, Some(&b"1"[..])));
    // Its client leaves; the worker has still to end it.
    first.leaves().await;
    slot.hears(Kind::Cancel).await;
    assert_eq!(site.gets(ADA).response().await.status, 409);
    slot.answers("too late").await;
    site.until(0, 0).await;
    let next = site.gets(ADA);
    slot.serves("next").await;
    assert_eq!(next.text().await, "200 next");
    // A worker that dies releases.
    let next = site.gets(ADA);
    slot.asked().await;
    drop(slot);
    site.until(1, 0).await;
    let mut slot = site.slot(2);
    slot.serves("at second try").await;
    assert_eq!(next.text().await, "200 at second try");
    site.until(0, 0).await;
}

#[tokio::test]
async fn the_later_one_takes_the_place() {
    let site = site("cancel_previous", |_, _| {});
    let mut slot = site.slot(1);
    let first = site.gets(ADA);
    slot.asked().await;
    let second = site.gets(ADA);
    assert_eq!(first.response().await.status, 409);
    slot.hears(Kind::Cancel).await;
    slot.answers("nobody reads it").await;
    slot.asked().await;
    slot.head(0, 200, "text/plain", Flags::NONE, b"half ").await;
    // One whose answer is on its way is cut off.
    let reading = second.response().await;
    let third = site.gets(ADA);
    assert!(text(reading).await.ends_with('!'));
    slot.hears(Kind::Cancel).await;
    slot.say(0, Kind::ResponseBody, Flags::END, b"rest").await;
    slot.serves("third").await;
    assert_eq!(third.text().await, "200 third");
    site.until(0, 0).await;
}

#[tokio::test]
async fn what_has_a_key_is_done_once() {
    let site = keyed("");
    let mut slot = site.slot(1);
    let first = site.posts("k", "amount=1");
    assert_eq!(slot.asked().await, "amount=1");
    let outstanding = site.posts("k", "amount=1").response().await;
    assert_eq!((outstanding.status, outstanding.headers.get("retry-after")), (409, Some(&b"1"[..])));
    slot.answers("paid").await;
    assert_eq!(first.text().await, "200 paid");
    let again = site.posts("\"k\"", "amount=1").response().await;
    assert_eq!(again.headers.get("idempotent-replayed"), Some(&b"true"[..]));
    assert_eq!(text(again).await, "200 paid");
    let differs = site.posts("k", "amount=2").response().await;
    assert_eq!(
        (differs.status, differs.headers.get("content-type")),
        (422, Some(&b"application/problem+json"[..]))
    );
    let link = differs.headers.get("link").unwrap_or_default();
    assert!(link.starts_with(b"<https://") && link.ends_with(b"; rel=\"describedby\"; type=\"text/html\""));
    let post = |fields: &str| site.send(Method::Post, "/pay", fields, "amount=1");
    assert_eq!(post(ADA).response().await.status, 400);
    assert_eq!(post("idempotency-key: a, b").response().await.status, 400);
    assert_eq!(post("idempotency-key: a | idempotency-key: a").response().await.status, 400);
    slot.is_left_alone().await;
    // Another user's key is another.
    let bob = post("cookie: sessionid=bob | idempotency-key: k");
    slot.serves("paid by bob").await;
    assert_eq!(bob.text().await, "200 paid by bob");
    // Nor who shares a password with others gets their answers.
    let shared = |session: &str| {
        let fields = format!("authorization: Basic eDp5 | cookie: sessionid={session} | idempotency-key: k");
        post(&fields)
    };
    let ada = shared("ada");
    slot.serves("paid ada").await;
    assert_eq!(ada.text().await, "200 paid ada");
    assert_eq!(shared("bob").response().await.status, 422);
    assert_eq!(shared("ada").text().await, "200 paid ada");
    // On another host of the site it is another request, and its answer is not told there.
    let fields = asking(&[("cookie", "sessionid=bob"), ("idempotency-key", "k")]);
    let mut head = RequestHead { method: Method::Post, target: b"/pay".to_vec(), ..fields };
    head.headers.set("host", b"elsewhere");
    let (_stays, gone) = oneshot::channel();
    let mut client = Client { body: Some(Bytes::from_static(b"amount=1")), gone };
    assert_eq!(site.gateway.call(&CONNECTION, &head, &mut client).await.status, 422);
    // Other methods are idempotent by themselves.
    let get = site.gets(ADA);
    slot.serves("page").await;
    assert_eq!(get.text().await, "200 page");
}

#[tokio::test]
async fn who_left_gets_his_answer_when_he_asks_again() {
    let site = keyed("");
    let mut slot = site.slot(1);
    let first = site.posts("k", "amount=1");
    slot.asked().await;
    first.leaves().await;
    slot.answers("paid").await;
    assert_eq!(text(known(|| site.posts("k", "amount=1")).await).await, "200 paid");
    slot.is_left_alone().await;
}

#[tokio::test]
async fn what_was_not_done_may_be_sent_again() {
    let site = keyed("");
    // Nobody is there to do it.
    let waits = site.posts("k", "amount=1");
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut slot = site.slot(1);
    slot.asked().await;
    slot.head(0, 429, "text/plain", Flags::END, b"slowly").await;
    assert_eq!(waits.text().await, "429 slowly");
    let again = site.posts("k", "amount=1");
    slot.serves("paid").await;
    assert_eq!(again.text().await, "200 paid");
    // A worker that died of it may have done it.
    let lost = site.posts("l", "amount=1");
    slot.asked().await;
    drop(slot);
    assert_eq!(lost.response().await.status, 502);
    let _slot = site.slot(2);
    let again = site.posts("l", "amount=1").response().await;
    assert_eq!((again.status, again.headers.contains("retry-after")), (409, false));
}

#[tokio::test]
async fn a_queue_and_a_key_give_the_second_click_its_answer() {
    let site = keyed("queue(5)");
    let mut slot = site.slot(1);
    let first = site.posts("k", "amount=1");
    site.until(1, 0).await;
    let second = site.posts("k", "amount=1");
    site.until(1, 1).await;
    assert_eq!(site.gateway.flights.crowd(), 1);
    slot.serves("paid").await;
    assert_eq!((first.text().await, second.text().await), ("200 paid".to_owned(), "200 paid".to_owned()));
    slot.is_left_alone().await;
    site.until(0, 0).await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_known_to_have_been_given() {
    let site = keyed("");
    let mut slot = site.slot(1);
    for (key, flags) in [("whole", Flags::END), ("streamed", Flags::NONE)] {
        let first = site.posts(key, "amount=1");
        slot.asked().await;
        slot.head(0, 200, "text/plain", flags, b"more than ten letters").await;
        if flags == Flags::NONE {
            slot.say(0, Kind::ResponseBody, Flags::END, b" and more").await;
        }
        assert!(first.text().await.ends_with("more than ten letters") == (flags == Flags::END));
        let again = site.posts(key, "amount=1").response().await;
        assert_eq!((again.status, again.headers.contains("retry-after")), (409, false), "{key}");
    }
}

/// Until an answer is another one than that the first is still being worked on.
async fn known(asks: impl Fn() -> Sending) -> Response {
    let known = async {
        loop {
            let answer = asks().response().await;
            if !(answer.status == 409 && answer.headers.contains("retry-after")) {
                break answer;
            }
        }
    };
    timeout(SOON, known).await.expect("it is known")
}

#[tokio::test]
async fn a_key_is_known_to_the_next_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = || {
        site("", |config, route| {
            route.idempotency = Some(Idempotency::Required);
            config.server.state_dir = Some(dir.path().to_owned());
        })
    };
    let (elder, heir) = (gateway(), gateway());
    let (mut slot, mut heirs) = (elder.slot(1), heir.slot(2));
    let first = elder.posts("k", "amount=1");
    slot.asked().await;
    let outstanding = heir.posts("k", "amount=1").response().await;
    assert_eq!((outstanding.status, outstanding.headers.contains("retry-after")), (409, true));
    slot.answers("paid").await;
    assert_eq!(first.text().await, "200 paid");
    let again = known(|| heir.posts("k", "amount=1")).await;
    assert_eq!(again.headers.get("idempotent-replayed"), Some(&b"true"[..]));
    assert_eq!(text(again).await, "200 paid");
    assert_eq!(heir.posts("k", "amount=2").response().await.status, 422);
    // What was not done is free everywhere.
    let busy = elder.posts("l", "amount=1");
    slot.asked().await;
    slot.head(0, 503, "text/plain", Flags::END, b"later").await;
    assert_eq!(busy.text().await, "503 later");
    let free = async {
        loop {
            let answer = heir.posts("l", "amount=1");
            tokio::select! {
                _ = heirs.asked() => break answer,
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    };
    let answer = timeout(SOON, free).await.expect("it is free");
    heirs.answers("paid by the heir").await;
    assert_eq!(answer.text().await, "200 paid by the heir");
    // A third one reads all of it when it begins.
    drop((elder, slot));
    let third = gateway();
    assert_eq!(text(third.posts("k", "amount=1").response().await).await, "200 paid");
    assert_eq!(text(known(|| third.posts("l", "amount=1")).await).await, "200 paid by the heir");
}
