//! uWSGI: an ini file, or the command line.

mod table;

use std::path::Path;

use serde_json::Value as Json;

use super::draft::Draft;
use super::row::{Given, Options, set};
use super::shell::{self, Before, Server};
use super::{Context, ini, value};
use crate::failure::Result;
use value::plain;

pub(super) const SERVER: Server =
    Server { name: "uwsgi", rows: table::ROWS, before: Before::Files(before), finish };

/// The section that uWSGI reads unless another one is named.
const SECTION: &str = "uwsgi";

/// An ini file.
pub(super) fn import(name: &str, text: &str, dir: &Path) -> Draft {
    let mut draft = Draft::new(name);
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let options = read(text, SECTION, &dir.join(name), "line ");
    shell::finish(&mut draft, &SERVER, &options);
    draft
}

/// The options of a section; `place` stands before the number of their line.
fn read(text: &str, section: &str, file: &Path, place: &str) -> Options {
    let ini::Found { pairs, outside } = ini::read(text, section, file);
    let mut options = Options::default();
    for (line, text) in outside {
        let from = format!("{place}{line}: {}", text.split('=').next().unwrap_or_default().trim_end());
        options.0.push(Given { name: "?outside".into(), value: Json::Bool(true), from });
    }
    // Keys have lost their underscores.
    let text = text.replace('_', "-");
    for ini::Pair { line, key, value } in pairs {
        let is_placeholder = table::is_unknown(&key) && text.contains(&format!("%({key})"));
        options.0.push(Given {
            from: format!("{place}{line}: {key}"),
            value: value_of(&value),
            name: if is_placeholder { format!("?{key}") } else { key },
        });
    }
    options
}

/// `true` and `false` are switches; everything else is text. `$(NAME)` is the environment's, `${NAME}` for others.
fn value_of(text: &str) -> Json {
    match text {
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        text => {
            let mut parts = text.split("$(");
            let mut filled = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                match part.split_once(')') {
                    Some((name, rest)) => filled.extend(["${", name, "}", rest]),
                    None => filled.extend(["$(", part]),
                }
            }
            filled.into()
        }
    }
}

/// `uwsgi --ini FILE …` and `uwsgi FILE.ini` (or `FILE.ini:SECTION`), and UWSGI_… variables: they are weaker than the options.
fn before(given: &Options, context: &Context) -> Result<Options> {
    let mut options = shell::prefixed(context, "UWSGI_");
    for option in &mut options.0 {
        option.name = option.name.replace('_', "-");
    }
    let named = given.text("ini").or_else(|| options.text("ini"));
    let Some(file) = named.or_else(|| given.text(shell::APP).filter(|app| is_ini(app))) else {
        return Ok(options);
    };
    let (file, section) = file.rsplit_once(':').unwrap_or((&file, SECTION));
    let path = context.dir.join(file);
    let text = super::read(&path)?;
    Ok(options.over(read(&text, section, &path, &format!("{file}:"))))
}

/// With the section behind it, where there is one.
fn is_ini(program: &str) -> bool {
    let file = program.rsplit_once(':').map_or(program, |(file, _)| file);
    Path::new(file).extension().is_some_and(|ending| ending == "ini")
}

/// What has no flag before it: an ini file, which was read.
fn program(draft: &mut Draft, given: &Given) {
    if !is_ini(&plain(&given.value)) {
        draft.not_carried(given.shown(), table::FORMS);
    }
}

/// On the command line and in the environment it was read; in a file it names another one.
fn ini(draft: &mut Draft, given: &Given) {
    if !matches!(given.from.as_str(), "--ini" | "UWSGI_INI") {
        draft.not_carried(given.shown(), "another file: import it too");
    }
}

/// The project directory is there anyway.
fn python_paths(draft: &mut Draft, options: &Options) {
    let dir = options.text("chdir").map(|dir| value::join(&dir, ""));
    for given in options.0.iter().filter(|given| PATH_OPTIONS.contains(&given.name.as_str())) {
        let path = plain(&given.value);
        if path == "." || dir.as_deref().is_some_and(|dir| value::join(&path, "") == dir) {
            draft.not_needed(given.shown(), "the project directory is on sys.path");
        } else {
            let why =
                "the project directory is on sys.path; for others set PYTHONPATH where quintet is started";
            draft.not_carried(given.shown(), why);
        }
    }
}

const PATH_OPTIONS: [&str; 3] = ["pythonpath", "pp", "python-path"];

