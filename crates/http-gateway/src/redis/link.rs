//! One connection: commands go out as they come, many in one write; answers come back in their order.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_redis::{Value, decode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::Trouble;
use crate::upstream::Socket;

/// Commands that wait to be written: beyond it the asker decides alone.
const WAITING_MAX: usize = 1024;

/// Commands whose answers are still to come.
const PENDING_MAX: usize = 4096;

/// Commands that go out in one write.
const BATCH_BYTES: usize = 64 << 10;

/// Answers of a busy moment.
const READ_BYTES: usize = 4096;

/// Answers to scripts are a few numbers, or a page of bans.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A connection on which an answer is due and nothing comes for so long is broken: packets vanish, or the server is stopped.
const SILENCE_MAX: Duration = Duration::from_secs(5);

type Answer = oneshot::Sender<Value>;

/// What is to be sent, and who waits for the answer.
struct Command {
    bytes: Vec<u8>,
    answer: Answer,
}

/// The end that asks.
pub(crate) struct Link {
    commands: mpsc::Sender<Command>,
}

/// The end that moves the bytes. The connection lives as long as it runs.
pub(super) struct Driver {
    socket: Socket,
    commands: mpsc::Receiver<Command>,
}

/// Both ends of a connection whose greeting is over.
pub(super) fn new(socket: Socket) -> (Link, Driver) {
    let (sender, commands) = mpsc::channel(WAITING_MAX);
    (Link { commands: sender }, Driver { socket, commands })
}

impl Link {
    /// Sends a command and waits for what it answers. Cancel safe: the answer finds nobody then.
    pub(super) async fn answer(&self, bytes: Vec<u8>) -> Result<Value, Trouble> {
        let (answer, answered) = oneshot::channel();
        self.commands.try_send(Command { bytes, answer }).map_err(|error| match error {
            // It is slow beyond measure.
            mpsc::error::TrySendError::Full(_) => Trouble::Late,
            mpsc::error::TrySendError::Closed(_) => Trouble::Lost,
        })?;
        match answered.await {
            Ok(Value::Error(why)) => Err(Trouble::Refused(why)),
            Ok(value) => Ok(value),
            Err(_) => Err(Trouble::Lost),
        }
    }

    /// The same within a time.
    pub(super) async fn ask(&self, bytes: Vec<u8>, limit: Duration) -> Result<Value, Trouble> {
        timeout(limit, self.answer(bytes)).await.unwrap_or(Err(Trouble::Late))
    }
}

impl Driver {
    /// Until the connection is of no use any more; who waits then learns that it broke.
    pub(super) async fn run(self) {
        let (mut read, mut write) = tokio::io::split(self.socket);
        let mut commands = self.commands;
        // And when it was asked for.
        let pending = Mutex::new(VecDeque::<(Instant, Answer)>::new());
        let queue = || pending.lock().unwrap_or_else(PoisonError::into_inner);
        let sends = async {
            let mut bytes = Vec::new();
            while let Some(first) = commands.recv().await {
                let mut next = Some(first);
                while let Some(command) = next {
                    // Beyond it the command is dropped, and who waits is told.
                    if queue().len() < PENDING_MAX {
                        bytes.extend_from_slice(&command.bytes);
                        queue().push_back((Instant::now(), command.answer));
                    }
                    next = if bytes.len() < BATCH_BYTES { commands.try_recv().ok() } else { None };
                }
                timeout(SILENCE_MAX, write.write_all(&bytes)).await??;
                timeout(SILENCE_MAX, write.flush()).await??;
                bytes.clear();
            }
            io::Result::Ok(())
        };
        let hears = async {
            let mut bytes = Vec::new();
            let mut heard = Instant::now();
            // Since somebody waits, and nothing was heard. While nobody does there is nothing to hear.
            let silent = |heard: Instant| {
                queue().front().map(|(asked, _)| heard.max(*asked).elapsed()).unwrap_or_default()
            };
            loop {
                bytes.reserve(READ_BYTES);
                let patience = SILENCE_MAX.saturating_sub(silent(heard));
                match timeout(patience, read.read_buf(&mut bytes)).await {
                    Ok(Ok(count)) if count > 0 => heard = Instant::now(),
                    Err(_) if silent(heard) < SILENCE_MAX => continue,
                    _ => return,
                }
                let mut done = 0;
                loop {
                    match decode(&bytes[done..], ANSWER_BYTES_MAX) {
                        Ok(None) => break,
                        // Nothing was subscribed: whatever it is, nobody waits for it.
                        Ok(Some((Value::Push(_), length))) => done += length,
                        Ok(Some((value, length))) => {
                            done += length;
                            // An answer to nothing: from here on each would be taken for another's.
                            let Some((_, answer)) = queue().pop_front() else { return };
                            let _gone = answer.send(value);
                        }
                        Err(_) => return,
                    }
                }
                bytes.drain(..done);
            }
        };
        tokio::select! {
            _broke = sends => {}
            () = hears => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use http_redis::encode;
    use tokio::net::UnixStream;

    use super::*;

    fn ping() -> Vec<u8> {
        let mut ping = Vec::new();
        encode(&mut ping, &[b"PING"]);
        ping
    }

    #[tokio::test(start_paused = true)]
    async fn silence_begins_when_something_is_asked() {
        let (own, mut server) = UnixStream::pair().unwrap();
        let (link, driver) = new(Socket::Unix(own));
        let driver = tokio::spawn(driver.run());
        let late = Duration::from_millis(10);
        let serves = async {
            let mut asked = [0; 14];
            server.read_exact(&mut asked).await.unwrap();
            tokio::time::sleep(late * 2).await;
            server.write_all(b"+PONG\r\n").await.unwrap();
        };
        // Nobody has asked anything for nearly so long as nobody may be silent.
        tokio::time::sleep(SILENCE_MAX.saturating_sub(late)).await;
        let (answer, ()) = tokio::join!(link.ask(ping(), SILENCE_MAX * 2), serves);
        assert_eq!(answer, Ok(Value::Text(b"PONG".to_vec())));
        // Who says nothing at all is given up.
        let asked = Instant::now();
        assert_eq!(link.ask(ping(), SILENCE_MAX * 2).await, Err(Trouble::Lost));
        assert!((SILENCE_MAX..SILENCE_MAX + late).contains(&asked.elapsed()));
        driver.await.unwrap();
    }
}
