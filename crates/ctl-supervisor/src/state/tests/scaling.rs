//! Pools and scaling, step by step. What the scaler wants is tested where it is at home, in `ctl-autoscaler`.

use super::*;
use ctl_admin::words::{LoadReport, PoolLoad, WorkerLoad};

impl Table {
    /// The default pool of 1 to 4, and one of 0 to 2.
    pub(super) fn pools() -> Self {
        let mut table = Self::new(1);
        table.settings.pools = vec![Pool::of("default", 1, 4), Pool::of("reports", 0, 2)];
        table.begin();
        table.up(1);
        table
    }

    /// Half a second in which so many wait in the default pool, all slots being busy. What was done.
    pub(super) fn crowded(&mut self, waiting: u32) -> String {
        let mut told = Vec::new();
        for _ in 0..5 {
            self.now += Duration::from_millis(100);
            let busy = PoolLoad {
                busy: 2,
                waiting,
                head_wait_us: u64::from(waiting) * 100_000,
                service_p50_us: 20_000,
                ..PoolLoad::default()
            };
            let report = LoadReport { pools: vec![busy, PoolLoad::default()], workers: Vec::new() };
            told.push(self.does(Event::Gateway(FromGateway::Load(Box::new(report)))));
        }
        told.retain(|words| !words.is_empty());
        told.join(" ")
    }

    /// So many seconds in which nobody asks. What was done.
    pub(super) fn quiet(&mut self, seconds: u32) -> String {
        let mut told = String::new();
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            let pools = vec![PoolLoad::default(), PoolLoad::default()];
            let report = LoadReport { pools, workers: Vec::new() };
            told += &self.does(Event::Gateway(FromGateway::Load(Box::new(report))));
        }
        told
    }

    pub(super) fn wanted(&mut self, pool: u16) -> String {
        self.does(Event::Gateway(FromGateway::PoolWanted { pool }))
    }
}

#[test]
fn waiting_requests_bring_a_worker() {
    let mut table = Table::pools();
    assert_eq!(table.crowded(4), "worker2:generation1");
    let status = table.state.pools_status();
    assert_eq!((status[0].wanted, status[0].load.waiting), (2, 4));
    assert!(status[0].reason.contains("waited"), "{}", status[0].reason);
    assert_eq!((status[1].name.as_str(), status[1].wanted), ("reports", 0));
}

#[test]
fn a_full_cpu_brings_a_note_instead() {
    let mut table = Table::pools();
    table.does(Event::Cpu(0.97));
    assert_eq!(table.crowded(4), "");
    let notes = table.state.scale_notes(table.now);
    assert!(notes.len() == 1 && notes[0].starts_with("pool default: CPU is what is short"), "{notes:?}");
    let notes = table.state.scale_notes(table.now + Duration::from_secs(5));
    assert!(notes[0].starts_with("pool default: 5 s ago: CPU is what is short"), "{notes:?}");
    assert_eq!(table.state.scale_notes(table.now + Duration::from_secs(10)), [""; 0], "it is over");
}

#[test]
fn a_worker_that_holds_more_connections_than_slots_is_counted_with_them() {
    let mut table = Table::pools();
    table.settings.db_connections_max = 40;
    table.begin();
    table.up(1);
    let holds = |table: &mut Table, worker, most| {
        table.does(Event::Worker { worker, said: FromWorker::Connections { most } })
    };
    assert_eq!(holds(&mut table, 9, 50), "", "nobody knows this one");
    assert_eq!(table.state.scale_notes(table.now), [""; 0]);
    for (most, logged) in [(21, 1), (20, 0)] {
        holds(&mut table, 1, most);
        let notes = table.state.scale_notes(table.now);
        assert!(notes.len() == 1 && notes[0].contains("up to 21 database connections"), "{notes:?}");
        assert_eq!(table.logged(Level::Info).matches("21 database connections").count(), logged);
    }
    // Two of 21 are more than 40.
    assert_eq!(table.crowded(4), "");
    let notes = table.state.scale_notes(table.now);
    assert!(notes[0].contains("the workers may open 21 and one more worker 21"), "{notes:?}");
    assert!(notes[0].contains("workers.db_connections_max = 40"), "{notes:?}");
}

#[test]
fn numbers_that_cannot_be_true_are_added_up_too() {
    let mut table = Table::pools();
    table.crowded(4);
    table.up(2);
    for worker in [1, 2] {
        table.does(Event::Worker { worker, said: FromWorker::Connections { most: u32::MAX } });
    }
    assert_eq!(table.crowded(8), "");
    let notes = table.state.scale_notes(table.now);
    assert!(notes[0].contains("database connections are what is short"), "{notes:?}");
}

#[test]
fn a_pool_with_nobody_in_it_is_woken() {
    let mut table = Table::pools();
    assert_eq!(table.wanted(1), "worker2:generation1:pool1");
    assert_eq!(table.logged(Level::Info).lines().count(), 1);
    assert_eq!(table.wanted(1), "", "it is on its way");
    assert_eq!(table.wanted(7), "", "there is no such pool");
    table.up(2);
    assert_eq!(table.quiet(70), "retire[2]", "a minute without a request");
    // Somebody asks while it goes: another one.
    assert_eq!(table.wanted(1), "worker3:generation1:pool1");
}

