//! The command line: `--name value` pairs.

use std::time::Duration;

/// What to send, where, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    pub address: String,
    /// The ordinary request.
    pub path: String,
    /// The slow one, and which share of the requests it has (0 to 1).
    pub slow_path: Option<String>,
    pub slow_share: f64,
    /// Requests a second (open loop).
    pub rate: f64,
    pub duration: Duration,
    /// Sent but not recorded: connections open, caches fill.
    pub warmup: Duration,
    pub connections: usize,
    pub seed: u64,
    /// `closed`: stop after so many requests, if earlier than `duration`.
    pub requests_max: u64,
    /// `echo`: how many bytes an answer has in all; `websocket`: how many a message has.
    pub bytes: usize,
}

/// Reads the pairs after the command.
pub fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        address: String::new(),
        path: "/".into(),
        slow_path: None,
        slow_share: 0.0,
        rate: 100.0,
        duration: Duration::from_secs(5),
        warmup: Duration::ZERO,
        connections: 64,
        seed: 1,
        requests_max: u64::MAX,
        bytes: 200,
    };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
        match name.as_str() {
            "--address" => options.address.clone_from(value),
            "--path" => options.path.clone_from(value),
            "--slow-path" => options.slow_path = Some(value.clone()),
            "--slow-share" => options.slow_share = number(name, value)?,
            "--rate" => options.rate = number(name, value)?,
            "--seconds" => options.duration = seconds(name, value)?,
            "--warmup" => options.warmup = seconds(name, value)?,
            "--connections" => options.connections = number(name, value)?,
            "--seed" => options.seed = number(name, value)?,
            "--requests" => options.requests_max = number(name, value)?,
            "--bytes" => options.bytes = number(name, value)?,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    if options.address.is_empty() || options.rate <= 0.0 || options.connections == 0 {
        return Err("--address, a rate above 0 and at least one connection are needed".into());
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: {value} is no number"))
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    let seconds: f64 = number(name, value)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{name}: {value} is no time"))
}
