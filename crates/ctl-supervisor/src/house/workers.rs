//! How the workers of each app are started, and what they are told.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use ctl_admin::words::{Interface, WorkerStart};
use ctl_config::LogFormat;

use crate::driver::Program;
use crate::event::Place;
use crate::plan::{ModulePlan, Problem};

use super::{House, program};

/// A module whose settings nobody names has none: that of our own environment is the site's.
const SETTINGS: &str = "DJANGO_SETTINGS_MODULE";

/// An app as its workers need it.
#[derive(Clone, Copy)]
struct App<'a> {
    dir: &'a Path,
    python: &'a Path,
    callable: Option<&'a String>,
    settings: Option<&'a String>,
    interface: ctl_config::Interface,
    env: &'a [(OsString, OsString)],
    is_site: bool,
}

impl ModulePlan {
    /// What may change while running; what is not named was found at the start, and is found in the same place.
    pub(super) fn take_over(&mut self, own: &ctl_config::Module) {
        self.interface = own.interface;
        self.app = own.callable.clone().or(self.app.take());
        self.settings = own.settings.clone().or(self.settings.take());
        self.env = own.variables().map(|(name, value)| (name.into(), value.into())).collect();
    }
}

impl House {
    fn app(&self, module: usize) -> App<'_> {
        match module.checked_sub(1).and_then(|index| self.plan.modules.get(index)) {
            Some(module) => App {
                dir: &module.dir,
                python: &module.python,
                callable: module.app.as_ref(),
                settings: module.settings.as_ref(),
                interface: module.interface,
                env: &module.env,
                is_site: false,
            },
            None => App {
                dir: &self.plan.dir,
                python: &self.plan.python,
                callable: self.plan.app.as_ref(),
                settings: self.plan.settings.as_ref(),
                interface: self.plan.config.app.interface,
                env: &[],
                is_site: true,
            },
        }
    }

    fn module_of(&self, pool: u16) -> usize {
        let modules = self.plan.config.modules_of_pools();
        modules.get(usize::from(pool)).map_or(0, |module| usize::from(*module))
    }

    /// What a worker is told, however it comes to be.
    pub(crate) fn worker_start(&self, worker: u32, place: Place) -> WorkerStart {
        let config = &self.plan.config;
        let app = self.app(self.module_of(place.pool));
        let pool = usize::from(place.pool).checked_sub(1).and_then(|index| config.pools().nth(index));
        let (threads, concurrency) = pool.map_or((None, None), |pool| (pool.threads, pool.concurrency));
        WorkerStart {
            template: false,
            pool: place.pool,
            interface: match app.interface {
                ctl_config::Interface::Auto => None,
                ctl_config::Interface::Wsgi => Some(Interface::Wsgi),
                ctl_config::Interface::Asgi => Some(Interface::Asgi),
            },
            concurrency: concurrency.unwrap_or(config.workers.concurrency),
            long_lived_max: config.workers.long_lived_max,
            message_max: config.websocket.message_max,
            event_loop: config.workers.event_loop.word().to_owned(),
            gc_between: config.workers.gc == ctl_config::Gc::Between,
            dev: self.plan.dev,
            version: self.plan.version.clone(),
            worker,
            generation: place.generation,
            threads: threads.unwrap_or(self.plan.threads),
            link: self.link_path.clone(),
            token: self.token.clone(),
            dir: app.dir.to_path_buf(),
            app: app.callable.cloned(),
            settings: app.settings.cloned(),
            log_json: config.log.format == LogFormat::Json,
            debug_static: config.files.enabled,
        }
    }

    pub(crate) fn worker_program(&self, worker: u32, place: Place) -> Program<'_> {
        self.python_program(&self.worker_start(worker, place))
    }

    pub(crate) fn template_program(&self, generation: u32, module: usize) -> Program<'_> {
        // Any pool of the app: what differs between them is told when a worker is forked.
        let modules = self.plan.config.modules_of_pools();
        let pool = (0..).zip(modules).find(|(_, of)| usize::from(*of) == module).map_or(0, |(pool, _)| pool);
        let start = self.worker_start(0, Place { generation, pool });
        self.python_program(&WorkerStart { template: true, ..start })
    }

    fn python_program(&self, start: &WorkerStart) -> Program<'_> {
        let app = self.app(self.module_of(start.pool));
        let mut env = self.user.as_ref().map(|user| user.env.clone()).unwrap_or_default();
        env.extend(self.plan.worker_env.iter().chain(app.env).cloned());
        // Plain structs of strings and numbers are always JSON; should that change, the worker says what it lacks.
        env.push(("QUINTET_WORKER".into(), serde_json::to_string(start).unwrap_or_default().into()));
        Program {
            command: self.worker_command(app),
            env,
            without: (!app.is_site && app.settings.is_none()).then_some(SETTINGS),
            dir: Some(app.dir),
            fds: Vec::new(),
            identity: self.user.as_ref().map(|user| user.identity.clone()),
            arg0: None,
        }
    }

    fn worker_command(&self, app: App<'_>) -> Vec<OsString> {
        self.plan
            .worker_command
            .clone()
            .unwrap_or_else(|| vec![app.python.as_os_str().to_owned(), "-m".into(), "quintet.worker".into()])
    }

    pub(crate) fn worker_problem(&self, module: usize, error: &io::Error) -> Problem {
        let app = self.app(module);
        let problem = Problem::new("a worker cannot be started");
        let name = program(&self.worker_command(app));
        let [dir, python] =
            if app.is_site { ["app.dir", "app.python"] } else { ["module.dir", "module.python"] };
        match error.kind() {
            io::ErrorKind::NotFound if !app.dir.is_dir() => problem
                .detail(format!("there is no directory {}", app.dir.display()))
                .hint(format!("{dir} names the project directory")),
            io::ErrorKind::NotFound => problem
                .detail(format!("there is no {name}"))
                .hint(format!("{python} names the Python interpreter")),
            io::ErrorKind::PermissionDenied => problem
                .detail(format!("{name} in {}: {error}", app.dir.display()))
                .hint("the user that workers run as must be able to run Python and to enter the project directory"),
            _ => problem.detail(format!("{name}: {error}")),
        }
    }

    /// Of the pool that a worker is for.
    pub(crate) fn worker_problem_in(&self, pool: u16, error: &io::Error) -> Problem {
        self.worker_problem(self.module_of(pool), error)
    }
}
