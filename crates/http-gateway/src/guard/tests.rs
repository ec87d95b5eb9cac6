//! Who is counted, who is refused and how, who is banned, and what of it outlives the process.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use ctl_admin::words::{BansAnswer, BansRequest};
use ctl_config::{Limit, LimitAction};

use super::*;
use crate::error_page::own_trail;
use crate::message::{Connection, Headers, Method, Taken, Version};

fn limit(name: &str, rate: &str, by: &[&str]) -> Limit {
    Limit {
        name: name.to_owned(),
        rate: rate.to_owned(),
        by: by.iter().map(|&by| by.to_owned()).collect(),
        ..Limit::default()
    }
}

fn config(limits: Vec<Limit>) -> Config {
    let mut config = Config { limit: limits, ..Config::default() };
    config.bans.after = Some(3);
    config
}

fn guard_in(config: &Config, state_dir: Option<&Path>) -> Guard {
    let trusted = TrustedProxies::parse(&["10.0.0.0/8"]).unwrap();
    Guard::new(config, Arc::new(trusted), state_dir.map(Path::to_path_buf), None).unwrap()
}

fn guard(config: &Config) -> Guard {
    guard_in(config, None)
}

fn head(request: &str, fields: &[(&str, &str)]) -> RequestHead {
    let (method, target) = request.split_once(' ').unwrap();
    let mut headers = Headers::default();
    for (name, value) in fields {
        headers.push(name.as_bytes(), value.as_bytes());
    }
    let (method, target) = (Method::from_bytes(method.as_bytes()), target.as_bytes().to_vec());
    RequestHead { method, target, version: Version::Http11, headers }
}

fn trail(client: &str) -> Trail {
    own_trail(Instant::now(), crate::request_id::RequestId::default(), Some(client.parse().unwrap()))
}

/// The status, or 0 for one who may go on.
fn asks(guard: &Guard, client: &str, request: &str, fields: &[(&str, &str)]) -> u16 {
    let trail = trail(client);
    match guard.enter(trail.client, &head(request, fields), &trail) {
        Entry::Passes(_) | Entry::Waits(..) | Entry::Asks(_) => 0,
        Entry::Refused(response) => response.status,
    }
}

fn answered(guard: &Guard, client: &str, status: u16, by: AnsweredBy) {
    let mut trail = trail(client);
    trail.by = by;
    let peer: Option<SocketAddr> = None;
    let connection = Connection {
        peer,
        peer_is_trusted: false,
        local: None,
        tls: false,
        tls_facts: None,
        certificate: None,
    };
    let exchange = Exchange {
        connection: &connection,
        head: None,
        status,
        body_bytes_sent: 0,
        complete: true,
        trail: &trail,
    };
    guard.seen(&exchange);
}

fn fields(response: &Response) -> String {
    let all = response.headers.iter().map(|(name, value)| {
        format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
    });
    all.filter(|field| field.to_lowercase().starts_with('r')).collect::<Vec<_>>().join(" | ")
}

#[test]
fn a_refusal_says_when_to_come_again() {
    let guard = guard(&config(vec![limit("all", "2/m", &["address"])]));
    assert_eq!(asks(&guard, "192.0.2.1", "GET /", &[]), 0);
    assert_eq!(asks(&guard, "192.0.2.1", "GET /x", &[]), 0);
    let trail = trail("192.0.2.1");
    let Entry::Refused(refused) = guard.enter(trail.client, &head("GET /", &[]), &trail) else {
        panic!("the third passes")
    };
    assert_eq!((refused.status, refused.close), (429, false));
    assert_eq!(
        fields(&refused),
        "retry-after: 30 | RateLimit-Policy: \"all\";q=2;w=60 | RateLimit: \"all\";r=0;t=30"
    );
    assert_eq!(asks(&guard, "192.0.2.2", "GET /", &[]), 0, "another client");
}

