//! The runtime directory: made private, locked for one instance, emptied at the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctl_admin::place::LOCK_FILE;
use rustix::fs::FlockOperation;

use crate::inherit::Identity;
use crate::listen;
use crate::plan::Problem;

/// In the lock file after the process id: the directory was not there before, and goes with the instance.
const MADE: &str = ", which made this directory";

/// Held for as long as the instance lives. On drop the directory goes, if it was made here and is empty.
#[derive(Debug)]
pub(crate) struct RuntimeDir {
    path: PathBuf,
    made: bool,
    lock: Arc<OwnedFd>,
    /// Ours to remove. Between an instance and its heir only one of both has it; the lock they share.
    owned: bool,
}

impl RuntimeDir {
    /// Makes the directory, or checks that it may be trusted, and locks it. `shared`: workers that run as another
    /// user must be able to reach the link socket in it, by its name.
    pub(crate) fn open(path: &Path, shared: bool) -> Result<Self, Problem> {
        let made = make(path, shared)?;
        check_trusted(path)?;
        let (lock, made) = lock(path, made)?;
        Ok(Self { path: path.to_path_buf(), made, lock: Arc::new(lock.into()), owned: true })
    }

    /// An elder's, whose open lock was inherited. Not ours before [`Self::own`].
    pub(crate) fn inherited(path: &Path, made: bool, lock: OwnedFd) -> Result<Self, Problem> {
        check_trusted(path)?;
        Ok(Self { path: path.to_path_buf(), made, lock: Arc::new(lock), owned: false })
    }

    /// From now on it is ours, and goes with us.
    pub(crate) fn own(&mut self) -> io::Result<()> {
        self.owned = true;
        write_lock(&mut File::from(self.lock.try_clone()?), self.made)
    }

