//! Hours of wear: an instance whose workers answer, leak and grow old, and what becomes of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ctl_admin::words::{AppReport, FromGateway, FromWorker, LoadReport, ToGateway, WorkerLoad};

use super::*;
use crate::event::{Action, Event, Exit, Pool, Settings, Who};

const MIB: u64 = 1 << 20;
const YOUNG: u64 = 50 * MIB;

/// A worker as the world has it.
struct Served {
    requests: u64,
    memory: u64,
    /// Not ready before, when it starts; gone by then, when it has retired.
    until: Instant,
    serves: bool,
    retires: bool,
}

struct World {
    state: State,
    now: Instant,
    workers: BTreeMap<u32, Served>,
    wanted: usize,
    /// Each second, each worker.
    requests: u64,
    leak: u64,
    /// When a worker began to be recycled, and its number.
    recycled: Vec<(Duration, u32)>,
    began: Instant,
    log: Vec<String>,
}

impl World {
    fn new(workers: u32, recycle: RecycleLimits) -> Self {
        let settings = Settings {
            waiting: Vec::new(),
            modules: vec!["default".to_owned()],
            pools: vec![Pool::of("default", workers, workers)],
            dev: false,
            preload: false,
            starting_max: 2,
            start_timeout: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            db_connections_max: 80,
            recycle,
        };
        let now = Instant::now();
        let mut world = Self {
            state: State::new(settings, 7, now),
            now,
            workers: BTreeMap::new(),
            wanted: workers as usize,
            requests: 0,
            leak: 0,
            recycled: Vec::new(),
            began: now,
            log: Vec::new(),
        };
        world.feed(Event::Begin);
        world.feed(Event::Gateway(FromGateway::Ready));
        world.pass(10);
        assert_eq!(world.serving(), world.wanted);
        world
    }

    fn serving(&self) -> usize {
        self.workers.values().filter(|worker| worker.serves).count()
    }

    fn feed(&mut self, event: Event) {
        for action in self.state.handle(event, self.now) {
            match action {
                Action::SpawnWorker { worker, .. } => {
                    let until = self.now + Duration::from_secs(2);
                    let new = Served { requests: 0, memory: YOUNG, until, serves: false, retires: false };
                    self.workers.insert(worker, new);
                }
                Action::TellGateway(ToGateway::Retire { workers }) => {
                    for number in workers {
                        let before = self.serving();
                        let worker = self.workers.get_mut(&number).expect("known");
                        assert!(!worker.serves || before > self.wanted, "too few are left without {number}");
                        worker.serves = false;
                        worker.retires = true;
                        worker.until = self.now + Duration::from_secs(1);
                    }
                }
                Action::TellGateway(ToGateway::WorkerEvent { event, worker }) if event == "recycled" => {
                    self.recycled.push((self.now - self.began, worker));
                }
                Action::Log(_, text) => self.log.push(text),
                Action::Kill(_) | Action::Terminate(_) => panic!("nobody needs that"),
                _ => {}
            }
        }
        let going = self.workers.values().filter(|worker| worker.retires).count();
        assert!(self.workers.len() - going <= self.wanted + 1, "one at a time");
    }

    /// Second after second.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            let due = self.workers.iter().filter(|(_, worker)| !worker.serves && worker.until <= self.now);
            let due: Vec<(u32, bool)> = due.map(|(number, worker)| (*number, worker.retires)).collect();
            for (worker, retires) in due {
                if retires {
                    self.workers.remove(&worker);
                    self.feed(Event::Exited { who: Who::Worker(worker), exit: Exit::Code(0) });
                } else {
                    self.workers.get_mut(&worker).expect("known").serves = true;
                    let said = FromWorker::Ready { app: Box::new(AppReport::default()) };
                    self.feed(Event::Worker { worker, said });
                    self.feed(Event::Gateway(FromGateway::WorkerOnline { worker }));
                }
            }
            for worker in self.workers.values_mut().filter(|worker| worker.serves) {
                worker.requests += self.requests;
                worker.memory += self.leak;
            }
            self.report();
            assert!(self.state.next_deadline(self.now).is_none_or(|due| due > self.now), "a busy loop");
        }
    }

    fn report(&mut self) {
        let loads = self.workers.iter().filter(|(_, worker)| worker.serves);
        let loads = loads.map(|(number, worker)| WorkerLoad {
            worker: *number,
            requests_total: worker.requests,
            long_lived: 0,
        });
        let load = LoadReport { pools: Vec::new(), workers: loads.collect() };
        self.feed(Event::Gateway(FromGateway::Load(Box::new(load))));
        let weights: Vec<_> = self.workers.iter().map(|(number, worker)| (*number, worker.memory)).collect();
        for (worker, bytes) in weights {
            self.feed(Event::Weighed { worker, bytes });
        }
        self.feed(Event::Tick);
    }
}

#[test]
fn without_limits_nobody_is_replaced() {
    let mut world = World::new(3, RecycleLimits::default());
    (world.requests, world.leak) = (1_000, 10 * MIB);
    world.pass(7_200);
    assert_eq!(world.recycled, []);
}

