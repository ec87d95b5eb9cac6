//! NGINX Unit: the JSON of its control API.

use serde_json::{Map, Value as Json};

use super::draft::Draft;
use super::row::Becomes::{By, No, Same, Set, Together};
use super::row::{Given, Options, Row, apply, option};
use super::value::{self, Means, plain};
use crate::exit::Exit;
use crate::failure::{Failure, Result};

const LOGS: &str = "the log goes to standard error and the access log to standard output: redirect them";
const MATCH: &str = "pools are chosen by path alone: the app, or a proxy before it, decides by anything else";

pub(super) const APPLICATION: &[Row] = &[
    option("type", "", By(python_type, "nothing for Python")),
    option("path", "", By(path, "`app.dir`")),
    option("working_directory", "", Set("app.dir", value::text)),
    option("home", "", Set("app.python", value::environment_python)),
    option("module", "", Together("`app.callable`")),
    option("callable", "", Together("`app.callable`")),
    option("factory", "", Together("`app.callable`")),
    option("protocol", "", Set("app.interface", value::text)),
    option("prefix", "", Set("app.mount", value::text)),
    option("processes*", "", Together("`workers.count`, `workers.max`")),
    option("threads", "", Together("`workers.threads`")),
    option("thread_stack_size", "", Same("the system's default, 8 MiB of which only what is used is taken")),
    option("limits.timeout", "", Set("timeouts.app", value::app_seconds)),
    option("limits.requests", "", Set("workers.requests_max", value::count_or_never)),
    option("user", "", Set("workers.user", value::account)),
    option("group", "", Set("workers.group", value::account)),
    option("environment.DJANGO_SETTINGS_MODULE", "", Set("app.settings", value::text)),
    option(
        "environment.*",
        "",
        No("quintet passes its own environment on to the app: set the variable where quintet is started"),
    ),
    option("stdout", "", No(LOGS)),
    option("stderr", "", No(LOGS)),
    option("isolation.*", "", No("namespaces and limits are systemd's or the container's")),
    option(
        "targets.*",
        "",
        No("several callables in one application: app.callable names one, others are instances of their own"),
    ),
];

pub(super) const SETTINGS: &[Row] = &[
    option("http.header_read_timeout", "", Set("timeouts.header", value::seconds)),
    option("http.body_read_timeout", "", Set("timeouts.body", value::seconds)),
    option("http.send_timeout", "", Set("timeouts.write", value::seconds)),
    option("http.idle_timeout", "", Set("timeouts.keep_alive", value::seconds)),
    option("http.max_body_size", "", Set("limits.body_max", value::bytes)),
    option("http.body_buffer_size", "", Set("buffers.request_memory", value::bytes)),
    option("http.body_temp_path", "", Set("buffers.dir", value::text)),
    option("http.static.*", "", Same("types of files are known by their names")),
    option("http.discard_unsafe_fields", "", Same("names that no header may have are always refused")),
    option("http.server_version", "", Same("no Server header is added")),
    option("http.chunked_transform", "", Same("chunked bodies are taken")),
    option("http.log_route", "", Same("there are no routes to log")),
    option("http.websocket.keepalive_interval", "", Set("websocket.ping_interval", value::seconds)),
    option("http.websocket.max_frame_size", "", Set("websocket.message_max", value::bytes)),
    option("http.websocket.read_timeout", "", Same("websocket.ping_timeout notices clients that vanished")),
    option("listen_threads", "", Set("server.reactors", value::count)),
    option("telemetry.*", "", No("metrics are at /metrics of the admin socket; traces are not sent")),
    option("js_module", "", No("there is no JavaScript in the gateway")),
];

/// The whole configuration.
pub(super) fn import(name: &str, text: &str) -> Result<Draft> {
    let json: Json = serde_json::from_str(text).map_err(|error| {
        Failure::new(Exit::Usage, format!("{name} is not JSON"))
            .detail(error.to_string())
            .hint("curl --unix-socket /var/run/control.unit.sock http://localhost/config prints the whole")
    })?;
    // The root of the control API has it below "config".
    let config = json.get("config").filter(|config| config.is_object()).unwrap_or(&json);
    let Some(config) = config.as_object() else {
        return Err(Failure::new(Exit::Usage, format!("{name} is not Unit's configuration"))
            .hint("an object with \"listeners\" and \"applications\""));
    };
    let mut draft = Draft::new(name);
    let mut reader = Reader { config, draft: &mut draft, passes: Vec::new() };
    for (key, value) in config {
        match (key.as_str(), value) {
            ("listeners", Json::Object(listeners)) => reader.listeners(listeners),
            ("settings", value) => apply(reader.draft, SETTINGS, &flattened(value, "settings"), "Unit"),
            ("access_log", value) => access_log(reader.draft, value),
            ("applications" | "routes" | "certificates", _) => {}
            ("upstreams", _) => reader
                .draft
                .not_carried("upstreams", "quintet runs the app itself and passes to no other server"),
            (other, _) => reader.draft.note(
                super::draft::Fate::Unknown,
                other,
                "no part of Unit's configuration that is known here",
            ),
        }
    }
    reader.applications();
    Ok(draft)
}

