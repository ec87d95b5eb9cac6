//! RESP3, the protocol of Redis 6 and later (github.com/redis/redis-specifications, protocol/RESP3.md), as far as a client needs it.
//!
//! RESP2 is a part of it, so an answer to a greeting that went wrong is understood as well.

/// Answers within answers: scripts return lists of lists; nothing we ask for is deeper.
const DEPTH_MAX: usize = 8;

/// The longest line that is no text of a known length: a number, or what went wrong.
const LINE_BYTES_MAX: usize = 4096;

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// A whole number.
    Integer(i64),
    /// Text of any bytes; doubles and numbers beyond 64 bits too, as they were written.
    Text(Vec<u8>),
    /// The command was refused: a word in capitals, then an explanation.
    Error(String),
    /// Several; of a map, keys and values in turn.
    List(Vec<Value>),
    /// Nobody asked for it: a message of a subscription, a key that is not to be remembered any longer.
    Push(Vec<Value>),
}

impl Value {
    /// The number, when it is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The bytes, when it is text.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items, when there may be several.
    pub fn list(&self) -> Option<&[Value]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }
}

/// Bytes that no server should send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an answer of Redis")]
pub struct Malformed;

/// Appends a command: a list of texts.
pub fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    head(out, b'*', words.len());
    for word in words {
        head(out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn head(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    out.extend_from_slice(count.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The first answer in `bytes` and its length. `None`: its end is still to come. Longer than `bytes_max` it may not be.
pub fn decode(bytes: &[u8], bytes_max: usize) -> Result<Option<(Value, usize)>, Malformed> {
    let mut reader = Reader { bytes, at: 0, bytes_max };
    loop {
        match reader.value(DEPTH_MAX) {
            Ok(Some(value)) => return Ok(Some((value, reader.at))),
            // An attribute says something about the answer behind it; none means anything to us.
            Ok(None) => {}
            Err(Stop::Unfinished) if bytes.len() <= bytes_max => return Ok(None),
            Err(Stop::Unfinished | Stop::Malformed) => return Err(Malformed),
        }
    }
}

/// Why there is no answer.
enum Stop {
    Unfinished,
    Malformed,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    bytes_max: usize,
}

impl<'a> Reader<'a> {
    /// `Ok(None)`: an attribute.
    fn value(&mut self, depth: usize) -> Result<Option<Value>, Stop> {
        let depth = depth.checked_sub(1).ok_or(Stop::Malformed)?;
        let line = self.line()?;
        let (kind, rest) = line.split_first().ok_or(Stop::Malformed)?;
        Ok(Some(match kind {
            b'+' | b',' | b'(' => Value::Text(rest.to_vec()),
            b'-' => Value::Error(String::from_utf8_lossy(rest).into_owned()),
            b':' => Value::Integer(number(rest)?),
            b'_' => Value::Nil,
            b'#' => Value::Integer(i64::from(rest == b"t")),
            b'$' => self.text(rest)?.map_or(Value::Nil, |text| Value::Text(text.to_vec())),
            b'!' => Value::Error(String::from_utf8_lossy(self.text(rest)?.unwrap_or_default()).into_owned()),
            // Three letters say what the text is, then a colon.
            b'=' => Value::Text(self.text(rest)?.and_then(|text| text.get(4..)).unwrap_or_default().to_vec()),
            b'*' | b'~' if rest == b"-1" => Value::Nil,
            b'*' | b'~' => Value::List(self.items(number(rest)?, depth)?),
            b'%' => Value::List(self.items(pairs(rest)?, depth)?),
            b'>' => Value::Push(self.items(number(rest)?, depth)?),
            b'|' => {
                self.items(pairs(rest)?, depth)?;
                return Ok(None);
            }
            _ => return Err(Stop::Malformed),
        }))
    }

    fn items(&mut self, count: i64, depth: usize) -> Result<Vec<Value>, Stop> {
        // The number is not believed: no memory is taken before the items are there.
        let mut items = Vec::new();
        let count = usize::try_from(count).map_err(|_| Stop::Malformed)?;
        while items.len() < count {
            items.extend(self.value(depth)?);
        }
        Ok(items)
    }

    /// Up to the end of the line, which is passed over.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let within = &rest[..rest.len().min(LINE_BYTES_MAX)];
        match within.windows(2).position(|pair| pair == b"\r\n") {
            Some(end) => {
                self.at += end + 2;
                Ok(&rest[..end])
            }
            None if within.len() < LINE_BYTES_MAX => Err(Stop::Unfinished),
            None => Err(Stop::Malformed),
        }
    }

    /// As many bytes as the line says; `None`: that there are none (RESP2).
    fn text(&mut self, length: &[u8]) -> Result<Option<&'a [u8]>, Stop> {
        let length = match number(length)? {
            -1 => return Ok(None),
            length => usize::try_from(length).map_err(|_| Stop::Malformed)?,
        };
        if length > self.bytes_max {
            return Err(Stop::Malformed);
        }
        let rest = &self.bytes[self.at..];
        let text = rest.get(..length).ok_or(Stop::Unfinished)?;
        match rest.get(length..length + 2).ok_or(Stop::Unfinished)? {
            b"\r\n" => {
                self.at += length + 2;
                Ok(Some(text))
            }
            _ => Err(Stop::Malformed),
        }
    }
}

fn number(text: &[u8]) -> Result<i64, Stop> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Stop::Malformed)
}

