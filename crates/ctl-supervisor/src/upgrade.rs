//! What passes between an instance and its heir, the instance that a newer program starts to take its place.
//!
//! ```text
//!   elder                                   heir (`quintet run`, with QUINTET_HEIR in its environment)
//!     │ starts it; it inherits the sockets    │
//!     │                                       │ starts a gateway and workers of its own
//!     │                     progress, serves  │ all its workers serve
//!     │◄──────────────────────────────────────│
//!     │ yours                                 │
//!     │──────────────────────────────────────►│ takes the names: control.sock, the lock, unix listeners
//!     │                                 mine  │
//!     │◄──────────────────────────────────────│
//!     │ main                                  │ (the service manager knows the heir's process id by now)
//!     │──────────────────────────────────────►│
//!     │ finishes its requests and goes        ▼
//! ```
//!
//! The two may be of different versions: a message that is not understood is passed over, a field that is missing has a
//! default, and nothing else is shared between them. End of file before "yours" means to the heir that nobody wants it any
//! more. See docs/decisions/0009-upgrade.md.

mod program;
pub(crate) mod stay;

use std::env;
use std::io::Write as _;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ctl_admin::lines::line;
use ctl_admin::words::Drained;
use serde::{Deserialize, Serialize};

use crate::inherit;
use crate::plan::Problem;

pub(crate) use program::Origin;

/// The environment variable that makes an instance an heir: a [`Heritage`] as JSON.
pub(crate) const ENV: &str = "QUINTET_HEIR";

/// To tell the elder something at the very end: it reads at once, or it is gone.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

/// What an heir inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Heritage {
    /// The socket to the elder.
    pub(crate) elder: RawFd,
    /// The open lock file. The lock belongs to whoever has it open, which both do for a while.
    pub(crate) lock: RawFd,
    /// The runtime directory goes with the instance.
    pub(crate) made_dir: bool,
    pub(crate) runtime_dir: PathBuf,
    /// How many upgrades lie behind this instance: its own sockets are named after it.
    pub(crate) ordinal: u32,
    /// Client listeners and the admin socket.
    pub(crate) sockets: Vec<Socket>,
    /// How many workers each pool has.
    pub(crate) staff: Vec<u32>,
    /// Servers of upstreams that get no new requests.
    pub(crate) drained: Vec<Drained>,
    /// A process that does not go away hands on the signals: the first elder of all.
    pub(crate) parent_stays: bool,
}

/// An inherited listening socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Socket {
    pub(crate) fd: RawFd,
    /// As [`ctl_admin::words::Listener::name`]; the same name in the heir's configuration gets this socket.
    pub(crate) name: String,
}

/// Heir to elder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum FromHeir {
    /// It gets on.
    Progress { text: String },
    /// All its workers serve.
    Serves,
    /// It has the names; these unix listeners are its own from now on.
    Mine { kept: Vec<String> },
    /// It cannot serve, and goes. Why, for people; a traceback begins it where there is one.
    Failed {
        text: String,
        /// It is the app that does not start.
        #[serde(default)]
        app: bool,
    },
}

/// Elder to heir.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum ToHeir {
    /// Take the names.
    Yours,
    /// It is the main process now; the service manager has been told.
    Main,
}

/// For last words to the elder when nothing else is left of the instance.
enum Ear {
    /// Nobody has taken possession of the socket yet.
    Untaken,
    /// A second handle on it.
    Open(UnixStream),
    /// What happens to this process is no longer the elder's business.
    Shut,
}

static ELDER: Mutex<Ear> = Mutex::new(Ear::Untaken);

fn elder() -> MutexGuard<'static, Ear> {
    ELDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on this process speaks for itself.
pub(crate) fn shut_elders_ear() {
    *elder() = Ear::Shut;
}

impl Heritage {
    /// What this process has inherited. `None`: it is nobody's heir.
    pub(crate) fn from_env() -> Result<Option<Self>, Problem> {
        let Some(text) = env::var_os(ENV) else { return Ok(None) };
        let problem =
            |detail: String| Problem::new(format!("{ENV} is set, but not by an upgrade")).detail(detail);
        let text = text.into_string().map_err(|_| problem("it is not text".to_owned()))?;
        serde_json::from_str(&text).map(Some).map_err(|error| problem(error.to_string()))
    }

    /// Takes possession of the socket to the elder.
    pub(crate) fn take_elder(&self) -> Result<UnixStream, Problem> {
        let problem = |error: std::io::Error| {
            Problem::new(format!("{ENV} is set, but not by an upgrade")).detail(error.to_string())
        };
        let socket = UnixStream::from(inherit::take(self.elder).map_err(problem)?);
        *elder() = Ear::Open(socket.try_clone().map_err(problem)?);
        Ok(socket)
    }

    pub(crate) fn take_lock(&self) -> Result<OwnedFd, Problem> {
        inherit::take(self.lock).map_err(|error| {
            Problem::new("the lock of the runtime directory was not inherited").detail(error.to_string())
        })
    }
}

/// When this process is an heir: tells the elder why it ends, so that whoever asked for the upgrade reads it. Says whether
/// that was so; the elder then logs it, and it need not be printed here.
pub fn tell_elder(text: &str) -> bool {
    let Ok(Some(heritage)) = Heritage::from_env() else { return false };
    let untaken = matches!(*elder(), Ear::Untaken);
    if untaken && heritage.take_elder().is_err() {
        return false;
    }
    let Ear::Open(socket) = &mut *elder() else { return false };
    let failed = FromHeir::Failed { text: text.trim_end().to_owned(), app: false };
    let Ok(line) = line(&failed) else { return false };
    // Blocking from here on, for both handles: nothing comes after it.
    socket.set_nonblocking(false).is_ok()
        && socket.set_write_timeout(Some(TELL_TIMEOUT)).is_ok()
        && socket.write_all(&line).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_heir_of_another_version_is_understood_as_far_as_it_goes() {
        let newer = r#"{"elder":7,"sockets":[{"fd":3,"name":"127.0.0.1:80","colour":"red"}],"mood":"good"}"#;
        let heritage: Heritage = serde_json::from_str(newer).unwrap();
        assert_eq!(heritage.sockets, [Socket { fd: 3, name: "127.0.0.1:80".to_owned() }]);
        assert_eq!((heritage.elder, heritage.ordinal), (7, 0));
    }

    #[test]
    fn words_survive_the_way() {
        for said in [
            FromHeir::Progress { text: "1 of 2".to_owned() },
            FromHeir::Serves,
            FromHeir::Mine { kept: vec!["unix:/run/shop.sock".to_owned()] },
            FromHeir::Failed { text: "error: no".to_owned(), app: true },
        ] {
            let line = line(&said).unwrap();
            assert_eq!(serde_json::from_slice::<FromHeir>(&line).unwrap(), said);
        }
    }
}
