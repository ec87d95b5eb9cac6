//! What the command says to a running instance, and hears.
//!
//! Blocking and with timeouts: the command has nothing else to do meanwhile.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::lines::{LineError, LineReader, line};
use crate::place::CONTROL_SOCKET;
use crate::words::{BanRow, BansRequest, Change, Command, Reply, Status, UpstreamRequest};

/// The supervisor answers from memory; a machine that swaps may take a moment.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an instance did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No instance runs there.
    #[error("no instance is running at {}", socket.display())]
    NotRunning {
        /// The socket that nobody listens at.
        socket: PathBuf,
    },
    /// It belongs to another user.
    #[error("the instance at {} belongs to another user", socket.display())]
    NotAllowed {
        /// Its socket.
        socket: PathBuf,
    },
    /// No answer in time.
    #[error("no answer within {} s", waited.as_secs())]
    Timeout {
        /// How long it was waited for.
        waited: Duration,
    },
    /// It said that it could not.
    #[error("{text}")]
    Failed {
        /// See [`Reply::Failed`].
        text: String,
        /// See [`Reply::Failed`].
        app: bool,
    },
    /// It went away in the middle of the answer.
    #[error("the instance closed the connection before it had answered")]
    Closed,
    /// Another version, most likely.
    #[error("the instance's answer was not understood (another version of quintet?)")]
    NotUnderstood(#[source] LineError),
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The state of the instance with this runtime directory.
pub fn status(runtime_dir: &Path) -> Result<Status, ClientError> {
    for reply in ask(runtime_dir, &Command::Status, STATUS_TIMEOUT)? {
        match reply? {
            Reply::Status(status) => return Ok(*status),
            Reply::Failed { text, app } => return Err(ClientError::Failed { text, app }),
            Reply::Progress { .. } | Reply::Done { .. } | Reply::Bans { .. } => {}
        }
    }
    Err(ClientError::Closed)
}

/// New workers for old, of one module or of all. `progress` hears each step; the text that is returned tells the end.
pub fn reload(
    runtime_dir: &Path,
    module: Option<String>,
    timeout: Duration,
    progress: impl FnMut(&str),
) -> Result<String, ClientError> {
    to_the_end(ask(runtime_dir, &Command::Reload { module }, timeout)?, progress)
}

/// Drain and exit. As [`reload`].
pub fn stop(
    runtime_dir: &Path,
    timeout: Duration,
    progress: impl FnMut(&str),
) -> Result<String, ClientError> {
    to_the_end(ask(runtime_dir, &Command::Stop, timeout)?, progress)
}

/// The listeners to a newer program; `None`: the one that lies where the running one was started from. As [`reload`].
pub fn upgrade(
    runtime_dir: &Path,
    program: Option<PathBuf>,
    timeout: Duration,
    progress: impl FnMut(&str),
) -> Result<String, ClientError> {
    to_the_end(ask(runtime_dir, &Command::Upgrade { program }, timeout)?, progress)
}

/// More or fewer workers of a pool; `None`: the default one. The text that is returned tells what is now so.
pub fn scale(runtime_dir: &Path, pool: Option<String>, change: Change) -> Result<String, ClientError> {
    to_the_end(ask(runtime_dir, &Command::Scale { pool, change }, STATUS_TIMEOUT)?, |_| {})
}

/// Who is banned, and how many they are in all.
pub fn bans(runtime_dir: &Path) -> Result<(Vec<BanRow>, u64), ClientError> {
    for reply in ask(runtime_dir, &Command::Bans(BansRequest::List), STATUS_TIMEOUT)? {
        match reply? {
            Reply::Bans { bans, total } => return Ok((bans, total)),
            Reply::Failed { text, app } => return Err(ClientError::Failed { text, app }),
            Reply::Progress { .. } | Reply::Done { .. } | Reply::Status(_) => {}
        }
    }
    Err(ClientError::Closed)
}

/// Bans somebody, or ends his ban; the text that is returned says so.
pub fn change_bans(runtime_dir: &Path, request: BansRequest) -> Result<String, ClientError> {
    to_the_end(ask(runtime_dir, &Command::Bans(request), STATUS_TIMEOUT)?, |_| {})
}

/// Takes a server of an upstream out, or back; the text that is returned says what is now so.
pub fn change_upstream(runtime_dir: &Path, request: UpstreamRequest) -> Result<String, ClientError> {
    to_the_end(ask(runtime_dir, &Command::Upstream(request), STATUS_TIMEOUT)?, |_| {})
}

fn to_the_end(replies: Replies, mut progress: impl FnMut(&str)) -> Result<String, ClientError> {
    for reply in replies {
        match reply? {
            Reply::Progress { text } => progress(&text),
            Reply::Done { text } => return Ok(text),
            Reply::Failed { text, app } => return Err(ClientError::Failed { text, app }),
            Reply::Status(_) | Reply::Bans { .. } => {}
        }
    }
    Err(ClientError::Closed)
}

/// Sends one command; `timeout` is for the whole conversation.
pub fn ask(runtime_dir: &Path, command: &Command, timeout: Duration) -> Result<Replies, ClientError> {
    let socket = runtime_dir.join(CONTROL_SOCKET);
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match error.kind() {
                // Not there, or left behind by one that was killed.
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning { socket }
                }
                io::ErrorKind::PermissionDenied => ClientError::NotAllowed { socket },
                _ => error.into(),
            });
        }
    };
    stream.set_write_timeout(Some(STATUS_TIMEOUT))?;
    stream.write_all(&line(command).map_err(ClientError::NotUnderstood)?)?;
    Ok(Replies {
        stream,
        lines: LineReader::default(),
        deadline: Instant::now() + timeout,
        timeout,
        over: false,
    })
}

