//! Idempotency-Key (draft-ietf-httpapi-idempotency-key-header-07): a request that is sent again is not done again.
//!
//! The caller scopes keys by who asks, or answers would leak: a key is the hash of user, route and the client's own key. The
//! fingerprint is the hash of method, target and body.
//!
//! | the key is | the answer (section 2.6 of the draft) |
//! |---|---|
//! | not there, or malformed | 400 ([`parse_key`]) |
//! | known, with another fingerprint | 422 ([`Begin::Differs`]) |
//! | known, and still worked on | 409 ([`Begin::Outstanding`]) |
//! | known, and answered | that answer again ([`Begin::Again`]) |
//!
//! An answer is kept for the lifetime that the server publishes, errors too: the app has begun to act. Where the app has not
//! seen the request the key is given back ([`Keys::released`]).
//!
//! Bounded, and **never forgotten early**: forgetting a key would do something twice, so when there is no room a new key is
//! refused (503) instead.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::seed::Seed;

/// As Stripe has it; UUIDs take 36.
const KEY_BYTES_MAX: usize = 255;

/// A field that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key is a string of 1 to 255 letters, as \"8e03978e-40d5-43dd-bc93-6894a57f9324\"")]
pub struct BadKey;

/// Reads the field's value: a string of structured fields (RFC 9651, 3.3.3). The quotes may be missing around what is plain,
/// as most clients send it; both spellings are one key.
pub fn parse_key(value: &[u8]) -> Result<Vec<u8>, BadKey> {
    let value = value.trim_ascii();
    let key = match value.strip_prefix(b"\"") {
        Some(rest) => unquote(rest.strip_suffix(b"\"").ok_or(BadKey)?)?,
        // What would be read otherwise by somebody else is no key: lists, parameters, escapes.
        None if value.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\,;".contains(byte)) => {
            value.to_vec()
        }
        None => return Err(BadKey),
    };
    if (1..=KEY_BYTES_MAX).contains(&key.len()) { Ok(key) } else { Err(BadKey) }
}

/// What stands between the quotes.
fn unquote(inner: &[u8]) -> Result<Vec<u8>, BadKey> {
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(&escaped @ (b'"' | b'\\')) => text.push(escaped),
                _ => return Err(BadKey),
            },
            b'"' => return Err(BadKey),
            b' '..=b'~' => text.push(byte),
            _ => return Err(BadKey),
        }
    }
    Ok(text)
}

/// How much is kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeysLimits {
    /// From the answer on.
    pub lifetime: Duration,
    /// Keys, answered or not.
    pub keys_max: usize,
    /// Of all answers together.
    pub bytes_max: usize,
}

/// What becomes of a request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin<T> {
    /// Nobody has used the key: go.
    First,
    /// The same is being worked on.
    Outstanding,
    /// The key belongs to another request.
    Differs,
    /// The answer of then.
    Again(T),
    /// It was answered, and the answer was too large to be kept.
    Spent,
    /// There is no room for another key.
    Full,
}

#[derive(Debug)]
struct Entry<T> {
    fingerprint: u64,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Outstanding,
    Answered { answer: Option<T>, bytes: usize },
}

/// The keys. Not locked: one for each shard of the caller.
#[derive(Debug)]
pub struct Keys<T> {
    limits: KeysLimits,
    entries: HashMap<u64, Entry<T>, Seed>,
    /// When each answered key is forgotten; in order.
    ends: VecDeque<(Duration, u64)>,
    bytes: usize,
}

impl<T: Clone> Keys<T> {
    /// No key is known.
    pub fn new(limits: KeysLimits, seed: Seed) -> Self {
        Self { limits, entries: HashMap::with_hasher(seed), ends: VecDeque::new(), bytes: 0 }
    }

    /// A request with a key arrives.
    pub fn begin(&mut self, key: u64, fingerprint: u64, now: Duration) -> Begin<T> {
        self.forget(now);
        match self.entries.get(&key) {
            Some(known) if known.fingerprint != fingerprint => Begin::Differs,
            Some(Entry { state: State::Outstanding, .. }) => Begin::Outstanding,
            Some(Entry { state: State::Answered { answer: Some(answer), .. }, .. }) => {
                Begin::Again(answer.clone())
            }
            Some(Entry { state: State::Answered { answer: None, .. }, .. }) => Begin::Spent,
            None if self.entries.len() >= self.limits.keys_max => Begin::Full,
            None => {
                self.entries.insert(key, Entry { fingerprint, state: State::Outstanding });
                Begin::First
            }
        }
    }

