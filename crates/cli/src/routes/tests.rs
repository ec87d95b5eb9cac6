//! What `quintet routes` prints.

use ctl_config::{Sources, TextFile, load};

use super::*;

const FILE: &str = r#"
[[worker_pool]]
name = "slow"
match = "/reports/*"

[[route]]
name = "admin"
path = ["/admin", "/admin/*"]
host = "*.example.org"
respond = ""
status = 403

[[route]]
path = "~^/v[0-9]+/"
method = ["GET", "POST"]
header = ["X-Beta=1", "X-User"]
app = "slow"
strip_prefix = "/v1"

[[route]]
name = "docs"
path = "/docs/*"
files = "public"
strip_prefix = "/docs"

[[route]]
name = "old"
path = "/old/*"
redirect = "https://{host}/new{path}{query}"

[[route]]
name = "shop"
path = "/shop/*"
mount = "/shop"
"#;

fn loaded() -> Loaded {
    let file = TextFile { path: "/srv/shop/quintet.toml".into(), text: FILE.into() };
    let sources = Sources { file: Some(file), working_dir: "/srv/shop".into(), ..Sources::default() };
    load(&sources).unwrap_or_else(|problems| panic!("{problems}"))
}

fn ask(url: &str, method: &str, headers: &[&str]) -> String {
    let loaded = loaded();
    let routes = Routes::new(&loaded.config).unwrap();
    let question = Question::new(url, method, headers).unwrap_or_else(|_| panic!("{url}"));
    Answer::new(&question, routes.as_ref(), &loaded.config).text(&question, &loaded, Style::default())
}

#[test]
fn the_table() {
    insta::assert_snapshot!(table(&loaded(), Style::default()));
}

#[test]
fn no_table() {
    let loaded = load(&Sources { working_dir: "/srv".into(), ..Sources::default() }).unwrap();
    assert!(table(&loaded, Style::default()).starts_with("There are no routes"));
}

#[test]
fn which_route_and_why() {
    insta::assert_snapshot!("forbidden", ask("https://www.example.org/%61dmin/users?x=1", "get", &[]));
    insta::assert_snapshot!("another_host", ask("https://example.com:8000/admin/", "GET", &[]));
    insta::assert_snapshot!("a_header", ask("/v1/x", "POST", &["X-Beta: 1", "X-User: me"]));
    insta::assert_snapshot!("without_the_header", ask("/v1/café", "POST", &["X-Beta: 1"]));
    insta::assert_snapshot!("doubtful", ask("http://a.example.org//admin/", "GET", &[]));
    insta::assert_snapshot!("files", ask("/docs/a.html", "GET", &[]));
    insta::assert_snapshot!("redirect", ask("http://example.org/old/x?y", "GET", &[]));
    insta::assert_snapshot!("mount", ask("/shop/cart", "GET", &[]));
    insta::assert_snapshot!("nobody", ask("/reports/1", "GET", &[]));
}

#[test]
fn what_is_sent_twice() {
    let route = Route {
        single_flight: Some("queue(2)".to_owned()),
        idempotency: Some(ctl_config::route::Idempotency::Required),
        ..Route::default()
    };
    let alone = "single flight by user: queue(2)".to_owned();
    assert_eq!(sent_twice(&route, "GET"), std::slice::from_ref(&alone));
    let keyed = "once for each Idempotency-Key of user, which is required".to_owned();
    assert_eq!(sent_twice(&route, "POST"), [alone, keyed]);
    assert!(sent_twice(&Route::default(), "POST").is_empty());
}

#[test]
fn as_an_object() {
    let loaded = loaded();
    let object = table_json(&loaded);
    assert_eq!(object["routes"][1]["label"], "#2");
    assert_eq!(object["routes"][1]["method"][1], "POST");
    let routes = Routes::new(&loaded.config).unwrap();
    let question = Question::new("/old/x", "GET", &[]).unwrap_or_else(|_| panic!("a path"));
    let answer = Answer::new(&question, routes.as_ref(), &loaded.config).json();
    assert_eq!((&answer["taken_by"], &answer["refused"]), (&json!("old"), &json!(false)));
}

#[test]
fn what_is_no_question() {
    for (url, headers) in [("shop", &[][..]), ("ftp://a/", &[]), ("/", &["X-Beta"])] {
        assert!(Question::new(url, "GET", headers).is_err(), "{url}");
    }
}
