//! How busy the CPU is: that of the container where one limits us, else of the cores that we may run on. Linux only; elsewhere it
//! is not known, and scaling goes by the queue alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cgroup;

/// Over shorter times than this the kernel's ticks (10 ms) would be seen instead of the load.
const WINDOW: Duration = Duration::from_millis(500);

/// Counters at a moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    /// CPU time that the container has used, and what it may use in a second, in cores.
    container: Option<(Duration, f64)>,
    /// Ticks of our cores: busy ones, and all.
    machine: Option<(u64, u64)>,
}

/// The meter.
#[derive(Debug, Default)]
pub(super) struct Cpu {
    last: Option<Sample>,
}

impl Cpu {
    /// The share in use since the last look, 0 to 1, when that is long enough ago.
    pub(super) fn look(&mut self, now: Instant) -> Option<f32> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last.at) < WINDOW) {
            return None;
        }
        let sample =
            Sample { at: now, container: container(Path::new("/")), machine: machine(Path::new("/")) };
        let last = self.last.replace(sample)?;
        share(&last, &sample)
    }
}

/// The fuller of both: a container may be within its quota on a machine that has nothing left to give.
fn share(from: &Sample, to: &Sample) -> Option<f32> {
    let seconds = to.at.saturating_duration_since(from.at).as_secs_f64();
    let container = from
        .container
        .zip(to.container)
        .map(|((before, _), (after, cores))| after.saturating_sub(before).as_secs_f64() / (seconds * cores));
    let machine = from.machine.zip(to.machine).and_then(|((busy_before, all_before), (busy, all))| {
        let all = all.checked_sub(all_before).filter(|all| *all > 0)?;
        Some(busy.saturating_sub(busy_before) as f64 / all as f64)
    });
    let found = match (container, machine) {
        (Some(container), Some(machine)) => container.max(machine),
        (container, machine) => container.or(machine)?,
    };
    Some(found.clamp(0.0, 1.0) as f32)
}

/// The tightest quota of our group (cgroup v2) and those above, with the time that this group has used.
fn container(root: &Path) -> Option<(Duration, f64)> {
    let limited =
        cgroup::groups(root, "").into_iter().filter_map(|dir| Some((used(&dir)?, cgroup::quota(&dir)?)));
    limited.min_by(|(_, one), (_, other)| one.total_cmp(other))
}

fn used(group: &Path) -> Option<Duration> {
    let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
    let usec = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok())?;
    Some(Duration::from_micros(usec))
}

/// proc_stat(5): `cpuN user nice system idle iowait irq softirq steal guest guest_nice`, in ticks; guests are in `user` already.
fn machine(root: &Path) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(root.join("proc/stat")).ok()?;
    let ours = our_cores();
    let (mut busy, mut all) = (0, 0);
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        let Some(core) = name.strip_prefix("cpu").and_then(|core| core.parse().ok()) else { continue };
        if !is_ours(&ours, core) {
            continue;
        }
        let ticks: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
        let [_, _, _, idle, iowait, ..] = ticks[..] else { continue };
        let total: u64 = ticks.iter().sum();
        all += total;
        busy += total - idle - iowait;
    }
    (all > 0).then_some((busy, all))
}

#[cfg(target_os = "linux")]
type Cores = Option<rustix::thread::CpuSet>;

/// Where we may run; unknown: everywhere.
#[cfg(target_os = "linux")]
fn our_cores() -> Cores {
    rustix::thread::sched_getaffinity(None).ok()
}

#[cfg(target_os = "linux")]
fn is_ours(cores: &Cores, core: usize) -> bool {
    core < rustix::thread::CpuSet::MAX_CPU && cores.as_ref().is_none_or(|set| set.is_set(core))
}

#[cfg(not(target_os = "linux"))]
fn our_cores() {}

#[cfg(not(target_os = "linux"))]
fn is_ours(_: &(), _: usize) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_tightest_group_counts() {
        let root = root(&[
            ("proc/self/cgroup", "0::/system.slice/shop.service\n"),
            ("sys/fs/cgroup/system.slice/shop.service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/system.slice/shop.service/cpu.stat", "usage_usec 7\n"),
            ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/system.slice/cpu.stat", "usage_usec 1500000\nuser_usec 1\n"),
        ]);
        assert_eq!(container(root.path()), Some((Duration::from_millis(1_500), 1.5)));
        assert_eq!(container(Path::new("/nowhere")), None);
    }

    #[test]
    fn waiting_for_a_disk_is_not_busy() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 10 0 5 70 10 1 2 2 99 0\nintr 1\n";
        let found = machine(root(&[("proc/stat", stat)]).path());
        if is_ours(&our_cores(), 0) {
            assert_eq!(found, Some((20, 100)));
        }
        assert_eq!(machine(root(&[("proc/stat", "cpu0 1 2\ncpux\n")]).path()), None);
    }

    #[test]
    fn the_fuller_of_container_and_machine() {
        let at = Instant::now();
        let from = Sample { at, container: Some((Duration::ZERO, 0.5)), machine: Some((0, 0)) };
        let later = at + Duration::from_secs(2);
        let to = Sample {
            at: later,
            container: Some((Duration::from_millis(900), 0.5)),
            machine: Some((30, 100)),
        };
        assert!((share(&from, &to).unwrap() - 0.9).abs() < 1e-6);
        assert!((share(&Sample { container: None, ..from }, &to).unwrap() - 0.3).abs() < 1e-6);
        assert_eq!(share(&Sample { container: None, machine: None, ..from }, &to), None);
        // Counters that went back: another container, perhaps.
        assert_eq!(share(&to, &Sample { at: later + Duration::from_secs(1), ..from }), Some(0.0));
    }

    #[test]
    fn this_machine_tells() {
        let mut cpu = Cpu::default();
        let now = Instant::now();
        assert_eq!(cpu.look(now), None, "one look is none");
        assert_eq!(cpu.look(now + WINDOW / 2), None, "too early");
        assert!(cpu.look(now + WINDOW).is_none_or(|share| (0.0..=1.0).contains(&share)));
    }
}
