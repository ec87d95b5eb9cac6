//! Growing, forgetting, room for few, and what other processes knew.

use std::net::Ipv4Addr;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn bans(bans_max: usize) -> Bans {
    let terms = Terms { time: 10 * MINUTE, time_max: HOUR, bans_max };
    Bans::new(terms, Seed::from_bytes(*b"not that random."))
}

fn host(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))
}

#[test]
fn bans_end_grow_have_a_cap_and_are_forgotten() {
    let bans = bans(100);
    let (eve, mut now) = (host(1), 5 * HOUR);
    assert_eq!(bans.ends_in(eve, now), None);
    for minutes in [10, 20, 40, 60, 60, 60] {
        assert_eq!(bans.strike(eve, now), Ok(minutes * MINUTE));
        now += MINUTE;
        assert_eq!(bans.ends_in(eve, now), Some((minutes - 1) * MINUTE));
        assert_eq!(bans.ends_in(host(2), now), None);
        assert_eq!(bans.strike(eve, now), Ok((minutes - 1) * MINUTE), "what was on its way changes nothing");
        now += (minutes - 1) * MINUTE;
        assert_eq!(bans.ends_in(eve, now), None, "it is over");
        now += 59 * MINUTE;
        bans.tidy(now);
    }
    assert_eq!(bans.keep(now).len(), 1);
    now += MINUTE;
    bans.tidy(now);
    assert_eq!(bans.keep(now).len(), 0, "an hour of good behaviour");
    assert_eq!(bans.strike(eve, now), Ok(10 * MINUTE));
    assert_eq!(bans.strike(host(3), now + 71 * MINUTE), Ok(10 * MINUTE));
    assert_eq!(bans.strike(eve, now + 71 * MINUTE), Ok(10 * MINUTE), "forgotten even where nobody tidied");
}

#[test]
fn the_word_of_another_hosts_operator_holds_also_when_it_is_shorter() {
    let (bans, now) = (bans(100), 5 * HOUR);
    bans.add(host(1), 2 * HOUR, now).unwrap();
    let shorter = KeptBan {
        client: host(1),
        ends_in: MINUTE,
        over_for: Duration::ZERO,
        times: 3,
        reason: Reason::Operator,
    };
    bans.restore(&shorter, Duration::ZERO, now).unwrap();
    assert_eq!(bans.ends_in(host(1), now), Some(2 * HOUR), "from a file the longer one holds");
    bans.replace(&shorter, now).unwrap();
    assert_eq!(bans.kept(host(1), now), Some(shorter));
    assert_eq!(bans.kept(host(1), now + MINUTE), None, "nothing grows out of it");
    bans.strike(host(2), now).unwrap();
    let over = bans.kept(host(2), now + 15 * MINUTE).unwrap();
    assert_eq!((over.ends_in, over.over_for, over.times), (Duration::ZERO, 5 * MINUTE, 1));
}

#[test]
fn the_operator_bans_pardons_and_sees() {
    let bans = bans(100);
    bans.strike(host(1), HOUR).unwrap();
    bans.add(host(2), 2 * HOUR, HOUR).unwrap();
    bans.add(host(3), MINUTE, HOUR).unwrap();
    let list = bans.list(HOUR + 2 * MINUTE);
    let seen: Vec<_> = list.iter().map(|ban| (ban.client, ban.ends_in, ban.reason)).collect();
    assert_eq!(seen, [(host(2), 118 * MINUTE, Reason::Operator), (host(1), 8 * MINUTE, Reason::Offences)]);
    assert_eq!(bans.len(HOUR + 2 * MINUTE), 2);
    assert!(bans.remove(host(1), HOUR + 2 * MINUTE));
    assert!(!bans.remove(host(1), HOUR + 2 * MINUTE) && !bans.remove(host(9), HOUR));
    assert_eq!(bans.strike(host(1), HOUR + 2 * MINUTE), Ok(10 * MINUTE), "a pardon is a new beginning");
    bans.add(host(2), MINUTE, HOUR + 2 * MINUTE).unwrap();
    assert_eq!(bans.ends_in(host(2), HOUR + 2 * MINUTE), Some(MINUTE), "the last word counts");
    bans.tidy(4 * HOUR);
    assert!(bans.keep(4 * HOUR).is_empty());
    assert_eq!(bans.ends_in(host(1), 4 * HOUR), None);
}

