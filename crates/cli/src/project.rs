//! What is to be run: the project directory, its settings module, or a plain WSGI app.

use std::fs;
use std::path::{Path, PathBuf};

use ctl_config::Config;

use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// A project that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    /// Absolute.
    pub(crate) dir: PathBuf,
    /// `MODULE:CALLABLE`; `None`: WSGI_APPLICATION of the settings module.
    pub(crate) app: Option<String>,
    /// DJANGO_SETTINGS_MODULE; `None` for a plain WSGI app.
    pub(crate) settings: Option<String>,
    /// Where `settings` was found: "manage.py", "the environment".
    pub(crate) settings_from: &'static str,
}

impl Project {
    /// Runs Django, as far as we can tell without running it.
    pub(crate) fn is_django(&self) -> bool {
        self.settings.is_some()
    }
}

/// manage.py is a few hundred bytes; nobody's is larger than this.
const MANAGE_BYTES_MAX: u64 = 1 << 20;

/// Finds out what `config` means. `environment` is DJANGO_SETTINGS_MODULE of our own environment.
pub(crate) fn discover(config: &Config, environment: Option<String>) -> Result<Project> {
    let dir = directory(&config.app.dir)?;
    let manage = dir.join("manage.py");
    let found = |settings: Option<String>, settings_from| {
        Ok(Project { dir: dir.clone(), app: config.app.callable.clone(), settings, settings_from })
    };
    if let Some(settings) = &config.app.settings {
        return found(Some(settings.clone()), "the configuration");
    }
    if let Some(settings) = environment.filter(|settings| !settings.is_empty()) {
        return found(Some(settings), "DJANGO_SETTINGS_MODULE");
    }
    if manage.is_file() {
        let text = read_bounded(&manage)?;
        return match settings_of(&text) {
            Some(settings) => found(Some(settings), "manage.py"),
            // A plain WSGI app may have a manage.py of its own kind.
            None if config.app.callable.is_some() => found(None, "nowhere"),
            None => Err(Failure::new(Exit::Usage, "manage.py does not say which settings module to use")
                .detail(format!("{} has no line that sets DJANGO_SETTINGS_MODULE", manage.display()))
                .hint("name it: --settings mysite.settings, or `settings` in [app] of quintet.toml")),
        };
    }
    if config.app.callable.is_some() {
        return found(None, "nowhere");
    }
    Err(nothing_to_run(&dir))
}

fn directory(dir: &Path) -> Result<PathBuf> {
    let fail = |text: String| Failure::new(Exit::Usage, text);
    let dir = dir.canonicalize().map_err(|error| {
        fail(format!("the project directory {} cannot be opened", dir.display())).detail(error.to_string())
    })?;
    if dir.is_dir() {
        return Ok(dir);
    }
    let parent = dir.parent().unwrap_or(Path::new("/")).display().to_string();
    Err(fail(format!("{} is a file, not a project directory", dir.display()))
        .hint(format!("name the directory: quintet run {parent}")))
}

fn read_bounded(path: &Path) -> Result<String> {
    let unreadable = |detail: String| {
        Failure::new(Exit::Usage, format!("{} cannot be read", path.display())).detail(detail)
    };
    let size = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MANAGE_BYTES_MAX {
        return Err(unreadable(format!("it has {size} bytes, which no manage.py has")));
    }
    fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

/// The settings module that a manage.py sets: the first text after "DJANGO_SETTINGS_MODULE" on a line of code.
fn settings_of(manage: &str) -> Option<String> {
    let code: Vec<&str> = manage.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let code = code.join("\n");
    // Several are possible (tests, production): the first `setdefault` is Django's own line.
    code.match_indices("DJANGO_SETTINGS_MODULE").find_map(|(at, name)| {
        let rest = code[at + name.len()..].strip_prefix(['"', '\''])?;
        // setdefault("…", "value") or environ["…"] = "value"
        let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '='));
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let value = rest[1..].split(quote).next()?;
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        (!value.is_empty() && value.chars().all(plain)).then(|| value.to_owned())
    })
}

/// Neither manage.py nor an app was named: say what lies around.
fn nothing_to_run(dir: &Path) -> Failure {
    let failure = Failure::new(Exit::Usage, format!("there is no manage.py in {}", dir.display()));
    if let Some(near) = near_project(dir) {
        return failure.hint(format!("there is one in {0}: quintet run {0}", near.display()));
    }
    if let Some(callable) = wsgi_file(dir) {
        return failure
            .detail("without Django, the app has to be named")
            .hint(format!("this looks like one: quintet run {} --app {callable}", dir.display()));
    }
    failure.hint(
        "quintet run DIRECTORY for a Django project, quintet run --app MODULE:CALLABLE for another WSGI or ASGI app",
    )
}

