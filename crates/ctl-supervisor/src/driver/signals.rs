//! Signals as readable descriptors, a pipe a signal: nothing of ours runs inside a handler.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, tcgetattr};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGTTIN, SIGTTOU};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    Stop,
    Reload,
    /// A worker more.
    More,
    /// A worker fewer.
    Fewer,
    /// A child has ended.
    Reap,
}

/// One signal's pipe.
#[derive(Debug)]
pub(crate) struct SignalPipe {
    read: UnixStream,
    asks: Asks,
    id: signal_hook::SigId,
}

impl SignalPipe {
    fn register(signal: i32, asks: Asks) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        let id = signal_hook::low_level::pipe::register(signal, write)?;
        Ok(Self { read, asks, id })
    }

    /// What the signal asks for, if it came. Those that came while nobody looked are one, as the kernel's own are; but two
    /// workers more are two: there the next look finds the next.
    pub(crate) fn take(&mut self) -> Option<Asks> {
        let mut bytes = [0; 64];
        if matches!(self.asks, Asks::More | Asks::Fewer) {
            return matches!(self.read.read(&mut bytes[..1]), Ok(1)).then_some(self.asks);
        }
        let mut came = false;
        while let Ok(1..) = self.read.read(&mut bytes) {
            came = true;
        }
        came.then_some(self.asks)
    }
}

impl AsFd for SignalPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl Drop for SignalPipe {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.id);
    }
}

/// Until one of them has come, or the time is over.
pub(crate) fn wait_for_signals(signals: &[SignalPipe], patience: Duration) {
    let mut fds: Vec<PollFd<'_>> = signals.iter().map(|signal| PollFd::new(signal, PollFlags::IN)).collect();
    let patience = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
    // Interrupted, or out of memory: the caller looks at the signals and comes again.
    let _ = poll(&mut fds, Some(&patience));
}

/// The signals of an operator, and of children. On a terminal with `tostop` the kernel itself sends SIGTTOU to a background job that
/// writes, and has the write tried again for ever when the signal is handled: there it keeps its meaning, and stops the job.
pub(super) fn register() -> io::Result<Vec<SignalPipe>> {
    // Two pipes for stop, so that SIGTERM and SIGINT together still are two: the second says that it is urgent.
    let wanted = [
        (SIGTERM, Asks::Stop),
        (SIGINT, Asks::Stop),
        (SIGHUP, Asks::Reload),
        (SIGTTIN, Asks::More),
        (SIGTTOU, Asks::Fewer),
        (SIGCHLD, Asks::Reap),
    ];
    let terminal_stops = stops_writers(&io::stdout()) || stops_writers(&io::stderr());
    wanted
        .into_iter()
        .filter(|(signal, _)| *signal != SIGTTOU || !terminal_stops)
        .map(|(signal, asks)| SignalPipe::register(signal, asks))
        .collect()
}

/// Is this a terminal with `stty tostop`?
fn stops_writers(stream: &impl AsFd) -> bool {
    tcgetattr(stream).is_ok_and(|terminal| terminal.local_modes.contains(LocalModes::TOSTOP))
}