#[test]
fn a_million_clients_take_bounded_memory_and_free_none_who_stays_longer() {
    let bans = bans(1 << 14);
    let mut now = HOUR;
    let hard: Vec<IpAddr> = (0..50).map(host).collect();
    for _ in 0..3 {
        for client in &hard {
            bans.strike(*client, now).unwrap();
        }
        now += 41 * MINUTE;
    }
    for client in &hard {
        assert_eq!(bans.strike(*client, now), Ok(60 * MINUTE));
    }
    bans.add(host(77), MINUTE, now).unwrap();
    for number in 0..1_000_000 {
        // All at one moment: none ends later than the others.
        let _ = bans.strike(host(1000 + number), now);
    }
    let (count, bytes) = (bans.len(now), bans.bytes());
    println!(
        "1,000,000 clients struck: {count} banned, {bytes} bytes, {:.1} a ban",
        bytes as f64 / count as f64
    );
    assert!((15_000..=1 << 14).contains(&count), "{count}");
    assert!(bytes <= 2 << 20, "{bytes}");
    assert!(hard.iter().all(|client| bans.ends_in(*client, now) == Some(HOUR)));
    assert!(bans.ends_in(host(77), now).is_some(), "the operator's word is kept");
    bans.tidy(now + 2 * HOUR + MINUTE);
    assert_eq!((bans.len(now), bans.bytes()), (0, 0), "and memory comes back");
}

#[test]
fn new_bans_push_out_those_that_end_first_and_none_of_the_operators() {
    let bans = bans(1);
    let mut now = HOUR;
    let mut added = 0;
    // One place in each of the shards.
    for number in 0..200 {
        added += usize::from(bans.add(host(number), HOUR, now).is_ok());
    }
    assert_eq!((added, bans.len(now)), (SHARDS, SHARDS));
    assert!((200..400).all(|number| bans.strike(host(number), now) == Err(BansFull)));
    now += HOUR;
    bans.tidy(now);
    for number in 200..400 {
        now += Duration::from_secs(1);
        assert!(bans.strike(host(number), now).is_ok(), "one that ends later takes the place");
    }
    assert_eq!(bans.len(now), SHARDS);
    assert!(bans.add(host(7), MINUTE, now).is_ok(), "and the operator always finds one among these");
}

#[test]
fn bans_survive_a_restart_and_end_when_they_would_have() {
    let before = bans(100);
    for (client, times) in [(1, 1), (2, 3)] {
        for _ in 0..times {
            before.strike(host(client), HOUR).unwrap();
            let left = before.ends_in(host(client), HOUR).unwrap();
            let record = before.shard(host(client)).records.get(&host(client)).copied().unwrap();
            // Served at once, so that the next strike counts.
            let served = Record { until: record.until - nanos(left), ..record };
            before.shard(host(client)).records.insert(host(client), served);
        }
        before.strike(host(client), HOUR).unwrap();
    }
    before.add(host(3), 5 * MINUTE, HOUR).unwrap();
    let kept = before.keep(HOUR + 15 * MINUTE);
    assert_eq!(kept.len(), 2, "the operator's is over and forgotten: {kept:?}");
    let restored = |elapsed: Duration| {
        let after = bans(100);
        let now = 9000 * HOUR;
        for ban in &kept {
            after.restore(ban, elapsed, now).unwrap();
        }
        (after, now)
    };
    // Host 1 had 20 minutes (the second time), host 2 an hour, of which 15 minutes are over.
    let (after, now) = restored(2 * MINUTE);
    assert_eq!(after.ends_in(host(1), now), Some(3 * MINUTE));
    assert_eq!(after.ends_in(host(2), now), Some(43 * MINUTE));
    for ban in &kept {
        after.restore(ban, 3 * MINUTE, now).unwrap();
    }
    assert_eq!(after.ends_in(host(1), now), Some(3 * MINUTE), "the one that ends later holds");
    let (after, now) = restored(10 * MINUTE);
    assert_eq!(after.ends_in(host(1), now), None);
    assert_eq!(after.strike(host(1), now), Ok(40 * MINUTE), "over, and remembered");
    let (after, now) = restored(3 * HOUR);
    assert_eq!((after.keep(now).len(), after.ends_in(host(2), now)), (0, None));
}
