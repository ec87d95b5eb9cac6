//! `basic_auth`: who may pass a route. The comparing is `route/htpasswd.rs`'s; here are the file, the threads and the memory of who was let
//! in.
//!
//! bcrypt takes some tens of milliseconds of CPU on purpose. So it runs on blocking threads, few at a time; requests beyond a bounded
//! line are answered 503; and who was let in is remembered, by a keyed hash of what was sent, so that a visitor's next requests
//! cost nothing and his password stays nowhere. A file that changes is read again, and everybody is compared anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use ring::hmac;
use tokio::sync::Semaphore;
use tracing::error;

use crate::error_page;
use crate::guard::Stamp;
use crate::message::{AnsweredBy, RequestHead, Response, Trail};
use crate::route::{Credentials, Users};

/// How often at most the file is looked at. Who is taken out of it is out after this time.
const LOOK_MS: u64 = 2_000;
/// Remembered at one time: 32 bytes each, and some more. Beyond them somebody is compared again.
const GRANTED_MAX: usize = 4_096;
/// Comparisons at one time: half of the cores, so that guessing passwords does not stop the site.
const WAITING_MAX: usize = 64;
/// A line of that length is done in this time, or the machine has no time to spare.
const PATIENCE: Duration = Duration::from_secs(10);
/// A file of ten thousand users has less than a megabyte.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Comparisons of all files together.
pub(super) struct Turns {
    waiting: Semaphore,
    running: Semaphore,
}

impl Turns {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { waiting: Semaphore::new(WAITING_MAX), running: Semaphore::new((cores / 2).max(1)) }
    }
}

/// A file of users, and who of them was let in.
pub(super) struct Passwords {
    path: PathBuf,
    /// In `WWW-Authenticate`.
    challenge: Box<[u8]>,
    known: ArcSwap<Known>,
    started: Instant,
    looked_ms: AtomicU64,
}

/// What the file said when it was read last.
struct Known {
    stamp: Option<Stamp>,
    users: Users,
    granted: Cache<[u8; 32], ()>,
    key: hmac::Key,
}

/// Why somebody may not pass.
#[derive(Debug, PartialEq, Eq)]
enum Denied {
    /// He has not said who he is, or it is not true.
    Unknown,
    /// Too many wait to be compared.
    Busy,
}

