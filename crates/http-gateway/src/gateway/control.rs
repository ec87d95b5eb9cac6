//! The socket to the supervisor: JSON, a message a line.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use ctl_admin::LINE_BYTES_MAX;
use ctl_admin::words::{FromGateway, ToGateway};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tracing::error;

/// Both directions.
pub(super) struct Control {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    line: Vec<u8>,
}

impl Control {
    pub(super) fn new(socket: StdUnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(socket)?.into_split();
        Ok(Self { read: BufReader::new(read), write, line: Vec::new() })
    }

    /// The next message; `None` when the supervisor is gone or speaks nonsense (then it is not ours). Cancel safe:
    /// a line that has half arrived is kept.
    pub(super) async fn next(&mut self) -> Option<ToGateway> {
        let room = (LINE_BYTES_MAX - self.line.len().min(LINE_BYTES_MAX)) as u64;
        let read = (&mut self.read).take(room).read_until(b'\n', &mut self.line).await;
        if !matches!(read, Ok(bytes) if bytes > 0) || self.line.last() != Some(&b'\n') {
            return None;
        }
        let message = serde_json::from_slice(&self.line);
        self.line.clear();
        message.map_err(|error| error!("the supervisor said something else than a message: {error}")).ok()
    }

    /// Tells the supervisor. If it is gone, [`Self::next`] says so.
    pub(super) async fn send(&mut self, message: &FromGateway) {
        if let Ok(mut line) = serde_json::to_vec(message) {
            line.push(b'\n');
            let _ = self.write.write_all(&line).await;
        }
    }
}
