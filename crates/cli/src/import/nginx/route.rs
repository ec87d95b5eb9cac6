//! A part of a server as a `[[route]]`: who answers, what is changed on the way, who may come.
//!
//! What cannot be carried is never open where it was closed: a part behind a check that there is nothing for is answered 403, and the
//! report says so.

use serde_json::Value as Json;

use super::access::{closed, who_may_pass};
use super::change::{replaced, request_headers, response_headers, rewritten};
use super::file::Directive;
use super::folder::files;
use super::limit;
use super::upstream::{self, target};
use super::words::{Kind, has_variable, template};
use crate::import::draft::{Draft, Entry};
use crate::import::value::{self, Means};

/// What all parts share.
pub(super) struct Cx<'a> {
    pub(super) draft: &'a mut Draft,
    /// What stands in `http` and holds for each part that does not say otherwise.
    pub(super) http: &'a [Directive],
    pub(super) upstreams: &'a [Directive],
    pub(super) zones: &'a [Directive],
    /// The server that quintet runs itself, as `proxy_pass` has it.
    pub(super) app: Option<String>,
    /// Upstreams and limits that are written, by their names.
    pub(super) written: Vec<(String, Vec<(&'static str, Json)>)>,
}

impl Cx<'_> {
    /// `base`, or with a number where that is taken.
    pub(super) fn free_name(&self, base: &str) -> String {
        let taken = |name: &str| self.written.iter().any(|(other, _)| other == name);
        // There are not more names than have been written.
        let numbers = 2..self.written.len() + 3;
        let mut names =
            std::iter::once(base.to_owned()).chain(numbers.map(|number| format!("{base}-{number}")));
        names.find(|name| !taken(name)).unwrap_or_default()
    }
}

/// A server, or a location in it.
pub(super) struct Part<'a> {
    pub(super) server: &'a Directive,
    pub(super) location: Option<&'a Directive>,
    /// Of the route; empty: any.
    pub(super) hosts: &'a [String],
    /// Whoever comes over plain HTTP is sent to https.
    pub(super) https: bool,
    /// What nobody else answers is the app's.
    pub(super) main: bool,
}

impl<'a> Part<'a> {
    /// The directives of a name that hold here: those of the innermost block that has some.
    pub(super) fn effective(&self, cx: &Cx<'a>, name: &str) -> Vec<&'a Directive> {
        let levels = [self.location.map_or(&[][..], Directive::inside), self.server.inside(), cx.http];
        let of = |level: &'a [Directive]| level.iter().filter(|one| one.name == name).collect::<Vec<_>>();
        levels.into_iter().map(of).find(|found| !found.is_empty()).unwrap_or_default()
    }

    fn own(&self, name: &str) -> Option<&'a Directive> {
        self.location.unwrap_or(self.server).get(name)
    }

    pub(super) fn at(&self) -> String {
        let block = self.location.unwrap_or(self.server);
        format!("{}: {} {}", block.place, block.name, block.args.join(" ")).trim_end().to_owned()
    }
}

/// A route that has been made.
pub(super) struct Made {
    pub(super) entries: Vec<Entry>,
    /// It says nothing but which requests it takes.
    pub(super) plain: bool,
}

/// What is done with a part, so that nothing of it is left to say.
pub(super) const DONE: [&str; 25] = [
    "proxy_pass",
    "proxy_set_header",
    "add_header",
    "limit_req",
    "limit_req_status",
    "limit_rate",
    "limit_rate_after",
    "auth_basic",
    "auth_basic_user_file",
    "auth_request",
    "auth_request_set",
    "client_max_body_size",
    "gzip",
    "return",
    "rewrite",
    "allow",
    "deny",
    "alias",
    "root",
    "expires",
    "proxy_connect_timeout",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_name",
];

