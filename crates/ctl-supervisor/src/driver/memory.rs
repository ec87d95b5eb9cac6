//! Looks at the workers' memory, one worker at a time: the kernel walks its page tables for it, which takes a millisecond
//! and more for a large process.

use std::time::{Duration, Instant};

use crate::proc;

/// Each worker is looked at this often. A leak takes minutes to matter; the looks cost less than a thousandth of a core.
const ROUND: Duration = Duration::from_secs(5);

/// Whose turn it is, and when.
#[derive(Debug)]
pub(super) struct Scales {
    next: Instant,
    /// The worker that was looked at last.
    last: u32,
}

impl Scales {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now + ROUND, last: 0 }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.next
    }

    /// The next worker's number and proportional memory in bytes, when it is time. `workers`: numbers, in order, and
    /// process ids.
    pub(super) fn weigh(&mut self, workers: &[(u32, u32)], now: Instant) -> Option<(u32, u64)> {
        if now < self.next {
            return None;
        }
        let count = u32::try_from(workers.len()).unwrap_or(u32::MAX).max(1);
        self.next = now + ROUND / count;
        let (number, pid) = workers.iter().find(|(number, _)| *number > self.last).or(workers.first())?;
        self.last = *number;
        Some((*number, proc::memory_bytes(*pid)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_their_turn_in_a_round() {
        let own = std::process::id();
        let mut now = Instant::now();
        let mut scales = Scales::new(now);
        assert_eq!(scales.weigh(&[(3, own)], now), None, "too early");
        let mut turns = Vec::new();
        for _ in 0..4 {
            now = scales.deadline();
            scales.weigh(&[(3, own), (7, own)], now);
            turns.push(scales.last);
        }
        assert_eq!(turns, [3, 7, 3, 7]);
        assert_eq!(scales.deadline() - now, ROUND / 2);
    }

    #[test]
    fn nobody_to_weigh_is_no_reason_to_hurry() {
        let now = Instant::now();
        let mut scales = Scales::new(now);
        let later = now + ROUND;
        assert_eq!(scales.weigh(&[], later), None);
        assert_eq!(scales.deadline(), later + ROUND);
    }
}
