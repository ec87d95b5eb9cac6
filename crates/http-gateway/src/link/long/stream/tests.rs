//! What a stream takes and what it refuses; and that no byte of credit is lost or lent twice, whatever comes in whatever order.

use proptest::prelude::*;

use super::*;
use crate::message::FileBody;

fn head(status: u16, kind: &str, body: usize, flags: Flags) -> FromWorker {
    let mut headers = Headers::default();
    headers.push(b"content-type", kind.as_bytes());
    let body = Bytes::from(vec![b'h'; body]);
    FromWorker::Answer(Received::Head(Box::new(Head {
        status,
        reason: Box::default(),
        headers,
        queries: None,
        body,
        flags,
    })))
}

fn body(bytes: usize, flags: Flags) -> FromWorker {
    FromWorker::Answer(Received::Body(Bytes::from(vec![b'b'; bytes]), flags))
}

fn message(bytes: usize, flags: Flags) -> FromWorker {
    // The first byte of the first piece is its type.
    FromWorker::Message(Bytes::from(vec![2; bytes]), flags)
}

fn file() -> FromWorker {
    let file = std::sync::Arc::new(std::fs::File::open("/dev/null").expect("there"));
    FromWorker::Answer(Received::File(FileBody { file, offset: 0, len: 1 }, Flags::NONE))
}

impl State {
    /// Where the window's bytes are: at the worker, on their way to be credited, or in what waits here.
    fn accounted(&self) -> u64 {
        let waiting: u64 = self.items.iter().map(|(_, cost)| u64::from(*cost)).sum();
        let partial = self.message.as_ref().map_or(0, |partial| u64::from(partial.cost));
        u64::from(self.left) + u64::from(self.owed) + waiting + partial
    }

    fn held(&self) -> usize {
        let waiting = self.items.iter().map(|(item, _)| match item {
            Item::Piece(Piece::Bytes(bytes)) | Item::Message(_, bytes) => bytes.len(),
            Item::Head(head) => head.body.len(),
            Item::Piece(Piece::File(_)) => 0,
        });
        waiting.sum::<usize>() + self.message.as_ref().map_or(0, |partial| partial.bytes.len())
    }
}

/// A handshake after these frames, each of which it takes.
fn after(frames: impl IntoIterator<Item = FromWorker>) -> State {
    let mut state = State::handshake();
    for frame in frames {
        state.receive(frame).expect("in order");
    }
    state
}

#[test]
fn frames_out_of_order_are_refused() {
    let bad = |before: Vec<FromWorker>, frame| assert!(after(before).receive(frame).is_err());
    let accepted = || head(101, "", 0, Flags::NONE);
    let answered = || head(200, "", 0, Flags::NONE);
    bad(vec![], body(1, Flags::NONE));
    bad(vec![answered()], answered());
    bad(vec![answered()], message(1, Flags::END));
    assert!(State::detached().receive(FromWorker::Close(1000, String::new())).is_err());
    assert!(State::detached().receive(answered()).is_err());
    bad(vec![head(200, "", 0, Flags::END)], body(1, Flags::END));
    bad(vec![], message(1, Flags::END));
    bad(vec![], head(101, "", 1, Flags::NONE));
    bad(vec![accepted()], body(1, Flags::NONE));
    bad(vec![accepted()], message(0, Flags::END));
    bad(vec![accepted()], FromWorker::Message(Bytes::from_static(b"\x07x"), Flags::END));
    bad(vec![answered(), body(WINDOW_BYTES as usize, Flags::NONE)], body(1, Flags::NONE));
}

#[test]
fn a_message_that_is_far_too_long_ends_its_stream_only() {
    let mut state = after([head(101, "", 0, Flags::NONE)]);
    state.take();
    let mut cancelled = false;
    for _ in 0..=APP_MESSAGE_BYTES_MAX / (64 << 10) {
        let after = state.receive(message(64 << 10, Flags::NONE)).expect("within its credit");
        assert!(after.credit.is_some(), "the worker is not held up");
        cancelled |= after.cancel;
    }
    assert!(cancelled);
    assert_eq!(state.held(), 0);
    assert!(matches!(state.end(), Some(End::Aborted)));
    // What still comes of it is no first piece.
    state.receive(FromWorker::Message(Bytes::from_static(b"\x09"), Flags::END)).expect("dropped");
}

