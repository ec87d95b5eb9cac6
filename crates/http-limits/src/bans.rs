//! Who is shut out, for how long, and what is remembered of it afterwards.
//!
//! The first ban of a client lasts `time`, each further one twice as long as the one before, up to `time_max`. Who is not
//! banned again within `time_max` after the end of a ban begins anew. So nobody is shut out for ever, and who comes back
//! with the same behaviour stays away longer and longer.
//!
//! **When there is no room** the ban that would end first gives way to one that ends later, in the same shard. What the
//! operator has said is never given up; when nothing else is left a new ban is refused, and that is told.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::gcra::nanos;
use crate::seed::Seed;

/// Bans are looked up with each request, and each lookup is short: this many seldom meet.
const SHARDS: usize = 16;

/// Twice as long each time: 2^31 times is beyond any cap.
const DOUBLINGS_MAX: u32 = 31;

/// How long bans last and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The first ban of a client.
    pub time: Duration,
    /// The longest; also how long a ban is remembered after its end.
    pub time_max: Duration,
    /// Clients that are banned or remembered, about: they are spread over shards.
    pub bans_max: usize,
}

/// Why somebody is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Too many requests beyond a limit, or too many errors of his own.
    Offences,
    /// Somebody said so.
    Operator,
}

/// One who is shut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// As [`crate::client`] makes it.
    pub client: IpAddr,
    /// Until its end.
    pub ends_in: Duration,
    /// How often in a row.
    pub times: u32,
    /// Why.
    pub reason: Reason,
}

/// There is no room for another ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are as many bans as there may be")]
pub struct BansFull;

#[derive(Debug, Clone, Copy)]
struct Record {
    until: u64,
    times: u32,
    reason: Reason,
}

#[derive(Debug)]
struct Shard {
    records: HashMap<IpAddr, Record, Seed>,
    /// No record ends before it, so that a flood of clients that find no room need not be compared with all of them.
    first_end: u64,
}

/// All bans.
#[derive(Debug)]
pub struct Bans {
    terms: Terms,
    seed: Seed,
    shards: Box<[Mutex<Shard>]>,
    /// Records in all shards, so that a site without bans asks no shard.
    count: AtomicUsize,
}

impl Bans {
    /// Nobody is banned.
    pub fn new(terms: Terms, seed: Seed) -> Self {
        let shard = || Shard { records: HashMap::with_hasher(seed), first_end: 0 };
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        Self { terms, seed, shards, count: AtomicUsize::new(0) }
    }

