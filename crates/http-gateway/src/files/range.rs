//! Byte ranges: from the Range field to the spans that are sent (RFC 9110, 14). Pure.

/// More ranges than this in one request: the whole file is sent. RFC 9110, 14.2 allows it, against requests made to
/// be costly (17.15). Readers of PDF files ask for about ten at a time.
const RANGES_MAX: usize = 16;

/// Ranges closer together than this become one: it is what the head of a part costs (RFC 9110, 15.3.7.2).
const GAP_MAX: u64 = 80;

/// Some bytes of a representation; never empty, never beyond its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The first byte.
    pub(super) start: u64,
    /// How many.
    pub(super) len: u64,
}

impl Span {
    fn end(self) -> u64 {
        self.start + self.len
    }

    /// `bytes 0-99/1234` (RFC 9110, 14.4).
    pub(super) fn content_range(self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.start, self.end() - 1)
    }
}

/// What of a representation is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selected {
    /// 200 and all of it: there was no Range, or one that is to be ignored.
    Whole,
    /// 206 and one part.
    One(Span),
    /// 206 and `multipart/byteranges`.
    Many(Vec<Span>),
    /// 416
    Unsatisfiable,
}

/// Reads a Range field for a representation of `size` bytes.
///
/// Another unit than bytes, and whatever cannot be read, is ignored (RFC 9110, 14.2).
pub(super) fn select(value: &[u8], size: u64) -> Selected {
    // RFC 9110, 14.1: range units are case-insensitive.
    let Some((unit, set)) = value.trim_ascii().split_at_checked(6) else { return Selected::Whole };
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return Selected::Whole;
    }
    let mut spans: Vec<Span> = Vec::new();
    let mut asked = 0;
    for spec in set.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty()) {
        asked += 1;
        let Ok(resolved) = resolve(spec, size) else { return Selected::Whole };
        if asked > RANGES_MAX {
            return Selected::Whole;
        }
        if let Some(span) = resolved {
            join(&mut spans, span);
        }
    }
    match spans.as_slice() {
        [] if asked == 0 => Selected::Whole,
        [] => Selected::Unsatisfiable,
        [span] => Selected::One(*span),
        _ => Selected::Many(spans),
    }
}

/// RFC 9110, 14.1.1 knows no such range.
struct Malformed;

/// `None`: not satisfiable.
fn resolve(spec: &[u8], size: u64) -> Result<Option<Span>, Malformed> {
    let dash = memchr::memchr(b'-', spec).ok_or(Malformed)?;
    let (first, last) = (number(&spec[..dash])?, number(&spec[dash + 1..])?);
    let span = match (first, last) {
        (None, None) => return Err(Malformed),
        // RFC 9110, 14.1.2: the last so many bytes; of a shorter representation, all.
        (None, Some(suffix)) => Span { start: size.saturating_sub(suffix), len: suffix.min(size) },
        // RFC 9110, 14.1.1: invalid when the last position is less than the first.
        (Some(first), Some(last)) if last < first => return Err(Malformed),
        (Some(first), last) => {
            let end = last.map_or(size, |last| last.saturating_add(1).min(size));
            Span { start: first, len: end.saturating_sub(first) }
        }
    };
    Ok((span.len > 0).then_some(span))
}

/// Digits only; `None`: there are none. A number too large for us is larger than every file.
fn number(digits: &[u8]) -> Result<Option<u64>, Malformed> {
    let mut sum = 0u64;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| digit - b'0').ok_or(Malformed)?;
        sum = sum.saturating_mul(10).saturating_add(u64::from(digit));
    }
    Ok((!digits.is_empty()).then_some(sum))
}

