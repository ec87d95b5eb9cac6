//! Bodies that we ourselves send slower than their clients take them ([`crate::pace`]): their clients are not slow.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::{Shared, State, Writer};

/// How long a body was not sent although it could have been.
#[derive(Default)]
pub(super) struct Slowed {
    before: Duration,
    since: Option<Instant>,
}

impl Slowed {
    fn total(&self) -> Duration {
        self.before + self.since.map(|since| since.elapsed()).unwrap_or_default()
    }
}

impl State {
    fn hurries(&self) -> bool {
        // When the worker is done, nobody is held up any more.
        self.ended.is_none() && self.hurry_above.is_some_and(|most| self.memory + self.file_end > most)
    }
}

/// The reader's word to the writer.
pub(crate) struct Slowing(Arc<Shared>);

impl Slowing {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// From now on until the value is dropped it is not the client who is slow.
    pub(crate) fn begin(&self) -> impl Drop + use<> {
        self.0.state().slowed.since = Some(Instant::now());
        NotItsFault(Arc::clone(&self.0))
    }

    /// A worker would soon be held up: send what there is.
    pub(crate) fn hurries(&self) -> bool {
        self.0.state().hurries()
    }

    /// Waits until it is so. Cancel safe.
    pub(crate) async fn hurried(&self) {
        while !self.hurries() {
            // What else this tells is seen by who asks for the next piece: that looks before it waits.
            self.0.to_reader.notified().await;
        }
    }
}

struct NotItsFault(Arc<Shared>);

impl Drop for NotItsFault {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.slowed.before = state.slowed.total();
        state.slowed.since = None;
    }
}

/// The client has taken nothing for too long.
pub(crate) struct TooSlow;

/// Adds a piece, and waits for room as long as the client may be slow: what we slow it down does not count.
pub(crate) async fn push(
    writer: &mut Writer,
    piece: Bytes,
    patience: Duration,
) -> Result<io::Result<bool>, TooSlow> {
    let shared = Arc::clone(&writer.shared);
    let slowed = || shared.state().slowed.total();
    let mut counted = slowed();
    let mut left = patience;
    let mut pushing = pin!(writer.push(piece, || {}));
    loop {
        if let Ok(pushed) = timeout(left, &mut pushing).await {
            return Ok(pushed);
        }
        let now = slowed();
        left = now.saturating_sub(counted);
        counted = now;
        if left.is_zero() {
            return Err(TooSlow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{SpoolLimits, spool};

    fn limits(memory_bytes: u64, disk_bytes: u64) -> SpoolLimits {
        SpoolLimits { memory_bytes, disk_bytes, dir: std::env::temp_dir() }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_we_slow_a_client_down_does_not_count() {
        let (mut writer, mut stream) = spool(limits(4, 0));
        writer.start(Bytes::from_static(b"full"));
        let slowing = stream.slowing().unwrap();
        let began = Instant::now();
        let reading = async {
            for _ in 0..10 {
                let _not_its_fault = slowing.begin();
                tokio::time::sleep(9 * SECOND).await;
            }
            stream.try_next();
        };
        let (pushed, ()) = tokio::join!(push(&mut writer, Bytes::from_static(b"more"), 10 * SECOND), reading);
        assert!(pushed.is_ok_and(|pushed| pushed.unwrap()));
        assert_eq!(began.elapsed(), 90 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_slow_besides_is_cut_off_after_its_own_time() {
        let (mut writer, mut stream) = spool(limits(4, 0));
        writer.start(Bytes::from_static(b"full"));
        let slowing = stream.slowing().unwrap();
        let began = Instant::now();
        let reading = async {
            loop {
                let not_its_fault = slowing.begin();
                tokio::time::sleep(SECOND).await;
                drop(not_its_fault);
                tokio::time::sleep(SECOND).await;
            }
        };
        tokio::select! {
            pushed = push(&mut writer, Bytes::from_static(b"more"), 10 * SECOND) => assert!(pushed.is_err()),
            () = reading => unreachable!("it does not end"),
        }
        let took = began.elapsed();
        assert!(took >= 19 * SECOND && took <= 22 * SECOND, "{took:?}");
    }

    #[tokio::test]
    async fn a_body_hurries_while_half_of_the_room_is_taken_and_a_worker_writes() {
        let (mut writer, mut stream) = spool(limits(8, 8));
        let slowing = stream.slowing().unwrap();
        writer.push(Bytes::from_static(b"123456"), || {}).await.unwrap();
        writer.push(Bytes::from_static(b"123456"), || {}).await.unwrap();
        assert!(!slowing.hurries(), "nobody is held up");
        writer.holds_a_slot();
        assert!(slowing.hurries());
        slowing.hurried().await;
        assert!(matches!(stream.try_next(), Some(Some(Ok(_)))));
        assert!(!slowing.hurries(), "six bytes on disk are left");
        writer.push(Bytes::from_static(b"1234"), || {}).await.unwrap();
        assert!(slowing.hurries());
        writer.end(Ok(()));
        assert!(!slowing.hurries(), "the worker is done");
    }
}
