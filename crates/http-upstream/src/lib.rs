//! Who of several servers gets the next request: decisions only. No I/O, no clock, no randomness of its own.
//!
//! ```text
//! pick ─► Pick ─► record(outcome, latency) ─► dropped: its place is free again
//!   │        └ dropped without a record: the client went away, nobody is to blame
//!   └ NoServer: wait, or 503; that is the caller's to say
//! ```
//!
//! | file | what it decides |
//! |---|---|
//! | `group.rs` | the servers of an upstream, behind one lock; a request's place with one of them |
//! | `state.rs` | what is behind the lock: who is in rotation, what an outcome changes |
//! | `choose.rs` | the policies: peak-EWMA with two choices, least loaded, round robin, by key |
//! | `member.rs` | one server: what is known of it, slow start |
//! | `estimate.rs` | how long it takes, how often it fails |
//! | `ejection.rs` | who is taken out after failures, for how long, and the one request that brings it back |
//! | `health.rs` | active checks: how many results in a row are believed |
//! | `budget.rs` | how many requests may be sent again |
//! | `sticky.rs` | the token by which a client comes back to its server |
//! | `terms.rs` | what the operator sets |
//!
//! **Locking.** Reactors share a [`Group`], which has one lock. It is held for a pick, a record and a release, each some hundred
//! instructions without an allocation, and never by anyone who waits. By the default policy a pick looks at two servers
//! however many there are; the others look at each, and there are at most a few hundred.
//!
//! **Time** is an `Instant` that the caller brings. Two threads may bring theirs in the wrong order: nothing here minds.
//!
//! **Promises.** No server that is out gets a request while another lives that has not been tried with it. The last one is never
//! taken out. A server that is removed keeps its record until its last request is over. What is remembered is bounded by the
//! number of servers.

mod budget;
mod choose;
mod ejection;
mod estimate;
mod group;
mod health;
mod member;
mod state;
mod sticky;
mod terms;

pub use group::{
    Ask, Change, Drain, Group, NoServer, Outcome, Pick, Server, ServerId, ServerStatus, Standing, key,
};
pub use sticky::{Secret, Token};
pub use terms::{Policy, Terms};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod simulation;
