//! How many connections are open from one client: an IPv4 address, or a /64 of IPv6.
//!
//! Asked for each connection, not for each request; sharded all the same, since an attack is made of connections. Holds an
//! entry for each client that has a connection, so it is bounded by their number.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Reactors seldom meet in one.
const SHARDS: usize = 16;

/// The counts.
#[derive(Debug)]
pub(super) struct Neighbours {
    max: u32,
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

impl Neighbours {
    pub(super) fn new(max: u32) -> Self {
        Self { max, hasher: RandomState::new(), shards: Default::default() }
    }

    /// Counts a connection of this client in, unless it has as many as it may.
    pub(super) fn enter(&self, client: IpAddr) -> bool {
        let mut shard = self.shard(client);
        let count = shard.entry(client).or_default();
        let admitted = *count < self.max;
        *count += u32::from(admitted);
        admitted
    }

    pub(super) fn leave(&self, client: IpAddr) {
        if let Entry::Occupied(mut entry) = self.shard(client).entry(client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let place = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_bound_and_none_is_remembered() {
        let neighbours = Neighbours::new(2);
        let (ann, bob) = ("192.0.2.1".parse().unwrap(), "2001:db8::".parse().unwrap());
        assert!(neighbours.enter(ann) && neighbours.enter(ann) && !neighbours.enter(ann));
        assert!(neighbours.enter(bob));
        neighbours.leave(ann);
        assert!(neighbours.enter(ann) && !neighbours.enter(ann));
        for _ in 0..3 {
            neighbours.leave(ann);
            neighbours.leave(bob);
        }
        assert!(neighbours.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
