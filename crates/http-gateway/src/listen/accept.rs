//! The accept loop of one reactor on one socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ctl_telemetry::events::{ACCEPT_FAILED, CONNECTION_PER_ADDRESS_REFUSED, CONNECTION_REFUSED};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::census::Full;
use super::greet::greet;
use super::{LAST_CALL, Place, Shared};
use crate::drain::Drain;
use crate::guard::Turned;
use crate::message::Service;

/// Connections taken before the reactor's other tasks get a turn.
const BATCH: usize = 64;

/// How long to leave the socket alone when nothing can be accepted: descriptors come back as connections end.
const PAUSE: Duration = Duration::from_millis(50);

/// Told to a client that is one too many. It has sent nothing that we read, so no `Date`, no request id.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 52\r\n\
    Retry-After: 1\r\n\
    Connection: close\r\n\r\n\
    Too many connections are open. Please try again soon";

/// Told to a client that is banned; the same words as in `guard/answer.rs`.
const BANNED: &[u8] = b"HTTP/1.1 403 Forbidden\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 65\r\n\
    Connection: close\r\n\r\n\
    Requests from your address are not answered for the time being.\r\n";

/// One reactor's ear on one listening socket.
pub(super) struct Acceptor<S> {
    socket: AsyncFd<OwnedFd>,
    place: Arc<Place>,
    shared: Arc<Shared<S>>,
    reactor: usize,
    /// Given up for a moment when no descriptor is left, so that a client can be told.
    reserve: Option<OwnedFd>,
    gate: watch::Receiver<bool>,
    drain: Drain,
}

/// What a round of accepting ended with.
enum Round {
    /// Nobody waits any more.
    Empty,
    /// There may be more.
    More,
    /// No descriptor or memory is left.
    Exhausted(Errno),
}

impl<S: Service> Acceptor<S> {
    pub(super) fn new(
        socket: OwnedFd,
        place: Arc<Place>,
        shared: Arc<Shared<S>>,
        reactor: usize,
        runtime: &Runtime,
    ) -> io::Result<Self> {
        let _registers_here = runtime.enter();
        #[expect(
            deprecated,
            reason = "its successor asks for what an OwnedFd keeps anyway: the descriptor stays open"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        Ok(Self {
            socket,
            gate: shared.edge.gate.clone(),
            drain: shared.edge.drain.clone(),
            place,
            shared,
            reactor,
            reserve: reserve(),
        })
    }

    /// Accepts until the drain begins, and then what is still at the door: a connection that the kernel has taken is
    /// ours, and to close the socket before it is accepted would reset it.
    pub(super) async fn run(mut self) {
        self.accept_until_drain().await;
        // Another process may accept what is still at the door.
        if !*self.gate.borrow() || self.drain.has_moved() {
            return;
        }
        let last_call = tokio::time::Instant::now() + LAST_CALL;
        while let Ok(Ok(mut ready)) = tokio::time::timeout_at(last_call, self.socket.readable()).await {
            ready.retain_ready();
            if let Round::Exhausted(_) = self.round() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        while let Round::More = self.round() {}
    }

    async fn accept_until_drain(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.drain.listened() => return,
                open = self.gate.wait_for(|&open| open) => if open.is_err() { return },
            }
            tokio::select! {
                biased;
                () = self.drain.listened() => return,
                _shut = self.gate.changed() => continue,
                ready = self.socket.readable() => match ready {
                    Ok(mut ready) => ready.retain_ready(),
                    Err(error) => {
                        tracing::error!(listener = self.place.name, %error, "a listening socket broke");
                        return;
                    }
                },
            }
            match self.round() {
                Round::Empty => {}
                Round::More => tokio::task::yield_now().await,
                Round::Exhausted(errno) => {
                    ACCEPT_FAILED.happened(format_args!("{}: {errno}", self.place.name));
                    self.refuse_with_the_reserve();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn round(&self) -> Round {
        for _ in 0..BATCH {
            match self.accept() {
                Ok((socket, peer)) => self.admit(socket, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Round::Empty,
                Err(error) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    if matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) {
                        return Round::Exhausted(errno);
                    }
                    // The client gave up while it waited (accept(2) lists what can happen); the next may be well.
                }
            }
        }
        Round::More
    }

    /// Takes one connection; `WouldBlock` also tells the reactor that the socket is not ready any more.
    fn accept(&self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        self.socket.try_io(Interest::READABLE, |socket| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (socket, peer) = rustix::net::acceptfrom_with(socket, flags)?;
            Ok((socket, peer.and_then(|peer| SocketAddr::try_from(peer).ok())))
        })
    }

    fn admit(&self, socket: OwnedFd, peer: Option<SocketAddr>) {
        let edge = &self.shared.edge;
        if let Some(turned) = peer.and_then(|peer| edge.service.turns_away(peer)) {
            if turned == Turned::Away {
                refuse(&socket, &self.place, BANNED);
            }
            return;
        }
        // Proxies bring the connections of many.
        let client = peer.filter(|peer| !edge.trusted.contains(peer.ip()));
        let client = client.map(|peer| http_limits::client(peer.ip()));
        let counted = match self.shared.census.admit(self.reactor, client) {
            Ok(counted) => counted,
            Err(Full::All) => {
                let (name, max) = (&self.place.name, edge.config.limits.connections_max);
                CONNECTION_REFUSED.happened(format_args!("{name}: {max} are open"));
                return refuse(&socket, &self.place, TOO_MANY);
            }
            Err(Full::Client(client)) => {
                CONNECTION_PER_ADDRESS_REFUSED.happened(format_args!("{}: {client}", self.place.name));
                return refuse(&socket, &self.place, TOO_MANY);
            }
        };
        let reactor = counted.reactor();
        let task = greet(Arc::clone(&self.shared), Arc::clone(&self.place), socket, peer, counted);
        if reactor == self.reactor {
            drop(tokio::spawn(task));
        } else if let Some(runtime) = self.shared.runtimes.get(reactor) {
            drop(runtime.spawn(task));
        }
    }

    /// One client that waits is told, with the descriptor kept for it; the others wait on.
    fn refuse_with_the_reserve(&mut self) {
        drop(self.reserve.take());
        if let Ok((socket, _peer)) = self.accept() {
            refuse(&socket, &self.place, TOO_MANY);
        }
        self.reserve = reserve();
    }
}

/// Any descriptor will do.
fn reserve() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

/// Tells a client why it is not served. Over TLS nothing can be told.
fn refuse(socket: &OwnedFd, place: &Place, words: &[u8]) {
    if !place.tls {
        tell_and_close(socket, words);
    }
}

/// Sends a few last words, as far as that takes no waiting; the caller closes.
pub(super) fn tell_and_close(socket: impl AsFd, words: &[u8]) {
    // Each of these may fail when the client has gone; then there is nobody to tell.
    let _sent = rustix::net::send(&socket, words, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    let _shut = rustix::net::shutdown(&socket, Shutdown::Write);
    // A socket closed with unread bytes in it resets the connection, and the words may be lost on the way.
    let mut unread = [0_u8; 4096];
    let _read = rustix::net::recv(&socket, &mut unread, RecvFlags::DONTWAIT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_announce_their_length() {
        for words in [TOO_MANY, BANNED] {
            let text = std::str::from_utf8(words).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        }
    }
}