fn pairs(text: &[u8]) -> Result<i64, Stop> {
    number(text)?.checked_mul(2).ok_or(Stop::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1 << 20;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn a_command_is_a_list_of_texts() {
        let mut out = Vec::new();
        encode(&mut out, &[b"SET", b"a\r\nb", b""]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
    }

    #[test]
    fn answers_of_every_kind() {
        #[track_caller]
        fn check(bytes: &str, value: &Value) {
            let whole = decode(bytes.as_bytes(), MAX).unwrap().unwrap();
            assert_eq!(whole, (value.clone(), bytes.len()), "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes.as_bytes()[..cut], MAX), Ok(None), "{bytes:?} up to {cut}");
            }
        }
        check("+OK\r\n", &text("OK"));
        check("-NOSCRIPT No matching script\r\n", &Value::Error("NOSCRIPT No matching script".into()));
        check("!8\r\nERR a\r\nb\r\n", &Value::Error("ERR a\r\nb".into()));
        check(":-7\r\n", &Value::Integer(-7));
        check("$2\r\n\r\n\r\n", &text("\r\n"));
        for nil in ["_\r\n", "$-1\r\n", "*-1\r\n"] {
            check(nil, &Value::Nil);
        }
        check("#t\r\n", &Value::Integer(1));
        check("#f\r\n", &Value::Integer(0));
        check(",1.5\r\n", &text("1.5"));
        check("=7\r\ntxt:abc\r\n", &text("abc"));
        check(
            "*2\r\n:1\r\n*1\r\n$1\r\na\r\n",
            &Value::List(vec![Value::Integer(1), Value::List(vec![text("a")])]),
        );
        check("%1\r\n+k\r\n:2\r\n", &Value::List(vec![text("k"), Value::Integer(2)]));
        check(
            ">2\r\n+invalidate\r\n*1\r\n+k\r\n",
            &Value::Push(vec![text("invalidate"), Value::List(vec![text("k")])]),
        );
        check("|1\r\n+ttl\r\n:3\r\n:5\r\n", &Value::Integer(5));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bytes in
            ["HTTP/1.1 400 Bad Request\r\n", "\r\n", ":x\r\n", "$-2\r\n", "*-7\r\n", "$1\r\nab\r\n", "?1\r\n"]
        {
            assert_eq!(decode(bytes.as_bytes(), MAX), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(decode("*1\r\n".repeat(100).as_bytes(), MAX), Err(Malformed), "deeper than anything");
        assert_eq!(decode(b"$2000000\r\n", MAX), Err(Malformed), "longer than allowed");
        assert_eq!(decode(b"%9223372036854775807\r\n", MAX), Err(Malformed), "more than can be counted");
        assert_eq!(decode(&[b'+'; LINE_BYTES_MAX + 1], MAX), Err(Malformed), "a line without an end");
        let endless = [&b"*1000000000\r\n"[..], &b":1\r\n".repeat(100)].concat();
        assert_eq!(decode(&endless, MAX), Ok(None));
        assert_eq!(decode(&endless, 100), Err(Malformed), "a list without an end");
    }

    proptest! {
        #[test]
        fn a_command_is_read_back(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10)) {
            let mut out = Vec::new();
            let slices: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            encode(&mut out, &slices);
            let list = Value::List(words.into_iter().map(Value::Text).collect());
            prop_assert_eq!(decode(&out, MAX), Ok(Some((list, out.len()))));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"*$%>|-1:\r\n".to_vec())], 0..60)) {
            if let Ok(Some((_, length))) = decode(&bytes, 40) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
