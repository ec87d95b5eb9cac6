//! Locations, upstreams and servers of nginx as routes. That they answer alike is seen by tests/e2e/test_import_nginx.py; here is what
//! must not come of it, and how it looks.

use super::*;

/// The result without its report.
fn of(text: &str) -> String {
    let all = finished(ok(nginx::import("nginx.conf", text, Path::new("/nowhere"))));
    all.split("# Not carried").next().unwrap().split("# Needs no line").next().unwrap().to_owned()
}

/// The routes for a location, in one server with an app and files around it.
fn location(text: &str) -> String {
    let around = format!(
        "server {{ listen 80; root /srv/site; location / {{ proxy_pass http://127.0.0.1:8000; proxy_set_header Host $host; }}\n{text}\n}}"
    );
    let text = of(&around);
    text.split_once("[[").map_or_else(String::new, |(_, tables)| format!("[[{tables}"))
}

#[test]
fn what_was_closed_stays_closed() {
    for text in [
        "location /x/ { deny all; alias /srv/secret/; }",
        "location /x/ { allow 10.0.0.0/8; deny all; alias /srv/secret/; }",
        "location /x/ { auth_basic 'staff'; alias /srv/secret/; }",
        "location /x/ { auth_basic 'staff'; auth_basic_user_file /etc/$host.pw; alias /srv/secret/; }",
        "location /x/ { secure_link $arg_md5; alias /srv/secret/; }",
        "location /x/ { valid_referers none; alias /srv/secret/; }",
        "location /x/ { auth_jwt 'a'; alias /srv/secret/; }",
        "location /x/ { if ($cookie_a = 1) { return 403; } alias /srv/secret/; }",
        "location /x/ { limit_except GET { deny all; } alias /srv/secret/; }",
        "location /x/ { fastcgi_pass unix:/run/php.sock; }",
        "location /x/ { proxy_pass http://$backend; }",
        "location /x/ { return 403 $reason; }",
        "location /x/ { internal; proxy_pass http://127.0.0.1:8000; }",
    ] {
        let routes = location(text);
        let route =
            routes.split("[[route]]").find(|route| route.contains("path = \"/x/*\"")).unwrap_or_default();
        assert!(route.contains("respond = \"\"") && route.contains("status = "), "{text}\n{routes}");
        assert!(!routes.contains("secret"), "{text}\n{routes}");
    }
    let php = of("server { listen 80; server_name a; location / { proxy_pass http://127.0.0.1:1; } }\n\
                  server { listen 80; server_name blog; root /srv/blog; location ~ \\.php$ { fastcgi_pass unix:/x; } }");
    let (source, files) = (php.find("~\\\\.php$").unwrap(), php.find("files = \"/srv/blog\"").unwrap());
    assert!(source < files, "sources are not files: {php}");
}

#[test]
fn rules_of_a_server_hold_in_its_locations() {
    let text = of("server { listen 80; auth_basic 'x'; auth_basic_user_file /srv/users; limit_req zone=a;\n\
                   location /static/ { alias /srv/static/; } location /open/ { auth_basic off; proxy_pass http://127.0.0.1:8000; }\n\
                   location / { proxy_pass http://127.0.0.1:8000; } } limit_req_zone $http_x_api_key zone=a:1m rate=2r/s;");
    insta::assert_snapshot!(text);
}

