//! What is changed on the way: paths, and header fields in both directions.

use serde_json::Value as Json;

use super::access::copied;
use super::file::Directive;
use super::route::{Cx, Part};
use super::upstream::Target;
use super::words::{Kind, has_variable, quoted, template};
use crate::import::draft::Entry;

/// The path that the servers see.
pub(super) fn replaced(to: &Target<'_>, kind: Kind, path: &str) -> Vec<Entry> {
    let from = format!("{}: {}", to.directive.place, to.directive.name);
    let replaced = !to.uri.is_empty() && to.uri != path;
    match kind {
        _ if !replaced => Vec::new(),
        Kind::Prefix | Kind::Firm if path != "/" && path.ends_with('/') && to.uri == "/" => {
            vec![("strip_prefix", path.trim_end_matches('/').into(), from)]
        }
        Kind::Exact => vec![("rewrite", format!("^.*$ => {}", to.uri.replace('$', "$$")).into(), from)],
        _ => vec![(
            "rewrite",
            format!("^{}(.*)$ => {}$1", quoted(path), to.uri.replace('$', "$$")).into(),
            from,
        )],
    }
}

/// `rewrite REGEX REPLACEMENT FLAG` as keys of a route that takes what the expression finds.
pub(super) fn rewritten(cx: &mut Cx<'_>, directive: &Directive) -> Option<Vec<Entry>> {
    let from = format!("{}: rewrite", directive.place);
    let (pattern, to) = (directive.args.first()?, directive.args.get(1)?);
    let flag = directive.args.get(2).map_or("", String::as_str);
    let groups_only = !has_variable(to);
    let (to, no_query) = to.strip_suffix('?').map_or((to.as_str(), false), |to| (to, true));
    let status = match flag {
        "permanent" => 301,
        _ => 302,
    };
    let redirects = matches!(flag, "permanent" | "redirect");
    if to.contains("://") {
        let to = template(to)?;
        let to = if no_query { to } else { format!("{to}{{query}}") };
        return Some(vec![("redirect", to.into(), from.clone()), ("status", status.into(), from)]);
    }
    if !groups_only || !to.starts_with('/') {
        cx.draft
            .not_carried(directive.shown(), "a rewrite knows what its expression has caught, no variables");
        return None;
    }
    let mut entries = vec![("rewrite", format!("{pattern} => {to}").into(), from.clone())];
    if redirects {
        let query = if no_query { "" } else { "{query}" };
        entries.push(("redirect", format!("{{path}}{query}").into(), from.clone()));
        entries.push(("status", status.into(), from));
    }
    Some(entries)
}

/// `add_header`.
pub(super) fn response_headers(cx: &mut Cx<'_>, part: &Part<'_>) -> Vec<Entry> {
    let mut fields: Vec<Json> = Vec::new();
    let mut from = String::new();
    for directive in part.effective(cx, "add_header") {
        let (Some(name), Some(value)) = (directive.args.first(), directive.args.get(1)) else { continue };
        let shown = format!("{}: add_header {name}", directive.place);
        match template(value) {
            _ if value.is_empty() => {}
            _ if is_secret(name) => cx
                .draft
                .not_carried(shown, "its value may be a secret: write it into response_headers yourself"),
            Some(value) => {
                fields.push(format!("+{name}: {value}").into());
                shown.clone_into(&mut from);
            }
            None => cx.draft.not_carried(shown, "it has a variable that there is no placeholder for"),
        }
    }
    if fields.is_empty() { Vec::new() } else { vec![("response_headers", fields.into(), from)] }
}

/// What must not stand in a file that goes into a repository.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "token", "key", "secret", "pass", "cookie"].iter().any(|word| name.contains(word))
}

/// `proxy_set_header`.
pub(super) fn request_headers(cx: &mut Cx<'_>, part: &Part<'_>, passed_on: bool) -> Vec<Entry> {
    let mut fields: Vec<Json> = Vec::new();
    let mut from = String::new();
    let copied = copied(cx, part);
    for directive in part.effective(cx, "proxy_set_header") {
        let (Some(name), Some(value)) = (directive.args.first(), directive.args.get(1)) else { continue };
        // Without the value, which may be a secret between nginx and the app.
        let shown = format!("{}: proxy_set_header {name}", directive.place);
        if super::table::is_told_anyway(name) || copied.iter().any(|field| field.eq_ignore_ascii_case(name)) {
            cx.draft.not_needed(shown, super::table::FORWARDED);
        } else if passed_on && name.eq_ignore_ascii_case("x-real-ip") {
            cx.draft.not_carried(
                shown,
                "servers find the client in X-Forwarded-For and Forwarded, which are always true",
            );
        } else if value.is_empty() {
            fields.push(format!("-{name}").into());
            shown.clone_into(&mut from);
        } else if is_secret(name) && !value.starts_with('$') {
            cx.draft.not_carried(shown, "its value may be a secret: write it into request_headers yourself");
        } else if let Some(value) = template(value) {
            fields.push(format!("{name}: {value}").into());
            shown.clone_into(&mut from);
        } else {
            cx.draft.not_carried(shown, "it has a variable that there is no placeholder for");
        }
    }
    if fields.is_empty() { Vec::new() } else { vec![("request_headers", fields.into(), from)] }
}
