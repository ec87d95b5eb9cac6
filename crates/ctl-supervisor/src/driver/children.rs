//! The child processes: started with the descriptors they need and no others, signalled, waited for.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::event::Exit;
use crate::inherit::{self, Identity};
use crate::peer::Peer;
use crate::proc;

/// Where a child finds its control socket.
const CONTROL_FD: &str = "QUINTET_CONTROL_FD";

/// Ours alone; a child that believed them would think that systemd speaks to it.
const NOT_INHERITED: [&str; 7] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    crate::upgrade::ENV,
];

/// A program to run.
pub(crate) struct Program<'a> {
    pub(crate) command: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    /// A variable of our own that is not passed on.
    pub(crate) without: Option<&'static str>,
    pub(crate) dir: Option<&'a std::path::Path>,
    /// Kept open under their present numbers.
    pub(crate) fds: Vec<Arc<OwnedFd>>,
    pub(crate) identity: Option<Identity>,
    pub(crate) arg0: Option<String>,
}

/// A running child. It is not reaped on drop: [`reap`] does that.
#[derive(Debug)]
pub(super) struct Child {
    /// `None` while a template has been told to fork it.
    pub(super) pid: Option<Pid>,
    pub(super) peer: Peer,
}

impl Child {
    /// Starts it in a process group of its own, so that Ctrl-C in the terminal reaches the supervisor alone.
    pub(super) fn start(program: Program<'_>) -> io::Result<Self> {
        let (first, args) = program.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = Arc::new(OwnedFd::from(theirs));
        let mut command = Command::new(first);
        command.args(args).envs(program.env).stdin(Stdio::null()).process_group(0);
        for name in NOT_INHERITED.into_iter().chain(program.without) {
            command.env_remove(name);
        }
        command.env(CONTROL_FD, inherit::number(&theirs).to_string());
        if let Some(dir) = program.dir {
            command.current_dir(dir);
        }
        if let Some(arg0) = program.arg0 {
            command.arg0(arg0);
        }
        let mut fds = program.fds;
        fds.push(theirs);
        inherit::pass_on(&mut command, fds, program.identity);
        let peer = Peer::new(ours)?;
        let child = command.spawn()?;
        let pid = pid_of(child.id()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid: Some(pid), peer })
    }

    /// One that is to be forked, with the other end of its control socket.
    pub(super) fn unborn() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self { pid: None, peer: Peer::new(ours)? }, OwnedFd::from(theirs)))
    }

    /// For words; 0 while there is none.
    pub(super) fn number(&self) -> u32 {
        self.pid.map_or(0, number)
    }

    /// It has not been reaped, so the number is still its own. With its group: what it started dies with it.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(pid) = self.pid else { return };
        let sent = rustix::process::kill_process(pid, signal);
        if signal == Signal::KILL {
            // Its helpers have had their chance at SIGTERM.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
        if let Err(error) = sent {
            tracing::debug!(%error, pid = number(pid), "a signal was not sent");
        }
    }
}

/// The process of this number.
pub(crate) fn pid_of(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

pub(super) fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// The next child that has ended, our own or one that we have adopted (we are the subreaper, or process 1).
pub(crate) fn reap() -> Option<(Pid, Exit)> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => return Some((pid, exit_of(status))),
            Err(rustix::io::Errno::INTR) => {}
            // None that has ended, or none at all (ECHILD).
            Ok(None) | Err(_) => return None,
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        // Stops and continues are not asked for.
        (None, None) => Exit::Code(0),
    }
}

/// Kills whatever is still there at the end: helpers of the app that have outlived their worker and were adopted.
/// Spares the children for whom `spares` says so, and returns who has ended by itself meanwhile.
pub(crate) fn kill_the_rest(spares: impl Fn(u32) -> bool) -> Vec<(Pid, Exit)> {
    /// A killed process hands its own children to us, so there may be more than one turn.
    const TURNS_MAX: u32 = 16;
    let mut ended: Vec<(Pid, Exit)> = std::iter::from_fn(reap).collect();
    for _ in 0..TURNS_MAX {
        let mut rest = proc::children_of(std::process::id());
        rest.retain(|pid| !spares(*pid));
        if rest.is_empty() {
            break;
        }
        for pid in rest.into_iter().filter_map(pid_of) {
            // Our own unreaped child: the number cannot have passed to somebody else.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        ended.extend(std::iter::from_fn(reap));
    }
    ended
}
