//! Who may ask at all, and how often: before a request has cost anything.
//!
//! | file | what happens there |
//! |---|---|
//! | `limits.rs` | `[[limit]]`: which limits hold for a request |
//! | `whose.rs` | for whom it is counted |
//! | `lists.rs` | the files of addresses that are always or never let in, read again when they change |
//! | `shared.rs`, `together.rs` | limits that several hosts count together, bans that hold on all |
//! | `operator.rs` | `quintet bans` |
//! | `keep.rs` | the file in which bans and counts outlive the process |
//! | `chores.rs` | what is done now and then: the files, memory given back |
//! | `answer.rs` | what is said to those who are refused |
//!
//! All decisions are `http-limits`'s; here are the clock, the files and the words. Nothing on the way of a request is locked
//! as a whole: reactors meet only where they count the same client.
//!
//! Behind trusted proxies the true client is counted and banned (`client.rs`). A trusted proxy itself is never banned: a
//! request that names no client would shut everybody out.

mod answer;
mod chores;
mod keep;
mod limits;
mod lists;
mod operator;
mod shared;
#[cfg(test)]
mod tests;
mod together;
mod whose;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use ctl_config::{BanAnswer, Config};
use ctl_telemetry::events::{BANS_FULL, CLIENT_BANNED};
use ctl_telemetry::metrics as m;
use http_limits::{Bans, BansFull, KeyHasher, Moment, Quota, Seed, Snapshot, Table, Terms, Verdict};

use crate::client::TrustedProxies;
use crate::cookie::{SessionCookies, first_cookie};
use crate::message::{AnsweredBy, Exchange, NO_ANSWER, RequestHead, Response, Trail};
use crate::pools::pattern::decode;
use crate::redis::Redis;
use answer::Refused;
pub use chores::chores;
use keep::Keeper;
pub use limits::Pass;
use limits::{Checked, Limits};
use lists::Lists;
pub(crate) use lists::Stamp;
pub use shared::Question;
use shared::Shared;
use together::News;
use whose::Asks;
pub(crate) use whose::Whose;

/// Requests that wait for their turn under `action = "delay"`, all together: each holds a connection or a stream.
const WAITING_MAX: usize = 10_000;

/// See the module's own words.
pub struct Guard {
    clock: Clock,
    seed: Seed,
    limits: Limits,
    /// With other hosts, when Redis is named.
    shared: Option<Shared>,
    /// What other hosts are to hear of bans.
    news: Option<Arc<News>>,
    bans: Bans,
    /// How far each client is from a ban; `None`: nobody is banned by himself.
    offences: Option<Table>,
    count_4xx: bool,
    answer: BanAnswer,
    ban_time: Duration,
    lists: ArcSwap<Lists>,
    /// There is a file of addresses.
    listed: bool,
    trusted: Arc<TrustedProxies>,
    session_cookies: SessionCookies,
    waiting: AtomicUsize,
    keeper: Keeper,
    /// Bans that came or went, so that they are written down soon.
    ban_changes: AtomicU64,
    /// Another instance keeps the file from now on.
    handed_over: AtomicBool,
}

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// Tell it.
    Away,
    /// Close without a word.
    Silently,
}

/// What the guard says to a request.
pub enum Entry {
    /// Go on; the pass says what the answer is to tell.
    Passes(Pass),
    /// Go on after this time.
    Waits(Duration, Pass),
    /// Ask for all hosts ([`Guard::settle`]).
    Asks(Box<Question>),
    /// This is the answer.
    Refused(Box<Response>),
}

impl Guard {
    /// Reads the lists and what is kept. The error is for the operator.
    pub fn new(
        config: &Config,
        trusted: Arc<TrustedProxies>,
        state_dir: Option<PathBuf>,
        redis: Option<&Arc<Redis>>,
    ) -> Result<Self, String> {
        let bans = &config.bans;
        let lists = Lists::read(bans.deny_file.as_deref(), bans.allow_file.as_deref())?;
        let (keeper, kept) = Keeper::open(state_dir);
        let seed = kept.as_ref().map_or_else(keep::random_seed, |kept| kept.seed);
        let terms = Terms { time: bans.time, time_max: bans.time_max, bans_max: bans.clients_max as usize };
        let offences = bans.after.map(|after| {
            let quota = Quota::new(after.into(), bans.window, after.into());
            Table::new(quota, bans.clients_max as usize)
        });
        let guard = Self {
            clock: Clock::new(),
            seed,
            limits: Limits::new(config, seed),
            shared: redis.filter(|_| config.redis.limits).map(|redis| Shared::new(config, Arc::clone(redis))),
            news: redis
                .filter(|_| config.redis.bans)
                .map(|redis| Arc::new(News::new(config, Arc::clone(redis)))),
            bans: Bans::new(terms, seed),
            offences,
            count_4xx: bans.count_4xx,
            answer: bans.answer,
            ban_time: bans.time,
            lists: ArcSwap::from_pointee(lists),
            listed: bans.deny_file.is_some() || bans.allow_file.is_some(),
            trusted,
            session_cookies: SessionCookies::default(),
            waiting: AtomicUsize::new(0),
            keeper,
            ban_changes: AtomicU64::new(0),
            handed_over: AtomicBool::new(false),
        };
        if let Some(kept) = kept {
            guard.learn(&kept);
        }
        Ok(guard)
    }

