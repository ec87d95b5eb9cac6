//! Whole days in milliseconds: a pool with its queue, played in steps of five milliseconds, scaled by [`Scaler`].

mod model;

use std::time::Duration;

use crate::{Limits, Scaler, Seen, Why};
use model::{Outcome, World};

const MIB: u64 = 1 << 20;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn limits(min: u32, max: u32) -> Limits {
    Limits {
        min,
        max,
        memory_bytes_max: 8192 * MIB,
        db_connections_max: 1000,
        idle_timeout: Duration::from_secs(60),
    }
}

/// Views that mostly wait for a database: 100 ms, of which 5 ms CPU.
fn world(load: impl Fn(f64) -> f64 + 'static) -> World {
    World { load: Box::new(load), ..World::default() }
}

/// A request takes 100 ms: who waits longer than that for a slot waits too long, except where a load comes out of nothing.
#[track_caller]
fn check(name: &str, outcome: &Outcome, p99_ms: u64, changes_max: u32, cost_max: f64) {
    let table = format!("{name}: bounds p99 {p99_ms} ms, {changes_max} changes, cost {cost_max}\n{outcome}");
    assert!(outcome.wait(0.99) <= ms(p99_ms), "waits too long\n{table}");
    assert!(outcome.changes <= changes_max, "flaps\n{table}");
    assert!(outcome.cost() <= cost_max, "wasteful\n{table}");
}

#[test]
fn a_steady_load_is_left_alone() {
    // A quarter of the slots must be busy, or workers go: so it never costs more than four times what would just do.
    for slots in [4.0, 7.0, 11.0, 20.0] {
        let outcome = world(move |_| slots).run(&limits(1, 16), 600);
        check(&format!("{slots} slots of load"), &outcome, 100, 12, 4.0);
        let late = outcome.history.iter().filter(|(at, ..)| at.as_secs() > 120).count();
        assert!(late <= 2, "still changing after two minutes\n{outcome}");
    }
}

#[test]
fn a_ramp_is_followed() {
    let outcome = world(|t| 1.0 + t / 4.0).run(&limits(1, 32), 160);
    check("ramp", &outcome, 100, 30, 2.5);
}

#[test]
fn a_spike_is_met_at_once_and_paid_for_shortly() {
    let outcome = world(|t| if (30.0..60.0).contains(&t) { 40.0 } else { 2.0 }).run(&limits(1, 32), 300);
    // The first second of a spike waits for the workers; no more than that.
    assert!(outcome.wait(0.999) <= ms(1000), "{outcome}");
    check("spike", &outcome, 800, 40, 4.5);
    assert!(outcome.workers <= 2, "it comes down again\n{outcome}");
}

#[test]
fn a_sawtooth_does_not_flap() {
    let outcome = world(|t| if t % 60.0 < 20.0 { 24.0 } else { 2.0 }).run(&limits(1, 32), 1800);
    // Thirty teeth: workers that were missed too soon are kept.
    check("sawtooth", &outcome, 200, 75, 5.0);
}

#[test]
fn a_day_costs_little_more_than_it_must() {
    // A minute is an hour; the night has a tenth of the noon.
    let day = |t: f64| 11.0 - 10.0 * (t / 1440.0 * std::f64::consts::TAU).cos();
    let outcome = world(day).run(&limits(1, 32), 1440);
    check("day", &outcome, 40, 60, 2.5);
}

#[test]
fn a_slow_database_is_not_helped_by_more_workers() {
    let world = World { database: Some(6.0), patience: Duration::from_secs(10), ..world(|_| 40.0) };
    let outcome = world.run(&limits(2, 64), 60);
    assert!(outcome.workers < 16, "gives up\n{outcome}");
    assert!(outcome.whys.iter().any(|why| matches!(why, Why::NotHelping { .. })), "says so\n{outcome}");
}

#[test]
fn cpu_is_not_multiplied_by_workers() {
    let world = World {
        cpu_ms: 50.0,
        sleep_ms: 0.0,
        cores: 2.0,
        patience: Duration::from_secs(10),
        ..world(|_| 6.0)
    };
    let outcome = world.run(&limits(2, 32), 60);
    assert!(outcome.workers <= 3, "{outcome}");
    assert!(matches!(outcome.why, Why::CpuShort { cpu_percent: 95..=100, .. }), "{outcome}");
}

#[test]
fn limits_hold_and_are_named() {
    for (what, limits) in [
        ("max", limits(1, 3)),
        ("memory", Limits { memory_bytes_max: 350 * MIB, ..limits(1, 32) }),
        ("connections", Limits { db_connections_max: 14, ..limits(1, 32) }),
    ] {
        let world = World { patience: Duration::from_secs(2), ..world(|_| 30.0) };
        let outcome = world.run(&limits, 20);
        assert_eq!(outcome.workers_max, 3, "{what}\n{outcome}");
        let named = match outcome.why {
            Why::AtMax { max: 3, .. } => "max",
            Why::MemoryShort { one_more_bytes, .. } if one_more_bytes == 100 * MIB => "memory",
            Why::ConnectionsShort { open: 12, one_more: 4, max: 14, .. } => "connections",
            _ => "another reason",
        };
        assert_eq!(named, what, "{outcome}");
    }
}

/// One report after another, by hand.
struct Reports {
    scaler: Scaler,
    limits: Limits,
    now: Duration,
}

impl Reports {
    fn new(workers: u32, limits: Limits) -> Self {
        Self { scaler: Scaler::new(workers), limits, now: Duration::from_secs(100) }
    }

