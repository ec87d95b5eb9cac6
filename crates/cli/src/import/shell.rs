//! Command lines: the server among the words, what stands before it, and its options.

use std::path::Path;

use serde_json::Value as Json;

use super::draft::Draft;
use super::row::{Given, Options, Row, apply};
use super::words::{Token, tokens};
use super::{Context, asgi, granian, gunicorn, secret, uwsgi};
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// A server whose command line is understood.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) rows: &'static [Row],
    /// What comes before the command line: configuration files, variables of the environment.
    pub(super) before: Before,
    /// What several options decide together.
    pub(super) finish: fn(&mut Draft, &Options),
}

/// Where options of a server come from besides its command line.
pub(super) enum Before {
    /// Nowhere.
    Nothing,
    /// Variables of the environment.
    Environment(fn(&Context) -> Options),
    /// Files, which the command line may name.
    Files(fn(&Options, &Context) -> Result<Options>),
}

/// All of them.
pub(super) const SERVERS: [&Server; 6] =
    [&gunicorn::SERVER, &asgi::UVICORN, &asgi::HYPERCORN, &asgi::DAPHNE, &granian::SERVER, &uwsgi::SERVER];

/// The name under which the app, which has no flag, is found among the options.
pub(super) const APP: &str = "app";

/// Words that may stand before a server and change nothing for us.
const WRAPPERS: [&str; 15] = [
    "exec",
    "env",
    "command",
    "nohup",
    "nice",
    "poetry",
    "pipenv",
    "uv",
    "pdm",
    "hatch",
    "rye",
    "run",
    "tini",
    "dumb-init",
    "--",
];

/// Whether `word` is a server's name.
pub(super) fn is_known_program(word: &str) -> bool {
    server(word).is_some()
}

fn server(word: &str) -> Option<&'static Server> {
    let name = file_name(word)?;
    SERVERS.into_iter().find(|server| server.name == name)
}

/// `quintet import -- COMMAND…`.
pub(super) fn import_words(words: &[String], context: &Context) -> Result<Draft> {
    let mut draft = Draft::new("the command line");
    match words {
        // One word with spaces is a whole command line in quotes.
        [line] if line.contains(' ') => import_line(&mut draft, line, context)?,
        words => {
            let words = words.iter().cloned().map(Token::Word).collect::<Vec<_>>();
            if !import_command(&mut draft, &words, context)? {
                return Err(no_server(&words));
            }
        }
    }
    Ok(draft)
}

/// A line of shell: one of its commands is a server.
pub(super) fn import_line(draft: &mut Draft, line: &str, context: &Context) -> Result<()> {
    let tokens = tokens(line).map_err(|why| Failure::new(Exit::Usage, why).detail(secret::hidden(line)))?;
    let tokens = without_redirections(draft, tokens);
    let mut context = context.clone();
    let mut found = false;
    for command in tokens.split(|token| matches!(token, Token::Operator(_))) {
        if command.is_empty() || !found && prepares(draft, command, &mut context) {
            continue;
        }
        if !found && import_command(draft, command, &context)? {
            found = true;
        } else {
            draft.not_carried(
                text_of(command),
                "another command of this line: run it beside quintet or before it",
            );
        }
    }
    if found { Ok(()) } else { Err(no_server(&tokens)) }
}

/// `cd DIR` and `export NAME=value`, which hold for the server that comes after them.
fn prepares(draft: &mut Draft, command: &[Token], context: &mut Context) -> bool {
    let words: Vec<&str> = command.iter().map(Token::text).collect();
    match words.as_slice() {
        ["cd", dir] => {
            let given = given("cd", (*dir).into(), "cd");
            super::row::set(draft, "app.dir", super::value::text, &given);
            context.dir = context.dir.join(dir);
            true
        }
        ["export", pairs @ ..] if pairs.iter().all(|pair| pair.contains('=')) => {
            for (name, value) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
                context.set(name, value);
                environment(draft, name, value, &format!("export {name}={value}"));
            }
            true
        }
        _ => false,
    }
}

/// Takes `> file` and `2>&1` away.
fn without_redirections(draft: &mut Draft, tokens: Vec<Token>) -> Vec<Token> {
    let mut left = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            Token::Operator(operator) if operator.starts_with(['<', '>']) => {
                let target = tokens.next_if(|next| matches!(next, Token::Word(_)));
                let target = target.as_ref().map_or("", Token::text);
                draft.not_needed(
                    format!("{operator} {target}"),
                    "redirect the output of `quintet run` in the same way",
                );
            }
            token => left.push(token),
        }
    }
    left
}

fn text_of(tokens: &[Token]) -> String {
    written(tokens.iter().map(Token::text))
}

/// As a shell has read it; what was one word stays one, for whoever hides secrets in it.
fn written<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let quoted = |word: &str| match word {
        word if word.contains(char::is_whitespace) && !word.contains('\'') => format!("'{word}'"),
        word if word.contains(char::is_whitespace) => format!("\"{}\"", word.replace('"', "'")),
        word => word.to_owned(),
    };
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn no_server(tokens: &[Token]) -> Failure {
    let names: Vec<_> = SERVERS.iter().map(|server| server.name).collect();
    let text = secret::hidden(&text_of(tokens));
    Failure::new(Exit::Usage, format!("there is no server in \"{text}\""))
        .hint(format!("known are {}", names.join(", ")))
}