/// A manage.py one step above or below.
fn near_project(dir: &Path) -> Option<PathBuf> {
    /// Directories to look into; a home directory may hold thousands.
    const LOOKED_AT_MAX: usize = 200;
    let mut below: Vec<PathBuf> = fs::read_dir(dir)
        .ok()?
        .take(LOOKED_AT_MAX)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("manage.py").is_file())
        .collect();
    below.sort();
    let above = dir.parent().filter(|parent| parent.join("manage.py").is_file()).map(Path::to_path_buf);
    below.into_iter().next().or(above)
}

/// The callable of a module that looks like a WSGI app.
fn wsgi_file(dir: &Path) -> Option<String> {
    ["wsgi", "app", "main", "application"].into_iter().find_map(|module| {
        let text = read_bounded(&dir.join(format!("{module}.py"))).ok()?;
        let names = ["application", "app"];
        let defined = |name: &&str| {
            text.lines().any(|line| {
                let rest = line.strip_prefix("def ").unwrap_or(line);
                rest.strip_prefix(*name).is_some_and(|rest| rest.trim_start().starts_with(['=', '(', ':']))
            })
        };
        names.into_iter().find(defined).map(|name| format!("{module}:{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANAGE: &str = r#"#!/usr/bin/env python
"""Django's command-line utility for administrative tasks."""
import os
import sys


def main():
    """Run administrative tasks."""
    # os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.old")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
"#;

    #[test]
    fn the_settings_of_manage_py() {
        for (text, want) in [
            (MANAGE, Some("shop.settings")),
            ("os.environ.setdefault(\n    'DJANGO_SETTINGS_MODULE',\n    'a.b.c'\n)", Some("a.b.c")),
            ("os.environ['DJANGO_SETTINGS_MODULE'] = \"x\"", Some("x")),
            (
                "if os.environ.get(\"DJANGO_SETTINGS_MODULE\") is None:\n    os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"late.settings\")",
                Some("late.settings"),
            ),
            ("os.environ.setdefault('DJANGO_SETTINGS_MODULE', name)", None),
            ("os.environ.setdefault('DJANGO_SETTINGS_MODULE', '')", None),
            ("os.environ.setdefault('DJANGO_SETTINGS_MODULE', f'{site}.settings')", None),
            ("'DJANGO_SETTINGS_MODULE", None),
            ("", None),
        ] {
            assert_eq!(settings_of(text).as_deref(), want, "{text}");
        }
    }

    fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, Config) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut config = Config::default();
        config.app.dir = root.path().to_path_buf();
        (root, config)
    }

    fn hint_of(failure: Failure) -> String {
        match failure {
            Failure::One { hint, .. } => hint.unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn manage_py_is_enough() {
        let (root, config) = project(&[("manage.py", MANAGE)]);
        let found = discover(&config, None).unwrap();
        assert_eq!(found.settings.as_deref(), Some("shop.settings"));
        assert_eq!(found.settings_from, "manage.py");
        assert_eq!(found.dir, root.path().canonicalize().unwrap());
        assert!(found.is_django());
    }

    #[test]
    fn the_environment_is_stronger_than_manage_py_and_the_configuration_stronger_than_both() {
        let (_root, mut config) = project(&[("manage.py", MANAGE)]);
        let found = discover(&config, Some("from.env".into())).unwrap();
        assert_eq!(found.settings.as_deref(), Some("from.env"));
        config.app.settings = Some("from.config".into());
        let found = discover(&config, Some("from.env".into())).unwrap();
        assert_eq!(found.settings.as_deref(), Some("from.config"));
    }

    #[test]
    fn an_app_needs_no_manage_py() {
        let (_root, mut config) = project(&[("hello.py", "")]);
        config.app.callable = Some("hello:app".into());
        let found = discover(&config, None).unwrap();
        assert_eq!((found.app.as_deref(), found.is_django()), (Some("hello:app"), false));
    }

    #[test]
    fn a_project_nearby_is_pointed_at() {
        let (root, mut config) = project(&[("site/manage.py", MANAGE), ("site/shop/urls.py", "")]);
        assert!(hint_of(discover(&config, None).unwrap_err()).ends_with("/site"));
        config.app.dir = root.path().join("site/shop");
        assert!(hint_of(discover(&config, None).unwrap_err()).ends_with("/site"));
    }

    #[test]
    fn a_wsgi_file_is_pointed_at() {
        let (_root, config) = project(&[("app.py", "import flask\napp = flask.Flask(__name__)\n")]);
        assert!(hint_of(discover(&config, None).unwrap_err()).ends_with("--app app:app"));
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let (root, mut config) = project(&[("manage.py", MANAGE)]);
        config.app.dir = root.path().join("manage.py");
        assert!(hint_of(discover(&config, None).unwrap_err()).starts_with("name the directory"));
        config.app.dir = root.path().join("absent");
        assert_eq!(discover(&config, None).unwrap_err().exit(), Exit::Usage);
    }
}
