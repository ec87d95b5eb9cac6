//! `[[worker_pool]]`: workers of their own for some paths. The table of keys, and what holds between them.

use std::time::Duration;

use crate::define::record;
use crate::file::anywhere;
use crate::load::Loaded;
use crate::module;
use crate::problem::{Place, Problem};
use crate::raw::Fault;
use crate::tables::{self, Given, NAME_BYTES_MAX, Record as _, Required, Rules, holds_for_all};

/// The name of the pool of all other requests, in status and metrics.
pub const DEFAULT_POOL: &str = "default";

/// Each pool has a queue, a scaler and a series of each metric; a site that needs more classes than this wants instances
/// of their own for some of them.
pub const POOLS_MAX: usize = 32;

/// A pattern is compared with the path of every request.
const PATTERN_BYTES_MAX: usize = 512;

record! {
    /// Workers of their own for some paths, with a line of their own: slow endpoints (reports, exports) then never hold up
    /// the quick ones. The table may be there several times; the first pool with a pattern that matches the path takes
    /// the request, and what no pool matches goes to the workers of `[workers]`. What a pool does not say is as there.
    [[worker_pool]] WorkerPool {
        /// Its name in `quintet status`, metrics and logs: letters, digits, `-` and `_`.
        name: String = String::new(),
            otherwise("made from the first pattern: \"reports\" for /reports/*"), example("\"reports\""),
            checked(check_name);
        /// The module (`[[module]]`) whose app its workers run.
        module: Option<String> = None, otherwise("the app of `[app]`"), example("\"api\"");
        /// Which paths it takes: `/export` that path only, `/reports/*` all below, `*` in the middle any text
        /// (`/shops/*/export`). The path counts as the client sent it after percent-decoding, without the query, with the
        /// mount.
        matches: Vec<String> = Vec::new(),
            named("worker_pool.match", "match"), otherwise("only what a `[[route]]` sends to it"), example("[\"/reports/*\", \"/export\"]"),
            checked(check_pattern);
        /// Fewest workers. With 0 the pool has none until a request comes, and none again after `idle_timeout`: it costs
        /// nothing while nobody asks.
        min: u32 = 1,
            between("0", "1024", "a machine of more than 1024 workers is better run as several instances");
        /// Most workers; between the two numbers scaling decides.
        max: Option<u32> = None,
            otherwise("the same as `min`, at least 1"),
            between("1", "1024", "a machine of more than 1024 workers is better run as several instances");
        /// Threads of each worker (WSGI).
        threads: Option<u32> = None,
            otherwise("as `workers.threads`"),
            between("1", "1024", "each thread needs a stack and mostly a database connection");
        /// Requests that each worker runs at one time (ASGI).
        concurrency: Option<u32> = None,
            otherwise("as `workers.concurrency`"),
            between("1", "4096", "every request in flight takes memory and mostly a database connection");
        /// How long the app may take to begin its response; 504 after it, and the worker is replaced.
        app_timeout: Option<Duration> = None,
            otherwise("as `timeouts.app`"), example("\"10m\""),
            between("100ms", "1d", "a request that hangs must be noticed");
        /// How long a request may wait for one of its workers; 503 after it.
        queue_timeout: Option<Duration> = None,
            otherwise("as `timeouts.queue`"), example("\"1m\""),
            between("0s", "10m", "visitors give up earlier than that");
        /// Requests waiting for it at once; one more is answered 503 with Retry-After.
        depth_max: Option<u32> = None,
            otherwise("as `queue.depth_max`"),
            between("0", "1000000", "a queue that never empties only makes everybody wait");
        /// How long a worker above `min` may be idle until it is stopped.
        idle_timeout: Option<Duration> = Some(Duration::from_secs(60)),
            between("1s", "1d", "starting a worker costs CPU time; one a second would only keep the machine warm");
    }
}

impl WorkerPool {
    /// The most workers that scaling may start.
    pub fn most(&self) -> u32 {
        self.max.unwrap_or(1).max(self.min)
    }

    /// Whether it takes requests for `path`.
    pub fn takes(&self, path: &str) -> bool {
        self.matches.iter().any(|pattern| pattern_matches(pattern, path))
    }
}

/// Whether `path` is of the form of `pattern`, in which `*` stands for any text, also an empty one.
///
/// Takes the earliest place for each piece between stars, which is right because pieces are plain text: no going back.
pub fn pattern_matches(pattern: &str, path: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == path;
    };
    let Some(mut path) = path.strip_prefix(head) else {
        return false;
    };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        let Some(at) = path.find(piece) else {
            return false;
        };
        path = &path[at + piece.len()..];
    }
    path.ends_with(tail)
}

