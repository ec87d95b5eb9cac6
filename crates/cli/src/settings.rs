//! `quintet config show` and `quintet config schema`.

use std::fmt::Write as _;

use clap::ArgMatches;
use ctl_config::{Loaded, Origin, Reload, Style, schema};
use serde_json::{Map, Value as Json, json};

use crate::exit::Exit;
use crate::failure::Result;
use crate::setup::Request;
use crate::{print, print_json};

/// The command.
pub(crate) fn run(matches: &ArgMatches) -> Result<Exit> {
    let Some(("show", matches)) = matches.subcommand() else {
        return print_json(&schema::json_schema());
    };
    let loaded = Request::from_matches(matches)?.load()?;
    let changed = matches.get_flag("changed");
    if matches.get_flag("json") {
        return print_json(&as_json(&loaded, changed));
    }
    for warning in &loaded.warnings {
        anstream::eprint!("{}", warning.render("warning", Style::COLOUR));
    }
    print(&as_text(&loaded, changed, Style::COLOUR))
}

/// `section.name = value  # origin`, in TOML but for what is unset.
fn as_text(loaded: &Loaded, changed: bool, style: Style) -> String {
    /// Longer values push their origin further out instead of widening the table for everybody.
    const VALUE_WIDTH_MAX: usize = 44;
    /// A line without a value is a comment, so that the whole can be pasted into quintet.toml.
    const UNSET: &str = "# ";
    let mut text = String::new();
    for section in ctl_config::SECTIONS {
        let rows: Vec<_> = section
            .settings
            .iter()
            .map(|setting| (setting, loaded.origin(setting.key)))
            .filter(|(_, origin)| !changed || **origin != Origin::Default)
            .map(|(setting, origin)| {
                let value = match setting.json(&loaded.config) {
                    Json::Null => String::new(),
                    value => ctl_config::reference::toml_text(&value),
                };
                (setting.name, value, origin)
            })
            .collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{}[{}]{}", style.hint, section.name, style.reset);
        let shown = |name: &str, value: &str| name.len() + if value.is_empty() { UNSET.len() } else { 0 };
        let name_width = rows.iter().map(|(name, value, _)| shown(name, value)).max().unwrap_or(0);
        let width =
            rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or(0).min(VALUE_WIDTH_MAX);
        for (name, value, origin) in rows {
            let (comment, value) = if value.is_empty() { (UNSET, "unset") } else { ("", value.as_str()) };
            let quiet = if *origin == Origin::Default { style.quiet } else { "" };
            let name_width = name_width.saturating_sub(comment.len());
            let _ = writeln!(
                text,
                "{quiet}{comment}{name:<name_width$} = {:<width$}  # {origin}{}",
                value, style.reset
            );
        }
        text.push('\n');
    }
    if text.is_empty() { "Every setting has its default.\n".into() } else { text }
}

fn as_json(loaded: &Loaded, changed: bool) -> Json {
    let mut settings = Map::new();
    for setting in ctl_config::settings::all() {
        let origin = loaded.origin(setting.key);
        if changed && *origin == Origin::Default {
            continue;
        }
        let kind = match origin {
            Origin::Default => "default",
            Origin::File { .. } => "file",
            Origin::Environment(_) => "environment",
            Origin::Flag(_) => "flag",
        };
        let entry = json!({
            "value": setting.json(&loaded.config),
            "origin": kind,
            "from": origin.to_string(),
            "reload": setting.reload == Reload::Live,
        });
        settings.insert(setting.key.to_owned(), entry);
    }
    let warnings: Vec<_> = loaded.warnings.iter().map(|warning| &warning.message).collect();
    json!({ "file": loaded.file, "settings": settings, "warnings": warnings })
}
