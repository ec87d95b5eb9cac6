//! Rules of single values that a type cannot say, and rules between settings.

use std::collections::HashSet;
use std::path::Path;

use crate::address::BindAddress;
use crate::client_certificate;
use crate::load::Loaded;
use crate::pool::check_pattern;
use crate::problem::{Problem, nearest};
use crate::raw::Fault;
use crate::size::size_text;

/// The largest frame between gateway and worker (`py_link::PAYLOAD_BYTES_MAX`; a test in `cli` compares them).
/// A request's head and a body kept in memory travel in one.
pub const FRAME_BYTES_MAX: u64 = 1 << 20;

/// Of a frame, what the gateway itself adds: request id, addresses, mount, and six bytes a header field.
const FRAME_BYTES_RESERVED: u64 = 64 << 10;

/// `MODULE:CALLABLE`, both dotted.
pub(crate) fn check_callable(text: &str) -> Result<(), Fault> {
    let hint = "the form is MODULE:CALLABLE, for example shop.wsgi:application";
    let Some((module, callable)) = text.split_once(':') else {
        let hint = if text.contains('/') || text.strip_suffix(".py").is_some() {
            "a module, not a file: shop/wsgi.py is written shop.wsgi:application".to_owned()
        } else {
            format!("which name in the module? For example {text}:application")
        };
        return Err(Fault::new(format!("\"{text}\" names no callable")).hint(hint));
    };
    if is_dotted(module) && is_dotted(callable.strip_suffix("()").unwrap_or(callable)) {
        Ok(())
    } else {
        Err(Fault::new(format!("\"{text}\" is not a callable's name")).hint(hint))
    }
}

/// A dotted module name.
pub(crate) fn check_module(text: &str) -> Result<(), Fault> {
    if is_dotted(text) {
        return Ok(());
    }
    let fault = Fault::new(format!("\"{text}\" is not a module's name"));
    Err(match text.strip_suffix(".py") {
        Some(path) => {
            fault.hint(format!("a module, not a file: {}", path.trim_start_matches("./").replace('/', ".")))
        }
        None => fault.hint("for example shop.settings"),
    })
}

/// Identifiers with dots between them. Python allows letters of every script.
fn is_dotted(text: &str) -> bool {
    let identifier = |part: &str| {
        part.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    text.split('.').all(identifier)
}

/// `""` or `/shop`: PEP 3333 lets `SCRIPT_NAME` begin with a slash and not end with one.
pub(crate) fn check_mount(text: &str) -> Result<(), Fault> {
    if text.is_empty() || (text.starts_with('/') && !text.ends_with('/') && is_path(text)) {
        return Ok(());
    }
    let right = format!("/{}", text.trim_matches('/'));
    let hint =
        if right == "/" { "leave it empty for the root".to_owned() } else { format!("for example {right}") };
    Err(Fault::new(format!("\"{text}\" is not a mount point")).hint(hint))
}

/// `/static/`.
pub(crate) fn check_prefix(text: &str) -> Result<(), Fault> {
    if text.starts_with('/') && is_path(text) {
        return Ok(());
    }
    Err(Fault::new(format!("\"{text}\" is not a path of this site")).hint("for example /static/"))
}

/// A path of this site, or empty for none.
pub(crate) fn check_optional_path(text: &str) -> Result<(), Fault> {
    if text.is_empty() { Ok(()) } else { check_prefix(text) }
}

fn is_path(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'\\')) && !text.contains("/../")
}

/// `/prefix/=/directory`.
pub(crate) fn check_accel(text: &str) -> Result<(), Fault> {
    let fault = Fault::new(format!("\"{text}\" is not of the form PREFIX=DIRECTORY"))
        .hint("for example /protected/=/srv/shop/files; the directory is absolute");
    let (prefix, dir) = text.split_once('=').ok_or_else(|| fault.clone())?;
    check_prefix(prefix)?;
    if Path::new(dir).is_absolute() { Ok(()) } else { Err(fault) }
}

