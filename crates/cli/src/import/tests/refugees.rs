//! Configurations as they are found on real machines: nothing of them is lost, and no secret comes out.

use super::*;

/// What stands for passwords in the files.
const SECRET: &str = "hunter2";

fn refugee(path: &str) -> String {
    let path = fixtures().join("refugees").join(path);
    let text = finished(ok(from_file(&path, None, &mut Context::default())));
    assert!(!text.contains(SECRET), "{}: a secret\n{text}", path.display());
    text
}

/// Every file of a directory, by its name.
fn refugees(kind: &str) -> Vec<(String, String)> {
    let dir = fixtures().join("refugees").join(kind);
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains('.') && name != "shopworkers.py")
        .collect();
    names.sort();
    assert!(names.len() >= 3, "{kind}: {names:?}");
    names.into_iter().map(|name| (name.clone(), refugee(&format!("{kind}/{name}")))).collect()
}

fn holds(name: &str, text: &str, wanted: &[&str]) {
    // Comments are broken at their width.
    let flat = text.replace("\n#   ", " ");
    for line in wanted {
        assert!(flat.contains(line), "{name}: no {line} in\n{text}");
    }
}

/// Each line of an ini file is told: as the place of a setting, or by name. But for the name of the callable and the protocol,
/// which belong to others.
#[test]
fn uwsgi() {
    for (name, text) in refugees("uwsgi") {
        let source = std::fs::read_to_string(fixtures().join("refugees/uwsgi").join(&name)).unwrap();
        for (index, line) in source.lines().enumerate() {
            let key = line.split('=').next().unwrap().trim();
            let place = format!("line {}: ", index + 1);
            let aside = key.is_empty() || key.starts_with(['[', ';', '#']) || line.starts_with("ini = :");
            assert!(aside || key == "callable" || text.contains(&place), "{name}: {line} is lost\n{text}");
        }
        let wanted: &[&str] = match name.as_str() {
            "behind_nginx.ini" => &[
                "dir = \"/home/www-data/shop\"",
                "bind = [\"unix:/run/uwsgi/shop.sock\"]",
                "proxy_pass instead",
            ],
            "busyness.ini" => {
                &["count = 8", "max = 128", "bind = [\"unix:myapp.sock\"]", "py-callos-afterfork: no option"]
            }
            "heroku.ini" => &[
                "QUINTET_SERVER_BIND=\":${PORT}\"",
                "callable = \"shop.wsgi:app\"",
                "processes = %k: without workers.count there is one for each core",
                "pythonpath = .: the project directory is on sys.path",
                "protocol = http: HTTP is what is spoken",
            ],
            "emperor.ini" => &["a unit of systemd for each instead of an emperor", "uid = 1000: a number"],
            "jobs.ini" => &["redis://…@redis:6379/", "unique-cron", "mules = 2: timers", "app = \"5m\""],
            "sections.ini" => &[
                "callable = \"shop.wsgi:application\"  # line 3: module",
                "line 16: http: it stands outside the section",
            ],
            "edge.ini" => &[
                "check-static = /srv/shop/public: files are served below a prefix",
                "callable = \"wsgi:application\"",
            ],
            "prefix.ini" => &[
                "mount = \"/shop\"",
                "callable = \"shop.wsgi:application\"  # line 3: mount",
                "socket = @shop: abstract sockets",
                "harakiri-verbos: no option of uwsgi that is known here; \"harakiri-verbose\" would be one",
                "bind = [\":443\", \":3031\"]",
            ],
            "placeholders.ini" => &["line 4: db-password: a placeholder", "line 15: EOF: no option of uwsgi"],
            "jail.ini" => &["mount = /a=a.wsgi:application: app.mount takes one prefix", "backlog = 4096"],
            other => panic!("{other}: what should come of it?"),
        };
        holds(&name, &text, wanted);
    }
}

