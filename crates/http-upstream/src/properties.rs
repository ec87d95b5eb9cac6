//! What holds whatever happens: weights, bounds, stickiness, who is out stays out. Random lives of groups, checked at each step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::{
    Ask, Change, Drain, Group, NoServer, Outcome, Pick, Policy, Secret, Server, ServerStatus, Standing,
    Terms, Token, key,
};

const MS: Duration = Duration::from_millis(1);

fn server(host: u32, weight: u32) -> Server<u32> {
    Server { name: format!("host-{host}"), weight, server: host }
}

fn group(terms: Terms, weights: &[u32], now: Instant) -> Arc<Group<u32>> {
    let servers = weights.iter().zip(0..).map(|(&weight, host)| server(host, weight)).collect();
    Group::new("api", terms, Some(Secret::from_bytes(&[1; 32])), servers, now)
}

fn of(policy: Policy) -> Terms {
    Terms { policy, ..Terms::default() }
}

fn ask(now: Instant, random: u64) -> Ask<'static> {
    Ask { now, random, key: None, sticky: None, tried: &[] }
}

fn lives(status: &ServerStatus) -> bool {
    match status.standing {
        Standing::Serving | Standing::Warming | Standing::Probation => true,
        // Its time is over: the next request will find it on probation.
        Standing::Ejected => status.back_in.is_some_and(|left| left.is_zero()),
        Standing::Down | Standing::Draining | Standing::Leaving => false,
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![Policy::PeakEwma, Policy::LeastLoaded, Policy::RoundRobin, Policy::Hash])
}

#[derive(Debug, Clone)]
enum Step {
    Pick { random: u64, key: Option<u64>, sticky: Option<u32>, tried: bool },
    Finish { which: usize, outcome: Outcome },
    Abandon { which: usize },
    Health { host: usize, well: bool },
    Drain { host: u32, drain: Drain },
    Servers(Vec<u32>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome =
        prop::sample::select(vec![Outcome::Answered, Outcome::Failed, Outcome::Failed, Outcome::NotReached]);
    let drain = prop_oneof![3 => Just(Drain::Off), 1 => Just(Drain::New), 1 => Just(Drain::All)];
    prop_oneof![
        8 => (any::<u64>(), any::<Option<u64>>(), prop::option::of(0_u32..6), any::<bool>())
            .prop_map(|(random, key, sticky, tried)| Step::Pick { random, key, sticky, tried }),
        6 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Finish { which, outcome }),
        1 => any::<usize>().prop_map(|which| Step::Abandon { which }),
        1 => (0_usize..6, any::<bool>()).prop_map(|(host, well)| Step::Health { host, well }),
        1 => (0_u32..6, drain).prop_map(|(host, drain)| Step::Drain { host, drain }),
        1 => prop::collection::btree_set(0_u32..6, 0..6).prop_map(|hosts| Step::Servers(hosts.into_iter().collect())),
        3 => (0_u64..8000).prop_map(Step::Wait),
    ]
}

/// A group's life, and what is known of it from outside.
struct Life {
    group: Arc<Group<u32>>,
    terms: Terms,
    now: Instant,
    picks: Vec<Pick<u32>>,
}

impl Life {
    fn status(&self) -> BTreeMap<String, ServerStatus> {
        let status = self.group.status(self.now).into_iter();
        // One that left and came again is there twice for a while; the one that leaves comes last.
        status.rev().map(|status| (status.name.clone(), status)).collect()
    }

