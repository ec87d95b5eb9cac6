//! What an instance owns: the runtime directory, the sockets, the secret; and how its programs are started.

mod succession;
mod workers;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ctl_admin::place::{ADMIN_SOCKET, CONTROL_SOCKET, LINK_SOCKET};
use ctl_admin::words::{Activated, AppReport, Drained, GatewayStart, ToGateway};
use ctl_config::LogFormat;
use ctl_config::pool::DEFAULT_POOL;

use crate::driver::Program;
use crate::event::{Pool, RecycleLimits, Settings};
use crate::inherit;
use crate::listen::{self, Bound, HEIRS_ENDING, Inherited, Reach, SocketFile};
use crate::plan::{Problem, RunPlan};
use crate::report;
use crate::runtime_dir::{RuntimeDir, enterable};
use crate::upgrade::{Heritage, Origin};
use crate::user::{self, WorkerUser};

/// The hidden subcommand of our own binary.
const GATEWAY_SUBCOMMAND: &str = "internal-gateway";

/// How much free memory at the end of a heap glibc keeps (mallopt(3)). By itself it gives back all above 128 KiB, which a hundred streams
/// of HTTP/2 take and free again with every burst of requests: each time a page fault for every 4 KiB, half of what such a
/// request cost. Other C libraries do not know the variable.
const TRIM_THRESHOLD: &str = "MALLOC_TRIM_THRESHOLD_";

/// Eight MiB for each reactor: bursts of eight connections with a hundred streams each stay within (1 MiB was too little, 4 enough).
const TRIM_THRESHOLD_BYTES: &str = "8388608";

/// Slots and commands that connect at the same moment: all workers' slots after the gateway came back.
const PRIVATE_BACKLOG: u32 = 1024;

/// Bytes of the secret: nobody guesses 256 bits.
const TOKEN_BYTES: usize = 32;

/// Fields are dropped in this order: the sockets' names go before the directory and its lock do.
pub(crate) struct House {
    plan: RunPlan,
    listeners: Vec<Bound>,
    admin: Bound,
    link: Arc<OwnedFd>,
    link_path: PathBuf,
    _link_file: SocketFile,
    control_file: SocketFile,
    token: String,
    user: Option<WorkerUser>,
    config_json: serde_json::Value,
    /// What a reload has read and could not take over.
    waiting: Vec<String>,
    /// Forked workers become our children.
    adopts: bool,
    runtime_dir: RuntimeDir,
    origin: Origin,
    /// See [`Heritage::ordinal`].
    ordinal: u32,
    parent_stays: bool,
    /// It has an elder whose names it does not have yet.
    waits: bool,
}

impl House {
    /// Makes and binds everything; the second is the listening control socket. Nothing is left behind when it fails.
    pub(crate) fn build(
        plan: RunPlan,
        adopts: bool,
        heritage: Option<Heritage>,
    ) -> Result<(Self, UnixListener), Problem> {
        let user = user::resolve(&plan.config.workers)?;
        let waits = heritage.is_some();
        let (runtime_dir, mut inherited) = match &heritage {
            None => (RuntimeDir::open(&plan.runtime_dir, user.is_some())?, Inherited::default()),
            Some(heritage) => (
                RuntimeDir::inherited(&heritage.runtime_dir, heritage.made_dir, heritage.take_lock()?)?,
                Inherited::new(heritage.sockets.clone()),
            ),
        };
        if let Some(user) = &user {
            enterable(runtime_dir.path(), &user.identity)?;
        }
        let (ordinal, parent_stays) = heritage.map_or((0, false), |from| (from.ordinal, from.parent_stays));
        let backlog = plan.config.server.backlog;
        let listeners = listen::bind_all(&plan.config, &mut inherited).map_err(Problem::unbound)?;
        let admin_path = runtime_dir.join(ADMIN_SOCKET);
        let admin = listen::bind_admin(plan.config.admin.bind.as_ref(), &admin_path, backlog, &mut inherited)
            .map_err(Problem::unbound)?;
        let link_path = runtime_dir.join(&own_name(LINK_SOCKET, ordinal));
        let (link, link_file) = listen::bind_unix(&link_path, PRIVATE_BACKLOG, Reach::Ourselves)?;
        if let Some(user) = &user {
            give_to(&link_path, user)?;
        }
        let control_path = runtime_dir.join(&own_name(CONTROL_SOCKET, ordinal));
        let (control, control_file) = listen::bind_unix(&control_path, PRIVATE_BACKLOG, Reach::Ourselves)?;
        let config_json = serde_json::to_value(&plan.config).map_err(|error| {
            Problem::new("the configuration cannot be passed on").detail(error.to_string())
        })?;
        let house = Self {
            listeners,
            admin,
            link: Arc::new(link),
            link_path,
            _link_file: link_file,
            control_file,
            token: token()?,
            user,
            config_json,
            waiting: Vec::new(),
            adopts,
            runtime_dir,
            origin: Origin::of_this_process(),
            ordinal,
            parent_stays,
            waits,
            plan,
        };
        Ok((house, UnixListener::from(control)))
    }

