//! A warning that is counted: each time it happens the counter goes up, and at most once a second a line is logged.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::metric::Counter;

/// The clock of the once-a-second rule; only differences count.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Something unwelcome that may happen many times a second. See [`crate::events`].
#[derive(Debug)]
pub struct Event {
    counter: &'static Counter,
    message: &'static str,
    hint: &'static str,
    /// The second after the start in which a line was last logged, plus one; 0: never.
    said_at_s: AtomicU64,
    /// Times since then.
    unsaid: AtomicU64,
}

impl Event {
    /// `message` says what happened, `hint` what to do about it; both without the detail of the single case.
    pub const fn new(counter: &'static Counter, message: &'static str, hint: &'static str) -> Self {
        Self { counter, message, hint, said_at_s: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }

    /// It happened. `detail` is formatted only when a line is logged.
    pub fn happened(&self, detail: fmt::Arguments<'_>) {
        self.counter.inc();
        if let Some(unsaid) = self.may_speak(START.elapsed().as_secs()) {
            let Self { message, hint, .. } = self;
            tracing::warn!(%detail, hint, more_since_last = unsaid, "{message}");
        }
    }

    /// At most once a second: the number of times nothing was logged since the last line.
    fn may_speak(&self, now_s: u64) -> Option<u64> {
        let said = self.said_at_s.load(Relaxed);
        let first_this_second =
            said != now_s + 1 && self.said_at_s.compare_exchange(said, now_s + 1, Relaxed, Relaxed).is_ok();
        if first_this_second {
            return Some(self.unsaid.swap(0, Relaxed));
        }
        self.unsaid.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_once_a_second_and_tells_what_it_left_out() {
        static COUNTER: Counter = Counter::new();
        let event = Event::new(&COUNTER, "a cup fell", "hold it with both hands");
        assert_eq!(event.may_speak(0), Some(0));
        assert_eq!(event.may_speak(0), None);
        assert_eq!(event.may_speak(0), None);
        assert_eq!(event.may_speak(1), Some(2));
        assert_eq!(event.may_speak(7), Some(0));
        event.happened(format_args!("the blue one"));
        assert_eq!(COUNTER.get(), 1);
    }
}
