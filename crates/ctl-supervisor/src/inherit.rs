//! Descriptors and identities across `fork` and `exec`: the one place of this crate where `unsafe` is allowed.
//!
//! Invariant: a number becomes an [`OwnedFd`] at most once. Everything this process opens itself carries
//! `FD_CLOEXEC` (the standard library, rustix and tokio all do it); what it inherited cannot carry it, or it
//! would not be here. So "open and without the flag" means "inherited and not taken yet", and taking sets the flag.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Gid, Uid};

/// The first number that is not stdin, stdout or stderr; the same as systemd's `SD_LISTEN_FDS_START`.
pub const FIRST_FD: RawFd = 3;

/// Takes possession of an inherited descriptor. An error if `fd` is not open, is a standard stream, was opened
/// by this process or has been taken before.
pub fn take(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < FIRST_FD {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{fd} is a standard stream")));
    }
    // SAFETY: borrowed for the two calls below only; the kernel answers EBADF when the number is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = fcntl_getfd(borrowed)?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("descriptor {fd} was not inherited"),
        ));
    }
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)?;
    // SAFETY: open, as fcntl has told; and nobody else owns it, by the invariant of this file.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The user that a child becomes before it runs its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Lets `command` keep `fds` under their present numbers, and start as `identity`.
pub(crate) fn pass_on(command: &mut Command, fds: Vec<Arc<OwnedFd>>, identity: Option<Identity>) {
    let identity = identity.map(|identity| {
        let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid), groups)
    });
    // SAFETY: runs between fork and exec, where only async-signal-safe work is allowed. These are plain system
    // calls (rustix makes them without libc, so without locks) on data made before the fork: nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            for fd in &fds {
                fcntl_setfd(fd.as_fd(), FdFlags::empty())?;
            }
            if let Some((uid, gid, groups)) = &identity {
                // The order matters: once the user is changed, the groups cannot be.
                rustix::thread::set_thread_groups(groups)?;
                rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
                rustix::thread::set_thread_res_uid(*uid, *uid, *uid)?;
            }
            Ok(())
        });
    }
}

/// The number under which a child finds `fd` after [`pass_on`].
pub(crate) fn number(fd: &impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}
