//! From file, environment and flags to one [`Config`], with the origin of every value.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::cross;
use crate::define::{Setting, all, find};
use crate::file::{self, Entry, InFile, anywhere};
use crate::problem::{Place, Problem, Problems, nearest};
use crate::raw::{Fault, Input, Raw};
use crate::settings::{Config, SECTIONS};
use crate::tables;
use crate::value::json_text;

/// Everything a configuration is made of.
#[derive(Debug, Default)]
pub struct Sources {
    /// `quintet.toml`, already read.
    pub file: Option<TextFile>,
    /// The environment: names and values, in any order. Only names that begin with `QUINTET_` are looked at.
    pub environment: Vec<(String, String)>,
    /// Values given on the command line.
    pub flags: Vec<FlagValues>,
    /// Where relative paths in environment and flags start; absolute.
    pub working_dir: PathBuf,
}

/// A configuration file.
#[derive(Debug, Clone)]
pub struct TextFile {
    /// Absolute.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
}

/// The values of one flag.
#[derive(Debug, Clone)]
pub struct FlagValues {
    /// The setting, as `section.name`.
    pub key: String,
    /// As typed, for errors: `--bind`.
    pub shown: String,
    /// One for each time it was given.
    pub values: Vec<String>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has set it.
    Default,
    /// The configuration file.
    File {
        /// As shown to people.
        name: String,
        /// From 1.
        line: usize,
    },
    /// A variable of the environment.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A configuration that holds together.
#[derive(Debug)]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    /// What is odd, but no reason to stop.
    pub warnings: Vec<Problem>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    pub(crate) places: Vec<(String, Origin, Option<Place>)>,
    /// Where each table of a name begins, those of one name in their order.
    pub(crate) headers: Vec<(&'static str, Place)>,
}

impl Loaded {
    /// Where the value of `key` came from; `worker_pool[0].min` is the first pool's.
    pub fn origin(&self, key: &str) -> &Origin {
        self.places.iter().find(|(at, ..)| *at == key).map_or(&Origin::Default, |(_, origin, _)| origin)
    }

    pub(crate) fn place(&self, key: &str) -> Option<Place> {
        self.places.iter().find(|(at, ..)| *at == key).and_then(|(.., place)| place.clone())
    }
}

/// Puts the sources together, the stronger over the weaker, and checks the result.
///
/// Errors are all that is wrong in any of the sources, in the order of their strength.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let mut loaded = Loaded {
        config: Config::default(),
        warnings: Vec::new(),
        file: sources.file.as_ref().map(|file| file.path.clone()),
        places: Vec::new(),
        headers: Vec::new(),
    };
    loaded.config.app.dir.clone_from(&sources.working_dir);
    if let Some(file) = &sources.file {
        from_file(file, &sources.working_dir, &mut loaded, &mut problems);
    }
    from_environment(sources, &mut loaded, &mut problems);
    from_flags(sources, &mut loaded, &mut problems);
    if problems.is_empty() {
        cross::check(&loaded, &mut problems);
        tables::check(&loaded, &mut problems);
    }
    if problems.is_empty() { Ok(loaded) } else { Err(Problems(problems)) }
}

fn from_file(file: &TextFile, working_dir: &Path, loaded: &mut Loaded, problems: &mut Vec<Problem>) {
    let name = file.path.strip_prefix(working_dir).unwrap_or(&file.path).display().to_string();
    let base = file.path.parent().unwrap_or(Path::new("/"));
    loaded.config.app.dir = base.to_path_buf();
    let file = InFile { name: &name, text: &file.text, base };
    let found = file::read(&file, problems);
    for entry in found.entries {
        let key = entry.setting.key.to_owned();
        take(entry, (key, 0), &file, loaded, problems);
    }
    for table in found.tables {
        tables::take(table, &file, loaded, problems);
    }
}

/// Takes one value of the file into `loaded`, under its key there; `index` is the number of its table.
pub(crate) fn take(
    entry: Entry,
    (key, index): (String, usize),
    file: &InFile<'_>,
    loaded: &mut Loaded,
    problems: &mut Vec<Problem>,
) {
    let Entry { setting, raw, span } = entry;
    match apply(&mut loaded.config, (setting, index), Input { raw: &raw, base: file.base }) {
        Ok(()) => {
            let place = file.place(span);
            let origin = Origin::File { name: file.name.to_owned(), line: place.line().unwrap_or_default() };
            loaded.places.push((key, origin, Some(place.of(setting))));
        }
        Err(mut refused) => {
            let span = refused.span.take().unwrap_or(span);
            problems.push(refused.problem(setting).at(Some(file.place(span).of(setting))));
        }
    }
}

fn from_environment(sources: &Sources, loaded: &mut Loaded, problems: &mut Vec<Problem>) {
    for setting in all() {
        let name = setting.environment_name();
        // An empty variable counts as not set: that is what `VARIABLE=` in an env file means to most programs.
        let value = sources.environment.iter().find(|(at, value)| *at == name && !value.is_empty());
        let Some((_, value)) = value else { continue };
        let shown = if setting.is_secret { String::new() } else { format!("={value}") };
        let place = Place::Named(format!("environment variable {name}{shown}"));
        let raw = Raw::Word(value.clone());
        match apply(&mut loaded.config, (setting, 0), Input { raw: &raw, base: &sources.working_dir }) {
            Ok(()) => loaded.replace(setting.key, Origin::Environment(name), place),
            Err(refused) => problems.push(refused.problem(setting).at(Some(place))),
        }
    }
    loaded.warnings.extend(sources.environment.iter().filter_map(|(name, _)| unknown_variable(name)));
}