    /// The same report for so long; the last decision.
    fn see(&mut self, for_ms: u64, mut seen: Seen) -> (u32, Why) {
        let mut last = (0, Why::Steady);
        let busy_total = seen.busy_total;
        for passed in (0..for_ms).step_by(100) {
            seen.busy_total = busy_total + ms(passed) * seen.busy;
            let decision = self.scaler.decide(&seen, &self.limits, self.now);
            last = (decision.wanted, decision.why);
            self.now += ms(100);
        }
        last
    }
}

fn seen(serving: u32, busy: u32, waiting: u32, head_wait_ms: u64) -> Seen {
    Seen {
        serving,
        slots_per_worker: 1,
        busy,
        waiting,
        head_wait: ms(head_wait_ms),
        service_p50: ms(50),
        served_total: 7,
        memory_bytes_per_worker: 100 * MIB,
        ..Seen::default()
    }
}

#[test]
fn one_long_request_on_the_only_worker_is_noticed_whatever_the_median_and_the_cpu_say() {
    let slow = Seen { service_p50: Duration::from_secs(30), ..seen(1, 1, 1, 1100) };
    let (wanted, why) = Reports::new(1, limits(1, 4)).see(200, slow);
    assert_eq!(wanted, 2, "{why}");
    let mut reports = Reports::new(1, limits(1, 4));
    let (wanted, why) = reports.see(1100, Seen { cpu: 1.0, ..seen(1, 1, 1, 1100) });
    assert_eq!((wanted, why), (2, Why::Stuck { head_wait: ms(1100), slots: 1 }), "{why}");
}

#[test]
fn starting_workers_count() {
    let mut reports = Reports::new(1, limits(1, 8));
    // The one that was asked for takes its time; the wait grows, but not beyond the double.
    assert_eq!(reports.see(1000, Seen { starting: 1, ..seen(1, 1, 3, 300) }).0, 2);
    // Twice the wait: twice as many.
    assert_eq!(reports.see(100, Seen { starting: 1, ..seen(1, 1, 9, 700) }).0, 4);
    // Once they serve and the line gets shorter nothing more is added.
    assert_eq!(reports.see(1000, seen(4, 4, 3, 200)).0, 4);
}

#[test]
fn a_short_bunch_is_no_reason() {
    let mut reports = Reports::new(1, limits(1, 8));
    for _ in 0..50 {
        assert_eq!(reports.see(100, seen(1, 1, 2, 40)).0, 1);
        assert_eq!(reports.see(300, seen(1, 1, 0, 0)).0, 1);
    }
}

#[test]
fn down_to_none_only_when_nobody_asks_and_up_again_at_once() {
    let mut reports = Reports::new(1, limits(0, 4));
    assert_eq!(reports.see(59_000, seen(1, 0, 0, 0)).0, 1);
    let (wanted, why) = reports.see(2_000, seen(1, 0, 0, 0));
    assert_eq!(wanted, 0, "{why}");
    assert_eq!(reports.see(60_000, seen(0, 0, 0, 0)).0, 0);
    let woken = reports.scaler.wake(&reports.limits, reports.now);
    assert_eq!((woken.wanted, woken.why), (1, Why::Woken));
    // Its start takes a minute; it is not stopped before it has begun.
    assert_eq!(reports.see(90_000, Seen { starting: 1, ..seen(0, 0, 0, 0) }).0, 1);
    let mut asleep = Reports::new(0, limits(0, 4));
    assert_eq!(asleep.see(100, seen(0, 0, 1, 1)), (1, Why::Woken));
}

#[test]
fn a_new_gateway_begins_its_counters_anew() {
    let mut reports = Reports::new(2, limits(1, 4));
    let busy = Seen { busy_total: Duration::from_secs(5000), ..seen(2, 2, 0, 0) };
    assert_eq!(reports.see(60_000, busy).0, 2);
    // All counters fall; nothing is concluded from the difference, and nothing overflows.
    assert_eq!(reports.see(6_000, Seen { served_total: 0, ..seen(2, 2, 0, 0) }).0, 2);
    let (wanted, why) = reports.see(40_000, seen(2, 0, 0, 0));
    assert_eq!(wanted, 1, "{why}");
}

#[test]
fn the_number_is_always_within_the_limits() {
    let mut random = 7_u64;
    let mut next = |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % n
    };
    let mut scaler = Scaler::new(3);
    let mut now = Duration::ZERO;
    for _ in 0..100_000 {
        let max = next(9) as u32;
        let limits = Limits { min: next(u64::from(max) + 1) as u32, max, ..limits(0, 0) };
        let seen = Seen {
            serving: next(12) as u32,
            starting: next(4) as u32,
            slots_per_worker: next(5) as u32,
            busy: next(40) as u32,
            waiting: next(40) as u32,
            head_wait: ms(next(3000)),
            busy_total: ms(next(1_000_000)),
            served_total: next(1000),
            shed_total: next(1000),
            service_p50: ms(next(500)),
            cpu: next(100) as f32 / 80.0,
            memory_bytes: next(20_000) * MIB,
            memory_bytes_per_worker: next(3) * 100 * MIB,
            db_connections: next(2000) as u32,
            db_connections_per_worker: next(5) as u32,
        };
        now += ms(next(500));
        let decision = scaler.decide(&seen, &limits, now);
        assert!((limits.min..=limits.max).contains(&decision.wanted), "{decision:?} {limits:?}");
        assert!(!decision.why.to_string().is_empty());
    }
}