/// An application that requests are passed to, and the paths for which; `None` for all.
struct Pass {
    app: String,
    patterns: Option<Vec<String>>,
    from: String,
}

struct Reader<'a> {
    config: &'a Map<String, Json>,
    draft: &'a mut Draft,
    passes: Vec<Pass>,
}

impl Reader<'_> {
    fn listeners(&mut self, listeners: &Map<String, Json>) {
        for (address, listener) in listeners {
            self.draft.push("server.bind", value::address(address), &format!("listeners/{address}"));
            for (key, value) in listener.as_object().into_iter().flatten() {
                let from = format!("listeners/{address}/{key}");
                match key.as_str() {
                    "pass" => self.pass(&plain(value), None, &from, 0),
                    "tls" => self.draft.not_carried(
                        from,
                        "Unit keeps certificates itself: write the PEM files and name them in tls.certificate and tls.key",
                    ),
                    "backlog" => super::row::set(
                        self.draft,
                        "server.backlog",
                        value::count,
                        &Given { name: key.clone(), value: value.clone(), from },
                    ),
                    "forwarded" | "client_ip" => self.forwarded(value, &from),
                    _ => self.draft.note(super::draft::Fate::Unknown, from, "no option of a listener that is known here"),
                }
            }
        }
    }

    fn forwarded(&mut self, value: &Json, from: &str) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let from = format!("{from}/{key}");
            match key.as_str() {
                "source" => match value::networks(value) {
                    Means::Value(list) => self.draft.set("proxy.trusted", list, from),
                    _ => self.draft.not_needed(from, "nobody is trusted by default"),
                },
                "client_ip" | "header" if !plain(value).eq_ignore_ascii_case("x-forwarded-for") => {
                    self.draft.not_carried(from, "X-Forwarded-For and Forwarded are read, no others");
                }
                _ => self
                    .draft
                    .not_needed(from, "X-Forwarded-For, -Proto and Forwarded of proxy.trusted are believed"),
            }
        }
    }

    /// Follows `pass`: an application, or routes.
    fn pass(&mut self, target: &str, patterns: Option<&[String]>, from: &str, depth: u8) {
        /// Routes may pass to routes, also in a circle.
        const DEPTH_MAX: u8 = 8;
        let mut parts = target.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("applications"), Some(app), rest) => {
                if let Some(target) = rest {
                    self.draft.not_carried(
                        from.to_owned(),
                        format!("the target {target}: app.callable names one callable"),
                    );
                }
                let patterns = patterns.map(<[String]>::to_vec);
                self.passes.push(Pass { app: app.to_owned(), patterns, from: from.to_owned() });
            }
            (Some("routes"), name, _) if depth < DEPTH_MAX => self.route(name, patterns, depth + 1),
            _ => self
                .draft
                .not_carried(format!("{from} = {target}"), "requests are passed to the app, to nothing else"),
        }
    }

    fn route(&mut self, name: Option<&str>, outer: Option<&[String]>, depth: u8) {
        let routes = self.config.get("routes");
        let (steps, path) = match name {
            Some(name) => (routes.and_then(|routes| routes.get(name)), format!("routes/{name}")),
            None => (routes, "routes".to_owned()),
        };
        let Some(steps) = steps.and_then(Json::as_array) else {
            self.draft.not_carried(path, "there is no such route");
            return;
        };
        for (index, step) in steps.iter().enumerate() {
            let from = format!("{path}/{index}");
            let patterns = self.patterns(step.get("match"), &from);
            let Some(patterns) = patterns else { continue };
            let patterns = if patterns.is_empty() { outer.map(<[String]>::to_vec) } else { Some(patterns) };
            self.action(step.get("action"), patterns.as_deref(), &from, depth);
        }
    }

    /// The paths of a step: empty for all, `None` when it cannot be said here.
    fn patterns(&mut self, condition: Option<&Json>, from: &str) -> Option<Vec<String>> {
        let mut patterns = Vec::new();
        for (key, value) in condition.and_then(Json::as_object).into_iter().flatten() {
            let items = match value {
                Json::Array(items) => items.iter().map(plain).collect(),
                value => vec![plain(value)],
            };
            let plain_paths = items.iter().all(|item| item.starts_with('/'));
            match key.as_str() {
                "uri" if items == ["*"] || items == ["/*"] => {}
                "uri" if plain_paths => patterns = items,
                "uri" => {
                    self.draft.not_carried(
                        format!("{from}/match/uri = {}", items.join(", ")),
                        "patterns are paths with *, without ! and regular expressions",
                    );
                    return None;
                }
                "host" => self.draft.not_carried(
                    format!("{from}/match/host"),
                    "Django's ALLOWED_HOSTS decides which names are answered",
                ),
                _ => {
                    self.draft.not_carried(format!("{from}/match/{key}"), MATCH);
                    return None;
                }
            }
        }
        Some(patterns)
    }

    fn action(&mut self, action: Option<&Json>, patterns: Option<&[String]>, from: &str, depth: u8) {
        for (key, value) in action.and_then(Json::as_object).into_iter().flatten() {
            let from = format!("{from}/action/{key}");
            match key.as_str() {
                "pass" => self.pass(&plain(value), patterns, &from, depth),
                "share" => self.share(value, patterns, &from),
                "fallback" => self.action(Some(value), patterns, &from, depth),
                "index" | "chroot" | "follow_symlinks" | "traverse_mounts" | "types" => {
                    self.draft.not_needed(
                        from,
                        "files never come from outside their directory; directories are the app's",
                    );
                }
                _ => self.draft.not_carried(from, "the app, or a proxy before it, does this"),
            }
        }
    }

    /// `/www$uri` for `/static/*`: files of /www/static.
    fn share(&mut self, value: &Json, patterns: Option<&[String]>, from: &str) {
        let shares = match value {
            Json::Array(items) => items.iter().map(plain).collect(),
            value => vec![plain(value)],
        };
        let shown = format!("{from} = {}", shares.join(", "));
        let prefixes: Vec<_> =
            patterns.into_iter().flatten().filter_map(|pattern| pattern.strip_suffix("/*")).collect();
        let only_prefixes = patterns.is_some_and(|patterns| patterns.len() == prefixes.len());
        let ([share], true) = (shares.as_slice(), only_prefixes && !prefixes.is_empty()) else {
            let why = "files are served below a prefix of their own, from one directory: match uri /static/*";
            return self.draft.not_carried(shown, why);
        };
        match share.strip_suffix("$uri") {
            Some(dir) if !dir.contains('$') && !prefixes.iter().any(|prefix| prefix.contains('*')) => {
                for prefix in prefixes {
                    let (url, dir) = (format!("{prefix}/"), value::join(dir, prefix));
                    super::serve_files(self.draft, &url, &dir, from, &shown);
                }
            }
            _ => self.draft.not_carried(shown, "a directory that depends on more than the path"),
        }
    }

    /// The application that takes the rest is the project; others with the same code are pools.
    fn applications(&mut self) {
        let passes = std::mem::take(&mut self.passes);
        let main = passes
            .iter()
            .find(|pass| pass.patterns.is_none())
            .or(passes.first())
            .map(|pass| pass.app.clone());
        let only = || self.config.get("applications")?.as_object()?.keys().next().cloned();
        let Some(main) = main.or_else(only) else {
            self.draft.not_carried("applications", "there is none");
            return;
        };
        let application = |name: &str| self.config.get("applications")?.get(name).cloned();
        let Some(project) = application(&main) else {
            self.draft.not_carried(format!("applications/{main}"), "there is no such application");
            return;
        };
        let options = flattened(&project, &format!("applications/{main}"));
        apply(self.draft, APPLICATION, &options, "Unit");
        callable(self.draft, &options);
        if let Some(given) = options.get("threads") {
            super::row::set(self.draft, "workers.threads", value::count, given);
        } else if options.text("protocol").as_deref() != Some("asgi") {
            self.draft.set(
                "workers.threads",
                1,
                "Unit's default; more threads help an app that waits, if it is thread-safe",
            );
        }
        processes(self.draft, &options);
        let mut done = vec![main.clone()];
        for pass in passes {
            let Some(patterns) = pass.patterns.filter(|_| pass.app != main) else { continue };
            let same =
                |app: &Json| ["module", "path", "home"].iter().all(|key| app.get(key) == project.get(key));
            match application(&pass.app).filter(same) {
                Some(app) => pool(self.draft, &pass.app, &app, &patterns, &pass.from),
                None => self
                    .draft
                    .not_carried(pass.from, format!("{} is another program: another instance", pass.app)),
            }
            done.push(pass.app);
        }
        for name in self.config.get("applications").and_then(Json::as_object).into_iter().flat_map(Map::keys)
        {
            if !done.contains(name) {
                self.draft.not_carried(
                    format!("applications/{name}"),
                    "nothing is passed to it that could be carried",
                );
            }
        }
    }
}