/// `text/html` or `model/*` (RFC 9110, 8.3.1 and 5.6.2).
pub(crate) fn check_media_type(text: &str) -> Result<(), Fault> {
    let is_token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
            && !part.contains('*')
    };
    let known = text
        .split_once('/')
        .filter(|(kind, subtype)| is_token(kind) && (*subtype == "*" || is_token(subtype)));
    if known.is_some() {
        return Ok(());
    }
    Err(Fault::new(format!("\"{text}\" is not a media type")).hint(
        "TYPE/SUBTYPE without parameters, for example application/x-protobuf, or TYPE/* for all of a kind",
    ))
}

/// `/pattern/*=class`.
pub(crate) fn check_priority(text: &str) -> Result<(), Fault> {
    const CLASSES: [&str; 5] = ["critical", "high", "normal", "low", "lowest"];
    let (pattern, class) = text.rsplit_once('=').ok_or_else(|| {
        Fault::new(format!("\"{text}\" is not of the form PATTERN=CLASS"))
            .hint("for example /checkout/*=high")
    })?;
    check_pattern(pattern)?;
    if CLASSES.contains(&class) {
        return Ok(());
    }
    let fault = Fault::new(format!("\"{class}\" is no class of requests"));
    Err(match nearest(class, CLASSES) {
        Some(near) => fault.hint(format!("did you mean \"{near}\"?")),
        None => fault.hint(format!("one of {}", CLASSES.join(", "))),
    })
}

/// The rules between settings.
pub(crate) fn check(loaded: &Loaded, problems: &mut Vec<Problem>) {
    tls(loaded, problems);
    admin(loaded, problems);
    listeners(loaded, problems);
    frame(loaded, problems);
    health(loaded, problems);
    workers(loaded, problems);
    bans(loaded, problems);
    bandwidth(loaded, problems);
    crate::redis::check(loaded, problems);
    let config = &loaded.config;
    if config.proxy.protocol && config.proxy.trusted.is_empty() {
        let problem = Problem::new(
            "proxy.protocol: the PROXY protocol is expected of trusted proxies, but none is named",
        )
        .hint("name them in proxy.trusted, for example [\"10.0.0.0/8\"]");
        problems.push(problem.at(loaded.place("proxy.protocol")));
    }
    if config.files.static_url.is_some() && config.files.static_url == config.files.media_url {
        let problem = Problem::new("files.media_url: it is the same as files.static_url")
            .hint("an upload could then pass for a file of the site; give them two prefixes");
        problems.push(problem.at(loaded.place("files.media_url")));
    }
}

fn health(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let server = &loaded.config.server;
    if !server.healthz.is_empty() && server.healthz == server.readyz {
        let problem = Problem::new("server.readyz: it is the same path as server.healthz")
            .detail("an instance that drains is alive but not ready: one path cannot say both")
            .hint("give them two paths, or leave one of them empty");
        problems.push(problem.at(loaded.place("server.readyz").or_else(|| loaded.place("server.healthz"))));
    }
}

fn workers(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let workers = &loaded.config.workers;
    if let Some((count, max)) = workers.count.zip(workers.max).filter(|(count, max)| max < count) {
        let problem = Problem::new(format!("workers.max: {max} is less than count, {count}"))
            .hint("leave max away for a fixed number of workers, or count for one that follows the load");
        problems.push(problem.at(loaded.place("workers.max")));
    }
}

fn bans(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let bans = &loaded.config.bans;
    if bans.time_max < bans.time {
        let problem = Problem::new("bans.time_max: the longest ban is shorter than the first one, bans.time")
            .hint("bans double from time to time_max; make both the same for bans that do not grow");
        problems.push(problem.at(loaded.place("bans.time_max").or_else(|| loaded.place("bans.time"))));
    }
}

fn bandwidth(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let config = &loaded.config;
    let is_slowed =
        config.limits.bandwidth.is_some() || config.route.iter().any(|route| route.bandwidth.is_some());
    if config.limits.bandwidth_after > 0 && !is_slowed {
        let problem = Problem::new("limits.bandwidth_after: there is no bandwidth that would hold after it")
            .hint("set limits.bandwidth, for example \"1MiB\"");
        problems.push(problem.at(loaded.place("limits.bandwidth_after")));
    }
}