    /// The name of a module's session cookie; an app without sessions has none.
    pub fn set_session_cookie(&self, module: u16, name: Option<&str>) {
        self.session_cookies.set(module, name);
    }

    /// Where what outlives the process is kept.
    pub(crate) fn state_dir(&self) -> Option<&Path> {
        self.keeper.dir()
    }

    /// The secret of all hashes.
    pub(crate) fn seed(&self) -> Seed {
        self.seed
    }

    /// The beginning of a key that says whose a request is. `None`: nothing tells.
    pub(crate) fn whose(
        &self,
        seed: Seed,
        whose: &Whose,
        head: &RequestHead,
        trail: &Trail,
    ) -> Option<KeyHasher> {
        let cookie = self.session_cookies.names();
        let mut key = seed.hasher();
        whose.put(&mut key, &of_route(head, trail, &cookie), &decode(head.path()))?;
        Some(key)
    }

    /// Is this connection to be turned away before it has said anything?
    pub fn turns_away(&self, peer: IpAddr) -> Option<Turned> {
        if self.trusted.contains(peer) || !self.is_shut_out(peer, || self.clock.now()) {
            return None;
        }
        m::BANNED_REFUSED_TOTAL.inc();
        Some(match self.answer {
            BanAnswer::Forbidden => Turned::Away,
            BanAnswer::Drop => Turned::Silently,
        })
    }

    /// May this request go on?
    pub fn enter(&self, client: Option<IpAddr>, head: &RequestHead, trail: &Trail) -> Entry {
        if let Some(client) = client
            && self.is_shut_out(client, || self.clock.at(trail.started))
            && !self.trusted.contains(client)
        {
            m::BANNED_REFUSED_TOTAL.inc();
            let refused = match self.answer {
                BanAnswer::Forbidden => Refused::Banned,
                BanAnswer::Drop => Refused::Dropped,
            };
            return Entry::Refused(Box::new(refused.response(head, trail)));
        }
        if self.limits.is_idle() {
            return Entry::Passes(Pass::default());
        }
        let cookie = self.limits.read_sessions().then(|| self.session_cookies.names());
        let session_cookie = cookie.as_ref().map_or(&[][..], |cookie| cookie.as_slice());
        let asks = Asks { head, client, session_cookie, route: None };
        let checked = self.limits.check(&asks, self.clock.at(trail.started));
        self.decided(checked, (&asks, self.limits.general(), false), trail)
    }

    /// The session that a request brings, whatever else says whose it is.
    pub(crate) fn session<T>(&self, head: &RequestHead, with: impl FnOnce(&[u8]) -> T) -> T {
        let names = self.session_cookies.names();
        let cookies = head.headers.get("cookie");
        with(cookies.and_then(|cookies| first_cookie(cookies, &names)).unwrap_or_default())
    }

    /// The limits that its route names, by their numbers.
    pub fn enter_route(&self, limits: &[usize], head: &RequestHead, trail: &Trail) -> Entry {
        let cookie = self.session_cookies.names();
        let asks = of_route(head, trail, &cookie);
        let checked = self.limits.check_route(&asks, limits, self.clock.at(trail.started));
        self.decided(checked, (&asks, limits, true), trail)
    }

    /// A request that was let in comes again in another way, and is counted then.
    pub fn leave_route(&self, limits: &[usize], head: &RequestHead, trail: &Trail) {
        let cookie = self.session_cookies.names();
        self.give_back(&of_route(head, trail, &cookie), limits);
    }

    /// Waits for a request's turn; `false`: too many wait already. Dropping it gives the place back.
    pub async fn wait(&self, turn_in: Duration) -> bool {
        let place = Waiting::new(&self.waiting);
        if place.before >= WAITING_MAX {
            return false;
        }
        tokio::time::sleep(turn_in).await;
        true
    }

    /// The answer to a request for which there is no place to wait.
    pub fn too_many_wait(&self, head: &RequestHead, trail: &Trail, turn_in: Duration) -> Response {
        m::LIMIT_REFUSED_TOTAL.inc();
        Refused::Crowded(turn_in).response(head, trail)
    }

    /// An answer was sent: is it an offence?
    pub fn seen(&self, exchange: &Exchange<'_>) {
        let Some(offences) = &self.offences else { return };
        if !self.is_offence(exchange.status, exchange.trail.by) {
            return;
        }
        let Some(addr) = exchange.trail.client.filter(|addr| self.may_be_banned(*addr)) else { return };
        let (client, now) = (http_limits::client(addr), self.clock.now());
        if self.bans.ends_in(client, now).is_some() {
            return;
        }
        let key = whose::address_key(self.seed, client);
        if let Verdict::Passes { .. } = offences.take(key, now) {
            if let Some(news) = &self.news {
                news.offended(client);
            }
            return;
        }
        self.strike(client, now);
    }

