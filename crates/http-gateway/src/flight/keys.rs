//! Idempotency-Keys and their answers: `http-limits` decides, here are the clock, the answers, and what counts as one.
//!
//! What is known is in memory; [`super::kept`] writes it down, and is asked for what nobody here knows.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ctl_config::Config;
use ctl_telemetry::metrics as m;
use http_limits::{Begin, Keys, KeysLimits, Seed};
use tracing::warn;

use super::Answer;
use super::kept::{Claim, Kept, Locked, Read};

/// Statuses by which an app says that it has not done what it was asked for, and that the same request may come again: who is not
/// let in yet (401, 403), too early, too often, too busy (408, 425, 429, 503). To repeat them for a day would keep out who obeys them.
const NOT_DONE: [u16; 6] = [401, 403, 408, 425, 429, 503];

/// How often files are looked through whose time may be over.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// All keys that are known.
#[derive(Debug)]
pub(crate) struct Store {
    keys: Mutex<Keys<Known>>,
    since: Instant,
    seed: Seed,
    /// The longest body that is kept.
    answer_bytes_max: u64,
    kept: Option<Kept>,
}

/// What is known of a key that was used.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// Its answer.
    Answer(Arc<Answer>),
    /// It was answered, and the answer was not kept.
    TooLarge,
    /// It was broken off while the app worked on it: what it has done is not known.
    Doubtful,
}

impl Known {
    fn memory(&self) -> usize {
        match self {
            Self::Answer(answer) => answer.memory(),
            Self::TooLarge | Self::Doubtful => 0,
        }
    }
}

/// What becomes of a request with a key.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It goes.
    First(Held),
    /// It was used.
    Again(Known),
    /// The same is being worked on.
    Outstanding,
    /// The key belongs to another request.
    Differs,
    /// There is no room for another key.
    Full,
}

impl Store {
    /// Knows what other processes have left behind in `state_dir`. Blocks on the disk.
    pub(crate) fn new(config: &Config, seed: Seed, state_dir: Option<&Path>) -> Arc<Self> {
        let terms = &config.idempotency;
        let limits = KeysLimits {
            lifetime: terms.lifetime,
            keys_max: terms.keys_max as usize,
            bytes_max: usize::try_from(terms.memory_max).unwrap_or(usize::MAX),
        };
        let is_used = config.route.iter().any(|route| route.idempotency.is_some());
        let opened = state_dir.filter(|_| is_used).and_then(|dir| {
            let opened = Kept::open(dir, terms.lifetime, seed);
            opened.inspect_err(|error| complain("Idempotency-Keys will not outlive this process", error)).ok()
        });
        let (kept, seed) = opened.map_or((None, seed), |(kept, seed)| (Some(kept), seed));
        let store = Arc::new(Self {
            keys: Mutex::new(Keys::new(limits, seed)),
            since: Instant::now(),
            seed,
            answer_bytes_max: terms.answer_max,
            kept,
        });
        store.load();
        store
    }

    /// Takes in what is written down, and away what is over. Blocks on the disk.
    fn load(&self) {
        let Some(kept) = &self.kept else { return };
        if let Err(error) = kept.load(|key, read| self.learn(key, read)) {
            complain("what is known of Idempotency-Keys cannot be read", &error);
        }
    }

    fn learn(&self, key: u64, Read { fingerprint, known, left }: Read) {
        let bytes = known.memory();
        self.keys().restore(key, fingerprint, (known, bytes), left, self.now());
    }

    /// For the life of the process: takes away files whose time is over.
    pub(crate) async fn keep_clean(self: Arc<Self>) {
        while self.kept.is_some() {
            tokio::time::sleep(SWEEP_EVERY).await;
            let store = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || store.load()).await.is_err() {
                return;
            }
        }
    }

    /// The secret under which keys and fingerprints are made.
    pub(crate) fn seed(&self) -> Seed {
        self.seed
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    fn keys(&self) -> MutexGuard<'_, Keys<Known>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request with a key arrives.
    pub(crate) async fn begin(self: &Arc<Self>, key: u64, fingerprint: u64) -> Begun {
        let begun = self.begin_here(key, fingerprint);
        let begun = match begun {
            Begun::First(held) if self.kept.is_some() => self.begin_anywhere(held, fingerprint).await,
            begun => begun,
        };
        // Nothing is waited for from here on until its work begins.
        let begun = match begun {
            Begun::First(mut held) => {
                held.goes = true;
                Begun::First(held)
            }
            begun => begun,
        };
        self.measure();
        begun
    }

    fn begin_here(self: &Arc<Self>, key: u64, fingerprint: u64) -> Begun {
        match self.keys().begin(key, fingerprint, self.now()) {
            Begin::First => Begun::First(Held {
                store: Arc::clone(self),
                key,
                fingerprint,
                locked: None,
                goes: false,
                told: false,
            }),
            Begin::Outstanding => Begun::Outstanding,
            Begin::Differs => Begun::Differs,
            Begin::Again(known) => Begun::Again(known),
            Begin::Spent => Begun::Again(Known::TooLarge),
            Begin::Full => Begun::Full,
        }
    }

    /// Nobody here knows the key: does another process?
    ///
    /// The disk may take longer than the client stays: the key goes along, and is given back with its file when nobody waits any more.
    async fn begin_anywhere(self: &Arc<Self>, mut held: Held, fingerprint: u64) -> Begun {
        let (store, key) = (Arc::clone(self), held.key);
        let claiming = tokio::task::spawn_blocking(move || {
            let claimed = match store.kept.as_ref().map(|kept| kept.claim(key, fingerprint)) {
                Some(Ok(Claim::Ours(locked))) => {
                    held.locked = Some(locked);
                    None
                }
                claimed => claimed,
            };
            (held, claimed)
        });
        // It does not panic, and a runtime that ends asks nobody.
        let Ok((mut held, claimed)) = claiming.await else { return Begun::Outstanding };
        match claimed {
            Some(Ok(Claim::Theirs)) => {
                held.forget();
                Begun::Outstanding
            }
            Some(Ok(Claim::Used(read))) => {
                self.learn(key, read);
                held.told = true;
                match self.begin_here(key, fingerprint) {
                    // Its time has run out in between.
                    Begun::First(held) => {
                        held.forget();
                        Begun::Outstanding
                    }
                    begun => begun,
                }
            }
            // In memory it is known all the same.
            Some(Err(error)) => {
                complain("an Idempotency-Key could not be written down", &error);
                Begun::First(held)
            }
            Some(Ok(Claim::Ours(_))) | None => Begun::First(held),
        }
    }

    fn measure(&self) {
        let keys = self.keys();
        m::IDEMPOTENCY_KEYS.set(keys.len() as i64);
        m::IDEMPOTENCY_MEMORY_BYTES.set(keys.bytes() as i64);
    }
}

