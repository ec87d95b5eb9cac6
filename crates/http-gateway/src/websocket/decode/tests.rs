//! Conversations as tables, in the manner of the Autobahn test suite; each is read whole and byte by byte, and both must agree.

use proptest::prelude::*;

use super::*;
use crate::testing::client_frame;

/// So that a table reaches it.
const MESSAGE_BYTES_MAX: u64 = 1000;

fn show(event: Event) -> String {
    match event {
        Event::Message(kind, bytes) if bytes.len() > 40 => format!("{kind:?} of {}", bytes.len()),
        Event::Message(MessageType::Text, bytes) => std::str::from_utf8(&bytes).unwrap().to_owned(),
        Event::Message(MessageType::Binary, bytes) => format!("{bytes:?}"),
        Event::Ping(payload) => format!("ping {}", payload.escape_ascii()),
        Event::Pong => "pong".to_owned(),
        Event::Close(None) => "close".to_owned(),
        Event::Close(Some((code, reason))) => format!("close {code} {reason}"),
    }
}

/// What becomes of `input` when it comes in pieces of `piece` bytes: the events, and a violation with the byte that showed it.
fn run(input: &[u8], piece: usize, deflate: bool) -> (Vec<String>, Option<(Violation, usize)>) {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX, deflate);
    let mut events = Vec::new();
    for (i, mut piece) in input.chunks(piece).enumerate() {
        let end = (i + 1) * piece.len();
        while !piece.is_empty() {
            match decoder.decode(piece) {
                Ok((taken, event)) => {
                    assert!(taken > 0 || event.is_some(), "nothing moves");
                    piece = &piece[taken..];
                    let stop = matches!(event, Some(Event::Close(_)));
                    assert!(event.is_some() || piece.is_empty());
                    events.extend(event.map(show));
                    if stop {
                        return (events, None);
                    }
                }
                Err(violation) => return (events, Some((violation, end))),
            }
        }
    }
    (events, None)
}

fn outcome(frames: &[(u8, &[u8])], deflate: bool) -> String {
    let input: Vec<u8> = frames.iter().flat_map(|(first, payload)| client_frame(*first, payload)).collect();
    let (mut events, violation) = run(&input, input.len(), deflate);
    for piece in [1, 2, 3, 5, 13] {
        let (others, other) = run(&input, piece, deflate);
        assert_eq!(others, events, "in pieces of {piece}");
        assert_eq!(other.map(|(v, _)| v), violation.map(|(v, _)| v), "in pieces of {piece}");
    }
    events.extend(violation.map(|(violation, _)| format!("{} {}", violation.code, violation.why)));
    events.join(" | ")
}

