//! Workers arrive: accepts their streams, checks who they are, puts their slots in service.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use py_link::{Channel, Flags, Frame, Hello, Kind, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tracing::{debug, warn};

use super::long::{Link, LinkIdentity, LongLinks};
use super::{Slot, SlotIdentity};
use crate::pools::Pools;

/// A worker says hello at once; who does not is no worker.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A hello is a few hundred bytes of JSON.
const HELLO_BYTES_MAX: usize = 4096;
/// After a failed accept (descriptors used up) try again then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a worker must show.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The secret given to all workers of this instance.
    pub token: String,
    /// Our own uid, and the workers' when they run as another user.
    pub uids: Vec<u32>,
}

/// Accepts workers for ever. `reactors` are where slots live: the slots of a worker, and the first slots of all workers, are
/// spread over them.
pub async fn accept(
    listener: UnixListener,
    credentials: Credentials,
    reactors: Vec<Handle>,
    pools: Arc<Pools>,
    links: Arc<LongLinks>,
) {
    let credentials = Arc::new(credentials);
    let reactors: Arc<[Handle]> = reactors.into();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("could not accept a worker: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (credentials, reactors) = (Arc::clone(&credentials), Arc::clone(&reactors));
        let (pools, links) = (Arc::clone(&pools), Arc::clone(&links));
        tokio::spawn(async move {
            let welcomed = tokio::time::timeout(HELLO_TIMEOUT, welcome(stream, &credentials)).await;
            match welcomed {
                Ok(Ok((stream, hello))) => {
                    if let Err(error) = put_in_service(stream, &hello, &reactors, &pools, &links) {
                        warn!(worker = hello.worker, "could not take a worker's stream in service: {error}");
                    }
                }
                // It was stopped or has died before it said a word; the supervisor tells of deaths.
                Ok(Err(error)) if is_gone(&error) => debug!("a worker ended before its hello"),
                Ok(Err(error)) => warn!("refused a worker: {error}"),
                Err(_) => warn!("refused a worker: it said nothing for {} s", HELLO_TIMEOUT.as_secs()),
            }
        });
    }
}

/// The other end is closed.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

/// Reads and answers the hello.
async fn welcome(mut stream: UnixStream, credentials: &Credentials) -> io::Result<(UnixStream, Hello)> {
    let peer = stream.peer_cred()?.uid();
    if !credentials.uids.contains(&peer) {
        return Err(io::Error::other(format!("user id {peer} may not connect to the link")));
    }
    let hello = read_hello(&mut stream).await?;
    let refusal = if hello.version != py_link::VERSION {
        Some(format!(
            "the worker's package is quintet {}, this gateway is quintet {}: install one version of both",
            hello.version,
            py_link::VERSION
        ))
    } else if !same_secret(hello.token.as_bytes(), credentials.token.as_bytes()) {
        Some("the worker does not know the token of this instance".to_owned())
    } else {
        None
    };
    if let Some(reason) = refusal {
        stream.write_all(&frame(Kind::Refuse, Flags::END, reason.as_bytes())).await?;
        return Err(io::Error::other(reason));
    }
    // A long link is welcomed by itself, once it is known: what a slot detaches behind the welcome has to find it.
    if hello.channel == Channel::Slot {
        stream.write_all(&frame(Kind::Welcome, Flags::NONE, &[])).await?;
    }
    Ok((stream, hello))
}

