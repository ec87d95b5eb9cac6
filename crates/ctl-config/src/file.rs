//! `quintet.toml`: from text to raw values with their places. Knows TOML, and which keys exist; no values.

use std::ops::Range;
use std::path::Path;

use toml_edit::{Document, Item, TableLike, Value as Toml};

use crate::define::{Setting, all, find};
use crate::problem::{Place, Problem, nearest};
use crate::raw::Raw;
use crate::settings::{SECTIONS, TABLES};
use crate::tables::{Table, Written};

/// The file, for the places of what it says.
pub(crate) struct InFile<'a> {
    /// As shown to people.
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
    /// Where relative paths start.
    pub(crate) base: &'a Path,
}

impl InFile<'_> {
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        Place::in_file(self.name, self.text, span)
    }
}

/// A value of the file.
pub(crate) struct Entry {
    pub(crate) setting: &'static Setting,
    pub(crate) raw: Raw,
    pub(crate) span: Range<usize>,
}

/// What the file holds.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) entries: Vec<Entry>,
    /// The tables that may be there several times, those of one name in their order.
    pub(crate) tables: Vec<Written>,
}

/// Reads the file; what is wrong with its form and keys goes to `problems`.
pub(crate) fn read(file: &InFile<'_>, problems: &mut Vec<Problem>) -> Found {
    let document = match Document::parse(file.text) {
        Ok(document) => document,
        Err(error) => {
            let place = error.span().map(|span| file.place(span));
            problems.push(Problem::new(format!("{} is not TOML: {}", file.name, error.message())).at(place));
            return Found::default();
        }
    };
    let mut reader = Reader { file, problems, found: Found::default() };
    for (key, item) in document.iter() {
        reader.section(document.as_table(), key, item);
    }
    reader.found
}

struct Reader<'a> {
    file: &'a InFile<'a>,
    problems: &'a mut Vec<Problem>,
    found: Found,
}

impl Reader<'_> {
    fn section(&mut self, root: &dyn TableLike, key: &str, item: &Item) {
        if let Some(table) = TABLES.iter().find(|table| table.name == key) {
            self.tables(table, root, item);
            return;
        }
        let Some(section) = SECTIONS.iter().find(|section| section.name == key) else {
            self.problem(unknown_section(key, item), key_span(root, key));
            return;
        };
        let Some(table) = item.as_table_like() else {
            let problem =
                Problem::new(format!("\"{key}\" is a section")).hint(format!("write it as [{key}]"));
            self.problem(problem, key_span(root, key));
            return;
        };
        let unknown = |name: &str| unknown_key(section.name, name);
        let entries = self.entries(table, section.settings, &format!("[{key}]"), unknown);
        self.found.entries.extend(entries);
    }

    fn tables(&mut self, table: &'static Table, root: &dyn TableLike, item: &Item) {
        let header = format!("[[{}]]", table.name);
        let Some(all) = item.as_array_of_tables() else {
            let problem = Problem::new(format!("\"{}\" may be there several times", table.name))
                .hint(format!("write it as {header}"));
            self.problem(problem, key_span(root, table.name));
            return;
        };
        for one in all {
            let span = one.span().or_else(|| key_span(root, table.name)).unwrap_or(0..0);
            let entries = self.entries(one, table.keys, &header, |name| table.unknown_key(name));
            self.found.tables.push(Written { table, span, entries });
        }
    }

    /// The values of one table, which begins with `header` and has these keys.
    fn entries(
        &mut self,
        table: &dyn TableLike,
        keys: &'static [Setting],
        header: &str,
        unknown: impl Fn(&str) -> Problem,
    ) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (name, item) in table.iter() {
            let Some(setting) = keys.iter().find(|setting| setting.name == name) else {
                self.problem(unknown(name), key_span(table, name));
                continue;
            };
            let Some(value) = item.as_value() else {
                let problem =
                    Problem::new(format!("{} is a {}, not a section", setting.key, setting.kind.describe()))
                        .hint(format!("write it as {name} = … in {header}"));
                self.problem(problem, key_span(table, name));
                continue;
            };
            let span = value.span().or_else(|| key_span(table, name)).unwrap_or(0..0);
            entries.push(Entry { setting, raw: raw(value), span });
        }
        entries
    }

    fn problem(&mut self, problem: Problem, span: Option<Range<usize>>) {
        let place = span.map(|span| self.file.place(span));
        self.problems.push(problem.at(place));
    }
}

fn key_span(table: &dyn TableLike, key: &str) -> Option<Range<usize>> {
    table.key(key).and_then(toml_edit::Key::span)
}

fn raw(value: &Toml) -> Raw {
    match value {
        Toml::String(text) => Raw::Text(text.value().clone()),
        Toml::Integer(number) => Raw::Integer(*number.value()),
        Toml::Float(number) => Raw::Float(*number.value()),
        Toml::Boolean(on) => Raw::Switch(*on.value()),
        Toml::Datetime(_) => Raw::Foreign("date"),
        Toml::InlineTable(_) => Raw::Foreign("table"),
        Toml::Array(items) => Raw::List(items.iter().map(|item| (raw(item), item.span())).collect()),
    }
}

fn unknown_section(key: &str, item: &Item) -> Problem {
    if item.is_table_like() || item.is_array_of_tables() {
        let problem = Problem::new(format!("there is no section \"{key}\""));
        let tables = || TABLES.iter().map(|table| table.name);
        let names = SECTIONS.iter().map(|section| section.name).chain(tables());
        return match nearest(key, names.clone()) {
            Some(near) if tables().any(|table| table == near) => {
                problem.hint(format!("did you mean [[{near}]]?"))
            }
            Some(near) => problem.hint(format!("did you mean [{near}]?")),
            None => problem.hint(format!("sections are {}", names.collect::<Vec<_>>().join(", "))),
        };
    }
    let problem = Problem::new(format!("there is no setting \"{key}\" outside the sections"));
    match anywhere(key) {
        Some(setting) => {
            problem.hint(format!("did you mean \"{}\" in the section [{}]?", setting.name, setting.section))
        }
        None => problem.hint("settings stand in sections, see `quintet config show`"),
    }
}

/// The problem of a name that its section does not have.
pub(crate) fn unknown_key(section: &str, name: &str) -> Problem {
    let problem = Problem::new(format!("there is no setting \"{name}\" in [{section}]"));
    let here: Vec<_> =
        all().filter(|setting| setting.section == section).map(|setting| setting.name).collect();
    if let Some(near) = nearest(name, here.iter().copied()) {
        return problem.hint(format!("did you mean \"{near}\"?"));
    }
    match anywhere(name) {
        Some(setting) => {
            problem.hint(format!("did you mean \"{}\" in the section [{}]?", setting.name, setting.section))
        }
        None => problem.hint(format!("[{section}] has {}", here.join(", "))),
    }
}

/// The setting of any section that `name` was probably meant to be: by its key, its name, or its flag.
pub(crate) fn anywhere(name: &str) -> Option<&'static Setting> {
    if name.contains('.') {
        return find(name).or_else(|| find(nearest(name, all().map(|setting| setting.key))?));
    }
    let flag = |setting: &Setting| setting.flag.map(|(flag, _)| flag);
    let by_name = |name: &str| all().find(|setting| setting.name == name);
    let by_flag = |name: &str| all().find(|setting| flag(setting) == Some(name));
    by_name(name)
        .or_else(|| by_flag(nearest(name, all().filter_map(flag))?))
        .or_else(|| by_name(nearest(name, all().map(|setting| setting.name))?))
}
