//! What becomes of nginx's directives.

use serde_json::Value as Json;

use super::super::draft::Draft;
use super::super::row::Becomes::{By, No, Same, Set, Together};
use super::super::row::{Given, Row, option};
use super::super::value::{self, Means, plain};

const GATEWAY: &str = "the gateway decides it";
const TLS: &str = "TLS has one configuration, a modern one: 1.2 and 1.3, HTTP/2 by ALPN";
const LIMITS: &str = "limits are [[limit]], limits.connections_per_address and limits.bandwidth";
const CACHE: &str = "a cache of responses comes later; until then keep nginx or a CDN before quintet for it";
const HEADERS: &str = "the app sets headers (Django: SecurityMiddleware and the like); quintet adds none";
const APP: &str = "the app, or a proxy before quintet, does this";
const ACCESS: &str = "the app's permissions, or a proxy before quintet";
const COMPRESS: &str =
    "what compresses is compressed (files.compress), and .gz and .br files beside are used";
const BUFFERS: &str =
    "answers are always buffered: memory, then disk (buffers.response_memory, buffers.response_disk)";
pub(super) const FORWARDED: &str = "the app sees client, scheme and host without headers between";

pub(in super::super) const ROWS: &[Row] = &[
    // Looked at with their block.
    option("listen", "", Together("`server.bind`")),
    option("root", "", Together("`files.static_root`, `files.media_root`, or `files` of a `[[route]]`")),
    option("alias", "", Together("`files.static_root`, `files.media_root`, or `files` of a `[[route]]`")),
    option("internal", "", Together("`files.accel`")),
    option("proxy_pass", "", Together("the app, or an `[[upstream]]`")),
    option("uwsgi_pass", "", Together("the app")),
    option("expires", "", Together("`files.max_age`")),
    // Carried.
    option("client_max_body_size", "", Set("limits.body_max", body_size)),
    option("client_body_timeout", "", Set("timeouts.body", value::nginx_time)),
    option("client_header_timeout", "", Set("timeouts.header", value::nginx_time)),
    option("send_timeout", "", Set("timeouts.write", value::nginx_time)),
    option("keepalive_timeout", "", Set("timeouts.keep_alive", value::nginx_time)),
    option("large_client_header_buffers", "", By(header_buffers, "`limits.line_max`, `limits.headers_max`")),
    option("client_body_buffer_size", "", Set("buffers.request_memory", value::nginx_bytes)),
    option("client_body_temp_path", "", Set("buffers.dir", first_text)),
    option("proxy_read_timeout", "", Set("timeouts.app", value::nginx_time)),
    option("uwsgi_read_timeout", "", Set("timeouts.app", value::nginx_time)),
    option("proxy_max_temp_file_size", "", Set("buffers.response_disk", value::nginx_bytes)),
    option("uwsgi_max_temp_file_size", "", Set("buffers.response_disk", value::nginx_bytes)),
    option("gzip", "", By(gzip, "`compression.enabled`, `files.compress`")),
    option("gzip_min_length", "", Set("compression.body_min", value::nginx_bytes)),
    option("ssl_protocols", "", By(protocols, "`tls.min_version`")),
    option("access_log", "", By(access_log, "`log.access`")),
    option("set_real_ip_from", "", By(real_ip_from, "`proxy.trusted`")),
    option("real_ip_header", "", By(real_ip_header, "`proxy.protocol`, or nothing")),
    option("ssl_certificate", "", Set("tls.certificate", value::text)),
    option("ssl_certificate_key", "", Set("tls.key", value::text)),
    option("http2_max_concurrent_streams", "", Set("limits.h2_streams_max", value::count)),
    option("max_headers", "", Set("limits.header_count_max", value::count)),
    // Not carried.
    option("server_name", "", No("Django's ALLOWED_HOSTS decides which names are answered")),
    option("limit_rate", "", Set("limits.bandwidth", rate)),
    option("limit_rate_after", "", Set("limits.bandwidth_after", value::nginx_bytes)),
    option("limit_conn", "", By(limit_conn, "`limits.connections_per_address`")),
    option("limit_req", "", Together("`[[limit]]`")),
    option("limit_req_zone", "", Together("`[[limit]]`")),
    option("limit_conn_zone", "", Same("limits.connections_per_address counts by address")),
    option("limit_req_status", "", Same("too many requests are answered 429")),
    option("limit_conn_status", "", Same("too many connections are answered 503")),
    option("limit_*", "", No(LIMITS)),
    option("proxy_cache*", "", No(CACHE)),
    option("uwsgi_cache*", "", No(CACHE)),
    option("add_header", "", Together("`response_headers` of a `[[route]]`")),
    option("add_trailer", "", No(HEADERS)),
    option("proxy_hide_header", "", No(HEADERS)),
    option("more_set_headers", "", No(HEADERS)),
    option("return", "", Together("`redirect` or `respond` of a `[[route]]`")),
    option("rewrite", "", Together("`rewrite` or `redirect` of a `[[route]]`")),
    option("rewrite_log", "", No(APP)),
    option("if", "", No(APP)),
    option("map", "", By(map, "nothing for $http_upgrade; others are the app's")),
    option("geo*", "", No(APP)),
    option("set", "", No(APP)),
    option("split_clients", "", No(APP)),
    option("error_page", "", No("the app's error pages are shown; the gateway's own are short texts")),
    option(
        "try_files",
        "",
        No("files are served below a prefix (static, media); everything else is the app's"),
    ),
    option("index", "", No("directories are the app's")),
    option("autoindex*", "", No("directories are the app's")),
    option("auth_basic", "", Together("`basic_auth` of a `[[route]]`")),
    option("auth_basic_user_file", "", Together("`basic_auth` of a `[[route]]`")),
    option("auth_request", "", Together("`forward_auth` of a `[[route]]`")),
    option("auth_request_set", "", Together("`forward_auth_headers` of a `[[route]]`")),
    option("auth_*", "", No(ACCESS)),
    option("allow", "", Together("`respond` with 403 in a `[[route]]`, `bans.deny_file`")),
    option("deny", "", Together("`respond` with 403 in a `[[route]]`, `bans.deny_file`")),
    option("satisfy", "", No(ACCESS)),
    option("valid_referers", "", No(ACCESS)),
    option("secure_link*", "", No(ACCESS)),
    option("sub_filter*", "", No(APP)),
    option("ssl_client_certificate", "", No("quintet does not ask clients for certificates")),
    option("ssl_verify_client", "", No("quintet does not ask clients for certificates")),
    option("fastcgi_*", "", No("FastCGI is not spoken")),
    option("grpc_*", "", No("gRPC is not passed on")),
    option("stream", "", No("only HTTP is served")),
    option("mail", "", No("only HTTP is served")),
    option("load_module", "", No("there are no modules")),
    option("js_*", "", No("there are no scripts in the gateway")),
    option("lua_*", "", No("there are no scripts in the gateway")),
    option("perl*", "", No("there are no scripts in the gateway")),
    option("mirror*", "", No("requests go to one app")),
    option("log_format", "", No("the access log has two forms: log.access = \"text\" or \"json\"")),
    option("user", "", No("quintet runs as who starts it; workers.user is for the app alone")),
    option("modsecurity*", "", No("a firewall for requests stands before quintet")),
    // Nothing to say.
    option("include", "", By(include, "followed when it lies beside")),
    option("location", "", Together("`[[route]]`, `files`, `[[worker_pool]]`, `buffers.request_stream`")),
    option("upstream", "", Together("the app, or an `[[upstream]]`")),
    option("default_type", "", Same("types of files are known by their names")),
    option("types*", "", Same("types of files are known by their names")),
    option("charset*", "", Same("text files are UTF-8")),
    option(
        "real_ip_recursive",
        "",
        Same("forwarded addresses are read from the right as long as they are trusted"),
    ),
    option("ssl_*", "", Same(TLS)),
    option("http2*", "", Same("HTTP/2 is on")),
    option("http3*", "", No("HTTP/3 is not spoken yet")),
    option("quic*", "", No("HTTP/3 is not spoken yet")),
    option("gzip_*", "", Same(COMPRESS)),
    option("brotli*", "", Same(COMPRESS)),
    option("zstd*", "", Same(COMPRESS)),
    option("gunzip", "", Same(COMPRESS)),
    option("error_log", "", Same("the log goes to standard error")),
    option("log_not_found", "", Same("only what is odd is logged")),
    option(
        "worker_connections",
        "",
        Same("limits.connections_max bounds the connections of all threads together"),
    ),
    option("worker_*", "", Same("server.reactors is chosen for the machine")),
    option("multi_accept", "", Same(GATEWAY)),
    option("accept_mutex", "", Same(GATEWAY)),
    option("use", "", Same(GATEWAY)),
    option("pid", "", Same("`quintet status`, `reload` and `stop` find the instance without one")),
    option("daemon", "", Same("quintet stays in the foreground")),
    option("env", "", Same("quintet passes its own environment on to the app")),
    option("pcre_jit", "", Same(GATEWAY)),
    option("thread_pool", "", Same(GATEWAY)),
    option("aio*", "", Same(GATEWAY)),
    option("directio*", "", Same(GATEWAY)),
    option("sendfile*", "", Same("files are sent by the kernel where that is possible")),
    option("tcp_*", "", Same(GATEWAY)),
    option("open_file_cache*", "", Same("small files are kept in memory (files.memory)")),
    option("output_buffers", "", Same(GATEWAY)),
    option("postpone_output", "", Same(GATEWAY)),
    option("reset_timedout_connection", "", Same(GATEWAY)),
    option("lingering_*", "", Same(GATEWAY)),
    option("keepalive*", "", Same("connections are kept for timeouts.keep_alive")),
    option(
        "client_header_buffer_size",
        "",
        Same("limits.line_max and limits.headers_max bound the head of a request"),
    ),
    option("client_body_in_*", "", Same("longer bodies go to a file that the app reads directly")),
    option("server_tokens", "", Same("no Server header is added")),
    option("server_names_hash_*", "", Same("Django's ALLOWED_HOSTS decides which names are answered")),
    option("variables_hash_*", "", Same(GATEWAY)),
    option("map_hash_*", "", Same(GATEWAY)),
    option("port_in_redirect", "", Same("redirects are the app's")),
    option("absolute_redirect", "", Same("redirects are the app's")),
    option("merge_slashes", "", Same("paths reach the app as they were sent")),
    option("underscores_in_headers", "", Same("names with underscores never reach the app")),
    option("ignore_invalid_headers", "", Same("invalid headers are refused")),
    option("resolver*", "", Same("there is nothing to resolve")),
    option("etag", "", Same("files have an ETag")),
    option("if_modified_since", "", Same("files answer conditional requests")),
    option("proxy_set_header", "", Together("`request_headers` of a `[[route]]`")),
    option("proxy_redirect", "", Same(FORWARDED)),
    option("proxy_pass_header", "", Same(FORWARDED)),
    option("proxy_pass_request_*", "", Same(FORWARDED)),
    option("proxy_http_version", "", Same(GATEWAY)),
    option(
        "proxy_request_buffering",
        "",
        Same("bodies are read before the app is called; buffers.request_stream names exceptions"),
    ),
    option(
        "uwsgi_request_buffering",
        "",
        Same("bodies are read before the app is called; buffers.request_stream names exceptions"),
    ),
    option("uwsgi_param", "", By(param, "nothing for what the app is told anyway; others are named")),
    option("chunked_transfer_encoding", "", Same(GATEWAY)),
    option("proxy_buffering", "", Same(BUFFERS)),
    option("proxy_buffer*", "", Same(BUFFERS)),
    option("proxy_busy_buffers_size", "", Same(BUFFERS)),
    option("proxy_temp_*", "", Same(BUFFERS)),
    option(
        "proxy_next_upstream*",
        "",
        Same("a request whose worker died is tried once more when that is safe"),
    ),
    option("proxy_*", "", Same("quintet runs the app itself")),
    option("uwsgi_*", "", Same("quintet runs the app itself")),
];

