//! `[[worker_pool]]` from the file to the structs, and what can be wrong with it.

use proptest::prelude::*;

use super::*;
use crate::testing::{loaded, sources, wrong};
use crate::{FlagValues, Origin, Style, load};

#[test]
fn pools_in_the_order_of_the_file() {
    let loaded = loaded(
        r#"
[[worker_pool]]
match = "/reports/*"
min = 0
max = 3
app_timeout = "10m"
idle_timeout = "5m"

[workers]
count = 2

[[worker_pool]]
name = "exports"
match = ["/export", "/shops/*/export"]
min = 2
threads = 1
"#,
    );
    let [reports, exports] = loaded.config.worker_pool.as_slice() else { panic!("{:?}", loaded.config) };
    assert_eq!(
        *reports,
        WorkerPool {
            name: "reports".into(),
            matches: vec!["/reports/*".into()],
            min: 0,
            max: Some(3),
            app_timeout: Some(Duration::from_secs(600)),
            idle_timeout: Some(Duration::from_secs(300)),
            ..WorkerPool::default()
        }
    );
    assert_eq!(
        (exports.name.as_str(), exports.min, exports.max, exports.most(), exports.threads),
        ("exports", 2, None, 2, Some(1))
    );
    assert_eq!(loaded.origin("worker_pool[0].min").to_string(), "quintet.toml:4");
    assert_eq!(loaded.origin("worker_pool[1].threads").to_string(), "quintet.toml:16");
    assert_eq!(loaded.origin("worker_pool[1].max"), &Origin::Default);
    assert_eq!(loaded.config.workers.count, Some(2));
}

#[test]
fn what_is_left_away() {
    let pool = &loaded("[[worker_pool]]\nmatch = \"/slow\"\nmin = 0\n").config.worker_pool[0];
    assert_eq!((pool.min, pool.most(), pool.idle_timeout), (0, 1, Some(Duration::from_secs(60))));
    assert!(loaded("").config.worker_pool.is_empty());
    for (pattern, name) in [
        ("/reports/*", "reports"),
        ("/shops/*/export", "shops-export"),
        ("/*.pdf", "pdf"),
        ("/*", "all"),
        ("/default", "default-path"),
    ] {
        assert_eq!(name_of(pattern), name);
        assert_eq!(check_name(name), Ok(()));
    }
}

#[test]
fn wrong_values() {
    insta::assert_snapshot!(wrong(
        r#"
[[worker_pool]]
match = "reports/*"
min = -1
max = 2000
idle_timeout = "soon"

[[worker_pool]]
match = ["/a", "/ä b", "^/b/", "/c?d"]
name = "a b"
app_timeout = 0

[[worker_pool]]
name = "default"
"#
    ));
}

#[test]
fn wrong_keys() {
    insta::assert_snapshot!(wrong(
        r#"
[[worker_pool]]
match = "/a/*"
workers = 3
mach = "/b"
timeout = "3s"
memory_max = "1GiB"
colour = "red"
threads.count = 1

[[worker_pools]]
match = "/c"
"#
    ));
}

#[test]
fn pools_that_do_not_go_together() {
    insta::assert_snapshot!(wrong(
        r#"
[[worker_pool]]
match = "/a/*"
min = 4
max = 2

[[worker_pool]]
match = ["/b", "/a/b/*"]

[[worker_pool]]
name = "b"
match = []
"#
    ));
}

#[test]
fn other_forms() {
    insta::assert_snapshot!("one_table", wrong("[worker_pool]\nmatch = \"/a\"\n"));
    let many: Vec<_> = (0..=POOLS_MAX).map(|at| format!("[[worker_pool]]\nmatch = \"/a{at}/*\"\n")).collect();
    insta::assert_snapshot!("too_many", wrong(&many.concat()));
}

#[test]
fn neither_environment_nor_flags() {
    let mut sources = sources("");
    sources.environment = vec![("QUINTET_WORKER_POOL_MATCH".into(), "/a".into())];
    let warnings: Vec<_> = load(&sources)
        .unwrap()
        .warnings
        .iter()
        .map(|text| text.render("warning", Style::default()))
        .collect();
    insta::assert_snapshot!("environment", warnings.join(""));
    sources.flags = vec![FlagValues {
        key: "worker_pool.match".into(),
        shown: "--set".into(),
        values: vec!["/a".into()],
    }];
    insta::assert_snapshot!("flag", load(&sources).unwrap_err().to_string());
}

/// The supervisor and the gateway get the configuration as JSON.
#[test]
fn json_and_back() {
    let config = loaded("[[worker_pool]]\nmatch = \"/slow\"\nqueue_timeout = \"1m\"\n").config;
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(serde_json::from_value::<crate::Config>(json).unwrap(), config);
}

#[test]
fn patterns() {
    for (pattern, path, matches) in [
        ("/export", "/export", true),
        ("/export", "/export/", false),
        ("/export", "/exports", false),
        ("/reports/*", "/reports/", true),
        ("/reports/*", "/reports/2026/11", true),
        ("/reports/*", "/reports", false),
        ("/reports/*", "/reporting/", false),
        ("/shops/*/export", "/shops/7/export", true),
        ("/shops/*/export", "/shops/7/8/export", true),
        ("/shops/*/export", "/shops/export", false),
        ("/shops/*/export", "/shops/7/export/more", false),
        ("/*", "/", true),
        ("/*.pdf", "/a.pdf", true),
        ("/*.pdf", "/a.pdf.txt", false),
        ("/a*b*c*d", "/a-b-b-c-d-d", true),
        ("/a*b*c*d", "/a-c-b-d", false),
        ("/**", "/x", true),
        ("/a*a", "/a", false),
    ] {
        assert_eq!(pattern_matches(pattern, path), matches, "{pattern} {path}");
    }
}

/// The same question answered the slow and obvious way.
fn obviously(pattern: &[char], path: &[char]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some(('*', rest)) => (0..=path.len()).any(|at| obviously(rest, &path[at..])),
        Some((first, rest)) => path.first() == Some(first) && obviously(rest, &path[1..]),
    }
}

proptest! {
    #[test]
    fn matching_is_right(pattern in "/[ab*ä]{0,7}", path in "/[abä]{0,9}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(pattern_matches(&pattern, &path), obviously(&chars(&pattern), &chars(&path)));
    }

    #[test]
    fn no_pool_panics(text in "(\\[\\[worker_pool\\]\\]\n)?[a-z]{0,5} ?= ?[\\[\\]\"/*a0-9{},ä ]{0,30}\n") {
        let _ = load(&sources(&text));
    }
}
