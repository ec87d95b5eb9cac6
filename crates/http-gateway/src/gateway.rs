//! The gateway process: starts everything, then obeys the supervisor.
//!
//! One thread runs this file, the link's hand-shakes and the admin HTTP; the reactors run on threads of their own.
//! End of file on the control socket means that the supervisor is gone: the process ends at once, so that it never
//! outlives it.

mod control;
mod load;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ctl_admin::words::{Activated, Command, FromGateway, GatewayStart, GatewayStatus, Listener, ToGateway};
use ctl_config::Config;
use ctl_telemetry::metrics as m;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::access_log::AccessLog;
use crate::admin_http::{self, Admin};
use crate::broken::Why;
use crate::client::TrustedProxies;
use crate::drain::{Drain, Phase};
use crate::guard::{Guard, chores};
use crate::link::accept::{Credentials, accept};
use crate::link::long::{LongLimits, LongLinks, LongNews};
use crate::listen::{Edge, Listening, Reactors, run_reactors};
use crate::pools::Pools;
use crate::queue::WorkerNews;
use crate::redis::{Heartbeat, Redis};
use crate::service::Gateway;
use crate::tls::Identity;
use crate::upstream::{Secrets, Upstreams};
use crate::websocket::close::{GOING_AWAY, SERVICE_RESTART};
use control::Control;
use load::Reports;

/// Requests of the admin HTTP that may wait for the supervisor.
const ASKED_MAX: usize = 8;

/// How long idle connections are kept after another gateway has begun to accept. A client that asks at least this often
/// hears of the end with an answer, and never sends a request into a connection that is being closed.
const MOVE_GRACE: Duration = Duration::from_secs(5);

/// Takes possession of an inherited descriptor; the caller knows how.
pub type Take<'a> = &'a dyn Fn(i32) -> io::Result<OwnedFd>;

/// Runs a gateway process to its end; returns its exit code. `control` is the socket to the supervisor, `on_start` is called
/// with the configuration before anything runs (it sets up logging).
pub fn run(control: StdUnixStream, take: Take<'_>, on_start: impl FnOnce(&Config)) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("could not start the gateway: {error}");
            return 1;
        }
    };
    let code = runtime.block_on(async {
        let mut control = match Control::new(control) {
            Ok(control) => control,
            Err(error) => {
                error!("could not use the control socket: {error}");
                return 1;
            }
        };
        let Some(ToGateway::Start(start)) = control.next().await else { return 1 };
        match Running::begin(*start, take, on_start) {
            Ok((running, ears)) => running.obey(control, ears).await,
            Err(text) => {
                control.send(&FromGateway::Failed { text }).await;
                1
            }
        }
    });
    // Blocking threads that write to a slow disk are not waited for.
    runtime.shutdown_background();
    code
}

/// The process while it serves.
struct Running {
    config: Arc<Config>,
    pools: Arc<Pools>,
    links: Arc<LongLinks>,
    gateway: Arc<Gateway>,
    guard: Arc<Guard>,
    tls: Option<Arc<Identity>>,
    redis: Option<Arc<Redis>>,
    reactors: Reactors,
    gate: watch::Sender<bool>,
    drain: watch::Sender<Phase>,
}

/// What the process listens to besides the supervisor.
struct Ears {
    news: mpsc::UnboundedReceiver<WorkerNews>,
    long: mpsc::UnboundedReceiver<LongNews>,
    asked: mpsc::Receiver<Command>,
}

