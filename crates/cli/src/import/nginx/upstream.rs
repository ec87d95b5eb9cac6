//! `proxy_pass` and `upstream`: servers that quintet does not run itself.

use serde_json::Value as Json;

use super::file::Directive;
use super::route::{Cx, Part};
use super::words::has_variable;
use crate::import::draft::Entry;
use crate::import::value::{self, Means};

/// Where a location passes requests to.
pub(super) struct Target<'a> {
    pub(super) directive: &'a Directive,
    pub(super) tls: bool,
    /// A server, or the name of an upstream.
    pub(super) server: &'a str,
    /// What stands in the place of the location's path; empty: the path stays.
    pub(super) uri: &'a str,
}

/// The target of a `proxy_pass` or its like.
pub(super) fn target(location: &Directive) -> Option<Target<'_>> {
    let directive = location.inside().iter().find(|one| super::is_pass(one))?;
    let text = directive.args.first()?;
    if directive.name != "proxy_pass" {
        return Some(Target { directive, tls: false, server: text, uri: "" });
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text.as_str()));
    let (server, uri) = match rest.strip_prefix("unix:") {
        Some(socket) => {
            let (path, uri) = socket.split_once(':').unwrap_or((socket, ""));
            (&rest[..path.len() + "unix:".len()], uri)
        }
        None => rest.split_at(rest.find('/').unwrap_or(rest.len())),
    };
    Some(Target { directive, tls: scheme == "https", server, uri })
}

/// The name of the `[[upstream]]` for a target as this part of the site asks it; written when it is new. `None`: it cannot be; a note
/// says why.
pub(super) fn upstream(cx: &mut Cx<'_>, part: &Part<'_>, target: &Target<'_>) -> Option<String> {
    if target.directive.name != "proxy_pass" || has_variable(target.server) || has_variable(target.uri) {
        let why = "only proxy_pass without variables becomes an [[upstream]]";
        cx.draft.not_carried(target.directive.shown(), why);
        return None;
    }
    let block =
        cx.upstreams.iter().find(|block| block.args.first().is_some_and(|name| name == target.server));
    let mut entries = if let Some(block) = block {
        servers(cx, block, target.tls)?
    } else {
        let from = format!("{}: proxy_pass", target.directive.place);
        vec![("servers", Json::from(vec![address(target.server, target.tls)]), from)]
    };
    entries.extend(asked_so(cx, part, target));
    let comparable =
        |entries: &[Entry]| entries.iter().map(|(key, value, _)| (*key, value.clone())).collect::<Vec<_>>();
    if let Some((name, _)) = cx.written.iter().find(|(_, other)| *other == comparable(&entries)) {
        return Some(name.clone());
    }
    let letter = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    let base: String = target.server.trim_start_matches("unix:").chars().map(letter).collect();
    let base = base.trim_matches('-').to_owned();
    let name = cx.free_name(&base);
    cx.written.push((name.clone(), comparable(&entries)));
    let from = entries.first().map_or_else(String::new, |(_, _, from)| from.clone());
    entries.insert(0, ("name", name.clone().into(), from));
    cx.draft.table("upstream", entries);
    Some(name)
}

/// As `servers` has it.
fn address(server: &str, tls: bool) -> String {
    if server.starts_with("unix:") {
        return server.to_owned();
    }
    let has_port = server.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let port = if has_port {
        ""
    } else if tls {
        ":443"
    } else {
        ":80"
    };
    format!("{}{server}{port}", if tls { "https://" } else { "" })
}

/// The servers of a block, and how one of them is chosen.
fn servers(cx: &mut Cx<'_>, block: &Directive, tls: bool) -> Option<Vec<Entry>> {
    let from = format!("{}: upstream", block.place);
    let mut list: Vec<Json> = Vec::new();
    let mut entries = vec![];
    let mut policy = ("policy", Json::from("round_robin"), from.clone());
    for directive in block.inside() {
        let words: Vec<&str> = directive.args.iter().map(String::as_str).collect();
        let place = format!("{}: {}", directive.place, directive.name);
        match (directive.name.as_str(), words.as_slice()) {
            ("server", [server, flags @ ..]) => {
                if let Some(server) = one_server(cx, directive, &address(server, tls), flags, &mut entries) {
                    list.push(server.into());
                }
            }
            ("least_conn", _) => policy = ("policy", "least_loaded".into(), place),
            ("random", _) => policy = ("policy", "peak_ewma".into(), place),
            ("ip_hash", _) => policy = ("policy", "hash".into(), place),
            ("hash", [key, ..]) => match hash_by(key) {
                Some(by) => {
                    entries.push(("hash_by", by.into(), place.clone()));
                    policy = ("policy", "hash".into(), place);
                }
                None => cx.draft.not_carried(directive.shown(), "by address, path or a header only"),
            },
            ("sticky", ["cookie", name, flags @ ..]) => {
                entries.push(("sticky_cookie", (*name).into(), place.clone()));
                let expires = flags.iter().find_map(|flag| flag.strip_prefix("expires="));
                if let Some(Means::Value(time)) = expires.map(|time| value::nginx_time(&time.into())) {
                    entries.push(("sticky_time", time, place));
                }
            }
            ("keepalive" | "keepalive_requests" | "zone", _) => {
                cx.draft.not_needed(directive.shown(), "connections are kept, and their number is bounded");
            }
            ("keepalive_timeout", _) => push_time(&mut entries, "keep_alive", directive),
            _ => cx.draft.not_carried(directive.shown(), "not of upstreams here"),
        }
    }
    if list.is_empty() {
        cx.draft.not_carried(block.shown(), "no server is left of it");
        return None;
    }
    entries.insert(0, ("servers", Json::from(list), from));
    entries.push(policy);
    Some(entries)
}

