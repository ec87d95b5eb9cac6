//! Which Python runs the app: candidates in order, each asked in a subprocess whether it can.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::patience::{self, Ended};

/// The oldest Python whose stable ABI the extension is built for.
const PYTHON_MIN: (u32, u32) = (3, 10);

/// Asks an interpreter about itself. Importing the package proves more than finding it; the path is left alone but
/// for the current directory, which may hold a `quintet` of its own.
const PROBE: &str = "\
import json, sys
from importlib.util import find_spec
said = {'python': '%d.%d.%d' % sys.version_info[:3]}
try:
    import quintet
    said['quintet'] = quintet.__version__
except Exception as error:
    said['error'] = '%s: %s' % (type(error).__name__, error)
said['django'] = find_spec('django') is not None
print(json.dumps(said))
";

/// An interpreter starts in 20 ms; a cold disk or a loaded machine takes longer.
const PROBE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// A Python that can run workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Python {
    /// As it will be started: symbolic links are kept, they make virtual environments.
    pub(crate) path: PathBuf,
    /// Its version, `3.11.7`.
    pub(crate) version: String,
    /// Where it was found: "the active environment".
    pub(crate) origin: &'static str,
    /// Candidates that come first and cannot run the app, with the reason.
    pub(crate) passed_over: Vec<String>,
}

/// What surrounds the search; from the real environment but for tests.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// VIRTUAL_ENV.
    pub(crate) virtual_env: Option<PathBuf>,
    /// PATH.
    pub(crate) path: Option<OsString>,
    /// Our own executable.
    pub(crate) executable: Option<PathBuf>,
}

impl Surroundings {
    /// Of this process.
    pub(crate) fn real() -> Self {
        Self {
            virtual_env: env::var_os("VIRTUAL_ENV").filter(|dir| !dir.is_empty()).map(PathBuf::from),
            path: env::var_os("PATH"),
            executable: env::current_exe().ok(),
        }
    }

    /// Interpreters to ask, the most likely first; only those that exist.
    fn candidates(&self, project: &Path) -> Vec<(PathBuf, &'static str)> {
        let mut candidates = Vec::new();
        let mut add = |path: PathBuf, origin| {
            if is_program(&path) && !candidates.iter().any(|(seen, _)| *seen == path) {
                candidates.push((path, origin));
            }
        };
        if let Some(dir) = &self.virtual_env {
            add(dir.join("bin/python"), "the active environment");
        }
        for name in [".venv", "venv"] {
            add(project.join(name).join("bin/python"), "the project's environment");
        }
        if let Some(dir) = self.executable.as_deref().and_then(Path::parent) {
            add(dir.join("python"), "beside the quintet command");
            add(dir.join("python3"), "beside the quintet command");
        }
        if let Some(path) = self.search("python3") {
            add(path, "PATH");
        }
        candidates
    }

    /// The most likely one, whatever is installed in it.
    pub(crate) fn interpreter(&self, project: &Path) -> PathBuf {
        let first = self.candidates(project).into_iter().next();
        first.map_or_else(|| "python3".into(), |(path, _)| path)
    }