impl Running {
    /// Builds everything; nothing is accepted yet. The error is for the operator.
    fn begin(
        start: GatewayStart,
        take: Take<'_>,
        on_start: impl FnOnce(&Config),
    ) -> Result<(Self, Ears), String> {
        let config: Config =
            serde_json::from_value(start.config).map_err(|error| format!("configuration: {error}"))?;
        on_start(&config);
        let config = Arc::new(config);
        let tls = Identity::load(&config).map_err(|error| error.to_string())?.map(Arc::new);
        let trusted = Arc::new(
            TrustedProxies::parse(&config.proxy.trusted)
                .map_err(|error| format!("proxy.trusted: {error}\nhint: {}", error.hint))?,
        );
        let (pools, news) = Pools::new(&config);
        let (links, long) =
            LongLinks::new(LongLimits { grace: config.workers.long_lived_grace, app: config.timeouts.app });
        let access = AccessLog::open(config.log.access, io::stdout())
            .map_err(|error| format!("access log: {error}"))?;
        let secrets = Secrets::new(start.state_dir.clone(), start.token.clone());
        let upstreams = Upstreams::new(&config, &secrets)?;
        upstreams.restore(&start.drained);
        let redis = Redis::new(&config.redis)?;
        let guard = Guard::new(&config, Arc::clone(&trusted), start.state_dir, redis.as_ref())?;
        let guard = Arc::new(guard);
        tokio::spawn(chores(Arc::clone(&guard), Arc::clone(&config)));
        let gateway = Gateway::new(
            Arc::clone(&config),
            Arc::clone(&trusted),
            Arc::clone(&pools),
            Arc::clone(&links),
            access,
            Arc::clone(&guard),
            upstreams,
        )?;
        tokio::spawn(Arc::clone(gateway.keys()).keep_clean());
        let mut listeners = Vec::new();
        for listener in start.listeners {
            let socket = take(listener.fd).map_err(|error| format!("{}: {error}", listener.name))?;
            listeners.push(Listening { socket, name: listener.name, tls: listener.tls });
        }
        let (gate, gate_ear) = watch::channel(false);
        let (drain, drain_ear) = Drain::channel();
        let edge = Edge {
            service: Arc::clone(&gateway),
            config: Arc::clone(&config),
            tls: tls.clone(),
            trusted: Arc::clone(&trusted),
            gate: gate_ear,
            drain: drain_ear.clone(),
        };
        let reactors = run_reactors(listeners, edge)
            .map_err(|error| format!("could not start the reactors: {error}"))?;
        if let Some(redis) = &redis {
            for (number, reactor) in reactors.handles().iter().enumerate() {
                reactor.spawn(Arc::clone(redis).keep_lane(number));
            }
            let keeper = Arc::clone(redis);
            match guard.ban_duty(&config) {
                Some(duty) => drop(tokio::spawn(keeper.keep(duty))),
                None => drop(tokio::spawn(keeper.keep(Heartbeat))),
            }
        }
        tokio::spawn(Arc::clone(gateway.upstreams()).look_after(drain_ear.clone()));
        let link = take(start.link_fd).map_err(|error| format!("link: {error}"))?;
        accept_workers(link, start.token, start.worker_uid, &reactors, (&pools, &links))?;
        let opens = start.heir.then(|| gate.subscribe());
        let asked = admin(start.admin, take, &config, (&gateway, &pools), drain_ear, opens)?;
        let running = Self { config, pools, links, gateway, guard, tls, redis, reactors, gate, drain };
        for active in &start.active {
            running.activate(active);
        }
        Ok((running, Ears { news, long, asked }))
    }

    fn activate(&self, active: &Activated) {
        self.gateway.activate(active.module, active.generation, &active.app);
        self.open();
    }

    /// Clients come in as soon as each app serves, or is known to be broken.
    fn open(&self) {
        if self.gateway.knows_all_apps() {
            self.gate.send_replace(true);
        }
    }

    /// Until the supervisor says stop, or is gone.
    async fn obey(self, mut control: Control, mut ears: Ears) -> u8 {
        control.send(&FromGateway::Ready).await;
        let mut reports = Reports::new();
        let moves = loop {
            tokio::select! {
                message = control.next() => match message {
                    None => return 0,
                    Some(ToGateway::Drain) => break false,
                    Some(ToGateway::HandOver) => break true,
                    Some(message) => self.act(message, &mut control).await,
                },
                Some(news) = ears.news.recv() => self.tell(news, &mut control).await,
                Some(news) = ears.long.recv() => control.send(&told_of_long(news)).await,
                report = reports.due(&self.pools, &self.links) => {
                    control.send(&FromGateway::Load(Box::new(report))).await;
                }
                Some(command) = ears.asked.recv() => control.send(&FromGateway::Asked(command)).await,
            }
        };
        if moves {
            self.drain.send_replace(Phase::Moved);
            self.reactors.unlistened().await;
            let guard = Arc::clone(&self.guard);
            let _written = tokio::task::spawn_blocking(move || guard.hand_over()).await;
            control.send(&FromGateway::Moved).await;
        }
        let drained = async { if moves { self.move_out().await } else { self.drain().await } };
        tokio::pin!(drained);
        loop {
            tokio::select! {
                in_time = &mut drained => {
                    if !in_time {
                        warn!("connections were cut: `server.drain_timeout` is over");
                    }
                    break;
                }
                message = control.next() => match message {
                    None => return 0,
                    Some(message) => self.act(message, &mut control).await,
                },
                Some(news) = ears.news.recv() => self.tell(news, &mut control).await,
                Some(news) = ears.long.recv() => control.send(&told_of_long(news)).await,
            }
        }
        let guard = Arc::clone(&self.guard);
        let _written = tokio::task::spawn_blocking(move || guard.keep()).await;
        control.send(&FromGateway::Drained).await;
        0
    }