/// Answers of the app, and files.
fn gzip(draft: &mut Draft, given: &Given) {
    let on = value::is_on(&given.value);
    draft.set("files.compress", on, given.from.clone());
    if on {
        draft.set("compression.enabled", true, given.from.clone());
    }
}

/// `TLSv1.2 TLSv1.3`; the older ones are not spoken.
fn protocols(draft: &mut Draft, given: &Given) {
    let text = plain(&given.value);
    let has = |version: &str| text.split(' ').any(|word| word == version);
    if has("TLSv1.3") && !has("TLSv1.2") {
        draft.set("tls.min_version", "1.3", given.from.clone());
    } else if has("TLSv1") || has("TLSv1.1") {
        draft.not_carried(given.shown(), "versions before 1.2 are not spoken (RFC 8996)");
    } else {
        draft.not_needed(given.shown(), TLS);
    }
}

/// Connections of one client; nginx counts those with a request on its way.
fn limit_conn(draft: &mut Draft, given: &Given) {
    let text = plain(&given.value);
    match text.split(' ').nth(1).and_then(|count| count.parse::<u64>().ok()) {
        Some(count) => draft.set("limits.connections_per_address", count, given.from.clone()),
        None => draft.not_carried(given.shown(), "a zone and a number"),
    }
}

