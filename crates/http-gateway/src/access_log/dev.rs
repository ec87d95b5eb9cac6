//! The access log of `quintet dev`: a line a request for the person who has just clicked. Colours only on a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use super::format::escape_text;
use crate::message::{AnsweredBy, Exchange};

/// Paths up to here are padded, so that what follows stands in columns.
const PATH_WIDTH: usize = 44;

/// From here on a query that is made again and again is worth a word: a page of a list has ten entries.
const REPEATED_MIN: u32 = 10;

/// From here on an answer is felt to be slow.
const SLOW: Duration = Duration::from_millis(300);

/// Escape sequences, or nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Colours {
    strong: &'static str,
    quiet: &'static str,
    green: &'static str,
    cyan: &'static str,
    yellow: &'static str,
    red: &'static str,
    end: &'static str,
}

impl Colours {
    const TERMINAL: Self = Self {
        strong: "\x1b[1m",
        quiet: "\x1b[2m",
        green: "\x1b[32m",
        cyan: "\x1b[36m",
        yellow: "\x1b[33m",
        red: "\x1b[1;31m",
        end: "\x1b[0m",
    };

    /// Where somebody looks, and has not said NO_COLOR (https://no-color.org).
    pub(super) fn of_standard_output() -> Self {
        use std::io::IsTerminal as _;
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && std::io::stdout().is_terminal() { Self::TERMINAL } else { Self::default() }
    }

    fn of_status(&self, status: u16) -> &'static str {
        match status {
            0..300 => self.green,
            300..400 => self.cyan,
            400..500 => self.yellow,
            _ => self.red,
        }
    }
}

/// `GET  /products/?page=2      200    34 ms  12 queries   8 ms   5.1 kB`.
pub(super) fn line(line: &mut Vec<u8>, exchange: &Exchange<'_>, took: Duration, colours: Colours) {
    let Colours { strong, quiet, yellow, red, end, .. } = colours;
    let own = matches!(exchange.trail.by, AnsweredBy::Worker(_));
    // Files and health checks are not what one looks for.
    let dim = if own || exchange.status >= 400 { "" } else { quiet };
    let mut path = Vec::new();
    let method = exchange.head.map_or(&b"-"[..], |head| head.method.as_bytes());
    let mut verb = Vec::new();
    escape_text(&mut verb, method);
    match exchange.head {
        Some(head) => escape_text(&mut path, &head.target),
        None => path.push(b'-'),
    }
    // Both were escaped to ASCII.
    let (verb, path) = (String::from_utf8_lossy(&verb), String::from_utf8_lossy(&path));
    let status = exchange.status;
    let status_colour = if dim.is_empty() { colours.of_status(status) } else { dim };
    let mut text = format!("{dim}{verb:<4} {path:<PATH_WIDTH$}{end} {status_colour}{status}{end} ");
    let slow = if own && took >= SLOW { yellow } else { dim };
    let _ = write!(text, "{slow}{:>7}{end}", duration(took));
    match exchange.trail.queries {
        Some(queries) => {
            let word = if queries.count == 1 { "query  " } else { "queries" };
            let _ = write!(text, "  {:>3} {word} {:>7}", queries.count, duration(queries.time));
        }
        None => text.push_str(&" ".repeat(21)),
    }
    let _ = write!(text, "  {dim}{:>8}{end}", size(exchange.body_bytes_sent));
    if let Some(queries) = exchange.trail.queries.filter(|queries| queries.repeated > REPEATED_MIN) {
        let _ = write!(text, "  {yellow}{strong}×{} the same query{end}", queries.repeated);
    }
    if !exchange.complete {
        let _ = write!(text, "  {red}cut{end}");
    }
    text.push('\n');
    line.extend_from_slice(text.as_bytes());
}

fn duration(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..10_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        micros @ 10_000..10_000_000 => format!("{} ms", micros / 1_000),
        micros => format!("{} s", micros / 1_000_000),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{}.{} kB", bytes / 1_000, bytes % 1_000 / 100),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_as_people_say_them() {
        let times = [0, 1_250, 9_999, 34_567, 1_200_000, 12_000_000];
        let times = times.map(|micros| duration(Duration::from_micros(micros)));
        assert_eq!(times, ["0.0 ms", "1.2 ms", "9.9 ms", "34 ms", "1200 ms", "12 s"]);
        assert_eq!([0, 999, 5_123, 1_250_000].map(size), ["0 B", "999 B", "5.1 kB", "1.2 MB"]);
    }
}
