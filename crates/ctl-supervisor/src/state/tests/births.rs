//! Templates, step by step.

use super::*;
use ctl_admin::words::FromTemplate;

impl Table {
    fn with_template(workers: u32) -> Self {
        let mut table = Self::new(workers);
        table.settings.preload = true;
        table.begin();
        table
    }

    /// Serving, with workers 1 to `workers` of template 1.
    fn preloaded(workers: u32) -> Self {
        let mut table = Self::with_template(workers);
        table.imported(1);
        for worker in 1..=workers {
            table.forked(worker);
            table.up(worker);
        }
        assert_eq!(crate::state::phase_name(&table.state), "serving");
        table
    }

    fn template(&mut self, template: u32, unfit: &str) -> String {
        let said = FromTemplate::Ready { app: Box::new(AppReport::default()), unfit: unfit.to_owned() };
        self.does(Event::Template { template, said })
    }

    fn imported(&mut self, template: u32) -> String {
        self.template(template, "")
    }

    fn template_fails(&mut self, template: u32) -> String {
        let (message, traceback, hint) = ("no".to_owned(), "Traceback".to_owned(), String::new());
        self.does(Event::Template { template, said: FromTemplate::Failed { message, traceback, hint } })
    }

    fn forked(&mut self, worker: u32) -> String {
        self.does(Event::Spawned { who: Who::Worker(worker), pid: 100 + worker })
    }

    fn template_dies(&mut self, template: u32) -> String {
        self.exits(Who::Template(template), Exit::Signal(9))
    }
}

#[test]
fn workers_are_forked_when_the_app_is_imported() {
    let mut table = Table::new(3);
    table.settings.preload = true;
    table.state = State::new(table.settings.clone(), 1, table.now);
    assert_eq!(table.does(Event::Begin), "gateway template1:generation1");
    table.does(Event::Gateway(FromGateway::Ready));
    assert_eq!(table.after(Duration::from_secs(30)), "", "nobody starts while the import lasts");
    assert_eq!(table.imported(1), "fork1:generation1:from1 fork2:generation1:from1");
    assert_eq!(table.forked(1), "");
    assert_eq!(table.ready(1), "fork3:generation1:from1");
    assert_eq!(table.online(1), "activate1 serving");
}

#[test]
fn a_failed_import_ends_a_start_and_is_shown_once() {
    let mut table = Table::with_template(2);
    assert_eq!(table.template_fails(1), "show term-gateway term-template1");
    assert_eq!(table.exits(Who::Template(1), Exit::Code(78)), "");
    assert_eq!(table.exits(Who::Gateway, Exit::Signal(15)), "end:AppFailed");
}

#[test]
fn an_import_that_takes_too_long_ends_a_start() {
    let mut table = Table::with_template(2);
    assert_eq!(table.after(START_TIMEOUT), "term-template1 show term-gateway");
    table.exits(Who::Gateway, Exit::Signal(15));
    assert_eq!(table.after(Duration::from_secs(3)), "kill-template1");
    assert_eq!(table.template_dies(1), "end:AppFailed");
}

#[test]
fn an_app_that_cannot_be_forked_becomes_the_first_worker_and_the_others_import() {
    let mut table = Table::with_template(3);
    assert_eq!(
        table.template(1, "starts threads when it is imported (poller)"),
        "become1:generation1:from1 worker2:generation1"
    );
    let said = "the app starts threads when it is imported (poller), so each worker imports it by itself";
    assert_eq!(table.logged(Level::Info), said);
    assert_eq!(table.state.template_notes(), [said]);
    for worker in 1..=3 {
        table.up(worker);
    }
    // Said once, also after a reload that finds it again.
    assert_eq!(table.reload(7), "tls template2:generation2");
    assert_eq!(table.template(2, "starts threads when it is imported (poller)"), "become4:generation2:from2");
    assert_eq!(table.logged(Level::Info), "");
    assert_eq!(table.up(4), "activate2 retire[1] worker5:generation2");
}

#[test]
fn workers_live_on_when_the_template_dies_and_another_one_is_started() {
    let mut table = Table::preloaded(2);
    table.after(Duration::from_secs(60));
    assert_eq!(table.template_dies(1), "");
    assert!(
        table.logged(Level::Error).contains("its workers are not affected; another one is started in 0.2 s")
    );
    assert_eq!(table.after(Duration::from_millis(250)), "template2:generation1");
    // Who dies meanwhile is replaced as soon as it is there.
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(9)), "");
    assert_eq!(table.imported(2), "fork3:generation1:from2");
}

