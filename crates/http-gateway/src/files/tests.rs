//! Files end to end: from a request target to status, fields and bytes.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ctl_config::Media;
use py_link::Version;
use tempfile::TempDir;

use super::*;

mod accel;
mod compression;

/// A project with its directories: `static`, `media`, `private` (for accel), and two finders.
struct Site {
    top: TempDir,
    config: Config,
    app: AppReport,
}

impl Site {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let path = top.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let app = AppReport {
            static_url: Some("/static/".into()),
            static_root: Some(dir("static")),
            static_finders: vec![(String::new(), dir("one")), ("two".into(), dir("two"))],
            media_url: Some("/media/".into()),
            media_root: Some(dir("media")),
            ..AppReport::default()
        };
        let mut config = Config::default();
        config.files.accel = vec![format!("/protected/={}", dir("private").display())];
        Self { top, config, app }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// Writes a file as if that was a while ago.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        self.write_at(name, bytes, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    }

    fn write_at(&self, name: &str, bytes: impl AsRef<[u8]>, modified: SystemTime) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        self
    }

    fn files(&self) -> Files {
        Files::new(&self.config, &self.app).unwrap()
    }
}

fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut headers = Headers::default();
    headers.push(b"host", b"example.com");
    for (name, value) in fields {
        headers.push_lower(name.as_bytes(), value.as_bytes());
    }
    let method = Method::from_bytes(method.as_bytes());
    RequestHead { method, target: target.as_bytes().to_vec(), version: Version::Http11, headers }
}

fn field(response: &FileResponse, name: &str) -> Option<String> {
    response.headers.get(name).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn body(response: &FileResponse) -> Vec<u8> {
    match &response.body {
        Body::Empty => Vec::new(),
        Body::Bytes(bytes) => bytes.to_vec(),
        Body::File(part) => {
            let mut bytes = vec![0; part.len as usize];
            part.file.read_exact_at(&mut bytes, part.offset).unwrap();
            bytes
        }
        Body::Stream(_) => panic!("no file streams"),
    }
}

async fn get(files: &Files, target: &str, fields: &[(&str, &str)]) -> FileResponse {
    let response = files.answer(&head("GET", target, fields)).await.expect("a file");
    if response.status != 304 && response.status != 204 {
        assert_eq!(
            field(&response, "content-length").unwrap(),
            body(&response).len().to_string(),
            "{target}"
        );
    }
    response
}

async fn status(files: &Files, method: &str, target: &str) -> Option<u16> {
    files.answer(&head(method, target, &[])).await.map(|response| response.status)
}

#[tokio::test]
async fn a_static_file() {
    let site = Site::new();
    site.write("static/css/app.css", "body {}");
    let files = site.files();
    for _ in 0..2 {
        let response = get(&files, "/static/css/app.css?v=1", &[]).await;
        assert_eq!(response.status, 200);
        assert_eq!(body(&response), b"body {}");
        assert_eq!(field(&response, "content-type").unwrap(), "text/css; charset=utf-8");
        assert_eq!(field(&response, "cache-control").unwrap(), "public, max-age=60");
        assert_eq!(field(&response, "last-modified").unwrap(), "Tue, 14 Nov 2023 22:13:20 GMT");
        assert_eq!(field(&response, "accept-ranges").unwrap(), "bytes");
        assert_eq!(field(&response, "access-control-allow-origin").unwrap(), "*");
        assert!(field(&response, "etag").unwrap().starts_with('"'));
        assert!(field(&response, "set-cookie").is_none());
    }
}

#[tokio::test]
async fn what_is_not_ours_and_what_is_not_there() {
    let site = Site::new();
    site.write("static/a.css", "a")
        .write("static/.env", "secret")
        .write("static/sub/index.html", "x")
        .write("secret", "s");
    symlink(site.path("secret"), site.path("static/link")).unwrap();
    let files = site.files();
    for target in ["/", "/about/", "/static", "/staticx/a.css", "/foo/../static/a.css", "*", "/media/x.png"] {
        assert_eq!(status(&files, "GET", target).await, None, "{target}");
        assert_eq!(status(&files, "POST", target).await, None, "{target}");
    }
    for target in [
        "/static/",
        "/static/b.css",
        "/static/.env",
        "/static/sub",
        "/static/sub/",
        "/static/../secret",
        "/static/%2e%2e/secret",
        "/static/..%2fsecret",
        "/static/sub%2findex.html",
        "/static//a.css",
        "/static/a.css%00",
        "/static/a.css/",
        "/static/link",
        "/static/a.css/x",
        "/static/%zz",
        "/static/sub\\index.html",
    ] {
        for _ in 0..2 {
            assert_eq!(status(&files, "GET", target).await, Some(404), "{target}");
        }
    }
    assert_eq!(status(&files, "GET", "/%73tatic/%61.css").await, Some(200));
}

#[tokio::test]
async fn methods() {
    let site = Site::new();
    site.write("static/a.css", "a");
    let files = site.files();
    let response = files.answer(&head("HEAD", "/static/a.css", &[])).await.unwrap();
    assert_eq!((response.status, field(&response, "content-length").unwrap()), (200, "1".to_owned()));
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PURGE"] {
        let response = files.answer(&head(method, "/static/a.css", &[])).await.unwrap();
        assert_eq!(
            (response.status, field(&response, "allow").unwrap()),
            (405, "GET, HEAD, OPTIONS".to_owned())
        );
    }
    assert_eq!(status(&files, "OPTIONS", "/static/a.css").await, Some(204));
}

