//! Redis or Valkey, which several hosts have in common: asked in time or not at all.
//!
//! Each reactor has a connection of its own (a *lane*) on which its requests are sent one behind the other without waiting for
//! each other's answers. One more belongs to the keeper, a task that makes the probes and does what is not a request's.
//!
//! | file | what happens there |
//! |---|---|
//! | `connect.rs` | the address, TCP, TLS, unix, the greeting with its password |
//! | `link.rs` | one connection: commands go out as they come, answers come back in their order |
//! | `script.rs` | scripts by their digest |
//!
//! Invariants: no request waits longer than `redis.timeout`, and none at all while Redis is away (`http_redis::Circuit`): then
//! one load tells so. No request makes a connection or a probe. Nothing here shows a password.

mod connect;
mod link;
mod script;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use ctl_admin::words::RedisStatus;
use ctl_config::Redis as Settings;
use ctl_telemetry::events::REDIS_AWAY;
use ctl_telemetry::metrics as m;
use http_redis::{Circuit, Failure, Patience, Value, encode};
use tokio::sync::watch;

use crate::reactor;
use connect::{Connector, Place};
use link::Link;
pub(crate) use script::Script;

/// A hiccup is no outage; a server that was stopped answers nobody, and three have waited then.
const PATIENCE: Patience = Patience {
    failures_max: 3,
    probe_first: Duration::from_millis(100),
    // A probe is one small command; after an outage limits are to be shared again soon.
    probe_max: Duration::from_secs(5),
    trusted_after: Duration::from_secs(10),
};

/// Between a lane's end and its next connection.
const LANE_PAUSE: Duration = Duration::from_millis(100);

/// How often the keeper looks whether Redis is there still, and does its duty.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// More reactors than `listen.rs` starts.
const LANES_MAX: usize = 64;

/// What the keeper does besides: called each second and whenever it is woken, while Redis is there.
pub(crate) trait Duty: Send {
    /// Does it by these commands.
    fn perform(&mut self, redis: &Keeper<'_>) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Resolves when there is something to be done before the next second.
    fn called(&self) -> impl Future<Output = ()> + Send;
}

/// No duty: only whether it is there.
pub(crate) struct Heartbeat;

impl Duty for Heartbeat {
    async fn perform(&mut self, redis: &Keeper<'_>) -> Result<(), Trouble> {
        redis.ping().await
    }

    async fn called(&self) {
        std::future::pending::<()>().await;
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// Nobody is asked at this time.
    #[error("there is no connection")]
    Away,
    /// Nothing came in time.
    #[error("it did not answer in time")]
    Late,
    /// The connection broke.
    #[error("the connection broke")]
    Lost,
    /// It says no.
    #[error("it refused: {0}")]
    Refused(String),
    /// It answers something else than what was asked.
    #[error("its answer means nothing")]
    Odd,
}

/// See the module's own words.
pub struct Redis {
    connector: Connector,
    timeout: Duration,
    started: Instant,
    circuit: Mutex<Circuit>,
    /// What the circuit says, for requests and for tasks that wait for it.
    there: watch::Sender<bool>,
    is_there: AtomicBool,
    /// A failure was counted that an answer is to make forgotten.
    has_failed: AtomicBool,
    /// The operator knows that it is away.
    told: AtomicBool,
    /// What went wrong last.
    why: Mutex<String>,
    lanes: Box<[ArcSwapOption<Link>]>,
    place: ArcSwap<Place>,
}

/// The keeper's connection.
pub(crate) struct Keeper<'a> {
    link: &'a Link,
    limit: Duration,
}

impl Redis {
    /// `None`: none is named. The error is for the operator.
    pub(crate) fn new(settings: &Settings) -> Result<Option<Arc<Self>>, String> {
        let Some(connector) = Connector::new(settings)? else { return Ok(None) };
        let place = connector.place();
        let lanes = (0..LANES_MAX).map(|_| ArcSwapOption::empty()).collect();
        Ok(Some(Arc::new(Self {
            connector,
            timeout: settings.timeout,
            started: Instant::now(),
            circuit: Mutex::new(Circuit::new(PATIENCE, Duration::ZERO)),
            there: watch::channel(false).0,
            is_there: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            told: AtomicBool::new(false),
            why: Mutex::new("not asked yet".to_owned()),
            lanes,
            place: ArcSwap::from_pointee(place),
        })))
    }

