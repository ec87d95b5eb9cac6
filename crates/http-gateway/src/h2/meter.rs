//! How much of what a client sends is work, and how much only keeps us busy. Pure: sees the frames' heads as they pass.
//!
//! Frames that ask for nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, frames of unknown kinds) cost credit. Requests earn it, and so does what
//! we send: who takes a lot may open its windows often. Time gives a little, for connections that live long. A client without credit
//! floods us (RFC 9113, 10.5), as does one that cancels more requests than people do.
//!
//! The `h2` crate itself bounds what floods memory: CONTINUATION frames, header lists, small and empty DATA frames, requests that are cancelled
//! before they were looked at.

use std::time::Duration;

use tokio::time::Instant;

/// A frame begins with its length, kind, flags and stream (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

/// What a client has at the start, and at most: some clients confirm each 4 KiB they have taken, for the stream and the
/// connection, and are behind by what lies in the sockets' buffers, up to 6 MiB.
const CREDIT_MAX: u32 = 16_384;

/// A client that takes many small frames may open two windows for each.
const CREDIT_PER_FRAME: u32 = 4;

/// For long frames: a client that confirms each 4 KiB for the stream and the connection needs half of it.
const CREDIT_PER_KIB: u32 = 1;

/// Keep-alives of many hours; nobody needs a PING more often than that.
const CREDIT_PER_SECOND: u32 = 20;

/// Cancelled requests at once: a closed browser window cancels a few hundred at most. The same as nghttp2's, as the next one.
const RESETS_AT_ONCE: u32 = 1000;

/// Cancelled requests over time.
const RESETS_PER_SECOND: u32 = 33;

/// Finds the heads of frames in a stream of bytes.
#[derive(Debug)]
struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of `head` that have come.
    have: usize,
    /// Bytes that belong to the frame before.
    skip: usize,
}

impl Frames {
    /// `skip`: bytes before the first frame.
    fn new(skip: usize) -> Self {
        Self { head: [0; HEAD_BYTES], have: 0, skip }
    }

    /// Calls `seen` with the kind and length of each frame whose head ends in `bytes`.
    fn pass(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, usize)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let rest = self.head.get_mut(self.have..).unwrap_or_default();
            let taken = rest.len().min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            rest.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.have += taken;
            bytes = later;
            if self.have == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.have = 0;
                self.skip = len;
                seen(kind, len);
            }
        }
    }
}

/// One connection's account.
#[derive(Debug)]
pub(super) struct Meter {
    received: Frames,
    sent: Frames,
    credit: u32,
    resets: u32,
    /// When time last gave something.
    since: Instant,
    /// Frames of answers that were sent.
    answered: u64,
    flooded: bool,
}

impl Meter {
    /// `preface`: bytes that the client sends before its first frame.
    pub(super) fn new(preface: usize, now: Instant) -> Self {
        Self {
            received: Frames::new(preface),
            sent: Frames::new(0),
            credit: CREDIT_MAX,
            resets: RESETS_AT_ONCE,
            since: now,
            answered: 0,
            flooded: false,
        }
    }

    /// The client sent `bytes`.
    pub(super) fn received(&mut self, bytes: &[u8], now: Instant) {
        self.refill(now);
        let Self { received, credit, resets, flooded, .. } = self;
        received.pass(bytes, |kind, _| {
            let purse = match kind {
                // The crate counts those that carry nothing.
                DATA | CONTINUATION => return,
                HEADERS => {
                    *credit = CREDIT_MAX.min(*credit + CREDIT_PER_FRAME);
                    return;
                }
                RST_STREAM => &mut *resets,
                _ => &mut *credit,
            };
            match purse.checked_sub(1) {
                Some(left) => *purse = left,
                None => *flooded = true,
            }
        });
    }

    /// We sent `bytes`.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let Self { sent, credit, answered, .. } = self;
        sent.pass(bytes, |kind, len| {
            if matches!(kind, DATA | HEADERS) {
                let kib = u32::try_from(len >> 10).unwrap_or(CREDIT_MAX);
                *credit = CREDIT_MAX.min(*credit + CREDIT_PER_FRAME + kib * CREDIT_PER_KIB);
                *answered += 1;
            }
        });
    }

    /// The client has sent more than it had credit for.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded
    }

    /// Grows with each frame of an answer: PINGs do not make it move.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        if seconds == 0 {
            return;
        }
        self.since += Duration::from_secs(seconds);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        let more =
            |purse: u32, rate: u32, most: u32| purse.saturating_add(rate.saturating_mul(seconds)).min(most);
        self.credit = more(self.credit, CREDIT_PER_SECOND, CREDIT_MAX);
        self.resets = more(self.resets, RESETS_PER_SECOND, RESETS_AT_ONCE);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, len: usize) -> Vec<u8> {
        let mut frame = (len as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.resize(HEAD_BYTES + len, 0xff);
        frame
    }

    #[test]
    fn without_work_the_credit_ends_and_time_gives_a_little() {
        let start = Instant::now();
        let mut meter = Meter::new(0, start);
        meter.received(&frame(PING, 8).repeat(CREDIT_MAX as usize), start);
        assert!(!meter.is_flooded());
        let later = start + Duration::from_secs(3);
        meter.received(&frame(PING, 8).repeat(3 * CREDIT_PER_SECOND as usize), later);
        assert!(!meter.is_flooded());
        meter.received(&frame(0x77, 0), later);
        assert!(meter.is_flooded());
    }

    #[test]
    fn who_takes_much_may_open_its_windows_often() {
        let now = Instant::now();
        let mut meter = Meter::new(0, now);
        for _ in 0..20_000 {
            // Small pieces, each confirmed twice; long ones, each 4 KiB of them.
            meter.sent(&frame(DATA, 10));
            meter.received(&frame(WINDOW_UPDATE, 4).repeat(2), now);
            meter.sent(&frame(DATA, 16_384));
            meter.received(&frame(WINDOW_UPDATE, 4).repeat(8), now);
        }
        assert!(!meter.is_flooded());
        assert_eq!(meter.answered(), 40_000);
    }

    #[test]
    fn our_answers_to_pings_earn_nothing() {
        let now = Instant::now();
        let mut meter = Meter::new(0, now);
        for _ in 0..=CREDIT_MAX {
            meter.received(&frame(PING, 8), now);
            meter.sent(&frame(PING, 8));
        }
        assert!(meter.is_flooded());
        assert_eq!(meter.answered(), 0);
    }

    #[test]
    fn requests_that_are_cancelled_are_counted_by_themselves() {
        let now = Instant::now();
        let mut meter = Meter::new(0, now);
        let pair = [frame(HEADERS, 6), frame(RST_STREAM, 4)].concat();
        meter.received(&pair.repeat(RESETS_AT_ONCE as usize), now);
        assert!(!meter.is_flooded());
        meter.received(&pair, now);
        assert!(meter.is_flooded());
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in prop::collection::vec((any::<u8>(), 0_usize..40), 0..20),
            cuts in prop::collection::vec(1_usize..17, 1..40),
        ) {
            let mut bytes = b"preface".to_vec();
            bytes.extend(frames.iter().flat_map(|(kind, len)| frame(*kind, *len)));
            let mut found = Vec::new();
            let mut passing = Frames::new(7);
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*cut));
                passing.pass(now, |kind, len| found.push((kind, len)));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, frames);
        }
    }
}
