//! The access log: a line for each response, to standard output.
//!
//! A reactor only formats its line into a buffer that is used again and again and appends it to the lines that
//! wait; a thread of its own writes them in large pieces. When whoever reads the log is too slow, lines are dropped
//! and counted: a log never holds up a request.

mod dev;
mod format;

use std::cell::RefCell;
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ctl_config::AccessLog as Format;
use ctl_telemetry::events::ACCESS_LOG_DROPPED;

use crate::message::Exchange;

/// Lines that may wait: about 20,000, what a busy host answers in a fraction of a second.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// Lines are gathered this long before they are written: fifty wake-ups a second at most, and nobody who watches the
/// log minds.
const GATHER: Duration = Duration::from_millis(20);

/// The open log. Dropping it writes what waits.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    colours: dev::Colours,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// The writer sleeps until it is woken.
    asleep: bool,
    /// No line comes any more.
    closed: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessLog {
    /// Opens the log, unless it is off.
    pub fn open(format: Format, output: impl Write + Send + 'static) -> io::Result<Option<Self>> {
        if format == Format::Off {
            return Ok(None);
        }
        let shared = Arc::new(Shared::default());
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || write_all(&shared, output)
        })?;
        let colours =
            if format == Format::Dev { dev::Colours::of_standard_output() } else { dev::Colours::default() };
        Ok(Some(Self { format, colours, shared, writer: Some(writer) }))
    }

    /// A response is over: its line.
    pub fn record(&self, exchange: &Exchange<'_>) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            let (took, date) = (exchange.trail.started.elapsed(), crate::h1::date::now());
            match self.format {
                Format::Json => format::json(line, exchange, took, &date),
                Format::Dev => dev::line(line, exchange, took, self.colours),
                Format::Text | Format::Off => format::text(line, exchange, took, &date),
            }
            self.append(line);
        });
    }

    fn append(&self, line: &[u8]) {
        let mut waiting = self.shared.waiting();
        if waiting.lines.len() + line.len() > WAITING_BYTES_MAX {
            drop(waiting);
            ACCESS_LOG_DROPPED.happened(format_args!("{WAITING_BYTES_MAX} bytes wait"));
            return;
        }
        waiting.lines.extend_from_slice(line);
        if mem::take(&mut waiting.asleep) {
            drop(waiting);
            self.shared.wake.notify_one();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.waiting().closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            // It does not panic; if it did, there would be nothing left to write with.
            let _ended = writer.join();
        }
    }
}

/// The life of the writing thread. The two buffers change places, so that neither is made anew.
fn write_all(shared: &Shared, mut output: impl Write) {
    let mut lines = Vec::new();
    loop {
        let closed = {
            let mut waiting = shared.waiting();
            while waiting.lines.is_empty() && !waiting.closed {
                waiting.asleep = true;
                waiting = shared.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            waiting.asleep = false;
            if !waiting.closed {
                // Nobody but the end wakes it from this.
                waiting = shared.wake.wait_timeout(waiting, GATHER).unwrap_or_else(PoisonError::into_inner).0;
            }
            mem::swap(&mut lines, &mut waiting.lines);
            waiting.closed
        };
        if let Err(error) = output.write_all(&lines).and_then(|()| output.flush()) {
            let lost = memchr::memchr_iter(b'\n', &lines).count();
            ACCESS_LOG_DROPPED.happened(format_args!("{error}; {lost} lines are lost"));
        }
        lines.clear();
        if closed {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
