//! What each coding and level costs and leaves of some files: the figures of docs/decisions/0017.
//!
//! ```text
//! compression_cost whole FILE…     µs a kB and what is left, by level
//! compression_cost stream FILE…    the same with flushes, and resident memory, as streams are compressed
//! ```

use std::io::{self, Write};
use std::time::Instant;

use brotli::enc::BrotliEncoderParams;
use zstd::zstd_safe::CParameter;

type Codec = (String, Box<dyn FnMut(&[u8]) -> io::Result<Vec<u8>>>);

/// Rounds of which the fastest counts: the machine is shared.
const ROUNDS: u32 = 12;

/// Encoders of each kind when memory is measured. None is dropped, so that none lives in what another one has left.
const ENCODERS: usize = 20;

fn codecs() -> io::Result<Vec<Codec>> {
    let mut all: Vec<Codec> = Vec::new();
    for level in 1..=9 {
        let gzip = move |bytes: &[u8]| {
            let out = Vec::with_capacity(bytes.len() / 3);
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(level));
            encoder.write_all(bytes)?;
            encoder.finish()
        };
        all.push((format!("gzip {level}"), Box::new(gzip)));
    }
    for level in [-3, -1, 1, 2, 3, 4, 5, 6, 7, 9] {
        let mut kept = zstd::bulk::Compressor::new(level)?;
        all.push((format!("zstd {level}"), Box::new(move |bytes| kept.compress(bytes))));
    }
    for quality in 0..=6 {
        let brotli = move |mut bytes: &[u8]| {
            let params = BrotliEncoderParams {
                quality,
                lgwin: 18,
                size_hint: bytes.len(),
                ..BrotliEncoderParams::default()
            };
            let mut out = Vec::with_capacity(bytes.len() / 3);
            brotli::BrotliCompress(&mut bytes, &mut out, &params)?;
            Ok(out)
        };
        all.push((format!("brotli {quality}"), Box::new(brotli)));
    }
    Ok(all)
}

fn whole(name: &str, input: &[u8]) -> io::Result<()> {
    let kilobytes = input.len() as f64 / 1000.0;
    println!("{name}, {kilobytes:.0} kB");
    let times = (100_000 / input.len().max(1)).clamp(1, 20) as u32;
    for (codec, mut pack) in codecs()? {
        let mut fastest = f64::MAX;
        let mut left = 0;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            for _ in 0..times {
                left = pack(input)?.len();
            }
            fastest = fastest.min(started.elapsed().as_secs_f64() / f64::from(times));
        }
        let share = left as f64 * 100.0 / input.len() as f64;
        println!("  {codec:10} {:6.2} us/kB {share:5.1} %", fastest * 1e6 / kilobytes);
    }
    Ok(())
}

/// Counts what is written.
struct Sink(std::rc::Rc<std::cell::Cell<usize>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.set(self.0.get() + bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encoder(coding: &str, sink: Sink) -> io::Result<Box<dyn Write>> {
    Ok(match coding {
        "gzip 5" => Box::new(flate2::write::GzEncoder::new(sink, flate2::Compression::new(5))),
        "brotli 4" => Box::new(brotli::CompressorWriter::new(sink, 4096, 4, 17)),
        _ => {
            let mut zstd = zstd::stream::write::Encoder::new(sink, 3)?;
            zstd.set_parameter(CParameter::WindowLog(17))?;
            if coding == "zstd 3, small tables" {
                zstd.set_parameter(CParameter::HashLog(15))?;
                zstd.set_parameter(CParameter::ChainLog(15))?;
            }
            Box::new(zstd)
        }
    })
}

/// Resident memory in KiB; Linux's page of 4 KiB.
fn resident() -> io::Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.map(|pages| pages * 4).ok_or(io::ErrorKind::InvalidData.into())
}

fn stream(name: &str, input: &[u8]) -> io::Result<()> {
    println!("{name}, {} kB", input.len() / 1000);
    let mut alive = Vec::new();
    for coding in ["gzip 5", "zstd 3", "zstd 3, small tables", "brotli 4"] {
        for piece_bytes in [16_384, 1000, 100] {
            let written = std::rc::Rc::default();
            let (before, started) = (resident()?, Instant::now());
            for _ in 0..ENCODERS {
                let mut encoder = encoder(coding, Sink(std::rc::Rc::clone(&written)))?;
                for piece in input.chunks(piece_bytes) {
                    encoder.write_all(piece)?;
                    encoder.flush()?;
                }
                alive.push(encoder);
            }
            let took = started.elapsed().as_secs_f64() * 1e6 / ENCODERS as f64;
            let share = written.get() as f64 * 100.0 / (ENCODERS * input.len()) as f64;
            let memory = resident()?.saturating_sub(before) / ENCODERS;
            let per_kilobyte = took * 1000.0 / input.len() as f64;
            println!(
                "  {coding:20} pieces of {piece_bytes:5}: {memory:4} KiB {per_kilobyte:6.2} us/kB {share:5.1} %"
            );
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let measure = match arguments.next().as_deref() {
        Some("whole") => whole,
        Some("stream") => stream,
        _ => return Err(io::Error::other("compression_cost whole|stream FILE…")),
    };
    for path in arguments {
        measure(&path, &std::fs::read(&path)?)?;
    }
    Ok(())
}
