//! Tables of options: a row says how an option is written and what becomes of it.

use serde_json::Value as Json;

use super::draft::{Draft, Fate};
use super::secret;
use super::value::{As, Means, is_on, plain};

/// An option that was given.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    /// Its name in the table.
    pub(super) name: String,
    /// Its value; a flag without one is `true`, its opposite `false`.
    pub(super) value: Json,
    /// Where it stands, for comments: `--workers`, `line 12: processes`.
    pub(super) from: String,
}

impl Given {
    /// The option as written, for notes.
    pub(super) fn shown(&self) -> String {
        match &self.value {
            Json::Bool(_) => self.from.clone(),
            _ if self.is_secret() => self.from.clone(),
            // What follows it was written in the file, however long; a note needs enough to find it.
            value => format!("{} = {}", self.from, shortened(&secret::hidden(&plain(value)))),
        }
    }

    /// Its value does not belong into a file that goes into a repository, nor on a terminal.
    fn is_secret(&self) -> bool {
        // With a question mark: any name that stands in a gunicorn.conf.py.
        let any = ["environment.", "?", "set-ph", "set-placeholder", "legion"];
        // A dictionary has secrets wherever it likes.
        self.value.is_object()
            || self.name.contains("password")
            || self.name == "set"
            || any.iter().any(|prefix| self.name.starts_with(prefix))
    }
}

fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let mut short: String = text.chars().take(CHARACTERS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// What becomes of an option.
#[derive(Clone, Copy)]
pub(super) enum Becomes {
    /// This setting.
    Set(&'static str, As),
    /// Something that a function knows; in words for the reference.
    By(fn(&mut Draft, &Given), &'static str),
    /// It is looked at together with others, when all are known; in words for the reference.
    Together(&'static str),
    /// Nothing has to be said; why.
    Same(&'static str),
    /// Not carried when it is on; why, and what instead.
    No(&'static str),
}

/// A row of a table.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Its name; with a `*` at its end, every name that begins so.
    pub(super) name: &'static str,
    /// Its flags on a command line, with spaces between.
    pub(super) flags: &'static str,
    /// On a command line a value follows.
    pub(super) takes_value: bool,
    pub(super) becomes: Becomes,
}

/// An option with a value.
pub(super) const fn option(name: &'static str, flags: &'static str, becomes: Becomes) -> Row {
    Row { name, flags, takes_value: true, becomes }
}

/// An option that is on or off; on a command line `--no-NAME` is the opposite of `--NAME`.
pub(super) const fn switch(name: &'static str, flags: &'static str, becomes: Becomes) -> Row {
    Row { name, flags, takes_value: false, becomes }
}

/// What was given, in order; the later one wins.
#[derive(Debug, Default)]
pub(super) struct Options(pub(super) Vec<Given>);

impl Options {
    /// With `stronger` over it: what that names is forgotten here, all of a list too.
    pub(super) fn over(mut self, stronger: Self) -> Self {
        self.0.retain(|given| stronger.get(&given.name).is_none());
        self.0.extend(stronger.0);
        self
    }

    /// The last one of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Given> {
        self.0.iter().rev().find(|given| given.name == name)
    }

    /// All of this name, in order.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Given> {
        self.0.iter().filter(move |given| given.name == name)
    }

    /// Its value as text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|given| plain(&given.value))
    }
}

/// The row of `name`.
pub(super) fn find(rows: &'static [Row], name: &str) -> Option<&'static Row> {
    let by_prefix = |row: &&Row| row.name.strip_suffix('*').is_some_and(|prefix| name.starts_with(prefix));
    rows.iter().find(|row| row.name == name).or_else(|| rows.iter().find(by_prefix))
}

/// Does with every option what its row says. `server` is whose options they are.
pub(super) fn apply(draft: &mut Draft, rows: &'static [Row], options: &Options, server: &str) {
    for (index, given) in options.0.iter().enumerate() {
        let Some(row) = find(rows, &given.name) else {
            let names = rows.iter().map(|row| row.name);
            let near = ctl_config::nearest(&given.name, names.filter(|name| !name.ends_with('*')));
            let why = match near {
                Some(near) => format!("no option of {server} that is known here; \"{near}\" would be one"),
                None => format!("no option of {server} that is known here"),
            };
            // Without its value: who knows what it is.
            draft.note(Fate::Unknown, given.from.clone(), why);
            continue;
        };
        // Of several on a command line the last one counts, for them as for us.
        let overridden = options.0[index + 1..].iter().any(|later| later.name == given.name);
        match row.becomes {
            Becomes::Set(..) if overridden => {}
            Becomes::Set(key, convert) => set(draft, key, convert, given),
            Becomes::By(function, _) => function(draft, given),
            Becomes::Together(_) => {}
            Becomes::Same(why) => draft.not_needed(given.shown(), why),
            Becomes::No(why) if is_on(&given.value) => draft.not_carried(given.shown(), why),
            Becomes::No(_) => draft.not_needed(given.shown(), "it is off"),
        }
    }
}

/// Sets `key` to what `given` means.
pub(super) fn set(draft: &mut Draft, key: &'static str, convert: As, given: &Given) {
    if let Some(why) = variable(&given.value, key) {
        draft.not_carried(given.shown(), why);
        return;
    }
    match convert(&given.value) {
        Means::Value(value) => draft.set(key, value, given.from.clone()),
        Means::Same(why) => draft.not_needed(given.shown(), why),
        Means::No(why) => draft.not_carried(given.shown(), why),
    }
}

/// Why a value that the shell would fill in cannot be carried.
pub(super) fn variable(value: &Json, key: &str) -> Option<String> {
    let text = plain(value);
    let named = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '{' | '(');
    let filled_in = text.match_indices('$').any(|(at, _)| text[at + 1..].starts_with(named));
    if !filled_in && !text.contains('`') {
        return None;
    }
    let name = ctl_config::find(key).map(ctl_config::Setting::environment_name)?;
    Some(format!("quintet.toml knows no variables: set {name}=\"{text}\" in the environment instead"))
}
