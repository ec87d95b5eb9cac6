//! Load from a schedule, without coordinated omission.
//!
//! `open` draws the arrival times of all requests before it starts (a Poisson process with a fixed seed) and counts each
//! latency from the moment a request was *due*, not from the moment a connection had time for it: a server that
//! stalls is charged for everybody who would have come meanwhile. wrk and h2load count from the send.
//! `closed` sends the next request on each connection when the last one was answered, and tells failures by kind.
//! `websocket` does so with messages on WebSockets that echo.
//! `echo` answers every request with the same bytes: what two system calls on the loopback cost, the limit printed
//! beside the figures.
//!
//! One thread holds one connection. That costs a switch of threads per request, which no server is charged for (CPU
//! is read from the server's processes only), and keeps this file short enough to be checked by reading.

mod client;
mod echo;
mod options;
mod report;
mod schedule;
mod websocket;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((command, rest)) if command == "open" => {
            options::parse(rest).and_then(|o| client::run(&o, true))
        }
        Some((command, rest)) if command == "closed" => {
            options::parse(rest).and_then(|o| client::run(&o, false))
        }
        Some((command, rest)) if command == "websocket" => {
            options::parse(rest).and_then(|o| websocket::run(&o))
        }
        Some((command, rest)) if command == "echo" => options::parse(rest).and_then(|o| echo::run(&o)),
        _ => Err(
            "usage: quintet-bench-load open|closed|websocket|echo --address HOST:PORT --path /… [--rate N] …"
                .into(),
        ),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}
