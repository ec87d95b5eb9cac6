//! What the state machine hears and what it asks for. No I/O, no clock.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ctl_admin::words::{
    Activated, AppReport, Change, Command, Drained, FromGateway, FromTemplate, FromWorker, GatewayStatus,
    Reply, ToGateway,
};

use crate::plan::{Outcome, Problem};
use crate::upgrade::{FromHeir, ToHeir};

/// A connection to `control.sock`, numbered by the driver.
pub(crate) type ClientId = u64;

/// A child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    Gateway,
    /// Numbered from 1 through the life of the instance, as workers are.
    Template(u32),
    Worker(u32),
    /// The instance that a newer program starts to take our place.
    Heir,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("the gateway"),
            Self::Template(_) => f.write_str("the template"),
            Self::Worker(worker) => write!(f, "worker {worker}"),
            Self::Heir => f.write_str("the new program"),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

/// Linux's and macOS's number of SIGKILL.
pub(crate) const SIGKILL: i32 = 9;

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(number) => match rustix::process::Signal::from_named_raw(*number) {
                Some(signal) => write!(f, "signal {}", signal_name(signal)),
                None => write!(f, "signal {number}"),
            },
        }
    }
}

/// The names of the signals that end processes in practice; the others keep their number.
fn signal_name(signal: rustix::process::Signal) -> String {
    use rustix::process::Signal;
    let name = match signal {
        Signal::ABORT => "SIGABRT",
        Signal::ALARM => "SIGALRM",
        Signal::BUS => "SIGBUS",
        Signal::FPE => "SIGFPE",
        Signal::HUP => "SIGHUP",
        Signal::ILL => "SIGILL",
        Signal::INT => "SIGINT",
        Signal::KILL => "SIGKILL",
        Signal::PIPE => "SIGPIPE",
        Signal::QUIT => "SIGQUIT",
        Signal::SEGV => "SIGSEGV",
        Signal::SYS => "SIGSYS",
        Signal::TERM => "SIGTERM",
        Signal::USR1 => "SIGUSR1",
        Signal::USR2 => "SIGUSR2",
        other => return other.as_raw().to_string(),
    };
    name.to_owned()
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The first event.
    Begin,
    /// Nothing but time.
    Tick,
    /// An [`Action::SpawnGateway`], [`Action::SpawnTemplate`], [`Action::SpawnWorker`] or [`Action::ForkWorker`] was done.
    Spawned { who: Who, pid: u32 },
    /// The same, not done.
    SpawnFailed { who: Who, problem: Problem },
    /// A child is gone; everything it said before has been handed in.
    Exited { who: Who, exit: Exit },
    /// The present gateway speaks.
    Gateway(FromGateway),
    /// A template says that it is ready, or why not. What it says of forks comes as `Spawned` and `SpawnFailed`.
    Template { template: u32, said: FromTemplate },
    /// A worker speaks.
    Worker { worker: u32, said: FromWorker },
    /// Share of the CPU in use lately, 0 to 1.
    Cpu(f32),
    /// A look at a worker's proportional memory.
    Weighed { worker: u32, bytes: u64 },
    /// The heir speaks.
    Heir(FromHeir),
    /// The elder, whose heir we are, speaks.
    Elder(ToHeir),
    /// It does not any more.
    ElderGone,
    /// The answer to [`Action::TakeOver`]: the unix listeners that are ours now.
    TookOver(Result<Vec<String>, Problem>),
    /// Somebody at `control.sock` asks.
    Asked { client: ClientId, command: Command },
    /// SIGTERM or SIGINT.
    StopSignal,
    /// SIGHUP.
    ReloadSignal,
    /// SIGTTIN: one worker more; SIGTTOU: one fewer.
    ScaleSignal(Change),
    /// `quintet dev`: this file, and maybe others, of these modules.
    CodeChanged { what: String, modules: Vec<usize> },
    /// The answer to [`Action::ReadConfig`].
    ConfigRead(Result<Settings, String>),
}

