//! `[[route]]`: what becomes of which requests. The table of keys, and what holds between them.
//!
//! How a value is written is in the modules below; the gateway parses the same texts with the same functions.

mod condition;
mod edit;
mod flight;
mod forward_auth;
mod rewrite;
mod template;

use std::path::PathBuf;
use std::time::Duration;

pub use condition::{HeaderCondition, HostCondition, PathCondition};
pub use edit::{Change, HeaderEdit};
pub use flight::{ANYONE, Idempotency, SingleFlight};
pub use forward_auth::ForwardAuth;
pub use rewrite::{Rewrite, encode_path};
pub use template::{Piece, Placeholder, Template};

use crate::choice::choice;
use crate::cross::check_mount;
use crate::define::record;
use crate::load::Loaded;
use crate::pool::{DEFAULT_POOL, pattern_matches};
use crate::problem::{Place, Problem, nearest};
use crate::raw::Fault;
use crate::tables::{self, Record as _, Required, Rules, holds_for_all};

/// Each request is compared with one after another.
const ROUTES_MAX: usize = 1000;

/// As `limits.bandwidth`.
const BANDWIDTH_MIN: u64 = 1024;

/// What a redirect may answer (RFC 9110, 15.4): 304 is no redirect, 300, 305 and 306 are used by nobody.
const REDIRECTS: [u32; 5] = [301, 302, 303, 307, 308];

/// Answers that have no content (RFC 9110, 15.3.5, 15.3.6, 15.4.5).
const WITHOUT_CONTENT: [u32; 3] = [204, 205, 304];

choice! {
    /// How important requests are under overload.
    Importance {
        /// What the site cannot do without.
        Critical = "critical",
        /// As signed-in users who change something.
        High = "high",
        /// As signed-in users who read.
        Normal = "normal",
        /// As visitors.
        Low = "low",
        /// As known bots.
        Lowest = "lowest",
    }
}

