//! HTTP/2 from clients (RFC 9113) over the `h2` crate: its frames, header compression and flow control, our policy.
//!
//! The driver runs every stream of a connection inside the connection's own task: a batch of requests is read with one
//! call, answered, and written with one call ([`cork`]). No task is spawned for a stream, nothing is shared with
//! another thread. hyper's server was passed over for this: it spawns a task for every stream and boxes every body.
//!
//! | file | what happens there |
//! |---|---|
//! | `request.rs` | a request head as the app sees it, as strict as over HTTP/1 |
//! | `exchange.rs` | one stream: body in, service, response out |
//! | `response.rs` | a response head as HTTP/2 has it |
//! | `websocket.rs` | a stream that carries a WebSocket (RFC 8441) |
//! | `cork.rs` | the socket, written to in large pieces |
//! | `meter.rs` | which clients only keep us busy (floods of PING, SETTINGS and the like) |
//!
//! Bounds: streams (`limits.h2_streams_max`), header lists, streams reset by the client before we saw them (rapid
//! reset) or later or by us for errors, frames that ask for nothing, buffered output; a deadline for the hand-shake, request bodies,
//! output that does not move, closed windows, and idle connections. Dropping the future of [`serve`] drops every exchange.

mod cork;
mod exchange;
mod meter;
mod request;
mod response;
mod websocket;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ctl_config::Config;
use ctl_telemetry::metrics::H2_FLOODS_TOTAL;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::drain::Drain;
use crate::h1::parse::HeadLimits;
use crate::message::{Connection, Service};
use crate::pace::Paces;
use cork::Cork;
use exchange::Exchanges;

/// What a client with prior knowledge sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client may send so many body bytes of one stream before we have taken them. Uploads over a long line (100 ms)
/// reach 80 Mbit/s with it; the default of 64 KiB would hold them at 5.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// The same for all streams of a connection together; it bounds the memory that a connection's bodies can take here.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Streams that the client reset before we had looked at them: above, the connection is closed. A browser cancels what a
/// page no longer needs, a few dozen at most; "rapid reset" attacks send thousands (CVE-2023-44487).
const RESETS_MAX: usize = 100;

/// Streams that we had to reset or refuse because the client broke the rules, in the connection's whole life. A client
/// that opens many streams before it has heard how many it may is refused some, and stays far below this.
const REFUSED_MAX: usize = 1024;

/// An idle client has this long to agree that the connection ends: a round trip, and what a sleeping phone needs.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a header costs beside its bytes (RFC 9113, 6.5.2).
const FIELD_OVERHEAD_BYTES: u64 = 32;

/// Does a clear connection speak HTTP/2? `None`: too early to tell.
pub(crate) fn begins_with_preface(first: &[u8]) -> Option<bool> {
    if first.len() >= PREFACE.len() {
        return Some(first.starts_with(PREFACE));
    }
    if PREFACE.starts_with(first) { None } else { Some(false) }
}

/// Serves a connection until it is over. `first` holds what was read of it already.
///
/// Not an `async fn`: those hold each argument twice.
pub fn serve<S: Service, T: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: T,
    first: BytesMut,
    connection: Connection,
    service: Arc<S>,
    config: Arc<Config>,
    mut drain: Drain,
) -> impl Future<Output = ()> + Send {
    let (io, cork) = Cork::new(stream, first);
    async move {
        let handshake = builder(&config).handshake::<_, Bytes>(io);
        let Ok(Ok(h2)) = timeout(config.timeouts.header, handshake).await else { return };
        let exchanges = Exchanges {
            service: &*service,
            config: &config,
            limits: HeadLimits::new(&config.limits),
            connection,
            drain: drain.clone(),
            paces: Paces::default(),
        };
        let patience = Patience::new(&config);
        let mut driver = Driver { h2, cork, patience, draining: false, calmed: false, over: false };
        let mut streams = FuturesUnordered::new();
        let mut drain = pin!(drain.begun());
        let mut alarm = pin!(sleep_until(driver.patience.deadline));
        poll_fn(|cx| {
            if !driver.draining && drain.as_mut().poll(cx).is_ready() {
                driver.say_goodbye();
            }
            while !driver.over {
                let mut moved = false;
                while let Poll::Ready(accepted) = driver.h2.poll_accept(cx) {
                    if let Some(Ok((request, respond))) = accepted {
                        streams.push(exchanges.run(request, respond));
                        moved = true;
                    } else {
                        // Broken, or closed in order; what is left of the output tells the client which.
                        driver.end(accepted.and_then(Result::err));
                        streams.clear();
                        break;
                    }
                }
                moved |= driver.calm_down();
                while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {
                    moved = true;
                }
                if !moved {
                    break;
                }
            }
            match driver.cork.poll_flush(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(()),
                Poll::Ready(Ok(())) if driver.over => Poll::Ready(()),
                _ => driver.watch_the_clock(cx, alarm.as_mut(), streams.len()),
            }
        })
        .await;
    }
}

