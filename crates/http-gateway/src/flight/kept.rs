//! Keys outlive the process: a payment that is repeated after a crash or an upgrade is the one that must not be done twice.
//!
//! A file for each key in `server.state_dir`, by its hash. It is made before the app is asked, and locked (`flock`) by the process that
//! works on the request; the kernel unlocks it when that process dies. So another one, the heir of an upgrade or the next after a crash,
//! can tell from the file alone:
//!
//! | the file | the request |
//! |---|---|
//! | is locked | is being worked on, in another process |
//! | is not, and holds an answer | was answered |
//! | is not, and holds none | was broken off: nobody knows what became of it |
//!
//! A file is made elsewhere and linked in, and an answer is written beside and renamed, so neither is ever half there. Everything here
//! blocks on the disk, and runs where it may. What a power failure loses are the last seconds.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use http_limits::Seed;
use rustix::fs::{FlockOperation, flock};

use super::answer::Answer;
use super::keys::{Known, complain};

/// In `server.state_dir`.
const DIR: &str = "idempotency";

/// Beside the keys: the secret of their hashes, which all processes must share.
const SEED: &str = "seed";

/// What each file begins with: ours, and in this form.
const MAGIC: &[u8; 8] = b"quintet\x01";

/// Longer than any answer that may be kept with its fields.
const FILE_BYTES_MAX: u64 = 72 << 20;

/// The directory.
#[derive(Debug)]
pub(super) struct Kept {
    dir: PathBuf,
    lifetime: Duration,
    /// Names of files that are being made.
    number: AtomicU64,
}

/// A file that this process has locked.
#[derive(Debug)]
pub(super) struct Locked(File);

impl Locked {
    /// Others may take it, or read what it says.
    pub(super) fn unlock(self) {
        drop(self.0);
    }
}

/// What a file says of a key.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) fingerprint: u64,
    pub(super) known: Known,
    /// For so long.
    pub(super) left: Duration,
}

/// What becomes of a key that nobody here knows.
#[derive(Debug)]
pub(super) enum Claim {
    /// It is ours.
    Ours(Locked),
    /// Another process works on it.
    Theirs,
    /// It was used.
    Used(Read),
}

impl Kept {
    /// Makes the directory, and the secret where there is none.
    pub(super) fn open(state_dir: &Path, lifetime: Duration, new_seed: Seed) -> io::Result<(Self, Seed)> {
        let dir = state_dir.join(DIR);
        // Answers lie there: nobody else is to read them.
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let kept = Self { dir, lifetime, number: AtomicU64::new(0) };
        let path = kept.dir.join(SEED);
        let beside = kept.write_beside(&new_seed.to_bytes())?;
        let linked = fs::hard_link(&beside, &path);
        let _gone = fs::remove_file(&beside);
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let bytes: [u8; 16] =
            fs::read(&path)?.try_into().map_err(|_| io::Error::other("the seed is damaged"))?;
        Ok((kept, Seed::from_bytes(bytes)))
    }

    fn path(&self, key: u64) -> PathBuf {
        self.dir.join(format!("{key:016x}"))
    }