record! {
    /// What becomes of some requests: another pool of workers, a folder, a redirect, a fixed answer, other headers. The table may
    /// be there several times; the first route whose conditions all hold takes the request, and what no route takes goes to files
    /// and app as it does without routes. A route without an action (`app`, `files`, `upstream`, `redirect`, `respond`) does so too, with what
    /// else it says. `quintet routes URL` tells which route takes a URL and why those before it do not.
    ///
    /// A path that different programs read as different paths (`//admin/`, `/a/../admin/`, `/admin%2F`) is refused with 400 where
    /// another reading would lead to another route: no rule can be walked around.
    [[route]] Route {
        /// Its name in `quintet routes` and the access log: letters, digits, `-` and `_`.
        name: Option<String> = None,
            otherwise("its number in the file: \"#3\""), example("\"api\""), checked(check_name);
        /// Hosts, of which one must be asked for: `example.org`, or `*.example.org` for all below it. Without port.
        host: Vec<String> = Vec::new(),
            otherwise("any host"), example("[\"example.org\", \"*.example.org\"]"), checked(check_host);
        /// Paths, of which one must match: `/export` that path only, `/api/*` all below, `*` in the middle any text; `~` begins a
        /// regular expression (`~^/v[0-9]+/`). The path counts as the app sees it: after percent-decoding, without the query,
        /// with the mount.
        path: Vec<String> = Vec::new(),
            otherwise("any path"), example("[\"/api/*\", \"~^/v[0-9]+/\"]"), checked(check_path);
        /// Methods, of which it must be one. `GET` stands for HEAD as well.
        method: Vec<String> = Vec::new(),
            otherwise("any method"), example("[\"GET\", \"POST\"]"), checked(condition::check_method);
        /// Header fields that must all be there: `X-Beta` with any value, `X-Beta=1` with this one.
        header: Vec<String> = Vec::new(),
            otherwise("any header"), example("[\"X-Beta=1\"]"), checked(check_header);
        /// Action: these requests go to the workers of this pool or `[[module]]`, whatever a pool's `match` says, and never to files but the
        /// module's own. "default" is the pool of `[workers]`.
        app: Option<String> = None, otherwise("the pool whose `match` takes the path"), example("\"default\"");
        /// Action: files of this directory. The whole path is looked up in it; `strip_prefix` takes its beginning away. A path that
        /// ends in a slash means the index.html there. What is not there is answered 404.
        files: Option<PathBuf> = None, example("\"public/docs\"");
        /// Action: these requests go to the servers of the `[[upstream]]` of this name, WebSockets included. What they are told of
        /// the client (X-Forwarded-For and its like, Forwarded) is written by quintet, whatever `request_headers` say.
        upstream: Option<String> = None, otherwise("they stay here");
        /// Action: a redirect to this URL, or path of this site, in which `{scheme}`, `{host}`, `{path}` and `{query}` (with its
        /// question mark) stand for those of the request.
        redirect: Option<String> = None,
            example("\"https://example.org{path}{query}\""), checked(template::check_redirect);
        /// Action: this text, and nothing else. Empty with an error's status: the page that quintet has for it.
        respond: Option<String> = None, example("\"We are back at noon.\"");
        /// Status of `redirect` (301, 302, 303, 307, 308) or `respond`.
        status: Option<u32> = None,
            otherwise("307 for a redirect, which browsers do not remember; 200 for an answer"),
            between("200", "599", "these are the final ones");
        /// Taken away from the beginning of the path, and the app does not know: its links lack it, too.
        strip_prefix: Option<String> = None, example("\"/v1\""), checked(check_below);
        /// The path below which the app of this route lives, as `/shop`: it comes to the app as `SCRIPT_NAME` (`root_path`), so that
        /// the app's own links begin with it.
        mount: Option<String> = None, otherwise("as `app.mount`"), example("\"/shop\""), checked(check_below);
        /// Another path, as `REGEX => REPLACEMENT`, with `$1` for the first group. Where the expression is not found in the path it
        /// stays. After `strip_prefix`; no route looks at the new one again.
        rewrite: Option<String> = None, example("\"^/old/(.*)$ => /new/$1\""), checked(check_rewrite);
        /// Changes of what the app is sent: `Name: value` sets a header, `+Name: value` adds one, `-Name` removes all of that name.
        /// `{client}`, `{scheme}`, `{host}`, `{path}`, `{query}` and `{request_id}` stand for what they say; `{client_cert}` (as the field
        /// Client-Cert of RFC 9440 has it), `{client_cert_subject}`, `{client_cert_issuer}`, `{client_cert_serial}` and `{client_cert_fingerprint}` for the
        /// client's certificate: without one there is no such field, whatever a client sends.
        request_headers: Vec<String> = Vec::new(),
            example("[\"X-Section: shop\", \"-Cookie\"]"), checked(edit::check_request_edit);
        /// The same for what the client is sent, whoever answers.
        response_headers: Vec<String> = Vec::new(),
            example("[\"X-Frame-Options: DENY\", \"-X-Powered-By\"]"), checked(edit::check_response_edit);
        /// Answers are compressed (`[compression]` says which and how), or are not: `false` for pages that show a lasting secret beside
        /// what the request says, where their length tells of it (BREACH). What `compression.exclude` names is never compressed.
        compress: Option<bool> = None, otherwise("as `compression.enabled`"), example("false");
        /// How fast these answers go out over one connection, in bytes a second; 0 as fast as clients take them.
        bandwidth: Option<u64> = None,
            otherwise("as `limits.bandwidth`"), example("\"500kB\""),
            between("0", "1TiB", "more than that is no limit");
        /// So many bytes of them go at full speed before.
        bandwidth_after: Option<u64> = None,
            otherwise("as `limits.bandwidth_after`"),
            between("0", "1TiB", "more than that is no limit");
        /// Users of this file pass, others are answered 401 (Basic, RFC 7617). A line a user, as `htpasswd -B` writes it: only
        /// bcrypt, since older hashes are guessed quickly. Read again when it changes. Ask for it over https only.
        basic_auth: Option<PathBuf> = None,
            otherwise("nobody is asked who he is"), example("\"staff.htpasswd\"");
        /// Somebody else decides: a GET with the client's header fields (cookies and Authorization among them), X-Forwarded-Method
        /// and X-Forwarded-Uri asks the app (`/auth/check`), or an `[[upstream]]` or a pool of workers (`NAME /auth/check`). A 2xx lets the
        /// request pass, a redirect, 401 and 403 go to the client as they are; without an answer nobody passes. No route looks at the question.
        forward_auth: Option<String> = None,
            otherwise("nobody is asked"), example("\"/auth/check\""), checked(forward_auth::check_forward_auth);
        /// Header fields of an answer of `forward_auth` that go onto the request. From clients they are taken off, on every route
        /// of the site, in all spellings.
        forward_auth_headers: Vec<String> = Vec::new(),
            otherwise("none"), example("[\"X-User\"]"), checked(forward_auth::check_copied);
        /// How long the answer of `forward_auth` may take; 504 after it.
        forward_auth_timeout: Option<Duration> = None,
            otherwise("5s"), example("\"2s\""),
            between("10ms", "5m", "the client waits for it, and then for its page");
        /// Only clients that have shown a certificate pass (`tls.client_verify`), others are answered 403.
        client_certificate: bool = false;
        /// Whoever comes over plain HTTP is sent to https at the same address. Behind a proxy that ends TLS, name it in
        /// `proxy.trusted`: it is its word that counts.
        https: bool = false;
        /// Tell browsers to come over https only, for this long (Strict-Transport-Security). Sent over https, where the app does not
        /// send it itself.
        hsts: Option<Duration> = None,
            otherwise("not sent"), example("\"365d\""), between("0s", "730d", "browsers cap it, and the list of browsers asks for a year");
        /// Length of a request body; 413 above.
        body_max: Option<u64> = None,
            otherwise("as `limits.body_max`"), example("\"1MiB\""),
            between("0", "1TiB", "bodies are kept in memory or in a file until the app has read them");
        /// How long the app may take to begin its response; 504 after it, and the worker is replaced.
        app_timeout: Option<Duration> = None,
            otherwise("as the pool's"), example("\"5s\""),
            between("100ms", "1d", "a request that hangs must be noticed");
        /// How long a request may wait for a free worker; 503 after it.
        queue_timeout: Option<Duration> = None,
            otherwise("as the pool's"), example("\"1s\""),
            between("0s", "10m", "visitors give up earlier than that");
        /// The names of `[[limit]]`s that hold for these requests, besides those that hold for all. A limit that a route names holds
        /// for the requests of such routes only.
        limit: Vec<String> = Vec::new(), otherwise("only those that hold for all"), example("[\"api\"]");
        /// How important these requests are under overload.
        priority: Option<Importance> = None, otherwise("as `queue.priority` says"), example("\"high\"");
        /// What a request does while another of the same user is under way on this route: `join` (equal requests share one answer),
        /// `queue(5)` (it waits for its turn, behind five at most and for `queue_timeout`), `reject` (409), `cancel_previous` (it
        /// goes, and the other is broken off). See docs/guides/single-flight.md.
        single_flight: Option<String> = None,
            otherwise("requests do not look at one another"), example("\"queue(5)\""),
            checked(flight::check_single_flight);
        /// Whose requests are one at a time, and whose Idempotency-Keys are known, in the words of `limit.by`; `anyone` alone: all
        /// requests of the route together.
        single_flight_by: Vec<String> = vec!["user".to_owned()],
            example("[\"header:X-Api-Key\"]"), checked(flight::check_by);
        /// Hear the field Idempotency-Key: a POST or PATCH that is sent again with its key is not done again, it gets the answer of
        /// then. Terms are in `[idempotency]`. See docs/guides/single-flight.md.
        idempotency: Option<Idempotency> = None,
            otherwise("the field is passed on, and nothing else is done"), example("\"optional\"");
    }
}

