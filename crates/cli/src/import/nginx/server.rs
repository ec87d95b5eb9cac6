//! Servers: which of them is asked for by which names, and their locations in the order in which nginx would choose among them.

use serde_json::Value as Json;

use super::besides::{nobody, rewrites, with_path, with_slashes, without_look_around};
use super::file::Directive;
use super::folder::as_files;
use super::route::{Cx, DONE, Made, Part, make};
use super::upstream::target;
use super::words::{Kind, ordered, pattern};
use super::{Found, SCOPED, app_location, is_general, listen, one, other_server, passes, rest, serves};
use crate::import::draft::Draft;

/// Names that nginx looks for in this order: exact ones, the longest wildcard, and who is asked when nobody was meant.
type Rank = (u8, usize);

/// All servers of a file.
pub(super) fn servers(draft: &mut Draft, found: &Found) {
    let servers = &found.servers;
    let main = servers.iter().position(passes).or_else(|| servers.iter().position(serves));
    let Some(main) = main.or((!servers.is_empty()).then_some(0)) else { return };
    let secure = servers.iter().any(speaks_tls);
    let mut cx = Cx {
        draft,
        http: &found.http,
        upstreams: &found.upstreams,
        zones: &found.zones,
        app: app(found, &servers[main]),
        written: Vec::new(),
    };
    let mut here: Vec<(usize, &Directive)> = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        // With certificates every TCP address speaks TLS.
        if index != main && secure && !speaks_tls(server) {
            other_server(cx.draft, server);
        } else {
            here.push((index, server));
        }
    }
    let default =
        here.iter().find(|(_, server)| is_default(server)).or(here.first()).map(|(index, _)| *index);
    let alone = here.len() == 1;
    let mut groups: Vec<(Rank, usize, Vec<String>)> = Vec::new();
    for (index, server) in &here {
        let of = |(rank, hosts)| (rank, *index, hosts);
        let names = names(cx.draft, server, Some(*index) == default || alone);
        if names.is_empty() {
            cx.draft.not_carried(server.shown(), "nobody can ask for it: another server is asked first");
        }
        groups.extend(names.into_iter().map(of));
    }
    groups.sort_by_key(|(rank, ..)| *rank);
    for (index, server) in &here {
        whole_server(&mut cx, server, *index == main, secure);
    }
    for (_, index, hosts) in &groups {
        of_server(&mut cx, &servers[*index], hosts, *index == main);
    }
}

fn speaks_tls(server: &Directive) -> bool {
    server.inside().iter().any(|one| one.name == "listen" && one.args.iter().any(|arg| arg == "ssl"))
}

fn is_default(server: &Directive) -> bool {
    server
        .inside()
        .iter()
        .any(|one| one.name == "listen" && one.args.iter().any(|arg| arg == "default_server"))
}

/// What quintet runs itself: where the rest of the main server is passed to, unless that are several servers on other machines.
fn app(found: &Found, main: &Directive) -> Option<String> {
    let locations = || main.inside().iter().filter(|one| one.name == "location");
    let general = locations().filter(|one| is_general(one)).find_map(target);
    let to = general.or_else(|| locations().find_map(target))?;
    let is_elsewhere = |server: &&Directive| {
        let address = server.args.first().map_or("", String::as_str);
        !["unix:", "127.", "localhost", "[::1]"].iter().any(|here| address.starts_with(here))
    };
    let block = found.upstreams.iter().find(|block| block.args.first().is_some_and(|name| name == to.server));
    let servers = block.into_iter().flat_map(Directive::inside).filter(|one| one.name == "server");
    (servers.filter(is_elsewhere).count() < 2).then(|| to.server.to_owned())
}

/// The names of a server, as groups of their own where nginx looks for them at another time; an empty list is everybody.
fn names(draft: &mut Draft, server: &Directive, default: bool) -> Vec<(Rank, Vec<String>)> {
    if default {
        return vec![((2, 0), Vec::new())];
    }
    let (mut exact, mut groups) = (Vec::new(), Vec::new());
    for directive in server.inside().iter().filter(|one| one.name == "server_name") {
        for name in directive.args.iter().filter(|name| !matches!(name.as_str(), "_" | "")) {
            let odd = name.starts_with('~') || name.ends_with('*') || name.contains('$');
            match name.strip_prefix('.') {
                _ if odd => {
                    draft.not_carried(directive.shown(), format!("{name}: hosts are names, or *.NAME"));
                }
                Some(bare) => {
                    exact.push(bare.to_owned());
                    groups.push(((1, usize::MAX - bare.len()), vec![format!("*.{bare}")]));
                }
                None if name.starts_with("*.") => {
                    groups.push(((1, usize::MAX - name.len()), vec![name.clone()]));
                }
                None => exact.push(name.clone()),
            }
        }
    }
    if !exact.is_empty() {
        groups.push(((0, 0), exact));
    }
    groups
}

