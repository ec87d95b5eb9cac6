//! Tables that may be there several times in `quintet.toml`: `[[worker_pool]]` and its like.
//!
//! What is the same for all of them lives here: reading them, the errors of their keys, where each value came from. A new one
//! is a file with its keys (`record!`) and its rules ([`Rules`]), and a row of `tables` in `settings.rs`; parser, schema,
//! reference and `quintet config show` know it then. They stand in the file only: a list of tables has no good form in the
//! environment or on the command line.

use std::collections::HashSet;
use std::ops::Range;

use crate::define::Setting;
use crate::file::{Entry, InFile, anywhere};
use crate::load::{self, Loaded};
use crate::problem::{Place, Problem, nearest};
use crate::raw::Fault;
use crate::settings::{Config, TABLES};

/// Names are labels of metrics and columns of `quintet status`.
pub(crate) const NAME_BYTES_MAX: usize = 40;

/// A table that may be there several times: what its type says about it. Written by `record!`.
pub trait Record: Default {
    /// As written between [[ and ]].
    const TABLE: &'static str;
    /// Paragraphs for the reference.
    const DOC: &'static str;
    /// Its keys, in the order of the reference.
    const KEYS: &'static [Setting];
}

/// The names of the keys that are written in one table.
pub(crate) type Given = HashSet<&'static str>;

/// What a table says besides its keys.
pub(crate) trait Rules: Record {
    /// How many there may be, and why not more.
    const COUNT_MAX: (usize, &'static str);
    /// The keys that no one may leave away.
    const REQUIRED: &'static [Required];

    /// Sets what follows from other keys, where it is not `given`.
    fn complete(&mut self, given: &Given) {
        let _ = given;
    }

    /// The rules between keys, between the tables of this name, and with the rest of the configuration.
    fn together(loaded: &Loaded, problems: &mut Vec<Problem>);

    /// A hint for a key that is not one of these and near to none: what was probably wanted.
    fn wanted(name: &str) -> Option<String> {
        let _ = name;
        None
    }
}

/// A key that must be there.
#[derive(Debug)]
pub(crate) struct Required {
    pub(crate) key: &'static str,
    /// What it would answer.
    pub(crate) question: &'static str,
    /// In TOML.
    pub(crate) example: &'static str,
}

/// A row of `tables`: a [`Record`] without its type.
#[derive(Debug)]
pub struct Table {
    /// As written between [[ and ]].
    pub name: &'static str,
    /// Paragraphs for the reference.
    pub doc: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [Setting],
    pub(crate) count_max: (usize, &'static str),
    pub(crate) required: &'static [Required],
    push: fn(&mut Config),
    count: fn(&Config) -> usize,
    complete: fn(&mut Config, usize, &Given),
    together: fn(&Loaded, &mut Vec<Problem>),
    wanted: fn(&str) -> Option<String>,
}

impl Table {
    pub(crate) const fn of<Of: Rules>(
        push: fn(&mut Config),
        count: fn(&Config) -> usize,
        complete: fn(&mut Config, usize, &Given),
    ) -> Self {
        Self {
            name: Of::TABLE,
            doc: Of::DOC,
            keys: Of::KEYS,
            count_max: Of::COUNT_MAX,
            required: Of::REQUIRED,
            push,
            count,
            complete,
            together: Of::together,
            wanted: Of::wanted,
        }
    }

    /// How many there are.
    pub fn count(&self, config: &Config) -> usize {
        (self.count)(config)
    }

    /// The problem of a name that it does not have.
    pub(crate) fn unknown_key(&self, name: &str) -> Problem {
        let table = self.name;
        let problem = Problem::new(format!("there is no key \"{name}\" in [[{table}]]"));
        let names = || self.keys.iter().map(|key| key.name);
        if let Some(near) = nearest(name, names()) {
            return problem.hint(format!("did you mean \"{near}\"?"));
        }
        let hint = (self.wanted)(name);
        problem.hint(
            hint.unwrap_or_else(|| format!("[[{table}]] has {}", names().collect::<Vec<_>>().join(", "))),
        )
    }