fn environment(draft: &mut Draft, given: &Given) {
    let text = plain(&given.value);
    let (name, value) = text.split_once('=').unwrap_or((&text, ""));
    shell::environment(draft, name, value, &format!("{} {name}={value}", given.from));
}

fn lazy(draft: &mut Draft, given: &Given) {
    if value::is_on(&given.value) {
        draft.set("workers.preload", false, given.from.clone());
    } else {
        draft.not_needed(given.shown(), "it is off");
    }
}

/// Without a colon it is the path of a unix socket.
fn address(text: &str) -> String {
    let is_port = text.bytes().all(|byte| byte.is_ascii_digit());
    if text.contains(':') && !text.starts_with(['/', '.']) || is_port {
        text.to_owned()
    } else {
        format!("unix:{text}")
    }
}

fn push_address(draft: &mut Draft, address: &str, given: &Given) {
    if address.starts_with("unix:@") {
        return draft.not_carried(given.shown(), "abstract sockets have no owner and no mode: name a path");
    }
    match super::row::variable(&address.into(), "server.bind") {
        Some(why) => draft.not_carried(given.shown(), why),
        None => draft.push("server.bind", address, &given.from),
    }
}

fn http(draft: &mut Draft, given: &Given) {
    push_address(draft, &address(&plain(&given.value)), given);
}

/// `:443,cert.pem,key.pem,…`.
fn https(draft: &mut Draft, given: &Given) {
    let text = plain(&given.value);
    let mut parts = text.split(',');
    push_address(draft, &address(parts.next().unwrap_or_default()), given);
    for key in ["tls.certificate", "tls.key"] {
        if let Some(path) = parts.next() {
            draft.set(key, path, given.from.clone());
        }
    }
    for rest in parts {
        draft.not_carried(format!("{}: {rest}", given.from), "TLS has one configuration, a modern one");
    }
}

/// `socket`, which speaks what `protocol` says.
fn sockets(draft: &mut Draft, options: &Options) {
    let is_http = options.text("protocol").is_some_and(|name| name == "http");
    for given in options.0.iter().filter(|given| matches!(given.name.as_str(), "socket" | "uwsgi-socket")) {
        push_address(draft, &address(&plain(&given.value)), given);
        if !is_http || given.name == "uwsgi-socket" {
            draft.not_carried(given.shown(), table::PROTOCOL);
        }
    }
}

fn protocol(draft: &mut Draft, given: &Given) {
    match plain(&given.value).as_str() {
        "http" => draft.not_needed(given.shown(), "HTTP is what is spoken"),
        _ => draft.not_carried(given.shown(), table::PROTOCOL),
    }
}

/// The request line and all fields share it.
fn buffer_size(draft: &mut Draft, given: &Given) {
    set(draft, "limits.headers_max", value::bytes, given);
    if value::number(&given.value).is_some_and(|size| size > ctl_config::Limits::default().line_max as f64) {
        set(draft, "limits.line_max", value::bytes, given);
    }
}

/// The shorter one is what a client meets; 0 is none of both.
fn time_limit(draft: &mut Draft, options: &Options) {
    let limits = ["harakiri", "http-timeout"].into_iter().filter_map(|name| options.get(name));
    let length = |given: &Given| match value::number(&given.value) {
        Some(0.0) => f64::INFINITY,
        Some(seconds) => seconds,
        // Nothing that could be compared: it is told why it is not carried.
        None => f64::NEG_INFINITY,
    };
    let mut limits: Vec<_> = limits.collect();
    limits.sort_by(|one, other| length(one).total_cmp(&length(other)));
    let Some((shortest, others)) = limits.split_first() else { return };
    set(draft, "timeouts.app", value::app_seconds, shortest);
    for other in others {
        draft.not_needed(other.shown(), format!("{} is shorter", shortest.from));
    }
}

fn keep_alive(draft: &mut Draft, given: &Given) {
    match value::number(&given.value) {
        // `http-keepalive = 1` is the switch of old, anything above seconds.
        Some(seconds) if seconds > 1.0 => set(draft, "timeouts.keep_alive", value::seconds, given),
        _ => draft.not_needed(given.shown(), "connections are kept; timeouts.keep_alive says how long"),
    }
}

