//! The `Date` field (RFC 9110, 6.6.1), formatted once a second per thread.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `Sun, 06 Nov 1994 08:49:37 GMT`
const DATE_BYTES: usize = 29;

thread_local! {
    /// The second and its text.
    static CACHED: Cell<(u64, [u8; DATE_BYTES])> = const { Cell::new((u64::MAX, [b' '; DATE_BYTES])) };
}

/// The current date as it stands in a response.
pub(crate) fn now() -> [u8; DATE_BYTES] {
    at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

fn at(second: u64) -> [u8; DATE_BYTES] {
    let (cached, text) = CACHED.get();
    if cached == second {
        return text;
    }
    let mut fresh = [b' '; DATE_BYTES];
    let formatted = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
    for (to, from) in fresh.iter_mut().zip(formatted.bytes()) {
        *to = from;
    }
    CACHED.set((second, fresh));
    fresh
}

#[cfg(test)]
mod tests {
    #[test]
    fn formats_and_follows_the_clock() {
        assert_eq!(&super::at(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&super::at(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&super::at(784_111_778), b"Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