#[tokio::test]
async fn the_app_keeps_what_may_be_its_own() {
    let mut site = Site::new();
    site.write("static/a.css", "a");
    site.app.static_url = Some("/".into());
    let files = site.files();
    assert_eq!(status(&files, "GET", "/a.css").await, Some(200));
    for (method, target) in
        [("GET", "/"), ("GET", "/b"), ("POST", "/a.css"), ("GET", "/../a.css"), ("GET", "/.git")]
    {
        assert_eq!(status(&files, method, target).await, None, "{target}");
    }
    // Until collectstatic has run.
    let mut site = Site::new();
    site.app.static_root = Some(site.path("later"));
    let files = site.files();
    for _ in 0..2 {
        assert_eq!(status(&files, "GET", "/static/a.css").await, None);
    }
    site.config.files.enabled = false;
    assert_eq!(status(&site.files(), "GET", "/static/a.css").await, None);
}

#[tokio::test]
async fn finders_with_debug() {
    let mut site = Site::new();
    site.app.debug = true;
    site.write("static/old.css", "collected")
        .write("one/a.css", "first")
        .write("two/a.css", "second")
        .write("two/b.css", "b");
    let files = site.files();
    let a = get(&files, "/static/a.css", &[]).await;
    assert_eq!(body(&a), b"first");
    assert_eq!(field(&a, "cache-control").unwrap(), "no-cache");
    assert_eq!(body(&get(&files, "/static/two/a.css", &[]).await), b"second");
    assert_eq!(status(&files, "GET", "/static/b.css").await, None, "for staticfiles' own handler");
    assert_eq!(status(&files, "GET", "/static/old.css").await, None);
    // What is edited is seen at once.
    site.write("one/a.css", "edited");
    assert_eq!(body(&get(&files, "/static/a.css", &[]).await), b"edited");
    site.write("one/two/a.css", "hides the second");
    assert_eq!(body(&get(&files, "/static/two/a.css", &[]).await), b"hides the second");
    fs::remove_file(site.path("one/two/a.css")).unwrap();
    assert_eq!(body(&get(&files, "/static/two/a.css", &[]).await), b"second");
    fs::remove_file(site.path("two/a.css")).unwrap();
    assert_eq!(status(&files, "GET", "/static/two/a.css").await, None);
}

#[tokio::test]
async fn media_by_policy() {
    let mut site = Site::new();
    site.write("media/a.svg", "<svg/>").write("media/a.png", "png");
    assert_eq!(status(&site.files(), "GET", "/media/a.png").await, None);
    site.config.files.media = Media::Public;
    let files = site.files();
    let response = get(&files, "/media/a.svg", &[]).await;
    assert_eq!(field(&response, "x-content-type-options").unwrap(), "nosniff");
    assert_eq!(field(&response, "content-security-policy").unwrap(), "sandbox");
    assert!(field(&response, "access-control-allow-origin").is_none());
    assert!(field(&get(&files, "/media/a.png", &[]).await, "content-security-policy").is_none());
    assert_eq!(status(&files, "GET", "/media/none.png").await, None);
    site.config.files.media = Media::Auto;
    (site.app.debug, site.app.media_in_urlconf) = (true, true);
    assert_eq!(status(&site.files(), "GET", "/media/a.png").await, Some(200));
    site.config.files.media = Media::Off;
    assert_eq!(status(&site.files(), "GET", "/media/a.png").await, None);
}

