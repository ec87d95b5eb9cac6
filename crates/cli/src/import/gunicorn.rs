//! gunicorn: gunicorn.conf.py (by the project's Python, since it is Python), GUNICORN_CMD_ARGS, and the command line.

use std::path::Path;

use serde_json::Value as Json;

use super::draft::Draft;
use super::row::Becomes::{By, No, Same, Set, Together};
use super::row::{Given, Options, Row, option, set, switch};
use super::shell::{self, Before, Server};
use super::words::{self, Token};
use super::{Context, value};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::import::python;
use value::{Means, plain};

pub(super) const SERVER: Server =
    Server { name: "gunicorn", rows: ROWS, before: Before::Files(before), finish };

const LOGS: &str =
    "quintet writes its log to standard error in its own form (log.format = \"json\" for machines)";
const HOOK: &str = "hooks of gunicorn are not called; what each worker must do after the fork goes into a function \
                    with quintet's @postfork";
const CLIENT_CERTIFICATES: &str = "quintet does not ask clients for certificates";
const DIRTY: &str = "dirty workers: use a task queue, or [[worker_pool]] for slow paths";
const STRICT: &str = "quintet's parser is strict and has no switch for it";

const ROWS: &[Row] = &[
    option("config", "-c --config", Together("read as well")),
    option(shell::APP, "", Set("app.callable", value::callable)),
    option("wsgi_app", "", Set("app.callable", value::callable)),
    option("bind", "-b --bind", By(bind, "`server.bind`")),
    option("backlog", "--backlog", Set("server.backlog", value::count)),
    option("workers", "-w --workers", Set("workers.count", value::count)),
    option("worker_class", "-k --worker-class", Together("`app.interface`, `workers.threads`")),
    option("threads", "--threads", Together("`workers.threads`")),
    option(
        "worker_connections",
        "--worker-connections",
        By(connections, "nothing: connections cost no worker"),
    ),
    option("max_requests", "--max-requests", Set("workers.requests_max", value::count_or_never)),
    option("max_requests_jitter", "--max-requests-jitter", Same("a tenth more or less is always taken")),
    option("timeout", "-t --timeout", Set("timeouts.app", value::app_seconds)),
    option("graceful_timeout", "--graceful-timeout", Set("server.drain_timeout", value::seconds)),
    option("keepalive", "--keep-alive", Set("timeouts.keep_alive", value::seconds)),
    option("limit_request_line", "--limit-request-line", By(request_line, "`limits.line_max`")),
    option("limit_request_fields", "--limit-request-fields", Set("limits.header_count_max", value::count)),
    option(
        "limit_request_field_size",
        "--limit-request-field_size",
        By(field_size, "`limits.headers_max`, which bounds all fields together, when it is above"),
    ),
    switch("reload", "--reload", No("for development there is `quintet dev`")),
    option("reload_engine", "--reload-engine", Same("`quintet dev` is told by the kernel")),
    option("reload_extra_files", "--reload-extra-file", No("`quintet dev` watches the project directory")),
    switch("spew", "--spew", No("there is no trace of every line; try sys.settrace in the app")),
    switch("check_config", "--check-config", Same("`quintet check` is the command for it")),
    switch("print_config", "--print-config", Same("`quintet config show` is the command for it")),
    switch("preload_app", "--preload", Set("workers.preload", value::switch)),
    switch("sendfile", "--sendfile", Same("files are always sent by the kernel where that is possible")),
    switch("reuse_port", "--reuse-port", Same("all reactors share the listening sockets")),
    option("chdir", "--chdir", Set("app.dir", value::text)),
    switch(
        "daemon",
        "-D --daemon",
        No("quintet stays in the foreground: let systemd or the container start it"),
    ),
    option("raw_env", "-e --env", By(raw_env, "`app.settings`; others are named")),
    option(
        "pidfile",
        "-p --pid",
        Same("`quintet status`, `reload` and `stop` find the instance without one"),
    ),
    option("worker_tmp_dir", "--worker-tmp-dir", Same("workers write no heartbeat files")),
    option("user", "-u --user", Set("workers.user", value::account)),
    option("group", "-g --group", Set("workers.group", value::account)),
    option("umask", "-m --umask", No("set it where quintet is started: UMask= in a systemd unit")),
    switch("initgroups", "--initgroups", Same("workers always get the groups of their user")),
    option("tmp_upload_dir", "", Set("buffers.dir", value::text)),
    option(
        "secure_scheme_headers",
        "",
        Same("X-Forwarded-Proto and Forwarded of proxy.trusted are believed"),
    ),
    option("forwarded_allow_ips", "--forwarded-allow-ips", By(trusted, "`proxy.trusted`")),
    option("accesslog", "--access-logfile", By(access_log, "`log.access`")),
    switch(
        "disable_redirect_access_to_syslog",
        "--disable-redirect-access-to-syslog",
        Same("nothing goes to syslog"),
    ),
    option(
        "access_log_format",
        "--access-logformat",
        No("the access log has two forms: log.access = \"text\" or \"json\""),
    ),
    option("errorlog", "--error-logfile --log-file", By(error_log, "nothing: standard error")),
    option("loglevel", "--log-level", Set("log.level", value::level)),
    switch(
        "capture_output",
        "--capture-output",
        Same("what the app prints goes to standard output and error"),
    ),
    option("logger_class", "--logger-class", No(LOGS)),
    option("logconfig", "--log-config", No(LOGS)),
    option("logconfig_dict", "", No(LOGS)),
    option("logconfig_json", "--log-config-json", No(LOGS)),
    option("syslog_addr", "--log-syslog-to", No(LOGS)),
    switch("syslog", "--log-syslog", No(LOGS)),
    option("syslog_prefix", "--log-syslog-prefix", No(LOGS)),
    option("syslog_facility", "--log-syslog-facility", No(LOGS)),
    switch(
        "enable_stdio_inheritance",
        "-R --enable-stdio-inheritance",
        Same("workers inherit standard output and error"),
    ),
    option(
        "statsd_host",
        "--statsd-host",
        No("metrics are fetched, not sent: Prometheus form at /metrics of admin.bind"),
    ),
    option("dogstatsd_tags", "--dogstatsd-tags", No("labels are added by who fetches /metrics")),
    option("statsd_prefix", "--statsd-prefix", No("metrics begin with quintet_")),
    switch("enable_backlog_metric", "--enable-backlog-metric", Same("the queue has metrics")),
    option("proc_name", "-n --name", Same("`quintet status` tells instances apart by their project")),
    option("default_proc_name", "", Same("`quintet status` tells instances apart by their project")),
    option(
        "pythonpath",
        "--pythonpath",
        No("set PYTHONPATH where quintet is started; the project directory is on sys.path"),
    ),
    option(
        "paste",
        "--paste --paster",
        No("PasteDeploy files are not read: name the app as MODULE:CALLABLE"),
    ),
    option("raw_paste_global_conf", "--paste-global", No("PasteDeploy files are not read")),
    option("on_*", "", No(HOOK)),
    option("when_ready", "", No(HOOK)),
    option("pre_*", "", No(HOOK)),
    option("post_*", "", No(HOOK)),
    option("worker_int", "", No(HOOK)),
    option(
        "worker_abort",
        "",
        No("a worker that hangs logs the stacks of its threads by itself; hooks are not called"),
    ),
    option("child_exit", "", No(HOOK)),
    option("worker_exit", "", No("hooks are not called; atexit functions run when a worker ends")),
    option("nworkers_changed", "", No(HOOK)),
    option("ssl_context", "", No("TLS has one configuration, a modern one: tls.certificate and tls.key")),
    option("proxy_protocol", "--proxy-protocol", Set("proxy.protocol", value::switch)),
    option("proxy_allow_ips", "--proxy-allow-from", By(trusted, "`proxy.trusted`")),
    option("protocol", "--protocol", By(protocol, "nothing for HTTP; others are not spoken")),
    option(
        "uwsgi_allow_ips",
        "--uwsgi-allow-from",
        No("the uwsgi protocol is not spoken: HTTP, as in nginx's proxy_pass"),
    ),
    option("keyfile", "--keyfile", Set("tls.key", value::text)),
    option("certfile", "--certfile", Set("tls.certificate", value::text)),
    option("ssl_version", "--ssl-version", Same("TLS 1.2 and 1.3 are spoken")),
    option("cert_reqs", "--cert-reqs", No(CLIENT_CERTIFICATES)),
    option("ca_certs", "--ca-certs", No(CLIENT_CERTIFICATES)),
    switch("suppress_ragged_eofs", "--suppress-ragged-eofs", Same("clients that end TLS early are no error")),
    switch(
        "do_handshake_on_connect",
        "--do-handshake-on-connect",
        Same("timeouts.tls_handshake bounds the handshake"),
    ),
    option("ciphers", "--ciphers", Same("only modern cipher suites are offered")),
    option("http_protocols", "--http-protocols", Same("HTTP/1.1 and HTTP/2 are spoken")),
    option(
        "http2_cleartext",
        "--http2-cleartext",
        Same("HTTP/2 is spoken without TLS too, when a client begins with it"),
    ),
    option(
        "http2_max_concurrent_streams",
        "--http2-max-concurrent-streams",
        Set("limits.h2_streams_max", value::count),
    ),
    option(
        "http2_initial_window_size",
        "--http2-initial-window-size",
        Same("windows are chosen by the gateway"),
    ),
    option("http2_max_frame_size", "--http2-max-frame-size", Same("frames are chosen by the gateway")),
    option(
        "http2_max_header_list_size",
        "--http2-max-header-list-size",
        Set("limits.headers_max", value::bytes),
    ),
    switch("permit_obsolete_folding", "--permit-obsolete-folding", No(STRICT)),
    switch("strip_header_spaces", "--strip-header-spaces", No(STRICT)),
    switch(
        "permit_unconventional_http_method",
        "--permit-unconventional-http-method",
        Same("every token is a method"),
    ),
    switch("permit_unconventional_http_version", "--permit-unconventional-http-version", No(STRICT)),
    switch("casefold_http_method", "--casefold-http-method", No(STRICT)),
    option("forwarder_headers", "--forwarder-headers", Same("names with underscores never reach the app")),
    option("header_map", "--header-map", Same("names with underscores never reach the app")),
    option("asgi_loop", "--asgi-loop", Set("workers.event_loop", value::text)),
    option("asgi_lifespan", "--asgi-lifespan", Same("lifespan is used by apps that know it")),
    option(
        "asgi_disconnect_grace_period",
        "--asgi-disconnect-grace-period",
        Same("an app hears of a client that left at once"),
    ),
    option(
        "websocket_max_message_size",
        "--websocket-max-message-size",
        Set("websocket.message_max", value::message_bytes),
    ),
    option("http_parser", "--http-parser", Same("there is one parser")),
    option("root_path", "--root-path", Set("app.mount", value::text)),
    option(
        "dirty_*",
        "--dirty-app --dirty-workers --dirty-timeout --dirty-threads --dirty-graceful-timeout",
        No(DIRTY),
    ),
    option("control_socket", "--control-socket", Same("`quintet status` has a socket of its own")),
    option("control_socket_mode", "--control-socket-mode", Same("`quintet status` has a socket of its own")),
    switch("control_socket_disable", "--no-control-socket", Same("`quintet status` has a socket of its own")),
    // A name of the file that is no setting, see `from_python`.
    option("?*", "", Same("no setting of gunicorn, so it has no effect there either")),
    switch("no_sendfile", "--no-sendfile", Same("files never pass through Python")),
];

