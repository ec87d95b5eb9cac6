//! Connections of HTTP/2 to a server: one for each reactor, which all of its requests share.
//!
//! A connection that fails, or that its server is about to close, is replaced by the next request; what is on its way on it comes
//! to its end. One on which a server was silent for too long is left as well: its other end may be gone without a word.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use http_upstream::Pick;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::server::{Lasting, NoConnection, Server, Wanted};
use super::socket::Socket;
use crate::reactor;

/// What a server may send ahead in one stream: large enough for a long fast way, and what is read goes to a spool with bounds of
/// its own.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// … and in all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// All fields of a head, as over HTTP/1.1.
const FIELDS_BYTES_MAX: u32 = 64 << 10;

/// A connection that can be asked.
pub(super) struct Session {
    sender: SendRequest<Bytes>,
    used: Arc<Used>,
}

/// Who uses a connection, and when somebody last did: its other owners are requests.
#[derive(Debug)]
struct Used(Mutex<Instant>);

impl Used {
    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections of a server, by reactor.
pub(super) struct Sessions(Box<[tokio::sync::Mutex<Option<Session>>]>);

/// A connection for one request, and its place with the server.
pub(super) struct Lease {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) server: Arc<Server>,
    /// It has served a request before.
    pub(super) reused: bool,
    /// The request's place with the server, as long as it is worked on.
    pub(super) pick: Option<Pick<Arc<Server>>>,
    /// It carries an event stream.
    pub(super) lasts: Option<Lasting>,
    used: Arc<Used>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.used.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Sessions {
    pub(super) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| tokio::sync::Mutex::default()).collect())
    }

    /// Leaves connections that nobody has used for so long.
    pub(super) fn sweep(&self, keep_alive: Duration) {
        for shard in &self.0 {
            // One that is being made, or asked, is used.
            let Ok(mut session) = shard.try_lock() else { continue };
            let idle = |session: &Session| {
                Arc::strong_count(&session.used) == 1 && session.used.last().elapsed() >= keep_alive
            };
            if session.as_ref().is_some_and(idle) {
                *session = None;
            }
        }
    }
}

impl Server {
    /// A place for a stream on a connection. Cancel safe.
    pub(super) async fn lease_stream(
        self: &Arc<Self>,
        wanted: Wanted,
        now: Instant,
    ) -> Result<Lease, NoConnection> {
        let deadline = now + self.connect_timeout();
        let place = self.place(deadline).await?;
        let shards = &self.sessions().0;
        let Some(shard) = shards.get(reactor::current() % shards.len().max(1)) else {
            return Err(NoConnection::TimedOut);
        };
        // Held while a connection is made: one for all who wait.
        let Ok(mut session) = timeout_at(deadline, shard.lock()).await else {
            return Err(NoConnection::TimedOut);
        };
        let kept = session.take().filter(|_| wanted != Wanted::New);
        if let Some(Session { sender, used }) = kept {
            // It stays in place while we wait: this may be dropped.
            *session = Some(Session { sender: sender.clone(), used: Arc::clone(&used) });
            // Waits where the server allows no more streams now.
            match timeout_at(deadline, sender.ready()).await {
                Ok(Ok(sender)) => {
                    let server = Arc::clone(self);
                    return Ok(Lease {
                        sender,
                        server,
                        reused: true,
                        pick: None,
                        lasts: None,
                        used,
                        _place: place,
                    });
                }
                // It is going.
                Ok(Err(_)) => *session = None,
                Err(_) => return Err(NoConnection::Full),
            }
        }
        let (sender, used) = self.open_session(deadline).await?;
        *session = Some(Session { sender: sender.clone(), used: Arc::clone(&used) });
        Ok(Lease {
            sender,
            server: Arc::clone(self),
            reused: false,
            pick: None,
            lasts: None,
            used,
            _place: place,
        })
    }

    async fn open_session(&self, deadline: Instant) -> Result<(SendRequest<Bytes>, Arc<Used>), NoConnection> {
        let (socket, open) = self.dial_for_h2(deadline).await?;
        let opened = timeout_at(deadline, async {
            let (sender, connection) = shake_hands(socket).await?;
            // Ends when the last request and the session have let go of it, or with the server.
            tokio::spawn(async move {
                let _its_requests_are_told = connection.await;
                drop(open);
            });
            sender.ready().await
        });
        let broken = |error: h2::Error| NoConnection::Failed(std::io::Error::other(error));
        let sender = opened.await.map_err(|_| NoConnection::TimedOut)?.map_err(broken)?;
        Ok((sender, Arc::new(Used(Mutex::new(Instant::now())))))
    }
}

/// Begins to speak HTTP/2.
pub(super) async fn shake_hands(
    socket: Socket,
) -> Result<(SendRequest<Bytes>, Connection<Socket, Bytes>), h2::Error> {
    Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(FIELDS_BYTES_MAX)
        .handshake(socket)
        .await
}

impl Lease {
    /// The server was silent: nobody else shall wait for it on this connection.
    pub(super) fn forsake(&self) {
        for shard in &self.server.sessions().0 {
            // Who is asking there finds out for himself.
            let Ok(mut session) = shard.try_lock() else { continue };
            if session.as_ref().is_some_and(|session| Arc::ptr_eq(&session.used, &self.used)) {
                *session = None;
            }
        }
    }
}