async fn read_hello(stream: &mut UnixStream) -> io::Result<Hello> {
    let mut received = Vec::with_capacity(512);
    loop {
        if let Some(Frame { header, payload }) = py_link::decode(&received).map_err(io::Error::other)? {
            if header.kind != Kind::Hello {
                return Err(io::Error::other("the first frame is no hello"));
            }
            return serde_json::from_slice(payload).map_err(io::Error::other);
        }
        if received.len() >= HELLO_BYTES_MAX {
            return Err(io::Error::other("the hello is too long"));
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Compares without telling by its time how much was right.
fn same_secret(given: &[u8], expected: &[u8]) -> bool {
    given.len() == expected.len() && given.iter().zip(expected).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
}

fn put_in_service(
    stream: UnixStream,
    hello: &Hello,
    reactors: &[Handle],
    pools: &Pools,
    links: &Arc<LongLinks>,
) -> io::Result<()> {
    let Some(queue) = pools.number(hello.pool) else {
        return Err(io::Error::other(format!("there is no worker pool number {}", hello.pool)));
    };
    let home = (hello.worker as usize + usize::from(hello.slot)) % reactors.len().max(1);
    let stream = stream.into_std()?;
    let Some(reactor) = reactors.get(home) else { return Err(io::Error::other("no reactor runs")) };
    let inside = reactor.enter();
    let &Hello { worker, generation, pool, slots, .. } = hello;
    match hello.channel {
        Channel::Slot => {
            let slot = Slot::new(stream, SlotIdentity { worker, generation, home })?.beside(links);
            drop(inside);
            queue.join(slot, slots);
        }
        Channel::Long => {
            let concurrency = queue.limits().concurrency;
            let identity = LinkIdentity { worker, generation, pool, capacity: slots, concurrency };
            let link = Link::new(stream, identity, queue.metrics())?;
            links.join(&link);
            link.welcome();
            drop(reactor.spawn(link.run(Arc::clone(links))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ctl_config::{Config, WorkerPool};
    use tokio::time::timeout;

    use super::*;
    use crate::link::long::{LongLimits, LongStream, NoLink};
    use crate::testing::Worker;

    const SOON: Duration = Duration::from_secs(10);

    /// A gateway whose workers of the default pool do one thing at a time, and those of `/chat/` two.
    struct Site {
        links: Arc<LongLinks>,
        socket: std::path::PathBuf,
        _dir: tempfile::TempDir,
    }

    impl Site {
        fn new() -> Self {
            let mut config = Config::default();
            config.workers.concurrency = 1;
            let chat = WorkerPool {
                matches: vec!["/chat/*".to_owned()],
                concurrency: Some(2),
                ..WorkerPool::default()
            };
            config.worker_pool = vec![chat];
            let (pools, _) = Pools::new(&config);
            let (links, _) = LongLinks::new(LongLimits { grace: SOON, app: SOON });
            links.activate(&[0, 1], 1, true);
            let dir = tempfile::tempdir().expect("a directory");
            let socket = dir.path().join("link");
            let listener = UnixListener::bind(&socket).expect("a listener");
            let uids = vec![rustix::process::getuid().as_raw()];
            let credentials = Credentials { token: "secret".to_owned(), uids };
            let reactors = vec![Handle::current()];
            tokio::spawn(accept(listener, credentials, reactors, pools, Arc::clone(&links)));
            Self { links, socket, _dir: dir }
        }

        /// The long link of a worker of that pool.
        async fn worker(&self, worker: u32, pool: u16) -> Worker {
            let stream = UnixStream::connect(&self.socket).await.expect("a link");
            let mut played = Worker { stream, received: Vec::new() };
            let hello = Hello {
                version: py_link::VERSION.to_owned(),
                worker,
                generation: 1,
                channel: Channel::Long,
                pool,
                slot: 0,
                slots: 9,
                pid: 1,
                token: "secret".to_owned(),
            };
            let hello = serde_json::to_vec(&hello).expect("JSON");
            played.say(0, Kind::Hello, Flags::NONE, &hello).await;
            played.hears(Kind::Welcome).await;
            played
        }

        async fn begin(&self, pool: u16) -> Result<LongStream, NoLink> {
            let write = |out: &mut Vec<u8>| out.extend(frame(Kind::Request, Flags::NONE, b"GET"));
            let begun = self.links.begin(pool, Duration::from_millis(50), write);
            timeout(SOON, begun).await.expect("it ends")
        }
    }

    #[tokio::test]
    async fn a_worker_has_as_many_handshakes_at_work_as_its_own_pool_says() {
        let site = Site::new();
        for (pool, at_work) in [(0, 1), (1, 2)] {
            let _worker = site.worker(1 + u32::from(pool), pool).await;
            let mut handshakes = Vec::new();
            for _ in 0..at_work {
                handshakes.push(site.begin(pool).await.expect("room"));
            }
            assert_eq!(site.begin(pool).await.err(), Some(NoLink::Full), "pool {pool}");
            // One that is answered is there, and not at work any more.
            handshakes[0].settle();
            handshakes.push(site.begin(pool).await.expect("room"));
        }
    }
}