#[test]
fn answers_tell_what_is_left_when_they_are_to() {
    let mut login = limit("login", "5/m", &["address"]);
    login.announce = true;
    let mut api = limit("api", "100/h", &["address"]);
    (api.announce, api.burst) = (true, Some(10));
    let guard = guard(&config(vec![login, limit("quiet", "9/s", &["address"]), api]));
    let trail = trail("192.0.2.1");
    let Entry::Passes(pass) = guard.enter(trail.client, &head("GET /", &[]), &trail) else {
        panic!("the first is refused")
    };
    let mut response = crate::error_page::plain(200, "", trail);
    pass.tell(&mut response.headers);
    assert_eq!(
        fields(&response),
        "RateLimit-Policy: \"login\";q=5;w=60, \"api\";q=10;w=360 | RateLimit: \"login\";r=4;t=12, \"api\";r=9;t=36"
    );
}

#[test]
fn each_is_counted_by_what_the_limit_says() {
    /// Are both requests one to this limit?
    #[track_caller]
    fn check(
        by: &[&str],
        one: (&str, &str, &[(&str, &str)]),
        other: (&str, &str, &[(&str, &str)]),
        same: bool,
    ) {
        let guard = guard(&config(vec![limit("x", "1/h", by)]));
        guard.set_session_cookie(0, Some("sid"));
        assert_eq!(asks(&guard, one.0, one.1, one.2), 0);
        assert_eq!(asks(&guard, other.0, other.1, other.2) == 429, same, "{by:?} {one:?} {other:?}");
    }
    let (ann, bob) = ("192.0.2.1", "192.0.2.2");
    check(&["address"], (ann, "GET /", &[]), (ann, "POST /x", &[]), true);
    check(&["address"], (ann, "GET /", &[]), (bob, "GET /", &[]), false);
    check(&["address"], (ann, "GET /", &[]), ("::ffff:192.0.2.1", "GET /", &[]), true);
    check(&["address"], ("2001:db8::1", "GET /", &[]), ("2001:db8::2:3", "GET /", &[]), true);
    check(&["address"], ("2001:db8::1", "GET /", &[]), ("2001:db8:0:1::1", "GET /", &[]), false);
    check(&[], (ann, "GET /", &[]), (bob, "GET /x", &[]), true);
    check(&["path"], (ann, "GET /a", &[]), (bob, "GET /%61?q", &[]), true);
    check(&["path"], (ann, "GET /a", &[]), (ann, "GET /b", &[]), false);
    check(&["address", "path"], (ann, "GET /a", &[]), (bob, "GET /a", &[]), false);
    let key = |value| [("x-api-key", value)];
    check(&["header:X-Api-Key"], (ann, "GET /", &key("k")), (bob, "GET /", &key("k")), true);
    check(&["header:X-Api-Key"], (ann, "GET /", &key("k")), (ann, "GET /", &key("l")), false);
    check(&["header:X-Api-Key"], (ann, "GET /", &[]), (ann, "GET /x", &[]), true);
    check(&["header:X-Api-Key"], (ann, "GET /", &[]), (bob, "GET /", &[]), false);
    let cookie = |value| [("cookie", value)];
    check(&["user"], (ann, "GET /", &cookie("sid=1")), (bob, "GET /", &cookie("a=b; sid=1")), true);
    check(&["user"], (ann, "GET /", &cookie("sid=1")), (ann, "GET /", &cookie("sid=2")), false);
    check(&["user"], (ann, "GET /", &cookie("sessionid=1")), (ann, "GET /", &cookie("sessionid=2")), true);
    check(
        &["user"],
        (ann, "GET /", &[("authorization", "Bearer x")]),
        (bob, "GET /", &[("authorization", "Bearer x")]),
        true,
    );
}

#[test]
fn a_limit_holds_for_its_paths_and_methods() {
    let mut login = limit("login", "1/h", &["address"]);
    (login.path, login.method) = (vec!["/login/".to_owned(), "/api/*".to_owned()], vec!["POST".to_owned()]);
    let guard = guard(&config(vec![login]));
    assert_eq!(asks(&guard, "192.0.2.1", "POST /login/", &[]), 0);
    for (request, status) in [
        ("POST /login/?next=/", 429),
        ("POST /%6Cogin/", 429),
        ("POST /api/x", 429),
        ("GET /login/", 0),
        ("POST /login", 0),
        ("POST /", 0),
    ] {
        assert_eq!(asks(&guard, "192.0.2.1", request, &[]), status, "{request}");
    }
}

