//! The table of metrics in Prometheus' text format (version 0.0.4), in base units.

use std::fmt::Write as _;

use crate::metric::{BUCKETS_S, Histogram};
use crate::metrics::{ALL, Entry, Metric};

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric as it stands.
pub fn text() -> String {
    let mut out = String::with_capacity(16 << 10);
    out.push_str(
        "# HELP quintet_build_info The version that runs, as a label.\n# TYPE quintet_build_info gauge\n",
    );
    put(&mut out, format_args!("quintet_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION")));
    render(&mut out, ALL);
    out
}

/// Families are the runs of entries with one name: HELP and TYPE stand once before each.
fn render(out: &mut String, entries: &[Entry]) {
    let mut family = "";
    for entry in entries {
        let name = entry.name;
        if name != family {
            family = name;
            let (help, kind) = (entry.help.trim(), entry.metric.kind());
            put(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        match entry.metric {
            Metric::Counter(counter) => sample(out, entry, counter.get()),
            Metric::Gauge(gauge) => sample(out, entry, gauge.get()),
            Metric::Histogram(histogram) => buckets(out, name, histogram),
        }
    }
}

fn sample(out: &mut String, entry: &Entry, value: impl std::fmt::Display) {
    let name = entry.name;
    match entry.label {
        Some((label, of)) => put(out, format_args!("{name}{{{label}=\"{of}\"}} {value}\n")),
        None => put(out, format_args!("{name} {value}\n")),
    }
}

/// Buckets count upward: each holds those below it too.
fn buckets(out: &mut String, name: &str, histogram: &Histogram) {
    let (counts, sum) = histogram.read();
    let mut count = 0;
    for (bound, n) in BUCKETS_S.iter().zip(counts) {
        count += n;
        put(out, format_args!("{name}_bucket{{le=\"{bound}\"}} {count}\n"));
    }
    count += counts.last().copied().unwrap_or_default();
    put(out, format_args!("{name}_bucket{{le=\"+Inf\"}} {count}\n"));
    put(out, format_args!("{name}_sum {}\n{name}_count {count}\n", sum.as_secs_f64()));
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
        let entry = |name, label, help, metric| Entry { name, label, help, metric };
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

    /// What Prometheus demands of a table: a family's rows stand together and are of one kind, names are in the
    /// accepted alphabet, counters end in `_total`, durations in `_seconds`, help is one line.
    #[test]
    fn the_table_is_well_formed() {
        let mut closed: Vec<&str> = Vec::new();
        let mut before: Option<&Entry> = None;
        for entry in ALL {
            let name = entry.name;
            assert!(
                name.starts_with("quintet_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            assert!(!entry.help.contains('\n') && entry.help.trim().ends_with('.'), "{name}");
            match entry.metric {
                Metric::Counter(_) => assert!(name.ends_with("_total"), "{name}"),
                Metric::Gauge(_) => assert!(!name.ends_with("_total"), "{name}"),
                Metric::Histogram(_) => assert!(name.ends_with("_seconds"), "{name}"),
            }
            match before {
                Some(last) if last.name == name => {
                    assert_eq!(last.metric.kind(), entry.metric.kind(), "{name}");
                    assert_ne!(last.label, entry.label, "{name}");
                }
                Some(last) => closed.push(last.name),
                None => {}
            }
            assert!(!closed.contains(&name), "the rows of {name} do not stand together");
            before = Some(entry);
        }
        assert!(text().ends_with('\n'));
    }
}
