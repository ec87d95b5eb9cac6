//! What is answered, byte for byte.

use super::*;

#[tokio::test(start_paused = true)]
async fn exchanges_that_close() {
    check(
        &format!("GET /a HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||/a",
        &["/a 200 2"],
    )
    .await;
    check(
        &format!("HEAD /a HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||",
        &["/a 200 0"],
    )
    .await;
    check(
        "GET /a HTTP/1.0\r\n\r\n",
        "HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||/a",
        &["/a 200 2"],
    )
    .await;
    check(
        &format!("GET /none HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 204 No Content|date: now|Connection: close||",
        &["/none 204 0"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn refusals_are_answered_and_close() {
    check(
        "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 400 Bad Request|date: now|Content-Length: 15|Connection: close||Host is missing",
        &["? 400 15"],
    )
    .await;
    check(
        "GET /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nX\r\n",
        "HTTP/1.1 400 Bad Request|date: now|Content-Length: 21|Connection: close||the body is malformed",
        &["/echo 400 21"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy";
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n";
    check(
        &format!("{request}{chunked}GET /b HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 200 OK|date: now|Content-Length: 2||xyHTTP/1.1 200 OK|date: now|Content-Length: 1||z\
         HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||/b",
        &["/echo 200 2", "/echo 200 1", "/b 200 2"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn http_1_0_may_keep_the_connection() {
    check(
        "GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
        "HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: keep-alive||/a\
         HTTP/1.1 200 OK|date: now|Content-Length: 2|Connection: close||/b",
        &["/a 200 2", "/b 200 2"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_app_cannot_break_the_framing() {
    check(
        &format!("GET /lie HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 502 Bad Gateway|date: now|Content-Length: 44|Connection: close||\
         Content-Length is not the length of the body",
        &["/lie 502 44"],
    )
    .await;
    check(
        &format!("GET /split HTTP/1.1\r\n{CLOSE}"),
        "HTTP/1.1 502 Bad Gateway|date: now|Content-Length: 40|Connection: close||\
         a header value holds a control character",
        &["/split 502 40"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_may_dribble_in() {
    let mut client = Client::new();
    for byte in format!("POST /echo HTTP/1.1\r\nContent-Length: 3\r\n{CLOSE}abc").bytes() {
        client.wire.write_u8(byte).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(client.read_rest().await.ends_with("||abc"));
}

#[tokio::test(start_paused = true)]
async fn bytes_read_before_belong_to_the_first_request() {
    let mut client = Client::with(b"GET /a HT", Config::default());
    client.send(&format!("TP/1.1\r\n{CLOSE}")).await;
    assert!(client.read_rest().await.ends_with("||/a"));
}

#[tokio::test(start_paused = true)]
async fn continue_is_sent_when_the_body_is_wanted() {
    let mut client = Client::new();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(client.read_to("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ab").await;
    assert!(client.read_to("ab").await.starts_with("HTTP/1.1 200"));
    // With the body there already nobody waits.
    client
        .send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\ncd")
        .await;
    assert!(client.read_to("cd").await.starts_with("HTTP/1.1 200"));
    // Not wanted: whether the body follows is unknown, so the connection ends.
    client
        .send("POST /ignore HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert!(client.read_rest().await.contains("|Connection: close||ignored"));
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_is_dropped_or_ends_the_connection() {
    let mut client = Client::new();
    client.send("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ").await;
    client.read_to("ignored").await;
    client.send("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n").await;
    assert!(client.read_rest().await.contains("|Connection: close||ignored"));
    assert_eq!(client.finished().await, ["/ignore 200 7", "/ignore 200 7"]);
}

#[tokio::test(start_paused = true)]
async fn a_large_upload_that_is_refused_early_can_read_the_answer() {
    let mut client = Client::new();
    client.send("POST /too-large HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n").await;
    // More than the wire holds: it is taken although nobody wants it.
    for _ in 0..20 {
        client.wire.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    assert!(client.read_rest().await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test(start_paused = true)]
async fn files() {
    let mut client = Client::new();
    client.send(&format!("GET /file HTTP/1.1\r\n{CLOSE}")).await;
    let seen = client.read_rest().await;
    assert!(seen.contains("Content-Length: 100000|"));
    assert_eq!(seen.bytes().rev().take_while(|&b| b == b'f').count(), 100_000);
    assert_eq!(client.finished().await, ["/file 200 100000"]);

    let mut client = Client::new();
    client.send("GET /short-file HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_rest().await;
    assert_eq!(client.finished().await, ["/short-file 200 199995 cut"]);
}

#[tokio::test(start_paused = true)]
async fn streams_arrive_as_they_are_made() {
    let mut client = Client::new();
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let started = tokio::time::Instant::now();
    assert!(client.read_to("3\r\none\r\n").await.contains("\r\nTransfer-Encoding: chunked\r\n"));
    assert_eq!(started.elapsed().as_secs(), 0);
    client.read_to("3\r\ntwo\r\n").await;
    assert_eq!(started.elapsed().as_secs(), 1);
    assert_eq!(client.read_to("0\r\n\r\n").await, "5\r\nthree\r\n0\r\n\r\n");
    // The connection goes on.
    client.send("GET /stream?11 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.read_to("onetwothree").await.contains("Content-Length: 11\r\n\r\n"));
    client.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!(client.read_rest().await, "HTTP/1.1 200 OK|date: now|Connection: close||onetwothree");
    assert_eq!(client.finished().await, ["/stream 200 11", "/stream?11 200 11", "/stream 200 11"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lies_breaks_the_connection() {
    for (path, body, finished) in [
        ("/stream-excess?7", "|Content-Length: 7||onetwot", "/stream-excess?7 200 7"),
        ("/stream-short?12", "|Content-Length: 12||onetwothree", "/stream-short?12 200 11 cut"),
        ("/stream-abort", "|Transfer-Encoding: chunked||3|one|3|two|5|three|", "/stream-abort 200 11 cut"),
    ] {
        let mut client = Client::new();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.read_rest().await, format!("HTTP/1.1 200 OK|date: now{body}"));
        assert_eq!(client.finished().await, [finished]);
    }
}

#[tokio::test(start_paused = true)]
async fn hints_come_first_and_trailers_last_for_clients_that_know_them() {
    const HINT: &str = "HTTP/1.1 103 Early Hints|Link: </a.css>; rel=preload|Content-Type: x/y||";
    const HEAD: &str = "HTTP/1.1 200 OK|date: now|Transfer-Encoding: chunked|Connection: close||4|body|0|";
    check(
        &format!("GET /hints HTTP/1.1\r\nTE: gzip, trailers\r\n{CLOSE}"),
        &format!("{HINT}{HINT}{HEAD}Link: </a.css>; rel=preload||"),
        &["/hints 200 4"],
    )
    .await;
    check(&format!("GET /hints HTTP/1.1\r\n{CLOSE}"), &format!("{HINT}{HINT}{HEAD}|"), &["/hints 200 4"])
        .await;
    check(
        "GET /hints HTTP/1.0\r\nTE: trailers\r\n\r\n",
        "HTTP/1.1 200 OK|date: now|Connection: close||body",
        &["/hints 200 4"],
    )
    .await;
    // Who waits for 100 gets none before it.
    check(
        &format!("POST /hints HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n{CLOSE}"),
        &format!("{HEAD}|"),
        &["/hints 200 4"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_can_go_out_while_its_request_comes_in() {
    let mut client = Client::new();
    client.send("POST /relay HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.read_to("\r\n\r\n").await;
    for piece in ["one", "two"] {
        client.send(&format!("3\r\n{piece}\r\n")).await;
        assert_eq!(
            client.read_to(&format!("{}\r\n", piece.to_uppercase())).await,
            format!("3\r\n{}\r\n", piece.to_uppercase())
        );
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.read_to("0\r\n\r\n").await, "0\r\n\r\n");
    // The connection is of use again.
    client.send(&format!("GET /b HTTP/1.1\r\n{CLOSE}")).await;
    assert!(client.read_rest().await.ends_with("||/b"));
    assert_eq!(client.finished().await, ["/relay 200 6", "/b 200 2"]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_off_breaks_its_answer() {
    let mut client = Client::new();
    client.send("POST /relay HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.read_to("3\r\nONE\r\n").await;
    client.send("nonsense\r\n").await;
    assert_eq!(client.read_rest().await, "", "no last chunk");
    assert_eq!(client.finished().await, ["/relay 200 3 cut"]);
}
