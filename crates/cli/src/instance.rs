//! `quintet reload`, `quintet scale`, `quintet stop` and `quintet upgrade`, and how every command finds a running instance.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use ctl_admin::client::{self, ClientError};
use ctl_admin::words::Change;
use ctl_config::{Config, Style};

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::place;
use crate::setup::Request;

/// A running instance, or the place where it would be.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Its runtime directory.
    pub(crate) runtime_dir: PathBuf,
    /// Its configuration as it would be read now, or defaults where that has errors; what it runs with may differ.
    pub(crate) config: Config,
}

/// Finds the instance that the command line means.
pub(crate) fn find(matches: &ArgMatches) -> Result<Instance> {
    let request = Request::from_matches(matches)?;
    let config = match request.load() {
        Ok(loaded) => loaded.config,
        // A quintet.toml that was broken after the start must not keep anybody from asking or stopping.
        Err(Failure::Config(_)) => without_file(&request),
        Err(failure) => return Err(failure),
    };
    let project = env::current_dir().unwrap_or_default().join(&config.app.dir);
    Ok(Instance { runtime_dir: place::runtime_dir(&config, &project)?, config })
}

/// What the command line alone says about where the instance is.
fn without_file(request: &Request) -> Config {
    anstream::eprintln!("note: the configuration has errors as it is now (`quintet check` shows them)");
    let mut config = Config::default();
    let runtime_dir = request.flags.iter().find(|flag| flag.key == "server.runtime_dir");
    config.server.runtime_dir = runtime_dir.and_then(|flag| flag.values.last()).map(PathBuf::from);
    config.app.dir = request.project_dir.clone().unwrap_or_else(|| ".".into());
    config
}

/// Beyond the time that requests in flight may take: new processes, answers over the socket.
const MARGIN: Duration = Duration::from_secs(15);

/// The command.
pub(crate) fn reload(matches: &ArgMatches) -> Result<Exit> {
    let instance = find(matches)?;
    let config = &instance.config;
    // Workers are replaced one after another; each may take its start and its drain.
    let workers = config.workers.count.unwrap_or(1).max(status_workers(&instance));
    let each = config.workers.start_timeout + config.server.drain_timeout;
    let module = matches.get_one::<String>("module").cloned();
    let end = client::reload(&instance.runtime_dir, module, each * workers + MARGIN, progress);
    match end {
        Ok(text) => done(&text),
        Err(ClientError::Failed { .. }) if is_leaving(&instance) => {
            let failure = Failure::new(Exit::Failure, "there is no reload: the instance is stopping");
            Err(failure.hint("`quintet run` starts it with the new code"))
        }
        Err(ClientError::Failed { text, app }) => {
            Err(shown(&text, if app { Exit::App } else { Exit::Usage }))
        }
        Err(error) => Err(not_reached(error, &instance)),
    }
}

/// `+1`, `-1` or `4`.
pub(crate) fn parse_change(text: &str) -> std::result::Result<Change, String> {
    let change = match text.as_bytes().first() {
        Some(b'+' | b'-') => text.parse().map(Change::By),
        _ => text.parse().map(Change::To),
    };
    change.map_err(|_| "it is neither a number of workers nor a change of it, such as +1 or -1".to_owned())
}

/// The command.
pub(crate) fn scale(matches: &ArgMatches) -> Result<Exit> {
    let instance = find(matches)?;
    let pool = matches.get_one::<String>("pool").cloned();
    let Some(change) = matches.get_one::<Change>("workers").copied() else {
        // clap lets no command line pass without it.
        return Err(Failure::new(Exit::Usage, "how many workers?"));
    };
    match client::scale(&instance.runtime_dir, pool, change) {
        Ok(text) => done(&text),
        Err(ClientError::Failed { text, .. }) => Err(shown(&text, Exit::Failure)),
        Err(error) => Err(not_reached(error, &instance)),
    }
}

