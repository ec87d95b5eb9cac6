//! nginx.conf: the server that passes to the app, its files, its limits; the rest by name.

mod file;
mod table;

use std::path::Path;

use serde_json::Value as Json;

use super::draft::Draft;
use super::row::{Becomes, Given, Options, apply, find};
use super::value::{self, Means, plain};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use file::Directive;
pub(super) use table::ROWS;

const PASSES: [&str; 6] =
    ["proxy_pass", "uwsgi_pass", "fastcgi_pass", "scgi_pass", "grpc_pass", "memcached_pass"];

/// The whole file, and what it includes.
pub(super) fn import(name: &str, text: &str, dir: &Path) -> Result<Draft> {
    let directives = file::parse(text, dir).map_err(|why| {
        Failure::new(Exit::Usage, format!("{name} is not in the form of nginx"))
            .detail(why)
            .hint("nginx -t tells more")
    })?;
    let mut draft = Draft::new(name);
    let mut servers = Vec::new();
    outside(&mut draft, &directives, &mut servers);
    let main = servers
        .iter()
        .position(passes)
        .or_else(|| servers.iter().position(serves))
        .or((!servers.is_empty()).then_some(0));
    for (index, server) in servers.iter().enumerate() {
        if Some(index) == main {
            of_server(&mut draft, server);
        } else {
            other_server(&mut draft, server);
        }
    }
    Ok(draft)
}

/// main, events and http; servers are put aside.
fn outside(draft: &mut Draft, directives: &[Directive], servers: &mut Vec<Directive>) {
    for directive in directives {
        match directive.name.as_str() {
            "http" | "events" => outside(draft, directive.inside(), servers),
            "server" if directive.block.is_some() => servers.push(directive.clone()),
            "upstream" => upstream(draft, directive),
            _ => one(draft, directive),
        }
    }
}

/// Several servers on this machine are workers here; on other machines, something has to choose among them.
fn upstream(draft: &mut Draft, directive: &Directive) {
    let is_elsewhere = |server: &&Directive| {
        let address = server.args.first().map_or("", String::as_str);
        !["unix:", "127.", "localhost", "[::1]"].iter().any(|here| address.starts_with(here))
    };
    let servers = directive.inside().iter().filter(|one| one.name == "server");
    match servers.filter(is_elsewhere).count() {
        0 | 1 => one(draft, directive),
        count => draft.not_carried(
            directive.shown(),
            format!(
                "{count} servers on other machines: keep a load balancer, and run quintet on each of them"
            ),
        ),
    }
}

/// What the table says about a directive.
fn one(draft: &mut Draft, directive: &Directive) {
    /// What follows the first word of these may be a secret between nginx and the app.
    const SHOW_ONE: [&str; 7] = [
        "set",
        "if",
        "add_header",
        "more_set_headers",
        "secure_link_md5",
        "secure_link_secret",
        "sub_filter",
    ];
    // What is looked at with its block was so, unless it stands where it means something else.
    let elsewhere = match directive.name.as_str() {
        "root" | "alias" => "files are served below a prefix (static, media) only",
        "expires" => "files.max_age is told to browsers for files; of pages the app decides",
        "internal" => "only the app sends such files (files.accel)",
        "location" => "a location inside another one is not read, so nothing of it holds",
        _ => "",
    };
    if !elsewhere.is_empty() {
        return draft.not_carried(directive.shown(), elsewhere);
    }
    let from = format!("{}: {}", directive.place, directive.name);
    let shown = if SHOW_ONE.contains(&directive.name.as_str()) { 1 } else { directive.args.len() };
    let value = directive.args[..shown.min(directive.args.len())].join(" ").into();
    let given = Given { name: directive.name.clone(), value, from };
    apply(draft, table::ROWS, &Options(vec![given]), "nginx");
}

fn is_pass(directive: &Directive) -> bool {
    PASSES.contains(&directive.name.as_str())
}

/// Where a location passes requests to: a server or upstream, and the path that replaces its own.
fn target(location: &Directive) -> Option<(&str, &str)> {
    let text = location.inside().iter().find(|one| is_pass(one))?.args.first()?;
    let rest = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
    if let Some(socket) = rest.strip_prefix("unix:") {
        return Some(socket.split_once(':').unwrap_or((socket, "")));
    }
    let at = rest.find('/').unwrap_or(rest.len());
    Some(rest.split_at(at))
}

fn passes(server: &Directive) -> bool {
    server.inside().iter().any(|directive| is_pass(directive) || passes(directive))
}

fn serves(server: &Directive) -> bool {
    server.inside().iter().any(|directive| directive.name == "location")
}

