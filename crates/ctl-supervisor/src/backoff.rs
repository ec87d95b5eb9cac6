//! How long to wait before a process is started again. Pure: the clock and the seed come from outside.

use std::time::{Duration, Instant};

/// Failures longer ago than this are forgotten: they belong to another incident.
const MEMORY: Duration = Duration::from_secs(60);

/// Exponential, bounded, with jitter.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
    last: Option<Instant>,
    until: Option<Instant>,
    seed: u64,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration, seed: u64) -> Self {
        Self { first, max, failures: 0, last: None, until: None, seed: seed | 1 }
    }

    /// A failure: nothing is started before what this returns has passed. Failures during a pause belong to the one
    /// that began it (all workers were killed at once, say) and make nothing worse.
    pub(crate) fn failed(&mut self, now: Instant) -> Duration {
        if let Some(until) = self.waits_until(now) {
            return until.saturating_duration_since(now);
        }
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > MEMORY) {
            self.failures = 0;
        }
        let delay = self.first.saturating_mul(1 << self.failures.min(16)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        self.last = Some(now);
        // Down to three quarters, so that hosts that failed together do not come back together.
        let delay = delay.mul_f64(1.0 - self.random() / 4.0);
        self.until = Some(now + delay);
        delay
    }

    pub(crate) fn forget(&mut self) {
        self.failures = 0;
        self.until = None;
    }

    /// The moment to wait for, if it is still to come.
    pub(crate) fn waits_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// 0 to 1, by xorshift: jitter needs no better randomness.
    fn random(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(250);
    const MAX: Duration = Duration::from_secs(15);

    #[test]
    fn it_doubles_up_to_the_bound_and_forgets_after_a_quiet_minute() {
        let mut backoff = Backoff::new(FIRST, MAX, 7);
        let mut now = Instant::now();
        let mut expected = FIRST;
        for _ in 0..40 {
            let delay = backoff.failed(now);
            assert!(
                delay <= expected && delay >= expected.mul_f64(0.75),
                "{delay:?} is not about {expected:?}"
            );
            assert_eq!(backoff.waits_until(now), Some(now + delay));
            assert_eq!(backoff.failed(now + delay / 4), delay.saturating_sub(delay / 4), "the same incident");
            expected = (expected * 2).min(MAX);
            now += delay;
        }
        let later = now + MEMORY + Duration::from_secs(1);
        assert_eq!(backoff.waits_until(later), None);
        assert!(backoff.failed(later) <= FIRST);
    }

    #[test]
    fn jitter_depends_on_the_seed() {
        let now = Instant::now();
        let delays: std::collections::HashSet<_> = (0..50_u64)
            .map(|seed| Backoff::new(FIRST, MAX, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).failed(now))
            .collect();
        assert!(delays.len() > 20, "{delays:?}");
    }
}