/// The command.
pub(crate) fn stop(matches: &ArgMatches) -> Result<Exit> {
    let instance = find(matches)?;
    let server = &instance.config.server;
    let patience = server.drain_delay + server.drain_timeout + MARGIN;
    match client::stop(&instance.runtime_dir, patience, progress) {
        Ok(text) => done(&text),
        Err(error) => Err(not_reached(error, &instance)),
    }
}

/// The command.
pub(crate) fn upgrade(matches: &ArgMatches) -> Result<Exit> {
    let instance = find(matches)?;
    let program = matches.get_one::<PathBuf>("program").map(|path| absolute(path));
    let config = &instance.config;
    // The new program starts all its workers, a few at a time; each may take its start.
    let workers = config.workers.count.unwrap_or(1).max(status_workers(&instance));
    let patience = (config.workers.start_timeout + MARGIN) * (workers + 1);
    match client::upgrade(&instance.runtime_dir, program, patience, progress) {
        Ok(text) => done(&text),
        Err(ClientError::Failed { text, app }) => {
            Err(shown(&text, if app { Exit::App } else { Exit::Usage }))
        }
        Err(error) => Err(not_reached(error, &instance)),
    }
}

/// The instance has said it all: what is wrong, and what goes on serving.
fn shown(text: &str, exit: Exit) -> Failure {
    anstream::eprintln!("{}", Style::COLOUR.paint(text.trim_end()));
    Failure::Shown(exit)
}

/// As the instance, which is somewhere else, understands it.
fn absolute(path: &Path) -> PathBuf {
    env::current_dir().map_or_else(|_| path.to_path_buf(), |here| here.join(path))
}

/// Stopping, or gone by now.
fn is_leaving(instance: &Instance) -> bool {
    client::status(&instance.runtime_dir).map_or(true, |status| status.state == "draining")
}

fn status_workers(instance: &Instance) -> u32 {
    client::status(&instance.runtime_dir).map_or(1, |status| status.workers.len().try_into().unwrap_or(1))
}

fn progress(text: &str) {
    anstream::eprintln!("{}·{} {text}", Style::COLOUR.hint, Style::COLOUR.reset);
}

fn done(text: &str) -> Result<Exit> {
    crate::print(&format!("{text}\n"))
}

/// A conversation that did not happen.
pub(crate) fn not_reached(error: ClientError, instance: &Instance) -> Failure {
    let at = instance.runtime_dir.display();
    match error {
        ClientError::NotRunning { .. } => Failure::new(
            Exit::NotRunning,
            "no instance of this project is running",
        )
        .detail(format!("nobody answers at {at}"))
        .hint(
            "name the project directory it was started with, or its --runtime-dir; `quintet run` starts one",
        ),
        ClientError::NotAllowed { .. } => Failure::new(Exit::Failure, "the instance belongs to another user")
            .detail(format!("its sockets are at {at}"))
            .hint("run the command as that user, or with sudo"),
        ClientError::Timeout { waited } => {
            Failure::new(Exit::Failure, "the instance has not finished in time")
                .detail(format!("waited {} s; it goes on by itself", waited.as_secs()))
                .hint("quintet status shows how far it is")
        }
        error => Failure::new(Exit::Failure, error.to_string()).detail(format!("its sockets are at {at}")),
    }
}

/// Its message is one line; what follows is a hint.
pub(crate) fn refused(error: ClientError, instance: &Instance) -> Failure {
    let ClientError::Failed { text, .. } = error else { return not_reached(error, instance) };
    match text.split_once("\nhint: ") {
        Some((message, hint)) => Failure::new(Exit::Failure, message).hint(hint),
        None => Failure::new(Exit::Failure, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_or_a_number() {
        let parse = |text| parse_change(text).ok();
        assert_eq!(
            ["+1", "-2", "4", "0"].map(parse),
            [Some(Change::By(1)), Some(Change::By(-2)), Some(Change::To(4)), Some(Change::To(0))]
        );
        assert_eq!(["", "+", "one", "1.5", "--1", "99999999999"].map(parse), [None; 6]);
    }
}
