//! uWSGI: an ini file, or the command line.

use std::path::Path;

use serde_json::Value as Json;

use super::draft::Draft;
use super::row::Becomes::{By, No, Same, Set, Together};
use super::row::{Given, Options, Row, option, set, switch};
use super::shell::{self, Before, Server};
use super::{Context, ini, value};
use crate::failure::Result;
use value::plain;

pub(super) const SERVER: Server = Server { name: "uwsgi", rows: ROWS, before: Before::Files(before), finish };

const PROTOCOL: &str =
    "the uwsgi protocol is not spoken: nginx needs proxy_pass instead of uwsgi_pass, and the bind is HTTP";
const LOGS: &str = "the log goes to standard error and the access log to standard output: redirect them";
const JOBS: &str = "timers, mules and spoolers are no part of it yet: a task queue or the system's timers";
const ROUTES: &str = "routes inside the server are no part of it yet: the app, or the proxy before it";
const HOOKS: &str =
    "hooks are not called: @postfork of quintet for workers, the unit of systemd for commands";
const GREEN: &str =
    "green threads are not used: real ones (workers.threads) or ASGI (workers.concurrency) wait as well";
const EMPEROR: &str = "one instance is one project: a unit of systemd for each instead of an emperor";
const FILES: &str = "found from Django's settings; compressed and hashed files are handled";
const ALWAYS: &str = "always so";
const QUIET: &str = "clients that leave are no errors";
const PATHS: &str =
    "the project directory is on sys.path; for others set PYTHONPATH where quintet is started";
const SCALING: &str = "scaling has one way to decide, by what requests wait for";
const TOUCH: &str = "touching files does nothing: `quintet reload`, or a path unit of systemd that calls it";

