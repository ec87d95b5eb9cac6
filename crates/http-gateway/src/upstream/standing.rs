//! How the servers of upstreams fare, and taking them out by hand: for `quintet status`, `quintet upstream` and the metrics.

use std::time::Instant;

use ctl_admin::words::{
    DRAINED_MAX, Drained, SERVERS_TOLD_MAX, ServerStatus, UpstreamAnswer, UpstreamRequest, UpstreamStatus,
    is_called,
};
use ctl_telemetry::metric::Gauge;
use ctl_telemetry::metrics::ServerMetrics;
use http_upstream::{Drain, Standing};
use tracing::info;

use super::{Upstream, Upstreams};

impl Upstreams {
    /// Those that the gateway before this one had drained. Of an upstream that is no longer there nothing is kept.
    pub fn restore(&self, drained: &[Drained]) {
        for Drained { upstream, server, all } in drained {
            if let Some(upstream) = self.named(upstream) {
                upstream.group().drain(server, mode(*all), now());
            }
        }
    }

    /// `quintet upstream drain` and `undrain`.
    pub fn answer(&self, request: &UpstreamRequest) -> UpstreamAnswer {
        let (name, server, drain) = match request {
            UpstreamRequest::Drain(Drained { upstream, server, all }) => (upstream, server, mode(*all)),
            UpstreamRequest::Undrain { upstream, server } => (upstream, server, Drain::Off),
        };
        match self.drain(name, server, drain) {
            Ok(text) => UpstreamAnswer::Done { text, drained: self.drained() },
            Err(text) => UpstreamAnswer::Failed { text },
        }
    }

    /// Is there a server that it may mean?
    pub fn knows(&self, request: &UpstreamRequest) -> bool {
        let (UpstreamRequest::Drain(Drained { upstream, server, .. })
        | UpstreamRequest::Undrain { upstream, server }) = request;
        self.named(upstream).is_some_and(|upstream| !upstream.servers_called(server).is_empty())
    }

    fn drain(&self, name: &str, server: &str, drain: Drain) -> Result<String, String> {
        let Some(upstream) = self.named(name) else {
            let names: Vec<_> = self.iter().map(Upstream::name).collect();
            let hint = if names.is_empty() {
                "no [[upstream]] is configured".to_owned()
            } else {
                format!("there is {}", names.join(", "))
            };
            return Err(format!("there is no upstream \"{name}\"\nhint: {hint}"));
        };
        let found = upstream.servers_called(server);
        if found.is_empty() {
            let known: Vec<_> = upstream.status(usize::MAX).servers.into_iter().map(|it| it.name).collect();
            return Err(format!("\"{name}\" has no server \"{server}\"\nhint: it has {}", known.join(", ")));
        }
        if drain != Drain::Off && self.drained().len() + found.len() > DRAINED_MAX {
            let hint = "take servers that are gone for good out of `servers`";
            return Err(format!("{DRAINED_MAX} servers are drained already\nhint: {hint}"));
        }
        let now = now();
        for server in &found {
            upstream.group().drain(server, drain, now);
            let (upstream, server) = (name, server.as_str());
            match drain {
                Drain::Off => info!(upstream, server, "a server of an upstream gets requests again"),
                Drain::New | Drain::All => info!(upstream, server, "a server of an upstream is drained"),
            }
        }
        Ok(upstream.told(&found, drain))
    }

    /// All that are, by hand, given no new requests.
    fn drained(&self) -> Vec<Drained> {
        let of = |upstream: &Upstream| {
            let name = upstream.name().to_owned();
            let row =
                move |(server, drain)| Drained { upstream: name.clone(), server, all: drain == Drain::All };
            upstream.group().drained().into_iter().map(row)
        };
        self.iter().flat_map(of).collect()
    }

    /// How all fare, up to [`SERVERS_TOLD_MAX`] servers.
    pub fn status(&self) -> Vec<UpstreamStatus> {
        let mut room = SERVERS_TOLD_MAX;
        let of = |upstream: &Upstream| {
            let status = upstream.status(room);
            room -= status.servers.len();
            status
        };
        self.iter().map(of).collect()
    }

