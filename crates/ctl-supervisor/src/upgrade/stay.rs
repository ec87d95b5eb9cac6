//! The elder that has handed everything over and stays, because somebody waits for its process id: a shell, a container
//! (process 1), a process manager that cannot be told of another id. It hands signals on, and ends as the heir ends.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::driver::{Asks, SignalPipe, kill_the_rest, reap, wait_for_signals};
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
                kill_the_rest(&BTreeSet::new());
                return code(exit);
            };
            tracing::debug!(pid = next.as_raw_nonzero().get(), "the next heir is followed");
            followed = next;
        }
        wait_for_signals(&signals, SLEEP_MAX);
        for signal in &mut signals {
            match signal.take() {
                Some(Asks::Stop) => hand_on(followed, Signal::TERM),
                Some(Asks::Reload) => hand_on(followed, Signal::HUP),
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

/// It has not been reaped yet, so the number is still its own.
fn hand_on(heir: Pid, signal: Signal) {
    if let Err(error) = rustix::process::kill_process(heir, signal) {
        tracing::debug!(%error, "a signal was not handed on");
    }
}

/// The instance that has the lock now, when the one that has ended was upgraded in its turn: it is our child by then, as
/// every orphan of ours.
fn successor(dir: &Path, ended: Pid) -> Option<Pid> {
    let pid = runtime_dir::owner(dir)?;
    let next = Pid::from_raw(i32::try_from(pid).ok()?)?;
    (next != ended && proc::children_of(std::process::id()).contains(&pid)).then_some(next)
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
