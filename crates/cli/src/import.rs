//! `quintet import`: the quintet.toml that does what another server's configuration does.
//!
//! A reader for each kind of source ([`gunicorn`], [`uwsgi`], [`unit`], [`nginx`], [`procfile`], command lines) turns it
//! into options with their places; tables of [`row::Row`]s say what becomes of each option; the [`draft::Draft`] collects
//! the outcome, has it checked by our own loader, and writes it. Nothing is dropped in silence: an option is carried,
//! or needs nothing here, or could not be carried and says why, or is unknown and says so.

mod asgi;
mod draft;
mod granian;
mod gunicorn;
mod ini;
mod nginx;
mod page;
mod procfile;
mod python;
mod row;
mod secret;
mod shell;
mod unit;
mod uwsgi;
mod value;
mod words;

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{ErrorKind, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use ctl_config::Style;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::print;
use draft::Draft;
pub(crate) use page::markdown;

/// The largest configuration that anybody has written by hand is a tenth of this.
const BYTES_MAX: u64 = 1 << 20;

/// The kinds of files, as `--as` names them, and what they are.
pub(crate) const KINDS: [(&str, &str); 6] = [
    ("gunicorn", "gunicorn.conf.py"),
    ("uwsgi", "an ini file of uWSGI"),
    ("unit", "the JSON of NGINX Unit"),
    ("nginx", "nginx.conf, or a file of sites-enabled"),
    ("procfile", "a Procfile"),
    ("systemd", "a .service file of systemd"),
];

/// What readers may ask for besides the text.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    /// The directory of the file, or the current one: where what it includes is looked for.
    pub(super) dir: PathBuf,
    /// `--python`.
    pub(super) python: Option<PathBuf>,
    /// GUNICORN_CMD_ARGS and the like.
    pub(super) environment: Vec<(String, String)>,
}

impl Context {
    /// A variable that the command line or a unit sets.
    fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A variable that is set and not empty.
    fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }
}

/// The command.
pub(crate) fn run(matches: &ArgMatches) -> Result<Exit> {
    let command: Vec<String> = matches.get_many::<String>("command").into_iter().flatten().cloned().collect();
    let mut context = Context {
        dir: ".".into(),
        python: matches.get_one::<PathBuf>("python").cloned(),
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    };
    let mut draft = match matches.get_one::<PathBuf>("file") {
        Some(file) => from_file(file, matches.get_one::<String>("as"), &mut context)?,
        None => shell::import_words(&command, &context)?,
    };
    draft.check();
    let text = draft.render();
    let Some(output) = matches.get_one::<PathBuf>("output") else {
        let exit = print(&text)?;
        // Who sees the text has just read what was not carried.
        let seen = std::io::stdout().is_terminal();
        let summary = draft.summary(Style::COLOUR);
        anstream::eprint!("{}", if seen { "" } else { &summary });
        return Ok(exit);
    };
    write_new(output, &text)?;
    anstream::eprint!("{}", draft.summary(Style::COLOUR));
    anstream::eprintln!("Written to {}. Try it: quintet check", output.display());
    Ok(Exit::Success)
}

fn from_file(file: &Path, kind: Option<&String>, context: &mut Context) -> Result<Draft> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = read(file)?;
    let kind = match kind {
        Some(kind) => kind.as_str(),
        None => kind_of(&name, &text).ok_or_else(|| unknown_kind(file, &name))?,
    };
    context.dir = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => ".".into(),
    };
    match kind {
        "gunicorn" => gunicorn::import_file(file, &name, context),
        "uwsgi" => Ok(uwsgi::import(&name, &text, &context.dir)),
        "unit" => unit::import(&name, &text),
        "nginx" => nginx::import(&name, &text, &context.dir),
        "systemd" => procfile::import_systemd(&name, &text, context),
        _ => procfile::import(&name, &text, context),
    }
}

