//! What is done now and then: lists read again, memory given back, the file written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ctl_config::Config;
use ctl_telemetry::metrics as m;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use super::Guard;
use super::lists::{Lists, Watched};

/// A change of a list, a new ban: both count within this time.
const EVERY: Duration = Duration::from_secs(2);

/// Counts change with every request; they are written down once in so many turns.
const COUNTS_EVERY: u32 = 15;

/// The two files.
pub(super) struct Files {
    deny: Option<Watched>,
    allow: Option<Watched>,
}

/// For the life of the process.
pub async fn chores(guard: Arc<Guard>, config: Arc<Config>) {
    let mut files = Files::of(&config);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut turn, mut written) = (0_u32, 0);
    loop {
        ticks.tick().await;
        turn = turn.wrapping_add(1);
        let changes = guard.ban_changes.load(Relaxed);
        let writes = changes != written || turn.is_multiple_of(COUNTS_EVERY);
        written = changes;
        let own = Arc::clone(&guard);
        // Disks may be slow: this is not for the thread that obeys the supervisor.
        let done = tokio::task::spawn_blocking(move || {
            files.look(&own);
            own.look_after(writes);
            files
        });
        files = match done.await {
            Ok(files) => files,
            // The runtime ends.
            Err(_) => return,
        };
    }
}

impl Guard {
    /// A turn of the chores. Blocks on the disk.
    pub(super) fn look_after(&self, writes: bool) {
        let now = self.clock.now();
        self.limits.tidy(now);
        self.bans.tidy(now);
        if let Some(offences) = &self.offences {
            offences.tidy(now);
        }
        m::BANNED.set(self.bans.len(now) as i64);
        let (bytes, forgotten) = self.limits.size();
        m::LIMIT_MEMORY_BYTES.set(bytes as i64);
        // Only here is it counted up.
        m::LIMIT_FORGOTTEN_TOTAL.add(forgotten.saturating_sub(m::LIMIT_FORGOTTEN_TOTAL.get()));
        if self.handed_over.load(Relaxed) {
            return;
        }
        if let Some(kept) = self.keeper.look() {
            self.learn(&kept);
        }
        if writes {
            self.keeper.write(&self.snapshot());
        }
    }

    /// Writes all down: the process ends. Blocks on the disk for a moment.
    pub fn keep(&self) {
        if !self.handed_over.load(Relaxed) {
            self.keeper.write(&self.snapshot());
        }
    }

    /// The same for an heir, who keeps the file from now on.
    pub fn hand_over(&self) {
        self.keep();
        self.handed_over.store(true, Relaxed);
    }
}

impl Files {
    pub(super) fn of(config: &Config) -> Self {
        let watched = |path: &Option<PathBuf>| path.clone().map(Watched::new);
        Self { deny: watched(&config.bans.deny_file), allow: watched(&config.bans.allow_file) }
    }

    pub(super) fn look(&mut self, guard: &Guard) {
        let deny =
            self.deny.as_mut().and_then(|file| Some((file.look()?, file.path().display().to_string())));
        let allow =
            self.allow.as_mut().and_then(|file| Some((file.look()?, file.path().display().to_string())));
        if deny.is_none() && allow.is_none() {
            return;
        }
        let mut lists = Lists::clone(&guard.lists.load());
        for (new, list) in [(deny, &mut lists.deny), (allow, &mut lists.allow)] {
            let Some((new, file)) = new else { continue };
            if new != *list {
                info!(file, ranges = new.len(), "a list of addresses was read again");
                *list = new;
            }
        }
        guard.lists.store(Arc::new(lists));
    }
}
