//! Limits that several hosts count together: the same algorithm as in `gcra.rs`, as a script that Redis or Valkey runs as a
//! whole, by its own clock.
//!
//! What is decided there is decided once for all hosts, whatever their clocks say. Times are whole ticks of 100 nanoseconds, so
//! that sums are exact in the numbers that Lua has. A clock of Redis that is set back makes nobody wait longer than
//! the window; one that jumps ahead gives everybody his burst once more.

use std::time::Duration;

use crate::gcra::{Quota, Verdict};

/// Nanoseconds in a tick: fine enough for a hundred thousand requests a second at one part in a hundred.
const TICK_NS: u64 = 100;

/// Takes: a key a limit; for each its interval and window.
pub const TAKE: &str = include_str!("shared/take.lua");

/// Gives back: a key a limit; for each its interval.
pub const GIVE_BACK: &str = include_str!("shared/give_back.lua");

/// Bans of all hosts: see there what it takes and answers.
pub const BANS: &str = include_str!("shared/bans.lua");

/// What [`TAKE`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Together {
    /// It fits into all limits, in their order.
    Passes(Vec<Verdict>),
    /// It does not, and was counted under none.
    Refused {
        /// The place of the limit.
        limit: usize,
        /// Until one more would fit.
        retry_in: Duration,
    },
}

impl Quota {
    /// Interval and window, as [`TAKE`] takes them.
    pub fn ticks(&self) -> (u64, u64) {
        let interval = (self.interval().as_nanos() as u64 / TICK_NS).max(1);
        // The same burst, whatever the interval was rounded to.
        (interval, interval.saturating_mul(self.burst()))
    }
}

impl Together {
    /// Reads what [`TAKE`] answered about so many limits.
    pub fn read(numbers: &[i64], limits: usize) -> Option<Self> {
        match numbers.split_first()? {
            (0, [limit, retry_in]) => {
                let limit = usize::try_from(*limit).ok().filter(|limit| *limit < limits)?;
                Some(Self::Refused { limit, retry_in: time(*retry_in)? })
            }
            (1, verdicts) if verdicts.len() == limits * 3 => {
                let read = |verdict: &[i64]| match *verdict {
                    [turn_in, remaining, full_in] => Some(Verdict::Passes {
                        turn_in: time(turn_in)?,
                        remaining: u64::try_from(remaining).ok()?,
                        full_in: time(full_in)?,
                    }),
                    _ => None,
                };
                verdicts.chunks_exact(3).map(read).collect::<Option<_>>().map(Self::Passes)
            }
            _ => None,
        }
    }
}

fn time(ticks: i64) -> Option<Duration> {
    Some(Duration::from_nanos(u64::try_from(ticks).ok()?.saturating_mul(TICK_NS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_the_burst() {
        #[track_caller]
        fn check(count: u64, seconds: u64, burst: u64, ticks: (u64, u64)) {
            assert_eq!(Quota::new(count, Duration::from_secs(seconds), burst).ticks(), ticks);
        }
        check(10, 1, 10, (1_000_000, 10_000_000));
        check(3, 1, 3, (3_333_333, 9_999_999));
        check(1_000_000_000, 1, 5, (1, 5));
        // The longest window there is stays whole in a double.
        let (_, window) = Quota::new(1, Duration::from_secs(366 * 24 * 3600), 1_000_000).ticks();
        assert!(window < 1 << 53);
    }

    #[test]
    fn answers_that_mean_nothing_are_none() {
        let ns = Duration::from_nanos;
        let passes = Verdict::Passes { turn_in: ns(0), remaining: 4, full_in: ns(1000) };
        assert_eq!(Together::read(&[1, 0, 4, 10], 1), Some(Together::Passes(vec![passes])));
        assert_eq!(Together::read(&[0, 1, 7], 2), Some(Together::Refused { limit: 1, retry_in: ns(700) }));
        for (numbers, limits) in [
            (&[][..], 1),
            (&[1], 1),
            (&[1, 0, 4], 1),
            (&[1, 0, 4, 10], 2),
            (&[0, 2, 7], 2),
            (&[0, -1, 7], 2),
            (&[0, 1, -7], 2),
            (&[1, 0, -4, 10], 1),
            (&[2, 0, 0], 1),
            (&[i64::MIN], 0),
        ] {
            assert_eq!(Together::read(numbers, limits), None, "{numbers:?}");
        }
    }
}
