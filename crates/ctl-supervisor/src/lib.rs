//! The supervisor: binds the listening sockets, starts the gateway and the workers, and starts them again.

mod backoff;
mod event;
pub mod inherit;
mod plan;
mod state;

pub use plan::{Outcome, Problem, ReloadConfig, RunPlan};

/// Runs an instance until it is told to stop.
pub fn run(plan: RunPlan) -> Outcome {
    Outcome::Failed(Problem::new("the supervisor is not built yet").detail(format!("{plan:?}")))
}
