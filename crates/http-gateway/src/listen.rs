//! Accepting: per-core reactors that share the listening sockets.
//!
//! Each reactor is a thread with a runtime of its own; a connection lives on one reactor all its life. Every reactor
//! listens on every socket (through a descriptor of its own); who accepts a connection gives it to the reactor that
//! has the fewest, so that a handful of busy keep-alive connections does not pile up on one core.
//!
//! | file | what happens there |
//! |---|---|
//! | `accept.rs` | the accept loop: gate, drain, no descriptors left, too many connections |
//! | `census.rs` | how many connections are open, where, and when the last one is gone |
//! | `neighbours.rs` | how many connections one client has open |
//! | `greet.rs` | a connection's first bytes: PROXY header, TLS, which protocol |
//!
//! Invariants: nothing is accepted before the gate opens nor after the last call of a drain; an accepted connection that
//! sends nothing holds no buffer; every wait has a deadline; a connection that cannot be served is told so.

mod accept;
mod census;
mod greet;
mod neighbours;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ctl_config::Config;
use py_link::Local;
use rustix::net::SocketAddrUnix;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use crate::client::TrustedProxies;
use crate::drain::Drain;
use crate::message::Service;
use crate::reactor;
use crate::tls::Identity;
use census::Census;

/// Threads a reactor may use for reading files (`spawn_blocking`): they wait for disks, not for cores.
const BLOCKING_THREADS_MAX: usize = 16;

/// More reactors than this were never needed: one moves tens of thousands of requests a second.
const REACTORS_MAX: usize = 64;

/// How long connections are accepted after the drain has begun: the supervisor gives its share of the listening sockets up
/// at the same moment, but not in the same microsecond, and until both have, clients still get in.
const LAST_CALL: Duration = Duration::from_millis(100);

/// A listening socket.
#[derive(Debug)]
pub struct Listening {
    /// Bound and listening.
    pub socket: OwnedFd,
    /// As configured, for messages.
    pub name: String,
    /// Connections begin with a TLS handshake.
    pub tls: bool,
}

/// All that a connection needs to know.
#[derive(Debug)]
pub struct Edge<S> {
    /// Who answers.
    pub service: Arc<S>,
    /// The effective configuration.
    pub config: Arc<Config>,
    /// Certificate and key, where a listener speaks TLS.
    pub tls: Option<Arc<Identity>>,
    /// Whose forwarded headers and PROXY protocol are heard.
    pub trusted: Arc<TrustedProxies>,
    /// Connections are accepted while it is true.
    pub gate: watch::Receiver<bool>,
    /// See [`Drain`].
    pub drain: Drain,
}

/// A listening socket as the reactors see it.
#[derive(Debug)]
struct Place {
    name: String,
    tls: bool,
    unix: bool,
    /// Our own address, when every connection has the same; `None`: ask each connection.
    local: Option<Local<'static>>,
}

/// What every reactor shares.
struct Shared<S> {
    edge: Edge<S>,
    census: Arc<Census>,
    /// One a reactor.
    runtimes: Vec<Handle>,
}

/// The running reactors. Dropping it ends them at once, connections and all.
#[derive(Debug)]
pub struct Reactors {
    handles: Vec<Handle>,
    census: Arc<Census>,
    /// Every acceptor holds a receiver until it has made its last call.
    accepting: watch::Sender<()>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Reactors {
    /// A handle to spawn on each; never empty.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Client connections open now.
    pub fn connections(&self) -> usize {
        self.census.open()
    }

    /// Resolves when nothing is accepted any more. Cancel safe.
    pub async fn unlistened(&self) {
        self.accepting.closed().await;
    }

    /// Resolves when the drain has begun and no connection is left, or when `timeout` is over. Says whether all
    /// ended by themselves.
    pub async fn drained(&self, timeout: Duration) -> bool {
        let over = async {
            // Nobody is forgotten who waits to be accepted while the last of the others goes.
            self.unlistened().await;
            self.census.empty().await;
        };
        tokio::time::timeout(timeout, over).await.is_ok()
    }

    /// Ends every reactor: what is still open is cut. Blocks until the threads are gone.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reactor ended by a panic");
            }
        }
    }
}

