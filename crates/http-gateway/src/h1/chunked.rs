//! The chunked coding (RFC 9112, 7.1), strictly. No I/O, no clock.
//!
//! Sizes are hexadecimal digits and nothing around them, lines end with CRLF, extensions are skipped and bounded.
//! Trailers are checked, bounded and dropped: merging them into the head would let a client add a field after it
//! was filtered (RFC 9110, 6.5.1). Those of a response may be kept apart, to be passed on where they stand.

use bytes::BytesMut;

use super::field::parse_field;
use crate::message::Headers;

/// The body breaks the coding: 400 and close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// All extensions of a body together. Nobody uses them; without a bound a client could send a byte of body for
/// each kilobyte and stay below every other limit.
const EXTENSION_BYTES_MAX: u32 = 16 * 1024;

/// All trailer lines together.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// u64 holds every number of 16 hexadecimal digits.
const SIZE_DIGITS_MAX: u8 = 16;

/// The next byte is …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// a digit of a size, or what ends it
    Size,
    /// inside an extension
    Extension,
    /// the line feed after a size
    SizeLineFeed,
    /// data, `left` of them
    Data,
    /// the carriage return after data
    DataReturn,
    /// the line feed after data
    DataLineFeed,
    /// part of a trailer line, or of the empty one
    Trailer,
    /// nothing: the body is over
    Nothing,
}

/// Decodes a chunked body piece by piece.
#[derive(Debug)]
pub struct ChunkedDecoder {
    expect: Expect,
    /// The size being read, then the bytes of the chunk that are still to come.
    left: u64,
    digits: u8,
    extension_bytes: u32,
    trailer_bytes: usize,
    /// The trailer line being read.
    trailer: Vec<u8>,
    /// Those read, if they are wanted.
    trailers: Option<Headers>,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// At the start of a body.
    pub fn new() -> Self {
        Self {
            expect: Expect::Size,
            left: 0,
            digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer: Vec::new(),
            trailers: None,
        }
    }

    /// The same, and [`Self::take_trailers`] will have what comes behind the body.
    pub fn keeping_trailers() -> Self {
        Self { trailers: Some(Headers::default()), ..Self::new() }
    }

