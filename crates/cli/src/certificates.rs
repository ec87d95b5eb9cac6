//! Certificates and keys are looked at before anything is started or reloaded with them.

use std::sync::Arc;

use ctl_config::{Loaded, Problems};
use http_gateway::tls::Identity;

use crate::failure::{Failure, Result};

/// Whether all can be used. What cannot is told with the line that names it, where its asker sees it: a reload fails then, and
/// the gateway keeps the old ones.
pub(crate) fn usable(loaded: &Loaded) -> Result<()> {
    match Identity::load(&Arc::new(loaded.config.clone())) {
        Ok(_) => Ok(()),
        Err(error) => {
            let problem = loaded.problem_of_certificate(error.index, error.message, error.detail, error.hint);
            Err(Failure::Config(Problems(vec![problem])))
        }
    }
}