const ROWS: &[Row] = &[
    option("module", "* -w", Together("`app.callable`")),
    option("wsgi", "*", Together("`app.callable`")),
    option("wsgi-file", "*", Together("`app.callable`")),
    option("file", "*", Together("`app.callable`")),
    option("callable", "*", Together("`app.callable`")),
    option("mount", "*", No("app.mount takes one prefix; several apps are several instances")),
    switch("manage-script-name", "*", Same("SCRIPT_NAME is set from app.mount")),
    option("chdir", "*", Set("app.dir", value::text)),
    option("chdir2", "*", Set("app.dir", value::text)),
    option("pythonpath", "*", By(python_path, "named: PYTHONPATH")),
    option("pp", "*", By(python_path, "named: PYTHONPATH")),
    option("python-path", "*", By(python_path, "named: PYTHONPATH")),
    option("virtualenv", "* -H", Set("app.python", value::environment_python)),
    option("home", "*", Set("app.python", value::environment_python)),
    option("venv", "*", Set("app.python", value::environment_python)),
    option("pyhome", "*", Set("app.python", value::environment_python)),
    option("env", "*", By(environment, "`app.settings`; others are named")),
    option("processes", "* -p", Together("`workers.count`, with cheaper `workers.max`")),
    option("workers", "*", Together("`workers.count`, with cheaper `workers.max`")),
    option("threads", "*", Together("`workers.threads`")),
    switch("enable-threads", "* -T", Same(ALWAYS)),
    option("cheaper", "*", Together("`workers.count`")),
    option("cheaper-initial", "*", Same("workers.count is where it begins")),
    option("cheaper-*", "*", Same(SCALING)),
    switch(
        "cheap",
        "*",
        No("the default pool always has a worker; a [[worker_pool]] with min = 0 has none until it is asked"),
    ),
    option(
        "idle",
        "*",
        No("the default pool always has a worker; a [[worker_pool]] with min = 0 and idle_timeout has none"),
    ),
    option("http", "*", By(http, "`server.bind`")),
    option("http-socket", "*", By(http, "`server.bind`")),
    option("https", "*", By(https, "`server.bind`, `tls.certificate`, `tls.key`")),
    option("https-socket", "*", By(https, "`server.bind`, `tls.certificate`, `tls.key`")),
    option("socket", "* -s", By(uwsgi_socket, "`server.bind`, as HTTP")),
    option("uwsgi-socket", "*", By(uwsgi_socket, "`server.bind`, as HTTP")),
    option("fastcgi-socket", "*", No("only HTTP is spoken")),
    option("scgi-socket", "*", No("only HTTP is spoken")),
    option("protocol", "*", By(protocol, "nothing for HTTP; others are not spoken")),
    option("chmod-socket", "* -C", No("set the umask where quintet is started: UMask= in a systemd unit")),
    option("chown-socket", "*", No("let systemd make the socket (bind = \"systemd\"), or run as that user")),
    option("listen", "* -l", Set("server.backlog", value::count)),
    option("harakiri", "* -t", Together("`timeouts.app`")),
    switch("harakiri-verbose", "*", Same("the stacks of all threads are logged")),
    option("http-timeout", "*", Together("`timeouts.app`, unless harakiri is shorter")),
    option("socket-timeout", "*", Set("timeouts.write", value::seconds)),
    option("http-keepalive", "*", By(keep_alive, "`timeouts.keep_alive`")),
    switch("http-auto-chunked", "*", Same(ALWAYS)),
    switch("http-websockets", "*", Same("WebSockets are taken by ASGI apps")),
    switch("http-*", "*", Same("the gateway decides it")),
    option("max-requests", "* -R", Set("workers.requests_max", value::count_or_never)),
    option("max-requests-delta", "*", Same("a tenth more or less is always taken")),
    option("min-worker-lifetime", "*", Same("workers that die often are replaced more slowly")),
    option("max-worker-lifetime", "*", Set("workers.lifetime", value::seconds_or_never)),
    option("max-worker-lifetime-delta", "*", Same("a tenth more or less is always taken")),
    option("reload-on-rss", "*", Set("workers.memory_max", value::mebibytes)),
    option("evil-reload-on-rss", "*", Set("workers.memory_max", value::mebibytes)),
    option(
        "reload-on-as",
        "*",
        No("address space says little; workers.memory_max looks at proportional memory"),
    ),
    option(
        "evil-reload-on-as",
        "*",
        No("address space says little; workers.memory_max looks at proportional memory"),
    ),
    option("limit-as", "*", No("limits of the system: LimitAS= or MemoryMax= in a systemd unit")),
    option("worker-reload-mercy", "*", Set("server.drain_timeout", value::seconds)),
    option("reload-mercy", "*", Set("server.drain_timeout", value::seconds)),
    option(
        "buffer-size",
        "* -b",
        By(buffer_size, "`limits.headers_max`; above 8 KiB also `limits.line_max`"),
    ),
    option("post-buffering", "*", Same("bodies are always read before the app is called")),
    option("post-buffering-bufsize", "*", Same("bodies are always read before the app is called")),
    option("limit-post", "*", Set("limits.body_max", value::bytes)),
    option("static-map", "*", Together("`files.static_url` and `_root`, `files.media_url` and `_root`")),
    option("static-map2", "*", Together("`files.static_url` and `_root`, `files.media_url` and `_root`")),
    option("check-static", "*", Same(FILES)),
    option("static-index", "*", No("directories are answered by the app")),
    option(
        "static-expires*",
        "*",
        No("files with a hash in their name are kept for ever, others for files.max_age"),
    ),
    option("static-*", "*", Same(FILES)),
    option("offload-threads", "*", Same("files never pass through Python")),
    option("uid", "*", Set("workers.user", value::text)),
    option("gid", "*", Set("workers.group", value::text)),
    switch("master", "* -M", Same(ALWAYS)),
    switch("vacuum", "*", Same(ALWAYS)),
    switch("need-app", "*", Same(ALWAYS)),
    switch("strict", "*", Same("unknown names are always refused")),
    switch("single-interpreter", "* -i", Same(ALWAYS)),
    switch("die-on-term", "*", Same("SIGTERM stops in order, SIGHUP reloads")),
    switch("exit-on-reload", "*", Same("SIGHUP and `quintet reload` reload without a lost request")),
    switch("no-orphans", "*", Same(ALWAYS)),
    switch("thunder-lock", "*", Same("workers do not accept connections, so there is no herd")),
    switch("lazy-apps", "*", By(lazy, "`workers.preload = false`")),
    switch("lazy", "*", By(lazy, "`workers.preload = false`")),
    option("touch-*", "*", No(TOUCH)),
    option("fs-*", "*", No(TOUCH)),
    option("py-autoreload", "*", No("for development there is `quintet dev`")),
    option("python-autoreload", "*", No("for development there is `quintet dev`")),
    option("py-call-*", "*", Same(ALWAYS)),
    option("stats*", "*", Same("`quintet status`, and /metrics of the admin socket")),
    option("master-fifo", "*", Same("`quintet status`, `reload` and `stop`")),
    option("pidfile*", "*", Same("`quintet status`, `reload` and `stop` find the instance without one")),
    option("safe-pidfile*", "*", Same("`quintet status`, `reload` and `stop` find the instance without one")),
    option("procname*", "*", Same("`quintet status` tells processes apart")),
    switch("auto-procname", "*", Same("`quintet status` tells processes apart")),
    option(
        "daemonize*",
        "* -d",
        No("quintet stays in the foreground: let systemd or the container start it"),
    ),
    switch("disable-logging", "* -L", Same("there is no access log unless log.access says so")),
    switch("log-master", "*", Same(ALWAYS)),
    switch("log-x-forwarded-for", "*", Same("the access log has the client that proxy.trusted tells")),
    option(
        "log-4xx",
        "*",
        No("the access log has all requests or none: log.access = \"json\" is easy to filter"),
    ),
    option(
        "log-5xx",
        "*",
        No("the access log has all requests or none: log.access = \"json\" is easy to filter"),
    ),
    option(
        "log-slow",
        "*",
        No("the access log has the time of each request: log.access = \"json\" is easy to filter"),
    ),
    option("log-format", "*", No("the access log has two forms: log.access = \"text\" or \"json\"")),
    option("logformat", "*", No("the access log has two forms: log.access = \"text\" or \"json\"")),
    option("log*", "*", No(LOGS)),
    option("req-log*", "*", No(LOGS)),
    option("ignore-*", "*", Same(QUIET)),
    switch("disable-write-exception", "*", Same(QUIET)),
    switch("memory-report", "*", Same("`quintet status` shows the memory of each worker")),
    option("plugin*", "*", Same("there are no plugins")),
    option("umask", "*", No("set it where quintet is started: UMask= in a systemd unit")),
    option("cpu-affinity", "*", Same("the kernel places processes")),
    option("reuse-port", "*", Same("all reactors share the listening sockets")),
    option("optimize", "* -O", No("set PYTHONOPTIMIZE where quintet is started")),
    option("route*", "*", No(ROUTES)),
    option("error-route*", "*", No(ROUTES)),
    option("response-route*", "*", No(ROUTES)),
    option("add-header", "*", No("the app sets headers (Django: a middleware)")),
    option("cron*", "*", No(JOBS)),
    option("mule*", "*", No(JOBS)),
    option("spooler*", "*", No(JOBS)),
    option("timer", "*", No(JOBS)),
    option("import", "*", No(JOBS)),
    option("shared-import", "*", No(JOBS)),
    option("attach-daemon*", "*", No("another program: a unit of systemd for it")),
    option("smart-attach-daemon*", "*", No("another program: a unit of systemd for it")),
    option("cache*", "*", No("the app's CACHES: Redis, memcached or Django's own")),
    option("gevent*", "*", No(GREEN)),
    option("async", "*", No(GREEN)),
    switch("ugreen", "*", No(GREEN)),
    option("asyncio", "*", No("ASGI instead: app.interface = \"asgi\"")),
    option("emperor*", "*", No(EMPEROR)),
    option("vassal*", "*", No(EMPEROR)),
    option("hook-*", "*", No(HOOKS)),
    option("exec-*", "*", No(HOOKS)),
    option("ini", "*", No("another file: import it too")),
    option("include", "*", No("another file: import it too")),
    option("inherit", "*", No("another file: import it too")),
    option("if-*", "*", No("conditions are not read: what stands in them was taken as if they held")),
    switch("endif", "*", Same("the end of a condition")),
    option("for*", "*", No("loops are not read")),
    switch("endfor", "*", Same("the end of a loop")),
    option("set-placeholder", "*", Same("placeholders are filled in")),
    option("set-ph", "*", Same("placeholders are filled in")),
    option("show-config", "*", Same("`quintet config show`")),
];