#[test]
fn several_sites_and_certificates() {
    let text = of(
        "upstream shop { server 10.0.0.1:8000 weight=2; server 10.0.0.2:8000 max_fails=2 fail_timeout=30s; server 10.0.0.3:8000 down;\n\
                   sticky cookie route expires=1h; }\n\
                   upstream api { least_conn; server unix:/run/api.sock; }\n\
                   server { listen 443 ssl; server_name shop.example; ssl_certificate /c/shop.pem; ssl_certificate_key /c/shop.key; ssl_protocols TLSv1.3;\n\
                   location / { proxy_pass http://shop; proxy_set_header Host $host; proxy_read_timeout 90s; }\n\
                   location /api/ { proxy_pass https://api; proxy_ssl_name api.example; proxy_ssl_trusted_certificate /c/ca.pem; proxy_buffering off; } }\n\
                   server { listen 443 ssl; server_name .blog.example; ssl_certificate /c/blog.pem; ssl_certificate_key /c/blog.key; root /srv/blog;\n\
                   limit_rate 10k; location /films/ { limit_rate 1m; limit_rate_after 5m; gzip off; } }\n\
                   server { listen 443 ssl; server_name ~^x; ssl_certificate /c/blog.pem; ssl_certificate_key /c/blog.key; }",
    );
    insta::assert_snapshot!(text);
}

#[test]
fn behind_a_proxy_that_ends_tls() {
    let text = location("if ($http_x_forwarded_proto = http) { return 301 https://$host$request_uri; }");
    insta::assert_snapshot!(text, @r#"
    [[route]]
    https = true  # line 1: location /
    "#);
}

#[test]
fn changes_on_the_way() {
    insta::assert_snapshot!(location(
        "location /a/ { rewrite ^/a/(.*)$ /b/$1 break; proxy_pass http://127.0.0.1:8000; client_max_body_size 5m; gzip off; }\n\
         location ~ ^/user/(\\d+)$ { rewrite ^/user/(\\d+)$ /?id=$1? redirect; }\n\
         location /secret/ { proxy_pass http://127.0.0.1:8000; proxy_set_header Authorization hunter2; proxy_set_header X-Empty ''; add_header X-Token hunter2; }\n\
         location = /robots.txt { alias /srv/static/robots.production.txt; expires 1d; }\n\
         location ^~ /dl/ { alias /srv/dl/; expires 1h; add_header X-Dl yes; try_files $uri =404; }"
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever stands in locations: no panic, and what comes out is loaded.
    #[test]
    fn anything_may_stand_in_a_server(
        parts in prop::collection::vec((
            prop::sample::select(vec!["location / ", "location /a/ ", "location /a/b ", "location = /c ", "location ^~ /a/ ", "location ~ \\.x$ ",
                                      "location ~* (?=y) ", "location @n ", "server_name a.b *.c _; location /d ", "location *x "]),
            prop::collection::vec(prop::sample::select(vec![
                "proxy_pass http://u;", "proxy_pass http://v/x/;", "proxy_pass http://127.0.0.1:1/;", "alias /srv/;", "root /r;", "internal;", "return 301 /x;",
                "return 404;", "return 200 '{}';", "rewrite ^/a/(.*)$ /$1 last;", "rewrite ^ /b permanent;", "rewrite x y;", "deny all;", "auth_basic x;",
                "auth_basic_user_file /u;", "auth_request /c;", "limit_req zone=z burst=3;", "limit_rate 1k;", "limit_rate 0;", "add_header A b;",
                "proxy_set_header X $host;", "proxy_set_header X $odd;", "client_max_body_size 0;", "expires 1h;", "gzip on;", "try_files $uri /x;",
                "proxy_read_timeout 5s;", "proxy_buffering off;", "if ($a) { return 403; }", "limit_conn z 3;",
            ]), 0..5),
        ), 0..6),
        servers in 1_usize..3,
    ) {
        let inside = parts.iter().map(|(head, lines)| format!("{head} {{ {} }}\n", lines.join(" ")));
        let inside = inside.collect::<Vec<_>>().concat();
        let text = format!(
            "limit_req_zone $binary_remote_addr zone=z:1m rate=1r/s; upstream u {{ server 10.0.0.1; server 10.0.0.2 weight=3; }} {}",
            format!("server {{ listen 80; {inside} }}\n").repeat(servers),
        );
        if let Ok(draft) = nginx::import("nginx.conf", &text, Path::new("/nowhere")) {
            finished(draft);
        }
    }
}