/// Adds a span, made one with those it touches; the order of what was asked is kept (RFC 9110, 15.3.7.2).
fn join(spans: &mut Vec<Span>, mut span: Span) {
    let near = |a: Span, b: Span| a.start <= b.end().saturating_add(GAP_MAX);
    let mut place = spans.len();
    while let Some(at) = spans.iter().position(|&other| near(span, other) && near(other, span)) {
        let other = spans.remove(at);
        let end = span.end().max(other.end());
        span.start = span.start.min(other.start);
        span.len = end - span.start;
        place = place.min(at);
    }
    spans.insert(place.min(spans.len()), span);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(value: &str, size: u64, expected: &str) {
        let show = |span: &Span| format!("{}+{}", span.start, span.len);
        let got = match select(value.as_bytes(), size) {
            Selected::Whole => "whole".to_owned(),
            Selected::Unsatisfiable => "416".to_owned(),
            Selected::One(span) => show(&span),
            Selected::Many(spans) => spans.iter().map(show).collect::<Vec<_>>().join(" "),
        };
        assert_eq!(got, expected, "{value} of {size}");
    }

    #[test]
    fn single() {
        check("bytes=0-0", 1000, "0+1");
        check("bytes=0-", 1000, "0+1000");
        check("bytes=500-999", 1000, "500+500");
        check("bytes=500-5000", 1000, "500+500");
        check("bytes=-1", 1000, "999+1");
        check("bytes=-5000", 1000, "0+1000");
        check("Bytes= 0-1", 1000, "0+2");
        check("bytes=999-99999999999999999999999", 1000, "999+1");
    }

    #[test]
    fn unsatisfiable() {
        check("bytes=1000-", 1000, "416");
        check("bytes=-0", 1000, "416");
        check("bytes=0-", 0, "416");
        check("bytes=-5", 0, "416");
        check("bytes=99999999999999999999999-", 1000, "416");
        check("bytes=1000-,2000-", 1000, "416");
    }

    #[test]
    fn ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "items=0-1",
            "bytes=a-b",
            "bytes=1",
            "bytes=-",
            "bytes=2-1",
            "bytes=0-1,x",
            "bytes=+1-2",
            "bytes=0-1-2",
        ] {
            check(value, 1000, "whole");
        }
        let many = |n: usize| {
            format!("bytes={}", (0..n).map(|i| format!("{0}-{0}", i * 1000)).collect::<Vec<_>>().join(","))
        };
        assert!(
            matches!(select(many(RANGES_MAX).as_bytes(), 1 << 20), Selected::Many(spans) if spans.len() == RANGES_MAX)
        );
        check(&many(RANGES_MAX + 1), 1 << 20, "whole");
    }

    #[test]
    fn several() {
        check("bytes=0-0,500-500", 1000, "0+1 500+1");
        check("bytes=500-500,0-0", 1000, "500+1 0+1");
        check("bytes=0-0,-1", 1000, "0+1 999+1");
        check("bytes=0-0,2000-", 1000, "0+1");
        check("bytes=0-99,50-149", 1000, "0+150");
        check("bytes=0-99,100-199", 1000, "0+200");
        check("bytes=0-99,180-199", 1000, "0+200");
        check("bytes=0-99,181-199", 1000, "0+100 181+19");
        check("bytes=0-9,900-909,300-309,5-905", 1000, "0+910");
        check("bytes=700-709,0-9,300-309,350-359", 1000, "700+10 0+10 300+60");
    }

    proptest! {
        #[test]
        fn never_beyond_the_end_and_never_twice(value in "bytes=[0-9]{0,4}-[0-9]{0,4}(,[0-9]{0,4}-[0-9]{0,4}){0,6}", size in 0u64..5000) {
            let spans = match select(value.as_bytes(), size) {
                Selected::One(span) => vec![span],
                Selected::Many(spans) => spans,
                Selected::Whole | Selected::Unsatisfiable => vec![],
            };
            for (i, span) in spans.iter().enumerate() {
                prop_assert!(span.len > 0 && span.end() <= size);
                for other in &spans[..i] {
                    prop_assert!(span.end() + GAP_MAX < other.start || other.end() + GAP_MAX < span.start);
                }
            }
        }

        #[test]
        fn never_panics(value in prop::collection::vec(any::<u8>(), 0..64), size in any::<u64>()) {
            select(&value, size);
        }
    }
}
