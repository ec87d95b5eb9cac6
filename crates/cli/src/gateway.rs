//! `quintet internal-gateway`: the gateway process, as the supervisor starts it.

use std::os::unix::net::UnixStream;

use ctl_supervisor::inherit;
use ctl_telemetry::logging;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::run::{log_format, log_level};

/// Tells a child the number of its control socket; the supervisor sets it.
const CONTROL: &str = "QUINTET_CONTROL_FD";

/// The hidden command.
pub(crate) fn run() -> Result<Exit> {
    let control = std::env::var(CONTROL).ok().and_then(|number| number.parse().ok()).ok_or_else(|| {
        Failure::new(Exit::Usage, "internal-gateway is started by `quintet run`, not by hand")
    })?;
    let control = inherit::take(control)
        .map_err(|error| Failure::new(Exit::Failure, format!("control socket: {error}")))?;
    let code = http_gateway::gateway::run(UnixStream::from(control), &inherit::take, |config| {
        // Set once in this process, so there is nothing to fail.
        let _ = logging::init(log_format(config), log_level(config));
    });
    Ok(if code == 0 { Exit::Success } else { Exit::Failure })
}