#[tokio::test]
async fn changes_are_seen_soon() {
    let site = Site::new();
    site.write("static/a.css", "old").write("static/large.bin", vec![1; 300_000]);
    let files = site.files();
    assert_eq!(status(&files, "GET", "/static/new.css").await, Some(404));
    let old = get(&files, "/static/a.css", &[]).await;
    let large = get(&files, "/static/large.bin", &[]).await;
    site.write("static/a.css", "new").write("static/new.css", "x").write("static/large.bin", vec![2; 10]);
    assert_eq!(body(&get(&files, "/static/a.css", &[]).await), b"old");
    tokio::time::sleep(Duration::from_millis(RECHECK_MS + 50)).await;
    let new = get(&files, "/static/a.css", &[]).await;
    assert_eq!(body(&new), b"new");
    assert_ne!(field(&old, "etag"), field(&new, "etag"));
    assert_eq!(status(&files, "GET", "/static/new.css").await, Some(200));
    let small = get(&files, "/static/large.bin", &[]).await;
    assert_eq!(body(&small), vec![2; 10]);
    assert_ne!(field(&large, "etag"), field(&small, "etag"));
    fs::remove_file(site.path("static/a.css")).unwrap();
    tokio::time::sleep(Duration::from_millis(RECHECK_MS + 50)).await;
    assert_eq!(status(&files, "GET", "/static/a.css").await, Some(404));
}

#[tokio::test]
async fn hashed_names_are_immutable_where_the_storage_hashes() {
    let mut site = Site::new();
    site.write("static/a.0123456789ab.css", "a").write("static/a.css", "a");
    assert_eq!(
        field(&get(&site.files(), "/static/a.0123456789ab.css", &[]).await, "cache-control").unwrap(),
        "public, max-age=60"
    );
    site.app.static_hashed = true;
    let files = site.files();
    let hashed = get(&files, "/static/a.0123456789ab.css", &[]).await;
    assert_eq!(field(&hashed, "cache-control").unwrap(), "public, max-age=31536000, immutable");
    assert_eq!(
        field(&get(&files, "/static/a.css", &[]).await, "cache-control").unwrap(),
        "public, max-age=60"
    );
    site.config.files.max_age = Duration::ZERO;
    assert_eq!(field(&get(&site.files(), "/static/a.css", &[]).await, "cache-control").unwrap(), "no-cache");
}

#[tokio::test]
async fn conditional_requests() {
    let site = Site::new();
    site.write("static/a.css", "body {}");
    let files = site.files();
    let response = get(&files, "/static/a.css", &[]).await;
    let (etag, modified) = (field(&response, "etag").unwrap(), field(&response, "last-modified").unwrap());
    for fields in [&[("If-None-Match", etag.as_str())][..], &[("If-Modified-Since", modified.as_str())]] {
        let response = get(&files, "/static/a.css", fields).await;
        assert_eq!((response.status, body(&response)), (304, vec![]));
        // RFC 9110, 15.4.5.
        for name in ["etag", "cache-control", "last-modified"] {
            assert!(field(&response, name).is_some(), "{name}");
        }
        assert!(field(&response, "content-length").is_none() && field(&response, "content-type").is_none());
    }
    assert_eq!(get(&files, "/static/a.css", &[("If-Match", "\"other\"")]).await.status, 412);
    // Preconditions are for what would succeed (RFC 9110, 13.2.1).
    assert_eq!(get(&files, "/static/none.css", &[("If-None-Match", "*")]).await.status, 404);
}

