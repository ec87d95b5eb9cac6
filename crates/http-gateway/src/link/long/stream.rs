//! One stream of a long link: what its worker says waits here for who takes it. No I/O, no clock.
//!
//! The link's reader puts frames in with [`State::receive`] and never waits; the consumer takes [`Item`]s out. What may
//! wait is bounded by the window: a worker that sends more breaks the flow control, which ends the link.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use py_link::long::{APP_MESSAGE_BYTES_MAX, MessageType, WINDOW_BYTES, Window};
use py_link::{Flags, LinkError};

use super::super::receive::{FromWorker, Head, Received};
use crate::message::Headers;
use crate::spool::Piece;

/// Credit is returned when so much has been taken: a frame for each small event would cost more than the event.
const CREDIT_BYTES_MIN: u32 = WINDOW_BYTES / 4;

/// Body pieces below this are joined with what waits before them, so that many tiny ones do not cost many times their bytes.
const JOIN_BYTES_MAX: usize = 4 << 10;

/// Ranges of files that may wait in one stream. Each holds a descriptor, and the window does not count them.
const FILES_MAX: usize = 64;

/// What a consumer gets.
#[derive(Debug)]
pub(crate) enum Item {
    /// The answer's head; its body follows in pieces unless its flags say END.
    Head(Box<Head>),
    /// Of the body.
    Piece(Piece),
    /// Of an accepted WebSocket.
    Message(MessageType, Bytes),
}

/// How a stream ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// All has been said; these fields stand behind the body.
    Complete(Option<Headers>),
    /// The WebSocket is closed (or refused, before its head).
    Close(u16, String),
    /// The worker gave up, or we did.
    Aborted,
    /// The worker died, or the stream was taken from it before its head: another may be asked.
    Lost,
}

/// Where the worker's part stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It owes the head.
    Head,
    /// Pieces of a body may come.
    Body,
    /// Messages may come.
    Session,
}

/// A message that is being put together.
#[derive(Debug)]
struct Partial {
    kind: MessageType,
    bytes: BytesMut,
    /// Of the window, not given back yet.
    cost: u32,
}

/// What the link does after a frame.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct After {
    /// Tell the worker that it may send this many more bytes.
    pub(crate) credit: Option<u32>,
    /// The worker has ended the stream: its number is free.
    pub(crate) over: bool,
    /// Tell the worker that nobody listens any more.
    pub(crate) cancel: bool,
    /// We may send again.
    pub(crate) opened: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct State {
    /// It began on a slot; the others began here, with the handshake of a WebSocket.
    detached: bool,
    phase: Phase,
    items: VecDeque<(Item, u32)>,
    files: usize,
    message: Option<Partial>,
    end: Option<End>,
    /// The worker has ended it.
    over: bool,
    /// What comes is dropped: nobody takes it.
    deaf: bool,
    /// A `text/event-stream` may be ended in order at any event; other bodies may not.
    is_events: bool,
    /// Bytes the worker may still send.
    left: u32,
    /// Bytes taken and not given back yet.
    owed: u32,
    /// Bytes we may still send.
    pub(crate) to_worker: Window,
}

impl State {
    /// The handshake of a WebSocket: the worker owes the head.
    pub(crate) fn handshake() -> Self {
        Self {
            detached: false,
            phase: Phase::Head,
            items: VecDeque::new(),
            files: 0,
            message: None,
            end: None,
            over: false,
            deaf: false,
            is_events: false,
            left: WINDOW_BYTES,
            owed: 0,
            to_worker: Window::default(),
        }
    }

    /// A stream whose head comes, or came, on a slot.
    pub(crate) fn detached() -> Self {
        Self { detached: true, phase: Phase::Body, is_events: true, ..Self::handshake() }
    }

    /// The head of a detached stream has come: the first piece of its body stands before those that are here.
    pub(crate) fn claim(&mut self, head: &Head) -> Result<(), LinkError> {
        self.is_events = head.is_event_stream();
        let cost = self.pay(head.body.len())?;
        if cost > 0 {
            self.items.push_front((Item::Piece(Piece::Bytes(head.body.clone())), cost));
        }
        Ok(())
    }

