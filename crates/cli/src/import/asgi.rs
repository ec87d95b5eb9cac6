//! The ASGI servers uvicorn, Hypercorn and Daphne: their command lines.

use serde_json::Value as Json;

use super::draft::Draft;
use super::row::Becomes::{By, No, Same, Set, Together};
use super::row::{Given, Options, Row, option, set, switch, variable};
use super::shell::{self, Before, Server};
use super::{Context, value};
use value::plain;

pub(super) const UVICORN: Server = Server {
    name: "uvicorn",
    rows: UVICORN_ROWS,
    before: Before::Environment(uvicorn_before),
    finish: uvicorn_finish,
};
pub(super) const HYPERCORN: Server =
    Server { name: "hypercorn", rows: HYPERCORN_ROWS, before: Before::Nothing, finish: hypercorn_finish };
pub(super) const DAPHNE: Server =
    Server { name: "daphne", rows: DAPHNE_ROWS, before: Before::Nothing, finish: daphne_finish };

const DEV: &str = "for development there is `quintet dev`";
const LOGS: &str =
    "quintet writes its log to standard error in its own form (log.format = \"json\" for machines)";
const HEADER: &str = "the app sets headers (Django: a middleware); quintet adds none";
const SERVER_HEADER: &str = "no Server header is added";
const CLIENT_CERTIFICATES: &str = "quintet does not ask clients for certificates";
const KEY_PASSWORD: &str = "keys with a password are not read: keep the key readable for the service alone";
const ONE_PARSER: &str = "there is one parser, and it is quintet's";
const ACCESS_FORM: &str = "the access log has two forms: log.access = \"text\" or \"json\"";

const UVICORN_ROWS: &[Row] = &[
    option(shell::APP, "", Together("`app.callable`")),
    option("host", "--host", Together("`server.bind`")),
    option("port", "--port", Together("`server.bind`")),
    option("uds", "--uds", Together("`server.bind`")),
    option("fd", "--fd", Together("`server.bind`")),
    switch("reload", "--reload", No(DEV)),
    option("reload_*", "--reload-dir --reload-include --reload-exclude --reload-delay", No(DEV)),
    option("workers", "--workers", Set("workers.count", value::count)),
    option("loop", "--loop", By(event_loop, "`workers.event_loop`")),
    option("http", "--http", Same(ONE_PARSER)),
    switch("http2", "--http2", Same("HTTP/2 is spoken")),
    option("ws", "--ws", Same("WebSockets are spoken by the gateway")),
    option("ws_max_size", "--ws-max-size", Set("websocket.message_max", value::message_bytes)),
    option("ws_max_queue", "--ws-max-queue", Same("a slow app holds its client back, message by message")),
    option("ws_ping_interval", "--ws-ping-interval", Set("websocket.ping_interval", value::seconds)),
    option("ws_ping_timeout", "--ws-ping-timeout", Set("websocket.ping_timeout", value::seconds)),
    option("ws_per_message_deflate", "--ws-per-message-deflate", Set("websocket.compress", value::switch)),
    option("lifespan", "--lifespan", Same("lifespan is used by apps that know it")),
    option("interface", "--interface", By(interface, "`app.interface`")),
    option(
        "env_file",
        "--env-file",
        No("quintet reads no such file: EnvironmentFile= of systemd, or `set -a; . FILE`"),
    ),
    option("log_config", "--log-config", No(LOGS)),
    option("log_level", "--log-level", Set("log.level", value::level)),
    switch("access_log", "--access-log", Set("log.access", value::access_switch)),
    switch("use_colors", "--use-colors", Same("colours are used on a terminal")),
    switch("proxy_headers", "--proxy-headers", Together("`proxy.trusted`")),
    switch("server_header", "--server-header", Same(SERVER_HEADER)),
    switch("date_header", "--date-header", Same("the Date header is always sent")),
    option("forwarded_allow_ips", "--forwarded-allow-ips", Together("`proxy.trusted`")),
    option("root_path", "--root-path", Set("app.mount", value::text)),
    option("limit_concurrency", "--limit-concurrency", By(limit_concurrency, "`workers.concurrency`")),
    option("backlog", "--backlog", Set("server.backlog", value::count)),
    option("limit_max_requests", "--limit-max-requests", Set("workers.requests_max", value::count_or_never)),
    option(
        "limit_max_requests_jitter",
        "--limit-max-requests-jitter",
        Same("a tenth more or less is always taken"),
    ),
    option("timeout_keep_alive", "--timeout-keep-alive", Set("timeouts.keep_alive", value::seconds)),
    option(
        "timeout_graceful_shutdown",
        "--timeout-graceful-shutdown",
        Set("server.drain_timeout", value::seconds),
    ),
    option(
        "timeout_worker_healthcheck",
        "--timeout-worker-healthcheck",
        Same("workers that hang are noticed by their requests"),
    ),
    option("ssl_keyfile", "--ssl-keyfile", Set("tls.key", value::text)),
    option("ssl_certfile", "--ssl-certfile", Set("tls.certificate", value::text)),
    option("ssl_keyfile_password", "--ssl-keyfile-password", No(KEY_PASSWORD)),
    option("ssl_version", "--ssl-version", Same("TLS 1.2 and 1.3 are spoken")),
    option("ssl_cert_reqs", "--ssl-cert-reqs", No(CLIENT_CERTIFICATES)),
    option("ssl_ca_certs", "--ssl-ca-certs", No(CLIENT_CERTIFICATES)),
    option("ssl_ciphers", "--ssl-ciphers", Same("only modern cipher suites are offered")),
    option("header", "--header", No(HEADER)),
    switch("version", "--version", Same("`quintet version`")),
    option("app_dir", "--app-dir", Set("app.dir", value::text)),
    option(
        "h11_max_incomplete_event_size",
        "--h11-max-incomplete-event-size",
        Set("limits.headers_max", value::bytes),
    ),
    switch("reset_contextvars", "--reset-contextvars", Same("each request has a context of its own")),
    switch("factory", "--factory", Together("`app.callable`")),
];

