//! What the system allows: addresses, descriptors, directories, users. Linux's files are read where they are.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ctl_admin::client;
use ctl_config::{BindAddress, Config};

use super::finding::Finding;
use crate::machine;
use crate::sizing::{self, Sizing};

/// Findings that need nothing but the configuration.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(admin_token(config));
    findings.extend(backlog(config));
    findings.push(spool_dir(config));
    findings
}

fn admin_token(config: &Config) -> Option<Finding> {
    let path = config.admin.token_file.as_ref()?;
    let shown = path.display();
    let fail = |why: String| Finding::fail("admin", format!("the token file {shown} {why}"));
    Some(match fs::read_to_string(path) {
        Err(error) => fail(format!("cannot be read: {error}")),
        Ok(text) if text.trim().is_empty() => {
            fail("is empty".into()).hint("for example: openssl rand -hex 32")
        }
        Ok(_) if path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0) => {
            Finding::warn("admin", format!("the token file {shown} can be read by other users"))
                .hint(format!("chmod 600 {shown}"))
        }
        Ok(_) => Finding::ok("admin", format!("token from {shown}")),
    })
}

/// The kernel cuts the backlog to its own limit without a word.
fn backlog(config: &Config) -> Option<Finding> {
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?;
    let system: u32 = text.trim().parse().ok()?;
    let wanted = config.server.backlog;
    Some(if system < wanted {
        Finding::warn("backlog", format!("server.backlog is {wanted}, the system allows {system}"))
            .hint(format!("sysctl -w net.core.somaxconn={wanted}"))
    } else {
        Finding::ok("backlog", wanted.to_string())
    })
}

