//! Reading files into memory, from the kernel's memory only where the caller must not wait.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::root::{OpenError, Wait};

/// Reads `len` bytes from `start`, or fewer when the file has become shorter.
pub(super) fn read(file: &File, start: u64, len: u64, wait: Wait) -> Result<Vec<u8>, OpenError> {
    let mut bytes = vec![0; len as usize];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_some(file, rest, start + filled as u64, wait) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::OPNOTSUPP) if wait == Wait::Never => {
                return Err(OpenError::WouldBlock);
            }
            Err(other) => return Err(OpenError::System(other)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(target_os = "linux")]
fn read_some(file: &File, buffer: &mut [u8], offset: u64, wait: Wait) -> rustix::io::Result<usize> {
    use rustix::io::ReadWriteFlags;

    if wait == Wait::Never {
        // From the page cache or not at all.
        let mut buffers = [std::io::IoSliceMut::new(buffer)];
        return rustix::io::preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT);
    }
    read_waiting(file, buffer, offset)
}

#[cfg(not(target_os = "linux"))]
fn read_some(file: &File, buffer: &mut [u8], offset: u64, wait: Wait) -> rustix::io::Result<usize> {
    if wait == Wait::Never { Err(Errno::AGAIN) } else { read_waiting(file, buffer, offset) }
}

fn read_waiting(file: &File, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    file.read_at(buffer, offset).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