const HYPERCORN_ROWS: &[Row] = &[
    option(shell::APP, "", Set("app.callable", value::callable)),
    option("access_log", "--access-log --access-logfile", Set("log.access", value::access_log)),
    option("access_logformat", "--access-logformat", No(ACCESS_FORM)),
    option("backlog", "--backlog", Set("server.backlog", value::count)),
    option("bind", "-b --bind", By(bind, "`server.bind`")),
    option("ca_certs", "--ca-certs", No(CLIENT_CERTIFICATES)),
    option("certfile", "--certfile", Set("tls.certificate", value::text)),
    option("cert_reqs", "--cert-reqs --verify-mode", No(CLIENT_CERTIFICATES)),
    option("ciphers", "--ciphers", Same("only modern cipher suites are offered")),
    option(
        "config",
        "-c --config",
        No("Hypercorn's configuration files are not read, only its command line"),
    ),
    switch(
        "daemon",
        "-D --daemon",
        No("quintet stays in the foreground: let systemd or the container start it"),
    ),
    switch("debug", "--debug", No(DEV)),
    option("error_log", "--error-log --error-logfile --log-file", Same("the log goes to standard error")),
    option("graceful_timeout", "--graceful-timeout", Set("server.drain_timeout", value::seconds)),
    option("read_timeout", "--read-timeout", Set("timeouts.body", value::seconds)),
    option("max_requests", "--max-requests", Set("workers.requests_max", value::count_or_never)),
    option("max_requests_jitter", "--max-requests-jitter", Same("a tenth more or less is always taken")),
    option("group", "-g --group", Set("workers.group", value::account)),
    option("worker_class", "-k --worker-class", By(event_loop, "`workers.event_loop`")),
    option("keep_alive", "--keep-alive", Set("timeouts.keep_alive", value::seconds)),
    option("keyfile", "--keyfile", Set("tls.key", value::text)),
    option("keyfile_password", "--keyfile-password", No(KEY_PASSWORD)),
    option(
        "insecure_bind",
        "--insecure-bind",
        No("with tls.certificate every TCP address speaks TLS: redirect from HTTP before quintet"),
    ),
    option("log_config", "--log-config", No(LOGS)),
    option("log_level", "--log-level", Set("log.level", value::level)),
    option("pid", "-p --pid", Same("`quintet status`, `reload` and `stop` find the instance without one")),
    option("quic_bind", "--quic-bind", No("HTTP/3 is not spoken yet")),
    switch("reload", "--reload", No(DEV)),
    option("root_path", "--root-path", Set("app.mount", value::text)),
    option("server_name", "--server-name", No("Django's ALLOWED_HOSTS decides which names are answered")),
    option(
        "statsd_*",
        "--statsd-host --statsd-prefix",
        No("metrics are fetched, not sent: Prometheus form at /metrics of admin.bind"),
    ),
    option("umask", "-m --umask", No("set it where quintet is started: UMask= in a systemd unit")),
    option("user", "-u --user", Set("workers.user", value::account)),
    option(
        "websocket_ping_interval",
        "--websocket-ping-interval",
        Set("websocket.ping_interval", value::seconds),
    ),
    option("workers", "-w --workers", Set("workers.count", value::count)),
];

