//! Bans that hold on all hosts, through Redis: what happens here is told there, what others tell is taken over.
//!
//! The table of this host stays what accepting and requests ask: it is a copy of all bans, brought up to date each second and at
//! every change of its own. What is pardoned is told as well, so that no other host tells of the ban again. While Redis is away
//! changes wait, at most one for each client that may be banned; when it comes back empty every host tells of all that it knows.
//!
//! How far a client is from a ban is counted for all hosts, too, behind the answers: nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ctl_config::Config;
use futures_util::future::join_all;
use http_limits::{KeptBan, Quota, Reason, Together, shared};
use http_redis::Value;
use tokio::sync::Notify;

use super::Guard;
use super::shared::Digest;
use super::whose::Parts as _;
use crate::redis::{Duty, Keeper, Redis, Script, Trouble};

/// Changes that are told at once, and that are heard at once: the script runs for a millisecond or two.
const PAGE: usize = 500;

/// Pages of one turn; the rest is the next one's.
const PAGES_MAX: usize = 64;

/// Offences that wait to be counted for all hosts. A flood of more is counted by each host all the same.
const OFFENCES_MAX: usize = 4096;

/// Offences that are asked about at once.
const OFFENCES_AT_ONCE: usize = 128;

/// Values of a ban in the answer.
const FIELDS: usize = 5;

/// What is to be told of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Banned,
    Pardoned,
    /// Nothing has changed: somebody who has forgotten is to hear of it.
    Known,
}

/// What is to be told.
pub(super) struct News {
    redis: Arc<Redis>,
    /// Of whom.
    changes: Mutex<HashMap<IpAddr, Change>>,
    changes_max: usize,
    /// Tell of everybody.
    all: AtomicBool,
    offences: Mutex<VecDeque<IpAddr>>,
    called: Notify,
}

impl News {
    pub(super) fn new(config: &Config, redis: Arc<Redis>) -> Self {
        Self {
            redis,
            changes: Mutex::default(),
            changes_max: config.bans.clients_max as usize,
            all: AtomicBool::new(false),
            offences: Mutex::default(),
            called: Notify::new(),
        }
    }

    /// A ban began here, or was changed.
    pub(super) fn banned(&self, client: IpAddr) {
        self.changed(client, Change::Banned);
    }

    /// A ban was ended here.
    pub(super) fn pardoned(&self, client: IpAddr) {
        self.changed(client, Change::Pardoned);
    }

    /// Many bans may have changed.
    pub(super) fn many(&self) {
        self.all.store(true, Relaxed);
    }

    /// An offence that led to no ban here.
    pub(super) fn offended(&self, client: IpAddr) {
        let mut offences = lock(&self.offences);
        if self.redis.is_there() && offences.len() < OFFENCES_MAX {
            offences.push_back(client);
            drop(offences);
            self.called.notify_one();
        }
    }

    /// What the operator is to know of a change.
    pub(super) fn note(&self) -> &'static str {
        if self.redis.is_there() {
            ""
        } else {
            "\nnote: Redis is away: the other hosts hear of it when it is back"
        }
    }

    fn changed(&self, client: IpAddr, change: Change) {
        self.put(client, change);
        self.called.notify_one();
    }

    fn put(&self, client: IpAddr, change: Change) {
        let mut changes = lock(&self.changes);
        if changes.len() < self.changes_max || changes.contains_key(&client) {
            changes.insert(client, change);
        }
    }

    /// A page of them.
    fn take(&self) -> Vec<(IpAddr, Change)> {
        let mut changes = lock(&self.changes);
        let page: Vec<(IpAddr, Change)> =
            changes.iter().take(PAGE).map(|(client, change)| (*client, *change)).collect();
        for (client, _) in &page {
            changes.remove(client);
        }
        page
    }

    /// They were not told. What has changed since is the truth.
    fn put_back(&self, page: &[(IpAddr, Change)]) {
        let mut changes = lock(&self.changes);
        for (client, change) in page {
            changes.entry(*client).or_insert(*change);
        }
    }
}

/// Tells and hears.
pub(crate) struct BanDuty {
    guard: Arc<Guard>,
    news: Arc<News>,
    sync: Script,
    take: Script,
    give_back: Script,
    keys: Vec<String>,
    offence_prefix: String,
    offence_quota: Option<Quota>,
    clients_max: u32,
    remembered: Duration,
    /// What was heard last.
    heard: (Vec<u8>, i64),
}