    fn search(&self, name: &str) -> Option<PathBuf> {
        let dirs: Vec<_> = env::split_paths(self.path.as_ref()?).collect();
        dirs.into_iter().map(|dir| dir.join(name)).find(|path| path.is_absolute() && is_program(path))
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What [`PROBE`] prints.
#[derive(Debug, Deserialize)]
struct Said {
    python: String,
    quintet: Option<String>,
    error: Option<String>,
    django: bool,
}

/// Finds the interpreter for a project; `named` is `app.python`.
pub(crate) fn find(
    surroundings: &Surroundings,
    named: Option<&Path>,
    project: &Path,
    django: bool,
) -> Result<Python> {
    if let Some(named) = named {
        let path = named_path(surroundings, named)?;
        let version = ask(&path, django).map_err(|unfit| unfit.failure(&path))?;
        return Ok(Python { path, version, origin: "the configuration", passed_over: Vec::new() });
    }
    let candidates = surroundings.candidates(project);
    let mut passed_over = Vec::new();
    let mut first: Option<Failure> = None;
    for (path, origin) in candidates {
        match ask(&path, django) {
            Ok(version) => return Ok(Python { path, version, origin, passed_over }),
            Err(unfit) => {
                passed_over.push(format!("{} ({origin}): {}", path.display(), unfit.reason()));
                first.get_or_insert_with(|| unfit.failure(&path));
            }
        }
    }
    let failure = first.unwrap_or_else(|| {
        Failure::new(Exit::Usage, "there is no Python here")
            .hint("create an environment with `python3 -m venv .venv`, or name the interpreter with --python")
    });
    Err(match passed_over.as_slice() {
        [] | [_] => failure,
        all => failure.detail(format!("none of these can run the app:\n  {}", all.join("\n  "))),
    })
}

fn named_path(surroundings: &Surroundings, named: &Path) -> Result<PathBuf> {
    let missing = |text: String| {
        Failure::new(Exit::Usage, text)
            .hint("name a Python interpreter, for example --python .venv/bin/python")
    };
    if named.components().count() == 1 && named.is_relative() {
        return surroundings
            .search(&named.to_string_lossy())
            .ok_or_else(|| missing(format!("app.python: there is no {} in PATH", named.display())));
    }
    if named.is_dir() && is_program(&named.join("bin/python")) {
        return Ok(named.join("bin/python"));
    }
    if is_program(named) {
        Ok(named.into())
    } else {
        Err(missing(format!("app.python: {} is not a program", named.display())))
    }
}

/// Why an interpreter cannot run the app.
#[derive(Debug)]
enum Unfit {
    Broken(String),
    TooOld(String),
    NoPackage { error: String },
    OtherVersion { version: String },
    NoDjango,
}

fn ask(path: &Path, django: bool) -> std::result::Result<String, Unfit> {
    let mut command = Command::new(path);
    // With -c the current directory is on sys.path: a place without modules.
    command.args(["-c", PROBE]).current_dir("/").stdin(Stdio::null());
    let output = match patience::output(&mut command, PROBE_PATIENCE) {
        Ok(Ended { status, stdout, .. }) if status.success() => stdout,
        Ok(ended) => return Err(Unfit::Broken(telling_line(&ended.stderr))),
        Err(error) => return Err(Unfit::Broken(error)),
    };
    let said: Said = serde_json::from_slice(&output)
        .map_err(|_| Unfit::Broken("it does not answer like a Python".into()))?;
    if version_of(&said.python).is_none_or(|version| version < PYTHON_MIN) {
        return Err(Unfit::TooOld(said.python));
    }
    match said.quintet {
        None => Err(Unfit::NoPackage { error: said.error.unwrap_or_default() }),
        Some(version) if version != env!("CARGO_PKG_VERSION") => Err(Unfit::OtherVersion { version }),
        Some(_) if django && !said.django => Err(Unfit::NoDjango),
        Some(_) => Ok(said.python),
    }
}

fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Of a traceback the last line, of anything else (a shell, pyenv) the first.
fn telling_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let line = if text.contains("Traceback") { lines.next_back() } else { lines.next() };
    line.unwrap_or("it says nothing").to_owned()
}

impl Unfit {
    fn reason(&self) -> String {
        match self {
            Self::Broken(why) => why.clone(),
            Self::TooOld(version) => format!("Python {version} is too old"),
            Self::NoPackage { error }
                if error.starts_with("ModuleNotFoundError: No module named 'quintet'") =>
            {
                "quintet is not installed there".into()
            }
            Self::NoPackage { error } => format!("quintet cannot be imported there: {error}"),
            Self::OtherVersion { version } => format!("has quintet {version}"),
            Self::NoDjango => "Django is not installed there".into(),
        }
    }

