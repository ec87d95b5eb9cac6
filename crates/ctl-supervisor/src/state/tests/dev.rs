//! `quintet dev`: what a change of the code does.

use super::*;

/// A table of `quintet dev`, serving with worker 1.
fn developing() -> Table {
    let mut table = Table::new(1);
    table.settings.dev = true;
    table.begin();
    table
}

fn saved(table: &mut Table) -> [String; 2] {
    let changed = table.does(Event::CodeChanged { what: "views.py".to_owned(), modules: vec![0] });
    [changed, table.does(Event::ConfigRead(Ok(table.settings.clone())))]
}

#[test]
fn new_code_is_started_at_once_and_the_old_one_takes_no_more_requests() {
    let mut table = developing();
    table.up(1);
    assert_eq!(saved(&mut table), ["hold retire[1] read-config", "worker2:generation2"]);
    assert_eq!(table.up(2), "activate2");
    // What the old one still does is cut soon.
    assert_eq!(table.after(Duration::from_secs(1)), "term1");
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(15)), "");
    assert_eq!(table.after(Duration::from_secs(600)), "");
}

#[test]
fn a_second_save_overtakes_the_first() {
    let mut table = developing();
    table.up(1);
    saved(&mut table);
    assert_eq!(saved(&mut table), ["hold term2 read-config", "worker3:generation3"]);
    // Whatever the second says now, nobody asked.
    table.fails(2);
    assert_eq!(table.up(3), "activate3");
    // Before the configuration is read nothing is started, not even for a third save.
    table.does(Event::CodeChanged { what: "a.py".to_owned(), modules: vec![0] });
    table.does(Event::CodeChanged { what: "b.py".to_owned(), modules: vec![0] });
    assert_eq!(table.after(Duration::from_secs(1)), "term1 kill2 term3", "none is started");
    assert_eq!(table.does(Event::ConfigRead(Ok(table.settings.clone()))), "worker4:generation5");
}

#[test]
fn code_that_does_not_import_is_told_to_the_gateway_until_the_next_change() {
    let mut table = developing();
    // Also at the very start, where `quintet run` would end.
    assert_eq!(table.fails(1), "show broken:no");
    assert_eq!(table.state.dev_notes(), ["the code does not start, so nothing is served: no"]);
    table.exits(Who::Worker(1), Exit::Code(78));
    assert_eq!(table.after(Duration::from_secs(60)), "");
    assert_eq!(saved(&mut table), ["hold read-config", "worker2:generation2"]);
    assert_eq!(table.up(2), "activate2 serving");
    saved(&mut table);
    assert_eq!(table.fails(3), "show broken:no");
    table.exits(Who::Worker(2), Exit::Code(0));
    table.exits(Who::Worker(3), Exit::Code(78));
    // The next gateway hears of it, too.
    table.exits(Who::Gateway, Exit::Signal(11));
    table.after(Duration::from_secs(2));
    assert_eq!(table.does(Event::Gateway(FromGateway::Ready)), "broken:no");
    // A wrong configuration is no better.
    table.does(Event::CodeChanged { what: "quintet.toml".to_owned(), modules: vec![0] });
    let wrong = table.does(Event::ConfigRead(Err("error: no such key".to_owned())));
    assert_eq!(wrong, "show broken:the configuration is wrong");
    assert_eq!(table.after(Duration::from_secs(60)), "");
    saved(&mut table);
    assert_eq!(table.up(4), "activate5");
}

#[test]
fn a_reload_that_is_asked_for_in_development_is_a_change() {
    let mut table = developing();
    table.up(1);
    let asked = table.does(Event::Asked { client: 7, command: Command::Reload { module: None } });
    assert!(table.logged(Level::Info).ends_with("a reload was asked for: restarting"));
    assert_eq!(asked, "done→7 hold retire[1] read-config");
    // Changes are of no interest to an instance that serves visitors, or that stops.
    assert_eq!(
        Table::serving(1).does(Event::CodeChanged { what: "views.py".to_owned(), modules: vec![0] }),
        ""
    );
    table.does(Event::StopSignal);
    assert_eq!(table.does(Event::CodeChanged { what: "views.py".to_owned(), modules: vec![0] }), "");
}