    fn pick(&mut self, ask: &Ask<'_>, tried: Option<&str>) {
        let before = self.status();
        let picked = self.group.pick(ask);
        let others = |status: &&ServerStatus| tried != Some(&*status.name);
        let living = || before.values().filter(|status| lives(status)).filter(others);
        let open = |status: &ServerStatus| status.pending < self.terms.concurrency_max;
        let pick = match picked {
            Ok(pick) => pick,
            Err(NoServer::Full) => {
                assert!(before.values().filter(others).any(|status| !open(status)), "{before:?}");
                return;
            }
            Err(NoServer::None) => {
                let stays = |status: &ServerStatus| status.standing != Standing::Leaving;
                return assert!(!before.values().any(stays), "{before:?}");
            }
            Err(NoServer::Drained | NoServer::Tried) => {
                return assert!(!living().any(|status| status.standing != Standing::Probation), "{before:?}");
            }
        };
        let name = format!("host-{}", pick.server());
        let chosen = &before[&name];
        assert!(open(chosen), "never more than it may have: {chosen:?}");
        assert_ne!(chosen.standing, Standing::Leaving);
        let own = ask.sticky == Some(Token::new(&Secret::from_bytes(&[1; 32]), "api", &name));
        let kept = own && self.group.drained().contains(&(name.clone(), Drain::New));
        assert!(chosen.standing != Standing::Draining || kept, "{chosen:?}");
        assert_ne!(tried, Some(&*name));
        if !lives(chosen) && !kept {
            let free =
                |status: &&ServerStatus| matches!(status.standing, Standing::Serving | Standing::Warming);
            assert_eq!(living().filter(free).count(), 0, "{name} is out, others are not: {before:?}");
        }
        let wanted = before.values().find(|status| {
            let token = Token::new(&Secret::from_bytes(&[1; 32]), "api", &status.name);
            ask.sticky == Some(token)
        });
        if let Some(wanted) = wanted.filter(|it| open(it) && tried != Some(&*it.name))
            && matches!(wanted.standing, Standing::Serving | Standing::Warming)
        {
            assert_eq!(name, wanted.name, "a client stays where it is");
            assert_eq!(pick.new_token(), None);
        } else if ask.sticky.is_some() && wanted.is_none_or(|wanted| wanted.name != name) {
            assert!(pick.new_token().is_some(), "or is told where it is now");
        }
        self.picks.push(pick);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pick { random, key, sticky, tried } => {
                let last = self.picks.last().filter(|_| tried);
                let (tried, name) = match last {
                    Some(pick) => (vec![pick.id()], Some(format!("host-{}", pick.server()))),
                    None => (Vec::new(), None),
                };
                let sticky = sticky
                    .map(|host| Token::new(&Secret::from_bytes(&[1; 32]), "api", &format!("host-{host}")));
                self.pick(&Ask { now: self.now, random, key, sticky, tried: &tried }, name.as_deref());
            }
            Step::Finish { which, outcome } if !self.picks.is_empty() => {
                let pick = self.picks.swap_remove(which % self.picks.len());
                let change = pick.finished(outcome, 10 * MS, self.now);
                if let Some(Change::Ejected(time)) = change {
                    assert!(time >= self.terms.eject_time && time <= self.terms.eject_time_max);
                    let status = self.status();
                    let out = |it: &&ServerStatus| it.standing == Standing::Ejected;
                    assert!(status.values().any(lives), "never the last: {status:?}");
                    let (all, out) = (status.len(), status.values().filter(out).count());
                    let share = self.terms.eject_percent_max as usize;
                    assert!(out <= 1 || outcome == Outcome::NotReached || out * 100 <= all * share);
                }
            }
            Step::Abandon { which } if !self.picks.is_empty() => {
                drop(self.picks.swap_remove(which % self.picks.len()));
            }
            Step::Finish { .. } | Step::Abandon { .. } => {}
            Step::Health { host, well } => {
                if let Some((id, _)) = self.group.servers().get(host) {
                    self.group.report_health(*id, well, self.now);
                }
            }
            Step::Drain { host, drain } => self.group.drain(&format!("host-{host}"), drain, self.now),
            Step::Servers(hosts) => {
                let servers = hosts.into_iter().map(|host| server(host, 1 + host % 3)).collect();
                self.group.set_servers(servers, self.now);
            }
            Step::Wait(ms) => self.now += Duration::from_millis(ms),
        }
        let pending: u32 = self.group.status(self.now).iter().map(|status| status.pending).sum();
        assert_eq!(pending as usize, self.picks.len(), "each request is with one server");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens(
        policy in policy(),
        concurrency_max in 1_u32..6,
        eject_after in 1_u32..4,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let terms = Terms { concurrency_max, eject_after, ..of(policy) };
        let now = Instant::now();
        let mut life = Life { group: group(terms, &[1, 2, 3, 1], now), terms, now, picks: Vec::new() };
        for step in steps {
            life.step(step);
        }
        life.picks.clear();
        prop_assert!(life.group.status(now).iter().all(|it| it.standing != Standing::Leaving), "they are forgotten");
    }

