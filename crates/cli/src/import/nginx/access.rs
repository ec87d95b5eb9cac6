//! Who may pass a part of a site: `auth_basic`, `auth_request`, `allow` and `deny`.
//!
//! What there is nothing for is closed: a page behind a check must not become public by an import.

use serde_json::Value as Json;

use super::file::Directive;
use super::route::{Cx, Part};
use super::upstream::{self, target};
use super::words::has_variable;
use crate::import::draft::Entry;

/// Why nobody gets in: `deny all`, or checks that there is nothing for.
pub(super) fn closed(cx: &mut Cx<'_>, part: &Part<'_>) -> Option<String> {
    const CHECKS: [&str; 6] =
        ["satisfy", "valid_referers", "secure_link", "auth_jwt", "limit_except", "auth_delay"];
    let place = |directive: &Directive| format!("{}: {}", directive.place, directive.name);
    let rules = |name: &str| part.effective(cx, name);
    let (allow, deny) = (rules("allow"), rules("deny"));
    if let Some(denied) = deny.iter().find(|rule| rule.args == ["all"]) {
        if !allow.is_empty() {
            let addresses: Vec<_> =
                allow.iter().flat_map(|rule| rule.args.iter().map(String::as_str)).collect();
            let why = format!(
                "routes do not tell addresses apart: nobody is let in, until {} are told by basic_auth or forward_auth",
                addresses.join(", ")
            );
            cx.draft.not_carried(denied.shown(), why);
        }
        return Some(place(denied));
    }
    if !deny.is_empty() {
        let why = "write these addresses into a file, and name it in bans.deny_file: they are shut out of the whole site";
        for rule in deny {
            cx.draft.not_carried(rule.shown(), why);
        }
    }
    if let Some(asks) = part.effective(cx, "auth_basic").first().filter(|one| one.args != ["off"]) {
        let file = part.effective(cx, "auth_basic_user_file").first().and_then(|one| one.args.first());
        if file.is_none_or(|file| has_variable(file)) {
            cx.draft.not_carried(
                asks.shown(),
                "no file says who may pass, so nobody is let in: name it in basic_auth",
            );
            return Some(place(asks));
        }
    }
    // What an `if` says of an app the app can say itself; of files nobody would.
    let serves = part.location.is_some_and(|location| target(location).is_none());
    let checks = |one: &&Directive| CHECKS.contains(&one.name.as_str()) || (serves && one.name == "if");
    let check = part.location?.inside().iter().find(checks)?;
    cx.draft.not_carried(
        check.shown(),
        "there is no such check: nobody is let in, until basic_auth or forward_auth says who may pass",
    );
    Some(place(check))
}

/// `auth_basic`, `auth_request`.
pub(super) fn who_may_pass(cx: &mut Cx<'_>, part: &Part<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let first = |cx: &Cx<'_>, name: &str| part.effective(cx, name).first().map(|one| Directive::clone(one));
    let asks = first(cx, "auth_basic").is_some_and(|one| one.args != ["off"]);
    if let Some(file) = first(cx, "auth_basic_user_file").filter(|_| asks)
        && let Some(path) = file.args.first()
    {
        entries.push(("basic_auth", path.as_str().into(), format!("{}: auth_basic_user_file", file.place)));
        cx.draft.not_needed(file.shown(), "the hashes of its passwords must be bcrypt's: htpasswd -B");
    }
    if let Some(request) = first(cx, "auth_request").filter(|one| one.args != ["off"])
        && let Some(uri) = request.args.first()
    {
        let from = format!("{}: auth_request", request.place);
        let asked =
            part.server.inside().iter().find(|one| one.name == "location" && one.args.last() == Some(uri));
        let whom = match asked.and_then(|location| Some((location, target(location)?))) {
            Some((location, to)) if Some(to.server) != cx.app.as_deref() => {
                let inner = Part {
                    server: part.server,
                    location: Some(location),
                    hosts: &[],
                    https: false,
                    main: false,
                };
                let path = if to.uri.is_empty() { uri } else { to.uri };
                upstream::upstream(cx, &inner, &to).map(|name| format!("{name} {path}"))
            }
            Some((_, to)) if !to.uri.is_empty() => Some(to.uri.to_owned()),
            _ => Some(uri.clone()),
        };
        if let Some(whom) = whom {
            entries.push(("forward_auth", whom.into(), from.clone()));
            let copied: Vec<Json> = copied(cx, part).into_iter().map(Json::from).collect();
            if !copied.is_empty() {
                entries.push(("forward_auth_headers", copied.into(), from));
            }
        }
    }
    entries
}

/// Fields that `auth_request_set` takes from the answer and `proxy_set_header` puts onto the request under the same name.
pub(super) fn copied(cx: &Cx<'_>, part: &Part<'_>) -> Vec<String> {
    let mut names = Vec::new();
    let fields = part.effective(cx, "proxy_set_header");
    for set in part.effective(cx, "auth_request_set") {
        let (Some(variable), Some(value)) = (set.args.first(), set.args.get(1)) else { continue };
        let Some(field) = value.strip_prefix("$upstream_http_").map(|name| name.replace('_', "-")) else {
            continue;
        };
        let put =
            fields.iter().find(|one| one.args.get(1) == Some(variable)).and_then(|one| one.args.first());
        names.extend(put.filter(|name| name.eq_ignore_ascii_case(&field)).cloned());
    }
    names
}
