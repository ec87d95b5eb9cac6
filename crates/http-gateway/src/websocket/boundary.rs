//! Where in a stream of frames (RFC 6455, 5.2) a reader stands, without understanding them: so that a conversation that is passed
//! through as bytes can be ended between two frames. Pure.

use super::frame::HEAD_BYTES_MAX;

const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 8;
const MASKED: u8 = 0x80;

#[derive(Debug, Clone, Copy)]
enum At {
    /// So many bytes of a head are known; none: between two frames.
    Head([u8; HEAD_BYTES_MAX], usize),
    /// So many bytes of payload are to come.
    Payload(u64),
    /// What came is no frame: nobody knows where the next one begins.
    Lost,
}

/// See the head of this file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frames {
    at: At,
    closed: bool,
}

impl Frames {
    /// At the beginning.
    pub(super) fn new() -> Self {
        Self { at: At::Head([0; HEAD_BYTES_MAX], 0), closed: false }
    }

    /// Is a whole frame the last that came?
    pub(super) fn is_between(&self) -> bool {
        matches!(self.at, At::Head(_, 0))
    }

    /// Has a close frame begun? It is the last of its side (5.5.1).
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes all of these in.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.frame(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Takes in what belongs to the frame that has begun: how many bytes of these.
    pub(super) fn finish(&mut self, bytes: &[u8]) -> usize {
        if self.is_between() { 0 } else { self.frame(bytes) }
    }

    /// Takes bytes in up to the end of a frame, or all of them.
    fn frame(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        if let At::Head(mut head, mut known) = self.at {
            loop {
                if known >= 2 && known == head_bytes(head[1]) {
                    self.closed |= head[0] & OPCODE == CLOSE;
                    self.at = match payload_bytes(&head) {
                        Some(0) => At::Head([0; HEAD_BYTES_MAX], 0),
                        Some(left) => At::Payload(left),
                        None => At::Lost,
                    };
                    break;
                }
                let (Some(&byte), Some(place)) = (bytes.get(taken), head.get_mut(known)) else {
                    self.at = At::Head(head, known);
                    break;
                };
                *place = byte;
                (known, taken) = (known + 1, taken + 1);
            }
        }
        let rest = (bytes.len() - taken) as u64;
        match self.at {
            At::Head(..) => taken,
            At::Payload(left) if left > rest => {
                self.at = At::Payload(left - rest);
                bytes.len()
            }
            At::Payload(left) => {
                self.at = At::Head([0; HEAD_BYTES_MAX], 0);
                // No more than there are.
                taken + left as usize
            }
            At::Lost => bytes.len(),
        }
    }
}

/// How long a head is, by its second byte.
fn head_bytes(second: u8) -> usize {
    let length = match second & !MASKED {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & MASKED == 0 { 0 } else { 4 }
}

fn payload_bytes(head: &[u8; HEAD_BYTES_MAX]) -> Option<u64> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u64, &byte| number << 8 | u64::from(byte));
    match head[1] & !MASKED {
        126 => Some(number(&head[2..4])),
        127 => Some(number(&head[2..10])).filter(|&length| i64::try_from(length).is_ok()),
        length => Some(u64::from(length)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut frame = vec![first];
        match payload {
            0..126 => frame.push(mask | payload as u8),
            126..=0xffff => {
                frame.push(mask | 0x7e);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 0x7f);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0x88; payload + if masked { 4 } else { 0 }]);
        frame
    }

    proptest! {
        /// However the bytes are cut, the boundaries are where the frames end.
        #[test]
        fn boundaries_are_found(
            frames in prop::collection::vec((any::<bool>(), prop_oneof![0_usize..200, 60_000_usize..70_000]), 1..6),
            cuts in prop::collection::vec(1_usize..70_000, 0..20),
        ) {
            let all: Vec<_> = frames.iter().map(|(masked, payload)| frame(0x82, *masked, *payload)).collect();
            let ends: Vec<_> = all.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            let wire = all.concat();
            let (mut at, mut reader) = (0, Frames::new());
            for cut in cuts.into_iter().chain([wire.len()]) {
                let end = (at + cut).min(wire.len());
                reader.advance(&wire[at..end]);
                at = end;
                prop_assert_eq!(reader.is_between(), at == 0 || ends.contains(&at));
                let mut finishing = reader;
                let taken = at + finishing.finish(&wire[at..]);
                prop_assert!(finishing.is_between() && (taken == 0 || ends.contains(&taken)));
            }
            prop_assert!(!reader.is_closed());
        }
    }

    #[test]
    fn a_close_and_what_is_no_frame() {
        let mut reader = Frames::new();
        reader.advance(&[frame(0x81, true, 5), frame(0x88, true, 2)].concat());
        assert!(reader.is_closed() && reader.is_between());
        let mut reader = Frames::new();
        reader.advance(&[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(!reader.is_between());
        assert_eq!(reader.finish(&[0; 100]), 100);
        assert!(!reader.is_between(), "never again");
    }
}