/// An ini file.
pub(super) fn import(name: &str, text: &str, dir: &Path) -> Draft {
    let mut draft = Draft::new(name);
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let (pairs, odd) = ini::read(text, "uwsgi", &dir.join(name));
    for (line, text) in odd {
        draft.not_needed(format!("line {line}: {text}"), "it stands outside the section [uwsgi]");
    }
    let values: Vec<_> = pairs.iter().map(|pair| pair.value.clone()).collect();
    let mut options = Options::default();
    for pair in pairs {
        let placeholder = || values.iter().any(|value| value.contains(&format!("%({})", pair.key)));
        let used = text.contains(&format!("%({})", pair.key)) || placeholder();
        if super::row::find(ROWS, &pair.key).is_none() && used {
            draft.not_needed(
                format!("line {}: {}", pair.line, pair.key),
                "a placeholder, filled in where it is used",
            );
            continue;
        }
        let from = format!("line {}: {}", pair.line, pair.key);
        options.0.push(Given { name: pair.key, value: value_of(&pair.value), from });
    }
    shell::finish(&mut draft, &SERVER, &options);
    draft
}

/// `true` and `false` are switches; everything else is text. `$(NAME)` is the environment's.
fn value_of(text: &str) -> Json {
    match text {
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        text => text.into(),
    }
}

