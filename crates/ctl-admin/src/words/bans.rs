//! `quintet bans`: what is asked of the gateway, through the supervisor, and what it answers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// `quintet bans`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum BansRequest {
    /// Who is banned?
    List,
    /// Ban this client.
    Add {
        /// Of IPv6 its /64.
        address: IpAddr,
        /// For how long; `None`: `bans.time`.
        seconds: Option<u64>,
    },
    /// Ban this client no longer.
    Remove {
        /// Of IPv6 its /64.
        address: IpAddr,
    },
}

/// The gateway's answer to a [`BansRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum BansAnswer {
    /// To `List`.
    List {
        /// Those who will be free last; not all when there are very many.
        bans: Vec<BanRow>,
        /// How many there are.
        total: u64,
    },
    /// It is done.
    Done {
        /// For people.
        text: String,
    },
    /// It was not done.
    Failed {
        /// Message, detail, hint.
        text: String,
    },
}

/// One who is banned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanRow {
    /// An IPv4 address, or the /64 of an IPv6 one.
    pub client: String,
    /// Seconds until the ban is over.
    pub ends_in_s: u64,
    /// Bans in a row.
    pub times: u32,
    /// `offences` or `operator`.
    pub by: String,
}
