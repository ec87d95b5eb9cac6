//! All upstreams of the configuration.

use std::sync::Arc;
use std::time::Duration;

use ctl_config::Config;
use ctl_telemetry::metrics::UpstreamMetrics;

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::health::AT_ONCE_MAX;
use super::{Secrets, Settings, TlsFiles, Upstream};
use crate::drain::Drain;

/// How often connections that nobody needs any more are closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// In the order of the file.
#[derive(Default)]
pub struct Upstreams(Box<[Upstream]>);

impl Upstreams {
    /// With no connection yet. The error is for the operator: a file of TLS that cannot be used, above all. Blocks on the disk.
    pub fn new(config: &Config, secrets: &Secrets) -> Result<Arc<Self>, String> {
        let upstreams: Result<Box<[_]>, String> =
            config.upstream.iter().map(|own| one(own, config, secrets)).collect();
        upstreams.map(|upstreams| Arc::new(Self(upstreams)))
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<&Upstream> {
        self.0.iter().find(|upstream| upstream.name() == name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.0.iter()
    }

    /// What is counted of each, with its name.
    pub fn metrics(&self) -> Vec<(&str, &UpstreamMetrics)> {
        self.0.iter().map(|upstream| (upstream.name(), upstream.metrics())).collect()
    }

    /// Closes connections that nobody needs any more and asks for names again, for ever, and checks the servers' health until the process listens no more; at
    /// once over where there is no upstream.
    pub async fn look_after(self: Arc<Self>, mut drain: Drain) {
        if self.0.is_empty() {
            return;
        }
        let gate = Arc::new(Semaphore::new(AT_ONCE_MAX));
        let mut watches = JoinSet::new();
        for watch in self.0.iter().filter_map(|upstream| upstream.watch(&gate)) {
            watches.spawn(watch.run());
        }
        let listens_no_more = drain.listened();
        let fresh = join_all(self.0.iter().map(Upstream::keep_fresh));
        tokio::pin!(listens_no_more, fresh);
        let mut listens = true;
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP_INTERVAL) => self.0.iter().for_each(Upstream::sweep),
                _ = &mut fresh => return,
                () = &mut listens_no_more, if listens => {
                    listens = false;
                    watches.abort_all();
                }
            }
        }
    }
}

fn one(own: &ctl_config::Upstream, config: &Config, secrets: &Secrets) -> Result<Upstream, String> {
    let files = TlsFiles {
        ca: own.tls_ca.as_deref(),
        identity: own.tls_certificate.as_deref().zip(own.tls_key.as_deref()),
    };
    let upstream = Settings::new(own, config, secrets).and_then(|settings| Upstream::new(settings, files));
    upstream.map_err(|error| format!("upstream \"{}\": {error}", own.name))
}
