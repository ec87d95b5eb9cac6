//! Real files in, quintet.toml out. Whatever comes out is read by our own loader, without a word against it.

use std::path::Path;

use ctl_config::{Sources, Style, TextFile, load};
use proptest::prelude::*;

use super::words::Token;
use super::*;

mod refugees;
mod routes;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/import/fixtures")
}

/// The finished text; it has been loaded.
fn finished(mut draft: Draft) -> String {
    draft.check();
    let text = draft.render();
    let file = Some(TextFile { path: "/srv/shop/quintet.toml".into(), text: text.clone() });
    let loaded = load(&Sources { file, working_dir: "/srv/shop".into(), ..Sources::default() });
    assert!(loaded.is_ok(), "{text}\n{}", loaded.unwrap_err());
    format!("{text}--\n{}", draft.summary(Style::default()))
}

fn file(name: &str) -> String {
    let path = fixtures().join(name);
    let text = finished(ok(from_file(&path, None, &mut Context::default())));
    text.replace(fixtures().to_str().unwrap(), "/fixtures")
}

fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|failure| panic!("{}", failure.render(Style::default())))
}

fn line(line: &str) -> String {
    line_with(line, &[])
}

fn line_with(line: &str, environment: &[(&str, &str)]) -> String {
    let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let context = Context { environment, dir: fixtures().join("nginx"), python: None };
    finished(ok(shell::import_words(&[line.to_owned()], &context)))
}

#[test]
fn gunicorn_conf_py() {
    insta::assert_snapshot!(file("gunicorn.conf.py"));
}

#[test]
fn uwsgi_ini() {
    insta::assert_snapshot!(file("uwsgi.ini"));
}

#[test]
fn unit_json() {
    insta::assert_snapshot!("unit", file("unit.json"));
    insta::assert_snapshot!("unit_routes", file("unit-routes.json"));
}

#[test]
fn nginx_conf() {
    insta::assert_snapshot!(file("nginx/nginx.conf"));
}

#[test]
fn procfile_and_service() {
    insta::assert_snapshot!("procfile", file("Procfile"));
    insta::assert_snapshot!("service", file("shop.service"));
}

#[test]
fn command_lines() {
    for (name, command) in [
        (
            "gunicorn",
            "gunicorn shop.wsgi -w4 --threads=2 --timeout 0 --keep-al 7 -k gthread --no-such --reload",
        ),
        (
            "gunicorn_uvicorn",
            "exec python -m gunicorn -k uvicorn.workers.UvicornWorker 'shop.asgi:application' -b [::]:80 -b fd://3",
        ),
        ("gunicorn_gevent", "gunicorn -k gevent --worker-connections 1000 'shop:create_app(\"x\")'"),
        (
            "uvicorn",
            "uvicorn shop.asgi:make --factory --host :: --port 9000 --workers 4 --no-access-log --proxy-headers --forwarded-allow-ips='*' --ws-max-size 0 --loop uvloop --limit-concurrency 50 --root-path /shop",
        ),
        (
            "hypercorn",
            "hypercorn -b 0.0.0.0:8000 --quic-bind :443 --keep-alive 5 --access-logfile - shop.asgi:application",
        ),
        ("daphne", "daphne -b 0.0.0.0 -p 8001 -t 30 --proxy-headers shop.asgi:application"),
        (
            "granian",
            "granian --interface wsgi shop.wsgi:application --host 0.0.0.0 --workers 4 --blocking-threads 2 --backpressure 64 --workers-lifetime 6h --workers-max-rss 512 --static-path-mount /srv/static --access-log --http1-header-read-timeout 5000 --no-ws",
        ),
        ("granian_rsgi", "granian app:app --backpressure 100 --loop rloop"),
        ("uwsgi", "uwsgi --http :8000 --wsgi-file shop/wsgi.py -p 4 --master --no-such-thing=3"),
        ("line", "python manage.py migrate && gunicorn shop.wsgi 2>&1 | tee log"),
    ] {
        insta::assert_snapshot!(format!("line_{name}"), line(command));
    }
}

#[test]
fn the_environment_is_weaker_than_the_line() {
    let environment =
        [("GUNICORN_CMD_ARGS", "--workers=5 --timeout '12'"), ("WEB_CONCURRENCY", "2"), ("HOME", "/root")];
    insta::assert_snapshot!("environment_gunicorn", line_with("gunicorn shop.wsgi -w 7", &environment));
    let environment = [("GRANIAN_WORKERS", "3"), ("GRANIAN_INTERFACE", "wsgi"), ("GRANIAN_PORT", "8080")];
    insta::assert_snapshot!(
        "environment_granian",
        line_with("granian shop.wsgi:application --workers 2", &environment)
    );
}