/// An item of `servers`; what its flags say of all of them goes to `entries`.
fn one_server(
    cx: &mut Cx<'_>,
    directive: &Directive,
    address: &str,
    flags: &[&str],
    entries: &mut Vec<Entry>,
) -> Option<String> {
    let mut weight = String::new();
    for flag in flags {
        let place = format!("{}: {flag}", directive.place);
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let first = |entries: &[Entry], key: &str| entries.iter().all(|(other, ..)| *other != key);
        match name {
            "weight" if value != "1" => weight = format!(" weight={value}"),
            "down" => {
                cx.draft.not_needed(directive.shown(), "a server that is down is left away");
                return None;
            }
            "backup" => {
                let why = "there are no spare servers: it is left away; all of them share the load, and one that fails rests";
                cx.draft.not_carried(directive.shown(), why);
                return None;
            }
            "max_fails" if value != "0" && first(entries, "eject_after") => {
                entries.push((
                    "eject_after",
                    value.parse::<u64>().map_or_else(|_| value.into(), Json::from),
                    place,
                ));
            }
            "fail_timeout" if value != "0" && first(entries, "eject_time") => {
                if let Means::Value(time) = value::nginx_time(&value.into()) {
                    entries.push(("eject_time", time, place));
                }
            }
            "weight" | "resolve" | "max_fails" | "fail_timeout" => {}
            _ => cx
                .draft
                .not_carried(place, "one for all servers: connections_max and the like of [[upstream]]"),
        }
    }
    Some(format!("{address}{weight}"))
}

fn hash_by(key: &str) -> Option<String> {
    match key.trim_start_matches('$') {
        "remote_addr" | "binary_remote_addr" => Some("address".to_owned()),
        "uri" | "request_uri" => Some("path".to_owned()),
        other => other.strip_prefix("http_").map(|name| format!("header:{}", name.replace('_', "-"))),
    }
}

fn push_time(entries: &mut Vec<Entry>, key: &'static str, directive: &Directive) {
    if let Means::Value(time) = value::nginx_time(&directive.args.join(" ").into()) {
        entries.push((key, time, format!("{}: {}", directive.place, directive.name)));
    }
}

/// What stands in the location, or above it, of how the servers are asked.
fn asked_so(cx: &Cx<'_>, part: &Part<'_>, target: &Target<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let own = |name: &str| part.effective(cx, name).first().copied();
    let host = part
        .effective(cx, "proxy_set_header")
        .into_iter()
        .find(|field| field.args.first().is_some_and(|name| name.eq_ignore_ascii_case("host")));
    // Debian's, which tells the host.
    let parameters = part
        .effective(cx, "include")
        .iter()
        .any(|one| one.args.iter().any(|file| file.ends_with("proxy_params")));
    let usual = if parameters { "$http_host" } else { "$proxy_host" };
    let said = host.and_then(|field| field.args.get(1)).map_or(usual, String::as_str);
    match said {
        "$host" | "$http_host" => {}
        // What stands in proxy_pass.
        "$proxy_host" if !target.server.starts_with("unix:") => {
            entries.push(("host", target.server.into(), format!("{}: proxy_pass", target.directive.place)));
        }
        "$proxy_host" => {
            entries.push(("host", "localhost".into(), format!("{}: proxy_pass", target.directive.place)));
        }
        name => entries.push((
            "host",
            name.into(),
            host.map_or_else(String::new, |field| format!("{}: proxy_set_header Host", field.place)),
        )),
    }
    for (name, key) in [
        ("proxy_connect_timeout", "connect_timeout"),
        ("proxy_read_timeout", "response_timeout"),
        ("proxy_read_timeout", "idle_timeout"),
    ] {
        if let Some(directive) = own(name) {
            push_time(&mut entries, key, directive);
        }
    }
    for name in ["proxy_buffering", "proxy_request_buffering"] {
        if let Some(directive) = own(name).filter(|one| one.args == ["off"])
            && entries.iter().all(|(key, ..)| *key != "buffer")
        {
            entries.push(("buffer", false.into(), format!("{}: {name}", directive.place)));
        }
    }
    for (name, key) in [
        ("proxy_ssl_trusted_certificate", "tls_ca"),
        ("proxy_ssl_certificate", "tls_certificate"),
        ("proxy_ssl_certificate_key", "tls_key"),
        ("proxy_ssl_name", "tls_server_name"),
    ] {
        if let Some((directive, value)) =
            own(name).and_then(|one| Some((one, one.args.first()?))).filter(|_| target.tls)
        {
            entries.push((key, value.as_str().into(), format!("{}: {name}", directive.place)));
        }
    }
    entries
}