    /// It is an heir's.
    pub(crate) fn release(&mut self) {
        self.owned = false;
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn was_made(&self) -> bool {
        self.made
    }

    /// The open lock file, to be inherited.
    pub(crate) fn lock(&self) -> &Arc<OwnedFd> {
        &self.lock
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if self.owned {
            // Of heirs that were killed before they had taken over.
            listen::remove_dead(&self.path);
            // While the lock is held: nobody else has it open as theirs (see `lock`).
            let _ = fs::remove_file(self.path.join(LOCK_FILE));
        }
        if self.made {
            // Fails if something else is in it, as it should: so the last of those who share it takes it away, which may be an
            // elder that has outlived its heir.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn make(path: &Path, shared: bool) -> Result<bool, Problem> {
    let problem = |error: io::Error| {
        Problem::new(format!("cannot make the runtime directory {}", path.display()))
            .detail(error.to_string())
            .hint("server.runtime_dir names another one")
    };
    if let Some(parent) = path.parent() {
        // Others may look for their own instance's directory in it.
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(problem)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            // 0711: the name of the link can be reached, the directory cannot be listed.
            let mode = if shared { 0o711 } else { 0o700 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(problem)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(problem(error)),
    }
}

/// Would an instance take this directory? One that is not there yet will be made.
pub(crate) fn look(path: &Path) -> Result<(), Problem> {
    if path.symlink_metadata().is_ok() { check_trusted(path) } else { Ok(()) }
}

/// Workers that run as another user must be able to walk to the link socket. A directory that is not there yet will be made
/// so that they can.
pub(crate) fn enterable(path: &Path, user: &Identity) -> Result<(), Problem> {
    let there = path.ancestors().find_map(|dir| dir.canonicalize().ok());
    for dir in there.iter().flat_map(|there| there.ancestors()) {
        let file = fs::metadata(dir).map_err(|error| untrusted(dir, &error.to_string()))?;
        // One of the three counts, and root needs none (path_resolution(7)).
        let bit = if file.uid() == user.uid {
            0o100
        } else if file.gid() == user.gid || user.groups.contains(&file.gid()) {
            0o010
        } else {
            0o001
        };
        if user.uid != 0 && file.mode() & bit == 0 && !has_list(dir) {
            let (dir, mode) = (dir.display(), file.mode() & 0o7777);
            return Err(Problem::new(format!("workers.user cannot enter the runtime directory {}", path.display()))
                .detail(format!("{dir} is closed to that user (mode {mode:o})"))
                .hint(format!("chmod a+x {dir} (RuntimeDirectoryMode=0711 in a systemd unit), or name another one in server.runtime_dir")));
        }
    }
    Ok(())
}

/// An access control list (acl(5)) may let in whom the mode keeps out. What it says is the kernel's to know.
fn has_list(dir: &Path) -> bool {
    // Its length is not ours to know: too little room says that it is there.
    let got = rustix::fs::getxattr(dir, ACCESS_LIST, &mut [0_u8; 64]);
    matches!(got, Ok(1..) | Err(rustix::io::Errno::RANGE))
}

/// Where Linux keeps it.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Nobody but root and ourselves may be able to put another directory (and so another socket) in its place.
fn check_trusted(path: &Path) -> Result<(), Problem> {
    const STICKY: u32 = 0o1000;
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let ours = rustix::process::geteuid().as_raw();
    let path = path.canonicalize().map_err(|error| untrusted(path, &error.to_string()))?;
    for (depth, dir) in path.ancestors().enumerate() {
        let file = fs::metadata(dir).map_err(|error| untrusted(dir, &error.to_string()))?;
        if !file.is_dir() {
            return Err(untrusted(dir, "it is not a directory"));
        }
        if file.uid() != ours && (file.uid() != 0 || depth == 0) {
            return Err(untrusted(dir, &format!("it belongs to another user (uid {})", file.uid())));
        }
        // In a sticky directory (/tmp) others cannot rename what is ours.
        let kept = depth > 0 && file.mode() & STICKY != 0;
        if file.mode() & WRITABLE_BY_OTHERS != 0 && !kept {
            return Err(untrusted(dir, &format!("others may write to it (mode {:o})", file.mode() & 0o7777)));
        }
    }
    Ok(())
}

fn untrusted(path: &Path, why: &str) -> Problem {
    Problem::new(format!("the runtime directory cannot be trusted: {}", path.display()))
        .detail(why)
        .hint("name a private directory in server.runtime_dir, or correct the permissions of this one")
}

/// Locks, and writes who holds the lock. The second value tells whether the directory is an instance's own: made now,
/// or by one that was killed.
fn lock(dir: &Path, made: bool) -> Result<(File, bool), Problem> {
    /// Each turn means that another instance ended just now; they do not come in crowds.
    const TURNS_MAX: u32 = 8;
    let path = dir.join(LOCK_FILE);
    let problem =
        |error: io::Error| Problem::new(format!("cannot lock {}", path.display())).detail(error.to_string());
    for _ in 0..TURNS_MAX {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(problem)?;
        if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error == rustix::io::Errno::WOULDBLOCK {
                return Err(already_running(dir, &mut file));
            }
            return Err(problem(error.into()));
        }
        // The instance before removes its lock file when it ends: what we have locked may have no name any more.
        let named = fs::metadata(&path).ok().map(|file| (file.dev(), file.ino()));
        let locked = file.metadata().map_err(problem)?;
        if named == Some((locked.dev(), locked.ino())) {
            let made = made || read_lock(&mut file).1;
            write_lock(&mut file, made).map_err(problem)?;
            return Ok((file, made));
        }
    }
    Err(Problem::new(format!("cannot lock {}", path.display())).detail("it is removed again and again"))
}

/// In one write, and cut afterwards: whoever reads the first line meanwhile finds the old owner or the new one.
fn write_lock(file: &mut File, made: bool) -> io::Result<()> {
    let line = format!("{}{}\n", std::process::id(), if made { MADE } else { "" });
    file.rewind()?;
    file.write_all(line.as_bytes())?;
    file.set_len(line.len() as u64)
}

/// The process id of the instance that has this directory.
pub(crate) fn owner(dir: &Path) -> Option<u32> {
    read_lock(&mut File::open(dir.join(LOCK_FILE)).ok()?).0.parse().ok()
}

/// The process id in the lock file, and whether the directory was made by that process.
fn read_lock(lock: &mut File) -> (String, bool) {
    /// A process id, [`MADE`] and a newline.
    const BYTES_MAX: u64 = 64;
    let mut text = String::new();
    // What cannot be read is not known, and nothing that must be right depends on it.
    let _ = lock.take(BYTES_MAX).read_to_string(&mut text);
    let text = text.lines().next().unwrap_or_default().trim();
    let pid = text.strip_suffix(MADE).unwrap_or(text);
    (pid.to_owned(), pid.len() < text.len())
}

fn already_running(dir: &Path, lock: &mut File) -> Problem {
    let who = match read_lock(lock).0.as_str() {
        "" => String::new(),
        pid => format!(" (pid {pid})"),
    };
    Problem::new(format!("quintet is already running for this project{who}"))
        .detail(format!("it holds the runtime directory {}", dir.display()))
        .hint("`quintet stop` ends it, `quintet reload` gives it new code; a second instance needs another --runtime-dir and address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_refused_and_told_about_the_first() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("shop");
        let first = RuntimeDir::open(&path, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let second = RuntimeDir::open(&path, false).unwrap_err();
        assert!(second.message.contains(&format!("pid {}", std::process::id())), "{second:?}");
        drop(first);
        assert!(!path.exists(), "an empty directory of our own is removed");
        drop(RuntimeDir::open(&path, false).unwrap());
    }

    #[test]
    fn the_last_one_takes_the_directory_away_with_what_the_dead_have_left() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("shop");
        let mut elder = RuntimeDir::open(&path, false).unwrap();
        let mut heir =
            RuntimeDir::inherited(&path, elder.was_made(), elder.lock().try_clone().unwrap()).unwrap();
        heir.own().unwrap();
        elder.release();
        // Sockets of somebody who was killed, and of the elder, which still finishes its requests.
        drop(std::os::unix::net::UnixListener::bind(heir.join("link2.sk")).unwrap());
        let used = std::os::unix::net::UnixListener::bind(heir.join("link1.sk")).unwrap();
        fs::write(heir.join("notes.sk"), "no socket").unwrap();
        drop(heir);
        assert!(path.join("link1.sk").exists() && path.join("notes.sk").exists());
        assert!(!path.join("link2.sk").exists() && !path.join(LOCK_FILE).exists());
        drop(used);
        fs::remove_file(path.join("link1.sk")).unwrap();
        fs::remove_file(path.join("notes.sk")).unwrap();
        drop(elder);
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_that_was_left_behind_is_no_obstacle() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join(LOCK_FILE), "123456789\n").unwrap();
        let dir = RuntimeDir::open(base.path(), false).unwrap();
        assert_eq!(fs::read_to_string(dir.join(LOCK_FILE)).unwrap().trim(), std::process::id().to_string());
        drop(dir);
        assert!(base.path().exists(), "a directory that was there before stays");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let problem = RuntimeDir::open(&path, false).unwrap_err();
        assert!(problem.detail.contains("mode 777"), "{problem:?}");
        let problem = RuntimeDir::open(&path.join("inside"), false).unwrap_err();
        assert!(problem.detail.contains("mode 777"), "{problem:?}");
    }

    #[test]
    fn workers_of_another_user_can_reach_into_a_shared_one() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("shop");
        let _dir = RuntimeDir::open(&path, true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o711);
    }

    #[test]
    fn workers_of_another_user_must_be_able_to_enter() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("shop");
        let ours = fs::metadata(base.path()).unwrap();
        let other = |gid| Identity { uid: ours.uid() + 1, gid, groups: Vec::new() };
        let stranger = other(ours.gid() + 1);
        let chmod = |mode| fs::set_permissions(base.path(), fs::Permissions::from_mode(mode)).unwrap();
        // What is above decides, too, also for a directory that will be made.
        chmod(0o700);
        let problem = enterable(&path, &stranger).unwrap_err();
        assert!(problem.detail.contains("(mode 700)"), "{problem:?}");
        chmod(0o710);
        assert!(enterable(&path, &stranger).is_err());
        assert!(enterable(&path, &other(ours.gid())).is_ok());
        chmod(0o711);
        assert!(enterable(&path, &stranger).is_ok());
        let _dir = RuntimeDir::open(&path, false).unwrap();
        assert!(enterable(&path, &stranger).is_err(), "it was there and is private");
        assert!(enterable(&path, &Identity { uid: 0, gid: 1, groups: Vec::new() }).is_ok());
        // setfacl -m u:STRANGER:x (acl(5); version 2, then tag, permissions and id of each entry).
        let entry = |tag: u16, bits: u16, id: u32| {
            [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let anybody = u32::MAX;
        let entries = [
            entry(1, 7, anybody),
            entry(2, 1, stranger.uid),
            entry(4, 0, anybody),
            entry(16, 1, anybody),
            entry(32, 0, anybody),
        ];
        let list = [2_u32.to_le_bytes().to_vec(), entries.concat()].concat();
        match rustix::fs::setxattr(&path, ACCESS_LIST, &list, rustix::fs::XattrFlags::empty()) {
            Ok(()) => assert!(enterable(&path, &stranger).is_ok(), "a list may let him in"),
            // Not every file system has them.
            Err(error) => assert_eq!(error, rustix::io::Errno::OPNOTSUPP),
        }
    }
}