fn other_server(draft: &mut Draft, server: &Directive) {
    let names =
        server.get("server_name").map_or_else(String::new, |names| format!(" {}", names.args.join(" ")));
    let shown = format!("{}: server{names}", server.place);
    let answers: Vec<&Directive> = server
        .inside()
        .iter()
        .chain(server.inside().iter().flat_map(Directive::inside))
        .filter(|one| matches!(one.name.as_str(), "return" | "rewrite"))
        .collect();
    let refuses = |one: &&&Directive| one.args.first().is_some_and(|code| code.starts_with('4'));
    let why = match answers.iter().find(refuses) {
        _ if answers.is_empty() || passes(server) => {
            "another site: an instance of its own, or keep this server in nginx"
        }
        Some(_) => {
            "it turns others away: Django's ALLOWED_HOSTS answers 400 to names that are not the site's"
        }
        None => {
            "a redirect: Django's SECURE_SSL_REDIRECT behind a load balancer, or keep this server in nginx"
        }
    };
    draft.not_carried(shown, why);
}

fn of_server(draft: &mut Draft, server: &Directive) {
    let secure =
        server.inside().iter().any(|one| one.name == "listen" && one.args.iter().any(|arg| arg == "ssl"));
    for directive in server.inside() {
        match directive.name.as_str() {
            "listen" => listen(draft, directive, secure),
            "location" => {}
            _ => one(draft, directive),
        }
    }
    let locations: Vec<_> = server.inside().iter().filter(|one| one.name == "location").collect();
    // The general one first: what others say about their part is measured by it.
    let (general, special): (Vec<_>, Vec<_>) =
        locations.into_iter().partition(|location| is_general(location));
    let app = general.iter().chain(&special).find_map(|location| target(location)).map(|(to, _)| to);
    for location in general {
        for directive in location.inside() {
            one(draft, directive);
        }
    }
    for location in special {
        match target(location) {
            Some((to, _)) if Some(to) != app => {
                let why = "it goes to another program than the rest: keep a proxy before both";
                draft.not_carried(format!("{}, passed to {to}", location.shown()), why);
            }
            _ => of_location(draft, server, location),
        }
    }
}

/// `/` and named locations (`@app`).
fn is_general(location: &Directive) -> bool {
    matches!(location.args.as_slice(), [path] if path == "/" || path.starts_with('@'))
}

fn listen(draft: &mut Draft, directive: &Directive, secure: bool) {
    let Some((address, flags)) = directive.args.split_first() else { return };
    let has = |flag: &str| flags.iter().any(|arg| arg == flag);
    if has("quic") {
        return draft.not_carried(directive.shown(), "HTTP/3 is not spoken yet");
    }
    if secure && !has("ssl") {
        let why = "with tls.certificate every TCP address speaks TLS: redirect from HTTP before quintet";
        return draft.not_carried(directive.shown(), why);
    }
    let address = if address.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("0.0.0.0:{address}")
    } else if address.starts_with("unix:")
        || address.rsplit(']').next().is_some_and(|rest| rest.contains(':'))
    {
        address.clone()
    } else {
        // An address without a port listens on port 80.
        format!("{address}:80")
    };
    let from = format!("{}: listen", directive.place);
    draft.push("server.bind", address, &from);
    if has("proxy_protocol") {
        draft.set("proxy.protocol", true, from.clone());
    }
    if let Some(backlog) = flags.iter().find_map(|flag| flag.strip_prefix("backlog=")) {
        let given = Given { name: "listen".into(), value: backlog.into(), from };
        super::row::set(draft, "server.backlog", value::count, &given);
    }
}

/// A part of the site: files, files that the app sends, or paths with limits of their own.
fn of_location(draft: &mut Draft, server: &Directive, location: &Directive) {
    let shown = location.shown();
    let (modifier, path) = match location.args.as_slice() {
        [path] => ("", path.as_str()),
        [modifier, path] => (modifier.as_str(), path.as_str()),
        _ => return draft.not_carried(shown, "it names no path"),
    };
    if modifier.starts_with('~') {
        return draft.not_carried(shown, "regular expressions are not read: patterns are paths with *");
    }
    let passes_on = location.inside().iter().any(is_pass);
    let own = |name: &str| location.get(name);
    let dir = match (own("alias"), own("root").or_else(|| server.get("root"))) {
        (Some(alias), _) => alias.args.first().map(|dir| value::join(dir, "")),
        (None, Some(root)) => root.args.first().map(|root| value::join(root, path)),
        (None, None) => None,
    };
    match dir.map(|dir| dir.trim_end_matches('/').to_owned()) {
        _ if passes_on => app_location(draft, location, modifier, path),
        Some(dir) if own("internal").is_some() => {
            let from = format!("{}: location {path}", location.place);
            draft.push("files.accel", format!("{}/={dir}", path.trim_end_matches('/')), &from);
            rest(draft, location, &["alias", "root", "internal"]);
        }
        Some(_) if modifier == "=" => {
            draft.not_carried(shown, "one file: put it among the static files, or let the app answer it");
        }
        Some(_) if guarded(location) => {
            let why =
                "files behind a check: let the app check, and send them by X-Accel-Redirect (files.accel)";
            draft.not_carried(shown, why);
        }
        Some(dir) => {
            let url = format!("{}/", path.trim_end_matches('/'));
            let from = format!("{}: location {path}", location.place);
            super::serve_files(draft, &url, &dir, &from, &shown);
            if let Some(expires) = own("expires") {
                expire(draft, expires);
            }
            rest(draft, location, &["alias", "root", "expires"]);
        }
        None if location.inside().iter().all(|one| one.name == "return") => {
            draft.not_carried(shown, "the app answers it, or a proxy before quintet");
        }
        None => rest(draft, location, &[]),
    }
}

