//! Several apps: what happens to one, step by step.

use super::*;

/// Two apps with a worker each: pool 0 is the site's, pool 1 that of "api".
fn two() -> Table {
    let mut table = Table::new(1);
    table.settings.modules.push("api".to_owned());
    table.settings.pools.push(Pool { module: 1, ..Pool::of("api", 1, 1) });
    table.begin();
    table
}

fn serving() -> Table {
    let mut table = two();
    table.up(1);
    assert_eq!(table.up(2), "activate1:module1 serving");
    table
}

fn reload(table: &mut Table, client: u64, module: Option<&str>) -> String {
    let command = Command::Reload { module: module.map(str::to_owned) };
    let asked = table.does(Event::Asked { client, command });
    if !asked.starts_with("read-config") {
        return asked;
    }
    table.does(Event::ConfigRead(Ok(table.settings.clone())))
}

fn text_of(table: &Table) -> String {
    let text = |action: &Action| match action {
        Action::Reply { reply: Reply::Failed { text, .. } | Reply::Done { text }, .. } => Some(text.clone()),
        _ => None,
    };
    table.actions.iter().find_map(text).unwrap_or_default()
}

#[test]
fn it_serves_when_all_apps_do() {
    let mut table = two();
    assert_eq!(table.up(1), "activate1");
    assert_eq!(super::super::phase_name(&table.state), "starting");
    assert_eq!(table.up(2), "activate1:module1 serving");
    assert_eq!(super::super::phase_name(&table.state), "serving");
}

#[test]
fn an_app_that_does_not_import_ends_the_start_by_its_name() {
    let mut table = two();
    table.up(1);
    assert_eq!(table.fails(2), "show term-gateway term1 term2");
    let shown = table.actions.iter().find_map(|action| match action {
        Action::ShowFailure(failure) => Some(failure.message.clone()),
        _ => None,
    });
    assert_eq!(shown.as_deref(), Some("module api: no"));
}

#[test]
fn one_is_reloaded_alone() {
    let mut table = serving();
    assert_eq!(reload(&mut table, 7, Some("api")), "worker3:generation2:pool1");
    assert_eq!(table.up(3), "activate2:module1 retire[2] done→7");
    // The site is replaced in its own generation when it dies.
    table.after(Duration::from_secs(60));
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(11)), "worker4:generation1");
    let status = table.state.modules_status();
    let generations: Vec<_> = status.iter().map(|row| (row.name.as_str(), row.generation)).collect();
    assert_eq!(generations, [("default", 1), ("api", 2)]);
}

#[test]
fn a_name_that_there_is_not_is_refused() {
    let mut table = serving();
    assert_eq!(reload(&mut table, 7, Some("apo")), "failed→7");
    assert!(text_of(&table).ends_with("hint: the modules are default, api"), "{}", text_of(&table));
}

#[test]
fn where_one_does_not_import_its_old_workers_stay_and_the_others_are_reloaded() {
    let mut table = serving();
    assert_eq!(reload(&mut table, 7, None), "tls worker3:generation2 worker4:generation2:pool1");
    assert_eq!(table.fails(4), "");
    assert_eq!(table.up(3), "activate2 retire[1] failed→7");
    let text = text_of(&table);
    assert!(text.contains("error: module api: no"), "{text}");
    assert!(text.contains("note: the old code of this module keeps serving"), "{text}");
    assert!(text.ends_with("note: the new code of default serves"), "{text}");
    // It is looked after as before, and the next reload finds all of it.
    table.exits(Who::Worker(4), Exit::Code(1));
    table.exits(Who::Worker(1), Exit::Code(0));
    table.after(Duration::from_secs(60));
    assert_eq!(table.exits(Who::Worker(2), Exit::Signal(9)), "worker5:generation1:pool1");
    table.up(5);
    assert_eq!(reload(&mut table, 8, None), "tls worker6:generation3 worker7:generation3:pool1");
    table.up(6);
    assert_eq!(table.up(7), "activate3:module1 retire[5] done→8");
}

#[test]
fn reloads_of_several_while_one_runs_are_one_more() {
    let mut table = serving();
    reload(&mut table, 7, Some("api"));
    assert_eq!(reload(&mut table, 8, Some("api")), "");
    assert_eq!(reload(&mut table, 9, Some("default")), "");
    assert_eq!(table.up(3), "activate2:module1 retire[2] done→7 read-config[0, 1]");
    let both = table.does(Event::ConfigRead(Ok(table.settings.clone())));
    assert_eq!(both, "tls worker4:generation3 worker5:generation3:pool1");
}

#[test]
fn a_crash_loop_of_one_keeps_nobody_else_waiting() {
    let mut table = serving();
    table.after(Duration::from_secs(60));
    for worker in [2, 3, 4] {
        table.exits(Who::Worker(worker), Exit::Signal(11));
        if worker < 4 {
            table.after(Duration::from_secs(20));
            table.up(worker + 1);
        }
    }
    assert!(table.logged(Level::Error).contains("module api: worker 4"), "{}", table.logged(Level::Error));
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(9)), "worker5:generation1", "at once");
}

#[test]
fn each_has_a_template_of_its_own() {
    let mut table = two();
    table.settings.preload = true;
    table.state = State::new(table.settings.clone(), 1, table.now);
    assert_eq!(table.does(Event::Begin), "gateway template1:generation1 template2:generation1:module1");
    table.does(Event::Gateway(FromGateway::Ready));
    let ready = |template| Event::Template {
        template,
        said: ctl_admin::words::FromTemplate::Ready { app: Box::default(), unfit: String::new() },
    };
    assert_eq!(table.does(ready(2)), "fork1:generation1:pool1:from2");
    assert_eq!(table.does(ready(1)), "fork2:generation1:from1");
    for worker in [1, 2] {
        table.does(Event::Spawned { who: Who::Worker(worker), pid: worker });
        table.up(worker);
    }
    table.after(Duration::from_secs(60));
    assert_eq!(table.exits(Who::Template(2), Exit::Signal(9)), "");
    assert_eq!(table.after(Duration::from_secs(1)), "template3:generation1:module1");
}

#[test]
fn in_development_only_the_changed_one_is_started_anew() {
    let mut table = two();
    table.settings.dev = true;
    table.begin();
    table.up(1);
    table.up(2);
    let changed = Event::CodeChanged { what: "api/main.py".to_owned(), modules: vec![1] };
    assert_eq!(table.does(changed), "hold:module1 retire[2] read-config[1]");
    let read = table.does(Event::ConfigRead(Ok(table.settings.clone())));
    assert_eq!(read, "worker3:generation2:pool1");
    assert_eq!(table.fails(3), "show broken:module1:module api: no");
    assert_eq!(table.after(Duration::from_secs(60)), "term2 term3");
}