/// What another server does without being told, and what looks alike and is not.
#[test]
fn defaults_and_false_friends() {
    let carried = |text: &str, line: &str| assert!(text.contains(line), "no {line} in\n{text}");
    // The shorter one is what a client meets, in whichever order they stand.
    let text = line("uwsgi --http :80 -w shop --harakiri 30 --http-timeout 300");
    carried(&text, "app = \"30s\"  # --harakiri");
    carried(&text, "--http-timeout = 300: --harakiri is shorter");
    carried(&line("uwsgi -w shop --harakiri 300 --http-timeout 30"), "app = \"30s\"  # --http-timeout");
    carried(&line("uwsgi -w shop --harakiri 0 --http-timeout 30"), "app = \"30s\"  # --http-timeout");
    // A long cookie that gunicorn takes.
    carried(&line("gunicorn shop --limit-request-field_size 65536"), "headers_max = \"64KiB\"");
    // A sync worker is killed while it works, others are not.
    assert!(!line("gunicorn shop -t 5").contains("did not bound requests"));
    carried(&line("gunicorn shop -t 5 --threads 2"), "did not bound requests");
    // Variables that are defaults are weaker than the file, and are heard.
    let environment = [
        ("WEB_CONCURRENCY", "2"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.1"),
        ("GUNICORN_CMD_ARGS", "--config ../gunicorn.conf.py"),
    ];
    let text = line_with("gunicorn shop.wsgi", &environment);
    carried(&text, "count = 5  # ../gunicorn.conf.py: workers");
    let text = line_with("uvicorn shop.asgi:application", &environment);
    carried(&text, "count = 2  # WEB_CONCURRENCY");
    carried(&text, "trusted = [\"10.0.0.1\"]  # FORWARDED_ALLOW_IPS");
    carried(&line("uvicorn shop.asgi:application"), "trusted = [\"127.0.0.1\", \"::1\"]");
    assert!(!line("uvicorn shop.asgi:application --no-proxy-headers").contains("trusted = "));
    let text = "server { listen 80; location / { proxy_pass http://app; proxy_set_header X-Tenant shop;\n\
                proxy_set_header X-Real-IP $remote_addr; proxy_set_header Host $host; }\n\
                location /static/ { root /srv; expires 30d; }\n location /media/ { root /srv; expires 1h; } }";
    let text = finished(ok(nginx::import("nginx.conf", text, Path::new("/nowhere"))));
    carried(&text, "request_headers = [\"X-Tenant: shop\", \"X-Real-IP: {client}\"]");
    carried(&text, "another location said 30d");
}

/// What is printed goes into repositories and terminals.
#[test]
fn secrets_are_not_repeated() {
    let unit = r#"{"listeners": {"*:80": {"pass": "applications/shop"}},
        "applications": {"shop": {"type": "python", "module": "shop.wsgi", "environment": {"SECRET_KEY": "hunter2"}}}}"#;
    let service = "[Service]\nEnvironment=\"SECRET_KEY=hunter2\" TZ=UTC\nExecStart=/bin/gunicorn shop.wsgi\n";
    let nginx =
        "server { listen 80; location / { proxy_pass http://app; proxy_set_header Authorization hunter2; } }";
    let context = Context { dir: fixtures().join("nginx"), ..Context::default() };
    for (text, name) in [
        (finished(ok(unit::import("unit.json", unit))), "SECRET_KEY"),
        (finished(ok(procfile::import_systemd("shop.service", service, &context))), "SECRET_KEY"),
        (finished(ok(nginx::import("nginx.conf", nginx, Path::new("/nowhere")))), "Authorization"),
        (line("SECRET_KEY=hunter2 gunicorn shop -e DATABASE_URL=hunter2"), "DATABASE_URL"),
        (line("uwsgi --set-placeholder secret=hunter2 -w shop"), "--set-placeholder"),
        (line("uwsgi --env SECRET_KEY=hunter2 -w shop"), "SECRET_KEY"),
        (line("uvicorn shop:app --ssl-keyfile-password hunter2"), "--ssl-keyfile-password"),
    ] {
        assert!(text.contains(name) && !text.contains("hunter2"), "{text}");
    }
}

/// What our configuration has no room for is said, with our own words, and not written.
#[test]
fn values_that_quintet_does_not_take() {
    insta::assert_snapshot!(line(
        "gunicorn shop.wsgi --limit-request-line 100 --backlog many --bind http://x --certfile a.pem --max-requests 0 -t 1e99 \
         --forwarded-allow-ips proxy.example"
    ));
}

