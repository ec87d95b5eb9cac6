//! The roots on a real file system: what is opened, and what never is.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A tree with every kind of way out, beside a secret.
fn tree() -> TempDir {
    let top = tempfile::tempdir().unwrap();
    let (root, outside) = (top.path().join("root"), top.path().join("outside"));
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(root.join("file"), "public").unwrap();
    fs::write(root.join("sub/file"), "public").unwrap();
    fs::write(root.join("sub/deep/file"), "public").unwrap();
    symlink("sub/file", root.join("inside")).unwrap();
    symlink("../file", root.join("sub/up")).unwrap();
    symlink(root.join("file"), root.join("absolute")).unwrap();
    symlink("../outside/secret", root.join("out")).unwrap();
    symlink("../outside", root.join("outdir")).unwrap();
    symlink(outside.join("secret"), root.join("absout")).unwrap();
    symlink("/", root.join("sub/slash")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    top
}

/// The same root, by the kernel's promise and by walking.
fn both_ways(top: &TempDir) -> [(bool, Root); 2] {
    [true, false].map(|beneath| {
        let root = Root::new(top.path().join("root"));
        if !beneath {
            let mut directory = root.directory.write().unwrap();
            let old = directory.take().unwrap();
            let fd = old.fd.try_clone().unwrap();
            let ways = Ways { beneath: false, cached: false };
            *directory = Some(Arc::new(Directory { fd, identity: old.identity, ways }));
        }
        (beneath, root)
    })
}

fn read(root: &Root, path: &str) -> Result<String, OpenError> {
    root.open(path.as_bytes(), Wait::Allowed).map(|(mut file, _)| {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn links() {
    let top = tree();
    for (beneath, root) in both_ways(&top) {
        let follows = beneath && cfg!(target_os = "linux");
        let public = Ok("public".to_owned());
        for path in ["file", "sub/file", "sub/deep/file"] {
            assert_eq!(read(&root, path), public, "{path}");
        }
        for path in ["inside", "sub/up"] {
            assert_eq!(
                read(&root, path),
                if follows { public.clone() } else { Err(OpenError::Escapes) },
                "{path}"
            );
        }
        for path in
            ["absolute", "out", "outdir/secret", "absout", "sub/slash/etc/passwd", "magic/etc/passwd", "loop"]
        {
            let error = read(&root, path).unwrap_err();
            assert!(matches!(error, OpenError::Escapes | OpenError::Missing), "{path}: {error:?}");
            assert!(root.look(path.as_bytes(), Wait::Allowed).is_err(), "{path}");
        }
        for path in [
            "",
            "sub",
            "sub/deep",
            "fifo",
            "nothing",
            "file/x",
            "../outside/secret",
            "/etc/passwd",
            "sub/../../outside/secret",
        ] {
            assert!(read(&root, path).is_err(), "{path}");
        }
        assert_eq!(root.look(b"file", Wait::Allowed).unwrap().len(), 6);
    }
}

#[test]
fn a_reactor_gets_what_the_kernel_remembers() {
    let top = tree();
    let [(_, root), (_, walked)] = both_ways(&top);
    assert_eq!(walked.open(b"file", Wait::Never).unwrap_err(), OpenError::WouldBlock);
    root.open(b"file", Wait::Allowed).unwrap();
    // Just opened, so it is remembered; where the file system cannot say so, it is honest about it.
    assert!(matches!(root.open(b"file", Wait::Never), Ok(_) | Err(OpenError::WouldBlock)));
}

#[test]
fn a_root_may_come_late_and_be_exchanged() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("current");
    let root = Root::new(path.clone());
    assert_eq!(read(&root, "file"), Err(OpenError::NoRoot));
    for (release, text) in [("one", "1"), ("two", "2")] {
        fs::create_dir(top.path().join(release)).unwrap();
        fs::write(top.path().join(release).join("file"), text).unwrap();
    }
    symlink("one", &path).unwrap();
    root.refresh(RECHECK_MS);
    assert_eq!(read(&root, "file"), Ok("1".to_owned()));
    symlink("two", top.path().join("new")).unwrap();
    fs::rename(top.path().join("new"), &path).unwrap();
    root.refresh(RECHECK_MS + 1);
    assert_eq!(read(&root, "file"), Ok("1".to_owned()), "not looked at again within the second");
    root.refresh(2 * RECHECK_MS);
    assert_eq!(read(&root, "file"), Ok("2".to_owned()));
    fs::remove_file(&path).unwrap();
    root.refresh(3 * RECHECK_MS);
    assert_eq!(read(&root, "file"), Err(OpenError::NoRoot));
}

proptest! {
    #[test]
    fn never_escapes(parts in prop::collection::vec(
        prop::sample::select(vec!["file", "sub", "deep", "up", "inside", "absolute", "out", "outdir", "absout", "slash", "loop",
            "magic", "secret", "..", ".", "", "/", "root", "outside", "etc", "passwd"]), 1..7))
    {
        thread_local! { static TREE: TempDir = tree(); }
        let path = parts.join("/");
        TREE.with(|top| {
            for (_, root) in both_ways(top) {
                if let Ok(text) = read(&root, &path) {
                    assert_eq!(text, "public", "{path}");
                }
            }
        });
    }
}