pub(super) fn complain(what: &str, error: &std::io::Error) {
    let hint = "name a directory that quintet may write to in server.state_dir";
    warn!(hint, "{what}: {error}");
}

/// A key whose request is being worked on. Who drops it without a word says that nobody knows what became of it; or, before it goes,
/// that nothing has been done.
#[derive(Debug)]
pub(crate) struct Held {
    store: Arc<Store>,
    key: u64,
    fingerprint: u64,
    locked: Option<Locked>,
    /// Somebody may work on it.
    goes: bool,
    told: bool,
}

impl Held {
    /// The longest body that is kept.
    pub(crate) fn answer_bytes_max(&self) -> u64 {
        self.store.answer_bytes_max
    }

    /// The request has got this status. `is_ours`: from the gateway itself. `begun`: an app, or another server, has seen it. `answer`:
    /// all of it, if that was recorded.
    pub(crate) fn answered(mut self, status: u16, is_ours: bool, begun: bool, answer: Option<&Answer>) {
        if !begun || (!is_ours && NOT_DONE.contains(&status)) {
            self.release();
        } else if is_ours {
            self.keep(Known::Doubtful);
        } else if let Some(answer) = answer.and_then(|answer| answer.to_keep(self.store.answer_bytes_max)) {
            self.keep(Known::Answer(Arc::new(answer)));
        } else {
            self.keep(Known::TooLarge);
        }
        self.store.measure();
    }

    /// It is known elsewhere.
    fn forget(mut self) {
        self.told = true;
        self.store.keys().released(self.key);
    }

    fn release(&mut self) {
        self.told = true;
        let (store, key) = (Arc::clone(&self.store), self.key);
        let Some(locked) = self.locked.take() else { return store.keys().released(key) };
        // First the file: who comes meanwhile is told that it is being worked on.
        self.write(move |kept| {
            let released = kept.released(key);
            locked.unlock();
            store.keys().released(key);
            released
        });
    }

    fn keep(&mut self, known: Known) {
        self.told = true;
        let (key, fingerprint, locked) = (self.key, self.fingerprint, self.locked.take());
        let (now, bytes) = (self.store.now(), known.memory());
        let fits = {
            let mut keys = self.store.keys();
            keys.answered(key, known.clone(), bytes, now);
            matches!(keys.begin(key, fingerprint, now), Begin::Again(_))
        };
        let Some(locked) = locked else { return };
        // What is not kept in memory is not kept on the disk either: that bounds both.
        let known = if fits { known } else { Known::TooLarge };
        self.write(move |kept| {
            let written = kept.answered(key, fingerprint, &known);
            locked.unlock();
            written
        });
    }

    /// Where a disk may be waited for.
    fn write(&self, work: impl FnOnce(&Kept) -> std::io::Result<()> + Send + 'static) {
        let store = Arc::clone(&self.store);
        let write = move || {
            if let Some(Err(error)) = store.kept.as_ref().map(work) {
                complain("an Idempotency-Key could not be written down", &error);
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(write)),
            // The process ends, and nobody waits for it.
            Err(_) => write(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match (self.told, self.goes) {
            (true, _) => {}
            (false, true) => self.keep(Known::Doubtful),
            (false, false) => self.release(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::future::Future as _;
    use std::task::{Context, Waker};

    use ctl_config::Route;
    use ctl_config::route::Idempotency;

    use super::*;

    #[tokio::test]
    async fn who_leaves_before_anything_is_done_may_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.route.push(Route { idempotency: Some(Idempotency::Required), ..Route::default() });
        let store = Store::new(&config, Seed::from_bytes([1; 16]), Some(dir.path()));
        // Its client leaves while the disk is waited for.
        let mut leaves = Box::pin(store.begin(7, 70));
        let polled = leaves.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        drop(leaves);
        let again = async {
            loop {
                match store.begin(7, 70).await {
                    Begun::Outstanding => tokio::time::sleep(Duration::from_millis(1)).await,
                    begun => break begun,
                }
            }
        };
        let begun = tokio::time::timeout(Duration::from_secs(10), again).await.expect("it is given back");
        let Begun::First(held) = begun else { panic!("{begun:?}") };
        // From now on it may have been done.
        drop(held);
        assert!(matches!(store.begin(7, 70).await, Begun::Again(Known::Doubtful)));
        let files = fs::read_dir(dir.path().join("idempotency")).unwrap().count();
        assert_eq!(files, 2, "the key and the secret");
    }
}