#[test]
fn what_cannot_be_read_is_explained() {
    let failure = |result: Result<Draft>| match result {
        Ok(_) => panic!("it was read"),
        Err(failure) => failure.render(Style::default()),
    };
    let context = Context::default();
    let words = |line: &str| failure(shell::import_words(&[line.to_owned(), "x".into()], &context));
    let directory = Path::new("/nowhere");
    let said = [
        words("caddy"),
        failure(shell::import_words(&["gunicorn 'x".into()], &context)),
        failure(nginx::import("nginx.conf", "http {\n  server { listen 80 }\n}\n", directory)),
        failure(nginx::import("nginx.conf", "http {\n  include \"x;\n}\n", directory)),
        failure(nginx::import("nginx.conf", "http {\n", directory)),
        failure(unit::import("unit.json", "{,}")),
        failure(procfile::import("Procfile", "worker: celery", &context)),
        failure(from_file(Path::new("/nowhere/gunicorn"), None, &mut Context::default())),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn kinds_of_files() {
    for (name, text, kind) in [
        ("gunicorn.conf.py", "", Some("gunicorn")),
        ("Procfile.dev", "", Some("procfile")),
        ("shop", "server {\n listen 80;\n}", Some("nginx")),
        ("shop.conf", "# the shop\nupstream app {\n", Some("nginx")),
        ("shop.conf", "[uwsgi]\n", Some("uwsgi")),
        ("config", "  {\"listeners\": {}}", Some("unit")),
        ("uwsgi.yaml", "uwsgi:\n", None),
        ("shop.service", "", Some("systemd")),
        ("README", "words", None),
    ] {
        assert_eq!(kind_of(name, text), kind, "{name}");
    }
}

#[test]
fn words_of_the_shell() {
    let words = |line: &str| -> Vec<String> {
        let tokens = words::tokens(line).unwrap();
        tokens
            .into_iter()
            .map(|token| match token {
                Token::Word(word) => word,
                Token::Operator(operator) => format!("<{operator}>"),
            })
            .collect()
    };
    assert_eq!(words(r#"a 'b c' "d \"e\" \n" f\ g """#), ["a", "b c", r#"d "e" \n"#, "f g", ""]);
    assert_eq!(words("a&&b ; c 2>&1 # d\n"), ["a", "<&&>", "b", "<;>", "c", "<>&>", "1", "<\n>"]);
    assert_eq!(words("a \\\n b"), ["a", "b"]);
}

/// Every row of every table names a setting that exists, and no two rows the same option.
#[test]
fn the_tables_are_sound() {
    for server in shell::SERVERS {
        let mut names = std::collections::HashSet::new();
        for row in server.rows {
            assert!(names.insert(row.name), "{}: {} is there twice", server.name, row.name);
            if let row::Becomes::Set(key, _) = row.becomes {
                assert!(ctl_config::find(key).is_some(), "{}: {key}", server.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a file holds: no panic, and what comes out can be read.
    #[test]
    fn anything_may_stand_in_a_file(text in "([a-z_-]{1,12}( ?=? ?[a-z0-9/.:$\"'%(){}*-]{0,12}){0,3}[;{}\n])*") {
        finished(uwsgi::import("uwsgi.ini", &format!("[uwsgi]\n{text}"), Path::new("/srv")));
        if let Ok(draft) = nginx::import("nginx.conf", &text, Path::new("/nowhere")) {
            finished(draft);
        }
        let _ = procfile::import("Procfile", &text, &Context::default()).map(finished);
    }

    #[test]
    fn any_value_may_be_given(index in 0_usize..1000, value in "[a-z0-9/.:$*,\\[\\]=#\" -]{0,16}|\\PC{0,8}|[0-9]{1,25}") {
        for server in shell::SERVERS {
            let row = &server.rows[index % server.rows.len()];
            let given = row::Given { name: row.name.into(), value: value.as_str().into(), from: row.name.into() };
            let mut draft = Draft::new("a test");
            shell::finish(&mut draft, server, &row::Options(vec![given]));
            finished(draft);
        }
    }

    #[test]
    fn any_json_is_read(uri in "[/!~*a-z$]{0,8}", share in "[/a-z$]{0,12}", number in any::<i64>()) {
        let text = serde_json::json!({
            "listeners": {share.clone(): {"pass": "routes", "backlog": number}},
            "routes": [{"match": {"uri": uri}, "action": {"share": share, "fallback": {"pass": "routes"}}}],
            "applications": {"a": {"module": uri, "threads": number, "processes": {"max": number, "spare": number}}},
        });
        finished(unit::import("unit.json", &text.to_string()).unwrap());
    }
}
