//! A log entry written without Python, in the form of `quintet._log`.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const MESSAGE: &str =
    "a request is beyond its time limit, and Python hangs in a call into C: the stacks of its threads";

/// What is known of it.
pub(super) struct Entry<'a> {
    pub(super) request_id: &'a str,
    pub(super) worker: u32,
    pub(super) stacks: &'a str,
    /// Why there are none.
    pub(super) problem: &'a str,
}

impl Entry<'_> {
    /// To standard error, in one write.
    pub(super) fn write(&self, as_json: bool) {
        let now = timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros());
        let text = if as_json { self.json(&now) } else { self.text(&now) };
        // Standard error is closed: there is no place left to say so.
        let _closed = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn json(&self, now: &str) -> String {
        let mut entry = serde_json::json!({
            "timestamp": now, "level": "WARN", "message": MESSAGE, "request_id": self.request_id,
            "worker": self.worker, "target": "quintet.worker", "stacks": self.stacks,
        });
        if !self.problem.is_empty() {
            entry["problem"] = self.problem.into();
        }
        format!("{entry}\n")
    }

    fn text(&self, now: &str) -> String {
        // A JSON string is what the other half of the log shows a value as.
        let quoted = |value: &str| serde_json::Value::from(value).to_string();
        let problem = match self.problem {
            "" => String::new(),
            problem => format!(" problem={}", quoted(problem)),
        };
        let id = quoted(self.request_id);
        format!("{now}  WARN {MESSAGE} request_id={id}{problem} worker={}\n{}", self.worker, self.stacks)
    }
}

/// RFC 3339 with microseconds.
fn timestamp(micros: u128) -> String {
    let (seconds, micros) = ((micros / 1_000_000) as i64, micros % 1_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The calendar repeats every 400 years (146,097 days); years begin in March here, so that a leap day is the last.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}
