//! Floods, full tables, and that a full table counts as exactly as an empty one for those it remembers.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::seed::Seed;

const START: Duration = Duration::from_secs(1000);

fn seconds(seconds: u64) -> Duration {
    START + Duration::from_secs(seconds)
}

fn key(kind: u8, number: u32) -> u64 {
    let mut hasher = Seed::from_bytes(*b"not that random.").hasher();
    hasher.part(kind, &Ipv4Addr::from(number).octets());
    hasher.key()
}

fn passes(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Passes { .. })
}

/// A hundred requests in a hundred seconds, all at once if need be.
fn hundred() -> Quota {
    Quota::new(1, Duration::from_secs(1), 100)
}

/// A million addresses, one request each, all at once.
fn flood(table: &Table, now: Duration) {
    for number in 0..1_000_000 {
        assert!(passes(table.take(key(b'a', number), now)), "nobody is refused because others flood");
    }
}

#[test]
fn a_flood_of_a_million_addresses_stays_within_the_bound() {
    let table = Table::new(hundred(), 1 << 18);
    let empty = table.bytes();
    flood(&table, START);
    let (keys, bytes) = (table.len(START), table.bytes());
    println!(
        "1,000,000 addresses: {bytes} bytes, {:.1} an address, {:.1} a key that is remembered ({keys}); {empty} when empty",
        bytes as f64 / 1e6,
        bytes as f64 / keys as f64
    );
    assert_eq!(bytes, (1 << 18) * size_of::<Cell>());
    assert!(keys > (1 << 18) * 99 / 100, "it is used to the last cell: {keys}");
    assert_eq!(table.forgotten(), 1_000_000 - keys as u64);
    assert!(empty <= 8192, "{empty}");
}

#[test]
fn room_for_all_of_them_is_made_when_it_may_be() {
    let table = Table::new(hundred(), 1 << 21);
    flood(&table, START);
    let bytes = table.bytes();
    println!("1,000,000 addresses, all remembered: {:.1} bytes each", bytes as f64 / 1e6);
    assert_eq!((table.len(START), table.forgotten()), (1_000_000, 0));
    assert_eq!(bytes, (1 << 21) * size_of::<Cell>());
}

#[test]
fn memory_comes_back_after_a_flood() {
    let table = Table::new(hundred(), 1 << 18);
    let empty = table.bytes();
    for request in 0..50 {
        for number in 0..100 {
            table.take(key(b'h', number), seconds(request / 50));
        }
    }
    flood(&table, seconds(1));
    table.tidy(seconds(1));
    assert_eq!(table.bytes(), (1 << 18) * size_of::<Cell>(), "while it is needed it stays");
    table.tidy(seconds(10));
    assert!(table.bytes() <= empty * 4, "{}", table.bytes());
    assert_eq!(table.len(seconds(10)), 100, "who owes more than the flood is still known");
    let debts = table.debts(Duration::from_secs(1), seconds(10));
    assert!(debts.iter().all(|(_, debt)| *debt == Duration::from_secs(40)), "{debts:?}");
}

#[test]
fn a_flood_makes_nobody_forget_a_visitor_or_an_attacker() {
    let table = Table::new(hundred(), 1 << 14);
    // Two hundred visitors have used some of their burst, two hundred attackers all of it.
    for visitor in 0..200 {
        for _ in 0..2 + visitor % 30 {
            table.take(key(b'v', visitor), START);
        }
        while passes(table.take(key(b'x', visitor), START)) {}
    }
    flood(&table, START);
    for visitor in 0..200 {
        let Verdict::Passes { remaining, .. } = table.take(key(b'v', visitor), START) else {
            panic!("a visitor is refused")
        };
        assert_eq!(remaining, 100 - 3 - u64::from(visitor % 30), "visitor {visitor}");
        assert!(!passes(table.take(key(b'x', visitor), START)), "attacker {visitor} has a new burst");
    }
}

/// The dearer attack: fewer keys, each with a debt of its own. It costs as many requests as it makes others forget.
#[test]
fn to_be_forgotten_costs_more_requests_than_it_gains() {
    let table = Table::new(hundred(), 1 << 10);
    let attacker = key(b'x', 0);
    while passes(table.take(attacker, START)) {}
    let mut spent = 0_u64;
    let mut helper = 0;
    while !passes(table.take(attacker, START)) {
        helper += 1;
        assert!(helper < 20_000, "never");
        for _ in 0..100 {
            spent += 1;
            table.take(key(b'h', helper), START);
        }
    }
    println!("a debt of 100 requests was forgotten after {spent} requests of {helper} other addresses");
    assert!(spent >= 100 * 15, "fifteen others that owe as much: {spent}");
}