    /// The request that was first has been answered; `bytes` is what the answer takes. Without room for it the key is kept
    /// all the same.
    pub fn answered(&mut self, key: u64, answer: T, bytes: usize, now: Duration) {
        self.forget(now);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let State::Outstanding = entry.state {
            let fits = bytes <= self.limits.bytes_max - self.bytes;
            let (answer, bytes) = if fits { (Some(answer), bytes) } else { (None, 0) };
            self.bytes += bytes;
            entry.state = State::Answered { answer, bytes };
            self.ends.push_back((now + self.limits.lifetime, key));
        }
    }

    /// Another process knows a key that nobody here has answered: this is its answer, for so long. Without room for it the key is known
    /// all the same.
    pub fn restore(
        &mut self,
        key: u64,
        fingerprint: u64,
        (answer, bytes): (T, usize),
        left: Duration,
        now: Duration,
    ) {
        self.forget(now);
        match self.entries.get(&key) {
            Some(Entry { state: State::Answered { .. }, .. }) => return,
            None if self.entries.len() >= self.limits.keys_max => return,
            Some(Entry { state: State::Outstanding, .. }) | None => {}
        }
        let fits = bytes <= self.limits.bytes_max - self.bytes;
        let (answer, bytes) = if fits { (Some(answer), bytes) } else { (None, 0) };
        self.bytes += bytes;
        self.entries.insert(key, Entry { fingerprint, state: State::Answered { answer, bytes } });
        let end = now + left.min(self.limits.lifetime);
        let place = self.ends.partition_point(|(other, _)| *other <= end);
        self.ends.insert(place, (end, key));
    }

    /// The app has not seen the request that was first: another may use the key.
    pub fn released(&mut self, key: u64) {
        if let Some(Entry { state: State::Outstanding, .. }) = self.entries.get(&key) {
            self.entries.remove(&key);
        }
    }

    /// Forgets what has lived long enough.
    pub fn forget(&mut self, now: Duration) {
        while let Some(&(end, key)) = self.ends.front()
            && end <= now
        {
            self.ends.pop_front();
            if let Some(Entry { state: State::Answered { bytes, .. }, .. }) = self.entries.remove(&key) {
                self.bytes -= bytes;
            }
        }
    }