/// gunicorn.conf.py alone, and GUNICORN_CMD_ARGS over it.
pub(super) fn import_file(file: &Path, name: &str, context: &Context) -> Result<Draft> {
    let mut draft = Draft::new(name);
    let options = defaults(context).over(from_python(file, context)?).over(from_environment(context)?);
    shell::finish(&mut draft, &SERVER, &options);
    Ok(draft)
}

/// What gunicorn reads where nothing is named.
const USUAL: &str = "gunicorn.conf.py";

/// What is weaker than the command line.
fn before(given: &Options, context: &Context) -> Result<Options> {
    let environment = from_environment(context)?;
    let named = given.text("config").or_else(|| environment.text("config"));
    let options = match named.as_deref() {
        Some(module) if module.starts_with("python:") => {
            let failure = Failure::new(Exit::Usage, format!("the configuration {module} is a module"));
            return Err(failure.hint("name its file instead"));
        }
        Some(file) => {
            let file = file.strip_prefix("file:").unwrap_or(file);
            beside(file, context)?
        }
        None if context.dir.join(USUAL).is_file() => beside(USUAL, context)?,
        None => Options::default(),
    };
    Ok(defaults(context).over(options).over(environment))
}

/// A file that the command line leads to, whose name each line then tells: nobody has named it to us.
fn beside(file: &str, context: &Context) -> Result<Options> {
    let mut options = from_python(&context.dir.join(file), context)?;
    for option in &mut options.0 {
        option.from = format!("{file}: {}", option.from);
    }
    Ok(options)
}

