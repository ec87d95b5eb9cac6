//! What an exchange has to say, as frames: in order, as fast as the socket and the credit of its stream allow.
//!
//! The same for slots (no credit, larger pieces) and for streams of the long link. An item holds the app's own bytes; at
//! most one frame of them is copied to wait for the socket.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use py_link::long::{PIECE_BYTES_MAX, Window};
use py_link::{
    Flags, HEADER_BYTES, Kind, ResponseFile, ResponseHeadWriter, encode_header, encode_response_file,
    set_stream,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::asgi::wire::Wire;
use crate::link::Gone;

/// Pieces on a slot: large enough that system calls do not matter, small enough that a client that went away is
/// noticed soon and the gateway's buffers stay small.
const SLOT_PIECE_BYTES_MAX: usize = 256 * 1024;

/// Up to here the first piece is copied behind the head and leaves with it in one plain `send`; above, two slices
/// are cheaper than the copy.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the app.
pub(crate) enum Data {
    /// None.
    Empty,
    /// A body or a binary message.
    Bytes(Py<PyBytes>),
    /// A text message.
    Text(Py<PyString>),
    /// Ours: the page of a failure.
    Own(Vec<u8>),
}

impl Data {
    fn get<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match self {
            Self::Empty => &[],
            Self::Bytes(bytes) => bytes.as_bytes(py),
            // Was encoded when the item was made; Python keeps that.
            Self::Text(text) => text.to_str(py).unwrap_or_default().as_bytes(),
            Self::Own(bytes) => bytes,
        }
    }
}

/// What the first frame of an item is.
pub(crate) enum Lead {
    /// A ResponseHead: the space of a frame's header, then its payload.
    Head(Vec<u8>, ResponseHeadWriter),
    /// The same on a slot, for an exchange that goes on as this stream of the long link.
    Detached(Vec<u8>, ResponseHeadWriter, u16),
    /// A ResponseBody, as all further ones.
    Body,
    /// The first byte of the payload is the message's type.
    Message(u8),
    /// A range of a file.
    File(OwnedFd, ResponseFile),
    /// A frame without pieces: EarlyHints, Trailers, CloseToGateway with this payload.
    Whole(Kind, Vec<u8>),
}

/// One thing to say.
pub(crate) struct Item {
    lead: Option<Lead>,
    data: Data,
    at: usize,
    /// Flags of its last frame.
    last: Flags,
    is_message: bool,
    waiter: Option<Py<PyAny>>,
}

/// Why an item did not go.
enum Blocked {
    /// The socket is full: try again when it is empty.
    Socket,
    /// The window is used up: try again when credit comes.
    Credit,
    /// There is no socket.
    Gone,
}

/// What [`Outbound::pump`] has done.
#[derive(Default)]
pub(crate) struct Pumped {
    /// Futures of those whose items have gone.
    pub(crate) wake: Vec<Py<PyAny>>,
    /// Something waits for the socket.
    pub(crate) socket_full: bool,
}

/// See the file's head.
#[derive(Default)]
pub(crate) struct Outbound {
    items: VecDeque<Item>,
    /// 0 on a slot.
    stream: u16,
    window: Option<Window>,
    /// Waits for its turn to write.
    pub(crate) is_blocked: bool,
}

impl Outbound {
    /// On a stream of the long link.
    pub(crate) fn on(stream: u16) -> Self {
        Self { stream, window: Some(Window::default()), ..Self::default() }
    }

    /// The number of the stream; 0 on a slot.
    pub(crate) fn stream(&self) -> u16 {
        self.stream
    }

    /// From now on it is this stream of the long link.
    pub(crate) fn move_to(&mut self, stream: u16) {
        self.stream = stream;
        self.window = Some(Window::default());
    }

    /// The gateway has taken so many bytes.
    pub(crate) fn credit(&mut self, bytes: u32) {
        if let Some(window) = &mut self.window {
            window.credit(bytes);
        }
    }

    /// Appends something to say.
    pub(crate) fn push(&mut self, lead: Lead, data: Data, last: Flags) {
        let is_message = matches!(lead, Lead::Message(_));
        self.items.push_back(Item { lead: Some(lead), data, at: 0, last, is_message, waiter: None });
    }

    /// Everything has gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// This future is woken when everything that has been said by now has gone. False: it has.
    pub(crate) fn wait(&mut self, future: Py<PyAny>) -> bool {
        let Some(item) = self.items.back_mut() else { return false };
        item.waiter = Some(future);
        true
    }

