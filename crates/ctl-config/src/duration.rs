//! Durations: `500ms`, `5s`, `2m`, `1h30m`, or plain seconds.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Ten years: no timeout is meant to be longer, and sums with an `Instant` stay far from overflow.
const MILLISECONDS_MAX: u64 = 10 * 365 * 86_400_000;

/// How durations are written, for hints.
pub(crate) const HOW: &str = "durations are written 500ms, 5s, 2m, 1h30m, or as plain seconds";

/// Reads a duration; `None` when it is none. Exact to the millisecond.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(ctl_config::parse_duration("1m30s"), Some(Duration::from_secs(90)));
/// ```
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let milliseconds = if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        scaled(text, 1_000)?
    } else {
        let mut rest = text;
        let mut total = 0_u64;
        let mut larger_than = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
            // Each unit once, the larger first: `5s2m` is more likely a slip than a wish.
            if *factor >= larger_than {
                return None;
            }
            larger_than = *factor;
            total = total.checked_add(scaled(number, *factor)?)?;
            rest = tail;
        }
        total
    };
    (!text.is_empty() && milliseconds <= MILLISECONDS_MAX).then(|| Duration::from_millis(milliseconds))
}

/// `number`, which may have decimals, times `factor`; `None` when it is no number or not whole.
pub(crate) fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || decimals.is_empty() || decimals.len() > 9 {
        return None;
    }
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok());
    let (whole, fraction) = (digits(whole)??, digits(decimals)??);
    let ten = 10_u64.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    let fraction = u128::from(fraction) * u128::from(factor);
    if fraction % u128::from(ten) != 0 {
        return None;
    }
    whole.checked_mul(factor)?.checked_add(u64::try_from(fraction / u128::from(ten)).ok()?)
}

/// Writes a duration the shortest way [`parse_duration`] reads back.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".into();
    }
    let unit = UNITS.iter().find(|(_, factor)| milliseconds.is_multiple_of(*factor));
    // Minutes up to two, then seconds read better than `75s` as `1m15s`: only whole units are used.
    unit.map_or_else(
        || format!("{milliseconds}ms"),
        |(name, factor)| format!("{}{name}", milliseconds / factor),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ways_to_write_it() {
        for (text, milliseconds) in [
            ("0", Some(0)),
            ("5", Some(5_000)),
            ("0.25", Some(250)),
            ("500ms", Some(500)),
            ("5s", Some(5_000)),
            ("1.5s", Some(1_500)),
            ("2m", Some(120_000)),
            ("1h30m", Some(5_400_000)),
            ("1d", Some(86_400_000)),
            ("", None),
            ("s", None),
            ("5 s", None),
            ("-5s", None),
            ("5s2m", None),
            ("5s5s", None),
            ("10x", None),
            (".5s", None),
            ("5.s", None),
            ("0.5ms", None),
            ("1.2.3s", None),
            ("20000d", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(parse_duration(text), milliseconds.map(Duration::from_millis), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(milliseconds in 0..=MILLISECONDS_MAX) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Some(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse_duration(&text);
        }

        #[test]
        fn near_misses_do_not_panic(text in "[0-9.]{0,30}[a-z]{0,3}[0-9.]{0,5}[a-z]{0,3}") {
            let _ = parse_duration(&text);
        }
    }
}