#[test]
fn who_is_refused_is_counted_under_no_limit() {
    let mut narrow = limit("narrow", "1/h", &["address"]);
    narrow.path = vec!["/narrow".to_owned()];
    let guard = guard(&config(vec![limit("wide", "3/h", &["address"]), narrow]));
    assert_eq!(asks(&guard, "192.0.2.1", "GET /narrow", &[]), 0);
    for _ in 0..5 {
        assert_eq!(asks(&guard, "192.0.2.1", "GET /narrow", &[]), 429);
    }
    assert_eq!([0; 3].map(|_: i32| asks(&guard, "192.0.2.1", "GET /", &[])), [0, 0, 429]);
}

#[test]
fn a_limit_that_a_route_names_holds_there_only() {
    let mut config = config(vec![limit("all", "3/h", &["address"]), limit("api", "1/h", &["address"])]);
    config.route = vec![ctl_config::Route { limit: vec!["api".to_owned()], ..Default::default() }];
    let guard = guard(&config);
    let (trail, asked) = (trail("192.0.2.1"), head("GET /", &[]));
    let status = |entry: Entry| match entry {
        Entry::Passes(_) | Entry::Waits(..) | Entry::Asks(_) => 0,
        Entry::Refused(response) => response.status,
    };
    let enter = || status(guard.enter(trail.client, &asked, &trail));
    let enter_route = || status(guard.enter_route(&[1], &asked, &trail));
    assert_eq!((enter(), enter_route()), (0, 0));
    for _ in 0..4 {
        assert_eq!((enter(), enter_route()), (0, 429), "refused by its route, counted for none");
    }
    assert_eq!([enter(), enter(), enter()], [0, 0, 429]);
    guard.leave_route(&[1], &asked, &trail);
    assert_eq!([enter_route(), enter_route()], [0, 429]);
}

#[test]
fn by_route_all_who_come_to_it_are_counted_together() {
    let mut config =
        config(vec![limit("api", "1/h", &["route"]), limit("each", "1/h", &["address", "route"])]);
    config.route =
        vec![ctl_config::Route { limit: vec!["api".to_owned(), "each".to_owned()], ..Default::default() }];
    let guard = guard(&config);
    let asks = |number: usize, client: &str, route: &str| {
        let mut trail = trail(client);
        trail.route = Some(Arc::new(Taken { name: route.into(), ..Taken::default() }));
        matches!(guard.enter_route(&[number], &head("GET /", &[]), &trail), Entry::Refused(_))
    };
    assert!(!asks(0, "192.0.2.1", "one"));
    assert!(asks(0, "192.0.2.2", "one"), "whoever comes");
    assert!(!asks(0, "192.0.2.2", "two"), "another route");
    assert!(!asks(1, "192.0.2.1", "one"));
    assert!(!asks(1, "192.0.2.2", "one"), "each by himself");
    assert!(asks(1, "192.0.2.2", "one"));
    assert!(!asks(1, "192.0.2.2", "two"));
}

