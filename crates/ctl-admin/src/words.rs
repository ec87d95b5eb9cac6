//! Every message, by the pair that speaks it.

mod bans;
mod load;
mod modules;
mod upstreams;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use bans::{BanRow, BansAnswer, BansRequest};
pub use load::{LOAD_EVERY, LoadReport, PoolLoad, WorkerLoad};
pub use modules::{Activated, ModuleStatus};
pub use upstreams::{
    DRAINED_MAX, Drained, SERVERS_TOLD_MAX, ServerStatus, UpstreamAnswer, UpstreamRequest, UpstreamStatus,
    is_called,
};

/// Command to supervisor, over `control.sock`: one request a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// What is going on? Answered with one [`Reply::Status`].
    Status,
    /// New workers for old. [`Reply::Progress`] lines, then `Done` or `Failed`.
    Reload {
        /// Of this module; `None`: of all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        module: Option<String>,
    },
    /// Drain and exit. `Progress` lines, then `Done`.
    Stop,
    /// Hand the listeners over to the program that lies on disk now. `Progress` lines, then `Done` or `Failed`.
    Upgrade {
        /// The new program; `None`: where the running one was started from.
        program: Option<PathBuf>,
    },
    /// More or fewer workers, until the next reload. Answered at once, with `Done` or `Failed`.
    Scale {
        /// The pool's name; `None`: the default one.
        pool: Option<String>,
        /// By how many, or to how many.
        change: Change,
    },
    /// Who is shut out? Answered with [`Reply::Bans`], or with `Done` or `Failed` where something is to be changed.
    Bans(BansRequest),
    /// No new requests for a server of an upstream, or requests again. Answered with `Done` or `Failed`.
    Upstream(UpstreamRequest),
}

/// What an order does to the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// So many more than there are, or fewer.
    By(i32),
    /// So many.
    To(u32),
}

/// Supervisor to command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The state of the instance.
    Status(Box<Status>),
    /// Who is banned.
    Bans {
        /// See [`BansAnswer::List`].
        bans: Vec<BanRow>,
        /// See [`BansAnswer::List`].
        total: u64,
    },
    /// A step was taken.
    Progress {
        /// For people.
        text: String,
    },
    /// It is done.
    Done {
        /// For people.
        text: String,
    },
    /// It failed; the instance goes on as before.
    Failed {
        /// All that is to be shown: traceback, message, detail, hint, and what goes on serving.
        text: String,
        /// It is the app that does not start.
        #[serde(default)]
        app: bool,
    },
}

/// `quintet status --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version of the binary.
    pub version: String,
    /// Supervisor's process id.
    pub pid: u32,
    /// Project directory.
    pub project: PathBuf,
    /// What it listens on, as URLs.
    pub addresses: Vec<String>,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The generation of code that serves.
    pub generation: u32,
    /// starting, serving, reloading, upgrading, draining.
    pub state: String,
    /// The gateway's process id, while it runs.
    pub gateway_pid: Option<u32>,
    /// Times the gateway had to be started again.
    pub gateway_restarts: u64,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// The pools, the default one first.
    #[serde(default)]
    pub pools: Vec<PoolStatus>,
    /// The apps, where there are several: that of `[app]` first.
    #[serde(default)]
    pub modules: Vec<ModuleStatus>,
    /// The template process's id, while there is one.
    #[serde(default)]
    pub template_pid: Option<u32>,
    /// What an operator should know now, for people: "CPU is what is short: more workers would not help", for example.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What the gateway counts, when it answered in time.
    pub gateway: Option<GatewayStatus>,
}

/// A pool in [`Status`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name; "default" for requests that no `[[worker_pool]]` matches; a module's own pool has the module's name.
    pub name: String,
    /// Workers that are wanted now.
    pub wanted: u32,
    /// The bounds of scaling.
    pub min: u32,
    /// See `min`.
    pub max: u32,
    /// Why the number is what it is, for people: the last decision of the autoscaler.
    pub reason: String,
    /// What the gateway saw last.
    pub load: PoolLoad,
}

/// A worker in [`Status`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: u32,
    /// Its pool's name.
    #[serde(default)]
    pub pool: String,
    /// Requests answered.
    #[serde(default)]
    pub requests: u64,
    /// WebSockets and event streams it holds.
    #[serde(default)]
    pub long_lived: u64,
    /// Process id.
    pub pid: u32,
    /// Its generation.
    pub generation: u32,
    /// starting, ready, retiring.
    pub state: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Proportional memory in MiB where the system tells.
    pub memory_mib: Option<u64>,
}

