//! `quintet internal-gateway`: the gateway process, as the supervisor starts it.

use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// The hidden command.
pub(crate) fn run() -> Result<Exit> {
    Err(Failure::new(Exit::Failure, "the gateway is not joined yet"))
}
