//! `quintet upstream`: the servers behind a running instance, and taking one out.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use ctl_admin::client;
use ctl_admin::words::{Drained, ServerStatus, UpstreamRequest, UpstreamStatus, is_called};
use ctl_config::{Style, parse_duration};

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::instance::{self, Instance};
use crate::{print, print_json};

/// How often it is looked whether a server is done.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The longest wait: an hour's download is not waited for by anybody.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The command.
pub(crate) fn run(matches: &ArgMatches) -> Result<Exit> {
    match matches.subcommand() {
        Some(("drain", matches)) => drain(matches),
        Some(("undrain", matches)) => {
            let (upstream, server) = (text(matches, "upstream"), text(matches, "server"));
            let instance = instance::find(matches)?;
            change(&instance, UpstreamRequest::Undrain { upstream, server })
        }
        Some((_, matches)) => list(matches),
        // clap lets nobody leave it away.
        None => Err(Failure::new(Exit::Usage, "list, drain or undrain?").hint("quintet help upstream")),
    }
}

fn list(matches: &ArgMatches) -> Result<Exit> {
    let upstreams = ask(&instance::find(matches)?)?;
    if matches.get_flag("json") {
        return print_json(&serde_json::json!({ "upstreams": upstreams }));
    }
    if upstreams.is_empty() {
        return print("no [[upstream]] is configured\n");
    }
    print(&table(&upstreams, Style::COLOUR))
}