/// What the gateway tells about itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Open client connections.
    pub connections: u64,
    /// Requests answered.
    pub requests_total: u64,
    /// Responses of class 5xx.
    pub errors_total: u64,
    /// Slots that workers have opened.
    pub slots: u64,
    /// Slots in use.
    pub slots_busy: u64,
    /// Requests waiting.
    pub queue_depth: u64,
    /// WebSockets and event streams open.
    #[serde(default)]
    pub long_lived: u64,
    /// Requests refused because of overload.
    #[serde(default)]
    pub shed_total: u64,
    /// The upstreams, in the order of the configuration.
    #[serde(default)]
    pub upstreams: Vec<UpstreamStatus>,
    /// By which hosts count limits together, when one is named.
    #[serde(default)]
    pub redis: Option<RedisStatus>,
}

/// Redis in [`GatewayStatus`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisStatus {
    /// Where it is.
    pub place: String,
    /// For how many seconds it has been away; `None`: it is there.
    pub away_s: Option<u64>,
    /// What went wrong last, while it is away.
    pub why: String,
}

/// Supervisor to gateway, over the socket pair it inherits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGateway {
    /// The first message: everything it needs to run.
    Start(Box<GatewayStart>),
    /// Requests may be sent to workers of this generation from now on, and files served as its app reports.
    Activate(Activated),
    /// Send these workers no more requests; their WebSockets and event streams are ended after
    /// `workers.long_lived_grace`; when their exchanges are over, send each slot a Retire frame.
    Retire {
        /// Worker numbers.
        workers: Vec<u32>,
    },
    /// Read certificate and key again.
    ReloadTls,
    /// Stop in order: not ready at once; after the drain delay no new connections; finish what is in flight; exit 0.
    Drain,
    /// Another instance accepts on the same sockets now: accept nothing more at once; end each connection with its next
    /// answer, idle ones after a while; finish what is in flight; exit 0. Readiness is not touched.
    HandOver,
    /// `quintet dev`: the code has changed; requests wait for the next `Activate` or `Broken`.
    Hold {
        /// As in [`Activated`].
        module: u16,
    },
    /// `quintet dev`: the code does not start. Requests for the app are answered with this, until the next `Hold` or `Activate`.
    Broken {
        /// As in [`Activated`].
        module: u16,
        /// One line.
        message: String,
        /// Of Python, cleaned; may be empty.
        traceback: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// Send a [`FromGateway::Status`].
    Status,
    /// Send a [`FromGateway::Bans`].
    Bans {
        /// Comes back.
        number: u64,
        /// What is asked.
        request: BansRequest,
    },
    /// Send a [`FromGateway::Upstream`].
    Upstream {
        /// Comes back.
        number: u64,
        /// What is asked.
        request: UpstreamRequest,
    },
    /// Send a [`FromGateway::Synced`]: all that was said before has been done.
    Sync {
        /// Comes back.
        number: u64,
    },
    /// Counts for the metrics of the whole instance.
    WorkerEvent {
        /// started, recycled or died.
        event: String,
        /// Which worker; the idle slots of a dead one are taken out of service.
        worker: u32,
    },
}

/// All that a gateway process needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GatewayStart {
    /// The effective configuration (`ctl_config::Config`), as JSON.
    pub config: serde_json::Value,
    /// Listening sockets: inherited descriptors.
    pub listeners: Vec<Listener>,
    /// The listening unix socket to which workers connect.
    pub link_fd: i32,
    /// The listening socket of the admin HTTP.
    pub admin: Option<Listener>,
    /// The secret that workers show in `py_link::Hello`.
    pub token: String,
    /// Uids that may connect to the link besides our own.
    pub worker_uid: Option<u32>,
    /// Another instance serves the same sockets until this one does: the admin socket waits for `Activate`, too.
    #[serde(default)]
    pub heir: bool,
    /// Where bans and the counts of limits outlive the process.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// Servers of upstreams that were drained before.
    #[serde(default)]
    pub drained: Vec<Drained>,
    /// Workers are already serving (the gateway before died): the last `Activate` of each app.
    pub active: Vec<Activated>,
}

