//! What of an instance goes over to its heir: descriptors to inherit, names to give away, to take, and to take back.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use ctl_admin::place::CONTROL_SOCKET;

use crate::inherit;
use crate::listen::{self, Reach};
use crate::plan::Problem;
use crate::upgrade::{Heritage, Origin, Socket};

use super::{House, PRIVATE_BACKLOG};

impl House {
    /// For the one who comes after us: what it inherits, but for the socket to us; and the open descriptors.
    pub(crate) fn heritage(&self, parent_stays: bool) -> (Heritage, Vec<Arc<OwnedFd>>) {
        let bound = || self.listeners.iter().chain([&self.admin]);
        let sockets =
            bound().map(|bound| Socket { fd: inherit::number(&bound.fd), name: bound.name.clone() });
        let lock = self.runtime_dir.lock();
        let heritage = Heritage {
            elder: -1,
            lock: inherit::number(lock),
            made_dir: self.runtime_dir.was_made(),
            runtime_dir: self.runtime_dir.path().to_path_buf(),
            ordinal: self.ordinal + 1,
            sockets: sockets.collect(),
            staff: Vec::new(),
            drained: Vec::new(),
            parent_stays,
        };
        (heritage, bound().map(|bound| Arc::clone(&bound.fd)).chain([Arc::clone(lock)]).collect())
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Orphans of our children become our own.
    pub(crate) fn adopts(&self) -> bool {
        self.adopts
    }

    pub(crate) fn parent_stays(&self) -> bool {
        self.parent_stays
    }

    pub(crate) fn runtime_dir(&self) -> &Path {
        self.runtime_dir.path()
    }

    /// The elder's names become ours: `control.sock`, the lock, and of the listeners those whose names are returned.
    pub(crate) fn take_over(&mut self) -> io::Result<Vec<String>> {
        self.control_file.rename(&self.runtime_dir.join(CONTROL_SOCKET))?;
        self.runtime_dir.own()?;
        self.waits = false;
        let kept = self.listeners.iter_mut().chain([&mut self.admin]).filter_map(|bound| {
            let named = bound.own();
            named.then(|| bound.name.clone())
        });
        Ok(kept.collect())
    }

    /// An heir has our names, and owns these listeners.
    pub(crate) fn release(&mut self, kept: &[String]) {
        self.runtime_dir.release();
        self.control_file.release();
        for bound in self.listeners.iter_mut().chain([&mut self.admin]) {
            if kept.contains(&bound.name) {
                bound.release();
            }
        }
    }

    /// An heir has ended after it was told to take the names: `control.sock` again, if it had come so far.
    pub(crate) fn reclaim(&mut self) -> Result<Option<UnixListener>, Problem> {
        let owned = self.runtime_dir.own();
        owned.map_err(|error| Problem::new("the lock file cannot be written").detail(error.to_string()))?;
        if self.control_file.is_there() {
            return Ok(None);
        }
        let path = self.runtime_dir.join(CONTROL_SOCKET);
        let (control, file) = listen::bind_unix(&path, PRIVATE_BACKLOG, Reach::Ourselves)?;
        self.control_file = file;
        Ok(Some(UnixListener::from(control)))
    }
}
