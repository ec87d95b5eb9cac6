//! Where the sockets of an instance are: the same answer for `run`, `status`, `reload` and `stop`.

use std::path::{Path, PathBuf};

use ctl_admin::place;
use ctl_config::Config;

use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// `sun_path` has 108 bytes on Linux (104 on macOS), one of them for the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The longest name we put into the runtime directory.
const LONGEST_NAME: &str = place::CONTROL_SOCKET;

/// The runtime directory of the project in `project`, absolute. Nothing is created here.
pub(crate) fn runtime_dir(config: &Config, project: &Path) -> Result<PathBuf> {
    let (dir, chosen) = match &config.server.runtime_dir {
        Some(dir) => (dir.clone(), false),
        None => (place::runtime_dir(project), true),
    };
    let bytes = dir.as_os_str().len() + 1 + LONGEST_NAME.len();
    if bytes <= SOCKET_PATH_BYTES_MAX {
        return Ok(dir);
    }
    let key = if chosen { "the runtime directory" } else { "server.runtime_dir" };
    Err(Failure::new(
        Exit::Usage,
        format!("{key} has a path that is too long for sockets: {}", dir.display()),
    )
    .detail(format!(
        "{LONGEST_NAME} in it would have {bytes} bytes; the system allows {SOCKET_PATH_BYTES_MAX}"
    ))
    .hint("choose a shorter one, for example --runtime-dir /run/quintet/shop"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_one_is_taken() {
        let mut config = Config::default();
        config.server.runtime_dir = Some("/run/shop".into());
        assert_eq!(runtime_dir(&config, Path::new("/srv/shop")).unwrap(), Path::new("/run/shop"));
    }

    #[test]
    fn without_one_the_project_decides() {
        let config = Config::default();
        let shop = runtime_dir(&config, Path::new("/srv/shop")).unwrap();
        assert_eq!(shop, runtime_dir(&config, Path::new("/srv/shop")).unwrap());
        assert_ne!(shop, runtime_dir(&config, Path::new("/srv/blog")).unwrap());
    }

    #[test]
    fn long_paths_are_explained() {
        let mut config = Config::default();
        config.server.runtime_dir = Some(format!("/{}", "d".repeat(100)).into());
        let text = runtime_dir(&config, Path::new("/srv")).unwrap_err().render(ctl_config::Style::default());
        assert!(text.contains("would have 114 bytes; the system allows 107"), "{text}");
    }
}
