//! Every setting, once.
//!
//! [`settings`] is the one table: name, type, default, documentation, flag, range. From it come
//!
//! - the typed structs ([`Config`] and a struct a section),
//! - the readers of `quintet.toml`, the environment and the flags ([`load`]), with an [`Origin`] for each value,
//! - the errors ([`Problems`]), with file, line, column and the nearest right word,
//! - the JSON Schema ([`schema::json_schema`]) and `docs/reference/settings.md` ([`reference::markdown`]).
//!
//! No I/O happens here: the caller reads the file and the environment and hands them in as [`Sources`].
//! Strength, weakest first: default, file, environment, flag.

mod address;
pub mod certificate;
mod choice;
pub mod client_certificate;
mod cross;
mod define;
mod duration;
mod file;
pub mod limit;
mod load;
pub mod module;
pub mod pool;
mod problem;
mod raw;
pub mod redis;
pub mod reference;
pub mod route;
pub mod schema;
pub mod settings;
mod size;
pub mod tables;
pub mod upstream;
mod value;
mod waiting;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use address::{BindAddress, DEFAULT_PORT};
pub use certificate::{Certificate, CertificateFiles, TlsVersion};
pub use client_certificate::ClientVerify;
pub use cross::FRAME_BYTES_MAX;
pub use define::{Reload, Section, Setting};
pub use duration::{duration_text, parse_duration};
pub use limit::{Limit, LimitAction};
pub use load::{FlagValues, Loaded, Origin, Sources, TextFile, load};
pub use module::Module;
pub use pool::WorkerPool;
pub use problem::{Problem, Problems, Style, nearest};
pub use raw::Fault;
pub use redis::{RedisAddress, RedisHost, SecretUrl};
pub use route::Route;
pub use settings::*;
pub use size::{parse_size, size_text};
pub use tables::{Record, Table};
pub use upstream::Upstream;
pub use value::{Choice, Kind, Program};
pub use waiting::waiting;