/// A listening socket that is handed down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listener {
    /// Inherited descriptor.
    pub fd: i32,
    /// As configured, for messages.
    pub name: String,
    /// A unix socket.
    pub unix: bool,
    /// Speaks TLS.
    pub tls: bool,
}

/// Gateway to supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGateway {
    /// It runs and waits for `Activate`, or is serving already.
    Ready,
    /// It cannot run: bad certificate and so on. The process exits after it.
    Failed {
        /// Message, detail, hint.
        text: String,
    },
    /// All slots of the worker said hello.
    WorkerOnline {
        /// The worker.
        worker: u32,
    },
    /// Every slot of the worker has been sent Retire.
    WorkerRetired {
        /// The worker.
        worker: u32,
    },
    /// The worker holds a request beyond its time limit: replace it.
    WorkerStuck {
        /// The worker.
        worker: u32,
        /// The request's id, to be logged with the worker's stacks.
        #[serde(default)]
        request_id: String,
    },
    /// What the queues look like; every [`LOAD_EVERY`] while there is something to scale, recycle or show.
    Load(Box<LoadReport>),
    /// A request waits in a pool that has no worker: start one now.
    PoolWanted {
        /// By its number, see `ctl_config::Config::pools`.
        pool: u16,
    },
    /// The answer to `Sync`.
    Synced {
        /// As sent.
        number: u64,
    },
    /// Counters.
    Status(GatewayStatus),
    /// The answer to `Bans`.
    Bans {
        /// As sent.
        number: u64,
        /// What was asked for.
        answer: BansAnswer,
    },
    /// The answer to `Upstream`.
    Upstream {
        /// As sent.
        number: u64,
        /// What became of it.
        answer: UpstreamAnswer,
    },
    /// `HandOver`: nothing is accepted here any more.
    Moved,
    /// `Drain` or `HandOver` is done; the process exits.
    Drained,
    /// The admin HTTP was asked to do this.
    Asked(Command),
}

/// Worker to supervisor, over the socket pair it inherits (`QUINTET_CONTROL_FD`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromWorker {
    /// The app is imported; slots are being opened.
    Ready {
        /// What the app reports.
        app: Box<AppReport>,
    },
    /// The app could not be imported; the process exits after it.
    Failed {
        /// One line.
        message: String,
        /// The traceback, cleaned of our own frames; empty when there is none to show.
        traceback: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// Asked for its stacks: Python has not run for a second, because a call into C keeps the GIL. Nothing that this
    /// process has begun will be answered soon.
    Hung,
    /// Its threads hold more database connections at the same time than it has slots. Said again when they are more.
    Connections {
        /// To one server.
        most: u32,
    },
}

/// Supervisor to worker. End of file on this socket means: the supervisor is gone, exit at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// Close the slots that are idle, finish the others, exit. (Sent when there is no gateway to do it in order.)
    Exit,
    /// A request is beyond its time limit: log the Python stacks of all threads. Works when Python itself hangs in C.
    DumpStacks {
        /// The request's id.
        request_id: String,
    },
}

/// Supervisor to template, over the socket pair it inherits (`QUINTET_CONTROL_FD`). End of file: exit at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToTemplate {
    /// Fork a worker; its control socket comes along as the one descriptor of this message (`SCM_RIGHTS`). Answered with
    /// [`FromTemplate::Forked`]. The worker is a child of the supervisor (forked twice; the supervisor is subreaper).
    Fork(Box<WorkerStart>),
    /// Become this worker without a fork (the app is not fit for one); the socket as with `Fork`. There is no template any more.
    Become(Box<WorkerStart>),
}

/// Template to supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromTemplate {
    /// The app is imported, collected and frozen.
    Ready {
        /// What the app reports.
        app: Box<AppReport>,
        /// Why it must not be forked, for people ("the import started 2 threads: …"); empty when it may.
        unfit: String,
    },
    /// As [`FromWorker::Failed`]; the process exits after it.
    Failed {
        /// One line.
        message: String,
        /// The traceback, cleaned of our own frames; empty when there is none to show.
        traceback: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// A worker runs.
    Forked {
        /// Its number.
        worker: u32,
        /// Its process id.
        pid: u32,
    },
    /// A worker could not be forked (memory, process limit).
    ForkFailed {
        /// Its number.
        worker: u32,
        /// Why.
        message: String,
    },
}

/// How an app is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interface {
    /// PEP 3333: a thread a slot.
    #[default]
    Wsgi,
    /// ASGI 3: one event loop; `slots` requests at a time, `long_lived_max` WebSockets and event streams besides.
    Asgi,
}

