//! Which program an upgrade starts, and how: as this one was started.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::plan::Problem;

/// What Linux appends to the name of a program whose file was replaced.
const DELETED: &str = " (deleted)";

/// How this process was started. Looked at when it is, since later everything may have moved.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    program: Option<PathBuf>,
    args: Vec<OsString>,
    /// The working directory under the name that the shell had for it: behind a symbolic link that is set to the
    /// new release it is another one by the time of an upgrade.
    dir: Option<PathBuf>,
}

impl Origin {
    pub(crate) fn of_this_process() -> Self {
        let mut args = env::args_os();
        let here = env::current_dir().ok();
        let named = args.next().map(PathBuf::from).filter(|name| name.components().count() > 1);
        let named = named.and_then(|name| Some(here.as_deref()?.join(name))).filter(|name| name.exists());
        let dir = env::var_os("PWD")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute() && is_same(dir, Path::new(".")));
        Self { program: named.or_else(|| env::current_exe().ok()), args: args.collect(), dir: dir.or(here) }
    }

    /// The program to start: `asked`, or where this one was started from; and it must be one.
    pub(crate) fn program(&self, asked: Option<&Path>) -> Result<PathBuf, Problem> {
        let unknown = || {
            Problem::new("it is not known which program to start")
                .hint("name it: quintet upgrade --program /path/to/quintet")
        };
        let path = match asked {
            Some(path) => path.to_path_buf(),
            None => on_disk(self.program.as_deref().ok_or_else(unknown)?),
        };
        let problem = |detail: &str| {
            Problem::new(format!("{} cannot be started", path.display()))
                .detail(detail)
                .hint("install quintet there first, or name another one: quintet upgrade --program PATH")
        };
        if !path.is_absolute() {
            return Err(problem("the path is not absolute"));
        }
        match fs::metadata(&path) {
            Err(error) => Err(problem(&error.to_string())),
            Ok(file) if !file.is_file() || file.mode() & 0o111 == 0 => Err(problem("it is no program")),
            Ok(_) => Ok(path),
        }
    }

    pub(crate) fn args(&self) -> &[OsString] {
        &self.args
    }

    /// Where to start it; `None`: where we are.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.dir.as_deref().filter(|dir| dir.is_dir())
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(one).is_some_and(|found| Some(found) == identity(other))
}

/// The name of the running program as the system gives it, without its remark that another file has that name by now.
fn on_disk(path: &Path) -> PathBuf {
    let text = path.as_os_str().as_encoded_bytes();
    match text.strip_suffix(DELETED.as_bytes()).map(str::from_utf8) {
        Some(Ok(name)) if !path.exists() => PathBuf::from(name),
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_started_again() {
        let origin = Origin::of_this_process();
        assert!(is_same(&origin.program(None).unwrap(), Path::new("/proc/self/exe")));
        assert!(is_same(origin.dir().unwrap(), Path::new(".")));
    }

    #[test]
    fn a_program_that_was_replaced_is_found_under_its_name() {
        assert_eq!(on_disk(Path::new("/opt/quintet (deleted)")), Path::new("/opt/quintet"));
        assert_eq!(on_disk(Path::new("/opt/quintet")), Path::new("/opt/quintet"));
    }

    #[test]
    fn what_is_no_program_is_said() {
        let origin = Origin::of_this_process();
        let detail = |path: &str| origin.program(Some(Path::new(path))).unwrap_err().detail;
        assert!(detail("/nowhere/quintet").contains("No such file"));
        assert_eq!(detail(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")), "it is no program");
        assert_eq!(detail("/tmp"), "it is no program");
        assert_eq!(detail("quintet"), "the path is not absolute");
    }
}
