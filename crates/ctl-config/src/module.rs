//! `[[module]]`: several apps in one instance. The table of keys, what holds between them, and how the pools of all apps are one list.

use std::borrow::Cow;
use std::iter;
use std::path::PathBuf;

use crate::cross::{check_callable, check_module};
use crate::define::record;
use crate::load::Loaded;
use crate::pool::{DEFAULT_POOL, WorkerPool};
use crate::problem::{Place, Problem, nearest};
use crate::raw::Fault;
use crate::settings::{Config, Interface};
use crate::tables::{self, Record as _, Required, Rules, holds_for_all};
use crate::value::Program;

/// Each has a template and workers, a hundred megabytes at least; who has more apps wants more machines.
const MODULES_MAX: usize = 16;

/// The app of `[app]` among modules, as the pool of all other requests is called.
pub const SITE: &str = DEFAULT_POOL;

record! {
    /// Another app in the same instance, besides the one of `[app]`: with workers of its own, and where wanted a directory, settings,
    /// a virtual environment and an interface of its own. The table may be there several times. What goes to it is said by
    /// `[[route]]` (`app` and its name); it can have further `[[worker_pool]]`s. It is reloaded with the others, or alone with
    /// `quintet reload --module NAME`, and what happens to it does not touch the others. What it does not say is as in `[workers]`. See docs/guides/modules.md.
    [[module]] Module {
        /// Its name in `[[route]]`, `quintet status`, `reload` and `scale`, metrics and logs: letters, digits, `-` and `_`. The pool of its workers has the
        /// same name.
        name: String = String::new(),
            otherwise("must be set"), example("\"api\""), checked(check_name);
        /// Its project directory: the workers' current directory and the first entry of `sys.path`.
        dir: Option<PathBuf> = None, otherwise("as `app.dir`"), example("\"api\"");
        /// The WSGI or ASGI callable, as `MODULE:CALLABLE`.
        callable: Option<String> = None,
            otherwise("ASGI_APPLICATION of the settings module where it is set, else WSGI_APPLICATION"),
            example("\"main:app\""), checked(check_callable), live();
        /// The settings module (`DJANGO_SETTINGS_MODULE`). That of the environment is the site's, and not heard here.
        settings: Option<String> = None,
            otherwise("that of manage.py in `dir`, without `callable`"), example("\"old.settings\""), checked(check_module), live();
        /// How the app is called: WSGI with threads, or ASGI with an event loop.
        interface: Interface = Interface::Auto, live();
        /// The Python interpreter that runs the app, or its virtual environment; the `quintet` package must be installed for it.
        python: Option<Program> = None,
            otherwise(".venv or venv in `dir` where it is not the site's, else the site's Python"),
            example("\"old/.venv\"");
        /// Variables of the environment that the site does not have, or others than the site's: `NAME=value`.
        environment: Vec<String> = Vec::new(),
            example("[\"DATABASE_URL=postgres:///api\"]"), checked(check_variable), live();
        /// Fewest workers.
        min: u32 = 1,
            between("1", "1024", "a machine of more than 1024 workers is better run as several instances");
        /// Most workers; between the two numbers scaling decides.
        max: Option<u32> = None,
            otherwise("the same as `min`"),
            between("1", "1024", "a machine of more than 1024 workers is better run as several instances");
        /// Threads of each worker (WSGI).
        threads: Option<u32> = None,
            otherwise("as `workers.threads`"),
            between("1", "1024", "each thread needs a stack and mostly a database connection");
        /// Requests that each worker runs at one time (ASGI).
        concurrency: Option<u32> = None,
            otherwise("as `workers.concurrency`"),
            between("1", "4096", "every request in flight takes memory and mostly a database connection");
    }
}

impl Module {
    /// Name and value of what its environment has besides.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().filter_map(|variable| variable.split_once('='))
    }

    /// The pool of its workers, by its own name.
    fn pool(&self) -> WorkerPool {
        WorkerPool {
            name: self.name.clone(),
            module: Some(self.name.clone()),
            min: self.min,
            max: self.max,
            threads: self.threads,
            concurrency: self.concurrency,
            ..WorkerPool::default()
        }
    }
}

impl Config {
    /// Every pool but the default one, by its number from 1: those of the file, then each module's own.
    pub fn pools(&self) -> impl Iterator<Item = Cow<'_, WorkerPool>> {
        let own = self.module.iter().map(|module| Cow::Owned(module.pool()));
        self.worker_pool.iter().map(Cow::Borrowed).chain(own)
    }

    /// The number of the pool of this name; 0 is the default one.
    pub fn pool_number(&self, name: &str) -> Option<u16> {
        let names = iter::once(DEFAULT_POOL).chain(self.worker_pool.iter().map(|pool| pool.name.as_str()));
        let position =
            names.chain(self.module.iter().map(|module| module.name.as_str())).position(|at| at == name);
        u16::try_from(position?).ok()
    }

    /// By number of the pool: the number of its module. 0 is the app of `[app]`, N the Nth `[[module]]`.
    pub fn modules_of_pools(&self) -> Vec<u16> {
        let number = |name: &str| self.module.iter().position(|module| module.name == name);
        let module = |pool: Cow<'_, WorkerPool>| {
            let position = pool.module.as_deref().and_then(number);
            position.and_then(|at| u16::try_from(at + 1).ok()).unwrap_or(0)
        };
        iter::once(0).chain(self.pools().map(module)).collect()
    }

    /// The apps by number, each with its name; the app of `[app]` is the first.
    pub fn module_names(&self) -> impl Iterator<Item = &str> {
        iter::once(SITE).chain(self.module.iter().map(|module| module.name.as_str()))
    }
}

