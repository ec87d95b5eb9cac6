//! One health check: a request on a connection of its own, and whether its answer says that the server is well.
//!
//! The connection is a new one each time: it meets what the next new connection of a request would meet. It takes none of the
//! places of requests: a server that is busy with as many as it may have is not down. The answer is read to its end, so that servers do not
//! complain of clients who hang up, but only its head is judged. The caller bounds the time.

use std::future::poll_fn;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::AsyncWriteExt as _;

use super::body::BodyDecoder;
use super::exchange::INFORMATIONAL_MAX;
use super::parse::{Answer, AnswerParser, Asked, BadAnswer};
use super::server::Server;
use super::session::shake_hands;
use super::socket::Socket;
use crate::h1::Stream;

/// Of a body that nobody looks at, no more is read: its server sees an end then that it did not expect.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What servers find in their logs.
const AGENT: &str = "quintet-health-check";

/// What is asked, and how often.
#[derive(Debug, Clone)]
pub struct Checks {
    /// With its query.
    pub path: String,
    /// Host; `None`: what the server is called.
    pub host: Option<String>,
    /// Over HTTP/2.
    pub http2: bool,
    /// What a server that is well answers.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// Time between two checks of a server.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
}

/// Why a server is not well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwell {
    #[error("could not connect: {0}")]
    NotReached(io::Error),
    #[error("the connection broke: {0}")]
    Broke(io::Error),
    #[error("no answer within `health_timeout`")]
    TimedOut,
    #[error("the server closed the connection without an answer")]
    Closed,
    #[error("it answered {0}")]
    Status(u16),
    #[error("the answer is not understood: {0}")]
    Bad(#[from] BadAnswer),
    #[error("HTTP/2: {0}")]
    Http2(#[from] h2::Error),
}

impl Unwell {
    /// Is it this machine that cannot? That says nothing of the server.
    pub(super) fn is_ours(&self) -> bool {
        let Self::NotReached(error) = self else { return false };
        let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL];
        error.raw_os_error().is_some_and(|code| short.iter().any(|errno| errno.raw_os_error() == code))
    }
}

/// Asks once.
pub(super) async fn check(server: &Arc<Server>, checks: &Checks) -> Result<(), Unwell> {
    let socket = server.reach(checks.http2).await.inspect_err(|_| server.may_have_moved());
    let socket = socket.map_err(Unwell::NotReached)?;
    let host = checks.host.as_deref().unwrap_or(&server.authority);
    let status = if checks.http2 {
        over_http2(socket, server.scheme(), host, &checks.path).await?
    } else {
        over_http1(socket, host, &checks.path).await?
    };
    if checks.statuses.iter().any(|range| range.contains(&status)) {
        Ok(())
    } else {
        Err(Unwell::Status(status))
    }
}

async fn over_http1(mut socket: Socket, host: &str, path: &str) -> Result<u16, Unwell> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.map_err(Unwell::Broke)?;
    socket.flush().await.map_err(Unwell::Broke)?;
    let mut stream = Stream::new(socket, Vec::new());
    let (mut parser, mut informational) = (AnswerParser::new(), 0);
    let answer = loop {
        if let Some((answer, bytes)) = parser.advance(stream.buffered(), Asked::default())? {
            stream.consume(bytes);
            if !answer.is_informational() {
                break answer;
            }
            informational += 1;
            if informational > INFORMATIONAL_MAX {
                return Err(BadAnswer("there are too many informational responses").into());
            }
            parser = AnswerParser::new();
        } else if poll_fn(|context| stream.poll_fill(context)).await.is_err() {
            return Err(Unwell::Closed);
        }
    };
    Ok(read_off(stream, &answer).await)
}

/// What follows the head is of no interest, whatever becomes of it.
async fn read_off(mut stream: Stream<Socket>, answer: &Answer) -> u16 {
    let mut decoder = BodyDecoder::new(answer.framing);
    let mut seen = 0;
    while !decoder.is_done() && seen < BODY_BYTES_MAX {
        match decoder.decode(stream.buffered()) {
            Ok((_, used)) => {
                stream.consume(used);
                seen += used;
                decoder.finish_chunks();
            }
            Err(_) => break,
        }
        if !decoder.is_done() && poll_fn(|context| stream.poll_fill(context)).await.is_err() {
            break;
        }
    }
    answer.status
}

async fn over_http2(socket: Socket, scheme: &'static str, host: &str, path: &str) -> Result<u16, Unwell> {
    let uri = http::Uri::builder().scheme(scheme).authority(host).path_and_query(path).build();
    let request = uri
        .and_then(|uri| http::Request::get(uri).header("user-agent", AGENT).header("accept", "*/*").body(()));
    let request = request.map_err(|error| Unwell::Broke(io::Error::other(error)))?;
    let (mut sender, connection) = shake_hands(socket).await?;
    let asking = async {
        let (response, _) = sender.send_request(request, true)?;
        let response = response.await?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut seen = 0;
        while let Some(Ok(piece)) = body.data().await {
            seen += piece.len();
            if seen >= BODY_BYTES_MAX || body.flow_control().release_capacity(piece.len()).is_err() {
                break;
            }
        }
        Ok(status)
    };
    tokio::select! {
        biased;
        status = asking => status,
        ended = connection => Err(ended.err().map_or(Unwell::Closed, Unwell::Http2)),
    }
}
