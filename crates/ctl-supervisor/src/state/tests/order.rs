//! Orders, step by step: a worker more, a worker fewer, until the next reload.

use ctl_admin::words::Change;

use super::*;

impl Table {
    /// What is done, and what somebody at `control.sock` hears.
    fn order(&mut self, pool: Option<&str>, change: Change) -> (String, String) {
        let command = Command::Scale { pool: pool.map(str::to_owned), change };
        let did = self.does(Event::Asked { client: 7, command });
        let heard = self.actions.iter().find_map(|action| match action {
            Action::Reply { client: 7, reply: Reply::Done { text } | Reply::Failed { text, .. } } => {
                Some(text.clone())
            }
            _ => None,
        });
        (did, heard.unwrap_or_default())
    }

    fn refused(&mut self, pool: Option<&str>, change: Change) -> String {
        let before = self.state.staff();
        let (did, heard) = self.order(pool, change);
        assert_eq!(did, "failed→7");
        assert_eq!(self.state.staff(), before);
        let detail = heard.strip_prefix("error: the number of workers stays as it is\ndetail: ");
        detail.unwrap_or_else(|| panic!("{heard}")).to_owned()
    }
}

#[test]
fn signals_add_workers_to_a_fixed_number_and_take_them_away() {
    let mut table = Table::serving(2);
    assert_eq!(table.does(Event::ScaleSignal(Change::By(1))), "worker3:generation1");
    assert_eq!(
        table.logged(Level::Info),
        "pool default: 3 workers instead of 2, as ordered, until the next reload"
    );
    table.up(3);
    assert_eq!(
        table.state.order_notes(),
        ["pool default: 3 workers as ordered, 2 as configured; the next reload goes back to that"]
    );
    assert_eq!(table.does(Event::ScaleSignal(Change::By(-1))), "retire[3]");
    assert_eq!(table.does(Event::ScaleSignal(Change::By(-1))), "retire[2]");
    assert_eq!(table.does(Event::ScaleSignal(Change::By(-1))), "");
    assert!(table.logged(Level::Warn).ends_with("pool default has at least 1 worker"));
}

#[test]
fn a_worker_that_dies_is_replaced_as_ordered_and_a_reload_ends_the_order() {
    let mut table = Table::serving(1);
    assert_eq!(table.order(None, Change::To(3)).0, "done→7 worker2:generation1 worker3:generation1");
    table.up(2);
    table.up(3);
    table.after(Duration::from_secs(60));
    assert_eq!(table.exits(Who::Worker(2), Exit::Signal(9)), "worker4:generation1");
    table.up(4);
    assert_eq!(table.reload(8), "tls retire[1] retire[3]");
    assert_eq!(table.exits(Who::Worker(1), Exit::Code(0)), "worker5:generation2");
    assert_eq!(table.up(5), "activate2 retire[4] done→8");
    assert_eq!(table.state.order_notes(), [""; 0]);
}

#[test]
fn an_order_moves_the_floor_of_a_pool_that_scales() {
    let mut table = Table::pools();
    let (did, heard) = table.order(None, Change::By(1));
    assert_eq!(did, "done→7 worker2:generation1");
    assert_eq!(heard, "pool default: 2 workers instead of 1, as ordered, until the next reload (2 to 4)");
    table.up(2);
    assert_eq!(table.crowded(6), "worker3:generation1", "load still brings more");
    table.up(3);
    // One fewer than load has brought: the floor stays where it is.
    let (did, heard) = table.order(None, Change::By(-1));
    assert_eq!(did, "done→7 retire[3]");
    assert!(heard.ends_with("2 workers instead of 3, as ordered, until the next reload (2 to 4)"), "{heard}");
    table.exits(Who::Worker(3), Exit::Code(0));
    assert_eq!(table.quiet(120), "", "quiet takes none below the floor");
    let (_, heard) = table.order(None, Change::To(1));
    assert!(heard.contains("1 worker instead of 2") && heard.ends_with("(1 to 4)"), "{heard}");
    let (_, heard) = table.order(None, Change::To(1));
    assert!(heard.contains("1 worker as before"), "{heard}");
}

#[test]
fn a_pool_is_named_and_may_be_sent_home() {
    let mut table = Table::pools();
    assert_eq!(
        table.order(Some("reports"), Change::To(2)).0,
        "done→7 worker2:generation1:pool1 worker3:generation1:pool1"
    );
    table.up(2);
    table.up(3);
    assert_eq!(table.order(Some("reports"), Change::To(0)).0, "done→7 retire[3] retire[2]");
    assert_eq!(table.wanted(1), "worker4:generation1:pool1", "the first request brings one again");
    let heard = table.refused(Some("report"), Change::By(1));
    assert_eq!(heard, "there is no pool \"report\"\nhint: the pools are default, reports");
}

