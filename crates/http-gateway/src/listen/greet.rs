//! A connection's first bytes: who it is (PROXY protocol), whether it is private (TLS), what it speaks.
//!
//! The future of a connection that sends nothing is small: what comes later is boxed when it is needed.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ctl_telemetry::metrics::TLS_FAILURES_TOTAL;
use tokio::io::{AsyncReadExt as _, Interest, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::census::Counted;
use super::{Edge, Place, Shared};
use crate::message::{Connection, Service};
use crate::{h1, h2};

/// Room for the first read of a clear connection: most request heads fit.
const FIRST_READ_BYTES: usize = 4096;

/// A connection that has sent nothing when the drain begins gets this long: its first request may be on its way.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// The two kinds of sockets that we accept.
trait Socket: h1::Transport {
    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<Ready>> + Send;
}

impl Socket for TcpStream {
    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<Ready>> + Send {
        self.ready(interest)
    }
}

impl Socket for UnixStream {
    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<Ready>> + Send {
        self.ready(interest)
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
        peer_is_trusted: (edge.trusted)(peer),
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
    stream: T,
    connection: Connection,
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
    if place.tls {
        Box::pin(over_tls(edge, place, stream, connection)).await
    } else {
        Box::pin(in_clear(edge, stream, connection)).await
    }
}

async fn over_tls<S: Service, T: Socket>(
    edge: &Edge<S>,
    place: &Place,
    stream: T,
    mut connection: Connection,
) -> io::Result<()> {
    let Some(identity) = &edge.tls else {
        // `run_reactors` refuses such a listener.
        return Err(io::Error::other(format!("{} has no certificate", place.name)));
    };
    let handshake = TlsAcceptor::from(identity.current()).accept(stream);
    let stream = match timeout(edge.config.timeouts.tls_handshake, handshake).await {
        Ok(Ok(stream)) => stream,
        failed => {
            TLS_FAILURES_TOTAL.inc();
            failed??;
            return Ok(());
        }
    };
    connection.tls = true;
    // RFC 7301: what was chosen from our list, or nothing when the client offered none.
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    speak(edge, stream, BytesMut::new(), connection, is_h2).await;
    Ok(())
}

async fn in_clear<S: Service, T: Socket>(
    edge: &Edge<S>,
    mut stream: T,
    connection: Connection,
) -> io::Result<()> {
    let deadline = Instant::now() + edge.config.timeouts.header;
    let mut first = BytesMut::with_capacity(FIRST_READ_BYTES);
    let is_h2 = loop {
        if timeout_at(deadline, stream.read_buf(&mut first)).await?? == 0 {
            return Ok(());
        }
        // "PRI" and the like: the next bytes decide.
        if let Some(is_h2) = h2::begins_with_preface(&first) {
            break is_h2;
        }
    };
    speak(edge, stream, first, connection, is_h2).await;
    Ok(())
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
