//! How many instructions a limit costs a request: `valgrind --tool=callgrind` around it, with 10000 and with 110000 turns; the
//! difference is of 100000 requests.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use http_limits::{Quota, Seed, Table};

fn main() {
    let turns = std::env::args().nth(1).and_then(|turns| turns.parse().ok()).unwrap_or(100_000_u32);
    let table = Table::new(Quota::new(1000, Duration::from_secs(1), 1000), 1 << 18);
    let seed = Seed::from_bytes(*b"0123456789abcdef");
    for turn in 0..turns {
        let mut key = seed.hasher();
        // A thousand visitors, in turn.
        key.part(1, &Ipv4Addr::from(turn % 1000).octets());
        let now = Duration::from_secs(1000) + Duration::from_micros(turn.into());
        black_box(table.take(black_box(key.key()), now));
    }
    println!("{} keys", table.len(Duration::from_secs(1000)));
}
