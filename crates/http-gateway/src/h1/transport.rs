//! The sockets under a connection, and what the plain ones can do beyond reading and writing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A stream to a client.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Can [`Self::poll_send_file`] be called?
    const SENDS_FILES: bool = false;

    /// Sends a range of a file within the kernel; returns the bytes taken, 0 at the end of the file. Blocks the
    /// thread where the range is not in memory: callers see to that first.
    fn poll_send_file(
        &mut self,
        _context: &mut Context<'_>,
        _file: &File,
        _offset: u64,
        _len: usize,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Writes bytes that others follow at once, so that the kernel may wait for those to fill a packet.
    fn poll_write_more(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::pin::Pin::new(self).poll_write(context, bytes)
    }

    /// Turns the close that follows into a reset, where there is such a thing: for a body that ends with the
    /// connection, it is the only way to tell that it was cut short.
    fn break_off(&mut self) {}
}

/// Tries an operation on a socket until it is done or would block.
macro_rules! poll_io {
    ($socket:expr, $context:expr, $operation:expr) => {
        loop {
            ready!($socket.poll_write_ready($context))?;
            match $socket.try_io(Interest::WRITABLE, || $operation.map_err(io::Error::from)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    };
}

/// What [`TcpStream`] and [`UnixStream`] share.
macro_rules! plain_socket {
    () => {
        const SENDS_FILES: bool = true;

        fn poll_send_file(
            &mut self,
            context: &mut Context<'_>,
            file: &File,
            offset: u64,
            len: usize,
        ) -> Poll<io::Result<usize>> {
            poll_io!(self, context, rustix::fs::sendfile(self.as_fd(), file, Some(&mut offset.clone()), len))
        }

        fn poll_write_more(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            poll_io!(
                self,
                context,
                rustix::net::send(self.as_fd(), bytes, SendFlags::MORE | SendFlags::NOSIGNAL)
            )
        }
    };
}

impl Transport for TcpStream {
    plain_socket!();

    fn break_off(&mut self) {
        // An error means that the socket is broken already.
        let _ignored = rustix::net::sockopt::set_socket_linger(self.as_fd(), Some(Duration::ZERO));
    }
}

impl Transport for UnixStream {
    plain_socket!();
}

impl<T: Transport> Transport for TlsStream<T> {
    fn break_off(&mut self) {
        self.get_mut().0.break_off();
    }
}