    /// Is it worth asking?
    pub(crate) fn is_there(&self) -> bool {
        self.is_there.load(Relaxed)
    }

    /// For `quintet status`.
    pub(crate) fn status(&self) -> RedisStatus {
        let away_for = self.circuit().away_for(self.started.elapsed());
        let why = away_for.map(|_| lock(&self.why).clone()).unwrap_or_default();
        RedisStatus { place: self.place.load().to_string(), away_s: away_for.map(|time| time.as_secs()), why }
    }

    /// Runs a script for a request, on its reactor's lane: in time, or not. Cancel safe.
    pub(crate) async fn run(&self, script: &Script, keys: &[String], args: &[u64]) -> Result<Value, Trouble> {
        let link = self.lane().ok_or(Trouble::Away)?;
        let asked = script.run(&link, keys, args);
        let answer = tokio::time::timeout(self.timeout, asked).await.unwrap_or(Err(Trouble::Late));
        match &answer {
            Ok(_) => self.answered(),
            Err(trouble) => self.failed(trouble),
        }
        answer
    }

    /// The same for what no request waits for.
    pub(crate) fn tell(self: &Arc<Self>, script: &Arc<Script>, keys: Vec<String>, args: Vec<u64>) {
        let Some(link) = self.lane() else { return };
        let (redis, script) = (Arc::clone(self), Arc::clone(script));
        tokio::spawn(async move {
            let asked = script.run(&link, &keys, &args);
            let answer = tokio::time::timeout(redis.connector.connect_timeout(), asked).await;
            if let Err(trouble) = answer.unwrap_or(Err(Trouble::Late)) {
                redis.failed(&trouble);
            }
        });
    }

    fn lane(&self) -> Option<Arc<Link>> {
        if !self.is_there() {
            return None;
        }
        self.lanes.get(reactor::current())?.load_full()
    }

    fn answered(&self) {
        if self.has_failed.load(Relaxed) {
            self.has_failed.store(false, Relaxed);
            self.circuit().answered();
        }
    }

    pub(crate) fn failed(&self, trouble: &Trouble) {
        m::REDIS_FAILURES_TOTAL.inc();
        if let Trouble::Refused(why) = trouble
            && let Some(place) = Place::moved(why)
        {
            self.place.store(Arc::new(place));
        }
        let failure = match trouble {
            Trouble::Lost | Trouble::Away => Failure::Hard,
            Trouble::Late | Trouble::Refused(_) | Trouble::Odd => Failure::Soft,
        };
        self.fail(failure, &trouble.to_string());
    }

    /// Is it away since this moment?
    fn fail(&self, failure: Failure, why: &str) -> bool {
        self.has_failed.store(true, Relaxed);
        let is_away = self.circuit().failed(failure, self.started.elapsed());
        if is_away {
            self.is_there.store(false, Relaxed);
            self.there.send_replace(false);
            m::REDIS_UP.set(0);
            self.tell_away(why);
        }
        is_away
    }

    /// The keeper's connection broke, or could not be made: as good as a probe.
    fn lost(&self, why: &str) {
        m::REDIS_FAILURES_TOTAL.inc();
        if !self.fail(Failure::Hard, why) {
            self.probed(Err(why.to_owned()));
        }
    }

    /// Once, until it is back.
    fn tell_away(&self, why: &str) {
        why.clone_into(&mut lock(&self.why));
        if !self.told.swap(true, Relaxed) {
            REDIS_AWAY.happened(format_args!("{}: {why}", self.place.load()));
        }
    }

