//! docs/reference/settings.md, made from the table.

use std::fmt::Write as _;

use crate::define::{Reload, Section, Setting, plain_doc};
use crate::settings::{SECTIONS, TABLES};
use crate::tables::Table;
use crate::value::Kind;

const HEAD: &str = "\
<!-- Made from crates/ctl-config/src/settings.rs by `make docs`. Do not edit. -->

# Settings

Every setting has a place in `quintet.toml`, a variable of the environment, and can be given on the command line as
`--set SECTION.NAME=VALUE`; the frequent ones have a flag of their own. The stronger source wins: default, then file,
then environment, then command line. `quintet config show` prints the effective values and where each came from.

| kind | how it is written |
|---|---|
| duration | `500ms`, `5s`, `2m`, `1h30m`; a plain number means seconds |
| size | `64KiB` (1024), `64KB` (1000), `1.5GiB`; a plain number means bytes |
| address | `127.0.0.1:8000`, `[::1]:8000`, `:8000` (every interface), `unix:/run/site.sock`, `fd:3`, `systemd` |
| path | relative ones start at the directory of `quintet.toml`; in environment and flags at the current directory |
| list | `[\"a\", \"b\"]` in the file, `a,b` in the environment, the flag repeated on the command line |

An empty variable of the environment counts as not set. Unknown names in the file are refused.

Tables in double brackets may be there several times. They stand in the file only: neither the environment nor flags can set
them.
";

/// The whole page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        push_section(&mut page, section);
    }
    for table in TABLES {
        push_table(&mut page, table);
    }
    page
}

fn push_section(page: &mut String, section: &Section) {
    let _ = write!(page, "\n## [{}]\n\n{}\n", section.name, plain_doc(section.doc));
    for setting in section.settings {
        push_setting(page, setting);
    }
}

fn push_table(page: &mut String, table: &Table) {
    let _ = write!(page, "\n## [[{}]]\n\n{}\n", table.name, plain_doc(table.doc));
    for key in table.keys {
        push_head(page, key);
        push_foot(page, key);
    }
}

fn push_setting(page: &mut String, setting: &Setting) {
    push_head(page, setting);
    let _ = writeln!(page, "| environment | `{}` |", setting.environment_name());
    if let Some((flag, value)) = setting.flag {
        let _ = writeln!(page, "| flag | `--{flag} {}` |", value.replace('|', "\\|"));
    }
    push_foot(page, setting);
}

fn push_head(page: &mut String, setting: &Setting) {
    let _ = write!(page, "\n### {}\n\n{}\n\n", setting.key, plain_doc(setting.doc));
    if let Kind::Choice(choices) = setting.kind {
        for choice in choices {
            let _ = writeln!(page, "- `\"{}\"`: {}", choice.word, plain_doc(choice.doc).replace('\n', " "));
        }
        page.push('\n');
    }
    let _ = writeln!(page, "| | |\n|---|---|");
    let _ = writeln!(page, "| value | {} |", setting.kind.describe());
    let _ = writeln!(page, "| default | {} |", default_text(setting));
    if let Some((least, most, why)) = setting.range {
        let _ = writeln!(page, "| range | {least} to {most}: {why} |");
    }
    if let Some(example) = setting.example {
        let _ = writeln!(page, "| example | `{} = {example}` |", setting.name);
    }
}

fn push_foot(page: &mut String, setting: &Setting) {
    let reload = match setting.reload {
        Reload::Live => "with `quintet reload`",
        Reload::Restart => "when the instance is started again",
    };
    let _ = writeln!(page, "| a change takes effect | {reload} |");
    let _ = writeln!(page, "| since | {} |", setting.since);
}

/// The default, in words where nothing is set.
pub fn default_text(setting: &Setting) -> String {
    let value = match setting.key {
        // Depends on where the command is called; `otherwise` says how.
        "app.dir" => String::new(),
        _ => match setting.default_json() {
            serde_json::Value::Null => String::new(),
            serde_json::Value::Array(items) if items.is_empty() => String::new(),
            serde_json::Value::String(text) if text.is_empty() => String::new(),
            value => format!("`{}`", toml_text(&value)),
        },
    };
    match (value.as_str(), setting.otherwise) {
        ("", None) => "none".into(),
        ("", Some(text)) => text.into(),
        (value, None) => value.into(),
        (value, Some(text)) => format!("{value}: {text}"),
    }
}

/// A value as it stands in `quintet.toml`. JSON's texts, numbers, booleans and lists are TOML too.
pub fn toml_text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_text).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