/// Each name that the file sets is told.
#[test]
fn gunicorn() {
    for (name, text) in refugees("gunicorn") {
        let source = std::fs::read_to_string(fixtures().join("refugees/gunicorn").join(&name)).unwrap();
        for line in source.lines().filter(|line| !line.starts_with([' ', '#', '"'])) {
            let key = line.split([' ', '(']).next().unwrap();
            // None is what is not set.
            if line.contains(" = ") && !line.ends_with("None") {
                assert!(text.contains(key), "{name}: {line} is lost\n{text}");
            }
        }
        let wanted: &[&str] = match name.as_str() {
            "plain.py" => &["# workers (computed here)", "threads = 1  # gunicorn's default"],
            "container.py" => {
                &["dir = \"/", "trusted = [\"0.0.0.0/0\", \"::/0\", \"unix\"]", "raw_env: DATABASE_URL: "]
            }
            "uvicorn.py" => &[
                "interface = \"asgi\"  # worker_class",
                "on_starting = a function",
                "worker_exit = a function",
            ],
            "gevent.py" => &[
                "when_ready = a function: hooks",
                "green threads are not used",
                "logconfig_dict: quintet writes",
            ],
            "files.py" => &[
                "user = 1000: a number: write the name",
                "group = \"www-data\"",
                "pythonpath = /srv/shop/lib",
            ],
            "conditions.py" => &[
                "count = 8  # workers (computed here)",
                "threads = 8  # threads\n",
                "header_count_max: 32768",
            ],
            "odd.py" => &[
                "post_fork = a function",
                "logger_class = Formatter",
                "workers (computed here) = inf",
                "- tags: no setting",
            ],
            "logs.py" => &["accesslog = /var/log/gunicorn/dev.log: the access log goes to standard output"],
            "computed.py" => &["interface = \"asgi\"", "# bind (computed here)"],
            "classes.py" => {
                &["interface = \"asgi\"", "worker_class = shop.workers.ShopUvicornWorker: what it changes"]
            }
            other => panic!("{other}: what should come of it?"),
        };
        holds(&name, &text, wanted);
    }
}

#[test]
fn unit() {
    for (name, text) in refugees("unit") {
        let wanted: &[&str] = match name.as_str() {
            "django.json" => {
                &["static_root = \"/srv/shop/static\"", "environment/SECRET_KEY: quintet passes"]
            }
            "whole.json" => &[
                "media_root = \"/www/media\"",
                "upstreams: quintet runs the app itself",
                "access_log/format",
            ],
            "targets.json" => &["targets/web/prefix = /web", "the target api"],
            "other_programs.json" => {
                &["php is another program", "applications/unused", "routes/4/action/proxy"]
            }
            "factory.json" => &["callable = \"app.main:create_app()\"", "mount = \"/api\""],
            other => panic!("{other}: what should come of it?"),
        };
        holds(&name, &text, wanted);
    }
}

#[test]
fn nginx() {
    for (name, text) in refugees("nginx") {
        let wanted: &[&str] = match name.as_str() {
            "gunicorns_own.conf" => &["try_files = $uri @proxy_to_app", "body_max = \"4GiB\""],
            "everything.conf" => &[
                "servers = [\"10.0.0.1:8000\"]",
                "server 10.0.0.2:8000 backup: there are no spare servers",
                "strip_prefix = \"/api\"",
                "response_timeout = \"10m\"",
                "basic_auth = \"/etc/nginx/.htpasswd\"",
                "map = $http_upgrade $connection_upgrade: WebSockets are taken without it",
                "real_ip_header = CF-Connecting-IP",
            ],
            "uwsgi_pass.conf" => &["app = \"5m\"", "static_root = \"/srv/shop/static\""],
            other => panic!("{other}: what should come of it?"),
        };
        holds(&name, &text, wanted);
        assert!(!text.contains("match = \"/ws/*\""), "{text}");
    }
}

#[test]
fn corners_of_nginx() {
    let rewritten =
        "server { listen 80; location / { proxy_pass http://a; } location /shop/ { proxy_pass http://a/; } }";
    let text = finished(ok(nginx::import("nginx.conf", rewritten, Path::new("/nowhere"))));
    holds("rewritten", &text, &["path = \"/shop/*\"", "strip_prefix = \"/shop\""]);
    let odd = "http { expires 1h; server { listen 80; root /srv; location / { root /www; expires 30d; proxy_pass http://a;\n\
               location /inner/ { proxy_read_timeout 9m; } } location /x/ { internal; proxy_pass http://a; } } server { listen 80; server_name _; return 444; } }";
    let text = finished(ok(nginx::import("nginx.conf", odd, Path::new("/nowhere"))));
    for wanted in
        ["expires 1h:", "root /srv:", "root /www:", "expires 30d:", "location /inner/:", "internal:"]
    {
        holds("odd", &text, &[wanted]);
    }
}

