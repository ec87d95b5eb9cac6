//! Hours of misfortune in milliseconds: the state machine against a world that is seeded (`simulation/world.rs`), so
//! that what failed once fails again. The world checks invariants after every step, the stories what comes of it.

mod births;
mod world;

use std::time::Duration;

use ctl_admin::words::Command;

use crate::event::Event;
use crate::plan::Outcome;

use world::{Misfortune, QUIET, World};

/// A second of stories on an idle core.
const SEEDS: u64 = 200;

/// The sum of all bounds between a stop and its end, see `stop.rs`: drain slack, SIGTERM, SIGKILL for the gateway,
/// then exit, SIGTERM, SIGKILL for the workers.
const STOP_OVERHEAD: Duration = Duration::from_secs(2 + 3 + 5 + 5 + 3 + 5);

/// Runs a story for every seed, and says which one failed.
fn for_every_seed(story: impl Fn(&mut World) + std::panic::RefUnwindSafe) {
    for seed in 0..SEEDS {
        let told = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            story(&mut world);
        });
        assert!(told.is_ok(), "seed {seed}");
    }
}

fn started(world: &mut World) {
    world.feed(Event::Begin);
    world.run(Duration::from_secs(60));
    world.assert_healthy();
}

fn stopped(world: &mut World) {
    let bound = world.settings.drain_delay + world.settings.drain_timeout + STOP_OVERHEAD;
    world.ask(Command::Stop);
    world.run(bound);
    assert_eq!(world.end, Some(Outcome::Stopped), "{:#?}", world.state);
    assert!(world.waiting.is_empty(), "{:?} have no answer", world.waiting);
}

#[test]
fn it_recovers_from_everything_and_stops() {
    for_every_seed(|world| {
        started(world);
        for _ in 0..3 {
            world.misfortune = Misfortune { bad_start: world.dice.next() % 60, deaf: world.dice.next() % 30 };
            for _ in 0..40 {
                let pause = world.dice.ms(1, 20_000);
                world.run(pause);
                if world.end.is_some() {
                    // Five gateways in a row did not start: that is not hidden.
                    assert!(matches!(world.end, Some(Outcome::Failed(_))), "{:?}", world.end);
                    assert!(world.waiting.is_empty(), "{:?} have no answer", world.waiting);
                    return;
                }
                world.strike();
            }
            world.misfortune = QUIET;
            world.run(Duration::from_secs(400));
            if world.end.is_some() {
                return;
            }
            // Everything that hung has been found out by now, and a reload shows that all is well.
            world.ask(Command::Reload);
            world.run(Duration::from_secs(400));
            world.assert_healthy();
        }
        stopped(world);
    });
}

#[test]
fn a_stop_ends_it_at_any_moment() {
    for_every_seed(|world| {
        world.misfortune = Misfortune { bad_start: world.dice.next() % 40, deaf: world.dice.next() % 50 };
        world.feed(Event::Begin);
        for _ in 0..world.dice.next() % 20 {
            let pause = world.dice.ms(1, 2_000);
            world.run(pause);
            if world.end.is_some() {
                return;
            }
            world.strike();
        }
        if world.end.is_some() {
            return;
        }
        let bound = world.settings.drain_delay + world.settings.drain_timeout + STOP_OVERHEAD;
        world.stopping = true;
        world.feed(Event::StopSignal);
        for _ in 0..world.dice.next() % 4 {
            let pause = world.dice.ms(1, 3_000);
            world.run(pause);
            if world.end.is_none() {
                world.feed(Event::StopSignal);
            }
        }
        world.run(bound);
        assert!(world.end.is_some(), "{:#?}", world.state);
        assert!(world.waiting.is_empty(), "{:?} have no answer", world.waiting);
    });
}

#[test]
fn code_that_is_broken_is_not_started_in_a_loop() {
    for_every_seed(|world| {
        started(world);
        world.misfortune = Misfortune { bad_start: 100, deaf: 0 };
        let (before, minutes) = (world.spawns.len(), 20);
        let templates = world.template_count();
        world.kill_workers();
        world.ask(Command::Reload);
        world.run(Duration::from_secs(60 * minutes));
        assert!(world.waiting.is_empty(), "the reload was not answered: {:#?}", world.state);
        let spawns = world.spawns.len() - before;
        // Six attempts until the longest pause is reached; then a round of `starting_max` every 11 s at most often.
        let bound = world.state.wanted() as usize
            + (6 + 60 * minutes as usize / 11) * world.settings.starting_max as usize;
        assert!(spawns <= bound, "{spawns} starts in {minutes} minutes, {bound} were allowed");
        assert!(spawns >= 60 * minutes as usize / 80, "it does not try any more after {spawns} starts");
        // One for the reload, and for the old code as often as it is worth it.
        let templates = world.template_count() - templates;
        assert!(templates <= 4, "{templates} templates in {minutes} minutes");
    });
}

#[test]
fn a_first_start_that_fails_ends_it() {
    for_every_seed(|world| {
        world.misfortune = Misfortune { bad_start: 100, deaf: 0 };
        world.feed(Event::Begin);
        // A template that came up before it died is started again, a few times.
        world.run(3 * world.settings.start_timeout + STOP_OVERHEAD + Duration::from_secs(120));
        if world.end.is_none() {
            // A worker that came up before it died counts as code that imports: then it is tried again.
            assert!(world.state.ever_ready);
        }
    });
}
