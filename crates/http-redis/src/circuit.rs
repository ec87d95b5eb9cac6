//! When a server is left alone, and when it is asked again.
//!
//! One that answers is asked. One that has failed a few times in a row, or whose connection broke, is *away*: no request asks
//! it until a probe of ours, which no request waits for, was answered in time. Probes come rarer the longer it stays away, and
//! one that comes and goes is trusted a little later each time.

use std::time::Duration;

/// How patient a circuit is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Failures in a row until it is away.
    pub failures_max: u32,
    /// Until the first probe.
    pub probe_first: Duration,
    /// Between probes at most; they double up to it.
    pub probe_max: Duration,
    /// Who has been there for so long is trusted as at the beginning.
    pub trusted_after: Duration,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Too late, or refused: it may be a single hiccup.
    Soft,
    /// There is no connection.
    Hard,
}

/// The state. Times are those of a clock that never jumps.
#[derive(Debug)]
pub struct Circuit {
    patience: Patience,
    failures: u32,
    /// Between the next two probes.
    pause: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    There { since: Duration },
    Away { since: Duration, probe_at: Duration },
}

impl Circuit {
    /// Nobody is there before the first probe was answered.
    pub fn new(patience: Patience, now: Duration) -> Self {
        let state = State::Away { since: now, probe_at: now };
        Self { patience, failures: 0, pause: patience.probe_first, state }
    }

    /// May it be asked?
    pub fn is_there(&self) -> bool {
        matches!(self.state, State::There { .. })
    }

    /// For how long it has been away.
    pub fn away_for(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::There { .. } => None,
            State::Away { since, .. } => Some(now.saturating_sub(since)),
        }
    }

    /// Until the next probe; `None`: it is there.
    pub fn probe_in(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::There { .. } => None,
            State::Away { probe_at, .. } => Some(probe_at.saturating_sub(now)),
        }
    }

    /// An answer came in time.
    pub fn answered(&mut self) {
        self.failures = 0;
    }

    /// None came. Is it away since this moment?
    pub fn failed(&mut self, failure: Failure, now: Duration) -> bool {
        let State::There { since } = self.state else { return false };
        self.failures += 1;
        if failure == Failure::Soft && self.failures < self.patience.failures_max {
            return false;
        }
        if now.saturating_sub(since) >= self.patience.trusted_after {
            self.pause = self.patience.probe_first;
        }
        self.failures = 0;
        self.state = State::Away { since: now, probe_at: now + self.pause };
        self.pause = (self.pause * 2).min(self.patience.probe_max);
        true
    }

    /// A probe was answered in time, or not. Is it back since this moment?
    pub fn probed(&mut self, in_time: bool, now: Duration) -> bool {
        let State::Away { since, .. } = self.state else { return false };
        if in_time {
            self.state = State::There { since: now };
        } else {
            self.state = State::Away { since, probe_at: now + self.pause };
            self.pause = (self.pause * 2).min(self.patience.probe_max);
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { failures_max: 3, probe_first: ms(100), probe_max: ms(1000), trusted_after: ms(10_000) };

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn there() -> Circuit {
        let mut circuit = Circuit::new(PATIENCE, ms(0));
        assert!(!circuit.is_there());
        assert_eq!(circuit.probe_in(ms(0)), Some(ms(0)));
        assert!(circuit.probed(true, ms(0)));
        circuit
    }

    #[test]
    fn single_failures_are_borne() {
        let mut circuit = there();
        for _ in 0..10 {
            assert!(!circuit.failed(Failure::Soft, ms(1)));
            assert!(!circuit.failed(Failure::Soft, ms(1)));
            circuit.answered();
        }
        assert!(circuit.is_there());
        assert!(!circuit.failed(Failure::Soft, ms(1)));
        assert!(!circuit.failed(Failure::Soft, ms(1)));
        assert!(circuit.failed(Failure::Soft, ms(1)), "the third in a row");
        assert!(!circuit.failed(Failure::Soft, ms(1)), "told once");
        assert_eq!(circuit.away_for(ms(7)), Some(ms(6)));
    }

    #[test]
    fn probes_come_rarer_and_trust_comes_back() {
        let mut circuit = there();
        assert!(circuit.failed(Failure::Hard, ms(50)));
        let mut now = ms(50);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let pause = circuit.probe_in(now).unwrap();
            pauses.push(pause.as_millis());
            now += pause;
            assert!(!circuit.probed(false, now));
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert!(circuit.probed(true, now));
        assert!(!circuit.probed(true, now), "told once");
        assert!(circuit.failed(Failure::Hard, now + ms(9_999)));
        assert_eq!(circuit.probe_in(now + ms(9_999)), Some(ms(1000)), "it comes and goes");
        now += ms(10_000);
        assert!(circuit.probed(true, now));
        assert!(circuit.failed(Failure::Hard, now + ms(10_000)));
        assert_eq!(circuit.probe_in(now + ms(10_000)), Some(ms(100)), "it was there for long");
    }
}
