//! The answer to `quintet status`.

use std::time::Instant;

use ctl_admin::words::{GatewayStatus, Status, WorkerStatus};

use crate::proc;
use crate::state::phase_name;

use super::Driver;

impl Driver {
    pub(super) fn status(&self, gateway: Option<GatewayStatus>) -> Status {
        let now = Instant::now();
        let workers = self.state.workers().map(|(worker, known)| WorkerStatus {
            worker,
            pool: self.state.pool_name(known.place.pool).to_owned(),
            requests: known.wear.requests(),
            long_lived: u64::from(known.wear.long_lived),
            pid: known.pid.unwrap_or_default(),
            generation: known.place.generation,
            state: known.phase_name().to_owned(),
            uptime_s: now.saturating_duration_since(known.started).as_secs(),
            memory_mib: known.pid.and_then(proc::memory_mib),
        });
        Status {
            version: self.house.version().to_owned(),
            pid: std::process::id(),
            project: self.house.dir().to_path_buf(),
            addresses: self.house.urls().map(str::to_owned).collect(),
            uptime_s: now.saturating_duration_since(self.began).as_secs(),
            generation: self.state.generation(),
            state: phase_name(&self.state).to_owned(),
            gateway_pid: self.state.gateway_pid(),
            gateway_restarts: self.state.gateway_restarts(),
            workers: workers.collect(),
            pools: self.state.pools_status(),
            modules: self.state.modules_status(),
            template_pid: self.state.template_pid(),
            notes: [
                self.state.scale_notes(now),
                self.state.order_notes(),
                self.state.recycle_notes(),
                self.state.template_notes(),
                self.state.dev_notes(),
            ]
            .concat(),
            gateway,
        }
    }
}
