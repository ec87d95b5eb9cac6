//! The table of metrics in Prometheus' text format (version 0.0.4), in base units.

use std::fmt::Write as _;

use crate::metric::{BUCKETS_S, Histogram};
use crate::metrics::{
    ALL, Entry, Metric, OF_POOLS, OF_SERVERS, OF_UPSTREAMS, OwnEntry, PoolMetrics, Row, ServerMetrics,
    UpstreamMetrics,
};

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric as it stands; those of pools and upstreams under their names, which are plain letters (`worker_pool.name`), those of
/// servers under their upstream's and their own.
pub fn text(
    pools: &[(&str, &PoolMetrics)],
    upstreams: &[(&str, &UpstreamMetrics)],
    servers: &[(String, String, ServerMetrics)],
) -> String {
    let mut out = String::with_capacity(16 << 10);
    out.push_str(
        "# HELP quintet_build_info The version that runs, as a label.\n# TYPE quintet_build_info gauge\n",
    );
    put(&mut out, format_args!("quintet_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION")));
    render(&mut out, ALL);
    let named = |kind: &str, name: &str| format!("{kind}=\"{name}\"");
    render_each(&mut out, OF_POOLS, pools, |name| named("pool", name));
    render_each(&mut out, OF_UPSTREAMS, upstreams, |name| named("upstream", name));
    let servers: Vec<_> =
        servers.iter().map(|(upstream, server, metrics)| ((upstream, server), metrics)).collect();
    render_each(&mut out, OF_SERVERS, &servers, |(upstream, server)| {
        format!("{},server=\"{}\"", named("upstream", upstream), escaped(server))
    });
    out
}

/// Families are the runs of entries with one name: HELP and TYPE stand once before each.
fn render(out: &mut String, entries: &[Entry]) {
    let mut family = "";
    for entry in entries {
        describe(out, &mut family, entry, entry.metric);
        sample(out, entry.name, &labels(None, entry.label), entry.metric);
    }
}

/// What a unix socket's path may hold and a label's value may not.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The same for each of several things, whose names make their labels.
fn render_each<T, N: Copy>(
    out: &mut String,
    entries: &[OwnEntry<T>],
    things: &[(N, &T)],
    own: impl Fn(N) -> String,
) {
    let mut family = "";
    for entry in entries {
        for (name, metrics) in things {
            let metric = (entry.metric)(metrics);
            describe(out, &mut family, entry, metric);
            sample(out, entry.name, &labels(Some(&own(*name)), entry.label), metric);
        }
    }
}

