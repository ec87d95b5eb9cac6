//! When the supervisor is told what the queues look like: every [`LOAD_EVERY`] while something happens, seldom while nothing does.

use ctl_admin::words::{LOAD_EVERY, LoadReport, PoolLoad, WorkerLoad};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::link::long::LongLinks;
use crate::pools::Pools;

/// Of the reports of an idle site one in so many is sent: once a second, which is often enough for going down.
const IDLE_EVERY: u32 = 10;

/// The clock of the reports.
pub(super) struct Reports {
    ticks: Interval,
    last: LoadReport,
    /// Reports that were not sent, since nothing had changed.
    skipped: u32,
}

impl Reports {
    pub(super) fn new() -> Self {
        let mut ticks = interval(LOAD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, last: LoadReport::default(), skipped: 0 }
    }

    /// The next report that is worth sending. Cancel safe.
    pub(super) async fn due(&mut self, pools: &Pools, links: &LongLinks) -> LoadReport {
        loop {
            self.ticks.tick().await;
            if let Some(report) = self.worth(look(pools, links)) {
                return report;
            }
        }
    }

    /// The report, unless it says what the one before said.
    fn worth(&mut self, report: LoadReport) -> Option<LoadReport> {
        let is_idle = |pool: &PoolLoad| pool.busy == 0 && pool.waiting == 0;
        if report == self.last && report.pools.iter().all(is_idle) && self.skipped + 1 < IDLE_EVERY {
            self.skipped += 1;
            return None;
        }
        self.skipped = 0;
        self.last.clone_from(&report);
        Some(report)
    }
}

/// The queues, and what lasts beside them.
fn look(pools: &Pools, links: &LongLinks) -> LoadReport {
    let mut report = pools.load();
    for (worker, open) in links.loads() {
        let long_lived = u32::try_from(open).unwrap_or(u32::MAX);
        match report.workers.iter_mut().find(|row| row.worker == worker) {
            Some(row) => row.long_lived = long_lived,
            None => report.workers.push(WorkerLoad { worker, long_lived, ..WorkerLoad::default() }),
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_idle_site_says_so_once_a_second() {
        let mut reports = Reports::new();
        let idle =
            LoadReport { pools: vec![PoolLoad { slots: 4, ..PoolLoad::default() }], workers: Vec::new() };
        let sent = (0..40).filter(|_| reports.worth(idle.clone()).is_some()).count();
        assert_eq!(sent, 4);
        let mut busy = idle.clone();
        busy.pools[0].busy = 1;
        let sent = (0..40).filter(|_| reports.worth(busy.clone()).is_some()).count();
        assert_eq!(sent, 40, "a request that lasts counts on");
    }
}