/// Not everybody may fetch what is there: such files must not become public.
fn guarded(location: &Directive) -> bool {
    let guards = |name: &str| {
        ["auth_", "secure_link", "limit_except"].iter().any(|prefix| name.starts_with(prefix))
            || matches!(name, "allow" | "deny" | "satisfy" | "if" | "return" | "valid_referers")
    };
    location.inside().iter().any(|directive| guards(&directive.name))
}

/// Directives of a location that hold for all paths here.
fn rest(draft: &mut Draft, location: &Directive, done: &[&str]) {
    let at = location.args.last().map_or("", String::as_str);
    for directive in location.inside().iter().filter(|one| !done.contains(&one.name.as_str())) {
        match find(table::ROWS, &directive.name).map(|row| row.becomes) {
            Some(Becomes::Set(..)) => draft.not_carried(
                directive.shown(),
                format!("for {at} alone; in quintet the setting holds for all paths"),
            ),
            _ => one(draft, directive),
        }
    }
}

/// A location that the app answers: slow ones are a pool of their own.
fn app_location(draft: &mut Draft, location: &Directive, modifier: &str, path: &str) {
    if let Some((_, own)) = target(location).filter(|(_, own)| !own.is_empty() && *own != path) {
        let why =
            format!("the app sees {own} in the place of {path} there, here it sees the path as it was sent");
        draft.not_carried(location.shown(), why);
    }
    let is_upgrade = |one: &&Directive| {
        one.name == "proxy_set_header"
            && one.args.first().is_some_and(|name| name.eq_ignore_ascii_case("upgrade"))
    };
    let websockets = location.inside().iter().any(|one| is_upgrade(&one));
    let pattern = if modifier == "=" { path.to_owned() } else { format!("{path}*") };
    let mut done: Vec<&str> = PASSES.to_vec();
    for name in ["proxy_read_timeout", "uwsgi_read_timeout"] {
        let Some(directive) = location.get(name) else { continue };
        done.push(name);
        if websockets {
            draft.not_needed(
                directive.shown(),
                "WebSockets stay as long as both sides answer (websocket.ping_interval)",
            );
            continue;
        }
        let from = format!("{}: {name}", directive.place);
        let Means::Value(time) = value::nginx_time(&directive.args.join(" ").into()) else {
            draft.not_carried(directive.shown(), "not a time");
            continue;
        };
        if draft.get("timeouts.app").is_none_or(|general| *general != time) {
            draft.pool(vec![
                ("match", Json::from(pattern.clone()), format!("{}: location {path}", location.place)),
                ("app_timeout", time, from),
            ]);
        }
    }
    for name in ["proxy_request_buffering", "uwsgi_request_buffering"] {
        if let Some(directive) = location.get(name).filter(|one| one.args == ["off"]) {
            done.push(name);
            draft.push("buffers.request_stream", path, &format!("{}: {name}", directive.place));
        }
    }
    rest(draft, location, &done);
}

/// `30d`, `max`, `off`, `epoch`, `-1`.
fn expire(draft: &mut Draft, directive: &Directive) {
    let from = format!("{}: expires", directive.place);
    let before = draft.get("files.max_age").cloned();
    match directive.args.first().map(String::as_str) {
        Some("max") => draft.set("files.max_age", "365d", from),
        Some("off") => draft.not_needed(directive.shown(), "files.max_age is what browsers are told"),
        Some("epoch" | "-1") => draft.set("files.max_age", "0s", from),
        Some(time) => match value::nginx_time(&time.into()) {
            Means::Value(time) => draft.set("files.max_age", plain(&time), from),
            _ => draft.not_carried(directive.shown(), "not a time"),
        },
        None => {}
    }
    let now = draft.get("files.max_age");
    if let Some(before) = before.filter(|before| now != Some(before)) {
        let why = format!("files.max_age is one for all files; another location said {}", plain(&before));
        draft.not_carried(directive.shown(), why);
    }
}