#[test]
fn a_fork_that_was_under_way_is_done_again() {
    let mut table = Table::preloaded(1);
    table.after(Duration::from_secs(60));
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(11)), "fork2:generation1:from1");
    assert_eq!(table.template_dies(1), "forget2");
    table.after(Duration::from_millis(250));
    assert_eq!(table.imported(2), "fork3:generation1:from2");
    table.forked(3);
    assert_eq!(table.up(3), "");
}

#[test]
fn a_template_that_does_not_answer_is_killed() {
    let mut table = Table::preloaded(1);
    table.after(Duration::from_secs(60));
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(11)), "fork2:generation1:from1");
    assert_eq!(table.after(Duration::from_secs(5)), "forget2 kill-template1");
    assert!(table.logged(Level::Error).contains("did not fork within 5 s"));
    assert_eq!(table.template_dies(1), "", "that was to be expected");
    assert_eq!(table.after(Duration::from_millis(250)), "template2:generation1");
}

#[test]
fn a_template_that_does_not_stay_is_done_without() {
    let mut table = Table::preloaded(1);
    table.after(Duration::from_secs(60));
    table.exits(Who::Worker(1), Exit::Signal(11));
    table.template_dies(1);
    for template in 2..=3 {
        assert_eq!(table.after(Duration::from_secs(1)), format!("template{template}:generation1"));
        let told = table.template_fails(template);
        assert_eq!(told, if template == 3 { "worker3:generation1" } else { "" });
        table.exits(Who::Template(template), Exit::Code(78));
    }
    table.up(3);
    assert_eq!(table.after(Duration::from_secs(600)), "", "no further attempt");
    // New code, new luck.
    assert_eq!(table.reload(7), "tls template4:generation2");
}

#[test]
fn a_fork_that_fails_is_tried_again_after_a_pause() {
    let mut table = Table::preloaded(1);
    table.after(Duration::from_secs(60));
    table.exits(Who::Worker(1), Exit::Signal(11));
    let problem = Problem::new("a worker cannot be forked").detail("no memory");
    assert_eq!(table.does(Event::SpawnFailed { who: Who::Worker(2), problem }), "");
    assert!(table.logged(Level::Error).contains("no memory"));
    assert_eq!(table.after(Duration::from_millis(250)), "fork3:generation1:from1");
}

#[test]
fn a_reload_has_a_template_of_its_own_and_the_old_one_goes_when_nobody_needs_it() {
    let mut table = Table::preloaded(2);
    assert_eq!(table.reload(7), "tls template2:generation2");
    assert_eq!(table.imported(2), "fork3:generation2:from2");
    table.forked(3);
    assert_eq!(table.up(3), "activate2 retire[1] term-template1 fork4:generation2:from2");
    table.forked(4);
    assert_eq!(table.up(4), "retire[2] done→7");
}

#[test]
fn a_reload_whose_import_fails_leaves_the_old_template_too() {
    let mut table = Table::preloaded(2);
    table.reload(7);
    assert_eq!(table.template_fails(2), "failed→7");
    assert!(table.logged(Level::Error).contains("Traceback"));
    table.exits(Who::Template(2), Exit::Code(78));
    table.after(Duration::from_secs(60));
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(11)), "fork3:generation1:from1");
}

#[test]
fn a_stop_ends_the_template_first_and_forgets_its_forks() {
    let mut table = Table::preloaded(1);
    table.after(Duration::from_secs(60));
    table.exits(Who::Worker(1), Exit::Signal(11));
    assert_eq!(table.does(Event::StopSignal), "forget2 term-template1 drain unlisten");
    assert_eq!(table.exits(Who::Gateway, Exit::Code(0)), "");
    assert_eq!(table.exits(Who::Template(1), Exit::Signal(15)), "end:Stopped");
}

#[test]
fn a_worker_that_is_ready_before_its_fork_is_known_counts() {
    let mut table = Table::with_template(1);
    table.imported(1);
    table.ready(1);
    assert_eq!(table.online(1), "activate1 serving");
    assert_eq!(table.forked(1), "");
    assert_eq!(table.after(Duration::from_secs(600)), "", "nobody waits for the fork any more");
}
