//! The machines that compress: a whole body at a time, or a stream with flushes. No I/O; each call is measured.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use ctl_telemetry::metrics as m;
use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::zstd_safe::CParameter;

use crate::encoding::Coding;

// Of a page of 45 kB zstd 3 leaves 14.2 % for 0.9 µs a kB, gzip 5 13.8 % for 2.6, brotli 4 13.4 % for 4.9. One level more costs zstd and
// brotli three and five times as much for a twentieth less, gzip a third for nothing. The table is in docs/decisions/0017.
const GZIP_LEVEL: u32 = 5;
const ZSTD_LEVEL: i32 = 3;
const BROTLI_LEVEL: i32 = 4;

/// How far back an encoder looks, as a power of two: 128 KiB. Twice as much makes no page smaller that we have seen, half of it makes long
/// lists a tenth larger; and it is far below the 8 MiB that every decoder of zstd has (RFC 9659, 3).
const WINDOW_BITS: u32 = 17;

/// The tables of a zstd stream, as powers of two. With a window of 128 KiB larger ones save nothing, and the level's own take 966 KiB
/// instead of 455.
const ZSTD_TABLE_BITS: u32 = 15;

/// The output buffer inside of a brotli encoder.
const BROTLI_BUFFER_BYTES: usize = 4 << 10;

/// Memory that the encoders of all streams together may take; a stream beyond it goes out as it is. That is about 140 streams of zstd at
/// one time, which a machine with memory for so many requests in flight can spare.
pub(super) const MEMORY_BYTES_ALL: u64 = 64 << 20;

static MEMORY_BYTES_NOW: AtomicU64 = AtomicU64::new(0);

/// A whole body up to this is compressed where it is, on the reactor: half a millisecond at the costs above. Moving it to another thread
/// and back costs some 30 µs, and its own share of a core.
pub(super) fn at_once_bytes(coding: Coding) -> usize {
    match coding {
        Coding::Identity => usize::MAX,
        Coding::Zstd => 512 << 10,
        Coding::Gzip => 128 << 10,
        Coding::Brotli => 64 << 10,
    }
}

/// So much of a stream is compressed before the other tasks of the reactor have a turn: a third of a millisecond while the encoder is new and
/// its memory comes from the kernel, which makes it several times slower than later on.
fn stint_bytes(coding: Coding) -> usize {
    match coding {
        Coding::Identity => usize::MAX,
        Coding::Zstd => 64 << 10,
        Coding::Gzip => 32 << 10,
        Coding::Brotli => 16 << 10,
    }
}

/// Resident memory of a stream's encoder, measured.
fn memory_bytes(coding: Coding) -> u64 {
    match coding {
        Coding::Identity => 0,
        Coding::Zstd => 455 << 10,
        Coding::Gzip => 352 << 10,
        Coding::Brotli => 955 << 10,
    }
}

