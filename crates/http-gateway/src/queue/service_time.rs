//! How long requests take in their slots, lately: a small histogram that forgets. Pure.

use std::time::Duration;

/// Each doubling of the time in so many steps: a median that is right to a fifth.
const STEPS: usize = 4;
/// The first bucket ends here; what is quicker is as good as instant.
const FIRST_US: u64 = 64;
/// Doublings up to 64 µs · 2^21: two minutes.
const BUCKETS: usize = 21 * STEPS + 1;
/// At so many requests all counts are halved: so the last thousand or so decide.
const FORGET_AT: u32 = 1024;
/// The median is found anew after so many requests.
const REFRESH: u32 = 16;

/// Times of the last thousand or so requests.
#[derive(Debug, Clone)]
pub(crate) struct ServiceTime {
    counts: [u16; BUCKETS],
    total: u32,
    /// Their sum.
    sum: Duration,
    fresh: u32,
    median: Duration,
}

impl Default for ServiceTime {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0, sum: Duration::ZERO, fresh: 0, median: Duration::ZERO }
    }
}

/// The bucket of a time: its highest bit, and the two bits below it.
fn bucket(time: Duration) -> usize {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let Some(doublings) = (us / FIRST_US).checked_ilog2() else { return 0 };
    let doublings = doublings as usize;
    let step =
        (us >> (FIRST_US.ilog2() as usize + doublings - STEPS.ilog2() as usize)) as usize & (STEPS - 1);
    (1 + doublings * STEPS + step).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> Duration {
    let Some(above) = bucket.checked_sub(1) else { return Duration::from_micros(FIRST_US / 2) };
    let quarter = FIRST_US << (above / STEPS) >> STEPS.ilog2();
    let low = quarter * (STEPS + above % STEPS) as u64;
    Duration::from_micros(low + quarter / 2)
}

impl ServiceTime {
    /// One more request.
    pub(crate) fn record(&mut self, time: Duration) {
        if let Some(count) = self.counts.get_mut(bucket(time)) {
            *count = count.saturating_add(1);
            self.total += 1;
            self.sum += time;
        }
        self.fresh += 1;
        if self.fresh >= REFRESH || self.total < REFRESH {
            self.fresh = 0;
            self.median = self.find_median();
        }
        if self.total >= FORGET_AT {
            for count in &mut self.counts {
                *count /= 2;
            }
            let before = self.total;
            self.total = self.counts.iter().map(|&count| u32::from(count)).sum();
            self.sum = self.sum * self.total / before;
        }
    }

    fn find_median(&self) -> Duration {
        let mut below = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            below += u32::from(count);
            if below * 2 >= self.total {
                return middle(bucket);
            }
        }
        Duration::ZERO
    }

    /// The median; zero before the first request.
    pub(crate) fn median(&self) -> Duration {
        self.median
    }

    /// The mean; zero before the first request.
    pub(crate) fn mean(&self) -> Duration {
        self.sum.checked_div(self.total).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_near_the_middle_of_its_bucket() {
        for us in (64..120_000_000_u64).step_by(7919) {
            let time = Duration::from_micros(us);
            let near = middle(bucket(time)).as_secs_f64() / time.as_secs_f64();
            assert!((0.87..1.13).contains(&near), "{time:?} {near}");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_secs(1 << 40)), BUCKETS - 1);
    }

    #[test]
    fn the_median_follows_what_happens_lately() {
        let mut times = ServiceTime::default();
        assert_eq!(times.median(), Duration::ZERO);
        let near = |times: &ServiceTime, ms: f64| {
            let median = times.median().as_secs_f64() * 1000.0;
            assert!((median / ms - 1.0).abs() < 0.15, "{median} {ms}");
        };
        times.record(Duration::from_millis(80));
        near(&times, 80.0);
        for _ in 0..10_000 {
            times.record(Duration::from_millis(3));
            times.record(Duration::from_secs(9));
            times.record(Duration::from_millis(3));
        }
        near(&times, 3.0);
        for _ in 0..1200 {
            times.record(Duration::from_millis(200));
        }
        near(&times, 200.0);
    }
}