fn check(frames: &[(u8, &[u8])], expected: &str) {
    assert_eq!(outcome(frames, false), expected, "{frames:02x?}");
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const TEXT_BEGINS: u8 = 0x01;
const BINARY_BEGINS: u8 = 0x02;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

#[test]
fn whole_messages() {
    check(&[(TEXT, b"")], "");
    check(&[(TEXT, b"one"), (TEXT, b"two")], "one | two");
    check(&[(BINARY, b"\0\xff")], r#"b"\0\xff""#);
    for len in [125, 126, 127, 128, 1000] {
        check(&[(TEXT, &vec![b'*'; len])], &format!("Text of {len}"));
        check(&[(BINARY, &vec![0xfe; len])], &format!("Binary of {len}"));
    }
}

#[test]
fn pings_and_pongs() {
    check(&[(PING, b"")], "ping ");
    check(&[(PING, b"hello"), (PONG, b"unasked"), (PING, b"\0\xff")], "ping hello | pong | ping \\x00\\xff");
    let longest = [b'p'; 125];
    check(&[(PING, &longest)], &format!("ping {}", "p".repeat(125)));
    check(&[(PING, &[b'p'; 126])], "1002 a control frame is longer than 125 bytes");
    check(&[(PING & 0x7f, b"")], "1002 a control frame is fragmented");
}

#[test]
fn reserved_bits_and_opcodes() {
    for first in [0x40 | TEXT, 0x20 | TEXT, 0x10 | BINARY, 0x70 | CLOSE, 0x10 | PING] {
        check(&[(TEXT, b"before"), (first, b"x")], "before | 1002 a reserved bit is set");
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(&[(TEXT, b"before"), (0x80 | opcode, b"")], "before | 1002 the opcode is unknown");
    }
}

#[test]
fn fragments() {
    check(&[(TEXT_BEGINS, b"one "), (ENDS, b"two")], "one two");
    check(&[(TEXT_BEGINS, b""), (GOES_ON, b""), (GOES_ON, b"x"), (ENDS, b"")], "x");
    check(&[(TEXT_BEGINS, b""), (ENDS, b"")], "");
    check(
        &[(BINARY_BEGINS, b"a"), (PING, b"1"), (GOES_ON, b"b"), (PONG, b""), (ENDS, b"c"), (PING, b"2")],
        r#"ping 1 | pong | b"abc" | ping 2"#,
    );
    check(&[(TEXT_BEGINS, b"a"), (CLOSE, b"")], "close");
    check(&[(ENDS, b"x")], "1002 a continuation without a message");
    check(&[(GOES_ON, b"x")], "1002 a continuation without a message");
    check(&[(TEXT, b"a"), (ENDS, b"x")], "a | 1002 a continuation without a message");
    check(&[(TEXT_BEGINS, b"a"), (TEXT, b"b")], "1002 a message begins within another");
    check(&[(TEXT_BEGINS, b"a"), (BINARY_BEGINS, b"b")], "1002 a message begins within another");
    check(
        &[(TEXT_BEGINS, b"a"), (ENDS, b"b"), (TEXT_BEGINS, b"c"), (ENDS, b"d"), (ENDS, b"e")],
        "ab | cd | 1002 a continuation without a message",
    );
}

#[test]
fn text_is_utf8_or_fails_at_once() {
    check(
        &[(TEXT, "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!".as_bytes())],
        "Hello-µ@ßöäüàá-UTF-8!!",
    );
    // Characters cut by a frame.
    for cut in 1..4 {
        let (first, second) = "\u{1f600}".as_bytes().split_at(cut);
        check(&[(TEXT_BEGINS, first), (PING, b""), (ENDS, second)], "ping  | \u{1f600}");
        check(&[(TEXT, first)], "1007 the text is not UTF-8");
        check(&[(TEXT_BEGINS, first), (ENDS, b"")], "1007 the text is not UTF-8");
        check(&[(TEXT_BEGINS, first), (ENDS, b"x")], "1007 the text is not UTF-8");
    }
    // Overlong forms, surrogates, beyond the last character, lone continuations, bytes that never occur.
    for bad in [
        &b"\xc0\x80"[..],
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\x80",
        b"\xbf",
        b"\xfe",
        b"\xff",
        b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80",
    ] {
        check(&[(TEXT, bad)], "1007 the text is not UTF-8");
        check(&[(TEXT_BEGINS, bad), (PING, b"")], "1007 the text is not UTF-8");
    }
    // In the middle of a message whose end never comes, at the first byte that shows it.
    let input = client_frame(TEXT_BEGINS, b"abc\xf4\x90");
    let (_, violation) = run(&[&input[..], &client_frame(GOES_ON, &[b'x'; 500])].concat(), 1, false);
    assert_eq!(violation, Some((Violation::NOT_UTF8, input.len())));
}

#[test]
fn closing() {
    check(&[(CLOSE, b""), (TEXT, b"never seen")], "close");
    check(&[(CLOSE, b"\x03\xe8")], "close 1000 ");
    check(&[(CLOSE, b"\x0f\xa0see you")], "close 4000 see you");
    check(&[(CLOSE, b"\x03")], "1002 a close frame has half a code");
    let longest = [&b"\x03\xe8"[..], &[b'*'; 123]].concat();
    check(&[(CLOSE, &longest)], &format!("close 1000 {}", "*".repeat(123)));
    check(&[(CLOSE, &[&longest[..], b"*"].concat())], "1002 a control frame is longer than 125 bytes");
    check(&[(CLOSE, b"\x03\xe8\xed\xa0\x80")], "1007 the text is not UTF-8");
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        check(&[(CLOSE, &code.to_be_bytes())], "1002 a close frame has a code that must not be sent");
    }
    for code in [1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 3999, 4000, 4999] {
        check(&[(CLOSE, &code.to_be_bytes())], &format!("close {code} "));
    }
}

#[test]
fn messages_that_are_too_large() {
    check(&[(BINARY, &[0; 1001])], "1009 the message is too large");
    check(&[(BINARY_BEGINS, &[0; 600]), (ENDS, &[0; 400])], "Binary of 1000");
    check(&[(BINARY_BEGINS, &[0; 600]), (ENDS, &[0; 401])], "1009 the message is too large");
    // When it is announced, not when it has come; and what is announced is not made room for.
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX, false);
    let announced = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffmask";
    assert_eq!(decoder.decode(announced), Err(Violation::TOO_BIG));
    let mut decoder = Decoder::new(1 << 30, false);
    assert_eq!(decoder.decode(b"\x82\xff\0\0\0\0\x3f\xff\xff\xffmask"), Ok((14, None)));
    assert_eq!(decoder.message.unwrap().bytes.capacity(), RESERVE_BYTES_MAX);
}

#[test]
fn an_unmasked_frame_is_refused() {
    let (events, violation) = run(b"\x81\x05hello", 7, false);
    assert_eq!((events.len(), violation.map(|(v, _)| v.code)), (0, Some(1002)));
}

