//! `quintet check`

use clap::ArgMatches;

use crate::exit::Exit;
use crate::failure::Result;

/// The command.
pub(crate) fn run(_matches: &ArgMatches) -> Result<Exit> {
    Ok(Exit::Success)
}
