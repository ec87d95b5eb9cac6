//! `quintet dev`: the same server for the one who writes the app.
//!
//! What differs from `quintet run` is said here once: values for settings that nobody has set, and the two that are not up to
//! the configuration (one worker, which imports by itself so that it always has the newest code).

use std::time::Duration;

use clap::ArgMatches;
use ctl_config::{AccessLog, Loaded, Origin};

use crate::exit::Exit;
use crate::failure::Result;
use crate::run::{self, Decided, Mode};
use crate::setup::Request;

/// A page asks for six files at one time, and some of them may be the app's.
const THREADS: u32 = 8;

/// Somebody who looks at a breakpoint looks for as long as he likes.
const APP_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Requests wait for the new code, however long its import takes.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(120);

/// Ctrl-C means now; an answer that is being written still goes out.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The command.
pub(crate) fn run(matches: &ArgMatches) -> Result<Exit> {
    run::start(Request::from_matches(matches)?, Mode::Develop)
}

/// The configuration for development.
pub(crate) fn fit(loaded: &mut Loaded) {
    let mut config = loaded.config.clone();
    let open = |key: &str| *loaded.origin(key) == Origin::Default;
    if open("log.access") {
        config.log.access = AccessLog::Dev;
    }
    if open("workers.threads") {
        config.workers.threads = Some(THREADS);
    }
    for (key, value, time) in [
        ("workers.long_lived_grace", &mut config.workers.long_lived_grace, Duration::ZERO),
        ("timeouts.app", &mut config.timeouts.app, APP_TIMEOUT),
        ("timeouts.queue", &mut config.timeouts.queue, QUEUE_TIMEOUT),
        ("server.drain_timeout", &mut config.server.drain_timeout, DRAIN_TIMEOUT),
        ("files.max_age", &mut config.files.max_age, Duration::ZERO),
    ] {
        if open(key) {
            *value = time;
        }
    }
    config.workers.count = Some(1);
    config.workers.max = Some(1);
    config.workers.preload = false;
    config.workers.requests_max = None;
    config.workers.lifetime = None;
    // Pools that are of a module say what goes to it.
    config.worker_pool.retain(|pool| pool.module.is_some());
    for pool in &mut config.worker_pool {
        (pool.min, pool.max) = (1, Some(1));
    }
    for module in &mut config.module {
        (module.min, module.max) = (1, Some(1));
    }
    loaded.config = config;
}

/// Says why the numbers are what they are, where it is not the configuration that made them so.
pub(crate) fn explain(decided: &mut Decided) {
    let [workers, threads, _] = &mut decided.sizing.reasons;
    "started anew when a file is saved".clone_into(workers);
    if *decided.loaded.origin("workers.threads") == Origin::Default {
        "a page asks for several files at once".clone_into(threads);
    }
}

#[cfg(test)]
mod tests {
    use ctl_config::{Sources, TextFile, load};

    use super::*;

    #[test]
    fn what_somebody_has_set_is_kept() {
        let text = "[timeouts]\napp = \"5s\"\n[workers]\ncount = 8\nthreads = 2\n[[worker_pool]]\nmatch = \"/slow\"\n";
        let file = Some(TextFile { path: "/srv/shop/quintet.toml".into(), text: text.into() });
        let sources = Sources { file, working_dir: "/srv/shop".into(), ..Sources::default() };
        let mut loaded = load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        fit(&mut loaded);
        let config = loaded.config;
        assert_eq!(config.timeouts.app, Duration::from_secs(5));
        assert_eq!((config.timeouts.queue, config.log.access), (QUEUE_TIMEOUT, AccessLog::Dev));
        assert_eq!(
            (config.workers.count, config.workers.threads, config.workers.preload),
            (Some(1), Some(2), false)
        );
        assert!(config.worker_pool.is_empty());
    }
}
