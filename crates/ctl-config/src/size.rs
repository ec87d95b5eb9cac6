//! Sizes: `64KiB`, `10MB`, or plain bytes.

use crate::duration::scaled;

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// 64-bit offsets of files are signed.
const BYTES_MAX: u64 = i64::MAX as u64;

/// How sizes are written, for hints.
pub(crate) const HOW: &str = "sizes are written 64KiB, 10MB, 1.5GiB, or as plain bytes";

/// Reads a size; `None` when it is none. `KB` is 1000 bytes, `KiB` 1024; letters may be of either case.
///
/// ```
/// assert_eq!(ctl_config::parse_size("64KiB"), Some(65_536));
/// ```
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start();
    let factor = if unit.is_empty() {
        1
    } else {
        UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor)?
    };
    scaled(number, factor).filter(|bytes| *bytes <= BYTES_MAX)
}

/// Whether `text` is a size with nginx's one-letter unit, which does not say if it counts in 1000 or 1024.
pub(crate) fn one_letter_unit(text: &str) -> Option<String> {
    let number = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T']);
    let unit = text.strip_prefix(number)?;
    (unit.len() == 1 && scaled(number, 1).is_some()).then(|| format!("{number}{}iB", unit.to_uppercase()))
}

/// Writes a size the shortest way [`parse_size`] reads back.
pub fn size_text(bytes: u64) -> String {
    let unit = UNITS.iter().filter(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    // Of 64000: 64KB rather than 64000B; of 65536: 64KiB. The shortest number wins, the larger unit on ties.
    let shortest = unit.min_by_key(|(_, factor)| (bytes / factor).to_string().len());
    match shortest {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => "0".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ways_to_write_it() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1000", Some(1_000)),
            ("64KiB", Some(65_536)),
            ("64kib", Some(65_536)),
            ("64 KiB", Some(65_536)),
            ("10MB", Some(10_000_000)),
            ("1.5GiB", Some(1_610_612_736)),
            ("7B", Some(7)),
            ("", None),
            ("KiB", None),
            ("64K", None),
            ("-1", None),
            ("0.3B", None),
            ("64KiBs", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn nginx_units_are_recognised() {
        assert_eq!(one_letter_unit("128m").as_deref(), Some("128MiB"));
        assert_eq!(one_letter_unit("128mm"), None);
        assert_eq!(one_letter_unit("m"), None);
    }

    #[test]
    fn texts_are_short() {
        for (bytes, text) in
            [(0, "0"), (1, "1B"), (65_536, "64KiB"), (64_000, "64KB"), (1 << 30, "1GiB"), (1_001, "1001B")]
        {
            assert_eq!(size_text(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in 0..=BYTES_MAX) {
            prop_assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
        }

        #[test]
        fn round_numbers_too(number in 0_u64..5000, unit in 0..UNITS.len()) {
            let bytes = number * UNITS[unit].1;
            prop_assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse_size(&text);
            let _ = one_letter_unit(&text);
        }
    }
}
