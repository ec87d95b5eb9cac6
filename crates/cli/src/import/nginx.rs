//! nginx.conf: servers and their locations as routes, what they pass to as upstreams, the app's own server and its files; the rest by
//! name.
//!
//! | file | what happens there |
//! |---|---|
//! | `file.rs` | the form: words, blocks, files that are included |
//! | `server.rs` | servers and their locations in the order in which nginx would choose among them |
//! | `route.rs` | a location as a `[[route]]` |
//! | `folder.rs`, `change.rs`, `access.rs` | its parts: files, what is changed on the way, who may come |
//! | `besides.rs` | routes that no location stands for |
//! | `upstream.rs`, `limit.rs` | what several of them share |
//! | `words.rs` | variables, expressions, paths |
//! | `table.rs` | every other directive |

mod access;
mod besides;
mod change;
mod file;
mod folder;
mod limit;
mod route;
mod server;
mod table;
mod upstream;
mod words;

use std::path::Path;

use serde_json::Value as Json;

use super::draft::Draft;
use super::row::{Becomes, Given, Options, apply, find};
use super::value::{self, Means, plain};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use file::Directive;
pub(super) use table::ROWS;
use words::Kind;

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
    let mut found = Found::default();
    outside(&mut draft, &directives, &mut found);
    server::servers(&mut draft, &found);
    Ok(draft)
}

/// What is looked at together.
#[derive(Default)]
struct Found {
    servers: Vec<Directive>,
    upstreams: Vec<Directive>,
    zones: Vec<Directive>,
    /// What holds for each location that does not say otherwise.
    http: Vec<Directive>,
}

/// These are looked at with each location that they hold for.
const SCOPED: [&str; 17] = [
    "add_header",
    "proxy_set_header",
    "limit_req",
    "limit_req_status",
    "auth_basic",
    "auth_basic_user_file",
    "auth_request",
    "auth_request_set",
    "allow",
    "deny",
    "proxy_connect_timeout",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_name",
    "return",
    "rewrite",
];

/// main, events and http; what is looked at together is put aside.
fn outside(draft: &mut Draft, directives: &[Directive], found: &mut Found) {
    for directive in directives {
        match directive.name.as_str() {
            "http" | "events" => outside(draft, directive.inside(), found),
            "server" if directive.block.is_some() => found.servers.push(directive.clone()),
            "upstream" => found.upstreams.push(directive.clone()),
            "limit_req_zone" | "limit_conn_zone" => found.zones.push(directive.clone()),
            name => {
                let scoped = SCOPED.contains(&name);
                if !scoped {
                    one(draft, directive);
                }
                if scoped || name.starts_with("proxy_") {
                    found.http.push(directive.clone());
                }
            }
        }
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

fn passes(server: &Directive) -> bool {
    server.inside().iter().any(|directive| is_pass(directive) || passes(directive))
}

fn serves(server: &Directive) -> bool {
    server.inside().iter().any(|directive| directive.name == "location")
}

/// A server without TLS beside others that have it.
fn other_server(draft: &mut Draft, server: &Directive) {
    let names =
        server.get("server_name").map_or_else(String::new, |names| format!(" {}", names.args.join(" ")));
    let why = "with certificates every TCP address speaks TLS: what comes over plain HTTP is answered before quintet; https = true in a [[route]] redirects what comes over a unix socket \
               or from a trusted proxy";
    draft.not_carried(format!("{}: server{names}", server.place), why);
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

/// Directives of a location that hold for all paths here.
fn rest(draft: &mut Draft, location: &Directive, done: &[&str]) {
    let at = location.args.last().map_or("", String::as_str);
    for directive in location.inside().iter().filter(|one| !done.contains(&one.name.as_str())) {
        match find(table::ROWS, &directive.name).map(|row| row.becomes) {
            Some(row) if matches!(row, Becomes::Set(..)) || directive.name == "limit_conn" => draft
                .not_carried(
                    directive.shown(),
                    format!("for {at} alone; in quintet the setting holds for all paths"),
                ),
            _ => one(draft, directive),
        }
    }
}

/// A location that the app answers: slow ones are a pool of their own.
fn app_location(draft: &mut Draft, location: &Directive, kind: Kind, path: &str) {
    let is_upgrade = |one: &&Directive| {
        one.name == "proxy_set_header"
            && one.args.first().is_some_and(|name| name.eq_ignore_ascii_case("upgrade"))
    };
    let websockets = location.inside().iter().any(|one| is_upgrade(&one));
    let pattern = if kind == Kind::Exact { path.to_owned() } else { format!("{path}*") };
    let mut done: Vec<&str> = PASSES.iter().chain(&route::DONE).copied().collect();
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
