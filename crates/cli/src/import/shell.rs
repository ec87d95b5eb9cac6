//! Command lines: words as the shell makes them, the server among them, and its options.

use std::path::Path;

use serde_json::Value as Json;

use super::draft::Draft;
use super::row::{Given, Options, Row, apply};
use super::{Context, asgi, granian, gunicorn, uwsgi};
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
    let name = Path::new(word).file_name()?.to_str()?;
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
    let tokens = tokens(line).map_err(|why| Failure::new(Exit::Usage, why).detail(line.to_owned()))?;
    let tokens = without_redirections(draft, tokens);
    let mut found = false;
    for command in tokens.split(|token| matches!(token, Token::Operator(_))) {
        if command.is_empty() {
            continue;
        }
        if !found && import_command(draft, command, context)? {
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
    tokens.iter().map(Token::text).collect::<Vec<_>>().join(" ")
}

fn no_server(tokens: &[Token]) -> Failure {
    let names: Vec<_> = SERVERS.iter().map(|server| server.name).collect();
    Failure::new(Exit::Usage, format!("there is no server in \"{}\"", text_of(tokens)))
        .hint(format!("known are {}", names.join(", ")))
}

/// Reads one command; false when it is no server's.
fn import_command(draft: &mut Draft, tokens: &[Token], context: &Context) -> Result<bool> {
    let words: Vec<&str> = tokens.iter().map(Token::text).collect();
    let Some(at) = words.iter().position(|word| server(word).is_some()) else { return Ok(false) };
    let Some(server) = server(words[at]) else { return Ok(false) };
    let module = at >= 2 && words[at - 1] == "-m";
    let before = &words[..if module { at - 2 } else { at }];
    let mut context = context.clone();
    for word in before {
        match word.split_once('=') {
            Some((name, value)) if is_name(name) => {
                context.environment.retain(|(known, _)| known != name);
                context.environment.push((name.to_owned(), value.to_owned()));
                environment(draft, name, value, &format!("{name}={value}"));
            }
            _ if WRAPPERS.contains(word) => {}
            _ => draft.not_carried(
                (*word).to_owned(),
                format!("it stands before {}: put it before `quintet run`", server.name),
            ),
        }
    }
    import_arguments(draft, server, &words[at + 1..], &context)?;
    Ok(true)
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
        "GUNICORN_CMD_ARGS" | "WEB_CONCURRENCY" | "UVICORN_WORKERS" => {}
        _ => draft.not_carried(
            from.strip_suffix(value).unwrap_or(from).trim_end_matches('='),
            "quintet passes its own environment on to the app: set the variable where quintet is started",
        ),
    }
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
                Some((row, on)) if !row.takes_value => given(row.name, Json::Bool(on), flag),
                Some((row, _)) => {
                    let value = inline.or_else(|| words.next()).unwrap_or_default();
                    given(row.name, value.into(), flag)
                }
                None => given(flag, inline.map_or(Json::Bool(true), Json::from), flag),
            };
            options.0.push(given);
        }
    }
    options
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
    let begins = |row: &&Row| row.flags.split(' ').any(|known| known.starts_with(flag));
    let mut candidates = rows.iter().filter(begins);
    candidates.next().filter(|_| candidates.next().is_none()).map(|row| (row, true))
}

/// A piece of a line of shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    /// `&&`, `;`, `|`, `>`.
    Operator(String),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(text) | Self::Operator(text) => text,
        }
    }
}

/// Splits a line as a POSIX shell does, without expanding anything.
pub(super) fn tokens(line: &str) -> std::result::Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            '\'' | '"' => {
                let text = word.get_or_insert_default();
                quoted(&mut chars, c, text)?;
            }
            ';' | '|' | '&' | '<' | '>' | '\n' => {
                // In `2>&1` the number belongs to the operator.
                let number =
                    matches!(c, '<' | '>') && word.as_deref().is_some_and(|word| word.parse::<u8>().is_ok());
                let before = word.take();
                if !number {
                    tokens.extend(before.map(Token::Word));
                }
                let mut operator = String::from(c);
                while let Some(next) = chars.next_if(|next| matches!(next, '|' | '&' | '<' | '>')) {
                    operator.push(next);
                }
                tokens.push(Token::Operator(operator));
            }
            '#' if word.is_none() => while chars.next_if(|next| *next != '\n').is_some() {},
            c if c.is_whitespace() => tokens.extend(word.take().map(Token::Word)),
            c => word.get_or_insert_default().push(c),
        }
    }
    tokens.extend(word.map(Token::Word));
    Ok(tokens)
}

fn quoted(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    quote: char,
    word: &mut String,
) -> std::result::Result<(), String> {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next() {
                Some(next @ ('"' | '\\' | '$' | '`')) => word.push(next),
                Some('\n') | None => {}
                Some(next) => word.extend(['\\', next]),
            },
            c => word.push(c),
        }
    }
    Err(format!("a quote {quote} is not closed"))
}
