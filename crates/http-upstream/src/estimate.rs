//! How long a server takes, and how often it fails: the latest, fading.
//!
//! Peak-EWMA, as in Finagle: a time that is longer than the estimate replaces it at once, a shorter one pulls it down slowly. What
//! is not confirmed fades, so that a server which was slow is asked again some day.

use std::time::{Duration, Instant};

/// What was seen so long ago counts a third (1/e). Finagle's.
const MEMORY: Duration = Duration::from_secs(10);

/// The share of one outcome in the estimate of failures.
const STEP: f64 = 0.1;

/// How much a server that always fails seems to cost more than one that never does. Failures are quick: without a price they
/// would draw all requests to where they happen. The square below makes one of them a matter of seconds.
const PENALTY_MAX: f64 = 1000.0;

/// What is known of a server. Nothing: it costs nothing, and is tried soon.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Estimate {
    seconds: f64,
    /// 0 to 1.
    failing: f64,
    at: Option<Instant>,
}

/// What a request seems to cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// Seconds.
    pub(crate) latency: f64,
    /// Times that; 1: it does not fail.
    pub(crate) penalty: f64,
}

impl Estimate {
    /// Of a server of which nothing is known but how the others are.
    pub(crate) fn like(seconds: f64, now: Instant) -> Self {
        Self { seconds, failing: 0.0, at: Some(now) }
    }

    /// How much of the estimate is left.
    fn left(&self, now: Instant) -> f64 {
        let age = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }

    pub(crate) fn cost(&self, now: Instant) -> Cost {
        let left = self.left(now);
        let failing = self.failing * left;
        Cost { latency: self.seconds * left, penalty: 1.0 + PENALTY_MAX * failing * failing }
    }

    /// Do its failures still count?
    pub(crate) fn is_failing(&self, now: Instant) -> bool {
        self.cost(now).penalty > 2.0
    }

    /// Is the latest outcome no older?
    pub(crate) fn was_heard_within(&self, time: Duration, now: Instant) -> bool {
        self.at.is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    pub(crate) fn answered(&mut self, latency: Duration, now: Instant) {
        let (left, sample) = (self.left(now), latency.as_secs_f64());
        let faded = self.seconds * left;
        self.seconds = if sample > faded { sample } else { faded + sample * (1.0 - left) };
        self.failing *= left * (1.0 - STEP);
        self.at = Some(now);
    }

    /// How quickly it failed is no merit; how slowly is a fault.
    pub(crate) fn failed(&mut self, latency: Duration, now: Instant) {
        let left = self.left(now);
        self.seconds = (self.seconds * left).max(latency.as_secs_f64());
        let failing = self.failing * left;
        self.failing = failing + STEP * (1.0 - failing);
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn latency_ms(estimate: &Estimate, now: Instant) -> f64 {
        (estimate.cost(now).latency * 1e3).round()
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let start = Instant::now();
        let mut estimate = Estimate::default();
        estimate.answered(20 * MS, start);
        assert!((latency_ms(&estimate, start) - 20.0).abs() < 0.1);
        estimate.answered(200 * MS, start + MS);
        assert!((latency_ms(&estimate, start + MS) - 200.0).abs() < 0.1);
        estimate.answered(20 * MS, start + 2 * MS);
        assert!(latency_ms(&estimate, start + 2 * MS) > 198.0, "one quick answer is no proof");
        let mut now = start;
        for _ in 0..600 {
            now += 100 * MS;
            estimate.answered(20 * MS, now);
        }
        assert!(latency_ms(&estimate, now) < 22.0, "many are");
        assert!(latency_ms(&estimate, now + Duration::from_secs(60)) < 1.0, "what is old is not known");
        assert!(latency_ms(&estimate, start) < 22.0, "a moment in the past is now");
    }

    #[test]
    fn quick_failures_are_dear() {
        let start = Instant::now();
        let mut estimate = Estimate::default();
        estimate.answered(20 * MS, start);
        assert!((estimate.cost(start).penalty - 1.0).abs() < f64::EPSILON);
        let mut penalties = Vec::new();
        for _ in 0..5 {
            estimate.failed(MS, start);
            penalties.push(estimate.cost(start).penalty);
        }
        assert!(penalties[0] > 10.0 && penalties[4] > 150.0, "{penalties:?}");
        assert!((latency_ms(&estimate, start) - 20.0).abs() < 0.1, "they do not make it look quick");
        assert!(estimate.cost(start + Duration::from_secs(40)).penalty < 2.0, "it is tried again");
        for _ in 0..40 {
            estimate.answered(20 * MS, start);
        }
        assert!(estimate.cost(start).penalty < 2.0, "answers make up for it");
        estimate.failed(Duration::from_secs(5), start);
        assert!((latency_ms(&estimate, start) - 5000.0).abs() < 0.1);
    }
}
