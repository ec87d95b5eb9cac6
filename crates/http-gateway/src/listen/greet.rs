//! A connection's first bytes: who it is (PROXY protocol), whether it is private (TLS), what it speaks.
//!
//! Each step is boxed, so that a connection that sends nothing costs little, and what follows the greeting is a task of
//! its own, so that a connection that has said something costs no more than its protocol needs.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use ctl_telemetry::events::PROXY_HEADER_BAD;
use ctl_telemetry::metrics::TLS_FAILURES_TOTAL;
use pin_project_lite::pin_project;
use py_link::Local;
use rustix::net::RecvFlags;
use tokio::io::{Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::accept::tell_and_close;
use super::census::Counted;
use super::{Edge, Place, Shared, inet};
use crate::message::{Connection, Service};
use crate::proxy_protocol::{self, HEADER_BYTES_MAX, Header};
use crate::{h1, h2, tls};

/// The first read of a clear connection, on the stack: most request heads fit, larger ones take another read.
const FIRST_READ_BYTES: usize = 4096;

/// A connection that has sent nothing when the drain begins gets this long: its first request may be on its way.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Told to a client that speaks HTTP where TLS is spoken.
const HTTP_ON_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 68\r\n\
    Connection: close\r\n\r\n\
    This address speaks HTTPS only. Please put https:// before its name.";

/// The two kinds of sockets that we accept.
trait Socket: h1::Transport + AsFd + Sync + 'static {
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

/// From an accepted socket to the task that serves it.
pub(super) async fn greet<S: Service>(
    shared: Arc<Shared<S>>,
    place: Arc<Place>,
    socket: OwnedFd,
    peer: Option<SocketAddr>,
    counted: Counted,
) {
    let edge = &shared.edge;
    let connection = Connection {
        peer,
        peer_is_trusted: edge.trusted.trusts(peer),
        local: place.local.clone().or_else(|| local_address(&socket)),
        tls: place.tls,
        tls_facts: None,
        certificate: None,
    };
    // Taking a descriptor into the reactor fails when epoll has no memory: the client sees a close.
    let outcome = if place.unix {
        match UnixStream::from_std(socket.into()) {
            Ok(stream) => meet(edge, &place, stream, connection, counted).await,
            Err(error) => Err(error),
        }
    } else {
        match TcpStream::from_std(socket.into()) {
            Ok(stream) => meet(edge, &place, stream, connection, counted).await,
            Err(error) => Err(error),
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(?peer, %error, "a connection ended before its first request");
    }
}

fn local_address(socket: &OwnedFd) -> Option<Local<'static>> {
    SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok().map(inet)
}

async fn meet<S: Service, T: Socket>(
    edge: &Edge<S>,
    place: &Place,
    mut stream: T,
    mut connection: Connection,
    counted: Counted,
) -> io::Result<()> {
    let patience = if place.tls { edge.config.timeouts.tls_handshake } else { edge.config.timeouts.header };
    Box::pin(first_byte(edge, &stream, patience)).await?;
    if edge.config.proxy.protocol
        && connection.peer_is_trusted
        && !Box::pin(hear_proxy(edge, &stream, &mut connection, patience)).await
    {
        return Ok(());
    }
    if place.tls {
        Box::pin(handshake(edge, place, stream, connection, counted)).await?;
    } else if let Some((first, is_h2)) = Box::pin(sniff(edge, &mut stream)).await? {
        converse(edge, stream, first, connection, is_h2, counted);
    }
    Ok(())
}

/// Waits with empty hands.
async fn first_byte<S, T: Socket>(edge: &Edge<S>, stream: &T, patience: Duration) -> io::Result<()> {
    let mut drain = edge.drain.clone();
    tokio::select! {
        biased;
        ready = timeout(patience, stream.ready(Interest::READABLE)) => { ready??; }
        // Its first request may be on its way.
        () = drain.begun() => { timeout(DRAIN_GRACE, stream.ready(Interest::READABLE)).await??; }
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
    let problem = match timeout(patience, read_proxy_header(stream)).await {
        Ok(Ok(Header::Proxied { source, destination, tls })) => {
            connection.peer = Some(source);
            connection.local = Some(inet(destination));
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
        Ok(Err(error)) => error.to_string(),
        Err(_) => "nothing came in time".to_owned(),
    };
    match connection.peer {
        Some(peer) => PROXY_HEADER_BAD.happened(format_args!("{peer}: {problem}")),
        None => PROXY_HEADER_BAD.happened(format_args!("a unix socket: {problem}")),
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

async fn handshake<S: Service, T: Socket>(
    edge: &Edge<S>,
    place: &Place,
    stream: T,
    mut connection: Connection,
    counted: Counted,
) -> io::Result<()> {
    let Some(identity) = &edge.tls else {
        // `run_reactors` refuses such a listener.
        return Err(io::Error::other(format!("{} has no certificate", place.name)));
    };
    if tell_http(&stream) {
        TLS_FAILURES_TOTAL.inc();
        return Ok(());
    }
    let handshake = TlsAcceptor::from(identity.current()).accept(stream);
    match timeout(edge.config.timeouts.tls_handshake, handshake).await {
        Ok(Ok(stream)) => {
            connection.tls = true;
            connection.tls_facts = tls_facts(stream.get_ref().1);
            connection.certificate = tls::client(stream.get_ref().1).map_err(|why| {
                TLS_FAILURES_TOTAL.inc();
                io::Error::other(why)
            })?;
            // RFC 7301: what was chosen from our list, or nothing when the client offered none.
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            converse(edge, stream, BytesMut::new(), connection, is_h2, counted);
            Ok(())
        }
        failed => {
            TLS_FAILURES_TOTAL.inc();
            failed??;
            Ok(())
        }
    }
}

/// What was negotiated, for the app.
fn tls_facts(session: &rustls::ServerConnection) -> Option<py_link::Tls> {
    let version = session.protocol_version()?.into();
    let cipher_suite = session.negotiated_cipher_suite()?.suite().into();
    Some(py_link::Tls { version, cipher_suite })
}

/// A client that speaks HTTP where TLS is spoken is told so; an alert would tell its user nothing. A look at the first
/// byte costs a system call, which is nothing beside a handshake.
fn tell_http<T: Socket>(stream: &T) -> bool {
    let mut first = [0];
    let peeked =
        stream.try_io(Interest::READABLE, || Ok(rustix::net::recv(stream, &mut first[..], RecvFlags::PEEK)?));
    // A method begins with a letter, a TLS handshake with 22 (RFC 8446, 5.1).
    let speaks_http = peeked.is_ok() && first[0].is_ascii_alphabetic();
    if speaks_http {
        tell_and_close(stream, HTTP_ON_TLS);
    }
    speaks_http
}

/// The first bytes of a clear connection, and whether they are HTTP/2's. `None`: it ended before.
async fn sniff<S, T: Socket>(edge: &Edge<S>, stream: &mut T) -> io::Result<Option<(BytesMut, bool)>> {
    let deadline = Instant::now() + edge.config.timeouts.header;
    let mut first = BytesMut::new();
    loop {
        if !timeout_at(deadline, poll_fn(|cx| poll_read(stream, &mut first, cx))).await?? {
            return Ok(None);
        }
        // "PRI" and the like: the next bytes decide.
        if let Some(is_h2) = h2::begins_with_preface(&first) {
            return Ok(Some((first, is_h2)));
        }
    }
}

/// Reads once, into no more memory than what comes needs. `false`: the end.
fn poll_read<T: Socket>(
    stream: &mut T,
    first: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<bool>> {
    let mut buffer = [MaybeUninit::uninit(); FIRST_READ_BYTES];
    let mut read = ReadBuf::uninit(&mut buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut read))?;
    first.extend_from_slice(read.filled());
    Poll::Ready(Ok(!read.filled().is_empty()))
}

pin_project! {
    /// The rest of a connection's life, counted while it lasts. (An async block would hold the conversation twice.)
    struct Life<F> {
        #[pin]
        conversation: F,
        counted: Counted,
    }
}

impl<F: Future> Future for Life<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().conversation.poll(cx)
    }
}

/// Spawns the protocol's driver.
fn converse<S: Service, T: h1::Transport + 'static>(
    edge: &Edge<S>,
    stream: T,
    first: BytesMut,
    connection: Connection,
    is_h2: bool,
    counted: Counted,
) {
    let (service, config, drain) = (Arc::clone(&edge.service), Arc::clone(&edge.config), edge.drain.clone());
    if is_h2 {
        let conversation = h2::serve(stream, first, connection, service, config, drain);
        drop(tokio::spawn(Life { conversation, counted }));
    } else {
        let conversation = h1::serve(stream, first, connection, service, config, drain);
        drop(tokio::spawn(Life { conversation, counted }));
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::server::TlsStream;

    use super::*;
    use crate::testing::Answers;

    /// The sizes of what functions of five and six arguments return.
    fn five<A, B, C, D, E, F>(_: fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    fn six<A, B, C, D, E, F, G>(_: fn(A, B, C, D, E, F) -> G) -> usize {
        size_of::<G>()
    }

    #[test]
    fn the_refusal_announces_its_length() {
        let text = std::str::from_utf8(HTTP_ON_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }

    /// What every open connection costs, times ten thousand. The bounds are what it was when this was written, rounded
    /// up.
    #[test]
    fn futures_are_small() {
        let greeting = five(greet::<Answers>);
        let clear = six(h1::serve::<TcpStream, Answers>);
        let session = size_of::<TlsStream<TcpStream>>();
        let private = six(h1::serve::<TlsStream<TcpStream>, Answers>) - session;
        println!("{greeting} {clear} {private} + {session}");
        assert!(greeting <= 560 && clear <= 640 && private <= 640, "{greeting} {clear} {private}");
    }
}
