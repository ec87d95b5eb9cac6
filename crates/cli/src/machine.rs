//! What this machine lets us use: affinity, cgroup quotas, memory. Linux only; elsewhere the standard library's word.

use std::fs;
use std::path::Path;

use ctl_supervisor::cgroup;

use crate::sizing::Machine;

/// Looks at the machine we run on.
pub(crate) fn look() -> Machine {
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    describe(&Cgroup::read(Path::new("/")), affinity().unwrap_or(allowed), memory_total(Path::new("/")))
}

/// Files that may be open at once, at most; the soft limit can be raised up to it.
pub(crate) fn descriptors_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum
}

/// Limits that control groups put on us; the tightest of our own group and all above it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cgroup {
    /// Cores.
    pub(crate) cores: Option<f64>,
    /// Bytes.
    pub(crate) memory: Option<u64>,
}

fn describe(cgroup: &Cgroup, affinity: usize, memory_total: Option<u64>) -> Machine {
    let affinity_cores = affinity as f64;
    let plural = if affinity == 1 { "core" } else { "cores" };
    let (cores, cores_text) = match cgroup.cores {
        Some(quota) if quota < affinity_cores => {
            (quota, format!("the container may use {quota} of {affinity} {plural}"))
        }
        _ => (affinity_cores, format!("{affinity} {plural}")),
    };
    let memory_limited = match (cgroup.memory, memory_total) {
        (Some(limit), Some(total)) => limit < total,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let memory = if memory_limited { cgroup.memory } else { memory_total };
    Machine { cores, cores_text, memory, memory_limited }
}

#[cfg(target_os = "linux")]
fn affinity() -> Option<usize> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    usize::try_from(set.count()).ok().filter(|count| *count > 0)
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> Option<usize> {
    None
}

fn memory_total(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

impl Cgroup {
    /// Reads version 2, or version 1 where that is mounted. `root` is `/` but for tests.
    pub(crate) fn read(root: &Path) -> Self {
        let mut limits = Self::default();
        limits.tighten(root, "", Self::level_v2);
        limits.tighten(root, "cpu", Self::cores_v1);
        limits.tighten(root, "memory", Self::memory_v1);
        limits
    }

    fn tighten(&mut self, root: &Path, controller: &str, read: fn(&Path) -> Self) {
        for level in cgroup::groups(root, controller).iter().map(|dir| read(dir)) {
            self.cores = least(self.cores, level.cores, f64::min);
            self.memory = least(self.memory, level.memory, u64::min);
        }
    }

    fn level_v2(dir: &Path) -> Self {
        Self { cores: cgroup::quota(dir), memory: number(&dir.join("memory.max")) }
    }

    fn cores_v1(dir: &Path) -> Self {
        // The quota is -1 when there is none, which does not parse as `u64`.
        let quota = number(&dir.join("cpu.cfs_quota_us"));
        let period = number(&dir.join("cpu.cfs_period_us"));
        Self {
            cores: quota.zip(period).and_then(|(quota, period)| cgroup::cores(quota, period)),
            memory: None,
        }
    }

    fn memory_v1(dir: &Path) -> Self {
        // "No limit" is a number near 2^63, rounded to pages.
        let memory = number(&dir.join("memory.limit_in_bytes")).filter(|bytes| *bytes < 1 << 62);
        Self { cores: None, memory }
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn least<T>(a: Option<T>, b: Option<T>, min: fn(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(min(a, b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root directory with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn version_2_takes_the_tightest_group_above() {
        let root = root(&[
            ("proc/self/cgroup", "0::/system.slice/shop.service\n"),
            ("sys/fs/cgroup/system.slice/shop.service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/system.slice/shop.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "536870912\n"),
        ]);
        assert_eq!(Cgroup::read(root.path()), Cgroup { cores: Some(1.5), memory: Some(512 << 20) });
    }

    #[test]
    fn version_2_inside_a_container_whose_path_is_the_hosts() {
        let root = root(&[
            ("proc/self/cgroup", "0::/kubepods/pod1/abc\n"),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/memory.max", "268435456\n"),
        ]);
        assert_eq!(Cgroup::read(root.path()), Cgroup { cores: Some(0.5), memory: Some(256 << 20) });
    }

    #[test]
    fn version_1() {
        let root = root(&[
            (
                "proc/self/cgroup",
                "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
            ),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n"),
        ]);
        assert_eq!(Cgroup::read(root.path()), Cgroup { cores: Some(2.0), memory: Some(1 << 30) });
    }

    #[test]
    fn no_limits() {
        let root = root(&[
            ("proc/self/cgroup", "3:cpu:/\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(Cgroup::read(root.path()), Cgroup::default());
        assert_eq!(Cgroup::read(Path::new("/nowhere")), Cgroup::default());
    }

    #[test]
    fn strange_files_are_no_limits() {
        let root = root(&[
            ("proc/self/cgroup", "0::/\ngarbage\n"),
            ("sys/fs/cgroup/cpu.max", "0 0\n"),
            ("sys/fs/cgroup/memory.max", "a lot\n"),
        ]);
        assert_eq!(Cgroup::read(root.path()), Cgroup::default());
    }

    #[test]
    fn a_quota_is_told() {
        let machine = describe(&Cgroup { cores: Some(0.5), memory: None }, 64, Some(1 << 30));
        assert_eq!(machine.cores_text, "the container may use 0.5 of 64 cores");
        assert!((machine.cores - 0.5).abs() < f64::EPSILON);
        assert!(!machine.memory_limited);
        // A quota above the cores we may run on is none.
        assert_eq!(describe(&Cgroup { cores: Some(8.0), memory: None }, 2, None).cores_text, "2 cores");
    }

    #[test]
    fn memory_of_the_machine() {
        let root = root(&[("proc/meminfo", "MemTotal:       24689764 kB\nMemFree: 1 kB\n")]);
        assert_eq!(memory_total(root.path()), Some(24_689_764 * 1024));
    }

    #[test]
    fn this_machine_has_something() {
        let machine = look();
        assert!(machine.cores > 0.0 && machine.memory != Some(0), "{machine:?}");
    }
}
