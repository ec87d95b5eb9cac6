//! `quintet status`: what a running instance is doing, for people or as JSON.

use std::fmt::Write as _;

use clap::ArgMatches;
use ctl_admin::client;
use ctl_admin::words::{
    GatewayStatus, ModuleStatus, PoolLoad, PoolStatus, RedisStatus, Status, WorkerStatus,
};
use ctl_config::Style;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::{instance, print, print_json, upstream};

/// The command.
pub(crate) fn run(matches: &ArgMatches) -> Result<Exit> {
    let instance = instance::find(matches)?;
    let status =
        client::status(&instance.runtime_dir).map_err(|error| instance::not_reached(error, &instance))?;
    if matches.get_flag("json") {
        let json = serde_json::to_value(&status).map_err(|error| {
            Failure::new(Exit::Failure, "the status cannot be written").detail(error.to_string())
        })?;
        return print_json(&json);
    }
    print(&text(&status, Style::COLOUR))
}

fn text(status: &Status, style: Style) -> String {
    let Style { strong, quiet, hint, reset } = style;
    let state_style = if status.state == "serving" { hint } else { strong };
    let mut out = String::new();
    let _ = writeln!(out, "{state_style}{}{reset} {}", status.state, status.project.display());
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "  {quiet}{name:<10}{reset} {value}");
    };
    for (index, address) in status.addresses.iter().enumerate() {
        row(if index == 0 { "addresses" } else { "" }, address);
    }
    row("up", &age(status.uptime_s));
    row("code", &format!("generation {}", status.generation));
    row("processes", &processes(status));
    for (index, module) in status.modules.iter().enumerate() {
        row(if index == 0 { "modules" } else { "" }, &module_text(module));
    }
    // One pool that does not scale has nothing to tell.
    let tells = status.pools.len() > 1 || status.pools.iter().any(|pool| pool.min != pool.max);
    if let Some(gateway) = &status.gateway {
        row("clients", &clients(gateway));
        row("slots", &if tells { slots(&as_the_pools_say(gateway, &status.pools)) } else { slots(gateway) });
    }
    if let Some(redis) = status.gateway.as_ref().and_then(|gateway| gateway.redis.as_ref()) {
        row("redis", &redis_text(redis));
    }
    for (index, pool) in status.pools.iter().filter(|_| tells).enumerate() {
        row(if index == 0 { "pools" } else { "" }, &pool_text(pool));
    }
    row("version", &status.version);
    for note in &status.notes {
        row("note", note);
    }
    let upstreams = status.gateway.as_ref().map_or(&[][..], |gateway| &gateway.upstreams);
    if !upstreams.is_empty() {
        let _ = write!(out, "\n{}", upstream::table(upstreams, style));
    }
    if !status.workers.is_empty() {
        let pool = if status.pools.len() > 1 { "  pool" } else { "" };
        let _ =
            writeln!(out, "\n{quiet}  worker      pid  state     code   memory  requests  age{pool}{reset}");
    }
    for worker in &status.workers {
        out.push_str(&worker_row(worker, status.pools.len() > 1));
    }
    out
}

/// `api: main:app, generation 2, template 4711`.
fn module_text(module: &ModuleStatus) -> String {
    let ModuleStatus { name, generation, app, template_pid } = module;
    let what = if *generation == 0 {
        "does not serve yet".to_owned()
    } else {
        format!("{app}, generation {generation}")
    };
    let template = template_pid.map(|pid| format!(", template {pid}")).unwrap_or_default();
    format!("{name}: {what}{template}")
}

/// `reports: 2 workers (0 to 4), 5 of 8 slots busy, 1 waiting; a request waited 80 ms for a worker`.
fn pool_text(pool: &PoolStatus) -> String {
    let PoolStatus { name, wanted, min, max, reason, load } = pool;
    let workers = match wanted {
        0 => "no worker".to_owned(),
        1 => "1 worker".to_owned(),
        wanted => format!("{wanted} workers"),
    };
    let bounds = if min == max { String::new() } else { format!(" ({min} to {max})") };
    let mut text = format!("{name}: {workers}{bounds}");
    if *wanted > 0 || load.waiting > 0 {
        let _ = write!(text, ", {} of {} slots busy, {} waiting", load.busy, load.slots, load.waiting);
    }
    if load.shed_total > 0 {
        let _ = write!(text, ", {} refused", load.shed_total);
    }
    if !reason.is_empty() && min != max {
        let _ = write!(text, "; {reason}");
    }
    text
}

/// `10.0.0.5:6379`, or since when and why it is away.
fn redis_text(redis: &RedisStatus) -> String {
    let RedisStatus { place, away_s, why } = redis;
    match away_s {
        None => format!("{place}: hosts count together"),
        Some(seconds) => format!("{place}: away for {} ({why}); this host counts by itself", age(*seconds)),
    }
}

fn processes(status: &Status) -> String {
    let gateway = match (status.gateway_pid, status.gateway_restarts) {
        (None, _) => "gateway is being started".to_owned(),
        (Some(pid), 0) => format!("gateway {pid}"),
        (Some(pid), 1) => format!("gateway {pid} (started again once)"),
        (Some(pid), restarts) => format!("gateway {pid} (started again {restarts} times)"),
    };
    // Those of several apps stand with them.
    let template = status.template_pid.filter(|_| status.modules.is_empty());
    let template = template.map(|pid| format!(", template {pid}")).unwrap_or_default();
    format!("supervisor {}, {gateway}{template}", status.pid)
}

