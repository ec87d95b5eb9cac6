//! What is set for this process and inherited by its children.

use rustix::process::{Resource, Rlimit};
use rustix::rand::GetRandomFlags;

/// The soft limit of open files exists for programs that use `select`; none of ours does. The gateway needs two
/// descriptors and more for each client.
pub(crate) fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files was not raised");
    }
}

/// Processes whose parent has died become our children, so that nothing that an app starts is left over, and workers
/// that a template forks are ours. Whether they do.
pub(crate) fn adopt_orphans() -> bool {
    if rustix::process::getpid() == rustix::process::Pid::INIT {
        return true;
    }
    // Linux only. Any process id but none means "yes".
    #[cfg(target_os = "linux")]
    match rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        Ok(()) => return true,
        Err(error) => tracing::debug!(%error, "orphans will not be adopted"),
    }
    false
}

/// For jitter: not a secret, and any number does.
pub(crate) fn seed() -> u64 {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes, GetRandomFlags::NONBLOCK).unwrap_or(0);
    u64::from_ne_bytes(bytes) ^ (u64::from(std::process::id()) << 17) ^ got as u64
}
