//! Deadlines, clients that leave, draining.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_answered_an_idle_connection_just_closed() {
    let started = tokio::time::Instant::now();
    let mut client = Client::new();
    client.send("GET / HT").await;
    assert!(client.read_rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(started.elapsed().as_secs(), 15);

    let started = tokio::time::Instant::now();
    assert_eq!(Client::new().read_rest().await, "");
    assert_eq!(started.elapsed().as_secs(), 15);

    let mut client = Client::new();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_to("/a").await;
    let started = tokio::time::Instant::now();
    assert_eq!(client.read_rest().await, "");
    assert_eq!(started.elapsed().as_secs(), 75);
    assert_eq!(client.finished().await, ["/a 200 2"]);
}

#[tokio::test(start_paused = true)]
async fn dribbling_a_head_does_not_stretch_its_deadline() {
    let started = tokio::time::Instant::now();
    let mut client = Client::new();
    for byte in "GET / HTTP/1.1".bytes() {
        client.wire.write_u8(byte).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(client.read_rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(started.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_times_out() {
    let mut client = Client::new();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    client.send("c").await;
    let started = tokio::time::Instant::now();
    assert!(client.read_rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(started.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_given_up() {
    let mut client = Client::new();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    // Progress starts the clock anew.
    let mut some = vec![0; 50_000];
    client.wire.read_exact(&mut some).await.unwrap();
    let started = tokio::time::Instant::now();
    while !client.served.is_finished() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!((29..=33).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    let finished = client.finished().await;
    assert!(
        finished.iter().all(|line| line.starts_with("/large 200 ") && line.ends_with(" cut")),
        "{finished:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_noticed_while_the_app_works() {
    let mut client = Client::new();
    // What it sends ahead does not hide that it left.
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!client.served.is_finished());
    assert_eq!(client.finished().await, ["/wait 499 0 cut"]);
}

#[tokio::test(start_paused = true)]
async fn draining_closes_idle_connections_and_tells_active_ones() {
    let mut idle = Client::new();
    idle.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.read_to("/a").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    idle.drain.send_replace(Phase::Draining);
    let started = tokio::time::Instant::now();
    assert_eq!(idle.read_rest().await, "");
    assert!(started.elapsed() < Duration::from_millis(10));

    let mut active = Client::new();
    active.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    active.drain.send_replace(Phase::Draining);
    tokio::time::sleep(Duration::from_secs(1)).await;
    active.send("b").await;
    assert!(active.read_rest().await.ends_with("Connection: close||ab"));

    let mut fresh = Client::new();
    fresh.drain.send_replace(Phase::Draining);
    tokio::time::sleep(Duration::from_millis(500)).await;
    fresh.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(fresh.read_rest().await.ends_with("Connection: close||/a"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_a_silent_stream() {
    let mut client = Client::new();
    client.send("GET /stream-endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_to("three\r\n").await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(client.finished().await, ["/stream-endless 200 11 cut"]);
}
