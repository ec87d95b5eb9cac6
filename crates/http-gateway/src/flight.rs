//! Requests that are sent twice: one at a time (`route.single_flight`), and never done twice (`route.idempotency`).
//!
//! | file | what happens there |
//! |---|---|
//! | `rules.rs` | what a route asks for |
//! | `line.rs` | who flies, who joins, who waits: `http-limits` decides, here it is told to those whom it concerns |
//! | `same.rs` | which requests are the same, and whose answer may be given to whom (pure) |
//! | `body.rs` | bodies that have been read already, and what they were |
//! | `answer.rs` | an answer that is given more than once |
//! | `record.rs` | a streamed answer on its way to one client, and what is kept of it for others |
//! | `keys.rs` | Idempotency-Keys and their answers |
//! | `kept.rs` | the files in which they outlive the process |
//! | `problem.rs` | what is said to who asks for what cannot be (RFC 9457) |
//!
//! The service brings them together (`service/flown.rs`). **A flight is over when its worker is done**, not when its client has read
//! the answer: the worker is what is protected. Its [`Place`] is held by the request until it is answered, by the slot until the worker
//! has given it back (also when the client has left before), and by a streamed answer until the last piece of it has come. Event
//! streams are over when they have begun, since they keep no slot.
//!
//! Requests that join, and those with an Idempotency-Key, are worked on by a task of their own: their client may leave, and the answer
//! is still wanted.

mod answer;
mod body;
mod kept;
mod keys;
mod line;
mod problem;
mod record;
mod rules;
mod same;

pub(crate) use answer::Answer;
pub(crate) use body::{Fingerprinted, Gathered};
pub(crate) use keys::{Begun, Held, Known, Store};
pub use line::Place;
pub(crate) use line::{Arrived, Flights, Outcome, Told, Waiting};
pub(crate) use problem::{Problem, Problems};
pub(crate) use record::{LastWord, Recorded, record};
pub(crate) use rules::Rules;
pub(crate) use same::key;
