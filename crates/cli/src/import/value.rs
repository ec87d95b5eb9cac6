//! From a value as other servers write it to a value as quintet.toml does. What means the same is carried exactly.

use std::time::Duration;

use ctl_config::{duration_text, size_text};
use serde_json::Value as Json;

/// What a value means here.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Means {
    /// This value.
    Value(Json),
    /// What is so anyway.
    Same(&'static str),
    /// Nothing that can be written; why.
    No(String),
}

/// A conversion.
pub(super) type As = fn(&Json) -> Means;

/// The text of a value: of a list, its items with commas.
pub(super) fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Whether a switch is on; a flag without a value is.
pub(super) fn is_on(value: &Json) -> bool {
    match value {
        Json::Bool(on) => *on,
        Json::Null => false,
        other => !matches!(
            plain(other).to_ascii_lowercase().as_str(),
            "" | "0" | "false" | "no" | "off" | "none" | "disable" | "disabled"
        ),
    }
}

pub(super) fn number(value: &Json) -> Option<f64> {
    let number = match value {
        Json::Number(number) => number.as_f64()?,
        Json::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (number.is_finite() && number >= 0.0).then_some(number)
}

fn whole(value: &Json) -> Option<u64> {
    match value {
        Json::Number(number) => number.as_u64(),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn not_a(value: &Json, what: &str) -> Means {
    Means::No(format!("\"{}\" is not {what}", plain(value)))
}

pub(super) fn text(value: &Json) -> Means {
    Means::Value(plain(value).into())
}

/// A user or a group: by name, since numbers mean somebody else on the next machine.
pub(super) fn account(value: &Json) -> Means {
    let name = plain(value);
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Means::No(format!(
            "a number: write the name, `getent passwd {name}` or `getent group {name}` tells it"
        ));
    }
    Means::Value(name.into())
}

pub(super) fn switch(value: &Json) -> Means {
    Means::Value(is_on(value).into())
}

pub(super) fn count(value: &Json) -> Means {
    whole(value).map_or_else(|| not_a(value, "a whole number"), |number| Means::Value(number.into()))
}

/// A number of which 0 means none: what is unset here.
pub(super) fn count_or_never(value: &Json) -> Means {
    match whole(value) {
        Some(0) => Means::Same("0 means never, which is the default"),
        _ => count(value),
    }
}

fn milliseconds(value: &Json, unit: f64) -> Means {
    /// Ten years, the longest that our own durations may be.
    const MOST: f64 = 10.0 * 365.0 * 86_400_000.0;
    match number(value).map(|number| (number * unit).round()) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and MOST")]
        Some(time) if time <= MOST => Means::Value(duration_text(Duration::from_millis(time as u64)).into()),
        _ => not_a(value, "a time in seconds"),
    }
}

pub(super) fn seconds(value: &Json) -> Means {
    milliseconds(value, 1_000.0)
}

pub(super) fn millis(value: &Json) -> Means {
    milliseconds(value, 1.0)
}

pub(super) fn seconds_or_never(value: &Json) -> Means {
    match number(value) {
        Some(0.0) => Means::Same("0 means never, which is the default"),
        _ => seconds(value),
    }
}

/// The app's time limit: 0 is none, and ours ends after a day.
pub(super) fn app_seconds(value: &Json) -> Means {
    if number(value) == Some(0.0) { Means::Value("1d".into()) } else { seconds(value) }
}

/// As granian writes them: `90`, `1h30m`, `1d12h`.
pub(super) fn human_seconds(value: &Json) -> Means {
    if number(value).is_some() {
        return seconds(value);
    }
    match ctl_config::parse_duration(&plain(value)) {
        Some(time) => Means::Value(duration_text(time).into()),
        None => not_a(value, "a duration"),
    }
}

fn bytes_of(value: &Json, unit: u64) -> Means {
    match whole(value).and_then(|number| number.checked_mul(unit)) {
        Some(bytes) => Means::Value(size_text(bytes).into()),
        None => not_a(value, "a number of bytes"),
    }
}

pub(super) fn bytes(value: &Json) -> Means {
    bytes_of(value, 1)
}

pub(super) fn mebibytes(value: &Json) -> Means {
    bytes_of(value, 1 << 20)
}

/// Of a WebSocket message: what has no limit elsewhere gets the largest that is possible here.
pub(super) fn message_bytes(value: &Json) -> Means {
    if whole(value) == Some(0) { Means::Value("256MiB".into()) } else { bytes(value) }
}

/// nginx's sizes: `8k`, `10m`, `1g`, all binary.
pub(super) fn nginx_bytes(value: &Json) -> Means {
    let text = plain(value).split(' ').next().unwrap_or_default().to_ascii_lowercase();
    let (digits, unit) = match text.strip_suffix(['k', 'm', 'g']) {
        Some(digits) if text.ends_with('k') => (digits, 1 << 10),
        Some(digits) if text.ends_with('m') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (text.as_str(), 1),
    };
    bytes_of(&digits.into(), unit)
}

/// nginx's times: `65`, `65s`, `1m30s`, `1h`, `500ms`; weeks, months and years too.
pub(super) fn nginx_time(value: &Json) -> Means {
    // `keepalive_timeout 75s 60s`: the second is only told to the client.
    let text = plain(value);
    let text = text.split(' ').next().unwrap_or_default();
    if let Some(time) = ctl_config::parse_duration(text) {
        return Means::Value(duration_text(time).into());
    }
    for (unit, days) in [('w', 7.0), ('M', 30.0), ('y', 365.0)] {
        if let Some(digits) = text.strip_suffix(unit) {
            return milliseconds(&digits.into(), days * 86_400_000.0);
        }
    }
    not_a(value, "a time")
}

/// Log levels by any of their names.
pub(super) fn level(value: &Json) -> Means {
    match plain(value).to_ascii_lowercase().as_str() {
        "debug" | "trace" => Means::Value("debug".into()),
        "info" => Means::Same("info is the default"),
        "warning" | "warn" => Means::Value("warn".into()),
        "error" | "critical" | "fatal" => Means::Value("error".into()),
        _ => not_a(value, "a level of the log"),
    }
}

/// A file of the access log, or `-` for standard output.
pub(super) fn access_log(value: &Json) -> Means {
    match plain(value).as_str() {
        "" | "off" | "none" | "None" => Means::Same("no access log is the default"),
        _ => Means::Value("text".into()),
    }
}

/// A switch of the access log.
pub(super) fn access_switch(value: &Json) -> Means {
    Means::Value(if is_on(value) { "text" } else { "off" }.into())
}

/// `shop.wsgi`, `shop.wsgi:app`, `shop.wsgi:create_app()`; without a name, `application`.
pub(super) fn callable(value: &Json) -> Means {
    let text = plain(value);
    let (module, name) = text.split_once(':').unwrap_or((text.as_str(), "application"));
    match name.split_once('(') {
        Some((_, arguments)) if arguments.trim_end_matches(')').trim() != "" => {
            Means::No("a callable with arguments: write a module that calls it, and name that".into())
        }
        _ => Means::Value(format!("{module}:{name}").into()),
    }
}

/// An address of gunicorn and hypercorn: `HOST:PORT`, `HOST`, `unix:PATH`, `fd://N`.
pub(super) fn address(text: &str) -> String {
    let text = text.trim();
    match text.strip_prefix("fd://") {
        Some(number) => format!("fd:{number}"),
        None => text.strip_prefix("tcp://").unwrap_or(text).to_owned(),
    }
}

/// `host` with `port`, IPv6 in brackets.
pub(super) fn host_port(host: &str, port: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Trusted proxies, with commas; `*` is everybody.
pub(super) fn networks(value: &Json) -> Means {
    let mut list: Vec<Json> = Vec::new();
    for item in plain(value).split(',').map(str::trim).filter(|item| !item.is_empty()) {
        match item {
            "*" => list.extend(["0.0.0.0/0", "::/0", "unix"].map(Json::from)),
            path if path.starts_with('/') || path.starts_with("unix:") => list.push("unix".into()),
            "localhost" => list.extend(["127.0.0.1", "::1"].map(Json::from)),
            network => list.push(network.into()),
        }
    }
    if list.is_empty() { Means::Same("nobody is trusted by default") } else { Means::Value(list.into()) }
}

/// A path below `dir`, as text.
pub(super) fn join(dir: &str, rest: &str) -> String {
    format!("{}/{}", dir.trim_end_matches('/'), rest.trim_matches('/'))
}

/// The interpreter of an environment.
pub(super) fn environment_python(value: &Json) -> Means {
    Means::Value(join(&plain(value), "bin/python").into())
}