#[test]
fn what_is_given_back_fits_again_and_who_is_forgotten_begins_anew() {
    let table = Table::new(Quota::new(1, Duration::from_secs(10), 1), 1000);
    let (one, other) = (key(b'a', 1), key(b'a', 2));
    assert!(passes(table.take(one, START)) && passes(table.take(other, START)));
    assert_eq!(table.take(one, seconds(4)), Verdict::Refused { retry_in: Duration::from_secs(6) });
    table.give_back(one);
    assert!(passes(table.take(one, seconds(4))));
    table.forget(one);
    assert!(passes(table.take(one, seconds(4))));
    assert!(!passes(table.take(other, seconds(4))));
    table.give_back(key(b'a', 3));
    table.forget(key(b'a', 4));
    assert_eq!(table.len(seconds(4)), 2, "who is not known is not made known");
}

#[test]
fn debts_survive_a_restart() {
    let before = Table::new(hundred(), 1000);
    for number in 0..20 {
        for _ in 0..number * 5 {
            before.take(key(b'a', number), START);
        }
    }
    let kept = before.debts(Duration::from_secs(10), seconds(5));
    assert_eq!(kept.len(), 17, "small debts are not worth the bytes");
    // Another process, another clock.
    let after = Table::new(hundred(), 1000);
    let now = Duration::from_secs(40_000_000);
    for (key, debt) in &kept {
        after.restore(*key, *debt, now);
        after.restore(*key, Duration::from_secs(1), now);
    }
    after.restore(key(b'a', 100), Duration::MAX, now);
    let mut restored = after.debts(Duration::ZERO, now);
    restored.retain(|(key, _)| kept.iter().any(|(other, _)| other == key));
    restored.sort_unstable();
    let mut kept = kept;
    kept.sort_unstable();
    assert_eq!(restored, kept);
    assert!(!passes(after.take(key(b'a', 100), now)), "no debt is larger than the window");
    assert!(passes(after.take(key(b'a', 100), now + Duration::from_secs(1))));
}

#[test]
fn reactors_do_not_lose_each_others_requests() {
    let table = Table::new(Quota::new(1, Duration::from_secs(3600), 1000), 1 << 12);
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for turn in 0..2000_u32 {
                    passed.fetch_add(u64::from(passes(table.take(key(b'a', 7), START))), Relaxed);
                    table.take(key(b'b', turn), START);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 1000);
}

proptest! {
    /// A table with room enough is a plain map, whatever is asked, given back, tidied.
    #[test]
    fn with_room_it_counts_like_a_map(
        asked in prop::collection::vec((0_u32..40, 0_u64..400, 0_u8..8), 1..300),
    ) {
        let quota = Quota::new(10, Duration::from_secs(1), 5);
        let table = Table::new(quota, 1 << 14);
        let mut model: HashMap<u64, u64> = HashMap::new();
        let mut now = START;
        for (number, gap_ms, what) in asked {
            now += Duration::from_millis(gap_ms / 8);
            let key = key(b'p', number);
            let due = model.entry(key).or_default();
            match what {
                0 => table.tidy(now),
                1 => {
                    table.forget(key);
                    *due = 0;
                }
                _ => {
                    let (next, verdict) = quota.take(*due, nanos(now));
                    *due = next;
                    prop_assert_eq!(table.take(key, now), verdict);
                }
            }
            let live = model.values().filter(|due| **due > nanos(now)).count();
            prop_assert_eq!(table.len(now), live);
        }
        prop_assert_eq!(table.forgotten(), 0);
    }

    /// However small and however full: it stays within its bound, and what it remembers is never more than was asked.
    #[test]
    fn a_full_table_never_counts_too_much(
        asked in prop::collection::vec((0_u32..5000, 0_u64..3), 1..3000),
    ) {
        let quota = Quota::new(1, Duration::from_secs(1), 50);
        let table = Table::new(quota, 1);
        let mut exact: HashMap<u64, u64> = HashMap::new();
        let mut now = START;
        for (number, gap_ms) in asked {
            now += Duration::from_millis(gap_ms);
            let key = key(b'p', number);
            let due = exact.entry(key).or_default();
            let (next, verdict) = quota.take(*due, nanos(now));
            *due = next;
            let counted = table.take(key, now);
            prop_assert!(passes(counted) || !passes(verdict), "refused too early");
        }
        prop_assert!(table.bytes() <= SHARDS * WAYS * size_of::<Cell>());
    }
}