/// Reads one command; false when it is no server's.
fn import_command(draft: &mut Draft, tokens: &[Token], context: &Context) -> Result<bool> {
    let words: Vec<&str> = tokens.iter().map(Token::text).collect();
    let mut context = context.clone();
    if let Some((at, line)) = line_of_a_shell(&words) {
        before(draft, &words[..at], "sh", &mut context);
        return import_line(draft, line, &context).map(|()| true);
    }
    let Some(at) = words.iter().position(|word| server(word).is_some()) else { return Ok(false) };
    let Some(server) = server(words[at]) else { return Ok(false) };
    let module = at >= 2 && words[at - 1] == "-m";
    before(draft, &words[..if module { at - 2 } else { at }], server.name, &mut context);
    let program = words[if module { at - 2 } else { at }];
    if let Some(python) = python_of(program, module) {
        draft.set("app.python", python, format!("the environment of {program}"));
    }
    import_arguments(draft, server, &words[at + 1..], &context)?;
    Ok(true)
}

/// `bash -lc "…"`: where it stands, and the line.
fn line_of_a_shell<'a>(words: &[&'a str]) -> Option<(usize, &'a str)> {
    let is_shell = |word: &str| matches!(file_name(word), Some("sh" | "bash" | "dash" | "ash" | "zsh"));
    let at = words.iter().position(|word| is_shell(word))?;
    let flag = words.get(at + 1).filter(|flag| flag.starts_with('-') && flag.ends_with('c'));
    flag.and(words.get(at + 2)).map(|line| (at, *line))
}

/// What stands before a server: variables, wrappers that change nothing, and others, which are named together.
fn before(draft: &mut Draft, words: &[&str], server: &str, context: &mut Context) {
    let mut others: Vec<&str> = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some((name, value)) if is_name(name) => {
                context.set(name, value);
                environment(draft, name, value, &format!("{name}={value}"));
            }
            _ if WRAPPERS.contains(word) => {}
            _ => others.push(word),
        }
    }
    if !others.is_empty() {
        let why = format!("it stands before {server}: put it before `quintet run`");
        draft.not_carried(written(others.into_iter()), why);
    }
}

fn file_name(word: &str) -> Option<&str> {
    Path::new(word).file_name()?.to_str()
}

/// The interpreter of the environment that `program` lies in, where that is not one that is found anyway.
fn python_of(program: &str, is_python: bool) -> Option<String> {
    let path = Path::new(program);
    let dir = path.parent().filter(|dir| dir.file_name().is_some_and(|name| name == "bin"))?;
    let environment = dir.parent()?.to_str()?;
    if matches!(environment, "/usr" | "/usr/local" | "/" | "" | "venv" | ".venv" | "./venv" | "./.venv") {
        return None;
    }
    let python = if is_python { path.to_path_buf() } else { dir.join("python") };
    python.to_str().map(str::to_owned)
}

/// The options of a server, from all its sources, in their order of strength.
fn import_arguments(draft: &mut Draft, server: &Server, words: &[&str], context: &Context) -> Result<()> {
    let given = arguments(server.rows, words);
    let before = match server.before {
        Before::Nothing => Options::default(),
        Before::Environment(read) => read(context),
        Before::Files(read) => read(&given, context)?,
    };
    let options = before.over(given);
    finish(draft, server, &options);
    Ok(())
}

