//! Routes that stand for no location of their own: rewrites, a slash that is missing, what an expression spares, and what nobody can
//! answer yet.

use serde_json::Value as Json;

use super::change::rewritten;
use super::file::Directive;
use super::route::{Cx, Made, Part, make};
use super::words::{Kind, ordered};
use crate::import::draft::Entry;

/// What could not be carried must not fall to somebody else: a script's source to the files around it, a page to who does not ask for a
/// password.
pub(super) fn nobody(part: &Part<'_>, pattern: Option<String>) -> Made {
    let block = part.location.unwrap_or(part.server);
    let from = format!("{}: {}", block.place, block.name);
    let host = (!part.hosts.is_empty()).then(|| ("host", Json::from(part.hosts.to_vec()), from.clone()));
    let path = pattern.map(|pattern| ("path", Json::from(pattern), from.clone()));
    let mut entries: Vec<Entry> = host.into_iter().chain(path).collect();
    entries.extend([("respond", "".into(), from.clone()), ("status", 503.into(), from)]);
    Made { entries, plain: false }
}

/// `location ~ /\.(?!well-known) { deny all; }` stands in every other nginx.conf, and our expressions do not look around: what is
/// spared becomes a route of its own.
pub(super) fn without_look_around(pattern: Option<String>) -> (Option<String>, Option<String>) {
    /// Nothing hidden below it is spared.
    const SPARED: &str = r"~^/\.well-known(/[^./][^/]*)*/?$";
    match pattern.as_deref().map(|pattern| pattern.trim_end_matches(".*")) {
        Some(r"~/\.(?!well-known)" | r"~/\.(?!well-known\/)" | r"~/\.(?!well-known/)") => {
            (Some(r"~/\.".to_owned()), Some(SPARED.to_owned()))
        }
        _ => (pattern, None),
    }
}

/// The same as the general route, for a path.
pub(super) fn with_path(general: &Made, path: &str, location: &Directive) -> Vec<Entry> {
    let at = general.entries.iter().take_while(|(key, ..)| *key == "host").count();
    let mut entries = general.entries.clone();
    entries.insert(at, ("path", path.into(), format!("{}: location", location.place)));
    entries
}

/// nginx sends who leaves the last slash of a prefix away to the path with it, where requests are passed on.
pub(super) fn with_slashes(routes: Vec<(Kind, String, Made)>, hosts: &[String]) -> Vec<(Kind, String, Made)> {
    let mut slashes = Vec::new();
    for (kind, path, made) in &routes {
        let bare = path.trim_end_matches('/');
        let passed = made.entries.iter().find(|(key, ..)| *key == "upstream");
        let known = routes.iter().any(|(_, other, _)| other == bare);
        if let (Kind::Prefix | Kind::Firm, Some((_, _, from)), false) =
            (kind, passed, known || bare.len() == path.len() || bare.is_empty())
        {
            let host = (!hosts.is_empty()).then(|| ("host", Json::from(hosts.to_vec()), from.clone()));
            let mut entries: Vec<Entry> = host.into_iter().collect();
            entries.push(("path", bare.into(), from.clone()));
            entries.push(("redirect", format!("{bare}/{{query}}").into(), from.clone()));
            entries.push(("status", 301.into(), from.clone()));
            slashes.push((Kind::Exact, bare.to_owned(), Made { entries, plain: false }));
        }
    }
    slashes.extend(routes);
    slashes
}

/// `rewrite` with a redirect, or to another location: requests that its expression finds are a route of their own.
pub(super) fn rewrites(cx: &mut Cx<'_>, part: &Part<'_>, routes: &mut Vec<(Kind, String, Made)>) {
    let block = part.location.unwrap_or(part.server);
    for directive in block.inside().iter().filter(|one| one.name == "rewrite") {
        let [expression, to, flags @ ..] = directive.args.as_slice() else { continue };
        let flag = flags.first().map_or("", String::as_str);
        if flag == "break" && part.location.is_some() {
            continue;
        }
        let path = part.location.and_then(|location| location.args.last()).map_or("", String::as_str);
        if expression != path && !expression.starts_with(&format!("^{path}")) {
            let why = format!("its expression must begin with ^{path} to be a route of its own");
            cx.draft.not_carried(directive.shown(), why);
            continue;
        }
        let Some(mut entries) = rewritten(cx, directive) else { continue };
        if !entries.iter().any(|(key, ..)| *key == "redirect") {
            let literal = to.split('$').next().unwrap_or_default();
            let Some(mut action) = landing(cx, part, literal) else {
                let why = "it leads to a location with changes of its own, and routes are looked at once";
                cx.draft.not_carried(directive.shown(), why);
                continue;
            };
            let stripped =
                action.iter().position(|(key, ..)| *key == "strip_prefix").map(|at| action.remove(at).1);
            if let Some(shorter) = stripped.and_then(|prefix| to.strip_prefix(prefix.as_str()?)) {
                entries.iter_mut().filter(|(key, ..)| *key == "rewrite").for_each(|entry| {
                    entry.1 = format!("{expression} => {shorter}").into();
                });
            }
            entries.extend(action);
        }
        let from = format!("{}: rewrite", directive.place);
        entries.insert(0, ("path", format!("~{expression}").into(), from.clone()));
        if !part.hosts.is_empty() {
            entries.insert(0, ("host", Json::from(part.hosts.to_vec()), from));
        }
        routes.push((
            Kind::Regex { any_case: false },
            format!("~{expression}"),
            Made { entries, plain: false },
        ));
    }
}

/// Who answers a path that was rewritten; `None`: it takes more than an action.
fn landing(cx: &mut Cx<'_>, part: &Part<'_>, path: &str) -> Option<Vec<Entry>> {
    let found = ordered(part.server).into_iter().find(|(_, kind, own)| match kind {
        Kind::Exact => *own == path,
        Kind::Prefix | Kind::Firm => path.starts_with(own),
        Kind::Regex { .. } | Kind::Named => false,
    });
    let general = part
        .server
        .inside()
        .iter()
        .find(|one| one.name == "location" && one.args.last().is_some_and(|path| path == "/"));
    let (location, kind, own) = match found {
        Some((location, kind, own)) => (Some(location), kind, own),
        None => (general, Kind::Prefix, "/"),
    };
    let inner = Part { server: part.server, location, hosts: &[], https: part.https, main: part.main };
    let made = make(cx, &inner, kind, own, None)?;
    let changes = |key: &str| matches!(key, "rewrite" | "redirect" | "respond");
    (!made.entries.iter().any(|(key, ..)| changes(key))).then_some(made.entries)
}