/// `uwsgi --ini FILE …` and `uwsgi FILE.ini`: the file, then the options.
fn before(given: &Options, context: &Context) -> Result<Options> {
    let app =
        given.text(shell::APP).filter(|app| Path::new(app).extension().is_some_and(|ending| ending == "ini"));
    let Some(file) = given.text("ini").or(app) else { return Ok(Options::default()) };
    let path = context.dir.join(&file);
    let text = super::read(&path)?;
    let (pairs, _) = ini::read(&text, "uwsgi", &path);
    let option = |pair: ini::Pair| Given {
        from: format!("{file}:{}: {}", pair.line, pair.key),
        value: value_of(&pair.value),
        name: pair.key,
    };
    Ok(Options(pairs.into_iter().map(option).collect()))
}

fn python_path(draft: &mut Draft, given: &Given) {
    draft.not_carried(given.shown(), PATHS);
}

fn environment(draft: &mut Draft, given: &Given) {
    let text = plain(&given.value);
    let (name, value) = text.split_once('=').unwrap_or((&text, ""));
    shell::environment(draft, name, value, &format!("{} {name}={value}", given.from));
}

fn lazy(draft: &mut Draft, given: &Given) {
    if value::is_on(&given.value) {
        draft.set("workers.preload", false, given.from.clone());
    } else {
        draft.not_needed(given.shown(), "it is off");
    }
}

fn address(text: &str) -> String {
    if text.starts_with('/') || text.starts_with("./") { format!("unix:{text}") } else { text.to_owned() }
}

fn push_address(draft: &mut Draft, address: &str, given: &Given) {
    match super::row::variable(&address.into(), "server.bind") {
        Some(why) => draft.not_carried(given.shown(), why),
        None => draft.push("server.bind", address, &given.from),
    }
}

fn http(draft: &mut Draft, given: &Given) {
    push_address(draft, &address(&plain(&given.value)), given);
}

/// `:443,cert.pem,key.pem,…`.
fn https(draft: &mut Draft, given: &Given) {
    let text = plain(&given.value);
    let mut parts = text.split(',');
    push_address(draft, &address(parts.next().unwrap_or_default()), given);
    for key in ["tls.certificate", "tls.key"] {
        if let Some(path) = parts.next() {
            draft.set(key, path, given.from.clone());
        }
    }
    for rest in parts {
        draft.not_carried(format!("{}: {rest}", given.from), "TLS has one configuration, a modern one");
    }
}

fn uwsgi_socket(draft: &mut Draft, given: &Given) {
    push_address(draft, &address(&plain(&given.value)), given);
    draft.not_carried(given.shown(), PROTOCOL);
}

fn protocol(draft: &mut Draft, given: &Given) {
    match plain(&given.value).as_str() {
        "http" => draft.not_needed(given.shown(), "HTTP is what is spoken"),
        _ => draft.not_carried(given.shown(), PROTOCOL),
    }
}

