//! Why a TCP address cannot be bound, in words that help.

use std::io;
use std::net::SocketAddr;

use crate::plan::Problem;
use crate::proc;

/// Ports below this need a privilege, unless the system says otherwise (`net.ipv4.ip_unprivileged_port_start`).
const PRIVILEGED_BELOW: u16 = 1024;

pub(super) fn explain(address: SocketAddr, error: &io::Error) -> Problem {
    let problem = Problem::new(format!("cannot listen on {address}"));
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let detail = match proc::who_listens(address.port()) {
                Some((pid, name)) => format!("the port is in use by {name} (pid {pid})"),
                None => "the port is in use by another process".to_owned(),
            };
            let other = address.port().checked_add(1).unwrap_or(8000);
            problem.detail(detail).hint(format!("stop it, or choose another port: --bind {}:{other}", host(address)))
        }
        io::ErrorKind::PermissionDenied if address.port() < PRIVILEGED_BELOW => problem
            .detail(format!("ports below {PRIVILEGED_BELOW} are kept for root"))
            .hint(format!(
                "choose a higher port (--bind {}:8000), or give the capability: AmbientCapabilities=CAP_NET_BIND_SERVICE \
                 in the systemd unit, or `setcap cap_net_bind_service=+ep` on the quintet binary",
                host(address)
            )),
        io::ErrorKind::AddrNotAvailable => problem
            .detail("this machine does not have that address")
            .hint("0.0.0.0 listens on all addresses, 127.0.0.1 on this machine alone; `ip address` lists them"),
        _ => problem.detail(error.to_string()),
    }
}

fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}
