//! From the command line to a configuration: finds `quintet.toml`, gathers environment and flags, loads.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use ctl_config::settings::all;
use ctl_config::{FlagValues, Loaded, Sources, TextFile, load};

use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// The name of the configuration file in a project directory.
pub(crate) const FILE_NAME: &str = "quintet.toml";

/// What the command line says about the configuration. Kept, so that a reload can read the file again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// PROJECT_DIR.
    pub(crate) project_dir: Option<PathBuf>,
    /// `--config`.
    pub(crate) config: Option<PathBuf>,
    /// Flags of settings, and `--set`.
    pub(crate) flags: Vec<FlagValues>,
}

impl Request {
    /// Reads it from what clap has parsed.
    pub(crate) fn from_matches(matches: &ArgMatches) -> Result<Self> {
        let mut flags = Vec::new();
        for setting in all() {
            let Some((flag, _)) = setting.flag else { continue };
            let Ok(Some(values)) = matches.try_get_many::<String>(flag) else { continue };
            let values = values.cloned().collect();
            flags.push(FlagValues { key: setting.key.into(), shown: format!("--{flag}"), values });
        }
        if let Ok(Some(pairs)) = matches.try_get_many::<String>("set") {
            for pair in pairs {
                add_pair(&mut flags, pair)?;
            }
        }
        let path = |name| matches.try_get_one::<PathBuf>(name).ok().flatten().cloned();
        Ok(Self { project_dir: path("project_dir"), config: path("config"), flags })
    }

    /// Reads file and environment and puts everything together.
    pub(crate) fn load(&self) -> Result<Loaded> {
        let working_dir = env::current_dir().map_err(|error| {
            Failure::new(Exit::Usage, "the current directory cannot be opened").detail(error.to_string())
        })?;
        let named = self
            .config
            .clone()
            .or_else(|| env::var_os("QUINTET_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from));
        let project_dir = self.project_dir.clone().map(|dir| working_dir.join(dir));
        let file = match &named {
            Some(path) => Some(read(&working_dir.join(path))?.ok_or_else(|| no_file(path))?),
            None => read(&project_dir.as_ref().unwrap_or(&working_dir).join(FILE_NAME))?,
        };
        let mut flags = self.flags.clone();
        // PROJECT_DIR says where quintet.toml is, and without one that sets it, where the project is. A file that was
        // found in PROJECT_DIR may lead further (`dir = "src"`); one that was named may not lead elsewhere.
        if let Some(dir) = project_dir.filter(|_| file.is_none() || named.is_some()) {
            let value = dir.to_str().ok_or_else(|| {
                Failure::new(Exit::Usage, format!("the path {} is not UTF-8", dir.display()))
                    .hint("Python and JSON need text; rename the directory or make a symbolic link to it")
            })?;
            flags.push(FlagValues {
                key: "app.dir".into(),
                shown: "PROJECT_DIR".into(),
                values: vec![value.into()],
            });
        }
        let loaded = load(&Sources { file, environment: environment()?, flags, working_dir })?;
        Ok(loaded)
    }
}

/// `--set SECTION.NAME=VALUE`. Given more than once for a list, the values add up.
fn add_pair(flags: &mut Vec<FlagValues>, pair: &str) -> Result<()> {
    let Some((key, value)) = pair.split_once('=') else {
        return Err(Failure::new(Exit::Usage, format!("--set {pair}: the value is missing"))
            .hint("write --set SECTION.NAME=VALUE, for example --set timeouts.app=2m"));
    };
    let shown = format!("--set {key}");
    match flags.iter_mut().find(|flag| flag.key == key && flag.shown == shown) {
        Some(flag) => flag.values.push(value.to_owned()),
        None => flags.push(FlagValues { key: key.to_owned(), shown, values: vec![value.to_owned()] }),
    }
    Ok(())
}

fn no_file(path: &Path) -> Failure {
    Failure::new(Exit::Usage, format!("the configuration file {} does not exist", path.display()))
        .hint("leave --config away to run without one: every setting has a default")
}

/// The file as text; `None` when there is none. Any kind of file will do (`/dev/null`, a pipe of the shell).
fn read(path: &Path) -> Result<Option<TextFile>> {
    /// A configuration has a hundred lines; a wrong file may have gigabytes.
    const BYTES_MAX: u64 = 1 << 20;
    let unreadable = |detail: String| {
        Failure::new(Exit::Usage, format!("{} cannot be read", path.display())).detail(detail)
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(unreadable(format!("it has more than {BYTES_MAX} bytes")));
    }
    Ok(Some(TextFile { path: path.components().collect(), text }))
}

/// Our variables. One that is not text cannot be ignored in silence.
fn environment() -> Result<Vec<(String, String)>> {
    let text = |value: OsString, name: &str| {
        value
            .into_string()
            .map_err(|_| Failure::new(Exit::Usage, format!("environment variable {name} is not UTF-8")))
    };
    let mut variables = Vec::new();
    for (name, value) in env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        if name.starts_with("QUINTET_") {
            let value = text(value, &name)?;
            variables.push((name, value));
        }
    }
    Ok(variables)
}
