//! Idempotency-Keys and their answers: `http-limits` decides, here are the clock, the answers, and what counts as one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ctl_config::Config;
use ctl_telemetry::metrics as m;
use http_limits::{Begin, Keys, KeysLimits, Seed};

use super::Answer;

/// Statuses by which an app says that it has not done what it was asked for, and that the same request may come again: who is not
/// let in yet (401, 403), too early, too often, too busy (408, 425, 429, 503). To repeat them for a day would keep out who obeys them.
const NOT_DONE: [u16; 6] = [401, 403, 408, 425, 429, 503];

/// All keys that are known.
#[derive(Debug)]
pub(crate) struct Store {
    keys: Mutex<Keys<Known>>,
    since: Instant,
    /// The longest body that is kept.
    answer_bytes_max: u64,
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
    pub(crate) fn new(config: &Config, seed: Seed) -> Arc<Self> {
        let terms = &config.idempotency;
        let limits = KeysLimits {
            lifetime: terms.lifetime,
            keys_max: terms.keys_max as usize,
            bytes_max: usize::try_from(terms.memory_max).unwrap_or(usize::MAX),
        };
        Arc::new(Self {
            keys: Mutex::new(Keys::new(limits, seed)),
            since: Instant::now(),
            answer_bytes_max: terms.answer_max,
        })
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    fn keys(&self) -> MutexGuard<'_, Keys<Known>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request with a key arrives.
    pub(crate) fn begin(self: &Arc<Self>, key: u64, fingerprint: u64) -> Begun {
        let begun = self.keys().begin(key, fingerprint, self.now());
        self.measure();
        match begun {
            Begin::First => Begun::First(Held { store: Arc::clone(self), key, told: false }),
            Begin::Outstanding => Begun::Outstanding,
            Begin::Differs => Begun::Differs,
            Begin::Again(known) => Begun::Again(known),
            Begin::Spent => Begun::Again(Known::TooLarge),
            Begin::Full => Begun::Full,
        }
    }

    fn measure(&self) {
        let keys = self.keys();
        m::IDEMPOTENCY_KEYS.set(keys.len() as i64);
        m::IDEMPOTENCY_MEMORY_BYTES.set(keys.bytes() as i64);
    }
}

/// A key whose request is being worked on. Who drops it without a word says that nobody knows what became of it.
#[derive(Debug)]
pub(crate) struct Held {
    store: Arc<Store>,
    key: u64,
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
        self.told = true;
        if !begun || (!is_ours && NOT_DONE.contains(&status)) {
            self.store.keys().released(self.key);
        } else if is_ours {
            self.keep(Known::Doubtful, 0);
        } else if let Some(answer) = answer.and_then(|answer| answer.to_keep(self.store.answer_bytes_max)) {
            let bytes = answer.memory();
            self.keep(Known::Answer(Arc::new(answer)), bytes);
        } else {
            self.keep(Known::TooLarge, 0);
        }
        self.store.measure();
    }

    fn keep(&self, known: Known, bytes: usize) {
        let now = self.store.now();
        self.store.keys().answered(self.key, known, bytes, now);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.told {
            self.keep(Known::Doubtful, 0);
        }
    }
}