    /// The fields behind the body, if they were to be kept and there are any.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.trailers.take().filter(|trailers| !trailers.is_empty())
    }

    /// Has the last byte been read?
    pub fn is_done(&self) -> bool {
        self.expect == Expect::Nothing
    }

    /// Appends the data in `input` to `out` and returns how many bytes of `input` were used: all of them, unless the
    /// body ends before. After an error the decoder is spent.
    pub fn decode(&mut self, input: &[u8], out: &mut BytesMut) -> Result<usize, Malformed> {
        let mut rest = input;
        while let [byte, behind @ ..] = rest {
            match self.expect {
                Expect::Nothing => break,
                Expect::Data => {
                    let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    let (data, behind) = rest.split_at(len);
                    out.extend_from_slice(data);
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.expect = Expect::DataReturn;
                    }
                    rest = behind;
                    continue;
                }
                _ => self.byte(*byte)?,
            }
            rest = behind;
        }
        Ok(input.len() - rest.len())
    }

    /// One byte of what surrounds the data.
    fn byte(&mut self, byte: u8) -> Result<(), Malformed> {
        self.expect = match (self.expect, byte) {
            (Expect::Size, b'\r') if self.digits > 0 => Expect::SizeLineFeed,
            (Expect::Size, b';') if self.digits > 0 => Expect::Extension,
            (Expect::Size, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                self.digits += 1;
                if self.digits > SIZE_DIGITS_MAX {
                    return Err(Malformed);
                }
                self.left = self.left << 4 | u64::from(digit);
                Expect::Size
            }
            (Expect::Extension, b'\r') => Expect::SizeLineFeed,
            // Also inside quotes: a control character never belongs here, and a lone line feed least of all.
            (Expect::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension_bytes += 1;
                if self.extension_bytes > EXTENSION_BYTES_MAX {
                    return Err(Malformed);
                }
                Expect::Extension
            }
            (Expect::SizeLineFeed, b'\n') => {
                self.digits = 0;
                if self.left == 0 { Expect::Trailer } else { Expect::Data }
            }
            (Expect::DataReturn, b'\r') => Expect::DataLineFeed,
            (Expect::DataLineFeed, b'\n') => Expect::Size,
            (Expect::Trailer, b'\n') => self.trailer_line()?,
            (Expect::Trailer, _) => {
                self.trailer_bytes += 1;
                if self.trailer_bytes > TRAILER_BYTES_MAX {
                    return Err(Malformed);
                }
                self.trailer.push(byte);
                Expect::Trailer
            }
            _ => return Err(Malformed),
        };
        Ok(())
    }

    /// A trailer line is complete.
    fn trailer_line(&mut self) -> Result<Expect, Malformed> {
        let Some((b'\r', line)) = self.trailer.split_last() else { return Err(Malformed) };
        if line.is_empty() {
            return Ok(Expect::Nothing);
        }
        let field = parse_field(line).map_err(|_| Malformed)?;
        // RFC 9110, 6.5.1: framing and routing have no place in trailers; who sends them means no good.
        let forbidden = ["content-length", "transfer-encoding", "host"];
        if forbidden.iter().any(|name| field.name.eq_ignore_ascii_case(name.as_bytes())) {
            return Err(Malformed);
        }
        if let Some(trailers) = &mut self.trailers {
            trailers.push(field.name, field.value);
        }
        self.trailer.clear();
        Ok(Expect::Trailer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whole and byte by byte must agree.
    fn decode(input: &[u8]) -> Result<(Vec<u8>, bool, usize), Malformed> {
        let mut decoder = ChunkedDecoder::new();
        let mut out = BytesMut::new();
        let used = decoder.decode(input, &mut out)?;
        Ok((out.to_vec(), decoder.is_done(), used))
    }

    fn decode_dribbled(input: &[u8]) -> Result<(Vec<u8>, bool, usize), Malformed> {
        let mut decoder = ChunkedDecoder::new();
        let mut out = BytesMut::new();
        let mut used = 0;
        for byte in input {
            used += decoder.decode(&[*byte], &mut out)?;
        }
        Ok((out.to_vec(), decoder.is_done(), used))
    }

    fn check(input: &str, expected: Result<(&str, bool), Malformed>) {
        let seen = decode(input.as_bytes());
        assert_eq!(seen, decode_dribbled(input.as_bytes()), "{input:?} whole and dribbled");
        let seen = seen.map(|(data, done, _)| (String::from_utf8(data).unwrap(), done));
        assert_eq!(seen, expected.map(|(data, done)| (data.to_owned(), done)), "{input:?}");
    }

    #[test]
    fn bodies() {
        check("0\r\n\r\n", Ok(("", true)));
        check("5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", Ok(("hello world", true)));
        check("A\r\n0123456789\r\n0\r\n\r\nGET /", Ok(("0123456789", true)));
        check("5; a; b=\"c d\"\r\nhello\r\n0;x\r\n\r\n", Ok(("hello", true)));
        check("0\r\nVary: *\r\nX: y\r\n\r\n", Ok(("", true)));
        check("5\r\nhel", Ok(("hel", false)));
        check("0\r\n", Ok(("", false)));
    }

    #[test]
    fn malformed_bodies() {
        for bad in [
            "\r\n",
            ";a\r\n",
            " 5\r\n",
            "5 \r\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "6_0\r\n",
            "5\nhello",
            "5;a\n",
            "5\r\r\n",
            "5;a\rb\r\n",
            "5;\x01\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "00000000000000005\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n\n",
            "0\r\nHost: a\r\n\r\n",
            "0\r\ncontent-length: 1\r\n\r\n",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0\r\n a: b\r\n\r\n",
        ] {
            check(bad, Err(Malformed));
        }
        assert_eq!(decode(format!("1;{}\r\n", "a".repeat(20_000)).as_bytes()), Err(Malformed));
        assert_eq!(decode(format!("0\r\nA: {}\r\n", "a".repeat(10_000)).as_bytes()), Err(Malformed));
    }

    proptest! {
        #[test]
        fn round_trip_in_any_pieces(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8), cut in 0usize..400) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let mut decoder = ChunkedDecoder::new();
            let mut out = BytesMut::new();
            let (first, second) = wire.split_at(cut.min(wire.len()));
            prop_assert_eq!(decoder.decode(first, &mut out), Ok(first.len()));
            prop_assert_eq!(decoder.decode(second, &mut out), Ok(second.len()));
            prop_assert!(decoder.is_done());
            prop_assert_eq!(out.to_vec(), chunks.concat());
        }

        #[test]
        fn never_panics_and_splits_agree(input in prop::collection::vec(prop::sample::select(b"0159aF;\r\n: xH".to_vec()), 0..60)) {
            prop_assert_eq!(decode(&input), decode_dribbled(&input));
        }
    }
}
