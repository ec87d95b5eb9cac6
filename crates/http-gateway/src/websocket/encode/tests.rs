//! What is sent is what a strict reader understands.

use proptest::prelude::*;

use super::super::decode::{Decoder, Event};
use super::*;

fn agreed() -> Option<Agreed> {
    Agreed::first_of(b"permessage-deflate").unwrap()
}

fn frames(kind: MessageType, bytes: &[u8], agreed: Option<Agreed>) -> Vec<BytesMut> {
    let mut outgoing = Outgoing::new(kind, Bytes::copy_from_slice(bytes), agreed);
    let mut frames = Vec::new();
    loop {
        let mut out = BytesMut::new();
        let more = outgoing.put_frame(&mut out);
        frames.push(out);
        if !more {
            return frames;
        }
    }
}

/// Puts a mask of zeros into a frame, as if a client had sent it.
fn masked(frame: &[u8]) -> Vec<u8> {
    let mut masked = frame.to_vec();
    let head = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    masked[1] |= 0x80;
    masked.splice(head..head, [0; 4]);
    masked
}

fn read(frames: &[BytesMut], deflate: bool) -> Vec<Event> {
    let mut decoder = Decoder::new(1 << 24, deflate);
    let mut events = Vec::new();
    for frame in frames {
        let bytes = masked(frame);
        let (taken, event) = decoder.decode(&bytes).unwrap();
        assert_eq!(taken, bytes.len());
        events.extend(event);
    }
    events
}

#[test]
fn small_messages_are_one_frame() {
    assert_eq!(frames(MessageType::Text, b"hi", agreed()), [&b"\x81\x02hi"[..]]);
    assert_eq!(frames(MessageType::Binary, b"", None), [&b"\x82\x00"[..]]);
}

#[test]
fn a_message_that_does_not_shrink_goes_as_it_is() {
    let mut random = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 24) as u8
    })
    .take(300)
    .collect();
    let sent = frames(MessageType::Binary, &noise, agreed());
    assert_eq!(sent[0][..4], *b"\x82\x7e\x01\x2c");
    let sent = frames(MessageType::Text, &[b'x'; 300], agreed());
    assert!(sent[0][0] == 0xc1 && sent[0].len() < 20, "{sent:02x?}");
}

#[test]
fn long_messages_are_fragmented() {
    let long = vec![b'x'; 2 * FRAGMENT_BYTES + 1];
    let firsts = |sent: &[BytesMut]| sent.iter().map(|frame| frame[0]).collect::<Vec<_>>();
    let plain = frames(MessageType::Text, &long, None);
    assert_eq!(firsts(&plain), [0x01, 0x00, 0x80]);
    let long = long.into();
    assert_eq!(read(&plain, false), [Event::Message(MessageType::Text, Bytes::clone(&long))]);
    let packed = frames(MessageType::Text, &long, agreed());
    assert_eq!(read(&packed, true), [Event::Message(MessageType::Text, long)]);
    assert_eq!(packed[0][0] & 0xc0, if packed.len() == 1 { 0xc0 } else { 0x40 });
    let exact = vec![b'x'; FRAGMENT_BYTES];
    assert_eq!(firsts(&frames(MessageType::Binary, &exact, None)), [0x82]);
}

#[test]
fn control_frames() {
    let mut out = BytesMut::new();
    put_ping(&mut out);
    put_pong(&mut out, b"yes");
    put_close(&mut out, 1000, "bye");
    put_close(&mut out, close::NO_CODE, "never sent");
    assert_eq!(out, &b"\x89\x00\x8a\x03yes\x88\x05\x03\xe8bye\x88\x00"[..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_strict_reader_understands_every_message(
        seed in prop::collection::vec(any::<u8>(), 1..300), times in 1usize..800, text: bool, deflate: bool,
    ) {
        let message = if text { "\u{f3}bc".repeat(times * 40).into_bytes() } else { seed.repeat(times) };
        let kind = if text { MessageType::Text } else { MessageType::Binary };
        let sent = frames(kind, &message, agreed().filter(|_| deflate));
        prop_assert!(sent.iter().all(|frame| frame.len() <= FRAGMENT_BYTES + 1024));
        prop_assert_eq!(read(&sent, deflate), [Event::Message(kind, message.into())]);
    }
}
