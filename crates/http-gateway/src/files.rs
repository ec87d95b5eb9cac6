//! Static and media files: what nginx or WhiteNoise does beside an app.
//!
//! [`Files::answer`] is asked for each request before the app is. It knows the mounts (`mount`: which URL is which
//! directory), makes a safe path of the target (`path`), opens it so that nothing outside is ever reached (`root`), keeps what
//! is small in memory and what is large open (`store`, `entry`, `representation`), picks a coding (`pack`, [`crate::encoding`]) and
//! answers with the part asked for (`conditional`, `range`, `reply`). [`Files::accel`] sends files on the app's word,
//! [`Files::routed`] those of a route's directory.
//!
//! Promises: a reactor never waits for a disk here (what the kernel cannot answer from its memory goes to the blocking
//! pool); memory and open descriptors are bounded; both futures may be dropped at any time. Answers hold no cookie and no
//! hop-by-hop field. There are no listings, and index pages in routes' directories only, as in Django.

mod accel;
mod apps;
mod conditional;
mod entry;
mod lookup;
mod media_type;
mod mount;
mod pack;
mod path;
mod range;
mod read;
mod reply;
mod representation;
mod root;
mod routed;
mod store;

pub use apps::AppFiles;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use ctl_admin::words::AppReport;
use ctl_config::Config;
use tokio::sync::Semaphore;

use self::entry::Entry;
use self::mount::{Miss, Mount};
use self::reply::Reply;
use self::representation::Representation;
use self::root::{OpenError, Wait};
use self::store::{KeyRef, Known, Store};
use crate::encoding::{Accepted, Coding, CodingSet};
use crate::message::{Body, Headers, Method, RequestHead};

/// A file that is served is compared with the disk this often, and a miss is believed this long. Comparing costs about as much
/// as a request, so beyond four requests a second for a file it is lost in the noise.
const RECHECK_MS: u64 = 250;

/// Files that cannot be served are logged this often at most: every request for them may be a new one.
const COMPLAINT_MS: u64 = 10_000;

/// Files that wait for being compressed at most; the requests for others are answered without.
const PACKING_MAX: usize = 64;

/// Why the files cannot be served as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// An entry of `files.accel` is not `URL=DIRECTORY`.
    #[error("files.accel: \"{0}\" is not of the form \"/url/=/directory\"")]
    Accel(String),
}

/// A response without what every response has; the service makes a [`crate::message::Response`] of it.
#[derive(Debug)]
pub struct FileResponse {
    /// 200, 204, 206, 304, 404, 405, 412, 416, 500, 503.
    pub status: u16,
    /// Complete with Content-Length (except 204 and 304).
    pub headers: Headers,
    /// For HEAD as for GET: the driver drops it.
    pub body: Body,
}

impl FileResponse {
    fn text(status: u16, text: &'static str) -> Self {
        let mut headers = Headers::with_capacity(4, 128);
        headers.push(b"Content-Type", b"text/plain; charset=utf-8");
        headers.push(b"Content-Length", itoa::Buffer::new().format(text.len()).as_bytes());
        Self { status, headers, body: Body::Bytes(Bytes::from_static(text.as_bytes())) }
    }

    /// RFC 9110, 15.5.5: a 404 may be kept by caches by default; not this one, as the next deploy may bring the file.
    fn not_found() -> Self {
        let mut response = Self::text(404, "There is no such file.\n");
        response.headers.push(b"Cache-Control", b"no-cache");
        response
    }
}

/// The files of one generation of the app. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Those that clients may ask for, the longest prefix first; then those of `files.accel`; then those of routes.
    mounts: Vec<Mount>,
    /// How many of them clients may ask for.
    public: usize,
    /// Where those of routes begin.
    routed: usize,
    store: Store,
    max_age: u64,
    compress: CodingSet,
    started: Instant,
    packing: Arc<Semaphore>,
    packing_now: Semaphore,
    /// Held while an entry that was loaded is compared with the store and put there; never while the disk is read.
    arriving: std::sync::Mutex<()>,
    /// When something was last complained about, in milliseconds since `started`.
    complained_ms: AtomicU64,
}

/// A file that is asked for, below a mount.
#[derive(Debug, Clone, Copy)]
struct Ask<'a> {
    mount: usize,
    path: &'a [u8],
    accepted: Accepted,
}

impl<'a> Ask<'a> {
    fn key(&self, coding: Coding) -> KeyRef<'a> {
        KeyRef { mount: self.mount, coding, path: self.path }
    }
}

/// What is to be sent.
#[derive(Debug)]
enum Chosen {
    /// The file as it is.
    Plain(Arc<Entry>),
    /// In a coding.
    Coded(Arc<Representation>),
    /// In this coding, when it can be had soon.
    Pack(Arc<Entry>, Coding),
}