/// How a worker is told what to do: JSON in the environment variable `QUINTET_WORKER`, or in [`ToTemplate`].
///
/// A template is started with the same words and `template: true`; its worker number is 0 then.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WorkerStart {
    /// Import the app and wait for [`ToTemplate`] instead of serving.
    #[serde(default)]
    pub template: bool,
    /// See `py_link::Hello::pool`.
    #[serde(default)]
    pub pool: u16,
    /// `None`: found out from the project (ASGI when `ASGI_APPLICATION` is set or the callable is a coroutine function of three arguments).
    #[serde(default)]
    pub interface: Option<Interface>,
    /// ASGI: requests at a time.
    #[serde(default)]
    pub concurrency: u32,
    /// ASGI: WebSockets and event streams at a time.
    #[serde(default)]
    pub long_lived_max: u32,
    /// ASGI: longest WebSocket message of a client.
    #[serde(default)]
    pub message_max: u64,
    /// The event loop: "auto" (uvloop when it is installed), "asyncio", "uvloop".
    #[serde(default)]
    pub event_loop: String,
    /// Run the garbage collector between requests instead of inside them.
    #[serde(default)]
    pub gc_between: bool,
    /// `quintet dev`: tell queries and their time with each response, in the field [`crate::words::QUERIES_FIELD`].
    #[serde(default)]
    pub dev: bool,
    /// Version of the binary; the extension refuses another than its own.
    pub version: String,
    /// See `py_link::Hello`.
    pub worker: u32,
    /// See `py_link::Hello`.
    pub generation: u32,
    /// WSGI: threads, one slot each. ASGI: threads for sync views are made as needed, at most `concurrency`.
    pub threads: u32,
    /// Path of the link's unix socket.
    pub link: PathBuf,
    /// See `py_link::Hello`.
    pub token: String,
    /// Project directory: current directory and first on `sys.path`.
    pub dir: PathBuf,
    /// `MODULE:CALLABLE`, WSGI or ASGI, or `None` to take `ASGI_APPLICATION` or `WSGI_APPLICATION` of the settings.
    pub app: Option<String>,
    /// `DJANGO_SETTINGS_MODULE`, or `None` to leave the environment's.
    pub settings: Option<String>,
    /// Text or JSON log lines.
    pub log_json: bool,
    /// Serve static files of DEBUG through staticfiles' handler, for what the gateway's roots do not have.
    pub debug_static: bool,
}

/// The response field by which a worker of `quintet dev` tells the gateway its database queries:
/// `COUNT;MICROSECONDS;REPEATED`, the last being how often the most frequent one was made. It never leaves
/// the gateway.
pub const QUERIES_FIELD: &str = "x-quintet-queries";

/// What a ready app says of itself. Everything of Django is absent for a plain WSGI app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppReport {
    /// `shop.wsgi:application`, as loaded.
    pub app: String,
    /// How it is called.
    pub interface: Interface,
    /// ASGI: asyncio or uvloop; empty for WSGI.
    pub event_loop: String,
    /// Python's version, `3.11.7`.
    pub python: String,
    /// Django's version.
    pub django: Option<String>,
    /// `settings.DEBUG`.
    pub debug: bool,
    /// `SESSION_COOKIE_NAME`: by it the gateway knows who is signed in.
    pub session_cookie: Option<String>,
    /// `STATIC_URL`, when `django.contrib.staticfiles` is installed or `STATIC_ROOT` is set.
    pub static_url: Option<String>,
    /// `STATIC_ROOT`.
    pub static_root: Option<PathBuf>,
    /// The storage gives names with a content hash (`ManifestStaticFilesStorage` and kin).
    pub static_hashed: bool,
    /// With DEBUG: the finders' directories in order, each with its URL prefix below `STATIC_URL` (mostly "").
    pub static_finders: Vec<(String, PathBuf)>,
    /// `MEDIA_URL`.
    pub media_url: Option<String>,
    /// `MEDIA_ROOT`.
    pub media_root: Option<PathBuf>,
    /// With DEBUG: the URLconf has a `django.views.static.serve` pattern at `MEDIA_URL`.
    pub media_in_urlconf: bool,
    /// `quintet dev`: directories of imported code outside of the project that is not installed either.
    pub watch: Vec<PathBuf>,
}