/// The request line and all fields share it.
fn buffer_size(draft: &mut Draft, given: &Given) {
    set(draft, "limits.headers_max", value::bytes, given);
    if value::number(&given.value).is_some_and(|size| size > ctl_config::Limits::default().line_max as f64) {
        set(draft, "limits.line_max", value::bytes, given);
    }
}

/// The shorter one is what a client meets; 0 is none of both.
fn time_limit(draft: &mut Draft, options: &Options) {
    let limits = ["harakiri", "http-timeout"].into_iter().filter_map(|name| options.get(name));
    let length = |given: &Given| match value::number(&given.value) {
        Some(0.0) => f64::INFINITY,
        Some(seconds) => seconds,
        // Nothing that could be compared: it is told why it is not carried.
        None => f64::NEG_INFINITY,
    };
    let mut limits: Vec<_> = limits.collect();
    limits.sort_by(|one, other| length(one).total_cmp(&length(other)));
    let Some((shortest, others)) = limits.split_first() else { return };
    set(draft, "timeouts.app", value::app_seconds, shortest);
    for other in others {
        draft.not_needed(other.shown(), format!("{} is shorter", shortest.from));
    }
}

fn keep_alive(draft: &mut Draft, given: &Given) {
    match value::number(&given.value) {
        // `http-keepalive = 1` is the switch of old, anything above seconds.
        Some(seconds) if seconds > 1.0 => set(draft, "timeouts.keep_alive", value::seconds, given),
        _ => draft.not_needed(given.shown(), "connections are kept; timeouts.keep_alive says how long"),
    }
}

fn finish(draft: &mut Draft, options: &Options) {
    app(draft, options);
    let processes = options.get("processes").or_else(|| options.get("workers"));
    match (options.get("cheaper"), processes) {
        (Some(least), Some(most)) => {
            set(draft, "workers.count", value::count, least);
            set(draft, "workers.max", value::count, most);
        }
        (Some(least), None) => set(draft, "workers.count", value::count, least),
        // Without `cheaper` the number of processes is fixed, as it is here without `workers.max`.
        (None, Some(count)) => set(draft, "workers.count", value::count, count),
        (None, None) => {}
    }
    match options.get("threads") {
        Some(given) => set(draft, "workers.threads", value::count, given),
        None => draft.set(
            "workers.threads",
            1,
            "uWSGI's default; more threads help an app that waits, if it is thread-safe",
        ),
    }
    time_limit(draft, options);
    super::name_the_proxy(draft);
    static_maps(draft, options);
}

fn app(draft: &mut Draft, options: &Options) {
    let name = options.text("callable").unwrap_or_else(|| "application".into());
    if let Some(given) = options.get("module").or_else(|| options.get("wsgi")) {
        let mut given = given.clone();
        let text = plain(&given.value);
        if !text.contains(':') {
            given.value = format!("{text}:{name}").into();
        }
        return set(draft, "app.callable", value::callable, &given);
    }
    let Some(given) = options.get("wsgi-file").or_else(|| options.get("file")) else { return };
    let path = plain(&given.value);
    let dir = options.text("chdir").map(|dir| format!("{}/", dir.trim_end_matches('/')));
    let inside = dir.as_deref().and_then(|dir| path.strip_prefix(dir)).unwrap_or(&path);
    let inside = inside.strip_prefix("./").unwrap_or(inside);
    match inside.strip_suffix(".py").filter(|inside| !inside.starts_with('/')) {
        Some(module) => {
            draft.set("app.callable", format!("{}:{name}", module.replace('/', ".")), given.from.clone());
        }
        None => draft.not_carried(
            given.shown(),
            "a file outside the project directory: name its module in app.callable",
        ),
    }
}

fn static_maps(draft: &mut Draft, options: &Options) {
    let maps = options.0.iter().filter(|given| matches!(given.name.as_str(), "static-map" | "static-map2"));
    for given in maps {
        let text = plain(&given.value);
        let Some((url, dir)) = text.split_once('=') else {
            draft.not_carried(given.shown(), "the form is /prefix=/directory");
            continue;
        };
        let url = format!("/{}/", url.trim_matches('/'));
        // static-map2 puts the prefix behind the directory.
        let dir = if given.name == "static-map2" { value::join(dir, &url) } else { dir.to_owned() };
        super::serve_files(draft, &url, &dir, &given.from, &given.shown());
    }
}
