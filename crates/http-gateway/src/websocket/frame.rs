//! Frames (RFC 6455, 5.2): heads to and from bytes, and masks. No I/O; nothing is kept.

use super::close::Violation;

/// The longest head a client can send: two bytes, eight of length, four of mask.
pub const HEAD_BYTES_MAX: usize = 14;

/// A control frame's payload (RFC 6455, 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_AND_3: u8 = 0x30;
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of a message.
    Continuation = 0,
    /// A text message begins.
    Text = 1,
    /// A binary message begins.
    Binary = 2,
    /// The closing handshake.
    Close = 8,
    /// To be answered with a pong.
    Ping = 9,
    /// Answers a ping, or nothing.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong.
    pub fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }
}

/// The head of a client's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The last frame of its message.
    pub fin: bool,
    /// RSV1: the message is compressed (RFC 7692, 6).
    pub compressed: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Bytes of payload.
    pub len: u64,
    /// The payload's mask.
    pub mask: [u8; 4],
}

/// Reads a client's frame head, and tells how long it is. `None`: it goes on. Refuses as soon as it can: a bad first byte
/// needs no second.
pub fn parse(bytes: &[u8], deflate: bool) -> Result<Option<(Head, usize)>, Violation> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    // RFC 6455, 5.2: a bit that no negotiated extension gives a meaning fails the connection.
    if first & RSV2_AND_3 != 0 || (first & RSV1 != 0 && !deflate) {
        return Err(Violation::protocol("a reserved bit is set"));
    }
    let Some(opcode) = Opcode::from_bits(first & 0x0f) else {
        return Err(Violation::protocol("the opcode is unknown"));
    };
    let (fin, compressed) = (first & FIN != 0, first & RSV1 != 0);
    if opcode.is_control() && !fin {
        return Err(Violation::protocol("a control frame is fragmented"));
    }
    // RFC 7692, 6: only the first frame of a message says that it is compressed.
    if compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(Violation::protocol("only the first frame of a message can say that it is compressed"));
    }
    let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
    // RFC 6455, 5.1: a server must close the connection on a frame that is not masked.
    if second & MASKED == 0 {
        return Err(Violation::protocol("a client must mask its frames"));
    }
    let short = second & !MASKED;
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(Violation::protocol("a control frame is longer than 125 bytes"));
    }
    let Some((len, rest)) = parse_length(short, rest)? else { return Ok(None) };
    let Some((&mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    Ok(Some((Head { fin, compressed, opcode, len, mask }, bytes.len() - rest.len())))
}

/// The length behind the first two bytes, which must be the shortest form of it (RFC 6455, 5.2).
fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    let (len, rest, smallest) = match short {
        126 => match rest.split_first_chunk::<2>() {
            Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest, 126),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((len, rest)) => (u64::from_be_bytes(*len), rest, 0x1_0000),
            None => return Ok(None),
        },
        len => (u64::from(len), rest, 0),
    };
    if len < smallest {
        return Err(Violation::protocol("a length is not in its shortest form"));
    }
    if len > i64::MAX as u64 {
        return Err(Violation::protocol("the first bit of a length is set"));
    }
    Ok(Some((len, rest)))
}

/// Appends the head of one of our frames; a server does not mask (RFC 6455, 5.1).
pub fn put_head(out: &mut impl Extend<u8>, opcode: Opcode, fin: bool, compressed: bool, len: usize) {
    let first = opcode as u8 | if fin { FIN } else { 0 } | if compressed { RSV1 } else { 0 };
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ 0..=125), _) => out.extend([first, len]),
        (_, Ok(len)) => {
            let [high, low] = len.to_be_bytes();
            out.extend([first, 126, high, low]);
        }
        _ => {
            out.extend([first, 127]);
            out.extend((len as u64).to_be_bytes());
        }
    }
}