fn builder(config: &Config) -> h2::server::Builder {
    let limits = &config.limits;
    // The crate's own answer to a larger list is a bare 431: our own limits, which are told apart, come first.
    let list_bytes =
        limits.line_max + limits.headers_max + FIELD_OVERHEAD_BYTES * u64::from(limits.header_count_max + 8);
    let mut builder = h2::server::Builder::new();
    builder
        // WebSockets (RFC 8441, 3).
        .enable_connect_protocol()
        .max_concurrent_streams(limits.h2_streams_max)
        .max_header_list_size(u32::try_from(list_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(REFUSED_MAX))
        .max_concurrent_reset_streams(RESETS_MAX);
    builder
}

/// A connection and what is known of its state.
struct Driver<T> {
    h2: h2::server::Connection<Cork<T>, Bytes>,
    cork: cork::Handle<T>,
    patience: Patience,
    draining: bool,
    /// The client was told that it floods us.
    calmed: bool,
    /// The crate has said all it had to say.
    over: bool,
}

/// How long a connection may stay as it is.
struct Patience {
    keep_alive: Duration,
    write: Duration,
    /// Bytes written when we last looked.
    written: u64,
    /// What the connection does, since when.
    state: State,
    deadline: Instant,
    /// All answers are ready, but the client's windows are closed: frames of answers sent until then, and how long that may last.
    closed: Option<(u64, Instant)>,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Exchanges keep their own clocks.
    Working,
    /// The client takes its time to take what is ready for it.
    Writing,
    /// A request.
    Idle,
}

impl Patience {
    fn new(config: &Config) -> Self {
        let keep_alive = config.timeouts.keep_alive;
        let now = Instant::now();
        Self {
            keep_alive,
            write: config.timeouts.write,
            written: 0,
            state: State::Idle,
            deadline: now + keep_alive,
            closed: None,
        }
    }

    /// Who keeps his windows closed is not waited for any longer than who does not read, whatever else he sends: PINGs would
    /// make output move for ever. When is it over?
    fn watch_windows(&mut self, closed: bool, answered: u64) -> Option<Instant> {
        match self.closed {
            _ if !closed => self.closed = None,
            Some((before, _)) if before == answered => {}
            _ => self.closed = Some((answered, Instant::now() + self.write)),
        }
        self.closed.map(|(_, deadline)| deadline)
    }

    /// From now on an idle connection is not kept.
    fn hurry(&mut self) {
        self.keep_alive = GOODBYE.min(self.keep_alive);
        if self.state == State::Idle {
            self.deadline = Instant::now() + self.keep_alive;
        }
    }

    /// The clock starts anew when the state changes or output has moved.
    /// `false`: nothing has changed.
    fn observe(&mut self, state: State, written: u64) -> bool {
        if state == self.state && (state == State::Idle || written == self.written) {
            return false;
        }
        self.state = state;
        self.written = written;
        self.deadline = match state {
            State::Idle => Instant::now() + self.keep_alive,
            State::Writing | State::Working => Instant::now() + self.write,
        };
        true
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Driver<T> {
    /// GOAWAY in two steps (RFC 9113, 6.8): first with no bound, so that requests on their way are still answered;
    /// after a round trip with the last stream. The crate closes the connection when the last exchange is over.
    fn say_goodbye(&mut self) {
        self.draining = true;
        self.h2.graceful_shutdown();
        self.patience.hurry();
    }

    /// The crate is done with the connection.
    fn end(&mut self, error: Option<h2::Error>) {
        self.over = true;
        let flooded = error.is_some_and(|error| error.reason() == Some(Reason::ENHANCE_YOUR_CALM));
        if flooded && !self.calmed {
            H2_FLOODS_TOTAL.inc();
        }
    }

    /// Ends the connection of a client that only keeps us busy. Says whether there is something new to do.
    fn calm_down(&mut self) -> bool {
        if self.over || self.calmed || !self.cork.is_flooded() {
            return false;
        }
        self.calmed = true;
        H2_FLOODS_TOTAL.inc();
        self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        true
    }

    fn watch_the_clock(
        &mut self,
        cx: &mut Context<'_>,
        mut alarm: std::pin::Pin<&mut Sleep>,
        exchanges: usize,
    ) -> Poll<()> {
        let (waiting, written) = self.cork.waiting();
        let left_over = exchanges == 0 && self.h2.has_streams();
        let windows = self.patience.watch_windows(left_over, self.cork.answered());
        let state = if waiting || left_over {
            State::Writing
        } else if exchanges > 0 {
            State::Working
        } else {
            State::Idle
        };
        if self.patience.observe(state, written) && state == State::Idle {
            self.cork.release();
        }
        if state == State::Working {
            return Poll::Pending;
        }
        loop {
            // It may ring too early, and is then set again: that is rarer than requests are.
            let deadline = windows.map_or(self.patience.deadline, |at| at.min(self.patience.deadline));
            if alarm.deadline() > deadline {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() < deadline {
                alarm.as_mut().reset(deadline);
            } else if state == State::Idle && !self.draining {
                self.say_goodbye();
                cx.waker().wake_by_ref();
            } else {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