    /// Until the end of this client's ban; `None`: he is not banned.
    pub fn ends_in(&self, client: IpAddr, now: Duration) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let until = self.shard(client).records.get(&client)?.until;
        until.checked_sub(nanos(now)).filter(|left| *left > 0).map(Duration::from_nanos)
    }

    /// Bans a client for his offences; the time it lasts. Who is banned already stays so: what was on its way when he was
    /// banned is not held against him again.
    pub fn strike(&self, client: IpAddr, now: Duration) -> Result<Duration, BansFull> {
        let now_ns = nanos(now);
        let mut shard = self.shard(client);
        let before = shard.records.get(&client).copied();
        if let Some(record) = before
            && record.until > now_ns
        {
            return Ok(Duration::from_nanos(record.until - now_ns));
        }
        let times = before.filter(|record| self.remembers(record, now_ns)).map_or(0, |record| record.times);
        let time = self.terms.time.saturating_mul(1 << times.min(DOUBLINGS_MAX)).min(self.terms.time_max);
        let record = Record { until: now_ns + nanos(time), times: times + 1, reason: Reason::Offences };
        self.put(&mut shard, client, record)?;
        Ok(time)
    }

    /// The operator bans a client, or changes how long he is banned.
    pub fn add(&self, client: IpAddr, time: Duration, now: Duration) -> Result<(), BansFull> {
        let mut shard = self.shard(client);
        let times = shard.records.get(&client).map_or(0, |record| record.times);
        let until = nanos(now) + nanos(time);
        self.put(&mut shard, client, Record { until, times: times + 1, reason: Reason::Operator })
    }

    /// Ends a ban and forgets it. Was he banned?
    pub fn remove(&self, client: IpAddr, now: Duration) -> bool {
        let Some(record) = self.shard(client).records.remove(&client) else { return false };
        self.count.fetch_sub(1, Relaxed);
        record.until > nanos(now)
    }

    /// Who is banned now, the one who will be free last first.
    pub fn list(&self, now: Duration) -> Vec<Ban> {
        let kept = self.keep(now).into_iter().filter(|kept| !kept.ends_in.is_zero());
        let mut list: Vec<Ban> = kept
            .map(|KeptBan { client, ends_in, times, reason, .. }| Ban { client, ends_in, times, reason })
            .collect();
        list.sort_unstable_by_key(|ban| (std::cmp::Reverse(ban.ends_in), ban.client));
        list
    }

    /// Nobody is banned or remembered: asks no shard.
    pub fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Memory of all records, about.
    pub fn bytes(&self) -> usize {
        // The map keeps a byte beside each of its places.
        let each = size_of::<(IpAddr, Record)>() + 1;
        self.shards.iter().map(|shard| lock(shard).records.capacity() * each).sum()
    }

    /// How many are banned now.
    pub fn len(&self, now: Duration) -> usize {
        let now = nanos(now);
        self.shards
            .iter()
            .map(|shard| lock(shard).records.values().filter(|record| record.until > now).count())
            .sum()
    }

    /// All that is to be kept over a restart: also those whose ban is over and not forgotten, with the time since then in
    /// [`KeptBan::over_for`].
    pub fn keep(&self, now: Duration) -> Vec<KeptBan> {
        let now = nanos(now);
        let mut kept = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let remembered = shard.records.iter().filter(|(_, record)| self.remembers(record, now));
            kept.extend(remembered.map(|(client, record)| record.kept(*client, now)));
        }
        kept
    }

    /// What another process knew, `elapsed` ago. Of two bans of one client the one that ends later holds.
    pub fn restore(&self, kept: &KeptBan, elapsed: Duration, now: Duration) -> Result<(), BansFull> {
        let ends_in = kept.ends_in.saturating_sub(elapsed);
        let over_for = kept.over_for.saturating_add(elapsed.saturating_sub(kept.ends_in));
        let until = (nanos(now) + nanos(ends_in)).saturating_sub(nanos(over_for)).max(1);
        let record = Record { until, times: kept.times, reason: kept.reason };
        if !self.remembers(&record, nanos(now)) {
            return Ok(());
        }
        let mut shard = self.shard(kept.client);
        match shard.records.get_mut(&kept.client) {
            Some(known) => {
                if known.until < record.until {
                    *known = record;
                }
                Ok(())
            }
            None => self.put(&mut shard, kept.client, record),
        }
    }

    /// The same from the operator of another host, whose word holds, also when it makes a ban shorter.
    pub fn replace(&self, kept: &KeptBan, now: Duration) -> Result<(), BansFull> {
        let until = nanos(now) + nanos(kept.ends_in);
        let record = Record { until, times: kept.times, reason: kept.reason };
        self.put(&mut self.shard(kept.client), kept.client, record)
    }

    /// What is known of a client, as [`Bans::keep`] says it.
    pub fn kept(&self, client: IpAddr, now: Duration) -> Option<KeptBan> {
        let now = nanos(now);
        let record = *self.shard(client).records.get(&client).filter(|record| self.remembers(record, now))?;
        Some(record.kept(client, now))
    }

    /// Forgets who has behaved for long enough. Call it every few seconds.
    pub fn tidy(&self, now: Duration) {
        let now = nanos(now);
        for shard in &self.shards {
            let records = &mut lock(shard).records;
            let before = records.len();
            records.retain(|_, record| self.remembers(record, now));
            self.count.fetch_sub(before - records.len(), Relaxed);
            if records.len() * 4 < records.capacity() {
                records.shrink_to_fit();
            }
        }
    }

    /// Is it in force, or worth remembering?
    fn remembers(&self, record: &Record, now: u64) -> bool {
        let after = match record.reason {
            Reason::Offences => nanos(self.terms.time_max),
            // Nothing grows out of it.
            Reason::Operator => 0,
        };
        now < record.until.saturating_add(after)
    }

    fn put(&self, shard: &mut Shard, client: IpAddr, record: Record) -> Result<(), BansFull> {
        let room = self.terms.bans_max.div_ceil(SHARDS).max(1);
        if shard.records.len() >= room && !shard.records.contains_key(&client) {
            let victim = shard.victim(&record).ok_or(BansFull)?;
            shard.records.remove(&victim);
            self.count.fetch_sub(1, Relaxed);
        }
        shard.first_end = shard.first_end.min(record.until);
        if shard.records.insert(client, record).is_none() {
            self.count.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, Shard> {
        // The map inside uses the other bits.
        lock(&self.shards[(self.seed.hash_one(client) >> 32) as usize % SHARDS])
    }
}

impl Record {
    fn kept(self, client: IpAddr, now: u64) -> KeptBan {
        KeptBan {
            client,
            ends_in: Duration::from_nanos(self.until.saturating_sub(now)),
            over_for: Duration::from_nanos(now.saturating_sub(self.until)),
            times: self.times,
            reason: self.reason,
        }
    }
}

impl Shard {
    /// Who gives way to this record.
    fn victim(&mut self, record: &Record) -> Option<IpAddr> {
        let by_operator = record.reason == Reason::Operator;
        if record.until <= self.first_end && !by_operator {
            return None;
        }
        let others = self.records.iter().filter(|(_, other)| other.reason != Reason::Operator);
        let (client, least) = others.min_by_key(|(_, other)| other.until)?;
        self.first_end = least.until;
        // The operator's word is kept before that of counters.
        (least.until < record.until || by_operator).then_some(*client)
    }
}

/// A ban as it is kept over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBan {
    /// See [`Ban`].
    pub client: IpAddr,
    /// See [`Ban`].
    pub ends_in: Duration,
    /// Since its end, when it has ended.
    pub over_for: Duration,
    /// See [`Ban`].
    pub times: u32,
    /// See [`Ban`].
    pub reason: Reason,
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A map that was left in the middle of a call may miss an entry; it is a map all the same.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