    /// Nothing can be sent any more; gives the futures to wake.
    pub(crate) fn give_up(&mut self) -> Vec<Py<PyAny>> {
        self.items.drain(..).filter_map(|item| item.waiter).collect()
    }

    /// Sends what can be sent now.
    pub(crate) fn pump(&mut self, py: Python<'_>, wire: &mut Wire) -> Pumped {
        let mut pumped = Pumped::default();
        while let Some(item) = self.items.front_mut() {
            match item.send(py, wire, self.stream, self.window.as_mut()) {
                Ok(()) => {
                    pumped.wake.extend(item.waiter.take());
                    self.items.pop_front();
                }
                Err(Blocked::Socket) => {
                    pumped.socket_full = true;
                    break;
                }
                Err(Blocked::Credit) => break,
                Err(Blocked::Gone) => {
                    pumped.wake.extend(self.give_up());
                    break;
                }
            }
        }
        pumped
    }
}

impl From<Gone> for Blocked {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Item {
    fn send(
        &mut self,
        py: Python<'_>,
        wire: &mut Wire,
        stream: u16,
        mut window: Option<&mut Window>,
    ) -> Result<(), Blocked> {
        loop {
            if wire.is_broken() {
                return Err(Blocked::Gone);
            }
            if !wire.is_clear() {
                return Err(Blocked::Socket);
            }
            // The byte of the type counts as payload (`py_link::long`, flow control).
            let extra = usize::from(matches!(self.lead, Some(Lead::Message(_))));
            let rest = self.data.get(py).len() - self.at + extra;
            let taken = match window.as_deref_mut() {
                Some(window) if rest > 0 => match window.take(rest.min(PIECE_BYTES_MAX)) {
                    0 => return Err(Blocked::Credit),
                    taken => taken,
                },
                _ => rest.min(SLOT_PIECE_BYTES_MAX),
            };
            let until = self.at + taken - extra;
            let is_last = taken == rest;
            let flags = if is_last { self.last } else { Flags::NONE };
            let lead = self.lead.take().unwrap_or(Lead::Body);
            let piece = self.data.get(py).get(self.at..until).unwrap_or_default();
            self.at = until;
            write(lead, piece, flags, stream, self.is_message, wire)?;
            if is_last {
                return Ok(());
            }
        }
    }
}

fn write(
    lead: Lead,
    piece: &[u8],
    flags: Flags,
    stream: u16,
    is_message: bool,
    wire: &mut Wire,
) -> Result<(), Gone> {
    let header = |kind: Kind, len: usize| {
        let mut header = encode_header(kind, flags, len as u32);
        set_stream(&mut header, stream);
        header
    };
    match lead {
        Lead::Head(mut out, head) => {
            let copied = piece.len() <= COPY_BYTES_MAX;
            if copied {
                out.extend_from_slice(piece);
            }
            let behind = if copied { &[][..] } else { piece };
            head.finish(&mut out, behind.len(), flags);
            set_stream(&mut out, stream);
            wire.send(&out, behind, None)
        }
        Lead::Detached(mut out, head, number) => {
            head.finish(&mut out, 0, Flags::NONE);
            let payload = out.get(HEADER_BYTES..).unwrap_or_default();
            let mut detached = encode_header(Kind::Detached, Flags::NONE, payload.len() as u32 + 2).to_vec();
            detached.extend_from_slice(&number.to_le_bytes());
            wire.send(&detached, payload, None)
        }
        Lead::Body if is_message => wire.send(&header(Kind::MessageToGateway, piece.len()), piece, None),
        // Says nothing: neither bytes nor an end.
        Lead::Body if piece.is_empty() && flags == Flags::NONE => Ok(()),
        Lead::Body => wire.send(&header(Kind::ResponseBody, piece.len()), piece, None),
        Lead::Message(kind) => {
            let mut head = header(Kind::MessageToGateway, piece.len() + 1).to_vec();
            head.push(kind);
            wire.send(&head, piece, None)
        }
        Lead::File(file, range) => {
            let mut payload = Vec::with_capacity(16);
            encode_response_file(&mut payload, range);
            wire.send(&header(Kind::ResponseFile, payload.len()), &payload, Some(file))
        }
        Lead::Whole(kind, payload) => wire.send(&header(kind, payload.len()), &payload, None),
    }
}
