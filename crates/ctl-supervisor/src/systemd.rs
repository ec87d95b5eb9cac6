//! The two small protocols of systemd: sockets passed in (`sd_listen_fds`) and news passed out (`sd_notify`).

use std::env;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::event::Notify;
use crate::inherit::FIRST_FD;

/// More sockets than anybody passes: a bound on what the environment can make us do.
const LISTEN_FDS_MAX: u32 = 256;

/// The kernel keeps ten messages for a manager that does not read just now. News must not be lost (`systemctl start`
/// waits for it), but a manager that never reads must not stop us.
const PATIENCE: Duration = Duration::from_secs(1);

/// The sockets passed to this process, each with its name (`FileDescriptorName=` of the unit).
pub(crate) fn listen_fds() -> Vec<(RawFd, String)> {
    let get = |name: &str| env::var(name).unwrap_or_default();
    parse_listen_fds(&get("LISTEN_PID"), &get("LISTEN_FDS"), &get("LISTEN_FDNAMES"), std::process::id())
}

/// See sd_listen_fds(3): they are ours only if `LISTEN_PID` is this process.
fn parse_listen_fds(pid: &str, count: &str, names: &str, own_pid: u32) -> Vec<(RawFd, String)> {
    if pid.parse() != Ok(own_pid) {
        return Vec::new();
    }
    let count = count.parse::<u32>().unwrap_or(0).min(LISTEN_FDS_MAX);
    let mut names = names.split(':');
    (0..count)
        .map(|index| {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
            let fd = FIRST_FD + RawFd::try_from(index).unwrap_or(0);
            (fd, format!("systemd:{name}"))
        })
        .collect()
}

/// Tells the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that we are alive.
    watchdog: Option<Duration>,
}

impl Notifier {
    pub(crate) fn from_env() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|path| match path.as_bytes() {
            // "@" stands for the zero byte of the abstract namespace, which only Linux has.
            #[cfg(target_os = "linux")]
            [b'@', name @ ..] => {
                <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).ok()
            }
            _ => SocketAddr::from_pathname(&path).ok(),
        });
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_write_timeout(Some(PATIENCE)).ok()?;
            Some((socket, address))
        });
        let ours = env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        let every = env::var("WATCHDOG_USEC").ok().filter(|_| ours).and_then(|usec| usec.parse().ok());
        // Twice as often as asked for, as sd_watchdog_enabled(3) recommends.
        let watchdog = every.filter(|_| socket.is_some()).map(|usec: u64| Duration::from_micros(usec / 2));
        Self { socket, watchdog: watchdog.filter(|every| !every.is_zero()) }
    }

    /// Is there a service manager that can be told of another main process?
    pub(crate) fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    pub(crate) fn alive(&self) {
        // There will be another one soon: not worth waiting for.
        if let Some((socket, address)) = &self.socket
            && socket.set_nonblocking(true).is_ok()
        {
            let _ = socket.send_to_addr(b"WATCHDOG=1", address);
            let _ = socket.set_nonblocking(false);
        }
    }

    pub(crate) fn tell(&self, news: Notify) {
        match news {
            Notify::Ready => self.send("READY=1\nSTATUS=serving"),
            // Type=notify-reload wants to know when it began, on the clock that never jumps.
            Notify::Reloading => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
                self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reloading"));
            }
            Notify::Successor(pid) => self.send(&format!("MAINPID={pid}")),
            Notify::Stopping => self.send("STOPPING=1\nSTATUS=finishing the requests in flight"),
        }
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // A manager that does not listen has lost what it would have been told.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_another_process_are_not_ours() {
        assert_eq!(parse_listen_fds("7", "2", "", 8), []);
        assert_eq!(parse_listen_fds("", "2", "", 8), []);
        assert_eq!(parse_listen_fds("8", "", "", 8), []);
        assert_eq!(parse_listen_fds("8", "-1", "", 8), []);
    }

    #[test]
    fn sockets_have_numbers_and_names() {
        let expected = [(3, "systemd:web".to_owned()), (4, "systemd:unknown".to_owned())];
        assert_eq!(parse_listen_fds("8", "2", "web", 8), expected);
        assert_eq!(parse_listen_fds("8", "2", "web:", 8), expected);
        assert_eq!(parse_listen_fds("8", "4000000000", "", 8).len(), LISTEN_FDS_MAX as usize);
    }
}
