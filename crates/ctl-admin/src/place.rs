//! Where an instance is found: the runtime directory and the names in it.

use std::env;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

/// The command's socket.
pub const CONTROL_SOCKET: &str = "control.sock";
/// The workers' socket.
pub const LINK_SOCKET: &str = "link.sock";
/// The admin HTTP's socket, unless `admin.bind` says otherwise.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// Locked for as long as an instance lives; holds the supervisor's process id.
pub const LOCK_FILE: &str = "lock";

/// The runtime directory of the project in `dir`, when the configuration names none.
///
/// `/run/quintet/NAME` for root (where `/run` can be written), `$XDG_RUNTIME_DIR/quintet/NAME` for a user with a
/// session, otherwise below the temporary directory. NAME is the project directory's own name and a hash of its path, so that it is short
/// (a socket's path has about 100 bytes) and tells projects apart.
pub fn runtime_dir(dir: &Path) -> PathBuf {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let uid = rustix::process::geteuid();
    let session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = if uid.is_root() && is_usable(Path::new("/run")) {
        PathBuf::from("/run/quintet")
    } else if let Some(session) = session.filter(|dir| !uid.is_root() && dir.is_absolute() && is_usable(dir))
    {
        session.join("quintet")
    } else {
        env::temp_dir().join(format!("quintet-{}", uid.as_raw()))
    };
    base.join(name_of(&dir))
}

/// Where what outlives the instance of the project in `dir` is kept, when the configuration names no place.
///
/// `$STATE_DIRECTORY` where systemd made one for this service, `/var/lib/quintet/NAME` for root, otherwise
/// `quintet/NAME` below `$XDG_STATE_HOME` or `~/.local/state`; NAME as in [`runtime_dir`]. `None`: there is no such place.
pub fn state_dir(dir: &Path) -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // Several may be given, with colons between.
    let own = env::var("STATE_DIRECTORY").ok();
    if let Some(own) = own.as_deref().and_then(|own| own.split(':').next()).map(PathBuf::from)
        && own.is_absolute()
    {
        return Some(own);
    }
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let base = if rustix::process::geteuid().is_root() && is_usable(Path::new("/var/lib")) {
        PathBuf::from("/var/lib")
    } else {
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?
    };
    Some(base.join("quintet").join(name_of(&dir)))
}

/// A container may have a read-only `/run`; `su` and cron leave the name of a session's directory that is gone.
fn is_usable(dir: &Path) -> bool {
    dir.is_dir() && rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
}

fn name_of(dir: &Path) -> String {
    /// Enough to recognise the project in `ls /run/quintet`.
    const LETTERS_MAX: usize = 16;
    let readable: String = dir
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(LETTERS_MAX)
        .collect();
    // FNV-1a: the same in every version and on every machine, which the standard library's hasher is not.
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(dir.as_os_str().as_encoded_bytes());
    format!("{readable}-{:08x}", (hash.finish() >> 32) as u32)
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_are_told_apart() {
        let names = ["/srv/shop", "/srv/a/shop", "/srv/blog"].map(|dir| name_of(Path::new(dir)));
        assert!(names[0].starts_with("shop-"), "{names:?}");
        assert_ne!(names[0], names[1]);
        assert_ne!(names[0], names[2]);
        assert_eq!(names[0], name_of(Path::new("/srv/shop")));
    }

    #[test]
    fn names_are_short_and_plain() {
        let name = name_of(Path::new("/srv/Ein sehr langer Name mit Ümläuten und 'Zeichen'"));
        assert!(name.len() <= 25, "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{name}");
    }
}