/// Lines, and what comes of each.
const LINES: [(&str, &[&str]); 18] = [
    ("gunicorn shop.wsgi --threads $THREADS", &["--threads = $THREADS: quintet.toml knows no variables"]),
    (
        "uvicorn main:app --uds /run/x.sock --host 0.0.0.0 --port 80",
        &[
            "bind = [\"unix:/run/x.sock\"]  # --uds",
            "--host = 0.0.0.0: --uds counts",
            "--port = 80: --uds counts",
        ],
    ),
    (
        "daphne -u /run/x.sock -p 8001 shop.asgi:application",
        &["bind = [\"unix:/run/x.sock\", \"127.0.0.1:8001\"]"],
    ),
    (
        "cd src && exec gunicorn shop.wsgi --workers $(( 2 * $(nproc) + 1 )) --bind 0.0.0.0:${PORT:-8000} --log-file -",
        &[
            "dir = \"src\"  # cd",
            "set QUINTET_WORKERS_COUNT=\"$(( 2 * $(nproc) + 1 ))\"",
            "set QUINTET_SERVER_BIND=\"0.0.0.0:${PORT:-8000}\"",
        ],
    ),
    (
        "bash -lc 'source .env && gunicorn shop.wsgi -w 4 --workers `nproc`'",
        &["source .env: another command", "set QUINTET_WORKERS_COUNT=\"`nproc`\""],
    ),
    (
        "export SECRET_KEY=hunter2 PORT=80 && DB=hunter2 gunicorn shop.wsgi",
        &["export SECRET_KEY: quintet passes", "DB: quintet passes"],
    ),
    ("WEB_CONCURRENCY=3 /srv/env/bin/gunicorn shop.wsgi", &["count = 3", "python = \"/srv/env/bin/python\""]),
    ("/opt/py/bin/python3 -m gunicorn shop.wsgi", &["python = \"/opt/py/bin/python3\""]),
    (
        "gunicorn --no-such 5 shop.wsgi -k shop.MyUvicornWorker",
        &["callable = \"shop.wsgi:application\"", "--no-such: no option"],
    ),
    (
        "UVICORN_PORT=9000 WEB_CONCURRENCY=3 UVICORN_WORKERS=2 uvicorn main:app --host 0.0.0.0 --unknown-thing foo",
        &["bind = [\"0.0.0.0:9000\"]", "count = 2  # UVICORN_WORKERS", "--unknown-thing: no option"],
    ),
    (
        "uwsgi --http :8000 --module shop.wsgi --touch-reload /tmp/x --log-4xx -M -p 4 --attach-daemon 'celery -b redis://:hunter2@h/0'",
        &[
            "--touch-reload = /tmp/x",
            "--log-4xx: the access log",
            "count = 4",
            "--attach-daemon = celery -b redis://…@h/0",
        ],
    ),
    (
        "UWSGI_WORKERS=2 UWSGI_THREADS=4 UWSGI_HTTP_SOCKET=:8000 UWSGI_WSGI_FILE=shop/wsgi.py uwsgi --show-config",
        &[
            "count = 2  # UWSGI_WORKERS",
            "bind = [\":8000\"]",
            "callable = \"shop.wsgi:application\"",
            "--show-config: `quintet",
        ],
    ),
    (
        "uwsgi ../refugees/uwsgi/sections.ini:dev --workers 3",
        &["bind = [\":8001\"]", "callable = \"shop.wsgi:application\""],
    ),
    ("uwsgi shop.xml", &["the app = shop.xml: of uWSGI's forms only ini is read"]),
    (
        "sh -c 'python manage.py migrate && uvicorn shop.asgi:application'",
        &["python manage.py migrate: another command"],
    ),
    (
        "env FOO=1 newrelic-admin run-program poetry run daphne shop.asgi:application",
        &["newrelic-admin run-program: it stands before daphne"],
    ),
    (
        "granian --interface asginl shop.asgi:application --ssl-keyfile-password hunter2",
        &["--ssl-keyfile-password"],
    ),
    (
        "hypercorn shop.asgi:application --bind unix:/run/x.sock -w 4 --config c.toml",
        &["--config = c.toml: Hypercorn's"],
    ),
];

#[test]
fn uwsgi_pass_with_parameters() {
    let text = "server { listen 80; location / { uwsgi_pass unix:/run/a.sock; uwsgi_param HTTPS on; uwsgi_param REMOTE_ADDR $remote_addr;\n\
                uwsgi_param KEY hunter2; } location /up/ { uwsgi_pass unix:/run/a.sock; uwsgi_request_buffering off; } }";
    let text = finished(ok(nginx::import("nginx.conf", text, Path::new("/nowhere"))));
    assert!(!text.contains(SECRET), "{text}");
    let wanted = [
        "uwsgi_param HTTPS: the scheme is",
        "uwsgi_param REMOTE_ADDR: the app is told",
        "uwsgi_param KEY: quintet adds no",
    ];
    holds("parameters", &text, &wanted);
    holds("parameters", &text, &["request_stream = [\"/up/\"]"]);
}

#[test]
fn command_lines() {
    for (command, wanted) in LINES {
        let text = line(command);
        assert!(!text.contains(SECRET), "{command}: a secret\n{text}");
        holds(command, &text, wanted);
    }
}

