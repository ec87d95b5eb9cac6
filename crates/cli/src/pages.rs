//! `quintet version`, `quintet help`, and the reference pages that are made from the code.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use serde_json::json;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::{args, exit, print, print_json};

const CONFIGURATION: &str = "\
Configuration

  Nothing has to be configured. What is, comes from four sources; the stronger wins:

    1. the default
    2. quintet.toml in the project directory, or the file of --config or QUINTET_CONFIG
    3. the environment: QUINTET_SECTION_NAME, for example QUINTET_TIMEOUTS_APP=2m
    4. the command line: a flag of its own, or --set SECTION.NAME=VALUE

  quintet config show            every setting, its value, and where it came from
  quintet config show --changed  only what is not the default
  quintet config schema          the JSON Schema of quintet.toml, for editors

  An example:

    [server]
    bind = [\"0.0.0.0:8000\"]

    [workers]
    count = 4

    [proxy]
    trusted = [\"10.0.0.0/8\"]
";

const SIGNALS: &str = "\
Signals of `quintet run`

  TERM, INT   Stop in order: readiness off, server.drain_delay, requests in flight finished within
              server.drain_timeout, exit 0. A second one stops at once.
  HUP         Reload, like `quintet reload`: new workers import the code, then the old ones go.
  TTIN, TTOU  A worker more, a worker fewer, like `quintet scale +1` and `-1`: until the next reload.
              (Not TTOU where the terminal is set to `stty tostop`: there it stops a background job that writes.)

  Send them to the supervisor, whose process id `quintet status` shows. Its children end with it. After `quintet upgrade`
  the process that was started first hands them on.
";

/// `quintet version`.
pub(crate) fn version(matches: &ArgMatches) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    if matches.get_flag("json") {
        return print_json(&json!({ "name": "quintet", "version": version }));
    }
    print(&format!("quintet {version}\n"))
}

/// `quintet help [TOPIC…]`.
pub(crate) fn help(matches: &ArgMatches) -> Result<Exit> {
    let topic: Vec<&str> =
        matches.get_many::<String>("topic").into_iter().flatten().map(String::as_str).collect();
    match topic.as_slice() {
        ["exit-codes"] => return print(&exit::text()),
        ["configuration"] => return print(CONFIGURATION),
        ["signals"] => return print(SIGNALS),
        _ => {}
    }
    let mut command = args::command();
    command.build();
    let mut at = &mut command;
    for name in &topic {
        let names: Vec<String> = at
            .get_subcommands()
            .filter(|sub| !sub.is_hide_set())
            .map(|sub| sub.get_name().to_owned())
            .collect();
        let Some(sub) = at.find_subcommand_mut(name) else {
            let pages = ["exit-codes", "configuration", "signals"];
            let words = names.iter().map(String::as_str).chain(pages);
            let failure = Failure::new(Exit::Usage, format!("there is no help on \"{}\"", topic.join(" ")));
            return Err(match ctl_config::nearest(name, words.clone()) {
                Some(near) => failure.hint(format!("did you mean \"{near}\"?")),
                None => failure.hint(format!("there is help on {}", words.collect::<Vec<_>>().join(", "))),
            });
        };
        at = sub;
    }
    print(&at.render_long_help().ansi().to_string())
}

/// Every page of the reference that is made from the code: file name and text.
pub(crate) fn reference() -> Vec<(&'static str, String)> {
    vec![
        ("settings.md", ctl_config::reference::markdown()),
        ("quintet.schema.json", format!("{:#}\n", ctl_config::schema::json_schema())),
        ("exit-codes.md", exit::markdown()),
        ("cli.md", cli_page()),
        ("import.md", crate::import::markdown()),
    ]
}

/// `quintet internal-docs DIR`, behind `make docs`.
pub(crate) fn write(matches: &ArgMatches) -> Result<Exit> {
    let dir = matches.get_one::<PathBuf>("dir").map_or(Path::new("."), PathBuf::as_path);
    for (name, text) in reference() {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|error| {
            Failure::new(Exit::Failure, format!("{} cannot be written", path.display()))
                .detail(error.to_string())
        })?;
    }
    Ok(Exit::Success)
}

fn cli_page() -> String {
    let mut page = String::from(
        "<!-- Made from crates/cli/src/args.rs by `make docs`. Do not edit. -->\n\n# The command line\n\n\
         `quintet help` prints these texts. [Exit codes](exit-codes.md) and [settings](settings.md) have pages of their own.\n",
    );
    // A fixed width: the page must not depend on the terminal it was made in.
    let mut command =
        args::command().term_width(args::HELP_WIDTH).disable_help_flag(true).disable_version_flag(true);
    command.build();
    push_command(&mut page, &mut command);
    for (title, text) in [("Configuration", CONFIGURATION), ("Signals", SIGNALS)] {
        let _ = write!(page, "\n## {title}\n\n```text\n{}\n```\n", text.trim_end());
    }
    page
}

fn push_command(page: &mut String, command: &mut Command) {
    let name = command.get_bin_name().unwrap_or("quintet").to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n").trim_end());
    for sub in command.get_subcommands_mut() {
        if !sub.is_hide_set() && sub.get_name() != "help" {
            push_command(page, sub);
        }
    }
}