#[test]
fn many_files_at_once_end_their_stream_only() {
    let mut state = after([head(200, "", 0, Flags::NONE)]);
    for at in 0..=FILES_MAX {
        let after = state.receive(file()).expect("in order");
        assert_eq!(after.cancel, at == FILES_MAX, "{at}");
    }
    assert!(state.has_ended());
}

#[test]
fn small_pieces_are_joined_and_large_ones_pass() {
    let mut state = after([head(200, "", 0, Flags::NONE)]);
    state.take();
    for _ in 0..1000 {
        state.receive(body(3, Flags::NONE)).expect("in order");
    }
    assert_eq!((state.items.len(), state.held()), (1, 3000));
    state.receive(body(10_000, Flags::NONE)).expect("in order");
    assert_eq!(state.items.len(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Head(u16, bool, usize, u8),
    Body(usize, u8),
    Message(usize, u8),
    Trailers,
    Hints,
    Close,
    File,
    Credit(u32),
    Take,
    LetGo,
    Dismiss,
    Claim(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![8 => Just(0_u8), 1 => Just(1), 1 => Just(2)];
    let size = prop_oneof![Just(0_usize), 1..200_usize, 1..70_000_usize];
    prop_oneof![
        3 => (prop_oneof![Just(101_u16), Just(200)], any::<bool>(), size.clone(), flags.clone())
            .prop_map(|(status, events, size, flags)| Step::Head(status, events, size, flags)),
        6 => (size.clone(), flags.clone()).prop_map(|(size, flags)| Step::Body(size, flags)),
        6 => (size.clone(), flags).prop_map(|(size, flags)| Step::Message(size, flags)),
        1 => Just(Step::Trailers),
        1 => Just(Step::Hints),
        1 => Just(Step::Close),
        1 => Just(Step::File),
        1 => any::<u32>().prop_map(Step::Credit),
        8 => Just(Step::Take),
        1 => Just(Step::LetGo),
        1 => Just(Step::Dismiss),
        1 => size.prop_map(Step::Claim),
    ]
}

proptest! {
    #[test]
    fn no_credit_is_lost_and_what_is_held_is_bounded(
        detached in any::<bool>(), steps in prop::collection::vec(step(), 0..200)
    ) {
        let mut state = if detached { State::detached() } else { State::handshake() };
        for step in steps {
            let frame = match step {
                Step::Head(status, events, size, flags) => {
                    head(status, if events { "text/event-stream" } else { "" }, size, Flags(flags))
                }
                Step::Body(size, flags) => body(size, Flags(flags)),
                Step::Message(size, flags) => message(size, Flags(flags)),
                Step::Trailers => FromWorker::Answer(Received::Trailers(Headers::default(), Flags::END)),
                Step::Hints => FromWorker::Answer(Received::Hints(Headers::default())),
                Step::Close => FromWorker::Close(1000, String::new()),
                Step::File => file(),
                Step::Credit(bytes) => FromWorker::Credit(bytes),
                Step::Take => {
                    let had = state.items.len();
                    prop_assert_eq!(state.take().is_some(), had > 0);
                    continue;
                }
                Step::LetGo => {
                    state.let_go();
                    prop_assert_eq!(state.held(), 0);
                    continue;
                }
                Step::Dismiss => {
                    if state.can_end_in_order() {
                        state.dismiss(1012, "");
                        prop_assert!(state.has_ended());
                    }
                    continue;
                }
                Step::Claim(size) => {
                    let FromWorker::Answer(Received::Head(head)) = head(200, "", size, Flags::NONE) else { continue };
                    // Once, as the first piece; here at any time: the account must hold all the same.
                    if state.claim(&head).is_err() {
                        break;
                    }
                    continue;
                }
            };
            // What is refused ends the link, and all that was held with it.
            let Ok(after) = state.receive(frame) else { break };
            prop_assert_eq!(after.over, state.is_over());
            if !state.is_over() {
                prop_assert_eq!(state.accounted(), u64::from(WINDOW_BYTES));
                prop_assert!(state.owed < CREDIT_BYTES_MIN);
            }
            prop_assert!(state.held() <= WINDOW_BYTES as usize + APP_MESSAGE_BYTES_MAX);
            prop_assert!(state.to_worker.left() <= WINDOW_BYTES);
            prop_assert!(state.files <= FILES_MAX);
        }
    }
}
