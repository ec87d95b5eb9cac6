//! `quintet run`: everything that is decided before the first process starts.

use std::env;
use std::path::PathBuf;

use clap::ArgMatches;
use ctl_admin::words::Interface;
use ctl_config::{Config, Loaded, LogFormat, LogLevel, Style};
use ctl_supervisor::{Banner, Outcome, ReloadConfig, RunPlan};
use ctl_telemetry::logging::{self, Format, LevelFilter};

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::project::{self, Project};
use crate::python::{self, Python, Surroundings};
use crate::setup::Request;
use crate::sizing::{self, Asked, Sizing};
use crate::{certificates, dev, machine, modules, place};

/// What will be run, and with what. Shared by `run` and `check`.
#[derive(Debug)]
pub(crate) struct Decided {
    /// The configuration and its origins.
    pub(crate) loaded: Loaded,
    /// The project.
    pub(crate) project: Project,
    /// The interpreter.
    pub(crate) python: Python,
    /// The other apps.
    pub(crate) modules: Vec<modules::Decided>,
    /// Workers, threads, reactors.
    pub(crate) sizing: Sizing,
    /// Where the sockets go.
    pub(crate) runtime_dir: PathBuf,
}

/// For whom it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Visitors.
    Serve,
    /// Whoever writes the app.
    Develop,
}

/// The command.
pub(crate) fn run(matches: &ArgMatches) -> Result<Exit> {
    start(Request::from_matches(matches)?, Mode::Serve)
}

/// `run` and `dev`.
pub(crate) fn start(request: Request, mode: Mode) -> Result<Exit> {
    let loaded = load(&request, mode)?;
    start_log(&loaded.config);
    certificates::usable(&loaded)?;
    let mut decided = decide(loaded)?;
    if mode == Mode::Develop {
        dev::explain(&mut decided);
    }
    for text in notes(&decided) {
        match decided.loaded.config.log.format {
            LogFormat::Json => tracing::warn!("{text}"),
            LogFormat::Text => {
                anstream::eprintln!("{}note{}: {text}", Style::COLOUR.hint, Style::COLOUR.reset);
            }
        }
    }
    let banner = banner(&decided);
    let mut config = decided.loaded.config;
    fill_in(&mut config, &decided.project, &decided.sizing);
    let outcome = ctl_supervisor::run(RunPlan {
        version: env!("CARGO_PKG_VERSION").into(),
        dir: decided.project.dir,
        python: decided.python.path,
        app: decided.project.app,
        settings: decided.project.settings,
        workers: decided.sizing.workers,
        threads: decided.sizing.threads,
        runtime_dir: decided.runtime_dir,
        worker_env: Vec::new(),
        modules: modules::plan(&config, &decided.modules),
        dev: mode == Mode::Develop,
        banner,
        gateway_command: None,
        worker_command: None,
        reload_config: Some(reload_config(request, mode)),
        config,
    });
    end(outcome)
}

fn load(request: &Request, mode: Mode) -> Result<Loaded> {
    let mut loaded = request.load()?;
    if mode == Mode::Develop {
        dev::fit(&mut loaded);
    }
    Ok(loaded)
}

/// Everything from the configuration to the plan, without starting anything that stays.
pub(crate) fn decide(loaded: Loaded) -> Result<Decided> {
    let config = &loaded.config;
    let project = discover(config)?;
    let runtime_dir = place::runtime_dir(config, &project.dir)?;
    let named = config.app.python.as_ref().map(|program| program.0.as_path());
    let python = python::find(&Surroundings::real(), named, &project.dir, project.is_django())?;
    let modules = modules::decide(config, (&project, &python))?;
    let sizing = size(config);
    Ok(Decided { loaded, project, python, modules, sizing, runtime_dir })
}

fn discover(config: &Config) -> Result<Project> {
    project::discover(config, env::var("DJANGO_SETTINGS_MODULE").ok())
}

fn size(config: &Config) -> Sizing {
    let asked = Asked {
        workers: config.workers.count,
        workers_max: config.workers.max,
        db_connections_max: config.workers.db_connections_max,
        pool_slots: pool_slots(config),
        threads: config.workers.threads,
        reactors: config.server.reactors,
    };
    sizing::choose(&machine::look(), asked)
}

/// Slots that the workers of all pools may have, whichever way their app is called.
fn pool_slots(config: &Config) -> u32 {
    let workers = &config.workers;
    let slots = config.pools().map(|pool| {
        let threads = pool.threads.or(workers.threads).unwrap_or_default();
        pool.most().saturating_mul(threads.max(pool.concurrency.unwrap_or(workers.concurrency)))
    });
    slots.fold(0, u32::saturating_add)
}

/// What was left to us is now decided; the other processes need not decide it again.
fn fill_in(config: &mut Config, project: &Project, sizing: &Sizing) {
    config.app.dir.clone_from(&project.dir);
    config.app.callable.clone_from(&project.app);
    config.app.settings.clone_from(&project.settings);
    modules::fill_in(config);
    // A number alone is no bound: somebody may order more.
    let is_bound = config.workers.count.is_none() || config.workers.max.is_some();
    config.workers.max = is_bound.then_some(sizing.workers_max);
    config.workers.count = Some(sizing.workers);
    config.workers.threads = Some(sizing.threads);
    config.server.reactors = Some(sizing.reactors);
    let memory_total = &mut config.workers.memory_total_max;
    // The last fifth is for the gateway and the rest of the machine.
    *memory_total = memory_total.or_else(|| machine::look().memory.map(|bytes| bytes / 5 * 4));
    // More connections than descriptors would fail in accept(2) instead of being answered.
    if let Some(fitting) = fitting_connections(config, sizing) {
        config.limits.connections_max = fitting;
    }
}

