//! `alias` and `root`: a folder as a route, or as Django's own files.

use serde_json::Value as Json;

use super::file::Directive;
use super::route::{Cx, Made, Part};
use super::upstream::target;
use super::words::{Kind, ordered};
use super::{expire, rest};
use crate::import::draft::Entry;
use crate::import::value::{self, Means, join};

/// `alias`, `root`.
pub(super) fn files(part: &Part<'_>, kind: Kind, path: &str) -> Option<Vec<Entry>> {
    let place = |one: &Directive| format!("{}: {}", one.place, one.name);
    let location = part.location.unwrap_or(part.server);
    if part.main && part.location.is_none() {
        return None;
    }
    // Files, or else somebody else: the two are not one route.
    if location.get("try_files").is_some_and(|tries| tries.args.last().is_none_or(|last| last != "=404")) {
        return None;
    }
    let mut entries = match location.get("alias").and_then(|alias| Some((alias, alias.args.first()?))) {
        Some((alias, file)) if kind == Kind::Exact => {
            let (dir, name) = file.rsplit_once('/')?;
            let mut entries = vec![("files", dir.into(), place(alias))];
            if !path.ends_with(&format!("/{name}")) || path.rmatches('/').count() > 1 {
                entries.push((
                    "rewrite",
                    format!("^.*$ => /{}", name.replace('$', "$$")).into(),
                    place(alias),
                ));
            }
            entries
        }
        Some((alias, dir)) => {
            let strip = path.trim_end_matches('/');
            let mut entries = vec![("files", dir.trim_end_matches('/').into(), place(alias))];
            if !strip.is_empty() {
                entries.push(("strip_prefix", strip.into(), part.at()));
            }
            entries
        }
        None => {
            let root = location.get("root").or_else(|| part.server.get("root"))?;
            vec![("files", root.args.first()?.trim_end_matches('/').into(), place(root))]
        }
    };
    if let Some(expires) = location.get("expires")
        && let Some(Means::Value(time)) =
            expires.args.first().map(|time| value::nginx_time(&time.as_str().into()))
        && let Some(time) = time.as_str().and_then(ctl_config::parse_duration)
    {
        let field = format!("Cache-Control: max-age={}", time.as_secs());
        entries.push(("response_headers", Json::from(vec![field]), place(expires)));
    }
    Some(entries)
}

/// Django's files, where nothing but their place is said of them: they need no route.
pub(super) fn as_files(
    cx: &mut Cx<'_>,
    part: &Part<'_>,
    kind: Kind,
    path: &str,
    general: Option<&Made>,
) -> bool {
    let Some(location) = part.location.filter(|location| target(location).is_none()) else { return false };
    let own = |name: &str| location.get(name);
    let dir = match (own("alias"), own("root").or_else(|| part.server.get("root"))) {
        (Some(alias), _) => alias.args.first().map(|dir| join(dir, "")),
        (None, Some(root)) => root.args.first().map(|root| join(root, path)),
        (None, None) => None,
    };
    let Some(dir) = dir.map(|dir| dir.trim_end_matches('/').to_owned()) else { return false };
    let from = format!("{}: location {path}", location.place);
    if own("internal").is_some() && matches!(kind, Kind::Prefix | Kind::Firm) {
        cx.draft.push("files.accel", format!("{}/={dir}", path.trim_end_matches('/')), &from);
        rest(cx.draft, location, &["alias", "root", "internal"]);
        return true;
    }
    let is_open = general.is_some_and(|general| {
        let alike = |key: &str| matches!(key, "host" | "response_headers" | "request_headers" | "https");
        general.entries.iter().all(|(key, ..)| alike(key))
    });
    if !is_open || !is_plain(cx, part, location) || is_asked_later(part, kind, path) {
        return false;
    }
    crate::import::serve_files(
        cx.draft,
        &format!("{}/", path.trim_end_matches('/')),
        &dir,
        &from,
        &location.shown(),
    );
    if let Some(expires) = own("expires") {
        expire(cx.draft, expires);
    }
    for header in location.inside().iter().filter(|one| one.name == "add_header") {
        let why = "files.max_age is what browsers are told of files";
        cx.draft.not_needed(format!("{}: add_header Cache-Control", header.place), why);
    }
    rest(cx.draft, location, &["alias", "root", "expires", "add_header"]);
    true
}

/// It says nothing that a route would be needed for, and there is still room for it.
fn is_plain(cx: &Cx<'_>, part: &Part<'_>, location: &Directive) -> bool {
    const SAID: [&str; 7] =
        ["alias", "root", "expires", "access_log", "log_not_found", "gzip", "gzip_static"];
    let caches = |one: &Directive| {
        one.name == "add_header"
            && one.args.first().is_some_and(|name| name.eq_ignore_ascii_case("cache-control"))
    };
    let checks = ["auth_basic", "auth_request", "limit_req", "allow", "deny"];
    let path = location.args.last().map_or("", String::as_str);
    let media = path.contains("media") || path.contains("upload");
    let place = if media || cx.draft.get("files.static_url").is_some() {
        "files.media_url"
    } else {
        "files.static_url"
    };
    location.inside().iter().all(|one| SAID.contains(&one.name.as_str()) || caches(one))
        && checks.iter().all(|name| part.effective(cx, name).is_empty())
        && cx.draft.get(place).is_none()
}

/// Files are looked for when no route has taken a request: another location would come before this one.
fn is_asked_later(part: &Part<'_>, kind: Kind, path: &str) -> bool {
    ordered(part.server).iter().any(|(_, other, own)| match (kind, other) {
        (Kind::Prefix, Kind::Regex { .. }) | (_, Kind::Exact | Kind::Named) => false,
        (Kind::Prefix | Kind::Firm, Kind::Prefix | Kind::Firm) => *own != path && path.starts_with(own),
        _ => true,
    })
}
