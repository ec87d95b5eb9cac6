//! `quintet config show` and `quintet config schema`.

use std::fmt::Write as _;

use clap::ArgMatches;
use ctl_config::{Loaded, Origin, Reload, Setting, Style, WorkerPool, pool, schema};
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
    for section in ctl_config::SECTIONS {
        let origin = |setting: &Setting| loaded.origin(setting.key);
        let rows = rows(section.settings, &loaded.config, changed, origin);
        push_table(&mut text, &format!("[{}]", section.name), &rows, style);
    }
    for (index, pool) in loaded.config.worker_pool.iter().enumerate() {
        let origin = |key: &Setting<WorkerPool>| loaded.origin(&pool::key_of(index, key.name));
        push_table(
            &mut text,
            &format!("[[{}]]", pool::TABLE),
            &rows(pool::KEYS, pool, changed, origin),
            style,
        );
    }
    if text.is_empty() { "Every setting has its default.\n".into() } else { text }
}

fn rows<'a, Of>(
    settings: &'static [Setting<Of>],
    values: &Of,
    changed: bool,
    origin: impl Fn(&Setting<Of>) -> &'a Origin,
) -> Vec<Row<'a>> {
    settings
        .iter()
        .map(|setting| (setting, origin(setting)))
        .filter(|(_, origin)| !changed || **origin != Origin::Default)
        .map(|(setting, origin)| {
            let value = match setting.json(values) {
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
    let mut settings = Map::new();
    for setting in ctl_config::settings::all() {
        let origin = loaded.origin(setting.key);
        if !changed || *origin != Origin::Default {
            settings.insert(setting.key.to_owned(), entry(setting, &loaded.config, origin));
        }
    }
    let mut pools = Vec::new();
    for (index, pool) in loaded.config.worker_pool.iter().enumerate() {
        let keys = pool::KEYS.iter().map(|key| (key, loaded.origin(&pool::key_of(index, key.name))));
        let keys: Map<_, _> = keys
            .filter(|(_, origin)| !changed || **origin != Origin::Default)
            .map(|(key, origin)| (key.name.to_owned(), entry(key, pool, origin)))
            .collect();
        pools.push(keys);
    }
    let warnings: Vec<_> = loaded.warnings.iter().map(|warning| &warning.message).collect();
    json!({ "file": loaded.file, "settings": settings, pool::TABLE: pools, "warnings": warnings })
}

fn entry<Of>(setting: &Setting<Of>, values: &Of, origin: &Origin) -> Json {
    let kind = match origin {
        Origin::Default => "default",
        Origin::File { .. } => "file",
        Origin::Environment(_) => "environment",
        Origin::Flag(_) => "flag",
    };
    json!({
        "value": setting.json(values),
        "origin": kind,
        "from": origin.to_string(),
        "reload": setting.reload == Reload::Live,
    })
}
