//! Minutes of traffic in milliseconds: three servers, one of which is slow, dies, fails quickly, comes back cold, or all of which
//! are restarted one after another. Discrete events, the same for the same seed.

mod stories;

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Ask, Drain, Group, NoServer, Outcome, Pick, Server, ServerId, Terms};

const HOSTS: usize = 3;

/// Requests that a host works on at a time; the others wait in it.
const SLOTS: usize = 8;

/// What a request takes on average.
const SERVICE_US: f64 = 20_000.0;

/// Then its client is told that there was no answer.
const PATIENCE_US: u64 = 1_000_000;

/// How a host fares.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Host {
    /// So many times slower than usual.
    Well(f64),
    /// It fails within a millisecond.
    Failing,
    /// It accepts and says nothing.
    Silent,
    /// There is no such process; what it worked on is lost.
    Gone,
}

/// What happens at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Be(usize, Host),
    Drain(usize, bool),
    /// The first so many hosts are the group.
    Servers(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Act(usize),
    Arrival,
    Done { host: usize, life: u32, job: u64, well: bool },
    Deadline { job: u64, attempt: usize },
}

struct Job {
    arrived_us: u64,
    sent_us: u64,
    tried: Vec<ServerId>,
    attempt: usize,
    pick: Option<Pick<usize>>,
}

#[derive(Default)]
struct Machine {
    busy: usize,
    queue: VecDeque<u64>,
    /// Which life of the process it is: what was begun in an earlier one is lost.
    life: u32,
}

/// What came of it.
#[derive(Debug, Default)]
struct Report {
    answered: usize,
    failed: usize,
    latencies_us: Vec<u64>,
    /// Second by second, what each host was sent.
    sent: Vec<[u32; HOSTS]>,
    retries: usize,
}

impl Report {
    fn success(&self) -> f64 {
        self.answered as f64 / (self.answered + self.failed) as f64
    }

    fn p99_ms(&self) -> u64 {
        self.latencies_us[self.latencies_us.len() * 99 / 100] / 1000
    }

    /// Of what was sent in these seconds, a host's part.
    fn share(&self, host: usize, seconds: std::ops::Range<usize>) -> f64 {
        let sent = &self.sent[seconds];
        let all: u32 = sent.iter().flatten().sum();
        f64::from(sent.iter().map(|sent| sent[host]).sum::<u32>()) / f64::from(all)
    }
}

struct World {
    start: Instant,
    now_us: u64,
    end_us: u64,
    gap_us: f64,
    random: u64,
    events: BinaryHeap<std::cmp::Reverse<(u64, u64, Event)>>,
    sequence: u64,
    group: Arc<Group<usize>>,
    hosts: [Host; HOSTS],
    machines: [Machine; HOSTS],
    jobs: BTreeMap<u64, Job>,
    acts: Vec<Act>,
    report: Report,
}

fn servers(count: usize) -> Vec<Server<usize>> {
    (0..count).map(|host| Server { name: format!("host-{host}"), weight: 1, server: host }).collect()
}

/// `per_second` requests for so long, and what happens meanwhile, by second.
fn run(terms: Terms, seed: u64, per_second: u32, seconds: u64, script: &[(f64, Act)]) -> Report {
    let start = Instant::now();
    let mut world = World {
        start,
        now_us: 0,
        end_us: seconds * 1_000_000,
        gap_us: 1e6 / f64::from(per_second),
        random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        events: BinaryHeap::new(),
        sequence: 0,
        group: Group::new("api", terms, None, servers(HOSTS), start),
        hosts: [Host::Well(1.0); HOSTS],
        machines: Default::default(),
        jobs: BTreeMap::new(),
        acts: script.iter().map(|(_, act)| *act).collect(),
        report: Report { sent: vec![[0; HOSTS]; seconds as usize + 2], ..Report::default() },
    };
    for (at, (seconds, _)) in script.iter().enumerate() {
        world.schedule((seconds * 1e6) as u64, Event::Act(at));
    }
    world.schedule(0, Event::Arrival);
    while let Some(std::cmp::Reverse((at_us, _, event))) = world.events.pop() {
        world.now_us = at_us;
        world.happen(event);
    }
    assert!(world.jobs.is_empty(), "each request has an end");
    assert!(world.group.status(world.now()).iter().all(|status| status.pending == 0));
    world.report.latencies_us.sort_unstable();
    world.report
}

