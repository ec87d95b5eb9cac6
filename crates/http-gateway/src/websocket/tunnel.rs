//! A WebSocket that is passed through as bytes: its other end is an upstream's, and neither its frames nor its messages concern us.
//!
//! What is bounded: the bytes that wait in each direction (one read), the time that one side may not take them
//! (`timeouts.write`), the silence of both (`upstream.tunnel_timeout`), and after the beginning of a drain the rest: then both are
//! told with close frames (`farewell.rs`).

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use ctl_config::Config;
use tokio::time::{Instant, sleep_until};

use super::boundary::Frames;
use super::close::{GOING_AWAY, SERVICE_RESTART};
use super::driver::{End, Gone, Outcome, Wire};
use super::farewell::say_farewell;
use crate::drain::Drain;

/// Both sides have this long to answer our close frames, as clients of the app have.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// The other end.
pub struct Tunnel {
    wire: Box<dyn Wire>,
    /// The longest silence of both sides.
    silence: Duration,
}

impl Tunnel {
    /// `wire` begins behind the server's 101.
    pub(crate) fn new(wire: Box<dyn Wire>, silence: Duration) -> Self {
        Self { wire, silence }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

/// What holds for a tunnel besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// How long one side may not take what the other has said.
    pub(crate) write: Duration,
    /// From the beginning of a drain to our close frames.
    pub(crate) grace: Duration,
    /// From there to the end.
    pub(crate) close: Duration,
}

impl Bounds {
    /// From the configuration: as for WebSockets of the app.
    pub(crate) fn new(config: &Config) -> Self {
        let grace = config.workers.long_lived_grace.min(config.server.drain_timeout / 2);
        Self { write: config.timeouts.write, grace, close: CLOSE_WAIT }
    }
}

/// One direction.
pub(super) struct Lane {
    pub(super) out: BytesMut,
    /// Something of `out` has not been handed on.
    pub(super) sending: bool,
    /// Where the side that speaks stands, `out` included.
    pub(super) frames: Frames,
    /// Since when it waits.
    moved: Instant,
}

/// What came of a lane.
enum Lag {
    /// Something moved.
    Moved,
    /// The side that speaks has said all.
    Over,
    /// The side that listens is gone.
    Deaf,
}

impl Lane {
    fn new(now: Instant) -> Self {
        Self { out: BytesMut::new(), sending: false, frames: Frames::new(), moved: now }
    }

    /// Moves what can be moved `from` one side `to` the other.
    fn poll<F: Wire + ?Sized, T: Wire + ?Sized>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        sent: &mut u64,
    ) -> Poll<Lag> {
        if !self.sending {
            if from.buffered().is_empty() {
                match from.poll_fill(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(Gone)) => return Poll::Ready(Lag::Over),
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.out.extend_from_slice(from.buffered());
            from.consume(self.out.len());
            self.frames.advance(&self.out);
            (self.sending, self.moved) = (true, Instant::now());
        }
        let before = self.out.len();
        let taken = to.poll_send(context, &mut self.out);
        *sent += (before - self.out.len()) as u64;
        match taken {
            Poll::Ready(Ok(())) => {
                *self = Self { frames: self.frames, ..Self::new(Instant::now()) };
                from.release();
                Poll::Ready(Lag::Moved)
            }
            Poll::Ready(Err(Gone)) => Poll::Ready(Lag::Deaf),
            Poll::Pending if self.out.len() < before => {
                self.moved = Instant::now();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// When what waits has waited too long.
    fn deadline(&self, bounds: Bounds) -> Option<Instant> {
        self.sending.then(|| self.moved + bounds.write)
    }
}

/// Passes bytes on until one side has said all it had to, or something lasts too long. What that side said last has been
/// handed on then.
pub(crate) async fn relay<W: Wire>(
    client: &mut W,
    tunnel: Tunnel,
    bounds: Bounds,
    mut drain: Drain,
) -> Outcome {
    let Tunnel { mut wire, silence } = tunnel;
    let now = Instant::now();
    let (mut up, mut down) = (Lane::new(now), Lane::new(now));
    let (mut sent, mut received) = (0, 0);
    let mut leave_at = None;
    let mut code = GOING_AWAY;
    let ear = drain.clone();
    let mut first = false;
    let end = loop {
        // In turn: a side that always has something to say must not silence the other.
        first = !first;
        let stuck = [up.deadline(bounds), down.deadline(bounds), leave_at];
        let silent = up.moved.max(down.moved) + silence;
        let deadline = stuck.into_iter().flatten().fold(silent, Instant::min);
        let mut begun = pin!(drain.listened());
        let mut alarm = pin!(sleep_until(deadline));
        let event = poll_fn(|context| {
            for way in [first, !first] {
                let lag = if way {
                    down.poll(context, &mut *wire, client, &mut sent)
                } else {
                    up.poll(context, client, &mut *wire, &mut received)
                };
                match lag {
                    Poll::Ready(Lag::Moved) => return Poll::Ready(Event::Moved),
                    // The server closes first (RFC 6455, 7.1.1); a client that does has nothing to hear any more.
                    Poll::Ready(Lag::Over) => {
                        return Poll::Ready(Event::Over(if way { End::Closed } else { End::Gone }));
                    }
                    Poll::Ready(Lag::Deaf) => {
                        return Poll::Ready(Event::Over(if way { End::Gone } else { End::Closed }));
                    }
                    Poll::Pending => {}
                }
            }
            if leave_at.is_none() && begun.as_mut().poll(context).is_ready() {
                return Poll::Ready(Event::Drain);
            }
            alarm.as_mut().poll(context).map(|()| Event::Alarm)
        })
        .await;
        match event {
            Event::Drain => {
                leave_at = Some(Instant::now() + bounds.grace);
                if ear.has_moved() {
                    code = SERVICE_RESTART;
                }
            }
            Event::Over(end) => break end,
            Event::Alarm if leave_at.is_some_and(|at| at <= Instant::now()) => {
                let (sides, lanes) = ((client, &mut *wire), (&mut up, &mut down));
                break say_farewell(sides, lanes, (code, bounds), &mut sent).await;
            }
            Event::Alarm if deadline <= Instant::now() => break End::Gone,
            Event::Moved | Event::Alarm => {}
        }
    };
    Outcome { end, sent }
}

enum Event {
    Moved,
    Over(End),
    Drain,
    Alarm,
}
