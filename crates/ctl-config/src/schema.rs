//! The JSON Schema of `quintet.toml`, for editors.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use crate::define::{Setting, plain_doc};
use crate::reference::default_text;
use crate::settings::{SECTIONS, TABLES};
use crate::value::Kind;

/// JSON Schema, draft 2020-12.
pub fn json_schema() -> Json {
    let mut sections: Map<String, Json> = SECTIONS
        .iter()
        .map(|section| {
            let mut schema = of_table(section.settings);
            schema["description"] = plain_doc(section.doc).into();
            (section.name.to_owned(), schema)
        })
        .collect();
    for table in TABLES {
        let mut one = of_table(table.keys);
        one["required"] = table.required.iter().map(|required| required.key).collect();
        let schema = json!({
            "type": "array",
            "description": plain_doc(table.doc),
            "items": one,
            "maxItems": table.count_max.0,
        });
        sections.insert(table.name.to_owned(), schema);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "quintet.toml",
        "description": "The configuration of quintet.",
        "type": "object",
        "additionalProperties": false,
        "properties": sections,
    })
}

fn of_table(settings: &[Setting]) -> Json {
    let settings: Map<String, Json> =
        settings.iter().map(|setting| (setting.name.to_owned(), of_setting(setting))).collect();
    json!({"type": "object", "additionalProperties": false, "properties": settings})
}

fn of_setting(setting: &Setting) -> Json {
    let mut description = plain_doc(setting.doc).replace('\n', " ");
    if setting.otherwise.is_some() {
        let _ = write!(description, " Default: {}.", default_text(setting));
    }
    let mut schema = Map::from_iter([("description".to_owned(), Json::from(description))]);
    if let Json::Object(kind) = of_kind(setting.kind) {
        schema.extend(kind);
    }
    if let (Kind::Count | Kind::Optional(Kind::Count), Some((least, most, _))) = (setting.kind, setting.range)
    {
        let bounds = json!({"minimum": least.parse::<u64>().ok(), "maximum": most.parse::<u64>().ok()});
        if let Json::Object(bounds) = bounds {
            schema.extend(bounds);
        }
    }
    match setting.default_json() {
        Json::Null => {}
        _ if setting.key == "app.dir" => {}
        default => {
            schema.insert("default".to_owned(), default);
        }
    }
    Json::Object(schema)
}

fn of_kind(kind: Kind) -> Json {
    match kind {
        Kind::Text | Kind::Path => json!({"type": "string"}),
        Kind::Switch => json!({"type": "boolean"}),
        Kind::Count => json!({"type": "integer"}),
        Kind::Size => json!({
            "type": ["string", "integer"],
            "pattern": r"^[0-9]+(\.[0-9]+)? ?([KMGTkmgt][Ii]?)?[Bb]?$",
            "minimum": 0,
        }),
        Kind::Duration => json!({
            "type": ["string", "number"],
            "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$|^[0-9]+(\.[0-9]+)?$",
            "minimum": 0,
        }),
        Kind::Address => json!({"type": ["string", "integer"]}),
        Kind::Choice(choices) => {
            json!({"enum": choices.iter().map(|choice| choice.word).collect::<Vec<_>>()})
        }
        // One alone may stand without brackets.
        Kind::List(inner) => {
            json!({"anyOf": [of_kind(*inner), {"type": "array", "items": of_kind(*inner)}]})
        }
        Kind::Optional(Kind::Count) => json!({"anyOf": [{"type": "integer"}, {"const": "auto"}]}),
        Kind::Optional(inner) => of_kind(*inner),
    }
}
