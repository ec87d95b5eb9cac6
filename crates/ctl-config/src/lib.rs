//! Every setting, once (under construction: the fields below are the contract).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The effective configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub app: App,
    pub server: Server,
    pub workers: Workers,
    pub tls: Tls,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub queue: Queue,
    pub proxy: Proxy,
    pub buffers: Buffers,
    pub files: Files,
    pub log: Log,
    pub admin: Admin,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct App {
    /// Project directory; goes first on sys.path. Default: the argument of `quintet run`, or `.`.
    pub dir: PathBuf,
    /// `MODULE:CALLABLE`; None: found from the settings module's WSGI_APPLICATION.
    pub wsgi: Option<String>,
    /// DJANGO_SETTINGS_MODULE; None: environment, then manage.py.
    pub settings: Option<String>,
    /// Python interpreter; None: found.
    pub python: Option<PathBuf>,
    /// SCRIPT_NAME prefix, "" or "/shop".
    pub mount: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// "127.0.0.1:8000", "[::1]:8000", ":8000", "unix:/run/x.sock", "fd:3" (also `systemd`).
    pub bind: Vec<String>,
    /// Bind addresses that speak TLS when [tls] is set; all of `bind` when empty? (plain `bind` speaks TLS when tls.certificate is set)
    pub backlog: u32,
    /// Reactor threads; None: chosen.
    pub reactors: Option<u32>,
    /// None: chosen from the project dir.
    pub runtime_dir: Option<PathBuf>,
    /// Between "not ready" and "no longer listening" at stop.
    pub drain_delay: Duration,
    /// In-flight requests may take this long at stop or reload.
    pub drain_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            bind: vec!["127.0.0.1:8000".into()],
            backlog: 2048,
            reactors: None,
            runtime_dir: None,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Workers {
    /// Processes; None: chosen for the machine.
    pub count: Option<u32>,
    /// Threads (= slots) each; None: chosen.
    pub threads: Option<u32>,
    /// From spawn to ready.
    pub start_timeout: Duration,
    pub user: Option<String>,
    pub group: Option<String>,
}

impl Default for Workers {
    fn default() -> Self {
        Self { count: None, threads: None, start_timeout: Duration::from_secs(60), user: None, group: None }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub connections_max: u32,
    /// Request line: 414 above.
    pub line_max: u64,
    /// All header fields together: 431 above.
    pub headers_max: u64,
    pub header_count_max: u32,
    /// Request body: 413 above.
    pub body_max: u64,
    /// HTTP/2 streams a connection may have open.
    pub h2_streams_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            line_max: 8 << 10,
            headers_max: 32 << 10,
            header_count_max: 100,
            body_max: 128 << 20,
            h2_streams_max: 128,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    pub tls_handshake: Duration,
    pub header: Duration,
    pub body: Duration,
    pub queue: Duration,
    pub app: Duration,
    pub keep_alive: Duration,
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tls_handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            body: Duration::from_secs(30),
            queue: Duration::from_secs(10),
            app: Duration::from_secs(60),
            keep_alive: Duration::from_secs(75),
            write: Duration::from_secs(30),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Queue {
    /// Requests waiting for a slot; above: 503.
    pub depth_max: u32,
    /// Retry-After of that 503.
    pub retry_after: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self { depth_max: 1024, retry_after: Duration::from_secs(1) }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxy {
    /// Addresses and CIDR ranges (and "unix") whose forwarded headers are heard.
    pub trusted: Vec<String>,
    /// Expect the PROXY protocol (v1 or v2) from trusted peers.
    pub protocol: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Buffers {
    /// A request body is held in memory up to this; above: an unlinked file.
    pub request_memory: u64,
    /// Path prefixes whose request bodies are streamed to the app instead.
    pub request_stream: Vec<String>,
    /// A response the client is slow to take: memory, then an unlinked file up to `response_disk`, then back pressure.
    pub response_memory: u64,
    pub response_disk: u64,
    /// Slots that may be held by responses under back pressure; above: the slowest is cut.
    pub streaming_max: Option<u32>,
    /// Longest time a slot is held by a client's back pressure.
    pub streaming_timeout: Duration,
    /// Where the files go; None: the system's temporary directory.
    pub dir: Option<PathBuf>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            request_memory: 64 << 10,
            request_stream: Vec::new(),
            response_memory: 1 << 20,
            response_disk: 1 << 30,
            streaming_max: None,
            streaming_timeout: Duration::from_secs(300),
            dir: None,
        }
    }
}

/// Media policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    /// With DEBUG, where the URLconf serves them.
    #[default]
    Auto,
    /// Always: every uploaded file is public.
    Public,
    Off,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Files {
    /// Serve STATIC_URL from here at all.
    pub enabled: bool,
    pub media: Media,
    /// Overrides what the app reports; for plain WSGI apps: static_url + static_root.
    pub static_url: Option<String>,
    pub static_root: Option<PathBuf>,
    pub media_url: Option<String>,
    pub media_root: Option<PathBuf>,
    /// Small files and compressed variants kept in memory, in all.
    pub memory: u64,
    /// Compress what compresses on the fly.
    pub compress: bool,
    /// max-age of files without a content hash in their name (0: revalidate each time).
    pub max_age: Duration,
    /// Roots that X-Accel-Redirect / X-Sendfile may name: "/protected/=/srv/files".
    pub accel: Vec<String>,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            enabled: true,
            media: Media::Auto,
            static_url: None,
            static_root: None,
            media_url: None,
            media_root: None,
            memory: 64 << 20,
            compress: true,
            max_age: Duration::from_secs(60),
            accel: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    #[default]
    Off,
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    pub access: AccessLog,
    pub format: LogFormat,
    pub level: LogLevel,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Admin {
    /// HTTP: /metrics, /status, /healthz, /readyz. None: `admin.sock` in the runtime dir. A TCP address must be loopback and needs a token.
    pub bind: Option<String>,
    /// File that holds the bearer token of a TCP admin listener.
    pub token_file: Option<PathBuf>,
}
