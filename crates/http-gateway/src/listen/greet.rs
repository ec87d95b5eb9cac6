//! A connection's first bytes: who it is (PROXY protocol), whether it is private (TLS), what it speaks.
//!
//! The future of a connection that sends nothing is small: what comes later is boxed when it is needed.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ctl_telemetry::events::PROXY_HEADER_BAD;
use ctl_telemetry::metrics::TLS_FAILURES_TOTAL;
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt as _, Interest, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::census::Counted;
use super::{Edge, Place, Shared};
use crate::message::{Connection, Service};
use crate::proxy_protocol::{self, HEADER_BYTES_MAX, Header};
use crate::{h1, h2};

/// Room for the first read of a clear connection: most request heads fit.
const FIRST_READ_BYTES: usize = 4096;

/// A connection that has sent nothing when the drain begins gets this long: its first request may be on its way.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// The two kinds of sockets that we accept.
trait Socket: h1::Transport + AsFd + Sync {
    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<Ready>> + Send;
    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R>;
}

impl Socket for TcpStream {
    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<Ready>> + Send {
        self.ready(interest)
    }

    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(interest, io)
    }
}

impl Socket for UnixStream {
    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<Ready>> + Send {
        self.ready(interest)
    }

    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(interest, io)
    }
}

/// The whole life of an accepted connection.
pub(super) async fn greet<S: Service>(
    shared: Arc<Shared<S>>,
    place: Arc<Place>,
    socket: OwnedFd,
    peer: Option<SocketAddr>,
    _counted: Counted,
) {
    let edge = &shared.edge;
    let connection = Connection {
        peer,
        peer_is_trusted: edge.trusted.trusts(peer),
        local: place.local.or_else(|| local_address(&socket)),
        tls: place.tls,
    };
    // Taking a descriptor into the reactor fails when epoll has no memory: the client sees a close.
    let outcome = if place.unix {
        match UnixStream::from_std(socket.into()) {
            Ok(stream) => meet(edge, &place, stream, connection).await,
            Err(error) => Err(error),
        }
    } else {
        match TcpStream::from_std(socket.into()) {
            Ok(stream) => meet(edge, &place, stream, connection).await,
            Err(error) => Err(error),
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(?peer, %error, "a connection ended before its first request");
    }
}

fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()
}

/// Waits for the first byte, then boxes what follows.
async fn meet<S: Service, T: Socket>(
    edge: &Edge<S>,
    place: &Place,
    mut stream: T,
    mut connection: Connection,
) -> io::Result<()> {
    let patience = if place.tls { edge.config.timeouts.tls_handshake } else { edge.config.timeouts.header };
    {
        let mut drain = edge.drain.clone();
        tokio::select! {
            biased;
            ready = timeout(patience, stream.ready(Interest::READABLE)) => { ready??; }
            // Its first request may be on its way.
            () = drain.begun() => { timeout(DRAIN_GRACE, stream.ready(Interest::READABLE)).await??; }
        }
    }
    // What each step takes is given back before the next.
    if edge.config.proxy.protocol
        && connection.peer_is_trusted
        && !Box::pin(hear_proxy(edge, &stream, &mut connection, patience)).await
    {
        return Ok(());
    }
    if !place.tls {
        if let Some((first, is_h2)) = sniff(edge, &mut stream).await? {
            speak(edge, stream, first, connection, is_h2).await;
        }
    } else if let Some(stream) = Box::pin(handshake(edge, place, stream)).await? {
        connection.tls = true;
        // RFC 7301: what was chosen from our list, or nothing when the client offered none.
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        speak(edge, stream, BytesMut::new(), connection, is_h2).await;
    }
    Ok(())
}

