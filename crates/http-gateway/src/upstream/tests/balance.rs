//! Who gets a request, through real connections. The policies themselves are simulated in `http-upstream`.

use std::time::Duration;

use http_upstream::Policy;

use crate::request_body::Payload;
use crate::upstream::fake::*;
use crate::upstream::{HashBy, Settings, TlsFiles, Upstream};

const BROKEN: &str = "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno";

fn of(servers: &[&Fake], with: impl FnOnce(&mut Settings)) -> Upstream {
    let mut settings = settings(servers.iter().map(|fake| fake.server()).collect());
    with(&mut settings);
    Upstream::new(settings, TlsFiles::default()).unwrap()
}

fn asked(fake: &Fake) -> usize {
    fake.heard().concat().matches("HTTP/1.1\r\n").count()
}

#[tokio::test]
async fn quick_errors_attract_nothing() {
    let breaks = Fake::start(vec![answers(BROKEN)]).await;
    let slow = vec![Step::Head, Step::Wait(Duration::from_millis(5)), say(HELLO), Step::Again];
    let works = Fake::start(vec![slow]).await;
    let upstream = of(&[&breaks, &works], |it| {
        it.balance.policy = Policy::PeakEwma;
        // So that it is the penalty that is seen here.
        it.balance.eject_after = u32::MAX;
    });
    let mut good = 0;
    for _ in 0..60 {
        good += usize::from(get(&upstream).await == "200 hello");
    }
    assert!(good >= 57, "{good} of 60");
    assert_eq!(asked(&breaks) + asked(&works), 60, "an answer is an answer, and not asked for again");
}

#[tokio::test]
async fn a_server_that_answers_errors_rests() {
    let breaks = Fake::start(vec![answers(BROKEN)]).await;
    let works = Fake::start(vec![answers(HELLO)]).await;
    let upstream = of(&[&breaks, &works], |_| {});
    for _ in 0..20 {
        get(&upstream).await;
    }
    assert_eq!((asked(&breaks), asked(&works)), (3, 17));
}

#[tokio::test]
async fn weights_are_obeyed() {
    let (weak, strong) = (Fake::start(vec![answers(HELLO)]).await, Fake::start(vec![answers(HELLO)]).await);
    let upstream = of(&[&weak, &strong], |it| it.servers[1].1 = 3);
    for _ in 0..12 {
        assert_eq!(get(&upstream).await, "200 hello");
    }
    assert_eq!((asked(&weak), asked(&strong)), (3, 9));
}

#[tokio::test]
async fn the_same_key_goes_to_the_same_server() {
    let fakes = [Fake::start(vec![answers(HELLO)]).await, Fake::start(vec![answers(HELLO)]).await];
    let by = |hash_by| {
        of(&[&fakes[0], &fakes[1]], |it| {
            (it.balance.policy, it.hash_by) = (Policy::Hash, hash_by);
        })
    };
    let counts = || [asked(&fakes[0]), asked(&fakes[1])];
    let (header, path, address) =
        (by(HashBy::Header("x-tenant".into())), by(HashBy::Path), by(HashBy::Address));
    let mut homes = Vec::new();
    for number in 0..16 {
        for upstream in [&header, &path] {
            let before = counts();
            for round in 0..3 {
                let mut head = head("GET", &format!("/{number}?{round}"));
                head.headers.push(b"x-tenant", format!("t{number}").as_bytes());
                let answer = ask(upstream, &head, Payload::Empty, &mut nothing()).await;
                assert_eq!(show(answer).await, "200 hello");
            }
            let [one, other] = counts();
            let got = [one - before[0], other - before[1]];
            assert!(got == [3, 0] || got == [0, 3], "{got:?}");
            homes.push(got[0] == 3);
        }
    }
    assert!(homes.contains(&true) && homes.contains(&false), "all keys have the same home");
    let before = counts();
    for _ in 0..6 {
        get(&address).await;
    }
    let [one, other] = counts();
    assert!(one == before[0] || other == before[1], "one client, one server");
}

#[tokio::test]
async fn what_broke_is_sent_again_while_the_budget_lasts() {
    let dies = Fake::start(vec![vec![Step::Head]]).await;
    let works = Fake::start(vec![answers(HELLO)]).await;
    let upstream = of(&[&dies, &works], |it| {
        it.balance.eject_after = u32::MAX;
        // What a hundred requests earn is saved up: one repetition.
        (it.balance.retry_percent, it.balance.retries_per_second) = (1, 0);
    });
    let mut failures = 0;
    for _ in 0..7 {
        failures += usize::from(get(&upstream).await == "no server answered");
    }
    assert_eq!(failures, 3, "the first of four was sent again");
}

#[tokio::test]
async fn a_body_that_still_comes_is_work() {
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegins";
    let busy = Fake::start(vec![vec![Step::Head, say(long), Step::Stall]]).await;
    let idle = Fake::start(vec![answers(HELLO)]).await;
    let upstream = of(&[&busy, &idle], |it| it.balance.policy = Policy::LeastLoaded);
    let first = ask(&upstream, &head("GET", "/"), Payload::Empty, &mut nothing()).await.unwrap();
    for _ in 0..5 {
        assert_eq!(get(&upstream).await, "200 hello");
    }
    assert_eq!((asked(&busy), asked(&idle)), (1, 5));
    drop(first);
}