/// The replies to one command, as they come; ends when the instance closes the connection.
#[derive(Debug)]
pub struct Replies {
    stream: UnixStream,
    lines: LineReader,
    deadline: Instant,
    timeout: Duration,
    over: bool,
}

impl Replies {
    fn read(&mut self) -> Result<Option<Reply>, ClientError> {
        /// Replies are short; a traceback takes a few of these.
        const READ_BYTES: usize = 16 << 10;
        loop {
            if let Some(reply) = self.lines.next_message().map_err(ClientError::NotUnderstood)? {
                return Ok(Some(reply));
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Timeout { waited: self.timeout });
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; READ_BYTES];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(count) => self.lines.push(&bytes[..count]),
                Err(error) => match error.kind() {
                    // The loop looks at the clock.
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    // It went away with something of ours unread; what it said before has been read.
                    io::ErrorKind::ConnectionReset => return Ok(None),
                    _ => return Err(error.into()),
                },
            }
        }
    }
}

impl Iterator for Replies {
    type Item = Result<Reply, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.read().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// An instance that answers one command with these lines.
    fn instance(answer: &'static str) -> (tempfile::TempDir, JoinHandle<String>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(CONTROL_SOCKET)).unwrap();
        let answers = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut command = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut command).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            command
        });
        (dir, answers)
    }

    #[test]
    fn a_reload_is_followed_to_its_end() {
        let (dir, answers) = instance(
            "{\"reply\":\"progress\",\"text\":\"1 of 2\"}\n{\"reply\":\"progress\",\"text\":\"2 of 2\"}\n\
             {\"reply\":\"done\",\"text\":\"all new\"}\n",
        );
        let mut steps = Vec::new();
        let end =
            reload(dir.path(), None, Duration::from_secs(5), |step| steps.push(step.to_owned())).unwrap();
        assert_eq!((steps.join(", ").as_str(), end.as_str()), ("1 of 2, 2 of 2", "all new"));
        assert_eq!(answers.join().unwrap(), "{\"command\":\"reload\"}\n");
    }

    #[test]
    fn failures_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(status(dir.path()), Err(ClientError::NotRunning { .. })));
        drop(UnixListener::bind(dir.path().join(CONTROL_SOCKET)).unwrap());
        assert!(matches!(status(dir.path()), Err(ClientError::NotRunning { .. })), "a socket left behind");

        let (dir, _answers) = instance("{\"reply\":\"failed\",\"text\":\"SyntaxError\"}\n");
        let end = reload(dir.path(), None, Duration::from_secs(5), |_| {});
        assert!(matches!(end, Err(ClientError::Failed { text, app: false }) if text == "SyntaxError"));

        let (dir, _answers) = instance("{\"reply\":\"progress\",\"text\":\"\"}\n");
        assert!(matches!(stop(dir.path(), Duration::from_secs(5), |_| {}), Err(ClientError::Closed)));

        let (dir, _answers) = instance("HTTP/1.1 400 Bad Request\n");
        assert!(matches!(status(dir.path()), Err(ClientError::NotUnderstood(_))));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let _silent = UnixListener::bind(dir.path().join(CONTROL_SOCKET)).unwrap();
        let end = stop(dir.path(), Duration::from_millis(50), |_| {});
        assert!(matches!(end, Err(ClientError::Timeout { .. })), "{end:?}");
    }
}
