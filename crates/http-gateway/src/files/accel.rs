//! Files on the app's word: `X-Accel-Redirect` (a URL below a mount of `files.accel`, or a served one) and `X-Sendfile`
//! (an absolute path in one of their directories).
//!
//! The app has decided who may have the file; we send it, with conditional requests and ranges, under the app's own
//! headers. Outside the directories named in the configuration nothing is sent: an app that can be talked into a header must
//! not open the whole disk.

use std::path::{Path, PathBuf};

use super::mount::{Kind, Miss, Plan, prefix_of};
use super::root::{OpenError, Wait};
use super::{Accepted, Ask, Chosen, FileResponse, Files, FilesError, Kept, Shared, finish, path};
use crate::message::{Headers, Method, RequestHead};

const REDIRECT: &str = "X-Accel-Redirect";
const SENDFILE: &str = "X-Sendfile";

/// The mounts of `files.accel`: "/protected/=/srv/files".
pub(super) fn plan(entries: &[String]) -> Result<Vec<Plan>, FilesError> {
    let mut plans = Vec::with_capacity(entries.len());
    for entry in entries {
        let malformed = || FilesError::Accel(entry.clone());
        let (url, root) = entry.split_once('=').ok_or_else(malformed)?;
        let (prefix, foreign) = prefix_of(url.trim()).ok_or_else(malformed)?;
        let root = PathBuf::from(root.trim());
        if foreign || !url.trim().starts_with('/') || !root.is_absolute() {
            return Err(malformed());
        }
        plans.push(Plan {
            prefix,
            roots: vec![(Vec::new(), root)],
            kind: Kind::Accel,
            miss: Miss::NotFound,
            hashed: false,
            edited: false,
        });
    }
    plans.sort_by_key(|plan| std::cmp::Reverse(plan.prefix.len()));
    Ok(plans)
}

impl Files {
    /// Takes `X-Accel-Redirect` and `X-Sendfile` out of an app's response, and answers in its place when it has one.
    /// `None`: the response is sent as it is. The request id is for the log.
    pub async fn accel(
        &self,
        head: &RequestHead,
        request_id: &str,
        status: u16,
        headers: &mut Headers,
    ) -> Option<FileResponse> {
        let redirect = headers.get(REDIRECT).map(<[u8]>::to_vec);
        let sendfile = headers.get(SENDFILE).map(<[u8]>::to_vec);
        let (name, value) = match (redirect, sendfile) {
            (None, None) => return None,
            (Some(value), _) => (REDIRECT, value),
            (None, Some(value)) => (SENDFILE, value),
        };
        for name in [REDIRECT, SENDFILE] {
            headers.remove(|n| n.eq_ignore_ascii_case(name.as_bytes()));
        }
        Some(Box::pin(self.send(head, request_id, status, headers, (name, &value))).await)
    }

    async fn send(
        &self,
        head: &RequestHead,
        request_id: &str,
        status: u16,
        headers: &Headers,
        (name, value): (&str, &[u8]),
    ) -> FileResponse {
        let found = if name == REDIRECT { self.shared.by_url(value) } else { self.shared.by_path(value) };
        let Some((mount, path)) = found else {
            tracing::error!(
                request_id,
                header = name,
                value = %String::from_utf8_lossy(value),
                hint = "name the directory in the setting files.accel, e.g. \"/protected/=/srv/files\"",
                "the app wants a file sent that is outside the configured directories or hidden"
            );
            return FileResponse::text(500, "The server is not set up to send this file.\n");
        };
        let ask = Ask { mount, path: &path, accepted: Accepted::default() };
        let chosen = match self.shared.choose(ask, Wait::Never) {
            Err(OpenError::WouldBlock) => self.choose_waiting(ask).await,
            chosen => chosen,
        };
        let kept = match chosen {
            Ok(Chosen::Plain(entry) | Chosen::Pack(entry, _)) => Kept::Entry(entry),
            Ok(Chosen::Coded(coded)) => Kept::Coded(coded),
            Err(error) => return self.shared.failure(ask, error).unwrap_or_else(FileResponse::not_found),
        };
        let base = merge(headers, &kept.representation().headers);
        if status != 200 || !matches!(head.method, Method::Get | Method::Head) {
            // Something else than the file's content: no range of it, and nothing to compare with.
            let representation = kept.representation();
            return FileResponse { status, headers: base, body: representation.body(0, representation.size) };
        }
        let failed = || FileResponse::text(500, "The file could not be read.\n");
        finish(head, kept, Some(base)).await.unwrap_or_else(failed)
    }
}

/// The app's headers, with the file's own where only the file knows.
fn merge(app: &Headers, file: &Headers) -> Headers {
    const OF_THE_FILE: [&str; 5] =
        ["content-length", "etag", "last-modified", "accept-ranges", "content-range"];
    let is_of_the_file = |name: &[u8]| OF_THE_FILE.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()));
    let mut merged = Headers::with_capacity(app.len() + 5, 1024);
    app.iter().filter(|(name, _)| !is_of_the_file(name)).for_each(|(name, value)| merged.push(name, value));
    for (name, value) in file.iter() {
        let wanted = is_of_the_file(name)
            || (name.eq_ignore_ascii_case(b"content-type") && !app.contains("content-type"));
        if wanted {
            merged.push(name, value);
        }
    }
    merged
}

impl Shared {
    /// The mounts that the app may send from: its own first.
    fn accel_mounts(&self) -> impl Iterator<Item = (usize, &Plan)> {
        // Those of routes are asked for by routes only.
        let plans = || self.mounts.iter().take(self.routed).map(|mount| &mount.plan).enumerate();
        plans().skip(self.public).chain(plans().take(self.public))
    }

    /// `/protected/a%20b.pdf?x` → the mount and the path below it.
    fn by_url(&self, url: &[u8]) -> Option<(usize, Vec<u8>)> {
        let raw = url.split(|&b| b == b'?').next()?;
        let decoded = path::decode(raw)?;
        self.accel_mounts().find_map(|(i, plan)| {
            let below = decoded.strip_prefix(plan.prefix.as_slice()).filter(|_| !plan.roots.is_empty())?;
            path::is_servable(below).then(|| (i, below.to_vec()))
        })
    }

    /// `/srv/files/a b.pdf` → the mount and the path below it. The path is compared as it is written: neither side's
    /// symbolic links are resolved.
    fn by_path(&self, wanted: &[u8]) -> Option<(usize, Vec<u8>)> {
        use std::os::unix::ffi::OsStrExt;

        let wanted = Path::new(std::ffi::OsStr::from_bytes(wanted));
        self.accel_mounts().find_map(|(i, plan)| {
            plan.roots.iter().find_map(|(before, root)| {
                let below = wanted.strip_prefix(root).ok()?.as_os_str().as_bytes();
                path::is_servable(below).then(|| (i, [before.as_slice(), below].concat()))
            })
        })
    }
}
