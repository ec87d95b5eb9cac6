//! Granian: its command line and its GRANIAN_… variables.

use super::draft::Draft;
use super::row::Becomes::{By, No, Same, Set, Together};
use super::row::{Given, Options, Row, option, set, switch};
use super::shell::{self, Before, Server};
use super::{Context, asgi, value};
use value::plain;

pub(super) const SERVER: Server =
    Server { name: "granian", rows: ROWS, before: Before::Environment(before), finish };

const DEV: &str = "for development there is `quintet dev`";
const RUNTIME: &str = "the gateway's threads are server.reactors, chosen for the machine";
const H2: &str = "windows, frames and pings of HTTP/2 are chosen by the gateway";
const CLIENT_CERTIFICATES: &str = "quintet does not ask clients for certificates";
const SAMPLES: &str = "memory is looked at by quintet itself";
const METRICS: &str = "metrics are always there: the admin socket, or admin.bind";

const ROWS: &[Row] = &[
    option(shell::APP, "", Together("`app.callable`")),
    option("host", "--host", Together("`server.bind`")),
    option("port", "--port", Together("`server.bind`")),
    option("uds", "--uds", Together("`server.bind`")),
    option(
        "uds_permissions",
        "--uds-permissions",
        No("set the umask where quintet is started: UMask= in a systemd unit"),
    ),
    option("interface", "--interface", Together("`app.interface`")),
    option("http", "--http", Same("HTTP/1.1 and HTTP/2 are spoken")),
    switch("websockets", "--ws", Same("WebSockets are taken by ASGI apps")),
    option("workers", "--workers", Set("workers.count", value::count)),
    option("blocking_threads", "--blocking-threads", Together("`workers.threads`")),
    option("blocking_threads_idle_timeout", "--blocking-threads-idle-timeout", Same("threads stay")),
    option("runtime_threads", "--runtime-threads", Same(RUNTIME)),
    option("runtime_blocking_threads", "--runtime-blocking-threads", Same(RUNTIME)),
    option("runtime_mode", "--runtime-mode", Same(RUNTIME)),
    option("loop", "--loop", By(asgi::event_loop, "`workers.event_loop`")),
    option("task_impl", "--task-impl", Same("tasks are asyncio's")),
    option("backlog", "--backlog", Set("server.backlog", value::count)),
    option("backpressure", "--backpressure", Together("`workers.concurrency` (ASGI)")),
    option(
        "http1_buffer_size",
        "--http1-buffer-size",
        Same("limits.line_max and limits.headers_max bound the head of a request"),
    ),
    option("http1_header_read_timeout", "--http1-header-read-timeout", Set("timeouts.header", value::millis)),
    switch(
        "http1_keep_alive",
        "--http1-keep-alive",
        By(keep_alive, "nothing: kept connections hold no worker"),
    ),
    switch("http1_pipeline_flush", "--http1-pipeline-flush", Same("answers in a row are written together")),
    option(
        "http2_max_concurrent_streams",
        "--http2-max-concurrent-streams",
        Set("limits.h2_streams_max", value::count),
    ),
    option("http2_max_headers_size", "--http2-max-headers-size", Set("limits.headers_max", value::bytes)),
    option("http2_initial_connection_window_size", "--http2-initial-connection-window-size", Same(H2)),
    option("http2_initial_stream_window_size", "--http2-initial-stream-window-size", Same(H2)),
    option("http2_keep_alive_interval", "--http2-keep-alive-interval", Same(H2)),
    option("http2_keep_alive_timeout", "--http2-keep-alive-timeout", Same(H2)),
    option("http2_max_frame_size", "--http2-max-frame-size", Same(H2)),
    option("http2_max_send_buffer_size", "--http2-max-send-buffer-size", Same(H2)),
    switch("http2_adaptive_window", "--http2-adaptive-window", Same(H2)),
    switch("log_enabled", "--log", By(log, "`log.level`")),
    option("log_level", "--log-level", Set("log.level", value::level)),
    option(
        "log_config",
        "--log-config",
        No("quintet writes its log to standard error in its own form (log.format = \"json\")"),
    ),
    switch("log_access_enabled", "--access-log", Set("log.access", value::access_switch)),
    option(
        "log_access_fmt",
        "--access-log-fmt",
        No("the access log has two forms: log.access = \"text\" or \"json\""),
    ),
    option("ssl_certificate", "--ssl-certificate", Set("tls.certificate", value::text)),
    option("ssl_keyfile", "--ssl-keyfile", Set("tls.key", value::text)),
    option(
        "ssl_keyfile_password",
        "--ssl-keyfile-password",
        No("keys with a password are not read: keep the key readable for the service alone"),
    ),
    option("ssl_protocol_min", "--ssl-protocol-min", Same("TLS 1.2 and 1.3 are spoken")),
    option("ssl_ca", "--ssl-ca", No(CLIENT_CERTIFICATES)),
    option("ssl_crl", "--ssl-crl", No(CLIENT_CERTIFICATES)),
    switch("ssl_client_verify", "--ssl-client-verify", No(CLIENT_CERTIFICATES)),
    option("url_path_prefix", "--url-path-prefix", Set("app.mount", value::text)),
    switch(
        "respawn_failed_workers",
        "--respawn-failed-workers",
        Same("a worker that died is always replaced"),
    ),
    option(
        "respawn_interval",
        "--respawn-interval",
        Same("a worker that dies often is replaced more slowly"),
    ),
    option("rss_sample_interval", "--rss-sample-interval", Same(SAMPLES)),
    option("rss_samples", "--rss-samples", Same(SAMPLES)),
    option("workers_lifetime", "--workers-lifetime", Set("workers.lifetime", value::human_seconds)),
    option("workers_max_rss", "--workers-max-rss", Set("workers.memory_max", value::mebibytes)),
    option(
        "workers_kill_timeout",
        "--workers-kill-timeout",
        Set("server.drain_timeout", value::human_seconds),
    ),
    switch("factory", "--factory", Together("`app.callable`")),
    option("working_dir", "--working-dir", Set("app.dir", value::text)),
    option(
        "env_files",
        "--env-files",
        No("quintet reads no such file: EnvironmentFile= of systemd, or `set -a; . FILE`"),
    ),
    option("static_path_route", "--static-path-route", Together("`files.static_url`, `files.media_url`")),
    option("static_path_mount", "--static-path-mount", Together("`files.static_root`, `files.media_root`")),
    option("static_path_dir_to_file", "--static-path-dir-to-file", No("directories are answered by the app")),
    option("static_path_expires", "--static-path-expires", Set("files.max_age", value::human_seconds)),
    switch("metrics_enabled", "--metrics", Same(METRICS)),
    option("metrics_scrape_interval", "--metrics-scrape-interval", Same(METRICS)),
    option(
        "metrics_address",
        "--metrics-address",
        By(metrics_address, "named: `admin.bind` needs `admin.token_file`"),
    ),
    option(
        "metrics_port",
        "--metrics-port",
        By(metrics_address, "named: `admin.bind` needs `admin.token_file`"),
    ),
    switch("reload", "--reload", No(DEV)),
    option(
        "reload_*",
        "--reload-paths --reload-ignore-dirs --reload-ignore-patterns --reload-ignore-paths --reload-tick",
        No(DEV),
    ),
    switch("reload_ignore_worker_failure", "--reload-ignore-worker-failure", No(DEV)),
    option("process_name", "--process-name", Same("`quintet status` tells instances apart by their project")),
    option(
        "pid_file",
        "--pid-file",
        Same("`quintet status`, `reload` and `stop` find the instance without one"),
    ),
    switch("version", "--version", Same("`quintet version`")),
];

