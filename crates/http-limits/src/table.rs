//! The numbers of many keys in little memory: sixteen bytes each, and never more than there is room for.
//!
//! The table is cut into shards, each with a lock of its own, and a shard into sets of eight cells, of which a key's hash
//! chooses two. Cells whose time has come hold nothing (see `gcra.rs`) and are free. A shard grows when both sets of a key
//! are full, up to its bound, and [`Table::tidy`] lets it shrink again.
//!
//! **When it is full** a new key takes the cell of its sets that has the least debt. So addresses of a flood that ask once
//! each push each other out, and the few cells that they fight for; who has asked more often than they is not forgotten,
//! be it a visitor or an attacker. To be forgotten with a debt of `n` requests takes fifteen other keys in the same sets
//! that owe more than that, and nobody outside can tell which keys meet. What is forgotten is a debt: nobody is ever refused
//! because others flood.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::gcra::{Quota, Verdict, nanos};

/// Enough that reactors seldom meet in one: with 16 of them, one in eight finds a lock taken if all did nothing else.
const SHARDS: usize = 64;

/// The bits of a hash that choose the shard, at its upper end; those at the lower end choose the first set.
const SHARD_BITS: u32 = SHARDS.trailing_zeros();

/// The bits from here on choose the second set.
const SECOND_SET_SHIFT: u32 = 29;

/// More than the bits between the two choices could tell apart: a hundred million keys a shard.
const SETS_MAX: usize = 1 << 24;

/// Two cache lines. With two sets to choose from there is no room only when nine cells in ten are in use.
const WAYS: usize = 8;

/// A shard in use for less than one part in this many gives half of its memory back: far from where it grows again.
const SHRINK_BELOW: usize = 8;

/// A key and its number; 0 is the number of nobody.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    key: u64,
    due: u64,
}

type Set = [Cell; WAYS];

#[derive(Debug)]
struct Shard {
    /// A power of two.
    sets: Vec<Set>,
}

/// What was counted under one quota.
#[derive(Debug)]
pub struct Table {
    quota: Quota,
    shards: Box<[Mutex<Shard>]>,
    sets_max: usize,
    forgotten: AtomicU64,
}

impl Table {
    /// Room for `keys_max` keys, rounded up to a power of two, at least 512. What is not used takes no memory.
    pub fn new(quota: Quota, keys_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard { sets: vec![Set::default()] })).collect();
        let sets_max = keys_max.div_ceil(SHARDS * WAYS).clamp(1, SETS_MAX).next_power_of_two();
        Self { quota, shards, sets_max, forgotten: AtomicU64::new(0) }
    }

    /// The quota.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// One request of `key`.
    pub fn take(&self, key: u64, now: Duration) -> Verdict {
        let now = nanos(now);
        let mut shard = self.shard(key);
        let cell = self.cell(&mut shard, key, now);
        let (due, verdict) = self.quota.take(cell.due, now);
        cell.due = due;
        verdict
    }

    /// A request that was let through was not made after all.
    pub fn give_back(&self, key: u64) {
        if let Some(cell) = self.shard(key).find(key) {
            cell.due = self.quota.give_back(cell.due);
        }
    }

    /// Forgets a key: it has its whole burst again.
    pub fn forget(&self, key: u64) {
        if let Some(cell) = self.shard(key).find(key) {
            *cell = Cell::default();
        }
    }

    /// Gives back memory that is not used any more. Call it every few seconds; it holds one shard at a time.
    pub fn tidy(&self, now: Duration) {
        let now = nanos(now);
        for shard in &self.shards {
            let mut shard = lock(shard);
            while shard.sets.len() > 1 && shard.live(now) < shard.sets.len() * WAYS / SHRINK_BELOW {
                let half = shard.sets.len() / 2;
                self.forgotten.fetch_add(shard.resize(half, now), Relaxed);
            }
        }
    }

    /// Keys that are remembered.
    pub fn len(&self, now: Duration) -> usize {
        let now = nanos(now);
        self.shards.iter().map(|shard| lock(shard).live(now)).sum()
    }

    /// Memory of all cells.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).sets.capacity() * size_of::<Set>()).sum()
    }

    /// Debts that were dropped because the table was full, since the start.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    /// Keys that owe at least `floor`, with their debts: what is worth keeping over a restart.
    pub fn debts(&self, floor: Duration, now: Duration) -> Vec<(u64, Duration)> {
        let now = nanos(now);
        let floor = nanos(floor).max(1);
        let mut debts = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let cells = shard.sets.iter().flatten();
            let owing = cells.map(|cell| (cell.key, cell.due.saturating_sub(now)));
            debts.extend(
                owing.filter(|&(_, debt)| debt >= floor).map(|(key, debt)| (key, Duration::from_nanos(debt))),
            );
        }
        debts
    }

    /// A debt from before a restart. Of two debts of one key the larger one holds.
    pub fn restore(&self, key: u64, debt: Duration, now: Duration) {
        let due = self.quota.owing(debt, nanos(now));
        let now = nanos(now);
        let mut shard = self.shard(key);
        let cell = self.cell(&mut shard, key, now);
        cell.due = cell.due.max(due);
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        // The shift leaves SHARD_BITS bits.
        lock(&self.shards[(key >> (u64::BITS - SHARD_BITS)) as usize])
    }

    /// The cell of a key, or one that was made free for it.
    fn cell<'a>(&self, shard: &'a mut Shard, key: u64, now: u64) -> &'a mut Cell {
        if let Some((set, way)) = shard.place(key) {
            return &mut shard.sets[set][way];
        }
        let (set, way) = loop {
            let (least, set, way) = shard.cheapest(key, now);
            if least <= now {
                break (set, way);
            }
            if shard.sets.len() == self.sets_max {
                self.forgotten.fetch_add(1, Relaxed);
                break (set, way);
            }
            let lost = shard.resize(shard.sets.len() * 2, now);
            self.forgotten.fetch_add(lost, Relaxed);
        };
        let cell = &mut shard.sets[set][way];
        *cell = Cell { key, due: 0 };
        cell
    }
}