impl Rules for Module {
    const COUNT_MAX: (usize, &'static str) =
        (MODULES_MAX, "each is an app with workers of its own; more are better run as several instances");
    const REQUIRED: &'static [Required] =
        &[Required { key: "name", question: "how is this app called?", example: "\"api\"" }];

    fn together(loaded: &Loaded, problems: &mut Vec<Problem>) {
        let config = &loaded.config;
        for (index, module) in config.module.iter().enumerate() {
            let place = |key: &str| loaded.place_in(Self::TABLE, index, key);
            let name = &module.name;
            let mut wrong = |key: &str, text: String, hint: &str| {
                problems.push(Problem::new(text).hint(hint).at(place(key)));
            };
            if config.module[..index].iter().any(|other| other.name == *name) {
                wrong(
                    "name",
                    format!("module.name: there are two modules \"{name}\""),
                    "give one of them another name",
                );
            }
            if config.worker_pool.iter().any(|pool| pool.name == *name) {
                let text = format!("module.name: \"{name}\" is a pool already");
                wrong(
                    "name",
                    text,
                    "the pool of a module's workers has its name: give one of them another one",
                );
            }
            if let Some(max) = module.max.filter(|max| module.min > *max) {
                let text = format!("module.max: {max} is less than min, {}", module.min);
                wrong("max", text, "leave max away for a module that does not scale");
            }
            if module.callable.is_none() && module.settings.is_none() && module.dir.is_none() {
                let text = format!("module.callable: which app is \"{name}\"?");
                wrong(
                    "name",
                    text,
                    "name its callable or its settings, or the dir of another Django project",
                );
            }
            let pools = || config.worker_pool.iter().filter(|pool| pool.module.as_ref() == Some(name));
            let by_route =
                |name: &str| config.route.iter().any(|route| route.goes_to(name) || route.asks(name));
            if !name.is_empty() && !by_route(name) && pools().next().is_none() {
                let text = format!("module: nothing goes to the module \"{name}\"");
                let hint = format!("write a [[route]] with its path or host, and app = \"{name}\"");
                wrong("name", text, &hint);
            }
        }
    }

    fn wanted(name: &str) -> Option<String> {
        let near = match name {
            "app" | "application" => "callable",
            "env" => "environment",
            "workers" | "count" => "min\" and \"max",
            "path" | "host" | "mount" | "match" => {
                return Some(format!(
                    "what goes to a module is said by a [[route]] with \"{name}\" and app ="
                ));
            }
            _ => return holds_for_all(name, &["app", "workers", "timeouts"], "modules"),
        };
        Some(format!("did you mean \"{near}\"?"))
    }
}

/// A key that names a module: it must be there.
pub(crate) fn named(
    key: &str,
    name: Option<&str>,
    loaded: &Loaded,
    place: Option<Place>,
    problems: &mut Vec<Problem>,
) {
    let Some(name) = name else { return };
    let names = || loaded.config.module.iter().map(|module| module.name.as_str());
    if names().any(|known| known == name) {
        return;
    }
    let problem = Problem::new(format!("{key}: there is no module \"{name}\""));
    let problem = match nearest(name, names()) {
        Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
        None if name == SITE => problem.hint("leave it away for the app of [app]"),
        None => problem.hint(format!("write a table [[module]] with name = \"{name}\"")),
    };
    problems.push(problem.at(place));
}

fn check_name(text: &str) -> Result<(), Fault> {
    if text == SITE {
        return Err(
            Fault::new(format!("\"{text}\" is the name of the app of [app]")).hint("choose another one")
        );
    }
    tables::check_name(text, "a module", "api")
}

/// `NAME=value`. Those that quintet speaks to its workers with are no app's.
fn check_variable(text: &str) -> Result<(), Fault> {
    let example = "for example DATABASE_URL=postgres:///api";
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| Fault::new(format!("\"{text}\" is not of the form NAME=value")).hint(example))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty()
        || !name.bytes().all(plain)
        || name.as_bytes()[0].is_ascii_digit()
        || value.contains('\0')
    {
        return Err(Fault::new(format!("\"{name}\" cannot be a variable of the environment")).hint(example));
    }
    if name.starts_with("QUINTET_") {
        return Err(Fault::new(format!("\"{name}\" is a variable of quintet itself"))
            .hint("settings of the instance stand in quintet.toml"));
    }
    if name == "DJANGO_SETTINGS_MODULE" {
        return Err(Fault::new("the settings module has a key of its own").hint("write settings = \"…\""));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
