//! What an import has come to: settings with the place each came from, tables, and what was not carried and why.
//!
//! The draft is checked by the loader that will read it: what our configuration refuses (out of range, no such path
//! form) becomes a note instead of a line.

use std::fmt::Write as _;
use std::path::Path;

use ctl_config::reference::toml_text;
use ctl_config::{Record as _, Sources, Style, TextFile, WorkerPool, load};
use serde_json::Value as Json;

use super::secret;

/// Width of comments in the file.
const WIDTH: usize = 110;

/// What became of an option that is no line of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It could not be carried; somebody has to look at it.
    NotCarried,
    /// Nobody here knows it.
    Unknown,
    /// Nothing has to be said: quintet does it anyway, or has no need of it.
    NotNeeded,
}

#[derive(Debug, Clone)]
struct Line {
    /// `section.name`, or the name of a table's key.
    key: &'static str,
    value: Json,
    from: String,
}

#[derive(Debug, Clone)]
struct Note {
    fate: Fate,
    option: String,
    why: String,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    source: String,
    lines: Vec<Line>,
    /// Of those that may be there several times.
    tables: Vec<Table>,
    notes: Vec<Note>,
}

#[derive(Debug, Clone)]
struct Table {
    name: &'static str,
    lines: Vec<Line>,
}