/// A warning for a variable that looks like a setting and is none. It cannot be an error: Kubernetes passes
/// `QUINTET_SERVER_PORT` and the like to every container when a service is named so.
fn unknown_variable(name: &str) -> Option<Problem> {
    let rest = name.strip_prefix("QUINTET_")?.to_ascii_lowercase();
    if let Some(table) = tables::meant_by(&rest) {
        let place = Place::Named(format!("environment variable {name}"));
        return Some(table.only_in_the_file().at(Some(place)));
    }
    let known = SECTIONS
        .iter()
        .find_map(|section| Some((section.name, rest.strip_prefix(section.name)?.strip_prefix('_')?)));
    let Some((section, key)) = known else { return unknown_section(name, &rest) };
    let kubernetes = key == "port" || key.starts_with("port_") || key.starts_with("service_");
    if kubernetes || find(&format!("{section}.{key}")).is_some() {
        return None;
    }
    let mut problem = file::unknown_key(section, key);
    problem.hint = anywhere(&format!("{section}.{key}"))
        .map(|near| format!("did you mean {}?", near.environment_name()));
    Some(problem.at(Some(Place::Named(format!("environment variable {name}")))))
}

/// `QUINTET_WORKER_COUNT`: only where the rest is a setting of the section that was probably meant. Whatever else begins with
/// our name may be somebody else's.
fn unknown_section(name: &str, rest: &str) -> Option<Problem> {
    let (typo, key) = rest.split_once('_')?;
    let section = nearest(typo, SECTIONS.iter().map(|section| section.name))?;
    let meant = find(&format!("{section}.{key}"))?;
    let problem = Problem::new(format!("there is no section \"{typo}\""))
        .hint(format!("did you mean {}?", meant.environment_name()));
    Some(problem.at(Some(Place::Named(format!("environment variable {name}")))))
}

fn from_flags(sources: &Sources, loaded: &mut Loaded, problems: &mut Vec<Problem>) {
    for flag in &sources.flags {
        let place = Place::Named(format!("flag {}", flag.shown));
        let Some(setting) = find(&flag.key) else {
            if let Some(table) = tables::meant_by(&flag.key) {
                problems.push(table.only_in_the_file().at(Some(place)));
                continue;
            }
            let problem = Problem::new(format!("there is no setting \"{}\"", flag.key));
            let hint = anywhere(&flag.key).map(|near| format!("did you mean {}?", near.key));
            problems.push(Problem { hint, ..problem }.at(Some(place)));
            continue;
        };
        let raw = match flag.values.as_slice() {
            [] => continue,
            values if setting.kind.is_list() => {
                Raw::List(values.iter().map(|value| (Raw::Word(value.clone()), None)).collect())
            }
            [.., last] => Raw::Word(last.clone()),
        };
        match apply(&mut loaded.config, (setting, 0), Input { raw: &raw, base: &sources.working_dir }) {
            Ok(()) => loaded.replace(setting.key, Origin::Flag(flag.shown.clone()), place),
            Err(refused) => problems.push(refused.problem(setting).at(Some(place))),
        }
    }
}

impl Loaded {
    fn replace(&mut self, key: &str, origin: Origin, place: Place) {
        self.places.retain(|(at, ..)| *at != key);
        self.places.push((key.to_owned(), origin, Some(place)));
    }
}

/// A value that was not taken.
pub(crate) struct Refused {
    pub(crate) fault: Fault,
    pub(crate) detail: Option<String>,
    pub(crate) span: Option<std::ops::Range<usize>>,
}

impl Refused {
    pub(crate) fn problem(self, setting: &Setting) -> Problem {
        Problem { detail: self.detail, ..Problem::of(setting.key, self.fault) }
    }
}

impl From<Fault> for Refused {
    fn from(mut fault: Fault) -> Self {
        Self { span: fault.span.take(), fault, detail: None }
    }
}

/// Sets one value, unless it is not understood or out of range; of a repeated table, in the one of this number.
pub(crate) fn apply(
    config: &mut Config,
    (setting, index): (&Setting, usize),
    input: Input<'_>,
) -> Result<(), Refused> {
    (setting.access.read)(config, index, input).map_err(|fault| match setting.range {
        Some((least, most, _)) if fault.hint.is_none() => fault.hint(format!("from {least} to {most}")),
        _ => fault,
    })?;
    if let Some(check) = setting.check {
        match setting.json(config, index) {
            Json::Array(items) => items.iter().map(json_text).try_for_each(|text| check(&text))?,
            Json::Null => {}
            value => check(&json_text(&value))?,
        }
    }
    check_range(config, setting, index)
}

fn check_range(config: &Config, setting: &Setting, index: usize) -> Result<(), Refused> {
    let (Some((least, most, why)), Some(number)) =
        (setting.range, (setting.access.get_number)(config, index))
    else {
        return Ok(());
    };
    let text = setting.text(config, index);
    let (message, detail) = if number < bound(setting, least) {
        (format!("{text} is too little"), None)
    } else if number > bound(setting, most) {
        (format!("{text} is too much"), Some(why.to_owned()))
    } else {
        return Ok(());
    };
    let fault = Fault::new(message).hint(format!("from {least} to {most}"));
    Err(Refused { fault, detail, span: None })
}

/// A bound of the table, read the way the setting itself is.
pub(crate) fn bound(setting: &Setting, text: &str) -> u64 {
    let mut config = tables::one_of_each();
    let raw = Raw::Word(text.to_owned());
    let read = (setting.access.read)(&mut config, 0, Input { raw: &raw, base: Path::new("/") });
    debug_assert!(read.is_ok(), "{}: the bound {text} cannot be read", setting.key);
    (setting.access.get_number)(&config, 0).unwrap_or(u64::MAX)
}
