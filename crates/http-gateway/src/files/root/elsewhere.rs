//! Other systems: the path is walked.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use super::{READ, Wait, Ways};

/// Nothing opens a file only to look at it, so it is opened for reading.
pub(super) const LOOK: OFlags = READ;

pub(super) fn open_beneath(
    root: &OwnedFd,
    path: &[u8],
    flags: OFlags,
    _wait: Wait,
) -> rustix::io::Result<OwnedFd> {
    super::walk(root, path, flags)
}

pub(super) fn ways(_root: &OwnedFd) -> Ways {
    Ways { beneath: false, cached: false }
}
