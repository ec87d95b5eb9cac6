//! Procfiles and systemd units: the command line in them, and what else they start.

use super::Context;
use super::draft::Draft;
use super::row::Becomes::{By, No, Same, Set, Together};
use super::row::{Given, Options, Row, apply, option};
use super::{shell, value, words};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use value::plain;

/// A Procfile: `web` is imported, the others are named.
pub(super) fn import(name: &str, text: &str, context: &Context) -> Result<Draft> {
    let mut draft = Draft::new(name);
    let mut web = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((process, command)) = line.split_once(':') else {
            draft.not_carried(
                format!("line {}: {line}", index + 1),
                "a line of a Procfile is `name: command`",
            );
            continue;
        };
        let option = format!("{}: {}", process.trim(), command.trim());
        match process.trim() {
            "web" => web = Some(command.trim()),
            "release" => {
                draft.not_carried(option, "run it when you deploy, before `quintet run` or `quintet reload`");
            }
            _ => {
                draft.not_carried(option, "another process: start it as you do now, quintet does not run it");
            }
        }
    }
    let Some(command) = web else {
        return Err(Failure::new(Exit::Usage, format!("{name} has no line `web: …`"))
            .hint("only what serves HTTP can be imported"));
    };
    shell::import_line(&mut draft, command, context)?;
    Ok(draft)
}

const UNIT_ROWS: &[Row] = &[
    option("ExecStart", "", Together("read as a command line")),
    option("WorkingDirectory", "", Set("app.dir", value::text)),
    option("Environment", "", Together("`app.settings`; others are named")),
    option("User", "", Same("keep it in the unit, with ExecStart=quintet run")),
    option("Group", "", Same("keep it in the unit, with ExecStart=quintet run")),
    option("ExecReload", "", No("ExecReload=quintet reload")),
    option("ExecStartPre", "", No("keep it in the unit")),
    option("Exec*", "", No("keep it in the unit")),
    option("Type", "", By(service_type, "nothing: `Type=notify`")),
    option("PIDFile", "", No("leave it away: quintet stays in the foreground")),
    option("KillSignal", "", By(kill_signal, "nothing for SIGTERM and SIGINT")),
    option(
        "TimeoutStopSec",
        "",
        Same("keep it in the unit, longer than server.drain_delay and server.drain_timeout together"),
    ),
    option("*", "", Same("keep it in the unit, with ExecStart=quintet run")),
];

fn service_type(draft: &mut Draft, given: &Given) {
    match plain(&given.value).as_str() {
        "notify" | "notify-reload" => draft.not_needed(given.shown(), "keep it in the unit"),
        _ => draft.not_carried(
            given.shown(),
            "Type=notify: quintet stays in the foreground and says when it serves",
        ),
    }
}

fn kill_signal(draft: &mut Draft, given: &Given) {
    match plain(&given.value).as_str() {
        "SIGTERM" | "SIGINT" => draft.not_needed(given.shown(), "it stops quintet in order"),
        _ => draft.not_carried(
            given.shown(),
            "leave it away: SIGTERM stops quintet in order, other signals do not",
        ),
    }
}

/// A .service file: ExecStart is imported, the rest of the unit stays a unit.
pub(super) fn import_systemd(name: &str, text: &str, context: &Context) -> Result<Draft> {
    let mut draft = Draft::new(name);
    let options = of_service(text);
    let Some(command) = options.text("ExecStart") else {
        return Err(Failure::new(Exit::Usage, format!("{name} has no ExecStart= in [Service]")));
    };
    apply(&mut draft, UNIT_ROWS, &options, "systemd");
    let mut context = context.clone();
    for given in options.all("Environment") {
        let words = words::tokens(&plain(&given.value)).unwrap_or_else(|why| {
            draft.not_carried("Environment", format!("{why}, so its variables were not read"));
            Vec::new()
        });
        for word in words {
            let (name, value) = word.text().split_once('=').unwrap_or((word.text(), ""));
            context.set(name, value);
            shell::environment(&mut draft, name, value, &format!("Environment={name}={value}"));
        }
    }
    // gunicorn looks for its configuration where it starts.
    if let Some(dir) = options.text("WorkingDirectory") {
        context.dir = dir.trim_start_matches(['-', '~']).into();
    }
    let command = command.trim_start_matches(['-', '@', '+', '!', ':']);
    shell::import_line(&mut draft, command, &context)?;
    specifiers(&mut draft, &options);
    Ok(draft)
}

/// The options of `[Service]`.
fn of_service(text: &str) -> Options {
    let mut options = Options::default();
    let mut section = String::new();
    let joined = text.replace("\\\n", " ");
    for line in joined.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            header.trim_end_matches(']').clone_into(&mut section);
        } else if section == "Service"
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            let (name, value) = (key.trim().to_owned(), value.trim().into());
            options.0.push(Given { from: name.clone(), name, value });
        }
    }
    options
}

/// `%i`, `%t` and others: systemd fills them in, quintet.toml has nothing like it.
fn specifiers(draft: &mut Draft, options: &Options) {
    for name in ["WorkingDirectory", "ExecStart"] {
        let text = options.text(name).unwrap_or_default().replace("%%", "");
        let found = text.match_indices('%').filter_map(|(at, _)| text[at + 1..].chars().next());
        let mut found: Vec<_> = found.filter(char::is_ascii_alphabetic).map(|c| format!("%{c}")).collect();
        found.dedup();
        if !found.is_empty() {
            let why = "systemd fills it in, quintet.toml does not: write what it stands for";
            draft.not_carried(format!("{} in {name}", found.join(", ")), why);
        }
    }
}