#[test]
fn requests_wear_workers_out_one_after_another_and_not_all_together() {
    let mut world = World::new(8, RecycleLimits { requests_max: Some(10_000), ..RecycleLimits::default() });
    world.requests = 10;
    world.pass(1_400);
    // Each after a thousand seconds, a tenth more or less; those that came by a tenth too early wait for each other.
    assert_eq!(world.recycled.len(), 8, "{:?}", world.recycled);
    let (first, last) = (world.recycled[0].0, world.recycled[7].0);
    assert!(first >= Duration::from_secs(900) && last <= Duration::from_secs(1_130), "{first:?} {last:?}");
    assert!(last.saturating_sub(first) > Duration::from_secs(40), "{first:?} {last:?}");
    assert_eq!(world.serving(), 8);
    assert!(world.log.iter().any(|text| text.contains("requests (workers.requests_max is 10000)")));
    // For ever.
    world.pass(9_000);
    assert!((70..=90).contains(&world.recycled.len()), "{}", world.recycled.len());
}

#[test]
fn a_gateway_that_begins_to_count_anew_makes_nobody_younger() {
    let mut world = World::new(1, RecycleLimits { requests_max: Some(1_000), ..RecycleLimits::default() });
    let count = |requests_total| {
        let load = WorkerLoad { worker: 1, requests_total, long_lived: 2 };
        let load = LoadReport { pools: Vec::new(), workers: vec![load] };
        Event::Gateway(FromGateway::Load(Box::new(load)))
    };
    world.feed(count(700));
    world.feed(count(100));
    let (_, worker) = world.state.workers().next().expect("one");
    assert_eq!((worker.wear.requests(), worker.wear.long_lived), (800, 2));
    assert_eq!(world.recycled, []);
    world.feed(count(500));
    assert_eq!(world.recycled.len(), 1);
}

#[test]
fn workers_grow_old() {
    let lifetime = Some(Duration::from_secs(3_600));
    let mut world = World::new(4, RecycleLimits { lifetime, ..RecycleLimits::default() });
    let due = world.state.next_deadline(world.now).expect("the first end of a life") - world.began;
    assert!(Duration::from_secs(3_240) <= due && due <= Duration::from_secs(3_970), "{due:?}");
    world.pass(4_100);
    assert_eq!(world.recycled.len(), 4, "{:?}", world.recycled);
    assert!(world.log.iter().any(|text| text.contains("workers.lifetime")));
}

#[test]
fn one_that_leaks_is_replaced() {
    let mut world = World::new(2, RecycleLimits { memory_max: Some(500 * MIB), ..RecycleLimits::default() });
    world.leak = MIB;
    world.pass(600);
    assert_eq!(world.recycled.len(), 2, "{:?}", world.recycled);
    assert!(
        world.log.iter().any(|text| text.contains("MiB (workers.memory_max is 500 MiB)")),
        "{:?}",
        world.log
    );
}

#[test]
fn the_largest_is_replaced_when_all_together_take_too_much_at_most_one_a_minute() {
    let limits = RecycleLimits { memory_total_max: Some(600 * MIB), ..RecycleLimits::default() };
    let mut world = World::new(4, limits);
    // The one that grows most is known by name.
    world.workers.get_mut(&3).expect("known").memory = 500 * MIB;
    world.report();
    assert_eq!(world.recycled.iter().map(|(_, worker)| *worker).collect::<Vec<_>>(), [3]);
    assert!(world.state.recycle_notes().iter().any(|note| note.contains("memory_total_max is 600 MiB")));
    world.pass(30);
    assert_eq!(world.state.recycle_notes(), [""; 0], "below again");
    world.leak = 10 * MIB;
    world.pass(600);
    let times: Vec<_> = world.recycled.iter().map(|(at, _)| *at).collect();
    assert!(times.len() >= 5, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1].saturating_sub(pair[0]) >= TOTAL_PAUSE), "{times:?}");
}

#[test]
fn workers_that_have_not_grown_are_not_replaced_for_nothing() {
    let limits = RecycleLimits { memory_total_max: Some(150 * MIB), ..RecycleLimits::default() };
    let mut world = World::new(4, limits);
    world.pass(600);
    assert_eq!(world.recycled, []);
    let notes = world.state.recycle_notes();
    assert!(notes.len() == 1 && notes[0].contains("would not help"), "{notes:?}");
}

#[test]
fn a_replacement_that_does_not_come_up_leaves_the_old_one_at_work() {
    let mut world = World::new(1, RecycleLimits { requests_max: Some(10), ..RecycleLimits::default() });
    world.requests = 20;
    world.pass(1);
    assert_eq!(world.recycled.len(), 1);
    let new = *world.workers.keys().last().expect("started");
    world.workers.remove(&new);
    world.feed(Event::Exited { who: Who::Worker(new), exit: Exit::Code(1) });
    assert!(world.workers[&1].serves);
    world.pass(20);
    assert!(!world.workers.contains_key(&1), "the next attempt worked");
    assert_eq!(world.serving(), 1);
}