#[tokio::test]
async fn ranges_of_small_and_large_files() {
    let site = Site::new();
    let bytes: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    site.write("static/large.bin", &bytes).write("static/small.bin", &bytes[..1000]);
    let files = site.files();
    for (target, size) in [("/static/large.bin", 300_000), ("/static/small.bin", 1000)] {
        let response = get(&files, target, &[("Range", "bytes=100-199")]).await;
        assert_eq!((response.status, body(&response)), (206, bytes[100..200].to_vec()));
        assert_eq!(field(&response, "content-range").unwrap(), format!("bytes 100-199/{size}"));
        let response = get(&files, target, &[("Range", "bytes=0-4,500-504")]).await;
        assert_eq!(response.status, 206);
        let content_type = field(&response, "content-type").unwrap();
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        assert!(field(&response, "content-range").is_none());
        let mut expected = Vec::new();
        for (range, bytes) in [("0-4", &bytes[..5]), ("500-504", &bytes[500..505])] {
            let part = format!(
                "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {range}/{size}\r\n\r\n"
            );
            expected.extend([part.as_bytes(), bytes, b"\r\n"].concat());
        }
        expected.extend(format!("--{boundary}--\r\n").as_bytes());
        assert_eq!(body(&response), expected);
        let response = get(&files, target, &[("Range", "bytes=900000-")]).await;
        assert_eq!(
            (response.status, field(&response, "content-range").unwrap()),
            (416, format!("bytes */{size}"))
        );
        let response = get(&files, target, &[("Range", "bytes=0-0"), ("If-Range", "\"other\"")]).await;
        assert_eq!((response.status, body(&response).len()), (200, size));
        let head = head("HEAD", target, &[("Range", "bytes=0-0")]);
        assert_eq!(files.answer(&head).await.unwrap().status, 200, "RFC 9110, 14.2: only for GET");
    }
}

#[tokio::test]
async fn loaded_by_many_kept_once() {
    let site = Site::new();
    for round in 0..20 {
        site.write("static/a.css", format!("body {{}} {round}").repeat(20_000));
        let files = site.files();
        // As on a cold disk: everybody waits for it on the blocking pool.
        let ask = || {
            let shared = Arc::clone(&files.shared);
            tokio::task::spawn_blocking(move || {
                let mount = shared.mounts.iter().position(|m| m.plan.prefix == b"/static/").unwrap();
                let ask = Ask { mount, path: b"a.css", accepted: Accepted::default() };
                match shared.choose(ask, Wait::Allowed).unwrap() {
                    Chosen::Plain(entry) => entry,
                    _ => panic!("nothing but the file was asked for"),
                }
            })
        };
        let mut entries = Vec::new();
        for task in (0..16).map(|_| ask()).collect::<Vec<_>>() {
            entries.push(task.await.unwrap());
        }
        let ids: std::collections::HashSet<u64> = entries.iter().map(|entry| entry.id).collect();
        assert_eq!(ids.len(), 1, "in round {round}");
    }
}

#[tokio::test]
async fn nothing_is_kept_without_memory_and_all_still_works() {
    let mut site = Site::new();
    site.config.files.memory = 0;
    site.write("static/a.css", "body {}".repeat(1000));
    let files = site.files();
    for _ in 0..3 {
        assert_eq!(get(&files, "/static/a.css", &[("Accept-Encoding", "gzip")]).await.status, 200);
        assert_eq!(status(&files, "GET", "/static/none").await, Some(404));
    }
}

#[tokio::test]
async fn repeatable_builds_do_not_fool_browsers() {
    let site = Site::new();
    // The date that such builds give to every file.
    let constant = SystemTime::UNIX_EPOCH + Duration::from_secs(315_532_800);
    site.write_at("static/a.css", "one", constant);
    let one = get(&site.files(), "/static/a.css", &[]).await;
    site.write_at("static/a.css", "two", constant);
    let two = get(&site.files(), "/static/a.css", &[]).await;
    assert_ne!(field(&one, "etag"), field(&two, "etag"));
    assert!(field(&one, "last-modified").is_none());
}

#[test]
fn an_entity_tag_names_one_content_however_files_change() {
    let mut site = Site::new();
    // Looked at for each request, so that every change is met in every state.
    site.app.debug = true;
    site.write("one/a.css", "version 0");
    let files = site.files();
    let done = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let read = async || {
                    let mut seen = std::collections::BTreeSet::new();
                    while !done.load(Relaxed) {
                        let response = get(&files, "/static/a.css", &[]).await;
                        seen.insert((field(&response, "etag").unwrap(), body(&response)));
                    }
                    seen
                };
                let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                scope.spawn(move || runtime().block_on(read()))
            })
            .collect();
        for version in 1..100 {
            site.write("new", format!("version {version}").repeat(1 + version % 7));
            fs::rename(site.path("new"), site.path("one/a.css")).unwrap();
            std::thread::yield_now();
        }
        done.store(true, Relaxed);
        readers
            .into_iter()
            .flat_map(|reader| reader.join().unwrap())
            .collect::<std::collections::BTreeSet<_>>()
    });
    let tags: std::collections::BTreeSet<_> = seen.iter().map(|(etag, _)| etag).collect();
    assert_eq!(tags.len(), seen.len(), "no tag for two contents");
    assert!(seen.len() > 1);
}
