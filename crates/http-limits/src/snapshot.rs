//! What is kept over a restart, as bytes.
//!
//! All times in it are relative to the moment it was written. That stands in it twice: as the time since this machine was booted,
//! which never jumps, and as time of the wall for whoever reads it after another boot. A wall clock that jumps ahead frees nobody
//! then, and one that is set back makes no ban longer. A snapshot that was cut off or changed is refused as a whole, by a checksum.
//!
//! The seed stands in it too, since the keys of rates are hashes under it: it is a secret of the instance.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::bans::{KeptBan, Reason};
use crate::seed::Seed;

/// Says what it is and in which form.
const MAGIC: &[u8; 8] = b"quintet2";

/// Of the checksum at the end.
const SUM_BYTES: usize = 8;

/// A name and the terms of a limit; what is longer is none of ours.
const DEFINITION_BYTES_MAX: usize = 4096;

/// All that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Who wrote it: a number that no other process has.
    pub writer: u64,
    /// When.
    pub written: Moment,
    /// Under which the keys were made.
    pub seed: Seed,
    /// Who is banned, or was.
    pub bans: Vec<KeptBan>,
    /// What was counted.
    pub limits: Vec<KeptLimit>,
}

/// What was counted under one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLimit {
    /// Its name and terms in one text: what was counted under others means nothing.
    pub definition: String,
    /// Keys and their debts.
    pub debts: Vec<(u64, Duration)>,
}

/// Bytes that are no snapshot of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a whole snapshot of this version")]
pub struct BadSnapshot;

/// A moment as two clocks tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Which boot of which machine; 0: nobody knows.
    pub boot: u128,
    /// Milliseconds since then, with those in which the machine slept.
    pub since_boot_ms: u64,
    /// Milliseconds since 1970, as the wall clock says.
    pub wall_ms: u64,
}

/// The time since `written_ms` by the wall clock alone. One that was set back says nothing: then it was just now.
pub fn elapsed(written_ms: u64, now_ms: u64) -> Duration {
    Duration::from_millis(now_ms.saturating_sub(written_ms))
}

impl Moment {
    /// The time since an earlier one. Within one boot the wall clock is not asked.
    pub fn since(self, written: Self) -> Duration {
        if written.boot == self.boot && self.boot != 0 {
            elapsed(written.since_boot_ms, self.since_boot_ms)
        } else {
            elapsed(written.wall_ms, self.wall_ms)
        }
    }
}

impl Snapshot {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.writer.to_le_bytes());
        out.extend(self.written.boot.to_le_bytes());
        out.extend(self.written.since_boot_ms.to_le_bytes());
        out.extend(self.written.wall_ms.to_le_bytes());
        out.extend(self.seed.to_bytes());
        put_len(&mut out, self.bans.len());
        for ban in &self.bans {
            match ban.client {
                IpAddr::V4(addr) => {
                    out.push(4);
                    out.extend(addr.octets());
                }
                IpAddr::V6(addr) => {
                    out.push(6);
                    out.extend(addr.octets());
                }
            }
            put_time(&mut out, ban.ends_in);
            put_time(&mut out, ban.over_for);
            out.extend(ban.times.to_le_bytes());
            out.push(match ban.reason {
                Reason::Offences => 0,
                Reason::Operator => 1,
            });
        }
        put_len(&mut out, self.limits.len());
        for limit in &self.limits {
            put_len(&mut out, limit.definition.len());
            out.extend(limit.definition.as_bytes());
            put_len(&mut out, limit.debts.len());
            for (key, debt) in &limit.debts {
                out.extend(key.to_le_bytes());
                put_time(&mut out, *debt);
            }
        }
        let sum = sum(&out);
        out.extend(sum);
        out
    }

    /// From bytes, which may be anything.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadSnapshot> {
        let (body, written_sum) = bytes
            .len()
            .checked_sub(SUM_BYTES)
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(BadSnapshot)?;
        if sum(body) != written_sum {
            return Err(BadSnapshot);
        }
        let mut reader = Reader(body);
        if &reader.array::<8>()? != MAGIC {
            return Err(BadSnapshot);
        }
        let writer = reader.u64()?;
        let boot = u128::from_le_bytes(reader.array()?);
        let written = Moment { boot, since_boot_ms: reader.u64()?, wall_ms: reader.u64()? };
        let seed = Seed::from_bytes(reader.array()?);
        let bans = reader.list(Reader::ban)?;
        let limits = reader.list(Reader::limit)?;
        if reader.0.is_empty() { Ok(Self { writer, written, seed, bans, limits }) } else { Err(BadSnapshot) }
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // Tables are bounded far below four thousand millions.
    out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_time(out: &mut Vec<u8>, time: Duration) {
    out.extend(crate::gcra::nanos(time).to_le_bytes());
}

