//! Binds the listening sockets. They are the supervisor's for as long as it lives; a gateway only borrows them.

mod inherited;
mod problem;
mod unix;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use ctl_admin::words::Listener;
use ctl_config::{BindAddress, Config};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::inherit;
use crate::plan::Problem;
use crate::systemd;

pub(crate) use inherited::Inherited;
pub(crate) use unix::{HEIRS_ENDING, Reach, SocketFile, bind_unix, remove_dead};

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) fd: Arc<OwnedFd>,
    /// As configured, for messages.
    pub(crate) name: String,
    /// For people to click on.
    pub(crate) url: String,
    pub(crate) unix: bool,
    pub(crate) tls: bool,
    /// Removed from the file system when dropped.
    file: Option<SocketFile>,
}

impl Bound {
    /// As the gateway is told.
    pub(crate) fn listener(&self) -> Listener {
        Listener { fd: inherit::number(&self.fd), name: self.name.clone(), unix: self.unix, tls: self.tls }
    }

    /// From now on its name in the file system is ours to remove. Says whether it has one.
    pub(crate) fn own(&mut self) -> bool {
        self.file.as_mut().map(SocketFile::own).is_some()
    }

    /// Its name in the file system is an heir's.
    pub(crate) fn release(&mut self) {
        if let Some(file) = &mut self.file {
            file.release();
        }
    }

    fn new(fd: OwnedFd, name: String, tls: bool, file: Option<SocketFile>) -> Result<Self, Problem> {
        let unknown = |error| {
            Problem::new(format!("{name} is not a socket")).detail(io::Error::from(error).to_string())
        };
        let address = rustix::net::getsockname(&fd).map_err(unknown)?;
        let (unix, host) = match SocketAddr::try_from(address.clone()) {
            Ok(address) => (false, address.to_string()),
            Err(_) => match rustix::net::SocketAddrUnix::try_from(address) {
                Ok(path) => {
                    (true, path.path().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default())
                }
                Err(_) => return Err(Problem::new(format!("{name} is neither a TCP nor a unix socket"))),
            },
        };
        let tls = tls && !unix;
        let url = match (unix, tls) {
            (true, _) => format!("unix:{host}"),
            (false, true) => format!("https://{host}"),
            (false, false) => format!("http://{host}"),
        };
        Ok(Self { fd: Arc::new(fd), name, url, unix, tls, file })
    }
}

/// Binds what `server.bind` names. Sockets that systemd passes replace it, unless it says itself where they go. What was
/// inherited under the same name is not bound anew.
pub(crate) fn bind_all(config: &Config, inherited: &mut Inherited) -> Result<Vec<Bound>, Problem> {
    let server = &config.server;
    let tls = config.speaks_tls();
    let mut passed = systemd::listen_fds();
    passed.extend(inherited.of_systemd());
    let mut addresses = server.bind.clone();
    let names_passed = |address: &BindAddress| matches!(address, BindAddress::Systemd | BindAddress::Fd(_));
    if !passed.is_empty() && !addresses.iter().any(names_passed) {
        tracing::info!(sockets = passed.len(), "listening on the sockets of systemd instead of server.bind");
        addresses = vec![BindAddress::Systemd];
    }
    let mut bound = Vec::new();
    for address in &addresses {
        match address {
            BindAddress::Tcp { host, port } => {
                let only_v6 = only_v6(&addresses, *port);
                for (fd, address) in bind_tcp(host, *port, server.backlog, only_v6, inherited)? {
                    bound.push(Bound::new(fd, address.to_string(), tls, None)?);
                }
            }
            BindAddress::Unix(path) => {
                bound.push(bind_path(path, server.backlog, Reach::Everybody, tls, inherited)?);
            }
            BindAddress::Fd(number) => bound.push(take_number(*number, tls, inherited)?),
            BindAddress::Systemd if passed.is_empty() => {
                return Err(Problem::new("server.bind says systemd, but systemd has passed no sockets")
                    .detail("LISTEN_FDS and LISTEN_PID are not set for this process")
                    .hint("start it by a .socket unit, or name an address in server.bind"));
            }
            BindAddress::Systemd => {
                for (number, name) in std::mem::take(&mut passed) {
                    bound.push(take_inherited(number, name, tls)?);
                }
            }
        }
    }
    Ok(bound)
}