/// Wherever a secret stands: in words with spaces, behind a letter, in a dictionary.
#[test]
fn secrets_in_odd_places() {
    for command in [
        "doppler run --token 'so hunter2' -- gunicorn shop.wsgi",
        "gunicorn shop.wsgi -zhunter2",
        "gunicorn shop.wsgi; celery --password \"a b hunter2\" -A shop",
        "flower --basic_auth=me:hunter2 & gunicorn shop.wsgi",
    ] {
        let text = line(command);
        assert!(!text.contains(SECRET), "{command}: a secret\n{text}");
    }
    let options = row::Options(vec![row::Given {
        name: "logconfig_dict".into(),
        value: serde_json::json!({ "handlers": [{ "token": SECRET }] }),
        from: "logconfig_dict".into(),
    }]);
    let mut draft = Draft::new("a test");
    shell::finish(&mut draft, shell::SERVERS[0], &options);
    let text = finished(draft);
    assert!(text.contains("logconfig_dict") && !text.contains(SECRET), "{text}");
}

#[test]
fn variables_of_a_unit_that_cannot_be_read_are_named() {
    let service = "[Service]\nEnvironment=DJANGO_SETTINGS_MODULE=shop.settings TEXT=don't\nExecStart=/x/gunicorn shop.wsgi\n";
    let text = finished(ok(procfile::import_systemd("shop.service", service, &Context::default())));
    holds("shop.service", &text, &["Environment: a quote ' is not closed"]);
}

/// What ends the command is printed, too.
#[test]
fn failures_tell_no_secrets() {
    for command in ["SECRET=hunter2 gunicorn 'x", "TOKEN=hunter2 caddy --password hunter2"] {
        let failure = shell::import_words(&[command.to_owned()], &Context::default()).unwrap_err();
        let text = failure.render(Style::default());
        assert!(text.contains("=… ") && !text.contains(SECRET), "{text}");
    }
}

#[test]
fn procfiles_and_units() {
    let context = Context { dir: fixtures().join("nginx"), ..Context::default() };
    let procfile = "release: DATABASE_URL=postgres://a:hunter2@db/x python manage.py migrate\n\
                    web: gunicorn shop.wsgi --bind 0.0.0.0:$PORT\nbeat: celery -A shop -b redis://:hunter2@h beat\n";
    let text = finished(ok(procfile::import("Procfile", procfile, &context)));
    assert!(!text.contains(SECRET), "{text}");
    holds("Procfile", &text, &["release: DATABASE_URL=… python manage.py migrate", "redis://…@h beat"]);
    let service = "[Unit]\nDescription=x\n[Service]\nUser=shop\nKillSignal=SIGQUIT\nType=forking\nPIDFile=/run/x.pid\nEnvironment=WEB_CONCURRENCY=3 TOKEN=hunter2\nEnvironmentFile=/etc/shop\n\
                   WorkingDirectory=/srv/%i\nExecStart=-/srv/shop/venv/bin/gunicorn -b unix:%t/shop.sock shop.wsgi \\\n  --threads 2\n";
    let text = finished(ok(procfile::import_systemd("shop@.service", service, &context)));
    assert!(!text.contains(SECRET), "{text}");
    holds(
        "shop@.service",
        &text,
        &[
            "count = 3  # WEB_CONCURRENCY",
            "%i in WorkingDirectory: systemd fills it in",
            "%t in ExecStart",
            "KillSignal = SIGQUIT: leave it away",
            "Type = forking: Type=notify",
            "PIDFile = /run/x.pid: leave it away",
            "EnvironmentFile",
        ],
    );
}

/// Whatever option of whatever server is given: it is told where its setting stands, or by a note. But for those that mean
/// something with another one only, for a file that was read, and for what is so by default.
#[test]
fn no_option_is_lost() {
    const ASIDE: [&str; 5] = ["config", "callable", "factory", "static_path_route", "proxy_headers"];
    let mut lost = Vec::new();
    for server in shell::SERVERS {
        let rows = server.rows.iter().filter(|row| !row.name.starts_with('?') && !ASIDE.contains(&row.name));
        for row in rows {
            for value in ["7", "/srv/x", "true", ""] {
                let name = row.name.trim_end_matches('*').to_owned();
                let given = row::Given { name, value: value.into(), from: "the option".into() };
                let mut draft = Draft::new("a test");
                shell::finish(&mut draft, server, &row::Options(vec![given]));
                if !finished(draft).contains("the option") {
                    lost.push(format!("{} {} = {value:?}", server.name, row.name));
                }
            }
        }
    }
    assert_eq!(lost, Vec::<String>::new());
}
