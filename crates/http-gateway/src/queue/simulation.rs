//! Overload, simulated: slots that sleep, clients that come as they like, and what the queue makes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::line::{Review, Ticket};
use super::pool::{Homed, Returned};
use super::priority::{Class, Level};
use super::state::State;
use super::{NoSlot, QueueLimits};

const CLASSES: [Class; 5] = [Class::Critical, Class::High, Class::Normal, Class::Low, Class::Lowest];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot(u32);

impl Homed for Slot {
    fn home(&self) -> usize {
        0
    }
}

/// What is played.
struct Play {
    slots: u32,
    /// Median time of a request.
    service_ms: f64,
    times: Times,
    /// Offered load as a share of what the slots can serve, by second.
    load: Box<dyn Fn(f64) -> f64>,
    /// Of a hundred requests, by class.
    mix: [u64; 5],
    seconds: u64,
    adaptive: bool,
    /// Instead of the load: so many clients, each of whom asks again as soon as he is answered.
    circle: u32,
    /// Anonymous clients and bots are one user each, as behind a proxy that is not trusted.
    alike: bool,
}

/// How the times of requests are spread.
#[derive(Clone, Copy)]
enum Times {
    Equal,
    Exponential,
    /// One of ten takes a hundred times as long.
    TwoKinds,
}

impl Default for Play {
    fn default() -> Self {
        Self {
            slots: 8,
            service_ms: 100.0,
            times: Times::Exponential,
            load: Box::new(|_| 0.8),
            mix: [1, 9, 20, 50, 20],
            seconds: 120,
            adaptive: true,
            circle: 0,
            alike: false,
        }
    }
}

#[derive(Default)]
struct OfClass {
    came: u64,
    served: u64,
    refused: u64,
    timed_out: u64,
}

#[derive(Default)]
struct Outcome {
    classes: [OfClass; 5],
    waits: Vec<Duration>,
    refused_after: Vec<Duration>,
    busy: f64,
    seconds: f64,
    slots: u32,
}

impl Outcome {
    fn quantile(of: &[Duration], quantile: f64) -> Duration {
        of.get((of.len() as f64 * quantile) as usize).copied().unwrap_or_default()
    }

    fn wait(&self, quantile: f64) -> Duration {
        Self::quantile(&self.waits, quantile)
    }

    /// Slot time that went into answers for clients who are still there, of all there was.
    fn goodput(&self) -> f64 {
        self.busy / (self.seconds * f64::from(self.slots))
    }

    fn refused(&self) -> u64 {
        self.classes.iter().map(|class| class.refused + class.timed_out).sum()
    }

    /// Neither refused nor timed out.
    fn kept(&self, class: Class) -> f64 {
        let of = &self.classes[class.rank()];
        1.0 - (of.refused + of.timed_out) as f64 / of.came.max(1) as f64
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "goodput {:.3} of the slots' time", self.goodput())?;
        writeln!(f, "wait p50 {:?} p99 {:?} p99.9 {:?}", self.wait(0.5), self.wait(0.99), self.wait(0.999))?;
        let after = Self::quantile(&self.refused_after, 0.99);
        writeln!(f, "refused {} after {after:?} at p99", self.refused())?;
        for (class, of) in CLASSES.iter().zip(&self.classes) {
            let OfClass { came, served, refused, timed_out } = of;
            writeln!(f, "{class:?}: came {came}, served {served}, refused {refused}, timed out {timed_out}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Event {
    Arrival,
    Done(Slot, Instant),
    Look(Ticket, u64),
}

struct Random(u64);

impl Random {
    /// Above 0, at most 1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as f64 + 1.0) / f64::from(1_u32 << 31)
    }

    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }
}

/// A waiting request: when and of which class.
type Waiting = (u64, Instant, Class);

struct Stage<'a> {
    play: &'a Play,
    state: State<Slot, Waiting>,
    random: Random,
    start: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    numbers: u64,
    deadlines: BTreeMap<u64, (Instant, Instant, Class)>,
    outcome: Outcome,
}

impl Play {
    /// For so long as it takes about forty thousand requests at this load.
    fn at(self, load: f64) -> Self {
        let rate = load * f64::from(self.slots) / self.mean_ms() * 1000.0;
        Self { load: Box::new(move |_| load), seconds: (40_000.0 / rate).clamp(20.0, 400.0) as u64, ..self }
    }

    fn run(&self) -> Outcome {
        let start = Instant::now();
        let limits = QueueLimits {
            pool: 0,
            depth_max: 1024,
            patience: Duration::from_secs(10),
            start_patience: Duration::ZERO,
            app_timeout: Duration::from_secs(60),
            concurrency: 1,
            adaptive: self.adaptive,
            target: None,
        };
        let mut state = State::new(limits, start);
        state.pool.activate(1, start);
        for worker in 0..self.slots {
            state.pool.join(worker, 1, 1, start);
            state.settle(worker, Slot(worker), false, start);
        }
        let mut stage = Stage {
            play: self,
            state,
            random: Random(7),
            start,
            events: BTreeMap::new(),
            numbers: 0,
            deadlines: BTreeMap::new(),
            outcome: Outcome { slots: self.slots, seconds: self.seconds as f64, ..Outcome::default() },
        };
        for _ in 0..self.circle.max(1) {
            stage.at(start, Event::Arrival);
        }
        let end = start + Duration::from_secs(self.seconds);
        while let Some(((now, _), event)) = stage.events.pop_first() {
            if now > end {
                break;
            }
            stage.happen(event, now);
        }
        stage.outcome.waits.sort_unstable();
        stage.outcome.refused_after.sort_unstable();
        stage.outcome
    }