#[test]
fn a_worker_that_holds_websockets_stays_until_they_are_over() {
    let mut table = Table::pools();
    table.crowded(4);
    table.up(2);
    let quiet = |table: &mut Table, long_lived: u32| {
        let mut told = String::new();
        for _ in 0..60 {
            table.now += Duration::from_secs(1);
            let workers = vec![WorkerLoad { worker: 2, requests_total: 9, long_lived }];
            let pools = vec![PoolLoad::default(), PoolLoad::default()];
            let report = FromGateway::Load(Box::new(LoadReport { pools, workers }));
            let retires = table.does(Event::Gateway(report));
            for worker in [1, 2].into_iter().filter(|worker| retires == format!("retire[{worker}]")) {
                table.exits(Who::Worker(worker), Exit::Code(0));
            }
            told += &retires;
        }
        told
    };
    assert_eq!(quiet(&mut table, 1), "retire[1]", "the other one holds a WebSocket");
    assert_eq!(table.state.pools_status()[0].wanted, 1);
    assert_eq!(quiet(&mut table, 1), "");

    let mut table = Table::pools();
    table.crowded(4);
    table.up(2);
    assert_eq!(quiet(&mut table, 0), "retire[2]", "else the newest one goes");
}

#[test]
fn a_reload_keeps_the_number_and_replaces_pool_by_pool() {
    let mut table = Table::pools();
    table.crowded(4);
    table.up(2);
    table.wanted(1);
    table.up(3);
    assert_eq!(table.reload(7), "tls worker4:generation2");
    assert_eq!(table.up(4), "activate2 retire[1] worker5:generation2");
    assert_eq!(table.up(5), "retire[2] worker6:generation2:pool1");
    assert_eq!(table.up(6), "retire[3] done→7");
}

#[test]
fn a_reload_may_lower_the_bound() {
    let mut table = Table::pools();
    table.crowded(4);
    table.up(2);
    table.settings.pools[0].max = 1;
    assert_eq!(table.reload(7), "tls retire[1] worker3:generation2");
    assert_eq!(table.up(3), "activate2 retire[2] done→7");
}

#[test]
fn nothing_is_scaled_while_workers_cannot_be_started() {
    let mut table = Table::pools();
    table.exits(Who::Worker(1), Exit::Signal(11));
    table.now += Duration::from_millis(10);
    let before = table.state.pools_status()[0].wanted;
    let report = LoadReport {
        pools: vec![PoolLoad { waiting: 50, head_wait_us: 5_000_000, ..PoolLoad::default() }],
        workers: Vec::new(),
    };
    table.does(Event::Gateway(FromGateway::Load(Box::new(report))));
    assert_eq!(table.state.pools_status()[0].wanted, before);
}

#[test]
fn the_bound_that_is_told_is_the_one_that_counts() {
    let mut table = Table::new(1);
    table.settings.pools = vec![Pool::of("default", 1, 8)];
    table.settings.db_connections_max = 7;
    table.begin();
    assert_eq!(table.state.pools_status()[0].max, 8, "what the app opens is not known yet");
    let app = Box::new(AppReport { django: Some("5.2".to_owned()), ..AppReport::default() });
    table.does(Event::Worker { worker: 1, said: FromWorker::Ready { app } });
    table.online(1);
    assert_eq!(table.state.pools_status()[0].max, 3, "two connections each");
    for worker in 2..=4 {
        table.crowded(30);
        table.up(worker);
        table.now += Duration::from_secs(2);
    }
    assert_eq!(table.state.pools_status()[0].wanted, 3);
    assert!(table.state.scale_notes(table.now)[0].contains("database connections are what is short"));
}

#[test]
fn load_during_a_reload_brings_workers_of_the_new_code() {
    let mut table = Table::pools();
    assert_eq!(table.reload(7), "tls worker2:generation2");
    assert_eq!(table.crowded(6), "", "one after another");
    assert_eq!(table.state.pools_status()[0].wanted, 2);
    // The old one stays as long as it is needed.
    assert_eq!(table.up(2), "activate2 worker3:generation2");
    assert_eq!(table.up(3), "retire[1] done→7");
}

#[test]
fn new_code_that_fails_leaves_the_workers_that_load_has_asked_for_to_the_old() {
    let mut table = Table::pools();
    table.reload(7);
    table.crowded(6);
    assert_eq!(table.fails(2), "failed→7 worker3:generation1");
}

#[test]
fn quiet_takes_nobody_away_during_a_reload() {
    let mut table = Table::pools();
    table.settings.start_timeout = Duration::from_secs(600);
    table.begin();
    table.up(1);
    table.crowded(6);
    table.up(2);
    assert_eq!(table.reload(7), "tls worker3:generation2");
    assert_eq!(table.quiet(120), "");
    assert_eq!(table.state.pools_status()[0].wanted, 2);
    assert_eq!(table.up(3), "activate2 retire[1] worker4:generation2");
    assert_eq!(table.up(4), "retire[2] done→7");
    table.exits(Who::Worker(1), Exit::Code(0));
    table.exits(Who::Worker(2), Exit::Code(0));
    assert_eq!(table.quiet(10), "retire[4]", "afterwards it does");
}
