//! The project's files, as `quintet dev` watches them: told by the kernel (inotify), so that nothing turns round while
//! nobody types.
//!
//! Watched are directories, since editors write a file anew under its name. A save is several events, a change of branch
//! hundreds: a change is told when it has been quiet for a moment, or after a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ctl_admin::words::FromWorker;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// Editors and formatters write twice within a few milliseconds.
const QUIET: Duration = Duration::from_millis(30);

/// A change is told after this at the latest, however long files go on changing.
const DELAY_MAX: Duration = Duration::from_millis(80);

/// A directory takes about a kilobyte in the kernel; a project with more of them has something in it that is no code.
const DIRECTORIES_MAX: usize = 20_000;

/// Directories that hold no code of the project, or code that does not change, unless they are Python packages: an app
/// may be called `media`.
const IGNORED: [&str; 13] = [
    "__pycache__",
    "node_modules",
    "site-packages",
    "dist-packages",
    "venv",
    "env",
    "virtualenv",
    "media",
    "staticfiles",
    "htmlcov",
    "build",
    "dist",
    "bower_components",
];

/// Files besides Python's that decide what runs.
const NAMES: [&str; 3] = ["quintet.toml", "pyproject.toml", ".env"];

/// Watches until it is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    inotify: OwnedFd,
    directories: BTreeMap<i32, PathBuf>,
    known: BTreeSet<PathBuf>,
    /// When the first and the last of what was not told yet has changed, and one of the files.
    changed: Option<(Instant, Instant, PathBuf)>,
    /// Said once.
    complained: bool,
}