/// Variables that stand for an option nobody has given: weaker than the file.
fn defaults(context: &Context) -> Options {
    shell::named(context, &[("WEB_CONCURRENCY", "workers"), ("FORWARDED_ALLOW_IPS", "forwarded_allow_ips")])
}

fn from_environment(context: &Context) -> Result<Options> {
    let mut options = Options::default();
    if let Some(line) = context.variable("GUNICORN_CMD_ARGS") {
        let tokens = words::tokens(line)
            .map_err(|why| Failure::new(Exit::Usage, format!("GUNICORN_CMD_ARGS: {why}")))?;
        let words: Vec<&str> = tokens.iter().map(Token::text).collect();
        let mut given = shell::arguments(ROWS, &words);
        for option in &mut given.0 {
            option.from = format!("GUNICORN_CMD_ARGS: {}", option.from);
        }
        options = options.over(given);
    }
    Ok(options)
}

fn from_python(file: &Path, context: &Context) -> Result<Options> {
    let mut options = Options::default();
    for python::Global { name, value, imported, computed } in python::globals(file, context)? {
        let known = super::row::find(ROWS, &name).is_some();
        if known || !imported {
            let from = if computed { format!("{name} (computed here)") } else { name.clone() };
            options.0.push(Given { from, name: if known { name } else { format!("?{name}") }, value });
        }
    }
    Ok(options)
}

