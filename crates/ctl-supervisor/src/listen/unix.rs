//! Unix sockets in the file system: left-behind ones are recognised, ours are removed at the end.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::plan::Problem;

/// Of the names of an heir's own sockets.
pub(crate) const HEIRS_ENDING: &str = "sk";

/// Who may connect, as far as the socket itself decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Like nginx (0666): a proxy runs as another user, and the directory decides who gets here.
    Everybody,
    /// Our own user (0600).
    Ourselves,
}

/// A socket's name in the file system, removed when dropped if it is still ours.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another instance may have put its own socket there meanwhile.
    identity: Option<(u64, u64)>,
    /// Ours to remove. Between an instance and its heir only one of both has it.
    owned: bool,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), identity: identity(path), owned: true }
    }

    /// The name of a socket that was inherited: not ours before [`Self::own`].
    pub(crate) fn inherited(path: &Path) -> Self {
        Self { path: path.to_path_buf(), identity: identity(path), owned: false }
    }

    /// From now on it is removed with us.
    pub(crate) fn own(&mut self) {
        self.owned = true;
    }

    /// Somebody else removes it.
    pub(crate) fn release(&mut self) {
        self.owned = false;
    }

    /// Takes another name, and with it the place of whatever has that name now.
    pub(crate) fn rename(&mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.path = to.to_path_buf();
        Ok(())
    }

    /// Is it still there under its name?
    pub(crate) fn is_there(&self) -> bool {
        self.identity.is_some() && identity(&self.path) == self.identity
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.owned && self.is_there() {
            // Nothing can be done about a failure, and the next start recognises what is left behind.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Binds and listens.
pub(crate) fn bind_unix(path: &Path, backlog: u32, reach: Reach) -> Result<(OwnedFd, SocketFile), Problem> {
    let problem = || Problem::new(format!("cannot listen on unix:{}", path.display()));
    remove_left_behind(path, problem)?;
    let made = || -> io::Result<(OwnedFd, SocketFile)> {
        let fd =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // The mode is set after `bind` and before `listen`: nobody connects in between. (The umask would do it in
        // one step, but it belongs to the whole process.)
        rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
        let file = SocketFile::new(path);
        let mode = match reach {
            Reach::Everybody => Mode::from_raw_mode(0o666),
            Reach::Ourselves => Mode::from_raw_mode(0o600),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode.as_raw_mode()))?;
        rustix::net::listen(&fd, i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok((fd, file))
    };
    made().map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "its directory does not exist; make it, or choose another path",
            io::ErrorKind::PermissionDenied => "this user may not write to its directory",
            _ => "",
        };
        problem().detail(error.to_string()).hint(hint)
    })
}

/// Removes the private sockets of heirs (`link3.sk`, see `own_name`) that nobody listens at any more.
pub(crate) fn remove_dead(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|ending| ending == HEIRS_ENDING) {
            // One in use stays, and what is no socket.
            let _ = remove_left_behind(&entry.path(), || Problem::new("it is in use"));
        }
    }
}

/// A socket that nobody listens at was left behind by a process that was killed.
fn remove_left_behind(path: &Path, problem: impl Fn() -> Problem) -> Result<(), Problem> {
    let Ok(file) = fs::symlink_metadata(path) else { return Ok(()) };
    if !file.file_type().is_socket() {
        return Err(problem()
            .detail("there is a file with this name, and it is no socket")
            .hint("choose another path"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| {
                problem().detail(format!("a socket was left behind and cannot be removed: {error}"))
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(problem()
            .detail("another process listens there")
            .hint("stop it (`quintet stop`, if it is ours), or choose another path")),
    }
}