fn fitting_connections(config: &Config, sizing: &Sizing) -> Option<u32> {
    sizing::fitting_connections(config.limits.connections_max, sizing, machine::descriptors_max()?)
}

/// The configuration as it is at a reload, decided like at the start.
fn reload_config(request: Request, mode: Mode) -> ReloadConfig {
    Box::new(move || {
        let again = || {
            let loaded = load(&request, mode)?;
            certificates::usable(&loaded)?;
            let mut config = loaded.config;
            let project = discover(&config)?;
            let sizing = size(&config);
            fill_in(&mut config, &project, &sizing);
            Ok(config)
        };
        again().map_err(|failure: Failure| failure.render(Style::default()))
    })
}

fn start_log(config: &Config) {
    // Only a second call fails, and this is the only one.
    let _ = logging::init(log_format(config), log_level(config));
}

/// The form of log lines.
pub(crate) fn log_format(config: &Config) -> Format {
    match config.log.format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    }
}

/// How much is logged.
pub(crate) fn log_level(config: &Config) -> LevelFilter {
    match config.log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

/// What should be known before the app is imported, since it may explain why it is not.
fn notes(decided: &Decided) -> Vec<String> {
    let modules = decided.modules.iter().map(|module| &module.python);
    let pythons = std::iter::once(&decided.python).chain(modules);
    let passed = pythons.flat_map(|python| &python.passed_over).map(|text| format!("passed over {text}"));
    let warnings = decided.loaded.warnings.iter().map(|warning| match &warning.hint {
        Some(hint) => format!("{}; {hint}", warning.message),
        None => warning.message.clone(),
    });
    let config = &decided.loaded.config;
    let connections = fitting_connections(config, &decided.sizing).map(|fitting| {
        let wanted = config.limits.connections_max;
        format!(
            "open files are limited: {fitting} connections at most, not {wanted}; `quintet check` tells more"
        )
    });
    passed.chain(warnings).chain(connections).collect()
}

/// What was decided and why, a line each.
fn banner(decided: &Decided) -> Banner {
    let Decided { project, python, sizing, loaded, .. } = decided;
    let app = match (&project.app, &project.settings) {
        (Some(app), None) => app.clone(),
        (Some(app), Some(settings)) => {
            format!("{app}, settings {settings} (from {})", project.settings_from)
        }
        (None, Some(settings)) => format!("settings {settings} (from {})", project.settings_from),
        (None, None) => String::new(),
    };
    let file = loaded.file.as_ref().map(|path| path.display().to_string());
    let sizing = sizing.clone();
    let [workers_why, threads_why, _] = sizing.reasons.clone();
    let (concurrency, connections) =
        (loaded.config.workers.concurrency, loaded.config.workers.db_connections_max);
    let before = [
        format!("project   {}", project.dir.display()),
        format!("app       {app}"),
        format!("python    {} {} ({})", python.version, python.path.display(), python.origin),
    ];
    let config = format!(
        "config    {}",
        file.as_deref().unwrap_or("no quintet.toml; defaults, environment and flags")
    );
    let names: Vec<String> = loaded.config.module.iter().map(|module| module.name.clone()).collect();
    Box::new(move |apps| {
        let Some(app) = apps.first() else { return Vec::new() };
        let (slots, slots_text) = match app.interface {
            Interface::Wsgi => (sizing.threads, format!("threads   {} each: {threads_why}", sizing.threads)),
            Interface::Asgi => {
                let text = format!(
                    "requests  {concurrency} at a time in each, on {}; WebSockets and event streams besides",
                    app.event_loop
                );
                (concurrency, text)
            }
        };
        let each = if app.django.is_some() { slots } else { 0 };
        let workers = format!("workers   {}: {workers_why}", sizing.workers_text(each, connections));
        let lines = before.iter().cloned().chain([workers, slots_text]);
        lines.chain(modules::lines(&names, apps)).chain([config.clone()]).collect()
    })
}

fn end(outcome: Outcome) -> Result<Exit> {
    match outcome {
        Outcome::Stopped | Outcome::HandedOver => Ok(Exit::Success),
        // As the program ended that has taken over: any code, not only ours. Nothing is left to be dropped.
        Outcome::Ended { code } => std::process::exit(i32::from(code)),
        Outcome::AppFailed => Err(Failure::Shown(Exit::App)),
        Outcome::Failed(problem) => {
            let exit = if problem.unbound { Exit::Bind } else { Exit::Failure };
            let mut failure = Failure::new(exit, problem.message);
            if !problem.detail.is_empty() {
                failure = failure.detail(problem.detail);
            }
            Err(if problem.hint.is_empty() { failure } else { failure.hint(problem.hint) })
        }
    }
}
