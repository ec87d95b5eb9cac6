//! How many requests may be sent again: a share of all, so that servers which fail under load are not buried by repetitions.

use std::time::{Duration, Instant};

use crate::terms::Terms;

/// What is saved up is worth so many seconds of requests or of time. Finagle's.
const RESERVE: Duration = Duration::from_secs(10);

/// A repetition in tokens: so many that the share of one request and of one millisecond are whole numbers.
const ONE: u64 = 100_000;

/// A bucket of tokens.
#[derive(Debug)]
pub(crate) struct Budget {
    tokens: u64,
    per_request: u64,
    per_ms: u64,
    max: u64,
    at: Instant,
}

impl Budget {
    pub(crate) fn new(terms: &Terms, now: Instant) -> Self {
        let per_ms = u64::from(terms.retries_per_second) * ONE / 1000;
        // From time alone, and at least as much as a hundred requests earn.
        let per_request = u64::from(terms.retry_percent) * ONE / 100;
        let max = (per_ms * RESERVE.as_millis() as u64).max(per_request * 100);
        Self { tokens: max, per_request, per_ms, max, at: now }
    }

    fn earn(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens).min(self.max);
    }

    /// A request is sent for the first time.
    pub(crate) fn request(&mut self) {
        self.earn(self.per_request);
    }

    /// May one be sent again? Then it counts.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).min(RESERVE).as_millis() as u64;
        if passed > 0 {
            self.at = now;
            self.earn(passed * self.per_ms);
        }
        let enough = self.tokens >= ONE;
        if enough {
            self.tokens -= ONE;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn takes(budget: &mut Budget, now: Instant, times: u32) -> u32 {
        (0..times).map(|_| u32::from(budget.take(now))).sum()
    }

    #[test]
    fn a_share_of_the_requests_and_some_by_time() {
        let start = Instant::now();
        let terms = Terms { retry_percent: 20, retries_per_second: 2, ..Terms::default() };
        let mut budget = Budget::new(&terms, start);
        assert_eq!(takes(&mut budget, start, 100), 20, "what was saved");
        for _ in 0..50 {
            budget.request();
        }
        assert_eq!(takes(&mut budget, start, 100), 10, "a fifth");
        assert_eq!(takes(&mut budget, start + Duration::from_secs(3), 100), 6);
        assert_eq!(takes(&mut budget, start, 100), 0, "a moment in the past is now");
        assert_eq!(takes(&mut budget, start + Duration::from_secs(3600), 100), 20);
        let none = Terms { retry_percent: 0, retries_per_second: 0, ..Terms::default() };
        assert_eq!(takes(&mut Budget::new(&none, start), start + Duration::from_secs(3600), 100), 0);
    }

    proptest! {
        /// However requests and repetitions are mixed: in any run no more than the reserve, the share and the time allow.
        #[test]
        fn the_budget_holds(
            percent in 0_u32..200,
            per_second in 0_u32..50,
            steps in prop::collection::vec((0_u64..500, any::<bool>()), 1..400),
        ) {
            let mut now = Instant::now();
            let start = now;
            let terms = Terms { retry_percent: percent, retries_per_second: per_second, ..Terms::default() };
            let mut budget = Budget::new(&terms, now);
            let (mut first, mut again) = (0_u64, 0_u64);
            for (ms, retry) in steps {
                now += Duration::from_millis(ms);
                if retry {
                    again += u64::from(budget.take(now));
                } else {
                    budget.request();
                    first += 1;
                }
                let reserve = (u64::from(per_second) * 10).max(u64::from(percent));
                let time = now.duration_since(start).as_millis() as u64 * u64::from(per_second) / 1000;
                prop_assert!(again <= reserve + first * u64::from(percent) / 100 + time + 1);
            }
        }
    }
}