    /// Keys that are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What all answers take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn keys(keys_max: usize, bytes_max: usize) -> Keys<&'static str> {
        let limits = KeysLimits { lifetime: DAY, keys_max, bytes_max };
        Keys::new(limits, Seed::from_bytes(*b"not that random."))
    }

    #[test]
    fn fields() {
        #[track_caller]
        fn check(value: &str, key: Option<&str>) {
            assert_eq!(parse_key(value.as_bytes()).ok(), key.map(|key| key.as_bytes().to_vec()), "{value}");
        }
        check("\"8e03978e-40d5\"", Some("8e03978e-40d5"));
        check("  8e03978e-40d5 ", Some("8e03978e-40d5"));
        check("\"a b, c;d\"", Some("a b, c;d"));
        check(r#""a\"b\\c""#, Some(r#"a"b\c"#));
        for bad in [
            "", "\"\"", "\"", "\"a", "a\"", "\"a\"b\"", "a b", "a,b", "a;q=1", r#""a\n""#, "\"a\\\"", "ä",
            "\"ä\"",
        ] {
            check(bad, None);
        }
        check(&"x".repeat(255), Some(&"x".repeat(255)));
        check(&"x".repeat(256), None);
    }

    #[test]
    fn a_request_that_is_sent_again_is_not_done_again() {
        let mut keys = keys(10, 100);
        assert_eq!(keys.begin(1, 7, DAY), Begin::First);
        assert_eq!(keys.begin(1, 7, DAY), Begin::Outstanding);
        assert_eq!(keys.begin(1, 8, DAY), Begin::Differs);
        keys.answered(1, "paid", 4, DAY);
        assert_eq!(keys.begin(1, 7, DAY), Begin::Again("paid"));
        assert_eq!(keys.begin(1, 8, DAY), Begin::Differs);
        keys.answered(1, "paid twice", 10, DAY);
        keys.released(1);
        assert_eq!(keys.begin(1, 7, DAY + DAY * 9 / 10), Begin::Again("paid"));
        assert_eq!(keys.begin(1, 8, DAY + DAY), Begin::First, "the lifetime is over");
    }

    #[test]
    fn what_the_app_has_not_seen_may_be_tried_again() {
        let mut keys = keys(10, 100);
        keys.begin(1, 7, DAY);
        keys.released(1);
        assert_eq!(keys.begin(1, 8, DAY), Begin::First);
        keys.released(2);
        keys.answered(2, "nobody asked", 1, DAY);
        assert_eq!((keys.len(), keys.bytes()), (1, 0));
    }

    #[test]
    fn without_room_nothing_is_done_twice() {
        let mut keys = keys(2, 10);
        keys.begin(1, 1, DAY);
        keys.answered(1, "large", 11, DAY);
        assert_eq!(keys.begin(1, 1, DAY), Begin::Spent, "known, though its answer is not");
        keys.begin(2, 2, DAY);
        assert_eq!(keys.begin(3, 3, DAY), Begin::Full);
        keys.answered(2, "fits", 10, DAY);
        assert_eq!(keys.begin(3, 3, DAY + DAY), Begin::First, "when the others' time is over");
        assert_eq!((keys.len(), keys.bytes()), (1, 0));
    }

    #[test]
    fn what_another_process_knows_is_known() {
        let mut keys = keys(3, 10);
        let now = DAY * 5;
        keys.begin(1, 7, now);
        keys.restore(1, 8, ("theirs", 6), DAY / 2, now);
        assert_eq!((keys.begin(1, 8, now), keys.begin(1, 7, now)), (Begin::Again("theirs"), Begin::Differs));
        keys.restore(1, 8, ("again", 6), DAY, now);
        keys.restore(2, 9, ("no room", 6), DAY * 2, now);
        keys.restore(3, 9, ("short", 1), DAY / 4, now);
        keys.restore(4, 9, ("one too many", 1), DAY, now);
        assert_eq!((keys.len(), keys.bytes(), keys.begin(2, 9, now)), (3, 7, Begin::Spent));
        assert_eq!(keys.begin(3, 9, now + DAY / 4), Begin::First, "each has its own time");
        keys.forget(now + DAY / 2);
        assert_eq!((keys.len(), keys.bytes()), (2, 0));
        keys.forget(now + DAY);
        assert_eq!(keys.len(), 1, "no longer than a lifetime; one is being worked on");
    }

    proptest! {
        /// Within its lifetime nothing that was begun is begun again, whatever comes between, and the bounds hold.
        #[test]
        fn nothing_is_done_twice(
            steps in prop::collection::vec((0_u64..6, 0_u64..2, 0_u8..4, 0_u64..20, 0_usize..8), 1..300),
        ) {
            let limits = KeysLimits { lifetime: Duration::from_secs(60), keys_max: 4, bytes_max: 16 };
            let mut keys: Keys<u64> = Keys::new(limits, Seed::from_bytes([3; 16]));
            // Until when each key may not be done again; `MAX` while it is worked on.
            let mut done: BTreeMap<u64, Duration> = BTreeMap::new();
            let mut now = DAY;
            for (step, (key, fingerprint, what, gap, bytes)) in (0..).zip(steps) {
                now += Duration::from_secs(gap);
                let guarded = done.get(&key).is_some_and(|until| *until > now);
                match what {
                    0 if done.get(&key) == Some(&Duration::MAX) => {
                        keys.answered(key, step, bytes, now);
                        done.insert(key, now + limits.lifetime);
                    }
                    1 if done.get(&key) == Some(&Duration::MAX) => {
                        keys.released(key);
                        done.remove(&key);
                    }
                    _ => match keys.begin(key, fingerprint, now) {
                        Begin::First => {
                            prop_assert!(!guarded, "key {key} is done twice");
                            done.insert(key, Duration::MAX);
                        }
                        Begin::Full => prop_assert!(!guarded && keys.len() == limits.keys_max),
                        Begin::Outstanding => prop_assert_eq!(done.get(&key), Some(&Duration::MAX)),
                        Begin::Differs | Begin::Again(_) | Begin::Spent => prop_assert!(guarded),
                    },
                }
                prop_assert!(keys.len() <= limits.keys_max && keys.bytes() <= limits.bytes_max);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_and_quoting_is_undone(bytes in prop::collection::vec(any::<u8>(), 0..300), key in "[ -~]{1,255}") {
            let _ = parse_key(&bytes);
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(parse_key(quoted.as_bytes()), Ok(key.into_bytes()));
        }
    }
}