/// The route of a part. `None`: it could not be made; a note says why.
pub(super) fn make(
    cx: &mut Cx<'_>,
    part: &Part<'_>,
    kind: Kind,
    path: &str,
    pattern: Option<String>,
) -> Option<Made> {
    let mut entries: Vec<Entry> = Vec::new();
    if !part.hosts.is_empty() {
        entries.push((
            "host",
            Json::from(part.hosts.to_vec()),
            format!("{}: server_name", part.server.place),
        ));
    }
    if let Some(pattern) = pattern {
        entries.push(("path", pattern.into(), part.at()));
    }
    let conditions = entries.len();
    if let Some(answer) = part.own("return") {
        entries.extend(returned(cx, answer)?);
        entries.extend(response_headers(cx, part));
        return Some(Made { entries, plain: false });
    }
    if let Some(inside) = part.location.and_then(|location| location.get("internal")) {
        let from = format!("{}: internal", inside.place);
        entries.extend([("respond", "".into(), from.clone()), ("status", 404.into(), from)]);
        return Some(Made { entries, plain: false });
    }
    if let Some(check) = closed(cx, part) {
        entries.push(("respond", "".into(), check.clone()));
        entries.push(("status", 403.into(), check));
        return Some(Made { entries, plain: false });
    }
    let breaks =
        |one: &&Directive| one.name == "rewrite" && one.args.get(2).is_some_and(|flag| flag == "break");
    let rewrite = part.location.and_then(|location| location.inside().iter().find(breaks));
    let (action, asks) = action(cx, part, kind, path)?;
    entries.extend(
        action
            .into_iter()
            .filter(|(key, ..)| rewrite.is_none() || !matches!(*key, "rewrite" | "strip_prefix")),
    );
    if let Some(rewrite) = rewrite {
        entries.extend(rewritten(cx, rewrite)?);
    }
    if part.https {
        entries.push(("https", true.into(), part.at()));
    }
    entries.extend(response_headers(cx, part));
    entries.extend(who_may_pass(cx, part));
    entries.extend(limit::limits(cx, part));
    entries.extend(bounds(part, asks));
    if asks {
        let passed_on = entries.iter().any(|(key, ..)| *key == "upstream");
        entries.extend(request_headers(cx, part, passed_on));
    }
    let plain = entries.len() == conditions;
    Some(Made { entries: joined(entries), plain })
}

/// Who answers, and whether that is one who is asked as an app is.
fn action(cx: &mut Cx<'_>, part: &Part<'_>, kind: Kind, path: &str) -> Option<(Vec<Entry>, bool)> {
    let Some(to) = part.location.and_then(target) else {
        let found = files(part, kind, path);
        let nothing = || vec![("respond", "".into(), part.at()), ("status", 404.into(), part.at())];
        return Some(match found {
            Some(found) => (found, false),
            None if part.main => (Vec::new(), true),
            None => (nothing(), false),
        });
    };
    let mut entries = Vec::new();
    if Some(to.server) != cx.app.as_deref() {
        let name = upstream::upstream(cx, part, &to)?;
        entries.push(("upstream", name.into(), format!("{}: {}", to.directive.place, to.directive.name)));
    }
    entries.extend(replaced(&to, kind, path));
    Some((entries, true))
}

/// Lists of the same key as one.
fn joined(entries: Vec<Entry>) -> Vec<Entry> {
    let mut joined: Vec<Entry> = Vec::new();
    for (key, value, from) in entries {
        match (joined.iter_mut().find(|(other, ..)| *other == key), value) {
            (Some((_, Json::Array(items), _)), Json::Array(more)) => items.extend(more),
            (_, value) => joined.push((key, value, from)),
        }
    }
    joined
}

/// `return 301 URL`, `return 404`, `return URL`.
fn returned(cx: &mut Cx<'_>, directive: &Directive) -> Option<Vec<Entry>> {
    let from = format!("{}: return", directive.place);
    let (status, rest) = match directive.args.split_first()? {
        (first, rest) if first.parse::<u64>().is_ok() => (first.parse::<u64>().unwrap_or(500), rest),
        _ => (302, &directive.args[..]),
    };
    let text = rest.join(" ");
    if matches!(status, 301 | 302 | 303 | 307 | 308) && !text.is_empty() {
        let Some(to) = template(&text) else {
            cx.draft.not_carried(
                directive.shown(),
                "redirects know host, path and query of a request, no other variables",
            );
            return None;
        };
        return Some(vec![("redirect", to.into(), from.clone()), ("status", status.into(), from)]);
    }
    if has_variable(&text) {
        cx.draft.not_carried(directive.shown(), "an answer is a text without variables");
        return None;
    }
    // nginx's own number for a connection that is closed without a word.
    let status = if status == 444 { 403 } else { status };
    Some(vec![("respond", text.into(), from.clone()), ("status", status.into(), from)])
}

/// Limits of the location alone.
fn bounds(part: &Part<'_>, asks: bool) -> Vec<Entry> {
    let Some(location) = part.location else { return Vec::new() };
    let mut entries: Vec<Entry> = Vec::new();
    let mut carry = |name: &str, key: &'static str, value: Means| {
        if let (Means::Value(value), Some(directive)) = (value, location.get(name)) {
            entries.push((key, value, format!("{}: {name}", directive.place)));
        }
    };
    let text = |name: &str| location.get(name).map(|one| Json::from(one.args.join(" ")));
    if let Some(size) = text("client_max_body_size").filter(|_| asks) {
        carry("client_max_body_size", "body_max", super::table::body_size(&size));
    }
    for (name, key) in [("limit_rate", "bandwidth"), ("limit_rate_after", "bandwidth_after")] {
        if let Some(size) = text(name) {
            carry(name, key, value::nginx_bytes(&size));
        }
    }
    if let Some(on) = text("gzip").filter(|_| asks) {
        carry("gzip", "compress", value::switch(&on));
    }
    entries
}