fn bind(draft: &mut Draft, given: &Given) {
    let items = match &given.value {
        Json::Array(items) => items.iter().map(plain).collect(),
        other => plain(other).split(',').map(str::to_owned).collect::<Vec<_>>(),
    };
    for item in items {
        match super::row::variable(&item.as_str().into(), "server.bind") {
            Some(why) => draft.not_carried(given.shown(), why),
            None => draft.push("server.bind", value::address(&item), &given.from),
        }
    }
}

fn request_line(draft: &mut Draft, given: &Given) {
    // 0 is "no limit"; the largest that quintet allows comes nearest.
    if value::number(&given.value) == Some(0.0) {
        draft.set("limits.line_max", "256KiB", given.from.clone());
    } else {
        set(draft, "limits.line_max", value::bytes, given);
    }
}

/// A limit of one field; what may be longer than all fields together may be here must not be refused.
fn field_size(draft: &mut Draft, given: &Given) {
    /// 0 is "no limit"; the largest that quintet allows comes nearest.
    const MOST: &str = "512KiB";
    match value::number(&given.value) {
        Some(0.0) => draft.set("limits.headers_max", MOST, given.from.clone()),
        Some(bytes) if bytes > ctl_config::Limits::default().headers_max as f64 => {
            set(draft, "limits.headers_max", value::bytes, given);
        }
        _ => draft.not_needed(given.shown(), "limits.headers_max bounds all fields together"),
    }
}

/// Whose headers and whose PROXY protocol are believed is one list here.
fn trusted(draft: &mut Draft, given: &Given) {
    match value::networks(&given.value) {
        Means::Value(Json::Array(networks)) => {
            for network in networks {
                draft.push("proxy.trusted", network, &given.from);
            }
        }
        _ => draft.not_needed(given.shown(), "nobody is trusted by default"),
    }
}

/// Whom gunicorn believes: this machine unless told otherwise, and everybody at a unix socket.
fn proxies(draft: &mut Draft, options: &Options) {
    if options.get("forwarded_allow_ips").is_none() {
        let from = "gunicorn's default of forwarded_allow_ips: a proxy on this machine";
        for network in ["127.0.0.1", "::1"] {
            draft.push("proxy.trusted", network, from);
        }
    }
    let is_unix = |address: &Json| plain(address).starts_with("unix:");
    if draft.get("server.bind").and_then(Json::as_array).is_some_and(|bound| bound.iter().any(is_unix)) {
        draft.push("proxy.trusted", "unix", "gunicorn believes who comes by a unix socket");
    }
}

fn connections(draft: &mut Draft, given: &Given) {
    draft.not_needed(
        given.shown(),
        "connections are held by the gateway and cost no worker; limits.connections_max bounds them",
    );
}