    fn probed(&self, probe: Result<(), String>) {
        let is_back = self.circuit().probed(probe.is_ok(), self.started.elapsed());
        match probe {
            Err(why) => self.tell_away(&why),
            Ok(()) if is_back => {
                if self.told.swap(false, Relaxed) {
                    tracing::info!(redis = %self.place.load(), "Redis is back: hosts count together again");
                }
                m::REDIS_UP.set(1);
                self.is_there.store(true, Relaxed);
                self.there.send_replace(true);
            }
            Ok(()) => {}
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        lock(&self.circuit)
    }

    /// Until the next probe; `None`: it is there.
    fn probe_in(&self) -> Option<Duration> {
        self.circuit().probe_in(self.started.elapsed())
    }

    async fn connect(&self) -> Result<(Link, link::Driver), String> {
        let moved = self.place.load_full();
        match self.connector.connect(&moved).await {
            Ok((socket, place)) => {
                self.place.store(Arc::new(place));
                Ok(link::new(socket))
            }
            Err(why) => {
                // Where it was said to have gone it is not: the next one asks where it was.
                self.place.store(Arc::new(self.connector.place()));
                Err(why)
            }
        }
    }

    /// The connection of a reactor, for the life of the process. Runs on that reactor.
    pub(crate) async fn keep_lane(self: Arc<Self>, number: usize) {
        let Some(lane) = self.lanes.get(number) else { return };
        let mut there = self.there.subscribe();
        loop {
            if there.wait_for(|there| *there).await.is_err() {
                return;
            }
            match self.connect().await {
                Ok((link, driver)) => {
                    lane.store(Some(Arc::new(link)));
                    m::REDIS_CONNECTIONS.add(1);
                    let place = self.place.load_full();
                    // Of a cluster another node answers for our keys now.
                    let moved = async {
                        while *self.place.load_full() == *place {
                            tokio::time::sleep(HEARTBEAT).await;
                        }
                    };
                    let broke = tokio::select! {
                        () = driver.run() => true,
                        () = moved => false,
                    };
                    lane.store(None);
                    m::REDIS_CONNECTIONS.add(-1);
                    if broke {
                        self.failed(&Trouble::Lost);
                    }
                }
                Err(why) => {
                    m::REDIS_FAILURES_TOTAL.inc();
                    self.fail(Failure::Hard, &why);
                }
            }
            tokio::time::sleep(LANE_PAUSE).await;
        }
    }

    /// Probes it when it is away, does its duty while it is there: for the life of the process.
    pub(crate) async fn keep<D: Duty>(self: Arc<Self>, mut duty: D) {
        loop {
            let pause = self.probe_in().unwrap_or_default();
            tokio::time::sleep(pause).await;
            let (link, driver) = match self.connect().await {
                Ok(made) => made,
                Err(why) => {
                    self.lost(&why);
                    continue;
                }
            };
            m::REDIS_CONNECTIONS.add(1);
            tokio::select! {
                () = driver.run() => self.lost(&Trouble::Lost.to_string()),
                () = self.with(&link, &mut duty) => {}
            }
            m::REDIS_CONNECTIONS.add(-1);
        }
    }

    /// On one connection, until it is of no use any more.
    async fn with<D: Duty>(&self, link: &Link, duty: &mut D) {
        let place = self.place.load_full();
        loop {
            if let Some(pause) = self.probe_in() {
                tokio::time::sleep(pause).await;
                let mut ping = Vec::new();
                encode(&mut ping, &[b"PING"]);
                // A request would not have waited longer either.
                let answer = link.ask(ping, self.timeout).await;
                self.probed(answer.map(drop).map_err(|trouble| trouble.to_string()));
                if !self.is_there() {
                    continue;
                }
            }
            let keeper = Keeper { link, limit: self.connector.connect_timeout() };
            if let Err(trouble) = duty.perform(&keeper).await {
                self.failed(&trouble);
            }
            if *self.place.load_full() != *place {
                return;
            }
            let mut there = self.there.subscribe();
            tokio::select! {
                () = tokio::time::sleep(HEARTBEAT) => {}
                () = duty.called() => {}
                _ = there.wait_for(|there| !*there) => {}
            }
        }
    }
}

impl Keeper<'_> {
    /// Runs a script; what no request waits for may take longer.
    pub(crate) async fn run(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<Value, Trouble> {
        let asked = script.run(self.link, keys, args);
        tokio::time::timeout(self.limit, asked).await.unwrap_or(Err(Trouble::Late))
    }

    /// Is it there still?
    pub(crate) async fn ping(&self) -> Result<(), Trouble> {
        let mut ping = Vec::new();
        encode(&mut ping, &[b"PING"]);
        self.link.ask(ping, self.limit).await.map(drop)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it holds is whole after each assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