impl World {
    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.now_us)
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        self.sequence += 1;
        self.events.push(std::cmp::Reverse((at_us, self.sequence, event)));
    }

    /// xorshift64*: the same everywhere.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Exponentially distributed, as what comes and lasts by chance is.
    fn by_chance(&mut self, mean: f64) -> u64 {
        let even = ((self.random() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        (-even.ln() * mean) as u64
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act(at) => self.act(self.acts[at]),
            Event::Arrival => {
                let gap = self.by_chance(self.gap_us);
                if self.now_us + gap < self.end_us {
                    self.schedule(self.now_us + gap, Event::Arrival);
                }
                let arrived_us = self.now_us;
                let job = Job { arrived_us, sent_us: 0, tried: Vec::new(), attempt: 0, pick: None };
                self.send(self.sequence, job);
            }
            Event::Done { host, life, job, well } => {
                if self.machines[host].life == life {
                    self.machines[host].busy -= 1;
                    self.next(host);
                    self.answer(job, if well { Outcome::Answered } else { Outcome::Failed });
                }
            }
            Event::Deadline { job, attempt } => {
                if self.jobs.get(&job).is_some_and(|job| job.attempt == attempt) {
                    self.answer(job, Outcome::Failed);
                }
            }
        }
    }

    fn act(&mut self, act: Act) {
        let now = self.now();
        match act {
            Act::Drain(host, on) => {
                let drain = if on { Drain::All } else { Drain::Off };
                self.group.drain(&format!("host-{host}"), drain, now);
            }
            Act::Servers(count) => self.group.set_servers(servers(count), now),
            Act::Be(host, state) => {
                let before = std::mem::replace(&mut self.hosts[host], state);
                if state == Host::Gone {
                    let life = self.machines[host].life + 1;
                    self.machines[host] = Machine { life, ..Machine::default() };
                    let on_it = |job: &Job| job.pick.as_ref().is_some_and(|pick| *pick.server() == host);
                    let lost: Vec<u64> =
                        self.jobs.iter().filter(|(_, job)| on_it(job)).map(|(id, _)| *id).collect();
                    for job in lost {
                        self.broke(job);
                    }
                } else if before == Host::Silent {
                    for _ in 0..SLOTS {
                        self.next(host);
                    }
                }
            }
        }
    }

    /// A connection broke: the request is idempotent, and sent again if the budget has it.
    fn broke(&mut self, id: u64) {
        let Some(mut job) = self.jobs.remove(&id) else { return };
        let Some(pick) = job.pick.take() else { return };
        job.tried.push(pick.id());
        pick.finished(Outcome::Failed, Duration::from_micros(self.now_us - job.sent_us), self.now());
        if self.group.may_retry(self.now()) {
            self.report.retries += 1;
            self.send(id, job);
        } else {
            self.report.failed += 1;
        }
    }

    fn send(&mut self, id: u64, mut job: Job) {
        loop {
            let (now, random) = (self.now(), self.random());
            let ask = Ask { now, random, key: None, sticky: None, tried: &job.tried };
            let pick = match self.group.pick(&ask) {
                Ok(pick) => pick,
                Err(NoServer::None | NoServer::Drained | NoServer::Full | NoServer::Tried) => {
                    self.report.failed += 1;
                    return;
                }
            };
            let host = *pick.server();
            self.report.sent[(self.now_us / 1_000_000) as usize][host] += 1;
            if self.hosts[host] == Host::Gone {
                job.tried.push(pick.id());
                pick.finished(Outcome::NotReached, Duration::from_micros(100), now);
                continue;
            }
            job.attempt += 1;
            (job.sent_us, job.pick) = (self.now_us, Some(pick));
            self.schedule(self.now_us + PATIENCE_US, Event::Deadline { job: id, attempt: job.attempt });
            self.jobs.insert(id, job);
            self.machines[host].queue.push_back(id);
            self.next(host);
            return;
        }
    }

    /// A host with a free slot begins with what waits longest.
    fn next(&mut self, host: usize) {
        if self.machines[host].busy >= SLOTS || self.hosts[host] == Host::Silent {
            return;
        }
        let Some(job) = self.machines[host].queue.pop_front() else { return };
        self.machines[host].busy += 1;
        let (takes, well) = match self.hosts[host] {
            Host::Well(slower) => (self.by_chance(SERVICE_US * slower), true),
            Host::Failing | Host::Silent | Host::Gone => (1000, false),
        };
        let life = self.machines[host].life;
        self.schedule(self.now_us + takes, Event::Done { host, life, job, well });
    }

    fn answer(&mut self, id: u64, outcome: Outcome) {
        // Its client may have gone away before.
        let Some(Job { arrived_us, sent_us, pick: Some(pick), .. }) = self.jobs.remove(&id) else { return };
        pick.finished(outcome, Duration::from_micros(self.now_us - sent_us), self.now());
        if outcome == Outcome::Answered {
            self.report.answered += 1;
        } else {
            self.report.failed += 1;
        }
        // What fails is as bad as the longest wait; otherwise quick errors would make a good p99.
        let took = if outcome == Outcome::Answered { self.now_us - arrived_us } else { PATIENCE_US };
        self.report.latencies_us.push(took);
    }
}
