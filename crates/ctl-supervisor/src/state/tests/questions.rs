//! What is handed on to the gateway.

use ctl_admin::words::{BansAnswer, BansRequest, Drained, UpstreamAnswer, UpstreamRequest};

use super::*;

#[test]
fn a_question_about_bans_goes_to_the_gateway_and_its_answer_back() {
    let ask = |client| Event::Asked { client, command: Command::Bans(BansRequest::List) };
    let answer = |number| {
        let answer = BansAnswer::List { bans: Vec::new(), total: 0 };
        Event::Gateway(FromGateway::Bans { number, answer })
    };
    let mut table = Table::serving(1);
    assert_eq!(table.does(ask(7)), "bans7");
    assert_eq!(table.does(ask(8)), "bans8");
    assert_eq!(table.does(answer(7)), "bans→7");
    assert_eq!(table.does(answer(7)), "", "once");
    assert_eq!(table.after(Duration::from_secs(3)), "failed→8");
    assert_eq!(table.does(answer(8)), "", "too late");
    table.does(ask(9));
    let died = table.exits(Who::Gateway, Exit::Signal(9));
    assert!(died.contains("failed→9"), "{died}");
}

#[test]
fn who_is_drained_stays_so_when_the_gateway_dies() {
    let drained = Drained { upstream: "api".to_owned(), server: "http://a:80".to_owned(), all: false };
    let ask =
        |client| Event::Asked { client, command: Command::Upstream(UpstreamRequest::Drain(drained.clone())) };
    let answer = |number, drained: &[Drained]| {
        let answer = UpstreamAnswer::Done { text: String::new(), drained: drained.to_vec() };
        Event::Gateway(FromGateway::Upstream { number, answer })
    };
    let mut table = Table::serving(1);
    assert_eq!(table.does(ask(7)), "upstream7");
    assert_eq!(table.does(answer(7, std::slice::from_ref(&drained))), "done→7");
    assert_eq!(table.state.drained(), std::slice::from_ref(&drained));
    table.after(Duration::from_secs(5));
    let died = table.exits(Who::Gateway, Exit::Signal(9));
    assert!(died.contains("gateway:active1:drained"), "{died}");
    assert_eq!(table.does(ask(8)), "failed→8", "nobody is there to do it");
    table.does(Event::Gateway(FromGateway::Ready));
    table.does(ask(9));
    table.after(Duration::from_secs(3));
    assert_eq!(table.does(answer(9, &[])), "", "too late for who has asked");
    assert!(table.state.drained().is_empty(), "but it is so");
}