fn before(context: &Context) -> Options {
    shell::prefixed(context, "GRANIAN_")
}

fn keep_alive(draft: &mut Draft, given: &Given) {
    if value::is_on(&given.value) {
        draft.not_needed(given.shown(), "connections are kept");
    } else {
        draft.not_needed(
            given.shown(),
            "keep-alive can stay on: requests, not connections, are given to workers",
        );
    }
}

fn log(draft: &mut Draft, given: &Given) {
    if value::is_on(&given.value) {
        draft.not_needed(given.shown(), "there is always a log");
    } else {
        draft.set("log.level", "error", given.from.clone());
    }
}

fn metrics_address(draft: &mut Draft, given: &Given) {
    draft.not_carried(
        given.shown(),
        "a TCP address needs a secret here: write admin.bind and admin.token_file",
    );
}

fn finish(draft: &mut Draft, options: &Options) {
    asgi::app(draft, options);
    asgi::listen(draft, options, "127.0.0.1", "8000");
    let interface = options.text("interface");
    let from = options.get("interface").map_or_else(String::new, |given| given.from.clone());
    match interface.as_deref() {
        Some(word @ ("asgi" | "wsgi")) => draft.set("app.interface", word, from),
        Some("asginl") => {
            draft.set("app.interface", "asgi", from);
            draft.not_needed("--interface asginl", "lifespan is used by apps that know it");
        }
        _ => draft.not_carried(
            options.get("interface").map_or_else(|| "--interface rsgi, the default".into(), Given::shown),
            "RSGI is spoken by Granian alone: quintet calls the app by WSGI or ASGI, as it looks",
        ),
    }
    let wsgi = interface.as_deref() == Some("wsgi");
    if let Some(given) = options.get("blocking_threads") {
        if wsgi {
            set(draft, "workers.threads", value::count, given);
        } else {
            draft.not_needed(given.shown(), "an ASGI worker takes workers.concurrency requests at one time");
        }
    }
    backpressure(draft, options, wsgi);
    super::name_the_proxy(draft);
    let routes: Vec<_> = options.all("static_path_route").map(|given| plain(&given.value)).collect();
    for (index, given) in options.all("static_path_mount").enumerate() {
        let route = routes.get(index).map_or("/static", String::as_str);
        let url = format!("/{}/", route.trim_matches('/'));
        super::serve_files(draft, &url, &plain(&given.value), &given.from, &given.shown());
    }
}

/// Requests at one time of a worker; what is above waits in the queue.
fn backpressure(draft: &mut Draft, options: &Options, wsgi: bool) {
    let Some(given) = options.get("backpressure") else { return };
    if wsgi {
        draft.not_needed(
            given.shown(),
            "a worker never takes more requests than it has threads; the others wait in the queue (queue.depth_max)",
        );
    } else {
        set(draft, "workers.concurrency", value::count, given);
    }
}
