//! A bucket of bytes that fills at a steady rate. Pure: the clock is an argument.
//!
//! Kept as the moment at which it will be full, as the generic cell rate algorithm does: nothing to do while nobody asks, and no sum
//! that drifts.

use std::time::Duration;

use super::Bandwidth;

/// A second has so many steps: few enough wake-ups to cost nothing, and no pause that anybody would see.
const STEPS_PER_SECOND: u64 = 16;

/// Less at a time is mostly headers of packets.
const STEP_BYTES_MIN: u64 = 1024;

/// More at a time would hold the other connections of a reactor up.
const STEP_BYTES_MAX: u64 = 1 << 20;

/// What a bucket says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// So many bytes may go: they are taken.
    Now(u64),
    /// Ask again after this time.
    In(Duration),
}

/// See above.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes a second, not 0.
    rate: u64,
    /// What it holds when it is full.
    capacity: u64,
    /// What is worth a write.
    step: u64,
    /// When it will be full, if nobody takes anything, in nanoseconds.
    full_at: u128,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(bandwidth: Bandwidth) -> Self {
        let rate = bandwidth.rate.max(1);
        let step = (rate / STEPS_PER_SECOND).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        Self { rate, capacity: bandwidth.after.max(step), step, full_at: 0 }
    }

    /// Takes up to `wanted` bytes, once there are as many, or enough for a step.
    pub(super) fn take(&mut self, wanted: u64, now: Duration) -> Answer {
        let now = now.as_nanos();
        let missing = self.full_at.saturating_sub(now);
        let owed = self.bytes_up(missing);
        let there = self.capacity.saturating_sub(owed);
        let least = wanted.min(self.step);
        if there < least {
            // As long as it takes until no more than this is missing.
            let wait = missing.saturating_sub(self.time(self.capacity - least));
            return Answer::In(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX).max(1)));
        }
        let bytes = wanted.min(there);
        self.full_at = self.full_at.max(now) + self.time_up(bytes);
        Answer::Now(bytes)
    }

    /// What comes in this time, rounded up: what is not quite there is not there.
    fn bytes_up(&self, nanos: u128) -> u64 {
        let bytes = (nanos * u128::from(self.rate)).div_ceil(NANOS);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// The time in which so many bytes come, rounded down.
    fn time(&self, bytes: u64) -> u128 {
        u128::from(bytes) * NANOS / u128::from(self.rate)
    }

    /// The same rounded up: nobody gains by asking often.
    fn time_up(&self, bytes: u64) -> u128 {
        (u128::from(bytes) * NANOS).div_ceil(u128::from(self.rate))
    }
}

const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(rate: u64, after: u64) -> Bucket {
        Bucket::new(Bandwidth { rate, after })
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn first_what_is_there_and_then_the_rate() {
        let mut bucket = bucket(160_000, 50_000);
        assert_eq!(bucket.take(1_000_000, ms(0)), Answer::Now(50_000));
        // A step is a sixteenth of a second.
        assert_eq!(bucket.take(1_000_000, ms(0)), Answer::In(Duration::from_micros(62_500)));
        assert_eq!(bucket.take(1_000_000, ms(62)), Answer::In(Duration::from_micros(500)));
        assert_eq!(bucket.take(1_000_000, ms(63)), Answer::Now(10_080));
        // What is left to send may be less than a step.
        assert_eq!(bucket.take(160, ms(63)), Answer::In(ms(1)));
        assert_eq!(bucket.take(160, ms(64)), Answer::Now(160));
        // It fills again, up to what it holds.
        assert_eq!(bucket.take(1_000_000, ms(60_000)), Answer::Now(50_000));
    }

    #[test]
    fn the_slowest_and_the_fastest() {
        let mut slow = bucket(1024, 0);
        assert_eq!(slow.take(10_000, ms(0)), Answer::Now(1024));
        assert_eq!(slow.take(10_000, ms(0)), Answer::In(ms(1000)));
        let mut fast = bucket(1 << 40, 1 << 40);
        assert_eq!(fast.take(u64::MAX, ms(0)), Answer::Now(1 << 40));
        assert_eq!(fast.take(u64::MAX, Duration::MAX), Answer::Now(1 << 40));
    }

    proptest! {
        /// Whoever asks, however often and however much: never more than what it holds and what came since. Who waits as long as he
        /// was told is not sent away again.
        #[test]
        fn never_more_than_the_rate(
            rate in 1024_u64..10_000_000_000,
            after in 0_u64..10_000_000,
            steps in prop::collection::vec((0_u64..2_000_000_000, 1_u64..5_000_000), 1..200),
        ) {
            let mut bucket = bucket(rate, after);
            let (capacity, step) = (bucket.capacity, bucket.step);
            let (mut now, mut sent) = (Duration::ZERO, 0_u128);
            for (pause, wanted) in steps {
                now += Duration::from_nanos(pause);
                if let Answer::In(time) = bucket.take(wanted, now) {
                    now += time;
                    let Answer::Now(bytes) = bucket.take(wanted, now) else { panic!("sent away again") };
                    prop_assert!(bytes >= wanted.min(step) && bytes <= wanted);
                    sent += u128::from(bytes);
                }
                // All that is left.
                while let Answer::Now(bytes) = bucket.take(u64::MAX, now) {
                    sent += u128::from(bytes);
                }
                let came = now.as_nanos() * u128::from(rate) / NANOS;
                prop_assert!(sent <= u128::from(capacity) + came);
            }
        }

        /// Who always asks gets all of it.
        #[test]
        fn a_download_takes_as_long_as_it_must(
            rate in 1024_u64..10_000_000_000,
            after in 0_u64..1_000_000,
            size in 1_u64..100_000_000,
        ) {
            let mut bucket = bucket(rate, after);
            let (mut now, mut left, mut waits) = (Duration::ZERO, size, 0_u64);
            while left > 0 {
                match bucket.take(left, now) {
                    Answer::Now(bytes) => left -= bytes,
                    Answer::In(time) => {
                        now += time;
                        waits += 1;
                    }
                }
                if waits > 2000 {
                    break;
                }
            }
            let sent = size - left;
            let expected = sent.saturating_sub(bucket.capacity) as f64 / rate as f64;
            let took = now.as_secs_f64();
            let step = bucket.step as f64 / rate as f64;
            prop_assert!(took >= expected - 1e-6, "{took} {expected}");
            prop_assert!(took <= expected + step + 1e-3, "{took} {expected}");
            // Few wake-ups: a step each.
            prop_assert!(waits <= sent / bucket.step + 2);
        }
    }
}
