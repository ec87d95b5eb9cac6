//! What a run found, as one line of JSON.

use std::time::Duration;

/// Failures by kind. A failure is counted once, for the request that met it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Errors {
    pub connect: u64,
    /// The connection was refused, reset or closed before the answer was whole.
    pub broken: u64,
    pub timeout: u64,
    /// An answer that is not 200.
    pub status: u64,
    /// Due, but no connection was free before the run had to end.
    pub unsent: u64,
}

impl Errors {
    pub fn add(&mut self, other: &Self) {
        self.connect += other.connect;
        self.broken += other.broken;
        self.timeout += other.timeout;
        self.status += other.status;
        self.unsent += other.unsent;
    }

    pub fn total(&self) -> u64 {
        self.connect + self.broken + self.timeout + self.status + self.unsent
    }
}

/// One thread's, or all threads', findings. Times are in microseconds.
#[derive(Debug, Default)]
pub struct Findings {
    pub fast: Vec<u32>,
    pub slow: Vec<u32>,
    /// Answers that came, warm-up included: what the server's CPU was spent on.
    pub answered: u64,
    pub errors: Errors,
    /// How late the generator itself was when a connection was free: its own noise.
    pub lateness: Vec<u32>,
    pub examples: Vec<String>,
}

impl Findings {
    pub fn merge(&mut self, other: Self) {
        self.fast.extend(other.fast);
        self.slow.extend(other.slow);
        self.lateness.extend(other.lateness);
        self.answered += other.answered;
        self.errors.add(&other.errors);
        self.examples.extend(other.examples);
    }

    /// Prints the line.
    pub fn print(mut self, elapsed: Duration) {
        let errors = self.errors;
        self.examples.truncate(3);
        println!(
            "{{\"seconds\": {:.4}, \"answered\": {}, \"fast\": {}, \"slow\": {}, \"lateness\": {}, \
             \"errors\": {}, \"errors_by_kind\": {{\"connect\": {}, \"broken\": {}, \"timeout\": {}, \"status\": {}, \
             \"unsent\": {}}}, \"examples\": {:?}}}",
            elapsed.as_secs_f64(),
            self.answered,
            percentiles(&mut self.fast),
            percentiles(&mut self.slow),
            percentiles(&mut self.lateness),
            errors.total(),
            errors.connect,
            errors.broken,
            errors.timeout,
            errors.status,
            errors.unsent,
            self.examples,
        );
    }
}

fn percentiles(samples: &mut [u32]) -> String {
    samples.sort_unstable();
    let at = |share: f64| {
        let rank = (share * samples.len() as f64).ceil() as usize;
        samples.get(rank.saturating_sub(1)).map_or(0.0, |us| f64::from(*us) / 1000.0)
    };
    format!(
        "{{\"count\": {}, \"p50_ms\": {:.3}, \"p90_ms\": {:.3}, \"p99_ms\": {:.3}, \"p999_ms\": {:.3}, \"max_ms\": {:.3}}}",
        samples.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}