impl Guard {
    /// What the keeper of Redis is to do; `None`: bans are this host's own.
    pub(crate) fn ban_duty(self: &Arc<Self>, config: &Config) -> Option<BanDuty> {
        let news = Arc::clone(self.news.as_ref()?);
        let prefix = &config.redis.prefix;
        let key = |name: &str| format!("{{{prefix}}}:bans:{name}");
        Some(BanDuty {
            guard: Arc::clone(self),
            news,
            sync: Script::new(shared::BANS),
            take: Script::new(shared::TAKE),
            give_back: Script::new(shared::GIVE_BACK),
            keys: ["records", "changes", "ends", "state"].map(key).to_vec(),
            offence_prefix: format!("{{{prefix}}}:offence:"),
            offence_quota: self.offences.as_ref().map(http_limits::Table::quota),
            clients_max: config.bans.clients_max,
            remembered: config.bans.time_max,
            heard: (Vec::new(), 0),
        })
    }

    /// A change on another host.
    fn hear(&self, heard: &Heard) {
        let now = self.clock.now();
        let Heard { ban, pardon } = heard;
        if *pardon {
            if self.bans.remove(ban.client, now) {
                self.ban_changes.fetch_add(1, Relaxed);
            }
            return;
        }
        // Who is trusted or never banned here is so, whatever others think of him.
        if !self.may_be_banned(ban.client) {
            return;
        }
        let told = match ban.reason {
            Reason::Operator => self.bans.replace(ban, now),
            Reason::Offences => self.bans.restore(ban, Duration::ZERO, now),
        };
        match told {
            Ok(()) => {
                self.ban_changes.fetch_add(1, Relaxed);
            }
            Err(_) => ctl_telemetry::events::BANS_FULL.happened(format_args!("{}", ban.client)),
        }
    }
}

impl Duty for BanDuty {
    async fn perform(&mut self, redis: &Keeper<'_>) -> Result<(), Trouble> {
        self.count_offences(redis).await?;
        for _ in 0..PAGES_MAX {
            let page = self.news.take();
            match self.exchange(redis, &page).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(trouble) => {
                    self.news.put_back(&page);
                    return Err(trouble);
                }
            }
        }
        Ok(())
    }

    async fn called(&self) {
        self.news.called.notified().await;
    }
}

impl BanDuty {
    /// Tells these changes and hears a page of others'. Is there more of either?
    async fn exchange(&mut self, redis: &Keeper<'_>, page: &[(IpAddr, Change)]) -> Result<bool, Trouble> {
        let mut args = vec![
            self.heard.0.clone(),
            self.heard.1.to_string().into_bytes(),
            PAGE.to_string().into_bytes(),
            self.clients_max.to_string().into_bytes(),
            // Nobody else writes the same number.
            self.guard.keeper.writer().to_string().into_bytes(),
        ];
        for (client, change) in page {
            self.tell(*client, *change, &mut args);
        }
        let answer = redis.run(&self.sync, &self.keys, &args).await?;
        let Answer { epoch, number, more, heard } = Answer::read(&answer).ok_or(Trouble::Odd)?;
        for change in &heard {
            // What happened here since then is newer, and is told next.
            if !lock(&self.news.changes).contains_key(&change.ban.client) {
                self.guard.hear(change);
            }
        }
        // Its own number may be an older one: an epoch that begins anew, or a Redis that remembers less than it did.
        let is_new = epoch != self.heard.0 || number < self.heard.1;
        self.heard = (epoch, number);
        if is_new {
            self.news.many();
        }
        if !more && self.news.all.swap(false, Relaxed) {
            // After the pardons of others were heard.
            for kept in self.guard.bans.keep(self.guard.clock.now()) {
                lock(&self.news.changes).entry(kept.client).or_insert(Change::Known);
            }
        }
        Ok(more || !lock(&self.news.changes).is_empty())
    }

