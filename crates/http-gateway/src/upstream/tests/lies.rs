//! Servers that die, stall, trickle, or say what cannot be believed: what the client gets, and what becomes of the connection.

use std::time::{Duration, Instant};

use crate::request_body::Payload;
use crate::upstream::fake::*;

const SOON: Duration = Duration::from_millis(500);

/// What a GET gets from a server whose connections all follow this script.
async fn check(script: Vec<Step>, expected: &str) {
    check_within(Duration::from_secs(3), script, expected).await;
}

async fn check_within(patience: Duration, script: Vec<Step>, expected: &str) {
    let shown = format!("{script:?}");
    let fake = Fake::start(vec![script]).await;
    let upstream = upstream_with(&fake, |it| {
        (it.response_timeout, it.idle_timeout) = (patience, patience);
    });
    let began = Instant::now();
    assert_eq!(get(&upstream).await, expected, "{shown}");
    assert!(began.elapsed() < patience + Duration::from_secs(4), "{shown}");
}

#[tokio::test]
async fn servers_that_die() {
    check(vec![], "no server answered").await;
    check(vec![Step::Head], "no server answered").await;
    check(vec![Step::Head, Step::Reset], "no server answered").await;
    check(vec![Step::Head, say("HTTP/1.1 200 OK\r\nContent-Le")], "no server answered").await;
    check(
        vec![Step::Head, say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")],
        "the answer is not understood",
    )
    .await;
    let amidst = |head: &str| {
        vec![Step::Head, say(head), Step::Wait(Duration::from_millis(60)), say("more"), Step::Reset]
    };
    check(amidst("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello "), "200 hello more!").await;
    check(amidst("HTTP/1.1 200 OK\r\n\r\nhello "), "200 hello more!").await;
    let chunks = vec![
        Step::Head,
        say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n"),
        Step::Wait(Duration::from_millis(60)),
        say("4\r\nmore\r\n"),
    ];
    check(chunks, "200 hello more!").await;
    // Only here is the end of the connection the end of the body.
    check(vec![Step::Head, say("HTTP/1.1 200 OK\r\n\r\nhello")], "200 hello").await;
}

#[tokio::test]
async fn servers_that_stall_or_trickle() {
    check_within(SOON, vec![Step::Stall], "no answer in time").await;
    check_within(SOON, vec![Step::Head, Step::Stall], "no answer in time").await;
    check_within(SOON, vec![Step::Head, say("HTTP/1.1 200"), Step::Stall], "no answer in time").await;
    let trickles = Step::Dribble("HTTP/1.1 200 OK\r\nX-Much: to say, at length", Duration::from_millis(20));
    check_within(SOON, vec![Step::Head, trickles, Step::Stall], "no answer in time").await;
    check(
        vec![
            Step::Head,
            Step::Dribble("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Duration::from_millis(2)),
        ],
        "200 hi",
    )
    .await;
    let silent = vec![Step::Head, say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"), Step::Stall];
    check_within(SOON, silent, "200 hello!").await;
    // Bytes that carry nothing are no sign of life.
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;";
    let empty = vec![
        Step::Head,
        say(head),
        Step::Dribble("extension-without-an-end-in-sight", Duration::from_millis(20)),
        Step::Stall,
    ];
    check_within(SOON, empty, "200 hello!").await;
    // Slow, but it moves.
    let slow = Step::Dribble("0123456789", Duration::from_millis(150));
    let slow = vec![Step::Head, say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), slow];
    check_within(Duration::from_secs(1), slow, "200 0123456789").await;
}

#[tokio::test]
async fn answers_that_cannot_be_believed() {
    let bad = "the answer is not understood";
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "220 mail.test ESMTP\r\n",
        "hello",
    ] {
        check(vec![Step::Head, say(head), Step::Stall], bad).await;
    }
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
    check(vec![Step::Head, say(&flood), say(HELLO), Step::Stall], bad).await;
    let endless = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(70_000));
    check(vec![Step::Head, say(&endless), Step::Stall], bad).await;
}

#[tokio::test]
async fn a_bad_answer_is_not_asked_for_again() {
    let fake = Fake::start(vec![vec![Step::Head, say("nonsense"), Step::Stall]]).await;
    let mut both = settings(vec![fake.server(), fake.server()]);
    both.response_timeout = SOON;
    let upstream = crate::upstream::Upstream::new(both, crate::upstream::TlsFiles::default()).unwrap();
    assert_eq!(get(&upstream).await, "the answer is not understood");
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn what_nobody_asked_for_is_never_taken_for_an_answer() {
    let spoof = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for (method, first, expected) in [
        // More than was announced, a second answer, a body where there is none.
        ("GET", format!("{HELLO} and more"), "200 hello"),
        ("GET", format!("{HELLO}{spoof}"), "200 hello"),
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{spoof}", spoof.len()), "200 "),
        ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{spoof}"), "204 "),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n{spoof}"), "304 "),
        ("GET", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{spoof}"), "200 "),
    ] {
        let fake = Fake::start(vec![vec![Step::Head, say(&first), Step::End], answers(HELLO)]).await;
        let upstream = upstream(&fake);
        let got = show(ask(&upstream, &head(method, "/"), Payload::Empty, &mut nothing()).await).await;
        assert_eq!(got, expected, "{first}");
        assert_eq!(get(&upstream).await, "200 hello", "behind {first}");
        assert_eq!(fake.connections(), 2, "behind {first}");
    }
}

#[tokio::test]
async fn what_comes_between_two_requests_ends_the_connection() {
    let spoof = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let says = vec![Step::Head, say(HELLO), Step::Wait(Duration::from_millis(50)), say(spoof), Step::End];
    let fake = Fake::start(vec![says, answers(HELLO)]).await;
    let upstream = upstream(&fake);
    assert_eq!(get(&upstream).await, "200 hello");
    fake.has_done(0, 4).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(get(&upstream).await, "200 hello");
    assert_eq!(fake.connections(), 2);
}