#[test]
fn without_an_address_nobody_is_confused_with_another() {
    let guard = guard(&config(vec![limit("all", "1/h", &["address"])]));
    let trail = Trail { client: None, ..trail("192.0.2.1") };
    for _ in 0..3 {
        assert!(matches!(guard.enter(None, &head("GET /", &[]), &trail), Entry::Passes(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_delays_spreads_a_burst() {
    let mut slow = limit("slow", "10/s", &["address"]);
    (slow.action, slow.burst) = (LimitAction::Delay, Some(3));
    let guard = guard(&config(vec![slow]));
    let trail = trail("192.0.2.1");
    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.push(match guard.enter(trail.client, &head("GET /", &[]), &trail) {
            Entry::Passes(_) | Entry::Asks(_) => 0,
            Entry::Waits(turn_in, _) => {
                let began = tokio::time::Instant::now();
                assert!(guard.wait(turn_in).await);
                assert!(began.elapsed() >= turn_in);
                // The clock of the guard is the machine's: some of it may be over.
                turn_in.as_millis().div_ceil(100)
            }
            Entry::Refused(response) => u128::from(response.status),
        });
    }
    assert_eq!(turns, [0, 1, 2, 429]);
    guard.waiting.store(WAITING_MAX, Relaxed);
    assert!(!guard.wait(Duration::from_secs(1)).await, "no place to wait");
    assert_eq!(guard.waiting.load(Relaxed), WAITING_MAX);
    let refused = guard.too_many_wait(&head("GET /", &[]), &trail, Duration::from_millis(1500));
    assert_eq!((refused.status, fields(&refused).as_str()), (429, "retry-after: 2"));
}

#[test]
fn offences_lead_to_a_ban_that_is_answered_as_it_is_set() {
    let mut config = config(Vec::new());
    let guard = guard(&config);
    for status in [404, 200, 302, 500, 408, 412, 416, 429, 403] {
        assert_eq!(asks(&guard, "192.0.2.1", "GET /", &[]), 0, "before {status}");
        answered(&guard, "192.0.2.1", status, AnsweredBy::Worker(1));
    }
    assert_eq!(asks(&guard, "192.0.2.1", "GET /", &[]), 0, "three are allowed");
    answered(&guard, "192.0.2.1", 400, AnsweredBy::Gateway);
    assert_eq!(asks(&guard, "192.0.2.1", "GET /", &[]), 403);
    assert_eq!(guard.turns_away("192.0.2.1".parse().unwrap()), Some(Turned::Away));
    assert_eq!(guard.turns_away("192.0.2.2".parse().unwrap()), None);
    for _ in 0..20 {
        answered(&guard, "192.0.2.1", 403, AnsweredBy::Gateway);
    }
    guard.bans.remove("192.0.2.1".parse().unwrap(), guard.clock.now());
    answered(&guard, "192.0.2.1", 404, AnsweredBy::Gateway);
    assert_eq!(asks(&guard, "192.0.2.1", "GET /", &[]), 0, "what was said during the ban is no offence");

    config.bans.answer = BanAnswer::Drop;
    config.bans.count_4xx = false;
    let guard = self::guard(&config);
    for _ in 0..20 {
        answered(&guard, "2001:db8::1", 404, AnsweredBy::Worker(1));
    }
    assert_eq!(asks(&guard, "2001:db8::1", "GET /", &[]), 0);
    for _ in 0..4 {
        answered(&guard, "2001:db8::1", 429, AnsweredBy::Gateway);
    }
    assert_eq!(asks(&guard, "2001:db8::ffff", "GET /", &[]), NO_ANSWER, "the /64");
    assert_eq!(guard.turns_away("2001:db8::2".parse().unwrap()), Some(Turned::Silently));
}

#[test]
fn a_trusted_proxy_is_never_banned() {
    let guard = guard(&config(Vec::new()));
    for _ in 0..50 {
        answered(&guard, "10.1.2.3", 404, AnsweredBy::Worker(1));
    }
    assert_eq!(asks(&guard, "10.1.2.3", "GET /", &[]), 0);
    let request = BansRequest::Add { address: "10.1.2.3".parse().unwrap(), seconds: None };
    let BansAnswer::Failed { text } = guard.answer(&request) else { panic!("the proxy was banned") };
    assert!(text.contains("trusted proxy"), "{text}");
    assert_eq!(guard.turns_away("10.1.2.3".parse().unwrap()), None);
}

#[test]
fn the_operator_bans_and_pardons() {
    let guard = guard(&config(Vec::new()));
    let address = "192.0.2.9".parse().unwrap();
    let done = guard.answer(&BansRequest::Add { address, seconds: Some(90) });
    assert_eq!(done, BansAnswer::Done { text: "192.0.2.9 is banned for 90 s".to_owned() });
    assert_eq!(asks(&guard, "192.0.2.9", "GET /", &[]), 403);
    let BansAnswer::List { bans, total: 1 } = guard.answer(&BansRequest::List) else { panic!("one ban") };
    assert_eq!((bans[0].client.as_str(), bans[0].by.as_str(), bans[0].times), ("192.0.2.9", "operator", 1));
    assert!((88..=90).contains(&bans[0].ends_in_s));
    let done = guard.answer(&BansRequest::Remove { address });
    assert_eq!(done, BansAnswer::Done { text: "192.0.2.9 may come again".to_owned() });
    assert_eq!(asks(&guard, "192.0.2.9", "GET /", &[]), 0);
    let failed = guard.answer(&BansRequest::Remove { address });
    assert_eq!(failed, BansAnswer::Failed { text: "192.0.2.9 is not banned".to_owned() });
}

#[test]
fn lists_are_read_again_when_they_change_and_kept_when_they_are_broken() {
    let dir = tempfile::tempdir().unwrap();
    let (deny, allow) = (dir.path().join("deny"), dir.path().join("allow"));
    fs::write(&deny, "192.0.2.0/24\n").unwrap();
    fs::write(&allow, "192.0.2.7 # the office\n").unwrap();
    let mut config = config(Vec::new());
    (config.bans.deny_file, config.bans.allow_file) = (Some(deny.clone()), Some(allow.clone()));
    let guard = guard(&config);
    let mut files = chores::Files::of(&config);
    let mut look = |guard: &Guard| files.look(guard);
    let statuses = |guard: &Guard| {
        ["192.0.2.1", "192.0.2.7", "198.51.100.1"].map(|client| asks(guard, client, "GET /", &[]))
    };
    assert_eq!(statuses(&guard), [403, 0, 0]);
    for _ in 0..10 {
        answered(&guard, "192.0.2.7", 404, AnsweredBy::Worker(1));
    }
    assert_eq!(statuses(&guard), [403, 0, 0], "who is on the list is never banned");
    look(&guard);
    fs::write(&deny, "192.0.2.0/24\n198.51.100.0/24\n").unwrap();
    fs::write(&allow, "").unwrap();
    assert_eq!(statuses(&guard), [403, 0, 0], "before the look");
    look(&guard);
    assert_eq!(statuses(&guard), [403, 403, 403]);
    fs::write(&deny, "192.0.2.0/24\nnobody\n").unwrap();
    look(&guard);
    assert_eq!(statuses(&guard), [403, 403, 403], "the list of before");
    fs::remove_file(&deny).unwrap();
    look(&guard);
    assert_eq!(statuses(&guard), [403, 403, 403], "the list of before");
    fs::write(&deny, "# nobody\n").unwrap();
    look(&guard);
    assert_eq!(statuses(&guard), [0, 0, 0]);
    fs::write(&deny, "300.1.1.1\n").unwrap();
    let trusted = Arc::new(TrustedProxies::default());
    let why = Guard::new(&config, trusted, None, None).err().unwrap();
    assert!(why.contains("line 1: \"300.1.1.1\"") && why.contains("bans.deny_file"), "{why}");
}

#[test]
fn bans_and_counts_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let config = config(vec![limit("all", "2/h", &["address"]), limit("other", "1000/s", &["address"])]);
    let before = guard_in(&config, Some(&state));
    before.keep();
    assert!(!state.exists(), "nothing to keep, nothing written");
    for _ in 0..4 {
        answered(&before, "192.0.2.1", 404, AnsweredBy::Worker(1));
    }
    assert_eq!([0; 3].map(|_: i32| asks(&before, "192.0.2.2", "GET /", &[])), [0, 0, 429]);
    before.keep();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&state.join("limits").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let after = guard_in(&config, Some(&state));
    assert_eq!(asks(&after, "192.0.2.1", "GET /", &[]), 403);
    assert_eq!(asks(&after, "192.0.2.2", "GET /", &[]), 429);
    assert_eq!(asks(&after, "192.0.2.3", "GET /", &[]), 0);

    let mut other_terms = config.clone();
    other_terms.limit[0].rate = "3/h".to_owned();
    let after = guard_in(&other_terms, Some(&state));
    assert_eq!(asks(&after, "192.0.2.2", "GET /", &[]), 0, "counted under other terms");
    assert_eq!(asks(&after, "192.0.2.1", "GET /", &[]), 403);

    fs::write(state.join("limits"), b"something else").unwrap();
    let after = guard_in(&config, Some(&state));
    assert_eq!(asks(&after, "192.0.2.1", "GET /", &[]), 0, "begins anew");
}

#[test]
fn a_clock_that_jumps_frees_nobody_and_keeps_nobody_longer() {
    const DAY_MS: u64 = 86_400_000;
    let config = config(vec![limit("all", "2/h", &["address"])]);
    let before = guard(&config);
    let (banned, limited) = ("192.0.2.1", "192.0.2.2");
    before.bans.add(banned.parse().unwrap(), Duration::from_secs(600), before.clock.now()).unwrap();
    assert_eq!([0; 3].map(|_: i32| asks(&before, limited, "GET /", &[])), [0, 0, 429]);
    let mut kept = before.snapshot();
    kept.seed = before.seed;
    let written = kept.written;
    assert!(written.boot != 0 && written.since_boot_ms > 0);
    let after = |moment: Moment| {
        let after = guard(&config);
        // Keys are hashes under the seed.
        let kept = Snapshot { seed: after.seed, limits: Vec::new(), ..kept.clone() };
        after.learn_at(&kept, moment);
        after.bans.ends_in(banned.parse().unwrap(), after.clock.now()).map(|left| left.as_secs())
    };
    let later = |since_boot_ms: u64, wall_ms: u64| Moment {
        since_boot_ms: written.since_boot_ms + since_boot_ms,
        wall_ms,
        ..written
    };
    for wall_ms in [written.wall_ms, written.wall_ms + 4000 * DAY_MS, written.wall_ms - 4000 * DAY_MS, 0] {
        assert!(matches!(after(later(300_500, wall_ms)), Some(298..=300)), "the wall clock says {wall_ms}");
        assert_eq!(after(later(601_000, wall_ms)), None, "the wall clock says {wall_ms}");
    }
    // After another boot there is no other clock.
    let rebooted = |wall_ms| Moment { boot: written.boot ^ 1, since_boot_ms: 5, wall_ms };
    assert!(matches!(after(rebooted(written.wall_ms + 300_000)), Some(298..=300)));
    assert!(matches!(after(rebooted(0)), Some(598..=600)), "set back: no longer than it was");
}

#[test]
fn an_heir_learns_what_its_elder_wrote_last() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(vec![limit("all", "2/h", &["address"])]);
    let elder = guard_in(&config, Some(dir.path()));
    elder.answer(&BansRequest::Add { address: "192.0.2.9".parse().unwrap(), seconds: None });
    elder.keep();
    let heir = guard_in(&config, Some(dir.path()));
    for _ in 0..4 {
        answered(&elder, "192.0.2.1", 404, AnsweredBy::Worker(1));
    }
    for _ in 0..2 {
        assert_eq!(asks(&elder, "192.0.2.2", "GET /", &[]), 0);
    }
    assert_eq!(asks(&heir, "192.0.2.1", "GET /", &[]), 0, "not known yet");
    elder.hand_over();
    answered(&heir, "192.0.2.77", 404, AnsweredBy::Worker(1));
    heir.look_after(true);
    assert_eq!(asks(&heir, "192.0.2.1", "GET /", &[]), 403);
    assert_eq!(asks(&heir, "192.0.2.2", "GET /", &[]), 429);
    assert_eq!(asks(&heir, "192.0.2.9", "GET /", &[]), 403);
    // The elder writes no more, whatever happens there.
    elder.answer(&BansRequest::Remove { address: "192.0.2.9".parse().unwrap() });
    elder.look_after(true);
    elder.keep();
    let next = guard_in(&config, Some(dir.path()));
    assert_eq!(asks(&next, "192.0.2.9", "GET /", &[]), 403);
    assert_eq!(asks(&next, "192.0.2.1", "GET /", &[]), 403);
}