const DAPHNE_ROWS: &[Row] = &[
    option(shell::APP, "", Set("app.callable", value::callable)),
    option("port", "-p --port", Together("`server.bind`")),
    option("host", "-b --bind", Together("`server.bind`")),
    option("uds", "-u --unix-socket", Together("`server.bind`")),
    option("fd", "--fd", Together("`server.bind`")),
    option(
        "endpoint",
        "-e --endpoint",
        No("Twisted's endpoints are not read: write server.bind and tls.certificate"),
    ),
    option(
        "websocket_timeout",
        "--websocket_timeout",
        No("WebSockets may stay as long as both sides answer"),
    ),
    option(
        "websocket_connect_timeout",
        "--websocket_connect_timeout",
        Same("timeouts.app bounds the handshake"),
    ),
    option("verbosity", "-v --verbosity", By(verbosity, "`log.level`, `log.access`")),
    option("http_timeout", "-t --http-timeout", Set("timeouts.app", value::app_seconds)),
    option("access_log", "--access-log", Set("log.access", value::access_log)),
    option("log_fmt", "--log-fmt", No(LOGS)),
    option("ping_interval", "--ping-interval", Set("websocket.ping_interval", value::seconds)),
    option("ping_timeout", "--ping-timeout", Set("websocket.ping_timeout", value::seconds)),
    option(
        "websocket_max_message_size",
        "--websocket-max-message-size",
        Set("websocket.message_max", value::message_bytes),
    ),
    option(
        "websocket_max_frame_size",
        "--websocket-max-frame-size",
        Same("websocket.message_max bounds frames too"),
    ),
    option(
        "application_close_timeout",
        "--application-close-timeout",
        Same("an app that does not end is noticed by timeouts.app"),
    ),
    option("root_path", "--root-path", Set("app.mount", value::text)),
    switch(
        "proxy_headers",
        "--proxy-headers",
        No("name the proxy's address in proxy.trusted; its headers are then believed"),
    ),
    option(
        "proxy_headers_*",
        "--proxy-headers-host --proxy-headers-port",
        No("X-Forwarded-For and Forwarded are read, no others"),
    ),
    option("server_name", "-s --server-name", Same(SERVER_HEADER)),
    switch("no_server_name", "--no-server-name", Same(SERVER_HEADER)),
];

/// The variables without a prefix are defaults of the options.
fn uvicorn_before(context: &Context) -> Options {
    let defaults = [("WEB_CONCURRENCY", "workers"), ("FORWARDED_ALLOW_IPS", "forwarded_allow_ips")];
    shell::named(context, &defaults).over(shell::prefixed(context, "UVICORN_"))
}

fn bind(draft: &mut Draft, given: &Given) {
    match variable(&given.value, "server.bind") {
        Some(why) => draft.not_carried(given.shown(), why),
        None => draft.push("server.bind", value::address(&plain(&given.value)), &given.from),
    }
}

pub(super) fn event_loop(draft: &mut Draft, given: &Given) {
    match plain(&given.value).as_str() {
        "auto" => draft.not_needed(given.shown(), "auto is the default"),
        "asyncio" | "uvloop" => set(draft, "workers.event_loop", value::text, given),
        _ => draft.not_carried(given.shown(), "the event loops are asyncio and uvloop"),
    }
}

fn interface(draft: &mut Draft, given: &Given) {
    match plain(&given.value).as_str() {
        "auto" => draft.not_needed(given.shown(), "auto is the default"),
        "asgi3" => draft.set("app.interface", "asgi", given.from.clone()),
        "wsgi" => draft.set("app.interface", "wsgi", given.from.clone()),
        _ => draft.not_carried(given.shown(), "apps of ASGI 2 need asgiref's guarantee_single_callable"),
    }
}