/// The text of `file`, bounded.
fn read(file: &Path) -> Result<String> {
    let unreadable = |detail: String| {
        Failure::new(Exit::Usage, format!("{} cannot be read", file.display())).detail(detail)
    };
    let opened = fs::File::open(file).map_err(|error| {
        let known =
            file.to_str().is_some_and(|word| shell::is_known_program(word.split(' ').next().unwrap_or("")));
        let failure = unreadable(error.to_string());
        match error.kind() {
            ErrorKind::NotFound if known => {
                failure.hint(format!("to import a command line: quintet import -- {} …", file.display()))
            }
            _ => failure,
        }
    })?;
    let mut text = String::new();
    opened.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(unreadable(format!("it has more than {BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// What kind of file this is: by its name, else by what it holds.
fn kind_of(name: &str, text: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let ends = |suffix: &str| lower.ends_with(suffix);
    if lower.starts_with("procfile") {
        return Some("procfile");
    }
    for (suffix, kind) in [(".py", "gunicorn"), (".ini", "uwsgi"), (".json", "unit"), (".service", "systemd")]
    {
        if ends(suffix) {
            return Some(kind);
        }
    }
    if ends(".xml") || ends(".yaml") || ends(".yml") || ends(".toml") {
        return None;
    }
    let code = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if code().any(|line| line == "[uwsgi]") {
        return Some("uwsgi");
    }
    if code().any(|line| line.starts_with("ExecStart=")) {
        return Some("systemd");
    }
    if text.trim_start().starts_with('{') {
        return Some("unit");
    }
    let block = |line: &str| {
        ["server", "http", "location", "upstream", "events"]
            .iter()
            .any(|word| line.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', '{'])))
            && line.contains('{')
    };
    (lower == "nginx.conf" || code().any(block)).then_some("nginx")
}

fn unknown_kind(file: &Path, name: &str) -> Failure {
    let failure = Failure::new(Exit::Usage, format!("{}: what kind of file is this?", file.display()));
    let form = Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if matches!(form, "xml" | "yaml" | "yml") {
        return failure.detail(format!("uWSGI's {form} form is not read, only ini")).hint(
            "write each option as a line `name = value` below [uwsgi], in a file with the ending .ini",
        );
    }
    let kinds: Vec<_> = KINDS.iter().map(|(kind, _)| *kind).collect();
    failure.hint(format!("say it: quintet import --as {} {}", kinds.join("|"), file.display()))
}

/// Files at `url` from `dir`: static files, or media by the name of the prefix; for more there is no room.
fn serve_files(draft: &mut Draft, url: &str, dir: &str, from: &str, shown: &str) {
    let media = url.contains("media") || url.contains("upload");
    let taken = |draft: &Draft, key: &str| draft.get(key).is_some();
    let static_free = !taken(draft, "files.static_url");
    if static_free && !media {
        draft.set("files.static_url", url, from);
        draft.set("files.static_root", dir, from);
    } else if !taken(draft, "files.media_url") {
        draft.set("files.media", "public", from);
        draft.set("files.media_url", url, from);
        draft.set("files.media_root", dir, from);
    } else {
        draft.not_carried(
            shown,
            "two directories are served, static files and media: copy these to one of them, or send them from the app by \
             X-Accel-Redirect (files.accel)",
        );
    }
}

/// Of a server that passes X-Forwarded-… on to the app from whomever they come. Here they are taken away from all but
/// trusted proxies, and an app that goes by them (Django's SECURE_PROXY_SSL_HEADER) would see plain HTTP.
fn name_the_proxy(draft: &mut Draft) {
    if draft.get("proxy.trusted").is_none() {
        draft.not_carried(
            "X-Forwarded-For, -Proto and -Host",
            "they reach the app from proxy.trusted only: name the proxy before quintet there, if there is one",
        );
    }
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new(Exit::Usage, format!("{} is there already", path.display()))
            .hint("it is not overwritten: move it away, or choose another --output"),
        _ => Failure::new(Exit::Failure, format!("{} cannot be written", path.display()))
            .detail(error.to_string()),
    })
}