    /// Mean time of a request.
    fn mean_ms(&self) -> f64 {
        match self.times {
            Times::Equal => self.service_ms,
            Times::Exponential => self.service_ms / std::f64::consts::LN_2,
            Times::TwoKinds => self.service_ms * (0.9 + 0.1 * 100.0),
        }
    }
}

impl Stage<'_> {
    fn at(&mut self, when: Instant, event: Event) {
        self.numbers += 1;
        self.events.insert((when, self.numbers), event);
    }

    fn serve(&mut self, slot: Slot, class: Class, waited: Duration, now: Instant) {
        let play = self.play;
        let ms = match play.times {
            Times::Exponential => self.random.exponential() * play.mean_ms(),
            Times::TwoKinds if self.random.uniform() < 0.1 => play.service_ms * 100.0,
            Times::Equal | Times::TwoKinds => play.service_ms,
        };
        self.outcome.waits.push(waited);
        self.outcome.classes[class.rank()].served += 1;
        self.outcome.busy += ms / 1000.0;
        self.at(now + Duration::from_secs_f64(ms / 1000.0), Event::Done(slot, now));
    }

    fn happen(&mut self, event: Event, now: Instant) {
        match event {
            Event::Arrival => {
                self.arrive(now);
                if self.play.circle > 0 {
                    return;
                }
                let load = (self.play.load)(now.duration_since(self.start).as_secs_f64()).max(0.001);
                let apart = self.random.exponential() * self.play.mean_ms()
                    / 1000.0
                    / f64::from(self.play.slots)
                    / load;
                self.at(now + Duration::from_secs_f64(apart), Event::Arrival);
            }
            Event::Done(slot, since) => {
                if self.play.circle > 0 {
                    self.at(now, Event::Arrival);
                }
                self.done(slot, since, now);
            }
            Event::Look(ticket, number) => self.look(ticket, number, now),
        }
    }

    fn done(&mut self, slot: Slot, since: Instant, now: Instant) {
        match self.state.give_back(slot.0, slot, since, true, now) {
            Returned::Next((number, since, class), slot, _) => {
                self.deadlines.remove(&number);
                self.serve(slot, class, now.duration_since(since), now);
            }
            Returned::Idle => {}
            Returned::Retire { .. } => unreachable!("nobody retires here"),
        }
    }

    fn look(&mut self, ticket: Ticket, number: u64, now: Instant) {
        let Some(&(since, deadline, class)) = self.deadlines.get(&number) else { return };
        let of = &mut self.outcome.classes[class.rank()];
        match self.state.review(ticket, since, now) {
            Review::Refused => {
                of.refused += 1;
                self.outcome.refused_after.push(now.duration_since(since));
                self.deadlines.remove(&number);
            }
            Review::Stay(_) if now >= deadline => {
                of.timed_out += 1;
                self.state.leave(ticket, now);
                self.deadlines.remove(&number);
            }
            Review::Stay(until) => self.at(until.min(deadline), Event::Look(ticket, number)),
            Review::Called => unreachable!("who is called has no deadline any more"),
        }
    }

    fn arrive(&mut self, now: Instant) {
        let mut drawn = (self.random.uniform() * 100.0) as u64;
        let mut class = Class::Lowest;
        for (of, share) in CLASSES.iter().zip(self.play.mix) {
            if drawn < share {
                class = *of;
                break;
            }
            drawn -= share;
        }
        self.outcome.classes[class.rank()].came += 1;
        if let Some(slot) = self.state.arrive(0, now) {
            self.serve(slot, class, Duration::ZERO, now);
            return;
        }
        let own = (self.random.uniform() * 1e6) as u64;
        let user = if self.play.alike && class >= Class::Low { 64 } else { own };
        self.numbers += 1;
        let number = self.numbers;
        match self.state.get_in_line(Level::new(class, user), (number, now, class), None, now) {
            Ok(in_line) => {
                self.deadlines.insert(number, (now, in_line.deadline, class));
                let look = self.state.first_look(now, in_line.deadline);
                self.at(look, Event::Look(in_line.ticket, number));
                if let Some((evicted, since, class)) = in_line.evicted {
                    self.deadlines.remove(&evicted);
                    self.outcome.classes[class.rank()].refused += 1;
                    self.outcome.refused_after.push(now.duration_since(since));
                }
            }
            Err(NoSlot::Overloaded | NoSlot::Full | NoSlot::TimedOut) => {
                self.outcome.classes[class.rank()].refused += 1;
                self.outcome.refused_after.push(Duration::ZERO);
            }
        }
    }
}