/// nginx's 0 is no limit.
fn rate(value: &Json) -> Means {
    if plain(value) == "0" { Means::Same("no limit is the default") } else { value::nginx_bytes(value) }
}

/// nginx's 0 is no limit; the largest of ours comes nearest.
pub(super) fn body_size(value: &Json) -> Means {
    if plain(value) == "0" { Means::Value("1TiB".into()) } else { value::nginx_bytes(value) }
}

fn first_text(value: &Json) -> Means {
    Means::Value(plain(value).split(' ').next().unwrap_or_default().into())
}

/// `4 8k`: four buffers; a request line must fit one of them, all fields together the four.
fn header_buffers(draft: &mut Draft, given: &Given) {
    let text = plain(&given.value);
    let mut parts = text.split(' ').map(Json::from);
    let (Some(number), Some(size)) = (parts.next(), parts.next()) else { return };
    let bytes = match value::nginx_bytes(&size) {
        Means::Value(text) => ctl_config::parse_size(&plain(&text)),
        _ => None,
    };
    let all = bytes.and_then(|bytes| bytes.checked_mul(plain(&number).parse().ok()?));
    match (bytes, all) {
        (Some(bytes), Some(all)) => {
            draft.set("limits.line_max", ctl_config::size_text(bytes), given.from.clone());
            draft.set("limits.headers_max", ctl_config::size_text(all), given.from.clone());
        }
        _ => draft.not_carried(given.shown(), "a number and a size, for example 4 8k"),
    }
}

