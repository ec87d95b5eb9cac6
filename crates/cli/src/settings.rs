//! `quintet config show` and `quintet config schema`.

use std::fmt::Write as _;

use clap::ArgMatches;
use ctl_config::{Loaded, Origin, Reload, SECTIONS, Setting, Style, TABLES, Table, schema, tables};
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

/// A line of the text: name, value in TOML (empty when unset), origin.
type Row<'a> = (&'static str, String, &'a Origin);

/// `section.name = value  # origin`, in TOML but for what is unset.
fn as_text(loaded: &Loaded, changed: bool, style: Style) -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let settings = section.settings.iter().map(|setting| (setting, loaded.origin(setting.key)));
        push_table(&mut text, &format!("[{}]", section.name), &rows(settings, loaded, 0, changed), style);
    }
    for table in TABLES {
        for index in 0..table.count(&loaded.config) {
            let rows = rows(in_table(loaded, table, index), loaded, index, changed);
            push_table(&mut text, &format!("[[{}]]", table.name), &rows, style);
        }
    }
    if text.is_empty() { "Every setting has its default.\n".into() } else { text }
}

/// The keys of one of the tables of a name, and where their values came from.
fn in_table<'a>(
    loaded: &'a Loaded,
    table: &'static Table,
    index: usize,
) -> impl Iterator<Item = (&'static Setting, &'a Origin)> {
    table.keys.iter().map(move |key| (key, loaded.origin(&tables::key_of(table.name, index, key.name))))
}

fn rows<'a>(
    settings: impl Iterator<Item = (&'static Setting, &'a Origin)>,
    loaded: &Loaded,
    index: usize,
    changed: bool,
) -> Vec<Row<'a>> {
    settings
        .filter(|(_, origin)| !changed || **origin != Origin::Default)
        .map(|(setting, origin)| {
            let value = match setting.json(&loaded.config, index) {
                Json::Null => String::new(),
                value => ctl_config::reference::toml_text(&value),
            };
            (setting.name, value, origin)
        })
        .collect()
}

fn push_table(text: &mut String, header: &str, rows: &[Row<'_>], style: Style) {
    /// Longer values push their origin further out instead of widening the table for everybody.
    const VALUE_WIDTH_MAX: usize = 44;
    /// A line without a value is a comment, so that the whole can be pasted into quintet.toml.
    const UNSET: &str = "# ";
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "{}{header}{}", style.hint, style.reset);
    let shown = |name: &str, value: &str| name.len() + if value.is_empty() { UNSET.len() } else { 0 };
    let name_width = rows.iter().map(|(name, value, _)| shown(name, value)).max().unwrap_or(0);
    let width =
        rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or(0).min(VALUE_WIDTH_MAX);
    for (name, value, origin) in rows {
        let (comment, value) = if value.is_empty() { (UNSET, "unset") } else { ("", value.as_str()) };
        let quiet = if **origin == Origin::Default { style.quiet } else { "" };
        let name_width = name_width.saturating_sub(comment.len());
        let _ = writeln!(
            text,
            "{quiet}{comment}{name:<name_width$} = {:<width$}  # {origin}{}",
            value, style.reset
        );
    }
    text.push('\n');
}

fn as_json(loaded: &Loaded, changed: bool) -> Json {
    let shown = |origin: &Origin| !changed || *origin != Origin::Default;
    let settings = ctl_config::settings::all().map(|setting| (setting, loaded.origin(setting.key)));
    let settings: Map<_, _> = settings
        .filter(|(_, origin)| shown(origin))
        .map(|(setting, origin)| (setting.key.to_owned(), entry(setting, loaded, 0, origin)))
        .collect();
    let warnings: Vec<_> = loaded.warnings.iter().map(|warning| &warning.message).collect();
    let mut json = json!({ "file": loaded.file, "settings": settings, "warnings": warnings });
    for table in TABLES {
        let one = |index| -> Map<String, Json> {
            in_table(loaded, table, index)
                .filter(|(_, origin)| shown(origin))
                .map(|(key, origin)| (key.name.to_owned(), entry(key, loaded, index, origin)))
                .collect()
        };
        json[table.name] = (0..table.count(&loaded.config)).map(one).collect();
    }
    json
}

fn entry(setting: &Setting, loaded: &Loaded, index: usize, origin: &Origin) -> Json {
    let kind = match origin {
        Origin::Default => "default",
        Origin::File { .. } => "file",
        Origin::Environment(_) => "environment",
        Origin::Flag(_) => "flag",
    };
    json!({
        "value": setting.json(&loaded.config, index),
        "origin": kind,
        "from": origin.to_string(),
        "reload": setting.reload == Reload::Live,
    })
}
