//! The generic cell rate algorithm (ITU-T I.371, the "virtual scheduling" form): one number a key.
//!
//! The number is when everything that was let through would have been due at the steady rate. A request adds one interval
//! to it; it passes while that is at most the window (`burst` intervals) ahead of now. A number that is not ahead of now
//! says nothing: the key has its whole burst, as one that was never seen. So a number is forgotten at no loss when its time
//! comes, and what is lost when it is forgotten earlier is exactly how far it is ahead: its debt.

use std::time::Duration;

/// The longest window. Beyond a year nobody waits, and sums of nanoseconds stay far from the end of 64 bits.
const WINDOW_MAX_NS: u64 = 366 * 24 * 3600 * 1_000_000_000;

/// A rate and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    interval_ns: u64,
    window_ns: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fits.
    Passes {
        /// Until its turn at the steady rate; who smooths bursts lets it wait so long.
        turn_in: Duration,
        /// Requests that would still fit now.
        remaining: u64,
        /// Until the whole burst is there again.
        full_in: Duration,
    },
    /// It does not.
    Refused {
        /// Until one more would fit.
        retry_in: Duration,
    },
}

impl Quota {
    /// `count` requests in each `period`, `burst` of them at once. Nothing is less than one.
    pub fn new(count: u64, period: Duration, burst: u64) -> Self {
        let interval_ns = (nanos(period) / count.max(1)).clamp(1, WINDOW_MAX_NS);
        Self { interval_ns, window_ns: interval_ns.saturating_mul(burst.max(1)).min(WINDOW_MAX_NS) }
    }

    /// Requests that fit at once.
    pub fn burst(&self) -> u64 {
        (self.window_ns / self.interval_ns).max(1)
    }

    /// The time in which that many fit at the steady rate.
    pub fn window(&self) -> Duration {
        Duration::from_nanos(self.window_ns)
    }

    /// The time between two requests at the steady rate.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval_ns)
    }

    /// Decides about one request; returns the key's new number.
    pub(crate) fn take(&self, due: u64, now: u64) -> (u64, Verdict) {
        // A number beyond the window is none of ours: the quota was changed, or a clock jumped all the same.
        let debt = due.saturating_sub(now).min(self.window_ns);
        let after = debt + self.interval_ns;
        if after > self.window_ns {
            let retry_in = Duration::from_nanos(after - self.window_ns);
            return (now + debt, Verdict::Refused { retry_in });
        }
        let verdict = Verdict::Passes {
            turn_in: Duration::from_nanos(debt),
            remaining: (self.window_ns - after) / self.interval_ns,
            full_in: Duration::from_nanos(after),
        };
        (now + after, verdict)
    }

    /// The number after a request was not made after all.
    pub(crate) fn give_back(&self, due: u64) -> u64 {
        due.saturating_sub(self.interval_ns)
    }

    /// The number of a key with this debt.
    pub(crate) fn owing(&self, debt: Duration, now: u64) -> u64 {
        now + nanos(debt).min(self.window_ns)
    }
}

/// Nanoseconds in 64 bits: half a millennium.
pub(crate) fn nanos(duration: Duration) -> u64 {
    // Half of the range is left for what is added to it.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn passes(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Passes { .. })
    }

    #[test]
    fn a_burst_then_the_rate() {
        let quota = Quota::new(10, Duration::from_secs(1), 3);
        let mut due = 0;
        let mut ask = |now_ms: u64| {
            let (next, verdict) = quota.take(due, now_ms * 1_000_000);
            due = next;
            verdict
        };
        let ms = Duration::from_millis;
        let pass = |turn_in, remaining, full_in| Verdict::Passes {
            turn_in: ms(turn_in),
            remaining,
            full_in: ms(full_in),
        };
        assert_eq!(ask(5000), pass(0, 2, 100));
        assert_eq!(ask(5000), pass(100, 1, 200));
        assert_eq!(ask(5000), pass(200, 0, 300));
        assert_eq!(ask(5000), Verdict::Refused { retry_in: ms(100) });
        assert_eq!(ask(5040), Verdict::Refused { retry_in: ms(60) });
        assert_eq!(ask(5100), pass(200, 0, 300), "what it said would fit, fits");
        assert_eq!(ask(60_000), pass(0, 2, 100));
        let refused = Verdict::Refused { retry_in: ms(100) };
        assert_eq!(ask(50_000), refused, "a clock that goes back makes nobody wait longer than the window");
        assert_eq!(ask(50_100), pass(200, 0, 300));
    }

    #[test]
    fn quotas_in_words_of_people() {
        let quota = Quota::new(100, Duration::from_secs(60), 100);
        assert_eq!((quota.burst(), quota.window()), (100, Duration::from_secs(60)));
        let strict = Quota::new(2, Duration::from_secs(1), 0);
        assert_eq!((strict.burst(), strict.interval()), (1, Duration::from_millis(500)));
        let absurd = Quota::new(0, Duration::MAX, u64::MAX);
        assert_eq!(absurd.burst(), 1);
        assert!(!passes(absurd.take(u64::MAX, 0).1) && passes(absurd.take(0, 0).1));
    }

    proptest! {
        /// However requests are spaced: in any stretch no more pass than the burst and the rate allow.
        #[test]
        fn no_stretch_holds_more_than_burst_and_rate(
            count in 1_u64..50,
            burst in 1_u64..20,
            gaps in prop::collection::vec(0_u64..SECOND / 5, 1..200),
        ) {
            let quota = Quota::new(count, Duration::from_secs(1), burst);
            let (mut due, mut now, mut passed) = (0, 7 * SECOND, Vec::new());
            for gap in gaps {
                now += gap;
                let (next, verdict) = quota.take(due, now);
                prop_assert!(next >= now && next - now <= quota.window_ns);
                due = next;
                if passes(verdict) {
                    passed.push(now);
                }
            }
            for (first, start) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let allowed = quota.burst() + (end - start) / quota.interval_ns;
                    prop_assert!((last - first) as u64 <= allowed, "{first} to {last}");
                }
            }
        }

        /// Who is told to come again after a time is let in then, and not a moment earlier.
        #[test]
        fn the_time_to_retry_is_exact(count in 1_u64..1000, burst in 1_u64..20, now in 0..u64::MAX / 4) {
            let quota = Quota::new(count, Duration::from_secs(1), burst);
            let mut due = 0;
            for _ in 0..burst {
                let (next, verdict) = quota.take(due, now);
                prop_assert!(passes(verdict));
                due = next;
            }
            let (next, verdict) = quota.take(due, now);
            let Verdict::Refused { retry_in } = verdict else { panic!("beyond the burst") };
            prop_assert_eq!(next, due);
            prop_assert!(!passes(quota.take(due, now + nanos(retry_in) - 1).1));
            prop_assert!(passes(quota.take(due, now + nanos(retry_in)).1));
            prop_assert!(passes(quota.take(quota.give_back(due), now).1), "one that was given back fits again");
        }

        #[test]
        fn no_numbers_make_it_panic(count: u64, period: u64, burst: u64, due: u64, now in 0..u64::MAX / 2) {
            let quota = Quota::new(count, Duration::from_nanos(period), burst);
            let (next, _) = quota.take(due, now);
            quota.give_back(next);
            quota.owing(Duration::from_nanos(due), now);
        }
    }
}
