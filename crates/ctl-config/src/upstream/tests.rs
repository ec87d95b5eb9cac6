//! Servers, and what holds between the keys of an upstream.

use super::*;
use crate::raw::Fault;
use crate::testing::{loaded, wrong};

fn server(text: &str) -> String {
    match ServerAddress::parse(text) {
        Ok(ServerAddress::Tcp { host, port, tls }) => {
            format!("{host} {port}{}", if tls { " tls" } else { "" })
        }
        Ok(ServerAddress::Unix(path)) => path.display().to_string(),
        Err(Fault { .. }) => "refused".to_owned(),
    }
}

#[test]
fn servers_are_written_in_few_ways() {
    for (text, expected) in [
        ("10.0.0.1:8000", "10.0.0.1 8000"),
        ("app-1.internal:80", "app-1.internal 80"),
        ("[fd00::1]:8000", "fd00::1 8000"),
        ("http://app", "app 80"),
        ("http://app:8000/", "app 8000"),
        ("https://app.test", "app.test 443"),
        ("https://app.test:8443", "app.test 8443 tls"),
        ("https://[::1]", "::1 443"),
        ("unix:/run/app.sock", "/run/app.sock"),
    ] {
        let expected =
            if expected.ends_with(" 443") { format!("{expected} tls") } else { expected.to_owned() };
        assert_eq!(server(text), expected, "{text}");
    }
    for bad in [
        "",
        "app",
        ":8000",
        "app:",
        "app:0",
        "app:65536",
        "app:x",
        "a b:80",
        "fd00::1:80",
        "[fd00::1:80",
        "[app]:80",
        "[::1]80",
        "ftp://app",
        "https://",
        "http://app/path",
        "app:80/path",
        "http://user@app",
        "unix:",
        "unix:run/app.sock",
        "unix:/run/\0",
    ] {
        assert_eq!(server(bad), "refused", "{bad}");
    }
}

#[test]
fn servers_have_weights() {
    let weight = |text| ServerAddress::weighted(text).ok().map(|(_, weight)| weight);
    for (text, expected) in [
        ("10.0.0.1:8000", Some(1)),
        ("10.0.0.1:8000 weight=2", Some(2)),
        ("https://a   weight=1000", Some(1000)),
        ("unix:/run/a.sock weight=3", Some(3)),
        ("a:80 weight=0", None),
        ("a:80 weight=1001", None),
        ("a:80 weight=", None),
        ("a:80 weight=2 backup", None),
        ("a:80 2", None),
        ("a:80 ", None),
        (" a:80", None),
        ("a weight=2", None),
    ] {
        assert_eq!(weight(text), expected, "{text}");
    }
}

#[test]
fn what_requests_are_told_apart_by() {
    for good in ["address", "path", "header:X-Tenant", "header:x_1"] {
        assert!(check_hash_by(good).is_ok(), "{good}");
    }
    for bad in ["", "cookie", "header", "header:", "header:a b", "header:a:b", "uri"] {
        assert!(check_hash_by(bad).is_err(), "{bad}");
    }
}

#[test]
fn cookies_have_names_of_their_own() {
    for good in ["shop_server", "__Host-srv", "a"] {
        assert!(check_cookie(good).is_ok(), "{good}");
    }
    for bad in ["", "a b", "a=b", "a;b", "sessionid", "csrftoken", &"a".repeat(65)] {
        assert!(check_cookie(bad).is_err(), "{bad}");
    }
}

#[test]
fn sticky_keys_go_together() {
    insta::assert_snapshot!(wrong(
        "[[upstream]]\nname = \"a\"\nservers = \"10.0.0.1:80\"\nsticky_cookie = \"srv\"\n\n\
         [[upstream]]\nname = \"b\"\nservers = \"10.0.0.1:80\"\nsticky_cookie = \"srv\"\n\n\
         [[upstream]]\nname = \"c\"\nservers = \"10.0.0.1:80\"\nsticky_time = \"1h\"\nsticky_secret_file = \"s\"\n",
    ));
}

#[test]
fn upstreams_in_the_order_of_the_file() {
    let text = "[[upstream]]\nname = \"api\"\nservers = \"10.0.0.1:80\"\npolicy = \"hash\"\nhash_by = \"path\"\nbuffer = false\nkeep_alive = \"5s\"\n\n\
        [[upstream]]\nname = \"other\"\nservers = [\"https://a\", \"unix:/run/b\"]\ntls_ca = \"ca.pem\"\n";
    let loaded = loaded(text);
    let [api, other] = loaded.config.upstream.as_slice() else { panic!("{:?}", loaded.config) };
    let expected = Upstream {
        name: "api".into(),
        servers: vec!["10.0.0.1:80".into()],
        policy: Policy::Hash,
        hash_by: Some("path".into()),
        buffer: false,
        keep_alive: Duration::from_secs(5),
        ..Upstream::default()
    };
    assert_eq!(*api, expected);
    assert_eq!(other.servers, ["https://a", "unix:/run/b"]);
    assert_eq!(other.tls_ca.as_deref(), Some("/srv/shop/ca.pem".as_ref()));
}

#[test]
fn keys_that_are_wrong() {
    insta::assert_snapshot!(wrong(
        "[[upstream]]\nservers = [\"10.0.0.1\", \"ftp://a\"]\nhost = \"a b\"\n\n\
         [[upstream]]\nname = \"a b\"\nbackends = 1\nsni = \"a\"\nconnections_max = 0\npolicy = \"best\"\nretry_budget = 101\nbalance = 1\n\
         check = \"/\"\nrise = 1\nhealth_path = \"up\"\nhealth_status = [\"200\", \"2xx\"]\n",
    ));
}

#[test]
fn routes_and_upstreams() {
    let upstream = "[[upstream]]\nname = \"api\"\nservers = \"10.0.0.1:80\"\n";
    let good =
        format!("{upstream}[[route]]\nupstream = \"api\"\nbody_max = \"1KiB\"\nrequest_headers = \"A: b\"\n");
    let loaded = loaded(&good);
    assert_eq!(loaded.config.route[0].upstream.as_deref(), Some("api"));
    insta::assert_snapshot!(wrong(&format!(
        "{upstream}[[route]]\npath = \"/a\"\nupstream = \"apj\"\n\n\
         [[route]]\npath = \"/b\"\nupstream = \"api\"\napp_timeout = \"1s\"\nmount = \"/b\"\nfiles = \"public\"\n"
    )));
}

#[test]
fn what_does_not_go_together() {
    insta::assert_snapshot!(wrong(
        "[[upstream]]\nname = \"api\"\nservers = [\"a:80\", \"http://a weight=2\"]\ntls_ca = \"x\"\ntls_key = \"y\"\n\n\
         [[upstream]]\nname = \"api\"\nservers = [\"https://a\"]\ntls_certificate = \"x\"\n\n\
         [[upstream]]\nname = \"none\"\nservers = []\nhash_by = \"path\"\n\n\
         [[upstream]]\nname = \"blind\"\nservers = [\"b:80\"]\nhealth_interval = \"1s\"\nhealth_status = \"204\"\n",
    ));
}