fn clients(gateway: &GatewayStatus) -> String {
    let GatewayStatus { connections, requests_total, errors_total, .. } = gateway;
    format!(
        "{connections} connected, {requests_total} requests answered, {errors_total} of them with an error (5xx)"
    )
}

fn slots(gateway: &GatewayStatus) -> String {
    let GatewayStatus { slots, slots_busy, queue_depth, long_lived, .. } = gateway;
    let long_lived = match long_lived {
        0 => String::new(),
        1 => ", 1 WebSocket or event stream".to_owned(),
        count => format!(", {count} WebSockets and event streams"),
    };
    format!("{slots_busy} of {slots} busy, {queue_depth} requests waiting{long_lived}")
}

/// The line below tells of the same slots as they were up to a tenth of a second before: they shall not contradict each other.
fn as_the_pools_say(gateway: &GatewayStatus, pools: &[PoolStatus]) -> GatewayStatus {
    let sum = |of: fn(&PoolLoad) -> u32| pools.iter().map(|pool| u64::from(of(&pool.load))).sum();
    GatewayStatus {
        slots: sum(|load| load.slots),
        slots_busy: sum(|load| load.busy),
        queue_depth: sum(|load| load.waiting),
        ..gateway.clone()
    }
}

fn worker_row(worker: &WorkerStatus, with_pool: bool) -> String {
    let memory = worker.memory_mib.map_or_else(|| "?".into(), |mib| format!("{mib} MiB"));
    format!(
        "  {:>6} {:>8}  {:<8} {:>5} {memory:>8} {:>9}  {}{}\n",
        worker.worker,
        worker.pid,
        worker.state,
        worker.generation,
        worker.requests,
        age(worker.uptime_s),
        if with_pool { format!("  {}", worker.pool) } else { String::new() }
    )
}

/// `5 s`, `12 min`, `3 h 05 min`, `2 d 4 h`.
fn age(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => format!("{} h {:02} min", seconds / HOUR, seconds % HOUR / MINUTE),
        _ => format!("{} d {} h", seconds / DAY, seconds % DAY / HOUR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(worker: u32, state: &str, memory_mib: Option<u64>) -> WorkerStatus {
        WorkerStatus {
            pool: "default".into(),
            requests: 60_017,
            long_lived: 0,
            worker,
            pid: 4000 + worker,
            generation: 2,
            state: state.into(),
            uptime_s: 754,
            memory_mib,
        }
    }

    fn serving() -> Status {
        Status {
            modules: Vec::new(),
            pools: vec![PoolStatus {
                name: "default".into(),
                wanted: 2,
                min: 2,
                max: 2,
                ..PoolStatus::default()
            }],
            template_pid: Some(3998),
            notes: Vec::new(),
            version: "0.1.0".into(),
            pid: 3999,
            project: "/srv/shop".into(),
            addresses: vec!["http://127.0.0.1:8000".into(), "unix:/run/shop.sock".into()],
            uptime_s: 100_000,
            generation: 2,
            state: "serving".into(),
            gateway_pid: Some(4000),
            gateway_restarts: 1,
            workers: vec![worker(1, "ready", Some(84)), worker(12, "starting", None)],
            gateway: Some(GatewayStatus {
                long_lived: 0,
                shed_total: 0,
                connections: 17,
                requests_total: 120_034,
                errors_total: 3,
                slots: 8,
                slots_busy: 2,
                queue_depth: 0,
                redis: None,
                upstreams: Vec::new(),
            }),
        }
    }

    #[test]
    fn a_serving_instance() {
        insta::assert_snapshot!(text(&serving(), Style::default()));
    }

    #[test]
    fn pools_and_what_is_short() {
        let mut status = serving();
        let load = PoolLoad { slots: 12, busy: 11, waiting: 3, shed_total: 7, ..PoolLoad::default() };
        let (default, reports) = (&mut status.pools[0], PoolStatus::default());
        (default.wanted, default.max, default.load) = (3, 8, load);
        default.reason = "a request waited 80 ms for a worker (5 ms is all right)".into();
        let reason = "no request for 60 s".to_owned();
        status.pools.push(PoolStatus { name: "reports".into(), max: 2, reason, ..reports });
        status.workers[1].pool = "reports".into();
        status.notes = vec!["CPU is what is short".into()];
        if let Some(gateway) = &mut status.gateway {
            gateway.long_lived = 4;
        }
        insta::assert_snapshot!(text(&status, Style::default()));
    }

    #[test]
    fn redis_is_there_or_away() {
        let mut redis = RedisStatus { place: "10.0.0.5:6379".into(), ..RedisStatus::default() };
        assert_eq!(redis_text(&redis), "10.0.0.5:6379: hosts count together");
        (redis.away_s, redis.why) = (Some(70), "the connection broke".into());
        assert_eq!(
            redis_text(&redis),
            "10.0.0.5:6379: away for 1 min (the connection broke); this host counts by itself"
        );
    }

    #[test]
    fn ages() {
        for (seconds, want) in
            [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_900, "1 h 05 min"), (187_200, "2 d 4 h")]
        {
            assert_eq!(age(seconds), want);
        }
    }
}