/// Against torn writes, not against forgers: who can write the file needs no forgery.
fn sum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish().to_le_bytes()
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], BadSnapshot> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(BadSnapshot)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadSnapshot> {
        self.bytes(N)?.try_into().map_err(|_| BadSnapshot)
    }

    fn u64(&mut self) -> Result<u64, BadSnapshot> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BadSnapshot> {
        self.array().map(u32::from_le_bytes)
    }

    fn time(&mut self) -> Result<Duration, BadSnapshot> {
        self.u64().map(Duration::from_nanos)
    }

    /// The number that says how many is not believed: no memory is taken before the items are there.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, BadSnapshot>) -> Result<Vec<T>, BadSnapshot> {
        let count = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn ban(&mut self) -> Result<KeptBan, BadSnapshot> {
        let client = match self.array()? {
            [4] => IpAddr::from(self.array::<4>()?),
            [6] => IpAddr::from(self.array::<16>()?),
            _ => return Err(BadSnapshot),
        };
        let (ends_in, over_for, times) = (self.time()?, self.time()?, self.u32()?);
        let reason = match self.array()? {
            [0] => Reason::Offences,
            [1] => Reason::Operator,
            _ => return Err(BadSnapshot),
        };
        Ok(KeptBan { client, ends_in, over_for, times, reason })
    }

    fn limit(&mut self) -> Result<KeptLimit, BadSnapshot> {
        let len = self.u32()? as usize;
        if len > DEFINITION_BYTES_MAX {
            return Err(BadSnapshot);
        }
        let definition = std::str::from_utf8(self.bytes(len)?).map_err(|_| BadSnapshot)?.to_owned();
        let debts = self.list(|reader| Ok((reader.u64()?, reader.time()?)))?;
        Ok(KeptLimit { definition, debts })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time() -> impl Strategy<Value = Duration> {
        (0..u64::MAX / 2).prop_map(Duration::from_nanos)
    }

    fn ban() -> impl Strategy<Value = KeptBan> {
        let client =
            prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
        let reason = prop_oneof![Just(Reason::Offences), Just(Reason::Operator)];
        (client, time(), time(), any::<u32>(), reason).prop_map(
            |(client, ends_in, over_for, times, reason)| KeptBan { client, ends_in, over_for, times, reason },
        )
    }

    fn limit() -> impl Strategy<Value = KeptLimit> {
        (".{0,20}", prop::collection::vec((any::<u64>(), time()), 0..20))
            .prop_map(|(definition, debts)| KeptLimit { definition, debts })
    }

    fn moment() -> impl Strategy<Value = Moment> {
        (any::<u128>(), any::<u64>(), any::<u64>()).prop_map(|(boot, since_boot_ms, wall_ms)| Moment {
            boot,
            since_boot_ms,
            wall_ms,
        })
    }

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        let head = (any::<u64>(), moment(), any::<[u8; 16]>().prop_map(Seed::from_bytes));
        (head, prop::collection::vec(ban(), 0..20), prop::collection::vec(limit(), 0..5)).prop_map(
            |((writer, written, seed), bans, limits)| Snapshot { writer, written, seed, bans, limits },
        )
    }

    #[test]
    fn a_wall_clock_may_jump() {
        const YEAR: u64 = 365 * 24 * 3_600_000;
        let at = |boot, since_boot_ms, wall_ms| Moment { boot, since_boot_ms, wall_ms };
        let ms = Duration::from_millis;
        let written = at(7, 1000, 50 * YEAR);
        for wall_ms in [50 * YEAR, 51 * YEAR, 0, u64::MAX] {
            assert_eq!(at(7, 4500, wall_ms).since(written), ms(3500), "within a boot it is not asked");
        }
        assert_eq!(at(8, 20, 50 * YEAR + 90_000).since(written), ms(90_000), "another boot");
        assert_eq!(at(8, 20, 49 * YEAR).since(written), Duration::ZERO, "another boot, set back");
        assert_eq!(at(0, 4500, 40).since(at(0, 1000, 10)), ms(30), "nobody knows the boot");
        assert_eq!(at(7, 10, 50 * YEAR).since(written), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(snapshot in snapshot()) {
            prop_assert_eq!(Snapshot::decode(&snapshot.encode()), Ok(snapshot));
        }

        #[test]
        fn what_was_cut_or_changed_is_refused(snapshot in snapshot(), at: prop::sample::Index, bit in 0_u8..8) {
            let mut bytes = snapshot.encode();
            let at = at.index(bytes.len());
            prop_assert_eq!(Snapshot::decode(&bytes[..at]), Err(BadSnapshot));
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(Snapshot::decode(&bytes), Err(BadSnapshot));
        }

        /// Behind a sum that is right, too.
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), whole: bool) {
            let _ = Snapshot::decode(&bytes);
            if whole {
                bytes.splice(0..0, *MAGIC);
            }
            let sum = sum(&bytes);
            bytes.extend(sum);
            let _ = Snapshot::decode(&bytes);
        }
    }
}
