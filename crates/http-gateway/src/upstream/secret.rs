//! What sticky cookies are signed with: a file of the operator's, which several gateways share, or a secret of our own.
//!
//! Our own is made once and kept in `server.state_dir`, so that clients find their servers again after a crash, an upgrade and a
//! restart. Where it cannot be kept it is made from the instance's token: a gateway that is started again has the same one,
//! the next instance another.

use std::cell::OnceCell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_upstream::Secret;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

/// In `server.state_dir`.
const FILE: &str = "sticky";

/// A secret is a line; a device or a log is none.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// 128 bits, if all of them are random: who wrote fewer did not mean a secret.
const SHARED_BYTES_MIN: usize = 16;

const SECRET_BYTES: usize = 32;

/// Where secrets come from. By default from nowhere, for a look at the files that the configuration names.
#[derive(Debug, Default)]
pub struct Secrets {
    state_dir: Option<PathBuf>,
    token: Option<String>,
    own: OnceCell<Secret>,
}

impl Secrets {
    /// `token` is the instance's, which nobody else knows.
    pub fn new(state_dir: Option<PathBuf>, token: String) -> Self {
        Self { state_dir, token: Some(token), own: OnceCell::new() }
    }

    /// From this file, or our own. The error is for the operator. Blocks on the disk.
    pub(super) fn of(&self, file: Option<&Path>) -> Result<Secret, String> {
        match file {
            Some(file) => {
                shared(file).map_err(|why| format!("sticky_secret_file: {}: {why}", file.display()))
            }
            None => Ok(self.own.get_or_init(|| self.keep()).clone()),
        }
    }

    fn keep(&self) -> Secret {
        let Some(token) = &self.token else { return from_text(b"nobody") };
        let kept = match &self.state_dir {
            Some(dir) => kept(dir),
            None => Err(io::Error::other("there is no directory to keep it in")),
        };
        kept.unwrap_or_else(|error| {
            tracing::warn!(
                hint = "name a directory that quintet may write to in server.state_dir, or a file in sticky_secret_file",
                "clients of sticky upstreams will not find their servers again after a restart: {error}"
            );
            from_text(format!("sticky cookies of {token}").as_bytes())
        })
    }
}

/// Whatever text it is: all gateways that read the same one have the same secret.
fn from_text(text: &[u8]) -> Secret {
    let mut bytes = [0; SECRET_BYTES];
    bytes.copy_from_slice(digest(&SHA256, text).as_ref());
    Secret::from_bytes(&bytes)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text.trim_ascii().to_vec())
}

fn shared(file: &Path) -> Result<Secret, String> {
    let text = read(file).map_err(|error| error.to_string())?;
    if text.len() < SHARED_BYTES_MIN {
        return Err(format!(
            "a secret has at least {SHARED_BYTES_MIN} letters\nhint: openssl rand -hex 32 writes one"
        ));
    }
    Ok(from_text(&text))
}

/// The one that is there, or a new one. Of two processes that make one at the same time both get the same.
fn kept(dir: &Path) -> io::Result<Secret> {
    let path = dir.join(FILE);
    let known = |text: Vec<u8>| {
        STANDARD.decode(&text).is_ok_and(|bytes| bytes.len() == SECRET_BYTES).then(|| from_text(&text))
    };
    match read(&path) {
        Ok(text) => match known(text) {
            Some(secret) => return Ok(secret),
            // Cut off by a full disk or a crash of the machine: no cookie was ever made with it as it should be.
            None => fs::remove_file(&path)?,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut random = [0; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let text = STANDARD.encode(random);
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let beside = dir.join(format!(".{FILE}-{}", std::process::id()));
    let linked = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()))
        // A link, not a rename: who comes second must not replace what the first uses already.
        .and_then(|()| fs::hard_link(&beside, &path));
    let _ = fs::remove_file(&beside);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => known(read(&path)?).ok_or_else(|| io::Error::other("somebody else writes there")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use http_upstream::Token;

    use super::*;

    fn token(secrets: &Secrets, file: Option<&Path>) -> Result<String, String> {
        secrets.of(file).map(|secret| Token::new(&secret, "api", "http://a:80").to_string())
    }

    fn in_dir(dir: &Path) -> Secrets {
        Secrets::new(Some(dir.to_path_buf()), String::new())
    }

    #[test]
    fn our_own_outlives_the_process_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("made/here");
        let first = token(&in_dir(&state), None);
        assert_eq!(token(&in_dir(&state), None), first);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
        assert_eq!(state.read_dir().unwrap().count(), 1, "nothing is left beside it");
        fs::write(state.join(FILE), "cut off").unwrap();
        let second = token(&in_dir(&state), None);
        assert_ne!(second, first);
        assert_eq!(token(&in_dir(&state), None), second);
        assert_ne!(token(&in_dir(&dir.path().join("another")), None), second);
    }

    #[test]
    fn where_it_cannot_be_kept_the_instance_has_one() {
        let with = |token_text: &str| token(&Secrets::new(None, token_text.to_owned()), None);
        assert_eq!(with("a"), with("a"));
        assert_ne!(with("a"), with("b"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let nowhere = Secrets::new(Some(file.path().join("below")), "a".to_owned());
        assert_eq!(token(&nowhere, None), with("a"), "a file is no directory");
    }

    #[test]
    fn a_file_is_shared_by_all_who_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (one, other) = (in_dir(&dir.path().join("one")), in_dir(&dir.path().join("other")));
        let good = write("good", "0123456789abcdef");
        assert_eq!(token(&one, Some(&good)), token(&other, Some(&write("line", "0123456789abcdef\n"))));
        assert_ne!(token(&one, Some(&good)), token(&one, None));
        assert!(token(&one, Some(&write("short", "0123456789abcde\n"))).unwrap_err().contains("openssl"));
        assert!(
            token(&one, Some(&dir.path().join("none"))).unwrap_err().starts_with("sticky_secret_file: /")
        );
    }
}
