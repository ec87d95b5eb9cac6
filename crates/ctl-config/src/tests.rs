//! The way from sources to a configuration, and the texts of everything that can be wrong on it.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value as Json;

use crate::load::bound;
use crate::settings::{AccessLog, all};
use crate::*;

fn sources(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Sources {
        file: (!file.is_empty())
            .then(|| TextFile { path: "/srv/shop/quintet.toml".into(), text: file.into() }),
        environment: environment.iter().map(pair).collect(),
        flags: flags
            .iter()
            .map(|(key, value)| FlagValues {
                key: (*key).to_owned(),
                shown: format!("--set {key}"),
                values: vec![(*value).to_owned()],
            })
            .collect(),
        working_dir: "/srv/shop".into(),
    }
}

/// The configuration of a file.
fn from_file(text: &str) -> Loaded {
    load(&sources(text, &[], &[])).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What is wrong with a file.
fn wrong(text: &str) -> String {
    load(&sources(text, &[], &[]))
        .map_or_else(|problems| problems.to_string(), |_| panic!("it was accepted: {text}"))
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let loaded = load(&sources("", &[], &[])).unwrap();
    assert_eq!(
        loaded.config,
        Config { app: App { dir: "/srv/shop".into(), ..App::default() }, ..Config::default() }
    );
    assert_eq!(loaded.origin("server.bind"), &Origin::Default);
}

#[test]
fn every_kind_of_value() {
    let loaded = from_file(
        r#"
        [app]
        dir = "src"
        python = "python3.12"
        [server]
        bind = ["0.0.0.0:8000", "unix:run/shop.sock", 9000]
        drain_delay = 5
        [workers]
        count = "auto"
        threads = 8
        [limits]
        body_max = "10MB"
        headers_max = 16384
        [timeouts]
        app = 1.5
        queue = "500ms"
        [files]
        compress = false
        media = "public"
        [log]
        access = "json"
        "#,
    );
    let config = &loaded.config;
    assert_eq!(config.app.dir.to_str(), Some("/srv/shop/src"));
    assert_eq!(config.app.python, Some(Program("python3.12".into())));
    let bind: Vec<_> = config.server.bind.iter().map(ToString::to_string).collect();
    assert_eq!(bind, ["0.0.0.0:8000", "unix:/srv/shop/run/shop.sock", "127.0.0.1:9000"]);
    assert_eq!(config.server.drain_delay, Duration::from_secs(5));
    assert_eq!((config.workers.count, config.workers.threads), (None, Some(8)));
    assert_eq!((config.limits.body_max, config.limits.headers_max), (10_000_000, 16_384));
    assert_eq!(config.timeouts.app, Duration::from_millis(1_500));
    assert_eq!((config.files.compress, config.files.media), (false, Media::Public));
    assert_eq!(config.log.access, AccessLog::Json);
    assert_eq!(loaded.origin("log.access").to_string(), "quintet.toml:21");
}

#[test]
fn sections_may_be_written_in_any_way_of_toml() {
    let loaded = from_file("server.backlog = 7\nqueue = { depth_max = 3 }\n");
    assert_eq!((loaded.config.server.backlog, loaded.config.queue.depth_max), (7, 3));
}

#[test]
fn the_stronger_source_wins() {
    let file = "[timeouts]\napp = \"1s\"\nbody = \"1s\"\nqueue = \"1s\"\n";
    let environment = [("QUINTET_TIMEOUTS_BODY", "2s"), ("QUINTET_TIMEOUTS_QUEUE", "2s")];
    let loaded = load(&sources(file, &environment, &[("timeouts.queue", "3s")])).unwrap();
    let Timeouts { app, body, queue, .. } = loaded.config.timeouts;
    assert_eq!([app, body, queue].map(|time| time.as_secs()), [1, 2, 3]);
    let origins =
        ["header", "app", "body", "queue"].map(|name| loaded.origin(&format!("timeouts.{name}")).to_string());
    assert_eq!(origins, ["default", "quintet.toml:2", "QUINTET_TIMEOUTS_BODY", "--set timeouts.queue"]);
}

#[test]
fn lists_in_environment_and_flags() {
    let environment = [("QUINTET_PROXY_TRUSTED", "10.0.0.0/8, unix,"), ("QUINTET_FILES_ACCEL", "")];
    let loaded = load(&sources("[files]\naccel = [\"/p/=/srv\"]\n", &environment, &[])).unwrap();
    assert_eq!(loaded.config.proxy.trusted, ["10.0.0.0/8", "unix"]);
    assert_eq!(loaded.config.files.accel, ["/p/=/srv"], "an empty variable counts as not set");
    let mut twice = sources("", &[], &[("server.bind", "8001")]);
    twice.flags[0].values.push("8002,8003".into());
    assert_eq!(load(&twice).unwrap().config.server.bind.len(), 3);
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(wrong(
        r#"
bind = "127.0.0.1:8000"
[server]
wrokers = 4
back_log = 100
[worker]
count = 2
[timeouts.queue]
max = 1
[limits]
colour = "red"
"#
    ));
}

#[test]
fn values_of_the_wrong_kind() {
    insta::assert_snapshot!(wrong(
        r#"
[workers]
count = "4"
threads = 0
start_timeout = true
[timeouts]
app = "10x"
queue = [1, 2]
[limits]
body_max = "128m"
connections_max = -1
[log]
access = "txt"
level = "loud"
[files]
compress = "yes"
max_age = 2026-01-01
"#
    ));
}

#[test]
fn values_that_are_not_possible() {
    insta::assert_snapshot!(wrong(
        r#"
[app]
callable = "shop/wsgi.py"
settings = "shop/settings.py"
mount = "shop/"
[server]
bind = ["127.0.0.1:8000", "http://0.0.0.0:80/"]
[proxy]
trusted = ["10.0.0.0/8", "10.0.0.0/33"]
[files]
static_url = "static"
accel = ["/files=files"]
[queue]
priority = ["/checkout/*=hihg", "checkout=high", "/feed/*"]
"#
    ));
}

#[test]
fn settings_that_do_not_go_together() {
    insta::assert_snapshot!(wrong(
        r#"
[server]
bind = ["127.0.0.1:8000", "8000"]
healthz = "/up"
readyz = "/up"
[tls]
certificate = "cert.pem"
[admin]
bind = "127.0.0.1:9800"
[limits]
headers_max = "512KiB"
[buffers]
request_memory = "512KiB"
[proxy]
protocol = true
[files]
static_url = "/s/"
media_url = "/s/"
"#
    ));
    insta::assert_snapshot!("admin_for_everybody", wrong("[admin]\nbind = \"0.0.0.0:9800\"\n"));
    insta::assert_snapshot!("max_below_count", wrong("[workers]\ncount = 2\nmax = 1\n"));
    insta::assert_snapshot!("no_address", wrong("[server]\nbind = []\n"));
}

#[test]
fn what_is_not_toml() {
    insta::assert_snapshot!(wrong("[server]\nbind = \"127.0.0.1:8000\nbacklog = 5\n"));
}

#[test]
fn environment_and_flags() {
    let environment = [("QUINTET_WORKERS_COUNT", "many"), ("QUINTET_TIMEOUTS_APP", "1000d")];
    let flags = [("timeouts.ap", "1s"), ("log.level", "verbose")];
    insta::assert_snapshot!(load(&sources("", &environment, &flags)).unwrap_err().to_string());
}

#[test]
fn variables_that_are_nearly_settings() {
    let environment = [
        ("QUINTET_TIMEOUTS_QUEUEE", "1s"),
        // What Kubernetes makes of a service called quintet-server.
        ("QUINTET_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("QUINTET_SERVER_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("QUINTET_CONFIG", "/etc/quintet.toml"),
        ("QUINTET_WORKER", "{}"),
        ("QUINTET_WORKER_COUNT", "2"),
        ("QUINTET_WORKER_THING", "2"),
    ];
    let loaded = load(&sources("", &environment, &[])).unwrap();
    let warnings: Vec<_> =
        loaded.warnings.iter().map(|warning| warning.render("warning", Style::default())).collect();
    assert_eq!(
        warnings.join(""),
        "warning: there is no setting \"queuee\" in [timeouts]\n  --> environment variable QUINTET_TIMEOUTS_QUEUEE\n\
         hint: did you mean QUINTET_TIMEOUTS_QUEUE?\n\
         warning: there is no section \"worker\"\n  --> environment variable QUINTET_WORKER_COUNT\n\
         hint: did you mean QUINTET_WORKERS_COUNT?\n"
    );
}

#[test]
fn places_are_counted_in_characters() {
    let text = "[server]\n# äöü\nbind = [\"ä:1\", \"::1\"]\n";
    let problems = load(&sources(text, &[], &[])).unwrap_err();
    assert_eq!(problems.0[0].location().as_deref(), Some("quintet.toml:3:9"));
}

#[test]
fn no_file_panics() {
    for text in
        ["\u{feff}", "=", "[", "[[server]]\n", "a.b.c = 1", "[server]\nbind.x = 1", "server = 1", "\0"]
    {
        let _ = load(&sources(text, &[], &[]));
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[\\[\\]a-z.=\"0-9{},\n#ä ]{0,80}") {
        let _ = load(&sources(&text, &[], &[]));
    }

    #[test]
    fn no_value_panics(index in 0_usize..500, value in "\\PC{0,20}") {
        let count = all().count();
        let setting = all().nth(index % count).unwrap();
        let _ = load(&sources("", &[], &[(setting.key, &value)]));
        let _ = load(&sources("", &[(setting.environment_name().as_str(), &value)], &[]));
    }
}

/// The table itself.
#[test]
fn every_row_is_sound() {
    let mut flags = std::collections::HashSet::new();
    for setting in all() {
        assert!(!setting.summary().is_empty(), "{}: no documentation", setting.key);
        assert!(setting.doc.trim_end().ends_with('.'), "{}: the documentation is no sentence", setting.key);
        if let Some((least, most, _)) = setting.range {
            assert!(bound(setting, least) < bound(setting, most), "{}", setting.key);
            let default = (setting.access.get_number)(&Config::default(), 0);
            let allowed = bound(setting, least)..=bound(setting, most);
            assert!(
                default.is_none_or(|number| allowed.contains(&number)),
                "{}: the default is out of range",
                setting.key
            );
        }
        if let Some((flag, _)) = setting.flag {
            assert!(flags.insert(flag), "--{flag} is there twice");
        }
        if let Some(example) = setting.example {
            let text = format!("[{}]\n{} = {example}\n", setting.section, setting.name);
            if let Err(problems) = load(&sources(&text, &[], &[])) {
                // Of a pair, the example shows one.
                assert!(
                    problems.0.iter().all(|problem| problem
                        .hint
                        .as_ref()
                        .is_some_and(|hint| hint.contains("too") || hint.contains("token"))),
                    "{problems}"
                );
            }
        }
    }
}

/// The tables that may be there several times.
#[test]
fn every_key_of_a_table_is_sound() {
    /// A module for the pool that is of one.
    const USED: &str = "[[module]]\nname = \"api\"\ndir = \"api\"\n[[route]]\napp = \"api\"\n";
    // What examples name.
    let named = "[[limit]]\nname = \"api\"\nrate = \"1/s\"\n";
    let schema = schema::json_schema();
    for table in TABLES {
        for key in table.keys {
            assert!(key.doc.trim_end().ends_with('.'), "{}: the documentation is no sentence", key.key);
            if let Some((least, most, _)) = key.range {
                assert!(bound(key, least) < bound(key, most), "{}", key.key);
                let default = (key.access.get_number)(&tables::one_of_each(), 0);
                assert!(
                    default.is_none_or(|number| (bound(key, least)..=bound(key, most)).contains(&number))
                );
            }
            let (company, needed) = match table.name {
                "worker_pool" => (USED, [("match", "match = \"/reports/*\"\n")]),
                "module" => ("[[route]]\napp = \"api\"\n", [("dir", "dir = \"api\"\n")]),
                _ => ("", [("", "")]),
            };
            let mut text = format!("{named}{company}[[{}]]\n", table.name);
            text.extend(needed.into_iter().filter(|(name, _)| *name != key.name).map(|(_, line)| line));
            for required in table.required.iter().filter(|required| required.key != key.name) {
                writeln!(text, "{} = {}", required.key, required.example).unwrap();
            }
            // Without somebody who is asked, or something that is done for each, they would do nothing.
            if key.name.starts_with("forward_auth_") {
                text.push_str("forward_auth = \"/check\"\n");
            }
            if key.name.starts_with("health_") && key.name != "health_path" {
                text.push_str("health_path = \"/readyz\"\n");
            }
            if key.name == "single_flight_by" {
                text.push_str("single_flight = \"join\"\n");
            }
            if let Some(example) = key.example {
                from_file(&format!("{text}{} = {example}\n", key.name));
            }
            let entry = &schema["properties"][table.name]["items"]["properties"][key.name];
            assert!(entry["description"].is_string(), "{}", key.key);
        }
    }
}

/// What `quintet config show` prints can be read back, value for value.
#[test]
fn defaults_are_read_back() {
    let mut text = String::new();
    for section in SECTIONS {
        writeln!(text, "[{}]", section.name).unwrap();
        for setting in section.settings {
            match setting.json(&Config::default(), 0) {
                Json::Null => {}
                value => writeln!(text, "{} = {}", setting.name, reference::toml_text(&value)).unwrap(),
            }
        }
    }
    let loaded = from_file(&text);
    assert_eq!(loaded.config.server, Config::default().server);
    assert_eq!(
        loaded.config,
        Config { app: App { dir: "/srv/shop".into(), ..App::default() }, ..Config::default() }
    );
}

#[test]
fn the_schema_knows_every_setting() {
    let schema = schema::json_schema();
    for setting in all() {
        let entry = &schema["properties"][setting.section]["properties"][setting.name];
        assert!(entry["description"].is_string(), "{}", setting.key);
    }
    assert_eq!(schema["properties"]["workers"]["properties"]["count"]["maximum"], 1024);
}

/// The gateway gets the configuration as JSON.
#[test]
fn json_and_back() {
    let config =
        from_file("[server]\nbind = [\"unix:/run/a.sock\", \"systemd\"]\n[files]\nmedia = \"off\"\n").config;
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(serde_json::from_value::<Config>(json).unwrap(), config);
}

#[test]
fn a_plain_text_is_painted_at_its_words() {
    let style = Style { strong: "<", quiet: "(", hint: "[", reset: "|" };
    let text = "Traceback:\n  error: in it\nerror: no\ndetail: not there\nhints: x\nhint: go\nnote: on\n";
    let painted =
        "Traceback:\n  error: in it\n<error|: no\n(detail|: not there\nhints: x\n[hint|: go\n[note|: on\n";
    assert_eq!(style.paint(text), painted);
    assert_eq!(Style::default().paint(text), text);
}
