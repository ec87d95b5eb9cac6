//! Who has asked too often, and who is shut out for it: decisions only. No I/O, no clock, no randomness of its own.
//!
//! Time is a [`Duration`](std::time::Duration) since any moment at least a year ago, of a clock that never jumps; the seed of
//! all hashes is an argument. The gateway (`http-gateway/guard/`) brings both and acts.
//!
//! | file | what it decides |
//! |---|---|
//! | `gcra.rs` | whether a request fits into a rate and a burst, and when the next one will |
//! | `table.rs` | which of a million keys are remembered when there is room for fewer |
//! | `bans.rs` | who is shut out, for how long, and what is remembered of it afterwards |
//! | `network.rs` | addresses, ranges and lists of them |
//! | `client.rs` | which part of an address is one client |
//! | `seed.rs` | hashes that nobody outside can foresee |
//! | `single_flight.rs` | what becomes of a request while another of its key is under way |
//! | `idempotency.rs` | whether a request with an Idempotency-Key is done, repeated or refused |
//! | `shared.rs` | the same rates for several hosts: scripts for Redis, and what they answer |
//! | `snapshot.rs` | what is kept over a restart, as bytes |
//!
//! Promises: memory is bounded whatever clients do, and nothing here is locked as a whole: tables are cut into shards,
//! each with a lock of its own that is held for a few dozen instructions.

mod bans;
mod client;
mod gcra;
mod idempotency;
mod network;
mod seed;
pub mod shared;
mod single_flight;
mod snapshot;
mod table;

pub use bans::{Ban, Bans, BansFull, KeptBan, Reason, Terms};
pub use client::client;
pub use gcra::{Quota, Verdict};
pub use idempotency::{BadKey, Begin, Keys, KeysLimits, parse_key};
pub use network::{BadLine, BadNetwork, Network, NetworkSet};
pub use seed::{KeyHasher, Seed};
pub use shared::Together;
pub use single_flight::{Arrival, Ended, Flights, Policy, Ticket};
pub use snapshot::{BadSnapshot, KeptLimit, Moment, Snapshot, elapsed};
pub use table::Table;
