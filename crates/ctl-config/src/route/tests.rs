//! `[[route]]` from the file to the structs, and what can be wrong with it.

use super::*;
use crate::load;
use crate::testing::{loaded, sources, wrong};

#[test]
fn routes_in_the_order_of_the_file() {
    let loaded = loaded(
        r#"
[[worker_pool]]
name = "api"
match = "/none"

[[route]]
name = "api"
host = "api.example.org"
path = ["/v1/*", "~^/v[0-9]+/"]
method = ["GET", "POST"]
header = "X-Beta"
app = "api"
strip_prefix = "/v1"
request_headers = ["X-A: 1", "-Cookie"]
hsts = "365d"
body_max = "1MiB"
priority = "high"

[[route]]
path = "/docs/*"
files = "public"

[[route]]
path = "/old"
redirect = "/new{query}"
status = 308
"#,
    );
    let [api, files, old] = loaded.config.route.as_slice() else { panic!("{:?}", loaded.config.route) };
    assert_eq!((api.label(0), files.label(1)), ("api".into(), "#2".into()));
    assert_eq!(files.files.as_deref(), Some(std::path::Path::new("/srv/shop/public")));
    assert_eq!((old.status, api.priority), (Some(308), Some(Importance::High)));
    assert_eq!(loaded.origin("route[0].hsts").to_string(), "quintet.toml:15");
    let json = serde_json::to_value(&loaded.config).unwrap();
    assert_eq!(serde_json::from_value::<crate::Config>(json).unwrap(), loaded.config);
}

#[test]
fn wrong_values() {
    insta::assert_snapshot!(wrong(
        r#"
[[route]]
name = "a b"
host = ["https://example.org", "example.org:80"]
path = ["api", "~(", "^/a", "/a//b"]
method = "get"
header = "Host=a"

[[route]]
redirect = "https://{host}.example.org/"
request_headers = ["Transfer-Encoding: chunked", "X-A"]
response_headers = ["-Date", "X-A: {clinet}"]
rewrite = "^/a$ -> /b"
strip_prefix = "/a/"
mount = "/"
priority = "hihg"
status = 100
hsts = "3y"
"#
    ));
}

#[test]
fn wrong_keys() {
    insta::assert_snapshot!(wrong(
        "[[route]]\nhots = \"a\"\nlocation = \"/a\"\nreturn = \"b\"\nkeep_alive = \"1s\"\ncolour = 1\n[[routes]]\npath = \"/\"\n"
    ));
}

#[test]
fn keys_that_do_not_go_together() {
    insta::assert_snapshot!(wrong(
        r#"
[[route]]
name = "one"
path = "/a/*"
files = "public"
respond = "no"

[[route]]
name = "one"
path = "/b"
app = "defualt"
strip_prefix = "/b"
mount = "/b"
status = 404

[[route]]
path = "/c"
redirect = "/d"
status = 200
body_max = "1KiB"

[[route]]
path = "/e"
respond = "nothing"
status = 204
rewrite = "a => /b"

[[route]]
path = ["/a/b", "/a/c/*"]
"#
    ));
}

/// `true`: the second would never match.
#[track_caller]
fn check(first: &str, second: &str, covered: bool) {
    let text = format!("[[route]]\n{first}\nrespond = \"\"\n[[route]]\n{second}\nrespond = \"\"\n");
    let refused = load(&sources(&text)).err().map(|problems| problems.to_string());
    assert_eq!(refused.is_some_and(|text| text.contains("would never match")), covered, "{first} | {second}");
}

#[test]
fn a_route_that_never_matches_is_told() {
    check("", "path = \"/a\"", true);
    check("path = \"/*\"", "host = \"a\"", true);
    check("path = \"/a/*\"", "path = [\"/a/b\", \"/a/*/c\"]", true);
    check("path = \"/a/*\"", "path = [\"/a/b\", \"/b\"]", false);
    check("path = \"~^/a\"", "path = \"/a\"", false);
    check("path = \"~^/a\"", "path = \"~^/a\"", true);
    check("host = \"a\"", "path = \"/a\"", false);
    check("host = [\"a\", \"b\"]", "host = \"a\"\npath = \"/\"", true);
    check("method = \"GET\"", "", false);
    check("header = \"X\"", "path = \"/a\"", false);
    check("header = \"X\"", "header = [\"X\", \"Y\"]", true);
}

#[test]
fn bandwidths() {
    for text in ["bandwidth = 0", "bandwidth = \"1KiB\"", "bandwidth = \"1MB\"\nbandwidth_after = 0"] {
        assert!(load(&sources(&format!("[[route]]\npath = \"/a\"\n{text}\n"))).is_ok());
    }
    let text = "[limits]\nbandwidth_after = 5\n[[route]]\npath = \"/a\"\nbandwidth_after = 5\n";
    insta::assert_snapshot!(wrong(text));
    insta::assert_snapshot!(wrong("[[route]]\npath = \"/a\"\nbandwidth = 1000\n"));
}