/// Members of objects by their path: `limits.timeout`.
fn flattened(value: &Json, path: &str) -> Options {
    let mut options = Options::default();
    flatten(value, "", path, &mut options);
    options
}

fn flatten(value: &Json, name: &str, from: &str, options: &mut Options) {
    match value {
        Json::Object(members) => {
            for (key, value) in members {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(value, &name, &format!("{from}/{key}"), options);
            }
        }
        value => options.0.push(Given { name: name.to_owned(), value: value.clone(), from: from.to_owned() }),
    }
}

fn python_type(draft: &mut Draft, given: &Given) {
    let text = plain(&given.value);
    if text.starts_with("python") {
        draft.not_needed(given.shown(), "the project's Python is found by itself, or named in app.python");
    } else {
        draft.not_carried(given.shown(), "only Python is run");
    }
}

fn path(draft: &mut Draft, given: &Given) {
    match &given.value {
        Json::Array(items) if items.len() > 1 => {
            draft.set("app.dir", plain(&items[0]), given.from.clone());
            let why = "the project directory is on sys.path; for the others set PYTHONPATH where quintet is started";
            draft.not_carried(given.shown(), why);
        }
        value => draft.set("app.dir", plain(value), given.from.clone()),
    }
}

fn callable(draft: &mut Draft, options: &Options) {
    let Some(module) = options.get("module") else { return };
    let name = options.text("callable").unwrap_or_else(|| "application".into());
    let factory = options.get("factory").is_some_and(|given| value::is_on(&given.value));
    let call = if factory { "()" } else { "" };
    draft.set("app.callable", format!("{}:{name}{call}", plain(&module.value)), module.from.clone());
}

