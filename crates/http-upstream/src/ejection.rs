//! Who is taken out after failures, for how long, and the one request that brings it back.
//!
//! ```text
//!       failures in a row            time is over               it succeeds
//! In ─────────────────────► Out ──────────────────► Probation ─────────────► In
//!                            ▲                          │
//!                            └──────────────────────────┘ it fails: for twice as long
//! ```

use std::time::{Duration, Instant};

use crate::terms::Terms;

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    In,
    Out {
        until: Instant,
    },
    /// One request at a time, until one succeeds.
    Probation {
        /// It is on its way.
        probing: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ejection {
    place: Place,
    /// Failures in a row.
    failures: u32,
    /// Answers in a row that began well and broke off. They are counted apart: the beginning of each ends the row of failures.
    broken: u32,
    /// The last time out: how long, and when it ended.
    last: Option<(Duration, Instant)>,
    /// Times out.
    pub(crate) count: u64,
}

impl Ejection {
    pub(crate) fn new() -> Self {
        Self { place: Place::In, failures: 0, broken: 0, last: None, count: 0 }
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn is_out(&self) -> bool {
        matches!(self.place, Place::Out { .. })
    }

    /// `true`: its time is over, and it is on probation now.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        let over = matches!(self.place, Place::Out { until } if until <= now);
        if over {
            self.place = Place::Probation { probing: false };
        }
        over
    }

    /// It gets a request; `true`: by that one it is judged.
    pub(crate) fn picked(&mut self) -> bool {
        if let Place::Probation { probing } = &mut self.place {
            *probing = true;
        }
        self.place != Place::In
    }

    /// That request is over, one way or another.
    pub(crate) fn probed(&mut self) {
        if let Place::Probation { probing } = &mut self.place {
            *probing = false;
        }
    }

    /// `true`: it is back. What was sent before it was taken out proves nothing.
    pub(crate) fn succeeded(&mut self, probe: bool, now: Instant) -> bool {
        let back = probe && self.place != Place::In;
        if back {
            self.place = Place::In;
            if let Some((_, ended)) = &mut self.last {
                *ended = now;
            }
        }
        if self.place == Place::In {
            self.failures = 0;
        }
        back
    }

    /// How long it is taken out now; `None`: it is not. `may_go`: the group can do without it.
    pub(crate) fn failed(
        &mut self,
        probe: bool,
        may_go: bool,
        terms: &Terms,
        now: Instant,
    ) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let enough = match self.place {
            Place::In => self.failures >= terms.eject_after,
            Place::Out { .. } => false,
            Place::Probation { .. } => probe,
        };
        (enough && may_go).then(|| self.rest(terms, now))
    }

    /// An answer came to its end.
    pub(crate) fn was_whole(&mut self) {
        self.broken = 0;
    }

    /// One that had begun well did not. How long it is taken out now; `None`: it is not.
    pub(crate) fn broke_off(&mut self, may_go: bool, terms: &Terms, now: Instant) -> Option<Duration> {
        self.broken = self.broken.saturating_add(1);
        if self.place != Place::In || self.broken < terms.eject_after || !may_go {
            return None;
        }
        // When it is back, the next one decides.
        self.broken = terms.eject_after - 1;
        Some(self.rest(terms, now))
    }

    fn rest(&mut self, terms: &Terms, now: Instant) -> Duration {
        let time = match self.last {
            // Who has been well for longer than it was out begins anew.
            Some((last, ended))
                if self.place != Place::In || now.saturating_duration_since(ended) <= last =>
            {
                last.saturating_mul(2).min(terms.eject_time_max.max(terms.eject_time))
            }
            _ => terms.eject_time,
        };
        let until = now + time;
        (self.place, self.last) = (Place::Out { until }, Some((time, until)));
        self.count += 1;
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_break_off_count_though_they_began_well() {
        let (mut it, terms, now) = (Ejection::new(), terms(), Instant::now());
        let begin_and_break = |it: &mut Ejection, now| {
            it.succeeded(true, now);
            it.broke_off(true, &terms, now)
        };
        assert_eq!(begin_and_break(&mut it, now), None);
        assert_eq!(begin_and_break(&mut it, now), None);
        it.was_whole();
        assert_eq!(begin_and_break(&mut it, now), None);
        assert_eq!(begin_and_break(&mut it, now), None);
        assert_eq!(it.broke_off(false, &terms, now), None, "the group cannot do without it");
        assert_eq!(begin_and_break(&mut it, now), Some(10 * S));
        assert_eq!(it.broke_off(true, &terms, now), None, "it was on its way");
        let now = now + 10 * S;
        assert!(it.tick(now) && it.picked());
        assert_eq!(begin_and_break(&mut it, now), Some(20 * S), "the first one after its rest decides");
    }

    const S: Duration = Duration::from_secs(1);

    fn terms() -> Terms {
        Terms { eject_after: 3, eject_time: 10 * S, eject_time_max: 30 * S, ..Terms::default() }
    }

    #[test]
    fn out_for_longer_each_time_and_back_by_one_request() {
        let (mut it, terms, mut now) = (Ejection::new(), terms(), Instant::now());
        assert_eq!(it.failed(false, true, &terms, now), None);
        assert_eq!(it.failed(false, true, &terms, now), None);
        assert!(!it.succeeded(false, now), "not three in a row");
        assert_eq!(it.failed(false, true, &terms, now), None);
        assert_eq!(it.failed(false, true, &terms, now), None);
        assert_eq!(it.failed(false, false, &terms, now), None, "the group cannot do without it");
        assert_eq!(it.failed(false, true, &terms, now), Some(10 * S));
        assert_eq!(it.failed(false, true, &terms, now), None, "it was on its way");
        assert!(!it.succeeded(false, now) && it.is_out(), "so was this");
        for time in [20, 30, 30] {
            let Place::Out { until } = it.place() else { panic!("{it:?}") };
            assert!(!it.tick(now));
            now = until;
            assert!(it.tick(now) && !it.tick(now));
            assert_eq!(it.failed(false, true, &terms, now), None, "sent before it was taken out");
            assert!(it.picked());
            assert_eq!(it.place(), Place::Probation { probing: true });
            assert_eq!(it.failed(true, true, &terms, now), Some(time * S));
        }
        assert!(it.tick(now + 30 * S));
        assert!(it.picked() && it.succeeded(true, now + 30 * S) && !it.picked());
        now += 50 * S;
        let fail = |it: &mut Ejection, now| (0..3).find_map(|_| it.failed(false, true, &terms, now));
        assert_eq!(fail(&mut it, now), Some(30 * S), "it was well for less time than it was out");
        now += 30 * S;
        assert!(it.tick(now) && it.succeeded(true, now));
        assert_eq!(fail(&mut it, now + 31 * S), Some(10 * S), "for more");
        assert_eq!(it.count, 6);
    }
}