fn tls(loaded: &Loaded, problems: &mut Vec<Problem>) {
    client_certificate::tls(loaded, problems);
    client_certificate::routes(loaded, problems);
    if loaded.config.tls.strict_sni && !loaded.config.speaks_tls() {
        let problem = Problem::new("tls.strict_sni: there is no certificate, so TLS is off")
            .hint("set tls.certificate and tls.key, or write a [[certificate]]");
        problems.push(problem.at(loaded.place("tls.strict_sni")));
    }
    let missing = match (&loaded.config.tls.certificate, &loaded.config.tls.key) {
        (Some(_), None) => ("tls.certificate", "tls.key", "a certificate without its private key"),
        (None, Some(_)) => ("tls.key", "tls.certificate", "a private key without its certificate"),
        _ => return,
    };
    let (present, absent, what) = missing;
    let problem =
        Problem::new(format!("{present}: {what} cannot serve TLS")).hint(format!("set {absent} too"));
    problems.push(problem.at(loaded.place(present)));
}

fn admin(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let Some(address) = &loaded.config.admin.bind else { return };
    let place = loaded.place("admin.bind");
    match address {
        BindAddress::Unix(_) => return,
        BindAddress::Tcp { .. } if address.is_local() => {}
        BindAddress::Tcp { .. } => {
            let problem = Problem::new(format!("admin.bind: {address} can be reached from other machines"))
                .detail("metrics and the state of the instance are not for visitors")
                .hint("bind 127.0.0.1 or a unix socket, and let a proxy or an agent on this machine pass them on");
            problems.push(problem.at(place));
            return;
        }
        BindAddress::Fd(_) | BindAddress::Systemd => {
            let problem = Problem::new(format!("admin.bind: {address} cannot be used for the admin HTTP"))
                .hint("a loopback address or unix:PATH");
            problems.push(problem.at(place));
            return;
        }
    }
    if loaded.config.admin.token_file.is_none() {
        let problem = Problem::new("admin.bind: a TCP address needs a token")
            .detail("every user of this machine can connect to it")
            .hint("write a secret to a file and name it in admin.token_file, or bind a unix socket");
        problems.push(problem.at(place));
    }
}

fn listeners(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let bind = &loaded.config.server.bind;
    let place = || loaded.place("server.bind");
    if bind.is_empty() {
        let problem =
            Problem::new("server.bind: there is no address to listen on").hint("for example 127.0.0.1:8000");
        problems.push(problem.at(place()));
    }
    let mut seen = HashSet::new();
    for address in bind {
        let any_port = matches!(address, BindAddress::Tcp { port: 0, .. });
        if !any_port && !seen.insert(address) {
            let problem =
                Problem::new(format!("server.bind: {address} is there twice")).hint("name each address once");
            problems.push(problem.at(place()));
        }
    }
    if loaded.config.admin.bind.as_ref().is_some_and(|admin| seen.contains(admin)) {
        let problem = Problem::new("admin.bind: it is one of the addresses of server.bind")
            .hint("the admin HTTP needs an address of its own");
        problems.push(problem.at(loaded.place("admin.bind")));
    }
}

fn frame(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let config = &loaded.config;
    let parts = [
        ("limits.headers_max", config.limits.headers_max),
        ("limits.line_max", config.limits.line_max),
        ("buffers.request_memory", config.buffers.request_memory),
    ];
    let sum: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let most = FRAME_BYTES_MAX - FRAME_BYTES_RESERVED;
    if sum <= most {
        return;
    }
    let largest = parts.iter().max_by_key(|(_, bytes)| bytes).map_or("limits.headers_max", |(key, _)| key);
    let listed: Vec<_> = parts.iter().map(|(key, bytes)| format!("{key} {}", size_text(*bytes))).collect();
    let problem =
        Problem::new(format!("{largest}: head and body of a request in memory are too large together"))
            .detail(format!("{}: {} of at most {}", listed.join(", "), size_text(sum), size_text(most)))
            .hint("make one of them smaller; longer bodies go to a file, which costs little");
    problems.push(problem.at(loaded.place(largest)));
}