fn drain(matches: &ArgMatches) -> Result<Exit> {
    let wait = matches.get_one::<String>("wait").map(|text| time(text)).transpose()?;
    let (upstream, server) = (text(matches, "upstream"), text(matches, "server"));
    let instance = instance::find(matches)?;
    let request = Drained { upstream, server, all: matches.get_flag("all") };
    change(&instance, UpstreamRequest::Drain(request.clone()))?;
    let Some(wait) = wait else { return Ok(Exit::Success) };
    let until = Instant::now() + wait;
    loop {
        let pending = pending(&ask(&instance)?, &request);
        if pending == 0 {
            return print("it works on nothing any more\n");
        }
        if Instant::now() >= until {
            let message = format!("{pending} of its requests are still there after {} s", wait.as_secs());
            return Err(Failure::new(Exit::Failure, message)
                .detail("it stays drained; WebSockets and long downloads count, too")
                .hint("--all sends clients that belong to it to other servers"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Requests that the server still works on.
fn pending(upstreams: &[UpstreamStatus], request: &Drained) -> u32 {
    let servers = upstreams.iter().filter(|it| it.name == request.upstream).flat_map(|it| &it.servers);
    servers.filter(|server| is_called(&server.name, &request.server)).map(|server| server.pending).sum()
}

fn ask(instance: &Instance) -> Result<Vec<UpstreamStatus>> {
    let status =
        client::status(&instance.runtime_dir).map_err(|error| instance::not_reached(error, instance))?;
    let gateway = status.gateway.ok_or_else(|| {
        Failure::new(Exit::Failure, "the gateway has not answered")
            .hint("try again in a moment; `quintet status` shows whether it runs")
    })?;
    Ok(gateway.upstreams)
}

fn change(instance: &Instance, request: UpstreamRequest) -> Result<Exit> {
    let done = client::change_upstream(&instance.runtime_dir, request)
        .map_err(|error| instance::refused(error, instance))?;
    print(&format!("{done}\n"))
}

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}

fn time(text: &str) -> Result<Duration> {
    parse_duration(text).filter(|time| *time <= WAIT_MAX).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("\"{text}\" is no time to wait")).hint("up to 1d, for example 60s")
    })
}

/// A row a server; for `quintet status`, too.
pub(crate) fn table(upstreams: &[UpstreamStatus], style: Style) -> String {
    let Style { strong, quiet, reset, .. } = style;
    let rows: Vec<_> =
        upstreams.iter().flat_map(|up| up.servers.iter().map(move |server| (&*up.name, server))).collect();
    let width = |of: fn(&(&str, &ServerStatus)) -> usize, least: usize| {
        rows.iter().map(of).max().unwrap_or_default().max(least)
    };
    let (names, servers) =
        (width(|row| row.0.chars().count(), 8), width(|row| row.1.name.chars().count(), 6));
    let mut out = format!(
        "{quiet}  {:<names$}  {:<servers$}  {:<13}  pending  latency  requests  failures{reset}\n",
        "upstream", "server", "state"
    );
    for (upstream, server) in rows {
        let state = format!("{:<13}", state(server));
        let state = if server.serves() { state } else { format!("{strong}{state}{reset}") };
        // A String takes everything.
        let _ = writeln!(
            out,
            "  {upstream:<names$}  {:<servers$}  {state}  {:>7}  {:>7}  {:>8}  {:>8}",
            server.name,
            server.pending,
            latency(server.latency_us),
            server.requests_total,
            server.failures_total
        );
    }
    for upstream in upstreams.iter().filter(|upstream| upstream.long_lived > 0) {
        let (name, count) = (&upstream.name, upstream.long_lived);
        let what =
            if count == 1 { "WebSocket or event stream is" } else { "WebSockets and event streams are" };
        let _ = writeln!(out, "  {quiet}{name}: {count} {what} open{reset}");
    }
    out
}

/// `ejected, 8 s`.
fn state(server: &ServerStatus) -> String {
    match server.back_in_ms {
        Some(left) if server.standing == "ejected" => format!("ejected, {} s", left.div_ceil(1000)),
        _ => server.standing.clone(),
    }
}

fn latency(micros: u64) -> String {
    match micros {
        0 => "-".to_owned(),
        1..10_000 => format!("{:.1} ms", micros as f64 / 1000.0),
        10_000..10_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{} s", micros / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, standing: &str, pending: u32, latency_us: u64) -> ServerStatus {
        ServerStatus {
            name: name.to_owned(),
            standing: standing.to_owned(),
            pending,
            latency_us,
            requests_total: 60_017,
            failures_total: 3,
            ..ServerStatus::default()
        }
    }

    #[test]
    fn the_list() {
        let ejected =
            ServerStatus { back_in_ms: Some(7200), ..server("http://10.0.0.2:80", "ejected", 0, 0) };
        let api = UpstreamStatus {
            name: "api".to_owned(),
            servers: vec![server("http://10.0.0.1:8000", "serving", 12, 1840), ejected],
            long_lived: 2,
            ..UpstreamStatus::default()
        };
        let reports = UpstreamStatus {
            name: "reporting".to_owned(),
            servers: vec![server("unix:/run/r.sock", "draining", 1, 12_400_000)],
            ..UpstreamStatus::default()
        };
        insta::assert_snapshot!(table(&[api, reports], Style::default()), @r"
        upstream   server                state          pending  latency  requests  failures
        api        http://10.0.0.1:8000  serving             12   1.8 ms     60017         3
        api        http://10.0.0.2:80    ejected, 8 s         0        -     60017         3
        reporting  unix:/run/r.sock      draining             1     12 s     60017         3
        api: 2 WebSockets and event streams are open
        ");
    }

    #[test]
    fn what_is_waited_for() {
        let servers = vec![
            server("http://10.0.0.1:80 10.1.1.1", "draining", 1, 0),
            server("http://10.0.0.1:80 10.1.1.2", "draining", 2, 0),
            server("http://10.0.0.1:8000", "serving", 4, 0),
        ];
        let api = UpstreamStatus { name: "api".to_owned(), servers, ..UpstreamStatus::default() };
        let asked = |upstream: &str, server: &str| {
            let (upstream, server) = (upstream.to_owned(), server.to_owned());
            pending(std::slice::from_ref(&api), &Drained { upstream, server, all: false })
        };
        assert_eq!(asked("api", "10.0.0.1:80"), 3);
        assert_eq!(asked("api", "http://10.0.0.1:80 10.1.1.2"), 2);
        assert_eq!(asked("other", "10.0.0.1:80"), 0);
    }
}