/// Reads the PROXY protocol header and corrects `connection` by it. `false`: there was none.
async fn hear_proxy<S, T: Socket>(
    edge: &Edge<S>,
    stream: &T,
    connection: &mut Connection,
    patience: Duration,
) -> bool {
    match timeout(patience, read_proxy_header(stream)).await {
        Ok(Ok(Header::Proxied { source, destination, tls })) => {
            connection.peer = Some(source);
            connection.local = Some(destination);
            connection.tls |= tls;
            // The forwarded headers that follow are the client's own.
            connection.peer_is_trusted = edge.trusted.trusts(Some(source));
            return true;
        }
        // The proxy speaks for itself (a health check): the socket's own addresses stand.
        Ok(Ok(Header::Local { tls })) => {
            connection.tls |= tls;
            return true;
        }
        Ok(Err(error)) => PROXY_HEADER_BAD.happened(format_args!("{:?}: {error}", connection.peer)),
        Err(_) => PROXY_HEADER_BAD.happened(format_args!("{:?}: nothing came in time", connection.peer)),
    }
    false
}

/// Takes exactly the header off the stream: it is looked at first, so that no byte behind it has to be put back.
async fn read_proxy_header<T: Socket>(stream: &T) -> io::Result<Header> {
    let malformed = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut buffer = [0; HEADER_BYTES_MAX];
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let looked = stream.try_io(Interest::READABLE, || {
            let (_, seen) = rustix::net::recv(stream, &mut buffer[..], RecvFlags::PEEK)?;
            match proxy_protocol::parse(buffer.get(..seen).unwrap_or_default()) {
                Ok(Some(parsed)) => Ok(parsed),
                Ok(None) if seen == 0 || ready.is_read_closed() => {
                    Err(malformed("the connection ended within the header"))
                }
                // Until more has come the stream counts as not ready.
                Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
                Err(why) => Err(io::Error::new(io::ErrorKind::InvalidData, why)),
            }
        });
        match looked {
            Ok((header, len)) => {
                // The parser never asks for more than the buffer holds.
                let taken_off = buffer.get_mut(..len).unwrap_or_default();
                let (_, taken) = rustix::net::recv(stream, taken_off, RecvFlags::empty())?;
                return if taken == len {
                    Ok(header)
                } else {
                    Err(malformed("the header changed while it was read"))
                };
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn handshake<S, T: Socket>(
    edge: &Edge<S>,
    place: &Place,
    stream: T,
) -> io::Result<Option<TlsStream<T>>> {
    let Some(identity) = &edge.tls else {
        // `run_reactors` refuses such a listener.
        return Err(io::Error::other(format!("{} has no certificate", place.name)));
    };
    let handshake = TlsAcceptor::from(identity.current()).accept(stream);
    match timeout(edge.config.timeouts.tls_handshake, handshake).await {
        Ok(Ok(stream)) => Ok(Some(stream)),
        failed => {
            TLS_FAILURES_TOTAL.inc();
            failed??;
            Ok(None)
        }
    }
}

/// The first bytes of a clear connection, and whether they are HTTP/2's. `None`: it ended before.
async fn sniff<S, T: Socket>(edge: &Edge<S>, stream: &mut T) -> io::Result<Option<(BytesMut, bool)>> {
    let deadline = Instant::now() + edge.config.timeouts.header;
    let mut first = BytesMut::with_capacity(FIRST_READ_BYTES);
    loop {
        if timeout_at(deadline, stream.read_buf(&mut first)).await?? == 0 {
            return Ok(None);
        }
        // "PRI" and the like: the next bytes decide.
        if let Some(is_h2) = h2::begins_with_preface(&first) {
            return Ok(Some((first, is_h2)));
        }
    }
}

async fn speak<S: Service, T: h1::Transport>(
    edge: &Edge<S>,
    stream: T,
    first: BytesMut,
    connection: Connection,
    is_h2: bool,
) {
    let Edge { service, config, drain, .. } = edge;
    if is_h2 {
        Box::pin(h2::serve(stream, first, connection, service, config, drain.clone())).await;
    } else {
        Box::pin(h1::serve(
            stream,
            first,
            connection,
            Arc::clone(service),
            Arc::clone(config),
            drain.clone(),
        ))
        .await;
    }
}
