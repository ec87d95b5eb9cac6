//! Linux: the kernel keeps us below the root.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::{Wait, Ways};

/// `O_PATH`: only to look at what is there.
pub(super) const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

pub(super) fn open_beneath(
    root: &OwnedFd,
    path: &[u8],
    flags: OFlags,
    wait: Wait,
) -> rustix::io::Result<OwnedFd> {
    /// The kernel says EAGAIN when a rename elsewhere kept it from being sure; it asks for a few more tries.
    const TRIES: usize = 8;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if wait == Wait::Never {
        return openat2(root, path, flags, Mode::empty(), resolve | ResolveFlags::CACHED);
    }
    let mut result = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        result = openat2(root, path, flags, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN)) {
            break;
        }
    }
    result
}

pub(super) fn ways(root: &OwnedFd) -> Ways {
    // Old kernels say ENOSYS, filters of containers EPERM, kernels before 5.12 EINVAL for RESOLVE_CACHED.
    let beneath = open_beneath(root, b".", LOOK, Wait::Allowed).is_ok();
    let cached = beneath && matches!(open_beneath(root, b".", LOOK, Wait::Never), Ok(_) | Err(Errno::AGAIN));
    Ways { beneath, cached }
}
