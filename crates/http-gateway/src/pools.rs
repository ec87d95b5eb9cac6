//! The pools: which queue a path belongs to, and what concerns all queues.
//!
//! Pool 0 takes what no `[[worker_pool]]` takes. A worker says in its hello to which pool it belongs.

pub(crate) mod pattern;
mod ranking;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ctl_admin::words::{AppReport, LoadReport};
use ctl_config::pool::DEFAULT_POOL;
use ctl_config::{Config, Discipline};
use ctl_telemetry::metrics::PoolMetrics;
use tokio::sync::mpsc;

use crate::message::RequestHead;
use crate::queue::priority::{Class, Level};
use crate::queue::{Queue, QueueLimits, WorkerNews};
use pattern::{Pattern, decode};
use ranking::Ranking;

/// The setting as it is counted; it is bounded far below.
fn at_work(concurrency: u32) -> u16 {
    u16::try_from(concurrency).unwrap_or(u16::MAX)
}

/// All queues.
pub struct Pools {
    /// By number.
    queues: Box<[Arc<Queue>]>,
    /// By number, as in `quintet status`.
    names: Box<[String]>,
    /// By number: whose app its workers run.
    modules: Box<[u16]>,
    /// Those without which the instance is not ready: the default one, and each module's own.
    essential: Box<[u16]>,
    /// In the order of the configuration: the first that matches takes the request.
    routes: Box<[(Pattern, Arc<Queue>)]>,
    ranking: Ranking,
    news: mpsc::UnboundedSender<WorkerNews>,
}

impl Pools {
    /// The pools of the configuration, and the receiver of their news.
    pub fn new(config: &Config) -> (Arc<Self>, mpsc::UnboundedReceiver<WorkerNews>) {
        let (news, receiver) = mpsc::unbounded_channel();
        let default = QueueLimits {
            pool: 0,
            depth_max: config.queue.depth_max,
            patience: config.timeouts.queue,
            start_patience: Duration::ZERO,
            app_timeout: config.timeouts.app,
            concurrency: at_work(config.workers.concurrency),
            adaptive: config.queue.discipline == Discipline::Adaptive,
            target: config.queue.target,
        };
        let mut queues = vec![Queue::new(default, news.clone())];
        let mut routes = Vec::new();
        for (pool, own) in (1..).zip(config.pools()) {
            let limits = QueueLimits {
                pool,
                depth_max: own.depth_max.unwrap_or(default.depth_max),
                patience: own.queue_timeout.unwrap_or(default.patience),
                start_patience: if own.min == 0 { config.workers.start_timeout } else { Duration::ZERO },
                app_timeout: own.app_timeout.unwrap_or(default.app_timeout),
                concurrency: own.concurrency.map_or(default.concurrency, at_work),
                ..default
            };
            let queue = Queue::new(limits, news.clone());
            routes.extend(own.matches.iter().map(|pattern| (Pattern::new(pattern), Arc::clone(&queue))));
            queues.push(queue);
        }
        let ranking = Ranking::new(&config.queue.priority, Instant::now());
        let own = config.pools().map(|pool| pool.name.clone());
        let names = std::iter::once(DEFAULT_POOL.to_owned()).chain(own).collect();
        let pools = Self {
            queues: queues.into(),
            names,
            modules: config.modules_of_pools().into(),
            essential: config.module_names().filter_map(|name| config.pool_number(name)).collect(),
            routes: routes.into(),
            ranking,
            news,
        };
        (Arc::new(pools), receiver)
    }

    /// The queue for a request's path, which is still percent-encoded.
    pub fn pool_of(&self, path: &[u8]) -> &Arc<Queue> {
        if !self.routes.is_empty() {
            let path = decode(path);
            if let Some((_, queue)) = self.routes.iter().find(|(pattern, _)| pattern.matches(&path)) {
                return queue;
            }
        }
        self.default_pool()
    }

    fn default_pool(&self) -> &Arc<Queue> {
        &self.queues[0]
    }

    /// The queue of a number, as workers say it in their hello.
    pub fn number(&self, pool: u16) -> Option<&Arc<Queue>> {
        self.queues.get(usize::from(pool))
    }

    /// How important a request is; `client` is who asks, when he is not signed in; `class`: what a route says.
    pub fn level(&self, head: &RequestHead, client: &str, class: Option<Class>) -> Level {
        self.ranking.level(head, client.as_bytes(), class, Instant::now())
    }

    /// Serve the app of this module from this generation on.
    pub fn activate(&self, module: u16, generation: u32, app: &AppReport) {
        self.ranking.set_session_cookie(module, app.session_cookie.as_deref());
        for (queue, of) in self.queues.iter().zip(&self.modules) {
            if *of == module {
                queue.activate(generation);
            }
        }
    }