impl Drop for Reactors {
    fn drop(&mut self) {
        self.end();
    }
}

/// How many reactors this machine gets when the configuration leaves it open: one a core that we may use.
fn reactors_for_this_machine() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Starts the reactors: `server.reactors` threads, each accepting from every listener once the gate is open.
pub fn run_reactors<S: Service>(listeners: Vec<Listening>, edge: Edge<S>) -> io::Result<Reactors> {
    if let Some(bare) = listeners.iter().find(|listener| listener.tls && edge.tls.is_none()) {
        return Err(io::Error::other(format!("{} speaks TLS but there is no certificate", bare.name)));
    }
    let count = edge.config.server.reactors.map_or_else(reactors_for_this_machine, |n| n as usize);
    let count = count.clamp(1, REACTORS_MAX);
    let runtimes: Vec<Runtime> = (0..count).map(runtime).collect::<io::Result<_>>()?;
    let handles: Vec<Handle> = runtimes.iter().map(|runtime| runtime.handle().clone()).collect();
    let census = Arc::new(Census::new(
        count,
        edge.config.limits.connections_max as usize,
        edge.config.limits.connections_per_address,
    ));
    let shared = Arc::new(Shared { edge, census: Arc::clone(&census), runtimes: handles.clone() });
    let places: Vec<(OwnedFd, Arc<Place>)> = listeners.into_iter().map(place).collect::<io::Result<_>>()?;
    let (stop, stopped) = watch::channel(false);
    let (accepting, accepts) = watch::channel(());
    let mut reactors = Reactors { handles, census, accepting, stop, threads: Vec::with_capacity(count) };
    for (number, runtime) in runtimes.into_iter().enumerate() {
        for (socket, place) in &places {
            let acceptor = accept::Acceptor::new(
                socket.try_clone()?,
                Arc::clone(place),
                Arc::clone(&shared),
                number,
                &runtime,
            )?;
            let accepts = accepts.clone();
            drop(runtime.spawn(async move {
                acceptor.run().await;
                drop(accepts);
            }));
        }
        let stopped = stopped.clone();
        let thread = std::thread::Builder::new().name(format!("reactor-{number}"));
        reactors.threads.push(thread.spawn(move || run_one(number, runtime, stopped))?);
    }
    Ok(reactors)
}

fn runtime(_number: usize) -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build()
}

/// The life of a reactor thread. At its end every task that is left is dropped; blocking threads that wait for a disk
/// are not waited for.
fn run_one(number: usize, runtime: Runtime, mut stopped: watch::Receiver<bool>) {
    reactor::set_current(number);
    runtime.block_on(async {
        // A sender that is gone means stop, too.
        let _told_or_gone = stopped.wait_for(|&stop| stop).await;
    });
    runtime.shutdown_background();
}

/// An address as the apps see it.
fn inet(address: SocketAddr) -> Local<'static> {
    // A socket for both versions writes the older as a part of the newer.
    Local::Inet(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Looks at a listening socket and makes it ready for the reactors.
fn place(listening: Listening) -> io::Result<(OwnedFd, Arc<Place>)> {
    let Listening { socket, name, tls } = listening;
    let family = rustix::net::sockopt::socket_domain(&socket)?;
    let unix = family == rustix::net::AddressFamily::UNIX;
    let address = rustix::net::getsockname(&socket)?;
    let local = if unix {
        let path = SocketAddrUnix::try_from(address).ok();
        path.as_ref().and_then(SocketAddrUnix::path_bytes).map(|path| Local::Unix(path.to_vec().into()))
    } else {
        SocketAddr::try_from(address).ok().filter(|address| !address.ip().is_unspecified()).map(inet)
    };
    rustix::io::ioctl_fionbio(&socket, true)?;
    if !unix {
        // Accepted sockets inherit it: a call a listener instead of a call a connection.
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    }
    Ok((socket, Arc::new(Place { name, tls, unix, local })))
}

#[cfg(test)]
mod tests;