thread_local! {
    /// Kept for the next body: making one costs twice what a body of 2 kB does. It takes up to 1 MiB.
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses a whole body.
pub(super) fn whole(coding: Coding, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = measured(bytes.len(), || match coding {
        Coding::Identity => Ok(bytes.to_vec()),
        Coding::Zstd => ZSTD.with_borrow_mut(|kept| {
            let made = match kept.take() {
                Some(made) => made,
                None => zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            };
            kept.insert(made).compress(bytes)
        }),
        Coding::Gzip | Coding::Brotli => {
            let mut machine = Machine::new(coding, bytes.len())?;
            machine.write().write_all(bytes)?;
            machine.finish()
        }
    })?;
    // A slow client must not make us hold the room for what could not be compressed.
    packed.shrink_to_fit();
    m::COMPRESSION_OUT_BYTES_TOTAL.add(packed.len() as u64);
    Ok(packed)
}

/// Counts what goes in, and takes the time.
fn measured<T>(bytes_in: usize, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let started = Instant::now();
    let done = work();
    m::COMPRESSION_SECONDS.observe(started.elapsed());
    m::COMPRESSION_IN_BYTES_TOTAL.add(bytes_in as u64);
    done
}

enum Machine {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
}

impl Machine {
    /// `size_hint`: the bytes to come, or 0.
    fn new(coding: Coding, size_hint: usize) -> io::Result<Self> {
        let out = Vec::with_capacity(size_hint / 4);
        match coding {
            Coding::Identity => Err(io::ErrorKind::InvalidInput.into()),
            Coding::Gzip => Ok(Self::Gzip(GzEncoder::new(out, Compression::new(GZIP_LEVEL)))),
            Coding::Zstd => {
                let mut machine = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
                machine.set_parameter(CParameter::WindowLog(WINDOW_BITS))?;
                machine.set_parameter(CParameter::HashLog(ZSTD_TABLE_BITS))?;
                machine.set_parameter(CParameter::ChainLog(ZSTD_TABLE_BITS))?;
                Ok(Self::Zstd(machine))
            }
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_LEVEL,
                    lgwin: WINDOW_BITS as i32,
                    size_hint,
                    ..BrotliEncoderParams::default()
                };
                let machine = CompressorWriter::with_params(out, BROTLI_BUFFER_BYTES, &params);
                Ok(Self::Brotli(Box::new(machine)))
            }
        }
    }

    fn write(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(machine) => machine,
            Self::Zstd(machine) => machine,
            Self::Brotli(machine) => &mut **machine,
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(machine) => machine.get_mut(),
            Self::Zstd(machine) => machine.get_mut(),
            Self::Brotli(machine) => machine.get_mut(),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(machine) => machine.finish(),
            Self::Zstd(machine) => machine.finish(),
            Self::Brotli(machine) => Ok(machine.into_inner()),
        }
    }
}

/// The encoder of a stream.
pub(super) struct Encoder {
    machine: Machine,
    coding: Coding,
    _memory: Reserved,
}

impl Encoder {
    /// `None`: there are too many, or there is no memory.
    pub(super) fn new(coding: Coding) -> Option<Self> {
        let memory = Reserved::take(memory_bytes(coding))?;
        Some(Self { machine: Machine::new(coding, 0).ok()?, coding, _memory: memory })
    }

    /// Bytes between two rests.
    pub(super) fn stint_bytes(&self) -> usize {
        stint_bytes(self.coding)
    }

    /// Takes input.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        measured(bytes.len(), || self.machine.write().write_all(bytes))
    }

    /// Bytes of output that wait to be taken.
    pub(super) fn ready(&mut self) -> usize {
        self.machine.out().len()
    }

    /// The output so far.
    pub(super) fn take(&mut self) -> Vec<u8> {
        counted(std::mem::take(self.machine.out()))
    }

    /// The output of all the input so far.
    pub(super) fn flush(&mut self) -> io::Result<Vec<u8>> {
        measured(0, || self.machine.write().flush())?;
        Ok(self.take())
    }

    /// The end of the output.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        measured(0, || self.machine.finish()).map(counted)
    }
}

fn counted(out: Vec<u8>) -> Vec<u8> {
    m::COMPRESSION_OUT_BYTES_TOTAL.add(out.len() as u64);
    out
}

/// A part of [`MEMORY_BYTES_ALL`], given back on drop.
pub(super) struct Reserved(u64);

impl Reserved {
    pub(super) fn take(bytes: u64) -> Option<Self> {
        let room = |now: u64| Some(now + bytes).filter(|&then| then <= MEMORY_BYTES_ALL);
        if MEMORY_BYTES_NOW.fetch_update(Relaxed, Relaxed, room).is_err() {
            m::COMPRESSION_REFUSED_TOTAL.inc();
            return None;
        }
        m::COMPRESSION_MEMORY_BYTES.add(bytes as i64);
        Some(Self(bytes))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        MEMORY_BYTES_NOW.fetch_sub(self.0, Relaxed);
        m::COMPRESSION_MEMORY_BYTES.add(-(self.0 as i64));
    }
}