    /// It was written in another form, or tried in the environment or on the command line.
    pub(crate) fn only_in_the_file(&self) -> Problem {
        let table = self.name;
        Problem::new(format!("tables [[{table}]] stand in quintet.toml only"))
            .hint(format!("write [[{table}]] there; --config and QUINTET_CONFIG name another file"))
    }
}

/// The table that a flag's key or a variable's name (in small letters) means.
pub(crate) fn meant_by(key: &str) -> Option<&'static Table> {
    let rest = |table: &Table| key.strip_prefix(table.name);
    TABLES
        .iter()
        .find(|table| rest(table).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_', '['])))
}

/// The key of a value in [`Loaded`]: `worker_pool[0].min`.
pub fn key_of(table: &str, index: usize, name: &str) -> String {
    format!("{table}[{index}].{name}")
}

/// One table of the file.
pub(crate) struct Written {
    pub(crate) table: &'static Table,
    /// Of its header.
    pub(crate) span: Range<usize>,
    pub(crate) entries: Vec<Entry>,
}

/// Takes one table of the file into `loaded`; what is wrong with it goes to `problems`.
pub(crate) fn take(written: Written, file: &InFile<'_>, loaded: &mut Loaded, problems: &mut Vec<Problem>) {
    let Written { table, span, entries } = written;
    let header = file.place(span);
    let index = table.count(&loaded.config);
    (table.push)(&mut loaded.config);
    let given: Given = entries.iter().map(|entry| entry.setting.name).collect();
    for entry in entries {
        let key = key_of(table.name, index, entry.setting.name);
        load::take(entry, (key, index), file, loaded, problems);
    }
    (table.complete)(&mut loaded.config, index, &given);
    for required in table.required.iter().filter(|required| !given.contains(required.key)) {
        let problem = Problem::new(format!("{}.{}: {}", table.name, required.key, required.question))
            .hint(format!("for example {} = {}", required.key, required.example));
        problems.push(problem.at(Some(header.clone())));
    }
    loaded.headers.push((table.name, header));
}

/// The rules of all tables.
pub(crate) fn check(loaded: &Loaded, problems: &mut Vec<Problem>) {
    for table in TABLES {
        let count = table.count(&loaded.config);
        let (most, why) = table.count_max;
        if count > most {
            let problem = Problem::new(format!("{}: {count} tables are too many", table.name))
                .detail(why)
                .hint(format!("at most {most}"));
            problems.push(problem.at(loaded.place_in(table.name, most, "")));
        }
        (table.together)(loaded, problems);
    }
}

impl Loaded {
    /// Where a table begins: `quintet.toml:12`.
    pub fn begins(&self, table: &str, index: usize) -> Option<String> {
        match self.headers.iter().filter(|(of, _)| *of == table).nth(index)? {
            (_, Place::File { name, line, .. }) => Some(format!("{name}:{line}")),
            (_, Place::Named(_)) => None,
        }
    }

    /// Where a key of a table is set, else where the table begins.
    pub(crate) fn place_in(&self, table: &str, index: usize, name: &str) -> Option<Place> {
        let headers = || self.headers.iter().filter(|(of, _)| *of == table).map(|(_, place)| place.clone());
        self.place(&key_of(table, index, name)).or_else(|| headers().nth(index))
    }
}

/// A configuration in which each table is there once, as it is while nothing is set: for defaults.
pub(crate) fn one_of_each() -> Config {
    let mut config = Config::default();
    for table in TABLES {
        (table.push)(&mut config);
    }
    config
}

/// Whether `text` can be the name of `what` ("a pool"), such as `example`.
pub(crate) fn check_name(text: &str, what: &str, example: &str) -> Result<(), Fault> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(plain) {
        return Ok(());
    }
    Err(Fault::new(format!("\"{text}\" cannot be {what}'s name"))
        .hint(format!("letters, digits, - and _, at most {NAME_BYTES_MAX}, for example {example}")))
}

/// The hint for a key of a section that holds for all tables of this name.
pub(crate) fn holds_for_all(name: &str, sections: &[&str], what: &str) -> Option<String> {
    let setting = anywhere(name).filter(|setting| sections.contains(&setting.section))?;
    Some(format!("\"{}\" of [{}] holds for all {what}", setting.name, setting.section))
}