impl Watcher {
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut watcher = Self {
            inotify,
            directories: BTreeMap::new(),
            known: BTreeSet::new(),
            changed: None,
            complained: false,
        };
        watcher.add(root)?;
        Ok(watcher)
    }

    /// Watches `directory` and what is below it, if it does not yet.
    pub(crate) fn add(&mut self, directory: &Path) -> io::Result<()> {
        let mut waiting = vec![directory.to_path_buf()];
        while let Some(directory) = waiting.pop() {
            if self.known.contains(&directory) {
                continue;
            }
            if self.known.len() >= DIRECTORIES_MAX {
                self.complain(&format!(
                    "more than {DIRECTORIES_MAX} directories; the others are not watched"
                ));
                return Ok(());
            }
            let what = WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(&self.inotify, &directory, what) {
                Ok(number) => {
                    self.directories.insert(number, directory.clone());
                    self.known.insert(directory.clone());
                }
                Err(rustix::io::Errno::NOSPC) => {
                    self.complain("the system lets us watch no more (fs.inotify.max_user_watches)");
                    return Ok(());
                }
                // It has gone meanwhile, or is not ours to read.
                Err(_) if !self.directories.is_empty() => continue,
                Err(error) => return Err(error.into()),
            }
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                // A symbolic link may lead in a circle, or out of the project: it is not followed.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_of_interest(&entry.path()) {
                    waiting.push(entry.path());
                }
            }
        }
        Ok(())
    }

    /// A worker says what else it has imported.
    pub(crate) fn heed(&mut self, said: &FromWorker) {
        if let FromWorker::Ready { app } = said {
            for directory in &app.watch {
                // What cannot be watched is not noticed; the project's own code is.
                let _ = self.add(directory);
            }
        }
    }

    fn complain(&mut self, text: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(
                hint = "`quintet reload` restarts by hand",
                "not all changes will be noticed: {text}"
            );
        }
    }

    /// Takes in what the kernel has to tell.
    pub(crate) fn read(&mut self, now: Instant) {
        let mut new = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.inotify.as_fd(), &mut buffer);
        // Ends with "would block"; every other failure would come again at the next one.
        while let Ok(event) = reader.next() {
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                note(&mut self.changed, PathBuf::from("many files"), now);
                continue;
            }
            if flags.contains(ReadFlags::IGNORED) {
                if let Some(gone) = self.directories.remove(&event.wd()) {
                    self.known.remove(&gone);
                }
                continue;
            }
            let Some(directory) = self.directories.get(&event.wd()) else { continue };
            let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
            let path = directory.join(name);
            if flags.contains(ReadFlags::ISDIR) {
                if is_of_interest(&path) && flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    new.push(path);
                }
            // A file that was only created is written to before it means anything.
            } else if is_code(name) && !flags.contains(ReadFlags::CREATE) {
                note(&mut self.changed, path, now);
            }
        }
        for directory in new {
            // Files may be in it already, of which nobody will be told.
            if self.add(&directory).is_ok() && holds_code(&directory) {
                note(&mut self.changed, directory, now);
            }
        }
    }

    /// When [`Self::take`] will have something to tell.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.changed.as_ref().map(|(first, last, _)| (*last + QUIET).min(*first + DELAY_MAX))
    }

    /// One of the files that have changed, when it is time.
    pub(crate) fn take(&mut self, now: Instant) -> Option<PathBuf> {
        self.deadline().filter(|deadline| *deadline <= now)?;
        self.changed.take().map(|(.., path)| path)
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn note(changed: &mut Option<(Instant, Instant, PathBuf)>, path: PathBuf, now: Instant) {
    match changed {
        Some((_, last, _)) => *last = now,
        None => *changed = Some((now, now, path)),
    }
}

fn is_of_interest(directory: &Path) -> bool {
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let holds = |file: &str| directory.join(file).exists();
    // An environment by any name.
    !name.starts_with('.') && (!IGNORED.contains(&name) || holds("__init__.py")) && !holds("pyvenv.cfg")
}

fn is_code(name: &str) -> bool {
    NAMES.contains(&name)
        || (!name.starts_with('.') && Path::new(name).extension().is_some_and(|ending| ending == "py"))
}

fn holds_code(directory: &Path) -> bool {
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.any(|entry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        entry.file_name().to_str().is_some_and(is_code)
            || (is_dir && is_of_interest(&entry.path()) && holds_code(&entry.path()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }

    /// What is told of what was done so far, a while later.
    fn told(watcher: &mut Watcher) -> Option<PathBuf> {
        let now = Instant::now();
        watcher.read(now);
        watcher.take(now + DELAY_MAX)
    }

    #[test]
    fn code_is_told_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "shop/views.py",
            "media/__init__.py",
            "venv/pyvenv.cfg",
            "conda/pyvenv.cfg",
            "node_modules/a/x.py",
            ".git/x.py",
        ] {
            write(root.path(), name);
        }
        let mut watcher = Watcher::new(root.path()).unwrap();
        assert_eq!(told(&mut watcher), None);
        for name in
            ["shop/style.css", "shop/.views.py.swp", "shop/.#views.py", "conda/x.py", "node_modules/a/y.py"]
        {
            write(root.path(), name);
            assert_eq!(told(&mut watcher), None, "{name}");
        }
        for name in [
            "shop/views.py",
            "media/views.py",
            "quintet.toml",
            ".env",
            "new/deep/app/models.py",
            "shop/__init__.py",
        ] {
            write(root.path(), name);
            assert!(told(&mut watcher).is_some(), "{name}");
        }
        write(root.path(), "new/deep/app/urls.py");
        assert_eq!(told(&mut watcher), Some(root.path().join("new/deep/app/urls.py")));
    }

    #[test]
    fn renames_and_removals_count() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "views.py.tmp");
        let mut watcher = Watcher::new(root.path()).unwrap();
        fs::rename(root.path().join("views.py.tmp"), root.path().join("views.py")).unwrap();
        assert_eq!(told(&mut watcher), Some(root.path().join("views.py")));
        fs::remove_file(root.path().join("views.py")).unwrap();
        assert_eq!(told(&mut watcher), Some(root.path().join("views.py")));
    }

    #[test]
    fn many_changes_are_one_and_none_waits_for_ever() {
        let root = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new(root.path()).unwrap();
        let began = Instant::now();
        for at in 0..20_u32 {
            write(root.path(), "views.py");
            let now = began + Duration::from_millis(10) * at;
            watcher.read(now);
            if let Some(path) = watcher.take(now) {
                assert_eq!((path, at), (root.path().join("views.py"), 8));
                return;
            }
        }
        panic!("it was never told");
    }
}
