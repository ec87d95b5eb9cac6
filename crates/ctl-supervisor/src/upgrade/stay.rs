//! The elder that has handed everything over and stays, because somebody waits for its process id: a shell, a container
//! (process 1), a process manager that cannot be told of another id. It hands signals on, and ends as the heir ends.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::driver::{Asks, SignalPipe, kill_the_rest, pid_of, reap, wait_for_signals};
use crate::event::Exit;
use crate::{proc, runtime_dir};

/// Longest sleep: a lost signal costs this much.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Must this process stay when it has an heir? systemd can be told of the heir's id; an heir need not stay itself when
/// the first elder does, which adopts its children.
pub(crate) fn is_needed(manager_is_told: bool, parent_stays: bool) -> bool {
    std::process::id() == 1 || !(manager_is_told || parent_stays)
}

/// Until the heir has ended, and the heir's heir; the exit code.
pub(crate) fn stay(heir: Pid, ended: Option<Exit>, dir: &Path, mut signals: Vec<SignalPipe>) -> u8 {
    let mut followed = heir;
    let mut ended = ended;
    loop {
        if let Some(exit) = ended.take() {
            let Some(next) = successor(dir, followed) else {
                kill_the_rest(|_| false);
                return code(exit);
            };
            tracing::debug!(pid = next.as_raw_nonzero().get(), "the next heir is followed");
            followed = next;
        }
        wait_for_signals(&signals, SLEEP_MAX);
        for signal in &mut signals {
            match signal.take() {
                Some(Asks::Stop) => hand_on(dir, Some(followed), Signal::TERM),
                Some(Asks::Reload) => hand_on(dir, Some(followed), Signal::HUP),
                Some(Asks::More) => hand_on(dir, Some(followed), Signal::TTIN),
                Some(Asks::Fewer) => hand_on(dir, Some(followed), Signal::TTOU),
                Some(Asks::Reap) | None => {}
            }
        }
        while let Some((pid, exit)) = reap() {
            if pid == followed {
                ended = Some(exit);
            }
        }
    }
}

/// To the instance that has the lock: the heir, or the last of its heirs. The heir itself may be about to end and hear
/// nothing any more.
pub(crate) fn hand_on(dir: &Path, heir: Option<Pid>, signal: Signal) {
    let own = std::process::id();
    let line = line_of_the_owner(dir);
    // Below us, so none but our own. Where the system does not tell: the heir, unless it has been reaped.
    let owner = line.first().filter(|owner| **owner != own && line.contains(&own));
    let owner = owner.and_then(|owner| pid_of(*owner));
    let Some(pid) = owner.or(heir) else { return };
    if let Err(error) = rustix::process::kill_process(pid, signal) {
        tracing::debug!(%error, "a signal was not handed on");
    }
}

/// Whom to follow when one that was upgraded in its turn has ended: the instance that has the lock now, which is our child
/// as every orphan of ours; or our child that it descends from, when several upgrades finish their requests at once.
fn successor(dir: &Path, ended: Pid) -> Option<Pid> {
    let own = std::process::id();
    let child = line_of_the_owner(dir).into_iter().find(|pid| proc::parent_of(*pid) == Some(own))?;
    pid_of(child).filter(|child| *child != ended)
}

/// The instance that has the lock, its parent, the parent of that, and so on. All who have handed over and are not done yet
/// are among them: each started the next.
pub(crate) fn line_of_the_owner(dir: &Path) -> Vec<u32> {
    /// More instances than this never finish their requests at the same time.
    const DEPTH_MAX: usize = 64;
    std::iter::successors(runtime_dir::owner(dir), |pid| proc::parent_of(*pid)).take(DEPTH_MAX).collect()
}

/// As a shell would say it.
fn code(exit: Exit) -> u8 {
    match exit {
        Exit::Code(code) => u8::try_from(code).unwrap_or(1),
        Exit::Signal(number) => u8::try_from(128 + number).unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_waited_for_stays() {
        assert!(is_needed(false, false));
        assert!(!is_needed(true, false));
        assert!(!is_needed(false, true));
    }

    #[test]
    fn it_ends_as_the_heir_did() {
        assert_eq!([code(Exit::Code(3)), code(Exit::Signal(9)), code(Exit::Code(0))], [3, 137, 0]);
    }
}