    /// The same as metrics: upstream, server, numbers.
    pub fn server_metrics(&self) -> Vec<(String, String, ServerMetrics)> {
        let of = |status: UpstreamStatus| {
            let UpstreamStatus { name, servers, .. } = status;
            servers.into_iter().map(move |server| (name.clone(), server.name.clone(), as_metrics(&server)))
        };
        self.status().into_iter().flat_map(of).collect()
    }
}

impl Upstream {
    /// Its servers that an operator may mean: as in logs, without the scheme, or without an address behind a name.
    fn servers_called(&self, asked: &str) -> Vec<String> {
        let here = self.group().status(now()).into_iter().map(|server| server.name);
        let away = self.group().drained().into_iter().map(|(name, _)| name);
        let mut found: Vec<_> = here.chain(away).filter(|name| is_called(name, asked)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn status(&self, servers_max: usize) -> UpstreamStatus {
        let metrics = self.metrics();
        let servers = self.group().status(now());
        let long_lived = metrics.long_lived.get();
        UpstreamStatus {
            name: self.name().to_owned(),
            requests_total: metrics.requests.get(),
            failures_total: metrics.failures.get(),
            retries_total: metrics.retries.get(),
            connections: u64::try_from(metrics.connections_open.get()).unwrap_or_default(),
            long_lived: u64::try_from(long_lived).unwrap_or_default(),
            servers: servers.into_iter().take(servers_max).map(row).collect(),
        }
    }

    /// What is so now, in words.
    fn told(&self, servers: &[String], drain: Drain) -> String {
        let status = self.status(usize::MAX);
        let (names, name) = (servers.join(", "), self.name());
        let pending: u32 =
            status.servers.iter().filter(|it| servers.contains(&it.name)).map(|it| it.pending).sum();
        let mut text = match drain {
            Drain::Off => return format!("{names} of {name} gets requests again, slowly at first"),
            Drain::New if self.is_sticky() => {
                format!("{names} of {name} gets no new clients; those who belong to it stay")
            }
            Drain::New | Drain::All => format!("{names} of {name} gets no new requests"),
        };
        match pending {
            0 => text.push_str("; it works on nothing"),
            1 => text.push_str("; 1 request is still there"),
            _ => text.push_str(&["; ", &pending.to_string(), " requests are still there"].concat()),
        }
        if !status.servers.iter().any(ServerStatus::serves) {
            text.push_str(
                "\nnote: no server of this upstream takes new requests now: clients are answered 503",
            );
        }
        text
    }
}

fn mode(all: bool) -> Drain {
    if all { Drain::All } else { Drain::New }
}

fn row(server: http_upstream::ServerStatus) -> ServerStatus {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let standing = match server.standing {
        Standing::Serving => "serving",
        Standing::Warming => "warming",
        Standing::Probation => "probation",
        Standing::Ejected => "ejected",
        Standing::Down => "down",
        Standing::Draining => "draining",
        Standing::Leaving => "leaving",
    };
    ServerStatus {
        name: server.name,
        weight: server.weight,
        standing: standing.to_owned(),
        back_in_ms: server.back_in.map(|time| micros(time) / 1000),
        pending: server.pending,
        latency_us: micros(server.latency),
        requests_total: server.requests,
        failures_total: server.failures,
        ejections_total: server.ejections,
    }
}

fn as_metrics(server: &ServerStatus) -> ServerMetrics {
    let metrics = ServerMetrics::default();
    let set = |gauge: &Gauge, number: u32| gauge.set(i64::from(number));
    set(&metrics.serving, u32::from(server.serves()));
    set(&metrics.pending, server.pending);
    metrics.requests.add(server.requests_total);
    metrics.failures.add(server.failures_total);
    metrics.ejections.add(server.ejections_total);
    metrics
}

/// The clock of the balance.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