impl Rules for Route {
    const COUNT_MAX: (usize, &'static str) = (ROUTES_MAX, "each request is compared with one after another");
    const REQUIRED: &'static [Required] = &[];

    fn together(loaded: &Loaded, problems: &mut Vec<Problem>) {
        let routes = &loaded.config.route;
        for (index, route) in routes.iter().enumerate() {
            let place = |key: &str| loaded.place_in(Self::TABLE, index, key);
            let before = problems.len();
            actions(route, place, problems);
            status(route, place, problems);
            idle(route, place, problems);
            bandwidth(route, place, problems);
            pool(route, loaded, place, problems);
            upstream(route, loaded, place, problems);
            limits(route, loaded, place, problems);
            forward_auth::together(route, loaded, place, problems);
            let is_given = |key: &str| loaded.place(&tables::key_of(Self::TABLE, index, key)).is_some();
            flight::together(route, is_given, place, problems);
            let earlier = &routes[..index];
            if route.name.is_some() && earlier.iter().any(|other| other.name == route.name) {
                let name = route.label(index);
                let problem = Problem::new(format!("route.name: there are two routes \"{name}\""))
                    .hint("give one of them another name");
                problems.push(problem.at(place("name")));
            }
            let covering = earlier.iter().position(|other| other.covers(route));
            if let Some(other) = covering.filter(|_| problems.len() == before) {
                let name = earlier[other].label(other);
                let problem = Problem::new(format!("route: \"{}\" would never match", route.label(index)))
                    .detail(format!("the route \"{name}\" stands before it and takes these requests"))
                    .hint("the first route that matches takes a request: put the narrower one first");
                problems.push(problem.at(place("path")));
            }
        }
    }

    fn wanted(name: &str) -> Option<String> {
        let near = match name {
            "location" | "match" | "prefix" | "url" => "path",
            "return" | "answer" | "text" => "respond",
            "root" | "alias" | "dir" => "files",
            "pool" | "worker_pool" => "app",
            "proxy_pass" | "proxy" | "reverse_proxy" | "backend" => "upstream",
            "auth_request" | "auth_url" | "auth" => "forward_auth",
            "idempotency_key" => "idempotency",
            "headers" => "header\", \"request_headers\" or \"response_headers",
            _ => return holds_for_all(name, &["timeouts", "limits", "queue", "buffers"], "routes"),
        };
        Some(format!("did you mean \"{near}\"?"))
    }
}

impl Route {
    /// Its name, or its number in the file, from 1.
    pub fn label(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("#{}", index + 1))
    }

