//! How log lines are written: to standard error, one `write(2)` a line, as text for people or as JSON.
//!
//! Fields carry what belongs to the single case (`request_id`, `worker`, `detail`, `hint`); the message is the same each
//! time, so that it can be searched for. Secrets (tokens, cookies, bodies) are never given to a log call.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

pub use tracing::level_filters::LevelFilter;

/// Text for people or a JSON object a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Coloured on a terminal, unless `NO_COLOR` is set.
    Text,
    /// One object a line.
    Json,
}

/// Our own crates speak at the configured level; the libraries only from warnings up, or they would drown it.
const OURS: &[&str] = &[
    "cli",
    "ctl_admin",
    "ctl_config",
    "ctl_supervisor",
    "ctl_telemetry",
    "http_gateway",
    "py_link",
    "quintet",
];

/// Sends all log lines of this process to standard error. Fails when it was called before.
pub fn init(format: Format, level: LevelFilter) -> Result<(), TryInitError> {
    let lines = match format {
        Format::Text => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            fmt::layer().with_target(false).with_ansi(colour).with_writer(io::stderr).boxed()
        }
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter(level))).try_init()
}

fn filter(level: LevelFilter) -> Targets {
    OURS.iter().fold(Targets::new().with_default(level.min(LevelFilter::WARN)), |targets, ours| {
        targets.with_target(*ours, level)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_speak_from_warnings_up() {
        let filter = filter(LevelFilter::DEBUG);
        assert!(filter.would_enable("http_gateway::listen", &Level::DEBUG));
        assert!(filter.would_enable("rustls::conn", &Level::WARN));
        assert!(!filter.would_enable("h2::codec", &Level::INFO));
        let quiet = super::filter(LevelFilter::ERROR);
        assert!(!quiet.would_enable("h2::codec", &Level::WARN));
    }

    /// Takes lines as a terminal would, and remembers each single write.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl io::Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_write_and_holds_no_raw_control_character() {
        let writes = Writes::default();
        let made = writes.clone();
        let lines = fmt::layer().json().flatten_event(true).with_writer(move || made.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::warn!(request_id = "r1", detail = %"two\nlines \u{1b}[31m", "a cup fell");
        });
        let writes = writes.0.lock().unwrap();
        assert_eq!(writes.len(), 1, "{writes:?}");
        let line: serde_json::Value = serde_json::from_str(&writes[0]).unwrap();
        assert_eq!(line["message"], "a cup fell");
        assert_eq!(line["request_id"], "r1");
        assert_eq!(writes[0].matches('\n').count(), 1);
        assert!(!writes[0].contains('\u{1b}'));
    }
}
