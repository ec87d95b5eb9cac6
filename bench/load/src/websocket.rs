//! WebSocket echoes in a closed loop: each connection sends a text message, reads it back, sends the next.
//!
//! No extension is offered, so every server answers with the same bytes; the mask is zero, which costs a server the
//! same work as any other. Pings are answered, since some servers send them by themselves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::report::Findings;

/// An echo that takes longer counts as a failure, and ends its connection.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Enough for a thread that only reads and writes.
const STACK_BYTES: usize = 128 << 10;
/// RFC 6455, 5.2: opcodes.
const TEXT: u8 = 0x1;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// RFC 6455, 5.2: lengths up to this are in the second byte; the generator's messages end before 64 kB.
const SHORT_MAX: usize = 125;

/// Runs the echoes and prints the findings.
pub fn run(options: &Options) -> Result<(), String> {
    if options.bytes > usize::from(u16::MAX) {
        return Err("--bytes: a message has at most 65535".into());
    }
    let ready = Arc::new(Barrier::new(options.connections + 1));
    let mut threads = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        let (options, ready) = (options.clone(), Arc::clone(&ready));
        let body = move || {
            let connection = Connection::open(&options);
            ready.wait();
            connection.map(|connection| echoes(connection, &options))
        };
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(body);
        threads.push(thread.map_err(|e| format!("no thread: {e}"))?);
    }
    ready.wait();
    let began = Instant::now();
    let mut findings = Findings::default();
    for thread in threads {
        match thread.join() {
            Ok(Ok(found)) => findings.merge(found),
            Ok(Err(error)) => return Err(format!("no WebSocket to {}: {error}", options.address)),
            Err(_) => return Err("a connection's thread ended early".into()),
        }
    }
    findings.print(began.elapsed());
    Ok(())
}

fn echoes(mut connection: Connection, options: &Options) -> Findings {
    let mut found = Findings::default();
    let message = frame(TEXT, &vec![b'x'; options.bytes]);
    let began = Instant::now();
    loop {
        let sent = began.elapsed();
        if sent >= options.warmup + options.duration {
            return found;
        }
        match connection.echo(&message, options.bytes) {
            Ok(()) => {
                found.answered += 1;
                if sent >= options.warmup {
                    let took = began.elapsed().saturating_sub(sent).as_micros();
                    found.fast.push(u32::try_from(took).unwrap_or(u32::MAX));
                }
            }
            Err(error) => {
                found.errors.broken += 1;
                found.examples.push(error.to_string());
                return found;
            }
        }
    }
}

/// A masked frame, as clients send it.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match u16::try_from(payload.len()) {
        Ok(length) if payload.len() > SHORT_MAX => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        _ => bytes.push(0x80 | payload.len() as u8),
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What of the buffer is filled.
    filled: usize,
}

impl Connection {
    fn open(options: &Options) -> std::io::Result<Self> {
        let stream = TcpStream::connect(&options.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut connection = Self { stream, buffer: vec![0; options.bytes + 4096], filled: 0 };
        write!(
            connection.stream,
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            options.path, options.address
        )?;
        let end = loop {
            connection.more()?;
            let head = &connection.buffer[..connection.filled];
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !connection.buffer.starts_with(b"HTTP/1.1 101") {
            let line = String::from_utf8_lossy(&connection.buffer[..end.min(60)]).into_owned();
            return Err(std::io::Error::other(format!("answered {line:?}")));
        }
        connection.take(end);
        Ok(connection)
    }

    fn echo(&mut self, message: &[u8], bytes: usize) -> std::io::Result<()> {
        self.stream.write_all(message)?;
        loop {
            let (opcode, length) = self.read_frame()?;
            match opcode {
                TEXT if length == bytes => return Ok(()),
                PING => self.stream.write_all(&frame(PONG, &[]))?,
                PONG => {}
                _ => return Err(std::io::Error::other(format!("opcode {opcode} with {length} bytes"))),
            }
        }
    }

    /// Reads a whole frame; its opcode and the length of its payload.
    fn read_frame(&mut self) -> std::io::Result<(u8, usize)> {
        loop {
            let bytes = &self.buffer[..self.filled];
            let lengths = match bytes {
                [_, 127, ..] => return Err(std::io::Error::other("a frame of more than was sent")),
                [_, 126, high, low, ..] => Some((4, usize::from(u16::from_be_bytes([*high, *low])))),
                [_, length, ..] if *length < 126 => Some((2, usize::from(*length))),
                _ => None,
            };
            match lengths {
                Some((head, length)) if self.filled >= head + length => {
                    let opcode = bytes[0] & 0x0f;
                    self.take(head + length);
                    return Ok((opcode, length));
                }
                _ => self.more()?,
            }
        }
    }

    fn more(&mut self) -> std::io::Result<()> {
        if self.filled == self.buffer.len() {
            return Err(std::io::Error::other("more than was sent"));
        }
        match self.stream.read(&mut self.buffer[self.filled..])? {
            0 => Err(std::io::Error::other("closed")),
            count => {
                self.filled += count;
                Ok(())
            }
        }
    }

    fn take(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        self.filled -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_rfc_6455_wants() {
        assert_eq!(frame(TEXT, b"ab"), [0x81, 0x82, 0, 0, 0, 0, b'a', b'b']);
        let long = frame(TEXT, &[0; 300]);
        assert_eq!(long[..4], [0x81, 0xfe, 1, 44]);
        assert_eq!(long.len(), 4 + 4 + 300);
    }
}