fn finish(draft: &mut Draft, options: &Options) {
    app(draft, options);
    mounts(draft, options);
    python_paths(draft, options);
    sockets(draft, options);
    processes(draft, options);
    match options.get("threads") {
        Some(given) => set(draft, "workers.threads", value::count, given),
        None => draft.set(
            "workers.threads",
            1,
            "uWSGI's default; more threads help an app that waits, if it is thread-safe",
        ),
    }
    time_limit(draft, options);
    super::name_the_proxy(draft);
    static_maps(draft, options);
}

fn processes(draft: &mut Draft, options: &Options) {
    let processes = options.get("processes").or_else(|| options.get("workers"));
    // %k: the cores of the machine where it is read.
    let (cores, processes) = match processes {
        Some(given) if plain(&given.value).contains("%k") => (Some(given), None),
        processes => (None, processes),
    };
    if let Some(given) = cores {
        draft.not_needed(given.shown(), "without workers.count there is one for each core");
    }
    match (options.get("cheaper"), processes) {
        (Some(least), Some(most)) => {
            set(draft, "workers.count", value::count, least);
            set(draft, "workers.max", value::count, most);
        }
        (Some(least), None) => set(draft, "workers.count", value::count, least),
        // Without `cheaper` the number of processes is fixed, as it is here without `workers.max`.
        (None, Some(count)) => set(draft, "workers.count", value::count, count),
        (None, None) => {}
    }
}

/// `mount = /shop=shop.wsgi:application`: one app below a prefix.
fn mounts(draft: &mut Draft, options: &Options) {
    let mounts: Vec<_> = options.all("mount").collect();
    let [given] = mounts.as_slice() else {
        for given in mounts {
            draft
                .not_carried(given.shown(), "app.mount takes one prefix; several apps are several instances");
        }
        return;
    };
    let text = plain(&given.value);
    let Some((prefix, program)) = text.split_once('=') else {
        return draft.not_carried(given.shown(), "the form is /prefix=app");
    };
    if prefix.trim_matches('/').is_empty() {
        draft.not_needed(given.shown(), "the app has all paths");
    } else {
        draft.set("app.mount", format!("/{}", prefix.trim_matches('/')), given.from.clone());
    }
    if draft.get("app.callable").is_none() {
        let is_file = Path::new(program).extension().is_some_and(|ending| ending == "py");
        let name = if is_file { "wsgi-file" } else { "module" };
        let program = Given { name: name.into(), value: program.into(), from: given.from.clone() };
        let rest = ["callable", "chdir"].into_iter().filter_map(|name| options.get(name).cloned());
        app(draft, &Options(rest.chain([program]).collect()));
    }
}

fn app(draft: &mut Draft, options: &Options) {
    let name = options.text("callable").unwrap_or_else(|| "application".into());
    if let Some(given) = options.get("module").or_else(|| options.get("wsgi")) {
        let mut given = given.clone();
        let text = plain(&given.value);
        if !text.contains(':') {
            given.value = format!("{text}:{name}").into();
        }
        return set(draft, "app.callable", value::callable, &given);
    }
    let Some(given) = options.get("wsgi-file").or_else(|| options.get("file")) else { return };
    let path = plain(&given.value);
    let dir = options.text("chdir").map(|dir| format!("{}/", dir.trim_end_matches('/')));
    let inside = dir.as_deref().and_then(|dir| path.strip_prefix(dir)).unwrap_or(&path);
    let inside = inside.strip_prefix("./").unwrap_or(inside);
    match inside.strip_suffix(".py").filter(|inside| !inside.starts_with('/')) {
        Some(module) => {
            draft.set("app.callable", format!("{}:{name}", module.replace('/', ".")), given.from.clone());
        }
        None => draft.not_carried(
            given.shown(),
            "a file outside the project directory: name its module in app.callable",
        ),
    }
}

fn static_maps(draft: &mut Draft, options: &Options) {
    let maps = options.0.iter().filter(|given| matches!(given.name.as_str(), "static-map" | "static-map2"));
    for given in maps {
        let text = plain(&given.value);
        let Some((url, dir)) = text.split_once('=') else {
            draft.not_carried(given.shown(), "the form is /prefix=/directory");
            continue;
        };
        let url = format!("/{}/", url.trim_matches('/'));
        // `%d` ends with a slash.
        let dir = &dir.replace("//", "/");
        // static-map2 puts the prefix behind the directory.
        let dir = if given.name == "static-map2" { value::join(dir, &url) } else { dir.to_owned() };
        super::serve_files(draft, &url, &dir, &given.from, &given.shown());
    }
}