impl Rules for WorkerPool {
    const COUNT_MAX: (usize, &'static str) =
        (POOLS_MAX, "each has a queue, workers and metrics of its own; one pool may have several patterns");
    const REQUIRED: &'static [Required] = &[];

    fn complete(&mut self, given: &Given) {
        if !given.contains("name") {
            self.name = self.matches.first().map(|pattern| name_of(pattern)).unwrap_or_default();
        }
    }

    fn together(loaded: &Loaded, problems: &mut Vec<Problem>) {
        let pools = &loaded.config.worker_pool;
        for (index, pool) in pools.iter().enumerate() {
            let place = |key: &str| loaded.place_in(Self::TABLE, index, key);
            alone(pool, place, problems);
            module::named("worker_pool.module", pool.module.as_deref(), loaded, place("module"), problems);
            if pool.matches.is_empty()
                && !loaded
                    .config
                    .route
                    .iter()
                    .any(|route| route.goes_to(&pool.name) || route.asks(&pool.name))
            {
                let problem = Problem::new(if pool.name.is_empty() {
                    "worker_pool.match: which paths does this pool take?".to_owned()
                } else {
                    format!("worker_pool.match: nothing goes to the pool \"{}\"", pool.name)
                })
                .hint("for example match = \"/reports/*\", or a [[route]] with app = and its name");
                problems.push(problem.at(place("match")));
            }
            let earlier = &pools[..index];
            if earlier.iter().any(|other| other.name == pool.name) {
                let problem =
                    Problem::new(format!("worker_pool.name: there are two pools \"{}\"", pool.name)).hint(
                        "give one of them another name = \"…\", or make them one pool with two patterns",
                    );
                problems.push(problem.at(place("name")));
            }
            for pattern in &pool.matches {
                // A pattern taken as a path stands for what it matches: what takes it, takes that too.
                if let Some(other) = earlier.iter().find(|other| other.takes(pattern)) {
                    let problem = Problem::new(format!("worker_pool.match: \"{pattern}\" would never match"))
                        .detail(format!("the pool \"{}\" stands before it and takes these paths", other.name))
                        .hint("the first pool that matches takes a request: put the narrower one first");
                    problems.push(problem.at(place("match")));
                }
            }
        }
    }

    fn wanted(name: &str) -> Option<String> {
        if anywhere(name).is_some_and(|setting| setting.key == "workers.count") {
            return Some("how many workers a pool has is said by \"min\" and \"max\"".to_owned());
        }
        holds_for_all(name, &["workers", "timeouts", "queue"], "pools")
    }
}

/// The rules between the keys of one pool.
fn alone(pool: &WorkerPool, place: impl Fn(&str) -> Option<Place>, problems: &mut Vec<Problem>) {
    if let Some(max) = pool.max.filter(|max| pool.min > *max) {
        let problem = Problem::new(format!("worker_pool.max: {max} is less than min, {}", pool.min))
            .hint("leave max away for a pool that does not scale");
        problems.push(problem.at(place("max")));
    }
}

/// A name from a pattern: `reports` for `/reports/*`, `shops-export` for `/shops/*/export`.
pub(crate) fn name_of(pattern: &str) -> String {
    let words: Vec<_> = pattern
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    let mut name = words.join("-");
    name.truncate(NAME_BYTES_MAX);
    let name = name.trim_end_matches('-');
    match name {
        "" => "all".to_owned(),
        DEFAULT_POOL => format!("{DEFAULT_POOL}-path"),
        name => name.to_owned(),
    }
}

pub(crate) fn check_name(text: &str) -> Result<(), Fault> {
    if text == DEFAULT_POOL {
        return Err(Fault::new(format!("\"{text}\" is the name of the pool of all other requests"))
            .hint("choose another one, or leave it away"));
    }
    tables::check_name(text, "a pool", "reports")
}

pub(crate) fn check_pattern(text: &str) -> Result<(), Fault> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err(Fault::new(format!("a pattern of {} bytes", text.len()))
            .hint(format!("at most {PATTERN_BYTES_MAX} bytes")));
    }
    // It is compared with the path as it reads after decoding, in which any letter may stand.
    let possible = |c: char| !c.is_control() && !matches!(c, '?' | '#' | '\\');
    if text.starts_with('/') && text.chars().all(possible) {
        return Ok(());
    }
    let fault = Fault::new(format!("\"{text}\" is not a pattern for paths of this site"));
    Err(match text.strip_prefix('^') {
        Some(_) => fault.hint("not a regular expression: /reports/* takes all below /reports/"),
        None => fault.hint("it begins with a slash, without a query; for example /reports/*"),
    })
}

#[cfg(test)]
mod tests;