/// What all sources of a server say becomes a draft.
pub(super) fn finish(draft: &mut Draft, server: &Server, options: &Options) {
    apply(draft, server.rows, options, server.name);
    (server.finish)(draft, options);
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A variable that is set for the app; `from` ends with its value, which is often a secret and is not repeated.
pub(super) fn environment(draft: &mut Draft, name: &str, value: &str, from: &str) {
    match name {
        "DJANGO_SETTINGS_MODULE" => draft.set("app.settings", value, from),
        name if is_read_by_servers(name) => {}
        _ => draft.not_carried(
            from.strip_suffix(value).unwrap_or(from).trim_end_matches('='),
            "quintet passes its own environment on to the app: set the variable where quintet is started",
        ),
    }
}

/// Variables that stand for options; where the server that reads them comes, they are read.
fn is_read_by_servers(name: &str) -> bool {
    matches!(name, "GUNICORN_CMD_ARGS" | "WEB_CONCURRENCY" | "FORWARDED_ALLOW_IPS")
        || ["GRANIAN_", "UVICORN_", "UWSGI_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Options that are given by variables with a prefix: `GRANIAN_WORKERS=4`.
pub(super) fn prefixed(context: &Context, prefix: &str) -> Options {
    let given = |(name, value): &(String, String)| {
        let option = name.strip_prefix(prefix).filter(|_| !value.is_empty())?.to_ascii_lowercase();
        Some(Given { name: option, value: value.as_str().into(), from: name.clone() })
    };
    Options(context.environment.iter().filter_map(given).collect())
}

/// Options that are given by variables of other names: `WEB_CONCURRENCY`.
pub(super) fn named(context: &Context, known: &[(&str, &str)]) -> Options {
    let given = |(variable, option): &(&str, &str)| {
        let value = context.variable(variable)?;
        Some(Given { name: (*option).into(), value: value.into(), from: (*variable).into() })
    };
    Options(known.iter().filter_map(given).collect())
}

/// The options among `words`.
pub(super) fn arguments(rows: &'static [Row], words: &[&str]) -> Options {
    let mut options = Options::default();
    let mut words = words.iter().copied().peekable();
    let mut only_values = false;
    while let Some(word) = words.next() {
        if word == "--" && !only_values {
            only_values = true;
        } else if only_values || !word.starts_with('-') || word == "-" {
            positional(&mut options, word);
        } else {
            let (flag, inline) = flag_of(rows, word);
            let given = match found(rows, flag) {
                Some((row, _)) if is_beginning(row) => {
                    // Some of these take a value and some do not.
                    let value = inline.or_else(|| words.next_if(|next| !next.starts_with('-')));
                    given(flag.trim_start_matches('-'), value.map_or(Json::Bool(true), Json::from), flag)
                }
                Some((row, on)) if !row.takes_value => given(row.name, Json::Bool(on), flag),
                Some((row, _)) => {
                    let value = inline.or_else(|| words.next()).unwrap_or_default();
                    given(row.name, value.into(), flag)
                }
                None => {
                    let value = inline.or_else(|| words.next_if(|next| is_value(next)));
                    // `-psecret`: what it is called is its first letter.
                    let letter = flag.char_indices().nth(2).filter(|_| !flag.starts_with("--"));
                    let shown = letter.map_or(flag.to_owned(), |(at, _)| format!("{}…", &flag[..at]));
                    given(flag, value.map_or(Json::Bool(true), Json::from), &shown)
                }
            };
            options.0.push(given);
        }
    }
    options
}

/// `touch-*` of uWSGI, whose options are flags by their own names.
fn is_beginning(row: &Row) -> bool {
    row.name.ends_with('*') && row.flags.split(' ').any(|flag| flag == "*")
}

/// After a flag that nobody knows: its value, or the app already? That is written with a dot or a colon.
fn is_value(word: &str) -> bool {
    let is_app = word.contains(['.', ':'])
        && word.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && !word.contains(['/', '=']);
    !word.starts_with('-') && !is_app
}

fn given(name: &str, value: Json, from: &str) -> Given {
    Given { name: name.to_owned(), value, from: from.to_owned() }
}

/// The app; a second word without a flag belongs to an option that nobody knows.
fn positional(options: &mut Options, word: &str) {
    let name = if options.get(APP).is_some() { word } else { APP };
    let from = if name == APP { "the app" } else { word };
    options.0.push(given(name, if name == APP { word.into() } else { Json::Bool(true) }, from));
}

/// `--bind=:8000` and `-w4` in two.
fn flag_of<'a>(rows: &'static [Row], word: &'a str) -> (&'a str, Option<&'a str>) {
    if word.starts_with("--") {
        return match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (word, None),
        };
    }
    let end = word.char_indices().nth(2).map_or(word.len(), |(at, _)| at);
    let (flag, rest) = word.split_at(end);
    let takes_value = found(rows, flag).is_some_and(|(row, _)| row.takes_value);
    if rest.is_empty() || !takes_value || found(rows, word).is_some() {
        return (word, None);
    }
    (flag, Some(rest.strip_prefix('=').unwrap_or(rest)))
}

/// The row of a flag, and whether it is turned on. Unambiguous beginnings count, as they do in Python's argparse.
fn found(rows: &'static [Row], flag: &str) -> Option<(&'static Row, bool)> {
    // "*" among the flags: the name itself is one, as uWSGI has it.
    let is = |row: &&Row, flag: &str| {
        row.flags
            .split(' ')
            .any(|known| known == flag || (known == "*" && flag.strip_prefix("--") == Some(row.name)))
    };
    if let Some(row) = rows.iter().find(|row| is(row, flag)) {
        return Some((row, true));
    }
    if let Some(positive) = flag.strip_prefix("--no-") {
        let positive = format!("--{positive}");
        if let Some(row) = rows.iter().find(|row| !row.takes_value && is(row, &positive)) {
            return Some((row, false));
        }
    }
    if !flag.starts_with("--") || flag.len() < 4 {
        return None;
    }
    let beginning = |row: &&Row| is_beginning(row) && flag[2..].starts_with(row.name.trim_end_matches('*'));
    if let Some(row) = rows.iter().find(beginning) {
        return Some((row, true));
    }
    let begins = |row: &&Row| row.flags.split(' ').any(|known| known.starts_with(flag));
    let mut candidates = rows.iter().filter(begins);
    candidates.next().filter(|_| candidates.next().is_none()).map(|row| (row, true))
}