fn describe<M>(out: &mut String, family: &mut &'static str, entry: &Row<M>, metric: Metric<'_>) {
    if std::mem::replace(family, entry.name) != entry.name {
        let (name, help, kind) = (entry.name, entry.help.trim(), metric.kind());
        put(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }
}

/// `a="b",c="d"`, or nothing.
fn labels(own: Option<&str>, fixed: Option<(&str, &str)>) -> String {
    let fixed = fixed.map(|(label, value)| format!("{label}=\"{value}\""));
    own.map(str::to_owned).into_iter().chain(fixed).collect::<Vec<_>>().join(",")
}

fn sample(out: &mut String, name: &str, labels: &str, metric: Metric<'_>) {
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    match metric {
        Metric::Counter(counter) => put(out, format_args!("{name}{braced} {}\n", counter.get())),
        Metric::Gauge(gauge) => put(out, format_args!("{name}{braced} {}\n", gauge.get())),
        Metric::Histogram(histogram) => buckets(out, name, labels, &braced, histogram),
    }
}

/// Buckets count upward: each holds those below it too.
fn buckets(out: &mut String, name: &str, labels: &str, braced: &str, histogram: &Histogram) {
    let comma = if labels.is_empty() { "" } else { "," };
    let (counts, sum) = histogram.read();
    let mut count = 0;
    for (bound, n) in BUCKETS_S.iter().zip(counts) {
        count += n;
        put(out, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}\n"));
    }
    count += counts.last().copied().unwrap_or_default();
    put(out, format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n"));
    let sum = sum.as_secs_f64();
    put(out, format_args!("{name}_sum{braced} {sum}\n{name}_count{braced} {count}\n"));
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _never_fails = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metric::{Counter, Gauge};

    static GOOD: Counter = Counter::new();
    static BAD: Counter = Counter::new();
    static OPEN: Gauge = Gauge::new();
    static TOOK: Histogram = Histogram::new();

    #[test]
    fn a_family_is_described_once_and_buckets_count_upward() {
        let entry = |name, label, help, metric| Row { name, label, help, metric };
        let entries = [
            entry("t_total", Some(("class", "good")), " Cups.", Metric::Counter(&GOOD)),
            entry("t_total", Some(("class", "bad")), " Broken cups.", Metric::Counter(&BAD)),
            entry("t_open", None, " Open now.", Metric::Gauge(&OPEN)),
            entry("t_seconds", None, " Time.", Metric::Histogram(&TOOK)),
        ];
        GOOD.add(3);
        OPEN.add(-1);
        TOOK.observe(Duration::from_micros(700));
        TOOK.observe(Duration::from_secs(11));
        let mut out = String::new();
        render(&mut out, &entries);
        let shown: Vec<&str> =
            out.lines().filter(|line| !line.contains("_bucket") || line.contains("le=\"0.00")).collect();
        assert_eq!(
            shown.join("\n"),
            "# HELP t_total Cups.\n# TYPE t_total counter\nt_total{class=\"good\"} 3\nt_total{class=\"bad\"} 0\n\
             # HELP t_open Open now.\n# TYPE t_open gauge\nt_open -1\n\
             # HELP t_seconds Time.\n# TYPE t_seconds histogram\n\
             t_seconds_bucket{le=\"0.0005\"} 0\nt_seconds_bucket{le=\"0.001\"} 1\n\
             t_seconds_bucket{le=\"0.0025\"} 1\nt_seconds_bucket{le=\"0.005\"} 1\n\
             t_seconds_sum 11.0007\nt_seconds_count 2"
        );
        assert!(out.contains("t_seconds_bucket{le=\"10\"} 1\nt_seconds_bucket{le=\"+Inf\"} 2\n"));
    }

    #[test]
    fn every_pool_has_its_own_samples_in_one_family() {
        let (default, reports) = (PoolMetrics::default(), PoolMetrics::default());
        default.queue_wait.observe(Duration::from_millis(700));
        default.queue_full.add(2);
        reports.queue_shed.inc();
        reports.slots.set(4);
        let api = UpstreamMetrics::default();
        api.connections_open.add(2);
        let server = ServerMetrics::default();
        server.pending.set(3);
        let servers = [("api".to_owned(), "unix:/run/a \"b\"".to_owned(), server)];
        let text = text(&[("default", &default), ("reports", &reports)], &[("api", &api)], &servers);
        let of = |family: &str| {
            let lines = text.lines().filter(|line| line.contains(family) && !line.starts_with("# HELP"));
            lines.collect::<Vec<_>>().join("\n")
        };
        assert_eq!(
            of("quintet_queue_refused_total"),
            "# TYPE quintet_queue_refused_total counter\n\
             quintet_queue_refused_total{pool=\"default\",why=\"full\"} 2\n\
             quintet_queue_refused_total{pool=\"reports\",why=\"full\"} 0\n\
             quintet_queue_refused_total{pool=\"default\",why=\"timeout\"} 0\n\
             quintet_queue_refused_total{pool=\"reports\",why=\"timeout\"} 0\n\
             quintet_queue_refused_total{pool=\"default\",why=\"overload\"} 0\n\
             quintet_queue_refused_total{pool=\"reports\",why=\"overload\"} 1"
        );
        assert!(
            of("quintet_upstream_connections{").ends_with("quintet_upstream_connections{upstream=\"api\"} 2")
        );
        assert!(of("quintet_upstream_server_pending").ends_with(
            "quintet_upstream_server_pending{upstream=\"api\",server=\"unix:/run/a \\\"b\\\"\"} 3"
        ));
        assert!(!text.lines().any(|line| line.starts_with("quintet_slots ")), "no series without its pool");
        assert!(of("quintet_slots{").ends_with("quintet_slots{pool=\"reports\"} 4"));
        let wait = of("quintet_queue_wait_seconds");
        assert!(wait.contains("quintet_queue_wait_seconds_bucket{pool=\"default\",le=\"0.75\"} 1\n"));
        assert!(wait.contains("quintet_queue_wait_seconds_bucket{pool=\"reports\",le=\"+Inf\"} 0\n"));
        assert!(wait.contains("quintet_queue_wait_seconds_sum{pool=\"default\"} 0.7\n"));
        assert!(wait.ends_with("quintet_queue_wait_seconds_count{pool=\"reports\"} 0"));
    }

    /// What Prometheus demands of a table: a family's rows stand together and are of one kind, names are in the
    /// accepted alphabet, counters end in `_total`, durations in `_seconds`, help is one line.
    #[test]
    fn the_table_is_well_formed() {
        let pool = PoolMetrics::default();
        let of_process = ALL.iter().map(|entry| (entry.name, entry.label, entry.help, entry.metric));
        let of_pools =
            OF_POOLS.iter().map(|entry| (entry.name, entry.label, entry.help, (entry.metric)(&pool)));
        let upstream = UpstreamMetrics::default();
        let of_upstreams =
            OF_UPSTREAMS.iter().map(|entry| (entry.name, entry.label, entry.help, (entry.metric)(&upstream)));
        let server = ServerMetrics::default();
        let of_servers =
            OF_SERVERS.iter().map(|entry| (entry.name, entry.label, entry.help, (entry.metric)(&server)));
        let mut closed: Vec<&str> = Vec::new();
        let mut before = None;
        for (name, label, help, metric) in of_process.chain(of_pools).chain(of_upstreams).chain(of_servers) {
            assert!(
                name.starts_with("quintet_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            assert!(!help.contains('\n') && help.trim().ends_with('.'), "{name}");
            match metric {
                Metric::Counter(_) => assert!(name.ends_with("_total"), "{name}"),
                Metric::Gauge(_) => assert!(!name.ends_with("_total"), "{name}"),
                Metric::Histogram(_) => assert!(name.ends_with("_seconds"), "{name}"),
            }
            match before {
                Some((last, label_before, kind)) if last == name => {
                    assert_eq!(kind, metric.kind(), "{name}");
                    assert_ne!(label_before, label, "{name}");
                }
                Some((last, ..)) => closed.push(last),
                None => {}
            }
            assert!(!closed.contains(&name), "the rows of {name} do not stand together");
            before = Some((name, label, metric.kind()));
        }
        assert!(text(&[("default", &pool)], &[], &[]).ends_with('\n'));
    }
}