const PACKED: u8 = 0x40;
const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";

fn check_deflate(frames: &[(u8, &[u8])], expected: &str) {
    assert_eq!(outcome(frames, true), expected, "{frames:02x?}");
}

#[test]
fn compressed_messages() {
    check_deflate(
        &[(PACKED | TEXT, HELLO), (TEXT, b"plain"), (PACKED | BINARY, HELLO)],
        r#"Hello | plain | b"Hello""#,
    );
    let (first, second) = HELLO.split_at(3);
    check_deflate(&[(PACKED | TEXT_BEGINS, first), (PING, b"x"), (ENDS, second)], "ping x | Hello");
    check_deflate(&[(PACKED | TEXT_BEGINS, b""), (GOES_ON, HELLO), (ENDS, b"")], "Hello");
    let late = "1002 only the first frame of a message can say that it is compressed";
    check_deflate(&[(PACKED | TEXT_BEGINS, first), (PACKED | ENDS, second)], late);
    check_deflate(&[(PACKED | PING, b"")], late);
    check_deflate(&[(PACKED | TEXT, b"\xff\xff\xff")], "1002 a compressed message is malformed");
    check(&[(PACKED | TEXT, HELLO)], "1002 a reserved bit is set");
}

#[test]
fn compressed_text_is_utf8_too() {
    // "\xff" and "a\xc3", in stored blocks.
    check_deflate(&[(PACKED | TEXT, b"\x00\x01\x00\xfe\xff\xff\x00")], "1007 the text is not UTF-8");
    check_deflate(&[(PACKED | TEXT, b"\x00\x02\x00\xfd\xffa\xc3\x00")], "1007 the text is not UTF-8");
    check_deflate(&[(PACKED | BINARY, b"\x00\x01\x00\xfe\xff\xff\x00")], r#"b"\xff""#);
}

#[test]
fn compressed_messages_that_are_too_large() {
    let packed = |len: usize| {
        let agreed = crate::websocket::deflate::Agreed::first_of(b"permessage-deflate").unwrap();
        crate::websocket::deflate::Deflater::for_message(agreed, 1 << 20)
            .unwrap()
            .compress(&vec![b'x'; len], true)
    };
    check_deflate(&[(PACKED | TEXT, &packed(1000))], "Text of 1000");
    check_deflate(&[(PACKED | TEXT, &packed(1001))], "1009 the message is too large");
    check_deflate(&[(PACKED | TEXT, &packed(1_000_000))], "1009 the message is too large");
    // Nothing but empty blocks: nothing comes of them, and there is an end to it.
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX, true);
    let empty_blocks = client_frame(PACKED | BINARY_BEGINS, &b"\0\0\0\xff\xff".repeat(1000));
    let more = client_frame(GOES_ON, &b"\0\0\0\xff\xff".repeat(12_000));
    assert_eq!(decoder.decode(&empty_blocks), Ok((empty_blocks.len(), None)));
    assert_eq!(decoder.decode(&more), Ok((more.len(), None)));
    assert_eq!(decoder.decode(&client_frame(GOES_ON, &[0; 3000])), Err(Violation::TOO_BIG));
}

proptest! {
    #[test]
    fn messages_come_back_however_they_are_cut(
        messages in prop::collection::vec((any::<bool>(), "[a-z\u{e0}-\u{ff}\u{1f600}-\u{1f610}]{0,60}", 1usize..30), 0..6),
        piece in 1usize..50,
        deflate: bool,
    ) {
        let mut input = Vec::new();
        let mut expected = Vec::new();
        for (text, message, fragment) in &messages {
            let begins = if *text { TEXT_BEGINS } else { BINARY_BEGINS };
            let pieces: Vec<&[u8]> = message.as_bytes().chunks(*fragment).collect();
            for (i, piece) in pieces.iter().enumerate() {
                let fin = if i + 1 == pieces.len() { 0x80 } else { 0 };
                input.extend(client_frame(fin | if i == 0 { begins } else { 0 }, piece));
            }
            let kind = if *text { MessageType::Text } else { MessageType::Binary };
            if !message.is_empty() {
                expected.push(show(Event::Message(kind, message.clone().into())));
            }
        }
        prop_assert_eq!(run(&input, piece, deflate), (expected, None));
    }

    #[test]
    fn whatever_comes_is_survived_and_read_the_same_in_pieces(
        input in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..20, deflate: bool,
    ) {
        let (events, violation) = run(&input, input.len().max(1), deflate);
        let (others, other) = run(&input, piece, deflate);
        prop_assert_eq!(events, others);
        prop_assert_eq!(violation.is_some(), other.is_some());
        // A compressed message may be wrong in two ways at once; which of them is seen first depends on the pieces.
        prop_assert!(deflate || violation.map(|(v, _)| v) == other.map(|(v, _)| v));
    }
}
