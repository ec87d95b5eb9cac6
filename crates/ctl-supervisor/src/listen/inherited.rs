//! Listening sockets that an heir has inherited, to be found again by their names.

use std::os::fd::{OwnedFd, RawFd};

use crate::inherit;
use crate::plan::Problem;
use crate::upgrade::Socket;

/// What sockets that systemd has passed are called, before their own names.
const OF_SYSTEMD: &str = "systemd:";

/// Those that nobody has asked for yet. On drop they are closed: the configuration names them no more.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    sockets: Vec<Socket>,
    is_heirs: bool,
}

impl Inherited {
    pub(crate) fn new(sockets: Vec<Socket>) -> Self {
        Self { sockets, is_heirs: true }
    }

    /// This process is an heir, whether any of its sockets is left or not.
    pub(super) fn is_heirs(&self) -> bool {
        self.is_heirs
    }

    /// The socket of this name.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<OwnedFd>, Problem> {
        let Some(at) = self.sockets.iter().position(|socket| socket.name == name) else { return Ok(None) };
        let socket = self.sockets.remove(at);
        inherit::take(socket.fd).map(Some).map_err(|error| {
            Problem::new(format!("the socket {name} was not inherited")).detail(error.to_string())
        })
    }

    /// Number and name of each that systemd had passed to the first instance.
    pub(super) fn of_systemd(&mut self) -> Vec<(RawFd, String)> {
        let (systemd, others) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|socket| socket.name.starts_with(OF_SYSTEMD));
        self.sockets = others;
        let systemd: Vec<Socket> = systemd;
        systemd.into_iter().map(|socket| (socket.fd, socket.name)).collect()
    }
}

impl Drop for Inherited {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // One that is not open is closed already.
            drop(inherit::take(socket.fd));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(fd: RawFd, name: &str) -> Socket {
        Socket { fd, name: name.to_owned() }
    }

    #[test]
    fn sockets_are_found_by_name_once() {
        let mut inherited = Inherited::new(vec![
            socket(-1, "systemd:web"),
            socket(-1, "127.0.0.1:80"),
            socket(-1, "systemd:api"),
        ]);
        assert_eq!(inherited.of_systemd(), [(-1, "systemd:web".to_owned()), (-1, "systemd:api".to_owned())]);
        assert!(inherited.take("127.0.0.1:81").unwrap().is_none());
        assert!(inherited.take("127.0.0.1:80").is_err(), "there, but not open");
        assert!(inherited.take("127.0.0.1:80").unwrap().is_none());
    }
}