/// Takes the mask off (or puts it on): `bytes` begin `offset` bytes into the payload.
///
/// Eight bytes at a time, which the compiler makes vector instructions of.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: u64) {
    let mask = u32::from_ne_bytes(mask);
    // The mask as it falls on the first of these bytes.
    let turned = if cfg!(target_endian = "little") {
        mask.rotate_right(8 * (offset % 4) as u32)
    } else {
        mask.rotate_left(8 * (offset % 4) as u32)
    };
    let wide = (u64::from(turned) << 32) | u64::from(turned);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(turned.to_ne_bytes().iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], deflate: bool, expected: Result<Option<(Opcode, u64, usize)>, &str>) {
        let seen = parse(bytes, deflate).map(|head| head.map(|(head, size)| (head.opcode, head.len, size)));
        assert_eq!(seen.map_err(|violation| violation.why), expected, "{bytes:02x?}");
    }

    #[test]
    fn heads() {
        use Opcode::{Binary, Ping, Text};
        check(b"", false, Ok(None));
        check(b"\x81", false, Ok(None));
        check(b"\x81\x85abc", false, Ok(None));
        check(b"\x81\x85abcd", false, Ok(Some((Text, 5, 6))));
        check(b"\x82\xfe\x00\x7eabcd", false, Ok(Some((Binary, 126, 8))));
        check(b"\x82\xff\0\0\0\0\0\x01\0\0abcd..", false, Ok(Some((Binary, 65536, 14))));
        check(b"\xc1\x80abcd", true, Ok(Some((Text, 0, 6))));
        check(b"\x89\xfdabcd", true, Ok(Some((Ping, 125, 6))));
    }

    #[test]
    fn heads_that_are_refused_as_soon_as_can_be() {
        check(b"\xc1", false, Err("a reserved bit is set"));
        check(b"\xa1", true, Err("a reserved bit is set"));
        check(b"\x91", true, Err("a reserved bit is set"));
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            check(&[0x80 | opcode], true, Err("the opcode is unknown"));
        }
        for opcode in [8, 9, 10] {
            check(&[opcode], true, Err("a control frame is fragmented"));
            check(
                &[0xc0 | opcode],
                true,
                Err("only the first frame of a message can say that it is compressed"),
            );
            check(&[0x80 | opcode, 0xfe], true, Err("a control frame is longer than 125 bytes"));
        }
        check(b"\xc0", true, Err("only the first frame of a message can say that it is compressed"));
        check(b"\x81\x05", false, Err("a client must mask its frames"));
        check(b"\x81\xfe\x00\x7d", false, Err("a length is not in its shortest form"));
        check(b"\x81\xff\0\0\0\0\0\0\xff\xff", false, Err("a length is not in its shortest form"));
        check(b"\x81\xff\x80\0\0\0\0\0\0\0", false, Err("the first bit of a length is set"));
    }

    #[test]
    fn our_heads_take_the_shortest_form() {
        for (len, expected) in [
            (0, &b"\x81\x00"[..]),
            (125, b"\x81\x7d"),
            (126, b"\x81\x7e\x00\x7e"),
            (0xffff, b"\x81\x7e\xff\xff"),
            (0x1_0000, b"\x81\x7f\0\0\0\0\0\x01\0\0"),
        ] {
            let mut out = Vec::new();
            put_head(&mut out, Opcode::Text, true, false, len);
            assert_eq!(out, expected, "{len}");
        }
        let mut out = Vec::new();
        put_head(&mut out, Opcode::Continuation, false, false, 1);
        put_head(&mut out, Opcode::Binary, true, true, 1);
        assert_eq!(out, b"\x00\x01\xc2\x01");
    }

    proptest! {
        #[test]
        fn unmasking_is_the_standards_formula(
            bytes in prop::collection::vec(any::<u8>(), 0..40), mask: [u8; 4], offset in 0u64..9,
        ) {
            // RFC 6455, 5.3: octet i of the payload meets octet i mod 4 of the mask.
            let expected: Vec<u8> =
                bytes.iter().enumerate().map(|(i, b)| b ^ mask[(i + offset as usize) % 4]).collect();
            let mut seen = bytes;
            unmask(&mut seen, mask, offset);
            prop_assert_eq!(seen, expected);
        }
    }
}
