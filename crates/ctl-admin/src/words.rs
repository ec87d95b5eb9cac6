//! Every message, by the pair that speaks it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Command to supervisor, over `control.sock`: one request a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// What is going on? Answered with one [`Reply::Status`].
    Status,
    /// New workers for old. [`Reply::Progress`] lines, then `Done` or `Failed`.
    Reload,
    /// Drain and exit. `Progress` lines, then `Done`.
    Stop,
}

/// Supervisor to command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The state of the instance.
    Status(Box<Status>),
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
        /// Message, and for a failed import the traceback.
        text: String,
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
    /// starting, serving, reloading, draining.
    pub state: String,
    /// The gateway's process id, while it runs.
    pub gateway_pid: Option<u32>,
    /// Times the gateway had to be started again.
    pub gateway_restarts: u64,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// What the gateway counts, when it answered in time.
    pub gateway: Option<GatewayStatus>,
}

/// A worker in [`Status`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: u32,
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
}

/// Supervisor to gateway, over the socket pair it inherits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGateway {
    /// The first message: everything it needs to run.
    Start(Box<GatewayStart>),
    /// Requests may be sent to workers of this generation from now on, and files served as its app reports.
    Activate {
        /// The generation.
        generation: u32,
        /// What its app reports.
        app: Box<AppReport>,
    },
    /// Send these workers no more requests; when their exchanges are over, send each slot a Retire frame.
    Retire {
        /// Worker numbers.
        workers: Vec<u32>,
    },
    /// Read certificate and key again.
    ReloadTls,
    /// Stop in order: not ready at once; after the drain delay no new connections; finish what is in flight; exit 0.
    Drain,
    /// Send a [`FromGateway::Status`].
    Status,
    /// Counts for the metrics of the whole instance.
    WorkerEvent {
        /// started or died.
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
    /// Workers are already serving (the gateway before died): the last `Activate`.
    pub active: Option<(u32, Box<AppReport>)>,
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
    },
    /// Counters.
    Status(GatewayStatus),
    /// `Drain` is done; the process exits.
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
}

/// Supervisor to worker. End of file on this socket means: the supervisor is gone, exit at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToWorker {
    /// Close the slots that are idle, finish the others, exit. (Sent when there is no gateway to do it in order.)
    Exit,
}

/// How a worker is told what to do: JSON in the environment variable `QUINTET_WORKER`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerStart {
    /// Version of the binary; the extension refuses another than its own.
    pub version: String,
    /// See `py_link::Hello`.
    pub worker: u32,
    /// See `py_link::Hello`.
    pub generation: u32,
    /// Threads, one slot each.
    pub threads: u32,
    /// Path of the link's unix socket.
    pub link: PathBuf,
    /// See `py_link::Hello`.
    pub token: String,
    /// Project directory: current directory and first on `sys.path`.
    pub dir: PathBuf,
    /// `MODULE:CALLABLE`, or `None` to take `WSGI_APPLICATION` of the settings.
    pub wsgi: Option<String>,
    /// `DJANGO_SETTINGS_MODULE`, or `None` to leave the environment's.
    pub settings: Option<String>,
    /// Text or JSON log lines.
    pub log_json: bool,
    /// Serve static files of DEBUG through staticfiles' handler, for what the gateway's roots do not have.
    pub debug_static: bool,
}

/// What a ready app says of itself. Everything of Django is absent for a plain WSGI app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppReport {
    /// `shop.wsgi:application`, as loaded.
    pub app: String,
    /// Python's version, `3.11.7`.
    pub python: String,
    /// Django's version.
    pub django: Option<String>,
    /// `settings.DEBUG`.
    pub debug: bool,
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
}
