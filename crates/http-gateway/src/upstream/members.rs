//! From what is configured to servers: a unix socket and an address are one each, a name as many as it has addresses, at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use ctl_telemetry::metrics::UpstreamMetrics;
use futures_util::future::join_all;
use http_upstream::Group;
use tokio::time::timeout;

use super::resolve::{Name, Spot, literal};
use super::server::{Bounds, Place, Server};
use super::settings::{ServerAddress, Settings, names};
use super::tls::{ClientTls, TlsFiles, client_config};

/// How often it is looked whether it is time to ask for a name again.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);

type Servers = Vec<http_upstream::Server<Arc<Server>>>;

/// See the head of this file.
pub(super) struct Members {
    entries: Box<[Entry]>,
    bounds: Bounds,
    metrics: Arc<UpstreamMetrics>,
    /// How many servers there are now.
    count: AtomicUsize,
    /// Held while the resolver is asked: one question for all who wait.
    asking: tokio::sync::Mutex<()>,
}

/// An item of `servers`.
struct Entry {
    name: String,
    authority: String,
    weight: u32,
    tls: Option<Arc<ClientTls>>,
    at: At,
}

enum At {
    Here(Place),
    Named(Arc<Name>),
}

impl Members {
    /// Nobody has been asked yet. The error is for the operator.
    pub(super) fn new(
        settings: &Settings,
        tls: TlsFiles<'_>,
        metrics: &Arc<UpstreamMetrics>,
    ) -> Result<Self, String> {
        let encrypted =
            settings.servers.iter().any(|(it, _)| matches!(it, ServerAddress::Tcp { tls: true, .. }));
        let tls = encrypted.then(|| client_config(tls)).transpose()?;
        let entry = |(address, weight): &(ServerAddress, u32)| {
            let (at, tls) = match address {
                ServerAddress::Unix(path) => (At::Here(Place::Unix(path.clone())), None),
                ServerAddress::Tcp { host, port, tls: encrypted } => {
                    let tls = match (&tls, encrypted) {
                        (Some(config), true) => {
                            let name = settings.tls_server_name.as_deref().unwrap_or(host);
                            Some(Arc::new(ClientTls::new(Arc::clone(config), name)?))
                        }
                        _ => None,
                    };
                    let named = || At::Named(Arc::new(Name::new(host, *port, settings.resolve_interval)));
                    (literal(host, *port).map_or_else(named, |spot| At::Here(Place::Tcp(spot))), tls)
                }
            };
            let (name, authority) = names(address);
            Ok(Entry { name, authority, weight: *weight, tls, at })
        };
        let entries: Result<Box<[_]>, String> = settings.servers.iter().map(entry).collect();
        let bounds = Bounds {
            connections_max: settings.connections_max as usize,
            connect_timeout: settings.connect_timeout,
            keep_alive: settings.keep_alive,
        };
        let (metrics, count) = (Arc::clone(metrics), AtomicUsize::new(0));
        Ok(Self { entries: entries?, bounds, metrics, count, asking: tokio::sync::Mutex::default() })
    }

    /// How many servers there are now.
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// All that are known now. Each address of a name has the weight of the name: it says what a machine can do.
    pub(super) fn servers(&self) -> Servers {
        let mut servers = Servers::new();
        for entry in &self.entries {
            let mut add = |name: String, at: (Place, Option<Arc<Name>>)| {
                let names = (name.clone(), entry.authority.clone());
                let server = Arc::new(Server::new(names, at, entry.tls.clone(), self.bounds, &self.metrics));
                servers.push(http_upstream::Server { name, weight: entry.weight, server });
            };
            match &entry.at {
                At::Here(place) => add(entry.name.clone(), (place.clone(), None)),
                At::Named(name) => {
                    for spot in name.spots() {
                        add(called(&entry.name, &spot), (Place::Tcp(spot), Some(Arc::clone(name))));
                    }
                }
            }
        }
        self.count.store(servers.len(), Relaxed);
        servers
    }

    fn named(&self) -> impl Iterator<Item = &Arc<Name>> {
        self.entries.iter().filter_map(|entry| match &entry.at {
            At::Named(name) => Some(name),
            At::Here(_) => None,
        })
    }

    /// Asks for the names for which it is time. Cancel safe.
    pub(super) async fn refresh(&self, group: &Group<Arc<Server>>, upstream: &str) {
        let _one_asks = self.asking.lock().await;
        let due = self.named().filter(|name| name.is_due());
        let answers = join_all(due.map(|name| name.ask(upstream))).await;
        let failures = answers.iter().filter(|answer| answer.is_err()).count();
        self.metrics.resolve_failures.add(failures as u64);
        // Compared with the group, not with the answers: whoever asked before may have been cancelled behind them.
        let servers = self.servers();
        let before = group.servers();
        let same = before.len() == servers.len()
            && servers.iter().all(|server| before.iter().any(|(_, it)| it.name == server.name));
        if same {
            return;
        }
        group.set_servers(servers, tokio::time::Instant::now().into_std());
        let after = group.servers();
        for (id, server) in &before {
            if !after.iter().any(|(other, _)| other == id) {
                tracing::info!(
                    upstream,
                    server = server.name,
                    "a server of an upstream is gone from its name"
                );
                server.set_retired(true);
            }
        }
        for (id, server) in &after {
            server.set_retired(false);
            if !before.iter().any(|(other, _)| other == id) {
                tracing::info!(upstream, server = server.name, "a name of an upstream has a server");
            }
        }
    }

    /// There is no server yet: waits for the first answer, as long as a connection may take.
    pub(super) async fn first(&self, group: &Group<Arc<Server>>, upstream: &str) {
        let _or_it_takes_too_long = timeout(self.bounds.connect_timeout, self.refresh(group, upstream)).await;
    }

    /// Asks for names whenever it is time, for ever.
    pub(super) async fn keep_fresh(&self, group: &Group<Arc<Server>>, upstream: &str) {
        if self.named().next().is_none() {
            return std::future::pending().await;
        }
        loop {
            if self.named().any(|name| name.is_due()) {
                self.refresh(group, upstream).await;
            }
            tokio::time::sleep(REVIEW_INTERVAL).await;
        }
    }
}

#[cfg(test)]
impl Members {
    /// As if the resolver had answered.
    pub(super) fn pretend(&self, spots: &[Spot]) {
        self.named().for_each(|name| name.pretend(spots));
    }

    /// As if nobody had asked for long.
    pub(super) fn forget_when(&self) {
        self.named().for_each(|name| name.forget_when());
    }
}

/// A server of a name, apart from the others of it. The configured name stands alone before the blank: operators may say that.
fn called(name: &str, spot: &Spot) -> String {
    match spot.first() {
        Some(address) => format!("{name} {}", address.ip()),
        None => name.to_owned(),
    }
}
