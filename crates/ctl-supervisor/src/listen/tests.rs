//! Listening sockets, bound for real.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

fn config(bind: Vec<BindAddress>) -> Config {
    let mut config = Config::default();
    config.server.bind = bind;
    config
}

fn tcp(host: &str, port: u16) -> BindAddress {
    BindAddress::Tcp { host: host.into(), port }
}

fn bind_all(config: &Config) -> Result<Vec<Bound>, Problem> {
    super::bind_all(config, &mut Inherited::default())
}

fn port_of(bound: &Bound) -> u16 {
    bound.url.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn addresses_become_urls() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.sock");
    let mut config = config(vec![tcp("127.0.0.1", 0), BindAddress::Unix(path.clone())]);
    let bound = bind_all(&config).unwrap();
    assert!(bound[0].url.starts_with("http://127.0.0.1:") && port_of(&bound[0]) > 0, "{bound:?}");
    assert_eq!((bound[1].url.as_str(), bound[1].unix), (format!("unix:{}", path.display()).as_str(), true));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    UnixStream::connect(&path).unwrap();
    drop(bound);
    assert!(!path.exists(), "our own socket is removed");

    config.tls.certificate = Some("cert.pem".into());
    let bound = bind_all(&config).unwrap();
    assert!(bound[0].tls && bound[0].url.starts_with("https://127.0.0.1:"), "{bound:?}");
    assert!(!bound[1].tls, "a unix socket is behind a proxy");
}

#[test]
fn a_port_in_use_names_the_process() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let problem = bind_all(&config(vec![tcp("127.0.0.1", port)])).unwrap_err();
    assert_eq!(problem.message, format!("cannot listen on 127.0.0.1:{port}"));
    assert!(problem.detail.contains(&format!("(pid {})", std::process::id())), "{problem:?}");
    assert!(problem.hint.contains("--bind 127.0.0.1:"), "{problem:?}");
}

#[test]
fn an_address_of_another_machine_is_explained() {
    // RFC 5737: for documentation, on no machine.
    let problem = bind_all(&config(vec![tcp("192.0.2.1", 0)])).unwrap_err();
    assert!(problem.detail.contains("does not have that address"), "{problem:?}");
}

#[test]
fn both_wildcards_share_a_port() {
    let Ok(first) = bind_all(&config(vec![tcp("::", 0)])) else { return };
    let port = port_of(&first[0]);
    drop(first);
    let both = bind_all(&config(vec![tcp("0.0.0.0", port), tcp("::", port)])).unwrap();
    assert_eq!(both.len(), 2);
}

#[test]
fn a_socket_left_behind_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let (_fd, file) = bind_unix(&path, 8, Reach::Ourselves).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let problem = bind_unix(&path, 8, Reach::Ourselves).unwrap_err();
    assert!(problem.detail.contains("another process listens there"), "{problem:?}");

    // Somebody else's socket in the same place is not ours to remove.
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(file);
    assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_socket());

    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "keep me").unwrap();
    assert!(bind_unix(&file, 8, Reach::Everybody).unwrap_err().detail.contains("it is no socket"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "keep me");
}

#[test]
fn a_descriptor_that_was_not_inherited_is_refused() {
    // Opened by this process: it has FD_CLOEXEC and an owner.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = u16::try_from(inherit::number(&listener)).unwrap();
    let problem = bind_all(&config(vec![BindAddress::Fd(number)])).unwrap_err();
    assert!(problem.detail.contains("was not inherited"), "{problem:?}");
    assert!(listener.local_addr().is_ok(), "and it is still open");
}