/// The least and most of `processes`, and when idle ones go.
fn bounds(options: &Options) -> Option<(Option<&Given>, &Given, Option<&Given>)> {
    if let Some(fixed) = options.get("processes") {
        return Some((Some(fixed), fixed, None));
    }
    let most = options.get("processes.max")?;
    Some((options.get("processes.spare"), most, options.get("processes.idle_timeout")))
}

fn processes(draft: &mut Draft, options: &Options) {
    let Some((least, most, idle)) = bounds(options) else { return };
    let least = least.filter(|given| plain(&given.value) != "0");
    match least {
        Some(given) => super::row::set(draft, "workers.count", value::count, given),
        None => draft.set("workers.count", 1, "processes/spare: the default pool always has a worker"),
    }
    if options.get("processes").is_none() {
        super::row::set(draft, "workers.max", value::count, most);
    }
    if let Some(idle) = idle {
        draft.not_needed(
            idle.shown(),
            "scaling decides when a worker is no longer needed; pools have an idle_timeout",
        );
    }
}

fn pool(draft: &mut Draft, name: &str, app: &Json, patterns: &[String], from: &str) {
    let options = flattened(app, &format!("applications/{name}"));
    let mut lines = vec![
        ("name", Json::from(name), format!("applications/{name}")),
        ("match", patterns.to_vec().into(), from.to_owned()),
    ];
    let mut push = |key: &'static str, convert: value::As, given: Option<&Given>| {
        if let Some(given) = given
            && let Means::Value(value) = convert(&given.value)
        {
            lines.push((key, value, given.from.clone()));
        }
    };
    if let Some((least, most, idle)) = bounds(&options) {
        let none =
            Given { name: String::new(), value: 0.into(), from: "Unit's default of processes/spare".into() };
        push("min", value::count, Some(least.unwrap_or(&none)));
        push("max", value::count, Some(most));
        push("idle_timeout", value::seconds, idle);
    }
    push("threads", value::count, options.get("threads"));
    push("app_timeout", value::app_seconds, options.get("limits.timeout"));
    draft.pool(lines);
}

fn access_log(draft: &mut Draft, value: &Json) {
    draft.set("log.access", "text", "access_log");
    if let Some(format) = value.get("format") {
        draft.not_carried(
            format!("access_log/format = {}", plain(format)),
            "the access log has two forms: log.access = \"text\" or \"json\"",
        );
    }
    let path = value.get("path").unwrap_or(value);
    draft.not_carried(format!("access_log = {}", plain(path)), LOGS);
}