impl Shard {
    /// The two sets of a key; they may be the same one.
    fn choices(&self, key: u64) -> [usize; 2] {
        // A power of two less one masks a place within.
        let mask = self.sets.len() - 1;
        [key as usize & mask, (key >> SECOND_SET_SHIFT) as usize & mask]
    }

    /// Where a key is.
    fn place(&self, key: u64) -> Option<(usize, usize)> {
        self.choices(key).into_iter().find_map(|set| {
            let way = self.sets[set].iter().position(|cell| cell.key == key && cell.due != 0)?;
            Some((set, way))
        })
    }

    /// The number, set and way of the cell that a new key may have at the least loss: in the set that has more free cells, so
    /// that both fill evenly, which is what lets nine in ten be used.
    fn cheapest(&self, key: u64, now: u64) -> (u64, usize, usize) {
        let offers = self.choices(key).map(|set| {
            let cells = &self.sets[set];
            let free = cells.iter().filter(|cell| cell.due <= now).count();
            let least = cells.iter().enumerate().min_by_key(|(_, cell)| cell.due);
            let (way, due) = least.map_or((0, 0), |(way, cell)| (way, cell.due));
            (std::cmp::Reverse(free), due, set, way)
        });
        let [first, second] = offers;
        let (_, due, set, way) = if (first.0, first.1) <= (second.0, second.1) { first } else { second };
        (due, set, way)
    }

    fn find(&mut self, key: u64) -> Option<&mut Cell> {
        let (set, way) = self.place(key)?;
        Some(&mut self.sets[set][way])
    }

    fn live(&self, now: u64) -> usize {
        self.sets.iter().flatten().filter(|cell| cell.due > now).count()
    }

    /// Moves all that is worth something into `sets` sets. Says how many debts found no room.
    fn resize(&mut self, sets: usize, now: u64) -> u64 {
        let cells = std::mem::replace(&mut self.sets, vec![Set::default(); sets]);
        let mut lost = 0;
        for cell in cells.into_iter().flatten().filter(|cell| cell.due > now) {
            let (least, set, way) = self.cheapest(cell.key, now);
            lost += u64::from(least != 0);
            if least < cell.due {
                self.sets[set][way] = cell;
            }
        }
        lost
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Every number is a valid one, so a shard is sound wherever its last holder stopped.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
