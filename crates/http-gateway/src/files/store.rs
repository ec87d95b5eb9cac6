//! What is kept: small files, compressed variants and misses by weight; open files by count.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ctl_telemetry::metrics;
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, OptionsBuilder, Weighter};

use super::entry::Entry;
use super::representation::{Content, Representation};
use crate::encoding::Coding;

/// Files kept open at most: far below any limit on descriptors, and enough for the large files of a site that are asked for
/// over and over. The others are opened each time, which costs a few microseconds.
const OPEN_MAX: usize = 256;

/// What is expected of a file on average when the tables are sized; only a guess to start from.
const TYPICAL_BYTES: u64 = 16 << 10;

/// Locks that reactors may meet at; they are taken for reading. What does not fit into a shard would never be kept, so more
/// of them would leave less room for the heaviest entry.
const SHARDS: usize = 8;

/// The heaviest entry fills half of a shard at most, so that it does not push out all the others.
const ENTRY_PART: u64 = 2 * SHARDS as u64;

/// Which file of which mount, in which coding.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    mount: usize,
    coding: Coding,
    path: Box<[u8]>,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        KeyRef { mount: self.mount, coding: self.coding, path: &self.path }.hash(state);
    }
}

/// A [`Key`] that borrows its path.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct KeyRef<'a> {
    pub(super) mount: usize,
    pub(super) coding: Coding,
    pub(super) path: &'a [u8],
}

impl KeyRef<'_> {
    fn to_key(self) -> Key {
        Key { mount: self.mount, coding: self.coding, path: self.path.into() }
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.mount == key.mount && self.coding == key.coding && *self.path == *key.path
    }
}

/// What is known of a path.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// The file.
    Here(Arc<Entry>),
    /// A coded variant, made of or found beside the entry with this id.
    Coded(u64, Arc<Representation>),
    /// There was no file, and it is not looked for again before this time.
    Missing { until_ms: u64 },
}

impl Known {
    fn is_open(&self) -> bool {
        let representation = match self {
            Self::Here(entry) => &entry.identity,
            Self::Coded(_, representation) => representation,
            Self::Missing { .. } => return false,
        };
        matches!(representation.content, Content::Open(_))
    }
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<Key, Known> for Weigh {
    fn weight(&self, key: &Key, known: &Known) -> u64 {
        /// The key, the tables' own share, an allocation.
        const OVERHEAD: u64 = 128;
        let value = match known {
            Known::Here(entry) => entry.identity.weight() + size_of::<Entry>() as u64,
            Known::Coded(_, representation) => representation.weight(),
            Known::Missing { .. } => 0,
        };
        OVERHEAD + key.path.len() as u64 + value
    }
}

/// See above. Every operation takes some tens of nanoseconds and may be called on a reactor.
#[derive(Debug)]
pub(super) struct Store {
    small: Cache<Key, Known, Weigh>,
    open: Cache<Key, Known>,
    memory: u64,
}

impl Store {
    /// With this many bytes for small files.
    pub(super) fn new(memory: u64) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity((memory / TYPICAL_BYTES).clamp(64, 65_536) as usize)
            .weight_capacity(memory)
            .shards(SHARDS)
            .build();
        let small = match options {
            Ok(options) => Cache::with_options(
                options,
                Weigh,
                quick_cache::DefaultHashBuilder::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            Err(_) => Cache::with_weighter(64, memory, Weigh),
        };
        Self { small, open: Cache::new(OPEN_MAX), memory }
    }

    /// Nothing heavier is kept.
    pub(super) fn entry_max(&self) -> u64 {
        self.memory / ENTRY_PART
    }

    pub(super) fn get(&self, key: KeyRef<'_>) -> Option<Known> {
        self.small.get(&key).or_else(|| self.open.get(&key))
    }

    pub(super) fn put(&self, key: KeyRef<'_>, known: Known) {
        // A file that has grown or shrunk over the bound must not stay in the other table.
        if known.is_open() {
            self.small.remove(&key);
            self.open.insert(key.to_key(), known);
        } else {
            self.open.remove(&key);
            self.small.insert(key.to_key(), known);
        }
        metrics::FILES_MEMORY_BYTES.set(self.small.weight() as i64);
        metrics::FILES_OPEN.set(self.open.len() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Headers;

    #[test]
    fn bounded_whatever_is_asked_for() {
        let store = Store::new(1 << 20);
        for i in 0..100_000 {
            let path = format!("missing/{i}");
            store.put(
                KeyRef { mount: 0, coding: Coding::Identity, path: path.as_bytes() },
                Known::Missing { until_ms: 0 },
            );
        }
        assert!(store.small.weight() <= 1 << 20);
        assert!(store.small.len() > 1000);
    }

    #[test]
    fn the_heaviest_is_kept_wherever_it_lands() {
        let store = Store::new(16 << 20);
        for i in 0..50 {
            let bytes = vec![0; store.entry_max() as usize - 1];
            let heavy = Representation {
                headers: Headers::default(),
                not_modified: Headers::default(),
                etag: Box::default(),
                modified: None,
                media_type: "",
                size: bytes.len() as u64,
                content: Content::Memory(bytes.into()),
            };
            let path = format!("{i}.css");
            let key = KeyRef { mount: 0, coding: Coding::Gzip, path: path.as_bytes() };
            store.put(key, Known::Coded(1, Arc::new(heavy)));
            assert!(matches!(store.get(key), Some(Known::Coded(1, _))), "{path}");
        }
        assert!(store.small.weight() <= 16 << 20);
    }

    #[test]
    fn keys_differ_in_each_part() {
        let store = Store::new(1 << 20);
        let key = KeyRef { mount: 0, coding: Coding::Gzip, path: b"a" };
        store.put(key, Known::Missing { until_ms: 7 });
        assert!(matches!(store.get(key), Some(Known::Missing { until_ms: 7 })));
        assert!(store.get(KeyRef { mount: 1, ..key }).is_none());
        assert!(store.get(KeyRef { coding: Coding::Brotli, ..key }).is_none());
        assert!(store.get(KeyRef { path: b"b", ..key }).is_none());
    }
}
