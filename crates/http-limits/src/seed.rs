//! Hashes that nobody outside can foresee: who knew them could choose keys that meet in one place of a table.

use std::hash::{BuildHasher, Hasher as _};

use siphasher::sip::SipHasher13;

/// The secret of all hashes of an instance, 128 random bits. Kept over restarts together with what was counted under it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64, u64);

impl Seed {
    /// From random bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = u128::from_le_bytes(bytes);
        Self(number as u64, (number >> 64) as u64)
    }

    /// For the snapshot.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.0) | u128::from(self.1) << 64).to_le_bytes()
    }

    /// For the key of a request, part by part.
    pub fn hasher(self) -> KeyHasher {
        KeyHasher(SipHasher13::new_with_keys(self.0, self.1))
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(secret)")
    }
}

impl BuildHasher for Seed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// Makes one number of the parts of a key.
#[derive(Debug)]
pub struct KeyHasher(SipHasher13);

impl KeyHasher {
    /// One more part. Its length is hashed too, so that `ab`, `c` is another key than `a`, `bc`.
    pub fn part(&mut self, kind: u8, bytes: &[u8]) {
        self.0.write_u64((bytes.len() as u64) << 8 | u64::from(kind));
        self.0.write(bytes);
    }

    /// A part that comes in pieces, and is the last: where it is cut makes no difference.
    pub fn stream(&mut self, piece: &[u8]) {
        self.0.write(piece);
    }

    /// The key.
    pub fn key(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_stream_is_cut_makes_no_difference() {
        let whole: Vec<u8> = (0..=255).collect();
        let mut at_once = Seed::from_bytes([1; 16]).hasher();
        at_once.stream(&whole);
        for size in [1, 3, 8, 100] {
            let mut hasher = Seed::from_bytes([1; 16]).hasher();
            whole.chunks(size).for_each(|piece| hasher.stream(piece));
            assert_eq!(hasher.key(), at_once.key(), "{size}");
        }
    }

    #[test]
    fn parts_keep_their_places_and_seeds_differ() {
        let key = |seed: u8, parts: &[(u8, &[u8])]| {
            let mut hasher = Seed::from_bytes([seed; 16]).hasher();
            for (kind, bytes) in parts {
                hasher.part(*kind, bytes);
            }
            hasher.key()
        };
        assert_eq!(key(1, &[(1, b"ab"), (2, b"c")]), key(1, &[(1, b"ab"), (2, b"c")]));
        assert_ne!(key(1, &[(1, b"ab"), (2, b"c")]), key(1, &[(1, b"a"), (2, b"bc")]));
        assert_ne!(key(1, &[(1, b"ab")]), key(1, &[(2, b"ab")]));
        assert_ne!(key(1, &[(1, b"ab")]), key(2, &[(1, b"ab")]));
        let seed = Seed::from_bytes(*b"0123456789abcdef");
        assert_eq!(Seed::from_bytes(seed.to_bytes()), seed);
        assert_eq!(format!("{seed:?}"), "Seed(secret)");
    }
}