    pub(crate) fn version(&self) -> &str {
        &self.plan.version
    }

    /// `quintet dev`.
    pub(crate) fn develops(&self) -> bool {
        self.plan.dev
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.plan.dir
    }

    /// The directories of all apps.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.dir()).chain(self.plan.modules.iter().map(|module| module.dir.as_path()))
    }

    /// Whose file this may be: each app in whose directory it is, or all of them where it is nobody's or everybody's.
    pub(crate) fn modules_of_file(&self, file: &Path) -> Vec<usize> {
        let dirs = || self.dirs().enumerate();
        let is_shared = file.file_name().is_some_and(|name| name == "quintet.toml");
        let theirs: Vec<usize> = dirs().filter(|(_, dir)| file.starts_with(dir)).map(|(at, _)| at).collect();
        if is_shared || theirs.is_empty() { dirs().map(|(at, _)| at).collect() } else { theirs }
    }

    pub(crate) fn urls(&self) -> impl Iterator<Item = &str> {
        self.listeners.iter().map(|bound| bound.url.as_str())
    }

    /// For good: this instance ends. Sockets of systemd live on in systemd, which keeps clients waiting for the next one.
    pub(crate) fn stop_listening(&mut self) {
        self.listeners.clear();
    }

    pub(crate) fn show_banner(&self, apps: &[AppReport], after: Duration) {
        let urls: Vec<&str> = self.urls().collect();
        let Some(app) = apps.first() else { return };
        if self.plan.config.log.format == LogFormat::Json {
            let seconds = after.as_secs_f64();
            tracing::info!(app = app.app, addresses = urls.join(" "), seconds, "requests are served");
        } else {
            let lines = (self.plan.banner)(apps);
            report::show(&report::banner(&self.plan.version, app, &urls, &lines, after));
        }
    }

    /// What the state machine needs of the plan.
    pub(crate) fn settings(&self) -> Settings {
        let config = &self.plan.config;
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        let min = self.plan.workers.max(1);
        let default = Pool {
            name: DEFAULT_POOL.to_owned(),
            module: 0,
            min,
            max: config.workers.max.unwrap_or(min).max(min),
            bound: config.workers.max.map(|max| max.max(min)),
            threads: self.plan.threads,
            concurrency: config.workers.concurrency,
            // It never goes down to none.
            idle_timeout: Duration::MAX,
        };
        let modules = config.modules_of_pools();
        let others = config.pools().zip(modules.iter().skip(1)).map(|(pool, module)| Pool {
            name: pool.name.clone(),
            module: *module,
            min: pool.min,
            max: pool.most(),
            bound: pool.max.map(|_| pool.most()),
            threads: pool.threads.unwrap_or(default.threads),
            concurrency: pool.concurrency.unwrap_or(default.concurrency),
            idle_timeout: pool.idle_timeout.unwrap_or(Duration::MAX),
        });
        let others: Vec<Pool> = others.collect();
        Settings {
            modules: config.module_names().map(str::to_owned).collect(),
            pools: std::iter::once(default).chain(others).collect(),
            dev: self.plan.dev,
            preload: config.workers.preload && self.adopts,
            starting_max: cores,
            start_timeout: config.workers.start_timeout,
            drain_delay: config.server.drain_delay,
            drain_timeout: config.server.drain_timeout,
            db_connections_max: config.workers.db_connections_max,
            recycle: RecycleLimits {
                requests_max: config.workers.requests_max,
                lifetime: config.workers.lifetime,
                memory_max: config.workers.memory_max,
                memory_total_max: config.workers.memory_total_max,
            },
            waiting: self.waiting.clone(),
        }
    }

    /// Reads the configuration again, and takes over what may change while running of these apps.
    pub(crate) fn read_config(&mut self, modules: &[usize]) -> Result<Settings, String> {
        if let Some(reload_config) = &mut self.plan.reload_config {
            let new = reload_config()?;
            self.waiting = ctl_config::waiting(&self.plan.config, &new);
            for (_, plan) in (1..).zip(&mut self.plan.modules).filter(|(number, _)| modules.contains(number))
            {
                if let Some(own) = new.module.iter().find(|own| own.name == plan.name) {
                    plan.take_over(own);
                }
            }
            if !modules.contains(&0) {
                return Ok(self.settings());
            }
            self.plan.workers = new.workers.count.unwrap_or(self.plan.workers);
            self.plan.threads = new.workers.threads.unwrap_or(self.plan.threads);
            self.plan.config.workers = new.workers;
            self.plan.config.app.interface = new.app.interface;
            // What is not named was found at the start, and is found in the same place.
            self.plan.app = new.app.callable.or(self.plan.app.take());
            self.plan.settings = new.app.settings.or(self.plan.settings.take());
        }
        Ok(self.settings())
    }

    pub(crate) fn gateway_start(&self, active: Vec<Activated>, drained: Vec<Drained>) -> ToGateway {
        ToGateway::Start(Box::new(GatewayStart {
            config: self.config_json.clone(),
            listeners: self.listeners.iter().map(Bound::listener).collect(),
            link_fd: inherit::number(&self.link),
            admin: Some(self.admin.listener()),
            token: self.token.clone(),
            heir: self.waits,
            state_dir: self.state_dir(),
            worker_uid: self.user.as_ref().map(|user| user.identity.uid),
            drained,
            active,
        }))
    }

    fn state_dir(&self) -> Option<PathBuf> {
        let named = self.plan.config.server.state_dir.clone();
        named.or_else(|| ctl_admin::place::state_dir(&self.plan.dir))
    }

    fn gateway_command(&self) -> Vec<OsString> {
        self.plan.gateway_command.clone().unwrap_or_else(own_gateway)
    }

    pub(crate) fn gateway_program(&self) -> Program<'_> {
        let listeners = self.listeners.iter().map(|bound| Arc::clone(&bound.fd));
        Program {
            command: self.gateway_command(),
            env: env::var_os(TRIM_THRESHOLD)
                .is_none()
                .then(|| (TRIM_THRESHOLD.into(), TRIM_THRESHOLD_BYTES.into()))
                .into_iter()
                .collect(),
            without: None,
            dir: None,
            fds: listeners.chain([Arc::clone(&self.admin.fd), Arc::clone(&self.link)]).collect(),
            identity: None,
            // What `ps` shows as the command line, where the program may be /proc/self/exe.
            arg0: self.plan.gateway_command.is_none().then(|| "quintet".to_owned()),
        }
    }

    pub(crate) fn gateway_problem(&self, error: &io::Error) -> Problem {
        Problem::new("the gateway cannot be started")
            .detail(format!("{}: {error}", program(&self.gateway_command())))
    }
}

