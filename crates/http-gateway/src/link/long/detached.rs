//! An exchange that has left its slot for the long link.

use std::sync::Arc;

use super::{LongLinks, LongStream};
use crate::link::receive::Head;

/// What a slot's Detached frame says: a head, and the stream with the rest. Whoever drops it unclaimed (its client is gone)
/// tells the worker to end that stream.
pub struct Detached {
    links: Arc<LongLinks>,
    worker: u32,
    number: u16,
    head: Option<Box<Head>>,
}

/// Why there is no stream for a detached exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotClaimed {
    /// The worker's long link has ended, or the worker broke the protocol.
    Gone,
    /// The worker holds as many as it may. This one has been cancelled.
    Full,
}

impl std::fmt::Debug for Detached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Detached({} of worker {})", self.number, self.worker)
    }
}

impl Detached {
    pub(in crate::link) fn new(links: Arc<LongLinks>, worker: u32, number: u16, head: Box<Head>) -> Self {
        Self { links, worker, number, head: Some(head) }
    }

    /// The head (the first piece of its body is in the stream), and the stream.
    pub(crate) fn claim(mut self) -> Result<(Box<Head>, LongStream), NotClaimed> {
        let mut head = self.head.take().ok_or(NotClaimed::Gone)?;
        let link = self.links.link_of(self.worker).ok_or(NotClaimed::Gone)?;
        let stream = link.claim(self.number, &head)?;
        head.body.clear();
        Ok((head, stream))
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some(head) = self.head.take()
            && let Some(link) = self.links.link_of(self.worker)
        {
            drop(link.claim(self.number, &head));
        }
    }
}
