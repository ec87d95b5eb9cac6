//! `limit_req` as `[[limit]]`.

use serde_json::Value as Json;

use super::file::Directive;
use super::route::{Cx, Part};
use crate::import::draft::Entry;

/// The limits that hold for a part.
pub(super) fn limits(cx: &mut Cx<'_>, part: &Part<'_>) -> Vec<Entry> {
    let mut names: Vec<Json> = Vec::new();
    let mut from = String::new();
    for directive in part.effective(cx, "limit_req") {
        if let Some(name) = limit(cx, directive) {
            names.push(name.into());
            from = format!("{}: limit_req", directive.place);
        }
    }
    if names.is_empty() { Vec::new() } else { vec![("limit", names.into(), from)] }
}

fn flag<'a>(directive: &'a Directive, name: &str) -> Option<&'a str> {
    directive.args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
}

/// The name of the `[[limit]]`, which is written when it is new.
fn limit(cx: &mut Cx<'_>, directive: &Directive) -> Option<String> {
    let zone = flag(directive, "zone")?;
    let zones = cx.zones;
    let of_zone = |one: &&Directive| {
        one.name == "limit_req_zone"
            && flag(one, "zone").and_then(|text| text.split(':').next()) == Some(zone)
    };
    let Some(defined) = zones.iter().find(of_zone) else {
        cx.draft.not_carried(directive.shown(), "its limit_req_zone is not in these files");
        return None;
    };
    let key = defined.args.first().map_or("", String::as_str);
    let by = match key.trim_start_matches('$') {
        "binary_remote_addr" | "remote_addr" => vec![Json::from("address")],
        "uri" => vec![Json::from("path")],
        "server_name" | "host" => vec![],
        other => match other.strip_prefix("http_") {
            Some(name) if !other.contains('$') => vec![format!("header:{}", name.replace('_', "-")).into()],
            _ => {
                cx.draft.not_carried(directive.shown(), "counted is by address, user, header, path or route");
                return None;
            }
        },
    };
    let rate = flag(defined, "rate")?;
    let rate = rate
        .strip_suffix("r/s")
        .map(|count| format!("{count}/s"))
        .or_else(|| rate.strip_suffix("r/m").map(|count| format!("{count}/m")))?;
    let burst = flag(directive, "burst").and_then(|burst| burst.parse::<u64>().ok()).unwrap_or(0);
    let at_once = burst == 0 || directive.args.iter().any(|arg| arg == "nodelay");
    let place = format!("{}: limit_req_zone", defined.place);
    let own = format!("{}: limit_req", directive.place);
    let mut entries: Vec<Entry> = vec![
        ("by", by.into(), place.clone()),
        ("rate", rate.into(), place),
        // One, and so many more.
        ("burst", (burst + 1).into(), own.clone()),
    ];
    if !at_once {
        entries.push(("action", "delay".into(), own.clone()));
    }
    let comparable: Vec<_> = entries.iter().map(|(key, value, _)| (*key, value.clone())).collect();
    if let Some((name, _)) =
        cx.written.iter().find(|(name, other)| *other == comparable && same_zone(name, zone))
    {
        return Some(name.clone());
    }
    let name = cx.free_name(zone);
    cx.written.push((name.clone(), comparable));
    entries.insert(0, ("name", name.clone().into(), own));
    cx.draft.table("limit", entries);
    cx.draft.not_needed(
        format!("{}: limit_req zone={zone}", directive.place),
        "refused is with 429 and Retry-After, where nginx says 503",
    );
    Some(name)
}

/// What is counted in two zones is counted twice.
fn same_zone(name: &str, zone: &str) -> bool {
    name.strip_prefix(zone).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
