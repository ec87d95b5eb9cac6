//! Why a number of workers is wanted: for `quintet status` and the log, read by somebody who was just woken up.

use std::fmt;
use std::time::Duration;

/// Why a number of workers is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing to change.
    Steady,
    /// Somebody asked for a pool that had no worker.
    Woken,
    /// Up: requests wait too long.
    Waited {
        /// The first in line.
        head_wait: Duration,
        /// What would have been all right.
        allowed: Duration,
    },
    /// Up: every slot is held by a request that lasts, and nothing moves.
    Stuck {
        /// The first in line.
        head_wait: Duration,
        /// Slots, all of them held.
        slots: u32,
    },
    /// Down: few slots were busy.
    Quiet {
        /// Busy slot time, of a hundred.
        busy_percent: u8,
        /// For how long.
        over: Duration,
    },
    /// Down to none: nobody asked.
    Idle {
        /// For how long.
        over: Duration,
    },
    /// Not up: the CPU is what is short.
    CpuShort {
        /// The first in line.
        head_wait: Duration,
        /// In use, of a hundred.
        cpu_percent: u8,
    },
    /// Not up: memory is what is short.
    MemoryShort {
        /// The first in line.
        head_wait: Duration,
        /// In use by all workers.
        used_bytes: u64,
        /// What one more takes.
        one_more_bytes: u64,
        /// `workers.memory_total_max`.
        max_bytes: u64,
    },
    /// Not up: database connections are what is short.
    ConnectionsShort {
        /// The first in line.
        head_wait: Duration,
        /// May be open now.
        open: u32,
        /// What one more worker may open.
        one_more: u32,
        /// `workers.db_connections_max`.
        max: u32,
    },
    /// Not up: the configuration allows no more.
    AtMax {
        /// The first in line.
        head_wait: Duration,
        /// The bound.
        max: u32,
    },
    /// Not up: the last ones brought nothing, so what is short lies behind the workers.
    NotHelping {
        /// Workers before.
        before: u32,
        /// Answers a second before.
        before_rate: u32,
        /// Workers now.
        now: u32,
        /// Answers a second now.
        now_rate: u32,
    },
}

impl Why {
    /// More workers were needed and could not be had: worth a note in `quintet status`.
    pub fn is_short(&self) -> bool {
        matches!(
            self,
            Self::CpuShort { .. }
                | Self::MemoryShort { .. }
                | Self::ConnectionsShort { .. }
                | Self::AtMax { .. }
                | Self::NotHelping { .. }
        )
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Steady => write!(f, "steady"),
            Self::Woken => write!(f, "a request came while there was no worker"),
            Self::Waited { head_wait, allowed } => {
                write!(
                    f,
                    "a request waited {} for a worker ({} is all right)",
                    Time(head_wait),
                    Time(allowed)
                )
            }
            Self::Stuck { head_wait, slots } => write!(
                f,
                "long requests hold all {slots} slots, and the next one has waited {}",
                Time(head_wait)
            ),
            Self::Quiet { busy_percent, over } => {
                write!(f, "only {busy_percent} % of the slots were busy for {}", Time(over))
            }
            Self::Idle { over } => write!(f, "no request for {}", Time(over)),
            Self::CpuShort { head_wait, cpu_percent } => write!(
                f,
                "CPU is what is short: requests wait {} and the CPU is {cpu_percent} % busy, so more workers would not help; \
                 when it lasts, the least important requests are refused",
                Time(head_wait)
            ),
            Self::MemoryShort { head_wait, used_bytes, one_more_bytes, max_bytes } => write!(
                f,
                "memory is what is short: requests wait {}, but the workers take {} and one more ({}) would pass \
                 workers.memory_total_max = {}",
                Time(head_wait),
                Size(used_bytes),
                Size(one_more_bytes),
                Size(max_bytes)
            ),
            Self::ConnectionsShort { head_wait, open, one_more, max } => write!(
                f,
                "database connections are what is short: requests wait {}, but the workers may open {open} and one more \
                 worker {one_more}, which would pass workers.db_connections_max = {max}",
                Time(head_wait)
            ),
            Self::AtMax { head_wait, max } => write!(
                f,
                "requests wait {} and all workers that the configuration allows run (max = {max})",
                Time(head_wait)
            ),
            Self::NotHelping { before, before_rate, now, now_rate } => write!(
                f,
                "more workers do not help: {before} answered {before_rate} requests a second, {now} answer {now_rate}; \
                 what is short lies behind them (the database, or another service)"
            ),
        }
    }
}

/// A duration in the unit in which people say it.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            0..1000 => write!(f, "{} ms", self.0.as_millis()),
            1000..10_000 => write!(f, "{:.1} s", self.0.as_secs_f32()),
            _ => write!(f, "{} s", self.0.as_secs()),
        }
    }
}

/// Bytes as MiB or GiB.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 >> 20;
        if mib < 10 * 1024 { write!(f, "{mib} MiB") } else { write!(f, "{} GiB", mib >> 10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_what_is_short_and_by_how_much() {
        let head_wait = Duration::from_millis(1234);
        let texts = [
            Why::Waited { head_wait, allowed: Duration::from_millis(5) },
            Why::Stuck { head_wait, slots: 4 },
            Why::CpuShort { head_wait, cpu_percent: 93 },
            Why::MemoryShort {
                head_wait,
                used_bytes: 1900 << 20,
                one_more_bytes: 85 << 20,
                max_bytes: 12 << 30,
            },
            Why::ConnectionsShort { head_wait, open: 78, one_more: 4, max: 80 },
            Why::NotHelping { before: 4, before_rate: 52, now: 12, now_rate: 53 },
        ]
        .map(|why| why.to_string());
        assert_eq!(
            texts,
            [
                "a request waited 1.2 s for a worker (5 ms is all right)",
                "long requests hold all 4 slots, and the next one has waited 1.2 s",
                "CPU is what is short: requests wait 1.2 s and the CPU is 93 % busy, so more workers would not help; when it \
                 lasts, the least important requests are refused",
                "memory is what is short: requests wait 1.2 s, but the workers take 1900 MiB and one more (85 MiB) would pass \
                 workers.memory_total_max = 12 GiB",
                "database connections are what is short: requests wait 1.2 s, but the workers may open 78 and one more \
                 worker 4, which would pass workers.db_connections_max = 80",
                "more workers do not help: 4 answered 52 requests a second, 12 answer 53; what is short lies behind them \
                 (the database, or another service)",
            ]
        );
    }
}