    /// Whether it sends requests to the workers of this pool.
    pub(crate) fn goes_to(&self, pool: &str) -> bool {
        self.app.as_deref() == Some(pool)
    }

    /// Whether the workers of this pool decide who may pass.
    pub(crate) fn asks(&self, pool: &str) -> bool {
        let auth = self.forward_auth.as_deref().and_then(|text| ForwardAuth::parse(text).ok());
        auth.and_then(|auth| auth.whom).is_some_and(|whom| whom == pool)
    }

    /// The actions that it has, by their keys.
    fn actions(&self) -> Vec<&'static str> {
        let all = [
            ("app", self.app.is_some()),
            ("files", self.files.is_some()),
            ("upstream", self.upstream.is_some()),
            ("redirect", self.redirect.is_some()),
            ("respond", self.respond.is_some()),
        ];
        all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }

    /// Whether it certainly takes whatever `other` takes.
    fn covers(&self, other: &Self) -> bool {
        fn within(these: &[String], those: &[String]) -> bool {
            those.is_empty() || (!these.is_empty() && these.iter().all(|one| those.contains(one)))
        }
        // A pattern taken as a path stands for what it matches: what takes it, takes that too.
        let path = |pattern: &String| {
            let as_glob = |own: &String| {
                !own.starts_with('~') && !pattern.starts_with('~') && pattern_matches(own, pattern)
            };
            self.path.iter().any(|own| own == pattern || own == "/*" || as_glob(own))
        };
        let paths = self.path.is_empty()
            || self.path.iter().any(|own| own == "/*")
            || (!other.path.is_empty() && other.path.iter().all(path));
        let headers = self.header.iter().all(|header| other.header.contains(header));
        within(&other.host, &self.host) && within(&other.method, &self.method) && headers && paths
    }
}

