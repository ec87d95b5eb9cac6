//! Servers that are taken out by hand, and how all fare.

use std::sync::Arc;

use ctl_admin::words::{Drained, UpstreamAnswer, UpstreamRequest};
use ctl_config::Config;

use crate::upstream::fake::*;
use crate::upstream::{Secrets, Upstreams};

fn of(servers: &[&Fake]) -> Arc<Upstreams> {
    let mut config = Config::default();
    let servers = servers.iter().map(|fake| fake.address.to_string()).collect();
    config.upstream =
        vec![ctl_config::Upstream { name: "api".to_owned(), servers, ..ctl_config::Upstream::default() }];
    Upstreams::new(&config, &Secrets::default()).unwrap()
}

fn drain(server: &str) -> UpstreamRequest {
    let (upstream, server) = ("api".to_owned(), server.to_owned());
    UpstreamRequest::Drain(Drained { upstream, server, all: false })
}

fn said(answer: UpstreamAnswer) -> String {
    match answer {
        UpstreamAnswer::Done { text, drained } => format!("{text} ({} drained)", drained.len()),
        UpstreamAnswer::Failed { text } => format!("failed: {text}"),
    }
}

fn standings(upstreams: &Upstreams) -> Vec<String> {
    upstreams.status().into_iter().flat_map(|it| it.servers).map(|server| server.standing).collect()
}

#[tokio::test]
async fn a_drained_server_gets_nothing_until_it_is_put_back() {
    let (a, b) = (Fake::start(vec![answers(HELLO)]).await, Fake::start(vec![answers(HELLO)]).await);
    let upstreams = of(&[&a, &b]);
    let upstream = upstreams.named("api").unwrap();
    let done = said(upstreams.answer(&drain(&a.address.to_string())));
    assert_eq!(
        done,
        format!("http://{} of api gets no new requests; it works on nothing (1 drained)", a.address)
    );
    for _ in 0..10 {
        assert_eq!(get(upstream).await, "200 hello");
    }
    assert_eq!((a.connections(), standings(&upstreams)), (0, vec!["draining".into(), "serving".into()]));
    let all = said(upstreams.answer(&drain(&format!("http://{}", b.address))));
    assert!(all.contains("\nnote: no server of this upstream takes new requests now"), "{all}");
    assert_eq!(get(upstream).await, "all connections are in use", "503, and come again");
    let (upstream_name, server) = ("api".to_owned(), a.address.to_string());
    let back = upstreams.answer(&UpstreamRequest::Undrain { upstream: upstream_name, server });
    assert!(said(back).ends_with("gets requests again, slowly at first (1 drained)"));
    assert_eq!(get(upstream).await, "200 hello");
    assert_eq!((a.connections(), standings(&upstreams)), (1, vec!["warming".into(), "draining".into()]));
    let rows = upstreams.status().swap_remove(0).servers;
    assert_eq!((rows[0].requests_total, rows[1].requests_total), (1, 10));
    let metrics = upstreams.server_metrics();
    assert_eq!(metrics[1].1, format!("http://{}", b.address));
    assert_eq!((metrics[0].2.serving.get(), metrics[1].2.serving.get()), (1, 0));
}

#[tokio::test]
async fn the_next_gateway_is_told() {
    let (a, b) = (Fake::start(vec![answers(HELLO)]).await, Fake::start(vec![answers(HELLO)]).await);
    let UpstreamAnswer::Done { mut drained, .. } = of(&[&a, &b]).answer(&drain(&b.address.to_string()))
    else {
        panic!("it is drained")
    };
    let gone = Drained { upstream: "gone".to_owned(), ..drained[0].clone() };
    drained.push(gone);
    let next = of(&[&a, &b]);
    next.restore(&drained);
    assert_eq!(standings(&next), ["serving", "draining"]);
}

#[tokio::test]
async fn who_is_not_known_is_said_with_those_who_are() {
    let a = Fake::start(vec![answers(HELLO)]).await;
    let upstreams = of(&[&a]);
    assert_eq!(
        said(upstreams.answer(&drain("10.9.9.9:80"))),
        format!("failed: \"api\" has no server \"10.9.9.9:80\"\nhint: it has http://{}", a.address)
    );
    let request = UpstreamRequest::Undrain { upstream: "apo".to_owned(), server: String::new() };
    assert_eq!(said(upstreams.answer(&request)), "failed: there is no upstream \"apo\"\nhint: there is api");
    assert_eq!(
        said(Upstreams::default().answer(&request)),
        "failed: there is no upstream \"apo\"\nhint: no [[upstream]] is configured"
    );
}