#[test]
fn bounds_are_not_passed() {
    let mut table = Table::pools();
    let heard = table.refused(None, Change::By(4));
    assert_eq!(heard, "pool default has 4 workers at most\nhint: raise workers.max, then `quintet reload`");
    assert!(table.logged(Level::Warn).ends_with(&heard), "who has sent a signal sees it there");
    let heard = table.refused(Some("reports"), Change::To(3));
    assert!(heard.contains("raise max in its [[worker_pool]]"), "{heard}");
    assert_eq!(table.refused(None, Change::To(0)), "pool default has at least 1 worker");
    assert_eq!(table.refused(None, Change::By(i32::MIN)), "pool default has at least 1 worker");
    // Who says how many, and that these are the most, means it.
    let mut bound = Table::new(2);
    bound.settings.pools[0].bound = Some(2);
    bound.begin();
    bound.up(1);
    bound.up(2);
    assert!(bound.refused(None, Change::By(1)).starts_with("pool default has 2 workers at most"));
    assert_eq!(bound.order(None, Change::By(-1)).0, "done→7 retire[2]");
    assert_eq!(bound.order(None, Change::By(1)).0, "done→7 worker3:generation1");
    let mut fixed = Table::serving(1);
    assert!(fixed.refused(None, Change::To(u32::MAX)).starts_with("pool default has 1024 workers at most"));
}

#[test]
fn memory_and_database_connections_are_bounds_too() {
    let mut table = Table::new(2);
    table.settings.db_connections_max = 7;
    table.settings.recycle.memory_total_max = Some(100 << 20);
    table.begin();
    for worker in [1, 2] {
        let app = Box::new(AppReport { django: Some("5.2".to_owned()), ..AppReport::default() });
        table.does(Event::Worker { worker, said: FromWorker::Ready { app } });
        table.online(worker);
    }
    let heard = table.refused(None, Change::By(2));
    assert_eq!(
        heard,
        "only 1 more fit: all workers together may open 4 database connections, one more 2, and \
         workers.db_connections_max is 7"
    );
    for worker in [1, 2] {
        table.does(Event::Weighed { worker, bytes: 40 << 20 });
    }
    let heard = table.refused(None, Change::By(1));
    assert_eq!(
        heard,
        "no more fit: all workers together take 80 MiB, one more about 40 MiB, and workers.memory_total_max is \
         100 MiB"
    );
    assert_eq!(table.order(None, Change::By(-1)).0, "done→7 retire[2]", "fewer is always possible");
}

#[test]
fn workers_that_another_pool_waits_for_take_their_room_too() {
    let django = || Box::new(AppReport { django: Some("5.2".to_owned()), ..AppReport::default() });
    let mut table = Table::new(1);
    table.settings.pools = vec![Pool::of("default", 1, 8), Pool::of("reports", 0, 8)];
    table.settings.starting_max = 1;
    table.settings.db_connections_max = 10;
    table.settings.recycle.memory_total_max = Some(100 << 20);
    table.begin();
    table.does(Event::Worker { worker: 1, said: FromWorker::Ready { app: django() } });
    table.online(1);
    // Five workers of two connections; only one of the three starts at once.
    assert_eq!(table.order(None, Change::To(4)).0, "done→7 worker2:generation1");
    let heard = table.refused(Some("reports"), Change::To(2));
    assert!(heard.starts_with("only 1 more fit: all workers together may open 8"), "{heard}");
    // Nor is there memory for more than that.
    table.does(Event::Weighed { worker: 1, bytes: 22 << 20 });
    let heard = table.refused(Some("reports"), Change::To(1));
    assert!(heard.starts_with("no more fit: all workers together take 88 MiB"), "{heard}");
}

#[test]
fn an_order_during_a_reload_counts_for_the_new_code() {
    let mut table = Table::serving(2);
    table.reload(8);
    assert_eq!(table.order(None, Change::By(1)).0, "done→7");
    assert_eq!(table.up(3), "activate2 worker4:generation2");
    assert_eq!(table.up(4), "retire[1] worker5:generation2");
    assert_eq!(table.up(5), "retire[2] done→8");
}

#[test]
fn there_are_times_without_orders() {
    let mut table = Table::new(1);
    table.does(Event::Begin);
    assert!(table.refused(None, Change::By(1)).contains("still starting"));
    let mut table = Table::serving(1);
    table.does(Event::Asked { client: 8, command: Command::Reload { module: None } });
    assert!(table.refused(None, Change::By(1)).contains("a reload begins"));
    let mut table = Table::serving(1);
    table.does(Event::Asked { client: 8, command: Command::Upgrade { program: None } });
    assert!(table.refused(None, Change::By(1)).contains("an upgrade is under way"));
    let mut table = Table::serving(1);
    table.does(Event::StopSignal);
    assert!(table.refused(None, Change::By(1)).contains("stopping"));
    assert_eq!(table.logged(Level::Warn), "", "a signal that comes now is meant for an heir");
}