/// What a server says of all its paths.
fn whole_server(cx: &mut Cx<'_>, server: &Directive, main: bool, secure: bool) {
    let certificate = |name: &str| {
        server.get(name).and_then(|one| Some((one.args.first()?.clone(), format!("{}: {name}", one.place))))
    };
    for directive in server.inside() {
        let name = directive.name.as_str();
        let set = || {
            super::find(super::table::ROWS, name)
                .is_some_and(|row| matches!(row.becomes, super::Becomes::Set(..)))
        };
        match name {
            "listen" => listen(cx.draft, directive, secure),
            "server_name" if !main || cx.app.is_none() => {}
            "location" | "root" if name == "location" || !main => {}
            "index" | "ssl_certificate" | "ssl_certificate_key" if !main => {}
            "if" if to_https(directive) => {}
            _ if SCOPED.contains(&name) => {}
            _ if !main && set() => {
                let why = "for this server alone; in quintet the setting holds for all of them";
                cx.draft.not_carried(directive.shown(), why);
            }
            _ => one(cx.draft, directive),
        }
    }
    if let (false, Some(file), Some(key)) =
        (main, certificate("ssl_certificate"), certificate("ssl_certificate_key"))
    {
        let known = cx.draft.get("tls.certificate").is_some_and(|known| *known == file.0);
        let entry = |(value, from): (String, String)| (Json::from(value), from);
        let ((file, from), (key, key_from)) = (entry(file), entry(key));
        if !known && !cx.written.iter().any(|(name, _)| file == *name) {
            cx.written.push((file.as_str().unwrap_or_default().to_owned(), Vec::new()));
            cx.draft.table("certificate", vec![("certificate", file, from), ("key", key, key_from)]);
        }
    }
}

/// `if ($scheme = http) { return 301 https://$host$request_uri; }`, also behind a proxy that says so.
fn to_https(directive: &Directive) -> bool {
    let condition = directive.args.join(" ");
    let asks = condition.contains("$scheme")
        || condition.contains("$http_x_forwarded_proto")
        || condition.contains("$https");
    let returns = |one: &Directive| {
        one.name == "return"
            && one.args.last().is_some_and(|to| {
                matches!(
                    to.as_str(),
                    "https://$host$request_uri"
                        | "https://$http_host$request_uri"
                        | "https://$server_name$request_uri"
                )
            })
    };
    asks && matches!(directive.inside(), [only] if returns(only))
}

/// The routes of a server, for those who ask for these hosts.
fn of_server(cx: &mut Cx<'_>, server: &Directive, hosts: &[String], main: bool) {
    let https = server.inside().iter().any(|one| one.name == "if" && to_https(one));
    let part = |location| Part { server, location, hosts, https, main };
    if server.get("return").is_some() {
        let made = make(cx, &part(None), Kind::Prefix, "/", None);
        return made.into_iter().for_each(|made| cx.draft.table("route", made.entries));
    }
    let locations = || server.inside().iter().filter(|one| one.name == "location");
    let slash = locations().find(|one| one.args.last().is_some_and(|path| path == "/") && is_general(one));
    let general = make(cx, &part(slash), Kind::Prefix, "/", None);
    if main {
        for directive in locations().filter(|one| is_general(one)).flat_map(Directive::inside) {
            const FOR_ALL: [&str; 4] = ["client_max_body_size", "gzip", "limit_rate", "limit_rate_after"];
            let name = directive.name.as_str();
            if FOR_ALL.contains(&name)
                || matches!(name, "root" | "alias" | "expires")
                || !DONE.contains(&name)
            {
                one(cx.draft, directive);
            }
        }
    }
    let mut routes: Vec<(Kind, String, Made)> = Vec::new();
    rewrites(cx, &part(None), &mut routes);
    for (location, kind, path) in ordered(server) {
        let part = part(Some(location));
        if main && as_files(cx, &part, kind, path, general.as_ref()) {
            continue;
        }
        rewrites(cx, &part, &mut routes);
        let (pattern, spared) = without_look_around(pattern(kind, path));
        if let (Some(spared), Some(general)) = (spared, &general) {
            let entries = with_path(general, &spared, location);
            routes.push((kind, spared, Made { entries, plain: false }));
        }
        let made = make(cx, &part, kind, path, pattern.clone()).unwrap_or_else(|| nobody(&part, pattern));
        routes.push((kind, path.to_owned(), made));
        of_location(cx, location, kind, path);
    }
    let routes = with_slashes(routes, hosts);
    // Who only says which requests it takes is left away, where nobody behind it would take them.
    let shadowed = |index: usize| {
        let path = &routes[index].1;
        let behind = |(kind, other, made): &(Kind, String, Made)| {
            !made.plain && (matches!(kind, Kind::Regex { .. }) || path.starts_with(other.as_str()))
        };
        general.as_ref().is_some_and(|general| !general.plain) || routes[index + 1..].iter().any(behind)
    };
    let kept: Vec<bool> =
        routes.iter().enumerate().map(|(index, (.., made))| !made.plain || shadowed(index)).collect();
    for ((.., made), _) in routes.into_iter().zip(kept).filter(|(_, kept)| *kept) {
        cx.draft.table("route", made.entries);
    }
    if let Some(general) = general.filter(|general| !general.plain || !hosts.is_empty()) {
        cx.draft.table("route", general.entries);
    }
}

/// What else a location says.
fn of_location(cx: &mut Cx<'_>, location: &Directive, kind: Kind, path: &str) {
    let is_app = target(location).is_some_and(|to| Some(to.server) == cx.app.as_deref());
    if is_app && !matches!(kind, Kind::Regex { .. } | Kind::Named) {
        app_location(cx.draft, location, kind, path);
    } else {
        let asked = ["proxy_read_timeout", "proxy_buffering", "proxy_request_buffering", "internal"];
        let done: Vec<&str> = DONE.iter().copied().chain(asked).collect();
        rest(cx.draft, location, &done);
    }
}
