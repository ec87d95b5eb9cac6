//! Which route takes what, and what it makes of it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ctl_config::{Sources, TextFile, load};

use super::*;
use crate::client::{TrustedProxies, identify};
use crate::error_page::own_trail;
use crate::message::{Body, Connection, Method, Version};

fn config(text: &str) -> Config {
    let file = TextFile { path: "/srv/shop/quintet.toml".into(), text: text.into() };
    let sources = Sources { file: Some(file), working_dir: "/srv/shop".into(), ..Sources::default() };
    load(&sources).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn routes(text: &str) -> Routes {
    Routes::new(&config(text)).unwrap().expect("routes")
}

/// `GET /path?query Host: example.org | X-A: 1`.
fn head(request: &str) -> RequestHead {
    let mut parts = request.split(" | ");
    let (method, target) = parts.next().unwrap().split_once(' ').unwrap();
    let mut headers = Headers::default();
    for field in parts {
        let (name, value) = field.split_once(": ").unwrap();
        headers.push_lower(name.as_bytes(), value.as_bytes());
    }
    let method = Method::from_bytes(method.as_bytes());
    RequestHead { method, target: target.into(), version: Version::Http11, headers }
}

fn chosen(routes: &Routes, request: &str) -> String {
    let head = head(request);
    let host = head.headers.get("host").unwrap_or_default().to_vec();
    match routes.choose(&Asked::new(&head, &host, false)) {
        Choice::Nobody => "-".into(),
        Choice::Doubtful => "?".into(),
        Choice::Route(route) => route.taken().name.to_string(),
    }
}

#[track_caller]
fn check(routes: &Routes, request: &str, label: &str) {
    assert_eq!(chosen(routes, request), label, "{request}");
}

#[test]
fn the_first_route_whose_conditions_all_hold() {
    let routes = routes(
        r#"
[[route]]
name = "beta"
host = ["shop.example.org", "*.test.example.org"]
path = ["/cart/*", "~^/v[0-9]+/"]
method = ["GET", "POST"]
header = ["X-Beta=1", "X-User"]
[[route]]
name = "get"
method = "GET"
path = "/cart/*"
[[route]]
name = "host"
host = "shop.example.org"
"#,
    );
    check(&routes, "GET /cart/1 | host: shop.example.org | x-beta: 1 | x-user: me", "beta");
    check(&routes, "HEAD /cart/1 | host: SHOP.example.org:8000 | x-beta: 1 | x-user: me", "beta");
    check(&routes, "POST /v2/x?a | host: a.test.example.org | x-beta: 0 | x-beta: 1 | x-user: ", "beta");
    check(&routes, "GET /cart/1 | host: shop.example.org | x-beta: 10 | x-user: me", "get");
    check(&routes, "GET /cart/1 | host: shop.example.org | x-beta: 1", "get");
    check(&routes, "HEAD /cart/1 | host: other", "get");
    check(&routes, "PUT /cart/1 | host: shop.example.org | x-beta: 1 | x-user: me", "host");
    check(&routes, "PUT /cart/1 | host: test.example.org", "-");
    check(&routes, "GET /", "-");
}

#[test]
fn a_field_that_nobody_vouches_for_is_not_there() {
    let routes = routes("[[route]]\nname = \"a\"\nheader = \"X-Forwarded-For\"\n");
    let head = head("GET / | x-forwarded-for: 10.0.0.1");
    assert!(matches!(routes.choose(&Asked::new(&head, b"", false)), Choice::Nobody));
    assert!(matches!(routes.choose(&Asked::new(&head, b"", true)), Choice::Route(_)));
}

/// A rule for `/admin/*`, and ways around it that are known from others.
#[test]
fn no_way_around_a_rule() {
    let closed = routes(
        "[[route]]\nname = \"admin\"\npath = [\"/admin\", \"/admin/*\"]\nrespond = \"\"\nstatus = 403\n",
    );
    for target in [
        "/admin",
        "/admin/",
        "/admin/users?x",
        "/%61dmin/",
        "/admin%2F",
        "/admin/%0a",
        "/admin/%ff",
        "/%61%64%6d%69%6e%2fx",
    ] {
        let label = chosen(&closed, &format!("GET {target}"));
        assert!(["admin", "?"].contains(&label.as_str()), "{target}: {label}");
    }
    for target in [
        "//admin/",
        "/./admin/",
        "/x/../admin/",
        "/x/%2e%2e/admin/",
        "/x/..%2fadmin/",
        "/%2e/admin/",
        "/;/admin/",
        "/admin;x/",
        "/x/..;/admin/",
        "/\\admin/",
        "/x\\..\\admin/",
        "/%5cadmin/",
        "//%61dmin/",
        "/%2Fadmin/",
        "/.//admin/",
        "/x//../admin/",
        "/../admin/",
        "///admin/",
    ] {
        check(&closed, &format!("GET {target}"), "?");
    }
    for target in
        ["/", "/administration", "/x/admin/", "/Admin/", "/x;y/z", "/a//b", "/files/a%2Fb", "/.well-known/x"]
    {
        check(&closed, &format!("GET {target}"), "-");
    }
}

/// The same with a door that is open and a wall around it.
#[test]
fn no_way_in_through_an_open_door() {
    let routes = routes(
        "[[route]]\nname = \"public\"\npath = \"/public/*\"\n[[route]]\nname = \"closed\"\npath = \"/*\"\nrespond = \"\"\nstatus = 403\n",
    );
    for target in [
        "/public/../admin/",
        "/public/%2e%2e/admin/",
        "/public/..%2fadmin",
        "/public/..;/admin/",
        "/public\\..\\admin",
    ] {
        check(&routes, &format!("GET {target}"), if target.contains('\\') { "closed" } else { "?" });
    }
    for target in ["*", "", "?x", "/", "/x", "//", "/public", "/publi%63"] {
        check(&routes, &format!("OPTIONS {target}"), "closed");
    }
    check(&routes, "GET /public/a//b", "public");
    check(&routes, "GET /public/a%2Fb", "public");
}

/// A regular expression sees every byte, also those that are no text and ends of lines.
#[test]
fn no_byte_hides_from_a_regular_expression() {
    let routes = routes("[[route]]\nname = \"admin\"\npath = \"~^/admin/.*$\"\n");
    for target in ["/admin/", "/admin/%ff%fe", "/admin/%0A", "/admin/x%0Ay", "/admin/%00", "/admin/%E2%82"] {
        check(&routes, &format!("GET {target}"), "admin");
    }
}

#[test]
fn every_route_says_why_not() {
    let routes = routes(
        "[[route]]\nhost = \"a\"\n[[route]]\npath = \"/a/*\"\n[[route]]\nmethod = \"PUT\"\n[[route]]\nheader = [\"A\", \"B\"]\n[[route]]\npath = \"/*\"\n",
    );
    let head = head("GET //a/ | a: 1");
    let verdicts = routes.explain(&Asked::new(&head, b"b", false));
    assert_eq!(
        verdicts,
        [
            Verdict::Unmet(Unmet::Host),
            Verdict::OtherReading,
            Verdict::Unmet(Unmet::Method),
            Verdict::Unmet(Unmet::Header(1)),
            Verdict::Takes
        ]
    );
}

/// What one route makes of a request: `way` in a line.
fn way(toml: &str, request: &str, tls: bool) -> String {
    let routes = routes(&format!("[[worker_pool]]\nname = \"slow\"\nmatch = \"/none\"\n[[route]]\n{toml}\n"));
    let head = head(request);
    let peer = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 4000).into();
    let connection = Connection {
        peer: Some(peer),
        peer_is_trusted: false,
        local: None,
        tls,
        tls_facts: None,
        certificate: None,
    };
    let identity = identify(&connection, &head.headers, &TrustedProxies::default());
    let trail = own_trail(Instant::now(), "id".into(), None);
    let comes = Comes {
        head: &head,
        identity: &identity,
        certificate: None,
        client: "192.0.2.7",
        trail: &trail,
        html: false,
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let route = &routes.routes[0];
    let (mut fields, seen) = match route.to_https(comes).map_or_else(|| route.way(comes), Way::Answer) {
        Way::Answer(response) => {
            let body = match response.body {
                Body::Bytes(bytes) => text(&bytes),
                _ => String::new(),
            };
            (response.headers, format!("{} {body}", response.status))
        }
        Way::File(number, head) => (Headers::default(), format!("file {number} {}", text(&head.target))),
        Way::Upstream { name, head, body_bytes_max } => {
            (Headers::default(), format!("upstream {name} {} {body_bytes_max:?}", text(&head.target)))
        }
        Way::On { head, headers_heard, terms, app_only } => {
            let fields: Vec<_> =
                head.headers.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
            let seen = format!(
                "{} {} {} heard={headers_heard} pool={:?} mount={:?}",
                if app_only { "app" } else { "site" },
                text(&head.target),
                fields.join(","),
                terms.pool,
                terms.mount
            );
            (Headers::default(), seen)
        }
    };
    route.finish(comes, &mut fields);
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| format!(" {}: {}", text(name), text(value))).collect();
    format!("{seen}{}", fields.concat())
}