fn access_log(draft: &mut Draft, given: &Given) {
    let text = plain(&given.value);
    if text == "off" {
        return draft.not_needed(given.shown(), "there is no access log unless log.access says so");
    }
    draft.set("log.access", "text", given.from.clone());
    draft.not_carried(given.shown(), "the access log goes to standard output: redirect it to the file");
}

/// Fields that tell the app of its client, or are about the connection to it.
const TOLD_ANYWAY: [&str; 14] = [
    "host",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-scheme",
    "x-url-scheme",
    "connection",
    "upgrade",
    "accept-encoding",
    "x-request-id",
];

/// A field that tells the app of its client, or is about the connection to it.
pub(super) fn is_told_anyway(name: &str) -> bool {
    TOLD_ANYWAY.contains(&name.to_ascii_lowercase().as_str())
}

/// What `uwsgi_params` holds is in every WSGI environment.
fn param(draft: &mut Draft, given: &Given) {
    const TOLD: [&str; 14] = [
        "QUERY_STRING",
        "REQUEST_METHOD",
        "CONTENT_TYPE",
        "CONTENT_LENGTH",
        "REQUEST_URI",
        "PATH_INFO",
        "DOCUMENT_ROOT",
        "SERVER_PROTOCOL",
        "REQUEST_SCHEME",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "SERVER_PORT",
        "SERVER_NAME",
        "HTTP_HOST",
    ];
    let text = plain(&given.value);
    let name = text.split(' ').next().unwrap_or_default();
    // Without the value, which may be a secret between nginx and the app.
    let shown = format!("{} {name}", given.from);
    if TOLD.contains(&name) {
        draft.not_needed(shown, "the app is told");
    } else if matches!(name, "HTTPS" | "UWSGI_SCHEME") {
        draft.not_carried(
            shown,
            "the scheme is the connection's, or what proxy.trusted tells in X-Forwarded-Proto",
        );
    } else {
        draft.not_carried(shown, "quintet adds no variables to a request: the app has to do without it");
    }
}

/// `map $http_upgrade $connection_upgrade`, which stands in every nginx.conf with WebSockets.
fn map(draft: &mut Draft, given: &Given) {
    if plain(&given.value).starts_with("$http_upgrade ") {
        draft.not_needed(given.shown(), "WebSockets are taken without it");
    } else {
        draft.not_carried(given.shown(), APP);
    }
}

fn real_ip_from(draft: &mut Draft, given: &Given) {
    match value::networks(&given.value) {
        Means::Value(Json::Array(items)) => {
            for item in items {
                // nginx says `unix:`, with the colon.
                let item = if plain(&item).starts_with("unix") { "unix".into() } else { item };
                draft.push("proxy.trusted", item, &given.from);
            }
        }
        _ => draft.not_carried(given.shown(), "an address, or a range of them"),
    }
}

fn real_ip_header(draft: &mut Draft, given: &Given) {
    match plain(&given.value).to_ascii_lowercase().as_str() {
        "x-forwarded-for" => draft.not_needed(given.shown(), "X-Forwarded-For and Forwarded are read"),
        "proxy_protocol" => draft.set("proxy.protocol", true, given.from.clone()),
        _ => draft.not_carried(given.shown(), "X-Forwarded-For and Forwarded are read, no others"),
    }
}

fn include(draft: &mut Draft, given: &Given) {
    if super::file::is_parameters(&plain(&given.value)) {
        draft.not_needed(given.shown(), "types and parameters that are known here");
    } else {
        draft.not_carried(given.shown(), "it does not lie beside this file: import it too");
    }
}