fn protocol(draft: &mut Draft, given: &Given) {
    match plain(&given.value).as_str() {
        "http" => draft.not_needed(given.shown(), "HTTP is what is spoken"),
        _ => {
            draft
                .not_carried(given.shown(), "only HTTP is spoken: proxy_pass instead of uwsgi_pass in nginx");
        }
    }
}

fn raw_env(draft: &mut Draft, given: &Given) {
    let items = match &given.value {
        Json::Array(items) => items.iter().map(plain).collect(),
        other => vec![plain(other)],
    };
    for item in items {
        let (name, value) = item.split_once('=').unwrap_or((item.as_str(), ""));
        shell::environment(draft, name, value, &format!("{}: {name}={value}", given.from));
    }
}

fn access_log(draft: &mut Draft, given: &Given) {
    set(draft, "log.access", value::access_log, given);
    if !matches!(plain(&given.value).as_str(), "" | "-" | "none" | "None") {
        draft.not_carried(given.shown(), "the access log goes to standard output: redirect it to the file");
    }
}

fn error_log(draft: &mut Draft, given: &Given) {
    match plain(&given.value).as_str() {
        "-" | "" => draft.not_needed(given.shown(), "the log goes to standard error"),
        _ => draft.not_carried(given.shown(), "the log goes to standard error: redirect it to the file"),
    }
}

/// Only the sync worker is silent while it works on a request. The others show that they live from beside it.
fn time_limit(draft: &mut Draft, options: &Options, is_sync: bool) {
    let limit = options.get("timeout").filter(|given| value::number(&given.value).is_some_and(|n| n > 0.0));
    if let Some(given) = limit.filter(|_| !is_sync) {
        draft.not_carried(
            given.shown(),
            "with these workers of gunicorn it did not bound requests, here it does (timeouts.app): raise it if some take longer",
        );
    }
}

/// Worker class and threads belong together.
fn finish(draft: &mut Draft, options: &Options) {
    proxies(draft, options);
    let class = options.get("worker_class");
    let name = class.map_or_else(|| "sync".into(), |given| plain(&given.value));
    let short = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let threads = options.get("threads");
    let from = class.map_or_else(|| "worker_class".into(), |given| given.from.clone());
    let is_sync = matches!(short.as_str(), "sync" | "syncworker")
        && threads.is_none_or(|given| plain(&given.value) == "1");
    time_limit(draft, options, is_sync);
    match short.as_str() {
        "sync" | "gthread" | "threadworker" | "syncworker" => {
            if let Some(class) = class {
                draft.not_needed(
                    class.shown(),
                    "workers have threads; workers.threads = 1 is the sync worker",
                );
            }
            match threads {
                Some(given) => set(draft, "workers.threads", value::count, given),
                None => draft.set(
                    "workers.threads",
                    1,
                    "gunicorn's default; more threads help an app that waits, if it is thread-safe",
                ),
            }
        }
        "uvicornworker" | "uvicornh11worker" | "asgi" | "asgiworker" => {
            draft.set("app.interface", "asgi", from);
            if short == "uvicornh11worker" {
                draft.set(
                    "workers.event_loop",
                    "asyncio",
                    class.map(|given| given.from.clone()).unwrap_or_default(),
                );
            }
        }
        "gevent" | "eventlet" | "gevent_pywsgi" | "gevent_wsgi" | "geventworker" | "eventletworker" => {
            draft.not_carried(
                class.map(Given::shown).unwrap_or_default(),
                "green threads are not used: real ones (workers.threads) or ASGI (workers.concurrency) wait as well",
            );
            if let Some(given) = threads.filter(|given| plain(&given.value) != "1") {
                set(draft, "workers.threads", value::count, given);
            }
        }
        // A class of one's own, in most cases with other options for uvicorn.
        name if name.contains("uvicorn") => {
            draft.set("app.interface", "asgi", from);
            let why = "what it changes in uvicorn's worker is not known here; its options are those of `quintet config show`";
            draft.not_carried(class.map(Given::shown).unwrap_or_default(), why);
        }
        _ => draft.not_carried(
            class.map(Given::shown).unwrap_or_default(),
            "a worker class that has no counterpart; WSGI apps get threads, ASGI apps an event loop",
        ),
    }
}
