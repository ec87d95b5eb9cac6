//! The body of an upstream's response out of its framing. No I/O, no clock.

use bytes::{Bytes, BytesMut};

use super::parse::{BadAnswer, Framing};
use crate::h1::chunked::ChunkedDecoder;
use crate::message::Headers;

/// Where in the body a connection stands.
#[derive(Debug)]
pub enum BodyDecoder {
    /// At its end.
    Done,
    /// So many bytes before its end.
    Left(u64),
    /// Between or within chunks.
    Chunked(Box<ChunkedDecoder>),
    /// The connection's end will be the body's.
    UntilClose,
}

impl BodyDecoder {
    /// At the start of a body.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Nothing | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Left(length),
            Framing::Chunked => Self::Chunked(Box::new(ChunkedDecoder::keeping_trailers())),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Has the last byte been read?
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// The data at the beginning of `input`, and how many bytes of it were used. After an error the decoder is spent.
    pub fn decode(&mut self, input: &[u8]) -> Result<(Bytes, usize), BadAnswer> {
        match self {
            Self::Done => Ok((Bytes::new(), 0)),
            Self::Left(_) | Self::UntilClose => {
                let bytes = self.at_once().min(input.len());
                let piece = Bytes::copy_from_slice(input.get(..bytes).unwrap_or_default());
                self.took(bytes);
                Ok((piece, bytes))
            }
            Self::Chunked(decoder) => {
                let mut piece = BytesMut::new();
                let used = decoder
                    .decode(input, &mut piece)
                    .map_err(|_| BadAnswer("the chunked coding of the response is malformed"))?;
                Ok((piece.freeze(), used))
            }
        }
    }

    /// How many of the next bytes are data, whatever they are: 0 where each must be looked at.
    pub fn at_once(&self) -> usize {
        match self {
            Self::Done | Self::Chunked(_) => 0,
            Self::Left(left) => usize::try_from(*left).unwrap_or(usize::MAX),
            Self::UntilClose => usize::MAX,
        }
    }

    /// `bytes` of data were read past the decoder; at most [`Self::at_once`].
    pub fn took(&mut self, bytes: usize) {
        if let Self::Left(left) = self {
            *left = left.saturating_sub(bytes as u64);
            if *left == 0 {
                *self = Self::Done;
            }
        }
    }

    /// The fields behind the body, once the coding says that it is over.
    pub fn finish_chunks(&mut self) -> Option<Headers> {
        let Self::Chunked(decoder) = self else { return None };
        if !decoder.is_done() {
            return None;
        }
        let trailers = decoder.take_trailers();
        *self = Self::Done;
        trailers
    }

    /// The server has closed its side in order. `Err`: it had promised more.
    pub fn end_of_file(&mut self) -> Result<(), BadAnswer> {
        match self {
            Self::Done => Ok(()),
            Self::UntilClose => {
                *self = Self::Done;
                Ok(())
            }
            Self::Left(_) | Self::Chunked(_) => {
                Err(BadAnswer("the connection ended before the response did"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data, whether it is done, bytes used, trailers.
    fn read(framing: Framing, input: &str) -> Result<(String, bool, usize, usize), BadAnswer> {
        let mut decoder = BodyDecoder::new(framing);
        let mut data = Vec::new();
        let mut used = 0;
        while used < input.len() && !decoder.is_done() {
            let (piece, bytes) = decoder.decode(&input.as_bytes()[used..])?;
            data.extend_from_slice(&piece);
            used += bytes;
            if decoder.finish_chunks().is_some_and(|trailers| trailers.get("x") == Some(b"y")) {
                return Ok((String::from_utf8(data).unwrap(), decoder.is_done(), used, 1));
            }
        }
        Ok((String::from_utf8(data).unwrap(), decoder.is_done(), used, 0))
    }

    #[test]
    fn each_framing_ends_where_it_says() {
        let ok = |data: &str, done, used, trailers| Ok((data.to_owned(), done, used, trailers));
        assert_eq!(read(Framing::Nothing, "surplus"), ok("", true, 0, 0));
        assert_eq!(read(Framing::Length(0), "surplus"), ok("", true, 0, 0));
        assert_eq!(read(Framing::Length(3), "abcdef"), ok("abc", true, 3, 0));
        assert_eq!(read(Framing::Length(9), "abcdef"), ok("abcdef", false, 6, 0));
        assert_eq!(read(Framing::UntilClose, "abc"), ok("abc", false, 3, 0));
        assert_eq!(read(Framing::Chunked, "2\r\nab\r\n0\r\n\r\nHTTP"), ok("ab", true, 12, 0));
        assert_eq!(read(Framing::Chunked, "2\r\nab\r\n0\r\nX: y\r\n\r\nHTTP"), ok("ab", true, 18, 1));
        assert_eq!(read(Framing::Chunked, "2\r\nab"), ok("ab", false, 5, 0));
        assert!(read(Framing::Chunked, "2\nab\n0\n\n").is_err());
        assert!(read(Framing::Chunked, "0\r\nContent-Length: 4\r\n\r\n").is_err());
    }

    #[test]
    fn an_end_of_file_is_an_end_only_where_it_was_to_be_one() {
        assert!(BodyDecoder::new(Framing::UntilClose).end_of_file().is_ok());
        assert!(BodyDecoder::new(Framing::Nothing).end_of_file().is_ok());
        assert!(BodyDecoder::new(Framing::Length(1)).end_of_file().is_err());
        assert!(BodyDecoder::new(Framing::Chunked).end_of_file().is_err());
    }
}