    /// A file of its own: processes of different containers may have the same number, and what one of them left behind when it died
    /// may be linked under the name of a key.
    fn write_beside(&self, bytes: &[u8]) -> io::Result<PathBuf> {
        let (mut file, path) = loop {
            let number = self.number.fetch_add(1, Relaxed);
            let path = self.dir.join(format!(".{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => break (file, path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        file.write_all(bytes).inspect_err(|_| drop(fs::remove_file(&path)))?;
        Ok(path)
    }

    /// A request with a new key arrives.
    pub(super) fn claim(&self, key: u64, fingerprint: u64) -> io::Result<Claim> {
        let path = self.path(key);
        let beside = self.write_beside(&head(fingerprint, unix_ms()))?;
        let claimed = self.claim_with(&beside, &path, fingerprint);
        let _gone = fs::remove_file(&beside);
        claimed
    }

    fn claim_with(&self, beside: &Path, path: &Path, fingerprint: u64) -> io::Result<Claim> {
        let own = File::open(beside)?;
        flock(&own, FlockOperation::NonBlockingLockExclusive)?;
        // Twice: what is there may be over, or go while we look.
        for _ in 0..2 {
            match fs::hard_link(beside, path) {
                Ok(()) => return Ok(Claim::Ours(Locked(own))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            match self.look(path) {
                Ok(Look::Locked) => return Ok(Claim::Theirs),
                Ok(Look::Holds(read)) => return Ok(Claim::Used(read)),
                // Whoever keeps us from it is about to take it.
                Ok(Look::Over) => drop(remove_over(path)),
                // Somebody has used the key. What for and what came of it nobody knows.
                Ok(Look::Damaged(left)) => {
                    return Ok(Claim::Used(Read { fingerprint, known: Known::Doubtful, left }));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // It is used, and cannot be read just now.
                Err(error) => {
                    complain("what is known of an Idempotency-Key cannot be read", &error);
                    return Ok(Claim::Theirs);
                }
            }
        }
        // Others come and go as well: whoever has it now works on it.
        Ok(Claim::Theirs)
    }

    /// What a file says.
    fn look(&self, path: &Path) -> io::Result<Look> {
        self.say(&File::open(path)?, path)
    }

    /// The same of one that is open.
    fn say(&self, file: &File, path: &Path) -> io::Result<Look> {
        // Shared: who only looks is in nobody's way.
        if flock(file, FlockOperation::NonBlockingLockShared).is_err() {
            return Ok(Look::Locked);
        }
        // It may have been answered or given back since it was opened, and then this is not what is known.
        if !is_at(file, path)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        let head = parse_head(&bytes);
        let written_ms = match head {
            Some((_, written_ms, _)) => written_ms,
            None => ms_since_1970(file.metadata()?.modified()?),
        };
        let left = self.lifetime.checked_sub(http_limits::elapsed(written_ms, unix_ms()));
        let Some(left) = left.filter(|left| !left.is_zero()) else { return Ok(Look::Over) };
        let Some((fingerprint, _, said)) = head else { return Ok(Look::Damaged(left)) };
        let known = match said.split_first() {
            None => Known::Doubtful,
            Some((_, [])) => Known::TooLarge,
            // Damaged, or of a later version: it was answered.
            Some((_, answer)) => {
                Answer::decode(answer).map_or(Known::TooLarge, |answer| Known::Answer(answer.into()))
            }
        };
        Ok(Look::Holds(Read { fingerprint, known, left }))
    }

    /// What became of a request.
    pub(super) fn answered(&self, key: u64, fingerprint: u64, known: &Known) -> io::Result<()> {
        let mut bytes = head(fingerprint, unix_ms());
        match known {
            // The file says so already.
            Known::Doubtful => return Ok(()),
            Known::TooLarge => bytes.push(1),
            Known::Answer(answer) => {
                bytes.push(1);
                answer.encode(&mut bytes);
            }
        }
        let beside = self.write_beside(&bytes)?;
        fs::rename(&beside, self.path(key)).inspect_err(|_| drop(fs::remove_file(&beside)))
    }

    /// The app has not seen it.
    pub(super) fn released(&self, key: u64) -> io::Result<()> {
        fs::remove_file(self.path(key))
    }

    /// All keys that are known, and takes away those whose time is over.
    pub(super) fn load(&self, mut with: impl FnMut(u64, Read)) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name == SEED {
                continue;
            }
            let Some(key) = u64::from_str_radix(name, 16).ok() else {
                Self::sweep(&path);
                continue;
            };
            match self.look(&path) {
                Ok(Look::Holds(read)) => with(key, read),
                // What cannot be taken away now is met again.
                Ok(Look::Over) => drop(remove_over(&path)),
                // Somebody works on it; it is gone; or damaged, and met again when it is asked for.
                Ok(Look::Locked | Look::Damaged(_)) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// What somebody who died was about to make.
    fn sweep(path: &Path) {
        let modified = fs::metadata(path).and_then(|about| about.modified());
        let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > Duration::from_secs(60)));
        if is_old {
            let _gone = fs::remove_file(path);
        }
    }
}

/// See [`Kept::look`].
enum Look {
    Locked,
    Holds(Read),
    Over,
    /// It is known for so long that the key was used.
    Damaged(Duration),
}

/// Takes a file away whose time is over, if it is still that one: another process may have made a new one in its place.
fn remove_over(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    if is_at(&file, path)? {
        // Whoever wants to do the same needs the lock that we hold.
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Is it what lies there?
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (own, there) = (file.metadata()?, fs::metadata(path)?);
    Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
}

fn head(fingerprint: u64, written_ms: u64) -> Vec<u8> {
    [&MAGIC[..], &fingerprint.to_le_bytes(), &written_ms.to_le_bytes()].concat()
}

fn parse_head(bytes: &[u8]) -> Option<(u64, u64, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (fingerprint, rest) = rest.split_first_chunk::<8>()?;
    let (written_ms, rest) = rest.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*fingerprint), u64::from_le_bytes(*written_ms), rest))
}

fn unix_ms() -> u64 {
    ms_since_1970(SystemTime::now())
}

fn ms_since_1970(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::{AnsweredBy, Body, Headers};
    use crate::spool::Piece;
    use crate::testing::response;

    const DAY: Duration = Duration::from_secs(86_400);

    fn open(dir: &Path, lifetime: Duration, seed: u8) -> (Kept, Seed) {
        Kept::open(dir, lifetime, Seed::from_bytes([seed; 16])).expect("a directory")
    }

    fn answer(text: &'static str) -> Answer {
        let mut response = response(201, Body::Empty);
        response.trail.by = AnsweredBy::Upstream;
        response.headers = Headers::default();
        response.headers.push(b"X-A", b"b");
        Answer::new(&response, None).with(vec![Piece::Bytes(text.into())])
    }

    #[test]
    fn another_process_can_tell() {
        let dir = tempfile::tempdir().unwrap();
        let (elder, seed) = open(dir.path(), DAY, 1);
        let (heir, same) = open(dir.path(), DAY, 2);
        assert!(seed == same, "the first one's secret is everybody's");
        let Claim::Ours(locked) = elder.claim(7, 70).unwrap() else { panic!("it is new") };
        assert!(matches!(heir.claim(7, 70).unwrap(), Claim::Theirs));
        elder.answered(7, 70, &Known::Answer(Arc::new(answer("paid")))).unwrap();
        locked.unlock();
        let Claim::Used(read) = heir.claim(7, 71).unwrap() else { panic!("it is known") };
        assert!(read.fingerprint == 70 && read.left > DAY / 2);
        let Known::Answer(again) = read.known else { panic!("{:?}", read.known) };
        let again = again.again(&response(200, Body::Empty).trail);
        assert_eq!(
            (again.status, again.headers.get("x-a"), again.trail.by),
            (201, Some(&b"b"[..]), AnsweredBy::Upstream)
        );
        assert!(matches!(again.body, Body::Bytes(bytes) if bytes == "paid"));
        // One that dies in the middle leaves a doubt.
        drop(elder.claim(8, 80).unwrap());
        assert!(matches!(heir.claim(8, 80).unwrap(), Claim::Used(Read { known: Known::Doubtful, .. })));
        let Claim::Ours(_locked) = elder.claim(9, 90).unwrap() else { panic!("it is new") };
        elder.released(9).unwrap();
        assert!(matches!(heir.claim(9, 90).unwrap(), Claim::Ours(_)));
        heir.answered(9, 90, &Known::TooLarge).unwrap();
        let mut loaded = Vec::new();
        heir.load(|key, read| loaded.push((key, read.fingerprint))).unwrap();
        loaded.sort_unstable();
        assert_eq!(loaded, [(7, 70), (8, 80), (9, 90)]);
    }

    #[test]
    fn what_is_over_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, _) = open(dir.path(), DAY, 1);
        kept.answered(7, 70, &Known::TooLarge).unwrap();
        let (later, _) = open(dir.path(), Duration::ZERO, 1);
        assert!(matches!(later.claim(7, 71).unwrap(), Claim::Ours(_)));
        later.load(|key, _| panic!("{key} is over")).unwrap();
        assert_eq!(fs::read_dir(dir.path().join(DIR)).unwrap().count(), 1, "the secret");
    }

    #[test]
    fn damage_never_panics_and_lets_nothing_through() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, _) = open(dir.path(), DAY, 1);
        kept.answered(7, 70, &Known::Answer(Arc::new(answer("paid")))).unwrap();
        let path = kept.path(7);
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(matches!(kept.claim(7, 70).unwrap(), Claim::Used(_)), "{len} bytes are left");
        }
        // Not for ever.
        fs::write(&path, b"").unwrap();
        let (later, _) = open(dir.path(), Duration::ZERO, 1);
        assert!(matches!(later.claim(7, 70).unwrap(), Claim::Ours(_)));
    }

    #[test]
    fn who_looks_while_it_is_answered_believes_what_is_there_then() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, _) = open(dir.path(), DAY, 1);
        let Claim::Ours(locked) = kept.claim(7, 70).unwrap() else { panic!("it is new") };
        let path = kept.path(7);
        let opened = File::open(&path).unwrap();
        kept.answered(7, 70, &Known::TooLarge).unwrap();
        locked.unlock();
        assert!(kept.say(&opened, &path).is_err(), "what it looks at is not there any more");
        assert!(matches!(kept.look(&path), Ok(Look::Holds(Read { known: Known::TooLarge, .. }))));
        let Claim::Ours(locked) = kept.claim(8, 80).unwrap() else { panic!("it is new") };
        let opened = File::open(kept.path(8)).unwrap();
        kept.released(8).unwrap();
        locked.unlock();
        assert!(kept.say(&opened, &kept.path(8)).is_err());
    }

    #[test]
    fn processes_of_the_same_number_keep_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (one, _) = open(dir.path(), DAY, 1);
        let Claim::Ours(_locked) = one.claim(7, 70).unwrap() else { panic!("it is new") };
        // It died before it could take its own name of the file away.
        let left = dir.path().join(DIR).join(format!(".{}-0", std::process::id()));
        fs::hard_link(one.path(7), &left).unwrap();
        let (other, _) = open(dir.path(), DAY, 1);
        let Claim::Ours(_mine) = other.claim(8, 80).unwrap() else { panic!("it is new") };
        let said = fs::read(one.path(7)).unwrap();
        assert_eq!(parse_head(&said).map(|(fingerprint, ..)| fingerprint), Some(70));
    }
}
