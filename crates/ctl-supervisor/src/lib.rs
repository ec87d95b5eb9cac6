//! The supervisor: binds the listening sockets, starts the gateway and the workers, and starts them again.
//!
//! A tiny process that does nothing else: one thread, no runtime, no Python, no HTTP. Everything else may crash and
//! come back while the sockets live on here. It is process 1 in a container, and reaps what processes 1 reap.
//!
//! The way through: [`run`] builds the house (`house.rs`: runtime directory, sockets, secret) and gives it to the
//! driver (`driver.rs`: `poll`, children, control sockets), which asks the state machine (`state.rs`: pure) what to
//! do about each thing that happens.
//!
//! Promises: children never outlive it (they see the end of their control socket; what is left is killed at the end);
//! everything it waits for has a deadline; a child's file descriptors are exactly those it needs.

mod backoff;
pub mod cgroup;
mod driver;
mod event;
mod house;
pub mod inherit;
mod inotify;
mod limits;
mod listen;
mod peer;
mod plan;
mod proc;
mod report;
mod runtime_dir;
mod state;
mod systemd;
mod upgrade;
mod user;

use std::path::Path;

use ctl_config::Config;

pub use plan::{Banner, ModulePlan, Outcome, Problem, ReloadConfig, RunPlan};
pub use upgrade::tell_elder;

use driver::Driver;
use house::House;
use upgrade::Heritage;

/// What would keep an instance from starting with this configuration, of the things that only the supervisor knows:
/// the workers' user, and whether the runtime directory may be trusted and entered. Changes nothing.
///
/// # Errors
/// The problem that [`run`] would end with.
pub fn look(config: &Config, runtime_dir: &Path) -> Result<(), Problem> {
    runtime_dir::look(runtime_dir)?;
    match user::resolve(&config.workers)? {
        Some(user) => runtime_dir::enterable(runtime_dir, &user.identity),
        None => Ok(()),
    }
}

/// Runs an instance until it is told to stop, and returns when all its processes are gone.
///
/// Call it from a process with a single thread, and once: it takes over the signals SIGTERM, SIGINT, SIGHUP,
/// SIGTTIN, SIGTTOU and SIGCHLD and waits for every child process there is.
///
/// SIGTERM and SIGINT drain and stop (a second one hurries, a third kills); SIGHUP and [`ctl_admin::words::Command::Reload`]
/// replace the workers one after another and have the certificates read again; SIGTTIN and SIGTTOU
/// add and take away a worker until then. Of a configuration that
/// [`RunPlan::reload_config`] returns, these take effect at a reload: `app.callable`, `app.settings`, `app.interface` and
/// `workers` but for its user. The rest needs a new start.
pub fn run(plan: RunPlan) -> Outcome {
    limits::raise_open_files();
    let adopts = limits::adopt_orphans();
    let build = || {
        let heritage = Heritage::from_env()?;
        let elder = heritage
            .as_ref()
            .map(|from| Ok((from.elder_peer()?, from.staff.clone(), from.drained.clone())))
            .transpose()?;
        let (house, control) = House::build(plan, adopts, heritage)?;
        Driver::new(house, control, elder, limits::seed())
    };
    match build() {
        Ok(driver) => driver.run(),
        Err(problem) => Outcome::Failed(problem),
    }
}