    /// Round robin keeps to the weights in every stretch, not only in the end.
    #[test]
    fn turns_are_by_weight(weights in prop::collection::vec(1_u32..20, 1..8), rounds in 1_u32..200) {
        let now = Instant::now();
        let group = group(of(Policy::RoundRobin), &weights, now);
        let all: u32 = weights.iter().sum();
        for taken in 1..=rounds {
            drop(group.pick(&ask(now, 0)).unwrap());
            for status in group.status(now) {
                let due = f64::from(taken * status.weight) / f64::from(all);
                let off = (status.requests as f64 - due).abs();
                prop_assert!(off <= weights.len() as f64 / 2.0 + 1.0, "{off} {status:?}");
            }
        }
    }

    /// No server has more than its share of what is on its way, and a quarter.
    #[test]
    fn the_load_by_key_is_bounded(
        weights in prop::collection::vec(1_u32..5, 1..8),
        keys in prop::collection::vec((0_u64..3, any::<bool>()), 1..300),
    ) {
        let now = Instant::now();
        let group = group(of(Policy::Hash), &weights, now);
        let mut picks = Vec::new();
        for (at, finishes) in keys {
            picks.push(group.pick(&Ask { key: Some(at), ..ask(now, 0) }).unwrap());
            let host = *picks[picks.len() - 1].server() as usize;
            let its = group.status(now)[host].pending;
            let share = f64::from(weights[host]) / f64::from(weights.iter().sum::<u32>());
            prop_assert!(f64::from(its) <= (1.25 * picks.len() as f64 * share).ceil(), "{its} of {}", picks.len());
            if finishes {
                drop(picks.swap_remove(at as usize % picks.len()));
            }
        }
    }
}

/// With how many requests on their way at a time; each host's requests.
fn shares(policy: Policy, weights: &[u32], at_once: usize) -> Vec<f64> {
    let mut now = Instant::now();
    let group = group(of(policy), weights, now);
    let mut picks = std::collections::VecDeque::new();
    for random in 0..6000 {
        now += MS;
        picks.push_back(group.pick(&ask(now, key(&u64::to_le_bytes(random)))).unwrap());
        if picks.len() >= at_once {
            let pick = picks.pop_front().unwrap();
            pick.finished(Outcome::Answered, 20 * MS, now);
        }
    }
    group.status(now).iter().map(|status| status.requests as f64 / 6000.0).collect()
}

#[test]
fn weights_are_kept_idle_and_busy() {
    for policy in [Policy::PeakEwma, Policy::LeastLoaded, Policy::RoundRobin] {
        for at_once in [1, 6, 60, 300] {
            let shares = shares(policy, &[3, 2, 1], at_once);
            for (share, due) in shares.iter().zip([0.5, 0.333, 0.167]) {
                // Two choices see one pair at a time.
                let off = if policy == Policy::PeakEwma { 0.1 } else { 0.05 };
                assert!((share - due).abs() < off, "{policy:?}, {at_once} at once: {shares:?}");
            }
        }
    }
}

fn homes(group: &Arc<Group<u32>>, now: Instant) -> Vec<u32> {
    let home = |key| *group.pick(&Ask { key: Some(key), ..ask(now, key) }).unwrap().server();
    (0..2000).map(|number| home(key(&u64::to_le_bytes(number)))).collect()
}

