//! Hours of misfortune in milliseconds: the state machine against a world that is seeded (`simulation/world.rs`), so
//! that what failed once fails again. The world checks invariants after every step, the stories what comes of it.

mod births;
mod strikes;
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
            world.misfortune =
                Misfortune { bad_start: world.dice.next() % 60, deaf: world.dice.next() % 30, only: None };
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
            world.ask(Command::Reload { module: None });
            world.run(Duration::from_secs(400));
            world.assert_healthy();
        }
        stopped(world);
    });
}

#[test]
fn a_stop_ends_it_at_any_moment() {
    for_every_seed(|world| {
        world.misfortune =
            Misfortune { bad_start: world.dice.next() % 40, deaf: world.dice.next() % 50, only: None };
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
        world.misfortune = Misfortune { bad_start: 100, deaf: 0, only: None };
        let (before, minutes) = (world.spawns.len(), 20);
        let templates = world.template_count();
        world.kill_workers();
        world.ask(Command::Reload { module: None });
        world.run(Duration::from_secs(60 * minutes));
        assert!(world.waiting.is_empty(), "the reload was not answered: {:#?}", world.state);
        let spawns = world.spawns.len() - before;
        // Six attempts until the longest pause is reached; then a round of `starting_max` every 11 s at most often.
        let at_once = world.settings.starting_max as usize * world.settings.modules.len();
        let bound = world.state.wanted() as usize + (6 + 60 * minutes as usize / 11) * at_once;
        assert!(spawns <= bound, "{spawns} starts in {minutes} minutes, {bound} were allowed");
        assert!(spawns >= 60 * minutes as usize / 80, "it does not try any more after {spawns} starts");
        // One for the reload, and for the old code as often as it is worth it.
        let templates = world.template_count() - templates;
        let bound = 4 * world.settings.modules.len();
        assert!(templates <= bound, "{templates} templates in {minutes} minutes");
    });
}

/// Each app is on its own: one whose code is broken, or that loses its workers again and again, is nobody else's business.
#[test]
fn an_app_that_does_not_start_disturbs_no_other() {
    for_every_seed(|world| {
        started(world);
        let modules = world.settings.modules.len();
        if modules < 2 {
            return;
        }
        let broken = world.dice.next() as usize % modules;
        let others: Vec<u16> = (0..)
            .zip(&world.settings.pools)
            .filter_map(|(number, pool)| (usize::from(pool.module) != broken).then_some(number))
            .collect();
        world.misfortune = Misfortune { bad_start: 100, only: Some(broken), deaf: 0 };
        world.kill_workers();
        let name = world.dice.chance(50).then(|| format!("module{broken}"));
        world.ask(Command::Reload { module: name });
        for _ in 0..20 {
            // A start takes up to four seconds, one after another while they are reloaded; back-offs of the broken one last longer.
            world.run(Duration::from_secs(60));
            for pool in &others {
                let wanted = world.state.staff[usize::from(*pool)].wanted as usize;
                assert_eq!(world.serving(*pool), wanted, "pool {pool}: {:#?}", world.state);
            }
            world.kill_workers();
        }
        assert!(world.waiting.is_empty(), "the reload was not answered: {:#?}", world.state);
        world.misfortune = QUIET;
        world.run(Duration::from_secs(400));
        world.ask(Command::Reload { module: None });
        world.run(Duration::from_secs(400));
        world.assert_healthy();
    });
}

/// A reload of one app leaves the processes of the others as they are.
#[test]
fn a_reload_of_one_app_touches_no_other() {
    for_every_seed(|world| {
        started(world);
        let modules = world.settings.modules.len();
        let chosen = world.dice.next() as usize % modules;
        let others = |world: &World| -> Vec<u32> {
            let of = |pool: u16| usize::from(world.settings.pools[usize::from(pool)].module);
            let others = world.state.workers().filter(|(_, worker)| of(worker.place.pool) != chosen);
            others.map(|(number, _)| number).collect()
        };
        let before = others(world);
        world.misfortune = Misfortune { bad_start: world.dice.next() % 50, only: Some(chosen), deaf: 0 };
        world.ask(Command::Reload { module: Some(format!("module{chosen}")) });
        world.run(Duration::from_secs(600));
        assert_eq!(others(world), before, "{:#?}", world.state);
        assert!(world.waiting.is_empty(), "{:?} have no answer", world.waiting);
    });
}

#[test]
fn a_first_start_that_fails_ends_it() {
    for_every_seed(|world| {
        world.misfortune = Misfortune { bad_start: 100, deaf: 0, only: None };
        world.feed(Event::Begin);
        // A template that came up before it died is started again, a few times.
        world.run(3 * world.settings.start_timeout + STOP_OVERHEAD + Duration::from_secs(120));
        if world.end.is_none() {
            // A worker that came up before it died counts as code that imports: then it is tried again.
            assert!(world.state.modules.iter().all(|module| module.ever_ready));
        }
    });
}
