//! The tables of all metrics: those of the process, and those of each pool and of each upstream by itself.

use crate::metric::{Counter, Gauge, Histogram};

/// Defines each metric as a `static` and lists all of them for exposition and docs.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $kind:ident $ident:ident = $name:literal $({$label:literal = $value:literal})?;)+) => {
        $($(#[doc = $help])+ pub static $ident: $kind = $kind::new();)+

        /// Every metric with its name, help and fixed label, in the order of the table.
        pub static ALL: &[Entry] = &[
            $(Row { name: $name, label: [$(Some(($label, $value)),)? None][0], help: concat!($($help),+), metric: Metric::$kind(&$ident) },)+
        ];
    };
}

/// Defines the metrics of a thing that there are several of as a struct, and lists them for exposition and docs.
macro_rules! metrics_of {
    ($(#[doc = $what:literal])+ $struct:ident, $all:ident {
        $($(#[doc = $help:literal])+ $kind:ident $field:ident = $name:literal $({$label:literal = $value:literal})?;)+
    }) => {
        $(#[doc = $what])+
        #[derive(Debug, Default)]
        pub struct $struct {
            $($(#[doc = $help])+ pub $field: $kind,)+
        }

        /// Every one of these, in the order of the table.
        pub static $all: &[OwnEntry<$struct>] = &[
            $(Row { name: $name, label: [$(Some(($label, $value)),)? None][0], help: concat!($($help),+), metric: |of| Metric::$kind(&of.$field) },)+
        ];
    };
}

/// A row of a table.
#[derive(Debug)]
pub struct Row<M> {
    /// Prometheus name.
    pub name: &'static str,
    /// A fixed label, for families such as responses by class.
    pub label: Option<(&'static str, &'static str)>,
    /// One sentence.
    pub help: &'static str,
    /// The metric itself, or where to find it.
    pub metric: M,
}

/// A metric of the process.
pub type Entry = Row<Metric<'static>>;

/// A metric that each of several things has.
pub type OwnEntry<T> = Row<for<'a> fn(&'a T) -> Metric<'a>>;

/// One of the three kinds.
#[derive(Debug, Clone, Copy)]
pub enum Metric<'a> {
    /// Goes up only.
    Counter(&'a Counter),
    /// Goes up and down.
    Gauge(&'a Gauge),
    /// Durations in buckets.
    Histogram(&'a Histogram),
}

impl Metric<'_> {
    /// The word of Prometheus' TYPE line.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

metrics! {
    /// Client connections accepted.
    Counter CONNECTIONS_TOTAL = "quintet_connections_total";
    /// Client connections open now.
    Gauge CONNECTIONS = "quintet_connections";
    /// Client connections refused because `limits.connections_max` was reached.
    Counter CONNECTIONS_REFUSED_TOTAL = "quintet_connections_refused_total";
    /// Client connections refused because one address had `limits.connections_per_address` open.
    Counter CONNECTIONS_PER_ADDRESS_REFUSED_TOTAL = "quintet_connections_per_address_refused_total";
    /// Times that no descriptor or memory was left to accept a connection.
    Counter ACCEPT_ERRORS_TOTAL = "quintet_accept_errors_total";
    /// Connections of trusted proxies closed for want of a good PROXY protocol header.
    Counter PROXY_HEADER_FAILURES_TOTAL = "quintet_proxy_header_failures_total";
    /// TLS handshakes that failed or took too long.
    Counter TLS_FAILURES_TOTAL = "quintet_tls_failures_total";
    /// HTTP/2 connections ended with ENHANCE_YOUR_CALM: floods of cancelled requests, or of frames that ask for nothing.
    Counter H2_FLOODS_TOTAL = "quintet_http_floods_total";
    /// Requests answered by the app.
    Counter REQUESTS_APP_TOTAL = "quintet_requests_total" {"by" = "app"};
    /// Requests answered from a file.
    Counter REQUESTS_FILE_TOTAL = "quintet_requests_total" {"by" = "file"};
    /// Requests answered by an upstream.
    Counter REQUESTS_UPSTREAM_TOTAL = "quintet_requests_total" {"by" = "upstream"};
    /// Requests answered by the gateway itself.
    Counter REQUESTS_GATEWAY_TOTAL = "quintet_requests_total" {"by" = "gateway"};
    /// Requests refused because their path leads to different routes for those who read it differently.
    Counter ROUTES_DOUBTFUL_TOTAL = "quintet_routes_doubtful_total";
    /// Requests that `forward_auth` let pass.
    Counter FORWARD_AUTH_PASSED_TOTAL = "quintet_forward_auth_total" {"answer" = "passed"};
    /// Requests that `forward_auth` refused.
    Counter FORWARD_AUTH_REFUSED_TOTAL = "quintet_forward_auth_total" {"answer" = "refused"};
    /// Requests that did not pass because `forward_auth` had no answer, or one that is neither yes nor no.
    Counter FORWARD_AUTH_FAILED_TOTAL = "quintet_forward_auth_total" {"answer" = "failed"};
    /// Responses with an informational status.
    Counter RESPONSES_1XX_TOTAL = "quintet_responses_total" {"class" = "1xx"};
    /// Responses of success.
    Counter RESPONSES_2XX_TOTAL = "quintet_responses_total" {"class" = "2xx"};
    /// Redirections.
    Counter RESPONSES_3XX_TOTAL = "quintet_responses_total" {"class" = "3xx"};
    /// Errors of the client.
    Counter RESPONSES_4XX_TOTAL = "quintet_responses_total" {"class" = "4xx"};
    /// Errors of ours or the app's.
    Counter RESPONSES_5XX_TOTAL = "quintet_responses_total" {"class" = "5xx"};
    /// Time from a complete request head to the last byte of the response.
    Histogram REQUEST_SECONDS = "quintet_request_seconds";
    /// Requests refused by a `[[limit]]`.
    Counter LIMIT_REFUSED_TOTAL = "quintet_limit_refused_total";
    /// Requests that had to wait for their turn under a `[[limit]]`.
    Counter LIMIT_DELAYED_TOTAL = "quintet_limit_delayed_total";
    /// Requests that wait for their turn under a `[[limit]]` now.
    Gauge LIMIT_WAITING = "quintet_limit_waiting";
    /// Memory of what limits remember of clients.
    Gauge LIMIT_MEMORY_BYTES = "quintet_limit_memory_bytes";
    /// Clients that a limit forgot before their time because more came than it may remember (`limit.keys_max`).
    Counter LIMIT_FORGOTTEN_TOTAL = "quintet_limit_forgotten_total";
    /// Requests about which this host decided alone, because Redis was away or did not answer within `redis.timeout`.
    Counter LIMIT_ALONE_TOTAL = "quintet_limit_alone_total";
    /// 1 while Redis is there and hosts count together, 0 while it is away or none is named.
    Gauge REDIS_UP = "quintet_redis_up";
    /// Connections to Redis: one for each reactor, and one more.
    Gauge REDIS_CONNECTIONS = "quintet_redis_connections";
    /// Commands that Redis refused or did not answer in time, and connections to it that broke or could not be made.
    Counter REDIS_FAILURES_TOTAL = "quintet_redis_failures_total";
    /// Times Redis went away.
    Counter REDIS_AWAY_TOTAL = "quintet_redis_away_total";
    /// Requests that got the answer of an equal one (`single_flight = "join"`).
    Counter FLIGHT_JOINED_TOTAL = "quintet_single_flight_joined_total";
    /// Requests that joined another, whose answer was not for them: they were worked on by themselves.
    Counter FLIGHT_ALONE_TOTAL = "quintet_single_flight_alone_total";
    /// Requests that had to wait for another of the same user (`single_flight = "queue(n)"`).
    Counter FLIGHT_QUEUED_TOTAL = "quintet_single_flight_queued_total";
    /// Requests that were refused because of another of the same user.
    Counter FLIGHT_REFUSED_TOTAL = "quintet_single_flight_refused_total";
    /// Requests that were broken off by a later one of the same user.
    Counter FLIGHT_CANCELLED_TOTAL = "quintet_single_flight_cancelled_total";
    /// Requests that wait for another, or for its answer, now.
    Gauge FLIGHT_WAITING = "quintet_single_flight_waiting";
    /// Requests with a known Idempotency-Key that got the answer of then.
    Counter IDEMPOTENCY_REPLAYED_TOTAL = "quintet_idempotency_replayed_total";
    /// Requests whose Idempotency-Key was missing or malformed.
    Counter IDEMPOTENCY_MALFORMED_TOTAL = "quintet_idempotency_refused_total" {"why" = "malformed"};
    /// Requests whose Idempotency-Key is being worked on.
    Counter IDEMPOTENCY_OUTSTANDING_TOTAL = "quintet_idempotency_refused_total" {"why" = "outstanding"};
    /// Requests whose Idempotency-Key belongs to another request.
    Counter IDEMPOTENCY_DIFFERS_TOTAL = "quintet_idempotency_refused_total" {"why" = "differs"};
    /// Requests whose Idempotency-Key was used, and whose answer is not there to be given again.
    Counter IDEMPOTENCY_SPENT_TOTAL = "quintet_idempotency_refused_total" {"why" = "spent"};
    /// Requests for whose Idempotency-Key there was no room (`idempotency.keys_max`).
    Counter IDEMPOTENCY_FULL_TOTAL = "quintet_idempotency_refused_total" {"why" = "full"};
    /// Idempotency-Keys that are known now.
    Gauge IDEMPOTENCY_KEYS = "quintet_idempotency_keys";
    /// Memory of their answers.
    Gauge IDEMPOTENCY_MEMORY_BYTES = "quintet_idempotency_memory_bytes";
    /// Clients that are banned now.
    Gauge BANNED = "quintet_banned";
    /// Bans for too many offences.
    Counter BANS_TOTAL = "quintet_bans_total";
    /// Clients that should have been banned when there were `bans.clients_max` already.
    Counter BANS_FULL_TOTAL = "quintet_bans_full_total";
    /// Connections and requests of banned clients that were turned away.
    Counter BANNED_REFUSED_TOTAL = "quintet_banned_refused_total";
    /// WebSockets accepted by the app.
    Counter WEBSOCKETS_TOTAL = "quintet_websockets_total";
    /// Handshakes for which the app chose a subprotocol that the client had not offered. It was left out.
    Counter WEBSOCKET_SUBPROTOCOLS_DROPPED_TOTAL = "quintet_websocket_subprotocols_dropped_total";
    /// Requests sent to a second worker after the first died.
    Counter RETRIES_TOTAL = "quintet_retries_total";
    /// Exchanges whose worker died.
    Counter WORKER_LOST_TOTAL = "quintet_worker_lost_total";
    /// Requests whose app took longer than `timeouts.app`.
    Counter APP_TIMEOUT_TOTAL = "quintet_app_timeout_total";
    /// Request bodies written to a temporary file.
    Counter REQUEST_SPOOLED_TOTAL = "quintet_request_spooled_total";
    /// Response bodies written to a temporary file.
    Counter RESPONSE_SPOOLED_TOTAL = "quintet_response_spooled_total";
    /// Responses that waited for their turn at a bandwidth: `limits.bandwidth`, or a route's.
    Counter RESPONSES_SLOWED_TOTAL = "quintet_responses_slowed_total";
    /// Slots held by responses that stream to a client slower than the app.
    Gauge SLOTS_STREAMING = "quintet_slots_streaming";
    /// Lines of the access log dropped because its reader is too slow.
    Counter ACCESS_LOG_DROPPED_TOTAL = "quintet_access_log_dropped_total";
    /// Memory that small files and compressed variants take.
    Gauge FILES_MEMORY_BYTES = "quintet_files_memory_bytes";
    /// Large files kept open.
    Gauge FILES_OPEN = "quintet_files_open";
    /// Files compressed on the fly.
    Counter FILES_COMPRESSED_TOTAL = "quintet_files_compressed_total";
    /// Answers compressed with gzip.
    Counter COMPRESSED_GZIP_TOTAL = "quintet_compressed_total" {"coding" = "gzip"};
    /// Answers compressed with zstd.
    Counter COMPRESSED_ZSTD_TOTAL = "quintet_compressed_total" {"coding" = "zstd"};
    /// Answers compressed with brotli.
    Counter COMPRESSED_BROTLI_TOTAL = "quintet_compressed_total" {"coding" = "br"};
    /// Bytes of answers before they were compressed.
    Counter COMPRESSION_IN_BYTES_TOTAL = "quintet_compression_in_bytes_total";
    /// Bytes of answers after they were compressed.
    Counter COMPRESSION_OUT_BYTES_TOTAL = "quintet_compression_out_bytes_total";
    /// Time of each step of compression: a whole body, or a piece of a stream.
    Histogram COMPRESSION_SECONDS = "quintet_compression_seconds";
    /// Memory of the encoders of streamed answers.
    Gauge COMPRESSION_MEMORY_BYTES = "quintet_compression_memory_bytes";
    /// Streamed answers sent as they are because encoders took all the memory that they may.
    Counter COMPRESSION_REFUSED_TOTAL = "quintet_compression_refused_total";
    /// Workers started.
    Counter WORKERS_STARTED_TOTAL = "quintet_workers_started_total";
    /// Workers replaced because of their requests, lifetime or memory.
    Counter WORKERS_RECYCLED_TOTAL = "quintet_workers_recycled_total";
    /// Workers that ended without being asked to.
    Counter WORKERS_DIED_TOTAL = "quintet_workers_died_total";
}

metrics_of! {
    /// What is counted for each pool by itself, under its name. There are as many as the configuration has pools.
    PoolMetrics, OF_POOLS {
        /// Time that requests waited for the slot they got.
        Histogram queue_wait = "quintet_queue_wait_seconds";
        /// Requests waiting for a slot now.
        Gauge queue_depth = "quintet_queue_depth";
        /// Requests refused because the queue was full.
        Counter queue_full = "quintet_queue_refused_total" {"why" = "full"};
        /// Requests refused because no slot came free in time.
        Counter queue_timeout = "quintet_queue_refused_total" {"why" = "timeout"};
        /// Requests refused because of overload, before they waited too long.
        Counter queue_shed = "quintet_queue_refused_total" {"why" = "overload"};
        /// Requests dropped from the queue because their client went away.
        Counter queue_gone = "quintet_queue_gone_total";
        /// Slots that workers have opened.
        Gauge slots = "quintet_slots";
        /// Slots that hold a request now.
        Gauge slots_busy = "quintet_slots_busy";
        /// WebSockets and event streams open now.
        Gauge long_lived = "quintet_long_lived";
        /// WebSockets and event streams refused because their workers held `workers.long_lived_max`, or none had a turn for them in time.
        Counter long_lived_refused = "quintet_long_lived_refused_total";
    }
}

metrics_of! {
    /// What is counted for each upstream by itself, under its name. There are as many as the configuration has upstreams.
    UpstreamMetrics, OF_UPSTREAMS {
        /// Requests for an upstream.
        Counter requests = "quintet_upstream_requests_total";
        /// Attempts that came to nothing: no connection, no answer in time, one that broke off or was not understood.
        Counter failures = "quintet_upstream_failures_total";
        /// Requests that were sent to an upstream once more.
        Counter retries = "quintet_upstream_retries_total";
        /// Connections made to an upstream.
        Counter connections = "quintet_upstream_connections_total";
        /// Active health checks of the servers of an upstream.
        Counter health_checks = "quintet_upstream_health_checks_total";
        /// Health checks that found a server not well.
        Counter health_failures = "quintet_upstream_health_failures_total";
        /// Times that the name of a server was asked for, and nobody knew its addresses: those known before were kept.
        Counter resolve_failures = "quintet_upstream_resolve_failures_total";
        /// Connections to an upstream that are open now.
        Gauge connections_open = "quintet_upstream_connections";
        /// WebSockets and event streams of an upstream that are open now.
        Gauge long_lived = "quintet_upstream_long_lived";
    }
}

metrics_of! {
    /// What is told of each server of an upstream, under both names. There are as many as the configuration and its names have
    /// servers, and never more than a thousand are told of.
    ServerMetrics, OF_SERVERS {
        /// 1 while the server gets new requests, 0 while it rests, is down or drained.
        Gauge serving = "quintet_upstream_server_serving";
        /// Requests that the server works on now.
        Gauge pending = "quintet_upstream_server_pending";
        /// Requests that the server was given.
        Counter requests = "quintet_upstream_server_requests_total";
        /// Requests that the server failed with: not reached, no answer, one that was not understood, 5xx.
        Counter failures = "quintet_upstream_server_failures_total";
        /// Times that the server was taken out after failures.
        Counter ejections = "quintet_upstream_server_ejections_total";
    }
}