    /// A client has earned a ban.
    fn strike(&self, client: IpAddr, now: Duration) {
        if let Some(offences) = &self.offences {
            // When the ban is over, what led to it has been paid for.
            offences.forget(whose::address_key(self.seed, client));
        }
        match self.bans.strike(client, now) {
            Ok(time) => {
                self.ban_changes.fetch_add(1, Relaxed);
                if let Some(news) = &self.news {
                    news.banned(client);
                }
                CLIENT_BANNED.happened(format_args!("{client} for {} s", time.as_secs()));
            }
            Err(BansFull) => BANS_FULL.happened(format_args!("{client}")),
        }
    }

    /// The statuses that tell of a client who does what he should not. Not those that are a part of honest conversations: a
    /// slow line (408), conditions and ranges (412, 416), one who went away (499).
    fn is_offence(&self, status: u16, by: AnsweredBy) -> bool {
        match status {
            429 => true,
            408 | 412 | 416 | 499 => false,
            // One request too many at a time is a double click.
            NO_ANSWER | 409 => by != AnsweredBy::Gateway && self.count_4xx,
            400..=498 => self.count_4xx,
            _ => false,
        }
    }

    fn may_be_banned(&self, addr: IpAddr) -> bool {
        !self.trusted.contains(addr) && !self.lists.load().allow.contains(addr)
    }

    fn is_shut_out(&self, addr: IpAddr, now: impl Fn() -> Duration) -> bool {
        let banned =
            || !self.bans.is_empty() && self.bans.ends_in(http_limits::client(addr), now()).is_some();
        if !self.listed {
            return banned();
        }
        let lists = self.lists.load();
        (lists.deny.contains(addr) || banned()) && !lists.allow.contains(addr)
    }

    /// All that outlives the process.
    fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        Snapshot {
            writer: self.keeper.writer(),
            written: moment(),
            seed: self.seed,
            bans: self.bans.keep(now),
            limits: self.limits.keep(now),
        }
    }

    /// Takes over what another process knew.
    fn learn(&self, kept: &Snapshot) {
        self.learn_at(kept, moment());
    }

    fn learn_at(&self, kept: &Snapshot, moment: Moment) {
        let now = self.clock.now();
        let elapsed = moment.since(kept.written);
        for ban in &kept.bans {
            if self.bans.restore(ban, elapsed, now).is_err() {
                BANS_FULL.happened(format_args!("{}", ban.client));
            }
        }
        if let Some(news) = &self.news {
            news.many();
        }
        // Keys are hashes: under another seed they are noise.
        if kept.seed == self.seed {
            self.limits.restore(&kept.limits, elapsed, now);
        }
    }
}

/// A request whose route is known.
fn of_route<'a>(head: &'a RequestHead, trail: &'a Trail, session_cookie: &'a [u8]) -> Asks<'a> {
    Asks { head, client: trail.client, session_cookie, route: trail.route.as_ref().map(|route| &*route.name) }
}

/// What limits say, in words of the guard.
fn entry(checked: Checked, head: &RequestHead, trail: &Trail) -> Entry {
    match checked {
        Checked::Passes { turn_in, pass, .. } if turn_in.is_zero() => Entry::Passes(pass),
        Checked::Passes { turn_in, pass, .. } => {
            m::LIMIT_DELAYED_TOTAL.inc();
            Entry::Waits(turn_in, pass)
        }
        Checked::Refused(refused) => {
            m::LIMIT_REFUSED_TOTAL.inc();
            Entry::Refused(Box::new(refused.response(head, trail)))
        }
    }
}

/// A request that waits for its turn.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    /// How many waited when it came.
    before: usize,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        m::LIMIT_WAITING.add(1);
        Self { count, before: count.fetch_add(1, Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        m::LIMIT_WAITING.add(-1);
        self.count.fetch_sub(1, Relaxed);
    }
}

/// A clock that never jumps.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    /// Two years after its beginning: there is room for what was before it.
    fn now(&self) -> Duration {
        self.at(Instant::now())
    }

    fn at(&self, moment: Instant) -> Duration {
        const PAST: Duration = Duration::from_secs(2 * 366 * 24 * 3600);
        moment.saturating_duration_since(self.0) + PAST
    }
}

/// Now, as the boot's clock and the wall's tell it.
fn moment() -> Moment {
    // As it is written there: 8cb9b3f6-….
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Moment {
        boot: u128::from_str_radix(&boot.trim().replace('-', ""), 16).unwrap_or(0),
        since_boot_ms: since_boot.tv_sec as u64 * 1000 + since_boot.tv_nsec as u64 / 1_000_000,
        wall_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
    }
}
