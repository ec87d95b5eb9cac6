//! Which workers have retired: queues and long links remember it, since a process that is on its way out may connect again until
//! it is gone. Pure.

use std::collections::BTreeSet;

/// Twice as many as there can be processes; numbers are never used again, so the lowest are the oldest.
const REMEMBERED_MAX: usize = 2048;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Retired(BTreeSet<u32>);

impl Retired {
    /// The worker retires.
    pub(crate) fn insert(&mut self, worker: u32) {
        self.0.insert(worker);
        if self.0.len() > REMEMBERED_MAX {
            self.0.pop_first();
        }
    }

    /// Has the worker retired?
    pub(crate) fn contains(&self, worker: u32) -> bool {
        self.0.contains(&worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let mut retired = Retired::default();
        for worker in 1..=REMEMBERED_MAX as u32 + 1 {
            retired.insert(worker);
        }
        assert!(!retired.contains(1) && retired.contains(2) && retired.contains(REMEMBERED_MAX as u32 + 1));
    }
}
