//! Request bodies that reach the app while they come.

use super::*;

#[tokio::test]
async fn an_app_that_does_not_read_a_streamed_body_is_a_504() {
    let mut site = Site::new();
    let mut worker = site.worker(1);
    Arc::get_mut(&mut site.dispatcher).expect("nothing runs yet").body_bytes_max = 1 << 30;
    assert_eq!(site.news.recv().await, Some(WorkerNews::Online(1)));
    // More than the buffers between us hold.
    let client = Client { pieces: vec![&[b'x'; 10_000]; 600], leaves: false, pause: Duration::ZERO };
    let answer = site.send(b"POST", Payload::Stream(None), client);
    worker.request().await;
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("in time");
    assert_eq!(text(answer.expect("ran")).await, "TimedOut");
    assert_eq!(site.news.recv().await, Some(stuck(1)));
}

#[tokio::test]
async fn a_body_can_be_streamed() {
    let site = Site::new();
    let mut worker = site.worker(1);
    let client = Client { pieces: vec![b"one", b"two"], leaves: false, pause: Duration::ZERO };
    let answer = site.send(b"POST", Payload::Stream(Some(6)), client);
    assert_eq!(worker.request().await, "POST /x?y=1 [host te] stream of Some(6)");
    for (piece, flags) in [(&b"one"[..], Flags::NONE), (b"two", Flags::NONE), (b"", Flags::END)] {
        assert_eq!(worker.frame().await, Some((Kind::RequestBody, flags, piece.to_vec())));
    }
    worker.answer(Flags::END, b"thanks").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] thanks");
}

#[tokio::test]
async fn an_app_can_answer_while_the_body_comes() {
    let site = Site::new();
    let mut worker = site.worker(1);
    let client =
        Client { pieces: vec![b"one", b"two", b"three"], leaves: false, pause: Duration::from_millis(20) };
    let answer = site.send(b"POST", Payload::Stream(None), client);
    worker.request().await;
    assert_eq!(worker.frame().await, Some((Kind::RequestBody, Flags::NONE, b"one".to_vec())));
    worker.answer(Flags::NONE, b"ONE").await;
    for piece in ["two", "three"] {
        assert_eq!(worker.frame().await, Some((Kind::RequestBody, Flags::NONE, piece.as_bytes().to_vec())));
        worker.send(Kind::ResponseBody, Flags::NONE, piece.to_uppercase().as_bytes()).await;
    }
    assert_eq!(worker.frame().await, Some((Kind::RequestBody, Flags::END, Vec::new())));
    worker.send(Kind::ResponseBody, Flags::END, b".").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] ~ONETWOTHREE.");
    // An answer that ends before its request breaks the rest off, and frees the slot.
    let client = Client { pieces: vec![b"x"; 1000], leaves: false, pause: Duration::from_millis(5) };
    let answer = site.send(b"POST", Payload::Stream(None), client);
    worker.request().await;
    worker.answer(Flags::NONE, b"no").await;
    worker.send(Kind::ResponseBody, Flags::END, b" thanks").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] ~no thanks");
    while worker.frame().await.is_some_and(|frame| !frame.1.is_abort()) {}
    let next = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    worker.answer(Flags::END, b"next").await;
    assert_eq!(text(next.await.expect("ran")).await, "200 [X-App] next");
}

#[tokio::test]
async fn an_early_refusal_ends_a_streamed_upload() {
    let site = Site::new();
    let mut worker = site.worker(1);
    let client = Client { pieces: vec![b"x"; 1000], leaves: false, pause: Duration::ZERO };
    let answer = site.send(b"POST", Payload::Stream(None), client);
    worker.request().await;
    worker.answer(Flags::END, b"no thanks").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] no thanks");
    // The body ends in order, so that the slot is of use again.
    loop {
        let (kind, flags, _) = worker.frame().await.expect("a piece");
        assert_eq!(kind, Kind::RequestBody);
        if flags.is_end() || flags.is_abort() {
            break;
        }
    }
    let next = site.send(b"GET", Payload::Empty, STAYS);
    worker.request().await;
    worker.answer(Flags::END, b"next").await;
    assert_eq!(text(next.await.expect("ran")).await, "200 [X-App] next");
}

#[tokio::test]
async fn an_upload_that_dribbles_holds_its_slot_for_a_bounded_time() {
    let mut site = Site::new();
    // A tenth of a second is all they get.
    let limits = &mut Arc::get_mut(&mut site.dispatcher).expect("nothing runs yet").pump.hold;
    limits.held = Duration::from_millis(100);
    let mut worker = site.worker(1);
    let client = Client { pieces: vec![b"x"; 1000], leaves: false, pause: Duration::from_millis(10) };
    let answer = site.send(b"POST", Payload::Stream(None), client);
    worker.request().await;
    let mut last = None;
    while let Some((kind, flags, _)) = worker.frame().await {
        assert!(matches!(kind, Kind::RequestBody | Kind::Cancel));
        last = Some(flags);
        if kind == Kind::Cancel {
            break;
        }
    }
    assert!(last.is_some());
    assert_eq!(text(answer.await.expect("ran")).await, "Body(Timeout)");
    // A quick one passes, however much it sends.
    worker.answer(Flags::END, b"for nobody").await;
    let client = Client { pieces: vec![b"x"; 1000], leaves: false, pause: Duration::ZERO };
    let answer = site.send(b"POST", Payload::Stream(None), client);
    worker.request().await;
    while worker.frame().await.is_some_and(|frame| !frame.1.is_end()) {}
    worker.answer(Flags::END, b"thanks").await;
    assert_eq!(text(answer.await.expect("ran")).await, "200 [X-App] thanks");
}

#[tokio::test]
async fn a_streamed_body_is_bounded_while_it_comes() {
    let site = Site::new();
    let mut worker = site.worker(1);
    let client =
        Client { pieces: vec![&[b'x'; 60_000], &[b'x'; 60_000]], leaves: false, pause: Duration::ZERO };
    let answer = site.send(b"POST", Payload::Stream(None), client);
    worker.request().await;
    assert_eq!(worker.frame().await.map(|frame| frame.2.len()), Some(60_000));
    assert_eq!(text(answer.await.expect("ran")).await, "Body(TooLarge)");
    assert_eq!(worker.frame().await.map(|frame| (frame.0, frame.1)), Some((Kind::RequestBody, Flags::ABORT)));
}