/// Where a request leads.
enum Way<'a> {
    App,
    Here(FileResponse),
    File(usize, Cow<'a, [u8]>),
}

impl Files {
    /// Made anew whenever an app becomes active. Looks at the root directories, and so may wait for a disk.
    pub fn new(config: &Config, app: &AppReport) -> Result<Self, FilesError> {
        let mut mounts: Vec<_> = mount::plan(config, app).into_iter().map(Mount::new).collect();
        let public = mounts.len();
        mounts.extend(accel::plan(&config.files.accel)?.into_iter().map(Mount::new));
        let routed = mounts.len();
        mounts.extend(routed::plan(config, app).map(Mount::new));
        let shared = Shared {
            mounts,
            public,
            routed,
            store: Store::new(config.files.memory),
            max_age: if app.debug { 0 } else { config.files.max_age.as_secs() },
            compress: if config.files.compress { CodingSet::ALL } else { CodingSet::IDENTITY },
            started: Instant::now(),
            packing: Arc::new(Semaphore::new(PACKING_MAX)),
            packing_now: Semaphore::new(pack::AT_ONCE),
            arriving: std::sync::Mutex::new(()),
            complained_ms: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The answer to a request for a file; `None`: it is the app's. Mostly ready without waiting.
    pub async fn answer(&self, head: &RequestHead) -> Option<FileResponse> {
        let (mount, path) = match self.shared.way(head) {
            Way::App => return None,
            Way::Here(response) => return Some(response),
            Way::File(mount, path) => (mount, path),
        };
        let path = path.get(self.shared.mounts.get(mount)?.plan.prefix.len()..)?;
        self.serve(head, mount, path).await
    }

    /// The file of this path below a mount; `None`: it is not ours to say that there is none.
    async fn serve(&self, head: &RequestHead, mount: usize, path: &[u8]) -> Option<FileResponse> {
        // A range is taken from the file as it is: that of a compressed variant would be useless after it was made anew.
        let accepted = if head.headers.contains("range") {
            Accepted::default()
        } else {
            Accepted::parse(head.headers.all("accept-encoding"))
        };
        let ask = Ask { mount, path, accepted };
        let chosen = match self.shared.choose(ask, Wait::Never) {
            Err(OpenError::WouldBlock) => Box::pin(self.choose_waiting(ask)).await,
            chosen => chosen,
        };
        match chosen {
            Ok(Chosen::Plain(entry)) => finish(head, Kept::Entry(entry), None).await,
            Ok(Chosen::Coded(coded)) => finish(head, Kept::Coded(coded), None).await,
            Ok(Chosen::Pack(entry, coding)) => {
                let coded = Box::pin(self.pack(ask, &entry, coding)).await;
                finish(head, coded.map_or(Kept::Entry(entry), Kept::Coded), None).await
            }
            Err(error) => self.shared.failure(ask, error),
        }
    }

    /// The same on the blocking pool.
    async fn choose_waiting(&self, ask: Ask<'_>) -> Result<Chosen, OpenError> {
        let shared = Arc::clone(&self.shared);
        let (mount, path, accepted) = (ask.mount, ask.path.to_vec(), ask.accepted);
        let choose = move || shared.choose(Ask { mount, path: &path, accepted }, Wait::Allowed);
        tokio::task::spawn_blocking(choose)
            .await
            .unwrap_or(Err(OpenError::System(rustix::io::Errno::CANCELED)))
    }

    /// Compresses a file, or waits a moment for whoever does. `None`: not in time, or not worth it.
    async fn pack(&self, ask: Ask<'_>, entry: &Arc<Entry>, coding: Coding) -> Option<Arc<Representation>> {
        let state = entry.packing.get(coding as usize)?;
        let finished = async {
            loop {
                let mut notified = std::pin::pin!(entry.packed.notified());
                // Listen first, then look: what ends in between is seen either way.
                notified.as_mut().enable();
                if let Some(Known::Coded(id, coded)) = self.shared.store.get(ask.key(coding))
                    && id == entry.id
                {
                    return Some(coded);
                }
                match state.compare_exchange(pack::state::IDLE, pack::state::RUNNING, Relaxed, Relaxed) {
                    Ok(_) => self.start_packing(ask, entry, coding)?,
                    Err(pack::state::USELESS) => return None,
                    Err(_) => {}
                }
                notified.await;
            }
        };
        tokio::time::timeout(pack::WAIT, finished).await.ok().flatten()
    }

    /// Goes on when the request that began it is gone. `None`: too many wait already.
    fn start_packing(&self, ask: Ask<'_>, entry: &Arc<Entry>, coding: Coding) -> Option<()> {
        let Ok(place) = Arc::clone(&self.shared.packing).try_acquire_owned() else {
            entry.packing.get(coding as usize)?.store(pack::state::IDLE, Relaxed);
            return None;
        };
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(entry));
        let (mount, path) = (ask.mount, ask.path.to_vec());
        tokio::spawn(async move {
            let _place = place;
            let turn = Arc::clone(&shared);
            let _turn = turn.packing_now.acquire().await;
            let work = tokio::task::spawn_blocking(move || {
                shared.pack_now(Ask { mount, path: &path, accepted: Accepted::default() }, &entry, coding);
            });
            // A failure has been noted in the entry's state.
            drop(work.await);
        });
        Some(())
    }
}

/// Answers with a representation, reading parts of a file on the blocking pool where they are asked for.
async fn finish(head: &RequestHead, kept: Kept, base: Option<Headers>) -> Option<FileResponse> {
    let spans = match reply::reply(head, kept.representation(), base.as_ref()) {
        Reply::Ready(response) => return Some(response),
        Reply::Parts(spans) => spans,
    };
    let read = move || reply::read_parts(kept.representation(), &spans, base.as_ref());
    let read = tokio::task::spawn_blocking(read).await;
    // The file has become shorter, or the disk is broken.
    Some(read.ok()?.unwrap_or_else(|_| FileResponse::text(500, "The file could not be read.\n")))
}

/// A representation, and what keeps it.
enum Kept {
    Entry(Arc<Entry>),
    Coded(Arc<Representation>),
}

impl Kept {
    fn representation(&self) -> &Representation {
        match self {
            Self::Entry(entry) => &entry.identity,
            Self::Coded(coded) => coded,
        }
    }
}

impl Shared {
    /// From a request to a file below a mount. Pure.
    fn way<'a>(&self, head: &'a RequestHead) -> Way<'a> {
        let raw = head.path();
        let decoded = path::decode(raw);
        let public = self.mounts.get(..self.public).unwrap_or_default();
        let within = |path: &[u8]| public.iter().position(|mount| path.starts_with(&mount.plan.prefix));
        let Some(index) = within(decoded.as_deref().unwrap_or(raw)) else { return Way::App };
        let Some(mount) = public.get(index) else { return Way::App };
        let safe = decoded.filter(|path| path.get(mount.plan.prefix.len()..).is_some_and(path::is_servable));
        match (safe, mount.plan.miss) {
            (Some(path), _) if matches!(head.method, Method::Get | Method::Head) => Way::File(index, path),
            // What may be the app's URL is the app's to judge.
            (_, Miss::App) => Way::App,
            (None, Miss::NotFound) => Way::Here(FileResponse::not_found()),
            // Nothing there, so nothing is ours.
            (Some(_), Miss::NotFound) if mount.roots.is_empty() => Way::App,
            (Some(_), Miss::NotFound) => Way::Here(reply::other_method(&head.method)),
        }
    }

    /// The answer when there is no file.
    fn failure(&self, ask: Ask<'_>, error: OpenError) -> Option<FileResponse> {
        let mount = self.mounts.get(ask.mount)?;
        if error == OpenError::NoRoot {
            return None;
        }
        if error != OpenError::Missing && self.may_complain() {
            complain(&String::from_utf8_lossy(ask.path), error);
        }
        match mount.plan.miss {
            _ if matches!(error, OpenError::System(_)) => {
                Some(FileResponse::text(503, "The file cannot be read at the moment.\n"))
            }
            Miss::App => None,
            Miss::NotFound => Some(FileResponse::not_found()),
        }
    }

    /// Once in [`COMPLAINT_MS`].
    fn may_complain(&self) -> bool {
        // Never 0, which stands for never.
        let (now, last) = (self.now_ms() + 1, self.complained_ms.load(Relaxed));
        let is_due = last == 0 || now - last.min(now) >= COMPLAINT_MS;
        is_due && self.complained_ms.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }
}

/// Tells the operator what is wrong with a file.
fn complain(file: &str, error: OpenError) {
    match error {
        OpenError::Escapes => tracing::warn!(
            file,
            hint = "copy the file into the directory (collectstatic without --link)",
            "a symbolic link leads out of the served directory and is not followed"
        ),
        OpenError::Denied => tracing::warn!(
            file,
            hint = "let the user that quintet runs as read the served directory",
            "a file may not be read"
        ),
        OpenError::System(errno) => tracing::error!(file, error = %errno, "a file could not be opened"),
        OpenError::Missing | OpenError::NoRoot | OpenError::WouldBlock => {}
    }
}

#[cfg(test)]
mod tests;