    /// Not ready at once; no new connections after the delay; then until every connection has ended, or the timeout.
    async fn drain(&self) -> bool {
        self.gateway.not_ready();
        self.drain.send_replace(Phase::Leaving);
        tokio::time::sleep(self.config.server.drain_delay).await;
        self.drain.send_replace(Phase::Draining);
        let drained = self.reactors.drained(self.config.server.drain_timeout);
        tokio::pin!(drained);
        // What lasts has its grace, then it is ended in order.
        tokio::select! {
            in_time = &mut drained => return in_time,
            () = tokio::time::sleep(self.config.workers.long_lived_grace) => self.links.dismiss_all(GOING_AWAY),
        }
        drained.await
    }

    /// A worker is gone when its slots and its long link are.
    async fn tell(&self, news: WorkerNews, control: &mut Control) {
        if let WorkerNews::Retired(worker) = news
            && !self.links.slots_gone(worker)
        {
            return;
        }
        control.send(&told(news)).await;
    }

    /// Another gateway accepts by now. Connections that are in use end with their next answer, so that no request is
    /// lost on one that is closed at the same moment; then as a drain.
    async fn move_out(&self) -> bool {
        let patience = self.config.server.drain_timeout;
        let idle_for = MOVE_GRACE.min(patience);
        let drained = self.reactors.drained(idle_for + patience);
        let idle = tokio::time::sleep(idle_for);
        let lasting = tokio::time::sleep(self.config.workers.long_lived_grace);
        tokio::pin!(drained, idle, lasting);
        let (mut waits, mut lasts) = (true, true);
        loop {
            tokio::select! {
                in_time = &mut drained => return in_time,
                () = &mut idle, if waits => {
                    waits = false;
                    self.drain.send_replace(Phase::Draining);
                }
                () = &mut lasting, if lasts => {
                    lasts = false;
                    self.links.dismiss_all(SERVICE_RESTART);
                }
            }
        }
    }

    async fn act(&self, message: ToGateway, control: &mut Control) {
        match message {
            ToGateway::Start(_) | ToGateway::Drain | ToGateway::HandOver => {}
            ToGateway::Activate(active) => self.activate(&active),
            ToGateway::Retire { workers } => {
                for worker in workers {
                    // First the long link: it is to know before the news that the slots are gone.
                    self.links.retire(worker);
                    self.pools.retire(worker);
                }
            }
            ToGateway::Hold { module } => self.gateway.set_broken(module, None),
            ToGateway::Broken { module, message, traceback, hint } => {
                self.gateway.set_broken(module, Some(Why { message, traceback, hint }));
                // There may never have been a generation that serves.
                self.open();
            }
            ToGateway::ReloadTls => self.reload_tls(),
            ToGateway::Status => control.send(&FromGateway::Status(self.status())).await,
            ToGateway::Bans { number, request } => {
                let answer = self.guard.answer(&request);
                control.send(&FromGateway::Bans { number, answer }).await;
            }
            ToGateway::Upstream { number, request } => {
                let answer = self.gateway.upstreams().answer(&request);
                control.send(&FromGateway::Upstream { number, answer }).await;
            }
            ToGateway::Sync { number } => control.send(&FromGateway::Synced { number }).await,
            ToGateway::WorkerEvent { event, worker } => match event.as_str() {
                "started" => m::WORKERS_STARTED_TOTAL.inc(),
                "recycled" => m::WORKERS_RECYCLED_TOTAL.inc(),
                "died" => {
                    m::WORKERS_DIED_TOTAL.inc();
                    self.pools.buried(worker);
                }
                _ => {}
            },
        }
    }