fn limit_concurrency(draft: &mut Draft, given: &Given) {
    set(draft, "workers.concurrency", value::count, given);
    draft.not_carried(
        given.shown(),
        "what is above it waits in the queue (queue.depth_max, timeouts.queue) instead of being refused at once",
    );
}

fn verbosity(draft: &mut Draft, given: &Given) {
    match plain(&given.value).as_str() {
        "0" => draft.set("log.level", "warn", given.from.clone()),
        "1" => draft.set("log.access", "text", given.from.clone()),
        _ => draft.set("log.level", "debug", given.from.clone()),
    }
}

/// Address from host, port, unix socket and descriptor; one of the latter two is stronger.
pub(super) fn listen(draft: &mut Draft, options: &Options, host: &str, port: &str) {
    let Some(stronger) = sockets(draft, options) else {
        return host_and_port(draft, options, host, port);
    };
    for weaker in ["host", "port"].into_iter().filter_map(|name| options.get(name)) {
        draft.not_needed(weaker.shown(), format!("{} counts", stronger.from));
    }
}

/// The unix socket and the descriptor, when there are any; one of them.
fn sockets<'a>(draft: &mut Draft, options: &'a Options) -> Option<&'a Given> {
    let mut found = None;
    for (name, form) in [("uds", "unix:"), ("fd", "fd:")] {
        let Some(given) = options.get(name) else { continue };
        found.get_or_insert(given);
        match variable(&given.value, "server.bind") {
            Some(why) => draft.not_carried(given.shown(), why),
            None => draft.push("server.bind", format!("{form}{}", plain(&given.value)), &given.from),
        }
    }
    found
}

fn host_and_port(draft: &mut Draft, options: &Options, host: &str, port: &str) {
    let given = [options.get("host"), options.get("port")];
    let from: Vec<_> = given.iter().flatten().map(|given| given.from.as_str()).collect();
    if from.is_empty() {
        return;
    }
    let host = options.text("host").unwrap_or_else(|| host.to_owned());
    let port = options.text("port").unwrap_or_else(|| port.to_owned());
    let address = value::host_port(&host, &port);
    match variable(&address.as_str().into(), "server.bind") {
        Some(why) => draft.not_carried(from.join(", "), why),
        None => draft.push("server.bind", address, &from.join(", ")),
    }
}

/// `APP`, and `()` behind it when it is a factory.
pub(super) fn app(draft: &mut Draft, options: &Options) {
    let Some(app) = options.get(shell::APP) else { return };
    let factory = options.get("factory").is_some_and(|given| value::is_on(&given.value));
    let mut app = app.clone();
    if factory {
        app.value = format!("{}()", plain(&app.value)).into();
        app.from.push_str(", --factory");
    }
    set(draft, "app.callable", value::callable, &app);
}

fn uvicorn_finish(draft: &mut Draft, options: &Options) {
    app(draft, options);
    listen(draft, options, "127.0.0.1", "8000");
    let off = options.get("proxy_headers").is_some_and(|given| !value::is_on(&given.value));
    if let Some(given) = options.get("forwarded_allow_ips") {
        if off {
            draft.not_needed(given.shown(), "--no-proxy-headers: nobody is trusted");
        } else {
            set(draft, "proxy.trusted", value::networks, given);
        }
    } else if !off {
        let from = "uvicorn's default of --forwarded-allow-ips: a proxy on this machine";
        draft.set("proxy.trusted", ["127.0.0.1", "::1"].map(Json::from).to_vec(), from);
    }
    default_interface(draft, options);
}

/// `--proxy-headers` has had its answer.
fn name_the_proxy(draft: &mut Draft, options: &Options) {
    if options.get("proxy_headers").is_none() {
        super::name_the_proxy(draft);
    }
}

fn hypercorn_finish(draft: &mut Draft, options: &Options) {
    name_the_proxy(draft, options);
    default_interface(draft, options);
}

fn daphne_finish(draft: &mut Draft, options: &Options) {
    name_the_proxy(draft, options);
    // It listens on all that it is given.
    sockets(draft, options);
    host_and_port(draft, options, "127.0.0.1", "8000");
    default_interface(draft, options);
}

/// These servers run ASGI, whatever the settings module says.
fn default_interface(draft: &mut Draft, options: &Options) {
    if options.get("interface").is_none() {
        draft.set("app.interface", "asgi", "what this server runs");
    }
}