#[test]
fn keys_stay_when_servers_come_and_go() {
    let now = Instant::now();
    let terms = Terms { slow_start: Duration::ZERO, ..of(Policy::Hash) };
    let group = group(terms, &[1, 1, 1, 1], now);
    let before = homes(&group, now);
    for host in 0..4 {
        let count = before.iter().filter(|&&home| home == host).count();
        assert!((400..600).contains(&count), "{count}");
    }
    group.set_servers((0..3).map(|host| server(host, 1)).collect(), now);
    for (before, after) in before.iter().zip(homes(&group, now)) {
        assert!(*before == after || *before == 3, "only its own keys move");
    }
    group.set_servers((0..5).map(|host| server(host, 1)).collect(), now);
    let moved = before.iter().zip(homes(&group, now)).filter(|(before, after)| **before != *after);
    let moved: Vec<_> = moved.map(|(_, after)| after).collect();
    assert!(moved.iter().all(|&after| after == 4) && (300..500).contains(&moved.len()), "{}", moved.len());
    group.drain("host-4", Drain::New, now);
    assert_eq!(homes(&group, now), before);
    let heavy = (0..4).map(|host| server(host, if host == 0 { 3 } else { 1 })).collect();
    group.set_servers(heavy, now);
    let first = homes(&group, now).iter().filter(|&&home| home == 0).count();
    assert!((900..1100).contains(&first), "half of all: {first}");
}

#[test]
fn a_key_comes_back_once_during_slow_start() {
    let start = Instant::now();
    let group = group(of(Policy::Hash), &[1, 1, 1], start);
    let before = homes(&group, start);
    group.drain("host-1", Drain::All, start);
    group.drain("host-1", Drain::Off, start);
    let mut homes_before = vec![];
    let mut counts = Vec::new();
    for second in 0..=10 {
        let after = homes(&group, start + Duration::from_secs(second));
        counts.push(after.iter().filter(|&&home| home == 1).count());
        for (at, home) in after.iter().enumerate() {
            let was = homes_before.get(at).copied();
            assert!(*home == before[at] || was.is_none_or(|was| was == *home), "straight back");
        }
        homes_before = after;
    }
    assert!(counts.is_sorted() && counts[0] < 150 && counts[5] < 500, "{counts:?}");
    assert_eq!(homes_before, before);
}

#[test]
fn requests_of_a_server_that_is_gone_do_no_harm() {
    let now = Instant::now();
    let group = group(of(Policy::RoundRobin), &[1], now);
    let mut old = group.pick(&ask(now, 0)).unwrap();
    group.set_servers(vec![server(7, 1)], now);
    assert_eq!(*group.pick(&ask(now, 0)).unwrap().server(), 7, "the new one, at once");
    let standings: Vec<_> = group.status(now).iter().map(|it| it.standing).collect();
    assert_eq!(standings, [Standing::Warming, Standing::Leaving]);
    assert_eq!(old.record(Outcome::Failed, MS, now), None);
    assert_eq!(old.record(Outcome::Answered, MS, now), None, "only the first word counts");
    group.set_servers(vec![server(0, 1)], now);
    assert_eq!(group.status(now).len(), 1, "it comes back before its request is over, and is the same");
    assert_eq!(group.status(now)[0].failures, 1);
    group.set_servers(vec![], now);
    assert_eq!(group.pick(&ask(now, 0)).unwrap_err(), NoServer::None);
    drop(old);
    assert!(group.status(now).is_empty());
}

#[test]
fn why_there_is_no_server() {
    let now = Instant::now();
    let group = group(Terms { concurrency_max: 1, ..Terms::default() }, &[1, 1], now);
    let one = group.pick(&ask(now, 1)).unwrap();
    let tried = [one.id()];
    let again = Ask { tried: &tried, ..ask(now, 1) };
    let other = group.pick(&again).unwrap();
    assert_ne!(one.id(), other.id());
    assert_eq!(group.pick(&ask(now, 1)).unwrap_err(), NoServer::Full);
    assert_eq!(group.pick(&again).unwrap_err(), NoServer::Full);
    let both = [one.id(), other.id()];
    assert_eq!(group.pick(&Ask { tried: &both, ..ask(now, 1) }).unwrap_err(), NoServer::Tried);
    group.drain("host-0", Drain::New, now);
    group.drain("host-1", Drain::All, now);
    assert_eq!(group.pick(&ask(now, 1)).unwrap_err(), NoServer::Drained);
    let host = *one.server();
    drop(one);
    group.drain(&format!("host-{host}"), Drain::Off, now);
    assert_eq!(*group.pick(&ask(now, 1)).unwrap().server(), host);
}