    fn reload_tls(&self) {
        let Some(tls) = &self.tls else { return };
        match tls.reload() {
            Ok(()) => info!("certificates and keys were read again"),
            Err(error) => error!("the old certificates stay in service: {error}"),
        }
    }

    fn status(&self) -> GatewayStatus {
        let redis = self.redis.as_ref().map(|redis| redis.status());
        GatewayStatus {
            connections: self.reactors.connections() as u64,
            redis,
            ..admin_http::status(&self.pools, self.gateway.upstreams())
        }
    }
}

fn told(news: WorkerNews) -> FromGateway {
    match news {
        WorkerNews::Online(worker) => FromGateway::WorkerOnline { worker },
        WorkerNews::Retired(worker) => FromGateway::WorkerRetired { worker },
        WorkerNews::Stuck { worker, request_id } => FromGateway::WorkerStuck { worker, request_id },
        WorkerNews::Wanted(pool) => FromGateway::PoolWanted { pool },
    }
}

fn told_of_long(news: LongNews) -> FromGateway {
    match news {
        LongNews::Over(worker) => FromGateway::WorkerRetired { worker },
        LongNews::Wanted(pool) => FromGateway::PoolWanted { pool },
    }
}

fn accept_workers(
    link: OwnedFd,
    token: String,
    worker_uid: Option<u32>,
    reactors: &Reactors,
    (pools, links): (&Arc<Pools>, &Arc<LongLinks>),
) -> Result<(), String> {
    let listener = std::os::unix::net::UnixListener::from(link);
    listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixListener::from_std(listener))
        .map(|listener| {
            let own = rustix::process::getuid().as_raw();
            let credentials = Credentials { token, uids: std::iter::once(own).chain(worker_uid).collect() };
            let reactors = reactors.handles().to_vec();
            tokio::spawn(accept(listener, credentials, reactors, Arc::clone(pools), Arc::clone(links)));
        })
        .map_err(|error| format!("link: {error}"))
}

/// The admin HTTP runs on this thread. What it is asked for goes to the supervisor. `opens`: nothing is accepted until
/// then, because another gateway answers at the same socket.
fn admin(
    listener: Option<Listener>,
    take: Take<'_>,
    config: &Arc<Config>,
    (gateway, pools): (&Arc<Gateway>, &Arc<Pools>),
    drain: Drain,
    opens: Option<watch::Receiver<bool>>,
) -> Result<mpsc::Receiver<Command>, String> {
    let (asks, asked) = mpsc::channel(ASKED_MAX);
    if let Some(listener) = listener {
        let socket = take(listener.fd).map_err(|error| format!("{}: {error}", listener.name))?;
        let token = config.admin.token_file.as_deref().map(read_token).transpose()?;
        let ready = Arc::clone(gateway);
        let (pools, is_ready) = (Arc::clone(pools), Box::new(move || ready.is_ready()));
        let upstreams = Arc::clone(gateway.upstreams());
        let admin = Admin { token, ready: is_ready, pools, upstreams, asked: asks };
        let mut moves = drain.clone();
        let serving = admin_http::serve(socket, admin, Arc::clone(config), drain);
        let serving = serving.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Some(mut opens) = opens {
                let _gone = opens.wait_for(|open| *open).await;
            }
            tokio::select! {
                () = serving => {}
                () = moves.moved() => {}
            }
        });
    }
    Ok(asked)
}

/// The admin listener's bearer token: what stands in the file, without the end of its line.
fn read_token(path: &Path) -> Result<Box<[u8]>, String> {
    let bytes = std::fs::read(path).map_err(|error| {
        format!(
            "the admin token cannot be read\n  detail: {}: {error}\n  hint: see admin.token_file",
            path.display()
        )
    })?;
    match bytes.trim_ascii() {
        b"" => Err(format!(
            "the admin token is empty\n  detail: {}\n  hint: write a long random word into it",
            path.display()
        )),
        token => Ok(token.into()),
    }
}