/// The listener of the admin HTTP: never TLS.
pub(crate) fn bind_admin(
    address: Option<&BindAddress>,
    default: &Path,
    backlog: u32,
    inherited: &mut Inherited,
) -> Result<Bound, Problem> {
    let path = match address {
        Some(BindAddress::Tcp { host, port }) => {
            let first = bind_tcp(host, *port, backlog, false, inherited)?.into_iter().next();
            let Some((fd, address)) = first else {
                return Err(Problem::new(format!("admin.bind: {host} has no address")));
            };
            return Bound::new(fd, address.to_string(), false, None);
        }
        Some(BindAddress::Fd(number)) => return take_number(*number, false, inherited),
        Some(BindAddress::Systemd) => {
            return Err(Problem::new("admin.bind cannot be systemd").hint("write fd:N, a path or HOST:PORT"));
        }
        Some(BindAddress::Unix(path)) => path,
        None => default,
    };
    bind_path(path, backlog, Reach::Ourselves, false, inherited)
}

fn bind_path(
    path: &Path,
    backlog: u32,
    reach: Reach,
    tls: bool,
    inherited: &mut Inherited,
) -> Result<Bound, Problem> {
    let name = format!("unix:{}", path.display());
    let (fd, file) = match inherited.take(&name)? {
        Some(fd) => (fd, SocketFile::inherited(path)),
        None => bind_unix(path, backlog, reach)?,
    };
    Bound::new(fd, name, tls, Some(file))
}

fn take_number(number: u16, tls: bool, inherited: &mut Inherited) -> Result<Bound, Problem> {
    let name = format!("fd:{number}");
    match inherited.take(&name)? {
        Some(fd) => Bound::new(fd, name, tls, None),
        // The numbers that an heir has were dealt anew: this one may be any socket.
        None if inherited.is_heirs() => Err(Problem::new(format!("cannot listen on {name}"))
            .detail("the running instance does not listen on it, so it cannot be handed over")
            .hint("stop quintet and start it with that descriptor")),
        None => take_inherited(RawFd::from(number), name, tls),
    }
}

fn take_inherited(number: RawFd, name: String, tls: bool) -> Result<Bound, Problem> {
    let fd = inherit::take(number).map_err(|error| {
        Problem::new(format!("cannot listen on {name}"))
            .detail(error.to_string())
            .hint("whoever starts quintet must leave this descriptor open, and it may be named only once")
    })?;
    if !sockopt::socket_acceptconn(&fd).unwrap_or(false) {
        return Err(Problem::new(format!("cannot listen on {name}")).detail("it is not a listening socket"));
    }
    Bound::new(fd, name, tls, None)
}

/// `[::]` takes IPv4 as well (as the system's default is), unless `0.0.0.0` with the same port is there for it.
fn only_v6(addresses: &[BindAddress], port: u16) -> bool {
    addresses.iter().any(|address| {
        matches!(address, BindAddress::Tcp { host, port: other }
            if *other == port && host.parse() == Ok(Ipv4Addr::UNSPECIFIED))
    })
}

fn bind_tcp(
    host: &str,
    port: u16,
    backlog: u32,
    only_v6: bool,
    inherited: &mut Inherited,
) -> Result<Vec<(OwnedFd, SocketAddr)>, Problem> {
    let mut addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| {
            Problem::new(format!("cannot listen on {host}:{port}"))
                .detail(format!("{host} was not resolved: {error}"))
                .hint("write an address of this machine, 127.0.0.1 for itself alone, 0.0.0.0 for all of them")
        })?
        .collect();
    // A name with several addresses (localhost: 127.0.0.1 and ::1) is bound on all, but port 0 would give each
    // a port of its own.
    if port == 0 {
        addresses.truncate(1);
    }
    let (mut bound, mut refused) = (Vec::new(), None);
    for address in &addresses {
        if let Some(fd) = inherited.take(&address.to_string())? {
            bound.push((fd, *address));
            continue;
        }
        match bind_one(*address, backlog, only_v6) {
            Ok(fd) => bound.push((fd, *address)),
            // IPv6 that is switched off: the name's other addresses do.
            Err(error) if addresses.len() > 1 && is_not_here(&error) => refused = Some((*address, error)),
            Err(error) => return Err(problem::explain(*address, &error)),
        }
    }
    match refused {
        Some((address, error)) if bound.is_empty() => Err(problem::explain(address, &error)),
        _ => Ok(bound),
    }
}

fn is_not_here(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::ADDRNOTAVAIL | rustix::io::Errno::AFNOSUPPORT))
}

fn bind_one(address: SocketAddr, backlog: u32, only_v6: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let fd = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connections of the instance before, in TIME_WAIT, do not keep the port.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        sockopt::set_ipv6_v6only(&fd, only_v6)?;
    }
    rustix::net::bind(fd.as_fd(), &address)?;
    rustix::net::listen(&fd, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(fd)
}

#[cfg(test)]
mod tests;
