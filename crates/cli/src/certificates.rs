//! Certificates and keys, ours and those for upstreams, are looked at before anything is started or reloaded with them.

use std::sync::Arc;

use ctl_config::{Loaded, Problems};
use http_gateway::tls::{Identity, TlsError};
use http_gateway::upstream::{Secrets, Upstreams};

use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// Whether all can be used. What cannot is told with the line that names it, where its asker sees it: a reload fails then, and
/// the gateway keeps the old ones.
pub(crate) fn usable(loaded: &Loaded) -> Result<()> {
    match Identity::load(&Arc::new(loaded.config.clone())) {
        Ok(_) => usable_upstreams(loaded),
        Err(error) => {
            let TlsError { message, detail, hint, index, key } = error;
            let problem = loaded.problem_of_certificate(index, key, message, detail, hint);
            Err(Failure::Config(Problems(vec![problem])))
        }
    }
}

fn usable_upstreams(loaded: &Loaded) -> Result<()> {
    let unusable = |why: String| {
        Failure::new(Exit::Usage, "the files for TLS to an upstream cannot be used").detail(why).hint(
            "tls_ca, tls_certificate and tls_key name PEM files that the user who runs quintet may read",
        )
    };
    Upstreams::new(&loaded.config, &Secrets::default()).map(drop).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use ctl_config::{Sources, TextFile, load};

    use super::*;
    use crate::failure::Failure;

    #[test]
    fn files_for_upstreams_are_looked_at_too() {
        let text = "[[upstream]]\nname = \"api\"\nservers = \"https://a\"\ntls_ca = \"missing.pem\"\n";
        let file = Some(TextFile { path: "/srv/shop/quintet.toml".into(), text: text.into() });
        let loaded = load(&Sources { file, working_dir: "/srv/shop".into(), ..Sources::default() });
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        match usable(&loaded) {
            Err(Failure::One { detail: Some(detail), .. }) => {
                assert!(detail.starts_with("upstream \"api\": /srv/shop/missing.pem: "), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    }
}
