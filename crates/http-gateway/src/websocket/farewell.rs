//! The end of a conversation that is passed through as bytes, when this process ends: a close frame to both sides, between two
//! frames of theirs, and a moment for their answers.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::timeout;

use super::driver::{End, Wire};
use super::encode::put_close;
use super::tunnel::{Bounds, Lane};

/// Why, for people.
const REASON: &str = "the proxy goes away";

/// One direction while it ends: the frame that has begun goes on, then comes our close frame, and what follows is read for the close
/// frame of the side that speaks, and dropped.
struct Last<'a> {
    lane: &'a mut Lane,
    close: BytesMut,
    /// The side that listens has been told.
    told: bool,
    over: bool,
}

impl Last<'_> {
    /// Ready when the side that speaks has closed, or one of them is gone.
    fn poll<F: Wire + ?Sized, T: Wire + ?Sized>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        sent: &mut u64,
    ) -> Poll<()> {
        let Lane { out, sending, frames, .. } = &mut *self.lane;
        while !self.over {
            if *sending {
                let before = out.len();
                let taken = to.poll_send(context, out);
                *sent += (before - out.len()) as u64;
                self.over = ready!(taken).is_err();
                *sending = false;
                continue;
            }
            if !self.told && frames.is_between() {
                self.told = true;
                // Who has heard a close frame must hear nothing after it (RFC 6455, 5.5.1).
                if !frames.is_closed() {
                    out.unsplit(self.close.split());
                    *sending = true;
                    continue;
                }
            }
            if self.told && frames.is_closed() {
                break;
            }
            if from.buffered().is_empty() {
                self.over = ready!(from.poll_fill(context)).is_err();
                continue;
            }
            let bytes = from.buffered();
            let taken = if self.told {
                frames.advance(bytes);
                bytes.len()
            } else {
                let taken = frames.finish(bytes);
                out.extend_from_slice(bytes.get(..taken).unwrap_or_default());
                *sending = true;
                taken
            };
            from.consume(taken);
        }
        self.over = true;
        Poll::Ready(())
    }
}

/// Tells both sides, and waits for their answers.
pub(super) async fn say_farewell<W: Wire, T: Wire + ?Sized>(
    (client, server): (&mut W, &mut T),
    (up, down): (&mut Lane, &mut Lane),
    (code, bounds): (u16, Bounds),
    sent: &mut u64,
) -> End {
    let mut close = BytesMut::new();
    put_close(&mut close, code, REASON);
    let mut up = Last { lane: up, close: masked(&close), told: false, over: false };
    let mut down = Last { lane: down, close, told: false, over: false };
    let mut uncounted = 0;
    let both = poll_fn(|context| {
        let down = down.poll(context, server, client, sent).is_ready();
        let up = up.poll(context, client, server, &mut uncounted).is_ready();
        if up && down { Poll::Ready(()) } else { Poll::Pending }
    });
    // Whoever does not answer in time is cut off, as before.
    let _late = timeout(bounds.close, both).await;
    match (down.told, up.lane.frames.is_closed()) {
        (true, true) => End::Closed,
        (true, false) => End::Failed,
        (false, _) => End::Gone,
    }
}

/// A short frame as a client sends it (RFC 6455, 5.3).
fn masked(frame: &[u8]) -> BytesMut {
    let mut mask = [0; 4];
    // Without random numbers it is still a frame; a mask protects caches on the way, and close frames hold nothing of a client's.
    let _ = SystemRandom::new().fill(&mut mask);
    let (head, payload) = frame.split_at(frame.len().min(2));
    let mut out = BytesMut::from(head);
    if let Some(second) = out.get_mut(1) {
        *second |= 0x80;
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}