fn actions(route: &Route, place: impl Fn(&str) -> Option<Place>, problems: &mut Vec<Problem>) {
    if let [first, second, ..] = route.actions().as_slice() {
        let problem = Problem::new(format!("route.{second}: the route has an action already, {first}"))
            .hint("a route does one thing; write another one for the other");
        problems.push(problem.at(place(second)));
    }
    if let (Some(_), Some(_)) = (&route.strip_prefix, &route.mount) {
        let problem = Problem::new("route.mount: the prefix is stripped already")
            .hint("mount tells the app where it lives, strip_prefix does not: take one of them");
        problems.push(problem.at(place("mount")));
    }
}

fn status(route: &Route, place: impl Fn(&str) -> Option<Place>, problems: &mut Vec<Problem>) {
    let mut wrong = |key: &str, message: String, hint: &str| {
        problems.push(Problem::new(message).hint(hint).at(place(key)));
    };
    let Some(status) = route.status else { return };
    if route.redirect.is_some() {
        if !REDIRECTS.contains(&status) {
            let hint = "301 and 308 for ever, 302, 303 and 307 for now; 307 and 308 keep the method";
            wrong("status", format!("route.status: {status} is no redirect"), hint);
        }
    } else if let Some(text) = &route.respond {
        if WITHOUT_CONTENT.contains(&status) && !text.is_empty() {
            wrong("respond", format!("route.respond: an answer {status} has no content"), "respond = \"\"");
        }
    } else {
        wrong(
            "status",
            "route.status: there is no answer to have it".to_owned(),
            "it goes with redirect or respond",
        );
    }
}

/// Keys that would do nothing beside the action.
fn idle(route: &Route, place: impl Fn(&str) -> Option<Place>, problems: &mut Vec<Problem>) {
    let asks_app = [
        ("mount", route.mount.is_some()),
        ("body_max", route.body_max.is_some()),
        ("app_timeout", route.app_timeout.is_some()),
        ("queue_timeout", route.queue_timeout.is_some()),
        ("priority", route.priority.is_some()),
        ("request_headers", !route.request_headers.is_empty()),
        ("single_flight", route.single_flight.is_some()),
        ("idempotency", route.idempotency.is_some()),
    ];
    let path = [("strip_prefix", route.strip_prefix.is_some()), ("rewrite", route.rewrite.is_some())];
    let Some(action) = route.actions().into_iter().find(|action| *action != "app") else { return };
    let path = path.into_iter().filter(|_| action == "respond");
    // Files are compressed once, and kept so; what the gateway says itself is short.
    let bodies = [("compress", route.compress.is_some())].into_iter().filter(|_| action != "upstream");
    // An upstream is asked as an app is, but it is no pool.
    let goes_along = |key: &str| match key {
        "body_max" | "request_headers" | "single_flight" | "idempotency" => action == "upstream",
        // In the line of those who fly alone.
        "queue_timeout" => action == "upstream" && route.single_flight.is_some(),
        _ => false,
    };
    for (key, _) in
        asks_app.into_iter().chain(path).chain(bodies).filter(|(key, there)| *there && !goes_along(key))
    {
        let problem = Problem::new(format!("route.{key}: it does nothing where {action} answers"))
            .hint("leave it away");
        problems.push(problem.at(place(key)));
    }
}