    /// Has the worker ended it?
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Has it ended, for its consumer?
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// A frame of the worker.
    pub(crate) fn receive(&mut self, frame: FromWorker) -> Result<After, LinkError> {
        if self.over {
            return Err(LinkError::Malformed("frame behind the end of a stream"));
        }
        let mut after = After::default();
        match frame {
            FromWorker::Credit(bytes) => {
                // Never more than a whole window, whatever a worker says.
                let room = WINDOW_BYTES.saturating_sub(self.to_worker.left());
                self.to_worker.credit(bytes.min(room));
                after.opened = true;
                return Ok(after);
            }
            FromWorker::Detached(..) => return Err(LinkError::Malformed("detached on the long link")),
            FromWorker::Close(code, reason) => self.close(code, reason)?,
            FromWorker::Message(bytes, flags) => self.message(&bytes, flags, &mut after)?,
            FromWorker::Answer(received) => self.answer(received, &mut after)?,
        }
        after.over = self.over;
        after.credit = self.settle();
        Ok(after)
    }

    fn close(&mut self, code: u16, reason: String) -> Result<(), LinkError> {
        if self.detached {
            return Err(LinkError::Malformed("close of what is no WebSocket"));
        }
        self.worker_ends(End::Close(code, reason));
        Ok(())
    }

    fn message(&mut self, bytes: &[u8], flags: Flags, after: &mut After) -> Result<(), LinkError> {
        if self.phase != Phase::Session {
            return Err(LinkError::Malformed("message outside of a WebSocket"));
        }
        let cost = self.pay(bytes.len())?;
        if flags.is_abort() {
            self.worker_ends(End::Aborted);
            return Ok(());
        }
        let (mut partial, payload) = if let Some(partial) = self.message.take() {
            (partial, bytes)
        } else {
            let malformed = LinkError::Malformed("message");
            let (kind, payload) = bytes.split_first().ok_or(malformed.clone())?;
            let kind = MessageType::from_u8(*kind).ok_or(malformed)?;
            (Partial { kind, bytes: BytesMut::new(), cost: 0 }, payload)
        };
        partial.cost += cost;
        if !self.deaf && partial.bytes.len() + payload.len() > APP_MESSAGE_BYTES_MAX {
            after.cancel = true;
            self.finish(End::Aborted);
        }
        if self.deaf {
            partial.bytes = BytesMut::new();
        } else {
            partial.bytes.extend_from_slice(payload);
        }
        if flags.is_end() && !self.deaf {
            self.items.push_back((Item::Message(partial.kind, partial.bytes.freeze()), partial.cost));
            return Ok(());
        }
        // A message may be longer than the window. What waits before it keeps its own credit back, and so the app.
        if self.deaf || self.items.is_empty() {
            self.owed += std::mem::take(&mut partial.cost);
        }
        // Kept when nobody listens, too: the next frame is not the first of a message.
        self.message = Some(partial).filter(|_| !flags.is_end());
        Ok(())
    }

    fn answer(&mut self, received: Received, after: &mut After) -> Result<(), LinkError> {
        let flags = received.flags();
        match received {
            Received::Head(head) => self.head(head)?,
            // A handshake has no use for them, nor has a body behind its head.
            Received::Hints(_) => {}
            Received::Body(bytes, _) if self.phase == Phase::Body => {
                let cost = self.pay(bytes.len())?;
                self.push_bytes(bytes, cost);
            }
            Received::File(file, _) if self.phase == Phase::Body => {
                if self.files == FILES_MAX && !self.deaf {
                    after.cancel = true;
                    self.finish(End::Aborted);
                } else {
                    self.files += 1;
                    self.push(Item::Piece(Piece::File(file)), 0);
                }
            }
            Received::Trailers(fields, _) if self.phase == Phase::Body && flags.is_end() => {
                self.worker_ends(End::Complete(Some(fields)));
                return Ok(());
            }
            // How the worker ends a stream whose client is gone, whatever its phase.
            Received::Body(bytes, _) if bytes.is_empty() && (flags.is_end() || flags.is_abort()) => {
                self.worker_ends(End::Aborted);
                return Ok(());
            }
            _ => return Err(LinkError::Malformed("order of frames")),
        }
        if flags.is_abort() {
            self.worker_ends(End::Aborted);
        } else if flags.is_end() {
            self.worker_ends(End::Complete(None));
        }
        Ok(())
    }

