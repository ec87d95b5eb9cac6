//! The commands: the one place where the players are joined.
//!
//! A command reads its configuration ([`setup`]), decides what to do (pure modules: [`project`], [`sizing`]), and hands
//! a plan to whoever acts: the supervisor, the gateway, a running instance. Results go to standard output, everything
//! else to standard error. Colours only on a terminal, never with `NO_COLOR`.

mod args;
mod bans;
mod certificates;
mod check;
mod dev;
mod exit;
mod failure;
mod gateway;
mod import;
mod instance;
mod machine;
mod modules;
mod pages;
mod patience;
mod place;
mod project;
mod python;
mod routes;
mod run;
mod settings;
mod setup;
mod sizing;
mod status;
mod upstream;

use std::process::ExitCode;

use clap::ArgMatches;
use ctl_config::Style;

use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// The whole program: reads the command line, does what it says, returns the exit code.
pub fn main() -> ExitCode {
    let matches = args::command().get_matches();
    let exit = dispatch(&matches).unwrap_or_else(|failure| {
        // Of a program that is to take over, the instance that started it tells.
        let shown = matches!(failure, Failure::Shown(_))
            || ctl_supervisor::tell_elder(&failure.render(Style::default()));
        if !shown {
            anstream::eprint!("{}", failure.render(Style::COLOUR));
        }
        failure.exit()
    });
    exit.into()
}

fn dispatch(matches: &ArgMatches) -> Result<Exit> {
    match matches.subcommand() {
        Some(("run", matches)) => run::run(matches),
        Some(("dev", matches)) => dev::run(matches),
        Some(("check", matches)) => check::run(matches),
        Some(("import", matches)) => import::run(matches),
        Some(("config", matches)) => settings::run(matches),
        Some(("routes", matches)) => routes::run(matches),
        Some(("status", matches)) => status::run(matches),
        Some(("reload", matches)) => instance::reload(matches),
        Some(("scale", matches)) => instance::scale(matches),
        Some(("stop", matches)) => instance::stop(matches),
        Some(("upgrade", matches)) => instance::upgrade(matches),
        Some(("bans", matches)) => bans::run(matches),
        Some(("upstream", matches)) => upstream::run(matches),
        Some(("version", matches)) => pages::version(matches),
        Some(("help", matches)) => pages::help(matches),
        Some(("internal-gateway", _)) => gateway::run(),
        Some(("internal-docs", matches)) => pages::write(matches),
        // clap lets no other name pass.
        _ => Err(Failure::new(Exit::Usage, "there is no such command").hint("quintet help")),
    }
}

/// Prints a result. A reader that went away (`quintet config show | head`) is no failure.
fn print(text: &str) -> Result<Exit> {
    use std::io::Write as _;

    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, "standard output cannot be written").detail(error.to_string()))
        }
        _ => Ok(Exit::Success),
    }
}

/// Prints an object, indented.
fn print_json(value: &serde_json::Value) -> Result<Exit> {
    print(&format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    /// `ctl-config` sees to it that a request's head and body fit one frame, and lies below `py-link`.
    #[test]
    fn the_frame_of_the_configuration_is_the_frame_of_the_link() {
        assert_eq!(ctl_config::FRAME_BYTES_MAX, u64::from(py_link::PAYLOAD_BYTES_MAX));
    }
}