fn bandwidth(route: &Route, place: impl Fn(&str) -> Option<Place>, problems: &mut Vec<Problem>) {
    if route.bandwidth.is_some_and(|rate| rate > 0 && rate < BANDWIDTH_MIN) {
        let problem = Problem::new("route.bandwidth: slower than 1KiB a second is no service").hint(
            "0 lifts `limits.bandwidth`; refuse who must get nothing: respond = \"\" with status = 403",
        );
        problems.push(problem.at(place("bandwidth")));
    }
    if route.bandwidth_after.is_some() && route.bandwidth.is_none_or(|rate| rate == 0) {
        let problem =
            Problem::new("route.bandwidth_after: the route has no bandwidth that would hold after it")
                .hint("set route.bandwidth, or limits.bandwidth_after for all connections");
        problems.push(problem.at(place("bandwidth_after")));
    }
}

fn upstream(
    route: &Route,
    loaded: &Loaded,
    place: impl Fn(&str) -> Option<Place>,
    problems: &mut Vec<Problem>,
) {
    let Some(upstream) = &route.upstream else { return };
    let names = || loaded.config.upstream.iter().map(|upstream| upstream.name.as_str());
    if names().any(|name| name == upstream) {
        return;
    }
    let problem = Problem::new(format!("route.upstream: there is no upstream \"{upstream}\""));
    let problem = match nearest(upstream, names()) {
        Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
        None => {
            problem.hint(format!("write a table [[upstream]] with name = \"{upstream}\" and its servers"))
        }
    };
    problems.push(problem.at(place("upstream")));
}

fn pool(route: &Route, loaded: &Loaded, place: impl Fn(&str) -> Option<Place>, problems: &mut Vec<Problem>) {
    let Some(app) = &route.app else { return };
    if loaded.config.pool_number(app).is_some() {
        return;
    }
    let pools: Vec<_> = loaded.config.pools().map(|pool| pool.name.clone()).collect();
    let names = || pools.iter().map(String::as_str).chain([DEFAULT_POOL]);
    let problem = Problem::new(format!("route.app: there is no pool or module \"{app}\""));
    let problem = match nearest(app, names()) {
        Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
        None => problem.hint(format!("there are {}", names().collect::<Vec<_>>().join(", "))),
    };
    problems.push(problem.at(place("app")));
}

fn limits(
    route: &Route,
    loaded: &Loaded,
    place: impl Fn(&str) -> Option<Place>,
    problems: &mut Vec<Problem>,
) {
    let names = || loaded.config.limit.iter().map(|limit| limit.name.as_str());
    for limit in route.limit.iter().filter(|name| !names().any(|other| other == name.as_str())) {
        let problem = Problem::new(format!("route.limit: there is no limit \"{limit}\""));
        let problem = match nearest(limit, names()) {
            Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
            None => problem.hint(format!("write a table [[limit]] with name = \"{limit}\"")),
        };
        problems.push(problem.at(place("limit")));
    }
}

fn check_name(text: &str) -> Result<(), Fault> {
    tables::check_name(text, "a route", "api")
}

fn check_host(text: &str) -> Result<(), Fault> {
    HostCondition::parse(text).map(drop)
}

fn check_path(text: &str) -> Result<(), Fault> {
    PathCondition::parse(text).map(drop)
}

fn check_header(text: &str) -> Result<(), Fault> {
    HeaderCondition::parse(text).map(drop)
}

fn check_rewrite(text: &str) -> Result<(), Fault> {
    Rewrite::parse(text).map(drop)
}

/// `/shop`: the root is nothing to take away, and what is compared with it is decoded.
fn check_below(text: &str) -> Result<(), Fault> {
    if matches!(text, "" | "/") || text.contains("//") || text.contains('%') {
        return Err(Fault::new(format!("\"{text}\" is not a path below the root")).hint("for example /shop"));
    }
    check_mount(text)
}

#[cfg(test)]
mod tests;