impl Known {
    fn read(path: &Path) -> Result<Self, String> {
        let stamp = Stamp::of(path).map_err(|error| error.to_string())?;
        if stamp.len() > FILE_BYTES_MAX {
            return Err(format!("it is longer than {} MiB", FILE_BYTES_MAX >> 20));
        }
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| "the system has no random numbers".to_owned())?;
        let granted = Cache::new(GRANTED_MAX);
        Ok(Self { stamp: Some(stamp), users: Users::parse(&text)?, granted, key })
    }

    /// What is remembered of somebody: useless to whoever reads it.
    fn tag(&self, credentials: &Credentials) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(credentials.user.len() as u64).to_be_bytes());
        context.update(credentials.user.as_bytes());
        context.update(credentials.password.as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

impl Passwords {
    /// At the start; a file that cannot be read is an error for the operator.
    pub(super) fn new(path: &Path, route: &str) -> Result<Self, String> {
        let known = Known::read(path).map_err(|why| {
            format!(
                "the users of route {route} cannot be read\n  detail: {}: {why}\n  hint: see route.basic_auth; \
                 htpasswd -cB FILE NAME writes such a file",
                path.display()
            )
        })?;
        Ok(Self {
            path: path.to_owned(),
            challenge: format!("Basic realm=\"{route}\", charset=\"UTF-8\"").into_bytes().into(),
            known: ArcSwap::from_pointee(known),
            started: Instant::now(),
            looked_ms: AtomicU64::new(0),
        })
    }

    /// The answer to whoever may not pass.
    pub(super) async fn keep_out(
        &self,
        turns: &Turns,
        head: &RequestHead,
        trail: &Trail,
    ) -> Option<Response> {
        let denied = self.check(turns, head).await.err()?;
        let mut trail = trail.clone();
        trail.by = AnsweredBy::Gateway;
        let status = if denied == Denied::Busy { 503 } else { 401 };
        let mut response = error_page::error(status, error_page::wants_html(head), "", trail);
        if denied == Denied::Unknown {
            response.headers.push(b"WWW-Authenticate", &self.challenge);
        }
        Some(response)
    }

    async fn check(&self, turns: &Turns, head: &RequestHead) -> Result<(), Denied> {
        let credentials = Credentials::of(&head.headers).ok_or(Denied::Unknown)?;
        self.look().await;
        let known = self.known.load_full();
        let tag = known.tag(&credentials);
        if known.granted.get(&tag).is_some() {
            return Ok(());
        }
        let _place = turns.waiting.try_acquire().map_err(|_| Denied::Busy)?;
        let turn = tokio::time::timeout(PATIENCE, turns.running.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Denied::Busy) };
        let own = Arc::clone(&known);
        let verified = tokio::task::spawn_blocking(move || own.users.verify(&credentials)).await;
        if !verified.unwrap_or(false) {
            return Err(Denied::Unknown);
        }
        known.granted.insert(tag, ());
        Ok(())
    }

    /// Reads the file again when it has changed. One that is no good any more changes nothing, and the log says so.
    async fn look(&self) {
        let now = self.started.elapsed().as_millis() as u64;
        let looked = self.looked_ms.load(Relaxed);
        let due = now.saturating_sub(looked) >= LOOK_MS;
        if !due || self.looked_ms.compare_exchange(looked, now, Relaxed, Relaxed).is_err() {
            return;
        }
        let (path, before) = (self.path.clone(), self.known.load().stamp);
        let read = tokio::task::spawn_blocking(move || {
            let same = before.is_some() && Stamp::of(&path).ok() == before;
            (!same).then(|| Known::read(&path))
        });
        match read.await {
            Ok(Some(Ok(known))) => self.known.store(Arc::new(known)),
            Ok(Some(Err(why))) => error!(
                file = %self.path.display(),
                hint = "it is read again when it changes",
                "a file of users cannot be read, those of before stay in force: {why}"
            ),
            Ok(None) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_page::own_trail;
    use crate::message::{Headers, Method, Version};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    fn head(user: &str, password: &str) -> RequestHead {
        let mut headers = Headers::default();
        if !user.is_empty() {
            let text = STANDARD.encode(format!("{user}:{password}"));
            headers.push(b"authorization", format!("Basic {text}").as_bytes());
        }
        RequestHead { method: Method::Get, target: b"/".to_vec(), version: Version::Http11, headers }
    }

    fn write(path: &Path, user: &str, password: &str) {
        fs::write(path, format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())).unwrap();
    }

    #[tokio::test]
    async fn who_may_pass() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        write(&path, "anna", "secret");
        let (passwords, turns) = (Passwords::new(&path, "admin").unwrap(), Turns::new());
        let trail = own_trail(Instant::now(), "id".into(), None);
        for _ in 0..2 {
            assert!(passwords.keep_out(&turns, &head("anna", "secret"), &trail).await.is_none());
        }
        assert_eq!(passwords.known.load().granted.len(), 1, "only who was let in is remembered");
        for (user, password) in [("", ""), ("anna", "wrong"), ("bert", "secret")] {
            let refused = passwords.keep_out(&turns, &head(user, password), &trail).await.unwrap();
            let challenge = refused.headers.get("www-authenticate").unwrap().to_vec();
            assert_eq!(
                (refused.status, challenge),
                (401, b"Basic realm=\"admin\", charset=\"UTF-8\"".to_vec())
            );
        }
        assert_eq!(passwords.known.load().granted.len(), 1);
    }

    #[tokio::test]
    async fn a_file_that_changes_lets_nobody_in_who_is_not_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        write(&path, "anna", "secret");
        let (passwords, turns) = (Passwords::new(&path, "admin").unwrap(), Turns::new());
        let (anna, bert) = (head("anna", "secret"), head("bert", "other"));
        assert_eq!(passwords.check(&turns, &anna).await, Ok(()));
        let due = || {
            // As if it had been looked at long ago.
            let mut passwords = Passwords::new(&path, "admin").unwrap();
            passwords.started -= Duration::from_secs(60);
            passwords
        };
        let passwords = due();
        assert_eq!(passwords.check(&turns, &anna).await, Ok(()));
        write(&path, "bert", "other");
        passwords.looked_ms.store(0, Relaxed);
        assert_eq!(passwords.check(&turns, &anna).await, Err(Denied::Unknown));
        assert_eq!(passwords.check(&turns, &bert).await, Ok(()));
        fs::write(&path, "nonsense").unwrap();
        passwords.looked_ms.store(0, Relaxed);
        assert_eq!(passwords.check(&turns, &bert).await, Ok(()), "those of before stay in force");
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        write(&path, "anna", "secret");
        let passwords = Passwords::new(&path, "admin").unwrap();
        let turns = Turns { waiting: Semaphore::new(0), running: Semaphore::new(1) };
        let trail = own_trail(Instant::now(), "id".into(), None);
        let refused = passwords.keep_out(&turns, &head("anna", "secret"), &trail).await.unwrap();
        assert_eq!(refused.status, 503);
        assert_eq!(passwords.check(&turns, &head("", "")).await, Err(Denied::Unknown), "nothing to compare");
    }

    #[test]
    fn a_file_that_is_not_there_is_told_at_the_start() {
        let wrong = Passwords::new(Path::new("/nowhere/users"), "admin").map(drop).unwrap_err();
        assert!(wrong.contains("route admin") && wrong.contains("/nowhere/users"), "{wrong}");
    }
}
