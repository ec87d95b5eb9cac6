//! docs/reference/metrics.md, made from the table.

use std::fmt::Write as _;

use crate::metrics::{ALL, OF_POOLS, OF_SERVERS, OF_UPSTREAMS, PoolMetrics, ServerMetrics, UpstreamMetrics};

/// The page, whole. A test compares it with the file.
pub fn reference_markdown() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin listener answers with these, in Prometheus' text format. Durations are in seconds.\n\
         This page is made from `crates/ctl-telemetry/src/metrics.rs`; after a change there run\n\
         `QUINTET_WRITE_DOCS=1 cargo test -p quintet-ctl-telemetry reference`.\n\n\
         | metric | kind | what it tells |\n|---|---|---|\n\
         | `quintet_build_info{version=\"…\"}` | gauge | Always 1; the version that runs is the label. |\n",
    );
    let mut row = |name: &str, labels: &[(&str, &str)], kind: &str, help: &str| {
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a String cannot fail.
        let _never_fails = writeln!(out, "| `{name}{labels}` | {kind} | {} |", help.trim());
    };
    for entry in ALL {
        row(entry.name, entry.label.as_slice(), entry.metric.kind(), entry.help);
    }
    let any = PoolMetrics::default();
    for entry in OF_POOLS {
        let labels: Vec<_> = std::iter::once(("pool", "…")).chain(entry.label).collect();
        row(entry.name, &labels, (entry.metric)(&any).kind(), entry.help);
    }
    let any = UpstreamMetrics::default();
    for entry in OF_UPSTREAMS {
        let labels: Vec<_> = std::iter::once(("upstream", "…")).chain(entry.label).collect();
        row(entry.name, &labels, (entry.metric)(&any).kind(), entry.help);
    }
    let any = ServerMetrics::default();
    for entry in OF_SERVERS {
        let labels = [("upstream", "…"), ("server", "…")];
        row(entry.name, &labels, (entry.metric)(&any).kind(), entry.help);
    }
    out.push_str(
        "\n`pool` is the pool's name as in `quintet status`: \"default\", or that of a `[[worker_pool]]`. \
         `sum without (pool) (…)` is the whole site. `upstream` is the name of an `[[upstream]]`, `server` one of its servers as in the log; a thousand of \
         them are told of at most.\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_reference_page_is_current() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.md");
        if std::env::var_os("QUINTET_WRITE_DOCS").is_some() {
            std::fs::create_dir_all(page.parent().unwrap()).unwrap();
            std::fs::write(&page, reference_markdown()).unwrap();
        }
        let written = std::fs::read_to_string(&page).unwrap();
        assert!(
            written == reference_markdown(),
            "docs/reference/metrics.md is stale: QUINTET_WRITE_DOCS=1 cargo test -p quintet-ctl-telemetry reference"
        );
    }
}
