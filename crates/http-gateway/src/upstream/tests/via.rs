//! The way a request has come.

use crate::request_body::Payload;
use crate::upstream::fake::*;

#[tokio::test]
async fn a_request_that_goes_in_a_circle_goes_no_further() {
    let fake = Fake::start(vec![answers(HELLO)]).await;
    let upstream = upstream(&fake);
    let mut head = head("POST", "/");
    for _ in 0..7 {
        head.headers.push(b"via", b"1.1 quintet");
    }
    assert_eq!(show(ask(&upstream, &head, Payload::Empty, &mut nothing()).await).await, "200 hello");
    head.headers.push(b"via", b"1.1 quintet");
    let circle = show(ask(&upstream, &head, Payload::Empty, &mut nothing()).await).await;
    assert_eq!(circle, "the request goes in a circle");
    let heard = fake.heard().concat();
    assert_eq!(heard.matches("1.1 quintet\r\n").count(), 8, "asked once, with all that came before: {heard}");
}

#[tokio::test]
async fn servers_that_mind_are_not_told() {
    let fake = Fake::start(vec![answers(HELLO)]).await;
    get(&upstream_with(&fake, |it| it.via = false)).await;
    assert!(!fake.heard().concat().to_ascii_lowercase().contains("via:"));
}
