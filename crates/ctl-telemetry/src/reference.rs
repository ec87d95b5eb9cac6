//! docs/reference/metrics.md, made from the table.

use std::fmt::Write as _;

use crate::metrics::ALL;

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
    for entry in ALL {
        let label = entry.label.map(|(name, value)| format!("{{{name}=\"{value}\"}}")).unwrap_or_default();
        let (name, kind, help) = (entry.name, entry.metric.kind(), entry.help.trim());
        // Writing to a String cannot fail.
        let _never_fails = writeln!(out, "| `{name}{label}` | {kind} | {help} |");
    }
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