/// Where long bodies and responses go while slow clients send and take them.
fn spool_dir(config: &Config) -> Finding {
    /// One long upload and one long download of the default limits.
    const FREE_MIN: u64 = 1 << 30;
    let dir = config.buffers.dir.clone().unwrap_or_else(std::env::temp_dir);
    let shown = dir.display();
    let probe = dir.join(format!(".quintet-check-{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)
        .and_then(|_| fs::remove_file(&probe));
    if let Err(error) = written {
        return Finding::fail("buffers", format!("{shown} cannot be written: {error}"))
            .hint("name another directory with buffers.dir");
    }
    let Ok(space) = rustix::fs::statvfs(&dir) else {
        return Finding::ok("buffers", shown.to_string());
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let room = sizing::mib(free);
    if in_memory(&dir) {
        Finding::warn(
            "buffers",
            format!("{shown} is in memory: long uploads and downloads of slow clients fill it"),
        )
        .hint("buffers.dir = \"/var/tmp\" is on a disk on most systems")
    } else if free < FREE_MIN {
        Finding::warn("buffers", format!("{shown} has only {room} free"))
            .hint("make room, or set buffers.dir")
    } else {
        Finding::ok("buffers", format!("{shown}, {room} free"))
    }
}

#[cfg(target_os = "linux")]
fn in_memory(dir: &Path) -> bool {
    /// `TMPFS_MAGIC` of linux/magic.h.
    const TMPFS: rustix::fs::FsWord = 0x0102_1994;
    rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type == TMPFS)
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_dir: &Path) -> bool {
    false
}

/// The gateway raises its own limit to the hard one; it may still be too small.
pub(super) fn descriptors(config: &Config, sizing: &Sizing) -> Finding {
    let connections = config.limits.connections_max;
    let need = sizing::descriptors(connections, sizing);
    let Some(hard) = machine::descriptors_max() else {
        return Finding::ok("files", "no limit on open files");
    };
    match sizing::fitting_connections(connections, sizing, hard) {
        Some(fitting) => Finding::warn(
            "files",
            format!("{hard} open files are allowed: {fitting} connections at most, not {connections}"),
        )
        .hint(format!(
            "raise the limit to {need} (LimitNOFILE= in systemd, ulimit -Hn), or lower limits.connections_max"
        )),
        None => Finding::ok("files", format!("{need} of {hard} open files are enough")),
    }
}

/// The workers' user and the runtime directory, with the supervisor's own words.
pub(super) fn supervisor(config: &Config, runtime_dir: &Path) -> Finding {
    match ctl_supervisor::look(config, runtime_dir) {
        Ok(()) => Finding::ok("runtime", runtime_dir.display().to_string()),
        Err(problem) if problem.detail.is_empty() => {
            Finding::fail("runtime", problem.message).hint(problem.hint)
        }
        Err(problem) => {
            Finding::fail("runtime", format!("{}\n{}", problem.message, problem.detail)).hint(problem.hint)
        }
    }
}

/// Could we listen there? A running instance of this very project may hold the addresses.
pub(super) fn addresses(config: &Config, runtime_dir: &Path) -> Vec<Finding> {
    let running = client::status(runtime_dir).ok();
    if let Some(status) = running {
        let text = format!("an instance of this project is running (process {})", status.pid);
        return vec![Finding::ok("addresses", text).hint("quintet status")];
    }
    let admin = config.admin.bind.iter();
    config.server.bind.iter().chain(admin).map(address).collect()
}

fn address(address: &BindAddress) -> Finding {
    let taken = |error: std::io::Error| {
        let finding = Finding::fail("address", format!("{address} cannot be bound: {error}"));
        match error.kind() {
            ErrorKind::AddrInUse => finding.hint("another program listens there: `ss -ltnp` shows which"),
            ErrorKind::PermissionDenied => finding
                .hint("ports below 1024 need root or CAP_NET_BIND_SERVICE; systemd can pass the socket"),
            ErrorKind::AddrNotAvailable => {
                finding.hint("this machine has no such address: `ip addr` shows those it has")
            }
            _ => finding,
        }
    };
    let free = || Finding::ok("address", format!("{address} is free"));
    match address {
        BindAddress::Tcp { host, port } => match TcpListener::bind((host.as_str(), *port)) {
            Ok(_) => free(),
            Err(error) => taken(error),
        },
        BindAddress::Unix(path) => unix_address(address, path),
        BindAddress::Fd(number) => Finding::ok("address", format!("descriptor {number}, to be inherited")),
        BindAddress::Systemd => Finding::ok("address", "sockets that systemd will pass"),
    }
}

fn unix_address(address: &BindAddress, path: &Path) -> Finding {
    let fail = |why: String| Finding::fail("address", format!("{address} cannot be bound: {why}"));
    let Some(dir) = path.parent() else { return fail("it has no directory".into()) };
    if !dir.is_dir() {
        return fail(format!("there is no directory {}", dir.display()))
            .hint("make it, or choose another path");
    }
    match UnixStream::connect(path) {
        Ok(_) => return fail("another program listens there".into()),
        // A socket that a dead process left behind is replaced.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
        Err(error) => return fail(error.to_string()),
    }
    if path.exists() && !path.symlink_metadata().is_ok_and(|meta| is_socket(&meta)) {
        return fail("there is a file of this name that is no socket".into()).hint("choose another path");
    }
    match rustix::fs::access(dir, rustix::fs::Access::WRITE_OK) {
        Ok(()) => Finding::ok("address", format!("{address} is free")),
        Err(error) => fail(format!("{} cannot be written: {error}", dir.display())),
    }
}

fn is_socket(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    meta.file_type().is_socket()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_taken_port_fails_and_a_free_one_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bind = BindAddress::Tcp { host: "127.0.0.1".into(), port };
        let finding = address(&bind);
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.hint.contains("ss -ltnp"), "{finding:?}");
        drop(listener);
        assert_eq!(address(&bind).level, Level::Ok);
    }

    #[test]
    fn what_the_supervisor_would_refuse_is_found_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        assert_eq!(supervisor(&config, &dir.path().join("not-there-yet")).level, Level::Ok);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let finding = supervisor(&config, dir.path());
        assert!(finding.level == Level::Fail && finding.text.contains("others may write"), "{finding:?}");
        config.workers.user = Some("no-such-user".into());
        let finding = supervisor(&config, &dir.path().join("not-there-yet"));
        assert!(finding.level == Level::Fail && finding.text.contains("no-such-user"), "{finding:?}");
    }

    #[test]
    fn unix_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let level = |path: &Path| address(&BindAddress::Unix(path.into())).level;
        assert_eq!(level(&path), Level::Ok);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(level(&path), Level::Fail);
        drop(listener);
        assert_eq!(level(&path), Level::Ok, "left behind");
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(level(&dir.path().join("file")), Level::Fail);
        assert_eq!(level(&dir.path().join("absent/s")), Level::Fail);
    }

    #[test]
    fn descriptors_are_counted() {
        let mut config = Config::default();
        let reasons = Default::default();
        let sizing = Sizing { workers: 2, workers_max: 2, pool_slots: 0, threads: 4, reactors: 1, reasons };
        config.limits.connections_max = 10;
        assert_eq!(descriptors(&config, &sizing).level, Level::Ok);
        config.limits.connections_max = u32::MAX;
        if machine::descriptors_max().is_some() {
            assert_eq!(descriptors(&config, &sizing).level, Level::Warn);
        }
    }

    #[test]
    fn the_spool_directory() {
        let mut config = Config::default();
        let dir = tempfile::tempdir().unwrap();
        config.buffers.dir = Some(dir.path().into());
        assert_ne!(spool_dir(&config).level, Level::Fail);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
        config.buffers.dir = Some(dir.path().join("absent"));
        assert_eq!(spool_dir(&config).level, Level::Fail);
    }

    #[test]
    fn the_admin_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let mut config = Config::default();
        config.admin.token_file = Some(path.clone());
        let level = |config: &Config| admin_token(config).unwrap().level;
        assert_eq!(level(&config), Level::Fail);
        fs::write(&path, "\n").unwrap();
        assert_eq!(level(&config), Level::Fail);
        fs::write(&path, "secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(level(&config), Level::Warn);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(level(&config), Level::Ok);
    }
}
