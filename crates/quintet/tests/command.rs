//! The built command, as a shell sees it: texts, exit codes, sources of the configuration.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a command said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// A directory to run commands in, with nothing of ours in the environment.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { root }
    }

    fn path(&self) -> PathBuf {
        self.root.path().canonicalize().unwrap()
    }

    fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, &[])
    }

    fn run_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
        command
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", "/nowhere")
            .env("TMPDIR", self.path());
        command.env("XDG_RUNTIME_DIR", self.path());
        command.envs(environment.iter().copied());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(self.path().to_str().unwrap(), "/srv/shop")
        };
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A program that answers like a Python with our package, and does nothing else.
fn fake_python(path: &Path) {
    let answer =
        format!(r#"{{"python": "3.11.7", "quintet": "{}", "django": true}}"#, env!("CARGO_PKG_VERSION"));
    fs::write(path, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

const CONFIG: &str = "\
[server]
bind = [\"0.0.0.0:8000\", \"unix:run/shop.sock\"]

[timeouts]
app = \"2m\"
queue = \"5s\"
";

#[test]
fn config_show_tells_where_each_value_came_from() {
    let place = Place::new(&[("quintet.toml", CONFIG)]);
    let environment = [("QUINTET_TIMEOUTS_QUEUE", "7s"), ("QUINTET_PROXY_TRUSTED", "10.0.0.0/8,unix")];
    let said = place.run_with(&["config", "show", "--changed", "--workers", "3"], &environment);
    assert_eq!(said.code, 0, "{}", said.err);
    insta::assert_snapshot!(said.out);
    let json = place.run_with(&["config", "show", "--json", "--set", "log.level=debug"], &environment);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["settings"]["log.level"]["from"], "--set log.level");
    assert_eq!(json["settings"]["timeouts.queue"]["value"], "7s");
    assert_eq!(json["settings"]["timeouts.app"]["origin"], "file");
    assert_eq!(json["settings"]["limits.body_max"]["origin"], "default");
}

#[test]
fn config_show_shows_pools_with_their_origins() {
    let text = "[[worker_pool]]\nmatch = \"/reports/*\"\nmin = 0\napp_timeout = \"10m\"\n";
    let place = Place::new(&[("quintet.toml", text)]);
    let said = place.run(&["config", "show", "--changed"]);
    insta::assert_snapshot!("config_show_pools", said.out);
    let said = place.run(&["config", "show", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["worker_pool"][0]["name"]["value"], "reports");
    assert_eq!(json["worker_pool"][0]["min"]["from"], "quintet.toml:3");
    // All of it, defaults too, may be saved as the configuration.
    let whole = place.run(&["config", "show"]).out;
    let saved = Place::new(&[("quintet.toml", &whole)]);
    assert_eq!(saved.run(&["config", "show"]).code, 0);
}

#[test]
fn config_show_shows_everything() {
    let said = Place::new(&[]).run(&["config", "show"]);
    assert_eq!(said.code, 0, "{}", said.err);
    // The width of a column depends on the length of the temporary directory's name.
    let lines: Vec<_> =
        said.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_config_show_prints_can_be_saved_as_the_configuration() {
    let first = Place::new(&[("quintet.toml", CONFIG)]).run(&["config", "show"]);
    let place = Place::new(&[("quintet.toml", &first.out.replace("/srv/shop", "/srv/other"))]);
    let said = place.run(&["config", "show", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["settings"]["timeouts.app"]["value"], "2m", "{}", said.err);
}

#[test]
fn errors_of_the_configuration_end_every_command_with_code_2() {
    let place = Place::new(&[("quintet.toml", "[server]\nbnid = 1\n[timeouts]\napp = \"soon\"\n")]);
    for command in [&["run"][..], &["config", "show"]] {
        let said = place.run(command);
        assert_eq!(said.code, 2);
        insta::assert_snapshot!("errors_of_the_configuration", said.err);
    }
    let said = place.run(&["check"]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("did you mean \"bind\"?"), "{}", said.out);
}

#[test]
fn a_configuration_file_may_be_elsewhere() {
    let place = Place::new(&[("etc/site.toml", "[log]\nlevel = \"debug\"\n"), ("site/quintet.toml", CONFIG)]);
    let value = |said: &Said| {
        let json: serde_json::Value =
            serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}", said.err));
        [&json["settings"]["log.level"]["value"], &json["settings"]["app.dir"]["value"]]
            .map(|v| v.as_str().unwrap().to_owned())
    };
    let said = place.run(&["config", "show", "--json", "--config", "etc/site.toml", "site"]);
    assert_eq!(value(&said), ["debug", "/srv/shop/site"]);
    let said = place.run_with(&["config", "show", "--json"], &[("QUINTET_CONFIG", "etc/site.toml")]);
    assert_eq!(value(&said), ["debug", "/srv/shop/etc"]);
    let said = place.run(&["config", "show", "--json", "site"]);
    assert_eq!(value(&said), ["info", "/srv/shop/site"]);
    let said = place.run(&["run", "--config", "absent.toml"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("absent.toml does not exist"), "{}", said.err);
}

#[test]
fn without_a_project_there_is_help() {
    let place =
        Place::new(&[("site/manage.py", "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'a.settings')")]);
    let said = place.run(&["run"]);
    assert_eq!(said.code, 2);
    insta::assert_snapshot!(said.err);
    let said = place.run(&["run", "site"]);
    assert_eq!(said.code, 2);
    assert!(said.err.starts_with("error: there is no Python here\nhint: "), "{}", said.err);
}

#[test]
fn nothing_running_is_code_5() {
    let place = Place::new(&[]);
    for command in ["status", "reload", "stop"] {
        let said = place.run(&[command, "--runtime-dir", "run"]);
        assert_eq!(said.code, 5, "{command}: {}", said.err);
        assert!(said.err.starts_with("error: no instance of this project is running\n"), "{}", said.err);
    }
}

#[test]
fn a_broken_configuration_does_not_keep_anybody_from_asking() {
    let place = Place::new(&[("quintet.toml", "[server]\nbnid = 1\n")]);
    let said = place.run(&["status", "--runtime-dir", "run"]);
    assert_eq!(said.code, 5, "{}", said.err);
}

#[test]
fn an_address_in_use_is_code_4() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let place = Place::new(&[("hello.py", "")]);
    fake_python(&place.path().join("python"));
    let args =
        ["run", "--app", "hello:app", "--python", "./python", "--runtime-dir", "run", "--bind", &address];
    let said = place.run(&args);
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.err.contains(&address), "{}", said.err);
}

#[test]
fn check_answers_as_an_object() {
    let place = Place::new(&[]);
    let said = place.run(&["check", "--json"]);
    assert_eq!(said.code, 1);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["ok"], false);
    let project =
        json["findings"].as_array().unwrap().iter().find(|finding| finding["about"] == "project").unwrap();
    assert_eq!(project["text"], "there is no manage.py in /srv/shop");
}

#[test]
fn help_teaches() {
    let place = Place::new(&[]);
    let said = place.run(&["help", "exit-codes"]);
    assert_eq!(said.code, 0);
    insta::assert_snapshot!("exit_codes", said.out);
    for page in [
        &["help"][..],
        &["help", "configuration"],
        &["help", "signals"],
        &["help", "config", "show"],
        &["run", "--help"],
    ] {
        let said = place.run(page);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{page:?}");
        assert!(said.out.contains("quintet"), "{page:?}: {}", said.out);
    }
    let said = place.run(&["help", "statsu"]);
    assert_eq!(
        (said.code, said.err.as_str()),
        (2, "error: there is no help on \"statsu\"\nhint: did you mean \"status\"?\n")
    );
    assert_eq!(place.run(&[]).code, 2);
    assert_eq!(place.run(&["rnu"]).code, 2);
}

#[test]
fn the_version() {
    let place = Place::new(&[]);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(place.run(&["version"]).out, format!("quintet {version}\n"));
    assert_eq!(place.run(&["--version"]).out, format!("quintet {version}\n"));
    assert!(place.run(&["version", "--json"]).out.contains(version));
}

#[test]
fn output_is_plain_where_nobody_sees_colours_and_coloured_where_asked() {
    let place = Place::new(&[]);
    assert!(!place.run(&["run"]).err.contains('\x1b'));
    assert!(place.run_with(&["run"], &[("CLICOLOR_FORCE", "1")]).err.contains('\x1b'));
    assert!(!place.run_with(&["run"], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).err.contains('\x1b'));
}

/// Pages of the reference that are made from the code are as the code is.
/// `QUINTET_WRITE_DOCS=1 cargo test -p quintet --test command reference` writes them.
#[test]
fn the_reference_is_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let place = Place::new(&[]);
    assert_eq!(place.run(&["internal-docs", "."]).code, 0);
    for name in ["settings.md", "quintet.schema.json", "exit-codes.md", "cli.md", "import.md"] {
        let fresh = fs::read_to_string(place.path().join(name)).unwrap();
        if std::env::var_os("QUINTET_WRITE_DOCS").is_some() {
            fs::write(folder.join(name), &fresh).unwrap();
        }
        let stored = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(stored == fresh, "docs/reference/{name} is stale: run `make docs`");
    }
}

/// A guide that names a setting names one that exists.
#[test]
fn the_guides_name_settings_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    for folder in ["docs/guides", "docs/decisions"] {
        pages
            .extend(fs::read_dir(root.join(folder)).into_iter().flatten().map(|entry| entry.unwrap().path()));
    }
    let json = Place::new(&[]).run(&["config", "show", "--json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let settings = json["settings"].as_object().unwrap();
    let is_section = |name: &str| settings.keys().any(|key| key.starts_with(&format!("{name}.")));
    for page in pages {
        let text = fs::read_to_string(&page).unwrap_or_default();
        for word in text.split('`').skip(1).step_by(2) {
            let word = word.split([' ', '=']).next().unwrap_or_default();
            let Some((section, name)) = word.split_once('.') else { continue };
            let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            // Messages of ASGI have such names, too.
            let message = section == "websocket"
                && ["accept", "close", "connect", "disconnect", "receive", "send"].contains(&name);
            let file = ["css", "html", "js", "md", "py", "rs", "sock", "toml"].contains(&name);
            if is_section(section) && plain && !file && !message {
                assert!(settings.contains_key(word), "{}: there is no setting {word}", page.display());
            }
        }
    }
}