    fn head(&mut self, mut head: Box<Head>) -> Result<(), LinkError> {
        if self.phase != Phase::Head {
            return Err(LinkError::Malformed("a second head"));
        }
        let cost = self.pay(head.body.len())?;
        let accepts = head.status == 101;
        if accepts && (cost > 0 || head.flags != Flags::NONE) {
            return Err(LinkError::Malformed("101 with a body"));
        }
        self.phase = if accepts { Phase::Session } else { Phase::Body };
        self.is_events = head.is_event_stream();
        if head.flags.is_end() {
            self.push(Item::Head(head), cost);
        } else {
            let body = std::mem::take(&mut head.body);
            self.push(Item::Head(head), 0);
            self.push_bytes(body, cost);
        }
        Ok(())
    }

    /// Takes received bytes out of the worker's window.
    fn pay(&mut self, bytes: usize) -> Result<u32, LinkError> {
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.left = self.left.checked_sub(cost).ok_or(LinkError::Malformed("flow control"))?;
        Ok(cost)
    }

    fn push_bytes(&mut self, bytes: Bytes, cost: u32) {
        if self.deaf || bytes.is_empty() {
            self.owed += cost;
            return;
        }
        if bytes.len() < JOIN_BYTES_MAX
            && let Some((Item::Piece(Piece::Bytes(last)), paid)) = self.items.back_mut()
            && last.len() < JOIN_BYTES_MAX
        {
            let joined = match std::mem::take(last).try_into_mut() {
                Ok(mut joined) => {
                    joined.extend_from_slice(&bytes);
                    joined.freeze()
                }
                Err(shared) => [&shared[..], &bytes[..]].concat().into(),
            };
            *last = joined;
            *paid += cost;
            return;
        }
        self.items.push_back((Item::Piece(Piece::Bytes(bytes)), cost));
    }

    fn push(&mut self, item: Item, cost: u32) {
        if self.deaf {
            self.owed += cost;
        } else {
            self.items.push_back((item, cost));
        }
    }

    /// The next item, and the credit that is due with it.
    pub(crate) fn take(&mut self) -> Option<(Item, Option<u32>)> {
        let (item, cost) = self.items.pop_front()?;
        self.owed += cost;
        if let Item::Piece(Piece::File(_)) = item {
            self.files -= 1;
        }
        if self.items.is_empty()
            && let Some(partial) = &mut self.message
        {
            self.owed += std::mem::take(&mut partial.cost);
        }
        Some((item, self.settle()))
    }

    /// The end, once all items are taken.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref().filter(|_| self.items.is_empty())
    }

    /// Credit that is worth a frame.
    fn settle(&mut self) -> Option<u32> {
        if self.owed < CREDIT_BYTES_MIN || self.over {
            return None;
        }
        self.left += self.owed;
        Some(std::mem::take(&mut self.owed))
    }

    fn worker_ends(&mut self, end: End) {
        self.over = true;
        self.finish(end);
    }

    /// Ends it for the consumer, behind what waits; what the worker still sends is dropped.
    pub(crate) fn finish(&mut self, end: End) {
        self.deaf = true;
        if let Some(partial) = &mut self.message {
            partial.bytes = BytesMut::new();
            self.owed += std::mem::take(&mut partial.cost);
        }
        self.end.get_or_insert(end);
    }

    /// May the gateway end it by itself, so that its client notices no failure?
    pub(crate) fn can_end_in_order(&self) -> bool {
        match self.phase {
            Phase::Head | Phase::Session => true,
            Phase::Body => self.is_events,
        }
    }

    /// Is it a WebSocket that the app has accepted?
    pub(crate) fn in_session(&self) -> bool {
        self.phase == Phase::Session
    }

    /// Ends it because its worker goes, with this code where it is a WebSocket.
    pub(crate) fn dismiss(&mut self, code: u16, reason: &str) {
        self.finish(match self.phase {
            Phase::Head => End::Lost,
            Phase::Session => End::Close(code, reason.to_owned()),
            Phase::Body => End::Complete(None),
        });
    }

    /// The link is gone.
    pub(crate) fn lose(&mut self) {
        self.worker_ends(End::Lost);
    }

    /// The consumer is gone. Returns the credit that is due.
    pub(crate) fn let_go(&mut self) -> Option<u32> {
        self.finish(End::Aborted);
        self.owed += self.items.drain(..).map(|(_, cost)| cost).sum::<u32>();
        self.files = 0;
        self.settle()
    }
}

#[cfg(test)]
mod tests;
