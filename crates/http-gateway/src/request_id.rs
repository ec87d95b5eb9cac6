//! Request ids: 32 hexadecimal digits, made here or kept from a trusted proxy.
//!
//! Half of an id is random for the life of the process, half a counter stirred so that neighbours look different:
//! unique without a random number for each request. They name, they do not authorise.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A request's id as text, without memory of its own in the common case: it is made for every request, and mostly
/// only sent along or forgotten.
#[derive(Clone)]
pub enum RequestId {
    /// Made here.
    Made([u8; 32]),
    /// Kept from a trusted proxy; empty where there is no request to name.
    Kept(Box<str>),
}

impl RequestId {
    /// As it is written. (Spares the question whether digits are text.)
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Made(digits) => digits,
            Self::Kept(id) => id.as_bytes(),
        }
    }
}

impl std::ops::Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            // Hexadecimal digits are text.
            Self::Made(digits) => std::str::from_utf8(digits).unwrap_or_default(),
            Self::Kept(id) => id,
        }
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::Kept(Box::default())
    }
}

impl From<&str> for RequestId {
    fn from(id: &str) -> Self {
        Self::Kept(id.into())
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&**self, f)
    }
}

/// The longest id kept from a proxy; longer ones are replaced.
const KEPT_BYTES_MAX: usize = 128;

/// Makes ids.
#[derive(Debug)]
pub struct RequestIds {
    /// Of the process, as digits.
    process: [u8; 16],
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        // The standard library's keys are random for each process.
        let random = || RandomState::new().build_hasher().finish();
        Self { process: digits(random()), next: AtomicU64::new(random()) }
    }
}

impl RequestIds {
    /// A new id.
    pub fn make(&self) -> RequestId {
        let number = digits(stir(self.next.fetch_add(1, Relaxed)));
        let mut id = [0; 32];
        let (first, second) = id.split_at_mut(16);
        first.copy_from_slice(&self.process);
        second.copy_from_slice(&number);
        RequestId::Made(id)
    }

    /// The id a trusted proxy gave, if it is one that may stand in a log and a header; else a new one.
    pub fn keep_or_make(&self, given: Option<&[u8]>) -> RequestId {
        let fit = |id: &&str| {
            (1..=KEPT_BYTES_MAX).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:=+/@".contains(&b))
        };
        match given.and_then(|id| std::str::from_utf8(id).ok()).filter(fit) {
            Some(id) => id.into(),
            None => self.make(),
        }
    }
}

/// Hexadecimal, with all zeros.
fn digits(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (digit, place) in digits.iter_mut().zip((0..16).rev()) {
        let value = (number >> (4 * place)) as u8 & 15;
        *digit = value + if value < 10 { b'0' } else { b'a' - 10 };
    }
    digits
}

/// The finaliser of `SplitMix64`: a bijection, so two numbers never meet.
fn stir(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_of_one_form() {
        let ids = RequestIds::default();
        let made: std::collections::HashSet<_> = (0..10_000).map(|_| ids.make().to_string()).collect();
        assert_eq!(made.len(), 10_000);
        assert!(made.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    #[test]
    fn only_harmless_ids_are_kept() {
        let ids = RequestIds::default();
        let long = "a".repeat(200);
        let check = |given: &str, kept: bool| {
            assert_eq!(&*ids.keep_or_make(Some(given.as_bytes())) == given, kept, "{given:?}");
        };
        check("4bf92f35-77b3", true);
        check("Root=1-5759e988", true);
        check("", false);
        check("a b", false);
        check("a\u{7f}", false);
        check(&long, false);
        assert_eq!(ids.keep_or_make(None).len(), 32);
    }
}