/// A line of such a table: its key, its value, and where it comes from.
pub(super) type Entry = (&'static str, Json, String);

impl Draft {
    /// Of what was read: "gunicorn.conf.py", "the command line".
    pub(super) fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), ..Self::default() }
    }

    /// `key = value`; the later one wins, as it does in every source, and the earlier one is told.
    pub(super) fn set(&mut self, key: &'static str, value: impl Into<Json>, from: impl Into<String>) {
        debug_assert!(ctl_config::find(key).is_some(), "{key}: there is no such setting");
        let line = Line { key, value: value.into(), from: from.into() };
        if let Some(at) = self.lines.iter().position(|other| other.key == key) {
            let before = self.lines.remove(at);
            if before.value != line.value {
                self.not_needed(before.from, format!("{} counts", line.from));
            }
        }
        self.lines.push(line);
    }

    /// One more value of a list.
    pub(super) fn push(&mut self, key: &'static str, value: impl Into<Json>, from: &str) {
        let value = value.into();
        let Some(line) = self.lines.iter_mut().find(|line| line.key == key) else {
            return self.set(key, Json::Array(vec![value]), from);
        };
        if let Json::Array(items) = &mut line.value
            && !items.contains(&value)
        {
            items.push(value);
            if !line.from.ends_with(from) {
                let _ = write!(line.from, ", {from}");
            }
        }
    }

    /// The value of `key` as far as it is known.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.lines.iter().find(|line| line.key == key).map(|line| &line.value)
    }

    /// A table that may be there several times.
    pub(super) fn table(&mut self, name: &'static str, lines: Vec<Entry>) {
        let line = |(key, value, from)| Line { key, value, from };
        self.tables.push(Table { name, lines: lines.into_iter().map(line).collect() });
    }

    /// A pool.
    pub(super) fn pool(&mut self, lines: Vec<Entry>) {
        self.table(WorkerPool::TABLE, lines);
    }

    /// What became of `option`, when it is no line.
    pub(super) fn note(&mut self, fate: Fate, option: impl Into<String>, why: impl Into<String>) {
        let note = Note { fate, option: secret::hidden(&option.into()), why: why.into() };
        if !self.notes.iter().any(|other| other.option == note.option && other.why == note.why) {
            self.notes.push(note);
        }
    }

    /// `option` could not be carried.
    pub(super) fn not_carried(&mut self, option: impl Into<String>, why: impl Into<String>) {
        self.note(Fate::NotCarried, option, why);
    }

    /// `option` needs nothing here.
    pub(super) fn not_needed(&mut self, option: impl Into<String>, why: impl Into<String>) {
        self.note(Fate::NotNeeded, option, why);
    }

    /// Lets our own loader look at it; lines that it refuses become notes.
    pub(super) fn check(&mut self) {
        // Every round takes a line away, or closes a route, so the rounds end.
        for _ in 0..=self.line_count() + 2 * self.tables.len() {
            let (body, places) = self.body();
            let path = Path::new("/").join("quintet.toml");
            let file = Some(TextFile { path, text: body });
            let Err(problems) = load(&Sources { file, working_dir: "/".into(), ..Sources::default() }) else {
                return;
            };
            let Some(problem) = problems.0.first() else { return };
            let place = problem.line().and_then(|line| places.iter().find(|(known, ..)| *known == line));
            let Some((_, table, index)) = place.copied() else {
                let why = format!("quintet says: {}", problem.message);
                let Some(table) = self.tables.pop() else {
                    return self.not_carried("what stands above", why);
                };
                let from = table.lines.first().map_or("a table", |line| &line.from);
                self.not_carried(from, why);
                continue;
            };
            let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            let why = format!("quintet does not take it: {}{hint}", problem.message);
            let from = match table {
                Some(table) => self.take_out(table, index),
                None => self.lines.remove(index).from,
            };
            self.not_carried(from, why);
        }
    }

    /// Takes a line out of a table. Where the table would mean something else without it, it goes; a route that would open what was
    /// closed takes its requests all the same, and answers 503.
    fn take_out(&mut self, table: usize, index: usize) -> String {
        const CONDITIONS: [&str; 4] = ["host", "path", "method", "header"];
        const HARMLESS: [&str; 6] =
            ["request_headers", "response_headers", "compress", "bandwidth", "bandwidth_after", "body_max"];
        let Table { name, lines } = &mut self.tables[table];
        let Line { key, from, .. } = lines.remove(index);
        let goes = match *name {
            "route" if HARMLESS.contains(&key) => false,
            "route" if CONDITIONS.contains(&key) || key == "respond" || key == "status" => true,
            "route" => {
                lines.retain(|line| CONDITIONS.contains(&line.key));
                let line = |key, value: Json| Line { key, value, from: from.clone() };
                lines.extend([line("respond", "".into()), line("status", 503.into())]);
                false
            }
            "upstream" | "limit" => ["name", "servers", "rate", "by"].contains(&key),
            WorkerPool::TABLE => key == "match",
            _ => true,
        };
        if goes || lines.is_empty() {
            self.tables.remove(table);
        }
        from
    }

    fn line_count(&self) -> usize {
        self.lines.len() + self.tables.iter().map(|table| table.lines.len()).sum::<usize>()
    }

    /// The tables, and for each line of a value its number, table and index.
    fn body(&self) -> (String, Vec<(usize, Option<usize>, usize)>) {
        let mut out = Body::default();
        for section in ctl_config::SECTIONS {
            let inside = |key: &str| key.split_once('.').is_some_and(|(name, _)| name == section.name);
            let mut rows: Vec<_> =
                self.lines.iter().enumerate().filter(|(_, line)| inside(line.key)).collect();
            rows.sort_by_key(|(_, line)| section.settings.iter().position(|setting| setting.key == line.key));
            out.table(&format!("[{}]", section.name), None, &rows);
        }
        for (index, table) in self.tables.iter().enumerate() {
            let rows: Vec<_> = table.lines.iter().enumerate().collect();
            out.table(&format!("[[{}]]", table.name), Some(index), &rows);
        }
        (out.text, out.places)
    }

    /// The whole file.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        push_comment(
            &mut text,
            "",
            &format!(
                "What {} says, as quintet.toml. Made by `quintet import`; `quintet check` tries it.",
                self.source
            ),
        );
        let body = self.body().0;
        if body.is_empty() {
            text.push_str("#\n# Nothing has to be set.\n");
        }
        let _ = write!(text, "\n{body}");
        for (fate, title) in [
            (Fate::NotCarried, "Not carried, please look at each:"),
            (Fate::Unknown, "Not known here, so not carried:"),
            (Fate::NotNeeded, "Needs no line:"),
        ] {
            let notes: Vec<_> = self.notes.iter().filter(|note| note.fate == fate).collect();
            if notes.is_empty() {
                continue;
            }
            let _ = writeln!(text, "# {title}");
            for note in notes {
                push_comment(&mut text, "- ", &sentence(note));
            }
            text.push('\n');
        }
        format!("{}\n", text.trim_end())
    }

    /// For the terminal: how much was carried, and what was not.
    pub(super) fn summary(&self, style: Style) -> String {
        let count = |fate| self.notes.iter().filter(|note| note.fate == fate).count();
        let open = count(Fate::NotCarried) + count(Fate::Unknown);
        let mut text = format!(
            "{}: {} carried, {} need no line, {open} not carried{}\n",
            self.source,
            plural(self.line_count(), "setting"),
            count(Fate::NotNeeded),
            if open == 0 { "" } else { ":" },
        );
        for note in self.notes.iter().filter(|note| note.fate != Fate::NotNeeded) {
            let Style { hint, reset, .. } = style;
            let _ = writeln!(text, "  {hint}{}{reset}: {}", note.option, note.why);
        }
        text
    }
}

#[derive(Default)]
struct Body {
    text: String,
    lines: usize,
    places: Vec<(usize, Option<usize>, usize)>,
}

impl Body {
    fn table(&mut self, header: &str, pool: Option<usize>, rows: &[(usize, &Line)]) {
        if rows.is_empty() {
            return;
        }
        self.line(header);
        for (index, line) in rows {
            let name = line.key.split_once('.').map_or(line.key, |(_, name)| name);
            self.line(&format!("{name} = {}  # {}", toml_text(&line.value), one_line(&line.from)));
            self.places.push((self.lines, pool, *index));
        }
        self.line("");
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}");
        self.lines += 1;
    }
}

fn sentence(note: &Note) -> String {
    one_line(&format!("{}: {}", note.option, note.why))
}

/// Text from elsewhere must not end a comment: control characters, line ends among them, become spaces.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `text` as comment lines of at most [`WIDTH`] characters.
fn push_comment(out: &mut String, bullet: &str, text: &str) {
    let mut line = format!("# {bullet}");
    let indent = format!("# {}", " ".repeat(bullet.len()));
    let mut empty = true;
    for word in text.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            line.clone_from(&indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(out, "{line}");
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("{count} {word}") } else { format!("{count} {word}s") }
}
