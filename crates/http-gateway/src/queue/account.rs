//! What a pool's queue counts, for the load report. Pure.

use std::time::{Duration, Instant};

use ctl_admin::words::PoolLoad;

use super::service_time::ServiceTime;

/// Counts of one pool, kept under its lock.
pub(crate) struct Account {
    epoch: Instant,
    /// Slots lent now.
    lent: u32,
    /// The sum of the moments since the epoch at which they were lent: so the time of those that are out is known without
    /// a list of them.
    lent_us: u64,
    /// Time of the slots that came back.
    back_us: u64,
    arrived: u64,
    served: u64,
    shed: u64,
    wait_max: Duration,
    pub(crate) service: ServiceTime,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Account {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            lent: 0,
            lent_us: 0,
            back_us: 0,
            arrived: 0,
            served: 0,
            shed: 0,
            wait_max: Duration::ZERO,
            service: ServiceTime::default(),
        }
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.epoch))
    }

    pub(crate) fn arrived(&mut self) {
        self.arrived += 1;
    }

    pub(crate) fn shed(&mut self) {
        self.shed += 1;
    }

    /// Somebody has left the line, served or not.
    pub(crate) fn waited(&mut self, wait: Duration) {
        self.wait_max = self.wait_max.max(wait);
    }

    /// Slots lent now.
    pub(crate) fn lent(&self) -> u32 {
        self.lent
    }

    /// A slot goes out.
    pub(crate) fn lend(&mut self, now: Instant) {
        self.lent += 1;
        self.lent_us += self.since_epoch(now);
    }

    /// A slot that went out at `since` is back, or lost.
    pub(crate) fn back(&mut self, since: Instant, now: Instant) {
        let (since, now) = (self.since_epoch(since), self.since_epoch(now));
        self.lent = self.lent.saturating_sub(1);
        self.lent_us = self.lent_us.saturating_sub(since);
        self.back_us += now.saturating_sub(since);
    }

    /// How long the slots that are out have been out, on average.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let out_us = (u64::from(self.lent) * self.since_epoch(now)).saturating_sub(self.lent_us);
        Duration::from_micros(out_us / u64::from(self.lent.max(1)))
    }

    /// A request was served in that time.
    pub(crate) fn served(&mut self, time: Duration) {
        self.served += 1;
        self.service.record(time);
    }

    /// The account's part of the report.
    pub(crate) fn report(&mut self, now: Instant) -> PoolLoad {
        let now = self.since_epoch(now);
        let out_us = (u64::from(self.lent) * now).saturating_sub(self.lent_us);
        PoolLoad {
            busy: self.lent,
            arrived_total: self.arrived,
            served_total: self.served,
            shed_total: self.shed,
            busy_us_total: self.back_us + out_us,
            service_p50_us: micros(self.service.median()),
            wait_max_us: micros(std::mem::take(&mut self.wait_max)),
            ..PoolLoad::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_counts_what_is_out_as_well() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut account = Account::new(start);
        account.lend(at(100));
        account.lend(at(200));
        assert_eq!(account.report(at(300)).busy_us_total, 300_000);
        assert_eq!(account.age(at(300)), Duration::from_millis(150));
        account.back(at(100), at(400));
        account.served(Duration::from_millis(300));
        let report = account.report(at(500));
        assert_eq!((report.busy_us_total, report.busy, report.served_total), (600_000, 1, 1));
        account.back(at(200), at(500));
        assert_eq!(account.report(at(9000)).busy_us_total, 600_000);
        assert_eq!(account.age(at(9000)), Duration::ZERO);
    }
}
