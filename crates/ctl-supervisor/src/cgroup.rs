//! The control groups that this process is in: where their files lie, and the quota of CPU that one of them sets. Linux only:
//! elsewhere there is none.
//!
//! Used by the CPU meter of the driver, and by the command for the size of an instance.

use std::fs;
use std::path::{Path, PathBuf};

/// The directories of our group and of all above it, innermost first: a limit of each counts for us, too. `controller` is one of
/// version 1, or empty for version 2; `root` is `/` but for tests.
///
/// Inside a container the path may be the host's, which is not mounted here; the root of the mount then is our own group.
pub fn groups(root: &Path, controller: &str) -> Vec<PathBuf> {
    let all = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    // cgroups(7): hierarchy-ID:controller-list:cgroup-path, the list being empty for version 2.
    let path = all.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let Some(path) = path else { return Vec::new() };
    let mount = root.join("sys/fs/cgroup").join(controller);
    let own = mount.join(path.trim_start_matches('/'));
    own.ancestors().take_while(|dir| dir.starts_with(&mount)).map(Path::to_path_buf).collect()
}

/// The quota of a group of version 2, in cores; `None`: it has none.
pub fn quota(group: &Path) -> Option<f64> {
    // cpu.max: "$MAX $PERIOD", where $MAX may be "max".
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    cores(quota.parse().ok()?, period.parse().ok()?)
}

/// So much CPU time in each period.
pub fn cores(quota: u64, period: u64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}
