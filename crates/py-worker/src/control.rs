//! The control socket: JSON lines to the supervisor, and its words to stop and to log stacks.
//!
//! Its end of file means that the supervisor is gone: the process then leaves at once, from a thread that needs neither
//! the GIL nor anything else of Python, so that no worker outlives its parent even when its app is stuck.
#![allow(unsafe_code)]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Exit status of a worker that lost its supervisor; nobody is left to read it but a trace.
const EXIT_ORPHANED: i32 = 70;

/// Longer lines are no message of ours.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Takes over the inherited descriptor and keeps it from processes that the app starts.
pub(crate) fn open(number: i32) -> io::Result<UnixStream> {
    if number <= 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a descriptor of the supervisor"));
    }
    // SAFETY: borrowed for one call that only asks whether this number is an open descriptor.
    let seen = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(seen, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open (just asked), was inherited for this process by the supervisor's word, and nothing else here
    // knows its number: `quintet.worker` takes the variable out of the environment.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(UnixStream::from(socket))
}

/// What the supervisor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Finish and go.
    Exit,
    /// Log what all threads do: this request is beyond its limit.
    DumpStacks { request_id: String },
}

/// `None`: not for us, or of another version.
fn understood(line: &str) -> Option<Told> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    match message.get("type")?.as_str()? {
        "exit" => Some(Told::Exit),
        "dump_stacks" => {
            let request_id = message.get("request_id")?.as_str()?.to_owned();
            Some(Told::DumpStacks { request_id })
        }
        _ => None,
    }
}

/// Starts the thread that listens; `hear` is called with what the supervisor says.
pub(crate) fn watch(socket: Arc<UnixStream>, hear: impl Fn(Told) + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("quintet-control".to_owned()).spawn(move || {
        let mut reader = BufReader::new(&*socket);
        let mut line = String::new();
        loop {
            line.clear();
            match io::Read::take(&mut reader, LINE_BYTES_MAX).read_line(&mut line) {
                Ok(count) if count > 0 => {
                    if let Some(told) = understood(&line) {
                        hear(told);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => leave(EXIT_ORPHANED),
            }
        }
    })?;
    Ok(())
}

/// Ends the process here and now: no exit handlers, no waiting for Python.
pub(crate) fn leave(status: i32) -> ! {
    // SAFETY: has no precondition and does not return.
    unsafe { libc::_exit(status) }
}

/// Sends one line.
pub(crate) fn tell(mut socket: &UnixStream, line: &str) -> io::Result<()> {
    let mut line = line.to_owned();
    line.push('\n');
    match socket.write_all(line.as_bytes()) {
        // Nobody hears it any more: the end of file on the same socket ends this process, without a complaint.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        said => said,
    }
}

/// The number of a socket, for a forked child to let it go.
pub(crate) fn number(socket: &UnixStream) -> i32 {
    socket.as_raw_fd()
}
