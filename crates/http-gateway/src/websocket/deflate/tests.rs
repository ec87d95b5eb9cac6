//! Offers and answers; messages through both machines.

use proptest::prelude::*;

use super::*;

fn check(offers: &str, expected: &str) {
    let seen = match Agreed::first_of(offers.as_bytes()) {
        Ok(Some(agreed)) => {
            let answer = agreed.answer();
            let agreed = answer
                .strip_prefix("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
            format!("yes{}", agreed.unwrap())
        }
        Ok(None) => "no".to_owned(),
        Err(why) => why.to_owned(),
    };
    assert_eq!(seen, expected, "{offers}");
}

#[test]
fn offers() {
    check("", "no");
    check("x-webkit-deflate-frame", "no");
    check("permessage-deflate", "yes");
    check("Permessage-Deflate", "yes");
    // What Chrome and Firefox say.
    check("permessage-deflate; client_max_window_bits", "yes");
    check("permessage-deflate; client_max_window_bits=10", "yes");
    check("permessage-deflate;server_no_context_takeover;client_no_context_takeover", "yes");
    check("permessage-deflate; server_max_window_bits=12", "yes; server_max_window_bits=12");
    check("permessage-deflate; server_max_window_bits=\"9\"", "yes; server_max_window_bits=9");
    check("permessage-deflate ; server_max_window_bits = 15", "yes; server_max_window_bits=15");
    check("foo; bar=\"a\", , permessage-deflate", "yes");
}

#[test]
fn offers_that_are_declined() {
    for parameters in [
        "server_max_window_bits=8",
        "server_max_window_bits",
        "server_max_window_bits=16",
        "server_max_window_bits=7",
        "server_max_window_bits=09",
        "server_max_window_bits=1",
        "client_max_window_bits=16",
        "client_max_window_bits=0",
        "server_no_context_takeover=1",
        "client_no_context_takeover; client_no_context_takeover",
        "unknown",
    ] {
        check(&format!("permessage-deflate; {parameters}"), "no");
        check(&format!("permessage-deflate; {parameters}, permessage-deflate"), "yes");
    }
}

#[test]
fn offers_that_are_malformed() {
    for bad in [
        ";",
        "a b",
        "permessage-deflate;",
        "permessage-deflate; =1",
        "a; b=",
        "a; b=\"",
        "a; b=\"c d\"",
        "a; b=\"c,d\"",
        "a=b",
    ] {
        check(bad, "Sec-WebSocket-Extensions is malformed");
    }
}

fn deflater(window_bits: u8, message_bytes: usize) -> Deflater {
    let agreed = Agreed { window_bits, window_was_asked: true };
    Deflater::for_message(Some(agreed), message_bytes).expect("it was agreed, and is worth it")
}

fn inflate(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, Violation> {
    let (mut inflater, mut out) = (Inflater::new(), Vec::new());
    inflater.inflate(packed, &mut out, bytes_max)?;
    inflater.finish(&mut out, bytes_max)?;
    Ok(out)
}

#[test]
fn small_messages_are_left_alone() {
    let agreed = Agreed { window_bits: 15, window_was_asked: false };
    assert!(Deflater::for_message(Some(agreed), COMPRESS_BYTES_MIN - 1).is_none());
    assert!(Deflater::for_message(None, 1 << 20).is_none());
}

#[test]
fn the_standards_examples() {
    // RFC 7692, 7.2.3.1, 7.2.3.3, 7.2.3.4, 7.2.3.5 and 7.2.3.6.
    assert_eq!(inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5).unwrap(), b"Hello");
    assert_eq!(inflate(b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", 5).unwrap(), b"Hello");
    assert_eq!(inflate(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 5).unwrap(), b"Hello");
    let two_blocks = b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
    assert_eq!(inflate(two_blocks, 5).unwrap(), b"Hello");
    assert_eq!(inflate(b"\x00", 5).unwrap(), b"");
}

#[test]
fn garbage_is_refused() {
    for bad in [&b"\xff\xff\xff"[..], b"\x07", b"\xf2\x48\xcd\xc9\xc9\x07\x06\x06\x06"] {
        assert_eq!(inflate(bad, 1000).map_err(|violation| violation.code), Err(1002), "{bad:02x?}");
    }
}

#[test]
fn a_bomb_is_stopped_while_it_is_inflated() {
    let mut deflater = deflater(15, 16 << 20);
    let bomb = deflater.compress(&vec![0; 16 << 20], true);
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let (mut inflater, mut out) = (Inflater::new(), Vec::new());
    assert_eq!(inflater.inflate(&bomb, &mut out, 100_000), Err(Violation::TOO_BIG));
    assert!(out.capacity() < 300_000, "{}", out.capacity());
    // The machine goes back in order.
    drop((inflater, deflater));
    assert_eq!(inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5).unwrap(), b"Hello");
}

#[test]
fn a_smaller_window_is_kept_to() {
    // The second half repeats the first from further away than 2^9 bytes: with a window of 2^15 it costs next to nothing.
    let mut random = 1_u32;
    let half: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 24) as u8
    })
    .take(4000)
    .collect();
    let message = [&half[..], &half].concat();
    for (bits, least) in [(9, 7900), (15, 4000)] {
        let packed = deflater(bits, message.len()).compress(&message, true);
        assert!(packed.len() >= least && packed.len() < least + 600, "{bits}: {}", packed.len());
        assert_eq!(inflate(&packed, message.len()).unwrap(), message);
    }
}

proptest! {
    // Compressors are slow without optimization.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_come_back(words in prop::collection::vec("[a-d]{1,8}", 0..600), cut in 0usize..4000, bits in 9u8..16) {
        let message = words.concat().into_bytes();
        let mut deflater = deflater(bits, COMPRESS_BYTES_MIN);
        let (first, second) = message.split_at(cut.min(message.len()));
        let packed = [deflater.compress(first, false), deflater.compress(second, true)].concat();
        let (mut inflater, mut out) = (Inflater::new(), Vec::new());
        for piece in packed.chunks(7) {
            inflater.inflate(piece, &mut out, message.len()).unwrap();
        }
        inflater.finish(&mut out, message.len()).unwrap();
        prop_assert_eq!(out, message);
    }

    #[test]
    fn whatever_comes_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut out = Vec::new();
        let mut inflater = Inflater::new();
        if inflater.inflate(&bytes, &mut out, 1000).is_ok() {
            prop_assert!(out.len() <= 1000);
        }
    }
}
