//! What the command hands to the supervisor, and what it gets back.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use ctl_admin::words::AppReport;
use ctl_config::Config;

/// Reads the configuration again at a reload. Where it says nothing about `app.callable`, `app.settings`, `workers.count`
/// or `workers.threads`, what the plan says remains. The error text is shown to whoever asked.
pub type ReloadConfig = Box<dyn FnMut() -> Result<Config, String>>;

/// What apps that report this, one for each module in their order, are announced with, a line each.
pub type Banner = Box<dyn Fn(&[AppReport]) -> Vec<String>>;

/// A `[[module]]`: what runs the app besides the one of `[app]`.
#[derive(Debug, Clone)]
pub struct ModulePlan {
    /// As configured.
    pub name: String,
    /// Project directory, absolute.
    pub dir: PathBuf,
    /// The Python that runs its workers.
    pub python: PathBuf,
    /// As [`RunPlan::app`].
    pub app: Option<String>,
    /// As [`RunPlan::settings`], but that the environment's is not heard.
    pub settings: Option<String>,
    /// How it is called.
    pub interface: ctl_config::Interface,
    /// Environment of its workers besides our own.
    pub env: Vec<(OsString, OsString)>,
}

/// Everything that is decided before the first process starts. The command decides, the supervisor acts.
pub struct RunPlan {
    /// The effective configuration. Passed on to the gateway as it is; the supervisor itself reads
    /// `server`, `workers`, `admin`, `tls` and `log.format`.
    pub config: Config,
    /// Version of the binary.
    pub version: String,
    /// Project directory, absolute.
    pub dir: PathBuf,
    /// The Python that runs the workers.
    pub python: PathBuf,
    /// `MODULE:CALLABLE`, or `None` to take `ASGI_APPLICATION` or `WSGI_APPLICATION` of the settings.
    pub app: Option<String>,
    /// `DJANGO_SETTINGS_MODULE`, or `None` to leave the environment's.
    pub settings: Option<String>,
    /// Worker processes, at least 1.
    pub workers: u32,
    /// Threads of each, at least 1.
    pub threads: u32,
    /// Where the sockets and the lock are, absolute. See [`ctl_admin::place::runtime_dir`] for the default.
    pub runtime_dir: PathBuf,
    /// Environment of the workers besides our own.
    pub worker_env: Vec<(OsString, OsString)>,
    /// The other apps, in the order of the configuration.
    pub modules: Vec<ModulePlan>,
    /// `quintet dev`: workers tell their queries.
    pub dev: bool,
    /// Lines printed with the addresses once the first worker is ready: by then it is known what the app is.
    pub banner: Banner,
    /// Program and arguments of the gateway; `None`: this executable with `internal-gateway`.
    pub gateway_command: Option<Vec<OsString>>,
    /// Program and arguments of a worker; `None`: `python -m quintet.worker`.
    pub worker_command: Option<Vec<OsString>>,
    /// Asked at each reload. What may change while running is taken over (see [`crate::run`]).
    pub reload_config: Option<ReloadConfig>,
}

impl fmt::Debug for RunPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunPlan")
            .field("dir", &self.dir)
            .field("python", &self.python)
            .field("workers", &self.workers)
            .field("threads", &self.threads)
            .field("runtime_dir", &self.runtime_dir)
            .finish_non_exhaustive()
    }
}

/// An error as people read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What does not work.
    pub message: String,
    /// What is known about it; may be empty.
    pub detail: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// An address cannot be listened on; the command has an exit code for that.
    pub unbound: bool,
}

impl Problem {
    /// A problem with nothing more to say yet.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// With what is known about it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// It is about an address to listen on.
    #[must_use]
    pub(crate) fn unbound(mut self) -> Self {
        self.unbound = true;
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// How a run ended. The supervisor has printed what happened unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Asked to stop, and stopped.
    Stopped,
    /// The app cannot be imported; its traceback has been shown.
    AppFailed,
    /// It cannot run; not printed yet, the caller shows it.
    Failed(Problem),
    /// A newer program serves in its place, and nobody waits for this process.
    HandedOver,
    /// The same; this process has stayed until that one ended.
    Ended {
        /// Its exit code; after a signal 128 and the signal's number.
        code: u8,
    },
}

impl Outcome {
    /// The exit code of the command: 0 stopped, 3 the app does not import, 4 an address cannot be
    /// bound, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped | Self::HandedOver => 0,
            Self::Ended { code } => *code,
            Self::AppFailed => 3,
            Self::Failed(problem) if problem.unbound => 4,
            Self::Failed(_) => 1,
        }
    }
}
