//! What happens to the seeded world: losses, wishes of its operators, crowds of visitors.

use std::time::Duration;

use ctl_admin::words::{Change, Command, FromGateway, LoadReport, PoolLoad};

use crate::event::{Event, Exit};
use crate::state::reload::Reload;

use super::world::{Later, World};

impl World {
    /// What is wanted in the pools of apps that are being reloaded.
    fn reloading_staff(&self) -> Vec<Option<u32>> {
        let pools = self.settings.pools.iter().zip(self.state.staff());
        pools.map(|(pool, wanted)| self.state.reloads(usize::from(pool.module)).then_some(wanted)).collect()
    }

    pub(super) fn kill_workers(&mut self) {
        let workers: Vec<u32> = self.workers.keys().copied().collect();
        for worker in workers {
            self.happen(Later::WorkerEnds(worker, Exit::Signal(9)));
        }
    }

    /// One thing that nobody wished for, or somebody did.
    pub(super) fn strike(&mut self) {
        let workers: Vec<u32> = self.workers.keys().copied().collect();
        let pick = (!workers.is_empty()).then(|| workers[self.dice.next() as usize % workers.len()]);
        match (self.dice.next() % 12, pick) {
            (0 | 1, Some(worker)) => self.happen(Later::WorkerEnds(worker, Exit::Signal(9))),
            (2, Some(worker)) if self.gateway.is_some_and(|(_, ready)| ready) => {
                self.feed(Event::Gateway(FromGateway::WorkerStuck { worker, request_id: String::new() }));
            }
            (3, _) => {
                if let Some((number, _)) = self.gateway {
                    self.happen(Later::GatewayEnds(number, Exit::Signal(6)));
                }
            }
            (4, _) => self.feed(Event::ReloadSignal),
            (7, _) if self.dice.chance(50) => self.ask(Command::Upgrade { program: None }),
            (7, _) => self.strike_templates(),
            (8 | 9, _) if self.gateway.is_some_and(|(_, ready)| ready) => self.crowd(),
            (5 | 6, _) => {
                let module = self.dice.chance(60).then(|| format!("module{}", self.dice.next() % 4));
                self.ask(Command::Reload { module });
            }
            (10, _) => self.order(),
            _ => self.ask(Command::Status),
        }
    }

    /// Somebody wants more workers, or fewer, by command or by signal.
    fn order(&mut self) {
        let by = (self.dice.next() % 7) as i32 - 3;
        if self.dice.chance(30) {
            self.feed(Event::ScaleSignal(Change::By(by.signum())));
            return;
        }
        let change = if self.dice.chance(60) { Change::By(by) } else { Change::To(by.unsigned_abs()) };
        let pool = self.dice.chance(50).then(|| format!("pool{}", self.dice.next() % 4));
        self.ask(Command::Scale { pool, change });
        self.assert_staff_is_within_bounds();
    }

    /// What is configured bounds the load, and a pool that scales any order, too.
    fn assert_staff_is_within_bounds(&self) {
        // What is read there counts as soon as it has been read.
        if self.state.reload.as_ref().is_some_and(Reload::waits_for_config) {
            return;
        }
        for (crew, pool) in self.state.staff.iter().zip(&self.settings.pools) {
            assert!((crew.min..=crew.max).contains(&crew.wanted), "{crew:?} of {pool:?}");
            assert!(crew.min >= pool.min.min(1), "{crew:?} of {pool:?}");
            assert!(crew.max == pool.max || crew.ordered && pool.min == pool.max, "{crew:?} of {pool:?}");
        }
    }

    /// Two seconds in which somebody asks, or nobody, and everybody is told how it looks.
    fn crowd(&mut self) {
        for _ in 0..20 {
            let mut report = LoadReport::default();
            for _ in 0..self.settings.pools.len() {
                self.busy_us += self.dice.next() % 400_000;
                let waiting = if self.dice.chance(40) { (self.dice.next() % 50) as u32 } else { 0 };
                report.pools.push(PoolLoad {
                    busy: (self.dice.next() % 8) as u32,
                    waiting,
                    head_wait_us: u64::from(waiting) * (self.dice.next() % 40_000),
                    busy_us_total: self.busy_us,
                    served_total: self.busy_us / 10_000,
                    service_p50_us: 10_000,
                    ..PoolLoad::default()
                });
            }
            let load = FromGateway::Load(Box::new(report));
            self.after(Duration::ZERO, Later::Event(Event::Gateway(load)));
            let pool = (self.dice.next() % 4) as u16;
            self.after(Duration::ZERO, Later::Event(Event::Gateway(FromGateway::PoolWanted { pool })));
            // The same one, and as far as before: what is configured may be another number.
            let reload =
                |world: &Self| Some((world.state.reload.as_ref()?.began, world.state.last_generation));
            let before = (reload(self), self.reloading_staff());
            self.run(Duration::from_millis(100));
            if self.end.is_some() {
                return;
            }
            if before.0.is_some() && reload(self) == before.0 {
                let (before, now) = (before.1, self.reloading_staff());
                assert!(
                    now.iter().zip(&before).all(|(now, before)| now.is_none() || now >= before),
                    "a reload takes nobody away"
                );
            }
            self.assert_staff_is_within_bounds();
        }
    }
}