/// The name of a private socket: an heir has its own as long as the elder needs the usual one, and workers keep the name
/// that they were started with.
fn own_name(name: &str, ordinal: u32) -> String {
    /// More instances than this never finish their requests at the same time, and the names stay short: the path of a
    /// socket has about a hundred bytes.
    const NAMES: u32 = 10;
    match ordinal {
        0 => name.to_owned(),
        _ => name.replace(".sock", &format!("{}.{HEIRS_ENDING}", ordinal % NAMES)),
    }
}

fn program(command: &[OsString]) -> String {
    command.first().map(|first| first.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The very binary that runs now. By its own name, which `ps` shows, unless that is another file by now (an upgrade).
fn own_gateway() -> Vec<OsString> {
    let running = Path::new("/proc/self/exe");
    let same = |path: &Path| {
        let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        identity(path).is_some_and(|found| Some(found) == identity(running))
    };
    let program = match env::current_exe() {
        Ok(named) if same(&named) || !running.exists() => named,
        _ => running.to_path_buf(),
    };
    vec![program.into_os_string(), GATEWAY_SUBCOMMAND.into()]
}

/// To connect is to write: the link becomes the workers' own.
fn give_to(link: &Path, user: &WorkerUser) -> Result<(), Problem> {
    let given = chown(link, Some(user.identity.uid), Some(user.identity.gid))
        .and_then(|()| fs::set_permissions(link, fs::Permissions::from_mode(0o600)));
    given.map_err(|error| {
        Problem::new("the workers' socket cannot be given to their user")
            .detail(format!("{}: {error}", link.display()))
    })
}

fn token() -> Result<String, Problem> {
    let mut bytes = [0; TOKEN_BYTES];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    // Up to 256 bytes come whole, see getrandom(2).
    if got != Ok(TOKEN_BYTES) {
        return Err(Problem::new("the system gives no random numbers"));
    }
    Ok(bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")))
}
