//! Pieces of a file into memory, for transports that cannot `sendfile` (TLS, HTTP/2).
//!
//! A piece that is in the page cache is read at once; what would wait for the disk is read on a thread made for
//! waiting. A reactor never blocks.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags};

/// Four TLS records or HTTP/2 frames: large enough to make calls rare, small enough for many slow clients at once.
pub const PIECE_BYTES: usize = 64 << 10;

/// Reads up to `len` (at most [`PIECE_BYTES`]) bytes at `offset`; never an empty piece. `UnexpectedEof`: the file has become shorter.
pub async fn read_piece(file: &Arc<File>, offset: u64, len: u64) -> io::Result<Bytes> {
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(PIECE_BYTES);
    let mut piece = BytesMut::zeroed(len);
    let read =
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut piece)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => read,
            // Not in memory, or a file system that cannot tell.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                let file = Arc::clone(file);
                let waited = tokio::task::spawn_blocking(move || {
                    let read = file.read_at(&mut piece, offset)?;
                    Ok::<_, io::Error>((piece, read))
                });
                let read;
                (piece, read) = waited.await.map_err(io::Error::other)??;
                read
            }
            Err(errno) => return Err(errno.into()),
        };
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    piece.truncate(read);
    Ok(piece.freeze())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn reads_pieces_from_anywhere_and_notices_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; PIECE_BYTES + 3]).unwrap();
        let file = Arc::new(file);
        assert_eq!(read_piece(&file, 0, u64::MAX).await.unwrap().len(), PIECE_BYTES);
        assert_eq!(&read_piece(&file, PIECE_BYTES as u64, 100).await.unwrap()[..], [7; 3]);
        assert_eq!(read_piece(&file, 5, 2).await.unwrap().len(), 2);
        let past = read_piece(&file, PIECE_BYTES as u64 + 3, 1).await.unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
    }
}