#[test]
fn ways() {
    let get = "GET /a%20b?x=1 | host: example.org:8000 | x-forwarded-for: 6.6.6.6";
    assert_eq!(
        way("redirect = \"https://{host}/new{path}{query}\"", get, true),
        "307  Location: https://example.org/new/a%20b?x=1 Content-Length: 0"
    );
    assert_eq!(
        way("redirect = \"/{path}\"\nrewrite = \"^/a => /b\"\nstatus = 301", "GET /a | host: a", true),
        "301  Location: /b Content-Length: 0"
    );
    let api = "upstream = \"api\"\nbody_max = 7\nrewrite = \"^/a b$ => /\"";
    let api = format!("{api}\n[[upstream]]\nname = \"api\"\nservers = \"a:80\"");
    assert_eq!(way(&api, get, true), "upstream api /?x=1 Some(7)");
    assert_eq!(way("respond = \"hi\"", get, true), "200 hi Content-Type: text/plain; charset=utf-8");
    assert_eq!(way("respond = \"\"\nstatus = 204", get, true), "204 ");
    assert!(way("respond = \"\"\nstatus = 404", get, true).starts_with("404 404 Not Found (request id)\n"));
    assert_eq!(way("files = \"x\"\nstrip_prefix = \"/docs\"", "GET /%64ocs?x=1", true), "file 0 /?x=1");
    assert_eq!(
        way("", get, true),
        "site /a%20b?x=1 host=example.org:8000,x-forwarded-for=6.6.6.6 heard=false pool=None mount=None"
    );
    assert_eq!(
        way("app = \"slow\"\nmount = \"/a\"\nrequest_headers = \"X-By: {client}\"", get, true),
        "app /a%20b?x=1 host=example.org:8000,x-by=192.0.2.7 heard=true pool=Some(1) mount=Some(\"/a\")"
    );
    assert!(way("app = \"default\"", get, true).contains("pool=Some(0)"));
}

#[test]
fn https() {
    let get = "GET /a?x=1 | host: example.org:8000";
    let all = "https = true\nhsts = \"1d\"\nresponse_headers = [\"X-Frame-Options: DENY\", \"-Content-Type\"]\nrespond = \"hi\"";
    assert_eq!(way(all, get, true), "200 hi Strict-Transport-Security: max-age=86400 X-Frame-Options: DENY");
    assert_eq!(
        way(all, get, false),
        "301  Location: https://example.org/a?x=1 Content-Length: 0 X-Frame-Options: DENY"
    );
    assert!(way(all, "POST /a | host: example.org", false).starts_with("308 "));
    assert!(way(all, "GET //evil.example | host: a", false).contains("Location: https://a//evil.example "));
    assert!(way(all, "GET /", false).starts_with("400 "), "without a host there is nowhere to go");
}
