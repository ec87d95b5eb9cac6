//! `[[module]]`: which project and which Python each of the other apps is, found out before anything is started.

use std::path::{Path, PathBuf};

use ctl_admin::words::{AppReport, Interface};
use ctl_config::{Config, Module};
use ctl_supervisor::ModulePlan;

use crate::failure::{Failure, Result};
use crate::project::{self, Project};
use crate::python::{self, Python, Surroundings};

/// An app besides the one of `[app]`.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) name: String,
    pub(crate) project: Project,
    pub(crate) python: Python,
}

/// All of them, in the order of the configuration.
pub(crate) fn decide(config: &Config, site: (&Project, &Python)) -> Result<Vec<Decided>> {
    let one = |module: &Module| {
        decide_one(module, config, site).map_err(|failure| of_module(&module.name, failure))
    };
    config.module.iter().map(one).collect()
}

fn decide_one(module: &Module, config: &Config, (site, python): (&Project, &Python)) -> Result<Decided> {
    let mut own = config.clone();
    own.app.dir = module.dir.clone().unwrap_or_else(|| site.dir.clone());
    (own.app.callable, own.app.settings) = (module.callable.clone(), module.settings.clone());
    let mut project = project::discover(&own, None)?;
    if module.callable.is_some() && module.settings.is_none() {
        // A manage.py may lie beside a plain app that has nothing to do with it.
        (project.settings, project.settings_from) = (None, "nowhere");
    }
    let named = module.python.as_ref().map(|program| program.0.clone());
    let named = named.or_else(|| environment_in(&project.dir).filter(|_| project.dir != site.dir));
    let python = match named {
        Some(path) => python::find(&Surroundings::real(), Some(&path), &project.dir, project.is_django())?,
        None if project.is_django() && !site.is_django() => {
            python::find(&Surroundings::real(), Some(&python.path), &project.dir, true)?
        }
        None => Python { origin: "as the site", passed_over: Vec::new(), ..python.clone() },
    };
    Ok(Decided { name: module.name.clone(), project, python })
}

/// A virtual environment that lies in the directory of an app.
fn environment_in(dir: &Path) -> Option<PathBuf> {
    [".venv", "venv"].iter().map(|name| dir.join(name)).find(|dir| dir.join("bin/python").exists())
}

/// An error of an app, which says whose it is.
fn of_module(name: &str, failure: Failure) -> Failure {
    match failure {
        Failure::One { exit, message, detail, hint } => {
            let message = format!("module {name}: {}", message.replace("app.python", "module.python"));
            let hint = hint.map(|hint| hint.replace("--python ", "python = "));
            Failure::One { exit, message, detail, hint }
        }
        other => other,
    }
}

/// For the supervisor.
pub(crate) fn plan(config: &Config, decided: &[Decided]) -> Vec<ModulePlan> {
    let one = |(module, decided): (&Module, &Decided)| ModulePlan {
        name: module.name.clone(),
        dir: decided.project.dir.clone(),
        python: decided.python.path.clone(),
        app: decided.project.app.clone(),
        settings: decided.project.settings.clone(),
        interface: module.interface,
        env: module.variables().map(|(name, value)| (name.into(), value.into())).collect(),
    };
    config.module.iter().zip(decided).map(one).collect()
}

/// What was left open is now decided, for the other processes.
pub(crate) fn fill_in(config: &mut Config) {
    for module in &mut config.module {
        let dir = module.dir.as_ref().unwrap_or(&config.app.dir);
        // It was there when the app was found in it; should it have gone since, its workers will say so.
        module.dir = Some(dir.canonicalize().unwrap_or_else(|_| dir.clone()));
    }
}

/// A line each for the banner, once it is known what the apps are.
pub(crate) fn lines(names: &[String], apps: &[AppReport]) -> Vec<String> {
    let line = |(name, app): (&String, &AppReport)| {
        let interface = match app.interface {
            Interface::Wsgi => "WSGI".to_owned(),
            Interface::Asgi => format!("ASGI on {}", app.event_loop),
        };
        let django = app.django.as_ref().map(|version| format!(", Django {version}")).unwrap_or_default();
        format!("module    {name}: {} ({interface}{django}, Python {})", app.app, app.python)
    };
    names.iter().zip(apps.iter().skip(1)).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(dir: &Path) -> (Project, Python) {
        let project = Project {
            dir: dir.into(),
            app: None,
            settings: Some("shop.settings".into()),
            settings_from: "manage.py",
        };
        let python = Python {
            path: "/usr/bin/python3".into(),
            version: "3.12.1".into(),
            origin: "PATH",
            passed_over: Vec::new(),
        };
        (project, python)
    }

    fn decided(dir: &Path, module: Module) -> Result<Decided> {
        let (project, python) = site(dir);
        let mut config = Config::default();
        config.app.dir = dir.into();
        config.module = vec![Module { name: "api".into(), ..module }];
        Ok(decide(&config, (&project, &python))?.remove(0))
    }

    #[test]
    fn a_plain_app_beside_the_site_has_its_python_and_no_settings() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("manage.py"), "setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')")
            .unwrap();
        let api =
            decided(top.path(), Module { callable: Some("main:app".into()), ..Module::default() }).unwrap();
        assert_eq!((api.project.settings, api.python.origin), (None, "as the site"));
    }

    #[test]
    fn another_project_is_found_by_its_directory() {
        let top = tempfile::tempdir().unwrap();
        let old = top.path().join("old");
        std::fs::create_dir(&old).unwrap();
        let of = |dir: &Path| decided(top.path(), Module { dir: Some(dir.into()), ..Module::default() });
        let Err(Failure::One { message, .. }) = of(&old) else { panic!("it was found") };
        assert!(message.starts_with("module api: there is no manage.py in "), "{message}");
        std::fs::write(old.join("manage.py"), "setdefault('DJANGO_SETTINGS_MODULE', 'old.settings')")
            .unwrap();
        assert_eq!(of(&old).unwrap().project.settings.as_deref(), Some("old.settings"));
    }

    #[test]
    fn a_python_that_is_not_there_is_the_modules() {
        let top = tempfile::tempdir().unwrap();
        let python = Some(ctl_config::Program("/nowhere/python".into()));
        let module = Module { callable: Some("main:app".into()), python, ..Module::default() };
        let Err(Failure::One { message, .. }) = decided(top.path(), module) else { panic!("it was found") };
        assert_eq!(message, "module api: module.python: /nowhere/python is not a program");
    }
}