    fn failure(&self, path: &Path) -> Failure {
        let (version, shown) = (env!("CARGO_PKG_VERSION"), path.display());
        match self {
            Self::Broken(why) => {
                Failure::new(Exit::Usage, format!("{shown} does not work")).detail(why.clone())
            }
            Self::TooOld(old) => {
                Failure::new(Exit::Usage, format!("{shown} is Python {old}, which is too old"))
                    .hint(format!("quintet needs Python {}.{} or newer", PYTHON_MIN.0, PYTHON_MIN.1))
            }
            Self::NoPackage { .. } => Failure::new(
                Exit::Usage,
                format!("the Python of this project cannot import quintet: {shown}"),
            )
            .detail(self.reason())
            .hint(format!("install it there: {shown} -m pip install quintet=={version}")),
            Self::OtherVersion { version: other } => Failure::new(
                Exit::Usage,
                format!("this is quintet {version}, but {shown} has quintet {other}"),
            )
            .detail("the command and the package inside Python must be of the same version")
            .hint(format!("{shown} -m pip install quintet=={version}")),
            Self::NoDjango => Failure::new(
                Exit::Usage,
                format!("the Python of this project has no Django: {shown}"),
            )
            .hint(format!(
                "install what the project needs, for example: {shown} -m pip install -r requirements.txt"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A "Python" that prints `text`.
    fn fake(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\ncat <<'END'\n{text}\nEND\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn good() -> String {
        format!(r#"{{"python": "3.11.7", "quintet": "{}", "django": true}}"#, env!("CARGO_PKG_VERSION"))
    }

    const BARE: &str =
        r#"{"python": "3.11.7", "error": "ModuleNotFoundError: No module named 'quintet'", "django": true}"#;

    fn fail(surroundings: &Surroundings, project: &Path) -> String {
        find(surroundings, None, project, true).unwrap_err().render(ctl_config::Style::default())
    }

    #[test]
    fn the_active_environment_comes_first() {
        let root = tempfile::tempdir().unwrap();
        fake(&root.path().join("active/bin/python"), &good());
        fake(&root.path().join("site/.venv/bin/python"), &good());
        let mut surroundings =
            Surroundings { virtual_env: Some(root.path().join("active")), ..Surroundings::default() };
        let found = find(&surroundings, None, &root.path().join("site"), true).unwrap();
        assert_eq!(found.path, root.path().join("active/bin/python"));
        surroundings.virtual_env = None;
        let found = find(&surroundings, None, &root.path().join("site"), true).unwrap();
        assert_eq!(found.origin, "the project's environment");
    }

    #[test]
    fn one_that_cannot_is_passed_over_aloud() {
        let root = tempfile::tempdir().unwrap();
        fake(&root.path().join("active/bin/python"), BARE);
        fake(&root.path().join("own/bin/python"), &good());
        let surroundings = Surroundings {
            virtual_env: Some(root.path().join("active")),
            executable: Some(root.path().join("own/bin/quintet")),
            path: None,
        };
        let found = find(&surroundings, None, root.path(), true).unwrap();
        assert_eq!(found.origin, "beside the quintet command");
        assert!(found.passed_over[0].ends_with("quintet is not installed there"), "{:?}", found.passed_over);
    }

    #[test]
    fn the_error_names_the_pip_command() {
        let root = tempfile::tempdir().unwrap();
        let python = root.path().join(".venv/bin/python");
        fake(&python, BARE);
        let text = fail(&Surroundings::default(), root.path());
        assert!(text.contains(&format!("{} -m pip install quintet==", python.display())), "{text}");
    }

    #[test]
    fn versions_must_match() {
        let root = tempfile::tempdir().unwrap();
        fake(
            &root.path().join("venv/bin/python"),
            r#"{"python": "3.12.0", "quintet": "9.9.9", "django": true}"#,
        );
        assert!(fail(&Surroundings::default(), root.path()).contains("has quintet 9.9.9"));
    }

    #[test]
    fn old_and_broken_ones_are_told() {
        let root = tempfile::tempdir().unwrap();
        fake(&root.path().join("a/venv/bin/python"), r#"{"python": "3.9.18", "django": false}"#);
        assert!(fail(&Surroundings::default(), &root.path().join("a")).contains("quintet needs Python 3.10"));
        fake(&root.path().join("b/venv/bin/python"), "hello");
        assert!(fail(&Surroundings::default(), &root.path().join("b")).contains("does not work"));
        assert!(fail(&Surroundings::default(), &root.path().join("c")).contains("there is no Python here"));
    }

    #[test]
    fn a_name_is_searched_in_path() {
        let root = tempfile::tempdir().unwrap();
        fake(&root.path().join("bin/python3.99"), &good());
        let path = Some(root.path().join("bin").into_os_string());
        let surroundings = Surroundings { path, ..Surroundings::default() };
        let found = find(&surroundings, Some(Path::new("python3.99")), root.path(), true).unwrap();
        assert_eq!(found.path, root.path().join("bin/python3.99"));
        assert!(find(&surroundings, Some(Path::new("python3.98")), root.path(), true).is_err());
    }
}