    /// The pools of a module.
    pub fn of_module(&self, module: u16) -> Vec<u16> {
        (0..).zip(&self.modules).filter(|(_, of)| **of == module).map(|(pool, _)| pool).collect()
    }

    /// There is no `[[module]]`.
    pub fn has_one_app(&self) -> bool {
        self.essential.len() == 1
    }

    /// Whose app the workers of a pool run: 0 is the one of `[app]`, N the Nth `[[module]]`.
    pub fn module_of(&self, pool: u16) -> u16 {
        self.modules.get(usize::from(pool)).copied().unwrap_or(0)
    }

    /// No more requests for this worker. Every queue remembers it, since it may not have connected yet; that it is gone is
    /// told here when no slot is out anywhere, and by its queue otherwise.
    pub fn retire(&self, worker: u32) {
        let mut gone = true;
        for queue in &self.queues {
            gone &= queue.retire(worker);
        }
        if gone {
            // The receiver ends with the process only.
            let _ = self.news.send(WorkerNews::Retired(worker));
        }
    }

    /// The supervisor saw the worker's process end.
    pub fn buried(&self, worker: u32) {
        for queue in &self.queues {
            queue.buried(worker);
        }
    }

    /// Would a request to each app find a worker? (Those of `[[worker_pool]]` may come and go.)
    pub fn is_served(&self) -> bool {
        self.essential.iter().filter_map(|pool| self.number(*pool)).all(|queue| queue.has_slots())
    }

    /// What is counted of each pool, under its name, as it is now.
    pub fn metrics(&self) -> Vec<(&str, &PoolMetrics)> {
        let measured = self.queues.iter().map(|queue| queue.measure());
        self.names.iter().map(String::as_str).zip(measured).collect()
    }

    /// For the supervisor.
    pub fn load(&self) -> LoadReport {
        let mut report = LoadReport::default();
        for queue in &self.queues {
            let row = queue.load(&mut report.workers);
            report.pools.push(row);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{NoSlot, priority::Level};
    use ctl_config::WorkerPool;

    fn pools(with: impl FnOnce(&mut WorkerPool)) -> (Arc<Pools>, mpsc::UnboundedReceiver<WorkerNews>) {
        let mut config = Config::default();
        config.timeouts.queue = Duration::from_millis(50);
        config.workers.start_timeout = Duration::from_millis(200);
        let narrow = WorkerPool { matches: vec!["/reports/daily".to_owned()], ..WorkerPool::default() };
        let mut wide = WorkerPool {
            matches: vec!["/reports/*".to_owned(), "/*/export".to_owned()],
            ..WorkerPool::default()
        };
        with(&mut wide);
        config.worker_pool = vec![narrow, wide];
        Pools::new(&config)
    }

    #[test]
    fn the_first_pool_that_takes_a_path_gets_it() {
        let (pools, _) = pools(|_| {});
        for (path, pool) in [
            ("/", 0),
            ("/reports", 0),
            ("/reports/daily", 1),
            ("/reports/weekly", 2),
            ("/%72eports/%64aily", 1),
            ("/shop/export", 2),
            ("/x/../reports/weekly", 0),
            ("*", 0),
        ] {
            assert_eq!(pools.pool_of(path.as_bytes()).limits().pool, pool, "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_without_a_worker_asks_for_one_once_and_waits_for_its_start() {
        let (pools, mut news) = pools(|wide| wide.min = 0);
        let wait = || async {
            let began = tokio::time::Instant::now();
            let refused = pools.pool_of(b"/reports/weekly").checkout(Level::default).await.err();
            (refused, began.elapsed())
        };
        let (first, second) = tokio::join!(wait(), wait());
        for (refused, after) in [first, second] {
            assert_eq!(refused, Some(NoSlot::TimedOut));
            assert!(
                (250..260).contains(&after.as_millis()),
                "{after:?}: the start, and a wait like any other"
            );
        }
        assert_eq!(news.recv().await, Some(WorkerNews::Wanted(2)));
        assert!(news.try_recv().is_err(), "once for both");
        // Nobody waited any more; this is another need.
        wait().await;
        assert_eq!(news.try_recv(), Ok(WorkerNews::Wanted(2)));
    }

    #[test]
    fn a_worker_is_retired_once_and_told_once() {
        let (pools, mut news) = pools(|_| {});
        pools.retire(7);
        assert_eq!(news.try_recv(), Ok(WorkerNews::Retired(7)));
        assert!(news.try_recv().is_err());
    }
}