#[test]
fn a_drained_server_keeps_its_clients_or_not() {
    let now = Instant::now();
    let group = group(of(Policy::RoundRobin), &[1, 1], now);
    let token = |host| Token::new(&Secret::from_bytes(&[1; 32]), "api", &format!("host-{host}"));
    let gets = |sticky| *group.pick(&Ask { sticky, ..ask(now, 0) }).unwrap().server();
    group.drain("host-0", Drain::New, now);
    assert_eq!([gets(None), gets(None), gets(None)], [1, 1, 1]);
    assert_eq!([gets(Some(token(0))), gets(Some(token(1)))], [0, 1]);
    group.drain("host-0", Drain::All, now);
    let pick = group.pick(&Ask { sticky: Some(token(0)), ..ask(now, 0) }).unwrap();
    assert_eq!((*pick.server(), pick.new_token()), (1, Some(token(1))), "it is told where it is now");
    group.set_servers(vec![server(1, 1)], now);
    group.set_servers(vec![server(0, 1), server(1, 1)], now);
    assert_eq!([gets(None), gets(None)], [1, 1], "it comes back as it went");
    assert_eq!(group.drained(), [("host-0".to_owned(), Drain::All)]);
    group.drain("host-0", Drain::Off, now);
    assert_eq!(gets(Some(token(0))), 0);
    assert!(group.drained().is_empty());
}

#[test]
fn checks_take_out_and_bring_back() {
    let now = Instant::now();
    let group = group(Terms::default(), &[1, 1], now);
    let ids: Vec<_> = group.servers().iter().map(|(id, _)| *id).collect();
    assert_eq!(group.report_health(ids[0], false, now), Some(Change::Down));
    for random in 0..50 {
        assert_eq!(*group.pick(&ask(now, random)).unwrap().server(), 1);
    }
    assert_eq!(group.report_health(ids[1], false, now), Some(Change::Down));
    assert!(
        group.pick(&ask(now, 1)).is_ok(),
        "checks that all fail may be wrong; to refuse all helps nobody"
    );
    assert_eq!(group.report_health(ids[0], true, now), None);
    assert_eq!(group.report_health(ids[0], true, now), Some(Change::Up));
    assert_eq!(group.status(now)[0].standing, Standing::Warming);
    assert_eq!(*group.pick(&ask(now, 1)).unwrap().server(), 0);
    group.set_servers(vec![server(1, 1)], now);
    assert_eq!(group.report_health(ids[0], true, now), None, "it is gone");
}

#[test]
fn which_answers_are_failures() {
    for (status, outcome) in [
        (200, Outcome::Answered),
        (404, Outcome::Answered),
        (429, Outcome::Answered),
        (500, Outcome::Failed),
        (501, Outcome::Answered),
        (503, Outcome::Failed),
        (505, Outcome::Answered),
        (508, Outcome::Answered),
    ] {
        assert_eq!(Outcome::of_status(status), outcome, "{status}");
    }
}

#[test]
fn few_failures_do_not_keep_requests_away_for_long() {
    const TOOK: Duration = Duration::from_micros(300);
    let start = Instant::now();
    let group = group(of(Policy::PeakEwma), &[1, 1, 1], start);
    // What each is given in each second; host 0 is silent in the second one.
    let mut given = [[0_u32; 3]; 15];
    for number in 0..1500_u32 {
        let now = start + number * Duration::from_millis(10);
        let pick = group.pick(&ask(now, u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15))).unwrap();
        let (host, second) = (*pick.server(), number as usize / 100);
        given[second][host as usize] += 1;
        if (host, second) == (0, 1) {
            pick.finished(Outcome::Failed, Duration::from_millis(300), now);
        } else {
            pick.finished(Outcome::Answered, TOOK, now);
        }
    }
    let of_host_0 = given.map(|second| second[0]);
    assert!(of_host_0[1] < 5, "{of_host_0:?}");
    assert_eq!(of_host_0[2..10].iter().sum::<u32>(), 0, "{of_host_0:?}");
    assert!(of_host_0[13] > 20, "it has its share again: {of_host_0:?}");
}