/// Which code a worker runs, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) generation: u32,
    /// 0 is the default pool, then come those of `[[worker_pool]]`, then each module's own.
    pub(crate) pool: u16,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    SpawnGateway {
        active: Vec<Activated>,
        drained: Vec<Drained>,
    },
    SpawnTemplate {
        template: u32,
        generation: u32,
        module: usize,
    },
    SpawnWorker {
        worker: u32,
        place: Place,
    },
    /// Have it forked; answered by `Spawned` or `SpawnFailed` when the template is done, by nothing when it dies over it.
    ForkWorker {
        template: u32,
        worker: u32,
        place: Place,
    },
    /// The template's process is this worker from now on; there is no template of this number any more.
    Become {
        template: u32,
        worker: u32,
        place: Place,
    },
    /// A fork that nobody waits for any more: should it come to life, it finds nobody and ends.
    Forget {
        worker: u32,
    },
    TellGateway(ToGateway),
    /// Send [`ctl_admin::words::ToWorker::Exit`].
    TellWorkerExit {
        worker: u32,
    },
    /// Send [`ctl_admin::words::ToWorker::DumpStacks`].
    TellWorkerDump {
        worker: u32,
        request_id: String,
    },
    Terminate(Who),
    Kill(Who),
    Reply {
        client: ClientId,
        reply: Reply,
    },
    AnswerStatus {
        clients: Vec<ClientId>,
        gateway: Option<GatewayStatus>,
    },
    /// Read the configuration again, and take over what may change of these apps.
    ReadConfig {
        modules: Vec<usize>,
    },
    /// Start a newer program as our heir; `None`: the one that lies where ours was started from.
    SpawnHeir {
        program: Option<PathBuf>,
    },
    TellHeir(ToHeir),
    TellElder(FromHeir),
    /// The heir has our names, and owns these unix listeners.
    HandOver {
        kept: Vec<String>,
    },
    /// An heir has ended that may have taken some of our names.
    Reclaim,
    /// Take the elder's names.
    TakeOver,
    /// Give the client listeners up: from now on connections are refused.
    StopListening,
    /// Requests are served from now on.
    Serving {
        /// One for each module, in their order.
        apps: Vec<AppReport>,
        after: Duration,
    },
    /// The app does not import, so nothing runs: show this before anything else.
    ShowFailure(Failure),
    Log(Level, String),
    Notify(Notify),
    /// All children are gone: the last action.
    Exit(Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// For the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notify {
    Ready,
    Reloading,
    Stopping,
    /// This process is the main one from now on.
    Successor(u32),
}

/// Why a worker did not become ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) traceback: String,
    pub(crate) hint: String,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), traceback: String::new(), hint: hint.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.traceback.is_empty() {
            write!(f, "\n{}", self.traceback.trim_end())?;
        }
        if !self.hint.is_empty() {
            write!(f, "\nhint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// The workers of some paths; the first is the default pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) name: String,
    /// Whose app its workers run, see [`Settings::modules`].
    pub(crate) module: u16,
    /// Fewest workers: at least 1 in the default pool.
    pub(crate) min: u32,
    /// Most workers that scaling starts.
    pub(crate) max: u32,
    /// The same as the configuration names it. Without it a number that is fixed may be another one by order.
    pub(crate) bound: Option<u32>,
    /// Slots of a worker whose app is WSGI.
    pub(crate) threads: u32,
    /// Slots of a worker whose app is ASGI.
    pub(crate) concurrency: u32,
    /// For a pool that may go down to none: how long nobody must have asked.
    pub(crate) idle_timeout: Duration,
}

#[cfg(test)]
impl Pool {
    /// From so many workers to so many.
    pub(crate) fn of(name: &str, min: u32, max: u32) -> Self {
        let idle_timeout = Duration::from_secs(60);
        let bound = (max > min).then_some(max);
        Self { name: name.to_owned(), module: 0, min, max, bound, threads: 2, concurrency: 16, idle_timeout }
    }
}

/// What the state machine needs of the configuration. A reload may change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The names of the apps: that of `[app]` is the first. A reload does not change how many there are.
    pub(crate) modules: Vec<String>,
    /// The default pool and the others, in order. A reload does not change how many there are.
    pub(crate) pools: Vec<Pool>,
    /// `quintet dev`: see `state/dev.rs`.
    pub(crate) dev: bool,
    /// Fork workers from a template that has imported the app.
    pub(crate) preload: bool,
    /// Workers that may import the app at a time: it is CPU work, so more than there are cores only makes the
    /// first one later.
    pub(crate) starting_max: u32,
    /// From spawn to ready, for workers and templates.
    pub(crate) start_timeout: Duration,
    /// Between "not ready" and "no longer listening" at stop.
    pub(crate) drain_delay: Duration,
    /// For the requests in flight at stop and reload.
    pub(crate) drain_timeout: Duration,
    /// All workers together may open so many database connections.
    pub(crate) db_connections_max: u32,
    /// When a worker is replaced by a new one.
    pub(crate) recycle: RecycleLimits,
    /// What has changed in the configuration, but is read by a new instance only.
    pub(crate) waiting: Vec<String>,
}

/// When a worker has served enough. `None`: never for this reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RecycleLimits {
    /// Requests answered.
    pub(crate) requests_max: Option<u64>,
    /// Since it was ready.
    pub(crate) lifetime: Option<Duration>,
    /// Proportional memory in bytes.
    pub(crate) memory_max: Option<u64>,
    /// The same, of all workers together.
    pub(crate) memory_total_max: Option<u64>,
}
