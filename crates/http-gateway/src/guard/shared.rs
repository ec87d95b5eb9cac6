//! Limits that several hosts count together, through Redis.
//!
//! First this host counts, as if it were alone: who is refused here would be refused by all, and an attacker costs Redis nothing.
//! Who is let in here is asked about there (`http_limits::shared`), under all of his limits at once. When Redis is away or late this
//! host's own answer holds, so that the worst that an outage does is to let each host give out the whole rate. No request waits
//! for longer than `redis.timeout`, and none fails.
//!
//! Keys are digests: neither sessions nor API keys can be read there. All begin with one tag in braces, so that a cluster keeps
//! them on one node, where one script can see them together.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ctl_config::Config;
use ctl_telemetry::metrics::LIMIT_ALONE_TOTAL;
use http_limits::{Together, shared};
use http_redis::Value;
use ring::digest::{Context, SHA256};

use super::limits::{Checked, Pass};
use super::whose::{Asks, Parts};
use super::{Entry, Guard, entry};
use crate::message::{RequestHead, Trail};
use crate::redis::{Redis, Script, Trouble};

/// Of a digest: what a key has to be told apart from are other keys, not forgers with time.
const DIGEST_BYTES: usize = 16;

/// The limits of all hosts.
pub(super) struct Shared {
    redis: Arc<Redis>,
    prefix: String,
    take: Script,
    give_back: Arc<Script>,
}

/// A limit that holds for a request, with its two keys.
pub(super) struct Held {
    pub(super) number: usize,
    /// In the table of this host.
    pub(super) key: u64,
    /// In Redis.
    pub(super) shared: String,
    /// Interval and window.
    pub(super) ticks: (u64, u64),
}

/// What is to be asked about a request that this host alone would let in.
pub struct Question {
    held: Vec<Held>,
    /// What holds when no answer comes.
    alone: (Duration, Pass),
    /// It was counted under the limits that hold for all, too.
    of_route: bool,
}

/// A key that others make as well.
pub(super) struct Digest(Context);

impl Digest {
    /// For a limit of this name and terms: what is counted under others is none of its.
    pub(super) fn of(definition: &str) -> Self {
        let mut digest = Self(Context::new(&SHA256));
        digest.part(0, definition.as_bytes());
        digest
    }

    pub(super) fn key(self) -> String {
        let digest = self.0.finish();
        URL_SAFE_NO_PAD.encode(&digest.as_ref()[..DIGEST_BYTES])
    }
}

impl Parts for Digest {
    fn part(&mut self, kind: u8, bytes: &[u8]) {
        // The length too, so that "ab", "c" is another key than "a", "bc".
        self.0.update(&((bytes.len() as u64) << 8 | u64::from(kind)).to_le_bytes());
        self.0.update(bytes);
    }
}

impl Shared {
    pub(super) fn new(config: &Config, redis: Arc<Redis>) -> Self {
        Self {
            redis,
            prefix: format!("{{{}}}:limit:", config.redis.prefix),
            take: Script::new(shared::TAKE),
            give_back: Arc::new(Script::new(shared::GIVE_BACK)),
        }
    }

    fn keys(&self, held: &[Held]) -> Vec<String> {
        held.iter().map(|held| format!("{}{}", self.prefix, held.shared)).collect()
    }

    /// `None`: it does not tell, or not in time.
    async fn ask(&self, held: &[Held]) -> Option<Together> {
        let args: Vec<u64> = held.iter().flat_map(|held| [held.ticks.0, held.ticks.1]).collect();
        let answer = self.redis.run(&self.take, &self.keys(held), &args).await.ok()?;
        let numbers = || answer.list()?.iter().map(Value::integer).collect::<Option<Vec<i64>>>();
        let together = numbers().and_then(|numbers| Together::read(&numbers, held.len()));
        if together.is_none() {
            self.redis.failed(&Trouble::Odd);
        }
        together
    }

    fn give_back(&self, held: &[Held]) {
        if !held.is_empty() {
            let args = held.iter().map(|held| held.ticks.0).collect();
            self.redis.tell(&self.give_back, self.keys(held), args);
        }
    }
}

impl Guard {
    /// What becomes of a request after this host has counted it under these limits.
    pub(super) fn decided(
        &self,
        checked: Checked,
        (asks, numbers, of_route): (&Asks<'_>, &[usize], bool),
        trail: &Trail,
    ) -> Entry {
        let Some(shared) = &self.shared else { return entry(checked, asks.head, trail) };
        match checked {
            Checked::Passes { turn_in, pass, counted: true } => {
                if !shared.redis.is_there() {
                    LIMIT_ALONE_TOTAL.inc();
                    return entry(Checked::Passes { turn_in, pass, counted: true }, asks.head, trail);
                }
                let held = self.limits.held(asks, numbers);
                Entry::Asks(Box::new(Question { held, alone: (turn_in, pass), of_route }))
            }
            Checked::Refused(_) if of_route => {
                shared.give_back(&self.limits.held(asks, self.limits.general()));
                entry(checked, asks.head, trail)
            }
            checked => entry(checked, asks.head, trail),
        }
    }

    /// Asks for all hosts; not for longer than `redis.timeout`. Never [`Entry::Asks`].
    pub async fn settle(&self, question: Question, head: &RequestHead, trail: &Trail) -> Entry {
        let Question { held, alone: (turn_in, pass), of_route } = question;
        let answer = match &self.shared {
            Some(shared) => shared.ask(&held).await,
            None => None,
        };
        let checked = match answer {
            None => {
                LIMIT_ALONE_TOTAL.inc();
                Checked::Passes { turn_in, pass, counted: true }
            }
            Some(Together::Passes(verdicts)) => self.limits.told(&held, &verdicts),
            Some(Together::Refused { limit, retry_in }) => {
                self.limits.give_back_held(&held);
                if of_route {
                    let cookie = self.session_cookies.names();
                    let asks = super::of_route(head, trail, &cookie);
                    self.give_back(&asks, self.limits.general());
                }
                self.limits.refusal(&held, limit, retry_in)
            }
        };
        entry(checked, head, trail)
    }

    /// Requests that were counted are not made after all: here and for all hosts.
    pub(super) fn give_back(&self, asks: &Asks<'_>, numbers: &[usize]) {
        self.limits.give_back(asks, numbers);
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.redis.is_there()) {
            shared.give_back(&self.limits.held(asks, numbers));
        }
    }
}