/// Shapes of a site for which the promises hold: eight slots or more, requests of a tenth of a second or less.
fn shapes() -> impl Iterator<Item = (String, Play)> {
    let shapes = [(8, 100.0), (8, 10.0), (32, 50.0)];
    shapes.into_iter().flat_map(|(slots, service_ms)| {
        [("equal", Times::Equal), ("exponential", Times::Exponential)].map(|(name, times)| {
            let play = Play { slots, service_ms, times, ..Play::default() };
            (format!("{slots} slots, {service_ms} ms, {name}"), play)
        })
    })
}

#[test]
fn at_four_fifths_nobody_is_ever_refused() {
    for (name, play) in shapes() {
        let outcome = play.at(0.8).run();
        assert_eq!(outcome.refused(), 0, "{name}\n{outcome}");
        assert!(outcome.wait(0.99) < Duration::from_millis(500), "{name}\n{outcome}");
    }
}

#[test]
fn under_overload_the_slots_stay_busy_waits_are_bounded_and_the_important_are_served() {
    for (load, high_min) in [(1.2, 0.99), (2.0, 0.99), (5.0, 0.98)] {
        for (name, play) in shapes() {
            let outcome = play.at(load).run();
            let name = format!("{name}, {load} of capacity");
            assert!(outcome.goodput() > 0.95, "{name}\n{outcome}");
            // An overload shows itself after a second or the time of 128 requests; until then the line is first in, first out.
            assert!(outcome.wait(0.99) < Duration::from_millis(1500), "{name}\n{outcome}");
            assert!(outcome.wait(0.5) < Duration::from_millis(200), "{name}\n{outcome}");
            assert!(outcome.kept(Class::High) > high_min, "{name}\n{outcome}");
            assert!(outcome.kept(Class::Lowest) < 0.6, "bots go first: {name}\n{outcome}");
            let after = Outcome::quantile(&outcome.refused_after, 0.9);
            assert!(after < Duration::from_millis(1100), "told early: {after:?} {name}\n{outcome}");
        }
    }
}

#[test]
fn a_burst_is_what_the_line_is_for() {
    // Half a second at thrice the capacity, on a site at a third: the line takes it and empties.
    for (name, play) in shapes() {
        let load = |t: f64| if (30.0..30.5).contains(&t) { 3.0 } else { 0.33 };
        let outcome = Play { load: Box::new(load), seconds: 60, ..play }.run();
        assert_eq!(outcome.refused(), 0, "{name}\n{outcome}");
        assert!(outcome.wait(1.0 - 1e-6) > Duration::from_millis(200), "there was a line: {name}\n{outcome}");
    }
}

#[test]
fn after_an_overload_the_gate_opens() {
    for (name, play) in shapes() {
        // The same story twice: what the longer one refuses more was refused ten seconds after the overload or later.
        let load = |t: f64| if t < 20.0 { 2.0 } else { 0.6 };
        let short = Play { load: Box::new(load), seconds: 30, ..play };
        let outcome = short.run();
        let longer = Play { seconds: 60, ..short }.run();
        assert_eq!(longer.refused(), outcome.refused(), "{name}\n{longer}");
        assert!(outcome.refused() > 100, "{name}\n{outcome}");
    }
}

#[test]
fn a_few_slow_requests_among_quick_ones_hurt_the_less_important() {
    let play = Play { service_ms: 10.0, times: Times::TwoKinds, seconds: 200, ..Play::default() };
    let outcome = play.run();
    assert!(outcome.kept(Class::High) > 0.99 && outcome.kept(Class::Normal) > 0.99, "{outcome}");
    assert!((outcome.refused() as f64) < 0.03 * outcome.waits.len() as f64, "{outcome}");
}

#[test]
fn clients_who_look_alike_do_not_shut_the_gate_for_others() {
    for load in [1.2, 2.0] {
        let play = Play { mix: [0, 0, 20, 60, 20], alike: true, seconds: 60, ..Play::default() };
        let outcome = Play { load: Box::new(move |_| load), ..play }.run();
        assert!(outcome.kept(Class::Normal) > 0.97, "{load}\n{outcome}");
        assert!(outcome.goodput() > 0.95, "{load}\n{outcome}");
    }
}

#[test]
fn a_closed_circle_of_clients_is_no_overload() {
    // 64 connections that ask again as soon as they are answered, as a benchmark or a proxy's pool: the line never empties.
    let play = Play { slots: 8, service_ms: 10.0, times: Times::Exponential, seconds: 60, ..Play::default() };
    let outcome = Play { circle: 64, ..play }.run();
    assert_eq!(outcome.refused(), 0, "{outcome}");
    assert!(outcome.goodput() > 0.99, "{outcome}");
}

#[test]
fn first_in_first_out_refuses_only_after_the_timeout() {
    let play = Play { load: Box::new(|_| 1.2), adaptive: false, ..Play::default() };
    let outcome = play.run();
    let refused: u64 = outcome.classes.iter().map(|class| class.refused).sum();
    assert_eq!(refused, 0, "{outcome}");
    assert!(outcome.classes[4].timed_out > 0 && outcome.wait(0.5) > Duration::from_secs(8), "{outcome}");
}
