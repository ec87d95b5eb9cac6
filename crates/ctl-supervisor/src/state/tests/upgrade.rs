//! An heir takes over, or does not.

use std::time::Duration;

use super::*;
use crate::upgrade::ToHeir;

fn upgrade(table: &mut Table, client: u64) -> String {
    table.does(Event::Asked { client, command: Command::Upgrade { program: None } })
}

fn spawned(table: &mut Table) {
    assert_eq!(upgrade(table, 7), "heir");
    assert_eq!(table.does(Event::Spawned { who: Who::Heir, pid: 4711 }), "");
}

fn says(table: &mut Table, said: FromHeir) -> String {
    table.does(Event::Heir(said))
}

fn reply(table: &Table) -> String {
    let texts = table.actions.iter().filter_map(|action| match action {
        Action::Reply {
            reply: Reply::Failed { text, .. } | Reply::Done { text } | Reply::Progress { text },
            ..
        } => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_heir_takes_over() {
    let mut table = Table::serving(2);
    spawned(&mut table);
    assert_eq!(crate::state::phase_name(&table.state), "upgrading");
    assert_eq!(says(&mut table, FromHeir::Progress { text: "1 of 2".to_owned() }), "");
    assert!(reply(&table).contains("1 of 2"));
    assert_eq!(says(&mut table, FromHeir::Serves), "heir:Yours");
    assert_eq!(says(&mut table, FromHeir::Serves), "", "once");
    let kept = vec!["unix:/run/shop.sock".to_owned()];
    let over = says(&mut table, FromHeir::Mine { kept });
    assert_eq!(over, "give-names[\"unix:/run/shop.sock\"] mainpid4711 heir:Main unlisten hand-over");
    assert_eq!(table.does(Event::Gateway(FromGateway::Moved)), "done→7");
    assert!(reply(&table).contains("pid 4711"));
    // Its end is that of any stop; the heir's is none of its business any more.
    assert_eq!(table.does(Event::Gateway(FromGateway::Drained)), "");
    assert_eq!(table.exits(Who::Gateway, Exit::Code(0)), "exit1 exit2");
    assert_eq!(table.exits(Who::Worker(1), Exit::Code(0)), "");
    assert_eq!(table.exits(Who::Worker(2), Exit::Code(0)), "end:HandedOver");
}

#[test]
fn the_first_signal_after_it_is_the_heirs_the_second_hurries() {
    let mut table = Table::serving(1);
    spawned(&mut table);
    says(&mut table, FromHeir::Serves);
    says(&mut table, FromHeir::Mine { kept: Vec::new() });
    table.after(Duration::from_secs(1));
    assert_eq!(table.does(Event::StopSignal), "", "the driver hands it on");
    table.after(Duration::from_secs(1));
    assert_eq!(table.does(Event::StopSignal), "term-gateway term1");
}

#[test]
fn a_gateway_that_is_dead_at_that_moment_has_nothing_to_hand_over() {
    let mut table = Table::serving(1);
    spawned(&mut table);
    says(&mut table, FromHeir::Serves);
    table.after(Duration::from_secs(2));
    assert_eq!(table.exits(Who::Gateway, Exit::Signal(9)), "gateway:active1");
    assert_eq!(
        says(&mut table, FromHeir::Mine { kept: Vec::new() }),
        "give-names[] mainpid4711 heir:Main unlisten done→7 term-gateway"
    );
    table.exits(Who::Gateway, Exit::Signal(15));
    assert_eq!(table.exits(Who::Worker(1), Exit::Code(0)), "end:HandedOver");
}

#[test]
fn an_heir_that_ends_before_has_changed_nothing() {
    let mut table = Table::serving(1);
    spawned(&mut table);
    assert_eq!(table.exits(Who::Heir, Exit::Code(1)), "failed→7");
    assert!(reply(&table).contains("it ended before it served: exit status 1"), "{}", reply(&table));
    assert!(table.logged(Level::Error).contains("the old program keeps serving"));
    assert_eq!(crate::state::phase_name(&table.state), "serving");
    // The next one may.
    spawned(&mut table);
    says(
        &mut table,
        FromHeir::Failed {
            text: "Traceback\nImportError: no\nerror: no import\nhint: mend it".to_owned(),
            app: true,
        },
    );
    assert_eq!(table.exits(Who::Heir, Exit::Code(3)), "failed→7");
    assert!(reply(&table).starts_with("Traceback\nImportError: no\nerror: no import"), "{}", reply(&table));
    let logged = table.logged(Level::Error);
    assert!(logged.ends_with(": no import\nTraceback\nImportError: no\nhint: mend it"), "{logged}");
    // One that has been told to take the names may have done so.
    spawned(&mut table);
    says(&mut table, FromHeir::Serves);
    assert_eq!(table.exits(Who::Heir, Exit::Signal(9)), "reclaim failed→7");
    // And there may be no such program.
    assert_eq!(upgrade(&mut table, 8), "heir");
    let problem = Problem::new("/opt/q cannot be started").hint("install it");
    assert_eq!(table.does(Event::SpawnFailed { who: Who::Heir, problem }), "failed→8");
    assert_eq!(
        reply(&table),
        "error: /opt/q cannot be started\nhint: install it\n\
         note: the old program keeps serving; try again when this is mended"
    );
}

#[test]
fn an_heir_that_says_nothing_is_ended() {
    let mut table = Table::serving(1);
    spawned(&mut table);
    table.after(Duration::from_secs(70));
    assert_eq!(says(&mut table, FromHeir::Progress { text: "slowly".to_owned() }), "");
    assert_eq!(table.after(Duration::from_secs(74)), "", "it has its time from there");
    assert_eq!(table.after(Duration::from_secs(1)), "term-heir");
    assert_eq!(says(&mut table, FromHeir::Serves), "", "too late");
    assert_eq!(table.after(Duration::from_secs(3)), "kill-heir");
    assert_eq!(table.exits(Who::Heir, Exit::Signal(9)), "failed→7");
    assert!(reply(&table).contains("it did not serve after 145 s"), "{}", reply(&table));
}

#[test]
fn one_change_at_a_time() {
    let mut table = Table::new(1);
    table.does(Event::Begin);
    assert_eq!(upgrade(&mut table, 7), "failed→7", "it still starts");
    assert!(reply(&table).contains("still starting"));
    let mut table = Table::serving(1);
    table.reload(7);
    assert_eq!(upgrade(&mut table, 8), "failed→8");
    assert!(reply(&table).contains("a reload is under way"), "{}", reply(&table));
    table.up(2);
    spawned(&mut table);
    assert_eq!(upgrade(&mut table, 9), "failed→9");
    assert!(reply(&table).contains("an upgrade is under way already"));
    assert_eq!(
        table.does(Event::Asked { client: 10, command: Command::Reload { module: None } }),
        "failed→10"
    );
    assert_eq!(table.does(Event::ReloadSignal), "");
    assert!(table.logged(Level::Warn).contains("an upgrade is under way"));
}

#[test]
fn a_stop_ends_the_heir_too_and_waits_for_it() {
    let mut table = Table::serving(1);
    spawned(&mut table);
    let stop = table.does(Event::Asked { client: 9, command: Command::Stop });
    assert_eq!(stop, "term-heir drain unlisten");
    assert_eq!(says(&mut table, FromHeir::Serves), "");
    assert_eq!(table.exits(Who::Gateway, Exit::Code(0)), "exit1");
    assert_eq!(table.exits(Who::Worker(1), Exit::Code(0)), "");
    assert_eq!(table.exits(Who::Heir, Exit::Code(0)), "failed→7 done→9 end:Stopped");
}

#[test]
fn an_heir_waits_until_all_its_workers_serve_and_takes_the_names_when_told() {
    let mut table = Table::new(2);
    table.state.inherits(&[2], Vec::new());
    table.does(Event::Begin);
    table.does(Event::Gateway(FromGateway::Ready));
    table.up(1);
    assert!(!table.actions.iter().any(|action| matches!(action, Action::Notify(_))), "nobody is told yet");
    assert!(table.up(2).ends_with("elder:Serves"));
    assert_eq!(upgrade(&mut table, 7), "failed→7");
    assert_eq!(table.does(Event::Elder(ToHeir::Main)), "");
    assert_eq!(table.does(Event::Elder(ToHeir::Yours)), "take-names");
    assert_eq!(table.does(Event::TookOver(Ok(Vec::new()))), "elder:Mine { kept: [] }");
    table.does(Event::Elder(ToHeir::Main));
    assert!(matches!(table.actions[..], [Action::Notify(Notify::Ready)]), "{:?}", table.actions);
    assert_eq!(table.does(Event::ElderGone), "");
    spawned(&mut table);
}

#[test]
fn an_heir_that_nobody_wants_any_more_goes() {
    let mut table = Table::new(1);
    table.state.inherits(&[1], Vec::new());
    table.does(Event::Begin);
    table.does(Event::Gateway(FromGateway::Ready));
    table.up(1);
    assert_eq!(table.does(Event::ElderGone), "drain unlisten");
    // One that has the names already is not put out by the elder's end.
    let mut table = Table::new(1);
    table.state.inherits(&[1], Vec::new());
    table.does(Event::Begin);
    table.does(Event::Gateway(FromGateway::Ready));
    table.up(1);
    table.does(Event::Elder(ToHeir::Yours));
    table.does(Event::TookOver(Ok(Vec::new())));
    assert_eq!(table.does(Event::ElderGone), "");
    assert!(matches!(table.actions[..], [Action::Notify(Notify::Ready)]), "{:?}", table.actions);
}