    /// The five words of a change.
    fn tell(&self, client: IpAddr, change: Change, args: &mut Vec<Vec<u8>>) {
        let ms = |time: Duration| time.as_millis().to_string().into_bytes();
        let kept = self.guard.bans.kept(client, self.guard.clock.now());
        let (left, after, times, why) = match kept {
            // Whoever has the ban still has it for no longer than this.
            _ if change == Change::Pardoned => (self.remembered, Duration::ZERO, 0, "x"),
            Some(KeptBan { ends_in, over_for, times, reason: Reason::Offences, .. }) => {
                (ends_in, self.remembered.saturating_sub(over_for), times, "o")
            }
            Some(KeptBan { ends_in, times, reason: Reason::Operator, .. }) => {
                (ends_in, Duration::ZERO, times, "p")
            }
            // It has ended meanwhile.
            None => return,
        };
        args.extend([client.to_string().into_bytes(), ms(left), ms(after)]);
        let why = if change == Change::Known { why.to_ascii_uppercase() } else { why.to_owned() };
        args.extend([times.to_string().into_bytes(), why.into_bytes()]);
    }

    /// Counts what clients did here for all hosts: whoever has earned a ban by that is banned.
    async fn count_offences(&self, redis: &Keeper<'_>) -> Result<(), Trouble> {
        let Some(quota) = &self.offence_quota else { return Ok(()) };
        let (interval, window) = quota.ticks();
        let word = |number: u64| number.to_string().into_bytes();
        loop {
            let clients: Vec<IpAddr> = {
                let mut offences = lock(&self.news.offences);
                let count = offences.len().min(OFFENCES_AT_ONCE);
                offences.drain(..count).collect()
            };
            if clients.is_empty() {
                return Ok(());
            }
            let args = [word(interval), word(window)];
            let asked = clients.iter().map(|client| async {
                let keys = [self.offence_key(*client)];
                let answer = redis.run(&self.take, &keys, &args).await?;
                let numbers: Option<Vec<i64>> =
                    answer.list().and_then(|list| list.iter().map(Value::integer).collect());
                match numbers.and_then(|numbers| Together::read(&numbers, 1)).ok_or(Trouble::Odd)? {
                    Together::Passes(_) => Ok(()),
                    Together::Refused { .. } => {
                        let now = self.guard.clock.now();
                        // What was on its way when he was banned is not held against him again.
                        if self.guard.bans.ends_in(*client, now).is_none() {
                            self.guard.strike(*client, now);
                        }
                        // When the ban is over, what led to it has been paid for.
                        redis.run(&self.give_back, &keys, &args[1..]).await.map(drop)
                    }
                }
            });
            join_all(asked).await.into_iter().collect::<Result<(), Trouble>>()?;
        }
    }

    fn offence_key(&self, client: IpAddr) -> String {
        let mut digest = Digest::of("offences");
        digest.part(1, client.to_string().as_bytes());
        format!("{}{}", self.offence_prefix, digest.key())
    }
}

/// A change that was heard.
struct Heard {
    ban: KeptBan,
    pardon: bool,
}

/// What the script answers.
struct Answer {
    epoch: Vec<u8>,
    number: i64,
    more: bool,
    heard: Vec<Heard>,
}

impl Answer {
    fn read(answer: &Value) -> Option<Self> {
        let [epoch, number, more, rest @ ..] = answer.list()? else { return None };
        let heard = rest.chunks_exact(FIELDS).filter_map(heard).collect();
        Some(Self {
            epoch: epoch.text()?.to_vec(),
            number: number.integer()?,
            more: more.integer()? == 1,
            heard,
        })
    }
}

/// What cannot be read is another version's, and nobody's ban.
fn heard(fields: &[Value]) -> Option<Heard> {
    let [client, left, over, times, why] = fields else { return None };
    let ms = |value: &Value| Some(Duration::from_millis(u64::try_from(value.integer()?).ok()?));
    let reason = match why.text()? {
        b"p" => Reason::Operator,
        b"o" | b"x" => Reason::Offences,
        _ => return None,
    };
    let client = std::str::from_utf8(client.text()?).ok()?.parse().ok()?;
    let ban = KeptBan {
        client: http_limits::client(client),
        ends_in: ms(left)?,
        over_for: ms(over)?,
        times: u32::try_from(times.integer()?).ok()?,
        reason,
    };
    Some(Heard { ban, pardon: why.text()? == b"x" })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after each call: at worst a change is told twice.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
